//! What pins a session, for exactly as long as it must: the server that holds it is asked.

use causeway::lab::APP_DATABASE;
use tokio_postgres::Client;

use crate::front::{ANYWHERE, Front, ask, read_on_replica, try_ask, until, until_known};

/// A write, and the process of the server that runs it.
const WHO: &str = "SELECT pg_backend_pid() FROM (SELECT txid_current()) x";

async fn pin(client: &Client) -> String {
    ask(client, "SHOW causeway.pin").await
}

/// Each story: statements, and what pins the session behind each.
#[tokio::test]
async fn a_pin_lasts_as_long_as_what_is_held() {
    let front = Front::small().await;
    let admin = front.admin().await;
    admin
        .batch_execute(
            "CREATE FUNCTION unlock(key bigint) RETURNS bool LANGUAGE plpgsql AS \
                 $$ BEGIN RETURN pg_advisory_unlock(key); END $$; \
             CREATE FUNCTION make() RETURNS void LANGUAGE plpgsql AS \
                 $$ BEGIN CREATE TEMP TABLE made (a int); END $$; \
             CREATE FUNCTION make_and_drop() RETURNS void LANGUAGE plpgsql AS \
                 $$ BEGIN CREATE TEMP TABLE made (a int); DROP TABLE made; END $$; \
             CREATE FUNCTION lock(key bigint) RETURNS void LANGUAGE sql AS \
                 $$ SELECT pg_advisory_lock(key) $$; \
             CREATE TABLE t (a int); GRANT ALL ON t TO app",
        )
        .await
        .unwrap();
    // What the functions do is known when the table is.
    until_known(&front.client().await, "t").await;
    const LISTEN: &str = "LISTEN";
    const TABLE: &str = "temporary table";
    const CURSOR: &str = "cursor WITH HOLD";
    const LOCK: &str = "session advisory lock";
    let stories: &[&[(&str, &str)]] = &[
        &[
            ("LISTEN a", LISTEN),
            ("LISTEN b", LISTEN),
            ("UNLISTEN a", LISTEN),
            ("UNLISTEN b", ""),
        ],
        &[("LISTEN a", LISTEN), ("UNLISTEN *", "")],
        &[("BEGIN", ""), ("LISTEN a", LISTEN), ("ROLLBACK", "")],
        &[
            ("BEGIN; LISTEN a; COMMIT", LISTEN),
            ("BEGIN", LISTEN),
            ("UNLISTEN a", LISTEN),
            ("ROLLBACK", LISTEN),
            ("UNLISTEN a", ""),
        ],
        &[
            ("CREATE TEMP TABLE x (a int)", TABLE),
            ("SELECT * FROM x", TABLE),
            ("DROP TABLE x", ""),
        ],
        &[
            ("CREATE TEMP TABLE x AS SELECT 1", TABLE),
            ("CREATE TEMP VIEW y AS SELECT 1", TABLE),
            ("DROP TABLE x", TABLE),
            ("DROP VIEW y", ""),
        ],
        &[
            ("BEGIN", ""),
            ("CREATE TEMP TABLE x (a int) ON COMMIT DROP", TABLE),
            ("COMMIT", ""),
        ],
        &[
            ("BEGIN", ""),
            ("CREATE TEMP TABLE x (a int)", TABLE),
            ("ROLLBACK", ""),
        ],
        &[("CREATE TEMP TABLE x (a int)", TABLE), ("DISCARD TEMP", "")],
        &[
            (
                "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
                TABLE,
            ),
            ("DROP FUNCTION pg_temp.f()", ""),
        ],
        &[("CREATE TEMP TABLE x (a int); DROP TABLE x", "")],
        &[
            ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", CURSOR),
            ("FETCH c", CURSOR),
            ("CLOSE c", ""),
        ],
        &[
            ("BEGIN", ""),
            ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", CURSOR),
            ("COMMIT", CURSOR),
            ("CLOSE ALL", ""),
        ],
        &[
            ("SELECT pg_advisory_lock(1)", LOCK),
            ("SELECT pg_advisory_lock(1)", LOCK),
            ("SELECT pg_advisory_unlock(1)", LOCK),
            ("SELECT pg_catalog.pg_advisory_unlock(1)", ""),
        ],
        &[
            ("SELECT pg_advisory_lock_shared(1, 2)", LOCK),
            ("SELECT \"pg_advisory_unlock_shared\"(1, 2)", ""),
        ],
        &[
            (
                "SELECT pg_try_advisory_lock(n) FROM generate_series(1, 9) n",
                LOCK,
            ),
            ("SELECT pg_advisory_unlock(3)", LOCK),
            ("SELECT pg_advisory_unlock_all()", ""),
        ],
        &[("SELECT pg_advisory_unlock(77)", "")],
        &[
            ("BEGIN", ""),
            ("SELECT pg_advisory_lock(1)", LOCK),
            ("ROLLBACK", LOCK),
            ("SELECT unlock(1)", LOCK),
            ("SELECT pg_advisory_unlock(1)", ""),
        ],
        &[("SELECT pg_advisory_xact_lock(1)", "")],
        // What functions make and lock inside.
        &[("SELECT make()", TABLE), ("DROP TABLE made", "")],
        &[
            ("LISTEN a", LISTEN),
            ("SELECT make()", "LISTEN, temporary table"),
            ("UNLISTEN a", TABLE),
            ("DROP TABLE made", ""),
        ],
        &[
            ("BEGIN; SELECT make(); DROP TABLE made; COMMIT", ""),
            ("SELECT make_and_drop()", ""),
        ],
        &[
            ("SELECT lock(1)", LOCK),
            ("SELECT pg_advisory_unlock(1)", ""),
        ],
        &[("SELECT lock(1), unlock(1)", "")],
        &[
            ("LISTEN a", LISTEN),
            ("CREATE TEMP TABLE x (a int)", "LISTEN, temporary table"),
            ("DISCARD ALL", ""),
        ],
    ];
    for story in stories {
        let client = front.client().await;
        for (sql, expected) in *story {
            // A column may be wider than one text: an error is no step of a story.
            client
                .simple_query(sql)
                .await
                .unwrap_or_else(|error| panic!("{sql}: {error}"));
            assert_eq!(pin(&client).await, *expected, "{sql} in {story:?}");
        }
    }
    let left = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
    until(&admin, left, "0").await;
}

/// How far a string of statements came before it failed, and what pins the session then.
#[tokio::test]
async fn what_has_not_been_begun_pins_nothing() {
    let front = Front::small().await;
    let client = front.client().await;
    client
        .batch_execute("CREATE TABLE t (a int)")
        .await
        .unwrap();
    for (failing, expected) in [
        ("selec 1", ""),
        ("SELECT 1; selec 2", ""),
        ("BEGIN; INSERT INTO t VALUES (1); COMIT", ""),
        ("INSERT INTO nowhere VALUES (1); COMMIT; LOAD 'plpgsql'", ""),
        ("LOAD 'nowhere'; SELECT 1", ""),
        // Locks are kept whatever fails.
        (
            "SELECT pg_advisory_lock(n), 1 / (n - n) FROM generate_series(1, 1) n; SELECT 1",
            "session advisory lock",
        ),
        (
            "PREPARE p AS SELECT pg_advisory_lock(1); SELECT 1 / 0",
            "SQL PREPARE",
        ),
        ("INSERT INTO t VALUES (1); COMMIT; SELECT 1 / 0", "unknown"),
        ("BEGIN; SELECT 1 / 0", "unknown"),
    ] {
        client.simple_query(failing).await.unwrap_err();
        client.batch_execute("ROLLBACK").await.unwrap();
        assert_eq!(pin(&client).await, expected, "{failing}");
        client.batch_execute("DISCARD ALL").await.unwrap();
    }
}

#[tokio::test]
async fn a_server_is_free_again_for_others() {
    let front = Front::with(|config| {
        config.admin = Some(ANYWHERE);
        config.pool.size = 1;
        config.pool.checkout_timeout = std::time::Duration::from_secs(10);
    })
    .await;
    let holder = front.client().await;
    let other = front.client().await;
    for (hold, free) in [
        ("LISTEN a", "UNLISTEN a"),
        ("CREATE TEMP TABLE x (a int)", "DROP TABLE x"),
        ("SELECT pg_advisory_lock(5)", "SELECT pg_advisory_unlock(5)"),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", "CLOSE c"),
    ] {
        holder.simple_query(hold).await.unwrap();
        let server = ask(&holder, WHO).await;
        assert_eq!(ask(&holder, WHO).await, server);
        let frees = async {
            front.until_waiting(1).await;
            holder.simple_query(free).await.unwrap();
        };
        let (waited_for, ()) = tokio::join!(ask(&other, WHO), frees);
        assert_eq!(waited_for, server, "{free}");
    }
}

#[tokio::test]
async fn a_pinned_session_reads_near_what_its_pin_does_not_matter_to() {
    let front = Front::small().await;
    let client = front.client().await;
    client
        .batch_execute("CREATE TABLE t (a int); INSERT INTO t VALUES (1)")
        .await
        .unwrap();
    let read = "SELECT a FROM t";
    client
        .batch_execute("LISTEN a; DECLARE c CURSOR WITH HOLD FOR SELECT a + 10 FROM t")
        .await
        .unwrap();
    let server = ask(&client, WHO).await;
    for round in 2..12 {
        let before = (round - 1).to_string();
        read_on_replica(&client, read, &before).await;
        assert_eq!(
            client.query_one(read, &[]).await.unwrap().get::<_, i32>(0),
            round - 1
        );
        let write = format!("UPDATE t SET a = {round}");
        client.batch_execute(&write).await.unwrap();
        assert_eq!(ask(&client, read).await, round.to_string());
        assert_eq!(ask(&client, WHO).await, server);
    }
    assert_eq!(ask(&client, "FETCH c").await, "11");
    // In a transaction everything stays together.
    client.batch_execute("BEGIN").await.unwrap();
    assert_eq!(ask(&client, read).await, "11");
    assert_eq!(ask(&client, WHO).await, server);
    client.batch_execute("COMMIT").await.unwrap();
    // Who locks wants to see what the last owner wrote.
    client
        .simple_query("SELECT pg_advisory_lock(1)")
        .await
        .unwrap();
    for _ in 0..3 {
        assert_eq!(ask(&client, read).await, "11");
        let route = ask(&client, "SHOW causeway.last_route").await;
        assert!(route.contains("role=primary"), "{route}");
    }
}

#[tokio::test]
async fn a_replica_that_fails_does_not_cost_a_pinned_session_its_server() {
    let front = Front::small().await;
    let client = front.client().await;
    client.batch_execute("LISTEN a").await.unwrap();
    let server = ask(&client, WHO).await;
    read_on_replica(&client, "SELECT 1 FROM (VALUES (1)) v", "1").await;
    for node in front.lab.nodes().filter(|node| node.name() != "us-east") {
        node.terminate_backends(causeway::lab::APP_USER)
            .await
            .unwrap();
    }
    for _ in 0..3 {
        assert_eq!(ask(&client, "SELECT 1 FROM (VALUES (1)) v").await, "1");
        assert_eq!(ask(&client, WHO).await, server);
    }
    assert_eq!(pin(&client).await, "LISTEN");
}

#[tokio::test]
async fn what_a_notification_tells_of_is_there_to_be_read() {
    let front = Front::small().await;
    let admin = front.admin().await;
    admin
        .batch_execute("CREATE TABLE news (id int); GRANT ALL ON news TO app")
        .await
        .unwrap();
    let mut listener = front.raw().await;
    listener.query("LISTEN news").await;
    for id in 1..=50 {
        let write = format!("BEGIN; INSERT INTO news VALUES ({id}); NOTIFY news, '{id}'; COMMIT");
        admin.batch_execute(&write).await.unwrap();
        let message = listener.next().await.unwrap();
        assert_eq!(message.tag, b'A', "{message:?}");
        let read = format!("SELECT id FROM news WHERE id = {id}");
        assert_eq!(
            listener.query(&read).await,
            format!("T D({id}) C(SELECT 1) Z(I)")
        );
    }
}

#[tokio::test]
async fn a_loaded_library_stays_until_all_is_discarded_and_its_server_goes() {
    let front = Front::with(|config| config.pool.size = 1).await;
    let superuser = front
        .try_client(|config| {
            config.user(causeway::lab::SUPERUSER).dbname(APP_DATABASE);
        })
        .await
        .unwrap();
    superuser
        .batch_execute("LOAD 'auto_explain'")
        .await
        .unwrap();
    let server = ask(&superuser, WHO).await;
    assert_eq!(pin(&superuser).await, "LOAD");
    superuser.batch_execute("DISCARD ALL").await.unwrap();
    assert_eq!(pin(&superuser).await, "");
    assert_ne!(ask(&superuser, WHO).await, server);
    assert_eq!(
        try_ask(&superuser, "SHOW auto_explain.log_min_duration").await,
        Err("42704".to_owned())
    );
}
