//! `causeway demo`: three regions on one machine, and one workload sent in three ways at once.
//!
//! Users in every region sign up, edit their profile and read it back; directly on the primary,
//! through a naive splitter, and through the Causeway of their region. The servers say which of
//! them answered, and a read-back that misses the user's own edit counts as stale. It shows what
//! to expect; it is no benchmark: everything shares this machine's processors.

mod causeways;
mod figures;
mod screen;
mod workload;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::{APP_DATABASE, APP_USER, Lab, LabNode, PASSWORD};
use causeways::Causeways;
use figures::Board;
use screen::Screen;

/// The first has the primary, the others a replica each.
const REGIONS: [&str; 3] = ["us-east", "eu-west", "ap-south"];
/// Round trips as between data centres of the public clouds.
const DISTANCES: [(&str, &str, Duration); 3] = [
    ("us-east", "eu-west", Duration::from_millis(80)),
    ("us-east", "ap-south", Duration::from_millis(190)),
    ("eu-west", "ap-south", Duration::from_millis(120)),
];

/// What `causeway demo` was asked for.
#[derive(Clone, Copy, Debug)]
pub struct DemoOptions {
    /// End after the workload instead of keeping everything up for psql.
    pub once: bool,
    /// How long the users work. Default 10 s.
    pub workload: Duration,
}

impl Default for DemoOptions {
    fn default() -> Self {
        DemoOptions {
            once: false,
            workload: Duration::from_secs(10),
        }
    }
}

/// Runs until its end, with `once`, or until Ctrl-C or SIGTERM; leaves nothing behind either way.
///
/// With `once` the status is a failure if Causeway showed a stale read or an error, or answered
/// nothing in some region. Fails if the lab or a Causeway does not start.
pub async fn run(options: DemoOptions) -> Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let interrupted = tokio::select! {
        outcome = story(options) => return outcome,
        caught = tokio::signal::ctrl_c() => caught.context("cannot wait for Ctrl-C"),
        _ = terminate.recv() => Ok(()),
    };
    interrupted?;
    // The story was dropped, and the lab with it.
    println!("\nStopped. Everything is removed.");
    Ok(if options.once {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

async fn story(options: DemoOptions) -> Result<ExitCode> {
    let mut screen = Screen::new();
    screen.step("Starting PostgreSQL: a primary in us-east, replicas in eu-west and ap-south")?;
    let lab = start_lab().await?;
    workload::create_table(&lab).await?;
    screen.step("Starting a Causeway beside the application tier of each region")?;
    let causeways = Causeways::start(&lab).await?;

    let board = Arc::new(Board::default());
    let users = workload::run(&lab, &causeways, &board, options.workload);
    show_while(&mut screen, &board, options.workload, users).await?;
    let verdict = board.verdict();
    screen.outcome(&board, &verdict)?;

    if options.once {
        causeways.shutdown().await;
        return Ok(if verdict.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        });
    }
    screen.invitation(&connection_strings(&lab, &causeways))?;
    std::future::pending().await
}

async fn start_lab() -> Result<Lab> {
    let [primary, replicas @ ..] = REGIONS;
    let mut builder = Lab::builder().primary(primary);
    for replica in replicas {
        builder = builder.replica(replica);
    }
    for (a, b, round_trip) in DISTANCES {
        builder = builder.round_trip(a, b, round_trip);
    }
    Ok(builder.build().await?)
}

/// Redraws the board while the users work.
async fn show_while(
    screen: &mut Screen,
    board: &Board,
    length: Duration,
    users: impl Future<Output = ()>,
) -> Result<()> {
    let begun = Instant::now();
    let mut redraw = interval_at(begun + screen.pace(), screen.pace());
    redraw.set_missed_tick_behavior(MissedTickBehavior::Skip);
    tokio::pin!(users);
    loop {
        tokio::select! {
            () = &mut users => return Ok(()),
            _ = redraw.tick() => screen.progress(board, begun.elapsed(), length)?,
        }
    }
}

/// Title and connection string, for a person with psql.
fn connection_strings(lab: &Lab, causeways: &Causeways) -> Vec<(String, String)> {
    let through = causeways.iter().map(|(region, address)| {
        let url = format!("postgres://{APP_USER}:{PASSWORD}@{address}/{APP_DATABASE}");
        (format!("Causeway in {region}"), url)
    });
    let primary = lab.node(REGIONS[0]);
    let far = REGIONS.iter().skip(1).map(|region| {
        let url = primary.url_from(region, APP_USER, PASSWORD, APP_DATABASE);
        (format!("primary, seen from {region}"), url)
    });
    let direct = lab.nodes().map(|node: &LabNode| {
        let url = node.url(APP_USER, PASSWORD, APP_DATABASE);
        (format!("server in {}", node.region()), url)
    });
    through.chain(far).chain(direct).collect()
}
