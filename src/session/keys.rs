//! Session keys: connections of this Causeway that say they are one user's share a floor.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use lru::LruCache;
use metrics::{Gauge, describe_gauge, gauge};

use super::Session;
use super::shared::KeyTable;
use super::upstream::{Footprint, Upstream};
use crate::routing::{Floor, Guarantee, Lsn, Pending, Role, Topology};

/// No key is longer, in bytes.
pub const MAX_KEY: usize = 256;

/// The floors of keys.
///
/// An entry leaves when every replica has passed it, and when there is no room; never by time. What
/// leaves goes into one floor for all keys that have no entry, so that a replica that comes back
/// from far behind still shows nobody less than was seen. What every replica has passed costs
/// nothing there.
pub struct Keys {
    table: Mutex<Table>,
    known: Gauge,
}

struct Table {
    floors: LruCache<Box<str>, Floor>,
    /// Of all keys without an entry.
    others: Floor,
    /// Entries that have been made since the last look for some that may leave.
    made: usize,
    sweep_after: usize,
}

/// After so many new entries, or as many as there is room for, those that may leave do.
const SWEEP_AFTER: usize = 1024;

impl Keys {
    /// At most so many keys have a floor of their own. Call after a recorder has been installed.
    pub fn new(capacity: NonZeroUsize) -> Keys {
        describe_gauge!(
            "causeway_session_keys",
            "Session keys that some replica has not caught up with"
        );
        Keys {
            table: Mutex::new(Table {
                floors: LruCache::new(capacity),
                others: Floor::default(),
                made: 0,
                sweep_after: SWEEP_AFTER.min(capacity.get()),
            }),
            known: gauge!("causeway_session_keys"),
        }
    }

    /// What reads under `key` must have reached. What a failover has lost of it is told once, to who
    /// asks first.
    pub fn floor(&self, key: &str, topology: &Topology, now: Instant) -> Floor {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let table = &mut *table;
        let floor = table.floors.get_mut(key).unwrap_or(&mut table.others);
        floor.settle(topology, now);
        let settled = *floor;
        floor.take_lost();
        settled
    }

    /// Raises what reads under `key` must have reached; `floor` has been settled with `topology`.
    /// What its session has lost, the session tells itself.
    pub fn raise(&self, key: &str, mut floor: Floor, topology: &Topology, now: Instant) {
        floor.take_lost();
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = table.floors.get_mut(key) {
            known.settle(topology, now);
            known.merge(&floor);
            return;
        }
        let mut first = table.others;
        first.settle(topology, now);
        first.merge(&floor);
        table.made += 1;
        if table.made > table.sweep_after {
            table.sweep(topology, now);
        }
        if let Some((_, oldest)) = table.floors.push(key.into(), first) {
            table.take_over(oldest, topology, now);
        }
        self.known.set(table.floors.len() as f64);
    }
}

impl Table {
    fn sweep(&mut self, topology: &Topology, now: Instant) {
        self.made = 0;
        let passed = passed_by_all(topology);
        let mut leaving = Vec::new();
        for (key, floor) in self.floors.iter_mut() {
            floor.settle(topology, now);
            if floor.pending() == Pending::Nothing && floor.lsn() <= passed {
                leaving.push(key.clone());
            }
        }
        for key in leaving {
            if let Some(floor) = self.floors.pop(&key) {
                self.take_over(floor, topology, now);
            }
        }
    }

    fn take_over(&mut self, mut floor: Floor, topology: &Topology, now: Instant) {
        floor.settle(topology, now);
        self.others.settle(topology, now);
        self.others.merge(&floor);
    }
}

/// The position that all replicas in use have reached.
fn passed_by_all(topology: &Topology) -> Lsn {
    let reached = topology.replicas().filter_map(|node| node.observation());
    reached.map(|seen| seen.lsn).min().unwrap_or(Lsn::ZERO)
}

impl Session {
    /// Takes over what others have written and seen under this session's key.
    pub(super) fn follow_key(&mut self, topology: &Topology, now: Instant) {
        if let (KeyTable::Here(keys), Some(key)) =
            (&self.services.keys, &self.preferences.session_key)
            && self.services.options.guarantees.hold(Guarantee::Keys)
        {
            let theirs = keys.floor(key, topology, now);
            self.floor.settle(topology, now);
            self.floor.merge(&theirs);
        }
    }

    /// Others with this session's key must see from now on what it has written and seen.
    pub(super) fn share_floor(&mut self) {
        if let (KeyTable::Here(keys), Some(key)) =
            (&self.services.keys, &self.preferences.session_key)
        {
            let now = Instant::now();
            let topology = self.services.feed.topology();
            self.floor.settle(&topology, now);
            keys.raise(key, self.floor, &topology, now);
        }
    }

    /// A statement has been answered, and no position will tell at once what it has shown.
    pub(super) fn share_sight(&mut self, upstream: &Upstream) {
        if self.preferences.session_key.is_none() {
            return;
        }
        // It was chosen for what shows no data.
        let showed_nothing = upstream.role == Role::Replica && upstream.level.is_none();
        if (upstream.role, upstream.footprint) != (Role::Primary, Footprint::None)
            && !showed_nothing
        {
            self.raise_floor_behind(upstream);
            self.share_floor();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::routing::history::Sample;
    use crate::routing::{
        Bound, History, Lost, Node, NodeIndex, NodeName, NodeState, Observation, SystemId, Timeline,
    };

    /// A primary and two replicas at these positions, all seen now.
    fn topology(now: Instant, primary: u64, replicas: [u64; 2]) -> Topology {
        let node = |(index, role, lsn): (u8, Role, u64)| {
            let observation = Observation {
                started: now,
                finished: now,
                connected: now - Duration::from_secs(9),
                role,
                lsn: Lsn(lsn),
                received: None,
                timeline: Some(Timeline(1)),
                branched_at: None,
                clock: None,
                tells_transactions: true,
            };
            Arc::new(Node {
                name: NodeName(format!("n{index}").into()),
                index: NodeIndex(index),
                address: "".into(),
                region: None,
                weight: 100,
                state: NodeState::Up(observation),
                round_trip: None,
                furthest: Lsn(lsn),
            })
        };
        let [a, b] = replicas;
        let nodes = [
            (0, Role::Primary, primary),
            (1, Role::Replica, a),
            (2, Role::Replica, b),
        ];
        let mut history = History::default();
        history.push(Sample {
            started: now,
            lsn: Lsn(primary),
            clock: None,
        });
        Topology {
            nodes: nodes.into_iter().map(node).collect(),
            primary: Some(NodeIndex(0)),
            system: Some(SystemId(1)),
            timeline: Some(Timeline(1)),
            geometry: Default::default(),
            history: Arc::new(history),
            switches: Arc::default(),
        }
    }

    fn keys(capacity: usize) -> Keys {
        Keys::new(NonZeroUsize::new(capacity).unwrap())
    }

    fn at(lsn: u64) -> Floor {
        Floor::at(Lsn(lsn), Timeline(1))
    }

    fn known(keys: &Keys) -> usize {
        keys.table.lock().unwrap().floors.len()
    }

    #[test]
    fn a_key_has_the_largest_of_its_floors_and_no_other_key_has_it() {
        let now = Instant::now();
        let (keys, here) = (keys(10), topology(now, 500, [400, 300]));
        for lsn in [450, 470, 460] {
            keys.raise("a", at(lsn), &here, now);
        }
        assert_eq!(keys.floor("a", &here, now).lsn(), Lsn(470));
        assert_eq!(keys.floor("b", &here, now).lsn(), Lsn::ZERO);
        let mut unknown = Floor::default();
        unknown.settle(&here, now);
        unknown.raise_to_primary_after(now);
        keys.raise("a", unknown, &here, now);
        let bound = keys.floor("a", &here, now).bound_for(NodeIndex(1));
        assert_eq!(bound, Bound::OnlyPrimary);
        let later = topology(now + Duration::from_millis(1), 520, [400, 300]);
        assert_eq!(keys.floor("a", &later, now).lsn(), Lsn(520));
    }

    #[test]
    fn what_a_failover_has_lost_of_a_key_is_told_once() {
        let now = Instant::now();
        let (keys, here) = (keys(10), topology(now, 500, [400, 300]));
        keys.raise("a", at(450), &here, now);
        keys.raise("b", at(350), &here, now);
        let mut promoted = topology(now, 600, [600, 600]);
        promoted.timeline = Some(Timeline(2));
        let mut switches = crate::routing::Switches::default();
        switches.learn(Timeline(2), Lsn(400));
        promoted.switches = Arc::new(switches);
        let lost = |key| keys.floor(key, &promoted, now).take_lost();
        let at_450 = Lost::Position(Timeline(1), Lsn(450));
        assert_eq!(lost("a"), Some(at_450));
        assert_eq!([lost("a"), lost("b")], [None, None]);
        // A session of the key that has learned of it by itself.
        let mut own = at(460);
        own.settle(&promoted, now);
        keys.raise("a", own, &promoted, now);
        assert_eq!(keys.floor("a", &promoted, now).take_lost(), None);
        let at_460 = Lost::Position(Timeline(1), Lsn(460));
        assert_eq!(own.take_lost(), Some(at_460));
    }

    #[test]
    fn an_entry_leaves_when_every_replica_has_passed_it() {
        let now = Instant::now();
        let (keys, here) = (keys(2), topology(now, 500, [400, 300]));
        keys.raise("ahead", at(350), &here, now);
        keys.raise("passed", at(300), &here, now);
        keys.raise("new", at(360), &here, now);
        let has = |key: &str| keys.table.lock().unwrap().floors.contains(key);
        assert_eq!(
            [has("ahead"), has("passed"), has("new")],
            [true, false, true]
        );
        assert_eq!(keys.floor("ahead", &here, now).lsn(), Lsn(350));
        // It is not forgotten: a replica that comes back at 200 may not answer it.
        assert_eq!(keys.floor("passed", &here, now).lsn(), Lsn(300));
    }

    #[test]
    fn where_there_is_no_room_nothing_is_forgotten_either() {
        let now = Instant::now();
        let (keys, here) = (keys(3), topology(now, 500, [10, 10]));
        for place in 0..100_u64 {
            keys.raise(&format!("k{place}"), at(100 + place), &here, now);
            assert!(known(&keys) <= 3);
        }
        for place in 0..100 {
            let floor = keys.floor(&format!("k{place}"), &here, now);
            assert!(
                floor.lsn() >= Lsn(100 + place),
                "k{place} at {:?}",
                floor.lsn()
            );
        }
    }
}
