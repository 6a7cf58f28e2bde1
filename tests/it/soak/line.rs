//! A user's connection through a Causeway: registers are read and written in every way there is, and
//! what the Causeway says of losses is heard.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use causeway::lab::{APP_DATABASE, APP_USER, PASSWORD};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{AsyncMessage, Client, Error, NoTls, SimpleQueryMessage, Statement};

use super::world::World;
use crate::support::PATIENCE;

/// How a statement is sent.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    Simple,
    Unnamed,
    Named,
    /// A write: in a transaction that reads its own write. A read: in a READ ONLY transaction.
    Transaction,
}

pub const WAYS: [Way; 4] = [Way::Simple, Way::Unnamed, Way::Named, Way::Transaction];

const WRITE: &str = "UPDATE register SET value = greatest(value, $2), doomed = $3 WHERE id = $1";
const WRITE_TYPES: [Type; 3] = [Type::INT4, Type::INT8, Type::BOOL];
/// The node that runs it says which it is, and what: a query that names the setting is the primary's.
const READ: &str = "SELECT current_setting('cluster_name'), \
    current_setting('in_hot' || '_standby') = 'on', id, value FROM register WHERE id IN ($1, $2)";
const READ_TYPES: [Type; 2] = [Type::INT4, Type::INT4];

/// What somebody knows, and the token for it.
#[derive(Clone, Debug, Default)]
pub struct Letter {
    pub token: String,
    pub known: Vec<i64>,
}

/// What a read has shown.
#[derive(Clone, Debug)]
pub struct Sight {
    pub node: String,
    pub on_replica: bool,
    values: [(i32, i64); 2],
}

impl Sight {
    pub fn of(&self, register: i32) -> i64 {
        let value = self.values.iter().find(|(id, _)| *id == register);
        value.expect("a register that was asked for").1
    }
}

/// A connection through one Causeway, and what was prepared on it.
pub struct Line {
    pub client: Client,
    fate: JoinHandle<Result<(), Error>>,
    losses: Arc<AtomicU64>,
    write: Statement,
    read: Statement,
    /// Which of the Causeways that have stood in its place.
    pub epoch: u64,
}

impl Line {
    /// Opens one, and again while nobody lets it in.
    pub async fn open(world: &World, proxy: usize, settings: &str) -> Line {
        let begun = Instant::now();
        loop {
            let place = &world.proxies[proxy];
            if let Some(epoch) = place.epoch() {
                match Line::try_open(world, proxy, epoch, settings).await {
                    Ok(line) if place.epoch() == Some(epoch) => {
                        world.tally.opened.fetch_add(1, Ordering::Relaxed);
                        return line;
                    }
                    Ok(_) => {}
                    Err(error) if error.code().is_some() => {
                        world.tally.error("log-in", &expected(&error));
                    }
                    // Nobody listens at present.
                    Err(_) => {}
                }
            }
            assert!(begun.elapsed() < PATIENCE, "no way back in");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    async fn try_open(
        world: &World,
        proxy: usize,
        epoch: u64,
        settings: &str,
    ) -> Result<Line, Error> {
        let mut config = tokio_postgres::Config::new();
        config
            .host("127.0.0.1")
            .port(world.proxies[proxy].port())
            .user(APP_USER)
            .password(PASSWORD)
            .dbname(APP_DATABASE);
        let (client, mut connection) = in_time(config.connect(NoTls)).await?;
        let losses = Arc::new(AtomicU64::new(0));
        let heard = Arc::clone(&losses);
        // A notice is heard before the answer that it came with is given to whoever asked.
        let fate = tokio::spawn(async move {
            loop {
                match poll_fn(|context| connection.poll_message(context)).await {
                    Some(Ok(AsyncMessage::Notice(notice))) => {
                        if notice.message().contains("lost in a failover") {
                            heard.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(error),
                    None => return Ok(()),
                }
            }
        });
        in_time(client.batch_execute(settings)).await?;
        let write = in_time(client.prepare_typed(WRITE, &WRITE_TYPES)).await?;
        let read = in_time(client.prepare_typed(READ, &READ_TYPES)).await?;
        Ok(Line {
            client,
            fate,
            losses,
            write,
            read,
            epoch,
        })
    }

    /// It has been told since the last look that something was lost in a failover.
    pub fn heard_of_loss(&self, world: &World) -> bool {
        let count = self.losses.swap(0, Ordering::SeqCst);
        world.tally.losses.fetch_add(count, Ordering::Relaxed);
        count > 0
    }

    pub async fn command(&self, text: &str) -> Result<(), Error> {
        in_time(self.client.batch_execute(text)).await
    }

    /// The first column of the first row.
    pub async fn cell(&self, text: &str) -> Result<String, Error> {
        let answer = in_time(self.client.simple_query(text)).await?;
        Ok(first_row(&answer, text).get(0).unwrap_or("").to_owned())
    }

    /// Raises a register; `doomed` ends the server that does it. In a transaction it says what was
    /// seen there of the own write.
    pub async fn write(
        &self,
        way: Way,
        id: i32,
        value: i64,
        doomed: bool,
    ) -> Result<Option<Sight>, Error> {
        let changed = match way {
            Way::Simple => {
                let text = WRITE
                    .replace("$1", &id.to_string())
                    .replace("$2", &value.to_string())
                    .replace("$3", &doomed.to_string());
                let answer = in_time(self.client.simple_query(&text)).await?;
                let rows = answer.iter().filter_map(|message| match message {
                    SimpleQueryMessage::CommandComplete(rows) => Some(*rows),
                    _ => None,
                });
                rows.sum()
            }
            Way::Unnamed => self.write_unnamed(id, value, doomed).await?,
            Way::Named => {
                in_time(self.client.execute(&self.write, &[&id, &value, &doomed])).await?
            }
            Way::Transaction => {
                self.command("BEGIN").await?;
                let changed = self.write_unnamed(id, value, doomed).await?;
                let sight = self.read_unnamed(id, id).await?;
                self.command("COMMIT").await?;
                assert_eq!(changed, 1);
                return Ok(Some(sight));
            }
        };
        assert_eq!(changed, 1, "{way:?}");
        Ok(None)
    }

    pub async fn read(&self, way: Way, hint: &str, a: i32, b: i32) -> Result<Sight, Error> {
        match way {
            Way::Simple => {
                let text = READ
                    .replace("$1", &a.to_string())
                    .replace("$2", &b.to_string());
                let answer = in_time(self.client.simple_query(&format!("{hint}{text}"))).await?;
                Ok(sight_of_text(&answer))
            }
            Way::Unnamed => self.read_unnamed(a, b).await,
            Way::Named => {
                let rows = in_time(self.client.query(&self.read, &[&a, &b])).await?;
                Ok(sight_of(&rows))
            }
            Way::Transaction => {
                self.command("BEGIN READ ONLY").await?;
                let sight = self.read_unnamed(a, b).await?;
                self.command("COMMIT").await?;
                Ok(sight)
            }
        }
    }

    async fn write_unnamed(&self, id: i32, value: i64, doomed: bool) -> Result<u64, Error> {
        let [int, big, bool] = WRITE_TYPES;
        let values: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 3] =
            [(&id, int), (&value, big), (&doomed, bool)];
        in_time(self.client.execute_typed(WRITE, &values)).await
    }

    pub async fn read_unnamed(&self, a: i32, b: i32) -> Result<Sight, Error> {
        let [first, second] = READ_TYPES;
        let values: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
            [(&a, first), (&b, second)];
        let rows = in_time(self.client.query_typed(READ, &values)).await?;
        Ok(sight_of(&rows))
    }

    /// After an error: whether the connection is still there, and in no transaction.
    pub async fn recovers(&mut self, world: &World, deed: &'static str, error: Error) -> bool {
        let code = match error.is_closed() {
            true => match in_time(async { Ok((&mut self.fate).await) }).await {
                Ok(Ok(Err(last))) => expected(&last),
                Ok(Ok(Ok(()))) => panic!("{deed}: a connection was closed without a word"),
                Ok(Err(error)) => panic!("{deed}: {error}"),
                Err(error) => panic!("{deed}: {error}"),
            },
            false => expected(&error),
        };
        world.tally.error(deed, &code);
        !self.client.is_closed() && self.command("ROLLBACK").await.is_ok()
    }
}

/// The error's code, if it is one that a fault excuses.
fn expected(error: &Error) -> String {
    let code = error.code().filter(|code| {
        let excused = [
            SqlState::ADMIN_SHUTDOWN,
            SqlState::CRASH_SHUTDOWN,
            SqlState::CANNOT_CONNECT_NOW,
            SqlState::T_R_SERIALIZATION_FAILURE,
            SqlState::T_R_DEADLOCK_DETECTED,
        ];
        code.code().starts_with("08") || excused.contains(code)
    });
    let code = code.unwrap_or_else(|| panic!("unexpected: {error:?}"));
    code.code().to_owned()
}

/// A request that is neither answered nor refused is a failure of the proxy.
pub async fn in_time<T>(request: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    timeout(PATIENCE, request).await.expect("a request hangs")
}

fn first_row<'a>(
    answer: &'a [SimpleQueryMessage],
    text: &str,
) -> &'a tokio_postgres::SimpleQueryRow {
    let row = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    row.unwrap_or_else(|| panic!("{text}: no row"))
}

fn sight_of(rows: &[tokio_postgres::Row]) -> Sight {
    let rows = rows.iter();
    sight(rows.map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))))
}

fn sight_of_text(answer: &[SimpleQueryMessage]) -> Sight {
    let rows = answer.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            let text = |place| row.get(place).unwrap().to_owned();
            let (id, value) = (text(2).parse().unwrap(), text(3).parse().unwrap());
            Some((text(0), text(1) == "t", id, value))
        }
        _ => None,
    });
    sight(rows)
}

fn sight(rows: impl Iterator<Item = (String, bool, i32, i64)>) -> Sight {
    let rows: Vec<_> = rows.collect();
    let value = |place: usize| (rows[place].2, rows[place].3);
    match &rows[..] {
        [(node, on_replica, ..)] | [(node, on_replica, ..), _] => Sight {
            node: node.clone(),
            on_replica: *on_replica,
            values: [value(0), value(rows.len() - 1)],
        },
        _ => panic!("not one row for each register: {rows:?}"),
    }
}
