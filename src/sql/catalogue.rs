//! What the names of one database mean: its functions, operators, types and relations, each with
//! the worst that anything of its name does. Built from [`Rows`], which whoever has a connection
//! reads; pure itself, and never changed once built.
//!
//! A verdict is found in two steps. What an object is by itself: a function is volatile, a
//! relation is a sequence, a text that it runs calls `nextval()`. Then it spreads against the
//! direction of the edges: a view has the verdict of the functions it calls, a table of the types
//! of its columns, an operator of its function (`spread`). What is volatile by declaration is given
//! the chance to show by its body that it only reads (`proof`).

mod below;
mod bodies;
mod by_name;
mod executing;
mod late;
mod leaves;
mod meanings;
mod proof;
#[cfg(test)]
mod random;
mod remakes;
mod rows;
mod spread;
#[cfg(test)]
mod tests;
mod users;
mod words;

use super::lists::Lists;
use super::{PinReason, Relation};
use below::Below;
pub(super) use executing::Executes;
use executing::Executing;
use late::Late;
use leaves::Leaves;
use meanings::Meanings;
use proof::Proofs;
use remakes::Remakes;
pub use rows::{Body, Edge, Kind, Language, Nature, Object, ObjectId, Rows};
use spread::{RunsWhatItIsGiven, Spread};

/// What using a thing means for where a statement may run, weakest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Finding {
    /// A replica may answer.
    #[default]
    Reads,
    /// Writes nothing, but only the primary's answer is right, for this reason.
    Primary(Box<str>),
    /// Writes, or may write, for this reason.
    Writes(Box<str>),
}

/// What happens to the statement that uses a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    Run,
    /// By EXPLAIN. Planning calls functions that are not volatile, to know their values.
    OnlyPlanned,
}

/// The catalogue of one database at one moment.
#[derive(Debug, PartialEq, Eq)]
pub struct Catalogue {
    meanings: Meanings,
    /// Of those names that mean less where a statement is only planned.
    if_only_planned: Meanings,
    /// Functions that run SQL which they are given.
    executing: Executing,
    /// The profiled tables that views and functions read.
    below: Below,
    /// What calls leave in the session.
    leaves: Leaves,
    /// What leads to code of the user's.
    late: Late,
    /// What may change the catalogue.
    remakes: Remakes,
}

impl Catalogue {
    pub fn new(rows: &Rows, lists: &Lists) -> Catalogue {
        let spread = Spread::new(rows, lists, Use::Run);
        let planned = Spread::new(rows, lists, Use::OnlyPlanned);
        let mut proofs = Proofs::hoped_for(rows, lists);
        let (mut below, mut leaves) = (Below::new(rows, lists), Leaves::new(rows, lists));
        let (mut late, mut remakes) = (Late::new(rows), Remakes::new(rows));
        loop {
            let findings = spread.findings(&proofs.by_place, RunsWhatItIsGiven::Writes);
            let meanings = Meanings::new(rows, &findings);
            let if_only_planned = Meanings::new(rows, &planned.findings_of_plans(&findings));
            // All the rest that a call does of a function that runs what it is given.
            let beside = spread.findings(&proofs.by_place, RunsWhatItIsGiven::Reads);
            let catalogue = Catalogue {
                below,
                leaves,
                late,
                remakes,
                executing: Executing::new(rows, lists, &proofs.by_place, &beside),
                if_only_planned: if_only_planned.other_than(&meanings),
                meanings,
            };
            if proofs.hold(&catalogue, &beside) {
                return catalogue;
            }
            (below, leaves) = (catalogue.below, catalogue.leaves);
            (late, remakes) = (catalogue.late, catalogue.remakes);
        }
    }

    /// The worst of all overloads; without a schema, of all schemas that have one.
    pub fn function(&self, how: Use, schema: Option<&str>, name: &str) -> Option<&Finding> {
        self.meaning(how, |it| it.functions.get(schema, name))
    }

    fn meaning<'a>(
        &'a self,
        how: Use,
        of: impl Fn(&'a Meanings) -> Option<&'a Finding>,
    ) -> Option<&'a Finding> {
        let less = match how {
            Use::Run => None,
            Use::OnlyPlanned => of(&self.if_only_planned),
        };
        less.or_else(|| of(&self.meanings))
    }

    pub(super) fn any_executes(&self) -> bool {
        !self.executing.is_empty()
    }

    /// What calls of the name do if a function of it runs SQL which it is given.
    pub(super) fn executing(&self, schema: Option<&str>, name: &str) -> Option<&Executes> {
        self.executing.get(schema, name)
    }

    /// The worst of all operators of this sign that are not PostgreSQL's own.
    pub fn operator(&self, how: Use, sign: &str) -> Option<&Finding> {
        self.meaning(how, |it| it.operators.get(None, sign))
    }

    /// What a cast to the type may do.
    pub fn type_named(&self, schema: Option<&str>, name: &str) -> Option<&Finding> {
        self.meanings.types.get(schema, name)
    }

    /// Whether a cast to any type does more than to read. Hardly any database has such a type.
    pub fn has_unsafe_types(&self) -> bool {
        self.meanings.has_unsafe_types
    }

    /// What reading the relation does.
    pub fn relation(&self, how: Use, schema: Option<&str>, name: &str) -> Option<&Finding> {
        self.meaning(how, |it| it.relations.get(schema, name))
    }

    /// The tables with profiles below a relation: it counts as each of them too.
    pub fn below_relation(&self, schema: Option<&str>, name: &str) -> &[Relation] {
        self.below.relation(schema, name)
    }

    /// The tables with profiles that a function reads.
    pub fn below_function(&self, schema: Option<&str>, name: &str) -> &[Relation] {
        self.below.function(schema, name)
    }

    /// Why the server is to be kept behind a call of the function: what any overload leaves in the session.
    pub fn left_by_function(&self, schema: Option<&str>, name: &str) -> &[PinReason] {
        self.leaves.function(schema, name)
    }

    /// As for a function, behind a read of a view.
    pub fn left_by_relation(&self, schema: Option<&str>, name: &str) -> &[PinReason] {
        self.leaves.relation(schema, name)
    }

    /// As for a function, behind a block that calls functions.
    pub fn left_by_body(&self, body: &str) -> Vec<PinReason> {
        self.leaves.in_text(body)
    }

    /// No call of anything leaves something.
    pub fn leaves_nothing(&self) -> bool {
        self.leaves.is_empty()
    }

    /// Whether any overload may change the catalogue.
    pub fn function_remakes(&self, schema: Option<&str>, name: &str) -> bool {
        self.remakes.function(schema, name)
    }

    /// As for a function, of a block that calls functions.
    pub fn body_remakes(&self, body: &str) -> bool {
        self.remakes.in_text(body)
    }

    /// Whether a function, a relation or a type of this name, in whatever schema, runs code of the user's, which
    /// looks up names for itself.
    pub fn looks_up_late(&self, name: &str) -> bool {
        self.late.has(name)
    }

    /// As for a name.
    pub fn operator_looks_up_late(&self, sign: &str) -> bool {
        self.late.has_operator(sign)
    }

    /// A function that `value.name` may call, if it does more than to read.
    pub fn attribute(&self, how: Use, name: &str) -> Option<&Finding> {
        self.meaning(how, |it| it.attributes.get(name))
            .filter(|finding| **finding > Finding::Reads)
    }

    /// What any expression may do.
    pub fn everything(&self) -> &Finding {
        &self.meanings.everything
    }

    /// Functions, operators, types and relations that have a name here.
    pub fn len(&self) -> usize {
        self.meanings.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn worsen(known: &mut Finding, found: &Finding) {
    if *known < *found {
        *known = found.clone();
    }
}
