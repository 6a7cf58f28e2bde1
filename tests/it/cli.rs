//! The program from outside: arguments, environment, exit status, what it prints where.

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

fn causeway(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_causeway"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CAUSEWAY_")) {
        command.env_remove(name);
    }
    command
        .args(arguments)
        .envs(environment.iter().copied())
        .output()
        .expect("the program runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A directory with a settings file.
fn settings(text: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("proxy.toml");
    std::fs::write(&path, text).expect("write");
    let path = path.to_str().expect("UTF-8").to_owned();
    (directory, path)
}

#[test]
fn wrong_settings_end_serve_and_check_with_every_error() {
    let (_directory, path) = settings("[pool]\nsise = 3\nmode = \"both\"\n");
    for command in ["serve", "check"] {
        let output = causeway(&[command, "--config", &path], &[]);
        assert_eq!(output.status.code(), Some(1), "{command}");
        assert_eq!(stdout(&output), "");
        assert_eq!(
            stderr(&output),
            format!(
                "{path}:3:8: pool.mode: `both` is not a pool mode; it is one of transaction, session\n\
                 {path}:2:1: unknown setting `sise` in [pool]; did you mean `size`?\n"
            )
        );
    }
}

#[test]
fn the_environment_stands_for_flags_and_a_flag_wins_over_it() {
    let environment = [
        ("CAUSEWAY_PRIMARY", "postgres://app:secret@127.0.0.1:1/app"),
        (
            "CAUSEWAY_REPLICA",
            "postgres://127.0.0.1:2  postgres://127.0.0.1:3",
        ),
        ("CAUSEWAY_POOL_SIZE", "0"),
        ("CAUSEWAY_WORKER_THREADS", "0"),
    ];
    let output = causeway(&["check", "--pool-size", "5"], &environment);
    assert_eq!(
        stderr(&output),
        "--worker-threads: worker_threads is 0; it must be from 1 to 1024\n"
    );
    let output = causeway(
        &["check", "--pool-size", "5", "--worker-threads", "1"],
        &environment,
    );
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stderr(&output), "");
    let expected: String = [
        ("--primary", 1),
        ("--replica (number 1)", 2),
        ("--replica (number 2)", 3),
    ]
    .map(|(flag, port)| {
        format!(
            "problem  {flag}: 127.0.0.1:{port}: cannot connect to 127.0.0.1:{port}: \
                 Connection refused (os error 111)\n"
        )
    })
    .concat();
    assert_eq!(
        stdout(&output),
        format!(
            "{expected}problem  no primary was seen; 3 of 3 nodes did not answer\n\
             nodes: 3, problems: 4, warnings: 0\n"
        )
    );
}

#[test]
fn nothing_that_is_printed_holds_a_password() {
    let url = [("CAUSEWAY_PRIMARY", "postgres://app:SECRET@127.0.0.1:1/app")];
    let wrong_url = [(
        "CAUSEWAY_PRIMARY",
        "postgres://app:SECRET/x@127.0.0.1:1/app",
    )];
    for (arguments, environment) in [
        (vec!["check", "--help"], &url),
        (vec!["check"], &url),
        (vec!["check"], &wrong_url),
        (vec!["check", "--listen", "nowhere"], &url),
        (vec!["check", "--replica", "SECRET"], &url),
    ] {
        let output = causeway(&arguments, environment);
        let printed = stdout(&output) + &stderr(&output);
        assert!(!printed.is_empty());
        assert!(!printed.contains("SECRET"), "{arguments:?}: {printed}");
    }
}

#[test]
fn a_log_that_is_no_terminal_has_no_colours() {
    let mut serve = Command::new(env!("CARGO_BIN_EXE_causeway"))
        .args(["serve", "--listen", "127.0.0.1:0", "--admin", "off"])
        .args(["--primary", "postgres://app:secret@127.0.0.1:1/app"])
        .env_remove("NO_COLOR")
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let lines = BufReader::new(serve.stderr.take().expect("it is piped")).lines();
    let mut log = String::new();
    for line in lines.map_while(Result::ok) {
        log += &line;
        if line.contains("ready") {
            break;
        }
    }
    serve.kill().expect("it runs");
    serve.wait().expect("it has ended");
    assert!(log.contains("WARN") && log.contains("ready"), "{log}");
    assert!(!log.contains('\x1b'), "{log}");
}

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    for arguments in [
        vec![],
        vec!["swim"],
        vec!["serve", "--pool-mode", "both"],
        vec!["serve", "--replica", "postgres://127.0.0.1"],
        vec!["explain"],
    ] {
        let output = causeway(&arguments, &[]);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&output).contains("--help"), "{arguments:?}");
    }
}
