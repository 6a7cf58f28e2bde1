//! A Causeway as a process of its own, so that its memory can be told.

use std::net::SocketAddr;
use std::process::Stdio;

use causeway::lab::{APP_DATABASE, APP_USER, Lab, PASSWORD};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::raw::Raw;

pub struct Process {
    child: Child,
    pub address: SocketAddr,
}

impl Process {
    /// Beside the replica of a small lab; returns when it has said that it is ready.
    pub async fn start(lab: &Lab, flags: &[&str]) -> Process {
        let url = |name| lab.node(name).url(APP_USER, PASSWORD, APP_DATABASE);
        let mut child = Command::new(env!("CARGO_BIN_EXE_causeway"))
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--admin",
                "off",
                "--log-format",
                "json",
            ])
            .args(["--primary", &url("us-east"), "--replica", &url("eu-west")])
            .args(flags)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut err = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = loop {
            let line = tokio::select! {
                Ok(Some(line)) = out.next_line() => line,
                Ok(Some(line)) = err.next_line() => line,
                else => panic!("it ended before it was ready"),
            };
            if let Some((_, rest)) = line.split_once("\"listen\":\"") {
                break rest.split('"').next().unwrap().parse().unwrap();
            }
        };
        // What it goes on to log is read and forgotten, so that it never waits for a reader.
        tokio::spawn(async move { while let Ok(Some(_)) = out.next_line().await {} });
        tokio::spawn(async move { while let Ok(Some(_)) = err.next_line().await {} });
        Process { child, address }
    }

    pub async fn client(&self) -> Raw {
        Raw::log_in(self.address, APP_USER, APP_DATABASE).await
    }

    /// The most memory it has ever had, in kB.
    pub fn peak_kb(&self) -> usize {
        self.status_kb("VmHWM:")
    }

    /// The memory that it has now, in kB.
    pub fn resident_kb(&self) -> usize {
        self.status_kb("VmRSS:")
    }

    fn status_kb(&self, name: &str) -> usize {
        let status = format!("/proc/{}/status", self.child.id().unwrap());
        let status = std::fs::read_to_string(status).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let value = line.unwrap().trim().trim_end_matches(" kB");
        value.parse().unwrap()
    }
}
