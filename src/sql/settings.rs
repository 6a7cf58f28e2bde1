//! SET, RESET and SHOW: which setting, and a value that can be set again
//! on another server with the same meaning. What cannot be told with certainty pins the session.

use super::classify::Part;
use super::lexer::{Kind, Notation};
use super::reader::{self, Reader};
use super::transaction;
use super::{Begin, Class, Effect, Isolation, PinReason};

pub(super) fn set(mut reader: Reader) -> Part {
    reader.next();
    if reader.accept_all(&["SESSION", "CHARACTERISTICS", "AS", "TRANSACTION"]) {
        return characteristics(&mut reader).unwrap_or_else(unknown);
    }
    if reader.sees("CONSTRAINTS") && !names_setting(reader) {
        return Part::new(
            Class::PrimaryRead,
            "SET CONSTRAINTS concerns the writes of its transaction",
        );
    }
    let scope = if reader.sees("LOCAL") && !names_setting(reader) {
        reader.next();
        Scope::Transaction
    } else {
        let is_scope = reader.sees("SESSION") && !names_setting(reader);
        let mut after = reader;
        after.next();
        if is_scope && !after.sees("AUTHORIZATION") {
            reader.next();
        }
        Scope::Session
    };
    let part = assignment(&mut reader, scope);
    part.filter(|_| reader.at_end()).unwrap_or_else(unknown)
}

pub(super) fn reset(mut reader: Reader) -> Part {
    reader.next();
    let effect = if reader.accept("ALL") {
        Some(Effect::ResetAll)
    } else {
        named_setting(&mut reader).map(|name| Effect::Reset(name.into()))
    };
    match effect {
        Some(effect) if reader.at_end() => Part::anywhere("RESET", effect),
        _ => unknown(),
    }
}

pub(super) fn show(mut reader: Reader) -> Part {
    reader.next();
    match named_setting(&mut reader) {
        Some(name) if reader.at_end() && tells_the_role(&name) => {
            Part::new(Class::PrimaryRead, format!("SHOW {name} is about one node"))
        }
        Some(name) if reader.at_end() => Part::anywhere("SHOW", Effect::Show(name.into())),
        _ => Part::new(Class::PrimaryRead, "an unknown SHOW"),
    }
}

/// Drivers ask these to find the primary (`target_session_attrs`): clients see one.
const TELL_THE_ROLE: [&str; 2] = ["transaction_read_only", "in_hot_standby"];

fn tells_the_role(setting: &str) -> bool {
    TELL_THE_ROLE.contains(&setting)
}

/// A literal, with its quotes, that is the name of such a setting: `current_setting('...')`,
/// `pg_settings WHERE name = '...'`.
pub(super) fn names_the_role(literal: &[u8]) -> bool {
    let inside = literal
        .strip_prefix(b"'")
        .and_then(|it| it.strip_suffix(b"'"));
    inside.is_some_and(|name| {
        let is_it = |setting: &&str| name.eq_ignore_ascii_case(setting.as_bytes());
        TELL_THE_ROLE.iter().any(is_it)
    })
}

/// The name of a setting as SQL, each part quoted: safe whatever keyword it holds.
pub fn quote_setting_name(name: &str) -> String {
    let parts: Vec<_> = name.split('.').map(reader::quote_identifier).collect();
    parts.join(".")
}

#[derive(Clone, Copy)]
pub(super) enum Scope {
    Session,
    Transaction,
}

fn unknown() -> Part {
    Part::pinned(PinReason::Unknown, "a setting that cannot be followed")
}

/// The next word is the name of a setting, or the first part of one, not a keyword of SET.
fn names_setting(mut reader: Reader) -> bool {
    reader.next();
    reader.peek_is_sign(".") || reader.peek_is_sign("=") || reader.sees("TO")
}

fn assignment(reader: &mut Reader, scope: Scope) -> Option<Part> {
    if names_setting(*reader) {
        return generic(reader, scope);
    }
    if reader.accept("TRANSACTION") {
        return set_transaction(reader);
    }
    if reader.accept_all(&["TIME", "ZONE"]) {
        return special(reader, scope, "timezone", time_zone);
    }
    if reader.accept_all(&["SESSION", "AUTHORIZATION"]) {
        return special(reader, scope, "session_authorization", role_name);
    }
    if reader.accept("ROLE") {
        return special(reader, scope, "role", role_name);
    }
    if reader.accept("SCHEMA") {
        return special(reader, scope, "search_path", string_value);
    }
    if reader.accept("NAMES") {
        return special(reader, scope, "client_encoding", |reader| {
            if reader.at_end() {
                return Some(None);
            }
            string_value(reader)
        });
    }
    if reader.accept_all(&["XML", "OPTION"]) {
        return special(reader, scope, "xmloption", |reader| {
            let document = reader.accept("DOCUMENT");
            (document || reader.accept("CONTENT"))
                .then(|| Some(if document { "'document'" } else { "'content'" }.to_owned()))
        });
    }
    generic(reader, scope)
}

/// A value as SQL text; the inner `None` is DEFAULT.
type Value = Option<String>;

fn special(
    reader: &mut Reader,
    scope: Scope,
    name: &str,
    value: impl Fn(&mut Reader) -> Option<Value>,
) -> Option<Part> {
    let value = if reader.accept("DEFAULT") {
        None
    } else {
        value(reader)?
    };
    Some(assign(name, value, scope))
}

fn generic(reader: &mut Reader, scope: Scope) -> Option<Part> {
    let name = dotted_name(reader)?;
    if !reader.accept("TO") && !reader.accept_sign("=") {
        return None;
    }
    if reader.accept("DEFAULT") {
        return Some(assign(&name, None, scope));
    }
    let mut values = vec![simple_value(reader)?];
    while reader.accept_sign(",") {
        values.push(simple_value(reader)?);
    }
    Some(assign(&name, Some(values.join(", ")), scope))
}

fn assign(name: &str, value: Value, scope: Scope) -> Part {
    let effect = assignment_effect(name, value, scope);
    Part::new(class_of(&effect), "SET").with(effect)
}

/// Where an assignment may run. What names an object is looked up in the catalogue, so it needs a
/// node as fresh as a query does: a session may just have created the object.
pub(super) fn class_of(assignment: &Effect) -> Class {
    match assignment {
        Effect::Set { name, .. }
        | Effect::SetExactly { name, .. }
        | Effect::SetLocal { name }
        | Effect::ResetLocal(name)
            if NAMES_AN_OBJECT.contains(&&**name) =>
        {
            Class::Read
        }
        _ => Class::Anywhere,
    }
}

/// Settings that are refused if no such object exists.
const NAMES_AN_OBJECT: [&str; 6] = [
    "role",
    "session_authorization",
    "default_tablespace",
    "temp_tablespaces",
    "default_table_access_method",
    "default_text_search_config",
];

pub(super) fn assignment_effect(name: &str, value: Value, scope: Scope) -> Effect {
    if name.starts_with("transaction_") {
        // These settings are the running transaction's own, whatever the scope says.
        let read_only = value.filter(|_| name == "transaction_read_only");
        let read_only = read_only.and_then(|value| boolean(&value));
        return Effect::SetTransaction { read_only };
    }
    match scope {
        Scope::Transaction if value.is_none() => Effect::ResetLocal(name.into()),
        Scope::Transaction => Effect::SetLocal { name: name.into() },
        Scope::Session => Effect::Set {
            name: name.into(),
            value: value.map(Into::into),
        },
    }
}

fn boolean(value: &str) -> Option<bool> {
    match value.trim_matches('\'').to_ascii_lowercase().as_str() {
        "on" | "true" | "t" | "yes" | "y" | "1" => Some(true),
        "off" | "false" | "f" | "no" | "n" | "0" => Some(false),
        _ => None,
    }
}

fn set_transaction(reader: &mut Reader) -> Option<Part> {
    if reader.accept("SNAPSHOT") {
        reader.literal()?;
        let effect = Effect::SetTransaction { read_only: None };
        let reason = "a snapshot belongs to the server that exported it";
        return Some(Part::new(Class::PrimaryRead, reason).with(effect));
    }
    let Begin {
        read_only,
        isolation,
        ..
    } = transaction::modes(reader)?;
    let effect = Effect::SetTransaction { read_only };
    if read_only == Some(false) || isolation == Some(Isolation::Serializable) {
        let reason = "a replica has no such transactions";
        return Some(Part::new(Class::PrimaryRead, reason).with(effect));
    }
    Some(Part::anywhere("SET TRANSACTION", effect))
}

fn characteristics(reader: &mut Reader) -> Option<Part> {
    let Begin {
        read_only,
        isolation,
        deferrable,
    } = transaction::modes(reader)?;
    let isolation = isolation.map(|isolation| match isolation {
        Isolation::ReadUncommitted => "'read uncommitted'",
        Isolation::ReadCommitted => "'read committed'",
        Isolation::RepeatableRead => "'repeatable read'",
        Isolation::Serializable => "'serializable'",
    });
    let switch = |on: bool| if on { "on" } else { "off" };
    let settings = [
        ("default_transaction_isolation", isolation),
        ("default_transaction_read_only", read_only.map(switch)),
        ("default_transaction_deferrable", deferrable.map(switch)),
    ];
    let mut part = Part::new(Class::Anywhere, "SET SESSION CHARACTERISTICS");
    for (name, value) in settings {
        if value.is_some() {
            let value = value.map(str::to_owned);
            part = part.with(assignment_effect(name, value, Scope::Session));
        }
    }
    Some(part)
}

/// A name as in SET; several words for those that have a syntax of their own.
fn named_setting(reader: &mut Reader) -> Option<String> {
    let special: [(&[&str], &str); 3] = [
        (&["TIME", "ZONE"], "timezone"),
        (&["SESSION", "AUTHORIZATION"], "session_authorization"),
        (
            &["TRANSACTION", "ISOLATION", "LEVEL"],
            "transaction_isolation",
        ),
    ];
    for (words, name) in special {
        if reader.accept_all(words) {
            return Some(name.to_owned());
        }
    }
    dotted_name(reader)
}

fn dotted_name(reader: &mut Reader) -> Option<String> {
    let mut name = reader.identifier()?;
    while reader.accept_sign(".") {
        name.push('.');
        name.push_str(&reader.identifier()?);
    }
    valid_name(name)
}

/// Names are compared without regard to case; odd ones are left to PostgreSQL.
pub(super) fn valid_name(name: String) -> Option<String> {
    let name = name.to_ascii_lowercase();
    let is_valid = |part: &str| {
        let mut bytes = part.bytes();
        let first = bytes.next();
        first.is_some_and(|byte| byte.is_ascii_lowercase() || byte == b'_')
            && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_$".contains(&b))
    };
    name.split('.').all(is_valid).then_some(name)
}

/// One value of SET's list: a literal, a number, or a word.
fn simple_value(reader: &mut Reader) -> Option<String> {
    if let Some(value) = reader.literal() {
        return Some(reader::quote_literal(&value));
    }
    let sign = match reader.peek_source() {
        b"-" => "-",
        b"+" => "+",
        _ => "",
    };
    if !sign.is_empty() {
        reader.next();
    }
    let token = reader.next()?;
    let source = std::str::from_utf8(reader.source(token)).ok()?;
    match token.kind {
        Kind::Number => Some(format!("{sign}{source}")),
        Kind::Word | Kind::Quoted if sign.is_empty() => Some(source.to_owned()),
        // It says itself how its backslashes are meant.
        Kind::Literal(Notation::Escape) if sign.is_empty() => Some(source.to_owned()),
        _ => None,
    }
}

fn string_value(reader: &mut Reader) -> Option<Value> {
    reader
        .literal()
        .map(|value| Some(reader::quote_literal(&value)))
}

fn role_name(reader: &mut Reader) -> Option<Value> {
    simple_value(reader).map(Some)
}

fn time_zone(reader: &mut Reader) -> Option<Value> {
    if reader.accept("LOCAL") {
        return Some(None);
    }
    if !reader.accept("INTERVAL") {
        return simple_value(reader).map(Some);
    }
    // The setting's own text form knows INTERVAL '...' too, but no fields behind it; they change
    // nothing about a value in hours and minutes.
    let value = reader.literal()?;
    let fields = reader.accept_all(&["HOUR", "TO", "MINUTE"]);
    let is_clock = value.contains(':')
        && value
            .bytes()
            .all(|byte| byte.is_ascii_digit() || b"+-:".contains(&byte));
    let plain = !value.contains('\'') && (!fields || is_clock);
    plain.then(|| Some(reader::quote_literal(&format!("INTERVAL '{value}'"))))
}
