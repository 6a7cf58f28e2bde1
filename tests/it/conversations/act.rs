//! What a conversation is made of, and how it reads.

use std::fmt;

use causeway::protocol::frame::frontend;

use crate::raw;

/// One frontend message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    Query(String),
    Parse {
        name: &'static str,
        sql: String,
    },
    Bind {
        portal: &'static str,
        statement: &'static str,
        parameters: Vec<String>,
        results: Format,
    },
    DescribeStatement(&'static str),
    DescribePortal(&'static str),
    Execute {
        portal: &'static str,
        rows: u32,
    },
    CloseStatement(&'static str),
    ClosePortal(&'static str),
    Sync,
    Flush,
    CopyData(Vec<u8>),
    CopyDone,
    CopyFail,
    /// A function by number, its arguments as text.
    Call {
        function: u32,
        arguments: Vec<String>,
    },
}

/// How a portal gives its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Binary,
}

/// Messages that are sent in one write, and how far the answer is then read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    pub acts: Vec<Act>,
    pub wait: Wait,
    pub cancel: Cancel,
}

/// When a turn has a request to cancel. Another connection makes it, and it has done its work
/// before anything else is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancel {
    Never,
    /// When a statement sleeps. It would not wake up by itself in time.
    Asleep,
    /// When the turn has been answered: it finds nothing to do, unless a COPY has begun.
    Answered,
}

/// What tells that a turn has been answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// A ReadyForQuery for each Query, Sync and FunctionCall of the turn.
    Ready,
    /// Behind the last Flush: as many replies as there are requests, or an error.
    Flushed,
    /// CopyInResponse, or a ReadyForQuery because there will be no COPY.
    CopyBegun,
    /// The ReadyForQuery behind a COPY, if it had begun.
    CopyEnded,
}

/// How a client leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// With Terminate.
    Politely,
    /// Its connection breaks.
    Vanishing,
}

/// A client's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversation {
    pub startup: Vec<(&'static str, &'static str)>,
    pub turns: Vec<Turn>,
    pub leave: Leave,
}

impl Conversation {
    /// Every COPY that is begun gets its data, or an end.
    pub fn is_sound(&self) -> bool {
        let begins = |turn: &Turn| turn.wait == Wait::CopyBegun;
        let sends = |turn: &Turn| {
            let last = |act: &Act| matches!(act, Act::CopyDone | Act::CopyFail);
            turn.acts.iter().any(last)
        };
        let after = self.turns.iter().skip(1).map(sends).chain([false]);
        let mut pairs = self.turns.iter().map(begins).zip(after);
        pairs.all(|(begins, ended)| ended || !begins)
    }
}

impl Turn {
    /// A turn without a request to cancel.
    pub fn new(acts: Vec<Act>, wait: Wait) -> Turn {
        Turn {
            acts,
            wait,
            cancel: Cancel::Never,
        }
    }

    pub fn cancelled(self, cancel: Cancel) -> Turn {
        Turn { cancel, ..self }
    }
}

impl Act {
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Act::Query(sql) => raw::query(sql),
            Act::Parse { name, sql } => raw::parse(name, sql),
            Act::Bind {
                portal,
                statement,
                parameters,
                results,
            } => {
                let parameters: Vec<&str> = parameters.iter().map(String::as_str).collect();
                match results {
                    Format::Text => raw::bind(portal, statement, &parameters),
                    Format::Binary => raw::bind_binary_results(portal, statement, &parameters),
                }
            }
            Act::DescribeStatement(name) => raw::describe_statement(name),
            Act::DescribePortal(name) => raw::describe_portal(name),
            Act::Execute { portal, rows } => raw::execute(portal, *rows),
            Act::CloseStatement(name) => raw::close_statement(name),
            Act::ClosePortal(name) => raw::close_portal(name),
            Act::Sync => raw::sync(),
            Act::Flush => raw::flush(),
            Act::CopyData(data) => raw::frame(frontend::COPY_DATA, data),
            Act::CopyDone => raw::copy_done(),
            Act::CopyFail => raw::copy_fail("no more"),
            Act::Call {
                function,
                arguments,
            } => {
                let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
                raw::function_call(*function, &arguments)
            }
        }
    }

    /// Its answer ends with a ReadyForQuery.
    pub fn ends_cycle(&self) -> bool {
        matches!(self, Act::Query(_) | Act::Sync | Act::Call { .. })
    }

    /// Without it a turn still ends as it should.
    pub fn can_be_left_out(&self) -> bool {
        !matches!(self, Act::Sync | Act::Flush | Act::CopyDone | Act::CopyFail)
    }

    /// It has an answer of its own within a cycle.
    pub fn is_answered(&self) -> bool {
        !self.ends_cycle() && !matches!(self, Act::Flush)
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Act::Query(sql) => write!(f, "Query \"{sql}\""),
            Act::Parse { name, sql } => write!(f, "Parse({name}) \"{sql}\""),
            Act::Bind {
                portal,
                statement,
                parameters,
                results,
            } => {
                let binary = match results {
                    Format::Text => "",
                    Format::Binary => " binary",
                };
                write!(f, "Bind({portal}<-{statement}{binary}) {parameters:?}")
            }
            Act::DescribeStatement(name) => write!(f, "Describe(statement {name})"),
            Act::DescribePortal(name) => write!(f, "Describe(portal {name})"),
            Act::Execute { portal, rows } => write!(f, "Execute({portal}, {rows})"),
            Act::CloseStatement(name) => write!(f, "Close(statement {name})"),
            Act::ClosePortal(name) => write!(f, "Close(portal {name})"),
            Act::Sync => write!(f, "Sync"),
            Act::Flush => write!(f, "Flush"),
            Act::CopyData(data) => write!(f, "CopyData \"{}\"", data.escape_ascii()),
            Act::CopyDone => write!(f, "CopyDone"),
            Act::CopyFail => write!(f, "CopyFail"),
            Act::Call {
                function,
                arguments,
            } => write!(f, "FunctionCall({function}) {arguments:?}"),
        }
    }
}

impl fmt::Display for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let acts: Vec<String> = self.acts.iter().map(Act::to_string).collect();
        write!(f, "{} [{:?}]", acts.join(", "), self.wait)?;
        match self.cancel {
            Cancel::Never => Ok(()),
            cancel => write!(f, " cancel {cancel:?}"),
        }
    }
}
