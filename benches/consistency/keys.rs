//! What a key in a shared store adds to the time of a read, with the store on the same machine: each read
//! looks the key up first.

use std::time::Instant;

use anyhow::{Result, ensure};
use causeway::lab::{APP_DATABASE, APP_USER, Lab, LabStore};
use tokio_postgres::Client;

use super::proxy::Proxy;
use super::quantile;

const ROUNDS: usize = 21;
const READS: usize = 200;
const READ: &str = "SELECT value FROM register WHERE id = 0";

pub async fn run() -> Result<()> {
    let lab = Lab::small().await?;
    let store = LabStore::start().await?;
    let direct = lab.node("us-east").connect(APP_USER, APP_DATABASE).await?;
    direct
        .batch_execute(
            "CREATE TABLE register (id int PRIMARY KEY, value bigint NOT NULL);
             INSERT INTO register VALUES (0, 0)",
        )
        .await?;
    lab.wait_caught_up("eu-west").await?;
    let proxy = Proxy::beside_replica(&lab, &["--key-store", &store.url()]).await?;
    let (plain, keyed) = (proxy.client().await?, proxy.client().await?);
    keyed
        .batch_execute("SET causeway.session_key = 'user:1'")
        .await?;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        without.extend(read(&plain).await?);
        with.extend(read(&keyed).await?);
    }
    let route = keyed.query_one("SHOW causeway.last_route", &[]).await?;
    let route: &str = route.get(0);
    ensure!(
        route.contains("role=replica"),
        "reads are not near: {route}"
    );
    println!("a read beside the store, {} of each kind:", ROUNDS * READS);
    for (name, times) in [("without a key", &without), ("under a shared key", &with)] {
        let [p50, p99] = [0.5, 0.99].map(|share| quantile(times, share));
        println!("  {name:20} p50 {p50:7.0} us   p99 {p99:7.0} us");
    }
    Ok(())
}

/// Microseconds of each.
async fn read(client: &Client) -> Result<Vec<f64>> {
    let mut times = Vec::with_capacity(READS);
    for _ in 0..READS {
        let begun = Instant::now();
        client.simple_query(READ).await?;
        times.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    Ok(times)
}
