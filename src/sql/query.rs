//! SELECT, VALUES, TABLE and WITH: a query is a read only if its whole tree says so. The parser's
//! tree is walked by naming every field: what is not known to be harmless here is a write. Before
//! that, the tokens alone rule out what must never pass, whatever the parser makes of it.

use sqlparser::ast::Query;
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Token, TokenWithSpan};

use super::canonical::{canonical, letters};
use super::catalogue::Finding;
use super::classify::{Part, Rules};
use super::expression::LIKES;
use super::given;
use super::lexer::{self, Kind};
use super::names;
use super::reader::{self, Reader};
use super::tree::Walk;
use super::{Class, Relation};

pub(super) fn classify(rules: &Rules, text: &[u8], tokens: &[lexer::Token]) -> Part {
    if let Some(reason) = writes_by_tokens(rules, text, tokens) {
        return Part {
            is_ddl: makes_table(text, tokens),
            ..Part::write(reason)
        };
    }
    if let Some(reason) = exceeds_parser(text, tokens) {
        return Part::write(reason);
    }
    let Some(query) = parse(canonical(text, tokens)) else {
        return Part {
            is_unparsed: true,
            ..Part::write("the parser does not know its syntax")
        };
    };
    let mut walk = Walk::new(*rules, given::judge(rules, text, tokens));
    let everything = names::everything(rules.catalogue);
    let mut seen = walk.query(&query).and_then(|()| walk.found(everything));
    let likes = |token: &lexer::Token| {
        let mut words = ["LIKE", "ILIKE"].iter();
        words.any(|word| reader::is_word(text, *token, word))
    };
    if tokens.iter().any(likes) {
        seen = seen.and_then(|()| walk.operators(&LIKES));
    }
    // The tree has them in other words; what writes has been ruled out.
    for sign in tokens.iter().filter(|it| it.kind == Kind::Operator) {
        let sign = text.get(sign.start..sign.end).unwrap_or_default();
        let found = rules.operator(&String::from_utf8_lossy(sign));
        seen = seen.and_then(|()| walk.found(found));
    }
    if let Err(reason) = seen {
        return Part::write(reason);
    }
    match walk.into_found() {
        (Some(reason), relations) => Part::new(Class::PrimaryRead, reason).reading(relations),
        (None, relations) => Part::new(Class::Read, "it only reads").reading(relations),
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

/// Reading the whole of a relation, given by its path of names.
pub(super) fn read_of_relation(rules: &Rules, path: &[String]) -> Part {
    let path: Vec<String> = path.iter().cloned().map(letters).collect();
    match rules.relation(&path) {
        Finding::Reads => {
            let mut relations: Vec<Relation> = relation(&path).into_iter().collect();
            if let (Some(catalogue), Some((name, schemas))) = (rules.catalogue, path.split_last()) {
                let schema = schemas.last().map(String::as_str);
                relations.extend_from_slice(catalogue.below_relation(schema, name));
            }
            Part::new(Class::Read, "it only reads").reading(relations)
        }
        Finding::Primary(reason) => Part::new(Class::PrimaryRead, reason),
        Finding::Writes(reason) => Part::write(reason),
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
            Kind::Operator => {
                let sign = String::from_utf8_lossy(source(Some(token)));
                writing(rules.operator(&sign))
            }
            Kind::Quoted => unsafe_type(rules, text, *token),
            Kind::Word => {
                let first = before.is_none_or(|_| matches!(source(before), b"(" | b")"));
                let after = tokens.get(index + 1..).unwrap_or_default();
                writing_word(rules, text, *token, first, after)
                    .or_else(|| unsafe_type(rules, text, *token))
            }
            _ => None,
        }
    })
}

/// What `value.name` may call.
fn calls_by_attribute(
    rules: &Rules,
    text: &[u8],
    token: lexer::Token,
    of_value: bool,
) -> Option<String> {
    if !matches!(token.kind, Kind::Word | Kind::Quoted) {
        return None;
    }
    let name = letters(reader::identifier(text, token).unwrap_or_default());
    writing(rules.attribute(&name, of_value))
}

/// The type that an identifier may name, wherever that stands, if casts to it do more than read:
/// the parser takes some names for types of other dialects.
fn unsafe_type(rules: &Rules, text: &[u8], token: lexer::Token) -> Option<String> {
    let catalogue = rules
        .catalogue
        .filter(|catalogue| catalogue.has_unsafe_types())?;
    let name = letters(reader::identifier(text, token)?);
    // The row of a table is a type too, and named far more often for the table.
    if catalogue.relation(rules.how, None, &name).is_some() {
        return None;
    }
    let found = catalogue.type_named(None, &name)?;
    // No cast is of the primary alone.
    (*found > Finding::Reads).then(|| writing(found.clone()).unwrap_or(name))
}

fn writing(finding: Finding) -> Option<String> {
    match finding {
        Finding::Writes(reason) => Some(reason.into()),
        Finding::Primary(_) | Finding::Reads => None,
    }
}

/// What a keyword and the tokens behind it say; `first` if a statement may begin here.
fn writing_word(
    rules: &Rules,
    text: &[u8],
    word: lexer::Token,
    first: bool,
    after: &[lexer::Token],
) -> Option<String> {
    // By the first letter: this is asked of every word.
    let letter = text.get(word.start).map(u8::to_ascii_lowercase);
    if !matches!(letter, Some(b'i' | b'f' | b'u' | b'd' | b'm' | b'o')) {
        return None;
    }
    let mut after = Reader::new(text, after);
    let is = |keywords: &[&str]| {
        let mut keywords = keywords.iter();
        keywords.any(|keyword| reader::is_word(text, word, keyword))
    };
    if is(&["INTO"]) {
        return Some("SELECT INTO creates a table".to_owned());
    }
    if is(&["FOR"]) && after.accept_any(&["UPDATE", "SHARE", "NO", "KEY"]) {
        return Some("it locks rows".to_owned());
    }
    if first && is(&["INSERT", "UPDATE", "DELETE", "MERGE"]) {
        return Some("a part of it changes rows".to_owned());
    }
    if is(&["OPERATOR"])
        && after.accept_sign("(")
        && let Some(schema) = after.identifier()
        && schema != "pg_catalog"
    {
        after.accept_sign(".");
        let sign = String::from_utf8_lossy(after.peek_source());
        return writing(rules.operator_in_schema(&sign));
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

/// `SELECT ... INTO`: an INTO that belongs to no INSERT or MERGE.
fn makes_table(text: &[u8], tokens: &[lexer::Token]) -> bool {
    let is = |token: lexer::Token, word| reader::is_word(text, token, word);
    tokens
        .windows(2)
        .any(|pair| is(pair[1], "INTO") && !is(pair[0], "INSERT") && !is(pair[0], "MERGE"))
}

fn parse(tokens: Vec<TokenWithSpan>) -> Option<Query> {
    const RECURSION_LIMIT: usize = 64;
    let dialect = PostgreSqlDialect {};
    let parser = Parser::new(&dialect).with_recursion_limit(RECURSION_LIMIT);
    let mut parser = parser.with_tokens_with_locations(tokens);
    let query = parser.parse_query().ok()?;
    // What it left unread it has not understood.
    (parser.peek_token().token == Token::EOF).then_some(*query)
}
