//! Pools: their bounds, their order, their upkeep. What exists is asked of the servers themselves.

use std::time::{Duration, Instant};

use causeway::config::PoolMode;
use causeway::lab::{APP_DATABASE, APP_USER, SUPERUSER};
use tokio::sync::mpsc;

use crate::front::{
    ANYWHERE, Front, PATIENCE, Witness, ask, code, read_on_replica, try_ask, until,
};

/// The servers that a node has for the application.
const SERVERS: &str = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'";
/// A statement for the primary, and its server's process.
const WHO: &str = "SELECT pg_backend_pid() FROM (SELECT txid_current()) x";
/// Those that a client holds: others may be opened to be kept at rest.
const HELD: &str = "SELECT count(*) FROM pg_stat_activity \
    WHERE usename = 'app' AND state = 'idle in transaction'";

#[tokio::test]
async fn no_node_ever_has_more_servers_than_the_pool_s_size() {
    const SIZE: usize = 3;
    let front = Front::with(|config| config.pool.size = SIZE).await;
    let mut watchers = Vec::new();
    let (done, _) = tokio::sync::watch::channel(false);
    for node in front.lab.nodes() {
        let admin = node.connect(SUPERUSER, APP_DATABASE).await.unwrap();
        let done = done.subscribe();
        watchers.push(tokio::spawn(async move {
            let mut most = 0;
            while !*done.borrow() {
                most = most.max(ask(&admin, SERVERS).await.parse::<usize>().unwrap());
            }
            most
        }));
    }
    let mut tasks = Vec::new();
    for number in 0..24 {
        let client = front.client().await;
        tasks.push(tokio::spawn(async move {
            for round in 0..20 {
                match (number + round) % 3 {
                    0 => assert_eq!(ask(&client, "SELECT 1 FROM pg_class LIMIT 1").await, "1"),
                    1 => assert_eq!(ask(&client, "SELECT txid_current() > 0").await, "t"),
                    _ => {
                        client.batch_execute("BEGIN").await.unwrap();
                        assert_eq!(ask(&client, "SELECT txid_current() > 0").await, "t");
                        assert_eq!(ask(&client, "SELECT 2").await, "2");
                        client.batch_execute("COMMIT").await.unwrap();
                    }
                }
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    done.send(true).unwrap();
    for watcher in watchers {
        let most = watcher.await.unwrap();
        assert!((1..=SIZE).contains(&most), "{most} servers");
    }
}

#[tokio::test]
async fn a_node_s_bound_holds_over_all_pools() {
    let front = Front::with(|config| {
        config
            .nodes
            .iter_mut()
            .for_each(|node| node.max_connections = 2);
        config.admin = Some(ANYWHERE);
        config.pool.checkout_timeout = Duration::from_secs(3);
    })
    .await;
    let admin = front.admin().await;
    let other = front
        .try_client(|config| {
            config.user(SUPERUSER);
        })
        .await
        .unwrap();
    let mine = [front.client().await, front.client().await];
    for client in &mine {
        client.batch_execute("BEGIN").await.unwrap();
        ask(client, WHO).await;
    }
    assert_eq!(ask(&admin, SERVERS).await, "2");
    assert_eq!(try_ask(&other, WHO).await, Err("53300".to_owned()));
    // A server at rest of one pool makes room for another pool.
    mine[0].batch_execute("COMMIT").await.unwrap();
    ask(&other, WHO).await;
    until(&admin, SERVERS, "1").await;
    // So does one that comes to rest while the other pool waits already.
    other.batch_execute("BEGIN").await.unwrap();
    ask(&other, WHO).await;
    let third = front
        .try_client(|config| {
            config.user(SUPERUSER);
        })
        .await
        .unwrap();
    let waiting = tokio::spawn(async move { try_ask(&third, WHO).await });
    front.until_waiting(1).await;
    mine[1].batch_execute("COMMIT").await.unwrap();
    waiting.await.unwrap().unwrap();
    until(&admin, SERVERS, "0").await;
    other.batch_execute("COMMIT").await.unwrap();
}

#[tokio::test]
async fn waiters_are_served_in_order_and_not_for_ever() {
    let front = Front::with(|config| {
        config.admin = Some(ANYWHERE);
        config.pool.size = 1;
        config.pool.checkout_timeout = Duration::from_secs(5);
    })
    .await;
    let witness = Witness::new(&front).await;
    let admin = front.admin().await;
    admin
        .batch_execute(
            "CREATE TABLE turn (id serial, who int); GRANT ALL ON turn, turn_id_seq TO app",
        )
        .await
        .unwrap();
    let holder = front.client().await;
    // Logged in before anybody waits: that takes its time too.
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(front.client().await);
    }
    holder.batch_execute("BEGIN").await.unwrap();
    ask(&holder, WHO).await;
    let (sender, mut ended) = mpsc::unbounded_channel();
    for (number, client) in clients.into_iter().enumerate() {
        let sender = sender.clone();
        tokio::spawn(async move {
            let sql = format!("INSERT INTO turn (who) VALUES ({number}) RETURNING who");
            sender.send(try_ask(&client, &sql).await).unwrap();
        });
        front.until_waiting(number + 1).await;
    }
    holder.batch_execute("COMMIT").await.unwrap();
    for _ in 0..8 {
        ended.recv().await.unwrap().unwrap();
    }
    let order = "SELECT string_agg(who::text, ',' ORDER BY id) FROM turn";
    assert_eq!(ask(&admin, order).await, "0,1,2,3,4,5,6,7");

    holder.batch_execute("BEGIN").await.unwrap();
    ask(&holder, WHO).await;
    let refused = front.client().await.simple_query(WHO).await.unwrap_err();
    let fault = refused.as_db_error().unwrap();
    assert_eq!(fault.code().code(), "53300");
    assert!(
        fault
            .message()
            .starts_with("causeway: no server of node us-east"),
        "{fault:?}"
    );
    // A full pool is no failure of the node.
    holder.batch_execute("COMMIT").await.unwrap();
    assert_eq!(
        ask(&front.client().await, "SELECT txid_current() > 0").await,
        "t"
    );
    witness.ends_well().await;
}

#[tokio::test]
async fn servers_at_rest_are_closed_in_time_but_for_those_to_keep() {
    for keep in [0, 2] {
        let front = Front::with(|config| {
            config.pool.idle_timeout = Duration::from_secs(1);
            config.pool.min_idle = keep;
        })
        .await;
        let admin = front.admin().await;
        let clients = [
            front.client().await,
            front.client().await,
            front.client().await,
        ];
        for client in &clients {
            client.batch_execute("BEGIN").await.unwrap();
            ask(client, WHO).await;
        }
        assert_eq!(ask(&admin, HELD).await, "3");
        for client in &clients {
            client.batch_execute("COMMIT").await.unwrap();
        }
        until(&admin, SERVERS, &keep.to_string()).await;
        for client in &clients {
            assert_eq!(ask(client, "SELECT txid_current() > 0").await, "t");
        }
    }
}

#[tokio::test]
async fn an_old_server_makes_room_for_a_new_one() {
    let front = Front::with(|config| {
        config.pool.size = 1;
        config.pool.max_lifetime = Duration::from_secs(1);
    })
    .await;
    let client = front.client().await;
    let first = ask(&client, WHO).await;
    let deadline = Instant::now() + PATIENCE;
    while ask(&client, WHO).await == first {
        assert!(Instant::now() < deadline, "it lives for ever");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Not in the middle of a transaction, however long that takes.
    client.batch_execute("BEGIN").await.unwrap();
    let server = ask(&client, WHO).await;
    ask(&client, "SELECT pg_sleep(2.5)").await;
    assert_eq!(ask(&client, WHO).await, server);
    client.batch_execute("COMMIT").await.unwrap();
}

#[tokio::test]
async fn a_server_that_died_at_rest_is_given_to_nobody() {
    let front = Front::small().await;
    let clients = [front.client().await, front.client().await];
    for round in 0..5 {
        for client in &clients {
            assert_eq!(
                ask(client, "SELECT txid_current() > 0").await,
                "t",
                "{round}"
            );
            read_on_replica(client, "SELECT 1 FROM (VALUES (1)) v", "1").await;
        }
        for node in front.lab.nodes() {
            let ended = node.terminate_backends(APP_USER).await.unwrap();
            assert!(ended > 0, "{round}");
            // The server is gone when the node says so; its last words are on their way then.
            let admin = node.connect(SUPERUSER, APP_DATABASE).await.unwrap();
            until(&admin, SERVERS, "0").await;
        }
    }
    for client in &clients {
        assert_eq!(ask(client, "SELECT txid_current() > 0").await, "t");
        assert_eq!(ask(client, "SELECT 1 FROM (VALUES (1)) v").await, "1");
    }
}

#[tokio::test]
async fn a_server_that_dies_at_work_takes_only_its_own_client_s_statement() {
    let front = Front::small().await;
    let witness = Witness::new(&front).await;
    let client = front.client().await;
    let admin = front.admin().await;
    // Between two statements of a transaction.
    client.batch_execute("BEGIN").await.unwrap();
    let server = ask(&client, WHO).await;
    let kill = format!("SELECT pg_terminate_backend({server}, 5000)");
    assert_eq!(ask(&admin, &kill).await, "t");
    let lost = client.simple_query("SELECT 1").await.unwrap_err();
    assert!(
        lost.is_closed() || ["57P01", "08006"].contains(&&*code(&lost)),
        "{lost:?}"
    );
    // While a statement runs: the error is PostgreSQL's own, and the session ends or goes on.
    let client = std::sync::Arc::new(front.client().await);
    let running = tokio::spawn({
        let client = std::sync::Arc::clone(&client);
        async move { try_ask(&client, "SELECT pg_sleep(600), txid_current()").await }
    });
    let asleep = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    until(&admin, asleep, "1").await;
    front.primary().terminate_backends(APP_USER).await.unwrap();
    assert_eq!(running.await.unwrap(), Err("57P01".to_owned()));
    assert_eq!(
        ask(&front.client().await, "SELECT txid_current() > 0").await,
        "t"
    );
    witness.ends_well().await;
}

#[tokio::test]
async fn in_session_mode_a_client_keeps_its_server() {
    let front = Front::with(|config| {
        config.pool.mode = PoolMode::Session;
        config.pool.size = 2;
        config.pool.checkout_timeout = Duration::from_secs(5);
    })
    .await;
    let client = front.client().await;
    let server = ask(&client, WHO).await;
    client
        .batch_execute(
            "CREATE TEMP TABLE mine (n int); PREPARE p AS SELECT 1; SELECT pg_advisory_lock(7)",
        )
        .await
        .unwrap();
    for _ in 0..5 {
        assert_eq!(ask(&client, WHO).await, server);
        assert_eq!(ask(&client, "SELECT pg_backend_pid()").await, server);
        client
            .batch_execute("BEGIN; SET LOCAL work_mem TO '77kB'; COMMIT")
            .await
            .unwrap();
    }
    assert_eq!(ask(&client, "SELECT count(*) FROM mine").await, "0");
    let other = front.client().await;
    assert_ne!(ask(&other, WHO).await, server);
    let third = front.client().await;
    assert_eq!(try_ask(&third, WHO).await, Err("53300".to_owned()));
    drop(client);
    drop(other);
    // What they left is gone, and so are their servers or all that was on them.
    let deadline = Instant::now() + PATIENCE;
    while let Err(code) = try_ask(&third, "SELECT pg_backend_pid()").await {
        assert_eq!(code, "53300");
        assert!(Instant::now() < deadline);
    }
    let left = "SELECT concat_ws('/', to_regclass('pg_temp.mine'), pg_try_advisory_lock(7), \
        (SELECT count(*) FROM pg_prepared_statements WHERE from_sql))";
    until(&third, left, "t/0").await;
}

#[tokio::test]
async fn a_server_that_its_client_has_kept_serves_the_next_one() {
    for mode in [PoolMode::Session, PoolMode::Transaction] {
        let front = Front::with(|config| {
            config.pool.mode = mode;
            config.pool.size = 1;
        })
        .await;
        let client = front.client().await;
        for made in [
            "SET work_mem TO '77kB'",
            "CREATE TEMP TABLE mine (n int)",
            "LISTEN news",
            "PREPARE p AS SELECT 1",
            "SELECT pg_advisory_lock(7)",
            "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
        ] {
            client.batch_execute(made).await.unwrap();
        }
        client.query("SELECT 2 FROM mine", &[]).await.unwrap();
        let server = ask(&client, "SELECT pg_backend_pid()").await;
        drop(client);

        let next = front.client().await;
        assert_eq!(ask(&next, "SELECT pg_backend_pid()").await, server);
        let left = "SELECT concat_ws('/', to_regclass('pg_temp.mine'), current_setting('work_mem'), \
            (SELECT count(*) FROM pg_listening_channels()), (SELECT count(*) FROM pg_prepared_statements), \
            (SELECT count(*) FROM pg_cursors WHERE is_holdable), \
            (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'))";
        assert_eq!(ask(&next, left).await, "4MB/0/0/0/0", "{mode:?}");
        drop(next);

        // DISCARD ALL does not undo this, and a transaction has not ended.
        for kept in ["SELECT setseed(0.5)", "BEGIN; SELECT txid_current()"] {
            let client = front.client().await;
            client.batch_execute(kept).await.unwrap();
            let server = ask(&client, "SELECT pg_backend_pid()").await;
            drop(client);
            let next = front.client().await;
            assert_ne!(ask(&next, "SELECT pg_backend_pid()").await, server);
        }
    }
}

#[tokio::test]
async fn too_many_clients_are_told_so() {
    let front = Front::with(|config| config.client.max_clients = 2).await;
    let kept = [front.client().await, front.client().await];
    let refused = front.try_client(|_| {}).await.err().unwrap();
    assert_eq!(code(&refused), "53300");
    for client in kept {
        assert_eq!(ask(&client, "SELECT 1").await, "1");
    }
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = front.try_client(|_| {}).await {
        assert_eq!(code(&error), "53300");
        assert!(Instant::now() < deadline);
    }
}

#[tokio::test]
async fn an_idle_client_is_told_and_closed() {
    let front = Front::with(|config| config.client.idle_timeout = Duration::from_millis(300)).await;
    let mut raw = front.raw().await;
    assert_eq!(raw.query("BEGIN").await, "C(BEGIN) Z(T)");
    // In a transaction the limit does not count.
    assert!(raw.query("SELECT pg_sleep(0.7)").await.ends_with("Z(T)"));
    assert_eq!(raw.query("COMMIT").await, "C(COMMIT) Z(I)");
    let seen = raw.until_closed().await;
    assert_eq!(crate::raw::show(&seen), "E(57P05)");
}

/// PostgreSQL waits some seconds for others to leave a database, and clients that idle hold none of
/// its servers. Those at rest in a pool would stay.
#[tokio::test]
async fn servers_at_rest_leave_a_database_that_a_statement_wants_for_itself() {
    let front = Front::with(|config| config.pool.min_idle = 1).await;
    let superuser = |database: &'static str| {
        front.try_client(move |config| {
            config.user(SUPERUSER).dbname(database);
        })
    };
    let boss = superuser(APP_DATABASE).await.unwrap();
    boss.batch_execute("CREATE DATABASE first").await.unwrap();
    let mut idlers = Vec::new();
    for (from, statement, to) in [
        ("first", "ALTER DATABASE first RENAME TO second", "second"),
        ("second", "CREATE DATABASE third TEMPLATE = second", "third"),
        ("third", "DROP DATABASE second", "third"),
        ("third", "DROP DATABASE IF EXISTS third WITH (FORCE)", ""),
    ] {
        let idler = superuser(from).await.unwrap();
        idler
            .batch_execute("CREATE TABLE IF NOT EXISTS t (a int)")
            .await
            .unwrap();
        idlers.push(idler);
        boss.batch_execute(statement)
            .await
            .unwrap_or_else(|error| panic!("{statement}: {error:?}"));
        if !to.is_empty() {
            idlers.push(superuser(to).await.unwrap());
        }
    }
    let replica = front.lab.node("eu-west");
    let replica = replica.connect(SUPERUSER, APP_DATABASE).await.unwrap();
    let left = "SELECT count(*) FROM pg_database WHERE datname IN ('first', 'second', 'third')";
    until(&replica, left, "0").await;
    for gone in ["first", "second", "third"] {
        let error = superuser(gone).await.err().unwrap();
        assert_eq!(code(&error), "3D000", "{gone}");
    }
}
