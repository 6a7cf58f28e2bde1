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
    /// The timeline before the present one, and where the primary was on it over time.
    left: Option<(Timeline, Arc<History>)>,
}

/// So many promotions are remembered.
const CAPACITY: usize = 64;

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
        self.left = Some((timeline, history));
    }

    /// A position that the primary had reached on `timeline` at `moment`, if that was the last timeline:
    /// whoever read there then has seen as much.
    pub fn reached(&self, timeline: Timeline, moment: Instant) -> Option<Lsn> {
        let (left, history) = self.left.as_ref()?;
        let sample = history.last_started_by(moment)?;
        (*left == timeline).then_some(sample.lsn)
    }

    /// A position that covers all that had been committed on `timeline` by `moment`, if that was the last timeline and
    /// the primary was probed since then.
    pub fn covers(&self, timeline: Timeline, moment: Instant) -> Option<Lsn> {
        let (left, history) = self.left.as_ref()?;
        let sample = history.first_started_after(moment)?;
        (*left == timeline).then_some(sample.lsn)
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
