//! The end of a log-in: a client's start-up settings are tried on a server, so that what is wrong
//! with them comes out at once, and the client learns the parameters as PostgreSQL would report
//! them. Clients with the same settings share the answer.

use std::sync::Arc;

use super::preferences::{self, PREFIX};
use super::profiles::Applied;
use super::route::{nearest_up, no_primary};
use super::tokens;
use super::{Registration, Services};
use crate::monitor::Names;
use crate::net::Wire;
use crate::pool::{CheckoutError, Group, Lent, Told};
use crate::protocol::error::{Fault, Severity, SqlState};
use crate::protocol::message::{self, TransactionStatus};
use crate::protocol::startup::{Startup, option_settings};
use crate::routing::{Floor, NodeSet, Role};
use crate::server::settings::quoted;
use crate::server::{DialError, Reported, RunError, Settings};
use crate::sql::is_quoted_list;

/// What a session begins with.
pub struct Welcome {
    pub(super) settings: Settings,
    pub(super) wishes: Settings,
    pub(super) reported: Reported,
    /// The position that it brings along.
    pub(super) floor: Floor,
    pub(super) profiles: Option<Box<Applied>>,
    pub(super) names: Names,
}

/// Prepares a client's session and puts the end of its log-in into the output: parameters, cancel
/// key, ready.
pub async fn welcome(
    services: &Services,
    group: &Arc<Group>,
    startup: &Startup,
    cancel: &Registration,
    client: &mut Wire,
) -> Result<Welcome, Fault> {
    let (settings, wishes) = startup_settings(startup)?;
    let mut floor = match preferences::token(&wishes) {
        Some(token) => tokens::accept(services, &token)
            .await
            .map_err(Fault::into_fatal)?,
        None => Floor::default(),
    };
    if let Some(time) = preferences::write_time(&wishes) {
        let other = tokens::accept_time(services, time).map_err(Fault::into_fatal)?;
        floor.merge(&other);
    }
    let Told {
        settings,
        reported,
        notices,
    } = match group.told(&settings) {
        Some(told) => told,
        None => {
            let told = try_settings(services, group, settings).await?;
            group.remember(told.clone());
            told
        }
    };
    if let Some(primary) = services.feed.topology().primary {
        group.pool(primary).warm();
    }
    // A server has been logged in to it: the database exists.
    let names = services.catalogues.of(database(startup)).await;
    let mut out = notices.to_vec();
    for (name, value) in reported.iter() {
        message::put_parameter_status(&mut out, name, value);
    }
    message::put_backend_key_data(&mut out, cancel.pid(), cancel.secret(startup.minor));
    message::put_ready_for_query(&mut out, TransactionStatus::Idle);
    client.output.extend(&out);
    Ok(Welcome {
        settings,
        wishes,
        reported,
        floor,
        profiles: profiles(services, startup),
        names,
    })
}

fn profiles(services: &Services, startup: &Startup) -> Option<Box<Applied>> {
    let user = startup.parameter("user").unwrap_or_default();
    services.options.profiles.of(database(startup), user)
}

/// As PostgreSQL, the user's name where none is given.
fn database(startup: &Startup) -> &str {
    let given = |name| startup.parameter(name).filter(|value| !value.is_empty());
    given("database").or(given("user")).unwrap_or_default()
}

/// The settings of a start-up message, ours apart. Those in `options` come first, wherever that stands: what is
/// named by itself overrides them.
fn startup_settings(startup: &Startup) -> Result<(Settings, Settings), Fault> {
    let parameters = &startup.parameters;
    let mut pairs = match parameters.iter().rfind(|(name, _)| name == "options") {
        None => Vec::new(),
        Some((_, options)) => option_settings(options).map_err(|word| {
            let message = format!("invalid command-line argument for server process: {word}");
            Fault::fatal(SqlState::SYNTAX_ERROR, message)
        })?,
    };
    let no_settings = ["user", "database", "replication", "options"];
    let named = |(name, _): &&(String, String)| !no_settings.contains(&name.as_str());
    pairs.extend(parameters.iter().filter(named).cloned());
    let (mut settings, mut wishes) = (Settings::default(), Settings::default());
    for (name, value) in pairs {
        let name = name.to_ascii_lowercase();
        if name.starts_with(PREFIX) {
            let value = quoted(&value);
            preferences::check(&name, Some(&value)).map_err(Fault::into_fatal)?;
            wishes.set(&name, &value);
        } else if is_quoted_list(&name) {
            settings.set_exactly(&name, &value);
        } else {
            settings.set(&name, &quoted(&value));
        }
    }
    Ok((settings, wishes))
}

/// Applies the settings to a server of the nearest node and gives what it says and reports then.
async fn try_settings(
    services: &Services,
    group: &Group,
    settings: Settings,
) -> Result<Told, Fault> {
    let (server, role) = nearest_server(services, group, &settings).await?;
    let primary = services.feed.topology().primary;
    let outcome = match (apply(server, &settings).await, role, primary) {
        // It may not have a role yet that the primary has.
        (Err(RunError::Refused { .. }), Role::Replica, Some(primary)) => {
            let server = group.pool(primary).checkout(&settings).await;
            apply(server.map_err(|error| no_server(&error))?, &settings).await
        }
        (outcome, ..) => outcome,
    };
    let (reported, notices) = outcome.map_err(|error| match error {
        RunError::Refused { code, message } => Fault::verbatim(Severity::Fatal, code, message),
        other => Fault::fatal(SqlState::CONNECTION_FAILURE, other.to_string()),
    })?;
    Ok(Told {
        settings,
        reported,
        notices: notices.into(),
    })
}

async fn apply(mut server: Lent, settings: &Settings) -> Result<(Reported, Vec<u8>), RunError> {
    let mut notices = Vec::new();
    // Whoever it has worked for last may have set something that nobody has seen.
    let difference = match server.tampered.take() {
        Some(_) => Some(settings.statements_from_anything()),
        None => server.settings.statements_to(settings),
    };
    if let Some(difference) = difference {
        match server.run(&format!("BEGIN;{difference}COMMIT")).await {
            Ok(said) => notices = said,
            Err(error) => {
                server.discard();
                return Err(error);
            }
        }
        server.settings = settings.clone();
    }
    Ok((server.reported.as_seen_by_clients(), notices))
}

/// A server of the nearest node that gives one.
async fn nearest_server(
    services: &Services,
    group: &Group,
    settings: &Settings,
) -> Result<(Lent, Role), Fault> {
    let mut exclude = NodeSet::EMPTY;
    let mut refusal = None;
    loop {
        let nearest = nearest_up(&services.feed.topology(), exclude, group);
        let (node, role) = match (nearest, refusal) {
            (Some(nearest), _) => nearest,
            (None, Some(fault)) => return Err(fault),
            (None, None) => {
                let patience = services.options.failover_wait;
                let primary = services.feed.primary_within(patience).await;
                let primary =
                    primary.ok_or_else(|| no_primary(&services.feed.topology()).into_fatal())?;
                (primary, Role::Primary)
            }
        };
        let error = match group.pool(node).checkout(settings).await {
            Ok(server) => return Ok((server, role)),
            Err(error) => error,
        };
        match (&error, role) {
            (CheckoutError::Dial(dial), _) if dial.is_of_the_node() => services.feed.suspect(node),
            // It may not have the user or the database yet.
            (CheckoutError::Dial(_), Role::Replica) => {}
            _ => return Err(no_server(&error)),
        }
        exclude = exclude.with(node);
        refusal = Some(no_server(&error));
    }
}

fn no_server(error: &CheckoutError) -> Fault {
    match error {
        CheckoutError::Timeout(limit) => Fault::fatal(
            SqlState::TOO_MANY_CONNECTIONS,
            format!("no server became free within {limit:?}"),
        ),
        CheckoutError::Dial(error) => log_in_failed(error),
    }
}

/// A log-in that a server refuses is refused in the server's own words.
pub fn log_in_failed(error: &DialError) -> Fault {
    match error {
        DialError::Refused { code, message, .. } => {
            let message = String::from_utf8_lossy(message);
            Fault::verbatim(Severity::Fatal, *code, message)
        }
        other => Fault::fatal(SqlState::CONNECTION_FAILURE, other.to_string()),
    }
}
