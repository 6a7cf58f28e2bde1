//! A Causeway of this process in front of a lab, as the tests of several themes use it.

use std::net::Ipv4Addr;
use std::time::Duration;

use causeway::app::{Causeway, Running};
use causeway::config::{Config, MonitorConfig, NodeConfig, ServerTls, TlsMode, UserConfig};
use causeway::lab::{APP_DATABASE, APP_USER, Lab, LabNode, MONITOR_USER, PASSWORD};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::{Client, Error, NoTls};

/// Whatever takes longer hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The nodes as they are seen from `region`, which is where the Causeway will stand. It listens on
/// a port of its own; [`APP_USER`] may log in.
pub fn config(lab: &Lab, region: &str) -> Config {
    Config {
        listen: (Ipv4Addr::LOCALHOST, 0).into(),
        admin: None,
        region: Some(region.to_owned()),
        nodes: lab.nodes().map(|node| seen_from(region, node)).collect(),
        users: vec![UserConfig::with_password(APP_USER, PASSWORD)],
        monitor: MonitorConfig {
            user: MONITOR_USER.to_owned(),
            password: Some(PASSWORD.to_owned().into()),
            database: APP_DATABASE.to_owned(),
            probe_interval: Duration::from_millis(50),
            ..MonitorConfig::default()
        },
        ..Config::default()
    }
}

/// A Causeway in `region` with [`config`].
pub async fn start(lab: &Lab, region: &str) -> Running {
    Causeway::start(config(lab, region)).await.unwrap()
}

/// What a connection came to: an error if it broke, or if the server said something that no
/// request had asked for.
pub type Fate = JoinHandle<Result<(), Error>>;

/// Logs in as [`APP_USER`].
pub async fn connect(causeway: &Running) -> Client {
    let (client, _) = try_connect(causeway.listen_addr().port()).await.unwrap();
    client
}

/// As [`connect`], where it may fail. Panics if it hangs.
pub async fn try_connect(port: u16) -> Result<(Client, Fate), Error> {
    let mut config = tokio_postgres::Config::new();
    config
        .host("127.0.0.1")
        .port(port)
        .user(APP_USER)
        .password(PASSWORD)
        .dbname(APP_DATABASE);
    let connected = timeout(PATIENCE, config.connect(NoTls)).await;
    let (client, connection) = connected.expect("a log-in hangs")?;
    Ok((client, tokio::spawn(connection)))
}

fn seen_from(region: &str, node: &LabNode) -> NodeConfig {
    NodeConfig {
        name: node.name().to_owned(),
        region: Some(node.region().to_owned()),
        tls: ServerTls {
            mode: TlsMode::Disable,
            root_cert: None,
        },
        ..NodeConfig::new("127.0.0.1", node.port_from(region))
    }
}

/// A port of the loopback interface that nobody listens on.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
