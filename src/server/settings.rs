//! Settings as a session wants them and as a server has them, and the SQL that leads from one to
//! the other.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Settings by lower-case name; the values are SQL text as it stands behind `SET name TO`.
/// Cloning shares; changing one copy unshares it. None set is the common case and costs nothing.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    values: Option<Arc<BTreeMap<Box<str>, Box<str>>>>,
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
        let values = self.values.get_or_insert_default();
        Arc::make_mut(values).insert(name.into(), value.into());
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

    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.as_ref()?.get(name).map(|value| &**value)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let values = self.values.iter().flat_map(|values| values.iter());
        values.map(|(name, value)| (&**name, &**value))
    }

    /// After RESET ALL: PostgreSQL keeps the role and the session authorization.
    pub fn after_reset_all(&self, startup: &Settings) -> Settings {
        let mut settings = startup.clone();
        for name in IDENTITY {
            match self.get(name) {
                Some(value) => settings.set(name, value),
                None => settings.reset(name),
            }
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
        let changed = |name: &str| self.get(name) != wanted.get(name);
        let names = || self.iter().chain(wanted.iter()).map(|(name, _)| name);
        // A setting that only the one may make who has logged in is made, and undone, by nobody else.
        let becomes_again = names().any(|name| !IDENTITY.contains(&name) && changed(name))
            || changed(SESSION_AUTHORIZATION);
        for name in IDENTITY.iter().rev() {
            if self.get(name).is_some() && (changed(name) || becomes_again) {
                push_reset(&mut sql, name);
            }
        }
        let plain = |name: &&str| !IDENTITY.contains(name);
        for name in self.iter().map(|(name, _)| name).filter(plain) {
            if wanted.get(name).is_none() {
                push_reset(&mut sql, name);
            }
        }
        for (name, value) in wanted.iter().filter(|(name, _)| plain(name)) {
            if changed(name) {
                if name == DATESTYLE && self.get(name).is_some() {
                    push_reset(&mut sql, name);
                }
                push_set(&mut sql, name, value);
            }
        }
        for name in IDENTITY {
            if let Some(value) = wanted.get(name)
                && (changed(name) || becomes_again)
            {
                push_set(&mut sql, name, value);
            }
        }
        Some(sql)
    }
}

/// Leads from whatever is set to a server's own values.
pub const RESET_EVERYTHING: &str = "RESET SESSION AUTHORIZATION;RESET ROLE;RESET ALL;";

/// Its value may name the style or the order of the fields alone: the other stays as it was.
pub const DATESTYLE: &str = "datestyle";
pub const SESSION_AUTHORIZATION: &str = "session_authorization";
pub const ROLE: &str = "role";
const IDENTITY: [&str; 2] = [SESSION_AUTHORIZATION, ROLE];

fn push_reset(sql: &mut String, name: &str) {
    sql.push_str("RESET ");
    push_name(sql, name);
    sql.push(';');
}

fn push_set(sql: &mut String, name: &str, value: &str) {
    sql.push_str("SET ");
    push_name(sql, name);
    sql.push_str(" TO ");
    sql.push_str(value);
    sql.push(';');
}

/// Setting names may be qualified; each part is quoted, because it might be a key word.
fn push_name(sql: &mut String, name: &str) {
    for (place, part) in name.split('.').enumerate() {
        if place > 0 {
            sql.push('.');
        }
        sql.push('"');
        sql.push_str(&part.replace('"', "\"\""));
        sql.push('"');
    }
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

/// Settings whose value is a list of names, each quoted on its own (`GUC_LIST_QUOTE`).
const LISTS_OF_NAMES: [&str; 4] = [
    "search_path",
    "temp_tablespaces",
    "local_preload_libraries",
    "session_preload_libraries",
];

/// The value of a start-up parameter as it stands behind `SET name TO`: a list of names is taken
/// apart, so that each name stays one.
pub fn list_constant(name: &str, value: &str) -> String {
    if !LISTS_OF_NAMES.contains(&name) {
        return quoted(value);
    }
    let constants: Vec<String> = names(value).iter().map(|name| quoted(name)).collect();
    if constants.is_empty() {
        "''".to_owned()
    } else {
        constants.join(", ")
    }
}

/// Splits a list of identifiers at its commas; unquoted ones are folded to lower case.
fn names(list: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = list.trim_start();
    while !rest.is_empty() {
        let mut name = String::new();
        if let Some(mut quoted) = rest.strip_prefix('"') {
            while let Some(end) = quoted.find('"') {
                name.push_str(&quoted[..end]);
                quoted = &quoted[end + 1..];
                match quoted.strip_prefix('"') {
                    Some(after) => {
                        name.push('"');
                        quoted = after;
                    }
                    None => break,
                }
            }
            rest = quoted
                .split_once(',')
                .map_or("", |(_, after)| after)
                .trim_start();
        } else {
            let (this, after) = rest.split_once(',').unwrap_or((rest, ""));
            name = this.trim().to_lowercase();
            rest = after.trim_start();
        }
        names.push(name);
    }
    names
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
    fn lists_of_names_are_taken_apart() {
        let table = [
            ("search_path", "a, B", "'a', 'b'"),
            ("search_path", "\"$user\", public", "'$user', 'public'"),
            ("search_path", "\"A\"\"b, c\",d", "'A\"b, c', 'd'"),
            ("search_path", "", "''"),
            ("datestyle", "ISO, DMY", "'ISO, DMY'"),
        ];
        for (name, value, expected) in table {
            assert_eq!(list_constant(name, value), expected);
        }
    }

    #[test]
    fn quoting_survives_quotes_and_backslashes() {
        assert_eq!(quoted("it's"), "'it''s'");
        assert_eq!(quoted(r"a\'b"), r"E'a\\''b'");
    }
}
