//! A session: a logged-in client, and the loop that answers it.
//!
//! [`Session::run`] is the plot. A run of messages is read until its answer is wanted (`survey`),
//! a server is chosen and lent for it (`attach`), the messages go there with whatever the server
//! lacks ahead of them (`dispatch`), the replies come back (`relay`, `replies`), and the server
//! goes back to its pool (`release`). What needs no server is answered here (`answer`).

mod account;
mod answer;
mod attach;
mod audit;
pub mod cancels;
mod capture;
mod client_statements;
mod dispatch;
mod effects;
mod executed;
mod explained;
mod given;
mod habit;
mod in_sql;
mod keys;
mod metrics;
mod order;
mod pins;
mod portals;
pub mod preferences;
pub mod profiles;
mod relay;
mod release;
mod replication;
mod replies;
mod report;
mod restored;
mod route;
mod runs;
mod sequences;
mod shapes;
mod shared;
mod sight;
mod statements;
mod store;
mod survey;
mod temporaries;
mod tokens;
mod tracked;
mod transaction;
mod upstream;
mod welcome;
mod wording;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::monitor::{Catalogues, Feed, Names};
use crate::net::{Buffer, Wire};
use crate::pool::{Group, Pools};
use crate::protocol::error::{Fault, SqlState};
use crate::protocol::message::TransactionStatus;
use crate::routing::{Floor, Guarantees, NodeSet, OnLag, Patience, Tokens};
use crate::server::Reported;
use crate::sql::{Begin, Classifier};

use audit::Audit;
use cancels::{Cancels, Registration};
use client_statements::ClientStatements;
use habit::Habit;
use keys::Keys;
use pins::Pins;
use portals::Bound;
use preferences::Preferences;
use profiles::{Applied, Profiles};
use relay::{Event, Inflow};
use report::HeldReady;
use shapes::Misfit;
use shared::Noted;
use statements::Prepared;
use survey::{Plan, Step};
use temporaries::Temporaries;
use tracked::Tracked;
use upstream::Upstream;

pub use metrics::SessionMetrics;
pub use replication::relay_replication;
pub use route::LastRoute;
pub use shared::KeyTable;
pub use store::{Keeping, KeyStore, StoreError};
pub use welcome::{Welcome, log_in_failed, welcome};

/// What all sessions share.
pub struct Services {
    pub classifier: Classifier,
    pub prepared: Prepared,
    pub cancels: Arc<Cancels>,
    pub feed: Feed,
    pools: Arc<Pools>,
    keys: KeyTable,
    patience: Patience,
    /// For reads that go to the primary because replicas lag.
    displaced: Arc<Semaphore>,
    pub catalogues: Catalogues,
    pub options: Options,
    pub metrics: SessionMetrics,
}

impl Services {
    pub fn new(
        classifier: Classifier,
        feed: Feed,
        pools: Arc<Pools>,
        catalogues: Catalogues,
        options: Options,
        metrics: SessionMetrics,
        store: Option<Arc<KeyStore>>,
    ) -> Services {
        let (prepared, cancels) = (Prepared::new(), Arc::default());
        let keys = match store {
            Some(store) => KeyTable::Shared(store),
            None => KeyTable::Here(Box::new(Keys::new(options.session_keys))),
        };
        let patience = Patience::new(feed.topology().nodes.len());
        let displaced = Arc::new(Semaphore::new(options.max_displaced));
        Services {
            classifier,
            prepared,
            cancels,
            feed,
            pools,
            keys,
            patience,
            displaced,
            catalogues,
            options,
            metrics,
        }
    }
}

/// Settings that every session obeys; see `config` for the meaning and the defaults.
#[derive(Clone, Debug)]
pub struct Options {
    pub preferences: Preferences,
    pub profiles: Arc<Profiles>,
    pub max_wait: Duration,
    pub on_lag: OnLag,
    /// Reads at the primary at once because replicas lag, at the most.
    pub max_displaced: usize,
    pub failover_wait: Duration,
    pub max_query_size: usize,
    /// Zero never ends an idle session.
    pub idle_timeout: Duration,
    /// An observation of a node that is older no longer counts.
    pub observation_expiry: Duration,
    pub tokens: Arc<Tokens>,
    /// A token may be ahead of the primary's last known position by so many bytes.
    pub max_ahead_bytes: u64,
    /// A client's clock and the primary's may differ by so much.
    pub clock_skew: Duration,
    /// So many session keys have a floor of their own.
    pub session_keys: NonZeroUsize,
    /// All of them, but for tests of the tests.
    pub guarantees: Guarantees,
}

/// How a session uses servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A server for each transaction.
    Transaction,
    /// One server of the primary for as long as the client stays.
    Session,
}

/// A transaction block that no server knows of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LocalTransaction {
    None,
    /// BEGIN was answered at once and travels with the first statement.
    Deferred(Begin),
    /// It lost its server: everything fails until the client ends it.
    Failed,
}

/// A logged-in client and its state.
pub struct Session {
    client: Wire,
    services: Arc<Services>,
    group: Arc<Group>,
    /// Tells this session's unnamed statements from others'.
    serial: u64,
    /// Tells what it got from sequences from what others got, see `sequences`.
    sequences: u64,
    cancel: Registration,
    mode: Mode,
    upstream: Option<Box<Upstream>>,
    local: LocalTransaction,
    pins: Pins,
    /// What is known of its temporary relations, while they pin it.
    temporaries: Option<Box<Temporaries>>,
    /// The server that the session is pinned to, while another one answers a read.
    parked: Option<Box<Upstream>>,
    floor: Floor,
    habit: Habit,
    settings: Tracked,
    /// The `causeway.*` settings, with transactions like the others.
    wishes: Tracked,
    preferences: Preferences,
    /// None if there are no profiles.
    profiles: Option<Box<Applied>>,
    statements: ClientStatements,
    /// What names mean in its database.
    names: Names,
    /// What the client has been told of its parameters.
    reported: Reported,
    /// What it was told when it logged in.
    welcomed: Reported,
    last_route: Option<LastRoute>,
    /// The unnamed portal of the cycle that is being sent, which has given all its rows on a replica that
    /// the cycle has left.
    spent: Option<Box<Bound>>,
    inflow: Inflow,
    /// The client has stopped in the middle of a run, and goes on waiting.
    is_silent: bool,
    plan: Option<Plan>,
    /// The memory of the last plan's steps.
    spare_steps: Vec<Step>,
    /// A run of reads that was sent to a replica, kept until it has shown a result.
    retained: Buffer,
    /// The client's output from here on is held back: nothing of the retained run's result has
    /// come yet, and it may have to be taken back.
    held_from: Option<usize>,
    /// The end of a write's answer, which waits for the write's position.
    held_ready: Option<HeldReady>,
    /// What the key store was last known to have.
    noted: Noted,
    /// What the client gets next, in front of what comes from the server.
    due: Vec<u8>,
    /// Follows a read that went elsewhere instead of waiting.
    audit: Option<Audit>,
    /// Nodes that have failed the run that is to be sent next.
    exclude: NodeSet,
    /// A replica has refused the run that is to be sent next.
    primary_next: bool,
}

/// How a session came to its end.
#[derive(Debug)]
pub enum End {
    /// The client said goodbye, or its connection broke.
    Left,
    /// It was told why, and closed.
    Told(Fault),
}

/// A number that nobody else is given.
fn serial() -> u64 {
    static SERIAL: AtomicU64 = AtomicU64::new(1);
    SERIAL.fetch_add(1, Ordering::Relaxed)
}

impl Session {
    /// A session for a client that has just been told of its parameters and that it is ready.
    pub fn new(
        client: Wire,
        services: Arc<Services>,
        group: Arc<Group>,
        cancel: Registration,
        mode: Mode,
        welcome: Welcome,
    ) -> Session {
        let Welcome {
            settings,
            wishes,
            reported,
            floor,
            profiles,
            names,
        } = welcome;
        let mut session = Session {
            client,
            group,
            serial: serial(),
            sequences: serial(),
            cancel,
            mode,
            upstream: None,
            local: LocalTransaction::None,
            pins: Pins::NONE,
            temporaries: None,
            parked: None,
            floor,
            habit: Habit::default(),
            preferences: services.options.preferences.with(&wishes),
            profiles,
            settings: Tracked::new(settings),
            wishes: Tracked::new(wishes),
            statements: ClientStatements::default(),
            names,
            welcomed: reported.clone(),
            reported,
            last_route: None,
            spent: None,
            inflow: Inflow::Frames,
            is_silent: false,
            plan: None,
            spare_steps: Vec::new(),
            retained: Buffer::default(),
            held_from: None,
            held_ready: None,
            noted: Noted::default(),
            due: Vec::new(),
            audit: None,
            exclude: NodeSet::EMPTY,
            primary_next: false,
            services,
        };
        session.follow_profile();
        session
    }

    /// Answers the client until one of the two has had enough. Borrowed, because a future that is given its session
    /// keeps the room for it twice.
    pub async fn run(&mut self) -> End {
        let end = self.serve().await;
        if let End::Told(fault) = &end {
            self.say(fault);
        }
        // A client that has gone does not read what is left, and nothing is lost by it.
        let _ = timeout(GOODBYE, self.client.close()).await;
        self.leave();
        end
    }

    async fn serve(&mut self) -> End {
        loop {
            match self.next_event().await {
                Event::Request(plan) => {
                    if let Err(end) = self.request(plan).await {
                        return end;
                    }
                }
                Event::ServerFailed(failure) => {
                    if let Err(end) = self.server_failed(failure) {
                        return end;
                    }
                }
                Event::TellStore => Box::pin(self.tell_store()).await,
                Event::Gone => return End::Left,
                Event::Violation(fault) => return End::Told(fault.into_fatal()),
                Event::Idle => return End::Told(idle_too_long()),
                Event::Drain => return End::Told(shutting_down()),
            }
        }
    }

    /// Answers a run of messages, or sends it to a server that will.
    async fn request(&mut self, mut plan: Plan) -> Result<(), End> {
        self.meet_demands(&mut plan).await;
        for warning in &plan.warnings {
            self.say(warning);
        }
        if let Some(mut plan) = self.answer_locally(plan)? {
            if self.may_read_elsewhere(&plan) {
                self.park();
            }
            if self.upstream.is_none() {
                // Boxed, because an idle session would keep the room for it.
                if let Err(fault) = Box::pin(self.attach(&plan)).await {
                    self.refuse(&plan, &fault);
                    return Ok(());
                }
            } else if self.keeps_server() {
                self.note_kept_server(&plan);
            }
            if plan.uses_prepared() && self.may_predate_catalogue() {
                self.set_apart(&mut plan);
                plan.asks_first = true;
            }
            if plan.asks_first {
                match Box::pin(self.keep_shapes(&plan)).await {
                    Ok(()) => {}
                    Err(Misfit::Outdated(fault)) => return self.refuse_everywhere(&plan, fault),
                    Err(Misfit::Refused(fault)) => {
                        self.refuse(&plan, &fault);
                        return Ok(());
                    }
                }
            }
            self.dispatch(plan);
        }
        Ok(())
    }

    /// The transaction status that the client has been told, as far as no server knows better.
    fn local_status(&self) -> TransactionStatus {
        match self.local {
            LocalTransaction::None => TransactionStatus::Idle,
            LocalTransaction::Deferred(_) => TransactionStatus::Transaction,
            LocalTransaction::Failed => TransactionStatus::Failed,
        }
    }
}

/// A client that does not read gets so long to take the last words.
const GOODBYE: Duration = Duration::from_secs(5);

fn idle_too_long() -> Fault {
    Fault::fatal(
        SqlState::IDLE_SESSION_TIMEOUT,
        "terminating connection due to client.idle_timeout",
    )
}

fn shutting_down() -> Fault {
    Fault::fatal(
        SqlState::ADMIN_SHUTDOWN,
        "terminating connection: the proxy is shutting down",
    )
}
