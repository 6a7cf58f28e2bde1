//! The tasks that watch: one per node, which keeps a control connection and repeats the probe,
//! every `probe_interval`, or every `wait_interval` while somebody waits for the node.

use std::collections::VecDeque;
use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use deadpool_postgres::Pool;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};
use tracing::{info, warn};

use super::connect;
use super::feed::{Feed, Post};
use super::fold::Outcome;
use super::metrics::{self, NodeMetrics};
use super::probe::{Control, ProbeError};
use crate::config::{MonitorConfig, NodeConfig};
use crate::net::tls::TlsError;
use crate::routing::topology::MAX_NODES;
use crate::routing::{Guarantee, Guarantees, Lsn, Node, NodeIndex, NodeName, NodeState, Xid};

/// So many probes of one node at once at the most: a node far away is asked again before it has
/// answered, so that an answer is hardly older than its way back. They are spread over the round
/// trip.
const IN_FLIGHT: u32 = 32;

const SHORTEST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(1);

/// Settings that cannot be watched. The operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    #[error("no nodes are configured")]
    NoNodes,
    #[error("{0} nodes are configured, at most {MAX_NODES} are possible")]
    TooManyNodes(usize),
    #[error("node \"{node}\": {source}")]
    Tls { node: String, source: Box<TlsError> },
}

/// Watches the nodes for as long as it lives.
pub struct Monitor {
    _tasks: JoinSet<()>,
}

impl Monitor {
    /// Starts one task per node; a node's place in `nodes` is its index. The recorder of the
    /// `metrics` facade must be in place before. Must be called in a Tokio runtime.
    pub fn start(
        nodes: &[NodeConfig],
        settings: &MonitorConfig,
    ) -> Result<(Monitor, Feed), MonitorError> {
        Monitor::start_with(nodes, settings, Guarantees::default())
    }

    /// As [`start`](Monitor::start), for tests that break a guarantee.
    pub fn start_with(
        nodes: &[NodeConfig],
        settings: &MonitorConfig,
        guarantees: Guarantees,
    ) -> Result<(Monitor, Feed), MonitorError> {
        if nodes.is_empty() {
            return Err(MonitorError::NoNodes);
        }
        if nodes.len() > MAX_NODES {
            return Err(MonitorError::TooManyNodes(nodes.len()));
        }
        metrics::describe();
        let indexed = || (0..).map(NodeIndex).zip(nodes);
        let feed = Feed::new(indexed().map(|(index, node)| unseen(index, node)).collect());
        let mut watches = Vec::with_capacity(nodes.len());
        for (index, node) in indexed() {
            let pool = connect::pool(node, settings).map_err(|source| MonitorError::Tls {
                node: node.name.clone(),
                source: Box::new(source),
            })?;
            watches.push(Watch {
                node: index,
                name: NodeName(node.name.as_str().into()),
                pool,
                feed: feed.clone(),
                pace: Pace {
                    probe_interval: settings.probe_interval,
                    wait_interval: settings.wait_interval,
                    probe_timeout: settings.probe_timeout,
                },
                metrics: NodeMetrics::new(&node.name),
                guarantees,
            });
        }
        let mut tasks = JoinSet::new();
        for watch in watches {
            tasks.spawn(watch.run());
        }
        Ok((Monitor { _tasks: tasks }, feed))
    }
}

fn unseen(index: NodeIndex, node: &NodeConfig) -> Node {
    let address = match node.host.starts_with('/') {
        true => format!("{}/.s.PGSQL.{}", node.host, node.port),
        false => format!("{}:{}", node.host, node.port),
    };
    Node {
        name: NodeName(node.name.as_str().into()),
        index,
        address: address.into(),
        region: node.region.as_deref().map(Arc::from),
        weight: node.weight,
        state: NodeState::Unknown,
        round_trip: None,
        furthest: Lsn::ZERO,
    }
}

/// One node's task.
struct Watch {
    node: NodeIndex,
    name: NodeName,
    pool: Pool,
    feed: Feed,
    pace: Pace,
    metrics: NodeMetrics,
    guarantees: Guarantees,
}

#[derive(Clone, Copy)]
struct Pace {
    probe_interval: Duration,
    wait_interval: Duration,
    probe_timeout: Duration,
}

/// What it found, and those of the wanted transactions that the node shows.
type Found = (Outcome, Arc<[Xid]>);

type Probe<'a> = Pin<Box<dyn Future<Output = Result<Found, ProbeError>> + Send + 'a>>;

impl Watch {
    /// Connects and probes until it fails, for ever. A connection that had lasted is replaced at
    /// once; after that attempts slow down.
    async fn run(self) {
        let mut backoff = SHORTEST_BACKOFF;
        loop {
            match Control::open(&self.pool, self.pace.probe_timeout).await {
                Ok(control) => {
                    self.log_connected(&control);
                    let opened = Instant::now();
                    let error = self.probe_until_failure(&control).await;
                    control.close();
                    self.publish_failure(&error);
                    if opened.elapsed() > LONGEST_BACKOFF {
                        backoff = SHORTEST_BACKOFF;
                        continue;
                    }
                }
                Err(error) => self.publish_failure(&error),
            }
            sleep(backoff.mul_f64(rand::random_range(0.75..1.25))).await;
            backoff = (backoff * 2).min(LONGEST_BACKOFF);
        }
    }

    fn log_connected(&self, control: &Control) {
        let (node, version) = (&self.name, &control.server_version);
        info!(%node, version, "monitor connected");
        if !control.sees_transactions {
            warn!(
                %node,
                "the monitor's user may not call txid_status(), or the server is older than 14.5: every \
                 write is asked for its position"
            );
        }
        if !control.sees_streaming {
            warn!(
                %node,
                "the monitor's user is no member of pg_monitor: after a promotion a replica is \
                 used again only when its next restartpoint shows the new timeline"
            );
        }
    }

    /// Returns why it ended.
    async fn probe_until_failure(&self, control: &Control) -> ProbeError {
        let Some(post) = self.feed.board().post(self.node) else {
            return pending().await;
        };
        let mut pace = self.pace;
        let mut last = None;
        let mut in_flight: VecDeque<(Instant, Probe<'_>)> = VecDeque::new();
        loop {
            let probes = in_flight.len();
            let outcome = tokio::select! {
                biased;
                outcome = oldest(&mut in_flight, self.pace.probe_timeout) => outcome,
                () = due(post, last, probes == 0, pace), if probes < IN_FLIGHT as usize =>
                {
                    let wanted = post.looks_again();
                    let started = Instant::now();
                    last = Some(started);
                    let mut probe: Probe<'_> = Box::pin(control.probe(started, wanted));
                    // The first poll sends it.
                    match poll_fn(|context| Poll::Ready(probe.as_mut().poll(context))).await {
                        Poll::Ready(found) => found.map(|found| (started.elapsed(), found)),
                        Poll::Pending => {
                            in_flight.push_back((started, probe));
                            continue;
                        }
                    }
                }
            };
            match outcome {
                Ok((round_trip, (outcome, shown))) => {
                    pace.wait_interval = self.pace.wait_interval.max(round_trip / IN_FLIGHT);
                    self.publish(outcome, shown);
                }
                Err(error) => return error,
            }
        }
    }

    fn publish(&self, mut outcome: Outcome, shown: Arc<[Xid]>) {
        if !self.guarantees.hold(Guarantee::Timelines) {
            outcome.forget_timeline();
        }
        let topology = self.feed.board().publish(self.node, outcome, shown);
        let node = topology.node(self.node);
        self.metrics.show(node, &topology, Instant::now());
    }

    fn publish_failure(&self, error: &ProbeError) {
        self.metrics.failures.increment(1);
        self.publish(error.outcome(), Arc::default());
    }
}

/// The round trip and the end of the probe that was sent first; never, when none is in flight.
/// Cancel safe.
async fn oldest(
    in_flight: &mut VecDeque<(Instant, Probe<'_>)>,
    probe_timeout: Duration,
) -> Result<(Duration, Found), ProbeError> {
    let Some((started, probe)) = in_flight.front_mut() else {
        return pending().await;
    };
    let started = *started;
    let found = tokio::select! {
        biased;
        found = probe => found,
        () = sleep_until((started + probe_timeout).into()) => {
            Err(ProbeError::Timeout(probe_timeout))
        }
    };
    in_flight.pop_front();
    found.map(|found| (started.elapsed(), found))
}

/// Returns when the next probe should be sent, `last` being when the last one was. Without anybody
/// who waits, one at a time is enough. Cancel safe.
async fn due(post: &Post, last: Option<Instant>, none_in_flight: bool, pace: Pace) {
    let Some(last) = last else {
        return;
    };
    loop {
        if post.is_eager() {
            return sleep_until((last + pace.wait_interval).into()).await;
        }
        tokio::select! {
            () = sleep_until((last + pace.probe_interval).into()), if none_in_flight => return,
            () = post.woken() => {}
        }
    }
}

#[cfg(test)]
mod tests;
