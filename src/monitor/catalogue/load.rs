//! Reads the catalogue of one database over a control connection of its own, in one snapshot.

use std::time::Duration;

use deadpool_postgres::{Object as Connection, Pool, PoolError};
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::PgLsn;
use tokio_postgres::{IsolationLevel, Row};

use crate::routing::{Lsn, shown_by_replica};
use crate::sql::catalogue::{Body, Edge, Kind, Language, Nature, Object, ObjectId, Rows};

/// Why a catalogue was not read. Transient, as far as can be told.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("could not connect: {}", super::super::probe::with_causes(.0))]
    Connect(#[source] PoolError),
    #[error("{}", super::super::probe::with_causes(.0))]
    Query(#[from] tokio_postgres::Error),
    #[error("an answer that is not understood: {0}")]
    Nonsense(String),
    #[error("not read within {} s", .0.as_secs())]
    Timeout(Duration),
}

/// What was read, and a position at or after everything that it shows.
pub struct Loaded {
    pub rows: Rows,
    pub position: Lsn,
    pub mark: Mark,
}

/// Two catalogues of a database that have the same are the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark(String);

/// What came of looking for another catalogue than the one that is known.
pub enum Reading {
    /// There was none at this position.
    Unchanged(Lsn),
    Changed(Loaded),
}

/// So often it is read again at once where something was dropped meanwhile.
const MOST_ATTEMPTS: u32 = 5;

const OBJECTS: &str = include_str!("objects.sql");
const EDGES: &str = include_str!("edges.sql");
const MARK: &str = include_str!("mark.sql");

const POSITION: &str = "\
SELECT CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_current_wal_insert_lsn() END AS written, \
       pg_catalog.pg_last_wal_replay_lsn() AS replayed, pg_catalog.pg_last_wal_receive_lsn() AS received";

/// Names in what PostgreSQL prints are qualified; and these queries are not worth compiling.
const SETTINGS: &str = "SET LOCAL search_path = pg_catalog; SET LOCAL jit = off";

/// As [`load_unless`], whatever is known.
pub async fn load(pool: &Pool, at_most: Duration) -> Result<Loaded, LoadError> {
    match load_unless(pool, None, at_most).await? {
        Reading::Changed(loaded) => Ok(loaded),
        Reading::Unchanged(_) => Err(LoadError::Nonsense("no catalogue".to_owned())),
    }
}

/// Connects, reads unless it has the mark of what is known, and closes the connection: one that stayed would
/// keep the database from being dropped. Cancel safe.
pub async fn load_unless(
    pool: &Pool,
    known: Option<&Mark>,
    at_most: Duration,
) -> Result<Reading, LoadError> {
    let read_on = async {
        let mut attempts = 1;
        loop {
            match read(pool, known).await {
                Err(error) if attempts < MOST_ATTEMPTS && is_torn(&error) => attempts += 1,
                outcome => return outcome,
            }
        }
    };
    timeout(at_most, read_on)
        .await
        .unwrap_or(Err(LoadError::Timeout(at_most)))
}

async fn read(pool: &Pool, known: Option<&Mark>) -> Result<Reading, LoadError> {
    let mut connection = Connection::take(pool.get().await.map_err(LoadError::Connect)?);
    let transaction = connection
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await?;
    let objects = || transaction.query(OBJECTS, &[]);
    let edges = || transaction.query(EDGES, &[]);
    let settings = || transaction.batch_execute(SETTINGS);
    let mark = || transaction.query_one(MARK, &[]);
    // One round trip where it is to be read in any case.
    let (mark, read) = match known {
        None => {
            let (_, mark, objects, edges) =
                tokio::try_join!(settings(), mark(), objects(), edges())?;
            (read_mark(&mark)?, Some((objects, edges)))
        }
        Some(known) => {
            let (_, mark) = tokio::try_join!(settings(), mark())?;
            let mark = read_mark(&mark)?;
            let read = match mark == *known {
                true => None,
                false => Some(tokio::try_join!(objects(), edges())?),
            };
            (mark, read)
        }
    };
    transaction.commit().await?;
    let position = read_position(&connection.query_one(POSITION, &[]).await?)?;
    let Some((objects, edges)) = read else {
        return Ok(Reading::Unchanged(position));
    };
    Ok(Reading::Changed(Loaded {
        rows: Rows {
            objects: objects.iter().map(object).collect::<Result<_, _>>()?,
            edges: edges.iter().map(edge).collect::<Result<_, _>>()?,
        },
        position,
        mark,
    }))
}

/// A replica may have shown a little more than it has replayed.
fn read_position(row: &Row) -> Result<Lsn, LoadError> {
    let lsn = |column| -> Result<Option<Lsn>, LoadError> {
        let lsn: Option<PgLsn> = row.try_get(column)?;
        Ok(lsn.map(|lsn| Lsn(lsn.into())))
    };
    match (lsn("written")?, lsn("replayed")?) {
        (Some(written), _) => Ok(written),
        (None, Some(replayed)) => {
            let shown = shown_by_replica(replayed, lsn("received")?);
            Ok(shown.unwrap_or(replayed.just_behind()))
        }
        (None, None) => Err(LoadError::Nonsense("no position".to_owned())),
    }
}

fn read_mark(row: &Row) -> Result<Mark, LoadError> {
    Ok(Mark(row.try_get(0)?))
}

/// PostgreSQL's functions that print definitions do not keep to the snapshot: they fail with an
/// internal error where something is dropped meanwhile, and then so does what is asked behind them.
fn is_torn(error: &LoadError) -> bool {
    let LoadError::Query(error) = error else {
        return false;
    };
    let torn = [
        SqlState::INTERNAL_ERROR,
        SqlState::IN_FAILED_SQL_TRANSACTION,
    ];
    error.code().is_some_and(|code| torn.contains(code))
}

fn object(row: &Row) -> Result<Object, LoadError> {
    let names: [&str; 3] = [row.try_get(2)?, row.try_get(3)?, row.try_get(6)?];
    let id = id(row, 0)?;
    let language = match letter(row, 7)? {
        '\0' => None,
        's' => Some(Language::Sql),
        'p' => Some(Language::PlPgSql),
        other => return Err(LoadError::Nonsense(format!("the language {other}"))),
    };
    let nature = match letter(row, 4)? {
        'p' => Nature::Plain,
        'v' => Nature::Volatile,
        's' => Nature::Sequence,
        'u' => Nature::Unlogged,
        'f' => Nature::Foreign,
        other => return Err(LoadError::Nonsense(format!("the nature {other}"))),
    };
    let object = match language {
        Some(language) => {
            let [schema, name, defaults] = names;
            let body = Body {
                language,
                source: row.try_get::<_, &str>(8)?.into(),
                defaults: defaults.trim().into(),
                parameters: row.try_get::<_, Vec<Option<Box<str>>>>(9)?.into(),
            };
            Object::volatile(id, [schema, name], body)
        }
        None => Object::new(id, names, nature),
    };
    Ok(Object {
        takes_one_argument: row.try_get(5)?,
        ..object
    })
}

fn edge(row: &Row) -> Result<Edge, LoadError> {
    Ok(Edge {
        user: id(row, 0)?,
        used: id(row, 2)?,
    })
}

/// A kind and the OID behind it.
fn id(row: &Row, column: usize) -> Result<ObjectId, LoadError> {
    let kind = match letter(row, column)? {
        'f' => Kind::Function,
        'b' => Kind::Builtin,
        'o' => Kind::Operator,
        't' => Kind::TypeInUse,
        'T' => Kind::TypeByName,
        'r' => Kind::Relation,
        'e' => Kind::Everything,
        other => return Err(LoadError::Nonsense(format!("an object of kind {other}"))),
    };
    let oid = row.try_get(column + 1)?;
    Ok(ObjectId { kind, oid })
}

fn letter(row: &Row, column: usize) -> Result<char, LoadError> {
    let letter: i8 = row.try_get(column)?;
    Ok(char::from(letter.cast_unsigned()))
}
