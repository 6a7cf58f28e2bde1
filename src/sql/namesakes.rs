//! Whether a read may mean a temporary relation, or show what only the session that has it sees: told by
//! each word of its text, wherever it stands. One too many costs no more than a read of the primary.

use memchr::memmem;

use super::canonical::letters;
use super::catalogue::Catalogue;
use super::lexer::{Kind, Lexer};
use super::reader;

/// Whether the text may mean one of these names, all lower case and of ASCII: it has the name as a word or in a
/// literal, calls code that may have it, or asks what the names of relations mean.
pub fn may_mean(catalogue: &Catalogue, text: &[u8], names: &[Box<str>]) -> bool {
    let mut lexer = Lexer::new(text);
    let found = lexer.by_ref().any(|token| {
        let source = text.get(token.start..token.end).unwrap_or_default();
        match token.kind {
            Kind::Word | Kind::Quoted => match reader::identifier(text, token) {
                Some(name) => {
                    names.iter().any(|it| **it == *name)
                        || asks_for_names(&name)
                        || catalogue.looks_up_late(&letters(name))
                }
                None => true,
            },
            Kind::Operator => catalogue.operator_looks_up_late(&String::from_utf8_lossy(source)),
            Kind::Literal(_) => has_any(source, names),
            Kind::UnicodeName | Kind::Broken => true,
            Kind::Number | Kind::Parameter | Kind::Punctuation => false,
        }
    });
    found || lexer.ambiguous
}

/// Whether one of the names stands anywhere in the bytes, such as in the values of a Bind.
pub fn has_any(bytes: &[u8], names: &[Box<str>]) -> bool {
    let lower = bytes.to_ascii_lowercase();
    let mut names = names.iter();
    names.any(|name| memmem::find(&lower, name.as_bytes()).is_some())
}

/// Names of PostgreSQL's own that show, or look up, what a name means to the session.
fn asks_for_names(name: &str) -> bool {
    const WORDS: &[&str] = &[
        "col_description",
        "format_type",
        "information_schema",
        "obj_description",
        "regclass",
        "regcollation",
        "regconfig",
        "regdictionary",
        "regoper",
        "regoperator",
        "regproc",
        "regprocedure",
        "regtype",
        "row_security_active",
    ];
    const PREFIXES: &[&str] = &["pg_", "to_reg", "has_", "current_schema"];
    WORDS.binary_search(&name).is_ok()
        || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || name.ends_with("_to_xml")
        || name.ends_with("_to_xmlschema")
        || name.ends_with("_to_xml_and_xmlschema")
}
