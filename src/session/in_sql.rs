//! Prepared statements as SQL knows them: PREPARE, EXECUTE and DEALLOCATE name them by the client's
//! own names, which on a server may be another session's.

use std::sync::Arc;

use super::Session;
use super::survey::Plan;
use super::upstream::{Afterwards, Upstream};
use crate::protocol::frame::{HEADER, Target, frames, target};
use crate::protocol::message::{self, TransactionStatus};
use crate::protocol::owed::{Fate, Request, Synthetic};
use crate::server::Server;

impl Session {
    /// Brings the server's SQL-level prepared statements to the session's: what another session has
    /// left goes, and what the run mentions comes. A cycle that will go on may mention any of them
    /// later, when nothing can be sent ahead any more, and so may code that runs: what fails of those is
    /// nobody's business.
    pub(super) fn send_sql_statements(&self, upstream: &mut Upstream, plan: &Plan) {
        if upstream.server.status == TransactionStatus::Failed {
            return;
        }
        let mut wanted = match &plan.mentioned {
            Some(mentioned) => [&*mentioned.run, &*mentioned.prepared].concat(),
            None => Vec::new(),
        };
        let held = upstream.server.sql_statements.keys();
        let absent = held.filter(|name| !self.statements.has(name.as_bytes()));
        wanted.extend(absent.map(|name| (name.clone(), Wanted::Absent)));
        let for_sure = wanted.len();
        if plan.may_mention_any() {
            let all = self.statements.names_in_sql();
            wanted.extend(all.map(|name| (name.into(), self.wanted(name))));
        }
        let in_transaction = upstream.is_in_transaction();
        let mut sql = Vec::new();
        let mut parses = Vec::new();
        let mut perhaps = Vec::new();
        let mut seen = Vec::new();
        for (place, (name, wanted)) in wanted.into_iter().enumerate() {
            // What the run mentions first is what it finds.
            if seen.contains(&name) {
                continue;
            }
            seen.push(name.clone());
            let held = &mut upstream.server.sql_statements;
            if held.get(&name) == wanted.text() {
                continue;
            }
            if held.remove(&name).is_some() {
                let quoted = name.replace('"', "\"\"");
                sql.extend_from_slice(format!("DEALLOCATE \"{quoted}\";").as_bytes());
            }
            match wanted {
                Wanted::Absent => {}
                Wanted::Sql(text) if place >= for_sure && !in_transaction => {
                    perhaps.push((name.clone(), Arc::clone(&text)));
                    held.insert(name, text);
                }
                Wanted::Sql(text) => {
                    sql.extend_from_slice(&text);
                    sql.push(b';');
                    held.insert(name, text);
                }
                Wanted::Parsed(definition) => {
                    message::put_parse(&mut parses, name.as_bytes(), &definition);
                    held.insert(name, definition);
                }
            }
        }
        if !sql.is_empty() {
            match in_transaction {
                true => upstream.send_ahead(&sql),
                false => upstream.send_ahead(&[b"BEGIN;", &*sql, b"COMMIT"].concat()),
            }
        }
        for (name, prepare) in perhaps {
            upstream.prepare_perhaps(name, &prepare);
        }
        for parse in frames(&parses) {
            upstream.server.wire.output.extend(parse.bytes);
            let request = Request::Parse(0);
            upstream.server.owed.push(request, Fate::Settings);
        }
        if !parses.is_empty() {
            let mut out = Vec::new();
            message::put_sync(&mut out);
            upstream.server.wire.output.extend(&out);
            upstream.server.owed.push(Request::Sync, Fate::Settings);
        }
    }

    /// In the middle of a cycle nothing goes ahead any more: what SQL names that was prepared by the
    /// protocol is parsed where it is mentioned, and what is there of another, or was closed, is closed
    /// there. An error before it would skip that, so nobody else gets the server.
    pub(super) fn send_mentioned(&self, upstream: &mut Upstream, plan: &Plan) {
        let Some(mentioned) = &plan.mentioned else {
            return;
        };
        let mut seen: Vec<&str> = Vec::new();
        for (name, wanted) in &mentioned.run {
            let held = upstream.server.sql_statements.get(name);
            // Only SQL makes what SQL has made.
            let is_made_here = !matches!(wanted, Wanted::Sql(_));
            if is_made_here && held != wanted.text() && !seen.contains(&&**name) {
                upstream.prepare_within_cycle(name, wanted.text());
            }
            seen.push(name);
        }
    }

    /// What a server must have under this name for what comes next.
    pub(super) fn wanted(&self, name: &str) -> Wanted {
        let in_sql = self.statements.in_sql(name);
        let by_protocol = self.statements.get(name.as_bytes());
        match (in_sql, by_protocol) {
            (Some(prepared), _) => Wanted::Sql(Arc::clone(prepared)),
            (None, Some(statement)) => Wanted::Parsed((*statement.definition).into()),
            (None, None) => Wanted::Absent,
        }
    }
}

impl Upstream {
    /// Has the server hold this under the name, and nothing else; or nothing at all.
    fn prepare_within_cycle(&mut self, name: &str, definition: Option<&Arc<[u8]>>) {
        let Server {
            wire,
            owed,
            sql_statements: held,
            ..
        } = &mut *self.server;
        let mut out = Vec::new();
        if held.remove(name).is_some() {
            message::put_close_statement(&mut out, name);
            owed.push(Request::Close, Fate::Swallow);
        }
        if let Some(definition) = definition {
            message::put_parse(&mut out, name.as_bytes(), definition);
            owed.push(Request::Parse(0), Fate::Swallow);
            held.insert(name.into(), Arc::clone(definition));
        }
        wire.output.extend(&out);
        self.afterwards = Afterwards::Discard;
    }

    /// Has the server hold what the client has parsed just ahead of this, in the same cycle.
    pub fn prepare_here(&mut self, name: &str, definition: &Arc<[u8]>) {
        if self.server.sql_statements.get(name) != Some(definition) {
            self.prepare_within_cycle(name, Some(definition));
        }
    }

    /// Sends a PREPARE that may fail: what it names may be gone, or be another role's.
    fn prepare_perhaps(&mut self, name: Box<str>, prepare: &[u8]) {
        let mut out = Vec::new();
        message::put_query(&mut out, prepare);
        self.server.wire.output.extend(&out);
        self.server.owed.push(Request::Query, Fate::Perhaps);
        self.server.unnamed = None;
        self.perhaps.push_back(name);
    }

    /// The client closes a statement, which takes nothing from a server: others may have it, and what SQL has
    /// made goes when its name is mentioned again. In a failed transaction that could not be done any more.
    pub fn close_statement(&mut self, frame: &[u8]) {
        let Server {
            status,
            owed,
            sql_statements: held,
            ..
        } = &mut *self.server;
        let name = match frame.get(HEADER..).and_then(target) {
            Some(Target::Statement(name)) => std::str::from_utf8(name).ok(),
            _ => None,
        };
        let fails = *status == TransactionStatus::Failed;
        match name
            .filter(|_| fails)
            .and_then(|name| held.remove_entry(name))
        {
            Some(closing) => {
                self.closing.push_back(closing);
                self.send(frame, Request::CloseInSql);
                self.server.owed.push_synthetic(Synthetic::Nothing);
            }
            None => owed.push_synthetic(Synthetic::CloseComplete),
        }
    }

    pub fn closed_in_sql(&mut self) {
        self.closing.pop_front();
    }

    /// The last one that was to be closed was not.
    pub fn not_closed_in_sql(&mut self) {
        self.server.sql_statements.extend(self.closing.pop_back());
    }

    /// A PREPARE that might fail has failed: the server has no statement of that name.
    pub fn not_prepared(&mut self) {
        if let Some(name) = self.perhaps.front() {
            self.server.sql_statements.remove(name);
        }
    }
}

/// Statements that a run names as SQL does, in order, and what the client had under these names.
#[derive(Debug, Default)]
pub struct Mentioned {
    pub run: Vec<(Box<str>, Wanted)>,
    /// By what is only prepared: that counts less.
    pub prepared: Vec<(Box<str>, Wanted)>,
}

/// What a server shall have prepared under one of the client's own names.
#[derive(Clone, Debug)]
pub enum Wanted {
    Absent,
    /// By this PREPARE.
    Sql(Arc<[u8]>),
    /// By a Parse of this definition.
    Parsed(Arc<[u8]>),
}

impl Wanted {
    /// What PREPARE is refused for, and what DEALLOCATE drops, must be there, whatever it is: what was
    /// parsed need not parse any more.
    pub fn by_name_alone(self) -> Wanted {
        // An empty text without parameters.
        const ANYTHING: [u8; 3] = [0; 3];
        match self {
            Wanted::Parsed(_) => Wanted::Parsed(ANYTHING.into()),
            Wanted::Absent | Wanted::Sql(_) => self,
        }
    }

    fn text(&self) -> Option<&Arc<[u8]>> {
        match self {
            Wanted::Absent => None,
            Wanted::Sql(text) | Wanted::Parsed(text) => Some(text),
        }
    }
}
