//! Cycles that are answered bit by bit: portals are opened, described, run by some rows at a time
//! and closed, with other statements in between, before a Sync ends it all.

use rand::Rng;
use rand::seq::IndexedRandom;

use super::super::act::{Act, Turn};
use super::{Speaker, flushed, ready};

/// Queries with some rows to give, of which a replica may give the most.
const ROWS: [&str; 6] = [
    "SELECT n FROM generate_series(1, 5) n",
    "SELECT * FROM note ORDER BY id",
    "SELECT n, 6 / (4 - n) FROM generate_series(1, 5) n",
    "VALUES (1, 'a'), (2, NULL), (3, 'c')",
    "INSERT INTO note SELECT n, 'f' FROM generate_series(3, 6) n RETURNING *",
    "SELECT id FROM note ORDER BY id FOR UPDATE",
];

/// Portals that were opened in this cycle, if all went well.
type Open = Vec<&'static str>;

impl Speaker {
    /// One cycle with several Flushes, each in a write of its own or not.
    pub(super) fn flushes(&mut self, turns: &mut Vec<Turn>) {
        let mut open = Open::new();
        let mut acts = Vec::new();
        for _ in 0..self.random.random_range(2..6) {
            for _ in 0..self.random.random_range(1..4) {
                self.use_portals(&mut open, &mut acts);
            }
            acts.push(Act::Flush);
            if !self.one_in(4) {
                turns.push(flushed(std::mem::take(&mut acts)));
            }
        }
        if self.one_in(3) {
            self.use_portals(&mut open, &mut acts);
        }
        acts.push(Act::Sync);
        turns.push(ready(acts));
    }

    /// Something with a portal, or with a statement.
    fn use_portals(&mut self, open: &mut Open, acts: &mut Vec<Act>) {
        let from = acts.len();
        let portal = self.one_of(open);
        match self.below(16) {
            0..3 => self.open(acts),
            3..8 => {
                let rows = self.below(3);
                acts.push(Act::Execute { portal, rows });
            }
            8 | 9 => acts.push(Act::DescribePortal(portal)),
            10 => acts.push(Act::DescribeStatement(self.statement())),
            11 => acts.push(Act::ClosePortal(portal)),
            12 => acts.push(Act::CloseStatement(self.statement())),
            _ => self.run(acts),
        }
        for act in &acts[from..] {
            match *act {
                Act::Bind { portal, .. } => open.push(portal),
                // What else is done with it is told in docs/limits.md.
                Act::Execute {
                    portal: "",
                    rows: 0,
                } => open.retain(|portal| !portal.is_empty()),
                _ => {}
            }
        }
    }

    /// Opens a portal with several rows to give, and may take some of them.
    fn open(&mut self, acts: &mut Vec<Act>) {
        let (statement, portal) = (self.statement(), self.portal());
        if !self.one_in(3) {
            acts.push(Act::CloseStatement(statement));
            acts.push(Act::Parse {
                name: statement,
                sql: self.pick(&ROWS).to_owned(),
            });
        }
        // It may be open yet.
        if !self.one_in(4) {
            acts.push(Act::ClosePortal(portal));
        }
        acts.push(Act::Bind {
            portal,
            statement,
            parameters: Vec::new(),
            results: self.format(),
        });
        if self.one_in(2) {
            let rows = self.random.random_range(1..4);
            acts.push(Act::Execute { portal, rows });
        }
    }

    /// A portal that should be open, or one that need not be. The unnamed portal of a Query that
    /// failed in a transaction brings PostgreSQL 15 down: it is used if the cycle has opened it.
    fn one_of(&mut self, open: &[&'static str]) -> &'static str {
        let opened = open.choose(&mut self.random).copied();
        match opened {
            Some(portal) if !self.one_in(6) => portal,
            _ => self.pick(&["p", "q"]),
        }
    }
}
