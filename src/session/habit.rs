//! Whether a session reads what it writes. The position behind a write costs the primary a small
//! transaction of its own, and is of use only to a read at `session` or `causal` that follows.

/// So many positions in a row that no read has needed, and no more are asked for.
const UNREAD: u8 = 8;

/// What a session has lately done behind its writes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Habit {
    /// Positions that were asked for since the last read that a floor binds.
    unread: u8,
}

impl Habit {
    /// The position behind a write is being asked for.
    pub fn captures(&mut self) {
        self.unread = self.unread.saturating_add(1);
    }

    /// The floor is needed.
    pub fn reads(&mut self) {
        self.unread = 0;
    }

    /// What the session writes now it may well read next.
    pub fn reads_back(self) -> bool {
        self.unread < UNREAD
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_only_writes_is_asked_no_more_until_it_reads() {
        let mut habit = Habit::default();
        for _ in 0..UNREAD {
            assert!(habit.reads_back());
            habit.captures();
        }
        for _ in 0..1000 {
            assert!(!habit.reads_back());
            habit.captures();
        }
        habit.reads();
        assert!(habit.reads_back());
    }
}
