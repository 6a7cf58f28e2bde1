//! Where cycles run that are answered bit by bit, behind a Flush: on the node that can run all that may
//! come. Each node has a port of its own, and says so.

use std::time::Instant;

use crate::front::{Front, PATIENCE, until_known};
use crate::raw::{Raw, bind, close_portal, close_statement, execute, flush, parse, show, sync};

/// A row for each number, and the node that gives it.
const ROWS: &str = "SELECT n, current_setting('port') FROM generate_series(1, 3) n, one";

async fn front() -> Front {
    let front = Front::small().await;
    let client = front.client().await;
    let table = "CREATE TABLE one (); INSERT INTO one DEFAULT VALUES; CREATE TABLE note (id int)";
    client.batch_execute(table).await.unwrap();
    until_known(&client, "one").await;
    until_known(&client, "note").await;
    front.lab.wait_caught_up("eu-west").await.unwrap();
    front
}

/// Sends messages and reads to the `count`th answer of type `tag`.
async fn ask(raw: &mut Raw, tag: u8, count: usize, messages: &[Vec<u8>]) -> String {
    raw.send(&messages.concat()).await;
    show(&raw.until(tag, count).await)
}

#[tokio::test]
async fn what_is_run_to_its_end_behind_a_flush_reads_near() {
    let front = front().await;
    let near = front.lab.node("eu-west").port();
    let rows = format!("D(1,{near}) D(2,{near}) D(3,{near}) C(SELECT 3)");
    let mut raw = front.raw().await;
    let closed = [
        parse("s", ROWS),
        bind("p", "s", &[]),
        execute("p", 2),
        close_portal("p"),
    ];
    let deadline = Instant::now() + PATIENCE;
    // It does so as soon as the replica has what the session must see.
    loop {
        let run = [parse("", ROWS), bind("", "", &[]), execute("", 0), flush()];
        let first = ask(&mut raw, b'C', 1, &run).await;
        let again = [bind("", "", &[]), execute("", 0), flush()];
        let second = ask(&mut raw, b'C', 1, &again).await;
        let third = ask(&mut raw, b'3', 1, &[&closed[..], &[flush()]].concat()).await;
        let last = [
            bind("", "s", &[]),
            execute("", 0),
            close_statement("s"),
            sync(),
        ];
        let fourth = raw.exchange(&last).await;
        let answers = [first, second, third, fourth];
        let expected = [
            format!("1 2 {rows}"),
            format!("2 {rows}"),
            format!("1 2 D(1,{near}) D(2,{near}) s 3"),
            format!("2 {rows} 3 Z(I)"),
        ];
        if answers == expected {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{answers:#?}, never {expected:#?}"
        );
    }
}

#[tokio::test]
async fn what_stays_open_behind_a_flush_goes_on_behind_a_write() {
    let front = front().await;
    let primary = front.primary().port();
    let mut raw = front.raw().await;
    for portal in ["", "p"] {
        let limited = [
            parse("s", ROWS),
            bind(portal, "s", &[]),
            execute(portal, 1),
            flush(),
        ];
        let first = ask(&mut raw, b's', 1, &limited).await;
        assert_eq!(first, format!("1 2 D(1,{primary}) s"));
        let write = [
            parse("w", "INSERT INTO note VALUES (7)"),
            bind("w", "w", &[]),
            execute("w", 0),
            flush(),
        ];
        let written = ask(&mut raw, b'C', 1, &write).await;
        assert_eq!(written, "1 2 C(INSERT 0 1)");
        let second = ask(&mut raw, b's', 1, &[execute(portal, 1), flush()]).await;
        assert_eq!(second, format!("D(2,{primary}) s"));
        let last = [
            execute(portal, 0),
            close_statement("s"),
            close_statement("w"),
            sync(),
        ];
        let last = raw.exchange(&last).await;
        assert_eq!(last, format!("D(3,{primary}) C(SELECT 1) 3 3 Z(I)"));
    }
    let count = raw.query("SELECT count(*) FROM note").await;
    assert_eq!(count, "T D(2) C(SELECT 1) Z(I)");
}
