//! Admin HTTP: metrics, health, status and a page for people. It shows what `inspect` offers; there
//! is no log-in, so it belongs on an address that only operators reach. Who asks from this machine
//! may have it forget what was learned, and nothing else can be changed.
//!
//! * `answer`: from a request to its answer
//! * `json`: the tables as JSON
//! * `gauges`: the tables as Prometheus text

mod answer;
mod gauges;
mod json;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};

use crate::inspect::{Memory, View};

/// What is shown, and what can be changed.
pub struct Admin {
    pub view: View,
    pub memory: Memory,
    /// Of the recorder that the rest of the program counts with.
    pub recorded: PrometheusHandle,
}

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asker {
    /// This machine.
    Here,
    Elsewhere,
}

impl Asker {
    fn at(address: IpAddr) -> Asker {
        match address.to_canonical().is_loopback() {
            true => Asker::Here,
            false => Asker::Elsewhere,
        }
    }
}

/// Connections at once; more wait to be accepted.
const MAX_CONNECTIONS: usize = 64;
/// A request's head must have come by then; also how long a connection may rest.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// No connection lives longer, whatever its client does or leaves undone.
const MAX_LIFETIME: Duration = Duration::from_secs(300);
const MAX_HEADERS: usize = 64;
/// A request's head at the most. Bodies are not read.
const MAX_HEAD_BYTES: usize = 16 * 1024;

impl Admin {
    /// Answers until dropped; the connections end with it.
    pub async fn serve(self, listener: TcpListener) {
        let admin = Arc::new(self);
        let mut connections = JoinSet::new();
        let mut upkeep = interval(Duration::from_secs(5));
        loop {
            tokio::select! {
                accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => {
                    match accepted {
                        Ok((tcp, peer)) => {
                            let asker = Asker::at(peer.ip());
                            connections.spawn(Arc::clone(&admin).converse(tcp, asker));
                        }
                        Err(error) => {
                            tracing::error!(%error, "admin: cannot accept a connection");
                            sleep(Duration::from_millis(50)).await;
                        }
                    }
                }
                Some(_) = connections.join_next() => {}
                // Samples of histograms pile up until they are asked for, or sorted in here.
                _ = upkeep.tick() => admin.recorded.run_upkeep(),
            }
        }
    }

    async fn converse(self: Arc<Admin>, tcp: TcpStream, asker: Asker) {
        let service = service_fn(|request| {
            let answer = self.answer(asker, request.method(), request.uri().path());
            async move { Ok::<_, Infallible>(answer) }
        });
        let conversation = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(TokioIo::new(tcp), service);
        match timeout(MAX_LIFETIME, conversation).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "admin: a connection broke"),
            Err(_) => tracing::debug!("admin: a connection was closed for its age"),
        }
    }
}
