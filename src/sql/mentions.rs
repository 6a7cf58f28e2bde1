//! Which relations and functions a statement names, for people to read: told by where the names
//! stand, so now and then one too many. Nothing is decided by it.

use std::collections::BTreeSet;

use super::lexer::{Kind, Lexer, Token};
use super::reader::Reader;

/// Names as the statement has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mentions {
    pub relations: BTreeSet<String>,
    pub functions: BTreeSet<String>,
}

pub fn mentions(text: &[u8]) -> Mentions {
    let tokens: Vec<Token> = Lexer::new(text).collect();
    let mut reader = Reader::new(text, &tokens);
    let mut mentions = Mentions::default();
    let mut with_names = BTreeSet::new();
    // By level of parentheses: whether a relation may stand here.
    let mut levels = vec![Place::Elsewhere];
    let mut last_word = String::new();
    while let Some(token) = reader.peek() {
        let source = reader.source(token);
        match source {
            b"(" => {
                let place = match (levels.last(), SPECIAL.contains(&last_word.as_str())) {
                    (_, true) => Place::Arguments,
                    (Some(Place::Relation), _) => Place::Relation,
                    _ => Place::Elsewhere,
                };
                levels.push(place);
            }
            b")" if levels.len() > 1 => {
                levels.pop();
                if let Some(place @ Place::Relation) = levels.last_mut() {
                    *place = Place::Named;
                }
            }
            b"," => {
                if let Some(place @ Place::Named) = levels.last_mut() {
                    *place = Place::Relation;
                }
            }
            _ => {}
        }
        let is_name = matches!(token.kind, Kind::Word | Kind::Quoted);
        if !is_name {
            reader.next();
            last_word.clear();
            continue;
        }
        let word = String::from_utf8_lossy(source).to_ascii_lowercase();
        let place = levels.last_mut();
        if token.kind == Kind::Word && BEFORE_RELATION.contains(&word.as_str()) {
            if let Some(place) = place
                && *place != Place::Arguments
            {
                *place = Place::Relation;
            }
            reader.next();
        } else if token.kind == Kind::Word && OTHER_WORDS.contains(&word.as_str()) {
            if let Some(place) = place
                && !["only", "lateral", "as"].contains(&word.as_str())
                && *place != Place::Arguments
            {
                *place = Place::Elsewhere;
            }
            reader.next();
        } else {
            let path = path(&mut reader);
            if reader.peek_is_sign("(") && last_word != "into" {
                mentions.functions.insert(path);
            } else if reader.sees("AS") && defines(reader) {
                with_names.insert(path);
            } else if let Some(place @ Place::Relation) = place {
                *place = Place::Named;
                mentions.relations.insert(path);
            }
        }
        last_word = word;
    }
    mentions.relations.retain(|name| !with_names.contains(name));
    mentions
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A relation's name comes next.
    Relation,
    /// It has come; behind a comma comes another.
    Named,
    Elsewhere,
    /// Of a function that has FROM and the like between its arguments.
    Arguments,
}

const SPECIAL: [&str; 4] = ["extract", "substring", "trim", "overlay"];

const BEFORE_RELATION: [&str; 6] = ["from", "join", "into", "update", "table", "copy"];

/// Keywords that may stand before a parenthesis or between relations.
const OTHER_WORDS: [&str; 47] = [
    "all",
    "and",
    "any",
    "array",
    "as",
    "between",
    "by",
    "case",
    "cross",
    "cube",
    "delete",
    "distinct",
    "else",
    "except",
    "exists",
    "explain",
    "filter",
    "full",
    "group",
    "having",
    "in",
    "inner",
    "insert",
    "intersect",
    "lateral",
    "left",
    "like",
    "limit",
    "materialized",
    "not",
    "on",
    "only",
    "or",
    "order",
    "over",
    "returning",
    "right",
    "rollup",
    "select",
    "set",
    "some",
    "then",
    "union",
    "using",
    "values",
    "when",
    "where",
];

fn path(reader: &mut Reader) -> String {
    let mut parts = Vec::new();
    loop {
        match reader.identifier() {
            Some(part) => parts.push(part),
            None => {
                reader.next();
            }
        }
        if !reader.accept_sign(".") {
            return parts.join(".");
        }
    }
}

/// `AS [NOT] [MATERIALIZED] (`: the name before is one of WITH.
fn defines(mut reader: Reader) -> bool {
    reader.accept("AS");
    reader.accept("NOT");
    reader.accept("MATERIALIZED");
    reader.peek_is_sign("(")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_by_their_places() {
        let table: [(&str, &[&str], &[&str]); 8] = [
            (
                "SELECT lower(a) FROM t WHERE b IN (1, 2)",
                &["t"],
                &["lower"],
            ),
            (
                "SELECT * FROM app.t AS x, \"U\" JOIN v ON f(1) = 2",
                &["U", "app.t", "v"],
                &["f"],
            ),
            (
                "WITH w AS (SELECT * FROM t) SELECT * FROM w, s",
                &["s", "t"],
                &[],
            ),
            (
                "INSERT INTO t (a, b) VALUES (app.f(1), 2)",
                &["t"],
                &["app.f"],
            ),
            (
                "UPDATE t SET a = g(1) FROM u WHERE t.a = u.a",
                &["t", "u"],
                &["g"],
            ),
            (
                "SELECT extract(year FROM d), x.y FROM (SELECT now() AS d FROM t) q",
                &["t"],
                &["extract", "now"],
            ),
            (
                "SELECT * FROM generate_series(1, 2) AS g",
                &[],
                &["generate_series"],
            ),
            ("COPY t TO STDOUT", &["t"], &[]),
        ];
        for (text, relations, functions) in table {
            let found = mentions(text.as_bytes());
            let found: [Vec<&str>; 2] = [&found.relations, &found.functions]
                .map(|names| names.iter().map(String::as_str).collect());
            assert_eq!(found, [relations.to_vec(), functions.to_vec()], "{text}");
        }
    }
}
