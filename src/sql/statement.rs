//! One statement: tells by its first words what kind it is. Whatever is not a query is read here
//! or in its sibling modules by hand, because PostgreSQL has more utility statements than any
//! parser knows; queries go to [`query`].

use super::catalogue::Use;
use super::classify::{Part, Rules, with_session_calls};
use super::left_behind::with_what_calls_leave;
use super::lexer::{Kind, Lexer, Token};
use super::reader::{self, Reader};
use super::{Class, DiscardKind, Effect, PinReason, Shown, SqlPrepare};
use super::{block, database, query, set_config, settings, transaction};

pub(super) fn classify(rules: &Rules, text: &[u8], tokens: &[Token]) -> Part {
    if tokens.iter().any(|token| token.kind == Kind::UnicodeName) {
        return Part::pinned(PinReason::Unknown, "a name in Unicode escapes");
    }
    let mut reader = Reader::new(text, tokens);
    let mut part = match first_word(&reader).as_str() {
        "select" | "values" | "table" | "with" | "(" => query_or_setting(rules, text, tokens),
        "insert" | "update" | "delete" | "merge" => Part::write("it changes rows"),
        "explain" => explain(rules, text, reader),
        "copy" => copy(rules, text, reader),
        "begin" | "start" | "commit" | "end" | "rollback" | "abort" | "savepoint" | "release" => {
            transaction::classify(reader)
        }
        "prepare" => prepare(rules, text, tokens),
        "execute" => execute(rules, text, reader),
        "set" => settings::set(reader),
        "reset" => settings::reset(reader),
        "show" => settings::show(reader),
        "discard" => discard(reader),
        "deallocate" => deallocate(reader),
        "listen" => Part::pinned(PinReason::Listen, "LISTEN").with(Effect::Listen),
        "unlisten" => unlisten(reader),
        "load" => Part::pinned(PinReason::Load, "LOAD"),
        "declare" => declare(rules, text, reader),
        "fetch" | "move" => Part::new(Class::PrimaryRead, CURSOR),
        "close" => Part::new(Class::PrimaryRead, CURSOR).with(Effect::MayEndPin),
        "do" => block::classify(reader),
        "create" => create(text, tokens),
        "drop" => Part::ddl("DROP").with(Effect::MayEndPin),
        "import" => Part::ddl("IMPORT"),
        word @ ("alter" | "comment" | "grant" | "revoke" | "security" | "reassign") => {
            Part::ddl(word.to_ascii_uppercase())
        }
        word @ ("truncate" | "lock" | "notify" | "call" | "vacuum" | "analyze" | "analyse"
        | "cluster" | "reindex" | "refresh" | "checkpoint") => {
            Part::write(word.to_ascii_uppercase())
        }
        _ => {
            reader.next();
            Part::pinned(PinReason::Unknown, "an unknown kind of statement")
        }
    };
    if part.class == Class::Write && makes_temporary(text, tokens) {
        part = part.with(Effect::Pin(PinReason::TemporaryTable));
    }
    database::vacated(text, tokens)
        .into_iter()
        .fold(part, Part::with)
}

/// A statement of a text too long to be read, whose tokens lack the values: by its keywords alone.
pub(super) fn classify_long(text: &[u8], tokens: &[Token]) -> Part {
    let reader = Reader::new(text, tokens);
    let mut part = match first_word(&reader).as_str() {
        "begin" | "start" | "commit" | "end" | "rollback" | "abort" | "savepoint" | "release" => {
            return transaction::classify(reader);
        }
        "select" | "values" | "table" | "with" | "(" | "insert" | "update" | "delete" | "merge"
        | "call" | "explain" => Part::write("too long to be read"),
        "copy" => Part {
            copies_in: true,
            ..Part::write("too long to be read")
        },
        "create" | "alter" | "drop" | "comment" | "grant" | "revoke" => Part {
            is_ddl: true,
            ..Part::write("too long to be read")
        },
        _ => Part::pinned(PinReason::Unknown, "too long to be read"),
    };
    if tokens.iter().any(|token| token.kind == Kind::UnicodeName) {
        part = part.with(Effect::Pin(PinReason::Unknown));
    }
    if makes_temporary(text, tokens) {
        part = part.with(Effect::Pin(PinReason::TemporaryTable));
    }
    part
}

const CURSOR: &str = "the cursor is where it was declared";

fn first_word(reader: &Reader) -> String {
    String::from_utf8_lossy(reader.peek_source()).to_ascii_lowercase()
}

/// Whether the statement makes or changes something in the session's temporary schema:
/// `CREATE TEMP ...`, `SELECT INTO TEMP`, `... pg_temp.name`.
pub(super) fn makes_temporary(text: &[u8], tokens: &[Token]) -> bool {
    let is_any = |token: Option<&Token>, words: &[&str]| {
        token.is_some_and(|token| words.iter().any(|w| reader::is_word(text, *token, w)))
    };
    tokens.iter().enumerate().any(|(index, token)| {
        if is_any(Some(token), &["TEMP", "TEMPORARY"]) {
            let before = index.checked_sub(1).and_then(|index| tokens.get(index));
            return is_any(before, &["CREATE", "REPLACE", "LOCAL", "GLOBAL", "INTO"]);
        }
        let dotted = tokens
            .get(index + 1)
            .is_some_and(|next| next.end - next.start == 1)
            && tokens.get(index + 1).and_then(|next| text.get(next.start)) == Some(&b'.');
        dotted
            && reader::identifier(text, *token)
                .is_some_and(|name| name == "pg_temp" || name.starts_with("pg_temp_"))
    })
}

fn query_or_setting(rules: &Rules, text: &[u8], tokens: &[Token]) -> Part {
    if let Some(part) = set_config::lone_set_config(Reader::new(text, tokens)) {
        return part;
    }
    query::classify(rules, text, tokens)
}

/// EXPLAIN plans its statement and runs it only with ANALYZE.
fn explain(rules: &Rules, text: &[u8], mut reader: Reader) -> Part {
    reader.next();
    let mut runs = false;
    let mut shows = Shown::PlanText;
    if reader.accept_sign("(") {
        while let Some(token) = reader.next() {
            if reader.source(token) == b")" {
                break;
            }
            // An option is a name, and so may be quoted. The last one of a name counts.
            match reader::identifier(text, token).as_deref() {
                // Whatever is not plainly "no" means that it runs.
                Some("analyze" | "analyse") => runs = !is_no(reader.peek_source()),
                Some("format") => shows = format(reader),
                _ => {}
            }
        }
    } else {
        runs = reader.accept_any(&["ANALYZE", "ANALYSE"]);
        reader.accept("VERBOSE");
    }
    if reader.sees("EXPLAIN") {
        return Part::pinned(PinReason::Unknown, "EXPLAIN of an EXPLAIN");
    }
    Part {
        shows,
        ..explained(rules, text, reader, runs)
    }
}

/// What is explained, and whether it is run.
fn explained(rules: &Rules, text: &[u8], reader: Reader, runs: bool) -> Part {
    if runs || reader.sees("EXECUTE") {
        let inner = classify(rules, text, reader.rest());
        return inner.at_least(Class::Read, "EXPLAIN plans it");
    }
    let rules = Rules {
        how: Use::OnlyPlanned,
        ..*rules
    };
    let inner = classify(&rules, text, reader.rest());
    match inner.class {
        Class::PrimaryRead => Part::new(inner.class, inner.reason),
        // It takes the locks of what it plans, and a replica refuses some of it.
        Class::Write => Part::write(format!("EXPLAIN of what may write: {}", inner.reason)),
        Class::Read | Class::Anywhere => {
            Part::new(Class::Read, "EXPLAIN without ANALYZE only plans")
        }
    }
}

/// The value of EXPLAIN's option FORMAT.
fn format(mut reader: Reader) -> Shown {
    let value = reader.literal().or_else(|| reader.identifier());
    match value.is_some_and(|value| value.eq_ignore_ascii_case("text")) {
        true => Shown::PlanText,
        false => Shown::Plan,
    }
}

fn is_no(value: &[u8]) -> bool {
    let value = value.to_ascii_lowercase();
    matches!(
        value.as_slice(),
        b"false" | b"off" | b"0" | b"'false'" | b"'off'" | b"'0'"
    )
}

/// `COPY table | (query) FROM | TO where`.
fn copy(rules: &Rules, text: &[u8], mut reader: Reader) -> Part {
    reader.next();
    reader.accept("BINARY");
    let source = reader;
    let is_query = reader.accept_sign("(");
    let mut query: &[Token] = reader.rest();
    if is_query {
        if !reader.skip_parenthesis() {
            return Part::write("COPY without an end");
        }
        let taken = query.len() - reader.rest().len();
        query = query.get(..taken.saturating_sub(1)).unwrap_or_default();
    } else {
        while !reader.at_end() && !reader.sees("FROM") && !reader.sees("TO") {
            reader.next();
        }
    }
    if reader.accept("FROM") {
        return Part {
            copies_in: reader.sees("STDIN") || reader.sees("STDOUT"),
            ..Part::write("COPY FROM writes")
        };
    }
    if !reader.accept("TO") || !(reader.sees("STDOUT") || reader.sees("STDIN")) {
        return Part::write("COPY to a file or program of the server");
    }
    if is_query {
        return classify(rules, text, query);
    }
    let mut name = source;
    let mut path = Vec::new();
    while let Some(part) = name.identifier() {
        path.push(part);
        if !name.accept_sign(".") {
            break;
        }
    }
    query::read_of_relation(rules, &path)
}

/// `PREPARE name [(types)] AS statement`. One whose statement changes more than data stays on its
/// server: what it does when it is executed could not be told.
fn prepare(rules: &Rules, text: &[u8], tokens: &[Token]) -> Part {
    let mut reader = Reader::new(text, tokens);
    reader.next();
    if reader.accept("TRANSACTION") {
        return Part::write("PREPARE TRANSACTION").with(Effect::PrepareTransaction);
    }
    let untold = || Part::pinned(PinReason::SqlPrepare, "PREPARE of more than a query");
    let Some(name) = reader.identifier() else {
        return untold();
    };
    if reader.accept_sign("(") && !reader.skip_parenthesis() || !reader.accept("AS") {
        return untold();
    }
    let inner = classify(rules, text, reader.rest());
    let inner = with_session_calls(text, reader.rest(), inner);
    let inner = with_what_calls_leave(rules, text, reader.rest(), inner);
    let whole = tokens.first().zip(tokens.last());
    let whole = whole.and_then(|(first, last)| text.get(first.start..last.end));
    match whole {
        Some(whole) if inner.effects.is_empty() && !inner.copies_in => {
            let prepare = SqlPrepare {
                name: name.into(),
                text: whole.into(),
                class: inner.class,
                relations: inner.relations.into(),
            };
            let reason = match inner.class {
                Class::Anywhere | Class::Read => "PREPARE".to_owned(),
                Class::PrimaryRead | Class::Write => format!("PREPARE: {}", inner.reason),
            };
            Part::new(inner.class.max(Class::Read), reason).with(Effect::Prepare(Box::new(prepare)))
        }
        _ => untold(),
    }
}

/// `EXECUTE name [(arguments)]`: the arguments are judged here, the rest by the session.
fn execute(rules: &Rules, text: &[u8], mut reader: Reader) -> Part {
    reader.next();
    let Some(name) = reader.identifier() else {
        return Part::pinned(PinReason::Unknown, "an unknown EXECUTE");
    };
    let effect = Effect::Execute(name.into());
    let (Some(first), Some(last)) = (reader.rest().first(), reader.rest().last()) else {
        return Part::anywhere("EXECUTE does what was prepared", effect);
    };
    let arguments = text.get(first.start..last.end).unwrap_or_default();
    let row = [b"SELECT ROW ", arguments].concat();
    let tokens: Vec<Token> = Lexer::new(&row).collect();
    query::classify(rules, &row, &tokens).with(effect)
}

/// `CREATE TABLE ... AS EXECUTE name` is the one that runs something prepared.
fn create(text: &[u8], tokens: &[Token]) -> Part {
    let executes = tokens.windows(3).find_map(|three| match three {
        [before, execute, name]
            if reader::is_word(text, *before, "AS")
                && reader::is_word(text, *execute, "EXECUTE") =>
        {
            reader::identifier(text, *name)
        }
        _ => None,
    });
    match executes {
        Some(name) => Part::ddl("CREATE").with(Effect::Execute(name.into())),
        None => Part::ddl("CREATE"),
    }
}

fn discard(mut reader: Reader) -> Part {
    reader.next();
    let effect = match first_word(&reader).as_str() {
        "all" => Effect::DiscardAll,
        "plans" => Effect::Discard(DiscardKind::Plans),
        "sequences" => Effect::Discard(DiscardKind::Sequences),
        "temp" | "temporary" => Effect::Discard(DiscardKind::Temp),
        _ => return Part::pinned(PinReason::Unknown, "an unknown DISCARD"),
    };
    match effect {
        // They were used on the primary.
        Effect::Discard(DiscardKind::Sequences) => {
            Part::new(Class::PrimaryRead, "sequences live on the primary").with(effect)
        }
        _ => Part::anywhere("DISCARD", effect),
    }
}

fn deallocate(mut reader: Reader) -> Part {
    reader.next();
    reader.accept("PREPARE");
    if reader.accept("ALL") {
        return Part::anywhere("DEALLOCATE", Effect::Deallocate(None));
    }
    match reader.identifier() {
        Some(name) => Part::anywhere("DEALLOCATE", Effect::Deallocate(Some(name.into()))),
        None => Part::pinned(PinReason::Unknown, "an unknown DEALLOCATE"),
    }
}

fn unlisten(mut reader: Reader) -> Part {
    reader.next();
    let all = reader.accept_sign("*");
    Part::write("UNLISTEN").with(Effect::Unlisten { all })
}

/// `DECLARE name ... CURSOR [WITH HOLD] FOR query`.
fn declare(rules: &Rules, text: &[u8], mut reader: Reader) -> Part {
    reader.next();
    reader.next();
    while !reader.at_end() && !reader.accept("CURSOR") {
        reader.next();
    }
    let holds = reader.accept_all(&["WITH", "HOLD"]);
    reader.accept_all(&["WITHOUT", "HOLD"]);
    if !reader.accept("FOR") {
        return Part::pinned(PinReason::Unknown, "an unknown DECLARE");
    }
    let part = classify(rules, text, reader.rest());
    if !part.effects.is_empty() {
        return Part::pinned(PinReason::Unknown, "a cursor that changes the session");
    }
    if !holds {
        return part;
    }
    part.at_least(Class::PrimaryRead, "a cursor WITH HOLD stays on its server")
        .with(Effect::Pin(PinReason::HoldCursor))
}
