//! A delay link: a TCP forwarder that makes two processes on one machine a round trip apart.
//!
//! Every chunk is delivered half a round trip after it was read, in order, and any number of
//! chunks are on their way at once, so the distance costs latency but not bandwidth. Making a
//! connection costs a round trip too. A link can be cut and restored, and pointed elsewhere. It is
//! not a model of a bad network: nothing is lost, reordered or jittered.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::LabError;
use super::alarm::{Alarm, Clock};
use super::port::PortClaim;

/// Bytes on their way in one direction of one connection: a gigabit link of 190 ms holds 12 MB.
const IN_FLIGHT: usize = 16 * 1024 * 1024;
const CHUNK: usize = 64 * 1024;
const SMALLEST_READ: usize = 4 * 1024;

/// How a link is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Nothing passes any more and nobody is told, as when a route is lost. What was sent is
    /// delivered when the link is restored; new connections are taken and hang.
    Freeze,
    /// Connections are reset, and new ones as soon as they are made.
    Reset,
}

/// What all links of a lab run on: a thread of their own, so that delays stay true while the
/// lab's owner is busy.
pub(super) struct Network {
    runtime: Option<Runtime>,
    links: Handle,
    alarm: Alarm,
}

/// One listening port that forwards to one node, with a delay.
pub(super) struct Link {
    port: PortClaim,
    line: watch::Sender<Line>,
    listener: AbortHandle,
}

#[derive(Clone, Copy, Debug)]
struct Line {
    target: SocketAddr,
    round_trip: Duration,
    cut: Option<Cut>,
}

impl Network {
    pub(super) fn new() -> io::Result<Network> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("causeway-lab-links")
            .enable_all()
            .build()?;
        Ok(Network {
            links: runtime.handle().clone(),
            runtime: Some(runtime),
            alarm: Alarm::new()?,
        })
    }

    /// A link that listens already.
    pub(super) fn link(&self, target: SocketAddr, round_trip: Duration) -> Result<Link, LabError> {
        let port = PortClaim::new()?;
        let address = port.address();
        let listener = std::net::TcpListener::bind(address)
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .map_err(|error| LabError::io(format!("cannot listen on {address}"), error))?;
        let (line, watched) = watch::channel(Line {
            target,
            round_trip,
            cut: None,
        });
        let task = self
            .links
            .spawn(serve(listener, watched, self.alarm.clock()));
        Ok(Link {
            port,
            line,
            listener: task.abort_handle(),
        })
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // An ordinary drop would wait, which asynchronous code must not.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Link {
    pub(super) fn port(&self) -> u16 {
        self.port.port()
    }

    pub(super) fn cut(&self, cut: Cut) {
        self.line.send_modify(|line| line.cut = Some(cut));
    }

    pub(super) fn restore(&self) {
        self.line.send_modify(|line| line.cut = None);
    }

    /// Resets what is connected; new connections lead to `target`.
    pub(super) fn point_at(&self, target: SocketAddr, round_trip: Duration) {
        self.line.send_modify(|line| {
            line.target = target;
            line.round_trip = round_trip;
        });
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

/// What a connection needs to know of its link.
#[derive(Clone)]
struct Distance {
    line: watch::Receiver<Line>,
    clock: Clock,
    /// Where the link led when the connection was made.
    target: SocketAddr,
}

/// The link was dropped, or leads elsewhere.
struct Gone;

impl Distance {
    /// Waits while the link is frozen. Cancel safe.
    async fn until_open(&mut self) -> Result<(), Gone> {
        let target = self.target;
        let decided = |line: &Line| line.cut.is_none() || line.target != target;
        match self.line.wait_for(decided).await {
            Ok(line) if line.target == target => Ok(()),
            _ => Err(Gone),
        }
    }
}

async fn serve(listener: std::net::TcpListener, line: watch::Receiver<Line>, clock: Clock) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "lab: a link cannot listen");
            return;
        }
    };
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    let now = *line.borrow();
                    let distance = Distance {
                        line: line.clone(),
                        clock: clock.clone(),
                        target: now.target,
                    };
                    connections.spawn(carry(client, now.round_trip, distance));
                }
                Err(error) => {
                    tracing::warn!(%error, "lab: a link cannot accept");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One connection, from accept to its end.
async fn carry(mut client: TcpStream, round_trip: Duration, distance: Distance) {
    let established_at = Instant::now() + round_trip;
    let target = distance.target;
    let mut watched = distance.line.clone();
    let lost = watched.wait_for(|line| line.cut == Some(Cut::Reset) || line.target != target);
    let reset = tokio::select! {
        biased;
        _ = lost => true,
        outcome = forward(&mut client, established_at, distance) => outcome.is_err(),
    };
    if reset && let Err(error) = client.set_zero_linger() {
        tracing::debug!(%error, "lab: a lost connection ends with FIN instead of RST");
    }
}

/// Ends when both directions have ended; fails only if the target cannot be reached.
async fn forward(
    client: &mut TcpStream,
    established_at: Instant,
    mut distance: Distance,
) -> io::Result<()> {
    if distance.until_open().await.is_err() {
        return Ok(());
    }
    let mut server = TcpStream::connect(distance.target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (client_read, client_write) = client.split();
    let (server_read, server_write) = server.split();
    let schedule = Schedule::new(established_at);
    tokio::join!(
        one_way(client_read, server_write, schedule, distance.clone()),
        one_way(server_read, client_write, schedule, distance),
    );
    Ok(())
}

/// An end or an error of the source arrives as an end, after the bytes before it. An error of the
/// destination ends this direction only: what the other side has still said must arrive.
async fn one_way(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut schedule: Schedule,
    mut distance: Distance,
) {
    let (queue, mut arrivals) = mpsc::unbounded_channel::<(Instant, Bytes)>();
    let room = Arc::new(Semaphore::new(IN_FLIGHT));
    let watched = distance.line.clone();
    let depart = async {
        let mut buffer = BytesMut::with_capacity(CHUNK);
        loop {
            let ended = match from.read_buf(&mut buffer).await {
                Ok(count) => count == 0,
                Err(_) => true,
            };
            let half = watched.borrow().round_trip / 2;
            let due = schedule.due(Instant::now(), half);
            let chunk = buffer.split().freeze();
            if buffer.capacity() < SMALLEST_READ {
                buffer.reserve(CHUNK);
            }
            match room.acquire_many(chunk.len() as u32).await {
                Ok(permits) => permits.forget(),
                Err(_) => return,
            }
            if queue.send((due, chunk)).is_err() || ended {
                return;
            }
        }
    };
    let arrive = async {
        while let Some((due, chunk)) = arrivals.recv().await {
            distance.clock.until(due).await;
            if distance.until_open().await.is_err() {
                return;
            }
            let written = if chunk.is_empty() {
                to.shutdown().await
            } else {
                to.write_all(&chunk).await
            };
            if written.is_err() || chunk.is_empty() {
                return;
            }
            room.add_permits(chunk.len());
        }
    };
    // The departures wait for ever on a quiet source, so the arrivals decide when it is over.
    tokio::pin!(depart);
    tokio::pin!(arrive);
    tokio::select! {
        () = &mut arrive => {}
        () = &mut depart => arrive.await,
    }
}

/// When a chunk arrives: half a round trip after it was read, or after the connection would have
/// been established from afar, and never before its predecessor.
#[derive(Clone, Copy)]
struct Schedule {
    established_at: Instant,
    newest: Instant,
}

impl Schedule {
    fn new(established_at: Instant) -> Schedule {
        Schedule {
            established_at,
            newest: established_at,
        }
    }

    fn due(&mut self, now: Instant, half_round_trip: Duration) -> Instant {
        let departure = now.max(self.established_at);
        self.newest = self.newest.max(departure + half_round_trip);
        self.newest
    }
}

#[cfg(test)]
mod tests;
