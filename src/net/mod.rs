//! Sockets, TLS and buffered streams. Knows bytes and lengths, no message but the header of one.

pub mod buffer;
pub mod socket;
pub mod stream;
pub mod tls;
pub mod wire;

pub use buffer::Buffer;
pub use stream::Stream;
pub use wire::Wire;
