//! Statements that sleep until they are cancelled, with others ahead of them and in their own cycle. They go
//! by names that nothing else uses: whoever ran them again would sleep for good. PostgreSQL signals a cancel
//! twice, and the second time may hit what has begun by then, so nothing runs behind a cancel in its turn.

use super::super::act::{Act, Cancel, Format, Turn};
use super::{Speaker, flushed, ready};

/// Each sleeps for longer than anybody waits, if it comes to that.
const NAPS: [&str; 13] = [
    "SELECT pg_sleep(60)",
    "SELECT pg_sleep(60)",
    "SELECT count(*), pg_sleep(60) FROM note",
    "SELECT n, pg_sleep(60 * (n - 1)) FROM generate_series(1, 2) n",
    "SELECT pg_sleep(60), txid_current()",
    "COPY (SELECT pg_sleep(60)) TO STDOUT",
    "INSERT INTO note SELECT 5, pg_sleep(60)::text",
    "UPDATE note SET text = pg_sleep(60)::text RETURNING id",
    "WITH w AS (DELETE FROM note RETURNING id) SELECT id, pg_sleep(60) FROM w",
    "SELECT set_config('app.mine', 'nap', false), pg_sleep(60)",
    "SELECT pg_advisory_lock(1), pg_sleep(60)",
    "CREATE TEMP TABLE mine AS SELECT 1 AS n, pg_sleep(60)",
    "DO $$ BEGIN INSERT INTO note VALUES (4, 'nap'); COMMIT; PERFORM pg_sleep(60); END $$",
];

impl Speaker {
    /// A turn in which a statement sleeps and is cancelled, unless something fails before.
    pub(super) fn nap(&mut self, turns: &mut Vec<Turn>) {
        const FLUSHED: u32 = 3;
        let sql = self.pick(&NAPS);
        let mut acts = Vec::new();
        let shape = self.below(5);
        // What is read up to a Flush is one cycle.
        if shape != FLUSHED && self.one_in(3) {
            acts.extend(self.pipeline().acts);
        }
        match shape {
            0 => acts.push(Act::Query(sql.to_owned())),
            1 => {
                let mut texts = vec![sql.to_owned()];
                if !self.one_in(3) {
                    texts.insert(0, self.sql());
                }
                if !self.one_in(3) {
                    texts.push(self.sql());
                }
                acts.push(Act::Query(texts.join("; ")));
            }
            2 => {
                let cursor = "BEGIN; DECLARE nap CURSOR FOR SELECT pg_sleep(60); FETCH nap";
                acts.push(Act::Query(cursor.to_owned()));
            }
            _ => {
                if self.one_in(2) {
                    acts.extend(self.cycle());
                }
                self.sleep(sql, &mut acts);
                if self.one_in(2) {
                    acts.extend(self.cycle());
                }
                if shape == FLUSHED {
                    acts.push(Act::Flush);
                    turns.push(flushed(acts).cancelled(Cancel::Asleep));
                    turns.push(ready(vec![Act::Sync]));
                    return;
                }
                acts.push(Act::Sync);
            }
        }
        turns.push(ready(acts).cancelled(Cancel::Asleep));
    }

    fn sleep(&mut self, sql: &str, acts: &mut Vec<Act>) {
        let (name, portal) = ("nap", "nap");
        acts.push(Act::CloseStatement(name));
        acts.push(Act::Parse {
            name,
            sql: sql.to_owned(),
        });
        acts.push(Act::Bind {
            portal,
            statement: name,
            parameters: Vec::new(),
            results: Format::Text,
        });
        if self.one_in(3) {
            acts.push(Act::DescribePortal(portal));
        }
        let rows = self.below(3);
        acts.push(Act::Execute { portal, rows });
        // The first row may have come without sleep.
        acts.push(Act::Execute { portal, rows: 0 });
    }
}
