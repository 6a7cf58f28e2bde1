//! Session keys tie connections of one Causeway together: what one of them wrote or saw, the next
//! one sees.

use std::sync::Arc;
use std::time::Duration;

use causeway::lab::Lab;
use tokio_postgres::Client;

use crate::front::{Front, ask, code, read_on_replica, until_known};
use crate::turns::{self, Tally};

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
    until_known(&client, "register").await;
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
    let front = front().await;
    let lags = [Duration::ZERO, Duration::from_millis(150)];
    for (replica, lag) in REPLICAS.iter().zip(lags) {
        front.lab.node(replica).set_apply_delay(lag).await.unwrap();
    }
    let without = run(&front, None).await;
    let under_keys = run(&front, Some("user")).await;
    turns::assert_that_keys_count(&without, &under_keys);
}

/// Four sessions for each of four users, under a key of each user's if there is a prefix to make it of.
async fn run(front: &Front, prefix: Option<&str>) -> Arc<Tally> {
    let reset = front.client().await;
    let clear = "UPDATE register SET value = 0";
    reset.batch_execute(clear).await.unwrap();
    // Everybody has it before anybody looks.
    for replica in REPLICAS {
        front.lab.wait_caught_up(replica).await.unwrap();
    }
    let mut users = Vec::new();
    for user in 0..4 {
        let key = prefix.map_or(String::new(), |prefix| format!("{prefix}:{user}"));
        let mut clients = Vec::new();
        for _ in 0..4 {
            clients.push(keyed(front, &key).await);
        }
        users.push(clients);
    }
    turns::take(users).await
}
