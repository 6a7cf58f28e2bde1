//! The stage: a primary some milliseconds away, and two replicas beside the Causeway.

use std::time::Duration;

use causeway::app::Running;
use causeway::lab::{Lab, LabBuilder};

use crate::support;

pub const PRIMARY: &str = "us-east";
pub const NEAR: &str = "eu-west";
pub const NEAR_TOO: &str = "eu-west-2";

/// Far enough for the replicas to be the nearer ones, near enough for many writes.
const DISTANCE: Duration = Duration::from_millis(3);

pub fn builder() -> LabBuilder {
    Lab::builder()
        .quick()
        .primary(PRIMARY)
        .replica(NEAR)
        .replica(NEAR)
        .round_trip(PRIMARY, NEAR, DISTANCE)
}

/// Replay waits for reads, so that lag is the only thing that readers notice.
pub async fn lab() -> Lab {
    let builder = builder().setting("max_standby_streaming_delay = -1");
    builder.build().await.unwrap()
}

/// A Causeway beside the replicas.
pub async fn start(lab: &Lab) -> Running {
    support::start(lab, NEAR).await
}

/// Replay stops on both replicas, with all there is.
pub async fn stand_still(lab: &Lab) {
    for replica in [NEAR, NEAR_TOO] {
        lab.wait_caught_up(replica).await.unwrap();
        lab.node(replica).pause_replay().await.unwrap();
    }
}

/// Replay goes on; returns when both replicas have caught up.
pub async fn go_on(lab: &Lab) {
    for replica in [NEAR, NEAR_TOO] {
        lab.node(replica).resume_replay().await.unwrap();
        lab.wait_caught_up(replica).await.unwrap();
    }
}
