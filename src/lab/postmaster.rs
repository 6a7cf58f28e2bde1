//! One running PostgreSQL server: start, signals, end. Knows processes, not SQL.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use super::LabError;
use super::programs::Programs;

/// A start or a stop that takes longer has failed. A fast stop of a primary waits for its
/// replicas to be sent everything, up to `wal_sender_timeout`.
const PATIENCE: Duration = Duration::from_secs(60);
const GLANCE: Duration = Duration::from_millis(5);
const LOG_TAIL_LINES: usize = 20;

/// How a node is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Sessions are ended, a checkpoint is written.
    Fast,
    /// No checkpoint: the next start recovers, as after a crash.
    Immediate,
}

/// A postmaster that we started and have not yet seen end. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Postmaster {
    child: Child,
    data: PathBuf,
}

impl Postmaster {
    /// Starts a server on `data` and waits until it takes connections. `data` must have no other.
    pub(super) async fn start(
        programs: &Programs,
        node: &str,
        data: &Path,
        log: &Path,
    ) -> Result<Postmaster, LabError> {
        remove_stale(&pid_file(data))?;
        let io = |what: &str| {
            let what = format!("{what} {}", log.display());
            move |error| LabError::io(what, error)
        };
        let output = File::options()
            .create(true)
            .append(true)
            .open(log)
            .map_err(io("cannot open"))?;
        let errors = output.try_clone().map_err(io("cannot share"))?;
        let child = programs
            .command("postgres", data)
            .arg("-D")
            .arg(data)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .map_err(io("cannot start postgres with log"))?;
        let mut postmaster = Postmaster {
            child,
            data: data.to_path_buf(),
        };
        let begun = tokio::time::Instant::now();
        while !postmaster.is_ready() {
            let ended = postmaster.has_ended().map_err(io("postgres with log"))?;
            if ended || begun.elapsed() > PATIENCE {
                return Err(LabError::Start {
                    node: node.to_string(),
                    log: log_tail(log),
                });
            }
            tokio::time::sleep(GLANCE).await;
        }
        Ok(postmaster)
    }

    /// Stops the server and waits until it is gone; one that does not go is killed, as an error.
    pub(super) async fn stop(mut self, node: &str, mode: Mode) -> Result<(), LabError> {
        let failed = |error| LabError::io(format!("cannot stop node {node}"), error);
        self.signal(match mode {
            Mode::Fast => Signal::SIGINT,
            Mode::Immediate => Signal::SIGQUIT,
        })
        .map_err(failed)?;
        let begun = tokio::time::Instant::now();
        while !self.has_ended().map_err(failed)? {
            if begun.elapsed() > PATIENCE {
                return Err(LabError::Timeout(format!("stopping node {node}")));
            }
            tokio::time::sleep(GLANCE).await;
        }
        Ok(())
    }

    /// SIGKILL for the postmaster and all its children, as when the machine goes; waits until they
    /// are gone. Children are found through `/proc`; elsewhere than on Linux they end by
    /// themselves once they notice that the postmaster is gone.
    pub(super) async fn kill(mut self, node: &str) -> Result<(), LabError> {
        let failed = |error| LabError::io(format!("cannot kill node {node}"), error);
        // Stopped first, it can neither start nor clear up anything in between.
        self.signal(Signal::SIGSTOP).map_err(failed)?;
        let children = children_of(self.pid());
        self.signal(Signal::SIGKILL).map_err(failed)?;
        for &child in &children {
            send(child, Signal::SIGKILL).map_err(failed)?;
        }
        self.child.wait().map_err(failed)?;
        let begun = tokio::time::Instant::now();
        while children.iter().any(|&child| is_alive(child)) {
            if begun.elapsed() > PATIENCE {
                return Err(LabError::Timeout(format!("killing node {node}")));
            }
            tokio::time::sleep(GLANCE).await;
        }
        Ok(())
    }

    /// Asks for an immediate stop without waiting for it; the drop waits.
    pub(super) fn begin_to_end(&self) {
        if let Err(error) = self.signal(Signal::SIGQUIT) {
            tracing::warn!(%error, data = %self.data.display(), "lab: cannot stop a node");
        }
    }

    pub(super) fn is_running(&mut self) -> bool {
        matches!(self.has_ended(), Ok(false))
    }

    fn pid(&self) -> Pid {
        // Process ids fit: the kernel's pid_t is an i32.
        Pid::from_raw(self.child.id() as i32)
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        send(self.pid(), signal)
    }

    fn has_ended(&mut self) -> io::Result<bool> {
        self.child.try_wait().map(|status| status.is_some())
    }

    /// `postmaster.pid` is ours and its eighth line says so (the same test as `pg_ctl start`).
    fn is_ready(&self) -> bool {
        let Ok(text) = fs::read_to_string(pid_file(&self.data)) else {
            return false;
        };
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        lines.first() == Some(&self.child.id().to_string().as_str())
            && lines.get(7) == Some(&"ready")
    }
}

impl Drop for Postmaster {
    fn drop(&mut self) {
        const DROP_PATIENCE: Duration = Duration::from_secs(10);
        let begun = std::time::Instant::now();
        if matches!(self.has_ended(), Ok(true)) {
            return;
        }
        self.begin_to_end();
        while matches!(self.has_ended(), Ok(false)) {
            if begun.elapsed() > DROP_PATIENCE {
                tracing::warn!(data = %self.data.display(), "lab: a node has to be killed");
                if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
                    tracing::warn!(%error, "lab: cannot kill a node");
                }
                return;
            }
            std::thread::sleep(GLANCE);
        }
    }
}

fn pid_file(data: &Path) -> PathBuf {
    data.join("postmaster.pid")
}

/// After a kill the file is left behind, and a new process may meanwhile have the number in it.
/// The caller knows that the server is gone.
fn remove_stale(pid_file: &Path) -> Result<(), LabError> {
    match fs::remove_file(pid_file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(LabError::io(
            format!("cannot remove {}", pid_file.display()),
            error,
        )),
        _ => Ok(()),
    }
}

/// A process that is gone already has got what it should.
fn send(pid: Pid, signal: Signal) -> io::Result<()> {
    match signal::kill(pid, signal) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn children_of(parent: Pid) -> Vec<Pid> {
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .map(Pid::from_raw)
        .filter(|&pid| matches!(state_of(pid), Some((_, of)) if of == parent))
        .collect()
}

/// A zombie is gone, even where nobody collects it.
fn is_alive(pid: Pid) -> bool {
    matches!(state_of(pid), Some((state, _)) if state != 'Z')
}

/// State and parent from `/proc/<pid>/stat`, in which only the name can hold spaces and brackets.
fn state_of(pid: Pid) -> Option<(char, Pid)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = text.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    Some((state, Pid::from_raw(parent)))
}

fn log_tail(log: &Path) -> String {
    let text = match fs::read(log) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => return format!("(its log {} cannot be read: {error})", log.display()),
    };
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
}
