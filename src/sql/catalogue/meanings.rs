//! What each name does: the worst of all that is called so.

use hashbrown::HashMap;

use super::by_name::ByName;
use super::{Finding, Kind, Rows, worsen};

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Meanings {
    pub functions: ByName<Finding>,
    pub operators: ByName<Finding>,
    pub types: ByName<Finding>,
    pub has_unsafe_types: bool,
    pub relations: ByName<Finding>,
    /// Functions that `value.name` may call: of one argument, and no plain reads.
    pub attributes: HashMap<Box<str>, Finding>,
    /// Where anything at all may call what writes: an implicit cast between built-in types.
    pub everything: Finding,
}

impl Meanings {
    /// With one finding for each object.
    pub fn new(rows: &Rows, findings: &[Finding]) -> Meanings {
        let mut meanings = Meanings::default();
        for (object, finding) in rows.objects.iter().zip(findings) {
            let names = match object.id.kind {
                Kind::Function => {
                    if object.takes_one_argument && *finding > Finding::Reads {
                        let known = meanings.attributes.entry(object.name.clone());
                        worsen(known.or_default(), finding);
                    }
                    &mut meanings.functions
                }
                Kind::Operator => &mut meanings.operators,
                Kind::TypeByName => {
                    meanings.has_unsafe_types |= *finding > Finding::Reads;
                    &mut meanings.types
                }
                Kind::Relation => &mut meanings.relations,
                Kind::Everything => {
                    worsen(&mut meanings.everything, finding);
                    continue;
                }
                Kind::Builtin | Kind::TypeInUse => continue,
            };
            names.note(&object.schema, &object.name, |known| worsen(known, finding));
        }
        meanings
    }

    /// Only those of functions, operators and relations that `other` knows otherwise.
    pub fn other_than(self, other: &Meanings) -> Meanings {
        let mut attributes = other.attributes.clone();
        for (name, finding) in &mut attributes {
            *finding = self.attributes.get(name).cloned().unwrap_or_default();
        }
        attributes.retain(|name, finding| other.attributes.get(name) != Some(finding));
        Meanings {
            functions: self.functions.other_than(&other.functions),
            operators: self.operators.other_than(&other.operators),
            relations: self.relations.other_than(&other.relations),
            attributes,
            ..Meanings::default()
        }
    }

    /// Functions, operators, types and relations that have a name here.
    pub fn len(&self) -> usize {
        let names = [
            &self.functions,
            &self.operators,
            &self.types,
            &self.relations,
        ];
        names.map(ByName::len).iter().sum()
    }
}
