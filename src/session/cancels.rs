//! Cancel keys of our own, and where each leads at this moment (manual, section "Canceling
//! Requests in Progress").

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use hashbrown::HashMap;
use subtle::ConstantTimeEq;
use tokio::sync::Notify;

use crate::server::CancelTarget;

/// Secret bytes of a key in protocol 3.2, as PostgreSQL 18 has them; 3.0 uses the first four.
pub const SECRET_LENGTH: usize = 32;

/// All keys that clients hold.
#[derive(Default)]
pub struct Cancels {
    next: AtomicU32,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    slots: HashMap<u32, Arc<Slot>>,
    /// The proxy is being shut down: whoever comes now is told at once.
    draining: bool,
}

/// One client's key; taken from the table on drop.
pub struct Registration {
    pid: u32,
    slot: Arc<Slot>,
    cancels: Arc<Cancels>,
}

/// Where a client's cancel request leads.
pub struct Slot {
    secret: [u8; SECRET_LENGTH],
    state: Mutex<State>,
    /// Told when a cancel came while no server was at work for the client.
    waiting: Notify,
    /// Told when a request on its way has arrived.
    delivered: Notify,
    drain: Mutex<Drain>,
}

/// Whether the session is to end when it is idle, and whom to wake to see it.
enum Drain {
    No(Option<Waker>),
    Yes,
}

#[derive(Default)]
struct State {
    target: Option<Arc<CancelTarget>>,
    on_their_way: usize,
}

impl Cancels {
    /// Makes a key: a process number that no other client has, and a random secret.
    pub fn register(self: &Arc<Cancels>) -> Registration {
        let mut table = self.lock();
        let drain = match table.draining {
            true => Drain::Yes,
            false => Drain::No(None),
        };
        let slot = Arc::new(Slot {
            secret: rand::random(),
            state: Mutex::default(),
            waiting: Notify::new(),
            delivered: Notify::new(),
            drain: Mutex::new(drain),
        });
        let pid = loop {
            // A process number is positive, and never zero, for every driver.
            let pid = self.next.fetch_add(1, Ordering::Relaxed) & 0x7FFF_FFFF;
            if pid != 0 && !table.slots.contains_key(&pid) {
                break pid;
            }
        };
        table.slots.insert(pid, Arc::clone(&slot));
        drop(table);
        Registration {
            pid,
            slot,
            cancels: Arc::clone(self),
        }
    }

    /// Clients connected at present.
    pub fn len(&self) -> usize {
        self.lock().slots.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tells every session to end as soon as it is idle.
    pub fn drain(&self) {
        let mut table = self.lock();
        table.draining = true;
        for slot in table.slots.values() {
            let mut drain = slot.drain.lock().unwrap_or_else(PoisonError::into_inner);
            if let Drain::No(Some(waker)) = std::mem::replace(&mut *drain, Drain::Yes) {
                waker.wake();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries a cancel request out. An unknown key is ignored without a word, as in PostgreSQL.
    pub async fn cancel(&self, pid: u32, secret: &[u8]) {
        let slot = self.lock().slots.get(&pid).cloned();
        let Some(slot) = slot else {
            tracing::debug!(pid, "a cancel request with an unknown process number");
            return;
        };
        let expected = match secret.len() {
            4 => &slot.secret[..4],
            _ => &slot.secret[..],
        };
        if !bool::from(expected.ct_eq(secret)) {
            tracing::warn!(pid, "a cancel request with a wrong secret");
            return;
        }
        let Some(target) = slot.depart() else {
            slot.waiting.notify_waiters();
            return;
        };
        let arrival = Arrival { slot: &slot };
        if let Err(error) = target.cancel().await {
            tracing::warn!(pid, %error, "a cancel request could not be passed on");
        }
        drop(arrival);
    }
}

/// A cancel request on its way, until it has arrived or has failed.
struct Arrival<'a> {
    slot: &'a Slot,
}

impl Drop for Arrival<'_> {
    fn drop(&mut self) {
        self.slot.lock().on_their_way -= 1;
        self.slot.delivered.notify_waiters();
    }
}

impl Slot {
    /// From now on cancel requests lead to this server.
    pub fn aim(&self, target: &Arc<CancelTarget>) {
        self.lock().target = Some(Arc::clone(target));
    }

    /// From now on cancel requests lead nowhere. False if one is still on its way to the server,
    /// which must then not be given to another client before [`delivered`](Self::delivered).
    pub fn disarm(&self) -> bool {
        let mut state = self.lock();
        state.target = None;
        state.on_their_way == 0
    }

    /// Returns when no cancel request is on its way any more. Cancel safe.
    pub async fn delivered(&self) {
        loop {
            let told = self.delivered.notified();
            if self.lock().on_their_way == 0 {
                return;
            }
            told.await;
        }
    }

    /// Returns when a cancel request comes while the client waits for a server. Cancel safe.
    pub async fn cancelled_while_waiting(&self) {
        self.waiting.notified().await;
    }

    /// Whether the session is to end when it is idle; if not, `waker` is told when that changes.
    pub fn is_draining(&self, waker: &Waker) -> bool {
        let mut drain = self.drain.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *drain {
            Drain::Yes => true,
            Drain::No(Some(known)) if known.will_wake(waker) => false,
            Drain::No(known) => {
                *known = Some(waker.clone());
                false
            }
        }
    }

    fn depart(&self) -> Option<Arc<CancelTarget>> {
        let mut state = self.lock();
        let target = state.target.clone()?;
        state.on_their_way += 1;
        Some(target)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registration {
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The key's secret for a client of this minor protocol version.
    pub fn secret(&self, minor: u16) -> &[u8] {
        let length = if minor >= 2 { SECRET_LENGTH } else { 4 };
        &self.slot.secret[..length]
    }

    pub fn slot(&self) -> &Arc<Slot> {
        &self.slot
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.cancels.lock().slots.remove(&self.pid);
    }
}
