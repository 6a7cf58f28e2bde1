//! `causeway.explain_routing`: the plan that EXPLAIN shows ends with a line about its route.

use tokio_postgres::{Client, SimpleQueryMessage};

use crate::front::{Front, ask, until_known};

/// All rows of a plan, by the simple protocol.
async fn plan(client: &Client, sql: &str) -> Vec<String> {
    let messages = client.simple_query(sql).await.unwrap();
    let rows = messages.into_iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap().to_owned()),
        _ => None,
    });
    rows.collect()
}

fn ours(plan: &[String]) -> Vec<&str> {
    let lines = plan.iter().map(String::as_str);
    lines.filter(|line| line.contains("Causeway:")).collect()
}

#[tokio::test]
async fn explain_tells_the_route() {
    let front = Front::small().await;
    let client = front.client().await;
    let sql = "CREATE TABLE t (n int); CREATE SEQUENCE s";
    client.batch_execute(sql).await.unwrap();
    until_known(&client, "t").await;
    let read = "EXPLAIN SELECT n FROM t";
    assert_eq!(ours(&plan(&client, read).await), [""; 0]);
    let on = "SET causeway.explain_routing = on";
    client.batch_execute(on).await.unwrap();
    assert_eq!(ask(&client, "SHOW causeway.explain_routing").await, "on");

    // As the last line, and what it says is what is said elsewhere.
    let routes = [
        (
            "EXPLAIN INSERT INTO t VALUES (1)",
            "role=primary",
            "EXPLAIN of what may write",
        ),
        (
            "EXPLAIN ANALYZE SELECT nextval('s')",
            "role=primary",
            "function nextval() writes",
        ),
        (
            "EXPLAIN (COSTS off) SELECT pg_is_in_recovery()",
            "role=primary",
            "about one node",
        ),
        (
            "EXPLAIN (FORMAT 'text') SELECT n FROM t",
            "role=",
            "EXPLAIN without ANALYZE only plans",
        ),
    ];
    for (sql, role, because) in routes {
        let told = plan(&client, sql).await;
        let route = ask(&client, "SHOW causeway.last_route").await;
        let last = told.last().unwrap();
        // The staleness is reckoned anew each time it is shown.
        let (route, _) = route.split_once(" staleness_ms=").unwrap();
        assert_eq!(ours(&told), [last], "{sql}");
        let found = last.contains(role) && last.contains(because);
        assert!(found && last.contains(route), "{sql}: {last}, but {route}");
    }

    // By the extended protocol, pipelined, with rows that are taken for text in the binary format.
    let statement = client.prepare(read).await.unwrap();
    let both = tokio::join!(client.query(&statement, &[]), client.query(&statement, &[]));
    for rows in [both.0.unwrap(), both.1.unwrap()] {
        let told: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        assert_eq!(ours(&told), [told.last().unwrap()]);
    }

    // Several in one text; and what is no plan.
    let told = plan(
        &client,
        "EXPLAIN SELECT 1; SELECT n FROM t; EXPLAIN SELECT 2",
    )
    .await;
    assert_eq!(ours(&told).len(), 2, "{told:?}");
    assert_eq!(plan(&client, "SELECT 'EXPLAIN'").await, ["EXPLAIN"]);
    // In a transaction, and behind an error.
    client.batch_execute("BEGIN").await.unwrap();
    assert_eq!(ours(&plan(&client, read).await).len(), 1);
    client
        .simple_query("EXPLAIN SELECT 1/0 FROM nowhere")
        .await
        .unwrap_err();
    client.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(ours(&plan(&client, read).await).len(), 1);

    // Documents stay whole, and so do texts beside them.
    for format in ["JSON", "XML", "yaml", "'json'"] {
        let sql = format!("EXPLAIN (FORMAT {format}) SELECT n FROM t");
        assert_eq!(ours(&plan(&client, &sql).await), [""; 0], "{sql}");
        let beside = format!("{sql}; {read}");
        assert_eq!(ours(&plan(&client, &beside).await), [""; 0], "{beside}");
    }
    client
        .batch_execute("RESET causeway.explain_routing")
        .await
        .unwrap();
    assert_eq!(ours(&plan(&client, read).await), [""; 0]);
}
