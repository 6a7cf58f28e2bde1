//! Where the primary was, and when: the samples that turn a position into an age.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::lsn::Lsn;

/// At most this many samples are kept.
pub const CAPACITY: usize = 512;

/// A time of the day by somebody's clock: milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixMillis(pub u64);

/// One look at the primary: `lsn` was reached at some moment after `started`, and after the
/// primary's own clock had shown `clock`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    pub started: Instant,
    pub lsn: Lsn,
    pub clock: Option<UnixMillis>,
}

/// Samples of the primary's position, oldest first, both parts always rising.
///
/// A sample says: what was committed before `started` ends at or before `lsn`. One that started
/// later at the same or a lower position says more, so it takes the place of the others. The
/// position falls when the primary restarts and has lost WAL that was never flushed.
///
/// When it is full every second of the older half is dropped: the past is kept at a coarser grain
/// instead of being forgotten, and every answer stays on the safe side (an age is never
/// understated, a position never too low). All samples are of one timeline of one primary; whoever
/// pushes begins a new history when either changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    samples: VecDeque<Sample>,
}

impl History {
    /// Adds a sample; one that started no later than the newest is ignored.
    pub fn push(&mut self, sample: Sample) {
        if self
            .samples
            .back()
            .is_some_and(|newest| sample.started <= newest.started)
        {
            return;
        }
        while self
            .samples
            .back()
            .is_some_and(|newest| sample.lsn <= newest.lsn)
        {
            self.samples.pop_back();
        }
        if self.samples.len() == CAPACITY {
            let mut place = 0;
            self.samples.retain(|_| {
                place += 1;
                place > CAPACITY / 2 || place % 2 == 1
            });
        }
        self.samples.push_back(sample);
    }

    /// The newest sample.
    pub fn newest(&self) -> Option<Sample> {
        self.samples.back().copied()
    }

    /// The first sample that was started after `moment`.
    pub fn first_started_after(&self, moment: Instant) -> Option<Sample> {
        let place = self
            .samples
            .partition_point(|sample| sample.started <= moment);
        self.samples.get(place).copied()
    }

    /// The last sample that was started at `moment` or before.
    pub fn last_started_by(&self, moment: Instant) -> Option<Sample> {
        let place = self
            .samples
            .partition_point(|sample| sample.started <= moment);
        self.samples.get(place.checked_sub(1)?).copied()
    }

    /// A sample that covers all that was committed when the primary's clock had not gone past
    /// `clock`: the one behind the last that was taken before that. Clocks are set back now and
    /// then; samples are in the order in which they were taken.
    pub fn first_past_clock(&self, clock: UnixMillis) -> Option<Sample> {
        let before = |sample: &Sample| sample.clock < Some(clock);
        let place = self.samples.iter().rposition(before);
        self.samples
            .get(place.map_or(0, |place| place + 1))
            .copied()
    }

    /// What the primary's clock showed when it was looked at last.
    pub fn newest_clock(&self) -> Option<UnixMillis> {
        self.newest().and_then(|sample| sample.clock)
    }

    /// How old at the most a state at `lsn` is: the time since the newest sample that it covers.
    /// None when it is older than everything kept.
    pub fn staleness(&self, lsn: Lsn, now: Instant) -> Option<Duration> {
        let covered = self.samples.partition_point(|sample| sample.lsn <= lsn);
        let newest_covered = self.samples.get(covered.checked_sub(1)?)?;
        Some(now.saturating_duration_since(newest_covered.started))
    }
}

#[cfg(test)]
mod tests;
