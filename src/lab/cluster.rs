//! Making the data directories: one `initdb`, then copies that start as streaming replicas.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::programs::Programs;
use super::{APP_DATABASE, APP_USER, LabError, MONITOR_USER, PASSWORD, SUPERUSER};

pub(super) const REPLICATION_USER: &str = "replicator";

/// What the owner asked for beyond the defaults.
#[derive(Clone, Debug, Default)]
pub(super) struct Extras {
    pub(super) settings: Vec<String>,
    pub(super) access_rules: Vec<String>,
    pub(super) tls: Option<TlsFiles>,
}

/// The servers' certificate and key, PEM.
#[derive(Clone, Debug)]
pub(super) struct TlsFiles {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

/// What only one node has.
pub(super) struct Identity<'a> {
    pub(super) name: &'a str,
    pub(super) port: u16,
    /// The port where the node finds the WAL that it replays; none for the primary.
    pub(super) wal_port: Option<u16>,
}

/// Durability against a crash of the machine is off, everything else that a client could notice
/// is as PostgreSQL delivers it. `hot_standby_feedback` stays off so that conflicts can be tested.
const SETTINGS: &str = "
listen_addresses = '127.0.0.1'
max_connections = 200
fsync = off
full_page_writes = off
wal_level = logical
wal_keep_size = '512MB'
max_wal_senders = 20
max_replication_slots = 20
max_prepared_transactions = 10
wal_sender_timeout = '10s'
wal_receiver_status_interval = '1s'
wal_retrieve_retry_interval = '100ms'
hot_standby = on
max_standby_streaming_delay = '2s'
log_line_prefix = '%m [%p] %q%a '
include = 'node.conf'
";

/// Initialises `data` and creates the roles and the database, without ever starting a server.
pub(super) async fn initialise(
    programs: &Programs,
    base: &Path,
    data: &Path,
) -> Result<(), LabError> {
    let password_file = base.join("password");
    write(&password_file, PASSWORD)?;
    programs.give(&password_file)?;
    let arguments = [
        "--no-sync",
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--locale=C",
        &format!("--username={SUPERUSER}"),
        &format!("--pwfile={}", password_file.display()),
        &format!("--pgdata={}", data.display()),
    ];
    programs.run("initdb", base, &arguments, "").await?;
    create_contents(programs, data).await
}

/// Writes what all nodes of a lab have in common, before the first start.
pub(super) fn configure(
    programs: &Programs,
    base: &Path,
    data: &Path,
    extras: &Extras,
) -> Result<(), LabError> {
    let mut settings = String::from(SETTINGS);
    settings += &format!("unix_socket_directories = '{}'\n", base.display());
    if programs.has_module("pg_stat_statements") {
        settings += "shared_preload_libraries = 'pg_stat_statements'\n";
    }
    if let Some(tls) = &extras.tls {
        settings += "ssl = on\n";
        for (source, name) in [(&tls.certificate, "server.crt"), (&tls.key, "server.key")] {
            let file = data.join(name);
            fs::copy(source, &file)
                .and_then(|_| fs::set_permissions(&file, fs::Permissions::from_mode(0o600)))
                .map_err(|error| {
                    LabError::io(format!("cannot copy {}", source.display()), error)
                })?;
            programs.give(&file)?;
        }
    }
    for line in &extras.settings {
        settings += line;
        settings.push('\n');
    }
    let file = data.join("postgresql.conf");
    let generated = fs::read_to_string(&file)
        .map_err(|error| LabError::io(format!("cannot read {}", file.display()), error))?;
    write(&file, &(generated + &settings))?;
    let node_file = data.join("node.conf");
    write(&node_file, "")?;
    programs.give(&node_file)?;

    let mut rules = extras.access_rules.join("\n");
    rules += &format!(
        "
local all         all                               scram-sha-256
host  all         all                 127.0.0.1/32  scram-sha-256
host  replication {REPLICATION_USER}  127.0.0.1/32  scram-sha-256
local replication {REPLICATION_USER}                scram-sha-256
"
    );
    write(&data.join("pg_hba.conf"), &rules)
}

/// Gives a data directory its name, its port and, for a replica, its source of WAL.
pub(super) fn identify(
    programs: &Programs,
    data: &Path,
    identity: &Identity,
) -> Result<(), LabError> {
    let Identity { name, port, .. } = identity;
    let mut settings = format!("cluster_name = '{name}'\nport = {port}\n");
    if let Some(wal_port) = identity.wal_port {
        settings += &format!(
            "primary_conninfo = 'host=127.0.0.1 port={wal_port} user={REPLICATION_USER} \
             password={PASSWORD} application_name={name}'\n"
        );
        let signal = data.join("standby.signal");
        write(&signal, "")?;
        programs.give(&signal)?;
    }
    let file = data.join("node.conf");
    write(&file, &settings)?;
    programs.give(&file)
}

/// Single-user mode takes one command per line.
async fn create_contents(programs: &Programs, data: &Path) -> Result<(), LabError> {
    let mut commands = format!(
        "CREATE ROLE {APP_USER} LOGIN PASSWORD '{PASSWORD}'\n\
         CREATE ROLE {MONITOR_USER} LOGIN PASSWORD '{PASSWORD}' IN ROLE pg_monitor\n\
         CREATE ROLE {REPLICATION_USER} LOGIN REPLICATION PASSWORD '{PASSWORD}'\n"
    );
    if programs.has_module("pg_stat_statements") {
        commands += "CREATE EXTENSION pg_stat_statements\n";
    }
    commands += &format!("CREATE DATABASE {APP_DATABASE} OWNER {APP_USER}\n");
    let data_argument = data.display().to_string();
    let arguments = [
        "--single",
        "-D",
        &data_argument,
        "-c",
        "exit_on_error=on",
        "template1",
    ];
    programs.run("postgres", data, &arguments, &commands).await
}

fn write(file: &Path, text: &str) -> Result<(), LabError> {
    fs::write(file, text)
        .map_err(|error| LabError::io(format!("cannot write {}", file.display()), error))
}
