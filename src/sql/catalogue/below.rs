//! Which of the tables that profiles name a view or a function reads, however far below.

use hashbrown::HashMap;

use super::spread::{Texts, users_of};
use super::{Kind, Object, Rows, path};
use crate::sql::Relation;
use crate::sql::lists::Lists;

/// Tables by what reads them, by `name` and by `schema.name`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Below {
    relations: HashMap<Box<str>, Vec<Relation>>,
    functions: HashMap<Box<str>, Vec<Relation>>,
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
        let users = users_of(rows, &vec![false; rows.objects.len()], Texts::All);
        for table in profiled {
            let Some(relation) = rows.objects.get(table).map(relation_of) else {
                continue;
            };
            let mut seen = vec![false; rows.objects.len()];
            let mut queue = vec![table];
            while let Some(used) = queue.pop() {
                for &user in users.get(used).map(Vec::as_slice).unwrap_or_default() {
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
        let names = [object.name.to_string(), path(&object.schema, &object.name)];
        for name in names {
            let tables = things.entry(name.into()).or_default();
            if !tables.contains(table) {
                tables.push(table.clone());
            }
        }
    }

    pub fn relation(&self, schema: Option<&str>, name: &str) -> &[Relation] {
        get(&self.relations, schema, name)
    }

    pub fn function(&self, schema: Option<&str>, name: &str) -> &[Relation] {
        get(&self.functions, schema, name)
    }
}

fn get<'a>(
    things: &'a HashMap<Box<str>, Vec<Relation>>,
    schema: Option<&str>,
    name: &str,
) -> &'a [Relation] {
    if things.is_empty() {
        return &[];
    }
    let tables = match schema {
        None => things.get(name),
        Some(schema) => things.get(path(schema, name).as_str()),
    };
    tables.map(Vec::as_slice).unwrap_or_default()
}

fn relation_of(object: &Object) -> Relation {
    Relation {
        schema: Some(object.schema.clone()),
        name: object.name.clone(),
    }
}
