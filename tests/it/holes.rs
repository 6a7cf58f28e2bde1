//! The corners where a session and its server can lose step: each story is short, and ends with
//! what the next client finds.

use std::time::{Duration, Instant};

use causeway::app::Causeway;
use causeway::lab::Lab;
use causeway::protocol::frame::{backend, frontend};

use crate::front::{Front, PATIENCE, ask, until, until_known};
use crate::raw::{
    Raw, bind, close_statement, copy_data, copy_done, execute, flush, head, parse, query, show,
    sync,
};
use crate::support;

/// Writes, so it runs on the primary.
const ON_THE_PRIMARY: &str = "SELECT txid_current() > 0";
const WRITTEN: &str = "T D(t) C(SELECT 1) Z(I)";
/// The server's own word for what node it is.
const NODE: &str = "SELECT current_setting('cluster_name')";

/// One server per node, and a table `note (id int)` on both.
async fn narrow() -> Front {
    narrow_before(Lab::small().await.unwrap(), "eu-west").await
}

/// The same, where the node of that region is always the nearer one.
async fn narrow_at(region: &str) -> Front {
    let lab = Lab::builder()
        .quick()
        .primary("us-east")
        .replica("eu-west")
        .round_trip("us-east", "eu-west", Duration::from_millis(3));
    narrow_before(lab.build().await.unwrap(), region).await
}

async fn narrow_before(lab: Lab, region: &str) -> Front {
    let mut config = support::config(&lab, region);
    config.pool.size = 1;
    let running = Causeway::start(config).await.unwrap();
    let front = Front { running, lab };
    let client = front.client().await;
    client
        .batch_execute("CREATE TABLE note (id int)")
        .await
        .unwrap();
    until_known(&client, "note").await;
    front.lab.wait_caught_up("eu-west").await.unwrap();
    front
}

/// Asks until a replica answers.
async fn until_on_replica(raw: &mut Raw) {
    let deadline = Instant::now() + PATIENCE;
    while raw.query(NODE).await != "T D(eu-west) C(SELECT 1) Z(I)" {
        assert!(Instant::now() < deadline, "never on the replica again");
    }
}

/// A simple query's answer, or none if the connection ends first.
async fn try_query(raw: &mut Raw, sql: &str) -> Option<String> {
    raw.try_send(&query(sql)).await.ok()?;
    until_ready_or_closed(raw).await
}

async fn until_ready_or_closed(raw: &mut Raw) -> Option<String> {
    let mut seen = Vec::new();
    while let Some(message) = raw.next().await {
        let ready = message.tag == backend::READY_FOR_QUERY;
        seen.push(message);
        if ready {
            return Some(show(&seen));
        }
    }
    None
}

#[tokio::test]
async fn a_copy_that_failed_in_the_middle_of_a_message() {
    const SIZE: usize = 100_000;
    let front = narrow().await;
    for ends_its_copy in [false, true] {
        let (mut raw, mut other) = (front.raw().await, front.raw().await);
        raw.send(&query("COPY note FROM STDIN")).await;
        raw.until(backend::COPY_IN_RESPONSE, 1).await;
        raw.send(&copy_data("no number\n")).await;
        raw.send(&head(frontend::COPY_DATA, SIZE)).await;
        raw.send(&vec![b'1'; SIZE / 2]).await;
        assert_eq!(show(&raw.until_ready().await), "E(22P02) Z(I)");
        other.send(&query(ON_THE_PRIMARY)).await;
        raw.send(&vec![b'1'; SIZE - SIZE / 2]).await;
        if ends_its_copy {
            raw.send(&copy_done()).await;
        }
        assert_eq!(show(&other.until_ready().await), WRITTEN);
        assert_eq!(raw.query(ON_THE_PRIMARY).await, WRITTEN);
        assert_eq!(other.query(ON_THE_PRIMARY).await, WRITTEN);
    }
}

#[tokio::test]
async fn an_extended_copy_with_its_sync_ahead() {
    let front = narrow().await;
    let (mut raw, mut other) = (front.raw().await, front.raw().await);
    raw.exchange(&[parse("c", "COPY note FROM STDIN"), sync()])
        .await;
    let run = [bind("", "c", &[]), execute("", 0), sync()].concat();
    for round in 1..=3 {
        raw.send(&run).await;
        raw.until(backend::COPY_IN_RESPONSE, 1).await;
        raw.send(&[copy_data("1\n2\n"), copy_done(), sync()].concat())
            .await;
        assert_eq!(show(&raw.until_ready().await), "C(COPY 2) Z(I)", "{round}");
        assert_eq!(other.query(ON_THE_PRIMARY).await, WRITTEN, "{round}");
        let expected = format!("T D({}) C(SELECT 1) Z(I)", 2 * round);
        assert_eq!(raw.query("SELECT count(*) FROM note").await, expected);
        until_on_replica(&mut raw).await;
    }
}

#[tokio::test]
async fn an_extended_copy_with_its_sync_ahead_that_fails() {
    let front = narrow().await;
    let (mut raw, mut other) = (front.raw().await, front.raw().await);
    raw.exchange(&[parse("c", "COPY note FROM STDIN"), sync()])
        .await;
    let run = [bind("", "c", &[]), execute("", 0), sync()].concat();
    for round in 1..=3 {
        raw.send(&run).await;
        raw.until(backend::COPY_IN_RESPONSE, 1).await;
        raw.send(&copy_data("no number\n")).await;
        raw.send(&copy_data("1\n").repeat(100)).await;
        let failed = raw.until(backend::ERROR_RESPONSE, 1).await;
        assert_eq!(show(&failed), "E(22P02)", "{round}");
        raw.send(&copy_data("1\n").repeat(100)).await;
        raw.send(&[copy_done(), sync()].concat()).await;
        assert_eq!(show(&raw.until_ready().await), "Z(I)", "{round}");
        assert_eq!(other.query(ON_THE_PRIMARY).await, WRITTEN, "{round}");
        let count = raw.query("SELECT count(*) FROM note").await;
        assert_eq!(count, "T D(0) C(SELECT 1) Z(I)", "{round}");
        until_on_replica(&mut raw).await;
    }
}

#[tokio::test]
async fn a_pipelined_read_behind_an_eventual_one_sees_the_write() {
    let front = narrow().await;
    front.lab.node("eu-west").pause_replay().await.unwrap();
    let mut raw = front.raw().await;
    let count = "SELECT count(*) FROM note";
    for round in 1..=20 {
        let answer = raw
            .exchange(&[
                query("INSERT INTO note VALUES (1)"),
                query(&format!("/* causeway.consistency='eventual' */ {count}")),
                query(count),
            ])
            .await;
        let expected = format!(" Z(I) T D({round}) C(SELECT 1) Z(I)");
        assert!(answer.ends_with(&expected), "{round}: {answer}");
    }
    front.lab.node("eu-west").resume_replay().await.unwrap();
}

#[tokio::test]
async fn what_asks_no_server_for_anything_chooses_none_for_what_follows() {
    let front = narrow_at("eu-west").await;
    front.lab.node("eu-west").pause_replay().await.unwrap();
    let mut raw = front.raw().await;
    let count = "SELECT count(*) FROM note";
    let eventual = format!("/* causeway.consistency='eventual' */ {count}");
    raw.exchange(&[parse("c", count), parse("e", &eventual), sync()])
        .await;
    raw.exchange(&[bind("", "e", &[]), execute("", 0), sync()])
        .await;
    let pipeline = [
        parse("", "INSERT INTO note VALUES ($1)"),
        bind("", "", &["1"]),
        execute("", 0),
        sync(),
    ];
    let idle: [(&[Vec<u8>], &str); 4] = [
        (&[flush()], ""),
        (&[flush(), flush()], ""),
        (&[close_statement("none"), flush()], "3 "),
        // The replica's server has it by the other name, and is asked for nothing more.
        (
            &[close_statement("d"), parse("d", &eventual), flush()],
            "3 1 ",
        ),
    ];
    let mut written = 0;
    for (idle, replies) in idle {
        for _ in 0..5 {
            // Answered to the end, so that the server has gone back when the rest comes.
            raw.exchange(&pipeline).await;
            written += 1;
            let read = [idle.concat(), query(count)].concat();
            raw.send(&read).await;
            let expected = format!("{replies}T D({written}) C(SELECT 1) Z(I)");
            assert_eq!(show(&raw.until_ready().await), expected);
            let write = [idle.concat(), query("INSERT INTO note VALUES (2)")].concat();
            raw.send(&write).await;
            written += 1;
            let expected = format!("{replies}C(INSERT 0 1) Z(I)");
            assert_eq!(show(&raw.until_ready().await), expected);
        }
    }
    front.lab.node("eu-west").resume_replay().await.unwrap();
}

#[tokio::test]
async fn a_setting_made_ahead_in_the_pipeline_counts_for_what_follows() {
    // What needs no data runs on the primary, which is nearer; reads shall not.
    let front = narrow_at("us-east").await;
    front.lab.node("eu-west").pause_replay().await.unwrap();
    let admin = front.admin().await;
    let insert = "INSERT INTO note VALUES (1)";
    admin.batch_execute(insert).await.unwrap();
    let count = "SELECT count(*) FROM note";
    let set = "SET causeway.consistency = 'strong'";
    let rest = [bind("", "", &[]), execute("", 0), sync()];
    let whole = [vec![parse("", set)], rest.to_vec()].concat();
    for (set, replies) in [
        (vec![query(set)], "C(SET) Z(I)"),
        (whole, "1 2 C(SET) Z(I)"),
    ] {
        let mut raw = front.raw().await;
        let near = raw.query("SET causeway.region = 'eu-west'").await;
        assert_eq!(near, "C(SET) Z(I)");
        assert_eq!(raw.query(count).await, "T D(0) C(SELECT 1) Z(I)");
        let answer = raw.exchange(&[set, vec![query(count)]].concat()).await;
        assert_eq!(answer, format!("{replies} T D(1) C(SELECT 1) Z(I)"));
    }
    let mut raw = front.raw().await;
    raw.query("SET causeway.region = 'eu-west'").await;
    let answer = raw.query(&format!("{set}; {count}")).await;
    assert_eq!(answer, "C(SET) T D(1) C(SELECT 1) Z(I)");
    front.lab.node("eu-west").resume_replay().await.unwrap();
}

#[tokio::test]
async fn a_text_that_fails_behind_its_own_transaction_leaves_a_session_that_writes() {
    let front = narrow_at("eu-west").await;
    for text in [
        "BEGIN READ ONLY; SELECT 1; COMMIT; SELECT 1/0",
        "BEGIN READ ONLY; SELECT 1; ROLLBACK; SELECT 1/0",
        "START TRANSACTION READ ONLY; SELECT 1/0",
    ] {
        let mut raw = front.raw().await;
        let failed = raw.query(text).await;
        assert!(failed.contains("E(22012)"), "{text}: {failed}");
        if failed.ends_with("Z(E)") {
            assert_eq!(raw.query("ROLLBACK").await, "C(ROLLBACK) Z(I)");
        }
        let written = raw.query("INSERT INTO note VALUES (1)").await;
        assert_eq!(written, "C(INSERT 0 1) Z(I)", "{text}");
    }
}

/// One write of a client, and how far it then reads.
type Step = (Vec<Vec<u8>>, u8);

#[tokio::test]
async fn settings_made_in_unusual_ways_are_kept_and_do_not_leak() {
    let front = narrow().await;
    let admin = front.admin().await;
    admin
        .batch_execute("CREATE ROLE lent_role; GRANT lent_role TO app")
        .await
        .unwrap();
    front.lab.wait_caught_up("eu-west").await.unwrap();
    let between = |sql: &str| -> Vec<Step> {
        vec![
            (
                vec![parse("", sql), bind("p1", "", &[]), flush()],
                backend::BIND_COMPLETE,
            ),
            (vec![execute("p1", 0), sync()], backend::READY_FOR_QUERY),
        ]
    };
    let two_portals = |other: &str| -> Vec<Step> {
        let messages = vec![
            parse("s1", "SET work_mem TO '71kB'"),
            bind("p1", "s1", &[]),
            parse("s2", other),
            bind("p2", "s2", &[]),
            execute("p1", 0),
            sync(),
        ];
        vec![(messages, backend::READY_FOR_QUERY)]
    };
    let one_cycle = |texts: &[&str]| -> Vec<Step> {
        let each = |sql: &&str| [parse("", sql), bind("", "", &[]), execute("", 0)].concat();
        let mut messages: Vec<_> = texts.iter().map(each).collect();
        messages.push(sync());
        vec![(messages, backend::READY_FOR_QUERY)]
    };
    let texts = |texts: &[&str]| -> Vec<Step> {
        let each = |sql: &&str| (vec![query(sql)], backend::READY_FOR_QUERY);
        texts.iter().map(each).collect()
    };
    let set = "SET work_mem TO '71kB'";
    let stories: Vec<(&str, &str, Vec<Step>)> = vec![
        ("a role", "lent_role/4MB", between("SET ROLE lent_role")),
        ("a size", "app/71kB", between(set)),
        ("and a read", "app/71kB", two_portals("SELECT 1")),
        (
            "and another size",
            "app/71kB",
            two_portals("SET work_mem TO '72kB'"),
        ),
        (
            "an error behind COMMIT",
            "app/71kB",
            one_cycle(&["BEGIN", set, "COMMIT", "SELECT 1/0"]),
        ),
        (
            "an error ahead of COMMIT",
            "app/4MB",
            [
                one_cycle(&["BEGIN", set, "SELECT 1/0", "COMMIT"]),
                texts(&["COMMIT"]),
            ]
            .concat(),
        ),
        (
            "a second transaction undone",
            "app/71kB",
            texts(&["BEGIN", set, "COMMIT; BEGIN; ROLLBACK"]),
        ),
        (
            "a second transaction kept",
            "app/4MB",
            texts(&["BEGIN", set, "ROLLBACK; BEGIN; COMMIT"]),
        ),
    ];
    let seen = "SELECT current_user || '/' || current_setting('work_mem') \
        || left((txid_current() > 0)::text, 0)";
    for (name, expected, story) in stories {
        let expected = format!("T D({expected}) C(SELECT 1) Z(");
        let mut direct = front.raw_direct().await;
        let (mut raw, mut other) = (front.raw().await, front.raw().await);
        for (messages, tag) in &story {
            let mut answers = Vec::new();
            for client in [&mut direct, &mut raw] {
                client.send(&messages.concat()).await;
                answers.push(show(&client.until(*tag, 1).await));
            }
            assert_eq!(answers[1], answers[0], "{name}");
        }
        // The server is lent to another, and comes back; unless the session keeps it, as only that
        // server knows what a failed cycle has left.
        let keeps = !raw.query("SHOW causeway.pin").await.contains(" D() ");
        assert_eq!(keeps, name == "an error behind COMMIT", "{name}");
        let default = "T D(app/4MB) C(SELECT 1) Z(I)";
        for _ in 0..2 {
            if !keeps {
                assert_eq!(other.query(seen).await, default, "{name}: another client");
            }
            let own = direct.query(seen).await;
            assert!(own.starts_with(&expected), "{name}: PostgreSQL: {own}");
            assert_eq!(raw.query(seen).await, own, "{name}");
        }
        drop(raw);
        let later = front.raw().await.query(seen).await;
        assert_eq!(later, default, "{name}: a later client");
    }
}

#[tokio::test]
async fn a_lock_taken_ahead_of_an_error_pins() {
    let front = narrow().await;
    let admin = front.admin().await;
    let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
    let client = front.client().await;
    let failed = client
        .simple_query("SELECT pg_advisory_lock(7); SELECT 1/0")
        .await;
    assert!(failed.is_err());
    assert_eq!(ask(&admin, locks).await, "1");
    let pin = ask(&client, "SHOW causeway.pin").await;
    assert!(pin.contains("lock"), "{pin}");
    drop(client);
    until(&admin, locks, "0").await;
    assert_eq!(front.raw().await.query(ON_THE_PRIMARY).await, WRITTEN);
}

#[tokio::test]
async fn nothing_is_committed_outside_of_a_transaction_whose_server_died() {
    let front = narrow().await;
    let admin = front.admin().await;
    let mut raw = front.raw().await;
    assert_eq!(raw.query("BEGIN").await, "C(BEGIN) Z(T)");
    raw.send(&query("SELECT pg_sleep(600)")).await;
    let asleep = "FROM pg_stat_activity WHERE usename = 'app' AND wait_event = 'PgSleep'";
    until(&admin, &format!("SELECT count(*) {asleep}"), "1").await;
    let terminate = format!("SELECT pg_terminate_backend(pid) {asleep}");
    assert_eq!(ask(&admin, &terminate).await, "t");
    // Either the connection ends, or the transaction has failed until the client ends it.
    if until_ready_or_closed(&mut raw).await.is_some() {
        let inserted = try_query(&mut raw, "INSERT INTO note VALUES (1)").await;
        if let Some(answer) = inserted {
            assert_eq!(answer, "E(25P02) Z(E)");
            let ended = try_query(&mut raw, "COMMIT").await;
            assert!(
                ended.as_deref().is_none_or(|it| it == "C(ROLLBACK) Z(I)"),
                "{ended:?}"
            );
        }
    }
    assert_eq!(ask(&admin, "SELECT count(*) FROM note").await, "0");
    assert_eq!(front.raw().await.query(ON_THE_PRIMARY).await, WRITTEN);
}

#[tokio::test]
async fn many_clients_take_turns_on_one_server() {
    const CLIENTS: usize = 8;
    const QUERIES: usize = 3000;
    let front = narrow().await;
    let mut tasks = Vec::new();
    for _ in 0..CLIENTS {
        let mut raw = front.raw().await;
        tasks.push(tokio::spawn(async move {
            for number in 0..QUERIES / CLIENTS {
                let sql = format!("SELECT {number} + least(txid_current(), 0)");
                let expected = format!("T D({number}) C(SELECT 1) Z(I)");
                assert_eq!(raw.query(&sql).await, expected);
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn an_unnamed_statement_is_bound_ahead_of_its_successor() {
    let front = narrow().await;
    let (mut raw, mut other) = (front.raw().await, front.raw().await);
    raw.exchange(&[parse("", "SELECT 'old' || $1"), sync()])
        .await;
    for _ in 0..2 {
        let messages = [
            parse("", "SELECT 'other' || $1 WHERE txid_current() > 0"),
            bind("", "", &["!"]),
            execute("", 0),
            sync(),
        ];
        let answer = other.exchange(&messages).await;
        assert_eq!(answer, "1 2 D(other!) C(SELECT 1) Z(I)");
    }
    let messages = [
        bind("", "", &["1"]),
        execute("", 0),
        parse("", "SELECT 'new' || $1 WHERE txid_current() > 0"),
        bind("", "", &["2"]),
        execute("", 0),
        sync(),
    ];
    assert_eq!(
        raw.exchange(&messages).await,
        "2 D(old1) C(SELECT 1) 1 2 D(new2) C(SELECT 1) Z(I)"
    );
    assert_eq!(other.query(ON_THE_PRIMARY).await, WRITTEN);
    let again = [bind("", "", &["3"]), execute("", 0), sync()];
    assert_eq!(raw.exchange(&again).await, "2 D(new3) C(SELECT 1) Z(I)");
}

/// PostgreSQL tells of an error at once, and libpq lets an application wait for that without a Sync or a
/// Flush.
#[tokio::test]
async fn an_error_comes_though_no_sync_does() {
    let front = narrow().await;
    let insert = "INSERT INTO note VALUES ($1)";
    let step = |value| [bind("", "s", &[value]), execute("", 0)].concat();
    let half_a_message = parse("later", "SELECT 1");
    let half_a_message = &half_a_message[..10];
    for begins in [true, false] {
        let mut answers = Vec::new();
        for mut raw in [front.raw_direct().await, front.raw().await] {
            if begins {
                raw.send(&query("BEGIN")).await;
                raw.until_ready().await;
            }
            raw.exchange(&[parse("s", insert), sync()]).await;
            let run = [step("1"), step("2"), step("none"), step("3")].concat();
            raw.send(&[&run, half_a_message].concat()).await;
            let told = raw.until(backend::ERROR_RESPONSE, 1).await;
            let rest = &parse("later", "SELECT 1")[10..];
            raw.send(&[rest, &sync()].concat()).await;
            answers.push([show(&told), show(&raw.until_ready().await)]);
            raw.exchange(&[query("ROLLBACK")]).await;
            assert_eq!(
                raw.query("SELECT count(*) FROM note").await,
                "T D(0) C(SELECT 1) Z(I)"
            );
        }
        assert_eq!(answers[0], answers[1], "in a transaction: {begins}");
        assert!(answers[0][0].ends_with("E(22P02)"), "{answers:?}");
    }
}

/// What comes late is still part of its cycle.
#[tokio::test]
async fn a_cycle_whose_messages_come_one_by_one() {
    let front = narrow().await;
    let messages = [
        parse("", "INSERT INTO note VALUES ($1) RETURNING id"),
        bind("", "", &["7"]),
        execute("", 0),
        parse("", "SELECT count(*) FROM note"),
        bind("", "", &[]),
        execute("", 0),
        sync(),
    ];
    let mut raw = front.raw().await;
    for message in &messages {
        let (head, rest) = message.split_at(3);
        for part in [head, rest] {
            raw.send(part).await;
            // Longer than a client is taken to be still sending.
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
    }
    let answer = show(&raw.until_ready().await);
    let expected = "1 2 D(7) C(INSERT 0 1) 1 2 D(1) C(SELECT 1) Z(I)";
    assert_eq!(answer, expected);
    assert_eq!(raw.query(ON_THE_PRIMARY).await, WRITTEN);
}
