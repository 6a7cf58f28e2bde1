//! The names of a session's temporary relations, as its server told them: a read that can mean none of
//! them may be answered elsewhere. What may have changed them since makes them uncertain, until the server is
//! asked again.

use super::Session;
use super::survey::{Plan, What};
use crate::protocol::frame::HEADER;
use crate::sql::{Class, PinReason, has_any, may_mean};

/// What a server tells of the relations in its temporary schema.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Told {
    /// Nothing, or too much, or what is no plain name.
    #[default]
    Unknown,
    Names(Box<[Box<str>]>),
}

/// While the session is pinned by temporary tables.
#[derive(Debug, Default)]
pub struct Temporaries {
    told: Told,
    /// So many runs have been sent that may have changed the names.
    changes: u64,
    /// So many of them when the server was asked last.
    asked: u64,
    /// What was told is how things were behind so many; none if nothing was.
    as_of: Option<u64>,
}

impl Temporaries {
    pub fn may_have_changed(&mut self) {
        self.changes += 1;
    }

    pub fn are_asked_for(&mut self) {
        self.asked = self.changes;
    }

    pub fn are_told(&mut self, told: Told) {
        self.told = told;
        self.as_of = Some(self.asked);
    }

    fn is_certain(&self) -> bool {
        self.as_of == Some(self.changes)
    }

    fn names(&self) -> &[Box<str>] {
        match &self.told {
            Told::Unknown => &[],
            Told::Names(names) => names,
        }
    }
}

/// What a read has to do with the session's temporary relations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relationship {
    None,
    /// None that is known, but the names are not certain.
    PerhapsNone,
    /// It may mean one of them.
    Some,
}

impl Session {
    /// A run is on its way to the session's own server.
    pub(super) fn note_change_of_temporaries(&mut self, plan: &Plan) {
        let only_reads = plan.class <= Class::Read && !plan.has_effects;
        if let Some(temporaries) = &mut self.temporaries
            && self.parked.is_none()
            && !only_reads
        {
            temporaries.may_have_changed();
        }
    }

    /// The server has been asked what it holds, in this order with the runs.
    pub(super) fn note_question(&mut self) {
        if let Some(temporaries) = &mut self.temporaries {
            temporaries.are_asked_for();
        }
    }

    /// The session is pinned by temporary tables, or is no longer.
    pub(super) fn follow_temporaries(&mut self, told: Option<Told>) {
        if !self.pins.has(PinReason::TemporaryTable) {
            self.temporaries = None;
            return;
        }
        // One that begins only now may have missed a change.
        let is_new = self.temporaries.is_none();
        let temporaries = self.temporaries.get_or_insert_default();
        if let Some(told) = told.filter(|_| !is_new) {
            temporaries.are_told(told);
        }
    }

    /// Whether a whole cycle of reads may mean a temporary relation.
    pub(super) fn relationship(&self, plan: &Plan) -> Relationship {
        let (Some(temporaries), Some(catalogue)) =
            (&self.temporaries, self.names.scope().catalogue())
        else {
            return Relationship::Some;
        };
        let names = temporaries.names();
        let mut at = 0;
        for step in &plan.steps {
            let frame = self.client.input.bytes().get(at..at + step.size);
            at += step.size;
            let Some(body) = frame.and_then(|frame| frame.get(HEADER..)) else {
                return Relationship::Some;
            };
            let means = |text: &[u8]| may_mean(&catalogue, text, names);
            let may_mean_one = match &step.what {
                What::Query(_) => means(body.strip_suffix(b"\0").unwrap_or(body)),
                What::ParseUnnamed(unnamed) | What::DescribeUnnamed(unnamed) => {
                    means(unnamed.text())
                }
                What::ParseNew(statement) | What::DescribeNamed(statement) => {
                    means(statement.text())
                }
                What::BindUnnamed(unnamed) => means(unnamed.text()) || has_any(body, names),
                What::BindNamed(statement) => means(statement.text()) || has_any(body, names),
                What::DescribePortal
                | What::Execute
                | What::CloseStatement
                | What::ClosePortal
                | What::Sync
                | What::Flush => false,
                _ => true,
            };
            if may_mean_one {
                return Relationship::Some;
            }
        }
        match (temporaries.is_certain(), &temporaries.told) {
            (true, Told::Names(_)) => Relationship::None,
            (true, Told::Unknown) => Relationship::Some,
            (false, _) => Relationship::PerhapsNone,
        }
    }
}
