//! Positions that travel: tokens that a client presents, asks for, and gets with its answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::shared::Sight;
use super::survey::{Plan, Step, What};
use super::upstream::{Footprint, Upstream};
use super::{Services, Session};
use crate::protocol::error::{Fault, Severity, SqlState};
use crate::routing::{
    Bound, Floor, Guarantee, Judgement, Lost, Pending, Position, Refused, Role, Timeline,
    UnixMillis, Unknown, Xid,
};
use crate::sql::Effect;

pub const TOKEN: &str = "causeway.token";
pub const LAST_WRITE: &str = "causeway.last_write_timestamp";

/// A client's clock that is further ahead of the primary's is no clock: the time was given in
/// another unit, or in another epoch.
const LEAD: Duration = Duration::from_secs(60);

/// The floor of a token that a client presents. Waits for what must be known before it can be
/// judged: another Causeway may have seen a promotion first. Cancel safe.
pub(super) async fn accept(services: &Services, text: &str) -> Result<Floor, Fault> {
    let position = services.options.tokens.read(text);
    let position = position.map_err(|error| invalid(&error.to_string()))?;
    let admitted = admit(services, position).await;
    admitted.map_err(|error| match error {
        Inadmissible::Refused(refused) => invalid(&refused.to_string()),
        Inadmissible::Timeline(timeline, patience) => invalid(&format!(
            "it is of timeline {timeline}, and no primary has got that far within {patience:?}"
        )),
        Inadmissible::NoPrimary => unknown("no primary can be reached"),
    })
}

/// Why a position from outside is not taken in.
#[derive(Clone, Copy, Debug)]
pub(super) enum Inadmissible {
    Refused(Refused),
    /// No primary has got to its timeline in time.
    Timeline(Timeline, Duration),
    NoPrimary,
}

/// The floor of a position from outside; see [`accept`].
pub(super) async fn admit(services: &Services, position: Position) -> Result<Floor, Inadmissible> {
    let (feed, patience) = (&services.feed, services.options.failover_wait);
    let mut looked_again = false;
    loop {
        let judgement = {
            let topology = feed.topology();
            topology.judge(position, services.options.max_ahead_bytes)
        };
        match judgement {
            Judgement::Accept(_) if !services.options.guarantees.hold(Guarantee::Tokens) => {
                return Ok(Floor::default());
            }
            Judgement::Accept(floor) => return Ok(floor),
            Judgement::Refuse(Refused::Ahead { .. }) if !looked_again => {
                looked_again = true;
                if let Some(primary) = feed.primary_within(patience).await {
                    feed.seen_since(primary, Instant::now(), patience).await;
                }
            }
            Judgement::Refuse(refused) => return Err(Inadmissible::Refused(refused)),
            Judgement::Later(Unknown::Timeline(timeline)) => {
                if !feed.timeline_within(timeline, patience).await {
                    return Err(Inadmissible::Timeline(timeline, patience));
                }
            }
            Judgement::Later(Unknown::Cluster) => {
                if feed.primary_within(patience).await.is_none() {
                    return Err(Inadmissible::NoPrimary);
                }
            }
        }
    }
}

/// The floor of the time of a write that a client presents: all that the primary has committed by
/// then, as its own clock shows, which may differ from the client's by `clock_skew`.
pub(super) fn accept_time(services: &Services, written_at: UnixMillis) -> Result<Floor, Fault> {
    let milliseconds = |duration: Duration| duration.as_millis() as u64;
    let newest = services.feed.topology().history.newest_clock();
    if let Some(UnixMillis(newest)) = newest
        && written_at.0 > newest.saturating_add(milliseconds(LEAD))
    {
        let message = format!(
            "invalid value for parameter \"{LAST_WRITE}\": {}",
            written_at.0
        );
        return Err(Fault::error(SqlState::INVALID_PARAMETER_VALUE, message)
            .with_detail(format!(
                "It is ahead of the primary's clock, which stands at {newest}, by more than {LEAD:?}."
            ))
            .with_hint("Milliseconds since 1970 are expected."));
    }
    let skew = milliseconds(services.options.clock_skew);
    let mut floor = Floor::default();
    floor.raise_to_clock(UnixMillis(written_at.0.saturating_add(skew)));
    Ok(floor)
}

/// Waits for what `floor` waits for, once; true if that was nothing. Cancel safe.
pub(super) async fn settle(
    services: &Services,
    floor: &mut Floor,
    deadline: Instant,
) -> Result<bool, Fault> {
    let now = Instant::now();
    let primary = {
        let topology = services.feed.topology();
        floor.settle(&topology, now);
        topology.primary
    };
    let left = deadline.saturating_duration_since(now);
    let feed = &services.feed;
    let moment = match floor.pending() {
        Pending::Nothing => return Ok(true),
        Pending::Replica(node, moment) => {
            let patience = left.min(services.options.max_wait);
            if !feed.seen_since(node, just_after(moment), patience).await {
                floor.raise_to_primary_after(moment);
            }
            return Ok(false);
        }
        Pending::Primary(moment) => just_after(moment),
        Pending::Clock => now,
    };
    let seen = match primary {
        Some(primary) => feed.seen_since(primary, moment, left).await,
        None => feed.primary_within(left).await.is_some(),
    };
    match seen {
        true => Ok(false),
        false => Err(unknown("the primary does not answer")),
    }
}

fn invalid(reason: &str) -> Fault {
    let message = format!("invalid value for parameter \"{TOKEN}\"");
    Fault::error(SqlState::INVALID_PARAMETER_VALUE, message).with_detail(format!(
        "The token is not accepted: {reason}. Nothing has been run."
    ))
}

fn unknown(reason: &str) -> Fault {
    let message = format!("the position of this session cannot be told: {reason}");
    Fault::error(SqlState::CONNECTION_FAILURE, message)
}

impl Plan {
    /// It asks for the token.
    fn asks_for_token(&self) -> bool {
        let asks = |step: &Step| match &step.what {
            What::Query(decision) => {
                let shows =
                    |effect: &Effect| matches!(effect, Effect::Show(name) if **name == *TOKEN);
                decision.effects.iter().any(shows)
            }
            What::BindShow(name) | What::DescribeShow(name) => **name == *TOKEN,
            _ => false,
        };
        self.steps.iter().any(asks)
    }
}

impl Session {
    /// Takes in the positions that a run brings along, and finds out those that it asks for. What
    /// goes wrong there is the run's answer. An idle session has no room for what is seldom done.
    pub(super) async fn meet_demands(&mut self, plan: &mut Plan) {
        if plan.refusal.is_some() {
            return;
        }
        if plan.brings_positions() {
            plan.refusal = Box::pin(self.take_in(plan)).await.err().map(Box::new);
        }
        if plan.refusal.is_none() && plan.asks_for_token() {
            plan.refusal = Box::pin(self.settle_token()).await.err().map(Box::new);
        }
    }

    async fn take_in(&mut self, plan: &mut Plan) -> Result<(), Fault> {
        let mut has_all = true;
        for token in std::mem::take(&mut plan.tokens) {
            let floor = accept(&self.services, &token).await?;
            has_all &= self.raise_floor_to(floor);
        }
        if let Some(written_at) = plan.written_at.take() {
            let floor = accept_time(&self.services, written_at)?;
            has_all &= self.raise_floor_to(floor);
        }
        match has_all {
            true => Ok(()),
            false => {
                let message = "a READ ONLY transaction on a replica cannot be made more consistent";
                Err(Fault::error(SqlState::ACTIVE_SQL_TRANSACTION, message)
                    .with_hint(format!("Set {TOKEN} before BEGIN.")))
            }
        }
    }

    /// Folds in a position from outside. False if a READ ONLY transaction is under way on a replica that had
    /// not reached it, and cannot become fresher than it is.
    pub(super) fn raise_floor_to(&mut self, mut floor: Floor) -> bool {
        {
            let topology = self.services.feed.topology();
            let now = Instant::now();
            floor.settle(&topology, now);
            self.floor.settle(&topology, now);
        }
        self.floor.merge(&floor);
        self.tell_of_loss();
        let stays =
            |upstream: &&Upstream| upstream.role == Role::Replica && upstream.is_in_transaction();
        match self.upstream.as_deref().filter(stays) {
            Some(upstream) => {
                let bound = floor.bound_for(upstream.node);
                matches!(bound, Bound::Reached(lsn) if lsn <= upstream.began_at)
            }
            None => true,
        }
    }

    /// All that the session has written and seen has a known position.
    pub(super) fn knows_its_floor(&mut self) -> bool {
        let topology = self.services.feed.topology();
        self.floor.settle(&topology, Instant::now());
        self.floor.pending() == Pending::Nothing
    }

    /// Makes the floor a position, so that it can be told. Waits for the next probe of whatever has
    /// not told its position yet.
    async fn settle_token(&mut self) -> Result<(), Fault> {
        self.habit.reads();
        self.habit.never_numbers();
        if let Some(mut upstream) = self.upstream.take() {
            self.note_reads(&mut upstream);
            self.upstream = Some(upstream);
        }
        let deadline = Instant::now() + self.services.options.failover_wait;
        if let Sight::Away = self.look_up_key().await? {
            self.floor.raise_to_primary_after(Instant::now());
        }
        loop {
            let now = Instant::now();
            let topology = Arc::clone(&self.services.feed.topology());
            self.floor.settle(&topology, now);
            self.follow_key(&topology, now);
            if settle(&self.services, &mut self.floor, deadline).await? {
                self.tell_of_loss();
                return Ok(());
            }
        }
    }

    /// A server that the session keeps has been read from since: the floor must know.
    fn note_reads(&mut self, upstream: &mut Upstream) {
        if upstream.is_at_rest() && !upstream.is_in_transaction() {
            self.note_footprint(upstream);
            upstream.footprint = Footprint::None;
        }
    }

    /// The token of all that this session has written and seen, as far as it is known.
    pub(super) fn token(&self) -> Option<String> {
        let position = self.floor.position(&self.services.feed.topology())?;
        Some(self.services.options.tokens.write(position))
    }

    /// Says once that a failover has lost what the session had written or seen.
    pub(super) fn tell_of_loss(&mut self) {
        let (timeline, lsn) = match self.floor.take_lost() {
            Some(Lost::Position(timeline, lsn)) => (timeline, lsn),
            Some(Lost::Perhaps(timeline, xid)) => return self.tell_of_doubt(timeline, xid),
            None => return,
        };
        let (token, left, now_on) = {
            let topology = self.services.feed.topology();
            let system = topology.system.map(|system| Position {
                system,
                timeline,
                lsn,
            });
            let token = system.map(|position| self.services.options.tokens.write(position));
            let common = topology
                .timeline
                .and_then(|new| topology.switches.common(timeline, new));
            (
                token.unwrap_or_default(),
                common.unwrap_or_default(),
                topology.timeline,
            )
        };
        self.services.metrics.lost_position();
        tracing::warn!(
            pid = self.cancel.pid(),
            %token,
            "a failover has lost what a session had written or seen"
        );
        let message = "what was written or seen last has been lost in a failover";
        let warning = Fault::new(Severity::Warning, SqlState::WARNING, message)
            .with_detail(format!(
                "Token {token} is of timeline {timeline}, of which timeline {} has the log up to {left} only.",
                now_on.unwrap_or(Timeline(0)),
            ))
            .with_hint("The token is dropped. Look whether what you wrote is there, and write it again if not.");
        self.say(&warning);
    }

    fn tell_of_doubt(&mut self, timeline: Timeline, xid: Option<Xid>) {
        self.services.metrics.lost_position();
        let what = match xid {
            Some(xid) => format!("transaction {xid}"),
            None => "a transaction".to_owned(),
        };
        tracing::warn!(
            pid = self.cancel.pid(),
            xid = xid.map(|xid| xid.0),
            "a failover may have lost what a session had written or seen last"
        );
        let message = "what was written or seen last may have been lost in a failover";
        let warning = Fault::new(Severity::Warning, SqlState::WARNING, message)
            .with_detail(format!(
                "It was {what} of timeline {timeline}, of which it is not known whether the new timeline has it.",
            ))
            .with_hint("Look whether what you wrote is there, and write it again if not.");
        self.say(&warning);
    }
}

/// Probes that start at this moment have started after `moment`.
pub(super) fn just_after(moment: Instant) -> Instant {
    moment + Duration::from_nanos(1)
}
