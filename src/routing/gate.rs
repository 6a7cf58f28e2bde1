//! The gate: which nodes may answer a read.

use std::time::{Duration, Instant};

use super::floor::{Bound, Floor};
use super::history::Sample;
use super::lsn::Mark;
use super::topology::{NodeSet, Topology};

/// How fresh a read must be (see `docs/consistency.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The newest committed state: always the primary.
    Strong,
    /// Nothing older than what this session has written or seen.
    Session,
    /// As `Session`, for sessions whose positions travel.
    Causal,
    /// Any state, or one not older than the bound.
    Eventual { max_staleness: Option<Duration> },
}

impl Level {
    /// What is fresh enough for this is fresh enough for `other`.
    pub fn covers(self, other: Level) -> bool {
        let rank = |level: Level| match level {
            Level::Strong => Duration::ZERO,
            // The same gate for both.
            Level::Session | Level::Causal => Duration::from_nanos(1),
            Level::Eventual { max_staleness } => max_staleness
                .unwrap_or(Duration::MAX)
                .max(Duration::from_nanos(2)),
        };
        rank(self) <= rank(other)
    }
}

/// What a read asks of the gate.
#[derive(Clone, Copy, Debug)]
pub struct ReadNeed<'a> {
    pub level: Level,
    pub floor: &'a Floor,
    /// Nodes that have just failed this very read.
    pub exclude: NodeSet,
    /// An observation older than this no longer counts.
    pub observation_expiry: Duration,
}

/// Why a read goes to the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrimaryReason {
    /// The level is strong.
    Strong,
    /// The primary is nearer than every replica that may answer.
    Nearest,
    /// No replica may be used at present.
    NoReplica,
    /// Every replica is behind the floor, or too old.
    Lag,
    /// The floor's position is not known yet.
    FloorUnknown,
}

/// The gate's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Only the primary may answer, and no waiting changes that now.
    Primary(PrimaryReason),
    /// Replicas in `fresh` may answer at once, those in `behind` when they have what `mark` says.
    Replicas {
        fresh: NodeSet,
        behind: NodeSet,
        mark: Mark,
    },
}

/// Sorts the replicas into those that may answer now and those that may answer later. The floor
/// must have been settled with this topology.
pub fn gate(need: &ReadNeed<'_>, topology: &Topology, now: Instant) -> Verdict {
    if need.level == Level::Strong {
        return Verdict::Primary(PrimaryReason::Strong);
    }
    let mut fresh = NodeSet::EMPTY;
    let mut behind = NodeSet::EMPTY;
    let mut mark = Mark::Position(need.floor.lsn());
    let newest = topology.history.newest();
    // Of the replicas that could be used: why not, whichever was last.
    let mut refused = None;
    for replica in topology.replicas() {
        let Some(seen) = replica.observation() else {
            continue;
        };
        let expired = now.saturating_duration_since(seen.finished) > need.observation_expiry;
        if expired || replica.weight == 0 || need.exclude.contains(replica.index) {
            continue;
        }
        match need.level {
            Level::Strong => {}
            Level::Session | Level::Causal => match need.floor.bound_for(replica.index) {
                Bound::Reached(lsn) if seen.lsn >= lsn => fresh = fresh.with(replica.index),
                Bound::Reached(_) => behind = behind.with(replica.index),
                Bound::Shown(timeline, xid) => {
                    behind = behind.with(replica.index);
                    mark = Mark::Transaction(timeline, xid);
                }
                Bound::OnlyPrimary => refused = Some(PrimaryReason::FloorUnknown),
            },
            Level::Eventual { max_staleness } => {
                let young = max_staleness.is_none_or(|limit| {
                    topology
                        .history
                        .staleness(seen.lsn, now)
                        .is_some_and(|staleness| staleness <= limit)
                });
                if young {
                    fresh = fresh.with(replica.index);
                } else {
                    refused = Some(PrimaryReason::Lag);
                    // It is young when it has reached what the primary was seen at lately.
                    let helps = |newest: &Sample| {
                        let age = now.saturating_duration_since(newest.started);
                        seen.lsn < newest.lsn && max_staleness.is_some_and(|limit| age <= limit)
                    };
                    if let Some(newest) = newest.filter(helps) {
                        behind = behind.with(replica.index);
                        mark = Mark::Position(newest.lsn);
                    }
                }
            }
        }
    }
    if !fresh.is_empty() || !behind.is_empty() {
        Verdict::Replicas {
            fresh,
            behind,
            mark,
        }
    } else {
        Verdict::Primary(refused.unwrap_or(PrimaryReason::NoReplica))
    }
}

#[cfg(test)]
mod tests;
