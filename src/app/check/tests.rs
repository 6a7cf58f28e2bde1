//! Findings from given facts, word for word. Looking at real nodes is for the integration tests.

use std::io;
use std::time::Duration;

use super::judge::judge;
use super::look::{Facts, LookError, Receiver, Role};
use super::*;
use crate::config::{ClientTls, NodeConfig, Origins, UserConfig};

const PRIMARY: Role = Role::Primary { timeline: 2 };
const REPLICA: Role = Role::Replica(Receiver::Timeline(2));

fn facts(role: Role) -> Facts {
    Facts {
        version_number: 150_018,
        version: "15.18".to_owned(),
        system_identifier: "7000".to_owned(),
        role,
        encrypted: false,
        wal_block_size_bytes: 8192,
        connections: 97,
        round_trip: Duration::from_micros(1500),
        clock_ahead_seconds: 0.0,
    }
}

fn view(facts: Facts) -> View {
    View {
        facts: Ok(facts),
        user_failures: Vec::new(),
    }
}

fn failed(error: LookError) -> View {
    View {
        facts: Err(error),
        user_failures: Vec::new(),
    }
}

fn refused(code: &str, message: &str) -> LookError {
    LookError::Refused {
        code: code.to_owned(),
        message: message.to_owned(),
    }
}

/// Node `a` is at line 1, `b` at line 2, and so on; the user at line 9, the monitor at line 10.
fn report_with(change: impl FnOnce(&mut Config), views: Vec<View>) -> Report {
    let mut config = Config::default();
    let mut origins = Origins::default();
    let line = |line| Origin::Line {
        path: std::path::Path::new("proxy.toml").into(),
        line,
        column: 1,
    };
    for (index, name) in ["a", "b", "c"].iter().take(views.len()).enumerate() {
        config.nodes.push(NodeConfig {
            name: (*name).to_owned(),
            ..NodeConfig::new(*name, 5432)
        });
        origins.set(format!("nodes.{index}"), line(index + 1));
    }
    config.users.push(UserConfig::with_password("app", "x"));
    origins.set("users.0", line(9));
    config.monitor.user = "watch".to_owned();
    origins.set("monitor", line(10));
    change(&mut config);
    Report {
        nodes: views.len(),
        findings: judge(&config, &origins, &views),
    }
}

fn lines(report: &Report) -> Vec<String> {
    report.findings.iter().map(ToString::to_string).collect()
}

/// All but the lines of nodes that answered.
fn bad_lines(views: Vec<View>) -> Vec<String> {
    let mut lines = lines(&report_with(|_| {}, views));
    lines.retain(|line| !line.starts_with("ok"));
    lines
}

#[test]
fn a_good_cluster_has_one_line_for_each_node() {
    let mut replica = facts(REPLICA);
    replica.encrypted = true;
    let report = report_with(|_| {}, vec![view(facts(PRIMARY)), view(replica)]);
    assert!(report.is_good());
    assert_eq!(
        report.to_string(),
        "ok       a: primary, PostgreSQL 15.18, timeline 2, WAL blocks of 8192 bytes, round trip 1.5 ms, no TLS\n\
         ok       b: replica, PostgreSQL 15.18, timeline 2, WAL blocks of 8192 bytes, round trip 1.5 ms, TLS\n\
         nodes: 2, problems: 0, warnings: 0\n"
    );
}

#[test]
fn there_must_be_exactly_one_primary() {
    for (roles, expected) in [
        (
            [REPLICA, REPLICA],
            "problem  no node is a primary: all are replicas",
        ),
        (
            [PRIMARY, PRIMARY],
            "problem  several nodes are primaries: a, b",
        ),
    ] {
        assert_eq!(
            bad_lines(roles.map(|role| view(facts(role))).into()),
            [expected]
        );
    }
    let down = LookError::Connect {
        address: "10.0.0.1:5432".to_owned(),
        error: io::Error::from_raw_os_error(111),
    };
    assert_eq!(
        bad_lines(vec![failed(down), view(facts(REPLICA))]),
        [
            "problem  proxy.toml:1:1: a: cannot connect to 10.0.0.1:5432: Connection refused (os error 111)",
            "problem  no primary was seen; 1 of 2 nodes did not answer",
        ]
    );
}

#[test]
fn each_way_to_fail_is_named_with_its_place() {
    for (error, expected) in [
        (
            LookError::Resolve {
                name: "b.example".to_owned(),
                error: io::Error::other("Name or service not known"),
            },
            "problem  proxy.toml:2:1: b: the host name `b.example` does not resolve: Name or service not known",
        ),
        (
            LookError::Timeout {
                limit: Duration::from_secs(10),
                doing: "while connecting",
            },
            "problem  proxy.toml:2:1: b: no answer within 10s while connecting",
        ),
        (
            refused("28P01", "password authentication failed for user \"watch\""),
            "problem  proxy.toml:10:1: b: the monitor cannot log in as `watch` to database `postgres`: \
             password authentication failed for user \"watch\" (SQLSTATE 28P01)",
        ),
        (
            refused("3D000", "database \"postgres\" does not exist"),
            "problem  proxy.toml:10:1: b: the monitor cannot log in as `watch` to database `postgres`: \
             database \"postgres\" does not exist (SQLSTATE 3D000)",
        ),
        (
            refused("53300", "sorry, too many clients already"),
            "problem  proxy.toml:2:1: b: sorry, too many clients already (SQLSTATE 53300)",
        ),
        (
            LookError::Broken(
                "error performing TLS handshake: invalid peer certificate".to_owned(),
            ),
            "problem  proxy.toml:2:1: b: error performing TLS handshake: invalid peer certificate",
        ),
    ] {
        assert_eq!(
            bad_lines(vec![view(facts(PRIMARY)), failed(error)]),
            [expected]
        );
    }
}

#[test]
fn what_a_node_says_is_judged() {
    let replica = |change: fn(&mut Facts)| {
        let mut facts = facts(REPLICA);
        change(&mut facts);
        facts
    };
    for (facts_of_b, expected) in [
        (
            replica(|facts| (facts.version_number, facts.version) = (130_002, "13.2".to_owned())),
            "problem  proxy.toml:2:1: b: PostgreSQL 13.2 is too old; 14 is the oldest",
        ),
        (
            replica(|facts| facts.system_identifier = "7001".to_owned()),
            "problem  proxy.toml:2:1: b: it belongs to another cluster: its system identifier is 7001, that of a is 7000",
        ),
        (
            replica(|facts| facts.role = Role::Replica(Receiver::Timeline(1))),
            "problem  proxy.toml:2:1: b: it follows timeline 1, but the primary a is on timeline 2",
        ),
        (
            replica(|facts| facts.role = Role::Replica(Receiver::Hidden)),
            "warning  proxy.toml:10:1: b: `watch` may not see what this replica receives \
             (pg_stat_wal_receiver.received_tli), so after a failover the replica stays unused \
             until its next restartpoint: GRANT pg_monitor TO watch",
        ),
        (
            replica(|facts| facts.role = Role::Replica(Receiver::Absent)),
            "warning  proxy.toml:2:1: b: it receives no WAL at the moment (pg_stat_wal_receiver is empty), so it falls behind",
        ),
        (
            replica(|facts| facts.connections = 79),
            "problem  proxy.toml:2:1: b: max_connections is 80, but the server has only 79 for ordinary users",
        ),
        (
            replica(|facts| facts.clock_ahead_seconds = -2.04),
            "warning  proxy.toml:2:1: b: its clock is 2.0 s behind ours",
        ),
        (
            replica(|facts| facts.clock_ahead_seconds = 61.0),
            "warning  proxy.toml:2:1: b: its clock is 61.0 s ahead of ours",
        ),
    ] {
        assert_eq!(
            bad_lines(vec![view(facts(PRIMARY)), view(facts_of_b)]),
            [expected]
        );
    }
}

#[test]
fn a_slow_answer_excuses_the_clock() {
    let mut slow = facts(REPLICA);
    slow.round_trip = Duration::from_secs(1);
    slow.clock_ahead_seconds = 1.4;
    assert_eq!(bad_lines(vec![view(facts(PRIMARY)), view(slow)]), [""; 0]);
}

#[test]
fn users_are_reported_at_their_own_place() {
    let mut primary = view(facts(PRIMARY));
    primary.user_failures.push(UserFailure {
        user: 0,
        error: refused("28P01", "password authentication failed for user \"app\""),
    });
    assert_eq!(
        bad_lines(vec![primary]),
        ["problem  proxy.toml:9:1: a: user `app` cannot log in: \
          password authentication failed for user \"app\" (SQLSTATE 28P01)"]
    );
}

#[test]
fn settings_that_do_not_fit_together_are_warnings() {
    let change = |config: &mut Config| {
        config.pool.size = 81;
        config.region = Some("eu".to_owned());
        config.nodes[0].region = Some("us".to_owned());
    };
    let report = report_with(change, vec![view(facts(PRIMARY))]);
    assert!(report.is_good());
    assert_eq!(
        lines(&report)[1..],
        [
            "warning  proxy.toml:1:1: a: pool.size (81) is more than this node may hold open in all (max_connections 80)",
            "warning  no node stands in our region `eu`",
        ]
    );
}

#[test]
fn a_certificate_must_be_one() {
    let change = |config: &mut Config| {
        config.client.tls = Some(ClientTls {
            certificate: "Cargo.toml".into(),
            key: "Cargo.toml".into(),
            required: false,
        });
    };
    let report = report_with(change, vec![view(facts(PRIMARY))]);
    assert!(!report.is_good());
    assert!(
        lines(&report)[1].starts_with("problem  TLS towards clients: certificate \"Cargo.toml\""),
        "{report}"
    );
}
