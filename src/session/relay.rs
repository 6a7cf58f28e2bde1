//! The relay: moves bytes between the client and the session's server until something happens
//! that needs a decision. The session's own task reads and writes both sockets.

use std::future::{Future, poll_fn};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::sleep;

use super::order::may_go_now;
use super::runs::{LOOKAHEAD, run_needs};
use super::survey::{Plan, Surveyed};
use super::upstream::{Footprint, Upstream};
use super::{LocalTransaction, Session};
use crate::protocol::error::{Fault, SqlState};
use crate::protocol::frame::{HEADER, Header, frontend};
use crate::protocol::message;
use crate::protocol::owed::{Fate, OutOfStep, Request};
use crate::routing::Role;
use crate::sql::Class;

/// What the relay cannot settle itself.
pub enum Event {
    /// A run of messages may be sent now.
    Request(Plan),
    /// The server is of no more use to this session.
    ServerFailed(Failure),
    /// The end of an answer waits for the key store.
    TellStore,
    /// The client has gone.
    Gone,
    /// The client broke the protocol.
    Violation(Fault),
    /// The client has been silent for too long.
    Idle,
    /// The proxy is being shut down, and the client has nothing under way.
    Drain,
}

/// Why a server is given up.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("{0}")]
    Lost(std::io::Error),
    #[error("{0}")]
    OutOfStep(OutOfStep),
    /// It did not take the session's settings; its ErrorResponse says why.
    #[error("it did not take the session's settings")]
    Settings(Vec<u8>),
    /// A replica would not or could not run what it was sent; nothing has been shown yet.
    #[error("it refused what it was sent")]
    Refused,
}

/// What the client's next bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inflow {
    /// Messages that are looked at.
    Frames,
    /// The rest, so long, of a message that goes to the server as it is.
    Through(usize),
    /// The rest of a message that goes nowhere.
    Discard(usize),
    /// Nothing: the client has hung up, and only what it has sent is still carried out.
    Ended,
    /// The rest, so long, of a message that is skipped, and then all others up to the next Sync,
    /// after an error of our own.
    ToSync(usize),
}

/// The client's bytes are left in its socket while so many wait for the server.
pub(super) const MAX_UNSENT: usize = 64 * 1024;

/// A client that has sent nothing for so long waits for an answer. PostgreSQL runs each message as it comes,
/// and tells of an error without being asked for more by a Sync or a Flush.
const SILENCE: Duration = Duration::from_millis(100);

impl Session {
    /// Relays until there is something to decide. Cancel safe: all progress is kept in `self`.
    pub(super) async fn next_event(&mut self) -> Event {
        let limit = self.services.options.idle_timeout;
        let (mut patience, mut silence) = (None, None);
        poll_fn(|context| {
            loop {
                if let Poll::Ready(event) = self.poll_event(context) {
                    return Poll::Ready(event);
                }
                if self.is_silent || !self.holds_a_run_back() {
                    break;
                }
                let there = self.client.input.len();
                let (since, timer) =
                    silence.get_or_insert_with(|| (there, Box::pin(sleep(SILENCE))));
                if *since != there {
                    (*since, *timer) = (there, Box::pin(sleep(SILENCE)));
                }
                ready!(timer.as_mut().poll(context));
                self.is_silent = true;
            }
            if limit.is_zero() || !self.is_idle() {
                patience = None;
                return Poll::Pending;
            }
            let patience = patience.get_or_insert_with(|| Box::pin(sleep(limit)));
            patience.as_mut().poll(context).map(|()| Event::Idle)
        })
        .await
    }

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        loop {
            // Ahead of all else: what comes next must choose its own server.
            let mut progress = self.part_from_idle_server();
            if self.upstream.is_none() {
                self.unpark();
            }
            if self.must_tell_store() {
                return Poll::Ready(Event::TellStore);
            }
            if let Some(event) = self.take_request() {
                return Poll::Ready(event);
            }
            if self.upstream.is_some() {
                match self.poll_server(context) {
                    Ok(moved) => progress |= moved,
                    Err(failure) => return Poll::Ready(Event::ServerFailed(failure)),
                }
            }
            let had_room = self.has_room();
            if let Poll::Ready(Err(_)) = self.poll_answer(context) {
                return Poll::Ready(Event::Gone);
            }
            // The server was not listened to for want of room: nobody else would wake this task.
            progress |= !had_room && self.has_room();
            if self.wants_input() {
                match self.client.poll_fill(context) {
                    Poll::Ready(Ok(1..)) => {
                        progress = true;
                        self.is_silent = false;
                    }
                    Poll::Ready(Ok(0)) if self.has_write_under_way() => {
                        self.inflow = Inflow::Ended;
                        progress = true;
                    }
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Event::Gone),
                    Poll::Pending => {}
                }
            }
            if !progress {
                if self.is_idle() && self.cancel.slot().is_draining(context.waker()) {
                    return Poll::Ready(Event::Drain);
                }
                return Poll::Pending;
            }
        }
    }

    /// A server that owes nothing any more goes back, though no reply says so: the rest of a failed
    /// COPY has been sent, or nothing was asked of it in the end. True if that makes way for more.
    fn part_from_idle_server(&mut self) -> bool {
        let idle =
            |upstream: &mut Box<Upstream>| upstream.refused.is_none() && upstream.is_at_rest();
        let Some(upstream) = self.upstream.take_if(idle) else {
            return false;
        };
        self.settle(upstream);
        self.upstream.is_none()
    }

    /// The client has said Terminate behind something that may write: that is carried out although
    /// it has hung up. What a client that merely vanishes has left running is cancelled.
    fn has_write_under_way(&self) -> bool {
        let said_goodbye = self.client.input.bytes().first() == Some(&frontend::TERMINATE);
        let writes = |upstream: &Upstream| {
            upstream.owes_client()
                && !upstream.is_in_transaction()
                && matches!(
                    upstream.footprint,
                    Footprint::Capturing | Footprint::Unasked
                )
        };
        said_goodbye && self.upstream.as_deref().is_some_and(writes)
    }

    /// Sends the client what it may have by now.
    fn poll_answer(&mut self, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match &mut self.held_from {
            Some(mark) => self.client.poll_flush_first(context, mark),
            None => self.client.poll_flush(context),
        }
    }

    /// There is not too much that the client has not taken yet.
    fn has_room(&self) -> bool {
        self.client.output.len() < MAX_UNSENT
    }

    /// Sends what waits for the server and takes in what has come from it; true if that changes
    /// what can be done next.
    fn poll_server(&mut self, context: &mut Context<'_>) -> Result<bool, Failure> {
        let has_room = self.has_room();
        let Some(upstream) = &mut self.upstream else {
            return Ok(false);
        };
        let owes_nothing = upstream.server.owed.is_at_rest();
        let wire = &mut upstream.server.wire;
        let unsent = wire.output.len();
        if let Poll::Ready(Err(error)) = wire.poll_flush(context) {
            // What the server said before it went may explain why.
            if let Poll::Ready(Ok(1..)) = wire.poll_fill(context) {
                self.take_replies(context)?;
            }
            return Err(Failure::Lost(error));
        }
        // What the client has sent may have waited for this; or it was the last that this server
        // had to be sent, and no reply will come that says so.
        let drained = unsent >= MAX_UNSENT && wire.output.len() < MAX_UNSENT
            || unsent > 0 && wire.output.is_empty() && owes_nothing;
        if !has_room {
            return Ok(drained);
        }
        match wire.poll_fill(context) {
            Poll::Ready(Ok(0)) => Err(Failure::Lost(std::io::ErrorKind::UnexpectedEof.into())),
            Poll::Ready(Ok(_)) => self.take_replies(context).map(|()| true),
            Poll::Ready(Err(error)) => Err(Failure::Lost(error)),
            Poll::Pending => Ok(drained),
        }
    }

    /// Whether the client's next bytes are wanted now.
    fn wants_input(&self) -> bool {
        let unsent = match &self.upstream {
            Some(upstream) => upstream.server.wire.output.len(),
            None => 0,
        };
        if unsent >= MAX_UNSENT {
            return false;
        }
        match self.inflow {
            Inflow::Through(_) | Inflow::Discard(_) | Inflow::ToSync(_) => true,
            Inflow::Ended => false,
            Inflow::Frames if self.plan.is_some() => self.client.input.len() < LOOKAHEAD,
            Inflow::Frames => {
                // A statement's text must be whole, up to the length that is allowed.
                let limit = self.services.options.max_query_size;
                self.client.input.len() < run_needs(self.client.input.bytes(), limit)
            }
        }
    }

    /// Nothing is under way, and nothing is held that only this client has.
    pub(super) fn is_idle(&self) -> bool {
        let at_rest = match &self.upstream {
            Some(upstream) => upstream.is_at_rest() && !upstream.is_in_transaction(),
            None => self.local == LocalTransaction::None,
        };
        at_rest && self.client.input.is_empty() && self.client.output.is_empty()
    }

    /// Works through the client's input until a run of messages is whole and may be sent.
    fn take_request(&mut self) -> Option<Event> {
        loop {
            if self.inflow == Inflow::Ended {
                let done = !self.has_write_under_way();
                return done.then_some(Event::Gone);
            }
            let waits = self.held_from.is_some() || self.held_ready.is_some() || !self.has_room();
            if waits || self.client.input.is_empty() && self.plan.is_none() {
                return None;
            }
            let taken = match self.inflow {
                Inflow::Through(left) => self.pass_through(left),
                Inflow::Discard(left) => {
                    self.pass(left, Inflow::Discard);
                    Taken::Some
                }
                Inflow::ToSync(0) => self.skip_message(),
                Inflow::ToSync(left) => {
                    let count = left.min(self.client.input.len());
                    self.client.input.consume(count);
                    self.inflow = Inflow::ToSync(left - count);
                    Taken::Some
                }
                Inflow::Frames => self.take_frames(),
                Inflow::Ended => Taken::Nothing,
            };
            match taken {
                Taken::Some => {}
                Taken::Nothing => return None,
                Taken::Event(event) => return Some(event),
            }
        }
    }

    fn pass_through(&mut self, left: usize) -> Taken {
        if let Some(upstream) = &mut self.upstream {
            let wire = &mut upstream.server.wire;
            if wire.output.len() >= MAX_UNSENT {
                return Taken::Nothing;
            }
            let count = left.min(self.client.input.len());
            wire.output.extend(&self.client.input.bytes()[..count]);
        }
        self.pass(left, Inflow::Through);
        Taken::Some
    }

    /// Takes what is there of `left` bytes off the input; `rest` is where the others go.
    fn pass(&mut self, left: usize, rest: fn(usize) -> Inflow) {
        let count = left.min(self.client.input.len());
        self.client.input.consume(count);
        self.inflow = if count < left {
            rest(left - count)
        } else {
            Inflow::Frames
        };
    }

    fn take_frames(&mut self) -> Taken {
        if self
            .upstream
            .as_ref()
            .is_some_and(|upstream| upstream.server.owed.is_copying_in())
        {
            return self.take_copy_message();
        }
        if let Some(upstream) = &self.upstream
            && upstream.server.owed.is_skipping()
            && let Some(taken) = self.skip_failed_cycle()
        {
            return taken;
        }
        if self.plan.is_none() {
            let changes_to_come = |upstream: &Upstream| {
                let owed = &upstream.server.owed;
                upstream.changes_session() && !owed.is_mid_cycle()
                    || upstream.changes_names() && owed.awaits_server()
            };
            if self.upstream.as_deref().is_some_and(changes_to_come) {
                return Taken::Nothing;
            }
            match self.survey() {
                Ok(Surveyed::Plan(plan)) => self.plan = Some(plan),
                Ok(Surveyed::More | Surveyed::Wait) => return Taken::Nothing,
                // What was sent before it is still to be carried out.
                Ok(Surveyed::Terminate) => {
                    let busy = self
                        .upstream
                        .as_ref()
                        .is_some_and(|upstream| upstream.owes_client());
                    return if busy {
                        Taken::Nothing
                    } else {
                        Taken::Event(Event::Gone)
                    };
                }
                Ok(Surveyed::StrayCopy(size)) => return self.stray_copy(size),
                Err(fault) => return Taken::Event(Event::Violation(fault)),
            }
        }
        if self.must_leave_replica() {
            return Taken::Nothing;
        }
        let is_kept = self.keeps_server();
        // Each answer ends when the store knows of it.
        let in_turn =
            |upstream: &Upstream| upstream.owes_client() && !upstream.server.owed.is_mid_cycle();
        if self.shares_key() && self.upstream.as_deref().is_some_and(in_turn) {
            return Taken::Nothing;
        }
        match self
            .plan
            .take_if(|plan| may_go_now(self.upstream.as_deref(), is_kept, plan))
        {
            Some(plan) => Taken::Event(Event::Request(plan)),
            None => Taken::Nothing,
        }
    }

    /// Behind a Flush, a cycle that began with reads on a replica may go on with something that
    /// only the primary can do, or that leaves a portal open: then the replica's part of it is ended, once it has been answered
    /// and has not failed. True as long as the run must wait for that.
    fn must_leave_replica(&mut self) -> bool {
        let (Some(upstream), Some(plan)) = (&mut self.upstream, &mut self.plan) else {
            return false;
        };
        let only_reads = plan.class <= Class::Read
            && plan.begins.is_none()
            && !plan.has_effects
            && !plan.leaves_portal
            && upstream.suffices_for(plan.level().filter(|_| plan.class == Class::Read));
        let stays = upstream.role == Role::Primary || only_reads || upstream.is_in_transaction();
        if !upstream.server.owed.is_mid_cycle() || stays {
            return false;
        }
        plan.is_behind_read = upstream.level.is_some();
        if upstream.server.owed.is_empty() {
            let mut out = Vec::new();
            message::put_sync(&mut out);
            upstream.server.wire.output.extend(&out);
            upstream.server.owed.push(Request::Sync, Fate::Swallow);
            self.spent = upstream.bound.take();
        }
        true
    }

    /// An error has ended the cycle before its Sync came: as in PostgreSQL, everything up to the
    /// Sync is dropped. None when it is there: it is sent.
    fn skip_failed_cycle(&mut self) -> Option<Taken> {
        if let Some(plan) = self.plan.take() {
            self.forget_plan(plan);
        }
        match Header::read(self.client.input.bytes()) {
            Ok(Some(header)) if header.tag == frontend::SYNC => None,
            Ok(Some(header)) if header.tag == frontend::TERMINATE => {
                Some(Taken::Event(Event::Gone))
            }
            Ok(Some(header)) => {
                self.inflow = Inflow::Discard(header.size);
                Some(Taken::Some)
            }
            Ok(None) => Some(Taken::Nothing),
            Err(error) => Some(violation(&error.to_string())),
        }
    }

    /// COPY data goes to the server as it comes.
    fn take_copy_message(&mut self) -> Taken {
        let Some(upstream) = &mut self.upstream else {
            return Taken::Nothing;
        };
        if upstream.server.wire.output.len() >= MAX_UNSENT {
            return Taken::Nothing;
        }
        let header = match Header::read(self.client.input.bytes()) {
            Ok(Some(header)) => header,
            Ok(None) => return Taken::Nothing,
            Err(error) => return violation(&error.to_string()),
        };
        match header.tag {
            frontend::COPY_DATA | frontend::FLUSH => {}
            frontend::COPY_DONE | frontend::COPY_FAIL => upstream.server.owed.end_copy_in(),
            // A server in COPY mode ignores it.
            frontend::SYNC => {}
            frontend::TERMINATE => return Taken::Event(Event::Gone),
            other => {
                return violation(&format!("message type {other} during COPY from stdin"));
            }
        }
        let count = header.size.min(self.client.input.len());
        upstream
            .server
            .wire
            .output
            .extend(&self.client.input.bytes()[..count]);
        self.pass(header.size, Inflow::Through);
        Taken::Some
    }

    /// COPY messages outside of COPY: the rest of one that failed. A server would ignore them;
    /// while a reply is under way they may yet be wanted.
    fn stray_copy(&mut self, size: usize) -> Taken {
        if self
            .upstream
            .as_ref()
            .is_some_and(|upstream| upstream.owes_client())
        {
            return Taken::Nothing;
        }
        self.inflow = Inflow::Discard(size);
        Taken::Some
    }

    /// Drops a message; a Sync ends the skipping and is answered.
    fn skip_message(&mut self) -> Taken {
        let header = match Header::read(self.client.input.bytes()) {
            Ok(Some(header)) => header,
            Ok(None) => return Taken::Nothing,
            Err(error) => return violation(&error.to_string()),
        };
        match header.tag {
            frontend::TERMINATE => return Taken::Event(Event::Gone),
            frontend::SYNC => {
                self.client.input.consume(HEADER);
                self.inflow = Inflow::Frames;
                let mut out = Vec::new();
                message::put_ready_for_query(&mut out, self.local_status());
                self.client.output.extend(&out);
            }
            _ => self.inflow = Inflow::ToSync(header.size),
        }
        Taken::Some
    }
}

/// What came of a look at the client's input.
enum Taken {
    /// Something was taken off it; there may be more.
    Some,
    /// It must wait: for more bytes, or for the server.
    Nothing,
    Event(Event),
}

fn violation(what: &str) -> Taken {
    Taken::Event(Event::Violation(Fault::fatal(
        SqlState::PROTOCOL_VIOLATION,
        what,
    )))
}
