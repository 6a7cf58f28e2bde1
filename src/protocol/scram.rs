//! SCRAM-SHA-256 on both sides (RFC 5802, RFC 7677; manual, section "SASL Authentication").
//!
//! The slow part, PBKDF2, is done once for a password and a salt and kept as [`Keys`]; a log-in
//! then costs a few HMACs. No channel binding.

use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::{digest, hmac, pbkdf2};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// The only mechanism that is offered and accepted.
pub const MECHANISM: &str = "SCRAM-SHA-256";

/// PostgreSQL's default count.
pub const DEFAULT_ITERATIONS: u32 = 4096;

const KEY: usize = digest::SHA256_OUTPUT_LEN;

type Key = Zeroizing<[u8; KEY]>;

/// What is derived from a password for one salt and iteration count. The client key is as good as
/// the password: it is never printed.
#[derive(Clone)]
pub struct Keys {
    client: Key,
    server: Key,
}

/// What a server keeps of a password (`pg_authid.rolpassword`).
#[derive(Clone)]
pub struct Verifier {
    iterations: u32,
    salt: Vec<u8>,
    stored_key: [u8; KEY],
    server_key: Key,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    #[error("malformed SCRAM message: {0}")]
    Malformed(&'static str),
    #[error("channel binding is not supported")]
    ChannelBinding,
    #[error("the server's SCRAM nonce does not continue ours")]
    Nonce,
    #[error("the proof does not match")]
    Proof,
    #[error("the server's signature does not match: it does not know the password")]
    ServerSignature,
}

/// A text that is not a verifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a SCRAM verifier looks like SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>")]
pub struct InvalidVerifier;

impl Keys {
    /// Derives the keys: some milliseconds of CPU.
    pub fn derive(password: &str, salt: &[u8], iterations: NonZeroU32) -> Keys {
        let prepared = stringprep::saslprep(password);
        let prepared = prepared.as_deref().unwrap_or(password);
        let mut salted = Zeroizing::new([0; KEY]);
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            iterations,
            salt,
            prepared.as_bytes(),
            &mut *salted,
        );
        Keys {
            client: sign(&*salted, b"Client Key"),
            server: sign(&*salted, b"Server Key"),
        }
    }

    fn stored(&self) -> [u8; KEY] {
        hash(&*self.client)
    }
}

impl Verifier {
    /// The verifier of a password whose keys were derived with this salt and count.
    pub fn new(keys: &Keys, salt: &[u8], iterations: NonZeroU32) -> Verifier {
        Verifier {
            iterations: iterations.get(),
            salt: salt.to_vec(),
            stored_key: keys.stored(),
            server_key: keys.server.clone(),
        }
    }

    /// A verifier that no password matches, for users that do not exist.
    pub fn unmatchable(salt: &[u8]) -> Verifier {
        Verifier {
            iterations: DEFAULT_ITERATIONS,
            salt: salt.to_vec(),
            stored_key: hash(b"no client key hashes to the hash of a text"),
            server_key: Zeroizing::new([0; KEY]),
        }
    }

    /// Reads PostgreSQL's form.
    pub fn parse(text: &str) -> Result<Verifier, InvalidVerifier> {
        let read = || {
            let rest = text.strip_prefix(MECHANISM)?.strip_prefix('$')?;
            let (parameters, keys) = rest.split_once('$')?;
            let (iterations, salt) = parameters.split_once(':')?;
            let (stored_key, server_key) = keys.split_once(':')?;
            let key = |text: &str| BASE64.decode(text).ok()?.try_into().ok();
            Some(Verifier {
                iterations: iterations.parse::<NonZeroU32>().ok()?.get(),
                salt: BASE64.decode(salt).ok()?,
                stored_key: key(stored_key)?,
                server_key: Zeroizing::new(key(server_key)?),
            })
        };
        read().ok_or(InvalidVerifier)
    }

    pub fn salt(&self) -> &[u8] {
        &self.salt
    }

    pub fn iterations(&self) -> u32 {
        self.iterations
    }
}

/// The server's side, between its first and its final message.
pub struct ServerExchange<'a> {
    verifier: &'a Verifier,
    gs2_header: String,
    client_first_bare: String,
    server_first: String,
    nonce: String,
}

impl<'a> ServerExchange<'a> {
    /// Reads client-first; [`server_first`](Self::server_first) is the answer. `nonce` must be
    /// fresh printable random text without commas.
    pub fn begin(
        verifier: &'a Verifier,
        client_first: &[u8],
        nonce: &str,
    ) -> Result<ServerExchange<'a>, ScramError> {
        let text = utf8(client_first)?;
        let (gs2_header, bare) = match text.split_at_checked(3) {
            Some(("n,,", bare)) => ("n,,", bare),
            Some(("y,,", bare)) => ("y,,", bare),
            _ if text.starts_with("p=") => return Err(ScramError::ChannelBinding),
            _ => return Err(ScramError::Malformed("the GS2 header")),
        };
        let mut attributes = bare.split(',');
        let user = attributes
            .next()
            .and_then(|attribute| attribute.strip_prefix("n="));
        let client_nonce = attributes
            .next()
            .and_then(|attribute| attribute.strip_prefix("r="));
        let (Some(_), Some(client_nonce)) = (user, client_nonce) else {
            return Err(ScramError::Malformed("client-first"));
        };
        if client_nonce.is_empty() {
            return Err(ScramError::Malformed("an empty nonce"));
        }
        let nonce = format!("{client_nonce}{nonce}");
        let salt = BASE64.encode(&verifier.salt);
        let server_first = format!("r={nonce},s={salt},i={}", verifier.iterations);
        Ok(ServerExchange {
            verifier,
            gs2_header: gs2_header.to_owned(),
            client_first_bare: bare.to_owned(),
            server_first,
            nonce,
        })
    }

    pub fn server_first(&self) -> &str {
        &self.server_first
    }

    /// Reads client-final. On success gives server-final and the client's key, with which a fresh
    /// proof can be made for any server that holds the same verifier.
    pub fn finish(self, client_final: &[u8]) -> Result<(String, Keys), ScramError> {
        let text = utf8(client_final)?;
        let (without_proof, proof) = text
            .rsplit_once(",p=")
            .ok_or(ScramError::Malformed("client-final without proof"))?;
        let mut attributes = without_proof.split(',');
        let binding = attributes
            .next()
            .and_then(|attribute| attribute.strip_prefix("c="));
        let nonce = attributes
            .next()
            .and_then(|attribute| attribute.strip_prefix("r="));
        if binding != Some(BASE64.encode(&self.gs2_header).as_str()) {
            return Err(ScramError::ChannelBinding);
        }
        if nonce != Some(self.nonce.as_str()) {
            return Err(ScramError::Nonce);
        }
        let proof: [u8; KEY] = BASE64
            .decode(proof)
            .ok()
            .and_then(|proof| proof.try_into().ok())
            .ok_or(ScramError::Malformed("the proof"))?;
        let message = format!(
            "{},{},{without_proof}",
            self.client_first_bare, self.server_first
        );
        let signature = sign(&self.verifier.stored_key, message.as_bytes());
        let client = xor(&proof, &signature);
        if !bool::from(hash(&*client).ct_eq(&self.verifier.stored_key)) {
            return Err(ScramError::Proof);
        }
        let signature = sign(&*self.verifier.server_key, message.as_bytes());
        let server_final = format!("v={}", BASE64.encode(*signature));
        Ok((
            server_final,
            Keys {
                client,
                server: self.verifier.server_key.clone(),
            },
        ))
    }
}

/// The client's side, before server-first has come.
pub struct ClientExchange {
    nonce: String,
}

/// What server-first asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    pub salt: Vec<u8>,
    pub iterations: NonZeroU32,
    nonce: String,
    message: String,
}

/// The client's side, between client-final and server-final.
pub struct Finishing {
    server_signature: Key,
}

impl ClientExchange {
    /// `nonce` must be fresh printable random text without commas.
    pub fn new(nonce: String) -> ClientExchange {
        ClientExchange { nonce }
    }

    /// PostgreSQL takes the user from the start-up message and ignores the one here.
    pub fn client_first(&self) -> String {
        format!("n,,n=,r={}", self.nonce)
    }

    /// Reads server-first.
    pub fn challenge(&self, server_first: &[u8]) -> Result<Challenge, ScramError> {
        let text = utf8(server_first)?;
        let mut attributes = text.split(',');
        let mut next = |name| {
            attributes
                .next()
                .and_then(|attribute| attribute.strip_prefix(name))
        };
        let (Some(nonce), Some(salt), Some(count)) = (next("r="), next("s="), next("i=")) else {
            return Err(ScramError::Malformed("server-first"));
        };
        if nonce.len() <= self.nonce.len() || !nonce.starts_with(&self.nonce) {
            return Err(ScramError::Nonce);
        }
        Ok(Challenge {
            salt: BASE64
                .decode(salt)
                .map_err(|_| ScramError::Malformed("the salt"))?,
            iterations: count
                .parse()
                .map_err(|_| ScramError::Malformed("the iterations"))?,
            nonce: nonce.to_owned(),
            message: text.to_owned(),
        })
    }

    /// Gives client-final.
    pub fn respond(self, challenge: &Challenge, keys: &Keys) -> (String, Finishing) {
        let without_proof = format!("c={},r={}", BASE64.encode("n,,"), challenge.nonce);
        let message = format!("n=,r={},{},{without_proof}", self.nonce, challenge.message);
        let signature = sign(&keys.stored(), message.as_bytes());
        let proof = xor(&keys.client, &signature);
        let client_final = format!("{without_proof},p={}", BASE64.encode(*proof));
        (
            client_final,
            Finishing {
                server_signature: sign(&*keys.server, message.as_bytes()),
            },
        )
    }
}

impl Finishing {
    /// Reads server-final: the server proves that it knows the password too.
    pub fn verify(self, server_final: &[u8]) -> Result<(), ScramError> {
        let signature = utf8(server_final)?
            .strip_prefix("v=")
            .and_then(|text| BASE64.decode(text).ok())
            .ok_or(ScramError::Malformed("server-final"))?;
        let matches = signature.ct_eq(&self.server_signature[..]);
        if bool::from(matches) {
            Ok(())
        } else {
            Err(ScramError::ServerSignature)
        }
    }
}

/// The answer to AuthenticationMD5Password: `md5` and `md5(md5(password + user) + salt)`.
pub fn md5_password(user: &str, password: &str, salt: [u8; 4]) -> String {
    postgres_protocol::authentication::md5_hash(user.as_bytes(), password.as_bytes(), salt)
}

fn utf8(bytes: &[u8]) -> Result<&str, ScramError> {
    std::str::from_utf8(bytes).map_err(|_| ScramError::Malformed("not UTF-8"))
}

fn sign(key: &[u8], message: &[u8]) -> Key {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message);
    let mut signature = Zeroizing::new([0; KEY]);
    signature.copy_from_slice(tag.as_ref());
    signature
}

fn hash(bytes: &[u8]) -> [u8; KEY] {
    let mut hashed = [0; KEY];
    hashed.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hashed
}

fn xor(left: &[u8; KEY], right: &[u8; KEY]) -> Key {
    Zeroizing::new(std::array::from_fn(|place| left[place] ^ right[place]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNT: NonZeroU32 = NonZeroU32::new(4096).unwrap();

    fn log_in(password: &str, verifier: &Verifier) -> Result<(), ScramError> {
        let client = ClientExchange::new("client".into());
        let server = ServerExchange::begin(verifier, client.client_first().as_bytes(), "server")?;
        let challenge = client.challenge(server.server_first().as_bytes())?;
        let keys = Keys::derive(password, &challenge.salt, challenge.iterations);
        let (client_final, finishing) = client.respond(&challenge, &keys);
        let (server_final, proven) = server.finish(client_final.as_bytes())?;
        assert_eq!(proven.client, keys.client);
        finishing.verify(server_final.as_bytes())
    }

    #[test]
    fn the_two_sides_agree_only_on_the_right_password() {
        let verifier = Verifier::new(&Keys::derive("pencil", b"salt", COUNT), b"salt", COUNT);
        assert_eq!(log_in("pencil", &verifier), Ok(()));
        assert_eq!(log_in("Pencil", &verifier), Err(ScramError::Proof));
        assert_eq!(
            log_in("pencil", &Verifier::unmatchable(b"salt")),
            Err(ScramError::Proof)
        );
    }

    /// The example of RFC 7677, section 3.
    #[test]
    fn the_example_of_the_rfc_holds() {
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let keys = Keys::derive("pencil", &salt, COUNT);
        let client_final = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                            p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        let exchange = ServerExchange {
            verifier: &Verifier::new(&keys, &salt, COUNT),
            gs2_header: "n,,".into(),
            client_first_bare: "n=user,r=rOprNGfwEbeRWgbNEkqO".into(),
            server_first: "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                           s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
                .into(),
            nonce: "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0".into(),
        };
        let (server_final, _) = exchange.finish(client_final.as_bytes()).unwrap();
        assert_eq!(
            server_final,
            "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
        );
    }

    #[test]
    fn a_verifier_is_read_in_postgres_form() {
        let keys = Keys::derive("pencil", b"salt", COUNT);
        let text = format!(
            "SCRAM-SHA-256$4096:{}${}:{}",
            BASE64.encode("salt"),
            BASE64.encode(keys.stored()),
            BASE64.encode(*keys.server)
        );
        assert_eq!(log_in("pencil", &Verifier::parse(&text).unwrap()), Ok(()));
        for bad in [
            "",
            "md5abc",
            "SCRAM-SHA-256$0:c2FsdA==$x:y",
            &text[..text.len() - 3],
        ] {
            assert!(Verifier::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_a_client_should_not_send_is_refused() {
        let verifier = Verifier::unmatchable(b"salt");
        let begin = |first: &[u8]| ServerExchange::begin(&verifier, first, "server").err();
        assert_eq!(
            begin(b"p=tls-unique,,n=,r=x"),
            Some(ScramError::ChannelBinding)
        );
        for bad in [
            &b""[..],
            b"n,,",
            b"n,,n=",
            b"n,,n=,r=",
            b"x,,n=,r=a",
            b"\xff",
            b"n,,r=a",
        ] {
            assert!(
                matches!(begin(bad), Some(ScramError::Malformed(_))),
                "{bad:?}"
            );
        }
        let finish = |last: &[u8]| {
            let exchange = ServerExchange::begin(&verifier, b"n,,n=,r=a", "b").unwrap();
            exchange.finish(last).err()
        };
        let proof = BASE64.encode([0; KEY]);
        assert_eq!(
            finish(b"c=biws,r=ab"),
            Some(ScramError::Malformed("client-final without proof"))
        );
        assert_eq!(
            finish(b"c=biws,r=ab,p=AA=="),
            Some(ScramError::Malformed("the proof"))
        );
        assert_eq!(
            finish(format!("c=biws,r=a,p={proof}").as_bytes()),
            Some(ScramError::Nonce)
        );
        let other = format!("c=eSws,r=ab,p={proof}");
        assert_eq!(finish(other.as_bytes()), Some(ScramError::ChannelBinding));
    }
}
