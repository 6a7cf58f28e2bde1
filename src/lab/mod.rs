//! Local PostgreSQL clusters with simulated distance, for the demo, the tests and the benches.
//!
//! A [`Lab`] is one primary and any number of streaming replicas, made from the machine's own
//! PostgreSQL (14 or newer) in a temporary directory, on 127.0.0.1. Each node stands in a region;
//! regions are as far apart as [`LabBuilder::round_trip`] says, for clients
//! ([`LabNode::url_from`]) and for the WAL. When the lab is dropped, or its owner ends in whatever
//! way, its processes end and its files go. It is not durable, and not a model of a lossy network.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use causeway::lab::{APP_DATABASE, APP_USER, Lab};
//! use std::time::Duration;
//!
//! let lab = Lab::builder()
//!     .primary("us-east")
//!     .replica("eu-west")
//!     .round_trip("us-east", "eu-west", Duration::from_millis(80))
//!     .build()
//!     .await?;
//! let near = lab.node("eu-west").connect(APP_USER, APP_DATABASE).await?;
//! let far = lab.node("us-east").connect_from("eu-west", APP_USER, APP_DATABASE).await?;
//! # Ok(()) }
//! ```

mod alarm;
mod build;
mod cluster;
pub mod demo;
mod guard;
mod link;
mod node;
mod port;
mod postmaster;
mod programs;
mod store;
mod template;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

pub use build::LabBuilder;
use build::make_directory;
use guard::Guard;
pub use link::Cut;
use link::Network;
pub use node::LabNode;
pub use postmaster::Mode;
pub use programs::BIN_VARIABLE;
pub use store::LabStore;

/// The superuser of every lab.
pub const SUPERUSER: &str = "postgres";
/// An ordinary role; it owns [`APP_DATABASE`].
pub const APP_USER: &str = "app";
/// The database of [`APP_USER`].
pub const APP_DATABASE: &str = "app";
/// A role that may look (`pg_monitor`) but owns nothing.
pub const MONITOR_USER: &str = "monitor";
/// The password of every role above.
pub const PASSWORD: &str = "secret";

/// A running cluster. Dropping it ends and removes everything; that blocks for some milliseconds.
pub struct Lab {
    nodes: Vec<Arc<LabNode>>,
    distances: Distances,
    network: Network,
    // In this order: the directory goes, then the guard has nothing left to do.
    dir: TempDir,
    _guard: Guard,
}

impl Lab {
    pub fn builder() -> LabBuilder {
        LabBuilder::default()
    }

    /// A primary `us-east` and a replica `eu-west` with no distance between them, made quickly
    /// ([`LabBuilder::quick`]).
    pub async fn small() -> Result<Lab, LabError> {
        Lab::builder()
            .quick()
            .primary("us-east")
            .replica("eu-west")
            .build()
            .await
    }

    /// Where its files are, until it is dropped. Its nodes' Unix sockets are there too.
    pub fn directory(&self) -> &Path {
        self.dir.path()
    }

    /// # Panics
    ///
    /// If there is no node of that name.
    pub fn node(&self, name: &str) -> &LabNode {
        let found = self.nodes.iter().find(|node| node.name() == name);
        found.unwrap_or_else(|| {
            let names: Vec<&str> = self.nodes().map(LabNode::name).collect();
            panic!("no node {name} in this lab, only {}", names.join(", "))
        })
    }

    /// All nodes; the one that began as the primary is the first.
    pub fn nodes(&self) -> impl Iterator<Item = &LabNode> {
        self.nodes.iter().map(Arc::as_ref)
    }

    /// Waits until `replica` has replayed everything that the node it follows has written so far.
    /// Fails after a minute, as with a paused replay.
    ///
    /// # Panics
    ///
    /// If there is no node of that name, or it began as the primary.
    pub async fn wait_caught_up(&self, replica: &str) -> Result<(), LabError> {
        let replica = self.node(replica);
        let upstream = replica
            .upstream()
            .unwrap_or_else(|| panic!("{} began as the primary", replica.name()));
        let upstream = self.node(&upstream);
        let written = upstream.insert_lsn().await?;
        upstream.flush_wal(written).await?;
        replica.until_replayed(written).await
    }

    /// After a promotion: `replica` takes its WAL from `upstream` from now on, over the distance
    /// between their regions.
    ///
    /// # Panics
    ///
    /// If there are no such nodes.
    pub fn follow(&self, replica: &str, upstream: &str) {
        let (replica, upstream) = (self.node(replica), self.node(upstream));
        let round_trip = self.distances.between(replica.region(), upstream.region());
        replica.set_upstream(upstream, round_trip.unwrap_or_default());
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for node in &self.nodes {
            if let Ok(slot) = node.postmaster.try_lock()
                && let Some(postmaster) = slot.as_ref()
            {
                postmaster.begin_to_end();
            }
        }
        self.nodes.clear();
    }
}

/// Round trips between regions, the same in both directions.
#[derive(Clone, Debug, Default)]
struct Distances(BTreeMap<(String, String), Duration>);

impl Distances {
    fn set(&mut self, a: &str, b: &str, round_trip: Duration) {
        self.0.insert(pair(a, b), round_trip);
    }

    fn between(&self, a: &str, b: &str) -> Option<Duration> {
        self.0.get(&pair(a, b)).copied()
    }

    fn regions(&self) -> impl Iterator<Item = &String> {
        self.0.keys().flat_map(|(a, b)| [a, b])
    }
}

fn pair(a: &str, b: &str) -> (String, String) {
    let (low, high) = if a <= b { (a, b) } else { (b, a) };
    (low.to_string(), high.to_string())
}

/// Why a lab, or something that was asked of it, did not come about.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    #[error(
        "no PostgreSQL server programs found (initdb, postgres): install them, on Debian and \
         Ubuntu with \"apt install postgresql\", or set {BIN_VARIABLE} to their directory"
    )]
    NoPrograms,
    #[error("{BIN_VARIABLE} names {0}, where there is no initdb or no postgres")]
    WrongDirectory(PathBuf),
    #[error(
        "PostgreSQL does not run as root, and there is no system user \"postgres\" to run it as"
    )]
    NoAccount,
    #[error("a lab needs a primary")]
    NoPrimary,
    #[error("\"{0}\" cannot name a region: use small letters, digits and hyphens")]
    Region(String),
    #[error("no free port on 127.0.0.1 for a lab")]
    NoPort,
    #[error("{program} failed ({status}):\n{output}")]
    Program {
        program: String,
        status: ExitStatus,
        output: String,
    },
    #[error("node {node} did not start; the end of its log:\n{log}")]
    Start { node: String, log: String },
    #[error(
        "no key store found (valkey-server or redis-server): install it, on Debian and Ubuntu with \
         \"apt install redis-server\""
    )]
    NoStore,
    #[error("{0} took too long")]
    Timeout(String),
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    #[error("node {node}: {source}{}", detail(source))]
    Postgres {
        node: String,
        source: tokio_postgres::Error,
    },
    #[error("{0}")]
    Lsn(String),
}

impl LabError {
    fn io(what: impl Into<String>, source: io::Error) -> LabError {
        LabError::Io {
            what: what.into(),
            source,
        }
    }
}

/// `tokio_postgres` keeps what the server said one level down.
fn detail(error: &tokio_postgres::Error) -> String {
    std::error::Error::source(error).map_or(String::new(), |cause| format!(": {cause}"))
}
