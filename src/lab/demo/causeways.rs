//! The Causeways of the demo: one per region, in this process.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use zeroize::Zeroizing;

use super::REGIONS;
use crate::app::{Causeway, Running};
use crate::config::{Config, MonitorConfig, NodeConfig, ServerTls, TlsMode, UserConfig};
use crate::lab::{APP_DATABASE, APP_USER, Lab, LabNode, MONITOR_USER, PASSWORD};

pub(super) struct Causeways(Vec<(&'static str, Running)>);

impl Causeways {
    pub(super) async fn start(lab: &Lab) -> Result<Causeways> {
        let mut started = Vec::new();
        for region in REGIONS {
            let running = Causeway::start(config(lab, region))
                .await
                .with_context(|| format!("cannot start the Causeway in {region}"))?;
            started.push((region, running));
        }
        Ok(Causeways(started))
    }

    /// Region and address.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static str, SocketAddr)> {
        self.0
            .iter()
            .map(|(region, running)| (*region, running.listen_addr()))
    }

    pub(super) async fn shutdown(self) {
        for (_, running) in self.0 {
            running.shutdown().await;
        }
    }
}

/// The nodes as they are seen from `region`.
fn config(lab: &Lab, region: &str) -> Config {
    Config {
        listen: (Ipv4Addr::LOCALHOST, 0).into(),
        admin: None,
        region: Some(region.to_string()),
        nodes: lab.nodes().map(|node| seen_from(region, node)).collect(),
        users: vec![UserConfig::with_password(APP_USER, PASSWORD)],
        monitor: MonitorConfig {
            user: MONITOR_USER.to_string(),
            password: Some(Zeroizing::new(PASSWORD.to_string())),
            database: APP_DATABASE.to_string(),
            ..MonitorConfig::default()
        },
        ..Config::default()
    }
}

fn seen_from(region: &str, node: &LabNode) -> NodeConfig {
    NodeConfig {
        name: node.name().to_string(),
        region: Some(node.region().to_string()),
        tls: ServerTls {
            mode: TlsMode::Disable,
            root_cert: None,
        },
        ..NodeConfig::new("127.0.0.1", node.port_from(region))
    }
}
