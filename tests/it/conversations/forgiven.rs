//! Answers that may differ because docs/limits.md says so. What comes behind one of them is another story.

use super::act::{Act, Cancel, Conversation, Turn, Wait};
use super::{Compared, cycles};

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
            || is_behind_cancelled_copy(turns, &direct.answers[..at])
            || is_reset_ahead_of_isolation(conversation, turns, answer)
            || is_executed_behind_failure(turns, answer)
            || is_of_unnamed_that_was_skipped(turns, said, answer)
        {
            self.end_at(at);
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
        " in a hot standby",
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

/// A COPY that is cancelled before it has read any data answers the Sync that was sent ahead of it too.
fn is_behind_cancelled_copy(turns: &[Turn], answers: &[String]) -> bool {
    let begins = |turn: &Turn| {
        turn.wait == Wait::CopyBegun
            && turn.cancel == Cancel::Answered
            && turn.acts.contains(&Act::Sync)
    };
    // The answer to its data; the first is the greeting.
    let mut ended = turns.iter().zip(answers.iter().skip(2));
    ended.any(|(turn, answer)| begins(turn) && answer.contains("C=57014"))
}

/// In a failed transaction a server cannot be given what a text runs behind its end.
fn is_executed_behind_failure(turns: &[Turn], through: &str) -> bool {
    let executes = |act: &Act| match act {
        Act::Query(text) => ["COMMIT;", "ROLLBACK;"].iter().any(|end| {
            let behind = text.split_once(end);
            behind.is_some_and(|(_, behind)| behind.contains("EXECUTE "))
        }),
        _ => false,
    };
    let lacks = through
        .split_once("C(ROLLBACK)")
        .is_some_and(|(_, behind)| behind.contains("C=26000 M=prepared statement"));
    let turn = turns.last();
    lacks && turn.is_some_and(|turn| turn.acts.iter().any(executes))
}

/// A Describe that fails in a failed transaction, as conversations are forgiven for, skips the Parse behind it, which
/// would have dropped the unnamed statement.
fn is_of_unnamed_that_was_skipped(turns: &[Turn], direct: &str, through: &str) -> bool {
    const GONE: &str = "C=26000 M=unnamed prepared statement does not exist";
    const FAILED: &str = "C=25P02 M=current transaction is aborted, \
        commands ignored until end of transaction block";
    let skips = |turn: &Turn| {
        let mut acts = turn.acts.split(Act::ends_cycle);
        acts.any(|cycle| {
            let described = |act: &Act| matches!(act, Act::DescribeStatement(_));
            let mut behind = cycle.iter().skip_while(|act| !described(act));
            behind.any(|act| matches!(act, Act::Parse { name: "", .. }))
        })
    };
    let alike = |(direct, through): (&&str, &&str)| {
        let failed = direct.replace(GONE, FAILED);
        // The Describe may be in this answer.
        failed == **through || direct.starts_with("t(") && failed.ends_with(*through)
    };
    let (said, answered) = (cycles(direct), cycles(through));
    direct.contains(GONE)
        && said.len() == answered.len()
        && said.iter().zip(&answered).all(alike)
        && turns.iter().any(skips)
}

/// What sets a list of names again as the start-up packet gave it is a query.
fn is_reset_ahead_of_isolation(conversation: &Conversation, turns: &[Turn], through: &str) -> bool {
    const TOO_LATE: &str =
        "C=25001 M=SET TRANSACTION ISOLATION LEVEL must be called before any query";
    let resets = |turn: &Turn| {
        let turn = turn.to_string();
        turn.contains("RESET") || turn.contains("DEFAULT")
    };
    let mut startup = conversation.startup.iter();
    through.contains(TOO_LATE)
        && turns.iter().any(resets)
        && startup.any(|(name, value)| [name, value].iter().any(|it| it.contains("search_path")))
}
