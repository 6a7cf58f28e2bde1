//! Settings as a session wants them and as a server has them, and the SQL that leads from one to
//! the other.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Settings by lower-case name. Cloning shares; changing one copy unshares it. None set is the common case and costs nothing.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    values: Option<Arc<BTreeMap<Box<str>, Value>>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    /// SQL text as it stands behind `SET name TO`.
    Sql(Box<str>),
    /// A list of names, just as somebody wrote it: SET would quote it, or put it in other words.
    Exactly(Box<str>),
}

/// How long a setting lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Session,
    Transaction,
}

impl PartialEq for Settings {
    fn eq(&self, other: &Settings) -> bool {
        match (&self.values, &other.values) {
            (None, None) => true,
            (Some(left), Some(right)) => Arc::ptr_eq(left, right) || left == right,
            _ => false,
        }
    }
}

impl Settings {
    /// Sets `name` to SQL text.
    pub fn set(&mut self, name: &str, value: &str) {
        self.put(name, Value::Sql(value.into()));
    }

    /// Gives `name` this very value.
    pub fn set_exactly(&mut self, name: &str, value: &str) {
        self.put(name, Value::Exactly(value.into()));
    }

    /// Has `name` as the others have it.
    pub fn take_over(&mut self, name: &str, others: &Settings) {
        match others.value(name) {
            Some(value) => self.put(name, value.clone()),
            None => self.reset(name),
        }
    }

    fn put(&mut self, name: &str, value: Value) {
        let values = self.values.get_or_insert_default();
        Arc::make_mut(values).insert(name.into(), value);
    }

    pub fn reset(&mut self, name: &str) {
        if let Some(values) = &mut self.values
            && values.contains_key(name)
        {
            Arc::make_mut(values).remove(name);
            if values.is_empty() {
                self.values = None;
            }
        }
    }

    /// What `name` was set to.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.value(name).map(|value| match value {
            Value::Sql(text) | Value::Exactly(text) => &**text,
        })
    }

    fn value(&self, name: &str) -> Option<&Value> {
        self.values.as_ref()?.get(name)
    }

    /// In an order in which they can be made.
    pub fn names_in_order(&self) -> impl Iterator<Item = &str> {
        let identity = IDENTITY.iter().copied();
        self.plain_names().chain(identity)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.names()
            .filter_map(|name| Some((name, self.get(name)?)))
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        let values = self.values.iter().flat_map(|values| values.keys());
        values.map(|name| &**name)
    }

    /// Those that RESET ALL concerns.
    pub fn plain_names(&self) -> impl Iterator<Item = &str> {
        self.names().filter(|name| !IDENTITY.contains(name))
    }

    /// What leads here from whatever may be set.
    pub fn statements_from_anything(&self) -> String {
        let from_nothing = Settings::default().statements_to(self);
        [RESET_EVERYTHING, &from_nothing.unwrap_or_default()].concat()
    }

    /// The statement that makes `name` what it is here, if it is set.
    pub fn statement(&self, name: &str, scope: Scope) -> Option<String> {
        let value = self.value(name)?;
        Some(match (value, scope) {
            (Value::Sql(text), Scope::Session) => format!("SET {} TO {text}", quoted_name(name)),
            (Value::Sql(text), Scope::Transaction) => {
                format!("SET LOCAL {} TO {text}", quoted_name(name))
            }
            (Value::Exactly(text), scope) => {
                let is_local = scope == Scope::Transaction;
                let (name, text) = (quoted(name), quoted(text));
                format!("SELECT pg_catalog.set_config({name}, {text}, {is_local})")
            }
        })
    }

    /// After RESET ALL: PostgreSQL keeps the role and the session authorization.
    pub fn after_reset_all(&self, startup: &Settings) -> Settings {
        let mut settings = startup.clone();
        for name in IDENTITY {
            settings.take_over(name, self);
        }
        settings
    }

    /// The statements that lead from these settings to `wanted`; none if nothing differs.
    ///
    /// Whoever the session has become is undone first and done last, because it decides what may
    /// be set.
    pub fn statements_to(&self, wanted: &Settings) -> Option<String> {
        if self == wanted {
            return None;
        }
        let mut sql = String::new();
        let changed = |name: &str| self.value(name) != wanted.value(name);
        let names = || self.names().chain(wanted.names());
        // A setting that only the one may make who has logged in is made, and undone, by nobody else.
        let becomes_again = names().any(|name| !IDENTITY.contains(&name) && changed(name))
            || changed(SESSION_AUTHORIZATION);
        for name in IDENTITY.iter().rev() {
            if self.get(name).is_some() && (changed(name) || becomes_again) {
                push_reset(&mut sql, name);
            }
        }
        for name in self.plain_names() {
            if wanted.get(name).is_none() {
                push_reset(&mut sql, name);
            }
        }
        for name in wanted.plain_names().filter(|name| changed(name)) {
            if name == DATESTYLE && self.get(name).is_some() {
                push_reset(&mut sql, name);
            }
            wanted.push_set(&mut sql, name);
        }
        for name in IDENTITY {
            if changed(name) || becomes_again {
                wanted.push_set(&mut sql, name);
            }
        }
        Some(sql)
    }

    fn push_set(&self, sql: &mut String, name: &str) {
        if let Some(statement) = self.statement(name, Scope::Session) {
            sql.extend([&statement, ";"]);
        }
    }
}

/// Leads from whatever is set to a server's own values.
const RESET_EVERYTHING: &str = "RESET SESSION AUTHORIZATION;RESET ROLE;RESET ALL;";

/// Its value may name the style or the order of the fields alone: the other stays as it was.
pub const DATESTYLE: &str = "datestyle";
pub const SESSION_AUTHORIZATION: &str = "session_authorization";
pub const ROLE: &str = "role";
const IDENTITY: [&str; 2] = [SESSION_AUTHORIZATION, ROLE];

fn push_reset(sql: &mut String, name: &str) {
    sql.extend(["RESET ", &quoted_name(name), ";"]);
}

/// Setting names may be qualified; each part is quoted, because it might be a key word.
fn quoted_name(name: &str) -> String {
    let parts = name.split('.');
    let quoted: Vec<String> = parts
        .map(|part| format!("\"{}\"", part.replace('"', "\"\"")))
        .collect();
    quoted.join(".")
}

/// A text as an SQL string constant, whatever `standard_conforming_strings` says.
pub fn quoted(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    if doubled.contains('\\') {
        format!("E'{}'", doubled.replace('\\', "\\\\"))
    } else {
        format!("'{doubled}'")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(entries: &[(&str, &str)]) -> Settings {
        let mut settings = Settings::default();
        for (name, value) in entries {
            settings.set(name, value);
        }
        settings
    }

    #[test]
    fn the_difference_leads_from_one_to_the_other() {
        type Entries<'a> = &'a [(&'a str, &'a str)];
        let table: &[(Entries, Entries, Option<&str>)] = &[
            (&[], &[], None),
            (&[("a", "1")], &[("a", "1")], None),
            (&[], &[("a", "1")], Some("SET \"a\" TO 1;")),
            (&[("a", "1")], &[("a", "2")], Some("SET \"a\" TO 2;")),
            (
                &[("a", "1"), ("b", "2")],
                &[("b", "2")],
                Some("RESET \"a\";"),
            ),
            (
                &[],
                &[("my.App", "'x'")],
                Some("SET \"my\".\"App\" TO 'x';"),
            ),
            (
                &[("datestyle", "german")],
                &[("datestyle", "ymd")],
                Some("RESET \"datestyle\";SET \"datestyle\" TO ymd;"),
            ),
            (
                &[("role", "r1"), ("x", "1")],
                &[("role", "r2")],
                Some("RESET \"role\";RESET \"x\";SET \"role\" TO r2;"),
            ),
            (
                &[("role", "r"), ("session_authorization", "s")],
                &[("role", "r")],
                Some("RESET \"role\";RESET \"session_authorization\";SET \"role\" TO r;"),
            ),
            (
                &[("role", "r")],
                &[("a", "1"), ("role", "r")],
                Some("RESET \"role\";SET \"a\" TO 1;SET \"role\" TO r;"),
            ),
            (
                &[("a", "1"), ("session_authorization", "s")],
                &[("session_authorization", "s")],
                Some(
                    "RESET \"session_authorization\";RESET \"a\";\
                     SET \"session_authorization\" TO s;",
                ),
            ),
        ];
        for (from, to, expected) in table {
            let sql = settings(from).statements_to(&settings(to));
            assert_eq!(sql.as_deref(), *expected, "{from:?} to {to:?}");
        }
    }

    #[test]
    fn the_last_reset_leaves_nothing() {
        let mut one = settings(&[("a", "1")]);
        one.reset("b");
        assert_eq!(one.get("a"), Some("1"));
        one.reset("a");
        assert_eq!(one, Settings::default());
    }

    #[test]
    fn reset_all_keeps_the_identity() {
        let startup = settings(&[("a", "1"), ("role", "start")]);
        let after = settings(&[("a", "2"), ("b", "3"), ("role", "now")]).after_reset_all(&startup);
        assert_eq!(after, settings(&[("a", "1"), ("role", "now")]));
    }

    #[test]
    fn a_list_is_made_as_it_was_given() {
        let mut wanted = settings(&[("a", "1"), ("role", "r")]);
        wanted.set_exactly("search_path", "\"$user\",b");
        let made = "SET \"a\" TO 1;SELECT pg_catalog.set_config('search_path', '\"$user\",b', false);\
                    SET \"role\" TO r;";
        let from_nothing = Settings::default().statements_to(&wanted);
        assert_eq!(from_nothing.as_deref(), Some(made));
        let local = wanted.statement("search_path", Scope::Transaction);
        let expected = "SELECT pg_catalog.set_config('search_path', '\"$user\",b', true)";
        assert_eq!(local.as_deref(), Some(expected));
        // As SQL the same words are another value.
        let otherwise = settings(&[("a", "1"), ("role", "r"), ("search_path", "\"$user\",b")]);
        assert!(otherwise.statements_to(&wanted).is_some());
    }

    #[test]
    fn quoting_survives_quotes_and_backslashes() {
        assert_eq!(quoted("it's"), "'it''s'");
        assert_eq!(quoted(r"a\'b"), r"E'a\\''b'");
    }
}
