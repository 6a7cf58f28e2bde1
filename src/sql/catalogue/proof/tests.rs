//! Functions that are volatile by declaration, and what their bodies show.

use super::super::tests::Maker;
use super::*;
use crate::sql::Patterns;
use crate::sql::catalogue::{Kind, Nature};
use Class::{PrimaryRead, Read, Write};

/// What the bodies may name.
fn maker() -> Maker {
    let mut maker = Maker::default();
    maker.relation("item", Nature::Plain, "");
    maker.add(Kind::TypeByName, "item", Nature::Plain, "");
    for name in ["int4", "int8", "record", "text", "bool"] {
        maker.add(
            Kind::TypeByName,
            &format!("pg_catalog.{name}"),
            Nature::Plain,
            "",
        );
    }
    maker.relation("scratch", Nature::Unlogged, "");
    maker.function("fine", "SELECT 1");
    maker.volatile("writes");
    let view = maker.relation("writing_view", Nature::Plain, "SELECT writes()");
    let volatile = maker.volatile("also_writes");
    maker.edge(view, volatile);
    let operator = maker.add(Kind::Operator, "<+>", Nature::Plain, "");
    maker.edge(operator, volatile);
    let harmless = maker.add(Kind::Operator, "<*>", Nature::Plain, "");
    let fine = maker.function("also_fine", "");
    maker.edge(harmless, fine);
    maker
}

/// What a call is, if this is the body.
fn class_of(language: Language, body: &str) -> Class {
    let mut maker = maker();
    maker.body("f", language, body, "");
    maker.class("SELECT f()")
}

#[test]
fn bodies_that_only_read_are_reads() {
    let sql = [
        "SELECT 1",
        "SELECT count(*) FROM item;",
        "SELECT 1; SELECT fine(); VALUES (1); TABLE item",
        "-- INSERT INTO item\nSELECT 'DELETE FROM item', $$ EXECUTE $$",
        "WITH w AS (SELECT * FROM item) SELECT * FROM w WHERE a <*> 1",
        "(SELECT 1) UNION SELECT 2",
        "SELECT random(), clock_timestamp(), pg_sleep(0)",
        "BEGIN ATOMIC\n SELECT count(*) AS count\n    FROM public.item;\n SELECT CASE WHEN true THEN 1 END;\nEND",
        "RETURN (public.fine() + 1)",
        "EXPLAIN SELECT 1",
        "",
    ];
    for body in sql {
        assert_eq!(class_of(Language::Sql, body), Read, "{body}");
    }
    let plpgsql = [
        "BEGIN RETURN 1; END",
        "DECLARE n int; r record; i item; j item%ROWTYPE; k item.a%TYPE; BEGIN SELECT count(*) INTO n FROM item; \
         FOR r IN SELECT * FROM item LOOP n := n + r.a; END LOOP; RETURN n <*> 1; END;",
        "BEGIN PERFORM fine(); RETURN QUERY SELECT a FROM item; EXCEPTION WHEN others THEN RAISE NOTICE 'INSERT %', 1; END",
        "BEGIN EXECUTE 'SELECT a FROM item WHERE a = $1' INTO n USING fine(); END",
        "BEGIN RETURN QUERY EXECUTE format('SELECT %L FROM item', fine()) USING 1; END",
        "BEGIN FOR r IN EXPLAIN ANALYZE SELECT * FROM item LOOP NULL; END LOOP; END",
        "DECLARE writes int; nextval int := 1; BEGIN writes := nextval; RETURN writes + 1; END",
    ];
    for body in plpgsql {
        assert_eq!(class_of(Language::PlPgSql, body), Read, "{body}");
    }
}

#[test]
fn bodies_that_may_do_more_are_writes() {
    let sql = [
        "INSERT INTO item VALUES (1)",
        "SELECT 1; DELETE FROM item",
        "SELECT 1; SELECT writes()",
        "WITH w AS (UPDATE item SET a = 1 RETURNING a) SELECT * FROM w",
        "SELECT * INTO copied FROM item",
        "SELECT * FROM item FOR UPDATE",
        "SELECT * FROM item FOR NO KEY UPDATE",
        "SELECT * FROM writing_view",
        "SELECT 1 <+> 2",
        "SELECT nextval('s')",
        "SELECT currval('s')",
        "SELECT set_config('a.b', 'c', false)",
        "SELECT set_config('a.b', 'c', true)",
        "SELECT 1, set_config('a.b', 'c', true) FROM item",
        "SELECT pg_advisory_lock(1)",
        "SELECT pg_advisory_xact_lock(1)",
        "SELECT pg_advisory_unlock(1)",
        "SELECT txid_current()",
        "SELECT unknown()",
        "SELECT 1::unknown",
        "SELECT * FROM unknown",
        "SET work_mem = '1MB'; SELECT 1",
        "SHOW work_mem",
        "EXPLAIN DELETE FROM item",
        "EXPLAIN ANALYZE SELECT writes()",
        "EXPLAIN EXECUTE p",
        "DECLARE c CURSOR FOR SELECT 1",
        "COPY item TO STDOUT",
        "LOCK item",
        "NOTIFY c",
        "CREATE TEMP TABLE t (a int); SELECT 1",
        "CALL p()",
        "SELECT 'a\\' || writes() --'",
        "SELECT query_to_xml('SELECT writes()', true, true, '')",
        "SELECT XMLELEMENT(NAME x, 1)",
        "BEGIN ATOMIC\n INSERT INTO public.item (a)\n   VALUES (1);\n SELECT 1;\nEND",
        "RETURN public.writes()",
        "not SQL at all",
        "SELECT 1; -- comment\n /* open",
    ];
    for body in sql {
        assert_eq!(class_of(Language::Sql, body), Write, "{body}");
    }
    let plpgsql = [
        "BEGIN INSERT INTO item VALUES (1); END",
        "BEGIN RETURN writes(); END",
        "BEGIN PERFORM writes(); END",
        "BEGIN PERFORM 1 FROM item FOR SHARE; END",
        "BEGIN a := 1 FROM item FOR UPDATE; END",
        "DECLARE a int := writes(); BEGIN RETURN 1; END",
        "DECLARE a unknown; BEGIN RETURN 1; END",
        "DECLARE c CURSOR FOR SELECT writes(); BEGIN FOR r IN c LOOP NULL; END LOOP; END",
        "BEGIN IF writes() THEN NULL; END IF; END",
        "BEGIN WHILE writes() LOOP NULL; END LOOP; END",
        "BEGIN FOR i IN 1..writes() LOOP NULL; END LOOP; END",
        "BEGIN FOR i IN 1..2 BY writes() LOOP NULL; END LOOP; END",
        "BEGIN FOR r IN SELECT * FROM writing_view LOOP NULL; END LOOP; END",
        "BEGIN FOREACH a IN ARRAY writes() LOOP NULL; END LOOP; END",
        "BEGIN CASE 1 WHEN writes() THEN NULL; END CASE; END",
        "BEGIN LOOP EXIT WHEN writes(); END LOOP; END",
        "BEGIN RAISE NOTICE '%', writes(); END",
        "BEGIN RAISE EXCEPTION 'a' USING HINT = writes(); END",
        "BEGIN ASSERT true, writes(); END",
        "BEGIN a[writes()] := 1; END",
        "BEGIN SELECT 1 <+> 2 INTO a; END",
        "BEGIN WITH w AS (INSERT INTO item VALUES (1) RETURNING a) SELECT a INTO b FROM w; END",
        "BEGIN WITH w AS (SELECT 1) INSERT INTO item SELECT * FROM w; END",
        "BEGIN RETURN 1; EXCEPTION WHEN others THEN RETURN writes(); END",
        "BEGIN EXECUTE 'DELETE FROM item'; END",
        "BEGIN EXECUTE 'SELECT writes()'; END",
        "BEGIN EXECUTE 'SELECT 1' USING writes(); END",
        "BEGIN EXECUTE 'SELECT 1; SELECT 2'; END",
        "BEGIN EXECUTE format('SELECT %L', writes()); END",
        "BEGIN EXECUTE format('DELETE FROM item WHERE a = %L', 1); END",
        "BEGIN EXECUTE 'SHOW work_mem'; END",
        "BEGIN EXECUTE a; END",
        "BEGIN PERFORM set_config('a.b', 'c', true); END",
        "BEGIN RETURN (SELECT r FROM (SELECT 1) r).nextval; END",
        "BEGIN RETURN current_setting('transaction_read_only'); END",
        "LANGUAGE plpgsql",
    ];
    for body in plpgsql {
        assert_eq!(class_of(Language::PlPgSql, body), Write, "{body}");
    }
}

/// Not what they do, but whom they ask.
#[test]
fn what_only_the_primary_can_tell_is_asked_of_it() {
    let bodies = [
        "SELECT pg_is_in_recovery()",
        "SELECT count(*) FROM scratch",
        "TABLE pg_stat_activity",
    ];
    for body in bodies {
        assert_eq!(class_of(Language::Sql, body), PrimaryRead, "{body}");
    }
}

#[test]
fn functions_stand_and_fall_together() {
    let mut maker = maker();
    let sql = Language::Sql;
    maker.body(
        "even",
        Language::PlPgSql,
        "BEGIN RETURN CASE WHEN $1 = 0 THEN true ELSE odd($1 - 1) END; END",
        "",
    );
    maker.body("odd", sql, "SELECT even($1 - 1)", "");
    maker.body("itself", sql, "SELECT itself($1 - 1)", "");
    maker.body("ping", sql, "SELECT pong($1)", "");
    maker.body("pong", sql, "SELECT ping($1); SELECT writes()", "");
    maker.body("chain_1", sql, "SELECT chain_2()", "");
    maker.body("chain_2", sql, "SELECT chain_3()", "");
    maker.body("chain_3", sql, "DELETE FROM item", "");
    maker.body(
        "chain_of_reads",
        sql,
        "SELECT even(1), itself(2), fine()",
        "",
    );
    maker.body("both", sql, "SELECT 1", "");
    maker.body("app.both", sql, "DELETE FROM item", "");
    maker.body("overloaded", sql, "SELECT 1", "");
    maker.body("overloaded", sql, "SELECT $1; DELETE FROM item", "");
    maker.body("calls_both", sql, "SELECT public.both()", "");
    maker.body("calls_any", sql, "SELECT both()", "");
    maker.body("given", sql, "SELECT $1", "1, 'a'::text");
    maker.body("given_much", sql, "SELECT $1", "1, writes()");
    // Called without its parentheses: no word of the text is followed by one.
    maker.body("touched", sql, "DELETE FROM item", "");
    maker.body("by_attribute", sql, "SELECT i.touched FROM item i", "");
    maker.body("over_attribute", sql, "SELECT (by_attribute(1)).x", "");
    let view = maker.relation("over_even", Nature::Plain, "SELECT even(1)");
    let even = maker.id_of("even");
    maker.edge(view, even);
    maker.body("through_view", sql, "SELECT * FROM over_even", "");
    maker.function("declared", "SELECT even(1)");
    maker.function("lies", "SELECT chain_1()");
    maker.classes(
        Lists::default(),
        &[
            ("SELECT even(2)", Read),
            ("SELECT odd(2)", Read),
            ("SELECT itself(2)", Read),
            ("SELECT ping(1)", Write),
            ("SELECT pong(1)", Write),
            ("SELECT chain_1()", Write),
            ("SELECT chain_of_reads()", Read),
            ("SELECT both()", Write),
            ("SELECT public.both()", Read),
            ("SELECT app.both()", Write),
            ("SELECT overloaded()", Write),
            ("SELECT calls_both()", Read),
            ("SELECT calls_any()", Write),
            ("SELECT given()", Read),
            ("SELECT given_much()", Write),
            ("SELECT by_attribute(1)", Write),
            ("SELECT over_attribute()", Write),
            ("SELECT * FROM over_even", Read),
            ("SELECT through_view()", Read),
            ("SELECT declared()", Read),
            ("SELECT lies()", Write),
            ("EXPLAIN SELECT even(2)", Read),
            ("COPY (SELECT even(2)) TO STDOUT", Read),
            ("SELECT even(2) FROM item FOR UPDATE", Write),
        ],
    );
}

#[test]
fn what_the_operator_lists_wins_over_a_body() {
    let patterns = |name: &str| Patterns::new(&[name.to_owned()]);
    let lists = Lists {
        write_functions: patterns("harmless"),
        read_only_functions: patterns("believed"),
        ..Lists::default()
    };
    let mut maker = maker();
    maker.body("harmless", Language::Sql, "SELECT 1", "");
    maker.body("believed", Language::Sql, "DELETE FROM item", "");
    maker.body("over_believed", Language::Sql, "SELECT believed()", "");
    maker.body("over_harmless", Language::Sql, "SELECT harmless()", "");
    maker.classes(
        lists,
        &[
            ("SELECT harmless()", Write),
            ("SELECT believed()", Read),
            ("SELECT over_believed()", Read),
            ("SELECT over_harmless()", Write),
        ],
    );
}

#[test]
fn letters_beyond_ascii_are_the_same_in_names_and_bodies() {
    let mut maker = maker();
    maker.relation("größe", Nature::Plain, "");
    maker.body(
        "maß",
        Language::PlPgSql,
        "BEGIN RETURN count(*) FROM größe; END",
        "",
    );
    maker.body("fuß", Language::Sql, "SELECT maß()", "");
    maker.classes(
        Lists::default(),
        &[("SELECT fuß()", Read), ("SELECT maß()", Read)],
    );
}

#[test]
fn a_body_tells_why_it_is_a_write() {
    let mut maker = maker();
    maker.body("f", Language::PlPgSql, "BEGIN OPEN c; END", "");
    maker.body("g", Language::Sql, "SELECT f()", "");
    maker.body("h", Language::PlPgSql, "BEGIN EXECUTE a; END", "");
    maker.body("i", Language::PlPgSql, "BEGIN EXECUTE $1; END", "");
    maker.give_parameters(&[Some("")]);
    let catalogue = Catalogue::new(&maker.0, &Lists::default());
    let reason = |name| match catalogue.function(Use::Run, None, name) {
        Some(Finding::Writes(reason)) => reason.to_string(),
        other => panic!("{other:?}"),
    };
    let bottom = "function public.f(), which is volatile: OPEN in it is not followed";
    assert_eq!(reason("f"), bottom);
    for (name, why) in [
        ("h", "it runs SQL that it puts together"),
        ("i", "it runs SQL that it is given"),
    ] {
        let expected = format!("function public.{name}(), which is volatile: {why}");
        assert_eq!(reason(name), expected);
    }
    assert_eq!(
        reason("g"),
        format!("function public.g() rests on {bottom}")
    );
}

/// As many rounds as there are functions that only an attribute leads to: some are given up on.
#[test]
fn whatever_cannot_be_settled_soon_is_a_write() {
    let mut maker = maker();
    let last = 3 * MOST_ROUNDS;
    for place in 0..last {
        let body = format!("SELECT i.a{} FROM item i", place + 1);
        maker.body(&format!("a{place}"), Language::Sql, &body, "");
    }
    maker.body(&format!("a{last}"), Language::Sql, "DELETE FROM item", "");
    for place in 0..=last {
        let sql = format!("SELECT a{place}(1)");
        assert_eq!(maker.class(&sql), Write, "{sql}");
    }
}

/// Thousands of bodies, each of which names others, are each read a few times and no more.
#[test]
fn the_work_grows_with_the_bodies_alone() {
    let mut maker = maker();
    for place in 0..2_000 {
        let body = format!(
            "DECLARE n int; BEGIN SELECT count(*) INTO n FROM item; RETURN n + f{}(1) + f{}(2); END",
            place / 2,
            place / 3
        );
        maker.body(&format!("f{place}"), Language::PlPgSql, &body, "");
    }
    let catalogue = Catalogue::new(&maker.0, &Lists::default());
    assert_eq!(
        catalogue.function(Use::Run, None, "f1999"),
        Some(&Finding::Reads)
    );
}
