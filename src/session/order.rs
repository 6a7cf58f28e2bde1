//! What of a run depends on how that ends which was sent before it: whether it may be sent, or even
//! read, while replies are under way.

use super::Session;
use super::client_statements::Mention;
use super::dispatch::{changes_names, portal_of};
use super::relay::MAX_UNSENT;
use super::survey::{Plan, What};
use super::upstream::Upstream;
use crate::protocol::frame::{
    Frame, Header, Target, bind_parts, cstring, frames, frontend, target,
};
use crate::protocol::message::TransactionStatus;
use crate::protocol::owed::{Fate, Owed};
use crate::routing::Role;
use crate::sql::{Class, Decision};

impl Session {
    /// Whether a message of the run refers to a statement of which only the server's answer to an
    /// earlier cycle will tell what it is.
    pub(super) fn mentions_what_is_in_doubt(&self, run: &[u8]) -> bool {
        let Some(upstream) = &self.upstream else {
            return false;
        };
        if self.statements.unsettled() == 0 {
            return false;
        }
        let mut unnamed_is_new = false;
        frames(run).any(|frame| {
            let body = frame.body();
            let (name, mention) = match frame.tag {
                frontend::PARSE => (cstring(body).map(|(name, _)| name), Mention::Change),
                frontend::BIND => (bind_parts(body).map(|(_, name, _)| name), Mention::Use),
                frontend::DESCRIBE | frontend::CLOSE => {
                    let name = match target(body) {
                        Some(Target::Statement(name)) => Some(name),
                        Some(Target::Portal(_)) | None => None,
                    };
                    let closes = frame.tag == frontend::CLOSE;
                    let mention = if closes {
                        Mention::Change
                    } else {
                        Mention::Use
                    };
                    (name, mention)
                }
                _ => (None, Mention::Use),
            };
            let Some(name) = name else { return false };
            unnamed_is_new |= name.is_empty() && mention == Mention::Change;
            let known = name.is_empty() && unnamed_is_new;
            !known && self.statements.is_in_doubt(name, mention, upstream.sending)
        })
    }

    /// Whether this step runs a portal that changes the names of statements: a Bind or a Parse behind it finds them
    /// free, or taken.
    pub(super) fn changes_names(
        &self,
        plan: &Plan,
        what: &What,
        frame: Frame<'_>,
        run: &[u8],
    ) -> bool {
        if !matches!(what, What::Execute) {
            return false;
        }
        let portal = portal_of(frame.bytes);
        let does = |decision: &Decision| decision.effects.iter().any(changes_names);
        let mut at = 0;
        let mut bound = None;
        for step in &plan.steps {
            let decision = step.decision();
            if decision.is_some() && portal_of(&run[at..]) == portal {
                bound = decision;
            }
            at += step.size;
        }
        let earlier = || self.upstream.as_deref()?.portal(portal);
        bound
            .or_else(earlier)
            .is_some_and(|decision| does(decision))
    }
}

impl Plan {
    /// A statement that it uses is only being prepared on the server, by an earlier cycle that may
    /// yet fail.
    pub fn awaits_parse(&self, owed: &Owed) -> bool {
        let named = owed.has_parses()
            && self.steps.iter().any(|step| match &step.what {
                What::ParseNew(statement)
                | What::BindNamed(statement)
                | What::DescribeNamed(statement) => owed.is_changed_earlier(statement.id),
                _ => false,
            });
        named || self.uses_unnamed_of_before() && owed.is_changed_earlier(0)
    }

    /// It uses the unnamed statement that there was before.
    fn uses_unnamed_of_before(&self) -> bool {
        let first = self.steps.iter().find_map(|step| match &step.what {
            What::ParseUnnamed(_) => Some(false),
            What::BindUnnamed(_) | What::DescribeUnnamed(_) => Some(true),
            _ => None,
        });
        first.unwrap_or(false)
    }

    /// A READ ONLY transaction that runs on a replica stays there, and cannot do this.
    pub(super) fn is_misplaced_on(&self, upstream: &Upstream) -> Option<Misplaced> {
        let runs_there = upstream.role == Role::Replica
            && upstream.is_in_transaction()
            && upstream.server.status != TransactionStatus::Failed;
        let level = self.level().filter(|_| self.class == Class::Read);
        match runs_there {
            true if self.pins => Some(Misplaced::Pins),
            true if !upstream.suffices_for(level) => Some(Misplaced::Fresher),
            _ => None,
        }
    }
}

/// What cannot be had in a READ ONLY transaction on a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Misplaced {
    /// What pins a session to the primary.
    Pins,
    /// A fresher state.
    Fresher,
}

/// Whether a run may be sent although replies are still under way.
pub(super) fn may_go_now(upstream: Option<&Upstream>, is_kept: bool, plan: &Plan) -> bool {
    let Some(upstream) = upstream else {
        return true;
    };
    if upstream.server.wire.output.len() >= MAX_UNSENT {
        return false;
    }
    if upstream.is_at_rest() {
        return true;
    }
    // Should the COMMIT fail, the server would skip what was sent behind it.
    if upstream.server.owed.owes(Fate::CaptureOfCommit) {
        return false;
    }
    if plan.refusal.is_some() || upstream.refused.is_some() {
        return false;
    }
    if plan.awaits_parse(&upstream.server.owed) {
        return false;
    }
    if upstream.server.owed.is_mid_cycle() {
        return true;
    }
    // Should the transaction fail before, that is the answer.
    if plan.is_misplaced_on(upstream).is_some() {
        return false;
    }
    if plan.has_effects || plan.asks_first || plan.brings_positions() || upstream.changes_session()
    {
        return false;
    }
    let in_step = upstream.is_in_transaction() || is_kept;
    match upstream.role {
        // Behind other statements a read may just as well follow them; behind a capture alone it
        // had better wait for it, and then go near.
        Role::Primary => in_step || plan.class == Class::Write || upstream.owes_client(),
        Role::Replica => {
            let level = plan.level().filter(|_| plan.class == Class::Read);
            let stays = plan.class <= Class::Read && !plan.leaves_portal;
            in_step || stays && upstream.suffices_for(level)
        }
    }
}

/// There is no further message in the cycle, or none is known yet.
pub(super) fn goes_no_further(rest: &[u8]) -> bool {
    let ends = |header: Header| matches!(header.tag, frontend::SYNC | frontend::FLUSH);
    Header::read(rest).is_ok_and(|header| header.is_none_or(ends))
}
