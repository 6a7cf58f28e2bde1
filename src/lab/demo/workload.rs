//! The users of the demo: they sign up, edit, and read back what they did.
//!
//! A user knows the newest version of the profile that it wrote or has seen. A read that finds an
//! older one, or none, is stale.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rand::Rng;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, NoTls, Row};

use super::REGIONS;
use super::causeways::Causeways;
use super::figures::{Board, Way};
use crate::lab::{APP_DATABASE, APP_USER, Lab, PASSWORD};

const USERS_PER_REGION: usize = 4;
const EDITS_PER_VISIT: i32 = 3;
/// The page that a form leads to, and a few more clicks.
const READS_PER_EDIT: usize = 4;
const THINKING_MS: std::ops::Range<u64> = 5..25;
/// A statement that takes longer is an error: a demo that hangs shows nothing.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(200);

const CREATE_TABLE: &str = "CREATE TABLE profiles (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    version int NOT NULL)";
const SIGN_UP: &str = "INSERT INTO profiles (name, version) VALUES ($1, 1) RETURNING id";
const EDIT: &str = "UPDATE profiles SET name = $2, version = $3 WHERE id = $1 RETURNING id";
/// The node that runs it says which it is.
const READ_BACK: &str = "SELECT current_setting('cluster_name'), profiles.version
    FROM (SELECT $1::bigint AS id) AS mine LEFT JOIN profiles USING (id)";

/// Creates the users' table and waits until every replica has it.
pub(super) async fn create_table(lab: &Lab) -> Result<()> {
    let [primary, replicas @ ..] = REGIONS;
    let client = lab.node(primary).connect(APP_USER, APP_DATABASE).await?;
    client.batch_execute(CREATE_TABLE).await?;
    for replica in replicas {
        lab.wait_caught_up(replica).await?;
    }
    Ok(())
}

/// Every user works until the time is over; what is under way then does not count.
pub(super) async fn run(lab: &Lab, causeways: &Causeways, board: &Arc<Board>, length: Duration) {
    let deadline = Instant::now() + length;
    let mut users = JoinSet::new();
    for (region, causeway) in causeways.iter() {
        for way in Way::ALL {
            for _ in 0..USERS_PER_REGION {
                let user = User {
                    way,
                    region,
                    route: Route::new(way, lab, region, causeway),
                    board: Arc::clone(board),
                    name: format!("{way:?} in {region}"),
                };
                users.spawn(timeout_at(deadline, user.work()));
            }
        }
    }
    users.join_all().await;
}

struct User {
    way: Way,
    region: &'static str,
    route: Route,
    board: Arc<Board>,
    name: String,
}

/// Where a user's statements go, by port.
enum Route {
    One(u16),
    Split { primary: u16, replicas: Vec<u16> },
}

impl Route {
    fn new(way: Way, lab: &Lab, region: &str, causeway: SocketAddr) -> Route {
        let [primary, replicas @ ..] = REGIONS;
        let port = |node| lab.node(node).port_from(region);
        match way {
            Way::Direct => Route::One(port(primary)),
            Way::Naive => Route::Split {
                primary: port(primary),
                replicas: replicas.into_iter().map(port).collect(),
            },
            Way::Causeway => Route::One(causeway.port()),
        }
    }
}

/// What a user knows of its profile.
struct Profile {
    id: i64,
    newest: i32,
}

impl User {
    /// Never ends. After an error the user connects again, as a new user.
    async fn work(self) {
        loop {
            let Err(error) = self.stay().await;
            let error = format!("{error:#}");
            self.board.failed(self.way, self.region, error);
            sleep(PAUSE_AFTER_ERROR).await;
        }
    }

    async fn stay(&self) -> Result<Infallible> {
        let mut connections = Connections::open(&self.route).await?;
        loop {
            self.visit(&mut connections).await?;
        }
    }

    /// One sign-up and a few edits, each read back several times, the first time at once.
    async fn visit(&self, connections: &mut Connections) -> Result<()> {
        let id = self
            .write(connections, SIGN_UP, &[(&self.name, Type::TEXT)])
            .await?;
        let mut profile = Profile { id, newest: 1 };
        self.read_back(connections, &mut profile).await?;
        for version in 2..2 + EDITS_PER_VISIT {
            think().await;
            let edit: [(&(dyn ToSql + Sync), Type); 3] = [
                (&profile.id, Type::INT8),
                (&self.name, Type::TEXT),
                (&version, Type::INT4),
            ];
            self.write(connections, EDIT, &edit).await?;
            profile.newest = version;
            self.read_back(connections, &mut profile).await?;
            for _ in 1..READS_PER_EDIT {
                think().await;
                self.read_back(connections, &mut profile).await?;
            }
        }
        Ok(())
    }

    async fn write(
        &self,
        connections: &Connections,
        statement: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<i64> {
        let begun = Instant::now();
        let rows = run_on(connections.for_write(), statement, parameters).await?;
        let row = rows.first().context("a write returned no row")?;
        self.board.written(self.way, self.region, begun.elapsed());
        Ok(row.try_get(0)?)
    }

    async fn read_back(&self, connections: &mut Connections, profile: &mut Profile) -> Result<()> {
        let begun = Instant::now();
        let client = connections.for_read();
        let rows = run_on(client, READ_BACK, &[(&profile.id, Type::INT8)]).await?;
        let took = begun.elapsed();
        // One row always comes: the profile's columns are null where there is no profile.
        let row = rows.first().context("a read returned no row")?;
        let version: Option<i32> = row.try_get(1)?;
        self.board
            .read(self.way, self.region, took, row.try_get(0)?);
        match version {
            Some(version) if version >= profile.newest => profile.newest = version,
            _ => self.board.stale(self.way, self.region),
        }
        Ok(())
    }
}

enum Connections {
    One(Client),
    Split {
        primary: Client,
        replicas: Vec<Client>,
        next: usize,
    },
}

impl Connections {
    async fn open(route: &Route) -> Result<Connections> {
        match route {
            Route::One(port) => Ok(Connections::One(connect(*port).await?)),
            Route::Split { primary, replicas } => {
                let primary = connect(*primary).await?;
                let mut clients = Vec::new();
                for replica in replicas {
                    clients.push(connect(*replica).await?);
                }
                Ok(Connections::Split {
                    primary,
                    replicas: clients,
                    next: 0,
                })
            }
        }
    }

    fn for_write(&self) -> &Client {
        match self {
            Connections::One(client) => client,
            Connections::Split { primary, .. } => primary,
        }
    }

    /// What splitters in applications do: the replicas in turn, near or far, fresh or not.
    fn for_read(&mut self) -> &Client {
        match self {
            Connections::One(client) => client,
            Connections::Split {
                primary,
                replicas,
                next,
            } => {
                *next = (*next + 1) % replicas.len().max(1);
                replicas.get(*next).unwrap_or(primary)
            }
        }
    }
}

async fn connect(port: u16) -> Result<Client> {
    let mut config = tokio_postgres::Config::new();
    config
        .host("127.0.0.1")
        .port(port)
        .user(APP_USER)
        .password(PASSWORD)
        .dbname(APP_DATABASE)
        .application_name("causeway demo");
    let (client, connection) = timeout(PATIENCE, config.connect(NoTls))
        .await
        .context("connecting took too long")?
        .context("cannot connect")?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "demo: a connection has ended");
        }
    });
    Ok(client)
}

/// One round trip: parse, bind and execute together.
async fn run_on(
    client: &Client,
    statement: &str,
    parameters: &[(&(dyn ToSql + Sync), Type)],
) -> Result<Vec<Row>> {
    timeout(PATIENCE, client.query_typed(statement, parameters))
        .await
        .with_context(|| format!("no answer within {PATIENCE:?}: {statement}"))?
        .with_context(|| statement.to_string())
}

async fn think() {
    let milliseconds = rand::rng().random_range(THINKING_MS);
    sleep(Duration::from_millis(milliseconds)).await;
}
