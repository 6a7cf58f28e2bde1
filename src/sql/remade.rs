//! Calls of code that may change the catalogue: CALL, DO, and functions of the user's wherever they are called.
//! This looks at tokens only. What triggers call is not counted.

use super::canonical::letters_of;
use super::catalogue::Use;
use super::classify::{Part, Rules};
use super::lexer::{Kind, Token};
use super::reader;
use super::{Class, Code};

pub(super) fn with_what_calls_remake(
    rules: &Rules,
    text: &[u8],
    tokens: &[Token],
    mut part: Part,
) -> Part {
    let Some(catalogue) = rules.catalogue else {
        return part;
    };
    // What only reads changes nothing, and DDL is known already.
    if part.class < Class::Write || part.is_ddl || part.code == Code::None {
        return part;
    }
    let is_first = |word| {
        let first = tokens.first();
        first.is_some_and(|first| reader::is_word(text, *first, word))
    };
    let (is_call, is_block) = (is_first("CALL"), is_first("DO"));
    let remakes = tokens.iter().enumerate().any(|(index, token)| {
        if is_block && matches!(token.kind, Kind::Literal(_)) {
            let body = text.get(token.start..token.end).unwrap_or_default();
            return catalogue.body_remakes(&letters_of(body));
        }
        let Some((schema, name)) = reader::called(text, tokens, index) else {
            return false;
        };
        let schema = schema.as_deref();
        let is_unknown = || is_call && catalogue.function(Use::Run, schema, &name).is_none();
        catalogue.function_remakes(schema, &name) || is_unknown()
    });
    if remakes {
        part.code = Code::Remakes;
    }
    part
}
