//! What a session holds that only one server has, and how it is found out when it holds it no
//! more: the server itself is asked, so that every spelling of an unlock, a rollback of a LISTEN
//! and an ON COMMIT DROP count for what they did.

use std::fmt;

use super::temporaries::Told;
use crate::sql::PinReason;

/// The reasons for which a session keeps its server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pins(u16);

impl Pins {
    pub const NONE: Pins = Pins(0);

    /// What a server can be asked for; the rest stays until DISCARD ALL or the session's end.
    const TOLD: Pins = Pins::of(&[
        PinReason::Listen,
        PinReason::TemporaryTable,
        PinReason::HoldCursor,
        PinReason::AdvisoryLock,
    ]);

    /// What goes with DISCARD ALL, though no server tells of it.
    const DISCARDED: Pins = Pins::of(&[
        PinReason::SqlPrepare,
        PinReason::Sequence,
        PinReason::Setting,
    ]);

    /// What no read depends on: they may run on a replica meanwhile. Temporary tables are not among
    /// them, because a name may mean one; nor are locks, because whoever takes one means to see what
    /// its last owner has written.
    const NO_MATTER_TO_READS: Pins = Pins::of(&[
        PinReason::Listen,
        PinReason::HoldCursor,
        PinReason::Sequence,
    ]);

    const fn of(reasons: &[PinReason]) -> Pins {
        let mut bits = 0;
        let mut at = 0;
        while at < reasons.len() {
            bits |= 1 << reasons[at] as u8;
            at += 1;
        }
        Pins(bits)
    }

    pub fn is_none(self) -> bool {
        self == Pins::NONE
    }

    /// True if the session was not pinned for this reason before.
    pub fn add(&mut self, reason: PinReason) -> bool {
        let before = *self;
        self.0 |= Pins::of(&[reason]).0;
        *self != before
    }

    pub fn has(self, reason: PinReason) -> bool {
        self.without(reason) != self
    }

    pub fn without(self, reason: PinReason) -> Pins {
        Pins(self.0 & !Pins::of(&[reason]).0)
    }

    /// The reasons, in the order of [`PinReason::ALL`].
    pub fn reasons(self) -> impl Iterator<Item = PinReason> {
        let has = move |reason: &PinReason| self.0 & Pins::of(&[*reason]).0 != 0;
        PinReason::ALL.into_iter().filter(has)
    }

    /// A server can tell whether one of the reasons still holds.
    pub fn can_be_asked_for(self) -> bool {
        self.0 & Pins::TOLD.0 != 0
    }

    /// Reads may run elsewhere while the session is pinned.
    pub fn leave_reads_alone(self) -> bool {
        self.0 & !Pins::NO_MATTER_TO_READS.0 == 0
    }

    /// Those may that can mean no temporary relation.
    pub fn leave_other_reads_alone(self) -> bool {
        self.without(PinReason::TemporaryTable).leave_reads_alone()
    }

    /// Nothing of it outlives DISCARD ALL on the server: the server is fit for another session.
    pub fn end_with_discard_all(self) -> bool {
        self.0 & !Pins::TOLD.0 & !Pins::DISCARDED.0 == 0
    }

    /// The reasons, given what the server says that it holds: the session's own functions may have
    /// added what none of its statements told.
    pub fn as_told(self, holdings: Pins) -> Pins {
        Pins(self.0 & !Pins::TOLD.0 | holdings.0)
    }
}

impl fmt::Display for Pins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, reason) in self.reasons().enumerate() {
            let comma = if place > 0 { ", " } else { "" };
            write!(f, "{comma}{}", reason.as_str())?;
        }
        Ok(())
    }
}

/// Asks a server that is in no transaction what it holds for its session: a letter for each kind.
/// Whatever lies in a schema depends on it; session locks alone survive the transaction. Behind T
/// come a colon and the names of the temporary relations, or a question mark: they are too many or
/// no plain names, other things are temporary too, or reads of a table that is not may give rows of one that is.
pub const HOLDINGS: &str = "SELECT pg_catalog.concat(\
    (SELECT 'L' WHERE EXISTS (SELECT FROM pg_catalog.pg_listening_channels())),\
    (SELECT 'H' WHERE EXISTS (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable)),\
    (SELECT 'A' WHERE EXISTS (SELECT FROM pg_catalog.pg_locks \
        WHERE locktype OPERATOR(pg_catalog.=) 'advisory' \
        AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid())),\
    (SELECT CASE WHEN pg_catalog.count(*) OPERATOR(pg_catalog.>) 100 OR pg_catalog.bool_or(\
            c.oid IS NULL \
            OR c.relname::pg_catalog.text COLLATE pg_catalog.\"C\" \
                OPERATOR(pg_catalog.!~) '^[a-z_][a-z0-9_]*$' \
            OR EXISTS (SELECT FROM pg_catalog.pg_inherits i \
                JOIN pg_catalog.pg_class p ON p.oid OPERATOR(pg_catalog.=) i.inhparent \
                WHERE i.inhrelid OPERATOR(pg_catalog.=) c.oid \
                AND p.relpersistence OPERATOR(pg_catalog.<>) 't')) \
        THEN 'T?' \
        ELSE pg_catalog.concat('T:', pg_catalog.string_agg(c.relname::pg_catalog.text, ',')) END \
        FROM pg_catalog.pg_depend d LEFT JOIN pg_catalog.pg_class c \
            ON d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass \
            AND c.oid OPERATOR(pg_catalog.=) d.objid \
        WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass \
        AND d.refobjid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema() \
        HAVING pg_catalog.count(*) OPERATOR(pg_catalog.>) 0))";

/// What a server has said that it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holdings {
    pub pins: Pins,
    pub temporaries: Told,
}

/// Reads the value that answers [`HOLDINGS`].
pub fn holdings(value: &[u8]) -> Holdings {
    let colon = memchr::memchr(b':', value);
    let (letters, names) = value.split_at(colon.unwrap_or(value.len()));
    let mut pins = Pins::NONE;
    for letter in letters {
        let reason = match letter {
            b'L' => PinReason::Listen,
            b'T' => PinReason::TemporaryTable,
            b'H' => PinReason::HoldCursor,
            b'A' => PinReason::AdvisoryLock,
            _ => continue,
        };
        pins.add(reason);
    }
    let names = names
        .strip_prefix(b":")
        .and_then(|names| std::str::from_utf8(names).ok());
    let temporaries = match names {
        Some(names) => Told::Names(names.split(',').map(Box::from).collect()),
        None => Told::Unknown,
    };
    Holdings { pins, temporaries }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pins(reasons: &[PinReason]) -> Pins {
        let mut pins = Pins::NONE;
        for reason in reasons {
            assert!(pins.add(*reason));
            assert!(!pins.add(*reason));
        }
        pins
    }

    #[test]
    fn every_reason_is_told_from_the_others() {
        let all = pins(&PinReason::ALL);
        assert!(all.reasons().eq(PinReason::ALL));
        for reason in PinReason::ALL {
            assert!(pins(&[reason]).reasons().eq([reason]));
        }
        assert_eq!(Pins::NONE.reasons().count(), 0);
    }

    #[test]
    fn what_the_server_does_not_hold_is_gone_and_what_it_cannot_tell_stays() {
        use PinReason::*;
        let table: &[(&[PinReason], &[u8], &[PinReason])] = &[
            (&[Listen], b"", &[]),
            (&[Listen], b"L", &[Listen]),
            (&[Listen, AdvisoryLock], b"A", &[AdvisoryLock]),
            (
                &[TemporaryTable, HoldCursor],
                b"HT:mine",
                &[TemporaryTable, HoldCursor],
            ),
            (&[AdvisoryLock, Unknown], b"", &[Unknown]),
            (&[Load, SqlPrepare], b"", &[Load, SqlPrepare]),
            (&[Sequence], b"", &[Sequence]),
            (&[Listen], b"T?", &[TemporaryTable]),
            (&[TemporaryTable], b"T:h,a", &[TemporaryTable]),
        ];
        for (had, told, left) in table {
            let left = pins(left);
            assert_eq!(pins(had).as_told(holdings(told).pins), left, "{had:?}");
        }
    }

    #[test]
    fn the_names_of_temporary_relations_are_read_or_none_are() {
        let names = |value: &[u8]| match holdings(value).temporaries {
            Told::Names(names) => names.join(" "),
            Told::Unknown => "?".to_owned(),
        };
        for (value, expected) in [
            (&b"T:mine"[..], "mine"),
            (b"LHAT:mine,t_id_seq", "mine t_id_seq"),
            (b"T?", "?"),
            (b"", "?"),
            (b"T:\xff", "?"),
        ] {
            assert_eq!(names(value), expected);
        }
    }

    #[test]
    fn reads_go_elsewhere_only_if_nothing_they_may_need_is_here() {
        use PinReason::*;
        for reason in PinReason::ALL {
            let expected = matches!(reason, Listen | HoldCursor | Sequence);
            assert_eq!(pins(&[reason]).leave_reads_alone(), expected, "{reason:?}");
        }
        assert!(!pins(&[Listen, TemporaryTable]).leave_reads_alone());
    }

    #[test]
    fn a_server_with_a_loaded_library_is_fit_for_nobody_else() {
        use PinReason::*;
        for reason in PinReason::ALL {
            let expected = !matches!(reason, Load | Unknown);
            assert_eq!(
                pins(&[reason]).end_with_discard_all(),
                expected,
                "{reason:?}"
            );
        }
    }
}
