//! `causeway explain`: how a statement would be routed, and why. From its text, and with a database
//! from the catalogue that a running proxy would have.

use std::fmt::Write;
use std::time::Duration;

use super::{lists, options};
use crate::config::flags::ExplainFlags;
use crate::config::{Config, MonitorConfig};
use crate::monitor::catalogue::load;
use crate::monitor::control_pool;
use crate::routing::{Guarantees, Level};
use crate::session::preferences::{Preferences, level_name};
use crate::session::profiles::{Applied, Wants};
use crate::sql::{
    self, Catalogue, Class, Classified, Classifier, Effect, Hints, Isolation, PinReason, Scope,
};

/// A node has so long to tell its catalogue.
const LOAD_TIMEOUT: Duration = Duration::from_secs(30);

/// What is known besides the statements themselves.
pub struct Explainer {
    classifier: Classifier,
    scope: Scope,
    preferences: Preferences,
    /// None if there are no profiles.
    profiles: Option<Box<Applied>>,
    /// The names of all profiles, in the order of the file.
    profile_names: Vec<String>,
}

impl Explainer {
    /// For a connection as the flags describe it.
    pub async fn new(config: &Config, flags: &ExplainFlags) -> anyhow::Result<Explainer> {
        let scope = match &flags.database {
            Some(database) => scope(config, database).await?,
            None => Scope::new(),
        };
        let routing = &config.routing;
        let options = options(config, Guarantees::default());
        let database = flags.database.as_deref().unwrap_or_default();
        let mut profiles = options.profiles.of(database, &flags.user);
        if let Some(profiles) = &mut profiles {
            profiles.follow(&flags.application);
        }
        let names = config.profiles.iter().map(|profile| profile.name.clone());
        Ok(Explainer {
            classifier: Classifier::with_lists(routing.statement_cache_size, lists(config)),
            scope,
            preferences: options.preferences,
            profiles,
            profile_names: names.collect(),
        })
    }

    /// Each statement of a script by itself.
    pub fn each(&self, script: &[u8]) -> String {
        let told = sql::statements(script).into_iter().map(|statement| {
            let shown = String::from_utf8_lossy(statement);
            format!("{shown}\n\n{}", self.text(statement))
        });
        told.collect::<Vec<_>>().join("\n")
    }

    /// What one text does as a whole, what it names, and what is wanted of it.
    pub fn text(&self, text: &[u8]) -> String {
        let classified = self.classifier.classify_in(&self.scope, text);
        let mut told = explain(&classified);
        let mut line = |title: &str, names: Vec<String>| {
            if !names.is_empty() {
                // Writing to a String does not fail.
                let _ = writeln!(told, "{title:<12}{}", names.join(", "));
            }
        };
        let names = sql::mentions(text);
        line("relations", names.relations.into_iter().collect());
        line("functions", names.functions.into_iter().collect());
        // Nothing but a read can be answered by a state that is older than the newest.
        if classified.decision.class == Class::Read {
            let (wants, profiles) = self.wants(&classified);
            line("profile", profiles);
            line("level", describe_wants(wants));
        }
        told
    }

    /// What a read gets, and the profiles that have a say in it.
    fn wants(&self, classified: &Classified) -> (Wants, Vec<String>) {
        let tables = &classified.decision.relations;
        let asked = self.preferences.asked(classified.hints.as_deref());
        let Some(profiles) = &self.profiles else {
            return (Wants::level(asked.default), Vec::new());
        };
        let places = profiles.with_a_say(tables).into_iter();
        let names = places.filter_map(|place| self.profile_names.get(place).cloned());
        (profiles.wants(tables, &asked), names.collect())
    }
}

/// The names of `database`, from the first node that tells them; else why none does.
async fn scope(config: &Config, database: &str) -> anyhow::Result<Scope> {
    let settings = MonitorConfig {
        database: database.to_owned(),
        ..config.monitor.clone()
    };
    let mut reasons = String::new();
    for node in &config.nodes {
        let loaded = load(&control_pool(node, &settings)?, LOAD_TIMEOUT).await;
        match loaded {
            Ok(loaded) => {
                let catalogue = Catalogue::new(&loaded.rows, &lists(config));
                return Ok(Scope::with(catalogue));
            }
            // Writing to a String does not fail.
            Err(error) => drop(write!(reasons, "\n{}: {error}", node.name)),
        }
    }
    anyhow::bail!("no node tells the catalogue of {database}{reasons}")
}

fn describe_wants(wants: Wants) -> Vec<String> {
    let Wants {
        level,
        max_wait,
        on_lag,
    } = wants;
    let bound = match level {
        Level::Eventual {
            max_staleness: Some(bound),
        } => Some(format!("not older than {bound:?}")),
        _ => None,
    };
    let told = [
        Some(level_name(level).to_owned()),
        bound,
        max_wait.map(|wait| format!("waits at most {wait:?}")),
        on_lag.map(|on_lag| format!("on lag: {}", format!("{on_lag:?}").to_lowercase())),
    ];
    told.into_iter().flatten().collect()
}

/// What was found out about a text, in words, one line for each part of it.
pub fn explain(classified: &Classified) -> String {
    let decision = &classified.decision;
    let mut lines = String::new();
    let mut line = |name: &str, text: &str| {
        // Writing to a String does not fail.
        let _ = writeln!(lines, "{name:<12}{text}");
    };
    let (class, place) = match decision.class {
        Class::Anywhere => ("anywhere", "any node"),
        Class::Read => ("read", "the nearest replica that is fresh enough"),
        Class::PrimaryRead => ("primary read", "the primary; it writes nothing"),
        Class::Write => ("write", "the primary"),
    };
    line("class", class);
    line("runs on", place);
    line("because", &decision.reason.0);
    if decision.statements != 1 {
        line("statements", &decision.statements.to_string());
    }
    for effect in &decision.effects {
        line("effect", &describe(effect));
    }
    if decision.copies_in {
        line("effect", "may read data from the client (COPY FROM STDIN)");
    }
    if decision.is_ddl {
        line("effect", "changes the catalogue");
    }
    if let Some(hints) = &classified.hints {
        for text in describe_hints(hints) {
            line("comment", &text);
        }
    }
    lines
}

fn describe_hints(hints: &Hints) -> Vec<String> {
    let consistency = hints.consistency.map(|level| {
        let level = format!("{level:?}").to_lowercase();
        format!("asks for the consistency {level}")
    });
    let max_staleness = hints
        .max_staleness
        .map(|bound| format!("accepts a state that is {bound:?} old"));
    let region = hints
        .region
        .as_ref()
        .map(|region| format!("prefers nodes of the region {region}"));
    let errors = hints
        .errors
        .iter()
        .map(|error| format!("not followed: {error}"));
    let asked = consistency.into_iter().chain(max_staleness).chain(region);
    asked.chain(errors).collect()
}

fn describe(effect: &Effect) -> String {
    match effect {
        Effect::Begin(begin) => {
            let mut text = "begins a transaction".to_owned();
            if let Some(read_only) = begin.read_only {
                text.push_str(if read_only {
                    ", read only"
                } else {
                    ", read write"
                });
            }
            if let Some(level) = begin.isolation {
                text.push_str(", ");
                text.push_str(isolation(level));
            }
            text
        }
        Effect::Commit { chain } => chained("commits the transaction", *chain),
        Effect::Rollback { chain } => chained("rolls the transaction back", *chain),
        Effect::Savepoint(name) => format!("sets savepoint {name}"),
        Effect::Release(name) => format!("releases savepoint {name}"),
        Effect::RollbackTo(name) => format!("rolls back to savepoint {name}"),
        Effect::PrepareTransaction => "prepares the transaction for two-phase commit".to_owned(),
        Effect::SetTransaction { read_only } => match read_only {
            Some(true) => "makes the transaction read only".to_owned(),
            Some(false) => "makes the transaction read write".to_owned(),
            None => "changes the transaction's mode".to_owned(),
        },
        Effect::Set { name, value } => match value {
            Some(value) => format!("sets {name} to {value} for the session"),
            None => format!("sets {name} to its default for the session"),
        },
        Effect::SetExactly { name, value } => format!("sets {name} to {value} for the session"),
        Effect::SetGiven { name, parameter } => {
            format!("sets {name} to the value of ${parameter} for the session")
        }
        Effect::SetLocal { name } => format!("sets {name} for the transaction"),
        Effect::ResetLocal(name) => format!("sets {name} to its default for the transaction"),
        Effect::Reset(name) => format!("resets {name}"),
        Effect::ResetAll => "resets all settings".to_owned(),
        Effect::DiscardAll => "discards the session's state".to_owned(),
        Effect::Discard(kind) => format!("discards {}", format!("{kind:?}").to_lowercase()),
        Effect::Prepare(prepare) => format!("prepares the statement {}", prepare.name),
        Effect::Execute(name) => format!("does what the prepared statement {name} does"),
        Effect::Deallocate(Some(name)) => format!("deallocates the prepared statement {name}"),
        Effect::Deallocate(None) => "deallocates all prepared statements".to_owned(),
        Effect::Listen => "listens for notifications".to_owned(),
        Effect::Unlisten { all: true } => "stops listening to all channels".to_owned(),
        Effect::Unlisten { all: false } => "stops listening to a channel".to_owned(),
        Effect::Pin(reason) => format!("pins the session to its server: {}", pin(*reason)),
        Effect::MayCommitSettings => "may commit settings and then fail".to_owned(),
        Effect::MayEndPin => "may end what pins the session".to_owned(),
        Effect::Vacate(database) => format!("wants the database {database} for itself"),
        Effect::Show(name) => format!("shows {name}"),
    }
}

fn pin(reason: PinReason) -> &'static str {
    match reason {
        PinReason::Listen => "it listens",
        PinReason::TemporaryTable => "it has a temporary table",
        PinReason::HoldCursor => "it has a cursor WITH HOLD",
        PinReason::AdvisoryLock => "it holds an advisory lock",
        PinReason::Load => "it loads a library",
        PinReason::SqlPrepare => "it prepares a statement in SQL",
        PinReason::Setting => "a function that it calls makes settings",
        PinReason::Sequence => "it asks what it got from a sequence",
        PinReason::Unknown => "it may change in a way that is not tracked",
    }
}

fn isolation(level: Isolation) -> &'static str {
    match level {
        Isolation::ReadUncommitted => "read uncommitted",
        Isolation::ReadCommitted => "read committed",
        Isolation::RepeatableRead => "repeatable read",
        Isolation::Serializable => "serializable",
    }
}

fn chained(text: &str, chain: bool) -> String {
    let more = if chain { " and begins the next" } else { "" };
    format!("{text}{more}")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::config;
    use crate::config::flags::{Cli, Command};

    fn told(sql: &str) -> Vec<String> {
        let classifier = Classifier::new(1 << 20, &["my_read".to_owned()]);
        explain(&classifier.classify(sql.as_bytes()))
            .lines()
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn class_place_and_reason_are_told() {
        for (sql, class, place) in [
            ("SHOW work_mem", "anywhere", "any node"),
            (
                "SELECT my_read(1)",
                "read",
                "the nearest replica that is fresh enough",
            ),
            (
                "SELECT pg_is_in_recovery()",
                "primary read",
                "the primary; it writes nothing",
            ),
            ("UPDATE t SET a = 1", "write", "the primary"),
        ] {
            let told = told(sql);
            assert_eq!(told[0], format!("class       {class}"), "{sql}");
            assert_eq!(told[1], format!("runs on     {place}"), "{sql}");
            assert!(told[2].starts_with("because     "), "{sql}: {told:?}");
            assert!(told[2].len() > 12, "{sql}: {told:?}");
        }
    }

    async fn explainer(profiles: &str, flags: &[&str]) -> Explainer {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("proxy.toml");
        let nodes = "[[nodes]]\nhost = \"127.0.0.1\"\nsslmode = \"disable\"\n\
                     [[users]]\nname = \"app\"\npassword = \"secret\"\n";
        std::fs::write(&file, format!("{nodes}{profiles}")).unwrap();
        let flags = ["causeway", "explain", "--config"]
            .into_iter()
            .chain([file.to_str().unwrap(), "SELECT 1"])
            .chain(flags.iter().copied());
        let Command::Explain(flags) = Cli::parse_from(flags).command else {
            panic!("another command");
        };
        let config = config::load(&flags.to_serve_flags()).unwrap();
        Explainer::new(&config, &flags).await.unwrap()
    }

    #[tokio::test]
    async fn a_script_is_told_statement_by_statement() {
        let script = b"SELECT lower(a) FROM t;\n-- writes\nINSERT INTO u VALUES (1);";
        let told = explainer("", &[]).await.each(script);
        let parts: Vec<&str> = told.split("\n\n").collect();
        assert_eq!(parts[0], "SELECT lower(a) FROM t");
        assert!(parts[1].starts_with("class       read\n"), "{told}");
        assert!(
            parts[1].ends_with("relations   t\nfunctions   lower\nlevel       session"),
            "{told}"
        );
        assert_eq!(parts[2], "INSERT INTO u VALUES (1)");
        assert!(parts[3].starts_with("class       write\n"), "{told}");
        assert!(!parts[3].contains("level"), "{told}");
    }

    #[tokio::test]
    async fn profiles_that_apply_are_told() {
        let profiles = "\
            [[profiles]]\nname = \"stock\"\ntables = [\"stock\", \"stock_*\"]\n\
            consistency = \"eventual\"\nmax_staleness = \"5s\"\nmax_wait = \"2s\"\non_lag = \"wait\"\n\
            [[profiles]]\nname = \"reports\"\nusers = [\"reporter\"]\n\
            applications = [\"cron*\"]\nconsistency = \"eventual\"\n\
            [[profiles]]\nname = \"ledger\"\ntables = [\"ledger\"]\nenforced = true\n\
            consistency = \"strong\"\n";
        let nobody = explainer(profiles, &[]).await;
        let reporter =
            explainer(profiles, &["--user", "reporter", "--application", "cron-1"]).await;
        let stock =
            "stock\nlevel       eventual, not older than 5s, waits at most 2s, on lag: wait";
        let table = [
            (
                &nobody,
                "SELECT * FROM stock_eu",
                format!("profile     {stock}\n"),
            ),
            (
                &nobody,
                "SELECT * FROM t",
                "relations   t\nlevel       session\n".to_owned(),
            ),
            (
                &reporter,
                "SELECT * FROM t",
                "profile     reports\nlevel       eventual\n".to_owned(),
            ),
            (
                &nobody,
                "SELECT * FROM stock, ledger",
                "profile     stock, ledger\nlevel       strong\n".to_owned(),
            ),
            (
                &nobody,
                "SELECT * FROM ledger /* causeway.consistency='eventual' */",
                "profile     ledger\nlevel       strong\n".to_owned(),
            ),
        ];
        for (explainer, sql, expected) in table {
            let told = explainer.text(sql.as_bytes());
            assert!(told.ends_with(&expected), "{sql}: {told}");
        }
    }

    #[test]
    fn effects_are_listed_in_their_order() {
        let told = told(
            "BEGIN READ ONLY ISOLATION LEVEL REPEATABLE READ; SET work_mem = '1MB'; \
             SAVEPOINT a; ROLLBACK TO a; COMMIT AND CHAIN; LISTEN c; CREATE TABLE t (); COPY t FROM STDIN",
        );
        assert_eq!(
            told[3..],
            [
                "statements  8",
                "effect      begins a transaction, read only, repeatable read",
                "effect      sets work_mem to '1MB' for the session",
                "effect      sets savepoint a",
                "effect      rolls back to savepoint a",
                "effect      commits the transaction and begins the next",
                "effect      pins the session to its server: it listens",
                "effect      listens for notifications",
                "effect      may read data from the client (COPY FROM STDIN)",
                "effect      changes the catalogue",
            ]
        );
    }

    #[test]
    fn comments_are_told_with_what_is_wrong_in_them() {
        let told = told(
            "SELECT 1 /* causeway.consistency='eventual', causeway.max_staleness='5s', \
             causeway.region='eu', causeway.colour='red' */",
        );
        assert_eq!(
            told[3..],
            [
                "comment     asks for the consistency eventual",
                "comment     accepts a state that is 5s old",
                "comment     prefers nodes of the region eu",
                "comment     not followed: causeway.colour is not known in a comment",
            ]
        );
    }
}
