//! Which names lead to code of the user's: a function looks up what its body names when it runs, and may
//! find another thing in each session. A view, a table's policy or a type's own functions run such code too.

use hashbrown::HashSet;

use super::users::{Texts, Users};
use super::{Kind, Object, Rows};

/// What rests on functions that look names up, without schemas.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Late {
    names: HashSet<Box<str>>,
    operators: HashSet<Box<str>>,
    everything: bool,
}

impl Late {
    pub fn new(rows: &Rows) -> Late {
        let mut late = Late::default();
        let looks_up =
            |object: &Object| object.id.kind == Kind::Function && !object.text.trim().is_empty();
        let mut seen: Vec<bool> = rows.objects.iter().map(looks_up).collect();
        let places = 0..rows.objects.len();
        let mut queue: Vec<usize> = places.filter(|at| seen.get(*at) == Some(&true)).collect();
        if !queue.is_empty() {
            let users = Users::new(rows, &vec![false; rows.objects.len()], Texts::OfReads);
            seen.resize(users.len(), false);
            while let Some(used) = queue.pop() {
                for &user in users.of(used) {
                    if let Some(known @ false) = seen.get_mut(user) {
                        *known = true;
                        queue.push(user);
                    }
                }
            }
        }
        for (object, is_late) in rows.objects.iter().zip(seen) {
            match object.id.kind {
                // Those that have no text are in other languages, and few enough.
                Kind::Function => {
                    late.names.insert(object.name.clone());
                }
                _ if !is_late => {}
                Kind::Relation | Kind::TypeByName => {
                    late.names.insert(object.name.clone());
                }
                Kind::Operator => {
                    late.operators.insert(object.name.clone());
                }
                Kind::Everything => late.everything = true,
                Kind::Builtin | Kind::TypeInUse => {}
            }
        }
        late
    }

    pub fn has(&self, name: &str) -> bool {
        self.everything || self.names.contains(name)
    }

    pub fn has_operator(&self, sign: &str) -> bool {
        self.everything || self.operators.contains(sign)
    }
}
