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

use hashbrown::HashMap;

use super::lists::Lists;
use super::{PinReason, Relation};
use below::Below;
use by_name::ByName;
pub(super) use executing::Executes;
use executing::Executing;
use late::Late;
use leaves::Leaves;
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

/// The catalogue of one database at one moment.
#[derive(Debug, PartialEq, Eq)]
pub struct Catalogue {
    functions: ByName<Finding>,
    /// Functions that run SQL which they are given.
    executing: Executing,
    operators: ByName<Finding>,
    types: ByName<Finding>,
    has_unsafe_types: bool,
    relations: ByName<Finding>,
    /// Functions that `value.name` may call: of one argument, and no plain reads.
    attributes: HashMap<Box<str>, Finding>,
    /// The profiled tables that views and functions read.
    below: Below,
    /// What calls leave in the session.
    leaves: Leaves,
    /// What leads to code of the user's.
    late: Late,
    /// What may change the catalogue.
    remakes: Remakes,
    /// Where anything at all may call what writes: an implicit cast between built-in types.
    everything: Finding,
}

impl Catalogue {
    pub fn new(rows: &Rows, lists: &Lists) -> Catalogue {
        let spread = Spread::new(rows, lists);
        let mut proofs = Proofs::hoped_for(rows, lists);
        let (mut below, mut leaves) = (Below::new(rows, lists), Leaves::new(rows, lists));
        let (mut late, mut remakes) = (Late::new(rows), Remakes::new(rows));
        loop {
            let findings = spread.findings(&proofs.by_place, RunsWhatItIsGiven::Writes);
            // All the rest that a call does of a function that runs what it is given.
            let beside = spread.findings(&proofs.by_place, RunsWhatItIsGiven::Reads);
            let catalogue = Catalogue {
                below,
                leaves,
                late,
                remakes,
                executing: Executing::new(rows, lists, &proofs.by_place, &beside),
                ..Catalogue::of(rows, &findings)
            };
            if proofs.hold(&catalogue, &beside) {
                return catalogue;
            }
            (below, leaves) = (catalogue.below, catalogue.leaves);
            (late, remakes) = (catalogue.late, catalogue.remakes);
        }
    }

    /// What names mean, with one finding for each object.
    fn of(rows: &Rows, findings: &[Finding]) -> Catalogue {
        let mut catalogue = Catalogue {
            functions: ByName::default(),
            executing: Executing::default(),
            operators: ByName::default(),
            types: ByName::default(),
            has_unsafe_types: false,
            relations: ByName::default(),
            attributes: HashMap::new(),
            below: Below::default(),
            leaves: Leaves::default(),
            late: Late::default(),
            remakes: Remakes::default(),
            everything: Finding::Reads,
        };
        for (object, finding) in rows.objects.iter().zip(findings) {
            let names = match object.id.kind {
                Kind::Function => {
                    if object.takes_one_argument && *finding > Finding::Reads {
                        let known = catalogue.attributes.entry(object.name.clone());
                        worsen(known.or_insert(Finding::Reads), finding);
                    }
                    &mut catalogue.functions
                }
                Kind::Operator => &mut catalogue.operators,
                Kind::TypeByName => {
                    catalogue.has_unsafe_types |= *finding > Finding::Reads;
                    &mut catalogue.types
                }
                Kind::Relation => &mut catalogue.relations,
                Kind::Everything => {
                    worsen(&mut catalogue.everything, finding);
                    continue;
                }
                Kind::Builtin | Kind::TypeInUse => continue,
            };
            names.note(&object.schema, &object.name, |known| worsen(known, finding));
        }
        catalogue
    }

    /// The worst of all overloads; without a schema, of all schemas that have one.
    pub fn function(&self, schema: Option<&str>, name: &str) -> Option<&Finding> {
        self.functions.get(schema, name)
    }

    pub(super) fn any_executes(&self) -> bool {
        !self.executing.is_empty()
    }

    /// What calls of the name do if a function of it runs SQL which it is given.
    pub(super) fn executing(&self, schema: Option<&str>, name: &str) -> Option<&Executes> {
        self.executing.get(schema, name)
    }

    /// The worst of all operators of this sign that are not PostgreSQL's own.
    pub fn operator(&self, sign: &str) -> Option<&Finding> {
        self.operators.get(None, sign)
    }

    /// What a cast to the type may do.
    pub fn type_named(&self, schema: Option<&str>, name: &str) -> Option<&Finding> {
        self.types.get(schema, name)
    }

    /// Whether a cast to any type does more than to read. Hardly any database has such a type.
    pub fn has_unsafe_types(&self) -> bool {
        self.has_unsafe_types
    }

    /// What reading the relation does.
    pub fn relation(&self, schema: Option<&str>, name: &str) -> Option<&Finding> {
        self.relations.get(schema, name)
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
    pub fn attribute(&self, name: &str) -> Option<&Finding> {
        self.attributes.get(name)
    }

    /// What any expression may do.
    pub fn everything(&self) -> &Finding {
        &self.everything
    }

    /// Functions, operators, types and relations that have a name here.
    pub fn len(&self) -> usize {
        [
            &self.functions,
            &self.operators,
            &self.types,
            &self.relations,
        ]
        .map(ByName::len)
        .iter()
        .sum()
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
