//! DO: an anonymous block runs whatever its body says, so the body is looked through for
//! statements that change the session or the catalogue. The rest of it is a write anyway.

use super::PinReason;
use super::classify::Part;
use super::lexer::{Kind, Lexer, Notation, Token};
use super::reader::{self, Reader};

pub(super) fn classify(mut reader: Reader) -> Part {
    reader.next();
    let mut body = None;
    while let Some(token) = reader.next() {
        match token.kind {
            Kind::Literal(Notation::Dollar) => body = Some(reader.source(token)),
            Kind::Word if reader.source(token).eq_ignore_ascii_case(b"language") => {
                let language = reader.identifier().or_else(|| reader.literal());
                if language.as_deref() != Some("plpgsql") {
                    return anything("DO in another language");
                }
            }
            _ => return anything("DO with a body that is not read"),
        }
    }
    let Some(body) = body.map(inside_dollars) else {
        return anything("DO with a body that is not read");
    };
    match (may_change_session(body), may_change_catalogue(body)) {
        (true, _) => anything("DO may change the session"),
        (false, true) => Part::ddl("DO"),
        (false, false) => Part::write("DO"),
    }
}

/// The session and the catalogue may be others behind it.
fn anything(reason: &str) -> Part {
    Part {
        is_ddl: true,
        ..Part::pinned(PinReason::Unknown, reason)
    }
}

/// Words that begin what makes or changes a relation or a function. Dynamic SQL changes the session
/// too, as far as can be told.
fn may_change_catalogue(body: &[u8]) -> bool {
    const WORDS: &[&str] = &["CREATE", "ALTER", "DROP"];
    Lexer::new(body).any(|token| WORDS.iter().any(|word| reader::is_word(body, token, word)))
}

pub(super) fn inside_dollars(literal: &[u8]) -> &[u8] {
    let tag = literal.iter().skip(1).position(|byte| *byte == b'$');
    let tag = tag.map_or(0, |index| index + 2);
    let end = literal.len().saturating_sub(tag);
    literal.get(tag..end).unwrap_or_default()
}

/// Words that begin, or belong to, a statement whose effect outlives the transaction; dynamic SQL
/// can hold any of them.
fn may_change_session(body: &[u8]) -> bool {
    const ANYWHERE: &[&str] = &[
        "EXECUTE",
        "TEMP",
        "TEMPORARY",
        "PG_TEMP",
        "LISTEN",
        "UNLISTEN",
        "LOAD",
        "DISCARD",
        "HOLD",
        "SETSEED",
    ];
    const AT_START: &[&str] = &["SET", "RESET", "PREPARE", "DEALLOCATE", "CALL"];
    const BEFORE_START: &[&str] = &["BEGIN", "THEN", "ELSE", "LOOP"];
    let mut lexer = Lexer::new(body);
    let tokens: Vec<Token> = lexer.by_ref().collect();
    let source = |token: &Token| body.get(token.start..token.end).unwrap_or_default();
    let is = |token: &Token, words: &[&str]| {
        words.iter().any(|word| reader::is_word(body, *token, word))
    };
    let found = tokens.iter().enumerate().any(|(index, token)| {
        let starts = match index.checked_sub(1).and_then(|index| tokens.get(index)) {
            None => true,
            Some(before) => source(before) == b";" || is(before, BEFORE_START),
        };
        let word = source(token).to_ascii_lowercase();
        is(token, ANYWHERE)
            || (starts && is(token, AT_START))
            || matches!(token.kind, Kind::UnicodeName | Kind::Broken)
            || memchr::memmem::find(&word, b"advisory").is_some()
            || memchr::memmem::find(&word, b"set_config").is_some()
    });
    found || lexer.ambiguous
}
