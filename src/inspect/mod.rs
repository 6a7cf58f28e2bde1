//! Live state as plain tables: what the admin faces may show, and all that they may show; and the
//! one thing that they may change.
//!
//! A [`View`] looks and never touches. Rows hold quantities with their types; how they are written
//! is the business of who shows them. [`Memory`] forgets what was learned.

mod nodes;
mod pools;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::pool::Pools;
use crate::session::Services;
use crate::sql::{Learned, Unparsed};

pub use nodes::{Health, NodeRow, NodeStatus};
pub use pools::{PoolRow, Servers};

/// One instance of Causeway, looked at from outside.
pub struct View {
    started: Instant,
    pools: Arc<Pools>,
    services: Arc<Services>,
}

/// What one instance has learned, to be forgotten on request: then a replica is asked again.
pub struct Memory {
    services: Arc<Services>,
}

impl Memory {
    pub fn new(services: Arc<Services>) -> Memory {
        Memory { services }
    }

    /// Forgets one of [`View::learned_writes`]; tells how many that were.
    pub fn forget(&self, fingerprint: u128) -> usize {
        usize::from(self.services.classifier.forget(fingerprint))
    }

    /// Forgets all of them; tells how many that were.
    pub fn forget_all(&self) -> usize {
        self.services.classifier.forget_all()
    }
}

/// Sums over the whole instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    pub uptime: Duration,
    /// Sessions: clients that have logged in and not left.
    pub clients: usize,
    pub servers: Servers,
    /// Memory that remembered classifications hold.
    pub statement_cache_bytes: usize,
}

impl View {
    /// `started` is when the instance did; the services' feed tells of the nodes.
    pub fn new(started: Instant, pools: Arc<Pools>, services: Arc<Services>) -> View {
        View {
            started,
            pools,
            services,
        }
    }

    /// Every node, in the order of the settings, as it is known at `now`.
    pub fn nodes(&self, now: Instant) -> Vec<NodeRow> {
        nodes::rows(&self.services.feed.topology(), &self.pools(), now)
    }

    /// Whether clients are served as they should be.
    pub fn health(&self) -> Health {
        nodes::health(&self.services.feed.topology())
    }

    /// Every pool, by database, user and node.
    pub fn pools(&self) -> Vec<PoolRow> {
        pools::rows(&self.pools, &self.services.feed.topology())
    }

    /// What was found to be a write because a replica refused it, the most recently used first.
    pub fn learned_writes(&self) -> Vec<Learned> {
        self.services.classifier.learned_writes()
    }

    /// Queries that were taken for writes because the parser does not know them, the most recently
    /// seen first.
    pub fn unparsed(&self) -> Vec<Unparsed> {
        self.services.classifier.unparsed()
    }

    pub fn totals(&self, now: Instant) -> Totals {
        Totals {
            uptime: now.saturating_duration_since(self.started),
            clients: self.services.cancels.len(),
            servers: self.pools().iter().map(|pool| pool.servers).sum(),
            statement_cache_bytes: self.services.classifier.cache_bytes(),
        }
    }
}
