//! The `causeway.*` settings of a session: what it wants of its reads.

use std::sync::Arc;
use std::time::Duration;

use super::explained::ExplainRouting;
use super::keys::MAX_KEY;
use super::profiles::Asked;
use super::report::Report;
use super::tokens::{LAST_WRITE, TOKEN};
use crate::protocol::error::{Fault, SqlState};
use crate::routing::{Level, UnixMillis};
use crate::server::Settings;
use crate::sql::{self, Effect};

/// All settings of ours begin with it; on a plain PostgreSQL they are valid placeholders.
pub const PREFIX: &str = "causeway.";

pub const CONSISTENCY: &str = "causeway.consistency";
const MAX_STALENESS: &str = "causeway.max_staleness";
const REGION: &str = "causeway.region";
const REPORT: &str = "causeway.report";
const SESSION_KEY: &str = "causeway.session_key";
const EXPLAIN_ROUTING: &str = "causeway.explain_routing";

/// What can be set.
const KNOWN: [&str; 8] = [
    CONSISTENCY,
    MAX_STALENESS,
    TOKEN,
    LAST_WRITE,
    SESSION_KEY,
    REGION,
    REPORT,
    EXPLAIN_ROUTING,
];

/// What a session wants of its reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preferences {
    pub level: Level,
    /// The bound for `eventual`, kept while another level is set.
    max_staleness: Option<Duration>,
    pub region: Option<Arc<str>>,
    pub report: Report,
    pub explain_routing: ExplainRouting,
    /// Ties the session to others with the same.
    pub session_key: Option<Arc<str>>,
    /// What the session itself has set, which comes before profiles.
    own_level: Option<Level>,
    own_staleness: Option<Duration>,
}

impl Preferences {
    pub fn new(level: Level, max_staleness: Option<Duration>, region: Option<Arc<str>>) -> Self {
        let mut preferences = Preferences {
            level,
            max_staleness,
            region,
            report: Report::Off,
            explain_routing: ExplainRouting::Off,
            session_key: None,
            own_level: None,
            own_staleness: None,
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
                        preferences.own_level = Some(level);
                    }
                }
                MAX_STALENESS => {
                    preferences.own_staleness = duration(&value).ok();
                    preferences.max_staleness = preferences.own_staleness;
                }
                REGION => preferences.region = (!value.is_empty()).then(|| value.into()),
                SESSION_KEY => {
                    preferences.session_key = (!value.is_empty()).then(|| value.into());
                }
                REPORT => {
                    preferences.report = match switch(&value) {
                        Some(true) => Report::On,
                        _ => Report::Off,
                    };
                }
                EXPLAIN_ROUTING => {
                    preferences.explain_routing = match switch(&value) {
                        Some(true) => ExplainRouting::On,
                        _ => ExplainRouting::Off,
                    };
                }
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

    /// What a statement asks for, with its comment's hints.
    pub fn asked(&self, hints: Option<&sql::Hints>) -> Asked {
        let level = self.level_with(hints);
        let hinted = hints.is_some_and(|hints| hints.consistency.is_some());
        let is_own = hinted || self.own_level.is_some();
        let max_staleness = hints.and_then(|hints| hints.max_staleness);
        Asked {
            level: is_own.then_some(level),
            max_staleness: max_staleness.or(self.own_staleness),
            default: level,
        }
    }

    fn level_with(&self, hints: Option<&sql::Hints>) -> Level {
        let Some(hints) = hints else {
            return self.level;
        };
        let max_staleness = hints.max_staleness.or(self.max_staleness);
        match hints.consistency {
            Some(sql::Level::Strong) => Level::Strong,
            Some(sql::Level::Session) => Level::Session,
            Some(sql::Level::Causal) => Level::Causal,
            Some(sql::Level::Eventual) => Level::Eventual { max_staleness },
            None => match self.level {
                Level::Eventual { .. } => Level::Eventual { max_staleness },
                level => level,
            },
        }
    }

    /// What `SHOW name` answers, but for the level: profiles have a say in that.
    pub fn show(&self, name: &str) -> Option<String> {
        match name {
            MAX_STALENESS => Some(match self.max_staleness {
                Some(bound) => humantime::format_duration(bound).to_string(),
                None => "unbounded".to_owned(),
            }),
            REGION => Some(self.region.as_deref().unwrap_or_default().to_owned()),
            SESSION_KEY => Some(self.session_key.as_deref().unwrap_or_default().to_owned()),
            REPORT => Some(match self.report {
                Report::On => "on".to_owned(),
                Report::Off => "off".to_owned(),
            }),
            EXPLAIN_ROUTING => Some(match self.explain_routing {
                ExplainRouting::On => "on".to_owned(),
                ExplainRouting::Off => "off".to_owned(),
            }),
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
        Level::Causal => "causal",
        Level::Eventual { .. } => "eventual",
    }
}

/// Of two levels the one that promises more.
pub fn stricter(left: Level, right: Level) -> Level {
    let rank = |level: &Level| match level {
        Level::Strong => (0, Duration::ZERO),
        Level::Causal => (1, Duration::ZERO),
        Level::Session => (2, Duration::ZERO),
        Level::Eventual { max_staleness } => (3, max_staleness.unwrap_or(Duration::MAX)),
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
            invalid("Available values: strong, session, causal, eventual.".to_owned())
        }
        MAX_STALENESS => match duration(&value) {
            Ok(_) => Ok(()),
            Err(error) => invalid(format!("A duration such as 500ms, 5s or 2min: {error}.")),
        },
        LAST_WRITE if !value.is_empty() && timestamp(&value).is_none() => {
            invalid("Milliseconds since 1970, such as 1764000000000.".to_owned())
        }
        SESSION_KEY if value.len() > MAX_KEY => invalid(format!("At most {MAX_KEY} bytes.")),
        REPORT | EXPLAIN_ROUTING if switch(&value).is_none() => {
            invalid("Available values: on, off.".to_owned())
        }
        _ => known(name),
    }
}

/// The token among a session's settings.
pub fn token(settings: &Settings) -> Option<String> {
    presented(TOKEN, settings.get(TOKEN))
}

/// The token that `SET name TO value` presents. An empty one is none: nobody has given the
/// application one yet.
pub fn presented(name: &str, value: Option<&str>) -> Option<String> {
    let token = value.filter(|_| name == TOKEN).map(unquoted)?;
    (!token.is_empty()).then_some(token)
}

fn known(name: &str) -> Result<(), Fault> {
    if KNOWN.contains(&name) {
        return Ok(());
    }
    let message = format!("unrecognized configuration parameter \"{name}\"");
    let hint = format!("Known are {}.", KNOWN.join(", "));
    Err(Fault::error(SqlState::UNDEFINED_OBJECT, message).with_hint(hint))
}

fn level(value: &str) -> Option<Level> {
    match value.to_ascii_lowercase().as_str() {
        "strong" => Some(Level::Strong),
        "session" => Some(Level::Session),
        "causal" => Some(Level::Causal),
        "eventual" => Some(Level::Eventual {
            max_staleness: None,
        }),
        _ => None,
    }
}

/// The time of a write among a session's settings.
pub fn write_time(settings: &Settings) -> Option<UnixMillis> {
    presented_time(LAST_WRITE, settings.get(LAST_WRITE))
}

/// The time of a write that `SET name TO value` presents.
pub fn presented_time(name: &str, value: Option<&str>) -> Option<UnixMillis> {
    let value = value.filter(|_| name == LAST_WRITE).map(unquoted)?;
    timestamp(&value)
}

/// Zero is never: no write that matters was made then.
fn timestamp(value: &str) -> Option<UnixMillis> {
    value.trim().parse().ok().map(UnixMillis)
}

/// On or off.
fn switch(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "on" | "true" | "yes" | "1" => Some(true),
        "off" | "false" | "no" | "0" => Some(false),
        _ => None,
    }
}

fn duration(value: &str) -> Result<Duration, humantime::DurationError> {
    humantime::parse_duration(value)
}

/// The text of an SQL constant as it stands behind `SET name TO`.
pub(super) fn unquoted(sql: &str) -> String {
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
            (CONSISTENCY, "'causal'"),
            (TOKEN, "'whatever: the cluster judges it'"),
            (LAST_WRITE, "'1764000000000'"),
            (LAST_WRITE, "''"),
            (REPORT, "on"),
            (REPORT, "'False'"),
            (EXPLAIN_ROUTING, "ON"),
        ];
        for (name, value) in good {
            assert_eq!(check(name, Some(value)), Ok(()), "{name} {value}");
        }
        let bad = [
            (CONSISTENCY, "'weak'"),
            (MAX_STALENESS, "'soon'"),
            (REPORT, "'perhaps'"),
            (EXPLAIN_ROUTING, "'json'"),
            (LAST_WRITE, "'yesterday'"),
            (LAST_WRITE, "-1"),
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
            Level::Causal,
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
