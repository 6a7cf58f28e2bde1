use super::*;
use crate::monitor::fold::{Following, Identity};
use crate::routing::{NodeName, Observation, SystemId, WalGeometry};

const P: NodeIndex = NodeIndex(0);
const R: NodeIndex = NodeIndex(1);
/// Longer than any test run: what waits for it in vain hangs.
const EVER: Duration = Duration::from_secs(100_000);

fn feed() -> Feed {
    let node = |index: u8| Node {
        name: NodeName(format!("n{index}").into()),
        index: NodeIndex(index),
        address: "127.0.0.1:5432".into(),
        region: None,
        weight: 100,
        state: NodeState::Unknown,
        round_trip: None,
        furthest: Lsn::ZERO,
    };
    Feed::new((0..2).map(node).collect())
}

fn tell(feed: &Feed, node: NodeIndex, role: Role, timeline: u32, lsn: u64) {
    tell_shown(feed, node, role, timeline, lsn, &[]);
}

fn tell_shown(feed: &Feed, node: NodeIndex, role: Role, timeline: u32, lsn: u64, shown: &[Xid]) {
    let now = Instant::now();
    feed.board().publish(
        node,
        Outcome::Answered {
            observation: Observation {
                started: now,
                finished: now,
                connected: now,
                role,
                lsn: Lsn(lsn),
                received: None,
                timeline: None,
                branched_at: None,
                clock: None,
                tells_transactions: true,
            },
            following: Following::Streams(Timeline(timeline)),
            identity: Identity {
                system: SystemId(1),
                geometry: WalGeometry::default(),
            },
        },
        shown.into(),
    );
}

fn fail(feed: &Feed, node: NodeIndex) {
    let (at, reason) = (Instant::now(), "no route".into());
    feed.board()
        .publish(node, Outcome::Failed { at, reason }, Arc::default());
}

fn cluster() -> Feed {
    let feed = feed();
    tell(&feed, P, Role::Primary, 1, 100);
    tell(&feed, R, Role::Replica, 1, 90);
    feed
}

/// Lets `future` run until it waits for somebody else.
async fn begin<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
) -> tokio::task::JoinHandle<T> {
    let task = tokio::spawn(future);
    tokio::task::yield_now().await;
    task
}

#[tokio::test]
async fn a_position_that_is_already_reached_needs_no_time() {
    let feed = cluster();
    assert!(feed.reached(R, Lsn(90), Duration::ZERO).await);
    assert!(!feed.reached(R, Lsn(91), Duration::ZERO).await);
    assert!(
        !feed.reached(NodeIndex(7), Lsn(0), EVER).await,
        "no such node"
    );
}

#[tokio::test]
async fn all_who_wait_are_served_by_what_is_published() {
    let feed = cluster();
    let wait = |lsn: u64| {
        let feed = feed.clone();
        begin(async move { feed.reached(R, Lsn(lsn), EVER).await })
    };
    let (near, far) = (wait(95).await, wait(100).await);
    tell(&feed, R, Role::Replica, 1, 97);
    assert!(near.await.unwrap());
    // Going away and coming back does not end the wait.
    fail(&feed, R);
    tell(&feed, R, Role::Replica, 1, 99);
    tokio::task::yield_now().await;
    assert!(!far.is_finished());
    tell(&feed, R, Role::Replica, 1, 100);
    assert!(far.await.unwrap());
}

#[tokio::test]
async fn a_position_means_nothing_on_another_timeline() {
    let feed = cluster();
    let waiting = {
        let feed = feed.clone();
        begin(async move { feed.reached(R, Lsn(95), EVER).await }).await
    };
    tell(&feed, R, Role::Primary, 2, 99);
    assert!(!waiting.await.unwrap());
}

#[tokio::test]
async fn a_transaction_is_asked_for_while_somebody_waits_for_it() {
    let feed = cluster();
    let post = feed.board().post(R).unwrap();
    let wait = |xid| {
        let feed = feed.clone();
        begin(async move { feed.shown(R, Timeline(1), Xid(xid), EVER).await })
    };
    let (first, same, other) = (wait(7).await, wait(7).await, wait(5).await);
    assert_eq!(post.looks_again(), [Xid(5), Xid(7)]);
    tell_shown(&feed, R, Role::Replica, 1, 97, &[Xid(7)]);
    let connected = feed.topology().node(R).observation().unwrap().connected;
    assert_eq!(first.await.unwrap(), Some(connected));
    assert_eq!(same.await.unwrap(), Some(connected));
    assert_eq!(post.looks_again(), [Xid(5)]);
    // What another node tells, or the same one on another timeline, is nothing.
    tell_shown(&feed, P, Role::Primary, 1, 100, &[Xid(5)]);
    tokio::task::yield_now().await;
    assert!(!other.is_finished());
    tell_shown(&feed, R, Role::Primary, 2, 100, &[Xid(5)]);
    assert_eq!(other.await.unwrap(), None);
    assert_eq!(post.looks_again(), []);
    assert!(
        feed.shown(NodeIndex(7), Timeline(1), Xid(1), EVER)
            .await
            .is_none()
    );
}

#[tokio::test]
async fn a_server_just_opened_waits_for_a_probe_that_is_younger() {
    let feed = cluster();
    let opened = Instant::now();
    assert!(!feed.seen_since(R, opened, Duration::ZERO).await);
    let waiting = {
        let feed = feed.clone();
        begin(async move { feed.seen_since(R, opened, EVER).await }).await
    };
    tell(&feed, P, Role::Primary, 1, 100);
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished(), "another node's answer");
    tell(&feed, R, Role::Replica, 1, 90);
    assert!(waiting.await.unwrap());
    let vouches = |seen: &Observation| seen.vouches_for(opened);
    assert!(feed.topology().node(R).observation().is_some_and(vouches));
}

#[tokio::test]
async fn a_node_is_wanted_soon_exactly_while_somebody_waits() {
    let feed = cluster();
    let post = feed.board().post(R).unwrap();
    assert!(!post.is_eager());
    let waiters: Vec<_> = [95, 96]
        .map(|lsn| {
            let feed = feed.clone();
            tokio::spawn(async move { feed.reached(R, Lsn(lsn), EVER).await })
        })
        .into();
    post.woken().await;
    for waiter in waiters {
        assert!(post.is_eager());
        waiter.abort();
        assert!(waiter.await.unwrap_err().is_cancelled());
    }
    assert!(!post.is_eager(), "whoever is cancelled waits no more");
    assert!(!feed.board().post(P).unwrap().is_eager());
}

#[tokio::test]
async fn a_suspicion_is_dealt_with_by_one_probe() {
    let feed = cluster();
    let post = feed.board().post(R).unwrap();
    feed.suspect(R);
    feed.suspect(R);
    post.woken().await;
    assert!(post.is_eager());
    post.looks_again();
    assert!(!post.is_eager());
}

#[tokio::test]
async fn the_first_look_is_over_when_every_node_was_looked_at() {
    let feed = feed();
    let looking = {
        let feed = feed.clone();
        begin(async move { feed.first_look(EVER).await }).await
    };
    tell(&feed, P, Role::Primary, 1, 100);
    tokio::task::yield_now().await;
    assert!(!looking.is_finished());
    fail(&feed, R);
    looking.await.unwrap();
    feed.first_look(Duration::ZERO).await;
}

#[tokio::test]
async fn a_primary_is_waited_for() {
    let feed = cluster();
    assert_eq!(feed.primary_within(Duration::ZERO).await, Some(P));
    fail(&feed, P);
    assert_eq!(feed.primary_within(Duration::ZERO).await, None);
    let waiting = {
        let feed = feed.clone();
        begin(async move { feed.primary_within(EVER).await }).await
    };
    tell(&feed, R, Role::Primary, 2, 100);
    assert_eq!(waiting.await.unwrap(), Some(R));
}

#[test]
fn a_snapshot_stays_as_it_was() {
    let feed = cluster();
    let before = feed.topology().clone();
    fail(&feed, P);
    assert_eq!((before.primary, feed.topology().primary), (Some(P), None));
}
