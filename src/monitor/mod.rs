//! Watches every node and publishes the [`Topology`](crate::routing::Topology).
//!
//! * `connect`: how a node is reached
//! * `probe`: one question to one node
//! * `watch`: the task that repeats it
//! * `fold`: what the answers mean (pure)
//! * `feed`: what sessions see of all that
//! * `catalogue`: what names mean in each database
//! * `metrics`: what operators see of it
//!
//! Roles and positions are observed, never configured. It routes nothing and holds no server of a
//! session.

pub mod catalogue;
mod connect;
mod feed;
mod fold;
mod metrics;
mod probe;
mod watch;

pub use catalogue::{Catalogues, Names};
pub use connect::pool as control_pool;
pub use feed::Feed;
pub use watch::{Monitor, MonitorError};
