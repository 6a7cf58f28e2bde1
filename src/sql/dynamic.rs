//! SQL that a body puts together from strings and executes. What of such a text is known before it runs is
//! its *template*: constant pieces, and between them what a call gives, or values as literals. With the
//! arguments of a call it is a text that can be judged.
//!
//! A piece that is not known must be a token of its own: then the tokens around it are what they are, whatever
//! it holds.

use super::functions;
use super::lexer::{Kind, Lexer, Token};
use super::plpgsql::begins_query;
use super::reader::{self, Reader, quote_identifier};

/// The parameters of a function, in their order. Those of type text have a name, if only an empty one; a
/// string that is given for another may be changed on its way.
pub(super) type Parameters = [Option<Box<str>>];

/// A text that is executed, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    pieces: Vec<Piece>,
    /// By what it is put together, each of PostgreSQL's own.
    by: Vec<By>,
}

/// What puts texts together. Something of the user's may have the same name, and be meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Operator(&'static str),
    Function(&'static str),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// What a call gives for this parameter, counted from 0.
    Given(usize),
    /// The same as a name, quoted where PostgreSQL would.
    GivenName(usize),
    /// Anything, as a literal.
    Literal,
}

/// `Err` is the reason why a text cannot be told.
type Told<T> = Result<T, String>;

/// Parentheses and calls in one another.
const MOST_DEEP: usize = 8;

impl Template {
    /// Of the expression whose value is executed.
    pub(super) fn new(
        text: &[u8],
        expression: &[Token],
        parameters: &Parameters,
    ) -> Told<Template> {
        let mut template = Template::default();
        let source = Source { text, parameters };
        source.joined(expression, MOST_DEEP, &mut template)?;
        Ok(template)
    }

    /// By what it is put together.
    pub(super) fn by(&self) -> &[By] {
        &self.by
    }

    /// The parameters whose values are parts of it.
    pub(super) fn given(&self) -> impl Iterator<Item = usize> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Given(place) | Piece::GivenName(place) => Some(*place),
            Piece::Text(_) | Piece::Literal => None,
        })
    }

    /// The text of a query, with these values for parameters. None if not all values are known that it needs,
    /// if what one of them is depends on what another is, or if it is more or something else than a query.
    pub(super) fn filled(&self, values: &[Option<String>]) -> Option<String> {
        let mut text = String::new();
        let mut alone = Vec::new();
        for piece in &self.pieces {
            let start = text.len();
            match piece {
                Piece::Text(constant) => text.push_str(constant),
                Piece::Given(place) => text.push_str(values.get(*place)?.as_ref()?),
                Piece::GivenName(place) => text.push_str(&name(values.get(*place)?.as_ref()?)),
                Piece::Literal => text.push_str("'x'"),
            }
            if matches!(piece, Piece::GivenName(_) | Piece::Literal) {
                alone.push((start, text.len()));
            }
        }
        let tokens: Vec<Token> = Lexer::new(text.as_bytes()).collect();
        let is_token = |(start, end): (usize, usize)| {
            let found = tokens.binary_search_by_key(&start, |token| token.start);
            let is_whole = found
                .ok()
                .and_then(|at| tokens.get(at))
                .is_some_and(|token| token.end == end && token.kind != Kind::Broken);
            is_whole && stands_apart(text.as_bytes(), start, end)
        };
        let is_query = begins_query(&Reader::new(text.as_bytes(), &tokens));
        (is_query && alone.into_iter().all(is_token)).then_some(text)
    }
}

/// A literal may come as `E'...'` or as NULL, a name with quotes or without: neither makes one token with
/// what stands beside it.
fn stands_apart(text: &[u8], start: usize, end: usize) -> bool {
    let joins =
        |byte: &u8| byte.is_ascii_alphanumeric() || !byte.is_ascii() || b"_$'\"&".contains(byte);
    let before = start.checked_sub(1).and_then(|at| text.get(at));
    !before.is_some_and(joins) && !text.get(end).is_some_and(joins)
}

/// As `quote_ident()` gives it.
fn name(value: &str) -> String {
    let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let is_plain = value.bytes().all(is_part)
        && value.bytes().next().is_some_and(|it| !it.is_ascii_digit())
        && !functions::is_keyword(value);
    match is_plain {
        true => value.to_owned(),
        false => quote_identifier(value),
    }
}

const JOIN: &str = "||";

/// Where an expression stands.
struct Source<'a> {
    text: &'a [u8],
    parameters: &'a Parameters,
}

impl<'a> Source<'a> {
    /// `term || term ...`.
    fn joined(&self, expression: &[Token], depth: usize, template: &mut Template) -> Told<()> {
        let is_join = |token: &Token| self.is(token, JOIN);
        let terms = split(self.text, expression, is_join);
        if terms.is_empty() {
            return Err(unknown());
        }
        if terms.len() > 1 {
            template.by.push(By::Operator(JOIN));
        }
        terms
            .into_iter()
            .try_for_each(|term| self.term(term, depth, template))
    }

    fn term(&self, term: &[Token], depth: usize, template: &mut Template) -> Told<()> {
        let depth = depth.checked_sub(1).ok_or_else(unknown)?;
        let mut by = |function| template.by.push(By::Function(function));
        let piece = match term {
            [only] => self.value(*only)?,
            [open, inside @ .., close] if self.encloses(open, inside, close) => {
                return self.joined(inside, depth, template);
            }
            [function, open, inside @ .., close] if self.encloses(open, inside, close) => {
                let function = reader::identifier(self.text, *function).ok_or_else(unknown)?;
                let is_comma = |token: &Token| self.is(token, ",");
                let arguments = split(self.text, inside, is_comma);
                match (function.as_str(), arguments.as_slice()) {
                    ("format", [[pattern], values @ ..]) => {
                        by("format");
                        return self.formatted(*pattern, values, template);
                    }
                    ("quote_ident", [[only]]) => {
                        by("quote_ident");
                        self.name(*only)?
                    }
                    ("quote_literal", [_]) => {
                        by("quote_literal");
                        Piece::Literal
                    }
                    ("quote_nullable", [_]) => {
                        by("quote_nullable");
                        Piece::Literal
                    }
                    _ => return Err(unknown()),
                }
            }
            _ => return Err(unknown()),
        };
        template.pieces.push(piece);
        Ok(())
    }

    /// `format()`, section "String Functions and Operators" of the manual.
    fn formatted(&self, pattern: Token, values: &[&[Token]], template: &mut Template) -> Told<()> {
        let pieces = &mut template.pieces;
        let pattern = self.constant(pattern).ok_or_else(unknown)?;
        let is_spread = |value: &&[Token]| {
            value
                .first()
                .is_some_and(|first| reader::is_word(self.text, *first, "VARIADIC"))
        };
        if values.iter().any(is_spread) {
            return Err(unknown());
        }
        let mut parts = pattern.split('%');
        pieces.extend(parts.next().map(|text| Piece::Text(text.to_owned())));
        let mut next = 0;
        while let Some(part) = parts.next() {
            if part.is_empty() {
                // `%%`, and what stands behind it.
                let behind = parts.next().ok_or_else(unknown)?;
                pieces.push(Piece::Text(format!("%{behind}")));
                continue;
            }
            let (place, part) = match part.split_once('$') {
                Some((digits, part)) if digits.bytes().all(|it| it.is_ascii_digit()) => {
                    let place: usize = digits.parse().map_err(|_| unknown())?;
                    (place.checked_sub(1).ok_or_else(unknown)?, part)
                }
                _ => (next, part),
            };
            next = place + 1;
            let value = values.get(place).ok_or_else(unknown)?;
            let mut letters = part.chars();
            let piece = match (letters.next(), value) {
                (Some('L'), _) => Piece::Literal,
                (Some('I'), [only]) => self.name(*only)?,
                (Some('s'), [only]) => self.value(*only)?,
                _ => return Err(unknown()),
            };
            pieces.extend([piece, Piece::Text(letters.as_str().to_owned())]);
        }
        Ok(())
    }

    /// What is put as it stands.
    fn value(&self, token: Token) -> Told<Piece> {
        match self.constant(token) {
            Some(constant) => Ok(Piece::Text(constant)),
            None => Ok(Piece::Given(self.parameter(token).ok_or_else(unknown)?)),
        }
    }

    /// What is put as a name.
    fn name(&self, token: Token) -> Told<Piece> {
        match self.constant(token) {
            Some(constant) => Ok(Piece::Text(name(&constant))),
            None => Ok(Piece::GivenName(self.parameter(token).ok_or_else(unknown)?)),
        }
    }

    fn constant(&self, token: Token) -> Option<String> {
        Reader::new(self.text, &[token]).literal()
    }

    /// The parameter of type text that a token means, by its number or its name.
    fn parameter(&self, token: Token) -> Option<usize> {
        let place = match token.kind {
            Kind::Parameter => number(self.text, token)?,
            Kind::Word | Kind::Quoted => {
                let name = reader::identifier(self.text, token)?;
                let is_it = |it: &Option<Box<str>>| it.as_deref() == Some(name.as_str());
                self.parameters.iter().position(is_it)?
            }
            _ => return None,
        };
        let is_text = self.parameters.get(place).is_some_and(Option::is_some);
        is_text.then_some(place)
    }

    /// These are parentheses, and those of each other.
    fn encloses(&self, open: &Token, inside: &[Token], close: &Token) -> bool {
        let mut depth = 1_usize;
        let stays_inside = inside.iter().all(|token| {
            match self.text.get(token.start..token.end).unwrap_or_default() {
                b"(" => depth += 1,
                b")" => depth = depth.saturating_sub(1),
                _ => {}
            }
            depth > 0
        });
        stays_inside && depth == 1 && self.is(open, "(") && self.is(close, ")")
    }

    fn is(&self, token: &Token, sign: &str) -> bool {
        matches!(token.kind, Kind::Punctuation | Kind::Operator)
            && self.text.get(token.start..token.end) == Some(sign.as_bytes())
    }
}

/// Whether a token means a parameter.
pub(super) fn means(text: &[u8], token: Token, parameters: &Parameters, place: usize) -> bool {
    match token.kind {
        Kind::Parameter => number(text, token).is_none_or(|it| it == place),
        Kind::Word | Kind::Quoted => match (reader::identifier(text, token), parameters.get(place))
        {
            (Some(name), Some(Some(parameter))) => *name == **parameter,
            _ => true,
        },
        _ => false,
    }
}

/// Of `$1`, counted from 0.
fn number(text: &[u8], token: Token) -> Option<usize> {
    let digits = text.get(token.start + 1..token.end)?;
    let number: usize = std::str::from_utf8(digits).ok()?.parse().ok()?;
    number.checked_sub(1)
}

/// The parts between the tokens outside of parentheses that part them; none of nothing.
pub(super) fn split<'t>(
    text: &[u8],
    tokens: &'t [Token],
    parts: impl Fn(&Token) -> bool,
) -> Vec<&'t [Token]> {
    let mut depth = 0_usize;
    let mut is_end = |token: &Token| {
        match text.get(token.start..token.end).unwrap_or_default() {
            b"(" | b"[" => depth += 1,
            b")" | b"]" => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && parts(token)
    };
    match tokens {
        [] => Vec::new(),
        _ => tokens.split(&mut is_end).collect(),
    }
}

fn unknown() -> String {
    "it runs SQL that it puts together".to_owned()
}

#[cfg(test)]
mod tests;
