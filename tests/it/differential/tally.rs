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
    /// Classed as writes though they only read, by reason, with an example.
    pub needless: BTreeMap<String, (u64, String)>,
    /// Statements that only read.
    pub pure: u64,
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
            Deed::Took(what) if class < Class::Write => {
                self.failures
                    .push(format!("{place}: {text}: took {what}, but: {reason}"));
            }
            Deed::Read if !refused_write => {
                self.pure += 1;
                if class == Class::Write {
                    let reason = without_names(reason);
                    let example = || (0, format!("{place}: {}", shortened(text)));
                    self.needless.entry(reason).or_insert_with(example).0 += 1;
                }
            }
            Deed::Read | Deed::Took(_) | Deed::Unknown => {}
        }
    }

    /// Of the statements that only read, those that are taken for writes.
    pub fn needless_share(&self) -> f64 {
        let needless: u64 = self.needless.values().map(|(count, _)| count).sum();
        needless as f64 / self.pure.max(1) as f64
    }
}

/// The reason without what differs from one statement to the next.
fn without_names(reason: &str) -> String {
    let words = reason.split(' ').map(|word| {
        let is_name = word.contains(['(', '.', '_', '"'])
            || word.chars().any(|c| !c.is_alphabetic() && c != ',');
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
        let share = self.needless_share() * 100.0;
        writeln!(
            f,
            "of {} pure reads {share:.1} % are taken for writes:",
            self.pure
        )?;
        let mut reasons: Vec<_> = self.needless.iter().collect();
        reasons.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
        for (reason, (count, example)) in reasons {
            writeln!(f, "  {count:5} {reason} | {example}")?;
        }
        Ok(())
    }
}
