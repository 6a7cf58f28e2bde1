//! Who writes and writes, and reads nothing of it, costs the primary no positions; and when it reads after
//! all, it sees what it has written.

use std::time::Duration;

use causeway::app::Causeway;
use causeway::config::Config;
use causeway::lab::Lab;
use tokio_postgres::Client;

use crate::front::{Front, ask, read_on_replica, until_known};
use crate::support;

/// Positions in a row that no read has needed, before no more are asked for.
const UNREAD: usize = 8;
const MANY: usize = 30;
const COUNT: &str = "SELECT count(*) FROM t";

/// A Causeway in `region`, a table that the replica has, and a log of the primary that tells of function
/// calls.
pub async fn talkative(region: &str) -> Front {
    let front = talkative_with(region, |_| {}).await;
    let client = front.client().await;
    client.batch_execute("CREATE TABLE t ()").await.unwrap();
    until_known(&client, "t").await;
    front.lab.wait_caught_up("eu-west").await.unwrap();
    front
}

/// The same without the table, with some settings changed.
pub async fn talkative_with(region: &str, change: impl FnOnce(&mut Config)) -> Front {
    let lab = Lab::builder()
        .quick()
        .primary("us-east")
        .replica("eu-west")
        .round_trip("us-east", "eu-west", Duration::from_millis(10))
        .setting("log_statement = all")
        .build();
    let lab = lab.await.unwrap();
    let mut config = support::config(&lab, region);
    change(&mut config);
    let running = Causeway::start(config).await.unwrap();
    Front { running, lab }
}

async fn write(client: &Client, times: usize) {
    for _ in 0..times {
        client
            .batch_execute("INSERT INTO t DEFAULT VALUES")
            .await
            .unwrap();
    }
}

async fn read(client: &Client, expected: usize) {
    assert_eq!(ask(client, COUNT).await, expected.to_string());
}

/// So often the primary has been asked behind a request.
pub fn captures(front: &Front) -> usize {
    let log = front.primary().log().unwrap();
    log.matches("fastpath function call: \"pg_current_wal_insert_lsn\"")
        .count()
}

#[tokio::test]
async fn who_only_writes_is_asked_no_more_and_reads_its_writes_all_the_same() {
    let front = talkative("eu-west").await;
    let client = front.client().await;
    let before = captures(&front);
    write(&client, MANY).await;
    // Its answer comes behind whatever was asked before it.
    assert_eq!(ask(&client, "SELECT txid_current() > 0").await, "t");
    assert_eq!(captures(&front) - before, UNREAD);

    // However far behind the replica is.
    front.lab.node("eu-west").pause_replay().await.unwrap();
    write(&client, 1).await;
    read(&client, MANY + 1).await;
    front.lab.node("eu-west").resume_replay().await.unwrap();
    read_on_replica(&client, COUNT, &(MANY + 1).to_string()).await;

    // It has read: what it writes now it may read next.
    let before = captures(&front);
    write(&client, 1).await;
    read(&client, MANY + 2).await;
    assert!(captures(&front) > before);
}

#[tokio::test]
async fn what_others_depend_on_is_always_asked_for() {
    let front = talkative("eu-west").await;
    for setting in ["causeway.session_key = 'user:1'", "causeway.report = on"] {
        let client = front.client().await;
        client
            .batch_execute(&format!("SET {setting}"))
            .await
            .unwrap();
        let before = captures(&front);
        write(&client, MANY).await;
        assert_eq!(captures(&front) - before, MANY, "{setting}");
    }
}

/// Nobody has to know where a session's reads may go that go to the primary.
#[tokio::test]
async fn beside_the_primary_reads_need_no_positions() {
    let front = talkative("us-east").await;
    let client = front.client().await;
    let before = captures(&front);
    for written in 1..=MANY {
        write(&client, 1).await;
        read(&client, written).await;
    }
    let route = ask(&client, "SHOW causeway.last_route").await;
    assert!(route.contains("the primary is nearest"), "{route}");
    assert_eq!(captures(&front) - before, UNREAD);

    // Sent far away, it still sees them.
    let far = "SET causeway.region = 'eu-west'";
    client.batch_execute(far).await.unwrap();
    front.lab.node("eu-west").pause_replay().await.unwrap();
    write(&client, 1).await;
    read(&client, MANY + 1).await;
    front.lab.node("eu-west").resume_replay().await.unwrap();
    read_on_replica(&client, COUNT, &(MANY + 1).to_string()).await;
}
