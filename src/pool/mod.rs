//! Servers at rest, by node, database and user. A [`Pool`] lends servers, opens them in parallel
//! when it must, serves waiters in order, and stays within its own bound and the node's.

mod group;
mod slots;

pub use group::{Group, Pools, Told, Vacating};
pub use slots::NodeSlots;

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::server::{Credential, DialError, Dialer, Server, Settings};
use slots::Slot;

/// How a pool behaves; see `config::PoolConfig` for the meaning and the defaults.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub size: usize,
    pub min_idle: usize,
    pub checkout_timeout: Duration,
    pub idle_timeout: Duration,
    pub max_lifetime: Duration,
}

/// Servers of one node, for one database and user.
pub struct Pool {
    dialer: Arc<Dialer>,
    database: Arc<str>,
    credential: Arc<Credential>,
    limits: Limits,
    slots: Arc<NodeSlots>,
    state: Mutex<State>,
    /// Servers lent out, readable without the lock.
    in_use: AtomicUsize,
    /// Seconds of uptime, as the maintenance counts them.
    tick: AtomicU32,
    me: Weak<Pool>,
}

#[derive(Default)]
struct State {
    /// The most recently used last.
    idle: Vec<Idle>,
    waiters: VecDeque<oneshot::Sender<Served>>,
    /// Attempts under way.
    opening: usize,
    /// Servers that exist: idle and lent.
    open: usize,
}

struct Idle {
    member: Box<Member>,
    since: u32,
}

/// A server as a member of its pool.
struct Member {
    server: Server,
    retire_at: Option<Instant>,
    _slot: Slot,
}

/// What a waiter is given.
type Served = Result<Lent, Arc<DialError>>;

/// A place in the queue.
type Turn = oneshot::Receiver<Served>;

/// What a checkout came to at once.
enum Taken {
    Lent(Lent),
    Queued(Turn),
}

/// Why no server could be had.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CheckoutError {
    #[error("no server became free within {0:?}")]
    Timeout(Duration),
    #[error("{0}")]
    Dial(Arc<DialError>),
}

impl Pool {
    fn new(
        dialer: Arc<Dialer>,
        database: Arc<str>,
        credential: Arc<Credential>,
        limits: Limits,
        slots: Arc<NodeSlots>,
    ) -> Arc<Pool> {
        Arc::new_cyclic(|me| Pool {
            dialer,
            database,
            credential,
            limits,
            slots,
            state: Mutex::default(),
            in_use: AtomicUsize::new(0),
            tick: AtomicU32::new(0),
            me: me.clone(),
        })
    }

    /// Servers that sessions have at present.
    pub fn in_use(&self) -> usize {
        self.in_use.load(Ordering::Relaxed)
    }

    /// A checkout need not wait for another session.
    pub fn has_room(&self) -> bool {
        let state = self.lock();
        let grows = state.open + state.opening < self.limits.size;
        state.waiters.is_empty() && (!state.idle.is_empty() || grows)
    }

    /// Servers at rest, servers in all, and waiting sessions.
    pub fn counts(&self) -> (usize, usize, usize) {
        let state = self.lock();
        (state.idle.len(), state.open, state.waiters.len())
    }

    /// Servers at the most, apart from the node's own bound.
    pub fn size(&self) -> usize {
        self.limits.size
    }

    pub fn dialer(&self) -> &Arc<Dialer> {
        &self.dialer
    }

    /// Lends a server, one with these settings if such a one is at hand. Cancel safe: a server
    /// that arrives for nobody goes to the next.
    pub async fn checkout(&self, settings: &Settings) -> Result<Lent, CheckoutError> {
        self.checkout_again(settings, None).await
    }

    /// As [`checkout`](Self::checkout), but rather the server on which `owner` has used sequences.
    pub async fn checkout_again(
        &self,
        settings: &Settings,
        owner: Option<u64>,
    ) -> Result<Lent, CheckoutError> {
        loop {
            match self.take_or_queue(settings, owner) {
                Taken::Lent(mut lent) => match lent.is_alive() {
                    true => return Ok(lent),
                    false => lent.discard(),
                },
                Taken::Queued(turn) => return self.wait(turn).await,
            }
        }
    }

    /// Opens a first server ahead of its use: a far one takes several round trips to open.
    pub fn warm(&self) {
        let mut state = self.lock();
        if state.open + state.opening == 0
            && let Some(slot) = self.slots.try_acquire()
        {
            self.start_opening(&mut state, slot);
        }
    }

    /// Takes a server at rest, or a place in the queue: both under one lock, so that no server comes
    /// to rest between the two looks.
    fn take_or_queue(&self, settings: &Settings, owner: Option<u64>) -> Taken {
        /// So many of the most recently used are looked through for the right settings.
        const LOOKED_THROUGH: usize = 8;
        let mut state = self.lock();
        state.waiters.retain(|waiter| !waiter.is_closed());
        let newest = state.idle.len().checked_sub(1);
        let (Some(newest), true) = (newest, state.waiters.is_empty()) else {
            let (sender, turn) = oneshot::channel();
            state.waiters.push_back(sender);
            self.grow(&mut state);
            return Taken::Queued(turn);
        };
        let oldest = state.idle.len().saturating_sub(LOOKED_THROUGH);
        let server = |place: &usize| &state.idle[*place].member.server;
        let is_owner_s = |place: &usize| server(place).sequences == owner;
        let place = owner
            .and_then(|_| (0..=newest).rev().find(is_owner_s))
            .or_else(|| {
                let mut places = (oldest..=newest).rev();
                places.find(|place| server(place).settings == *settings)
            })
            .unwrap_or(newest);
        let idle = state.idle.remove(place);
        Taken::Lent(self.lend(idle.member))
    }

    async fn wait(&self, turn: Turn) -> Result<Lent, CheckoutError> {
        let limit = self.limits.checkout_timeout;
        match timeout(limit, turn).await {
            Ok(Ok(Ok(lent))) => Ok(lent),
            Ok(Ok(Err(error))) => Err(CheckoutError::Dial(error)),
            Ok(Err(_)) | Err(_) => Err(CheckoutError::Timeout(limit)),
        }
    }

    /// Starts as many attempts as there are waiters without one, within the bounds.
    fn grow(&self, state: &mut State) {
        state.waiters.retain(|waiter| !waiter.is_closed());
        while state.opening < state.waiters.len() && state.open + state.opening < self.limits.size {
            let Some(slot) = self.slots.acquire() else {
                return;
            };
            self.start_opening(state, slot);
        }
    }

    fn start_opening(&self, state: &mut State, slot: Slot) {
        let Some(me) = self.me.upgrade() else {
            return;
        };
        state.opening += 1;
        tokio::spawn(async move {
            let mut attempt = Attempt { pool: Some(me) };
            if let Some(pool) = &attempt.pool {
                let dialed = pool
                    .dialer
                    .dial(&pool.database, &pool.credential, &[])
                    .await;
                attempt.end(dialed, slot);
            }
        });
    }

    fn opened(&self, server: Server, slot: Slot) {
        let retire_at = self.retirement(server.born());
        let member = Box::new(Member {
            server,
            retire_at,
            _slot: slot,
        });
        {
            let mut state = self.lock();
            state.opening -= 1;
            state.open += 1;
        }
        self.hand_on(self.lend(member));
    }

    fn failed(&self, error: DialError) {
        tracing::debug!(host = self.dialer.host, port = self.dialer.port, %error, "dial failed");
        let mut state = self.lock();
        state.opening -= 1;
        let waiter = state.waiters.pop_front();
        self.grow(&mut state);
        drop(state);
        if let Some(waiter) = waiter {
            // A waiter that has gone needs no answer.
            let _ = waiter.send(Err(Arc::new(error)));
        }
    }

    /// When a server born then shall go: the lifetime less up to a tenth of it, at random, so that
    /// servers which were opened together do not end together.
    fn retirement(&self, born: Instant) -> Option<Instant> {
        let lifetime = self.limits.max_lifetime;
        (!lifetime.is_zero()).then(|| born + lifetime.mul_f64(1.0 - rand::random::<f64>() / 10.0))
    }

    fn lend(&self, member: Box<Member>) -> Lent {
        self.in_use.fetch_add(1, Ordering::Relaxed);
        let pool = self.me.upgrade();
        Lent {
            member: Some(member),
            pool,
        }
    }

    /// Gives a server to the first waiter that still waits, or puts it to rest. It leaves instead
    /// if the node is full and another pool waits for its place.
    fn hand_on(&self, mut lent: Lent) {
        loop {
            let mut state = self.lock();
            let Some(waiter) = state.waiters.pop_front() else {
                if let Some(member) = lent.member.take() {
                    self.in_use.fetch_sub(1, Ordering::Relaxed);
                    let since = self.tick.load(Ordering::Relaxed);
                    let idle = Idle { member, since };
                    if self.slots.is_wanted() {
                        state.open -= 1;
                        drop(state);
                        close(idle);
                    } else {
                        state.idle.push(idle);
                    }
                }
                return;
            };
            drop(state);
            match waiter.send(Ok(lent)) {
                Ok(()) => return,
                Err(Ok(unwanted)) => lent = unwanted,
                Err(Err(_)) => return,
            }
        }
    }

    /// A server has gone for good.
    fn forget(&self) {
        self.in_use.fetch_sub(1, Ordering::Relaxed);
        let mut state = self.lock();
        state.open -= 1;
        self.grow(&mut state);
    }

    /// Takes the server that has rested longest, if nobody waits for it.
    fn evict(&self) -> bool {
        let evicted = {
            let mut state = self.lock();
            if state.waiters.is_empty() && !state.idle.is_empty() {
                state.open -= 1;
                Some(state.idle.remove(0))
            } else {
                None
            }
        };
        evicted.map(close).is_some()
    }

    /// Closes all servers at rest.
    fn close_resting(&self) {
        let resting = {
            let mut state = self.lock();
            state.open -= state.idle.len();
            std::mem::take(&mut state.idle)
        };
        resting.into_iter().for_each(close);
    }

    /// Starts attempts for waiters that could not have one when the node was full.
    fn grow_if_waited_for(&self) {
        let mut state = self.lock();
        if !state.waiters.is_empty() {
            self.grow(&mut state);
        }
    }

    /// Closes servers that have rested or lived too long; keeps `min_idle` warm.
    fn maintain(&self, tick: u32, now: Instant) {
        self.tick.store(tick, Ordering::Relaxed);
        let idle_seconds = self
            .limits
            .idle_timeout
            .as_secs()
            .try_into()
            .unwrap_or(u32::MAX);
        let mut gone = Vec::new();
        {
            let mut state = self.lock();
            let mut spare = state.idle.len().saturating_sub(self.limits.min_idle);
            let mut kept = Vec::with_capacity(state.idle.len());
            for idle in std::mem::take(&mut state.idle) {
                let rested = idle_seconds > 0 && tick.saturating_sub(idle.since) >= idle_seconds;
                if idle.member.is_due(now) || rested && spare > 0 {
                    spare = spare.saturating_sub(1);
                    gone.push(idle);
                } else {
                    kept.push(idle);
                }
            }
            state.idle = kept;
            state.open -= gone.len();
            while state.idle.len() + state.opening < self.limits.min_idle
                && state.open + state.opening < self.limits.size
                && let Some(slot) = self.slots.try_acquire()
            {
                self.start_opening(&mut state, slot);
            }
        }
        gone.into_iter().for_each(close);
    }

    /// Nothing is open and nobody waits.
    fn is_empty(&self) -> bool {
        let state = self.lock();
        state.open + state.opening == 0 && state.waiters.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Member {
    fn is_due(&self, now: Instant) -> bool {
        self.retire_at.is_some_and(|retire_at| retire_at <= now)
    }
}

fn close(idle: Idle) {
    tokio::spawn(idle.member.server.terminate());
}

/// An attempt to open a server. However it ends, the pool's count goes down with it.
struct Attempt {
    pool: Option<Arc<Pool>>,
}

impl Attempt {
    fn end(&mut self, dialed: Result<Server, DialError>, slot: Slot) {
        if let Some(pool) = self.pool.take() {
            match dialed {
                Ok(server) => pool.opened(server, slot),
                Err(error) => pool.failed(error),
            }
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            pool.lock().opening -= 1;
        }
    }
}

/// A server on loan. It goes back when dropped, if it is clean; else it is closed.
pub struct Lent {
    member: Option<Box<Member>>,
    pool: Option<Arc<Pool>>,
}

impl Lent {
    /// Closes the server instead of giving it back.
    pub fn discard(mut self) {
        self.close();
    }

    fn close(&mut self) {
        if let (Some(member), Some(pool)) = (self.member.take(), self.pool.take()) {
            drop(member);
            pool.forget();
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let keep = self
            .member
            .as_ref()
            .is_some_and(|member| member.server.is_clean());
        if !keep {
            self.close();
        } else if let Some(pool) = self.pool.take() {
            let member = self.member.take();
            pool.hand_on(Lent {
                member,
                pool: Some(Arc::clone(&pool)),
            });
        }
    }
}

impl Deref for Lent {
    type Target = Server;

    fn deref(&self) -> &Server {
        match &self.member {
            Some(member) => &member.server,
            None => unreachable!("only drop and discard take the member, and they own the loan"),
        }
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut Server {
        match &mut self.member {
            Some(member) => &mut member.server,
            None => unreachable!("only drop and discard take the member, and they own the loan"),
        }
    }
}
