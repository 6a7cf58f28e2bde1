//! What `causeway.report` adds to an answer, as parameters that change: the token of what has been
//! written, and a receipt of where the answer came from.

use std::time::{Duration, Instant};

use super::Session;
use super::relay::Inflow;
use super::tokens::TOKEN;
use super::upstream::{Footprint, Upstream};
use crate::protocol::message::{self, TransactionStatus};
use crate::protocol::owed::Fate;
use crate::routing::{Lsn, NodeIndex, Role, Topology};

pub const RECEIPT: &str = "causeway.receipt";

/// Whether a session is told more than PostgreSQL would tell it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Report {
    #[default]
    Off,
    On,
}

/// The end of an answer that the client has not been given yet.
#[derive(Clone, Debug)]
pub(super) enum HeldReady {
    /// It waits for the position behind it.
    ForPosition(TransactionStatus),
    /// It waits for the key store to know that position. What the client gets then.
    ForStore(Vec<u8>),
}

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
            Fate::Capture | Fate::Sight => {
                if let Some(HeldReady::ForPosition(status)) = self.held_ready {
                    self.held_ready = None;
                    if fate == Fate::Sight {
                        self.share_sight(upstream);
                    }
                    self.end_answer(upstream, status);
                }
                false
            }
            Fate::Forward | Fate::CaptureOfCommit if self.ties_others() => {
                if self.position_follows(upstream, status) {
                    self.held_ready = Some(HeldReady::ForPosition(status));
                } else {
                    self.share_sight(upstream);
                    self.end_answer(upstream, status);
                }
                true
            }
            Fate::Forward
            | Fate::CaptureOfCommit
            | Fate::Number
            | Fate::Trial
            | Fate::Swallow
            | Fate::Settings
            | Fate::Perhaps
            | Fate::Holdings => false,
        }
    }

    /// Others depend on when this session's positions are known.
    pub(super) fn ties_others(&self) -> bool {
        self.preferences.report == Report::On || self.preferences.session_key.is_some()
    }

    /// A capture, or what a replica has shown, is on its way, or will be as soon as the server is at
    /// rest, and nothing that the client waits for comes before it.
    fn position_follows(&self, upstream: &Upstream, status: TransactionStatus) -> bool {
        let owed = &upstream.server.owed;
        let captures_sight = status == TransactionStatus::Transaction && self.shares_key();
        let alone = (status == TransactionStatus::Idle || captures_sight)
            && upstream.sending == upstream.receiving
            && !owed.is_mid_cycle()
            && self.inflow == Inflow::Frames;
        let will_be_sent = status == TransactionStatus::Idle
            && upstream.footprint == Footprint::Deep
            && owed.is_empty()
            && upstream.server.wire.output.is_empty()
            && self.wants_positions();
        alone
            && match upstream.role {
                Role::Primary => owed.owes(Fate::Capture) || will_be_sent,
                Role::Replica => owed.owes(Fate::Sight),
            }
    }

    /// The held end of an answer, if there is one, goes out as it is: no position will come.
    pub(super) fn give_up_position(&mut self) {
        if let Some(HeldReady::ForPosition(status)) = self.held_ready {
            let mut out = Vec::new();
            message::put_ready_for_query(&mut out, status);
            self.held_ready = None;
            match self.shares_key() {
                true => self.held_ready = Some(HeldReady::ForStore(out)),
                false => self.client.output.extend(&out),
            }
        }
    }

    /// The client gets the end of its answer, or will when the key store knows of it.
    fn end_answer(&mut self, upstream: &Upstream, status: TransactionStatus) {
        let end = self.report(upstream, status);
        match self.shares_key() {
            true => self.held_ready = Some(HeldReady::ForStore(end)),
            false => self.due.extend(end),
        }
    }

    fn report(&mut self, upstream: &Upstream, status: TransactionStatus) -> Vec<u8> {
        let mut out = Vec::new();
        if self.preferences.report == Report::On {
            // A footprint that is left is one whose position is not known.
            let is_known = upstream.role == Role::Primary
                && upstream.footprint == Footprint::None
                && status == TransactionStatus::Idle
                && self.knows_its_floor();
            if let (true, Some(token)) = (is_known, self.token()) {
                message::put_parameter_status(&mut out, TOKEN, &token);
            }
            let receipt = self.receipt(upstream);
            message::put_parameter_status(&mut out, RECEIPT, &receipt);
        }
        message::put_ready_for_query(&mut out, status);
        out
    }

    /// Node, position (a lower bound) and staleness (an upper bound) of what has just answered.
    fn receipt(&self, upstream: &Upstream) -> String {
        let topology = self.services.feed.topology();
        let node = topology.node(upstream.node);
        let role = match upstream.role {
            Role::Primary => "primary",
            Role::Replica => "replica",
        };
        let bounds = self.seen(upstream.node, upstream.role).bounds(&topology);
        format!("node={} role={role} {bounds}", node.name)
    }

    /// What a node is known to show now.
    pub(super) fn seen(&self, node: NodeIndex, role: Role) -> Seen {
        let topology = self.services.feed.topology();
        let seen = topology.node(node).observation().map(|seen| seen.lsn);
        let lsn = match role {
            Role::Replica => seen,
            Role::Primary => seen.map(|lsn| lsn.max(self.floor.lsn())),
        };
        Seen {
            role,
            lsn,
            at: Instant::now(),
        }
    }
}

/// What a node was known to show at a moment.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    role: Role,
    /// A lower bound.
    lsn: Option<Lsn>,
    at: Instant,
}

impl Seen {
    /// The position, a lower bound, and the staleness, an upper bound. What has been learned since can only
    /// make that smaller.
    pub fn bounds(&self, topology: &Topology) -> String {
        let staleness = match self.role {
            Role::Primary => Some(Duration::ZERO),
            Role::Replica => self
                .lsn
                .and_then(|lsn| topology.history.staleness(lsn, self.at)),
        };
        let lsn = self
            .lsn
            .map_or_else(|| "-".to_owned(), |lsn| lsn.to_string());
        let staleness = staleness.map_or_else(
            || "-".to_owned(),
            |bound| format!("{:.3}", bound.as_secs_f64() * 1000.0),
        );
        format!("lsn={lsn} staleness_ms={staleness}")
    }
}
