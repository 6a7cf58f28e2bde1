//! Where a setting came from, and the errors that point there.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// The place an operator has to change to change a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// The file as a whole: for what is missing in it.
    File(Arc<Path>),
    /// Line and column count from 1; the column counts characters.
    Line {
        path: Arc<Path>,
        line: usize,
        column: usize,
    },
    /// A flag with its dashes, which may also have come from its environment variable.
    Flag(Arc<str>),
}

impl Origin {
    /// A flag, named with its dashes.
    pub fn flag(name: &str) -> Self {
        Origin::Flag(name.into())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(path) => write!(f, "{}", path.display()),
            Origin::Line { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Origin::Flag(name) => f.write_str(name),
        }
    }
}

/// The origin of every setting that somebody set, by its path: `pool.size`, `nodes.0.host`. The
/// empty path is the origin of all that nobody set.
#[derive(Clone, Debug, Default)]
pub struct Origins {
    by_path: HashMap<String, Origin>,
}

impl Origins {
    /// Records that `path` was set at `origin`, instead of any earlier one.
    pub fn set(&mut self, path: impl Into<String>, origin: Origin) {
        self.by_path.insert(path.into(), origin);
    }

    /// Somebody set exactly this setting.
    pub fn is_set(&self, path: &str) -> bool {
        self.by_path.contains_key(path)
    }

    /// Forgets `path` and everything below it.
    pub fn forget(&mut self, path: &str) {
        self.by_path.retain(|known, _| {
            known
                .strip_prefix(path)
                .is_none_or(|rest| !rest.is_empty() && !rest.starts_with('.'))
        });
    }

    /// Where `path` was set, else where the section or the file was that could have set it.
    pub fn of(&self, path: &str) -> Origin {
        let mut path = path;
        loop {
            if let Some(origin) = self.by_path.get(path) {
                return origin.clone();
            }
            path = match path.rfind('.') {
                Some(dot) => &path[..dot],
                None if !path.is_empty() => "",
                None => return Origin::Default,
            };
        }
    }
}

/// One thing that is wrong with the settings, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    pub origin: Origin,
    /// Without the origin; never holds a password.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::Default => f.write_str(&self.message),
            origin => write!(f, "{origin}: {}", self.message),
        }
    }
}

/// Everything that is wrong with the settings; at least one error. Displayed one a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unset_setting_has_the_origin_of_its_nearest_parent() {
        let mut origins = Origins::default();
        assert_eq!(origins.of("pool.size"), Origin::Default);
        origins.set("", Origin::File(Path::new("proxy.toml").into()));
        origins.set("nodes.1", Origin::flag("--replica"));
        assert_eq!(origins.of("nodes.1.weight").to_string(), "--replica");
        assert_eq!(origins.of("nodes.10.weight").to_string(), "proxy.toml");
        assert_eq!(origins.of("pool").to_string(), "proxy.toml");
        origins.set("nodes.10", Origin::flag("--primary"));
        origins.forget("nodes.1");
        assert_eq!(origins.of("nodes.1.weight").to_string(), "proxy.toml");
        assert_eq!(origins.of("nodes.10.weight").to_string(), "--primary");
    }
}
