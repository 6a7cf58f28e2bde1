//! Tokens carry what one connection has written and seen to another, in this Causeway or in that of
//! another region; and nobody gets further with a wrong one.

use std::time::Duration;

use causeway::app::{Causeway, Running};
use causeway::lab::{APP_DATABASE, APP_USER, Lab, PASSWORD, SUPERUSER};
use causeway::protocol::frame::{backend, parameter_status};
use causeway::routing::Lsn;
use tokio_postgres::{Client, NoTls};

use crate::front::{Front, ask, code, read_on_replica, until, until_known};
use crate::raw::{Message, Raw};
use crate::support;

const KEY: &str = "a key of sixteen bytes or more";

/// A table with one row, which the replica has, and then no more: replay is paused.
async fn behind() -> Front {
    let front = Front::with(|config| config.causal.token_key = Some(KEY.to_owned().into())).await;
    let client = front.client().await;
    client
        .batch_execute("CREATE TABLE t (a int); INSERT INTO t VALUES (1)")
        .await
        .unwrap();
    until_known(&client, "t").await;
    front.lab.wait_caught_up("eu-west").await.unwrap();
    front.lab.node("eu-west").pause_replay().await.unwrap();
    front
}

const COUNT: &str = "SELECT count(*) FROM t";

/// Writes a row and gives the token.
async fn write(client: &Client) -> String {
    client
        .batch_execute("INSERT INTO t VALUES (2)")
        .await
        .unwrap();
    ask(client, "SHOW causeway.token").await
}

#[tokio::test]
async fn a_token_carries_a_write_to_another_connection() {
    let front = behind().await;
    let token = write(&front.client().await).await;

    // Without it the other connection sees the replica as it is: else this would prove nothing.
    let other = front.client().await;
    read_on_replica(&other, COUNT, "1").await;
    other
        .batch_execute(&format!("SET causeway.token = '{token}'"))
        .await
        .unwrap();
    assert_eq!(ask(&other, COUNT).await, "2");
    let shown = ask(&other, "SHOW causeway.token").await;
    assert_covers(&shown, &token);

    let commented = front.client().await;
    let sql = format!("{COUNT} /* causeway.token='{token}' */");
    assert_eq!(ask(&commented, &sql).await, "2");
    // What has been seen stays seen.
    assert_eq!(ask(&commented, COUNT).await, "2");

    let prepared = front.client().await;
    read_on_replica(&prepared, COUNT, "1").await;
    let row = prepared.query_one(&sql, &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 2);

    let options = format!("-c causeway.token={token}");
    let started = front.try_client(|config| {
        config.options(&options);
    });
    assert_eq!(ask(&started.await.unwrap(), COUNT).await, "2");

    front.lab.node("eu-west").resume_replay().await.unwrap();
    read_on_replica(&other, COUNT, "2").await;
}

/// Timeline and LSN; behind them stands the signature.
fn position(token: &str) -> Vec<&str> {
    token.split('.').take(4).collect()
}

fn lsn(token: &str) -> Lsn {
    position(token)[3].replace('-', "/").parse().unwrap()
}

/// On the same timeline, and as far at the least: the primary writes WAL of its own now and then.
pub fn assert_covers(token: &str, other: &str) {
    assert_eq!(position(token)[..3], position(other)[..3]);
    assert!(lsn(token) >= lsn(other), "{token} does not cover {other}");
}

/// Drivers that bind all values do not pin their sessions by it.
#[tokio::test]
async fn a_token_may_be_bound_as_a_parameter() {
    let front = behind().await;
    let token = write(&front.client().await).await;
    let client = front.client().await;
    read_on_replica(&client, COUNT, "1").await;
    let set = "SELECT set_config('causeway.token', $1, false)";
    let said: String = client.query_one(set, &[&token]).await.unwrap().get(0);
    assert_eq!(said, token);
    assert_eq!(ask(&client, COUNT).await, "2");
    assert_eq!(ask(&client, "SHOW causeway.pin").await, "");
    let shown = ask(&client, "SHOW causeway.token").await;
    assert_covers(&shown, &token);
    // Prepared once, it takes another value each time; a wrong one is refused.
    let set = client.prepare(set).await.unwrap();
    client.query_one(&set, &[&""]).await.unwrap();
    let wrong = client.query_one(&set, &[&"c1.1.1.0-0"]).await.unwrap_err();
    assert_eq!(code(&wrong), "22023");
    client.query_one(&set, &[&token]).await.unwrap();

    let level = "SELECT set_config('causeway.consistency', $1, false) AS level";
    client.query_one(level, &[&"eventual"]).await.unwrap();
    assert_eq!(ask(&client, "SHOW causeway.consistency").await, "eventual");
    assert_eq!(ask(&client, COUNT).await, "1");
    let wrong = client.query_one(level, &[&"sesion"]).await.unwrap_err();
    assert_eq!(code(&wrong), "22023");
    client.query_one(level, &[&None::<&str>]).await.unwrap();
    assert_eq!(ask(&client, "SHOW causeway.consistency").await, "session");
    assert_eq!(ask(&client, COUNT).await, "2");
    // In a transaction that is rolled back a setting is taken back, a token is not.
    client.batch_execute("BEGIN").await.unwrap();
    client.query_one(level, &[&"eventual"]).await.unwrap();
    client.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(ask(&client, "SHOW causeway.consistency").await, "session");
    // Declared as something else it is not understood, and says so.
    let strange = "SELECT set_config('causeway.session_key', $1, false)";
    let oid = [tokio_postgres::types::Type::BPCHAR];
    if let Ok(statement) = client.prepare_typed(strange, &oid).await {
        let refused = client.query_one(&statement, &[&"a"]).await.unwrap_err();
        assert_eq!(code(&refused), "22023");
    }
    assert_eq!(ask(&client, "SHOW causeway.pin").await, "");
    let other = front.client().await;
    let left = "SELECT coalesce(current_setting('causeway.token', true), '')";
    assert_eq!(ask(&other, left).await, "");
}

/// The position is at least what was written, and staleness has a bound.
#[tokio::test]
async fn the_last_route_tells_position_and_staleness() {
    let front = Front::small().await;
    let client = front.client().await;
    client
        .batch_execute("CREATE TABLE t (a int); INSERT INTO t VALUES (1)")
        .await
        .unwrap();
    until_known(&client, "t").await;
    let token = ask(&client, "SHOW causeway.token").await;
    let written = position(&token)[3].replace('-', "/");
    read_on_replica(&client, COUNT, "1").await;
    let route = ask(&client, "SHOW causeway.last_route").await;
    let part = |name: &str| {
        let (_, rest) = route.split_once(&format!(" {name}=")).expect(name);
        rest.split(' ').next().unwrap().to_owned()
    };
    let lsn = |text: &str| text.parse::<causeway::routing::Lsn>().unwrap();
    assert!(lsn(&part("lsn")) >= lsn(&written), "{route}, {token}");
    assert!(
        part("staleness_ms").parse::<f64>().unwrap() >= 0.0,
        "{route}"
    );
    let strong = "SELECT count(*) FROM t /* causeway.consistency='strong' */";
    ask(&client, strong).await;
    let route = ask(&client, "SHOW causeway.last_route").await;
    assert!(route.contains(" staleness_ms=0.000 "), "{route}");
}

#[tokio::test]
async fn tokens_merge_and_the_larger_wins() {
    let front = behind().await;
    let (one, two) = (front.client().await, front.client().await);
    let (early, late) = (write(&one).await, write(&two).await);
    assert_ne!(position(&early), position(&late));
    let other = front.client().await;
    for token in [&late, &early] {
        other
            .batch_execute(&format!("SET causeway.token = '{token}'"))
            .await
            .unwrap();
        assert_eq!(ask(&other, COUNT).await, "3");
    }
    // An empty one asks for nothing and takes nothing away; nor does a rollback.
    other
        .batch_execute("SET causeway.token = ''")
        .await
        .unwrap();
    other.batch_execute("RESET causeway.token").await.unwrap();
    assert_eq!(ask(&other, COUNT).await, "3");
    let undone = front.client().await;
    undone
        .batch_execute(&format!("BEGIN; SET causeway.token = '{late}'; ROLLBACK"))
        .await
        .unwrap();
    assert_eq!(ask(&undone, COUNT).await, "3");
}

#[tokio::test]
async fn what_was_only_seen_is_in_the_token_too() {
    let lab = Lab::builder()
        .quick()
        .primary("us-east")
        .replica("eu-west")
        .replica("eu-west")
        .build();
    let lab = lab.await.unwrap();
    let front = Front::before(lab, |_| {}).await;
    let writer = front.client().await;
    writer
        .batch_execute("CREATE TABLE t (a int); INSERT INTO t VALUES (1)")
        .await
        .unwrap();
    until_known(&writer, "t").await;
    for replica in ["eu-west", "eu-west-2"] {
        front.lab.wait_caught_up(replica).await.unwrap();
    }
    front.lab.node("eu-west-2").pause_replay().await.unwrap();
    writer
        .batch_execute("INSERT INTO t VALUES (2)")
        .await
        .unwrap();
    front.lab.wait_caught_up("eu-west").await.unwrap();

    // A reader that has seen it, wherever: all replicas are as near as the primary here.
    let reader = front.client().await;
    reader
        .batch_execute("SET causeway.consistency = 'causal'")
        .await
        .unwrap();
    until(&reader, COUNT, "2").await;
    let token = ask(&reader, "SHOW causeway.token").await;
    for _ in 0..20 {
        let other = front.client().await;
        let sql = format!("SET causeway.consistency = 'causal'; SET causeway.token = '{token}'");
        other.batch_execute(&sql).await.unwrap();
        assert_eq!(ask(&other, COUNT).await, "2");
    }
}

#[tokio::test]
async fn a_wrong_token_is_refused_and_says_why() {
    let front = behind().await;
    let client = front.client().await;
    let token = write(&client).await;
    let parts: Vec<&str> = token.split('.').collect();
    let [version, system, timeline, lsn, signature] = parts[..] else {
        panic!("{token}");
    };
    let sign = |text: &str| {
        let tokens = causeway::routing::Tokens::new([KEY]);
        let unsigned = causeway::routing::Tokens::new(Vec::<&str>::new());
        tokens.write(unsigned.read(text).unwrap())
    };
    let table = [
        ("nonsense".to_owned(), "not of the form"),
        (
            format!("{version}.{system}.{timeline}.{lsn}"),
            "no signature",
        ),
        (
            format!("{version}.{system}.{timeline}.{lsn}0.{signature}"),
            "signature is wrong",
        ),
        (
            sign(&format!("c1.1{}.{timeline}.{lsn}", &system[1..])),
            "another cluster",
        ),
        (
            sign(&format!("c1.{system}.{timeline}.FFFF-0")),
            "the primary was at",
        ),
    ];
    for (wrong, reason) in &table {
        let set = format!("SET causeway.token = '{wrong}'");
        let commented = format!("{COUNT} /* causeway.token='{wrong}' */");
        for sql in [&set, &commented] {
            let error = client.simple_query(sql).await.unwrap_err();
            let detail = error.as_db_error().and_then(|error| error.detail());
            assert_eq!(code(&error), "22023", "{sql}");
            assert!(
                detail.is_some_and(|detail| detail.contains(reason)),
                "{error:?}"
            );
        }
        let options = format!("-c causeway.token={wrong}");
        let refused = front.try_client(|config| {
            config.options(&options);
        });
        let error = refused.await.expect_err("a log-in with a wrong token");
        assert_eq!(code(&error), "22023", "{wrong}");
    }
    // In a transaction it fails with it, as with any error.
    client.batch_execute("BEGIN; SELECT 1").await.unwrap();
    let error = client.batch_execute("SET causeway.token = 'x'").await;
    assert_eq!(code(&error.unwrap_err()), "22023");
    let error = client.batch_execute("SELECT 1").await;
    assert_eq!(code(&error.unwrap_err()), "25P02");
    client.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(ask(&client, COUNT).await, "2");
}

#[tokio::test]
async fn a_read_only_transaction_that_is_too_old_says_so() {
    let front = behind().await;
    let reader = front.client().await;
    read_on_replica(&reader, COUNT, "1").await;
    reader.batch_execute("BEGIN READ ONLY").await.unwrap();
    assert_eq!(ask(&reader, COUNT).await, "1");
    let token = write(&front.client().await).await;
    let sql = format!("{COUNT} /* causeway.token='{token}' */");
    let error = reader.simple_query(&sql).await.unwrap_err();
    assert_eq!(code(&error), "25001");
    reader.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(ask(&reader, &sql).await, "2");
}

/// The parameters that a client was told of, in order, and the tags of the messages.
fn told(messages: &[Message]) -> (Vec<(String, String)>, String) {
    let status = |message: &Message| {
        let (name, value) =
            parameter_status(&message.body).filter(|_| message.tag == backend::PARAMETER_STATUS)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Some((text(name), text(value)))
    };
    let tags = messages.iter().map(|message| char::from(message.tag));
    (messages.iter().filter_map(status).collect(), tags.collect())
}

async fn answer(raw: &mut Raw, sql: &str) -> (Vec<(String, String)>, String) {
    let text = [sql.as_bytes(), b"\0"].concat();
    raw.send(&crate::raw::frame(b'Q', &text)).await;
    told(&raw.until_ready().await)
}

#[tokio::test]
async fn a_report_brings_the_token_with_each_write_s_answer() {
    let front = behind().await;
    let mut raw = front.raw().await;
    let (parameters, _) = answer(&mut raw, "INSERT INTO t VALUES (2)").await;
    assert!(parameters.is_empty(), "{parameters:?}");
    answer(&mut raw, "SET causeway.report = 'on'").await;

    let other = front.client().await;
    let mut last = String::new();
    let writes = [
        ("INSERT INTO t VALUES (3)", "CSSZ"),
        ("UPDATE t SET a = 4 WHERE a = 3 RETURNING a", "TDCSSZ"),
        ("BEGIN; INSERT INTO t VALUES (5); COMMIT", "CCCSSZ"),
    ];
    for (sql, expected) in writes {
        let (parameters, tags) = answer(&mut raw, sql).await;
        assert_eq!(tags, expected, "{sql}");
        let [(first, token), (second, receipt)] = &parameters[..] else {
            panic!("{sql}: {parameters:?}");
        };
        assert_eq!(
            (first.as_str(), second.as_str()),
            ("causeway.token", "causeway.receipt")
        );
        assert!(
            receipt.starts_with("node=us-east role=primary lsn="),
            "{receipt}"
        );
        assert_ne!(*token, last);
        last.clone_from(token);
    }
    let sql = format!("{COUNT} /* causeway.token='{last}' */");
    assert_eq!(ask(&other, &sql).await, "4");

    // Within a transaction nothing is written yet; a read has a receipt only.
    let (parameters, _) = answer(&mut raw, "BEGIN").await;
    assert!(parameters.is_empty(), "{parameters:?}");
    let (parameters, _) = answer(&mut raw, "INSERT INTO t VALUES (6)").await;
    assert_eq!(parameters.len(), 1, "{parameters:?}");
    let (parameters, tags) = answer(&mut raw, "COMMIT").await;
    assert_eq!((parameters.len(), tags.as_str()), (2, "CSSZ"));

    let mut reader = front.raw().await;
    answer(&mut reader, "SET causeway.report = 'on'").await;
    let (parameters, tags) = answer(&mut reader, COUNT).await;
    assert_eq!(tags, "TDCSZ");
    let (name, receipt) = &parameters[0];
    assert_eq!(name, "causeway.receipt");
    let (_, bound) = receipt.split_once("staleness_ms=").expect("a bound");
    let bound: f64 = bound.parse().unwrap();
    assert!(
        receipt.starts_with("node=eu-west role=replica lsn=0/") && bound > 0.0,
        "{receipt}"
    );
    answer(&mut reader, "SET causeway.report = 'off'").await;
    let (parameters, _) = answer(&mut reader, COUNT).await;
    assert!(parameters.is_empty(), "{parameters:?}");
}

/// A COPY's position is asked for behind it; writes in flight together get one report each, or one
/// for all.
#[tokio::test]
async fn a_report_keeps_the_order_of_answers() {
    let front = behind().await;
    let mut raw = front.raw().await;
    answer(&mut raw, "SET causeway.report = 'on'").await;
    raw.send(&crate::raw::frame(b'Q', b"COPY t FROM STDIN\0"))
        .await;
    raw.until(backend::COPY_IN_RESPONSE, 1).await;
    let data = [
        crate::raw::frame(b'd', b"7\n8\n"),
        crate::raw::frame(b'c', b""),
    ];
    raw.send(&data.concat()).await;
    let (parameters, tags) = told(&raw.until_ready().await);
    assert_eq!(tags, "CSSZ", "{parameters:?}");

    let query = |sql: &str| crate::raw::frame(b'Q', &[sql.as_bytes(), b"\0"].concat());
    let three = [
        query("INSERT INTO t VALUES (9)"),
        query("SELECT 42"),
        query("INSERT INTO t VALUES (10) RETURNING a"),
    ];
    raw.send(&three.concat()).await;
    let (parameters, tags) = told(&raw.until(backend::READY_FOR_QUERY, 3).await);
    let order: String = tags.chars().filter(|tag| *tag != 'S').collect();
    assert_eq!(order, "CZTDCZTDCZ", "{tags}");
    let (name, token) = parameters
        .iter()
        .rfind(|(name, _)| name == "causeway.token")
        .unwrap();
    assert_eq!(name, "causeway.token");
    let other = front.client().await;
    let sql = format!("{COUNT} /* causeway.token='{token}' */");
    assert_eq!(ask(&other, &sql).await, "5");
}

/// A Causeway beside the primary, with no replica of its own, and one far away.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_goes_from_region_to_region() {
    let lab = Lab::builder()
        .quick()
        .primary("us-east")
        .replica("eu-west")
        .round_trip("us-east", "eu-west", Duration::from_millis(60))
        .build();
    let lab = lab.await.unwrap();
    let mut alone = support::config(&lab, "us-east");
    alone.nodes.truncate(1);
    let east = Causeway::start(alone).await.unwrap();
    let west = support::start(&lab, "eu-west").await;
    let writer = support::connect(&east).await;
    writer
        .batch_execute("CREATE TABLE t (a int); INSERT INTO t VALUES (0)")
        .await
        .unwrap();
    lab.wait_caught_up("eu-west").await.unwrap();
    let reader = support::connect(&west).await;
    until_known(&reader, "t").await;
    let mut near = 0;
    for round in 1..=20 {
        writer
            .batch_execute("UPDATE t SET a = a + 1")
            .await
            .unwrap();
        let token = ask(&writer, "SHOW causeway.token").await;
        let other = connect_with(&west, &token).await;
        assert_eq!(ask(&other, "SELECT a FROM t").await, round.to_string());
        let sql = format!("SELECT a FROM t /* causeway.token='{token}' */");
        assert_eq!(ask(&reader, &sql).await, round.to_string());
        let route = ask(&reader, "SHOW causeway.last_route").await;
        near += u32::from(route.contains("role=replica"));
    }
    println!("{near} of 20 reads by a token were answered by the replica");
}

async fn connect_with(causeway: &Running, token: &str) -> Client {
    let mut config = tokio_postgres::Config::new();
    config
        .host("127.0.0.1")
        .port(causeway.listen_addr().port())
        .user(APP_USER)
        .password(PASSWORD)
        .dbname("app")
        .options(format!("-c causeway.token={token}"));
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(async move { connection.await.is_ok() });
    client
}

#[tokio::test]
async fn the_time_of_a_write_made_elsewhere_is_enough() {
    let front = behind().await;
    // Past the proxy: nobody here has seen it.
    let direct = front.admin().await;
    direct
        .batch_execute("INSERT INTO t VALUES (2)")
        .await
        .unwrap();
    let now = || {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.unwrap().as_millis()
    };
    let written = now();
    let other = front.client().await;
    read_on_replica(&other, COUNT, "1").await;
    let sql = format!("{COUNT} /* causeway.last_write_timestamp='{written}' */");
    assert_eq!(ask(&other, &sql).await, "2");
    let other = front.client().await;
    other
        .batch_execute(&format!("SET causeway.last_write_timestamp = '{written}'"))
        .await
        .unwrap();
    assert_eq!(ask(&other, COUNT).await, "2");

    front.lab.node("eu-west").resume_replay().await.unwrap();
    read_on_replica(&other, COUNT, "2").await;

    let wrong = [(now() * 1000).to_string(), (now() + 120_000).to_string()];
    for wrong in wrong {
        let error = other
            .batch_execute(&format!("SET causeway.last_write_timestamp = {wrong}"))
            .await
            .unwrap_err();
        assert_eq!(code(&error), "22023", "{wrong}");
    }
}

/// PostgreSQL shows a commit on a replica before it counts the record as replayed: behind a commit that
/// drops many tables that takes long enough to be caught.
#[tokio::test]
async fn what_is_still_being_replayed_is_in_the_token_if_it_was_seen() {
    const TABLES: u32 = 2000;
    let front = Front::small().await;
    let client = front.client().await;
    let tables = format!(
        "CREATE TABLE t (a int);
         DO $$ BEGIN FOR i IN 1..{TABLES} LOOP EXECUTE 'CREATE TABLE dropped_' || i || ' ()'; END LOOP; END $$"
    );
    client.batch_execute(&tables).await.unwrap();
    until_known(&client, "t").await;
    front.lab.wait_caught_up("eu-west").await.unwrap();
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let reader = front.client().await;
        readers.spawn(async move {
            until(&reader, COUNT, "1").await;
            ask(&reader, "SHOW causeway.token").await
        });
    }
    let writer = front.primary().connect(SUPERUSER, APP_DATABASE).await;
    let writer = writer.unwrap();
    let dropping = format!(
        "BEGIN; INSERT INTO t VALUES (1);
         DO $$ BEGIN FOR i IN 1..{TABLES} LOOP EXECUTE 'DROP TABLE dropped_' || i; END LOOP; END $$"
    );
    writer.batch_execute(&dropping).await.unwrap();
    let before_commit = front.primary().insert_lsn().await.unwrap();
    writer.batch_execute("COMMIT").await.unwrap();
    while let Some(token) = readers.join_next().await {
        let token = token.unwrap();
        let lsn = position(&token)[3].replace('-', "/");
        let lsn: Lsn = lsn.parse().unwrap();
        assert!(lsn > before_commit, "{token} is not behind {before_commit}");
    }
}
