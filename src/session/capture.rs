//! Captures: asking the primary for a position behind what the session has done there.
//!
//! A capture is a FunctionCall, a cycle of its own, sent behind a write in the same packet. Behind
//! a COMMIT it is more: it takes the place of the Sync, finds the transaction committed, and the
//! server answers both with one ReadyForQuery in one packet. The second packet is most of what a capture costs the
//! primary. A simple COMMIT is made an extended one for that.
//!
//! A COMMIT that fails takes the FunctionCall with it, like all up to the next Sync: that is sent
//! then, and nothing else before (manual, sections "Extended Query" and "Function Call").
//!
//! A write that is a transaction by itself is committed by its Sync, and nothing in its cycle can come behind that. There a
//! prepared question goes ahead of the Sync, for the transaction's number. A replica tells whether it shows that, and
//! the next probe of the primary gives a position (see [`Floor`](crate::routing::Floor)). So a session is asked that has
//! shown that this will do (see [`Habit`](super::habit::Habit)).

use std::time::Instant;

use super::Session;
use super::habit::Way;
use super::survey::{Plan, Step, What};
use super::upstream::{Footprint, Upstream};
use crate::net::Buffer;
use crate::protocol::frame::{HEADER, cstring};
use crate::protocol::message::{self, TransactionStatus};
use crate::protocol::owed::{Fate, Request, StatementId};
use crate::routing::{Guarantee, Level, Xid};
use crate::server::{PREPARED_COMMIT, PREPARED_NUMBER, statement_name};
use crate::sql::{Class, Code, Decision, Effect};

/// Where the question for a position goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Capture {
    /// Behind the cycle, as one of its own.
    Behind,
    /// So, and with it goes a trial whether the session's role may call what gives a transaction's number.
    BehindWithTrial,
    /// In the place of the Sync of a COMMIT.
    OfCommit,
    /// Ahead of the Sync of a write: for its number.
    InWrite,
}

/// Behind the name, the body of a Parse of COMMIT.
const COMMIT_DEFINITION: &[u8] = b"COMMIT\0\0\0";

/// As above, of the question for the number, with its epoch, of the transaction that it is part of; null if
/// that has written nothing.
const NUMBER_DEFINITION: &[u8] = b"SELECT pg_catalog.txid_current_if_assigned()\0\0\0";

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

    /// How to capture behind this run.
    pub(super) fn way_to_capture(&mut self, plan: &Plan, upstream: &Upstream) -> Capture {
        if self.is_lone_commit(plan, upstream) {
            return Capture::OfCommit;
        }
        let travels = self.ties_others() || self.level() == Level::Causal;
        if travels || !is_lone_write(plan) || upstream.is_in_transaction() || !self.can_be_shown() {
            return Capture::Behind;
        }
        // What code has run on the server may have taken the prepared question from it.
        let may = upstream.is_at_rest() && upstream.server.tampered.is_none();
        match self.habit.writes() {
            Way::Trial => Capture::BehindWithTrial,
            Way::ByNumber if may => Capture::InWrite,
            Way::ByNumber | Way::ByPosition => Capture::Behind,
        }
    }

    /// Every replica tells which transactions it shows.
    fn can_be_shown(&self) -> bool {
        let topology = self.services.feed.topology();
        let mut seen = topology.replicas().filter_map(|node| node.observation());
        seen.all(|seen| seen.tells_transactions)
    }

    /// The run is a COMMIT, and nothing else, of a transaction that has gone well so far; nothing is
    /// under way, and nothing follows yet.
    fn is_lone_commit(&self, plan: &Plan, upstream: &Upstream) -> bool {
        let is_lone = upstream.server.status == TransactionStatus::Transaction
            && upstream.is_at_rest()
            && self.client.input.len() == plan.size;
        is_lone
            && match plan.steps.as_slice() {
                // What code has run on the server may have taken the prepared COMMIT from it.
                [Step { what, .. }] => {
                    let is_commit = matches!(what, What::Query(decision) if commits(decision));
                    is_commit && upstream.server.tampered.is_none() && is_bare(&self.client.input)
                }
                steps => executes_once(steps, commits),
            }
    }

    /// As [`send_step`](Session::send_step), where a capture may be part of the cycle.
    pub(super) fn send_captured_step(
        &mut self,
        upstream: &mut Upstream,
        step: &Step,
        frame: &[u8],
        capture: Capture,
    ) {
        match (capture, &step.what) {
            (Capture::InWrite, What::Sync) => {
                upstream.send_number_question();
                self.send_step(upstream, step, frame);
            }
            (Capture::OfCommit, What::Query(decision)) => {
                upstream.anticipate(decision);
                self.note_plan(upstream, decision);
                upstream.send_prepared_commit();
                upstream.send_capture_of_commit();
            }
            (Capture::OfCommit, What::Sync) => upstream.send_capture_of_commit(),
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

    /// The floor rises to the transaction that has told its number and is committed now. One that has
    /// written nothing has none, and that of one that has failed says nothing: what it has seen is captured by position,
    /// as soon as the server is at rest.
    pub(super) fn numbered(&mut self, upstream: &mut Upstream, status: TransactionStatus) {
        let number = upstream.number.take();
        if let (Some(Some(xid)), TransactionStatus::Idle) = (number, status)
            && self.services.options.guarantees.hold(Guarantee::Captures)
        {
            let now = Instant::now();
            self.floor.raise_to_write(Some(xid), upstream.timeline, now);
        }
        if number == Some(None) {
            self.habit.fails();
        }
        if upstream.footprint == Footprint::Capturing && !upstream.awaits_capture() {
            let is_covered = number.flatten().is_some() && status == TransactionStatus::Idle;
            upstream.footprint = match is_covered {
                true => Footprint::None,
                false => Footprint::Deep,
            };
        }
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

/// The answer to the question for a number.
pub(super) fn number(text: &[u8]) -> Option<Xid> {
    std::str::from_utf8(text).ok()?.parse().ok().map(Xid)
}

/// The run is one statement of the extended protocol that writes, and runs no code of the user's own that could
/// do more.
fn is_lone_write(plan: &Plan) -> bool {
    let writes = |decision: &Decision| {
        decision.class == Class::Write
            && decision.statements == 1
            && !decision.is_ddl
            && decision.code == Code::None
    };
    !plan.has_effects && executes_once(&plan.steps, writes)
}

/// All that the run binds `fits`, and it executes once, right before its Sync.
fn executes_once(steps: &[Step], fits: impl Fn(&Decision) -> bool) -> bool {
    let [before @ .., execute, sync] = steps else {
        return false;
    };
    let is_other = |what: &What| {
        matches!(
            what,
            What::Execute | What::BindInSql | What::BindUnknown | What::BindShow(_)
        )
    };
    let mut bound = before.iter().filter_map(Step::decision).peekable();
    matches!(execute.what, What::Execute)
        && matches!(sync.what, What::Sync)
        && !before.iter().any(|step| is_other(&step.what))
        && bound.peek().is_some()
        && bound.all(|decision| fits(decision))
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
        self.send_prepared(PREPARED_COMMIT, COMMIT_DEFINITION, Fate::Forward);
    }

    /// Asks for the number of the transaction that has been begun.
    fn send_number_question(&mut self) {
        self.send_prepared(PREPARED_NUMBER, NUMBER_DEFINITION, Fate::Number);
        self.footprint = Footprint::Capturing;
    }

    /// Executes a statement of our own; `fate` is that of its answer.
    fn send_prepared(&mut self, id: StatementId, definition: &[u8], fate: Fate) {
        let name = statement_name(id);
        let ahead = match fate {
            Fate::Number => Fate::Number,
            _ => Fate::Swallow,
        };
        let mut out = Vec::with_capacity(64);
        if !self.server.statements.touch(id) {
            // The server may have it all the same, if that had been in doubt.
            message::put_close_statement(&mut out, &name);
            self.server.wire.output.extend(&out);
            self.server.owed.push(Request::Close, ahead);
            self.send_parse(id, &name, definition, ahead);
            out.clear();
        }
        message::put_bind(&mut out, "", &name);
        message::put_execute(&mut out, "");
        self.server.wire.output.extend(&out);
        self.server.owed.push(Request::Bind, ahead);
        self.server.owed.push(Request::Execute, fate);
    }

    /// Who lists the prepared statements of their session do not find ours among them.
    pub(super) fn hide_our_own(&mut self, plan: &Plan) {
        if plan.class != Class::PrimaryRead || !lists_statements(plan) {
            return;
        }
        for id in [PREPARED_COMMIT, PREPARED_NUMBER] {
            let mut out = Vec::new();
            message::put_close_statement(&mut out, &statement_name(id));
            self.server.wire.output.extend(&out);
            // The server may have it all the same, if that had been in doubt.
            let close = match self.server.statements.has(id) {
                true => Request::Evict(id),
                false => Request::Close,
            };
            self.server.owed.push(close, Fate::Swallow);
            self.server.statements.remove(id);
        }
    }

    /// A position or a number has been asked for and has not come.
    fn awaits_capture(&self) -> bool {
        let fates = [Fate::Capture, Fate::CaptureOfCommit, Fate::Number];
        fates.into_iter().any(|fate| self.server.owed.owes(fate))
    }

    /// Asks for what is not asked for in the cycle itself.
    pub(super) fn send_behind(&mut self, capture: Capture) {
        match capture {
            Capture::OfCommit | Capture::InWrite => {}
            Capture::Behind => self.send_capture(),
            Capture::BehindWithTrial => {
                self.send_capture();
                self.server.wire.output.extend(&message::ASK_NUMBER);
                self.server.owed.push(Request::FunctionCall, Fate::Trial);
            }
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
