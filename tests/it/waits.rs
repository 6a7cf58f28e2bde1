//! Waiting for a replica or going to the primary, and how many may go.

use std::time::Duration;

use causeway::lab::Lab;

use crate::front::{Front, ask, try_ask, until, until_known};

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
    let slow = ask(&one, "SELECT count(*) FROM t, pg_sleep(3)");
    let meanwhile = async {
        let running = "SELECT count(*) FROM pg_stat_activity \
            WHERE query LIKE '%pg_sleep(3)' AND state = 'active' AND pid <> pg_backend_pid()";
        until(&admin, running, "1").await;
        try_ask(&other, "SELECT count(*) FROM t").await
    };
    let (first, second) = tokio::join!(slow, meanwhile);
    assert_eq!(first, "2");
    assert_eq!(second, Err("53300".to_owned()));
    // The leave has come back with the answer.
    assert_eq!(ask(&other, "SELECT count(*) FROM t").await, "2");
    let route = ask(&other, "SHOW causeway.last_route").await;
    assert!(route.contains("reason=\"replicas lag\""), "{route}");
}

/// A replica that never gets there is no longer waited for, and is again when it has caught up.
#[tokio::test(flavor = "multi_thread")]
async fn waits_in_vain_are_given_up() {
    let front = standing_still(|_| {}).await;
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
