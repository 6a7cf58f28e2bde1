//! Prepared statements in transaction mode: they follow the client to every server.

use causeway::lab::{APP_DATABASE, APP_USER, PASSWORD};
use causeway::protocol::frame::backend;
use tokio_postgres::types::Type;

use crate::front::{Front, ask, code, read_on_replica, try_ask, until_known};
use crate::raw::{
    Raw, bind, close_statement, describe_statement, execute, flush, parse, query, show, sync,
};

const ONE_AND: &str = "SELECT 1 + $1::int";

/// Bind and Execute of a statement, and what they answer.
async fn run(raw: &mut Raw, statement: &str, parameters: &[&str]) -> String {
    raw.exchange(&[bind("", statement, parameters), execute("", 0), sync()])
        .await
}

/// Occupies a server of the primary for as long as the guard's transaction is open.
async fn hold(front: &Front) -> tokio_postgres::Client {
    let client = front.client().await;
    client
        .batch_execute("BEGIN; SELECT txid_current()")
        .await
        .unwrap();
    client
}

#[tokio::test]
async fn a_statement_is_there_on_every_server() {
    for size in [1, 4] {
        let front = Front::with(|config| config.pool.size = size).await;
        let mut raw = front.raw().await;
        raw.exchange(&[parse("s", ONE_AND), sync()]).await;
        assert_eq!(run(&mut raw, "s", &["1"]).await, "2 D(2) C(SELECT 1) Z(I)");
        // In a transaction it runs on the primary; with another server taken, on yet another.
        let mut held = Vec::new();
        for round in 0..size {
            raw.query("BEGIN").await;
            assert_eq!(
                run(&mut raw, "s", &["2"]).await,
                "2 D(3) C(SELECT 1) Z(T)",
                "{round}"
            );
            raw.query("COMMIT").await;
            if round + 1 < size {
                held.push(hold(&front).await);
            }
        }
        assert_eq!(run(&mut raw, "s", &["3"]).await, "2 D(4) C(SELECT 1) Z(I)");
    }
}

#[tokio::test]
async fn two_clients_with_the_same_names_do_not_mix() {
    let front = Front::with(|config| config.pool.size = 1).await;
    let (mut left, mut right) = (front.raw().await, front.raw().await);
    left.exchange(&[parse("s", "SELECT 'left' || $1"), sync()])
        .await;
    right
        .exchange(&[parse("s", "SELECT 'right' || $1"), sync()])
        .await;
    for _ in 0..3 {
        for begin in [false, true] {
            for (raw, name) in [(&mut left, "left"), (&mut right, "right")] {
                let status = if begin { "T" } else { "I" };
                if begin {
                    raw.query("BEGIN").await;
                }
                let expected = format!("2 D({name}!) C(SELECT 1) Z({status})");
                assert_eq!(run(raw, "s", &["!"]).await, expected);
                if begin {
                    raw.query("COMMIT").await;
                }
            }
        }
    }
}

#[tokio::test]
async fn an_unnamed_statement_outlives_its_cycle() {
    let front = Front::with(|config| config.pool.size = 1).await;
    let (mut left, mut right) = (front.raw().await, front.raw().await);
    left.exchange(&[parse("", "SELECT 'left' || $1"), sync()])
        .await;
    right
        .exchange(&[parse("", "SELECT 'right' || $1"), sync()])
        .await;
    assert_eq!(
        run(&mut left, "", &["1"]).await,
        "2 D(left1) C(SELECT 1) Z(I)"
    );
    assert_eq!(
        run(&mut right, "", &["1"]).await,
        "2 D(right1) C(SELECT 1) Z(I)"
    );
    left.exchange(&[parse("b", "BEGIN"), sync()]).await;
    assert_eq!(run(&mut left, "b", &[]).await, "2 C(BEGIN) Z(T)");
    assert_eq!(
        run(&mut left, "", &["2"]).await,
        "2 D(left2) C(SELECT 1) Z(T)"
    );
    // As in PostgreSQL, a Query drops it.
    left.query("COMMIT").await;
    assert_eq!(run(&mut left, "", &["2"]).await, "E(26000) Z(I)");
    right.exchange(&[describe_statement(""), sync()]).await;
    assert_eq!(
        run(&mut right, "", &["2"]).await,
        "2 D(right2) C(SELECT 1) Z(I)"
    );
}

#[tokio::test]
async fn names_are_taken_and_freed_as_in_postgres() {
    let front = Front::small().await;
    let missing = "E(26000) Z(I)";
    let mut raw = front.raw().await;
    let other = "SELECT 2 * $1::int";
    raw.exchange(&[parse("s", ONE_AND), sync()]).await;
    assert_eq!(
        raw.exchange(&[parse("s", other), sync()]).await,
        "E(42P05) Z(I)"
    );
    assert_eq!(run(&mut raw, "s", &["5"]).await, "2 D(6) C(SELECT 1) Z(I)");

    // Close, then the name is free; closing what is not there is no error.
    let closed = raw
        .exchange(&[close_statement("s"), close_statement("t"), sync()])
        .await;
    assert_eq!(closed, "3 3 Z(I)");
    assert_eq!(run(&mut raw, "s", &["5"]).await, missing);
    let replaced = [
        parse("s", other),
        close_statement("s"),
        parse("s", ONE_AND),
        bind("", "s", &["7"]),
        execute("", 0),
        sync(),
    ];
    assert_eq!(
        raw.exchange(&replaced).await,
        "1 3 1 2 D(8) C(SELECT 1) Z(I)"
    );

    // DEALLOCATE of one, of one that is not there, of all; DISCARD ALL.
    assert_eq!(raw.query("DEALLOCATE s").await, "C(DEALLOCATE) Z(I)");
    assert_eq!(run(&mut raw, "s", &["5"]).await, missing);
    assert_eq!(raw.query("DEALLOCATE s").await, missing);
    for sql in ["DEALLOCATE ALL", "DISCARD ALL"] {
        raw.exchange(&[parse("s", ONE_AND), parse("t", other), sync()])
            .await;
        assert_eq!(run(&mut raw, "t", &["5"]).await, "2 D(10) C(SELECT 1) Z(I)");
        raw.query(sql).await;
        assert_eq!(run(&mut raw, "s", &["5"]).await, missing, "{sql}");
        assert_eq!(run(&mut raw, "t", &["5"]).await, missing, "{sql}");
        raw.exchange(&[parse("s", other), sync()]).await;
        assert_eq!(
            run(&mut raw, "s", &["5"]).await,
            "2 D(10) C(SELECT 1) Z(I)",
            "{sql}"
        );
        raw.query("DEALLOCATE s").await;
    }
    // Another client's DEALLOCATE ALL takes nothing away from this one.
    raw.exchange(&[parse("s", ONE_AND), sync()]).await;
    run(&mut raw, "s", &["1"]).await;
    let other = front.client().await;
    other.batch_execute("DEALLOCATE ALL").await.unwrap();
    other.batch_execute("DISCARD ALL").await.unwrap();
    assert_eq!(run(&mut raw, "s", &["5"]).await, "2 D(6) C(SELECT 1) Z(I)");
}

#[tokio::test]
async fn a_parse_that_fails_or_is_skipped_leaves_its_name_free() {
    let front = Front::small().await;
    let mut raw = front.raw().await;
    for bad in ["SELEC", "SELECT * FROM nowhere", "DELETE FROM nowhere"] {
        assert!(
            raw.exchange(&[parse("s", bad), sync()])
                .await
                .starts_with("E(42"),
            "{bad}"
        );
        assert_eq!(run(&mut raw, "s", &[]).await, "E(26000) Z(I)", "{bad}");
        // Skipped, because what comes before it fails.
        let skipped = raw
            .exchange(&[parse("", bad), parse("s", "SELECT 0"), sync()])
            .await;
        assert!(skipped.starts_with("E(42"), "{skipped}");
        assert_eq!(run(&mut raw, "s", &[]).await, "E(26000) Z(I)", "{bad}");
        raw.exchange(&[parse("s", ONE_AND), sync()]).await;
        assert_eq!(
            run(&mut raw, "s", &["1"]).await,
            "2 D(2) C(SELECT 1) Z(I)",
            "{bad}"
        );
        raw.exchange(&[close_statement("s"), sync()]).await;
    }
}

#[tokio::test]
async fn more_statements_than_a_server_holds() {
    const COUNT: usize = 1200;
    let front = Front::with(|config| config.pool.size = 1).await;
    let mut raw = front.raw().await;
    let name = |number: usize| format!("s{number}");
    let prepared: Vec<Vec<u8>> = (0..COUNT)
        .flat_map(|number| {
            let sql = format!("SELECT {number} + $1::int AS c{number}");
            [parse(&name(number), &sql), sync()]
        })
        .collect();
    assert_eq!(raw.exchange(&prepared).await, ["1 Z(I)"; COUNT].join(" "));
    // Each of them is there, also the first, in a pipeline and in transactions on the primary.
    for (begin, end) in [("SELECT 0", "SELECT 0"), ("BEGIN", "COMMIT")] {
        raw.query(begin).await;
        let used: Vec<Vec<u8>> = (0..COUNT)
            .step_by(7)
            .flat_map(|number| [bind("", &name(number), &["1"]), execute("", 0), sync()])
            .collect();
        raw.send(&used.concat()).await;
        for number in (0..COUNT).step_by(7) {
            let seen = show(&raw.until_ready().await);
            assert!(
                seen.starts_with(&format!("2 D({}) ", number + 1)),
                "{number}: {seen}"
            );
        }
        raw.query(end).await;
    }
    // In one cycle, more than the server holds at once; and in one that fails in the middle.
    raw.query("BEGIN; SAVEPOINT s").await;
    for bad in ["2", "x"] {
        let mut cycle: Vec<Vec<u8>> = (0..COUNT)
            .flat_map(|number| {
                let parameter = if number == COUNT / 2 { bad } else { "2" };
                [bind("", &name(number), &[parameter]), execute("", 0)]
            })
            .collect();
        cycle.push(sync());
        raw.send(&cycle.concat()).await;
        let seen = raw.until(backend::READY_FOR_QUERY, 1).await;
        let rows = seen
            .iter()
            .filter(|message| message.tag == backend::DATA_ROW);
        let count = if bad == "x" { COUNT / 2 } else { COUNT };
        let expected = (0..count).map(|number| vec![(number + 2).to_string()]);
        assert!(
            rows.map(|row| row.columns()).eq(expected),
            "{}",
            show(&seen)
        );
    }
    raw.query("ROLLBACK TO s").await;
    for number in (0..COUNT).rev().step_by(5) {
        let seen = run(&mut raw, &name(number), &["1"]).await;
        assert_eq!(seen, format!("2 D({}) C(SELECT 1) Z(T)", number + 1));
    }

    // The server itself holds no more than its share.
    let sql = "SELECT count(*) BETWEEN 400 AND 501 FROM pg_prepared_statements";
    assert_eq!(raw.query(sql).await, "T D(t) C(SELECT 1) Z(T)");
    raw.query("COMMIT").await;
}

/// A statement that was to make room is still there where the cycle that was to close it has failed before.
#[tokio::test]
async fn what_was_not_closed_in_the_end_is_there_for_the_next_cycle() {
    const HELD: usize = 500;
    let front = Front::with(|config| config.pool.size = 1).await;
    let mut raw = front.raw().await;
    raw.query("SET causeway.consistency TO 'strong'").await;
    let name = |number: usize| format!("s{number}");
    for number in 0..=HELD {
        let sql = format!("SELECT {number} + $1::int");
        let prepared = raw.exchange(&[parse(&name(number), &sql), sync()]).await;
        assert_eq!(prepared, "1 Z(I)");
    }
    // The first is not there any more, and would take the place of the second.
    let pipeline = [
        execute("nowhere", 0),
        bind("", &name(0), &["1"]),
        sync(),
        bind("", &name(1), &["1"]),
        execute("", 0),
        sync(),
    ];
    for _ in 0..2 {
        let answer = raw.exchange(&pipeline).await;
        assert_eq!(answer, "E(34000) Z(I) 2 D(2) C(SELECT 1) Z(I)");
    }
}

/// A trigger that is deferred to the commit raises what it likes, in place of the last statement's answer.
#[tokio::test]
async fn what_a_failed_commit_leaves_of_names_is_nobody_else_s() {
    let front = Front::with(|config| config.pool.size = 1).await;
    let admin = front.admin().await;
    let sql = "CREATE TABLE strict (n int); GRANT ALL ON strict TO app; \
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql \
            AS $$ BEGIN RAISE EXCEPTION 'no'; END $$; \
        CREATE CONSTRAINT TRIGGER refused AFTER INSERT ON strict \
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()";
    admin.batch_execute(sql).await.unwrap();
    let (mut one, mut other) = (front.raw().await, front.raw().await);
    for raw in [&mut one, &mut other] {
        raw.query("SET causeway.consistency TO 'strong'").await;
    }
    let prepare = [parse("s", ONE_AND), sync()];
    assert_eq!(one.exchange(&prepare).await, "1 Z(I)");
    for (last, found) in [
        ("DEALLOCATE ALL", "E(26000) Z(I)"),
        ("PREPARE q AS SELECT 7", "2 D(3) C(SELECT 1) Z(I)"),
    ] {
        let refused = one
            .query(&format!("INSERT INTO strict VALUES (1); {last}"))
            .await;
        assert_eq!(refused, "C(INSERT 0 1) E(P0001) Z(I)", "{last}");
        assert_eq!(run(&mut one, "s", &["2"]).await, found, "{last}");
        assert_eq!(other.exchange(&prepare).await, "1 Z(I)");
        assert_eq!(
            run(&mut other, "s", &["3"]).await,
            "2 D(4) C(SELECT 1) Z(I)",
            "{last}"
        );
        let own = other.query("PREPARE q AS SELECT 8; EXECUTE q").await;
        assert_eq!(own, "C(PREPARE) T D(8) C(SELECT 1) Z(I)", "{last}");
        let dropped = other.query("DEALLOCATE ALL").await;
        assert_eq!(dropped, "C(DEALLOCATE ALL) Z(I)");
        one.exchange(&prepare).await;
    }
}

/// What the protocol prepares may be any statement, and SQL runs it by its name.
#[tokio::test]
async fn what_sql_executes_for_one_session_is_nothing_to_another() {
    let front = Front::with(|config| config.pool.size = 1).await;
    let cases = [
        (
            "LISTEN bell",
            "SELECT pg_listening_channels()",
            "T D(bell) C(SELECT 1)",
        ),
        ("SET app.mine TO 'own'", "SHOW app.mine", "T D(own) C(SHOW)"),
        ("SET work_mem TO '1MB'", "SHOW work_mem", "T D(1MB) C(SHOW)"),
        (
            "CREATE TEMP TABLE mine AS SELECT 7",
            "TABLE mine",
            "T D(7) C(SELECT 1)",
        ),
        (
            "SELECT pg_advisory_lock(1)",
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
            "T D(1) C(SELECT 1)",
        ),
        ("PREPARE u AS SELECT 7", "EXECUTE u", "T D(7) C(SELECT 1)"),
        (
            "DECLARE c CURSOR WITH HOLD FOR SELECT 7",
            "FETCH c",
            "T D(7) C(FETCH 1)",
        ),
    ];
    let in_extended = |sql: &str| [parse("", sql), bind("", "", &[]), execute("", 0), sync()];
    for (sql, question, own) in cases {
        for extended in [false, true] {
            let mut one = front.raw().await;
            let prepared = one.exchange(&[parse("s", sql), sync()]).await;
            assert_eq!(prepared, "1 Z(I)");
            match extended {
                false => one.query("EXECUTE s").await,
                true => one.exchange(&in_extended("EXECUTE s")).await,
            };
            let pin = one.query("SHOW causeway.pin").await;
            assert!(pin.contains("unknown"), "{sql}: {pin}");
            assert_eq!(one.query(question).await, format!("{own} Z(I)"), "{sql}");
            drop(one);
            let mut other = front.raw().await;
            other.query("SET causeway.consistency TO 'strong'").await;
            let answer = other.query(question).await;
            assert!(!answer.contains(own), "{sql}: {answer}");
        }
    }
}

#[tokio::test]
async fn a_driver_s_statements_follow_it() {
    let front = Front::with(|config| config.pool.size = 2).await;
    let mut clients = Vec::new();
    for number in 0..6 {
        let client = front.client().await;
        let sql = format!("SELECT $1::int + {}", number % 3);
        let statement = client.prepare_typed(&sql, &[Type::INT4]).await.unwrap();
        clients.push((client, statement));
    }
    for round in 0..20 {
        for (number, (client, statement)) in clients.iter_mut().enumerate() {
            let row = match round % 3 {
                0 => client.query_one(&*statement, &[&round]).await.unwrap(),
                _ => {
                    let transaction = client.transaction().await.unwrap();
                    let row = transaction.query_one(&*statement, &[&round]).await.unwrap();
                    transaction.commit().await.unwrap();
                    row
                }
            };
            assert_eq!(row.get::<_, i32>(0), round + number as i32 % 3);
        }
    }
}

/// asyncpg prepares under a name with a Flush, and goes on in the same cycle.
#[tokio::test]
async fn sql_executes_what_the_cycle_has_just_parsed() {
    let front = Front::with(|config| config.pool.size = 1).await;
    let mut raw = front.raw().await;
    raw.query("SET causeway.consistency TO 'strong'").await;
    for number in 0..3 {
        let name = format!("s{number}");
        let described = [parse(&name, "SELECT 7"), describe_statement(&name), flush()];
        for message in described {
            raw.send(&message).await;
        }
        for expected in ["1", "t", "T"] {
            let message = raw.next().await.unwrap();
            assert!(show(&[message]).starts_with(expected));
        }
        let run = [
            parse("", &format!("EXECUTE {name}")),
            bind("", "", &[]),
            execute("", 0),
            sync(),
        ];
        assert_eq!(raw.exchange(&run).await, "1 2 D(7) C(SELECT 1) Z(I)");
    }
}

/// A client decodes by what it was told: rows of another shape never come, whichever server answers.
#[tokio::test]
async fn a_described_statement_never_changes_its_columns() {
    let front = Front::with(|config| config.pool.size = 4).await;
    let client = front.client().await;
    client
        .batch_execute("CREATE TABLE t (a int, b int); INSERT INTO t VALUES (1, 2)")
        .await
        .unwrap();
    let mut raw = front.raw().await;
    let describe = [
        parse("s", "SELECT t.*, txid_current() > 0 AS far FROM t"),
        describe_statement("s"),
        sync(),
    ];
    assert_eq!(raw.exchange(&describe).await, "1 t T Z(I)");
    let row = "2 D(1,2,t) C(SELECT 1) Z(I)";
    assert_eq!(run(&mut raw, "s", &[]).await, row);
    client
        .batch_execute("CREATE TABLE other (a int)")
        .await
        .unwrap();
    // Servers that lack it, one after the other: nothing that it reads has changed.
    let mut holders = Vec::new();
    let mut hold = async || {
        let mut holder = front.raw().await;
        holder.query("BEGIN; SELECT txid_current()").await;
        holders.push(holder);
    };
    hold().await;
    assert_eq!(run(&mut raw, "s", &[]).await, row);
    client
        .batch_execute("ALTER TABLE t ALTER COLUMN b SET DATA TYPE text")
        .await
        .unwrap();
    // One that has it refuses by itself, one that lacks it is kept from answering.
    let refused = "E(0A000) Z(I)";
    assert_eq!(run(&mut raw, "s", &[]).await, refused);
    hold().await;
    raw.send(&[bind("", "s", &[]), execute("", 0), sync()].concat())
        .await;
    let seen = raw.until_ready().await;
    assert_eq!(show(&seen), refused);
    // By which JDBC and asyncpg know that preparing it anew will do.
    assert_eq!(seen[0].field(b'R'), "RevalidateCachedQuery");
    raw.query("BEGIN").await;
    assert_eq!(run(&mut raw, "s", &[]).await, "E(0A000) Z(E)");
    assert_eq!(raw.query("ROLLBACK").await, "C(ROLLBACK) Z(I)");
    assert_eq!(run(&mut raw, "s", &[]).await, refused);
    raw.exchange(&[close_statement("s"), sync()]).await;
    raw.exchange(&describe).await;
    assert_eq!(run(&mut raw, "s", &[]).await, row);
    // A statement that cannot even be prepared any more fails with what PostgreSQL says of it.
    client.batch_execute("DROP TABLE t").await.unwrap();
    hold().await;
    assert_eq!(run(&mut raw, "s", &[]).await, "E(42P01) Z(I)");
    for first in ["SELECT 1", "SELECT txid_current() > 0"] {
        raw.query("BEGIN").await;
        raw.query(first).await;
        assert_eq!(run(&mut raw, "s", &[]).await, "E(42P01) Z(E)", "{first}");
        assert_eq!(run(&mut raw, "s", &[]).await, "E(25P02) Z(E)", "{first}");
        assert_eq!(raw.query("ROLLBACK").await, "C(ROLLBACK) Z(I)");
    }
}

/// A function that runs the SQL which it is given.
const FIRST_OF: &str = "CREATE FUNCTION first_of(sql text) RETURNS text LANGUAGE plpgsql AS $$ \
    DECLARE said text; BEGIN FOR said IN EXECUTE sql LOOP RETURN said; END LOOP; END $$";

/// Code puts its SQL together and names what its session has prepared, not what another has.
#[tokio::test]
async fn code_executes_what_its_own_session_has_prepared() {
    let front = Front::with(|config| config.pool.size = 1).await;
    let (left, right) = (front.client().await, front.client().await);
    left.batch_execute(FIRST_OF).await.unwrap();
    left.batch_execute("PREPARE q AS SELECT 'left'")
        .await
        .unwrap();
    right
        .batch_execute("PREPARE q AS SELECT 'right'")
        .await
        .unwrap();
    let none = front.client().await;
    let run = "SELECT first_of('EXECUTE q')";
    for _ in 0..3 {
        assert_eq!(ask(&left, run).await, "left");
        assert_eq!(ask(&right, run).await, "right");
        // What is not there gives no rows to loop over.
        assert_eq!(try_ask(&none, run).await.unwrap_err(), "42P11");
    }
}

/// What it has prepared over a table that is gone stays, in PostgreSQL, and troubles only who runs it.
#[tokio::test]
async fn code_is_not_troubled_by_what_its_session_cannot_prepare_any_more() {
    let front = Front::with(|config| config.pool.size = 1).await;
    let (left, right) = (front.client().await, front.client().await);
    left.batch_execute(FIRST_OF).await.unwrap();
    for statement in [
        "CREATE TABLE gone (a int)",
        "PREPARE q AS SELECT * FROM gone",
        "PREPARE r AS SELECT 'left'",
        "DROP TABLE gone",
    ] {
        left.batch_execute(statement).await.unwrap();
    }
    for _ in 0..3 {
        // It has the same server, and other statements under these names.
        for statement in ["PREPARE q AS SELECT 1", "PREPARE r AS SELECT 'right'"] {
            right.batch_execute(statement).await.unwrap();
        }
        assert_eq!(ask(&right, "SELECT first_of('EXECUTE r')").await, "right");
        assert_eq!(ask(&left, "SELECT first_of('SELECT 7')").await, "7");
        assert_eq!(ask(&left, "SELECT first_of('EXECUTE r')").await, "left");
        assert_eq!(try_ask(&left, "EXECUTE q").await.unwrap_err(), "42P01");
        right.batch_execute("DEALLOCATE ALL").await.unwrap();
    }
}

/// A replica that has not replayed a change describes a table as it was.
#[tokio::test]
async fn what_a_late_replica_has_described_is_not_run_as_something_else() {
    let front = Front::small().await;
    let client = front.client().await;
    client
        .batch_execute("CREATE TABLE t (a int, b int); INSERT INTO t VALUES (1, 2)")
        .await
        .unwrap();
    let (mut late, mut early) = (front.raw().await, front.raw().await);
    until_known(&client, "t").await;
    front.lab.wait_caught_up("eu-west").await.unwrap();
    front.lab.node("eu-west").pause_replay().await.unwrap();
    client
        .batch_execute("ALTER TABLE t ADD c int DEFAULT 3")
        .await
        .unwrap();
    let read = "SELECT * FROM t";
    // On the primary, under a name that others share.
    early.query("BEGIN").await;
    let described = early
        .exchange(&[parse("s", read), describe_statement("s"), sync()])
        .await;
    assert_eq!(described, "1 t T Z(T)");
    assert_eq!(
        run(&mut early, "s", &[]).await,
        "2 D(1,2,3) C(SELECT 1) Z(T)"
    );
    assert_eq!(early.query("COMMIT").await, "C(COMMIT) Z(I)");
    // On the replica, which the session may read: it has seen nothing yet.
    late.exchange(&[parse("s", read), describe_statement("s"), sync()])
        .await;
    assert_eq!(run(&mut late, "s", &[]).await, "2 D(1,2) C(SELECT 1) Z(I)");
    // The primary has the others' statement, and must not run it for this one.
    late.query("BEGIN").await;
    assert_eq!(run(&mut late, "s", &[]).await, "E(0A000) Z(E)");
    late.query("ROLLBACK").await;
    let again = [
        close_statement("s"),
        parse("s", read),
        describe_statement("s"),
        sync(),
    ];
    late.exchange(&again).await;
    assert_eq!(
        run(&mut late, "s", &[]).await,
        "2 D(1,2,3) C(SELECT 1) Z(I)"
    );
    // What has no name is no different, and drivers must see by the error that they can prepare anew.
    let mut nameless = front.raw().await;
    let described = [parse("", read), describe_statement(""), sync()];
    nameless.exchange(&described).await;
    let on_replica = run(&mut nameless, "", &[]).await;
    assert_eq!(on_replica, "2 D(1,2) C(SELECT 1) Z(I)");
    let begin = [bind("", "b", &[]), execute("", 0), sync()];
    nameless.exchange(&[parse("b", "BEGIN"), sync()]).await;
    assert_eq!(nameless.exchange(&begin).await, "2 C(BEGIN) Z(T)");
    nameless
        .send(&[bind("", "", &[]), execute("", 0), sync()].concat())
        .await;
    let refused = nameless.until_ready().await;
    assert_eq!(show(&refused), "E(0A000) Z(E)");
    assert_eq!(refused[0].field(b'R'), "RevalidateCachedQuery");
    nameless.query("ROLLBACK").await;
    nameless.exchange(&begin).await;
    assert_eq!(nameless.exchange(&described).await, "1 t T Z(T)");
    let anew = run(&mut nameless, "", &[]).await;
    assert_eq!(anew, "2 D(1,2,3) C(SELECT 1) Z(T)");
    // Nor may the replica run what the primary has described, to whom its age does not matter.
    early.query("SET causeway.consistency = 'eventual'").await;
    assert_eq!(run(&mut early, "s", &[]).await, "E(0A000) Z(I)");
    front.lab.node("eu-west").resume_replay().await.unwrap();
}

#[tokio::test]
async fn a_statement_follows_the_table_it_reads() {
    let front = Front::with(|config| config.pool.size = 1).await;
    let client = front.client().await;
    client
        .batch_execute("CREATE TABLE t (a int); INSERT INTO t VALUES (1)")
        .await
        .unwrap();
    let mut raw = front.raw().await;
    raw.exchange(&[parse("s", "SELECT * FROM t"), sync()]).await;
    assert_eq!(run(&mut raw, "s", &[]).await, "2 D(1) C(SELECT 1) Z(I)");
    client
        .batch_execute("ALTER TABLE t ADD b int DEFAULT 2")
        .await
        .unwrap();
    let mut newer = front.raw().await;
    newer.query("BEGIN").await;
    // Where it was prepared before, PostgreSQL refuses a changed result, and a replica may not know
    // of the change yet; where it was not, it is prepared for the table as it is now.
    let seen = run(&mut raw, "s", &[]).await;
    let good = [
        "E(0A000) Z(I)",
        "2 D(1) C(SELECT 1) Z(I)",
        "2 D(1,2) C(SELECT 1) Z(I)",
    ];
    assert!(good.contains(&&*seen), "{seen}");
    // Prepared again, word for word, it is good on every server.
    raw.exchange(&[close_statement("s"), parse("s", "SELECT * FROM t"), sync()])
        .await;
    raw.query("SELECT txid_current()").await;
    for transaction in [true, false, true] {
        if transaction {
            raw.query("BEGIN").await;
        }
        let seen = run(&mut raw, "s", &[]).await;
        assert!(seen.starts_with("2 D(1,2) C(SELECT 1) Z("), "{seen}");
        if transaction {
            raw.query("COMMIT").await;
        }
    }
    raw.exchange(&[
        close_statement("s"),
        parse("s", "SELECT *, 3 FROM t"),
        sync(),
    ])
    .await;
    raw.query("SELECT txid_current()").await;
    assert_eq!(run(&mut raw, "s", &[]).await, "2 D(1,2,3) C(SELECT 1) Z(I)");
    assert_eq!(ask(&client, "SELECT b FROM t").await, "2");
    assert_eq!(newer.query("COMMIT").await, "C(COMMIT) Z(I)");
    let both = raw.exchange(&[query("SELECT 1"), query("SELECT 2")]).await;
    assert_eq!(both, "T D(1) C(SELECT 1) Z(I) T D(2) C(SELECT 1) Z(I)");
}

/// A client whose statements were prepared by SQL, and another with the same names, on few servers.
#[tokio::test]
async fn what_sql_prepares_follows_its_session() {
    let front = Front::with(|config| config.pool.size = 1).await;
    let one = front.client().await;
    let other = front.client().await;
    one.batch_execute("CREATE TABLE t (a int); INSERT INTO t VALUES (1), (2)")
        .await
        .unwrap();
    one.batch_execute("PREPARE p (int) AS SELECT a + 10 FROM t WHERE a = $1")
        .await
        .unwrap();
    other
        .batch_execute("PREPARE p AS SELECT 'other'; PREPARE \"P\" AS INSERT INTO t VALUES ($1)")
        .await
        .unwrap();
    for _ in 0..3 {
        assert_eq!(ask(&one, "EXECUTE p(2)").await, "12");
        assert_eq!(ask(&other, "EXECUTE p").await, "other");
        // It is no pin, and a read runs near.
        assert_eq!(ask(&one, "SHOW causeway.pin").await, "");
        read_on_replica(&one, "EXECUTE p(1)", "11").await;
        assert_eq!(
            try_ask(&one, "EXECUTE \"P\"(3)").await,
            Err("26000".to_owned())
        );
        assert_eq!(
            try_ask(&one, "DEALLOCATE \"P\"").await,
            Err("26000".to_owned())
        );
    }
    other.batch_execute("EXECUTE \"P\"(3)").await.unwrap();
    assert_eq!(ask(&other, "SELECT max(a) FROM t").await, "3");
    // A name is taken, given back, and taken again.
    let taken = one
        .batch_execute("PREPARE p AS SELECT 1")
        .await
        .unwrap_err();
    assert_eq!(code(&taken), "42P05");
    one.batch_execute("DEALLOCATE p").await.unwrap();
    assert_eq!(try_ask(&one, "EXECUTE p(1)").await, Err("26000".to_owned()));
    assert_eq!(ask(&other, "EXECUTE p").await, "other");
    one.batch_execute("BEGIN; PREPARE p AS SELECT 'anew'; ROLLBACK")
        .await
        .unwrap();
    assert_eq!(ask(&one, "EXECUTE p").await, "anew");
    // Transactions, explanations, tables made of it, and its end.
    other
        .batch_execute("BEGIN; SELECT txid_current()")
        .await
        .unwrap();
    assert_eq!(ask(&other, "EXECUTE p").await, "other");
    assert_eq!(ask(&other, "EXPLAIN (COSTS OFF) EXECUTE p").await, "Result");
    other
        .batch_execute("CREATE TABLE u AS EXECUTE p; COMMIT")
        .await
        .unwrap();
    assert_eq!(ask(&other, "TABLE u").await, "other");
    other.batch_execute("DISCARD ALL").await.unwrap();
    assert_eq!(try_ask(&other, "EXECUTE p").await, Err("26000".to_owned()));
    assert_eq!(ask(&one, "EXECUTE p").await, "anew");
    one.batch_execute("DEALLOCATE ALL").await.unwrap();
    assert_eq!(try_ask(&one, "EXECUTE p").await, Err("26000".to_owned()));
}

#[tokio::test]
async fn sql_and_the_protocol_share_the_names_of_statements() {
    let front = Front::with(|config| config.pool.size = 1).await;
    let mut direct = front.raw_direct().await;
    let mut raw = front.raw().await;
    let other = front.client().await;
    let conversation: &[&[Vec<u8>]] = &[
        &[query("PREPARE p AS SELECT 5")],
        &[bind("", "p", &[]), execute("", 0), sync()],
        &[describe_statement("p"), sync()],
        &[parse("p", "SELECT 1"), sync()],
        &[close_statement("p"), sync()],
        &[query("EXECUTE p")],
        &[parse("s", "SELECT $1::int + 1"), sync()],
        &[query("EXECUTE s(4)")],
        &[query("PREPARE s AS SELECT 1")],
        &[query("DEALLOCATE s")],
        &[query("EXECUTE s(4)")],
        &[parse("e", "EXECUTE q"), sync()],
        &[query("PREPARE q AS SELECT 7")],
        &[bind("", "e", &[]), execute("", 0), sync()],
        &[query("BEGIN")],
        &[query("SELECT 1/0")],
        &[query("EXECUTE q")],
        &[query("ROLLBACK")],
        &[query("EXECUTE q; EXECUTE q")],
        &[query("PREPARE r AS SELECT 8; EXECUTE r")],
        &[query("EXECUTE r")],
        &[
            parse("", "EXECUTE r"),
            bind("", "", &[]),
            execute("", 0),
            sync(),
        ],
    ];
    for messages in conversation {
        let expected = direct.exchange(messages).await;
        let seen = raw.exchange(messages).await;
        assert_eq!(seen, expected, "{messages:?}");
        // Another session has the server in between.
        if seen.ends_with("Z(I)") {
            ask(&other, "SELECT txid_current() > 0").await;
        }
    }
}

/// The server that lacks it is asked first, behind settings that are made by a SELECT.
#[tokio::test]
async fn a_statement_without_a_result_has_none_whatever_is_set_ahead_of_it() {
    let front = Front::with(|config| config.pool.size = 2).await;
    let mut one = Raw::connect(front.address()).await;
    let startup = [
        ("user", APP_USER),
        ("database", APP_DATABASE),
        ("search_path", "side, public"),
    ];
    one.start(3 << 16, &startup, PASSWORD).await;
    let created = one.query("CREATE TABLE note (id int)").await;
    assert_eq!(created, "C(CREATE TABLE) Z(I)");
    // One server is taken, so the other has the statement; then that one is taken instead.
    let first = hold(&front).await;
    let told = [
        parse("t", "INSERT INTO note VALUES (7)"),
        describe_statement("t"),
        sync(),
    ];
    assert_eq!(one.exchange(&told).await, "1 t n Z(I)");
    let created = one.query("CREATE TABLE more (id int)").await;
    assert_eq!(created, "C(CREATE TABLE) Z(I)");
    let _second = hold(&front).await;
    first.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(run(&mut one, "t", &[]).await, "2 C(INSERT 0 1) Z(I)");
}
