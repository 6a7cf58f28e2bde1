//! One look at one node through an ordinary PostgreSQL connection, step by step, so that each way to
//! fail has its own name. What the facts mean is judged elsewhere.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::{MakeTlsConnect, NoTls, TlsConnect};
use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::{Config, NodeConfig, Secret, TlsMode};
use crate::net::tls::{TlsError, client_config};

/// What a node said about itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// As `server_version_num`: 150004 is 15.4.
    pub version_number: u32,
    pub version: String,
    pub system_identifier: String,
    pub role: Role,
    /// Our connection is encrypted.
    pub encrypted: bool,
    pub wal_block_size_bytes: u32,
    /// `max_connections` less those reserved for administrators.
    pub connections: usize,
    /// Of a small query.
    pub round_trip: Duration,
    /// How far the node's clock is ahead of ours, in seconds, give or take half a round trip.
    pub clock_ahead_seconds: f64,
}

/// What a node is at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Primary { timeline: u32 },
    Replica(Receiver),
}

/// What a replica tells about the WAL it receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receiver {
    /// It receives none at the moment.
    Absent,
    /// Our user may not know.
    Hidden,
    Timeline(u32),
}

/// Why a node could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    #[error("the host name `{name}` does not resolve: {error}")]
    Resolve { name: String, error: io::Error },
    #[error("cannot connect to {address}: {error}")]
    Connect { address: String, error: io::Error },
    #[error("no answer within {limit:?} {doing}")]
    Timeout {
        limit: Duration,
        doing: &'static str,
    },
    #[error("TLS settings: {0}")]
    TlsSettings(#[from] TlsError),
    /// PostgreSQL refused; its own words.
    #[error("{message} (SQLSTATE {code})")]
    Refused { code: String, message: String },
    /// TLS or the protocol broke.
    #[error("{0}")]
    Broken(String),
    #[error("its answer about `{0}` is not understood")]
    Answer(&'static str),
}

impl LookError {
    /// The node refused the user or its password, or does not have the database: not the node's
    /// address is wrong.
    pub fn is_about_login(&self) -> bool {
        matches!(self, LookError::Refused { code, .. } if code.starts_with("28") || code == "3D000")
    }
}

impl From<tokio_postgres::Error> for LookError {
    fn from(error: tokio_postgres::Error) -> Self {
        if let Some(refused) = error.as_db_error() {
            return LookError::Refused {
                code: refused.code().code().to_owned(),
                message: refused.message().to_owned(),
            };
        }
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            let cause = error.to_string();
            if !text.ends_with(&cause) {
                text = format!("{text}: {cause}");
            }
            source = error.source();
        }
        LookError::Broken(text)
    }
}

/// Looks at the node as the monitor would.
pub async fn look(config: &Config, node: &NodeConfig) -> Result<Facts, LookError> {
    let monitor = &config.monitor;
    let password = monitor
        .password
        .as_ref()
        .map(|password| password.as_bytes());
    let session = connect(config, node, &monitor.user, password).await?;
    let limit = monitor.probe_timeout;
    let asked = timeout(limit, ask(&session.client)).await;
    asked.map_err(|_| LookError::Timeout {
        limit,
        doing: "to a query",
    })?
}

/// Whether the node lets a user with a password log in. `None` if it has no password to try.
pub async fn try_user(
    config: &Config,
    node: &NodeConfig,
    name: &str,
    secret: &Secret,
) -> Option<Result<(), LookError>> {
    let Secret::Password(password) = secret else {
        return None;
    };
    Some(
        match connect(config, node, name, Some(password.as_bytes())).await {
            Ok(_) => Ok(()),
            // The right to CONNECT is asked after the password, and for another database it may be there.
            Err(LookError::Refused { code, .. }) if code == "42501" => Ok(()),
            Err(error) => Err(error),
        },
    )
}

/// A logged-in connection; closed on drop.
struct Session {
    client: Client,
    driver: JoinHandle<()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

async fn connect(
    config: &Config,
    node: &NodeConfig,
    user: &str,
    password: Option<&[u8]>,
) -> Result<Session, LookError> {
    let limit = config.pool.connect_timeout;
    let mut login = tokio_postgres::Config::new();
    login
        .user(user)
        .dbname(&config.monitor.database)
        .application_name("causeway check")
        .ssl_mode(ssl_mode(node.tls.mode));
    if let Some(password) = password {
        login.password(password);
    }
    let session = async {
        if node.is_unix_socket() {
            let stream = open_socket(node).await?;
            return log_in(login.ssl_mode(SslMode::Disable), stream, NoTls).await;
        }
        let stream = open_tcp(node).await?;
        if node.tls.mode == TlsMode::Disable {
            return log_in(&login, stream, NoTls).await;
        }
        let mut tls = MakeRustlsConnect::new(Arc::unwrap_or_clone(client_config(&node.tls)?));
        let tls = MakeTlsConnect::<TcpStream>::make_tls_connect(&mut tls, &node.host)
            .map_err(|error| LookError::Broken(format!("TLS: {error}")))?;
        log_in(&login, stream, tls).await
    };
    timeout(limit, session)
        .await
        .map_err(|_| LookError::Timeout {
            limit,
            doing: "while connecting",
        })?
}

fn ssl_mode(mode: TlsMode) -> SslMode {
    match mode {
        TlsMode::Disable => SslMode::Disable,
        TlsMode::Prefer => SslMode::Prefer,
        TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => SslMode::Require,
    }
}

async fn open_socket(node: &NodeConfig) -> Result<UnixStream, LookError> {
    let path = format!("{}/.s.PGSQL.{}", node.host, node.port);
    let opened = UnixStream::connect(&path).await;
    opened.map_err(|error| LookError::Connect {
        address: path,
        error,
    })
}

/// The first address that answers; the error is the last one's.
async fn open_tcp(node: &NodeConfig) -> Result<TcpStream, LookError> {
    let resolve_error = |error| LookError::Resolve {
        name: node.host.clone(),
        error,
    };
    let addresses = lookup_host((node.host.as_str(), node.port))
        .await
        .map_err(resolve_error)?;
    let mut last = resolve_error(io::Error::other("it has no address"));
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => {
                last = LookError::Connect {
                    address: address.to_string(),
                    error,
                }
            }
        }
    }
    Err(last)
}

async fn log_in<S, T>(
    login: &tokio_postgres::Config,
    stream: S,
    tls: T,
) -> Result<Session, LookError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: TlsConnect<S>,
    T::Stream: Send + 'static,
{
    let (client, connection) = login.connect_raw(stream, tls).await?;
    let driver = tokio::spawn(async move {
        // A connection that breaks shows as an error of the query that waits on it.
        let _ = connection.await;
    });
    Ok(Session { client, driver })
}

const FACTS: &str = "
SELECT current_setting('server_version_num') AS version_number,
       current_setting('server_version') AS version,
       (SELECT system_identifier FROM pg_control_system()) AS system_identifier,
       pg_is_in_recovery() AS is_replica,
       CASE WHEN NOT pg_is_in_recovery()
            THEN ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int
       END AS timeline,
       (SELECT count(*) FROM pg_stat_wal_receiver) AS receivers,
       (SELECT received_tli FROM pg_stat_wal_receiver) AS received_timeline,
       coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false) AS encrypted,
       current_setting('wal_block_size') AS wal_block_size,
       current_setting('max_connections')::int
         - current_setting('superuser_reserved_connections')::int
         - coalesce(current_setting('reserved_connections', true)::int, 0) AS connections";

const CLOCK: &str = "SELECT extract(epoch FROM clock_timestamp()) AS clock";

async fn ask(client: &Client) -> Result<Facts, LookError> {
    let row = one_row(client, FACTS).await?;
    let started = Instant::now();
    let clock = one_row(client, CLOCK).await?;
    let round_trip = started.elapsed();
    let now = SystemTime::now() - round_trip / 2;
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let timeline = |name| parsed::<u32>(&row, name);
    let role = if text(&row, "is_replica")? == "f" {
        Role::Primary {
            timeline: timeline("timeline")?,
        }
    } else if text(&row, "receivers")? == "0" {
        Role::Replica(Receiver::Absent)
    } else if row.get("received_timeline").is_none() {
        Role::Replica(Receiver::Hidden)
    } else {
        Role::Replica(Receiver::Timeline(timeline("received_timeline")?))
    };
    Ok(Facts {
        version_number: parsed(&row, "version_number")?,
        version: text(&row, "version")?.to_owned(),
        system_identifier: text(&row, "system_identifier")?.to_owned(),
        role,
        encrypted: text(&row, "encrypted")? == "t",
        wal_block_size_bytes: parsed(&row, "wal_block_size")?,
        connections: parsed(&row, "connections")?,
        round_trip,
        clock_ahead_seconds: parsed::<f64>(&clock, "clock")? - now.as_secs_f64(),
    })
}

async fn one_row(client: &Client, query: &'static str) -> Result<SimpleQueryRow, LookError> {
    let messages = client.simple_query(query).await?;
    let row = messages.into_iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    row.ok_or(LookError::Answer("one row"))
}

fn text<'a>(row: &'a SimpleQueryRow, name: &'static str) -> Result<&'a str, LookError> {
    row.get(name).ok_or(LookError::Answer(name))
}

fn parsed<T: std::str::FromStr>(row: &SimpleQueryRow, name: &'static str) -> Result<T, LookError> {
    text(row, name)?
        .parse()
        .map_err(|_| LookError::Answer(name))
}
