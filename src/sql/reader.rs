//! Reads the tokens of one statement from left to right, as a hand-written parser wants them.

use super::canonical::letters;
use super::lexer::{Kind, Notation, Token};

#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    text: &'a [u8],
    tokens: &'a [Token],
    at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(text: &'a [u8], tokens: &'a [Token]) -> Self {
        Reader {
            text,
            tokens,
            at: 0,
        }
    }

    pub fn peek(&self) -> Option<Token> {
        self.tokens.get(self.at).copied()
    }

    pub fn peek_source(&self) -> &'a [u8] {
        self.peek().map_or(&[], |token| self.source(token))
    }

    pub fn source(&self, token: Token) -> &'a [u8] {
        self.text.get(token.start..token.end).unwrap_or_default()
    }

    pub fn next(&mut self) -> Option<Token> {
        let token = self.peek()?;
        self.at += 1;
        Some(token)
    }

    pub fn at_end(&self) -> bool {
        self.at >= self.tokens.len()
    }

    pub fn rest(&self) -> &'a [Token] {
        self.tokens.get(self.at..).unwrap_or_default()
    }

    /// The next token is this keyword (upper case), without quotes.
    pub fn sees(&self, keyword: &str) -> bool {
        self.peek()
            .is_some_and(|token| is_word(self.text, token, keyword))
    }

    pub fn accept(&mut self, keyword: &str) -> bool {
        let found = self.sees(keyword);
        self.at += usize::from(found);
        found
    }

    /// All of these keywords, or none.
    pub fn accept_all(&mut self, keywords: &[&str]) -> bool {
        let before = self.at;
        let found = keywords.iter().all(|keyword| self.accept(keyword));
        if !found {
            self.at = before;
        }
        found
    }

    pub fn accept_any(&mut self, keywords: &[&str]) -> bool {
        keywords.iter().any(|keyword| self.accept(keyword))
    }

    pub fn accept_sign(&mut self, sign: &str) -> bool {
        let found = self.peek_is_sign(sign);
        self.at += usize::from(found);
        found
    }

    pub fn peek_is_sign(&self, sign: &str) -> bool {
        self.peek().is_some_and(|token| {
            matches!(token.kind, Kind::Punctuation | Kind::Operator)
                && self.source(token) == sign.as_bytes()
        })
    }

    /// An identifier, whatever it is.
    pub fn accept_name(&mut self) -> bool {
        let found = self
            .peek()
            .is_some_and(|token| matches!(token.kind, Kind::Word | Kind::Quoted));
        self.at += usize::from(found);
        found
    }

    /// Identifiers with dots between them; stops within it where one is missing.
    pub fn accept_path(&mut self) -> bool {
        while self.accept_name() {
            if !self.accept_sign(".") {
                return true;
            }
        }
        false
    }

    /// Skips what stands between here and the closing parenthesis, which is read too.
    pub fn skip_parenthesis(&mut self) -> bool {
        let mut depth = 1_usize;
        while let Some(token) = self.next() {
            match self.source(token) {
                b"(" => depth += 1,
                b")" => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return true;
            }
        }
        false
    }

    /// An identifier as PostgreSQL understands it: lower case unless quoted. `None`, and nothing
    /// read, if there is none, or one in no encoding that is known here.
    pub fn identifier(&mut self) -> Option<String> {
        let name = identifier(self.text, self.peek()?)?;
        self.at += 1;
        Some(name)
    }

    /// The value of a string literal; `None`, and nothing read, if there is none or its value
    /// depends on a setting of the session.
    pub fn literal(&mut self) -> Option<String> {
        let value = literal(self.text, self.peek()?)?;
        self.at += 1;
        Some(value)
    }
}

pub(super) fn is_word(text: &[u8], token: Token, keyword: &str) -> bool {
    token.kind == Kind::Word
        && text
            .get(token.start..token.end)
            .is_some_and(|source| source.eq_ignore_ascii_case(keyword.as_bytes()))
}

pub(super) fn identifier(text: &[u8], token: Token) -> Option<String> {
    let source = std::str::from_utf8(text.get(token.start..token.end)?).ok()?;
    match token.kind {
        Kind::Word => Some(source.to_ascii_lowercase()),
        Kind::Quoted => {
            let inside = source.strip_prefix('"')?.strip_suffix('"')?;
            Some(inside.replace("\"\"", "\""))
        }
        _ => None,
    }
}

/// The schema, if it is said, and the name of what is called at `index`: a name with a parenthesis behind it.
/// As the catalogue has them.
pub(super) fn called(
    text: &[u8],
    tokens: &[Token],
    index: usize,
) -> Option<(Option<String>, String)> {
    let is_sign = |index: usize, sign: &[u8]| {
        tokens
            .get(index)
            .is_some_and(|token| text.get(token.start..token.end) == Some(sign))
    };
    let name_at = |index: usize| identifier(text, *tokens.get(index)?).map(letters);
    if !is_sign(index + 1, b"(") {
        return None;
    }
    let name = name_at(index)?;
    let schema = match index.checked_sub(2) {
        Some(before) if is_sign(index - 1, b".") => name_at(before),
        _ => None,
    };
    Some((schema, name))
}

fn literal(text: &[u8], token: Token) -> Option<String> {
    let source = std::str::from_utf8(text.get(token.start..token.end)?).ok()?;
    match token.kind {
        Kind::Literal(Notation::Plain) => {
            let inside = source.strip_prefix('\'')?.strip_suffix('\'')?;
            // No text that PostgreSQL sees has one.
            if inside.contains('\u{0}') {
                return None;
            }
            let value = inside.replace("''", "\u{0}");
            // A backslash means itself or an escape, by standard_conforming_strings; a quote that
            // is left joins two segments.
            if value.contains(['\\', '\'']) {
                return None;
            }
            Some(value.replace('\u{0}', "'"))
        }
        Kind::Literal(Notation::Dollar) => {
            let tag = source.find('$').and_then(|_| source.get(1..)?.find('$'))? + 2;
            Some(source.get(tag..source.len().checked_sub(tag)?)?.to_owned())
        }
        Kind::Literal(Notation::Escape) => {
            let inside = source.get(2..)?.strip_suffix('\'')?;
            let plain = !inside.contains(['\\', '\'']);
            plain.then(|| inside.to_owned())
        }
        _ => None,
    }
}

/// A string literal of this value that means the same under every setting.
pub(super) fn quote_literal(value: &str) -> String {
    let doubled = value.replace('\'', "''");
    if doubled.contains('\\') {
        return format!("E'{}'", doubled.replace('\\', "\\\\"));
    }
    format!("'{doubled}'")
}

pub(super) fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
