//! A query as the parser gets it: the tokens of the text in a form that cannot be cut in other places
//! than PostgreSQL cuts it, and in the words that the parser knows.
//!
//! What is put in other words calls and reads the same things. Only words that cannot be names where
//! they stand are changed, and signs, which have been judged before. If that spoils a text all the
//! same, the parser refuses it, and it is a write.

use super::lexer::{Kind, Token};
use super::reader::is_word;

/// One space between any two tokens, values of literals replaced, comments gone, each byte from 0x80
/// up replaced by one letter.
pub(super) fn canonical(text: &[u8], tokens: &[Token]) -> String {
    let mut out = String::with_capacity(text.len().min(64 * 1024) + 16);
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let place = Place { text, tokens, at };
        at += 1;
        match token.kind {
            // In the bounds of a frame the parser takes a string for an interval, cast or not.
            Kind::Literal(_) if place.is_cast_bound() => out.push('1'),
            Kind::Literal(_) => out.push_str("'x'"),
            Kind::Number => out.push('1'),
            Kind::Parameter => out.push_str("$1"),
            Kind::Operator => out.push_str(place.operator()),
            Kind::Word => match place.other_words() {
                Some(Words { count, instead }) => {
                    out.push_str(instead);
                    at += count - 1;
                }
                None => put_letters(&mut out, place.source(0)),
            },
            _ if place.source(0) == b"." && place.expands_row() => {
                at += 1;
                continue;
            }
            _ => put_letters(&mut out, place.source(0)),
        }
        out.push(' ');
    }
    out
}

/// A name or a text as [`canonical`] gives its bytes.
pub(super) fn letters(text: &[u8]) -> String {
    text.iter().map(letter).collect()
}

fn put_letters(out: &mut String, source: &[u8]) {
    out.extend(source.iter().map(letter));
}

fn letter(byte: &u8) -> char {
    match byte.is_ascii() {
        true => char::from(*byte),
        false => 'ÿ',
    }
}

/// So many tokens in other words.
struct Words {
    count: usize,
    instead: &'static str,
}

/// A token among the others.
#[derive(Clone, Copy)]
struct Place<'a> {
    text: &'a [u8],
    tokens: &'a [Token],
    at: usize,
}

impl<'a> Place<'a> {
    /// The token so many places further on, or before.
    fn token(&self, offset: isize) -> Option<Token> {
        let at = self.at.checked_add_signed(offset)?;
        self.tokens.get(at).copied()
    }

    fn source(&self, offset: isize) -> &'a [u8] {
        self.token(offset).map_or(&[], |token| {
            self.text.get(token.start..token.end).unwrap_or_default()
        })
    }

    fn is(&self, offset: isize, words: &[&str]) -> bool {
        self.token(offset)
            .is_some_and(|token| words.iter().any(|word| is_word(self.text, token, word)))
    }

    /// The parser has a list of operators, and a shorter one of those that may stand before ANY. What
    /// it makes of one does not matter but for its place: before or between values.
    fn operator(&self) -> &'static str {
        let sign = std::str::from_utf8(self.source(0)).unwrap_or_default();
        if self.is(1, &["ANY", "ALL", "SOME"]) && self.source(2) == b"(" {
            return "=";
        }
        let known = KNOWN_OPERATORS.iter().find(|known| **known == sign);
        known.copied().unwrap_or("~")
    }

    /// Of a frame, or of BETWEEN: there it makes no difference.
    fn is_cast_bound(&self) -> bool {
        self.source(1) == b"::" && self.is(-1, &["RANGE", "BETWEEN", "AND"])
    }

    /// `(row).*`, which calls nothing that is not in the row.
    fn expands_row(&self) -> bool {
        self.source(-1) == b")" && self.source(1) == b"*"
    }

    /// What the parser does not know, in words that it does.
    fn other_words(&self) -> Option<Words> {
        let words = |count, instead| Some(Words { count, instead });
        // There every word is a name.
        if self.source(-1) == b"." || self.is(-1, &["AS"]) {
            return None;
        }
        // By the first letter: this is asked of every word.
        match self.source(0).first()?.to_ascii_lowercase() {
            // By definition the same, and the parser knows only the second form everywhere.
            b't' if self.is(0, &["TABLE"]) => words(1, "SELECT * FROM"),
            b'v' if self.is(0, &["VARIADIC"]) => words(1, ""),
            b's' | b'a'
                if self.is(0, &["SYMMETRIC", "ASYMMETRIC"]) && self.is(-1, &["BETWEEN"]) =>
            {
                words(1, "")
            }
            // Also names of functions.
            b'i' if self.is(0, &["ISNULL"]) && self.source(1) != b"(" => words(1, "IS NULL"),
            b'n' if self.is(0, &["NOTNULL"]) && self.source(1) != b"(" => words(1, "IS NOT NULL"),
            b'e' if self.is(0, &["EXCLUDE"]) => match self.frame_exclusion() {
                Some(count) => words(count, ""),
                None => None,
            },
            b'r' if self.is(0, &["ROWS"]) && self.is(1, &["FROM"]) && self.source(2) == b"(" => {
                let begins_relation = self.is(-1, &["FROM", "JOIN", "LATERAL"]);
                begins_relation.then_some(Words {
                    count: 2,
                    instead: "UNNEST",
                })
            }
            b'a' if self.is(0, &["AS"]) && self.lists_columns() => words(1, "AS x"),
            _ => None,
        }
    }

    /// The last words of a window's frame: how many they are.
    fn frame_exclusion(&self) -> Option<usize> {
        let is_long = self.is(1, &["CURRENT"]) && self.is(2, &["ROW"])
            || self.is(1, &["NO"]) && self.is(2, &["OTHERS"]);
        let count = match is_long {
            true => 3,
            false if self.is(1, &["GROUP", "TIES"]) => 2,
            false => return None,
        };
        let ends_frame = self.is(-1, &["ROW", "PRECEDING", "FOLLOWING"]);
        (ends_frame && self.source(count) == b")").then_some(count.unsigned_abs())
    }

    /// `function(...) AS (column type, ...)`; behind the name of a WITH stands a query.
    fn lists_columns(&self) -> bool {
        const BEGIN_QUERY: [&str; 9] = [
            "SELECT",
            "VALUES",
            "WITH",
            "TABLE",
            "INSERT",
            "UPDATE",
            "DELETE",
            "MERGE",
            "MATERIALIZED",
        ];
        let is_name = self
            .token(2)
            .is_some_and(|token| matches!(token.kind, Kind::Word | Kind::Quoted));
        self.source(-1) == b")" && self.source(1) == b"(" && is_name && !self.is(2, &BEGIN_QUERY)
    }
}

/// What the parser knows.
const KNOWN_OPERATORS: [&str; 47] = [
    "=", "<", ">", "<=", ">=", "<>", "!=", "+", "-", "*", "/", "%", "^", "||", "~", "~*", "!~",
    "!~*", "~~", "!~~", "~~*", "!~~*", "->", "->>", "#>", "#>>", "@>", "<@", "?", "?|", "?&", "@?",
    "@@", "&&", "<<", ">>", "|", "&", "#", "=>", "#-", "^@", "|/", "||/", "!!", "@", "!",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::lexer::Lexer;

    fn of(text: &str) -> String {
        let tokens: Vec<Token> = Lexer::new(text.as_bytes()).collect();
        let canonical = canonical(text.as_bytes(), &tokens);
        canonical.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_parser_gets_words_that_it_knows() {
        let table = [
            ("TABLE t", "SELECT * FROM t"),
            ("date '2020-01-01'::text", "date 'x' :: text"),
            (
                "RANGE '1 day'::interval PRECEDING",
                "RANGE 1 :: interval PRECEDING",
            ),
            ("f(1, VARIADIC a) /* c */", "f ( 1 , a )"),
            ("a BETWEEN symmetric 1 AND 'b'", "a BETWEEN 1 AND 'x'"),
            ("a isnull OR b NOTNULL", "a IS NULL OR b IS NOT NULL"),
            ("isnull(a), notnull(b)", "isnull ( a ) , notnull ( b )"),
            (
                "(ROWS 1 PRECEDING EXCLUDE NO OTHERS)",
                "( ROWS 1 PRECEDING )",
            ),
            (
                "(ROWS CURRENT ROW EXCLUDE current row)",
                "( ROWS CURRENT ROW )",
            ),
            (
                "(SELECT 1 FROM a, exclude ties)",
                "( SELECT 1 FROM a , exclude ties )",
            ),
            (
                "a.variadic, a AS table, a.isnull",
                "a . variadic , a AS table , a . isnull",
            ),
            ("SELECT exclude GROUP BY a", "SELECT exclude GROUP BY a"),
            (
                "FROM ROWS FROM (f(1), g()) AS r",
                "FROM UNNEST ( f ( 1 ) , g ( ) ) AS r",
            ),
            (
                "SELECT a, rows FROM (SELECT 1) x",
                "SELECT a , rows FROM ( SELECT 1 ) x",
            ),
            (
                "FROM f(1) AS (a int, b text)",
                "FROM f ( 1 ) AS x ( a int , b text )",
            ),
            ("WITH w (a) AS (SELECT 1)", "WITH w ( a ) AS ( SELECT 1 )"),
            ("WINDOW w AS (ORDER BY a)", "WINDOW w AS ( ORDER BY a )"),
            ("(f(1)).*, t.*, a.b", "( f ( 1 ) ) , t . * , a . b"),
            ("a *= b AND @-@ c <-> d", "a ~ b AND ~ c ~ d"),
            (
                "a @@ ANY (b) AND 2 * some (c)",
                "a = ANY ( b ) AND 1 = some ( c )",
            ),
            ("a @> b -> 'c' || $5", "a @> b -> 'x' || $1"),
            ("\"VARIADIC\" U\u{e9}", "\"VARIADIC\" Uÿÿ"),
        ];
        for (text, expected) in table {
            assert_eq!(of(text), expected, "{text}");
        }
    }
}
