//! What a comment asks for, in the manner of sqlcommenter:
//! `/* causeway.consistency='eventual', causeway.max_staleness='5s' */`. A hint changes freshness
//! and preference only; it never makes a write a read.

use std::time::Duration;

use super::lexer::Lexer;

/// How new the state must be that a statement sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Strong,
    Session,
    Causal,
    Eventual,
}

/// The hints of one text. Of two for the same thing the later counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    pub consistency: Option<Level>,
    pub max_staleness: Option<Duration>,
    /// Prefer nodes of this region.
    pub region: Option<Box<str>>,
    /// A position that must have been reached.
    pub token: Option<Box<str>>,
    /// What was written by then must be seen: milliseconds since 1970.
    pub written_at_ms: Option<u64>,
    /// What could not be followed, one line each, for a NOTICE to the client.
    pub errors: Vec<String>,
}

/// Reads the hints in all comments of `text`; `None` if there are none.
pub(super) fn hints(text: &[u8]) -> Option<Hints> {
    let mut hints = Hints::default();
    let mut end = 0;
    // Whatever lies between two tokens is blank or a comment.
    for token in Lexer::new(text) {
        hints.read(text.get(end..token.start).unwrap_or_default());
        end = token.end;
    }
    hints.read(text.get(end..).unwrap_or_default());
    (hints != Hints::default()).then_some(hints)
}

impl Hints {
    fn read(&mut self, comment: &[u8]) {
        let comment = String::from_utf8_lossy(comment);
        let mut rest = comment.as_ref();
        while let Some(found) = rest.find("causeway.") {
            rest = &rest[found + "causeway.".len()..];
            let key_end = rest
                .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
                .unwrap_or(rest.len());
            let (key, after) = rest.split_at(key_end);
            rest = after;
            let Some((value, after)) = quoted_value(after) else {
                self.fail(format!("causeway.{key} needs a value in single quotes"));
                continue;
            };
            rest = after;
            self.set(key, &value);
        }
    }

    fn set(&mut self, key: &str, value: &str) {
        match key {
            "consistency" => match level(value) {
                Some(level) => self.consistency = Some(level),
                None => self.fail(format!(
                    "causeway.consistency is strong, session, causal or eventual, not \"{value}\""
                )),
            },
            "max_staleness" => match humantime::parse_duration(value) {
                Ok(duration) => self.max_staleness = Some(duration),
                Err(error) => self.fail(format!("causeway.max_staleness=\"{value}\": {error}")),
            },
            "region" => self.region = Some(value.into()),
            "last_write_timestamp" => match value.parse() {
                Ok(ms) => self.written_at_ms = Some(ms),
                Err(_) => self.fail(format!(
                    "causeway.last_write_timestamp is in milliseconds since 1970, not \"{value}\""
                )),
            },
            "token" => self.token = (!value.is_empty()).then(|| value.into()),
            _ => self.fail(format!("causeway.{key} is not known in a comment")),
        }
    }

    fn fail(&mut self, error: String) {
        const MAX_ERRORS: usize = 8;
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(error);
        }
    }
}

fn level(word: &str) -> Option<Level> {
    Some(match word {
        "strong" => Level::Strong,
        "session" => Level::Session,
        "causal" => Level::Causal,
        "eventual" => Level::Eventual,
        _ => return None,
    })
}

/// The value in `= '...'`, percent-decoded as sqlcommenter writes it, and what follows it.
fn quoted_value(text: &str) -> Option<(String, &str)> {
    let text = text.trim_start().strip_prefix('=')?;
    let text = text.trim_start().strip_prefix('\'')?;
    let (value, after) = text.split_once('\'')?;
    let decoded = percent_encoding::percent_decode_str(value).decode_utf8_lossy();
    Some((decoded.into_owned(), after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Hints {
        hints(text.as_bytes()).unwrap_or_default()
    }

    #[test]
    fn reads_hints_wherever_a_comment_stands() {
        let eventual = Hints {
            consistency: Some(Level::Eventual),
            ..Hints::default()
        };
        for text in [
            "/* causeway.consistency='eventual' */ SELECT 1",
            "SELECT 1 /*causeway.consistency = 'eventual',traceparent='00-x'*/",
            "SELECT /* a /* nested causeway.consistency='eventual' */ */ 1",
            "SELECT 1 -- causeway.consistency='eventual'\n + 2",
            "-- causeway.consistency='strong'\nSELECT 1 /* causeway.consistency='eventual' */",
        ] {
            assert_eq!(of(text), eventual, "{text}");
        }
    }

    #[test]
    fn reads_several_in_one_comment() {
        let hints = of(
            "SELECT 1 /* causeway.consistency='causal', causeway.max_staleness='5s', \
             causeway.region='eu%2Dwest', causeway.token='c1.1.1.0-0' */",
        );
        assert_eq!(hints.consistency, Some(Level::Causal));
        assert_eq!(hints.max_staleness, Some(Duration::from_secs(5)));
        assert_eq!(hints.region.as_deref(), Some("eu-west"));
        assert_eq!(hints.token.as_deref(), Some("c1.1.1.0-0"));
        assert!(hints.errors.is_empty());
    }

    #[test]
    fn literals_hold_no_hints() {
        assert_eq!(hints(b"SELECT '/* causeway.consistency=''x'' */'"), None);
        assert_eq!(hints(b"SELECT $$ causeway.consistency='strong' $$"), None);
        assert_eq!(hints(b"SELECT 1"), None);
    }

    #[test]
    fn what_cannot_be_followed_is_said() {
        let table = [
            ("/* causeway.consistency='none' */", "not \"none\""),
            ("/* causeway.consistency=strong */", "single quotes"),
            ("/* causeway.max_staleness='soon' */", "max_staleness"),
            (
                "/* causeway.colour='red' */",
                "causeway.colour is not known",
            ),
            ("/* causeway. */", "single quotes"),
            ("/* causeway.last_write_timestamp='noon' */", "milliseconds"),
        ];
        for (text, expected) in table {
            let hints = of(text);
            assert_eq!(hints.errors.len(), 1, "{text}");
            assert!(hints.errors[0].contains(expected), "{:?}", hints.errors);
            assert_eq!((hints.consistency, hints.max_staleness), (None, None));
        }
    }
}
