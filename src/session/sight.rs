//! What a replica has shown, asked right behind a read where others must know it before the client gets
//! its answer: under a key that several Causeways share.

use std::time::Instant;

use super::survey::Plan;
use super::upstream::Upstream;
use super::{LocalTransaction, Session};
use crate::protocol::message;
use crate::protocol::owed::{Fate, Request};
use crate::routing::{Lsn, Role, shown_by_replica};
use crate::sql::Class;

/// Asks a server that is in no transaction how far its node has replayed, and then what it has received, with a
/// space in between. A node that has been promoted has no such positions: nothing.
const SIGHT: &str = "SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.concat_ws(' ', \
    pg_catalog.pg_last_wal_replay_lsn(), pg_catalog.pg_last_wal_receive_lsn()) END";

/// How far a replica had got behind a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    replayed: Lsn,
    received: Option<Lsn>,
}

impl Sight {
    /// Reads the value that answers [`SIGHT`].
    pub fn read(value: &[u8]) -> Option<Sight> {
        let text = std::str::from_utf8(value).ok()?;
        let mut positions = text.split(' ');
        Some(Sight {
            replayed: positions.next()?.parse().ok()?,
            received: positions.next().and_then(|lsn| lsn.parse().ok()),
        })
    }
}

impl Session {
    /// What the replica has shown is to be asked behind the run.
    pub(super) fn asks_for_sight(&self, plan: &Plan, upstream: &Upstream, begins: bool) -> bool {
        upstream.role == Role::Replica
            && upstream.level.is_some()
            && plan.class == Class::Read
            && plan.is_whole_cycle()
            && !begins
            && plan.begins.is_none()
            && self.local == LocalTransaction::None
            && !upstream.has_begun_transaction()
            && self.shares_key()
    }

    /// The replica has answered: what the session has read there lies below a known position, unless more
    /// has been sent since.
    pub(super) fn sighted(&mut self, upstream: &mut Upstream) {
        let Some(Sight { replayed, received }) = upstream.sight.take() else {
            return;
        };
        let is_last =
            upstream.sending == upstream.receiving && !upstream.server.owed.owes(Fate::Sight);
        let topology = self.services.feed.topology();
        let is_of_now = upstream.timeline.is_some() && upstream.timeline == topology.timeline;
        if is_last
            && is_of_now
            && let Some(shown) = shown_by_replica(replayed, received)
        {
            let now = Instant::now();
            self.floor.settle(&topology, now);
            self.floor.saw_position(upstream.node, replayed, shown, now);
            upstream.is_sighted = true;
        }
    }
}

impl Upstream {
    pub(super) fn ask_for_sight(&mut self) {
        let mut out = Vec::new();
        message::put_query(&mut out, SIGHT.as_bytes());
        self.server.wire.output.extend(&out);
        self.server.owed.push(Request::Query, Fate::Sight);
        self.server.unnamed = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_one_position_or_two_or_is_none() {
        let sight = |replayed, received| {
            Some(Sight {
                replayed: Lsn(replayed),
                received,
            })
        };
        let table = [
            (
                "0/3000060 1/A8",
                sight(0x300_0060, Some(Lsn(0x1_0000_00A8))),
            ),
            ("0/3000060", sight(0x300_0060, None)),
            ("0/3000060 ?", sight(0x300_0060, None)),
            ("", None),
            ("?", None),
        ];
        for (answer, expected) in table {
            assert_eq!(Sight::read(answer.as_bytes()), expected, "{answer}");
        }
        assert_eq!(Sight::read(b"\xff"), None);
    }
}
