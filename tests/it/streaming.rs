//! What is large passes through in bounded memory. The proxy runs as a process of its own, so that
//! its memory can be told.
//!
//! Sizes are small enough for a debug build; `CAUSEWAY_FULL=1` asks for those that the project
//! promises: a result and a COPY of 1 GB, a value and a parameter of 200 MB.

use causeway::lab::Lab;

use crate::process::Process;
use crate::raw::{Raw, bind, copy_done, execute, head, parse, query, show, sync};

const MB: usize = 1_000_000;
/// The process may not have needed more at any time, in kB: code, runtime and a few buffers.
const MEMORY_KB: usize = 64_000;

/// `full` if the promised sizes are asked for.
fn size(full: usize, otherwise: usize) -> usize {
    match std::env::var_os("CAUSEWAY_FULL") {
        Some(_) => full,
        None => otherwise,
    }
}

impl Process {
    fn stays_small(&self, what: &str) {
        let peak = self.peak_kb();
        println!("{what}: at most {peak} kB");
        assert!(peak < MEMORY_KB, "{what}: {peak} kB");
    }
}

/// Sends a message with a body of `size` bytes, of which `body` gives the ends and `x` the rest.
async fn send_large(raw: &mut Raw, tag: u8, size: usize, begin: &[u8], end: &[u8]) {
    raw.send(&head(tag, size)).await;
    raw.send(begin).await;
    let mut left = size - begin.len() - end.len();
    let chunk = vec![b'x'; 1 << 16];
    while left > 0 {
        let count = left.min(chunk.len());
        raw.send(&chunk[..count]).await;
        left -= count;
    }
    raw.send(end).await;
}

#[tokio::test]
async fn large_things_pass_in_bounded_memory() {
    let lab = Lab::small().await.unwrap();
    let process = Process::start(&lab, &[]).await;
    let mut raw = process.client().await;
    raw.query("CREATE TABLE t (a text); ALTER TABLE t ALTER a SET STORAGE EXTERNAL")
        .await;
    raw.query("SELECT count(*) FROM t").await;

    // Many rows, in both protocols.
    let rows = size(1000, 100) * MB / 10_000;
    let sql = format!("SELECT repeat('x', 10000) FROM generate_series(1, {rows})");
    raw.send(&query(&sql)).await;
    assert!(raw.swallow().await > rows * 10_000);
    process.stays_small("rows");
    raw.send(&[parse("", &sql), bind("", "", &[]), execute("", 0), sync()].concat())
        .await;
    assert!(raw.swallow().await > rows * 10_000);
    process.stays_small("rows, extended");

    // One value.
    let value = size(200, 50) * MB;
    raw.send(&query(&format!("SELECT repeat('x', {value})")))
        .await;
    assert!(raw.swallow().await > value);
    process.stays_small("a value");

    // COPY, out and in; the latter also as one single message.
    raw.send(&query(&format!("COPY ({sql}) TO STDOUT"))).await;
    assert!(raw.swallow().await > rows * 10_000);
    process.stays_small("COPY out");
    raw.query("BEGIN").await;
    raw.send(&query("COPY t FROM STDIN")).await;
    raw.until(b'G', 1).await;
    let line = [head(b'd', 10_000), vec![b'x'; 9_999], vec![b'\n']].concat();
    let count = size(1000, 50) * MB / 10_000;
    for _ in 0..count {
        raw.send(&line).await;
    }
    raw.send(&copy_done()).await;
    assert_eq!(
        show(&raw.until_ready().await),
        format!("C(COPY {count}) Z(T)")
    );
    process.stays_small("COPY in");
    raw.query("ROLLBACK").await;
    raw.query("BEGIN").await;
    raw.send(&query("COPY t FROM STDIN")).await;
    raw.until(b'G', 1).await;
    send_large(&mut raw, b'd', value, b"", b"\n").await;
    raw.send(&copy_done()).await;
    assert_eq!(show(&raw.until_ready().await), "C(COPY 1) Z(T)");
    process.stays_small("a COPY message");
    raw.query("ROLLBACK").await;

    // A parameter, of an unnamed and of a named statement.
    for name in ["", "s"] {
        let parameter = size(200, 50) * MB;
        raw.send(&parse(name, "SELECT length($1::text)")).await;
        let begin = [
            b"\0",
            name.as_bytes(),
            b"\0\0\0\0\x01",
            &(parameter as u32).to_be_bytes(),
        ];
        let begin = begin.concat();
        send_large(&mut raw, b'B', begin.len() + parameter + 2, &begin, b"\0\0").await;
        raw.send(&[execute("", 0), sync()].concat()).await;
        let expected = format!("1 2 D({parameter}) C(SELECT 1) Z(I)");
        assert_eq!(show(&raw.until_ready().await), expected);
        process.stays_small("a parameter");
    }
    assert_eq!(
        raw.query("SELECT count(*) FROM t").await,
        "T D(0) C(SELECT 1) Z(I)"
    );
}

#[tokio::test]
async fn slow_clients_do_not_make_it_grow() {
    let lab = Lab::small().await.unwrap();
    let process = Process::start(&lab, &[]).await;
    // They ask for much, on either node, and read nothing.
    let mut slow = Vec::new();
    for number in 0..8 {
        let mut raw = process.client().await;
        let locks = if number % 2 == 0 {
            ""
        } else {
            ", txid_current()"
        };
        let sql = format!("SELECT repeat('x', 10000){locks} FROM generate_series(1, 1000000)");
        raw.send(&query(&sql)).await;
        raw.until(b'D', 1).await;
        slow.push(raw);
    }
    // Others are served meanwhile.
    let mut raw = process.client().await;
    for number in 0..200 {
        let expected = format!("T D({number}) C(SELECT 1) Z(I)");
        assert_eq!(raw.query(&format!("SELECT {number}")).await, expected);
    }
    process.stays_small("slow clients");
    // One sends without end and reads no answer: it is not read any further at some time.
    let mut greedy = process.client().await;
    let many = query("SELECT repeat('y', 100000)").repeat(1000);
    let sending = async {
        for _ in 0..1000 {
            greedy.send(&many).await;
        }
    };
    tokio::pin!(sending);
    let mut sent = false;
    for number in 0..200 {
        tokio::select! {
            biased;
            () = &mut sending, if !sent => sent = true,
            answer = raw.query("SELECT 1") => assert!(answer.ends_with("Z(I)"), "{number}"),
        }
    }
    assert!(
        !sent,
        "everything was taken from a client that reads nothing"
    );
    process.stays_small("a client that only sends");
}

#[tokio::test]
async fn a_long_text_is_taken_whole() {
    let lab = Lab::small().await.unwrap();
    let process = Process::start(&lab, &[]).await;
    let mut raw = process.client().await;
    let length = size(60, 20) * MB;
    let sql = format!("SELECT length('{}')", "x".repeat(length));
    let expected = format!("D({length}) C(SELECT 1) Z(I)");
    assert_eq!(raw.query(&sql).await, format!("T {expected}"));
    let answer = raw
        .exchange(&[parse("", &sql), bind("", "", &[]), execute("", 0), sync()])
        .await;
    assert_eq!(answer, format!("1 2 {expected}"));
}
