//! How long code that may have changed the catalogue is not believed again: longer each time that it had not,
//! so that a procedure which is called all the time costs the primary next to nothing.

use std::time::Duration;

#[derive(Debug)]
pub(super) struct Pause {
    length: Duration,
    longest: Duration,
}

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

impl Pause {
    /// None yet. None is longer than the interval between readings that nobody asks for.
    pub fn new(interval: Duration) -> Pause {
        Pause {
            length: Duration::ZERO,
            longest: interval.min(LONGEST),
        }
    }

    pub fn length(&self) -> Duration {
        self.length
    }

    /// The catalogue had changed.
    pub fn was_worth_it(&mut self) {
        self.length = Duration::ZERO;
    }

    /// It had not.
    pub fn was_in_vain(&mut self) {
        self.length = (self.length * 2).clamp(FIRST.min(self.longest), self.longest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_until_it_proves_wrong() {
        let mut pause = Pause::new(Duration::from_secs(30));
        assert_eq!(pause.length(), Duration::ZERO);
        let lengths: Vec<u128> = (0..8)
            .map(|_| {
                pause.was_in_vain();
                pause.length().as_millis()
            })
            .collect();
        assert_eq!(lengths, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        pause.was_worth_it();
        assert_eq!(pause.length(), Duration::ZERO);
    }

    #[test]
    fn it_is_no_longer_than_the_interval() {
        let interval = Duration::from_millis(20);
        let mut pause = Pause::new(interval);
        for _ in 0..3 {
            pause.was_in_vain();
            assert_eq!(pause.length(), interval);
        }
    }
}
