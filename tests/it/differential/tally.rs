//! What was found, and how it is told.

use std::collections::BTreeMap;
use std::fmt;

use causeway::sql::{Class, Decision};

/// What one statement really did, as its servers tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Nothing but to read.
    Read,
    /// It took these: a transaction number, locks.
    Took(String),
    /// It failed, or its transaction did, or it cannot be looked at.
    Unknown,
}

/// What the replica said to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Ran,
    /// As only a replica does.
    Refused(String),
    /// It was not asked, or found another fault with it.
    None,
}

#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Statements that were looked at.
    pub statements: u64,
    /// Classed as reads; all of them were run on the primary, and those outside of transactions on
    /// the replica.
    pub reads: u64,
    pub on_replica: u64,
    /// Classed as reads of the primary.
    pub primary_reads: u64,
    /// Classed as writes, and refused by the replica: it does refuse.
    pub refused_writes: u64,
    /// Classed as reads, and no reads.
    pub failures: Vec<String>,
    /// The same, for a reason that is known.
    pub excused: Vec<String>,
    /// Classed as writes though they only read, by reason.
    pub needless: BTreeMap<String, Needless>,
    /// Statements that only read.
    pub pure: u64,
    /// Of these, those that the replica has run too: all but what is temporary, or was made in a
    /// transaction that was still open.
    pub near: u64,
}

/// Writes that are none, for one reason.
#[derive(Clone, Debug, Default)]
pub struct Needless {
    pub count: u64,
    /// Of these, those that the replica has run too.
    pub near: u64,
    pub example: String,
}

impl Tally {
    pub fn add(
        &mut self,
        place: &str,
        text: &str,
        decision: &Decision,
        deed: Deed,
        answer: Answer,
    ) {
        let (class, reason) = (decision.class, &*decision.reason.0);
        let may_run_on_replica = class <= Class::Read;
        if may_run_on_replica && let Answer::Refused(refusal) = &answer {
            self.failures.push(format!(
                "{place}: {text}: refused with {refusal}, but: {reason}"
            ));
        }
        self.on_replica += u64::from(may_run_on_replica && answer == Answer::Ran);
        let refused_write = class == Class::Write && matches!(answer, Answer::Refused(_));
        self.refused_writes += u64::from(refused_write);
        if deed == Deed::Unknown {
            return;
        }
        self.statements += 1;
        self.reads += u64::from(may_run_on_replica);
        self.primary_reads += u64::from(class == Class::PrimaryRead);
        match deed {
            Deed::Took(what) if is_followed(decision, &what) => {}
            Deed::Took(what) if class < Class::Write && is_excused(class, text, &what) => {
                self.excused.push(format!("{place}: {text}: took {what}"));
            }
            Deed::Took(what) if class < Class::Write => {
                self.failures
                    .push(format!("{place}: {text}: took {what}, but: {reason}"));
            }
            Deed::Read if !refused_write => {
                let near = u64::from(answer == Answer::Ran);
                self.pure += 1;
                self.near += near;
                if class == Class::Write {
                    let known = self.needless.entry(without_names(reason)).or_default();
                    known.count += 1;
                    known.near += near;
                    if known.example.is_empty() || near > 0 && known.near == 1 {
                        known.example = format!("{place}: {}", shortened(text));
                    }
                }
            }
            Deed::Read | Deed::Took(_) | Deed::Unknown => {}
        }
    }

    /// Of the statements that only read, those that are taken for writes.
    pub fn needless_share(&self) -> f64 {
        let needless: u64 = self.needless.values().map(|it| it.count).sum();
        needless as f64 / self.pure.max(1) as f64
    }

    /// The same of those that the replica could run, where nobody has declared that they write.
    pub fn near_share(&self) -> f64 {
        let undeclared = self
            .needless
            .iter()
            .filter(|(reason, _)| !is_declared(reason));
        let needless: u64 = undeclared.map(|(_, it)| it.near).sum();
        needless as f64 / self.near.max(1) as f64
    }

    fn declared(&self) -> u64 {
        let declared = self
            .needless
            .iter()
            .filter(|(reason, _)| is_declared(reason));
        declared.map(|(_, it)| it.near).sum()
    }
}

/// `VOLATILE`, if only by default, and no body that shows more: PostgreSQL is told the same.
fn is_declared(reason: &str) -> bool {
    reason.contains("which is volatile")
}

/// The reason without what differs from one statement to the next.
fn without_names(reason: &str) -> String {
    let words = reason.split(' ').map(|word| {
        let is_name = word.contains(['(', '.', '_', '"'])
            || word
                .chars()
                .any(|c| !c.is_alphabetic() && c != ',' && c != ':');
        if is_name { "..." } else { word }
    });
    let words: Vec<&str> = words.collect();
    // The name of a relation, a type or an operator follows the word for it.
    match words.as_slice() {
        [kind @ ("relation" | "type" | "operator"), _, rest @ ..] => {
            format!("{kind} ... {}", rest.join(" "))
        }
        words => words.join(" "),
    }
}

fn shortened(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().take(100).collect()
}

/// Settings that the session takes along to whatever node comes next.
fn is_followed(decision: &Decision, took: &str) -> bool {
    !decision.effects.is_empty() && took.split("; ").all(|it| it.starts_with("setting "))
}

/// What a read may take after all:
/// - `current_schema()` makes the session's temporary schema (2615 is `pg_namespace`) where the search
///   path begins with `pg_temp`. A replica refuses it (25006), and the session asks the primary.
/// - `pg_sequences` opens its sequences as `nextval()` does. The primary alone is asked for it.
fn is_excused(class: Class, text: &str, took: &str) -> bool {
    let opens = |lock: &str| lock.starts_with("RowExclusiveLock on relation ");
    text.contains("current_schema") && took.starts_with("AccessExclusiveLock on object 2615")
        || class == Class::PrimaryRead
            && text.contains("pg_sequences")
            && took.split("; ").all(opens)
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} statements looked at: {} classed as reads ({} run on the replica too), {} as reads \
             of the primary; {} writes that the replica refused",
            self.statements, self.reads, self.on_replica, self.primary_reads, self.refused_writes
        )?;
        writeln!(f, "{} reads that are none", self.failures.len())?;
        for failure in &self.failures {
            writeln!(f, "  {failure}")?;
        }
        for excused in &self.excused {
            writeln!(f, "  excused: {excused}")?;
        }
        let share = self.needless_share() * 100.0;
        writeln!(
            f,
            "of {} pure reads {share:.1} % are taken for writes",
            self.pure
        )?;
        let (near, declared) = (self.near_share() * 100.0, self.declared());
        writeln!(
            f,
            "of {} that the replica has run too {near:.1} %, and {declared} more that call what is \
             declared volatile:",
            self.near
        )?;
        let mut reasons: Vec<_> = self.needless.iter().collect();
        reasons.sort_by_key(|(_, it)| std::cmp::Reverse((it.near, it.count)));
        for (reason, it) in reasons {
            let Needless {
                count,
                near,
                example,
            } = it;
            writeln!(f, "  {near:5} of {count:5} {reason} | {example}")?;
        }
        Ok(())
    }
}
