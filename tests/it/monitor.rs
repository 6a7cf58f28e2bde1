//! The monitor against real clusters: what it sees, and how it follows faults.

use std::fs;
use std::time::{Duration, Instant};

use causeway::config::{MonitorConfig, NodeConfig, ServerTls, TlsMode};
use causeway::lab::{APP_DATABASE, APP_USER, Cut, Lab, LabNode, MONITOR_USER, Mode, PASSWORD};
use causeway::monitor::{Feed, Monitor};
use causeway::routing::{Lsn, NodeIndex, NodeState, Role, Timeline, Topology};

const SOON: Duration = Duration::from_secs(30);
const A_WHILE: Duration = Duration::from_millis(300);

const EAST: NodeIndex = NodeIndex(0);
const WEST: NodeIndex = NodeIndex(1);
const SOUTH: NodeIndex = NodeIndex(2);

fn settings(user: &str) -> MonitorConfig {
    MonitorConfig {
        user: user.to_owned(),
        password: Some(PASSWORD.to_owned().into()),
        database: APP_DATABASE.to_owned(),
        probe_interval: Duration::from_millis(50),
        probe_timeout: Duration::from_secs(5),
        wait_interval: Duration::from_millis(2),
        ..MonitorConfig::default()
    }
}

fn config_of(node: &LabNode) -> NodeConfig {
    NodeConfig {
        name: node.name().to_owned(),
        host: "127.0.0.1".to_owned(),
        port: node.port(),
        region: Some(node.region().to_owned()),
        weight: 100,
        max_connections: 10,
        tls: ServerTls {
            mode: TlsMode::Prefer,
            root_cert: None,
        },
    }
}

async fn watch(lab: &Lab, user: &str) -> (Monitor, Feed) {
    let nodes: Vec<NodeConfig> = lab.nodes().map(config_of).collect();
    let (monitor, feed) = Monitor::start(&nodes, &settings(user)).unwrap();
    feed.first_look(SOON).await;
    (monitor, feed)
}

/// Waits until the published topology is as `wanted`; says what it was instead if it never is.
async fn until(feed: &Feed, what: &str, wanted: impl Fn(&Topology) -> bool) {
    let deadline = Instant::now() + SOON;
    let mut glance = tokio::time::interval(Duration::from_millis(5));
    while !wanted(&feed.topology()) {
        let states: Vec<_> = feed
            .topology()
            .nodes
            .iter()
            .map(|n| n.state.clone())
            .collect();
        assert!(Instant::now() < deadline, "never {what}: {states:#?}");
        glance.tick().await;
    }
}

fn is_excluded(topology: &Topology, node: NodeIndex, because: &str) -> bool {
    matches!(&topology.node(node).state,
        NodeState::Excluded { reason, .. } if reason.contains(because))
}

fn is_down(topology: &Topology, node: NodeIndex) -> bool {
    matches!(topology.node(node).state, NodeState::Down { .. })
}

fn is_replica(topology: &Topology, node: NodeIndex) -> bool {
    topology.replicas().any(|replica| replica.index == node)
}

/// Writes something and gives the position that a replica must have reached to show it.
async fn write(primary: &LabNode) -> Lsn {
    let client = primary.connect(APP_USER, APP_DATABASE).await.unwrap();
    let sql = "CREATE TABLE IF NOT EXISTS note (at timestamptz); INSERT INTO note VALUES (now())";
    client.batch_execute(sql).await.unwrap();
    primary.insert_lsn().await.unwrap()
}

#[tokio::test]
async fn roles_positions_and_distances_are_seen_with_and_without_pg_monitor() {
    let lab = Lab::small().await.unwrap();
    for user in [MONITOR_USER, APP_USER] {
        let (_monitor, feed) = watch(&lab, user).await;
        let topology = feed.topology().clone();
        assert_eq!(topology.primary, Some(EAST), "as {user}");
        assert_eq!(topology.timeline, Some(Timeline(1)));
        assert_eq!(topology.geometry.segment_size, 16 * 1024 * 1024);
        assert!(topology.system.is_some());
        for (node, role) in [(EAST, Role::Primary), (WEST, Role::Replica)] {
            let node = topology.node(node);
            let seen = node.observation().expect("up");
            assert_eq!((seen.role, seen.timeline), (role, Some(Timeline(1))));
            assert!(seen.connected <= seen.started && seen.started < seen.finished);
            assert!(node.round_trip.is_some());
        }

        let moment = Instant::now();
        let written = write(lab.node("us-east")).await;
        assert!(feed.reached(WEST, written, SOON).await, "as {user}");
        until(&feed, "sampled", |topology| {
            topology.history.first_started_after(moment).is_some()
        })
        .await;
    }
}

#[tokio::test]
async fn a_waiter_hears_when_replay_goes_on_and_not_before() {
    let lab = Lab::small().await.unwrap();
    let (_monitor, feed) = watch(&lab, MONITOR_USER).await;
    let west = lab.node("eu-west");
    west.pause_replay().await.unwrap();
    let written = write(lab.node("us-east")).await;
    assert!(!feed.reached(WEST, written, A_WHILE).await);
    assert!(west.replay_lsn().await.unwrap() < Some(written));

    let waiter = tokio::spawn({
        let feed = feed.clone();
        async move { feed.reached(WEST, written, SOON).await }
    });
    west.resume_replay().await.unwrap();
    assert!(waiter.await.unwrap());
    assert!(west.replay_lsn().await.unwrap() >= Some(written));
}

#[tokio::test]
async fn a_promotion_is_followed_and_the_old_primary_stays_out() {
    let lab = Lab::builder()
        .primary("us-east")
        .replica("eu-west")
        .replica("ap-south")
        .build()
        .await
        .unwrap();
    let begun = Instant::now();
    let (_monitor, feed) = watch(&lab, MONITOR_USER).await;
    assert_eq!(feed.topology().primary, Some(EAST));
    lab.wait_caught_up("eu-west").await.unwrap();
    lab.wait_caught_up("ap-south").await.unwrap();

    lab.node("us-east").kill().await.unwrap();
    let killed = Instant::now();
    until(&feed, "without a primary", |topology| {
        topology.primary.is_none()
    })
    .await;
    assert!(is_down(&feed.topology(), EAST));
    assert_eq!(feed.primary_within(A_WHILE).await, None);
    assert!(
        is_replica(&feed.topology(), SOUTH),
        "still good for what it has"
    );

    let waiter = tokio::spawn({
        let feed = feed.clone();
        async move { feed.primary_within(SOON).await }
    });
    lab.node("eu-west").promote().await.unwrap();
    assert_eq!(waiter.await.unwrap(), Some(WEST));
    let new = feed.topology().clone();
    assert_eq!(new.timeline, Some(Timeline(2)));
    let oldest = new.history.first_started_after(begun).unwrap();
    assert!(
        oldest.started > killed,
        "a sample of the old timeline is left"
    );

    // The other replica has lost its source: it is on the old timeline until it follows the new.
    until(&feed, "excluded", |topology| {
        is_excluded(topology, SOUTH, "it follows timeline 1")
    })
    .await;
    lab.follow("ap-south", "eu-west");
    until(&feed, "following", |topology| is_replica(topology, SOUTH)).await;
    let written = write(lab.node("eu-west")).await;
    assert!(feed.reached(SOUTH, written, SOON).await);

    lab.node("us-east").start().await.unwrap();
    until(&feed, "excluded", |topology| {
        is_excluded(topology, EAST, "timeline 1, which timeline 2 has replaced")
    })
    .await;
    assert_eq!(feed.topology().primary, Some(WEST));

    // The new one goes away: the old one still is none.
    lab.node("eu-west").stop(Mode::Fast).await.unwrap();
    until(&feed, "without a primary", |topology| {
        topology.primary.is_none()
    })
    .await;
    assert_eq!(feed.primary_within(A_WHILE).await, None);
    assert!(is_excluded(&feed.topology(), EAST, "timeline 1"));
}

#[tokio::test]
async fn a_restarted_replica_is_down_and_then_observed_anew() {
    let lab = Lab::small().await.unwrap();
    let (_monitor, feed) = watch(&lab, MONITOR_USER).await;
    let before = *feed.topology().node(WEST).observation().unwrap();
    let west = lab.node("eu-west");
    west.stop(Mode::Immediate).await.unwrap();
    feed.suspect(WEST);
    until(&feed, "down", |topology| is_down(topology, WEST)).await;
    assert_eq!(feed.topology().primary, Some(EAST));
    let stopped = Instant::now();
    west.start().await.unwrap();
    until(&feed, "up", |topology| is_replica(topology, WEST)).await;
    let after = *feed.topology().node(WEST).observation().unwrap();
    assert!(before.connected < stopped && stopped < after.connected);
}

#[tokio::test]
async fn a_node_that_falls_silent_is_down_until_it_answers_again() {
    let lab = Lab::builder()
        .primary("us-east")
        .replica("eu-west")
        .round_trip("us-east", "eu-west", Duration::from_millis(20))
        .build()
        .await
        .unwrap();
    let mut nodes: Vec<NodeConfig> = lab.nodes().map(config_of).collect();
    nodes[1].port = lab.node("eu-west").port_from("us-east");
    let settings = MonitorConfig {
        probe_timeout: Duration::from_secs(1),
        ..settings(MONITOR_USER)
    };
    let (_monitor, feed) = Monitor::start(&nodes, &settings).unwrap();
    // On a slow machine it may have been down before.
    let is_up = |topology: &Topology| is_replica(topology, WEST);
    until(&feed, "up", is_up).await;

    lab.node("eu-west").cut_link("us-east", Cut::Freeze);
    until(&feed, "down for silence", |topology| {
        matches!(&topology.node(WEST).state,
            NodeState::Down { reason, .. } if reason.contains("no answer within 1000 ms"))
    })
    .await;
    until(&feed, "with its primary", |topology| {
        topology.primary == Some(EAST)
    })
    .await;
    let silent = Instant::now();
    assert!(!feed.seen_since(WEST, silent, A_WHILE).await);
    lab.node("eu-west").restore_link("us-east");
    assert!(feed.seen_since(WEST, silent, SOON).await);
    until(&feed, "up", is_up).await;

    lab.node("eu-west").cut_link("us-east", Cut::Reset);
    until(&feed, "down", |topology| is_down(topology, WEST)).await;
    lab.node("eu-west").restore_link("us-east");
    until(&feed, "up", is_up).await;
}

#[tokio::test]
async fn another_cluster_is_kept_out() {
    let foreign = Lab::builder().primary("us-east").build();
    let (ours, foreign) = tokio::join!(Lab::small(), foreign);
    let (ours, foreign) = (ours.unwrap(), foreign.unwrap());
    let mut nodes: Vec<NodeConfig> = ours.nodes().map(config_of).collect();
    nodes.push(config_of(foreign.node("us-east")));
    let (_monitor, feed) = Monitor::start(&nodes, &settings(MONITOR_USER)).unwrap();
    feed.first_look(SOON).await;
    until(&feed, "excluded", |topology| {
        is_excluded(topology, SOUTH, "another cluster") && topology.primary == Some(EAST)
    })
    .await;
}

#[tokio::test]
async fn a_node_that_proves_itself_by_tls_is_used_and_no_other() {
    let files = tempfile::tempdir().unwrap();
    let (certificate, key) = (files.path().join("node.pem"), files.path().join("node.key"));
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    fs::write(&certificate, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let other = files.path().join("other.pem");
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    fs::write(&other, made.cert.pem()).unwrap();

    let lab = Lab::builder()
        .primary("us-east")
        .tls(&certificate, &key)
        .build()
        .await
        .unwrap();
    let mut good = config_of(lab.node("us-east"));
    good.tls.mode = TlsMode::VerifyFull;
    good.tls.root_cert = Some(certificate);
    let mut bad = good.clone();
    bad.tls.root_cert = Some(other);
    let (_monitor, feed) = Monitor::start(&[good, bad], &settings(MONITOR_USER)).unwrap();
    feed.first_look(SOON).await;
    let topology = feed.topology().clone();
    assert_eq!(topology.primary, Some(EAST));
    assert!(
        matches!(&topology.node(WEST).state, NodeState::Down { reason, .. }
            if reason.contains("certificate")),
        "{:?}",
        topology.node(WEST).state
    );
}
