//! What a read costs the proxy at `session`, against `eventual`: processor time of its process, in rounds
//! that alternate, so that whatever else the machine does meets both.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use causeway::lab::{APP_DATABASE, APP_USER, Lab};
use futures_util::future::try_join_all;
use tokio_postgres::{Client, Statement};

use super::processes::cpu_time;
use super::proxy::Proxy;
use super::{quantile, verdict};

const CLIENTS: usize = 8;
const READS_EACH: usize = 2_000;
const PAIRS: usize = 21;
const PATIENCE: Duration = Duration::from_secs(10);
const TARGET_PERCENT: f64 = 3.0;

pub async fn run() -> Result<()> {
    let lab = Lab::small().await?;
    let direct = lab.node("us-east").connect(APP_USER, APP_DATABASE).await?;
    direct
        .batch_execute(
            "CREATE TABLE register (id int PRIMARY KEY, value bigint NOT NULL);
             INSERT INTO register SELECT id, 0 FROM generate_series(0, 99) AS id",
        )
        .await?;
    lab.wait_caught_up("eu-west").await?;
    let proxy = Proxy::beside_replica(&lab, &[]).await?;
    let session = readers(&proxy, "session").await?;
    let eventual = readers(&proxy, "eventual").await?;
    for readers in [&session, &eventual] {
        microseconds_a_read(&proxy, readers).await?;
    }
    let mut ratios = Vec::new();
    let (mut at_session, mut at_eventual) = (Vec::new(), Vec::new());
    for pair in 0..PAIRS {
        let (s, e) = match pair % 2 {
            0 => {
                let s = microseconds_a_read(&proxy, &session).await?;
                (s, microseconds_a_read(&proxy, &eventual).await?)
            }
            _ => {
                let e = microseconds_a_read(&proxy, &eventual).await?;
                (microseconds_a_read(&proxy, &session).await?, e)
            }
        };
        at_session.push(s);
        at_eventual.push(e);
        ratios.push(s / e);
    }
    let percent = (quantile(&ratios, 0.5) - 1.0) * 100.0;
    println!(
        "a read's processor time in the proxy, {PAIRS} pairs of rounds of {} reads by {CLIENTS} clients:",
        CLIENTS * READS_EACH
    );
    let (s, e) = (quantile(&at_session, 0.5), quantile(&at_eventual, 0.5));
    println!("  session {s:.2} us, eventual {e:.2} us (medians)");
    println!(
        "  session costs {percent:+.1} % (median of the pairs' ratios; from {:+.1} to {:+.1} %), \
         target at most {TARGET_PERCENT} %: {}",
        (quantile(&ratios, 0.25) - 1.0) * 100.0,
        (quantile(&ratios, 0.75) - 1.0) * 100.0,
        verdict(percent <= TARGET_PERCENT)
    );
    Ok(())
}

/// Clients that have written, so that they have a floor, which the replica has reached.
async fn readers(proxy: &Proxy, level: &str) -> Result<Vec<(Client, Statement)>> {
    let mut readers = Vec::new();
    for id in 0..CLIENTS {
        let client = proxy.client().await?;
        let prepare = format!(
            "SET causeway.consistency = '{level}';
             UPDATE register SET value = value + 1 WHERE id = {id}"
        );
        client.batch_execute(&prepare).await?;
        let read = client
            .prepare(
                "SELECT value, current_setting('in_hot' || '_standby') FROM register WHERE id = $1",
            )
            .await?;
        let begun = Instant::now();
        while !read_near(&client, &read, id as i32).await? {
            ensure!(begun.elapsed() < PATIENCE, "the replica does not get there");
        }
        readers.push((client, read));
    }
    Ok(readers)
}

/// Whether the replica has answered.
async fn read_near(client: &Client, read: &Statement, id: i32) -> Result<bool> {
    let row = client.query_one(read, &[&id]).await?;
    Ok(row.get::<_, &str>(1) == "on")
}

async fn microseconds_a_read(proxy: &Proxy, readers: &[(Client, Statement)]) -> Result<f64> {
    let before = cpu_time(proxy.pid()?)?;
    let reading = readers.iter().map(|(client, read)| async move {
        for place in 0..READS_EACH {
            let near = read_near(client, read, place as i32 % 100).await?;
            ensure!(near, "a read did not run on the replica");
        }
        Ok(())
    });
    try_join_all(reading).await?;
    let spent = cpu_time(proxy.pid()?)? - before;
    Ok(spent.as_secs_f64() * 1e6 / (readers.len() * READS_EACH) as f64)
}
