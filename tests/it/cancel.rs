//! Cancel requests: they reach the statement that they are meant for, and nothing else.

use causeway::lab::{APP_DATABASE, SUPERUSER};
use tokio_postgres::NoTls;

use crate::front::{ANYWHERE, Front, Witness, ask, code, try_ask, until};
use crate::raw::{self, query, show};

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
        let client = std::sync::Arc::new(front.client().await);
        client.batch_execute(begin).await.unwrap();
        let token = client.cancel_token();
        let sleeping = tokio::spawn({
            let (client, sql) = (std::sync::Arc::clone(&client), sql.to_owned());
            async move { try_ask(&client, &sql).await }
        });
        until(admin, SLEEPERS, "1").await;
        token.cancel_query(NoTls).await.unwrap();
        assert_eq!(sleeping.await.unwrap(), Err("57014".to_owned()), "{sql}");
        if !begin.is_empty() {
            assert_eq!(try_ask(&client, "SELECT 1").await, Err("25P02".to_owned()));
            client.batch_execute("ROLLBACK").await.unwrap();
        }
        assert_eq!(ask(&client, "SELECT 1").await, "1");
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
