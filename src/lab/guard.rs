//! A small shell process that outlives the owner by a moment and clears up after it.
//!
//! However the owner ends (a panic, Ctrl-C, SIGKILL), the guard's standard input closes. It then
//! stops every postmaster that has a `postmaster.pid` below the lab's directory, and removes the
//! directory. It is a net, not the usual way: a lab that is dropped has stopped its nodes already.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// SIGQUIT is PostgreSQL's immediate shutdown. The directory can refuse to go while a process in
/// its last moments still writes to it.
const SCRIPT: &str = r#"
trap '' HUP INT TERM
while read -r _; do :; done
for file in "$1"/*/postmaster.pid; do
    if [ -f "$file" ]; then kill -QUIT "$(head -n 1 "$file")"; fi
done
tries=0
while [ -d "$1" ] && [ "$tries" -lt 100 ]; do
    rm -rf "$1" || sleep 0.1
    tries=$((tries + 1))
done
"#;

pub(super) struct Guard(Child);

impl Guard {
    /// Starts to watch over `dir`, before the first postmaster starts.
    pub(super) fn over(dir: &Path) -> io::Result<Guard> {
        Command::new("sh")
            .args(["-c", SCRIPT, "causeway-lab-guard"])
            .arg(dir)
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map(Guard)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        if let Err(error) = self.0.wait() {
            tracing::warn!(%error, "lab: cannot wait for the guard");
        }
    }
}
