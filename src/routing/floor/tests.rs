use proptest::prelude::*;

use super::super::switches::Switches;
use super::super::testing::{at, down, history, node, primary, replica, seen, topology};
use super::super::topology::{NodeState, Observation, Role};
use super::*;
use std::sync::Arc;

const P: NodeIndex = NodeIndex(0);
const A: NodeIndex = NodeIndex(1);
const B: NodeIndex = NodeIndex(2);
const T1: Option<Timeline> = Some(Timeline(1));
const T2: Option<Timeline> = Some(Timeline(2));

/// A primary sampled at these (milliseconds, LSN), and two replicas.
fn cluster(samples: &[(u64, u64)], a: NodeState, b: NodeState) -> Topology {
    let nodes = [node(0, primary(0, 0)), node(1, a), node(2, b)];
    topology(nodes, samples)
}

fn on_timeline(topology: Topology, timeline: Option<Timeline>) -> Topology {
    Topology {
        timeline,
        ..topology
    }
}

fn bounds(floor: &Floor) -> [Bound; 3] {
    [P, A, B].map(|node| floor.bound_for(node))
}

#[test]
fn a_new_session_may_read_anywhere() {
    let mut floor = Floor::default();
    floor.settle(&cluster(&[(10, 100)], replica(0, 10), down()), at(20));
    assert_eq!(bounds(&floor), [Bound::Reached(Lsn::ZERO); 3]);
}

#[test]
fn a_captured_position_binds_every_node_and_never_falls() {
    let topology = cluster(&[(10, 100)], replica(0, 10), down());
    let mut floor = Floor::default();
    floor.settle(&topology, at(10));
    for lsn in [50, 80, 60] {
        floor.raise(Lsn(lsn), T1);
    }
    floor.settle(&topology, at(20));
    assert_eq!(bounds(&floor), [Bound::Reached(Lsn(80)); 3]);
}

#[test]
fn an_unknown_position_keeps_reads_on_the_primary_until_a_later_probe() {
    let mut floor = Floor::default();
    floor.raise_to_primary_after(at(20));
    floor.raise_to_primary_after(at(15));
    floor.settle(
        &cluster(&[(10, 100), (20, 110)], replica(900, 10), down()),
        at(25),
    );
    assert_eq!(bounds(&floor), [Bound::OnlyPrimary; 3]);
    floor.settle(
        &cluster(&[(10, 100), (21, 130), (30, 150)], down(), down()),
        at(31),
    );
    assert_eq!(bounds(&floor), [Bound::Reached(Lsn(130)); 3]);
}

#[test]
fn a_replica_seen_binds_the_others_to_what_it_had() {
    let mut floor = Floor::default();
    floor.saw_replica(A, at(20));
    let before = cluster(&[(10, 100)], replica(90, 20), replica(100, 20));
    floor.settle(&before, at(21));
    let [_, on_a, on_b] = bounds(&floor);
    assert_eq!(
        (on_a, on_b),
        (Bound::Reached(Lsn::ZERO), Bound::OnlyPrimary)
    );
    assert_eq!(floor.last_replica(), Some(A));

    let after = cluster(&[(10, 100)], replica(95, 21), replica(100, 20));
    floor.settle(&after, at(23));
    assert_eq!(bounds(&floor), [Bound::Reached(Lsn(95)); 3]);
    assert_eq!(floor.last_replica(), None);
}

/// It shows a commit before it counts its record: whoever reads elsewhere must have got further, and the
/// replica itself may go on as it is, however far it is behind.
#[test]
fn what_a_replica_shows_ahead_of_its_position_binds_the_others_only() {
    let behind = |lsn: u64, received: Option<u64>, started| {
        NodeState::Up(Observation {
            received: received.map(Lsn),
            ..seen(Role::Replica, lsn, started)
        })
    };
    let samples = [(10, 100)];
    let mut floor = Floor::default();
    floor.saw_replica(A, at(20));
    for started in [21, 30] {
        let topology = cluster(&samples, behind(80, Some(96), started), replica(80, 20));
        floor.settle(&topology, at(started + 1));
        let [_, on_a, on_b] = bounds(&floor);
        assert_eq!(
            (on_a, on_b),
            (Bound::Reached(Lsn(80)), Bound::Reached(Lsn(81)))
        );
        assert_eq!((floor.lsn(), floor.pending()), (Lsn(81), Pending::Nothing));
        assert_eq!(floor.last_replica(), None);
    }
    let mut other = Floor::default();
    other.settle(&cluster(&samples, down(), down()), at(31));
    other.merge(&floor);
    assert_eq!(bounds(&other), bounds(&floor));

    // It has got further, though not to its end.
    let mut later = floor;
    later.settle(&cluster(&samples, behind(88, Some(96), 40), down()), at(41));
    assert_eq!(bounds(&later), [Bound::Reached(Lsn(81)); 3]);
    // There was nothing more to show.
    let mut later = floor;
    later.settle(&cluster(&samples, behind(80, Some(80), 40), down()), at(41));
    assert_eq!(bounds(&later), [Bound::Reached(Lsn(80)); 3]);
    // A read elsewhere takes its place.
    let mut later = floor;
    later.saw_replica(B, at(40));
    assert_eq!(bounds(&later)[1], Bound::OnlyPrimary);
    assert_eq!(bounds(&later)[2], Bound::Reached(Lsn(81)));
    // Not streamed, or not from where it has got to: the primary has whatever there is.
    for received in [None, Some(72)] {
        let mut floor = Floor::default();
        floor.saw_replica(A, at(20));
        floor.settle(&cluster(&samples, behind(80, received, 30), down()), at(31));
        assert_eq!(floor.pending(), Pending::Primary(at(20)), "{received:?}");
    }
}

#[test]
fn a_replica_that_cannot_be_asked_any_more_is_covered_by_the_primary() {
    let samples = [(10, 100), (22, 120)];
    let restarted = Observation {
        connected: at(21),
        ..seen(Role::Replica, 70, 30)
    };
    let excluded = NodeState::Excluded {
        observation: seen(Role::Replica, 500, 30),
        reason: "on another timeline".into(),
    };
    let table = [
        ("down", cluster(&samples, down(), down())),
        (
            "restarted",
            cluster(&samples, NodeState::Up(restarted), down()),
        ),
        ("excluded", cluster(&samples, excluded, down())),
        ("removed", topology([node(0, primary(0, 0))], &samples)),
    ];
    for (case, topology) in table {
        let mut floor = Floor::default();
        floor.saw_replica(A, at(20));
        floor.settle(&topology, at(31));
        assert_eq!(bounds(&floor), [Bound::Reached(Lsn(120)); 3], "{case}");
    }
    // No sample after the read: not even the same replica, which may have restarted lower.
    let mut floor = Floor::default();
    floor.saw_replica(A, at(25));
    floor.settle(
        &cluster(
            &samples,
            NodeState::Up(Observation {
                connected: at(26),
                ..restarted
            }),
            down(),
        ),
        at(31),
    );
    assert_eq!(bounds(&floor), [Bound::OnlyPrimary; 3]);
}

#[test]
fn a_promoted_replica_tells_its_position_as_the_primary() {
    let mut floor = Floor::default();
    floor.settle(&cluster(&[(10, 100)], replica(90, 10), down()), at(11));
    floor.saw_replica(A, at(20));
    let promoted = Observation {
        timeline: T2,
        ..seen(Role::Primary, 101, 30)
    };
    let nodes = [
        node(0, down()),
        node(1, NodeState::Up(promoted)),
        node(2, down()),
    ];
    let topology = on_timeline(topology(nodes, &[(30, 101)]), T2);
    floor.settle(&topology, at(32));
    assert_eq!(bounds(&floor), [Bound::Reached(Lsn(101)); 3]);
}

#[test]
fn a_second_replica_does_not_make_the_first_forgotten() {
    let mut floor = Floor::default();
    floor.saw_replica(A, at(20));
    floor.saw_replica(B, at(21));
    // B is behind A: what B tells later is not enough.
    floor.settle(
        &cluster(&[(10, 100)], replica(100, 30), replica(60, 30)),
        at(31),
    );
    assert_eq!(bounds(&floor), [Bound::OnlyPrimary; 3]);
    floor.settle(
        &cluster(&[(10, 100), (30, 105)], replica(100, 30), replica(60, 30)),
        at(32),
    );
    assert_eq!(bounds(&floor), [Bound::Reached(Lsn(105)); 3]);
}

#[test]
fn a_restart_between_two_reads_of_one_replica_is_noticed() {
    let mut floor = Floor::default();
    floor.saw_replica(A, at(20));
    floor.saw_replica(A, at(30));
    let restarted = Observation {
        connected: at(25),
        ..seen(Role::Replica, 50, 40)
    };
    let topology = cluster(&[(10, 100), (35, 105)], NodeState::Up(restarted), down());
    floor.settle(&topology, at(41));
    assert_eq!(bounds(&floor), [Bound::Reached(Lsn(105)); 3]);
}

#[test]
fn a_position_of_another_timeline_is_exchanged_for_a_later_one() {
    // captured on, settled on before, topology's, still a known position
    let table = [
        (T1, T1, T1, true),
        (T2, T1, T2, true),
        (T1, T1, T2, false),
        (T2, T1, T1, false),
        (None, T1, T1, true),
        (None, None, T1, false),
        (T1, None, T2, false),
    ];
    for (captured, settled, current, known) in table {
        let case = format!("captured on {captured:?}, settled on {settled:?}, now {current:?}");
        let mut floor = Floor::default();
        let early = [(10, 100)];
        if settled.is_some() {
            floor.settle(
                &on_timeline(cluster(&early, down(), down()), settled),
                at(11),
            );
        }
        floor.raise(Lsn(500), captured);
        let topology = on_timeline(cluster(&[(10, 100), (20, 900)], down(), down()), current);
        floor.settle(&topology, at(20));
        let expected = if known {
            Bound::Reached(Lsn(500))
        } else {
            Bound::OnlyPrimary
        };
        assert_eq!(bounds(&floor), [expected; 3], "{case}");

        let later = Topology {
            history: Arc::new(history(&[(21, 700)])),
            ..topology
        };
        floor.settle(&later, at(22));
        let expected = if known { 500 } else { 700 };
        assert_eq!(
            bounds(&floor),
            [Bound::Reached(Lsn(expected)); 3],
            "{case}, later"
        );
    }
}

fn branched(topology: Topology, began: &[(u32, u64)]) -> Topology {
    let mut switches = Switches::default();
    for (timeline, lsn) in began {
        switches.learn(Timeline(*timeline), Lsn(*lsn));
    }
    Topology {
        switches: Arc::new(switches),
        ..topology
    }
}

/// A session that has read on the old primary, and was not told where that was.
#[test]
fn what_was_seen_without_a_position_is_known_to_be_lost_too() {
    let before = on_timeline(cluster(&[(10, 100)], down(), down()), T1);
    let mut switches = Switches::default();
    switches.leave(
        Timeline(1),
        Arc::new(history(&[(10, 100), (20, 300), (30, 400)])),
    );
    switches.learn(Timeline(2), Lsn(250));
    let mut after = on_timeline(cluster(&[(50, 270)], down(), down()), T2);
    after.switches = Arc::new(switches);
    for (moment, lost) in [(9, None), (19, None), (20, Some(300)), (45, Some(400))] {
        let mut floor = Floor::default();
        floor.settle(&before, at(5));
        floor.raise_to_primary_after(at(moment));
        floor.settle(&after, at(60));
        let expected = lost.map(|lsn| Lost::Position(Timeline(1), Lsn(lsn)));
        assert_eq!(floor.take_lost(), expected, "seen at {moment}");
        assert_eq!(bounds(&floor), [Bound::Reached(Lsn(270)); 3]);
    }
}

/// A replica that has been started again at 30 ms, and asked at 35.
fn restarted() -> NodeState {
    NodeState::Up(Observation {
        connected: at(30),
        ..seen(Role::Replica, 90, 35)
    })
}

/// What a session has whose transaction 7 was committed on timeline 1 by the moment 20.
fn wrote(topology: &Topology) -> Floor {
    let mut floor = Floor::default();
    floor.settle(topology, at(5));
    floor.raise_to_write(Some(Xid(7)), T1, at(20));
    floor
}

#[test]
fn a_transaction_binds_until_its_position_is_known() {
    let early = cluster(&[(10, 100)], replica(90, 15), replica(90, 15));
    let awaited = Bound::Shown(Timeline(1), Xid(7));
    let mut floor = wrote(&early);
    floor.settle(&early, at(25));
    assert_eq!(bounds(&floor), [awaited; 3]);
    assert_eq!(floor.pending(), Pending::Primary(at(20)));

    // Another transaction, or one of another timeline, says nothing.
    let connected = at(0);
    floor.is_shown(Xid(8), Timeline(1), A, connected);
    floor.is_shown(Xid(7), Timeline(2), A, connected);
    assert_eq!(bounds(&floor), [awaited; 3]);
    floor.is_shown(Xid(7), Timeline(1), A, connected);
    floor.settle(&early, at(26));
    let here = Bound::Reached(Lsn::ZERO);
    assert_eq!(bounds(&floor), [awaited, here, awaited]);
    // A read there binds others to it, and not itself.
    floor.saw_replica(A, at(30));
    assert_eq!(
        bounds(&floor),
        [Bound::OnlyPrimary, here, Bound::OnlyPrimary]
    );

    // A probe of the primary tells where it lies.
    let mut later = wrote(&early);
    later.settle(
        &cluster(&[(10, 100), (21, 140)], replica(90, 15), down()),
        at(40),
    );
    assert_eq!(bounds(&later), [Bound::Reached(Lsn(140)); 3]);
    assert_eq!(later.pending(), Pending::Nothing);
}

#[test]
fn a_transaction_says_nothing_of_what_comes_behind_it() {
    let topology = cluster(&[(10, 100)], replica(90, 15), replica(90, 15));
    let connected = at(0);
    let mut other = Floor::default();
    other.settle(&topology, at(25));
    other.raise_to_primary_after(at(19));
    type Step<'a> = &'a dyn Fn(&mut Floor);
    let steps: [(&str, Step); 4] = [
        ("a write", &|floor| floor.raise_to_primary_after(at(30))),
        ("what another session has written", &|floor| {
            floor.merge(&other)
        }),
        ("a read elsewhere", &|floor| {
            floor.saw_replica(B, at(30));
            floor.saw_replica(A, at(31));
        }),
        ("a time", &|floor| floor.raise_to_clock(UnixMillis(5))),
    ];
    for (what, step) in steps {
        let mut floor = wrote(&topology);
        floor.is_shown(Xid(7), Timeline(1), A, connected);
        step(&mut floor);
        floor.settle(&topology, at(40));
        assert_eq!(floor.bound_for(A), Bound::OnlyPrimary, "{what}");
    }
    // A position that a token brings binds besides.
    let mut floor = wrote(&topology);
    floor.is_shown(Xid(7), Timeline(1), A, connected);
    floor.merge(&Floor::at(Lsn(95), Timeline(1)));
    assert_eq!(floor.bound_for(A), Bound::Reached(Lsn(95)));
    // Nobody else is bound by its number.
    let mut theirs = Floor::default();
    theirs.settle(&topology, at(25));
    theirs.merge(&floor.sight());
    assert_eq!(theirs.bound_for(A), Bound::OnlyPrimary);
}

#[test]
fn who_has_shown_a_transaction_may_restart_below_it() {
    let before = cluster(&[(10, 100)], replica(90, 15), down());
    let mut floor = wrote(&before);
    floor.is_shown(Xid(7), Timeline(1), A, at(0));
    let awaited = Bound::Shown(Timeline(1), Xid(7));
    for a in [down(), restarted()] {
        let mut floor = floor;
        floor.settle(&cluster(&[(10, 100)], a, down()), at(40));
        assert_eq!(floor.bound_for(A), awaited);
    }
    floor.settle(&before, at(40));
    assert_eq!(floor.bound_for(A), Bound::Reached(Lsn::ZERO));
}

#[test]
fn a_number_means_nothing_behind_a_promotion() {
    let before = cluster(&[(10, 100)], replica(90, 15), replica(90, 15));
    let after = |a| {
        let topology = on_timeline(cluster(&[(10, 100), (50, 120)], a, down()), T2);
        branched(topology, &[(2, 110)])
    };
    let perhaps = Some(Lost::Perhaps(Timeline(1), Some(Xid(7))));
    let connected = at(0);
    for (shows, a, lost) in [
        (false, replica(115, 15), perhaps),
        (true, replica(115, 15), None),
        (true, down(), perhaps),
        (true, restarted(), perhaps),
    ] {
        let mut floor = wrote(&before);
        if shows {
            floor.is_shown(Xid(7), Timeline(1), A, connected);
        }
        floor.settle(&after(a), at(60));
        assert_eq!(floor.take_lost(), lost, "{shows}");
        assert_eq!(bounds(&floor), [Bound::Reached(Lsn(120)); 3]);
        // What another transaction of that number has done there is another's.
        floor.is_shown(Xid(7), Timeline(1), A, connected);
        assert_eq!(bounds(&floor), [Bound::Reached(Lsn(120)); 3]);
    }
    // A number of the old timeline that comes late is none; the moment counts.
    let mut late = Floor::default();
    late.settle(&after(down()), at(60));
    late.raise_to_write(Some(Xid(7)), T1, at(61));
    assert_eq!(late.take_lost(), perhaps);
    assert_eq!(bounds(&late), [Bound::OnlyPrimary; 3]);
    // Who has been silent since may have been overtaken by a probe that nobody has looked at.
    for (probed, lost, bound) in [(105, None, 105), (115, perhaps, 120)] {
        let mut idle = wrote(&before);
        let mut topology = after(down());
        let mut switches = Switches::clone(&topology.switches);
        switches.leave(Timeline(1), Arc::new(history(&[(10, 100), (21, probed)])));
        topology.switches = Arc::new(switches);
        idle.settle(&topology, at(60));
        assert_eq!(idle.take_lost(), lost, "{probed}");
        assert_eq!(bounds(&idle), [Bound::Reached(Lsn(bound)); 3]);
    }
}

#[test]
fn what_was_written_is_not_forgotten_for_what_comes_behind_it() {
    let before = cluster(&[(10, 100)], replica(90, 15), replica(90, 15));
    // The primary was probed last before or behind the write, and timeline 2 began at 110.
    let after = |probes: &[(u64, u64)]| {
        let mut switches = Switches::default();
        switches.leave(Timeline(1), Arc::new(history(probes)));
        switches.learn(Timeline(2), Lsn(110));
        let mut topology = on_timeline(cluster(&[(50, 120)], down(), replica(115, 55)), T2);
        topology.switches = Arc::new(switches);
        topology
    };
    type Step<'a> = &'a dyn Fn(&mut Floor);
    let steps: [(&str, Step); 4] = [
        ("nothing", &|_| {}),
        ("something on the primary", &|floor| {
            floor.raise_to_primary_after(at(22));
        }),
        ("a read on one replica, and on another", &|floor| {
            floor.is_shown(Xid(7), Timeline(1), A, at(0));
            floor.saw_replica(A, at(21));
            floor.saw_replica(B, at(22));
        }),
        ("what another session has seen", &|floor| {
            let mut other = Floor::default();
            other.settle(&before, at(21));
            other.raise_to_primary_after(at(21));
            floor.merge(&other);
        }),
    ];
    for (what, step) in steps {
        for (xid, probes, lost) in [
            (Some(Xid(7)), &[(10, 100)][..], true),
            (None, &[(10, 100)], true),
            (Some(Xid(7)), &[(10, 100), (21, 108)], false),
            (None, &[(10, 100), (21, 108)], false),
        ] {
            let case = format!("{what}, {xid:?}, {probes:?}");
            let mut floor = Floor::default();
            floor.settle(&before, at(5));
            floor.raise_to_write(xid, T1, at(20));
            step(&mut floor);
            floor.settle(&after(probes), at(60));
            let perhaps = Lost::Perhaps(Timeline(1), xid);
            assert_eq!(floor.take_lost(), lost.then_some(perhaps), "{case}");
        }
    }
    // A probe of the primary that comes between it and what comes behind is enough.
    let mut floor = wrote(&before);
    floor.raise_to_primary_after(at(30));
    floor.settle(&cluster(&[(10, 100), (25, 105)], down(), down()), at(40));
    assert_eq!(
        (floor.lsn(), floor.pending()),
        (Lsn(105), Pending::Primary(at(30)))
    );
    floor.settle(&after(&[(10, 100), (25, 105)]), at(60));
    assert_eq!(floor.take_lost(), None);
}

#[test]
fn a_position_survives_a_promotion_up_to_where_the_new_timeline_began() {
    let promoted = |began: &[(u32, u64)]| {
        let topology = cluster(&[(10, 100), (20, 900)], down(), down());
        branched(on_timeline(topology, T2), began)
    };
    let lost = |lsn| Some(Lost::Position(Timeline(1), Lsn(lsn)));
    let table = [
        (400, &[(2, 500)][..], Bound::Reached(Lsn(400)), None),
        (500, &[(2, 500)], Bound::Reached(Lsn(500)), None),
        (501, &[(2, 500)], Bound::Reached(Lsn(500)), lost(501)),
        // The same number exists again on the new timeline, and means something else.
        (800, &[(2, 500)], Bound::Reached(Lsn(500)), lost(800)),
        (501, &[], Bound::OnlyPrimary, None),
        (501, &[(3, 10)], Bound::OnlyPrimary, None),
    ];
    for (lsn, began, bound, expected) in table {
        let case = format!("{lsn}, switches {began:?}");
        let mut floor = Floor::default();
        floor.settle(&cluster(&[(10, 100)], down(), down()), at(11));
        floor.raise(Lsn(lsn), T1);
        floor.settle(&promoted(began), at(20));
        assert_eq!(bounds(&floor), [bound; 3], "{case}");
        assert_eq!(floor.take_lost(), expected, "{case}");
        floor.settle(&promoted(began), at(21));
        assert_eq!(floor.take_lost(), None, "{case}: told once");

        // The same for a capture that comes when the session has settled already, and for a token.
        let topology = promoted(began);
        let mut late = Floor::default();
        late.settle(&topology, at(20));
        late.capture(Lsn(lsn), T1, &topology, at(20));
        assert_eq!(
            (bounds(&late), late.take_lost()),
            ([bound; 3], expected),
            "{case}"
        );
        let mut other = Floor::at(Lsn(lsn), Timeline(1));
        other.settle(&topology, at(20));
        let mut floor = Floor::default();
        floor.settle(&topology, at(20));
        floor.merge(&other);
        assert_eq!(
            (bounds(&floor), floor.take_lost()),
            ([bound; 3], expected),
            "{case}"
        );
    }
}

#[test]
fn a_time_keeps_reads_on_the_primary_until_its_clock_has_passed_it() {
    let clocked = |samples: &[(u64, u64, u64)]| {
        let mut history = History::default();
        for (started, lsn, clock) in samples {
            history.push(super::super::history::Sample {
                started: at(*started),
                lsn: Lsn(*lsn),
                clock: Some(UnixMillis(*clock)),
            });
        }
        Topology {
            history: Arc::new(history),
            ..cluster(&[], replica(900, 10), replica(0, 10))
        }
    };
    let mut floor = Floor::default();
    floor.raise_to_clock(UnixMillis(1015));
    floor.raise_to_clock(UnixMillis(1005));
    floor.settle(&clocked(&[(10, 100, 1010)]), at(11));
    assert_eq!(bounds(&floor), [Bound::OnlyPrimary; 3]);
    assert_eq!(floor.pending(), Pending::Clock);
    floor.settle(&clocked(&[(10, 100, 1010), (20, 120, 1020)]), at(21));
    assert_eq!(bounds(&floor), [Bound::Reached(Lsn(120)); 3]);
    assert_eq!(floor.pending(), Pending::Nothing);
}

#[test]
fn a_merged_floor_demands_what_each_of_the_two_does() {
    let topology = cluster(&[(10, 100)], replica(90, 15), replica(90, 15));
    let settled = |build: fn(&mut Floor)| {
        let mut floor = Floor::default();
        floor.settle(&topology, at(20));
        build(&mut floor);
        floor
    };
    let parts: [fn(&mut Floor); 6] = [
        |_| {},
        |floor| floor.raise(Lsn(70), T1),
        |floor| floor.raise_to_primary_after(at(20)),
        |floor| floor.saw_replica(A, at(21)),
        |floor| floor.saw_replica(B, at(22)),
        |floor| floor.raise_to_clock(UnixMillis(5)),
    ];
    let stricter = |one: Bound, other: Bound| match (one, other) {
        (Bound::Reached(one), Bound::Reached(other)) => Bound::Reached(one.max(other)),
        _ => Bound::OnlyPrimary,
    };
    for one in parts {
        for other in parts {
            let mut merged = settled(one);
            merged.merge(&settled(other));
            let (left, right) = (bounds(&settled(one)), bounds(&settled(other)));
            for (place, bound) in bounds(&merged).into_iter().enumerate() {
                assert_eq!(bound, stricter(left[place], right[place]), "{merged:?}");
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Event {
    /// The session writes on the primary; the position is captured, or lost.
    Write {
        captured: bool,
    },
    /// As a write; its number is captured.
    WriteByNumber,
    /// The replica is asked for the last such write.
    Ask(NodeIndex),
    ReadOnPrimary,
    /// Somebody else writes.
    OthersWrite,
    /// The session reads on a replica, if the floor lets it.
    Read(NodeIndex),
    ReadEventually(NodeIndex),
    /// The replica shows the next record's commit, which it does not count as replayed yet.
    Show(NodeIndex),
    /// The replica replays so many records of what it lacks; often all.
    Replay(NodeIndex, u64),
    /// The replica restarts, so many records lower.
    Restart(NodeIndex, u64),
    Probe(NodeIndex),
    Pass(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let node = || prop_oneof![Just(A), Just(B)];
    prop_oneof![
        any::<bool>().prop_map(|captured| Event::Write { captured }),
        Just(Event::WriteByNumber),
        node().prop_map(Event::Ask),
        Just(Event::ReadOnPrimary),
        Just(Event::OthersWrite),
        Just(Event::OthersWrite),
        node().prop_map(Event::Read),
        node().prop_map(Event::Read),
        node().prop_map(Event::ReadEventually),
        node().prop_map(Event::Show),
        (node(), prop_oneof![1u64..10, Just(u64::from(u32::MAX))])
            .prop_map(|(node, records)| Event::Replay(node, records)),
        (node(), 0u64..10).prop_map(|(node, records)| Event::Restart(node, records)),
        prop_oneof![Just(P), Just(A), Just(B)].prop_map(Event::Probe),
        (1u64..5).prop_map(Event::Pass),
    ]
}

/// Bytes of a record.
const RECORD: u64 = 8;

/// One primary and two replicas as they really are, and what is known of them.
struct World {
    now: u64,
    positions: [u64; 3],
    /// The next record's commit is shown already.
    shows_next: [bool; 3],
    connected: [u64; 3],
    known: [NodeState; 3],
    samples: Vec<(u64, u64)>,
}

impl World {
    fn probe(&mut self, node: NodeIndex) {
        let place = usize::from(node.0);
        self.now += 1;
        let role = if node == P {
            Role::Primary
        } else {
            Role::Replica
        };
        self.known[place] = NodeState::Up(Observation {
            connected: at(self.connected[place]),
            received: (node != P).then_some(Lsn(self.positions[0])),
            ..seen(role, self.positions[place], self.now)
        });
        if node == P {
            self.samples.push((self.now, self.positions[0]));
        }
        self.now += 1;
    }

    /// Where a read there gets to.
    fn shown(&self, place: usize) -> u64 {
        self.positions[place] + RECORD * u64::from(self.shows_next[place])
    }

    fn topology(&self) -> Topology {
        let nodes = (0..)
            .zip(&self.known)
            .map(|(index, state)| node(index, state.clone()));
        topology(nodes, &self.samples)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// The session's oracle: the highest position it has written or seen. Whatever happens, a
    /// replica that the floor lets it read, over a connection that the observation vouches for,
    /// has at least that.
    #[test]
    fn no_session_reads_less_than_it_wrote_or_saw(events in prop::collection::vec(event(), 1..200)) {
        let mut world = World {
            now: 1,
            positions: [80, 80, 80],
            shows_next: [false; 3],
            connected: [0, 0, 0],
            known: [primary(80, 0), replica(80, 0), replica(80, 0)],
            samples: vec![(0, 80)],
        };
        let mut floor = Floor::default();
        let (mut oracle, mut last) = (0, 0);
        for event in events {
            world.now += 1;
            match event {
                Event::Write { captured } => {
                    world.positions[0] += 3 * RECORD;
                    oracle = oracle.max(world.positions[0]);
                    if captured {
                        floor.raise(Lsn(world.positions[0]), T1);
                    } else {
                        floor.raise_to_primary_after(at(world.now));
                    }
                }
                Event::WriteByNumber => {
                    world.positions[0] += 3 * RECORD;
                    oracle = oracle.max(world.positions[0]);
                    last = world.positions[0];
                    floor.raise_to_write(Some(Xid(last)), T1, at(world.now));
                }
                Event::Ask(replica) => {
                    let place = usize::from(replica.0);
                    world.probe(replica);
                    if world.shown(place) >= last {
                        let connected = at(world.connected[place]);
                        floor.is_shown(Xid(last), Timeline(1), replica, connected);
                    }
                }
                Event::ReadOnPrimary => {
                    oracle = oracle.max(world.positions[0]);
                    floor.raise_to_primary_after(at(world.now));
                }
                Event::OthersWrite => world.positions[0] += RECORD,
                Event::Read(replica) => {
                    let place = usize::from(replica.0);
                    let topology = world.topology();
                    floor.settle(&topology, at(world.now));
                    let NodeState::Up(known) = &world.known[place] else { continue };
                    // The pool's youngest server was opened when the node last started.
                    if !known.vouches_for(at(world.connected[place])) {
                        continue;
                    }
                    if let Bound::Reached(lsn) = floor.bound_for(replica) && known.lsn >= lsn {
                        let seen = world.shown(place);
                        prop_assert!(seen >= oracle, "read {seen} after {oracle} on {replica:?}");
                        oracle = seen;
                        floor.saw_replica(replica, at(world.now));
                    }
                }
                Event::ReadEventually(replica) => {
                    oracle = oracle.max(world.shown(usize::from(replica.0)));
                    floor.saw_replica(replica, at(world.now));
                }
                Event::Show(replica) => {
                    let place = usize::from(replica.0);
                    world.shows_next[place] = world.positions[place] < world.positions[0];
                }
                Event::Replay(replica, records) => {
                    let place = usize::from(replica.0);
                    let there = world.positions[place] + records * RECORD;
                    world.positions[place] = there.min(world.positions[0]);
                    world.shows_next[place] = false;
                }
                Event::Restart(replica, records) => {
                    let place = usize::from(replica.0);
                    world.positions[place] = world.positions[place].saturating_sub(records * RECORD);
                    world.shows_next[place] = false;
                    world.connected[place] = world.now;
                }
                Event::Probe(node) => world.probe(node),
                Event::Pass(ms) => world.now += ms,
            }
        }
    }
}
