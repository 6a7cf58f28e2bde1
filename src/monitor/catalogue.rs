//! Keeps the catalogues of the databases that sessions use: one task per database, which reads it
//! from the nearest node that has all that was read before, again every `catalogue_interval`, and
//! from the primary at once when a session has changed it. A database that has had no session for
//! some intervals is left alone, and forgotten, until it has one again.
//!
//! Most readings end with a question that costs little: whether anything has changed at all.

mod load;
mod pause;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::connect;
use super::feed::Feed;
use crate::config::{MonitorConfig, NodeConfig};
use crate::routing::{Lsn, NodeIndex, Role, Timeline, Topology};
use crate::sql::{Catalogue, Lists, Scope};

pub use load::{LoadError, Loaded, load};
use load::{Mark, Reading, load_unless};
use pause::Pause;

/// All catalogues; a cheap handle, like the feed. Reading ends when the last handle has gone.
#[derive(Clone)]
pub struct Catalogues {
    shared: Arc<Shared>,
}

struct Shared {
    feed: Feed,
    nodes: Arc<[NodeConfig]>,
    settings: MonitorConfig,
    lists: Arc<Lists>,
    shelves: Mutex<HashMap<Box<str>, Arc<Shelf>>>,
    tasks: Mutex<JoinSet<()>>,
}

/// One database's catalogue and those who wait for it.
struct Shelf {
    database: Box<str>,
    scope: Arc<Scope>,
    changed: Notify,
    /// Code was run that may have changed it.
    perhaps_changed: Notify,
    /// It has been tried to read it, whatever came of that.
    looked: watch::Sender<bool>,
    users: watch::Sender<Users>,
}

/// Who uses a database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Users {
    sessions: usize,
    /// Sessions that there have been since the keeper last asked.
    lately: usize,
}

/// What one session knows of the names in its database.
pub struct Names {
    shelf: Arc<Shelf>,
    ddl: Ddl,
}

/// What the session has run, perhaps in a transaction that is still open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Ddl {
    None,
    /// Code that may have run some.
    Perhaps,
    Run,
}

impl Names {
    /// The names that statements are classified with.
    pub fn scope(&self) -> &Scope {
        &self.shelf.scope
    }

    /// The session has changed the catalogue.
    pub fn ddl_ran(&mut self) {
        self.ddl = Ddl::Run;
    }

    /// The session has run code that may have changed the catalogue.
    pub fn code_ran(&mut self) {
        self.ddl = self.ddl.max(Ddl::Perhaps);
    }

    /// The session is in no transaction: what it has changed can be read.
    pub fn transaction_ended(&mut self) {
        match std::mem::replace(&mut self.ddl, Ddl::None) {
            Ddl::None => {}
            Ddl::Perhaps => self.shelf.perhaps_changed.notify_one(),
            Ddl::Run => self.shelf.changed.notify_one(),
        }
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.shelf.users.send_modify(|users| users.sessions -= 1);
    }
}

/// A reading takes so long at the most.
const LOAD_TIMEOUT: Duration = Duration::from_secs(30);
/// The first session of a database waits so long for its catalogue.
const FIRST_LOOK: Duration = Duration::from_secs(5);
/// After a failure the next attempt comes so soon.
const RETRY: Duration = Duration::from_secs(1);
/// A name that is not known is looked for after so long; in vain, twice as long the next time.
const MISS_PATIENCE: Duration = Duration::from_secs(1);
/// So often a database is read that has no session any more.
const MOST_IN_VAIN: u32 = 5;
/// Readings that sessions ask for take this share of the time: one in so many.
const PAUSES_PER_LOAD: u32 = 4;

impl Catalogues {
    /// Reads none yet.
    pub fn new(feed: Feed, nodes: &[NodeConfig], settings: &MonitorConfig, lists: Lists) -> Self {
        let shared = Shared {
            feed,
            nodes: nodes.into(),
            settings: settings.clone(),
            lists: Arc::new(lists),
            shelves: Mutex::default(),
            tasks: Mutex::default(),
        };
        Catalogues {
            shared: Arc::new(shared),
        }
    }

    /// The names of a database that exists. The first time its catalogue is waited for, up to some
    /// seconds; without one, statements are judged by their text alone.
    pub async fn of(&self, database: &str) -> Names {
        let shelf = self.shelf(database);
        shelf.users.send_modify(|users| {
            users.sessions += 1;
            users.lately += 1;
        });
        let names = Names {
            shelf,
            ddl: Ddl::None,
        };
        let mut looked = names.shelf.looked.subscribe();
        // Whether it timed out makes no difference: the scope says what is known.
        let _ = timeout(FIRST_LOOK, looked.wait_for(|looked| *looked)).await;
        names
    }

    fn shelf(&self, database: &str) -> Arc<Shelf> {
        let shared = &*self.shared;
        let mut shelves = shared
            .shelves
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(shelf) = shelves.get(database) {
            return Arc::clone(shelf);
        }
        let is_read = !shared.settings.catalogue_interval.is_zero();
        let shelf = Arc::new(Shelf {
            database: database.into(),
            scope: Arc::new(Scope::new()),
            changed: Notify::new(),
            perhaps_changed: Notify::new(),
            looked: watch::Sender::new(!is_read),
            users: watch::Sender::default(),
        });
        if is_read {
            let keeper = Keeper {
                shelf: Arc::clone(&shelf),
                feed: shared.feed.clone(),
                nodes: Arc::clone(&shared.nodes),
                settings: shared.settings.clone(),
                lists: Arc::clone(&shared.lists),
                last: None,
                hasher: RandomState::new(),
                known: None,
                mark: None,
                in_vain: 0,
            };
            let mut tasks = shared.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            tasks.spawn(keeper.run());
        }
        shelves.insert(database.into(), Arc::clone(&shelf));
        shelf
    }
}

/// The task that reads one database's catalogue.
struct Keeper {
    shelf: Arc<Shelf>,
    feed: Feed,
    nodes: Arc<[NodeConfig]>,
    settings: MonitorConfig,
    lists: Arc<Lists>,
    /// Where the last reading stood.
    last: Option<(Timeline, Lsn)>,
    hasher: RandomState,
    /// A hash of what the known catalogue was made of.
    known: Option<u64>,
    /// The mark of what was last read whole.
    mark: Option<Mark>,
    /// Readings since the database had its last session.
    in_vain: u32,
}

/// Which node may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    /// The nearest that is not behind the last reading.
    Nearest,
    /// A session has changed the catalogue on the primary.
    Primary,
    /// The same, perhaps.
    PrimaryPerhaps,
}

impl Keeper {
    async fn run(mut self) {
        let interval = self.settings.catalogue_interval;
        let mut from = From::Nearest;
        let mut failed = false;
        let mut patience = MISS_PATIENCE;
        let mut pause = Pause::new(interval);
        loop {
            let started = Instant::now();
            let outcome = self.read(from).await;
            self.shelf.looked.send_replace(true);
            let was_failed = std::mem::replace(&mut failed, outcome.is_err());
            match outcome {
                Ok(Change::Changed) => {
                    patience = MISS_PATIENCE;
                    pause.was_worth_it();
                }
                Ok(Change::None) if from == From::PrimaryPerhaps => pause.was_in_vain(),
                Ok(Change::None) => patience = (patience * 2).min(interval),
                Err(error) if !was_failed => {
                    let database = &self.shelf.database;
                    warn!(%database, "the catalogue could not be read: {error}");
                }
                Err(_) => {}
            }
            sleep((started.elapsed() * PAUSES_PER_LOAD).min(interval)).await;
            // What was asked for and has failed is still asked for.
            let asked = match failed {
                true => Some(from),
                false => None,
            };
            let next = self.next(interval, patience, pause.length());
            from = match asked {
                None => next.await,
                Some(asked) => {
                    let sooner = timeout(RETRY, next).await;
                    sooner.map_or(asked, |next| match asked {
                        From::Primary | From::PrimaryPerhaps => From::Primary,
                        From::Nearest => next,
                    })
                }
            };
            self.until_used().await;
        }
    }

    /// Goes on at once unless the database has had no session for long. Then what is known of it is
    /// forgotten, and the next session is waited for: that one waits for a reading.
    async fn until_used(&mut self) {
        let shelf = &self.shelf;
        let mut users = shelf.users.subscribe();
        let is_used = |users: &Users| users.sessions > 0 || users.lately > 0;
        self.in_vain = match is_used(&users.borrow_and_update()) {
            true => 0,
            false => self.in_vain + 1,
        };
        if self.in_vain > MOST_IN_VAIN {
            shelf.looked.send_replace(false);
            shelf.scope.forget();
            self.known = None;
            self.mark = None;
            debug!(database = %shelf.database, "the catalogue is not needed");
            // The sender is the shelf's, and outlives this.
            let _ = users.wait_for(is_used).await;
        }
        shelf.users.send_modify(|users| users.lately = 0);
    }

    /// Waits until the next reading is due. A name that a statement had and the catalogue lacks is
    /// looked for within `patience`; code that may have changed it is not believed again before `pause`.
    async fn next(&self, interval: Duration, patience: Duration, pause: Duration) -> From {
        let perhaps = async {
            // What is told meanwhile is kept.
            sleep(pause).await;
            self.shelf.perhaps_changed.notified().await;
        };
        let missed = async {
            loop {
                sleep(patience).await;
                if self.shelf.scope.take_missed() {
                    return;
                }
            }
        };
        tokio::select! {
            () = self.shelf.changed.notified() => From::Primary,
            () = missed => From::Primary,
            () = perhaps => From::PrimaryPerhaps,
            () = sleep(interval) => From::Nearest,
        }
    }

    async fn read(&mut self, from: From) -> Result<Change, KeeperError> {
        let topology = self.feed.topology().clone();
        let node = match from {
            From::Nearest => nearest(&topology, self.last),
            From::Primary | From::PrimaryPerhaps => topology.primary,
        };
        let node = node.ok_or(KeeperError::NoNode)?;
        let config = self
            .nodes
            .get(usize::from(node.0))
            .ok_or(KeeperError::NoNode)?;
        let settings = MonitorConfig {
            database: self.shelf.database.to_string(),
            ..self.settings.clone()
        };
        let pool = connect::pool(config, &settings)?;
        let started = Instant::now();
        // What surely has changed is not asked whether it has.
        let known = self.mark.as_ref().filter(|_| from != From::Primary);
        let reading = load_unless(&pool, known, LOAD_TIMEOUT).await?;
        let at = |position| topology.timeline.map(|timeline| (timeline, position));
        let Loaded {
            rows,
            position,
            mark,
        } = match reading {
            Reading::Unchanged(position) => {
                self.last = at(position);
                return Ok(Change::None);
            }
            Reading::Changed(loaded) => loaded,
        };
        self.last = at(position);
        let read = Some(self.hasher.hash_one(&rows));
        if read == self.known {
            self.mark = Some(mark);
            // Most readings end here: to make a catalogue takes longer than all else.
            return Ok(Change::None);
        }
        let lists = Arc::clone(&self.lists);
        let catalogue = tokio::task::spawn_blocking(move || Catalogue::new(&rows, &lists)).await?;
        (self.known, self.mark) = (read, Some(mark));
        let (database, node) = (&self.shelf.database, &topology.node(node).name);
        let (names, took) = (catalogue.len(), started.elapsed());
        let is_first = self.shelf.scope.catalogue().is_none();
        if !self.shelf.scope.publish(catalogue) {
            debug!(%database, %node, ?took, "the catalogue has not changed");
            return Ok(Change::None);
        }
        match is_first {
            true => info!(%database, %node, names, ?took, "the catalogue is known"),
            false => debug!(%database, %node, names, ?took, "the catalogue has changed"),
        }
        Ok(Change::Changed)
    }
}

/// What a reading has brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    None,
    Changed,
}

#[derive(Debug, thiserror::Error)]
enum KeeperError {
    #[error("no node is fit")]
    NoNode,
    #[error("{0}")]
    Tls(#[from] crate::net::tls::TlsError),
    #[error("{0}")]
    Load(#[from] LoadError),
    #[error("{0}")]
    Task(#[from] tokio::task::JoinError),
}

/// The nearest node whose catalogue is not older than the last one. After a change of the timeline
/// only the primary's surely is not.
fn nearest(topology: &Topology, last: Option<(Timeline, Lsn)>) -> Option<NodeIndex> {
    let is_fit = |role: Role, lsn: Lsn| match (role, last) {
        (Role::Primary, _) | (_, None) => true,
        (Role::Replica, Some((timeline, at))) => topology.timeline == Some(timeline) && lsn >= at,
    };
    let nodes = topology.nodes.iter().filter(|node| {
        node.observation().is_some_and(|seen| match seen.role {
            Role::Primary => topology.primary == Some(node.index),
            Role::Replica => is_fit(seen.role, seen.lsn),
        })
    });
    nodes
        .min_by_key(|node| node.round_trip.unwrap_or(Duration::MAX))
        .map(|node| node.index)
}
