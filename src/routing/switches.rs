//! Where timelines end: what a promotion has left behind.

use std::sync::Arc;
use std::time::Instant;

use super::history::History;
use super::lsn::{Lsn, Timeline};

/// The positions at which timelines branched off, as far as they have been seen.
///
/// A promoted primary goes on telling the last position that it replayed as a replica: there its
/// timeline begins, and there the one before it ends. After a crash it tells a later position,
/// so of several answers the lowest counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Switches {
    /// A timeline and where it began, by timeline.
    began: Vec<(Timeline, Lsn)>,
    /// The timelines before the present one, the last one last, and where the primary was on them over time.
    left: Vec<(Timeline, Arc<History>)>,
}

/// So many promotions are remembered.
const CAPACITY: usize = 64;

/// Of so many, where the primary was over time.
const HISTORIES: usize = 4;

impl Switches {
    /// `timeline` was seen to have begun at `lsn`, or earlier.
    pub fn learn(&mut self, timeline: Timeline, lsn: Lsn) {
        match self
            .began
            .binary_search_by_key(&timeline, |(known, _)| *known)
        {
            Ok(place) => self.began[place].1 = self.began[place].1.min(lsn),
            Err(place) => {
                self.began.insert(place, (timeline, lsn));
                if self.began.len() > CAPACITY {
                    self.began.remove(0);
                }
            }
        }
    }

    /// The primary writes `timeline` no longer.
    pub fn leave(&mut self, timeline: Timeline, history: Arc<History>) {
        self.left.retain(|(left, _)| *left != timeline);
        self.left.push((timeline, history));
        if self.left.len() > HISTORIES {
            self.left.remove(0);
        }
    }

    /// A position that the primary had reached on `timeline` at `moment`, if that was one of the last
    /// timelines: whoever read there then has seen as much.
    pub fn reached(&self, timeline: Timeline, moment: Instant) -> Option<Lsn> {
        let sample = self.history(timeline)?.last_started_by(moment)?;
        Some(sample.lsn)
    }

    /// A position that covers all that had been committed on `timeline` by `moment`, if that was one of the last
    /// timelines and the primary was probed since then.
    pub fn covers(&self, timeline: Timeline, moment: Instant) -> Option<Lsn> {
        let sample = self.history(timeline)?.first_started_after(moment)?;
        Some(sample.lsn)
    }

    fn history(&self, timeline: Timeline) -> Option<&History> {
        let (_, history) = self.left.iter().find(|(left, _)| *left == timeline)?;
        Some(history)
    }

    /// The position on `old` up to which `new`, a later timeline, has the same log; none if no
    /// promotion between the two was seen. If only some were, it may be too high.
    pub fn common(&self, old: Timeline, new: Timeline) -> Option<Lsn> {
        let between = |(timeline, _): &&(Timeline, Lsn)| old < *timeline && *timeline <= new;
        let switches = self.began.iter().filter(between);
        switches.map(|(_, lsn)| *lsn).min()
    }

    /// `timeline` is known to have begun at `lsn` or before, and nothing would be learned.
    pub fn knows(&self, timeline: Timeline, lsn: Lsn) -> bool {
        let known = |(known, began): &(Timeline, Lsn)| *known == timeline && *began <= lsn;
        self.began.iter().any(known)
    }
}

#[cfg(test)]
mod tests {
    use super::super::history::Sample;
    use super::*;

    #[test]
    fn a_timeline_is_common_up_to_the_first_switch_away_from_it() {
        let mut switches = Switches::default();
        for (timeline, lsn) in [(4, 400), (2, 200), (2, 250), (3, 300)] {
            switches.learn(Timeline(timeline), Lsn(lsn));
        }
        let table = [
            (1, 2, Some(200)),
            (1, 4, Some(200)),
            (2, 4, Some(300)),
            (3, 4, Some(400)),
            (2, 3, Some(300)),
            (4, 4, None),
            (4, 5, None),
            (3, 5, Some(400)),
        ];
        for (old, new, expected) in table {
            let common = switches.common(Timeline(old), Timeline(new));
            assert_eq!(common, expected.map(Lsn), "from {old} to {new}");
        }
        assert!(switches.knows(Timeline(2), Lsn(200)) && switches.knows(Timeline(2), Lsn(900)));
        assert!(!switches.knows(Timeline(2), Lsn(199)) && !switches.knows(Timeline(5), Lsn(1)));
    }

    #[test]
    fn where_the_primary_was_is_known_of_the_last_timelines() {
        let now = Instant::now();
        let at = |ms| now + std::time::Duration::from_millis(ms);
        let mut switches = Switches::default();
        for timeline in 1..=5 {
            let mut history = History::default();
            for (ms, lsn) in [(10, 100), (20, 200)] {
                history.push(Sample {
                    started: at(ms),
                    lsn: Lsn(u64::from(timeline) * 1_000 + lsn),
                    clock: None,
                });
            }
            switches.leave(Timeline(timeline), Arc::new(history));
        }
        let known = |timeline, ms| {
            let timeline = Timeline(timeline);
            let known = (
                switches.reached(timeline, at(ms)),
                switches.covers(timeline, at(ms)),
            );
            (known.0.map(|lsn| lsn.0), known.1.map(|lsn| lsn.0))
        };
        assert_eq!(known(1, 15), (None, None), "too old");
        assert_eq!(known(2, 15), (Some(2_100), Some(2_200)));
        assert_eq!(known(5, 5), (None, Some(5_100)));
        assert_eq!(known(5, 25), (Some(5_200), None));
        assert_eq!(known(6, 15), (None, None), "not left yet");
    }

    #[test]
    fn old_promotions_are_forgotten() {
        let mut switches = Switches::default();
        for timeline in 2..200 {
            switches.learn(Timeline(timeline), Lsn(u64::from(timeline)));
        }
        assert_eq!(switches.began.len(), CAPACITY);
        assert_eq!(
            switches.common(Timeline(198), Timeline(199)),
            Some(Lsn(199))
        );
    }
}
