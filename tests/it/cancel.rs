//! Cancel requests: they reach the statement that they are meant for, and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use causeway::lab::{APP_DATABASE, APP_USER, PASSWORD, SUPERUSER};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::timeout;
use tokio_postgres::NoTls;

use crate::front::{ANYWHERE, Front, Witness, ask, code, try_ask, until};
use crate::raw::{self, Raw, last, query, show};

/// How many statements sleep on the node behind `admin`.
const SLEEPERS: &str = "SELECT count(*) FROM pg_stat_activity \
    WHERE state = 'active' AND wait_event = 'PgSleep'";

#[tokio::test]
async fn a_running_statement_is_cancelled_and_the_session_lives_on() {
    let front = Front::small().await;
    let witness = Witness::new(&front).await;
    let west = front
        .lab
        .node("eu-west")
        .connect(SUPERUSER, APP_DATABASE)
        .await
        .unwrap();
    let east = front.admin().await;
    for (begin, sql, admin) in [
        ("", "SELECT pg_sleep(60)", &west),
        ("BEGIN", "SELECT pg_sleep(60)", &east),
        ("", "SELECT pg_sleep(60), txid_current()", &east),
    ] {
        let mut raw = front.raw().await;
        raw.query(begin).await;
        raw.send(&query(sql)).await;
        until(admin, SLEEPERS, "1").await;
        raw::cancel(front.address(), raw.pid, &raw.secret).await;
        let seen = show(&raw.until_ready().await);
        if begin.is_empty() {
            assert_eq!(seen, "T E(57014) Z(I)", "{sql}");
        } else {
            assert_eq!(seen, "T E(57014) Z(E)", "{sql}");
            assert_eq!(raw.query("SELECT 1").await, "E(25P02) Z(E)");
            assert_eq!(raw.query("ROLLBACK").await, "C(ROLLBACK) Z(I)");
        }
        assert_eq!(raw.query("SELECT 1").await, "T D(1) C(SELECT 1) Z(I)");
        until(admin, SLEEPERS, "0").await;
    }
    witness.ends_well().await;
}

#[tokio::test]
async fn a_cancel_of_nothing_hits_nobody() {
    // One server for all: whatever went astray would hit the next who has it.
    let front = Front::with(|config| config.pool.size = 1).await;
    let client = front.client().await;
    let other = front.client().await;
    let token = client.cancel_token();
    for round in 0..50 {
        assert_eq!(
            ask(&client, "SELECT txid_current() > 0").await,
            "t",
            "{round}"
        );
        let cancels = tokio::spawn({
            let token = token.clone();
            async move { token.cancel_query(NoTls).await }
        });
        for _ in 0..4 {
            assert_eq!(
                ask(&other, "SELECT txid_current() > 0").await,
                "t",
                "{round}"
            );
        }
        cancels.await.unwrap().unwrap();
        // It came in the midst of nothing: the client itself is not hit later either.
        assert_eq!(
            ask(&client, "SELECT txid_current() > 0").await,
            "t",
            "{round}"
        );
    }
}

/// libpq and asyncpg wait for the end of the cancel request's connection and then go on.
#[tokio::test]
async fn a_cancel_that_has_been_answered_has_arrived() {
    let front = Front::small().await;
    let mut raw = front.raw().await;
    raw.query("BEGIN; SELECT txid_current()").await;
    for round in 0..20 {
        raw::cancel(front.address(), raw.pid, &raw.secret).await;
        assert_eq!(
            raw.query("SELECT 1 FROM pg_sleep(0.02)").await,
            "T D(1) C(SELECT 1) Z(T)",
            "{round}"
        );
    }
}

#[tokio::test]
async fn cancels_in_a_storm_hit_only_their_own_client() {
    let front = Front::with(|config| config.pool.size = 2).await;
    let witness = Witness::new(&front).await;
    let mut tasks = Vec::new();
    for _ in 0..4 {
        let client = front.client().await;
        let token = client.cancel_token();
        tasks.push(tokio::spawn(async move {
            for round in 0..25 {
                let cancel = tokio::spawn({
                    let token = token.clone();
                    async move { token.cancel_query(NoTls).await }
                });
                // Cancelled or not, it is one or the other, and the next is not disturbed.
                let answer = try_ask(&client, "SELECT txid_current() > 0").await;
                assert!(
                    answer == Ok("t".into()) || answer == Err("57014".into()),
                    "{answer:?}"
                );
                cancel.await.unwrap().unwrap();
                let answer = try_ask(&client, &format!("SELECT {round}")).await;
                let expected = Ok(round.to_string());
                assert!(
                    answer == expected || answer == Err("57014".into()),
                    "{answer:?}"
                );
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    witness.ends_well().await;
}

#[tokio::test]
async fn a_statement_that_waits_for_a_server_can_be_cancelled() {
    let front = Front::with(|config| {
        config.admin = Some(ANYWHERE);
        config.pool.size = 1;
    })
    .await;
    let mut raw = front.raw().await;
    let holder = front.client().await;
    holder
        .batch_execute("BEGIN; SELECT txid_current()")
        .await
        .unwrap();
    raw.send(&query("SELECT txid_current()")).await;
    front.until_waiting(1).await;
    raw::cancel(front.address(), raw.pid, &raw.secret.clone()).await;
    assert_eq!(show(&raw.until_ready().await), "E(57014) Z(I)");
    holder.batch_execute("COMMIT").await.unwrap();
    assert_eq!(
        raw.query("SELECT txid_current() > 0").await,
        "T D(t) C(SELECT 1) Z(I)"
    );
}

#[tokio::test]
async fn a_wrong_key_cancels_nothing() {
    let front = Front::small().await;
    let west = front
        .lab
        .node("eu-west")
        .connect(SUPERUSER, APP_DATABASE)
        .await
        .unwrap();
    let mut raw = front.raw().await;
    raw.send(&query("SELECT pg_sleep(600)")).await;
    until(&west, SLEEPERS, "1").await;
    let mut wrong = raw.secret.clone();
    wrong[0] ^= 1;
    for (pid, secret) in [
        (raw.pid, &wrong[..]),
        (raw.pid + 1, &raw.secret[..]),
        (raw.pid, &raw.secret[..3]),
        (raw.pid, &[0; 32]),
        (0, &[0; 4]),
    ] {
        raw::cancel(front.address(), pid, secret).await;
        assert_eq!(ask(&west, SLEEPERS).await, "1");
    }
    raw::cancel(front.address(), raw.pid, &raw.secret.clone()).await;
    assert_eq!(show(&raw.until_ready().await), "T E(57014) Z(I)");
    let client = front.client().await;
    client
        .batch_execute("SET statement_timeout TO '20ms'")
        .await
        .unwrap();
    let late = client
        .batch_execute("SELECT pg_sleep(60)")
        .await
        .unwrap_err();
    assert_eq!(code(&late), "57014");
}

const VERSIONS: [(i32, usize); 2] = [(3 << 16, 4), (3 << 16 | 2, 32)];

/// A client that speaks this version of the protocol, whose keys have so many bytes.
async fn log_in(front: &Front, (version, secret): (i32, usize)) -> Raw {
    let mut raw = Raw::connect(front.address()).await;
    let parameters = [("user", APP_USER), ("database", APP_DATABASE)];
    let greeting = raw.start(version, &parameters, PASSWORD).await;
    assert_eq!(last(&greeting), "Z(I)", "{greeting:?}");
    assert_eq!(raw.secret.len(), secret);
    raw
}

/// Cancels what this client runs until it says that it was; gives what it said.
async fn cancel_until_answered(front: &Front, raw: &mut Raw) -> String {
    let secret = raw.secret.clone();
    loop {
        // A request may come ahead of the statement, as with PostgreSQL itself, and is then for
        // nothing.
        raw::cancel(front.address(), raw.pid, &secret).await;
        if let Ok(seen) = timeout(Duration::from_millis(200), raw.until_ready()).await {
            return show(&seen);
        }
    }
}

#[tokio::test]
async fn keys_of_either_version_reach_either_node() {
    let front = Front::small().await;
    for version in VERSIONS {
        for (node, sql) in [
            ("eu-west", "SELECT pg_sleep(600)"),
            ("us-east", "SELECT pg_sleep(600), txid_current()"),
        ] {
            let admin = front.lab.node(node).connect(SUPERUSER, APP_DATABASE);
            let admin = admin.await.unwrap();
            let mut raw = log_in(&front, version).await;
            let mut other = log_in(&front, version).await;
            for raw in [&mut raw, &mut other] {
                raw.send(&query(sql)).await;
            }
            until(&admin, SLEEPERS, "2").await;
            raw::cancel(front.address(), raw.pid, &raw.secret.clone()).await;
            assert!(show(&raw.until_ready().await).ends_with("E(57014) Z(I)"));
            // Only that one.
            assert_eq!(ask(&admin, SLEEPERS).await, "1", "{version:?} on {node}");
            raw::cancel(front.address(), other.pid, &other.secret.clone()).await;
            assert!(show(&other.until_ready().await).ends_with("E(57014) Z(I)"));
        }
    }
}

#[tokio::test]
async fn a_cancel_in_a_pipeline_ends_one_statement_of_it() {
    let front = Front::small().await;
    let east = front.admin().await;
    let mut raw = log_in(&front, VERSIONS[1]).await;
    let sleep = "SELECT pg_sleep(600), txid_current() > 0";
    let pipeline = [
        query("SELECT 1"),
        query(sleep),
        query("SELECT 2"),
        query("SELECT 3"),
    ];
    raw.send(&pipeline.concat()).await;
    until(&east, SLEEPERS, "1").await;
    raw::cancel(front.address(), raw.pid, &raw.secret.clone()).await;
    let seen = show(&raw.until(b'Z', 4).await);
    let answers: Vec<&str> = seen.split_inclusive("Z(I)").map(str::trim).collect();
    let [first, slept, behind, last] = answers[..] else {
        panic!("{seen}");
    };
    assert_eq!(first, "T D(1) C(SELECT 1) Z(I)", "{seen}");
    assert_eq!(slept, "T E(57014) Z(I)", "{seen}");
    // PostgreSQL's own race: it sends the signal twice, and the second may come so late.
    let is_hit = behind.ends_with("E(57014) Z(I)");
    assert!(is_hit || behind == "T D(2) C(SELECT 1) Z(I)", "{seen}");
    assert_eq!(last, "T D(3) C(SELECT 1) Z(I)", "{seen}");
}

/// Far more clients than servers: some run, most wait. Each cancels its own statement at a time of
/// its own, and nobody else is hit, neither those who are cancelled nor those who never are.
#[tokio::test]
async fn cancels_at_saturation_reach_their_own_statement() {
    const ROUNDS: usize = 10;
    let front = Arc::new(Front::with(|config| config.pool.size = 2).await);
    let all_done = Arc::new(AtomicBool::new(false));
    let mut bystanders = Vec::new();
    for number in 0..4 {
        let (front, all_done) = (Arc::clone(&front), Arc::clone(&all_done));
        bystanders.push(tokio::spawn(async move {
            let mut raw = log_in(&front, VERSIONS[number % 2]).await;
            let also = ["", ", txid_current() > 0"][number / 2];
            let mut count = 0;
            while !all_done.load(Ordering::Relaxed) {
                let answer = raw
                    .query(&format!("SELECT 'by{number}/{count}'{also}"))
                    .await;
                let expected = format!("T D(by{number}/{count}");
                assert!(answer.starts_with(&expected), "{answer}");
                assert!(answer.ends_with("C(SELECT 1) Z(I)"), "{answer}");
                count += 1;
            }
            count
        }));
    }
    let mut workers = Vec::new();
    for number in 0..12 {
        let front = Arc::clone(&front);
        workers.push(tokio::spawn(async move {
            let mut random = StdRng::seed_from_u64(number as u64);
            let mut raw = log_in(&front, VERSIONS[number % 2]).await;
            for round in 0..ROUNDS {
                let token = format!("{number}/{round}");
                let also = ["", ", txid_current() > 0"][random.random_range(0..2)];
                raw.send(&query(&format!("SELECT '{token}', pg_sleep(600){also}")))
                    .await;
                for _ in 0..random.random_range(0..200) {
                    tokio::task::yield_now().await;
                }
                let answer = cancel_until_answered(&front, &mut raw).await;
                assert!(answer.ends_with("E(57014) Z(I)"), "{token}: {answer}");
                // PostgreSQL's own race: a request that has been taken may hit what this same
                // client runs next, and nobody else.
                let answer = raw.query(&format!("SELECT '{token}'{also}")).await;
                let ours = answer.starts_with(&format!("T D({token}"));
                assert!(ours || answer.contains("E(57014)"), "{token}: {answer}");
            }
        }));
    }
    for worker in workers {
        worker.await.unwrap();
    }
    all_done.store(true, Ordering::Relaxed);
    for bystander in bystanders {
        assert!(bystander.await.unwrap() > 0);
    }
}
