//! `proxy.toml`. Which settings there are, and what kind of value each takes; the rules between them
//! are in `validate`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeTable;
use zeroize::Zeroizing;

use super::origin::{ConfigError, Origin, Origins};
use super::section::{Reader, Section, Value};
use super::words;
use super::{
    CausalConfig, ClientConfig, ClientTls, Config, KeyStoreConfig, LogConfig, MonitorConfig,
    NodeConfig, PoolConfig, ProfileConfig, RoutingConfig, Secret, UserConfig,
};

pub use super::section::Environment;

/// What a file says, over the defaults.
pub struct FileConfig {
    pub config: Config,
    pub origins: Origins,
    /// Empty if the file could be read as it stands.
    pub errors: Vec<ConfigError>,
    /// Every setting that exists in the sections that the file has.
    pub known: BTreeSet<String>,
}

/// Reads a file's text. `path` is for messages, and for the paths in the file, which are relative to it.
pub fn read(path: &Path, text: &str, environment: Environment<'_>) -> FileConfig {
    let mut reader = Reader {
        path: path.into(),
        text,
        environment,
        origins: Origins::default(),
        errors: Vec::new(),
        known: BTreeSet::new(),
    };
    let (document, syntax_errors) = DeTable::parse_recoverable(text);
    for error in &syntax_errors {
        let origin = match error.span() {
            Some(span) => reader.line(span.start),
            None => Origin::File(path.into()),
        };
        reader.error(origin, error.message());
    }
    let mut config = Config::default();
    // What a broken document seems to say would only give errors that are not there.
    if syntax_errors.is_empty() {
        reader.origins.set("", Origin::File(path.into()));
        read_top(
            Section::top(&mut reader, document.into_inner()),
            &mut config,
        );
    }
    FileConfig {
        config,
        origins: reader.origins,
        errors: reader.errors,
        known: reader.known,
    }
}

fn read_top(mut top: Section<'_, '_>, config: &mut Config) {
    top.set("listen", &mut config.listen, text(words::address));
    top.set("admin", &mut config.admin, text(words::address_or_off));
    top.set("region", &mut config.region, optional);
    top.set("worker_threads", &mut config.worker_threads, number);
    top.sections("nodes", |section| config.nodes.push(read_node(section)));
    top.sections("users", |section| config.users.extend(read_user(section)));
    if let Some(section) = top.section("monitor", "monitor") {
        read_monitor(section, &mut config.monitor);
    }
    if let Some(section) = top.section("client", "client") {
        read_client(section, &mut config.client);
    }
    if let Some(section) = top.section("pool", "pool") {
        read_pool(section, &mut config.pool);
    }
    if let Some(section) = top.section("routing", "routing") {
        read_routing(section, &mut config.routing);
    }
    top.sections("profiles", |section| {
        config.profiles.extend(read_profile(section));
    });
    if let Some(section) = top.section("causal", "causal") {
        read_causal(section, &mut config.causal);
    }
    if let Some(section) = top.section("key_store", "key_store") {
        config.key_store = read_key_store(section);
    }
    if let Some(section) = top.section("log", "log") {
        read_log(section, &mut config.log);
    }
    top.finish();
}

fn read_node(mut section: Section<'_, '_>) -> NodeConfig {
    if !section.has("host") {
        section.error("this node has no `host`");
    }
    let name = section.take("name", non_empty);
    let host = section.take("host", non_empty).unwrap_or_default();
    let port = section.take("port", port).unwrap_or(5432);
    let mut node = NodeConfig::new(host, port);
    if let Some(name) = name {
        node.name = name;
    }
    section.set("region", &mut node.region, optional);
    section.set("weight", &mut node.weight, number);
    section.set("max_connections", &mut node.max_connections, number);
    section.set("sslmode", &mut node.tls.mode, text(words::word));
    node.tls.root_cert = read_path(&mut section, "sslrootcert");
    section.finish();
    node
}

fn read_user(mut section: Section<'_, '_>) -> Option<UserConfig> {
    if !section.has("name") {
        section.error("this user has no `name`");
    }
    let secrets = ["password", "password_file", "verifier"];
    match secrets.iter().filter(|key| section.has(key)).count() {
        0 => {
            section.error("this user has no secret: give `password`, `password_file` or `verifier`")
        }
        1 => {}
        _ => section.error("give one of `password`, `password_file` and `verifier`, not several"),
    }
    let name = section.take("name", non_empty);
    let password = read_password(&mut section).map(Secret::Password);
    let verifier = section
        .take("verifier", text(same))
        .map(|verifier| Secret::Verifier(Zeroizing::new(verifier)));
    let pool_size = section.take("pool_size", number);
    let pool_mode = section.take("pool_mode", text(words::word));
    section.finish();
    Some(UserConfig {
        name: name?,
        secret: password.or(verifier)?,
        pool_size,
        pool_mode,
    })
}

fn read_monitor(mut section: Section<'_, '_>, monitor: &mut MonitorConfig) {
    if section.has("password") && section.has("password_file") {
        section.error("give `password` or `password_file`, not both");
    }
    section.set("user", &mut monitor.user, non_empty);
    monitor.password = read_password(&mut section);
    section.set("database", &mut monitor.database, non_empty);
    section.set("probe_interval", &mut monitor.probe_interval, duration);
    section.set("probe_timeout", &mut monitor.probe_timeout, duration);
    section.set("wait_interval", &mut monitor.wait_interval, duration);
    section.set(
        "catalogue_interval",
        &mut monitor.catalogue_interval,
        duration,
    );
    section.finish();
}

fn read_client(mut section: Section<'_, '_>, client: &mut ClientConfig) {
    section.set("max_clients", &mut client.max_clients, number);
    section.set("login_timeout", &mut client.login_timeout, duration);
    section.set("max_query_size", &mut client.max_query_size, size);
    section.set("idle_timeout", &mut client.idle_timeout, duration);
    if let Some(section) = section.section("tls", "client.tls") {
        client.tls = read_client_tls(section);
    }
    section.finish();
}

fn read_client_tls(mut section: Section<'_, '_>) -> Option<ClientTls> {
    for key in ["certificate", "key"] {
        if !section.has(key) {
            section.error(format!("TLS towards clients needs a `{key}` file"));
        }
    }
    let certificate = read_path(&mut section, "certificate");
    let key = read_path(&mut section, "key");
    let required = section.take("required", boolean).unwrap_or(false);
    section.finish();
    Some(ClientTls {
        certificate: certificate?,
        key: key?,
        required,
    })
}

fn read_pool(mut section: Section<'_, '_>, pool: &mut PoolConfig) {
    section.set("mode", &mut pool.mode, text(words::word));
    section.set("size", &mut pool.size, number);
    section.set("min_idle", &mut pool.min_idle, number);
    section.set("checkout_timeout", &mut pool.checkout_timeout, duration);
    section.set("connect_timeout", &mut pool.connect_timeout, duration);
    section.set("idle_timeout", &mut pool.idle_timeout, duration);
    section.set("max_lifetime", &mut pool.max_lifetime, duration);
    section.finish();
}

fn read_routing(mut section: Section<'_, '_>, routing: &mut RoutingConfig) {
    section.set("consistency", &mut routing.consistency, text(words::word));
    section.set(
        "max_staleness",
        &mut routing.max_staleness,
        text(words::duration_or_none),
    );
    section.set("max_wait", &mut routing.max_wait, duration);
    section.set("on_lag", &mut routing.on_lag, text(words::word));
    section.set("max_displaced", &mut routing.max_displaced, number);
    section.set("failover_wait", &mut routing.failover_wait, duration);
    section.set(
        "statement_cache_size",
        &mut routing.statement_cache_size,
        size,
    );
    section.set(
        "read_only_functions",
        &mut routing.read_only_functions,
        texts,
    );
    section.set("write_functions", &mut routing.write_functions, texts);
    section.set("primary_tables", &mut routing.primary_tables, texts);
    section.set("replica_tables", &mut routing.replica_tables, texts);
    section.finish();
}

fn read_profile(mut section: Section<'_, '_>) -> Option<ProfileConfig> {
    for key in ["name", "consistency"] {
        if !section.has(key) {
            section.error(format!("this profile has no `{key}`"));
        }
    }
    let name = section.take("name", non_empty);
    let mut patterns = |key| section.take(key, texts).unwrap_or_default();
    let (databases, users) = (patterns("databases"), patterns("users"));
    let (applications, tables) = (patterns("applications"), patterns("tables"));
    let consistency = section.take("consistency", text(words::word));
    let max_staleness = section.take("max_staleness", text(words::duration_or_none));
    let max_wait = section.take("max_wait", duration);
    let on_lag = section.take("on_lag", text(words::word));
    let enforced = section.take("enforced", boolean).unwrap_or(false);
    section.finish();
    Some(ProfileConfig {
        name: name?,
        databases,
        users,
        applications,
        tables,
        consistency: consistency?,
        max_staleness: max_staleness.flatten(),
        max_wait,
        on_lag,
        enforced,
    })
}

fn read_causal(mut section: Section<'_, '_>, causal: &mut CausalConfig) {
    if section.has("token_key") && section.has("token_key_file") {
        section.error("give `token_key` or `token_key_file`, not both");
    }
    causal.token_key = read_secret(&mut section, "token_key", "token_key_file");
    causal.previous_token_key = section
        .take("previous_token_key", non_empty)
        .map(Zeroizing::new);
    section.set("max_ahead", &mut causal.max_ahead, size);
    section.set("clock_skew", &mut causal.clock_skew, duration);
    section.set("session_keys", &mut causal.session_keys, number);
    section.finish();
}

fn read_key_store(mut section: Section<'_, '_>) -> Option<KeyStoreConfig> {
    if !section.has("url") {
        section.error("the key store has no `url`");
    }
    let url = section.take("url", non_empty);
    let mut store = KeyStoreConfig::new(url.clone().unwrap_or_default());
    store.root_cert = read_path(&mut section, "sslrootcert");
    section.set("prefix", &mut store.prefix, text(same));
    section.set("timeout", &mut store.timeout, duration);
    section.set("ttl", &mut store.ttl, duration);
    section.finish();
    url.map(|_| store)
}

fn read_log(mut section: Section<'_, '_>, log: &mut LogConfig) {
    section.set("filter", &mut log.filter, text(same));
    section.set("format", &mut log.format, text(words::word));
    section.finish();
}

/// `password`, or the first line of `password_file`.
fn read_password(section: &mut Section<'_, '_>) -> Option<Zeroizing<String>> {
    read_secret(section, "password", "password_file")
}

/// A secret, or the first line of a file.
fn read_secret(
    section: &mut Section<'_, '_>,
    key: &'static str,
    file_key: &'static str,
) -> Option<Zeroizing<String>> {
    let secret = section.take(key, text(same));
    let directory = section.reader.directory();
    let from_file = section.take(file_key, |value| {
        let path = directory.join(text(same)(value)?);
        let content = fs::read_to_string(&path)
            .map(Zeroizing::new)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        match content.lines().next() {
            Some(line) if !line.is_empty() => Ok(line.to_owned()),
            _ => Err(format!("{}: the first line is empty", path.display())),
        }
    });
    secret.or(from_file).map(Zeroizing::new)
}

fn read_path(section: &mut Section<'_, '_>, key: &'static str) -> Option<PathBuf> {
    let directory = section.reader.directory();
    section.take(key, |value| Ok(directory.join(text(same)(value)?)))
}

/// A string that `parse` reads.
fn text<T>(
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> impl FnOnce(&Value) -> Result<T, String> {
    move |value| match value {
        Value::Text(text) => parse(text),
        other => Err(other.is_not("a string")),
    }
}

fn same(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

fn non_empty(value: &Value) -> Result<String, String> {
    text(same)(value).and_then(|text| match text.as_str() {
        "" => Err("it is empty".to_owned()),
        _ => Ok(text),
    })
}

fn optional(value: &Value) -> Result<Option<String>, String> {
    non_empty(value).map(Some)
}

fn texts(value: &Value) -> Result<Vec<String>, String> {
    match value {
        Value::List(items) => items.iter().map(non_empty).collect(),
        other => Err(other.is_not("an array of strings")),
    }
}

fn boolean(value: &Value) -> Result<bool, String> {
    match value {
        Value::Boolean(flag) => Ok(*flag),
        other => Err(other.is_not("true or false")),
    }
}

/// Strings are taken too, so that `${NAME}` can stand for a number.
fn number<T: TryFrom<i128>>(value: &Value) -> Result<T, String> {
    let number = match value {
        Value::Integer(number) => *number,
        Value::Text(text) => text
            .parse()
            .map_err(|_| format!("`{text}` is not a whole number"))?,
        other => return Err(other.is_not("a whole number")),
    };
    T::try_from(number).map_err(|_| format!("{number} is out of range"))
}

fn port(value: &Value) -> Result<u16, String> {
    number(value).and_then(|port| match port {
        0 => Err("0 is out of range".to_owned()),
        port => Ok(port),
    })
}

fn duration(value: &Value) -> Result<Duration, String> {
    match value {
        Value::Text(text) => words::duration(text),
        Value::Integer(number) => words::duration(&number.to_string()),
        other => Err(other.is_not("a duration such as \"10s\"")),
    }
}

fn size(value: &Value) -> Result<usize, String> {
    match value {
        Value::Text(text) => words::size(text),
        Value::Integer(number) => words::size(&number.to_string()),
        other => Err(other.is_not("a size such as \"64MiB\"")),
    }
}
