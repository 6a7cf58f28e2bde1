//! Parting from a server: back to its pool, or lost.

use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::relay::{Failure, Inflow};
use super::upstream::{Afterwards, Cycle, Footprint, Refused, Upstream};
use super::{End, LocalTransaction, Mode, Session};
use crate::pool::Lent;
use crate::protocol::error::{Fault, SqlState};
use crate::protocol::frame::{bind_parts, frames, frontend, parse_parts};
use crate::protocol::message;
use crate::protocol::owed::Fate;
use crate::routing::{Guarantee, Role};
use crate::server::HELD_SQL_STATEMENTS;
use crate::sql::Effect;

impl Session {
    /// The session keeps its server past the transaction: the one that it has at present, unless
    /// that stands in for the one it is pinned to.
    pub(super) fn keeps_server(&self) -> bool {
        (!self.pins.is_none() || self.mode == Mode::Session) && self.parked.is_none()
    }

    /// Lays the server aside that the session is pinned to, so that another one can answer a read.
    pub(super) fn park(&mut self) {
        if let Some(mut upstream) = self.upstream.take() {
            self.note_footprint(&upstream);
            upstream.footprint = Footprint::None;
            self.cancel.slot().disarm();
            self.parked = Some(upstream);
        }
    }

    /// Takes the server up again that the session is pinned to.
    pub(super) fn unpark(&mut self) {
        if let Some(upstream) = self.parked.take() {
            self.cancel.slot().aim(upstream.server.cancel_target());
            self.upstream = Some(upstream);
        }
    }

    /// Gives a server back that has nothing more to do for this session.
    pub(super) fn release(&mut self, upstream: Box<Upstream>) {
        self.note_footprint(&upstream);
        self.give_up_position();
        let Upstream {
            mut server,
            applied,
            afterwards,
            perhaps,
            ..
        } = *upstream;
        server.settings = applied.current().clone();
        let free = self.cancel.slot().disarm();
        // Of what it was to prepare it has not said yet whether it could.
        let is_in_doubt = !perhaps.is_empty();
        if server.sql_statements.len() > HELD_SQL_STATEMENTS || is_in_doubt {
            server.discard();
            return;
        }
        match afterwards {
            Afterwards::Discard => server.discard(),
            Afterwards::Pool if free => drop(server),
            Afterwards::Pool => self.release_after_cancel(server),
        }
    }

    /// Raises the floor to what this server may have shown.
    pub(super) fn note_footprint(&mut self, upstream: &Upstream) {
        self.raise_floor_behind(upstream);
        self.share_floor();
    }

    /// As [`note_footprint`](Self::note_footprint), for this session alone.
    pub(super) fn raise_floor_behind(&mut self, upstream: &Upstream) {
        let guarantees = self.services.options.guarantees;
        match (upstream.role, upstream.footprint) {
            (Role::Primary, Footprint::None) => {}
            (Role::Primary, _) if !guarantees.hold(Guarantee::LostCaptures) => {}
            (Role::Primary, _) if upstream.may_have_committed() => {
                let now = Instant::now();
                self.floor.raise_to_write(None, upstream.timeline, now);
            }
            (Role::Primary, _) => self.floor.raise_to_primary_after(Instant::now()),
            (Role::Replica, _) if upstream.is_sighted => {}
            (Role::Replica, _) if guarantees.hold(Guarantee::HandOff) => {
                self.floor.saw_replica(upstream.node, Instant::now());
            }
            (Role::Replica, _) => {}
        }
    }

    /// A cancel request is on its way to the server: it must hit nobody else. When it has arrived,
    /// one round trip makes sure that the server has dealt with it.
    fn release_after_cancel(&self, mut server: Lent) {
        let slot = std::sync::Arc::clone(self.cancel.slot());
        tokio::spawn(async move {
            slot.delivered().await;
            match server.round_trip().await {
                Ok(()) => drop(server),
                Err(error) => {
                    tracing::debug!(%error, "a server was lost after a cancel request");
                    server.discard();
                }
            }
        });
    }

    /// Decides what the loss of a server means for the client.
    pub(super) fn server_failed(&mut self, failure: Failure) -> Result<(), End> {
        let Some(mut upstream) = self.upstream.take() else {
            return Ok(());
        };
        if upstream.has_told_commit() {
            self.end_told_commit(&mut upstream);
        }
        self.give_up_position();
        let may_run_again = self.held_from.is_some() || upstream.refused.is_some();
        match failure {
            Failure::Refused => {
                self.run_again(&upstream);
                if upstream.may_have_prepared() {
                    self.part(&upstream);
                    upstream.server.discard();
                } else {
                    self.release(upstream);
                }
                Ok(())
            }
            Failure::Settings(_) if may_run_again => {
                // The replica may not know of a role or a schema yet.
                self.part(&upstream);
                self.run_again(&upstream);
                self.primary_next = true;
                upstream.server.discard();
                Ok(())
            }
            Failure::Settings(response) => {
                self.part(&upstream);
                self.fail_transaction(&upstream);
                self.answer_cycles(Outstanding::of(&upstream), &response);
                upstream.server.discard();
                Ok(())
            }
            Failure::Lost(_) | Failure::OutOfStep(_) => {
                let node = upstream.node;
                let name = self.services.feed.topology().node(node).name.clone();
                tracing::info!(node = %name, "a server was lost: {failure}");
                self.services.feed.suspect(node);
                self.part(&upstream);
                let outcome = match may_run_again {
                    true => {
                        self.run_again(&upstream);
                        Ok(())
                    }
                    false => self.lost(&upstream, &name.to_string()),
                };
                upstream.server.discard();
                outcome
            }
        }
    }

    fn part(&mut self, upstream: &Upstream) {
        self.note_footprint(upstream);
        self.cancel.slot().disarm();
        if let Some(plan) = self.plan.take() {
            self.forget_plan(plan);
        }
        self.statements.undo_all();
    }

    /// With a server goes the transaction that was begun on it, answered or not: what the client
    /// sends next must not run outside of it. True if there was one.
    pub(super) fn fail_transaction(&mut self, upstream: &Upstream) -> bool {
        let begun = upstream.has_begun_transaction() || self.settings.is_in_transaction();
        if begun {
            self.local = LocalTransaction::Failed;
        }
        begun
    }

    /// Puts the retained runs back in front of the client's input: they are sent again, elsewhere.
    fn run_again(&mut self, upstream: &Upstream) {
        if let Some(mark) = self.held_from {
            self.client.output.truncate(mark);
        }
        let retained = std::mem::take(&mut self.retained);
        match upstream.refused {
            Some(Refused::AnyReplica) => {
                self.learn_writes(retained.bytes());
                self.primary_next = true;
            }
            Some(Refused::PerhapsBehind) => self.primary_next = true,
            Some(Refused::Here) | None => self.exclude = self.exclude.with(upstream.node),
        }
        self.services.metrics.ran_again();
        if let Some(plan) = self.plan.take() {
            self.forget_plan(plan);
        }
        self.statements.undo_all();
        self.forget_names(retained.bytes());
        let mut input = retained;
        input.extend(self.client.input.bytes());
        self.client.input = input;
        self.forget_retained();
    }

    /// The statements that a run has prepared will be prepared again by it.
    fn forget_names(&mut self, retained: &[u8]) {
        let parses = frames(retained).filter(|frame| frame.tag == frontend::PARSE);
        for parts in parses.filter_map(|frame| parse_parts(frame.body())) {
            let known = self.statements.get(parts.name);
            if known.is_some_and(|known| *known.definition == *parts.definition) {
                self.statements.deallocate(parts.name);
            }
        }
    }

    fn learn_writes(&mut self, retained: &[u8]) {
        for frame in frames(retained) {
            let body = frame.body();
            match frame.tag {
                frontend::QUERY => self.learn_write(body.strip_suffix(b"\0").unwrap_or(body)),
                frontend::PARSE => {
                    if let Some(parts) = parse_parts(body) {
                        self.learn_write(parts.text);
                    }
                }
                frontend::BIND => {
                    if let Some((_, name, _)) = bind_parts(body) {
                        self.learn_prepared(name);
                    }
                }
                _ => {}
            }
        }
    }

    /// What EXECUTE runs is the session's own: others may have another statement of that name.
    fn learn_write(&self, text: &[u8]) {
        let (classifier, scope) = (&self.services.classifier, self.names.scope());
        let decision = classifier.classify_in(scope, text).decision;
        let mut executes = false;
        for effect in &decision.effects {
            if let Effect::Execute(name) = effect {
                self.learn_prepared(name.as_bytes());
                executes = true;
            }
        }
        if !executes {
            classifier.remember_as_write_in(scope, text);
        }
    }

    /// The statement that the client has prepared under this name, by whatever means.
    fn learn_prepared(&self, name: &[u8]) {
        let (classifier, scope) = (&self.services.classifier, self.names.scope());
        let in_sql = || self.statements.in_sql(std::str::from_utf8(name).ok()?);
        if let Some(statement) = self.statements.get(name) {
            classifier.remember_as_write_in(scope, statement.text());
        } else if let Some(prepare) = in_sql() {
            classifier.remember_as_write_in(scope, prepare);
        }
    }

    fn lost(&mut self, upstream: &Upstream, node: &str) -> Result<(), End> {
        let half_told = upstream
            .partial
            .is_some_and(|partial| partial.fate == Fate::Forward);
        if half_told || upstream.cycle == Cycle::Fatal {
            return Err(End::Left);
        }
        let message = format!("the connection to node {node} was lost");
        if self.keeps_server() {
            let fault = Fault::fatal(SqlState::ADMIN_SHUTDOWN, message)
                .with_detail("The session was pinned to it and cannot go on elsewhere.");
            return Err(End::Told(fault));
        }
        let outstanding = Outstanding::of(upstream);
        if self.fail_transaction(upstream) && outstanding.is_none() {
            let message = format!("{message} in a transaction");
            return Err(End::Told(Fault::fatal(
                SqlState::CONNECTION_FAILURE,
                message,
            )));
        }
        let fault = match (upstream.role, upstream.footprint) {
            (Role::Primary, Footprint::Deep | Footprint::Capturing | Footprint::Unasked) => {
                Fault::error(SqlState::TRANSACTION_RESOLUTION_UNKNOWN, message)
                    .with_detail("What was under way there may or may not have been committed.")
            }
            _ => Fault::error(SqlState::CONNECTION_FAILURE, message),
        };
        let mut error = Vec::new();
        fault.encode(&mut error);
        self.answer_cycles(outstanding, &error);
        Ok(())
    }

    /// Gives all cycles that the client still waits for this ErrorResponse, and their end.
    fn answer_cycles(&mut self, outstanding: Outstanding, error: &[u8]) {
        let mut out = Vec::new();
        let status = self.local_status();
        for _ in 0..outstanding.whole {
            out.extend_from_slice(error);
            message::put_ready_for_query(&mut out, status);
        }
        if outstanding.open {
            out.extend_from_slice(error);
            let rest = match self.inflow {
                Inflow::Through(left) => left,
                _ => 0,
            };
            self.inflow = Inflow::ToSync(rest);
        } else if let Inflow::Through(left) = self.inflow {
            self.inflow = Inflow::Discard(left);
        }
        self.client.output.extend(&out);
        self.forget_retained();
    }

    /// The session is over: what its servers still do is of no use to anybody, but they may be.
    pub(super) fn leave(&mut self) {
        self.leave_to_store();
        if let Some(parked) = self.parked.take() {
            self.leave_at_rest(parked);
        }
        let Some(upstream) = self.upstream.take() else {
            return;
        };
        // One that waits for the rest of a message or for COPY data runs nothing: no cancel request
        // would end that, and the end of the connection does.
        let waits =
            upstream.server.owed.is_copying_in() || matches!(self.inflow, Inflow::Through(_));
        if waits {
            self.cancel.slot().disarm();
            upstream.server.discard();
        } else if upstream.owes_client() {
            self.cancel.slot().disarm();
            tokio::spawn(stop(upstream.server));
        } else {
            self.leave_at_rest(upstream);
        }
    }

    /// What the session has made on a server that runs nothing for it any more goes, and another one may have it;
    /// or the server goes.
    fn leave_at_rest(&self, upstream: Box<Upstream>) {
        self.cancel.slot().disarm();
        let is_fit = self.pins.end_with_discard_all()
            && upstream.afterwards == Afterwards::Pool
            && upstream.perhaps.is_empty()
            && upstream.partial.is_none()
            && upstream.server.is_between_cycles();
        let mut server = upstream.server;
        if !is_fit {
            server.discard();
            return;
        }
        let slot = std::sync::Arc::clone(self.cancel.slot());
        tokio::spawn(async move {
            // A cancel request on its way must hit nobody else.
            slot.delivered().await;
            match timeout(DISCARD_PATIENCE, server.start_over()).await {
                Ok(Ok(())) => drop(server),
                Ok(Err(error)) => {
                    tracing::debug!(%error, "what a session has left could not be discarded");
                    server.discard();
                }
                Err(_) => {
                    tracing::debug!("a server takes too long to discard what a session has left");
                    server.discard();
                }
            }
        });
    }
}

/// Ends what a server still runs for a client that has left.
async fn stop(mut server: Lent) {
    let target = std::sync::Arc::clone(server.cancel_target());
    // A request that comes before the statement has begun cancels nothing.
    for _ in 0..CANCEL_ATTEMPTS {
        if let Err(error) = target.cancel().await {
            tracing::debug!(%error, "what a client left running could not be cancelled");
        }
        if timeout(CANCEL_PATIENCE, server.until_ready()).await.is_ok() {
            break;
        }
    }
    server.discard();
}

/// A server that has not discarded what its session left by then is closed.
const DISCARD_PATIENCE: Duration = Duration::from_secs(5);

/// What a client left running is cancelled so often, until the server says that it is ready.
const CANCEL_ATTEMPTS: usize = 10;

/// Between two of these attempts.
const CANCEL_PATIENCE: Duration = Duration::from_millis(200);

/// What a client still waits for.
#[derive(Clone, Copy, Debug)]
struct Outstanding {
    /// Cycles that have been sent whole.
    whole: u64,
    /// One more has been begun.
    open: bool,
}

impl Outstanding {
    fn of(upstream: &Upstream) -> Outstanding {
        Outstanding {
            whole: upstream.sending - upstream.receiving,
            open: upstream.server.owed.is_mid_cycle(),
        }
    }

    fn is_none(self) -> bool {
        self.whole == 0 && !self.open
    }
}
