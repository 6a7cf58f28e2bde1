//! The promise of the level `session`: everything that a connection wrote it reads back, and it
//! never sees less than it has already seen. Lag must not matter to it, and the same check at
//! `eventual` must fail: otherwise the check itself would prove nothing.

mod checker;
mod faults;
mod kinds;
mod stage;

use std::sync::Arc;
use std::time::Duration;

use causeway::lab::Lab;
use checker::{Errors, Plan, Progress, check, make_registers, quiet};
use stage::{NEAR, NEAR_TOO, PRIMARY};

const LAG: Duration = Duration::from_millis(200);
const PAUSE: Duration = Duration::from_millis(1500);
const PAUSES: u32 = 3;

const SESSIONS: i32 = 32;

fn at_session(name: &'static str, rounds: u64) -> Plan {
    Plan {
        name,
        level: "session",
        sessions: SESSIONS,
        rounds,
        errors: Errors::Fail,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_never_shows_at_session_and_does_at_eventual() {
    let lab = stage::lab().await;
    let causeway = stage::start(&lab).await;
    let mut pairs = 0;

    let plan = at_session("fresh replicas", 500);
    make_registers(&lab).await;
    let tally = check(&plan, &causeway, quiet).await;
    tally.assert_consistent(&plan);
    let share = 1.0 - tally.share_of(PRIMARY);
    println!("{:.1} % of the reads ran on replicas", share * 100.0);
    assert!(share > 0.1, "only {share:.2} of the reads ran near");
    pairs += tally.pairs;

    // One lags and the other does not: sessions move between them.
    let plan = at_session("one replica lags by 200 ms", 260);
    make_registers(&lab).await;
    lab.node(NEAR_TOO).set_apply_delay(LAG).await.unwrap();
    let tally = check(&plan, &causeway, quiet).await;
    tally.assert_consistent(&plan);
    assert!(tally.share_of(NEAR) > 0.0, "{:?}", tally.reads);
    pairs += tally.pairs;

    let plan = at_session("both replicas lag by 200 ms", 340);
    lab.node(NEAR_TOO)
        .set_apply_delay(Duration::ZERO)
        .await
        .unwrap();
    make_registers(&lab).await;
    lab.node(NEAR).set_apply_delay(LAG).await.unwrap();
    lab.node(NEAR_TOO).set_apply_delay(LAG).await.unwrap();
    let tally = check(&plan, &causeway, quiet).await;
    tally.assert_consistent(&plan);
    assert!(tally.share_of(PRIMARY) > 0.0, "{:?}", tally.reads);
    pairs += tally.pairs;

    // What the checker is worth.
    let plan = Plan {
        level: "eventual",
        ..at_session("both replicas lag by 200 ms, eventual", 50)
    };
    make_registers(&lab).await;
    let tally = check(&plan, &causeway, quiet).await;
    assert!(!tally.violations.is_empty(), "the checker sees nothing");

    let plan = at_session("replay pauses", 480);
    for replica in [NEAR, NEAR_TOO] {
        lab.node(replica)
            .set_apply_delay(Duration::ZERO)
            .await
            .unwrap();
    }
    make_registers(&lab).await;
    let tally = check(&plan, &causeway, |progress| pauses(&lab, progress)).await;
    tally.assert_consistent(&plan);
    assert!(tally.share_of(PRIMARY) > 0.0, "{:?}", tally.reads);
    pairs += tally.pairs;

    println!("{pairs} write-then-read pairs at session, no violation");
    assert!(pairs >= 50_000, "only {pairs} pairs");
}

/// Both replicas stand still for a while, several times; the sessions go on.
async fn pauses(lab: &Lab, progress: Arc<Progress>) {
    for _ in 0..PAUSES {
        stage::stand_still(lab).await;
        let before = progress.pairs();
        tokio::time::sleep(PAUSE).await;
        let during = progress.pairs() - before;
        stage::go_on(lab).await;
        println!("{during} pairs while replay stood still");
        assert!(during > 0, "nothing was answered while replay stood still");
    }
}
