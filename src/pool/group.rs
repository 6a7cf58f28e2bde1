//! The pools of all nodes for one database and user, and the table of all groups.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;
use tokio::task::JoinHandle;

use super::slots::NodeSlots;
use super::{Limits, Pool};
use crate::routing::NodeIndex;
use crate::server::{Credential, Dialer, Reported, Settings};

/// The pools of all nodes for one database and user. A session finds its group once, at log-in.
pub struct Group {
    pools: Vec<Arc<Pool>>,
    /// Some session has asked what it got from a sequence.
    asks_sequences: AtomicBool,
    /// By start-up settings.
    welcomes: Mutex<LruCache<String, Told>>,
}

/// What clients with these start-up settings are told at log-in. They share the settings, which
/// makes comparing them cheap.
#[derive(Clone)]
pub struct Told {
    pub settings: Settings,
    pub reported: Reported,
    /// Whole messages.
    pub notices: Arc<[u8]>,
}

/// So many different sets of start-up settings are remembered per group.
const WELCOMES: NonZeroUsize = NonZeroUsize::new(256).unwrap();

impl Group {
    pub fn pool(&self, node: NodeIndex) -> &Arc<Pool> {
        &self.pools[usize::from(node.0)]
    }

    pub fn pools(&self) -> &[Arc<Pool>] {
        &self.pools
    }

    pub fn asks_sequences(&self) -> bool {
        self.asks_sequences.load(Ordering::Relaxed)
    }

    pub fn sequences_are_asked_for(&self) {
        self.asks_sequences.store(true, Ordering::Relaxed);
    }

    /// What an earlier client with the same start-up settings was told.
    pub fn told(&self, settings: &Settings) -> Option<Told> {
        let mut welcomes = self.welcomes.lock().unwrap_or_else(PoisonError::into_inner);
        welcomes.get(&key(settings)).cloned()
    }

    pub fn remember(&self, told: Told) {
        let mut welcomes = self.welcomes.lock().unwrap_or_else(PoisonError::into_inner);
        welcomes.put(key(&told.settings), told);
    }

    /// The database may be another one when the next client comes.
    fn forget_told(&self) {
        let mut welcomes = self.welcomes.lock().unwrap_or_else(PoisonError::into_inner);
        welcomes.clear();
    }
}

/// A statement wants a database for itself; dropped when it has been answered.
pub struct Vacating(JoinHandle<()>);

impl Drop for Vacating {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// One who may not drop a database is told so at once, and costs it no server.
const BEFORE_VACATING: Duration = Duration::from_millis(100);

/// PostgreSQL looks as often whether the others have gone.
const BETWEEN_VACATIONS: Duration = Duration::from_millis(100);

fn key(settings: &Settings) -> String {
    Settings::default()
        .statements_to(settings)
        .unwrap_or_default()
}

/// Database and user.
type GroupName = (Arc<str>, Arc<str>);

/// All groups, made on demand.
pub struct Pools {
    nodes: Vec<(Arc<Dialer>, Arc<NodeSlots>)>,
    groups: Mutex<HashMap<GroupName, Arc<Group>>>,
}

impl Pools {
    /// `nodes` in the order of their index, each with the number of servers it may have.
    pub fn new(nodes: Vec<(Arc<Dialer>, usize)>) -> Pools {
        let nodes = nodes
            .into_iter()
            .map(|(dialer, count)| (dialer, NodeSlots::new(count)));
        Pools {
            nodes: nodes.collect(),
            groups: Mutex::default(),
        }
    }

    /// The group for a database and user.
    pub fn group(
        &self,
        database: &str,
        credential: &Arc<Credential>,
        limits: Limits,
    ) -> Arc<Group> {
        let name: GroupName = (database.into(), credential.user().into());
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let group = groups.entry(name.clone()).or_insert_with(|| {
            let pools = self.nodes.iter().map(|(dialer, slots)| {
                let pool = Pool::new(
                    Arc::clone(dialer),
                    Arc::clone(&name.0),
                    Arc::clone(credential),
                    limits,
                    Arc::clone(slots),
                );
                slots.register(&pool);
                pool
            });
            let welcomes = Mutex::new(LruCache::new(WELCOMES));
            Arc::new(Group {
                pools: pools.collect(),
                asks_sequences: AtomicBool::new(false),
                welcomes,
            })
        });
        Arc::clone(group)
    }

    /// All groups with their database and user.
    pub fn groups(&self) -> Vec<(Arc<str>, Arc<str>, Arc<Group>)> {
        let groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let row = |((database, user), group): (&GroupName, &Arc<Group>)| {
            (Arc::clone(database), Arc::clone(user), Arc::clone(group))
        };
        groups.iter().map(row).collect()
    }

    /// Looks after all pools once a second, for as long as the handle's task is let live.
    pub fn start_maintenance(self: &Arc<Pools>) -> JoinHandle<()> {
        let pools = Arc::clone(self);
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_secs(1));
            for tick in 0.. {
                ticks.tick().await;
                pools.maintain(tick);
            }
        })
    }

    /// Keeps a database free of servers at rest, on all nodes, until what this gives is dropped.
    pub fn vacate(self: &Arc<Pools>, database: Box<str>) -> Vacating {
        let pools = Arc::clone(self);
        let task = tokio::spawn(async move {
            tokio::time::sleep(BEFORE_VACATING).await;
            let mut rounds = tokio::time::interval(BETWEEN_VACATIONS);
            loop {
                rounds.tick().await;
                pools.close_resting(&database);
            }
        });
        Vacating(task)
    }

    /// Closes a database's servers at rest, and forgets what its clients were told at log-in.
    pub fn close_resting(&self, database: &str) {
        for (_, _, group) in self.groups().iter().filter(|(of, ..)| **of == *database) {
            group.forget_told();
            group.pools.iter().for_each(|pool| pool.close_resting());
        }
    }

    fn maintain(&self, tick: u32) {
        let now = Instant::now();
        for (_, _, group) in self.groups() {
            group.pools.iter().for_each(|pool| pool.maintain(tick, now));
        }
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        groups.retain(|_, group| {
            Arc::strong_count(group) > 1 || !group.pools.iter().all(|pool| pool.is_empty())
        });
    }
}
