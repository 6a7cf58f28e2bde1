//! How long a read right behind a write takes, 80 ms from the primary, with a near replica that is 20 ms
//! behind beyond the way: through Causeway, at the primary, and for an oracle that knows which of the two
//! would answer first.
//!
//! Each round writes, and asks all three at once when the write has been answered: Causeway; the primary,
//! past Causeway but over the same distance; and the replica, past Causeway, again and again until it shows
//! the write: what somebody would have had who had known when to ask. The oracle is the earlier of the two.

use std::time::Duration;

use anyhow::{Context, Result};
use causeway::lab::{APP_DATABASE, APP_USER, Lab};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_postgres::{Client, Statement};

use super::proxy::{Proxy, connect};
use super::{quantile, verdict};

const FAR: Duration = Duration::from_millis(80);
const BEYOND: Duration = Duration::from_millis(20);
const CLIENTS: i32 = 4;
const ROUNDS: usize = 150;
/// The first few learn how far everything is.
const WARM_UP: usize = 5;

const READ: &str = "SELECT value FROM register WHERE id = $1";
const WRITE: &str = "UPDATE register SET value = value + 1 WHERE id = $1";

/// Milliseconds from the write's answer to the read's.
struct Round {
    causeway: f64,
    primary: f64,
    replica: f64,
}

impl Round {
    fn oracle(&self) -> f64 {
        self.primary.min(self.replica)
    }
}

pub async fn run() -> Result<()> {
    let lab = Lab::builder()
        .primary("us-east")
        .replica("eu-west")
        .round_trip("us-east", "eu-west", FAR)
        .build()
        .await?;
    let near = lab.node("us-east").connect(APP_USER, APP_DATABASE).await?;
    near.batch_execute(
        "CREATE TABLE register (id int PRIMARY KEY, value bigint NOT NULL);
         INSERT INTO register SELECT id, 0 FROM generate_series(0, 99) AS id",
    )
    .await?;
    lab.wait_caught_up("eu-west").await?;
    // A commit is replayed so long after it was made, not after it has come.
    lab.node("eu-west")
        .set_apply_delay(FAR / 2 + BEYOND)
        .await?;
    let proxy = Proxy::beside_replica(&lab, &[]).await?;
    let mut clients = JoinSet::new();
    for id in 0..CLIENTS {
        let through = Reader::new(proxy.client().await?).await?;
        let far = Reader::new(connect(lab.node("us-east").port_from("eu-west")).await?).await?;
        let there = Reader::new(connect(lab.node("eu-west").port()).await?).await?;
        clients.spawn(async move { rounds(id, &through, &far, &there).await });
    }
    let mut all = Vec::new();
    for rounds in clients.join_all().await {
        all.extend(rounds?);
    }
    report(&all);
    Ok(())
}

/// A connection with what it asks.
struct Reader {
    client: Client,
    read: Statement,
    write: Statement,
}

impl Reader {
    async fn new(client: Client) -> Result<Reader> {
        Ok(Reader {
            read: client.prepare(READ).await?,
            write: client.prepare(WRITE).await?,
            client,
        })
    }

    async fn value(&self, id: i32) -> Result<i64> {
        Ok(self.client.query_one(&self.read, &[&id]).await?.get(0))
    }
}

async fn rounds(id: i32, through: &Reader, far: &Reader, there: &Reader) -> Result<Vec<Round>> {
    let mut rounds = Vec::new();
    for round in 1..=(WARM_UP + ROUNDS) as i64 {
        through.client.execute(&through.write, &[&id]).await?;
        let answered = Instant::now();
        let after = || answered.elapsed().as_secs_f64() * 1e3;
        let causeway = async {
            let value = through.value(id).await?;
            anyhow::ensure!(value == round, "a stale read: {value} after {round}");
            Ok(after())
        };
        let primary = async {
            far.value(id).await?;
            anyhow::Ok(after())
        };
        let replica = async {
            while there.value(id).await? < round {}
            anyhow::Ok(after())
        };
        let (causeway, primary, replica) = tokio::try_join!(causeway, primary, replica)
            .with_context(|| format!("client {id}, round {round}"))?;
        if round > WARM_UP as i64 {
            rounds.push(Round {
                causeway,
                primary,
                replica,
            });
        }
    }
    Ok(rounds)
}

fn report(rounds: &[Round]) {
    let of = |what: fn(&Round) -> f64| -> Vec<f64> { rounds.iter().map(what).collect() };
    let ways = [
        ("always the primary", of(|round| round.primary)),
        ("the oracle", of(Round::oracle)),
        ("Causeway", of(|round| round.causeway)),
    ];
    println!(
        "read behind a write, {} ms from the primary, replication {} ms beyond the way, {} reads:",
        FAR.as_millis(),
        BEYOND.as_millis(),
        rounds.len()
    );
    for (name, values) in &ways {
        let [p50, p99, most] = [0.5, 0.99, 1.0].map(|share| quantile(values, share));
        println!("  {name:20} p50 {p50:7.2} ms   p99 {p99:7.2} ms   most {most:7.2} ms");
    }
    let [primary, oracle, causeway] = ways.map(|(_, values)| values);
    for (share, name, limit) in [(0.5, "p50", 1.25), (0.99, "p99", 1.5)] {
        let ratio = quantile(&causeway, share) / quantile(&oracle, share);
        let verdict = verdict(ratio <= limit);
        println!("  {name}: {ratio:.2} times the oracle, target {limit}: {verdict}");
    }
    let above = rounds
        .iter()
        .filter(|round| round.causeway > round.primary + 5.0);
    let (above, most) = (above.count(), quantile(&primary, 1.0));
    let verdict = verdict(above == 0);
    println!(
        "  {above} reads took 5 ms longer than at the primary (whose slowest took {most:.2} ms): {verdict}"
    );
}
