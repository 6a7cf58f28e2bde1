//! Whether it was right to go elsewhere instead of waiting for a replica: some of those reads are
//! followed up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::monitor::Feed;
use crate::routing::{Mark, NodeIndex};

/// One read in so many that go elsewhere is followed up: that makes probes.
pub const ONE_IN: u64 = 8;

/// Watches the replica that was not waited for until the read has been answered.
pub struct Audit {
    reached: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

/// What came of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Right,
    Wrong,
}

/// Nobody watches for longer, however long the read runs.
const AT_MOST: Duration = Duration::from_secs(10);

impl Audit {
    pub fn of(feed: &Feed, replica: NodeIndex, mark: Mark) -> Audit {
        let reached = Arc::new(AtomicBool::new(false));
        let (feed, flag) = (feed.clone(), Arc::clone(&reached));
        let task = tokio::spawn(async move {
            let is_there = match mark {
                Mark::Position(lsn) => feed.reached(replica, lsn, AT_MOST).await,
                Mark::Transaction(timeline, xid) => {
                    let shown = feed.shown(replica, timeline, xid, AT_MOST).await;
                    shown.is_some()
                }
            };
            if is_there {
                flag.store(true, Ordering::Relaxed);
            }
        });
        Audit { reached, task }
    }

    /// The read has been answered: it was right to go if the replica was not there yet.
    pub fn end(self) -> Outcome {
        match self.reached.load(Ordering::Relaxed) {
            true => Outcome::Wrong,
            false => Outcome::Right,
        }
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        self.task.abort();
    }
}
