//! Positions over promotions and restores: what survived stays readable, what was lost is told
//! once, and no number of an old timeline is taken for one of the new.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use causeway::app::Running;
use causeway::lab::{APP_DATABASE, APP_USER, Cut, Lab, Mode};
use causeway::protocol::frame::backend;

use crate::front::{PATIENCE, ask, read_on_replica, until_known};
use crate::raw::{Message, Raw, frame};
use crate::support;
use crate::tokens::assert_covers;

async fn raw(causeway: &Running) -> Raw {
    Raw::log_in(causeway.listen_addr(), APP_USER, APP_DATABASE).await
}

async fn say(raw: &mut Raw, sql: &str) -> Vec<Message> {
    let text = [sql.as_bytes(), b"\0"].concat();
    raw.send(&frame(b'Q', &text)).await;
    raw.until_ready().await
}

/// The DETAIL of each WARNING that says that something was lost.
fn losses(messages: &[Message]) -> Vec<String> {
    let notices = messages
        .iter()
        .filter(|message| message.tag == backend::NOTICE_RESPONSE);
    let losses = notices.filter(|notice| notice.field(b'M').contains("lost in a failover"));
    losses.map(|notice| notice.field(b'D')).collect()
}

fn value(messages: &[Message]) -> String {
    let row = messages
        .iter()
        .find(|message| message.tag == backend::DATA_ROW);
    row.unwrap_or_else(|| panic!("no row in {messages:?}"))
        .columns()
        .join(",")
}

/// Asks until it is answered without an error: the failover is being noticed meanwhile. All that
/// came.
async fn until_answered(raw: &mut Raw, sql: &str) -> Vec<Message> {
    let deadline = Instant::now() + PATIENCE;
    let mut all = Vec::new();
    loop {
        let messages = say(raw, sql).await;
        let failed = messages
            .iter()
            .any(|message| message.tag == backend::ERROR_RESPONSE);
        all.extend(messages);
        if !failed {
            return all;
        }
        assert!(
            Instant::now() < deadline,
            "{sql} is never answered: {all:?}"
        );
    }
}

const COUNT: &str = "SELECT count(*) FROM t";

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_write_is_told_once_and_never_mistaken() {
    let lab = Lab::builder()
        .primary("us-east")
        .replica("eu-west")
        .replica("ap-south")
        .build();
    let lab = lab.await.unwrap();
    let causeway = support::start(&lab, "eu-west").await;
    let mut writer = raw(&causeway).await;
    let mut keeper = raw(&causeway).await;
    say(
        &mut writer,
        "CREATE TABLE t (a int); INSERT INTO t VALUES (1)",
    )
    .await;
    until_known(&support::connect(&causeway).await, "t").await;
    say(&mut keeper, "INSERT INTO t VALUES (2)").await;
    let kept = value(&say(&mut keeper, "SHOW causeway.token").await);
    for replica in ["eu-west", "ap-south"] {
        lab.wait_caught_up(replica).await.unwrap();
        lab.node(replica).cut_wal(Cut::Freeze);
    }
    say(&mut writer, "INSERT INTO t VALUES (3)").await;
    assert_eq!(value(&say(&mut writer, COUNT).await), "3");
    let lost = value(&say(&mut writer, "SHOW causeway.token").await);

    lab.node("us-east").kill().await.unwrap();
    lab.node("eu-west").promote().await.unwrap();
    // In this order: what the link still holds of the old primary's WAL must not arrive.
    lab.follow("ap-south", "eu-west");
    lab.node("ap-south").restore_wal();

    // The session that wrote it learns of it, with the token, and goes on.
    let answer = until_answered(&mut writer, COUNT).await;
    let told = losses(&answer);
    assert_eq!(told.len(), 1, "{answer:?}");
    let mut words = told[0].split(' ');
    let named = words.find(|word| word.starts_with("c1.")).expect("a token");
    assert_covers(named, &lost);
    assert_eq!(value(&say(&mut writer, COUNT).await), "2");
    assert!(losses(&say(&mut writer, "INSERT INTO t VALUES (4)").await).is_empty());
    assert_eq!(value(&say(&mut writer, COUNT).await), "3");

    // The one whose write survived hears nothing.
    let answer = until_answered(&mut keeper, COUNT).await;
    assert!(losses(&answer).is_empty(), "{answer:?}");

    // Tokens of both, on other connections, before and after the new timeline has gone past them.
    let primary = lab.node("eu-west");
    let client = primary.connect(APP_USER, APP_DATABASE).await.unwrap();
    let fill = "CREATE TABLE filler AS SELECT repeat('x', 1000) FROM generate_series(1, 3000)";
    for round in 0..2 {
        for (token, expected) in [(&kept, 0), (&lost, 1)] {
            let mut other = raw(&causeway).await;
            let set = format!("SET causeway.token = '{token}'");
            let told = losses(&say(&mut other, &set).await);
            assert_eq!(told.len(), expected, "round {round}: {told:?}");
            assert!(told.iter().all(|detail| detail.contains(token)), "{told:?}");
            let answer = say(&mut other, COUNT).await;
            assert_eq!((value(&answer), losses(&answer)), ("3".to_owned(), vec![]));
        }
        if round == 0 {
            client.batch_execute(fill).await.unwrap();
        }
    }
    let now = value(&say(&mut writer, "SHOW causeway.token").await);
    assert!(now.contains(".2.") && lost.contains(".1."), "{now}, {lost}");

    // A Causeway that has seen none of this judges the same.
    let newcomer = support::start(&lab, "ap-south").await;
    let mut other = raw(&newcomer).await;
    let told = losses(&say(&mut other, &format!("SET causeway.token = '{lost}'")).await);
    assert_eq!(told.len(), 1, "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_a_promotion_not_seen_yet_waits_for_it() {
    let lab = Lab::small().await.unwrap();
    let mut config = support::config(&lab, "eu-west");
    config.routing.failover_wait = Duration::from_millis(300);
    let causeway = causeway::app::Causeway::start(config).await.unwrap();
    let mut session = raw(&causeway).await;
    say(&mut session, "CREATE TABLE t (a int)").await;
    let token = value(&say(&mut session, "SHOW causeway.token").await);
    let parts: Vec<&str> = token.split('.').collect();
    let later = format!("c1.{}.2.{}", parts[1], parts[3]);
    let set = format!("SET causeway.token = '{later}'");
    let refused = say(&mut session, &set).await;
    let error = &refused[0];
    assert_eq!((error.tag, error.field(b'C')), (b'E', "22023".to_owned()));
    assert!(error.field(b'D').contains("timeline 2"), "{error:?}");

    lab.wait_caught_up("eu-west").await.unwrap();
    lab.node("us-east").kill().await.unwrap();
    lab.node("eu-west").promote().await.unwrap();
    until_answered(&mut session, &set).await;
}

/// The directory of a stopped node as it is now.
fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(status.unwrap().success(), "cp {from:?} {to:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_set_back_to_an_old_backup_shows_nothing_old() {
    let lab = Lab::builder()
        .primary("us-east")
        .replica("eu-west")
        .round_trip("us-east", "eu-west", Duration::from_millis(30))
        .build();
    let lab = lab.await.unwrap();
    let replica = lab.node("eu-west");
    let causeway = support::start(&lab, "eu-west").await;
    let client = support::connect(&causeway).await;
    client
        .batch_execute("CREATE TABLE t (a int); INSERT INTO t VALUES (1)")
        .await
        .unwrap();
    lab.wait_caught_up("eu-west").await.unwrap();
    replica.stop(Mode::Fast).await.unwrap();
    let (data, backup) = (
        replica.data_directory().to_owned(),
        lab.directory().join("backup"),
    );
    copy(&data, &backup);
    replica.start().await.unwrap();
    client
        .batch_execute("INSERT INTO t VALUES (2)")
        .await
        .unwrap();
    lab.wait_caught_up("eu-west").await.unwrap();
    let reader = support::connect(&causeway).await;
    // Seen by reading only, on the replica.
    let direct = lab.node("us-east").connect(APP_USER, APP_DATABASE).await;
    direct
        .unwrap()
        .batch_execute("INSERT INTO t VALUES (3)")
        .await
        .unwrap();
    lab.wait_caught_up("eu-west").await.unwrap();
    read_on_replica(&reader, COUNT, "3").await;
    let token = ask(&reader, "SHOW causeway.token").await;

    replica.cut_wal(Cut::Freeze);
    replica.stop(Mode::Fast).await.unwrap();
    std::fs::remove_dir_all(&data).unwrap();
    copy(&backup, &data);
    replica.start().await.unwrap();
    let old = replica.connect(APP_USER, APP_DATABASE).await.unwrap();
    let shown: i64 = old.query_one(COUNT, &[]).await.unwrap().get(0);
    assert_eq!(shown, 1, "the backup is an old one");

    let other = support::connect(&causeway).await;
    let present = format!("SET causeway.token = '{token}'");
    other.batch_execute(&present).await.unwrap();
    for _ in 0..20 {
        assert_eq!(ask(&reader, COUNT).await, "3");
        assert_eq!(ask(&other, COUNT).await, "3");
    }
    // Whoever has seen nothing may see what there is, once the replica is known to be up again.
    let scout = support::connect(&causeway).await;
    let any = "SET causeway.consistency = 'eventual'";
    scout.batch_execute(any).await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        ask(&scout, COUNT).await;
        let route = ask(&scout, "SHOW causeway.last_route").await;
        if route.contains("role=replica") {
            break;
        }
        assert!(Instant::now() < deadline, "never on the replica: {route}");
    }
    let newcomer = support::connect(&causeway).await;
    read_on_replica(&newcomer, COUNT, "1").await;
    replica.restore_wal();
    read_on_replica(&reader, COUNT, "3").await;
}
