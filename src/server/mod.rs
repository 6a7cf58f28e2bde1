//! A server: one connection of ours to PostgreSQL, with everything that we know of its state.

pub mod cancel;
pub mod credential;
pub mod dial;
mod login;
pub mod reported;
pub mod settings;

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use hashbrown::HashMap;
use lru::LruCache;

use crate::net::Wire;
use crate::protocol::error::{SqlState, summary};
use crate::protocol::frame::{Frame, InvalidLength, Shape, backend, parameter_status};
use crate::protocol::message::{self, TransactionStatus};
use crate::protocol::owed::{Fate, OutOfStep, Owed, Request, StatementId};
use crate::routing::NodeIndex;

pub use cancel::{CancelKey, CancelTarget};
pub use credential::Credential;
pub use dial::{DialError, Dialer};
pub use reported::Reported;
pub use settings::Settings;

/// One connection to PostgreSQL.
#[derive(Debug)]
pub struct Server {
    pub wire: Wire,
    pub owed: Owed,
    /// As the last ReadyForQuery said.
    pub status: TransactionStatus,
    /// Its parameters, as it last reported them.
    pub reported: Reported,
    /// What has been SET on it.
    pub settings: Settings,
    /// The session whose code has run on it, and may have SET anything else.
    pub tampered: Option<u64>,
    /// Which of the shared prepared statements it has.
    pub statements: HeldStatements,
    /// What SQL PREPARE has made on it, by name.
    pub sql_statements: SqlStatements,
    /// Which session's unnamed statement it has.
    pub unnamed: Option<UnnamedTag>,
    /// Who has used sequences on it last.
    pub sequences: Option<u64>,
    node: NodeIndex,
    cancel: Arc<CancelTarget>,
    born: Instant,
}

/// Why SQL of our own did not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Length(#[from] InvalidLength),
    #[error("{0}")]
    OutOfStep(#[from] OutOfStep),
    /// The server's own words.
    #[error("{message}")]
    Refused { code: SqlState, message: String },
}

/// Tells one unnamed statement from every other that any session has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnnamedTag {
    pub session: u64,
    pub count: u64,
}

impl Server {
    pub fn node(&self) -> NodeIndex {
        self.node
    }

    /// Where a cancel request for it goes.
    pub fn cancel_target(&self) -> &Arc<CancelTarget> {
        &self.cancel
    }

    pub fn born(&self) -> Instant {
        self.born
    }

    /// No reply is owed, no transaction is open, nothing waits to be sent: the next session may
    /// have it.
    pub fn is_clean(&self) -> bool {
        self.owed.is_at_rest()
            && self.status == TransactionStatus::Idle
            && self.wire.output.is_empty()
            && self.wire.input.is_empty()
    }

    /// In no transaction, and all of what was begun has been sent; replies may still be owed.
    pub fn is_between_cycles(&self) -> bool {
        !self.owed.is_mid_cycle()
            && self.status == TransactionStatus::Idle
            && self.wire.output.is_empty()
    }

    /// Looks, without waiting, whether a server at rest is still alive, and takes in what it
    /// reported meanwhile.
    pub fn is_alive(&mut self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        loop {
            match self.wire.poll_fill(&mut context) {
                Poll::Pending => return self.wire.input.is_empty(),
                Poll::Ready(Ok(1..)) => {
                    if !self.take_in_reports() {
                        return false;
                    }
                }
                Poll::Ready(Ok(0) | Err(_)) => return false,
            }
        }
    }

    /// Consumes whole ParameterStatus, Notice and Notification messages; false on any other.
    fn take_in_reports(&mut self) -> bool {
        while let Ok(Some(frame)) = Frame::read(self.wire.input.bytes()) {
            match frame.tag {
                backend::PARAMETER_STATUS => {
                    if let Some((name, value)) = parameter_status(frame.body()) {
                        self.reported.update(name, value);
                    }
                }
                backend::NOTICE_RESPONSE | backend::NOTIFICATION_RESPONSE => {}
                _ => return false,
            }
            let size = frame.bytes.len();
            self.wire.input.consume(size);
        }
        true
    }

    /// Runs SQL of our own, outside of any session, and waits for its end. The server must be at
    /// rest. Gives the notices that came with it, as they came.
    pub async fn run(&mut self, sql: &str) -> Result<Vec<u8>, RunError> {
        let mut query = Vec::new();
        message::put_query(&mut query, sql);
        self.wire.output.extend(&query);
        self.owed.push(Request::Query, Fate::Swallow);
        self.unnamed = None;
        self.wait_until_ready(|_| {}).await
    }

    /// What another session's code may have SET has been undone. It may have taken away what we have prepared for
    /// ourselves, too.
    pub fn is_restored(&mut self) {
        self.tampered = None;
        for id in [PREPARED_COMMIT, PREPARED_NUMBER] {
            self.statements.remove(id);
        }
    }

    /// Makes it as it was behind its log-in, but for libraries that have been loaded (manual, "DISCARD").
    pub async fn start_over(&mut self) -> Result<(), RunError> {
        self.run("DISCARD ALL").await?;
        self.settings = Settings::default();
        self.tampered = None;
        self.statements.clear();
        self.sql_statements.clear();
        self.sequences = None;
        Ok(())
    }

    /// Gives the server a shared statement, ahead of its use, and asks for the columns of its
    /// result. What was sent before is answered first; the first error of all is the outcome.
    pub async fn prepare(&mut self, id: StatementId, definition: &[u8]) -> Result<Shape, RunError> {
        let oldest = self.statements.insert(id);
        self.parse_and_describe(&statement_name(id), id, definition, oldest)
            .await
    }

    /// Gives the server a client's unnamed statement, ahead of its use; otherwise as
    /// [`prepare`](Server::prepare).
    pub async fn prepare_unnamed(
        &mut self,
        tag: UnnamedTag,
        definition: &[u8],
    ) -> Result<Shape, RunError> {
        self.unnamed = None;
        let shape = self.parse_and_describe("", 0, definition, None).await?;
        self.unnamed = Some(tag);
        Ok(shape)
    }

    async fn parse_and_describe(
        &mut self,
        name: &str,
        id: StatementId,
        definition: &[u8],
        evicts: Option<StatementId>,
    ) -> Result<Shape, RunError> {
        let mut out = Vec::new();
        message::put_parse(&mut out, name.as_bytes(), definition);
        message::put_describe_statement(&mut out, name.as_bytes());
        self.owed.push(Request::Parse(id), Fate::Swallow);
        self.owed
            .push(Request::DescribeStatement(id), Fate::Swallow);
        if let Some(oldest) = evicts {
            message::put_close_statement(&mut out, &statement_name(oldest));
            self.owed.push(Request::Evict(oldest), Fate::Swallow);
        }
        message::put_sync(&mut out);
        self.owed.push(Request::Sync, Fate::Swallow);
        self.wire.output.extend(&out);
        let mut shape = Shape::NONE;
        // The last description is the statement's: settings that go ahead may be described too.
        let heard = |frame: &Frame| match frame.tag {
            backend::ROW_DESCRIPTION => {
                shape = Shape::read(frame.body()).unwrap_or(Shape::NONE);
            }
            backend::NO_DATA => shape = Shape::NONE,
            _ => {}
        };
        self.wait_until_ready(heard).await?;
        Ok(shape)
    }

    /// Takes a shared statement back from the server.
    pub async fn unprepare(&mut self, id: StatementId) -> Result<(), RunError> {
        let mut out = Vec::new();
        message::put_close_statement(&mut out, &statement_name(id));
        message::put_sync(&mut out);
        self.wire.output.extend(&out);
        self.owed.push(Request::Close, Fate::Swallow);
        self.owed.push(Request::Sync, Fate::Swallow);
        self.statements.remove(id);
        self.wait_until_ready(|_| {}).await?;
        Ok(())
    }

    /// Waits until the server has answered a Sync.
    pub async fn round_trip(&mut self) -> Result<(), RunError> {
        let mut sync = Vec::new();
        message::put_sync(&mut sync);
        self.wire.output.extend(&sync);
        self.owed.push(Request::Sync, Fate::Swallow);
        self.wait_until_ready(|_| {}).await?;
        Ok(())
    }

    /// Sends what is left, and a Sync for what may have failed in the middle of a cycle, and drops all
    /// that comes, until that ends with ReadyForQuery or the server has gone. For a server that is then closed.
    pub async fn until_ready(&mut self) {
        let mut sync = Vec::new();
        message::put_sync(&mut sync);
        self.wire.output.extend(&sync);
        if self.wire.flush().await.is_err() {
            return;
        }
        while let Ok(1..) = self.wire.fill().await {
            let ready = matches!(self.wire.input.bytes(), [.., b'Z', 0, 0, 0, 5, _]);
            let size = self.wire.input.len();
            self.wire.input.consume(size);
            if ready {
                return;
            }
        }
    }

    /// Takes in what is owed, and keeps the books of it; `heard` gets what answers requests.
    async fn wait_until_ready(
        &mut self,
        mut heard: impl FnMut(&Frame),
    ) -> Result<Vec<u8>, RunError> {
        self.wire.flush().await?;
        let mut notices = Vec::new();
        let mut refused = None;
        while !self.owed.is_at_rest() {
            if self.wire.fill().await? == 0 {
                return Err(RunError::Io(io::ErrorKind::UnexpectedEof.into()));
            }
            while let Some(frame) = Frame::read(self.wire.input.bytes())? {
                match frame.tag {
                    backend::PARAMETER_STATUS => {
                        if let Some((name, value)) = parameter_status(frame.body()) {
                            self.reported.update(name, value);
                        }
                    }
                    backend::NOTICE_RESPONSE => notices.extend_from_slice(frame.bytes),
                    backend::NOTIFICATION_RESPONSE => {}
                    tag => {
                        let body = frame.body();
                        let statements = &mut self.statements;
                        self.owed.receive(tag, |voided| statements.void(voided))?;
                        heard(&frame);
                        if tag == backend::ERROR_RESPONSE {
                            let said = summary(body);
                            let message = String::from_utf8_lossy(said.message).into_owned();
                            refused.get_or_insert(RunError::Refused {
                                code: said.code,
                                message,
                            });
                        }
                        if tag == backend::READY_FOR_QUERY
                            && let Some(status) = TransactionStatus::read(body)
                        {
                            self.status = status;
                        }
                    }
                }
                let size = frame.bytes.len();
                self.wire.input.consume(size);
            }
        }
        refused.map_or(Ok(notices), Err)
    }

    /// Says Terminate and closes, without minding whether the other side still listens.
    pub async fn terminate(mut self) {
        let mut goodbye = Vec::new();
        message::put_terminate(&mut goodbye);
        self.wire.output.extend(&goodbye);
        let closed: io::Result<()> = self.wire.close().await;
        if let Err(error) = closed {
            tracing::trace!(%error, "the server was gone before it could be told goodbye");
        }
    }
}

/// The prepared statements that a server has, bounded: the least recently used makes room.
#[derive(Clone, Debug)]
pub struct HeldStatements {
    held: LruCache<StatementId, (), foldhash::fast::RandomState>,
}

/// Prepared statements kept on one server at the most.
pub const HELD_STATEMENTS: NonZeroUsize = NonZeroUsize::new(500).unwrap();

impl HeldStatements {
    fn new() -> HeldStatements {
        let hasher = foldhash::fast::RandomState::default();
        HeldStatements {
            held: LruCache::unbounded_with_hasher(hasher),
        }
    }

    pub fn has(&self, id: StatementId) -> bool {
        self.held.contains(&id)
    }

    /// Whether the server has it; counts as a use.
    pub fn touch(&mut self, id: StatementId) -> bool {
        self.held.get(&id).is_some()
    }

    /// Notes that the server is being given it; returns one that must go to make room.
    pub fn insert(&mut self, id: StatementId) -> Option<StatementId> {
        self.held.put(id, ());
        if self.held.len() > HELD_STATEMENTS.get() {
            self.held.pop_lru().map(|(oldest, ())| oldest)
        } else {
            None
        }
    }

    /// Notes that the server still has it: it did not come to make room.
    pub fn restore(&mut self, id: StatementId) {
        self.held.put(id, ());
    }

    pub fn remove(&mut self, id: StatementId) {
        self.held.pop(&id);
    }

    pub fn clear(&mut self) {
        self.held.clear();
    }

    /// Undoes what a request was to change that has failed, or was skipped.
    pub fn void(&mut self, request: Request) {
        match request {
            Request::Parse(id @ 1..) => self.remove(id),
            Request::Evict(id) => self.restore(id),
            _ => {}
        }
    }
}

/// Statements that SQL can EXECUTE, by name: what made each of them. Two of the same making are the
/// same.
pub type SqlStatements = HashMap<Box<str>, Arc<[u8]>>;

/// A server with more of them than this goes no further than its session.
pub const HELD_SQL_STATEMENTS: usize = 100;

/// What the names of shared prepared statements begin with.
pub const STATEMENT_PREFIX: &str = "causeway_";

/// The COMMIT that Causeway prepares for itself. No statement of a client's has this number.
pub const PREPARED_COMMIT: StatementId = StatementId::MAX - 1;

/// As [`PREPARED_COMMIT`], the question for a transaction's number.
pub const PREPARED_NUMBER: StatementId = StatementId::MAX - 2;

/// The name under which a shared prepared statement is known on servers.
pub fn statement_name(id: StatementId) -> String {
    match id {
        PREPARED_COMMIT => format!("{STATEMENT_PREFIX}commit"),
        PREPARED_NUMBER => format!("{STATEMENT_PREFIX}number"),
        id => format!("{STATEMENT_PREFIX}{id}"),
    }
}
