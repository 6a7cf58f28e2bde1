//! What is known of things by their names: of all that share a name, and of those in one schema.

use hashbrown::HashMap;

/// By `name`, and by `schema.name`. What is not known of a name is the default.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ByName<T> {
    by_name: HashMap<Box<str>, T>,
    by_path: HashMap<Box<str>, T>,
}

impl<T> Default for ByName<T> {
    fn default() -> Self {
        ByName {
            by_name: HashMap::default(),
            by_path: HashMap::default(),
        }
    }
}

impl<T: Default> ByName<T> {
    /// Something more is known of the thing, and so of all of its name.
    pub fn note(&mut self, schema: &str, name: &str, note: impl Fn(&mut T)) {
        note(self.by_path.entry(path(schema, name).into()).or_default());
        note(self.by_name.entry(name.into()).or_default());
    }
}

impl<T> ByName<T> {
    /// Without a schema, of all schemas that have the name.
    pub fn get(&self, schema: Option<&str>, name: &str) -> Option<&T> {
        if self.is_empty() {
            return None;
        }
        match schema {
            None => self.by_name.get(name),
            Some(schema) => self.by_path.get(path(schema, name).as_str()),
        }
    }

    /// Only what `other` knows otherwise.
    pub fn other_than(mut self, other: &ByName<T>) -> ByName<T>
    where
        T: PartialEq,
    {
        let differs =
            |known: &HashMap<Box<str>, T>, name: &str, it: &T| known.get(name) != Some(it);
        self.by_name
            .retain(|name, it| differs(&other.by_name, name, it));
        self.by_path
            .retain(|path, it| differs(&other.by_path, path, it));
        self
    }

    pub fn is_empty(&self) -> bool {
        self.by_path.is_empty()
    }

    /// Names, those in different schemas apart.
    pub fn len(&self) -> usize {
        self.by_path.len()
    }
}

impl<T> ByName<Vec<T>> {
    /// As [`get`](ByName::get); nothing where nothing is known.
    pub fn list(&self, schema: Option<&str>, name: &str) -> &[T] {
        self.get(schema, name)
            .map(Vec::as_slice)
            .unwrap_or_default()
    }
}

/// A name may hold dots, but no zero.
fn path(schema: &str, name: &str) -> String {
    format!("{schema}\0{name}")
}
