//! Which portals a run leaves open behind a Flush: they live on the server that has them, and nobody
//! knows yet what the rest of their cycle needs of it. The unnamed one does not count when it has given all its
//! rows; should its cycle go on elsewhere and name it once more, it is run there again, unseen.

use std::sync::Arc;

use super::Session;
use super::client_statements::Unnamed;
use super::dispatch::portal_of;
use super::statements::Statement;
use super::survey::{Plan, Step, What};
use super::upstream::Upstream;
use crate::protocol::frame::{HEADER, Target, bind_parts, execute_parts, frames, frontend, target};
use crate::protocol::message;
use crate::protocol::owed::{Fate, Request};
use crate::routing::Role;

/// What has been bound to the unnamed portal.
pub struct Bound {
    statement: BoundStatement,
    /// The client's Bind.
    frame: Vec<u8>,
}

enum BoundStatement {
    Unnamed(Arc<Unnamed>),
    Named(Arc<Statement>),
}

/// A longer Bind is not kept.
const LONGEST_KEPT: usize = 16 * 1024;

impl Session {
    /// A message is about to be sent that may bind the unnamed portal, or name it where another server has run it.
    pub(super) fn follow_unnamed_portal(
        &mut self,
        upstream: &mut Upstream,
        plan: &Plan,
        step: &Step,
        frame: &[u8],
    ) {
        let may_be_named = self.spent.is_some() || upstream.bound.is_some();
        if plan.is_whole_cycle() && !may_be_named {
            return;
        }
        let is_kept = upstream.role == Role::Replica
            && frame.len() == step.size
            && frame.len() <= LONGEST_KEPT;
        let keep = |statement| {
            Box::new(Bound {
                statement,
                frame: frame.to_vec(),
            })
        };
        match &step.what {
            What::BindUnnamed(unnamed) if portal_of(frame).is_empty() => {
                self.spent = None;
                upstream.bound =
                    is_kept.then(|| keep(BoundStatement::Unnamed(Arc::clone(unnamed))));
            }
            What::BindNamed(statement) if portal_of(frame).is_empty() => {
                self.spent = None;
                upstream.bound =
                    is_kept.then(|| keep(BoundStatement::Named(Arc::clone(statement))));
            }
            What::Execute if portal_of(frame).is_empty() => upstream.run_unseen(self.spent.take()),
            What::DescribePortal if names_unnamed(frame) => upstream.run_unseen(self.spent.take()),
            What::ClosePortal if names_unnamed(frame) => {
                (self.spent, upstream.bound) = (None, None)
            }
            What::Query(_) | What::FunctionCall | What::Sync => {
                (self.spent, upstream.bound) = (None, None)
            }
            _ => {}
        }
    }
}

impl Upstream {
    /// Runs a portal to its end, as another server has done already.
    fn run_unseen(&mut self, spent: Option<Box<Bound>>) {
        let Some(spent) = spent else {
            return;
        };
        let name = match &spent.statement {
            BoundStatement::Unnamed(unnamed) => {
                self.ensure_unnamed(unnamed);
                ""
            }
            BoundStatement::Named(statement) => {
                self.ensure(statement);
                &statement.name
            }
        };
        self.send_bind(name, &spent.frame, spent.frame.len(), Fate::Swallow);
        let mut out = Vec::new();
        message::put_execute(&mut out, "");
        self.server.wire.output.extend(&out);
        self.server.owed.push(Request::Execute, Fate::Swallow);
    }
}

/// Whether a Describe or a Close is of the unnamed portal.
fn names_unnamed(frame: &[u8]) -> bool {
    frame.get(HEADER..).and_then(target) == Some(Target::Portal(b""))
}

/// Whether a portal that the run opens may be used behind it. The unnamed one is not when it has given all
/// its rows: drivers open it anew for what they do next.
pub(super) fn leaves_portal(run: &[u8]) -> bool {
    let mut open: Vec<&[u8]> = Vec::new();
    for frame in frames(run) {
        let body = frame.body();
        match frame.tag {
            frontend::BIND => open.extend(bind_parts(body).map(|(portal, ..)| portal)),
            frontend::EXECUTE => {
                if let Some((b"", 0)) = execute_parts(body) {
                    open.retain(|portal| !portal.is_empty());
                }
            }
            frontend::CLOSE => {
                if let Some(Target::Portal(closed)) = target(body) {
                    open.retain(|portal| *portal != closed);
                }
            }
            _ => {}
        }
    }
    !open.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(tag: u8, body: &[&[u8]]) -> Vec<u8> {
        let body = body.concat();
        let length = (body.len() as u32 + 4).to_be_bytes();
        [&[tag][..], &length, &body].concat()
    }

    fn bind(portal: &str) -> Vec<u8> {
        let names = [portal.as_bytes(), b"\0s\0\0\0\0\0\0\0"];
        message(frontend::BIND, &names)
    }

    fn execute(portal: &str, rows: u32) -> Vec<u8> {
        let rows = rows.to_be_bytes();
        message(frontend::EXECUTE, &[portal.as_bytes(), b"\0", &rows])
    }

    fn close_portal(portal: &str) -> Vec<u8> {
        message(frontend::CLOSE, &[b"P", portal.as_bytes(), b"\0"])
    }

    #[test]
    fn a_portal_is_left_open_until_it_is_closed_or_the_unnamed_one_has_run() {
        let table: [(&[Vec<u8>], bool); 13] = [
            (&[], false),
            (&[bind("")], true),
            (&[bind("p")], true),
            (&[bind(""), execute("", 0)], false),
            (&[bind(""), execute("", 1)], true),
            (&[bind(""), execute("", 1), execute("", 0)], false),
            (&[bind(""), execute("", 0), bind("")], true),
            (&[bind("p"), execute("p", 0)], true),
            (&[bind("p"), execute("", 0)], true),
            (&[bind("p"), execute("p", 1), close_portal("p")], false),
            (&[bind("p"), bind("q"), close_portal("p")], true),
            (&[bind(""), close_portal("")], false),
            // Of an earlier run: what has it has been chosen.
            (&[execute("p", 1), execute("", 1)], false),
        ];
        for (number, (run, expected)) in table.iter().enumerate() {
            assert_eq!(leaves_portal(&run.concat()), *expected, "row {number}");
        }
    }
}
