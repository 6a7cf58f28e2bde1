use std::sync::LazyLock;

use proptest::prelude::*;

use super::super::lsn::Lsn;
use super::super::patience::WaitEnd;
use super::super::testing::{down, node, primary, replica, topology};
use super::*;

const MAX_WAIT: Duration = Duration::from_secs(1);
const MARK: Mark = Mark::Position(Lsn(77));
const MS: fn(u64) -> Duration = Duration::from_millis;
static NOTHING_LEARNED: LazyLock<Patience> = LazyLock::new(|| Patience::new(0));

/// A node at this distance in microseconds, in a region.
fn placed(index: u8, state: super::super::NodeState, region: &str, distance_us: u64) -> Node {
    Node {
        region: Some(region.into()),
        round_trip: Some(Duration::from_micros(distance_us)),
        ..node(index, state)
    }
}

fn preference(region: Option<&str>) -> Preference<'_> {
    Preference {
        region,
        stay_on: None,
        max_wait: MAX_WAIT,
        on_lag: OnLag::Primary,
        patience: &NOTHING_LEARNED,
        random: 0,
    }
}

fn verdict(fresh: &[u8], behind: &[u8]) -> Verdict {
    let set = |nodes: &[u8]| nodes.iter().copied().map(NodeIndex).collect();
    Verdict::Replicas {
        fresh: set(fresh),
        behind: set(behind),
        mark: MARK,
    }
}

fn wait(replica: u8, at_most: Duration) -> Choice {
    Choice::Wait {
        replica: NodeIndex(replica),
        mark: MARK,
        at_most,
    }
}

#[test]
fn the_nearest_that_may_answer_answers() {
    use PrimaryReason::{Lag, Nearest};
    const NEAR: u64 = 1_000;
    const FAR: u64 = 80_000;
    const FARTHER: u64 = 150_000;
    let go = |replica: u8| Choice::Replica(NodeIndex(replica));
    // distances of the primary (none: unknown or down), of replica 1 and replica 2; fresh, behind
    let table = [
        // a fresh replica as near as anything
        (Some(FAR), NEAR, FAR, vec![1, 2], vec![], go(1)),
        (Some(FAR), FAR, NEAR, vec![1, 2], vec![], go(2)),
        (None, FAR, NEAR, vec![1], vec![], go(1)),
        // within the band of the primary
        (Some(NEAR), 2_000, FAR, vec![1], vec![], go(1)),
        (Some(FAR), 100_000, FARTHER, vec![1], vec![], go(1)),
        // the primary nearer than every replica
        (
            Some(NEAR),
            2_001,
            FAR,
            vec![1, 2],
            vec![],
            Choice::Primary(Nearest),
        ),
        (
            Some(FAR),
            100_001,
            FARTHER,
            vec![1, 2],
            vec![],
            Choice::Primary(Nearest),
        ),
        (
            Some(NEAR),
            FAR,
            FAR,
            vec![],
            vec![1, 2],
            Choice::Primary(Nearest),
        ),
        // the near one is behind: wait for at most what going elsewhere costs
        (Some(FAR), NEAR, FARTHER, vec![2], vec![1], wait(1, MS(80))),
        (Some(FARTHER), NEAR, FAR, vec![2], vec![1], wait(1, MS(80))),
        (Some(FAR), NEAR, FAR, vec![], vec![1, 2], wait(1, MS(80))),
        (None, NEAR, FAR, vec![2], vec![1], wait(1, MS(80))),
        (None, NEAR, FAR, vec![], vec![1, 2], wait(1, MAX_WAIT)),
        // the one that is behind is no nearer than the primary
        (Some(NEAR), NEAR, FAR, vec![], vec![1], Choice::Primary(Lag)),
    ];
    for (to_primary, to_1, to_2, fresh, behind, expected) in table {
        let case = format!(
            "primary {to_primary:?}, replicas {to_1}, {to_2}, fresh {fresh:?}, behind {behind:?}"
        );
        let (state, distance) = match to_primary {
            Some(distance) => (primary(100, 0), distance),
            None => (down(), NEAR),
        };
        let topology = topology(
            [
                placed(0, state, "x", distance),
                placed(1, replica(100, 0), "x", to_1),
                placed(2, replica(100, 0), "x", to_2),
            ],
            &[],
        );
        let choice = select(
            verdict(&fresh, &behind),
            &topology,
            &preference(None),
            |_| 0,
        );
        assert_eq!(choice, expected, "{case}");
    }
}

#[test]
fn a_region_comes_before_any_distance() {
    let topology = topology(
        [
            placed(0, primary(100, 0), "us", 80_000),
            placed(1, replica(100, 0), "eu", 1_000),
            placed(2, replica(100, 0), "us", 90_000),
        ],
        &[],
    );
    let table = [
        (
            Some("us"),
            vec![1, 2],
            vec![],
            Choice::Replica(NodeIndex(2)),
        ),
        (
            Some("us"),
            vec![1],
            vec![],
            Choice::Primary(PrimaryReason::Nearest),
        ),
        (
            Some("eu"),
            vec![1, 2],
            vec![],
            Choice::Replica(NodeIndex(1)),
        ),
        (Some("eu"), vec![2], vec![1], wait(1, MS(80))),
        // nobody is there: distance alone counts
        (
            Some("ap"),
            vec![1, 2],
            vec![],
            Choice::Replica(NodeIndex(1)),
        ),
    ];
    for (region, fresh, behind, expected) in table {
        let choice = select(
            verdict(&fresh, &behind),
            &topology,
            &preference(region),
            |_| 0,
        );
        assert_eq!(
            choice, expected,
            "from {region:?}, fresh {fresh:?}, behind {behind:?}"
        );
    }
}

#[test]
fn who_has_waited_long_enough_goes() {
    let far_primary = [
        placed(0, primary(9, 0), "x", 80_000),
        placed(1, replica(9, 0), "x", 1_000),
    ];
    let no_primary = [
        placed(0, down(), "x", 80_000),
        placed(1, replica(9, 0), "x", 1_000),
    ];
    for nodes in [far_primary, no_primary] {
        let topology = topology(nodes, &[]);
        for (max_wait, expected) in [
            (Duration::ZERO, Choice::Primary(PrimaryReason::Lag)),
            (MS(3), wait(1, MS(3))),
        ] {
            let preference = Preference {
                max_wait,
                on_lag: OnLag::Primary,
                ..preference(None)
            };
            let choice = select(verdict(&[], &[1]), &topology, &preference, |_| 0);
            assert_eq!(choice, expected);
        }
    }
}

#[test]
fn what_only_the_primary_can_answer_is_its_whatever_the_policy() {
    let nodes = [
        placed(0, primary(9, 0), "x", 80_000),
        placed(1, replica(9, 0), "x", 1_000),
    ];
    let topology = topology(nodes, &[]);
    for reason in [PrimaryReason::FloorUnknown, PrimaryReason::Strong] {
        for on_lag in [OnLag::Primary, OnLag::Wait, OnLag::Error] {
            let preference = Preference {
                on_lag,
                ..preference(None)
            };
            let choice = select(Verdict::Primary(reason), &topology, &preference, |_| 0);
            assert_eq!(choice, Choice::Primary(reason), "{on_lag:?}");
        }
    }
}

/// What it waits to know would not change where it goes.
#[test]
fn an_unknown_floor_is_no_reason_where_the_primary_is_nearest_anyway() {
    use PrimaryReason::{FloorUnknown, Nearest, Strong};
    let choose = |primary_us: u64, replica_us: Option<u64>, region, reason| {
        let far = replica_us.map(|us| placed(1, replica(9, 0), "eu", us));
        let gone = placed(2, down(), "us", 10);
        let idle = Node {
            weight: 0,
            ..placed(3, replica(9, 0), "us", 10)
        };
        let nodes = [placed(0, primary(9, 0), "us", primary_us)];
        let topology = topology(nodes.into_iter().chain(far).chain([gone, idle]), &[]);
        select(
            Verdict::Primary(reason),
            &topology,
            &preference(region),
            |_| 0,
        )
    };
    let table = [
        (1_000, Some(80_000), None, FloorUnknown, Nearest),
        (1_000, Some(2_001), None, FloorUnknown, Nearest),
        (1_000, Some(2_000), None, FloorUnknown, FloorUnknown),
        (80_000, Some(1_000), None, FloorUnknown, FloorUnknown),
        (1_000, Some(80_000), Some("eu"), FloorUnknown, FloorUnknown),
        (80_000, Some(1_000), Some("us"), FloorUnknown, Nearest),
        (80_000, None, None, FloorUnknown, Nearest),
        (1_000, Some(80_000), None, Strong, Strong),
    ];
    for (primary, replica, region, reason, expected) in table {
        let choice = choose(primary, replica, region, reason);
        let case = format!("{primary} {replica:?} {region:?} {reason:?}");
        assert_eq!(choice, Choice::Primary(expected), "{case}");
    }
}

#[test]
fn among_equally_near_nodes_weight_load_and_habit_decide() {
    let nodes = [
        placed(0, primary(9, 0), "x", 80_000),
        placed(1, replica(9, 0), "x", 1_000),
        Node {
            weight: 300,
            ..placed(2, replica(9, 0), "x", 1_900)
        },
        placed(3, replica(9, 0), "x", 2_100),
    ];
    let topology = topology(nodes, &[]);
    let choose = |random: u64, stay_on: Option<u8>, load: [usize; 4]| {
        let preference = Preference {
            random,
            stay_on: stay_on.map(NodeIndex),
            ..preference(None)
        };
        select(verdict(&[1, 2, 3], &[]), &topology, &preference, |node| {
            load[usize::from(node.0)]
        })
    };
    let both = |first: u64, second: u64| second << 32 | first;
    let count = |node: u8| {
        (0..400)
            .filter(|n| choose(both(*n, *n), None, [0; 4]) == Choice::Replica(NodeIndex(node)))
            .count()
    };
    assert_eq!(
        [1, 2, 3].map(count),
        [100, 300, 0],
        "by weight, and none from beyond the band"
    );
    let table = [
        (both(0, 399), None, [0, 0, 0, 0], 1),
        (both(0, 399), None, [0, 5, 4, 0], 2),
        (both(399, 0), None, [0, 5, 4, 0], 2),
        (both(399, 399), Some(1), [0, 5, 4, 0], 1),
        (both(0, 0), Some(3), [0, 0, 0, 0], 1),
    ];
    for (random, stay_on, load, expected) in table {
        assert_eq!(
            choose(random, stay_on, load),
            Choice::Replica(NodeIndex(expected)),
            "{random:x} {stay_on:?} {load:?}"
        );
    }
}

#[test]
fn one_that_has_been_slow_lately_is_passed_over() {
    let nodes = [
        placed(0, primary(9, 0), "x", 80_000),
        placed(1, replica(9, 0), "x", 1_000),
        placed(2, replica(9, 0), "x", 1_500),
        placed(3, replica(9, 0), "x", 60_000),
    ];
    let topology = topology(nodes, &[]);
    let patience = Patience::new(4);
    let slow = |node: u8| {
        for _ in 0..30 {
            patience.learn(NodeIndex(node), MS(80), WaitEnd::TooLong);
        }
    };
    // Of 1,600 reads, how many wait for which.
    let waits = |stay_on: Option<u8>| {
        let mut waits = [0; 4];
        for n in 0..1_600_u64 {
            let preference = Preference {
                patience: &patience,
                stay_on: stay_on.map(NodeIndex),
                random: (n << 28) | (n % 2),
                ..preference(None)
            };
            let verdict = verdict(&[], &[1, 2, 3]);
            match select(verdict, &topology, &preference, |_| 0) {
                Choice::Wait { replica, .. } => waits[usize::from(replica.0)] += 1,
                other => panic!("{other:?}"),
            }
        }
        waits
    };
    assert_eq!(waits(Some(1)), [0, 1_600, 0, 0]);
    slow(1);
    assert_eq!(waits(Some(1)), [0, 100, 1_500, 0], "one in 16 tries it");
    let [_, tried, other, _] = waits(None);
    assert!(
        (1..=100).contains(&tried) && tried + other == 1_600,
        "{tried}"
    );
    slow(2);
    assert_eq!(
        waits(Some(1)),
        [0, 1_600, 0, 0],
        "there is no better one as near"
    );
}

proptest! {
    #[test]
    fn only_members_of_the_verdict_are_chosen_and_no_wait_exceeds_its_budget(
        distances in prop::collection::vec(prop::option::of(0u64..200_000), 1..12),
        weights in prop::collection::vec(1u32..1000, 12),
        regions in prop::collection::vec(prop::sample::select(vec!["us", "eu"]), 12),
        sides in prop::collection::vec(0u8..3, 12),
        has_primary: bool,
        from_eu: bool,
        max_wait_ms in 0u64..100,
        stay_on in prop::option::of(0u8..12),
        random: u64,
    ) {
        let nodes = distances.iter().enumerate().map(|(place, distance)| Node {
            weight: weights[place],
            round_trip: distance.map(Duration::from_micros),
            ..placed(place as u8, if place == 0 && has_primary { primary(9, 0) } else { replica(9, 0) }, regions[place], 0)
        });
        let topology = topology(nodes, &[]);
        let side = |wanted: u8| -> NodeSet {
            topology.replicas().map(|node| node.index).filter(|index| sides[usize::from(index.0)] == wanted).collect()
        };
        let (fresh, behind) = (side(1), side(2));
        let preference = Preference {
            region: from_eu.then_some("eu"),
            stay_on: stay_on.map(NodeIndex),
            max_wait: MS(max_wait_ms),
            on_lag: OnLag::Primary,
            patience: &NOTHING_LEARNED,
            random,
        };
        let choice = select(Verdict::Replicas { fresh, behind, mark: MARK }, &topology, &preference, |node| usize::from(node.0) % 3);
        let away = |index: NodeIndex| distance(topology.node(index), preference.region);
        match choice {
            Choice::Replica(chosen) => {
                prop_assert!(fresh.contains(chosen));
                if let Some(primary) = topology.primary {
                    prop_assert!(away(chosen).as_near_as(away(primary)) || away(chosen) < away(primary));
                }
            }
            Choice::Wait { replica, mark, at_most } => {
                prop_assert!(behind.contains(replica) && mark == MARK);
                prop_assert!(!at_most.is_zero() && at_most <= preference.max_wait);
                let others = fresh.iter().chain(topology.primary);
                if let Some(elsewhere) = others.map(away).min() {
                    prop_assert!(at_most <= elsewhere.round_trip, "worse than twice the best");
                }
            }
            Choice::Primary(_) => {
                let waits = !behind.is_empty() && max_wait_ms > 0;
                prop_assert!(topology.primary.is_some() || (fresh.is_empty() && !waits));
            }
        }
    }
}
