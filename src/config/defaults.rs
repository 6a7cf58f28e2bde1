//! The defaults, each in one place. `proxy.toml` and `docs/configure.md` state the same values, and
//! a test compares them.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use zeroize::Zeroizing;

use super::{
    CausalConfig, ClientConfig, Config, Consistency, KeyStoreConfig, LogConfig, LogFormat,
    MonitorConfig, NodeConfig, OnLag, PoolConfig, PoolMode, RoutingConfig, Secret, ServerTls,
    TlsMode, UserConfig,
};

const MIB: usize = 1024 * 1024;

impl Default for Config {
    /// No nodes, no users and nobody for the monitor: these have no default.
    fn default() -> Self {
        Config {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 6432)),
            admin: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 6480))),
            region: None,
            worker_threads: 1,
            nodes: Vec::new(),
            users: Vec::new(),
            monitor: MonitorConfig::default(),
            client: ClientConfig::default(),
            pool: PoolConfig::default(),
            routing: RoutingConfig::default(),
            profiles: Vec::new(),
            causal: CausalConfig::default(),
            key_store: None,
            log: LogConfig::default(),
        }
    }
}

impl NodeConfig {
    /// A node named `host:port` with every other setting at its default.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        let host = host.into();
        NodeConfig {
            name: default_name(&host, port),
            host,
            port,
            region: None,
            weight: 100,
            max_connections: 80,
            tls: ServerTls::default(),
        }
    }

    /// `host:port`, with brackets around an IPv6 address.
    pub fn address(&self) -> String {
        default_name(&self.host, self.port)
    }

    /// The host is a directory that holds a Unix socket.
    pub fn is_unix_socket(&self) -> bool {
        self.host.starts_with('/')
    }
}

fn default_name(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

impl Default for ServerTls {
    fn default() -> Self {
        ServerTls {
            mode: TlsMode::Prefer,
            root_cert: None,
        }
    }
}

impl UserConfig {
    /// A user with the pool's size and mode.
    pub fn new(name: impl Into<String>, secret: Secret) -> Self {
        UserConfig {
            name: name.into(),
            secret,
            pool_size: None,
            pool_mode: None,
        }
    }

    /// A user who is proved by a password.
    pub fn with_password(name: impl Into<String>, password: impl Into<String>) -> Self {
        UserConfig::new(name, Secret::Password(Zeroizing::new(password.into())))
    }
}

impl Default for MonitorConfig {
    fn default() -> Self {
        MonitorConfig {
            user: String::new(),
            password: None,
            database: "postgres".to_owned(),
            probe_interval: Duration::from_millis(100),
            probe_timeout: Duration::from_secs(5),
            wait_interval: Duration::from_millis(2),
            catalogue_interval: Duration::from_secs(30),
        }
    }
}

impl Default for ClientConfig {
    fn default() -> Self {
        ClientConfig {
            max_clients: 10_000,
            login_timeout: Duration::from_secs(60),
            max_query_size: 64 * MIB,
            idle_timeout: Duration::ZERO,
            tls: None,
        }
    }
}

impl Default for PoolConfig {
    fn default() -> Self {
        PoolConfig {
            mode: PoolMode::Transaction,
            size: 20,
            min_idle: 0,
            checkout_timeout: Duration::from_secs(15),
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(10 * 60),
            max_lifetime: Duration::from_secs(60 * 60),
        }
    }
}

impl Default for RoutingConfig {
    fn default() -> Self {
        RoutingConfig {
            consistency: Consistency::Session,
            max_staleness: None,
            max_wait: Duration::from_secs(1),
            on_lag: OnLag::Primary,
            max_displaced: 64,
            failover_wait: Duration::from_secs(10),
            statement_cache_size: 16 * MIB,
            read_only_functions: Vec::new(),
            write_functions: Vec::new(),
            primary_tables: Vec::new(),
            replica_tables: Vec::new(),
        }
    }
}

impl Default for CausalConfig {
    fn default() -> Self {
        CausalConfig {
            token_key: None,
            previous_token_key: None,
            max_ahead: 256 * MIB,
            clock_skew: Duration::from_millis(500),
            session_keys: 100_000,
        }
    }
}

impl KeyStoreConfig {
    /// A store with every other setting at its default.
    pub fn new(url: impl Into<String>) -> Self {
        KeyStoreConfig {
            url: Zeroizing::new(url.into()),
            root_cert: None,
            prefix: "causeway:".to_owned(),
            timeout: Duration::from_millis(250),
            ttl: Duration::from_secs(60 * 60),
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig {
            filter: "info".to_owned(),
            format: LogFormat::Text,
        }
    }
}
