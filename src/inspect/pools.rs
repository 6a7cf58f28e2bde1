//! The table of pools.

use std::iter::Sum;
use std::ops::Add;
use std::sync::Arc;

use crate::pool::Pools;
use crate::routing::{NodeIndex, NodeName, Topology};

/// The servers of one node for one database and user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolRow {
    pub database: Arc<str>,
    pub user: Arc<str>,
    pub node: NodeName,
    pub index: NodeIndex,
    pub servers: Servers,
    /// Servers at the most.
    pub size: usize,
}

/// How many servers do what. `idle` and `in_use` make up all that are open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Servers {
    pub idle: usize,
    pub in_use: usize,
    /// Sessions that wait for a server.
    pub waiters: usize,
}

impl Servers {
    pub fn open(self) -> usize {
        self.idle + self.in_use
    }
}

impl Add for Servers {
    type Output = Servers;

    fn add(self, other: Servers) -> Servers {
        Servers {
            idle: self.idle + other.idle,
            in_use: self.in_use + other.in_use,
            waiters: self.waiters + other.waiters,
        }
    }
}

impl Sum for Servers {
    fn sum<I: Iterator<Item = Servers>>(rows: I) -> Servers {
        rows.fold(Servers::default(), Servers::add)
    }
}

pub(super) fn rows(pools: &Pools, topology: &Topology) -> Vec<PoolRow> {
    let mut rows = Vec::new();
    for (database, user, group) in pools.groups() {
        for (node, pool) in topology.nodes.iter().zip(group.pools()) {
            let (idle, open, waiters) = pool.counts();
            rows.push(PoolRow {
                database: Arc::clone(&database),
                user: Arc::clone(&user),
                node: node.name.clone(),
                index: node.index,
                servers: Servers {
                    idle,
                    in_use: open.saturating_sub(idle),
                    waiters,
                },
                size: pool.size(),
            });
        }
    }
    rows.sort_by(|a, b| (&a.database, &a.user, a.index).cmp(&(&b.database, &b.user, b.index)));
    rows
}
