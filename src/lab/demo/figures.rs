//! What the demo counts: per way and region, how long statements took, who answered, what was
//! stale. Counts only what users saw; nothing here comes from Causeway's own counters.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::REGIONS;

/// How statements travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    Direct,
    Naive,
    Causeway,
}

impl Way {
    pub(super) const ALL: [Way; 3] = [Way::Direct, Way::Naive, Way::Causeway];

    pub(super) fn title(self) -> &'static str {
        match self {
            Way::Direct => "everything to the primary",
            Way::Naive => "naive splitter (reads in turn over the replicas)",
            Way::Causeway => "Causeway",
        }
    }
}

/// All tallies. Users add to it while the screen reads it.
#[derive(Debug, Default)]
pub(super) struct Board(Mutex<BTreeMap<(Way, &'static str), Tally>>);

/// One way in one region, as its users saw it.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) reads: Timings,
    pub(super) writes: Timings,
    /// By the name of the node that says it ran the read.
    pub(super) answered_by: BTreeMap<String, u64>,
    pub(super) stale: u64,
    pub(super) errors: u64,
    pub(super) first_error: Option<String>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Timings(Vec<Duration>);

impl Board {
    pub(super) fn read(&self, way: Way, region: &'static str, took: Duration, by: String) {
        let mut tallies = self.lock();
        let tally = tallies.entry((way, region)).or_default();
        tally.reads.0.push(took);
        *tally.answered_by.entry(by).or_default() += 1;
    }

    pub(super) fn stale(&self, way: Way, region: &'static str) {
        self.lock().entry((way, region)).or_default().stale += 1;
    }

    pub(super) fn written(&self, way: Way, region: &'static str, took: Duration) {
        let mut tallies = self.lock();
        let tally = tallies.entry((way, region)).or_default();
        tally.writes.0.push(took);
    }

    pub(super) fn failed(&self, way: Way, region: &'static str, error: String) {
        let mut tallies = self.lock();
        let tally = tallies.entry((way, region)).or_default();
        tally.errors += 1;
        tally.first_error.get_or_insert(error);
    }

    pub(super) fn tally(&self, way: Way, region: &'static str) -> Tally {
        self.lock().get(&(way, region)).cloned().unwrap_or_default()
    }

    /// One way, all regions together.
    pub(super) fn sum(&self, way: Way) -> Tally {
        REGIONS.iter().fold(Tally::default(), |mut sum, region| {
            let tally = self.tally(way, region);
            sum.reads.0.extend(tally.reads.0);
            sum.writes.0.extend(tally.writes.0);
            for (node, count) in tally.answered_by {
                *sum.answered_by.entry(node).or_default() += count;
            }
            sum.stale += tally.stale;
            sum.errors += tally.errors;
            sum.first_error = sum.first_error.or(tally.first_error);
            sum
        })
    }

    /// What Causeway did wrong, in words; empty if nothing. Silence is wrong too.
    pub(super) fn verdict(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for region in REGIONS {
            let tally = self.tally(Way::Causeway, region);
            if tally.stale > 0 {
                faults.push(format!("{region}: {} stale reads", tally.stale));
            }
            if let Some(error) = tally.first_error {
                faults.push(format!("{region}: {} errors, first: {error}", tally.errors));
            }
            if tally.reads.0.is_empty() {
                faults.push(format!("{region}: no read was answered"));
            }
        }
        faults
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Way, &'static str), Tally>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tally {
    /// The share of reads that `node` answered, of 1; none before the first read.
    pub(super) fn share_of(&self, node: &str) -> Option<f64> {
        let all: u64 = self.answered_by.values().sum();
        let its = self.answered_by.get(node).copied().unwrap_or_default();
        (all > 0).then(|| its as f64 / all as f64)
    }
}

impl Timings {
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// The smallest time that at least `share` (of 1) of all do not exceed.
    pub(super) fn quantile(&self, share: f64) -> Option<Duration> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.max(1) - 1).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn quantiles_are_times_that_occurred() {
        let timings = Timings((1..=200).rev().map(|n| n * MS).collect());
        for (share, expected) in [(0.0, 1), (0.5, 100), (0.99, 198), (1.0, 200)] {
            assert_eq!(timings.quantile(share), Some(expected * MS), "{share}");
        }
        assert_eq!(Timings(vec![7 * MS]).quantile(0.99), Some(7 * MS));
        assert_eq!(Timings::default().quantile(0.5), None);
    }

    fn board_with_reads_in(regions: &[&'static str]) -> Board {
        let board = Board::default();
        for region in regions {
            board.read(Way::Causeway, region, MS, region.to_string());
        }
        board
    }

    #[test]
    fn only_what_causeway_did_wrong_counts() {
        let board = board_with_reads_in(&REGIONS);
        board.stale(Way::Naive, REGIONS[1]);
        board.failed(Way::Direct, REGIONS[2], "gone".to_string());
        assert_eq!(board.verdict(), Vec::<String>::new());
    }

    #[test]
    fn a_stale_read_an_error_and_silence_are_wrong() {
        let board = board_with_reads_in(&REGIONS[..2]);
        board.stale(Way::Causeway, REGIONS[0]);
        board.failed(Way::Causeway, REGIONS[1], "first".to_string());
        board.failed(Way::Causeway, REGIONS[1], "second".to_string());
        assert_eq!(
            board.verdict(),
            [
                "us-east: 1 stale reads",
                "eu-west: 2 errors, first: first",
                "ap-south: no read was answered",
            ]
        );
    }

    #[test]
    fn the_sum_covers_all_regions() {
        let board = board_with_reads_in(&REGIONS);
        board.read(Way::Causeway, REGIONS[1], 3 * MS, REGIONS[0].to_string());
        let sum = board.sum(Way::Causeway);
        assert_eq!(sum.reads.count(), 4);
        assert_eq!(sum.share_of(REGIONS[0]), Some(0.5));
        assert_eq!(board.sum(Way::Naive).share_of(REGIONS[0]), None);
    }
}
