//! Answers that may differ because docs/limits.md says so. What comes behind one of them is another story.

use super::Compared;
use super::act::{Conversation, Turn};

impl Compared {
    /// Cuts off what begins with such an answer, if it is the first that differs.
    pub(super) fn forgive_limits(&mut self, conversation: &Conversation) {
        let Compared { direct, through } = self;
        let mut pairs = direct.answers.iter().zip(&through.answers);
        let Some(at) = pairs.position(|(direct, through)| direct != through) else {
            return;
        };
        // The first answer is the greeting.
        let turns = conversation.turns.get(..at).unwrap_or_default();
        let (said, answer) = (&direct.answers[at], &through.answers[at]);
        let transaction = turns.get(begun_behind(&direct.answers[..at])..);
        if is_refused_by_replica(turns, said, answer)
            || is_beyond_a_replica(transaction.unwrap_or_default(), answer)
        {
            for seen in [direct, through] {
                seen.answers.truncate(at);
                seen.left.clear();
            }
        }
    }
}

/// A READ ONLY transaction runs on a replica, which can neither prepare it for a second phase nor go on with one that
/// writes, and has words of its own for COPY.
fn is_refused_by_replica(turns: &[Turn], direct: &str, through: &str) -> bool {
    const REFUSED: &str = "C=25006";
    let asked_for = |all: &[&str]| {
        let one = |words: &&str| turns.iter().any(|turn| turn.to_string().contains(words));
        all.iter().any(one)
    };
    let is_in_other_words = through.contains("M=cannot execute COPY during recovery")
        && direct.contains("M=cannot execute COPY FROM in a read-only transaction");
    let is_beyond_it = asked_for(&["READ ONLY", "read_only"])
        && asked_for(&["AND CHAIN", "PREPARE TRANSACTION"])
        && !direct.contains(REFUSED);
    through.contains(REFUSED) && (is_in_other_words || is_beyond_it)
}

/// Nor does it do there what PostgreSQL lets such a transaction do, and a replica not.
fn is_beyond_a_replica(transaction: &[Turn], through: &str) -> bool {
    let is_read_only = |turn: &Turn| turn.to_string().contains("BEGIN READ ONLY");
    let refused = [
        "C=25001 M=causeway: what pins a session cannot be done in a READ ONLY transaction",
        " during recovery",
        " while recovery is in progress",
    ];
    let is_refused = refused.iter().any(|words| through.contains(words));
    is_refused && transaction.iter().any(is_read_only)
}

/// The place of the turn among all at which a transaction may have begun that is still open behind these
/// answers, of which the first is the greeting.
fn begun_behind(answers: &[String]) -> usize {
    let is_idle = |answer: &String| {
        let status = answer.rfind(" Z(").map(|at| &answer[at..]);
        status.is_some_and(|status| status.starts_with(" Z(I)"))
    };
    answers.iter().rposition(is_idle).unwrap_or(0)
}
