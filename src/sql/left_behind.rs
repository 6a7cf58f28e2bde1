//! Calls of functions of the user's that leave something in the session: they count wherever they
//! stand, in whatever statement. This looks at tokens only, and so needs no parse.

use super::canonical::{letters, letters_of};
use super::catalogue::{Catalogue, Use};
use super::classify::{Part, Rules};
use super::lexer::{Kind, Token};
use super::reader::{self, Reader};
use super::{Class, Effect, PinReason};

pub(super) fn with_what_calls_leave(
    rules: &Rules,
    text: &[u8],
    tokens: &[Token],
    mut part: Part,
) -> Part {
    let Some(catalogue) = rules.catalogue.filter(|it| !it.leaves_nothing()) else {
        return part;
    };
    if part.is_ddl && !runs_a_query(text, tokens) {
        return part;
    }
    let begins = |word| {
        let first = tokens.first();
        first.is_some_and(|first| reader::is_word(text, *first, word))
    };
    let is_block = begins("DO");
    let may_commit = is_block || begins("CALL");
    for (index, token) in tokens.iter().enumerate() {
        let (name, reasons) = match token.kind {
            Kind::Literal(_) if is_block => {
                let body = text.get(token.start..token.end).unwrap_or_default();
                ("DO".to_owned(), catalogue.left_by_body(&letters_of(body)))
            }
            _ => left_by_name(catalogue, text, tokens, index),
        };
        for reason in reasons {
            let changes = format!("{name} changes the session");
            part = part
                .at_least(Class::Write, changes)
                .with(Effect::Pin(reason));
            let sets = reason == PinReason::Setting;
            if sets && may_commit && !part.effects.contains(&Effect::MayCommitSettings) {
                part = part.with(Effect::MayCommitSettings);
            }
        }
    }
    part
}

/// What the function or the view that is named at `index` leaves.
fn left_by_name(
    catalogue: &Catalogue,
    text: &[u8],
    tokens: &[Token],
    index: usize,
) -> (String, Vec<PinReason>) {
    let token_at = |index: Option<usize>| index.and_then(|index| tokens.get(index));
    let is_sign = |index: Option<usize>, sign: &[u8]| {
        token_at(index).is_some_and(|it| text.get(it.start..it.end) == Some(sign))
    };
    let name_at = |index: Option<usize>| {
        let name = reader::identifier(text, *token_at(index)?)?;
        Some(letters(name))
    };
    let Some(name) = name_at(Some(index)) else {
        return Default::default();
    };
    let follows_dot = is_sign(index.checked_sub(1), b".");
    let schema = match follows_dot {
        true => name_at(index.checked_sub(2)),
        false => None,
    };
    if is_sign(Some(index + 1), b"(") {
        let reasons = catalogue
            .left_by_function(schema.as_deref(), &name)
            .to_vec();
        return (format!("function {name}()"), reasons);
    }
    let mut reasons = catalogue
        .left_by_relation(schema.as_deref(), &name)
        .to_vec();
    // `value.name` calls a function too, if there is no such column.
    if follows_dot && catalogue.attribute(Use::Run, &name).is_some() {
        reasons.extend_from_slice(catalogue.left_by_function(None, &name));
    }
    (name, reasons)
}

/// DDL that names a function does not call it, but for a table that is made from a query.
fn runs_a_query(text: &[u8], tokens: &[Token]) -> bool {
    let mut reader = Reader::new(text, tokens);
    if !reader.accept("CREATE") {
        return ["SELECT", "WITH", "VALUES", "TABLE", "DO"]
            .iter()
            .any(|word| reader.sees(word))
            || reader.peek_is_sign("(");
    }
    while reader.accept_any(&["TEMP", "TEMPORARY", "LOCAL", "GLOBAL", "UNLOGGED"]) {}
    reader.accept("TABLE")
        && tokens
            .iter()
            .any(|token| reader::is_word(text, *token, "AS"))
}
