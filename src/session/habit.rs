//! What a session lately does around its writes, and so how their positions are best asked for.
//!
//! The position behind a write costs the primary a small transaction, and is of use only to a read at `session` or
//! `causal` that follows. The number of the write's own transaction costs less, but is no token, and who fails or
//! writes nothing gets a position a round trip later: only who has shown that none of this is its habit is asked so.

/// So many positions in a row that no read has needed, and no more are asked for.
const UNREAD: u8 = 8;

/// So many writes in a row that were transactions by themselves and went well, and the next are asked for
/// their numbers. Twice as many, up to the most, each time that one of these fails or has none.
const ALONE: u8 = 8;
const MOST_ALONE: u8 = 128;

/// What a session has lately done behind its writes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Habit {
    /// Positions that were asked for since the last read that a floor binds.
    unread: u8,
    /// Writes that were transactions by themselves since one failed or wrote nothing.
    alone: u8,
    /// So many of them are needed before the next is asked for its number.
    needed: u8,
    numbers: Numbers,
}

/// Whether the session may be asked for its transactions' numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Numbers {
    /// Its role has not been seen to.
    #[default]
    Untried,
    Tried,
    Never,
}

/// How to ask where a write lies that is a transaction by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    ByPosition,
    /// By position, and try whether it may be by number.
    Trial,
    ByNumber,
}

impl Default for Habit {
    fn default() -> Habit {
        Habit {
            unread: 0,
            alone: 0,
            needed: ALONE,
            numbers: Numbers::default(),
        }
    }
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

    /// A write that is a transaction by itself is being sent.
    pub fn writes(&mut self) -> Way {
        let is_used_to_it = self.alone >= self.needed;
        self.alone = self.alone.saturating_add(1);
        match self.numbers {
            Numbers::Untried if self.alone == self.needed => Way::Trial,
            Numbers::Tried if is_used_to_it => Way::ByNumber,
            Numbers::Untried | Numbers::Tried | Numbers::Never => Way::ByPosition,
        }
    }

    /// Something has failed, or a write has written nothing.
    pub fn fails(&mut self) {
        if self.alone > self.needed {
            self.needed = self.needed.saturating_mul(2).min(MOST_ALONE);
        }
        self.alone = 0;
    }

    /// The trial has gone well.
    pub fn may_number(&mut self) {
        if self.numbers == Numbers::Untried {
            self.numbers = Numbers::Tried;
        }
    }

    /// It needs positions, or its role must not ask for numbers.
    pub fn never_numbers(&mut self) {
        self.numbers = Numbers::Never;
    }

    /// Its role may be another one.
    pub fn is_changed(&mut self) {
        self.alone = 0;
        if self.numbers == Numbers::Tried {
            self.numbers = Numbers::Untried;
        }
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

    /// How the next `count` writes are asked for, each letter one of them.
    fn ways(habit: &mut Habit, count: usize) -> String {
        let letter = |way| match way {
            Way::ByPosition => 'p',
            Way::Trial => 't',
            Way::ByNumber => 'n',
        };
        (0..count).map(|_| letter(habit.writes())).collect()
    }

    #[test]
    fn numbers_are_asked_for_when_writes_have_gone_well_for_a_while() {
        let mut habit = Habit::default();
        assert_eq!(ways(&mut habit, 8), "pppppppt");
        habit.may_number();
        assert_eq!(ways(&mut habit, 300), "n".repeat(300));
        habit.fails();
        assert_eq!(ways(&mut habit, 15), "p".repeat(15));
        habit.fails();
        assert_eq!(ways(&mut habit, 18), ["p".repeat(16), "nn".into()].concat());
        habit.is_changed();
        let tried = ["p".repeat(15), "tpp".into()].concat();
        assert_eq!(ways(&mut habit, 18), tried, "not told yet");
        habit.may_number();
        assert_eq!(ways(&mut habit, 2), "nn");
        habit.never_numbers();
        habit.may_number();
        habit.is_changed();
        assert_eq!(ways(&mut habit, 20), "p".repeat(20));
    }

    #[test]
    fn who_often_fails_is_seldom_asked_for_numbers() {
        let mut habit = Habit::default();
        assert_eq!(ways(&mut habit, 8), "pppppppt");
        habit.may_number();
        let mut asked = 0;
        for _ in 0..10_000 {
            if habit.writes() == Way::ByNumber {
                asked += 1;
                habit.fails();
            }
        }
        assert!((70..90).contains(&asked), "{asked}");
    }
}
