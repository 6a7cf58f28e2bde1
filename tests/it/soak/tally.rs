//! What a run has found: checks and violations by promise, and the errors that users were given.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// What is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    /// A session reads what it wrote.
    OwnWrites,
    /// A session never sees less than it has seen.
    Monotonic,
    /// Whoever has the token sees what it stands for, through whichever Causeway.
    ByToken,
    /// Whoever has the key sees what was seen under it.
    ByKey,
    /// Nothing is older than `max_staleness`.
    Staleness,
    /// A replica that has all there is answers, wherever the log happens to end.
    PageBoundary,
}

impl Promise {
    const ALL: [Promise; 6] = [
        Promise::OwnWrites,
        Promise::Monotonic,
        Promise::ByToken,
        Promise::ByKey,
        Promise::Staleness,
        Promise::PageBoundary,
    ];

    /// Users check it all the time.
    pub fn is_watched(self) -> bool {
        self != Promise::PageBoundary
    }
}

#[derive(Debug, Default)]
pub struct Tally {
    checks: [AtomicU64; Promise::ALL.len()],
    violations: Mutex<Vec<(Promise, String)>>,
    /// By what was tried, and SQLSTATE.
    errors: Mutex<BTreeMap<(&'static str, String), u64>>,
    /// Of sessions, by node.
    reads: Mutex<BTreeMap<String, u64>>,
    /// Sessions that were told that a failover had lost something.
    pub losses: AtomicU64,
    /// Writes that were answered and ended their own server.
    pub doomed: AtomicU64,
    /// Connections that were opened.
    pub opened: AtomicU64,
}

impl Tally {
    pub fn check(&self, promise: Promise, holds: bool, what: impl FnOnce() -> String) {
        self.checks[promise as usize].fetch_add(1, Ordering::Relaxed);
        if !holds {
            self.violations.lock().unwrap().push((promise, what()));
        }
    }

    pub fn checks(&self) -> BTreeMap<Promise, u64> {
        let count = |promise: Promise| self.checks[promise as usize].load(Ordering::Relaxed);
        let promises = Promise::ALL.into_iter();
        promises.map(|promise| (promise, count(promise))).collect()
    }

    pub fn checks_in_all(&self) -> u64 {
        self.checks().values().sum()
    }

    pub fn has_violations(&self) -> bool {
        !self.violations.lock().unwrap().is_empty()
    }

    /// So many of each, with the first few in words.
    pub fn violations(&self) -> BTreeMap<Promise, (u64, Vec<String>)> {
        let mut found: BTreeMap<Promise, (u64, Vec<String>)> = BTreeMap::new();
        for (promise, text) in self.violations.lock().unwrap().iter() {
            let (count, texts) = found.entry(*promise).or_default();
            *count += 1;
            if texts.len() < 5 {
                texts.push(text.clone());
            }
        }
        found
    }

    pub fn assert_kept(&self, when: &str) {
        let found = self.violations();
        assert!(found.is_empty(), "{when}: {found:#?}");
    }

    pub fn error(&self, deed: &'static str, code: &str) {
        let mut errors = self.errors.lock().unwrap();
        *errors.entry((deed, code.to_owned())).or_default() += 1;
    }

    pub fn answered_by(&self, node: &str) {
        let mut reads = self.reads.lock().unwrap();
        match reads.get_mut(node) {
            Some(count) => *count += 1,
            None => drop(reads.insert(node.to_owned(), 1)),
        }
    }

    pub fn reads(&self) -> BTreeMap<String, u64> {
        self.reads.lock().unwrap().clone()
    }

    pub fn print(&self, name: &str) {
        let violations = self.violations();
        println!(
            "{name}: {} checks {:?}; reads {:?}; errors {:?}; {} told of a loss; violations {violations:#?}",
            self.checks_in_all(),
            self.checks(),
            self.reads(),
            self.errors.lock().unwrap(),
            self.losses.load(Ordering::Relaxed),
        );
    }
}
