//! What a text does: cuts it into statements, asks [`statement`] about each, and joins the
//! answers. The strongest class wins, effects keep their order.

use std::cell::Cell;

use super::catalogue::{Catalogue, Use};
use super::functions::{self, Verdict};
use super::given;
use super::left_behind::with_what_calls_leave;
use super::lexer::{Kind, Lexer, Token};
use super::lists::Lists;
use super::reader::{self, Reader};
use super::remade::with_what_calls_remake;
use super::settings;
use super::statement;
use super::{Class, Code, Decision, Effect, PinReason, Reason, Relation, ResetStatement, Shown};

/// What the classifier is told besides the text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules<'a> {
    pub lists: &'a Lists,
    /// The names of the session's database, where they are known.
    pub catalogue: Option<&'a Catalogue>,
    /// What happens to the statement that is judged.
    pub how: Use,
    pub notes: &'a Notes,
}

/// What is noticed on the way.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// A name was met that the catalogue does not have.
    pub missed: Cell<bool>,
    /// The values of literals have been looked at: what they are may make another class.
    pub by_values: Cell<bool>,
    /// What was judged of SQL in literals.
    pub given: Cell<given::Spent>,
}

/// Texts longer than this are judged by their keywords alone, and never remembered.
pub(super) const MAX_PARSED_BYTES: usize = 64 * 1024;

/// The answer for one statement.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub class: Class,
    pub effects: Vec<Effect>,
    pub copies_in: bool,
    pub is_ddl: bool,
    pub relations: Vec<Relation>,
    pub is_unparsed: bool,
    pub code: Code,
    pub shows: Shown,
    pub reason: String,
}

impl Part {
    pub fn new(class: Class, reason: impl Into<String>) -> Self {
        Part {
            class,
            effects: Vec::new(),
            copies_in: false,
            is_ddl: false,
            relations: Vec::new(),
            is_unparsed: false,
            code: Code::None,
            shows: Shown::Data,
            reason: reason.into(),
        }
    }

    /// Where it reads these.
    pub fn reading(mut self, relations: Vec<Relation>) -> Self {
        self.relations = relations;
        self
    }

    pub fn anywhere(reason: &str, effect: Effect) -> Self {
        Part::new(Class::Anywhere, reason).with(effect)
    }

    pub fn write(reason: impl Into<String>) -> Self {
        Part::new(Class::Write, reason)
    }

    pub fn ddl(reason: impl Into<String>) -> Self {
        Part {
            is_ddl: true,
            ..Part::write(reason)
        }
    }

    pub fn pinned(pin: PinReason, reason: impl Into<String>) -> Self {
        Part::write(reason).with(Effect::Pin(pin))
    }

    pub fn with(mut self, effect: Effect) -> Self {
        if !(matches!(effect, Effect::Pin(_)) && self.effects.contains(&effect)) {
            self.effects.push(effect);
        }
        self
    }

    /// Where the class is at least this strong.
    pub fn at_least(mut self, class: Class, reason: impl Into<String>) -> Self {
        if self.class < class {
            self.class = class;
            self.reason = reason.into();
        }
        self
    }
}

pub(super) fn classify(rules: &Rules, text: &[u8]) -> Decision {
    let is_long = text.len() > MAX_PARSED_BYTES;
    let mut lexer = Lexer::new(text);
    let tokens: Vec<Token> = if is_long {
        without_values(text, lexer.by_ref())
    } else {
        lexer.by_ref().collect()
    };
    if lexer.ambiguous {
        let reason = "where its literals end depends on standard_conforming_strings";
        return join(vec![Part::pinned(PinReason::Unknown, reason)]);
    }
    let Some(statements) = split(text, &tokens) else {
        let reason = "its statements cannot be told apart";
        return join(vec![Part::pinned(PinReason::Unknown, reason)]);
    };
    let ends = statements
        .iter()
        .map(|tokens| tokens.last().map_or(0, |last| last.end));
    let ends: Vec<usize> = ends.collect();
    let parts = statements.into_iter().map(|tokens| {
        let part = if is_long {
            statement::classify_long(text, tokens)
        } else {
            statement::classify(rules, text, tokens)
        };
        let part = with_session_calls(text, tokens, part);
        let part = with_what_calls_leave(rules, text, tokens, part);
        let part = with_what_calls_remake(rules, text, tokens, part);
        about_the_role(text, tokens, part)
    });
    let parts: Vec<Part> = parts.collect();
    let resets = resets(&parts, &ends);
    Decision {
        resets,
        ..join(parts)
    }
}

/// What of the statements, which end there, makes a server go back to values of its own.
fn resets(parts: &[Part], ends: &[usize]) -> Box<[ResetStatement]> {
    let statements = (0..).zip(parts.iter().zip(ends));
    let resets = statements.flat_map(|(place, (part, end))| {
        let effects = part.effects.iter().filter(|effect| effect.resets());
        effects.map(move |effect| ResetStatement {
            place,
            end: *end,
            effect: effect.clone(),
        })
    });
    resets.collect()
}

/// The tokens of a long text without literals, numbers, commas, and parentheses that then hold
/// nothing and are no call: of the rows of a large INSERT nothing remains, and so no memory is
/// spent on them.
fn without_values(text: &[u8], tokens: impl Iterator<Item = Token>) -> Vec<Token> {
    let source = |token: &Token| text.get(token.start..token.end).unwrap_or_default();
    let mut kept: Vec<Token> = Vec::new();
    for token in tokens {
        let is_value = matches!(
            token.kind,
            Kind::Literal(_) | Kind::Number | Kind::Parameter
        );
        if is_value || source(&token) == b"," {
            continue;
        }
        let is_row = source(&token) == b")"
            && matches!(kept.as_slice(), [.., before, open]
                if source(open) == b"(" && !matches!(before.kind, Kind::Word | Kind::Quoted));
        if is_row {
            kept.pop();
        } else {
            kept.push(token);
        }
    }
    kept
}

fn join(parts: Vec<Part>) -> Decision {
    let mut decision = Decision {
        class: Class::Anywhere,
        statements: u32::try_from(parts.len()).unwrap_or(u32::MAX),
        effects: Box::default(),
        copies_in: false,
        is_ddl: false,
        relations: Box::default(),
        is_unparsed: false,
        code: Code::None,
        shows: Shown::Data,
        resets: Box::default(),
        reason: Reason("an empty query".into()),
    };
    let mut effects = Vec::new();
    let mut relations: Vec<Relation> = Vec::new();
    for (index, part) in parts.into_iter().enumerate() {
        if index == 0 || part.class > decision.class {
            decision.class = part.class;
            decision.reason = Reason(part.reason.into());
        }
        decision.copies_in |= part.copies_in;
        decision.is_ddl |= part.is_ddl;
        decision.is_unparsed |= part.is_unparsed;
        decision.code = decision.code.max(part.code);
        decision.shows = decision.shows.max(part.shows);
        effects.extend(part.effects);
        relations.extend(part.relations);
    }
    decision.effects = effects.into();
    if (Class::Read..=Class::PrimaryRead).contains(&decision.class) {
        decision.relations = relations.into();
    }
    decision
}

/// The texts of the statements of a script; the whole where they cannot be told apart.
pub(super) fn statements(text: &[u8]) -> Vec<&[u8]> {
    let tokens: Vec<Token> = Lexer::new(text).collect();
    let Some(statements) = split(text, &tokens) else {
        return vec![text];
    };
    let source = |tokens: &[Token]| {
        let (first, last) = (tokens.first()?, tokens.last()?);
        text.get(first.start..last.end)
    };
    statements.into_iter().filter_map(source).collect()
}

/// The statements between the semicolons; `None` if an inner block does not end. Semicolons in
/// parentheses (CREATE RULE) and in `BEGIN ATOMIC ... END` (CREATE FUNCTION) separate none.
pub(super) fn split<'t>(text: &[u8], tokens: &'t [Token]) -> Option<Vec<&'t [Token]>> {
    let mut statements = Vec::new();
    let (mut start, mut parentheses, mut blocks) = (0, 0_usize, 0_usize);
    for (index, token) in tokens.iter().enumerate() {
        match text.get(token.start..token.end).unwrap_or_default() {
            b"(" => parentheses += 1,
            b")" => parentheses = parentheses.saturating_sub(1),
            b";" if parentheses == 0 && blocks == 0 => {
                statements.push(tokens.get(start..index).unwrap_or_default());
                start = index + 1;
            }
            _ if token.kind != Kind::Word => {}
            _ if blocks > 0 && reader::is_word(text, *token, "CASE") => blocks += 1,
            _ if blocks > 0 && reader::is_word(text, *token, "END") => blocks -= 1,
            _ if reader::is_word(text, *token, "ATOMIC") => {
                let statement = tokens.get(start..index).unwrap_or_default();
                blocks += usize::from(opens_block(text, statement));
            }
            _ => {}
        }
    }
    statements.push(tokens.get(start..).unwrap_or_default());
    statements.retain(|tokens| !tokens.is_empty());
    (parentheses == 0 && blocks == 0).then_some(statements)
}

/// The tokens before ATOMIC are those of a CREATE FUNCTION or PROCEDURE up to BEGIN.
fn opens_block(text: &[u8], tokens: &[Token]) -> bool {
    let mut reader = Reader::new(text, tokens);
    let begins = tokens
        .last()
        .is_some_and(|token| reader::is_word(text, *token, "BEGIN"));
    if !begins || !reader.accept("CREATE") {
        return false;
    }
    reader.accept_all(&["OR", "REPLACE"]);
    reader.accept_any(&["FUNCTION", "PROCEDURE"])
}

/// Calls that leave something in the session count wherever they stand, in whatever statement:
/// this looks at tokens only and so needs no parse.
pub(super) fn with_session_calls(text: &[u8], tokens: &[Token], mut part: Part) -> Part {
    if is_block_or_call(text, tokens) {
        part.code = Code::Runs;
    }
    for (index, _) in tokens.iter().enumerate() {
        if part.code == Code::None && !part.is_ddl && calls_user_code(text, tokens, index) {
            part.code = Code::Runs;
        }
        let Some(name) = called_builtin(text, tokens, index) else {
            continue;
        };
        let pin = match functions::verdict(&name) {
            Some(Verdict::AdvisoryLock) => PinReason::AdvisoryLock,
            Some(Verdict::Session) if name == "set_config" => {
                // Only a query of nothing but known settings has them as effects.
                let assigns = |effect: &Effect| {
                    matches!(
                        effect,
                        Effect::Set { .. }
                            | Effect::SetExactly { .. }
                            | Effect::SetGiven { .. }
                            | Effect::SetLocal { .. }
                            | Effect::ResetLocal(_)
                    )
                };
                let is_followed = part.class == Class::Anywhere || part.effects.iter().any(assigns);
                if is_followed || is_local_set_config(text, tokens, index) {
                    continue;
                }
                PinReason::Unknown
            }
            Some(Verdict::Session) => PinReason::Unknown,
            _ if matches!(name.as_str(), "currval" | "lastval") => {
                // A column may well be called so.
                let is_call = tokens
                    .get(index + 1)
                    .is_some_and(|next| text.get(next.start..next.end).unwrap_or_default() == b"(");
                if !is_call {
                    continue;
                }
                PinReason::Sequence
            }
            _ if name.starts_with("pg_advisory_unlock") => {
                part = part.with(Effect::MayEndPin);
                continue;
            }
            _ => continue,
        };
        let reason = format!("function {name}() changes the session");
        part = part.at_least(Class::Write, reason).with(Effect::Pin(pin));
    }
    part
}

/// A query that names a setting which tells the node's role asks about the primary.
fn about_the_role(text: &[u8], tokens: &[Token], part: Part) -> Part {
    let names_it = |token: &Token| {
        let source = text.get(token.start..token.end).unwrap_or_default();
        matches!(token.kind, Kind::Literal(_)) && settings::names_the_role(source)
    };
    if part.effects.is_empty() && tokens.iter().any(names_it) {
        return part.at_least(Class::PrimaryRead, "it names a setting that tells the role");
    }
    if part.effects.is_empty() && asks_for_any_setting(text, tokens) {
        return part.at_least(
            Class::PrimaryRead,
            "it may ask for a setting that tells the role",
        );
    }
    part
}

/// `current_setting($1)`.
fn asks_for_any_setting(text: &[u8], tokens: &[Token]) -> bool {
    let source = |token: &Token| text.get(token.start..token.end).unwrap_or_default();
    tokens.windows(3).any(|call| {
        let [name, parenthesis, argument] = call else {
            return false;
        };
        reader::is_word(text, *name, "CURRENT_SETTING")
            && source(parenthesis) == b"("
            && argument.kind == Kind::Parameter
    })
}

/// CALL, DO, and EXECUTE of what may call anything.
fn is_block_or_call(text: &[u8], tokens: &[Token]) -> bool {
    let is = |token: &Token, word| reader::is_word(text, *token, word);
    let runs = |first| ["CALL", "DO", "EXECUTE"].iter().any(|word| is(first, word));
    tokens.first().is_some_and(runs)
}

/// A name stands at `index` with a parenthesis behind it that is neither PostgreSQL's own nor a key
/// word, nor the table of an INSERT: now and then one too many.
fn calls_user_code(text: &[u8], tokens: &[Token], index: usize) -> bool {
    let token_at = |index: usize| tokens.get(index).copied();
    let source = |index: usize| {
        token_at(index).map_or(&b""[..], |token| {
            text.get(token.start..token.end).unwrap_or_default()
        })
    };
    let is_name = |index: usize| {
        token_at(index).is_some_and(|it| matches!(it.kind, Kind::Word | Kind::Quoted))
    };
    if !is_name(index) || source(index + 1) != b"(" {
        return false;
    }
    let mut first = index;
    while first >= 2 && source(first - 1) == b"." && is_name(first - 2) {
        first -= 2;
    }
    let follows = |word| {
        let before = first.checked_sub(1).and_then(token_at);
        before.is_some_and(|token| reader::is_word(text, token, word))
    };
    if follows("INTO") || follows("AS") || follows("COPY") {
        return false;
    }
    if first < index {
        return !reader::is_word(text, tokens[first], "PG_CATALOG");
    }
    let Some(token) = token_at(index) else {
        return false;
    };
    let Some(name) = reader::identifier(text, token) else {
        return true;
    };
    if functions::verdict(&name).is_some() {
        return false;
    }
    // Behind a value or a name stands no call.
    let follows_value = || {
        let before = first.checked_sub(1).and_then(token_at);
        before.is_some_and(|token| match token.kind {
            Kind::Word => {
                !reader::identifier(text, token).is_some_and(|it| functions::is_keyword(&it))
            }
            Kind::Punctuation => matches!(source(first - 1), b")" | b"]"),
            kind => kind != Kind::Operator,
        })
    };
    // Some words may be a function's name, but for the place where they stand.
    let is_syntax = || match name.as_str() {
        "by" => follows("GROUP") || follows("ORDER") || follows("PARTITION"),
        "conflict" => follows("ON"),
        "filter" | "ilike" | "join" | "like" | "over" | "set" => follows_value(),
        "materialized" => follows("NOT"),
        "sets" => follows("GROUPING"),
        name => functions::is_keyword(name),
    };
    token.kind == Kind::Quoted || !is_syntax()
}

/// The name of the function that is called at `index`, unless its schema makes it a user's:
/// `name(`, or `argument.name`, which calls a function too if there is no such column.
fn called_builtin(text: &[u8], tokens: &[Token], index: usize) -> Option<String> {
    let source = |index: Option<usize>| {
        let token = index.and_then(|index| tokens.get(index));
        token.map_or(&b""[..], |token| {
            text.get(token.start..token.end).unwrap_or_default()
        })
    };
    let token = *tokens.get(index)?;
    let follows_dot = source(index.checked_sub(1)) == b".";
    if source(Some(index + 1)) == b"(" {
        let schema = index.checked_sub(2).and_then(|index| tokens.get(index));
        if follows_dot && reader::identifier(text, *schema?)? != "pg_catalog" {
            return None;
        }
    } else if !follows_dot {
        return None;
    }
    reader::identifier(text, token)
}

/// `set_config(.., .., true)`: ends with the transaction.
pub(super) fn is_local_set_config(text: &[u8], tokens: &[Token], index: usize) -> bool {
    // Arguments longer than this are not worth reading: linear time for any text.
    const MAX_TOKENS: usize = 200;
    let arguments = tokens.get(index + 2..).unwrap_or_default();
    let (mut depth, mut commas, mut third) = (0_usize, 0, Vec::new());
    for token in arguments.iter().take(MAX_TOKENS) {
        match text.get(token.start..token.end).unwrap_or_default() {
            b"(" | b"[" => depth += 1,
            b")" if depth == 0 => {
                let [only] = third.as_slice() else {
                    return false;
                };
                return commas == 2 && reader::is_word(text, *only, "TRUE");
            }
            b")" | b"]" => depth = depth.saturating_sub(1),
            b"," if depth == 0 => {
                commas += 1;
                continue;
            }
            _ => {}
        }
        if commas == 2 {
            third.push(*token);
        }
    }
    false
}
