//! The command line. Flags win over the file; an environment variable stands for its flag.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use zeroize::Zeroizing;

use super::words::{address, address_or_off, duration, duration_or_none, word};
use super::{Consistency, LogFormat, PoolMode};

/// A PostgreSQL proxy for applications that run in several regions.
#[derive(Debug, Parser)]
#[command(name = "causeway", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the proxy until SIGTERM or SIGINT
    Serve(Box<ServeFlags>),
    /// Check the settings, then every node: reachable, log-in, role, rights, limits
    Check(Box<ServeFlags>),
    /// Say how a statement would be routed, and why
    Explain(ExplainFlags),
    /// Start PostgreSQL clusters in several simulated regions and show the proxy at work
    Demo(DemoFlags),
}

/// What can be set without a file. `check` takes the same, so that it checks what `serve` would run.
#[derive(Args, Clone, Debug, Default)]
pub struct ServeFlags {
    /// Settings file, see proxy.toml
    #[arg(long, value_name = "FILE", env = "CAUSEWAY_CONFIG")]
    pub config: Option<PathBuf>,
    /// The primary: `postgres://USER:PASSWORD@HOST/DATABASE?region=NAME`; clients log in with this
    /// user and password
    #[arg(
        long,
        value_name = "URL",
        env = "CAUSEWAY_PRIMARY",
        hide_env_values = true
    )]
    pub primary: Option<SecretUrl>,
    /// A replica; may be repeated (in the environment, separate URLs by spaces)
    #[arg(
        long = "replica",
        value_name = "URL",
        env = "CAUSEWAY_REPLICA",
        hide_env_values = true,
        value_delimiter = ' ',
        requires = "primary"
    )]
    pub replicas: Vec<SecretUrl>,
    /// The region this instance stands in
    #[arg(long, value_name = "NAME", env = "CAUSEWAY_REGION")]
    pub region: Option<String>,
    /// Where clients connect [default: 127.0.0.1:6432]
    #[arg(long, value_name = "ADDR", env = "CAUSEWAY_LISTEN", value_parser = address)]
    pub listen: Option<SocketAddr>,
    /// Where admin HTTP listens, or `off` [default: 127.0.0.1:6480]
    #[arg(long, value_name = "ADDR", env = "CAUSEWAY_ADMIN", value_parser = |text: &str| address_or_off(text).map(OrNone))]
    pub admin: Option<OrNone<SocketAddr>>,
    /// Where several instances share session keys: `redis://HOST:PORT`, or `rediss://` with TLS
    #[arg(
        long,
        value_name = "URL",
        env = "CAUSEWAY_KEY_STORE",
        hide_env_values = true
    )]
    pub key_store: Option<SecretUrl>,
    /// strong, session, causal or eventual [default: session]
    #[arg(long, value_name = "LEVEL", env = "CAUSEWAY_CONSISTENCY", value_parser = word::<Consistency>)]
    pub consistency: Option<Consistency>,
    /// For eventual: the oldest state that may be seen, or `none` [default: none]
    #[arg(long, value_name = "TIME", env = "CAUSEWAY_MAX_STALENESS", value_parser = |text: &str| duration_or_none(text).map(OrNone))]
    pub max_staleness: Option<OrNone<Duration>>,
    /// The longest wait for a replica [default: 1s]
    #[arg(long, value_name = "TIME", env = "CAUSEWAY_MAX_WAIT", value_parser = duration)]
    pub max_wait: Option<Duration>,
    /// Servers at the most per node, database and user [default: 20]
    #[arg(long, value_name = "N", env = "CAUSEWAY_POOL_SIZE")]
    pub pool_size: Option<usize>,
    /// transaction or session [default: transaction]
    #[arg(long, value_name = "MODE", env = "CAUSEWAY_POOL_MODE", value_parser = word::<PoolMode>)]
    pub pool_mode: Option<PoolMode>,
    /// Worker threads [default: 1]
    #[arg(long, value_name = "N", env = "CAUSEWAY_WORKER_THREADS")]
    pub worker_threads: Option<usize>,
    /// What is logged, such as `info` or `warn,causeway::monitor=debug` [default: info]
    #[arg(long, value_name = "FILTER", env = "CAUSEWAY_LOG")]
    pub log: Option<String>,
    /// text or json [default: text]
    #[arg(long, value_name = "FORMAT", env = "CAUSEWAY_LOG_FORMAT", value_parser = word::<LogFormat>)]
    pub log_format: Option<LogFormat>,
}

#[derive(Args, Clone, Debug)]
pub struct ExplainFlags {
    /// One or more SQL statements
    #[arg(value_name = "SQL", required_unless_present = "file")]
    pub sql: Option<String>,
    /// A file of statements, each of which is explained
    #[arg(long, value_name = "FILE", conflicts_with = "sql")]
    pub file: Option<PathBuf>,
    /// Judge with the catalogue of this database, read from the first node that answers
    #[arg(long, value_name = "NAME", requires = "config")]
    pub database: Option<String>,
    /// Apply the profiles of this user's connections
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    pub user: String,
    /// Apply the profiles of this application's connections
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    pub application: String,
    /// Settings file, for its lists, its profiles and its nodes
    #[arg(long, value_name = "FILE", env = "CAUSEWAY_CONFIG")]
    pub config: Option<PathBuf>,
}

impl ExplainFlags {
    /// As `serve` with this file and no other flags.
    pub fn to_serve_flags(&self) -> ServeFlags {
        ServeFlags {
            config: self.config.clone(),
            ..ServeFlags::default()
        }
    }
}

#[derive(Args, Clone, Copy, Debug)]
pub struct DemoFlags {
    /// Run the tour once and exit
    #[arg(long)]
    pub once: bool,
}

/// A flag whose word for nothing (`off`, `none`) is a value too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrNone<T>(pub Option<T>);

/// A URL that is not read yet. It may hold a password, so it is never printed, not even by clap's
/// message for a bad value: any text is taken here and judged by `load`.
#[derive(Clone)]
pub struct SecretUrl(Zeroizing<String>);

impl SecretUrl {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SecretUrl {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(SecretUrl(Zeroizing::new(text.to_owned())))
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretUrl(..)")
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_are_read() {
        let cli = Cli::parse_from([
            "causeway",
            "serve",
            "--primary",
            "postgres://u:SECRET@a/d",
            "--replica",
            "postgres://b/d",
            "--replica",
            "postgres://c/d",
            "--admin",
            "off",
            "--max-wait",
            "250ms",
            "--pool-mode",
            "session",
        ]);
        assert!(!format!("{cli:?}").contains("SECRET"));
        let Command::Serve(flags) = cli.command else {
            panic!("not serve");
        };
        assert_eq!(flags.replicas.len(), 2);
        assert_eq!(flags.admin, Some(OrNone(None)));
        assert_eq!(flags.max_wait, Some(Duration::from_millis(250)));
        assert_eq!(flags.pool_mode, Some(PoolMode::Session));
        assert_eq!(flags.listen, None);
    }

    #[test]
    fn a_bad_flag_is_named() {
        for (flag, value, wanted) in [
            ("--listen", "localhost:1", "--listen <ADDR>"),
            ("--max-wait", "10", "`10` has no unit"),
            ("--consistency", "sesion", "did you mean `session`?"),
            ("--replica", "postgres://b", "--primary <URL>"),
        ] {
            let error = Cli::try_parse_from(["causeway", "serve", flag, value])
                .expect_err(flag)
                .to_string();
            assert!(error.contains(wanted), "{error}");
        }
    }
}
