//! What the capture behind a write costs the primary: processor time of its processes while clients write through one
//! Causeway with a replica. Some read at `session` what they write, and so each of their writes is captured; some
//! have the token of each write reported besides; and some read at `eventual`, for whom nothing is captured. A few reads are
//! among the writes of all; none goes to the primary. Rounds alternate.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use causeway::lab::{APP_DATABASE, APP_USER, Lab, PASSWORD, SUPERUSER};
use futures_util::future::try_join_all;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Statement};

use super::processes::{children, cpu_time};
use super::proxy::Proxy;
use super::{quantile, verdict};

const CLIENTS: usize = 4;
const WRITES_EACH: usize = 400;
const ROUNDS: usize = 31;
/// A read follows every so many writes: then a session is one that reads what it writes.
const WRITES_A_READ: usize = 4;
const TARGET_PERCENT: f64 = 8.0;

/// What is written, and how: the least that a write can be, one of everyday size, and what pgbench calls
/// its simple update, in a transaction of its own.
const KINDS: [Kind; 4] = [
    Kind {
        name: "one row updated by its key",
        statements: &["UPDATE register SET value = value + 1 WHERE id = $1"],
    },
    Kind {
        name: "the same, as a simple query",
        statements: &[],
    },
    Kind {
        name: "an order of two lines, with two indexes each",
        statements: &[
            "WITH ordered AS (INSERT INTO orders (customer) VALUES ($1) RETURNING id), \
             lines AS (INSERT INTO lines (order_id, item) \
                 SELECT id, item FROM ordered, (VALUES (1), (2)) AS items (item)) \
             UPDATE register SET value = value + 1 WHERE id = $1",
        ],
    },
    Kind {
        name: "BEGIN, a row updated and read, one inserted, COMMIT",
        statements: &[
            "UPDATE register SET value = value + 1 WHERE id = $1",
            "SELECT value FROM register WHERE id = $1",
            "INSERT INTO orders (customer) VALUES ($1)",
        ],
    },
];

/// Several statements are a transaction, none a simple query.
struct Kind {
    name: &'static str,
    statements: &'static [&'static str],
}

/// A client with the statements that it has prepared.
type Writer = (Client, Vec<Statement>);

pub async fn run() -> Result<()> {
    let lab = Lab::builder()
        .primary("us-east")
        .replica("eu-west")
        .setting("fsync = on")
        .setting("full_page_writes = on")
        .setting("autovacuum = off")
        .build()
        .await?;
    let direct = lab.node("us-east").connect(APP_USER, APP_DATABASE).await?;
    direct
        .batch_execute(
            "CREATE TABLE register (id int PRIMARY KEY, value bigint NOT NULL) WITH (fillfactor = 20);
             INSERT INTO register SELECT id, 0 FROM generate_series(0, 99) AS id;
             CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer int);
             CREATE INDEX ON orders (customer);
             CREATE TABLE lines (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, order_id bigint, item int);
             CREATE INDEX ON lines (order_id)",
        )
        .await?;
    let url = |name: &str| lab.node(name).url(APP_USER, PASSWORD, APP_DATABASE);
    let (primary, replica) = (url("us-east"), url("eu-west"));
    // What its reads find is of no interest, nor whether a replica has got that far: they go to no primary.
    let settings =
        std::env::temp_dir().join(format!("causeway-writes-{}.toml", std::process::id()));
    std::fs::write(
        &settings,
        "[routing]\non_lag = \"error\"\nmax_wait = \"0ms\"\n",
    )?;
    let nodes = ["--primary", &primary, "--replica", &replica];
    let config = ["--config", settings.to_str().context("no file name")?];
    let proxy = Proxy::start(&[&nodes[..], &config].concat()).await;
    std::fs::remove_file(&settings)?;
    let proxy = proxy?;
    let admin = lab.node("us-east").connect(SUPERUSER, APP_DATABASE).await?;
    for Kind { name, statements } in KINDS {
        let plain = writers(&proxy, "SET causeway.consistency = eventual", statements).await?;
        let captured = writers(&proxy, "", statements).await?;
        let reported = writers(&proxy, "SET causeway.report = on", statements).await?;
        let all = [&plain, &captured, &reported];
        for writers in all {
            microseconds_a_write(&lab, &admin, writers).await?;
        }
        let mut rounds = [const { Vec::new() }; 3];
        for round in 0..ROUNDS {
            for place in (0..3).map(|place| (place + round) % 3) {
                let spent = microseconds_a_write(&lab, &admin, all[place]).await?;
                rounds[place].push(spent);
            }
        }
        let [plain, captured, reported] = rounds;
        println!(
            "a write's processor time on the primary, {name}, {ROUNDS} rounds of {} writes by {CLIENTS} clients:",
            CLIENTS * WRITES_EACH
        );
        println!("  without capture {:.1} us", quantile(&plain, 0.5));
        tell("by who reads what it writes", &captured, &plain);
        tell("with the token of each reported", &reported, &plain);
    }
    Ok(())
}

/// Medians of the rounds, and of what each is of the round without capture beside it.
fn tell(name: &str, spent: &[f64], plain: &[f64]) {
    let pairs = spent.iter().zip(plain);
    let more: Vec<f64> = pairs
        .map(|(one, other)| (one / other - 1.0) * 100.0)
        .collect();
    let [least, percent, most] = [0.25, 0.5, 0.75].map(|share| quantile(&more, share));
    println!(
        "  {name} {:.1} us, {percent:+.1} % (half of the rounds from {least:+.1} to {most:+.1}), \
         target at most {TARGET_PERCENT} %: {}",
        quantile(spent, 0.5),
        verdict(percent <= TARGET_PERCENT)
    );
}

const READ: &str = "SELECT value FROM register WHERE id = $1";

async fn writers(proxy: &Proxy, settings: &str, statements: &[&str]) -> Result<Vec<Writer>> {
    let mut writers = Vec::new();
    for _ in 0..CLIENTS {
        let client = proxy.client().await?;
        client.batch_execute(settings).await?;
        let mut prepared = try_join_all(statements.iter().map(|sql| client.prepare(sql))).await?;
        prepared.push(loop {
            match client.prepare(READ).await {
                Err(error) if lags(&error) => tokio::time::sleep(Duration::from_millis(10)).await,
                answer => break answer?,
            }
        });
        writers.push((client, prepared));
    }
    Ok(writers)
}

/// Of all processes of the primary: servers, but also the WAL writer and the one that sends the log.
async fn microseconds_a_write(lab: &Lab, admin: &Client, writers: &[Writer]) -> Result<f64> {
    // Whatever the last round has left behind is written before this one begins.
    admin.batch_execute("CHECKPOINT").await?;
    // Servers that have to be opened first are in no round.
    write(writers, 20).await?;
    let before = processes(lab)?;
    write(writers, WRITES_EACH).await?;
    let after = processes(lab)?;
    let mut spent = Duration::ZERO;
    for (pid, time) in after {
        if let Some((_, earlier)) = before.iter().find(|(known, _)| *known == pid) {
            spent += time - *earlier;
        }
    }
    ensure!(!spent.is_zero(), "no server of the primary was found");
    Ok(spent.as_secs_f64() * 1e6 / (writers.len() * WRITES_EACH) as f64)
}

async fn write(writers: &[Writer], times: usize) -> Result<()> {
    let writing = writers
        .iter()
        .enumerate()
        .map(|(id, (client, statements))| async move {
            let Some((read, statements)) = statements.split_last() else {
                return Ok(());
            };
            let in_transaction = statements.len() > 1;
            for number in 0..times {
                if in_transaction {
                    client.batch_execute("BEGIN").await?;
                }
                if statements.is_empty() {
                    let text = format!("UPDATE register SET value = value + 1 WHERE id = {id}");
                    client.batch_execute(&text).await?;
                }
                for statement in statements {
                    client.execute(statement, &[&(id as i32)]).await?;
                }
                if in_transaction {
                    client.batch_execute("COMMIT").await?;
                }
                if number % WRITES_A_READ == 0 {
                    let answer = client.query(read, &[&(id as i32)]).await;
                    ensure!(answer.as_ref().err().is_none_or(lags), "{answer:?}");
                }
            }
            anyhow::Ok(())
        });
    try_join_all(writing).await?;
    Ok(())
}

/// No replica has got far enough.
fn lags(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE)
}

fn processes(lab: &Lab) -> Result<Vec<(u32, Duration)>> {
    let file = lab.node("us-east").data_directory().join("postmaster.pid");
    let text = std::fs::read_to_string(file)?;
    let postmaster: u32 = text.lines().next().context("an empty file")?.parse()?;
    let children = children(postmaster)?;
    // One that has just ended is of no account.
    let times = children
        .iter()
        .filter_map(|pid| Some((*pid, cpu_time(*pid).ok()?)));
    Ok(times.collect())
}
