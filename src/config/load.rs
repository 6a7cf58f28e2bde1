//! Puts the settings together: the defaults, the file over them, the flags over both.

use std::env;
use std::fs;
use std::path::Path;

use zeroize::Zeroizing;

use super::file::{self, Environment};
use super::flags::{OrNone, SecretUrl, ServeFlags};
use super::origin::{ConfigError, ConfigErrors, Origin, Origins};
use super::url::NodeUrl;
use super::validate::validate;
use super::{Config, KeyStoreConfig, Secret, UserConfig};

/// The settings, and where each came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    pub origins: Origins,
}

/// Reads and judges the settings.
///
/// # Errors
///
/// Everything that is wrong, as far as it can be told without asking a node.
pub fn load(flags: &ServeFlags) -> Result<Config, ConfigErrors> {
    load_with_origins(flags).map(|loaded| loaded.config)
}

/// As [`load`]; keeps the origins, for messages about what is found out later.
///
/// # Errors
///
/// As [`load`].
pub fn load_with_origins(flags: &ServeFlags) -> Result<Loaded, ConfigErrors> {
    load_from(flags, &|name| env::var(name).ok())
}

/// As [`load_with_origins`], with the environment that `${NAME}` in the file reads.
///
/// # Errors
///
/// As [`load`].
pub fn load_from(flags: &ServeFlags, environment: Environment<'_>) -> Result<Loaded, ConfigErrors> {
    let mut draft = match &flags.config {
        Some(path) => Draft::from_file(path, environment)?,
        None => Draft::default(),
    };
    draft.apply(flags);
    draft.complete();
    if draft.errors.is_empty() {
        draft.errors = validate(&draft.config, &draft.origins);
    }
    if draft.errors.is_empty() {
        Ok(Loaded {
            config: draft.config,
            origins: draft.origins,
        })
    } else {
        Err(ConfigErrors(draft.errors))
    }
}

#[derive(Default)]
struct Draft {
    config: Config,
    origins: Origins,
    errors: Vec<ConfigError>,
}

impl Draft {
    fn from_file(path: &Path, environment: Environment<'_>) -> Result<Self, ConfigErrors> {
        let text = fs::read_to_string(path)
            .map(Zeroizing::new)
            .map_err(|error| {
                ConfigErrors(vec![ConfigError {
                    origin: Origin::flag("--config"),
                    message: format!("{}: {error}", path.display()),
                }])
            })?;
        let file = file::read(path, &text, environment);
        Ok(Draft {
            config: file.config,
            origins: file.origins,
            errors: file.errors,
        })
    }

    fn error(&mut self, flag: &str, message: impl Into<String>) {
        self.errors.push(ConfigError {
            origin: Origin::flag(flag),
            message: message.into(),
        });
    }

    fn apply(&mut self, flags: &ServeFlags) {
        let Draft {
            config, origins, ..
        } = self;
        if let Some(url) = &flags.key_store {
            let store = config.key_store.take();
            let store = store.unwrap_or_else(|| KeyStoreConfig::new(""));
            let url = Zeroizing::new(url.as_str().to_owned());
            config.key_store = Some(KeyStoreConfig { url, ..store });
            origins.set("key_store.url", Origin::flag("--key-store"));
        }
        let mut over = Over { origins };
        over.put(&mut config.listen, &flags.listen, "listen", "--listen");
        let admin = flags.admin.map(|OrNone(admin)| admin);
        over.put(&mut config.admin, &admin, "admin", "--admin");
        let region = flags.region.clone().map(Some);
        over.put(&mut config.region, &region, "region", "--region");
        over.put(
            &mut config.worker_threads,
            &flags.worker_threads,
            "worker_threads",
            "--worker-threads",
        );
        let routing = &mut config.routing;
        over.put(
            &mut routing.consistency,
            &flags.consistency,
            "routing.consistency",
            "--consistency",
        );
        let max_staleness = flags.max_staleness.map(|OrNone(bound)| bound);
        over.put(
            &mut routing.max_staleness,
            &max_staleness,
            "routing.max_staleness",
            "--max-staleness",
        );
        over.put(
            &mut routing.max_wait,
            &flags.max_wait,
            "routing.max_wait",
            "--max-wait",
        );
        let pool = &mut config.pool;
        over.put(&mut pool.size, &flags.pool_size, "pool.size", "--pool-size");
        over.put(&mut pool.mode, &flags.pool_mode, "pool.mode", "--pool-mode");
        let log = &mut config.log;
        over.put(&mut log.filter, &flags.log, "log.filter", "--log");
        over.put(
            &mut log.format,
            &flags.log_format,
            "log.format",
            "--log-format",
        );
        if let Some(primary) = &flags.primary {
            // Two spaces in the environment variable, or nothing at all, are an empty URL.
            let replicas = flags.replicas.iter().filter(|url| !url.as_str().is_empty());
            self.apply_urls(primary, &replicas.collect::<Vec<_>>());
        }
    }

    /// The URLs' nodes stand in place of the file's. All of them share the primary's user and database:
    /// Causeway logs in on every node as the client did.
    fn apply_urls(&mut self, primary: &SecretUrl, replicas: &[&SecretUrl]) {
        self.origins.forget("nodes");
        self.config.nodes.clear();
        let primary = self.add_node("--primary", primary);
        for (index, replica) in replicas.iter().enumerate() {
            let flag = match replicas.len() {
                1 => "--replica".to_owned(),
                _ => format!("--replica (number {})", index + 1),
            };
            let replica = self.add_node(&flag, replica);
            if let (Some(primary), Some(replica)) = (&primary, &replica) {
                self.compare_logins(&flag, primary, replica);
            }
        }
        if let Some(primary) = primary {
            self.apply_login(primary);
        }
    }

    fn add_node(&mut self, flag: &str, url: &SecretUrl) -> Option<NodeUrl> {
        match NodeUrl::parse(url.as_str()) {
            Ok(url) => {
                let path = format!("nodes.{}", self.config.nodes.len());
                self.origins.set(path, Origin::flag(flag));
                self.config.nodes.push(url.to_node());
                Some(url)
            }
            Err(message) => {
                self.error(flag, message);
                None
            }
        }
    }

    fn compare_logins(&mut self, flag: &str, primary: &NodeUrl, replica: &NodeUrl) {
        let differs = |ours: Option<&str>, theirs: Option<&str>| theirs.is_some() && ours != theirs;
        let advice = "a replica has the primary's users and databases: leave it out of this URL";
        if differs(primary.user.as_deref(), replica.user.as_deref()) {
            self.error(flag, format!("its user differs from --primary's; {advice}"));
        } else if differs(
            primary.password.as_ref().map(|password| password.as_str()),
            replica.password.as_ref().map(|password| password.as_str()),
        ) {
            self.error(
                flag,
                format!("its password differs from --primary's; {advice}"),
            );
        }
        if differs(primary.database.as_deref(), replica.database.as_deref()) {
            self.error(
                flag,
                format!("its database differs from --primary's; {advice}"),
            );
        }
    }

    /// The primary's user may log in, and the monitor uses it unless the file names another.
    fn apply_login(&mut self, primary: NodeUrl) {
        let origin = Origin::flag("--primary");
        if let (Some(database), false) = (primary.database, self.origins.is_set("monitor.database"))
        {
            self.config.monitor.database = database;
            self.origins.set("monitor.database", origin.clone());
        }
        let Some(user) = primary.user else {
            if self.config.users.is_empty() {
                self.error(
                    "--primary",
                    "it names no user: write postgres://USER:PASSWORD@..., which is what clients log in with",
                );
            }
            return;
        };
        let known = self
            .config
            .users
            .iter()
            .position(|known| known.name == user);
        match (primary.password, known) {
            (Some(password), Some(index)) => {
                self.config.users[index].secret = Secret::Password(password);
                self.origins.set(format!("users.{index}"), origin.clone());
            }
            (Some(password), None) => {
                let path = format!("users.{}", self.config.users.len());
                self.origins.set(path, origin.clone());
                let secret = Secret::Password(password);
                self.config
                    .users
                    .push(UserConfig::new(user.clone(), secret));
            }
            (None, Some(_)) => {}
            (None, None) => self.error(
                "--primary",
                format!("it has no password for user `{user}`, so nobody could log in"),
            ),
        }
        if !self.origins.is_set("monitor.user") {
            self.config.monitor.user = user;
            self.origins.set("monitor.user", origin);
        }
    }

    /// Defaults that depend on other settings.
    fn complete(&mut self) {
        let Config { monitor, users, .. } = &mut self.config;
        let password_of = |user: &UserConfig| match &user.secret {
            Secret::Password(password) => Some(password.clone()),
            Secret::Verifier(_) => None,
        };
        if monitor.user.is_empty()
            && let Some(user) = users.iter().find(|user| password_of(user).is_some())
        {
            monitor.user.clone_from(&user.name);
        }
        if monitor.password.is_none() {
            monitor.password = users
                .iter()
                .find(|user| user.name == monitor.user)
                .and_then(password_of);
        }
    }
}

/// Flags that were given, put over what is there.
struct Over<'a> {
    origins: &'a mut Origins,
}

impl Over<'_> {
    fn put<T: Clone>(&mut self, slot: &mut T, flag: &Option<T>, path: &str, name: &str) {
        if let Some(value) = flag {
            slot.clone_from(value);
            self.origins.set(path, Origin::flag(name));
        }
    }
}
