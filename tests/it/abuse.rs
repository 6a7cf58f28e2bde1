//! Clients that behave badly: they leave in the middle of a transaction, a COPY, a result, a
//! pipeline, a message. Nobody else may notice, and no server may keep anything of theirs.
//!
//! `CAUSEWAY_SOAK=300` asks for 200 clients over 10 servers, pgbench beside them, for so many seconds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use causeway::lab::{APP_DATABASE, APP_USER, Lab, PASSWORD, SUPERUSER};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::front::{PATIENCE, ask, until};
use crate::process::Process;
use crate::raw::{self, Raw, bind, copy_data, describe_portal, execute, flush, parse, query, sync};

/// How much of it.
struct Extent {
    clients: u64,
    servers: usize,
    end: End,
}

#[derive(Clone, Copy)]
enum End {
    /// So many rounds for each client: the same on every run.
    Rounds(u64),
    At(Instant),
}

fn extent() -> Extent {
    match std::env::var("CAUSEWAY_SOAK") {
        Ok(seconds) => Extent {
            clients: 200,
            servers: 10,
            end: End::At(Instant::now() + Duration::from_secs(seconds.parse().unwrap())),
        },
        Err(_) => Extent {
            clients: 24,
            servers: 4,
            end: End::Rounds(12),
        },
    }
}

/// What it may have grown by between the middle and the end, in kB.
const GROWTH_KB: usize = 8_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_client_is_left_to_the_next() {
    let extent = extent();
    let lab = Lab::small().await.unwrap();
    let admin = lab
        .node("us-east")
        .connect(SUPERUSER, APP_DATABASE)
        .await
        .unwrap();
    admin.batch_execute(TABLES).await.unwrap();
    lab.wait_caught_up("eu-west").await.unwrap();
    let size = extent.servers.to_string();
    // The memory of classifications is full before the middle: what grows then is no cache.
    let directory = tempfile::tempdir().unwrap();
    let settings = directory.path().join("proxy.toml");
    std::fs::write(&settings, "[routing]\nstatement_cache_size = \"1MiB\"\n").unwrap();
    let flags = ["--pool-size", &size, "--config", settings.to_str().unwrap()];
    let process = Arc::new(Process::start(&lab, &flags).await);
    let tally = Arc::new(Tally::default());

    let mut benchmark = match extent.end {
        End::At(end) => Some(pgbench(&process, end).await),
        End::Rounds(_) => None,
    };
    let mut clients = JoinSet::new();
    for number in 0..extent.clients {
        let abuser = Abuser {
            name: format!("abuser{number}"),
            process: Arc::clone(&process),
            tally: Arc::clone(&tally),
            random: StdRng::seed_from_u64(number),
        };
        clients.spawn(abuser.go_on_until(extent.end));
    }
    let honest = Arc::new(AtomicBool::new(true));
    for number in 0..4 {
        clients.spawn(stay_honest(
            format!("honest{number}"),
            Arc::clone(&process),
            Arc::clone(&tally),
            Arc::clone(&honest),
        ));
    }
    let middle = match extent.end {
        End::At(end) => {
            tokio::time::sleep_until((end - (end - Instant::now()) / 2).into()).await;
            Some(process.resident_kb())
        }
        End::Rounds(_) => None,
    };
    let mut abusers_left = extent.clients;
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
        abusers_left = abusers_left.saturating_sub(1);
        if abusers_left == 0 {
            honest.store(false, Ordering::Relaxed);
        }
    }
    if let Some(benchmark) = &mut benchmark {
        let output = benchmark.await.unwrap();
        println!("{output}");
    }

    // Nothing that was not committed is there.
    until(
        &admin,
        "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND state <> 'idle'",
        "0",
    )
    .await;
    assert_eq!(
        ask(&admin, "SELECT count(*) FROM deed WHERE n < 0").await,
        "0"
    );
    let looked_at = no_traces(&lab, &process, extent.servers).await;
    println!(
        "{} clients, {} rounds, {} answers checked, {} servers looked at",
        extent.clients,
        tally.rounds.load(Ordering::Relaxed),
        tally.answers.load(Ordering::Relaxed),
        looked_at,
    );
    let now = process.resident_kb();
    println!("memory: {middle:?} kB in the middle, {now} kB at the end");
    if let Some(middle) = middle {
        assert!(now < middle + GROWTH_KB, "it grows");
    }
}

const TABLES: &str = "
    CREATE ROLE other;
    GRANT other TO app;
    CREATE TABLE deed (who text, n int);
    CREATE INDEX ON deed (who);
    GRANT ALL ON deed TO app, other;
";

#[derive(Default)]
struct Tally {
    rounds: AtomicU64,
    answers: AtomicU64,
}

/// Asks for what only it has put there, again and again.
async fn stay_honest(
    name: String,
    process: Arc<Process>,
    tally: Arc<Tally>,
    go_on: Arc<AtomicBool>,
) {
    let mut raw = process.client().await;
    raw.query(&format!("SET app.owner TO '{name}'")).await;
    raw.exchange(&[parse("mine", &format!("SELECT '{name}' || $1")), sync()])
        .await;
    let mut written = 0;
    while go_on.load(Ordering::Relaxed) {
        let sql = format!("INSERT INTO deed VALUES ('{name}', {written})");
        assert_eq!(raw.query(&sql).await, "C(INSERT 0 1) Z(I)");
        written += 1;
        let sql =
            format!("SELECT count(*), current_setting('app.owner') FROM deed WHERE who = '{name}'");
        let expected = format!("T D({written},{name}) C(SELECT 1) Z(I)");
        assert_eq!(raw.query(&sql).await, expected);
        let number = written.to_string();
        let answer = raw
            .exchange(&[bind("", "mine", &[&number]), execute("", 0), sync()])
            .await;
        assert_eq!(answer, format!("2 D({name}{written}) C(SELECT 1) Z(I)"));
        tally.answers.fetch_add(3, Ordering::Relaxed);
    }
}

struct Abuser {
    name: String,
    process: Arc<Process>,
    tally: Arc<Tally>,
    random: StdRng,
}

impl Abuser {
    async fn go_on_until(mut self, end: End) {
        let mut round = 0;
        loop {
            match end {
                End::Rounds(rounds) if round == rounds => return,
                End::At(end) if Instant::now() > end => return,
                _ => {}
            }
            self.live(round).await;
            round += 1;
            self.tally.rounds.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One connection, from the log-in to its sudden end.
    async fn live(&mut self, round: u64) {
        let mut raw = self.process.client().await;
        let token = format!("{}/{round}", self.name);
        let token = token.as_str();
        for _ in 0..self.random.random_range(0..4) {
            self.use_well(&mut raw, token).await;
        }
        self.check(&mut raw, token).await;
        self.vanish(raw, token).await;
    }

    /// The answer is this client's own.
    async fn check(&self, raw: &mut Raw, token: &str) {
        let answer = raw.query(&format!("SELECT '{token}'")).await;
        assert_eq!(answer, format!("T D({token}) C(SELECT 1) Z(I)"));
        self.tally.answers.fetch_add(1, Ordering::Relaxed);
    }

    /// Leaves things behind that belong to the session.
    async fn use_well(&mut self, raw: &mut Raw, token: &str) {
        let name = &self.name;
        let (sql, expected) = match self.random.random_range(0..8) {
            0 => (format!("SET app.owner TO '{token}'"), "C(SET)".to_owned()),
            1 => ("SET ROLE other".to_owned(), "C(SET)".to_owned()),
            2 => ("SET work_mem TO '1234kB'".to_owned(), "C(SET)".to_owned()),
            3 => (
                format!("PREPARE own AS SELECT '{token}'; EXECUTE own; DEALLOCATE own"),
                format!("D({token})"),
            ),
            4 => (
                format!("INSERT INTO deed VALUES ('{name}', 1) RETURNING who"),
                format!("D({name})"),
            ),
            5 => (
                format!(
                    "BEGIN; SET LOCAL app.owner TO '{token}'; \
                    SELECT current_setting('app.owner'); ROLLBACK"
                ),
                format!("D({token})"),
            ),
            6 => (
                "SELECT count(*) FROM deed WHERE n < 0".to_owned(),
                "D(0)".to_owned(),
            ),
            _ => {
                let text = format!("SELECT '{token}' || $1");
                let answer = raw
                    .exchange(&[
                        raw::close_statement("mine"),
                        parse("mine", &text),
                        bind("", "mine", &["!"]),
                        execute("", 0),
                        sync(),
                    ])
                    .await;
                assert_eq!(answer, format!("3 1 2 D({token}!) C(SELECT 1) Z(I)"));
                return;
            }
        };
        let answer = raw.query(&sql).await;
        assert!(answer.contains(&expected), "{sql}: {answer}");
        self.tally.answers.fetch_add(1, Ordering::Relaxed);
    }

    /// The connection breaks in the middle of something. What it wrote with a negative number must
    /// not come to be.
    async fn vanish(&mut self, mut raw: Raw, token: &str) {
        let name = &self.name;
        let write = format!("INSERT INTO deed VALUES ('{name}', -1)");
        match self.random.random_range(0..13) {
            // A transaction, with whatever it holds.
            0 => {
                raw.query("BEGIN").await;
                raw.query(&write).await;
                raw.query("SELECT pg_advisory_xact_lock_shared(11); SET LOCAL work_mem TO '99kB'")
                    .await;
            }
            1 => {
                raw.query("BEGIN; SAVEPOINT s").await;
                raw.query(&write).await;
                raw.query("SELECT 1/0").await;
            }
            // A COPY, in either protocol.
            2 => {
                raw.send(&query("COPY deed FROM STDIN")).await;
                raw.until(b'G', 1).await;
                raw.send(&copy_data(&format!("{name}\t-1\n"))).await;
            }
            3 => {
                let run = [
                    parse("", "COPY deed FROM STDIN"),
                    bind("", "", &[]),
                    execute("", 0),
                    flush(),
                ];
                raw.send(&run.concat()).await;
                raw.until(b'G', 1).await;
                raw.send(&copy_data(&format!("{name}\t-1\n{name}"))).await;
            }
            // A result that is half read, of a query and of a COPY.
            4 => {
                let sql =
                    format!("SELECT '{token}' || repeat('x', 1000) FROM generate_series(1, 20000)");
                raw.send(&query(&sql)).await;
                raw.until(b'D', 3).await;
            }
            5 => {
                let sql = format!(
                    "COPY (SELECT '{token}', txid_current() FROM generate_series(1, 100000)) TO STDOUT"
                );
                raw.send(&query(&sql)).await;
                raw.until(b'd', 3).await;
            }
            // A portal that is half read.
            6 => {
                let run = [
                    parse(
                        "",
                        &format!("SELECT '{token}' FROM generate_series(1, 100)"),
                    ),
                    bind("", "", &[]),
                    describe_portal(""),
                    execute("", 5),
                    flush(),
                ];
                raw.send(&run.concat()).await;
                raw.until(b's', 1).await;
            }
            // A pipeline, with errors in it, none of whose answers is read.
            7 => {
                let cycle = |number: usize| {
                    let sql = match number % 4 {
                        0 => "SELECT 1/0".to_owned(),
                        1 => format!("INSERT INTO deed VALUES ('{name}', 0)"),
                        _ => format!("SELECT '{token}'"),
                    };
                    [parse("", &sql), bind("", "", &[]), execute("", 0), sync()].concat()
                };
                let cycles: Vec<Vec<u8>> = (0..20).map(cycle).collect();
                raw.send(&cycles.concat()).await;
            }
            // A cycle without its end: nothing of it is committed.
            8 => {
                let run = [
                    parse("", &write),
                    bind("", "", &[]),
                    execute("", 0),
                    flush(),
                ];
                raw.send(&run.concat()).await;
                raw.until(b'C', 1).await;
            }
            // A message.
            9 => {
                let whole = query("SELECT 'never whole'");
                raw.send(&whole[..whole.len() / 2]).await;
            }
            // What only one server has.
            10 => {
                raw.query("LISTEN bell; NOTIFY bell, 'x'").await;
                raw.query("CREATE TEMP TABLE mine AS SELECT 1 AS n").await;
                raw.query("SELECT pg_advisory_lock_shared(12)").await;
                raw.query("DECLARE held CURSOR WITH HOLD FOR SELECT 1")
                    .await;
                raw.query("PREPARE theirs AS SELECT 1").await;
                raw.query("SELECT set_config('app.' || 'owner', 'hidden', false)")
                    .await;
            }
            // A statement that runs, and a cancel request for it at the same time.
            11 => {
                raw.send(&query("SELECT pg_sleep(0.2), txid_current()"))
                    .await;
                raw::cancel(self.process.address, raw.pid, &raw.secret.clone()).await;
            }
            _ => {
                raw.send(&query("SELECT pg_sleep(0.05)")).await;
            }
        }
    }
}

/// Looks at every server that there is, for what a session may have left. Gives their number.
async fn no_traces(lab: &Lab, process: &Process, most: usize) -> usize {
    let mut looked_at = 0;
    for (node, begin, write) in [
        ("us-east", "BEGIN", "SELECT txid_current() > 0"),
        ("eu-west", "BEGIN READ ONLY", "SELECT true"),
    ] {
        let admin = lab
            .node(node)
            .connect(SUPERUSER, APP_DATABASE)
            .await
            .unwrap();
        let servers = "SELECT string_agg(pid::text, ',' ORDER BY pid) FROM pg_stat_activity \
            WHERE usename = 'app' AND datname = 'app' AND application_name <> 'causeway monitor'";
        // All at once, so that each has a server of its own.
        let mut holders = Vec::new();
        let mut seen = Vec::new();
        for _ in 0..most {
            let (raw, pid) = hold(process, node, begin, write).await;
            seen.push(pid);
            holders.push(raw);
        }
        seen.sort_unstable();
        let seen: Vec<String> = seen.iter().map(u32::to_string).collect();
        until(&admin, servers, &seen.join(",")).await;
        looked_at += holders.len();
        for mut raw in holders {
            assert_eq!(raw.query("COMMIT").await, "C(COMMIT) Z(I)");
        }
    }
    looked_at
}

/// A client in a transaction on this node, whose server keeps nothing of others; the server's
/// process. A replica whose servers are all on their way out is passed over for the primary.
async fn hold(process: &Process, node: &str, begin: &str, write: &str) -> (Raw, u32) {
    let deadline = Instant::now() + PATIENCE;
    let mut raw = process.client().await;
    loop {
        assert!(raw.query(begin).await.ends_with("Z(T)"));
        assert_eq!(raw.query(write).await, "T D(t) C(SELECT 1) Z(T)");
        let traces = raw.query(TRACES).await;
        assert_eq!(traces, "T D() C(SELECT 1) Z(T)", "on {node}");
        let sql = "SELECT current_setting('cluster_name') || ':' || pg_backend_pid()";
        let who = raw.query(sql).await;
        let who = who.split(['(', ')']).nth(1).unwrap();
        let (cluster, pid) = who.split_once(':').unwrap();
        if cluster == node {
            return (raw, pid.parse().unwrap());
        }
        assert!(Instant::now() < deadline, "never on {node}");
        assert_eq!(raw.query("COMMIT").await, "C(COMMIT) Z(I)");
    }
}

/// Everything that a session may leave on its server, as one text. An empty value of a setting
/// that PostgreSQL does not know is what RESET leaves of it.
const TRACES: &str = "SELECT concat_ws(' ', \
    (SELECT string_agg(name || '=' || setting, ',') FROM pg_settings \
        WHERE source = 'session' AND setting IS DISTINCT FROM reset_val \
        AND name NOT LIKE 'transaction%'), \
    nullif(current_setting('app.owner', true), ''), \
    (SELECT 'role ' || current_user WHERE current_user <> session_user OR session_user <> 'app'), \
    (SELECT string_agg('lock ' || objid, ',') FROM pg_locks \
        WHERE locktype = 'advisory' AND pid = pg_backend_pid()), \
    (SELECT string_agg('temporary ' || relname, ',') FROM pg_class \
        WHERE relnamespace = pg_my_temp_schema()), \
    (SELECT string_agg('portal ' || name, ',') FROM pg_cursors WHERE name <> ''), \
    (SELECT string_agg('statement ' || name, ',') FROM pg_prepared_statements \
        WHERE from_sql OR name IN ('mine', 'own', 'theirs')), \
    (SELECT string_agg('listens ' || c, ',') FROM pg_listening_channels() c))";

/// pgbench through the proxy until then, a thread for each client: one that prepares is deaf to
/// those that hold a server, and one for all would wait for itself. Without the rows that all its
/// clients wait for, each with a server; what it says. It fails if a transaction of its does.
async fn pgbench(process: &Process, end: Instant) -> tokio::task::JoinHandle<String> {
    let port = process.address.port().to_string();
    let command = |arguments: &[&str]| {
        let mut command = Command::new("pgbench");
        command
            .args(["-h", "127.0.0.1", "-p", &port, "-U", APP_USER])
            .args(arguments)
            .arg(APP_DATABASE)
            .env("PGPASSWORD", PASSWORD)
            .kill_on_drop(true);
        command
    };
    let made = command(&["-i", "-s", "2", "-q"]).output().await.unwrap();
    assert!(made.status.success(), "{made:?}");
    let seconds = (end - Instant::now()).as_secs().to_string();
    let mut run = command(&[
        "-c", "20", "-j", "20", "-T", &seconds, "-M", "prepared", "-n", "-N",
    ]);
    tokio::spawn(async move {
        let ran = run.output().await.unwrap();
        let said = String::from_utf8_lossy(&ran.stdout).into_owned();
        let wrong = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert!(ran.status.success(), "{said}{wrong}");
        assert!(!wrong.contains("error"), "{wrong}");
        said
    })
}
