//! The tokens of a text, cut where PostgreSQL's own scanner cuts them ("Lexical Structure" in the
//! manual). It works on bytes: every byte from 0x80 up is part of an identifier, as in the server,
//! so any client encoding that keeps ASCII as ASCII will do. It borrows, allocates nothing and
//! takes linear time. It is not a parser: it gives no meaning to words.

use memchr::{memchr, memmem};

/// One token: `text[start..end]` as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub kind: Kind,
    pub start: usize,
    pub end: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An identifier or keyword without quotes.
    Word,
    /// `"..."`.
    Quoted,
    /// `U&"..."`: a name that cannot be read here.
    UnicodeName,
    /// A string or bit-string literal of whatever notation, with its continuations.
    Literal(Notation),
    Number,
    /// `$1`.
    Parameter,
    Operator,
    /// One of `, ; ( ) [ ] . :`, `::` or `:=`.
    Punctuation,
    /// What PostgreSQL refuses, or takes differently from one version to the next: a literal
    /// without an end, a stray byte, a number with letters behind it.
    Broken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Notation {
    /// `'...'`, `N'...'`.
    Plain,
    /// `E'...'`.
    Escape,
    /// `U&'...'`.
    Unicode,
    /// `B'...'`, `X'...'`.
    Bits,
    /// `$tag$...$tag$`.
    Dollar,
}

/// Walks over a text. After the last token the flags tell what was met on the way.
pub(super) struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
    /// A backslash stands before a quote in a plain literal: where that literal ends depends on
    /// `standard_conforming_strings`, so everything from there on is uncertain.
    pub ambiguous: bool,
    /// A comment contains `causeway.`.
    pub has_hint: bool,
}

impl<'a> Lexer<'a> {
    pub fn new(text: &'a [u8]) -> Self {
        Lexer {
            text,
            at: 0,
            ambiguous: false,
            has_hint: false,
        }
    }

    #[inline]
    fn byte(&self, at: usize) -> u8 {
        // NUL cannot occur in a text that PostgreSQL would see, so it can stand for the end.
        self.text.get(at).copied().unwrap_or(0)
    }

    fn rest(&self, at: usize) -> &'a [u8] {
        self.text.get(at..).unwrap_or_default()
    }

    /// Skips white space and comments; tells where a comment without an end begins.
    fn skip_blank(&mut self) -> Option<usize> {
        loop {
            match self.byte(self.at) {
                byte if is_space(byte) => self.at += 1,
                b'-' if self.byte(self.at + 1) == b'-' => {
                    let start = self.at;
                    self.at = self.line_end(start);
                    self.note_comment(start);
                }
                b'/' if self.byte(self.at + 1) == b'*' => {
                    let start = self.at;
                    let closed = self.skip_block_comment();
                    self.note_comment(start);
                    if !closed {
                        return Some(start);
                    }
                }
                _ => return None,
            }
        }
    }

    fn line_end(&self, at: usize) -> usize {
        let rest = self.rest(at);
        at + memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len())
    }

    fn skip_block_comment(&mut self) -> bool {
        self.at += 2;
        let mut depth = 1_usize;
        while depth > 0 {
            let rest = self.rest(self.at);
            let Some(found) = memchr::memchr2(b'*', b'/', rest) else {
                self.at = self.text.len();
                return false;
            };
            self.at += found;
            match (self.byte(self.at), self.byte(self.at + 1)) {
                (b'*', b'/') => {
                    depth -= 1;
                    self.at += 2;
                }
                (b'/', b'*') => {
                    depth += 1;
                    self.at += 2;
                }
                _ => self.at += 1,
            }
        }
        true
    }

    fn note_comment(&mut self, start: usize) {
        let comment = self.text.get(start..self.at).unwrap_or_default();
        if !self.has_hint && memmem::find(comment, b"causeway.").is_some() {
            self.has_hint = true;
        }
    }

    fn word_or_prefixed(&mut self, start: usize) -> Cut {
        let next = self.byte(start + 1);
        if matches!(next, b'\'' | b'&')
            && let Some(cut) = self.prefixed(start, next)
        {
            return cut;
        }
        let rest = self.rest(start + 1);
        let length = rest.iter().position(|byte| !is_word_part(*byte));
        (Kind::Word, start + 1 + length.unwrap_or(rest.len()))
    }

    /// A literal or name in a notation that begins with a letter.
    fn prefixed(&mut self, start: usize, next: u8) -> Option<Cut> {
        let after = self.byte(start + 2);
        let notation = match (self.byte(start), next) {
            (b'e' | b'E', b'\'') => Some((Notation::Escape, 2)),
            (b'b' | b'B' | b'x' | b'X', b'\'') => Some((Notation::Bits, 2)),
            (b'n' | b'N', b'\'') => Some((Notation::Plain, 2)),
            (b'u' | b'U', b'&') if after == b'\'' => Some((Notation::Unicode, 3)),
            _ => None,
        };
        if let Some((notation, prefix)) = notation {
            return Some(self.literal(start + prefix, notation));
        }
        let is_name = next == b'&' && after == b'"' && self.byte(start) | 0x20 == b'u';
        is_name.then(|| self.quoted(start + 3, Kind::UnicodeName))
    }

    /// A literal whose first quote has just been passed, with its continuations: the same
    /// notation goes on behind white space that contains a line break.
    fn literal(&mut self, body: usize, notation: Notation) -> Cut {
        let mut at = body;
        loop {
            let Some(end) = self.literal_segment(at, notation) else {
                return (Kind::Broken, self.text.len());
            };
            match self.continuation(end) {
                Some(next) => at = next,
                None => return (Kind::Literal(notation), end),
            }
        }
    }

    /// Where the segment ends, behind its closing quote.
    fn literal_segment(&mut self, mut at: usize, notation: Notation) -> Option<usize> {
        // One past the last backslash that is already half of a pair.
        let mut paired = at;
        loop {
            let rest = self.rest(at);
            at += memchr::memchr2(b'\'', b'\\', rest)?;
            if self.byte(at) == b'\\' {
                match notation {
                    Notation::Escape => at += 2,
                    Notation::Plain => {
                        // Both readings of a backslash agree unless it would escape a quote.
                        if self.byte(at + 1) == b'\'' && at >= paired {
                            self.ambiguous = true;
                        } else if self.byte(at + 1) == b'\\' && at >= paired {
                            paired = at + 2;
                        }
                        at += 1;
                    }
                    _ => at += 1,
                }
            } else if self.byte(at + 1) == b'\'' {
                at += 2;
            } else {
                return Some(at + 1);
            }
        }
    }

    fn continuation(&self, end: usize) -> Option<usize> {
        let (mut at, mut broken_line) = (end, false);
        loop {
            match self.byte(at) {
                b'\n' | b'\r' => {
                    broken_line = true;
                    at += 1;
                }
                b' ' | b'\t' | 0x0b | 0x0c => at += 1,
                b'-' if self.byte(at + 1) == b'-' => at = self.line_end(at),
                b'\'' if broken_line => return Some(at + 1),
                _ => return None,
            }
        }
    }

    fn quoted(&self, body: usize, kind: Kind) -> Cut {
        let mut at = body;
        loop {
            let Some(found) = memchr(b'"', self.rest(at)) else {
                return (Kind::Broken, self.text.len());
            };
            at += found + 1;
            if self.byte(at) != b'"' {
                return (kind, at);
            }
            at += 1;
        }
    }

    fn dollar(&self, start: usize) -> Cut {
        let mut end = start + 1;
        if self.byte(end).is_ascii_digit() {
            while self.byte(end).is_ascii_digit() {
                end += 1;
            }
            let junk = is_word_start(self.byte(end));
            return (if junk { Kind::Broken } else { Kind::Parameter }, end);
        }
        while is_word_part(self.byte(end)) && self.byte(end) != b'$' {
            end += 1;
        }
        if self.byte(end) != b'$' {
            return (Kind::Broken, start + 1);
        }
        let tag = self.text.get(start..=end).unwrap_or_default();
        match memmem::find(self.rest(end + 1), tag) {
            Some(found) => {
                let close = end + 1 + found + tag.len();
                (Kind::Literal(Notation::Dollar), close)
            }
            None => (Kind::Broken, self.text.len()),
        }
    }

    fn number(&self, start: usize) -> Cut {
        let digits = |lexer: &Self, mut at: usize| {
            while lexer.byte(at).is_ascii_digit() {
                at += 1;
            }
            at
        };
        let mut end = digits(self, start);
        if self.byte(end) == b'.' && self.byte(end + 1) != b'.' {
            end = digits(self, end + 1);
        }
        if self.byte(end) | 0x20 == b'e' {
            let sign = usize::from(matches!(self.byte(end + 1), b'+' | b'-'));
            if self.byte(end + 1 + sign).is_ascii_digit() {
                end = digits(self, end + 1 + sign);
            }
        }
        let junk = is_word_start(self.byte(end));
        (if junk { Kind::Broken } else { Kind::Number }, end)
    }

    /// The longest operator, less what the manual's rules about comments and a trailing sign
    /// leave to the next token.
    fn operator(&self, start: usize) -> Cut {
        let mut end = start;
        while is_operator(self.byte(end)) {
            let pair = (self.byte(end), self.byte(end + 1));
            if matches!(pair, (b'-', b'-') | (b'/', b'*')) {
                break;
            }
            end += 1;
        }
        let run = self.text.get(start..end).unwrap_or_default();
        let keeps_sign = run.iter().any(|byte| b"~!@#%^&|`?".contains(byte));
        while !keeps_sign && end > start + 1 && matches!(self.byte(end - 1), b'+' | b'-') {
            end -= 1;
        }
        (Kind::Operator, end)
    }
}

/// What a token is, and where it ends.
type Cut = (Kind, usize);

impl Iterator for Lexer<'_> {
    type Item = Token;

    #[inline]
    fn next(&mut self) -> Option<Token> {
        // Most of a text is words with single spaces between them.
        while let Some(byte) = self.text.get(self.at)
            && is_space(*byte)
        {
            self.at += 1;
        }
        let mut start = self.at;
        let (kind, end) = match is_word_start(*self.text.get(start)?) {
            true => self.word_or_prefixed(start),
            false => {
                if let Some(start) = self.skip_blank() {
                    self.at = self.text.len();
                    let (kind, end) = (Kind::Broken, self.at);
                    return Some(Token { kind, start, end });
                }
                start = self.at;
                self.cut(start, *self.text.get(start)?)
            }
        };
        self.at = end;
        Some(Token { kind, start, end })
    }
}

impl Lexer<'_> {
    fn cut(&mut self, start: usize, first: u8) -> Cut {
        match first {
            _ if is_word_start(first) => self.word_or_prefixed(start),
            b'\'' => self.literal(start + 1, Notation::Plain),
            b'"' => self.quoted(start + 1, Kind::Quoted),
            b'$' => self.dollar(start),
            b'0'..=b'9' => self.number(start),
            b'.' if self.byte(start + 1).is_ascii_digit() => self.number(start),
            b':' if matches!(self.byte(start + 1), b':' | b'=') => (Kind::Punctuation, start + 2),
            b',' | b';' | b'(' | b')' | b'[' | b']' | b'.' | b':' => (Kind::Punctuation, start + 1),
            _ if is_operator(first) => self.operator(start),
            _ => (Kind::Broken, start + 1),
        }
    }
}

/// What a byte may be: a look-up is quicker than a chain of comparisons on the hot path.
const WORD_START: u8 = 1;
const WORD_PART: u8 = 2;
const OPERATOR: u8 = 4;
const SPACE: u8 = 8;

static BYTES: [u8; 256] = byte_classes();

const fn byte_classes() -> [u8; 256] {
    let mut table = [0_u8; 256];
    let mut byte = 0;
    while byte < 256 {
        let value = byte as u8;
        if value.is_ascii_alphabetic() || value == b'_' || value >= 0x80 {
            table[byte] = WORD_START | WORD_PART;
        } else if value.is_ascii_digit() || value == b'$' {
            table[byte] = WORD_PART;
        } else if matches!(value, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c) {
            table[byte] = SPACE;
        }
        byte += 1;
    }
    let operators = b"+-*/<>=~!@#%^&|`?";
    let mut index = 0;
    while index < operators.len() {
        table[operators[index] as usize] = OPERATOR;
        index += 1;
    }
    table
}

fn is_word_start(byte: u8) -> bool {
    BYTES[usize::from(byte)] & WORD_START != 0
}

fn is_word_part(byte: u8) -> bool {
    BYTES[usize::from(byte)] & WORD_PART != 0
}

fn is_space(byte: u8) -> bool {
    BYTES[usize::from(byte)] & SPACE != 0
}

fn is_operator(byte: u8) -> bool {
    BYTES[usize::from(byte)] & OPERATOR != 0
}
