//! Replication connections: one server of the primary for one client, and bytes in both
//! directions without a look at them (manual, chapter "Streaming Replication Protocol").

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

use crate::net::Wire;
use crate::server::Server;

/// Relays until one side closes. The client's output may hold the end of its log-in.
pub async fn relay_replication(client: &mut Wire, server: &mut Server) -> io::Result<()> {
    poll_fn(|context| {
        loop {
            let there = pass(&mut server.wire, client, context)?;
            let back = pass(client, &mut server.wire, context)?;
            match (there, back) {
                (Passed::Closed, _) | (_, Passed::Closed) => return Poll::Ready(Ok(())),
                (Passed::Nothing, Passed::Nothing) => return Poll::Pending,
                _ => {}
            }
        }
    })
    .await
}

enum Passed {
    Nothing,
    Some,
    Closed,
}

/// Moves what has come from one side to the other, unless that is still busy with the last.
fn pass(from: &mut Wire, to: &mut Wire, context: &mut Context<'_>) -> io::Result<Passed> {
    if to.poll_flush(context)?.is_pending() {
        return Ok(Passed::Nothing);
    }
    match from.poll_fill(context)? {
        Poll::Pending => Ok(Passed::Nothing),
        Poll::Ready(0) => Ok(Passed::Closed),
        Poll::Ready(_) => {
            let input = std::mem::take(&mut from.input);
            to.poll_send(context, input.bytes())?;
            Ok(Passed::Some)
        }
    }
}
