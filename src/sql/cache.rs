//! Decisions by fingerprint: bounded in bytes, the least recently used leave first. Split into
//! shards, each with a lock of its own that is held for one look-up, so sessions do not wait for
//! one another.

use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use lru::LruCache;

use super::Decision;

const SHARDS: usize = 16;

/// What is known by a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Known {
    Decided(Arc<Decision>),
    /// The values of literals matter: there is a key for each text.
    ByValues,
}

pub(super) struct DecisionCache {
    shards: Box<[Mutex<Shard>; SHARDS]>,
}

impl DecisionCache {
    /// Holds at most about `bytes` in all.
    pub fn new(bytes: usize) -> Self {
        let shard = || {
            Mutex::new(Shard {
                entries: LruCache::unbounded_with_hasher(BuildHasherDefault::default()),
                bytes: 0,
                max_bytes: bytes / SHARDS,
            })
        };
        DecisionCache {
            shards: Box::new(std::array::from_fn(|_| shard())),
        }
    }

    pub fn get(&self, key: u128) -> Option<Known> {
        self.with_shard(key, |shard| shard.entries.get(&key).cloned())
    }

    pub fn put(&self, key: u128, known: Known) {
        self.with_shard(key, |shard| shard.put(key, known));
    }

    pub fn clear(&self) {
        for shard in self.shards.iter() {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.entries.clear();
            shard.bytes = 0;
        }
    }

    /// Bytes in use, by the same count as the bound.
    pub fn bytes(&self) -> usize {
        let shards = self.shards.iter();
        shards
            .map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).bytes)
            .sum()
    }

    fn with_shard<T>(&self, key: u128, look: impl FnOnce(&mut Shard) -> T) -> T {
        // The map takes the low half of the key: the shard comes from the high one.
        let index = (key >> 124) as usize % SHARDS;
        let shard = &self.shards[index];
        // Nothing in here panics half-way; a poisoned shard would still be whole.
        look(&mut shard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct Shard {
    entries: LruCache<u128, Known, BuildHasherDefault<KeyIsHash>>,
    bytes: usize,
    max_bytes: usize,
}

impl Shard {
    fn put(&mut self, key: u128, known: Known) {
        let added = cost(&known);
        if added > self.max_bytes {
            return;
        }
        self.bytes += added;
        if let Some(old) = self.entries.put(key, known) {
            self.bytes = self.bytes.saturating_sub(cost(&old));
        }
        while self.bytes > self.max_bytes {
            let Some((_, oldest)) = self.entries.pop_lru() else {
                break;
            };
            self.bytes = self.bytes.saturating_sub(cost(&oldest));
        }
    }
}

/// Bytes that an entry holds, with what the map and the allocator add to it.
fn cost(known: &Known) -> usize {
    const OVERHEAD: usize = 160;
    let Known::Decided(decision) = known else {
        return OVERHEAD;
    };
    let effects: usize = decision.effects.iter().map(effect_bytes).sum();
    let relations: usize = decision.relations.iter().map(relation_bytes).sum();
    let resets: usize = decision.resets.iter().map(reset_bytes).sum();
    OVERHEAD + size_of::<Decision>() + decision.reason.0.len() + effects + relations + resets
}

fn relation_bytes(relation: &super::Relation) -> usize {
    let schema = relation.schema.as_ref().map_or(0, |schema| schema.len());
    size_of::<super::Relation>() + schema + relation.name.len()
}

fn reset_bytes(reset: &super::ResetStatement) -> usize {
    size_of::<super::ResetStatement>() + effect_bytes(&reset.effect)
}

fn effect_bytes(effect: &super::Effect) -> usize {
    use super::Effect;
    let text = match effect {
        Effect::Savepoint(name)
        | Effect::Release(name)
        | Effect::RollbackTo(name)
        | Effect::Reset(name)
        | Effect::Deallocate(Some(name))
        | Effect::Execute(name)
        | Effect::SetGiven { name, .. }
        | Effect::SetLocal { name }
        | Effect::ResetLocal(name)
        | Effect::Show(name) => name.len(),
        Effect::Prepare(prepare) => {
            let relations: usize = prepare.relations.iter().map(relation_bytes).sum();
            size_of::<super::SqlPrepare>() + prepare.name.len() + prepare.text.len() + relations
        }
        Effect::SetExactly { name, value } => name.len() + value.len(),
        Effect::Set { name, value } => name.len() + value.as_ref().map_or(0, |value| value.len()),
        _ => 0,
    };
    size_of::<Effect>() + text
}

/// The keys are keyed hashes already.
#[derive(Default)]
struct KeyIsHash(u64);

impl Hasher for KeyIsHash {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{Class, Code, Reason, Shown};

    fn decision(reason: &str) -> Known {
        Known::Decided(Arc::new(Decision {
            class: Class::Read,
            statements: 1,
            effects: Box::default(),
            copies_in: false,
            is_ddl: false,
            relations: Box::default(),
            is_unparsed: false,
            code: Code::None,
            shows: Shown::Data,
            resets: Box::default(),
            reason: Reason(reason.into()),
        }))
    }

    /// Keys that all fall into one shard.
    fn key(index: u64) -> u128 {
        u128::from(index)
    }

    #[test]
    fn remembers_and_forgets() {
        let cache = DecisionCache::new(1 << 20);
        cache.put(key(1), decision("a"));
        assert_eq!(cache.get(key(1)), Some(decision("a")));
        assert_eq!(cache.get(key(2)), None);
        cache.clear();
        assert_eq!(cache.get(key(1)), None);
        assert_eq!(cache.bytes(), 0);
    }

    #[test]
    fn the_least_recently_used_leaves_first() {
        let room_for_three = cost(&decision("x")) * 3 * SHARDS;
        let cache = DecisionCache::new(room_for_three);
        for index in 1..=3 {
            cache.put(key(index), decision("x"));
        }
        cache.get(key(1));
        cache.put(key(4), decision("x"));
        let held: Vec<bool> = (1..=4).map(|i| cache.get(key(i)).is_some()).collect();
        assert_eq!(held, [true, false, true, true]);
    }

    #[test]
    fn stays_within_its_bytes_whatever_comes() {
        let cache = DecisionCache::new(100_000);
        for index in 0..10_000_u128 {
            let key = index.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
            cache.put(key, decision(&"r".repeat(index as usize % 500)));
            assert!(cache.bytes() <= 100_000);
        }
        assert!(cache.bytes() > 50_000, "{}", cache.bytes());
    }

    #[test]
    fn a_replaced_entry_is_not_counted_twice() {
        let cache = DecisionCache::new(1 << 20);
        cache.put(key(1), decision("first"));
        cache.put(key(1), decision("second"));
        assert_eq!(cache.bytes(), cost(&decision("second")));
    }
}
