//! The first packets of a connection (manual, sections "Start-up" and "SSL Session Encryption").

use std::io;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use crate::net::{Stream, Wire};
use crate::protocol::error::{Fault, SqlState};
use crate::protocol::message;
use crate::protocol::startup::{
    BadStartup, FirstPacket, NEWEST_MINOR, Startup, begins_with_tls, first_packet,
};

/// TLS as it is offered to clients.
#[derive(Clone)]
pub struct ClientTls {
    pub config: Arc<ServerConfig>,
    /// Clients without TLS are refused.
    pub required: bool,
}

/// What a connection turned out to be.
pub enum Arrival {
    /// A client that wants to log in.
    Startup(Wire, Startup),
    /// A request to cancel what the client with this key runs. The end of its connection is the
    /// answer: drivers wait for it before they send anything that must not be cancelled.
    Cancel {
        pid: u32,
        secret: Vec<u8>,
        connection: Wire,
    },
    /// It closed before it said anything.
    Silent,
}

/// Why a connection did not get as far as a log-in. What there was to say has been said to it.
#[derive(Debug, thiserror::Error)]
pub enum GreetError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Bad(#[from] BadStartup),
    #[error("the TLS handshake failed: {0}")]
    Tls(io::Error),
    #[error("bytes came between the request for encryption and its answer")]
    Smuggled,
    #[error("a connection without TLS was refused")]
    TlsRequired,
}

/// Reads first packets until one says what the connection is for.
pub async fn greet(tcp: TcpStream, tls: Option<&ClientTls>) -> Result<Arrival, GreetError> {
    let mut first = [0];
    let direct = tls.is_some() && tcp.peek(&mut first).await? == 1 && begins_with_tls(&first);
    let mut wire = match tls {
        Some(tls) if direct => Wire::new(shake_hands(tcp, tls, Alpn::Demanded).await?),
        _ => Wire::new(Stream::Tcp(tcp)),
    };
    let mut encrypted = direct;
    loop {
        let packet = match read_packet(&mut wire).await {
            Ok(Some(packet)) => packet,
            Ok(None) => return Ok(Arrival::Silent),
            Err(GreetError::Bad(bad)) => {
                refuse(&mut wire, &bad).await?;
                return Err(bad.into());
            }
            Err(error) => return Err(error),
        };
        match (packet, tls) {
            (FirstPacket::SslRequest, Some(tls)) if !encrypted => {
                if !wire.input.is_empty() {
                    return Err(GreetError::Smuggled);
                }
                say(&mut wire, b"S").await?;
                let Stream::Tcp(tcp) = wire.into_stream() else {
                    return Err(GreetError::Smuggled);
                };
                wire = Wire::new(shake_hands(tcp, tls, Alpn::Optional).await?);
                encrypted = true;
            }
            (FirstPacket::SslRequest | FirstPacket::GssEncRequest, _) => {
                say(&mut wire, b"N").await?;
            }
            (FirstPacket::Cancel { pid, secret }, _) => {
                return Ok(Arrival::Cancel {
                    pid,
                    secret,
                    connection: wire,
                });
            }
            (FirstPacket::Startup(_), Some(tls)) if tls.required && !encrypted => {
                let fault = Fault::fatal(SqlState::INVALID_AUTHORIZATION, "TLS is required")
                    .with_hint("Set sslmode=require in the client.");
                say_fault(&mut wire, &fault).await?;
                return Err(GreetError::TlsRequired);
            }
            (FirstPacket::Startup(startup), _) => {
                negotiate(&mut wire, &startup);
                return Ok(Arrival::Startup(wire, startup));
            }
        }
    }
}

enum Alpn {
    Optional,
    /// Direct TLS must name the protocol, or else any TLS client could be led here.
    Demanded,
}

async fn shake_hands(tcp: TcpStream, tls: &ClientTls, alpn: Alpn) -> Result<Stream, GreetError> {
    let acceptor = TlsAcceptor::from(Arc::clone(&tls.config));
    let stream = acceptor.accept(tcp).await.map_err(GreetError::Tls)?;
    let named = stream.get_ref().1.alpn_protocol() == Some(b"postgresql");
    if matches!(alpn, Alpn::Demanded) && !named {
        return Err(GreetError::Tls(io::Error::other(
            "direct TLS without ALPN \"postgresql\"",
        )));
    }
    Ok(Stream::Tls(Box::new(stream.into())))
}

async fn read_packet(wire: &mut Wire) -> Result<Option<FirstPacket>, GreetError> {
    loop {
        if let Some((packet, size)) = first_packet(wire.input.bytes())? {
            wire.input.consume(size);
            return Ok(Some(packet));
        }
        if wire.fill().await? == 0 {
            return match wire.input.is_empty() {
                true => Ok(None),
                false => Err(GreetError::Io(io::ErrorKind::UnexpectedEof.into())),
            };
        }
    }
}

/// A client that asks for a newer minor version, or for options that are not known, is told so
/// together with the first authentication message.
fn negotiate(wire: &mut Wire, startup: &Startup) {
    if startup.minor > NEWEST_MINOR || !startup.protocol_options.is_empty() {
        let mut out = Vec::new();
        message::put_negotiate_protocol_version(&mut out, &startup.protocol_options);
        wire.output.extend(&out);
    }
}

async fn refuse(wire: &mut Wire, bad: &BadStartup) -> io::Result<()> {
    let fault = match bad {
        BadStartup::Http => {
            let answer = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\
                Content-Type: text/plain\r\n\r\n\
                This port speaks the PostgreSQL protocol, not HTTP.\n";
            return say(wire, answer).await;
        }
        // As PostgreSQL: a driver may have said goodbye before anything else, and wants no error for it.
        BadStartup::UnexpectedTls | BadStartup::Length => return Ok(()),
        BadStartup::Protocol { .. } => {
            Fault::fatal(SqlState::FEATURE_NOT_SUPPORTED, bad.to_string())
        }
        BadStartup::Layout(_) => Fault::fatal(SqlState::PROTOCOL_VIOLATION, bad.to_string()),
    };
    say_fault(wire, &fault).await
}

async fn say(wire: &mut Wire, bytes: &[u8]) -> io::Result<()> {
    wire.output.extend(bytes);
    wire.flush().await
}

async fn say_fault(wire: &mut Wire, fault: &Fault) -> io::Result<()> {
    let mut out = Vec::new();
    fault.encode(&mut out);
    say(wire, &out).await
}
