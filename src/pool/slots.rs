//! The bound on servers per node, over all its pools.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::Pool;

/// So many servers a node may have; pools share them.
pub struct NodeSlots {
    free: AtomicUsize,
    /// A pool has asked in vain since a slot was last given back.
    wanted: AtomicBool,
    pools: Mutex<Vec<Weak<Pool>>>,
    me: Weak<NodeSlots>,
}

/// The right to one server; given back on drop.
pub struct Slot {
    slots: Arc<NodeSlots>,
}

impl NodeSlots {
    pub fn new(count: usize) -> Arc<NodeSlots> {
        Arc::new_cyclic(|me| NodeSlots {
            free: AtomicUsize::new(count),
            wanted: AtomicBool::new(false),
            pools: Mutex::default(),
            me: me.clone(),
        })
    }

    pub(super) fn register(&self, pool: &Arc<Pool>) {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools.retain(|pool| pool.strong_count() > 0);
        pools.push(Arc::downgrade(pool));
    }

    /// Takes a slot if one is free. If none is, the longest rested server of another pool is asked
    /// to leave, or else the next that comes to rest, and whoever waits is served when it has.
    pub(super) fn acquire(&self) -> Option<Slot> {
        if let Some(slot) = self.try_acquire() {
            return Some(slot);
        }
        self.wanted.store(true, Ordering::SeqCst);
        // One may have been given back before that was said.
        let late = self.try_acquire();
        if late.is_none() {
            self.spawn_for_each_pool(Pool::evict);
        }
        late
    }

    /// A pool waits for a slot. Asked under the lock of the pool whose server comes to rest:
    /// [`acquire`](Self::acquire) says so before it looks for one at rest, so none slips through.
    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::SeqCst)
    }

    /// Takes a slot if one is free.
    pub(super) fn try_acquire(&self) -> Option<Slot> {
        let take = |free: usize| free.checked_sub(1);
        self.free
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, take)
            .ok()?;
        self.me.upgrade().map(|slots| Slot { slots })
    }

    /// Pools must not be touched under a pool's own lock, so they are visited from a task.
    fn spawn_for_each_pool(&self, visit: fn(&Pool) -> bool) {
        let pools = self
            .pools
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                pools
                    .iter()
                    .filter_map(Weak::upgrade)
                    .any(|pool| visit(&pool));
            });
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.free.fetch_add(1, Ordering::SeqCst);
        if self.slots.wanted.swap(false, Ordering::SeqCst) {
            self.slots.spawn_for_each_pool(|pool| {
                pool.grow_if_waited_for();
                false
            });
        }
    }
}
