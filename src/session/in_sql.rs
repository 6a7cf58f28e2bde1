//! Prepared statements as SQL knows them: PREPARE, EXECUTE and DEALLOCATE name them by the client's
//! own names, which on a server may be another session's.

use std::sync::Arc;

use super::Session;
use super::survey::{Plan, What};
use super::upstream::Upstream;
use crate::protocol::frame::{HEADER, Target, bind_parts, cstring, frames, frontend, target};
use crate::protocol::message::{self, TransactionStatus};
use crate::protocol::owed::{Fate, Request};
use crate::sql::Effect;

impl Session {
    /// Brings the server's SQL-level prepared statements to the session's: what another session has
    /// left goes, and what the run mentions comes. A cycle that will go on may mention any of them
    /// later, when nothing can be sent ahead any more.
    pub(super) fn send_sql_statements(&self, upstream: &mut Upstream, plan: &Plan) {
        if upstream.server.status == TransactionStatus::Failed {
            return;
        }
        let mut names = self.mentioned_in_sql(plan);
        let held = upstream.server.sql_statements.keys();
        names.extend(
            held.filter(|name| !self.statements.has(name.as_bytes()))
                .cloned(),
        );
        if !plan.is_whole_cycle() {
            names.extend(self.statements.names_in_sql().map(Box::from));
        }
        let mut sql = Vec::new();
        let mut parses = Vec::new();
        for name in names {
            let in_sql = self.statements.in_sql(&name);
            let by_protocol = self.statements.get(name.as_bytes());
            let wanted: Option<Arc<[u8]>> = match (in_sql, by_protocol) {
                (Some(statement), _) => Some(Arc::clone(&statement.text)),
                (None, Some(statement)) => Some((*statement.definition).into()),
                (None, None) => None,
            };
            let held = &mut upstream.server.sql_statements;
            if held.get(&name) == wanted.as_ref() {
                continue;
            }
            if held.remove(&name).is_some() {
                let quoted = name.replace('"', "\"\"");
                sql.extend_from_slice(format!("DEALLOCATE \"{quoted}\";").as_bytes());
            }
            let Some(wanted) = wanted else { continue };
            if in_sql.is_some() {
                sql.extend_from_slice(&wanted);
                sql.push(b';');
            } else {
                message::put_parse(&mut parses, name.as_bytes(), &wanted);
            }
            held.insert(name, wanted);
        }
        if !sql.is_empty() {
            match upstream.is_in_transaction() {
                true => upstream.send_ahead(&sql),
                false => upstream.send_ahead(&[b"BEGIN;", &*sql, b"COMMIT"].concat()),
            }
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

    /// Names of prepared statements that SQL of the run mentions, or that its messages take from SQL.
    fn mentioned_in_sql(&self, plan: &Plan) -> Vec<Box<str>> {
        let mut names = Vec::new();
        let mut at = 0;
        for step in &plan.steps {
            let rest = self.client.input.bytes().get(at..).unwrap_or_default();
            let frame = rest.get(..step.size).unwrap_or(rest);
            at += step.size;
            let decision = match &step.what {
                What::Query(decision) => decision,
                What::ParseUnnamed(unnamed)
                | What::BindUnnamed(unnamed)
                | What::DescribeUnnamed(unnamed) => &unnamed.classified.decision,
                What::ParseNew(statement)
                | What::BindNamed(statement)
                | What::DescribeNamed(statement) => &statement.classified.decision,
                What::BindUnknown | What::DescribeUnknown | What::ParseTakenInSql => {
                    names.extend(statement_of(frame).map(Box::from));
                    continue;
                }
                _ => continue,
            };
            names.extend(decision.effects.iter().filter_map(|effect| match effect {
                Effect::Execute(name) => Some(name.clone()),
                Effect::Prepare(prepare) => Some(prepare.name.clone()),
                // What the protocol prepared has another name on the server.
                Effect::Deallocate(Some(name))
                    if self.statements.get(name.as_bytes()).is_none() =>
                {
                    Some(name.clone())
                }
                _ => None,
            }));
        }
        names
    }
}

/// The statement that a Parse, a Bind or a Describe names.
fn statement_of(frame: &[u8]) -> Option<&str> {
    let body = frame.get(HEADER..)?;
    let name = match frame.first() {
        Some(&frontend::BIND) => bind_parts(body)?.1,
        Some(&frontend::PARSE) => cstring(body)?.0,
        _ => match target(body)? {
            Target::Statement(name) => name,
            Target::Portal(_) => return None,
        },
    };
    std::str::from_utf8(name).ok()
}
