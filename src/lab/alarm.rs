//! Wakes tasks at an instant, late by about a tenth of a millisecond and never early.
//!
//! Tokio's timer counts whole milliseconds and rounds up, its poller does so again; on a link that
//! makes two to four milliseconds per round trip. One thread on a condition variable does better.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use tokio::sync::oneshot;
use tokio::time::Instant;

/// The owner of the thread; dropping it ends the thread, and whoever still waits is let go.
pub(super) struct Alarm(Arc<Shared>);

/// Where to wait.
#[derive(Clone)]
pub(super) struct Clock(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Sleepers by due time; the number tells those of one instant apart.
    sleepers: BTreeMap<(Instant, u64), oneshot::Sender<()>>,
    registered: u64,
    closed: bool,
}

impl Alarm {
    pub(super) fn new() -> io::Result<Alarm> {
        let shared = Arc::new(Shared::default());
        let its = Arc::clone(&shared);
        thread::Builder::new()
            .name("causeway-lab-alarm".to_string())
            .spawn(move || its.ring())?;
        Ok(Alarm(shared))
    }

    pub(super) fn clock(&self) -> Clock {
        Clock(Arc::clone(&self.0))
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.closed = true;
        state.sleepers.clear();
        self.0.changed.notify_one();
    }
}

impl Clock {
    /// Waits until `due` has passed, or the alarm is gone. Cancel safe.
    pub(super) async fn until(&self, due: Instant) {
        if due <= Instant::now() {
            return;
        }
        let woken = self.0.register(due);
        // An error means that the alarm is gone.
        if woken.await.is_err() {
            tracing::debug!("lab: the alarm is gone");
        }
    }
}

impl Shared {
    fn ring(&self) {
        let mut state = self.lock();
        while !state.closed {
            let now = Instant::now();
            let due = state.sleepers.keys().next().map(|&(due, _)| due);
            state = match due {
                Some(due) if due <= now => {
                    if let Some((_, sleeper)) = state.sleepers.pop_first() {
                        // A sleeper that was cancelled needs no waking.
                        sleeper.send(()).unwrap_or_default();
                    }
                    state
                }
                Some(due) => {
                    let waited = self.changed.wait_timeout(state, due - now);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => {
                    let waited = self.changed.wait(state);
                    waited.unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
    }

    fn register(&self, due: Instant) -> oneshot::Receiver<()> {
        let (wake, woken) = oneshot::channel();
        let mut state = self.lock();
        if !state.closed {
            let key = (due, state.registered);
            state.registered += 1;
            state.sleepers.insert(key, wake);
            if state.sleepers.first_key_value().map(|(first, _)| *first) == Some(key) {
                self.changed.notify_one();
            }
        }
        woken
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test]
    async fn no_sleeper_wakes_early() {
        let alarm = Alarm::new().unwrap();
        let now = Instant::now();
        let mut sleepers = tokio::task::JoinSet::new();
        for wait in [9, 3, 6, 3, 0] {
            let clock = alarm.clock();
            sleepers.spawn(async move {
                clock.until(now + wait * MS).await;
                (wait, now.elapsed())
            });
        }
        for (wait, slept) in sleepers.join_all().await {
            assert!(slept >= wait * MS, "{wait} ms");
        }
    }

    #[tokio::test]
    async fn nobody_waits_for_an_alarm_that_is_gone() {
        let alarm = Alarm::new().unwrap();
        let clock = alarm.clock();
        let later = Instant::now() + Duration::from_secs(3600);
        let early = clock.clone();
        let sleeper = tokio::spawn(async move { early.until(later).await });
        while alarm.0.lock().sleepers.is_empty() {
            tokio::task::yield_now().await;
        }
        drop(alarm);
        sleeper.await.unwrap();
        clock.until(later).await;
    }
}
