use std::time::Duration;

use serde_json::json;

use super::{gauges, json};
use crate::inspect::{NodeRow, NodeStatus, PoolRow, Servers, Totals};
use crate::routing::{Lsn, NodeIndex, NodeName};
use crate::sql::Learned;

fn pool(database: &str) -> PoolRow {
    PoolRow {
        database: database.into(),
        user: "app".into(),
        node: NodeName("eu".into()),
        index: NodeIndex(1),
        servers: Servers {
            idle: 3,
            in_use: 2,
            waiters: 1,
        },
        size: 20,
    }
}

#[test]
fn gauges_are_prometheus_text_whatever_a_database_is_called() {
    let totals = Totals {
        uptime: Duration::from_millis(61_900),
        clients: 7,
        servers: Servers::default(),
        statement_cache_bytes: 0,
    };
    let mut text = "before 1\n".to_owned();
    gauges::put(&mut text, &[pool("a\"b\\c\nd")], totals);
    let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let labels = r#"node="eu",database="a\"b\\c\nd",user="app""#;
    assert_eq!(
        samples,
        [
            "before 1",
            "causeway_clients 7",
            "causeway_uptime_seconds 61",
            &format!("causeway_pool_servers{{{labels},state=\"idle\"}} 3"),
            &format!("causeway_pool_servers{{{labels},state=\"in_use\"}} 2"),
            &format!("causeway_pool_waiters{{{labels}}} 1"),
        ]
    );
    for name in ["clients", "uptime_seconds", "pool_servers", "pool_waiters"] {
        assert!(text.contains(&format!("# TYPE causeway_{name} gauge\n")));
    }
}

#[test]
fn rows_are_written_with_units_and_null_for_the_unknown() {
    let replica = NodeRow {
        name: NodeName("eu".into()),
        address: "10.0.0.1:5432".into(),
        region: Some("eu-west".into()),
        weight: 50,
        status: NodeStatus::Replica,
        position: Some(Lsn(0x16_B374_D848)),
        lag_bytes: Some(1_000),
        staleness: Some(Duration::from_millis(1_500)),
        observed_ago: Some(Duration::from_millis(250)),
        round_trip: Some(Duration::from_millis(80)),
        servers: Servers {
            idle: 1,
            in_use: 2,
            waiters: 3,
        },
    };
    assert_eq!(
        json::node(&replica),
        json!({
            "name": "eu", "address": "10.0.0.1:5432", "region": "eu-west", "weight": 50,
            "status": "replica", "reason": null, "down_seconds": null,
            "position": "16/B374D848", "lag_bytes": 1000, "staleness_seconds": 1.5,
            "observed_seconds_ago": 0.25, "round_trip_seconds": 0.08,
            "servers": {"idle": 1, "in_use": 2, "open": 3, "waiters": 3},
        })
    );
    let down = NodeRow {
        region: None,
        status: NodeStatus::Down {
            since_ago: Duration::from_secs(4),
            reason: "no route".into(),
        },
        position: None,
        ..replica
    };
    let written = json::node(&down);
    assert_eq!(written["status"], "down");
    assert_eq!(written["reason"], "no route");
    assert_eq!(written["down_seconds"], 4.0);
    assert_eq!(written["region"], json!(null));
    assert_eq!(written["position"], json!(null));
    assert_eq!(
        json::pool(&pool("d\"")),
        json!({
            "database": "d\"", "user": "app", "node": "eu", "size": 20,
            "servers": {"idle": 3, "in_use": 2, "open": 5, "waiters": 1},
        })
    );
    let learned = Learned {
        fingerprint: 0xAB,
        text: "SELECT f()".into(),
    };
    assert_eq!(
        json::learned(&learned),
        json!({"fingerprint": "000000000000000000000000000000ab", "text": "SELECT f()"})
    );
}
