//! Every kind of write is read back, and whatever was seen on the primary is not unseen.
//!
//! Replay stands still, so a read that runs near shows nothing of what was just done; and each
//! case has a connection of its own, so no earlier write keeps its reads away from the replica,
//! which the first read of each case proves. Then the same with replay at work: a position that
//! is captured too early shows there.

use std::io::Write as _;
use std::process::{Command, Stdio};

use causeway::app::Running;
use causeway::lab::{APP_DATABASE, APP_USER, PASSWORD};
use futures_util::SinkExt;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::stage::{self, PRIMARY};
use crate::support::connect;

/// What a client does, a text per message.
#[derive(Clone, Copy, Debug)]
enum Step {
    Simple(&'static str),
    Extended(&'static str),
    /// As `Simple`; it ends in an error.
    Fails(&'static str),
    /// COPY ... FROM STDIN in the extended protocol, and its data.
    CopyIn(&'static str, &'static [u8]),
    /// Simple queries that are sent together.
    Pipelined([&'static str; 3]),
    /// In the extended protocol, sent together.
    PipelinedExtended([&'static str; 3]),
    /// Somebody else does it, on the primary itself.
    Elsewhere(&'static str),
}

use Step::{CopyIn, Elsewhere, Extended, Fails, Pipelined, PipelinedExtended, Simple};

const INSERT: &str = "INSERT INTO entry (value) VALUES (1)";

const SET_UP: &str = "
    DROP TABLE IF EXISTS entry;
    CREATE TABLE entry (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, value bigint NOT NULL);
    INSERT INTO entry (value) SELECT 1 FROM generate_series(1, 200);
    CREATE OR REPLACE FUNCTION put(amount bigint) RETURNS bigint VOLATILE LANGUAGE sql
        AS 'INSERT INTO entry (value) VALUES (amount) RETURNING value';
    CREATE OR REPLACE PROCEDURE put_and_commit(amount bigint) LANGUAGE plpgsql
        AS 'BEGIN INSERT INTO entry (value) VALUES (amount); COMMIT; END';";

const WRITES: &[(&str, &[Step])] = &[
    ("insert", &[Simple(INSERT)]),
    ("insert, extended", &[Extended(INSERT)]),
    (
        "update",
        &[Simple("UPDATE entry SET value = value + 1 WHERE id = 1")],
    ),
    (
        "delete",
        &[Extended(
            "DELETE FROM entry WHERE id = (SELECT max(id) FROM entry)",
        )],
    ),
    (
        "data-modifying CTE",
        &[Extended(
            "WITH new AS (INSERT INTO entry (value) VALUES (2) RETURNING value) \
             SELECT value FROM new",
        )],
    ),
    ("function that writes", &[Simple("SELECT put(3)")]),
    (
        "function that writes, extended",
        &[Extended("SELECT * FROM put(3)")],
    ),
    (
        "procedure that commits",
        &[Simple("CALL put_and_commit(4)")],
    ),
    ("DO block", &[Simple("DO 'BEGIN PERFORM put(5); END'")]),
    (
        "EXPLAIN ANALYZE",
        &[Simple(
            "EXPLAIN ANALYZE INSERT INTO entry (value) VALUES (1)",
        )],
    ),
    (
        "COPY FROM STDIN",
        &[CopyIn("COPY entry (value) FROM STDIN", b"6\n7\n")],
    ),
    (
        "COPY FROM STDIN in a transaction",
        &[
            Simple("BEGIN"),
            CopyIn("COPY entry (value) FROM STDIN", b"6\n7\n"),
            Simple("COMMIT"),
        ],
    ),
    (
        "SQL PREPARE",
        &[
            Simple("PREPARE put AS INSERT INTO entry (value) VALUES ($1)"),
            Simple("EXECUTE put(8)"),
        ],
    ),
    (
        "string that begins with a read",
        &[Simple("SELECT 1; INSERT INTO entry (value) VALUES (1)")],
    ),
    (
        "string that ends with a read",
        &[Simple("INSERT INTO entry (value) VALUES (1); SELECT 1")],
    ),
    (
        "string with a transaction",
        &[Simple(
            "BEGIN; INSERT INTO entry (value) VALUES (1); COMMIT",
        )],
    ),
    (
        "string that opens a transaction behind a write",
        &[
            Simple("INSERT INTO entry (value) VALUES (1); BEGIN; SELECT 1"),
            Simple("ROLLBACK"),
        ],
    ),
    (
        "string that commits and then fails",
        &[Fails(
            "INSERT INTO entry (value) VALUES (1); COMMIT; SELECT 1 / 0",
        )],
    ),
    (
        "transaction",
        &[Simple("BEGIN"), Simple(INSERT), Simple("COMMIT")],
    ),
    (
        "transaction, extended",
        &[Extended("BEGIN"), Extended(INSERT), Extended("COMMIT")],
    ),
    (
        "transaction that reads last",
        &[
            Simple("BEGIN"),
            Extended(INSERT),
            Extended("SELECT 1"),
            Simple("END"),
        ],
    ),
    (
        "transaction that reads first",
        &[
            Simple("START TRANSACTION ISOLATION LEVEL REPEATABLE READ"),
            Extended("SELECT 1"),
            Extended(INSERT),
            Simple("COMMIT WORK"),
        ],
    ),
    (
        "transaction behind a savepoint",
        &[
            Simple("BEGIN"),
            Simple(INSERT),
            Simple("SAVEPOINT s"),
            Fails("SELECT 1 / 0"),
            Simple("ROLLBACK TO s"),
            Simple("COMMIT"),
        ],
    ),
    (
        "chained transactions",
        &[
            Simple("BEGIN"),
            Simple(INSERT),
            Simple("COMMIT AND CHAIN"),
            Simple("SELECT 1"),
            Simple("ROLLBACK"),
        ],
    ),
    (
        "two-phase commit",
        &[
            Simple("BEGIN"),
            Simple(INSERT),
            Simple("PREPARE TRANSACTION 'kinds'"),
            Simple("COMMIT PREPARED 'kinds'"),
        ],
    ),
    (
        "synchronous_commit = off",
        &[Simple("SET synchronous_commit = off"), Simple(INSERT)],
    ),
    (
        "SET LOCAL synchronous_commit = off",
        &[
            Simple("BEGIN"),
            Simple("SET LOCAL synchronous_commit = off"),
            Extended(INSERT),
            Simple("COMMIT"),
        ],
    ),
    ("pipelined", &[Pipelined(["SELECT 1", INSERT, "SELECT 1"])]),
    (
        "pipelined, extended",
        &[PipelinedExtended(["SELECT 1", INSERT, "SELECT 1"])],
    ),
    (
        "pipelined, the write last",
        &[PipelinedExtended(["SELECT 1", "SELECT 2", INSERT])],
    ),
    (
        "pipelined transaction",
        &[Pipelined(["BEGIN", INSERT, "COMMIT"])],
    ),
    (
        "pipelined transaction, extended",
        &[PipelinedExtended(["BEGIN", INSERT, "COMMIT"])],
    ),
    (
        "pinned by a temporary table",
        &[
            Simple("CREATE TEMPORARY TABLE mine (id int)"),
            Simple(INSERT),
        ],
    ),
    (
        "pinned by LISTEN, until it is not",
        &[Simple("LISTEN news"), Simple(INSERT), Simple("UNLISTEN *")],
    ),
    ("DISCARD ALL", &[Simple(INSERT), Simple("DISCARD ALL")]),
    (
        "a write at eventual",
        &[
            Simple("SET causeway.consistency = 'eventual'"),
            Simple(INSERT),
            Simple("SET causeway.consistency = 'session'"),
        ],
    ),
    (
        "a hint on the write",
        &[Simple(
            "/* causeway.consistency='eventual' */ INSERT INTO entry (value) VALUES (1)",
        )],
    ),
];

/// Reads that run on the primary, after somebody else has written.
const SIGHTS: &[(&str, &[Step])] = &[
    (
        "read at strong",
        &[
            Elsewhere(INSERT),
            Simple("SET causeway.consistency = 'strong'"),
            Simple("SELECT sum(value) FROM entry"),
            Simple("SET causeway.consistency = 'session'"),
        ],
    ),
    (
        "read with a hint",
        &[
            Elsewhere(INSERT),
            Extended("/* causeway.consistency='strong' */ SELECT sum(value) FROM entry"),
        ],
    ),
    (
        "read in a transaction",
        &[
            Elsewhere(INSERT),
            Simple("BEGIN"),
            Simple("SELECT sum(value) FROM entry"),
            Simple("COMMIT"),
        ],
    ),
    (
        "read in a transaction that is rolled back",
        &[
            Elsewhere(INSERT),
            Simple("BEGIN"),
            Extended("SELECT sum(value) FROM entry"),
            Simple("ROLLBACK"),
        ],
    ),
    (
        "read with row locks",
        &[
            Elsewhere(INSERT),
            Simple("SELECT value FROM entry ORDER BY id DESC LIMIT 1 FOR UPDATE"),
        ],
    ),
    (
        "read next to the primary's own state",
        &[
            Elsewhere(INSERT),
            Extended("SELECT pg_is_in_recovery(), sum(value) FROM entry"),
        ],
    ),
    (
        "read in a serializable READ ONLY transaction",
        &[
            Elsewhere(INSERT),
            Simple("BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY"),
            Simple("SELECT sum(value) FROM entry"),
            Simple("COMMIT"),
        ],
    ),
    (
        "write that changes nothing",
        &[
            Elsewhere(INSERT),
            Simple("UPDATE entry SET value = 0 WHERE id = -1"),
        ],
    ),
    (
        "write that fails behind a look",
        &[
            Elsewhere(INSERT),
            Fails("INSERT INTO entry (value) SELECT 1 / (sum(value) - sum(value)) FROM entry"),
        ],
    ),
];

const ROUNDS_AT_WORK: u32 = 3;

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_write_is_read_back() {
    let lab = stage::lab().await;
    let causeway = stage::start(&lab).await;
    let direct = lab
        .node(PRIMARY)
        .connect(APP_USER, APP_DATABASE)
        .await
        .unwrap();
    direct.batch_execute(SET_UP).await.unwrap();
    let cases: Vec<_> = WRITES.iter().chain(SIGHTS).collect();

    stage::stand_still(&lab).await;
    let mut wrong = Vec::new();
    for (name, steps) in &cases {
        for way in 0..3 {
            let client = connect(&causeway).await;
            let (node, before) = read(&client, way).await;
            assert_ne!(node, PRIMARY, "{name}: the replica is not used at all");
            take(&client, &direct, steps).await;
            let now = truth(&direct).await;
            assert!(now != before, "{name}: nothing was written");
            for look in ["first", "second"] {
                let (node, seen) = read(&client, way).await;
                if seen != now {
                    wrong.push(format!(
                        "{name}, {look} look on {node}: {seen:?}, not {now:?}"
                    ));
                }
            }
        }
    }
    println!(
        "{} kinds while replay stood still: {} stale",
        cases.len(),
        wrong.len()
    );
    assert!(wrong.is_empty(), "{wrong:#?}");

    stage::go_on(&lab).await;
    let mut nodes = std::collections::BTreeMap::<String, u32>::new();
    for (name, steps) in &cases {
        for round in 0..ROUNDS_AT_WORK {
            let client = connect(&causeway).await;
            take(&client, &direct, steps).await;
            let now = truth(&direct).await;
            let (node, seen) = read(&client, round).await;
            if seen != now {
                wrong.push(format!("{name} on {node}: {seen:?}, not {now:?}"));
            }
            *nodes.entry(node).or_default() += 1;
        }
    }
    println!("replay at work: reads by {nodes:?}: {} stale", wrong.len());
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// psql sends COPY as a simple query, and its data behind the server's answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_by_psql_is_read_back() {
    let lab = stage::lab().await;
    let causeway = stage::start(&lab).await;
    let direct = lab
        .node(PRIMARY)
        .connect(APP_USER, APP_DATABASE)
        .await
        .unwrap();
    direct.batch_execute(SET_UP).await.unwrap();
    stage::stand_still(&lab).await;
    let look = "SELECT current_setting('cluster_name') = 'us-east', count(*) FROM entry;\n";
    let script = format!("{look}COPY entry (value) FROM STDIN;\n1\n2\n\\.\n{look}");
    let output = tokio::task::spawn_blocking(move || psql(&causeway, &script));
    assert_eq!(output.await.unwrap(), "f|200\nCOPY 2\nt|202\n");
}

fn psql(causeway: &Running, script: &str) -> String {
    let port = causeway.listen_addr().port().to_string();
    let mut psql = Command::new("psql")
        .args([
            "-X",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-h",
            "127.0.0.1",
            "-p",
            &port,
        ])
        .args(["-U", APP_USER, "-d", APP_DATABASE])
        .env("PGPASSWORD", PASSWORD)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = psql.stdin.take().unwrap();
    input.write_all(script.as_bytes()).unwrap();
    drop(input);
    let output = psql.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

async fn take(client: &Client, direct: &Client, steps: &[Step]) {
    for step in steps {
        let done = match *step {
            Simple(text) => client.simple_query(text).await.map(drop),
            Extended(text) => client.query_typed(text, &[]).await.map(drop),
            Fails(text) => {
                let error = client.simple_query(text).await.unwrap_err();
                assert!(error.code().is_some(), "{step:?}: {error:?}");
                Ok(())
            }
            CopyIn(text, data) => copy(client, text, data).await,
            Pipelined([a, b, c]) => {
                let (a, b, c) = (
                    client.simple_query(a),
                    client.simple_query(b),
                    client.simple_query(c),
                );
                tokio::try_join!(a, b, c).map(drop)
            }
            PipelinedExtended([a, b, c]) => {
                let (a, b, c) = (
                    client.query_typed(a, &[]),
                    client.query_typed(b, &[]),
                    client.query_typed(c, &[]),
                );
                tokio::try_join!(a, b, c).map(drop)
            }
            Elsewhere(text) => direct.batch_execute(text).await,
        };
        done.unwrap_or_else(|error| panic!("{step:?}: {error:?}"));
    }
}

async fn copy(
    client: &Client,
    text: &str,
    data: &'static [u8],
) -> Result<(), tokio_postgres::Error> {
    let mut sink = std::pin::pin!(client.copy_in::<_, &[u8]>(text).await?);
    sink.send(data).await?;
    sink.finish().await.map(drop)
}

/// What there is: how many entries, and their sum.
type Contents = (i64, i64);

const LOOK: &str =
    "SELECT current_setting('cluster_name'), count(*), sum(value)::bigint FROM entry";

async fn read(client: &Client, way: u32) -> (String, Contents) {
    match way {
        0 => {
            let answer = client.simple_query(LOOK).await.unwrap();
            let row = answer.iter().find_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some(row),
                _ => None,
            });
            let text = |place| row.unwrap().get(place).unwrap().to_owned();
            (
                text(0),
                (text(1).parse().unwrap(), text(2).parse().unwrap()),
            )
        }
        1 => contents(&client.query_typed(LOOK, &[]).await.unwrap()[0]),
        _ => contents(&client.query_one(LOOK, &[]).await.unwrap()),
    }
}

async fn truth(direct: &Client) -> Contents {
    contents(&direct.query_one(LOOK, &[]).await.unwrap()).1
}

fn contents(row: &tokio_postgres::Row) -> (String, Contents) {
    (row.get(0), (row.get(1), row.get(2)))
}
