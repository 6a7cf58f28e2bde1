//! Replication through the proxy, by PostgreSQL's own programs: each is one session with the primary.

use std::path::Path;
use std::process::Output;

use causeway::lab::{APP_DATABASE, Lab, PASSWORD, SUPERUSER};
use tokio::process::Command;
use tokio::time::timeout;

use crate::front::{Front, PATIENCE, ask};

async fn front() -> Front {
    let lab = Lab::builder()
        .quick()
        .primary("us-east")
        .replica("eu-west")
        .access_rule("host replication postgres 127.0.0.1/32 scram-sha-256");
    let front = Front::before(lab.build().await.unwrap(), |_| {}).await;
    let client = front.client().await;
    let table = "CREATE TABLE note (id int PRIMARY KEY, text text)";
    client.batch_execute(table).await.unwrap();
    front
}

/// Runs one of PostgreSQL's client programs against the proxy, to its end.
async fn run(front: &Front, program: &str, arguments: &[&str]) -> Output {
    let port = front.address().port().to_string();
    let mut command = Command::new(program);
    command
        .args(["-h", "127.0.0.1", "-p", &port, "-U", SUPERUSER])
        .args(arguments)
        .env("PGPASSWORD", PASSWORD)
        .env("LC_ALL", "C")
        .kill_on_drop(true);
    let output = timeout(PATIENCE * 2, command.output()).await;
    let output = output
        .unwrap_or_else(|_| panic!("{program} hangs"))
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program}: {output:?}");
    output
}

/// Some committed rows, written through the proxy; the position behind them.
async fn write(front: &Front, from: i32) -> String {
    let client = front.client().await;
    for id in from..from + 5 {
        let sql = format!("INSERT INTO note VALUES ({id}, 'row {id}')");
        client.batch_execute(&sql).await.unwrap();
    }
    let admin = front.admin().await;
    let position = ask(&admin, "SELECT pg_current_wal_insert_lsn()").await;
    // There is WAL behind the position: what waits for it need not wait for others' writes.
    ask(
        &admin,
        "SELECT pg_logical_emit_message(false, 'test', repeat('x', 20000))",
    )
    .await;
    position
}

#[tokio::test]
async fn a_base_backup_is_whole() {
    let front = front().await;
    write(&front, 1).await;
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path().join("base");
    let path = base.to_str().unwrap();
    let arguments = ["-D", path, "-X", "stream", "-c", "fast", "--no-sync"];
    run(&front, "pg_basebackup", &arguments).await;
    for file in [
        "PG_VERSION",
        "backup_label",
        "backup_manifest",
        "global/pg_control",
    ] {
        assert!(base.join(file).exists(), "no {file}");
    }
    // Every file of the manifest is there in its size.
    let manifest = std::fs::read_to_string(base.join("backup_manifest")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    let files = manifest["Files"].as_array().unwrap();
    assert!(files.len() > 500, "only {} files", files.len());
    for file in files {
        let Some(path) = file["Path"].as_str() else {
            continue;
        };
        let size = std::fs::metadata(base.join(path)).unwrap().len();
        assert_eq!(Some(size), file["Size"].as_u64(), "{path}");
    }
}

#[tokio::test]
async fn received_wal_is_the_primary_s() {
    let front = front().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let admin = front.admin().await;
    let segment = ask(&admin, "SELECT pg_walfile_name(pg_current_wal_lsn())").await;
    let position = write(&front, 1).await;
    // It begins at the start of the segment that the primary writes to.
    let arguments = ["-D", path, "--no-loop", "--endpos", &position];
    run(&front, "pg_receivewal", &arguments).await;
    let ours = directory.path().join(&segment);
    let ours = match ours.exists() {
        true => ours,
        false => directory.path().join(format!("{segment}.partial")),
    };
    let theirs = front
        .primary()
        .data_directory()
        .join("pg_wal")
        .join(&segment);
    let offset = ask(
        &admin,
        &format!("SELECT file_offset FROM pg_walfile_name_offset('{position}')"),
    )
    .await;
    let offset: usize = offset.parse().unwrap();
    assert!(offset > 0);
    assert!(
        begin(&ours, offset) == begin(&theirs, offset),
        "the first {offset} bytes of {segment} differ"
    );
}

fn begin(file: &Path, size: usize) -> Vec<u8> {
    let bytes = std::fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    bytes[..size].to_vec()
}

#[tokio::test]
async fn logical_decoding_gives_every_row_in_order() {
    let front = front().await;
    let slot = ["-d", APP_DATABASE, "--slot", "rows"];
    let with = |more: &[&'static str]| [&slot[..], more].concat();
    let create = with(&["--create-slot", "--plugin", "test_decoding"]);
    run(&front, "pg_recvlogical", &create).await;
    let position = write(&front, 1).await;
    let mut start = with(&["--start", "--no-loop", "-f", "-", "--endpos"]);
    start.push(&position);
    let output = run(&front, "pg_recvlogical", &start).await;
    let text = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("INSERT"))
        .collect();
    assert_eq!(rows.len(), 5, "{text}");
    for (row, id) in rows.iter().zip(1..) {
        assert!(row.contains(&format!("'row {id}'")), "{text}");
    }
    run(&front, "pg_recvlogical", &with(&["--drop-slot"])).await;
    let slots = "SELECT count(*) FROM pg_replication_slots";
    assert_eq!(ask(&front.admin().await, slots).await, "0");
}
