//! Prepared statements. What clients prepare under their own names is shared under ours: same text
//! and types, same statement on every server.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use crate::protocol::frame::{Shape, cstring};
use crate::protocol::owed::StatementId;
use crate::server::statement_name;
use crate::sql::{Class, Classified, Classifier, Scope};

/// A prepared statement as all sessions share it.
#[derive(Debug)]
pub struct Statement {
    /// Never 0, which stands for the unnamed statement.
    pub id: StatementId,
    /// Its name on servers.
    pub name: Box<str>,
    /// Text, terminator, parameter types: a Parse body behind the name.
    pub definition: Box<[u8]>,
    /// As of its first Parse, in whatever database. What it is now is its [`Standing`].
    pub classified: Classified,
    /// Its class, as the number of a [`Class`]; a bit that says whether it has other effects than by
    /// then; and in the other bits the classifier's edition that this was found with.
    judged: AtomicU64,
    /// The [`Shape`] of its result as it was first described to a client; 0 before.
    shape: AtomicU64,
    /// How often all has begun anew before it was made; [`UNSURE`] if it is not known what it was made from.
    age: u64,
}

/// Of no age: outdated from the beginning.
const UNSURE: u64 = u64::MAX;

/// How often all had begun anew when something was prepared that is one session's alone.
#[derive(Debug)]
pub struct Age(AtomicU64);

impl Age {
    /// It is not known what it was made from.
    pub fn be_unsure(&self) {
        self.0.store(UNSURE, Ordering::Relaxed);
    }
}

impl Clone for Age {
    fn clone(&self) -> Age {
        Age(AtomicU64::new(self.0.load(Ordering::Relaxed)))
    }
}

/// The bits of `judged` that hold the class.
const CLASS: u64 = 0b11;
/// The bit that is set if it has other effects than by its first Parse.
const OTHERWISE: u64 = 0b100;

/// What a prepared statement is with the names of a database as they are now.
pub enum Standing {
    /// As it was parsed, but for the class.
    AsParsed(Class),
    /// What it calls leaves something else in the session.
    Otherwise(Box<Classified>),
}

impl Standing {
    pub fn of(before: &Classified, now: Classified) -> Standing {
        match now.decision.effects == before.decision.effects {
            true => Standing::AsParsed(now.decision.class),
            false => Standing::Otherwise(Box::new(now)),
        }
    }

    pub fn class(&self) -> Class {
        match self {
            Standing::AsParsed(class) => *class,
            Standing::Otherwise(now) => now.decision.class,
        }
    }
}

impl Statement {
    /// What it is in a database with these names, as they are now.
    pub fn standing(&self, classifier: &Classifier, scope: &Scope) -> Standing {
        let judged = self.judged.load(Ordering::Relaxed);
        let [.., strongest] = Class::ALL;
        if judged & !(CLASS | OTHERWISE) == classifier.edition(scope) && judged & OTHERWISE == 0 {
            let found = Class::ALL.get((judged & CLASS) as usize);
            return Standing::AsParsed(found.copied().unwrap_or(strongest));
        }
        let now = classifier.classify_in(scope, self.text());
        let judged = judgement(&now);
        let standing = Standing::of(&self.classified, now);
        let bit = match standing {
            Standing::AsParsed(_) => 0,
            Standing::Otherwise(_) => OTHERWISE,
        };
        self.judged.store(judged | bit, Ordering::Relaxed);
        standing
    }

    /// The same, as it is bound where it does something else than when it was parsed.
    pub fn bound(&self, classified: Classified) -> Statement {
        Statement {
            id: self.id,
            name: self.name.clone(),
            definition: self.definition.clone(),
            classified,
            judged: AtomicU64::new(self.judged.load(Ordering::Relaxed)),
            shape: AtomicU64::new(self.shape.load(Ordering::Relaxed)),
            age: self.age,
        }
    }

    /// What a client knows of its result, if one was told.
    pub fn shape(&self) -> Option<Shape> {
        Shape::from_number(self.shape.load(Ordering::Relaxed))
    }

    pub fn set_shape(&self, shape: Shape) {
        self.shape.store(shape.number(), Ordering::Relaxed);
    }

    /// Its SQL.
    pub fn text(&self) -> &[u8] {
        cstring(&self.definition).map_or(&self.definition, |(text, _)| text)
    }
}

fn judgement(classified: &Classified) -> u64 {
    classified.edition & !(CLASS | OTHERWISE) | classified.decision.class as u64
}

/// Every prepared statement that some session has.
pub struct Prepared {
    next: AtomicU32,
    /// How often all has begun anew.
    age: AtomicU64,
    /// When it has the last time, in nanoseconds since `made`; 0 before.
    anew_since: AtomicU64,
    made: Instant,
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
            age: AtomicU64::new(0),
            anew_since: AtomicU64::new(0),
            made: Instant::now(),
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
            shape: AtomicU64::new(0),
            age: self.age.load(Ordering::Relaxed),
        });
        alike.push(Arc::downgrade(&statement));
        statement
    }

    /// A table, a view or a function may have changed: what is prepared from now on shares nothing
    /// with what was prepared before, whose plans, and whose results' columns, may be out of date.
    pub fn begin_anew(&self) {
        let mut known = self.by_hash.lock().unwrap_or_else(PoisonError::into_inner);
        self.age.fetch_add(1, Ordering::Relaxed);
        let since = self.made.elapsed().as_nanos() as u64;
        self.anew_since.store(since.max(1), Ordering::Relaxed);
        known.statements.clear();
    }

    /// When all has begun anew the last time; none if it never has.
    pub fn anew_since(&self) -> Option<Instant> {
        match self.anew_since.load(Ordering::Relaxed) {
            0 => None,
            nanoseconds => Some(self.made + Duration::from_nanos(nanoseconds)),
        }
    }

    /// The same statement for one session alone, as it is prepared where the last change of the
    /// catalogue may not have arrived: outdated from the beginning.
    pub fn set_apart(&self, statement: &Statement) -> Arc<Statement> {
        let id = self.next_id();
        Arc::new(Statement {
            id,
            name: statement_name(id).into(),
            shape: AtomicU64::new(0),
            age: UNSURE,
            ..statement.bound(statement.classified.clone())
        })
    }

    /// What it reads may have been changed since it was prepared first.
    pub fn is_outdated(&self, statement: &Statement) -> bool {
        statement.age != self.age.load(Ordering::Relaxed)
    }

    /// That of what is prepared now.
    pub fn age(&self) -> Age {
        Age(AtomicU64::new(self.age.load(Ordering::Relaxed)))
    }

    /// What was prepared at that age may read what has been changed since.
    pub fn is_past(&self, age: &Age) -> bool {
        age.0.load(Ordering::Relaxed) != self.age.load(Ordering::Relaxed)
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn intern(prepared: &Prepared, text: &str) -> Arc<Statement> {
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
    fn what_is_set_apart_is_one_s_own_and_outdated() {
        let prepared = Prepared::new();
        let shared = intern(&prepared, "select * from t");
        assert_eq!(prepared.anew_since(), None);
        let apart = prepared.set_apart(&shared);
        assert_ne!(apart.id, shared.id);
        assert_eq!(apart.definition, shared.definition);
        assert!(prepared.is_outdated(&apart) && !prepared.is_outdated(&shared));
        assert_eq!(intern(&prepared, "select * from t").id, shared.id);
        prepared.begin_anew();
        assert!(prepared.anew_since().is_some());
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
}
