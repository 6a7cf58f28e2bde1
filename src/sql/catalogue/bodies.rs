//! What a function's body leaves in the session that calls it: settings, locks, temporary tables. Told
//! by its words, in whatever language. Dynamic SQL stands in strings: they are looked into, and what
//! begins one must look like a statement, because prose stands in strings too.

use crate::sql::PinReason;
use crate::sql::block::inside_dollars;
use crate::sql::classify::is_local_set_config;
use crate::sql::functions::{self, Verdict};
use crate::sql::lexer::{Kind, Lexer, Notation, Token};
use crate::sql::reader::{self, Reader};
use crate::sql::statement::makes_temporary;

/// The reasons to keep the server behind a call, each once, in the order of [`PinReason::ALL`].
pub(super) fn left_by(body: &str) -> Vec<PinReason> {
    let mut found = Vec::new();
    look(
        body.as_bytes(),
        Begins::Statement,
        GoesOn::No,
        0,
        &mut found,
    );
    found
}

pub(super) fn add(found: &mut Vec<PinReason>, reason: PinReason) -> bool {
    match found.binary_search_by_key(&(reason as u8), |known| *known as u8) {
        Ok(_) => false,
        Err(place) => {
            found.insert(place, reason);
            true
        }
    }
}

/// Whether a text begins with a statement.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Begins {
    /// A body, and a string that is executed.
    Statement,
    /// Any other string.
    Perhaps,
    /// Something is put in front of it.
    No,
}

/// Whether something is put behind a text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum GoesOn {
    Yes,
    No,
}

/// Strings in strings are looked into so far.
const MAX_DEPTH: usize = 4;

fn look(text: &[u8], begins: Begins, goes_on: GoesOn, depth: usize, found: &mut Vec<PinReason>) {
    let tokens: Vec<Token> = Lexer::new(text).collect();
    if makes_temporary(text, &tokens) {
        add(found, PinReason::TemporaryTable);
    }
    let source = |token: &Token| text.get(token.start..token.end).unwrap_or_default();
    for (index, token) in tokens.iter().enumerate() {
        let before = index.checked_sub(1).and_then(|index| tokens.get(index));
        let behind = tokens.get(index + 1..).unwrap_or_default();
        let is_text = matches!(token.kind, Kind::Literal(_) | Kind::Quoted);
        if is_text
            && depth < MAX_DEPTH
            && let Some(inside) = inside(source(token), token.kind)
        {
            let is_spaced = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_whitespace);
            let begins = match before {
                Some(before) if source(before) == b"||" => Begins::No,
                Some(before) if source(before) == b"," && is_spaced(inside.first()) => Begins::No,
                Some(before) if reader::is_word(text, *before, "EXECUTE") => Begins::Statement,
                _ => Begins::Perhaps,
            };
            let is_joined = behind.first().is_some_and(|next| source(next) == b"||");
            let goes_on = match is_joined || is_spaced(inside.last()) {
                true => GoesOn::Yes,
                false => GoesOn::No,
            };
            look(&inside, begins, goes_on, depth + 1, found);
        }
        let begins = match before {
            None => begins,
            Some(before) if is_any(text, before, &["BEGIN", "THEN", "ELSE", "LOOP"]) => {
                Begins::Statement
            }
            Some(before) if source(before) == b";" => Begins::Statement,
            Some(_) => Begins::No,
        };
        if begins != Begins::No
            && let Some(reason) = by_statement(text, *token, behind, begins, goes_on)
        {
            add(found, reason);
        }
        let holds = reader::is_word(text, *token, "HOLD");
        if holds && before.is_some_and(|before| reader::is_word(text, *before, "WITH")) {
            add(found, PinReason::HoldCursor);
        }
        if behind.first().is_some_and(|next| source(next) == b"(")
            && let Some(reason) = by_call(text, &tokens, index)
        {
            add(found, reason);
        }
    }
}

fn is_any(text: &[u8], token: &Token, words: &[&str]) -> bool {
    words.iter().any(|word| reader::is_word(text, *token, word))
}

/// What stands in a string, or between double quotes in other languages than SQL.
fn inside(source: &[u8], kind: Kind) -> Option<Vec<u8>> {
    let quote = match kind {
        Kind::Literal(Notation::Dollar) => return Some(inside_dollars(source).to_vec()),
        Kind::Literal(_) => b'\'',
        _ => b'"',
    };
    let start = memchr::memchr(quote, source)? + 1;
    let end = memchr::memrchr(quote, source).filter(|end| *end >= start)?;
    let text = String::from_utf8_lossy(source.get(start..end)?);
    let quote = char::from(quote);
    let [doubled, escaped] = [format!("{quote}{quote}"), format!("\\{quote}")];
    let single = quote.to_string();
    let text = text.replace(&escaped, &single).replace(&doubled, &single);
    Some(text.into_bytes())
}

/// A statement that begins with `first`.
fn by_statement(
    text: &[u8],
    first: Token,
    behind: &[Token],
    begins: Begins,
    goes_on: GoesOn,
) -> Option<PinReason> {
    let mut reader = Reader::new(text, behind);
    let is = |word| reader::is_word(text, first, word);
    let is_open = |reader: &Reader| {
        reader.peek_source().starts_with(b"%") || reader.at_end() && goes_on == GoesOn::Yes
    };
    let is_over = |reader: &Reader| reader.at_end() || reader.peek_is_sign(";");
    if is("SET") {
        return sets(reader, is_open).then_some(PinReason::Setting);
    }
    if is("RESET") {
        if is_open(&reader) || reader.accept_any(&["ALL", "ROLE", "SESSION"]) {
            return Some(PinReason::Setting);
        }
        reader.identifier()?;
        let is_qualified = reader.accept_sign(".");
        let counts = is_qualified || begins == Begins::Statement && is_over(&reader);
        return counts.then_some(PinReason::Setting);
    }
    if is("LISTEN") {
        let counts = is_open(&reader) || reader.identifier().is_some() && is_over(&reader);
        return counts.then_some(PinReason::Listen);
    }
    if is("LOAD") {
        return reader.literal().is_some().then_some(PinReason::Load);
    }
    let prepares = is("PREPARE") && begins == Begins::Statement;
    (prepares && !reader.accept("TRANSACTION")).then_some(PinReason::SqlPrepare)
}

/// Behind SET: a setting that outlives the transaction.
fn sets(mut reader: Reader, is_open: impl Fn(&Reader) -> bool) -> bool {
    if reader.accept_any(&["LOCAL", "TRANSACTION", "CONSTRAINTS"]) {
        return false;
    }
    if reader.accept("SESSION") && reader.accept_any(&["CHARACTERISTICS", "AUTHORIZATION"]) {
        return true;
    }
    if is_open(&reader) || reader.accept("ROLE") || reader.accept_all(&["TIME", "ZONE"]) {
        return true;
    }
    if reader.accept_any(&["NAMES", "SCHEMA"]) {
        return is_open(&reader) || reader.literal().is_some();
    }
    if reader.identifier().is_none() {
        return false;
    }
    if reader.accept_sign(".") && reader.identifier().is_none() {
        return is_open(&reader) || reader.at_end();
    }
    is_open(&reader) || reader.peek_is_sign("=") || reader.sees("TO")
}

/// A call of PostgreSQL's own.
fn by_call(text: &[u8], tokens: &[Token], index: usize) -> Option<PinReason> {
    let name = reader::identifier(text, *tokens.get(index)?)?;
    match functions::verdict(&name)? {
        Verdict::AdvisoryLock => Some(PinReason::AdvisoryLock),
        Verdict::Session if name == "set_config" => {
            let is_local = is_local_set_config(text, tokens, index);
            (!is_local).then_some(PinReason::Setting)
        }
        Verdict::Session => Some(PinReason::Unknown),
        Verdict::Safe | Verdict::NodeLocal | Verdict::Writes => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use PinReason::*;

    #[test]
    fn what_a_body_leaves_is_told_from_what_only_looks_like_it() {
        let table: &[(&str, &[PinReason])] = &[
            ("BEGIN SET app.tenant = 'a'; END", &[Setting]),
            ("SET app.tenant TO 'a'; SELECT 1", &[Setting]),
            ("BEGIN IF x THEN SET ROLE other; END IF; END", &[Setting]),
            ("BEGIN SET SESSION work_mem = '1MB'; END", &[Setting]),
            ("BEGIN SET SESSION AUTHORIZATION other; END", &[Setting]),
            ("BEGIN SET TIME ZONE 'UTC'; END", &[Setting]),
            ("BEGIN SET SCHEMA 'a'; END", &[Setting]),
            ("BEGIN RESET work_mem; END", &[Setting]),
            ("BEGIN RESET ALL; END", &[Setting]),
            (
                "BEGIN PERFORM set_config('app.x', v, false); END",
                &[Setting],
            ),
            (
                "SELECT pg_catalog.Set_Config('app.x', $1, local)",
                &[Setting],
            ),
            ("SELECT \"set_config\"('app.x', f(1, 2), false)", &[Setting]),
            // Dynamic SQL.
            ("BEGIN EXECUTE 'SET app.x = 1'; END", &[Setting]),
            ("BEGIN EXECUTE format('SET %I = %L', a, b); END", &[Setting]),
            ("BEGIN EXECUTE 'SET ' || a || ' = ' || b; END", &[Setting]),
            (
                "BEGIN EXECUTE concat('SET app.', a, ' = 1'); END",
                &[Setting],
            ),
            ("BEGIN EXECUTE $q$ SET app.x = 'a' $q$; END", &[Setting]),
            ("BEGIN EXECUTE E'SET app.x = \\'a\\''; END", &[Setting]),
            (
                "BEGIN EXECUTE 'SELECT set_config(''a.b'', ''c'', false)'; END",
                &[Setting],
            ),
            ("BEGIN EXECUTE 'RESET work_mem'; END", &[Setting]),
            (
                "BEGIN EXECUTE 'DO $$ BEGIN SET a.b = 1; END $$'; END",
                &[Setting],
            ),
            ("plpy.execute(\"SET app.x = 'a'\")", &[Setting]),
            (
                "plpy.execute(\"SELECT set_config('a.b', 'c', false)\")",
                &[Setting],
            ),
            // Undone by the transaction's end.
            ("BEGIN SET LOCAL app.x = 1; END", &[]),
            ("BEGIN PERFORM set_config('app.x', v, true); END", &[]),
            ("BEGIN EXECUTE 'SET LOCAL app.x = 1'; END", &[]),
            ("BEGIN SET CONSTRAINTS ALL DEFERRED; END", &[]),
            ("BEGIN EXECUTE 'SET TRANSACTION READ ONLY'; END", &[]),
            // No settings.
            ("UPDATE t SET a = 1", &[]),
            ("BEGIN UPDATE \"T\" SET a = 1; END", &[]),
            (
                "INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET a = 1",
                &[],
            ),
            ("BEGIN EXECUTE 'UPDATE ' || t || ' SET a = 1'; END", &[]),
            ("BEGIN EXECUTE concat('UPDATE ', t, ' SET a = 1'); END", &[]),
            ("BEGIN EXECUTE format('UPDATE %I SET a = 1', t); END", &[]),
            (
                "BEGIN RAISE NOTICE 'Set up is done, reset password'; END",
                &[],
            ),
            (
                "SELECT * FROM log WHERE action IN ('set', 'reset password', 'load')",
                &[],
            ),
            ("SELECT 1 -- SET app.x = 1\n /* ; SET app.x = 1 */", &[]),
            ("set x 5\nreturn $x", &[]),
            ("SELECT current_setting('app.x')", &[]),
            // Others.
            ("BEGIN PERFORM pg_advisory_lock(1); END", &[AdvisoryLock]),
            ("BEGIN PERFORM pg_advisory_xact_lock(1); END", &[]),
            (
                "BEGIN CREATE TEMP TABLE x (a int) ON COMMIT DROP; END",
                &[TemporaryTable],
            ),
            (
                "BEGIN EXECUTE 'CREATE TEMPORARY TABLE x (a int)'; END",
                &[TemporaryTable],
            ),
            ("BEGIN LISTEN bell; END", &[Listen]),
            ("BEGIN EXECUTE format('LISTEN %I', a); END", &[Listen]),
            (
                "BEGIN EXECUTE 'DECLARE c CURSOR WITH HOLD FOR SELECT 1'; END",
                &[HoldCursor],
            ),
            ("BEGIN EXECUTE 'PREPARE p AS SELECT 1'; END", &[SqlPrepare]),
            ("BEGIN EXECUTE 'PREPARE TRANSACTION ''g'''; END", &[]),
            ("BEGIN LOAD 'auto_explain'; END", &[Load]),
            ("SELECT setseed(0.5)", &[Unknown]),
            (
                "BEGIN SET a.b = 1; CREATE TEMP TABLE x (); PERFORM pg_try_advisory_lock(1); END",
                &[TemporaryTable, AdvisoryLock, Setting],
            ),
        ];
        for (body, expected) in table {
            assert_eq!(left_by(body), *expected, "{body}");
        }
    }

    #[test]
    fn nothing_that_a_body_may_be_is_too_much() {
        for piece in [
            "'",
            "\"",
            "$$",
            "(",
            "SET ",
            "E'\\'",
            "'SET a.b='",
            "/*",
            "\u{e9}",
        ] {
            left_by(&piece.repeat(2_000));
        }
    }
}
