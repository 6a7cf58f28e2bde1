//! The settings as plain data. Reading them (file, flags, environment) and judging them are in
//! the submodules; nothing here opens a socket.
//!
//! * [`flags`]: the command line and `CAUSEWAY_*`
//! * [`url`](mod@url): one `postgres://` URL
//! * [`file`](mod@file) reads `proxy.toml`
//! * [`load`](mod@load): the file, then the flags over it
//! * [`validate`]: the rules between settings
//! * [`origin`]: where a setting came from, so that a message can say what to change

mod defaults;
pub mod file;
pub mod flags;
pub mod load;
pub mod origin;
mod section;
#[cfg(test)]
mod tests;
pub mod url;
pub mod validate;
pub mod words;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use zeroize::Zeroizing;

pub use load::{Loaded, load, load_with_origins};
pub use origin::{ConfigError, ConfigErrors, Origin, Origins};

/// Everything that can be set, with every default filled in.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients connect. Default 127.0.0.1:6432.
    pub listen: SocketAddr,
    /// Where admin HTTP listens; none turns it off. Default 127.0.0.1:6480.
    pub admin: Option<SocketAddr>,
    /// The region this instance stands in.
    pub region: Option<String>,
    /// Worker threads. One costs the least per transaction; more carry more. Default 1.
    pub worker_threads: usize,
    pub nodes: Vec<NodeConfig>,
    pub users: Vec<UserConfig>,
    /// Who the monitor logs in as.
    pub monitor: MonitorConfig,
    pub client: ClientConfig,
    pub pool: PoolConfig,
    pub routing: RoutingConfig,
    /// In the order of the file.
    pub profiles: Vec<ProfileConfig>,
    pub causal: CausalConfig,
    /// None keeps session keys in this process.
    pub key_store: Option<KeyStoreConfig>,
    pub log: LogConfig,
}

/// One PostgreSQL instance. Its role is observed, never configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// Default `host:port`.
    pub name: String,
    /// A host name, an address, or a directory that holds a Unix socket.
    pub host: String,
    /// Default 5432.
    pub port: u16,
    pub region: Option<String>,
    /// Share of the reads among equally near nodes; 0 takes none. Default 100.
    pub weight: u32,
    /// Servers open at once on this node, over all pools. Default 80.
    pub max_connections: usize,
    pub tls: ServerTls,
}

/// TLS towards a node, in libpq's words (manual, section "SSL Mode Descriptions"). Default prefer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    pub mode: TlsMode,
    /// Certificates to trust, PEM; without it, the system's.
    pub root_cert: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    Disable,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// Who may log in, and as whom Causeway then logs in on the nodes (the same name).
#[derive(Clone, Debug)]
pub struct UserConfig {
    pub name: String,
    pub secret: Secret,
    /// Servers at the most per node and database for this user; default is the pool's.
    pub pool_size: Option<usize>,
    /// Default is the pool's.
    pub pool_mode: Option<PoolMode>,
}

/// What proves a user. Never printed.
#[derive(Clone)]
pub enum Secret {
    Password(Zeroizing<String>),
    /// `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`, as in `pg_authid`.
    Verifier(Zeroizing<String>),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Secret::Password(_) => "Password(..)",
            Secret::Verifier(_) => "Verifier(..)",
        })
    }
}

#[derive(Clone)]
pub struct MonitorConfig {
    pub user: String,
    pub password: Option<Zeroizing<String>>,
    /// Default `postgres`; with flags only, the primary URL's database.
    pub database: String,
    /// Between two probes of a node when nobody waits. Default 100 ms.
    pub probe_interval: Duration,
    /// A probe that takes longer has failed. Default 5 s.
    pub probe_timeout: Duration,
    /// Between two probes of a replica while somebody waits for it. Default 2 ms.
    pub wait_interval: Duration,
    /// Between two readings of a database's catalogue; zero reads none. Default 30 s.
    pub catalogue_interval: Duration,
}

impl fmt::Debug for MonitorConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MonitorConfig {
            user,
            password,
            database,
            probe_interval,
            probe_timeout,
            wait_interval,
            catalogue_interval,
        } = self;
        f.debug_struct("MonitorConfig")
            .field("user", user)
            .field("password", &password.as_ref().map(|_| ".."))
            .field("database", database)
            .field("probe_interval", probe_interval)
            .field("probe_timeout", probe_timeout)
            .field("wait_interval", wait_interval)
            .field("catalogue_interval", catalogue_interval)
            .finish()
    }
}

#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Clients at once; more are refused with 53300. Default 10000.
    pub max_clients: usize,
    /// From accept to the end of the log-in. Default 60 s.
    pub login_timeout: Duration,
    /// A statement's text at the most, in bytes; more is refused with 54000. Default 64 MiB.
    pub max_query_size: usize,
    /// A client silent for longer, outside of a transaction, is closed with 57P05; zero never. Default 0.
    pub idle_timeout: Duration,
    pub tls: Option<ClientTls>,
}

/// TLS towards clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientTls {
    /// Certificate chain, PEM.
    pub certificate: PathBuf,
    /// Private key, PEM.
    pub key: PathBuf,
    /// Refuse clients that do not use TLS. Default false.
    pub required: bool,
}

#[derive(Clone, Debug)]
pub struct PoolConfig {
    /// Default transaction.
    pub mode: PoolMode,
    /// Servers at the most per node, database and user. Default 20.
    pub size: usize,
    /// Servers kept open per pool once it has been used. Default 0.
    pub min_idle: usize,
    /// A wait for a server at the most; then 53300. Default 15 s.
    pub checkout_timeout: Duration,
    /// A connection attempt to a node at the most. Default 10 s.
    pub connect_timeout: Duration,
    /// A server at rest for longer is closed; zero never. Default 10 min.
    pub idle_timeout: Duration,
    /// A server older than this is closed when at rest (less up to a tenth, at random); zero never. Default 1 h.
    pub max_lifetime: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolMode {
    Transaction,
    Session,
}

#[derive(Clone, Debug)]
pub struct RoutingConfig {
    /// The level of a session that sets none. Default session.
    pub consistency: Consistency,
    /// For `eventual`; none is unbounded. Default none.
    pub max_staleness: Option<Duration>,
    /// The longest wait for a replica. Default 1 s.
    pub max_wait: Duration,
    /// What becomes of a read when every replica that could answer is behind. Default primary.
    pub on_lag: OnLag,
    /// Reads at the primary at once because replicas lag, at the most. Default 64.
    pub max_displaced: usize,
    /// During a failover, how long a write waits for the new primary. Default 10 s.
    pub failover_wait: Duration,
    /// Bytes of memory for remembered classifications. Default 16 MiB.
    pub statement_cache_size: usize,
    /// User functions that are volatile by declaration but may run on a replica.
    pub read_only_functions: Vec<String>,
    /// Functions that write whatever their declaration says.
    pub write_functions: Vec<String>,
    /// Relations that are read on the primary only.
    pub primary_tables: Vec<String>,
    /// Relations that may be read on a replica whatever they are made of.
    pub replica_tables: Vec<String>,
}

/// What reads get that are of some database, user, application or table. A list that is empty fits
/// all; the others hold patterns with `*` and `?`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileConfig {
    pub name: String,
    pub databases: Vec<String>,
    pub users: Vec<String>,
    pub applications: Vec<String>,
    /// `name` or `schema.name`. Without any it is for connections.
    pub tables: Vec<String>,
    pub consistency: Consistency,
    /// For `eventual`; none is unbounded.
    pub max_staleness: Option<Duration>,
    /// Default is that of `routing`.
    pub max_wait: Option<Duration>,
    /// Default is that of `routing`.
    pub on_lag: Option<OnLag>,
    /// Clients may not ask for less. Default false.
    pub enforced: bool,
}

/// What becomes of a read when every replica that could answer is behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnLag {
    Primary,
    Wait,
    Error,
}

/// Positions that travel.
#[derive(Clone)]
pub struct CausalConfig {
    /// What tokens are signed with, the same for every Causeway of a cluster; none does not sign.
    pub token_key: Option<Zeroizing<String>>,
    /// Its predecessor: tokens that were signed with it are still good.
    pub previous_token_key: Option<Zeroizing<String>>,
    /// A token may be ahead of the primary's last known position by so many bytes of WAL.
    /// Default 256 MiB.
    pub max_ahead: usize,
    /// A client's clock and the primary's may differ by so much. Default 500 ms.
    pub clock_skew: Duration,
    /// So many session keys have a floor of their own. Default 100000.
    pub session_keys: usize,
}

impl fmt::Debug for CausalConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CausalConfig {
            token_key,
            previous_token_key,
            max_ahead,
            clock_skew,
            session_keys,
        } = self;
        f.debug_struct("CausalConfig")
            .field("token_key", &token_key.as_ref().map(|_| ".."))
            .field(
                "previous_token_key",
                &previous_token_key.as_ref().map(|_| ".."),
            )
            .field("max_ahead", max_ahead)
            .field("clock_skew", clock_skew)
            .field("session_keys", session_keys)
            .finish()
    }
}

/// Where several Causeways keep the floors of session keys.
#[derive(Clone)]
pub struct KeyStoreConfig {
    /// `redis://` or `rediss://`, with the password if there is one.
    pub url: Zeroizing<String>,
    /// Certificates to trust, PEM. Default: the system's.
    pub root_cert: Option<PathBuf>,
    /// What its entries' names begin with. Default `causeway:`.
    pub prefix: String,
    /// An answer that takes longer counts for none. Default 250 ms.
    pub timeout: Duration,
    /// An entry that is not used for so long leaves. Default 1 hour.
    pub ttl: Duration,
}

impl fmt::Debug for KeyStoreConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let KeyStoreConfig {
            url: _,
            root_cert,
            prefix,
            timeout,
            ttl,
        } = self;
        f.debug_struct("KeyStoreConfig")
            .field("url", &"..")
            .field("root_cert", root_cert)
            .field("prefix", prefix)
            .field("timeout", timeout)
            .field("ttl", ttl)
            .finish()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    Strong,
    Session,
    Causal,
    Eventual,
}

#[derive(Clone, Debug)]
pub struct LogConfig {
    /// As `tracing_subscriber::EnvFilter` reads it. Default `info`.
    pub filter: String,
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}
