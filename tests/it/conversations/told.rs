//! Conversations that once came out differently through Causeway, each as short as it was found.

use super::act::{Act, Conversation, Format, Leave, Turn, Wait};

/// Reads that a replica may answer.
const NOTES: &str = "SELECT * FROM note WHERE id >= $1 ORDER BY id";

const WHO: &str = "SELECT current_user, current_setting('role')";

/// Each with what PostgreSQL says somewhere in it: one that fails from its start proves nothing.
pub fn conversations() -> Vec<(&'static str, &'static str, Conversation)> {
    let one = "SELECT $1::int + 1";
    let stories = vec![
        (
            "errors call a statement by the client's name",
            "M=prepared statement \"s\" already exists",
            vec![
                turn(vec![parse("s", one), Act::Sync]),
                turn(vec![parse("s", "SELECT 2"), Act::Sync]),
                turn(vec![bind("s", &[]), Act::Sync]),
            ],
        ),
        (
            "of two names for one text",
            "M=prepared statement \"t\" already exists",
            vec![
                turn(vec![parse("s", one), parse("t", one), Act::Sync]),
                turn(vec![parse("t", "SELECT 2"), Act::Sync]),
            ],
        ),
        (
            "the same text does not free a name either",
            "C=42P05",
            vec![
                turn(vec![parse("s", one), Act::Sync]),
                turn(vec![parse("s", one), Act::Sync]),
                turn(vec![bind("s", &["1"]), execute(), Act::Sync]),
            ],
        ),
        (
            "what is wrong with a text comes ahead of what is wrong with its name",
            "C=42601",
            vec![
                turn(vec![parse("s", one), Act::Sync]),
                turn(vec![parse("s", "SELEC"), Act::Sync]),
            ],
        ),
        (
            "a failed transaction prepares nothing",
            "C=25P02",
            vec![
                turn(vec![parse("s", one), Act::CloseStatement("s"), Act::Sync]),
                say("BEGIN; SELECT 1/0"),
                turn(vec![parse("s", one), Act::Sync]),
                turn(vec![Act::CloseStatement("s"), parse("s", one), Act::Sync]),
                say("ROLLBACK"),
                turn(vec![bind("s", &["1"]), execute(), Act::Sync]),
                turn(vec![
                    parse("s", one),
                    bind("s", &["1"]),
                    execute(),
                    Act::Sync,
                ]),
            ],
        ),
        (
            "nor does one that fails while more is under way",
            "Z(E) 3 E(S=ERROR V=ERROR C=25P02",
            vec![
                turn(vec![parse("s", one), Act::CloseStatement("s"), Act::Sync]),
                turn(vec![
                    Act::Query("BEGIN".to_owned()),
                    Act::Query("SELECT 1/0".to_owned()),
                    Act::CloseStatement("s"),
                    parse("s", one),
                    Act::Sync,
                ]),
                turn(vec![
                    Act::Query("".to_owned()),
                    parse("s", one),
                    Act::Sync,
                    Act::Query("ROLLBACK".to_owned()),
                    parse("s", one),
                    Act::Sync,
                ]),
                turn(vec![bind("s", &["1"]), execute(), Act::Sync]),
            ],
        ),
        (
            "what an error has skipped is not there for the next cycle",
            "M=prepared statement \"s\" does not exist",
            vec![
                turn(vec![
                    Act::DescribePortal("p"),
                    parse("s", "INSERT INTO note VALUES (7, 'skipped')"),
                    Act::Sync,
                    bind("s", &[]),
                    execute(),
                    Act::Sync,
                ]),
                say("SELECT count(*) FROM note"),
            ],
        ),
        (
            "the unnamed statement is gone when it is closed",
            "M=unnamed prepared statement does not exist",
            vec![turn(vec![
                parse("", one),
                Act::CloseStatement(""),
                Act::DescribeStatement(""),
                Act::Sync,
            ])],
        ),
        (
            "a DEALLOCATE ALL that fails takes nothing away",
            "C=25P02",
            vec![
                turn(vec![parse("s", one), Act::Sync]),
                say("BEGIN"),
                turn(vec![bind("s", &["1"]), execute(), Act::Sync]),
                say("SAVEPOINT a"),
                say("SELECT 1/0"),
                say("DEALLOCATE ALL"),
                say("ROLLBACK TO a"),
                turn(vec![bind("s", &["2"]), execute(), Act::Sync]),
                say("COMMIT"),
            ],
        ),
        (
            "a text that failed half way does not keep the session on a replica",
            "C(LISTEN)",
            vec![
                say("ROLLBACK TO b; SELECT count(*) FROM note; SELECT * FROM nowhere"),
                say("LISTEN bell"),
                say("INSERT INTO note VALUES (5, 'primary')"),
            ],
        ),
        (
            "nor does one in a READ ONLY transaction",
            "C(INSERT 0 1)",
            vec![
                say("BEGIN READ ONLY"),
                say("SELECT count(*) FROM note"),
                say("COMMIT; SELECT * FROM nowhere"),
                say("INSERT INTO note VALUES (5, 'primary')"),
            ],
        ),
        (
            "a DEALLOCATE frees its name for what comes behind it in its cycle",
            "n C(DEALLOCATE) 1 2 D(4) C(SELECT 1) Z(I)",
            vec![
                turn(vec![parse("s", "SELECT 7"), Act::Sync]),
                turn(vec![
                    parse("", "DEALLOCATE s"),
                    open("", "", &[]),
                    Act::DescribePortal(""),
                    run("", 0),
                    parse("s", one),
                    bind("s", &["3"]),
                    execute(),
                    Act::Sync,
                ]),
                turn(vec![bind("s", &["3"]), execute(), Act::Sync]),
            ],
        ),
        (
            "a portal outlives a Flush and a write behind it",
            "D(2,two) C(SELECT 1) C(SELECT 0) Z(I)",
            vec![
                flushed(vec![
                    parse("", NOTES),
                    open("p", "", &["1"]),
                    run("p", 1),
                    Act::Flush,
                ]),
                flushed(vec![
                    open("", "", &["2"]),
                    run("", 1),
                    parse("w", "INSERT INTO note VALUES (5, 'w')"),
                    open("q", "w", &[]),
                    run("q", 0),
                    Act::Flush,
                ]),
                turn(vec![run("p", 0), run("", 0), Act::Sync]),
                say("SELECT count(*) FROM note"),
            ],
        ),
        (
            "one that was only described does",
            "D(1,one) D(2,two) C(SELECT 2)",
            vec![
                flushed(vec![
                    parse("s", NOTES),
                    open("", "s", &["1"]),
                    Act::DescribePortal(""),
                    Act::Flush,
                ]),
                turn(vec![
                    parse("w", "INSERT INTO note VALUES (5, 'w')"),
                    open("q", "w", &[]),
                    run("q", 0),
                    run("", 0),
                    Act::Sync,
                ]),
            ],
        ),
        (
            "one behind another cycle in one write does",
            "D(2,two) C(SELECT 1) Z(I)",
            vec![
                turn(vec![parse("s", NOTES), Act::Sync]),
                flushed(vec![
                    open("", "s", &["1"]),
                    run("", 0),
                    Act::Sync,
                    open("p", "s", &["1"]),
                    run("p", 1),
                    Act::Flush,
                ]),
                turn(vec![
                    parse("w", "DELETE FROM note"),
                    open("", "w", &[]),
                    run("", 0),
                    run("p", 0),
                    Act::Sync,
                ]),
            ],
        ),
        (
            "a name is taken by what does not parse any more",
            "M=prepared statement \"s\" already exists",
            vec![
                turn(vec![parse("s", NOTES), parse("t", NOTES), Act::Sync]),
                say("SET search_path TO nowhere"),
                say("PREPARE s AS SELECT 1"),
                say("DEALLOCATE t; PREPARE t AS SELECT 2; EXECUTE t"),
                say("SET search_path TO public"),
                say("EXECUTE s(2)"),
                turn(vec![bind("s", &["1"]), execute(), Act::Sync]),
                say("EXECUTE t; DEALLOCATE s; DEALLOCATE s"),
            ],
        ),
        (
            "a portal that has given all its rows does",
            "3 T(count@0:20:-1:0) C(SELECT 0) C(SELECT 0) Z(I)",
            ["", "s"]
                .into_iter()
                .flat_map(|name| {
                    let count = "SELECT count(*) FROM note WHERE id >= $1";
                    let read = flushed(vec![
                        parse(name, count),
                        bind(name, &["1"]),
                        execute(),
                        Act::Flush,
                    ]);
                    let write = [
                        parse(
                            "w",
                            "INSERT INTO note VALUES (5, 'w') ON CONFLICT DO NOTHING",
                        ),
                        open("q", "w", &[]),
                        run("q", 0),
                        Act::CloseStatement("w"),
                    ];
                    vec![
                        read.clone(),
                        turn(
                            [
                                &[Act::CloseStatement(name)],
                                &write[..],
                                &[Act::DescribePortal(""), execute(), execute(), Act::Sync],
                            ]
                            .concat(),
                        ),
                        read.clone(),
                        flushed([&write[..], &[Act::Flush]].concat()),
                        turn(vec![execute(), Act::ClosePortal(""), execute(), Act::Sync]),
                        turn(vec![Act::CloseStatement(name), Act::Sync]),
                        read,
                        turn([&write[..], &[execute(), Act::Sync]].concat()),
                        turn(vec![execute(), Act::CloseStatement(name), Act::Sync]),
                    ]
                })
                .collect(),
        ),
        (
            "a BEGIN behind a read of its cycle comes too late for an isolation level",
            "E(S=ERROR V=ERROR C=25001 M=SET TRANSACTION ISOLATION LEVEL must be called before any query)",
            [
                "BEGIN ISOLATION LEVEL SERIALIZABLE",
                "START TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY",
                "BEGIN ISOLATION LEVEL READ COMMITTED",
                "BEGIN READ ONLY",
                "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
            ]
            .into_iter()
            .flat_map(|begin| {
                let read = |sql| vec![parse("", sql), bind("", &[]), execute(), Act::Flush];
                let begun = vec![parse("", begin), bind("", &[]), execute(), Act::Sync];
                let shown = say("SHOW transaction_isolation; SHOW transaction_read_only");
                vec![
                    flushed(read("SELECT count(*) FROM note")),
                    turn(begun.clone()),
                    shown.clone(),
                    say("ROLLBACK"),
                    flushed(read("SHOW TimeZone")),
                    turn(begun),
                    shown,
                    say("ROLLBACK"),
                ]
            })
            .collect(),
        ),
        (
            "what one cycle skips the next one finds",
            "E(S=ERROR V=ERROR C=26000 M=prepared statement \"t\" does not exist) Z(I) 2 D(2)",
            vec![
                turn(vec![parse("", one), Act::Sync]),
                turn(vec![
                    bind("t", &[]),
                    bind("", &["1"]),
                    Act::Sync,
                    bind("", &["1"]),
                    execute(),
                    Act::Sync,
                ]),
            ],
        ),
        (
            "in a failed transaction all fails alike, wherever that runs",
            "Z(E) E(S=ERROR V=ERROR C=26000",
            vec![
                say("BEGIN READ ONLY"),
                say("SELECT count(*) FROM note"),
                turn(vec![
                    Act::Query("SELECT 1/0".to_owned()),
                    Act::DescribeStatement(""),
                    parse("", "LISTEN bell"),
                    bind("", &[]),
                    execute(),
                    Act::Sync,
                    Act::Query("LISTEN bell".to_owned()),
                ]),
                say("LISTEN bell"),
            ],
        ),
        (
            "what does not parse is told as such",
            "C=42601",
            vec![
                say("BEGIN READ ONLY"),
                say("SELECT count(*) FROM note"),
                say("SELEC"),
            ],
        ),
        (
            "one behind reads that have been answered does",
            "D(2,two) C(SELECT 1) Z(I)",
            vec![
                flushed(vec![
                    parse("s", NOTES),
                    open("", "s", &["1"]),
                    run("", 0),
                    Act::Flush,
                ]),
                flushed(vec![open("p", "s", &["1"]), run("p", 1), Act::Flush]),
                turn(vec![
                    parse("w", "DELETE FROM note"),
                    open("", "w", &[]),
                    run("", 0),
                    run("p", 0),
                    Act::Sync,
                ]),
            ],
        ),
        (
            "what is closed is gone within its cycle too, though SQL has named it before",
            "3 E(S=ERROR V=ERROR C=26000 M=prepared statement \"s\" does not exist)",
            [
                named_by_sql(),
                vec![
                    flushed(vec![
                        Act::CloseStatement("s"),
                        Act::Flush,
                        bind("s", &[]),
                        Act::Flush,
                    ]),
                    turn(vec![Act::Sync]),
                ],
            ]
            .concat(),
        ),
        (
            "and what is parsed under its name then is what SQL finds",
            "D(8) C(SELECT 1) 3 1 2 D(9) C(SELECT 1)",
            [
                named_by_sql(),
                vec![
                    flushed(vec![
                        Act::CloseStatement("s"),
                        parse("s", "SELECT 8"),
                        Act::Flush,
                        parse("", "EXECUTE s"),
                        open("p", "", &[]),
                        run("p", 0),
                        Act::Flush,
                        Act::CloseStatement("s"),
                        parse("s", "SELECT 9"),
                        open("q", "", &[]),
                        run("q", 0),
                        Act::Flush,
                    ]),
                    turn(vec![Act::Sync]),
                ],
            ]
            .concat(),
        ),
        (
            "what an error skips there has been neither closed nor parsed",
            "C(ROLLBACK) Z(T) T(?column?@0:23:-1:0) D(7) C(SELECT 1) Z(T)",
            [
                named_by_sql(),
                vec![
                    turn(vec![Act::Sync]),
                    say("SAVEPOINT a"),
                    turn(vec![parse("t", "SELECT 6"), Act::Sync]),
                    turn(vec![
                        Act::DescribePortal("nowhere"),
                        Act::Flush,
                        Act::CloseStatement("s"),
                        parse("", "EXECUTE s"),
                        bind("", &[]),
                        Act::Flush,
                        parse("", "EXECUTE t"),
                        bind("", &[]),
                        Act::Sync,
                    ]),
                    turn(vec![
                        Act::Query("ROLLBACK TO a".to_owned()),
                        Act::Query("EXECUTE s".to_owned()),
                        Act::Query("EXECUTE t".to_owned()),
                    ]),
                    say("COMMIT"),
                ],
            ]
            .concat(),
        ),
        (
            "what does not parse any more fails where SQL names it, and nothing else does",
            "1 2 E(S=ERROR V=ERROR C=42P01 M=relation \"note\" does not exist P=15) Z(I) Z(I) T(column1",
            vec![
                turn(vec![parse("s", NOTES), Act::Sync]),
                say("PREPARE t AS SELECT * FROM note"),
                say("SET search_path TO nowhere"),
                turn(vec![
                    parse("", "EXECUTE s(1)"),
                    bind("", &[]),
                    execute(),
                    Act::Sync,
                    Act::Sync,
                    Act::Query("VALUES (1); EXECUTE t".to_owned()),
                    Act::Query("VALUES (1)".to_owned()),
                ]),
                say("BEGIN; INSERT INTO public.note VALUES (5, 'kept'); SAVEPOINT a"),
                say("VALUES (1); EXECUTE s(1)"),
                say("ROLLBACK TO a"),
                say("EXECUTE t"),
                say("ROLLBACK TO a; SET LOCAL search_path TO public"),
                say("EXECUTE s(1); EXECUTE t"),
                say("COMMIT"),
                say("EXECUTE s(1)"),
            ],
        ),
        (
            "nor where the server is first asked for the columns of another statement",
            "2 D(1) D(2) C(SELECT 2) 1 2 C(INSERT 0 1) 1 2 E(S=ERROR V=ERROR C=42P01",
            vec![
                turn(vec![
                    parse("s", "SELECT id FROM public.note ORDER BY id"),
                    Act::DescribeStatement("s"),
                    parse("t", "SELECT * FROM note"),
                    Act::Sync,
                ]),
                say("SET search_path TO nowhere"),
                say("CREATE TEMP TABLE mine (id int)"),
                say("DROP TABLE mine"),
                turn(vec![
                    bind("s", &[]),
                    execute(),
                    parse("", "INSERT INTO public.note VALUES (5, 'undone')"),
                    bind("", &[]),
                    execute(),
                    parse("", "EXECUTE t"),
                    bind("", &[]),
                    execute(),
                    Act::Sync,
                ]),
                say("SET search_path TO public"),
                say("EXECUTE t"),
            ],
        ),
        (
            "nor in a failed transaction, where that is not even looked for",
            "3 E(S=ERROR V=ERROR C=26000 M=unnamed prepared statement does not exist) Z(E)",
            vec![
                turn(vec![parse("s", one), Act::Sync]),
                say("BEGIN; INSERT INTO note VALUES (5, 'undone'); SELECT 1/0"),
                flushed(vec![Act::ClosePortal("q"), Act::Flush]),
                turn(vec![
                    Act::ClosePortal("q"),
                    bind("", &[]),
                    parse("t", "EXECUTE s(3)"),
                    Act::DescribeStatement("t"),
                    Act::Sync,
                ]),
                flushed(vec![
                    parse("", "ROLLBACK"),
                    bind("", &[]),
                    execute(),
                    Act::Flush,
                ]),
                turn(vec![
                    parse("", "EXECUTE s(3)"),
                    bind("", &[]),
                    execute(),
                    Act::Sync,
                ]),
            ],
        ),
        (
            "its name is taken all the same",
            "E(S=ERROR V=ERROR C=42P05 M=prepared statement \"s\" already exists) Z(I) \
                E(S=ERROR V=ERROR C=42P05 M=prepared statement \"t\" already exists) Z(I)",
            vec![
                turn(vec![parse("s", NOTES), parse("t", NOTES), Act::Sync]),
                say("SET search_path TO nowhere"),
                turn(vec![
                    parse("s", one),
                    Act::Sync,
                    parse("t", one),
                    Act::Sync,
                    parse("s", "SELECT * FROM note"),
                    Act::Sync,
                ]),
                say("BEGIN; SELECT 1/0"),
                turn(vec![parse("s", one), Act::Sync]),
                turn(vec![parse("t", "ROLLBACK"), Act::Sync]),
                say("ROLLBACK"),
                say("SET search_path TO public"),
                turn(vec![bind("s", &["1"]), execute(), Act::Sync]),
            ],
        ),
        (
            "the name of what SQL has prepared is, too",
            "E(S=ERROR V=ERROR C=42P05 M=prepared statement \"t\" already exists) Z(I) C(DEALLOCATE)",
            vec![
                say("PREPARE t AS SELECT * FROM note"),
                say("SET search_path TO nowhere"),
                turn(vec![parse("t", one), Act::Sync]),
                turn(vec![
                    Act::Query("PREPARE t AS SELECT 1".to_owned()),
                    Act::Query("DEALLOCATE t".to_owned()),
                ]),
                say("EXECUTE t"),
                turn(vec![parse("t", one), Act::Sync]),
            ],
        ),
        (
            "what fails takes nothing away from what has been parsed behind it",
            "M=bind message supplies 0 parameters, but prepared statement \"\" requires 1) Z(I) \
                E(S=ERROR V=ERROR C=08P01",
            vec![turn(vec![
                parse("", "SELECT * FROM nowhere"),
                Act::Sync,
                parse("", NOTES),
                bind("", &[]),
                Act::Sync,
                bind("", &[]),
                parse("", one),
                Act::Sync,
            ])],
        ),
    ];
    let stories = stories
        .into_iter()
        .map(|(name, witness, turns)| (name, witness, Vec::new(), turns))
        .chain(with_startup_values());
    stories
        .map(|(name, witness, startup, turns)| {
            let conversation = Conversation {
                startup,
                turns,
                leave: Leave::Politely,
            };
            (name, witness, conversation)
        })
        .collect()
}

type Story = (
    &'static str,
    &'static str,
    Vec<(&'static str, &'static str)>,
    Vec<Turn>,
);

/// What clients said who had said something in their start-up packet.
fn with_startup_values() -> Vec<Story> {
    let one = "SELECT $1::int + 1";
    let startup = vec![
        ("options", "-c work_mem=2MB --search_path=side,Public"),
        ("DateStyle", "German"),
        ("TimeZone", "Europe/Paris"),
    ];
    let in_extended = |sql: &str| [parse("", sql), bind("", &[]), execute()];
    let shown = ["SHOW work_mem", "SHOW search_path", "SHOW DateStyle"].map(in_extended);
    let shown = shown.concat();
    let change = "SET work_mem TO '1MB'; SET search_path TO public; SET DateStyle TO ISO; \
        SET TimeZone TO 'UTC'";
    vec![
        (
            "a setting that is reset in a text is at once what the client began with",
            "C(RESET) T(search_path@0:25:-1:0) D(side,Public)",
            startup.clone(),
            vec![
                say(change),
                say("RESET search_path; SHOW search_path; SHOW DateStyle; RESET work_mem"),
                say("SHOW work_mem; SET DateStyle TO DEFAULT /* ; */ ; SHOW DateStyle"),
                say(change),
                say("RESET ALL; SHOW work_mem; SHOW search_path; SHOW DateStyle; SHOW TimeZone"),
                say("SHOW search_path"),
            ],
        ),
        (
            "whatever undoes the one undoes the other",
            "C(ROLLBACK) T(work_mem@0:25:-1:0) D(1MB)",
            startup.clone(),
            vec![
                say(change),
                say("BEGIN; RESET work_mem; ROLLBACK; SHOW work_mem; SHOW TimeZone"),
                say("SAVEPOINT a; RESET TimeZone; ROLLBACK TO a; SHOW TimeZone"),
                say("RESET work_mem; SELECT 1/0"),
                say("SHOW work_mem"),
            ],
        ),
        (
            "for a transaction too",
            "C(SET) T(search_path@0:25:-1:0) D(side,Public)",
            startup.clone(),
            vec![
                say(change),
                say("SET LOCAL search_path TO DEFAULT"),
                say("BEGIN"),
                say("SET LOCAL search_path TO DEFAULT"),
                say("SET LOCAL work_mem TO DEFAULT; SHOW search_path"),
                say("SET LOCAL search_path TO DEFAULT; SHOW search_path; SHOW work_mem"),
                say("COMMIT; SHOW search_path; SHOW work_mem"),
            ],
        ),
        (
            "in a cycle of the extended protocol it is the same",
            "C(RESET) 1 2 D(2MB)",
            startup.clone(),
            vec![
                say(change),
                turn([&in_extended("RESET ALL")[..], &shown, &[Act::Sync]].concat()),
                say(change),
                turn([&in_extended("DISCARD ALL")[..], &shown, &[Act::Sync]].concat()),
                say("SHOW work_mem; SHOW TimeZone"),
            ],
        ),
        (
            "what cannot be committed has not been reset",
            "C(INSERT 0 1) E(S=ERROR V=ERROR C=23503",
            startup.clone(),
            vec![
                say(change),
                say("INSERT INTO child VALUES (4); RESET search_path"),
                say("SHOW search_path"),
            ],
        ),
        (
            "an error behind it is where the client has written it",
            "P=47",
            startup.clone(),
            vec![
                say("RESET work_mem; SELECT '\u{e4}'; RESET ALL; SELECT nothing()"),
                say("RESET work_mem; SELECT '\u{e4}'; RESET ALL; SELECT 1 1"),
                say("SELECT nothing(); RESET ALL"),
            ],
        ),
        (
            "what came ahead of BEGIN in its text is of its transaction",
            "D(2MB) C(SHOW)",
            startup,
            vec![
                say("SET work_mem TO '1MB'; BEGIN; SET TimeZone TO 'UTC'"),
                say("ROLLBACK"),
                say("SHOW work_mem"),
                say("SET work_mem TO '1MB'; ROLLBACK; SHOW work_mem"),
                say("SHOW work_mem"),
            ],
        ),
        (
            "with the session's user the role is reset",
            "D(other,other)",
            vec![("options", "-c role=other")],
            vec![
                say("SET ROLE NONE; RESET SESSION AUTHORIZATION"),
                say(WHO),
                say("SET SESSION AUTHORIZATION app"),
                say(WHO),
                say("BEGIN; SET SESSION AUTHORIZATION DEFAULT"),
                say(WHO),
                say("ROLLBACK"),
                say(WHO),
                say("BEGIN; SET LOCAL SESSION AUTHORIZATION DEFAULT"),
                say(WHO),
                say("COMMIT"),
                say(WHO),
            ],
        ),
        (
            "what is discarded stays so, whatever fails behind it",
            "C(DISCARD ALL) 1 E(S=ERROR V=ERROR C=22012",
            Vec::new(),
            vec![
                say("SET work_mem TO '1MB'; SET IntervalStyle TO postgres; SET ROLE other"),
                turn(
                    [
                        &in_extended("DISCARD ALL")[..],
                        &in_extended("SELECT 1/0"),
                        &[Act::Sync],
                    ]
                    .concat(),
                ),
                say("SHOW work_mem; SHOW IntervalStyle; SELECT current_user"),
            ],
        ),
        (
            "transactions behind a DISCARD ALL in its cycle begin as the client began with",
            "C(DISCARD ALL) 1 2 D(on,repeatable read) C(SELECT 1) 1 2 E(S=ERROR V=ERROR C=25006",
            vec![
                ("default_transaction_read_only", "on"),
                (
                    "options",
                    "-c default_transaction_isolation=repeatable\\ read",
                ),
            ],
            vec![
                say("SET default_transaction_isolation TO serializable; SET work_mem TO '1MB'"),
                turn(
                    [
                        &in_extended("DISCARD ALL")[..],
                        &in_extended(
                            "SELECT current_setting('transaction_read_only'), \
                             current_setting('transaction_isolation')",
                        ),
                        &in_extended("DELETE FROM note"),
                        &[Act::Sync],
                    ]
                    .concat(),
                ),
                say("SHOW transaction_read_only; SHOW work_mem"),
            ],
        ),
        (
            "what the last of some statements has prepared stays when their commit fails",
            "C=42P05",
            Vec::new(),
            vec![
                say("INSERT INTO child VALUES (1); PREPARE s AS SELECT $1::int * 2"),
                flushed(vec![parse("s", "DISCARD PLANS"), Act::Flush]),
                turn(vec![Act::Sync]),
                say("INSERT INTO child VALUES (1); DEALLOCATE s"),
                say("EXECUTE s (1)"),
                say(
                    "INSERT INTO child VALUES (1); INSERT INTO child VALUES (1); PREPARE s AS SELECT 3",
                ),
                say("EXECUTE s"),
            ],
        ),
        (
            "what the last of them has taken back with all others stays gone",
            "C(INSERT 0 1) E(S=ERROR V=ERROR C=23503",
            Vec::new(),
            vec![
                turn(vec![
                    parse("s", "SELECT 7"),
                    parse("t", "SELECT 8"),
                    Act::Sync,
                ]),
                turn(vec![
                    bind("s", &[]),
                    execute(),
                    bind("t", &[]),
                    execute(),
                    Act::Sync,
                ]),
                say("INSERT INTO child VALUES (1); DEALLOCATE ALL"),
                turn(vec![
                    parse("s", "SELECT 7"),
                    bind("s", &[]),
                    execute(),
                    Act::Sync,
                ]),
                turn(vec![bind("t", &[]), execute(), Act::Sync]),
            ],
        ),
        (
            "what a text has taken back is gone whatever a replica says behind it",
            "C(DEALLOCATE) E(S=ERROR V=ERROR C=42P01",
            Vec::new(),
            vec![
                say("PREPARE s AS SELECT 1"),
                say("DEALLOCATE s; SELECT * FROM nowhere"),
                say("PREPARE s AS SELECT 2; SELECT * FROM nowhere"),
                say("EXECUTE s"),
            ],
        ),
        (
            "what a cycle parses and names in SQL has its error in its place",
            "3 E(S=ERROR V=ERROR C=42601",
            Vec::new(),
            vec![
                flushed(vec![
                    Act::CloseStatement("t"),
                    parse("s", "SELECT 'x"),
                    parse("t", "EXECUTE s(3)"),
                    Act::Flush,
                ]),
                turn(vec![Act::Sync]),
                turn(vec![
                    parse("s", one),
                    parse("t", "EXECUTE s(3)"),
                    bind("t", &[]),
                    execute(),
                    Act::CloseStatement("s"),
                    parse("s", NOTES),
                    bind("t", &[]),
                    execute(),
                    Act::Sync,
                ]),
                turn(vec![bind("s", &["2"]), execute(), Act::Sync]),
            ],
        ),
        (
            "a ROLLBACK ahead of a Flush counts for what is parsed behind it",
            "1 2 C(INSERT 0 1)",
            Vec::new(),
            vec![
                say("BEGIN; SELECT 1/0"),
                flushed([&in_extended("ROLLBACK")[..], &[Act::Flush]].concat()),
                turn(vec![
                    parse("t", "INSERT INTO note VALUES ($1, 'p')"),
                    bind("t", &["5"]),
                    execute(),
                    Act::Sync,
                ]),
                turn(vec![bind("t", &["6"]), execute(), Act::Sync]),
            ],
        ),
        (
            "data for no COPY is nothing, wherever it stands",
            "1 2 D(1) C(SELECT 1) Z(I)",
            Vec::new(),
            vec![
                turn(vec![parse("s", one), Act::CopyDone, Act::Sync]),
                turn(vec![
                    Act::CopyFail,
                    parse("", "SELECT 1"),
                    Act::CopyData(b"no\n".to_vec()),
                    bind("", &[]),
                    Act::CopyDone,
                    execute(),
                    Act::CopyDone,
                    Act::Sync,
                ]),
            ],
        ),
        (
            "a name is taken behind the end of a failed transaction in its text",
            "C(ROLLBACK) E(S=ERROR V=ERROR C=42P05",
            Vec::new(),
            vec![
                turn(vec![parse("s", "SELECT 7"), Act::Sync]),
                say("PREPARE u AS SELECT 7"),
                say("BEGIN; SELECT 1/0"),
                say("ROLLBACK; PREPARE s AS SELECT 8"),
                say("BEGIN; SELECT 1/0"),
                say("COMMIT; PREPARE u AS SELECT 8"),
                say("BEGIN; SELECT 1/0"),
                say("ROLLBACK; DEALLOCATE s; PREPARE s AS SELECT 9; EXECUTE s"),
                say("EXECUTE u"),
                turn(vec![bind("s", &[]), execute(), Act::Sync]),
            ],
        ),
        (
            "a second BEGIN has modes that count",
            "C=25001 M=there is already a transaction in progress) C(BEGIN) Z(T)",
            Vec::new(),
            vec![
                say("BEGIN READ ONLY"),
                say("BEGIN ISOLATION LEVEL SERIALIZABLE, READ WRITE"),
                say("INSERT INTO note VALUES (5, 'w')"),
                say("COMMIT"),
                say("BEGIN READ ONLY"),
                say("BEGIN"),
                say("INSERT INTO note VALUES (6, 'w')"),
                say("ROLLBACK"),
                say("BEGIN READ ONLY"),
                say("SET TRANSACTION READ WRITE"),
                say("INSERT INTO note VALUES (7, 'w')"),
                say("COMMIT"),
            ],
        ),
        (
            "what SQL has prepared is closed in a failed transaction too",
            "E(S=ERROR V=ERROR C=26000 M=prepared statement \"s\" does not exist)",
            Vec::new(),
            vec![
                say("PREPARE s AS SELECT $1::int * 2"),
                say("BEGIN"),
                say("SELECT nothing()"),
                turn(
                    [
                        &in_extended("SELECT 1")[..],
                        &[Act::CloseStatement("s"), Act::Sync],
                    ]
                    .concat(),
                ),
                turn(vec![Act::CloseStatement("s"), Act::Sync]),
                turn(vec![Act::DescribeStatement("s"), Act::Sync]),
                say("ROLLBACK"),
                say("PREPARE s AS SELECT 3"),
                say("EXECUTE s"),
            ],
        ),
        (
            "a name that a portal gives by PREPARE is taken behind it",
            "C=42P05",
            Vec::new(),
            vec![turn(
                [
                    &in_extended("PREPARE s AS SELECT $1::int * 2")[..],
                    &[
                        parse("s", "DELETE FROM note WHERE id = 1"),
                        bind("s", &[]),
                        execute(),
                        Act::Sync,
                    ],
                ]
                .concat(),
            )],
        ),
        (
            "what a portal has changed that has not ended is seen behind a Parse",
            "D(1) s",
            Vec::new(),
            {
                let change = "UPDATE note SET text = text || 'u' WHERE id <> $1 RETURNING id";
                let some = |id| [parse("t", change), bind("t", &[id]), run("", 1)];
                let two = [&some("0")[..], &[Act::CloseStatement("t")], &some("3")].concat();
                vec![
                    flushed([two, vec![Act::Flush]].concat()),
                    turn(vec![Act::Sync]),
                ]
            },
        ),
    ]
}

/// On the primary SQL has named what the protocol has prepared, and a cycle has begun.
fn named_by_sql() -> Vec<Turn> {
    vec![
        turn(vec![parse("s", "SELECT 7"), Act::Sync]),
        say("BEGIN"),
        say("INSERT INTO note VALUES (5, 'primary'); EXECUTE s"),
        flushed(vec![Act::DescribeStatement("s"), Act::Flush]),
    ]
}

fn turn(acts: Vec<Act>) -> Turn {
    Turn::new(acts, Wait::Ready)
}

fn flushed(acts: Vec<Act>) -> Turn {
    Turn::new(acts, Wait::Flushed)
}

fn say(sql: &str) -> Turn {
    turn(vec![Act::Query(sql.to_owned())])
}

fn parse(name: &'static str, sql: &str) -> Act {
    Act::Parse {
        name,
        sql: sql.to_owned(),
    }
}

fn bind(statement: &'static str, parameters: &[&str]) -> Act {
    open("", statement, parameters)
}

fn open(portal: &'static str, statement: &'static str, parameters: &[&str]) -> Act {
    Act::Bind {
        portal,
        statement,
        parameters: parameters.iter().map(|&text| text.to_owned()).collect(),
        results: Format::Text,
    }
}

fn execute() -> Act {
    run("", 0)
}

fn run(portal: &'static str, rows: u32) -> Act {
    Act::Execute { portal, rows }
}
