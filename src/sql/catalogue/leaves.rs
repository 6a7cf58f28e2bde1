//! What functions leave in the session that calls them, and whatever rests on them: views, functions
//! that call functions.

use std::collections::VecDeque;

use super::bodies::{add, left_by};
use super::by_name::ByName;
use super::spread::is_trusted;
use super::users::{Texts, Users};
use super::words::words;
use super::{Kind, Object, Rows};
use crate::sql::PinReason;
use crate::sql::lists::Lists;

/// Reasons to keep the server, by what leaves them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Leaves {
    functions: ByName<Vec<PinReason>>,
    relations: ByName<Vec<PinReason>>,
}

impl Leaves {
    /// What the operator has listed as harmless leaves nothing.
    pub fn new(rows: &Rows, lists: &Lists) -> Leaves {
        let trusted = rows.objects.iter().map(|it| is_trusted(it, lists));
        let trusted: Vec<bool> = trusted.collect();
        let by_itself =
            rows.objects
                .iter()
                .zip(&trusted)
                .map(|(object, trusted)| match object.id.kind {
                    Kind::Function if !trusted => left_by(&object.text),
                    _ => Vec::new(),
                });
        let mut left: Vec<Vec<PinReason>> = by_itself.collect();
        let mut leaves = Leaves::default();
        let roots =
            (0..left.len()).filter(|place| left.get(*place).is_some_and(|it| !it.is_empty()));
        let mut queue: VecDeque<usize> = roots.collect();
        if queue.is_empty() {
            return leaves;
        }
        let users = Users::new(rows, &trusted, Texts::All);
        left.resize(users.len(), Vec::new());
        while let Some(used) = queue.pop_front() {
            let reasons = left.get(used).cloned().unwrap_or_default();
            for &user in users.of(used) {
                let Some(known) = left.get_mut(user) else {
                    continue;
                };
                let before = known.len();
                for reason in &reasons {
                    add(known, *reason);
                }
                if known.len() > before {
                    queue.push_back(user);
                }
            }
        }
        for (object, reasons) in rows.objects.iter().zip(&left) {
            leaves.note(object, reasons);
        }
        leaves
    }

    fn note(&mut self, object: &Object, reasons: &[PinReason]) {
        let things = match object.id.kind {
            Kind::Relation => &mut self.relations,
            Kind::Function => &mut self.functions,
            Kind::Builtin
            | Kind::Operator
            | Kind::TypeInUse
            | Kind::TypeByName
            | Kind::Everything => return,
        };
        if reasons.is_empty() {
            return;
        }
        things.note(&object.schema, &object.name, |known| {
            for reason in reasons {
                add(known, *reason);
            }
        });
    }

    pub fn is_empty(&self) -> bool {
        self.functions.is_empty() && self.relations.is_empty()
    }

    /// Of all overloads; without a schema, of all schemas.
    pub fn function(&self, schema: Option<&str>, name: &str) -> &[PinReason] {
        self.functions.list(schema, name)
    }

    pub fn relation(&self, schema: Option<&str>, name: &str) -> &[PinReason] {
        self.relations.list(schema, name)
    }

    /// Of the functions that a body calls.
    pub fn in_text(&self, text: &str) -> Vec<PinReason> {
        let mut found = Vec::new();
        for word in words(text).filter(|word| word.is_called) {
            for name in [word.text, &word.text.to_ascii_lowercase()] {
                for reason in self.function(None, name) {
                    add(&mut found, *reason);
                }
            }
        }
        found
    }
}
