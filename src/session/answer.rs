//! What a session answers itself: BEGIN, which travels with the first statement; the `causeway.*`
//! settings; refusals.

use super::order::Misplaced;
use super::preferences::{CONSISTENCY, level_name};
use super::relay::Inflow;
use super::survey::{Ending, Plan, Step, What};
use super::tokens::TOKEN;
use super::transaction::starts_with_begin;
use super::{End, LocalTransaction, Session};
use crate::protocol::error::{Fault, Severity, SqlState};
use crate::protocol::frame::HEADER;
use crate::protocol::message::{self, TransactionStatus};
use crate::protocol::owed::Synthetic;
use crate::server::settings::quoted;
use crate::sql::{Decision, Effect};

use super::dispatch::put_synthetic;

impl Session {
    /// Answers a run that needs no server; gives it back if it needs one.
    pub(super) fn answer_locally(&mut self, mut plan: Plan) -> Result<Option<Plan>, End> {
        let misplaced = self.misplaced(&plan);
        if let Some(fault) = plan.refusal.take().map(|fault| *fault).or(misplaced) {
            return self.refuse_everywhere(&plan, fault).map(|()| None);
        }
        if self.local == LocalTransaction::Failed && !plan.asks_nothing() {
            return Ok(self.answer_in_failed_transaction(plan));
        }
        Ok(match plan.steps.as_slice() {
            [step] => match &step.what {
                What::Query(decision) if decision.statements == 1 => {
                    let decision = std::sync::Arc::clone(decision);
                    self.answer_query(plan, &decision)
                }
                What::Sync | What::Flush => self.answer_bookkeeping(plan),
                _ => Some(plan),
            },
            _ => self
                .answer_transaction_cycle(plan)
                .and_then(|plan| self.answer_bookkeeping(plan)),
        })
    }

    fn answer_query(&mut self, plan: Plan, decision: &Decision) -> Option<Plan> {
        let [effect] = &*decision.effects else {
            return Some(plan);
        };
        let text = self.client.input.bytes().get(HEADER..plan.size);
        let begins = starts_with_begin(text.unwrap_or_default());
        if let Some(tag) = self.take_transaction_command(effect, begins) {
            self.complete(&plan, tag);
            return None;
        }
        match effect {
            Effect::Deallocate(Some(name))
                if self.upstream.is_none()
                    && self.local == LocalTransaction::None
                    && self.statements.has(name.as_bytes()) =>
            {
                self.statements.deallocate(name.as_bytes());
                self.complete(&plan, "DEALLOCATE");
            }
            Effect::Show(name) if self.upstream.as_ref().is_none_or(|up| up.is_at_rest()) => {
                let status = match &self.upstream {
                    Some(upstream) => upstream.server.status,
                    None => self.local_status(),
                };
                let Some(value) = self
                    .show(name)
                    .filter(|_| status != TransactionStatus::Failed)
                else {
                    return Some(plan);
                };
                self.client.input.consume(plan.size);
                let mut out = Vec::new();
                message::put_text_result(&mut out, name, &value, "SHOW");
                message::put_ready_for_query(&mut out, status);
                self.client.output.extend(&out);
            }
            _ => return Some(plan),
        }
        None
    }

    /// Runs that only keep books (Close of a shared statement, Parse of a known one, a lone Sync or
    /// Flush) need no server when the session has none.
    fn answer_bookkeeping(&mut self, plan: Plan) -> Option<Plan> {
        let keeps_books = |what: &What| {
            matches!(
                what,
                What::CloseStatement | What::ParseKnown | What::Sync | What::Flush
            )
        };
        let all = plan.steps.iter().all(|step| keeps_books(&step.what));
        let ended = matches!(plan.ending, Ending::Sync | Ending::Flush);
        if self.upstream.is_some() || !all || !ended {
            return Some(plan);
        }
        let mut out = Vec::new();
        for step in &plan.steps {
            match step.what {
                What::CloseStatement => put_synthetic(&mut out, Synthetic::CloseComplete),
                What::ParseKnown => put_synthetic(&mut out, Synthetic::ParseComplete),
                What::Flush => {}
                _ => message::put_ready_for_query(&mut out, self.local_status()),
            }
        }
        self.client.input.consume(plan.size);
        self.client.output.extend(&out);
        self.statements.settle_all();
        None
    }

    /// The transaction has lost its server: everything fails until the client ends it.
    fn answer_in_failed_transaction(&mut self, plan: Plan) -> Option<Plan> {
        if !plan.ends_transaction {
            let fault = Fault::verbatim(
                Severity::Error,
                SqlState::IN_FAILED_SQL_TRANSACTION,
                "current transaction is aborted, commands ignored until end of transaction block",
            );
            self.refuse(&plan, &fault);
            return None;
        }
        self.local = LocalTransaction::None;
        self.settings.ended_otherwise();
        self.wishes.ended_otherwise();
        let commits =
            |effect: &Effect| matches!(effect, Effect::Commit { .. } | Effect::PrepareTransaction);
        match plan.steps.as_slice() {
            [
                Step {
                    what: What::Query(decision),
                    ..
                },
            ] if decision.statements == 1 => {
                self.complete(&plan, "ROLLBACK");
                None
            }
            // A server would take it for a success.
            [
                Step {
                    what: What::Query(decision),
                    ..
                },
            ] if !decision.effects.iter().any(commits) => Some(plan),
            _ if self.rolls_back(&plan) => Some(plan),
            _ => {
                let message = "the transaction was lost, and nothing of it has been committed";
                let fault = Fault::error(SqlState::IN_FAILED_SQL_TRANSACTION, message);
                self.refuse(&plan, &fault);
                None
            }
        }
    }

    /// An extended cycle that ends the transaction with ROLLBACK alone.
    fn rolls_back(&self, plan: &Plan) -> bool {
        let is_rollback =
            |decision: &Decision| matches!(&*decision.effects, [Effect::Rollback { chain: false }]);
        plan.steps.iter().all(|step| match &step.what {
            What::BindNamed(statement) | What::ParseNew(statement) => {
                is_rollback(&statement.classified.decision)
            }
            What::BindUnnamed(unnamed) | What::ParseUnnamed(unnamed) => {
                is_rollback(&unnamed.classified.decision)
            }
            _ => true,
        })
    }

    /// Nothing can be held on a replica that pins a session to the primary, and no READ ONLY transaction
    /// there can become fresher.
    fn misplaced(&self, plan: &Plan) -> Option<Fault> {
        let message = match plan.is_misplaced_on(self.upstream.as_ref()?)? {
            Misplaced::Pins => {
                "what pins a session cannot be done in a READ ONLY transaction on a replica"
            }
            Misplaced::Fresher => {
                "a READ ONLY transaction on a replica cannot be made more consistent"
            }
        };
        let hint = "Set causeway.consistency to strong before BEGIN, or leave READ ONLY out.";
        Some(Fault::error(SqlState::ACTIVE_SQL_TRANSACTION, message).with_hint(hint))
    }

    /// Answers a run of one command.
    fn complete(&mut self, plan: &Plan, tag: &str) {
        self.client.input.consume(plan.size);
        let mut out = Vec::new();
        message::put_command_complete(&mut out, tag);
        message::put_ready_for_query(&mut out, self.local_status());
        self.client.output.extend(&out);
    }

    /// What `SHOW name` answers, if it is a setting of ours.
    pub(super) fn show(&self, name: &str) -> Option<String> {
        match name {
            "causeway.last_route" => Some(self.show_last_route()),
            TOKEN => Some(self.token().unwrap_or_default()),
            CONSISTENCY => Some(level_name(self.level()).to_owned()),
            "causeway.pin" => Some(self.pins.to_string()),
            _ => self.preferences.show(name),
        }
    }

    pub(super) fn show_last_route(&self) -> String {
        let Some(route) = self.last_route else {
            return String::new();
        };
        let topology = self.services.feed.topology();
        let node = topology.node(route.node);
        let role = match route.role {
            crate::routing::Role::Primary => "primary",
            crate::routing::Role::Replica => "replica",
        };
        format!(
            "node={} role={role} region={} reason=\"{}\" {} waited_ms={:.3}",
            node.name,
            node.region.as_deref().unwrap_or("-"),
            route.reason.as_str(),
            route.seen.bounds(&topology),
            route.waited.as_secs_f64() * 1000.0,
        )
    }

    /// Answers a run with an error of our own. A transaction that is open on a server must fail
    /// with it, so there the server is made to raise it, and the client gets it in our own words.
    pub(super) fn refuse_everywhere(&mut self, plan: &Plan, fault: Fault) -> Result<(), End> {
        let Some(upstream) = &mut self.upstream else {
            self.refuse(plan, &fault);
            return Ok(());
        };
        let whole_cycle = matches!(plan.ending, Ending::Query | Ending::Sync);
        if !whole_cycle || upstream.server.owed.is_mid_cycle() {
            // Half a cycle cannot be undone from here.
            return Err(End::Told(fault.into_fatal()));
        }
        if upstream.is_in_transaction() {
            let text = match plan.steps.as_slice() {
                [step] => lone_statement(step, self.client.input.bytes()),
                _ => None,
            };
            upstream.raise(text, &raise(&fault));
            upstream.raised = Some((upstream.receiving, fault));
            self.client.input.consume(plan.size);
            self.statements.undo_last(plan.changes);
        } else {
            self.refuse(plan, &fault);
        }
        Ok(())
    }

    /// Answers a run with an error of our own.
    pub(super) fn refuse(&mut self, plan: &Plan, fault: &Fault) {
        let there = plan.size.min(self.client.input.len());
        self.client.input.consume(there);
        self.statements.undo_last(plan.changes);
        self.local = match (self.local, self.upstream.is_some()) {
            (LocalTransaction::Deferred(_), false) => LocalTransaction::Failed,
            (local, _) => local,
        };
        let status = match &self.upstream {
            Some(upstream) => upstream.server.status,
            None => self.local_status(),
        };
        let mut out = Vec::new();
        fault.encode(&mut out);
        match plan.ending {
            Ending::Query | Ending::Sync => message::put_ready_for_query(&mut out, status),
            Ending::Flush | Ending::Cut | Ending::Open => {
                self.inflow = Inflow::ToSync(plan.size - there)
            }
        }
        self.client.output.extend(&out);
        self.exclude = Default::default();
        self.primary_next = false;
    }

    /// Appends a last word.
    pub(super) fn say(&mut self, fault: &Fault) {
        let mut out = Vec::new();
        fault.encode(&mut out);
        self.client.output.extend(&out);
    }
}

/// The text of a Query of one statement: what is wrong with that comes ahead of any other error.
fn lone_statement<'b>(step: &Step, bytes: &'b [u8]) -> Option<&'b [u8]> {
    match &step.what {
        What::Query(decision) if decision.statements == 1 => {
            bytes.get(HEADER..step.size)?.strip_suffix(b"\0")
        }
        _ => None,
    }
}

/// A statement that raises the fault, on any node.
fn raise(fault: &Fault) -> String {
    let (code, message) = (quoted(fault.code.as_str()), quoted(fault.message()));
    let block = format!("BEGIN RAISE EXCEPTION USING ERRCODE = {code}, MESSAGE = {message}; END");
    format!("DO {}", quoted(&block))
}
