//! Session keys that several Causeways share: what the key store must be asked before a statement is
//! routed, and told before its answer is given.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Session;
use super::keys::Keys;
use super::report::HeldReady;
use super::store::{Away, Entry, KeyStore};
use super::tokens::{Inadmissible, admit, settle};
use super::upstream::Upstream;
use crate::protocol::error::{Fault, Severity, SqlState};
use crate::protocol::message::TransactionStatus;
use crate::routing::{Floor, Lsn, NodeState, Position, Role, Timeline};
use crate::sql::Class;

use super::survey::Plan;

/// Where the floors of session keys are.
pub enum KeyTable {
    /// In this process, for its own connections.
    Here(Box<Keys>),
    /// In a store, for several Causeways.
    Shared(Arc<KeyStore>),
}

/// What a look-up came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    /// The floor has all that the key demands.
    Known,
    /// Nobody can tell: only the primary may answer.
    Away,
}

/// What the store was last known to have for the session's key.
#[derive(Clone, Debug, Default)]
pub(super) struct Noted {
    key: Option<Arc<str>>,
    /// It has at least this.
    position: Option<(Timeline, Lsn)>,
    /// Positions of older timelines, which have been carried over.
    stale: Vec<(Timeline, Lsn)>,
}

impl Session {
    /// The store, if this session's key is kept in one.
    pub(super) fn key_store(&self) -> Option<(Arc<KeyStore>, Arc<str>)> {
        match (&self.services.keys, &self.preferences.session_key) {
            (KeyTable::Shared(store), Some(key)) => Some((Arc::clone(store), Arc::clone(key))),
            (KeyTable::Shared(_), None) | (KeyTable::Here(_), _) => None,
        }
    }

    pub(super) fn shares_key(&self) -> bool {
        self.key_store().is_some()
    }

    /// Takes over what others have written and seen under this session's key, as the store has it. Cancel
    /// safe.
    pub(super) async fn look_up_key(&mut self) -> Result<Sight, Fault> {
        let Some((store, key)) = self.key_store() else {
            return Ok(Sight::Known);
        };
        let Some(system) = self.services.feed.topology().system else {
            return Ok(Sight::Away);
        };
        let Ok(Entry { known, all, since }) = store.look_up(system, &key).await else {
            return Ok(Sight::Away);
        };
        let mut floor = Floor::default();
        {
            let topology = self.services.feed.topology();
            floor.settle(&topology, Instant::now());
        }
        floor.raise_to_primary_after(since);
        let mut noted = Noted {
            key: Some(key),
            ..Noted::default()
        };
        match known {
            Some(known) => {
                for (timeline, lsn) in &known {
                    noted.has(*timeline, *lsn);
                }
                self.fold_in(&mut floor, system, &known).await?;
            }
            // It has left, or never was: whatever was answered before now counts.
            None => floor.raise_to_primary_after(Instant::now()),
        }
        self.fold_in(&mut floor, system, &all).await?;
        self.raise_floor_to(floor);
        self.noted = noted;
        Ok(Sight::Known)
    }

    async fn fold_in(
        &self,
        floor: &mut Floor,
        system: crate::routing::SystemId,
        positions: &[(Timeline, Lsn)],
    ) -> Result<(), Fault> {
        for (timeline, lsn) in positions.iter().copied() {
            if lsn == Lsn::ZERO {
                continue;
            }
            let position = Position {
                system,
                timeline,
                lsn,
            };
            let mut theirs = match admit(&self.services, position).await {
                Ok(theirs) => theirs,
                // Nobody can have written that. The primary has whatever there is.
                Err(Inadmissible::Refused(refused)) => {
                    tracing::warn!("the key store has a position that cannot be: {refused}");
                    floor.raise_to_primary_after(Instant::now());
                    continue;
                }
                Err(Inadmissible::Timeline(timeline, _)) => {
                    return Err(not_known(&format!(
                        "it was used on timeline {timeline}, which no primary has got to"
                    )));
                }
                Err(Inadmissible::NoPrimary) => {
                    return Err(not_known("no primary can be reached"));
                }
            };
            let (topology, now) = (self.services.feed.topology(), Instant::now());
            theirs.settle(&topology, now);
            floor.settle(&topology, now);
            floor.merge(&theirs);
        }
        Ok(())
    }

    /// The position behind what the run sees is to be captured within its transaction.
    pub(super) fn captures_sight(&self, plan: &Plan, upstream: &Upstream, begins: bool) -> bool {
        let is_open = begins || plan.begins.is_some() || upstream.is_in_transaction();
        upstream.role == Role::Primary
            && plan.class >= Class::Read
            && plan.is_whole_cycle()
            && !plan.copies_in
            && !plan.ends_transaction
            && is_open
            && upstream.server.status != TransactionStatus::Failed
            && upstream.portals.iter().all(|(_, open)| !open.copies_in)
            && self.shares_key()
    }

    /// The end of an answer waits for the store, and nothing else is under way.
    pub(super) fn must_tell_store(&self) -> bool {
        let at_rest = |upstream: &Upstream| upstream.is_at_rest();
        matches!(self.held_ready, Some(HeldReady::ForStore(_)))
            && self.upstream.as_deref().is_none_or(at_rest)
    }

    /// Tells the store what the session has written and seen, and only then gives the client the end of
    /// its answer.
    pub(super) async fn tell_store(&mut self) {
        if let Some((store, key)) = self.key_store() {
            let mut sight = self.floor.sight();
            let told = self.tell(&store, key, &mut sight).await;
            if told.is_err() {
                store.owe(&sight);
                if !self.is_everywhere(&sight, store.patience()).await {
                    self.say(&untold());
                }
            }
        }
        if let Some(HeldReady::ForStore(end)) = self.held_ready.take() {
            self.client.output.extend(&end);
        }
    }

    async fn tell(
        &mut self,
        store: &KeyStore,
        key: Arc<str>,
        sight: &mut Floor,
    ) -> Result<(), Away> {
        let deadline = Instant::now() + self.services.options.failover_wait;
        while !settle(&self.services, sight, deadline)
            .await
            .map_err(|_| Away)?
        {}
        let position = sight.position(&self.services.feed.topology());
        let position = position.ok_or(Away)?;
        if self.noted.key.as_ref() != Some(&key) {
            self.noted = Noted {
                key: Some(Arc::clone(&key)),
                ..Noted::default()
            };
        }
        if self.noted.covers(&position) {
            return Ok(());
        }
        let stale = self.noted.older_than(position.timeline);
        store.raise(&key, position, &stale).await?;
        self.noted.stale.clear();
        self.noted.position = Some((position.timeline, position.lsn));
        Ok(())
    }

    /// Every replica has reached it, so that nobody can miss it, whatever they know of it. Where one
    /// cannot be asked, nobody can tell.
    async fn is_everywhere(&self, sight: &Floor, at_most: Duration) -> bool {
        let feed = &self.services.feed;
        let topology = Arc::clone(&feed.topology());
        let mut sight = *sight;
        sight.settle(&topology, Instant::now());
        if sight.pending() != crate::routing::Pending::Nothing {
            return false;
        }
        let deadline = Instant::now() + at_most;
        for node in &topology.nodes {
            match &node.state {
                NodeState::Up(seen) if seen.role == Role::Primary => {}
                NodeState::Up(_) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if !feed.reached(node.index, sight.lsn(), left).await {
                        return false;
                    }
                }
                NodeState::Excluded { .. } => {}
                NodeState::Unknown | NodeState::Down { .. } => return false,
            }
        }
        true
    }

    /// The session is over, and its last answer was not given.
    pub(super) fn leave_to_store(&mut self) {
        if let Some((store, _)) = self.key_store() {
            let at_work = self.upstream.take();
            if let Some(upstream) = &at_work {
                self.note_footprint(upstream);
            }
            let untold = at_work.is_some() || self.held_ready.is_some();
            self.upstream = at_work;
            if untold {
                store.owe(&self.floor);
            }
        }
    }
}

impl Noted {
    /// The store was seen to have it.
    fn has(&mut self, timeline: Timeline, lsn: Lsn) {
        match self.position {
            Some(newest) if newest.0 >= timeline => self.stale.push((timeline, lsn)),
            older => {
                self.stale.extend(older);
                self.position = Some((timeline, lsn));
            }
        }
    }

    /// There is nothing to tell it.
    fn covers(&self, position: &Position) -> bool {
        let reached = |(timeline, lsn)| timeline == position.timeline && lsn >= position.lsn;
        self.position.is_some_and(reached) && self.stale.is_empty()
    }

    fn older_than(&self, timeline: Timeline) -> Vec<(Timeline, Lsn)> {
        let known = self.stale.iter().copied().chain(self.position);
        known.filter(|(of, _)| *of < timeline).collect()
    }
}

fn not_known(reason: &str) -> Fault {
    let message = format!("what this session key must see cannot be told: {reason}");
    Fault::error(SqlState::CONNECTION_FAILURE, message)
}

fn untold() -> Fault {
    let message = "other Causeways may not know yet what this session key has written or seen";
    Fault::new(Severity::Warning, SqlState::WARNING, message)
        .with_detail(
            "The key store is away, and some replica has not caught up. What was committed is committed.",
        )
        .with_hint("Reads through this Causeway see it. The others will when the key store is back.")
}
