//! Settings from text to `Config`: the reference file, errors with their places, precedence, rules.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use clap::Parser;

use super::file::{self, FileConfig};
use super::flags::{Cli, Command, ServeFlags};
use super::load::load_from;
use super::validate::validate;
use super::*;

const REFERENCE: &str = include_str!("../../proxy.toml");
const DOCS: &str = include_str!("../../docs/configure.md");

/// Settings of the reference that are examples, not defaults.
const EXAMPLES: [&str; 9] = [
    "nodes.host",
    "users.name",
    "users.password",
    "profiles.name",
    "profiles.applications",
    "profiles.tables",
    "profiles.consistency",
    "profiles.max_staleness",
    "profiles.enforced",
];

fn environment(name: &str) -> Option<String> {
    match name {
        "SECRET" => Some("pa$$word".to_owned()),
        "PORT" => Some("5433".to_owned()),
        _ => None,
    }
}

fn read(text: &str) -> FileConfig {
    file::read(Path::new("proxy.toml"), text, &environment)
}

fn lines(errors: &[ConfigError]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

fn flags(arguments: &[&str]) -> ServeFlags {
    let arguments = ["causeway", "serve"].iter().chain(arguments);
    match Cli::try_parse_from(arguments).map(|cli| cli.command) {
        Ok(Command::Serve(flags)) => *flags,
        other => panic!("{other:?}"),
    }
}

fn load_flags(arguments: &[&str]) -> Result<Config, Vec<String>> {
    load_from(&flags(arguments), &environment)
        .map(|loaded| loaded.config)
        .map_err(|errors| lines(&errors.0))
}

fn load_file(text: &str, arguments: &[&str]) -> Result<Config, Vec<String>> {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("proxy.toml");
    std::fs::write(&path, text).expect("write");
    let path = path.to_str().expect("UTF-8");
    let arguments: Vec<&str> = ["--config", path]
        .into_iter()
        .chain(arguments.iter().copied())
        .collect();
    load_flags(&arguments).map_err(|errors| {
        let prefix = format!("{}/", directory.path().display());
        errors
            .iter()
            .map(|error| error.replace(&prefix, ""))
            .collect()
    })
}

/// The file `text` follows a good node and user, in lines 1 to 5.
fn load_with(text: &str) -> Result<Config, Vec<String>> {
    let node = "[[nodes]]\nhost = \"10.0.0.1\"\n[[users]]\nname = \"app\"\npassword = \"x\"\n";
    load_file(&format!("{node}{text}"), &[])
}

/// The settings in a file by their names, each with its value as written.
fn settings_in(text: &str) -> BTreeMap<String, String> {
    let mut section = String::new();
    let mut settings = BTreeMap::new();
    for line in text.lines() {
        if line.starts_with('[') {
            section = format!("{}.", line.trim_matches(['[', ']']));
        } else if let Some((key, value)) = line.split_once(" = ").filter(|_| !line.starts_with('#'))
        {
            settings.insert(
                format!("{section}{key}"),
                value.trim_matches('"').to_owned(),
            );
        }
    }
    settings
}

/// With the settings that are commented out.
fn uncommented(text: &str) -> String {
    let is_key = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    text.lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.starts_with('[') => rest,
            Some(rest) if rest.split_once(" = ").is_some_and(|(key, _)| is_key(key)) => rest,
            _ => line,
        })
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn the_reference_loads_as_it_stands() {
    let config = load_file(REFERENCE, &[]).expect("the reference");
    assert_eq!(config.nodes, [NodeConfig::new("127.0.0.1", 5432)]);
    assert_eq!(config.users.len(), 1);
    assert_eq!(config.monitor.user, "app");
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    let profiles: Vec<_> = config
        .profiles
        .iter()
        .map(|profile| {
            (
                profile.name.as_str(),
                profile.consistency,
                profile.max_staleness,
            )
        })
        .collect();
    assert_eq!(
        profiles,
        [
            ("payments", Consistency::Strong, None),
            ("auth", Consistency::Session, None),
            ("products", Consistency::Eventual, seconds(60)),
            ("preferences", Consistency::Causal, None),
            ("analytics", Consistency::Eventual, seconds(300)),
        ]
    );
}

#[test]
fn profiles_are_judged() {
    let profile = "[[profiles]]\nname = \"a\"\nconsistency = \"eventual\"\n";
    let config = load_with(&format!(
        "{profile}tables = [\"t\", \"s.*\"]\nmax_wait = \"2s\"\non_lag = \"error\"\nenforced = true\n"
    ));
    let config = config.expect("a good profile");
    assert_eq!(config.profiles[0].on_lag, Some(OnLag::Error));
    assert_eq!(config.profiles[0].max_wait, Some(Duration::from_secs(2)));
    let table = [
        (
            "[[profiles]]\nname = \"a\"\n".to_owned(),
            "no `consistency`",
        ),
        (profile.replace("eventual", "weak"), "`weak`"),
        (format!("{profile}{profile}"), "taken by the profile"),
        (
            format!("{profile}max_staleness = \"1ms\"\n"),
            "probe_interval",
        ),
        (format!("{profile}tables = [\"a.b.c\"]\n"), "a.b.c"),
        (format!("{profile}on_lag = \"panic\"\n"), "`panic`"),
        (
            profile.replace("eventual", "session") + "max_staleness = \"5s\"\n",
            "of no use",
        ),
    ];
    for (text, expected) in table {
        let errors = load_with(&text).expect_err(&text);
        assert!(
            errors.iter().any(|error| error.contains(expected)),
            "{text}: {errors:?}"
        );
    }
}

#[test]
fn the_reference_states_the_defaults() {
    let mut config = read(REFERENCE).config;
    config.nodes.clear();
    config.users.clear();
    config.profiles.clear();
    assert_eq!(format!("{config:#?}"), format!("{:#?}", Config::default()));
}

#[test]
fn the_reference_and_the_docs_have_every_setting() {
    let all = uncommented(REFERENCE);
    let known = read(&all).known;
    let sections = [
        "nodes",
        "users",
        "monitor",
        "client",
        "client.tls",
        "pool",
        "routing",
        "profiles",
        "causal",
        "key_store",
        "log",
    ];
    let known: BTreeSet<String> = known
        .into_iter()
        .filter(|name| !sections.contains(&name.as_str()))
        .collect();
    assert!(known.len() > 40, "{known:?}");

    let reference = settings_in(&all);
    assert_eq!(reference.keys().cloned().collect::<BTreeSet<_>>(), known);

    let live = settings_in(REFERENCE);
    let mut documented = BTreeSet::new();
    let rows = DOCS.split("## Flags").next().expect("the settings").lines();
    for row in rows.filter(|row| row.starts_with("| `")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let (name, default) = (cells[1].trim_matches('`'), cells[2]);
        documented.insert(name.to_owned());
        let stated = live
            .get(name)
            .filter(|_| !EXAMPLES.contains(&name))
            .map(|value| format!("`{value}`"));
        match stated {
            Some(stated) => assert_eq!(default, stated, "the default of {name} in the docs"),
            None => assert!(!default.starts_with('`'), "{name} has no fixed default"),
        }
    }
    assert_eq!(documented, known);
}

#[test]
fn every_flag_is_documented_with_its_variable() {
    let command = <Cli as clap::CommandFactory>::command();
    let serve = command.find_subcommand("serve").expect("serve");
    let mut count = 0;
    for argument in serve.get_arguments() {
        let (Some(flag), Some(variable)) = (argument.get_long(), argument.get_env()) else {
            continue;
        };
        let row = format!("`{}` |", variable.display());
        let line = DOCS
            .lines()
            .find(|line| line.starts_with(&format!("| `--{flag} ")))
            .unwrap_or_else(|| panic!("--{flag} is not documented"));
        assert!(line.contains(&row), "{line}");
        count += 1;
    }
    assert_eq!(count, 15);
}

#[test]
fn a_wrong_file_is_answered_with_every_place() {
    for (text, expected) in [
        (
            "lisen = \"127.0.0.1:1\"",
            vec!["proxy.toml:1:1: unknown setting `lisen` at the top; did you mean `listen`?"],
        ),
        (
            "[pool]\n  sise = 3\nmode = 3\nsize = \"many\"\nidle_timeout = 10",
            vec![
                "proxy.toml:3:8: pool.mode: expected a string, found an integer",
                "proxy.toml:4:8: pool.size: `many` is not a whole number",
                "proxy.toml:5:16: pool.idle_timeout: `10` has no unit; write `10ms`, `10s` or `10min`",
                "proxy.toml:2:3: unknown setting `sise` in [pool]; did you mean `size`?",
            ],
        ),
        (
            "[log]\nverbosity = 3",
            vec!["proxy.toml:2:1: unknown setting `verbosity` in [log]; it takes filter, format"],
        ),
        (
            "[pol]",
            vec!["proxy.toml:1:2: unknown setting `pol` at the top; did you mean `pool`?"],
        ),
        (
            "pool = 3\nusers = 4",
            vec![
                "proxy.toml:2:9: users: expected tables, each headed by [[users]]",
                "proxy.toml:1:8: pool: expected a table",
            ],
        ),
        (
            "[[nodes]]\nname = \"a\"\n[[nodes]]\nhost = \"\"\nport = 70000",
            vec![
                "proxy.toml:1:1: this node has no `host`",
                "proxy.toml:4:8: nodes.host: it is empty",
                "proxy.toml:5:8: nodes.port: 70000 is out of range",
            ],
        ),
        (
            "[[users]]\nname = \"a\"\n[[users]]\nname = \"b\"\npassword = \"x\"\nverifier = \"y\"",
            vec![
                "proxy.toml:1:1: this user has no secret: give `password`, `password_file` or `verifier`",
                "proxy.toml:3:1: give one of `password`, `password_file` and `verifier`, not several",
            ],
        ),
        (
            "region = \"é\" \nlisten = \"${NOWHERE}:1\"\nadmin = \"${SECRET\"",
            vec![
                "proxy.toml:2:10: listen: the environment variable `NOWHERE` is not set",
                "proxy.toml:3:9: admin: the `}` after `${` is missing (write `$${` for `${` itself)",
            ],
        ),
        (
            "[client.tls]\ncertificate = \"a\"",
            vec!["proxy.toml:1:1: TLS towards clients needs a `key` file"],
        ),
        (
            "[routing]\nread_only_functions = \"f\"\nstatement_cache_size = \"1 parsec\"\nmax_staleness = \"nil\"",
            vec![
                "proxy.toml:4:17: routing.max_staleness: `nil` is not a duration such as `100ms`, `10s`, `5min` or `1h`",
                "proxy.toml:3:24: routing.statement_cache_size: `1 parsec` is not a size such as `65536`, `512KiB` or `64MiB`",
                "proxy.toml:2:23: routing.read_only_functions: expected an array of strings, found a string",
            ],
        ),
    ] {
        assert_eq!(lines(&read(text).errors), expected, "{text}");
    }
}

#[test]
fn broken_syntax_is_answered_with_the_line() {
    for (text, start) in [
        ("listen = \"a\nregion = 1", "proxy.toml:1:"),
        (
            "region = \"a\"\nregion = \"b\"",
            "proxy.toml:2:1: duplicate key",
        ),
        ("region = \"a\"\n\n[pool\n", "proxy.toml:3:"),
    ] {
        let errors = lines(&read(text).errors);
        assert!(errors[0].starts_with(start), "{errors:?}");
    }
}

#[test]
fn a_string_may_come_from_the_environment() {
    let read = read(
        "[[nodes]]\nhost = \"h\"\nport = \"${PORT}\"\n[[users]]\nname = \"a-${PORT}-b\"\npassword = \"${SECRET}$${x}\"",
    );
    assert_eq!(lines(&read.errors), [""; 0]);
    assert_eq!(read.config.nodes[0].port, 5433);
    assert_eq!(read.config.users[0].name, "a-5433-b");
    let Secret::Password(password) = &read.config.users[0].secret else {
        panic!("not a password");
    };
    assert_eq!(password.as_str(), "pa$$word${x}");
}

#[test]
fn a_password_may_stand_in_a_file_beside_the_settings() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("secret"), "first\nsecond\n").expect("write");
    std::fs::write(directory.path().join("empty"), "\n").expect("write");
    let path = directory.path().join("proxy.toml");
    let text =
        "[[users]]\nname = \"a\"\npassword_file = \"secret\"\n[monitor]\npassword_file = \"empty\"";
    let read = file::read(&path, text, &environment);
    assert!(matches!(&read.config.users[0].secret, Secret::Password(p) if p.as_str() == "first"));
    assert_eq!(
        lines(&read.errors),
        [format!(
            "{0}/proxy.toml:5:17: monitor.password_file: {0}/empty: the first line is empty",
            directory.path().display()
        )]
    );
}

#[test]
fn flags_alone_are_enough() {
    let config = load_flags(&[
        "--primary",
        "postgres://app:secret@10.0.0.1/shop",
        "--replica",
        "postgres://app:secret@10.0.1.1/shop?region=eu-west&weight=3",
        "--region",
        "eu-west",
        "--admin",
        "off",
    ])
    .expect("good flags");
    let mut replica = NodeConfig::new("10.0.1.1", 5432);
    replica.region = Some("eu-west".to_owned());
    replica.weight = 3;
    assert_eq!(config.nodes, [NodeConfig::new("10.0.0.1", 5432), replica]);
    assert_eq!(config.region.as_deref(), Some("eu-west"));
    assert_eq!(config.admin, None);
    assert_eq!(config.users.len(), 1);
    assert_eq!(config.users[0].name, "app");
    assert!(matches!(&config.users[0].secret, Secret::Password(p) if p.as_str() == "secret"));
    assert_eq!(config.monitor.user, "app");
    assert_eq!(
        config.monitor.password.as_ref().map(|p| p.as_str()),
        Some("secret")
    );
    assert_eq!(config.monitor.database, "shop");
    assert!(!format!("{config:?}").contains("\"secret\""));
}

#[test]
fn flags_win_over_the_file() {
    let file = "listen = \"127.0.0.1:1\"\nregion = \"a\"\n[[nodes]]\nhost = \"h\"\n[[users]]\nname = \"app\"\n\
                password = \"old\"\n[[users]]\nname = \"other\"\npassword = \"x\"\n[pool]\nsize = 3\nmin_idle = 2\n\
                [monitor]\nuser = \"watch\"\npassword = \"w\"\ndatabase = \"m\"\n";
    let config = load_file(
        file,
        &[
            "--listen",
            "127.0.0.1:2",
            "--pool-size",
            "4",
            "--primary",
            "postgres://app:new@p/d",
        ],
    )
    .expect("good settings");
    assert_eq!(config.listen.port(), 2);
    assert_eq!(config.region.as_deref(), Some("a"));
    assert_eq!((config.pool.size, config.pool.min_idle), (4, 2));
    assert_eq!(config.nodes, [NodeConfig::new("p", 5432)]);
    assert_eq!(config.users.len(), 2);
    assert!(matches!(&config.users[0].secret, Secret::Password(p) if p.as_str() == "new"));
    assert_eq!(
        (
            config.monitor.user.as_str(),
            config.monitor.database.as_str()
        ),
        ("watch", "m")
    );
    let config =
        load_file(file, &["--primary", "postgres://third:new@p/d"]).expect("good settings");
    let names: Vec<_> = config.users.iter().map(|user| user.name.as_str()).collect();
    assert_eq!(names, ["app", "other", "third"]);
}

#[test]
fn wrong_flags_are_named_all_at_once() {
    for (arguments, expected) in [
        (
            vec![],
            vec![
                "there are no nodes: give --primary URL, or --config FILE with [[nodes]]",
                "there are no users, so nobody could log in: add [[users]]",
            ],
        ),
        (
            vec!["--config", "/nowhere/proxy.toml"],
            vec!["--config: /nowhere/proxy.toml: No such file or directory (os error 2)"],
        ),
        (
            vec!["--primary", "postgres://10.0.0.1/d"],
            vec![
                "--primary: it names no user: write postgres://USER:PASSWORD@..., which is what clients log in with",
            ],
        ),
        (
            vec!["--primary", "postgres://app@10.0.0.1/d"],
            vec!["--primary: it has no password for user `app`, so nobody could log in"],
        ),
        (
            vec![
                "--primary",
                "postgres://a:1@p/d",
                "--replica",
                "postgres://a:2@q/e",
                "--replica",
                "postgres://b:1@r?regoin=x",
            ],
            vec![
                "--replica (number 1): its password differs from --primary's; a replica has the primary's users and databases: leave it out of this URL",
                "--replica (number 1): its database differs from --primary's; a replica has the primary's users and databases: leave it out of this URL",
                "--replica (number 2): unknown parameter `regoin`; did you mean `region`?",
            ],
        ),
        (
            vec![
                "--primary",
                "postgres://a:1@p/d",
                "--replica",
                "postgres://b@q",
            ],
            vec![
                "--replica: its user differs from --primary's; a replica has the primary's users and databases: leave it out of this URL",
            ],
        ),
        (
            vec![
                "--primary",
                "postgres://a:1@localhost:6432/d",
                "--replica",
                "postgres://localhost:6432",
                "--admin",
                "127.0.0.1:6432",
                "--worker-threads",
                "0",
                "--log",
                "causeway=loud",
            ],
            vec![
                "--worker-threads: worker_threads is 0; it must be from 1 to 1024",
                "--admin: admin 127.0.0.1:6432 and listen 127.0.0.1:6432 are the same address",
                "--replica: the name `localhost:6432` is taken by the node at --primary",
                "--primary: the node localhost:6432 is the address where Causeway itself listens",
                "--replica: the node localhost:6432 is the address where Causeway itself listens",
                "--log: `causeway=loud` is not a log filter: error parsing level filter: expected one of \"off\", \"error\", \"warn\", \"info\", \"debug\", \"trace\", or a number 0-5",
            ],
        ),
        (
            vec![
                "--primary",
                "postgres://a:1@p/d",
                "--replica",
                "postgres://p?name=other",
            ],
            vec!["--replica: p:5432 is the node at --primary already"],
        ),
    ] {
        assert_eq!(load_flags(&arguments).expect_err("wrong flags"), expected);
    }
}

#[test]
fn broken_rules_are_answered_with_the_line() {
    let verifier = "[[users]]\nname = \"v\"\nverifier = ";
    let long = "x".repeat(64);
    for (text, expected) in [
        (
            "[[nodes]]\nhost = \"10.0.0.1\"\nname = \"b\"",
            "proxy.toml:6:1: 10.0.0.1:5432 is the node at proxy.toml:1:1 already",
        ),
        (
            "[[nodes]]\nhost = \"b\"\nname = \"10.0.0.1:5432\"",
            "proxy.toml:6:1: the name `10.0.0.1:5432` is taken by the node at proxy.toml:1:1",
        ),
        (
            "[[nodes]]\nhost = \"b\"\nname = \"b c\"",
            "proxy.toml:8:8: the name `b c` contains a space or a control character",
        ),
        (
            "[[nodes]]\nhost = \"[::1]\"",
            "proxy.toml:7:8: `[::1]` is not a name, an address (IPv6 without brackets) or an absolute path",
        ),
        (
            "[[nodes]]\nhost = \"b\"\nweight = 10001",
            "proxy.toml:8:10: nodes.weight is 10001; it must be from 0 to 10000",
        ),
        (
            "[[nodes]]\nhost = \"b\"\nmax_connections = 0",
            "proxy.toml:8:19: nodes.max_connections is 0; it must be from 1 to 100000",
        ),
        (
            "[[nodes]]\nhost = \"/run\"\nsslmode = \"require\"",
            "proxy.toml:8:11: a Unix socket has no TLS: use sslmode `prefer` or `disable`",
        ),
        (
            "[[nodes]]\nhost = \"b\"\nsslrootcert = \"none.crt\"",
            "proxy.toml:8:15: none.crt: No such file or directory (os error 2)",
        ),
        (
            "[[nodes]]\nhost = \"b\"\nsslmode = \"disable\"\nsslrootcert = \"proxy.toml\"",
            "proxy.toml:9:15: sslrootcert contradicts sslmode `disable`",
        ),
        (
            "[[users]]\nname = \"app\"\npassword = \"y\"",
            "proxy.toml:6:1: the user `app` is at proxy.toml:3:1 already",
        ),
        (
            "[[users]]\nname = \"b\"\npassword = \"\"",
            "proxy.toml:8:12: the password of `b` is empty",
        ),
        (
            &format!("[[users]]\nname = \"{long}\"\npassword = \"y\""),
            "proxy.toml:7:8: the name is longer than 63 bytes",
        ),
        (
            &format!("{verifier}\"md5abc\""),
            "proxy.toml:8:12: the verifier of `v` is not SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>: it does not begin with SCRAM-SHA-256$",
        ),
        (
            &format!("{verifier}\"SCRAM-SHA-256$4096:c2FsdA==$AAAA:AAAA\""),
            "proxy.toml:8:12: the verifier of `v` is not SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>: StoredKey is not base64 of 32 bytes",
        ),
        (
            "[monitor]\nprobe_interval = \"0\"\nwait_interval = \"1us\"",
            "proxy.toml:7:18: monitor.probe_interval must be at least 1ms",
        ),
        (
            "[monitor]\nwait_interval = \"1s\"",
            "proxy.toml:7:17: monitor.wait_interval (1s) is longer than monitor.probe_interval (100ms)",
        ),
        (
            "[client]\nmax_query_size = \"100\"",
            "proxy.toml:7:18: client.max_query_size is 100; it must be from 1024 to 1073741824",
        ),
        (
            "[client]\nlogin_timeout = \"0\"",
            "proxy.toml:7:17: client.login_timeout must be more than 0",
        ),
        (
            "[client.tls]\ncertificate = \"proxy.toml\"\nkey = \".\"",
            "proxy.toml:8:7: .: it is not a file",
        ),
        (
            "[pool]\nmin_idle = 21",
            "proxy.toml:7:12: pool.min_idle (21) is more than pool.size (20)",
        ),
        (
            "[routing]\nmax_staleness = \"50ms\"",
            "proxy.toml:7:17: routing.max_staleness (50ms) is shorter than monitor.probe_interval (100ms): no replica could be known to be that fresh",
        ),
        (
            "[routing]\nread_only_functions = [\"f()\"]",
            "proxy.toml:7:23: `f()` is not a function's name: write `name` or `schema.name`",
        ),
    ] {
        let errors = load_with(text).map(|_| ()).expect_err(text);
        assert!(
            errors.iter().any(|error| error == expected),
            "{errors:#?}\nwanted {expected}"
        );
    }
}

#[test]
fn whatever_a_rule_leaves_is_accepted() {
    let key = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, [7; 32]);
    let config = load_with(&format!(
        "[[users]]\nname = \"v\"\nverifier = \"SCRAM-SHA-256$4096:c2FsdA==${key}:{key}\"\npool_size = 2\npool_mode = \"session\"\n\
         [[nodes]]\nhost = \"/run/postgresql\"\nweight = 0\n[client.tls]\ncertificate = \"proxy.toml\"\nkey = \"proxy.toml\"\nrequired = true\n\
         [routing]\nmax_staleness = \"5s\"\nread_only_functions = [\"f\", \"s.g\"]\n[pool]\nidle_timeout = \"0\"\n",
    ))
    .expect("good settings");
    assert_eq!(config.users[1].pool_size, Some(2));
    assert_eq!(config.users[1].pool_mode, Some(PoolMode::Session));
    assert!(
        config
            .client
            .tls
            .is_some_and(|tls| tls.required && tls.key.is_absolute())
    );
    assert_eq!(config.routing.max_staleness, Some(Duration::from_secs(5)));
    assert_eq!(config.pool.idle_timeout, Duration::ZERO);
}

#[test]
fn nodes_are_counted_and_somebody_must_answer_reads() {
    let many = |count: usize| Config {
        nodes: (0..count)
            .map(|n| NodeConfig::new(format!("n{n}"), 5432))
            .collect(),
        users: vec![UserConfig::with_password("u", "p")],
        monitor: MonitorConfig {
            user: "u".to_owned(),
            ..MonitorConfig::default()
        },
        ..Config::default()
    };
    assert_eq!(lines(&validate(&many(64), &Origins::default())), [""; 0]);
    assert_eq!(
        lines(&validate(&many(65), &Origins::default())),
        ["there are 65 nodes; 64 is the most"]
    );
    let mut config = many(2);
    config.nodes.iter_mut().for_each(|node| node.weight = 0);
    assert_eq!(
        lines(&validate(&config, &Origins::default())),
        ["every node has weight 0, so none could answer a read"]
    );
}
