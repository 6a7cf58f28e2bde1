//! Settings with the semantics of transactions: what a rollback undoes, to a savepoint or whole.

use crate::server::Settings;
use crate::server::settings::{ROLE, SESSION_AUTHORIZATION};
use crate::sql::Effect;

/// The settings of one session, or of the server that it uses.
#[derive(Clone, Debug, Default)]
pub struct Tracked {
    /// What RESET goes back to.
    startup: Settings,
    current: Settings,
    transaction: Option<Box<Transaction>>,
    /// Before what a cycle has done so far outside of a block: BEGIN makes a block of all of that, and
    /// ROLLBACK undoes it.
    implicit: Option<Settings>,
}

/// What an open transaction would go back to.
#[derive(Clone, Debug)]
struct Transaction {
    before: Settings,
    savepoints: Vec<(Box<str>, Settings)>,
}

impl Tracked {
    pub fn new(startup: Settings) -> Tracked {
        Tracked {
            current: startup.clone(),
            startup,
            transaction: None,
            implicit: None,
        }
    }

    /// A server that has `current`, set on top of its own defaults. Behind every RESET the session's
    /// `startup` is set again, see `restored`.
    pub fn of_server(current: Settings, startup: Settings) -> Tracked {
        Tracked {
            startup,
            current,
            transaction: None,
            implicit: None,
        }
    }

    pub fn current(&self) -> &Settings {
        &self.current
    }

    /// What RESET goes back to.
    pub fn startup(&self) -> &Settings {
        &self.startup
    }

    pub fn is_in_transaction(&self) -> bool {
        self.transaction.is_some()
    }

    /// Takes over settings that were sent outside of what a client said.
    pub fn replace(&mut self, settings: &Settings) {
        self.current = settings.clone();
    }

    /// What is applied from here on is of one cycle.
    pub fn cycle_begins(&mut self) {
        self.implicit = Some(self.current.clone());
    }

    /// All of a cycle has been applied.
    pub fn cycle_ends(&mut self) {
        self.implicit = None;
    }

    /// Applies what a statement has done. `committed` tells whether a COMMIT was one: in a failed
    /// transaction it is answered with ROLLBACK.
    pub fn apply(&mut self, effect: &Effect, committed: bool) {
        match effect {
            Effect::Begin(_) => self.begin(),
            Effect::Commit { chain } => self.end(committed, *chain),
            Effect::Rollback { chain } => self.end(false, *chain),
            Effect::PrepareTransaction => self.end(committed, false),
            Effect::Savepoint(name) => {
                let current = self.current.clone();
                if let Some(transaction) = &mut self.transaction {
                    transaction.savepoints.push((name.clone(), current));
                }
            }
            Effect::Release(name) => {
                if let Some(transaction) = &mut self.transaction {
                    transaction.release(name);
                }
            }
            Effect::RollbackTo(name) => {
                if let Some(transaction) = &mut self.transaction {
                    self.current = transaction.roll_back_to(name);
                }
            }
            Effect::Set {
                name,
                value: Some(value),
            } => {
                if **name == *SESSION_AUTHORIZATION {
                    self.current.reset(ROLE);
                }
                self.current.set(name, value);
            }
            Effect::SetExactly { name, value } => self.current.set_exactly(name, value),
            Effect::Set { name, value: None } | Effect::Reset(name) => {
                for name in reset_with(name) {
                    self.current.take_over(name, &self.startup);
                }
            }
            Effect::ResetAll => self.current = self.current.after_reset_all(&self.startup),
            // It is a transaction of its own.
            Effect::DiscardAll => {
                self.current = self.startup.clone();
                self.starts_implicitly();
            }
            _ => {}
        }
    }

    /// ReadyForQuery says that no transaction is open, whatever the effects said.
    pub fn ended_otherwise(&mut self) {
        if self.transaction.is_some() {
            self.end(false, false);
        }
    }

    /// ReadyForQuery says that a transaction is open, whatever the effects said.
    pub fn begun_otherwise(&mut self) {
        if self.transaction.is_none() {
            self.begin();
        }
    }

    fn begin(&mut self) {
        let before = self.implicit.as_ref().unwrap_or(&self.current).clone();
        self.transaction.get_or_insert_with(|| {
            Box::new(Transaction {
                before,
                savepoints: Vec::new(),
            })
        });
    }

    fn end(&mut self, committed: bool, chain: bool) {
        let block = self.transaction.take().map(|block| block.before);
        let before = block.or_else(|| self.implicit.clone());
        if let Some(before) = before.filter(|_| !committed) {
            self.current = before;
        }
        self.starts_implicitly();
        if chain {
            self.begin();
        }
    }

    /// What was done in the cycle up to here is committed, or undone.
    fn starts_implicitly(&mut self) {
        if let Some(implicit) = &mut self.implicit {
            *implicit = self.current.clone();
        }
    }
}

/// What goes back to what the client began with when this does. Whoever changes the session's user leaves
/// the role: a SET for none, a RESET for the one of the start-up packet.
pub(super) fn reset_with(name: &str) -> impl Iterator<Item = &str> {
    let role = (name == SESSION_AUTHORIZATION).then_some(ROLE);
    std::iter::once(name).chain(role)
}

impl Transaction {
    fn position(&self, name: &str) -> Option<usize> {
        self.savepoints
            .iter()
            .rposition(|(known, _)| **known == *name)
    }

    fn release(&mut self, name: &str) {
        if let Some(place) = self.position(name) {
            self.savepoints.truncate(place);
        }
    }

    /// A savepoint survives being rolled back to. One that is not known can only have been set in
    /// a way that was not seen: then all that is certain is what was before the transaction.
    fn roll_back_to(&mut self, name: &str) -> Settings {
        match self.position(name) {
            Some(place) => {
                self.savepoints.truncate(place + 1);
                self.savepoints[place].1.clone()
            }
            None => self.before.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::Begin;

    fn set(name: &str, value: &str) -> Effect {
        Effect::Set {
            name: name.into(),
            value: Some(value.into()),
        }
    }

    /// Plays a story, one letter each, and tells what `a` is afterwards.
    fn play(story: &str) -> Option<String> {
        let mut startup = Settings::default();
        startup.set("a", "0");
        let mut tracked = Tracked::new(startup);
        for letter in story.chars() {
            let effect = match letter {
                '(' => {
                    tracked.cycle_begins();
                    continue;
                }
                ')' => {
                    tracked.cycle_ends();
                    continue;
                }
                'b' => Effect::Begin(Begin::default()),
                'c' => Effect::Commit { chain: false },
                'C' => Effect::Commit { chain: true },
                'f' => Effect::Commit { chain: false },
                'r' => Effect::Rollback { chain: false },
                'R' => Effect::Rollback { chain: true },
                's' => Effect::Savepoint("s".into()),
                't' => Effect::RollbackTo("s".into()),
                'l' => Effect::Release("s".into()),
                'x' => Effect::Reset("a".into()),
                'X' => Effect::DiscardAll,
                digit => set("a", &digit.to_string()),
            };
            tracked.apply(&effect, letter != 'f');
        }
        tracked.current().get("a").map(str::to_owned)
    }

    #[test]
    fn another_session_user_ends_the_role() {
        let default = Effect::Set {
            name: "session_authorization".into(),
            value: None,
        };
        let reset = Effect::Reset("session_authorization".into());
        for change in [set("session_authorization", "s"), default, reset] {
            let mut tracked = Tracked::new(Settings::default());
            tracked.apply(&set("role", "before"), true);
            tracked.apply(&Effect::Begin(Begin::default()), true);
            tracked.apply(&change, true);
            assert_eq!(tracked.current().get("role"), None, "{change:?}");
            tracked.apply(&set("role", "behind"), true);
            assert_eq!(tracked.current().get("role"), Some("behind"), "{change:?}");
            tracked.apply(&Effect::Rollback { chain: false }, true);
            assert_eq!(tracked.current().get("role"), Some("before"), "{change:?}");
        }
    }

    #[test]
    fn the_role_goes_back_to_what_the_client_began_with() {
        let mut startup = Settings::default();
        startup.set("role", "start");
        let mut tracked = Tracked::new(startup);
        tracked.apply(&set("session_authorization", "s"), true);
        assert_eq!(tracked.current().get("role"), None);
        tracked.apply(&Effect::Reset("session_authorization".into()), true);
        assert_eq!(tracked.current().get("role"), Some("start"));
    }

    #[test]
    fn settings_follow_transactions() {
        let table = [
            ("", "0"),
            ("1", "1"),
            ("1x", "0"),
            ("b1c", "1"),
            ("b1r", "0"),
            ("b1f", "0"),
            ("1b2r", "1"),
            ("1b2c", "2"),
            ("b1s2t", "1"),
            ("b1s2t3t", "1"),
            ("b1s2s3t", "2"),
            ("b1s2s3lt", "1"),
            ("b1s2tr", "0"),
            ("b1s2lc", "2"),
            ("b1C2r", "1"),
            ("b1R2c", "2"),
            ("b1R2r", "0"),
            ("1X", "0"),
            ("1b2t", "1"),
            // One cycle is one transaction, unless it says otherwise.
            ("1(2b)r", "1"),
            ("1(2b)c", "2"),
            ("1(2r)", "1"),
            ("1(2r3)", "3"),
            ("1(2c3r)", "2"),
            ("1(b2c3r)", "2"),
            ("1(b2c3b)r", "2"),
            ("1b2(3C4)r", "3"),
            ("1(2X3r)", "0"),
            ("1(2)r", "2"),
        ];
        for (story, expected) in table {
            assert_eq!(play(story).as_deref(), Some(expected), "{story}");
        }
    }
}
