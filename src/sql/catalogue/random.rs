//! Random databases, and random statements about them: one that touches a thing that writes is never
//! a read, and one that touches nothing but reads is one. What touches what is found here by asking
//! each thing again and again; `spread` goes from what is touched to what touches it.

use proptest::prelude::*;

use super::*;
use crate::sql::{Class, Classifier, Scope};

/// What a thing is by itself.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Own {
    Reads,
    Primary(Nature, &'static str),
    Writes(Nature, &'static str),
}

impl Own {
    fn class(self) -> Class {
        match self {
            Own::Reads => Class::Read,
            Own::Primary(..) => Class::PrimaryRead,
            Own::Writes(..) => Class::Write,
        }
    }
}

#[derive(Clone, Debug)]
struct Thing {
    kind: Kind,
    schema: &'static str,
    name: String,
    own: Own,
    /// Of a function that is volatile by declaration, with a body that tells more.
    language: Option<Language>,
    /// Places of other things, taken modulo what there is.
    uses: Vec<usize>,
}

const SCHEMAS: [&str; 2] = ["public", "app"];
/// The parser knows none of them.
const SIGNS: [&str; 3] = ["<+>", "<~>", "@#@"];
/// Fewer names than things: some are overloaded, or are in both schemas.
const NAMES: usize = 6;

fn thing() -> impl Strategy<Value = Thing> {
    let kind = prop_oneof![
        4 => Just(Kind::Function),
        4 => Just(Kind::Relation),
        1 => Just(Kind::Operator),
        2 => Just(Kind::TypeByName),
    ];
    let uses = prop::collection::vec(any::<usize>(), 0..3);
    let language = prop_oneof![
        Just(None),
        Just(Some(Language::Sql)),
        Just(Some(Language::PlPgSql)),
    ];
    (
        kind,
        language,
        0..SCHEMAS.len(),
        0..NAMES,
        0..14_usize,
        uses,
    )
        .prop_map(|(kind, language, schema, name, own, uses)| {
            let language = language.filter(|_| kind == Kind::Function);
            let own = match (kind, own) {
                (Kind::Function, _) if let Some(language) = language => own_of_body(language, own),
                (Kind::Function, 0) => Own::Writes(Nature::Volatile, ""),
                (Kind::Function, 1) => Own::Writes(Nature::Plain, "PERFORM nextval('s')"),
                (Kind::Function, 2) => {
                    Own::Writes(Nature::Plain, "SELECT 1 FROM x FOR NO KEY UPDATE")
                }
                (Kind::Function, 3) => Own::Primary(Nature::Plain, "SELECT pg_is_in_recovery()"),
                (Kind::Relation, 0) => Own::Writes(Nature::Plain, "SELECT setval('s', 1)"),
                (Kind::Relation, 1) => Own::Writes(Nature::Plain, "SELECT 1 FOR SHARE"),
                (Kind::Relation, 2) => Own::Primary(Nature::Unlogged, ""),
                (Kind::Relation, 3) => Own::Primary(Nature::Sequence, ""),
                (Kind::Relation, 4) => Own::Primary(Nature::Foreign, ""),
                (Kind::Relation, 5) => {
                    Own::Primary(Nature::Plain, "SELECT * FROM pg_stat_activity")
                }
                _ => Own::Reads,
            };
            let name = match kind {
                Kind::Function => format!("f{name}"),
                Kind::Relation => format!("r{name}"),
                Kind::Operator => SIGNS[name % SIGNS.len()].to_owned(),
                _ => format!("ty{name}"),
            };
            Thing {
                kind,
                schema: SCHEMAS[schema],
                name,
                own,
                language,
                uses,
            }
        })
}

fn own_of_body(language: Language, own: usize) -> Own {
    let writes = |text| Own::Writes(Nature::Volatile, text);
    match (language, own) {
        (_, 0) => writes("INSERT INTO x VALUES (1);"),
        (Language::Sql, 1) => writes("SELECT nextval('s');"),
        (Language::Sql, 2) => writes("SELECT 1 FOR NO KEY UPDATE;"),
        (Language::Sql, 3) => Own::Primary(Nature::Volatile, "SELECT pg_is_in_recovery();"),
        (Language::PlPgSql, 1) => writes("EXECUTE a;"),
        (Language::PlPgSql, 2) => writes("PERFORM 1 FOR SHARE;"),
        (Language::PlPgSql, 3) => Own::Primary(Nature::Volatile, "PERFORM pg_is_in_recovery();"),
        _ => Own::Reads,
    }
}

/// Where an expression stands in PL/pgSQL.
const IN_PLPGSQL: [&str; 16] = [
    "PERFORM {};",
    "a := {};",
    "a[{}] = 1;",
    "IF {} > 0 THEN NULL; ELSE NULL; END IF;",
    "IF false THEN NULL; ELSIF {} > 0 THEN NULL; END IF;",
    "CASE {} WHEN 1 THEN NULL; ELSE NULL; END CASE;",
    "CASE WHEN {} > 1 THEN NULL; END CASE;",
    "<<l>> LOOP EXIT l WHEN {} > 1; END LOOP l;",
    "WHILE {} > 1 LOOP NULL; END LOOP;",
    "FOR i IN 1..{} BY 2 LOOP NULL; END LOOP;",
    "FOR r IN SELECT {} LOOP NULL; END LOOP;",
    "FOREACH a IN ARRAY ARRAY[{}] LOOP NULL; END LOOP;",
    "SELECT {}, 1 INTO STRICT a, b.c;",
    "RETURN QUERY SELECT {};",
    "DECLARE a int := {}; BEGIN NULL; EXCEPTION WHEN others THEN NULL; END;",
    "RAISE NOTICE '%', 1 USING hint = {};",
];

/// A database, and what is true of it.
#[derive(Clone, Debug)]
struct World(Vec<Thing>);

impl World {
    fn id(&self, place: usize, kind: Kind) -> ObjectId {
        let oid = u32::try_from(place).unwrap() + 20_000;
        ObjectId { kind, oid }
    }

    /// Places of the things that one uses. Operators and types do nothing but call functions, and
    /// nothing but functions and relations is told by PostgreSQL what they use.
    fn used_by(&self, place: usize) -> Vec<usize> {
        let uses = self.0[place].uses.iter().map(|it| it % self.0.len());
        let kind = self.0[place].kind;
        let calls_only = matches!(kind, Kind::Operator | Kind::TypeByName);
        uses.filter(|used| *used != place && (!calls_only || self.0[*used].kind == Kind::Function))
            .collect()
    }

    fn rows(&self) -> Rows {
        let mut rows = Rows::default();
        for (place, thing) in self.0.iter().enumerate() {
            let id = self.id(place, thing.kind);
            let (nature, own_text) = match thing.own {
                Own::Reads => (Nature::Plain, ""),
                Own::Primary(nature, text) | Own::Writes(nature, text) => (nature, text),
            };
            if let Some(language) = thing.language {
                let body = Body {
                    language,
                    source: self.body(place, language, own_text).into(),
                    defaults: "".into(),
                    parameters: Box::default(),
                };
                rows.objects
                    .push(Object::volatile(id, [thing.schema, &thing.name], body));
                continue;
            }
            let mut text = own_text.to_owned();
            for used in self.used_by(place) {
                let other = &self.0[used];
                if thing.kind == Kind::Function {
                    // Nothing but its text tells what a body does.
                    let name = self.name_in_body(place, used);
                    text += &match other.kind {
                        Kind::Function => format!("; SELECT {name}(1)"),
                        Kind::Operator => format!("; SELECT 1 {name} 2"),
                        Kind::Relation => format!("; SELECT * FROM {name}"),
                        _ => format!("; SELECT 1::{name}"),
                    };
                } else {
                    let used = self.id(used, other.kind);
                    rows.edges.push(Edge { user: id, used });
                }
            }
            let names = [thing.schema, thing.name.as_str(), text.as_str()];
            rows.objects.push(Object::new(id, names, nature));
        }
        rows
    }

    /// The schema that a body says with a name, if it says one.
    fn schema_in_body(&self, place: usize, used: usize) -> Option<&'static str> {
        let used_thing = &self.0[used];
        let may_have_one = matches!(used_thing.kind, Kind::Function | Kind::Relation);
        (may_have_one && (place + used).is_multiple_of(2)).then_some(used_thing.schema)
    }

    fn name_in_body(&self, place: usize, used: usize) -> String {
        let name = &self.0[used].name;
        match self.schema_in_body(place, used) {
            Some(schema) => format!("{schema}.{name}"),
            None => name.clone(),
        }
    }

    fn body(&self, place: usize, language: Language, own: &str) -> String {
        let mut body = own.to_owned();
        for (number, used) in self.used_by(place).into_iter().enumerate() {
            let name = self.name_in_body(place, used);
            let expression = match self.0[used].kind {
                Kind::Function => format!("{name}(1)"),
                Kind::Operator => format!("(1 {name} 2)"),
                Kind::Relation => format!("(SELECT count(*) FROM {name})"),
                _ => format!("(1::{name})"),
            };
            body += &match language {
                Language::Sql => format!("SELECT {expression};"),
                Language::PlPgSql => {
                    IN_PLPGSQL[(place + number) % IN_PLPGSQL.len()].replace("{}", &expression)
                }
            };
        }
        match language {
            Language::Sql => body,
            Language::PlPgSql => format!("BEGIN {body} END"),
        }
    }

    /// All that is meant by a name; where it has no schema, in every schema.
    fn named(&self, kind: Kind, schema: Option<&str>, name: &str) -> Vec<usize> {
        let places = self.0.iter().enumerate().filter(|(_, thing)| {
            thing.kind == kind && thing.name == name && schema.is_none_or(|it| it == thing.schema)
        });
        places.map(|(place, _)| place).collect()
    }

    /// What each thing is with all that it uses.
    fn classes(&self) -> Vec<Class> {
        let mut classes: Vec<Class> = self.0.iter().map(|thing| thing.own.class()).collect();
        loop {
            let next: Vec<Class> = (0..self.0.len())
                .map(|place| self.class(place, &classes))
                .collect();
            if next == classes {
                return classes;
            }
            classes = next;
        }
    }

    fn class(&self, place: usize, classes: &[Class]) -> Class {
        let thing = &self.0[place];
        let mut class = classes[place];
        for used in self.used_by(place) {
            let other = &self.0[used];
            let of_used = match thing.kind {
                // A body has names, not things.
                Kind::Function => {
                    let schema = self.schema_in_body(place, used);
                    worst(classes, &self.named(other.kind, schema, &other.name))
                }
                _ => classes[used],
            };
            // As in a statement, see `Writer::bare_types`.
            let is_bare_type = thing.language.is_some() && other.kind == Kind::TypeByName;
            class = class.max(match of_used {
                Class::Read => Class::Read,
                _ if is_bare_type => Class::Write,
                worse => worse,
            });
        }
        class
    }
}

fn worst(classes: &[Class], touched: &[usize]) -> Class {
    let touched = touched.iter().map(|place| classes[*place]);
    touched.max().unwrap_or(Class::Read)
}

/// A statement under construction: its text, and what it touches.
#[derive(Clone, Debug)]
enum Expr {
    One,
    Call(usize, Box<Expr>),
    Operator(Box<Expr>, usize, Box<Expr>),
    Cast(Box<Expr>, usize),
    Case(Box<Expr>, Box<Expr>),
    Query(Box<Query>),
}

#[derive(Clone, Debug)]
enum Source {
    Relation(usize),
    Call(usize),
    Query(Box<Query>),
}

#[derive(Clone, Debug)]
struct Query {
    place: usize,
    expr: Expr,
    sources: Vec<Source>,
}

fn expr() -> impl Strategy<Value = Expr> {
    Just(Expr::One).prop_recursive(3, 8, 2, |inner| {
        let boxed = inner.clone().prop_map(Box::new).boxed();
        let source = prop_oneof![
            4 => any::<usize>().prop_map(Source::Relation),
            1 => any::<usize>().prop_map(Source::Call),
        ];
        let query = (any::<usize>(), inner, prop::collection::vec(source, 0..3)).prop_map(
            |(place, expr, sources)| Query {
                place,
                expr,
                sources,
            },
        );
        prop_oneof![
            2 => (any::<usize>(), boxed.clone()).prop_map(|(name, of)| Expr::Call(name, of)),
            1 => (boxed.clone(), any::<usize>(), boxed.clone())
                .prop_map(|(left, sign, right)| Expr::Operator(left, sign, right)),
            1 => (boxed.clone(), any::<usize>()).prop_map(|(of, name)| Expr::Cast(of, name)),
            1 => (boxed.clone(), boxed.clone()).prop_map(|(when, then)| Expr::Case(when, then)),
            2 => query.prop_map(|query| Expr::Query(Box::new(query))),
        ]
    })
}

fn query() -> impl Strategy<Value = Query> {
    let nested = expr().prop_map(|expr| match expr {
        Expr::Query(query) => Source::Query(query),
        _ => Source::Relation(0),
    });
    let source = prop_oneof![
        4 => any::<usize>().prop_map(Source::Relation),
        1 => any::<usize>().prop_map(Source::Call),
        1 => nested,
    ];
    (any::<usize>(), expr(), prop::collection::vec(source, 0..4)).prop_map(
        |(place, expr, sources)| Query {
            place,
            expr,
            sources,
        },
    )
}

/// Writes statements down and keeps what they touch.
struct Writer<'a> {
    world: &'a World,
    touched: Vec<usize>,
    /// Of the touched the types that are named without a schema: in the place of any name they may
    /// hide from the parser, so one that does more than to read counts as one that writes.
    bare_types: Vec<usize>,
    aliases: usize,
}

impl Writer<'_> {
    /// A name of something that there is, half of the time with its schema; none if there is no
    /// such thing.
    fn name(&mut self, kind: Kind, pick: usize) -> Option<String> {
        let things = &self.world.0;
        let of_kind: Vec<&Thing> = things.iter().filter(|thing| thing.kind == kind).collect();
        let thing = *of_kind.get(pick.checked_rem(of_kind.len())?)?;
        let schema = (pick / of_kind.len())
            .is_multiple_of(2)
            .then_some(thing.schema);
        let schema = schema.filter(|_| kind != Kind::Operator);
        let named = self.world.named(kind, schema, &thing.name);
        if kind == Kind::TypeByName && schema.is_none() {
            self.bare_types.extend(&named);
        }
        self.touched.extend(named);
        Some(match schema {
            Some(schema) => format!("{schema}.{}", thing.name),
            None => thing.name.clone(),
        })
    }

    fn expr(&mut self, expr: &Expr) -> String {
        match expr {
            Expr::One => "1".to_owned(),
            Expr::Call(pick, of) => {
                let of = self.expr(of);
                let name = self.name(Kind::Function, *pick);
                format!("{}({of})", name.as_deref().unwrap_or("abs"))
            }
            Expr::Operator(left, pick, right) => {
                let (left, right) = (self.expr(left), self.expr(right));
                let sign = self.name(Kind::Operator, *pick);
                format!("({left} {} {right})", sign.as_deref().unwrap_or("+"))
            }
            Expr::Cast(of, pick) => {
                let of = self.expr(of);
                let name = self.name(Kind::TypeByName, *pick);
                format!("({of})::{}", name.as_deref().unwrap_or("int"))
            }
            Expr::Case(when, then) => {
                let (when, then) = (self.expr(when), self.expr(then));
                format!("CASE WHEN {when} > 0 THEN {then} END")
            }
            Expr::Query(query) => format!("({})", self.query(query)),
        }
    }

    fn query(&mut self, query: &Query) -> String {
        let expr = self.expr(&query.expr);
        let sources: Vec<String> = query.sources.iter().map(|it| self.source(it)).collect();
        let from = match sources.as_slice() {
            [] => String::new(),
            [one, rest @ ..] if query.place.is_multiple_of(2) => {
                let joins = rest.iter().map(|it| format!(" LEFT JOIN {it} ON true"));
                format!(" FROM {one}{}", joins.collect::<String>())
            }
            all => format!(" FROM {}", all.join(", ")),
        };
        match query.place % 9 {
            0 => format!("SELECT {expr}{from}"),
            1 => format!("SELECT 1{from} WHERE {expr} > 1"),
            2 => format!("SELECT 1{from} ORDER BY {expr}"),
            3 => format!("SELECT count(*) FILTER (WHERE {expr} > 1){from}"),
            4 => format!("SELECT 1{from} GROUP BY 1 HAVING {expr} > 1"),
            5 => format!("SELECT 1{from} LIMIT {expr}"),
            6 => format!("WITH w AS (SELECT {expr}{from}) SELECT * FROM w"),
            7 => format!("SELECT 1{from} UNION ALL VALUES ({expr})"),
            _ => format!("SELECT sum(1) OVER (PARTITION BY {expr}){from}"),
        }
    }

    fn source(&mut self, source: &Source) -> String {
        self.aliases += 1;
        let alias = format!("a{}", self.aliases);
        match source {
            Source::Relation(pick) => match self.name(Kind::Relation, *pick) {
                Some(name) => format!("{name} AS {alias}"),
                None => format!("generate_series(1, 2) AS {alias}"),
            },
            Source::Call(pick) => match self.name(Kind::Function, *pick) {
                Some(name) => format!("{name}(1) AS {alias}"),
                None => format!("(SELECT 1) AS {alias}"),
            },
            Source::Query(query) => format!("({}) AS {alias}", self.query(query)),
        }
    }
}

/// Kinds of statements that do what their query does.
const AROUND: [(&str, &str); 5] = [
    ("", ""),
    ("COPY (", ") TO STDOUT"),
    ("EXPLAIN ANALYZE ", ""),
    ("DECLARE c CURSOR FOR ", ""),
    ("SHOW work_mem; ", "; SELECT 1"),
];

proptest! {
    #[test]
    fn what_touches_a_thing_that_writes_is_no_read_and_nothing_else_is_a_write(
        things in prop::collection::vec(thing(), 1..14),
        query in query(),
        around in 0..AROUND.len(),
    ) {
        let world = World(things);
        let mut writer = Writer { world: &world, touched: Vec::new(), bare_types: Vec::new(), aliases: 0 };
        let (before, behind) = AROUND[around];
        let text = format!("{before}{}{behind}", writer.query(&query));
        let classes = world.classes();
        let expected = match worst(&classes, &writer.bare_types) {
            Class::Read => worst(&classes, &writer.touched),
            _ => Class::Write,
        };
        let scope = Scope::with(Catalogue::new(&world.rows(), &Lists::default()));
        let decision = Classifier::new(1 << 20, &[]).classify_in(&scope, text.as_bytes()).decision;
        prop_assert_eq!(decision.class, expected, "{}: {:?}", text, decision.reason);
    }
}
