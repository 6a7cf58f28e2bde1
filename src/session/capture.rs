//! Captures: asking the primary for a position behind what the session has done there.
//!
//! A capture is a FunctionCall, a cycle of its own, sent behind a write in the same packet. Behind
//! a COMMIT it is more: it takes the place of the Sync, finds the transaction committed, and the
//! server answers both with one ReadyForQuery in one packet. The second packet is most of what a capture costs the
//! primary. A simple COMMIT is made an extended one for that.
//!
//! A COMMIT that fails takes the FunctionCall with it, like all up to the next Sync: that is sent
//! then, and nothing else before (manual, sections "Extended Query" and "Function Call").

use std::time::Instant;

use super::Session;
use super::survey::{Plan, Step, What};
use super::upstream::{Footprint, Upstream};
use crate::net::Buffer;
use crate::protocol::frame::{HEADER, cstring};
use crate::protocol::message::{self, TransactionStatus};
use crate::protocol::owed::{Fate, Request};
use crate::routing::Guarantee;
use crate::server::{PREPARED_COMMIT, statement_name};
use crate::sql::{Class, Decision, Effect};

/// Behind the name, the body of a Parse of COMMIT.
const COMMIT_DEFINITION: &[u8] = b"COMMIT\0\0\0";

impl Session {
    /// A position is worth knowing: there are others to read from than the primary, or the client
    /// carries it to where there are.
    pub(super) fn wants_positions(&self) -> bool {
        self.ties_others() || self.services.feed.topology().replicas().next().is_some()
    }

    /// What the session has done on this server is over: true if its position is to be captured.
    pub(super) fn captures(&mut self, upstream: &mut Upstream) -> bool {
        if upstream.footprint != Footprint::Deep || !self.wants_positions() {
            return false;
        }
        if !self.habit.reads_back() && !self.ties_others() {
            upstream.footprint = Footprint::Unasked;
            return false;
        }
        self.habit.captures();
        true
    }

    /// The run is a COMMIT, and nothing else, of a transaction that has gone well so far; nothing is
    /// under way, and nothing follows yet.
    pub(super) fn is_lone_commit(&self, plan: &Plan, upstream: &Upstream) -> bool {
        let input = &self.client.input;
        let is_lone = upstream.server.status == TransactionStatus::Transaction
            && upstream.is_at_rest()
            && input.len() == plan.size;
        is_lone
            && match plan.steps.as_slice() {
                // What code has run on the server may have taken the prepared COMMIT from it.
                [Step { what, .. }] => {
                    let is_commit = matches!(what, What::Query(decision) if commits(decision));
                    is_commit && upstream.server.tampered.is_none() && is_bare(input)
                }
                [.., execute, sync] => {
                    let (last, before) = (&execute.what, &plan.steps[..plan.steps.len() - 2]);
                    let mut bound = before.iter().filter_map(Step::decision);
                    let others = before.iter().any(|step| matches!(step.what, What::Execute));
                    matches!(last, What::Execute)
                        && matches!(sync.what, What::Sync)
                        && !others
                        && bound.any(|decision| commits(decision))
                }
                [] => false,
            }
    }

    /// As [`send_step`](Session::send_step), for the steps of a lone COMMIT.
    pub(super) fn send_step_of_commit(
        &mut self,
        upstream: &mut Upstream,
        step: &Step,
        frame: &[u8],
    ) {
        match &step.what {
            What::Query(decision) => {
                upstream.anticipate(decision);
                self.note_plan(upstream, decision);
                upstream.send_prepared_commit();
                upstream.send_capture_of_commit();
            }
            What::Sync => upstream.send_capture_of_commit(),
            _ => self.send_step(upstream, step, frame),
        }
    }

    /// The floor rises to the captured position, unless the transaction turned out to be open: then
    /// the position precedes the commit.
    pub(super) fn captured(&mut self, upstream: &mut Upstream, status: TransactionStatus) {
        let topology = self.services.feed.topology();
        match upstream.captured.take() {
            Some(lsn) if status == TransactionStatus::Idle => {
                let guarantees = self.services.options.guarantees;
                let lsn = match guarantees.hold(Guarantee::PageBoundaries) {
                    true => lsn.normalised(topology.geometry),
                    false => lsn,
                };
                if guarantees.hold(Guarantee::Captures) {
                    let now = Instant::now();
                    self.floor.capture(lsn, upstream.timeline, &topology, now);
                }
                let covered = !upstream.server.owed.owes(Fate::Capture);
                if upstream.footprint == Footprint::Capturing && covered {
                    upstream.footprint = Footprint::None;
                }
            }
            // It covers what has been seen; what was written has its capture behind the commit.
            Some(lsn)
                if status == TransactionStatus::Transaction
                    && upstream.footprint == Footprint::Deep =>
            {
                let lsn = lsn.normalised(topology.geometry);
                self.floor
                    .capture(lsn, upstream.timeline, &topology, Instant::now());
            }
            _ => {
                upstream.footprint = Footprint::Unknown;
                self.floor.raise_to_primary_after(Instant::now());
            }
        }
        drop(topology);
        self.share_floor();
    }

    /// The server is lost behind a COMMIT that it has told of: the client gets the end of its answer.
    pub(super) fn end_told_commit(&mut self, upstream: &mut Upstream) {
        let status = TransactionStatus::Idle;
        upstream.server.status = status;
        self.cycle_ended(upstream, status);
        if !self.holds_ready(upstream, Fate::CaptureOfCommit, status) {
            message::put_ready_for_query(&mut self.due, status);
        }
        let due = std::mem::take(&mut self.due);
        self.client.output.extend(&due);
    }
}

/// It is one COMMIT, which begins no other transaction.
fn commits(decision: &Decision) -> bool {
    decision.statements == 1 && matches!(*decision.effects, [Effect::Commit { chain: false }])
}

/// The text of the Query says no more than that: a comment would be lost.
fn is_bare(query: &Buffer) -> bool {
    let body = query.bytes().get(HEADER..).unwrap_or_default();
    cstring(body).is_some_and(|(text, _)| {
        let text = text.trim_ascii();
        let text = text.strip_suffix(b";").unwrap_or(text);
        text.trim_ascii_end().eq_ignore_ascii_case(b"COMMIT")
    })
}

/// A statement of the run reads the view of the prepared statements.
fn lists_statements(plan: &Plan) -> bool {
    let decisions = plan.steps.iter().filter_map(Step::decision);
    let mut relations = decisions.flat_map(|decision| &decision.relations);
    relations.any(|relation| *relation.name == *"pg_prepared_statements")
}

impl Upstream {
    /// Asks for the position behind everything that has been sent.
    pub fn send_capture(&mut self) {
        self.send_sight_capture();
        self.footprint = Footprint::Capturing;
    }

    /// Asks for a position that covers what has been seen, in a transaction that stays open: what it has
    /// written is still to be captured.
    pub(super) fn send_sight_capture(&mut self) {
        self.server.wire.output.extend(&message::CAPTURE);
        self.server.owed.push(Request::FunctionCall, Fate::Capture);
    }

    fn send_prepared_commit(&mut self) {
        let name = statement_name(PREPARED_COMMIT);
        if !self.server.statements.touch(PREPARED_COMMIT) {
            self.send_parse(PREPARED_COMMIT, &name, COMMIT_DEFINITION, Fate::Swallow);
        }
        let mut out = Vec::with_capacity(64);
        message::put_bind(&mut out, "", &name);
        message::put_execute(&mut out, "");
        self.server.wire.output.extend(&out);
        self.server.owed.push(Request::Bind, Fate::Swallow);
        self.server.owed.push(Request::Execute, Fate::Forward);
    }

    /// Who lists the prepared statements of their session do not find ours among them.
    pub(super) fn hide_prepared_commit(&mut self, plan: &Plan) {
        let is_there = || self.server.statements.has(PREPARED_COMMIT);
        if plan.class == Class::PrimaryRead && is_there() && lists_statements(plan) {
            let mut out = Vec::new();
            message::put_close_statement(&mut out, &statement_name(PREPARED_COMMIT));
            self.server.wire.output.extend(&out);
            let close = Request::Evict(PREPARED_COMMIT);
            self.server.owed.push(close, Fate::Swallow);
            self.server.statements.remove(PREPARED_COMMIT);
        }
    }

    /// Ends the cycle of a COMMIT and asks for the position behind it.
    fn send_capture_of_commit(&mut self) {
        self.server.wire.output.extend(&message::CAPTURE);
        let owed = &mut self.server.owed;
        owed.push(Request::FunctionCall, Fate::CaptureOfCommit);
        self.sending += 1;
        self.footprint = Footprint::Capturing;
    }

    /// Something has failed: if that was a COMMIT, the server waits for the end of its cycle, and the
    /// position is to be captured anew.
    pub(super) fn end_failed_commit(&mut self) {
        if self.server.owed.skips_capture() {
            let mut out = Vec::new();
            message::put_sync(&mut out);
            self.server.wire.output.extend(&out);
            self.footprint = Footprint::Deep;
        }
    }

    /// The client knows that its transaction is committed; where its position lies, nobody does yet.
    pub(super) fn has_told_commit(&self) -> bool {
        self.server.owed.next_fate() == Fate::CaptureOfCommit
    }
}
