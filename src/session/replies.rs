//! What comes back from the server: forwarded, swallowed, captured. Messages are not decoded; the
//! queue of owed replies says what each belongs to.

use std::task::Context;
use std::time::Instant;

use super::capture::{Capture, number};
use super::pins;
use super::relay::{Failure, Inflow};
use super::restored::Share;
use super::sight::Sight;
use super::upstream::{Afterwards, Cycle, Footprint, Partial, Refused, Upstream};
use super::{LocalTransaction, Session};
use crate::net::buffer::CHUNK;
use crate::protocol::error::{SqlState, summary};
use crate::protocol::frame::{Frame, HEADER, Header, backend, single_value};
use crate::protocol::message::{TransactionStatus, captured_lsn, shows_result};
use crate::protocol::owed::{Fate, OutOfStep, Progress, Request};
use crate::routing::{Lsn, Role};
use crate::server::PREPARED_NUMBER;

/// How far a chunk of replies has been read.
#[derive(Default)]
struct Read {
    /// Where the messages begin that are to be forwarded and are not yet in the client's output.
    run: usize,
    /// Where the first message begins that has not been read.
    at: usize,
}

/// What becomes of one message.
pub(super) enum Verdict {
    Forward,
    /// Forward it: it shows something of a held run's result.
    Show,
    Drop,
    /// Forward this in its place.
    Replace(Vec<u8>),
    /// The replica has refused: drop it, and what has been forwarded of this run so far.
    TakeBack,
}

impl Session {
    /// Works through the server's input. The server goes back to its pool, if it may, before the
    /// client is sent what it said last.
    pub(super) fn take_replies(&mut self, context: &mut Context<'_>) -> Result<(), Failure> {
        let Some(mut upstream) = self.upstream.take() else {
            return Ok(());
        };
        let mut input = std::mem::take(&mut upstream.server.wire.input);
        let mut read = Read::default();
        let outcome = self.read_replies(&mut upstream, input.bytes(), &mut read);
        let Read { run, at } = read;
        if let Err(failure) = outcome {
            // What came before what failed is the client's all the same.
            self.client.output.extend(&input.bytes()[run..at]);
            self.upstream = Some(upstream);
            return Err(failure);
        }
        let all_read = at == input.len();
        let refused = all_read && upstream.refused.is_some() && upstream.is_at_rest();
        if all_read && !refused {
            self.settle(upstream);
        } else {
            self.upstream = Some(upstream);
        }
        let bytes = &input.bytes()[run..at];
        let sent = match self.held_from {
            Some(_) => {
                self.client.output.extend(bytes);
                Ok(())
            }
            None => self.client.poll_send(context, bytes),
        };
        self.hold_no_longer_than_there_is_room();
        if sent.is_err() {
            // The next look at the client finds out, and ends the session.
            self.client.output.extend(bytes);
        }
        if let Some(upstream) = &mut self.upstream {
            input.consume(at);
            upstream.server.wire.input = input;
        }
        if refused {
            Err(Failure::Refused)
        } else {
            Ok(())
        }
    }

    /// What is held back takes up room too: a run that fills it before it shows a result is shown
    /// as it comes.
    fn hold_no_longer_than_there_is_room(&mut self) {
        let held = |mark| self.client.output.len() - mark;
        if self.held_from.is_some_and(|mark| held(mark) > CHUNK) {
            self.forget_retained();
        }
    }

    /// Reads all messages in `bytes`; `read` tells what of it is to be forwarded and is not yet in
    /// the client's output. What a held run has shown can be taken back until all are read: the
    /// server sends a row and the error behind it together.
    fn read_replies(
        &mut self,
        upstream: &mut Upstream,
        bytes: &[u8],
        read: &mut Read,
    ) -> Result<(), Failure> {
        let Read { run, at } = read;
        let mut shows = false;
        loop {
            if let Some(partial) = upstream.partial {
                let count = partial.left.min(bytes.len() - *at);
                *at += count;
                if partial.fate != Fate::Forward {
                    *run = *at;
                }
                let left = partial.left - count;
                upstream.partial = (left > 0).then_some(Partial { left, ..partial });
                if left > 0 {
                    break;
                }
            }
            let header = Header::read(&bytes[*at..])
                .map_err(|error| Failure::OutOfStep(OutOfStep(error.tag)))?;
            let Some(header) = header else { break };
            let there = header.size.min(bytes.len() - *at);
            let looks = is_looked_into(header.tag, upstream.server.owed.next_fate());
            if there < header.size && looks && header.size <= CHUNK {
                break;
            }
            let frame = &bytes[*at..*at + there];
            let cycle = upstream.receiving;
            let fate = match self.receive(upstream, header.tag, frame)? {
                Verdict::Forward => Fate::Forward,
                Verdict::Show => {
                    shows = true;
                    Fate::Forward
                }
                Verdict::Drop => {
                    self.client.output.extend(&bytes[*run..*at]);
                    *run = *at + there;
                    Fate::Swallow
                }
                Verdict::Replace(other) => {
                    self.client.output.extend(&bytes[*run..*at]);
                    self.client.output.extend(&other);
                    *run = *at + there;
                    Fate::Swallow
                }
                Verdict::TakeBack => {
                    if let Some(mark) = self.held_from {
                        self.client.output.truncate(mark);
                    }
                    *run = *at + there;
                    shows = false;
                    Fate::Swallow
                }
            };
            *at += there;
            if there < header.size {
                upstream.partial = Some(Partial {
                    left: header.size - there,
                    fate,
                });
            }
            if !self.due.is_empty() {
                self.client.output.extend(&bytes[*run..*at]);
                *run = *at;
                let due = std::mem::take(&mut self.due);
                self.client.output.extend(&due);
            }
            let mut own = Vec::new();
            self.statements
                .give_due(&mut upstream.server.owed, &mut own);
            if !own.is_empty() {
                self.client.output.extend(&bytes[*run..*at]);
                *run = *at;
                self.client.output.extend(&own);
            }
            if upstream.receiving > cycle {
                // The run that was retained has been answered.
                self.forget_retained();
                shows = false;
            }
        }
        if shows {
            self.held_from = None;
        }
        Ok(())
    }

    fn receive(
        &mut self,
        upstream: &mut Upstream,
        tag: u8,
        frame: &[u8],
    ) -> Result<Verdict, Failure> {
        let body = frame.get(HEADER..).unwrap_or_default();
        match tag {
            backend::PARAMETER_STATUS => return Ok(self.parameter_changed(upstream, body)),
            backend::NOTIFICATION_RESPONSE => return Ok(self.notified(upstream, frame)),
            backend::NOTICE_RESPONSE => {
                return Ok(match upstream.server.owed.next_fate() {
                    Fate::Forward if upstream.is_about_added() => Verdict::Drop,
                    Fate::Forward => upstream
                        .in_the_client_s_places(frame)
                        .map_or(Verdict::Forward, Verdict::Replace),
                    Fate::Swallow
                    | Fate::Settings
                    | Fate::Perhaps
                    | Fate::Capture
                    | Fate::CaptureOfCommit
                    | Fate::Number
                    | Fate::Trial
                    | Fate::Sight
                    | Fate::Holdings => Verdict::Drop,
                });
            }
            backend::ERROR_RESPONSE if upstream.server.owed.is_empty() => {
                return Ok(self.last_words(upstream));
            }
            _ => {}
        }
        let mut voided = Vec::new();
        let received = upstream
            .server
            .owed
            .receive(tag, |request| voided.push(request));
        let received = received.map_err(Failure::OutOfStep)?;
        self.void(upstream, &voided);
        if received.fate == Fate::Forward {
            match upstream.share(tag, frame) {
                Share::Client => {}
                Share::Nobody => return Ok(Verdict::Drop),
                Share::Instead(answer) => {
                    upstream.completed += 1;
                    return Ok(Verdict::Replace(answer));
                }
            }
        }
        if tag == backend::COMMAND_COMPLETE && received.fate == Fate::Forward {
            self.note_completed(upstream, body);
        }
        match received.progress {
            Progress::Within => {
                if tag == backend::FUNCTION_CALL_RESPONSE && received.fate.captures() {
                    upstream.captured = captured_lsn(body).map(Lsn);
                }
                if tag == backend::FUNCTION_CALL_RESPONSE && received.fate == Fate::Trial {
                    self.habit.may_number();
                }
                if tag == backend::DATA_ROW && received.fate == Fate::Number {
                    upstream.number = Some(single_value(body).and_then(number));
                }
                if tag == backend::DATA_ROW && received.fate == Fate::Holdings {
                    upstream.holdings = single_value(body).map(pins::holdings);
                }
                if tag == backend::DATA_ROW && received.fate == Fate::Sight {
                    upstream.sight = single_value(body).and_then(Sight::read);
                }
            }
            Progress::Done(Request::DescribeStatement(id)) => {
                upstream.described(id, Frame { tag, bytes: frame });
            }
            Progress::Done(Request::CloseInSql | Request::ParseInSql) => upstream.remade_in_sql(),
            Progress::Done(_) => {}
            Progress::CopyIn { ignored_syncs } => {
                upstream.sending -= ignored_syncs;
                upstream.ignored_syncs = ignored_syncs;
            }
            Progress::Failed { request, unsaid } => {
                let of_client = received.fate == Fate::Forward;
                self.undo_changes(of_client.then_some(request), unsaid);
                return self.failed(upstream, received.fate, frame);
            }
            Progress::Ready(_) => {
                self.ready(upstream, received.fate, body)?;
                if self.holds_ready(upstream, received.fate, upstream.server.status) {
                    return Ok(Verdict::Drop);
                }
            }
        }
        let ends_commit = received.fate == Fate::CaptureOfCommit && tag == backend::READY_FOR_QUERY;
        if received.fate != Fate::Forward && !ends_commit {
            return Ok(Verdict::Drop);
        }
        if tag == backend::COMMAND_COMPLETE
            && let Some(plan_s_end) = upstream.with_route(frame)
        {
            return Ok(Verdict::Replace(plan_s_end));
        }
        if self.held_from.is_some() && shows_result(tag) {
            return Ok(Verdict::Show);
        }
        Ok(Verdict::Forward)
    }

    /// Who is notified of its own doing knows it by the process number, which for the client is the
    /// one of its cancel key.
    /// Whoever is notified by another looks next for what it has been told of.
    fn notified(&mut self, upstream: &mut Upstream, frame: &[u8]) -> Verdict {
        let process = HEADER..HEADER + size_of::<u32>();
        let own = upstream.server.cancel_target().key.pid.to_be_bytes();
        if frame.get(process.clone()) != Some(&own[..]) {
            self.floor.raise_to_primary_after(Instant::now());
            // What is being captured may precede it.
            upstream.captured = None;
            upstream.number = None;
            return Verdict::Forward;
        }
        let mut message = frame.to_vec();
        message[process].copy_from_slice(&self.cancel.pid().to_be_bytes());
        Verdict::Replace(message)
    }

    /// A server that nothing was asked of says why it goes away.
    fn last_words(&self, upstream: &mut Upstream) -> Verdict {
        if self.keeps_server() || upstream.is_in_transaction() {
            upstream.cycle = Cycle::Fatal;
            Verdict::Forward
        } else {
            Verdict::Drop
        }
    }

    /// Undoes what a server's books say of requests that have failed or were skipped, backwards: one
    /// cycle may give it a statement and take it away again.
    fn void(&self, upstream: &mut Upstream, requests: &[Request]) {
        let in_sql = |it: &&Request| matches!(it, Request::CloseInSql | Request::ParseInSql);
        upstream.not_remade_in_sql(requests.iter().filter(in_sql).count());
        for request in requests.iter().rev() {
            upstream.server.statements.void(*request);
            match request {
                Request::Parse(0) => upstream.server.unnamed = None,
                Request::DescribeStatement(id) => {
                    upstream.not_described(*id);
                }
                _ => {}
            }
        }
    }

    /// The changes of the client's statements that have failed with its `request`, or were skipped
    /// behind what failed, did not happen. What has been surveyed in the meantime may count on them.
    fn undo_changes(&mut self, request: Option<Request>, count: usize) {
        if count == 0 {
            return;
        }
        if let Some(plan) = self.plan.take() {
            self.forget_plan(plan);
        }
        if request == Some(Request::Parse(0)) {
            self.statements.replaced_in_vain();
        }
        self.statements.undo_first(count);
    }

    fn failed(
        &mut self,
        upstream: &mut Upstream,
        fate: Fate,
        frame: &[u8],
    ) -> Result<Verdict, Failure> {
        let why = upstream.why_unprepared(frame);
        let frame = why.as_deref().unwrap_or(frame);
        let said = summary(frame.get(HEADER..).unwrap_or_default());
        match fate {
            // It goes away, and what was to follow the settings has not been tried.
            Fate::Settings if said.fatal => {
                return Err(Failure::Lost(std::io::ErrorKind::ConnectionAborted.into()));
            }
            Fate::Settings => return Err(Failure::Settings(frame.to_vec())),
            Fate::Capture | Fate::CaptureOfCommit => {
                upstream.footprint = Footprint::Unknown;
                return Ok(Verdict::Drop);
            }
            Fate::Perhaps => {
                upstream.not_prepared(frame);
                return Ok(Verdict::Drop);
            }
            // The pins stay as they are, and the next statement that may end one asks again. What was seen
            // the next probe tells.
            Fate::Holdings | Fate::Sight => return Ok(Verdict::Drop),
            Fate::Trial => {
                self.habit.never_numbers();
                return Ok(Verdict::Drop);
            }
            // The client's transaction has failed with it, and whether the server has the question is in doubt.
            Fate::Number => {
                if said.code != SqlState::QUERY_CANCELED {
                    self.habit.never_numbers();
                }
                upstream.server.statements.remove(PREPARED_NUMBER);
            }
            // It was made void by an error that has been dealt with.
            Fate::Swallow if upstream.refused.is_some() => return Ok(Verdict::Drop),
            Fate::Forward | Fate::Swallow => upstream.end_failed_commit(),
        }
        self.habit.fails();
        upstream.number = None;
        if self.held_from.is_some()
            && upstream.role == Role::Replica
            && let Some(refused) = refusal(said.code, said.message)
        {
            upstream.refused = Some(refused);
            upstream.server.owed.swallow_all();
            return Ok(Verdict::TakeBack);
        }
        if is_outdated_plan(said.code, said.message) {
            self.services.prepared.begin_anew();
        }
        self.note_failed_commit(upstream, said.code);
        // Cancelled before it has read any data, a COPY has not read the Syncs that it would ignore.
        if said.code == SqlState::QUERY_CANCELED && upstream.ignored_syncs > 0 {
            upstream.afterwards = Afterwards::Discard;
        }
        self.held_from = None;
        upstream.cycle = if said.fatal {
            Cycle::Fatal
        } else {
            Cycle::Failed
        };
        if let Some((_, fault)) = upstream.raised.take_if(|(of, _)| *of == upstream.receiving)
            && fault.code == said.code
        {
            let mut own = Vec::new();
            fault.encode(&mut own);
            return Ok(Verdict::Replace(own));
        }
        if let Some(why) = why {
            return Ok(Verdict::Replace(why));
        }
        let words = self.in_the_client_s_words(upstream, said.code, frame);
        Ok(
            match words.or_else(|| upstream.in_the_client_s_places(frame)) {
                Some(error) => Verdict::Replace(error),
                None => Verdict::Forward,
            },
        )
    }

    fn ready(&mut self, upstream: &mut Upstream, fate: Fate, body: &[u8]) -> Result<(), Failure> {
        let status = TransactionStatus::read(body)
            .ok_or(Failure::OutOfStep(OutOfStep(backend::READY_FOR_QUERY)))?;
        upstream.server.status = status;
        match fate {
            Fate::Forward => {
                self.cycle_ended(upstream, status);
                self.numbered(upstream, status);
            }
            Fate::Capture => self.captured(upstream, status),
            Fate::CaptureOfCommit => {
                self.cycle_ended(upstream, status);
                self.captured(upstream, status);
            }
            Fate::Perhaps => {
                upstream.perhaps.pop_front();
            }
            Fate::Sight => self.sighted(upstream),
            Fate::Holdings => self.told_holdings(upstream),
            Fate::Swallow | Fate::Settings | Fate::Number | Fate::Trial => {}
        }
        Ok(())
    }

    pub(super) fn cycle_ended(&mut self, upstream: &mut Upstream, status: TransactionStatus) {
        let cycle = upstream.receiving;
        for tracked in [&mut self.settings, &mut self.wishes, &mut upstream.applied] {
            tracked.cycle_begins();
        }
        while let Some((of, _)) = upstream.effects.front()
            && *of == cycle
            && let Some((_, decision)) = upstream.effects.pop_front()
        {
            upstream.changes_catalogue |= decision.is_ddl;
            match upstream.cycle {
                Cycle::Well => self.apply(upstream, &decision),
                Cycle::Failed | Cycle::Fatal => self.apply_failed(upstream, &decision),
            }
        }
        if upstream.changes_catalogue && status == TransactionStatus::Idle {
            self.services.prepared.begin_anew();
            upstream.changes_catalogue = false;
        }
        let trackers = [&mut self.settings, &mut self.wishes, &mut upstream.applied];
        for tracked in trackers {
            match status {
                TransactionStatus::Idle => tracked.ended_otherwise(),
                TransactionStatus::Transaction | TransactionStatus::Failed => {
                    tracked.begun_otherwise();
                }
            }
            tracked.cycle_ends();
        }
        if status == TransactionStatus::Idle {
            self.names.transaction_ended();
            self.follow_wishes();
        }
        if let Some(audit) = self.audit.take() {
            self.services.metrics.went_elsewhere(audit.end());
        }
        upstream.receiving += 1;
        upstream.cycle = Cycle::Well;
        upstream.added.retain(|(of, _)| *of > cycle);
        upstream.taken.retain(|(of, _)| *of > cycle);
        upstream.ends.clear();
        upstream.completed = 0;
        upstream.prepared = 0;
        upstream.unprepared.clear();
        upstream.ignored_syncs = 0;
        if status == TransactionStatus::Idle {
            upstream.leave = None;
            upstream.portals.clear();
        }
        self.exclude = Default::default();
        self.primary_next = false;
    }

    /// Nothing more has come from the server: if it has nothing more to do for this session, it
    /// goes back to its pool.
    pub(super) fn settle(&mut self, mut upstream: Box<Upstream>) {
        let done = upstream.is_at_rest()
            && !upstream.is_in_transaction()
            && upstream.sending == upstream.receiving
            && !matches!(self.inflow, Inflow::Through(_));
        if done && self.captures(&mut upstream) {
            self.services.metrics.captures(Capture::Behind);
            upstream.send_capture();
            self.upstream = Some(upstream);
        } else if done && self.pins.can_be_asked_for() && upstream.may_hold_less() {
            upstream.send_holdings_question();
            self.note_question();
            self.upstream = Some(upstream);
        } else if done && self.local == LocalTransaction::None && !self.keeps_server() {
            self.release(upstream);
        } else {
            self.upstream = Some(upstream);
        }
    }
}

/// Messages that are looked into, and must therefore be there whole.
fn is_looked_into(tag: u8, fate: Fate) -> bool {
    match tag {
        backend::COMMAND_COMPLETE
        | backend::ERROR_RESPONSE
        | backend::FUNCTION_CALL_RESPONSE
        | backend::NOTIFICATION_RESPONSE
        | backend::PARAMETER_STATUS
        | backend::READY_FOR_QUERY
        | backend::ROW_DESCRIPTION => true,
        backend::DATA_ROW => matches!(fate, Fate::Holdings | Fate::Sight | Fate::Number),
        _ => false,
    }
}

/// The columns of a prepared statement's result are no longer those that were described. Whoever
/// prepares it again gets a new one, on every server.
fn is_outdated_plan(code: SqlState, message: &[u8]) -> bool {
    code == SqlState::FEATURE_NOT_SUPPORTED && message == b"cached plan must not change result type"
}

/// Whether a replica's error says that the statement should run elsewhere.
fn refusal(code: SqlState, message: &[u8]) -> Option<Refused> {
    let mentions = |word: &str| memchr::memmem::find(message, word.as_bytes()).is_some();
    match code {
        SqlState::READ_ONLY_SQL_TRANSACTION | SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE => {
            Some(Refused::AnyReplica)
        }
        SqlState::FEATURE_NOT_SUPPORTED if mentions("recovery") || mentions("hot standby") => {
            Some(Refused::AnyReplica)
        }
        SqlState::UNDEFINED_TABLE
        | SqlState::UNDEFINED_FUNCTION
        | SqlState::UNDEFINED_COLUMN
        | SqlState::UNDEFINED_OBJECT
        | SqlState::INVALID_PARAMETER_VALUE
        | SqlState::INVALID_SCHEMA_NAME => Some(Refused::PerhapsBehind),
        SqlState::SERIALIZATION_FAILURE
        | SqlState::DEADLOCK_DETECTED
        | SqlState::ADMIN_SHUTDOWN
        | SqlState::CRASH_SHUTDOWN
        | SqlState::CANNOT_CONNECT_NOW
        | SqlState::TOO_MANY_CONNECTIONS => Some(Refused::Here),
        code if code.in_class(b"08") => Some(Refused::Here),
        _ => None,
    }
}
