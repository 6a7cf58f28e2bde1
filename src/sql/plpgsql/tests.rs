//! Bodies, and the queries that they run.

use proptest::prelude::*;

use super::*;

/// The queries of a body whose second parameter is a text, `q`.
fn of(body: &str) -> Result<Vec<String>, String> {
    let shown = |query: Vec<u8>| {
        let query = String::from_utf8(query).unwrap();
        query.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    ran(body).map(|ran| ran.queries.into_iter().map(shown).collect())
}

fn ran(body: &str) -> Result<Ran, String> {
    queries(body.as_bytes(), &[None, Some("q".into())])
}

#[test]
fn each_statement_gives_out_what_it_runs() {
    let table: [(&str, &[&str]); 43] = [
        ("NULL;", &[]),
        ("a := f(1);", &["SELECT f(1)"]),
        ("a = b;", &["SELECT b"]),
        ("r.x := count(*) FROM t;", &["SELECT count(*) FROM t"]),
        ("a[f(1)].b[2] := 3;", &["SELECT a[f(1)].b[2]", "SELECT 3"]),
        ("perform := 1; \"If\" := 2;", &["SELECT 1", "SELECT 2"]),
        (
            "IF a > (CASE WHEN b THEN 1 END) THEN NULL; ELSIF f(2) THEN NULL; ELSE a := 1; END IF;",
            &[
                "SELECT a > (CASE WHEN b THEN 1 END)",
                "SELECT f(2)",
                "SELECT 1",
            ],
        ),
        (
            "CASE f(1) WHEN g(2), 3 THEN NULL; ELSE RETURN; END CASE;",
            &["SELECT 1 = (f(1))", "SELECT g(2), 3"],
        ),
        (
            "CASE WHEN r.found THEN NULL; END CASE;",
            &["SELECT r.found"],
        ),
        ("CASE WHEN found THEN NULL; END CASE;", &[]),
        ("LOOP EXIT; END LOOP;", &[]),
        (
            "<<l>> LOOP EXIT l WHEN f(1); CONTINUE WHEN a; END LOOP l;",
            &["SELECT f(1)", "SELECT a"],
        ),
        ("WHILE f(1) LOOP NULL; END LOOP;", &["SELECT f(1)"]),
        (
            "FOR i IN 1..f(2) LOOP NULL; END LOOP;",
            &["SELECT 1", "SELECT f(2)"],
        ),
        (
            "FOR i IN REVERSE a.b..5 BY g(1) LOOP NULL; END LOOP;",
            &["SELECT a.b", "SELECT 5", "SELECT g(1)"],
        ),
        (
            "FOR i IN (f(1))..-(2) LOOP NULL; END LOOP;",
            &["SELECT (f(1))", "SELECT -(2)"],
        ),
        (
            "FOR r IN SELECT * FROM t ORDER BY 1 LOOP NULL; END LOOP;",
            &["SELECT * FROM t ORDER BY 1"],
        ),
        (
            "FOR a, r.b IN (SELECT 1, 2) LOOP NULL; END LOOP;",
            &["(SELECT 1, 2)"],
        ),
        ("FOR r IN c LOOP NULL; END LOOP;", &[]),
        (
            "FOREACH x SLICE 1 IN ARRAY f(1) LOOP NULL; END LOOP;",
            &["SELECT f(1)"],
        ),
        ("RETURN;", &[]),
        ("RETURN f(1);", &["SELECT f(1)"]),
        ("RETURN NEXT; RETURN NEXT f(1);", &["SELECT f(1)"]),
        ("RETURN QUERY SELECT f(1);", &["SELECT f(1)"]),
        ("RAISE;", &[]),
        (
            "RAISE NOTICE '% %', f(1), a USING HINT = g(2), ERRCODE = '22012';",
            &[
                "SELECT '% %', f(1), a",
                "SELECT HINT = g(2), ERRCODE = '22012'",
            ],
        ),
        ("RAISE EXCEPTION division_by_zero;", &[]),
        (
            "RAISE SQLSTATE '22012' USING MESSAGE = f(1);",
            &["SELECT MESSAGE = f(1)"],
        ),
        (
            "PERFORM f(a) FROM t WHERE b;",
            &["SELECT f(a) FROM t WHERE b"],
        ),
        ("ASSERT f(1), 'a';", &["SELECT f(1), 'a'"]),
        (
            "GET DIAGNOSTICS n = ROW_COUNT, r.c := PG_CONTEXT; GET STACKED DIAGNOSTICS m = MESSAGE_TEXT;",
            &[],
        ),
        (
            "SELECT f(1), 2 INTO STRICT r.a, b FROM t WHERE c;",
            &["SELECT f(1), 2 FROM t WHERE c"],
        ),
        ("EXECUTE 'SELECT 1';", &["SELECT 'SELECT 1'"]),
        (
            "EXECUTE format('SELECT %L', f(1)) INTO STRICT r.a, b USING g(2), c;",
            &["SELECT format('SELECT %L', f(1))", "SELECT g(2), c"],
        ),
        (
            "EXECUTE $2 USING g(2) INTO a;",
            &["SELECT $2", "SELECT g(2)"],
        ),
        (
            "FOR r IN EXECUTE 'SELECT ' || q USING f(1), 2 LOOP a := g(2); END LOOP;",
            &["SELECT 'SELECT ' || q", "SELECT f(1), 2", "SELECT g(2)"],
        ),
        (
            "RETURN QUERY EXECUTE 'SELECT 1' USING f(1);",
            &["SELECT 'SELECT 1'", "SELECT f(1)"],
        ),
        (
            "FOR r IN EXPLAIN SELECT f(1) LOOP NULL; END LOOP;",
            &["EXPLAIN SELECT f(1)"],
        ),
        ("SELECT INTO r a, f(b) FROM t;", &["SELECT a, f(b) FROM t"]),
        (
            "WITH w AS (SELECT f(1)) SELECT * FROM w INTO a, b;",
            &["WITH w AS (SELECT f(1)) SELECT * FROM w"],
        ),
        (
            "BEGIN a := f(1); EXCEPTION WHEN division_by_zero OR SQLSTATE '22023' THEN b := 2; WHEN OTHERS THEN NULL; END;",
            &["SELECT f(1)", "SELECT 2"],
        ),
        (
            "#variable_conflict use_column\n<<o>> DECLARE a CONSTANT numeric(10, 2) NOT NULL DEFAULT f(1); \
             b text COLLATE \"C\" := 'x'; c t.d%TYPE[] = g(2); d t%ROWTYPE; e ALIAS FOR $1; \
             f NO SCROLL CURSOR FOR SELECT h(3); BEGIN NULL; END o",
            &[
                "SELECT NULL::numeric(10, 2)",
                "SELECT f(1)",
                "SELECT NULL::text",
                "SELECT 'x'",
                "SELECT g(2)",
                "SELECT h(3)",
            ],
        ),
        (
            "DECLARE a app.checked; DECLARE b int; BEGIN /* EXECUTE */ a := 1 -- ; EXECUTE\n; END;",
            &["SELECT NULL::app.checked", "SELECT NULL::int", "SELECT 1"],
        ),
    ];
    for (body, expected) in table {
        let found = of(body);
        let found: Result<Vec<&str>, _> = match &found {
            Ok(queries) => Ok(queries.iter().map(String::as_str).collect()),
            Err(reason) => Err(reason),
        };
        assert_eq!(found, Ok(expected.to_vec()), "{body}");
    }
}

#[test]
fn what_may_do_more_is_not_followed() {
    let statements = [
        "EXECUTE",
        "EXECUTE a",
        "EXECUTE $1",
        "EXECUTE q INTO $1",
        "EXECUTE q USING",
        "FOR r IN EXECUTE a LOOP NULL; END LOOP",
        "FOR r IN DELETE FROM t RETURNING a LOOP NULL; END LOOP",
        "RETURN QUERY EXECUTE a",
        "RETURN QUERY INSERT INTO t VALUES (1) RETURNING a",
        "RETURN QUERY SHOW work_mem",
        "INSERT INTO t VALUES (1)",
        "UPDATE t SET a = 1",
        "DELETE FROM t",
        "MERGE INTO t USING s ON true WHEN MATCHED THEN DELETE",
        "TRUNCATE t",
        "CREATE TABLE t (a int)",
        "CREATE TEMP TABLE t AS SELECT 1",
        "DROP TABLE t",
        "LOCK t",
        "COPY t TO '/tmp/x'",
        "CALL p()",
        "DO 'BEGIN END'",
        "COMMIT",
        "ROLLBACK",
        "SAVEPOINT s",
        "SET work_mem = '1MB'",
        "SET LOCAL work_mem TO 1",
        "RESET work_mem",
        "NOTIFY c",
        "LISTEN c",
        "PREPARE p AS SELECT 1",
        "DEALLOCATE p",
        "DISCARD ALL",
        "OPEN c",
        "OPEN c FOR SELECT 1",
        "OPEN c FOR EXECUTE 'SELECT 1'",
        "FETCH c INTO a",
        "MOVE c",
        "CLOSE c",
        "FOR r IN c (1) LOOP NULL; END LOOP",
        "EXPLAIN SELECT 1",
        "ANALYZE t",
        "REFRESH MATERIALIZED VIEW v",
        "SECURITY LABEL ON TABLE t IS 'x'",
        "IMPORT FOREIGN SCHEMA s FROM SERVER f INTO t",
        "SELECT 1 INTO",
        "SELECT 1 INTO $1",
        "IF a NULL",
        "a :=",
        "WHILE a; LOOP",
        "x",
        "GET DIAGNOSTICS a[f(1)] = ROW_COUNT",
        "a := U&'\\0061' UESCAPE '!' || U&\"f\"(1)",
        "a := 'x\\'' || f(1)",
        "a := 'x",
        "a := $q$ x",
        "/* NULL",
    ];
    for statement in statements {
        for body in [
            format!("{statement};"),
            format!("BEGIN NULL; {statement}; END"),
            format!("BEGIN IF a THEN {statement}; END IF; END"),
            format!("BEGIN LOOP {statement}; END LOOP; END"),
            format!("BEGIN NULL; EXCEPTION WHEN OTHERS THEN {statement}; END"),
            format!("BEGIN CASE a WHEN 1 THEN NULL; ELSE {statement}; END CASE; END"),
            format!("<<l>> DECLARE a int; BEGIN BEGIN {statement}; END; END l"),
        ] {
            assert!(of(&body).is_err(), "{body}: {:?}", of(&body));
        }
    }
    for body in [
        "DECLARE c CURSOR (a int) FOR SELECT 1; BEGIN NULL; END",
        "DECLARE c CURSOR FOR EXECUTE 'SELECT 1'; BEGIN NULL; END",
        "DECLARE a int",
        "DECLARE a t.c%TYPE f(1); BEGIN NULL; END",
        "SELECT 1",
    ] {
        assert!(of(body).is_err(), "{body}");
    }
}

#[test]
fn what_a_body_changes_of_what_it_is_given_is_not_what_it_was_given() {
    for (body, is_followed) in [
        ("BEGIN {} END", true),
        ("BEGIN a := q; {} END", true),
        ("BEGIN SELECT q INTO a FROM t WHERE b = q; {} END", true),
        ("BEGIN q := 'DROP TABLE t'; {} END", false),
        ("BEGIN Q = 'x'; {} END", false),
        ("BEGIN \"q\" := 'x'; {} END", false),
        ("BEGIN f.q := 'x'; {} END", false),
        ("BEGIN {} q := 'x'; END", false),
        ("DECLARE q text := 'x'; BEGIN {} END", false),
        ("DECLARE a ALIAS FOR $2; BEGIN {} END", false),
        ("DECLARE a ALIAS FOR q; BEGIN {} END", false),
        ("BEGIN SELECT 'x' INTO q; {} END", false),
        ("BEGIN SELECT 'x', 'y' INTO STRICT a, f.q; {} END", false),
        ("BEGIN FOR q IN SELECT 'x' LOOP {} END LOOP; END", false),
        ("BEGIN FOR a, q IN SELECT 1, 2 LOOP {} END LOOP; END", false),
        ("BEGIN FOR q IN 1..2 LOOP {} END LOOP; END", false),
        ("BEGIN FOREACH q IN ARRAY a LOOP {} END LOOP; END", false),
        ("BEGIN GET DIAGNOSTICS q = PG_CONTEXT; {} END", false),
        ("BEGIN EXECUTE 'SELECT 1' INTO q; {} END", false),
        ("BEGIN EXECUTE 'SELECT 1' USING 2 INTO a, q; {} END", false),
        ("DECLARE q CURSOR FOR SELECT 1; BEGIN {} END", false),
    ] {
        for statement in ["EXECUTE q;", "EXECUTE 'EXPLAIN ' || $2 INTO a;"] {
            let body = body.replace("{}", statement);
            assert_eq!(ran(&body).is_ok(), is_followed, "{body}");
        }
    }
    // Of others than what it runs it may change what it likes.
    assert!(ran("BEGIN q := 'x'; EXECUTE 'SELECT 1'; END").is_ok());
}

const PIECES: [&str; 46] = [
    "EXECUTE ",
    "q || ",
    "BEGIN ",
    "END ",
    "END IF; ",
    "IF ",
    "THEN ",
    "ELSE ",
    "CASE ",
    "WHEN ",
    "LOOP ",
    "FOR ",
    "IN ",
    "WHILE ",
    "RETURN ",
    "QUERY ",
    "NEXT ",
    "SELECT ",
    "INTO ",
    "STRICT ",
    "a ",
    "b.c ",
    "f(1) ",
    "1 ",
    "..",
    ".5 ",
    "(",
    ") ",
    "[",
    "] ",
    ", ",
    "; ",
    ":= ",
    "= ",
    "'x' ",
    "$q$ y $q$ ",
    "-- z\n",
    "%TYPE ",
    "DECLARE ",
    "EXCEPTION ",
    "RAISE ",
    "USING ",
    "PERFORM ",
    "<<",
    ">> ",
    "writes(2) ",
];

proptest! {
    /// Nothing is lost: a call that stands in a body stands in a query that is given out.
    #[test]
    fn a_call_is_never_lost(
        pieces in proptest::collection::vec(prop::sample::select(&PIECES[..]), 0..40),
    ) {
        let body = pieces.concat();
        if let Ok(queries) = of(&body) {
            let is_code = |text: &str| {
                let tokens: Vec<Token> = Lexer::new(text.as_bytes()).collect();
                let source = |token: &Token| text[token.start..token.end].to_owned();
                let calls = tokens.windows(2).filter(|two| source(&two[0]) == "writes" && source(&two[1]) == "(");
                calls.count()
            };
            let given_out: usize = queries.iter().map(|query| is_code(query)).sum();
            prop_assert_eq!(is_code(&body), given_out, "{}: {:?}", body, queries);
        }
    }

    #[test]
    fn any_bytes_are_read(text in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = queries(&text, &[Some("a".into())]);
    }
}

/// Twice the body makes no more than twice the text that is given out, and no statement is looked at from
/// its beginning again for each of its parts.
#[test]
fn what_is_given_out_is_no_more_than_what_there_is() {
    let parts = [
        "a := b; ",
        "IF a THEN NULL; END IF; ",
        "a[1][2][3] := 1; ",
        "FOR i IN 1..2 BY 3 LOOP NULL; END LOOP; ",
        "SELECT 1 INTO a; ",
        "RAISE NOTICE '%', a; ",
        "CASE a WHEN 1 THEN NULL; END CASE; ",
        "<<l>> ",
        "END IF; ",
        "EXECUTE 'SELECT ' || ((q)) || quote_literal(a) USING b; ",
    ];
    for part in parts {
        let body = part.repeat(2_000);
        let given_out: usize = ran(&body).unwrap().queries.iter().map(Vec::len).sum();
        assert!(given_out <= 3 * body.len(), "{part}: {given_out}");
    }
    for deep in [
        "(",
        "[",
        "a[",
        "a := (",
        "IF ",
        "FOR a IN (",
        "BEGIN ",
        "DECLARE ",
        "<<",
        "EXECUTE (",
        "EXECUTE format(",
        "EXECUTE q || ",
    ] {
        let _ = ran(&deep.repeat(20_000));
    }
}
