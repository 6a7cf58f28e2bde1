//! The server that a session has at present, and what is under way on it.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::client_statements::Unnamed;
use super::dispatch::changes_names;
use super::effects::ends_transaction;
use super::explained::Explained;
use super::in_sql::Remaking;
use super::pins::Holdings;
use super::portals::Bound;
use super::restored::Added;
use super::sight::Sight;
use super::statements::Statement;
use super::tracked::Tracked;
use crate::pool::{Lent, Vacating};
use crate::protocol::error::Fault;
use crate::protocol::frame::{Frame, Shape, backend};
use crate::protocol::message::TransactionStatus;
use crate::protocol::owed::{Fate, StatementId};
use crate::routing::{Level, Lsn, NodeIndex, Role, Timeline, Xid};
use crate::server::Settings;
use crate::sql::{Code, Decision, Effect};

/// A lent server with the session's business on it.
pub struct Upstream {
    pub server: Lent,
    pub node: NodeIndex,
    /// What the node was when it was chosen.
    pub role: Role,
    /// The timeline that the node wrote or followed then.
    pub timeline: Option<Timeline>,
    /// Held while it does what a replica should have done.
    pub leave: Option<OwnedSemaphorePermit>,
    /// A position that it had reached then.
    pub began_at: Lsn,
    /// What is set on the server, with the transaction that may undo it.
    pub applied: Tracked,
    /// The cycle (up to a ReadyForQuery) that is being sent, counted from 0.
    pub sending: u64,
    /// The cycle whose replies are being received.
    pub receiving: u64,
    pub cycle: Cycle,
    /// What statements will have changed when their cycle ends well.
    pub effects: VecDeque<(u64, Arc<Decision>)>,
    /// Statements of ours that are part of a cycle's text.
    pub added: VecDeque<(u64, Added)>,
    /// How the transaction commands of this cycle were answered that are not accounted for yet.
    pub ends: VecDeque<TransactionEnd>,
    /// So many commands of this cycle have been completed.
    pub completed: usize,
    /// The names of statements that it is preparing, and that it may fail to.
    pub perhaps: VecDeque<Box<str>>,
    /// Those that it could not prepare for the cycle that is being received, each with the ErrorResponse.
    pub unprepared: Vec<(Box<str>, Vec<u8>)>,
    /// Names that are taken, for the server to refuse, each with its cycle.
    pub taken: VecDeque<(u64, Box<[u8]>)>,
    /// The last cycle that has run a portal for some of its rows.
    pub limited_in: Option<u64>,
    /// What it is to close or to parse under the names by which SQL knows statements.
    pub remaking: VecDeque<Remaking>,
    /// So many PREPAREs and DEALLOCATEs of this cycle have been answered.
    pub prepared: usize,
    /// So many Syncs of this cycle were sent ahead of a COPY's data, which ignores them.
    pub ignored_syncs: u64,
    /// Open portals whose statements change more than data, or copy.
    pub portals: Vec<(Box<[u8]>, Arc<Decision>)>,
    /// What has been bound to the unnamed portal in a cycle that goes on behind a Flush, on a replica.
    pub bound: Option<Box<Bound>>,
    /// Statements whose description is under way, where it is the first that anybody gets.
    pub describing: VecDeque<Arc<Statement>>,
    /// The unnamed statements, or other ones that are nobody else's, whose description is under way.
    pub describing_unnamed: VecDeque<Option<Arc<Unnamed>>>,
    /// How fresh the node had to be for what it was chosen for; none if that needed no data.
    pub level: Option<Level>,
    pub afterwards: Afterwards,
    pub partial: Option<Partial>,
    pub footprint: Footprint,
    /// What the plans that it is asked for get besides.
    pub explained: Explained,
    /// A position that was captured and that the next ReadyForQuery confirms.
    pub captured: Option<Lsn>,
    /// The answer to the question for the number of the transaction that the next ReadyForQuery ends: none if that
    /// has written nothing.
    pub number: Option<Option<Xid>>,
    /// What the replica has just said that it has shown.
    pub sight: Option<Sight>,
    /// All that it has shown the session lies below the floor.
    pub is_sighted: bool,
    /// Something has been sent that may end what pins the session.
    pub ends_pins: bool,
    /// A statement that changes tables, views or functions has run, and may not be committed yet.
    pub changes_catalogue: bool,
    /// What the server has just said that it holds.
    pub holdings: Option<Holdings>,
    /// Keeps others away from a database that a statement wants for itself.
    pub vacating: Option<Vacating>,
    /// An error of ours that the server has been made to raise, in this cycle.
    pub raised: Option<(u64, Fault)>,
    /// The replica would not run what it was sent; the run goes elsewhere when this one is at rest.
    pub refused: Option<Refused>,
}

/// What a description is of.
pub enum Described {
    Shared(Arc<Statement>),
    Unnamed(Arc<Unnamed>),
}

/// What becomes of the server when the session has done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Afterwards {
    Pool,
    /// It is no longer known what it has prepared.
    Discard,
}

/// How the cycle that is being received has gone so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cycle {
    Well,
    Failed,
    /// The server has said that it is going away, and the client has been shown that.
    Fatal,
}

/// What a replica's refusal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Another node may well run it.
    Here,
    /// Only the primary can run it: the statement is remembered as a write.
    AnyReplica,
    /// The replica may not know of something yet that the primary knows.
    PerhapsBehind,
}

/// How COMMIT or ROLLBACK was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionEnd {
    Committed,
    RolledBack,
}

/// A backend message that is passed through piece by piece.
#[derive(Clone, Copy, Debug)]
pub struct Partial {
    /// Bytes of it still to come.
    pub left: usize,
    pub fate: Fate,
}

/// What the session has done on this server since its position was last captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Footprint {
    /// Nothing, or all of it lies below the floor.
    None,
    /// It has read on the primary, where nobody minds when the floor gets to know of it.
    Seen,
    /// It may have written, or reads next to others that could go to a replica: worth a capture.
    Deep,
    /// A capture is on its way that covers everything.
    Capturing,
    /// It has written, and whether it will read that is so doubtful that no capture is made.
    Unasked,
    /// A capture has been in vain; a second one is not tried.
    Unknown,
}

impl Upstream {
    /// Something that has no known position may have been committed here, and the client told so.
    pub(super) fn may_have_committed(&self) -> bool {
        let may_have_written = !matches!(self.footprint, Footprint::None | Footprint::Seen);
        may_have_written && self.receiving > 0 && !self.is_in_transaction()
    }

    /// `startup` is what RESET goes back to.
    pub fn new(
        server: Lent,
        node: NodeIndex,
        role: Role,
        level: Option<Level>,
        startup: &Settings,
    ) -> Upstream {
        let applied = Tracked::of_server(server.settings.clone(), startup.clone());
        Upstream {
            server,
            node,
            role,
            timeline: None,
            leave: None,
            began_at: Lsn::ZERO,
            applied,
            sending: 0,
            receiving: 0,
            cycle: Cycle::Well,
            effects: VecDeque::new(),
            added: VecDeque::new(),
            ends: VecDeque::new(),
            completed: 0,
            perhaps: VecDeque::new(),
            taken: VecDeque::new(),
            limited_in: None,
            unprepared: Vec::new(),
            remaking: VecDeque::new(),
            prepared: 0,
            ignored_syncs: 0,
            portals: Vec::new(),
            bound: None,
            describing: VecDeque::new(),
            describing_unnamed: VecDeque::new(),
            level,
            afterwards: Afterwards::Pool,
            partial: None,
            footprint: Footprint::None,
            explained: Explained::default(),
            captured: None,
            number: None,
            sight: None,
            is_sighted: false,
            ends_pins: false,
            changes_catalogue: false,
            holdings: None,
            vacating: None,
            raised: None,
            refused: None,
        }
    }

    /// A cycle of the client's that has been sent, in part or whole, is not answered yet.
    pub fn owes_client(&self) -> bool {
        self.sending > self.receiving || self.server.owed.is_client_waiting()
    }

    /// Everything has been answered and sent.
    pub fn is_at_rest(&self) -> bool {
        self.server.owed.is_at_rest()
            && self.partial.is_none()
            && self.server.wire.output.is_empty()
            && self.server.wire.input.is_empty()
    }

    pub fn is_in_transaction(&self) -> bool {
        self.server.status != TransactionStatus::Idle
    }

    /// The transaction has failed, and nothing that has been sent of its cycle ends it.
    pub fn is_in_failed_transaction(&self) -> bool {
        let mut sent = self
            .effects
            .iter()
            .flat_map(|(_, decision)| &decision.effects);
        self.server.status == TransactionStatus::Failed && !sent.any(ends_transaction)
    }

    /// A BEGIN has been sent to it, though perhaps not answered.
    pub fn has_begun_transaction(&self) -> bool {
        self.is_in_transaction() || self.applied.is_in_transaction()
    }

    /// What was sent will change the session, and what follows must wait for that.
    pub fn changes_session(&self) -> bool {
        self.effects
            .iter()
            .any(|(_, decision)| decision.effects.iter().any(changes_session))
    }

    /// The PREPARE or the DEALLOCATE of this cycle that has been answered just now.
    pub fn next_of_prepared(&mut self) -> Option<Effect> {
        let next = self.peek_of_prepared().cloned();
        self.prepared += 1;
        next
    }

    /// The one that is answered next.
    pub fn peek_of_prepared(&self) -> Option<&Effect> {
        let cycle = self.receiving;
        let of_cycle = self.effects.iter().filter(|(of, _)| *of == cycle);
        let mut named = of_cycle
            .flat_map(|(_, decision)| &decision.effects)
            .filter(|effect| matches!(effect, Effect::Prepare(_) | Effect::Deallocate(Some(_))));
        named.nth(self.prepared)
    }

    /// What was sent will leave other names of statements.
    pub fn changes_names(&self) -> bool {
        let mut decisions = self.effects.iter().map(|(_, decision)| decision);
        decisions.any(|decision| decision.effects.iter().any(changes_names))
    }

    /// The cycle that is being received discards all settings, and leaves this one at the server's
    /// own value.
    pub fn discards(&self, setting: &str) -> bool {
        let of_cycle = self.effects.iter().filter(|(of, _)| *of == self.receiving);
        let effects = of_cycle.flat_map(|(_, decision)| &decision.effects);
        effects.fold(false, |discarded, effect| match effect {
            Effect::DiscardAll => true,
            Effect::ResetAll => false,
            Effect::Reset(name) | Effect::Set { name, .. } => {
                discarded && !name.eq_ignore_ascii_case(setting)
            }
            _ => discarded,
        })
    }

    /// SQL PREPARE was among what the server has refused: it may have come to that.
    pub fn may_have_prepared(&self) -> bool {
        let prepares = |effect: &Effect| matches!(effect, Effect::Prepare(_));
        let mut decisions = self.effects.iter().map(|(_, decision)| decision);
        decisions.any(|decision| decision.effects.iter().any(prepares))
    }

    /// Something has been done since the server was last asked what it holds.
    pub fn may_hold_less(&self) -> bool {
        self.ends_pins
    }

    /// Whether what was chosen for reads at its level is fresh enough for reads at `level` too.
    pub fn suffices_for(&self, level: Option<Level>) -> bool {
        let fresh = |level| self.level.is_some_and(|had: Level| had.covers(level));
        self.role == Role::Primary || level.is_none_or(fresh)
    }

    /// A portal was opened for a statement; those that matter later are remembered.
    pub fn open_portal(&mut self, portal: &[u8], decision: &Arc<Decision>) {
        let matters = !decision.effects.is_empty()
            || decision.copies_in
            || decision.is_ddl
            || decision.code == Code::Remakes;
        if self.portals.is_empty() && !matters {
            return;
        }
        self.portals.retain(|(name, _)| **name != *portal);
        if matters {
            self.portals.push((portal.into(), Arc::clone(decision)));
        }
    }

    /// The client gets to know the columns of a statement's result: other servers must give the same.
    pub fn described(&mut self, id: StatementId, answer: Frame<'_>) {
        let shape = || match answer.tag {
            backend::ROW_DESCRIPTION => Shape::read(answer.body()),
            _ => Some(Shape::NONE),
        };
        match self.not_described(id) {
            Some(Described::Shared(statement)) => {
                shape().inspect(|shape| statement.set_shape(*shape));
            }
            Some(Described::Unnamed(unnamed)) => {
                shape().inspect(|shape| unnamed.set_shape(*shape));
            }
            None => {}
        }
    }

    /// A description has failed, or was skipped; gives what it would have been the first of, or told
    /// anew.
    pub fn not_described(&mut self, id: StatementId) -> Option<Described> {
        if id == 0 {
            let unnamed = self.describing_unnamed.pop_front();
            return unnamed.flatten().map(Described::Unnamed);
        }
        let awaited = self.describing.front().is_some_and(|first| first.id == id);
        let statement = awaited.then(|| self.describing.pop_front()).flatten();
        statement.map(Described::Shared)
    }

    /// What running the portal changes, if it matters.
    pub fn portal(&self, portal: &[u8]) -> Option<&Arc<Decision>> {
        let (_, decision) = self.portals.iter().find(|(name, _)| **name == *portal)?;
        Some(decision)
    }
}

/// Whether an effect may outlive its transaction in the session.
pub fn changes_session(effect: &Effect) -> bool {
    !matches!(
        effect,
        Effect::Begin(_)
            | Effect::Commit { .. }
            | Effect::Rollback { .. }
            | Effect::Savepoint(_)
            | Effect::Release(_)
            | Effect::RollbackTo(_)
            | Effect::SetTransaction { .. }
            | Effect::SetLocal { .. }
            | Effect::ResetLocal(_)
            | Effect::MayCommitSettings
            | Effect::MayEndPin
            | Effect::Vacate(_)
            | Effect::Execute(_)
            | Effect::Show(_)
    )
}
