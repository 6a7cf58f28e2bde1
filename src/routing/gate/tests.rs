use proptest::prelude::*;

use super::super::lsn::Lsn;
use super::super::testing::{at, down, node, primary, replica, topology};
use super::super::topology::{Node, NodeIndex};
use super::*;

const A: NodeIndex = NodeIndex(1);
const B: NodeIndex = NodeIndex(2);
const NOW: u64 = 100;

fn set(nodes: &[NodeIndex]) -> NodeSet {
    nodes.iter().copied().collect()
}

fn replicas(fresh: &[NodeIndex], behind: &[NodeIndex], lsn: u64) -> Verdict {
    Verdict::Replicas {
        fresh: set(fresh),
        behind: set(behind),
        mark: Mark::Position(Lsn(lsn)),
    }
}

fn need(level: Level, floor: &Floor) -> ReadNeed<'_> {
    ReadNeed {
        level,
        floor,
        exclude: NodeSet::EMPTY,
        observation_expiry: Duration::from_secs(1),
    }
}

fn eventual(ms: Option<u64>) -> Level {
    Level::Eventual {
        max_staleness: ms.map(Duration::from_millis),
    }
}

#[test]
fn each_level_lets_through_whom_it_may() {
    use PrimaryReason::*;
    let topology = topology(
        [
            node(0, primary(100, 90)),
            node(1, replica(100, 90)),
            node(2, replica(60, 90)),
        ],
        &[(10, 50), (40, 60), (90, 100)],
    );
    let no_floor = Floor::default();
    let mut wrote = Floor::default();
    wrote.settle(&topology, at(NOW));
    wrote.raise(Lsn(80), topology.timeline);
    let mut ahead = wrote;
    ahead.raise(Lsn(101), topology.timeline);
    let mut unknown = Floor::default();
    unknown.raise_to_primary_after(at(NOW));
    let mut on_a = wrote;
    on_a.saw_replica(A, at(NOW));
    let mut on_b = wrote;
    on_b.saw_replica(B, at(NOW));
    let table = [
        (Level::Strong, no_floor, Verdict::Primary(Strong)),
        (Level::Session, no_floor, replicas(&[A, B], &[], 0)),
        (Level::Session, wrote, replicas(&[A], &[B], 80)),
        (Level::Session, ahead, replicas(&[], &[A, B], 101)),
        (Level::Session, unknown, Verdict::Primary(FloorUnknown)),
        (Level::Session, on_a, replicas(&[A], &[], 80)),
        (Level::Session, on_b, replicas(&[], &[B], 80)),
        (eventual(None), ahead, replicas(&[A, B], &[], 101)),
        (eventual(None), unknown, replicas(&[A, B], &[], 0)),
        (eventual(Some(60)), ahead, replicas(&[A, B], &[], 101)),
        (eventual(Some(59)), ahead, replicas(&[A], &[B], 100)),
        (eventual(Some(10)), ahead, replicas(&[A], &[B], 100)),
        (eventual(Some(9)), ahead, Verdict::Primary(Lag)),
    ];
    for (level, floor, expected) in table {
        let verdict = gate(&need(level, &floor), &topology, at(NOW));
        assert_eq!(verdict, expected, "{level:?} with {floor:?}");
    }
}

#[test]
fn a_replica_that_may_not_be_used_is_not_let_through() {
    let usable = node(1, replica(100, 90));
    let idle = Node {
        weight: 0,
        ..usable.clone()
    };
    let fine = Duration::from_secs(1);
    // the replica, excluded by the caller, expiry, let through; seen until 91 ms, now is 100 ms
    let table = [
        (usable.clone(), false, fine, true),
        (usable.clone(), false, Duration::from_millis(9), true),
        (usable.clone(), false, Duration::from_millis(8), false),
        (usable.clone(), true, fine, false),
        (idle, false, fine, false),
        (node(1, down()), false, fine, false),
    ];
    let floor = Floor::default();
    for (replica, failed, observation_expiry, through) in table {
        let case = format!("{replica:?}, failed: {failed}");
        let topology = topology([node(0, primary(100, 90)), replica], &[(90, 100)]);
        for level in [Level::Session, eventual(None), eventual(Some(1_000))] {
            let need = ReadNeed {
                exclude: if failed { set(&[A]) } else { NodeSet::EMPTY },
                observation_expiry,
                ..need(level, &floor)
            };
            let expected = if through {
                replicas(&[A], &[], 0)
            } else {
                Verdict::Primary(PrimaryReason::NoReplica)
            };
            assert_eq!(gate(&need, &topology, at(NOW)), expected, "{case}");
        }
    }
}

proptest! {
    #[test]
    fn whoever_is_fresh_has_reached_every_position_raised(
        raised in prop::collection::vec(0u64..100, 0..5),
        positions in prop::collection::vec(0u64..100, 1..10),
    ) {
        let nodes = (0u8..).zip(&positions).map(|(index, lsn)| node(index, replica(*lsn, 90)));
        let topology = topology(nodes, &[(90, 100)]);
        let mut floor = Floor::default();
        floor.settle(&topology, at(NOW));
        for lsn in &raised {
            floor.raise(Lsn(*lsn), topology.timeline);
        }
        let highest = raised.iter().copied().max().unwrap_or(0);
        let verdict = gate(&need(Level::Session, &floor), &topology, at(NOW));
        let Verdict::Replicas { fresh, behind, mark } = verdict else {
            panic!("{verdict:?}");
        };
        prop_assert_eq!(mark, Mark::Position(Lsn(highest)));
        for (index, position) in (0u8..).map(NodeIndex).zip(&positions) {
            prop_assert_eq!(fresh.contains(index), *position >= highest);
            prop_assert_eq!(behind.contains(index), *position < highest);
        }
    }
}
