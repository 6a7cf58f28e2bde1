//! What a position that was presented from outside is worth in this cluster, now.

use super::floor::Floor;
use super::lsn::{Lsn, Position, SystemId, Timeline};
use super::topology::Topology;

/// Why a position is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("it belongs to another cluster: its system identifier is {given}, ours is {ours}")]
    Foreign { given: SystemId, ours: SystemId },
    /// Nobody can have seen it.
    #[error("it is at {given}, and the primary was at {newest} when it was looked at last")]
    Ahead { given: Lsn, newest: Lsn },
}

/// What must be found out before a position can be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// No node has told which cluster this is.
    Cluster,
    /// The primary's timeline is older than the position's, or not known.
    Timeline(Timeline),
}

/// What becomes of a presented position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Fold it into the session's floor. Whether it was lost in a failover is found out there.
    Accept(Floor),
    Refuse(Refused),
    /// Look again when this is known.
    Later(Unknown),
}

impl Topology {
    /// Judges `position`. One that is on the primary's timeline may be ahead of its newest known
    /// position by `max_ahead_bytes`: that one is some moments old.
    pub fn judge(&self, position: Position, max_ahead_bytes: u64) -> Judgement {
        let Some(ours) = self.system else {
            return Judgement::Later(Unknown::Cluster);
        };
        if position.system != ours {
            return Judgement::Refuse(Refused::Foreign {
                given: position.system,
                ours,
            });
        }
        if Some(position.timeline) > self.timeline {
            return Judgement::Later(Unknown::Timeline(position.timeline));
        }
        let lsn = position.lsn.normalised(self.geometry);
        let newest = self.history.newest().map(|sample| sample.lsn);
        if let Some(newest) = newest
            && Some(position.timeline) == self.timeline
            && lsn.bytes_since(newest) > max_ahead_bytes
        {
            return Judgement::Refuse(Refused::Ahead {
                given: position.lsn,
                newest,
            });
        }
        Judgement::Accept(Floor::at(lsn, position.timeline))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{node, primary, topology};
    use super::*;

    #[test]
    fn positions_are_judged_by_cluster_timeline_and_distance() {
        let here = |system, timeline| {
            let mut topology = topology([node(0, primary(900, 0))], &[(0, 900)]);
            topology.system = system;
            topology.timeline = timeline;
            topology
        };
        let (ours, t1, t2) = (Some(SystemId(1)), Some(Timeline(1)), Some(Timeline(2)));
        let accept = |lsn, timeline| Judgement::Accept(Floor::at(Lsn(lsn), Timeline(timeline)));
        let later = |timeline| Judgement::Later(Unknown::Timeline(Timeline(timeline)));
        let foreign = Judgement::Refuse(Refused::Foreign {
            given: SystemId(2),
            ours: SystemId(1),
        });
        let ahead = |lsn| {
            Judgement::Refuse(Refused::Ahead {
                given: Lsn(lsn),
                newest: Lsn(900),
            })
        };
        let table = [
            (here(ours, t1), (1, 1, 500), accept(500, 1)),
            (here(ours, t1), (1, 1, 1000), accept(1000, 1)),
            (here(ours, t1), (1, 1, 1001), ahead(1001)),
            (here(ours, t1), (1, 1, u64::MAX), ahead(u64::MAX)),
            (here(ours, t1), (2, 1, 500), foreign),
            (here(ours, t1), (2, 9, u64::MAX), foreign),
            (here(ours, t1), (1, 2, 500), later(2)),
            (here(ours, None), (1, 1, 500), later(1)),
            (
                here(None, t1),
                (1, 1, 500),
                Judgement::Later(Unknown::Cluster),
            ),
            // How far the old timeline went nobody can tell by the new one's position.
            (here(ours, t2), (1, 1, 5000), accept(5000, 1)),
            // A page's header does not count.
            (here(ours, t1), (1, 1, 8192 + 24), ahead(8192 + 24)),
        ];
        for (topology, (system, timeline, lsn), expected) in table {
            let position = Position {
                system: SystemId(system),
                timeline: Timeline(timeline),
                lsn: Lsn(lsn),
            };
            assert_eq!(topology.judge(position, 100), expected, "{position:?}");
        }
    }
}
