//! The floor: the position that a session's next read must have reached.

use std::time::Instant;

use super::history::History;
use super::lsn::{Lsn, Timeline};
use super::topology::{NodeIndex, Topology};

/// What the next read of a session must not be older than.
///
/// A floor has up to three parts, and a read must satisfy all of them: a position that is known
/// (the captured end of the last write), a moment after which the primary must have been probed
/// (when a capture was lost, or was not worth making), and the replica that answered last, whose
/// position only a later probe can tell.
///
/// Every position of the primary that was sampled after a moment covers all that anybody had seen
/// on a replica up to that moment: a replica has only what the primary has sent. So whenever the
/// replica can no longer be asked, the moment takes its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Floor {
    lsn: Lsn,
    timeline: Option<Timeline>,
    primary_after: Option<Instant>,
    last_replica: Option<Visit>,
}

/// Reads on one replica whose position is not known yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Visit {
    replica: NodeIndex,
    /// When the first of them ended.
    first: Instant,
    /// When the last of them ended.
    last: Instant,
}

/// A floor reduced to what a gate compares with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// A replica that has replayed this position may answer.
    Reached(Lsn),
    /// Not known yet: only the primary may answer.
    OnlyPrimary,
}

impl Floor {
    /// Raises the floor to a position that was captured on `timeline`, on the primary, after all
    /// that this session has written and seen so far. A newer timeline than before takes the
    /// place of an older one's position; an older one, or none, counts as the one the floor was
    /// last settled on, which can make it too high and never too low. What was pending lies below.
    pub fn raise(&mut self, lsn: Lsn, timeline: Option<Timeline>) {
        if timeline >= self.timeline {
            self.primary_after = None;
            self.last_replica = None;
        }
        if timeline > self.timeline {
            self.timeline = timeline;
            self.lsn = lsn;
        } else {
            self.lsn = self.lsn.max(lsn);
        }
    }

    /// Something was written or seen on the primary whose position is not known: the floor is
    /// what a probe finds there that starts after `moment`. That covers what was seen on a
    /// replica before.
    pub fn raise_to_primary_after(&mut self, moment: Instant) {
        self.primary_after = self.primary_after.max(Some(moment));
        if self.last_replica.is_some_and(|visit| visit.last <= moment) {
            self.last_replica = None;
        }
    }

    /// A read ended on `replica` at `moment`; a read elsewhere must not be older.
    pub fn saw_replica(&mut self, replica: NodeIndex, moment: Instant) {
        let mut first = moment;
        if let Some(visit) = self.last_replica {
            if visit.replica == replica {
                first = visit.first;
            } else {
                self.raise_to_primary_after(visit.last);
            }
        }
        self.last_replica = Some(Visit {
            replica,
            first,
            last: moment,
        });
    }

    /// The replica that answered last, while a read elsewhere would have to wait for its position.
    pub fn last_replica(&self) -> Option<NodeIndex> {
        self.last_replica.map(|visit| visit.replica)
    }

    /// The known position; the whole floor only where nothing is pending.
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// Folds in what the topology has learned since, and forgets a position of another timeline
    /// than the topology's: what survived a promotion is on the new primary by the next probe.
    pub fn settle(&mut self, topology: &Topology, now: Instant) {
        if topology.timeline != self.timeline {
            if self.lsn > Lsn::ZERO {
                self.lsn = Lsn::ZERO;
                self.raise_to_primary_after(now);
            }
            self.timeline = topology.timeline;
        }
        self.settle_last_replica(topology);
        if let Some(moment) = self.primary_after
            && let Some(lsn) = position_after(&topology.history, moment)
        {
            self.primary_after = None;
            self.lsn = self.lsn.max(lsn);
        }
    }

    /// The replica's position counts only if the node has not restarted between the first read and
    /// the probe: replay may begin again below what was read.
    fn settle_last_replica(&mut self, topology: &Topology) {
        let Some(visit) = self.last_replica else {
            return;
        };
        let node = topology.nodes.get(usize::from(visit.replica.0));
        match node.and_then(|node| node.observation()) {
            Some(seen) if seen.connected <= visit.first => {
                if seen.started > visit.last {
                    self.last_replica = None;
                    self.lsn = self.lsn.max(seen.lsn);
                }
            }
            Some(_) | None => self.raise_to_primary_after(visit.last),
        }
    }

    /// What a read on `node` must have reached. Call [`settle`](Floor::settle) first.
    pub fn bound_for(&self, node: NodeIndex) -> Bound {
        match (self.primary_after, self.last_replica) {
            (Some(_), _) => Bound::OnlyPrimary,
            (None, Some(visit)) if visit.replica != node => Bound::OnlyPrimary,
            _ => Bound::Reached(self.lsn),
        }
    }
}

fn position_after(history: &History, moment: Instant) -> Option<Lsn> {
    history.first_started_after(moment).map(|sample| sample.lsn)
}

#[cfg(test)]
mod tests;
