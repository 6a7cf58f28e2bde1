//! What goes wrong while users work. Each trouble is really made, and shown by the servers themselves to
//! have happened; each ends with everything as it was, but for the promotion.

use std::sync::atomic::Ordering;
use std::time::Duration;

use causeway::lab::{APP_DATABASE, APP_USER, Cut, LabNode, SUPERUSER};
use rand::Rng;
use tokio::time::{Instant, interval, sleep};
use tokio_postgres::Client;

use super::line::{Line, Sight, Way};
use super::tally::Promise;
use super::world::{PRIMARY, REPLICAS, World};
use crate::support::PATIENCE;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    None,
    ReplayPaused,
    ApplyDelay,
    OneReplicaLags,
    ReplicaKilled,
    WalReceiverStopped,
    WalCutOff,
    CommitsAsynchronous,
    SynchronousStandbyDown,
    RecoveryConflicts,
    ServersTerminated,
    CapturesLost,
    PageBoundary,
    ProxiesReplaced,
    /// The last: the old primary is gone for good. Writes go past the old one's end.
    PromotionWithLostWal,
}

impl Trouble {
    pub const ALL: [Trouble; 15] = [
        Trouble::None,
        Trouble::ReplayPaused,
        Trouble::ApplyDelay,
        Trouble::OneReplicaLags,
        Trouble::ReplicaKilled,
        Trouble::WalReceiverStopped,
        Trouble::WalCutOff,
        Trouble::CommitsAsynchronous,
        Trouble::SynchronousStandbyDown,
        Trouble::RecoveryConflicts,
        Trouble::ServersTerminated,
        Trouble::CapturesLost,
        Trouble::PageBoundary,
        Trouble::ProxiesReplaced,
        Trouble::PromotionWithLostWal,
    ];

    /// Lasts until users have made about so many checks.
    pub async fn make(self, world: &World, checks: u64) {
        match self {
            Trouble::None => world.go_further(checks).await,
            Trouble::ReplayPaused => replay_paused(world, checks).await,
            Trouble::ApplyDelay => lag(world, &REPLICAS, checks).await,
            Trouble::OneReplicaLags => lag(world, &REPLICAS[1..2], checks).await,
            Trouble::ReplicaKilled => replica_killed(world, checks).await,
            Trouble::WalReceiverStopped => wal_receiver_stopped(world, checks).await,
            Trouble::WalCutOff => wal_cut_off(world, checks).await,
            Trouble::CommitsAsynchronous => commits_asynchronous(world, checks).await,
            Trouble::SynchronousStandbyDown => synchronous_standby_down(world, checks).await,
            Trouble::RecoveryConflicts => recovery_conflicts(world, checks).await,
            Trouble::ServersTerminated => servers_terminated(world, checks).await,
            Trouble::CapturesLost => captures_lost(world, checks).await,
            Trouble::PageBoundary => page_boundary(world, checks).await,
            Trouble::ProxiesReplaced => proxies_replaced(world, checks).await,
            Trouble::PromotionWithLostWal => promotion_with_lost_wal(world, checks).await,
        }
    }
}

/// How far behind a replica is that lags.
pub const LAG: Duration = Duration::from_millis(150);

async fn replay_paused(world: &World, checks: u64) {
    for paused in [&REPLICAS[..2], &REPLICAS[2..]] {
        let mut stood_at = Vec::new();
        for name in paused {
            let node = world.lab.node(name);
            node.pause_replay().await.unwrap();
            stood_at.push((node, node.replay_lsn().await.unwrap()));
        }
        world.go_further(checks / 2).await;
        let written = world.primary().insert_lsn().await.unwrap();
        for (node, lsn) in stood_at {
            assert_eq!(node.replay_lsn().await.unwrap(), lsn, "replay went on");
            assert!(Some(written) > lsn, "nothing was written");
            node.resume_replay().await.unwrap();
        }
    }
}

async fn lag(world: &World, replicas: &[&str], checks: u64) {
    for name in replicas {
        let node = world.lab.node(name);
        node.set_apply_delay(LAG).await.unwrap();
        let (there, here) = (reader(node).await, reader(world.primary()).await);
        until("a lag shows", async || {
            beat_of(&there).await < beat_of(&here).await
        })
        .await;
    }
    world.go_further(checks).await;
    for name in replicas {
        let node = world.lab.node(name);
        node.set_apply_delay(Duration::ZERO).await.unwrap();
    }
}

async fn replica_killed(world: &World, checks: u64) {
    for name in [REPLICAS[0], REPLICAS[2]] {
        let node = world.lab.node(name);
        let started = text(&admin(node).await, STARTED).await;
        node.kill().await.unwrap();
        assert!(node.connect(SUPERUSER, "postgres").await.is_err());
        world.go_further(checks / 4).await;
        node.start().await.unwrap();
        assert_ne!(text(&admin(node).await, STARTED).await, started);
        world.go_further(checks / 4).await;
    }
}

const STARTED: &str = "SELECT pg_postmaster_start_time()::text";

async fn wal_receiver_stopped(world: &World, checks: u64) {
    const RECEIVERS: &str = "SELECT count(*)::text FROM pg_stat_wal_receiver";
    const RECEIVED: &str = "SELECT pg_last_wal_receive_lsn()::text";
    let node = world.lab.node(REPLICAS[0]);
    let admin = admin(node).await;
    set(&admin, "primary_conninfo", Some("''")).await;
    until("WAL receiver ends", async || {
        text(&admin, RECEIVERS).await == "0"
    })
    .await;
    let received = text(&admin, RECEIVED).await;
    world.go_further(checks).await;
    assert_eq!(text(&admin, RECEIVED).await, received);
    set(&admin, "primary_conninfo", None).await;
    until("WAL receiver is back", async || {
        text(&admin, RECEIVERS).await == "1"
    })
    .await;
    until("WAL comes again", async || {
        text(&admin, RECEIVED).await != received
    })
    .await;
}

async fn wal_cut_off(world: &World, checks: u64) {
    let nodes = [REPLICAS[0], REPLICAS[2]].map(|name| world.lab.node(name));
    for node in nodes {
        node.cut_wal(Cut::Freeze);
    }
    let (there, here) = (reader(nodes[0]).await, reader(world.primary()).await);
    until("WAL is held up", async || {
        beat_of(&there).await + 10 < beat_of(&here).await
    })
    .await;
    world.go_further(checks).await;
    for node in nodes {
        node.restore_wal();
    }
}

/// Commits are answered before their log has been written.
async fn commits_asynchronous(world: &World, checks: u64) {
    const UNWRITTEN: &str =
        "SELECT (pg_current_wal_flush_lsn() < pg_current_wal_insert_lsn())::text";
    let admin = admin(world.primary()).await;
    set(&admin, "synchronous_commit", Some("off")).await;
    let fresh = reader(world.primary()).await;
    until("commits are asynchronous", async || {
        text(&fresh, "SHOW synchronous_commit").await == "off"
    })
    .await;
    until("something is not written yet", async || {
        text(&admin, UNWRITTEN).await == "true"
    })
    .await;
    world.go_further(checks).await;
    set(&admin, "synchronous_commit", None).await;
}

/// Some commits hang: of those some are cancelled, which leaves them committed, and the others end when
/// the standby is back. Meanwhile nobody else may write, so that everybody else can read.
async fn synchronous_standby_down(world: &World, checks: u64) {
    const SYNCHRONOUS: &str =
        "SELECT count(*)::text FROM pg_stat_replication WHERE sync_state = 'sync'";
    const HANGING: &str =
        "SELECT count(*)::text FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    const CANCEL: &str = "SELECT count(pg_cancel_backend(pid))::text FROM \
        (SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' LIMIT 2) AS hanging";
    let primary = admin(world.primary()).await;
    set(
        &primary,
        "synchronous_standby_names",
        Some("'\"ap-south\"'"),
    )
    .await;
    until("a standby is synchronous", async || {
        text(&primary, SYNCHRONOUS).await == "1"
    })
    .await;
    world.go_further(checks / 4).await;
    world.writes.cease().await;
    let standby = world.lab.node("ap-south");
    standby.kill().await.unwrap();
    world.writes.allow(4);
    until("commits hang", async || {
        text(&primary, HANGING).await == "4"
    })
    .await;
    world.go_further(checks / 4).await;
    assert_eq!(text(&primary, HANGING).await, "4");
    assert_eq!(text(&primary, CANCEL).await, "2");
    until("two hang", async || text(&primary, HANGING).await == "2").await;
    world.go_further(checks / 4).await;
    standby.start().await.unwrap();
    until("none hangs", async || text(&primary, HANGING).await == "0").await;
    set(&primary, "synchronous_standby_names", None).await;
    world.writes.allow_all();
    world.go_further(checks / 4).await;
}

/// Replay does not wait for reads, and there is something to conflict with all the time.
async fn recovery_conflicts(world: &World, checks: u64) {
    let count = format!(
        "SELECT (confl_lock + confl_snapshot + confl_bufferpin)::text \
         FROM pg_stat_database_conflicts WHERE datname = '{APP_DATABASE}'"
    );
    let mut replicas = Vec::new();
    for name in REPLICAS {
        let node = world.lab.node(name);
        set(&admin(node).await, "max_standby_streaming_delay", Some("0")).await;
        // In another database no conflict ends it.
        let client = node.connect(SUPERUSER, "postgres").await.unwrap();
        replicas.push((client, 0_u64));
    }
    for (client, before) in &mut replicas {
        *before = text(client, &count).await.parse().unwrap();
    }
    let writer = reader(world.primary()).await;
    let vacuum = async {
        loop {
            writer.batch_execute("VACUUM FULL register").await.unwrap();
            writer.batch_execute("VACUUM register").await.unwrap();
        }
    };
    let conflicts = async {
        world.go_further(checks).await;
        until("replay ends reads", async || {
            let mut all = 0;
            for (client, before) in &replicas {
                let now: u64 = text(client, &count).await.parse().unwrap();
                all += now - before;
            }
            all >= 3
        })
        .await;
    };
    tokio::select! {
        () = vacuum => {}
        () = conflicts => {}
    }
    for name in REPLICAS {
        let admin = admin(world.lab.node(name)).await;
        set(&admin, "max_standby_streaming_delay", None).await;
    }
}

async fn servers_terminated(world: &World, checks: u64) {
    let mut terminated = 0;
    for _ in 0..8 {
        for node in [PRIMARY].iter().chain(&REPLICAS) {
            let pause_us = rand::rng().random_range(0..10_000);
            sleep(Duration::from_micros(pause_us)).await;
            let node = world.lab.node(node);
            terminated += node.terminate_backends(APP_USER).await.unwrap();
        }
        world.go_further(checks / 8).await;
    }
    assert!(
        terminated > 20,
        "only {terminated} servers were there to end"
    );
}

/// Servers end right behind a commit, before they would have told its position; replicas lag, so that it
/// matters.
async fn captures_lost(world: &World, checks: u64) {
    const ENDED: &str = "terminating connection due to administrator command";
    let deaths = || world.primary().log().unwrap().matches(ENDED).count() as u64;
    let before = (deaths(), world.tally.doomed.load(Ordering::SeqCst));
    world.doom.store(4, Ordering::SeqCst);
    lag(world, &REPLICAS, checks).await;
    until("some servers have ended", async || {
        world.tally.doomed.load(Ordering::SeqCst) - before.1 >= 10
    })
    .await;
    world.doom.store(0, Ordering::SeqCst);
    let doomed = world.tally.doomed.load(Ordering::SeqCst) - before.1;
    until("the log tells of each", async || {
        deaths() - before.0 >= doomed
    })
    .await;
}

/// The log ends on a page boundary, where the insert position is told from behind the next page's
/// header, and nothing more is written: replicas that have all there is must be used.
async fn page_boundary(world: &World, checks: u64) {
    const FILL: &str = "DO $$ BEGIN LOOP
            INSERT INTO pad VALUES ('x');
            COMMIT;
            EXIT WHEN mod(pg_current_wal_insert_lsn() - '0/0', 8192) = 24;
        END LOOP; END $$";
    const TRIES: usize = 100;
    let primary = admin(world.primary()).await;
    let position = async || text(&primary, "SELECT pg_current_wal_insert_lsn()::text").await;
    let at_boundary = async || {
        let told = "SELECT (mod(pg_current_wal_insert_lsn() - '0/0', 8192) = 24)::text";
        text(&primary, told).await == "true"
    };
    world.writes.cease().await;
    let (mut found, mut last) = (0, String::new());
    for _ in 0..TRIES {
        let line = Line::open(world, 0, SESSION).await;
        line.command(FILL).await.unwrap();
        let stopped_at = position().await;
        if !at_boundary().await {
            continue;
        }
        for replica in REPLICAS {
            world.lab.wait_caught_up(replica).await.unwrap();
        }
        let mut near = false;
        for _ in 0..100 {
            near = line.read_unnamed(0, 0).await.unwrap().on_replica;
            if near {
                break;
            }
            sleep(Duration::from_millis(5)).await;
        }
        // Whatever was written meanwhile, such as by a checkpoint, has ended the stillness.
        if position().await == stopped_at {
            found += 1;
            last = stopped_at.clone();
            world.tally.check(Promise::PageBoundary, near, || {
                format!("replicas are not used while the log ends at {stopped_at}")
            });
        }
        if found == 3 || world.tally.has_violations() {
            break;
        }
    }
    assert!(found > 0, "the log never came to end on a page boundary");
    println!("the log stood still on a page boundary {found} times, at last at {last}");
    world.go_further(checks / 2).await;
    world.writes.allow_all();
    world.go_further(checks / 2).await;
}

async fn proxies_replaced(world: &World, checks: u64) {
    for proxy in &world.proxies {
        let opened = world.tally.opened.load(Ordering::SeqCst);
        proxy.replace(&world.lab, world.plan.guarantees).await;
        until("users come back", async || {
            world.tally.opened.load(Ordering::SeqCst) > opened + 5
        })
        .await;
        world.go_further(checks / 2).await;
    }
}

/// The primary dies with commits that no replica has; the replica that has most takes its place.
async fn promotion_with_lost_wal(world: &World, checks: u64) {
    world.truth.lock().unwrap().age += 1;
    for replica in REPLICAS {
        world.lab.node(replica).cut_wal(Cut::Freeze);
    }
    // Long enough to be read, and few enough to be written past again.
    let told = world.told_in_all();
    until("commits that will be lost", async || {
        world.told_in_all() > told + 200
    })
    .await;
    let [idle, other] = [
        Line::open(world, 0, SESSION).await,
        Line::open(world, 0, SESSION).await,
    ];
    let seen = seen_last(world, &idle, &other).await;
    let kept_aside: Vec<_> = world.letters.lock().unwrap().iter().cloned().collect();
    let old = world.primary();
    let end = old.insert_lsn().await.unwrap();
    old.kill().await.unwrap();
    let mut received = Vec::new();
    for replica in REPLICAS {
        let admin = admin(world.lab.node(replica)).await;
        let lsn = text(&admin, "SELECT (pg_last_wal_receive_lsn() - '0/0')::text").await;
        received.push((lsn.parse::<u64>().unwrap(), replica));
    }
    let (furthest, new) = received.into_iter().max().unwrap();
    assert!(end.0 > furthest, "nothing is lost: {end} and {furthest}");
    world.lab.node(new).promote().await.unwrap();
    for replica in REPLICAS.into_iter().filter(|replica| *replica != new) {
        world.lab.follow(replica, new);
        world.lab.node(replica).restore_wal();
    }
    let client = reader(world.lab.node(new)).await;
    let left = beat_of(&client).await;
    let sum = text(&client, "SELECT sum(value)::bigint::text FROM register").await;
    let sum: i64 = sum.parse().unwrap();
    assert!(sum < world.told_in_all(), "no commit was lost");
    world.set_primary(new);
    {
        let mut truth = world.truth.lock().unwrap();
        truth.truncate(left);
        truth.age += 1;
    }
    // Whoever has only read what was lost, and nothing since, must be told too.
    let shown = again(&idle).await.of(0);
    let told = idle.heard_of_loss(world);
    world
        .tally
        .check(Promise::Monotonic, told || shown >= seen, || {
            format!("idle since before the promotion: {shown} after {seen}")
        });
    world.go_further(checks / 2).await;
    if !world.tally.has_violations() {
        assert!(
            world.tally.losses.load(Ordering::SeqCst) > 0,
            "nobody was told"
        );
    }

    // The same numbers are used again.
    let fill = "INSERT INTO pad SELECT repeat('x', 1000) FROM generate_series(1, 300)";
    until("writes go past the old end", async || {
        client.batch_execute(fill).await.unwrap();
        world.primary().insert_lsn().await.unwrap() > end
    })
    .await;
    let told = world.tally.losses.load(Ordering::SeqCst);
    world.letters.lock().unwrap().extend(kept_aside);
    world.go_further(checks / 2).await;
    if !world.tally.has_violations() {
        let now = world.tally.losses.load(Ordering::SeqCst);
        assert!(now > told, "old tokens were taken for new ones");
    }
}

const SESSION: &str = "SET causeway.consistency = 'session'";

/// Reads on the primary, where nothing captures a read's position, what is about to be lost. The other line
/// makes sure that its Causeway has seen the primary since.
async fn seen_last(world: &World, line: &Line, other: &Line) -> i64 {
    let strong = "/* causeway.consistency='strong' */ ";
    let told = world.told_in_all();
    until("commits to look at", async || {
        world.told_in_all() > told + 20
    })
    .await;
    other.read(Way::Simple, strong, 0, 0).await.unwrap();
    other.cell("SHOW causeway.token").await.unwrap();
    let sight = line.read(Way::Simple, strong, 0, 0).await.unwrap();
    assert!(!sight.on_replica);
    sight.of(0)
}

/// Reads until it is answered without an error: the failover is being noticed meanwhile.
async fn again(line: &Line) -> Sight {
    let begun = Instant::now();
    loop {
        match line.read(Way::Simple, "", 0, 0).await {
            Ok(sight) => return sight,
            Err(error) => assert!(begun.elapsed() < PATIENCE, "no answer: {error:?}"),
        }
    }
}

async fn admin(node: &LabNode) -> Client {
    node.connect(SUPERUSER, "postgres").await.unwrap()
}

async fn reader(node: &LabNode) -> Client {
    node.connect(APP_USER, APP_DATABASE).await.unwrap()
}

async fn text(client: &Client, query: &str) -> String {
    client.query_one(query, &[]).await.unwrap().get(0)
}

async fn beat_of(client: &Client) -> i64 {
    let row = client.query_one("SELECT beat FROM heartbeat", &[]).await;
    row.unwrap().get(0)
}

/// Sets a server's setting, or sets it back.
async fn set(admin: &Client, name: &str, value: Option<&str>) {
    let change = match value {
        Some(value) => format!("ALTER SYSTEM SET {name} = {value}"),
        None => format!("ALTER SYSTEM RESET {name}"),
    };
    admin.batch_execute(&change).await.unwrap();
    admin
        .batch_execute("SELECT pg_reload_conf()")
        .await
        .unwrap();
}

/// Waits until it is so.
async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let begun = Instant::now();
    let mut glance = interval(Duration::from_millis(3));
    while !is_so().await {
        assert!(begun.elapsed() < PATIENCE, "{what}: it never comes to that");
        glance.tick().await;
    }
}
