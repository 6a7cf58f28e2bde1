//! Processor time of processes, from Linux's `/proc`, to the nanosecond.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// User and system time of a process so far, all threads that still run.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).context("a process has ended")?;
    let mut nanoseconds = 0;
    for thread in threads {
        let text = fs::read_to_string(thread?.path().join("schedstat"))?;
        let running = text.split_whitespace().next().context("no schedstat")?;
        nanoseconds += running.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// A process's children.
pub fn children(parent: u32) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // One that ends meanwhile is none.
        let Ok(text) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        let after_name = text.rsplit_once(')').map_or("", |(_, rest)| rest);
        if after_name.split_whitespace().nth(1) == Some(&parent.to_string()) {
            found.push(pid);
        }
    }
    Ok(found)
}
