//! Functions that run SQL which they are given: what a call does is told by its arguments.

use hashbrown::HashSet;

use super::by_name::ByName;
use super::proof::Proof;
use super::spread::is_trusted;
use super::{Finding, Kind, Rows, worsen};
use crate::sql::dynamic::Template;
use crate::sql::lists::Lists;

/// By the names of such functions.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Executing(ByName<Executes>);

/// What calls of one name do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Executes {
    /// Whatever they are given: the worst of all overloads.
    pub always: Finding,
    /// What they run besides, of all overloads.
    pub templates: Vec<Template>,
}

impl Executing {
    /// `beside` is what each object does, with the text that a function is given for a harmless one.
    pub fn new(rows: &Rows, lists: &Lists, proofs: &[Proof], beside: &[Finding]) -> Executing {
        let mut executing = Executing::default();
        let objects = || rows.objects.iter().zip(proofs).zip(beside);
        let given = |proof: &'_ Proof| matches!(proof, Proof::RunsWhatItIsGiven(_));
        let names: HashSet<&str> = objects()
            .filter(|((_, proof), _)| given(proof))
            .map(|((object, _), _)| &*object.name)
            .collect();
        for ((object, proof), finding) in objects() {
            if object.id.kind != Kind::Function || !names.contains(&*object.name) {
                continue;
            }
            let templates = match proof {
                Proof::RunsWhatItIsGiven(templates) if !is_trusted(object, lists) => templates,
                _ => &Vec::new(),
            };
            executing.0.note(&object.schema, &object.name, |known| {
                worsen(&mut known.always, finding);
                known.templates.extend_from_slice(templates);
            });
        }
        executing
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn get(&self, schema: Option<&str>, name: &str) -> Option<&Executes> {
        let known = self.0.get(schema, name)?;
        (!known.templates.is_empty()).then_some(known)
    }
}

#[cfg(test)]
mod tests;
