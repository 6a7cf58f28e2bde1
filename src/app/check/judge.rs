//! What the facts of all nodes mean together, and with the settings. The looking is done; it reads no
//! more than the files that the settings name.

use crate::config::{Config, NodeConfig, Origin, Origins};
use crate::net::tls::server_config;

use super::look::{Facts, LookError, Receiver, Role};
use super::{Finding, Severity, UserFailure, View};

/// From 14 on every server reports `in_hot_standby`, so that a promotion is seen at once.
const OLDEST_VERSION: u32 = 140_000;
/// Beyond this a timestamp that a client brings means something else on the node.
const CLOCK_LIMIT_SECONDS: f64 = 1.0;

/// All findings, one line for each node first.
pub fn judge(config: &Config, origins: &Origins, views: &[View]) -> Vec<Finding> {
    let mut judge = Judge {
        config,
        origins,
        findings: Vec::new(),
    };
    for (index, view) in views.iter().enumerate() {
        judge.node(index, view);
    }
    let seen: Vec<(usize, &Facts)> = views
        .iter()
        .enumerate()
        .filter_map(|(index, view)| Some((index, view.facts.as_ref().ok()?)))
        .collect();
    let primary = judge.primary(&seen, views.len());
    judge.cluster(&seen, primary);
    judge.regions();
    judge.client_tls();
    judge.findings
}

struct Judge<'a> {
    config: &'a Config,
    origins: &'a Origins,
    findings: Vec<Finding>,
}

impl<'a> Judge<'a> {
    fn find(&mut self, severity: Severity, path: &str, text: String) {
        let origin = match severity {
            Severity::Fine => Origin::Default,
            _ => self.origins.of(path),
        };
        self.findings.push(Finding {
            severity,
            origin,
            text,
        });
    }

    fn about(&mut self, severity: Severity, index: usize, key: &str, text: &str) {
        let config = self.config;
        let name = config.nodes.get(index).map_or("", |node| &node.name);
        self.find(
            severity,
            &format!("nodes.{index}.{key}"),
            format!("{name}: {text}"),
        );
    }

    fn node(&mut self, index: usize, view: &View) {
        let config = self.config;
        let Some(node) = config.nodes.get(index) else {
            return;
        };
        match &view.facts {
            Ok(facts) => self.facts(index, node, facts),
            Err(error) => self.failure(index, node, error),
        }
        for UserFailure { user, error } in &view.user_failures {
            let user_name = config.users.get(*user).map_or("", |user| &user.name);
            let text = format!("{}: user `{user_name}` cannot log in: {error}", node.name);
            self.find(Severity::Problem, &format!("users.{user}.password"), text);
        }
    }

    fn failure(&mut self, index: usize, node: &NodeConfig, error: &LookError) {
        if error.is_about_login() {
            let text = format!(
                "{}: the monitor cannot log in as `{}` to database `{}`: {error}",
                node.name, self.config.monitor.user, self.config.monitor.database
            );
            let path = match error {
                LookError::Refused { code, .. } if code == "3D000" => "monitor.database",
                _ => "monitor.user",
            };
            self.find(Severity::Problem, path, text);
        } else {
            let key = match error {
                LookError::TlsSettings(_) => "sslrootcert",
                LookError::Broken(_) => "sslmode",
                _ => "host",
            };
            self.about(Severity::Problem, index, key, &error.to_string());
        }
    }

    fn facts(&mut self, index: usize, node: &NodeConfig, facts: &Facts) {
        let (role, timeline) = match facts.role {
            Role::Primary { timeline } => ("primary", format!("timeline {timeline}")),
            Role::Replica(Receiver::Timeline(timeline)) => {
                ("replica", format!("timeline {timeline}"))
            }
            Role::Replica(_) => ("replica", "timeline unknown".to_owned()),
        };
        let line = format!(
            "{role}, PostgreSQL {}, {timeline}, WAL blocks of {} bytes, round trip {:.1} ms, {}",
            facts.version,
            facts.wal_block_size_bytes,
            facts.round_trip.as_secs_f64() * 1000.0,
            if facts.encrypted { "TLS" } else { "no TLS" },
        );
        self.about(Severity::Fine, index, "host", &line);
        if facts.version_number < OLDEST_VERSION {
            let text = format!("PostgreSQL {} is too old; 14 is the oldest", facts.version);
            self.about(Severity::Problem, index, "host", &text);
        }
        self.limits(index, node, facts);
        self.clock(index, facts);
        let user = &self.config.monitor.user;
        match facts.role {
            Role::Replica(Receiver::Hidden) => {
                let text = format!(
                    "{}: `{user}` may not see what this replica receives \
                     (pg_stat_wal_receiver.received_tli), so after a failover the replica stays \
                     unused until its next restartpoint: GRANT pg_monitor TO {user}",
                    node.name
                );
                self.find(Severity::Warning, "monitor.user", text);
            }
            Role::Replica(Receiver::Absent) => self.about(
                Severity::Warning,
                index,
                "host",
                "it receives no WAL at the moment (pg_stat_wal_receiver is empty), so it falls behind",
            ),
            Role::Replica(Receiver::Timeline(_)) | Role::Primary { .. } => {}
        }
    }

    fn limits(&mut self, index: usize, node: &NodeConfig, facts: &Facts) {
        if node.max_connections > facts.connections {
            let text = format!(
                "max_connections is {}, but the server has only {} for ordinary users",
                node.max_connections, facts.connections
            );
            self.about(Severity::Problem, index, "max_connections", &text);
        }
        if self.config.pool.size > node.max_connections {
            let text = format!(
                "pool.size ({}) is more than this node may hold open in all (max_connections {})",
                self.config.pool.size, node.max_connections
            );
            self.about(Severity::Warning, index, "max_connections", &text);
        }
    }

    fn clock(&mut self, index: usize, facts: &Facts) {
        let ahead = facts.clock_ahead_seconds;
        if ahead.abs() > CLOCK_LIMIT_SECONDS + facts.round_trip.as_secs_f64() / 2.0 {
            let side = if ahead > 0.0 { "ahead of" } else { "behind" };
            let text = format!("its clock is {:.1} s {side} ours", ahead.abs());
            self.about(Severity::Warning, index, "host", &text);
        }
    }

    /// The one primary, if there is exactly one.
    fn primary<'f>(
        &mut self,
        seen: &[(usize, &'f Facts)],
        nodes: usize,
    ) -> Option<(usize, &'f Facts)> {
        let primaries: Vec<(usize, &Facts)> = seen
            .iter()
            .filter(|(_, facts)| matches!(facts.role, Role::Primary { .. }))
            .copied()
            .collect();
        match primaries.as_slice() {
            [primary] => Some(*primary),
            [] => {
                let text = match nodes - seen.len() {
                    0 => "no node is a primary: all are replicas".to_owned(),
                    hidden => {
                        format!("no primary was seen; {hidden} of {nodes} nodes did not answer")
                    }
                };
                self.find(Severity::Problem, "nodes", text);
                None
            }
            several => {
                let nodes = &self.config.nodes;
                let names: Vec<&str> = several
                    .iter()
                    .filter_map(|(index, _)| Some(nodes.get(*index)?.name.as_str()))
                    .collect();
                let text = format!("several nodes are primaries: {}", names.join(", "));
                self.find(Severity::Problem, "nodes", text);
                None
            }
        }
    }

    /// One cluster, one timeline.
    fn cluster(&mut self, seen: &[(usize, &Facts)], primary: Option<(usize, &Facts)>) {
        let Some((reference, expected)) = primary.or(seen.first().copied()) else {
            return;
        };
        let config = self.config;
        let reference_name = config.nodes.get(reference).map_or("", |node| &node.name);
        for (index, facts) in seen {
            if facts.system_identifier != expected.system_identifier {
                let text = format!(
                    "it belongs to another cluster: its system identifier is {}, that of {reference_name} is {}",
                    facts.system_identifier, expected.system_identifier
                );
                self.about(Severity::Problem, *index, "host", &text);
            } else if let (Role::Replica(Receiver::Timeline(theirs)), Role::Primary { timeline }) =
                (facts.role, expected.role)
                && theirs != timeline
            {
                let text = format!(
                    "it follows timeline {theirs}, but the primary {reference_name} is on timeline {timeline}"
                );
                self.about(Severity::Problem, *index, "host", &text);
            }
        }
    }

    fn regions(&mut self) {
        let config = self.config;
        let Some(region) = &config.region else { return };
        let has_node = config
            .nodes
            .iter()
            .any(|node| node.region.as_ref() == Some(region));
        if !has_node && config.nodes.iter().any(|node| node.region.is_some()) {
            let text = format!("no node stands in our region `{region}`");
            self.find(Severity::Warning, "region", text);
        }
    }
    /// The files are there, as the settings were accepted; are they a certificate and its key?
    fn client_tls(&mut self) {
        if let Some(tls) = &self.config.client.tls
            && let Err(error) = server_config(tls)
        {
            let text = format!("TLS towards clients: {error}");
            self.find(Severity::Problem, "client.tls", text);
        }
    }
}
