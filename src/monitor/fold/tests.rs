use proptest::prelude::*;

use super::*;
use crate::routing::{Lsn, NodeName};

const OURS: SystemId = SystemId(1);
const FOREIGN: SystemId = SystemId(2);

/// One answer or failure, as short as a table wants it.
#[derive(Clone, Copy, Debug)]
enum Say {
    Primary {
        timeline: u32,
        lsn: u64,
    },
    /// Streams this timeline.
    Replica {
        timeline: u32,
        lsn: u64,
    },
    /// Streams nothing; has replayed at least this timeline.
    Adrift {
        at_least: u32,
        lsn: u64,
    },
    Foreign(Role),
    Gone,
}

/// A node, what it says, and the picture after that.
type Told = (u8, Say, &'static str);

use Say::{Adrift, Foreign, Gone, Primary, Replica};

/// A fold and the time, in milliseconds since `origin`.
struct Story {
    fold: Fold,
    origin: Instant,
    now: u64,
    /// When each node's control connection was opened.
    connected: Vec<u64>,
}

impl Story {
    fn of(nodes: usize) -> Story {
        let node = |index: u8| Node {
            name: NodeName(format!("n{index}").into()),
            index: NodeIndex(index),
            address: "127.0.0.1:5432".into(),
            region: None,
            weight: 100,
            state: NodeState::Unknown,
            round_trip: None,
            furthest: Lsn::ZERO,
        };
        Story {
            fold: Fold::new((0..nodes as u8).map(node).collect()),
            origin: Instant::now(),
            now: 0,
            connected: vec![0; nodes],
        }
    }

    fn at(&self, ms: u64) -> Instant {
        self.origin + Duration::from_millis(ms)
    }

    fn tell(&mut self, node: u8, say: Say) {
        self.tell_in(node, say, 1);
    }

    /// The probe takes `round_trip` milliseconds.
    fn tell_in(&mut self, node: u8, say: Say, round_trip: u64) {
        self.now += 1;
        let started = self.at(self.now);
        self.now += round_trip;
        let (role, lsn, following, system) = match say {
            Gone => {
                self.connected[usize::from(node)] = self.now + 1;
                let (at, reason) = (self.at(self.now), "no route".into());
                return self
                    .fold
                    .take(NodeIndex(node), Outcome::Failed { at, reason });
            }
            Primary { timeline, lsn } => (
                Role::Primary,
                lsn,
                Following::Streams(Timeline(timeline)),
                OURS,
            ),
            Replica { timeline, lsn } => (
                Role::Replica,
                lsn,
                Following::Streams(Timeline(timeline)),
                OURS,
            ),
            Adrift { at_least, lsn } => (
                Role::Replica,
                lsn,
                Following::AtLeast(Timeline(at_least)),
                OURS,
            ),
            Foreign(role) => (role, 9_000_000, Following::Streams(Timeline(9)), FOREIGN),
        };
        let observation = Observation {
            started,
            finished: self.at(self.now),
            connected: self.at(self.connected[usize::from(node)]),
            role,
            lsn: Lsn(lsn),
            received: None,
            timeline: None,
            branched_at: None,
            clock: None,
            tells_transactions: true,
        };
        let identity = Identity {
            system,
            geometry: WalGeometry::default(),
        };
        self.fold.take(
            NodeIndex(node),
            Outcome::Answered {
                observation,
                following,
                identity,
            },
        );
    }

    /// `P` the primary, `p` another that is up as one, `r` a replica in use, `x` excluded, `d` down,
    /// `?` unknown; then the timeline.
    fn picture(&self) -> String {
        let topology = self.fold.topology();
        let mark = |node: &Arc<Node>| match &node.state {
            NodeState::Up(_) if topology.primary == Some(node.index) => 'P',
            NodeState::Up(seen) if seen.role == Role::Primary => 'p',
            NodeState::Up(_) => 'r',
            NodeState::Excluded { .. } => 'x',
            NodeState::Down { .. } => 'd',
            NodeState::Unknown => '?',
        };
        let nodes: String = topology.nodes.iter().map(mark).collect();
        let timeline = topology.timeline.map_or("-".to_owned(), |t| t.to_string());
        format!("{nodes} {timeline}")
    }

    fn reason(&self, node: u8) -> String {
        match &self.fold.topology().node(NodeIndex(node)).state {
            NodeState::Excluded { reason, .. } | NodeState::Down { reason, .. } => {
                reason.to_string()
            }
            state => panic!("node {node} is {state:?}"),
        }
    }

    fn sampled(&self) -> Vec<u64> {
        let history = &self.fold.topology().history;
        let mut moment = self.origin - Duration::from_millis(1);
        std::iter::from_fn(|| {
            let sample = history.first_started_after(moment)?;
            moment = sample.started;
            Some(sample.lsn.0)
        })
        .collect()
    }
}

fn primary(timeline: u32, lsn: u64) -> Say {
    Primary { timeline, lsn }
}

fn replica(timeline: u32, lsn: u64) -> Say {
    Replica { timeline, lsn }
}

#[test]
fn stories_of_clusters_end_as_they_should() {
    let start = [
        (0, primary(1, 100)),
        (1, replica(1, 90)),
        (2, replica(1, 80)),
    ];
    // what is told after the start, and the picture after each
    let table: &[(&str, &[Told])] = &[
        (
            "nothing happens",
            &[(1, replica(1, 95), "Prr 1"), (0, primary(1, 101), "Prr 1")],
        ),
        (
            "a replica goes and comes",
            &[(1, Gone, "Pdr 1"), (1, replica(1, 70), "Prr 1")],
        ),
        (
            "a primary restarts",
            &[(0, Gone, "drr 1"), (0, primary(1, 99), "Prr 1")],
        ),
        (
            "a failover",
            &[
                (0, Gone, "drr 1"),
                (2, replica(2, 110), "drx 1"),
                (1, primary(2, 105), "dPr 2"),
                (0, primary(1, 120), "xPr 2"),
                (1, Gone, "xdr 2"),
                (0, primary(1, 130), "xdr 2"),
                (1, primary(2, 140), "xPr 2"),
                (0, replica(2, 140), "rPr 2"),
            ],
        ),
        (
            "a promotion while the old primary lives",
            &[
                (1, primary(2, 105), "xPx 2"),
                (0, primary(1, 150), "xPx 2"),
                (2, replica(2, 106), "xPr 2"),
            ],
        ),
        (
            "a promotion back and forth",
            &[
                (1, primary(2, 105), "xPx 2"),
                (0, primary(3, 150), "Pxx 3"),
                (1, replica(3, 150), "Prx 3"),
            ],
        ),
        (
            "two primaries on one timeline",
            &[
                (1, primary(1, 105), "xxr 1"),
                (0, primary(1, 150), "xxr 1"),
                (1, Gone, "Pdr 1"),
            ],
        ),
        (
            "two promoted to one timeline",
            &[
                (1, primary(2, 105), "xPx 2"),
                (2, primary(2, 105), "xxx 2"),
                (1, replica(2, 105), "xrP 2"),
            ],
        ),
        (
            "a replica that falls behind a promotion",
            &[
                (1, primary(2, 105), "xPx 2"),
                (2, replica(1, 100), "xPx 2"),
                (
                    2,
                    Adrift {
                        at_least: 1,
                        lsn: 100,
                    },
                    "xPx 2",
                ),
            ],
        ),
        (
            "another cluster in a node's place",
            &[
                (1, Foreign(Role::Replica), "Pxr 1"),
                (0, Foreign(Role::Primary), "xxr 1"),
                (0, primary(1, 101), "Pxr 1"),
            ],
        ),
    ];
    for (story, events) in table {
        let mut told = Story::of(3);
        for (node, say) in start {
            told.tell(node, say);
        }
        assert_eq!(told.picture(), "Prr 1", "{story}");
        for (node, say, picture) in *events {
            told.tell(*node, *say);
            assert_eq!(
                told.picture(),
                *picture,
                "{story}: after node {node} was {say:?}"
            );
        }
    }
}

#[test]
fn nothing_is_known_before_it_is_told() {
    let mut story = Story::of(2);
    assert_eq!(
        (story.picture(), story.fold.all_looked_at()),
        ("?? -".into(), false)
    );
    story.tell(1, replica(1, 90));
    assert_eq!(
        (story.picture(), story.fold.all_looked_at()),
        ("?r 1".into(), false)
    );
    story.tell(0, Gone);
    assert_eq!(
        (story.picture(), story.fold.all_looked_at()),
        ("dr 1".into(), true)
    );
}

#[test]
fn without_a_primary_the_newest_timeline_counts() {
    let mut story = Story::of(3);
    story.tell(0, replica(1, 500));
    story.tell(1, replica(2, 90));
    assert_eq!(story.picture(), "xr? 2");
    story.tell(2, primary(1, 600));
    assert_eq!(story.picture(), "rxP 1", "a primary knows better");
}

#[test]
fn the_cluster_of_most_nodes_counts_until_a_primary_has_settled_it() {
    let mut story = Story::of(3);
    story.tell(0, Foreign(Role::Primary));
    assert_eq!(story.picture(), "P?? 9");
    story.tell(1, primary(1, 100));
    story.tell(2, replica(1, 90));
    assert_eq!(story.picture(), "xPr 1");
    assert!(
        story.reason(0).contains("another cluster"),
        "{}",
        story.reason(0)
    );
    assert!(story.reason(0).contains("is 2") && story.reason(0).contains("is 1"));
    assert_eq!(story.sampled(), [100], "nothing of the foreign cluster");
    story.tell(1, Gone);
    story.tell(2, Gone);
    assert_eq!(
        story.picture(),
        "xdd 1",
        "settled: the majority does not matter any more"
    );
}

#[test]
fn the_history_is_of_one_timeline_of_one_primary() {
    let mut story = Story::of(2);
    story.tell(0, primary(1, 100));
    story.tell(1, replica(1, 100));
    story.tell(0, primary(1, 8192 + 24));
    assert_eq!(story.sampled(), [100, 8192], "normalised");
    story.tell(0, Gone);
    assert_eq!(
        story.sampled(),
        [100, 8192],
        "replicas are still measured by it"
    );
    story.tell(0, primary(1, 300));
    assert_eq!(story.sampled(), [100, 300], "it lost what was not flushed");
    story.tell(1, primary(2, 200));
    assert_eq!(story.sampled(), [200]);
    story.tell(0, primary(1, 900));
    assert_eq!(story.sampled(), [200], "the old primary adds nothing");
    story.tell(1, Gone);
    story.tell(0, primary(2, 950));
    assert_eq!(
        story.sampled(),
        [950],
        "another primary, if on the same timeline"
    );
}

#[test]
fn a_dispute_adds_no_positions_and_says_why() {
    let mut story = Story::of(2);
    story.tell(0, primary(1, 100));
    story.tell(1, primary(1, 500));
    story.tell(0, primary(1, 110));
    assert_eq!(story.sampled(), [100]);
    for node in [0, 1] {
        assert!(
            story
                .reason(node)
                .contains("several nodes claim to be the primary on timeline 1")
        );
    }
}

#[test]
fn a_replica_that_streams_no_more_keeps_its_timeline_until_it_restarts() {
    let adrift = Adrift {
        at_least: 1,
        lsn: 210,
    };
    let mut story = Story::of(2);
    story.tell(0, primary(2, 200));
    story.tell(1, adrift);
    assert_eq!(story.picture(), "Px 2", "timeline 1 is all that it proves");
    story.tell(1, replica(2, 210));
    story.tell(1, adrift);
    assert_eq!(story.picture(), "Pr 2", "it has been seen on 2");
    story.tell(1, Gone);
    story.tell(1, adrift);
    assert_eq!(story.picture(), "Px 2", "it may have been replaced");
    story.tell(
        1,
        Adrift {
            at_least: 2,
            lsn: 210,
        },
    );
    assert_eq!(story.picture(), "Pr 2");
}

#[test]
fn a_node_is_down_since_its_first_failure_for_its_last_reason() {
    let mut story = Story::of(1);
    story.tell(0, primary(1, 100));
    story.tell(0, Gone);
    let since = |story: &Story| match story.fold.topology().nodes[0].state {
        NodeState::Down { since, .. } => since,
        ref state => panic!("{state:?}"),
    };
    let first = since(&story);
    let at = story.at(story.now + 50);
    story.fold.take(
        NodeIndex(0),
        Outcome::Failed {
            at,
            reason: "refused".into(),
        },
    );
    assert_eq!((since(&story), story.reason(0)), (first, "refused".into()));
}

#[test]
fn the_distance_is_the_median_of_the_last_ten() {
    let mut story = Story::of(1);
    let mut distance = |round_trip| {
        story.tell_in(0, primary(1, 100), round_trip);
        story.fold.topology().nodes[0]
            .round_trip
            .unwrap()
            .as_millis()
    };
    assert_eq!([7, 1, 9].map(&mut distance), [7, 7, 7]);
    assert_eq!([50; 9].map(&mut distance)[8], 50);
    assert_eq!([3; 6].map(&mut distance), [50, 50, 50, 50, 50, 3]);
}

fn say() -> impl Strategy<Value = Say> {
    let (timeline, lsn) = (|| 1u32..4, || 0u64..1000);
    prop_oneof![
        (timeline(), lsn()).prop_map(|(timeline, lsn)| Primary { timeline, lsn }),
        (timeline(), lsn()).prop_map(|(timeline, lsn)| Replica { timeline, lsn }),
        (timeline(), lsn()).prop_map(|(at_least, lsn)| Adrift { at_least, lsn }),
        Just(Foreign(Role::Primary)),
        Just(Foreign(Role::Replica)),
        Just(Gone),
    ]
}

proptest! {
    /// Whatever is told, in whatever order: whoever may be used is of the topology's cluster and
    /// timeline, the primary is one of them, there is no second, and the timeline never falls.
    #[test]
    fn what_may_be_used_is_of_one_timeline(events in prop::collection::vec((0u8..4, say()), 1..60)) {
        let mut story = Story::of(4);
        for node in 0..4 {
            story.tell(node, if node == 0 { primary(1, 0) } else { replica(1, 0) });
        }
        let mut newest = Some(Timeline(1));
        for (node, say) in events {
            story.tell(node, say);
            let topology = story.fold.topology();
            prop_assert_eq!(topology.system, Some(OURS));
            prop_assert!(topology.timeline >= newest);
            newest = topology.timeline;
            let mut primaries = Vec::new();
            for node in &topology.nodes {
                if let Some(seen) = node.observation() {
                    prop_assert_eq!(seen.timeline, topology.timeline);
                    if seen.role == Role::Primary {
                        primaries.push(node.index);
                    }
                }
            }
            prop_assert_eq!(primaries, Vec::from_iter(topology.primary));
        }
    }
}

#[test]
fn a_replica_that_goes_back_is_behind_its_furthest_position() {
    let mut story = Story::of(2);
    let furthest = |story: &Story| story.fold.topology().node(NodeIndex(1)).furthest.0;
    story.tell(0, primary(1, 500));
    for (say, expected) in [
        (replica(1, 400), 400),
        (replica(1, 450), 450),
        (Gone, 450),
        (replica(1, 100), 450),
        (replica(1, 460), 460),
        (replica(2, 300), 300),
    ] {
        story.tell(1, say);
        assert_eq!(furthest(&story), expected, "{say:?}");
    }
}
