//! One node's figures for the `metrics` facade; handles are registered once.

use std::time::Instant;

use ::metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};

use crate::routing::{Node, Role, Topology};

/// Names what is measured, once per process or recorder.
pub fn describe() {
    describe_gauge!(
        "causeway_node_up",
        "1 while the node answers and may be used, else 0"
    );
    describe_gauge!(
        "causeway_node_primary",
        "1 while the node is the primary, else 0"
    );
    describe_gauge!(
        "causeway_node_lag_bytes",
        "bytes of WAL between the primary's last known position and this node's"
    );
    describe_gauge!(
        "causeway_node_staleness_seconds",
        "how old at the most the state of this replica is"
    );
    describe_gauge!(
        "causeway_node_round_trip_seconds",
        "median of the last probes' round trips"
    );
    describe_counter!(
        "causeway_probe_failures_total",
        "probes that were not answered"
    );
}

/// The handles of one node.
pub struct NodeMetrics {
    up: Gauge,
    primary: Gauge,
    lag_bytes: Gauge,
    staleness: Gauge,
    round_trip: Gauge,
    pub failures: Counter,
}

impl NodeMetrics {
    pub fn new(node: &str) -> NodeMetrics {
        let label = || [("node", node.to_owned())];
        NodeMetrics {
            up: gauge!("causeway_node_up", &label()),
            primary: gauge!("causeway_node_primary", &label()),
            lag_bytes: gauge!("causeway_node_lag_bytes", &label()),
            staleness: gauge!("causeway_node_staleness_seconds", &label()),
            round_trip: gauge!("causeway_node_round_trip_seconds", &label()),
            failures: counter!("causeway_probe_failures_total", &label()),
        }
    }

    /// Shows what `topology` says of `node`. Figures that are not known keep their last value;
    /// `up` tells whether they count.
    pub fn show(&self, node: &Node, topology: &Topology, now: Instant) {
        let flag = |yes: bool| f64::from(u8::from(yes));
        self.up.set(flag(node.observation().is_some()));
        self.primary.set(flag(topology.primary == Some(node.index)));
        if let Some(round_trip) = node.round_trip {
            self.round_trip.set(round_trip.as_secs_f64());
        }
        let (Some(seen), Some(newest)) = (node.observation(), topology.history.newest()) else {
            return;
        };
        match seen.role {
            Role::Primary => {
                self.lag_bytes.set(0.0);
                self.staleness.set(0.0);
            }
            Role::Replica => {
                self.lag_bytes.set(newest.lsn.bytes_since(seen.lsn) as f64);
                if let Some(age) = topology.history.staleness(seen.lsn, now) {
                    self.staleness.set(age.as_secs_f64());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use ::metrics::with_local_recorder;
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;
    use crate::routing::history::Sample;
    use crate::routing::{History, Lsn, NodeIndex, NodeName, NodeState, Observation, WalGeometry};

    #[test]
    fn a_node_shows_its_lag_and_whether_it_is_used() {
        let now = Instant::now();
        let before = |ms| now - Duration::from_millis(ms);
        let mut history = History::default();
        for (ms, lsn) in [(1_500, 100), (500, 300)] {
            let started = before(ms);
            history.push(Sample {
                started,
                lsn: Lsn(lsn),
                clock: None,
            });
        }
        let seen = Observation {
            started: before(10),
            finished: before(5),
            connected: before(9_000),
            role: Role::Replica,
            lsn: Lsn(250),
            received: None,
            timeline: None,
            branched_at: None,
            clock: None,
            tells_transactions: true,
        };
        let node = Node {
            name: NodeName("r".into()),
            index: NodeIndex(0),
            address: "127.0.0.1:5432".into(),
            region: None,
            weight: 100,
            state: NodeState::Up(seen),
            round_trip: Some(Duration::from_millis(80)),
            furthest: Lsn::ZERO,
        };
        let topology = Topology {
            nodes: vec![Arc::new(node.clone())],
            primary: None,
            system: None,
            timeline: None,
            geometry: WalGeometry::default(),
            history: Arc::new(history),
            switches: Arc::default(),
        };
        let gone = Node {
            state: NodeState::Down {
                since: now,
                reason: "no route".into(),
            },
            ..node.clone()
        };
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        with_local_recorder(&recorder, || {
            let metrics = NodeMetrics::new("r");
            metrics.failures.increment(2);
            metrics.show(&node, &topology, now);
            let text = handle.render();
            for line in [
                "causeway_node_up{node=\"r\"} 1",
                "causeway_node_primary{node=\"r\"} 0",
                "causeway_node_lag_bytes{node=\"r\"} 50",
                "causeway_node_staleness_seconds{node=\"r\"} 1.5",
                "causeway_node_round_trip_seconds{node=\"r\"} 0.08",
                "causeway_probe_failures_total{node=\"r\"} 2",
            ] {
                assert!(text.contains(line), "no {line} in:\n{text}");
            }
            metrics.show(&gone, &topology, now);
            assert!(handle.render().contains("causeway_node_up{node=\"r\"} 0"));
        });
    }
}
