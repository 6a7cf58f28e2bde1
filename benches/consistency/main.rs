//! What the guarantee costs: `cargo bench --bench consistency -- latency`, `reads`, `writes`, `keys`, or all
//! without a word. Everything runs on this machine, the distance is simulated, and nothing is compared but with
//! another figure of the same run. It says where a target is missed; it does not fail.

mod keys;
mod latency;
mod processes;
mod proxy;
mod reads;
mod writes;

use anyhow::{Result, bail};

#[tokio::main]
async fn main() -> Result<()> {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .collect();
    let wants = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
    if let Some(other) = wanted
        .iter()
        .find(|wanted| !["latency", "reads", "writes", "keys"].contains(&wanted.as_str()))
    {
        bail!("{other}: latency, reads, writes or keys");
    }
    if wants("latency") {
        latency::run().await?;
    }
    if wants("reads") {
        reads::run().await?;
    }
    if wants("writes") {
        writes::run().await?;
    }
    if wants("keys") {
        keys::run().await?;
    }
    Ok(())
}

/// The value that at least `share` (of 1) of all do not exceed.
fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

fn verdict(holds: bool) -> &'static str {
    match holds {
        true => "met",
        false => "MISSED",
    }
}
