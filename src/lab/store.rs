//! A Redis or Valkey server of this machine on a port of its own, for session keys that several
//! Causeways share. It keeps nothing on disk unless it is told to.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use super::LabError;
use super::port::PortClaim;

/// A running server; ends with its owner, however that ends.
pub struct LabStore {
    program: &'static str,
    port: PortClaim,
    directory: TempDir,
    process: Option<Process>,
}

/// The shell that watches over the server, and the server.
struct Process {
    shell: Child,
    server: Pid,
}

/// The shell ends the server when its own input closes.
const SCRIPT: &str = r#""$@" >/dev/null 2>&1 & echo $!
exec >&-
while read -r _; do :; done
kill -KILL $!"#;

const PROGRAMS: [&str; 2] = ["valkey-server", "redis-server"];
const PATIENCE: Duration = Duration::from_secs(30);
const GLANCE: Duration = Duration::from_millis(5);

impl LabStore {
    /// Starts one that is empty, and returns when it answers.
    pub async fn start() -> Result<LabStore, LabError> {
        let program = PROGRAMS.into_iter().find(|program| is_installed(program));
        let program = program.ok_or(LabError::NoStore)?;
        let directory = TempDir::new().map_err(|error| LabError::io("no directory", error))?;
        let mut store = LabStore {
            program,
            port: PortClaim::new()?,
            directory,
            process: None,
        };
        store.start_again().await?;
        Ok(store)
    }

    pub fn port(&self) -> u16 {
        self.port.port()
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port())
    }

    /// After [`kill`](LabStore::kill): with what [`save`](LabStore::save) has kept, or with nothing.
    pub async fn start_again(&mut self) -> Result<(), LabError> {
        let failed = |error| LabError::io("cannot start the key store", error);
        let mut shell = Command::new("sh")
            .args(["-c", SCRIPT, "causeway-lab-store", self.program])
            .args(["--bind", "127.0.0.1", "--save", "", "--dir"])
            .arg(self.directory.path())
            .args(["--port", &self.port().to_string()])
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let out = shell.stdout.take();
        let out = out.ok_or_else(|| failed(io::ErrorKind::BrokenPipe.into()))?;
        let mut line = String::new();
        BufReader::new(out)
            .read_line(&mut line)
            .await
            .map_err(failed)?;
        let server = line.trim().parse().map(Pid::from_raw);
        let server = server.map_err(|_| failed(io::ErrorKind::InvalidData.into()))?;
        self.process = Some(Process { shell, server });
        let begun = Instant::now();
        while self.ask("PING").await.is_err() {
            if begun.elapsed() > PATIENCE {
                return Err(LabError::Timeout("the key store's start".to_owned()));
            }
            sleep(GLANCE).await;
        }
        Ok(())
    }

    /// Ends it at once, and with it all that was not saved.
    pub async fn kill(&mut self) -> Result<(), LabError> {
        let Some(mut process) = self.process.take() else {
            return Ok(());
        };
        let failed = |error| LabError::io("cannot end the key store", error);
        drop(process.shell.stdin.take());
        process.shell.wait().await.map_err(failed)?;
        Ok(())
    }

    /// Keeps what it has now for the next start.
    pub async fn save(&self) -> Result<(), LabError> {
        self.ask("SAVE").await.map(|_| ())
    }

    /// It takes connections and says nothing any more.
    pub fn freeze(&self) -> Result<(), LabError> {
        self.signal(Signal::SIGSTOP)
    }

    pub fn thaw(&self) -> Result<(), LabError> {
        self.signal(Signal::SIGCONT)
    }

    fn signal(&self, signal: Signal) -> Result<(), LabError> {
        let process = self.process.as_ref();
        process.map_or(Ok(()), |process| {
            kill(process.server, signal)
                .map_err(|error| LabError::io("cannot signal the key store", error.into()))
        })
    }

    /// The first line of what it answers to a command of plain words; an error of its is one.
    pub async fn ask(&self, command: &str) -> Result<String, LabError> {
        let asked = async {
            let mut tcp = TcpStream::connect(self.port.address()).await?;
            tcp.write_all(format!("{command}\r\n").as_bytes()).await?;
            let mut answer = Vec::new();
            while !answer.ends_with(b"\n") {
                let mut chunk = [0; 512];
                match tcp.read(&mut chunk).await? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    count => answer.extend_from_slice(&chunk[..count]),
                }
            }
            let answer = String::from_utf8_lossy(&answer);
            match answer.lines().next().unwrap_or_default() {
                error if error.starts_with('-') => Err(io::Error::other(error.to_owned())),
                line => Ok(line.to_owned()),
            }
        };
        asked
            .await
            .map_err(|error| LabError::io(format!("the key store, {command}"), error))
    }
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory: std::path::PathBuf| {
        let path: &Path = &directory.join(program);
        path.is_file()
    })
}
