//! Which of the tables that profiles name a view or a function reads, however far below.

use super::by_name::ByName;
use super::users::{Texts, Users};
use super::{Kind, Object, Rows};
use crate::sql::Relation;
use crate::sql::lists::Lists;

/// Tables by what reads them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Below {
    relations: ByName<Vec<Relation>>,
    functions: ByName<Vec<Relation>>,
}

impl Below {
    pub fn new(rows: &Rows, lists: &Lists) -> Below {
        let mut below = Below::default();
        let is_profiled = |object: &Object| {
            let (schema, name) = (Some(&*object.schema), &*object.name);
            object.id.kind == Kind::Relation && lists.profiled_tables.has(schema, name)
        };
        let places = 0..rows.objects.len();
        let profiled: Vec<usize> = places
            .filter(|place| rows.objects.get(*place).is_some_and(is_profiled))
            .collect();
        if profiled.is_empty() {
            return below;
        }
        // Whatever the operator says of what may run where: this is about what is read.
        let users = Users::new(rows, &vec![false; rows.objects.len()], Texts::All);
        for table in profiled {
            let Some(relation) = rows.objects.get(table).map(relation_of) else {
                continue;
            };
            let mut seen = vec![false; users.len()];
            let mut queue = vec![table];
            while let Some(used) = queue.pop() {
                for &user in users.of(used) {
                    if seen.get(user) == Some(&false) && user != table {
                        seen[user] = true;
                        queue.push(user);
                        if let Some(object) = rows.objects.get(user) {
                            below.add(object, &relation);
                        }
                    }
                }
            }
        }
        below
    }

    fn add(&mut self, object: &Object, table: &Relation) {
        let things = match object.id.kind {
            Kind::Relation => &mut self.relations,
            Kind::Function => &mut self.functions,
            Kind::Builtin
            | Kind::Operator
            | Kind::TypeInUse
            | Kind::TypeByName
            | Kind::Everything => return,
        };
        things.note(&object.schema, &object.name, |tables| {
            if !tables.contains(table) {
                tables.push(table.clone());
            }
        });
    }

    pub fn relation(&self, schema: Option<&str>, name: &str) -> &[Relation] {
        self.relations.list(schema, name)
    }

    pub fn function(&self, schema: Option<&str>, name: &str) -> &[Relation] {
        self.functions.list(schema, name)
    }
}

fn relation_of(object: &Object) -> Relation {
    Relation {
        schema: Some(object.schema.clone()),
        name: object.name.clone(),
    }
}
