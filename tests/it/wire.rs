//! The wire, message by message: whatever a client sends, through Causeway it gets the answer that
//! PostgreSQL itself gives. PostgreSQL is the oracle: each story is played to both.

use tokio::time::timeout;

use crate::front::{Front, PATIENCE};
use crate::raw::{
    Raw, bind, close_portal, close_statement, copy_data, copy_done, copy_fail, describe_portal,
    describe_statement, execute, flush, frame, function_call, parse, query, show, sync,
};

/// What a client sends in one write, and how far it then reads.
struct Turn {
    sent: Vec<u8>,
    until: (u8, usize),
}

/// Reads to the `count`th message of type `tag`.
fn until(tag: u8, count: usize, messages: &[Vec<u8>]) -> Turn {
    Turn {
        sent: messages.concat(),
        until: (tag, count),
    }
}

/// Reads to the next ReadyForQuery.
fn turn(messages: &[Vec<u8>]) -> Turn {
    until(b'Z', 1, messages)
}

fn say(sql: &str) -> Turn {
    turn(&[query(sql)])
}

/// Parse, Bind, Describe, Execute, Sync of unnamed things.
fn extended(sql: &str, parameters: &[&str]) -> Turn {
    let messages = [
        parse("", sql),
        bind("", "", parameters),
        describe_portal(""),
        execute("", 0),
        sync(),
    ];
    turn(&messages)
}

async fn play(raw: &mut Raw, story: &[Turn]) -> Vec<String> {
    let mut answers = Vec::new();
    for turn in story {
        raw.send(&turn.sent).await;
        let (tag, count) = turn.until;
        match timeout(PATIENCE, raw.until(tag, count)).await {
            Ok(messages) => answers.push(show(&messages)),
            Err(_) => {
                answers.push("silence".to_owned());
                break;
            }
        }
    }
    answers
}

/// Plays each story, on a connection of its own, to PostgreSQL and through Causeway; `witness`
/// must be somewhere in the answers, so that a story which fails from its start does not pass.
async fn compare(front: &Front, stories: &[(&str, &str, Vec<Turn>)]) {
    let mut differences = Vec::new();
    for (name, witness, story) in stories {
        let expected = play(&mut front.raw_direct().await, story).await;
        // Who has seen nothing yet may read near.
        front.lab.wait_caught_up("eu-west").await.unwrap();
        let seen = play(&mut front.raw().await, story).await;
        assert!(
            expected.iter().any(|answer| answer.contains(witness)),
            "{name}: {witness} is nowhere in {expected:#?}"
        );
        if seen != expected {
            differences.push(format!(
                "{name}:\nPostgreSQL {expected:#?}\nCauseway {seen:#?}"
            ));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
}

/// The row (1, 'b') and its file for COPY BINARY.
const BINARY_ROW: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\
    \0\x02\0\0\0\x04\0\0\0\x01\0\0\0\x01b\xff\xff";

/// A Causeway in front of a table `note (id int primary key, text text)`.
async fn front() -> Front {
    let front = Front::small().await;
    let client = front.client().await;
    let tables = "CREATE TABLE note (id int PRIMARY KEY, text text); \
        CREATE TABLE side_note (id int, text text); \
        CREATE TABLE parent (id int PRIMARY KEY); \
        CREATE TABLE child (id int REFERENCES parent DEFERRABLE INITIALLY DEFERRED)";
    client.batch_execute(tables).await.unwrap();
    front.lab.wait_caught_up("eu-west").await.unwrap();
    front
}

#[tokio::test]
async fn simple_queries() {
    let stories: Vec<(&str, &str, &[&str])> = vec![
        (
            "values",
            "D(1,-,x)",
            &["SELECT 1, NULL, 'x'", "SELECT", "VALUES (1), (2)"],
        ),
        ("nothing", "I Z(I)", &["", ";", "-- nothing", "SELECT 1"]),
        (
            "several",
            "D(1) C(SELECT 1) T D(2)",
            &["SELECT 1; SELECT 2", ";;SELECT 3;;"],
        ),
        (
            "an error ends a text",
            "E(22012)",
            &[
                "SELECT 1; SELECT 1/0; SELECT 3",
                "INSERT INTO note VALUES (1, 'gone'); SELECT 1/0",
                "SELECT count(*) FROM note",
            ],
        ),
        (
            "errors",
            "E(42601)",
            &[
                "SELEC",
                "SELECT * FROM nowhere",
                "SELECT nothing()",
                "SELECT 1",
            ],
        ),
        (
            "notices",
            "N(00000)",
            &[
                "DO $$ BEGIN RAISE NOTICE 'here'; RAISE WARNING 'there'; END $$",
                "DROP TABLE IF EXISTS nowhere",
            ],
        ),
        (
            "writes",
            "C(INSERT 0 1)",
            &[
                "INSERT INTO note VALUES (1, 'a')",
                "UPDATE note SET text = 'b' RETURNING *",
                "INSERT INTO note VALUES (1, 'a')",
                "SELECT * FROM note",
                "DELETE FROM note",
            ],
        ),
        (
            "a transaction in one text",
            "D(1,a)",
            &[
                "BEGIN; INSERT INTO note VALUES (1, 'a'); SELECT * FROM note; ROLLBACK",
                "BEGIN; SELECT 1",
                "SELECT 2; COMMIT",
                "BEGIN; SELECT 1/0",
                "ROLLBACK",
            ],
        ),
        (
            "prepared in SQL",
            "D(3)",
            &[
                "PREPARE three AS SELECT $1::int + 2",
                "EXECUTE three(1)",
                "DEALLOCATE three",
                "EXECUTE three(1)",
                "DEALLOCATE ALL",
            ],
        ),
        (
            "temporary",
            "D(7)",
            &[
                "CREATE TEMP TABLE mine (n int)",
                "INSERT INTO mine VALUES (7)",
                "SELECT * FROM mine",
                "DISCARD ALL",
                "SELECT * FROM mine",
            ],
        ),
        (
            "notifications",
            "C(NOTIFY) A",
            &["LISTEN bell", "NOTIFY bell, 'ding'", "UNLISTEN *"],
        ),
        (
            "cursors",
            "D(2) C(FETCH 1)",
            &[
                "BEGIN",
                "DECLARE c CURSOR FOR SELECT * FROM generate_series(1, 3)",
                "FETCH c",
                "FETCH c",
                "CLOSE c",
                "FETCH c",
                "ROLLBACK",
                "DECLARE h CURSOR WITH HOLD FOR SELECT 1 UNION ALL SELECT 2",
                "FETCH h",
                "FETCH h",
                "CLOSE h",
            ],
        ),
    ];
    let stories: Vec<_> = stories
        .into_iter()
        .map(|(name, witness, texts)| (name, witness, texts.iter().map(|sql| say(sql)).collect()))
        .collect();
    compare(&front().await, &stories).await;
}

/// libpq's `be_pid` and `PQbackendPID()`, by which a client knows its own notifications.
#[tokio::test]
async fn a_notification_tells_whose_it_is() {
    let front = front().await;
    let (mut raw, mut other) = (front.raw().await, front.raw().await);
    raw.query("LISTEN bell").await;
    raw.send(&query("NOTIFY bell, 'own'")).await;
    let seen = raw.until_ready().await;
    let own = seen.iter().find(|message| message.tag == b'A').unwrap();
    assert_eq!(own.body, notification(raw.pid, "own"));
    let told = other
        .query("SELECT pg_backend_pid(); NOTIFY bell, 'other'")
        .await;
    let server = told.split("D(").nth(1).unwrap();
    let server = server.split(')').next().unwrap().parse().unwrap();
    let foreign = raw.next().await.unwrap();
    assert_eq!(foreign.body, notification(server, "other"), "{told}");
}

fn notification(process: u32, payload: &str) -> Vec<u8> {
    [
        &process.to_be_bytes()[..],
        b"bell\0",
        payload.as_bytes(),
        b"\0",
    ]
    .concat()
}

#[tokio::test]
async fn transactions() {
    let stories: Vec<(&str, &str, &[&str])> = vec![
        (
            "empty ones",
            "C(BEGIN) Z(T)",
            &["BEGIN", "COMMIT", "BEGIN", "ROLLBACK", "SELECT 1"],
        ),
        (
            "the other words",
            "C(START TRANSACTION) Z(T)",
            &[
                "START TRANSACTION",
                "END",
                "BEGIN WORK",
                "ABORT",
                "/* why */ start transaction",
                "COMMIT WORK",
            ],
        ),
        (
            "outside of one",
            "N(25P01)",
            &["COMMIT", "ROLLBACK", "SAVEPOINT s", "COMMIT AND CHAIN"],
        ),
        (
            "one within the other",
            "N(25001)",
            &["BEGIN", "BEGIN", "SELECT 1", "BEGIN", "COMMIT"],
        ),
        (
            "a failed one",
            "E(25P02) Z(E)",
            &[
                "BEGIN",
                "SELECT 1/0",
                "SELECT 1",
                "SHOW TimeZone",
                "BEGIN",
                "COMMIT",
                "SELECT 1",
            ],
        ),
        (
            "a failed one, undone",
            "E(25P02) Z(E)",
            &[
                "BEGIN",
                "SELECT nothing",
                "",
                "SAVEPOINT s",
                "ROLLBACK",
                "SELECT 1",
            ],
        ),
        (
            "savepoints",
            "D(1,kept)",
            &[
                "BEGIN",
                "INSERT INTO note VALUES (1, 'kept')",
                "SAVEPOINT s",
                "INSERT INTO note VALUES (1, 'twice')",
                "ROLLBACK TO s",
                "SELECT * FROM note",
                "RELEASE s",
                "RELEASE s",
                "ROLLBACK",
                "SELECT * FROM note",
            ],
        ),
        (
            "chains",
            "C(COMMIT) Z(T)",
            &[
                "BEGIN ISOLATION LEVEL REPEATABLE READ",
                "COMMIT AND CHAIN",
                "SHOW transaction_isolation",
                "INSERT INTO note VALUES (2, 'gone')",
                "ROLLBACK AND CHAIN",
                "SELECT * FROM note",
                "SHOW transaction_isolation",
                "COMMIT",
                "SHOW transaction_isolation",
            ],
        ),
        (
            "modes",
            "E(25006)",
            &[
                "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE",
                "SHOW transaction_isolation",
                "SHOW transaction_deferrable",
                "SHOW transaction_read_only",
                "INSERT INTO note VALUES (1, 'a')",
                "ROLLBACK",
                "BEGIN READ ONLY",
                "SHOW transaction_read_only",
                "INSERT INTO note VALUES (1, 'a')",
                "COMMIT",
                "BEGIN",
                "SET TRANSACTION READ ONLY",
                "SELECT count(*) FROM note",
                "INSERT INTO note VALUES (1, 'a')",
                "COMMIT",
            ],
        ),
        (
            "too late",
            "E(25001)",
            &[
                "BEGIN",
                "SELECT 1",
                "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
                "ROLLBACK",
            ],
        ),
        (
            "an error at COMMIT",
            "E(23503) Z(I)",
            &[
                "BEGIN",
                "INSERT INTO child VALUES (7)",
                "COMMIT",
                "SELECT count(*) FROM child",
            ],
        ),
        (
            "in two phases, and how that fails",
            "E(42704)",
            &[
                "PREPARE TRANSACTION 'none'",
                "BEGIN",
                "INSERT INTO note VALUES (4, 'undone')",
                "SET LOCAL TimeZone TO 'Asia/Tokyo'",
                "PREPARE TRANSACTION 'again'",
                "SHOW TimeZone",
                "BEGIN",
                "PREPARE TRANSACTION 'again'",
                "SELECT 1",
                "BEGIN",
                "COMMIT PREPARED 'again'",
                "ROLLBACK",
                "ROLLBACK PREPARED 'again'",
                "COMMIT PREPARED 'again'",
                "BEGIN",
                "SELECT 1/0",
                "PREPARE TRANSACTION 'failed'",
                "SELECT count(*) FROM note WHERE id = 4",
            ],
        ),
        (
            "in two phases, with what they cannot keep",
            "E(0A000)",
            &[
                "BEGIN",
                "CREATE TEMP TABLE mine (n int)",
                "PREPARE TRANSACTION 'temporary'",
                "BEGIN",
                "SET TimeZone TO 'Asia/Tokyo'",
                "PREPARE TRANSACTION 'settings'",
                "SHOW TimeZone",
                "COMMIT PREPARED 'settings'",
                "SHOW TimeZone",
                "RESET TimeZone",
            ],
        ),
        (
            "in two phases",
            "C(PREPARE TRANSACTION)",
            &[
                "BEGIN",
                "INSERT INTO note VALUES (3, 'phase')",
                "PREPARE TRANSACTION 'wire'",
                "SELECT * FROM note",
                "COMMIT PREPARED 'wire'",
                "DELETE FROM note WHERE id = 3",
            ],
        ),
    ];
    let stories: Vec<_> = stories
        .into_iter()
        .map(|(name, witness, texts)| (name, witness, texts.iter().map(|sql| say(sql)).collect()))
        .collect();
    compare(&front().await, &stories).await;
}

#[tokio::test]
async fn extended_queries() {
    let series = "SELECT * FROM generate_series(1, $1::int)";
    let stories = vec![
        (
            "one statement",
            "1 2 T D(1) D(2) C(SELECT 2) Z(I)",
            vec![
                extended(series, &["2"]),
                extended("", &[]),
                extended("INSERT INTO note VALUES (9, 'x') RETURNING id", &[]),
                extended("DELETE FROM note", &[]),
                extended("SELECT 1; SELECT 2", &[]),
                extended("BEGIN", &[]),
                extended(series, &["1"]),
                extended("COMMIT", &[]),
            ],
        ),
        (
            "errors at every step",
            "1 E(22P02) Z(I)",
            vec![
                extended("SELEC", &[]),
                extended("SELECT * FROM nowhere", &[]),
                extended(series, &["x"]),
                extended(series, &[]),
                extended("SELECT 1 / $1::int", &["0"]),
                turn(&[execute("nobody", 0), sync()]),
                turn(&[bind("", "nobody", &[]), sync()]),
                turn(&[describe_statement("nobody"), sync()]),
                turn(&[describe_portal("nobody"), sync()]),
                turn(&[close_statement("nobody"), close_portal("nobody"), sync()]),
                extended(series, &["1"]),
            ],
        ),
        (
            "in a transaction that fails",
            "E(22012) Z(E)",
            vec![
                say("BEGIN"),
                extended("SELECT 1 / $1::int", &["0"]),
                extended(series, &["1"]),
                turn(&[sync()]),
                extended("ROLLBACK", &[]),
                extended(series, &["1"]),
            ],
        ),
        (
            "Describe alone",
            "1 t T Z(I)",
            vec![
                turn(&[parse("s", series), describe_statement("s"), sync()]),
                turn(&[
                    describe_statement("s"),
                    bind("p", "s", &["1"]),
                    describe_portal("p"),
                    sync(),
                ]),
                turn(&[
                    parse("w", "DELETE FROM note"),
                    describe_statement("w"),
                    sync(),
                ]),
            ],
        ),
        (
            "portals by and by",
            "D(1) D(2) s Z(T)",
            vec![
                say("BEGIN"),
                turn(&[
                    parse("", series),
                    bind("p", "", &["5"]),
                    execute("p", 2),
                    sync(),
                ]),
                turn(&[execute("p", 2), sync()]),
                turn(&[
                    bind("q", "", &["2"]),
                    execute("q", 1),
                    execute("p", 9),
                    sync(),
                ]),
                turn(&[close_portal("q"), execute("q", 1), sync()]),
                say("ROLLBACK"),
                turn(&[execute("p", 1), sync()]),
            ],
        ),
        (
            "a portal and row limits in one cycle",
            "D(1) s D(2) s D(3) C(SELECT 1)",
            vec![turn(&[
                parse("", series),
                bind("", "", &["3"]),
                execute("", 1),
                execute("", 1),
                execute("", 0),
                sync(),
            ])],
        ),
        (
            "Flush",
            "1 t T",
            vec![
                until(
                    b'T',
                    1,
                    &[parse("f", series), describe_statement("f"), flush()],
                ),
                until(b'C', 1, &[bind("", "f", &["2"]), execute("", 0), flush()]),
                until(b's', 1, &[bind("", "f", &["2"]), execute("", 1), flush()]),
                turn(&[sync()]),
                turn(&[sync()]),
            ],
        ),
        (
            "Flush, and then an error",
            "E(22012)",
            vec![
                until(
                    b't',
                    1,
                    &[
                        parse("f", "SELECT 1 / $1::int"),
                        describe_statement("f"),
                        flush(),
                    ],
                ),
                until(b'E', 1, &[bind("", "f", &["0"]), execute("", 0), flush()]),
                turn(&[bind("", "f", &["1"]), execute("", 0), flush(), sync()]),
                turn(&[bind("", "f", &["1"]), execute("", 0), sync()]),
            ],
        ),
        (
            "Flush from read to write",
            "C(INSERT 0 1)",
            vec![
                until(
                    b'C',
                    1,
                    &[
                        parse("", series),
                        bind("", "", &["1"]),
                        execute("", 0),
                        flush(),
                    ],
                ),
                until(
                    b'C',
                    1,
                    &[
                        parse("", "INSERT INTO note VALUES (5, 'f')"),
                        bind("", "", &[]),
                        execute("", 0),
                        flush(),
                    ],
                ),
                turn(&[sync()]),
                extended("DELETE FROM note RETURNING id", &[]),
            ],
        ),
        (
            "Flush from a read that fails to a write",
            "E(22012) Z(I)",
            vec![
                turn(&[
                    parse("", "SELECT 1 / $1::int"),
                    bind("", "", &["0"]),
                    execute("", 0),
                    flush(),
                    parse("w", "INSERT INTO note VALUES (6, 'f')"),
                    bind("", "w", &[]),
                    execute("", 0),
                    sync(),
                ]),
                say("SELECT count(*) FROM note"),
                turn(&[parse("w", "SELECT 6"), sync()]),
            ],
        ),
        (
            "one cycle is one transaction",
            "E(23505) Z(I)",
            vec![
                turn(&[
                    parse("i", "INSERT INTO note VALUES ($1, 'i')"),
                    bind("", "i", &["1"]),
                    execute("", 0),
                    bind("", "i", &["1"]),
                    execute("", 0),
                    bind("", "i", &["2"]),
                    execute("", 0),
                    sync(),
                ]),
                say("SELECT count(*) FROM note"),
            ],
        ),
        (
            "function call",
            "V Z(I)",
            vec![
                turn(&[function_call(177, &["40", "2"])]),
                turn(&[function_call(1, &[])]),
                say("SELECT 1"),
            ],
        ),
        (
            "empty writes",
            "Z(I)",
            vec![turn(&[sync()]), until(b'Z', 3, &[sync(), sync(), sync()])],
        ),
    ];
    compare(&front().await, &stories).await;
}

#[tokio::test]
async fn pipelines() {
    /// Cycles that read, write, fail in the middle, or do both.
    fn cycles(count: usize) -> Vec<Vec<u8>> {
        let cycle = |number: usize| -> Vec<Vec<u8>> {
            let text = number.to_string();
            let read = [
                parse("", "SELECT $1::int"),
                bind("", "", &[&text]),
                execute("", 0),
            ];
            let write = [
                parse("", "INSERT INTO note VALUES ($1, 'p') RETURNING id"),
                bind("", "", &[&text]),
                execute("", 0),
            ];
            let fail = [
                parse("", "SELECT 1 / $1::int"),
                bind("", "", &["0"]),
                execute("", 0),
            ];
            let parts: Vec<[Vec<u8>; 3]> = match number % 7 {
                3 => vec![read.clone(), fail, read],
                4 => vec![write],
                5 => vec![write, fail],
                6 => vec![read, write],
                _ => vec![read],
            };
            parts.into_iter().flatten().chain([sync()]).collect()
        };
        (0..count).flat_map(cycle).collect()
    }
    let simple: Vec<Vec<u8>> = (0..50)
        .map(|number| match number % 5 {
            3 => query("SELECT 1/0"),
            4 => query(&format!("SELECT {number}; SELECT {number} + 1")),
            _ => query(&format!("SELECT {number}")),
        })
        .collect();
    let in_transaction: Vec<Vec<u8>> = [query("BEGIN")]
        .into_iter()
        .chain(cycles(3))
        .chain([query("COMMIT"), query("SELECT 1")])
        .collect();
    // However the reads fall that have to tell where a long run ends: here a header lies astride one.
    let astride: Vec<Turn> = (1..6)
        .map(|left| {
            let frame = parse("", "SELECT 1 --").len();
            let text = format!("SELECT 1 --{}", "x".repeat(64 * 1024 - frame - left));
            turn(&[parse("", &text), bind("", "", &[]), execute("", 0), sync()])
        })
        .collect();
    let stories = vec![
        (
            "a header astride 64 KiB",
            "1 2 D(1) C(SELECT 1) Z(I)",
            astride,
        ),
        (
            "fifty cycles in one write",
            "D(46)",
            vec![
                say("TRUNCATE note"),
                until(b'Z', 50, &cycles(50)),
                say("SELECT count(*), sum(id) FROM note"),
            ],
        ),
        (
            "fifty queries in one write",
            "D(44) C(SELECT 1) T D(45)",
            vec![until(b'Z', 50, &simple)],
        ),
        (
            "a transaction in one write",
            "C(BEGIN) Z(T)",
            vec![say("TRUNCATE note"), until(b'Z', 6, &in_transaction)],
        ),
        (
            "settings in one write",
            "D(b)",
            vec![until(
                b'Z',
                5,
                &[
                    query("SET application_name TO 'a'"),
                    query("SHOW application_name"),
                    query("SET application_name TO 'b'"),
                    query("SELECT current_setting('application_name')"),
                    query("RESET application_name"),
                ],
            )],
        ),
    ];
    compare(&front().await, &stories).await;
}

#[tokio::test]
async fn copies() {
    let rows = || copy_data("1\tone\n2\ttwo\n");
    let copy_in = "COPY note FROM STDIN";
    let emptied = || say("TRUNCATE note, side_note");
    let count = || say("SELECT count(*) FROM note");
    let run = |sql: &str| [parse("", sql), bind("", "", &[]), execute("", 0)].concat();
    let stories = vec![
        (
            "in and out",
            "C(COPY 2) Z(I)",
            vec![
                emptied(),
                until(b'G', 1, &[query(copy_in)]),
                turn(&[rows(), copy_done()]),
                say("COPY (SELECT * FROM note ORDER BY id) TO STDOUT"),
                say("COPY note TO STDOUT (FORMAT csv)"),
            ],
        ),
        (
            "all in one write",
            "G C(COPY 2) Z(I)",
            vec![
                emptied(),
                turn(&[query(copy_in), rows(), copy_done()]),
                count(),
            ],
        ),
        (
            "in many pieces",
            "C(COPY 4)",
            vec![
                emptied(),
                until(b'G', 1, &[query(copy_in)]),
                turn(&[
                    copy_data("1\ta\n2"),
                    copy_data("\tb"),
                    flush(),
                    sync(),
                    copy_data("\n3\tc\n4\td\n"),
                    copy_done(),
                ]),
            ],
        ),
        (
            "given up",
            "E(57014) Z(I)",
            vec![
                emptied(),
                until(b'G', 1, &[query(copy_in)]),
                turn(&[rows(), copy_fail("no more")]),
                count(),
            ],
        ),
        (
            "an error in the middle",
            "E(22P02) Z(I)",
            vec![
                emptied(),
                until(b'G', 1, &[query(copy_in)]),
                turn(&[rows(), copy_data("x\tbad\n"), rows(), rows(), copy_done()]),
                count(),
                say("SELECT 1"),
            ],
        ),
        (
            "never begun",
            "E(42P01)",
            vec![
                turn(&[query("COPY nowhere FROM STDIN"), rows(), copy_done()]),
                say("SELECT 1"),
                until(
                    b'Z',
                    2,
                    &[
                        run("COPY nowhere FROM STDIN"),
                        sync(),
                        rows(),
                        copy_done(),
                        sync(),
                    ],
                ),
                say("SELECT 1"),
            ],
        ),
        (
            "extended",
            "1 2 G C(COPY 2) Z(I)",
            vec![
                emptied(),
                turn(&[run(copy_in), rows(), copy_done(), sync()]),
                turn(&[run("COPY note TO STDOUT"), sync()]),
            ],
        ),
        (
            "extended, a Sync behind the Execute",
            "1 2 G",
            vec![
                emptied(),
                until(b'G', 1, &[run(copy_in), sync()]),
                turn(&[rows(), copy_done(), sync()]),
                count(),
            ],
        ),
        (
            "extended, given up",
            "E(57014) Z(I)",
            vec![
                emptied(),
                until(b'G', 1, &[run(copy_in), sync()]),
                turn(&[rows(), copy_fail("no more"), sync()]),
                count(),
            ],
        ),
        (
            "extended, an error in the middle",
            "E(22P02) Z(I)",
            vec![
                emptied(),
                until(b'G', 1, &[run(copy_in), sync()]),
                turn(&[copy_data("x\tbad\n"), rows(), copy_done(), sync()]),
                count(),
            ],
        ),
        (
            "among others in one text",
            "C(COPY 2) T D(2)",
            vec![
                emptied(),
                until(
                    b'G',
                    1,
                    &[query(
                        "COPY note FROM STDIN; SELECT count(*) FROM note; COPY note TO STDOUT",
                    )],
                ),
                turn(&[rows(), copy_done()]),
            ],
        ),
        (
            "twice in one text",
            "G C(COPY 2) G C(COPY 1)",
            vec![
                emptied(),
                turn(&[
                    query("COPY note FROM STDIN; COPY note FROM STDIN"),
                    rows(),
                    copy_done(),
                    copy_data("3\tthree\n"),
                    copy_done(),
                ]),
                count(),
            ],
        ),
        (
            "in a transaction",
            "E(25P02) Z(E)",
            vec![
                emptied(),
                say("BEGIN"),
                until(b'G', 1, &[query(copy_in)]),
                turn(&[rows(), copy_done()]),
                count(),
                until(b'G', 1, &[query(copy_in)]),
                turn(&[rows(), copy_done()]),
                count(),
                say("COMMIT"),
                count(),
            ],
        ),
        (
            "behind other cycles",
            "C(COPY 2) Z(I) T D(2)",
            vec![
                emptied(),
                until(b'G', 1, &[query("SELECT 1"), query(copy_in)]),
                until(
                    b'Z',
                    2,
                    &[rows(), copy_done(), query("SELECT count(*) FROM note")],
                ),
            ],
        ),
        (
            "in binary",
            "C(COPY 1) Z(I)",
            vec![
                emptied(),
                until(b'G', 1, &[query("COPY note FROM STDIN BINARY")]),
                turn(&[frame(b'd', BINARY_ROW), copy_done()]),
                say("SELECT * FROM note"),
                say("COPY note TO STDOUT (FORMAT binary)"),
                turn(&[run("COPY note TO STDOUT BINARY"), sync()]),
                turn(&[
                    run("COPY side_note FROM STDIN BINARY"),
                    frame(b'd', &BINARY_ROW[..20]),
                    frame(b'd', &BINARY_ROW[20..]),
                    copy_done(),
                    sync(),
                ]),
                say("SELECT * FROM side_note"),
            ],
        ),
        (
            "in binary, what is none, and what is not whole",
            "E(22P04)",
            vec![
                emptied(),
                until(b'G', 1, &[query("COPY note FROM STDIN BINARY")]),
                turn(&[copy_data("PGCOPY\nnone"), copy_done()]),
                until(b'G', 1, &[query("COPY note FROM STDIN BINARY")]),
                turn(&[frame(b'd', &BINARY_ROW[..25]), copy_done()]),
                until(b'G', 1, &[run("COPY note FROM STDIN BINARY"), sync()]),
                turn(&[frame(b'd', &BINARY_ROW[..30]), copy_done(), sync()]),
                count(),
            ],
        ),
        (
            "with a header, and with a wrong one",
            "C(COPY 1) Z(I)",
            vec![
                emptied(),
                until(
                    b'G',
                    1,
                    &[query("COPY note FROM STDIN (FORMAT csv, HEADER match)")],
                ),
                turn(&[copy_data("id,text\n1,a\n"), copy_done()]),
                until(
                    b'G',
                    1,
                    &[query("COPY note FROM STDIN (FORMAT csv, HEADER match)")],
                ),
                turn(&[copy_data("text,id\n1,a\n"), copy_done()]),
                until(b'G', 1, &[query("COPY note FROM STDIN (FORMAT csv)")]),
                turn(&[copy_data("2,\"open\n"), copy_done()]),
                count(),
            ],
        ),
        (
            "what breaks a constraint, and what lacks a column",
            "E(23505) Z(I)",
            vec![
                emptied(),
                until(b'G', 1, &[query(copy_in)]),
                turn(&[rows(), rows(), copy_done()]),
                until(b'G', 1, &[query(copy_in)]),
                turn(&[copy_data("3\n"), copy_done()]),
                count(),
            ],
        ),
        (
            "some columns, from a query, to nowhere",
            "d(1,x",
            vec![
                emptied(),
                until(b'G', 1, &[query("COPY note (id) FROM STDIN WHERE id > 1")]),
                turn(&[copy_data("1\n2\n"), copy_done()]),
                say("COPY (SELECT id FROM note) TO STDOUT"),
                say("COPY (VALUES (1, 'x')) TO STDOUT (FORMAT csv)"),
                say("COPY (DELETE FROM note RETURNING id) TO STDOUT"),
                say("COPY note TO '/nowhere/at/all'"),
                say("COPY note FROM PROGRAM 'true'"),
                say("COPY note FROM STDIN (FORMAT nonsense)"),
                count(),
            ],
        ),
        (
            "a transaction that fails in the middle of it",
            "E(22P02) Z(E)",
            vec![
                emptied(),
                say("BEGIN"),
                say("SAVEPOINT s"),
                until(b'G', 1, &[query(copy_in)]),
                turn(&[rows(), copy_data("x\tbad\n"), rows(), copy_done()]),
                say("SELECT 1"),
                say("ROLLBACK TO s"),
                until(b'G', 1, &[run(copy_in), sync()]),
                turn(&[rows(), copy_fail("no more"), sync()]),
                say("ROLLBACK TO s"),
                until(b'G', 1, &[query(copy_in)]),
                turn(&[rows(), copy_done()]),
                say("COMMIT"),
                count(),
            ],
        ),
        (
            "extended, with more behind it in its cycle",
            "C(COPY 2) 1 2 C(INSERT 0 1) Z(I)",
            vec![
                emptied(),
                turn(&[
                    run(copy_in),
                    rows(),
                    copy_done(),
                    run("INSERT INTO note VALUES (3, 'behind')"),
                    sync(),
                ]),
                // One transaction: nothing of it stays.
                turn(&[
                    run("COPY side_note FROM STDIN"),
                    rows(),
                    copy_done(),
                    run("INSERT INTO note VALUES (3, 'twice')"),
                    sync(),
                ]),
                say("SELECT count(*) FROM side_note"),
                count(),
            ],
        ),
        (
            "extended, several in one write",
            "d(1\ta",
            vec![
                say("TRUNCATE note; INSERT INTO note VALUES (1, 'a')"),
                until(
                    b'Z',
                    3,
                    &[
                        run("COPY note TO STDOUT"),
                        sync(),
                        run("COPY (SELECT 1/0) TO STDOUT"),
                        sync(),
                        run("COPY note TO STDOUT"),
                        sync(),
                    ],
                ),
            ],
        ),
        (
            "out, with an error in the middle",
            "E(22012) Z(I)",
            vec![
                say("COPY (SELECT 1 / (3 - n) FROM generate_series(1, 5) n) TO STDOUT"),
                turn(&[
                    run("COPY (SELECT 1 / (3 - n) FROM generate_series(1, 5) n) TO STDOUT"),
                    sync(),
                ]),
            ],
        ),
    ];
    compare(&front().await, &stories).await;
}

#[tokio::test]
async fn function_calls_and_large_objects() {
    let call = |function: u32, arguments: &[&str]| turn(&[function_call(function, arguments)]);
    // In pg_proc: lo_open, loread, lowrite, lo_lseek, lo_close, lo_create, lo_unlink.
    const OPEN: u32 = 952;
    const CLOSE: u32 = 953;
    const READ: u32 = 954;
    const WRITE: u32 = 955;
    const SEEK: u32 = 956;
    const CREATE: u32 = 715;
    const UNLINK: u32 = 964;
    let stories = vec![
        (
            "a large object, by function calls",
            "V Z(T)",
            vec![
                say("BEGIN"),
                call(CREATE, &["4711"]),
                call(OPEN, &["4711", "393216"]),
                call(WRITE, &["0", "twelve bytes"]),
                call(SEEK, &["0", "0", "0"]),
                call(READ, &["0", "6"]),
                call(READ, &["0", "100"]),
                call(CLOSE, &["0"]),
                call(CLOSE, &["0"]),
                say("ROLLBACK"),
                call(UNLINK, &["4711"]),
            ],
        ),
        (
            "a large object, in SQL, across transactions",
            "D(\\x6162)",
            vec![
                say("SELECT lo_create(4712)"),
                say("SELECT lo_put(4712, 0, 'abc')"),
                say("SELECT lo_get(4712, 0, 2)"),
                say("BEGIN"),
                say("SELECT lo_open(4712, 262144)"),
                say("SELECT loread(0, 2)"),
                say("SELECT lo_tell(0)"),
                say("SAVEPOINT s"),
                say("SELECT lo_open(4799, 262144)"),
                say("ROLLBACK TO s"),
                say("SELECT loread(0, 2)"),
                say("COMMIT"),
                say("SELECT loread(0, 2)"),
                call(READ, &["0", "2"]),
                say("SELECT lo_unlink(4712)"),
                say("SELECT lo_get(4712)"),
            ],
        ),
        (
            "calls that fail, alone and in transactions",
            "E(25P02) Z(E)",
            vec![
                call(177, &["40"]),
                call(177, &["40", "x"]),
                say("BEGIN"),
                call(177, &["40", "2"]),
                call(1, &[]),
                call(177, &["40", "2"]),
                say("SELECT 1"),
                say("COMMIT"),
                call(177, &["40", "2"]),
            ],
        ),
        (
            "calls among others in one write",
            "V Z(I) T D(1) C(SELECT 1) Z(I) V Z(I)",
            vec![until(
                b'Z',
                5,
                &[
                    function_call(177, &["40", "2"]),
                    query("SELECT 1"),
                    function_call(177, &["1", "2"]),
                    parse("", "SELECT 2"),
                    bind("", "", &[]),
                    execute("", 0),
                    sync(),
                    function_call(1, &[]),
                ],
            )],
        ),
        (
            "binary arguments, NULL, and a result in binary",
            "V Z(I)",
            vec![
                turn(&[binary_call(177, &[Some(40), Some(2)])]),
                turn(&[binary_call(177, &[Some(40), None])]),
            ],
        ),
    ];
    compare(&front().await, &stories).await;
}

/// A fast-path call with integers, arguments and result in binary.
fn binary_call(oid: u32, arguments: &[Option<i32>]) -> Vec<u8> {
    let mut body = oid.to_be_bytes().to_vec();
    body.extend([0, 1, 0, 1]);
    body.extend((arguments.len() as u16).to_be_bytes());
    for argument in arguments {
        match argument {
            Some(number) => {
                body.extend(4_u32.to_be_bytes());
                body.extend(number.to_be_bytes());
            }
            None => body.extend((-1_i32).to_be_bytes()),
        }
    }
    body.extend([0, 1]);
    frame(b'F', &body)
}

#[tokio::test]
async fn settings_are_reported_as_postgres_reports_them() {
    let texts: &[&str] = &[
        "SET TimeZone TO 'Asia/Tokyo'",
        "SET application_name TO 'it''s'",
        "SHOW application_name",
        "SET DateStyle TO 'German'",
        "SELECT '2026-01-02'::date",
        "RESET TimeZone",
        "SET standard_conforming_strings TO off",
        "SELECT set_config('application_name', 'by function', false)",
        "SHOW application_name",
        "BEGIN",
        "SET TimeZone TO 'Europe/Paris'",
        "SHOW TimeZone",
        "ROLLBACK",
        "SHOW TimeZone",
        "BEGIN",
        "SET LOCAL TimeZone TO 'Europe/Paris'",
        "SHOW TimeZone",
        "COMMIT",
        "SHOW TimeZone",
        "SET client_encoding TO 'LATIN1'",
        "SELECT chr(228) = 'ä'",
        "SET TIME ZONE INTERVAL '02:30' HOUR TO MINUTE",
        "SHOW TIME ZONE",
        "SET search_path TO a, \"B\", pg_catalog",
        "SHOW search_path",
        "SET no_such TO 1",
        "SET app.mine TO 'x'",
        "SHOW app.mine",
        "SET work_mem TO 'lots'",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "CREATE TABLE never (n int)",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
        "SET ROLE nobody",
        "SET SESSION AUTHORIZATION nobody",
        "SET ROLE app",
        "SELECT current_user",
        "RESET ALL",
        "SHOW TimeZone",
        "DISCARD ALL",
        "SHOW DateStyle",
    ];
    let story = texts.iter().map(|sql| say(sql)).collect();
    compare(
        &front().await,
        &[("settings", "S(TimeZone=Asia/Tokyo)", story)],
    )
    .await;
}
