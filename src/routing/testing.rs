//! Topologies for the tests of this directory, on a clock that stands where they say.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use super::history::{History, Sample};
use super::*;

/// `ms` milliseconds after an arbitrary moment.
pub fn at(ms: u64) -> Instant {
    static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    *ORIGIN + Duration::from_millis(ms)
}

/// An answer of a replica or a primary on timeline 1: asked at `started` ms over a connection open
/// since 0 ms. The replica has replayed all that it has received.
pub fn seen(role: Role, lsn: u64, started: u64) -> Observation {
    Observation {
        started: at(started),
        finished: at(started + 1),
        connected: at(0),
        role,
        lsn: Lsn(lsn),
        received: (role == Role::Replica).then_some(Lsn(lsn)),
        timeline: Some(Timeline(1)),
        branched_at: None,
        clock: None,
        tells_transactions: true,
    }
}

pub fn replica(lsn: u64, started: u64) -> NodeState {
    NodeState::Up(seen(Role::Replica, lsn, started))
}

pub fn primary(lsn: u64, started: u64) -> NodeState {
    NodeState::Up(seen(Role::Primary, lsn, started))
}

pub fn down() -> NodeState {
    NodeState::Down {
        since: at(0),
        reason: "gone".into(),
    }
}

/// A node ten milliseconds away, of no region.
pub fn node(index: u8, state: NodeState) -> Node {
    Node {
        name: NodeName(format!("node-{index}").into()),
        index: NodeIndex(index),
        address: "127.0.0.1:5432".into(),
        region: None,
        weight: 100,
        state,
        round_trip: Some(Duration::from_millis(10)),
        furthest: Lsn::ZERO,
    }
}

/// On timeline 1; the first node that is up as a primary is the primary. `samples` are
/// (milliseconds, LSN).
pub fn topology(nodes: impl IntoIterator<Item = Node>, samples: &[(u64, u64)]) -> Topology {
    let nodes: Vec<_> = nodes.into_iter().map(Arc::new).collect();
    let is_primary = |node: &&Arc<Node>| {
        node.observation()
            .is_some_and(|seen| seen.role == Role::Primary)
    };
    Topology {
        primary: nodes.iter().find(is_primary).map(|node| node.index),
        nodes,
        system: Some(SystemId(1)),
        timeline: Some(Timeline(1)),
        geometry: WalGeometry::default(),
        history: Arc::new(history(samples)),
        switches: Arc::default(),
    }
}

pub fn history(samples: &[(u64, u64)]) -> History {
    let mut history = History::default();
    for (started, lsn) in samples {
        history.push(Sample {
            started: at(*started),
            lsn: Lsn(*lsn),
            clock: None,
        });
    }
    history
}
