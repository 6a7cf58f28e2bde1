//! What `causeway.report` adds to an answer, as parameters that change: the token of what has been
//! written, and a receipt of where the answer came from.

use std::time::Instant;

use super::Session;
use super::relay::Inflow;
use super::tokens::TOKEN;
use super::upstream::{Footprint, Upstream};
use crate::protocol::message::{self, TransactionStatus};
use crate::protocol::owed::Fate;
use crate::routing::Role;

pub const RECEIPT: &str = "causeway.receipt";

/// Whether a session is told more than PostgreSQL would tell it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Report {
    #[default]
    Off,
    On,
}

/// The end of an answer that the client has not been given yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeldReady(TransactionStatus);

impl Session {
    /// A ReadyForQuery has come. If the client gets it later, or with more in front of it, it is put
    /// into `due` in its turn, and true says so.
    ///
    /// The answer to a write is held back until its position is known: that comes right behind it.
    pub(super) fn holds_ready(
        &mut self,
        upstream: &Upstream,
        fate: Fate,
        status: TransactionStatus,
    ) -> bool {
        match fate {
            Fate::Capture => {
                if let Some(HeldReady(status)) = self.held_ready.take() {
                    self.report(upstream, status);
                }
                false
            }
            Fate::Forward if self.ties_others() => {
                if self.position_follows(upstream, status) {
                    self.held_ready = Some(HeldReady(status));
                } else {
                    self.share_sight(upstream);
                    self.report(upstream, status);
                }
                true
            }
            Fate::Forward | Fate::Swallow | Fate::Settings | Fate::Holdings => false,
        }
    }

    /// Others depend on when this session's positions are known.
    pub(super) fn ties_others(&self) -> bool {
        self.preferences.report == Report::On || self.preferences.session_key.is_some()
    }

    /// A capture is on its way, or will be as soon as the server is at rest, and nothing that the
    /// client waits for comes before it.
    fn position_follows(&self, upstream: &Upstream, status: TransactionStatus) -> bool {
        let owed = &upstream.server.owed;
        let alone = status == TransactionStatus::Idle
            && upstream.role == Role::Primary
            && upstream.sending == upstream.receiving
            && !owed.is_mid_cycle()
            && self.inflow == Inflow::Frames;
        let will_be_sent = upstream.footprint == Footprint::Deep
            && owed.is_empty()
            && upstream.server.wire.output.is_empty()
            && self.wants_positions();
        alone && (owed.owes_capture() || will_be_sent)
    }

    /// The held end of an answer, if there is one, goes out as it is: no position will come.
    pub(super) fn give_up_position(&mut self) {
        if let Some(HeldReady(status)) = self.held_ready.take() {
            let mut out = Vec::new();
            message::put_ready_for_query(&mut out, status);
            self.client.output.extend(&out);
        }
    }

    fn report(&mut self, upstream: &Upstream, status: TransactionStatus) {
        let mut out = std::mem::take(&mut self.due);
        if self.preferences.report == Report::On {
            // A footprint that is left is one whose position is not known.
            let is_known = upstream.role == Role::Primary
                && upstream.footprint == Footprint::None
                && status == TransactionStatus::Idle;
            if let (true, Some(token)) = (is_known, self.token()) {
                message::put_parameter_status(&mut out, TOKEN, &token);
            }
            let receipt = self.receipt(upstream);
            message::put_parameter_status(&mut out, RECEIPT, &receipt);
        }
        message::put_ready_for_query(&mut out, status);
        self.due = out;
    }

    /// Node, position (a lower bound) and staleness (an upper bound) of what has just answered.
    fn receipt(&self, upstream: &Upstream) -> String {
        let topology = self.services.feed.topology();
        let node = topology.node(upstream.node);
        let seen = node.observation();
        let (role, staleness) = match upstream.role {
            Role::Primary => ("primary", Some(std::time::Duration::ZERO)),
            Role::Replica => {
                let lsn = seen.map(|seen| seen.lsn);
                let now = Instant::now();
                let staleness = lsn.and_then(|lsn| topology.history.staleness(lsn, now));
                ("replica", staleness)
            }
        };
        let lsn = match (upstream.role, seen) {
            (Role::Replica, Some(seen)) => seen.lsn.to_string(),
            (Role::Primary, Some(seen)) => seen.lsn.max(self.floor.lsn()).to_string(),
            (_, None) => "-".to_owned(),
        };
        let staleness = staleness.map_or_else(
            || "-".to_owned(),
            |bound| format!("{:.3}", bound.as_secs_f64() * 1000.0),
        );
        format!(
            "node={} role={role} lsn={lsn} staleness_ms={staleness}",
            node.name
        )
    }
}
