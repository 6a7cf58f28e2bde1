//! `SELECT set_config('causeway.token', $1, false)`: the value of a setting of ours that comes with Bind.
//! From there on it is a `SET` like any other.

use std::sync::Arc;

use super::Session;
use super::survey::{Plan, What};
use crate::protocol::error::{Fault, SqlState};
use crate::protocol::frame::{bind_parts, bound_value, cstring, declared_type};
use crate::server::settings::quoted;
use crate::sql::{Decision, Effect};

/// Types whose values are text in either format: unknown, text, varchar, and none at all.
const TEXTS: [u32; 4] = [0, 25, 705, 1043];

impl Session {
    /// What a Bind does that gives a setting its value: the statement with the value in it.
    pub(super) fn with_given(&self, what: What, body: &[u8], plan: &mut Plan) -> What {
        let (decision, definition) = match &what {
            What::BindUnnamed(unnamed) => (&unnamed.classified.decision, &*unnamed.definition),
            What::BindNamed(statement) => (&statement.classified.decision, &*statement.definition),
            _ => return what,
        };
        let is_given = |effect: &Effect| matches!(effect, Effect::SetGiven { .. });
        if !decision.effects.iter().any(is_given) {
            return what;
        }
        let decision = match filled(decision, definition, body) {
            Ok(decision) => Arc::new(decision),
            Err(fault) => {
                plan.refusal = plan.refusal.take().or(Some(Box::new(fault)));
                return what;
            }
        };
        for effect in &decision.effects {
            self.account_effect(effect, plan);
        }
        match what {
            What::BindUnnamed(unnamed) => {
                What::BindUnnamed(Arc::new(unnamed.bound(unnamed.classified.with(decision))))
            }
            What::BindNamed(statement) => What::BindNamed(Arc::new(
                statement.bound(statement.classified.with(decision)),
            )),
            other => other,
        }
    }
}

/// The decision with the values of a Bind in the places of its parameters.
fn filled(decision: &Decision, definition: &[u8], body: &[u8]) -> Result<Decision, Fault> {
    let value_of = |name: &str, parameter: u16| {
        let refused = |why: &str| {
            let message = format!("invalid value for parameter \"{name}\"");
            Fault::error(SqlState::INVALID_PARAMETER_VALUE, message)
                .with_detail(format!("The value in ${parameter} {why}."))
        };
        let types = cstring(definition).map_or(&b""[..], |(_, types)| types);
        if !TEXTS.contains(&declared_type(types, parameter).unwrap_or_default()) {
            return Err(refused("is not declared as text"));
        }
        let (_, _, rest) = bind_parts(body).ok_or_else(|| refused("is not there"))?;
        let value = bound_value(rest, parameter).ok_or_else(|| refused("is not there"))?;
        let text = value.map(std::str::from_utf8).transpose();
        let text = text.map_err(|_| refused("is not UTF-8"))?;
        Ok(text.map(|text| quoted(text).into()))
    };
    let fill = |effect: &Effect| match effect {
        Effect::SetGiven { name, parameter } => Ok(Effect::Set {
            name: name.clone(),
            value: value_of(name, *parameter)?,
        }),
        other => Ok(other.clone()),
    };
    let effects: Result<Box<[Effect]>, Fault> = decision.effects.iter().map(fill).collect();
    Ok(Decision {
        effects: effects?,
        ..decision.clone()
    })
}
