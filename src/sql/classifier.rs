//! The door of this module: a text in, what it does out. Remembers decisions by fingerprint, and
//! what replicas have refused to run. Shared by all sessions.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;

use super::cache::{DecisionCache, Known};
use super::catalogue::Use;
use super::classify::{self, MAX_PARSED_BYTES, Notes, Rules};
use super::fingerprint::{Fingerprint, Secret, exact_key, fingerprint};
use super::hints::{Hints, hints};
use super::lists::{Lists, Patterns};
use super::scope::{Edition, Scope};
use super::{Class, Decision, Reason};

/// The answer about one text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classified {
    /// Shared by all texts that differ only in values of literals which do not matter.
    pub decision: Arc<Decision>,
    /// What this text's comments ask for. Rare, hence the box.
    pub hints: Option<Box<Hints>>,
    /// Of what it was decided with, see [`Classifier::edition`]. With another the class may be another
    /// one, and so may be what calls of the user's functions leave in the session.
    pub edition: u64,
}

impl Classified {
    /// The same with another decision.
    pub fn with(&self, decision: Arc<Decision>) -> Classified {
        Classified {
            decision,
            ..self.clone()
        }
    }
}

/// One statement that was found to be a write by running it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Learned {
    /// Names it to [`Classifier::forget`].
    pub fingerprint: u128,
    /// The beginning of the first text that was seen.
    pub text: Box<str>,
}

/// One query that the parser does not know, and that therefore goes to the primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unparsed {
    pub fingerprint: u128,
    /// How often it was classified.
    pub count: u64,
    /// The beginning of the first text that was seen.
    pub text: Box<str>,
}

pub struct Classifier {
    secret: Secret,
    lists: Lists,
    /// What names mean where nothing is known of the database.
    text_alone: Scope,
    decisions: DecisionCache,
    learned: Mutex<LruCache<u128, Box<str>>>,
    /// How often something was learned or forgotten.
    lessons: AtomicU64,
    unparsed: Mutex<LruCache<u128, (u64, Box<str>)>>,
}

impl Classifier {
    /// `cache_bytes` bounds the memory of all remembered decisions. `read_only_functions` are
    /// listed in [`Lists`].
    pub fn new(cache_bytes: usize, read_only_functions: &[String]) -> Self {
        let lists = Lists {
            read_only_functions: Patterns::new(read_only_functions),
            ..Lists::default()
        };
        Classifier::with_lists(cache_bytes, lists)
    }

    /// `cache_bytes` bounds the memory of all remembered decisions.
    pub fn with_lists(cache_bytes: usize, lists: Lists) -> Self {
        Classifier {
            secret: Secret(rand::random()),
            lists,
            text_alone: Scope::new(),
            decisions: DecisionCache::new(cache_bytes),
            learned: Mutex::new(LruCache::new(MAX_LEARNED)),
            lessons: AtomicU64::new(0),
            unparsed: Mutex::new(LruCache::new(MAX_UNPARSED)),
        }
    }

    /// What the operator has listed.
    pub fn lists(&self) -> &Lists {
        &self.lists
    }

    /// What `text`, as a client sent it (without a terminating zero), does, told from the text
    /// alone. Takes linear time and refuses nothing: what is not understood is a write.
    pub fn classify(&self, text: &[u8]) -> Classified {
        self.classify_in(&self.text_alone, text)
    }

    /// As [`classify`](Classifier::classify), in the database whose names `scope` has.
    pub fn classify_in(&self, scope: &Scope, text: &[u8]) -> Classified {
        let edition = scope.current();
        // Ahead of the decision: what is learned meanwhile makes it old.
        let number = self.number(&edition);
        if text.len() > MAX_PARSED_BYTES {
            return self.classify_long(scope, &edition, text);
        }
        let Fingerprint { key, has_hint } = fingerprint(self.secret, text);
        let decision = self
            .remembered(&edition, key, text)
            .unwrap_or_else(|| self.decide(scope, &edition, key, text));
        if decision.is_unparsed {
            self.count_unparsed(key, text);
        }
        Classified {
            decision,
            hints: if has_hint { boxed_hints(text) } else { None },
            edition: number,
        }
    }

    fn remembered(&self, edition: &Edition, key: u128, text: &[u8]) -> Option<Arc<Decision>> {
        match self.decisions.get(key ^ edition.salt)? {
            Known::Decided(decision) => Some(decision),
            Known::ByValues => {
                let exact = exact_key(self.secret, text);
                match self.decisions.get(exact ^ edition.salt)? {
                    Known::Decided(decision) => Some(decision),
                    Known::ByValues => None,
                }
            }
        }
    }

    /// A number, its lowest three bits zero, that changes whenever a class may: with the names of the
    /// database, and with what was learned or forgotten. It differs between databases that have a
    /// catalogue.
    pub fn edition(&self, scope: &Scope) -> u64 {
        self.number(&scope.current())
    }

    fn number(&self, edition: &Edition) -> u64 {
        let lessons = self.lessons.load(Ordering::Acquire);
        edition.number().wrapping_add(lessons << 3)
    }

    /// A replica refused to run `text`: from now on it is a write, as are all texts that share its
    /// decision. Texts too long to be remembered are left alone: they are writes already.
    pub fn remember_as_write(&self, text: &[u8]) {
        self.remember_as_write_in(&self.text_alone, text);
    }

    /// As [`remember_as_write`](Classifier::remember_as_write), for a text that was classified with
    /// the names of `scope`. In other databases it is one when their decision is made anew.
    pub fn remember_as_write_in(&self, scope: &Scope, text: &[u8]) {
        if text.len() > MAX_PARSED_BYTES {
            return;
        }
        let Fingerprint { key, .. } = fingerprint(self.secret, text);
        let edition = scope.current();
        let (_, rests_on) = self.judge(scope, &edition, text);
        let own_key = self.own_key(rests_on, key, text);
        self.learned().get_or_insert(own_key, || beginning(text));
        self.decide(scope, &edition, key, text);
        self.lessons.fetch_add(1, Ordering::Release);
    }

    /// What was learned, the most recently used first.
    pub fn learned_writes(&self) -> Vec<Learned> {
        let learned = self.learned();
        let entries = learned.iter().map(|(fingerprint, text)| Learned {
            fingerprint: *fingerprint,
            text: text.clone(),
        });
        entries.collect()
    }

    /// Forgets one; false if it was not known.
    pub fn forget(&self, fingerprint: u128) -> bool {
        let mut learned = self.learned();
        let known = learned.pop(&fingerprint).is_some();
        if known {
            self.decide_anew(learned);
        }
        known
    }

    /// Forgets all that was learned, and tells how many that were.
    pub fn forget_all(&self) -> usize {
        let mut learned = self.learned();
        let count = learned.len();
        learned.clear();
        self.decide_anew(learned);
        count
    }

    /// What was decided under whatever names may rest on what is forgotten. Nothing is decided
    /// while `learned` is held.
    fn decide_anew(&self, learned: MutexGuard<'_, LruCache<u128, Box<str>>>) {
        self.decisions.clear();
        self.lessons.fetch_add(1, Ordering::Release);
        drop(learned);
    }

    /// Queries that the parser did not know, the most recently seen first.
    pub fn unparsed(&self) -> Vec<Unparsed> {
        let unparsed = self.unparsed.lock().unwrap_or_else(PoisonError::into_inner);
        let entries = unparsed
            .iter()
            .map(|(fingerprint, (count, text))| Unparsed {
                fingerprint: *fingerprint,
                count: *count,
                text: text.clone(),
            });
        entries.collect()
    }

    fn count_unparsed(&self, key: u128, text: &[u8]) {
        let mut unparsed = self.unparsed.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, _) = unparsed.get_or_insert_mut(key, || (0, beginning(text)));
        *count += 1;
    }

    /// Bytes that remembered decisions hold.
    pub fn cache_bytes(&self) -> usize {
        self.decisions.bytes()
    }

    fn learned(&self) -> MutexGuard<'_, LruCache<u128, Box<str>>> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn judge(&self, scope: &Scope, edition: &Edition, text: &[u8]) -> (Decision, RestsOn) {
        let notes = Notes::default();
        let rules = Rules {
            lists: &self.lists,
            catalogue: edition.catalogue.as_deref(),
            how: Use::Run,
            notes: &notes,
        };
        let decision = classify::classify(&rules, text);
        if notes.missed.get() {
            scope.miss();
        }
        match notes.by_values.get() {
            true => (decision, RestsOn::Values),
            false => (decision, RestsOn::Shape),
        }
    }

    /// The key by which the decision about a text is remembered.
    fn own_key(&self, rests_on: RestsOn, key: u128, text: &[u8]) -> u128 {
        match rests_on {
            RestsOn::Shape => key,
            RestsOn::Values => exact_key(self.secret, text),
        }
    }

    fn decide(&self, scope: &Scope, edition: &Edition, key: u128, text: &[u8]) -> Arc<Decision> {
        let (mut decision, rests_on) = self.judge(scope, edition, text);
        let own_key = self.own_key(rests_on, key, text);
        let mut learned = self.learned();
        if learned.get(&own_key).is_some() && decision.class < Class::Write {
            decision.class = Class::Write;
            decision.reason = Reason("a replica refused to run it".into());
        }
        let decision = Arc::new(decision);
        if own_key != key {
            self.decisions.put(key ^ edition.salt, Known::ByValues);
        }
        let known = Known::Decided(Arc::clone(&decision));
        self.decisions.put(own_key ^ edition.salt, known);
        decision
    }

    fn classify_long(&self, scope: &Scope, edition: &Edition, text: &[u8]) -> Classified {
        // A quick look first: most long texts have no hint, and reading them again costs.
        let may_hint = memchr::memmem::find(text, b"causeway.").is_some();
        Classified {
            decision: Arc::new(self.judge(scope, edition, text).0),
            hints: if may_hint { boxed_hints(text) } else { None },
            edition: self.number(edition),
        }
    }
}

/// What about a text made its decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RestsOn {
    /// All but the values of its literals.
    Shape,
    Values,
}

const MAX_LEARNED: std::num::NonZeroUsize = std::num::NonZeroUsize::new(1_000).unwrap();
const MAX_UNPARSED: std::num::NonZeroUsize = std::num::NonZeroUsize::new(1_000).unwrap();
const MAX_SHOWN_BYTES: usize = 400;

fn beginning(text: &[u8]) -> Box<str> {
    let shown = text.get(..MAX_SHOWN_BYTES).unwrap_or(text);
    String::from_utf8_lossy(shown).into_owned().into()
}

fn boxed_hints(text: &[u8]) -> Option<Box<Hints>> {
    hints(text).map(Box::new)
}
