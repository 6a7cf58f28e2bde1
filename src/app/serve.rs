//! `causeway serve`: builds everything, listens, and lets each connection become what it is.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::recorder;
use super::users::{InvalidUser, User, users};
use crate::admin::Admin;
use crate::client::{Arrival, ClientTls, LogIn, Strangers, authenticate, greet};
use crate::config::{self, Config, Consistency, ProfileConfig};
use crate::inspect::{Memory, View};
use crate::monitor::{Catalogues, Monitor, MonitorError};
use crate::net::tls::{TlsError, client_config, server_config};
use crate::net::{Wire, socket};
use crate::pool::Pools;
use crate::protocol::error::{Fault, Severity, SqlState};
use crate::protocol::message;
use crate::protocol::startup::Startup;
use crate::routing::{Guarantees, Level, NodeIndex, OnLag, Tokens};
use crate::server::Dialer;
use crate::session::preferences::Preferences;
use crate::session::profiles::{Force, Glob, Profile, Profiles, TableGlob, Wants};
use crate::session::{
    End, Keeping, KeyStore, Options, Services, Session, SessionMetrics, StoreError, log_in_failed,
    relay_replication, welcome,
};
use crate::sql::{Classifier, Lists, Patterns};

/// Why the proxy did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on {address}: {error}")]
    Listen {
        address: SocketAddr,
        error: io::Error,
    },
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    #[error("{0}")]
    User(#[from] InvalidUser),
    #[error("{0}")]
    Monitor(#[from] MonitorError),
    #[error("{0}")]
    KeyStore(#[from] StoreError),
}

/// The proxy.
pub struct Causeway;

/// The proxy at work. Dropping it ends the listener and the probes, but lets sessions be.
pub struct Running {
    address: SocketAddr,
    admin: Option<AdminTask>,
    house: Arc<House>,
    tasks: Vec<JoinHandle<()>>,
    _monitor: Monitor,
    _key_store: Option<Keeping>,
}

/// Admin HTTP; ends when dropped.
struct AdminTask {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for AdminTask {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What every connection needs.
struct House {
    services: Arc<Services>,
    pools: Arc<Pools>,
    users: HashMap<String, User>,
    strangers: Strangers,
    tls: Option<ClientTls>,
    dialers: Vec<Arc<Dialer>>,
    login_timeout: Duration,
    max_clients: usize,
    clients: AtomicUsize,
}

/// Nodes get so long to answer their first probe before clients are let in.
const FIRST_LOOK: Duration = Duration::from_secs(5);

/// At shutdown, transactions get so long to end.
const DRAIN: Duration = Duration::from_secs(30);

impl Causeway {
    /// Listens and begins to serve. Nodes that cannot be reached do not keep it from starting.
    pub async fn start(config: Config) -> Result<Running, StartError> {
        Causeway::start_with(config, Guarantees::default()).await
    }

    /// As [`start`](Causeway::start); which guarantees hold is no setting, but for tests to say.
    pub async fn start_with(config: Config, guarantees: Guarantees) -> Result<Running, StartError> {
        let tls = match &config.client.tls {
            Some(tls) => Some(ClientTls {
                config: server_config(tls)?,
                required: tls.required,
            }),
            None => None,
        };
        let users = users(&config)?;
        let dialers = dialers(&config)?;
        let started = Instant::now();
        let (listener, address) = listen(config.listen).await?;
        let admin = match config.admin {
            // Counters that are registered from here on are recorded.
            Some(address) => Some((listen(address).await?, recorder::install())),
            None => None,
        };
        let (monitor, feed) = Monitor::start_with(&config.nodes, &config.monitor, guarantees)?;
        feed.first_look(FIRST_LOOK).await;
        let counts = config.nodes.iter().map(|node| node.max_connections);
        let pools = Arc::new(Pools::new(dialers.iter().cloned().zip(counts).collect()));
        let lists = lists(&config);
        let catalogues =
            Catalogues::new(feed.clone(), &config.nodes, &config.monitor, lists.clone());
        let classifier = Classifier::with_lists(config.routing.statement_cache_size, lists);
        let names: Vec<_> = feed
            .topology()
            .nodes
            .iter()
            .map(|node| node.name.clone())
            .collect();
        let metrics = SessionMetrics::new(names.iter());
        let store = match &config.key_store {
            Some(config) => Some(Arc::new(KeyStore::new(config)?)),
            None => None,
        };
        let keeping = store.as_ref().map(|store| store.keep(feed.clone()));
        let services = Services::new(
            classifier,
            feed,
            Arc::clone(&pools),
            catalogues,
            options(&config, guarantees),
            metrics,
            store,
        );
        let services = Arc::new(services);
        let admin = admin.map(|((listener, address), recorded)| {
            let view = View::new(started, Arc::clone(&pools), Arc::clone(&services));
            let memory = Memory::new(Arc::clone(&services));
            let admin = Admin {
                view,
                memory,
                recorded,
            };
            AdminTask {
                address,
                task: tokio::spawn(admin.serve(listener)),
            }
        });
        let house = Arc::new(House {
            services,
            pools: Arc::clone(&pools),
            users,
            strangers: Strangers::default(),
            tls,
            dialers,
            login_timeout: config.client.login_timeout,
            max_clients: config.client.max_clients,
            clients: AtomicUsize::new(0),
        });
        let accepting = tokio::spawn(Arc::clone(&house).accept(listener));
        let tasks = vec![accepting, pools.start_maintenance()];
        Ok(Running {
            address,
            admin,
            house,
            tasks,
            _monitor: monitor,
            _key_store: keeping,
        })
    }
}

impl Running {
    /// Where clients connect.
    pub fn listen_addr(&self) -> SocketAddr {
        self.address
    }

    /// Where admin HTTP answers, if it does. It does so until the last client has gone.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(|admin| admin.address)
    }

    /// Takes no more clients, ends sessions as they become idle, and returns when all have ended
    /// or half a minute has passed.
    pub async fn shutdown(self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        self.house.services.cancels.drain();
        let drained = async {
            while !self.house.services.cancels.is_empty() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        if timeout(DRAIN, drained).await.is_err() {
            let left = self.house.services.cancels.len();
            tracing::warn!(
                left,
                "clients were still in transactions when the time was up"
            );
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// A listener and where it is, as port 0 leaves that to the system.
async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let bound = async {
        let socket = match address {
            SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4()?,
            SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6()?,
        };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(1024)?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    bound
        .await
        .map_err(|error| StartError::Listen { address, error })
}

fn dialers(config: &Config) -> Result<Vec<Arc<Dialer>>, TlsError> {
    let dialer = |(place, node): (usize, &crate::config::NodeConfig)| {
        Ok(Arc::new(Dialer {
            node: NodeIndex(place as u8),
            host: node.host.clone(),
            port: node.port,
            tls: node.tls.mode,
            tls_config: client_config(&node.tls)?,
            timeout: config.pool.connect_timeout,
        }))
    };
    config.nodes.iter().enumerate().map(dialer).collect()
}

/// What the operator says about functions and relations.
pub(super) fn lists(config: &Config) -> Lists {
    let routing = &config.routing;
    let profiled = config.profiles.iter().flat_map(|it| it.tables.clone());
    Lists {
        profiled_tables: Patterns::new(&profiled.collect::<Vec<_>>()),
        read_only_functions: Patterns::new(&routing.read_only_functions),
        write_functions: Patterns::new(&routing.write_functions),
        primary_tables: Patterns::new(&routing.primary_tables),
        replica_tables: Patterns::new(&routing.replica_tables),
    }
}

fn level(consistency: Consistency, max_staleness: Option<Duration>) -> Level {
    match consistency {
        Consistency::Strong => Level::Strong,
        Consistency::Session => Level::Session,
        Consistency::Causal => Level::Causal,
        Consistency::Eventual => Level::Eventual { max_staleness },
    }
}

fn on_lag(on_lag: config::OnLag) -> OnLag {
    match on_lag {
        config::OnLag::Primary => OnLag::Primary,
        config::OnLag::Wait => OnLag::Wait,
        config::OnLag::Error => OnLag::Error,
    }
}

fn profile(profile: &ProfileConfig) -> Profile {
    let globs = |patterns: &[String]| patterns.iter().map(|text| Glob::new(text)).collect();
    let tables = profile.tables.iter().map(|text| TableGlob::new(text));
    Profile {
        databases: globs(&profile.databases),
        users: globs(&profile.users),
        applications: globs(&profile.applications),
        tables: tables.collect(),
        wants: Wants {
            level: level(profile.consistency, profile.max_staleness),
            max_wait: profile.max_wait,
            on_lag: profile.on_lag.map(on_lag),
        },
        force: match profile.enforced {
            true => Force::Enforced,
            false => Force::Default,
        },
    }
}

/// What every session obeys.
pub(super) fn options(config: &Config, guarantees: Guarantees) -> Options {
    let max_staleness = config.routing.max_staleness;
    let level = level(config.routing.consistency, max_staleness);
    let region = config.region.as_deref().map(Arc::from);
    let monitor = &config.monitor;
    let causal = &config.causal;
    let token_keys = [&causal.token_key, &causal.previous_token_key];
    let token_keys = token_keys.into_iter().flatten();
    Options {
        preferences: Preferences::new(level, max_staleness, region),
        profiles: Arc::new(Profiles(config.profiles.iter().map(profile).collect())),
        on_lag: on_lag(config.routing.on_lag),
        max_displaced: config.routing.max_displaced,
        max_wait: config.routing.max_wait,
        failover_wait: config.routing.failover_wait,
        max_query_size: config.client.max_query_size,
        idle_timeout: config.client.idle_timeout,
        // The last probe may have missed its time, and the one before may have been slow.
        observation_expiry: monitor.probe_interval * 3 + monitor.probe_timeout,
        tokens: Arc::new(Tokens::new(token_keys.map(|key| key.as_bytes()))),
        max_ahead_bytes: config.causal.max_ahead as u64,
        clock_skew: causal.clock_skew,
        session_keys: NonZeroUsize::new(causal.session_keys).unwrap_or(NonZeroUsize::MIN),
        guarantees,
    }
}

impl House {
    async fn accept(self: Arc<House>, listener: TcpListener) {
        /// After an error that only waiting cures, such as no file descriptors being left.
        const PAUSE: Duration = Duration::from_millis(50);
        loop {
            match listener.accept().await {
                Ok((tcp, peer)) => {
                    let house = Arc::clone(&self);
                    tokio::spawn(async move { house.serve(tcp, peer).await });
                }
                Err(error) => {
                    tracing::error!(%error, "cannot accept a connection");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// One connection, from accept to its end. The log-in's future is boxed: it is large, and over
    /// when a session begins.
    async fn serve(self: Arc<House>, tcp: TcpStream, peer: SocketAddr) {
        if let Err(error) = socket::tune(&tcp) {
            tracing::debug!(%peer, %error, "the socket's options could not be set");
        }
        let login = Box::pin(self.log_in(tcp, peer));
        let outcome = match timeout(self.login_timeout, login).await {
            Ok(outcome) => outcome,
            Err(_) => {
                tracing::info!(%peer, "a client did not finish its log-in in time");
                return;
            }
        };
        match outcome {
            Some(Guest::Session(mut session, seat)) => {
                if let End::Told(fault) = session.run().await {
                    tracing::info!(%peer, "a session was ended: {}", fault.message());
                }
                drop(seat);
            }
            Some(Guest::Replication(mut wire, mut server)) => {
                if let Err(error) = relay_replication(&mut wire, &mut server).await {
                    tracing::info!(%peer, %error, "a replication connection broke");
                }
            }
            None => {}
        }
    }

    async fn log_in(self: &Arc<House>, tcp: TcpStream, peer: SocketAddr) -> Option<Guest> {
        let (mut wire, startup) = match greet(tcp, self.tls.as_ref()).await {
            Ok(Arrival::Startup(wire, startup)) => (wire, startup),
            Ok(Arrival::Cancel {
                pid,
                secret,
                connection,
            }) => {
                self.services.cancels.cancel(pid, &secret).await;
                drop(connection);
                return None;
            }
            Ok(Arrival::Silent) => return None,
            Err(error) => {
                tracing::info!(%peer, "a connection was refused: {error}");
                return None;
            }
        };
        match self.admit(&mut wire, &startup).await {
            Ok(Some(admitted)) => match self.seat(wire, startup, admitted).await {
                Ok(guest) => Some(guest),
                Err((wire, fault)) => {
                    refuse(wire, peer, &fault).await;
                    None
                }
            },
            Ok(None) => None,
            Err(fault) => {
                refuse(wire, peer, &fault).await;
                None
            }
        }
    }

    /// Counts the client and lets it prove who it is; none if it left.
    async fn admit(
        self: &Arc<House>,
        wire: &mut Wire,
        startup: &Startup,
    ) -> Result<Option<(String, Seat)>, Fault> {
        let seat = self.take_seat()?;
        let Some(user) = startup.parameter("user").filter(|user| !user.is_empty()) else {
            return Err(Fault::verbatim(
                Severity::Fatal,
                SqlState::INVALID_AUTHORIZATION,
                "no PostgreSQL user name specified in startup packet",
            ));
        };
        let credential = self.users.get(user).map(|user| &*user.credential);
        match authenticate(wire, user, credential, &self.strangers).await {
            Ok(LogIn::Proven) => Ok(Some((user.to_owned(), seat))),
            Ok(LogIn::Refused(fault)) => Err(fault),
            Ok(LogIn::Gone) | Err(_) => Ok(None),
        }
    }

    /// Prepares the session of a client that has proven who it is.
    async fn seat(
        self: &Arc<House>,
        mut wire: Wire,
        startup: Startup,
        (name, seat): (String, Seat),
    ) -> Result<Guest, (Wire, Fault)> {
        let Some(user) = self.users.get(&name) else {
            return Err((
                wire,
                Fault::fatal(SqlState::INVALID_PASSWORD, "the user has gone"),
            ));
        };
        let database = startup
            .parameter("database")
            .filter(|database| !database.is_empty());
        let database = database.unwrap_or(&name);
        if is_replication(&startup) {
            return match self.dial_replication(user, database, &startup).await {
                Ok((server, greeting)) => {
                    wire.output.extend(&greeting);
                    Ok(Guest::Replication(wire, Box::new(server)))
                }
                Err(fault) => Err((wire, fault)),
            };
        }
        let group = self.pools.group(database, &user.credential, user.limits);
        let cancel = self.services.cancels.register();
        let welcomed = welcome(&self.services, &group, &startup, &cancel, &mut wire).await;
        match welcomed {
            Ok(welcome) => {
                let services = Arc::clone(&self.services);
                let session = Session::new(wire, services, group, cancel, user.mode, welcome);
                Ok(Guest::Session(Box::new(session), seat))
            }
            Err(fault) => Err((wire, fault)),
        }
    }

    /// A connection of its own to the primary, and the end of the log-in for the client.
    async fn dial_replication(
        &self,
        user: &User,
        database: &str,
        startup: &Startup,
    ) -> Result<(crate::server::Server, Vec<u8>), Fault> {
        let patience = self.services.options.failover_wait;
        let primary = self.services.feed.primary_within(patience).await;
        let primary = primary.ok_or_else(|| {
            Fault::fatal(SqlState::CONNECTION_FAILURE, "no primary can be reached")
        })?;
        let dialer = &self.dialers[usize::from(primary.0)];
        let parameters: Vec<(&str, &str)> = startup
            .parameters
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .filter(|(name, _)| !["user", "database"].contains(name))
            .collect();
        let dialed = dialer.dial(database, &user.credential, &parameters).await;
        let server = dialed.map_err(|error| log_in_failed(&error))?;
        let mut greeting = Vec::new();
        for (name, value) in server.reported.iter() {
            message::put_parameter_status(&mut greeting, name, value);
        }
        let key = &server.cancel_target().key;
        let secret = key.secret.get(..4).unwrap_or(&key.secret);
        message::put_backend_key_data(&mut greeting, key.pid, secret);
        message::put_ready_for_query(&mut greeting, message::TransactionStatus::Idle);
        Ok((server, greeting))
    }

    fn take_seat(self: &Arc<House>) -> Result<Seat, Fault> {
        let seat = Seat {
            house: Arc::clone(self),
        };
        if self.clients.fetch_add(1, Ordering::Relaxed) >= self.max_clients {
            let message = "sorry, too many clients already";
            return Err(Fault::fatal(SqlState::TOO_MANY_CONNECTIONS, message)
                .with_hint("client.max_clients limits them."));
        }
        Ok(seat)
    }
}

/// What a logged-in connection is.
enum Guest {
    Session(Box<Session>, Seat),
    Replication(Wire, Box<crate::server::Server>),
}

/// One client counted; given back on drop.
struct Seat {
    house: Arc<House>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.house.clients.fetch_sub(1, Ordering::Relaxed);
    }
}

/// `replication` is a boolean, or `database` (manual, section "Streaming Replication Protocol").
fn is_replication(startup: &Startup) -> bool {
    let wanted = startup
        .parameter("replication")
        .map(str::to_ascii_lowercase);
    wanted
        .is_some_and(|wanted| !["", "0", "off", "false", "no", "f", "n"].contains(&wanted.as_str()))
}

async fn refuse(mut wire: Wire, peer: SocketAddr, fault: &Fault) {
    tracing::info!(%peer, "a log-in was refused: {}", fault.message());
    let mut out = Vec::new();
    fault.encode(&mut out);
    wire.output.extend(&out);
    if let Err(error) = wire.close().await {
        tracing::debug!(%peer, %error, "the client had gone before it could be told");
    }
}
