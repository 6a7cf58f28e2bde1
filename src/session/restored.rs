//! What a client's start-up packet has set, behind RESET. A server knows nothing of it and goes back
//! to values of its own; the client's are set again behind the statement, in the same text or
//! cycle, and of that the client sees nothing. DISCARD ALL, which stands alone in its text, is left
//! to the next request.

use std::collections::VecDeque;

use super::Session;
use super::replies::Verdict;
use super::tracked::reset_with;
use super::upstream::Upstream;
use crate::protocol::error::{placed, position};
use crate::protocol::frame::{HEADER, backend, parameter_status};
use crate::protocol::message;
use crate::protocol::owed::{Fate, Request};
use crate::server::Settings;
use crate::server::reported::is_of_the_node;
use crate::server::settings::Scope;
use crate::sql::{Decision, Effect};

use super::dispatch::OWN_ID;

/// Statements of ours in a text of the client's.
#[derive(Debug, Default)]
pub struct Added {
    /// How many there are behind which place among all statements of the text, counted from 0.
    behind: VecDeque<(u32, u32)>,
    /// So many statements of the text have been completed.
    completed: u32,
    /// The answer to the client's statement that goes ahead of ours: it comes when those have done
    /// their part, and not at all if they, or the commit behind the last, should fail.
    held: Vec<u8>,
    insertions: Vec<Insertion>,
}

/// Lengths in characters.
#[derive(Debug)]
struct Insertion {
    /// How much of the client's text stands ahead of it.
    behind: usize,
    length: usize,
}

/// What becomes of a reply to a text with statements of ours.
pub enum Share {
    /// It is the client's.
    Client,
    Nobody,
    /// The client gets this instead.
    Instead(Vec<u8>),
}

impl Added {
    fn push(&mut self, place: u32, count: u32) {
        let earlier: u32 = self.behind.iter().map(|(_, count)| count).sum();
        self.behind.push_back((place + earlier, count));
    }

    /// What comes next belongs to a statement of ours.
    fn is_next(&self) -> bool {
        let next = self.behind.front();
        next.is_some_and(|(place, _)| self.completed > *place)
    }

    /// A statement has been completed with this CommandComplete.
    fn complete(&mut self, frame: &[u8]) -> Share {
        let place = self.completed;
        self.completed += 1;
        match self.behind.front() {
            Some((first, _)) if place == *first => {
                self.held = frame.to_vec();
                Share::Nobody
            }
            Some((first, count)) if place == first + count => {
                self.behind.pop_front();
                Share::Instead(std::mem::take(&mut self.held))
            }
            Some((first, _)) if place > *first => Share::Nobody,
            _ => Share::Client,
        }
    }

    /// Where in the client's own text that is, counted from 1 as in an ErrorResponse.
    fn in_client_s_text(&self, position: usize) -> usize {
        let mut position = position;
        for insertion in &self.insertions {
            if position > insertion.behind {
                position = position
                    .saturating_sub(insertion.length)
                    .max(insertion.behind);
            }
        }
        position
    }
}

impl Session {
    /// The Query with what sets start-up values again behind its statements that reset them; none
    /// if it needs none of that.
    pub(super) fn with_startup_values(
        &self,
        upstream: &mut Upstream,
        decision: &Decision,
        frame: &[u8],
    ) -> Option<Vec<u8>> {
        if decision.resets.is_empty() || *self.settings.startup() == Settings::default() {
            return None;
        }
        let text = frame.get(HEADER..)?.strip_suffix(b"\0")?;
        let is_utf8 = self.reported.get("client_encoding") == Some("UTF8");
        let mut added = Added::default();
        let (mut whole, mut copied) = (Vec::new(), 0);
        for reset in &decision.resets {
            let alone = decision.statements == 1;
            let in_vain = match reset.effect {
                // It is warned about, and changes nothing.
                Effect::ResetLocal(_) => alone && !upstream.has_begun_transaction(),
                Effect::DiscardAll => true,
                _ => false,
            };
            if in_vain {
                continue;
            }
            let statements = restoring(self.settings.startup(), &reset.effect);
            if !statements.is_empty() {
                added.push(reset.place, statements.len() as u32);
            }
            for statement in statements {
                whole.extend_from_slice(text.get(copied..reset.end)?);
                copied = reset.end;
                whole.push(b';');
                whole.extend_from_slice(statement.as_bytes());
                added.insertions.push(Insertion {
                    behind: characters(text.get(..copied)?, is_utf8),
                    length: 1 + statement.chars().count(),
                });
            }
        }
        if added.behind.is_empty() {
            return None;
        }
        whole.extend_from_slice(text.get(copied..)?);
        upstream.added.push_back((upstream.sending, added));
        let mut out = Vec::new();
        message::put_query(&mut out, &whole);
        Some(out)
    }

    /// Sets start-up values again behind an Execute that resets them.
    pub(super) fn restore(&self, upstream: &mut Upstream, decision: &Decision) {
        for reset in &decision.resets {
            for statement in restoring(self.settings.startup(), &reset.effect) {
                // What fails behind it undoes it, but not the DISCARD ALL: whoever has the server next
                // begins with nothing.
                if reset.effect == Effect::DiscardAll {
                    upstream.server.tampered = Some(self.serial);
                }
                upstream.run_within_cycle(&statement);
            }
        }
    }

    /// A client is told of a change only if it has been told otherwise before. DISCARD ALL makes a
    /// server go back to a value of its own; the client is told the one that its session goes back
    /// to, which is set ahead of the next request.
    pub(super) fn parameter_changed(&mut self, upstream: &mut Upstream, body: &[u8]) -> Verdict {
        let Some((name, value)) = parameter_status(body) else {
            return Verdict::Drop;
        };
        upstream.server.reported.update(name, value);
        if is_of_the_node(name) {
            return Verdict::Drop;
        }
        let text = String::from_utf8_lossy(name);
        let startup = self.settings.startup().get(&text.to_ascii_lowercase());
        let said_of_cycle = upstream.server.owed.next_fate() == Fate::Forward;
        if startup.is_some() && said_of_cycle && upstream.discards(&text) {
            let Some(value) = self.welcomed.get(&text) else {
                return Verdict::Drop;
            };
            let mut report = Vec::new();
            message::put_parameter_status(&mut report, &text, value);
            return match self.reported.update(name, value.as_bytes()) {
                true => Verdict::Replace(report),
                false => Verdict::Drop,
            };
        }
        match self.reported.update(name, value) {
            true => Verdict::Forward,
            false => Verdict::Drop,
        }
    }
}

/// The statements that make a reset lead to what the start-up packet said.
fn restoring(startup: &Settings, effect: &Effect) -> Vec<String> {
    let session = |name: &str| startup.statement(name, Scope::Session);
    match effect {
        Effect::Reset(name) | Effect::Set { name, value: None } => {
            reset_with(name).filter_map(session).collect()
        }
        Effect::ResetLocal(name) => {
            let local = |name: &str| startup.statement(name, Scope::Transaction);
            reset_with(name).filter_map(local).collect()
        }
        Effect::ResetAll => startup.plain_names().filter_map(session).collect(),
        Effect::DiscardAll => whole_transaction(startup.names_in_order().filter_map(session)),
        _ => Vec::new(),
    }
}

/// Behind these the next transaction begins: some settings, such as `default_transaction_read_only`, count
/// from there on.
fn whole_transaction(statements: impl Iterator<Item = String>) -> Vec<String> {
    let mut whole: Vec<String> = statements.collect();
    if !whole.is_empty() {
        whole.insert(0, "BEGIN".to_owned());
        whole.push("COMMIT".to_owned());
    }
    whole
}

/// How PostgreSQL counts a text. What takes several bytes is one character only in UTF-8 here: in
/// EUC, SJIS and the like places behind such are told too far back.
fn characters(text: &[u8], is_utf8: bool) -> usize {
    let begins = |byte: &&u8| !is_utf8 || **byte & 0xC0 != 0x80;
    text.iter().filter(begins).count()
}

impl Upstream {
    /// Runs a statement of ours ahead of what follows in the cycle, which fails if it does.
    pub(super) fn run_within_cycle(&mut self, sql: &str) {
        let mut out = Vec::new();
        message::put_close_statement(&mut out, RESTORING);
        let definition = [sql.as_bytes(), b"\0\0\0"].concat();
        message::put_parse(&mut out, RESTORING.as_bytes(), &definition);
        message::put_bind(&mut out, RESTORING, RESTORING);
        message::put_execute(&mut out, RESTORING);
        message::put_close_portal(&mut out, RESTORING);
        self.server.wire.output.extend(&out);
        for request in [
            Request::Close,
            Request::Parse(OWN_ID),
            Request::Bind,
            Request::Execute,
            Request::Close,
        ] {
            self.server.owed.push(request, Fate::Swallow);
        }
    }

    /// Makes the server fail a cycle by `sql`, if it would prepare `text`.
    pub fn raise(&mut self, text: Option<&[u8]>, sql: &str) {
        let mut out = Vec::new();
        if let Some(text) = text {
            message::put_close_statement(&mut out, RESTORING);
            let definition = [text, b"\0\0\0"].concat();
            message::put_parse(&mut out, RESTORING.as_bytes(), &definition);
            self.server.owed.push(Request::Close, Fate::Swallow);
            self.server.owed.push(Request::Parse(OWN_ID), Fate::Swallow);
        }
        self.server.wire.output.extend(&out);
        self.run_within_cycle(sql);
        let mut sync = Vec::new();
        message::put_sync(&mut sync);
        self.send(&sync, Request::Sync);
    }

    /// The statements of ours in the text that is being answered.
    fn added(&mut self) -> Option<&mut Added> {
        let (cycle, added) = self.added.front_mut()?;
        (*cycle == self.receiving).then_some(added)
    }

    /// What is said now is about a statement of ours in the client's text.
    pub fn is_about_added(&mut self) -> bool {
        self.added().is_some_and(|added| added.is_next())
    }

    /// Whose a reply to the client's Query is.
    pub fn share(&mut self, tag: u8, frame: &[u8]) -> Share {
        let Some(added) = self.added() else {
            return Share::Client;
        };
        match tag {
            backend::COMMAND_COMPLETE => added.complete(frame),
            backend::ROW_DESCRIPTION | backend::DATA_ROW if added.is_next() => Share::Nobody,
            _ => Share::Client,
        }
    }

    /// An ErrorResponse or a NoticeResponse with the place in the client's text that it is about,
    /// if it told another.
    pub fn in_the_client_s_places(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        let added = self.added()?;
        let told = position(frame.get(HEADER..)?)?;
        Some(placed(frame, added.in_client_s_text(told)))
    }
}

/// A prepared statement and a portal that no client has.
const RESTORING: &str = "causeway_startup";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_comes_when_ours_are_done() {
        // RESET ALL[;SET a TO 1;SET b TO 2];SELECT 1;RESET a[;SET a TO 1]
        let mut added = Added::default();
        added.push(0, 2);
        added.push(2, 1);
        let tags = [b"RESET", b"SET a", b"SET b", b"SELEC", b"RESE_", b"SET a"];
        let told = tags.map(|tag| match added.complete(tag) {
            Share::Client => "client".to_owned(),
            Share::Nobody => "nobody".to_owned(),
            Share::Instead(other) => String::from_utf8(other).unwrap(),
        });
        let expected = ["nobody", "nobody", "RESET", "client", "nobody", "RESE_"];
        assert_eq!(told, expected);
    }

    #[test]
    fn places_are_told_in_the_client_s_text() {
        // SELECT 1;RESET a[;SET a TO 1];RESET b[;SET b TO 22];SELECT x
        let added = Added {
            insertions: vec![
                Insertion {
                    behind: 16,
                    length: 11,
                },
                Insertion {
                    behind: 24,
                    length: 12,
                },
            ],
            ..Added::default()
        };
        let table = [(1, 1), (16, 16), (20, 16), (28, 17), (35, 24), (56, 33)];
        for (told, expected) in table {
            assert_eq!(added.in_client_s_text(told), expected, "{told}");
        }
    }
}
