//! Causeway, a PostgreSQL proxy for applications that run in several regions.
//!
//! Writes go to the primary, reads to the nearest replica that is fresh enough for the session
//! that asks. The modules are layers: each may import only from those above it in this list
//! (`app` and `lab` may use all); `tests/tidy.rs` holds them to it.
//!
//! * [`protocol`], [`sql`], [`routing`]: pure decisions, no I/O, no clock, no log
//! * [`config`]: the settings as plain data
//! * [`net`]: sockets, TLS, buffered streams
//! * [`server`]: our connections to PostgreSQL
//! * [`client`]: applications' connections to us, up to the end of the log-in
//! * [`monitor`]: probes of every node, publishes the topology
//! * [`pool`]: servers at rest, by node, database and user
//! * [`session`]: the loop from request to answer
//! * [`inspect`], [`admin`]: live state, and the faces that show it
//! * [`lab`]: local PostgreSQL clusters with simulated distance
//! * [`app`]: builds everything, listens, shuts down

pub mod admin;
pub mod app;
pub mod client;
pub mod config;
pub mod inspect;
pub mod lab;
pub mod monitor;
pub mod net;
pub mod pool;
pub mod protocol;
pub mod routing;
pub mod server;
pub mod session;
pub mod sql;
