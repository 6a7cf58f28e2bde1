//! `SELECT set_config(...)`: what SET does, as a query. Only a query that does nothing else, with
//! arguments that are known here, can be followed.

use super::classify::Part;
use super::lexer::Kind;
use super::reader::{self, Reader};
use super::settings::{Scope, assignment_effect, class_of, valid_name};
use super::{Class, Effect};

/// A SELECT list of nothing but `set_config` and `current_setting` with arguments that are known
/// here: it does what SET and SHOW do.
pub(super) fn lone_set_config(mut reader: Reader) -> Option<Part> {
    if !reader.accept("SELECT") {
        return None;
    }
    let mut part = Part::new(Class::Anywhere, "it only sets and shows settings");
    let mut sets = false;
    loop {
        let qualified = reader;
        if !(reader.identifier().as_deref() == Some("pg_catalog") && reader.accept_sign(".")) {
            reader = qualified;
        }
        match reader.identifier()?.as_str() {
            "set_config" => {
                sets = true;
                if let Some(effect) = set_config_call(&mut reader)? {
                    let class = class_of(&effect);
                    part = part
                        .at_least(class, "it sets what the catalogue must have")
                        .with(effect);
                }
            }
            "current_setting" => skip_current_setting(&mut reader)?,
            _ => return None,
        }
        if reader.accept("AS") || !(reader.at_end() || reader.peek_is_sign(",")) {
            reader.identifier()?;
        }
        if !reader.accept_sign(",") {
            break;
        }
    }
    (sets && reader.at_end()).then_some(part)
}

/// An argument of `set_config`.
enum Argument {
    Known(String),
    Null,
    /// A parameter: its value comes with Bind. None is one that cannot be.
    Given(Option<u16>),
}

fn argument(reader: &mut Reader) -> Option<Argument> {
    let argument = if let Some(value) = reader.literal() {
        Argument::Known(value)
    } else if reader.accept("NULL") {
        Argument::Null
    } else {
        let token = reader.next()?;
        if token.kind != Kind::Parameter {
            return None;
        }
        let number = reader.source(token).strip_prefix(b"$");
        let number = number.and_then(|digits| std::str::from_utf8(digits).ok());
        Argument::Given(number.and_then(|digits| digits.parse().ok()))
    };
    if reader.accept_sign("::") && !reader.accept_any(&["TEXT", "VARCHAR"]) {
        return None;
    }
    Some(argument)
}

/// Reads `(name, value, is_local)`. The outer `None`: not understood; the inner: no effect.
fn set_config_call(reader: &mut Reader) -> Option<Option<Effect>> {
    if !reader.accept_sign("(") {
        return None;
    }
    let name = argument(reader)?;
    reader.accept_sign(",").then_some(())?;
    let value = argument(reader)?;
    reader.accept_sign(",").then_some(())?;
    let local = reader.accept("TRUE");
    if !(local || reader.accept("FALSE")) || !reader.accept_sign(")") {
        return None;
    }
    match (name, value, local) {
        (Argument::Known(name), value, true) => {
            let value = match value {
                Argument::Known(value) => Some(value),
                Argument::Null => None,
                Argument::Given(_) => Some(String::new()),
            };
            let name = valid_name(name)?;
            Some(Some(assignment_effect(&name, value, Scope::Transaction)))
        }
        (_, _, true) => Some(None),
        (Argument::Known(name), Argument::Known(value), false) => {
            let name = valid_name(name)?;
            if is_quoted_list(&name) {
                let (name, value) = (name.into(), value.into());
                return Some(Some(Effect::SetExactly { name, value }));
            }
            let value = Some(reader::quote_literal(&value));
            Some(Some(assignment_effect(&name, value, Scope::Session)))
        }
        // The session reads the value itself.
        (Argument::Known(name), Argument::Given(Some(parameter)), false) => {
            let name = valid_name(name)?;
            let ours = name.starts_with("causeway.") && parameter > 0;
            ours.then(|| {
                Some(Effect::SetGiven {
                    name: name.into(),
                    parameter,
                })
            })
        }
        (Argument::Known(name), Argument::Null, false) => Some(Some(assignment_effect(
            &valid_name(name)?,
            None,
            Scope::Session,
        ))),
        _ => None,
    }
}

fn skip_current_setting(reader: &mut Reader) -> Option<()> {
    reader.accept_sign("(").then_some(())?;
    reader.literal()?;
    if reader.accept_sign(",") {
        reader.accept_any(&["TRUE", "FALSE"]).then_some(())?;
    }
    reader.accept_sign(")").then_some(())
}

/// Settings whose text is a list of identifiers: SET quotes each of its values, and so cannot make
/// it of a whole list (`GUC_LIST_QUOTE`).
pub fn is_quoted_list(name: &str) -> bool {
    matches!(
        name,
        "search_path"
            | "temp_tablespaces"
            | "session_preload_libraries"
            | "local_preload_libraries"
    )
}
