//! One node of a lab: where it is reached, and everything that can be done to it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::time::Instant;
use tokio_postgres::{Client, NoTls};

use super::link::{Cut, Link};
use super::port::PortClaim;
use super::postmaster::{Mode, Postmaster};
use super::programs::Programs;
use super::{LabError, PASSWORD, SUPERUSER};
use crate::routing::{Lsn, WalGeometry};

/// What should happen soon and has not by then never will.
const PATIENCE: Duration = Duration::from_secs(60);
const GLANCE: Duration = Duration::from_millis(2);

/// One PostgreSQL server of a lab.
///
/// Its methods act on the server itself, past all links, unless they name a region.
pub struct LabNode {
    pub(super) name: String,
    pub(super) region: String,
    pub(super) port: PortClaim,
    pub(super) data: PathBuf,
    pub(super) log: PathBuf,
    pub(super) programs: Arc<Programs>,
    pub(super) postmaster: tokio::sync::Mutex<Option<Postmaster>>,
    /// By the client's region.
    pub(super) links: BTreeMap<String, Link>,
    pub(super) wal: WalSource,
}

/// Where a node's WAL comes from.
pub(super) enum WalSource {
    /// It began as the primary.
    Own,
    /// It began as a replica. After its own promotion nothing comes through the link any more.
    Stream { link: Link, upstream: Mutex<String> },
}

impl LabNode {
    /// Its name in [`super::Lab::node`]; its servers report it as `cluster_name`.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn region(&self) -> &str {
        &self.region
    }

    /// The server's own port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.port()
    }

    /// The port on 127.0.0.1 through which `region` reaches this node: that of the link, or the
    /// server's own if the lab was given no round trip for the pair.
    pub fn port_from(&self, region: &str) -> u16 {
        self.links.get(region).map_or(self.port(), Link::port)
    }

    /// A connection string for the server itself.
    pub fn url(&self, user: &str, password: &str, database: &str) -> String {
        url(self.port(), user, password, database)
    }

    /// A connection string for the way from `region`.
    pub fn url_from(&self, region: &str, user: &str, password: &str, database: &str) -> String {
        url(self.port_from(region), user, password, database)
    }

    /// The server's data directory.
    pub fn data_directory(&self) -> &std::path::Path {
        &self.data
    }

    /// What the server has logged since the lab began.
    pub fn log(&self) -> Result<String, LabError> {
        std::fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .map_err(|error| LabError::io(format!("cannot read {}", self.log.display()), error))
    }

    /// A connection to the server itself as one of the lab's roles.
    pub async fn connect(&self, user: &str, database: &str) -> Result<Client, LabError> {
        self.open(self.port(), user, database).await
    }

    /// A connection that comes from `region`.
    pub async fn connect_from(
        &self,
        region: &str,
        user: &str,
        database: &str,
    ) -> Result<Client, LabError> {
        self.open(self.port_from(region), user, database).await
    }

    /// Holds replay, and returns once it really stands still.
    pub async fn pause_replay(&self) -> Result<(), LabError> {
        let admin = self.admin().await?;
        self.ask(&admin, "SELECT pg_wal_replay_pause()").await?;
        self.until(
            &admin,
            "SELECT pg_get_wal_replay_pause_state() = 'paused'",
            "pause of replay",
        )
        .await
    }

    pub async fn resume_replay(&self) -> Result<(), LabError> {
        let admin = self.admin().await?;
        self.ask(&admin, "SELECT pg_wal_replay_resume()").await?;
        Ok(())
    }

    /// Commits are replayed this long after they were made on the primary
    /// (`recovery_min_apply_delay`, whole milliseconds); zero ends it.
    pub async fn set_apply_delay(&self, delay: Duration) -> Result<(), LabError> {
        let admin = self.admin().await?;
        let delay_ms = delay.as_millis();
        let change = format!("ALTER SYSTEM SET recovery_min_apply_delay = '{delay_ms}ms'");
        admin
            .batch_execute(&change)
            .await
            .map_err(|error| self.failed(error))?;
        self.ask(&admin, "SELECT pg_reload_conf()").await?;
        let seen = format!(
            "SELECT setting::bigint = {delay_ms} FROM pg_settings \
             WHERE name = 'recovery_min_apply_delay'"
        );
        self.until(&admin, &seen, "change of the apply delay").await
    }

    /// What has been replayed; none on a server that was never a replica.
    pub async fn replay_lsn(&self) -> Result<Option<Lsn>, LabError> {
        let admin = self.admin().await?;
        self.lsn(&admin, "SELECT pg_last_wal_replay_lsn()::text")
            .await
    }

    /// A primary's insert position, as replay will report it.
    pub async fn insert_lsn(&self) -> Result<Lsn, LabError> {
        let admin = self.admin().await?;
        let lsn = self
            .lsn(&admin, "SELECT pg_current_wal_insert_lsn()::text")
            .await?;
        Ok(lsn.unwrap_or(Lsn::ZERO).normalised(WalGeometry::default()))
    }

    /// Has a primary flush its WAL up to `written`, and so send it: what a transaction has left that was rolled back is
    /// flushed with the next commit, or after some 15 s.
    pub(super) async fn flush_wal(&self, written: Lsn) -> Result<(), LabError> {
        let admin = self.admin().await?;
        let flushed = self
            .lsn(&admin, "SELECT pg_current_wal_flush_lsn()::text")
            .await?;
        if flushed < Some(written) {
            let commit = "BEGIN; SET LOCAL synchronous_commit = local; \
                SELECT pg_logical_emit_message(true, 'lab', ''); COMMIT";
            let committed = admin.batch_execute(commit).await;
            committed.map_err(|error| self.failed(error))?;
        }
        Ok(())
    }

    /// Ends the servers of `user`'s sessions; says how many.
    pub async fn terminate_backends(&self, user: &str) -> Result<u64, LabError> {
        let admin = self.admin().await?;
        admin
            .execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE usename = $1 AND pid <> pg_backend_pid()",
                &[&user],
            )
            .await
            .map_err(|error| self.failed(error))
    }

    /// Does nothing if it runs. Otherwise returns once it takes connections.
    pub async fn start(&self) -> Result<(), LabError> {
        let mut slot = self.postmaster.lock().await;
        if let Some(postmaster) = slot.as_mut()
            && postmaster.is_running()
        {
            return Ok(());
        }
        *slot = None;
        let started = Postmaster::start(&self.programs, &self.name, &self.data, &self.log).await?;
        *slot = Some(started);
        Ok(())
    }

    /// Returns once the server is gone; does nothing if it is not there.
    pub async fn stop(&self, mode: Mode) -> Result<(), LabError> {
        match self.postmaster.lock().await.take() {
            Some(postmaster) => postmaster.stop(&self.name, mode).await,
            None => Ok(()),
        }
    }

    /// SIGKILL for the postmaster and its children; returns once they are gone.
    pub async fn kill(&self) -> Result<(), LabError> {
        match self.postmaster.lock().await.take() {
            Some(postmaster) => postmaster.kill(&self.name).await,
            None => Ok(()),
        }
    }

    /// A fast stop and a start, on the same port.
    pub async fn restart(&self) -> Result<(), LabError> {
        self.stop(Mode::Fast).await?;
        self.start().await
    }

    /// Makes a replica a primary, on a new timeline, and returns once it takes writes. The old
    /// primary is not touched, and other replicas keep following it: see [`super::Lab::follow`].
    pub async fn promote(&self) -> Result<(), LabError> {
        let admin = self.admin().await?;
        self.ask(&admin, "SELECT pg_promote(false)").await?;
        self.until(&admin, "SELECT NOT pg_is_in_recovery()", "promotion")
            .await
    }

    /// Cuts the clients of `region` off from this node.
    ///
    /// # Panics
    ///
    /// If there is no link, since the lab was given no round trip for the pair.
    pub fn cut_link(&self, region: &str, cut: Cut) {
        self.link(region).cut(cut);
    }

    /// Undoes [`LabNode::cut_link`].
    ///
    /// # Panics
    ///
    /// If there is no link, since the lab was given no round trip for the pair.
    pub fn restore_link(&self, region: &str) {
        self.link(region).restore();
    }

    /// Cuts a replica off from the WAL; what it has received it goes on replaying.
    ///
    /// # Panics
    ///
    /// If the node began as the primary.
    pub fn cut_wal(&self, cut: Cut) {
        self.wal_link().cut(cut);
    }

    /// Undoes [`LabNode::cut_wal`].
    ///
    /// # Panics
    ///
    /// If the node began as the primary.
    pub fn restore_wal(&self) {
        self.wal_link().restore();
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// The name of the node whose WAL it replays; none if it began as the primary.
    pub(super) fn upstream(&self) -> Option<String> {
        match &self.wal {
            WalSource::Own => None,
            WalSource::Stream { upstream, .. } => {
                let name = upstream.lock().unwrap_or_else(PoisonError::into_inner);
                Some(name.clone())
            }
        }
    }

    pub(super) fn set_upstream(&self, node: &LabNode, round_trip: Duration) {
        if let WalSource::Stream { link, upstream } = &self.wal {
            *upstream.lock().unwrap_or_else(PoisonError::into_inner) = node.name.clone();
            link.point_at(node.address(), round_trip);
        }
    }

    pub(super) async fn until_replayed(&self, lsn: Lsn) -> Result<(), LabError> {
        let admin = self.admin().await?;
        let reached = format!("SELECT coalesce(pg_last_wal_replay_lsn() >= '{lsn}', false)");
        self.until(&admin, &reached, &format!("replay of {lsn}"))
            .await
    }

    fn link(&self, region: &str) -> &Link {
        self.links.get(region).unwrap_or_else(|| {
            panic!(
                "no link from {region} to {}: give the lab a round trip for the pair",
                self.name
            )
        })
    }

    fn wal_link(&self) -> &Link {
        match &self.wal {
            WalSource::Stream { link, .. } => link,
            WalSource::Own => panic!("{} began as the primary: it receives no WAL", self.name),
        }
    }

    async fn admin(&self) -> Result<Client, LabError> {
        self.connect(SUPERUSER, "postgres").await
    }

    async fn open(&self, port: u16, user: &str, database: &str) -> Result<Client, LabError> {
        let mut config = tokio_postgres::Config::new();
        config
            .host("127.0.0.1")
            .port(port)
            .user(user)
            .password(PASSWORD)
            .dbname(database);
        let (client, connection) = config
            .connect(NoTls)
            .await
            .map_err(|error| self.failed(error))?;
        let node = self.name.clone();
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, node, "lab: a connection has ended");
            }
        });
        Ok(client)
    }

    async fn ask(&self, client: &Client, query: &str) -> Result<tokio_postgres::Row, LabError> {
        client
            .query_one(query, &[])
            .await
            .map_err(|error| self.failed(error))
    }

    async fn lsn(&self, client: &Client, query: &str) -> Result<Option<Lsn>, LabError> {
        let row = self.ask(client, query).await?;
        let text: Option<String> = row.try_get(0).map_err(|error| self.failed(error))?;
        text.map(|text| {
            text.parse::<Lsn>()
                .map_err(|error| LabError::Lsn(error.to_string()))
        })
        .transpose()
    }

    /// Asks until the answer is true.
    async fn until(&self, client: &Client, query: &str, what: &str) -> Result<(), LabError> {
        let begun = Instant::now();
        loop {
            let row = self.ask(client, query).await?;
            if row.try_get(0).map_err(|error| self.failed(error))? {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                return Err(LabError::Timeout(format!("{what} on node {}", self.name)));
            }
            tokio::time::sleep(GLANCE).await;
        }
    }

    fn failed(&self, source: tokio_postgres::Error) -> LabError {
        LabError::Postgres {
            node: self.name.clone(),
            source,
        }
    }
}

fn url(port: u16, user: &str, password: &str, database: &str) -> String {
    let part = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
    format!(
        "postgres://{}:{}@127.0.0.1:{port}/{}",
        part(user),
        part(password),
        part(database)
    )
}
