//! Writes that are transactions by themselves, asked for their numbers ahead of their Sync: what
//! is written is read, whatever the replica has, and a client cannot tell.

use std::time::{Duration, Instant};

use causeway::config::{Config, OnLag};
use causeway::lab::{APP_DATABASE, Cut, SUPERUSER};

use crate::front::{Front, PATIENCE, ask, read_on_replica, until_known};
use crate::habit::{captures, talkative_with};
use crate::raw::{Raw, bind, execute, parse, query, show, sync};

/// So many writes that go well are asked for by position first.
const ALONE: usize = 8;

/// A Causeway beside the replica, a log of the primary that tells of function calls, tables that the
/// replica has, and a session that reads what it writes.
async fn front(probe_interval: Duration) -> (Front, Raw) {
    front_with(|config| config.monitor.probe_interval = probe_interval).await
}

/// The same with some settings changed.
async fn front_with(change: impl FnOnce(&mut Config)) -> (Front, Raw) {
    let front = talkative_with("eu-west", change).await;
    let client = front.client().await;
    let tables = "CREATE TABLE t (id int PRIMARY KEY); \
        CREATE TABLE child (id int REFERENCES t DEFERRABLE INITIALLY DEFERRED); \
        CREATE FUNCTION ends() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN \
            IF NEW.id = -1 THEN RAISE NOTICE 'at the end'; END IF; \
            IF NEW.id = -2 THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF; \
            RETURN NULL; \
        END$$; \
        CREATE CONSTRAINT TRIGGER ends AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED \
            FOR EACH ROW WHEN (NEW.id < 0) EXECUTE FUNCTION ends(); \
        CREATE PROCEDURE several(a int, b int) LANGUAGE plpgsql AS $$BEGIN \
            INSERT INTO t VALUES (a); COMMIT; INSERT INTO t VALUES (b); COMMIT; \
        END$$";
    client.batch_execute(tables).await.unwrap();
    until_known(&client, "t").await;
    front.lab.wait_caught_up("eu-west").await.unwrap();
    let raw = front.raw().await;
    (front, raw)
}

/// One cycle of the extended protocol.
fn extended(sql: &str) -> Vec<Vec<u8>> {
    vec![parse("", sql), bind("", "", &[]), execute("", 0), sync()]
}

async fn run(raw: &mut Raw, sql: &str) -> String {
    raw.exchange(&extended(sql)).await
}

async fn insert(raw: &mut Raw, id: i32) {
    let answer = run(raw, &format!("INSERT INTO t VALUES ({id})")).await;
    assert_eq!(answer, "1 2 C(INSERT 0 1) Z(I)");
}

async fn count(raw: &mut Raw, expected: usize) {
    let answer = run(raw, "SELECT count(*) FROM t").await;
    assert_eq!(answer, format!("1 2 D({expected}) C(SELECT 1) Z(I)"));
    // It waits for the position behind a read on the primary: else that would answer for what is
    // written next too.
    raw.query("SHOW causeway.last_route").await;
}

/// Writes and reads until the next write is asked for its number; gives how many rows there are.
async fn until_numbered(raw: &mut Raw) -> usize {
    for id in 1..=ALONE {
        insert(raw, id as i32).await;
        count(raw, id).await;
    }
    ALONE
}

/// Writes and does not read, until the next write is asked for nothing.
async fn until_unasked(front: &Front, raw: &mut Raw) {
    let mut asked = 0;
    for id in 1..40 {
        insert(raw, id).await;
        raw.query("SHOW causeway.last_route").await;
        let now = captures(front) + numbers(front);
        if now == asked {
            return;
        }
        asked = now;
    }
    panic!("still asked");
}

/// So often the primary has been asked for a number.
fn numbers(front: &Front) -> usize {
    let log = front.primary().log().unwrap();
    log.matches("execute causeway_number: ").count()
}

const OFTEN: Duration = Duration::from_millis(50);

#[tokio::test]
async fn what_is_written_is_read_near_or_far() {
    let (front, mut raw) = front_with(|config| {
        config.monitor.probe_interval = Duration::from_secs(600);
        // A round trip may be too short for the replica of a slow machine.
        config.routing.on_lag = OnLag::Wait;
        config.routing.max_wait = Duration::from_millis(300);
    })
    .await;
    let rows = until_numbered(&mut raw).await;
    let (asked, captured) = (numbers(&front), captures(&front));
    assert_eq!(asked, 0);
    // No probe of the primary tells a position: the replica is asked for the transaction.
    let mut near = 0;
    for more in 1..=20 {
        insert(&mut raw, 100 + more).await;
        count(&mut raw, rows + more as usize).await;
        let route = raw.query("SHOW causeway.last_route").await;
        if route.contains("replica, after a wait") {
            near += 1;
            // And again, where it has been shown.
            count(&mut raw, rows + more as usize).await;
            let route = raw.query("SHOW causeway.last_route").await;
            assert!(route.contains("fresh replica"), "{route}");
        }
    }
    assert!(near > 0, "every read had to go to the primary");
    // A read that went there has its position captured, and so has a write right behind it.
    assert!(numbers(&front) >= asked + near);
    assert!(captures(&front) <= captured + 2 * (20 - near));

    front.lab.node("eu-west").pause_replay().await.unwrap();
    for more in 21..=30 {
        insert(&mut raw, 100 + more).await;
        count(&mut raw, rows + more as usize).await;
        let route = raw.query("SHOW causeway.last_route").await;
        assert!(route.contains("role=primary"), "{route}");
    }
    front.lab.node("eu-west").resume_replay().await.unwrap();

    // The token of it all is told, and read at elsewhere; from then on its positions are captured.
    insert(&mut raw, 200).await;
    let token = raw.query("SHOW causeway.token").await;
    let token = token.split(['(', ')']).nth(1).unwrap().to_owned();
    let client = front.client().await;
    let set = format!("SET causeway.token = '{token}'");
    client.batch_execute(&set).await.unwrap();
    let seen = ask(&client, "SELECT count(*) FROM t").await;
    assert_eq!(seen, (rows + 31).to_string());
    let (asked, captured) = (numbers(&front), captures(&front));
    insert(&mut raw, 201).await;
    count(&mut raw, rows + 32).await;
    assert_eq!(numbers(&front), asked);
    assert!(captures(&front) > captured);
}

#[tokio::test]
async fn what_fails_or_writes_nothing_is_answered_as_ever() {
    let (front, mut raw) = front(OFTEN).await;
    front.lab.node("eu-west").pause_replay().await.unwrap();
    let mut rows = 0;
    let steps = [
        ("INSERT INTO t VALUES (1)", "1 2 E(23505) Z(I)"),
        (
            "INSERT INTO child VALUES (77)",
            "1 2 C(INSERT 0 1) E(23503) Z(I)",
        ),
        (
            "INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING",
            "1 2 C(INSERT 0 0) Z(I)",
        ),
        ("DELETE FROM t WHERE id = 77", "1 2 C(DELETE 0) Z(I)"),
        ("INSERT INTO nowhere VALUES (1)", "E(42P01) Z(I)"),
    ];
    for (step, (sql, expected)) in steps.iter().enumerate() {
        // The more have failed, the more have to go well.
        for id in 1..=ALONE << step {
            insert(&mut raw, (step * 1000 + id) as i32).await;
            rows += 1;
            count(&mut raw, rows).await;
        }
        let captured = captures(&front);
        assert_eq!(run(&mut raw, sql).await, *expected, "{sql}");
        count(&mut raw, rows).await;
        count(&mut raw, rows).await;
        // What it has shown has a position, whatever number it had; so has the first read, on the primary.
        assert!(captures(&front) >= captured + 2, "{sql}");
        assert_eq!(run(&mut raw, sql).await, *expected, "{sql}, behind a read");
        assert_eq!(run(&mut raw, sql).await, *expected, "{sql}, at once");
    }
    // What fails before it is asked is not; the others are, but for those that came right behind an answer.
    let asked = numbers(&front);
    assert!((1..=12).contains(&asked), "{asked}");
}

#[tokio::test]
async fn what_happens_at_the_commit_is_the_client_s() {
    let (front, mut raw) = front(OFTEN).await;
    let mut rows = until_numbered(&mut raw).await;
    let asked = numbers(&front);
    let text =
        "WITH one AS (INSERT INTO t VALUES (20) RETURNING id) INSERT INTO t SELECT id + 1 FROM one";
    assert_eq!(run(&mut raw, text).await, "1 2 C(INSERT 0 1) Z(I)");
    rows += 2;
    count(&mut raw, rows).await;
    assert_eq!(numbers(&front) - asked, 1);
    let asked = numbers(&front);
    let noticed = run(&mut raw, "INSERT INTO t VALUES (-1)").await;
    assert_eq!(noticed, "1 2 C(INSERT 0 1) N(00000) Z(I)");
    rows += 1;
    count(&mut raw, rows).await;
    assert_eq!(numbers(&front) - asked, 1);
    // What runs code of the user's own is asked by position: it may have committed several times.
    let called = run(&mut raw, "CALL several(500, 501)").await;
    assert_eq!(called, "1 2 C(CALL) Z(I)");
    rows += 2;
    count(&mut raw, rows).await;
    assert_eq!(numbers(&front) - asked, 1);

    // A server that ends there has not committed, and nobody is told that it has.
    for id in 600..600 + ALONE {
        insert(&mut raw, id as i32).await;
        rows += 1;
        count(&mut raw, rows).await;
    }
    raw.send(&extended("INSERT INTO t VALUES (-2)").concat())
        .await;
    let lost = show(&raw.until_closed().await);
    assert_eq!(lost, "1 2 C(INSERT 0 1) E(57P01)");
    front.lab.wait_caught_up("eu-west").await.unwrap();
    count(&mut front.raw().await, rows).await;
}

#[tokio::test]
async fn more_at_once_is_answered_in_its_turn() {
    let (front, mut raw) = front(OFTEN).await;
    let rows = until_numbered(&mut raw).await;
    raw.send(&extended("INSERT INTO t VALUES (100)").concat())
        .await;
    let rest = [
        extended("INSERT INTO t VALUES (101)"),
        extended("SELECT count(*) FROM t"),
    ];
    raw.send(&rest.concat().concat()).await;
    let all = show(&raw.until(b'Z', 3).await);
    let written = "1 2 C(INSERT 0 1) Z(I) ";
    let read = format!("1 2 D({}) C(SELECT 1) Z(I)", rows + 2);
    assert_eq!(all, [written, written, &read].concat());
    let both = [
        extended("INSERT INTO t VALUES (102)"),
        extended("INSERT INTO t VALUES (103)"),
    ];
    let answer = raw.exchange(&both.concat()).await;
    assert_eq!(answer, [written, written].concat().trim_end());
    count(&mut raw, rows + 4).await;
    // In a transaction there is its COMMIT.
    let asked = numbers(&front);
    for text in ["BEGIN", "INSERT INTO t VALUES (104)", "COMMIT"] {
        raw.query(text).await;
    }
    count(&mut raw, rows + 5).await;
    assert_eq!(numbers(&front), asked);
}

#[tokio::test]
async fn the_question_is_prepared_for_nobody_else() {
    let (front, mut raw) = front(OFTEN).await;
    let other = front.client().await;
    let code = "CREATE FUNCTION quiet() RETURNS void LANGUAGE plpgsql AS $$BEGIN \
        PERFORM set_config('work_mem', '1MB', false); END$$";
    other.batch_execute(code).await.unwrap();
    let mut rows = 0;
    for round in 0..3 {
        for _ in 0..=2 * ALONE {
            rows += 1;
            insert(&mut raw, rows).await;
            count(&mut raw, rows as usize + round).await;
        }
        assert!(numbers(&front) > round * ALONE);
        let list = "SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'causeway%'";
        let listed = raw.query(list).await;
        assert!(listed.contains("D(0)"), "{listed}");
        // Nor where another session's code has run on the server since.
        insert(&mut raw, 1000 + round as i32).await;
        other.batch_execute("SELECT quiet()").await.unwrap();
        let listed = raw.query(list).await;
        assert!(listed.contains("D(0)"), "{listed}");
        // It is prepared anew where it has been taken away.
        raw.query("DEALLOCATE ALL").await;
    }
}

#[tokio::test]
async fn a_role_that_may_not_ask_is_not_made_to() {
    let (front, mut raw) = front(OFTEN).await;
    let revoke = "REVOKE EXECUTE ON FUNCTION txid_current_if_assigned() FROM PUBLIC";
    front.admin().await.batch_execute(revoke).await.unwrap();
    for id in 1..=3 * ALONE {
        insert(&mut raw, id as i32).await;
        count(&mut raw, id).await;
    }
    assert_eq!(numbers(&front), 0);
    let log = front.primary().log().unwrap();
    assert!(
        log.contains("permission denied for function txid_current_if_assigned"),
        "no trial"
    );
}

#[tokio::test]
async fn replicas_that_may_not_be_asked_stay_in_use() {
    let (front, mut raw) = front(OFTEN).await;
    let revoke = "REVOKE EXECUTE ON FUNCTION txid_status(bigint), txid_current_snapshot(), \
        txid_snapshot_xmax(txid_snapshot) FROM PUBLIC";
    front.admin().await.batch_execute(revoke).await.unwrap();
    front.lab.wait_caught_up("eu-west").await.unwrap();
    // The monitor looks anew what it may ask.
    let mut rows = 0;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let before = numbers(&front);
        for _ in 0..3 * ALONE {
            rows += 1;
            insert(&mut raw, rows).await;
            count(&mut raw, rows as usize).await;
        }
        if numbers(&front) == before {
            break;
        }
        assert!(Instant::now() < deadline, "still asked for numbers");
    }
    front.lab.wait_caught_up("eu-west").await.unwrap();
    let client = front.client().await;
    read_on_replica(&client, "SELECT count(*) FROM t", &rows.to_string()).await;
}

/// From here on the replica gets nothing. Gives a token of the timeline that a promotion will begin.
async fn cut_off(front: &Front) -> String {
    front.lab.wait_caught_up("eu-west").await.unwrap();
    front.lab.node("eu-west").cut_wal(Cut::Freeze);
    let token = ask(&front.client().await, "SHOW causeway.token").await;
    let mut parts: Vec<&str> = token.split('.').collect();
    parts[2] = "2";
    parts.join(".")
}

/// Kills the primary, promotes the replica, and makes Causeway look at it, which it does seldom here.
async fn fail_over(front: &Front, next: &str) {
    front.primary().kill().await.unwrap();
    front.lab.node("eu-west").promote().await.unwrap();
    let mut other = front.raw().await;
    until_done(&mut other, &format!("SET causeway.token = '{next}'")).await;
}

/// Says it until it is answered without an error; gives the warnings and the answer.
async fn until_done(raw: &mut Raw, sql: &str) -> (String, String) {
    let deadline = Instant::now() + PATIENCE;
    let mut told = String::new();
    loop {
        raw.send(&query(sql)).await;
        let answer = raw.until_ready().await;
        let warnings = answer.iter().filter(|it| it.tag == b'N');
        told.extend(warnings.map(|it| it.field(b'M')));
        if !answer.iter().any(|it| it.tag == b'E') {
            return (told, show(&answer));
        }
        assert!(Instant::now() < deadline, "{answer:?}");
    }
}

const PERHAPS_LOST: &str =
    "causeway: what was written or seen last may have been lost in a failover";

#[tokio::test]
async fn behind_a_promotion_a_number_means_nothing() {
    let (front, mut raw) = front(Duration::from_secs(600)).await;
    until_numbered(&mut raw).await;
    let next = cut_off(&front).await;
    insert(&mut raw, 100).await;
    fail_over(&front, &next).await;
    // As many transactions as there were: its number is another's now.
    let new = front.lab.node("eu-west");
    let admin = new.connect(SUPERUSER, APP_DATABASE).await.unwrap();
    for id in 200..220 {
        admin
            .execute(&format!("INSERT INTO t VALUES ({id})"), &[])
            .await
            .unwrap();
    }
    let count = "SELECT count(*) FROM t WHERE id < 200";
    let (told, answer) = until_done(&mut raw, count).await;
    assert_eq!(told, PERHAPS_LOST);
    assert!(answer.contains("D(8)"), "{answer}");
    assert_eq!(raw.query(count).await, "T D(8) C(SELECT 1) Z(I)");
}

#[tokio::test]
async fn who_may_ask_no_more_fails_once() {
    let (front, mut raw) = front(OFTEN).await;
    let mut rows = until_numbered(&mut raw).await;
    insert(&mut raw, 100).await;
    rows += 1;
    count(&mut raw, rows).await;
    assert_eq!(numbers(&front), 1);
    let revoke = "REVOKE EXECUTE ON FUNCTION txid_current_if_assigned() FROM PUBLIC";
    front.admin().await.batch_execute(revoke).await.unwrap();
    let refused = run(&mut raw, "INSERT INTO t VALUES (101)").await;
    assert_eq!(refused, "1 2 C(INSERT 0 1) E(42501) Z(I)");
    for id in 0..40 {
        insert(&mut raw, 200 + id).await;
        rows += 1;
        count(&mut raw, rows).await;
    }
}

/// One session's code takes away what was prepared for another's question.
#[tokio::test]
async fn what_code_has_taken_away_is_prepared_anew() {
    let (front, mut raw) = front(OFTEN).await;
    let client = front.client().await;
    let forget = "CREATE FUNCTION forget() RETURNS void LANGUAGE plpgsql AS $$BEGIN \
        EXECUTE 'DEALLOCATE ALL'; END$$";
    client.batch_execute(forget).await.unwrap();
    let mut rows = until_numbered(&mut raw).await;
    for id in 0..20 {
        insert(&mut raw, 100 + id).await;
        rows += 1;
        count(&mut raw, rows).await;
        if id % 3 == 0 {
            client.batch_execute("SELECT forget()").await.unwrap();
        }
    }
    assert!(numbers(&front) > 1, "{}", numbers(&front));
}

/// What comes behind a write does not make it forgotten: here it dies with the primary.
#[tokio::test]
async fn a_write_that_may_be_lost_is_told_of_though_another_was_under_way() {
    let (front, mut raw) = front(Duration::from_secs(600)).await;
    let rows = until_numbered(&mut raw).await;
    let next = cut_off(&front).await;
    insert(&mut raw, 100).await;
    raw.send(&query("INSERT INTO t SELECT 101 FROM pg_sleep(600)"))
        .await;
    let asleep = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    let admin = front.admin().await;
    let deadline = Instant::now() + PATIENCE;
    while ask(&admin, asleep).await != "1" {
        assert!(Instant::now() < deadline, "the second write is not there");
    }
    fail_over(&front, &next).await;
    let answer = raw.until_ready().await;
    assert!(show(&answer).contains("E(08007)"), "{answer:?}");
    let (told, answer) = until_done(&mut raw, "SELECT count(*) FROM t").await;
    assert_eq!(told, PERHAPS_LOST);
    assert!(answer.contains(&format!("D({rows})")), "{answer}");
}

/// A session that only writes is asked for nothing, and learns of it all the same.
#[tokio::test]
async fn a_write_that_nobody_has_asked_about_may_be_lost_too() {
    let (front, mut raw) = front(Duration::from_secs(600)).await;
    until_unasked(&front, &mut raw).await;
    let next = cut_off(&front).await;
    insert(&mut raw, 100).await;
    fail_over(&front, &next).await;
    let (told, _) = until_done(&mut raw, "INSERT INTO t VALUES (101)").await;
    assert_eq!(told, PERHAPS_LOST);
    let (told, answer) = until_done(&mut raw, "SELECT count(*) FROM t WHERE id > 99").await;
    assert_eq!(told, "", "once");
    assert!(answer.contains("D(1)"), "{answer}");
}

/// What has no position yet is in no token, and so nothing is.
#[tokio::test]
async fn nobody_is_told_a_token_that_lacks_a_write() {
    let seldom = |config: &mut Config| config.monitor.probe_interval = Duration::from_secs(600);
    let front = talkative_with("us-east", seldom).await;
    let client = front.client().await;
    let table = "CREATE TABLE t (id int PRIMARY KEY)";
    client.batch_execute(table).await.unwrap();
    let mut raw = front.raw().await;
    until_unasked(&front, &mut raw).await;
    raw.query("SET causeway.report = on").await;
    let answer = raw.query("SHOW port").await;
    assert!(
        answer.contains("S(causeway.receipt=node=us-east"),
        "{answer}"
    );
    assert!(!answer.contains("S(causeway.token="), "{answer}");
    let answer = raw.query("SELECT count(*) FROM t").await;
    assert!(answer.contains("S(causeway.token="), "{answer}");
}

/// An old token is no reason to refuse what a transaction READ ONLY reads on, whatever its session has
/// come to know of its own write since.
#[tokio::test]
async fn an_old_token_asks_nothing_of_a_transaction_on_a_replica() {
    let (front, mut raw) = front(OFTEN).await;
    let client = front.client().await;
    let old = ask(&client, "SHOW causeway.token").await;
    let mut rows = until_numbered(&mut raw).await;
    let mut near = 0;
    for id in 0..10 {
        insert(&mut raw, 100 + id).await;
        raw.query("BEGIN READ ONLY").await;
        let answer = raw.query("SELECT count(*) FROM t").await;
        assert_eq!(answer, format!("T D({}) C(SELECT 1) Z(T)", rows + 1));
        let route = raw.query("SHOW causeway.last_route").await;
        let insert = format!("INSERT INTO t VALUES ({})", 200 + id);
        client.batch_execute(&insert).await.unwrap();
        // A token of what was seen on the primary waits for a probe of it.
        ask(
            &client,
            "SELECT count(*) FROM t /* causeway.consistency='strong' */",
        )
        .await;
        ask(&client, "SHOW causeway.token").await;
        let commented = format!("SELECT 1 /* causeway.token='{old}' */");
        let answer = raw.query(&commented).await;
        assert_eq!(answer, "T D(1) C(SELECT 1) Z(T)", "{route}");
        raw.query("COMMIT").await;
        near += usize::from(route.contains("role=replica"));
        rows += 2;
    }
    assert!(near > 0, "every transaction had to run on the primary");
}

/// The monitor has connected anew to the replica since the write, so its word is not enough; that is no
/// reason to fail what would rather fail than go to the primary.
#[tokio::test]
async fn who_waits_for_a_number_waits_for_its_position_too() {
    let patient = |config: &mut Config| {
        config.monitor.probe_interval = Duration::from_secs(600);
        config.routing.on_lag = OnLag::Error;
        config.routing.max_wait = PATIENCE;
    };
    let (front, mut raw) = front_with(patient).await;
    let mut rows = until_numbered(&mut raw).await;
    let replica = front.lab.node("eu-west");
    let admin = replica.connect(SUPERUSER, APP_DATABASE).await.unwrap();
    let part = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
        WHERE application_name = 'causeway monitor'";
    for id in 0..3 {
        insert(&mut raw, 100 + id).await;
        ask(&admin, part).await;
        rows += 1;
        count(&mut raw, rows).await;
    }
    assert!(numbers(&front) > 0);
}
