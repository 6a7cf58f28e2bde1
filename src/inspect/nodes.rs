//! The table of nodes, and what it means for the whole.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::pools::{PoolRow, Servers};
use crate::routing::{Lsn, Node, NodeName, NodeState, Observation, Role, Topology};

/// What is known of one node, and what this instance has open there.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeRow {
    pub name: NodeName,
    /// Host and port.
    pub address: Arc<str>,
    pub region: Option<Arc<str>>,
    /// Share of the reads among equally near nodes.
    pub weight: u32,
    pub status: NodeStatus,
    /// Its last known position; a node that is down has none.
    pub position: Option<Lsn>,
    /// Bytes of WAL from there to the primary's newest known position.
    pub lag_bytes: Option<u64>,
    /// A replica's state is not older than this; the primary's has no age.
    pub staleness: Option<Duration>,
    /// Since the probe that tells all this was sent.
    pub observed_ago: Option<Duration>,
    /// Median of the last probes.
    pub round_trip: Option<Duration>,
    pub servers: Servers,
}

/// Whether a node may be used, and as what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeStatus {
    /// Not probed yet.
    Unknown,
    Primary,
    Replica,
    /// It takes writes, but so does another node of its timeline: neither gets any.
    RivalPrimary,
    Down {
        since_ago: Duration,
        reason: Arc<str>,
    },
    /// It answers, but must not be used.
    Excluded {
        reason: Arc<str>,
    },
}

/// Whether clients are served as they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// There is a primary, and every node may be used.
    Healthy,
    /// There is no primary, or a node is missing; something can still be answered.
    Degraded,
    /// There is no primary and no replica.
    Unhealthy,
}

pub(super) fn rows(topology: &Topology, pools: &[PoolRow], now: Instant) -> Vec<NodeRow> {
    let nodes = topology.nodes.iter();
    nodes.map(|node| row(node, topology, pools, now)).collect()
}

pub(super) fn health(topology: &Topology) -> Health {
    let no_replica = topology.replicas().next().is_none();
    let all_used = topology
        .nodes
        .iter()
        .all(|node| node.observation().is_some());
    match topology.primary {
        None if no_replica => Health::Unhealthy,
        Some(_) if all_used => Health::Healthy,
        _ => Health::Degraded,
    }
}

fn row(node: &Node, topology: &Topology, pools: &[PoolRow], now: Instant) -> NodeRow {
    let seen = node.observation();
    let newest = topology.history.newest();
    let is_replica = |seen: &&Observation| seen.role == Role::Replica;
    let servers = pools.iter().filter(|pool| pool.index == node.index);
    NodeRow {
        name: node.name.clone(),
        address: Arc::clone(&node.address),
        region: node.region.clone(),
        weight: node.weight,
        status: status(node, topology, now),
        position: seen.map(|seen| seen.lsn),
        lag_bytes: seen
            .zip(newest)
            .map(|(seen, newest)| newest.lsn.bytes_since(seen.lsn)),
        staleness: seen
            .filter(is_replica)
            .and_then(|seen| topology.history.staleness(seen.lsn, now)),
        observed_ago: seen.map(|seen| now.saturating_duration_since(seen.started)),
        round_trip: node.round_trip,
        servers: servers.map(|pool| pool.servers).sum(),
    }
}

fn status(node: &Node, topology: &Topology, now: Instant) -> NodeStatus {
    match &node.state {
        NodeState::Unknown => NodeStatus::Unknown,
        NodeState::Up(seen) => match seen.role {
            Role::Primary if topology.primary == Some(node.index) => NodeStatus::Primary,
            Role::Primary => NodeStatus::RivalPrimary,
            Role::Replica => NodeStatus::Replica,
        },
        NodeState::Down { since, reason } => NodeStatus::Down {
            since_ago: now.saturating_duration_since(*since),
            reason: Arc::clone(reason),
        },
        NodeState::Excluded { reason, .. } => NodeStatus::Excluded {
            reason: Arc::clone(reason),
        },
    }
}
