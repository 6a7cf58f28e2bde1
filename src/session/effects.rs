//! What statements change beyond data, once it is known how they ended: settings, prepared
//! statements, what pins the session.

use std::sync::Arc;

use super::Session;
use super::dispatch::changes_names;
use super::pins::Pins;
use super::preferences::PREFIX;
use super::upstream::{Afterwards, TransactionEnd, Upstream, changes_session};
use crate::protocol::error::SqlState;
use crate::routing::Role;
use crate::server::settings::{DATESTYLE, quoted};
use crate::server::{Reported, Settings};
use crate::sql::{Code, Decision, DiscardKind, Effect, PinReason};

impl Session {
    /// Applies what a text has changed.
    pub(super) fn apply(&mut self, upstream: &mut Upstream, decision: &Decision) {
        upstream.vacating = None;
        // What is temporary is nobody else's, and no part of a catalogue.
        let temporary = Effect::Pin(PinReason::TemporaryTable);
        if decision.is_ddl && !decision.effects.contains(&temporary) {
            self.names.ddl_ran();
        } else if decision.code == Code::Remakes {
            self.names.code_ran();
        }
        if decision.effects.iter().any(changes_session) {
            self.habit.is_changed();
        }
        for (place, effect) in decision.effects.iter().enumerate() {
            let behind = &decision.effects[place + 1..];
            let committed = !ends_transaction(effect)
                || upstream.ends.pop_front() != Some(TransactionEnd::RolledBack);
            match effect {
                Effect::Set { name, .. } | Effect::Reset(name) if name.starts_with(PREFIX) => {
                    // The server took it for a placeholder; the next session must not see it.
                    self.wishes.apply(effect, committed);
                    upstream.applied.apply(effect, committed);
                }
                // What is known of the database, and what is connected to it, is of the old one.
                Effect::Vacate(database) => self.services.pools.close_resting(database),
                Effect::Pin(PinReason::Sequence)
                    if !self.must_keep_sequences(upstream, decision) => {}
                Effect::Pin(reason) => self.pin_to_server(upstream, *reason),
                _ => {
                    let whole = whole_setting(effect, behind, &upstream.server.reported);
                    let effect = whole.as_ref().unwrap_or(effect);
                    self.settings.apply(effect, committed);
                    self.wishes.apply(effect, committed);
                    upstream.applied.apply(effect, committed);
                }
            }
            if let Effect::Discard(DiscardKind::Sequences) = effect {
                self.discard_sequences();
                self.unpin(self.pins.without(PinReason::Sequence));
            }
            if matches!(effect, Effect::DiscardAll) {
                upstream.applied.replace(&Settings::default());
                self.discard_sequences();
                if !self.pins.end_with_discard_all() {
                    upstream.afterwards = Afterwards::Discard;
                }
                self.unpin(Pins::NONE);
            }
        }
        self.follow_wishes();
    }

    /// A command's tag says that this has happened for good, whatever comes behind it.
    pub(super) fn note_completed(&mut self, upstream: &mut Upstream, tag: &[u8]) {
        upstream.completed += 1;
        match tag {
            b"COMMIT\0" | b"PREPARE TRANSACTION\0" => {
                upstream.ends.push_back(TransactionEnd::Committed);
            }
            // COMMIT in a failed transaction too is answered with this.
            b"ROLLBACK\0" => upstream.ends.push_back(TransactionEnd::RolledBack),
            b"PREPARE\0" | b"DEALLOCATE\0" => match upstream.next_of_prepared() {
                Some(Effect::Prepare(prepare)) => {
                    let text: Arc<[u8]> = (*prepare.text).into();
                    let held = &mut upstream.server.sql_statements;
                    held.insert(prepare.name.clone(), Arc::clone(&text));
                    self.statements.prepare_in_sql(&prepare, text);
                }
                Some(Effect::Deallocate(Some(name))) => {
                    self.statements.deallocate(name.as_bytes());
                    upstream.server.sql_statements.remove(&name);
                }
                _ => {}
            },
            b"DEALLOCATE ALL\0" | b"DISCARD ALL\0" => {
                self.statements.deallocate_all();
                upstream.server.statements.clear();
                upstream.server.sql_statements.clear();
                if tag == b"DISCARD ALL\0" {
                    self.discard_settings(upstream);
                }
            }
            _ => {}
        }
    }

    /// A string of statements has failed. Where that was in the commit behind the last of them, what this has
    /// prepared, or taken back, is so all the same, though nothing tells of it.
    pub(super) fn note_failed_commit(&mut self, upstream: &mut Upstream, code: SqlState) {
        let cycle = upstream.receiving;
        let done = upstream.completed + 1;
        let mut decisions = upstream.effects.iter().filter(|(of, _)| *of == cycle);
        let last = decisions.next().and_then(|(_, decision)| {
            // Alone, or in the extended protocol, a failed one tells for itself.
            let is_last = decision.statements > 1 && decision.statements as usize == done;
            decision.effects.last().filter(|_| is_last)
        });
        let Some(effect) = last else { return };
        let tag: &[u8] = match effect {
            Effect::Deallocate(None) => b"DEALLOCATE ALL\0",
            Effect::Prepare(_) | Effect::Deallocate(Some(_))
                if upstream.peek_of_prepared() == Some(effect) =>
            {
                b"PREPARE\0"
            }
            _ => return,
        };
        match was_carried_out(effect, code) {
            Some(true) => self.note_completed(upstream, tag),
            Some(false) => {}
            None => upstream.afterwards = Afterwards::Discard,
        }
    }

    /// The start-up values are set again ahead of the next request.
    fn discard_settings(&mut self, upstream: &mut Upstream) {
        self.settings.apply(&Effect::DiscardAll, true);
        self.wishes.apply(&Effect::DiscardAll, true);
        upstream.applied.replace(&Settings::default());
    }

    /// A cycle has failed. Most of what it would have changed is undone with it; where that is not
    /// certain the session keeps the server, which alone knows.
    pub(super) fn apply_failed(&mut self, upstream: &mut Upstream, decision: &Decision) {
        upstream.vacating = None;
        let committed = upstream.ends.contains(&TransactionEnd::Committed);
        // A string that does not parse has not been begun, and one whose first statement failed ended there.
        let begun = upstream.completed > 0;
        let several = begun && (decision.statements > 1 || committed);
        for effect in &decision.effects {
            match effect {
                // No rollback gives a lock back.
                Effect::Pin(reason @ PinReason::AdvisoryLock) => {
                    self.pin_to_server(upstream, *reason)
                }
                Effect::MayCommitSettings => self.pin_to_server(upstream, PinReason::Setting),
                // It has come to another server than the last time; the next time it will not.
                Effect::Pin(reason @ PinReason::Sequence)
                    if self.must_keep_sequences(upstream, decision) =>
                {
                    self.pin_to_server(upstream, *reason)
                }
                Effect::Pin(
                    reason @ (PinReason::SqlPrepare | PinReason::Load | PinReason::Unknown),
                ) if several => self.pin_to_server(upstream, *reason),
                _ => {}
            }
        }
        if begun && (is_torn(decision) || committed) {
            self.pin_to_server(upstream, PinReason::Unknown);
        }
    }

    /// A replica's server is no place to stay: what it may hold goes with it.
    fn pin_to_server(&mut self, upstream: &mut Upstream, reason: PinReason) {
        if upstream.role == Role::Replica {
            upstream.afterwards = Afterwards::Discard;
        } else if self.pins.add(reason) {
            tracing::debug!(
                pid = self.cancel.pid(),
                ?reason,
                "a session is pinned to its server"
            );
            self.services.metrics.pinned(reason);
            self.follow_temporaries(None);
        }
    }

    fn unpin(&mut self, left: Pins) {
        if self.pins != left {
            let reasons = left.to_string();
            tracing::debug!(
                pid = self.cancel.pid(),
                reasons,
                "what pins a session has changed"
            );
            self.pins = left;
            self.follow_temporaries(None);
        }
    }

    /// The server has said what it holds; without a word everything stays as it was.
    pub(super) fn told_holdings(&mut self, upstream: &mut Upstream) {
        if let Some(holdings) = upstream.holdings.take() {
            self.unpin(self.pins.as_told(holdings.pins));
            self.follow_temporaries(Some(holdings.temporaries));
        }
    }
}

/// SET DateStyle may name the style or the order of the fields alone and keeps the other: what came
/// of it is what the server reports, unless what stands behind it in its text may have changed that.
fn whole_setting(effect: &Effect, behind: &[Effect], reported: &Reported) -> Option<Effect> {
    let is_date_style = |name: &str| name == DATESTYLE;
    let may_change = |effect: &Effect| match effect {
        Effect::Set { name, .. }
        | Effect::SetLocal { name }
        | Effect::ResetLocal(name)
        | Effect::Reset(name) => is_date_style(name),
        Effect::ResetAll | Effect::Rollback { .. } | Effect::RollbackTo(_) => true,
        _ => false,
    };
    match effect {
        Effect::Set {
            name,
            value: Some(_),
        } if is_date_style(name) && !behind.iter().any(may_change) => Some(Effect::Set {
            name: name.clone(),
            value: Some(quoted(reported.get("DateStyle")?).into()),
        }),
        _ => None,
    }
}

/// Whether the last of several statements had been carried out when this error came, which was the commit's
/// then; none where that is not certain. A deferred trigger may raise whatever it likes.
fn was_carried_out(effect: &Effect, code: SqlState) -> Option<bool> {
    match (effect, code) {
        (_, SqlState::IN_FAILED_SQL_TRANSACTION | SqlState::INVALID_SQL_STATEMENT_NAME) => {
            Some(false)
        }
        (_, SqlState::SERIALIZATION_FAILURE) => Some(true),
        (_, code) if code.in_class(SqlState::INTEGRITY_CONSTRAINTS) => Some(true),
        (Effect::Prepare(_), SqlState::DUPLICATE_PREPARED_STATEMENT) => Some(false),
        (Effect::Prepare(_), _) | (_, SqlState::QUERY_CANCELED) => None,
        // DEALLOCATE has no other reason to fail.
        _ => Some(true),
    }
}

/// Effects that are answered with COMMIT, ROLLBACK or PREPARE TRANSACTION.
pub(super) fn ends_transaction(effect: &Effect) -> bool {
    matches!(
        effect,
        Effect::Commit { .. }
            | Effect::Rollback { .. }
            | Effect::RollbackTo(_)
            | Effect::PrepareTransaction
    )
}

/// A text that may have changed the names of statements when it fails: run again, it would find others.
pub(super) fn may_leave_other_names(decision: &Decision) -> bool {
    decision.statements > 1 && decision.effects.iter().any(changes_names)
}

/// A text that may have committed part of what it changed, should it fail.
pub(super) fn is_torn(decision: &Decision) -> bool {
    let divides = |effect: &Effect| {
        matches!(
            effect,
            Effect::Begin(_)
                | Effect::Commit { .. }
                | Effect::Rollback { .. }
                | Effect::Savepoint(_)
                | Effect::Release(_)
                | Effect::RollbackTo(_)
        )
    };
    decision.statements > 1 && decision.effects.iter().any(divides)
}
