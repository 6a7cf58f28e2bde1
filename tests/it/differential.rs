//! The classifier against real servers. Whatever psql sends to the primary passes through a relay
//! that classifies it first, and then looks what it really did: whether it took a transaction
//! number or a lock stronger than a read's, and whether the replica refuses it. A statement that is
//! classed as a read and did any of that is a failure. The reverse, a write that only read, costs a
//! far trip; those are counted with their reasons.

mod generated;
mod relay;
mod tally;

use std::cell::RefCell;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use causeway::lab::{Lab, PASSWORD, SUPERUSER};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

use relay::Relay;
use tally::Tally;

const DATABASE: &str = "regression";

/// One script takes no longer, unless it hangs.
const SCRIPT_TIMEOUT: Duration = Duration::from_secs(900);

/// Objects of every kind, and statements that use them in every way.
const OBJECTS: &str = include_str!("differential/objects.sql");
const CORPUS: &str = include_str!("differential/corpus.sql");

#[tokio::test]
async fn no_statement_of_the_corpus_is_a_read_that_writes() {
    let relay = relay().await;
    for (name, script) in [("objects", OBJECTS), ("corpus", CORPUS)] {
        psql(&relay, name, script, &[], Path::new("/")).await;
    }
    for script in ["tpcb-like", "simple-update", "select-only"] {
        psql(&relay, script, &pgbench(script).await, &[], Path::new("/")).await;
    }
    let tally = relay.tally();
    println!("{tally}");
    assert_eq!(tally.failures, Vec::<String>::new());
    assert!(tally.reads > 60, "{tally}");
    assert!(
        tally.refused_writes > 10,
        "the replica is not asked: {tally}"
    );
    let share = tally.needless_share();
    assert!(share < 0.03, "{share}: {tally}");
    let near = tally.near_share();
    assert!(near < 0.03, "{near}: {tally}");
}

#[tokio::test]
async fn some_things_in_each_place_are_no_reads_that_write() {
    const ONE_IN: usize = 9;
    let tally = generated(ONE_IN).await;
    assert!(tally.reads > 50, "{tally}");
    assert!(tally.refused_writes > 100, "{tally}");
}

/// All pairs: `make differential`.
#[tokio::test]
#[ignore = "takes some minutes"]
async fn no_thing_in_any_place_is_a_read_that_writes() {
    let tally = generated(1).await;
    assert!(tally.reads > 600, "{tally}");
    assert!(tally.refused_writes > 1_000, "{tally}");
}

/// Each kind of thing in one in so many of the places where it can stand.
async fn generated(one_in: usize) -> Tally {
    let relay = relay().await;
    psql(&relay, "objects", OBJECTS, &[], Path::new("/")).await;
    let script = generated::script(one_in);
    psql(&relay, "generated", &script, &[], Path::new("/")).await;
    let tally = relay.tally();
    println!("{tally}");
    assert_eq!(tally.failures, Vec::<String>::new());
    tally
}

/// PostgreSQL's own suite: `make differential`.
#[tokio::test]
#[ignore = "fetches PostgreSQL's sources and takes some minutes"]
async fn no_statement_of_the_regression_suite_is_a_read_that_writes() {
    let work = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/regress");
    let suite = work.join("suite");
    let schedule = std::fs::read_to_string(suite.join("parallel_schedule"))
        .expect("tests/regress/setup.sh has fetched the suite");
    let relay = relay().await;
    // PostgreSQL's user cannot look into every directory of ours.
    let build = tempfile::Builder::new()
        .prefix("causeway-differential-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .tempdir()
        .unwrap();
    let build = build.path();
    copy(&suite.join("data"), &build.join("data"));
    std::fs::copy(work.join("regress.so"), build.join("regress.so")).unwrap();
    for name in ["results", "testtablespace"] {
        let made = build.join(name);
        std::fs::create_dir(&made).unwrap();
        let all: std::fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(&made, all).unwrap();
    }
    let directory = build.display().to_string();
    let environment = [
        ("PG_ABS_SRCDIR", directory.as_str()),
        ("PG_ABS_BUILDDIR", &directory),
        ("PG_LIBDIR", &directory),
        ("PG_DLSUFFIX", ".so"),
        ("PGTZ", "America/Los_Angeles"),
        ("PGDATESTYLE", "Postgres, MDY"),
        ("PGOPTIONS", "-c intervalstyle=postgres_verbose"),
    ];
    let only = std::env::var("DIFFERENTIAL_TESTS").unwrap_or_default();
    let is_wanted = |test: &&str| {
        only.is_empty() || *test == "test_setup" || only.split(' ').any(|it| it == *test)
    };
    let groups = schedule
        .lines()
        .filter_map(|line| line.strip_prefix("test:"));
    for group in groups {
        // PostgreSQL itself runs those of one line at once.
        let tests: Vec<&str> = group.split_whitespace().filter(is_wanted).collect();
        let next = RefCell::new(tests.into_iter());
        let run_some = async || {
            while let Some(test) = take(&next) {
                let script = std::fs::read(suite.join("sql").join(format!("{test}.sql"))).unwrap();
                psql(&relay, test, &script, &environment, build).await;
                let tally = relay.tally();
                let (looked, failed) = (tally.statements, tally.failures.len());
                println!("{test}: {looked} statements so far, {failed} reads that are none");
            }
        };
        tokio::join!(run_some(), run_some(), run_some(), run_some());
    }
    let tally = relay.tally();
    println!("{tally}");
    assert_eq!(tally.failures, Vec::<String>::new());
    assert!(tally.reads > 100, "{tally}");
}

fn take<'a>(tests: &RefCell<impl Iterator<Item = &'a str>>) -> Option<&'a str> {
    tests.borrow_mut().next()
}

async fn relay() -> Arc<Relay> {
    let lab = Lab::builder()
        .quick()
        .access_rule("host all all 127.0.0.1/32 trust")
        .setting("max_prepared_transactions = 2")
        .setting("max_standby_streaming_delay = 0")
        .primary("us-east")
        .replica("eu-west")
        .build()
        .await
        .unwrap();
    let admin = lab
        .node("us-east")
        .connect(SUPERUSER, "postgres")
        .await
        .unwrap();
    let create = format!("CREATE DATABASE {DATABASE} TEMPLATE template0");
    admin.batch_execute(&create).await.unwrap();
    for (name, value) in [
        ("lc_messages", "C"),
        ("lc_monetary", "C"),
        ("lc_numeric", "C"),
        ("lc_time", "C"),
        ("bytea_output", "hex"),
        ("timezone_abbreviations", "Default"),
    ] {
        let alter = format!("ALTER DATABASE {DATABASE} SET {name} TO '{value}'");
        admin.batch_execute(&alter).await.unwrap();
    }
    Relay::start(lab).await
}

/// Runs a script through the relay. What psql says does not matter: errors are part of scripts.
async fn psql(
    relay: &Arc<Relay>,
    name: &str,
    script: impl AsRef<[u8]>,
    environment: &[(&str, &str)],
    directory: &Path,
) {
    let mut psql = Command::new("psql")
        .args(["-X", "-q", "-d", DATABASE])
        .args(["-v", "HIDE_TABLEAM=on", "-v", "HIDE_TOAST_COMPRESSION=on"])
        .current_dir(directory)
        .envs([
            ("PGHOST", "127.0.0.1"),
            ("PGUSER", SUPERUSER),
            ("PGPASSWORD", PASSWORD),
            ("PGSSLMODE", "disable"),
            ("PGGSSENCMODE", "disable"),
            ("PGAPPNAME", name),
        ])
        .env("PGPORT", relay.port().to_string())
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut input = psql.stdin.take().unwrap();
    let script = script.as_ref().to_vec();
    let feeding = tokio::spawn(async move {
        // A script may end psql before its own end.
        let _ = input.write_all(&script).await;
    });
    let ended = timeout(SCRIPT_TIMEOUT, psql.wait()).await;
    if ended.is_err() {
        println!("{name} does not end");
        psql.kill().await.unwrap();
    }
    feeding.abort();
}

/// A script that pgbench brings along, with a number in place of each variable, its tables ahead.
async fn pgbench(script: &str) -> String {
    let shown = Command::new("sh")
        .args([
            "-c",
            "PATH=$PATH:$(pg_config --bindir) exec pgbench \"$@\"",
            "pgbench",
        ])
        .args(["--show-script", script])
        .output()
        .await
        .unwrap();
    let text = String::from_utf8(shown.stderr).unwrap();
    let mut sql = "CREATE TABLE IF NOT EXISTS pgbench_accounts (aid int, abalance int);
         CREATE TABLE IF NOT EXISTS pgbench_tellers (tid int, tbalance int);
         CREATE TABLE IF NOT EXISTS pgbench_branches (bid int, bbalance int);
         CREATE TABLE IF NOT EXISTS pgbench_history (tid int, bid int, aid int, delta int, mtime timestamp);\n"
        .to_owned();
    for line in text.lines().filter(|line| line.ends_with(';')) {
        let mut line = line.to_owned();
        for variable in [":aid", ":bid", ":tid", ":delta"] {
            line = line.replace(variable, "1");
        }
        sql.push_str(&line);
        sql.push('\n');
    }
    assert!(
        sql.contains("FROM pgbench_accounts") && !sql.contains(':'),
        "{text}"
    );
    sql
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
