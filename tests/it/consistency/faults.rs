//! Faults while sessions write and read back: servers and nodes go away, replay conflicts with
//! reads, the primary moves. Errors are allowed where a server was lost; a stale read, a request
//! that is never answered and a connection that is closed without a word are not.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use causeway::lab::{APP_DATABASE, APP_USER, Lab, LabNode, Mode};
use rand::Rng;
use tokio::time::{Instant, sleep};

use super::checker::{Deed, Errors, Plan, Progress, Tally, check, make_registers};
use super::stage::{self, NEAR, NEAR_TOO, PRIMARY};
use crate::support::{PATIENCE, connect};

const SESSIONS: i32 = 16;
/// So many pairs more show that the sessions go on.
const FURTHER: u64 = 300;

fn plan(name: &'static str) -> Plan {
    Plan {
        name,
        level: "session",
        sessions: SESSIONS,
        rounds: 0,
        errors: Errors::Count,
    }
}

/// Losing a replica, or a server there, is no reason for a read outside of a transaction to fail.
fn assert_reads_ran_again(tally: &Tally) {
    let failed = tally
        .errors
        .keys()
        .find(|(deed, _)| *deed != Deed::ReadOnlyTransaction);
    assert_eq!(failed, None);
}

async fn check_in<S: Future<Output = ()>>(
    lab: &Lab,
    name: &'static str,
    script: impl FnOnce(Arc<Progress>) -> S,
) -> Tally {
    let causeway = stage::start(lab).await;
    make_registers(lab).await;
    let plan = plan(name);
    let tally = check(&plan, &causeway, script).await;
    tally.assert_consistent(&plan);
    tally
}

/// Waits until the sessions have made `FURTHER` pairs more.
async fn go_further(progress: &Progress) {
    let (before, begun) = (progress.pairs(), Instant::now());
    let mut glance = tokio::time::interval(Duration::from_millis(5));
    while progress.pairs() < before + FURTHER {
        assert!(begun.elapsed() < PATIENCE, "the sessions do not go on");
        glance.tick().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_replica_is_passed_over_and_taken_back() {
    let lab = stage::lab().await;
    let tally = check_in(&lab, "replicas are killed", |progress| {
        let lab = &lab;
        async move {
            for replica in [NEAR, NEAR_TOO, NEAR] {
                go_further(&progress).await;
                lab.node(replica).kill().await.unwrap();
                go_further(&progress).await;
                lab.node(replica).start().await.unwrap();
            }
            go_further(&progress).await;
        }
    })
    .await;
    assert_reads_ran_again(&tally);
    assert!(tally.reads.contains_key(NEAR) && tally.reads.contains_key(NEAR_TOO));
}

/// Of the servers on the primary none lives for long.
#[tokio::test(flavor = "multi_thread")]
async fn servers_of_the_primary_are_terminated_at_any_moment() {
    const TIMES: u32 = 60;
    let lab = stage::lab().await;
    let tally = check_in(&lab, "servers are terminated", |progress| {
        let lab = &lab;
        async move {
            for _ in 0..TIMES {
                let pause_us = rand::rng().random_range(0..20_000);
                sleep(Duration::from_micros(pause_us)).await;
                let primary = lab.node(PRIMARY);
                primary.terminate_backends(APP_USER).await.unwrap();
            }
            go_further(&progress).await;
        }
    })
    .await;
    assert!(!tally.errors.is_empty(), "no fault has hit anything");
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_of_a_replica_are_terminated_at_any_moment() {
    const TIMES: u32 = 60;
    let lab = stage::lab().await;
    let tally = check_in(&lab, "servers of replicas are terminated", |progress| {
        let lab = &lab;
        async move {
            for _ in 0..TIMES {
                let pause_us = rand::rng().random_range(0..20_000);
                sleep(Duration::from_micros(pause_us)).await;
                for replica in [NEAR, NEAR_TOO] {
                    let replica = lab.node(replica);
                    replica.terminate_backends(APP_USER).await.unwrap();
                }
            }
            go_further(&progress).await;
        }
    })
    .await;
    assert_reads_ran_again(&tally);
}

/// A server that terminates itself as the last act of its transaction notices when the commit is
/// over and answered: right before it would look at the capture.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_dies_between_the_commit_and_the_capture() {
    const DEATHS: i64 = 20;
    const TRAP: &str = "
        CREATE TABLE note (id int PRIMARY KEY);
        CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
            RETURN CASE WHEN pg_terminate_backend(pg_backend_pid()) THEN NULL END;
        END$$;
        CREATE CONSTRAINT TRIGGER die AFTER INSERT ON note
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION die();";
    const LOOK: &str = "SELECT current_setting('cluster_name'), count(*) FROM note";
    let lab = stage::builder()
        .setting("log_statement = all")
        .build()
        .await
        .unwrap();
    let causeway = stage::start(&lab).await;
    let direct = lab
        .node(PRIMARY)
        .connect(APP_USER, APP_DATABASE)
        .await
        .unwrap();
    direct.batch_execute(TRAP).await.unwrap();
    stage::stand_still(&lab).await;
    for id in 1..=DEATHS {
        let client = connect(&causeway).await;
        let row = client.query_one(LOOK, &[]).await.unwrap();
        assert_ne!(
            row.get::<_, &str>(0),
            PRIMARY,
            "the replica is not used at all"
        );
        let insert = format!("INSERT INTO note VALUES ({id})");
        client.batch_execute(&insert).await.unwrap();
        let row = client.query_one(LOOK, &[]).await.unwrap();
        assert_eq!(row.get::<_, i64>(1), id);
    }
    assert_eq!(deaths_behind_an_insert(lab.node(PRIMARY)), DEATHS);
}

/// As the server tells it: what a process did last before it was terminated.
fn deaths_behind_an_insert(node: &LabNode) -> i64 {
    let log = node.log().unwrap();
    let mut last: BTreeMap<&str, &str> = BTreeMap::new();
    let mut deaths = 0;
    for line in log.lines() {
        let Some((_, rest)) = line.split_once('[') else {
            continue;
        };
        let Some((process, text)) = rest.split_once(']') else {
            continue;
        };
        if text.contains("terminating connection due to administrator command") {
            deaths += i64::from(last.get(process).is_some_and(|did| is_insert(did)));
        }
        last.insert(process, text);
    }
    deaths
}

fn is_insert(text: &str) -> bool {
    text.contains("statement: INSERT INTO note")
}

/// Replay does not wait for reads, and there is something to conflict with all the time.
#[tokio::test(flavor = "multi_thread")]
async fn replay_ends_the_reads_in_its_way() {
    const TIMES: u32 = 60;
    let lab = stage::builder()
        .setting("max_standby_streaming_delay = 0")
        .build()
        .await
        .unwrap();
    let tally = check_in(&lab, "replay conflicts with reads", |progress| {
        let lab = &lab;
        async move {
            let direct = lab
                .node(PRIMARY)
                .connect(APP_USER, APP_DATABASE)
                .await
                .unwrap();
            for _ in 0..TIMES {
                let rewrite = "VACUUM FULL register";
                direct.batch_execute(rewrite).await.unwrap();
                direct.batch_execute("VACUUM register").await.unwrap();
            }
            go_further(&progress).await;
        }
    })
    .await;
    assert_reads_ran_again(&tally);
}

/// Writes cease until the new primary is there; what was acknowledged has survived, because the
/// replicas have it before the old primary goes.
#[tokio::test(flavor = "multi_thread")]
async fn the_primary_moves() {
    let lab = stage::lab().await;
    let tally = check_in(&lab, "the primary moves", |progress| {
        let lab = &lab;
        async move {
            go_further(&progress).await;
            let held = progress.hold_writes().await;
            lab.wait_caught_up(NEAR).await.unwrap();
            lab.wait_caught_up(NEAR_TOO).await.unwrap();
            lab.node(PRIMARY).stop(Mode::Fast).await.unwrap();
            // Now they are held by the proxy, which waits for the new primary.
            drop(held);
            lab.node(NEAR).promote().await.unwrap();
            lab.follow(NEAR_TOO, NEAR);
            for _ in 0..3 {
                go_further(&progress).await;
            }
            lab.wait_caught_up(NEAR_TOO).await.unwrap();
        }
    })
    .await;
    assert!(tally.reads.contains_key(NEAR_TOO), "{:?}", tally.reads);
}
