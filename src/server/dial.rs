//! Making a connection to a node: socket, TLS, log-in.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use super::cancel::CancelTarget;
use super::credential::{Credential, NoKeys};
use super::{HeldStatements, Server, Settings, SqlStatements, login};
use crate::config::TlsMode;
use crate::net::{Stream, Wire, socket};
use crate::protocol::error::SqlState;
use crate::protocol::message::{self, TransactionStatus};
use crate::protocol::owed::Owed;
use crate::protocol::scram::ScramError;
use crate::routing::NodeIndex;

/// Knows the way to one node.
#[derive(Debug)]
pub struct Dialer {
    pub node: NodeIndex,
    pub host: String,
    pub port: u16,
    pub tls: TlsMode,
    pub tls_config: Arc<ClientConfig>,
    /// For the whole attempt, log-in included.
    pub timeout: Duration,
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error("the connection broke during the log-in: {0}")]
    Broken(io::Error),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("TLS: {0}")]
    Tls(io::Error),
    #[error("the server does not speak TLS, which sslmode asks for")]
    NoTls,
    #[error("{0}")]
    Scram(#[from] ScramError),
    #[error("{0}")]
    NoKeys(#[from] NoKeys),
    #[error("the server asks for an authentication method that is not supported (code {0})")]
    UnknownMethod(u32),
    #[error("the server broke the protocol: {0}")]
    Protocol(&'static str),
    /// The server's own words, as an ErrorResponse body.
    #[error("{}", String::from_utf8_lossy(message))]
    Refused {
        code: SqlState,
        message: Vec<u8>,
        body: Vec<u8>,
    },
}

impl Dialer {
    /// Socket and TLS, without log-in.
    pub async fn connect(&self) -> Result<Stream, DialError> {
        let stream = socket::connect(&self.host, self.port)
            .await
            .map_err(DialError::Connect)?;
        match (self.tls, stream) {
            (TlsMode::Disable, stream) => Ok(stream),
            (_, stream @ (Stream::Unix(_) | Stream::Tls(_) | Stream::Memory(_))) => Ok(stream),
            (mode, stream @ Stream::Tcp(_)) => self.encrypt(mode, Wire::new(stream)).await,
        }
    }

    /// Asks for TLS; in mode `prefer` goes on without it where the server has none.
    async fn encrypt(&self, mode: TlsMode, mut wire: Wire) -> Result<Stream, DialError> {
        let mut request = Vec::new();
        message::put_ssl_request(&mut request);
        wire.output.extend(&request);
        wire.flush().await.map_err(DialError::Connect)?;
        wire.fill().await.map_err(DialError::Connect)?;
        let answer = wire.input.bytes().to_vec();
        match (answer.as_slice(), wire.into_stream()) {
            (b"S", Stream::Tcp(tcp)) => {
                let name = ServerName::try_from(self.host.clone()).map_err(|_| {
                    DialError::Tls(io::Error::other(format!("invalid host name {}", self.host)))
                })?;
                let connector = TlsConnector::from(Arc::clone(&self.tls_config));
                let tls = connector.connect(name, tcp).await.map_err(DialError::Tls)?;
                Ok(Stream::Tls(Box::new(tls.into())))
            }
            (b"N", stream) if mode == TlsMode::Prefer => Ok(stream),
            (b"N", _) => Err(DialError::NoTls),
            _ => Err(DialError::Protocol(
                "the answer to SSLRequest is neither S nor N",
            )),
        }
    }

    /// A server that is logged in and at rest. `parameters` are start-up parameters beyond user
    /// and database.
    pub async fn dial(
        self: &Arc<Dialer>,
        database: &str,
        credential: &Credential,
        parameters: &[(&str, &str)],
    ) -> Result<Server, DialError> {
        let attempt = async {
            let mut wire = Wire::new(self.connect().await?);
            let greeting = login::log_in(&mut wire, database, credential, parameters).await?;
            Ok(self.server(wire, greeting))
        };
        timeout(self.timeout, attempt)
            .await
            .map_err(|_| DialError::Timeout(self.timeout))?
    }

    fn server(self: &Arc<Dialer>, wire: Wire, greeting: login::Greeting) -> Server {
        let login::Greeting { key, reported } = greeting;
        Server {
            wire,
            owed: Owed::default(),
            status: TransactionStatus::Idle,
            reported,
            settings: Settings::default(),
            tampered: None,
            statements: HeldStatements::new(),
            sql_statements: SqlStatements::default(),
            unnamed: None,
            sequences: None,
            node: self.node,
            cancel: Arc::new(CancelTarget {
                dialer: Arc::clone(self),
                key,
            }),
            born: Instant::now(),
        }
    }
}

impl DialError {
    /// The node itself could not be used, as against this user or database on it.
    pub fn is_of_the_node(&self) -> bool {
        match self {
            DialError::Connect(_)
            | DialError::Broken(_)
            | DialError::Timeout(_)
            | DialError::Protocol(_) => true,
            DialError::Refused { code, .. } => {
                code.in_class(b"08")
                    || [SqlState::CANNOT_CONNECT_NOW, SqlState::ADMIN_SHUTDOWN].contains(code)
            }
            _ => false,
        }
    }
}
