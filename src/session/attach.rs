//! Lending a server for a run of messages.

use std::time::{Duration, Instant};

use super::route::{LastRoute, Need, Reason, Route, no_primary};
use super::survey::Plan;
use super::temporaries::Relationship;
use super::upstream::Upstream;
use super::{LocalTransaction, Session};
use crate::pool::{CheckoutError, Lent};
use crate::protocol::error::{Fault, SqlState};
use crate::routing::{Bound, Level, NodeSet, Role};
use crate::server::DialError;
use crate::sql::Class;

impl Session {
    /// Chooses a node and lends a server there. A node that cannot be reached is passed over: a
    /// read goes to the next, a write waits for the next primary.
    pub(super) async fn attach(&mut self, plan: &Plan) -> Result<(), Fault> {
        let began = Instant::now();
        let need = self.need(plan);
        self.follow_timeline();
        let slot = std::sync::Arc::clone(self.cancel.slot());
        let lent = tokio::select! {
            biased;
            lent = self.lend(need, plan, began) => lent,
            () = slot.cancelled_while_waiting() => Err(cancelled()),
        };
        let (route, server) = lent?;
        // It may have waited for the promotion.
        self.follow_timeline();
        self.services.metrics.routed(&route);
        if !plan.shows_ours() {
            self.last_route = Some(LastRoute {
                node: route.node,
                role: route.role,
                reason: route.reason,
                waited: began.elapsed(),
                seen: self.seen(route.node, route.role),
            });
        }
        let level = match need {
            Need::Read(level) => Some(level),
            Need::Primary(_) | Need::Anywhere => None,
        };
        match server {
            Some(server) => {
                slot.aim(server.cancel_target());
                let mut upstream = Upstream::new(
                    server,
                    route.node,
                    route.role,
                    level,
                    self.settings.startup(),
                );
                upstream.leave = route.leave;
                if let Some(seen) = self.services.feed.topology().node(route.node).observation() {
                    upstream.timeline = seen.timeline;
                    upstream.began_at = seen.lsn;
                }
                self.upstream = Some(Box::new(upstream));
            }
            None => self.unpark(),
        }
        self.tell_of_loss();
        Ok(())
    }

    /// A session that only writes learns of a promotion too.
    fn follow_timeline(&mut self) {
        let topology = self.services.feed.topology();
        if self.floor.timeline() != topology.timeline {
            self.floor.settle(&topology, Instant::now());
        }
    }

    /// What a kept server runs has taken no other way.
    pub(super) fn note_kept_server(&mut self, plan: &Plan) {
        if let Some(upstream) = &self.upstream
            && !plan.shows_ours()
        {
            self.last_route = Some(LastRoute {
                node: upstream.node,
                role: upstream.role,
                reason: Reason::Session,
                waited: Duration::ZERO,
                seen: self.seen(upstream.node, upstream.role),
            });
        }
    }

    /// A pinned session's read that depends on nothing that its server has may be answered by
    /// another one. Where only that is not certain, the server is asked behind the read, and the next
    /// one may.
    pub(super) fn may_read_elsewhere(&mut self, plan: &Plan) -> bool {
        let is_pinned = !self.pins.is_none() && self.pins.leave_other_reads_alone();
        let only_reads = plan.class == Class::Read && !plan.has_effects && plan.is_whole_cycle();
        let at_rest = |upstream: &Upstream| upstream.is_at_rest() && !upstream.is_in_transaction();
        let may = is_pinned
            && only_reads
            && self.local == LocalTransaction::None
            && self.upstream.as_deref().is_some_and(at_rest)
            && matches!(self.need(plan), Need::Read(level) if level != Level::Strong);
        if !may || self.pins.leave_reads_alone() {
            return may;
        }
        match self.relationship(plan) {
            Relationship::None => true,
            Relationship::Some => false,
            Relationship::PerhapsNone => {
                if let Some(upstream) = &mut self.upstream {
                    upstream.ends_pins = true;
                }
                false
            }
        }
    }

    /// A server of the node that was chosen; none if it is the one that was laid aside.
    async fn lend(
        &mut self,
        need: Need,
        plan: &Plan,
        began: Instant,
    ) -> Result<(Route, Option<Lent>), Fault> {
        loop {
            let route = self.choose(need, plan).await?;
            if (self.parked.as_deref()).is_some_and(|parked| parked.node == route.node) {
                return Ok((route, None));
            }
            let pool = self.group.pool(route.node);
            let owner = plan.asks_sequences.then_some(self.sequences);
            let error = match pool.checkout_again(self.settings.current(), owner).await {
                Ok(mut server) => {
                    if route.role == Role::Primary && is_standby(&mut server).await {
                        // It was the primary when it was looked at last.
                        server.discard();
                        self.services.feed.suspect(route.node);
                        if began.elapsed() >= self.services.options.failover_wait {
                            return Err(no_primary(&self.services.feed.topology()));
                        }
                        tokio::time::sleep(BETWEEN_ATTEMPTS).await;
                    } else if self.may_trust(&route, need, &server) {
                        return Ok((route, Some(server)));
                    } else {
                        // A new server, and perhaps a replica that has restarted lower: look again.
                        let born = server.born();
                        drop(server);
                        let patience = self.services.options.max_wait;
                        if !self
                            .services
                            .feed
                            .seen_since(route.node, born, patience)
                            .await
                        {
                            self.exclude = self.exclude.with(route.node);
                        }
                    }
                    continue;
                }
                Err(error) => error,
            };
            let of_the_node = match &error {
                CheckoutError::Dial(error) => error.is_of_the_node(),
                CheckoutError::Timeout(_) => false,
            };
            if of_the_node {
                self.services.feed.suspect(route.node);
            }
            if route.role == Role::Replica {
                self.exclude = self.exclude.with(route.node);
                continue;
            }
            let patience = self.services.options.failover_wait;
            if !of_the_node || began.elapsed() >= patience {
                return Err(self.no_server(&route, error));
            }
            self.exclude = NodeSet::EMPTY;
            tokio::time::sleep(BETWEEN_ATTEMPTS.min(patience)).await;
        }
    }

    /// A replica's position was observed through another connection. It says something about what
    /// this server shows only if the server is older than the observation; and the replica may have
    /// restarted at a lower position since it was chosen.
    fn may_trust(&mut self, route: &Route, need: Need, server: &Lent) -> bool {
        if route.role == Role::Primary || need == Need::Anywhere {
            return true;
        }
        let topology = self.services.feed.topology();
        let Some(seen) = topology.node(route.node).observation() else {
            return false;
        };
        self.floor.settle(&topology, Instant::now());
        let reached = match (need, self.floor.bound_for(route.node)) {
            (Need::Read(Level::Session | Level::Causal), Bound::Reached(lsn)) => seen.lsn >= lsn,
            (Need::Read(Level::Session | Level::Causal), Bound::Shown(..) | Bound::OnlyPrimary) => {
                false
            }
            _ => true,
        };
        reached && seen.vouches_for(server.born())
    }

    fn no_server(&self, route: &Route, error: CheckoutError) -> Fault {
        let topology = self.services.feed.topology();
        let node = &topology.node(route.node).name;
        match error {
            CheckoutError::Timeout(limit) => Fault::error(
                SqlState::TOO_MANY_CONNECTIONS,
                format!("no server of node {node} became free within {limit:?}"),
            )
            .with_hint("Raise pool.size or pool.checkout_timeout, or look for long transactions."),
            CheckoutError::Dial(error) => match &*error {
                DialError::Refused { code, message, .. } => Fault::error(
                    *code,
                    format!(
                        "node {node} refused the log-in: {}",
                        String::from_utf8_lossy(message)
                    ),
                ),
                other => Fault::error(
                    SqlState::CONNECTION_FAILURE,
                    format!("no connection to node {node}: {other}"),
                ),
            },
        }
    }
}

/// A server says itself, from PostgreSQL 14 on, whether it is a standby. It says so only when it
/// is asked for something: one that was opened before a promotion is asked again.
async fn is_standby(server: &mut Lent) -> bool {
    let says_so = |server: &Lent| server.reported.get("in_hot_standby") == Some("on");
    says_so(server) && (server.round_trip().await.is_err() || says_so(server))
}

/// Between two attempts to reach a primary that is not there.
const BETWEEN_ATTEMPTS: std::time::Duration = std::time::Duration::from_millis(100);

fn cancelled() -> Fault {
    Fault::error(
        SqlState::QUERY_CANCELED,
        "canceling statement due to user request, before a server was free for it",
    )
}
