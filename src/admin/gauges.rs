//! The gauges that are not kept but read off the tables when somebody asks, as Prometheus text (its
//! manual, section "Text-based format"). They are this instance's alone, even where several share
//! one recorder.

use std::fmt::{Display, Write};

use crate::inspect::{PoolRow, Totals};

pub(super) fn put(text: &mut String, pools: &[PoolRow], totals: Totals) {
    put_head(text, "causeway_clients", "clients that are logged in");
    put_sample(text, "causeway_clients", &[], totals.clients);
    put_head(
        text,
        "causeway_uptime_seconds",
        "how long this instance has been serving",
    );
    put_sample(
        text,
        "causeway_uptime_seconds",
        &[],
        totals.uptime.as_secs(),
    );
    put_head(
        text,
        "causeway_pool_servers",
        "servers by pool and by what they do",
    );
    for pool in pools {
        let servers = pool.servers;
        for (state, count) in [("idle", servers.idle), ("in_use", servers.in_use)] {
            let mut labels = labels(pool).to_vec();
            labels.push(("state", state));
            put_sample(text, "causeway_pool_servers", &labels, count);
        }
    }
    put_head(
        text,
        "causeway_pool_waiters",
        "sessions that wait for a server, by pool",
    );
    for pool in pools {
        let waiters = pool.servers.waiters;
        put_sample(text, "causeway_pool_waiters", &labels(pool), waiters);
    }
}

fn labels(pool: &PoolRow) -> [(&'static str, &str); 3] {
    [
        ("node", &pool.node.0),
        ("database", &pool.database),
        ("user", &pool.user),
    ]
}

fn put_head(text: &mut String, name: &str, help: &str) {
    put_line(
        text,
        format_args!("# HELP {name} {help}\n# TYPE {name} gauge"),
    );
}

fn put_sample(text: &mut String, name: &str, labels: &[(&str, &str)], value: impl Display) {
    let mut written = String::new();
    for (label, value) in labels {
        let separator = if written.is_empty() { '{' } else { ',' };
        let value = value
            .replace('\\', r"\\")
            .replace('"', "\\\"")
            .replace('\n', r"\n");
        written.push_str(&format!("{separator}{label}=\"{value}\""));
    }
    if !written.is_empty() {
        written.push('}');
    }
    put_line(text, format_args!("{name}{written} {value}"));
}

fn put_line(text: &mut String, line: impl Display) {
    // Writing to a String does not fail.
    let _ = writeln!(text, "{line}");
}
