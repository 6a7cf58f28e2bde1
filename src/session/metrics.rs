//! What sessions count. Handles are registered once; counting is one atomic addition.

use std::time::Duration;

use metrics::{Counter, Histogram, Unit, counter, describe_counter, describe_histogram, histogram};

use super::audit::Outcome;
use super::capture::Capture;
use super::route::{Reason, Route};
use crate::routing::{NodeName, WaitEnd};
use crate::sql::PinReason;

pub struct SessionMetrics {
    /// By node index.
    by_node: Vec<Counter>,
    by_reason: [Counter; Reason::ALL.len()],
    ran_again: Counter,
    by_pin: [Counter; PinReason::ALL.len()],
    lost_positions: Counter,
    wait: Histogram,
    wait_reached: Counter,
    wait_too_long: Counter,
    wait_not_tried: Counter,
    waits_right: Counter,
    waits_wrong: Counter,
    goes_right: Counter,
    goes_wrong: Counter,
    captures_behind: Counter,
    captures_of_commits: Counter,
    captures_in_writes: Counter,
}

impl SessionMetrics {
    /// `nodes` in the order of their index. Call after a recorder has been installed.
    pub fn new<'a>(nodes: impl Iterator<Item = &'a NodeName>) -> SessionMetrics {
        describe_counter!(
            "causeway_node_runs_total",
            Unit::Count,
            "Transactions and single statements sent to each node"
        );
        describe_counter!(
            "causeway_routes_total",
            Unit::Count,
            "Transactions and single statements by the reason for their route"
        );
        describe_counter!(
            "causeway_reruns_total",
            Unit::Count,
            "Reads that failed on a replica and were run again elsewhere, unseen by the client"
        );
        let node =
            |name: &NodeName| counter!("causeway_node_runs_total", "node" => name.0.to_string());
        let reason =
            |reason: Reason| counter!("causeway_routes_total", "reason" => reason.as_str());
        describe_counter!(
            "causeway_pins_total",
            Unit::Count,
            "Sessions that were pinned to one server of the primary, by what they hold there"
        );
        describe_counter!(
            "causeway_lost_positions_total",
            Unit::Count,
            "Sessions that were told that a failover has lost, or may have lost, what they had written or seen"
        );
        describe_histogram!(
            "causeway_wait_seconds",
            Unit::Seconds,
            "How long reads waited for a replica to catch up"
        );
        describe_counter!(
            "causeway_waits_total",
            Unit::Count,
            "Reads for which a replica was not fresh enough yet, by what came of waiting for it"
        );
        let wait = |outcome: &'static str| counter!("causeway_waits_total", "outcome" => outcome);
        describe_counter!(
            "causeway_decisions_total",
            Unit::Count,
            "Decisions between waiting for a replica and going elsewhere, by what proved to be right"
        );
        let decided = |decision: &'static str, outcome: &'static str| counter!("causeway_decisions_total", "decision" => decision, "outcome" => outcome);
        describe_counter!(
            "causeway_captures_total",
            Unit::Count,
            "Questions to the primary where what a session has done lies, by how they were asked"
        );
        let captures = |way: &'static str| counter!("causeway_captures_total", "way" => way);
        let pin = |pin: PinReason| counter!("causeway_pins_total", "reason" => pin.as_str());
        SessionMetrics {
            by_node: nodes.map(node).collect(),
            by_reason: Reason::ALL.map(reason),
            ran_again: counter!("causeway_reruns_total"),
            by_pin: PinReason::ALL.map(pin),
            wait: histogram!("causeway_wait_seconds"),
            wait_reached: wait("reached"),
            wait_too_long: wait("too long"),
            wait_not_tried: wait("not tried"),
            waits_right: decided("wait", "right"),
            waits_wrong: decided("wait", "wrong"),
            goes_right: decided("go", "right"),
            goes_wrong: decided("go", "wrong"),
            captures_behind: captures("behind"),
            captures_of_commits: captures("with the commit"),
            captures_in_writes: captures("by number"),
            lost_positions: counter!("causeway_lost_positions_total"),
        }
    }

    pub(super) fn routed(&self, route: &Route) {
        if let Some(counter) = self.by_node.get(usize::from(route.node.0)) {
            counter.increment(1);
        }
        if let Some(place) = Reason::ALL
            .iter()
            .position(|reason| *reason == route.reason)
        {
            self.by_reason[place].increment(1);
        }
    }

    pub(super) fn pinned(&self, reason: PinReason) {
        if let Some(place) = PinReason::ALL.iter().position(|known| *known == reason) {
            self.by_pin[place].increment(1);
        }
    }

    /// A read has waited for a replica.
    pub(super) fn waited(&self, end: WaitEnd, time: Duration) {
        self.wait.record(time.as_secs_f64());
        match end {
            WaitEnd::Reached => {
                self.wait_reached.increment(1);
                self.waits_right.increment(1);
            }
            WaitEnd::TooLong => {
                self.wait_too_long.increment(1);
                self.waits_wrong.increment(1);
            }
        }
    }

    /// A read went elsewhere at once, because a wait was expected to take longer.
    pub(super) fn not_worth_waiting(&self) {
        self.wait_not_tried.increment(1);
    }

    /// A read that did not wait has been answered elsewhere.
    pub(super) fn went_elsewhere(&self, outcome: Outcome) {
        match outcome {
            Outcome::Right => self.goes_right.increment(1),
            Outcome::Wrong => self.goes_wrong.increment(1),
        }
    }

    /// The primary is asked for a position, or for a transaction's number.
    pub(super) fn captures(&self, way: Capture) {
        match way {
            Capture::Behind | Capture::BehindWithTrial => self.captures_behind.increment(1),
            Capture::OfCommit => self.captures_of_commits.increment(1),
            Capture::InWrite => self.captures_in_writes.increment(1),
        }
    }

    pub(super) fn lost_position(&self) {
        self.lost_positions.increment(1);
    }

    pub(super) fn ran_again(&self) {
        self.ran_again.increment(1);
    }
}
