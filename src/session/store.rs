//! The key store: a Redis or Valkey server in which several Causeways keep the floors of session keys.
//!
//! An entry holds a position for each timeline, which only rises. It is trusted for what it says, and
//! never for what it lacks: a missing entry means that nothing is known, and whoever connects trusts
//! entries only together with a position of the primary sampled after that, so that a store that was
//! restarted, emptied or set back hides nothing. What could not be written there is a *debt*, and is
//! paid into one entry for all keys when the store is back.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use metrics::{Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge};
use metrics::{describe_histogram, gauge, histogram};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo, RedisError, TlsCertificates};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::config::KeyStoreConfig;
use crate::monitor::Feed;
use crate::routing::{Floor, Lsn, Pending, Position, SystemId, Timeline};

/// The store as sessions use it.
pub struct KeyStore {
    client: Client,
    prefix: String,
    timeout: Duration,
    ttl: Duration,
    /// None while it is away.
    live: ArcSwapOption<Live>,
    /// There is something to look at: it was lost, or something is owed.
    wake: Notify,
    /// What clients have been told and the store has not.
    debts: Mutex<Floor>,
    merge: redis::Script,
    counts: Counts,
}

/// One connection, from its being made to the first thing that goes wrong with it.
struct Live {
    connection: MultiplexedConnection,
    /// What was answered anywhere before this moment may be missing in the store.
    since: Instant,
}

/// What the store knows of a key.
#[derive(Clone, Debug)]
pub struct Entry {
    /// None has an entry that can be read: nothing is known.
    pub known: Option<Vec<(Timeline, Lsn)>>,
    /// Of writes that could not be written to their own keys.
    pub all: Vec<(Timeline, Lsn)>,
    /// The store may not have what was answered before.
    pub since: Instant,
}

/// The store did not answer, or not in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key store is away")]
pub struct Away;

/// Why there is no store to begin with.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("key_store.url: {0}")]
    Url(RedisError),
    #[error("could not read \"{path}\": {error}")]
    Root {
        path: std::path::PathBuf,
        error: std::io::Error,
    },
}

/// Timelines are fields of 8, positions values of 16 hexadecimal digits: they compare as text.
///
/// The larger position of a timeline wins. The pairs behind it are of older timelines, have been
/// carried over, and go unless somebody has raised them since.
const MERGE: &str = "
    local known = redis.call('HGET', KEYS[1], ARGV[1])
    if not known or known < ARGV[2] then
        redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
    end
    for place = 4, #ARGV, 2 do
        if redis.call('HGET', KEYS[1], ARGV[place]) == ARGV[place + 1] then
            redis.call('HDEL', KEYS[1], ARGV[place])
        end
    end
    if ARGV[3] ~= '0' then
        redis.call('PEXPIRE', KEYS[1], ARGV[3])
    end
    return 1";

/// Between two looks whether the store still answers.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Between two attempts to reach it; doubled with each, up to the second one.
const PAUSE: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];

impl KeyStore {
    /// Connects when [`keep`](KeyStore::keep) runs. Call after a recorder has been installed.
    pub fn new(config: &KeyStoreConfig) -> Result<KeyStore, StoreError> {
        let info = config.url.as_str().into_connection_info();
        let info = info.map_err(StoreError::Url)?;
        let client = match &config.root_cert {
            None => Client::open(info),
            Some(path) => {
                let root = std::fs::read(path).map_err(|error| StoreError::Root {
                    path: path.clone(),
                    error,
                })?;
                let certificates = TlsCertificates {
                    client_tls: None,
                    root_cert: Some(root),
                };
                Client::build_with_tls(info, certificates)
            }
        };
        Ok(KeyStore {
            client: client.map_err(StoreError::Url)?,
            prefix: config.prefix.clone(),
            timeout: config.timeout,
            ttl: config.ttl,
            live: ArcSwapOption::empty(),
            wake: Notify::new(),
            debts: Mutex::default(),
            merge: redis::Script::new(MERGE),
            counts: Counts::new(),
        })
    }

    /// What the store knows of `key`; the question is asked after this call.
    pub async fn look_up(&self, system: SystemId, key: &str) -> Result<Entry, Away> {
        let live = self.live.load_full().ok_or(Away)?;
        let mut connection = live.connection.clone();
        let mut pipe = redis::pipe();
        pipe.hgetall(self.entry(system, key))
            .hgetall(self.all(system));
        let began = Instant::now();
        let asked = pipe.query_async::<(Fields, Fields)>(&mut connection);
        let (own, all) = self.within(&live, asked).await?;
        self.counts.look_up.record(began.elapsed().as_secs_f64());
        let Some(all) = positions(&all) else {
            // It is made at each connection: somebody has emptied the store.
            self.lose(&live, "its entries have gone");
            return Err(Away);
        };
        Ok(Entry {
            known: positions(&own),
            all,
            since: live.since,
        })
    }

    /// Raises the entry of `key` to `position`. `stale` are older timelines' positions that it was seen
    /// to have, and that lie below `position` or are lost.
    pub async fn raise(
        &self,
        key: &str,
        position: Position,
        stale: &[(Timeline, Lsn)],
    ) -> Result<(), Away> {
        let live = self.live.load_full().ok_or(Away)?;
        let entry = self.entry(position.system, key);
        let began = Instant::now();
        self.merge_into(&live, entry, position, stale, self.ttl)
            .await?;
        self.counts.raise.record(began.elapsed().as_secs_f64());
        Ok(())
    }

    /// A client is about to be told something that the store could not be told.
    pub fn owe(&self, floor: &Floor) {
        let mut debts = self.debts.lock().unwrap_or_else(PoisonError::into_inner);
        debts.merge(&floor.sight());
        drop(debts);
        self.counts.unwritten.increment(1);
        self.wake.notify_one();
    }

    /// Keeps a connection, and pays debts, for as long as the guard lives.
    pub fn keep(self: &Arc<KeyStore>, feed: Feed) -> Keeping {
        let store = Arc::clone(self);
        Keeping(tokio::spawn(async move { store.run(feed).await }))
    }

    async fn run(&self, feed: Feed) {
        let mut pause = PAUSE[0];
        let mut is_known_to_be_away = false;
        loop {
            match self.connect(&feed).await {
                Ok(live) => {
                    tracing::info!("the key store is there");
                    self.counts.up.set(1.0);
                    (pause, is_known_to_be_away) = (PAUSE[0], false);
                    self.live.store(Some(Arc::clone(&live)));
                    self.attend(&live, &feed).await;
                    self.counts.up.set(0.0);
                }
                Err(reason) => {
                    if !std::mem::replace(&mut is_known_to_be_away, true) {
                        tracing::warn!(
                            "the key store cannot be reached: {reason}. Reads under session keys \
                             go to the primary"
                        );
                    }
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSE[1]);
                }
            }
        }
    }

    /// A connection that has answered. The moment is taken when everything else is done.
    async fn connect(&self, feed: &Feed) -> Result<Arc<Live>, String> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout.max(LEAST_TO_CONNECT)))
            .set_response_timeout(Some(self.timeout));
        let connection = self
            .client
            .get_multiplexed_async_connection_with_config(&config);
        let connection = connection.await.map_err(|error| error.to_string())?;
        let Some(system) = feed.topology().system else {
            return Err("no node has told yet which cluster this is".to_owned());
        };
        let mut live = Live {
            connection,
            since: Instant::now(),
        };
        let nowhere = Position {
            system,
            timeline: Timeline(0),
            lsn: Lsn::ZERO,
        };
        let made = self.merge_into(&live, self.all(system), nowhere, &[], Duration::ZERO);
        made.await.map_err(|Away| "it does not answer".to_owned())?;
        self.pay(&live, feed)
            .await
            .map_err(|Away| "it does not take what it lacks".to_owned())?;
        live.since = Instant::now();
        Ok(Arc::new(live))
    }

    /// Pays debts and sees whether the store still answers, until it does not.
    async fn attend(&self, live: &Arc<Live>, feed: &Feed) {
        loop {
            let is_live = |live: &Arc<Live>| {
                let now = self.live.load();
                now.as_ref().is_some_and(|now| Arc::ptr_eq(now, live))
            };
            if !is_live(live) {
                return;
            }
            let mut connection = live.connection.clone();
            let ping = redis::cmd("PING");
            let alive = self.within(live, ping.query_async::<()>(&mut connection));
            if alive.await.is_err() || self.pay(live, feed).await.is_err() {
                continue;
            }
            let pause = match self.is_in_debt() {
                true => PAUSE[0],
                false => HEARTBEAT,
            };
            // Why it woke does not matter, it looks at everything.
            let _ = timeout(pause, self.wake.notified()).await;
        }
    }

    fn is_in_debt(&self) -> bool {
        let debts = self.debts.lock().unwrap_or_else(PoisonError::into_inner);
        *debts != Floor::default()
    }

    /// Writes down what is owed, if its position is known by now.
    async fn pay(&self, live: &Live, feed: &Feed) -> Result<(), Away> {
        let (owed, position) = {
            let mut debts = self.debts.lock().unwrap_or_else(PoisonError::into_inner);
            if *debts == Floor::default() {
                return Ok(());
            }
            let topology = feed.topology();
            debts.settle(&topology, Instant::now());
            debts.take_lost();
            (*debts, debts.position(&topology))
        };
        let (Pending::Nothing, Some(position)) = (owed.pending(), position) else {
            return Ok(());
        };
        let entry = self.all(position.system);
        self.merge_into(live, entry, position, &[], Duration::ZERO)
            .await?;
        let mut debts = self.debts.lock().unwrap_or_else(PoisonError::into_inner);
        if *debts == owed {
            *debts = Floor::default();
        }
        Ok(())
    }

    async fn merge_into(
        &self,
        live: &Live,
        entry: String,
        position: Position,
        stale: &[(Timeline, Lsn)],
        ttl: Duration,
    ) -> Result<(), Away> {
        let mut call = self.merge.key(entry);
        call.arg(field(position.timeline)).arg(value(position.lsn));
        call.arg(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX / 2));
        for (timeline, lsn) in stale {
            call.arg(field(*timeline)).arg(value(*lsn));
        }
        let mut connection = live.connection.clone();
        let merged = async move { call.invoke_async::<()>(&mut connection).await };
        self.within(live, merged).await
    }

    /// An answer in time, or the connection counts for nothing any more.
    async fn within<T>(
        &self,
        live: &Live,
        asked: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, Away> {
        let reason = match timeout(self.timeout, asked).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {:?}", self.timeout),
        };
        self.lose(live, &reason);
        Err(Away)
    }

    fn lose(&self, live: &Live, reason: &str) {
        self.counts.failures.increment(1);
        let ours = self.live.load_full();
        if let Some(ours) = ours.filter(|ours| std::ptr::eq(&**ours, live)) {
            let now = self.live.compare_and_swap(&ours, None);
            if now.as_ref().is_some_and(|now| Arc::ptr_eq(now, &ours)) {
                tracing::warn!(
                    "the key store is away: {reason}. Reads under session keys go to the primary"
                );
                self.wake.notify_one();
            }
        }
    }

    fn entry(&self, system: SystemId, key: &str) -> String {
        format!("{}{system}:key:{key}", self.prefix)
    }

    fn all(&self, system: SystemId) -> String {
        format!("{}{system}:all", self.prefix)
    }

    /// So long may be waited for what stands in for the store.
    pub fn patience(&self) -> Duration {
        self.timeout
    }
}

/// A far store needs some round trips to be connected to.
const LEAST_TO_CONNECT: Duration = Duration::from_secs(1);

/// The task that keeps the connection; ends when dropped.
pub struct Keeping(JoinHandle<()>);

impl Drop for Keeping {
    fn drop(&mut self) {
        self.0.abort();
    }
}

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

fn field(timeline: Timeline) -> String {
    format!("{:08x}", timeline.0)
}

fn value(lsn: Lsn) -> String {
    format!("{:016x}", lsn.0)
}

/// None if there are none, or if anything is not as we write it.
fn positions(fields: &Fields) -> Option<Vec<(Timeline, Lsn)>> {
    let position = |(field, value): &(Vec<u8>, Vec<u8>)| {
        let digits = |text: &[u8], length| {
            let text = std::str::from_utf8(text).ok()?;
            let plain = text.len() == length && text.bytes().all(|b| b.is_ascii_hexdigit());
            plain.then(|| u64::from_str_radix(text, 16).ok()).flatten()
        };
        let timeline = u32::try_from(digits(field, 8)?).ok()?;
        Some((Timeline(timeline), Lsn(digits(value, 16)?)))
    };
    let positions: Option<Vec<_>> = fields.iter().map(position).collect();
    positions.filter(|positions| !positions.is_empty())
}

/// What is counted of it.
struct Counts {
    up: Gauge,
    failures: Counter,
    unwritten: Counter,
    look_up: Histogram,
    raise: Histogram,
}

impl Counts {
    fn new() -> Counts {
        describe_gauge!("causeway_key_store_up", "1 while the key store answers");
        describe_counter!(
            "causeway_key_store_failures_total",
            Unit::Count,
            "Questions that the key store did not answer, or not in time"
        );
        describe_counter!(
            "causeway_key_store_unwritten_total",
            Unit::Count,
            "Answers that were given before the key store knew of them, because it was away"
        );
        describe_histogram!(
            "causeway_key_store_seconds",
            Unit::Seconds,
            "How long the key store took to answer"
        );
        let took = |operation| histogram!("causeway_key_store_seconds", "operation" => operation);
        Counts {
            up: gauge!("causeway_key_store_up"),
            failures: counter!("causeway_key_store_failures_total"),
            unwritten: counter!("causeway_key_store_unwritten_total"),
            look_up: took("look up"),
            raise: took("raise"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&str, &str)]) -> Fields {
        let bytes = |text: &&str| text.as_bytes().to_vec();
        let pair = |(field, value): &(&str, &str)| (bytes(field), bytes(value));
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn positions_are_written_so_that_they_compare_as_text() {
        let ordered = [0, 1, 0x9_FFFF_FFFF, 0xA_0000_0000, u64::MAX];
        for pair in ordered.windows(2) {
            assert!(value(Lsn(pair[0])) < value(Lsn(pair[1])), "{pair:?}");
        }
        assert!(field(Timeline(9)) < field(Timeline(10)));
        let written = fields(&[(&field(Timeline(7)), &value(Lsn(u64::MAX)))]);
        let read = positions(&written);
        assert_eq!(read, Some(vec![(Timeline(7), Lsn(u64::MAX))]));
    }

    #[test]
    fn what_is_not_ours_is_not_known() {
        let good = ("00000001", "0000000000000010");
        for bad in [
            ("1", "0000000000000010"),
            ("00000001", "10"),
            ("+0000001", "0000000000000010"),
            ("00000001", "000000000000001g"),
            ("00000001", "00000000000000010"),
            ("", ""),
        ] {
            assert_eq!(positions(&fields(&[good, bad])), None, "{bad:?}");
        }
        assert_eq!(positions(&fields(&[])), None);
        assert!(positions(&fields(&[good])).is_some());
    }
}
