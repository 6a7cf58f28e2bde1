//! Who uses what: an object does what the objects do that it uses. PostgreSQL tells some of it (the
//! edges), the names in texts tell the rest.
//!
//! A name in a text means everything that is called so: it stands between what has it and what names it as
//! a node of its own, so that thousands of functions of one name that all name it are no millions of edges.

use hashbrown::{HashMap, HashSet};

use super::words::{Word, words};
use super::{Edge, Kind, Nature, Object, ObjectId, Rows};

/// For each node those that use it. The first nodes are the objects, in their order; behind them stand names.
#[derive(Debug)]
pub(super) struct Users {
    by_node: Vec<Vec<usize>>,
}

/// Which functions' texts are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Texts {
    /// What is volatile and has no body to be read writes already.
    OfReads,
    All,
}

impl Users {
    /// What is trusted uses nothing, as far as anybody is concerned. `trusted` is of all objects.
    pub fn new(rows: &Rows, trusted: &[bool], texts: Texts) -> Users {
        let objects = &rows.objects;
        let mut users = Users {
            by_node: vec![Vec::new(); objects.len()],
        };
        let uses_something = |place: usize| trusted.get(place) == Some(&false);
        let places = objects.iter().enumerate();
        let place_of: HashMap<ObjectId, usize> =
            places.map(|(place, object)| (object.id, place)).collect();
        for Edge { user, used } in &rows.edges {
            let used = match used.kind {
                Kind::Function => place_of.get(used).or_else(|| {
                    let kind = Kind::Builtin;
                    place_of.get(&ObjectId { kind, ..*used })
                }),
                _ => place_of.get(used),
            };
            if let (Some(used), Some(user)) = (used, place_of.get(user))
                && used != user
                && uses_something(*user)
            {
                users.add(*used, *user);
            }
        }
        let mut named = Named::new(objects);
        for (user, object) in objects.iter().enumerate() {
            // A view's edges are known.
            let may_read = object.nature == Nature::Plain || object.body.is_some();
            let counts = texts == Texts::All || may_read;
            if object.id.kind == Kind::Function && counts && uses_something(user) {
                for name in named.in_text(&mut users, &object.text) {
                    users.add(name, user);
                }
            }
        }
        users
    }

    fn add(&mut self, used: usize, user: usize) {
        if let Some(users) = self.by_node.get_mut(used) {
            users.push(user);
        }
    }

    fn new_node(&mut self) -> usize {
        self.by_node.push(Vec::new());
        self.by_node.len() - 1
    }

    /// Those that use a node.
    pub fn of(&self, node: usize) -> &[usize] {
        self.by_node
            .get(node)
            .map(Vec::as_slice)
            .unwrap_or_default()
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.by_node.len()
    }

    #[cfg(test)]
    fn edges(&self) -> usize {
        self.by_node.iter().map(Vec::len).sum()
    }
}

/// What a text can name, and the nodes of the names that texts have had so far.
struct Named<'a> {
    objects: &'a [Object],
    schemas: HashSet<&'a str>,
    functions: Places<'a>,
    relations: Places<'a>,
    types: Places<'a>,
    operators: Places<'a>,
    nodes: HashMap<(Kind, Option<&'a str>, &'a str), usize>,
}

/// Places of objects by name.
type Places<'a> = HashMap<&'a str, Vec<usize>>;

impl<'a> Named<'a> {
    fn new(objects: &'a [Object]) -> Named<'a> {
        let of = |kind: Kind| {
            let mut places = Places::new();
            for (place, object) in objects.iter().enumerate() {
                if object.id.kind == kind {
                    places.entry(&object.name).or_default().push(place);
                }
            }
            places
        };
        Named {
            objects,
            schemas: objects.iter().map(|object| &*object.schema).collect(),
            functions: of(Kind::Function),
            relations: of(Kind::Relation),
            types: of(Kind::TypeByName),
            operators: of(Kind::Operator),
            nodes: HashMap::new(),
        }
    }

    /// The nodes of all names in a text, each once.
    fn in_text(&mut self, users: &mut Users, text: &str) -> HashSet<usize> {
        let mut found = HashSet::new();
        for word in words(text) {
            let lower = word.text.to_ascii_lowercase();
            let schema = self.schema_of(&word);
            for name in [lower.as_str(), word.text] {
                for kind in [Kind::Function, Kind::Relation, Kind::TypeByName] {
                    if kind != Kind::Function || word.is_called {
                        found.extend(self.node(users, kind, schema, name));
                    }
                }
            }
        }
        let signs = self.operators.keys().copied();
        let signs: Vec<&str> = signs.filter(|sign| text.contains(sign)).collect();
        for sign in signs {
            found.extend(self.node(users, Kind::Operator, None, sign));
        }
        found
    }

    /// The schema that a word is said to be of. What is none that is known may be a part of a name, or
    /// another thing with a dot behind it: then the word may be of any schema.
    fn schema_of(&self, word: &Word) -> Option<&'a str> {
        let schema = word.qualifier?.to_ascii_lowercase();
        self.schemas.get(schema.as_str()).copied()
    }

    /// The node of a name, if anything has it.
    fn node(
        &mut self,
        users: &mut Users,
        kind: Kind,
        schema: Option<&'a str>,
        name: &str,
    ) -> Option<usize> {
        let places = match kind {
            Kind::Function => &self.functions,
            Kind::Relation => &self.relations,
            Kind::TypeByName => &self.types,
            _ => &self.operators,
        };
        let (name, places) = places.get_key_value(name)?;
        let key = (kind, schema, *name);
        if let Some(node) = self.nodes.get(&key) {
            return Some(*node);
        }
        let is_of_schema = |place: &&usize| match (schema, self.objects.get(**place)) {
            (Some(schema), Some(object)) => &*object.schema == schema,
            _ => true,
        };
        let node = users.new_node();
        for place in places.iter().filter(is_of_schema) {
            users.add(*place, node);
        }
        self.nodes.insert(key, node);
        Some(node)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Maker;
    use super::*;

    /// Thousands of functions may share a name, each of which names it.
    #[test]
    fn edges_grow_with_the_overloads_of_a_name_and_not_with_their_square() {
        let edges = |overloads: usize| {
            let mut maker = Maker::default();
            for number in 0..overloads {
                maker.function("f", &format!("SELECT f({number}), public.f(1)"));
                maker.relation("f", Nature::Plain, "");
            }
            let trusted = vec![false; maker.0.objects.len()];
            Users::new(&maker.0, &trusted, Texts::All).edges()
        };
        let [few, many] = [edges(100), edges(3_000)];
        assert!(few >= 100 && many <= few * 30, "{few}, {many}");
    }
}
