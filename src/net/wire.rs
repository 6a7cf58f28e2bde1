//! A stream with a buffer in each direction. Both are empty, and own no memory, while nothing is
//! under way.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};

use super::buffer::Buffer;
use super::stream::Stream;

#[derive(Debug)]
pub struct Wire {
    stream: Stream,
    /// Bytes that came and have not been looked at.
    pub input: Buffer,
    /// Bytes to send.
    pub output: Buffer,
}

impl Wire {
    pub fn new(stream: Stream) -> Wire {
        Wire {
            stream,
            input: Buffer::default(),
            output: Buffer::default(),
        }
    }

    pub fn into_stream(self) -> Stream {
        self.stream
    }

    /// Reads once into the input; zero is the end of the stream.
    pub fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let polled = self.stream.poll_read(context, self.input.space());
        match &polled {
            Poll::Ready(Ok(count)) => self.input.commit(*count),
            Poll::Ready(Err(_)) | Poll::Pending => {}
        }
        self.input.release_if_empty();
        polled
    }

    /// Sends the output; ready when all of it has gone.
    pub fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.output.is_empty() {
            let written = ready!(self.stream.poll_write(context, self.output.bytes()))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.output.consume(written);
        }
        self.stream.poll_flush(context)
    }

    /// Sends the first `count` bytes of the output and counts them down; ready when they have gone.
    pub fn poll_flush_first(
        &mut self,
        context: &mut Context<'_>,
        count: &mut usize,
    ) -> Poll<io::Result<()>> {
        while *count > 0 && !self.output.is_empty() {
            let first = (*count).min(self.output.len());
            let bytes = &self.output.bytes()[..first];
            let written = ready!(self.stream.poll_write(context, bytes))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.output.consume(written);
            *count -= written;
        }
        self.stream.poll_flush(context)
    }

    /// Sends `bytes` behind the output. What the stream does not take now is copied to the output.
    pub fn poll_send(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        if self.output.is_empty() {
            while let Poll::Ready(written) = self.stream.poll_write(context, rest)? {
                rest = &rest[written..];
                if rest.is_empty() {
                    if let Poll::Ready(flushed) = self.stream.poll_flush(context) {
                        flushed?;
                    }
                    return Ok(());
                }
                if written == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
            }
        }
        self.output.extend(rest);
        Ok(())
    }

    /// As [`poll_fill`](Self::poll_fill). Cancel safe.
    pub async fn fill(&mut self) -> io::Result<usize> {
        poll_fn(|context| self.poll_fill(context)).await
    }

    /// As [`poll_flush`](Self::poll_flush). Cancel safe: what has not gone stays in the output.
    pub async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|context| self.poll_flush(context)).await
    }

    /// Sends what is left and says goodbye.
    pub async fn close(&mut self) -> io::Result<()> {
        self.flush().await?;
        poll_fn(|context| self.stream.poll_shutdown(context)).await
    }
}
