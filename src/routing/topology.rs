//! The topology: an immutable snapshot of what is known of every node, made by the monitor and
//! read by sessions.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::history::{History, UnixMillis};
use super::lsn::{Lsn, SystemId, Timeline, WalGeometry};
use super::switches::Switches;

/// A node's name, as the operator wrote it or as `host:port`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeName(pub Arc<str>);

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A node's place in [`Topology::nodes`], from 0 to [`MAX_NODES`] − 1; stable while the process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeIndex(pub u8);

/// So many nodes at the most, so that a set of them is one word.
pub const MAX_NODES: usize = 64;

/// A set of nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeSet(pub u64);

impl NodeSet {
    pub const EMPTY: NodeSet = NodeSet(0);

    pub fn with(self, node: NodeIndex) -> NodeSet {
        NodeSet(self.0 | 1 << node.0)
    }

    pub fn without(self, node: NodeIndex) -> NodeSet {
        NodeSet(self.0 & !(1 << node.0))
    }

    pub fn contains(self, node: NodeIndex) -> bool {
        self.0 & 1 << node.0 != 0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn iter(self) -> impl Iterator<Item = NodeIndex> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let node = rest.trailing_zeros();
            rest &= rest.wrapping_sub(1);
            (node < u64::BITS).then_some(NodeIndex(node as u8))
        })
    }
}

impl FromIterator<NodeIndex> for NodeSet {
    fn from_iter<I: IntoIterator<Item = NodeIndex>>(nodes: I) -> NodeSet {
        nodes.into_iter().fold(NodeSet::EMPTY, NodeSet::with)
    }
}

/// What a node said it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `pg_is_in_recovery()` is false.
    Primary,
    /// `pg_is_in_recovery()` is true.
    Replica,
}

/// One answered probe.
#[derive(Clone, Copy, Debug)]
pub struct Observation {
    /// Taken before the probe was sent: what it reports was true at or after this moment.
    pub started: Instant,
    /// Taken when its answer had been read.
    pub finished: Instant,
    /// Taken when the connection that asked had been opened. It has lived since, and no connection
    /// outlives a restart of its node, so from here to `started` the node has not restarted and
    /// its position has not fallen.
    pub connected: Instant,
    pub role: Role,
    /// Primary: its insert position, normalised. Replica: its replay position, a lower bound of
    /// what any later read there sees.
    pub lsn: Lsn,
    /// Replica: what it has received and flushed, where it says so.
    pub received: Option<Lsn>,
    /// The timeline that it writes or follows, where it could be learned.
    pub timeline: Option<Timeline>,
    /// Primary: the last position that it replayed before it was one, if it was ever anything
    /// else since it started. There its timeline begins, unless it has crashed since.
    pub branched_at: Option<Lsn>,
    /// Primary: its own clock, read before its position.
    pub clock: Option<UnixMillis>,
    /// It can be asked whether it shows a transaction.
    pub tells_transactions: bool,
}

impl Observation {
    /// Whether a server that was opened at `opened` reads at this position or later. A younger
    /// server may belong to a replica that has restarted since, at a lower position.
    pub fn vouches_for(&self, opened: Instant) -> bool {
        opened <= self.started
    }

    /// A position that covers whatever a read there can have seen that ended before this was asked; none
    /// where that cannot be told.
    pub fn shown(&self) -> Option<Lsn> {
        match self.role {
            Role::Primary => Some(self.lsn),
            Role::Replica => shown_by_replica(self.lsn, self.received),
        }
    }
}

/// A position that covers whatever has been seen on a replica before it told that it had `replayed` so much,
/// and, after that, that it had `received` so much; none where that cannot be told.
///
/// A replica shows a commit before it counts its record as replayed: at most one record is ahead in that
/// way, and only where more has been received. Whoever has replayed anything behind `replayed` has replayed that
/// record. What has not come by streaming has no such mark.
pub fn shown_by_replica(replayed: Lsn, received: Option<Lsn>) -> Option<Lsn> {
    match received?.cmp(&replayed) {
        Ordering::Equal => Some(replayed),
        Ordering::Greater => Some(replayed.just_behind()),
        Ordering::Less => None,
    }
}

/// What is known of one node.
#[derive(Clone, Debug)]
pub struct Node {
    pub name: NodeName,
    pub index: NodeIndex,
    /// Host and port, for people.
    pub address: Arc<str>,
    pub region: Option<Arc<str>>,
    /// Share of the reads among equally near nodes; 0 takes none.
    pub weight: u32,
    pub state: NodeState,
    /// Median of the last ten probe round trips; none before the first.
    pub round_trip: Option<Duration>,
    /// The furthest that it has been seen to have replayed. It is behind that when it has been
    /// started again, or set back to an old backup.
    pub furthest: Lsn,
}

/// Whether a node may be used at all.
#[derive(Clone, Debug)]
pub enum NodeState {
    /// Not probed yet.
    Unknown,
    /// Probes are answered; this is the last answer.
    Up(Observation),
    /// The last probe failed, at this time, for this reason.
    Down { since: Instant, reason: Arc<str> },
    /// It answers, but must not be used: another cluster, or the wrong timeline.
    Excluded {
        observation: Observation,
        reason: Arc<str>,
    },
}

impl Node {
    /// The last answer of a node that may be used.
    pub fn observation(&self) -> Option<&Observation> {
        match &self.state {
            NodeState::Up(observation) => Some(observation),
            _ => None,
        }
    }
}

/// Everything known at one moment.
#[derive(Clone, Debug)]
pub struct Topology {
    /// In order of their [`NodeIndex`].
    pub nodes: Vec<Arc<Node>>,
    /// The node that takes writes, if exactly one is known.
    pub primary: Option<NodeIndex>,
    pub system: Option<SystemId>,
    /// The primary's timeline.
    pub timeline: Option<Timeline>,
    pub geometry: WalGeometry,
    /// Positions of the primary over time.
    pub history: Arc<History>,
    /// Where timelines began, as far as that was seen.
    pub switches: Arc<Switches>,
}

impl Topology {
    pub fn node(&self, index: NodeIndex) -> &Arc<Node> {
        &self.nodes[usize::from(index.0)]
    }

    /// The nodes that were replicas when last seen and may be used.
    pub fn replicas(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.iter().filter(|node| {
            node.observation()
                .is_some_and(|seen| seen.role == Role::Replica)
        })
    }
}

#[cfg(test)]
mod tests;
