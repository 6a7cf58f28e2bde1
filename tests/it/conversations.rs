//! Random conversations, each played to PostgreSQL itself and through Causeway: what a client sees
//! and what it leaves behind must be the same. Between any two of its turns others use the few
//! servers with settings, statements and failures of their own.
//!
//! The seeds are fixed, so that a run that passes once passes always. `CAUSEWAY_SOAK=600` plays
//! new ones for so many seconds, `CAUSEWAY_SEED=1234` plays one. A failure shows its seed and the
//! shortest conversation that was found to fail. With fixed seeds it must fail twice: what a busy
//! machine brings about once, such as a lock that is waited for too long, is for the soak to find.

mod act;
mod forgiven;
mod generate;
mod play;
mod told;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use causeway::lab::{APP_DATABASE, APP_USER, SUPERUSER};
use tokio_postgres::Client;

use crate::front::{Front, ask, until, until_known};
use crate::raw::{Raw, bind, close_statement, describe_statement, execute, parse, sync};
use act::{Conversation, Turn};
use play::{Lookouts, Player};

/// Conversations of an ordinary run.
const SEEDS: u64 = 150;
/// Attempts to make a failing conversation shorter.
const ATTEMPTS: usize = 150;
/// So many failing conversations are told at once.
const FAILURES: usize = 4;

#[tokio::test]
async fn a_client_cannot_tell_causeway_from_postgres() {
    let number = |name| Some(std::env::var(name).ok()?.parse::<u64>().expect(name));
    let seeds: Box<dyn Iterator<Item = u64>> =
        match (number("CAUSEWAY_SEED"), number("CAUSEWAY_SOAK")) {
            (Some(seed), _) => Box::new(std::iter::once(seed)),
            (None, Some(seconds)) => {
                let end = Instant::now() + Duration::from_secs(seconds);
                let fresh = move || (Instant::now() < end).then(rand::random);
                Box::new(std::iter::from_fn(fresh))
            }
            (None, None) => Box::new(0..SEEDS),
        };
    let mut stage = Stage::new().await;
    let mut failures = Vec::new();
    let mut played = 0;
    for seed in seeds {
        failures.extend(stage.failure(seed).await);
        played += 1;
        if failures.len() == FAILURES {
            break;
        }
    }
    println!("{played} conversations, {} turns", stage.turns);
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    // What cannot differ proves nothing.
    assert!(
        stage.kinds.len() >= 15 || played < SEEDS,
        "{:?}",
        stage.kinds
    );
}

#[tokio::test]
async fn what_once_differed_does_no_longer() {
    let mut stage = Stage::new().await;
    let mut failures = Vec::new();
    for (name, witness, conversation) in told::conversations() {
        let compared = stage.compare(&conversation).await;
        assert!(
            compared
                .direct
                .answers
                .iter()
                .any(|answer| answer.contains(witness)),
            "{name}: {witness} is nowhere in {:#?}",
            compared.direct.answers
        );
        failures.extend(
            compared
                .difference()
                .map(|found| format!("{name}: {found}")),
        );
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// One server for all: whatever one client leaves there the next one finds.
#[tokio::test]
async fn nobody_has_another_client_s_unnamed_statement() {
    let front = Front::with(|config| config.pool.size = 1).await;
    let (mut one, mut other) = (front.raw().await, front.raw().await);
    let secret = "SELECT 'secret', txid_current() > 0";
    let run = [bind("", "", &[]), execute("", 0), sync()];
    for _ in 0..3 {
        let prepared = one.exchange(&[parse("", secret), sync()]).await;
        assert_eq!(prepared, "1 Z(I)");
        assert_eq!(other.exchange(&run).await, "E(26000) Z(I)");
        let described = [describe_statement(""), sync()];
        assert_eq!(other.exchange(&described).await, "E(26000) Z(I)");
        let answer = one.exchange(&run).await;
        assert_eq!(answer, "2 D(secret,t) C(SELECT 1) Z(I)");
        assert_eq!(other.exchange(&run).await, "E(26000) Z(I)");
    }
}

/// The nodes, a Causeway before them with two servers on each, and those who use them too.
struct Stage {
    front: Front,
    admin: Client,
    lookouts: Lookouts,
    others: Vec<Other>,
    turns: usize,
    /// Types of backend messages that were compared.
    kinds: HashSet<char>,
}

/// What a client has seen, turn by turn, and what it left behind.
#[derive(PartialEq, Eq)]
struct Seen {
    answers: Vec<String>,
    left: String,
    /// What others have seen of it in between.
    disturbed: Vec<String>,
}

/// One conversation with either.
struct Compared {
    direct: Seen,
    through: Seen,
}

impl Compared {
    /// Answers that differ in what no pooler can mend: in a failed transaction PostgreSQL tells
    /// what is wrong with a Bind by the statement that it has, and a server that has not got it can
    /// prepare nothing any more.
    fn forgive(&mut self) {
        const FAILED: &str = "C=25P02 M=current transaction is aborted, \
            commands ignored until end of transaction block";
        let forgiven = |answer: &str| {
            let start = answer.find("C=08P01 M=bind message supplies")?;
            let end = start + answer[start..].find(')')?;
            Some([&answer[..start], FAILED, &answer[end..]].concat())
        };
        let pairs = self.direct.answers.iter_mut().zip(&self.through.answers);
        let mut end = None;
        for (at, (direct, through)) in pairs.enumerate() {
            // A cancel hits a COPY at whatever line it has come to.
            let cancelled = without_line_of_cancel(direct);
            if cancelled.is_some() && cancelled == without_line_of_cancel(through) {
                *direct = through.clone();
            }
            // Nor can a server describe the parameters of what it cannot prepare any more.
            let undescribed = without_lone_parameters(direct);
            if undescribed != *direct && undescribed == *through {
                *direct = undescribed;
            }
            // The same statement under two names: which of them an error is about is not kept.
            if direct.contains("C=08P01") {
                let unnamed = |answer: &str| answer.replace("\"s\"", "\"t\"");
                if unnamed(direct) == unnamed(through) {
                    *direct = through.clone();
                }
            }
            // Nor can it describe a BEGIN that was answered without it, or what another has.
            let nothing_more = format!("E(S=ERROR V=ERROR {FAILED})");
            let alike = |direct: &str, through: &str| {
                let described = |kept: &str| {
                    let rest = direct.strip_prefix(kept);
                    rest.is_some_and(|rest| rest.starts_with("t("))
                };
                through == direct || through.strip_suffix(&nothing_more).is_some_and(described)
            };
            let all_alike = {
                let (direct, through) = (cycles(direct), cycles(through));
                let mut cycles = direct.iter().zip(&through);
                direct.len() == through.len()
                    && cycles.all(|(direct, through)| alike(direct, through))
            };
            if all_alike || forgiven(direct).as_ref() == Some(through) {
                // What follows in this cycle is skipped.
                if direct != through && !through.ends_with(" Z(E)") {
                    end.get_or_insert(at + 1);
                }
                *direct = through.clone();
            }
        }
        self.end_at(end.unwrap_or(usize::MAX));
    }

    /// Cuts off what comes behind so many answers.
    fn end_at(&mut self, end: usize) {
        for seen in [&mut self.direct, &mut self.through] {
            if end < seen.answers.len() {
                seen.answers.truncate(end);
                seen.left.clear();
            }
        }
    }

    fn difference(&self) -> Option<String> {
        let Compared { direct, through } = self;
        if direct == through {
            return None;
        }
        let mut text = String::new();
        let mut pairs = direct.answers.iter().zip(&through.answers).enumerate();
        if let Some((at, (direct, through))) =
            pairs.find(|(_, (direct, through))| direct != through)
        {
            text += &format!("answer {at}:\n  PostgreSQL {direct}\n  Causeway   {through}\n");
        }
        if direct.left != through.left {
            let (direct, through) = (&direct.left, &through.left);
            text += &format!("left behind:\n  PostgreSQL {direct}\n  Causeway   {through}\n");
        }
        for disturbed in &through.disturbed {
            text += &format!("another client: {disturbed}\n");
        }
        Some(text)
    }
}

/// An answer without the place in its data where a COPY was cancelled.
fn without_line_of_cancel(answer: &str) -> Option<String> {
    let (before, error) =
        answer.split_once("C=57014 M=canceling statement due to user request W=COPY ")?;
    let (_, behind) = error.split_once(") Z(")?;
    Some([before, behind].concat())
}

/// An answer without the parameters of what does not parse.
fn without_lone_parameters(answer: &str) -> String {
    const FAILS: &str = ") E(S=ERROR V=ERROR C=42";
    let mut kept = String::new();
    let mut rest = answer;
    while let Some(end) = rest.find(FAILS) {
        let (ahead, behind) = rest.split_at(end + ") ".len());
        let start = ahead[..end].rfind(' ').map_or(0, |at| at + 1);
        kept.push_str(match ahead[start..].starts_with("t(") {
            true => &ahead[..start],
            false => ahead,
        });
        rest = behind;
    }
    kept + rest
}

/// The answers of an answer's cycles in a failed transaction; of others what stands between those.
fn cycles(answer: &str) -> Vec<&str> {
    answer.split(" Z(E)").map(str::trim_start).collect()
}

impl Stage {
    async fn new() -> Stage {
        let front = Front::with(|config| config.pool.size = 2).await;
        let admin = front.admin().await;
        admin.batch_execute(generate::TABLES).await.unwrap();
        front.lab.wait_caught_up("eu-west").await.unwrap();
        // From the first conversation on reads run on the replica.
        let client = front.client().await;
        for table in ["note", "side.note", "parent", "child"] {
            until_known(&client, table).await;
        }
        let others = vec![
            Other::new(&front, "Asia/Kolkata", "other").await,
            Other::new(&front, "America/Lima", "app").await,
        ];
        let mut lookouts = Vec::new();
        for node in front.lab.nodes() {
            lookouts.push(node.connect(SUPERUSER, APP_DATABASE).await.unwrap());
        }
        Stage {
            front,
            admin,
            lookouts: Lookouts(lookouts),
            others,
            turns: 0,
            kinds: HashSet::new(),
        }
    }

    /// Plays the conversation of this seed; a short one if there is a difference.
    async fn failure(&mut self, seed: u64) -> Option<String> {
        let conversation = generate::conversation(seed);
        self.turns += conversation.turns.len();
        let mut difference = self.difference(&conversation).await?;
        println!("seed {seed} differs: {difference}");
        if std::env::var_os("CAUSEWAY_SOAK").is_none() {
            difference = self.difference(&conversation).await?;
        }
        let (short, difference) = self.shortened(conversation, difference).await;
        let turns: Vec<String> = short.turns.iter().map(Turn::to_string).collect();
        let (startup, turns) = (&short.startup, turns.join("\n  "));
        let leave = short.leave;
        let story = format!("seed {seed}: {startup:?}\n  {turns}\n  {leave:?}\n{difference}");
        println!("{story}");
        Some(story)
    }

    /// Leaves out what can be left out while there still is a difference.
    async fn shortened(
        &mut self,
        mut conversation: Conversation,
        mut difference: String,
    ) -> (Conversation, String) {
        let mut attempts = 0;
        for size in [8, 4, 2, 1, 1] {
            let mut from = 0;
            while from < conversation.turns.len() && attempts < ATTEMPTS {
                attempts += 1;
                let mut shorter = conversation.clone();
                let to = shorter.turns.len().min(from + size);
                shorter.turns.drain(from..to);
                if !shorter.is_sound() {
                    from += 1;
                    continue;
                }
                match self.difference(&shorter).await {
                    Some(found) => (conversation, difference) = (shorter, found),
                    None => from += size,
                }
            }
        }
        for turn in (0..conversation.turns.len()).rev() {
            for act in (0..conversation.turns[turn].acts.len()).rev() {
                let mut shorter = conversation.clone();
                let removed = shorter.turns[turn].acts.remove(act);
                if attempts == ATTEMPTS || !removed.can_be_left_out() {
                    continue;
                }
                attempts += 1;
                if let Some(found) = self.difference(&shorter).await {
                    (conversation, difference) = (shorter, found);
                }
            }
        }
        conversation.turns.retain(|turn| !turn.acts.is_empty());
        (conversation, difference)
    }

    async fn difference(&mut self, conversation: &Conversation) -> Option<String> {
        self.compare(conversation).await.difference()
    }

    async fn compare(&mut self, conversation: &Conversation) -> Compared {
        self.clear().await;
        let direct = self.play_directly(conversation).await;
        self.clear().await;
        let through = self.play_through(conversation).await;
        for answer in &direct.answers {
            let kinds = answer.split(' ').filter_map(|word| word.chars().next());
            self.kinds.extend(kinds);
        }
        let mut compared = Compared { direct, through };
        compared.forgive();
        compared.forgive_limits(conversation);
        compared
    }

    async fn play_directly(&self, conversation: &Conversation) -> Seen {
        let address = ([127, 0, 0, 1], self.front.primary().port()).into();
        let start = Player::start(address, &self.lookouts, conversation);
        let (mut player, greeting) = start.await;
        let mut answers = vec![greeting];
        for turn in &conversation.turns {
            answers.push(player.play(turn).await);
        }
        player.leave(conversation.leave).await;
        let left = self.left_behind().await;
        Seen {
            answers,
            left,
            disturbed: Vec::new(),
        }
    }

    async fn play_through(&mut self, conversation: &Conversation) -> Seen {
        let address = self.front.address();
        let start = Player::start(address, &self.lookouts, conversation);
        let (mut player, greeting) = start.await;
        let mut answers = vec![greeting];
        let mut disturbed = Vec::new();
        for (number, turn) in conversation.turns.iter().enumerate() {
            disturbed.extend(self.others[number % 2].interfere(number).await);
            answers.push(player.play(turn).await);
        }
        player.leave(conversation.leave).await;
        let left = self.left_behind().await;
        Seen {
            answers,
            left,
            disturbed,
        }
    }

    /// What the database has when the client's last transaction has ended.
    async fn left_behind(&self) -> String {
        until(&self.admin, BUSY, "0").await;
        ask(&self.admin, LEFT).await
    }

    /// The database as every conversation finds it, on every node.
    async fn clear(&self) {
        until(&self.admin, BUSY, "0").await;
        let prepared = "SELECT count(*) FROM pg_prepared_xacts";
        if ask(&self.admin, prepared).await != "0" {
            let sql = "ROLLBACK PREPARED 'g'";
            self.admin.batch_execute(sql).await.unwrap();
        }
        self.admin.batch_execute(CLEAR).await.unwrap();
        self.front.lab.wait_caught_up("eu-west").await.unwrap();
    }
}

/// Servers in the middle of something, or that hold something for a session: it has not been
/// cleared away yet. A prepared transaction has no process.
const BUSY: &str = "SELECT (SELECT count(*) FROM pg_stat_activity \
        WHERE usename = 'app' AND state <> 'idle') \
    + (SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database \
        WHERE locktype = 'advisory' AND datname = 'app' AND pid IS NOT NULL) \
    + (SELECT count(*) FROM pg_class WHERE relpersistence = 't' AND relname = 'mine')";

const LEFT: &str = "SELECT concat_ws(E'\\n    ', \
    (SELECT string_agg(n::text, ' ' ORDER BY id) FROM note n), \
    (SELECT string_agg(n::text, ' ' ORDER BY id) FROM side.note n), \
    (SELECT string_agg(n::text, ' ' ORDER BY id) FROM parent n), \
    (SELECT string_agg(n::text, ' ' ORDER BY id) FROM child n), \
    (SELECT string_agg(gid, ' ') FROM pg_prepared_xacts), \
    (SELECT string_agg(oid || ' ' || lo_get(oid)::text, ' ' ORDER BY oid) \
        FROM pg_largeobject_metadata))";

const CLEAR: &str = "TRUNCATE note, side.note, parent, child; \
    INSERT INTO note VALUES (1, 'one'), (2, 'two'); \
    SELECT lo_unlink(oid) FROM pg_largeobject_metadata";

/// A client that uses the same servers in between, with everything set otherwise. It notices if
/// anything of another client has come to it.
struct Other {
    raw: Raw,
    zone: &'static str,
    role: &'static str,
}

impl Other {
    async fn new(front: &Front, zone: &'static str, role: &'static str) -> Other {
        let mut raw = Raw::log_in(front.address(), APP_USER, APP_DATABASE).await;
        for sql in [
            format!("SET TimeZone TO '{zone}'"),
            format!("SET ROLE {role}"),
            format!("SET application_name TO '{zone}'"),
            format!("SET app.mine TO '{role}'"),
            "SET search_path TO nowhere".to_owned(),
            "SET work_mem TO '3MB'".to_owned(),
        ] {
            let answer = raw.query(&sql).await;
            assert!(answer.starts_with("C(SET)"), "{answer}");
        }
        Other { raw, zone, role }
    }

    /// What it sees that is not its own.
    async fn interfere(&mut self, number: usize) -> Option<String> {
        let (zone, role) = (self.zone, self.role);
        let mine = format!("D({zone},{role},{role},nowhere,3MB)");
        // On the primary, and wherever reads go.
        let also = ["", "FROM (SELECT txid_current()) t"][number / 2 % 2];
        let sql = format!(
            "SELECT current_setting('TimeZone'), current_user, current_setting('app.mine'), \
             current_setting('search_path'), current_setting('work_mem') {also}"
        );
        let answer = match number % 5 {
            0 => self.raw.query(&sql).await,
            1 => {
                let name = ["s", "t", ""][number / 5 % 3];
                let run = [bind("p", name, &[]), execute("p", 0), sync()];
                let prepare = close_statement(name);
                let messages = [vec![prepare, parse(name, &sql)], run.to_vec()].concat();
                self.raw.exchange(&messages).await
            }
            2 => {
                let begun = self.raw.query("BEGIN").await;
                assert_eq!(begun, "C(BEGIN) Z(T)");
                let answer = self.raw.query(&sql).await;
                let failed = self
                    .raw
                    .query("SET LOCAL TimeZone TO 'UTC'; SELECT 1/0")
                    .await;
                assert!(failed.ends_with("E(22012) Z(E)"), "{failed}");
                let ended = self.raw.query("ROLLBACK").await;
                assert!(ended.ends_with("C(ROLLBACK) Z(I)"), "{ended}");
                answer
            }
            3 => {
                let failed = self.raw.query("SELECT 1; SELECT 1/0").await;
                assert!(failed.ends_with("E(22012) Z(I)"), "{failed}");
                self.raw.query(&sql).await
            }
            _ => {
                let set = format!("SET extra_float_digits TO {}; {sql}", number % 3);
                self.raw.query(&set).await
            }
        };
        (!answer.contains(&mine)).then(|| format!("{sql}: {answer}, not {mine}"))
    }
}
