//! Causal order across connections, Causeways and regions, and staleness against a ground truth.
//!
//! Users hop between two Causeways in two regions, on connections that belong to nobody, and carry a
//! token. Each remembers what it has been shown of every register, and now and then takes over
//! another user's token with that one's memory: from then on it must see that too.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use causeway::app::Running;
use causeway::lab::{APP_DATABASE, APP_USER, Lab};
use rand::Rng;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::support::{self, try_connect};

const USERS: usize = 8;
const LENGTH: Duration = Duration::from_secs(12);
const REPLICAS: [&str; 2] = ["eu-west", "ap-south"];

/// A primary in one region, a replica in each of two others.
async fn lab() -> Lab {
    let lab = Lab::builder()
        .quick()
        .primary("us-east")
        .replica("eu-west")
        .replica("ap-south")
        .round_trip("us-east", "eu-west", Duration::from_millis(3))
        .round_trip("us-east", "ap-south", Duration::from_millis(5))
        .round_trip("eu-west", "ap-south", Duration::from_millis(6))
        .setting("max_standby_streaming_delay = -1")
        .build();
    let lab = lab.await.unwrap();
    let client = lab.node("us-east").connect(APP_USER, APP_DATABASE).await;
    let make =
        "CREATE TABLE register (id int PRIMARY KEY, value bigint NOT NULL) WITH (fillfactor = 10);
        INSERT INTO register SELECT id, 0 FROM generate_series(0, 7) AS id;
        CREATE TABLE heartbeat (beat bigint); INSERT INTO heartbeat VALUES (0)";
    client.unwrap().batch_execute(make).await.unwrap();
    caught_up(&lab).await;
    lab
}

async fn caught_up(lab: &Lab) {
    for replica in REPLICAS {
        lab.wait_caught_up(replica).await.unwrap();
    }
}

/// What somebody has been shown, and the token for it.
#[derive(Clone, Debug, Default)]
struct Knowledge {
    token: String,
    shown: [i64; USERS],
}

/// What all users share.
#[derive(Default)]
struct World {
    /// By register: the greatest value whose writer has been told.
    told: [AtomicI64; USERS],
    tried: [AtomicI64; USERS],
    letters: Mutex<Vec<Knowledge>>,
    over: AtomicBool,
    checks: AtomicU64,
    violations: Mutex<Vec<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tokens {
    Carried,
    Forgotten,
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_seen_is_seen_everywhere_by_who_has_the_token() {
    let lab = lab().await;
    let causeways = [
        support::start(&lab, "eu-west").await,
        support::start(&lab, "ap-south").await,
    ];
    let world = check(&lab, &causeways, Tokens::Forgotten).await;
    assert!(
        !world.violations.lock().unwrap().is_empty(),
        "the checker sees nothing"
    );
    let world = check(&lab, &causeways, Tokens::Carried).await;
    let violations = world.violations.lock().unwrap();
    assert!(
        violations.is_empty(),
        "{:#?}",
        violations.iter().take(5).collect::<Vec<_>>()
    );
    let checks = world.checks.load(Ordering::SeqCst);
    assert!(checks > 1000, "only {checks} checks");
}

async fn check(lab: &Lab, causeways: &[Running; 2], tokens: Tokens) -> Arc<World> {
    let reset = lab.node("us-east").connect(APP_USER, APP_DATABASE).await;
    let reset = reset.unwrap();
    reset
        .batch_execute("UPDATE register SET value = 0")
        .await
        .unwrap();
    caught_up(lab).await;
    let world = Arc::new(World::default());
    let mut users = JoinSet::new();
    for user in 0..USERS {
        let mut connections = Vec::new();
        for causeway in causeways {
            let port = causeway.listen_addr().port();
            connections.push(try_connect(port).await.unwrap().0);
        }
        users.spawn(hop(user, connections, Arc::clone(&world), tokens));
    }
    faults(lab).await;
    world.over.store(true, Ordering::SeqCst);
    users.join_all().await;
    caught_up(lab).await;
    println!(
        "tokens {tokens:?}: {} checks by {USERS} users on two Causeways, {} violations",
        world.checks.load(Ordering::SeqCst),
        world.violations.lock().unwrap().len()
    );
    world
}

/// One replica lags, the other stands still now and then.
async fn faults(lab: &Lab) {
    let begun = Instant::now();
    let lag = Duration::from_millis(120);
    lab.node("ap-south").set_apply_delay(lag).await.unwrap();
    while begun.elapsed() < LENGTH {
        lab.node("eu-west").pause_replay().await.unwrap();
        sleep(Duration::from_millis(700)).await;
        lab.node("eu-west").resume_replay().await.unwrap();
        sleep(Duration::from_millis(700)).await;
    }
    lab.node("ap-south")
        .set_apply_delay(Duration::ZERO)
        .await
        .unwrap();
}

/// One user's life. The connections keep what they have seen themselves, so half of the time a
/// floor comes from there; the rest must come from the token.
async fn hop(user: usize, connections: Vec<Client>, world: Arc<World>, tokens: Tokens) {
    let mut known = Knowledge::default();
    let mut round = 0_u64;
    while !world.over.load(Ordering::SeqCst) {
        round += 1;
        let client = &connections[rand::rng().random_range(0..connections.len())];
        if round.is_multiple_of(4) {
            take_over(&mut known, &world);
        }
        if tokens == Tokens::Carried {
            let set = format!("SET causeway.token = '{}'", known.token);
            client.batch_execute(&set).await.unwrap();
        }
        if round.is_multiple_of(3) {
            write(user, client, &mut known, &world).await;
        } else {
            let register = rand::rng().random_range(0..USERS);
            read(register, client, &mut known, &world).await;
        }
        if tokens == Tokens::Carried {
            known.token = cell(client, "SHOW causeway.token", 0).await;
        }
        world.letters.lock().unwrap().push(known.clone());
    }
}

/// The larger of two tokens says nothing of the other's cluster, but here there is one only: the
/// position decides, and `SET` merges both.
fn take_over(known: &mut Knowledge, world: &World) {
    let mut letters = world.letters.lock().unwrap();
    if let Some(letter) = letters.pop() {
        for (mine, theirs) in known.shown.iter_mut().zip(letter.shown) {
            *mine = (*mine).max(theirs);
        }
        known.token = later(&known.token, &letter.token);
    }
    if letters.len() > 64 {
        letters.clear();
    }
}

fn later(one: &str, other: &str) -> String {
    let position = |token: &str| -> Option<causeway::routing::Lsn> {
        let lsn = token.split('.').nth(3)?.replace('-', "/");
        lsn.parse().ok()
    };
    match position(one) >= position(other) {
        true => one.to_owned(),
        false => other.to_owned(),
    }
}

async fn write(user: usize, client: &Client, known: &mut Knowledge, world: &World) {
    let value = world.tried[user].fetch_add(1, Ordering::SeqCst) + 1;
    let sql = format!("UPDATE register SET value = greatest(value, {value}) WHERE id = {user}");
    client.batch_execute(&sql).await.unwrap();
    world.told[user].fetch_max(value, Ordering::SeqCst);
    known.shown[user] = known.shown[user].max(value);
}

async fn read(register: usize, client: &Client, known: &mut Knowledge, world: &World) {
    let sql = format!(
        "SELECT value, current_setting('in_hot_standby') FROM register WHERE id = {register}"
    );
    // A commit may show on a replica a moment before it does on the primary: that one owes only what
    // its writer has been told of.
    let told = world.told[register].load(Ordering::SeqCst);
    let messages = client.simple_query(&sql).await.unwrap();
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some((row.get(0)?.to_owned(), row.get(1)? == "on")),
        _ => None,
    });
    let (value, on_replica) = row.expect("a row");
    let value: i64 = value.parse().unwrap();
    let owed = match on_replica {
        true => known.shown[register],
        false => known.shown[register].min(told),
    };
    world.checks.fetch_add(1, Ordering::SeqCst);
    if value < owed {
        let violation = format!("register {register}: {value} after {owed}, replica: {on_replica}");
        world.violations.lock().unwrap().push(violation);
    }
    known.shown[register] = known.shown[register].max(value);
}

async fn cell(client: &Client, sql: &str, place: usize) -> String {
    let messages = client.simple_query(sql).await.unwrap();
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(place),
        _ => None,
    });
    row.unwrap_or_else(|| panic!("{sql}: no row")).to_owned()
}

/// The ground truth: a row that one writer keeps raising, and when each value had been committed.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_sees_a_state_older_than_max_staleness() {
    let lab = lab().await;
    let causeway = support::start(&lab, "eu-west").await;
    let truth: Arc<Mutex<Vec<(Instant, i64)>>> = Arc::default();
    let over = Arc::new(AtomicBool::new(false));
    let writer = lab
        .node("us-east")
        .connect(APP_USER, APP_DATABASE)
        .await
        .unwrap();
    let beating = tokio::spawn({
        let (truth, over) = (Arc::clone(&truth), Arc::clone(&over));
        async move {
            let mut beat = 0;
            let mut pulse = tokio::time::interval(Duration::from_millis(4));
            while !over.load(Ordering::SeqCst) {
                pulse.tick().await;
                beat += 1;
                let sql = format!("UPDATE heartbeat SET beat = {beat}");
                writer.batch_execute(&sql).await.unwrap();
                truth.lock().unwrap().push((Instant::now(), beat));
            }
        }
    });
    let lag = Duration::from_millis(500);
    lab.node("eu-west").set_apply_delay(lag).await.unwrap();
    // The second lets the replica through, so that its lag shows: the check can fail.
    let bounds = [("300ms", "300ms"), ("10min", "300ms"), ("1500ms", "1500ms")];
    let mut violations = Vec::new();
    for (asked, judged) in bounds {
        let judged = humantime_ms(judged);
        let client = support::connect(&causeway).await;
        let set = format!(
            "SET causeway.consistency = 'eventual'; SET causeway.max_staleness = '{asked}'"
        );
        client.batch_execute(&set).await.unwrap();
        let (begun, mut checks, mut wrong, mut near) = (Instant::now(), 0, 0, 0);
        while begun.elapsed() < Duration::from_secs(4) {
            let asked_at = Instant::now();
            let sql = "SELECT beat, current_setting('in_hot_standby') FROM heartbeat";
            let messages = client.simple_query(sql).await.unwrap();
            let row = messages.iter().find_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some((row.get(0)?.to_owned(), row.get(1)? == "on")),
                _ => None,
            });
            let (beat, on_replica) = row.expect("a row");
            let beat: i64 = beat.parse().unwrap();
            let owed = {
                let truth = truth.lock().unwrap();
                let old = truth.partition_point(|(committed, _)| *committed + judged <= asked_at);
                old.checked_sub(1).map_or(0, |place| truth[place].1)
            };
            checks += 1;
            near += u64::from(on_replica);
            wrong += u64::from(beat < owed);
        }
        println!(
            "max_staleness {asked}: {checks} checks, {near} on the replica, {wrong} too old by {judged:?}"
        );
        violations.push((wrong, near));
    }
    over.store(true, Ordering::SeqCst);
    beating.await.unwrap();
    let [(strict, _), (control, _), (lax, near)] = violations[..] else {
        panic!("three runs");
    };
    assert_eq!((strict, lax), (0, 0));
    assert!(control > 0, "the check sees nothing");
    assert!(near > 0, "a replica that is fresh enough was never used");
}

fn humantime_ms(text: &str) -> Duration {
    Duration::from_millis(text.trim_end_matches("ms").parse().unwrap())
}
