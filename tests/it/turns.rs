//! Sessions of the same users write and read at random, each user one row of the table `register`, and
//! what any of a user's sessions has been shown counts for all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio_postgres::Client;

use crate::front::ask;

/// How long they go on at the least, and ten times as long at the most.
const LENGTH: Duration = Duration::from_secs(6);
/// How many reads they make at the least.
const CHECKS: u64 = 1000;

/// How many reads there were, and how many of them showed less than the user had been shown before.
#[derive(Default)]
pub struct Tally {
    checks: AtomicU64,
    violations: AtomicU64,
}

impl Tally {
    fn checks(&self) -> u64 {
        self.checks.load(Ordering::SeqCst)
    }

    fn violations(&self) -> u64 {
        self.violations.load(Ordering::SeqCst)
    }

    fn is_enough(&self, begun: Instant) -> bool {
        let length = begun.elapsed();
        length >= LENGTH && (self.checks() >= CHECKS || length >= LENGTH * 10)
    }
}

/// Without keys somebody must have been shown less, or else this would prove nothing; under keys nobody.
pub fn assert_that_keys_count(without: &Tally, under_keys: &Tally) {
    println!(
        "without a key: {} checks, {} violations",
        without.checks(),
        without.violations()
    );
    assert!(without.violations() > 0, "the check sees nothing");
    assert_eq!(under_keys.violations(), 0);
    let checks = under_keys.checks();
    assert!(checks >= CHECKS, "only {checks} checks");
}

/// One user's row: the values that were tried, and the greatest that anybody has been shown.
struct User {
    row: usize,
    tried: AtomicI64,
    shown: AtomicI64,
}

/// The sessions of each user.
pub async fn take(users: Vec<Vec<Client>>) -> Arc<Tally> {
    let tally = Arc::new(Tally::default());
    let mut sessions = JoinSet::new();
    for (row, clients) in users.into_iter().enumerate() {
        let user = Arc::new(User {
            row,
            tried: AtomicI64::new(0),
            shown: AtomicI64::new(0),
        });
        for (place, client) in clients.into_iter().enumerate() {
            let (user, tally) = (Arc::clone(&user), Arc::clone(&tally));
            sessions.spawn(async move { session(&client, place, &user, &tally).await });
        }
    }
    sessions.join_all().await;
    tally
}

/// Writes each fourth time, at another one than the user's other sessions.
async fn session(client: &Client, place: usize, user: &User, tally: &Tally) {
    let begun = Instant::now();
    for round in place + 1.. {
        if tally.is_enough(begun) {
            return;
        }
        match round % 4 {
            0 => user.write(client).await,
            _ => user.read(client, tally).await,
        }
    }
}

impl User {
    async fn write(&self, client: &Client) {
        let value = self.tried.fetch_add(1, Ordering::SeqCst) + 1;
        let write = format!(
            "UPDATE register SET value = greatest(value, {value}) WHERE id = {}",
            self.row
        );
        client.batch_execute(&write).await.unwrap();
        self.shown.fetch_max(value, Ordering::SeqCst);
    }

    async fn read(&self, client: &Client, tally: &Tally) {
        let before = self.shown.load(Ordering::SeqCst);
        let read = format!("SELECT value FROM register WHERE id = {}", self.row);
        let seen: i64 = ask(client, &read).await.parse().unwrap();
        self.shown.fetch_max(seen, Ordering::SeqCst);
        tally.checks.fetch_add(1, Ordering::SeqCst);
        if seen < before {
            tally.violations.fetch_add(1, Ordering::SeqCst);
        }
    }
}
