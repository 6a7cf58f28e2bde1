//! What `currval()` and `lastval()` answer: what the session itself has got from a sequence, which only
//! the server remembers that gave it. A session that asks keeps that server from then on. It is never
//! told what another session got: whatever a server remembers is discarded before somebody else
//! asks it, and, where sessions ask at all, before somebody else may use a sequence there.

use super::Session;
use super::survey::Plan;
use super::upstream::Upstream;
use crate::protocol::message::TransactionStatus;
use crate::sql::{Class, Decision};

const DISCARD: &str = "DISCARD SEQUENCES;";

impl Session {
    /// The session may use sequences on this server from now on. Gives what must run there before.
    pub(super) fn claim_sequences(&self, upstream: &mut Upstream, plan: &Plan) -> &'static str {
        if plan.class != Class::Write {
            return "";
        }
        if plan.asks_sequences {
            self.group.sequences_are_asked_for();
        }
        let before = upstream.server.sequences.replace(self.sequences);
        let is_foreign = before.is_some_and(|owner| owner != self.sequences);
        let matters = plan.asks_sequences || self.group.asks_sequences();
        // A failed transaction runs nothing of all this.
        let runs = upstream.server.status != TransactionStatus::Failed;
        match is_foreign && matters && runs {
            true => DISCARD,
            false => "",
        }
    }

    /// A question inside a transaction that goes on, or in one text with what it is about, has been
    /// answered by the right server anyway.
    pub(super) fn must_keep_sequences(&self, upstream: &Upstream, decision: &Decision) -> bool {
        !upstream.is_in_transaction() && decision.statements == 1
    }

    /// The session has nothing from any sequence any more.
    pub(super) fn discard_sequences(&mut self) {
        self.sequences = super::serial();
    }
}
