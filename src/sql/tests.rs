//! Tables of (text, what it does), and properties over generated texts.

use proptest::prelude::*;

use super::*;
use Class::{Anywhere, PrimaryRead, Read, Write};

fn classifier() -> Classifier {
    Classifier::new(
        1 << 20,
        &["harmless".to_owned(), "app.also_harmless".to_owned()],
    )
}

fn decide(text: &str) -> Decision {
    Decision::clone(&classifier().classify(text.as_bytes()).decision)
}

fn assert_class(class: Class, texts: &[&str]) {
    let classifier = classifier();
    for text in texts {
        let decision = classifier.classify(text.as_bytes()).decision;
        assert_eq!(decision.class, class, "{text}: {:?}", decision.reason);
    }
}

fn assert_effects(class: Class, effects: &[Effect], texts: &[&str]) {
    for text in texts {
        let decision = decide(text);
        assert_eq!(decision.class, class, "{text}: {:?}", decision.reason);
        assert_eq!(&*decision.effects, effects, "{text}");
    }
}

fn pin(reason: PinReason) -> [Effect; 1] {
    [Effect::Pin(reason)]
}

fn set(name: &str, value: &str) -> Effect {
    Effect::Set {
        name: name.into(),
        value: Some(value.into()),
    }
}

fn set_exactly(name: &str, value: &str) -> Effect {
    Effect::SetExactly {
        name: name.into(),
        value: value.into(),
    }
}

fn set_default(name: &str) -> Effect {
    Effect::Set {
        name: name.into(),
        value: None,
    }
}

#[test]
fn code_of_the_user_s_is_told_from_syntax() {
    let runs_code = |sql: &str| decide(sql).code > Code::None;
    for sql in [
        "SELECT run()",
        "SELECT a FROM t WHERE key(a) = 1",
        "SELECT join(1), set(2), filter(3)",
        "SELECT 1 + over(1)",
        "SELECT \"in\"(1)",
        "SELECT app.lower('a')",
        "INSERT INTO t VALUES (freeze(1))",
        "CALL p()",
        "DO 'BEGIN END'",
    ] {
        assert!(runs_code(sql), "{sql}");
    }
    for sql in [
        "SELECT lower('a'), count(*) FILTER (WHERE a > 1) OVER (PARTITION BY (b)) FROM t",
        "SELECT a FROM t JOIN (SELECT 1) u USING (a) LEFT JOIN (VALUES (1)) v ON (true) WHERE a IN (1) AND NOT (b)",
        "WITH w AS NOT MATERIALIZED (SELECT 1), x AS (SELECT 2) SELECT CAST(a AS numeric(3)) FROM w ORDER BY (a)",
        "SELECT a FROM t WHERE b LIKE ('a') OR EXISTS (SELECT 1) GROUP BY GROUPING SETS ((a), ())",
        "INSERT INTO t (a) VALUES (coalesce(1, 2)) ON CONFLICT (a) DO UPDATE SET (a, b) = (1, 2) RETURNING (a)",
        "SELECT extract(year FROM now()), trim(both from 'a'), a::varchar(3), ROW(1, 2), ARRAY(SELECT 1)",
    ] {
        assert!(!runs_code(sql), "{sql}");
    }
}

#[test]
fn reads() {
    assert_class(
        Read,
        &[
            "SELECT 1",
            "select * from users where id = $1",
            "SELECT u.id, count(*) FILTER (WHERE p.x > 1) FROM users u LEFT JOIN posts p ON p.uid = u.id GROUP BY 1 HAVING count(*) > 2 ORDER BY 2 DESC NULLS LAST LIMIT 10 OFFSET 5",
            "(SELECT 1) UNION ALL (SELECT 2) EXCEPT SELECT 3",
            "WITH RECURSIVE t(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM t WHERE n < 5) SELECT sum(n) FROM t",
            "WITH a AS MATERIALIZED (SELECT 1) SELECT * FROM a",
            "VALUES (1, 'a'), (2, 'b')",
            "TABLE users",
            "TABLE app.users",
            "TABLE ONLY app.users",
            "SELECT abalance FROM pgbench_accounts WHERE aid = -5;",
            "SELECT \"update\", \"into\" FROM \"delete\" AS \"insert\"",
            "SELECT coalesce(a, b), nullif(a, 'x'), greatest(1, 2), least(1, 2) FROM t",
            "SELECT extract(year FROM now()), substring('abc' from 1 for 2), trim(both ' ' from x), position('a' in b), overlay(a placing b from 1 for 2) FROM t",
            "SELECT current_timestamp, current_date, current_user, session_user, localtime, current_schema",
            "SELECT CAST(a AS int), b::numeric(10, 2), c::text[], DATE '2020-01-01', INTERVAL '1 day' FROM t",
            "SELECT row_number() OVER (PARTITION BY a ORDER BY b ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM t",
            "SELECT rank() OVER w FROM t WINDOW w AS (ORDER BY x)",
            "SELECT * FROM generate_series(1, 10) AS g(i)",
            "SELECT * FROM generate_series(1, 10) WITH ORDINALITY AS g(i, n)",
            "SELECT * FROM t, LATERAL unnest(t.tags) AS tag",
            "SELECT * FROM jsonb_to_recordset('[]') AS x(a int, b text)",
            "SELECT data->>'a', data #>> '{b,c}', data @> '{}', data ? 'k' FROM t",
            "SELECT a[1], a[1:2], (b).lower, t.c, s.t.c FROM t",
            "SELECT a OPERATOR(+) b FROM t",
            "EXPLAIN SELECT set_config('a', 'b', true)",
            "SELECT ARRAY[1,2,3], ARRAY(SELECT id FROM t)",
            "SELECT a FROM t WHERE (a, b) IN ((1, 2), (3, 4)) AND c = ANY($1) AND d LIKE 'x%' ESCAPE '!'",
            "SELECT EXISTS (SELECT 1 FROM t) AS \"exists\"",
            "SELECT CASE WHEN a THEN 1 ELSE 2 END FROM t",
            "SELECT DISTINCT ON (a) a, b FROM t ORDER BY a, b",
            "SELECT string_agg(x, ',' ORDER BY y), percentile_cont(0.5) WITHIN GROUP (ORDER BY z) FROM t",
            "SELECT random(), gen_random_uuid(), clock_timestamp(), pg_sleep(1)",
            "SELECT harmless(1), app.harmless(1), app.also_harmless(2)",
            "SELECT pg_catalog.lower('A'), \"lower\"('A')",
            "SELECT * FROM pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relname OPERATOR(pg_catalog.~) '^(t)$' COLLATE pg_catalog.default",
            "SELECT * FROM information_schema.tables",
            "SELECT * FROM pg_settings",
            "SELECT * FROM pg_stats",
            "SELECT last_value FROM my_seq",
            "SELECT format_type(a.atttypid, a.atttypmod) FROM pg_attribute a",
            "SELECT t.* FROM t FETCH FIRST 5 ROWS ONLY",
            "SELECT * FROM t TABLESAMPLE bernoulli (10)",
            "SELECT 'it''s', E'a\\'b', $$dollar; 'quote$$, $x$ $$ $x$, U&'\\0041', B'101', X'1F'",
            "SELECT 'a'\n'b'",
            "SELECT 'C:\\dir', '\\\\'",
            "SELECT a AS \"é\" FROM tëst WHERE ñ = 'ü'",
            "SELECT a AT TIME ZONE 'UTC' FROM t",
            "EXPLAIN SELECT 1",
            "EXPLAIN (ANALYZE, BUFFERS) SELECT 1",
            "EXPLAIN ANALYZE VERBOSE SELECT 1",
            "COPY users TO STDOUT",
            "COPY app.users (a, b) TO STDOUT WITH (FORMAT csv)",
            "COPY (SELECT * FROM users) TO STDOUT",
            "DECLARE c CURSOR FOR SELECT 1",
            "DECLARE c BINARY INSENSITIVE NO SCROLL CURSOR WITHOUT HOLD FOR SELECT 1",
            "SELECT 1 /* UPDATE */ -- FOR UPDATE\n",
            "SELECT set_config('a.b', 'x', true), id FROM t",
            "SELECT sum(a) FROM t WHERE b BETWEEN 1 AND 2 AND c IS NOT NULL AND d IS DISTINCT FROM 4",
            "SELECT nested.x FROM (SELECT 1 AS x) AS nested JOIN LATERAL (SELECT 2) y ON true",
            "SELECT a FROM t GROUP BY GROUPING SETS ((a), ()), ROLLUP (a), CUBE (b)",
            "SELECT 1 WHERE a <> 2 AND b != 3 AND c !~~ 'x' AND d ~* 'y' AND e @@ f",
            "SELECT make_interval(days => 10), make_interval(days := 10)",
            "SELECT 1; SELECT 2",
            "SELECT 1;;",
        ],
    );
}

#[test]
fn writes() {
    assert_class(
        Write,
        &[
            "INSERT INTO t VALUES (1)",
            "insert into t select 1",
            "UPDATE t SET a = 1",
            "DELETE FROM t",
            "MERGE INTO t USING s ON t.a = s.a WHEN MATCHED THEN DELETE",
            "WITH a AS (DELETE FROM t RETURNING *) SELECT * FROM a",
            "WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a",
            "WITH a AS (SELECT 1), b AS NOT MATERIALIZED (UPDATE t SET x = 1 RETURNING *) SELECT * FROM b",
            "SELECT * FROM (WITH x AS (INSERT INTO t VALUES (1) RETURNING *) SELECT * FROM x) y",
            "SELECT * FROM t FOR UPDATE",
            "SELECT * FROM t FOR NO KEY UPDATE SKIP LOCKED",
            "SELECT * FROM t FOR SHARE",
            "SELECT * FROM t FOR KEY SHARE",
            "SELECT * FROM (SELECT * FROM t FOR UPDATE) x",
            "SELECT * FROM t FOR /* hidden */ UPDATE",
            "SELECT * INTO n FROM t",
            "SELECT nextval('s')",
            "SELECT pg_catalog.nextval('s')",
            "SELECT NEXTVAL('s')",
            "SELECT \"nextval\"('s')",
            "SELECT setval('s', 1)",
            "SELECT currval('s'), lastval()",
            "SELECT my_function()",
            "SELECT app.harmless2()",
            "SELECT app.lower('x')",
            "SELECT also_harmless(1)",
            "SELECT \"LOWER\"('x')",
            "SELECT lower\u{a0}('x')",
            "SELECT * FROM my_function() AS f",
            "SELECT * FROM ROWS FROM (my_function(), generate_series(1, 2)) AS f",
            "SELECT * FROM t WHERE a = my_function()",
            "SELECT DISTINCT ON (a) my_function() FROM t",
            "SELECT a OPERATOR(pg_catalog.+) my_function() FROM t",
            "SELECT 1 ORDER BY my_function()",
            "SELECT 1 LIMIT my_function()",
            "SELECT 1 OFFSET my_function()",
            "SELECT a[my_function()] FROM t",
            "SELECT count(*) FILTER (WHERE my_function()) FROM t",
            "SELECT sum(a) OVER (ORDER BY my_function()) FROM t",
            "SELECT 1 FROM t WINDOW w AS (PARTITION BY my_function())",
            "SELECT CASE WHEN true THEN my_function() END",
            "SELECT 1 FROM t JOIN s ON my_function()",
            "SELECT 1 FROM t GROUP BY my_function()",
            "SELECT 1 FROM t GROUP BY a HAVING my_function()",
            "SELECT (my_function()).x",
            "SELECT string_agg(a, b ORDER BY my_function()) FROM t",
            "SELECT * FROM t TABLESAMPLE bernoulli (my_function())",
            "VALUES (my_function())",
            "SELECT 1 IN (SELECT my_function())",
            "SELECT INTERVAL '1 day' * my_function()",
            "SELECT a <+++> b FROM t",
            "SELECT ('s'::regclass).nextval",
            "SELECT r.nextval FROM regclass('s') r",
            "SELECT r.\"nextval\" FROM regclass('s') r",
            "SELECT (t).my_function FROM t",
            "SELECT a[1].my_function FROM t",
            "SELECT a OPERATOR(app.+) b FROM t",
            "SELECT pg_current_xact_id(), txid_current()",
            "SELECT query_to_xml('DELETE FROM t', true, true, '')",
            "SELECT lo_create(0)",
            "SELECT pg_notify('a', 'b')",
            "SELECT pg_advisory_xact_lock(1)",
            "SELECT pg_advisory_unlock(1)",
            "SELECT pg_cancel_backend(1)",
            "EXPLAIN ANALYZE INSERT INTO t VALUES (1)",
            "EXPLAIN (VERBOSE, ANALYZE true) DELETE FROM t",
            "EXPLAIN (ANALYZE off, ANALYZE) DELETE FROM t",
            "EXPLAIN (\"analyze\") DELETE FROM t",
            "EXPLAIN INSERT INTO t VALUES (1)",
            "EXPLAIN (ANALYZE off, COSTS off) DELETE FROM t",
            "COPY t TO '/tmp/x'",
            "COPY t TO PROGRAM 'cat'",
            "COPY (DELETE FROM t RETURNING *) TO STDOUT",
            "COPY (SELECT my_function()) TO STDOUT",
            "COPY t FROM '/tmp/x'",
            "CALL p()",
            "LOCK TABLE t",
            "TRUNCATE t",
            "NOTIFY a, 'b'",
            "VACUUM FULL t",
            "ANALYZE",
            "REINDEX TABLE t",
            "CLUSTER",
            "CHECKPOINT",
            "REFRESH MATERIALIZED VIEW m",
            "COMMIT PREPARED 'x'",
            "ROLLBACK PREPARED 'x'",
            "DECLARE c CURSOR FOR SELECT * FROM t FOR UPDATE",
            "DO $$ BEGIN UPDATE t SET a = 1; END $$",
            "SELECT 1; DELETE FROM t",
            "DELETE FROM t; SELECT 1",
            "SELECT 1_000",
            "SELECT 'unterminated",
            "SELECT (",
        ],
    );
}

#[test]
fn plain_writes_have_no_effects() {
    for text in [
        "INSERT INTO t VALUES ('a'), ($1)",
        "UPDATE t SET set = 'x'",
        "SELECT my_function()",
        "SELECT XMLELEMENT(NAME a, XMLATTRIBUTES(b))",
        "SELECT * FROM t FOR UPDATE",
        "CREATE TABLE t (temp int)",
        "CREATE TABLE \"pg_temp\" (a int)",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT CASE 1 WHEN 1 THEN 2 END; SELECT 2; END",
        "CREATE RULE r AS ON INSERT TO t DO ALSO (DELETE FROM s; DELETE FROM u)",
        "DO $$ BEGIN UPDATE t SET a = 1; IF true THEN PERFORM 1; END IF; END $$",
        "DO LANGUAGE plpgsql $x$BEGIN NULL; END$x$",
        "VACUUM",
        "SELECT pg_advisory_xact_lock(1)",
    ] {
        let decision = decide(text);
        assert_eq!(
            (decision.class, &*decision.effects),
            (Write, &[][..]),
            "{text}"
        );
        assert_eq!(decision.statements, 1, "{text}");
    }
}

#[test]
fn answers_of_the_primary_only() {
    assert_class(
        PrimaryRead,
        &[
            "SHOW transaction_read_only",
            "show \"in_hot_standby\"",
            "SELECT pg_is_in_recovery()",
            "SELECT * FROM pg_stat_activity",
            "SELECT * FROM pg_catalog.pg_stat_replication",
            "SELECT count(*) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation",
            "SELECT relname FROM pg_statio_user_tables",
            "SELECT pg_stat_get_numscans(1)",
            "SELECT inet_server_addr(), pg_backend_pid()",
            "SELECT pg_export_snapshot()",
            "SELECT pg_current_wal_lsn()",
            "TABLE pg_prepared_xacts",
            "COPY pg_locks TO STDOUT",
            "EXPLAIN SELECT * FROM pg_locks",
            "SELECT * FROM pg_temp.x",
            "FETCH ALL FROM c",
            "MOVE 5 IN c",
            "CLOSE c",
            "SET CONSTRAINTS ALL DEFERRED",
            "SELECT current_setting('transaction_read_only')",
            "SELECT current_setting($1)",
            "SELECT pg_catalog.current_setting( $2 , true) FROM t",
            "SELECT pg_catalog.current_setting('In_Hot_Standby', true)::bool",
            "SELECT setting FROM pg_settings WHERE name = 'in_hot_standby'",
        ],
    );
    assert_class(
        Read,
        &[
            "SELECT * FROM app.pg_locks",
            "SELECT * FROM \"PG_LOCKS\"",
            "SELECT current_setting('search_path')",
            "SELECT current_setting('app.' || name) FROM t",
            "SELECT setting FROM pg_settings WHERE name = 'work_mem'",
        ],
    );
}

#[test]
fn statements_that_want_a_database_for_themselves_name_it() {
    let table = [
        ("DROP DATABASE a", Some("a")),
        ("drop database if exists \"A b\" WITH (FORCE)", Some("A b")),
        ("ALTER DATABASE a RENAME TO b", Some("a")),
        ("ALTER DATABASE a SET TABLESPACE s", Some("a")),
        ("CREATE DATABASE a", Some("template1")),
        (
            "CREATE DATABASE a OWNER o TEMPLATE = t1 ENCODING 'x'",
            Some("t1"),
        ),
        ("CREATE DATABASE a TEMPLATE 't 1'", Some("t 1")),
        ("CREATE DATABASE a TEMPLATE DEFAULT", Some("template1")),
        ("ALTER DATABASE a SET work_mem TO '1MB'", None),
        ("ALTER DATABASE a OWNER TO b", None),
        ("DROP TABLE database", None),
        ("DROP DATABASE", None),
    ];
    for (text, expected) in table {
        let decision = decide(text);
        let wants = decision.effects.iter().find_map(|effect| match effect {
            Effect::Vacate(name) => Some(&**name),
            _ => None,
        });
        assert_eq!(wants, expected, "{text}");
        assert!(decision.is_ddl, "{text}");
    }
}

#[test]
fn empty_texts_need_nothing() {
    for text in ["", " \n ", "-- nothing", "/* /* a */ */", ";", " ; ;"] {
        let decision = decide(text);
        assert_eq!(
            (decision.class, decision.statements),
            (Anywhere, 0),
            "{text:?}"
        );
    }
}

#[test]
fn transaction_control() {
    let begin = |begin| [Effect::Begin(begin)];
    assert_effects(
        Anywhere,
        &begin(Begin::default()),
        &[
            "BEGIN",
            "begin;",
            "BEGIN WORK",
            "BEGIN TRANSACTION",
            "START TRANSACTION",
        ],
    );
    assert_effects(
        Anywhere,
        &begin(Begin {
            read_only: Some(true),
            isolation: Some(Isolation::RepeatableRead),
            deferrable: Some(false),
        }),
        &[
            "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY, NOT DEFERRABLE",
            "START TRANSACTION READ ONLY NOT DEFERRABLE ISOLATION LEVEL REPEATABLE READ",
        ],
    );
    assert_effects(
        Anywhere,
        &begin(Begin {
            isolation: Some(Isolation::Serializable),
            read_only: Some(false),
            deferrable: Some(true),
        }),
        &["BEGIN READ ONLY, READ WRITE ISOLATION LEVEL SERIALIZABLE DEFERRABLE"],
    );
    let plain = Effect::Commit { chain: false };
    assert_effects(
        Anywhere,
        &[plain],
        &[
            "COMMIT",
            "END",
            "END TRANSACTION",
            "COMMIT WORK AND NO CHAIN",
        ],
    );
    assert_effects(
        Anywhere,
        &[Effect::Commit { chain: true }],
        &["COMMIT AND CHAIN"],
    );
    assert_effects(
        Anywhere,
        &[Effect::Rollback { chain: false }],
        &["ROLLBACK", "ABORT", "rollback transaction", "ABORT WORK"],
    );
    assert_effects(
        Anywhere,
        &[Effect::Rollback { chain: true }],
        &["ROLLBACK AND CHAIN"],
    );
    assert_effects(
        Anywhere,
        &[Effect::Savepoint("s1".into())],
        &["SAVEPOINT S1", "savepoint \"s1\""],
    );
    assert_effects(
        Anywhere,
        &[Effect::Release("A".into())],
        &["RELEASE \"A\"", "RELEASE SAVEPOINT \"A\""],
    );
    assert_effects(
        Anywhere,
        &[Effect::RollbackTo("s".into())],
        &[
            "ROLLBACK TO s",
            "ROLLBACK WORK TO SAVEPOINT s",
            "ROLLBACK TRANSACTION TO SAVEPOINT S",
        ],
    );
    assert_effects(
        Write,
        &[Effect::PrepareTransaction],
        &["PREPARE TRANSACTION 'x'"],
    );
    assert_effects(
        Write,
        &pin(PinReason::Unknown),
        &["BEGIN SIDEWAYS", "COMMIT MAYBE", "SAVEPOINT", "START"],
    );
}

#[test]
fn settings() {
    let table = [
        ("SET work_mem TO '64MB'", set("work_mem", "'64MB'")),
        ("SET Work_Mem = 64", set("work_mem", "64")),
        ("SET SESSION a.b = on", set("a.b", "on")),
        (
            "SET search_path TO a, \"B\", 'c d'",
            set("search_path", "a, \"B\", 'c d'"),
        ),
        (
            "SET extra_float_digits = -3",
            set("extra_float_digits", "-3"),
        ),
        ("SET DateStyle TO ISO, MDY", set("datestyle", "ISO, MDY")),
        ("SET x TO 'it''s'", set("x", "'it''s'")),
        ("SET x TO $$a'b\\c$$", set("x", "E'a''b\\\\c'")),
        ("SET x TO E'a\\nb'", set("x", "E'a\\nb'")),
        (
            "SET causeway.consistency = 'eventual'",
            set("causeway.consistency", "'eventual'"),
        ),
        ("SET \"myapp.user_id\" TO '5'", set("myapp.user_id", "'5'")),
        ("SET myapp.\"user\" TO 5", set("myapp.user", "5")),
        ("SET session.x TO 5", set("session.x", "5")),
        ("SET x TO DEFAULT", set_default("x")),
        ("SET TIME ZONE 'UTC'", set("timezone", "'UTC'")),
        ("SET TIME ZONE -7", set("timezone", "-7")),
        ("SET TIME ZONE LOCAL", set_default("timezone")),
        ("SET TIME ZONE DEFAULT", set_default("timezone")),
        (
            "SET TIME ZONE INTERVAL '-08:00' HOUR TO MINUTE",
            set("timezone", "'INTERVAL ''-08:00'''"),
        ),
        ("SET NAMES 'UTF8'", set("client_encoding", "'UTF8'")),
        ("SET NAMES", set_default("client_encoding")),
        ("SET SCHEMA 'app'", set("search_path", "'app'")),
        ("SET XML OPTION DOCUMENT", set("xmloption", "'document'")),
        (
            "SET LOCAL work_mem = 5",
            Effect::SetLocal {
                name: "work_mem".into(),
            },
        ),
        (
            "SET LOCAL TIME ZONE 'UTC'",
            Effect::SetLocal {
                name: "timezone".into(),
            },
        ),
        (
            "SET TRANSACTION READ ONLY",
            Effect::SetTransaction {
                read_only: Some(true),
            },
        ),
        (
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
            Effect::SetTransaction { read_only: None },
        ),
        (
            "SET transaction_read_only = off",
            Effect::SetTransaction {
                read_only: Some(false),
            },
        ),
        ("RESET work_mem", Effect::Reset("work_mem".into())),
        ("RESET TIME ZONE", Effect::Reset("timezone".into())),
        (
            "RESET SESSION AUTHORIZATION",
            Effect::Reset("session_authorization".into()),
        ),
        ("RESET ROLE", Effect::Reset("role".into())),
        ("RESET ALL", Effect::ResetAll),
        ("SHOW search_path", Effect::Show("search_path".into())),
        ("SHOW TIME ZONE", Effect::Show("timezone".into())),
        (
            "show CAUSEWAY.last_route;",
            Effect::Show("causeway.last_route".into()),
        ),
        (
            "SHOW TRANSACTION ISOLATION LEVEL",
            Effect::Show("transaction_isolation".into()),
        ),
        ("DISCARD ALL", Effect::DiscardAll),
        ("DISCARD TEMPORARY", Effect::Discard(DiscardKind::Temp)),
        ("DISCARD PLANS", Effect::Discard(DiscardKind::Plans)),
        ("DEALLOCATE p", Effect::Deallocate(Some("p".into()))),
        ("DEALLOCATE PREPARE ALL", Effect::Deallocate(None)),
        (
            "SELECT set_config('causeway.token', $2::text, false)",
            Effect::SetGiven {
                name: "causeway.token".into(),
                parameter: 2,
            },
        ),
        ("SELECT set_config('x', 'y', false)", set("x", "'y'")),
        (
            "SELECT pg_catalog.set_config('search_path'::text, '', false) AS a",
            set_exactly("search_path", ""),
        ),
        (
            "SELECT set_config('search_path', 'a, \"B\"', false)",
            set_exactly("search_path", "a, \"B\""),
        ),
        (
            "SELECT current_setting('jit') AS cur, set_config('jit', 'off', false) AS new",
            set("jit", "'off'"),
        ),
        ("SELECT set_config('x', NULL, false)", set_default("x")),
        ("SET LOCAL x TO DEFAULT", Effect::ResetLocal("x".into())),
        (
            "SELECT set_config('x', $1, true)",
            Effect::SetLocal { name: "x".into() },
        ),
    ];
    for (text, effect) in table {
        assert_effects(Anywhere, &[effect], &[text]);
    }
    assert_effects(
        PrimaryRead,
        &[Effect::Discard(DiscardKind::Sequences)],
        &["DISCARD SEQUENCES"],
    );
    // They name an object that the session may just have created.
    let table = [
        ("SET ROLE bob", set("role", "bob")),
        ("SET ROLE NONE", set("role", "NONE")),
        ("SET SESSION ROLE 'Bob'", set("role", "'Bob'")),
        (
            "SET SESSION AUTHORIZATION 'bob'",
            set("session_authorization", "'bob'"),
        ),
        (
            "SET SESSION SESSION AUTHORIZATION bob",
            set("session_authorization", "bob"),
        ),
        (
            "SET SESSION AUTHORIZATION DEFAULT",
            set_default("session_authorization"),
        ),
        (
            "SET LOCAL ROLE bob",
            Effect::SetLocal {
                name: "role".into(),
            },
        ),
        (
            "SET default_tablespace = 'new'",
            set("default_tablespace", "'new'"),
        ),
    ];
    for (text, effect) in table {
        assert_effects(Read, &[effect], &[text]);
    }
    assert_effects(
        Read,
        &[set("x", "'1'"), set("role", "'bob'")],
        &["SELECT set_config('x', '1', false), set_config('role', 'bob', false)"],
    );
    assert_effects(
        Anywhere,
        &[
            set("default_transaction_isolation", "'serializable'"),
            set("default_transaction_read_only", "on"),
        ],
        &["SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY, ISOLATION LEVEL SERIALIZABLE"],
    );
    assert_effects(
        Anywhere,
        &[set("a", "'1'"), Effect::SetLocal { name: "b".into() }],
        &["SELECT set_config('a', '1', false), set_config('b', '2', true)"],
    );
}

#[test]
fn no_replica_has_transactions_that_write_or_are_serializable() {
    for (text, read_only) in [
        ("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", None),
        ("SET TRANSACTION READ WRITE", Some(false)),
        (
            "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY",
            Some(true),
        ),
    ] {
        let effects = [Effect::SetTransaction { read_only }];
        assert_effects(Class::PrimaryRead, &effects, &[text]);
    }
}

#[test]
fn settings_that_cannot_be_followed_pin() {
    assert_effects(
        Write,
        &pin(PinReason::Unknown),
        &[
            "SET x TO 'a\\b'",
            "SET x TO U&'\\0041'",
            "SET x",
            "SET x TO y z",
            "SET TIME ZONE INTERVAL '5' HOUR",
            "SELECT set_config('x', $1, false)",
            "SELECT set_config($1, 'y', false)",
            "SELECT set_config('causeway.token', $0, false)",
            "SELECT set_config('causeway.token', $70000, false)",
            "SELECT set_config('causeway.token', $1::int, false)",
            "SELECT set_config('x', 'y', $1)",
            "SELECT set_config('x', a, false) FROM t",
            "SELECT set_config('x', 'y', false) FROM t",
            "SELECT lower(set_config('x', 'y', false))",
            "INSERT INTO t SELECT set_config('x', 'y', false)",
            "SELECT \"set_config\"('x', 'y' || 'z', false)",
            "SELECT setseed(0.5)",
            "SELECT pg_backup_start('x')",
        ],
    );
}

#[test]
fn what_stays_in_the_session_pins() {
    let temporary = pin(PinReason::TemporaryTable);
    assert_effects(
        Write,
        &temporary,
        &[
            "CREATE TEMP TABLE t (a int)",
            "create temporary table t as select 1",
            "CREATE LOCAL TEMPORARY TABLE t (a int)",
            "CREATE OR REPLACE TEMP VIEW v AS SELECT 1",
            "CREATE TEMP SEQUENCE s",
            "CREATE TABLE pg_temp.t (a int)",
            "SELECT 1 INTO TEMP t",
            "SELECT 1 AS a INTO TEMPORARY TABLE t",
        ],
    );
    assert_effects(
        Write,
        &pin(PinReason::AdvisoryLock),
        &[
            "SELECT pg_advisory_lock(1)",
            "SELECT PG_CATALOG.pg_try_advisory_lock($1, $2)",
            "SELECT \"pg_advisory_lock_shared\"(id) FROM t",
            "SELECT 1 FROM t WHERE pg_try_advisory_lock_shared(t.id)",
            "UPDATE t SET a = 1 WHERE pg_advisory_lock(2) IS NULL",
            "WITH l AS (SELECT pg_advisory_lock(1)) SELECT * FROM l",
            "SELECT (1::bigint).pg_advisory_lock",
        ],
    );
    assert_effects(Write, &pin(PinReason::Load), &["LOAD 'auto_explain'"]);
    assert_effects(
        Write,
        &pin(PinReason::SqlPrepare),
        &["PREPARE p AS SHOW a", "PREPARE"],
    );
    for (text, other) in [
        (
            "PREPARE p AS SELECT set_config('a', 'b', false)",
            PinReason::Unknown,
        ),
        (
            "PREPARE p AS SELECT pg_advisory_lock(1)",
            PinReason::AdvisoryLock,
        ),
    ] {
        let pins = [Effect::Pin(PinReason::SqlPrepare), Effect::Pin(other)];
        assert_effects(Write, &pins, &[text]);
    }
    assert_effects(
        PrimaryRead,
        &pin(PinReason::HoldCursor),
        &["DECLARE c CURSOR WITH HOLD FOR SELECT 1"],
    );
    assert_effects(
        Write,
        &[Effect::Pin(PinReason::Listen), Effect::Listen],
        &["LISTEN a", "listen \"A b\""],
    );
    assert_effects(Write, &[Effect::Unlisten { all: true }], &["UNLISTEN *"]);
    assert_effects(Write, &[Effect::Unlisten { all: false }], &["UNLISTEN a"]);
    assert_effects(
        Write,
        &pin(PinReason::Unknown),
        &[
            "FROB THE KNOB",
            "42",
            "'text'",
            "SELECT 'a\\'; SET x = 1; --'",
            "SELECT '\\''",
            "SELECT U&\"\\0073et_config\"('a', 'b', false)",
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT 2",
            "DECLARE c CURSOR FOR SELECT set_config('a', 'b', false)",
            "DO $$ BEGIN SET x = 1; END $$",
            "DO $$ BEGIN EXECUTE 'x'; END $$",
            "DO $$ BEGIN PERFORM pg_advisory_lock(1); END $$",
            "DO 'BEGIN END'",
            "DO LANGUAGE plperl $$ 1 $$",
        ],
    );
}

#[test]
fn a_text_tells_where_it_resets() {
    let found = |text: &str| -> Vec<(u32, String)> {
        let decision = decide(text);
        let resets = decision.resets.iter();
        resets
            .map(|reset| (reset.place, text[..reset.end].to_owned()))
            .collect()
    };
    let table: &[(&str, &[(u32, &str)])] = &[
        ("SET a TO 1; SELECT 1; RESET", &[]),
        ("RESET a", &[(0, "RESET a")]),
        (
            "SELECT ';'; RESET a /* ; */ ; ; SET LOCAL b TO DEFAULT -- c",
            &[
                (1, "SELECT ';'; RESET a"),
                (2, "SELECT ';'; RESET a /* ; */ ; ; SET LOCAL b TO DEFAULT"),
            ],
        ),
        (
            "(SELECT 1); SET TIME ZONE LOCAL;",
            &[(1, "(SELECT 1); SET TIME ZONE LOCAL")],
        ),
        (
            "RESET ALL;DISCARD ALL",
            &[(0, "RESET ALL"), (1, "RESET ALL;DISCARD ALL")],
        ),
    ];
    for (text, expected) in table {
        let expected: Vec<_> = expected
            .iter()
            .map(|(place, text)| (*place, (*text).to_owned()))
            .collect();
        assert_eq!(found(text), expected, "{text}");
    }
}

#[test]
fn several_statements_count_in_order() {
    let decision = decide("BEGIN; SET LOCAL x = 1; INSERT INTO t VALUES (';'); COMMIT;");
    assert_eq!((decision.class, decision.statements), (Write, 4));
    assert_eq!(
        &*decision.effects,
        &[
            Effect::Begin(Begin::default()),
            Effect::SetLocal { name: "x".into() },
            Effect::Commit { chain: false },
        ]
    );
    assert_eq!(&*decision.reason.0, "it changes rows");
    let decision = decide(
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; END; SET a = 1",
    );
    assert_eq!(
        (decision.statements, &*decision.effects),
        (2, &[set("a", "1")][..])
    );
}

#[test]
fn copy_in_and_ddl_are_marked() {
    for (text, copies_in, is_ddl) in [
        ("SELECT a INTO u FROM t", false, true),
        ("EXPLAIN ANALYZE SELECT a INTO u FROM t", false, true),
        ("INSERT INTO t VALUES (1)", false, false),
        (
            "WITH a AS (INSERT INTO t VALUES (1) RETURNING a) INSERT INTO u SELECT a FROM a",
            false,
            false,
        ),
        (
            "WITH a AS (INSERT INTO t VALUES (1) RETURNING a) SELECT a INTO u FROM a",
            false,
            true,
        ),
        ("DO $$ BEGIN INSERT INTO t VALUES (1); END $$", false, false),
        ("DO $$ BEGIN CREATE TABLE u (); END $$", false, true),
        ("DO $$ BEGIN EXECUTE 'x'; END $$", false, true),
        ("DO LANGUAGE plperl $$ 1 $$", false, true),
        ("COPY t FROM STDIN", true, false),
        ("COPY t (a, b) FROM stdin WITH (FORMAT csv)", true, false),
        ("COPY BINARY t FROM STDIN", true, false),
        ("COPY t FROM '/x'", false, false),
        ("COPY t TO STDOUT", false, false),
        ("CREATE TABLE t (a int)", false, true),
        ("ALTER TABLE t ADD b int", false, true),
        ("DROP TABLE t", false, true),
        ("GRANT SELECT ON t TO u", false, true),
        ("SELECT 1; COPY t FROM STDIN; DROP TABLE x", true, true),
    ] {
        let decision = decide(text);
        assert_eq!(
            (decision.copies_in, decision.is_ddl),
            (copies_in, is_ddl),
            "{text}"
        );
    }
}

#[test]
fn reasons_are_one_line_for_an_operator() {
    for (text, reason) in [
        ("SELECT nextval('s')", "function nextval() writes"),
        ("SELECT app.f()", "function app.f() is not known"),
        ("SELECT 1 FOR UPDATE", "it locks rows"),
        (
            "SELECT pg_is_in_recovery()",
            "function pg_is_in_recovery() is about one node",
        ),
        ("TABLE pg_locks", "pg_locks is about one node"),
        ("SELECT 1", "it only reads"),
    ] {
        assert_eq!(&*decide(text).reason.0, reason, "{text}");
    }
}

#[test]
fn texts_in_any_encoding_are_classified() {
    let classifier = classifier();
    for (text, class) in [
        (&b"SELECT '\xe9t\xe9' FROM t\xe9st"[..], Read),
        (b"SELECT \"\xff\xfe\"", Read),
        (b"SELECT f\xe9()", Write),
        (b"INSERT INTO t VALUES ('\x82\xa0')", Write),
    ] {
        assert_eq!(classifier.classify(text).decision.class, class, "{text:?}");
    }
    let decision = classifier.classify(b"SET x TO '\xe9'").decision;
    assert_eq!(&*decision.effects, &pin(PinReason::Unknown));
}

#[test]
fn long_texts_are_judged_by_their_keywords() {
    let classifier = classifier();
    let rows = "(1, 'some text'), ".repeat(300_000);
    let insert = format!("INSERT INTO t VALUES {rows}(2, 'end')");
    let decision = classifier.classify(insert.as_bytes()).decision;
    assert_eq!((decision.class, &*decision.effects), (Write, &[][..]));
    let script = format!("BEGIN; {insert}; COMMIT");
    let decision = classifier.classify(script.as_bytes()).decision;
    assert_eq!((decision.class, decision.statements), (Write, 3));
    assert_eq!(
        &*decision.effects,
        &[
            Effect::Begin(Begin::default()),
            Effect::Commit { chain: false },
        ]
    );
    let copy = format!("SELECT '{}'; COPY t FROM STDIN", "x".repeat(MAX_LONG));
    assert!(classifier.classify(copy.as_bytes()).decision.copies_in);
    let hinted = format!("{insert} /* causeway.region='eu' */");
    let hints = classifier.classify(hinted.as_bytes()).hints;
    assert_eq!(hints.and_then(|hints| hints.region).as_deref(), Some("eu"));
    let setting = format!("SET x = '{}', y", "x".repeat(MAX_LONG));
    let decision = classifier.classify(setting.as_bytes()).decision;
    assert_eq!(&*decision.effects, &pin(PinReason::Unknown));
    let pinning = format!("SELECT '{}', pg_advisory_lock(1)", "x".repeat(MAX_LONG));
    let decision = classifier.classify(pinning.as_bytes()).decision;
    assert_eq!(&*decision.effects, &pin(PinReason::AdvisoryLock));
    let unknown = format!("FROB '{}'", "x".repeat(MAX_LONG));
    let decision = classifier.classify(unknown.as_bytes()).decision;
    assert_eq!(&*decision.effects, &pin(PinReason::Unknown));
    assert_eq!(classifier.cache_bytes(), 0);
}

const MAX_LONG: usize = 100_000;

#[test]
fn equal_shapes_share_a_decision() {
    let classifier = classifier();
    let first = classifier
        .classify(b"SELECT * FROM t WHERE a = 1 AND b = 'x'")
        .decision;
    for same in [
        "select *  from T where A = 22.5e3 and b = $$y$$;",
        "SELECT * /* c */ FROM t -- d\n WHERE a = 3 AND b = E'z\\''",
    ] {
        let decision = classifier.classify(same.as_bytes()).decision;
        assert!(Arc::ptr_eq(&first, &decision), "{same}");
    }
    for other in [
        "SELECT * FROM t WHERE a = 'x' AND b = 'x'",
        "SELECT * FROM t WHERE a = b AND b = 'x'",
        "SELECT * FROM \"T\" WHERE a = 1 AND b = 'x'",
        "SELECT * FROM t WHERE a = $1 AND b = 'x'",
        "SELECT * FROM t WHERE a = -1 AND b = 'x'",
        "SELECT * FROM t WHERE a = 1 AND b = 'x'; SELECT 1",
    ] {
        let decision = classifier.classify(other.as_bytes()).decision;
        assert!(!Arc::ptr_eq(&first, &decision), "{other}");
    }
}

/// Whatever stands behind the name, PostgreSQL's own errors included: `ROW$a$` would be one word.
#[test]
fn what_execute_gives_is_cut_where_it_is_cut_alone() {
    let texts = ["EXECUTE p $a$(s$a$", "EXECUTE p $a$s$a$", "EXECUTE p 's'"];
    let decisions = texts.map(|text| {
        Classifier::new(1 << 16, &[])
            .classify(text.as_bytes())
            .decision
    });
    for (text, decision) in texts.iter().zip(&decisions) {
        assert_eq!(*decision, decisions[0], "{text}");
    }
}

#[test]
fn texts_that_carry_values_do_not_share() {
    let classifier = classifier();
    for (first, second) in [
        ("SET x TO 'a'", "SET x TO 'b'"),
        (
            "SELECT set_config('a', '1', false)",
            "SELECT set_config('a', '2', false)",
        ),
        ("SELECT 1; SET x = 1", "SELECT 1; SET x = 2"),
        ("SELECT 'a\\'", "SELECT 'b\\'"),
    ] {
        let first = classifier.classify(first.as_bytes()).decision;
        let second = classifier.classify(second.as_bytes()).decision;
        assert!(!Arc::ptr_eq(&first, &second));
    }
}

#[test]
fn hints_come_with_each_text_whatever_the_cache_holds() {
    let classifier = classifier();
    assert_eq!(classifier.classify(b"SELECT 1").hints, None);
    let hinted = classifier.classify(b"SELECT 1 /* causeway.consistency='strong' */");
    assert_eq!(
        hinted.hints.and_then(|hints| hints.consistency),
        Some(Level::Strong)
    );
    assert_eq!(hinted.decision.class, Read);
    assert_eq!(classifier.classify(b"SELECT 2").hints, None);
}

#[test]
fn what_a_replica_refused_stays_a_write_until_forgotten() {
    let classifier = classifier();
    assert_eq!(
        classifier
            .classify(b"SELECT * FROM v WHERE a = 1")
            .decision
            .class,
        Read
    );
    classifier.remember_as_write(b"SELECT * FROM v WHERE a = 1");
    let decision = classifier.classify(b"SELECT * FROM v WHERE a = 2").decision;
    assert_eq!(decision.class, Write);
    assert_eq!(&*decision.reason.0, "a replica refused to run it");
    assert_eq!(
        classifier
            .classify(b"SELECT * FROM w WHERE a = 1")
            .decision
            .class,
        Read
    );
    let learned = classifier.learned_writes();
    assert_eq!(learned.len(), 1);
    assert_eq!(&*learned[0].text, "SELECT * FROM v WHERE a = 1");
    assert!(classifier.forget(learned[0].fingerprint));
    assert!(!classifier.forget(learned[0].fingerprint));
    assert_eq!(
        classifier
            .classify(b"SELECT * FROM v WHERE a = 3")
            .decision
            .class,
        Read
    );
    assert!(classifier.learned_writes().is_empty());
}

#[test]
fn whoever_keeps_a_class_is_told_when_something_is_learned_or_forgotten() {
    let classifier = classifier();
    let scope = Scope::new();
    let text = b"SELECT * FROM v";
    let mut editions = vec![classifier.classify_in(&scope, text).edition];
    classifier.remember_as_write_in(&scope, text);
    editions.push(classifier.classify_in(&scope, text).edition);
    assert!(!classifier.forget(0));
    assert_eq!(classifier.edition(&scope), editions[1]);
    assert_eq!(classifier.forget_all(), 1);
    editions.push(classifier.classify_in(&scope, text).edition);
    assert_eq!(classifier.edition(&scope), editions[2]);
    assert!(editions[0] != editions[1] && editions[1] != editions[2]);
    assert!(editions.iter().all(|edition| edition & 0b11 == 0));
}

/// What the parser gets is not what the client has sent.
#[test]
fn other_words_for_the_parser_hide_nothing() {
    assert_class(
        Read,
        &[
            "SELECT concat(VARIADIC ARRAY['a', 'b'])",
            "SELECT * FROM t WHERE a ISNULL OR b NOTNULL AND c BETWEEN SYMMETRIC 2 AND 1",
            "SELECT sum(a) OVER (ORDER BY b ROWS 1 PRECEDING EXCLUDE CURRENT ROW) FROM t",
            "SELECT sum(a) OVER (ORDER BY b RANGE '1 day'::interval PRECEDING) FROM t",
            "SELECT DATE '2020-01-01'::text, timestamp '2020-01-01'::date, 'a'::text FROM t",
            "SELECT * FROM ROWS FROM (lower('a'), upper('b')) WITH ORDINALITY AS r",
            "SELECT * FROM json_to_record('{}') AS (a int, b text)",
            "SELECT (json_populate_record(NULL::t, '{}')).* FROM u",
            "SELECT a <-> b, @-@ c, d *<> e, f @@ ANY (g), 2 * ANY (h) FROM t",
            "SELECT a.variadic, b AS isnull, c AS table FROM a, b",
        ],
    );
    assert_class(
        Write,
        &[
            "SELECT concat(VARIADIC ARRAY[nextval('s')])",
            "SELECT a ISNULL FROM t WHERE nextval('s') NOTNULL",
            "SELECT sum(nextval('s')) OVER (ORDER BY b ROWS 1 PRECEDING EXCLUDE CURRENT ROW) FROM t",
            "SELECT * FROM ROWS FROM (lower('a'), unknown('b')) AS r",
            "SELECT * FROM unknown('{}') AS (a int, b text)",
            "SELECT (unknown('{}')).* FROM u",
            "SELECT 1 WHERE 1 <-> unknown(1) = ANY (ARRAY[1])",
            "SELECT isnull(1), notnull(1)",
            // Never one for another of PostgreSQL's own.
            "SELECT 1 <+++> 2",
        ],
    );
    // A name in the place of a keyword must not swallow the relation behind it.
    let decision = decide("SELECT v.variadic FROM v");
    assert_eq!(decision.relations.len(), 1, "{decision:?}");
}

#[test]
fn a_plan_for_people_is_told_from_one_for_programs() {
    let table = [
        ("EXPLAIN SELECT 1", Shown::PlanText),
        ("EXPLAIN ANALYZE VERBOSE SELECT 1", Shown::PlanText),
        (
            "EXPLAIN (FORMAT text, COSTS off) DELETE FROM t",
            Shown::PlanText,
        ),
        (
            "EXPLAIN (FORMAT yaml, \"format\" 'TEXT') SELECT 1",
            Shown::PlanText,
        ),
        ("EXPLAIN (ANALYZE, FORMAT YAML) SELECT 1", Shown::Plan),
        ("EXPLAIN (FORMAT 'json') SELECT 1", Shown::Plan),
        ("EXPLAIN (FORMAT E'\\x74ext') SELECT 1", Shown::Plan),
        ("EXPLAIN SELECT 1; SELECT 2", Shown::PlanText),
        (
            "EXPLAIN (FORMAT xml) SELECT 1; EXPLAIN SELECT 2",
            Shown::Plan,
        ),
        ("SELECT 1", Shown::Data),
        ("SELECT 'EXPLAIN' AS explain", Shown::Data),
    ];
    for (text, shows) in table {
        let decision = classifier().classify(text.as_bytes()).decision;
        assert_eq!(decision.shows, shows, "{text}");
    }
}

#[test]
fn queries_that_are_not_parsed_are_counted_by_their_shape() {
    let classifier = classifier();
    for value in 1..=3 {
        let text = format!("SELECT xmlelement(name a, lower('{value}'))");
        assert!(classifier.classify(text.as_bytes()).decision.is_unparsed);
    }
    assert!(!classifier.classify(b"SELECT 1").decision.is_unparsed);
    // A write for another reason.
    classifier.classify(b"SELECT xmlelement(name a, lower('a')) FOR UPDATE");
    let [only] = classifier.unparsed().try_into().unwrap();
    assert_eq!(only.count, 3);
    assert!(only.text.contains("lower('1')"), "{}", only.text);
}

#[test]
fn what_was_learned_outlives_the_cache() {
    let classifier = Classifier::new(16 * 1024, &[]);
    classifier.remember_as_write(b"SELECT * FROM v");
    for index in 0..1_000 {
        classifier.classify(format!("SELECT * FROM t{index}").as_bytes());
    }
    assert!(classifier.cache_bytes() <= 16 * 1024);
    assert_eq!(
        classifier.classify(b"SELECT * FROM v").decision.class,
        Write
    );
    assert_eq!(classifier.forget_all(), 1);
}

#[test]
fn deep_and_repetitive_texts_are_writes_not_crashes() {
    let classifier = classifier();
    let deep = |open: &str, close: &str, times| {
        format!("SELECT {}1{}", open.repeat(times), close.repeat(times))
    };
    for text in [
        deep("(", ")", 10_000),
        deep("f(", ")", 10_000),
        deep("ARRAY[", "]", 10_000),
        deep("CASE WHEN ", " THEN 1 END", 3_000),
        deep("NOT ", "", 10_000),
        deep("- ", "", 10_000),
        deep("(SELECT ", ")", 5_000),
        deep("", "::int", 10_000),
        deep("", " IS NULL", 6_000),
        deep("", "+1", 30_000),
        deep("", " OR a = 1", 6_000),
        deep("", " UNION SELECT 1", 3_000),
        deep("CAST(", " AS int)", 4_000),
        deep("INTERVAL ", "", 5_000),
        deep("a.", "", 20_000),
        format!("SELECT * FROM {}t{}", "(".repeat(9_000), ")".repeat(9_000)),
        format!("SELECT * FROM t {}", "JOIN t ON a ".repeat(4_000)),
        format!("SELECT {}", "set_config(".repeat(5_000)),
        "(".repeat(60_000),
        "BEGIN ATOMIC ".repeat(5_000),
    ] {
        let decision = classifier.classify(text.as_bytes()).decision;
        assert!(decision.class >= Read, "{}", &text[..40]);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_classified(text in proptest::collection::vec(any::<u8>(), 0..300)) {
        classifier().classify(&text);
    }

    #[test]
    fn any_mixture_of_words_is_classified(text in mixture()) {
        classifier().classify(text.as_bytes());
    }

    #[test]
    fn a_write_inside_is_never_a_read(
        before in mixture_without_quotes(),
        write in prop::sample::select(&INNER_WRITES[..]),
        after in mixture_without_quotes(),
    ) {
        let text = format!("SELECT {before} {write} {after}");
        let decision = decide(&text);
        prop_assert_ne!(decision.class, Read, "{}", text);
        prop_assert_ne!(decision.class, PrimaryRead, "{}", text);
    }

    #[test]
    fn literals_do_not_change_a_class(
        pieces in proptest::collection::vec(prop::sample::select(&PIECES[..]), 1..20),
        text in "[a-z ;]{0,8}",
        number in any::<u32>(),
    ) {
        let with = |text: &str, number: &str| {
            let filled = pieces.iter().map(|p| p.replace("'s'", text).replace('7', number));
            filled.collect::<Vec<_>>().join(" ")
        };
        let one = with("'s'", "7");
        let other = with(&format!("'{text}'"), &number.to_string());
        let (one, other) = (decide(&one), decide(&other));
        prop_assert_eq!(one.class, other.class);
    }

    #[test]
    fn one_classifier_agrees_with_a_fresh_one(texts in proptest::collection::vec(mixture(), 1..8)) {
        let shared = classifier();
        for text in &texts {
            let known = shared.classify(text.as_bytes()).decision;
            prop_assert_eq!(&*known, &decide(text), "{}", text);
        }
    }
}

const INNER_WRITES: [&str; 8] = [
    "FOR UPDATE",
    "for no key update",
    "FOR /* x */ SHARE",
    "(INSERT INTO t VALUES (1) RETURNING a)",
    "( delete from t )",
    "(\n-- x\nUPDATE t SET a = 1)",
    "nextval('s')",
    "INTO t2",
];

const PIECES: [&str; 44] = [
    "SELECT",
    "FROM",
    "WHERE",
    "t",
    "a",
    "b",
    ",",
    "(",
    ")",
    "+",
    "-",
    "=",
    "'s'",
    "7",
    "$1",
    "AND",
    "OR",
    "NOT",
    "IN",
    "WITH",
    "AS",
    "FOR",
    "UPDATE",
    "INSERT",
    "INTO",
    "DELETE",
    "VALUES",
    "lower",
    "nextval",
    "my_function",
    "set_config",
    "SET",
    "TO",
    "BEGIN",
    "COMMIT",
    "COPY",
    "EXPLAIN",
    "ANALYZE",
    "CASE",
    "WHEN",
    "END",
    ";",
    "::",
    "\"q\"",
];

fn mixture() -> impl Strategy<Value = String> {
    proptest::collection::vec(prop::sample::select(&PIECES[..]), 0..30)
        .prop_map(|pieces| pieces.join(" "))
}

/// Nothing here ends the statement, or makes what follows a part of something else.
fn mixture_without_quotes() -> impl Strategy<Value = String> {
    let pieces: Vec<_> = PIECES.into_iter().filter(|piece| *piece != ";").collect();
    proptest::collection::vec(prop::sample::select(pieces), 0..12)
        .prop_map(|pieces| pieces.join(" "))
}

#[test]
fn what_sql_prepares_is_kept_and_what_it_executes_is_named() {
    let prepare = |name: &str, text: &str, class| {
        [Effect::Prepare(Box::new(SqlPrepare {
            name: name.into(),
            text: text.as_bytes().into(),
            class,
            relations: decide(&text[text.find("AS").unwrap() + 2..]).relations,
        }))]
    };
    for (text, name, inner, class) in [
        ("PREPARE p AS SELECT 1", "p", Read, Read),
        ("prepare \"P q\" (int, text) AS TABLE t", "P q", Read, Read),
        (
            "PREPARE p AS SELECT pg_is_in_recovery()",
            "p",
            PrimaryRead,
            PrimaryRead,
        ),
        (
            "PREPARE p (numeric(4, 2)) AS DELETE FROM t WHERE a = $1",
            "p",
            Write,
            Write,
        ),
        ("PREPARE p AS SELECT nextval('s')", "p", Write, Write),
    ] {
        assert_effects(class, &prepare(name, text, inner), &[text]);
    }
    let text = " /* a */ PREPARE p AS SELECT 1 ; -- b";
    assert_effects(Read, &prepare("p", "PREPARE p AS SELECT 1", Read), &[text]);
    let execute = [Effect::Execute("p".into())];
    assert_effects(Anywhere, &execute, &["EXECUTE p", "execute P"]);
    assert_effects(
        Read,
        &execute,
        &[
            "EXECUTE p (1, 'a')",
            "EXECUTE p(now() - $1)",
            "EXPLAIN EXECUTE p(1)",
        ],
    );
    assert_effects(
        Write,
        &execute,
        &[
            "EXECUTE p(nextval('s'))",
            "EXECUTE p(my_function())",
            "EXECUTE p)",
            "CREATE TABLE t AS EXECUTE p",
            "CREATE TABLE t AS EXECUTE p(1) WITH NO DATA",
        ],
    );
    assert_effects(
        Write,
        &[],
        &["CREATE TRIGGER a AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()"],
    );
}
