//! Session keys tie connections of one Causeway together: what one of them wrote or saw, the next
//! one sees.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use causeway::lab::Lab;
use tokio_postgres::Client;

use crate::front::{Front, ask, code, read_on_replica};

const REPLICAS: [&str; 2] = ["eu-west", "eu-west-2"];

/// Two replicas beside the Causeway, the primary 20 ms away.
async fn front() -> Front {
    let lab = Lab::builder()
        .quick()
        .primary("us-east")
        .replica("eu-west")
        .replica("eu-west")
        .round_trip("us-east", "eu-west", Duration::from_millis(20))
        .build();
    let front = Front::before(lab.await.unwrap(), |_| {}).await;
    let client = front.client().await;
    let make = "CREATE TABLE register (id int PRIMARY KEY, value bigint);
        INSERT INTO register SELECT id, 0 FROM generate_series(0, 9) AS id";
    client.batch_execute(make).await.unwrap();
    for replica in REPLICAS {
        front.lab.wait_caught_up(replica).await.unwrap();
    }
    front
}

async fn keyed(front: &Front, key: &str) -> Client {
    let client = front.client().await;
    client
        .batch_execute(&format!("SET causeway.session_key = '{key}'"))
        .await
        .unwrap();
    client
}

const READ: &str = "SELECT value FROM register WHERE id = 0";

#[tokio::test(flavor = "multi_thread")]
async fn a_key_ties_connections_together() {
    let front = front().await;
    let (one, other) = (keyed(&front, "user:1").await, keyed(&front, "user:1").await);
    let stranger = keyed(&front, "user:2").await;
    for replica in REPLICAS {
        front.lab.node(replica).pause_replay().await.unwrap();
    }
    for round in 1..=50 {
        let (writer, reader) = match round % 2 {
            0 => (&one, &other),
            _ => (&other, &one),
        };
        let write = format!("UPDATE register SET value = {round} WHERE id = 0");
        writer.batch_execute(&write).await.unwrap();
        assert_eq!(ask(reader, READ).await, round.to_string());
    }
    // Who has another key is not held up: else this would prove nothing.
    assert_eq!(ask(&stranger, READ).await, "0");
    let route = ask(&stranger, "SHOW causeway.last_route").await;
    assert!(route.contains("role=replica"), "{route}");
    // A new connection, a transaction and a COPY.
    assert_eq!(ask(&keyed(&front, "user:1").await, READ).await, "50");
    let transaction = "BEGIN; UPDATE register SET value = 51 WHERE id = 0; COMMIT";
    one.batch_execute(transaction).await.unwrap();
    assert_eq!(ask(&other, READ).await, "51");
    other.batch_execute("BEGIN READ ONLY").await.unwrap();
    assert_eq!(ask(&other, READ).await, "51");
    other.batch_execute("COMMIT").await.unwrap();
    for replica in REPLICAS {
        front.lab.node(replica).resume_replay().await.unwrap();
    }
    read_on_replica(&other, READ, "51").await;

    let long = "x".repeat(257);
    let set = format!("SET causeway.session_key = '{long}'");
    assert_eq!(code(&one.batch_execute(&set).await.unwrap_err()), "22023");
    assert_eq!(ask(&one, "SHOW causeway.session_key").await, "user:1");
}

/// Sessions of a key take turns at random while replicas lag differently: none sees less than any
/// of them has been shown before it asked. Without a key the same must fail.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_under_a_key_sees_less_than_another_has_seen() {
    let front = Arc::new(front().await);
    let lags = [Duration::ZERO, Duration::from_millis(150)];
    for (replica, lag) in REPLICAS.iter().zip(lags) {
        front.lab.node(replica).set_apply_delay(lag).await.unwrap();
    }
    let (checks, violations) = run(&front, "").await;
    println!("without a key: {checks} checks, {violations} violations");
    assert!(violations > 0, "the check sees nothing");
    let (checks, violations) = run(&front, "user").await;
    println!("under keys: {checks} checks, {violations} violations");
    assert_eq!(violations, 0);
    assert!(checks >= CHECKS, "only {checks} checks");
}

/// At least so many.
const CHECKS: u64 = 1000;

/// Four sessions for each of four keys, for some seconds.
async fn run(front: &Arc<Front>, prefix: &str) -> (u64, u64) {
    const LENGTH: Duration = Duration::from_secs(6);
    let reset = front.client().await;
    reset
        .batch_execute("UPDATE register SET value = 0")
        .await
        .unwrap();
    // Everybody has it before anybody looks.
    for replica in REPLICAS {
        front.lab.wait_caught_up(replica).await.unwrap();
    }
    let tally = Arc::new((AtomicU64::new(0), AtomicU64::new(0)));
    let mut sessions = tokio::task::JoinSet::new();
    for user in 0..4 {
        let (shown, tried) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicI64::new(0)));
        for session in 0..4 {
            let key = match prefix {
                "" => String::new(),
                prefix => format!("{prefix}:{user}"),
            };
            let client = keyed(front, &key).await;
            let (shown, tried, tally) =
                (Arc::clone(&shown), Arc::clone(&tried), Arc::clone(&tally));
            sessions.spawn(async move {
                let begun = tokio::time::Instant::now();
                let mut round = session;
                let too_few = || tally.0.load(Ordering::Relaxed) < CHECKS;
                while begun.elapsed() < LENGTH || too_few() && begun.elapsed() < LENGTH * 10 {
                    round += 1;
                    if round % 4 == 0 {
                        let value = tried.fetch_add(1, Ordering::SeqCst) + 1;
                        let write = format!(
                            "UPDATE register SET value = greatest(value, {value}) WHERE id = {user}"
                        );
                        client.batch_execute(&write).await.unwrap();
                        shown.fetch_max(value, Ordering::SeqCst);
                        continue;
                    }
                    let before = shown.load(Ordering::SeqCst);
                    let read = format!("SELECT value FROM register WHERE id = {user}");
                    let seen: i64 = ask(&client, &read).await.parse().unwrap();
                    shown.fetch_max(seen, Ordering::SeqCst);
                    tally.0.fetch_add(1, Ordering::Relaxed);
                    if seen < before {
                        tally.1.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    }
    sessions.join_all().await;
    (
        tally.0.load(Ordering::SeqCst),
        tally.1.load(Ordering::SeqCst),
    )
}
