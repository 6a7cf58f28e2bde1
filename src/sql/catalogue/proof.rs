//! Whether a function that is volatile by declaration only reads: its body shows it. Each query of the
//! body is classified like a client's, with the names of this catalogue.
//!
//! At first all bodies are hoped to be fine. What is not, is refuted, and all is looked at again with
//! what that makes of the names, until what is left holds together. So functions that call one another,
//! or themselves, are read too: somewhere in what they do there would have to be a body that writes.

use std::cell::Cell;

use super::{Body, Catalogue, Finding, Language, Rows};
use crate::sql::Class;
use crate::sql::classify::{self, Rules};
use crate::sql::lexer::{Kind, Lexer, Token};
use crate::sql::lists::Lists;
use crate::sql::plpgsql::{self, begins_query};
use crate::sql::reader::Reader;

/// What is known of a function's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// It has none that could be read.
    None,
    /// Nothing has been found against it.
    Holds,
    /// It may do more than read, for this reason.
    Fails(Box<str>),
}

/// What is known of all bodies.
pub(super) struct Proofs<'a> {
    lists: &'a Lists,
    /// In the order of the objects.
    pub by_place: Vec<Proof>,
    /// What may still be refuted.
    hopes: Vec<Hope>,
    rounds: usize,
}

/// The queries of a body, of which nothing is known to write.
struct Hope {
    place: usize,
    queries: Vec<Vec<u8>>,
}

/// Names in bodies tell at once what rests on what is refuted, but for a few ways to call a function
/// without its parentheses: hardly ever a third round is needed.
const MOST_ROUNDS: usize = 8;

impl<'a> Proofs<'a> {
    pub fn hoped_for(rows: &'a Rows, lists: &'a Lists) -> Proofs<'a> {
        let mut hopes = Vec::new();
        let judge = |(place, object): (usize, &super::Object)| {
            let Some(body) = &object.body else {
                return Proof::None;
            };
            match queries(body) {
                Ok(queries) => {
                    hopes.push(Hope { place, queries });
                    Proof::Holds
                }
                Err(reason) => Proof::Fails(reason.into()),
            }
        };
        let by_place = rows.objects.iter().enumerate().map(judge).collect();
        Proofs {
            lists,
            by_place,
            hopes,
            rounds: 0,
        }
    }

    /// Looks at what is hoped for with names as they are if all of it holds, and tells whether it does.
    /// `findings` are of all objects, in their order.
    pub fn hold(&mut self, catalogue: &Catalogue, findings: &[Finding]) -> bool {
        self.rounds += 1;
        let missed = Cell::new(false);
        let rules = Rules {
            lists: self.lists,
            catalogue: Some(catalogue),
            missed: &missed,
        };
        let by_place = &mut self.by_place;
        let gives_up = self.rounds > MOST_ROUNDS;
        let mut all_hold = true;
        self.hopes.retain(|hope| {
            let at_most = match findings.get(hope.place) {
                Some(Finding::Reads) => Class::Read,
                Some(Finding::Primary(_)) => Class::PrimaryRead,
                // It rests on what writes, and will do so whatever else is refuted.
                Some(Finding::Writes(_)) | None => return false,
            };
            let refusal = match gives_up {
                true => Some("too much rests on it".into()),
                false => hope
                    .queries
                    .iter()
                    .find_map(|it| refusal(&rules, it, at_most)),
            };
            let holds = refusal.is_none();
            if let (Some(reason), Some(proof)) = (refusal, by_place.get_mut(hope.place)) {
                *proof = Proof::Fails(reason);
            }
            all_hold &= holds;
            holds
        });
        all_hold
    }
}

/// Why a query is not one that only reads.
fn refusal(rules: &Rules, query: &[u8], at_most: Class) -> Option<Box<str>> {
    let decision = classify::classify(rules, query);
    let only_reads = (Class::Read..=at_most).contains(&decision.class);
    let changes_nothing = decision.effects.is_empty() && !decision.copies_in && !decision.is_ddl;
    match only_reads && changes_nothing && decision.statements == 1 {
        true => None,
        false => Some((&*decision.reason.0).into()),
    }
}

/// All queries that a call may run; or the reason why that cannot be told.
fn queries(body: &Body) -> Result<Vec<Vec<u8>>, String> {
    let source = body.source.as_bytes();
    let mut queries = match body.language {
        Language::Sql => of_sql(source)?,
        Language::PlPgSql => plpgsql::queries(source)?,
    };
    if !body.defaults.is_empty() {
        queries.push([b"SELECT ", body.defaults.as_bytes()].concat());
    }
    Ok(queries)
}

/// `query; ...`, `BEGIN ATOMIC query; ... END`, `RETURN expression`.
fn of_sql(text: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let mut lexer = Lexer::new(text);
    let tokens: Vec<Token> = lexer.by_ref().collect();
    let is_unclear = |token: &Token| matches!(token.kind, Kind::Broken | Kind::UnicodeName);
    let unclear = || "where its parts end is not clear".to_owned();
    if lexer.ambiguous || tokens.iter().any(is_unclear) {
        return Err(unclear());
    }
    let source = |tokens: &[Token]| {
        let whole = tokens.first().zip(tokens.last());
        whole.and_then(|(first, last)| text.get(first.start..last.end))
    };
    let mut reader = Reader::new(text, &tokens);
    if reader.accept("RETURN") {
        let expression = source(reader.rest()).unwrap_or_default();
        return Ok(vec![[b"SELECT ", expression].concat()]);
    }
    let statements = match (reader.accept_all(&["BEGIN", "ATOMIC"]), reader.rest()) {
        (true, [inside @ .., _end]) => inside,
        _ => &tokens,
    };
    let mut queries = Vec::new();
    for statement in classify::split(text, statements).ok_or_else(unclear)? {
        let reader = Reader::new(text, statement);
        if !begins_query(&reader) {
            let word = String::from_utf8_lossy(reader.peek_source());
            return Err(format!("{word} in it is no query"));
        }
        queries.extend(source(statement).map(<[u8]>::to_vec));
    }
    Ok(queries)
}

#[cfg(test)]
mod tests;
