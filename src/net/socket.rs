//! What is set on every TCP connection, and how one is made.

use std::io;
use std::path::Path;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, UnixStream};

use super::stream::Stream;

/// No delay, and keepalive probes that notice a dead peer within about a minute and a half.
pub fn tune(tcp: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(tcp);
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(10))
        .with_retries(3);
    socket.set_tcp_keepalive(&keepalive)
}

/// Connects over TCP, or over the Unix socket in `host` when that is a directory's path. Names
/// are looked up each time; the addresses are tried in turn.
pub async fn connect(host: &str, port: u16) -> io::Result<Stream> {
    if host.starts_with('/') {
        let path = Path::new(host).join(format!(".s.PGSQL.{port}"));
        return UnixStream::connect(path).await.map(Stream::Unix);
    }
    let tcp = TcpStream::connect((host, port)).await?;
    tune(&tcp)?;
    Ok(Stream::Tcp(tcp))
}
