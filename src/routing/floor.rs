//! The floor: the position that a session's next read must have reached.

use std::time::Instant;

use super::history::{History, UnixMillis};
use super::lsn::{Lsn, Position, Timeline, Xid};
use super::topology::{NodeIndex, Topology};

/// What the next read of a session must not be older than.
///
/// A floor has up to four parts, and a read must satisfy all of them: a position that is known
/// (the captured end of the last write, or a token), a moment after which the primary must have
/// been probed (when a capture was lost, or was not worth making), a time that the primary's clock
/// must have shown in a probe (when a write is known by its time only), and the replica that
/// answered last, whose position only a later probe can tell.
///
/// While such a moment is all that is known, a replica may answer all the same that shows the transaction
/// behind which it lies: what was seen before that had been committed earlier, and is replayed earlier.
///
/// The replica itself may go on answering: it never shows less than before. What it has shown is not
/// quite its position (see [`Observation::shown`](super::Observation::shown)), so its own reads and those
/// of others are bound apart until it has got further.
///
/// Every position of the primary that was sampled after a moment covers all that anybody had seen
/// on a replica up to that moment: a replica has only what the primary has sent. So whenever the
/// replica can no longer be asked, the moment takes its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Floor {
    lsn: Lsn,
    timeline: Option<Timeline>,
    primary_after: Option<Instant>,
    written: Option<Written>,
    clock_after: Option<UnixMillis>,
    last_replica: Option<Visit>,
    lost: Option<Lost>,
}

/// What a promotion has left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// What was written or seen up to this position exists no more.
    Position(Timeline, Lsn),
    /// What was written last, by this transaction if its number is known, may exist no more: where it lies was not
    /// known yet.
    Perhaps(Timeline, Option<Xid>),
}

/// What was committed last, on the floor's timeline, and has no known position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Written {
    /// The number of its transaction, if that was asked for.
    xid: Option<Xid>,
    /// It was committed by this moment.
    by: Instant,
    /// Nothing was written or seen since then but what has been committed before it: the floor's moment is this one.
    is_last: bool,
    /// A replica that has been seen to show it, through a connection that is older than the moment.
    shown_by: Option<NodeIndex>,
}

/// What a floor waits for before it is a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pending {
    Nothing,
    /// A probe of the primary that starts after this moment.
    Primary(Instant),
    /// A probe of the primary whose clock has reached a given time.
    Clock,
    /// A probe of this replica that starts after this moment.
    Replica(NodeIndex, Instant),
}

/// Reads on one replica that are more than its known position tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Visit {
    replica: NodeIndex,
    /// When the first of them ended.
    first: Instant,
    /// When the last of them ended.
    last: Instant,
    /// A position that covers all of them, once a probe has told one.
    shown: Option<Lsn>,
}

/// A floor reduced to what a gate compares with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// A replica that has replayed this position may answer.
    Reached(Lsn),
    /// A replica may answer once it has been seen to show this transaction.
    Shown(Timeline, Xid),
    /// Not known yet: only the primary may answer.
    OnlyPrimary,
}

impl Floor {
    /// A position from outside: a token's.
    pub fn at(lsn: Lsn, timeline: Timeline) -> Floor {
        Floor {
            lsn,
            timeline: Some(timeline),
            ..Floor::default()
        }
    }

    /// Raises the floor to a position that was captured on `timeline`, on the primary, after all
    /// that this session has written and seen so far. A newer timeline than before takes the
    /// place of an older one's position; an older one, or none, counts as the one the floor was
    /// last settled on, which can make it too high and never too low. What was pending lies below.
    pub fn raise(&mut self, lsn: Lsn, timeline: Option<Timeline>) {
        if timeline >= self.timeline {
            self.primary_after = None;
            self.written = None;
            self.last_replica = None;
        }
        if timeline > self.timeline {
            self.timeline = timeline;
            self.lsn = lsn;
        } else {
            self.lsn = self.lsn.max(lsn);
        }
    }

    /// As [`raise`](Floor::raise), for a position that may have been overtaken by a promotion: then it
    /// is carried over to the new timeline first.
    pub fn capture(
        &mut self,
        lsn: Lsn,
        timeline: Option<Timeline>,
        topology: &Topology,
        now: Instant,
    ) {
        match timeline {
            Some(old) if timeline < self.timeline => {
                let mut late = Floor::at(lsn, old);
                late.settle(topology, now);
                self.merge(&late);
            }
            _ => self.raise(lsn, timeline),
        }
    }

    /// Something was written or seen on the primary whose position is not known: the floor is
    /// what a probe finds there that starts after `moment`. That covers what was seen on a
    /// replica before.
    pub fn raise_to_primary_after(&mut self, moment: Instant) {
        self.primary_after = self.primary_after.max(Some(moment));
        if let Some(written) = &mut self.written {
            written.is_last = false;
        }
        if self.last_replica.is_some_and(|visit| visit.last <= moment) {
            self.last_replica = None;
        }
    }

    /// As [`raise_to_primary_after`](Floor::raise_to_primary_after), where the last that the session has done on the primary
    /// is to commit what it has written, on `timeline` by `moment`, with this number if it is known. If that timeline has been
    /// left by a promotion since, the number says nothing any more.
    pub fn raise_to_write(
        &mut self,
        xid: Option<Xid>,
        timeline: Option<Timeline>,
        moment: Instant,
    ) {
        self.raise_to_primary_after(moment);
        match timeline {
            Some(_) if timeline == self.timeline => {
                self.written = Some(Written {
                    xid,
                    by: moment,
                    is_last: true,
                    shown_by: None,
                });
            }
            Some(old) if timeline < self.timeline => self.lost = Some(Lost::Perhaps(old, xid)),
            _ => {}
        }
    }

    /// `replica` shows the transaction, as it has said on `timeline` through a connection that was opened at
    /// `connected`. That counts only if it was before the moment: a connection that is seen later and is older than the
    /// moment too is the same one, and the replica has not restarted in between. True if it counts.
    pub fn is_shown(
        &mut self,
        xid: Xid,
        timeline: Timeline,
        replica: NodeIndex,
        connected: Instant,
    ) -> bool {
        let Some(written) = &mut self.written else {
            return false;
        };
        let counts =
            self.timeline == Some(timeline) && written.xid == Some(xid) && connected <= written.by;
        if counts {
            written.shown_by = Some(replica);
        }
        counts
    }

    /// Something was written at `clock`, by the primary's clock, in a way that nobody here has
    /// seen: the floor is what a probe finds there when the clock has got that far.
    pub fn raise_to_clock(&mut self, clock: UnixMillis) {
        self.clock_after = self.clock_after.max(Some(clock));
    }

    /// Raises the floor to all that `other` demands. Both must have been settled with the same
    /// topology.
    pub fn merge(&mut self, other: &Floor) {
        self.timeline = self.timeline.max(other.timeline);
        self.lsn = self.lsn.max(other.lsn);
        self.clock_after = self.clock_after.max(other.clock_after);
        self.lost = self.lost.or(other.lost);
        if let Some(moment) = other.primary_after {
            self.raise_to_primary_after(moment);
        }
        if let Some(theirs) = other.last_replica {
            let mine = self.last_replica;
            self.saw_replica(theirs.replica, theirs.last);
            if let Some(visit) = &mut self.last_replica {
                visit.first = visit.first.min(theirs.first);
                visit.shown = match mine {
                    Some(mine) if mine.replica == theirs.replica => mine
                        .shown
                        .zip(theirs.shown)
                        .map(|(one, other)| one.max(other)),
                    Some(_) | None => theirs.shown,
                };
            }
        }
    }

    /// A read ended on `replica` at `moment`; a read elsewhere must not be older.
    pub fn saw_replica(&mut self, replica: NodeIndex, moment: Instant) {
        let mut first = moment;
        if let Some(visit) = self.last_replica {
            match visit.shown {
                _ if visit.replica == replica => first = visit.first,
                Some(lsn) => self.lsn = self.lsn.max(lsn),
                None => self.raise_to_primary_after(visit.last),
            }
        }
        let last = self.last_replica.map_or(moment, |visit| visit.last);
        self.last_replica = Some(Visit {
            replica,
            first,
            last: moment.max(last),
            shown: None,
        });
    }

    /// As [`saw_replica`](Floor::saw_replica), where the replica has told behind the read that it has `replayed`
    /// so much, and a position that covers what it has `shown`. Call [`settle`](Floor::settle) first.
    pub fn saw_position(&mut self, replica: NodeIndex, replayed: Lsn, shown: Lsn, moment: Instant) {
        self.saw_replica(replica, moment);
        self.lsn = self.lsn.max(replayed);
        self.last_replica = self
            .last_replica
            .filter(|_| replayed < shown)
            .map(|visit| Visit {
                shown: Some(shown),
                ..visit
            });
    }

    /// The replica that answered last, while a read elsewhere would have to wait for its position.
    pub fn last_replica(&self) -> Option<NodeIndex> {
        let visit = self.last_replica.filter(|visit| visit.shown.is_none())?;
        Some(visit.replica)
    }

    /// What has to be found out before [`lsn`](Floor::lsn) is the whole floor. Call
    /// [`settle`](Floor::settle) first.
    pub fn pending(&self) -> Pending {
        match (self.primary_after, self.clock_after, self.last_replica) {
            (Some(moment), _, _) => Pending::Primary(moment),
            (None, Some(_), _) => Pending::Clock,
            (None, None, Some(visit)) if visit.shown.is_none() => {
                Pending::Replica(visit.replica, visit.last)
            }
            (None, None, _) => Pending::Nothing,
        }
    }

    /// Tells once that a failover has lost what this floor stood for.
    pub fn take_lost(&mut self) -> Option<Lost> {
        self.lost.take()
    }

    /// What has been written and seen, without what the client has only told of.
    pub fn sight(&self) -> Floor {
        Floor {
            clock_after: None,
            written: None,
            lost: None,
            ..*self
        }
    }

    /// The known position as it travels; none if the cluster is not known.
    pub fn position(&self, topology: &Topology) -> Option<Position> {
        Some(Position {
            system: topology.system?,
            timeline: self.timeline.or(topology.timeline)?,
            lsn: self.lsn(),
        })
    }

    /// The timeline that it was settled on last, or that its position was captured on.
    pub fn timeline(&self) -> Option<Timeline> {
        self.timeline
    }

    /// The known position; the whole floor only where nothing is pending.
    pub fn lsn(&self) -> Lsn {
        let shown = self.last_replica.and_then(|visit| visit.shown);
        shown.map_or(self.lsn, |lsn| lsn.max(self.lsn))
    }

    /// Folds in what the topology has learned since, and carries a position of another timeline
    /// over to the topology's.
    pub fn settle(&mut self, topology: &Topology, now: Instant) {
        if topology.timeline != self.timeline {
            self.remember_what_was_seen(topology);
            self.doubt_what_was_written(topology);
            if self.lsn > Lsn::ZERO {
                self.change_timeline(topology, now);
            }
            self.timeline = topology.timeline;
        }
        self.settle_last_replica(topology);
        self.settle_written(topology);
        if let Some(clock) = self.clock_after
            && let Some(sample) = topology.history.first_past_clock(clock)
        {
            self.clock_after = None;
            self.lsn = self.lsn.max(sample.lsn);
        }
        if let Some(written) = self.written
            && let Some(lsn) = position_after(&topology.history, written.by)
        {
            self.written = None;
            self.lsn = self.lsn.max(lsn);
        }
        if let Some(moment) = self.primary_after
            && let Some(lsn) = position_after(&topology.history, moment)
        {
            self.primary_after = None;
            self.lsn = self.lsn.max(lsn);
        }
    }

    /// What was written or seen on the old primary has no known position, but one that the primary had
    /// reached by then is known: if that is lost, so is what was seen.
    fn remember_what_was_seen(&mut self, topology: &Topology) {
        if let (Some(timeline), Some(moment)) = (self.timeline, self.primary_after)
            && let Some(lsn) = topology.switches.reached(timeline, moment)
        {
            self.lsn = self.lsn.max(lsn);
        }
    }

    /// What was written on the old timeline and has no known position: its number may be another's on the
    /// new one. It is there if a node shows it that has followed the promotion, or if the old primary was probed
    /// since, below where the new timeline began.
    fn doubt_what_was_written(&mut self, topology: &Topology) {
        self.settle_written(topology);
        let Some(written) = self.written.take() else {
            return;
        };
        let (Some(old), Some(new)) = (self.timeline, topology.timeline) else {
            return;
        };
        let covers = topology.switches.covers(old, written.by);
        match (covers, topology.switches.common(old, new)) {
            (Some(covers), Some(common)) if covers <= common => {
                self.primary_after = self.primary_after.filter(|_| !written.is_last);
                self.lsn = self.lsn.max(covers);
            }
            _ if written.shown_by.is_none() => {
                self.lost = Some(Lost::Perhaps(old, written.xid));
            }
            _ => {}
        }
    }

    /// The node that shows the transaction counts as long as it may be used and has not restarted.
    fn settle_written(&mut self, topology: &Topology) {
        if let Some(written) = &mut self.written
            && let Some(node) = written.shown_by
        {
            let node = topology.nodes.get(usize::from(node.0));
            let seen = node.and_then(|node| node.observation());
            if seen.is_none_or(|seen| seen.connected > written.by) {
                written.shown_by = None;
            }
        }
    }

    /// Where the new timeline has the log up to the position, the position stays good. Where it
    /// branched off before, the rest is lost, and all that is left of it lies at the switch. Where
    /// that is not known, what survived is on the new primary by the next probe.
    fn change_timeline(&mut self, topology: &Topology, now: Instant) {
        let common = match (self.timeline, topology.timeline) {
            (Some(old), Some(new)) => topology.switches.common(old, new),
            _ => None,
        };
        match (common, self.timeline) {
            (Some(common), _) if self.lsn <= common => {}
            (Some(common), Some(timeline)) => {
                let lsn = std::mem::replace(&mut self.lsn, common);
                self.lost = Some(Lost::Position(timeline, lsn));
            }
            _ => {
                self.lsn = Lsn::ZERO;
                self.raise_to_primary_after(now);
            }
        }
    }

    /// The replica's position counts only if the node has not restarted between the first read and
    /// the probe: replay may begin again below what was read.
    fn settle_last_replica(&mut self, topology: &Topology) {
        let Some(visit) = self.last_replica else {
            return;
        };
        let node = topology.nodes.get(usize::from(visit.replica.0));
        let seen = node.and_then(|node| node.observation());
        let Some(seen) = seen.filter(|seen| seen.connected <= visit.first) else {
            self.raise_to_primary_after(visit.last);
            return;
        };
        if seen.started <= visit.last {
            return;
        }
        let Some(shown) = seen.shown() else {
            self.raise_to_primary_after(visit.last);
            return;
        };
        let shown = visit.shown.map_or(shown, |known| known.min(shown));
        if seen.lsn >= shown {
            self.last_replica = None;
            self.lsn = self.lsn.max(shown);
        } else {
            self.lsn = self.lsn.max(seen.lsn);
            self.last_replica = Some(Visit {
                shown: Some(shown),
                ..visit
            });
        }
    }

    /// What a read on `node` must have reached. Call [`settle`](Floor::settle) first.
    pub fn bound_for(&self, node: NodeIndex) -> Bound {
        let lsn = match (self.clock_after, self.last_replica) {
            (Some(_), _) => return Bound::OnlyPrimary,
            (None, Some(visit)) if visit.replica == node => self.lsn,
            (None, Some(visit)) if visit.shown.is_none() => return Bound::OnlyPrimary,
            (None, _) => self.lsn(),
        };
        let last = self.written.filter(|written| written.is_last);
        let xid = last.and_then(|last| last.xid);
        match (self.primary_after, last, xid, self.timeline) {
            (None, ..) => Bound::Reached(lsn),
            (_, Some(last), ..) if last.shown_by == Some(node) => Bound::Reached(lsn),
            (_, _, Some(xid), Some(timeline)) => Bound::Shown(timeline, xid),
            _ => Bound::OnlyPrimary,
        }
    }
}

fn position_after(history: &History, moment: Instant) -> Option<Lsn> {
    history.first_started_after(moment).map(|sample| sample.lsn)
}

#[cfg(test)]
mod tests;
