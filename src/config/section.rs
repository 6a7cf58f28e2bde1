//! Reads one TOML table setting by setting, and remembers where each stood. All errors of a file are
//! collected; a setting that is wrong keeps its default, so that the rest can still be judged.
//!
//! It walks the parsed document itself: deriving `Deserialize` would stop at the first error and
//! forget where the good values stood.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::origin::{ConfigError, Origin, Origins};
use super::words::did_you_mean;

/// Looks up an environment variable.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// One file while it is read.
pub struct Reader<'a> {
    pub path: Arc<Path>,
    pub text: &'a str,
    pub environment: Environment<'a>,
    pub origins: Origins,
    pub errors: Vec<ConfigError>,
    /// Every setting that was asked for: `pool.size`, `nodes.host` (without the index).
    pub known: BTreeSet<String>,
}

/// A value as the parsers of single settings get it: `${NAME}` in strings is already replaced.
pub enum Value {
    Text(String),
    Integer(i128),
    Boolean(bool),
    List(Vec<Value>),
    /// A kind that no setting takes, by its name.
    Other(&'static str),
}

impl Value {
    fn kind(&self) -> &'static str {
        match self {
            Value::Text(_) => "a string",
            Value::Integer(_) => "an integer",
            Value::Boolean(_) => "a boolean",
            Value::List(_) => "an array",
            Value::Other(kind) => kind,
        }
    }

    /// The error for a value of the wrong kind.
    pub fn is_not(&self, wanted: &str) -> String {
        format!("expected {wanted}, found {}", self.kind())
    }
}

impl<'a> Reader<'a> {
    pub fn error(&mut self, origin: Origin, message: impl Into<String>) {
        self.errors.push(ConfigError {
            origin,
            message: message.into(),
        });
    }

    /// The line and column of a byte offset.
    pub fn line(&self, offset: usize) -> Origin {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Origin::Line {
            path: Arc::clone(&self.path),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }

    /// What paths in the file are relative to.
    pub fn directory(&self) -> PathBuf {
        self.path.parent().map(Path::to_owned).unwrap_or_default()
    }

    fn value(&self, value: &DeValue<'_>) -> Result<Value, String> {
        Ok(match value {
            DeValue::String(text) => Value::Text(expand(text, self.environment)?),
            DeValue::Integer(number) => Value::Integer(
                i128::from_str_radix(number.as_str(), number.radix())
                    .map_err(|_| "the number is too large".to_owned())?,
            ),
            DeValue::Boolean(flag) => Value::Boolean(*flag),
            DeValue::Array(items) => Value::List(
                items
                    .iter()
                    .map(|item| self.value(item.get_ref()))
                    .collect::<Result<_, _>>()?,
            ),
            DeValue::Float(_) => Value::Other("a float"),
            DeValue::Datetime(_) => Value::Other("a date"),
            DeValue::Table(_) => Value::Other("a table"),
        })
    }
}

/// Replaces `${NAME}`; `$${` stands for `${` itself.
fn expand(text: &str, environment: Environment<'_>) -> Result<String, String> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, from) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            expanded.push_str(before);
            expanded.push_str("${");
            rest = &from[2..];
            continue;
        }
        expanded.push_str(before);
        let (name, after) = from[2..]
            .split_once('}')
            .ok_or("the `}` after `${` is missing (write `$${` for `${` itself)")?;
        let value = environment(name)
            .ok_or_else(|| format!("the environment variable `{name}` is not set"))?;
        expanded.push_str(&value);
        rest = after;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

/// One table of the file, while its settings are taken out of it.
pub struct Section<'r, 'a> {
    pub reader: &'r mut Reader<'a>,
    table: DeTable<'a>,
    /// Its path for origins (`nodes.0`), and for people (`nodes`); both empty at the top.
    path: String,
    name: &'static str,
    keys: Vec<&'static str>,
}

impl<'r, 'a> Section<'r, 'a> {
    pub fn top(reader: &'r mut Reader<'a>, table: DeTable<'a>) -> Self {
        Section {
            reader,
            table,
            path: String::new(),
            name: "",
            keys: Vec::new(),
        }
    }

    /// Reads `key` into `slot` if it is there.
    pub fn set<T>(
        &mut self,
        key: &'static str,
        slot: &mut T,
        parse: impl FnOnce(&Value) -> Result<T, String>,
    ) {
        if let Some(value) = self.take(key, parse) {
            *slot = value;
        }
    }

    /// Reads `key` if it is there and right.
    pub fn take<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.remove(key)?;
        let origin = self.reader.line(value.span().start);
        let parsed = self
            .reader
            .value(value.get_ref())
            .and_then(|value| parse(&value));
        match parsed {
            Ok(parsed) => {
                self.reader.origins.set(self.path_of(key), origin);
                Some(parsed)
            }
            Err(error) => {
                let message = format!("{}: {error}", self.name_of(key));
                self.reader.error(origin, message);
                None
            }
        }
    }

    /// The table `[key]` if it is there.
    pub fn section(&mut self, key: &'static str, name: &'static str) -> Option<Section<'_, 'a>> {
        let value = self.remove(key)?;
        let path = self.path_of(key);
        self.open(value, path, name)
    }

    /// The tables `[[key]]`, each passed to `read`.
    pub fn sections(&mut self, key: &'static str, mut read: impl FnMut(Section<'_, 'a>)) {
        let Some(value) = self.remove(key) else {
            return;
        };
        let origin = self.reader.line(value.span().start);
        let DeValue::Array(items) = value.into_inner() else {
            self.reader.error(
                origin,
                format!("{key}: expected tables, each headed by [[{key}]]"),
            );
            return;
        };
        for (index, item) in items.into_iter().enumerate() {
            let path = format!("{}.{index}", self.path_of(key));
            if let Some(section) = self.open(item, path, key) {
                read(section);
            }
        }
    }

    fn open(
        &mut self,
        value: Spanned<DeValue<'a>>,
        path: String,
        name: &'static str,
    ) -> Option<Section<'_, 'a>> {
        let origin = self.reader.line(value.span().start);
        match value.into_inner() {
            DeValue::Table(table) => {
                self.reader.origins.set(path.clone(), origin);
                Some(Section {
                    reader: &mut *self.reader,
                    table,
                    path,
                    name,
                    keys: Vec::new(),
                })
            }
            _ => {
                self.reader
                    .error(origin, format!("{name}: expected a table"));
                None
            }
        }
    }

    /// The setting is there and nobody has read it yet.
    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// An error about the section as a whole.
    pub fn error(&mut self, message: impl Into<String>) {
        let origin = self.reader.origins.of(&self.path);
        self.reader.error(origin, message);
    }

    fn remove(&mut self, key: &'static str) -> Option<Spanned<DeValue<'a>>> {
        self.keys.push(key);
        self.reader.known.insert(self.name_of(key));
        self.table.remove_entry(key).map(|(_, value)| value)
    }

    /// The path of a setting of this section, for origins.
    pub fn path_of(&self, key: &str) -> String {
        match self.path.as_str() {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        }
    }

    fn name_of(&self, key: &str) -> String {
        match self.name {
            "" => key.to_owned(),
            name => format!("{name}.{key}"),
        }
    }

    /// Whatever nobody asked for is an error.
    pub fn finish(self) {
        for (key, _) in &self.table {
            let origin = self.reader.line(key.span().start);
            let key = key.get_ref().as_ref();
            let place = match self.name {
                "" => "at the top".to_owned(),
                name => format!("in [{name}]"),
            };
            let hint = match did_you_mean(key, self.keys.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("it takes {}", self.keys.join(", ")),
            };
            self.reader
                .error(origin, format!("unknown setting `{key}` {place}; {hint}"));
        }
    }
}
