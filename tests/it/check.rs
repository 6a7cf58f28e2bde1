//! `causeway check` against real clusters: each thing that can be wrong is found and named.

use std::fs;

use causeway::app::check::check;
use causeway::config::flags::{Cli, Command};
use causeway::config::load_with_origins;
use causeway::lab::{
    APP_DATABASE, APP_USER, Lab, LabNode, MONITOR_USER, Mode, PASSWORD, SUPERUSER,
};
use clap::Parser;

/// `HOST:PORT` of a node, as `check` names it.
fn name(node: &LabNode) -> String {
    format!("127.0.0.1:{}", node.port())
}

fn primary_url(lab: &Lab) -> String {
    lab.node("us-east")
        .url(MONITOR_USER, PASSWORD, APP_DATABASE)
}

/// A primary `us-east` and a replica `eu-west` that has received what was written after its start, so
/// that it streams.
async fn streaming_lab() -> Lab {
    streams(Lab::small().await.unwrap()).await
}

/// A lab of another system identifier than all quick ones.
async fn foreign_lab() -> Lab {
    let built = Lab::builder().primary("us-east").replica("eu-west").build();
    streams(built.await.unwrap()).await
}

/// The lab, as soon as its replica streams.
async fn streams(lab: Lab) -> Lab {
    let primary = lab
        .node("us-east")
        .connect(SUPERUSER, APP_DATABASE)
        .await
        .unwrap();
    primary
        .batch_execute("CREATE TABLE streamed ()")
        .await
        .unwrap();
    lab.wait_caught_up("eu-west").await.unwrap();
    lab
}

/// What `check` says with these arguments, line by line, less the versions and times; and whether
/// it would end well.
async fn findings(arguments: &[&str]) -> (bool, Vec<String>) {
    let arguments = ["causeway", "check"].iter().chain(arguments);
    let Command::Check(flags) = Cli::parse_from(arguments).command else {
        panic!("not check");
    };
    let report = check(&load_with_origins(&flags).expect("good settings")).await;
    let text = report.to_string();
    let lines = text.lines().map(|line| match line.split_once(", ") {
        Some((node, _)) if line.starts_with("ok ") => node.to_owned(),
        _ => line.to_owned(),
    });
    (report.is_good(), lines.collect())
}

#[tokio::test]
async fn a_good_cluster_passes() {
    let lab = streaming_lab().await;
    let east = name(lab.node("us-east"));
    let west = name(lab.node("eu-west"));
    let (good, lines) = findings(&[
        "--primary",
        &primary_url(&lab),
        "--replica",
        &format!("postgres://{west}?max_connections=20"),
    ])
    .await;
    assert_eq!(
        lines,
        [
            format!("ok       {east}: primary"),
            format!("ok       {west}: replica"),
            "nodes: 2, problems: 0, warnings: 0".to_owned(),
        ]
    );
    assert!(good);
}

#[tokio::test]
async fn whatever_is_wrong_is_named() {
    let lab = streaming_lab().await;
    let foreign = foreign_lab().await;
    let east = name(lab.node("us-east"));
    let west = name(lab.node("eu-west"));
    let stranger = name(foreign.node("eu-west"));
    let url = |user: &str, password: &str, database: &str| {
        lab.node("us-east").url(user, password, database)
    };

    for (arguments, expected) in [
        (
            vec![
                "--primary".to_owned(),
                url(MONITOR_USER, "wrong", APP_DATABASE),
            ],
            vec![
                format!(
                    "problem  --primary: {east}: the monitor cannot log in as `monitor` to database `app`: \
                     password authentication failed for user \"monitor\" (SQLSTATE 28P01)"
                ),
                "problem  no primary was seen; 1 of 1 nodes did not answer".to_owned(),
                "nodes: 1, problems: 2, warnings: 0".to_owned(),
            ],
        ),
        (
            vec![
                "--primary".to_owned(),
                url(MONITOR_USER, PASSWORD, "nowhere"),
            ],
            vec![
                format!(
                    "problem  --primary: {east}: the monitor cannot log in as `monitor` to database `nowhere`: \
                     database \"nowhere\" does not exist (SQLSTATE 3D000)"
                ),
                "problem  no primary was seen; 1 of 1 nodes did not answer".to_owned(),
                "nodes: 1, problems: 2, warnings: 0".to_owned(),
            ],
        ),
        (
            vec![
                "--primary".to_owned(),
                url(APP_USER, PASSWORD, APP_DATABASE),
                "--replica".to_owned(),
                format!("postgres://{west}?max_connections=5000"),
                "--replica".to_owned(),
                format!("postgres://{stranger}"),
                "--replica".to_owned(),
                format!(
                    "postgres://localhost:{}?sslmode=require",
                    lab.node("eu-west").port()
                ),
            ],
            vec![
                format!("ok       {east}: primary"),
                format!("ok       {west}: replica"),
                format!(
                    "problem  --replica (number 1): {west}: max_connections is 5000, \
                     but the server has only {} for ordinary users",
                    ordinary_connections(lab.node("eu-west")).await
                ),
                hidden(&west),
                format!("ok       {stranger}: replica"),
                hidden(&stranger),
                format!(
                    "problem  --replica (number 3): localhost:{}: error performing TLS handshake: \
                     server does not support TLS",
                    lab.node("eu-west").port()
                ),
                format!(
                    "problem  --replica (number 2): {stranger}: it belongs to another cluster: \
                     its system identifier is {}, that of {east} is {}",
                    system_identifier(&foreign).await,
                    system_identifier(&lab).await
                ),
                "nodes: 4, problems: 3, warnings: 2".to_owned(),
            ],
        ),
    ] {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let (good, lines) = findings(&arguments).await;
        assert_eq!(lines, expected);
        assert!(!good);
    }
}

#[tokio::test]
async fn a_user_of_the_file_who_cannot_log_in_is_found_at_his_line() {
    let lab = streaming_lab().await;
    let node = lab.node("us-east");
    let path = lab.directory().join("proxy.toml");
    let settings = format!(
        "[[nodes]]\nhost = \"127.0.0.1\"\nport = {}\nmax_connections = 20\n\
         [[users]]\nname = \"{APP_USER}\"\npassword = \"stale\"\n\
         [monitor]\nuser = \"{MONITOR_USER}\"\npassword = \"{PASSWORD}\"\n",
        node.port()
    );
    fs::write(&path, settings).unwrap();
    let path = path.to_str().unwrap();
    let (good, lines) = findings(&["--config", path]).await;
    assert_eq!(
        lines[1..],
        [
            format!(
                "problem  {path}:7:12: {}: user `app` cannot log in: \
                 password authentication failed for user \"app\" (SQLSTATE 28P01)",
                name(node)
            ),
            "nodes: 1, problems: 1, warnings: 0".to_owned(),
        ]
    );
    assert!(!good);
}

#[tokio::test]
async fn two_primaries_and_a_stopped_node_are_found() {
    let lab = streaming_lab().await;
    let (east, west) = (lab.node("us-east"), lab.node("eu-west"));
    let primary = primary_url(&lab);
    let replica = format!("postgres://{}", name(west));
    let arguments = ["--primary", &primary, "--replica", &replica];
    west.promote().await.unwrap();
    let (good, lines) = findings(&arguments).await;
    assert_eq!(
        lines[2],
        format!(
            "problem  several nodes are primaries: {}, {}",
            name(east),
            name(west)
        )
    );
    assert!(!good);
    east.stop(Mode::Fast).await.unwrap();
    let (good, lines) = findings(&arguments).await;
    assert_eq!(
        lines,
        [
            format!(
                "problem  --primary: {0}: cannot connect to {0}: Connection refused (os error 111)",
                name(east)
            ),
            format!("ok       {}: primary", name(west)),
            "nodes: 2, problems: 1, warnings: 0".to_owned(),
        ]
    );
    assert!(!good);
}

fn hidden(node: &str) -> String {
    format!(
        "warning  --primary: {node}: `app` may not see what this replica receives \
         (pg_stat_wal_receiver.received_tli), so after a failover the replica stays unused until its \
         next restartpoint: GRANT pg_monitor TO app"
    )
}

async fn ordinary_connections(node: &LabNode) -> i32 {
    let client = node.connect(SUPERUSER, APP_DATABASE).await.unwrap();
    let query = "SELECT current_setting('max_connections')::int
                      - current_setting('superuser_reserved_connections')::int";
    client.query_one(query, &[]).await.unwrap().get(0)
}

async fn system_identifier(lab: &Lab) -> i64 {
    let client = lab
        .node("us-east")
        .connect(SUPERUSER, APP_DATABASE)
        .await
        .unwrap();
    let query = "SELECT system_identifier FROM pg_control_system()";
    client.query_one(query, &[]).await.unwrap().get(0)
}
