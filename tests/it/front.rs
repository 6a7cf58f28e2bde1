//! A Causeway in this process in front of a lab.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use causeway::app::{Causeway, Running};
use causeway::config::{Config, UserConfig};
use causeway::lab::{APP_DATABASE, APP_USER, Lab, LabNode, PASSWORD, SUPERUSER};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::raw::Raw;
use crate::support;

/// What should happen soon and has not by then never will.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Any free port of this machine.
pub const ANYWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A lab and the Causeway in front of it.
pub struct Front {
    pub running: Running,
    pub lab: Lab,
}

/// A Causeway beside the replica; [`SUPERUSER`] may log in too.
pub fn config(lab: &Lab) -> Config {
    let mut config = support::config(lab, "eu-west");
    let superuser = UserConfig::with_password(SUPERUSER, PASSWORD);
    config.users.push(superuser);
    // A new server of a replica is trusted after the next probe: on a slow machine that takes long.
    config.routing.max_wait = PATIENCE;
    // Longer than any test has patience: what becomes known does so without it.
    config.monitor.catalogue_interval = 2 * PATIENCE;
    config
}

impl Front {
    /// A primary, a replica and a Causeway beside the replica.
    pub async fn small() -> Front {
        Front::with(|_| {}).await
    }

    /// The same with some settings changed.
    pub async fn with(change: impl FnOnce(&mut Config)) -> Front {
        Front::before(Lab::small().await.unwrap(), change).await
    }

    pub async fn before(lab: Lab, change: impl FnOnce(&mut Config)) -> Front {
        let mut config = config(&lab);
        change(&mut config);
        let running = Causeway::start(config).await.unwrap();
        Front { running, lab }
    }

    pub fn address(&self) -> SocketAddr {
        self.running.listen_addr()
    }

    /// Waits until so many sessions wait for a server, as the metrics tell; needs `config.admin`.
    pub async fn until_waiting(&self, wanted: usize) {
        let deadline = Instant::now() + PATIENCE;
        let waiters = |line: &str| -> Option<usize> {
            let sample = line.strip_prefix("causeway_pool_waiters{")?;
            sample.rsplit(' ').next()?.parse().ok()
        };
        loop {
            let metrics = self.metrics().await;
            let waiting: usize = metrics.lines().filter_map(waiters).sum();
            if waiting == wanted {
                return;
            }
            assert!(Instant::now() < deadline, "{waiting} wait, never {wanted}");
        }
    }

    /// Needs `config.admin`.
    pub async fn metrics(&self) -> String {
        let address = self.running.admin_addr().expect("config.admin");
        let mut tcp = TcpStream::connect(address).await.unwrap();
        let request = b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        tcp.write_all(request).await.unwrap();
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).await.unwrap();
        answer
    }

    pub fn primary(&self) -> &LabNode {
        self.lab.node("us-east")
    }

    /// A logged-in client that speaks the bare protocol.
    pub async fn raw(&self) -> Raw {
        Raw::log_in(self.address(), APP_USER, APP_DATABASE).await
    }

    /// The same, past the proxy.
    pub async fn raw_direct(&self) -> Raw {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.primary().port()));
        Raw::log_in(address, APP_USER, APP_DATABASE).await
    }

    /// A client through the proxy.
    pub async fn client(&self) -> Client {
        self.try_client(|_| {}).await.unwrap()
    }

    /// A client through the proxy with some parameters changed.
    pub async fn try_client(
        &self,
        change: impl FnOnce(&mut tokio_postgres::Config),
    ) -> Result<Client, tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config
            .host("127.0.0.1")
            .port(self.address().port())
            .user(APP_USER)
            .password(PASSWORD)
            .dbname(APP_DATABASE);
        change(&mut config);
        let (client, connection) = config.connect(NoTls).await?;
        // How it ends is for the client to say.
        tokio::spawn(async move { connection.await.is_ok() });
        Ok(client)
    }

    /// The superuser on the primary, past the proxy.
    pub async fn admin(&self) -> Client {
        self.primary()
            .connect(SUPERUSER, APP_DATABASE)
            .await
            .unwrap()
    }
}

/// The first column of the first row, as text.
pub async fn ask(client: &Client, sql: &str) -> String {
    try_ask(client, sql)
        .await
        .unwrap_or_else(|code| panic!("{sql}: {code}"))
}

/// The first column of the first row, or the SQLSTATE.
pub async fn try_ask(client: &Client, sql: &str) -> Result<String, String> {
    let messages = client
        .simple_query(sql)
        .await
        .map_err(|error| code(&error))?;
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let row = row.unwrap_or_else(|| panic!("{sql}: no row"));
    Ok(row.get(0).unwrap_or("NULL").to_owned())
}

/// The SQLSTATE, or what went wrong below SQL.
pub fn code(error: &tokio_postgres::Error) -> String {
    match error.code() {
        Some(code) => code.code().to_owned(),
        None => error.to_string(),
    }
}

/// Asks until the answer is `wanted`.
pub async fn until(client: &Client, sql: &str, wanted: &str) {
    let deadline = Instant::now() + PATIENCE;
    let mut glance = tokio::time::interval(Duration::from_millis(5));
    loop {
        let answer = ask(client, sql).await;
        if answer == wanted {
            return;
        }
        assert!(Instant::now() < deadline, "{sql}: {answer}, never {wanted}");
        glance.tick().await;
    }
}

/// Asks until a replica answers; every answer must be `expected`, wherever it comes from.
pub async fn read_on_replica(client: &Client, sql: &str, expected: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert_eq!(ask(client, sql).await, expected, "{sql}");
        let route = ask(client, "SHOW causeway.last_route").await;
        if route.contains("role=replica") {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{sql}: never on a replica: {route}"
        );
    }
}

/// Waits until reads of the relation may run near: a catalogue of before it was made takes them for
/// writes.
pub async fn until_known(client: &Client, relation: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let read = format!("SELECT FROM {relation} LIMIT 0");
        client.simple_query(&read).await.unwrap();
        let route = ask(client, "SHOW causeway.last_route").await;
        if !route.contains("reason=\"write\"") {
            return;
        }
        assert!(Instant::now() < deadline, "{relation} stays unknown");
    }
}

/// A client that must not notice what happens to others: it asks again and again, and counts.
pub struct Witness {
    task: tokio::task::JoinHandle<u64>,
    stop: tokio::sync::oneshot::Sender<()>,
}

impl Witness {
    pub async fn new(front: &Front) -> Witness {
        let client = front.client().await;
        client
            .batch_execute("SET application_name TO 'witness'")
            .await
            .unwrap();
        let (stop, mut stopped) = tokio::sync::oneshot::channel();
        let task = tokio::spawn(async move {
            let mut count = 0;
            while stopped.try_recv().is_err() {
                let sql = "SELECT current_setting('application_name') || 1 + 1";
                assert_eq!(ask(&client, sql).await, "witness2");
                let sql = "SELECT $1::int + 1";
                let row = client.query_one(sql, &[&count]).await.unwrap();
                assert_eq!(row.get::<_, i32>(0), count + 1);
                count += 1;
            }
            count as u64
        });
        Witness { task, stop }
    }

    /// It is still well, and has asked.
    pub async fn ends_well(self) {
        self.stop.send(()).expect("the witness has stopped asking");
        assert!(self.task.await.expect("the witness has noticed something") > 0);
    }
}
