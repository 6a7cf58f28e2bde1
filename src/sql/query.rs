//! SELECT, VALUES, TABLE and WITH: a query is a read only if its whole tree says so. The parser's
//! tree is walked by naming every field: what is not known to be harmless here is a write. Before
//! that, the tokens alone rule out what must never pass, whatever the parser makes of it.

use sqlparser::ast::Query;
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use super::classify::{Part, Rules};
use super::fingerprint::canonical;
use super::functions::{self, Verdict};
use super::lexer::{self, Kind};
use super::reader::{self, Reader};
use super::tree::Walk;
use super::{Class, Relation};

pub(super) fn classify(rules: &Rules, text: &[u8], tokens: &[lexer::Token]) -> Part {
    if let Some(reason) = writes_by_tokens(rules, text, tokens) {
        return Part::write(reason);
    }
    if let Some(reason) = exceeds_parser(text, tokens) {
        return Part::write(reason);
    }
    let Some(query) = parse(&canonical(text, tokens)) else {
        return Part::write("the parser does not know its syntax");
    };
    let mut walk = Walk::new(rules);
    if let Err(reason) = walk.query(&query) {
        return Part::write(reason);
    }
    let (node_local, relations) = walk.into_found();
    match node_local {
        Some(reason) => Part::new(Class::PrimaryRead, reason),
        None => Part::new(Class::Read, "it only reads").reading(relations),
    }
}

/// Reading the whole of a relation, given by its path of names.
pub(super) fn read_of_relation(path: &[String]) -> Part {
    match node_local_relation(path) {
        Some(reason) => Part::new(Class::PrimaryRead, reason),
        None => {
            Part::new(Class::Read, "it only reads").reading(relation(path).into_iter().collect())
        }
    }
}

/// A relation by its path of names.
pub(super) fn relation(path: &[String]) -> Option<Relation> {
    let (name, schemas) = path.split_last()?;
    Some(Relation {
        schema: schemas.last().map(|schema| schema.as_str().into()),
        name: name.as_str().into(),
    })
}

/// The reason why only the primary's answer about this relation is right.
pub(super) fn node_local_relation(path: &[String]) -> Option<String> {
    let (name, schemas) = path.split_last()?;
    match schemas.last().map(String::as_str) {
        None | Some("pg_catalog") => {
            functions::is_node_local_relation(name).then(|| format!("{name} is about one node"))
        }
        Some(schema) if schema == "pg_temp" || schema.starts_with("pg_temp_") => {
            Some(format!("{name} is temporary"))
        }
        Some(_) => None,
    }
}

/// Row locks, data-modifying statements inside, SELECT INTO, operators that nobody has judged:
/// told by words that PostgreSQL reserves, so neither a name nor an alias can hide them.
fn writes_by_tokens(rules: &Rules, text: &[u8], tokens: &[lexer::Token]) -> Option<String> {
    tokens.iter().enumerate().find_map(|(index, token)| {
        let before = index.checked_sub(1).and_then(|index| tokens.get(index));
        let source = |token: Option<&lexer::Token>| {
            token.map_or(&b""[..], |token| {
                text.get(token.start..token.end).unwrap_or_default()
            })
        };
        if source(before) == b"." && source(tokens.get(index + 1)) != b"(" {
            let owner = index.checked_sub(2).and_then(|index| tokens.get(index));
            let of_value = matches!(source(owner), b")" | b"]");
            return calls_by_attribute(rules, text, *token, of_value);
        }
        match token.kind {
            Kind::Broken => Some("a token that PostgreSQL refuses".to_owned()),
            Kind::Operator => unknown_operator(rules, source(Some(token))),
            Kind::Word => {
                let first = before.is_none_or(|_| matches!(source(before), b"(" | b")"));
                let after = tokens.get(index + 1..).unwrap_or_default();
                writing_word(text, *token, first, after).map(str::to_owned)
            }
            _ => None,
        }
    })
}

/// `value.name` is a call of `name(value)` if the value has no such column. After a table's name
/// that is taken for a column unless a built-in says otherwise; after a parenthesis in doubt not.
fn calls_by_attribute(
    rules: &Rules,
    text: &[u8],
    token: lexer::Token,
    of_value: bool,
) -> Option<String> {
    if !matches!(token.kind, Kind::Word | Kind::Quoted) {
        return None;
    }
    let name = reader::identifier(text, token).unwrap_or_default();
    match functions::verdict(&name) {
        Some(Verdict::Safe) => None,
        None if !of_value || rules.read_only_functions.contains(name.as_str()) => None,
        _ => Some(format!("(...).{name} may call a function that writes")),
    }
}

fn unknown_operator(rules: &Rules, sign: &[u8]) -> Option<String> {
    let sign = String::from_utf8_lossy(sign);
    let known =
        functions::is_builtin_operator(&sign) || rules.read_only_functions.contains(sign.as_ref());
    (!known).then(|| format!("operator {sign} is not known"))
}

/// What a keyword and the tokens behind it say; `first` if a statement may begin here.
fn writing_word(
    text: &[u8],
    word: lexer::Token,
    first: bool,
    after: &[lexer::Token],
) -> Option<&'static str> {
    let mut after = Reader::new(text, after);
    let is = |keywords: &[&str]| {
        let mut keywords = keywords.iter();
        keywords.any(|keyword| reader::is_word(text, word, keyword))
    };
    if is(&["INTO"]) {
        return Some("SELECT INTO creates a table");
    }
    if is(&["FOR"]) && after.accept_any(&["UPDATE", "SHARE", "NO", "KEY"]) {
        return Some("it locks rows");
    }
    if first && is(&["INSERT", "UPDATE", "DELETE", "MERGE"]) {
        return Some("a part of it changes rows");
    }
    if is(&["OPERATOR"]) && after.accept_sign("(") {
        let schema = after.identifier();
        if schema.is_some_and(|schema| schema != "pg_catalog") {
            return Some("an operator of the user");
        }
    }
    None
}

/// Keeps the parser off texts that would cost it more than linear time or stack: how deep the
/// parentheses go, and how deep a tree the tokens outside of them can make.
fn exceeds_parser(text: &[u8], tokens: &[lexer::Token]) -> Option<&'static str> {
    const MAX_PARENTHESES: usize = 24;
    const MAX_DEPTH: usize = 2_000;
    // Tokens since the last comma, by level of parentheses: each may be a level of the tree.
    let mut levels = vec![0_usize];
    let mut depth = 0;
    for token in tokens {
        match text.get(token.start..token.end).unwrap_or_default() {
            b"(" | b"[" => levels.push(0),
            b")" | b"]" => depth -= levels.pop().unwrap_or(0),
            b"," => depth -= levels.last_mut().map_or(0, std::mem::take),
            b"." => {}
            _ if matches!(token.kind, Kind::Literal(_) | Kind::Number) => {}
            _ => {
                depth += 1;
                if let Some(level) = levels.last_mut() {
                    *level += 1;
                }
            }
        }
        if levels.is_empty() {
            return Some("parentheses that do not match");
        }
        if levels.len() > MAX_PARENTHESES || depth > MAX_DEPTH {
            return Some("too deep to be parsed");
        }
    }
    None
}

fn parse(canonical: &str) -> Option<Query> {
    const RECURSION_LIMIT: usize = 64;
    let dialect = PostgreSqlDialect {};
    let parser = Parser::new(&dialect).with_recursion_limit(RECURSION_LIMIT);
    let mut parser = parser.try_with_sql(canonical).ok()?;
    let query = parser.parse_query().ok()?;
    // What it left unread it has not understood.
    (parser.peek_token().token == Token::EOF).then_some(*query)
}
