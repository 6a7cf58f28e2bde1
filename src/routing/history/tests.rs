use std::time::Duration;

use proptest::prelude::*;

use super::super::testing::{at, history};
use super::*;

const MS: fn(u64) -> Duration = Duration::from_millis;

#[test]
fn an_age_counts_from_the_newest_sample_that_is_covered() {
    let history = history(&[(10, 100), (20, 200), (30, 300)]);
    let table = [
        (99, None),
        (100, Some(90)),
        (199, Some(90)),
        (200, Some(80)),
        (300, Some(70)),
        (999, Some(70)),
    ];
    for (lsn, age) in table {
        let expected = age.map(MS);
        assert_eq!(history.staleness(Lsn(lsn), at(100)), expected, "at {lsn}");
    }
}

#[test]
fn an_idle_primary_makes_nobody_old() {
    let history = history(&[(10, 100), (20, 100), (5_000, 100)]);
    assert_eq!(history.staleness(Lsn(100), at(5_001)), Some(MS(1)));
}

#[test]
fn a_primary_that_lost_wal_is_believed_at_once() {
    let history = history(&[(10, 100), (20, 200), (30, 300), (40, 150)]);
    let found = history.first_started_after(at(30));
    assert_eq!(found.map(|sample| sample.lsn), Some(Lsn(150)));
    assert_eq!(history.staleness(Lsn(150), at(50)), Some(MS(10)));
    assert_eq!(history.staleness(Lsn(149), at(50)), Some(MS(40)));
}

#[test]
fn a_moment_becomes_the_first_position_sampled_after_it() {
    let history = history(&[(10, 100), (20, 200)]);
    let table = [(0, Some(100)), (9, Some(100)), (10, Some(200)), (20, None)];
    for (moment, expected) in table {
        let found = history.first_started_after(at(moment));
        assert_eq!(found.map(|sample| sample.lsn.0), expected, "after {moment}");
    }
}

#[test]
fn a_full_history_keeps_its_ends() {
    let samples: Vec<(u64, u64)> = (1..=10 * CAPACITY as u64).map(|n| (n, n)).collect();
    let history = history(&samples);
    assert!(history.samples.len() <= CAPACITY);
    assert_eq!(history.samples[0].lsn, Lsn(1));
    assert_eq!(
        history.newest().map(|newest| newest.lsn.0),
        Some(10 * CAPACITY as u64)
    );
    assert!(
        history
            .samples
            .iter()
            .is_sorted_by(|a, b| a.started < b.started && a.lsn < b.lsn)
    );
}

/// A primary whose position rises by each step, one step a millisecond, and probes that start at
/// one moment and read the position at that or a later one.
fn probed_primary() -> impl Strategy<Value = (Vec<u64>, Vec<(u64, u64)>)> {
    let steps = prop::collection::vec(0u64..3, 1..1500);
    let probes = prop::collection::vec((any::<prop::sample::Index>(), 0u64..20), 0..1200);
    (steps, probes).prop_map(|(steps, probes)| {
        let positions: Vec<u64> = steps
            .iter()
            .scan(0, |position, step| {
                *position += step;
                Some(*position)
            })
            .collect();
        let last = positions.len() - 1;
        let samples = probes
            .into_iter()
            .map(|(started, later)| {
                let started = started.index(positions.len());
                let read = (started + later as usize).min(last);
                (started as u64, positions[read])
            })
            .collect();
        (positions, samples)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn whatever_the_order_of_the_pushes_no_age_is_understated(
        (positions, mut samples) in probed_primary(),
        sorted: bool,
    ) {
        if sorted {
            samples.sort_unstable_by_key(|(started, _)| *started);
        }
        let history = history(&samples);
        let now = positions.len() as u64;
        for lsn in 0..=positions[positions.len() - 1] {
            let missing = positions.iter().position(|position| *position > lsn);
            let true_age = missing.map_or(0, |first| now - first as u64);
            if let Some(age) = history.staleness(Lsn(lsn), at(now)) {
                prop_assert!(age >= MS(true_age), "{lsn} is {true_age} ms old, not {age:?}");
            }
        }
    }

    #[test]
    fn a_position_after_a_moment_covers_all_that_was_there_at_that_moment(
        (positions, mut samples) in probed_primary(),
    ) {
        samples.sort_unstable_by_key(|(started, _)| *started);
        let history = history(&samples);
        for (moment, position) in positions.iter().enumerate() {
            if let Some(sample) = history.first_started_after(at(moment as u64)) {
                prop_assert!(sample.lsn >= Lsn(*position) && sample.started > at(moment as u64));
            }
        }
    }
}

/// (milliseconds, LSN, the primary's clock)
fn with_clock(samples: &[(u64, u64, Option<u64>)]) -> History {
    let mut history = History::default();
    for (started, lsn, clock) in samples {
        history.push(Sample {
            started: at(*started),
            lsn: Lsn(*lsn),
            clock: clock.map(UnixMillis),
        });
    }
    history
}

#[test]
fn a_time_becomes_the_first_position_sampled_when_the_clock_had_passed_it() {
    let steady = [
        (10, 100, Some(1010)),
        (20, 110, Some(1020)),
        (30, 130, Some(1030)),
    ];
    let set_back = [
        (10, 100, Some(1010)),
        (20, 110, Some(1050)),
        (30, 130, Some(1005)),
        (40, 140, Some(1040)),
    ];
    let silent = [
        (10, 100, Some(1010)),
        (20, 110, None),
        (30, 130, Some(1030)),
    ];
    let table: [(&[_], u64, Option<u64>); 11] = [
        (&steady, 900, Some(100)),
        (&steady, 1010, Some(100)),
        (&steady, 1011, Some(110)),
        (&steady, 1030, Some(130)),
        (&steady, 1031, None),
        (&[], 1000, None),
        // What was committed at 1015 may have been so before the clock was set back, or after.
        (&set_back, 1015, Some(140)),
        (&set_back, 1005, Some(100)),
        (&set_back, 1045, None),
        (&silent, 1005, Some(130)),
        (&silent, 1030, Some(130)),
    ];
    for (samples, clock, expected) in table {
        let found = with_clock(samples).first_past_clock(UnixMillis(clock));
        assert_eq!(
            found.map(|sample| sample.lsn),
            expected.map(Lsn),
            "{clock} in {samples:?}"
        );
    }
}
