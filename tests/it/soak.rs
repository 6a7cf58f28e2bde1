//! One harness for what the levels promise: read-your-writes, monotonic reads, causal order by tokens and
//! by keys through two Causeways over three regions, and bounded staleness, while everything goes wrong
//! that can ([`Trouble`]). Every promise is broken once, to show that the harness notices.
//!
//! `CAUSEWAY_SOAK_CHECKS=1000000` asks for so many checks, `CAUSEWAY_TROUBLE=PageBoundary` for that trouble
//! alone.

mod line;
mod tally;
mod trouble;
mod users;
mod world;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use causeway::routing::{Guarantee, Guarantees};
use tokio::time::{Instant, timeout};

use tally::Promise;
use trouble::Trouble;
use world::{Ends, Level, Plan, World};

/// So many checks for each trouble.
const CHECKS: u64 = 600;
/// The same where many are asked for.
const SOAK_CHECKS: u64 = 20_000;

/// Users work while one trouble after the other is made.
async fn run(plan: Plan, troubles: &[Trouble], checks: u64) -> Arc<World> {
    let world = World::new(plan, users::REGISTERS).await;
    let mut users = users::start(&world);
    for trouble in troubles {
        let (begun, before) = (Instant::now(), world.tally.checks_in_all());
        tokio::select! {
            () = trouble.make(&world, checks) => {}
            Some(ended) = users.join_next() => panic!("{trouble:?}: a user is gone: {ended:?}"),
        }
        let made = world.tally.checks_in_all() - before;
        println!("{trouble:?}: {made} checks in {:.1?}", begun.elapsed());
        if plan.ends == Ends::AfterTheScenes {
            world.tally.assert_kept(&format!("{trouble:?}"));
        }
    }
    world.over.store(true, Ordering::SeqCst);
    world.writes.allow_all();
    let ended = timeout(Duration::from_secs(60), users.join_all()).await;
    ended.expect("users come to an end");
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_levels_promise_holds_whatever_goes_wrong() {
    let wanted = std::env::var("CAUSEWAY_SOAK_CHECKS").ok();
    let wanted: u64 = wanted.map_or(0, |checks| checks.parse().expect("CAUSEWAY_SOAK_CHECKS"));
    let each = match wanted {
        0 => CHECKS,
        _ => SOAK_CHECKS,
    };
    let only = std::env::var("CAUSEWAY_TROUBLE").ok();
    let is_wanted = |trouble: &Trouble| {
        let name = format!("{trouble:?}");
        only.as_ref().is_none_or(|only| **only == *name)
    };
    let troubles: Vec<Trouble> = Trouble::ALL.into_iter().filter(is_wanted).collect();
    let (begun, mut made) = (Instant::now(), 0);
    loop {
        let world = run(Plan::default(), &troubles, each).await;
        world.tally.print("a run");
        world.tally.assert_kept("the end");
        let reads = world.tally.reads();
        let unread = world::REPLICAS
            .iter()
            .find(|name| !reads.contains_key(**name));
        assert_eq!(unread, None, "sessions read on {reads:?} only");
        made += world.tally.checks_in_all();
        println!("{made} checks in {:.1?}, no violation", begun.elapsed());
        if made >= wanted {
            break;
        }
    }
    assert!(made >= wanted.max(CHECKS * troubles.len() as u64));
}

/// Worlds in which a broken guarantee may hide before the harness counts as blind.
const WORLDS: u64 = 5;

/// Breaks a guarantee and demands that one of `promises` is found to be broken.
async fn finds(broken: Guarantee, trouble: Trouble, promises: &[Promise]) {
    let plan = Plan {
        guarantees: Guarantees::without(broken),
        level: Level::AsPromised,
        ends: Ends::AtTheFirstViolation,
    };
    let mut found = Vec::new();
    for round in 1..=WORLDS {
        let world = run(plan, &[trouble], round * 20_000).await;
        world.tally.print(&format!("without {broken:?}"));
        found.push(world.tally.violations());
        let mut promises = promises.iter();
        if promises.any(|promise| found.iter().any(|it| it.contains_key(promise))) {
            return;
        }
    }
    panic!("without {broken:?} the harness finds only {found:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_that_is_ignored_is_found() {
    let promises = [Promise::OwnWrites];
    finds(Guarantee::Captures, Trouble::ApplyDelay, &promises).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_nobody_asks_for_is_found() {
    let promises = [Promise::OwnWrites];
    finds(Guarantee::Numbers, Trouble::ApplyDelay, &promises).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_capture_that_counts_for_nothing_is_found() {
    let promises = [Promise::OwnWrites];
    finds(Guarantee::LostCaptures, Trouble::CapturesLost, &promises).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_header_that_counts_as_log_is_found() {
    let promises = [Promise::PageBoundary];
    finds(Guarantee::PageBoundaries, Trouble::PageBoundary, &promises).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leaving_a_replica_without_a_look_back_is_found() {
    let promises = [Promise::Monotonic];
    finds(Guarantee::HandOff, Trouble::OneReplicaLags, &promises).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_without_their_timeline_are_found() {
    let promises = [
        Promise::OwnWrites,
        Promise::Monotonic,
        Promise::ByToken,
        Promise::ByKey,
    ];
    finds(
        Guarantee::Timelines,
        Trouble::PromotionWithLostWal,
        &promises,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ignored_max_staleness_is_found() {
    let promises = [Promise::Staleness];
    finds(Guarantee::Staleness, Trouble::ReplayPaused, &promises).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ignored_token_is_found() {
    let promises = [Promise::ByToken];
    finds(Guarantee::Tokens, Trouble::ApplyDelay, &promises).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ignored_key_is_found() {
    let promises = [Promise::ByKey];
    finds(Guarantee::Keys, Trouble::ApplyDelay, &promises).await;
}

/// `eventual` promises none of it, and lag shows in every one.
#[tokio::test(flavor = "multi_thread")]
async fn at_eventual_every_promise_is_found_broken() {
    let plan = Plan {
        guarantees: Guarantees::default(),
        level: Level::Eventual,
        ends: Ends::Never,
    };
    let troubles = [Trouble::ReplayPaused, Trouble::OneReplicaLags];
    let world = run(plan, &troubles, 4 * CHECKS).await;
    world.tally.print("at eventual");
    let found = world.tally.violations();
    for promise in [
        Promise::OwnWrites,
        Promise::Monotonic,
        Promise::ByToken,
        Promise::ByKey,
        Promise::Staleness,
    ] {
        assert!(found.contains_key(&promise), "{promise:?} in {found:#?}");
    }
}
