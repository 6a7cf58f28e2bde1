//! A connection's byte stream, whatever carries it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsStream;

/// TCP, a Unix socket, TLS over TCP, or memory (for tests over scripted peers).
#[derive(Debug)]
pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
    Memory(Box<DuplexStream>),
}

impl Stream {
    /// Reads what is there, at most `space`; zero is the end of the stream.
    pub fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        space: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(space);
        let polled = match self {
            Stream::Tcp(tcp) => Pin::new(tcp).poll_read(context, &mut buffer),
            Stream::Unix(unix) => Pin::new(unix).poll_read(context, &mut buffer),
            Stream::Tls(tls) => Pin::new(tls).poll_read(context, &mut buffer),
            Stream::Memory(memory) => Pin::new(memory).poll_read(context, &mut buffer),
        };
        polled.map_ok(|()| buffer.filled().len())
    }

    pub fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Stream::Tcp(tcp) => Pin::new(tcp).poll_write(context, bytes),
            Stream::Unix(unix) => Pin::new(unix).poll_write(context, bytes),
            Stream::Tls(tls) => Pin::new(tls).poll_write(context, bytes),
            Stream::Memory(memory) => Pin::new(memory).poll_write(context, bytes),
        }
    }

    /// Only TLS keeps written bytes back; the others have nothing to flush.
    pub fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Tls(tls) => Pin::new(tls).poll_flush(context),
            Stream::Tcp(_) | Stream::Unix(_) | Stream::Memory(_) => Poll::Ready(Ok(())),
        }
    }

    /// Says goodbye as the carrier does (TLS close_notify, FIN).
    pub fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Tcp(tcp) => Pin::new(tcp).poll_shutdown(context),
            Stream::Unix(unix) => Pin::new(unix).poll_shutdown(context),
            Stream::Tls(tls) => Pin::new(tls).poll_shutdown(context),
            Stream::Memory(memory) => Pin::new(memory).poll_shutdown(context),
        }
    }
}
