//! The selection: which of the nodes that may answer should.

use std::sync::Arc;
use std::time::Duration;

use super::gate::{PrimaryReason, Verdict};
use super::lsn::Mark;
use super::patience::Patience;
use super::topology::{Node, NodeIndex, NodeSet, Topology};

/// Where a read goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// To this replica, now.
    Replica(NodeIndex),
    /// To the primary, now.
    Primary(PrimaryReason),
    /// To this replica when it has what `mark` says; if that takes longer than `at_most`, choose
    /// again without waiting.
    Wait {
        replica: NodeIndex,
        mark: Mark,
        at_most: Duration,
    },
}

/// What becomes of a read when every replica that could answer it is behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnLag {
    /// It waits for one as long as going to the primary would take, and then goes there.
    #[default]
    Primary,
    /// It waits for one as long as it may, and only then goes to the primary.
    Wait,
    /// It waits for one as long as it may, and then fails.
    Error,
}

/// What the session prefers and knows beyond the topology.
#[derive(Clone, Copy, Debug)]
pub struct Preference<'a> {
    /// Nodes of this region come before all others.
    pub region: Option<&'a str>,
    /// The replica that answered last: staying there is free.
    pub stay_on: Option<NodeIndex>,
    /// The longest wait for a replica; zero does not wait.
    pub max_wait: Duration,
    pub on_lag: OnLag,
    /// How long replicas have taken lately.
    pub patience: &'a Patience,
    /// A number from which the two candidates are drawn, and who waits against the odds.
    pub random: u64,
}

impl Preference<'_> {
    /// Whether to wait for `replica` where going elsewhere costs `cost`. It answers the same as
    /// often as it is asked.
    pub fn is_worth(&self, replica: NodeIndex, cost: Duration) -> bool {
        // Bits on which the draw hardly depends.
        self.patience.is_worth(replica, cost, self.random >> 28)
    }
}

/// Nodes within a quarter, or this much, of the nearest count as equally near.
const BAND_FLOOR: Duration = Duration::from_millis(1);

/// Chooses among the nodes that the gate lets through.
///
/// A fresh replica that is as near as anything wins, the least loaded of two drawn at random
/// (`load` gives servers in use per node). A primary nearer than every replica wins over them.
/// Where the near replicas are all behind, waiting is worth at most what going elsewhere costs, and
/// one that has been slow lately is passed over for another that has not.
pub fn select(
    verdict: Verdict,
    topology: &Topology,
    preference: &Preference<'_>,
    load: impl Fn(NodeIndex) -> usize,
) -> Choice {
    let distance = |index: NodeIndex| distance(topology.node(index), preference.region);
    let nearest = |nodes: NodeSet| nodes.iter().map(distance).min();
    let primary = topology.primary.map(distance);
    let (fresh, behind, mark) = match verdict {
        // Whatever comes to be known of the floor, it would have gone there.
        Verdict::Primary(PrimaryReason::FloorUnknown)
            if is_nearer(primary, nearest(usable(topology))) =>
        {
            return Choice::Primary(PrimaryReason::Nearest);
        }
        Verdict::Primary(reason) => return Choice::Primary(reason),
        Verdict::Replicas {
            fresh,
            behind,
            mark,
        } => (fresh, behind, mark),
    };
    // Those of `nodes` that are as near as the nearest of them.
    let near = |nodes: NodeSet, nearest: Distance| -> NodeSet {
        let is_near = |index: &NodeIndex| distance(*index).as_near_as(nearest);
        nodes.iter().filter(is_near).collect()
    };
    let pick = |nodes: NodeSet| draw(nodes, topology, preference, &load);
    let (fresh_best, behind_best) = (nearest(fresh), nearest(behind));
    let Some(best) = [fresh_best, behind_best, primary]
        .into_iter()
        .flatten()
        .min()
    else {
        return Choice::Primary(PrimaryReason::NoReplica);
    };
    let is_near = |distance: Option<Distance>| distance.is_some_and(|d| d.as_near_as(best));

    if is_near(fresh_best) {
        return Choice::Replica(pick(near(fresh, best)));
    }
    if is_near(primary) && !is_near(behind_best) {
        return Choice::Primary(PrimaryReason::Nearest);
    }
    let (elsewhere, go) = match (fresh_best, primary) {
        (Some(fresh_best), primary) if primary.is_none_or(|primary| fresh_best <= primary) => (
            Some(fresh_best),
            Choice::Replica(pick(near(fresh, fresh_best))),
        ),
        (_, primary) => (primary, Choice::Primary(PrimaryReason::Lag)),
    };
    let stays = preference.on_lag != OnLag::Primary && matches!(go, Choice::Primary(_));
    match behind_best {
        Some(nearest) if stays || elsewhere.is_none_or(|elsewhere| nearest < elsewhere) => {
            let cost = match (stays, elsewhere) {
                (false, Some(elsewhere)) => elsewhere.round_trip,
                (true, _) | (_, None) => Duration::MAX,
            };
            let at_most = cost.min(preference.max_wait);
            if at_most.is_zero() {
                return go;
            }
            let candidates = near(behind, nearest);
            let is_worth = |index: &NodeIndex| preference.is_worth(*index, at_most);
            let hopeful: NodeSet = candidates.iter().filter(is_worth).collect();
            Choice::Wait {
                replica: pick(match hopeful.is_empty() {
                    true => candidates,
                    false => hopeful,
                }),
                mark,
                at_most,
            }
        }
        _ => go,
    }
}

/// The replicas that a read may go to at all.
fn usable(topology: &Topology) -> NodeSet {
    let usable = |node: &&Arc<Node>| node.weight > 0 && node.observation().is_some();
    let replicas = topology.replicas().filter(usable);
    replicas.map(|node| node.index).collect()
}

/// The primary wins over every replica, however fresh.
fn is_nearer(primary: Option<Distance>, replica: Option<Distance>) -> bool {
    match (primary, replica) {
        (Some(primary), Some(replica)) => primary < replica && !replica.as_near_as(primary),
        (Some(_), None) => true,
        (None, _) => false,
    }
}

/// How far a node is: another region is further than any round trip within the preferred one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Distance {
    other_region: bool,
    round_trip: Duration,
}

impl Distance {
    fn as_near_as(self, best: Distance) -> bool {
        let band = best
            .round_trip
            .saturating_add(BAND_FLOOR.max(best.round_trip / 4));
        self.other_region == best.other_region && self.round_trip <= band
    }
}

fn distance(node: &Node, region: Option<&str>) -> Distance {
    Distance {
        other_region: region.is_some() && node.region.as_deref() != region,
        round_trip: node.round_trip.unwrap_or(Duration::MAX),
    }
}

fn draw(
    nodes: NodeSet,
    topology: &Topology,
    preference: &Preference<'_>,
    load: &impl Fn(NodeIndex) -> usize,
) -> NodeIndex {
    if let Some(stay) = preference.stay_on
        && nodes.contains(stay)
    {
        return stay;
    }
    let total: u64 = nodes
        .iter()
        .map(|index| u64::from(topology.node(index).weight))
        .sum();
    let pick = |random: u64| {
        let mut rest = random % total.max(1);
        nodes
            .iter()
            .find(|index| {
                let weight = u64::from(topology.node(*index).weight);
                let found = rest < weight;
                rest = rest.saturating_sub(weight);
                found
            })
            .unwrap_or(NodeIndex(nodes.0.trailing_zeros() as u8))
    };
    let first = pick(preference.random & 0xFFFF_FFFF);
    let second = pick(preference.random >> 32);
    if load(second) < load(first) {
        second
    } else {
        first
    }
}

#[cfg(test)]
mod tests;
