//! The `causeway` program: arguments, settings, runtime, run, exit code.

use std::fs;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::thread;

use anyhow::Context;
use causeway::app::explain::Explainer;
use causeway::app::{Causeway, check, logging};
use causeway::config::flags::{Cli, Command, DemoFlags, ExplainFlags, ServeFlags};
use causeway::config::{self, Config};
use causeway::lab::demo::{self, DemoOptions};
use clap::Parser;
use tokio::runtime::{self, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Serve(flags) => serve(&flags),
        Command::Check(flags) => check(&flags),
        Command::Explain(flags) => explain(&flags),
        Command::Demo(flags) => show(flags),
    };
    done.unwrap_or_else(|error| {
        eprintln!("{error:#}");
        ExitCode::FAILURE
    })
}

/// Runs until the first SIGTERM or SIGINT and then drains; a second one ends it at once.
fn serve(flags: &ServeFlags) -> anyhow::Result<ExitCode> {
    let config = config::load(flags)?;
    logging::init(&config.log)?;
    runtime(config.worker_threads)?.block_on(async {
        let mut signals = Signals::new()?;
        let running = Causeway::start(config).await?;
        let admin = running.admin_addr().map(tracing::field::display);
        tracing::info!(listen = %running.listen_addr(), admin, "ready");
        tracing::info!(signal = signals.next().await, "shutting down");
        tokio::select! {
            () = running.shutdown() => Ok(ExitCode::SUCCESS),
            name = signals.next() => {
                tracing::warn!(signal = name, "ending without waiting for clients");
                Ok(ExitCode::FAILURE)
            }
        }
    })
}

fn check(flags: &ServeFlags) -> anyhow::Result<ExitCode> {
    let loaded = config::load_with_origins(flags)?;
    let report = runtime(1)?.block_on(check::check(&loaded));
    write!(io::stdout(), "{report}")?;
    Ok(match report.is_good() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn explain(flags: &ExplainFlags) -> anyhow::Result<ExitCode> {
    let config = match &flags.config {
        Some(_) => config::load(&flags.to_serve_flags())?,
        None => Config::default(),
    };
    let explainer = runtime(1)?.block_on(Explainer::new(&config, flags))?;
    let text = match (&flags.file, &flags.sql) {
        (Some(file), _) => {
            fs::read(file).with_context(|| format!("cannot read {}", file.display()))?
        }
        (None, sql) => sql.clone().unwrap_or_default().into_bytes(),
    };
    let told = match flags.file {
        Some(_) => explainer.each(&text),
        None => explainer.text(&text),
    };
    write!(io::stdout(), "{told}")?;
    Ok(ExitCode::SUCCESS)
}

fn show(flags: DemoFlags) -> anyhow::Result<ExitCode> {
    let options = DemoOptions {
        once: flags.once,
        ..DemoOptions::default()
    };
    // Clusters, clients and several Causeways: work for every processor.
    let processors = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    runtime(processors)?.block_on(demo::run(options))
}

/// One worker runs everything on this thread, without a scheduler between threads.
fn runtime(worker_threads: usize) -> anyhow::Result<Runtime> {
    let mut builder = match worker_threads {
        1 => runtime::Builder::new_current_thread(),
        _ => runtime::Builder::new_multi_thread(),
    };
    builder
        .worker_threads(worker_threads)
        .enable_all()
        .build()
        .context("the runtime does not start")
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Cancel safe.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
