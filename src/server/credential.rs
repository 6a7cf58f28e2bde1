//! What Causeway logs in with on the nodes, and what proves a client: one per configured user.

use std::num::NonZeroU32;
use std::sync::{Mutex, OnceLock, PoisonError};

use zeroize::Zeroizing;

use crate::config::Secret;
use crate::protocol::scram::{Challenge, DEFAULT_ITERATIONS, InvalidVerifier, Keys, Verifier};

/// A user's secret with what has been derived from it. Nothing of it is ever printed.
pub struct Credential {
    user: String,
    secret: Held,
    /// Keys for the salt and count that servers ask with; all nodes of a cluster ask alike.
    derived: Mutex<Option<Derived>>,
}

enum Held {
    Password {
        password: Zeroizing<String>,
        verifier: OnceLock<Verifier>,
    },
    Verifier {
        verifier: Verifier,
        proven: Mutex<Option<Keys>>,
    },
}

struct Derived {
    salt: Vec<u8>,
    iterations: NonZeroU32,
    keys: Keys,
}

/// Why a server's challenge cannot be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoKeys {
    #[error(
        "the SCRAM verifier in the configuration is not the server's (salt or iteration count differ)"
    )]
    OtherVerifier,
    #[error(
        "only a SCRAM verifier is configured, and no client has logged in with the password yet"
    )]
    NotProvenYet,
    #[error("the server asks for {0} SCRAM iterations, more than {MAX_ITERATIONS}")]
    TooManyIterations(NonZeroU32),
}

/// PBKDF2 holds a thread up, and a server says how often it is to be repeated: not more often than
/// this, which is a few hundred times PostgreSQL's default.
pub const MAX_ITERATIONS: u32 = 1_000_000;

impl Credential {
    pub fn new(user: &str, secret: &Secret) -> Result<Credential, InvalidVerifier> {
        let secret = match secret {
            Secret::Password(password) => Held::Password {
                password: password.clone(),
                verifier: OnceLock::new(),
            },
            Secret::Verifier(text) => Held::Verifier {
                verifier: Verifier::parse(text)?,
                proven: Mutex::new(None),
            },
        };
        Ok(Credential {
            user: user.to_owned(),
            secret,
            derived: Mutex::new(None),
        })
    }

    pub fn user(&self) -> &str {
        &self.user
    }

    /// What a client's proof is checked against. For a password it is made at the first log-in,
    /// with a random salt, and kept: later log-ins derive nothing.
    pub fn verifier(&self) -> &Verifier {
        match &self.secret {
            Held::Verifier { verifier, .. } => verifier,
            Held::Password { password, verifier } => verifier.get_or_init(|| {
                let salt: [u8; 16] = rand::random();
                let iterations = NonZeroU32::new(DEFAULT_ITERATIONS).unwrap_or(NonZeroU32::MIN);
                let keys = Keys::derive(password, &salt, iterations);
                Verifier::new(&keys, &salt, iterations)
            }),
        }
    }

    /// A client has proven itself with these keys: they open every server that holds the same
    /// verifier.
    pub fn remember_proof(&self, keys: Keys) {
        if let Held::Verifier { proven, .. } = &self.secret {
            *proven.lock().unwrap_or_else(PoisonError::into_inner) = Some(keys);
        }
    }

    /// The password, for servers that ask for it in another way than SCRAM.
    pub fn password(&self) -> Option<&str> {
        match &self.secret {
            Held::Password { password, .. } => Some(password),
            Held::Verifier { .. } => None,
        }
    }

    /// The keys that answer a server's challenge. Derives them only when the challenge is a new one.
    pub fn keys_for(&self, challenge: &Challenge) -> Result<Keys, NoKeys> {
        if challenge.iterations.get() > MAX_ITERATIONS {
            return Err(NoKeys::TooManyIterations(challenge.iterations));
        }
        match &self.secret {
            Held::Verifier { verifier, proven } => {
                let same = verifier.salt() == challenge.salt
                    && verifier.iterations() == challenge.iterations.get();
                if !same {
                    return Err(NoKeys::OtherVerifier);
                }
                let proven = proven.lock().unwrap_or_else(PoisonError::into_inner);
                proven.clone().ok_or(NoKeys::NotProvenYet)
            }
            Held::Password { password, .. } => {
                let mut derived = self.derived.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(known) = &*derived
                    && known.salt == challenge.salt
                    && known.iterations == challenge.iterations
                {
                    return Ok(known.keys.clone());
                }
                let keys = Keys::derive(password, &challenge.salt, challenge.iterations);
                *derived = Some(Derived {
                    salt: challenge.salt.clone(),
                    iterations: challenge.iterations,
                    keys: keys.clone(),
                });
                Ok(keys)
            }
        }
    }
}
