//! Which functions may change the catalogue when they are called, and whatever calls them: by the words in
//! their bodies, in whatever language.

use super::by_name::ByName;
use super::users::{Texts, Users};
use super::words::words;
use super::{Kind, Object, Rows};

/// By the names of functions.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Remakes(ByName<()>);

impl Remakes {
    pub fn new(rows: &Rows) -> Remakes {
        let mut remakes = Remakes::default();
        let by_itself =
            |object: &Object| object.id.kind == Kind::Function && may_remake(&object.text);
        let mut seen: Vec<bool> = rows.objects.iter().map(by_itself).collect();
        let places = 0..seen.len();
        let mut queue: Vec<usize> = places.filter(|at| seen.get(*at) == Some(&true)).collect();
        if queue.is_empty() {
            return remakes;
        }
        let users = Users::new(rows, &vec![false; rows.objects.len()], Texts::All);
        seen.resize(users.len(), false);
        while let Some(used) = queue.pop() {
            for &user in users.of(used) {
                if let Some(known @ false) = seen.get_mut(user) {
                    *known = true;
                    queue.push(user);
                }
            }
        }
        for (object, remakes_it) in rows.objects.iter().zip(seen) {
            if remakes_it && object.id.kind == Kind::Function {
                remakes.0.note(&object.schema, &object.name, |()| ());
            }
        }
        remakes
    }

    /// Any overload; without a schema, of any schema.
    pub fn function(&self, schema: Option<&str>, name: &str) -> bool {
        self.0.get(schema, name).is_some()
    }

    /// A function that a body calls.
    pub fn in_text(&self, text: &str) -> bool {
        words(text).filter(|word| word.is_called).any(|word| {
            self.function(None, word.text) || self.function(None, &word.text.to_ascii_lowercase())
        })
    }
}

/// Dynamic SQL is in doubt. Strings are looked into like all else.
fn may_remake(text: &str) -> bool {
    const WORDS: [&str; 5] = ["alter", "create", "drop", "execute", "import"];
    let mut words = words(text);
    words.any(|word| WORDS.iter().any(|it| word.text.eq_ignore_ascii_case(it)))
}
