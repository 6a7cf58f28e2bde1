//! The replies that a server owes: one entry for each message that was sent to it, in order, each
//! with what is to become of its reply. Whether a server is at rest, in COPY or out of step is
//! told by this queue and by nothing else.

use std::collections::VecDeque;

use super::frame::backend;

/// Which shared prepared statement a message was for; 0 is the unnamed one, or one that is not
/// shared.
pub type StatementId = u32;

/// A frontend message, by the reply that ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Ends with ReadyForQuery.
    Query,
    /// Ends with ReadyForQuery.
    FunctionCall,
    /// Ends with ReadyForQuery.
    Sync,
    Parse(StatementId),
    /// Parse of a name that is taken, or in a failed transaction: the server refuses it.
    ParseInVain,
    Bind,
    Close,
    /// Close of a statement under the name by which SQL knows it.
    CloseInSql,
    /// Parse of a statement under the name by which SQL knows it.
    ParseInSql,
    /// Close of a shared statement, to make room for another.
    Evict(StatementId),
    DescribeStatement(StatementId),
    DescribePortal,
    Execute,
}

impl Request {
    fn is_named_parse(self) -> bool {
        matches!(self, Request::Parse(1..))
    }

    fn ends_cycle(self) -> bool {
        matches!(self, Request::Query | Request::FunctionCall | Request::Sync)
    }
}

/// What becomes of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes to the client.
    Forward,
    /// The client did not ask for it and never sees it, except that an error in it is the answer
    /// to what the client did ask for behind it.
    Swallow,
    /// As swallow, for settings and BEGIN sent ahead of a request: an error in it fails the request.
    Settings,
    /// As swallow, for what may just as well fail.
    Perhaps,
    /// It holds the position behind the client's transaction.
    Capture,
    /// As capture; with it the client's COMMIT ends, and the client gets that end.
    CaptureOfCommit,
    /// It holds the number of the client's transaction, which is still open: an error in it is the answer to that.
    Number,
    /// It shows whether the session may be asked for such numbers.
    Trial,
    /// It tells what the replica has shown.
    Sight,
    /// It tells what the server holds for its session.
    Holdings,
}

impl Fate {
    const COUNT: usize = Fate::Holdings as usize + 1;

    /// It holds a position.
    pub fn captures(self) -> bool {
        matches!(self, Fate::Capture | Fate::CaptureOfCommit)
    }
}

/// A reply that Causeway gives itself, in its turn: that a prepared statement of the client's has
/// been changed. An error ahead of it undoes the change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Synthetic {
    ParseComplete,
    CloseComplete,
    /// The server has said it.
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Reply(Request, Fate),
    Synthetic(Synthetic),
}

/// What a received message means for the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    pub fate: Fate,
    pub progress: Progress,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More of the same reply follows.
    Within,
    /// This request has been answered.
    Done(Request),
    /// The server waits for COPY data. So many Syncs that were sent ahead of it will not be answered.
    CopyIn { ignored_syncs: u64 },
    /// ErrorResponse: this request failed, and so many synthetic replies are not given.
    Failed { request: Request, unsaid: usize },
    /// ReadyForQuery: this request, which asked for it, has ended.
    Ready(Request),
}

/// A message came that no request explains: the connection is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unexpected message type {:?} from the server", char::from(*.0))]
pub struct OutOfStep(pub u8);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Copying {
    #[default]
    Not,
    In,
}

/// Whether extended-query messages have been sent that no Sync has followed yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Cycle {
    #[default]
    Closed,
    Open,
    /// A message of the cycle has failed: the server skips everything up to the Sync.
    Failed,
}

/// The queue.
#[derive(Debug, Default)]
pub struct Owed {
    entries: VecDeque<Entry>,
    cycle: Cycle,
    copying: Copying,
    /// Parses of named statements that are not answered.
    parses: usize,
    /// Of each fate, how many replies have not come: a pipeline may be long.
    of_fate: [u32; Fate::COUNT],
}

impl Owed {
    /// A reply of this fate has not come yet.
    pub fn owes(&self, fate: Fate) -> bool {
        self.of_fate[fate as usize] > 0
    }

    /// Parses of named statements are not answered yet.
    pub fn has_parses(&self) -> bool {
        self.parses > 0
    }

    /// A cycle that has been sent whole parses this statement, or closes it, and is not answered so far.
    pub fn is_changed_earlier(&self, id: StatementId) -> bool {
        let ends_cycle =
            |entry: &Entry| matches!(entry, Entry::Reply(request, _) if request.ends_cycle());
        let changes = |entry: &Entry| match entry {
            Entry::Reply(Request::Parse(of) | Request::Evict(of), _) => *of == id,
            _ => false,
        };
        let sent = self.entries.iter().rposition(ends_cycle).unwrap_or(0);
        self.entries.range(..sent).any(changes)
    }

    /// Every reply has come, and no cycle is open.
    pub fn is_at_rest(&self) -> bool {
        self.is_empty() && !self.is_mid_cycle()
    }

    /// Every reply has come; behind a Flush more may be sent before the Sync.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The server itself owes something: replies of our own do not count.
    pub fn awaits_server(&self) -> bool {
        let is_reply = |entry: &Entry| matches!(entry, Entry::Reply(..));
        self.entries.iter().any(is_reply)
    }

    /// The server takes COPY data.
    pub fn is_copying_in(&self) -> bool {
        self.copying == Copying::In
    }

    /// The client still waits for a reply; what is ours alone does not count.
    pub fn is_client_waiting(&self) -> bool {
        self.entries.iter().any(|entry| match entry {
            Entry::Reply(_, fate) => {
                matches!(fate, Fate::Forward | Fate::Settings | Fate::CaptureOfCommit)
            }
            Entry::Synthetic(_) => true,
        })
    }

    /// A cycle has begun that no Sync ends yet: the server is in its implicit transaction.
    pub fn is_mid_cycle(&self) -> bool {
        self.cycle != Cycle::Closed
    }

    /// The cycle has failed, and the server skips everything up to the Sync, which has not been
    /// sent yet. Until then nothing else may be sent: it would not be answered.
    pub fn is_skipping(&self) -> bool {
        self.cycle == Cycle::Failed
    }

    /// CopyDone or CopyFail has been sent: what the client sends next is no COPY data.
    pub fn end_copy_in(&mut self) {
        self.copying = Copying::Not;
    }

    pub fn push(&mut self, request: Request, fate: Fate) {
        self.cycle = if request.ends_cycle() {
            Cycle::Closed
        } else {
            Cycle::Open
        };
        self.parses += usize::from(request.is_named_parse());
        self.of_fate[fate as usize] += 1;
        self.entries.push_back(Entry::Reply(request, fate));
    }

    /// Takes out the entry at `place`.
    fn remove(&mut self, place: usize) {
        if let Some(Entry::Reply(request, fate)) = self.entries.remove(place) {
            self.parses -= usize::from(request.is_named_parse());
            self.of_fate[fate as usize] -= 1;
        }
    }

    pub fn push_synthetic(&mut self, reply: Synthetic) {
        self.entries.push_back(Entry::Synthetic(reply));
    }

    /// Takes the next reply of our own whose turn has come.
    pub fn pop_synthetic(&mut self) -> Option<Synthetic> {
        let Some(Entry::Synthetic(reply)) = self.entries.front().copied() else {
            return None;
        };
        self.entries.pop_front();
        Some(reply)
    }

    /// What becomes of the reply that comes next, and so of a message that belongs to no request:
    /// NoticeResponse goes where the reply around it goes.
    pub fn next_fate(&self) -> Fate {
        match self.entries.front() {
            Some(Entry::Reply(_, fate)) => *fate,
            Some(Entry::Synthetic(_)) | None => Fate::Forward,
        }
    }

    /// If a COMMIT has failed, and the capture that was to end its cycle is skipped with it: a Sync
    /// takes its place, which is to be sent.
    pub fn skips_capture(&mut self) -> bool {
        if self.next_fate() != Fate::CaptureOfCommit {
            return false;
        }
        self.remove(0);
        self.of_fate[Fate::Forward as usize] += 1;
        self.entries
            .push_front(Entry::Reply(Request::Sync, Fate::Forward));
        true
    }

    /// Nothing of what is still owed shall reach the client.
    pub fn swallow_all(&mut self) {
        self.entries
            .retain(|entry| matches!(entry, Entry::Reply(..)));
        for entry in &mut self.entries {
            if let Entry::Reply(_, fate) = entry {
                *fate = Fate::Swallow;
            }
        }
        self.of_fate = [0; Fate::COUNT];
        self.of_fate[Fate::Swallow as usize] = self.entries.len() as u32;
    }

    /// Accounts for a message of the server that answers a request. Requests that an error has
    /// made void are given to `void`, the failed one first. Synthetic replies whose turn has come
    /// must have been popped before.
    pub fn receive(
        &mut self,
        tag: u8,
        mut void: impl FnMut(Request),
    ) -> Result<Received, OutOfStep> {
        let Some(Entry::Reply(request, fate)) = self.entries.front().copied() else {
            return Err(OutOfStep(tag));
        };
        let progress = match tag {
            backend::DATA_ROW | backend::COPY_OUT_RESPONSE | backend::COPY_BOTH_RESPONSE => {
                Progress::Within
            }
            b'd' | b'c' => Progress::Within,
            backend::READY_FOR_QUERY if request.ends_cycle() => {
                self.remove(0);
                self.copying = Copying::Not;
                Progress::Ready(request)
            }
            backend::ERROR_RESPONSE => {
                self.copying = Copying::Not;
                let unsaid = self.fail(&mut void);
                Progress::Failed { request, unsaid }
            }
            backend::COPY_IN_RESPONSE => {
                let ignored_syncs = self.enter_copy_in(request, tag)?;
                Progress::CopyIn { ignored_syncs }
            }
            _ => self.within_reply(request, tag)?,
        };
        Ok(Received { fate, progress })
    }

    fn within_reply(&mut self, request: Request, tag: u8) -> Result<Progress, OutOfStep> {
        let done = match (request, tag) {
            (
                Request::Parse(_) | Request::ParseInVain | Request::ParseInSql,
                backend::PARSE_COMPLETE,
            )
            | (Request::Bind, backend::BIND_COMPLETE)
            | (Request::Close | Request::CloseInSql | Request::Evict(_), backend::CLOSE_COMPLETE)
            | (
                Request::DescribeStatement(_) | Request::DescribePortal,
                backend::ROW_DESCRIPTION | backend::NO_DATA,
            )
            | (
                Request::Execute,
                backend::COMMAND_COMPLETE
                | backend::EMPTY_QUERY_RESPONSE
                | backend::PORTAL_SUSPENDED,
            ) => true,
            (Request::DescribeStatement(_), backend::PARAMETER_DESCRIPTION)
            | (
                Request::Query,
                backend::ROW_DESCRIPTION
                | backend::COMMAND_COMPLETE
                | backend::EMPTY_QUERY_RESPONSE,
            )
            | (Request::FunctionCall, backend::FUNCTION_CALL_RESPONSE) => false,
            _ => return Err(OutOfStep(tag)),
        };
        if tag == backend::COMMAND_COMPLETE {
            self.copying = Copying::Not;
        }
        if done {
            self.remove(0);
            Ok(Progress::Done(request))
        } else {
            Ok(Progress::Within)
        }
    }

    /// After an error a server skips all messages up to the next Sync; a Query or a function call
    /// still ends with ReadyForQuery. Gives the number of synthetic replies that are skipped too.
    fn fail(&mut self, void: &mut impl FnMut(Request)) -> usize {
        let mut unsaid = 0;
        while let Some(entry) = self.entries.front() {
            match *entry {
                Entry::Reply(request, _) if request.ends_cycle() => return unsaid,
                Entry::Reply(request, _) => void(request),
                Entry::Synthetic(_) => unsaid += 1,
            }
            self.remove(0);
        }
        if self.is_mid_cycle() {
            self.cycle = Cycle::Failed;
        }
        unsaid
    }

    /// In COPY mode a server ignores Sync ("for the convenience of client libraries"), so those
    /// that were sent right behind the Execute are not answered.
    fn enter_copy_in(&mut self, request: Request, tag: u8) -> Result<u64, OutOfStep> {
        match request {
            Request::Query | Request::Execute => self.copying = Copying::In,
            _ => return Err(OutOfStep(tag)),
        }
        let mut ignored = 0;
        if request == Request::Execute {
            self.cycle = Cycle::Open;
            while matches!(self.entries.get(1), Some(Entry::Reply(Request::Sync, _))) {
                self.remove(1);
                ignored += 1;
            }
        }
        if self.entries.len() > 1 {
            Err(OutOfStep(tag))
        } else {
            Ok(ignored)
        }
    }
}

#[cfg(test)]
mod tests;
