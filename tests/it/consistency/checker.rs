//! The checker: sessions that write increasing values to registers of their own, read them back,
//! and watch a register of another session.
//!
//! The oracle is the value itself. A read must not show less of the session's own register than
//! was acknowledged or seen before, and not more than was ever tried; and it must not show less
//! of the watched register than was seen before. A write that ended in an error may or may not
//! have been made. A new connection begins without any of this knowledge.
//!
//! One thing PostgreSQL itself does not promise: a commit may show on a replica a moment before
//! it shows on the primary, whose server has written the commit record and has yet to say so. So
//! the primary owes what was seen on a replica only once the writer has been told. (Without any
//! proxy, 940 of 19,200 looks at a replica and then at the primary of a busy machine went back in
//! time; none of them after the writer had been told.)

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use causeway::app::Running;
use causeway::lab::{APP_DATABASE, APP_USER, Lab};
use tokio::sync::{RwLock, RwLockWriteGuard};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, SimpleQueryMessage, Statement};

use super::stage::{NEAR, NEAR_TOO, PRIMARY};
use crate::support::{Fate, PATIENCE, try_connect};

/// How a run is made.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub name: &'static str,
    pub level: &'static str,
    pub sessions: i32,
    /// Each session makes at least so many rounds, and goes on until the script is over.
    pub rounds: u64,
    pub errors: Errors,
}

/// What a session makes of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errors {
    /// There must be none.
    Fail,
    /// Those that tell of a lost server or of a conflict with recovery are counted.
    Count,
}

/// What a session was at when an error came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deed {
    Write,
    Read,
    ReadOnlyTransaction,
}

/// What a run has seen.
#[derive(Debug, Default)]
pub struct Tally {
    /// Writes that were acknowledged and then read back.
    pub pairs: u64,
    /// By the name of the node that answered, outside of read-write transactions.
    pub reads: BTreeMap<String, u64>,
    /// By what was tried, and SQLSTATE.
    pub errors: BTreeMap<(Deed, String), u64>,
    pub violations: Vec<String>,
}

impl Tally {
    /// How many of all reads this node has answered, from 0 to 1.
    pub fn share_of(&self, node: &str) -> f64 {
        let all: u64 = self.reads.values().sum();
        let there = self.reads.get(node).copied().unwrap_or(0);
        there as f64 / (all as f64).max(1.0)
    }

    pub fn assert_consistent(&self, plan: &Plan) {
        let some: Vec<_> = self.violations.iter().take(10).collect();
        let count = self.violations.len();
        assert!(count == 0, "{}: {count} violations: {some:#?}", plan.name);
    }

    fn add(&mut self, other: Tally) {
        self.pairs += other.pairs;
        for (node, count) in other.reads {
            *self.reads.entry(node).or_default() += count;
        }
        for (error, count) in other.errors {
            *self.errors.entry(error).or_default() += count;
        }
        self.violations.extend(other.violations);
    }
}

/// How far a run is, for the script that goes with it.
#[derive(Debug)]
pub struct Progress {
    pairs: AtomicU64,
    over: AtomicBool,
    /// By register: the greatest value whose writer has been told.
    acknowledged: Vec<AtomicI64>,
    /// Held for reading by every writer.
    writes: RwLock<()>,
}

impl Progress {
    fn new(plan: &Plan) -> Progress {
        Progress {
            pairs: AtomicU64::new(0),
            over: AtomicBool::new(false),
            acknowledged: (0..plan.sessions).map(|_| AtomicI64::new(0)).collect(),
            writes: RwLock::new(()),
        }
    }

    /// Returns when no write is under way; none begins until the guard is dropped. Meanwhile the
    /// sessions read.
    pub async fn hold_writes(&self) -> RwLockWriteGuard<'_, ()> {
        self.writes.write().await
    }

    fn acknowledged(&self, register: i32) -> &AtomicI64 {
        &self.acknowledged[register as usize]
    }

    pub fn pairs(&self) -> u64 {
        self.pairs.load(Ordering::Relaxed)
    }
}

/// Makes the registers anew and waits until the replicas have them.
pub async fn make_registers(lab: &Lab) {
    let client = lab.node(PRIMARY).connect(APP_USER, APP_DATABASE).await;
    let make = "DROP TABLE IF EXISTS register;
        CREATE TABLE register (id int PRIMARY KEY, value bigint NOT NULL) WITH (fillfactor = 10);
        INSERT INTO register SELECT id, 0 FROM generate_series(0, 99) AS id;";
    client.unwrap().batch_execute(make).await.unwrap();
    for replica in [NEAR, NEAR_TOO] {
        lab.wait_caught_up(replica).await.unwrap();
    }
}

/// Runs the checker while `script` does whatever it does to the cluster, and prints what came of
/// it. The registers must be new.
pub async fn check<S: Future<Output = ()>>(
    plan: &Plan,
    causeway: &Running,
    script: impl FnOnce(Arc<Progress>) -> S,
) -> Tally {
    let begun = Instant::now();
    let progress = Arc::new(Progress::new(plan));
    let mut sessions = JoinSet::new();
    for place in 0..plan.sessions {
        let port = causeway.listen_addr().port();
        let session = Session::open(*plan, place, port, Arc::clone(&progress)).await;
        sessions.spawn(session.work());
    }
    script(Arc::clone(&progress)).await;
    progress.over.store(true, Ordering::Relaxed);
    let mut tally = Tally::default();
    for session in sessions.join_all().await {
        tally.add(session);
    }
    println!(
        "{}: {} write-then-read pairs by {} sessions at {} in {:.1?}: {} violations; \
         reads by {:?}; errors {:?}",
        plan.name,
        tally.pairs,
        plan.sessions,
        plan.level,
        begun.elapsed(),
        tally.violations.len(),
        tally.reads,
        tally.errors,
    );
    tally
}

/// No fault at all.
pub async fn quiet(_: Arc<Progress>) {}

/// How a statement is sent.
#[derive(Clone, Copy, Debug)]
enum Way {
    Simple,
    Unnamed,
    Named,
    /// A write: in a transaction that reads its own write. A read: in a READ ONLY transaction.
    Transaction,
}

const WAYS: [Way; 4] = [Way::Simple, Way::Unnamed, Way::Named, Way::Transaction];

const WRITE: &str = "UPDATE register SET value = greatest(value, $2) WHERE id = $1";
const WRITE_TYPES: [Type; 2] = [Type::INT4, Type::INT8];
/// The node that runs it says which it is, and what: a query that names the setting is the primary's.
const READ: &str = "SELECT current_setting('cluster_name'), \
    current_setting('in_hot' || '_standby') = 'on', id, value FROM register WHERE id IN ($1, $2)";
const READ_TYPES: [Type; 2] = [Type::INT4, Type::INT4];

struct Session {
    plan: Plan,
    port: u16,
    /// The register that only this session writes.
    own: i32,
    /// The register of another session.
    watched: i32,
    line: Line,
    /// The greatest value that this session has tried to write.
    tried: i64,
    known: Known,
    deed: Deed,
    tally: Tally,
    progress: Arc<Progress>,
}

/// A connection and what was prepared on it.
struct Line {
    client: Client,
    fate: Fate,
    write: Statement,
    read: Statement,
}

/// What this connection has been told: nothing less may be shown to it.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    own: i64,
    watched: i64,
    watched_on_primary: i64,
}

impl Known {
    fn see(&mut self, sight: &Sight) {
        self.own = self.own.max(sight.own);
        self.watched = self.watched.max(sight.watched);
        if !sight.on_replica {
            self.watched_on_primary = self.watched_on_primary.max(sight.watched);
        }
    }
}

/// What a read has shown.
struct Sight {
    node: String,
    on_replica: bool,
    own: i64,
    watched: i64,
}

impl Session {
    async fn open(plan: Plan, place: i32, port: u16, progress: Arc<Progress>) -> Session {
        Session {
            line: Line::open(port, plan.level).await.unwrap(),
            own: place,
            watched: (place + 1) % plan.sessions,
            tried: 0,
            known: Known::default(),
            deed: Deed::Write,
            tally: Tally::default(),
            plan,
            port,
            progress,
        }
    }

    async fn work(mut self) -> Tally {
        let mut round = 0;
        while round < self.plan.rounds || !self.progress.over.load(Ordering::Relaxed) {
            if let Err(error) = self.round(round).await {
                self.recover(error).await;
            }
            round += 1;
        }
        self.tally
    }

    /// One write, a read, and sometimes one more; all combinations of ways come in turn.
    async fn round(&mut self, round: u64) -> Result<(), Error> {
        let way = |divisor: u64| WAYS[(round / divisor % 4) as usize];
        let (first, second, third) = (way(1), way(4), way(16));
        let what = format!("round {round}, {first:?} write, {second:?} read");
        let progress = Arc::clone(&self.progress);
        let Ok(writing) = progress.writes.try_read() else {
            return self.read(second, &what).await;
        };
        self.write(first, &what).await?;
        drop(writing);
        self.read(second, &what).await?;
        self.tally.pairs += 1;
        progress.pairs.fetch_add(1, Ordering::Relaxed);
        if (round / 64).is_multiple_of(2) {
            let what = format!("{what}, {third:?} read");
            self.read(third, &what).await?;
        }
        Ok(())
    }

    async fn write(&mut self, way: Way, what: &str) -> Result<(), Error> {
        self.deed = Deed::Write;
        self.tried += 1;
        let (id, value, line) = (self.own, self.tried, &self.line);
        let changed = match way {
            Way::Simple => {
                let text = WRITE
                    .replace("$1", &id.to_string())
                    .replace("$2", &value.to_string());
                rows_changed(&in_time(line.client.simple_query(&text)).await?)
            }
            Way::Unnamed => line.write_unnamed(id, value).await?,
            Way::Named => in_time(line.client.execute(&line.write, &[&id, &value])).await?,
            Way::Transaction => {
                line.command("BEGIN").await?;
                let changed = line.write_unnamed(id, value).await?;
                let sight = line.read_unnamed(self.own, self.watched).await?;
                line.command("COMMIT").await?;
                self.judge_own(&sight, value, what);
                changed
            }
        };
        assert_eq!(changed, 1, "{}: {what}", self.plan.name);
        self.known.own = value;
        let acknowledged = self.progress.acknowledged(id);
        acknowledged.fetch_max(value, Ordering::SeqCst);
        Ok(())
    }

    async fn read(&mut self, way: Way, what: &str) -> Result<(), Error> {
        self.deed = match way {
            Way::Transaction => Deed::ReadOnlyTransaction,
            Way::Simple | Way::Unnamed | Way::Named => Deed::Read,
        };
        let (own, watched, line) = (self.own, self.watched, &self.line);
        let acknowledged = self.progress.acknowledged(watched).load(Ordering::SeqCst);
        let sight = match way {
            Way::Simple => {
                let text = READ
                    .replace("$1", &own.to_string())
                    .replace("$2", &watched.to_string());
                let answer = in_time(line.client.simple_query(&text)).await?;
                sight_of_text(&answer, own)
            }
            Way::Unnamed => line.read_unnamed(own, watched).await?,
            Way::Named => {
                let rows = in_time(line.client.query(&line.read, &[&own, &watched])).await?;
                sight_of(&rows, own)
            }
            Way::Transaction => {
                line.command("BEGIN READ ONLY").await?;
                let sight = line.read_unnamed(own, watched).await?;
                line.command("COMMIT").await?;
                sight
            }
        };
        self.judge_own(&sight, self.known.own, what);
        let at_least = match sight.on_replica {
            true => self.known.watched,
            false => {
                let told = self.known.watched.min(acknowledged);
                told.max(self.known.watched_on_primary)
            }
        };
        if sight.watched < at_least {
            let found = format!("watched {} after {at_least}", sight.watched);
            self.violation(&sight, what, &found);
        }
        self.known.see(&sight);
        *self.tally.reads.entry(sight.node).or_default() += 1;
        Ok(())
    }

    fn judge_own(&mut self, sight: &Sight, at_least: i64, what: &str) {
        if sight.own < at_least || sight.own > self.tried {
            let (own, tried) = (sight.own, self.tried);
            let found = format!("own {own}, known are {at_least} to {tried}");
            self.violation(sight, what, &found);
        }
    }

    fn violation(&mut self, sight: &Sight, what: &str, found: &str) {
        let text = format!("session {}, {what}, on {}: {found}", self.own, sight.node);
        self.tally.violations.push(text);
    }

    /// After an error the session goes on; where the connection is lost it begins anew.
    async fn recover(&mut self, error: Error) {
        let code = match error.is_closed() {
            true => self.line.last_words(&self.plan).await,
            false => judged(&error, &self.plan),
        };
        *self.tally.errors.entry((self.deed, code)).or_default() += 1;
        if !self.line.client.is_closed() && self.line.command("ROLLBACK").await.is_ok() {
            return;
        }
        self.known = Known::default();
        let begun = Instant::now();
        self.line = loop {
            match Line::open(self.port, self.plan.level).await {
                Ok(line) => break line,
                Err(error) => judged(&error, &self.plan),
            };
            let name = self.plan.name;
            assert!(begun.elapsed() < PATIENCE, "{name}: no way back in");
        };
    }
}

/// The error's code, if it is one of those that the script may cause.
fn judged(error: &Error, plan: &Plan) -> String {
    let expected = error.code().filter(|code| match plan.errors {
        Errors::Fail => false,
        Errors::Count => {
            let losses = [
                SqlState::ADMIN_SHUTDOWN,
                SqlState::T_R_SERIALIZATION_FAILURE,
            ];
            code.code().starts_with("08") || losses.contains(code)
        }
    });
    let code = expected.unwrap_or_else(|| panic!("{}: unexpected: {error:?}", plan.name));
    code.code().to_owned()
}

impl Line {
    async fn open(port: u16, level: &str) -> Result<Line, Error> {
        let (client, fate) = try_connect(port).await?;
        let set = format!("SET causeway.consistency = '{level}'");
        in_time(client.batch_execute(&set)).await?;
        let write = in_time(client.prepare_typed(WRITE, &WRITE_TYPES)).await?;
        let read = in_time(client.prepare_typed(READ, &READ_TYPES)).await?;
        Ok(Line {
            client,
            fate,
            write,
            read,
        })
    }

    /// A connection ends with a reason, or an error was lost.
    async fn last_words(&mut self, plan: &Plan) -> String {
        let fate = in_time(async { Ok((&mut self.fate).await) }).await;
        match fate.unwrap().unwrap() {
            Err(error) => judged(&error, plan),
            Ok(()) => panic!("{}: a connection was closed without a word", plan.name),
        }
    }

    async fn command(&self, text: &str) -> Result<(), Error> {
        in_time(self.client.batch_execute(text)).await
    }

    async fn write_unnamed(&self, id: i32, value: i64) -> Result<u64, Error> {
        let [int, big] = WRITE_TYPES;
        in_time(
            self.client
                .execute_typed(WRITE, &[(&id, int), (&value, big)]),
        )
        .await
    }

    async fn read_unnamed(&self, own: i32, watched: i32) -> Result<Sight, Error> {
        let [first, second] = READ_TYPES;
        let values: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
            [(&own, first), (&watched, second)];
        let rows = in_time(self.client.query_typed(READ, &values)).await?;
        Ok(sight_of(&rows, own))
    }
}

/// A request that is neither answered nor refused is a failure of the proxy.
async fn in_time<T>(request: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    timeout(PATIENCE, request).await.expect("a request hangs")
}

/// A row of a look: node, whether it is a replica, register, value.
type Found = (String, bool, i32, i64);

fn sight_of(rows: &[tokio_postgres::Row], own: i32) -> Sight {
    let row = |row: &tokio_postgres::Row| (row.get(0), row.get(1), row.get(2), row.get(3));
    sight(rows.iter().map(row), own)
}

fn sight_of_text(answer: &[SimpleQueryMessage], own: i32) -> Sight {
    let rows = answer.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            let text = |place| row.get(place).unwrap().to_owned();
            let (id, value) = (text(2).parse().unwrap(), text(3).parse().unwrap());
            Some((text(0), text(1) == "t", id, value))
        }
        _ => None,
    });
    sight(rows, own)
}

fn sight(rows: impl Iterator<Item = Found>, own: i32) -> Sight {
    let rows: Vec<_> = rows.collect();
    let [(node, on_replica, ..), _] = &*rows else {
        panic!("not one row for each register: {rows:?}");
    };
    let value = |mine: bool| {
        let row = rows.iter().find(|(_, _, id, _)| (*id == own) == mine);
        row.unwrap().3
    };
    Sight {
        node: node.clone(),
        on_replica: *on_replica,
        own: value(true),
        watched: value(false),
    }
}

fn rows_changed(answer: &[SimpleQueryMessage]) -> u64 {
    let completions = answer.iter().filter_map(|message| match message {
        SimpleQueryMessage::CommandComplete(rows) => Some(rows),
        _ => None,
    });
    completions.sum()
}
