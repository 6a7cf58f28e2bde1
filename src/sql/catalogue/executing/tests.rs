//! Calls of functions that run SQL which they are given.

use std::cell::RefCell;

use proptest::prelude::*;

use super::super::tests::Maker;
use super::super::{Catalogue, Kind, Language, Nature};
use super::*;
use crate::sql::{Class, Classifier, Patterns, Scope};

use Class::{PrimaryRead, Read, Write};

/// Relations, something that writes, and functions with a text `q` as their only parameter.
fn maker() -> Maker {
    let mut maker = Maker::default();
    maker.relation("item", Nature::Plain, "");
    maker.relation("secret", Nature::Plain, "");
    let writes = maker.volatile("writes");
    let view = maker.relation("writing_view", Nature::Plain, "SELECT writes()");
    maker.edge(view, writes);
    maker.relation("unlogged", Nature::Unlogged, "");
    maker.add(Kind::TypeByName, "pg_catalog.int4", Nature::Plain, "");
    runs(&mut maker, "runs", "BEGIN EXECUTE q; END");
    runs(
        &mut maker,
        "explains",
        "DECLARE ln text; BEGIN FOR ln IN EXECUTE format('EXPLAIN ANALYZE %s', $1) LOOP
             ln := regexp_replace(ln, '\\d+', 'N', 'g'); RETURN NEXT ln; END LOOP; END",
    );
    runs(
        &mut maker,
        "counts",
        "DECLARE n int; BEGIN EXECUTE 'SELECT count(*) FROM ' || quote_ident(q) INTO n; RETURN n; END",
    );
    maker
}

fn runs(maker: &mut Maker, name: &str, body: &str) {
    maker.body(name, Language::PlPgSql, body, "");
    maker.give_parameters(&[Some("q")]);
}

#[test]
fn what_is_given_as_a_literal_is_judged_like_a_statement() {
    maker().classes(
        Lists::default(),
        &[
            ("SELECT runs('SELECT 1')", Read),
            ("SELECT runs('SELECT')", Read),
            ("SELECT runs('SELECT * FROM item')", Read),
            ("SELECT public.runs ( 'SELECT 1' )", Read),
            (
                "SELECT \"runs\"($q$SELECT * FROM item WHERE a = 'b'$q$)",
                Read,
            ),
            ("SELECT RUNS('SELECT ''a''')", Read),
            ("SELECT runs(E'SELECT 1')", Read),
            ("SELECT * FROM runs('SELECT 1') AS r (a int)", Read),
            (
                "WITH w AS (SELECT * FROM runs('TABLE item')) SELECT * FROM w",
                Read,
            ),
            ("EXPLAIN ANALYZE SELECT runs('SELECT 1')", Read),
            ("COPY (SELECT runs('SELECT 1')) TO STDOUT", Read),
            ("DECLARE c CURSOR FOR SELECT runs('SELECT 1')", Read),
            ("PREPARE p AS SELECT runs('SELECT 1')", Read),
            ("SELECT explains('SELECT * FROM item')", Read),
            ("SELECT counts('item')", Read),
            ("SELECT runs('SELECT runs(''SELECT 1'')')", Read),
            ("SELECT runs('SELECT * FROM unlogged')", PrimaryRead),
            ("SELECT runs('SELECT pg_is_in_recovery()')", PrimaryRead),
            ("SELECT counts('unlogged'), counts('item')", PrimaryRead),
            // What writes, or may.
            ("SELECT runs('DROP TABLE item')", Write),
            ("SELECT runs('SELECT 1; DROP TABLE item')", Write),
            ("SELECT runs('SELECT writes()')", Write),
            ("SELECT runs('SELECT * FROM writing_view')", Write),
            ("SELECT runs('SELECT * FROM item FOR UPDATE')", Write),
            ("SELECT runs('SELECT 1 INTO x')", Write),
            ("SELECT runs('SELECT * FROM nowhere')", Write),
            ("SELECT runs('SELECT runs(''DROP TABLE item'')')", Write),
            (
                "SELECT runs('WITH w AS (DELETE FROM item) SELECT 1')",
                Write,
            ),
            ("SELECT runs('SET work_mem = ''1MB''')", Write),
            (
                "SELECT runs('SELECT set_config(''a.b'', ''c'', false)')",
                Write,
            ),
            ("SELECT runs('SELECT pg_advisory_lock(1)')", Write),
            ("SELECT runs('COMMIT')", Write),
            ("SELECT runs('SHOW work_mem')", Write),
            ("SELECT runs('DO $$ BEGIN END $$')", Write),
            ("SELECT runs('EXECUTE p')", Write),
            ("SELECT runs('EXPLAIN EXECUTE p')", Write),
            ("SELECT runs('EXPLAIN ANALYZE DELETE FROM item')", Write),
            ("SELECT runs('EXPLAIN EXPLAIN SELECT 1')", Write),
            ("SELECT runs('COPY item TO STDOUT')", Write),
            ("SELECT runs('DECLARE c CURSOR FOR SELECT 1')", Write),
            ("SELECT runs('FETCH c')", Write),
            ("SELECT runs('')", Write),
            ("SELECT runs('-- nothing')", Write),
            ("SELECT explains('DELETE FROM item')", Write),
            ("SELECT explains('(SELECT 1); DROP TABLE item')", Write),
            ("SELECT counts('writing_view')", Write),
            ("SELECT counts('nowhere')", Write),
            ("SELECT counts('item; DROP TABLE item')", Write),
            ("SELECT runs('SELECT 1'), runs('DROP TABLE item')", Write),
            (
                "SELECT public.runs('SELECT 1'), runs('DROP TABLE item')",
                Write,
            ),
            (
                "SELECT runs('SELECT 1') FROM (SELECT runs('DROP TABLE item')) x",
                Write,
            ),
            (
                "SELECT runs('SELECT 1'); SELECT runs('DROP TABLE item')",
                Write,
            ),
            ("SELECT runs('SELECT 1'), writes()", Write),
            // What is not known.
            ("SELECT runs($1)", Write),
            ("SELECT runs(a) FROM item", Write),
            ("SELECT runs(NULL)", Write),
            ("SELECT runs()", Write),
            ("SELECT runs('SELECT 1' || '')", Write),
            ("SELECT runs('SELECT 1'::text)", Write),
            ("SELECT runs(q => 'SELECT 1')", Write),
            ("SELECT runs(q := 'SELECT 1')", Write),
            ("SELECT runs(VARIADIC 'SELECT 1')", Write),
            ("SELECT runs(DISTINCT 'SELECT 1')", Write),
            ("SELECT runs(('SELECT 1'))", Write),
            ("SELECT runs((SELECT 'SELECT 1'))", Write),
            ("SELECT runs(lower('SELECT 1'))", Write),
            ("SELECT ('SELECT 1').runs", Write),
            ("SELECT i.runs FROM item i", Write),
            // Where a literal's value is not sure, or its end.
            ("SELECT runs('SELECT \\ 1')", Write),
            ("SELECT runs(E'SELECT \\x31')", Write),
            ("SELECT runs(E'DROP\\x20TABLE item')", Write),
            ("SELECT runs(U&'SELECT 1')", Write),
            ("SELECT runs(U&'DROP!0020TABLE item' UESCAPE '!')", Write),
            ("SELECT runs('DROP '\n'TABLE item')", Write),
            ("SELECT runs('SELECT '\n'1')", Write),
            ("SELECT runs(B'1')", Write),
            ("SELECT runs('SELECT \0 FROM item FOR '' UPDATE')", Write),
            ("SELECT runs('SELECT ''\\'''')", Write),
            // Other functions of the name.
            ("SELECT other.runs('SELECT 1')", Write),
        ],
    );
}

/// A decision about one text is never that about another.
#[test]
fn texts_of_one_shape_do_not_share_what_they_give() {
    let texts = [
        ("SELECT runs('SELECT 1')", Read),
        ("SELECT runs('DROP TABLE item')", Write),
        ("SELECT runs('SELECT * FROM item')", Read),
        ("SELECT runs('SELECT * FROM unlogged')", PrimaryRead),
        ("SELECT runs('SELECT 1') ", Read),
        ("SELECT runs($a$DROP TABLE item$a$)", Write),
        ("SELECT lower('SELECT 1')", Read),
        ("SELECT lower('DROP TABLE item')", Read),
    ];
    let scope = Scope::with(Catalogue::new(&maker().0, &Lists::default()));
    for first in 0..texts.len() {
        let classifier = Classifier::new(1 << 20, &[]);
        for number in 0..3 * texts.len() {
            let (text, expected) = texts[(first + number) % texts.len()];
            let decision = classifier.classify_in(&scope, text.as_bytes()).decision;
            assert_eq!(decision.class, expected, "{text}");
        }
        // Nothing is decided again.
        let of = |text: &str| classifier.classify_in(&scope, text.as_bytes()).decision;
        for (text, _) in texts {
            assert!(std::sync::Arc::ptr_eq(&of(text), &of(text)), "{text}");
        }
        let [one, other] = [texts[6].0, texts[7].0];
        assert!(std::sync::Arc::ptr_eq(&of(one), &of(other)));
        // Before the database is known, and in another one, it is a write.
        assert_eq!(
            classifier.classify(texts[0].0.as_bytes()).decision.class,
            Write
        );
    }
}

#[test]
fn what_a_replica_refused_is_learned_of_what_was_given() {
    let scope = Scope::with(Catalogue::new(&maker().0, &Lists::default()));
    let classifier = Classifier::new(1 << 20, &[]);
    let class = |text: &str| {
        classifier
            .classify_in(&scope, text.as_bytes())
            .decision
            .class
    };
    let [refused, other] = ["SELECT runs('SELECT 1')", "SELECT runs('SELECT 2')"];
    assert_eq!([class(refused), class(other)], [Read, Read]);
    classifier.remember_as_write_in(&scope, refused.as_bytes());
    assert_eq!([class(refused), class(other)], [Write, Read]);
    let [learned] = &classifier.learned_writes()[..] else {
        panic!("{:?}", classifier.learned_writes());
    };
    assert_eq!(&*learned.text, refused);
    assert!(classifier.forget(learned.fingerprint));
    assert_eq!([class(refused), class(other)], [Read, Read]);
}

#[test]
fn a_function_that_is_replaced_takes_its_decisions_along() {
    let scope = Scope::new();
    let classifier = Classifier::new(1 << 20, &[]);
    let class = || {
        let text = b"SELECT f('SELECT 1')";
        classifier.classify_in(&scope, text).decision.class
    };
    for (body, expected) in [
        ("BEGIN EXECUTE q; END", Read),
        ("BEGIN EXECUTE q; DELETE FROM item; END", Write),
        ("BEGIN EXECUTE q || ' FOR UPDATE'; END", Write),
        ("BEGIN EXECUTE q || ' LIMIT 1'; END", Read),
        ("BEGIN RETURN q; END", Read),
        ("BEGIN EXECUTE lower(q); END", Write),
    ] {
        let mut maker = Maker::default();
        runs(&mut maker, "f", body);
        assert!(scope.publish(Catalogue::new(&maker.0, &Lists::default())));
        assert_eq!(class(), expected, "{body}");
        assert_eq!(class(), expected, "{body}");
    }
}

#[test]
fn only_parameters_that_come_as_they_are_given_count() {
    let class = |parameters: &[Option<&str>], body: &str, call: &str| {
        let mut maker = maker();
        maker.body("f", Language::PlPgSql, body, "");
        maker.give_parameters(parameters);
        maker.class(call)
    };
    let both = [Some("a"), Some("")];
    let call = "SELECT f('SELECT 1', 'DROP TABLE item')";
    assert_eq!(class(&both, "BEGIN EXECUTE a; END", call), Read);
    assert_eq!(class(&both, "BEGIN EXECUTE $1; END", call), Read);
    assert_eq!(class(&both, "BEGIN EXECUTE $2; END", call), Write);
    assert_eq!(
        class(&both, "BEGIN EXECUTE a; EXECUTE $2; END", call),
        Write
    );
    assert_eq!(class(&both, "BEGIN EXECUTE b; END", call), Write);
    // A number, or a name that is cut after 63 bytes.
    assert_eq!(
        class(&[None, Some("b")], "BEGIN EXECUTE $1; END", call),
        Write
    );
    assert_eq!(class(&[], "BEGIN EXECUTE $1; END", call), Write);
    let by_default = "SELECT f('SELECT 1')";
    assert_eq!(class(&both, "BEGIN EXECUTE a; END", by_default), Read);
    assert_eq!(
        class(&both, "BEGIN EXECUTE a || $2; END", by_default),
        Write
    );
}

#[test]
fn of_several_functions_of_a_name_all_count() {
    let mut maker = maker();
    maker.function("runs", "");
    maker.function("app.runs", "");
    runs(
        &mut maker,
        "explains",
        "BEGIN EXECUTE q || ' FOR UPDATE'; END",
    );
    maker.volatile("app.counts");
    runs(&mut maker, "lower", "BEGIN EXECUTE q; END");
    runs(&mut maker, "nextval", "BEGIN EXECUTE q; END");
    maker.classes(
        Lists::default(),
        &[
            ("SELECT runs('SELECT 1')", Read),
            ("SELECT runs('DROP TABLE item')", Write),
            ("SELECT app.runs('DROP TABLE item')", Read),
            ("SELECT explains('SELECT 1')", Write),
            ("SELECT counts('item')", Write),
            ("SELECT public.counts('item')", Read),
            ("SELECT lower('SELECT 1')", Read),
            ("SELECT lower('a')", Write),
            ("SELECT pg_catalog.lower('a')", Read),
            ("SELECT nextval('SELECT 1')", Write),
        ],
    );
}

#[test]
fn what_else_the_function_does_counts_too() {
    let mut maker = maker();
    for (name, body) in [
        ("also_writes", "BEGIN EXECUTE q; PERFORM writes(); END"),
        (
            "over_view",
            "BEGIN EXECUTE q; PERFORM * FROM writing_view; END",
        ),
        (
            "over_primary",
            "BEGIN EXECUTE q; PERFORM * FROM unlogged; END",
        ),
        ("by_value", "BEGIN EXECUTE q USING writes(); END"),
        ("inside", "BEGIN EXECUTE q || quote_literal(writes()); END"),
        ("itself", "BEGIN EXECUTE q; PERFORM itself('SELECT 1'); END"),
        ("another", "BEGIN EXECUTE q; PERFORM runs(q); END"),
        ("in_turn", "BEGIN RETURN runs('SELECT 1'); END"),
        (
            "constant",
            "BEGIN EXECUTE 'SELECT * FROM item' USING q; END",
        ),
        ("constant_write", "BEGIN EXECUTE 'DELETE FROM item'; END"),
        ("in_parts", "BEGIN EXECUTE 'DELETE' || ' FROM item'; END"),
        (
            "constant_primary",
            "BEGIN EXECUTE 'SELECT * FROM unlogged'; END",
        ),
        (
            "with_literals",
            "BEGIN EXECUTE format('SELECT * FROM item WHERE a = %L', q); END",
        ),
        (
            "with_calls",
            "BEGIN EXECUTE format('SELECT writes(%L)', q); END",
        ),
    ] {
        runs(&mut maker, name, body);
    }
    let view = maker.relation("over_runs", Nature::Plain, "SELECT runs('SELECT 1')");
    let used = maker.id_of("runs");
    maker.edge(view, used);
    maker.function("stable", "SELECT runs('SELECT 1')");
    maker.classes(
        Lists::default(),
        &[
            ("SELECT also_writes('SELECT 1')", Write),
            ("SELECT over_view('SELECT 1')", Write),
            ("SELECT over_primary('SELECT 1')", PrimaryRead),
            ("SELECT by_value('SELECT 1')", Write),
            ("SELECT inside('SELECT 1')", Write),
            ("SELECT another('SELECT 1')", Write),
            ("SELECT constant(a) FROM item", Read),
            ("SELECT constant_write('SELECT 1')", Write),
            ("SELECT in_parts('SELECT 1')", Write),
            ("SELECT constant_primary(a) FROM item", PrimaryRead),
            ("SELECT with_literals(a) FROM item", Read),
            ("SELECT with_calls(a) FROM item", Write),
            ("SELECT itself('SELECT 1')", Read),
            ("SELECT itself('DROP TABLE item')", Write),
            // What rests on them is not looked at so closely.
            ("SELECT in_turn('SELECT 1')", Write),
            ("SELECT * FROM over_runs", Write),
            ("SELECT stable()", Write),
        ],
    );
}

/// What joins and formats texts may be another thing than PostgreSQL's.
#[test]
fn texts_are_put_together_by_postgresql_s_own_functions_only() {
    for (kind, name) in [(Kind::Operator, "||"), (Kind::Function, "app.format")] {
        let mut maker = maker();
        maker.add(kind, name, Nature::Plain, "");
        let [joins, formats] = match kind {
            Kind::Operator => [Write, Read],
            _ => [Read, Write],
        };
        maker.classes(
            Lists::default(),
            &[
                ("SELECT runs('SELECT 1')", Read),
                ("SELECT counts('item')", joins),
                ("SELECT explains('SELECT 1')", formats),
            ],
        );
    }
}

#[test]
fn lists_win_over_what_is_given() {
    let patterns = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        Patterns::new(&names)
    };
    let lists = Lists {
        read_only_functions: patterns(&["runs"]),
        write_functions: patterns(&["explains"]),
        ..Lists::default()
    };
    maker().classes(
        lists,
        &[
            ("SELECT runs('DROP TABLE item')", Read),
            ("SELECT runs($1)", Read),
            ("SELECT explains('SELECT 1')", Write),
            ("SELECT counts('item')", Read),
        ],
    );
}

/// Profiles by table, and temporary tables, rest on it.
#[test]
fn what_is_given_is_read_by_the_statement() {
    let scope = Scope::with(Catalogue::new(&maker().0, &Lists::default()));
    let classifier = Classifier::new(1 << 20, &[]);
    for (text, expected) in [
        ("SELECT runs('SELECT * FROM secret')", true),
        ("SELECT runs('SELECT runs(''SELECT * FROM secret'')')", true),
        ("SELECT counts('secret') FROM item", true),
        ("SELECT counts('item')", false),
    ] {
        let decision = classifier.classify_in(&scope, text.as_bytes()).decision;
        let reads_it = decision.relations.iter().any(|it| &*it.name == "secret");
        assert_eq!(reads_it, expected, "{text}: {:?}", decision.relations);
    }
}

/// However it is nested, and however often a function runs what it is given.
#[test]
fn what_is_given_is_judged_in_linear_time() {
    let mut maker = maker();
    let body = format!("BEGIN {} END", "EXECUTE q; ".repeat(200));
    runs(&mut maker, "often", &body);
    let often = format!("SELECT often('SELECT {}')", "1, ".repeat(5_000) + "1");
    assert_eq!(maker.class(&often), Write);
    let mut nested = "SELECT 1".to_owned();
    for depth in 0..12 {
        let class = maker.class(&nested);
        assert_eq!(class == Read, depth <= 3, "{depth}: {class:?}");
        nested = format!("SELECT often($d{depth}${nested}$d{depth}$)");
        nested = nested.replacen("often", "runs", 1);
    }
    let mut many = "SELECT 1".to_owned();
    for depth in 0..3 {
        many = format!("SELECT often($d{depth}${many}$d{depth}$)");
    }
    assert_eq!(maker.class(&many), Write);
}

const PIECES: [&str; 24] = [
    "SELECT ",
    "runs(",
    "counts(",
    "explains(",
    "'item'",
    "'SELECT 1'",
    "'SELECT writes()'",
    "'DELETE FROM item'",
    "'",
    "''",
    "$a$",
    "E'",
    "\\",
    "$1",
    "1",
    ")",
    "(",
    ", ",
    ";",
    " FROM item ",
    "lower(",
    "\n",
    "--",
    "writes()",
];

proptest! {
    /// A classifier that has seen texts of the same shape decides like one that has seen none; and whatever
    /// stands between quotes, what deletes is no read where a function may run it.
    #[test]
    fn what_is_remembered_is_what_is_decided(
        pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..14),
    ) {
        thread_local! {
            static WORLD: (RefCell<Classifier>, Scope) = (
                RefCell::new(Classifier::new(1 << 20, &[])),
                Scope::with(Catalogue::new(&maker().0, &Lists::default())),
            );
        }
        let text = format!("SELECT {}", pieces.concat());
        WORLD.with(|(experienced, scope)| {
            let remembered = experienced.borrow().classify_in(scope, text.as_bytes());
            let fresh = Classifier::new(1 << 16, &[]).classify_in(scope, text.as_bytes());
            assert_eq!(remembered.decision, fresh.decision, "{text}");
            let runs_it = ["'DELETE FROM item'", "'SELECT writes()'"].iter().any(|given| {
                text.contains(&format!("runs({given})"))
            });
            let is_plain = !text.contains(['\\', '$']) && !text.contains("--") && !text.contains("''");
            let quotes = text.matches('\'').count();
            if runs_it && is_plain && quotes == 2 {
                assert_ne!(fresh.decision.class, Read, "{text}");
            }
        });
    }
}
