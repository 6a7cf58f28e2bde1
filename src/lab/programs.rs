//! The machine's PostgreSQL server programs: where they are, and as whom they run.
//!
//! PostgreSQL refuses to run as root. When the owner is root, its programs run as the system user
//! `postgres` and every directory that they need is given to that user.

use std::env;
use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::{User, geteuid};
use tokio::io::AsyncWriteExt;

use super::LabError;

/// The environment variable that names the directory of the programs.
pub const BIN_VARIABLE: &str = "CAUSEWAY_PG_BIN";

const PACKAGED: &str = "/usr/lib/postgresql";
const SERVICE_USER: &str = "postgres";

/// The directory of the server programs, and the account they run under.
#[derive(Debug)]
pub(super) struct Programs {
    bin: PathBuf,
    account: Option<Account>,
}

#[derive(Clone, Copy, Debug)]
struct Account {
    uid: u32,
    gid: u32,
}

impl Programs {
    /// `$CAUSEWAY_PG_BIN`, else the newest packaged version, else what `pg_config` says.
    pub(super) fn find() -> Result<Programs, LabError> {
        let bin = match env::var_os(BIN_VARIABLE).map(PathBuf::from) {
            Some(dir) if holds_server(&dir) => dir,
            Some(dir) => return Err(LabError::WrongDirectory(dir)),
            None => newest_packaged(Path::new(PACKAGED))
                .or_else(configured)
                .ok_or(LabError::NoPrograms)?,
        };
        let account = if geteuid().is_root() {
            Some(service_account()?)
        } else {
            None
        };
        Ok(Programs { bin, account })
    }

    /// A command for one of the programs, in `dir`, with none of the owner's `PG*` variables, apart
    /// from the owner's process group so that a Ctrl-C on the terminal does not reach it.
    pub(super) fn command(&self, program: &str, dir: &Path) -> Command {
        let mut command = Command::new(self.bin.join(program));
        for (name, _) in env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"PG") {
                command.env_remove(name);
            }
        }
        command.env("LC_ALL", "C");
        self.run_as_account(&mut command, dir);
        command
    }

    /// Runs one of the programs to its end. Dropping the future ends the program.
    pub(super) async fn run(
        &self,
        program: &str,
        dir: &Path,
        arguments: &[&str],
        input: &str,
    ) -> Result<(), LabError> {
        let mut command = self.command(program, dir);
        command.args(arguments);
        finish(program, command, input).await
    }

    /// Copies a stopped cluster's directory.
    pub(super) async fn copy(&self, from: &Path, to: &Path, dir: &Path) -> Result<(), LabError> {
        let mut command = Command::new("cp");
        command.arg("-Rp").arg(from).arg(to);
        self.run_as_account(&mut command, dir);
        finish("cp", command, "").await
    }

    /// Makes the account the owner of `path`.
    pub(super) fn give(&self, path: &Path) -> Result<(), LabError> {
        match self.account {
            Some(account) => chown(path, Some(account.uid), Some(account.gid))
                .map_err(|error| LabError::io(format!("chown {}", path.display()), error)),
            None => Ok(()),
        }
    }

    /// Whether a module for `shared_preload_libraries` is installed.
    pub(super) fn has_module(&self, module: &str) -> bool {
        let file = format!("{module}.so");
        let asked = ask_pg_config(&self.bin.join("pg_config"), "--pkglibdir");
        let beside = self.bin.join("../lib");
        asked
            .into_iter()
            .chain([beside])
            .any(|dir| dir.join(&file).exists())
    }

    fn run_as_account(&self, command: &mut Command, dir: &Path) {
        command.current_dir(dir).process_group(0);
        if let Some(account) = self.account {
            command.uid(account.uid).gid(account.gid);
        }
    }
}

async fn finish(program: &str, command: Command, input: &str) -> Result<(), LabError> {
    let failed = |error| LabError::io(format!("cannot run {program}"), error);
    let mut child = tokio::process::Command::from(command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends without reading its input says why on its standard error.
        match stdin.write_all(input.as_bytes()).await {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                return Err(failed(error));
            }
            _ => drop(stdin),
        }
    }
    let output = child.wait_with_output().await.map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    Err(LabError::Program {
        program: program.to_string(),
        status: output.status,
        output: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

fn holds_server(dir: &Path) -> bool {
    dir.join("initdb").is_file() && dir.join("postgres").is_file()
}

/// The `bin` directory with the highest version number below `packaged`.
fn newest_packaged(packaged: &Path) -> Option<PathBuf> {
    fs::read_dir(packaged)
        .ok()?
        .flatten()
        .filter_map(|entry| {
            let version: u32 = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .filter(|(_, bin)| holds_server(bin))
        .max()
        .map(|(_, bin)| bin)
}

fn configured() -> Option<PathBuf> {
    ask_pg_config(Path::new("pg_config"), "--bindir").filter(|dir| holds_server(dir))
}

/// None when there is no `pg_config`, which is no error: it is one place of several to look in.
fn ask_pg_config(program: &Path, option: &str) -> Option<PathBuf> {
    let output = Command::new(program).arg(option).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output
        .status
        .success()
        .then(|| PathBuf::from(text.trim_end()))
}

fn service_account() -> Result<Account, LabError> {
    match User::from_name(SERVICE_USER) {
        Ok(Some(user)) => Ok(Account {
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
        }),
        _ => Err(LabError::NoAccount),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_packaged_version_with_a_server_is_taken() {
        let packaged = tempfile::tempdir().unwrap();
        for (version, programs) in [
            ("9", &["initdb", "postgres"][..]),
            ("15", &["initdb", "postgres"]),
            ("17", &["psql"]),
            ("notes", &["initdb", "postgres"]),
        ] {
            let bin = packaged.path().join(version).join("bin");
            fs::create_dir_all(&bin).unwrap();
            for program in programs {
                fs::write(bin.join(program), "").unwrap();
            }
        }
        assert_eq!(
            newest_packaged(packaged.path()),
            Some(packaged.path().join("15/bin"))
        );
        assert_eq!(newest_packaged(&packaged.path().join("none")), None);
    }
}
