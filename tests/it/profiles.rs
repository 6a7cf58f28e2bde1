//! Profiles decide where a statement runs, unless the client decides otherwise and may.

use std::time::Duration;

use causeway::config::{Consistency, OnLag, ProfileConfig};
use causeway::lab::Lab;
use tokio_postgres::Client;

use crate::front::{Front, PATIENCE, ask, try_ask, until_known};

fn profile(name: &str, tables: &[&str], consistency: Consistency) -> ProfileConfig {
    ProfileConfig {
        name: name.to_owned(),
        databases: Vec::new(),
        users: Vec::new(),
        applications: Vec::new(),
        tables: tables.iter().map(|table| (*table).to_owned()).collect(),
        consistency,
        max_staleness: None,
        max_wait: None,
        on_lag: None,
        enforced: false,
    }
}

/// A replica that is nearer than the primary and stands still, one row behind in every table.
async fn front() -> Front {
    let lab = Lab::builder()
        .quick()
        .primary("us-east")
        .replica("eu-west")
        .round_trip("us-east", "eu-west", Duration::from_millis(20))
        .build();
    let front = Front::before(lab.await.unwrap(), |config| {
        let reports = ProfileConfig {
            applications: vec!["report*".to_owned()],
            ..profile("reports", &[], Consistency::Eventual)
        };
        config.profiles = vec![
            ProfileConfig {
                enforced: true,
                ..profile("payments", &["payment*"], Consistency::Strong)
            },
            profile("products", &["product*"], Consistency::Eventual),
            ProfileConfig {
                enforced: true,
                ..profile("accented", &["caf\u{e9}s"], Consistency::Strong)
            },
            profile("audit", &["audit.*"], Consistency::Strong),
            reports,
        ];
    });
    let front = front.await;
    let client = front.client().await;
    let make = "CREATE SCHEMA audit; CREATE TABLE payments (a int); CREATE TABLE products (a int);
        CREATE TABLE product_names (a int); CREATE TABLE audit.entries (a int); CREATE TABLE other (a int);
        CREATE TABLE caf\u{e9}s (a int); CREATE VIEW ways AS SELECT * FROM payments;
        CREATE VIEW ways_of_ways AS SELECT * FROM ways WHERE a > 0;
        CREATE FUNCTION total() RETURNS bigint STABLE LANGUAGE sql AS 'SELECT count(*) FROM ways_of_ways';
        CREATE VIEW of_function AS SELECT total() AS total; CREATE VIEW mutable AS SELECT * FROM product_names;
        CREATE FUNCTION harmless() RETURNS bigint STABLE LANGUAGE sql AS 'SELECT count(*) FROM product_names';
        CREATE SCHEMA hidden; CREATE VIEW hidden.elsewhere AS SELECT * FROM payments";
    client.batch_execute(make).await.unwrap();
    until_known(&client, "other").await;
    front.lab.wait_caught_up("eu-west").await.unwrap();
    front.lab.node("eu-west").pause_replay().await.unwrap();
    front
}

/// Whether the read ran on the primary.
async fn is_strict(client: &Client, sql: &str) -> bool {
    ask(client, sql).await;
    let route = ask(client, "SHOW causeway.last_route").await;
    route.contains("role=primary")
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_decide_and_the_strictest_wins() {
    let front = front().await;
    let client = front.client().await;
    let table = [
        ("SELECT count(*) FROM other", false),
        ("SELECT count(*) FROM payments", true),
        ("SELECT count(*) FROM public.payments", true),
        ("SELECT count(*) FROM products", false),
        ("SELECT count(*) FROM products, payments", true),
        (
            "SELECT (SELECT count(*) FROM payments) FROM (SELECT 1) AS x",
            true,
        ),
        (
            "WITH p AS (SELECT * FROM payments) SELECT count(*) FROM p",
            true,
        ),
        ("SELECT count(*) FROM audit.entries", true),
        (
            "SELECT count(*) FROM products WHERE EXISTS (TABLE audit.entries)",
            true,
        ),
        ("TABLE payments; SELECT 1", true),
        // By whatever name, and below whatever.
        ("SELECT count(*) FROM PAYMENTS", true),
        ("SELECT count(*) FROM \"payments\"", true),
        ("SELECT count(*) FROM U&\"p\\0061yments\"", true),
        ("SELECT count(*) FROM app.public.payments", true),
        ("SELECT count(*) FROM ONLY payments AS products", true),
        (
            "SELECT count(*) FROM (SELECT * FROM payments) AS products",
            true,
        ),
        (
            "WITH products AS (SELECT * FROM payments) SELECT count(*) FROM products",
            true,
        ),
        ("SELECT count(*) FROM caf\u{e9}s", true),
        ("SELECT count(*) FROM ways", true),
        ("SELECT count(*) FROM ways_of_ways", true),
        ("SELECT count(*) FROM hidden.elsewhere", true),
        ("SELECT total()", true),
        ("SELECT count(*) FROM products WHERE total() > 0", true),
        ("SELECT * FROM of_function", true),
        ("SELECT harmless()", false),
        ("SELECT count(*) FROM mutable", false),
    ];
    for (sql, strict) in table {
        if sql.contains("TABLE payments;") {
            client.batch_execute(sql).await.unwrap();
            let route = ask(&client, "SHOW causeway.last_route").await;
            assert_eq!(route.contains("role=primary"), strict, "{sql}");
            continue;
        }
        let other = front.client().await;
        assert_eq!(is_strict(&other, sql).await, strict, "{sql}");
        let row = other.query_one(sql, &[]).await.unwrap();
        drop(row);
        let route = ask(&other, "SHOW causeway.last_route").await;
        assert_eq!(route.contains("role=primary"), strict, "{sql}, prepared");
    }
    // At session a session's own write is read from the primary, at eventual the replica's state.
    let insert = "INSERT INTO products VALUES (1); INSERT INTO other VALUES (1)";
    client.batch_execute(insert).await.unwrap();
    assert_eq!(ask(&client, "SELECT count(*) FROM products").await, "0");
    assert_eq!(ask(&client, "SELECT count(*) FROM other").await, "1");
    assert_eq!(
        ask(&client, "SELECT count(*) FROM products, other").await,
        "1"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comment_comes_before_set_before_a_startup_option_before_profiles() {
    let front = front().await;
    let level = |level: &str| format!("-c causeway.consistency={level}");
    let (products, payments) = (
        "SELECT count(*) FROM products",
        "SELECT count(*) FROM payments",
    );
    let client = front.client().await;
    assert!(!is_strict(&client, products).await);
    let options = level("strong");
    let started = front.try_client(|config| {
        config.options(&options);
    });
    let started = started.await.unwrap();
    assert!(is_strict(&started, products).await, "the startup option");
    started
        .batch_execute("SET causeway.consistency = 'eventual'")
        .await
        .unwrap();
    assert!(!is_strict(&started, products).await, "SET");
    let commented = format!("{products} /* causeway.consistency='strong' */");
    assert!(is_strict(&started, &commented).await, "a comment");
    started
        .batch_execute("RESET causeway.consistency")
        .await
        .unwrap();
    assert!(
        is_strict(&started, products).await,
        "the startup option again"
    );

    // What is enforced none of them weakens.
    for client in [&client, &started] {
        client
            .batch_execute("SET causeway.consistency = 'eventual'")
            .await
            .unwrap();
        let commented = format!("{payments} /* causeway.consistency='eventual' */");
        let below = "SELECT count(*) FROM ways_of_ways /* causeway.consistency='eventual' */";
        let called = "SELECT total() /* causeway.consistency='eventual' */";
        for sql in [payments, &commented, below, called] {
            assert!(is_strict(client, sql).await, "{sql}");
        }
        // The search path is the server's: a name that may be it counts as it.
        client
            .batch_execute("SET search_path = hidden, public")
            .await
            .unwrap();
        assert!(is_strict(client, "SELECT count(*) FROM elsewhere").await);
        let bound = "SELECT set_config('causeway.consistency', $1, false)";
        client.query_one(bound, &[&"eventual"]).await.unwrap();
        assert!(is_strict(client, payments).await, "a bound value");
        client
            .batch_execute("PREPARE p AS SELECT count(*) FROM ways")
            .await
            .unwrap();
        assert!(is_strict(client, "EXECUTE p").await, "PREPARE");
    }
}

/// What a view reads may change under a statement that was prepared before.
#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_statement_follows_its_view() {
    let front = front().await;
    front.lab.node("eu-west").resume_replay().await.unwrap();
    let client = front.client().await;
    let read = client
        .prepare("SELECT count(*) FROM mutable")
        .await
        .unwrap();
    client.query_one(&read, &[]).await.unwrap();
    let route = ask(&client, "SHOW causeway.last_route").await;
    assert!(!route.contains("strong consistency"), "{route}");
    let past = front.admin().await;
    let replace = "CREATE OR REPLACE VIEW mutable AS SELECT * FROM payments";
    past.batch_execute(replace).await.unwrap();
    // It was changed past the proxy; DDL through it has the catalogue read at once.
    client.batch_execute("CREATE TABLE nudge ()").await.unwrap();
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        client.query_one(&read, &[]).await.unwrap();
        let route = ask(&client, "SHOW causeway.last_route").await;
        if route.contains("strong consistency") {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "never: {route}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_known_by_what_it_calls_itself() {
    let front = front().await;
    let client = front
        .try_client(|config| {
            config.application_name("report-7");
        })
        .await
        .unwrap();
    let other = "SELECT count(*) FROM other";
    client
        .batch_execute("INSERT INTO other VALUES (1)")
        .await
        .unwrap();
    assert_eq!(ask(&client, other).await, "0", "at eventual");
    assert_eq!(ask(&client, "SHOW causeway.consistency").await, "eventual");
    client
        .batch_execute("SET application_name = 'web'")
        .await
        .unwrap();
    assert_eq!(ask(&client, other).await, "1", "at session");
    client
        .batch_execute("BEGIN; SET application_name = 'reports'; ROLLBACK")
        .await
        .unwrap();
    assert_eq!(ask(&client, other).await, "1", "still");
    assert!(is_strict(&client, "SELECT count(*) FROM payments").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_is_waited_for_or_an_error_where_that_is_wanted() {
    let lab = Lab::builder()
        .quick()
        .primary("us-east")
        .replica("eu-west")
        .round_trip("us-east", "eu-west", Duration::from_millis(20))
        .build();
    let front = Front::before(lab.await.unwrap(), |config| {
        config.routing.max_wait = Duration::from_secs(30);
        let with = |name: &str, on_lag, max_wait| ProfileConfig {
            on_lag: Some(on_lag),
            max_wait: Some(Duration::from_millis(max_wait)),
            ..profile(name, &[name], Consistency::Session)
        };
        config.profiles = vec![
            with("errs", OnLag::Error, 100),
            with("waits", OnLag::Wait, 20_000),
            with("gives_up", OnLag::Wait, 100),
        ];
    });
    let front = front.await;
    let client = front.client().await;
    client
        .batch_execute("CREATE TABLE errs (); CREATE TABLE waits (); CREATE TABLE gives_up ()")
        .await
        .unwrap();
    until_known(&client, "gives_up").await;
    front.lab.wait_caught_up("eu-west").await.unwrap();
    let replica = front.lab.node("eu-west");
    replica.pause_replay().await.unwrap();
    client.batch_execute("CREATE TABLE new ()").await.unwrap();

    let refused = try_ask(&client, "SELECT count(*) FROM errs").await;
    assert_eq!(refused, Err("55000".to_owned()));
    assert_eq!(ask(&client, "SELECT count(*) FROM gives_up").await, "0");
    let route = ask(&client, "SHOW causeway.last_route").await;
    assert!(route.contains("reason=\"replicas lag\""), "{route}");

    client.batch_execute("CREATE TABLE newer ()").await.unwrap();
    let waiting = ask(&client, "SELECT count(*) FROM waits");
    let (answer, resumed) = tokio::join!(waiting, replica.resume_replay());
    resumed.unwrap();
    assert_eq!(answer, "0");
    let route = ask(&client, "SHOW causeway.last_route").await;
    assert!(route.contains("role=replica"), "{route}");
}
