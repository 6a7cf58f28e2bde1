//! Catalogues of few objects, and what statements are with them.

use super::*;
use crate::sql::{Class, Classifier, Patterns, Scope};

/// Makes rows by name; the OID of an object is its place.
#[derive(Default)]
pub(super) struct Maker(pub Rows);

impl Maker {
    pub fn add(&mut self, kind: Kind, name: &str, nature: Nature, text: &str) -> ObjectId {
        let oid = u32::try_from(self.0.objects.len()).unwrap();
        let id = ObjectId { kind, oid };
        let (schema, name) = name.split_once('.').unwrap_or(("public", name));
        let object = Object {
            takes_one_argument: kind == Kind::Function,
            ..Object::new(id, [schema, name, text], nature)
        };
        self.0.objects.push(object);
        id
    }

    pub fn function(&mut self, name: &str, body: &str) -> ObjectId {
        self.add(Kind::Function, name, Nature::Plain, body)
    }

    pub fn volatile(&mut self, name: &str) -> ObjectId {
        self.add(Kind::Function, name, Nature::Volatile, "")
    }

    pub fn relation(&mut self, name: &str, nature: Nature, text: &str) -> ObjectId {
        self.add(Kind::Relation, name, nature, text)
    }

    pub fn edge(&mut self, user: ObjectId, used: ObjectId) {
        self.0.edges.push(Edge { user, used });
    }

    /// A volatile function whose body can be read.
    pub fn body(&mut self, name: &str, language: Language, source: &str, defaults: &str) {
        let id = self.volatile(name);
        let (schema, name) = name.split_once('.').unwrap_or(("public", name));
        let body = Body {
            language,
            source: source.into(),
            defaults: defaults.into(),
            parameters: Box::default(),
        };
        let object = Object {
            takes_one_argument: true,
            ..Object::volatile(id, [schema, name], body)
        };
        self.0.objects.pop();
        self.0.objects.push(object);
    }

    /// The function that was added last has these; texts among them have a name.
    pub fn give_parameters(&mut self, parameters: &[Option<&str>]) {
        let parameters = parameters.iter().map(|it| it.map(Box::from));
        let last = self.0.objects.last_mut().and_then(|it| it.body.as_mut());
        last.unwrap().parameters = parameters.collect();
    }

    pub fn id_of(&self, name: &str) -> ObjectId {
        let mut objects = self.0.objects.iter();
        objects.find(|object| &*object.name == name).unwrap().id
    }

    pub fn class(&self, text: &str) -> Class {
        let scope = Scope::with(Catalogue::new(&self.0, &Lists::default()));
        let classifier = Classifier::new(1 << 20, &[]);
        classifier
            .classify_in(&scope, text.as_bytes())
            .decision
            .class
    }

    pub fn classes(self, lists: Lists, table: &[(&str, Class)]) {
        let scope = Scope::with(Catalogue::new(&self.0, &lists));
        let classifier = Classifier::with_lists(1 << 20, lists);
        for (text, expected) in table {
            let decision = classifier.classify_in(&scope, text.as_bytes()).decision;
            assert_eq!(decision.class, *expected, "{text}: {:?}", decision.reason);
        }
    }
}

use Class::{PrimaryRead, Read, Write};

#[test]
fn functions_have_the_worst_of_their_overloads() {
    let mut maker = Maker::default();
    maker.function("reads", "SELECT 1");
    maker.volatile("writes");
    maker.function("both", "");
    maker.volatile("other.both");
    maker.volatile("lower");
    maker.function("lies", "BEGIN RETURN nextval('s'); END");
    maker.function("dynamic", "EXECUTE 'SELECT writes()'");
    maker.function("indirect", "SELECT lies()");
    maker.function("asks", "SELECT pg_is_in_recovery()");
    maker.function("harmless", "SELECT upper('writes')");
    maker.classes(
        Lists::default(),
        &[
            ("SELECT reads()", Read),
            ("SELECT public.reads(1)", Read),
            ("SELECT other.reads()", Write),
            ("SELECT writes()", Write),
            ("SELECT both()", Write),
            ("SELECT public.both()", Read),
            ("SELECT other.both()", Write),
            ("SELECT lower('A')", Write),
            ("SELECT pg_catalog.lower('A')", Read),
            ("SELECT upper('A')", Read),
            ("SELECT lies()", Write),
            ("SELECT dynamic()", Write),
            ("SELECT indirect()", Write),
            ("SELECT asks()", PrimaryRead),
            ("SELECT harmless()", Read),
            ("SELECT unknown()", Write),
            ("SELECT (x).writes FROM (SELECT 1) x", Write),
            ("SELECT (x).reads FROM (SELECT 1) x", Read),
            ("SELECT x.writes FROM (SELECT 1) x", Write),
            ("SELECT x.other FROM (SELECT 1) x", Read),
        ],
    );
}

#[test]
fn relations_do_what_they_are_made_of() {
    let mut maker = Maker::default();
    let volatile = maker.volatile("writes");
    let plain = maker.relation("plain", Nature::Plain, "");
    let view = maker.relation("view", Nature::Plain, "SELECT writes()");
    maker.edge(view, volatile);
    let above = maker.relation("above", Nature::Plain, "SELECT * FROM view");
    maker.edge(above, view);
    let fine = maker.relation("fine", Nature::Plain, "SELECT lower(a) FROM plain");
    maker.edge(fine, plain);
    maker.relation("locking", Nature::Plain, "SELECT * FROM plain FOR UPDATE");
    maker.relation("activity", Nature::Plain, "SELECT * FROM pg_stat_activity");
    maker.relation("recovery", Nature::Plain, "SELECT pg_is_in_recovery()");
    let sequence = maker.relation("app.numbers", Nature::Sequence, "");
    let shows = maker.relation("shows", Nature::Plain, "SELECT last_value FROM numbers");
    maker.edge(shows, sequence);
    let part = maker.relation("part", Nature::Unlogged, "");
    let whole = maker.relation("whole", Nature::Plain, "");
    maker.edge(whole, part);
    maker.relation("far", Nature::Foreign, "");
    maker.relation("tëst", Nature::Sequence, "");
    maker.classes(
        Lists::default(),
        &[
            ("SELECT * FROM plain", Read),
            ("TABLE plain", Read),
            ("COPY plain TO STDOUT", Read),
            ("SELECT * FROM view", Write),
            ("COPY (TABLE above) TO STDOUT", Write),
            (
                "SELECT * FROM plain, LATERAL (SELECT 1 FROM public.above) x",
                Write,
            ),
            ("SELECT * FROM other.view", Write),
            ("SELECT * FROM fine", Read),
            ("SELECT * FROM locking", Write),
            ("SELECT * FROM activity", PrimaryRead),
            ("SELECT * FROM recovery", PrimaryRead),
            ("SELECT last_value FROM numbers", PrimaryRead),
            ("COPY app.numbers TO STDOUT", PrimaryRead),
            ("SELECT * FROM shows", PrimaryRead),
            ("SELECT * FROM whole", PrimaryRead),
            ("SELECT * FROM far", PrimaryRead),
            ("SELECT * FROM \"tëst\"", PrimaryRead),
            ("COPY tëst TO STDOUT", PrimaryRead),
            ("SELECT * FROM unknown", Write),
            ("WITH w AS (SELECT 1) SELECT * FROM w", Read),
            (
                "WITH RECURSIVE w AS (SELECT 1 UNION ALL SELECT * FROM w) TABLE w",
                Read,
            ),
            ("SELECT * FROM (WITH w AS (SELECT 1) TABLE w) x, w", Write),
            ("WITH view AS (SELECT 1) SELECT * FROM view", Write),
        ],
    );
}

#[test]
fn types_and_operators_do_what_their_functions_do() {
    let mut maker = Maker::default();
    let volatile = maker.volatile("writes");
    let reads = maker.function("reads", "");
    for (name, function) in [
        ("<+>", volatile),
        ("<->", reads),
        ("+", reads),
        ("=", volatile),
    ] {
        let operator = maker.add(Kind::Operator, name, Nature::Plain, "");
        maker.edge(operator, function);
    }
    maker.add(Kind::TypeByName, "pg_catalog.regrole", Nature::Plain, "");
    let checked = maker.add(
        Kind::TypeByName,
        "checked",
        Nature::Plain,
        "CHECK (writes() > 1)",
    );
    maker.edge(checked, volatile);
    let stored = maker.relation("stored", Nature::Plain, "");
    let values = maker.add(Kind::TypeInUse, "checked", Nature::Plain, "");
    maker.edge(stored, values);
    maker.edge(checked, values);
    let shown = maker.add(Kind::TypeInUse, "shown", Nature::Plain, "");
    maker.edge(shown, volatile);
    let table = maker.relation("of_shown", Nature::Plain, "");
    maker.edge(table, shown);
    maker.classes(
        Lists::default(),
        &[
            ("SELECT 1 <+> 2", Write),
            ("SELECT 1 <-> 2", Read),
            ("SELECT 1 + 2", Read),
            ("SELECT 1 OPERATOR(public.+) 2", Read),
            ("SELECT 1 OPERATOR(public.-) 2", Write),
            ("SELECT 1 = 2", Write),
            ("SELECT 1 - 2", Read),
            ("SELECT 1::checked", Write),
            ("SELECT CAST(1 AS public.checked)", Write),
            ("SELECT '{1}'::checked[]", Write),
            ("SELECT checked '1'", Write),
            ("SELECT checked(1)", Write),
            ("SELECT 'a'::regrole", Read),
            ("SELECT 'a'::unknown", Write),
            ("SELECT * FROM stored", Read),
            ("SELECT * FROM of_shown", Write),
        ],
    );
}

#[test]
fn words_stand_for_operators() {
    let table: [(&str, &[&str]); 12] = [
        ("=", &["SELECT 1 IN (2)", "SELECT 1 NOT IN (SELECT 2)"]),
        (
            "=",
            &["SELECT CASE 1 WHEN 2 THEN 3 END", "SELECT nullif(1, 2)"],
        ),
        (
            "=",
            &[
                "SELECT 1 IS DISTINCT FROM 2",
                "SELECT 1 IS NOT DISTINCT FROM 2",
            ],
        ),
        (
            "=",
            &[
                "SELECT * FROM plain JOIN plain p USING (a)",
                "SELECT * FROM plain NATURAL JOIN plain p",
            ],
        ),
        ("<>", &["SELECT 1 NOT IN (2)"]),
        ("<=", &["SELECT 1 BETWEEN 2 AND 3"]),
        (">=", &["SELECT 1 BETWEEN SYMMETRIC 2 AND 3"]),
        (">", &["SELECT 1 NOT BETWEEN 2 AND 3"]),
        (
            "~~",
            &[
                "SELECT a LIKE 'b' FROM plain",
                "SELECT a LIKE ALL (ARRAY['b']) FROM plain",
            ],
        ),
        (
            "!~~",
            &[
                "SELECT a NOT LIKE 'b' FROM plain",
                "SELECT a NOT LIKE ANY (b) FROM plain",
            ],
        ),
        (
            "~~*",
            &[
                "SELECT a ILIKE 'b' FROM plain",
                "SELECT a ILIKE SOME (ARRAY['b']) FROM plain",
            ],
        ),
        ("~", &["SELECT a SIMILAR TO 'b' FROM plain"]),
    ];
    for (sign, texts) in table {
        for (of_writing, expected) in [(true, Write), (false, Read)] {
            let mut maker = Maker::default();
            maker.relation("plain", Nature::Plain, "");
            let function = match of_writing {
                true => maker.volatile("compare"),
                false => maker.function("compare", ""),
            };
            let operator = maker.add(Kind::Operator, sign, Nature::Plain, "");
            maker.edge(operator, function);
            for text in texts {
                assert_eq!(maker.class(text), expected, "{sign}: {text}");
            }
        }
    }
}

#[test]
fn an_implicit_cast_between_built_in_types_can_be_anywhere() {
    let mut maker = Maker::default();
    let everything = maker.add(Kind::Everything, "", Nature::Plain, "");
    let volatile = maker.volatile("writes");
    maker.edge(everything, volatile);
    maker.classes(Lists::default(), &[("SELECT 1", Write)]);
}

#[test]
fn what_the_operator_lists_wins_and_spreads() {
    let mut maker = Maker::default();
    let fine = maker.volatile("app.fine");
    let declared = maker.function("declared", "");
    for (view, function) in [("over_fine", fine), ("over_declared", declared)] {
        let view = maker.relation(view, Nature::Plain, "");
        maker.edge(view, function);
    }
    maker.relation("audit_log", Nature::Plain, "");
    maker.relation("far", Nature::Foreign, "");
    maker.relation("far_audit_log", Nature::Foreign, "");
    let patterns = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        Patterns::new(&names)
    };
    let lists = Lists {
        read_only_functions: patterns(&["app.*", "declared"]),
        write_functions: patterns(&["declared", "upp?r"]),
        primary_tables: patterns(&["*audit_log", "app.unqualified"]),
        replica_tables: patterns(&["far*"]),
        ..Lists::default()
    };
    maker.classes(
        lists,
        &[
            ("SELECT fine()", Read),
            ("SELECT declared()", Write),
            ("SELECT upper('a')", Write),
            ("SELECT pg_catalog.upper('a')", Write),
            ("SELECT * FROM over_fine", Read),
            ("SELECT * FROM over_declared", Write),
            ("SELECT * FROM audit_log", PrimaryRead),
            ("SELECT * FROM public.audit_log", PrimaryRead),
            ("SELECT * FROM unqualified", PrimaryRead),
            ("SELECT * FROM far", Read),
            ("SELECT * FROM far_audit_log", PrimaryRead),
        ],
    );
}

/// However far below, through views and functions, whatever may run where.
#[test]
fn what_reads_a_profiled_table_counts_as_it() {
    let mut maker = Maker::default();
    let secret = maker.relation("secret", Nature::Plain, "");
    let open = maker.relation("open", Nature::Plain, "");
    let view = maker.relation("view", Nature::Plain, "");
    maker.edge(view, secret);
    maker.edge(view, open);
    let above = maker.relation("above", Nature::Plain, "");
    maker.edge(above, view);
    maker.function("counts", "SELECT count(*) FROM above");
    maker.function("harmless", "SELECT count(*) FROM open");
    let lists = Lists {
        profiled_tables: Patterns::new(&["public.sec*".to_owned()]),
        ..Lists::default()
    };
    let scope = Scope::with(Catalogue::new(&maker.0, &lists));
    let classifier = Classifier::new(1 << 20, &[]);
    let table = [
        ("SELECT * FROM secret", true),
        ("SELECT * FROM open", false),
        ("SELECT * FROM view", true),
        ("TABLE public.above", true),
        ("SELECT * FROM open WHERE 1 < counts()", true),
        ("SELECT public.counts()", true),
        ("SELECT * FROM harmless()", false),
        ("SELECT * FROM open, LATERAL (SELECT counts()) AS x", true),
        ("COPY above TO STDOUT", true),
    ];
    for (text, expected) in table {
        let decision = classifier.classify_in(&scope, text.as_bytes()).decision;
        let counts = decision.relations.iter().any(|it| &*it.name == "secret");
        assert_eq!(counts, expected, "{text}: {:?}", decision.relations);
    }
}

#[test]
fn reasons_name_what_is_asked_and_what_is_at_the_bottom() {
    let mut maker = Maker::default();
    let volatile = maker.volatile("app.writes");
    let view = maker.relation("view", Nature::Plain, "");
    maker.edge(view, volatile);
    let above = maker.relation("above", Nature::Plain, "");
    maker.edge(above, view);
    let catalogue = Catalogue::new(&maker.0, &Lists::default());
    let reason = "relation public.above rests on function app.writes(), which is volatile";
    let found = catalogue.relation(Use::Run, None, "above");
    assert_eq!(found, Some(&Finding::Writes(reason.into())));
}

#[test]
fn a_new_catalogue_makes_new_decisions_and_an_equal_one_does_not() {
    let rows = |volatile: bool| {
        let mut maker = Maker::default();
        match volatile {
            true => maker.volatile("f"),
            false => maker.function("f", ""),
        };
        Catalogue::new(&maker.0, &Lists::default())
    };
    let scope = Scope::new();
    let classifier = Classifier::new(1 << 20, &[]);
    let class = || classifier.classify_in(&scope, b"SELECT f()").decision.class;
    assert_eq!(class(), Write);
    assert!(scope.publish(rows(false)));
    assert_eq!(class(), Read);
    let edition = classifier.edition(&scope);
    assert!(!scope.publish(rows(false)));
    assert_eq!(classifier.edition(&scope), edition);
    assert!(scope.publish(rows(true)));
    assert_ne!(classifier.edition(&scope), edition);
    assert_eq!(class(), Write);
    // Other databases have other names.
    assert_eq!(
        classifier
            .classify_in(&Scope::with(rows(false)), b"SELECT f()")
            .decision
            .class,
        Read
    );
}

#[test]
fn a_name_that_is_missed_is_told_once() {
    let scope = Scope::with(Catalogue::new(&Rows::default(), &Lists::default()));
    let classifier = Classifier::new(1 << 20, &[]);
    classifier.classify_in(&scope, b"SELECT 1");
    assert!(!scope.take_missed());
    classifier.classify_in(&scope, b"SELECT * FROM nowhere");
    assert!(scope.take_missed());
    assert!(!scope.take_missed());
}

#[test]
fn what_functions_leave_pins_wherever_they_are_called() {
    use crate::sql::{Effect, PinReason};
    use PinReason::{AdvisoryLock, Setting, SqlPrepare, TemporaryTable};
    let mut maker = Maker::default();
    let body = "BEGIN SET app.x = 1; END";
    maker.add(Kind::Function, "sets", Nature::Volatile, body);
    maker.function("Quoted", "SELECT set_config('a.b', 'c', false)");
    maker.function("app.locks", "SELECT pg_advisory_lock(1)");
    maker.function("both", "SELECT sets(), app.locks()");
    maker.add(
        Kind::Function,
        "makes",
        Nature::Volatile,
        "CREATE TEMP TABLE x ()",
    );
    maker.function("trusted", "BEGIN SET app.x = 1; END");
    maker.function("above_trusted", "SELECT trusted()");
    maker.function("locally", "BEGIN SET LOCAL app.x = 1; END");
    let sets = maker.function("also_sets", "BEGIN RESET ALL; END");
    let view = maker.relation("view", Nature::Plain, "SELECT also_sets()");
    maker.edge(view, sets);
    maker.relation("plain", Nature::Plain, "");
    let table: &[(&str, &[PinReason])] = &[
        ("SELECT sets()", &[Setting]),
        ("SELECT public . sets ()", &[Setting]),
        ("SELECT other.sets()", &[]),
        ("SELECT SETS()", &[Setting]),
        ("SELECT \"Quoted\"()", &[Setting]),
        ("SELECT quoted()", &[]),
        ("SELECT locks()", &[AdvisoryLock]),
        ("SELECT both()", &[AdvisoryLock, Setting]),
        ("SELECT makes()", &[TemporaryTable]),
        ("SELECT trusted(), above_trusted(), locally()", &[]),
        ("SELECT * FROM view", &[Setting]),
        ("SELECT * FROM public.view v, plain", &[Setting]),
        ("SELECT (p).sets FROM plain p", &[Setting]),
        ("SELECT sets FROM plain", &[]),
        ("SELECT 'sets()' FROM plain", &[]),
        ("INSERT INTO plain SELECT sets()", &[Setting]),
        ("CALL sets()", &[Setting]),
        ("DO $$ BEGIN PERFORM sets(); END $$", &[Setting]),
        ("WITH a AS (SELECT sets()) SELECT * FROM a", &[Setting]),
        ("DECLARE c CURSOR FOR SELECT sets()", &[Setting]),
        (
            "SELECT 1; SELECT makes(); SELECT sets()",
            &[TemporaryTable, Setting],
        ),
        ("PREPARE p AS SELECT sets()", &[SqlPrepare, Setting]),
        ("CREATE TABLE t AS SELECT sets()", &[Setting]),
        ("SELECT sets() INTO t", &[Setting]),
        (
            "CREATE FUNCTION sets() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            &[],
        ),
        ("DROP FUNCTION sets()", &[]),
        ("GRANT EXECUTE ON FUNCTION sets() TO app", &[]),
        ("CREATE VIEW v AS SELECT sets()", &[]),
    ];
    let lists = Lists {
        read_only_functions: Patterns::new(&["trusted".to_owned()]),
        ..Lists::default()
    };
    let scope = Scope::with(Catalogue::new(&maker.0, &lists));
    let classifier = Classifier::with_lists(1 << 20, lists);
    for (text, expected) in table {
        let decision = classifier.classify_in(&scope, text.as_bytes()).decision;
        let pins = decision.effects.iter().filter_map(|effect| match effect {
            Effect::Pin(reason) => Some(*reason),
            _ => None,
        });
        assert!(
            pins.eq(expected.iter().copied()),
            "{text}: {:?}",
            decision.effects
        );
        let is_write = decision.class == Write;
        assert!(
            is_write || expected.is_empty(),
            "{text}: {:?}",
            decision.class
        );
    }
}

#[test]
fn a_read_may_mean_a_temporary_relation_by_its_words_or_by_code_that_looks_names_up() {
    let mut maker = Maker::default();
    maker.relation("note", Nature::Plain, "");
    let looks = maker.function("looks", "SELECT count(*) FROM mine");
    let view = maker.relation("view", Nature::Plain, "SELECT looks()");
    maker.edge(view, looks);
    let above = maker.relation("above", Nature::Plain, "SELECT * FROM view");
    maker.edge(above, view);
    let operator = maker.add(Kind::Operator, "<->", Nature::Plain, "");
    maker.edge(operator, looks);
    let domain = maker.add(Kind::TypeByName, "domain", Nature::Plain, "");
    maker.edge(domain, looks);
    let in_c = maker.function("in_c", "");
    let shapes = maker.relation("shapes", Nature::Plain, "");
    maker.edge(shapes, in_c);
    let catalogue = Catalogue::new(&maker.0, &Lists::default());
    let names: [Box<str>; 2] = ["mine".into(), "other".into()];
    for (text, expected) in [
        (
            "SELECT * FROM note WHERE id = $1 AND text <> 'x' -- mine",
            false,
        ),
        (
            "SELECT upper(text), count(*) FROM public.note GROUP BY 1",
            false,
        ),
        ("SELECT * FROM shapes", false),
        ("SELECT * FROM mine", true),
        ("SELECT * FROM note, MINE", true),
        ("SELECT * FROM \"mine\"", true),
        ("SELECT * FROM \"MINE\"", false),
        ("SELECT mine.id FROM note mine", true),
        ("SELECT NULL::mine FROM note", true),
        ("SELECT * FROM note WHERE id = 'Mine'::text::int", true),
        ("SELECT * FROM note WHERE id = $1::regclass", true),
        ("SELECT has_table_privilege($1, 'select')", true),
        ("SELECT * FROM information_schema.tables", true),
        ("SELECT relname FROM pg_class", true),
        ("SELECT looks()", true),
        ("SELECT in_c()", true),
        ("SELECT * FROM view", true),
        ("SELECT * FROM public.above", true),
        ("SELECT id <-> id FROM note", true),
        ("SELECT id::domain FROM note", true),
        ("SELECT U&\"m\\0069ne\" FROM note", true),
        ("SELECT 'a\\' FROM note", true),
    ] {
        let found = crate::sql::may_mean(&catalogue, text.as_bytes(), &names);
        assert_eq!(found, expected, "{text}");
    }
}

#[test]
fn what_a_body_names_with_its_schema_is_judged_by_that() {
    let mut maker = Maker::default();
    maker.function("f", "");
    maker.volatile("app.f");
    maker.relation("t", Nature::Plain, "");
    maker.relation("app.t", Nature::Sequence, "");
    for (name, body) in [
        ("plainly", "SELECT public.f()"),
        ("of_other", "SELECT app.f()"),
        ("without", "SELECT f()"),
        ("aliased", "SELECT x.f() FROM (SELECT 1) AS x"),
        ("quoted", "SELECT \"app\".f()"),
        ("spaced", "SELECT app . f()"),
        ("put_together", "EXECUTE 'SELECT ' || 'app.f()'"),
        ("formatted", "EXECUTE format('SELECT %I.f()', s)"),
        ("reads", "SELECT * FROM public.t"),
        ("reads_other", "SELECT * FROM app.t"),
        ("reads_any", "SELECT * FROM t"),
    ] {
        maker.function(name, body);
    }
    maker.classes(
        Lists::default(),
        &[
            ("SELECT plainly()", Read),
            ("SELECT of_other()", Write),
            ("SELECT without()", Write),
            ("SELECT aliased()", Write),
            ("SELECT quoted()", Write),
            ("SELECT spaced()", Write),
            ("SELECT put_together()", Write),
            ("SELECT formatted()", Write),
            ("SELECT reads()", Read),
            ("SELECT reads_other()", PrimaryRead),
            ("SELECT reads_any()", PrimaryRead),
        ],
    );
}

#[test]
fn code_that_may_change_the_catalogue_is_told_where_it_is_called() {
    use crate::sql::Code;
    let mut maker = Maker::default();
    let add = |maker: &mut Maker, name: &str, body: &str| {
        maker.add(Kind::Function, name, Nature::Volatile, body);
    };
    add(
        &mut maker,
        "makes",
        "BEGIN CREATE TABLE x (); DELETE FROM t; END",
    );
    add(
        &mut maker,
        "app.drops",
        "EXECUTE format('DROP TABLE %I', t)",
    );
    add(&mut maker, "runs", "BEGIN EXECUTE q; END");
    add(&mut maker, "calls", "BEGIN CALL public.makes(); END");
    add(&mut maker, "writes", "BEGIN DELETE FROM t; END");
    add(&mut maker, "in_python", "plpy.execute('CREATE TABLE x ()')");
    maker.relation("t", Nature::Plain, "");
    let scope = Scope::with(Catalogue::new(&maker.0, &Lists::default()));
    let classifier = Classifier::new(1 << 20, &[]);
    for (text, expected) in [
        ("CALL makes()", Code::Remakes),
        ("CALL public.Makes(1)", Code::Remakes),
        ("CALL app.drops()", Code::Remakes),
        ("CALL public.drops()", Code::Remakes),
        ("CALL runs('x')", Code::Remakes),
        ("CALL calls()", Code::Remakes),
        ("CALL in_python()", Code::Remakes),
        ("CALL unknown()", Code::Remakes),
        ("CALL writes()", Code::Runs),
        ("SELECT makes()", Code::Remakes),
        ("SELECT 1; SELECT calls()", Code::Remakes),
        ("INSERT INTO t SELECT makes()", Code::Remakes),
        ("DO $$ BEGIN PERFORM makes(); END $$", Code::Remakes),
        ("DO $$ BEGIN PERFORM writes(); END $$", Code::Runs),
        ("SELECT writes(), unknown()", Code::Runs),
        ("INSERT INTO t VALUES (1)", Code::None),
        ("SELECT 'makes()' FROM t", Code::None),
        ("CREATE VIEW v AS SELECT makes()", Code::None),
    ] {
        let decision = classifier.classify_in(&scope, text.as_bytes()).decision;
        assert_eq!(decision.code, expected, "{text}");
    }
    // Nothing is kept of it that could be read again.
    let decision = classifier.classify(b"CALL makes()").decision;
    assert_eq!(decision.code, Code::Runs);
}

#[test]
fn planning_calls_only_what_is_not_volatile() {
    let mut maker = Maker::default();
    let writing = "BEGIN INSERT INTO log VALUES (1); RETURN 1; END";
    maker.relation("log", Nature::Plain, "");
    maker.function("lies", "BEGIN RETURN nextval('s'); END");
    maker.volatile("in_c");
    maker.body("writes", Language::PlPgSql, writing, "");
    maker.body("defaults", Language::PlPgSql, writing, "lies()");
    let constants = "1, 'a, b'::text, NULL::character varying";
    maker.body("constants", Language::PlPgSql, writing, constants);
    maker.body("typed", Language::PlPgSql, writing, "'1'::checked");
    maker.body("in_sql", Language::Sql, "SELECT lies()", "");
    let inserts = "/* */ insert INTO log VALUES (1); SELECT lies()";
    maker.body("inserts", Language::Sql, inserts, "");
    let inserts = "BEGIN ATOMIC INSERT INTO log VALUES (1); END";
    maker.body("atomic", Language::Sql, inserts, "");
    maker.body("both", Language::PlPgSql, writing, "");
    maker.function("other.both", "BEGIN RETURN nextval('s'); END");
    maker.function("above", "SELECT writes(1)");
    maker.body("listed", Language::PlPgSql, writing, "");
    maker.body(
        "asks",
        Language::PlPgSql,
        "BEGIN RETURN pg_is_in_recovery(); END",
        "",
    );
    maker.body("executes", Language::PlPgSql, "BEGIN EXECUTE q; END", "");
    maker.give_parameters(&[Some("q")]);
    let writes = maker.id_of("writes");
    for (kind, name) in [(Kind::Relation, "view"), (Kind::Operator, "<+>")] {
        let user = maker.add(kind, name, Nature::Plain, "");
        maker.edge(user, writes);
    }
    let write_functions = Patterns::new(&["listed".to_owned()]);
    let lists = Lists {
        write_functions,
        ..Lists::default()
    };
    maker.classes(
        lists,
        &[
            ("SELECT writes(1)", Write),
            ("EXPLAIN SELECT writes(1)", Read),
            ("EXPLAIN (COSTS off) SELECT * FROM writes(1)", Read),
            ("EXPLAIN ANALYZE SELECT writes(1)", Write),
            ("EXPLAIN SELECT (r).writes FROM log r", Read),
            ("EXPLAIN SELECT 1 <+> 2", Read),
            ("EXPLAIN ANALYZE SELECT 1 <+> 2", Write),
            ("EXPLAIN SELECT * FROM view", Read),
            ("EXPLAIN ANALYZE SELECT * FROM view", Write),
            ("EXPLAIN SELECT asks()", Read),
            ("SELECT asks()", PrimaryRead),
            ("EXPLAIN SELECT executes('DELETE FROM log')", Read),
            ("EXPLAIN ANALYZE SELECT executes('DELETE FROM log')", Write),
            // Whose values planning may want to know.
            ("EXPLAIN SELECT lies()", Write),
            ("EXPLAIN SELECT writes(lies())", Write),
            ("EXPLAIN SELECT defaults()", Write),
            ("EXPLAIN SELECT constants()", Read),
            ("EXPLAIN SELECT typed()", Write),
            ("EXPLAIN SELECT in_sql()", Write),
            ("EXPLAIN SELECT inserts(), atomic()", Read),
            ("SELECT inserts()", Write),
            ("EXPLAIN SELECT both()", Write),
            ("EXPLAIN SELECT public.both()", Read),
            ("EXPLAIN SELECT above()", Write),
            // In doubt.
            ("EXPLAIN SELECT in_c()", Write),
            ("EXPLAIN SELECT listed()", Write),
            ("EXPLAIN SELECT unknown(writes(1))", Write),
            // It takes locks.
            ("EXPLAIN SELECT writes(1) FROM log FOR UPDATE", Write),
            ("EXPLAIN INSERT INTO log SELECT writes(1)", Write),
            ("EXPLAIN EXECUTE p(writes(1))", Write),
        ],
    );
}
