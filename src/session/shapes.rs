//! A client that was told the columns of a prepared statement's result decodes rows by them. When a
//! table has been changed since, a server that has the statement refuses to run it; one that lacks
//! it would prepare it as the table is now, and give rows of another shape. So such a server is
//! asked first, and the refusal is given in its place.
//!
//! A replica that may not have replayed the last change yet describes a table as it was. What is
//! prepared there is set apart: it counts as outdated for every other server.

use std::sync::Arc;
use std::time::Instant;

use super::Session;
use super::client_statements::Unnamed;
use super::statements::Statement;
use super::survey::{Plan, What};
use super::upstream::{Described, Footprint};
use crate::protocol::error::{Fault, Severity, SqlState};
use crate::protocol::message::TransactionStatus;
use crate::routing::Role;
use crate::server::RunError;

/// Why a run is not sent.
pub(super) enum Misfit {
    /// Its result is no longer what its client was told.
    Outdated(Fault),
    /// The server refuses to prepare it, and has failed the transaction with that.
    Refused(Fault),
}

impl Session {
    /// The session's server is a replica's that has not been seen to have replayed all of the catalogue that
    /// has passed through here.
    pub(super) fn may_predate_catalogue(&self) -> bool {
        let Some(upstream) = &self.upstream else {
            return false;
        };
        if upstream.role == Role::Primary {
            return false;
        }
        let Some(changed) = self.services.prepared.anew_since() else {
            return false;
        };
        let now = Instant::now();
        let topology = self.services.feed.topology();
        let seen = topology.node(upstream.node).observation();
        let age = seen.and_then(|seen| topology.history.staleness(seen.lsn, now));
        age.is_none_or(|age| age >= now.saturating_duration_since(changed))
    }

    /// What a run prepares where the catalogue may be that of before is this session's alone.
    pub(super) fn set_apart(&mut self, plan: &mut Plan) {
        let prepared = &self.services.prepared;
        for index in 0..plan.steps.len() {
            let shared = match &plan.steps[index].what {
                What::ParseNew(shared) => shared,
                What::ParseUnnamed(unnamed) => {
                    unnamed.age.be_unsure();
                    continue;
                }
                _ => continue,
            };
            let shared = Arc::clone(shared);
            if prepared.is_outdated(&shared) {
                continue;
            }
            let apart = prepared.set_apart(&shared);
            self.statements.exchange(plan.changes, shared.id, &apart);
            for step in &mut plan.steps {
                if let What::ParseNew(statement)
                | What::BindNamed(statement)
                | What::DescribeNamed(statement) = &mut step.what
                    && statement.id == shared.id
                {
                    *statement = Arc::clone(&apart);
                }
            }
        }
    }

    /// Prepares what is outdated and missing on the session's server. Costs a round trip, once for each
    /// server and statement behind a change of the catalogue.
    pub(super) async fn keep_shapes(&mut self, plan: &Plan) -> Result<(), Misfit> {
        let missing = self.outdated_and_missing(plan);
        let unnamed = self.outdated_unnamed(plan);
        if missing.is_empty() && unnamed.is_none() {
            return Ok(());
        }
        let Some(mut upstream) = self.upstream.take() else {
            return Ok(());
        };
        let was_in_transaction = upstream.is_in_transaction();
        // What SQL names may fail to be prepared, and is left to the cycle itself.
        let settings = self.settings_ahead(&mut upstream, plan);
        self.send_with_begin(&mut upstream, settings);
        let mut outcome = Ok(());
        let named = missing.into_iter().map(Described::Shared);
        for described in named.chain(unnamed.map(Described::Unnamed)) {
            let server = &mut upstream.server;
            let (told, shape) = match &described {
                Described::Shared(it) => (it.shape(), server.prepare(it.id, &it.definition).await),
                Described::Unnamed(it) => (
                    it.shape(),
                    server.prepare_unnamed(it.tag, &it.definition).await,
                ),
            };
            match shape {
                Ok(shape) if Some(shape) != told => {
                    match described {
                        // Should it fail, the server is lost, and the next request finds out.
                        Described::Shared(it) => drop(upstream.server.unprepare(it.id).await),
                        Described::Unnamed(_) => upstream.server.unnamed = None,
                    }
                    // The refusal has shown the change.
                    if upstream.footprint == Footprint::None {
                        upstream.footprint = Footprint::Seen;
                    }
                    outcome = Err(Misfit::Outdated(outdated()));
                    break;
                }
                Ok(_) => {}
                Err(RunError::Refused { code, message })
                    if upstream.server.status == TransactionStatus::Failed =>
                {
                    let fault = Fault::verbatim(Severity::Error, code, message);
                    outcome = Err(Misfit::Refused(fault));
                    // The settings went wrong, or the transaction that has just begun.
                    if !was_in_transaction {
                        self.fail_transaction(&upstream);
                        self.cancel.slot().disarm();
                        upstream.server.discard();
                        return outcome;
                    }
                    break;
                }
                // The request itself meets the same, and tells it better.
                Err(_) => break,
            }
        }
        self.upstream = Some(upstream);
        outcome
    }

    /// Its server can be asked how a statement comes out there.
    fn can_ask(&self) -> bool {
        self.upstream.as_ref().is_some_and(|upstream| {
            upstream.is_at_rest() && upstream.server.status != TransactionStatus::Failed
        })
    }

    /// The unnamed statement, if the run binds it as it was described earlier and the server lacks it.
    fn outdated_unnamed(&self, plan: &Plan) -> Option<Arc<Unnamed>> {
        let upstream = self.upstream.as_ref().filter(|_| self.can_ask())?;
        let predates = self.may_predate_catalogue();
        plan.steps.iter().find_map(|step| match &step.what {
            What::BindUnnamed(unnamed)
                if (predates || self.services.prepared.is_past(&unnamed.age))
                    && unnamed.shape().is_some()
                    && upstream.server.unnamed != Some(unnamed.tag) =>
            {
                Some(Arc::clone(unnamed))
            }
            _ => None,
        })
    }

    fn outdated_and_missing(&self, plan: &Plan) -> Vec<Arc<Statement>> {
        let Some(upstream) = self.upstream.as_ref().filter(|_| self.can_ask()) else {
            return Vec::new();
        };
        let predates = self.may_predate_catalogue();
        let mut missing: Vec<Arc<Statement>> = Vec::new();
        for step in &plan.steps {
            if let What::BindNamed(statement) = &step.what
                && (predates || self.services.prepared.is_outdated(statement))
                && statement.shape().is_some()
                && !upstream.server.statements.has(statement.id)
                && missing.iter().all(|other| other.id != statement.id)
            {
                missing.push(Arc::clone(statement));
            }
        }
        missing
    }
}

impl Plan {
    /// It prepares a statement, or runs one that has been prepared.
    pub(super) fn uses_prepared(&self) -> bool {
        let uses = |what: &What| {
            matches!(
                what,
                What::ParseNew(_)
                    | What::BindNamed(_)
                    | What::ParseUnnamed(_)
                    | What::BindUnnamed(_)
            )
        };
        self.steps.iter().any(|step| uses(&step.what))
    }
}

/// In PostgreSQL's words and with its routine: drivers know it by them, and prepare anew.
fn outdated() -> Fault {
    Fault::verbatim(
        Severity::Error,
        SqlState::FEATURE_NOT_SUPPORTED,
        "cached plan must not change result type",
    )
    .with_routine("RevalidateCachedQuery")
}
