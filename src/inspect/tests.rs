use std::sync::Arc;
use std::time::{Duration, Instant};

use super::nodes::{self, Health, NodeStatus};
use super::pools::{PoolRow, Servers};
use crate::routing::history::Sample;
use crate::routing::{
    History, Lsn, Node, NodeIndex, NodeName, NodeState, Observation, Role, Topology, WalGeometry,
};

struct Scene {
    now: Instant,
}

impl Scene {
    fn before(&self, ms: u64) -> Instant {
        self.now - Duration::from_millis(ms)
    }

    fn seen(&self, role: Role, lsn: u64) -> Observation {
        Observation {
            started: self.before(10),
            finished: self.before(5),
            connected: self.before(9_000),
            role,
            lsn: Lsn(lsn),
            received: None,
            timeline: None,
            branched_at: None,
            clock: None,
            tells_transactions: true,
        }
    }

    fn primary(&self) -> NodeState {
        NodeState::Up(self.seen(Role::Primary, 300))
    }

    fn replica(&self, lsn: u64) -> NodeState {
        NodeState::Up(self.seen(Role::Replica, lsn))
    }

    fn down(&self) -> NodeState {
        NodeState::Down {
            since: self.before(2_000),
            reason: "no route".into(),
        }
    }

    fn excluded(&self) -> NodeState {
        NodeState::Excluded {
            observation: self.seen(Role::Replica, 100),
            reason: "another cluster".into(),
        }
    }

    fn topology(&self, primary: Option<u8>, states: Vec<NodeState>) -> Topology {
        let mut history = History::default();
        for (ms, lsn) in [(1_500, 100), (500, 300)] {
            history.push(Sample {
                started: self.before(ms),
                lsn: Lsn(lsn),
                clock: None,
            });
        }
        let node = |(place, state): (usize, NodeState)| {
            Arc::new(Node {
                name: NodeName(format!("n{place}").into()),
                index: NodeIndex(place as u8),
                address: format!("127.0.0.1:{place}").into(),
                region: None,
                weight: 100,
                state,
                round_trip: None,
                furthest: Lsn::ZERO,
            })
        };
        Topology {
            nodes: states.into_iter().enumerate().map(node).collect(),
            primary: primary.map(NodeIndex),
            system: None,
            timeline: None,
            geometry: WalGeometry::default(),
            history: Arc::new(history),
            switches: Arc::default(),
        }
    }
}

#[test]
fn the_whole_is_as_healthy_as_its_nodes_allow() {
    let scene = Scene {
        now: Instant::now() + Duration::from_secs(60),
    };
    let s = &scene;
    for (primary, states, expected) in [
        (Some(0), vec![s.primary()], Health::Healthy),
        (Some(0), vec![s.primary(), s.replica(9)], Health::Healthy),
        (Some(0), vec![s.primary(), s.down()], Health::Degraded),
        (Some(0), vec![s.primary(), s.excluded()], Health::Degraded),
        (
            Some(0),
            vec![s.primary(), NodeState::Unknown],
            Health::Degraded,
        ),
        (None, vec![s.down(), s.replica(9)], Health::Degraded),
        (None, vec![s.replica(9)], Health::Degraded),
        (None, vec![s.primary(), s.primary()], Health::Unhealthy),
        (None, vec![s.down(), s.excluded()], Health::Unhealthy),
        (None, vec![NodeState::Unknown], Health::Unhealthy),
        (None, vec![], Health::Unhealthy),
    ] {
        let topology = scene.topology(primary, states);
        assert_eq!(nodes::health(&topology), expected, "{:#?}", topology.nodes);
    }
}

#[test]
fn a_row_tells_what_is_known_and_nothing_of_the_past() {
    let scene = Scene {
        now: Instant::now() + Duration::from_secs(60),
    };
    let states = vec![
        scene.primary(),
        scene.replica(250),
        scene.down(),
        scene.excluded(),
        scene.primary(),
    ];
    let topology = scene.topology(Some(0), states);
    let pool = |index: u8, idle, in_use, waiters| PoolRow {
        database: "app".into(),
        user: "app".into(),
        node: NodeName("n".into()),
        index: NodeIndex(index),
        servers: Servers {
            idle,
            in_use,
            waiters,
        },
        size: 20,
    };
    let pools = [pool(0, 1, 2, 3), pool(1, 7, 0, 0), pool(0, 10, 20, 30)];
    let rows = nodes::rows(&topology, &pools, scene.now);

    let statuses: Vec<NodeStatus> = rows.iter().map(|row| row.status.clone()).collect();
    let expected = [
        NodeStatus::Primary,
        NodeStatus::Replica,
        NodeStatus::Down {
            since_ago: Duration::from_secs(2),
            reason: "no route".into(),
        },
        NodeStatus::Excluded {
            reason: "another cluster".into(),
        },
        NodeStatus::RivalPrimary,
    ];
    assert_eq!(statuses, expected);

    let [primary, replica, down, excluded, _] = &rows[..] else {
        panic!("{rows:#?}");
    };
    assert_eq!((primary.lag_bytes, primary.staleness), (Some(0), None));
    let sum = Servers {
        idle: 11,
        in_use: 22,
        waiters: 33,
    };
    assert_eq!((primary.servers, primary.servers.open()), (sum, 33));
    assert_eq!(replica.lag_bytes, Some(50));
    assert_eq!(replica.staleness, Some(Duration::from_millis(1_500)));
    assert_eq!(replica.observed_ago, Some(Duration::from_millis(10)));
    assert_eq!(replica.servers.idle, 7);
    for gone in [down, excluded] {
        assert_eq!((gone.position, gone.lag_bytes), (None, None));
        assert_eq!((gone.staleness, gone.observed_ago), (None, None));
    }
}
