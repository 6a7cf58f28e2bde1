//! What sessions see of the monitor: the newest topology, and waiting for it to change.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tracing::{info, warn};

use super::fold::{Fold, Outcome};
use crate::routing::{Lsn, Node, NodeIndex, NodeState, Role, Timeline, Topology, Xid};

/// A cheap handle on what the monitor publishes. It outlives the monitor, and then stands still.
#[derive(Clone)]
pub struct Feed {
    board: Arc<Board>,
}

/// Where probe loops publish and sessions look.
pub(super) struct Board {
    topology: ArcSwap<Topology>,
    fold: Mutex<Fold>,
    posts: Box<[Post]>,
    summary: watch::Sender<Summary>,
}

/// What rarely changes and is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Summary {
    primary: Option<NodeIndex>,
    timeline: Option<Timeline>,
    all_looked_at: bool,
}

/// Where one node's probe loop and those who wait for the node meet.
pub(super) struct Post {
    /// Its last answer while it may be used.
    answer: watch::Sender<Option<Answer>>,
    waiters: AtomicUsize,
    /// Transactions that are waited for, one entry for each waiter.
    wanted: Mutex<Vec<Xid>>,
    suspected: AtomicBool,
    wake: Notify,
}

/// As much of an observation as anybody waits for.
#[derive(Clone, Debug)]
struct Answer {
    timeline: Timeline,
    lsn: Lsn,
    started: Instant,
    connected: Instant,
    /// Those of the wanted transactions that the node showed before it told its timeline.
    shown: Arc<[Xid]>,
}

impl Feed {
    pub(super) fn new(nodes: Vec<Node>) -> Feed {
        let posts = nodes.iter().map(|_| Post::new()).collect();
        let fold = Fold::new(nodes);
        let board = Board {
            topology: ArcSwap::from_pointee(fold.topology().clone()),
            summary: watch::Sender::new(Summary {
                primary: None,
                timeline: None,
                all_looked_at: fold.all_looked_at(),
            }),
            fold: Mutex::new(fold),
            posts,
        };
        Feed {
            board: Arc::new(board),
        }
    }

    pub(super) fn board(&self) -> &Board {
        &self.board
    }

    /// The newest topology. Lock-free; for the length of one decision. What is kept longer is
    /// better cloned out of the guard.
    pub fn topology(&self) -> Guard<Arc<Topology>> {
        self.board.topology.load()
    }

    /// Waits until `node` is seen to have reached `lsn` on the present timeline. False when that
    /// takes longer than `at_most`, or when the timeline changes: then the position means nothing
    /// any more.
    ///
    /// The node is probed every `wait_interval` while anybody waits. Whoever has waited chooses
    /// again with a fresh topology, which says whether the answer still holds. Cancel safe.
    pub async fn reached(&self, node: NodeIndex, lsn: Lsn, at_most: Duration) -> bool {
        let timeline = self.topology().timeline;
        let decided = |answer: &Answer| answer.lsn >= lsn || Some(answer.timeline) != timeline;
        let answer = self.answer(node, at_most, decided).await;
        answer.is_some_and(|answer| Some(answer.timeline) == timeline)
    }

    /// As [`reached`](Feed::reached), until `node` is seen to show what transaction `xid` of `timeline` has committed.
    /// Gives when the connection was opened that has told so.
    pub async fn shown(
        &self,
        node: NodeIndex,
        timeline: Timeline,
        xid: Xid,
        at_most: Duration,
    ) -> Option<Instant> {
        let _wanted = Wanted::new(self.board.post(node)?, xid);
        let decided = |answer: &Answer| answer.timeline != timeline || answer.shown.contains(&xid);
        let answer = self.answer(node, at_most, decided).await?;
        (answer.timeline == timeline).then_some(answer.connected)
    }

    /// Waits until `node` has answered a probe that started at `moment` or later, as a server
    /// opened at `moment` needs before it may be trusted with a floor (see
    /// [`Observation::vouches_for`](crate::routing::Observation::vouches_for)). False when that
    /// takes longer than `at_most`. Probes as [`reached`](Feed::reached) does. Cancel safe.
    pub async fn seen_since(&self, node: NodeIndex, moment: Instant, at_most: Duration) -> bool {
        let since = |answer: &Answer| answer.started >= moment;
        self.answer(node, at_most, since).await.is_some()
    }

    /// The first answer of `node`, the last one included, that `fits`.
    async fn answer(
        &self,
        node: NodeIndex,
        at_most: Duration,
        fits: impl Fn(&Answer) -> bool,
    ) -> Option<Answer> {
        let post = self.board.post(node)?;
        let mut answers = post.answer.subscribe();
        let _waiter = Waiter::new(post);
        let fitting = answers.wait_for(|answer| answer.as_ref().is_some_and(&fits));
        (*timeout(at_most, fitting).await.ok()?.ok()?).clone()
    }

    /// A session saw a connection to `node` fail: it is probed at once.
    pub fn suspect(&self, node: NodeIndex) {
        if let Some(post) = self.board.post(node) {
            post.suspected.store(true, Ordering::Release);
            post.wake.notify_one();
        }
    }

    /// The primary, or the next one if none is known; none when that takes longer than `at_most`.
    /// Cancel safe.
    pub async fn primary_within(&self, at_most: Duration) -> Option<NodeIndex> {
        let mut summary = self.board.summary.subscribe();
        let known = summary.wait_for(|summary| summary.primary.is_some());
        timeout(at_most, known).await.ok()?.ok()?.primary
    }

    /// Waits until a primary on `timeline` or a later one is known. False when that takes longer than
    /// `at_most`. All nodes are probed at once. Cancel safe.
    pub async fn timeline_within(&self, timeline: Timeline, at_most: Duration) -> bool {
        let mut summary = self.board.summary.subscribe();
        for post in &self.board.posts {
            post.suspected.store(true, Ordering::Release);
            post.wake.notify_one();
        }
        let known = summary.wait_for(|summary| summary.timeline >= Some(timeline));
        matches!(timeout(at_most, known).await, Ok(Ok(_)))
    }

    /// Waits until every node has been probed once, whatever came of it, or `at_most` has passed.
    /// Cancel safe.
    pub async fn first_look(&self, at_most: Duration) {
        let mut summary = self.board.summary.subscribe();
        let looked = summary.wait_for(|summary| summary.all_looked_at);
        // Whether it timed out shows in the topology: a node is still unknown.
        let _ = timeout(at_most, looked).await;
    }
}

impl Board {
    pub(super) fn post(&self, node: NodeIndex) -> Option<&Post> {
        self.posts.get(usize::from(node.0))
    }

    /// Folds in what a probe found, publishes, wakes who waits, and logs what has changed. `shown` are those
    /// of the wanted transactions that the node shows.
    pub(super) fn publish(
        &self,
        node: NodeIndex,
        outcome: Outcome,
        shown: Arc<[Xid]>,
    ) -> Arc<Topology> {
        let mut fold = self.fold.lock().unwrap_or_else(PoisonError::into_inner);
        fold.take(node, outcome);
        let after = Arc::new(fold.topology().clone());
        let before = self.topology.swap(after.clone());
        for (post, (old, new)) in self.posts.iter().zip(before.nodes.iter().zip(&after.nodes)) {
            if !Arc::ptr_eq(old, new) {
                let shown = match new.index == node {
                    true => Arc::clone(&shown),
                    false => Arc::default(),
                };
                post.answer.send_replace(usable_answer(new, shown));
                log_change(old, new);
            }
        }
        log_primary(&before, &after);
        let summary = Summary {
            primary: after.primary,
            timeline: after.timeline,
            all_looked_at: fold.all_looked_at(),
        };
        self.summary.send_if_modified(|last| {
            let changed = *last != summary;
            *last = summary;
            changed
        });
        after
    }
}

fn usable_answer(node: &Node, shown: Arc<[Xid]>) -> Option<Answer> {
    let seen = node.observation()?;
    Some(Answer {
        timeline: seen.timeline?,
        lsn: seen.lsn,
        started: seen.started,
        connected: seen.connected,
        shown,
    })
}

fn log_change(before: &Node, after: &Node) {
    let role = |role: Role| match role {
        Role::Primary => "primary",
        Role::Replica => "replica",
    };
    let (node, address) = (&after.name, &after.address);
    log_fall(before, after);
    match (&before.state, &after.state) {
        (NodeState::Up(old), NodeState::Up(new)) if old.role == new.role => {}
        (_, NodeState::Up(new)) => info!(%node, %address, "node is up as a {}", role(new.role)),
        (NodeState::Down { .. }, NodeState::Down { .. }) => {}
        (_, NodeState::Down { reason, .. }) => warn!(%node, %address, "node is down: {reason}"),
        (NodeState::Excluded { reason: old, .. }, NodeState::Excluded { reason, .. })
            if old == reason => {}
        (_, NodeState::Excluded { reason, .. }) => {
            warn!(%node, %address, "node is not used: {reason}");
        }
        (_, NodeState::Unknown) => {}
    }
}

/// A replica that replays again what it has replayed before was started anew, or set back to an
/// older backup. Sessions that have read there are covered: see `routing::Floor`.
fn log_fall(before: &Node, after: &Node) {
    let behind = |node: &Node| {
        let seen = node.observation();
        seen.is_some_and(|seen| seen.role == Role::Replica && seen.lsn < node.furthest)
    };
    if behind(after) && !behind(before) {
        let now = after.observation().map_or(Lsn::ZERO, |seen| seen.lsn);
        let (node, furthest) = (&after.name, after.furthest);
        warn!(%node, "the replica has gone back from {furthest} to {now}: it was started again, or \
            restored from an older backup");
    }
}

fn log_primary(before: &Topology, after: &Topology) {
    if before.primary == after.primary && before.timeline == after.timeline {
        return;
    }
    match (before.primary, after.primary, after.timeline) {
        (_, Some(primary), Some(timeline)) => {
            let node = &after.node(primary).name;
            info!(%node, %timeline, "primary is known");
        }
        (Some(primary), None, _) => {
            let node = &after.node(primary).name;
            warn!(%node, "primary is lost: writes wait for a new one");
        }
        _ => {}
    }
}

impl Post {
    fn new() -> Post {
        Post {
            answer: watch::Sender::new(None),
            waiters: AtomicUsize::new(0),
            wanted: Mutex::default(),
            suspected: AtomicBool::new(false),
            wake: Notify::new(),
        }
    }

    /// Somebody wants the next probe as soon as `wait_interval` allows.
    pub(super) fn is_eager(&self) -> bool {
        self.waiters.load(Ordering::Acquire) > 0 || self.suspected.load(Ordering::Acquire)
    }

    /// A probe is about to start: whatever was suspected before is being looked at. Gives the
    /// transactions that it is to ask for.
    pub(super) fn looks_again(&self) -> Vec<Xid> {
        self.suspected.store(false, Ordering::Release);
        let mut wanted = self.wanted().clone();
        wanted.sort_unstable();
        wanted.dedup();
        wanted
    }

    fn wanted(&self) -> MutexGuard<'_, Vec<Xid>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when [`is_eager`](Post::is_eager) may have become true. Cancel safe.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }
}

/// Somebody who waits for a node, for as long as it lives.
struct Waiter<'a> {
    post: &'a Post,
}

impl Waiter<'_> {
    fn new(post: &Post) -> Waiter<'_> {
        post.waiters.fetch_add(1, Ordering::AcqRel);
        post.wake.notify_one();
        Waiter { post }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.post.waiters.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Somebody who waits for a transaction, for as long as it lives.
struct Wanted<'a> {
    post: &'a Post,
    xid: Xid,
}

impl Wanted<'_> {
    fn new(post: &Post, xid: Xid) -> Wanted<'_> {
        post.wanted().push(xid);
        Wanted { post, xid }
    }
}

impl Drop for Wanted<'_> {
    fn drop(&mut self) {
        let mut wanted = self.post.wanted();
        if let Some(place) = wanted.iter().position(|xid| *xid == self.xid) {
            wanted.swap_remove(place);
        }
    }
}

#[cfg(test)]
mod tests;
