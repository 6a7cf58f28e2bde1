//! The `causeway.*` settings of a session: what it wants of its reads.

use std::sync::Arc;
use std::time::Duration;

use crate::protocol::error::{Fault, SqlState};
use crate::routing::Level;
use crate::server::Settings;
use crate::sql::{self, Effect};

/// All settings of ours begin with it; on a plain PostgreSQL they are valid placeholders.
pub const PREFIX: &str = "causeway.";

const CONSISTENCY: &str = "causeway.consistency";
const MAX_STALENESS: &str = "causeway.max_staleness";
const REGION: &str = "causeway.region";

/// What a session wants of its reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preferences {
    pub level: Level,
    /// The bound for `eventual`, kept while another level is set.
    max_staleness: Option<Duration>,
    pub region: Option<Arc<str>>,
}

impl Preferences {
    pub fn new(level: Level, max_staleness: Option<Duration>, region: Option<Arc<str>>) -> Self {
        let mut preferences = Preferences {
            level,
            max_staleness,
            region,
        };
        preferences.bound();
        preferences
    }

    /// These defaults with a session's settings over them. The settings have been
    /// [checked](check); one that is not valid all the same changes nothing.
    pub fn with(&self, settings: &Settings) -> Preferences {
        let mut preferences = self.clone();
        for (name, value) in settings.iter() {
            let value = unquoted(value);
            match name {
                CONSISTENCY => {
                    if let Some(level) = level(&value) {
                        preferences.level = level;
                    }
                }
                MAX_STALENESS => preferences.max_staleness = duration(&value).ok(),
                REGION => preferences.region = (!value.is_empty()).then(|| value.into()),
                _ => {}
            }
        }
        preferences.bound();
        preferences
    }

    /// Becomes `defaults` with `settings` over them, if that is a change.
    pub fn follow(&mut self, defaults: &Preferences, settings: &Settings) {
        if *settings != Settings::default() || *self != *defaults {
            *self = defaults.with(settings);
        }
    }

    /// These with a comment's hints over them.
    pub fn hinted(&self, hints: &sql::Hints) -> Level {
        let max_staleness = hints.max_staleness.or(self.max_staleness);
        match hints.consistency {
            Some(sql::Level::Strong) => Level::Strong,
            // Without tokens and keys, what one connection has written and seen is all there is.
            Some(sql::Level::Session | sql::Level::Causal) => Level::Session,
            Some(sql::Level::Eventual) => Level::Eventual { max_staleness },
            None => match self.level {
                Level::Eventual { .. } => Level::Eventual { max_staleness },
                level => level,
            },
        }
    }

    /// What `SHOW name` answers.
    pub fn show(&self, name: &str) -> Option<String> {
        match name {
            CONSISTENCY => Some(level_name(self.level).to_owned()),
            MAX_STALENESS => Some(match self.max_staleness {
                Some(bound) => humantime::format_duration(bound).to_string(),
                None => "unbounded".to_owned(),
            }),
            REGION => Some(self.region.as_deref().unwrap_or_default().to_owned()),
            _ => None,
        }
    }

    fn bound(&mut self) {
        if let Level::Eventual { max_staleness } = &mut self.level {
            *max_staleness = self.max_staleness;
        }
    }
}

pub fn level_name(level: Level) -> &'static str {
    match level {
        Level::Strong => "strong",
        Level::Session => "session",
        Level::Eventual { .. } => "eventual",
    }
}

/// Of two levels the one that promises more.
pub fn stricter(left: Level, right: Level) -> Level {
    let rank = |level: &Level| match level {
        Level::Strong => (0, Duration::ZERO),
        Level::Session => (1, Duration::ZERO),
        Level::Eventual { max_staleness } => (2, max_staleness.unwrap_or(Duration::MAX)),
    };
    if rank(&left) <= rank(&right) {
        left
    } else {
        right
    }
}

/// The level that `effect` asks for, for what follows it in the same run.
pub fn level_asked_for(effect: &Effect, defaults: &Preferences) -> Option<Level> {
    match effect {
        Effect::Set { name, value } if **name == *CONSISTENCY => match value {
            Some(value) => level(&unquoted(value)),
            None => Some(defaults.level),
        },
        Effect::Reset(name) if **name == *CONSISTENCY => Some(defaults.level),
        Effect::ResetAll | Effect::DiscardAll => Some(defaults.level),
        _ => None,
    }
}

/// Whether `SET name TO value` makes sense; `value` is SQL text, none is DEFAULT.
pub fn check(name: &str, value: Option<&str>) -> Result<(), Fault> {
    let Some(value) = value.map(unquoted) else {
        return known(name);
    };
    let invalid = |hint: String| {
        let message = format!("invalid value for parameter \"{name}\": \"{value}\"");
        Err(Fault::error(SqlState::INVALID_PARAMETER_VALUE, message).with_hint(hint))
    };
    match name {
        CONSISTENCY if level(&value).is_none() => {
            invalid("Available values: strong, session, eventual.".to_owned())
        }
        MAX_STALENESS => match duration(&value) {
            Ok(_) => Ok(()),
            Err(error) => invalid(format!("A duration such as 500ms, 5s or 2min: {error}.")),
        },
        _ => known(name),
    }
}

fn known(name: &str) -> Result<(), Fault> {
    if [CONSISTENCY, MAX_STALENESS, REGION].contains(&name) {
        return Ok(());
    }
    let message = format!("unrecognized configuration parameter \"{name}\"");
    let hint = format!("Known are {CONSISTENCY}, {MAX_STALENESS} and {REGION}.");
    Err(Fault::error(SqlState::UNDEFINED_OBJECT, message).with_hint(hint))
}

fn level(value: &str) -> Option<Level> {
    match value.to_ascii_lowercase().as_str() {
        "strong" => Some(Level::Strong),
        "session" => Some(Level::Session),
        "eventual" => Some(Level::Eventual {
            max_staleness: None,
        }),
        _ => None,
    }
}

fn duration(value: &str) -> Result<Duration, humantime::DurationError> {
    humantime::parse_duration(value)
}

/// The text of an SQL constant as it stands behind `SET name TO`.
fn unquoted(sql: &str) -> String {
    let trimmed = sql.trim();
    let escaped = trimmed.starts_with(['e', 'E']) && trimmed[1..].starts_with('\'');
    let body = if escaped { &trimmed[1..] } else { trimmed };
    match body
        .strip_prefix('\'')
        .and_then(|body| body.strip_suffix('\''))
    {
        Some(inner) if escaped => inner.replace("''", "'").replace("\\\\", "\\"),
        Some(inner) => inner.replace("''", "'"),
        None => trimmed.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked_before_they_are_set() {
        let good = [
            (CONSISTENCY, "'strong'"),
            (CONSISTENCY, "Eventual"),
            (MAX_STALENESS, "'5s'"),
            (MAX_STALENESS, "E'2min'"),
            (REGION, "'eu-west'"),
        ];
        for (name, value) in good {
            assert_eq!(check(name, Some(value)), Ok(()), "{name} {value}");
        }
        let bad = [
            (CONSISTENCY, "'weak'"),
            (MAX_STALENESS, "'soon'"),
            ("causeway.x", "'1'"),
        ];
        for (name, value) in bad {
            assert!(check(name, Some(value)).is_err(), "{name} {value}");
        }
    }

    #[test]
    fn a_session_s_settings_stand_over_the_defaults() {
        let defaults = Preferences::new(Level::Session, None, Some("us".into()));
        let mut settings = Settings::default();
        settings.set(MAX_STALENESS, "'5s'");
        assert_eq!(defaults.with(&settings).level, Level::Session);
        settings.set(CONSISTENCY, "'eventual'");
        let bound = Some(Duration::from_secs(5));
        assert_eq!(
            defaults.with(&settings).level,
            Level::Eventual {
                max_staleness: bound
            }
        );
        assert_eq!(
            defaults.with(&settings).show(MAX_STALENESS).as_deref(),
            Some("5s")
        );
    }

    #[test]
    fn the_stricter_level_wins() {
        let eventual = |seconds| Level::Eventual {
            max_staleness: Some(Duration::from_secs(seconds)),
        };
        let order = [
            Level::Strong,
            Level::Session,
            eventual(1),
            eventual(2),
            Level::Eventual {
                max_staleness: None,
            },
        ];
        for (place, strict) in order.iter().enumerate() {
            for lax in &order[place..] {
                assert_eq!(stricter(*strict, *lax), *strict);
                assert_eq!(stricter(*lax, *strict), *strict);
            }
        }
    }
}
