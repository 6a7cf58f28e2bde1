//! One question to one node, over a control connection that stays open: who it is, where it is.

use std::error::Error;
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool_postgres::{Object, Pool, PoolError};
use tokio::time::timeout;
use tokio_postgres::types::PgLsn;
use tokio_postgres::{Row, Statement};

use super::fold::{Following, Identity, Outcome};
use crate::routing::{Lsn, Observation, Role, SystemId, Timeline, UnixMillis, WalGeometry, Xid};

const IDENTIFY: &str = "\
SELECT s.system_identifier, i.wal_block_size, i.bytes_per_wal_segment, \
       pg_catalog.current_setting('server_version') AS server_version, \
       pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE') AS sees_streaming, \
       pg_catalog.current_setting('server_version_num')::integer >= 140005 \
       AND (SELECT pg_catalog.bool_and(pg_catalog.has_function_privilege(name, 'EXECUTE')) \
          FROM pg_catalog.unnest(ARRAY['pg_catalog.txid_status(bigint)', \
                                       'pg_catalog.txid_current_snapshot()', \
                                       'pg_catalog.txid_snapshot_xmax(txid_snapshot)']) AS name \
           ) AS sees_transactions \
  FROM pg_catalog.pg_control_system() s, pg_catalog.pg_control_init() i";

/// The order counts: the role is asked once, before the position that it gives a meaning to, the
/// clock before the position, which so covers all that was committed by then, and transactions and position
/// before the timeline that they belong to, so that a switch in between shows the older position on the
/// newer timeline, which holds it, and never the reverse. `received_tli` is null where nothing is
/// streamed and for a role without pg_monitor; the control file then tells a timeline that has been
/// replayed, if late (manual, section "WAL Receiver Process Statistics", "Control Data Functions").
///
/// `{shown}` is [`SHOWN`], or false for a role that may not ask.
const PROBE: &str = "\
SELECT role.in_recovery, \
       CASE WHEN role.in_recovery \
            THEN ARRAY(SELECT xid FROM pg_catalog.unnest($1::bigint[]) AS xid WHERE {shown}) END AS shown, \
       CASE WHEN NOT role.in_recovery THEN pg_catalog.pg_last_wal_replay_lsn() END AS branched_at, \
       CASE WHEN NOT role.in_recovery \
            THEN (extract(epoch FROM pg_catalog.clock_timestamp()) * 1000)::bigint \
       END AS clock, \
       CASE WHEN role.in_recovery THEN pg_catalog.pg_last_wal_replay_lsn() \
            ELSE pg_catalog.pg_current_wal_insert_lsn() END AS lsn, \
       CASE WHEN role.in_recovery THEN pg_catalog.pg_last_wal_receive_lsn() END AS received, \
       CASE WHEN role.in_recovery \
            THEN (SELECT received_tli FROM pg_catalog.pg_stat_wal_receiver) END AS streams, \
       CASE WHEN role.in_recovery \
            THEN (SELECT greatest(c.timeline_id, r.min_recovery_end_timeline) \
                    FROM pg_catalog.pg_control_checkpoint() c, \
                         pg_catalog.pg_control_recovery() r) END AS at_least, \
       CASE WHEN NOT role.in_recovery \
            THEN pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()) END AS walfile \
  FROM (SELECT pg_catalog.pg_is_in_recovery() AS in_recovery OFFSET 0) AS role";

/// A number that is greater than all that have ended here cannot be asked for; one that is on its way or has ended
/// badly is not told. Whatever is told every later snapshot shows (manual, section "Transaction ID and Snapshot
/// Information Functions"; a standby counts a transaction as running until its commit has been replayed, from
/// version 14.5 on: before, it asked the log of commits first, which is written before a snapshot shows it).
const SHOWN: &str = "\
CASE WHEN xid < pg_catalog.txid_snapshot_xmax(pg_catalog.txid_current_snapshot()) \
     THEN pg_catalog.txid_status(xid) = 'committed' END";

/// Why a node was not heard. Transient: the probe is repeated.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("could not connect: {}", with_causes(.0))]
    Connect(#[source] PoolError),
    #[error("probe failed: {}", with_causes(.0))]
    Query(#[from] tokio_postgres::Error),
    #[error("probe answered nonsense: {0}")]
    Nonsense(&'static str),
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
}

impl ProbeError {
    pub fn outcome(&self) -> Outcome {
        Outcome::Failed {
            at: Instant::now(),
            reason: Arc::from(self.to_string()),
        }
    }
}

/// The error with what caused it. What a pool adds to its server's error says nothing.
pub(super) fn with_causes(error: &(dyn Error + 'static)) -> String {
    let error = match error.downcast_ref::<PoolError>() {
        Some(PoolError::Backend(backend)) => backend,
        _ => error,
    };
    let refusal = error.downcast_ref::<tokio_postgres::Error>();
    if let Some(said) = refusal.and_then(tokio_postgres::Error::as_db_error) {
        return format!("{} (SQLSTATE {})", said.message(), said.code().code());
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let further = error.to_string();
        if !text.contains(&further) {
            // Writing to a String cannot fail.
            let _ = write!(text, ": {further}");
        }
        cause = error.source();
    }
    text
}

/// An open control connection that has told who it is.
pub struct Control {
    client: Object,
    probe: Statement,
    identity: Identity,
    opened: Instant,
    /// As `SHOW server_version` gives it.
    pub server_version: String,
    /// Whether the role is shown which timeline a replica streams.
    pub sees_streaming: bool,
    /// Whether the role may ask for the state of transactions, and the answer is to be trusted.
    pub sees_transactions: bool,
}

impl Control {
    /// Connects, logs in, prepares. Cancel safe: what is half open is closed.
    pub async fn open(pool: &Pool, at_most: Duration) -> Result<Control, ProbeError> {
        let open = async {
            let client = pool.get().await.map_err(ProbeError::Connect)?;
            let opened = Instant::now();
            let row = client.query_one(IDENTIFY, &[]).await?;
            let sees_transactions = row.try_get("sees_transactions")?;
            let shown = match sees_transactions {
                true => SHOWN,
                false => "false",
            };
            let probe = client.prepare(&PROBE.replace("{shown}", shown)).await?;
            Ok(Control {
                identity: identity(&row)?,
                server_version: row.try_get("server_version")?,
                sees_streaming: row.try_get("sees_streaming")?,
                sees_transactions,
                probe,
                opened,
                client,
            })
        };
        timeout(at_most, open)
            .await
            .unwrap_or(Err(ProbeError::Timeout(at_most)))
    }

    /// Asks once. Several may be in flight: the server answers them in the order of their first
    /// polls, and one that is dropped is answered all the same.
    ///
    /// Gives, besides, those of the `wanted` transactions that a replica shows.
    pub async fn probe(
        &self,
        started: Instant,
        wanted: Vec<Xid>,
    ) -> Result<(Outcome, Arc<[Xid]>), ProbeError> {
        let wanted: Vec<i64> = wanted.iter().map(|xid| xid.0.cast_signed()).collect();
        let row = self.client.query_one(&self.probe, &[&wanted]).await?;
        let finished = Instant::now();
        let in_recovery: bool = row.try_get("in_recovery")?;
        let lsn = |column: &str| -> Result<Option<Lsn>, ProbeError> {
            let position: Option<PgLsn> = row.try_get(column)?;
            Ok(position.map(|position| Lsn(position.into())))
        };
        let shown: Option<Vec<i64>> = row.try_get("shown")?;
        let shown = shown.unwrap_or_default().into_iter();
        let shown = shown.map(|xid| Xid(xid.cast_unsigned())).collect();
        let outcome = Outcome::Answered {
            observation: Observation {
                started,
                finished,
                connected: self.opened,
                role: match in_recovery {
                    true => Role::Replica,
                    false => Role::Primary,
                },
                lsn: lsn("lsn")?.ok_or(ProbeError::Nonsense("no position"))?,
                received: lsn("received")?,
                timeline: None,
                branched_at: lsn("branched_at")?,
                clock: clock(&row)?,
                tells_transactions: self.sees_transactions,
            },
            following: following(&row)?,
            identity: self.identity,
        };
        Ok((outcome, shown))
    }

    /// Closes the connection; it does not go back to the pool.
    pub fn close(self) {
        drop(Object::take(self.client));
    }
}

fn identity(row: &Row) -> Result<Identity, ProbeError> {
    let system: i64 = row.try_get("system_identifier")?;
    let size = |column: &str| -> Result<u32, ProbeError> {
        let bytes: i32 = row.try_get(column)?;
        match u32::try_from(bytes) {
            Ok(bytes) if bytes.is_power_of_two() => Ok(bytes),
            _ => Err(ProbeError::Nonsense("a WAL size that is no power of two")),
        }
    };
    Ok(Identity {
        system: SystemId(system.cast_unsigned()),
        geometry: WalGeometry {
            block_size: size("wal_block_size")?,
            segment_size: size("bytes_per_wal_segment")?,
        },
    })
}

/// Negative before 1970: such a clock is of no use.
fn clock(row: &Row) -> Result<Option<UnixMillis>, ProbeError> {
    let clock: Option<i64> = row.try_get("clock")?;
    Ok(clock.and_then(|ms| u64::try_from(ms).ok()).map(UnixMillis))
}

fn following(row: &Row) -> Result<Following, ProbeError> {
    let number = |column: &str| -> Result<Option<Timeline>, ProbeError> {
        let timeline: Option<i32> = row.try_get(column)?;
        Ok(timeline.map(|timeline| Timeline(timeline.cast_unsigned())))
    };
    let walfile: Option<&str> = row.try_get("walfile")?;
    if let Some(name) = walfile {
        // A segment's name begins with its timeline in eight hexadecimal digits.
        return name
            .get(..8)
            .and_then(|digits| u32::from_str_radix(digits, 16).ok())
            .map(|timeline| Following::Streams(Timeline(timeline)))
            .ok_or(ProbeError::Nonsense("a WAL file name without a timeline"));
    }
    if let Some(timeline) = number("streams")? {
        return Ok(Following::Streams(timeline));
    }
    number("at_least")?
        .map(Following::AtLeast)
        .ok_or(ProbeError::Nonsense("no timeline"))
}
