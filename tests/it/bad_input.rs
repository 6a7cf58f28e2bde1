//! Bad input of every kind: each gets a clear answer, the process lives on, and other clients notice
//! nothing.

use std::net::SocketAddr;
use std::time::Duration;

use causeway::app::{Causeway, StartError};
use causeway::config::{Config, UserConfig};
use causeway::lab::{APP_DATABASE, APP_USER, Lab, Mode, PASSWORD, SUPERUSER};
use causeway::protocol::message;
use tokio::net::TcpListener;

use crate::front::{self, Front, Witness, ask, code, try_ask, until};
use crate::raw::{
    Raw, bind, copy_data, execute, frame, head, last, packet, parse, query, show, startup, sync,
};

const V3_0: i32 = 3 << 16;
const LOG_IN: [(&str, &str); 2] = [("user", APP_USER), ("database", APP_DATABASE)];

#[tokio::test]
async fn log_ins_that_fail() {
    let front = Front::with(|config| {
        // Known here, with another password on the servers; and not known there at all.
        config
            .users
            .push(UserConfig::with_password("monitor", "other"));
        config
            .users
            .push(UserConfig::with_password("ghost", PASSWORD));
    })
    .await;
    let witness = Witness::new(&front).await;
    let message = |user: &str| format!("password authentication failed for user \"{user}\"");
    for (user, database, password, expected, text) in [
        (
            APP_USER,
            APP_DATABASE,
            "wrong",
            "E(28P01)",
            message(APP_USER),
        ),
        (
            "nobody",
            APP_DATABASE,
            PASSWORD,
            "E(28P01)",
            message("nobody"),
        ),
        ("nobody", "nowhere", "", "E(28P01)", message("nobody")),
        (
            "monitor",
            APP_DATABASE,
            "other",
            "E(28P01)",
            message("monitor"),
        ),
        (
            "ghost",
            APP_DATABASE,
            PASSWORD,
            "E(28P01)",
            message("ghost"),
        ),
        (
            APP_USER,
            "nowhere",
            PASSWORD,
            "E(3D000)",
            "database \"nowhere\" does not exist".into(),
        ),
    ] {
        let mut raw = Raw::connect(front.address()).await;
        let seen = raw
            .start(V3_0, &[("user", user), ("database", database)], password)
            .await;
        assert_eq!(last(&seen), expected, "{user} {database}: {seen:?}");
        let fault = seen.last().unwrap();
        assert_eq!(fault.field(b'M'), text, "{user} {database}");
        assert_eq!(fault.field(b'V'), "FATAL", "{user} {database}");
        assert_eq!(raw.rest().await, b"", "{user} {database}");
    }
    // A known user and an unknown one cannot be told apart by the steps either.
    let mut steps = Vec::new();
    for user in [APP_USER, "nobody"] {
        let mut raw = Raw::connect(front.address()).await;
        let seen = raw.start(V3_0, &[("user", user)], "wrong").await;
        steps.push(
            seen.iter()
                .map(|message| (message.tag, message.body.len()))
                .collect::<Vec<_>>(),
        );
    }
    steps[0].pop();
    steps[1].pop();
    assert_eq!(steps[0], steps[1]);
    witness.ends_well().await;
}

/// What a connection that sends `bytes` and nothing more is told before it is closed.
async fn answer(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut raw = Raw::connect(address).await;
    raw.send(bytes).await;
    raw.rest().await
}

/// The SQLSTATE in an answer that is one ErrorResponse and nothing else.
fn only_error(bytes: &[u8]) -> String {
    let length = bytes
        .get(1..5)
        .map(|length| u32::from_be_bytes(length.try_into().unwrap()));
    assert_eq!(
        (bytes.first(), length.map(|length| length as usize + 1)),
        (Some(&b'E'), Some(bytes.len()))
    );
    let summary = causeway::protocol::error::summary(&bytes[5..]);
    assert!(summary.fatal);
    summary.code.as_str().to_owned()
}

#[tokio::test]
async fn first_packets_that_make_no_sense() {
    let front = Front::small().await;
    let witness = Witness::new(&front).await;
    for method in [
        "GET / HTTP/1.1\r\nHost: db\r\n\r\n",
        "POST /x HTTP/1.0\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\n",
    ] {
        let seen = answer(front.address(), method.as_bytes()).await;
        let seen = String::from_utf8(seen).unwrap();
        assert!(
            seen.starts_with("HTTP/1.1 400 Bad Request\r\n"),
            "{method}: {seen}"
        );
    }
    let unterminated = [&V3_0.to_be_bytes()[..], b"user\0app"].concat();
    let without_value = [&V3_0.to_be_bytes()[..], b"user\0"].concat();
    let behind_the_end = [&V3_0.to_be_bytes()[..], b"user\0app\0\0x"].concat();
    let not_utf8 = [&V3_0.to_be_bytes()[..], b"user\0\xff\xfe\0\0"].concat();
    for (what, bytes, expected) in [
        ("protocol 2.0", packet(&[0, 2, 0, 0, b'a', 0]), "0A000"),
        ("protocol 4.0", startup(4 << 16, &LOG_IN), "0A000"),
        ("no terminator", packet(&unterminated), "08P01"),
        ("a name without a value", packet(&without_value), "08P01"),
        ("bytes behind the end", packet(&behind_the_end), "08P01"),
        ("what is not UTF-8", packet(&not_utf8), "08P01"),
    ] {
        let seen = answer(front.address(), &bytes).await;
        assert_eq!(only_error(&seen), expected, "{what}");
    }
    // What cannot be a first packet is closed without a word, as by PostgreSQL. A TLS handshake where
    // there is no TLS has no language to be answered in.
    for (what, bytes) in [
        ("a length below eight", vec![0, 0, 0, 4]),
        ("a length of nothing", vec![0, 0, 0, 0, 0, 0, 0, 0]),
        (
            "a length above the limit",
            vec![0, 0, 0x27, 0x11, 0, 3, 0, 0],
        ),
        ("a length beyond sense", vec![0xff; 64]),
        (
            "an empty cancel request",
            packet(&80_877_102u32.to_be_bytes()),
        ),
        ("an SSH greeting", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
        ("a goodbye", b"X\0\0\0\x04".to_vec()),
        (
            "a TLS handshake",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        ),
    ] {
        assert_eq!(answer(front.address(), &bytes).await, b"", "{what}");
    }
    // Silence, half a length, half a packet: gone, and nobody minds.
    for bytes in [&b""[..], b"\0\0", b"\0\0\0\x20\0\x03\0\0user\0"] {
        let mut raw = Raw::connect(front.address()).await;
        raw.send(bytes).await;
    }
    witness.ends_well().await;
}

#[tokio::test]
async fn log_ins_that_break_the_protocol() {
    let front = Front::small().await;
    let witness = Witness::new(&front).await;
    let mut first = Vec::new();
    message::put_sasl_initial_response(&mut first, "n,,n=,r=nonce");
    let mut plus = b"SCRAM-SHA-256-PLUS\0".to_vec();
    plus.extend([0, 0, 0, 1, b'p']);
    let mut over_long = b"SCRAM-SHA-256\0".to_vec();
    over_long.extend(20_000u32.to_be_bytes());
    over_long.extend([b'x'; 20_000]);
    for (what, bytes, expected) in [
        ("a query instead of a password", query("SELECT 1"), "08P01"),
        ("a cleartext password", frame(b'p', b"secret\0"), "08P01"),
        ("an impossible length", b"p\0\0\0\x03".to_vec(), "08P01"),
        (
            "a huge length",
            [&b"p\x7f\xff\xff\xff"[..], &[b'x'; 20_000]].concat(),
            "08P01",
        ),
        ("an over-long response", frame(b'p', &over_long), "08P01"),
        ("channel binding", frame(b'p', &plus), "08P01"),
        (
            "garbage for client-final",
            [first.clone(), frame(b'p', b"garbage")].concat(),
            "08P01",
        ),
        (
            "a foreign nonce",
            [first, frame(b'p', b"c=biws,r=other,p=AAAA")].concat(),
            "08P01",
        ),
    ] {
        let mut raw = Raw::connect(front.address()).await;
        raw.send(&[startup(V3_0, &LOG_IN), bytes].concat()).await;
        let seen = raw.until_closed().await;
        assert_eq!(last(&seen), format!("E({expected})"), "{what}: {seen:?}");
    }
    // A client that closes to ask its user for the password.
    let mut raw = Raw::connect(front.address()).await;
    raw.send(&startup(V3_0, &LOG_IN)).await;
    assert_eq!(raw.next().await.map(|message| message.tag), Some(b'R'));
    raw.send(&frame(b'X', b"")).await;
    assert_eq!(raw.until_closed().await, []);
    witness.ends_well().await;
}

#[tokio::test]
async fn a_log_in_has_its_time() {
    let front = Front::with(|config| config.client.login_timeout = Duration::from_secs(10)).await;
    let mut silent = Vec::new();
    for bytes in [&b""[..], b"\0\0\0", &startup(V3_0, &LOG_IN)] {
        let mut raw = Raw::connect(front.address()).await;
        raw.send(bytes).await;
        silent.push(raw);
    }
    for mut raw in silent {
        // Closed by the other side.
        raw.rest().await;
    }
    assert_eq!(ask(&front.client().await, "SELECT 1").await, "1");
}

#[tokio::test]
async fn messages_that_make_no_sense() {
    let front = Front::with(|config| config.client.max_query_size = 100_000).await;
    let witness = Witness::new(&front).await;
    let long = "x".repeat(100_001);
    for (what, bytes, expected) in [
        ("an unknown type", frame(b'?', b"abc"), "08P01"),
        ("a backend's message", frame(b'T', b"abc"), "08P01"),
        ("a password", frame(b'p', b"secret\0"), "08P01"),
        ("an impossible length", b"Q\0\0\0\x03".to_vec(), "08P01"),
        ("a negative length", b"Q\xff\xff\xff\xff".to_vec(), "08P01"),
        ("a Query without its end", frame(b'Q', b"SELECT 1"), "08P01"),
        (
            "a Parse without types",
            frame(b'P', b"s\0SELECT 1\0"),
            "08P01",
        ),
        (
            "a Parse with too few types",
            frame(b'P', b"s\0SELECT 1\0\0\x02\0\0\0\x17"),
            "08P01",
        ),
        ("a Bind without names", frame(b'B', b"p"), "08P01"),
        ("a Describe of nothing", frame(b'D', b"x"), "08P01"),
        (
            "a Describe of something else",
            frame(b'D', b"Qx\0"),
            "08P01",
        ),
        ("a Close of nothing", frame(b'C', b""), "08P01"),
        (
            "an over-long Describe",
            frame(b'D', &[b'S'; 100_000]),
            "08P01",
        ),
        ("a text that is too long", query(&long), "54000"),
        (
            "a text that is too long, prepared",
            parse("", &long),
            "54000",
        ),
        (
            "a length beyond the limit",
            b"Q\x7f\xff\xff\xff".to_vec(),
            "54000",
        ),
    ] {
        // Alone, behind a good one, behind the half of a cycle, in a transaction.
        for before in [
            vec![],
            query("SELECT 1"),
            [parse("", "SELECT 1"), bind("", "", &[])].concat(),
            query("BEGIN"),
        ] {
            let mut raw = front.raw().await;
            let mut sent = before.clone();
            sent.extend(&bytes);
            // The proxy may close before it has taken all of it.
            let _ = raw.try_send(&sent).await;
            let _ = raw.try_send(&sync()).await;
            let seen = raw.until_closed().await;
            let expected = format!("E({expected})");
            assert_eq!(last(&seen), expected, "{what} behind {before:?}: {seen:?}");
            assert_eq!(seen.last().unwrap().field(b'V'), "FATAL", "{what}");
        }
    }
    // Messages that only the server can judge are its to refuse.
    for (what, bytes) in [
        ("a Bind that ends early", frame(b'B', b"p\0\0")),
        ("an Execute that ends early", frame(b'E', b"p")),
        ("a Bind of garbage", frame(b'B', b"\0\0\xff\xff\xff\xff")),
        ("a function call of garbage", frame(b'F', b"\0")),
    ] {
        let mut answers = Vec::new();
        for mut raw in [front.raw_direct().await, front.raw().await] {
            raw.send(&[bytes.clone(), sync()].concat()).await;
            answers.push(show(&raw.until_ready().await));
        }
        assert!(answers[0].starts_with("E("), "{what}: {answers:?}");
        assert_eq!(answers[0], answers[1], "{what}");
    }
    let mut raw = front.raw().await;
    // During COPY, something that is no COPY message.
    raw.query("CREATE TABLE t (a text)").await;
    raw.send(&query("COPY t FROM STDIN")).await;
    raw.until(b'G', 1).await;
    raw.send(&[copy_data("a\n"), query("SELECT 1")].concat())
        .await;
    let seen = raw.until_closed().await;
    assert!(show(&seen).starts_with("E(08P01)"), "{seen:?}");
    assert_eq!(
        ask(&front.client().await, "SELECT count(*) FROM t").await,
        "0"
    );
    witness.ends_well().await;
}

#[tokio::test]
async fn random_bytes_at_every_stage() {
    let front = Front::small().await;
    let witness = Witness::new(&front).await;
    for round in 0..60u64 {
        let mut random = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(round);
        let mut bytes = vec![0; rand::Rng::random_range(&mut random, 1..3000)];
        rand::RngCore::fill_bytes(&mut random, &mut bytes);
        let mut raw = match round % 3 {
            0 => Raw::connect(front.address()).await,
            1 => {
                let mut raw = Raw::connect(front.address()).await;
                raw.send(&startup(V3_0, &LOG_IN)).await;
                raw
            }
            _ => {
                // A good header, so that it gets past the first look.
                let tags = b"QPBDECFSHdcf";
                let tag = tags[round as usize % tags.len()];
                bytes = [head(tag, bytes.len()), bytes].concat();
                front.raw().await
            }
        };
        // It may be closed before all of it has been taken.
        let _ = raw.try_send(&bytes).await;
    }
    witness.ends_well().await;
}

#[tokio::test]
async fn a_port_in_use_is_said() {
    let lab = Lab::small().await.unwrap();
    let taken = TcpListener::bind(front::ANYWHERE).await.unwrap();
    let address = taken.local_addr().unwrap();
    let config = Config {
        listen: address,
        ..front::config(&lab)
    };
    let error = Causeway::start(config).await.err().unwrap();
    assert!(matches!(error, StartError::Listen { .. }), "{error:?}");
    assert!(error.to_string().contains(&address.to_string()), "{error}");

    let program = tokio::process::Command::new(env!("CARGO_BIN_EXE_causeway"))
        .args([
            "serve",
            "--listen",
            &address.to_string(),
            "--admin",
            "off",
            "--primary",
        ])
        .arg(lab.node("us-east").url(APP_USER, PASSWORD, APP_DATABASE))
        .output()
        .await
        .unwrap();
    assert_eq!(program.status.code(), Some(1));
    let said = String::from_utf8_lossy(&program.stderr);
    assert!(
        said.contains(&format!("cannot listen on {address}")),
        "{said}"
    );
}

#[tokio::test]
async fn without_a_primary_there_are_clear_errors_until_it_is_back() {
    let front =
        Front::with(|config| config.routing.failover_wait = Duration::from_millis(300)).await;
    let client = front.client().await;
    client
        .batch_execute("CREATE TABLE t (n int); INSERT INTO t VALUES (1)")
        .await
        .unwrap();
    front::until_known(&client, "t").await;
    read_back(&client).await;
    front.lab.wait_caught_up("eu-west").await.unwrap();
    front.primary().stop(Mode::Fast).await.unwrap();
    let refused = client
        .simple_query("INSERT INTO t VALUES (2)")
        .await
        .unwrap_err();
    assert_eq!(code(&refused), "08006", "{refused:?}");
    // Who has never written may read, logged in before or after.
    for other in [front.client().await, front.client().await] {
        assert_eq!(ask(&other, "SELECT count(*) FROM t").await, "1");
        let refused = other
            .simple_query("INSERT INTO t VALUES (2)")
            .await
            .unwrap_err();
        let fault = refused.as_db_error().unwrap();
        assert_eq!(fault.code().code(), "08006");
        assert!(fault.message().starts_with("causeway: "), "{fault:?}");
    }
    front.primary().start().await.unwrap();
    let deadline = std::time::Instant::now() + front::PATIENCE;
    while let Err(error) = client.simple_query("INSERT INTO t VALUES (2)").await {
        assert_eq!(code(&error), "08006", "{error:?}");
        assert!(std::time::Instant::now() < deadline);
    }
    assert_eq!(ask(&client, "SELECT count(*) FROM t").await, "2");
}

async fn read_back(client: &tokio_postgres::Client) {
    assert_eq!(ask(client, "SELECT count(*) FROM t").await, "1");
}

#[tokio::test]
async fn with_no_node_at_all_log_ins_are_refused_and_the_process_lives() {
    let lab = Lab::small().await.unwrap();
    for node in lab.nodes() {
        node.stop(Mode::Immediate).await.unwrap();
    }
    let front = Front::before(lab, |config| {
        config.routing.failover_wait = Duration::from_millis(100);
    })
    .await;
    let mut raw = Raw::connect(front.address()).await;
    let seen = raw.start(V3_0, &LOG_IN, PASSWORD).await;
    assert_eq!(last(&seen), "E(08006)", "{seen:?}");
    let detail = seen.last().unwrap().field(b'D');
    assert!(
        detail.contains("us-east: down") && detail.contains("eu-west: down"),
        "{detail}"
    );
    front.primary().start().await.unwrap();
    let deadline = std::time::Instant::now() + front::PATIENCE;
    let client = loop {
        match front.try_client(|_| {}).await {
            Ok(client) => break client,
            Err(error) => assert!(std::time::Instant::now() < deadline, "{error:?}"),
        }
    };
    loop {
        match try_ask(&client, "SELECT 1").await {
            Ok(answer) => break assert_eq!(answer, "1"),
            Err(code) => {
                assert_eq!(code, "08006");
                assert!(std::time::Instant::now() < deadline);
            }
        }
    }
}

#[tokio::test]
async fn what_keeps_the_monitor_out_is_told_in_the_node_s_words() {
    let front = Front::with(|config| {
        config.routing.failover_wait = Duration::from_millis(100);
        config.monitor.database = "nowhere".to_owned();
    })
    .await;
    let mut raw = Raw::connect(front.address()).await;
    let seen = raw.start(V3_0, &LOG_IN, PASSWORD).await;
    assert_eq!(last(&seen), "E(08006)", "{seen:?}");
    let detail = seen.last().unwrap().field(b'D');
    let said = "down: could not connect: database \"nowhere\" does not exist (SQLSTATE 3D000)";
    assert!(detail.contains(said), "{detail}");
}

#[tokio::test]
async fn a_replica_of_another_cluster_is_not_asked() {
    let lab = Lab::builder().primary("us-east").build().await.unwrap();
    let foreign = Lab::builder()
        .primary("us-west")
        .replica("ap-south")
        .build()
        .await
        .unwrap();
    let front = Front::before(lab, |config| {
        config
            .nodes
            .extend(front::config(&foreign).nodes.into_iter().skip(1));
        config.region = Some("ap-south".to_owned());
    })
    .await;
    let client = front.client().await;
    client
        .batch_execute("CREATE TABLE t (n int); INSERT INTO t VALUES (1)")
        .await
        .unwrap();
    for _ in 0..50 {
        read_back(&client).await;
    }
    let other = front.client().await;
    other
        .batch_execute("SET causeway.consistency TO 'eventual'")
        .await
        .unwrap();
    for _ in 0..50 {
        read_back(&other).await;
    }
    assert_eq!(
        ask(&other, "SELECT current_setting('cluster_name') FROM t").await,
        "us-east"
    );
}

#[tokio::test]
async fn clients_that_vanish_leave_nothing_behind() {
    let front = Front::with(|config| config.pool.size = 2).await;
    let witness = Witness::new(&front).await;
    let admin = front.admin().await;
    let tables = "CREATE TABLE t (n int); INSERT INTO t VALUES (1); GRANT ALL ON t TO app";
    admin.batch_execute(tables).await.unwrap();
    front.lab.wait_caught_up("eu-west").await.unwrap();
    let lock = query("BEGIN; SET work_mem TO '77kB'; SELECT * FROM t FOR UPDATE");
    let sleeping = [
        parse("", "SELECT pg_sleep(600), txid_current()"),
        bind("", "", &[]),
        execute("", 0),
    ];
    for (what, sent, until_tag) in [
        ("in a transaction", lock.clone(), Some(b'Z')),
        (
            "in a transaction that has failed",
            [lock, query("SELECT 1/0")].concat(),
            Some(b'E'),
        ),
        (
            "with a temporary table",
            query("CREATE TEMP TABLE mine (n int)"),
            Some(b'Z'),
        ),
        (
            "with an advisory lock",
            query("SELECT pg_advisory_lock(7)"),
            Some(b'Z'),
        ),
        ("while it listens", query("LISTEN bell"), Some(b'Z')),
        (
            "as somebody else",
            query("BEGIN; SET ROLE app; SET search_path TO a"),
            Some(b'Z'),
        ),
        (
            "in a COPY",
            [query("COPY t FROM STDIN"), copy_data("2\n3")].concat(),
            Some(b'G'),
        ),
        (
            "in the middle of a COPY message",
            [query("COPY t FROM STDIN"), head(b'd', 9000)].concat(),
            None,
        ),
        (
            "in a result",
            query("SELECT repeat('x', 1000) FROM generate_series(1, 1000000)"),
            Some(b'D'),
        ),
        (
            "in a large value",
            query("SELECT repeat('x', 50000000)"),
            Some(b'T'),
        ),
        (
            "in a COPY to it",
            query("COPY (SELECT repeat('x', 1000) FROM generate_series(1, 1000000)) TO STDOUT"),
            Some(b'd'),
        ),
        (
            "while its statement runs",
            query("SELECT pg_sleep(600), txid_current()"),
            None,
        ),
        (
            "while its cycle is open",
            [&sleeping[..], &[frame(b'H', b"")]].concat().concat(),
            None,
        ),
        (
            "behind a Flush",
            [
                parse("", "SELECT n FROM t FOR UPDATE"),
                bind("", "", &[]),
                execute("", 0),
                frame(b'H', b""),
            ]
            .concat(),
            Some(b'C'),
        ),
        (
            "in the middle of a Bind",
            [parse("", "SELECT $1"), head(b'B', 500_000), vec![0, 0]].concat(),
            None,
        ),
        ("with replies unread", query("SELECT 1").repeat(50), None),
    ] {
        let mut raw = front.raw().await;
        raw.send(&sent).await;
        if let Some(tag) = until_tag {
            raw.until(tag, 1).await;
        }
        drop(raw);
        // Its servers are at rest or gone, soon.
        let busy = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' \
            AND state IS DISTINCT FROM 'idle' AND application_name IS DISTINCT FROM 'witness'";
        until(&admin, busy, "0").await;
        let locks = "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) \
            WHERE usename = 'app' AND (locktype = 'advisory' OR mode = 'RowShareLock')";
        until(&admin, locks, "0").await;
        // And the next client finds nothing of it, whichever server it is given.
        let (one, two) = (front.client().await, front.client().await);
        one.batch_execute("BEGIN").await.unwrap();
        let left = "SELECT concat_ws('/', current_user, current_setting('work_mem'), \
            current_setting('search_path'), current_setting('transaction_read_only'), \
            (SELECT count(*) FROM pg_listening_channels()), to_regclass('pg_temp.mine'), \
            txid_current() > 0)";
        for client in [&one, &two] {
            let clean = "app/4MB/\"$user\", public/off/0/t";
            assert_eq!(ask(client, left).await, clean, "{what}");
        }
        one.batch_execute("COMMIT").await.unwrap();
        assert_eq!(ask(&two, "SELECT count(*) FROM t").await, "1", "{what}");
    }
    let free = "SELECT pg_try_advisory_lock(7)";
    assert_eq!(try_ask(&admin, free).await, Ok("t".to_owned()));
    witness.ends_well().await;
    let west = front
        .lab
        .node("eu-west")
        .connect(SUPERUSER, APP_DATABASE)
        .await
        .unwrap();
    let busy = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND state <> 'idle'";
    until(&west, busy, "0").await;
}
