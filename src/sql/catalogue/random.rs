//! Random databases, and random statements about them: one that touches a thing that writes is never
//! a read, and one that touches nothing but reads is one. What touches what is found here from the
//! statement downwards; `spread` goes upwards.

use std::collections::HashSet;

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
    (kind, 0..SCHEMAS.len(), 0..NAMES, 0..14_usize, uses).prop_map(
        |(kind, schema, name, own, uses)| {
            let own = match (kind, own) {
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
                uses,
            }
        },
    )
}

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
            let mut text = own_text.to_owned();
            for used in self.used_by(place) {
                let other = &self.0[used];
                if thing.kind == Kind::Function {
                    // Nothing but its text tells what a body does.
                    text += &match other.kind {
                        Kind::Function => format!("; SELECT {}(1)", other.name),
                        Kind::Operator => format!("; SELECT 1 {} 2", other.name),
                        Kind::Relation => format!("; SELECT * FROM {}", other.name),
                        _ => format!("; SELECT 1::{}", other.name),
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

    /// All that is meant by a name; where it has no schema, in every schema.
    fn named(&self, kind: Kind, schema: Option<&str>, name: &str) -> Vec<usize> {
        let places = self.0.iter().enumerate().filter(|(_, thing)| {
            thing.kind == kind && thing.name == name && schema.is_none_or(|it| it == thing.schema)
        });
        places.map(|(place, _)| place).collect()
    }

    /// The worst of these things and all that they use.
    fn worst(&self, touched: &[usize]) -> Class {
        let mut seen = HashSet::new();
        let mut next: Vec<usize> = touched.to_vec();
        let mut worst = Class::Read;
        while let Some(place) = next.pop() {
            if !seen.insert(place) {
                continue;
            }
            let thing = &self.0[place];
            worst = worst.max(thing.own.class());
            for used in self.used_by(place) {
                match thing.kind {
                    // A body has names, not things.
                    Kind::Function => {
                        let other = &self.0[used];
                        next.extend(self.named(other.kind, None, &other.name));
                    }
                    _ => next.push(used),
                }
            }
        }
        worst
    }
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
        let expected = match world.worst(&writer.bare_types) {
            Class::Read => world.worst(&writer.touched),
            _ => Class::Write,
        };
        let scope = Scope::with(Catalogue::new(&world.rows(), &Lists::default()));
        let decision = Classifier::new(1 << 20, &[]).classify_in(&scope, text.as_bytes()).decision;
        prop_assert_eq!(decision.class, expected, "{}: {:?}", text, decision.reason);
    }
}
