//! Logging in on a node: start-up message, authentication, and what the server says until it is
//! ready (manual, section "Start-up").

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::cancel::CancelKey;
use super::credential::{Credential, NoKeys};
use super::dial::DialError;
use super::reported::Reported;
use crate::net::Wire;
use crate::protocol::error::{SqlState, summary};
use crate::protocol::frame::{Frame, backend, cstring, parameter_status};
use crate::protocol::message;
use crate::protocol::scram::{ClientExchange, Finishing, MECHANISM, md5_password};

/// No message of a log-in is longer, in bytes.
const MAX_MESSAGE: usize = 64 * 1024;

/// What a server said of itself.
pub struct Greeting {
    pub key: CancelKey,
    pub reported: Reported,
}

/// An AuthenticationXXX message.
enum Demand {
    Ok,
    Cleartext,
    Md5([u8; 4]),
    Sasl,
    SaslContinue(Vec<u8>),
    SaslFinal(Vec<u8>),
}

/// How far a SCRAM exchange has come.
enum Scram {
    NotBegun,
    Begun(ClientExchange),
    Responded(Finishing),
    Verified,
}

/// Logs in; returns at the first ReadyForQuery. Not cancel safe: a broken-off log-in is closed.
pub async fn log_in(
    wire: &mut Wire,
    database: &str,
    credential: &Credential,
    parameters: &[(&str, &str)],
) -> Result<Greeting, DialError> {
    let mut startup = vec![("user", credential.user()), ("database", database)];
    startup.extend(parameters);
    let mut out = Vec::new();
    message::put_startup(&mut out, &startup);
    send(wire, &out).await?;

    let mut greeting = Greeting {
        key: CancelKey::default(),
        reported: Reported::default(),
    };
    let mut scram = Scram::NotBegun;
    loop {
        let (tag, body) = next_message(wire).await?;
        match tag {
            backend::AUTHENTICATION => {
                let mut out = Vec::new();
                scram = answer(read_demand(&body)?, scram, credential, &mut out)?;
                send(wire, &out).await?;
            }
            backend::PARAMETER_STATUS => {
                if let Some((name, value)) = parameter_status(&body) {
                    greeting.reported.update(name, value);
                }
            }
            backend::BACKEND_KEY_DATA => greeting.key = read_key(&body)?,
            backend::READY_FOR_QUERY => return Ok(greeting),
            backend::ERROR_RESPONSE => return Err(refused(body)),
            backend::NOTICE_RESPONSE | backend::NEGOTIATE_PROTOCOL_VERSION => {}
            _ => {
                return Err(DialError::Protocol(
                    "an unexpected message during the log-in",
                ));
            }
        }
    }
}

async fn send(wire: &mut Wire, bytes: &[u8]) -> Result<(), DialError> {
    wire.output.extend(bytes);
    wire.flush().await.map_err(DialError::Broken)
}

async fn next_message(wire: &mut Wire) -> Result<(u8, Vec<u8>), DialError> {
    loop {
        let frame = Frame::read(wire.input.bytes());
        match frame.map_err(|_| DialError::Protocol("an impossible message length"))? {
            Some(frame) => {
                let (tag, body, size) = (frame.tag, frame.body().to_vec(), frame.bytes.len());
                wire.input.consume(size);
                return Ok((tag, body));
            }
            None if wire.input.len() > MAX_MESSAGE => {
                return Err(DialError::Protocol(
                    "an over-long message during the log-in",
                ));
            }
            None => {
                if wire.fill().await.map_err(DialError::Broken)? == 0 {
                    return Err(DialError::Broken(std::io::ErrorKind::UnexpectedEof.into()));
                }
            }
        }
    }
}

fn read_demand(body: &[u8]) -> Result<Demand, DialError> {
    let (code, rest) = body
        .split_first_chunk::<4>()
        .ok_or(DialError::Protocol("a short authentication request"))?;
    match u32::from_be_bytes(*code) {
        0 => Ok(Demand::Ok),
        3 => Ok(Demand::Cleartext),
        5 => rest
            .try_into()
            .map(Demand::Md5)
            .map_err(|_| DialError::Protocol("an md5 salt")),
        10 => {
            let mut rest = rest;
            while let Some((mechanism, after)) = cstring(rest) {
                if mechanism == MECHANISM.as_bytes() {
                    return Ok(Demand::Sasl);
                }
                rest = after;
            }
            Err(DialError::UnknownMethod(10))
        }
        11 => Ok(Demand::SaslContinue(rest.to_vec())),
        12 => Ok(Demand::SaslFinal(rest.to_vec())),
        other => Err(DialError::UnknownMethod(other)),
    }
}

/// Puts the answer to a demand into `out`.
fn answer(
    demand: Demand,
    scram: Scram,
    credential: &Credential,
    out: &mut Vec<u8>,
) -> Result<Scram, DialError> {
    let password = || credential.password().ok_or(NoKeys::NotProvenYet);
    match (demand, scram) {
        (Demand::Ok, Scram::NotBegun | Scram::Verified) => Ok(Scram::Verified),
        (Demand::Cleartext, Scram::NotBegun) => {
            message::put_password(out, password()?);
            Ok(Scram::NotBegun)
        }
        (Demand::Md5(salt), Scram::NotBegun) => {
            message::put_password(out, &md5_password(credential.user(), password()?, salt));
            Ok(Scram::NotBegun)
        }
        (Demand::Sasl, Scram::NotBegun) => {
            let exchange = ClientExchange::new(BASE64.encode(rand::random::<[u8; 18]>()));
            message::put_sasl_initial_response(out, &exchange.client_first());
            Ok(Scram::Begun(exchange))
        }
        (Demand::SaslContinue(server_first), Scram::Begun(exchange)) => {
            let challenge = exchange.challenge(&server_first)?;
            let keys = credential.keys_for(&challenge)?;
            let (client_final, finishing) = exchange.respond(&challenge, &keys);
            message::put_sasl_response(out, &client_final);
            Ok(Scram::Responded(finishing))
        }
        (Demand::SaslFinal(server_final), Scram::Responded(finishing)) => {
            finishing.verify(&server_final)?;
            Ok(Scram::Verified)
        }
        _ => Err(DialError::Protocol("authentication messages out of order")),
    }
}

fn read_key(body: &[u8]) -> Result<CancelKey, DialError> {
    let (pid, secret) = body
        .split_first_chunk::<4>()
        .ok_or(DialError::Protocol("a short BackendKeyData"))?;
    Ok(CancelKey {
        pid: u32::from_be_bytes(*pid),
        secret: secret.to_vec(),
    })
}

fn refused(body: Vec<u8>) -> DialError {
    let said = summary(&body);
    let (code, message): (SqlState, Vec<u8>) = (said.code, said.message.to_vec());
    DialError::Refused {
        code,
        message,
        body,
    }
}
