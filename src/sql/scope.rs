//! What names mean to the sessions of one database: its catalogue, which is replaced when it
//! changes. Decisions that were made with another edition are not found again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::{ArcSwap, Guard};

use super::catalogue::Catalogue;

/// One database's names, shared by its sessions. Without a catalogue functions of the user are
/// writes, and relations are tables.
#[derive(Debug)]
pub struct Scope {
    current: ArcSwap<Edition>,
    /// A statement had a name that the catalogue lacks.
    missed: AtomicBool,
}

/// The names as they were known for some time.
#[derive(Debug)]
pub(super) struct Edition {
    /// Mixed into the keys of the decisions that are made with it.
    pub salt: u128,
    pub catalogue: Option<Arc<Catalogue>>,
}

impl Scope {
    /// Nothing is known.
    pub fn new() -> Scope {
        Scope {
            current: ArcSwap::from_pointee(Edition::UNKNOWN),
            missed: AtomicBool::new(false),
        }
    }

    pub fn with(catalogue: Catalogue) -> Scope {
        let scope = Scope::new();
        scope.publish(catalogue);
        scope
    }

    /// The names are these from now on. False if that changes nothing: then decisions keep.
    pub fn publish(&self, catalogue: Catalogue) -> bool {
        if self.current.load().catalogue.as_deref() == Some(&catalogue) {
            return false;
        }
        self.current.store(Arc::new(Edition {
            salt: rand::random(),
            catalogue: Some(Arc::new(catalogue)),
        }));
        true
    }

    /// Nothing is known any more.
    pub fn forget(&self) {
        self.current.store(Arc::new(Edition::UNKNOWN));
    }

    /// None before it was loaded.
    pub fn catalogue(&self) -> Option<Arc<Catalogue>> {
        self.current.load().catalogue.clone()
    }

    /// Whether a statement has had a name that the catalogue lacks, since this was last asked.
    pub fn take_missed(&self) -> bool {
        self.missed.swap(false, Ordering::Relaxed)
    }

    pub(super) fn miss(&self) {
        self.missed.store(true, Ordering::Relaxed);
    }

    pub(super) fn current(&self) -> Guard<Arc<Edition>> {
        self.current.load()
    }
}

impl Edition {
    const UNKNOWN: Edition = Edition {
        salt: 0,
        catalogue: None,
    };

    /// Changes whenever the names do, and differs between databases that have a catalogue. The
    /// lowest three bits are left to whoever keeps it with one of the four classes and one thing more.
    pub fn number(&self) -> u64 {
        self.salt as u64 & !0b111
    }
}

impl Default for Scope {
    fn default() -> Self {
        Scope::new()
    }
}
