//! Transaction control: BEGIN, COMMIT, ROLLBACK, savepoints, and the words that go with them.

use super::classify::Part;
use super::reader::Reader;
use super::{Begin, Effect, Isolation, PinReason};

pub(super) fn classify(mut reader: Reader) -> Part {
    let part = if reader.accept("BEGIN") {
        accept_noise(&mut reader);
        begin(&mut reader)
    } else if reader.accept_all(&["START", "TRANSACTION"]) {
        begin(&mut reader)
    } else if reader.accept_any(&["COMMIT", "END"]) {
        finish(&mut reader, |chain| Effect::Commit { chain })
    } else if reader.accept("ABORT") {
        finish(&mut reader, |chain| Effect::Rollback { chain })
    } else if reader.accept("ROLLBACK") {
        rollback(&mut reader)
    } else if reader.accept("SAVEPOINT") {
        named(&mut reader, Effect::Savepoint)
    } else if reader.accept("RELEASE") {
        reader.accept("SAVEPOINT");
        named(&mut reader, Effect::Release)
    } else {
        None
    };
    match part {
        Some(part) if reader.at_end() => part,
        _ => Part::pinned(PinReason::Unknown, "unknown words of transaction control"),
    }
}

fn control(effect: Effect) -> Part {
    Part::anywhere("transaction control", effect)
}

fn accept_noise(reader: &mut Reader) {
    reader.accept_any(&["WORK", "TRANSACTION"]);
}

fn begin(reader: &mut Reader) -> Option<Part> {
    Some(control(Effect::Begin(modes(reader)?)))
}

fn finish(reader: &mut Reader, effect: impl Fn(bool) -> Effect) -> Option<Part> {
    if reader.accept("PREPARED") {
        reader.next();
        return Some(Part::write("it ends a prepared transaction"));
    }
    accept_noise(reader);
    let chain = reader.accept_all(&["AND", "CHAIN"]);
    reader.accept_all(&["AND", "NO", "CHAIN"]);
    Some(control(effect(chain)))
}

fn rollback(reader: &mut Reader) -> Option<Part> {
    let before = *reader;
    accept_noise(reader);
    if reader.accept("TO") {
        reader.accept("SAVEPOINT");
        return named(reader, Effect::RollbackTo);
    }
    *reader = before;
    finish(reader, |chain| Effect::Rollback { chain })
}

fn named(reader: &mut Reader, effect: impl Fn(Box<str>) -> Effect) -> Option<Part> {
    let name = reader.identifier()?;
    Some(control(effect(name.into())))
}

/// The modes of BEGIN, SET TRANSACTION and SET SESSION CHARACTERISTICS, with or without commas;
/// of two that contradict each other the later counts. `None` for words that are no mode.
pub(super) fn modes(reader: &mut Reader) -> Option<Begin> {
    let mut begin = Begin::default();
    while !reader.at_end() {
        if reader.accept_all(&["ISOLATION", "LEVEL"]) {
            begin.isolation = Some(isolation(reader)?);
        } else if reader.accept_all(&["READ", "ONLY"]) {
            begin.read_only = Some(true);
        } else if reader.accept_all(&["READ", "WRITE"]) {
            begin.read_only = Some(false);
        } else if reader.accept("DEFERRABLE") {
            begin.deferrable = Some(true);
        } else if reader.accept_all(&["NOT", "DEFERRABLE"]) {
            begin.deferrable = Some(false);
        } else {
            return None;
        }
        reader.accept_sign(",");
    }
    Some(begin)
}

fn isolation(reader: &mut Reader) -> Option<Isolation> {
    let levels: [(&[&str], Isolation); 4] = [
        (&["READ", "UNCOMMITTED"], Isolation::ReadUncommitted),
        (&["READ", "COMMITTED"], Isolation::ReadCommitted),
        (&["REPEATABLE", "READ"], Isolation::RepeatableRead),
        (&["SERIALIZABLE"], Isolation::Serializable),
    ];
    levels
        .into_iter()
        .find_map(|(words, level)| reader.accept_all(words).then_some(level))
}
