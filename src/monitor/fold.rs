//! Folds what probes answer into a [`Topology`]: who is the primary, which replicas follow it,
//! who must not be used and why. Pure: time is in the arguments, nothing is logged here.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::routing::history::Sample;
use crate::routing::{
    History, Lsn, Node, NodeIndex, NodeState, Observation, Role, SystemId, Timeline, Topology,
    WalGeometry,
};

/// A node's distance is the median of this many round trips.
const ROUND_TRIPS: usize = 10;

/// What one connection to a node was told once: it cannot change while the connection lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub system: SystemId,
    pub geometry: WalGeometry,
}

/// What a replica said about the timeline that it replays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Following {
    /// It streams this timeline, or (a primary) writes it.
    Streams(Timeline),
    /// It streams from nowhere, or does not tell us: it has replayed this timeline or a later one.
    AtLeast(Timeline),
}

/// The end of one probe.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The node answered. The observation's timeline is told by `following`.
    Answered {
        observation: Observation,
        following: Following,
        identity: Identity,
    },
    /// It did not, as was known at `at`.
    Failed { at: Instant, reason: Arc<str> },
}

impl Outcome {
    /// As if the node's cluster had never had another timeline.
    pub(super) fn forget_timeline(&mut self) {
        if let Outcome::Answered {
            observation,
            following,
            ..
        } = self
        {
            observation.branched_at = None;
            *following = Following::Streams(Timeline(1));
        }
    }
}

/// All that has been seen so far.
#[derive(Debug)]
pub struct Fold {
    looks: Vec<Look>,
    /// The cluster, once every node has been looked at and one was its primary.
    settled: Option<SystemId>,
    /// The newest timeline on which a node of the cluster has ever claimed to be the primary.
    claimed: Option<Timeline>,
    /// Whose positions are in the topology's history.
    sampled: Option<NodeIndex>,
    topology: Topology,
}

/// The last look at one node, before judging it.
#[derive(Debug, Default)]
struct Look {
    latest: Latest,
    /// As a replica, and on which timeline; it begins anew on another.
    furthest: Option<(Timeline, Lsn)>,
    /// The newest last.
    round_trips: VecDeque<Duration>,
}

#[derive(Clone, Debug, Default)]
enum Latest {
    #[default]
    Never,
    Answered(Observation, Identity),
    Failed {
        since: Instant,
        reason: Arc<str>,
    },
}

/// Who may take writes.
enum Claim {
    Nobody,
    One(NodeIndex),
    /// Several on the same timeline.
    Disputed,
}

impl Fold {
    /// Starts from nodes of which nothing is known; their place is their index.
    pub fn new(nodes: Vec<Node>) -> Fold {
        Fold {
            looks: nodes.iter().map(|_| Look::default()).collect(),
            settled: None,
            claimed: None,
            sampled: None,
            topology: Topology {
                nodes: nodes.into_iter().map(Arc::new).collect(),
                primary: None,
                system: None,
                timeline: None,
                geometry: WalGeometry::default(),
                history: Arc::new(History::default()),
                switches: Arc::default(),
            },
        }
    }

    /// What is known now.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Every node has been looked at, with or without an answer.
    pub fn all_looked_at(&self) -> bool {
        self.looks
            .iter()
            .all(|look| !matches!(look.latest, Latest::Never))
    }

    /// Takes in the end of a probe of `node` and judges all nodes anew.
    pub fn take(&mut self, node: NodeIndex, outcome: Outcome) {
        let Some(look) = self.looks.get_mut(usize::from(node.0)) else {
            return;
        };
        look.take(outcome);
        let system = self.system();
        let timeline = self.timeline(system);
        let claim = self.claim(system, timeline);
        if self.settled.is_none() && matches!(claim, Claim::One(_)) && self.all_looked_at() {
            self.settled = system;
        }
        self.topology.system = system;
        self.topology.primary = match claim {
            Claim::One(primary) => Some(primary),
            Claim::Nobody | Claim::Disputed => None,
        };
        self.remember_position(timeline);
        self.judge(node, timeline, &claim);
    }

    /// The cluster that counts: settled, or else the one of most nodes (of two that are equal in
    /// that, the one with a primary, then the first).
    fn system(&self) -> Option<SystemId> {
        if self.settled.is_some() {
            return self.settled;
        }
        let systems = || self.answers().map(|(_, _, identity)| identity.system);
        let rank = |system: SystemId| {
            let votes = systems().filter(|other| *other == system).count();
            let has_primary = self
                .answers()
                .any(|(_, seen, identity)| identity.system == system && seen.role == Role::Primary);
            (votes, has_primary)
        };
        systems().min_by_key(|system| Reverse(rank(*system)))
    }

    /// The newest timeline that a primary of `system` has ever shown; before there was one, the
    /// newest that a replica follows. It never falls: a primary that comes back on an old
    /// timeline has been replaced.
    fn timeline(&mut self, system: Option<SystemId>) -> Option<Timeline> {
        let newest = |fold: &Fold, role: Role| {
            fold.members(system)
                .filter(|(_, seen)| seen.role == role)
                .filter_map(|(_, seen)| seen.timeline)
                .max()
        };
        let earlier = self.claimed.filter(|_| self.topology.system == system);
        self.claimed = earlier.max(newest(self, Role::Primary));
        self.claimed.or_else(|| newest(self, Role::Replica))
    }

    fn claim(&self, system: Option<SystemId>, timeline: Option<Timeline>) -> Claim {
        let mut claimants = self
            .members(system)
            .filter(|(_, seen)| seen.role == Role::Primary && seen.timeline == timeline);
        match (claimants.next(), claimants.next()) {
            (None, _) => Claim::Nobody,
            (Some((primary, _)), None) => Claim::One(primary),
            (Some(_), Some(_)) => Claim::Disputed,
        }
    }

    /// Adds the primary's position to the history, which begins anew with each timeline and with
    /// each primary.
    fn remember_position(&mut self, timeline: Option<Timeline>) {
        let topology = &mut self.topology;
        let sampled = topology.primary.or(self.sampled);
        if topology.timeline != timeline || self.sampled != sampled {
            let history = std::mem::take(&mut topology.history);
            if let Some(left) = topology.timeline
                && topology.timeline != timeline
            {
                Arc::make_mut(&mut topology.switches).leave(left, history);
            }
        }
        topology.timeline = timeline;
        self.sampled = sampled;
        let primary = topology.primary.map(|primary| usize::from(primary.0));
        if let Some(look) = primary.and_then(|place| self.looks.get(place))
            && let Latest::Answered(seen, identity) = &look.latest
        {
            topology.geometry = identity.geometry;
            Arc::make_mut(&mut topology.history).push(Sample {
                started: seen.started,
                lsn: seen.lsn,
                clock: seen.clock,
            });
            if let (Some(timeline), Some(lsn)) = (seen.timeline, seen.branched_at)
                && !topology.switches.knows(timeline, lsn)
            {
                Arc::make_mut(&mut topology.switches).learn(timeline, lsn);
            }
        }
    }

    /// Replaces the nodes whose state has changed; `looked_at` always has.
    fn judge(&mut self, looked_at: NodeIndex, timeline: Option<Timeline>, claim: &Claim) {
        for (node, look) in self.topology.nodes.iter_mut().zip(&self.looks) {
            let excluded = match &look.latest {
                Latest::Answered(seen, identity) => {
                    objection(seen, identity, self.topology.system, timeline, claim)
                }
                Latest::Never | Latest::Failed { .. } => None,
            };
            let unchanged = match (&node.state, &excluded) {
                (NodeState::Excluded { reason, .. }, Some(other)) => **reason == **other,
                (NodeState::Excluded { .. }, None) | (_, Some(_)) => false,
                (_, None) => true,
            };
            if unchanged && node.index != looked_at {
                continue;
            }
            let node = Arc::make_mut(node);
            node.round_trip = look.median();
            node.furthest = look.furthest.map_or(Lsn::ZERO, |(_, lsn)| lsn);
            node.state = match (look.latest.clone(), excluded) {
                (Latest::Never, _) => NodeState::Unknown,
                (Latest::Failed { since, reason }, _) => NodeState::Down { since, reason },
                (Latest::Answered(observation, _), None) => NodeState::Up(observation),
                (Latest::Answered(observation, _), Some(reason)) => NodeState::Excluded {
                    observation,
                    reason: reason.into(),
                },
            };
        }
    }

    fn answers(&self) -> impl Iterator<Item = (NodeIndex, &Observation, &Identity)> {
        self.topology
            .nodes
            .iter()
            .zip(&self.looks)
            .filter_map(|(node, look)| match &look.latest {
                Latest::Answered(seen, identity) => Some((node.index, seen, identity)),
                Latest::Never | Latest::Failed { .. } => None,
            })
    }

    fn members(&self, system: Option<SystemId>) -> impl Iterator<Item = (NodeIndex, &Observation)> {
        self.answers()
            .filter(move |(_, _, identity)| Some(identity.system) == system)
            .map(|(node, seen, _)| (node, seen))
    }
}

impl Look {
    fn take(&mut self, outcome: Outcome) {
        self.latest = match outcome {
            Outcome::Failed { at, reason } => {
                let since = match self.latest {
                    Latest::Failed { since, .. } => since,
                    Latest::Never | Latest::Answered(..) => at,
                };
                Latest::Failed { since, reason }
            }
            Outcome::Answered {
                mut observation,
                following,
                identity,
            } => {
                if self.round_trips.len() == ROUND_TRIPS {
                    self.round_trips.pop_front();
                }
                self.round_trips.push_back(
                    observation
                        .finished
                        .saturating_duration_since(observation.started),
                );
                let timeline = self.timeline(&observation, following);
                observation.timeline = Some(timeline);
                if observation.role == Role::Primary {
                    observation.lsn = observation.lsn.normalised(identity.geometry);
                    self.furthest = None;
                } else {
                    let before = self.furthest.filter(|(on, _)| *on == timeline);
                    let lsn = before.map_or(observation.lsn, |(_, lsn)| lsn.max(observation.lsn));
                    self.furthest = Some((timeline, lsn));
                }
                Latest::Answered(observation, identity)
            }
        };
    }

    /// Between two restarts a node's timeline never falls, so what it streamed before still
    /// counts when it streams no more.
    fn timeline(&self, answer: &Observation, following: Following) -> Timeline {
        match (following, &self.latest) {
            (Following::Streams(timeline), _) => timeline,
            (Following::AtLeast(timeline), Latest::Answered(before, _))
                if before.connected == answer.connected =>
            {
                before
                    .timeline
                    .map_or(timeline, |known| known.max(timeline))
            }
            (Following::AtLeast(timeline), _) => timeline,
        }
    }

    fn median(&self) -> Option<Duration> {
        let mut sorted: Vec<Duration> = self.round_trips.iter().copied().collect();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied()
    }
}

/// Why a node that answers must not be used. The text says nothing that changes from probe to
/// probe.
fn objection(
    seen: &Observation,
    identity: &Identity,
    system: Option<SystemId>,
    timeline: Option<Timeline>,
    claim: &Claim,
) -> Option<String> {
    if Some(identity.system) != system {
        let expected = system.map_or_else(|| "none".to_owned(), |system| system.to_string());
        return Some(format!(
            "it belongs to another cluster: its system identifier is {}, the others' is {expected}",
            identity.system
        ));
    }
    let (own, newest) = (seen.timeline?, timeline?);
    match (seen.role, claim) {
        (Role::Primary, Claim::Disputed) if own == newest => Some(format!(
            "several nodes claim to be the primary on timeline {own}: \
             writes are refused until only one does"
        )),
        (Role::Primary, _) if own != newest => Some(format!(
            "it claims to be the primary on timeline {own}, which timeline {newest} has replaced"
        )),
        (Role::Replica, _) if own != newest => Some(format!(
            "it follows timeline {own}, the primary's is {newest}"
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
