//! A COMMIT and the question for the position behind it: one cycle, of which the client sees the
//! first half, however the second ends.

use crate::front::{Front, ask, until_known};
use crate::habit::{captures, talkative};
use crate::raw::{Raw, bind, execute, parse, query, show, sync};

/// A Causeway beside a replica that replays nothing, a table that has been read there, and a
/// session that reads what it writes.
async fn front() -> (Front, Raw) {
    let front = talkative("eu-west").await;
    let client = front.client().await;
    let tables = "CREATE TABLE parent (id int PRIMARY KEY); \
        CREATE TABLE child (id int REFERENCES parent DEFERRABLE INITIALLY DEFERRED); \
        CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN \
            RETURN CASE WHEN pg_terminate_backend(pg_backend_pid()) THEN NULL END; \
        END$$; \
        CREATE CONSTRAINT TRIGGER die AFTER INSERT ON parent DEFERRABLE INITIALLY DEFERRED \
            FOR EACH ROW WHEN (NEW.id < 0) EXECUTE FUNCTION die()";
    client.batch_execute(tables).await.unwrap();
    for table in ["parent", "child"] {
        until_known(&client, table).await;
    }
    front.lab.wait_caught_up("eu-west").await.unwrap();
    let count = ask(&client, "SELECT count(*) FROM parent").await;
    assert_eq!(count, "0");
    front.lab.node("eu-west").pause_replay().await.unwrap();
    let raw = front.raw().await;
    (front, raw)
}

/// COMMIT, as a Query and as an extended one.
fn commits() -> [Vec<Vec<u8>>; 3] {
    [
        vec![query("COMMIT")],
        vec![query(" commit ; ")],
        extended("COMMIT"),
    ]
}

/// One cycle of the extended protocol.
fn extended(sql: &str) -> Vec<Vec<u8>> {
    vec![parse("", sql), bind("", "", &[]), execute("", 0), sync()]
}

/// The answer without what only an extended one has.
fn plain(answer: &str) -> &str {
    answer.trim_start_matches("1 2 ")
}

async fn begin(raw: &mut Raw, insert: &str) {
    assert_eq!(raw.query("BEGIN").await, "C(BEGIN) Z(T)");
    let answer = raw.query(insert).await;
    assert!(answer.starts_with("C(INSERT 0 1)"), "{answer}");
}

#[tokio::test]
async fn what_is_committed_is_read() {
    let (front, mut raw) = front().await;
    let earlier = front.primary().log().unwrap().len();
    for (number, commit) in commits().iter().enumerate() {
        let before = captures(&front);
        begin(&mut raw, &format!("INSERT INTO parent VALUES ({number})")).await;
        assert_eq!(plain(&raw.exchange(commit).await), "C(COMMIT) Z(I)");
        assert_eq!(captures(&front) - before, 1);
        let count = raw.query("SELECT count(*) FROM parent").await;
        let expected = format!("D({})", number + 1);
        assert!(count.contains(&expected), "{count}, not {expected}");
        // It waits for the position behind the read, which the primary has told of then.
        raw.query("SHOW causeway.last_route").await;
    }
    let log = front.primary().log().unwrap().split_off(earlier);
    let mut ours = log
        .lines()
        .filter(|line| !line.contains("causeway monitor"));
    // Only the extended one is as the client has sent it.
    assert!(!ours.any(|line| line.contains("statement: COMMIT")));
    let prepared = log.matches("execute causeway_commit: COMMIT").count();
    let sent = log.matches("execute <unnamed>: COMMIT").count();
    assert_eq!((prepared, sent), (2, 1));
}

#[tokio::test]
async fn the_prepared_commit_is_listed_for_nobody() {
    let (_front, mut raw) = front().await;
    let list = "SELECT count(*) FROM pg_prepared_statements WHERE name = 'causeway_commit'";
    let lists = [vec![query(list)], extended(list)];
    for (number, list) in lists.iter().enumerate() {
        begin(&mut raw, &format!("INSERT INTO parent VALUES ({number})")).await;
        assert_eq!(raw.query("COMMIT").await, "C(COMMIT) Z(I)");
        let answer = raw.exchange(list).await;
        assert!(answer.contains("D(0)"), "{answer}");
    }
}

#[tokio::test]
async fn a_comment_of_the_client_s_reaches_the_server() {
    let (front, mut raw) = front().await;
    begin(&mut raw, "INSERT INTO parent VALUES (1)").await;
    let answer = raw.query("COMMIT /* request 7 */").await;
    assert_eq!(answer, "C(COMMIT) Z(I)");
    let log = front.primary().log().unwrap();
    assert!(log.contains("statement: COMMIT /* request 7 */"));
}

#[tokio::test]
async fn one_that_fails_is_told_and_the_session_goes_on() {
    let (_front, mut raw) = front().await;
    for commit in commits() {
        begin(&mut raw, "INSERT INTO child VALUES (7)").await;
        let failed = raw.exchange(&commit).await;
        assert_eq!(plain(&failed), "E(23503) Z(I)");
        let count = raw.query("SELECT count(*) FROM child").await;
        assert!(count.contains("D(0)"), "{count}");

        // What follows at once waits for its turn.
        begin(&mut raw, "INSERT INTO child VALUES (7)").await;
        raw.send(&commit.concat()).await;
        raw.send(&query("SELECT count(*) FROM child")).await;
        let both = show(&raw.until(b'Z', 2).await);
        let failed = plain(&both);
        assert!(failed.starts_with("E(23503) Z(I) T"), "{both}");
        assert!(failed.ends_with("D(0) C(SELECT 1) Z(I)"), "{both}");
    }
}

#[tokio::test]
async fn one_that_is_told_stays_told_if_the_server_ends_behind_it() {
    let (front, mut raw) = front().await;
    let mut written = 0;
    for report in ["off", "on"] {
        raw.query(&format!("SET causeway.report = {report}")).await;
        for commit in commits() {
            written += 1;
            begin(&mut raw, &format!("INSERT INTO parent VALUES (-{written})")).await;
            let answer = raw.exchange(&commit).await;
            let answer = plain(&answer);
            assert!(answer.starts_with("C(COMMIT)"), "{answer}");
            assert!(answer.ends_with(" Z(I)"), "{answer}");
            // There is no position to report.
            assert!(!answer.contains("causeway.token"), "{answer}");
            // Nobody knows it, and the replica has nothing of what was written.
            let count = raw.query("SELECT count(*) FROM parent").await;
            let expected = format!("D({written})");
            assert!(count.contains(&expected), "{count}, not {expected}");
        }
    }
    let log = front.primary().log().unwrap();
    assert_eq!(log.matches("terminating connection").count(), written);
}
