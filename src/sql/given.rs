//! Calls of functions that run SQL which they are given, such as `explain_it('SELECT ...')`: where what is
//! given is a literal, it is judged like a statement of its own. The tree of a query has no values of
//! literals, so this looks at tokens.

use super::catalogue::{Executes, Finding, Use};
use super::classify::{self, Rules};
use super::dynamic::split;
use super::lexer::{Kind, Token};
use super::reader::{self, Reader};
use super::{Class, Relation};

/// What the calls of a query do with what they are given.
#[derive(Debug, Default)]
pub(super) struct Given {
    by_path: Vec<(Option<String>, String, Finding)>,
    /// What is read by what is given.
    pub relations: Vec<Relation>,
}

/// How much was judged of what one text gives.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spent {
    depth: usize,
    bytes: usize,
}

/// What is given may give on something itself.
const MOST_DEEP: usize = 3;
/// A function may run what it is given more than once, in one text after the other.
const MOST_BYTES: usize = classify::MAX_PARSED_BYTES;
/// What to judge a text costs at the least.
const LEAST_BYTES: usize = 256;

impl Given {
    /// The worst of all calls by this name.
    pub fn of(&self, path: &[String]) -> Option<&Finding> {
        let (name, schemas) = path.split_last()?;
        let mut found = self.by_path.iter();
        let found = found.find(|(schema, it, _)| it == name && schema.as_ref() == schemas.last());
        found.map(|(_, _, finding)| finding)
    }

    fn add(&mut self, schema: Option<String>, name: String, finding: Finding) {
        let known = self
            .by_path
            .iter_mut()
            .find(|(known_schema, known_name, _)| *known_schema == schema && *known_name == name);
        match known {
            Some((_, _, known)) if *known < finding => *known = finding,
            Some(_) => {}
            None => self.by_path.push((schema, name, finding)),
        }
    }
}

/// Of all calls among the tokens of a query.
pub(super) fn judge(rules: &Rules, text: &[u8], tokens: &[Token]) -> Given {
    let mut given = Given::default();
    let Some(catalogue) = rules.catalogue.filter(|it| it.any_executes()) else {
        return given;
    };
    if rules.how == Use::OnlyPlanned {
        return given;
    }
    for index in 0..tokens.len() {
        let Some((schema, name)) = reader::called(text, tokens, index) else {
            continue;
        };
        let Some(executes) = catalogue.executing(schema.as_deref(), &name) else {
            continue;
        };
        rules.notes.by_values.set(true);
        let values = values(text, tokens.get(index + 2..).unwrap_or_default());
        let finding = does(rules, &name, executes, &values, &mut given.relations);
        given.add(schema, name, finding);
    }
    given
}

/// The arguments of a call, from behind its parenthesis; those that are string literals.
fn values(text: &[u8], tokens: &[Token]) -> Vec<Option<String>> {
    let mut inside = Reader::new(text, tokens);
    if !inside.skip_parenthesis() {
        return Vec::new();
    }
    let length = tokens.len() - inside.rest().len() - 1;
    let inside = tokens.get(..length).unwrap_or_default();
    let is_comma = |token: &Token| {
        token.kind == Kind::Punctuation && text.get(token.start..token.end) == Some(b",")
    };
    let value = |argument: &[Token]| match argument {
        [only] => Reader::new(text, &[*only]).literal(),
        _ => None,
    };
    let arguments = split(text, inside, is_comma);
    arguments.into_iter().map(value).collect()
}

/// What one call does.
fn does(
    rules: &Rules,
    name: &str,
    executes: &Executes,
    values: &[Option<String>],
    relations: &mut Vec<Relation>,
) -> Finding {
    let mut worst = executes.always.clone();
    for template in &executes.templates {
        if matches!(worst, Finding::Writes(_)) {
            return worst;
        }
        let found = match template.filled(values) {
            Some(query) => judged(rules, name, query.as_bytes(), relations),
            None => writes(name, "what it is given is not known"),
        };
        worst = worst.max(found);
    }
    worst
}

fn judged(rules: &Rules, name: &str, query: &[u8], relations: &mut Vec<Relation>) -> Finding {
    let notes = rules.notes;
    let Spent { depth, bytes } = notes.given.get();
    let bytes = bytes + query.len().max(LEAST_BYTES);
    if depth >= MOST_DEEP || bytes > MOST_BYTES {
        return writes(name, "what it is given is too much");
    }
    let depth_within = depth + 1;
    notes.given.set(Spent {
        depth: depth_within,
        bytes,
    });
    let decision = classify::classify(rules, query);
    let bytes = notes.given.get().bytes;
    notes.given.set(Spent { depth, bytes });
    let reason = &*decision.reason.0;
    match decision.class {
        Class::Write => writes(name, reason),
        _ if !decision.is_one_query() => writes(name, "it is more than a query"),
        Class::PrimaryRead => Finding::Primary(format!("function {name}() runs: {reason}").into()),
        _ => {
            relations.extend(decision.relations);
            Finding::Reads
        }
    }
}

fn writes(name: &str, reason: &str) -> Finding {
    Finding::Writes(format!("function {name}() runs SQL that it is given: {reason}").into())
}
