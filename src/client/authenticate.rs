//! Proving who a client is: SCRAM-SHA-256 (manual, section "SASL Authentication").

use std::io;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::hmac;

use crate::net::Wire;
use crate::protocol::error::{Fault, Severity, SqlState};
use crate::protocol::frame::{Frame, cstring, frontend};
use crate::protocol::message;
use crate::protocol::scram::{MECHANISM, ScramError, ServerExchange, Verifier};
use crate::server::Credential;

/// No message of an authentication is longer, in bytes.
const MAX_MESSAGE: usize = 10_000;

/// Salts for users that do not exist: the same one for the same name each time, as for those that
/// do.
pub struct Strangers {
    key: hmac::Key,
}

impl Default for Strangers {
    /// With a random secret.
    fn default() -> Strangers {
        let secret: [u8; 32] = rand::random();
        Strangers {
            key: hmac::Key::new(hmac::HMAC_SHA256, &secret),
        }
    }
}

impl Strangers {
    fn salt(&self, user: &str) -> [u8; 16] {
        let mut salt = [0; 16];
        let signed = hmac::sign(&self.key, user.as_bytes());
        salt.copy_from_slice(&signed.as_ref()[..16]);
        salt
    }
}

/// How an authentication ended.
pub enum LogIn {
    Proven,
    /// The client is to be told this, and closed.
    Refused(Fault),
    /// It closed instead of answering; people's tools do so to ask for a password.
    Gone,
}

/// Lets a client prove that it is `user`. A user that is not configured goes through the same
/// steps and fails in the same place, so that names cannot be probed.
pub async fn authenticate(
    wire: &mut Wire,
    user: &str,
    credential: Option<&Credential>,
    strangers: &Strangers,
) -> io::Result<LogIn> {
    let unmatchable;
    let verifier = match credential {
        Some(credential) => credential.verifier(),
        None => {
            unmatchable = Verifier::unmatchable(&strangers.salt(user));
            &unmatchable
        }
    };
    let mut out = Vec::new();
    message::put_sasl_offer(&mut out);
    wire.output.extend(&out);
    wire.flush().await?;

    let initial = match next_response(wire).await? {
        Response::Body(body) => body,
        Response::Bad(login) => return Ok(login),
    };
    let Some(client_first) = initial_response(&initial) else {
        return Ok(broken("malformed SASLInitialResponse"));
    };
    let nonce = BASE64.encode(rand::random::<[u8; 18]>());
    let exchange = match ServerExchange::begin(verifier, client_first, &nonce) {
        Ok(exchange) => exchange,
        Err(error) => return Ok(broken(&error.to_string())),
    };
    let mut out = Vec::new();
    message::put_sasl_continue(&mut out, exchange.server_first());
    wire.output.extend(&out);
    wire.flush().await?;

    let client_final = match next_response(wire).await? {
        Response::Body(body) => body,
        Response::Bad(login) => return Ok(login),
    };
    match (exchange.finish(&client_final), credential) {
        (Ok((server_final, keys)), Some(credential)) => {
            credential.remember_proof(keys);
            let mut out = Vec::new();
            message::put_sasl_final(&mut out, &server_final);
            message::put_authentication_ok(&mut out);
            wire.output.extend(&out);
            Ok(LogIn::Proven)
        }
        (Ok(_), None) | (Err(ScramError::Proof), _) => Ok(LogIn::Refused(wrong_password(user))),
        (Err(error), _) => Ok(broken(&error.to_string())),
    }
}

enum Response {
    Body(Vec<u8>),
    Bad(LogIn),
}

/// The body of the next message of the password family.
async fn next_response(wire: &mut Wire) -> io::Result<Response> {
    loop {
        match Frame::read(wire.input.bytes()) {
            Ok(Some(frame)) if frame.tag == frontend::PASSWORD => {
                let (body, size) = (frame.body().to_vec(), frame.bytes.len());
                wire.input.consume(size);
                return Ok(Response::Body(body));
            }
            Ok(Some(frame)) if frame.tag == frontend::TERMINATE => {
                return Ok(Response::Bad(LogIn::Gone));
            }
            Ok(Some(_)) => return Ok(Response::Bad(broken("expected SASL response"))),
            Err(error) => return Ok(Response::Bad(broken(&error.to_string()))),
            Ok(None) if wire.input.len() > MAX_MESSAGE => {
                return Ok(Response::Bad(broken("an over-long SASL response")));
            }
            Ok(None) => {
                if wire.fill().await? == 0 {
                    return Ok(Response::Bad(LogIn::Gone));
                }
            }
        }
    }
}

/// Mechanism, length, data; only our mechanism will do.
fn initial_response(body: &[u8]) -> Option<&[u8]> {
    let (mechanism, rest) = cstring(body)?;
    let (length, data) = rest.split_first_chunk::<4>()?;
    let whole = u32::from_be_bytes(*length) as usize == data.len();
    (mechanism == MECHANISM.as_bytes() && whole).then_some(data)
}

fn broken(what: &str) -> LogIn {
    LogIn::Refused(Fault::fatal(SqlState::PROTOCOL_VIOLATION, what))
}

fn wrong_password(user: &str) -> Fault {
    Fault::verbatim(
        Severity::Fatal,
        SqlState::INVALID_PASSWORD,
        format!("password authentication failed for user \"{user}\""),
    )
}
