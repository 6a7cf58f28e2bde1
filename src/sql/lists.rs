//! What the operator says about functions and relations, which wins over all that is found out.

use hashbrown::HashSet;

use super::canonical::letters;

/// The lists of the configuration, each of names: `name` in whatever schema, `schema.name`, or
/// either with `*` (any letters) and `?` (one letter); letters as PostgreSQL stores the name.
/// Operators by their sign.
#[derive(Clone, Debug, Default)]
pub struct Lists {
    /// Only read, whatever their volatility. Operators of the user by their sign.
    pub read_only_functions: Patterns,
    /// Write, whatever their volatility; wins over the former.
    pub write_functions: Patterns,
    /// Read on the primary only.
    pub primary_tables: Patterns,
    /// Tables that profiles name, so that what reads them counts as them.
    pub profiled_tables: Patterns,
    /// May be read on a replica, whatever they are made of; the former wins.
    pub replica_tables: Patterns,
}

/// Names and globs.
#[derive(Clone, Debug, Default)]
pub struct Patterns {
    exact: HashSet<Box<str>>,
    globs: Vec<Box<str>>,
}

impl Patterns {
    pub fn new(patterns: &[String]) -> Patterns {
        let (globs, exact): (Vec<&String>, Vec<_>) =
            patterns.iter().partition(|pattern| is_glob(pattern));
        Patterns {
            exact: exact
                .into_iter()
                .map(|name| letters(name.clone()).into())
                .collect(),
            globs: globs
                .into_iter()
                .map(|glob| letters(glob.clone()).into())
                .collect(),
        }
    }

    /// Whether the thing called `name` is listed, in `schema` where that is known.
    pub fn has(&self, schema: Option<&str>, name: &str) -> bool {
        if self.exact.is_empty() && self.globs.is_empty() {
            return false;
        }
        let path = schema.map(|schema| format!("{schema}.{name}"));
        let path = path.as_deref();
        let matches = |text: &str| self.exact.contains(text) || self.matches_glob(text);
        matches(name) || path.is_some_and(matches)
    }

    /// Whether it may be listed: without a schema, in whatever schema the list says.
    pub fn may_have(&self, schema: Option<&str>, name: &str) -> bool {
        let listed = || self.exact.iter().chain(&self.globs);
        self.has(schema, name)
            || schema.is_none()
                && listed().any(|pattern| {
                    let (_, last) = pattern.rsplit_once('.').unwrap_or_default();
                    !last.is_empty() && matches(last, name)
                })
    }

    /// An operator's sign is no glob: `*` is one of them.
    pub fn has_sign(&self, sign: &str) -> bool {
        self.exact.contains(sign) || self.globs.iter().any(|listed| **listed == *sign)
    }

    /// A glob with a dot is about a path, one without about a name.
    fn matches_glob(&self, text: &str) -> bool {
        let mut globs = self.globs.iter();
        globs.any(|glob| glob.contains('.') == text.contains('.') && matches(glob, text))
    }
}

/// A sign of an operator is not a glob, and neither is a name without `*` and `?`.
fn is_glob(pattern: &str) -> bool {
    pattern.contains(['*', '?']) && pattern.contains(|letter: char| letter.is_alphanumeric())
        || pattern == "*"
}

/// `*` is any number of letters, `?` one. Each `*` is tried once from left to right: no glob
/// costs more than its length times the text's.
fn matches(glob: &str, text: &str) -> bool {
    let (glob, text): (Vec<char>, Vec<char>) = (glob.chars().collect(), text.chars().collect());
    let (mut g, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match glob.get(g) {
            Some('*') => {
                retry = Some((g + 1, t));
                g += 1;
            }
            Some('?') => (g, t) = (g + 1, t + 1),
            Some(letter) if Some(letter) == text.get(t) => (g, t) = (g + 1, t + 1),
            _ => match retry {
                Some((after, from)) => {
                    (g, t) = (after, from + 1);
                    retry = Some((after, from + 1));
                }
                None => return false,
            },
        }
    }
    glob.iter().skip(g).all(|letter| *letter == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_paths_and_globs() {
        let listed = [
            "plain",
            "app.exact",
            "audit_*",
            "reports.*",
            "x?z",
            "<->",
            "*=",
        ];
        let patterns = Patterns::new(&listed.map(str::to_owned));
        let table = [
            (None, "plain", true),
            (Some("any"), "plain", true),
            (None, "exact", false),
            (Some("app"), "exact", true),
            (Some("other"), "exact", false),
            (None, "audit_", true),
            (Some("s"), "audit_log", true),
            (None, "my_audit_log", false),
            (Some("reports"), "anything", true),
            (None, "reports", false),
            (Some("reports2"), "anything", false),
            (None, "xyz", true),
            (None, "xyyz", false),
        ];
        for (schema, name, expected) in table {
            assert_eq!(patterns.has(schema, name), expected, "{schema:?} {name}");
        }
        assert!(patterns.may_have(None, "exact") && patterns.may_have(None, "in_reports_perhaps"));
        assert!(!Patterns::new(&["app.exact".to_owned()]).may_have(None, "other"));
        assert!(patterns.has_sign("<->") && patterns.has_sign("*="));
        assert!(!patterns.has_sign("=*"));
    }

    #[test]
    fn globs_end_whatever_they_are() {
        let glob = "*a".repeat(2_000);
        assert!(!matches(&glob, &"a".repeat(1_999)));
        assert!(matches(&glob, &"a".repeat(5_000)));
    }
}
