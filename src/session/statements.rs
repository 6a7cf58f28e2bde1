//! Prepared statements. What clients prepare under their own names is shared under ours: same text
//! and types, same statement on every server.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use hashbrown::HashMap;

use crate::protocol::frame::cstring;
use crate::protocol::owed::StatementId;
use crate::server::{UnnamedTag, statement_name};
use crate::sql::{Class, Classified, Classifier, Scope, SqlPrepare};

/// A prepared statement as all sessions share it.
#[derive(Debug)]
pub struct Statement {
    /// Never 0, which stands for the unnamed statement.
    pub id: StatementId,
    /// Its name on servers.
    pub name: Box<str>,
    /// Text, terminator, parameter types: a Parse body behind the name.
    pub definition: Box<[u8]>,
    /// As of its first Parse. Its class is [`Statement::class`].
    pub classified: Classified,
    /// Its class, as the number of a [`Class`], and in the other bits the edition of the names that
    /// it was found with.
    judged: AtomicU64,
    learned_write: AtomicBool,
}

/// The bits of `judged` that hold the class.
const CLASS: u64 = 0b11;

impl Statement {
    /// What it is in a database with these names, as they are now.
    pub fn class(&self, classifier: &Classifier, scope: &Scope) -> Class {
        let judged = self.judged.load(Ordering::Relaxed);
        let [.., strongest] = Class::ALL;
        if judged & !CLASS == scope.edition() {
            let found = Class::ALL.get((judged & CLASS) as usize);
            return found.copied().unwrap_or(strongest);
        }
        let classified = classifier.classify_in(scope, self.text());
        self.judged.store(judgement(&classified), Ordering::Relaxed);
        classified.decision.class
    }

    /// A replica has refused it once: it goes to the primary from now on.
    pub fn is_learned_write(&self) -> bool {
        self.learned_write.load(Ordering::Relaxed)
    }

    pub fn learn_write(&self) {
        self.learned_write.store(true, Ordering::Relaxed);
    }

    /// Its SQL.
    pub fn text(&self) -> &[u8] {
        cstring(&self.definition).map_or(&self.definition, |(text, _)| text)
    }
}

fn judgement(classified: &Classified) -> u64 {
    classified.edition & !CLASS | classified.decision.class as u64
}

/// Every prepared statement that some session has.
pub struct Prepared {
    next: AtomicU32,
    hasher: foldhash::fast::RandomState,
    by_hash: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    statements: HashMap<u64, Vec<Weak<Statement>>>,
    /// The table is swept when it has grown to this.
    sweep_at: usize,
}

impl Prepared {
    pub fn new() -> Prepared {
        Prepared {
            next: AtomicU32::new(1),
            hasher: foldhash::fast::RandomState::default(),
            by_hash: Mutex::default(),
        }
    }

    /// The statement with this definition; `text` is its SQL.
    pub fn intern(
        &self,
        classifier: &Classifier,
        scope: &Scope,
        text: &[u8],
        definition: &[u8],
    ) -> Arc<Statement> {
        let hash = self.hasher.hash_one(definition);
        let mut known = self.by_hash.lock().unwrap_or_else(PoisonError::into_inner);
        known.sweep();
        let alike = known.statements.entry(hash).or_default();
        let mut living = alike.iter().filter_map(Weak::upgrade);
        if let Some(statement) = living.find(|known| *known.definition == *definition) {
            return statement;
        }
        let id = self.next_id();
        let classified = classifier.classify_in(scope, text);
        let statement = Arc::new(Statement {
            id,
            name: statement_name(id).into(),
            definition: definition.into(),
            judged: AtomicU64::new(judgement(&classified)),
            classified,
            learned_write: AtomicBool::new(false),
        });
        alike.push(Arc::downgrade(&statement));
        statement
    }

    /// A table, a view or a function may have changed: what is prepared from now on shares nothing
    /// with what was prepared before, whose plans, and whose results' columns, may be out of date.
    pub fn begin_anew(&self) {
        let mut known = self.by_hash.lock().unwrap_or_else(PoisonError::into_inner);
        known.statements.clear();
    }

    fn next_id(&self) -> StatementId {
        match self.next.fetch_add(1, Ordering::Relaxed) {
            0 => self.next.fetch_add(1, Ordering::Relaxed),
            id => id,
        }
    }
}

impl Known {
    /// Drops statements that no session has any more, each time the table has doubled.
    fn sweep(&mut self) {
        const AT_LEAST: usize = 256;
        if self.statements.len() < self.sweep_at.max(AT_LEAST) {
            return;
        }
        self.statements.retain(|_, alike| {
            alike.retain(|statement| statement.strong_count() > 0);
            !alike.is_empty()
        });
        self.sweep_at = self.statements.len() * 2;
    }
}

/// What one client has prepared.
#[derive(Default)]
pub struct ClientStatements {
    named: HashMap<Box<[u8]>, Arc<Statement>, foldhash::fast::RandomState>,
    /// By SQL PREPARE.
    in_sql: HashMap<Box<str>, PreparedInSql>,
    unnamed: Option<Arc<Unnamed>>,
    unnamed_count: u64,
    /// Named Parses that were sent and not yet answered, oldest first.
    unconfirmed: VecDeque<(StatementId, Box<[u8]>)>,
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
}

impl Unnamed {
    /// What it is in a database with these names, as they are now.
    pub fn class(&self, classifier: &Classifier, scope: &Scope) -> Class {
        if self.classified.edition == scope.edition() {
            return self.classified.decision.class;
        }
        let text = cstring(&self.definition).map_or(&*self.definition, |(text, _)| text);
        classifier.classify_in(scope, text).decision.class
    }
}

/// What SQL PREPARE has made.
pub struct PreparedInSql {
    /// The PREPARE itself: it makes the same on another server.
    pub text: Arc<[u8]>,
    /// A replica has refused it once: it goes to the primary from now on.
    pub is_learned_write: bool,
}

/// Statements that one client may have prepared at a time. PostgreSQL has no such limit, but
/// also gives each client memory of its own.
pub const MOST_STATEMENTS: usize = 10_000;

/// What became of a named Parse.
pub enum Registered {
    /// The name is the statement's now.
    New(Arc<Statement>),
    /// The name belongs to a statement already: PostgreSQL refuses it, even if it is the same.
    Taken(Arc<Statement>),
}

impl ClientStatements {
    pub fn get(&self, name: &[u8]) -> Option<&Arc<Statement>> {
        self.named.get(name)
    }

    /// The client's own name for a shared statement that an error is about: the one that was parsed
    /// in vain, or one of those that the statement has.
    pub fn name_of(&mut self, id: StatementId) -> Option<Box<[u8]>> {
        if let Some((_, name)) = self.parsed.take_if(|(parsed, _)| *parsed == id) {
            return Some(name);
        }
        let mut named = self.named.iter();
        let (name, _) = named.find(|(_, statement)| statement.id == id)?;
        Some(name.clone())
    }

    /// A Parse of a name that this statement has is on its way to be refused.
    pub fn will_be_refused(&mut self, id: StatementId, name: &[u8]) {
        self.parsed = Some((id, name.into()));
    }

    pub fn unnamed(&self) -> Option<&Arc<Unnamed>> {
        self.unnamed.as_ref()
    }

    pub fn register(&mut self, name: &[u8], statement: Arc<Statement>) -> Registered {
        match self.named.get(name) {
            Some(known) => Registered::Taken(Arc::clone(known)),
            None => {
                self.named.insert(name.into(), Arc::clone(&statement));
                Registered::New(statement)
            }
        }
    }

    /// No further name may be prepared before one is deallocated.
    pub fn is_full(&self) -> bool {
        self.named.len() + self.in_sql.len() >= MOST_STATEMENTS
    }

    /// Under this name something is prepared, by whatever means.
    pub fn has(&self, name: &[u8]) -> bool {
        self.named.contains_key(name) || self.has_in_sql(name)
    }

    pub fn has_in_sql(&self, name: &[u8]) -> bool {
        std::str::from_utf8(name).is_ok_and(|name| self.in_sql.contains_key(name))
    }

    pub fn in_sql(&self, name: &str) -> Option<&PreparedInSql> {
        self.in_sql.get(name)
    }

    pub fn has_any_in_sql(&self) -> bool {
        !self.in_sql.is_empty()
    }

    pub fn names_in_sql(&self) -> impl Iterator<Item = &str> {
        self.in_sql.keys().map(|name| &**name)
    }

    pub fn prepare_in_sql(&mut self, prepare: &SqlPrepare, text: Arc<[u8]>) {
        let statement = PreparedInSql {
            text,
            is_learned_write: false,
        };
        self.in_sql.insert(prepare.name.clone(), statement);
    }

    /// A replica has refused it: it goes to the primary from now on.
    pub fn learn_write_in_sql(&mut self, name: &str) {
        if let Some(statement) = self.in_sql.get_mut(name) {
            statement.is_learned_write = true;
        }
    }

    /// Takes the unnamed statement's new definition; `session` tells it from other sessions'.
    pub fn set_unnamed(
        &mut self,
        session: u64,
        definition: &[u8],
        classified: Classified,
    ) -> Arc<Unnamed> {
        self.unnamed_count += 1;
        let tag = UnnamedTag {
            session,
            count: self.unnamed_count,
        };
        let kept = self.unnamed.take();
        let mut unnamed = kept.unwrap_or_else(|| {
            Arc::new(Unnamed {
                definition: Vec::new(),
                classified: classified.clone(),
                tag,
            })
        });
        match Arc::get_mut(&mut unnamed) {
            Some(unnamed) => {
                unnamed.definition.clear();
                unnamed.definition.extend_from_slice(definition);
                unnamed.classified = classified;
                unnamed.tag = tag;
            }
            // The last one is still to be sent.
            None => {
                let definition = definition.to_vec();
                unnamed = Arc::new(Unnamed {
                    definition,
                    classified,
                    tag,
                });
            }
        }
        self.unnamed = Some(Arc::clone(&unnamed));
        unnamed
    }

    /// Close of a statement, or DEALLOCATE.
    pub fn close(&mut self, name: &[u8]) {
        if name.is_empty() {
            self.unnamed = None;
        } else {
            self.named.remove(name);
            if let Ok(name) = std::str::from_utf8(name) {
                self.in_sql.remove(name);
            }
        }
    }

    /// DEALLOCATE ALL, DISCARD ALL.
    pub fn close_all(&mut self) {
        self.named.clear();
        self.in_sql.clear();
    }

    /// A named Parse is on its way to a server.
    pub fn sent(&mut self, id: StatementId, name: &[u8]) {
        self.unconfirmed.push_back((id, name.into()));
    }

    /// ParseComplete has come for `id`.
    pub fn confirmed(&mut self, id: StatementId) {
        if self
            .unconfirmed
            .front()
            .is_some_and(|(sent, _)| *sent == id)
        {
            self.unconfirmed.pop_front();
        }
    }

    /// The server that was to confirm them is lost: their names are free again.
    pub fn void_unconfirmed(&mut self) {
        while let Some((id, _)) = self.unconfirmed.front() {
            self.void(*id);
        }
    }

    /// The Parse of `id` failed or was skipped: the name is free again.
    pub fn void(&mut self, id: StatementId) {
        if let Some((sent, name)) = self.unconfirmed.front()
            && *sent == id
        {
            if self.named.get(name).is_some_and(|known| known.id == id) {
                self.named.remove(name);
            }
            self.parsed = self.unconfirmed.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intern(prepared: &Prepared, text: &str) -> Arc<Statement> {
        let classifier = Classifier::new(1 << 16, &[]);
        let definition = [text.as_bytes(), b"\0\0\0"].concat();
        prepared.intern(&classifier, &Scope::new(), text.as_bytes(), &definition)
    }

    #[test]
    fn the_same_definition_is_the_same_statement() {
        let prepared = Prepared::new();
        let one = intern(&prepared, "select 1");
        assert_eq!(one.id, intern(&prepared, "select 1").id);
        assert_ne!(one.id, intern(&prepared, "select 2").id);
    }

    #[test]
    fn behind_a_change_of_the_catalogue_nothing_is_shared_with_before() {
        let prepared = Prepared::new();
        let before = intern(&prepared, "select * from t");
        prepared.begin_anew();
        let after = intern(&prepared, "select * from t");
        assert_ne!(before.id, after.id);
        assert_eq!(after.id, intern(&prepared, "select * from t").id);
    }

    #[test]
    fn statements_that_nobody_has_are_swept() {
        let prepared = Prepared::new();
        let kept = intern(&prepared, "select 'kept'");
        for number in 0..2000 {
            intern(&prepared, &format!("select {number}"));
        }
        assert!(prepared.by_hash.lock().unwrap().statements.len() < 600);
        assert_eq!(kept.id, intern(&prepared, "select 'kept'").id);
    }

    #[test]
    fn a_name_is_free_again_when_its_parse_failed() {
        let prepared = Prepared::new();
        let mut client = ClientStatements::default();
        let one = intern(&prepared, "select 1");
        let two = intern(&prepared, "select 2");
        assert!(matches!(
            client.register(b"s", Arc::clone(&one)),
            Registered::New(_)
        ));
        client.sent(one.id, b"s");
        assert!(matches!(
            client.register(b"s", Arc::clone(&one)),
            Registered::Taken(_)
        ));
        assert!(matches!(
            client.register(b"s", Arc::clone(&two)),
            Registered::Taken(_)
        ));
        client.void(two.id);
        assert!(client.get(b"s").is_some());
        client.void(one.id);
        assert!(client.get(b"s").is_none());
        assert!(matches!(client.register(b"s", two), Registered::New(_)));
    }
}
