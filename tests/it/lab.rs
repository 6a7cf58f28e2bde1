//! The lab itself: what all other tests stand on.

use std::fs::Permissions;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use causeway::lab::{APP_DATABASE, APP_USER, Cut, Lab, LabNode, Mode, PASSWORD, SUPERUSER};
use tokio_postgres::{Client, NoTls};

use crate::support::PATIENCE;

const PRIMARY: &str = "us-east";
const REPLICA: &str = "eu-west";

#[tokio::test]
async fn a_primary_and_two_replicas_replicate() -> Result<()> {
    let lab = Lab::builder()
        .primary(PRIMARY)
        .replica(REPLICA)
        .replica(REPLICA)
        .build()
        .await?;
    let names: Vec<&str> = lab.nodes().map(LabNode::name).collect();
    assert_eq!(names, ["us-east", "eu-west", "eu-west-2"]);

    let primary = app(lab.node(PRIMARY)).await?;
    primary
        .batch_execute("CREATE TABLE t (n int); INSERT INTO t VALUES (7)")
        .await?;
    for name in &names[1..] {
        lab.wait_caught_up(name).await?;
        let replica = app(lab.node(name)).await?;
        let row = replica
            .query_one(
                "SELECT n, current_setting('cluster_name'), pg_is_in_recovery() FROM t",
                &[],
            )
            .await?;
        assert_eq!(row.get::<_, i32>(0), 7);
        assert_eq!(row.get::<_, &str>(1), *name);
        assert!(row.get::<_, bool>(2));
    }
    Ok(())
}

#[tokio::test]
async fn a_link_is_never_faster_than_its_round_trip() -> Result<()> {
    const ROUND_TRIP: Duration = Duration::from_millis(40);
    let lab = Lab::builder()
        .quick()
        .primary(PRIMARY)
        .replica(REPLICA)
        .round_trip(PRIMARY, REPLICA, ROUND_TRIP)
        .build()
        .await?;

    let far = lab
        .node(PRIMARY)
        .connect_from(REPLICA, APP_USER, APP_DATABASE)
        .await?;
    let begun = Instant::now();
    far.simple_query("SELECT 1").await?;
    assert!(begun.elapsed() >= ROUND_TRIP);
    assert_eq!(
        lab.node(REPLICA).port_from(REPLICA),
        lab.node(REPLICA).port()
    );

    let near = app(lab.node(PRIMARY)).await?;
    near.batch_execute("CREATE TABLE t (n int)").await?;
    let begun = Instant::now();
    near.batch_execute("INSERT INTO t VALUES (1)").await?;
    lab.wait_caught_up(REPLICA).await?;
    assert!(
        begun.elapsed() >= ROUND_TRIP / 2,
        "WAL travels half the way"
    );
    Ok(())
}

#[tokio::test]
async fn a_paused_replica_shows_old_rows_until_it_is_resumed() -> Result<()> {
    let lab = Lab::small().await?;
    let (primary, replica) = (app(lab.node(PRIMARY)).await?, app(lab.node(REPLICA)).await?);
    primary.batch_execute("CREATE TABLE t (n int)").await?;
    lab.wait_caught_up(REPLICA).await?;

    lab.node(REPLICA).pause_replay().await?;
    primary.batch_execute("INSERT INTO t VALUES (1)").await?;
    assert_eq!(rows_of_t(&replica).await?, 0);
    lab.node(REPLICA).resume_replay().await?;
    lab.wait_caught_up(REPLICA).await?;
    assert_eq!(rows_of_t(&replica).await?, 1);

    lab.node(REPLICA).cut_wal(Cut::Freeze);
    primary.batch_execute("INSERT INTO t VALUES (2)").await?;
    assert_eq!(rows_of_t(&replica).await?, 1);
    lab.node(REPLICA).restore_wal();
    lab.wait_caught_up(REPLICA).await?;
    assert_eq!(rows_of_t(&replica).await?, 2);

    const DELAY: Duration = Duration::from_millis(200);
    lab.node(REPLICA).set_apply_delay(DELAY).await?;
    let set = Instant::now();
    let mut rows = 2;
    // The process that replays may hear of it later than others.
    loop {
        let begun = Instant::now();
        primary.batch_execute("INSERT INTO t VALUES (3)").await?;
        lab.wait_caught_up(REPLICA).await?;
        rows += 1;
        assert_eq!(rows_of_t(&replica).await?, rows);
        if begun.elapsed() >= DELAY {
            break;
        }
        assert!(set.elapsed() < PATIENCE, "it is never late");
    }
    Ok(())
}

#[tokio::test]
async fn a_promoted_replica_takes_writes_and_others_can_follow_it() -> Result<()> {
    let lab = Lab::builder()
        .quick()
        .primary(PRIMARY)
        .replica(REPLICA)
        .replica("ap-south")
        .build()
        .await?;
    app(lab.node(PRIMARY))
        .await?
        .batch_execute("CREATE TABLE t (n int)")
        .await?;
    for replica in [REPLICA, "ap-south"] {
        lab.wait_caught_up(replica).await?;
    }
    lab.node(PRIMARY).kill().await?;
    assert!(app(lab.node(PRIMARY)).await.is_err());

    lab.node(REPLICA).promote().await?;
    lab.follow("ap-south", REPLICA);
    let promoted = app(lab.node(REPLICA)).await?;
    promoted.batch_execute("INSERT INTO t VALUES (1)").await?;
    lab.wait_caught_up("ap-south").await?;
    assert_eq!(rows_of_t(&app(lab.node("ap-south")).await?).await?, 1);
    Ok(())
}

#[tokio::test]
async fn nodes_come_back_after_a_stop_and_after_a_kill() -> Result<()> {
    let lab = Lab::small().await?;
    app(lab.node(PRIMARY))
        .await?
        .batch_execute("CREATE TABLE t (n int)")
        .await?;
    for name in [PRIMARY, REPLICA] {
        let node = lab.node(name);
        node.restart().await?;
        node.stop(Mode::Immediate).await?;
        assert!(app(node).await.is_err());
        node.start().await?;
        let client = app(node).await?;
        node.kill().await?;
        assert!(client.simple_query("SELECT 1").await.is_err());
        node.start().await?;
        node.start().await?;
    }
    app(lab.node(PRIMARY))
        .await?
        .batch_execute("INSERT INTO t VALUES (1)")
        .await?;
    lab.wait_caught_up(REPLICA).await?;
    assert_eq!(rows_of_t(&app(lab.node(REPLICA)).await?).await?, 1);
    Ok(())
}

#[tokio::test]
async fn servers_of_one_role_can_be_ended() -> Result<()> {
    let lab = Lab::small().await?;
    let node = lab.node(PRIMARY);
    let (first, second) = (app(node).await?, app(node).await?);
    let other = node.connect(SUPERUSER, "postgres").await?;
    assert_eq!(node.terminate_backends(APP_USER).await?, 2);
    assert!(first.simple_query("SELECT 1").await.is_err());
    assert!(second.simple_query("SELECT 1").await.is_err());
    other.simple_query("SELECT 1").await?;
    Ok(())
}

#[tokio::test]
async fn passwords_are_checked_and_settings_and_rules_arrive() -> Result<()> {
    let lab = Lab::builder()
        .quick()
        .primary(PRIMARY)
        .setting("work_mem = '7MB'")
        .access_rule("host all monitor 127.0.0.1/32 trust")
        .build()
        .await?;
    let node = lab.node(PRIMARY);
    let wrong = tokio_postgres::connect(&node.url(APP_USER, "wrong", APP_DATABASE), NoTls).await;
    let error = wrong.err().context("a wrong password was taken")?;
    assert_eq!(error.code().map(|code| code.code()), Some("28P01"));
    let right = tokio_postgres::connect(&node.url(APP_USER, PASSWORD, APP_DATABASE), NoTls).await;
    drop(right?);
    let trusted = tokio_postgres::connect(&node.url("monitor", "wrong", APP_DATABASE), NoTls).await;
    drop(trusted?);
    let row = app(node).await?.query_one("SHOW work_mem", &[]).await?;
    assert_eq!(row.get::<_, &str>(0), "7MB");
    Ok(())
}

#[tokio::test]
async fn servers_speak_tls_when_asked_to() -> Result<()> {
    let files = tempfile::tempdir()?;
    let (certificate, key) = (files.path().join("c.pem"), files.path().join("k.pem"));
    let signed = rcgen::generate_simple_self_signed(vec!["localhost".to_string()])?;
    std::fs::write(&certificate, signed.cert.pem())?;
    std::fs::write(&key, signed.signing_key.serialize_pem())?;
    let lab = Lab::builder()
        .quick()
        .primary(PRIMARY)
        .replica(REPLICA)
        .tls(&certificate, &key)
        .build()
        .await?;
    for node in lab.nodes() {
        let row = app(node).await?.query_one("SHOW ssl", &[]).await?;
        assert_eq!(row.get::<_, &str>(0), "on");
    }
    Ok(())
}

#[tokio::test]
async fn only_quick_labs_are_copies_of_one_cluster() -> Result<()> {
    let (first, second) = (Lab::small().await?, Lab::small().await?);
    let own = Lab::builder().primary(PRIMARY).build().await?;
    let first = system_identifier(first.node(PRIMARY)).await?;
    assert_eq!(first, system_identifier(second.node(REPLICA)).await?);
    assert_ne!(first, system_identifier(own.node(PRIMARY)).await?);
    Ok(())
}

async fn system_identifier(node: &LabNode) -> Result<i64> {
    let query = "SELECT system_identifier FROM pg_control_system()";
    Ok(app(node).await?.query_one(query, &[]).await?.get(0))
}

#[tokio::test]
async fn a_cut_link_breaks_one_region_only() -> Result<()> {
    let lab = Lab::builder()
        .quick()
        .primary(PRIMARY)
        .round_trip(PRIMARY, REPLICA, Duration::ZERO)
        .build()
        .await?;
    let node = lab.node(PRIMARY);
    let far = node.connect_from(REPLICA, APP_USER, APP_DATABASE).await?;
    let near = app(node).await?;
    node.cut_link(REPLICA, Cut::Reset);
    assert!(far.simple_query("SELECT 1").await.is_err());
    near.simple_query("SELECT 1").await?;
    node.restore_link(REPLICA);
    node.connect_from(REPLICA, APP_USER, APP_DATABASE).await?;
    Ok(())
}

#[tokio::test]
async fn nothing_is_left_of_a_dropped_lab() -> Result<()> {
    let lab = Lab::small().await?;
    let directory = lab.directory().to_path_buf();
    let postmasters = postmasters(&lab)?;
    assert!(postmasters.iter().all(|pid| runs(pid)));
    drop(lab);
    assert!(!directory.exists());
    assert!(!postmasters.iter().any(|pid| runs(pid)));
    Ok(())
}

/// The owner is killed with SIGKILL, so that only the guard is left to clear up. The owner is this
/// very test in a process of its own, told by a variable that it is to be the victim.
#[tokio::test]
async fn nothing_is_left_of_a_lab_whose_owner_is_killed() -> Result<()> {
    const VICTIM: &str = "CAUSEWAY_TEST_OWNS_A_LAB";
    const SAYS: &str = "owner of lab: ";
    if std::env::var_os(VICTIM).is_some() {
        let lab = Lab::small().await?;
        println!("{SAYS}{}", postmasters(&lab)?.join(" "));
        return std::future::pending().await;
    }

    // Everything of the victim's is in here; PostgreSQL's user must be able to pass.
    let files = tempfile::tempdir()?;
    std::fs::set_permissions(files.path(), Permissions::from_mode(0o755))?;
    let mut owner = Command::new(std::env::current_exe()?)
        .args(["--exact", "--nocapture"])
        .arg("lab::nothing_is_left_of_a_lab_whose_owner_is_killed")
        .env(VICTIM, "1")
        .env("TMPDIR", files.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let output = owner.stdout.take().context("no output")?;
    let told = BufReader::new(output)
        .lines()
        .map_while(Result::ok)
        .find_map(|line| line.split_once(SAYS).map(|(_, rest)| rest.to_string()));
    owner.kill()?;
    owner.wait()?;

    let told = told.context("the owner made no lab")?;
    let postmasters: Vec<&str> = told.split(' ').collect();
    assert_eq!(postmasters.len(), 2);
    while files.path().read_dir()?.next().is_some() || postmasters.iter().any(|pid| runs(pid)) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// The process ids of a lab's nodes, as their servers wrote them down.
fn postmasters(lab: &Lab) -> Result<Vec<String>> {
    lab.nodes()
        .map(|node| {
            let text = std::fs::read_to_string(node.data_directory().join("postmaster.pid"))?;
            Ok(text.lines().next().context("an empty file")?.to_string())
        })
        .collect()
}

async fn app(node: &LabNode) -> Result<Client> {
    Ok(node.connect(APP_USER, APP_DATABASE).await?)
}

async fn rows_of_t(client: &Client) -> Result<i64> {
    Ok(client
        .query_one("SELECT count(*) FROM t", &[])
        .await?
        .get(0))
}

/// A zombie that nobody collects does not run.
fn runs(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|text| {
        text.rsplit_once(')')
            .is_some_and(|(_, rest)| !rest.starts_with(" Z"))
    })
}
