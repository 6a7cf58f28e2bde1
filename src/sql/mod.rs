//! What a statement does, told from its text alone: whether it reads or writes, what it changes in
//! the session, what its comments ask for. Pure: no I/O, no clock, no log.

mod block;
mod cache;
mod canonical;
pub mod catalogue;
mod classifier;
mod classify;
mod database;
mod dynamic;
mod expression;
mod fingerprint;
pub mod functions;
mod given;
pub mod hints;
mod left_behind;
mod lexer;
mod lists;
mod mentions;
mod names;
mod namesakes;
mod plpgsql;
mod query;
mod reader;
mod remade;
mod scope;
mod set_config;
mod settings;
mod statement;
mod transaction;
mod tree;

pub use catalogue::Catalogue;
pub use classifier::{Classified, Classifier, Learned, Unparsed};
pub use hints::{Hints, Level};
pub use lists::{Lists, Patterns};
pub use mentions::{Mentions, mentions};
pub use namesakes::{has_any, may_mean};
pub use scope::Scope;
pub use set_config::is_quoted_list;
pub use settings::quote_setting_name;

use std::sync::Arc;

/// The texts of the statements of a script; the whole where they cannot be told apart.
pub fn statements(text: &[u8]) -> Vec<&[u8]> {
    classify::statements(text)
}

/// What one frontend message's SQL text does: a Query's (one or more statements) or a Parse's (one).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Where it may run. Of several statements the strongest counts.
    pub class: Class,
    /// Statements in the text; 0 is an empty query.
    pub statements: u32,
    /// What it changes beyond data, in the order of its statements. Plain reads and writes have none.
    pub effects: Box<[Effect]>,
    /// It may put the connection into COPY IN mode (`COPY ... FROM STDIN`).
    pub copies_in: bool,
    /// It changes the catalogue (CREATE, ALTER, DROP, ...).
    pub is_ddl: bool,
    /// The relations that it reads, by the names in its text, if it is a read.
    pub relations: Box<[Relation]>,
    /// It has a query that the parser does not know, which is a write for no other reason.
    pub is_unparsed: bool,
    /// What it may run of the user's own.
    pub code: Code,
    /// What its answer shows.
    pub shows: Shown,
    /// Its statements that make a server go back to values of its own.
    pub resets: Box<[ResetStatement]>,
    /// Why, in one line, for an operator.
    pub reason: Reason,
}

impl Decision {
    /// One query that only reads, wherever, and changes nothing.
    fn is_one_query(&self) -> bool {
        let only_reads = (Class::Read..=Class::PrimaryRead).contains(&self.class);
        let changes_nothing = self.effects.is_empty() && !self.copies_in && !self.is_ddl;
        only_reads && changes_nothing && self.statements == 1
    }
}

/// Functions and blocks of the user's that a statement may run. What triggers, views and operators call is not
/// counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    #[default]
    None,
    /// It may change settings unseen.
    Runs,
    /// It may change the catalogue too.
    Remakes,
}

/// What the answer to a text shows; of several statements the strongest counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shown {
    #[default]
    Data,
    /// EXPLAIN in its text format, a row for each line.
    PlanText,
    /// EXPLAIN in another format, for programs.
    Plan,
}

/// RESET and the like, as one of a text's statements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResetStatement {
    /// Its place among them, counted from 0.
    pub place: u32,
    /// Where its last token ends, in bytes.
    pub end: usize,
    pub effect: Effect,
}

/// A relation as a text names it, letters as PostgreSQL stores them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    pub schema: Option<Box<str>>,
    pub name: Box<str>,
}

/// Where a text may run, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Needs no data: SET, SHOW, BEGIN, an empty query. Any node gives the same answer.
    Anywhere,
    /// Only reads: a replica that is fresh enough may answer.
    Read,
    /// Writes nothing, but only the primary's answer is right: `pg_is_in_recovery()`, `pg_stat_*`,
    /// row locks that a replica refuses.
    PrimaryRead,
    /// Writes, or may write.
    Write,
}

impl Class {
    pub const ALL: [Class; 4] = [
        Class::Anywhere,
        Class::Read,
        Class::PrimaryRead,
        Class::Write,
    ];
}

/// Why a text has its class; `Display` gives one line such as `function nextval() writes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason(pub Arc<str>);

/// What a statement changes that outlives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// BEGIN or START TRANSACTION.
    Begin(Begin),
    /// COMMIT, END (`AND CHAIN` opens the next one).
    Commit { chain: bool },
    /// ROLLBACK, ABORT.
    Rollback { chain: bool },
    /// SAVEPOINT.
    Savepoint(Box<str>),
    /// RELEASE, RELEASE SAVEPOINT.
    Release(Box<str>),
    /// ROLLBACK TO, ROLLBACK TO SAVEPOINT.
    RollbackTo(Box<str>),
    /// PREPARE TRANSACTION; ends the transaction block.
    PrepareTransaction,
    /// SET TRANSACTION; for the running transaction only. `read_only` where it says so.
    SetTransaction { read_only: Option<bool> },
    /// SET, SET SESSION, `set_config(.., .., false)` with literal arguments. The value is as SQL
    /// text ready to stand behind `SET name TO` (quoted literals, a comma-separated list);
    /// `None` is DEFAULT. The name is lower case. ROLE is the setting `role`,
    /// SESSION AUTHORIZATION is `session_authorization`, TIME ZONE `timezone`, NAMES
    /// `client_encoding`, SESSION CHARACTERISTICS AS TRANSACTION gives `default_transaction_isolation`,
    /// `default_transaction_read_only`, `default_transaction_deferrable`.
    Set {
        name: Box<str>,
        value: Option<Box<str>>,
    },
    /// `set_config(.., .., false)` of a setting whose value is a list of names: this is what the setting
    /// then has, with the spaces and quotes that were given.
    SetExactly { name: Box<str>, value: Box<str> },
    /// SET LOCAL, `set_config(.., .., true)`: gone with the transaction.
    SetLocal { name: Box<str> },
    /// SET LOCAL name TO DEFAULT.
    ResetLocal(Box<str>),
    /// `set_config('causeway...', $1, false)`: a SET whose value comes with Bind, in this parameter,
    /// counted from 1.
    SetGiven { name: Box<str>, parameter: u16 },
    /// RESET name.
    Reset(Box<str>),
    /// RESET ALL.
    ResetAll,
    /// DISCARD ALL.
    DiscardAll,
    /// DISCARD PLANS, SEQUENCES, TEMP.
    Discard(DiscardKind),
    /// PREPARE name.
    Prepare(Box<SqlPrepare>),
    /// EXECUTE name: what it does is what was prepared, which only the session knows.
    Execute(Box<str>),
    /// DEALLOCATE name; `None` is ALL.
    Deallocate(Option<Box<str>>),
    /// LISTEN.
    Listen,
    /// UNLISTEN; `all` for `*`.
    Unlisten { all: bool },
    /// The session then holds something that only this server has.
    Pin(PinReason),
    /// CALL and DO of code that makes settings: what it has committed before it fails stays.
    MayCommitSettings,
    /// CLOSE, DROP: the session may then hold less of that.
    MayEndPin,
    /// DROP DATABASE and the like: nobody else may be connected to this database meanwhile.
    Vacate(Box<str>),
    /// SHOW name (lower case), alone in its statement; for `causeway.*` the session answers.
    Show(Box<str>),
}

impl Effect {
    /// The server goes back to a value of its own, of one setting or of all.
    pub fn resets(&self) -> bool {
        matches!(
            self,
            Effect::Reset(_)
                | Effect::ResetLocal(_)
                | Effect::ResetAll
                | Effect::DiscardAll
                | Effect::Set { value: None, .. }
        )
    }
}

/// A PREPARE whose statement does nothing but read or write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlPrepare {
    pub name: Box<str>,
    /// The whole PREPARE, in the client's encoding: other servers can be given it.
    pub text: Box<[u8]>,
    /// Where the statement inside may run.
    pub class: Class,
    /// What it reads, as in [`Decision::relations`].
    pub relations: Box<[Relation]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiscardKind {
    Plans,
    Sequences,
    Temp,
}

/// The words of a BEGIN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Begin {
    pub read_only: Option<bool>,
    pub isolation: Option<Isolation>,
    pub deferrable: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    ReadUncommitted,
    ReadCommitted,
    RepeatableRead,
    Serializable,
}

/// Why a session must keep its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PinReason {
    Listen,
    TemporaryTable,
    HoldCursor,
    AdvisoryLock,
    Load,
    SqlPrepare,
    /// It has asked what it got from a sequence: only the server that gave it remembers.
    Sequence,
    /// A function of the user's has made a setting that nobody has seen.
    Setting,
    /// A statement that may change the session in a way that is not tracked.
    Unknown,
}

impl PinReason {
    pub const ALL: [PinReason; 9] = [
        PinReason::Listen,
        PinReason::TemporaryTable,
        PinReason::HoldCursor,
        PinReason::AdvisoryLock,
        PinReason::Load,
        PinReason::SqlPrepare,
        PinReason::Sequence,
        PinReason::Setting,
        PinReason::Unknown,
    ];

    /// What the session holds, in an operator's words.
    pub fn as_str(self) -> &'static str {
        match self {
            PinReason::Listen => "LISTEN",
            PinReason::TemporaryTable => "temporary table",
            PinReason::HoldCursor => "cursor WITH HOLD",
            PinReason::AdvisoryLock => "session advisory lock",
            PinReason::Load => "LOAD",
            PinReason::SqlPrepare => "SQL PREPARE",
            PinReason::Sequence => "currval, lastval",
            PinReason::Setting => "setting made by a function",
            PinReason::Unknown => "unknown",
        }
    }
}

#[cfg(test)]
mod tests;
