//! Makes conversations: a seed is one conversation, the same on every machine. Names are few, so
//! that they meet again and again. Whether something succeeds is for PostgreSQL to say.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::act::{Act, Cancel, Conversation, Format, Leave, Turn, Wait};

mod flushes;
mod naps;

/// What both stages must have before a conversation.
pub const TABLES: &str = "
    CREATE ROLE other;
    GRANT other TO app;
    CREATE TABLE note (id int PRIMARY KEY, text text);
    CREATE TABLE secret (id int PRIMARY KEY, text text);
    CREATE TABLE parent (id int PRIMARY KEY);
    CREATE TABLE child (id int REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
    CREATE SCHEMA side;
    CREATE TABLE side.note (id int PRIMARY KEY, text text);
    GRANT USAGE ON SCHEMA side TO app, other;
    GRANT ALL ON note, parent, child, side.note TO app, other;
    GRANT ALL ON secret TO app;
    CREATE FUNCTION writes(n int) RETURNS int LANGUAGE sql
        AS 'INSERT INTO note VALUES (n, ''function'') RETURNING id';
    CREATE FUNCTION warns() RETURNS int LANGUAGE plpgsql
        AS $$ BEGIN RAISE WARNING 'careful'; RETURN 1; END $$;
    ALTER ROLE app SET lock_timeout TO '100ms';
    ALTER ROLE app SET app.mine TO 'base';
";

const STATEMENTS: [&str; 4] = ["", "", "s", "t"];
const PORTALS: [&str; 4] = ["", "", "p", "q"];
const SAVEPOINTS: [&str; 2] = ["a", "b"];

/// Settings, with values that are good and some that are not.
const SETTINGS: [(&str, &[&str]); 14] = [
    (
        "TimeZone",
        &["'UTC'", "'Asia/Tokyo'", "'Nowhere/Land'", "DEFAULT"],
    ),
    ("DateStyle", &["'German'", "'ISO, DMY'", "SQL", "MDY"]),
    ("IntervalStyle", &["iso_8601", "postgres_verbose"]),
    ("application_name", &["'mine'", "'it''s'", "DEFAULT"]),
    (
        "search_path",
        &["side, public", "public", "nowhere", "DEFAULT"],
    ),
    ("work_mem", &["'1MB'", "77", "'lots'", "DEFAULT"]),
    ("extra_float_digits", &["0", "3", "99"]),
    ("standard_conforming_strings", &["on", "off"]),
    ("client_encoding", &["'UTF8'", "'LATIN1'", "'EUC_JP'"]),
    ("app.mine", &["'x'", "'y'", "1"]),
    ("bytea_output", &["'escape'", "'hex'"]),
    ("enable_seqscan", &["off", "on", "maybe"]),
    ("default_transaction_read_only", &["on", "off"]),
    (
        "default_transaction_isolation",
        &["'repeatable read'", "DEFAULT"],
    ),
];

/// Kinds of things to say, and how often.
const KINDS: [(Kind, u32); 14] = [
    (Kind::Read, 14),
    (Kind::Write, 12),
    (Kind::Fail, 4),
    (Kind::Setting, 14),
    (Kind::Look, 10),
    (Kind::Role, 4),
    (Kind::Transaction, 14),
    (Kind::Prepared, 6),
    (Kind::Cursor, 6),
    (Kind::Temporary, 5),
    (Kind::Lock, 4),
    (Kind::Notify, 3),
    (Kind::LargeObject, 3),
    (Kind::TwoPhase, 2),
];

#[derive(Clone, Copy)]
enum Kind {
    Read,
    Write,
    Fail,
    Setting,
    Look,
    Role,
    Transaction,
    Prepared,
    Cursor,
    Temporary,
    Lock,
    Notify,
    LargeObject,
    TwoPhase,
}

/// The conversation of this seed.
pub fn conversation(seed: u64) -> Conversation {
    let mut speaker = Speaker {
        random: StdRng::seed_from_u64(seed),
        has_startup_values: false,
    };
    let startup = speaker.startup();
    speaker.has_startup_values = !startup.is_empty();
    let mut turns = Vec::new();
    let wanted = speaker.random.random_range(5..25);
    while turns.len() < wanted {
        let from = turns.len();
        speaker.say(&mut turns);
        // Whoever has been answered may ask for a cancel too, which is then too late.
        for turn in &mut turns[from..] {
            if turn.cancel == Cancel::Never && speaker.one_in(15) {
                turn.cancel = Cancel::Answered;
            }
        }
    }
    let leave = match speaker.one_in(3) {
        true => Leave::Vanishing,
        false => Leave::Politely,
    };
    Conversation {
        startup,
        turns,
        leave,
    }
}

struct Speaker {
    random: StdRng,
    has_startup_values: bool,
}

impl Speaker {
    fn one_in(&mut self, n: u32) -> bool {
        self.random.random_ratio(1, n)
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from.choose(&mut self.random).expect("a choice")
    }

    fn below(&mut self, n: u32) -> u32 {
        self.random.random_range(0..n)
    }

    fn startup(&mut self) -> Vec<(&'static str, &'static str)> {
        let kinds: &[&[(&str, &str)]] = &[
            &[("TimeZone", "Europe/Paris"), ("application_name", "first")],
            &[("options", "-c work_mem=2MB -c extra_float_digits=2")],
            &[("client_encoding", "LATIN1"), ("app.mine", "start")],
            &[
                ("options", "--search_path=side,public"),
                ("DateStyle", "SQL"),
            ],
            &[("enable_seqscan", "off"), ("client_encoding", "UTF8")],
            &[("search_path", "\"side\" ,Public"), ("DateStyle", "YMD")],
            &[(
                "options",
                "-c default_transaction_read_only=on -cdatestyle=German,\\ DMY",
            )],
            &[("options", "-c role=other"), ("IntervalStyle", "iso_8601")],
            &[("app.mine", "it's \\ \u{e4}"), ("bytea_output", "escape")],
        ];
        match self.below(3) {
            0 => Vec::new(),
            _ => kinds.choose(&mut self.random).expect("kinds").to_vec(),
        }
    }

    /// One or several turns.
    fn say(&mut self, turns: &mut Vec<Turn>) {
        match self.below(24) {
            0..8 => {
                let sql = self.sql();
                turns.push(ready(vec![Act::Query(sql)]));
            }
            8..10 => {
                let sql = self.several();
                turns.push(ready(vec![Act::Query(sql)]));
            }
            10..14 => {
                let mut acts = self.cycle();
                acts.push(Act::Sync);
                turns.push(ready(acts));
            }
            14..16 => turns.push(self.pipeline()),
            16 | 17 => {
                let mut acts = self.cycle();
                acts.push(Act::Flush);
                turns.push(flushed(acts));
                if !self.one_in(3) {
                    let mut acts = match self.one_in(2) {
                        true => self.cycle(),
                        false => Vec::new(),
                    };
                    acts.push(Act::Sync);
                    turns.push(ready(acts));
                } else {
                    // Whatever comes next finds the cycle open, if it is none of its own.
                    turns.push(ready(vec![Act::Sync]));
                }
            }
            18 => self.copy(turns),
            19..22 => self.flushes(turns),
            22 => self.nap(turns),
            _ => {
                let call = self.call();
                turns.push(ready(vec![call]));
            }
        }
    }

    /// Cycles, one behind the other in one write.
    fn pipeline(&mut self) -> Turn {
        let mut acts = Vec::new();
        for _ in 0..self.random.random_range(2..6) {
            match self.below(8) {
                0 => acts.push(Act::Query(self.sql())),
                1 => acts.push(Act::Query(self.several())),
                2 => acts.push(Act::Sync),
                3 => acts.push(self.call()),
                _ => {
                    acts.extend(self.cycle());
                    acts.push(Act::Sync);
                }
            }
        }
        ready(acts)
    }

    /// Messages of the extended protocol, without what ends them.
    fn cycle(&mut self) -> Vec<Act> {
        let mut acts = Vec::new();
        for _ in 0..self.random.random_range(1..4) {
            let statement = self.statement();
            match self.below(12) {
                0..6 => self.run(&mut acts),
                6 => acts.push(Act::DescribeStatement(statement)),
                // The unnamed portal of a Query that failed in a transaction brings PostgreSQL 15 down.
                7 => acts.push(Act::DescribePortal(self.pick(&["p", "q"]))),
                8 => {
                    let rows = self.below(3);
                    let portal = self.pick(&["p", "q"]);
                    acts.push(Act::Execute { portal, rows });
                }
                9 => acts.push(Act::CloseStatement(statement)),
                10 => acts.push(Act::ClosePortal(self.portal())),
                _ => {
                    let bind = self.bind(statement);
                    acts.push(bind);
                    let portal = self.portal();
                    acts.push(Act::Execute { portal, rows: 0 });
                }
            }
        }
        acts
    }

    /// Parse, Bind and so on of one statement, mostly in the right order.
    fn run(&mut self, acts: &mut Vec<Act>) {
        let (mut statement, portal) = (self.statement(), self.portal());
        let (sql, parameters) = self.parametrised();
        // What executes itself brings PostgreSQL 15 down.
        if sql.starts_with("EXECUTE s") && statement == "s" {
            statement = "t";
        }
        if !statement.is_empty() && self.one_in(2) {
            acts.push(Act::CloseStatement(statement));
        }
        acts.push(Act::Parse {
            name: statement,
            sql,
        });
        if self.one_in(4) {
            acts.push(Act::DescribeStatement(statement));
        }
        let results = self.format();
        acts.push(Act::Bind {
            portal,
            statement,
            parameters,
            results,
        });
        if self.one_in(2) {
            acts.push(Act::DescribePortal(portal));
        }
        let rows = match self.one_in(4) {
            true => self.random.random_range(1..4),
            false => 0,
        };
        acts.push(Act::Execute { portal, rows });
        if rows > 0 && self.one_in(2) {
            acts.push(Act::Execute { portal, rows: 0 });
        }
    }

    fn bind(&mut self, statement: &'static str) -> Act {
        let parameters = match self.below(3) {
            0 => Vec::new(),
            _ => vec![self.below(4).to_string()],
        };
        Act::Bind {
            portal: self.portal(),
            statement,
            parameters,
            results: self.format(),
        }
    }

    fn format(&mut self) -> Format {
        match self.one_in(5) {
            true => Format::Binary,
            false => Format::Text,
        }
    }

    fn statement(&mut self) -> &'static str {
        self.pick(&STATEMENTS)
    }

    fn portal(&mut self) -> &'static str {
        self.pick(&PORTALS)
    }

    fn parametrised(&mut self) -> (String, Vec<String>) {
        let number = self.below(4).to_string();
        let sql = match self.below(12) {
            0 => "SELECT $1::int + 1",
            1 => "SELECT * FROM note WHERE id >= $1 ORDER BY id",
            2 => "INSERT INTO note VALUES ($1, 'p')",
            3 => "INSERT INTO note VALUES ($1, 'r') RETURNING *",
            4 => "DELETE FROM note WHERE id = $1",
            5 => "SELECT 1 / $1::int",
            6 => "SELECT n FROM generate_series(1, $1::int + 2) n",
            7 => "UPDATE note SET text = text || 'u' WHERE id <> $1 RETURNING id",
            _ => return (self.sql(), Vec::new()),
        };
        let parameters = match self.one_in(12) {
            true => Vec::new(),
            false => vec![number],
        };
        (sql.to_owned(), parameters)
    }

    /// Several statements in one text, or none.
    fn several(&mut self) -> String {
        match self.below(10) {
            0 => self
                .pick(&["", ";", "-- nothing", " /* no */ ;; "])
                .to_owned(),
            _ => {
                let count = self.random.random_range(2..5);
                let texts: Vec<String> = (0..count).map(|_| self.sql()).collect();
                texts.join("; ")
            }
        }
    }

    /// One statement.
    fn sql(&mut self) -> String {
        let (kind, _) = KINDS
            .choose_weighted(&mut self.random, |(_, weight)| *weight)
            .expect("weights");
        match kind {
            Kind::Read => self.read(),
            Kind::Write => self.write(),
            Kind::Fail => self.failure(),
            Kind::Setting => self.setting(),
            Kind::Look => self.look(),
            Kind::Role => self.role(),
            Kind::Transaction => self.transaction(),
            Kind::Prepared => self.prepared(),
            Kind::Cursor => self.cursor(),
            Kind::Temporary => self.temporary(),
            Kind::Lock => self.lock(),
            Kind::Notify => self.notify(),
            Kind::LargeObject => self.large_object(),
            Kind::TwoPhase => self.two_phase(),
        }
    }

    fn read(&mut self) -> String {
        self.pick(&[
            "SELECT * FROM note ORDER BY id",
            "SELECT count(*) FROM note",
            "SELECT 1",
            "SELECT",
            "VALUES (1, 'a'), (2, NULL)",
            "SELECT * FROM side.note ORDER BY id",
            "SELECT count(*) FROM child",
            "SELECT '2026-01-02 03:04:05+00'::timestamptz, '1 day 2 hours'::interval, 0.1::float8",
            "SELECT '\\x00ff'::bytea, 'a\\b'",
            "TABLE secret",
            "WITH a AS (SELECT count(*) n FROM note) SELECT n FROM a",
            "COPY (SELECT * FROM note ORDER BY id) TO STDOUT",
            "COPY (SELECT 1 / (2 - n) FROM generate_series(1, 3) n) TO STDOUT",
            "EXPLAIN (COSTS OFF) SELECT * FROM note",
            "SELECT chr(228)",
            "SELECT warns()",
        ])
        .to_owned()
    }

    fn write(&mut self) -> String {
        let id = self.below(6);
        match self.below(12) {
            0..3 => format!("INSERT INTO note VALUES ({id}, 'w')"),
            3 => format!("INSERT INTO note VALUES ({id}, 'w') ON CONFLICT DO NOTHING"),
            4 => format!("INSERT INTO side.note VALUES ({id}, 's') RETURNING id"),
            5 => format!("DELETE FROM note WHERE id = {id} RETURNING text"),
            6 => "UPDATE note SET text = text || 'x'".to_owned(),
            7 => format!(
                "WITH d AS (DELETE FROM note WHERE id < {id} RETURNING id) SELECT count(*) FROM d"
            ),
            8 => format!("SELECT writes({id})"),
            9 => format!("INSERT INTO child VALUES ({id})"),
            10 => format!("INSERT INTO parent VALUES ({id}) ON CONFLICT DO NOTHING"),
            _ => "SELECT count(*) FROM (SELECT 1 FROM note FOR UPDATE) n".to_owned(),
        }
    }

    fn failure(&mut self) -> String {
        self.pick(&[
            "SELECT 1/0",
            "SELEC",
            "SELECT * FROM nowhere",
            "SELECT nothing()",
            "INSERT INTO note VALUES (1), (1)",
            "DO $$ BEGIN RAISE EXCEPTION 'own' USING ERRCODE = 'P0099', HINT = 'none'; END $$",
            "CREATE TABLE note (a int)",
            "SELECT 'x",
        ])
        .to_owned()
    }

    fn setting(&mut self) -> String {
        let (name, values) = *SETTINGS.choose(&mut self.random).expect("settings");
        let value = self.pick(values);
        let text = match value.starts_with('\'') {
            true => value.to_owned(),
            false => format!("'{value}'"),
        };
        match self.below(14) {
            0..4 => format!("SET {name} TO {value}"),
            4 => format!("SET SESSION {name} = {value}"),
            5 | 6 => format!("SET LOCAL {name} TO {value}"),
            7 => format!("RESET {name}"),
            8 => format!("SELECT set_config('{name}', {text}, false)"),
            9 => format!("SELECT set_config('{name}', {text}, true)"),
            10 => format!("SELECT pg_catalog.set_config('{name}', {text} || '', false)"),
            11 => self
                .pick(&[
                    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
                    "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
                    "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ",
                    "SET TIME ZONE INTERVAL '02:30' HOUR TO MINUTE",
                    "SET TIME ZONE LOCAL",
                    "SET NAMES 'UTF8'",
                ])
                .to_owned(),
            // With a start-up value it answers with another, see docs/limits.md.
            12 if !self.has_startup_values => {
                format!("SELECT set_config('{name}', NULL, {})", self.one_in(2))
            }
            12 => "RESET ALL".to_owned(),
            _ => self
                .pick(&["DISCARD ALL", "DISCARD PLANS", "DISCARD TEMP", "RESET ALL"])
                .to_owned(),
        }
    }

    fn look(&mut self) -> String {
        let (name, _) = *SETTINGS.choose(&mut self.random).expect("settings");
        match self.below(4) {
            0 => format!("SHOW {name}"),
            1 => format!("SELECT current_setting('{name}', true)"),
            2 => "SELECT current_user, session_user, current_schemas(false)".to_owned(),
            _ => "SELECT name, setting FROM pg_settings WHERE source IN ('session', 'client') \
                AND name NOT LIKE 'transaction%' ORDER BY name"
                .to_owned(),
        }
    }

    fn role(&mut self) -> String {
        self.pick(&[
            "SET ROLE other",
            "SET ROLE other",
            "SET ROLE NONE",
            "RESET ROLE",
            "SET ROLE app",
            "SET LOCAL ROLE other",
            "SET ROLE nobody",
            "SET SESSION AUTHORIZATION app",
            "SET SESSION AUTHORIZATION DEFAULT",
            "SET SESSION AUTHORIZATION other",
            "RESET SESSION AUTHORIZATION",
        ])
        .to_owned()
    }

    fn transaction(&mut self) -> String {
        let savepoint = self.pick(&SAVEPOINTS);
        match self.below(24) {
            0..6 => "BEGIN".to_owned(),
            6 => "START TRANSACTION".to_owned(),
            7 => "BEGIN READ ONLY".to_owned(),
            8 => "BEGIN ISOLATION LEVEL REPEATABLE READ".to_owned(),
            9 => "BEGIN ISOLATION LEVEL SERIALIZABLE, READ WRITE".to_owned(),
            10..13 => "COMMIT".to_owned(),
            13..15 => "ROLLBACK".to_owned(),
            15 => "COMMIT AND CHAIN".to_owned(),
            16 => "ROLLBACK AND CHAIN".to_owned(),
            17 | 18 => format!("SAVEPOINT {savepoint}"),
            19 | 20 => format!("ROLLBACK TO {savepoint}"),
            21 => format!("RELEASE {savepoint}"),
            22 => "SET TRANSACTION READ ONLY".to_owned(),
            _ => "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ".to_owned(),
        }
    }

    fn prepared(&mut self) -> String {
        self.pick(&[
            "PREPARE s AS SELECT $1::int * 2",
            "PREPARE u AS INSERT INTO note VALUES ($1, 'u')",
            "EXECUTE s(3)",
            "EXECUTE s(3)",
            "EXECUTE u(7)",
            "DEALLOCATE s",
            "DEALLOCATE PREPARE u",
            "DEALLOCATE ALL",
        ])
        .to_owned()
    }

    fn cursor(&mut self) -> String {
        self.pick(&[
            "DECLARE c CURSOR FOR SELECT n FROM generate_series(1, 5) n",
            "DECLARE c SCROLL CURSOR FOR SELECT id FROM note ORDER BY id",
            "DECLARE c CURSOR WITH HOLD FOR SELECT n FROM generate_series(1, 5) n",
            "FETCH c",
            "FETCH 2 FROM c",
            "FETCH BACKWARD 1 FROM c",
            "MOVE c",
            "CLOSE c",
            "CLOSE ALL",
        ])
        .to_owned()
    }

    fn temporary(&mut self) -> String {
        self.pick(&[
            "CREATE TEMP TABLE mine (n int)",
            "CREATE TEMP TABLE mine ON COMMIT DROP AS SELECT 1 AS n",
            "CREATE TEMP TABLE IF NOT EXISTS mine (n int) ON COMMIT DELETE ROWS",
            "SELECT 1 AS n INTO TEMP mine",
            "INSERT INTO mine VALUES (1)",
            "INSERT INTO pg_temp.mine VALUES (2)",
            "SELECT count(*) FROM mine",
            "SELECT count(*) FROM mine",
            "DROP TABLE mine",
        ])
        .to_owned()
    }

    fn lock(&mut self) -> String {
        self.pick(&[
            "SELECT pg_advisory_lock(1)",
            "SELECT pg_try_advisory_lock(1)",
            "SELECT pg_catalog.pg_advisory_lock_shared(2)",
            "SELECT pg_advisory_xact_lock(3)",
            "SELECT pg_advisory_unlock(1)",
            "SELECT pg_advisory_unlock_shared(2)",
            "SELECT pg_advisory_unlock_all()",
            HELD,
            HELD,
        ])
        .to_owned()
    }

    fn notify(&mut self) -> String {
        self.pick(&[
            "LISTEN bell",
            "UNLISTEN bell",
            "UNLISTEN *",
            "NOTIFY bell, 'it''s'",
            "SELECT pg_notify('bell', 'function')",
            "SELECT pg_listening_channels()",
        ])
        .to_owned()
    }

    fn large_object(&mut self) -> String {
        self.pick(&[
            "SELECT lo_create(4711)",
            "SELECT lo_from_bytea(4712, 'abc')",
            "SELECT lo_put(4711, 0, 'xyz')",
            "SELECT lo_get(4711)",
            "SELECT loread(lo_open(4711, 262144), 2)",
            "SELECT lowrite(lo_open(4711, 131072), 'qq')",
            "SELECT lo_unlink(4711)",
            "SELECT lo_close(0)",
        ])
        .to_owned()
    }

    fn two_phase(&mut self) -> String {
        self.pick(&[
            "PREPARE TRANSACTION 'g'",
            "PREPARE TRANSACTION 'g'",
            "COMMIT PREPARED 'g'",
            "ROLLBACK PREPARED 'g'",
        ])
        .to_owned()
    }

    /// int4pl, lo_get, and what there is not.
    fn call(&mut self) -> Act {
        let function = [177, 3458, 1].choose(&mut self.random);
        let count = self.random.random_range(1..3);
        Act::Call {
            function: *function.expect("functions"),
            arguments: (0..count).map(|_| self.below(9).to_string()).collect(),
        }
    }

    /// COPY FROM STDIN in one of the two protocols.
    fn copy(&mut self, turns: &mut Vec<Turn>) {
        let (sql, good, bad): (&str, &[u8], &[u8]) = match self.below(4) {
            0 => ("COPY note FROM STDIN (FORMAT csv)", b"7,csv\n", b"\"open\n"),
            1 => ("COPY note FROM STDIN BINARY", BINARY, b"PGCOPY\nno"),
            2 => ("COPY nowhere FROM STDIN", b"1\n", b"1\n"),
            _ => ("COPY note FROM STDIN", b"8\tcopy\n9\t\\N\n", b"x\tbad\n"),
        };
        let extended = self.one_in(2);
        // As libpq does it, or as the manual has it.
        let synced_ahead = self.one_in(2);
        let mut acts = Vec::new();
        match extended {
            true => {
                // A name that nothing else uses: whatever else stood behind such an Execute in its
                // cycle would break the protocol.
                let (name, portal) = ("copy", self.portal());
                acts.push(Act::CloseStatement(name));
                let sql = sql.to_owned();
                acts.push(Act::Parse { name, sql });
                acts.push(Act::Bind {
                    portal,
                    statement: name,
                    parameters: Vec::new(),
                    results: Format::Text,
                });
                acts.push(Act::Execute { portal, rows: 0 });
                acts.push(Act::Sync);
            }
            false => {
                let mut texts = vec![sql.to_owned()];
                if self.one_in(3) {
                    texts.insert(0, self.sql());
                }
                if self.one_in(3) {
                    texts.push(self.sql());
                }
                acts.push(Act::Query(texts.join("; ")));
            }
        }
        let mut data = Vec::new();
        for _ in 0..self.below(4) {
            let piece = match self.one_in(5) {
                true => bad,
                false => good,
            };
            data.push(Act::CopyData(piece.to_vec()));
        }
        if self.one_in(4) {
            data.push(Act::Flush);
        }
        data.push(match self.one_in(4) {
            true => Act::CopyFail,
            false => Act::CopyDone,
        });
        let (first, second) = match (extended, synced_ahead) {
            (false, _) => (Wait::CopyBegun, Wait::CopyEnded),
            (true, true) => {
                data.push(Act::Sync);
                (Wait::CopyBegun, Wait::Ready)
            }
            (true, false) => {
                // All in one write: the Sync behind the data is the only one.
                acts.pop();
                acts.append(&mut data);
                acts.push(Act::Sync);
                turns.push(ready(acts));
                return;
            }
        };
        turns.push(Turn::new(acts, first));
        turns.push(Turn::new(data, second));
    }
}

/// The advisory locks that the server of the query holds.
const HELD: &str = "SELECT objid, mode FROM pg_locks \
    WHERE locktype = 'advisory' AND pid = pg_backend_pid() ORDER BY objid";

/// A row (7, 'b') for COPY BINARY, without the trailer, which may be left out.
const BINARY: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\0\x02\0\0\0\x04\0\0\0\x07\0\0\0\x01b";

fn ready(acts: Vec<Act>) -> Turn {
    Turn::new(acts, Wait::Ready)
}

fn flushed(acts: Vec<Act>) -> Turn {
    Turn::new(acts, Wait::Flushed)
}
