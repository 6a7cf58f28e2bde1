//! SQL's EXECUTE of what the protocol has prepared, which may be any statement, such as LISTEN or SET. What that
//! leaves in the session is not followed through a name: the session keeps its server.

use std::sync::Arc;

use super::Session;
use super::dispatch::changes_names;
use super::statements::{Standing, Statement};
use super::survey::{Plan, What};
use crate::sql::{Classified, Decision, Effect, PinReason};

impl Session {
    /// A text with what it executes counted in; none if that adds nothing.
    pub(super) fn with_executed(&self, classified: &Classified) -> Option<Classified> {
        let decision = &classified.decision;
        let mut added = Vec::new();
        let mut whole = None;
        for (place, effect) in decision.effects.iter().enumerate() {
            let Effect::Execute(name) = effect else {
                continue;
            };
            // Behind a change of names it is what SQL has prepared, which changes nothing.
            if decision.effects[..place].iter().any(changes_names) {
                break;
            }
            let Some(executed) = self.statements.get(name.as_bytes()) else {
                continue;
            };
            let executed = self.decision_of(executed);
            let is_known = executed.effects.is_empty() && !executed.is_ddl;
            if is_known && executed.code <= decision.code {
                continue;
            }
            let whole: &mut Decision = whole.get_or_insert_with(|| Decision::clone(decision));
            whole.is_ddl |= executed.is_ddl;
            whole.code = whole.code.max(executed.code);
            let pins = executed.effects.iter();
            added.extend(pins.filter(|it| matches!(it, Effect::Pin(_))).cloned());
            if !executed.effects.is_empty() {
                added.push(Effect::Pin(PinReason::Unknown));
            }
        }
        let mut whole = whole?;
        whole.effects = [&*whole.effects, &added].concat().into();
        Some(classified.with(Arc::new(whole)))
    }

    /// The same for a Bind, which is added to the plan anew.
    pub(super) fn bound_with_executed(&self, what: What, plan: &mut Plan) -> What {
        let whole = match &what {
            What::BindUnnamed(unnamed) => self.with_executed(&unnamed.classified),
            What::BindNamed(statement) => self.with_executed(&statement.classified),
            _ => None,
        };
        let Some(whole) = whole else {
            return what;
        };
        self.account(&whole, whole.decision.class, plan);
        match what {
            What::BindUnnamed(unnamed) => What::BindUnnamed(Arc::new(unnamed.bound(whole))),
            What::BindNamed(statement) => What::BindNamed(Arc::new(statement.bound(whole))),
            other => other,
        }
    }

    fn decision_of(&self, statement: &Statement) -> Arc<Decision> {
        let standing = statement.standing(&self.services.classifier, self.names.scope());
        Arc::clone(match &standing {
            Standing::AsParsed(_) => &statement.classified.decision,
            Standing::Otherwise(now) => &now.decision,
        })
    }
}
