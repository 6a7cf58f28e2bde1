//! A Causeway as a process of its own, so that its processor time can be told from its clients'.

use std::net::SocketAddr;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use causeway::lab::{APP_DATABASE, APP_USER, Lab, PASSWORD};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio_postgres::{Client, NoTls};

pub struct Proxy {
    child: Child,
    address: SocketAddr,
}

impl Proxy {
    /// Beside the replica in eu-west, with the primary in us-east, and with `more` flags.
    pub async fn beside_replica(lab: &Lab, more: &[&str]) -> Result<Proxy> {
        let [primary, replica] = ["us-east", "eu-west"].map(|name| {
            let url = lab
                .node(name)
                .url_from("eu-west", APP_USER, PASSWORD, APP_DATABASE);
            format!("{url}?region={name}")
        });
        let nodes = ["--primary", &primary, "--replica", &replica];
        let flags = [&nodes[..], &["--region", "eu-west"], more].concat();
        Proxy::start(&flags).await
    }

    /// Returns when it has said that it is ready. `flags` name its nodes.
    pub async fn start(flags: &[&str]) -> Result<Proxy> {
        let mut child = Command::new(env!("CARGO_BIN_EXE_causeway"))
            .args(["serve", "--listen", "127.0.0.1:0", "--admin", "off"])
            .args(["--log-format", "json"])
            .args(flags)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut log = BufReader::new(child.stderr.take().context("no log")?).lines();
        let address = loop {
            let Some(line) = log.next_line().await? else {
                bail!("the proxy ended before it was ready");
            };
            if let Some((_, rest)) = line.split_once("\"listen\":\"") {
                let address = rest.split('"').next().unwrap_or_default();
                break address.parse()?;
            }
        };
        // What it goes on to log is read and forgotten, so that it never waits for a reader.
        tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
        Ok(Proxy { child, address })
    }

    pub fn pid(&self) -> Result<u32> {
        self.child.id().context("the proxy has ended")
    }

    pub async fn client(&self) -> Result<Client> {
        connect(self.address.port()).await
    }
}

pub async fn connect(port: u16) -> Result<Client> {
    let mut config = tokio_postgres::Config::new();
    config
        .host("127.0.0.1")
        .port(port)
        .user(APP_USER)
        .password(PASSWORD)
        .dbname(APP_DATABASE);
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}
