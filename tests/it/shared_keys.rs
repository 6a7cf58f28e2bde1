//! Session keys in a Redis or Valkey server: connections of two Causeways that say they are one user's
//! see what any of them wrote or saw, whatever becomes of the store.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use causeway::app::{Causeway, Running};
use causeway::config::{Config, KeyStoreConfig};
use causeway::lab::{APP_DATABASE, APP_USER, Lab, LabStore, SUPERUSER};
use tokio::net::{TcpListener, TcpStream};
use tokio_postgres::{AsyncMessage, Client, NoTls};

use crate::front::{PATIENCE, ask, until_known};
use crate::support;
use crate::turns::{self, Tally};

const REPLICAS: [&str; 2] = ["eu-west", "eu-west-2"];
const READ: &str = "SELECT value FROM register WHERE id = 0";
/// A store that answers does so within that, on however slow a machine.
const PATIENT: Duration = Duration::from_secs(5);

/// Two Causeways beside two replicas, the primary 20 ms away, and the store that they share.
struct Pair {
    here: Running,
    there: Running,
    store: LabStore,
    lab: Lab,
}

impl Pair {
    async fn new() -> Pair {
        Pair::with(|_, _| {}).await
    }

    async fn with(change: impl FnOnce(&mut Config, &LabStore)) -> Pair {
        Pair::patient(PATIENT, change).await
    }

    /// The same where the store is away if it does not answer within `timeout`.
    async fn patient(timeout: Duration, change: impl FnOnce(&mut Config, &LabStore)) -> Pair {
        let lab = Lab::builder()
            .quick()
            .primary("us-east")
            .replica("eu-west")
            .replica("eu-west")
            .round_trip("us-east", "eu-west", Duration::from_millis(20))
            .build();
        let (lab, store) = tokio::join!(lab, LabStore::start());
        let (lab, store) = (lab.unwrap(), store.unwrap());
        let config = |url: String| {
            let mut config = support::config(&lab, "eu-west");
            config.key_store = Some(KeyStoreConfig {
                timeout,
                ..KeyStoreConfig::new(url)
            });
            config
        };
        let mut first = config(store.url());
        change(&mut first, &store);
        let here = Causeway::start(first).await.unwrap();
        let there = Causeway::start(config(store.url())).await.unwrap();
        let client = support::connect(&here).await;
        let make = "CREATE TABLE register (id int PRIMARY KEY, value bigint);
            INSERT INTO register SELECT id, 0 FROM generate_series(0, 9) AS id";
        client.batch_execute(make).await.unwrap();
        for running in [&here, &there] {
            until_known(&support::connect(running).await, "register").await;
        }
        for replica in REPLICAS {
            lab.wait_caught_up(replica).await.unwrap();
        }
        let pair = Pair {
            here,
            there,
            store,
            lab,
        };
        for running in [&pair.here, &pair.there] {
            until_near(&keyed(running, "warm").await).await;
        }
        pair
    }

    async fn pause(&self) {
        for replica in REPLICAS {
            self.lab.wait_caught_up(replica).await.unwrap();
            self.lab.node(replica).pause_replay().await.unwrap();
        }
    }

    async fn resume(&self) {
        for replica in REPLICAS {
            self.lab.node(replica).resume_replay().await.unwrap();
        }
    }
}

async fn keyed(running: &Running, key: &str) -> Client {
    let client = support::connect(running).await;
    let set = format!("SET causeway.session_key = '{key}'");
    client.batch_execute(&set).await.unwrap();
    client
}

async fn write(client: &Client, value: i64) {
    let write = format!("UPDATE register SET value = {value} WHERE id = 0");
    client.batch_execute(&write).await.unwrap();
}

async fn route(client: &Client) -> String {
    ask(client, "SHOW causeway.last_route").await
}

/// Reads until a replica answers: the store is there, and the floor is reached.
async fn until_near(client: &Client) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let value = ask(client, READ).await;
        let route = route(client).await;
        if route.contains("role=replica") {
            return value;
        }
        assert!(Instant::now() < deadline, "never near: {route}");
    }
}

/// Reads until the reason for the route is this one.
async fn until_reason(client: &Client, reason: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        ask(client, READ).await;
        let route = route(client).await;
        if route.contains(reason) {
            return;
        }
        assert!(Instant::now() < deadline, "never {reason}: {route}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_ties_two_causeways_together() {
    let pair = Pair::new().await;
    let one = keyed(&pair.here, "user:1").await;
    let other = keyed(&pair.there, "user:1").await;
    let stranger = keyed(&pair.there, "user:2").await;
    until_near(&stranger).await;
    pair.pause().await;
    for round in 1..=30 {
        let (writer, reader) = match round % 2 {
            0 => (&one, &other),
            _ => (&other, &one),
        };
        write(writer, round).await;
        assert_eq!(ask(reader, READ).await, round.to_string());
    }
    // Who has another key is not held up: else this would prove nothing.
    assert_eq!(ask(&stranger, READ).await, "0");
    assert!(route(&stranger).await.contains("role=replica"));
    // A new connection; a transaction, from within and when it is over; a COPY; what was only read.
    assert_eq!(ask(&keyed(&pair.there, "user:1").await, READ).await, "30");
    let transaction = "BEGIN; UPDATE register SET value = 31 WHERE id = 0; COMMIT";
    one.batch_execute(transaction).await.unwrap();
    assert_eq!(ask(&other, READ).await, "31");
    let past = support::connect(&pair.here).await;
    one.batch_execute("BEGIN").await.unwrap();
    assert_eq!(ask(&one, READ).await, "31");
    write(&past, 32).await;
    assert_eq!(ask(&one, READ).await, "32");
    assert_eq!(
        ask(&other, READ).await,
        "32",
        "seen in a transaction that is open"
    );
    one.batch_execute("COMMIT").await.unwrap();
    assert_eq!(ask(&other, READ).await, "32");
    write(&past, 33).await;
    one.batch_execute("SET causeway.consistency = 'strong'")
        .await
        .unwrap();
    assert_eq!(ask(&one, READ).await, "33");
    assert_eq!(ask(&other, READ).await, "33", "seen on the primary");
    pair.resume().await;
    assert_eq!(until_near(&other).await, "33");
    let token = ask(&other, "SHOW causeway.token").await;
    assert!(token.starts_with("c1."), "{token}");
}

/// The client's answer waits for no probe: how far the replica is comes right behind the read.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_replica_has_shown_is_asked_behind_the_read() {
    let pair = Pair::with(|config, _| config.pool.size = 1).await;
    let reader = keyed(&pair.here, "user:1").await;
    for value in 1..=20 {
        write(&support::connect(&pair.there).await, value).await;
        let seen = until_near(&reader).await;
        let question = async |replica| {
            let direct = pair.lab.node(replica).connect(SUPERUSER, APP_DATABASE);
            let last = format!(
                "SELECT count(*) FROM pg_stat_activity WHERE usename = '{APP_USER}' \
                 AND query ~ 'concat_ws.*pg_last_wal_replay_lsn.*pg_last_wal_receive_lsn'"
            );
            ask(&direct.await.unwrap(), &last).await
        };
        let asked = [question("eu-west").await, question("eu-west-2").await];
        assert!(asked.iter().any(|servers| servers != "0"), "{asked:?}");
        // Whatever it was: nobody under the key sees less, wherever.
        let other = ask(&keyed(&pair.there, "user:1").await, READ).await;
        let (other, seen): (i64, i64) = (other.parse().unwrap(), seen.parse().unwrap());
        assert!(other >= seen, "{other} after {seen}");
    }
}

/// Sessions of a key take turns at random on two Causeways while replicas lag differently: none sees
/// less than any of them has been shown before it asked. Without a key the same must fail.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_under_a_shared_key_sees_less_than_another_has_seen() {
    let pair = Pair::new().await;
    let lags = [Duration::ZERO, Duration::from_millis(150)];
    for (replica, lag) in REPLICAS.iter().zip(lags) {
        pair.lab.node(replica).set_apply_delay(lag).await.unwrap();
    }
    let without = run(&pair, None).await;
    let under_keys = run(&pair, Some("user")).await;
    turns::assert_that_keys_count(&without, &under_keys);
}

/// Four sessions for each of four users, half of them on either Causeway, under a key of each user's if
/// there is a prefix to make it of.
async fn run(pair: &Pair, prefix: Option<&str>) -> Arc<Tally> {
    let reset = support::connect(&pair.here).await;
    let clear = "UPDATE register SET value = 0";
    reset.batch_execute(clear).await.unwrap();
    for replica in REPLICAS {
        pair.lab.wait_caught_up(replica).await.unwrap();
    }
    let mut users = Vec::new();
    for user in 0..4 {
        let key = prefix.map_or(String::new(), |prefix| format!("{prefix}:{user}"));
        let mut clients = Vec::new();
        for running in [&pair.here, &pair.there, &pair.here, &pair.there] {
            clients.push(keyed(running, &key).await);
        }
        users.push(clients);
    }
    turns::take(users).await
}

/// Killed, it comes back with nothing, or with what it had long ago: neither hides anything.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_or_has_forgotten_hides_nothing() {
    // While it is away, each answer waits as long for the replicas, which stand still here.
    let mut pair = Pair::patient(Duration::from_secs(2), |_, _| {}).await;
    let one = keyed(&pair.here, "user:1").await;
    let other = keyed(&pair.there, "user:1").await;
    write(&one, 1).await;
    until_near(&other).await;
    for keeps in [false, true] {
        if keeps {
            pair.store.save().await.unwrap();
        }
        write(&one, 2).await;
        assert_eq!(until_near(&other).await, "2");
        pair.pause().await;
        // The store had it, and will have forgotten.
        write(&one, 3).await;
        pair.store.kill().await.unwrap();
        until_reason(&other, "the key store is away").await;
        until_reason(&one, "the key store is away").await;
        assert_eq!(ask(&other, READ).await, "3");
        // Nobody can write it down.
        write(&one, 4).await;
        assert_eq!(ask(&other, READ).await, "4");
        assert!(route(&other).await.contains("the key store is away"));
        pair.store.start_again().await.unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert_eq!(ask(&other, READ).await, "4");
            assert_eq!(ask(&keyed(&pair.there, "user:1").await, READ).await, "4");
            if !route(&other).await.contains("the key store is away") {
                break;
            }
            assert!(Instant::now() < deadline, "the store stays away");
        }
        for _ in 0..20 {
            assert_eq!(ask(&other, READ).await, "4");
        }
        pair.resume().await;
        assert_eq!(until_near(&other).await, "4");
    }
}

/// It takes connections and does not answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_hangs_counts_as_away() {
    let pair = Pair::patient(Duration::from_millis(250), |_, _| {}).await;
    let one = keyed(&pair.here, "user:1").await;
    let other = keyed(&pair.there, "user:1").await;
    write(&one, 1).await;
    assert_eq!(until_near(&other).await, "1");
    pair.pause().await;
    pair.store.freeze().unwrap();
    write(&one, 2).await;
    assert_eq!(ask(&other, READ).await, "2");
    assert!(route(&other).await.contains("the key store is away"));
    // Without a key nothing has changed.
    let nobody = support::connect(&pair.there).await;
    assert_eq!(ask(&nobody, READ).await, "1");
    pair.store.thaw().unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert_eq!(ask(&other, READ).await, "2");
        if !route(&other).await.contains("the key store is away") {
            break;
        }
        assert!(Instant::now() < deadline, "the store stays away");
    }
    assert_eq!(ask(&other, READ).await, "2");
    pair.resume().await;
    assert_eq!(until_near(&other).await, "2");
}

/// Entries that have been dropped, by whoever or by their age, are not taken for what never was.
#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_is_gone_hides_nothing() {
    let pair = Pair::new().await;
    let one = keyed(&pair.here, "user:1").await;
    write(&one, 1).await;
    until_near(&one).await;
    pair.pause().await;
    write(&one, 2).await;
    let other = keyed(&pair.there, "user:1").await;
    for forget in ["SCRIPT FLUSH", "FLUSHALL"] {
        pair.store.ask(forget).await.unwrap();
        assert_eq!(ask(&other, READ).await, "2", "{forget}");
    }
    let system: String = {
        let token = ask(&other, "SHOW causeway.token").await;
        token.split('.').nth(1).unwrap().to_owned()
    };
    write(&one, 3).await;
    let forget = format!("DEL causeway:{system}:key:user:1");
    // The two may still be on their way back to a store that has been emptied.
    while pair.store.ask(&forget).await.unwrap() != ":1" {
        write(&one, 3).await;
    }
    assert_eq!(ask(&other, READ).await, "3");
    // What is there and cannot be is not believed either.
    for garbage in [
        format!("HSET causeway:{system}:key:user:1 00000001 nonsense"),
        format!("HSET causeway:{system}:key:user:1 00000001 ffffffffffffffff"),
    ] {
        write(&one, 4).await;
        pair.store.ask(&garbage).await.unwrap();
        assert_eq!(ask(&other, READ).await, "4", "{garbage}");
        pair.store.ask(&forget).await.unwrap();
    }
    pair.resume().await;
    assert_eq!(until_near(&other).await, "4");
}

/// Only one of the two has lost the store: then it says that the other one may not know.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_cut_off_from_the_store_says_so() {
    let way = Way::new().await;
    let address = way.address;
    let mut target = None;
    let pair = Pair::with(|config, store| {
        target = Some(store.port());
        config.key_store = Some(KeyStoreConfig {
            timeout: PATIENT,
            ..KeyStoreConfig::new(format!("redis://{address}"))
        });
        way.open(store.port());
    });
    let pair = pair.await;
    let (one, notices) = noticed(&pair.here, "user:1").await;
    let other = keyed(&pair.there, "user:1").await;
    write(&one, 1).await;
    assert_eq!(until_near(&other).await, "1");
    way.close();
    until_reason(&one, "the key store is away").await;
    notices.try_iter().for_each(drop);
    // Replicas have it soon: nobody can miss it, and nobody is warned.
    write(&one, 2).await;
    assert_eq!(ask(&other, READ).await, "2");
    assert_eq!(notices.try_iter().collect::<Vec<_>>(), Vec::<String>::new());
    pair.pause().await;
    write(&one, 3).await;
    let said: Vec<String> = notices.try_iter().collect();
    assert!(
        said.iter()
            .any(|text| text.contains("other Causeways may not know")),
        "{said:?}"
    );
    // When it is back, the other one is told.
    way.open(target.unwrap());
    let deadline = Instant::now() + PATIENCE;
    while ask(&other, READ).await != "3" {
        assert!(Instant::now() < deadline, "it is never told");
    }
    assert_eq!(ask(&keyed(&pair.there, "user:9").await, READ).await, "3");
    pair.resume().await;
    assert_eq!(until_near(&other).await, "3");
}

/// A client under a key, and what it is warned of.
async fn noticed(running: &Running, key: &str) -> (Client, std::sync::mpsc::Receiver<String>) {
    let mut config = tokio_postgres::Config::new();
    config
        .host("127.0.0.1")
        .port(running.listen_addr().port())
        .user(causeway::lab::APP_USER)
        .password(causeway::lab::PASSWORD)
        .dbname(causeway::lab::APP_DATABASE);
    let (client, mut connection) = config.connect(NoTls).await.unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) =
            std::future::poll_fn(|context| connection.poll_message(context)).await
        {
            if let AsyncMessage::Notice(notice) = message {
                // Nobody listens any more when the test is over.
                let _ = sender.send(notice.message().to_owned());
            }
        }
    });
    let set = format!("SET causeway.session_key = '{key}'");
    client.batch_execute(&set).await.unwrap();
    (client, receiver)
}

/// A way to the store that can be closed.
struct Way {
    address: SocketAddr,
    target: tokio::sync::watch::Sender<Option<u16>>,
}

impl Way {
    async fn new() -> Way {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (target, seen) = tokio::sync::watch::channel(None);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut seen = seen.clone();
                tokio::spawn(async move {
                    let Some(port) = *seen.borrow_and_update() else {
                        return;
                    };
                    let Ok(mut far) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else {
                        return;
                    };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = seen.changed() => {}
                    }
                });
            }
        });
        Way { address, target }
    }

    fn open(&self, port: u16) {
        self.target.send_replace(Some(port));
    }

    fn close(&self) {
        self.target.send_replace(None);
    }
}

/// Behind TLS, with a user that may do no more than the documents say.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_behind_tls_asks_for_a_user_and_a_certificate() {
    let pair = Pair::new().await;
    let files = tempfile::tempdir().unwrap();
    let (certificate, key) = (
        files.path().join("store.pem"),
        files.path().join("store.key"),
    );
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let port = support::free_port();
    let tls = format!(
        "CONFIG SET tls-cert-file {} tls-key-file {} tls-auth-clients no tls-port {port}",
        certificate.display(),
        key.display()
    );
    let user = documented_rights().replace("<secret>", ">secret");
    for command in [&tls, &user] {
        assert_eq!(pair.store.ask(command).await.unwrap(), "+OK", "{command}");
    }
    let start = async |url: String, root: Option<&std::path::Path>| {
        let mut config = support::config(&pair.lab, "eu-west");
        let mut store = KeyStoreConfig::new(url);
        store.timeout = PATIENT;
        store.root_cert = root.map(std::path::Path::to_owned);
        config.key_store = Some(store);
        Causeway::start(config).await.unwrap()
    };
    let good = format!("rediss://causeway:secret@localhost:{port}");
    let secured = start(good.clone(), Some(&certificate)).await;
    let one = keyed(&secured, "user:1").await;
    let other = keyed(&pair.there, "user:1").await;
    until_near(&one).await;
    pair.pause().await;
    for (value, writer, reader) in [(1, &one, &other), (2, &other, &one)] {
        write(writer, value).await;
        assert_eq!(ask(reader, READ).await, value.to_string());
    }
    assert!(!route(&one).await.contains("the key store is away"));
    // Whoever it does not know, and whose certificate nobody vouches for, is none to share keys with.
    let wrong = good.replace("secret", "guess");
    for refused in [
        start(wrong, Some(&certificate)).await,
        start(good, None).await,
    ] {
        let client = keyed(&refused, "user:1").await;
        assert_eq!(ask(&client, READ).await, "2");
        let route = route(&client).await;
        assert!(route.contains("the key store is away"), "{route}");
    }
}

/// The command in the documents that makes a user for Causeway.
fn documented_rights() -> String {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/consistency.md");
    let page = std::fs::read_to_string(page).unwrap();
    let line = page.lines().find(|line| line.contains("ACL SETUSER"));
    line.expect("the rights are documented").trim().to_owned()
}
