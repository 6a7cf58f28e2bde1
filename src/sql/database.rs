//! Statements that want a database for themselves: PostgreSQL refuses them while anybody else is
//! connected to it.

use super::Effect;
use super::lexer::Token;
use super::reader::Reader;

/// The database that nobody else may be connected to while this statement runs.
pub(super) fn vacated(text: &[u8], tokens: &[Token]) -> Option<Effect> {
    let mut reader = Reader::new(text, tokens);
    let name = if reader.accept_all(&["DROP", "DATABASE"]) {
        reader.accept_all(&["IF", "EXISTS"]);
        reader.identifier()?
    } else if reader.accept_all(&["ALTER", "DATABASE"]) {
        let name = reader.identifier()?;
        let moves = reader.accept("RENAME") || reader.accept_all(&["SET", "TABLESPACE"]);
        moves.then_some(name)?
    } else if reader.accept_all(&["CREATE", "DATABASE"]) {
        reader.identifier()?;
        template(reader)?
    } else {
        return None;
    };
    Some(Effect::Vacate(name.into()))
}

/// The database that is copied.
fn template(mut reader: Reader) -> Option<String> {
    while !reader.at_end() {
        if reader.accept("TEMPLATE") {
            reader.accept_sign("=");
            if !reader.sees("DEFAULT") {
                return reader.literal().or_else(|| reader.identifier());
            }
        }
        reader.next();
    }
    Some(DEFAULT_TEMPLATE.to_owned())
}

const DEFAULT_TEMPLATE: &str = "template1";
