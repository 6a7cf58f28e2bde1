//! A query as the parser gets it: the tokens of the text in a form that cannot be cut in other places
//! than PostgreSQL cuts it, and in the words that the parser knows.
//!
//! What is put in other words calls and reads the same things, and so does what is left out. Only words
//! that cannot be names where they stand are changed, and signs, which have been judged before. If that
//! spoils a text all the same, the parser refuses it, and it is a write.

use std::sync::LazyLock;

use hashbrown::HashMap;
use sqlparser::keywords::{ALL_KEYWORDS, ALL_KEYWORDS_INDEX, Keyword};
use sqlparser::tokenizer::{Span, Token as Parsed, TokenWithSpan, Word};

use super::lexer::{Kind, Token};
use super::reader::{Reader, is_word};

/// The tokens as the parser has them: values of literals replaced, each byte from 0x80 up replaced by one
/// letter.
pub(super) fn canonical(text: &[u8], tokens: &[Token]) -> Vec<TokenWithSpan> {
    let mut out = Vec::with_capacity(tokens.len());
    let mut put = |token| {
        let span = Span::empty();
        out.push(TokenWithSpan { token, span });
    };
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let place = Place { text, tokens, at };
        at += 1;
        match token.kind {
            // In the bounds of a frame the parser takes a string for an interval, cast or not.
            Kind::Literal(_) if place.is_cast_bound() => put(number()),
            Kind::Literal(_) => put(Parsed::SingleQuotedString("x".to_owned())),
            Kind::Number => put(number()),
            Kind::Parameter => put(Parsed::Placeholder("$1".to_owned())),
            Kind::Operator => put(place.operator()),
            Kind::Word => match place.other_words() {
                Some(Words { count, instead }) => {
                    instead
                        .split_whitespace()
                        .map(in_its_words)
                        .for_each(&mut put);
                    at += count - 1;
                }
                None => put(word(place.source(0))),
            },
            Kind::Quoted => put(quoted(place.source(0))),
            Kind::Punctuation if place.source(0) == b"." && place.expands_row() => at += 1,
            Kind::Punctuation => put(punctuation(place.source(0))),
            Kind::UnicodeName | Kind::Broken => put(UNKNOWN),
        }
        if place.begins_values() {
            at += plain_columns(text, tokens.get(at..).unwrap_or_default());
        }
    }
    out
}

/// No query has it.
const UNKNOWN: Parsed = Parsed::Backslash;

fn number() -> Parsed {
    Parsed::Number("1".to_owned(), false)
}

fn in_its_words(piece: &str) -> Parsed {
    match piece {
        "*" => Parsed::Mul,
        "=" => Parsed::Eq,
        piece => word(piece.as_bytes()),
    }
}

/// As the parser's own tokenizer makes it, which takes longer to find out whether it is a keyword.
fn word(source: &[u8]) -> Parsed {
    const LONGEST: usize = 40;
    static KEYWORDS: LazyLock<HashMap<&[u8], Keyword>> = LazyLock::new(|| {
        let keywords = ALL_KEYWORDS.iter().map(|keyword| keyword.as_bytes());
        keywords.zip(ALL_KEYWORDS_INDEX.iter().copied()).collect()
    });
    let mut upper = [0; LONGEST];
    let keyword = upper.get_mut(..source.len()).and_then(|upper| {
        upper.copy_from_slice(source);
        upper.make_ascii_uppercase();
        KEYWORDS.get(&*upper)
    });
    Parsed::Word(Word {
        value: letters_of(source),
        quote_style: None,
        keyword: keyword.copied().unwrap_or(Keyword::NoKeyword),
    })
}

fn quoted(source: &[u8]) -> Parsed {
    let inside = source
        .strip_prefix(b"\"")
        .and_then(|it| it.strip_suffix(b"\""));
    Parsed::Word(Word {
        value: letters_of(inside.unwrap_or_default()).replace("\"\"", "\""),
        quote_style: Some('"'),
        keyword: Keyword::NoKeyword,
    })
}

fn punctuation(sign: &[u8]) -> Parsed {
    match sign {
        b"," => Parsed::Comma,
        b";" => Parsed::SemiColon,
        b"(" => Parsed::LParen,
        b")" => Parsed::RParen,
        b"[" => Parsed::LBracket,
        b"]" => Parsed::RBracket,
        b"." => Parsed::Period,
        b":" => Parsed::Colon,
        b"::" => Parsed::DoubleColon,
        b":=" => Parsed::Assignment,
        _ => UNKNOWN,
    }
}

/// A name as the parser gets it.
pub(super) fn letters(name: String) -> String {
    match name.is_ascii() {
        true => name,
        false => letters_of(name.as_bytes()),
    }
}

pub(super) fn letters_of(source: &[u8]) -> String {
    match std::str::from_utf8(source) {
        Ok(source) if source.is_ascii() => source.to_owned(),
        _ => source.iter().map(letter).collect(),
    }
}

fn letter(byte: &u8) -> char {
    match byte.is_ascii() {
        true => char::from(*byte),
        false => 'ÿ',
    }
}

/// How many tokens the columns at the beginning of a list take, commas included, that are nothing but
/// names, and are not its last: those call and read nothing by themselves, a function that a name
/// may stand for is looked for among the tokens, and the parser takes its time for each.
fn plain_columns(text: &[u8], tokens: &[Token]) -> usize {
    let mut reader = Reader::new(text, tokens);
    let mut skipped = 0;
    while reader.accept_path() && (!reader.accept("AS") || reader.accept_name()) {
        if !reader.accept_sign(",") {
            break;
        }
        skipped = tokens.len() - reader.rest().len();
    }
    skipped
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
    fn operator(&self) -> Parsed {
        if self.stands_before_each(0) {
            return Parsed::Eq;
        }
        let mut known = KNOWN_OPERATORS.iter();
        let known = known.find(|(sign, _)| sign.as_bytes() == self.source(0));
        known.map_or(Parsed::Tilde, |(_, token)| token.clone())
    }

    /// What stands there compares with each value of an array or a subquery.
    fn stands_before_each(&self, offset: isize) -> bool {
        self.is(offset + 1, &["ANY", "ALL", "SOME"]) && self.source(offset + 2) == b"("
    }

    /// `LIKE ANY (...)` and the like: what operator that is, is judged elsewhere.
    fn likes_each(&self, offset: isize) -> bool {
        self.is(offset, &["LIKE", "ILIKE"]) && self.stands_before_each(offset)
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
            b'l' | b'i' if self.likes_each(0) => words(1, "="),
            b'n' if self.is(0, &["NOT"]) && self.likes_each(1) => words(2, "="),
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

    /// Behind it stands a list of values: it is a word that no name can be here.
    fn begins_values(&self) -> bool {
        let is_name = self.source(-1) == b"." || self.is(-1, &["AS"]);
        self.is(0, &["SELECT"]) && !is_name
            || self.is(0, &["BY"]) && self.is(-1, &["GROUP", "ORDER"])
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

/// What the parser knows, and how its tokenizer calls it.
const KNOWN_OPERATORS: [(&str, Parsed); 47] = [
    ("=", Parsed::Eq),
    ("<", Parsed::Lt),
    (">", Parsed::Gt),
    ("<=", Parsed::LtEq),
    (">=", Parsed::GtEq),
    ("<>", Parsed::Neq),
    ("!=", Parsed::Neq),
    ("+", Parsed::Plus),
    ("-", Parsed::Minus),
    ("*", Parsed::Mul),
    ("/", Parsed::Div),
    ("%", Parsed::Mod),
    ("^", Parsed::Caret),
    ("||", Parsed::StringConcat),
    ("~", Parsed::Tilde),
    ("~*", Parsed::TildeAsterisk),
    ("!~", Parsed::ExclamationMarkTilde),
    ("!~*", Parsed::ExclamationMarkTildeAsterisk),
    ("~~", Parsed::DoubleTilde),
    ("!~~", Parsed::ExclamationMarkDoubleTilde),
    ("~~*", Parsed::DoubleTildeAsterisk),
    ("!~~*", Parsed::ExclamationMarkDoubleTildeAsterisk),
    ("->", Parsed::Arrow),
    ("->>", Parsed::LongArrow),
    ("#>", Parsed::HashArrow),
    ("#>>", Parsed::HashLongArrow),
    ("@>", Parsed::AtArrow),
    ("<@", Parsed::ArrowAt),
    ("?", Parsed::Question),
    ("?|", Parsed::QuestionPipe),
    ("?&", Parsed::QuestionAnd),
    ("@?", Parsed::AtQuestion),
    ("@@", Parsed::AtAt),
    ("&&", Parsed::Overlap),
    ("<<", Parsed::ShiftLeft),
    (">>", Parsed::ShiftRight),
    ("|", Parsed::Pipe),
    ("&", Parsed::Ampersand),
    ("#", Parsed::Sharp),
    ("=>", Parsed::RArrow),
    ("#-", Parsed::HashMinus),
    ("^@", Parsed::CaretAt),
    ("|/", Parsed::PGSquareRoot),
    ("||/", Parsed::PGCubeRoot),
    ("!!", Parsed::DoubleExclamationMark),
    ("@", Parsed::AtSign),
    ("!", Parsed::ExclamationMark),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::lexer::Lexer;

    fn of(text: &str) -> String {
        let tokens: Vec<Token> = Lexer::new(text.as_bytes()).collect();
        let canonical = canonical(text.as_bytes(), &tokens);
        let shown: Vec<String> = canonical.iter().map(|it| it.token.to_string()).collect();
        shown.join(" ")
    }

    /// A new version of the parser may call a sign or a word otherwise.
    #[test]
    fn tokens_are_what_the_parser_makes_of_them() {
        let by_the_parser = |text: &str| {
            let dialect = sqlparser::dialect::PostgreSqlDialect {};
            let mut tokenizer = sqlparser::tokenizer::Tokenizer::new(&dialect, text);
            let mut tokens = tokenizer.tokenize().unwrap();
            tokens.retain(|token| !matches!(token, Parsed::Whitespace(_)));
            tokens
        };
        for (sign, token) in KNOWN_OPERATORS {
            assert_eq!(by_the_parser(&format!("a {sign} b"))[1], token, "{sign}");
        }
        let own = |text: &str| {
            let tokens: Vec<Token> = Lexer::new(text.as_bytes()).collect();
            let canonical = canonical(text.as_bytes(), &tokens);
            canonical.into_iter().map(|it| it.token).collect::<Vec<_>>()
        };
        let texts = [
            "WITH w AS (SELECT a[1:1], \"B\"\"c\", 'x'::text FROM f(a => 1, b := $1)) ; VALUES (lower_case, Übung$1)",
            "( ) , ; [ ] . : :: :=",
        ];
        let keywords = ALL_KEYWORDS.join(" . ");
        for text in texts.iter().copied().chain([keywords.as_str()]) {
            let text = text.replace('Ü', "ÿÿ");
            let ours = own(&text.replace("ÿÿ", "Ü"));
            assert_eq!(ours, by_the_parser(&text));
        }
    }

    #[test]
    fn plain_columns_that_are_not_the_last_are_left_out() {
        let table = [
            ("SELECT a, b, c FROM t, u", "SELECT c FROM t , u"),
            (
                "SELECT t.a AS x, \"T\".\"b\", f(1), t.c, d",
                "SELECT f ( 1 ) , t . c , d",
            ),
            ("SELECT DISTINCT a, b", "SELECT DISTINCT a , b"),
            ("SELECT a x, b", "SELECT a x , b"),
            ("SELECT t.*, a", "SELECT t . * , a"),
            ("SELECT a, FROM", "SELECT FROM"),
            (
                "(SELECT 1) GROUP BY a.b.c, d ORDER BY e, f DESC",
                "( SELECT 1 ) GROUP BY d ORDER BY f DESC",
            ),
            ("FROM t JOIN by a, c", "FROM t JOIN by a , c"),
            ("SELECT x.select, a, b", "SELECT b"),
            ("a.select b, c", "a . select b , c"),
        ];
        for (text, expected) in table {
            assert_eq!(of(text), expected, "{text}");
        }
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
                "SELECT rows FROM ( SELECT 1 ) x",
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
            (
                "a like all (b) AND c NOT ILIKE ANY (d)",
                "a = all ( b ) AND c = ANY ( d )",
            ),
            ("\"like\" LIKE 'all' || (b)", "\"like\" LIKE 'x' || ( b )"),
            ("a @> b -> 'c' || $5", "a @> b -> 'x' || $1"),
            ("\"VARIADIC\" U\u{e9}", "\"VARIADIC\" Uÿÿ"),
        ];
        for (text, expected) in table {
            assert_eq!(of(text), expected, "{text}");
        }
    }
}
