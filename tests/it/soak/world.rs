//! What the users of a run share: a cluster in three regions, two Causeways, and the truth.

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use causeway::app::{Causeway, Running, StartError};
use causeway::lab::{APP_DATABASE, APP_USER, Lab, LabNode};
use causeway::routing::Guarantees;
use tokio::time::{Instant, interval, sleep};
use tokio_postgres::Client;

use super::line::{Letter, in_time};
use super::tally::Tally;
use crate::support;

pub const PRIMARY: &str = "us-east";
/// Two replicas beside the first Causeway, one beside the second.
pub const REPLICAS: [&str; 3] = ["eu-west", "eu-west-2", "ap-south"];
pub const REGIONS: [&str; 2] = ["eu-west", "ap-south"];

/// Nobody can do so many writes.
const ANY: u64 = u64::MAX;

/// How a run is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plan {
    pub guarantees: Guarantees,
    pub level: Level,
    pub ends: Ends,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// Each user at the level whose promise is checked.
    #[default]
    AsPromised,
    /// All at `eventual` without a bound: the checks must fail.
    Eventual,
}

/// What a violation means for a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ends {
    /// There must be no violation.
    #[default]
    AfterTheScenes,
    AtTheFirstViolation,
    /// Violations are wanted, as many as come.
    Never,
}

/// Everything that a run's users share.
pub struct World {
    pub lab: Lab,
    pub plan: Plan,
    pub proxies: [Proxy; 2],
    pub writes: Writes,
    pub tally: Tally,
    /// One write in so many ends its own server behind the commit; zero none.
    pub doom: AtomicU64,
    pub over: AtomicBool,
    pub truth: Mutex<Truth>,
    /// By register: the greatest value whose writer has been told.
    told: Vec<AtomicI64>,
    pub letters: Mutex<VecDeque<Letter>>,
    primary: RwLock<&'static str>,
}

/// A Causeway that can be started anew.
pub struct Proxy {
    region: &'static str,
    address: SocketAddr,
    running: tokio::sync::Mutex<Option<Running>>,
    /// Odd while it is being replaced.
    epoch: AtomicU64,
}

/// What was committed on the primary, and when that was known.
#[derive(Default)]
pub struct Truth {
    beats: VecDeque<(Instant, i64)>,
    /// Odd while the primary moves: then nobody knows what will be left.
    pub age: u64,
}

/// How many writes may begin, and how many are under way.
pub struct Writes {
    allowed: AtomicU64,
    under_way: AtomicU64,
}

/// A write that is under way.
pub struct Writing<'a>(&'a Writes);

impl World {
    pub async fn new(plan: Plan, registers: i32) -> Arc<World> {
        let ms = Duration::from_millis;
        let lab = Lab::builder()
            .quick()
            .primary(PRIMARY)
            .replica("eu-west")
            .replica("eu-west")
            .replica("ap-south")
            .round_trip(PRIMARY, "eu-west", ms(3))
            .round_trip(PRIMARY, "ap-south", ms(5))
            .round_trip("eu-west", "ap-south", ms(6))
            .setting("autovacuum = off")
            .setting("hot_standby_feedback = off")
            .build()
            .await
            .unwrap();
        let client = lab.node(PRIMARY).connect(APP_USER, APP_DATABASE).await;
        let client = client.unwrap();
        client.batch_execute(TABLES).await.unwrap();
        let fill = format!(
            "INSERT INTO register SELECT id, 0 FROM generate_series(0, {registers} - 1) id"
        );
        client.batch_execute(&fill).await.unwrap();
        for replica in REPLICAS {
            lab.wait_caught_up(replica).await.unwrap();
        }
        let proxies = [
            Proxy::start(&lab, REGIONS[0], plan.guarantees).await,
            Proxy::start(&lab, REGIONS[1], plan.guarantees).await,
        ];
        Arc::new(World {
            lab,
            plan,
            proxies,
            writes: Writes {
                allowed: AtomicU64::new(ANY),
                under_way: AtomicU64::new(0),
            },
            tally: Tally::default(),
            doom: AtomicU64::new(0),
            over: AtomicBool::new(false),
            truth: Mutex::default(),
            told: (0..registers).map(|_| AtomicI64::new(0)).collect(),
            letters: Mutex::default(),
            primary: RwLock::new(PRIMARY),
        })
    }

    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    pub fn primary(&self) -> &LabNode {
        let name = *self.primary.read().unwrap();
        self.lab.node(name)
    }

    pub fn set_primary(&self, name: &'static str) {
        *self.primary.write().unwrap() = name;
    }

    pub fn registers(&self) -> i32 {
        self.told.len() as i32
    }

    /// The greatest value of a register whose writer has been told: what the primary shows.
    pub fn told(&self, register: i32) -> i64 {
        self.told[register as usize].load(Ordering::SeqCst)
    }

    pub fn tell(&self, register: i32, value: i64) {
        self.told[register as usize].fetch_max(value, Ordering::SeqCst);
    }

    /// The sum of all that writers have been told of.
    pub fn told_in_all(&self) -> i64 {
        (0..self.registers())
            .map(|register| self.told(register))
            .sum()
    }

    /// Waits until so many checks more have been made, some of each kind; a run that looks for a
    /// violation has gone far enough when there is one.
    pub async fn go_further(&self, checks: u64) {
        const PATIENCE: Duration = Duration::from_secs(600);
        let (before, begun) = (self.tally.checks(), Instant::now());
        let mut glance = interval(Duration::from_millis(5));
        loop {
            glance.tick().await;
            let now = self.tally.checks();
            let progress: BTreeMap<_, _> = now
                .iter()
                .map(|(promise, count)| (*promise, count - before.get(promise).unwrap_or(&0)))
                .collect();
            let all: u64 = progress.values().sum();
            let some_of_each = progress
                .iter()
                .all(|(promise, count)| !promise.is_watched() || *count * 100 >= checks);
            let found = self.plan.ends == Ends::AtTheFirstViolation && self.tally.has_violations();
            if found || all >= checks && some_of_each {
                return;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "the users do not go on: {progress:?}"
            );
        }
    }
}

/// A row whose `doomed` is set ends the server that commits it: that notices when the commit is over
/// and answered, right before it would look at the capture.
const TABLES: &str = "
    CREATE TABLE register (id int PRIMARY KEY, value bigint NOT NULL, doomed bool NOT NULL DEFAULT false)
        WITH (fillfactor = 10);
    CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
        RETURN CASE WHEN pg_terminate_backend(pg_backend_pid()) THEN NULL END;
    END$$;
    CREATE CONSTRAINT TRIGGER die AFTER UPDATE ON register DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW WHEN (NEW.doomed) EXECUTE FUNCTION die();
    CREATE TABLE heartbeat (beat bigint NOT NULL, at timestamptz NOT NULL) WITH (fillfactor = 10);
    INSERT INTO heartbeat VALUES (0, clock_timestamp());
    CREATE TABLE pad (filler text)";

impl Proxy {
    async fn start(lab: &Lab, region: &'static str, guarantees: Guarantees) -> Proxy {
        let config = support::config(lab, region);
        let running = Causeway::start_with(config, guarantees).await.unwrap();
        Proxy {
            region,
            address: running.listen_addr(),
            running: tokio::sync::Mutex::new(Some(running)),
            epoch: AtomicU64::new(0),
        }
    }

    /// Ends it as SIGTERM does, and starts another in its place.
    pub async fn replace(&self, lab: &Lab, guarantees: Guarantees) {
        let mut running = self.running.lock().await;
        self.epoch.fetch_add(1, Ordering::SeqCst);
        if let Some(old) = running.take() {
            old.shutdown().await;
        }
        let mut config = support::config(lab, self.region);
        config.listen = self.address;
        let begun = Instant::now();
        let started = loop {
            match Causeway::start_with(config.clone(), guarantees).await {
                Ok(started) => break started,
                // Somebody else's connection may have been given its port meanwhile.
                Err(StartError::Listen { .. }) if begun.elapsed() < support::PATIENCE => {
                    sleep(Duration::from_millis(50)).await;
                }
                Err(error) => panic!("{error}"),
            }
        };
        *running = Some(started);
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }

    pub fn port(&self) -> u16 {
        assert_eq!(self.address.ip(), Ipv4Addr::LOCALHOST);
        self.address.port()
    }

    /// Which of the Causeways in this place it is; none while it is being replaced.
    pub fn epoch(&self) -> Option<u64> {
        let epoch = self.epoch.load(Ordering::SeqCst);
        epoch.is_multiple_of(2).then_some(epoch)
    }
}

impl Truth {
    /// What everybody must see who has asked at `moment` for nothing older than `bound`.
    pub fn owed(&self, moment: Instant, bound: Duration) -> i64 {
        let old = self
            .beats
            .partition_point(|(committed, _)| *committed + bound <= moment);
        old.checked_sub(1).map_or(0, |place| self.beats[place].1)
    }

    /// A promotion has left nothing behind `last`.
    pub fn truncate(&mut self, last: i64) {
        self.beats.retain(|(_, beat)| *beat <= last);
    }

    pub fn newest(&self) -> i64 {
        self.beats.back().map_or(0, |(_, beat)| *beat)
    }
}

impl Writes {
    /// None while no write may begin.
    pub fn begin(&self) -> Option<Writing<'_>> {
        self.under_way.fetch_add(1, Ordering::SeqCst);
        let writing = Writing(self);
        let less = |allowed: u64| match allowed {
            ANY => Some(ANY),
            allowed => allowed.checked_sub(1),
        };
        let allowed = self
            .allowed
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
        allowed.is_ok().then_some(writing)
    }

    pub fn allow(&self, count: u64) {
        self.allowed.store(count, Ordering::SeqCst);
    }

    pub fn allow_all(&self) {
        self.allow(ANY);
    }

    pub fn are_free(&self) -> bool {
        self.allowed.load(Ordering::SeqCst) == ANY
    }

    /// None begins from now on; returns when none is under way any more.
    pub async fn cease(&self) {
        self.allow(0);
        let begun = Instant::now();
        let mut glance = interval(Duration::from_millis(1));
        while self.under_way.load(Ordering::SeqCst) > 0 {
            glance.tick().await;
            assert!(begun.elapsed() < support::PATIENCE, "a write does not end");
        }
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Raises the heartbeat on the primary itself, with the primary's time, and notes when that had been
/// committed, until the run is over.
pub async fn beat(world: Arc<World>) {
    const PULSE: Duration = Duration::from_millis(5);
    const BEAT: &str =
        "UPDATE heartbeat SET beat = beat + 1, at = clock_timestamp() RETURNING beat";
    let mut line: Option<(String, Client)> = None;
    let mut pulse = interval(PULSE);
    pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !world.is_over() {
        pulse.tick().await;
        let age = world.truth.lock().unwrap().age;
        if !world.writes.are_free() || !age.is_multiple_of(2) {
            continue;
        }
        let Some(writing) = world.writes.begin() else {
            continue;
        };
        let primary = world.primary();
        let client = match line.take() {
            Some((node, client)) if node == primary.name() => client,
            _ => match primary.connect(APP_USER, APP_DATABASE).await {
                Ok(client) => client,
                Err(_) => continue,
            },
        };
        // A server that was lost is replaced; whether it had committed nobody owes.
        let Ok(row) = in_time(client.query_one(BEAT, &[])).await else {
            continue;
        };
        drop(writing);
        let beat: i64 = row.get(0);
        let mut truth = world.truth.lock().unwrap();
        if truth.age == age {
            truth.beats.push_back((Instant::now(), beat));
            while truth.beats.len() > 20_000 {
                truth.beats.pop_front();
            }
        }
        line = Some((primary.name().to_owned(), client));
    }
}
