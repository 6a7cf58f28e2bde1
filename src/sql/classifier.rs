//! The door of this module: a text in, what it does out. Remembers decisions by fingerprint, and
//! what replicas have refused to run. Shared by all sessions.

use std::sync::{Arc, Mutex, PoisonError};

use lru::LruCache;

use super::cache::DecisionCache;
use super::classify::{self, MAX_PARSED_BYTES, Rules};
use super::fingerprint::{Fingerprint, Secret, fingerprint};
use super::hints::{Hints, hints};
use super::{Class, Decision, Reason};

/// The answer about one text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classified {
    /// Shared by all texts that differ in the values of literals only.
    pub decision: Arc<Decision>,
    /// What this text's comments ask for. Rare, hence the box.
    pub hints: Option<Box<Hints>>,
}

/// One statement that was found to be a write by running it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Learned {
    /// Names it to [`Classifier::forget`].
    pub fingerprint: u128,
    /// The beginning of the first text that was seen.
    pub text: Box<str>,
}

pub struct Classifier {
    secret: Secret,
    rules: Rules,
    decisions: DecisionCache,
    learned: Mutex<LruCache<u128, Box<str>>>,
}

impl Classifier {
    /// `cache_bytes` bounds the memory of all remembered decisions. `read_only_functions` are
    /// functions of the user that only read, as `name` (in whatever schema) or `schema.name`, and
    /// operators of the user by their sign; letters as PostgreSQL stores the name.
    pub fn new(cache_bytes: usize, read_only_functions: &[String]) -> Self {
        let names = read_only_functions.iter();
        Classifier {
            secret: Secret(rand::random()),
            rules: Rules {
                read_only_functions: names.map(|name| name.as_str().into()).collect(),
            },
            decisions: DecisionCache::new(cache_bytes),
            learned: Mutex::new(LruCache::new(MAX_LEARNED)),
        }
    }

    /// What `text`, as a client sent it (without a terminating zero), does. Takes linear time and
    /// refuses nothing: what is not understood is a write.
    pub fn classify(&self, text: &[u8]) -> Classified {
        if text.len() > MAX_PARSED_BYTES {
            return self.classify_long(text);
        }
        let Fingerprint { key, has_hint } = fingerprint(self.secret, text);
        let decision = self
            .decisions
            .get(key)
            .unwrap_or_else(|| self.decide(key, text));
        Classified {
            decision,
            hints: if has_hint { boxed_hints(text) } else { None },
        }
    }

    /// A replica refused to run `text`: from now on it is a write, as are all texts of the same
    /// fingerprint. Texts too long to be remembered are left alone: they are writes already.
    pub fn remember_as_write(&self, text: &[u8]) {
        if text.len() > MAX_PARSED_BYTES {
            return;
        }
        let Fingerprint { key, .. } = fingerprint(self.secret, text);
        let shown = text.get(..MAX_SHOWN_BYTES).unwrap_or(text);
        let shown = String::from_utf8_lossy(shown).into_owned().into();
        self.learned().get_or_insert(key, || shown);
        self.decide(key, text);
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
        let known = self.learned().pop(&fingerprint).is_some();
        self.decisions.remove(fingerprint);
        known
    }

    /// Forgets all that was learned, and tells how many that were.
    pub fn forget_all(&self) -> usize {
        let learned = self.learned_writes();
        learned
            .iter()
            .filter(|learned| self.forget(learned.fingerprint))
            .count()
    }

    /// Bytes that remembered decisions hold.
    pub fn cache_bytes(&self) -> usize {
        self.decisions.bytes()
    }

    fn learned(&self) -> std::sync::MutexGuard<'_, LruCache<u128, Box<str>>> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn decide(&self, key: u128, text: &[u8]) -> Arc<Decision> {
        let mut decision = classify::classify(&self.rules, text);
        let is_learned = self.learned().get(&key).is_some();
        if is_learned && decision.class < Class::Write {
            decision.class = Class::Write;
            decision.reason = Reason("a replica refused to run it".into());
        }
        let decision = Arc::new(decision);
        self.decisions.put(key, Arc::clone(&decision));
        decision
    }

    fn classify_long(&self, text: &[u8]) -> Classified {
        // A quick look first: most long texts have no hint, and reading them again costs.
        let may_hint = memchr::memmem::find(text, b"causeway.").is_some();
        Classified {
            decision: Arc::new(classify::classify(&self.rules, text)),
            hints: if may_hint { boxed_hints(text) } else { None },
        }
    }
}

const MAX_LEARNED: std::num::NonZeroUsize = std::num::NonZeroUsize::new(1_000).unwrap();
const MAX_SHOWN_BYTES: usize = 400;

fn boxed_hints(text: &[u8]) -> Option<Box<Hints>> {
    hints(text).map(Box::new)
}
