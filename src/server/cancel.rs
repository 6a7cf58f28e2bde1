//! Cancelling what a server runs (manual, section "Canceling Requests in Progress").

use std::io;
use std::sync::Arc;

use super::dial::Dialer;
use crate::net::Wire;
use crate::protocol::message;

/// A server's process and the secret that cancels it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CancelKey {
    pub pid: u32,
    pub secret: Vec<u8>,
}

/// A server's key, and the way there.
#[derive(Clone, Debug)]
pub struct CancelTarget {
    pub dialer: Arc<Dialer>,
    pub key: CancelKey,
}

impl CancelTarget {
    /// Sends the request and waits until the server has taken it: it closes the connection then.
    pub async fn cancel(&self) -> io::Result<()> {
        let stream = self.dialer.connect().await.map_err(io::Error::other)?;
        let mut wire = Wire::new(stream);
        let mut request = Vec::new();
        message::put_cancel_request(&mut request, self.key.pid, &self.key.secret);
        wire.output.extend(&request);
        wire.flush().await?;
        while wire.fill().await? > 0 {
            let size = wire.input.len();
            wire.input.consume(size);
        }
        Ok(())
    }
}
