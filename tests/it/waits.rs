//! Waiting for a replica or going to the primary, and how many may go.

use std::time::Duration;

use causeway::config::{Consistency, OnLag, ProfileConfig};
use causeway::lab::Lab;
use tokio_postgres::Client;

use crate::front::{ANYWHERE, Front, PATIENCE, ask, try_ask, until, until_known};

/// One replica beside the Causeway, with all there is and then no more.
async fn standing_still(change: impl FnOnce(&mut causeway::config::Config)) -> Front {
    let lab = Lab::builder()
        .quick()
        .primary("us-east")
        .replica("eu-west")
        .round_trip("us-east", "eu-west", Duration::from_millis(20))
        .build();
    let front = Front::before(lab.await.unwrap(), change).await;
    let client = front.client().await;
    client
        .batch_execute("CREATE TABLE t (a int)")
        .await
        .unwrap();
    until_known(&client, "t").await;
    front.lab.wait_caught_up("eu-west").await.unwrap();
    front.lab.node("eu-west").pause_replay().await.unwrap();
    front
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_moves_only_so_many_reads_to_the_primary() {
    let front = standing_still(|config| {
        config.routing.max_displaced = 1;
        config.routing.max_wait = Duration::from_millis(300);
    });
    let front = front.await;
    let (one, other) = (front.client().await, front.client().await);
    for client in [&one, &other] {
        client
            .batch_execute("INSERT INTO t VALUES (1)")
            .await
            .unwrap();
    }
    let admin = front.admin().await;
    let slow = try_ask(&one, "SELECT count(*) FROM t, pg_sleep(60)");
    let meanwhile = async {
        let asleep = "FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
        until(&admin, &format!("SELECT count(*) {asleep}"), "1").await;
        let refused = try_ask(&other, "SELECT count(*) FROM t").await;
        let cancel = format!("SELECT pg_cancel_backend(pid) {asleep}");
        assert_eq!(ask(&admin, &cancel).await, "t");
        refused
    };
    let (first, second) = tokio::join!(slow, meanwhile);
    assert_eq!(first, Err("57014".to_owned()));
    assert_eq!(second, Err("53300".to_owned()));
    let lags = async |client: &Client| {
        let route = ask(client, "SHOW causeway.last_route").await;
        assert!(route.contains("reason=\"replicas lag\""), "{route}");
    };
    lags(&one).await;
    // The leave has come back with the answer, each time.
    for client in [&other, &one] {
        assert_eq!(ask(client, "SELECT count(*) FROM t").await, "2");
        lags(client).await;
    }
}

/// A replica that never gets there is no longer waited for, and is again when it has caught up.
#[tokio::test(flavor = "multi_thread")]
async fn waits_in_vain_are_given_up() {
    let front = standing_still(|config| config.admin = Some(ANYWHERE)).await;
    let client = front.client().await;
    let waited = async || -> f64 {
        client
            .batch_execute("INSERT INTO t VALUES (1)")
            .await
            .unwrap();
        ask(&client, "SELECT count(*) FROM t").await;
        let route = ask(&client, "SHOW causeway.last_route").await;
        let (_, waited) = route.split_once("waited_ms=").expect("the wait");
        waited.parse().unwrap()
    };
    let mut waits = Vec::new();
    for _ in 0..100 {
        waits.push(waited().await);
    }
    let long = |waits: &[f64]| waits.iter().filter(|ms| **ms >= 15.0).count();
    let (early, late) = (long(&waits[..10]), long(&waits[50..]));
    println!("{early} of the first 10 reads waited, {late} of the last 50");
    assert!(early >= 3, "{waits:?}");
    assert!(late <= 25, "{waits:?}");
    // Some of those that did not wait were followed up, and were right: the replica never got there.
    let decisions = async |labels: &str| -> f64 {
        let metrics = front.metrics().await;
        let sample = format!("causeway_decisions_total{{{labels}}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&sample));
        line.map_or(0.0, |count| count.parse().unwrap())
    };
    let mut rounds = 0;
    while decisions(r#"decision="go",outcome="right""#).await < 3.0 {
        waited().await;
        rounds += 1;
        assert!(rounds < 500, "nobody is followed up");
    }
    assert!(decisions(r#"decision="wait",outcome="wrong""#).await >= 3.0);
    let metrics = front.metrics().await;
    assert!(
        metrics.contains(r#"causeway_wait_seconds_bucket{le="0.02"}"#),
        "{metrics}"
    );
    front.lab.node("eu-west").resume_replay().await.unwrap();
    let near = async || {
        client
            .batch_execute("INSERT INTO t VALUES (1)")
            .await
            .unwrap();
        ask(&client, "SELECT count(*) FROM t").await;
        let route = ask(&client, "SHOW causeway.last_route").await;
        route.contains("role=replica")
    };
    let mut rounds = 0;
    while !near().await {
        rounds += 1;
        assert!(rounds < 500, "the replica is never waited for again");
    }
}

/// A connection's policy, by what it calls itself.
fn policy(name: &str, on_lag: OnLag, max_wait: Duration) -> ProfileConfig {
    ProfileConfig {
        name: name.to_owned(),
        databases: Vec::new(),
        users: Vec::new(),
        applications: vec![name.to_owned()],
        tables: Vec::new(),
        consistency: Consistency::Session,
        max_staleness: None,
        max_wait: Some(max_wait),
        on_lag: Some(on_lag),
        enforced: false,
    }
}

/// Every policy at every level, with a replica that stands still behind what the client has written.
#[tokio::test(flavor = "multi_thread")]
async fn each_policy_does_at_each_level_what_it_says() {
    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(30);
    let policies = [
        ("goes", OnLag::Primary, LONG),
        ("goes-at-once", OnLag::Primary, Duration::ZERO),
        ("waits", OnLag::Wait, SHORT),
        ("waits-not", OnLag::Wait, Duration::ZERO),
        ("waits-long", OnLag::Wait, LONG),
        ("fails", OnLag::Error, SHORT),
        ("fails-at-once", OnLag::Error, Duration::ZERO),
        ("fails-late", OnLag::Error, LONG),
    ];
    let front = standing_still(|config| {
        let profile = |(name, on_lag, max_wait)| policy(name, on_lag, max_wait);
        config.profiles = policies.map(profile).into();
    });
    let front = front.await;
    let connect = async |name: &str| -> Client {
        let client = front.try_client(|config| {
            config.application_name(name);
        });
        let client = client.await.unwrap();
        client
            .batch_execute("INSERT INTO t VALUES (1)")
            .await
            .unwrap();
        client
    };
    let reason = async |client: &Client, hints: &str| -> String {
        // Its position is captured: reads on the primary before it have none.
        client
            .batch_execute("INSERT INTO t VALUES (1)")
            .await
            .unwrap();
        let read = format!("SELECT count(*) FROM t /* {hints} */");
        match try_ask(client, &read).await {
            Err(code) => code,
            Ok(_) => {
                let route = ask(client, "SHOW causeway.last_route").await;
                let (_, rest) = route.split_once("reason=\"").expect("a reason");
                rest.split('"').next().unwrap_or_default().to_owned()
            }
        }
    };
    let level = |level: &str| format!("causeway.consistency='{level}'");
    let old = format!("{}, causeway.max_staleness='2s'", level("eventual"));
    let young = format!("{}, causeway.max_staleness='1h'", level("eventual"));
    // The replica stands still for so long that it is too old.
    let goes = connect("goes").await;
    let deadline = std::time::Instant::now() + PATIENCE;
    while reason(&goes, &old).await != "replicas lag" {
        assert!(std::time::Instant::now() < deadline, "it never grows old");
    }
    for (name, lags) in [
        ("goes", "replicas lag"),
        ("goes-at-once", "replicas lag"),
        ("waits", "replicas lag"),
        ("waits-not", "replicas lag"),
        ("fails", "55000"),
        ("fails-at-once", "55000"),
    ] {
        let client = connect(name).await;
        let table = [
            (level("strong"), "strong consistency"),
            (level("session"), lags),
            (level("causal"), lags),
            (level("eventual"), "fresh replica"),
            (young.clone(), "fresh replica"),
            (old.clone(), lags),
        ];
        for (hints, expected) in table {
            assert_eq!(reason(&client, &hints).await, expected, "{name}, {hints}");
        }
    }
    // Who may wait long enough gets the replica's answer.
    let replica = front.lab.node("eu-west");
    for (name, hints) in [
        ("waits-long", level("session")),
        ("waits-long", old.clone()),
        ("fails-late", level("causal")),
        ("fails-late", old.clone()),
    ] {
        let client = connect(name).await;
        let deadline = std::time::Instant::now() + PATIENCE;
        while reason(&goes, &old).await != "replicas lag" {
            assert!(std::time::Instant::now() < deadline, "not old");
        }
        let (reason, resumed) = tokio::join!(reason(&client, &hints), replica.resume_replay());
        resumed.unwrap();
        assert!(
            ["replica, after a wait", "fresh replica"].contains(&&*reason),
            "{name}, {hints}: {reason}"
        );
        replica.pause_replay().await.unwrap();
        goes.batch_execute("INSERT INTO t VALUES (1)")
            .await
            .unwrap();
    }
}
