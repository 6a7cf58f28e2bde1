//! What the proxy knows of the functions and relations of a database, and when.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use causeway::config::{MonitorConfig, NodeConfig, ServerTls, TlsMode};
use causeway::lab::{APP_DATABASE, APP_USER, Lab, MONITOR_USER, PASSWORD, SUPERUSER};
use causeway::monitor::catalogue::{Loaded, load};
use causeway::monitor::control_pool;
use tokio::time::sleep;

use crate::front::{Front, PATIENCE, ask, read_on_replica, until};

/// Why the last statement ran where it did.
async fn route(client: &tokio_postgres::Client) -> String {
    ask(client, "SHOW causeway.last_route").await
}

#[tokio::test]
async fn what_goes_through_the_proxy_is_known_at_once() {
    let front = Front::small().await;
    let client = front.client().await;
    client
        .batch_execute(
            "CREATE TABLE t (n int);
             CREATE FUNCTION reads() RETURNS int STABLE LANGUAGE sql AS 'SELECT count(*)::int FROM t';
             CREATE FUNCTION writes() RETURNS int LANGUAGE plpgsql AS
                 'BEGIN INSERT INTO t VALUES (1); RETURN 1; END';
             CREATE VIEW harmless AS SELECT reads() AS n",
        )
        .await
        .unwrap();
    for sql in ["SELECT reads()", "SELECT n FROM harmless"] {
        read_on_replica(&client, sql, "0").await;
    }
    // Prepared while it reads, and run when it writes.
    let prepared = client.prepare("SELECT n FROM harmless").await.unwrap();
    client.query_one(&prepared, &[]).await.unwrap();
    assert!(route(&client).await.contains("role=replica"));
    client
        .batch_execute("CREATE OR REPLACE VIEW harmless AS SELECT writes() AS n")
        .await
        .unwrap();
    let mut rows = 0;
    loop {
        client.query_one(&prepared, &[]).await.unwrap();
        rows += 1;
        // Before it is known, the replica refuses; either way it writes once.
        if route(&client).await.contains("reason=\"write\"") {
            break;
        }
    }
    until(&client, "SELECT count(*) FROM t", &rows.to_string()).await;
}

#[tokio::test]
async fn what_is_made_past_the_proxy_is_found_when_it_is_missed() {
    let front = Front::small().await;
    let client = front.client().await;
    let direct = front
        .primary()
        .connect(APP_USER, APP_DATABASE)
        .await
        .unwrap();
    direct
        .batch_execute("CREATE VIEW made_elsewhere AS SELECT 7 AS n")
        .await
        .unwrap();
    assert_eq!(ask(&client, "SELECT n FROM made_elsewhere").await, "7");
    // The interval between two readings is longer than this test has patience.
    read_on_replica(&client, "SELECT n FROM made_elsewhere", "7").await;
}

#[tokio::test]
async fn a_list_of_the_configuration_wins_over_the_catalogue() {
    let front = Front::with(|config| {
        config.routing.primary_tables = vec!["kept_*".to_owned()];
        config.routing.read_only_functions = vec!["looks".to_owned()];
    })
    .await;
    let client = front.client().await;
    client
        .batch_execute(
            "CREATE VIEW kept_here AS SELECT 1 AS n; CREATE VIEW free AS SELECT 2 AS n;
             CREATE FUNCTION looks() RETURNS int SECURITY DEFINER LANGUAGE sql AS 'SELECT 3'",
        )
        .await
        .unwrap();
    read_on_replica(&client, "SELECT n FROM free", "2").await;
    read_on_replica(&client, "SELECT looks()", "3").await;
    assert_eq!(ask(&client, "SELECT n FROM kept_here").await, "1");
    assert!(route(&client).await.contains("role=primary"));
}

#[tokio::test]
async fn explain_judges_with_the_catalogue_of_a_database() {
    let lab = Lab::builder()
        .quick()
        .primary("us-east")
        .build()
        .await
        .unwrap();
    let node = lab.node("us-east");
    let client = node.connect(APP_USER, APP_DATABASE).await.unwrap();
    client
        .batch_execute("CREATE FUNCTION looks() RETURNS int STABLE LANGUAGE sql AS 'SELECT 1'")
        .await
        .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let settings = format!(
        "[[nodes]]\nhost = \"127.0.0.1\"\nport = {}\nsslmode = \"disable\"\n\
         [[users]]\nname = \"{APP_USER}\"\npassword = \"{PASSWORD}\"\n",
        node.port()
    );
    std::fs::write(path("proxy.toml"), settings).unwrap();
    std::fs::write(
        path("queries.sql"),
        "SELECT looks();\nSELECT looks_not();\n",
    )
    .unwrap();
    let explain = |more: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_causeway"))
            .args(["explain", "--config"])
            .arg(path("proxy.toml"))
            .arg("--file")
            .arg(path("queries.sql"))
            .args(more)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let printed = String::from_utf8(output.stdout).unwrap();
        let classes = printed
            .lines()
            .filter_map(|line| line.strip_prefix("class "));
        classes
            .map(|class| class.trim().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(explain(&[]), ["write", "write"]);
    assert_eq!(explain(&["--database", APP_DATABASE]), ["read", "write"]);
}

/// Each reading is a connection of its own, and the server counts them.
#[tokio::test]
async fn a_database_that_nobody_uses_is_left_alone_until_somebody_does() {
    const INTERVAL: Duration = Duration::from_millis(20);
    let front = Front::with(|config| config.monitor.catalogue_interval = INTERVAL).await;
    let admin = front
        .primary()
        .connect(SUPERUSER, "postgres")
        .await
        .unwrap();
    let sql = format!("CREATE DATABASE other OWNER {APP_USER}");
    admin.batch_execute(&sql).await.unwrap();
    let connect = async || {
        let other = |config: &mut tokio_postgres::Config| {
            config.dbname("other");
        };
        front.try_client(other).await.unwrap()
    };
    let client = connect().await;
    client
        .batch_execute("CREATE VIEW v AS SELECT 1 AS n")
        .await
        .unwrap();
    read_on_replica(&client, "SELECT n FROM v", "1").await;
    drop(client);

    let readings = "SELECT sessions::text FROM pg_stat_database WHERE datname = 'other'";
    let deadline = Instant::now() + 3 * PATIENCE;
    let mut seen = (ask(&admin, readings).await, Instant::now());
    // Read on, it would be read many times within that, on however slow a machine.
    while seen.1.elapsed() < 250 * INTERVAL {
        assert!(Instant::now() < deadline, "it is read on and on");
        sleep(INTERVAL).await;
        let now = ask(&admin, readings).await;
        if now != seen.0 {
            seen = (now, Instant::now());
        }
    }

    // What has changed meanwhile is known to whoever comes next, from the first statement on.
    let direct = front.primary().connect(APP_USER, "other").await.unwrap();
    let sql = "CREATE SEQUENCE s; CREATE OR REPLACE VIEW v AS SELECT nextval('s')::int AS n";
    direct.batch_execute(sql).await.unwrap();
    let client = connect().await;
    assert_eq!(ask(&client, "SELECT n FROM v").await, "1");
    assert!(route(&client).await.contains("reason=\"write\""));
}

/// Whatever its declaration says, the present body of a function tells what it does.
#[tokio::test]
async fn a_volatile_function_reads_near_for_as_long_as_its_body_only_reads() {
    let front = Front::small().await;
    let client = front.client().await;
    client
        .batch_execute(
            "CREATE TABLE t (n int); INSERT INTO t VALUES (5);
             CREATE FUNCTION in_sql() RETURNS int LANGUAGE sql AS 'SELECT sum(n)::int FROM t';
             CREATE FUNCTION parsed() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT sum(n)::int FROM t; END;
             CREATE FUNCTION in_plpgsql(factor int DEFAULT 1) RETURNS int LANGUAGE plpgsql AS $$
             DECLARE total int := 0; r t%ROWTYPE;
             BEGIN
                 FOR r IN SELECT * FROM t LOOP total := total + r.n; END LOOP;
                 SELECT total * factor INTO total;
                 RETURN total;
             EXCEPTION WHEN division_by_zero THEN RETURN in_sql();
             END $$;
             CREATE VIEW over_it AS SELECT in_plpgsql() AS n;
             CREATE FUNCTION with_rights() RETURNS int SECURITY DEFINER LANGUAGE sql AS 'SELECT 5';
             CREATE FUNCTION with_settings() RETURNS int SET work_mem = '1MB' LANGUAGE sql AS 'SELECT 5';",
        )
        .await
        .unwrap();
    for sql in [
        "SELECT in_sql()",
        "SELECT parsed()",
        "SELECT in_plpgsql()",
        "SELECT n FROM over_it",
        "SELECT in_plpgsql(1) FROM t",
    ] {
        read_on_replica(&client, sql, "5").await;
    }
    for sql in ["SELECT with_rights()", "SELECT with_settings()"] {
        assert_eq!(ask(&client, sql).await, "5");
        assert!(route(&client).await.contains("reason=\"write\""), "{sql}");
    }

    client
        .batch_execute(
            "CREATE OR REPLACE FUNCTION in_sql() RETURNS int LANGUAGE sql AS
                 'INSERT INTO t VALUES (1) RETURNING n'",
        )
        .await
        .unwrap();
    let mut rows = 1;
    // What rests on the changed body is known to as soon as that itself.
    for sql in ["SELECT in_sql()", "SELECT in_plpgsql()"] {
        loop {
            client.query_one(sql, &[]).await.unwrap();
            rows += i64::from(sql.contains("in_sql"));
            if route(&client).await.contains("reason=\"write\"") {
                break;
            }
        }
    }
    assert_eq!(
        ask(&client, "SELECT count(*) FROM t").await,
        rows.to_string()
    );
}

/// What a function runs of what it is given is judged in each call.
#[tokio::test]
async fn a_call_that_gives_sql_reads_near_if_what_it_gives_only_reads() {
    let front = Front::small().await;
    let client = front.client().await;
    client
        .batch_execute(
            "CREATE TABLE t (n int); INSERT INTO t VALUES (5);
             CREATE FUNCTION runs(q text) RETURNS int LANGUAGE plpgsql AS
                 'DECLARE n int; BEGIN EXECUTE q INTO n; RETURN n; END';
             CREATE FUNCTION explains(text) RETURNS SETOF text LANGUAGE plpgsql AS
                 $$ DECLARE line text; BEGIN
                     FOR line IN EXECUTE format('EXPLAIN (ANALYZE) %s', $1) LOOP RETURN NEXT line; END LOOP;
                 END $$;
             CREATE FUNCTION counts(app text, relation varchar) RETURNS int LANGUAGE plpgsql AS
                 $$ DECLARE n int; BEGIN
                     EXECUTE 'SELECT count(*) FROM ' || quote_ident(app) || '.' || quote_ident($2) INTO n; RETURN n;
                 END $$;
             CREATE FUNCTION cut(q name) RETURNS int LANGUAGE plpgsql AS
                 'DECLARE n int; BEGIN EXECUTE q INTO n; RETURN n; END';
             CREATE FUNCTION given_last(OUT n int, q text) LANGUAGE plpgsql AS
                 'BEGIN EXECUTE q INTO n; END';
             CREATE FUNCTION looks_up(wanted int) RETURNS int LANGUAGE plpgsql AS
                 $$ DECLARE n int; BEGIN EXECUTE 'SELECT max(n) FROM t WHERE n = $1' INTO n USING wanted; RETURN n; END $$;",
        )
        .await
        .unwrap();
    for (sql, answer) in [
        ("SELECT runs('SELECT n FROM t')", "5"),
        (
            "SELECT runs($$SELECT runs('SELECT n FROM t WHERE n > 1')$$)",
            "5",
        ),
        (
            "SELECT (count(*) > 1)::int FROM explains('SELECT * FROM t')",
            "1",
        ),
        ("SELECT counts('public', 't')", "1"),
        ("SELECT looks_up(5)", "5"),
    ] {
        read_on_replica(&client, sql, answer).await;
    }
    // Of the same shape, and in forms that are not taken apart.
    let writes = "INSERT INTO t VALUES (6) RETURNING n";
    for sql in [
        format!("SELECT runs('{writes}')"),
        format!("SELECT runs($${writes}$$)"),
        r"SELECT runs(E'INSERT\x20INTO t VALUES (6) RETURNING n')".to_owned(),
        format!("SELECT runs($a$SELECT runs('{writes}')$a$)"),
        format!("SELECT runs('{writes}') FROM explains('SELECT 1') LIMIT 1"),
    ] {
        assert_eq!(ask(&client, &sql).await, "6", "{sql}");
        assert!(route(&client).await.contains("reason=\"write\""), "{sql}");
    }
    let given = client.prepare("SELECT runs($1)").await.unwrap();
    for (sql, answer) in [("SELECT max(n) FROM t", 6), (writes, 6)] {
        let row = client.query_one(&given, &[&sql]).await.unwrap();
        assert_eq!(row.get::<_, i32>(0), answer);
        assert!(route(&client).await.contains("reason=\"write\""), "{sql}");
    }
    for sql in ["SELECT cut('SELECT 7')", "SELECT given_last('SELECT 7')"] {
        assert_eq!(ask(&client, sql).await, "7");
        assert!(route(&client).await.contains("reason=\"write\""), "{sql}");
    }

    // Replaced: what was decided of its calls is decided anew.
    client
        .batch_execute(
            "CREATE OR REPLACE FUNCTION runs(q text) RETURNS int LANGUAGE plpgsql AS
                 $$ DECLARE n int; BEGIN EXECUTE q INTO n; INSERT INTO t VALUES (8); RETURN n; END $$",
        )
        .await
        .unwrap();
    let prepared = client.prepare("SELECT runs('SELECT 3')").await.unwrap();
    let before: i64 = ask(&client, "SELECT count(*) FROM t")
        .await
        .parse()
        .unwrap();
    let mut rows = before;
    for _ in 0..2 {
        loop {
            client.query_one(&prepared, &[]).await.unwrap();
            rows += 1;
            // Before it is known, the replica refuses; either way it writes once.
            if route(&client).await.contains("reason=\"write\"") {
                break;
            }
        }
    }
    until(&client, "SELECT count(*) FROM t", &rows.to_string()).await;
}

/// The interval between two readings is longer than this test has patience, and no name is missed: only code
/// that has changed it lets the catalogue be read again.
#[tokio::test]
async fn what_procedures_functions_and_blocks_change_is_known_at_once() {
    let front = Front::small().await;
    let client = front.client().await;
    client
        .batch_execute(
            "CREATE TABLE t (n int);
             CREATE PROCEDURE becomes(name text, value int) LANGUAGE plpgsql AS $$ BEGIN
                 EXECUTE format('CREATE OR REPLACE FUNCTION %I() RETURNS int STABLE LANGUAGE sql AS %L',
                                name, 'SELECT ' || value);
             END $$;
             CREATE PROCEDURE becomes_and_commits(name text) LANGUAGE plpgsql AS $$ BEGIN
                 CALL becomes(name, 3); COMMIT; PERFORM 1;
             END $$;
             CREATE FUNCTION make_it(name text) RETURNS int LANGUAGE plpgsql AS $$ BEGIN
                 CALL becomes(name, 4); RETURN 1;
             END $$;",
        )
        .await
        .unwrap();
    for name in ["a", "b", "c", "d", "e"] {
        let sql = format!(
            "CREATE FUNCTION {name}() RETURNS int LANGUAGE plpgsql AS \
             'BEGIN INSERT INTO t VALUES (1); RETURN 0; END'"
        );
        client.batch_execute(&sql).await.unwrap();
    }
    for (run, sql, answer) in [
        (&["CALL becomes('a', 2)"][..], "SELECT a()", "2"),
        (&["CALL becomes_and_commits('b')"], "SELECT b()", "3"),
        (&["SELECT make_it('c')"], "SELECT c()", "4"),
        (
            &["DO $$ BEGIN PERFORM make_it('d'); END $$"],
            "SELECT d()",
            "4",
        ),
        (
            &["BEGIN", "CALL becomes('e', 5)", "SELECT 1", "COMMIT"],
            "SELECT e()",
            "5",
        ),
    ] {
        for sql in run {
            client.batch_execute(sql).await.unwrap();
        }
        read_on_replica(&client, sql, answer).await;
    }
}

/// Two catalogues that differ have different marks, and what is temporary makes none.
#[tokio::test]
async fn whatever_changes_a_catalogue_changes_its_mark() {
    let lab = Lab::builder()
        .quick()
        .primary("us-east")
        .build()
        .await
        .unwrap();
    let node = lab.node("us-east");
    let client = node.connect(SUPERUSER, APP_DATABASE).await.unwrap();
    let config = NodeConfig {
        tls: ServerTls {
            mode: TlsMode::Disable,
            root_cert: None,
        },
        ..NodeConfig::new("127.0.0.1", node.port())
    };
    let settings = MonitorConfig {
        user: MONITOR_USER.to_owned(),
        password: Some(PASSWORD.to_owned().into()),
        database: APP_DATABASE.to_owned(),
        ..MonitorConfig::default()
    };
    let pool = control_pool(&config, &settings).unwrap();
    let read = async || {
        let Loaded { mut rows, mark, .. } = load(&pool, PATIENCE).await.unwrap();
        // In no order, and with edges of what is left out.
        let known: HashSet<_> = rows.objects.iter().map(|object| object.id).collect();
        rows.edges.retain(|edge| known.contains(&edge.user));
        rows.objects.sort_by_key(|object| object.id);
        rows.edges.sort_by_key(|edge| (edge.user, edge.used));
        (format!("{rows:?}"), mark)
    };
    let mut known = read().await;
    for sql in [
        "CREATE SCHEMA app",
        "CREATE TABLE t (a int)",
        "CREATE VIEW v AS SELECT a FROM t",
        "CREATE OR REPLACE VIEW v AS SELECT a FROM t WHERE a > 1",
        "CREATE FUNCTION f(int) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE OR REPLACE FUNCTION f(int) RETURNS int LANGUAGE sql AS 'SELECT 2'",
        "ALTER FUNCTION f STABLE",
        "ALTER FUNCTION f SET work_mem = '1MB'",
        "ALTER FUNCTION f SET SCHEMA app",
        "ALTER FUNCTION app.f RENAME TO g",
        "CREATE SEQUENCE s",
        "CREATE UNLOGGED TABLE u (a int)",
        "ALTER TABLE u SET LOGGED",
        "CREATE TABLE p (a int) PARTITION BY LIST (a)",
        "CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1)",
        "ALTER TABLE p DETACH PARTITION p1",
        "CREATE DOMAIN d AS int",
        "ALTER DOMAIN d ADD CONSTRAINT c CHECK (VALUE > 0)",
        "ALTER DOMAIN d DROP CONSTRAINT c",
        "ALTER TABLE t ADD COLUMN b d",
        "ALTER TABLE t ALTER COLUMN b TYPE int",
        "ALTER TABLE t ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY x ON t USING (a > 1)",
        "ALTER POLICY x ON t USING (a > 2)",
        "DROP POLICY x ON t",
        "CREATE OPERATOR <+> (FUNCTION = int4pl, LEFTARG = int, RIGHTARG = int)",
        "DROP OPERATOR <+> (int, int)",
        "CREATE AGGREGATE total(int) (SFUNC = int4pl, STYPE = int)",
        "CREATE TYPE pair AS (a int, b int)",
        "ALTER TYPE pair ADD ATTRIBUTE c t",
        "CREATE TYPE bounds AS RANGE (SUBTYPE = date)",
        "CREATE FUNCTION to_pair(int) RETURNS pair IMMUTABLE LANGUAGE sql AS 'SELECT NULL::pair'",
        "CREATE CAST (int AS pair) WITH FUNCTION to_pair(int) AS IMPLICIT",
        "DROP CAST (int AS pair)",
        "DROP VIEW v",
        "DROP TABLE t CASCADE",
        "ALTER SCHEMA app RENAME TO other",
        "BEGIN; DROP SEQUENCE s; CREATE SEQUENCE s; COMMIT",
    ] {
        client.batch_execute(sql).await.unwrap();
        let now = read().await;
        let (differs, is_told) = (now.0 != known.0, now.1 != known.1);
        assert!(is_told || !differs, "{sql}");
        assert!(is_told, "{sql} is not told, and makes no difference");
        known = now;
    }
    for sql in [
        "CREATE TEMP TABLE mine (a int PRIMARY KEY, b pair[])",
        "CREATE TEMP VIEW of_mine AS SELECT * FROM mine",
        "CREATE TYPE pg_temp.my_pair AS (a int)",
        "INSERT INTO u VALUES (1); ANALYZE u",
        "DROP TABLE mine CASCADE",
    ] {
        client.batch_execute(sql).await.unwrap();
        let now = read().await;
        assert!(now.0 == known.0, "{sql} makes a difference");
        assert!(now.1 == known.1, "{sql} is told");
    }
}
