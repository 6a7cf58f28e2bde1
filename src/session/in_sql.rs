//! Prepared statements as SQL knows them: PREPARE, EXECUTE and DEALLOCATE name them by the client's
//! own names, which on a server may be another session's.

use std::sync::Arc;

use super::Session;
use super::survey::Plan;
use super::upstream::Upstream;
use crate::protocol::error::{SqlState, summary};
use crate::protocol::frame::{HEADER, Target, target};
use crate::protocol::message::{self, TransactionStatus};
use crate::protocol::owed::{Fate, Request, Synthetic};
use crate::server::Server;

impl Session {
    /// Brings the server's SQL-level prepared statements to the session's: what another session has
    /// left goes, and what the run mentions comes. A cycle that will go on may mention any of them
    /// later, when nothing can be sent ahead any more, and so may code that runs. What cannot be prepared any
    /// more is told to who names it, and to nobody else.
    pub(super) fn send_sql_statements(&self, upstream: &mut Upstream, plan: &Plan) {
        // In a failed transaction nothing can be prepared.
        if upstream.may_be_in_vain() {
            self.send_taken_names(upstream, plan);
            return;
        }
        let mut wanted = match &plan.mentioned {
            Some(mentioned) => [&*mentioned.run, &*mentioned.prepared].concat(),
            None => Vec::new(),
        };
        let held = upstream.server.sql_statements.keys();
        let absent = held.filter(|name| !self.statements.has(name.as_bytes()));
        wanted.extend(absent.map(|name| (name.clone(), Wanted::Absent)));
        if plan.may_mention_any() {
            let all = self.statements.names_in_sql();
            wanted.extend(all.map(|name| (name.into(), self.wanted(name))));
        }
        let in_transaction = upstream.is_in_transaction();
        let mut sql = String::new();
        let mut lacking = Vec::new();
        let mut seen = Vec::new();
        for (name, wanted) in wanted {
            // What the run mentions first is what it finds.
            if seen.contains(&name) {
                continue;
            }
            seen.push(name.clone());
            let held = &mut upstream.server.sql_statements;
            if wanted.is_met_by(held.get(&name)) {
                continue;
            }
            if held.remove(&name).is_some() {
                let quoted = name.replace('"', "\"\"");
                sql.push_str(&format!("DEALLOCATE \"{quoted}\";"));
            }
            if let Some(made_by) = wanted.made_by() {
                held.insert(name.clone(), made_by);
                lacking.push((name, wanted));
            }
        }
        if !sql.is_empty() && !in_transaction {
            sql = format!("BEGIN;{sql}COMMIT");
        }
        upstream.send_ahead(sql.as_bytes());
        for (name, wanted) in lacking {
            // What fails here must not fail a transaction. What is prepared outlives a rollback.
            if in_transaction {
                upstream.send_ahead(b"SAVEPOINT causeway");
            }
            upstream.prepare_perhaps(name, &wanted);
            if in_transaction {
                upstream.send_ahead(b"ROLLBACK TO causeway; RELEASE causeway");
            }
        }
    }

    /// A text may end a failed transaction, and be told behind that that a name is taken. What stands for nothing
    /// is prepared there too.
    fn send_taken_names(&self, upstream: &mut Upstream, plan: &Plan) {
        let mentioned = plan.mentioned.iter().filter(|_| plan.ends_transaction);
        let mut seen: Vec<&str> = Vec::new();
        for (name, wanted) in mentioned.flat_map(|it| &it.run) {
            let held = &mut upstream.server.sql_statements;
            let is_lacking = !seen.contains(&&**name) && !held.contains_key(name);
            if is_lacking && matches!(wanted, Wanted::Taken) {
                held.insert(name.clone(), ANYTHING.into());
                upstream.prepare_perhaps(name.clone(), wanted);
            }
            seen.push(name);
        }
    }

    /// In the middle of a cycle nothing goes ahead any more: what SQL names that was prepared by the
    /// protocol is parsed where it is mentioned, and what is there of another, or was closed, is closed
    /// there.
    pub(super) fn send_mentioned(&self, upstream: &mut Upstream, plan: &Plan) {
        let Some(mentioned) = &plan.mentioned else {
            return;
        };
        if upstream.is_in_failed_transaction() {
            return;
        }
        let mut seen: Vec<&str> = Vec::new();
        for (name, wanted) in &mentioned.run {
            let is_met = wanted.is_met_by(upstream.server.sql_statements.get(name));
            // Only SQL makes what SQL has made.
            let is_made_here = !matches!(wanted, Wanted::Sql(_));
            if is_made_here && !is_met && !seen.contains(&&**name) {
                upstream.prepare_within_cycle(name, wanted.made_by());
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
    fn prepare_within_cycle(&mut self, name: &str, definition: Option<Arc<[u8]>>) {
        let Server {
            wire,
            owed,
            sql_statements: held,
            ..
        } = &mut *self.server;
        let mut out = Vec::new();
        if let Some(before) = held.remove(name) {
            message::put_close_statement(&mut out, name);
            owed.push(Request::CloseInSql, Fate::Swallow);
            self.remaking.push_back(Remaking::of(name, Some(before)));
        }
        if let Some(definition) = definition {
            message::put_parse(&mut out, name.as_bytes(), &definition);
            owed.push(Request::ParseInSql, Fate::Swallow);
            held.insert(name.into(), definition);
            self.remaking.push_back(Remaking::of(name, None));
        }
        wire.output.extend(&out);
    }

    /// Has the server hold what the client has parsed just ahead of this, in the same cycle.
    pub fn prepare_here(&mut self, name: &str, definition: &Arc<[u8]>) {
        if self.server.sql_statements.get(name) != Some(definition) {
            self.prepare_within_cycle(name, Some(Arc::clone(definition)));
        }
    }

    /// Prepares what may fail: what it names may be gone, be another role's, or not be found any more.
    fn prepare_perhaps(&mut self, name: Box<str>, wanted: &Wanted) {
        let Server {
            wire,
            owed,
            unnamed,
            ..
        } = &mut *self.server;
        let mut out = Vec::new();
        match (wanted, wanted.made_by()) {
            (_, None) => return,
            (Wanted::Sql(_), Some(prepare)) => {
                message::put_query(&mut out, &prepare);
                owed.push(Request::Query, Fate::Perhaps);
                *unnamed = None;
            }
            (_, Some(definition)) => {
                message::put_parse(&mut out, name.as_bytes(), &definition);
                message::put_sync(&mut out);
                owed.push(Request::Parse(0), Fate::Perhaps);
                owed.push(Request::Sync, Fate::Perhaps);
            }
        }
        wire.output.extend(&out);
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
            Some((name, before)) => {
                self.remaking.push_back(Remaking::of(&name, Some(before)));
                self.send(frame, Request::CloseInSql);
                self.server.owed.push_synthetic(Synthetic::Nothing);
            }
            None => owed.push_synthetic(Synthetic::CloseComplete),
        }
    }

    /// The server has come past the oldest change of what SQL finds there.
    pub fn remade_in_sql(&mut self) {
        self.remaking.pop_front();
    }

    /// The oldest changes, so many, have failed or were skipped.
    pub fn not_remade_in_sql(&mut self, count: usize) {
        let later = self.remaking.split_off(count.min(self.remaking.len()));
        let skipped = std::mem::replace(&mut self.remaking, later);
        for Remaking { name, before } in skipped.into_iter().rev() {
            match before {
                Some(before) => self.server.sql_statements.insert(name, before),
                None => self.server.sql_statements.remove(&name),
            };
        }
    }

    /// What might fail has failed, and this ErrorResponse says why: the server has no statement of that name.
    pub fn not_prepared(&mut self, error: &[u8]) {
        if let Some(name) = self.perhaps.front() {
            self.server.sql_statements.remove(name);
            self.unprepared.push((name.clone(), error.to_vec()));
        }
    }

    /// Why there is no such statement as this ErrorResponse is about, if it should be there.
    pub fn why_unprepared(&self, error: &[u8]) -> Option<Vec<u8>> {
        let said = summary(error.get(HEADER..)?);
        let is_about = |name: &str| {
            let quoted = format!("\"{name}\"");
            memchr::memmem::find(said.message, quoted.as_bytes()).is_some()
        };
        let mut unprepared = self.unprepared.iter();
        let (_, why) = unprepared.find(|(name, _)| {
            said.code == SqlState::INVALID_SQL_STATEMENT_NAME && is_about(name)
        })?;
        Some(why.clone())
    }
}

/// A name that is to stand for another statement on a server, or for none.
pub struct Remaking {
    name: Box<str>,
    /// What made the statement that it stood for, if it did.
    before: Option<Arc<[u8]>>,
}

impl Remaking {
    fn of(name: &str, before: Option<Arc<[u8]>>) -> Remaking {
        Remaking {
            name: name.into(),
            before,
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

/// What always parses: an empty text without parameters.
pub(super) const ANYTHING: [u8; 3] = [0; 3];

/// What a server shall have prepared under one of the client's own names.
#[derive(Clone, Debug)]
pub enum Wanted {
    Absent,
    /// Whatever it is: it may be what does not parse any more.
    Taken,
    /// By this PREPARE.
    Sql(Arc<[u8]>),
    /// By a Parse of this definition.
    Parsed(Arc<[u8]>),
}

impl Wanted {
    /// What PREPARE is refused for, and what DEALLOCATE drops, must be there.
    pub fn by_name_alone(self) -> Wanted {
        match self {
            Wanted::Absent => Wanted::Absent,
            Wanted::Taken | Wanted::Sql(_) | Wanted::Parsed(_) => Wanted::Taken,
        }
    }

    /// Whether that is what a server has which `held` has made.
    fn is_met_by(&self, held: Option<&Arc<[u8]>>) -> bool {
        match self {
            Wanted::Absent => held.is_none(),
            Wanted::Taken => held.is_some(),
            Wanted::Sql(text) | Wanted::Parsed(text) => held == Some(text),
        }
    }

    /// What makes it.
    fn made_by(&self) -> Option<Arc<[u8]>> {
        match self {
            Wanted::Absent => None,
            Wanted::Taken => Some(ANYTHING.into()),
            Wanted::Sql(text) | Wanted::Parsed(text) => Some(Arc::clone(text)),
        }
    }
}
