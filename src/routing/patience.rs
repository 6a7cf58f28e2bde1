//! Whether it is worth waiting for a replica, learned from the waits there were.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::topology::NodeIndex;

/// How long each replica has lately taken to reach what was waited for.
///
/// Shared by all sessions. Two that learn at once may lose one of the two lessons, which is harmless.
#[derive(Debug)]
pub struct Patience {
    /// By node index, in microseconds; zero is not known.
    expected_us: Box<[AtomicU64]>,
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitEnd {
    /// The replica got there.
    Reached,
    /// The read went elsewhere.
    TooLong,
}

/// Where waiting is not worth it, one read in so many waits all the same, to see whether it is again.
const TRY_ONE_IN: u64 = 16;

impl Patience {
    /// For so many nodes.
    pub fn new(nodes: usize) -> Patience {
        Patience {
            expected_us: (0..nodes).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// A read has waited for `node` for so long. A wait in vain would have been longer, nobody knows
    /// how much: it counts double, but one alone is no reason to give up. A success after failures
    /// counts more: what was expected was wrong.
    pub fn learn(&self, node: NodeIndex, waited: Duration, end: WaitEnd) {
        let Some(slot) = self.expected_us.get(usize::from(node.0)) else {
            return;
        };
        let known = slot.load(Ordering::Relaxed);
        let waited = u64::try_from(waited.as_micros())
            .unwrap_or(u64::MAX / 4)
            .max(1);
        let next = match end {
            WaitEnd::Reached if waited < known => known.midpoint(waited),
            WaitEnd::Reached if known == 0 => waited,
            WaitEnd::Reached => known + (waited - known) / 8,
            WaitEnd::TooLong => known + (waited.saturating_mul(2)).saturating_sub(known) / 8,
        };
        slot.store(next.max(1), Ordering::Relaxed);
    }

    /// How long a wait for `node` is expected to be.
    pub fn expected(&self, node: NodeIndex) -> Option<Duration> {
        let known = self.expected_us.get(usize::from(node.0))?;
        match known.load(Ordering::Relaxed) {
            0 => None,
            known => Some(Duration::from_micros(known)),
        }
    }

    /// Whether to wait for `node` where going elsewhere costs `cost`. `random` decides who tries
    /// against the odds.
    pub fn is_worth(&self, node: NodeIndex, cost: Duration, random: u64) -> bool {
        let promising = self.expected(node).is_none_or(|expected| expected <= cost);
        promising || random.is_multiple_of(TRY_ONE_IN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeIndex = NodeIndex(0);
    const B: NodeIndex = NodeIndex(1);
    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn what_is_not_known_is_worth_a_try() {
        let patience = Patience::new(1);
        assert!(patience.is_worth(A, MS(1), 1));
        assert_eq!(patience.expected(A), None);
        // A node that is not there.
        patience.learn(B, MS(5), WaitEnd::TooLong);
        assert!(patience.is_worth(B, MS(1), 1));
    }

    #[test]
    fn waits_in_vain_are_given_up_and_tried_again_now_and_then() {
        let patience = Patience::new(2);
        let cost = MS(80);
        for _ in 0..4 {
            patience.learn(A, MS(20), WaitEnd::Reached);
        }
        patience.learn(A, cost, WaitEnd::TooLong);
        assert!(patience.is_worth(A, cost, 1), "one failure is none");
        for _ in 0..30 {
            patience.learn(A, cost, WaitEnd::TooLong);
        }
        let tries = (0..1600).filter(|random| patience.is_worth(A, cost, *random));
        assert_eq!(tries.count(), 100);
        assert!(patience.is_worth(B, cost, 1), "the other node is another");
        // It has caught up: the few that try find out soon.
        for _ in 0..3 {
            patience.learn(A, MS(10), WaitEnd::Reached);
        }
        assert!(patience.is_worth(A, cost, 1), "{:?}", patience.expected(A));
    }

    /// Against an oracle that knows each wait's length beforehand, in a world where lag changes:
    /// whoever follows the advice pays little more in sum, and less than either fixed rule.
    #[test]
    fn following_it_is_near_what_an_oracle_pays() {
        let cost = MS(80);
        let lags = [20, 30, 500, 20, 2000, 60];
        let (mut ours, mut oracle, mut always_wait, mut always_go) = (0, 0, 0, 0);
        let patience = Patience::new(1);
        let mut random = 1_u64;
        for lag in lags {
            for _ in 0..500 {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let lag = MS(lag);
                let waiting = if lag <= cost { lag } else { cost + cost };
                always_wait += waiting.as_millis();
                always_go += cost.as_millis();
                oracle += lag.min(cost).as_millis();
                if !patience.is_worth(A, cost, random >> 33) {
                    ours += cost.as_millis();
                } else {
                    let end = if lag <= cost {
                        WaitEnd::Reached
                    } else {
                        WaitEnd::TooLong
                    };
                    patience.learn(A, lag.min(cost), end);
                    ours += waiting.as_millis();
                }
            }
        }
        assert!(
            ours * 100 <= oracle * 115,
            "{ours} ms, the oracle {oracle} ms"
        );
        assert!(
            ours < always_wait && ours < always_go,
            "{ours}, {always_wait}, {always_go}"
        );
    }
}
