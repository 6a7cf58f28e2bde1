//! Reads of a session that has temporary relations: near if they can mean none of them, and with its own
//! server otherwise, as soon as there is one.

use tokio_postgres::Client;

use crate::front::{Front, ask, read_on_replica, until_known};

const NOTE: &str = "SELECT id FROM note";

/// Tables of one row each, and code that looks one of them up when it runs.
async fn front() -> Front {
    let front = Front::small().await;
    let admin = front.admin().await;
    let tables = "CREATE TABLE note (id int); INSERT INTO note VALUES (1); \
        CREATE TABLE other (id int); INSERT INTO other VALUES (2); \
        CREATE FUNCTION looks() RETURNS int STABLE LANGUAGE plpgsql AS \
            $$ BEGIN RETURN (SELECT max(id) FROM note); END $$; \
        CREATE VIEW looking AS SELECT looks() AS id; \
        GRANT ALL ON note, other, looking TO app";
    admin.batch_execute(tables).await.unwrap();
    front.lab.wait_caught_up("eu-west").await.unwrap();
    until_known(&front.client().await, "note").await;
    front
}

/// Every time, whatever was asked before.
async fn stays(client: &Client, sql: &str, expected: &str) {
    for _ in 0..4 {
        assert_eq!(ask(client, sql).await, expected, "{sql}");
        let route = ask(client, "SHOW causeway.last_route").await;
        assert!(route.contains("role=primary"), "{sql}: {route}");
    }
}

async fn run(client: &Client, sql: &str) {
    client
        .batch_execute(sql)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
}

#[tokio::test]
async fn only_what_may_mean_a_temporary_table_stays_with_it() {
    let front = front().await;
    let client = front.client().await;
    run(&client, "CREATE TEMP TABLE mine (id int)").await;
    read_on_replica(&client, NOTE, "1").await;
    assert_eq!(ask(&client, "SHOW causeway.pin").await, "temporary table");
    stays(&client, "SELECT count(*) FROM mine", "0").await;
    run(&client, "INSERT INTO mine VALUES (7)").await;
    stays(&client, "SELECT id FROM mine", "7").await;
    read_on_replica(&client, NOTE, "1").await;
    // A namesake, from its first moment to its last.
    run(&client, "CREATE TEMP TABLE note AS SELECT 8 AS id").await;
    stays(&client, NOTE, "8").await;
    stays(&client, "SELECT id FROM public.note", "1").await;
    read_on_replica(&client, "SELECT id FROM other", "2").await;
    run(&client, "DROP TABLE pg_temp.note").await;
    read_on_replica(&client, NOTE, "1").await;
    for (made, undone) in [
        (
            "ALTER TABLE mine RENAME TO note",
            "ALTER TABLE note RENAME TO mine",
        ),
        (
            "CREATE VIEW pg_temp.note AS SELECT 7 AS id",
            "DROP VIEW note",
        ),
        (
            "CREATE TEMP VIEW note AS SELECT * FROM mine",
            "DROP VIEW note",
        ),
        (
            "BEGIN; CREATE TEMP TABLE note AS SELECT 7 AS id; COMMIT",
            "DROP TABLE note",
        ),
        (
            "SELECT 7 AS id INTO TEMP note",
            "DISCARD TEMP; CREATE TEMP TABLE mine AS SELECT 7 AS id",
        ),
        (
            "DO $$ BEGIN CREATE TEMP TABLE note AS SELECT 7 AS id; END $$",
            "",
        ),
    ] {
        run(&client, made).await;
        stays(&client, NOTE, "7").await;
        if !undone.is_empty() {
            run(&client, undone).await;
            read_on_replica(&client, NOTE, "1").await;
        }
    }
}

#[tokio::test]
async fn code_that_looks_names_up_stays_too() {
    let front = front().await;
    let client = front.client().await;
    read_on_replica(&client, "SELECT looks()", "1").await;
    run(&client, "CREATE TEMP TABLE note AS SELECT 8 AS id").await;
    read_on_replica(&client, "SELECT id FROM other", "2").await;
    stays(&client, "SELECT looks()", "8").await;
    stays(&client, "SELECT id FROM looking", "8").await;
    stays(
        &client,
        "SELECT 'note'::regclass = to_regclass('pg_temp.note')",
        "t",
    )
    .await;
    let asked = "SELECT $1::text::regclass = to_regclass('pg_temp.note')";
    for _ in 0..4 {
        let row = client.query_one(asked, &[&"note"]).await.unwrap();
        assert!(row.get::<_, bool>(0));
    }
}

/// Reading the parent gives the rows of the session's own children.
#[tokio::test]
async fn a_temporary_child_keeps_the_reads_of_its_parent() {
    let front = front().await;
    let client = front.client().await;
    let admin = front.admin().await;
    admin
        .batch_execute("ALTER TABLE note OWNER TO app")
        .await
        .unwrap();
    run(&client, "CREATE TEMP TABLE child () INHERITS (note)").await;
    run(&client, "INSERT INTO child VALUES (9)").await;
    stays(&client, "SELECT max(id) FROM note", "9").await;
    run(&client, "DROP TABLE child").await;
    read_on_replica(&client, "SELECT max(id) FROM note", "1").await;
}

#[tokio::test]
async fn a_session_with_temporary_tables_reads_its_own_writes() {
    let front = front().await;
    let client = front.client().await;
    run(&client, "CREATE TEMP TABLE mine (id int)").await;
    let prepared = client.prepare(NOTE).await.unwrap();
    for round in 2..12 {
        run(&client, &format!("UPDATE note SET id = {round}")).await;
        let row = client.query_one(&prepared, &[]).await.unwrap();
        assert_eq!(row.get::<_, i32>(0), round);
        assert_eq!(ask(&client, NOTE).await, round.to_string());
        read_on_replica(&client, NOTE, &round.to_string()).await;
        let row = client.query_one(&prepared, &[]).await.unwrap();
        assert_eq!(row.get::<_, i32>(0), round);
        run(&client, "INSERT INTO mine SELECT id FROM note").await;
    }
    stays(&client, "SELECT count(*) FROM mine", "10").await;
    // In a transaction everything stays together.
    run(&client, "BEGIN").await;
    stays(&client, NOTE, "11").await;
    run(&client, "COMMIT").await;
}
