//! Whether a function that is volatile by declaration only reads: its body shows it. Each query of the
//! body is classified like a client's, with the names of this catalogue.
//!
//! At first all bodies are hoped to be fine. What is not, is refuted, and all is looked at again with
//! what that makes of the names, until what is left holds together. So functions that call one another,
//! or themselves, are read too: somewhere in what they do there would have to be a body that writes.

use super::{Body, Catalogue, Finding, Language, Rows, Use};
use crate::sql::Class;
use crate::sql::classify::{self, Notes, Rules};
use crate::sql::dynamic::{By, Template};
use crate::sql::lexer::{Kind, Lexer, Token};
use crate::sql::lists::Lists;
use crate::sql::plpgsql::{self, Ran, begins_query};
use crate::sql::reader::Reader;

/// What is known of a function's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// It has none that could be read.
    None,
    /// Nothing has been found against it.
    Holds,
    /// The same, but for what it runs of what it is given.
    RunsWhatItIsGiven(Vec<Template>),
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
    /// By what it puts together what it executes.
    by: Vec<By>,
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
            match hope(place, body) {
                Ok((hope, given)) => {
                    hopes.push(hope);
                    match given.is_empty() {
                        true => Proof::Holds,
                        false => Proof::RunsWhatItIsGiven(given),
                    }
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
    /// `findings` are of all objects, in their order, as if none ran what it is given.
    pub fn hold(&mut self, catalogue: &Catalogue, findings: &[Finding]) -> bool {
        self.rounds += 1;
        let notes = Notes::default();
        let rules = Rules {
            lists: self.lists,
            catalogue: Some(catalogue),
            how: Use::Run,
            notes: &notes,
        };
        let is_of_user = |by: &By| match by {
            By::Function(name) => catalogue.function(Use::Run, None, name).is_some(),
            By::Operator(sign) => catalogue.operator(Use::Run, sign).is_some(),
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
                false if hope.by.iter().any(is_of_user) => {
                    Some("how it puts SQL together is not known".into())
                }
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
    rules.notes.given.take();
    let decision = classify::classify(rules, query);
    match decision.is_one_query() && decision.class <= at_most {
        true => None,
        false => Some((&*decision.reason.0).into()),
    }
}

/// All queries that a call may run, and those that it puts together from what it is given; or the reason why
/// that cannot be told.
fn hope(place: usize, body: &Body) -> Result<(Hope, Vec<Template>), String> {
    let source = body.source.as_bytes();
    let Ran {
        mut queries,
        templates,
    } = match body.language {
        Language::Sql => Ran {
            queries: of_sql(source)?,
            ..Ran::default()
        },
        Language::PlPgSql => plpgsql::queries(source, &body.parameters)?,
    };
    if !body.defaults.is_empty() {
        queries.push([b"SELECT ", body.defaults.as_bytes()].concat());
    }
    let by = templates.iter().flat_map(Template::by).copied().collect();
    let (given, constant): (Vec<_>, Vec<_>) = templates
        .into_iter()
        .partition(|template| template.given().next().is_some());
    for template in constant {
        let query = template
            .filled(&[])
            .ok_or("what it executes is no query that is known")?;
        queries.push(query.into_bytes());
    }
    let hope = Hope { place, queries, by };
    Ok((hope, given))
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
