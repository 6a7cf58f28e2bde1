use super::*;
use crate::config::{ServerTls, TlsMode};
use crate::routing::Lsn;

const PACE: Pace = Pace {
    probe_interval: Duration::from_secs(100),
    wait_interval: Duration::from_secs(1),
    probe_timeout: Duration::from_secs(5),
};

fn config(count: usize) -> Vec<NodeConfig> {
    let node = |index| NodeConfig {
        name: format!("n{index}"),
        host: "127.0.0.1".into(),
        port: 1,
        region: None,
        weight: 100,
        max_connections: 1,
        tls: ServerTls {
            mode: TlsMode::Prefer,
            root_cert: None,
        },
    };
    (0..count).map(node).collect()
}

fn settings() -> MonitorConfig {
    MonitorConfig {
        user: "nobody".into(),
        password: None,
        database: "postgres".into(),
        probe_interval: Duration::from_millis(100),
        probe_timeout: Duration::from_secs(5),
        wait_interval: Duration::from_millis(2),
        ..MonitorConfig::default()
    }
}

/// Whether the next probe is due before so many seconds of a clock that only moves when nothing
/// else can.
async fn is_due_within(feed: &Feed, none_in_flight: bool, seconds: u64) -> bool {
    let Some(post) = feed.board().post(NodeIndex(0)) else {
        return false;
    };
    let last = Some(tokio::time::Instant::now().into_std());
    tokio::select! {
        () = due(post, last, none_in_flight, PACE) => true,
        () = sleep(Duration::from_secs(seconds)) => false,
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_is_due_sooner_while_somebody_waits() {
    let feed = Feed::new(vec![unseen(NodeIndex(0), &config(1)[0])]);
    assert!(!is_due_within(&feed, true, 99).await);
    assert!(is_due_within(&feed, true, 101).await);
    assert!(!is_due_within(&feed, false, 10_000).await, "one at a time");

    feed.suspect(NodeIndex(0));
    assert!(is_due_within(&feed, true, 2).await);
    feed.board().post(NodeIndex(0)).unwrap().looks_again();
    assert!(!is_due_within(&feed, true, 99).await);

    let waiter = tokio::spawn({
        let feed = feed.clone();
        async move {
            feed.reached(NodeIndex(0), Lsn(1), Duration::from_secs(100_000))
                .await
        }
    });
    assert!(
        is_due_within(&feed, true, 2).await,
        "a sleeping loop is interrupted"
    );
    assert!(is_due_within(&feed, false, 2).await, "others are in flight");
    assert!(
        !is_due_within(&feed, false, 0).await,
        "not sooner than the interval"
    );
    waiter.abort();
}

#[tokio::test]
async fn settings_that_cannot_be_watched_are_refused() {
    let text = |nodes: &[NodeConfig]| match Monitor::start(nodes, &settings()) {
        Ok(_) => panic!("{} nodes are watched", nodes.len()),
        Err(error) => error.to_string(),
    };
    assert_eq!(text(&[]), "no nodes are configured");
    assert_eq!(
        text(&config(65)),
        "65 nodes are configured, at most 64 are possible"
    );
    let mut nodes = config(2);
    nodes[1].tls.root_cert = Some("/nowhere/root.pem".into());
    let text = text(&nodes);
    assert!(
        text.starts_with("node \"n1\": could not read root certificate"),
        "{text}"
    );
}

#[tokio::test]
async fn a_node_that_is_not_there_is_down_and_says_why() {
    let (_monitor, feed) = Monitor::start(&config(1), &settings()).unwrap();
    feed.first_look(Duration::from_secs(60)).await;
    let topology = feed.topology().clone();
    match &topology.nodes[0].state {
        NodeState::Down { reason, .. } => {
            assert!(
                reason.contains("could not connect") && reason.contains("refused"),
                "{reason}"
            );
        }
        state => panic!("{state:?}"),
    }
}
