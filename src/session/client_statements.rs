//! What one client has prepared, under its own names, and what of that is not certain yet.
//!
//! A run of messages is surveyed before it is sent, and by then its Parses and Closes count already:
//! what stands behind them refers to them. Each is kept as a [`Change`] until the server has come
//! past it; then it is settled. An error ahead of it, for which the server skips it, undoes it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashMap;

use super::dispatch::put_synthetic;
use super::statements::{Age, Standing, Statement};
use crate::protocol::frame::{Shape, cstring};
use crate::protocol::owed::{Owed, StatementId};
use crate::server::UnnamedTag;
use crate::sql::{Classified, Classifier, Scope, SqlPrepare};

#[derive(Default)]
pub struct ClientStatements {
    named: HashMap<Box<[u8]>, Arc<Statement>, foldhash::fast::RandomState>,
    /// By SQL PREPARE, each with that PREPARE: it makes the same on another server.
    in_sql: HashMap<Box<str>, Arc<[u8]>>,
    unnamed: Option<Arc<Unnamed>>,
    unnamed_count: u64,
    /// The memory of an unnamed statement that has been replaced.
    spare: Option<Arc<Unnamed>>,
    /// What is not settled yet, oldest first.
    changes: VecDeque<Change>,
    /// The name in a Parse that an error may yet be about, though the statement has another name or
    /// none.
    parsed: Option<(StatementId, Box<[u8]>)>,
}

/// The unnamed statement, kept so that it can follow the client to another server.
#[derive(Debug)]
pub struct Unnamed {
    pub definition: Vec<u8>,
    pub classified: Classified,
    pub tag: UnnamedTag,
    /// The [`Shape`] of its result as the client was told last; 0 before.
    shape: AtomicU64,
    pub age: Age,
}

impl Unnamed {
    /// What it is in a database with these names, as they are now.
    pub fn standing(&self, classifier: &Classifier, scope: &Scope) -> Standing {
        if self.classified.edition == classifier.edition(scope) {
            return Standing::AsParsed(self.classified.decision.class);
        }
        Standing::of(&self.classified, classifier.classify_in(scope, self.text()))
    }

    /// The same, as it is bound where it does something else than when it was parsed.
    pub fn bound(&self, classified: Classified) -> Unnamed {
        Unnamed {
            definition: self.definition.clone(),
            classified,
            tag: self.tag,
            shape: AtomicU64::new(self.shape.load(Ordering::Relaxed)),
            age: self.age.clone(),
        }
    }

    /// What the client knows of its result, if it was told.
    pub fn shape(&self) -> Option<Shape> {
        Shape::from_number(self.shape.load(Ordering::Relaxed))
    }

    pub fn set_shape(&self, shape: Shape) {
        self.shape.store(shape.number(), Ordering::Relaxed);
    }

    /// Its SQL.
    pub fn text(&self) -> &[u8] {
        cstring(&self.definition).map_or(&*self.definition, |(text, _)| text)
    }
}

/// Statements that one client may have prepared at a time. PostgreSQL has no such limit, but
/// also gives each client memory of its own.
pub const MOST_STATEMENTS: usize = 10_000;

/// What became of a named Parse.
pub enum Registered {
    /// The name is the statement's now.
    New(Arc<Statement>),
    /// The name belongs to a statement already: PostgreSQL refuses it, even if it is the same.
    Taken,
}

/// A Parse or a Close that counts already and may yet be undone.
struct Change {
    /// The cycle that it was sent in; none before it is sent.
    cycle: Option<u64>,
    what: Changed,
}

enum Changed {
    Unnamed {
        made: Option<UnnamedTag>,
        before: Option<Arc<Unnamed>>,
    },
    Named {
        name: Box<[u8]>,
        made: Option<StatementId>,
        before: Option<Arc<Statement>>,
        before_in_sql: Option<Arc<[u8]>>,
        /// The server itself was sent the Parse: whatever becomes of it there is what the client
        /// is to find.
        is_with_server: bool,
    },
}

/// How a message refers to a statement.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mention {
    /// Bind, Describe.
    Use,
    /// Parse, Close.
    Change,
}

impl ClientStatements {
    pub fn get(&self, name: &[u8]) -> Option<&Arc<Statement>> {
        self.named.get(name)
    }

    /// The client's own name for a shared statement that an error is about: the one that was skipped
    /// or has been closed behind that, or one of those that the statement has.
    pub fn name_of(&mut self, id: StatementId) -> Option<Box<[u8]>> {
        if let Some((_, name)) = self.parsed.take_if(|(parsed, _)| *parsed == id) {
            return Some(name);
        }
        let mut named = self.named.iter();
        if let Some((name, _)) = named.find(|(_, statement)| statement.id == id) {
            return Some(name.clone());
        }
        self.changes.iter().find_map(|change| match &change.what {
            Changed::Named {
                name,
                before: Some(before),
                ..
            } if before.id == id => Some(name.clone()),
            _ => None,
        })
    }

    pub fn unnamed(&self) -> Option<&Arc<Unnamed>> {
        self.unnamed.as_ref()
    }

    /// No further name may be prepared before one is deallocated.
    pub fn is_full(&self) -> bool {
        self.named.len() + self.in_sql.len() >= MOST_STATEMENTS
    }

    /// Under this name something is prepared, by whatever means.
    pub fn has(&self, name: &[u8]) -> bool {
        let in_sql = std::str::from_utf8(name);
        self.named.contains_key(name) || in_sql.is_ok_and(|name| self.in_sql.contains_key(name))
    }

    /// The PREPARE that has made the statement of this name.
    pub fn in_sql(&self, name: &str) -> Option<&Arc<[u8]>> {
        self.in_sql.get(name)
    }

    pub fn has_any_in_sql(&self) -> bool {
        !self.in_sql.is_empty()
    }

    pub fn names_in_sql(&self) -> impl Iterator<Item = &str> {
        self.in_sql.keys().map(|name| &**name)
    }

    pub fn prepare_in_sql(&mut self, prepare: &SqlPrepare, text: Arc<[u8]>) {
        self.in_sql.insert(prepare.name.clone(), text);
    }

    /// DEALLOCATE.
    pub fn deallocate(&mut self, name: &[u8]) {
        self.named.remove(name);
        if let Ok(name) = std::str::from_utf8(name) {
            self.in_sql.remove(name);
        }
    }

    /// DEALLOCATE ALL, DISCARD ALL.
    pub fn deallocate_all(&mut self) {
        self.named.clear();
        self.in_sql.clear();
    }

    /// A Query drops the unnamed statement before it does anything else.
    pub fn drop_unnamed(&mut self) {
        self.unnamed = None;
        for change in &mut self.changes {
            if let Changed::Unnamed { before, .. } = &mut change.what {
                *before = None;
            }
        }
    }
}

/// Changes, and what becomes of them.
impl ClientStatements {
    /// A Parse of a name.
    pub fn register(&mut self, name: &[u8], statement: Arc<Statement>) -> Registered {
        if self.has(name) {
            return Registered::Taken;
        }
        self.named.insert(name.into(), Arc::clone(&statement));
        self.changed(Changed::Named {
            name: name.into(),
            made: Some(statement.id),
            before: None,
            before_in_sql: None,
            is_with_server: false,
        });
        Registered::New(statement)
    }

    /// A Parse of the unnamed statement; `session` tells it from other sessions'.
    pub fn set_unnamed(
        &mut self,
        session: u64,
        definition: &[u8],
        classified: Classified,
        age: Age,
    ) -> Arc<Unnamed> {
        self.unnamed_count += 1;
        let tag = UnnamedTag {
            session,
            count: self.unnamed_count,
        };
        let unnamed = match self.spare.take().map(Arc::try_unwrap) {
            Some(Ok(mut memory)) => {
                memory.definition.clear();
                memory.definition.extend_from_slice(definition);
                Arc::new(Unnamed {
                    classified,
                    tag,
                    shape: AtomicU64::new(0),
                    age,
                    ..memory
                })
            }
            Some(Err(_)) | None => Arc::new(Unnamed {
                definition: definition.to_vec(),
                classified,
                tag,
                shape: AtomicU64::new(0),
                age,
            }),
        };
        let before = self.unnamed.replace(Arc::clone(&unnamed));
        self.changed(Changed::Unnamed {
            made: Some(tag),
            before,
        });
        unnamed
    }

    /// Close of a statement.
    pub fn close(&mut self, name: &[u8]) {
        let what = if name.is_empty() {
            let before = self.unnamed.take();
            Changed::Unnamed { made: None, before }
        } else {
            let in_sql = std::str::from_utf8(name).ok();
            Changed::Named {
                name: name.into(),
                made: None,
                before: self.named.remove(name),
                before_in_sql: in_sql.and_then(|name| self.in_sql.remove(name)),
                is_with_server: false,
            }
        };
        self.changed(what);
    }

    fn changed(&mut self, what: Changed) {
        self.changes.push_back(Change { cycle: None, what });
    }

    /// How many changes are not settled.
    pub fn unsettled(&self) -> usize {
        self.changes.len()
    }

    /// The statement of this name is one that the run being surveyed parses itself.
    pub fn is_parsed_here(&self, name: &[u8]) -> bool {
        let mut own = self.changes.iter().filter(|change| change.cycle.is_none());
        own.any(|change| match &change.what {
            Changed::Named {
                name: changed,
                made: made @ Some(_),
                ..
            } => **changed == *name && self.named.get(name).map(|it| it.id) == *made,
            _ => false,
        })
    }

    /// The last so many changes go to a server, in this cycle.
    pub fn sent(&mut self, count: usize, cycle: u64) {
        for change in self.changes.iter_mut().rev().take(count) {
            change.cycle = Some(cycle);
        }
    }

    /// What the last changes, so many, have made of one statement is another's from now on.
    pub fn exchange(&mut self, count: usize, old: StatementId, new: &Arc<Statement>) {
        let first = self.changes.len().saturating_sub(count);
        let mut exchanged: Vec<&[u8]> = Vec::new();
        for change in self.changes.range_mut(first..) {
            let Changed::Named {
                name, made, before, ..
            } = &mut change.what
            else {
                continue;
            };
            // What one of them has made another may take away.
            if exchanged.contains(&&**name) {
                let taken = before.as_mut().filter(|it| it.id == old);
                taken.into_iter().for_each(|it| *it = Arc::clone(new));
            }
            if *made == Some(old) {
                *made = Some(new.id);
                exchanged.push(name);
                if let Some(named) = self.named.get_mut(name).filter(|it| it.id == old) {
                    *named = Arc::clone(new);
                }
            }
        }
    }

    /// The Parse of this name goes to the server, which does not have the statement yet.
    pub fn is_with_server(&mut self, name: &[u8]) {
        for change in self.changes.iter_mut().rev() {
            if let Changed::Named {
                name: known,
                is_with_server,
                ..
            } = &mut change.what
                && **known == *name
            {
                *is_with_server = true;
                return;
            }
        }
    }

    /// Whether it cannot be said yet, in this cycle, what a message that mentions this name will
    /// find: an earlier cycle may yet fail ahead of what it changes.
    pub fn is_in_doubt(&self, name: &[u8], mention: Mention, cycle: u64) -> bool {
        self.changes.iter().any(|change| {
            let earlier = change.cycle.is_some_and(|sent| sent != cycle);
            earlier
                && match &change.what {
                    // A further Parse does not mind what it replaces.
                    Changed::Unnamed { .. } => name.is_empty() && mention == Mention::Use,
                    Changed::Named {
                        name: changed,
                        is_with_server,
                        ..
                    } => {
                        let mirrored = *is_with_server && mention == Mention::Use;
                        **changed == *name && !mirrored
                    }
                }
        })
    }

    /// Gives the replies of our own whose turn has come: so far the changes are settled.
    pub fn give_due(&mut self, owed: &mut Owed, out: &mut Vec<u8>) {
        while let Some(reply) = owed.pop_synthetic() {
            self.settle();
            put_synthetic(out, reply);
        }
    }

    /// The server has come past the oldest change.
    fn settle(&mut self) {
        if let Some(Change {
            what: Changed::Unnamed { before, .. },
            ..
        }) = self.changes.pop_front()
        {
            self.spare = before;
        }
    }

    /// All changes were made without a server.
    pub fn settle_all(&mut self) {
        self.changes.clear();
    }

    /// The server has failed ahead of the oldest changes, so many, and skips them.
    pub fn undo_first(&mut self, count: usize) {
        let later = self.changes.split_off(count.min(self.changes.len()));
        let skipped = std::mem::replace(&mut self.changes, later);
        for change in skipped.into_iter().rev() {
            self.undo(change.what);
        }
    }

    /// The oldest change is a Parse of the unnamed statement that has failed: the one before went
    /// when the server began with it.
    pub fn replaced_in_vain(&mut self) {
        if let Some(Change {
            what: Changed::Unnamed { before, .. },
            ..
        }) = self.changes.front_mut()
        {
            *before = None;
        }
    }

    /// The last changes, so many, will not be sent.
    pub fn undo_last(&mut self, count: usize) {
        for _ in 0..count {
            if let Some(change) = self.changes.pop_back() {
                self.undo(change.what);
            }
        }
    }

    /// The server that was to settle them is lost.
    pub fn undo_all(&mut self) {
        self.undo_last(self.changes.len());
    }

    /// What has been changed again since then stays.
    fn undo(&mut self, changed: Changed) {
        match changed {
            Changed::Unnamed { made, before } => {
                let is_made = |unnamed: &Option<Arc<Unnamed>>| {
                    unnamed.as_ref().map(|unnamed| unnamed.tag) == made
                };
                let later = self
                    .changes
                    .iter_mut()
                    .find_map(|later| match &mut later.what {
                        Changed::Unnamed { before, .. } => Some(before),
                        Changed::Named { .. } => None,
                    });
                let place = later.unwrap_or(&mut self.unnamed);
                if is_made(place) {
                    *place = before;
                }
            }
            Changed::Named {
                name,
                made,
                before,
                before_in_sql,
                ..
            } => {
                if self.named.get(&name).map(|statement| statement.id) == made {
                    if let Some(before) = before {
                        self.named.insert(name.clone(), before);
                    } else {
                        self.named.remove(&name);
                    }
                    if let (Some(before), Ok(name)) = (before_in_sql, std::str::from_utf8(&name)) {
                        self.in_sql.insert(name.into(), before);
                    }
                }
                if let Some(id) = made {
                    self.parsed = Some((id, name));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::statements::Prepared;
    use super::super::statements::tests::intern;
    use super::*;

    fn parse(client: &mut ClientStatements, name: &str, text: &str) -> bool {
        let statement = intern(&Prepared::new(), text);
        matches!(
            client.register(name.as_bytes(), statement),
            Registered::New(_)
        )
    }

    fn parse_unnamed(client: &mut ClientStatements, text: &str) {
        let classified = Classifier::new(1 << 16, &[]).classify_in(&Scope::new(), text.as_bytes());
        let age = Prepared::new().age();
        client.set_unnamed(1, text.as_bytes(), classified, age);
    }

    fn unnamed(client: &ClientStatements) -> Option<&[u8]> {
        client.unnamed().map(|unnamed| &*unnamed.definition)
    }

    #[test]
    fn what_was_skipped_is_undone_backwards() {
        let mut client = ClientStatements::default();
        assert!(parse(&mut client, "s", "select 1"));
        client.settle();
        client.close(b"s");
        assert!(parse(&mut client, "s", "select 2"));
        assert!(!parse(&mut client, "s", "select 2"));
        client.sent(2, 0);
        client.undo_first(2);
        assert_eq!(client.get(b"s").unwrap().text(), b"select 1");
        assert_eq!(client.unsettled(), 0);
    }

    #[test]
    fn what_is_exchanged_stays_so_when_it_is_not_closed_in_the_end() {
        let prepared = Prepared::new();
        let shared = intern(&prepared, "select 1");
        let apart = prepared.set_apart(&shared);
        let mut client = ClientStatements::default();
        client.register(b"s", Arc::clone(&shared));
        client.settle();
        client.close(b"s");
        client.register(b"s", Arc::clone(&shared));
        client.close(b"s");
        client.exchange(3, shared.id, &apart);
        let id = |client: &ClientStatements| client.get(b"s").map(|it| it.id);
        client.undo_last(1);
        assert_eq!(id(&client), Some(apart.id));
        assert_eq!(client.name_of(apart.id).as_deref(), Some(&b"s"[..]));
        client.undo_last(2);
        assert_eq!(
            id(&client),
            Some(shared.id),
            "that of before is no part of it"
        );
    }

    #[test]
    fn what_was_settled_before_the_error_stays() {
        let mut client = ClientStatements::default();
        parse_unnamed(&mut client, "one");
        parse_unnamed(&mut client, "two");
        parse_unnamed(&mut client, "three");
        client.settle();
        client.undo_first(1);
        assert_eq!(unnamed(&client), Some(&b"three"[..]), "made later");
        client.undo_last(1);
        assert_eq!(unnamed(&client), Some(&b"one"[..]));
    }

    #[test]
    fn what_is_closed_again_later_stays_closed() {
        let mut client = ClientStatements::default();
        parse_unnamed(&mut client, "one");
        client.settle();
        client.close(b"");
        client.close(b"");
        client.sent(2, 0);
        client.undo_first(1);
        assert_eq!(unnamed(&client), None);
        client.undo_first(1);
        assert_eq!(unnamed(&client), Some(&b"one"[..]));
    }

    #[test]
    fn a_query_leaves_no_unnamed_statement_whatever_is_undone() {
        let mut client = ClientStatements::default();
        parse_unnamed(&mut client, "one");
        client.settle();
        client.close(b"");
        client.drop_unnamed();
        client.undo_all();
        assert_eq!(unnamed(&client), None);
    }

    #[test]
    fn a_later_cycle_waits_for_what_it_cannot_know() {
        let mut client = ClientStatements::default();
        parse(&mut client, "known", "select 1");
        parse(&mut client, "new", "select 2");
        parse_unnamed(&mut client, "three");
        client.is_with_server(b"new");
        let doubt = |client: &ClientStatements, cycle| {
            let mut found = Vec::new();
            for name in ["known", "new", "", "other"] {
                for mention in [Mention::Use, Mention::Change] {
                    found.push(client.is_in_doubt(name.as_bytes(), mention, cycle));
                }
            }
            found
        };
        assert!(!doubt(&client, 1).contains(&true), "not sent");
        client.sent(3, 0);
        assert!(!doubt(&client, 0).contains(&true), "the same cycle");
        let expected = [true, true, false, true, true, false, false, false];
        assert_eq!(doubt(&client, 1), expected);
        for _ in 0..3 {
            client.settle();
        }
        assert!(!doubt(&client, 1).contains(&true), "settled");
    }
}
