//! What the proxy knows of the functions and relations of a database, and when.

use crate::front::{Front, ask, read_on_replica, until};

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
