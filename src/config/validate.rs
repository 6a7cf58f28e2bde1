//! The rules between settings, as far as they can be told on this machine. What only a node can
//! answer is for `causeway check`.

use std::collections::HashMap;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use tracing_subscriber::EnvFilter;

use super::origin::{ConfigError, Origins};
use super::{Config, Consistency, NodeConfig, PoolConfig, Secret, TlsMode, UserConfig};

/// Nodes at the most: sets of nodes are bits of one 64-bit word.
pub const MAX_NODES: usize = 64;
/// Bytes of a name in PostgreSQL (`NAMEDATALEN` less the terminating zero).
const MAX_NAME_BYTES: usize = 63;
/// Bytes of a key that signs tokens, at the least.
const MIN_KEY_BYTES: usize = 16;
const MAX_SESSION_KEYS: usize = 100_000_000;
const MAX_WEIGHT: u32 = 10_000;
const MAX_SERVERS: usize = 100_000;
const MAX_WORKER_THREADS: usize = 1024;
const KIB: usize = 1024;
const GIB: usize = 1024 * 1024 * KIB;

/// Everything that is wrong; empty if nothing is.
pub fn validate(config: &Config, origins: &Origins) -> Vec<ConfigError> {
    let mut rules = Rules {
        origins,
        errors: Vec::new(),
    };
    rules.listening(config);
    rules.nodes(&config.nodes);
    rules.own_address(config);
    rules.users(&config.users);
    rules.monitor(config);
    rules.client(config);
    rules.pool(&config.pool);
    rules.routing(config);
    rules.profiles(config);
    rules.causal(config);
    rules.key_store(config);
    rules.log(config);
    rules.errors
}

struct Rules<'a> {
    origins: &'a Origins,
    errors: Vec<ConfigError>,
}

impl Rules<'_> {
    /// Reports `message` at `path` if the rule is broken.
    fn refuse_if(&mut self, broken: bool, path: &str, message: impl FnOnce() -> String) {
        if broken {
            self.errors.push(ConfigError {
                origin: self.origins.of(path),
                message: message(),
            });
        }
    }

    fn range<T>(&mut self, value: T, least: T, most: T, path: &str)
    where
        T: PartialOrd + std::fmt::Display,
    {
        self.refuse_if(value < least || value > most, path, || {
            format!(
                "{} is {value}; it must be from {least} to {most}",
                plain(path)
            )
        });
    }

    fn not_zero(&mut self, value: Duration, path: &str) {
        self.refuse_if(value.is_zero(), path, || {
            format!("{} must be more than 0", plain(path))
        });
    }

    fn listening(&mut self, config: &Config) {
        self.range(
            config.worker_threads,
            1,
            MAX_WORKER_THREADS,
            "worker_threads",
        );
        if let Some(admin) = config.admin {
            self.refuse_if(overlap(admin, config.listen), "admin", || {
                format!(
                    "admin {admin} and listen {} are the same address",
                    config.listen
                )
            });
        }
    }

    fn nodes(&mut self, nodes: &[NodeConfig]) {
        self.refuse_if(nodes.is_empty(), "nodes", || {
            "there are no nodes: give --primary URL, or --config FILE with [[nodes]]".to_owned()
        });
        self.refuse_if(nodes.len() > MAX_NODES, "nodes", || {
            format!("there are {} nodes; {MAX_NODES} is the most", nodes.len())
        });
        let mut names = HashMap::new();
        let mut addresses = HashMap::new();
        for (index, node) in nodes.iter().enumerate() {
            let path = format!("nodes.{index}");
            if let Some(first) = names.insert(&node.name, index) {
                let origin = self.origins.of(&format!("nodes.{first}"));
                self.refuse_if(true, &path, || {
                    format!("the name `{}` is taken by the node at {origin}", node.name)
                });
            } else if let Some(first) = addresses.insert(node.address(), index) {
                let origin = self.origins.of(&format!("nodes.{first}"));
                self.refuse_if(true, &path, || {
                    format!("{} is the node at {origin} already", node.address())
                });
            }
            self.node(node, &path);
        }
        let nobody_reads = !nodes.is_empty() && nodes.iter().all(|node| node.weight == 0);
        self.refuse_if(nobody_reads, "nodes.0.weight", || {
            "every node has weight 0, so none could answer a read".to_owned()
        });
    }

    fn node(&mut self, node: &NodeConfig, path: &str) {
        let at = |key: &str| format!("{path}.{key}");
        self.refuse_if(has_blank(&node.name), &at("name"), || {
            format!(
                "the name `{}` contains a space or a control character",
                node.name
            )
        });
        self.refuse_if(has_blank(&node.host), &at("host"), || {
            format!(
                "the host `{}` contains a space or a control character",
                node.host
            )
        });
        let is_odd = !node.is_unix_socket() && node.host.contains(['/', '@', ',', '[', ']']);
        self.refuse_if(is_odd, &at("host"), || {
            format!(
                "`{}` is not a name, an address (IPv6 without brackets) or an absolute path",
                node.host
            )
        });
        self.range(node.weight, 0, MAX_WEIGHT, &at("weight"));
        self.range(node.max_connections, 1, MAX_SERVERS, &at("max_connections"));
        let tls = &node.tls;
        let asks_for_tls = !matches!(tls.mode, TlsMode::Disable | TlsMode::Prefer);
        self.refuse_if(
            node.is_unix_socket() && asks_for_tls,
            &at("sslmode"),
            || "a Unix socket has no TLS: use sslmode `prefer` or `disable`".to_owned(),
        );
        if let Some(root_cert) = &tls.root_cert {
            self.refuse_if(tls.mode == TlsMode::Disable, &at("sslrootcert"), || {
                "sslrootcert contradicts sslmode `disable`".to_owned()
            });
            self.readable(root_cert, &at("sslrootcert"));
        }
    }

    fn readable(&mut self, file: &Path, path: &str) {
        let opened = File::open(file).and_then(|file| file.metadata());
        let problem = match opened {
            Ok(metadata) if metadata.is_file() => return,
            Ok(_) => "it is not a file".to_owned(),
            Err(error) => error.to_string(),
        };
        self.refuse_if(true, path, || format!("{}: {problem}", file.display()));
    }

    /// A node that is ourselves would send every statement round and round.
    fn own_address(&mut self, config: &Config) {
        for (index, node) in config.nodes.iter().enumerate() {
            let addresses = match node.host.as_str() {
                "localhost" => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
                host => host.parse::<IpAddr>().into_iter().collect(),
            };
            let own = addresses
                .into_iter()
                .any(|ip| overlap(SocketAddr::new(ip, node.port), config.listen));
            self.refuse_if(own, &format!("nodes.{index}.host"), || {
                format!(
                    "the node {} is the address where Causeway itself listens",
                    node.address()
                )
            });
        }
    }

    fn users(&mut self, users: &[UserConfig]) {
        self.refuse_if(users.is_empty(), "users", || {
            "there are no users, so nobody could log in: add [[users]]".to_owned()
        });
        let mut names = HashMap::new();
        for (index, user) in users.iter().enumerate() {
            let path = format!("users.{index}");
            if let Some(first) = names.insert(&user.name, index) {
                let origin = self.origins.of(&format!("users.{first}"));
                self.refuse_if(true, &path, || {
                    format!("the user `{}` is at {origin} already", user.name)
                });
            }
            self.user(user, &path);
        }
    }

    fn user(&mut self, user: &UserConfig, path: &str) {
        let at = |key: &str| format!("{path}.{key}");
        self.refuse_if(user.name.len() > MAX_NAME_BYTES, &at("name"), || {
            format!("the name is longer than {MAX_NAME_BYTES} bytes")
        });
        match &user.secret {
            Secret::Password(password) => {
                self.refuse_if(password.is_empty(), &at("password"), || {
                    format!("the password of `{}` is empty", user.name)
                });
            }
            Secret::Verifier(verifier) => {
                let problem = verifier_problem(verifier);
                self.refuse_if(problem.is_some(), &at("verifier"), || {
                    format!(
                        "the verifier of `{}` is not SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>: {}",
                        user.name,
                        problem.unwrap_or_default()
                    )
                });
            }
        }
        if let Some(size) = user.pool_size {
            self.range(size, 1, MAX_SERVERS, &at("pool_size"));
        }
    }

    fn monitor(&mut self, config: &Config) {
        let monitor = &config.monitor;
        self.refuse_if(
            monitor.user.is_empty() && !config.users.is_empty(),
            "monitor.user",
            || "monitor.user is not set, and no user has a password that it could use".to_owned(),
        );
        self.refuse_if(
            monitor.probe_interval < Duration::from_millis(1),
            "monitor.probe_interval",
            || "monitor.probe_interval must be at least 1ms".to_owned(),
        );
        self.not_zero(monitor.probe_timeout, "monitor.probe_timeout");
        self.not_zero(monitor.wait_interval, "monitor.wait_interval");
        self.refuse_if(
            monitor.wait_interval > monitor.probe_interval,
            "monitor.wait_interval",
            || {
                format!(
                    "monitor.wait_interval ({:?}) is longer than monitor.probe_interval ({:?})",
                    monitor.wait_interval, monitor.probe_interval
                )
            },
        );
    }

    fn client(&mut self, config: &Config) {
        let client = &config.client;
        self.range(client.max_clients, 1, 1_000_000, "client.max_clients");
        self.not_zero(client.login_timeout, "client.login_timeout");
        self.range(client.max_query_size, KIB, GIB, "client.max_query_size");
        if let Some(tls) = &client.tls {
            self.readable(&tls.certificate, "client.tls.certificate");
            self.readable(&tls.key, "client.tls.key");
        }
    }

    fn pool(&mut self, pool: &PoolConfig) {
        self.range(pool.size, 1, MAX_SERVERS, "pool.size");
        self.refuse_if(pool.min_idle > pool.size, "pool.min_idle", || {
            format!(
                "pool.min_idle ({}) is more than pool.size ({})",
                pool.min_idle, pool.size
            )
        });
        self.not_zero(pool.checkout_timeout, "pool.checkout_timeout");
        self.not_zero(pool.connect_timeout, "pool.connect_timeout");
    }

    fn routing(&mut self, config: &Config) {
        let routing = &config.routing;
        let interval = config.monitor.probe_interval;
        if let Some(bound) = routing.max_staleness {
            self.refuse_if(bound < interval, "routing.max_staleness", || {
                format!(
                    "routing.max_staleness ({bound:?}) is shorter than monitor.probe_interval \
                     ({interval:?}): no replica could be known to be that fresh"
                )
            });
        }
        self.range(
            routing.statement_cache_size,
            64 * KIB,
            GIB,
            "routing.statement_cache_size",
        );
        self.range(
            routing.max_displaced,
            1,
            MAX_SERVERS,
            "routing.max_displaced",
        );
        let lists = [
            ("routing.read_only_functions", &routing.read_only_functions),
            ("routing.write_functions", &routing.write_functions),
            ("routing.primary_tables", &routing.primary_tables),
            ("routing.replica_tables", &routing.replica_tables),
        ];
        for (setting, names) in lists {
            let thing = match setting.ends_with("functions") {
                true => "function",
                false => "relation",
            };
            for name in names {
                let is_name = name.split('.').count() <= 2
                    && name
                        .split('.')
                        .all(|part| !part.is_empty() && !part.contains(['(', ')', ' ', ',']));
                self.refuse_if(!is_name, setting, || {
                    format!("`{name}` is not a {thing}'s name: write `name` or `schema.name`")
                });
            }
        }
    }

    fn profiles(&mut self, config: &Config) {
        let interval = config.monitor.probe_interval;
        let mut names = HashMap::new();
        for (index, profile) in config.profiles.iter().enumerate() {
            let path = format!("profiles.{index}");
            let name = &profile.name;
            if let Some(first) = names.insert(name, index) {
                let origin = self.origins.of(&format!("profiles.{first}"));
                self.refuse_if(true, &path, || {
                    format!("the name `{name}` is taken by the profile at {origin}")
                });
            }
            let at = format!("{path}.max_staleness");
            let is_eventual = profile.consistency == Consistency::Eventual;
            let bound = profile.max_staleness;
            self.refuse_if(bound.is_some() && !is_eventual, &at, || {
                format!(
                    "max_staleness of the profile `{name}` is of no use: only `eventual` has one"
                )
            });
            self.refuse_if(bound.is_some_and(|bound| bound < interval), &at, || {
                format!(
                    "max_staleness of the profile `{name}` is shorter than monitor.probe_interval \
                     ({interval:?}): no replica could be known to be that fresh"
                )
            });
            let is_wrong = |pattern: &String| {
                let parts: Vec<&str> = pattern.split('.').collect();
                parts.len() > 2 || parts.contains(&"")
            };
            for pattern in profile.tables.iter().filter(|pattern| is_wrong(pattern)) {
                self.refuse_if(true, &format!("{path}.tables"), || {
                    format!("`{pattern}` is no pattern of tables: write `name` or `schema.name`")
                });
            }
        }
    }

    fn causal(&mut self, config: &Config) {
        let causal = &config.causal;
        let keys = [
            ("causal.token_key", &causal.token_key),
            ("causal.previous_token_key", &causal.previous_token_key),
        ];
        for (path, key) in keys {
            let length = key.as_ref().map_or(MIN_KEY_BYTES, |key| key.len());
            self.refuse_if(length < MIN_KEY_BYTES, path, || {
                format!("{path} is too short to keep anything secret: give at least {MIN_KEY_BYTES} bytes")
            });
        }
        self.range(
            causal.session_keys,
            1,
            MAX_SESSION_KEYS,
            "causal.session_keys",
        );
        let predecessor_alone = causal.previous_token_key.is_some() && causal.token_key.is_none();
        self.refuse_if(predecessor_alone, "causal.previous_token_key", || {
            "causal.previous_token_key needs a causal.token_key beside it".to_owned()
        });
    }

    fn key_store(&mut self, config: &Config) {
        let Some(store) = &config.key_store else {
            return;
        };
        let schemes = ["redis://", "rediss://", "valkey://", "valkeys://"];
        let is_known = schemes.iter().any(|scheme| store.url.starts_with(scheme));
        self.refuse_if(!is_known, "key_store.url", || {
            "key_store.url is none that is known here: write redis://HOST:PORT or rediss://HOST:PORT"
                .to_owned()
        });
        self.not_zero(store.timeout, "key_store.timeout");
        let least = Duration::from_secs(1);
        self.refuse_if(store.ttl < least, "key_store.ttl", || {
            format!(
                "key_store.ttl is {:?}; it must be at least {least:?}",
                store.ttl
            )
        });
    }

    fn log(&mut self, config: &Config) {
        if let Err(error) = EnvFilter::try_new(&config.log.filter) {
            self.refuse_if(true, "log.filter", || {
                format!("`{}` is not a log filter: {error}", config.log.filter)
            });
        }
    }
}

/// A path as an operator writes it: without the indexes.
fn plain(path: &str) -> String {
    let parts: Vec<&str> = path
        .split('.')
        .filter(|part| part.parse::<usize>().is_err())
        .collect();
    parts.join(".")
}

fn has_blank(text: &str) -> bool {
    text.contains(|c: char| c.is_whitespace() || c.is_control())
}

/// Both would listen on, or connect to, the same socket. Port 0 is any free port.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let same_ip = one.ip() == other.ip()
        || (other.ip().is_unspecified() && (one.ip().is_loopback() || one.ip().is_unspecified()))
        || (one.ip().is_unspecified() && other.ip().is_loopback());
    one.port() == other.port() && one.port() != 0 && same_ip
}

/// What is wrong with a SCRAM verifier (manual, section "pg_authid"). Never quotes it.
fn verifier_problem(verifier: &str) -> Option<&'static str> {
    let Some(rest) = verifier.strip_prefix("SCRAM-SHA-256$") else {
        return Some("it does not begin with SCRAM-SHA-256$");
    };
    let Some(((iterations, salt), (stored_key, server_key))) = rest
        .split_once('$')
        .and_then(|(salted, keys)| Some((salted.split_once(':')?, keys.split_once(':')?)))
    else {
        return Some("a part is missing");
    };
    if !iterations.parse::<u32>().is_ok_and(|count| count > 0) {
        return Some("the iteration count is not a positive number");
    }
    if !BASE64.decode(salt).is_ok_and(|salt| !salt.is_empty()) {
        return Some("the salt is not base64");
    }
    let is_key = |text: &str| BASE64.decode(text).is_ok_and(|key| key.len() == 32);
    if !is_key(stored_key) {
        return Some("StoredKey is not base64 of 32 bytes");
    }
    if !is_key(server_key) {
        return Some("ServerKey is not base64 of 32 bytes");
    }
    None
}
