//! The tables as JSON. Durations are seconds, positions are written as PostgreSQL writes them, and
//! what is not known is null.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::inspect::{Health, NodeRow, NodeStatus, PoolRow, Servers, View};
use crate::sql::{Learned, Unparsed};

pub(super) fn status(view: &View, now: Instant) -> Value {
    let totals = view.totals(now);
    let pools: Vec<Value> = view.pools().iter().map(pool).collect();
    let unparsed: Vec<Value> = view.unparsed().iter().map(unparsed).collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "status": health_word(view.health()),
        "uptime_seconds": totals.uptime.as_secs(),
        "clients": totals.clients,
        "servers": servers(totals.servers),
        "statement_cache_bytes": totals.statement_cache_bytes,
        "nodes": nodes(view, now),
        "pools": pools,
        "learned_writes": learned_writes(view),
        "unparsed": unparsed,
    })
}

pub(super) fn learned_writes(view: &View) -> Value {
    view.learned_writes().iter().map(learned).collect()
}

pub(super) fn forgotten(count: usize) -> Value {
    json!({ "forgotten": count })
}

/// As much as a load balancer or a colleague at night wants to know.
pub(super) fn health(view: &View, now: Instant) -> Value {
    let nodes: Vec<Value> = view.nodes(now).iter().map(node_health).collect();
    json!({ "status": health_word(view.health()), "nodes": nodes })
}

fn health_word(health: Health) -> &'static str {
    match health {
        Health::Healthy => "healthy",
        Health::Degraded => "degraded",
        Health::Unhealthy => "unhealthy",
    }
}

fn nodes(view: &View, now: Instant) -> Vec<Value> {
    view.nodes(now).iter().map(node).collect()
}

fn node_health(row: &NodeRow) -> Value {
    json!({
        "name": &*row.name.0,
        "status": status_word(&row.status),
        "reason": reason(&row.status),
        "staleness_seconds": row.staleness.map(|age| age.as_secs_f64()),
    })
}

pub(super) fn node(row: &NodeRow) -> Value {
    let down_seconds = match &row.status {
        NodeStatus::Down { since_ago, .. } => Some(since_ago.as_secs_f64()),
        _ => None,
    };
    let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
    json!({
        "name": &*row.name.0,
        "address": &*row.address,
        "region": row.region.as_deref(),
        "weight": row.weight,
        "status": status_word(&row.status),
        "reason": reason(&row.status),
        "down_seconds": down_seconds,
        "position": row.position.map(|lsn| lsn.to_string()),
        "lag_bytes": row.lag_bytes,
        "staleness_seconds": seconds(row.staleness),
        "observed_seconds_ago": seconds(row.observed_ago),
        "round_trip_seconds": seconds(row.round_trip),
        "servers": servers(row.servers),
    })
}

fn status_word(status: &NodeStatus) -> &'static str {
    match status {
        NodeStatus::Unknown => "unknown",
        NodeStatus::Primary => "primary",
        NodeStatus::Replica => "replica",
        NodeStatus::RivalPrimary => "rival primary",
        NodeStatus::Down { .. } => "down",
        NodeStatus::Excluded { .. } => "excluded",
    }
}

fn reason(status: &NodeStatus) -> Option<&str> {
    match status {
        NodeStatus::Unknown => Some("not probed yet"),
        NodeStatus::RivalPrimary => Some("another node of its timeline takes writes too"),
        NodeStatus::Down { reason, .. } | NodeStatus::Excluded { reason } => Some(reason),
        NodeStatus::Primary | NodeStatus::Replica => None,
    }
}

pub(super) fn pool(row: &PoolRow) -> Value {
    json!({
        "database": &*row.database,
        "user": &*row.user,
        "node": &*row.node.0,
        "size": row.size,
        "servers": servers(row.servers),
    })
}

fn servers(servers: Servers) -> Value {
    json!({
        "idle": servers.idle,
        "in_use": servers.in_use,
        "open": servers.open(),
        "waiters": servers.waiters,
    })
}

pub(super) fn learned(learned: &Learned) -> Value {
    json!({
        // A string: numbers of this size lose digits in most readers of JSON.
        "fingerprint": format!("{:032x}", learned.fingerprint),
        "text": &*learned.text,
    })
}

pub(super) fn unparsed(unparsed: &Unparsed) -> Value {
    json!({
        "fingerprint": format!("{:032x}", unparsed.fingerprint),
        "count": unparsed.count,
        "text": &*unparsed.text,
    })
}
