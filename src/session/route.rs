//! Which node a run of messages goes to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::audit::{self, Audit};
use super::preferences::unquoted;
use super::report::Seen;
use super::shared::Sight;
use super::survey::Plan;
use super::tokens::just_after;
use super::{LocalTransaction, Mode, Session};
use crate::pool::Group;
use crate::protocol::error::{Fault, SqlState};
use crate::routing::{
    Choice, Guarantee, Level, Mark, Node, NodeIndex, NodeState, OnLag, Pending, Preference,
    PrimaryReason, ReadNeed, Role, Timeline, Topology, WaitEnd, Xid, gate, select,
};
use crate::sql::{Begin, Class, Isolation};

/// Why a run went where it went, as `SHOW causeway.last_route` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    Write,
    PrimaryOnly,
    Transaction,
    /// A portal stays open, and what comes behind it in its cycle may be a write.
    Portal,
    Session,
    /// A replica has refused it before.
    Refused,
    Read(PrimaryReason),
    Fresh,
    Waited,
    Anywhere,
    /// What the session key must see nobody can tell.
    KeyStoreAway,
}

impl Reason {
    pub const ALL: [Reason; 15] = [
        Reason::Write,
        Reason::PrimaryOnly,
        Reason::Transaction,
        Reason::Portal,
        Reason::Session,
        Reason::Refused,
        Reason::Read(PrimaryReason::Strong),
        Reason::Read(PrimaryReason::Nearest),
        Reason::Read(PrimaryReason::NoReplica),
        Reason::Read(PrimaryReason::Lag),
        Reason::Read(PrimaryReason::FloorUnknown),
        Reason::Fresh,
        Reason::Waited,
        Reason::Anywhere,
        Reason::KeyStoreAway,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Write => "write",
            Reason::PrimaryOnly => "only the primary's answer is right",
            Reason::Transaction => "read-write transaction",
            Reason::Portal => "a portal stays open",
            Reason::Session => "pinned session",
            Reason::Refused => "a replica could not run it",
            Reason::Read(PrimaryReason::Strong) => "strong consistency",
            Reason::Read(PrimaryReason::Nearest) => "the primary is nearest",
            Reason::Read(PrimaryReason::NoReplica) => "no replica may be used",
            Reason::Read(PrimaryReason::Lag) => "replicas lag",
            Reason::Read(PrimaryReason::FloorUnknown) => "the floor is not known yet",
            Reason::Fresh => "fresh replica",
            Reason::Waited => "replica, after a wait",
            Reason::Anywhere => "needs no data",
            Reason::KeyStoreAway => "the key store is away",
        }
    }
}

/// Where the last run went.
#[derive(Clone, Copy, Debug)]
pub struct LastRoute {
    pub node: NodeIndex,
    pub role: Role,
    pub reason: Reason,
    pub waited: Duration,
    pub seen: Seen,
}

/// A node that a run may go to now.
pub(super) struct Route {
    pub node: NodeIndex,
    pub role: Role,
    pub reason: Reason,
    /// Leave to burden the primary with what a replica should have answered.
    pub leave: Option<OwnedSemaphorePermit>,
}

/// What a run needs of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    Primary(Reason),
    Read(Level),
    Anywhere,
}

impl Session {
    /// The `causeway.*` settings, or the application's name, may have changed.
    pub(super) fn follow_wishes(&mut self) {
        self.preferences
            .follow(&self.services.options.preferences, self.wishes.current());
        self.follow_profile();
    }

    pub(super) fn follow_profile(&mut self) {
        if let Some(profiles) = &mut self.profiles {
            let application = self.settings.current().get("application_name");
            profiles.follow(&application.map(unquoted).unwrap_or_default());
        }
    }

    pub(super) fn need(&self, plan: &Plan) -> Need {
        if self.mode == Mode::Session {
            return Need::Primary(Reason::Session);
        }
        if self.primary_next {
            return Need::Primary(Reason::Refused);
        }
        if plan.has_effects && !plan.is_whole_cycle() {
            // The rest of the cycle may need the primary, and what this changes must be there too.
            return Need::Primary(Reason::Transaction);
        }
        if plan.may_commit_settings_and_fail() {
            // Then the session keeps its server, and it can only keep one of the primary.
            return Need::Primary(Reason::Transaction);
        }
        let level = plan.level().unwrap_or_else(|| self.level());
        let deferred = match self.local {
            LocalTransaction::Deferred(begin) => Some(begin),
            LocalTransaction::None | LocalTransaction::Failed => None,
        };
        if let Some(begin) = deferred.or(plan.begins) {
            // A second BEGIN is warned about, and its modes count.
            let again = plan.begins.unwrap_or(begin);
            let is_serializable = |begin: Begin| begin.isolation == Some(Isolation::Serializable);
            let stays_reading = again.read_only.or(begin.read_only) == Some(true)
                && !is_serializable(begin)
                && !is_serializable(again)
                && plan.class < Class::PrimaryRead;
            return match stays_reading {
                true => Need::Read(level),
                false => Need::Primary(Reason::Transaction),
            };
        }
        if plan.leaves_portal {
            return Need::Primary(Reason::Portal);
        }
        match plan.class {
            Class::Anywhere => Need::Anywhere,
            Class::Read => Need::Read(level),
            Class::PrimaryRead => Need::Primary(Reason::PrimaryOnly),
            Class::Write => Need::Primary(Reason::Write),
        }
    }

    /// Chooses a node; waits for a replica or for a new primary where that is worth it.
    pub(super) async fn choose(&mut self, need: Need, plan: &Plan) -> Result<Route, Fault> {
        match need {
            Need::Primary(reason) => self.primary(reason).await,
            Need::Anywhere => {
                let topology = self.services.feed.topology();
                let nearest = nearest_up(&topology, self.exclude, &self.group);
                match nearest {
                    Some((node, role)) => Ok(Route {
                        node,
                        role,
                        reason: Reason::Anywhere,
                        leave: None,
                    }),
                    None => {
                        drop(topology);
                        self.primary(Reason::Anywhere).await
                    }
                }
            }
            Need::Read(level) => self.read(level, plan).await,
        }
    }

    async fn read(&mut self, level: Level, plan: &Plan) -> Result<Route, Fault> {
        let services = Arc::clone(&self.services);
        let options = &services.options;
        let wants = plan.wants();
        let mut max_wait = wants
            .and_then(|wants| wants.max_wait)
            .unwrap_or(options.max_wait);
        let on_lag = wants
            .and_then(|wants| wants.on_lag)
            .unwrap_or(options.on_lag);
        let mut reason = Reason::Fresh;
        if matches!(level, Level::Session | Level::Causal)
            && self.shares_key()
            && Box::pin(self.look_up_key()).await? == Sight::Away
        {
            return self.primary(Reason::KeyStoreAway).await;
        }
        loop {
            let choice = self.consider(level, plan, max_wait, on_lag);
            if rests_on_the_floor(level, choice) {
                self.habit.reads();
            }
            match choice {
                Choice::Replica(node) => {
                    return Ok(Route {
                        node,
                        role: Role::Replica,
                        reason,
                        leave: None,
                    });
                }
                Choice::Primary(PrimaryReason::Lag) if on_lag == OnLag::Error => {
                    return Err(all_behind());
                }
                Choice::Primary(why @ PrimaryReason::Lag) => {
                    let leave = self.permission().await?;
                    let route = self.primary(Reason::Read(why)).await?;
                    return Ok(Route {
                        leave: Some(leave),
                        ..route
                    });
                }
                Choice::Primary(why) => return self.primary(Reason::Read(why)).await,
                Choice::Wait {
                    replica,
                    mark,
                    at_most,
                } => {
                    let began = Instant::now();
                    let reached = self.await_mark(replica, mark, at_most).await;
                    let end = match reached {
                        true => WaitEnd::Reached,
                        false => WaitEnd::TooLong,
                    };
                    let waited = began.elapsed();
                    self.services.patience.learn(replica, waited, end);
                    self.services.metrics.waited(end, waited);
                    reason = if reached { Reason::Waited } else { reason };
                    // Of what is asked for by its number the position may have come to be known instead.
                    max_wait = match mark {
                        Mark::Transaction(..) if reached => at_most.saturating_sub(waited),
                        Mark::Transaction(..) | Mark::Position(_) => Duration::ZERO,
                    };
                }
            }
        }
    }

    /// Waits for a replica; true if the floor now lets it answer, or may.
    async fn await_mark(&mut self, replica: NodeIndex, mark: Mark, at_most: Duration) -> bool {
        match mark {
            Mark::Position(lsn) => self.services.feed.reached(replica, lsn, at_most).await,
            Mark::Transaction(timeline, xid) => {
                self.await_transaction(replica, timeline, xid, at_most)
                    .await
            }
        }
    }

    async fn await_transaction(
        &mut self,
        replica: NodeIndex,
        timeline: Timeline,
        xid: Xid,
        at_most: Duration,
    ) -> bool {
        let began = Instant::now();
        let feed = &self.services.feed;
        let shown = match self.services.options.guarantees.hold(Guarantee::Numbers) {
            true => feed.shown(replica, timeline, xid, at_most).await,
            false => {
                let topology = feed.topology();
                let seen = topology.node(replica).observation();
                seen.map(|seen| seen.connected)
            }
        };
        let Some(connected) = shown else {
            return false;
        };
        if self.floor.is_shown(xid, timeline, replica, connected) {
            return true;
        }
        // The monitor has connected to it anew since the write: only a position tells what it has.
        let primary = feed.topology().primary;
        match (self.floor.pending(), primary) {
            (Pending::Primary(moment), Some(primary)) => {
                let left = at_most.saturating_sub(began.elapsed());
                feed.seen_since(primary, just_after(moment), left).await
            }
            _ => false,
        }
    }

    fn consider(&mut self, level: Level, plan: &Plan, max_wait: Duration, on_lag: OnLag) -> Choice {
        let now = Instant::now();
        let topology = self.services.feed.topology();
        self.floor.settle(&topology, now);
        self.follow_key(&topology, now);
        let options = &self.services.options;
        let need = ReadNeed {
            level: match level {
                Level::Eventual { .. } if !options.guarantees.hold(Guarantee::Staleness) => {
                    Level::Eventual {
                        max_staleness: None,
                    }
                }
                level => level,
            },
            floor: &self.floor,
            exclude: self.exclude,
            observation_expiry: options.observation_expiry,
        };
        let verdict = gate(&need, &topology, now);
        let preference = Preference {
            region: plan.region.as_deref(),
            stay_on: self.floor.last_replica(),
            max_wait,
            on_lag,
            patience: &self.services.patience,
            random: rand::random(),
        };
        let load = |node: NodeIndex| self.group.pool(node).in_use();
        let choice = select(verdict, &topology, &preference, load);
        match choice {
            // What the wait is expected to take going elsewhere does not.
            Choice::Wait {
                replica,
                mark,
                at_most,
            } if on_lag == OnLag::Primary && !preference.is_worth(replica, at_most) => {
                self.services.metrics.not_worth_waiting();
                if rand::random::<u64>().is_multiple_of(audit::ONE_IN) {
                    self.audit = Some(Audit::of(&self.services.feed, replica, mark));
                }
                let now = Preference {
                    max_wait: Duration::ZERO,
                    ..preference
                };
                select(verdict, &topology, &now, load)
            }
            choice => choice,
        }
    }

    /// So many reads at once may go to the primary because replicas lag; others wait for their turn.
    async fn permission(&self) -> Result<OwnedSemaphorePermit, Fault> {
        let patience = self.services.options.max_wait;
        let turn = Arc::clone(&self.services.displaced).acquire_owned();
        match timeout(patience, turn).await {
            Ok(Ok(leave)) => Ok(leave),
            _ => {
                let message = "replicas lag, and too many reads have gone to the primary already";
                Err(Fault::error(SqlState::TOO_MANY_CONNECTIONS, message)
                    .with_hint("routing.max_displaced limits them."))
            }
        }
    }

    async fn primary(&self, reason: Reason) -> Result<Route, Fault> {
        let known = self.services.feed.topology().primary;
        let usable = known.filter(|node| !self.exclude.contains(*node));
        let node = match usable {
            Some(node) => Some(node),
            None => {
                self.services
                    .feed
                    .primary_within(self.services.options.failover_wait)
                    .await
            }
        };
        match node {
            Some(node) => Ok(Route {
                node,
                role: Role::Primary,
                reason,
                leave: None,
            }),
            None => Err(no_primary(&self.services.feed.topology())),
        }
    }
}

/// With another floor the read might have gone elsewhere.
fn rests_on_the_floor(level: Level, choice: Choice) -> bool {
    let has_replicas = match choice {
        Choice::Replica(_) | Choice::Wait { .. } => true,
        Choice::Primary(PrimaryReason::Lag | PrimaryReason::FloorUnknown) => true,
        Choice::Primary(
            PrimaryReason::Nearest | PrimaryReason::NoReplica | PrimaryReason::Strong,
        ) => false,
    };
    matches!(level, Level::Session | Level::Causal) && has_replicas
}

/// The nearest node that is up, whatever it is; one whose servers are all at work only if there is
/// no other.
pub(super) fn nearest_up(
    topology: &Topology,
    exclude: crate::routing::NodeSet,
    group: &Group,
) -> Option<(NodeIndex, Role)> {
    let usable = |node: &&Arc<Node>| !exclude.contains(node.index);
    let up = topology.nodes.iter().filter(usable).filter_map(|node| {
        let seen = node.observation()?;
        let is_full = !group.pool(node.index).has_room();
        let distance = (is_full, node.round_trip.unwrap_or(Duration::MAX));
        Some((distance, node.index, seen.role))
    });
    up.min_by_key(|(distance, ..)| *distance)
        .map(|(_, node, role)| (node, role))
}

fn all_behind() -> Fault {
    let message = "every replica that could answer is behind, and on_lag is error";
    Fault::error(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message)
        .with_hint("Try again, or read at a laxer level.")
}

pub(super) fn no_primary(topology: &Topology) -> Fault {
    let state = |node: &Arc<Node>| {
        let state = match &node.state {
            NodeState::Unknown => "not probed yet".to_owned(),
            NodeState::Up(seen) => match seen.role {
                Role::Primary => "claims to be the primary".to_owned(),
                Role::Replica => "a replica".to_owned(),
            },
            NodeState::Down { reason, .. } => format!("down: {reason}"),
            NodeState::Excluded { reason, .. } => format!("not used: {reason}"),
        };
        format!("{}: {state}", node.name)
    };
    let states: Vec<String> = topology.nodes.iter().map(state).collect();
    Fault::error(SqlState::CONNECTION_FAILURE, "no primary can be reached")
        .with_detail(states.join("; "))
}
