//! A token: a position that travels, as text that fits into a cookie, a header or a URL as it
//! stands. What it says about the cluster is judged by [`Topology::judge`](super::Topology::judge).

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::hmac;

use super::lsn::{Lsn, Position, SystemId, Timeline};

/// Writes and reads tokens: `c1.<system identifier>.<timeline>.<LSN>`, numbers in decimal, the LSN
/// as PostgreSQL writes it but for a hyphen in the place of its slash. With a key a signature
/// follows: the first 16 bytes of HMAC-SHA-256 over what stands before its dot, in base64url.
pub struct Tokens {
    keys: Vec<hmac::Key>,
}

/// Half of HMAC-SHA-256 is 128 bits, which nobody guesses, in 22 letters.
const SIGNATURE_BYTES: usize = 16;

/// No token is longer, in bytes.
pub const MAX_TOKEN: usize = 128;

const VERSION: &str = "c1";

/// A text that is no token, or none of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    #[error("it is not of the form c1.<system identifier>.<timeline>.<LSN>")]
    Malformed,
    /// Signatures are asked for.
    #[error("it has no signature")]
    Unsigned,
    /// It was changed, or signed with a key that is not ours.
    #[error("its signature is wrong")]
    Forged,
}

impl Tokens {
    /// The first key signs; what any of them has signed is good. Without keys nothing is signed,
    /// and a signature counts for nothing.
    pub fn new<K: AsRef<[u8]>>(keys: impl IntoIterator<Item = K>) -> Tokens {
        let key = |key: K| hmac::Key::new(hmac::HMAC_SHA256, key.as_ref());
        Tokens {
            keys: keys.into_iter().map(key).collect(),
        }
    }

    /// The token of a position.
    pub fn write(&self, position: Position) -> String {
        let Position {
            system,
            timeline,
            lsn,
        } = position;
        let lsn = lsn.to_string().replace('/', "-");
        let mut text = format!("{VERSION}.{system}.{timeline}.{lsn}");
        if let Some(key) = self.keys.first() {
            let signature = hmac::sign(key, text.as_bytes());
            text.push('.');
            BASE64.encode_string(&signature.as_ref()[..SIGNATURE_BYTES], &mut text);
        }
        text
    }

    /// The position of a token that was written here or by another Causeway with one of our keys.
    pub fn read(&self, text: &str) -> Result<Position, InvalidToken> {
        if text.len() > MAX_TOKEN {
            return Err(InvalidToken::Malformed);
        }
        let mut parts = text.split('.');
        let mut part = || parts.next().ok_or(InvalidToken::Malformed);
        if part()? != VERSION {
            return Err(InvalidToken::Malformed);
        }
        let position = Position {
            system: SystemId(number(part()?)?),
            timeline: Timeline(
                u32::try_from(number(part()?)?).map_err(|_| InvalidToken::Malformed)?,
            ),
            lsn: lsn(part()?)?,
        };
        let signature = parts.next();
        if parts.next().is_some() {
            return Err(InvalidToken::Malformed);
        }
        if !self.keys.is_empty() {
            self.verify(text, signature.ok_or(InvalidToken::Unsigned)?)?;
        }
        Ok(position)
    }

    fn verify(&self, text: &str, signature: &str) -> Result<(), InvalidToken> {
        let signed = &text[..text.len() - signature.len() - 1];
        let given = BASE64.decode(signature).map_err(|_| InvalidToken::Forged)?;
        let is_good = |key: &hmac::Key| {
            let expected = hmac::sign(key, signed.as_bytes());
            let expected = &expected.as_ref()[..SIGNATURE_BYTES];
            bool::from(subtle::ConstantTimeEq::ct_eq(expected, given.as_slice()))
        };
        match self.keys.iter().any(is_good) {
            true => Ok(()),
            false => Err(InvalidToken::Forged),
        }
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens")
            .field("keys", &self.keys.len())
            .finish()
    }
}

/// Digits only: `parse` would take a sign too.
fn number(text: &str) -> Result<u64, InvalidToken> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = is_number.then(|| text.parse().ok()).flatten();
    number.ok_or(InvalidToken::Malformed)
}

fn lsn(text: &str) -> Result<Lsn, InvalidToken> {
    let is_ours = !text.contains('/');
    let lsn = is_ours.then(|| text.replacen('-', "/", 1).parse().ok());
    lsn.flatten().ok_or(InvalidToken::Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POSITION: Position = Position {
        system: SystemId(7_412_345_678_901_234_567),
        timeline: Timeline(3),
        lsn: Lsn(0x16_B374_D848),
    };

    fn unsigned() -> Tokens {
        Tokens::new(Vec::<Vec<u8>>::new())
    }

    #[test]
    fn a_token_fits_wherever_text_goes() {
        let text = unsigned().write(POSITION);
        assert_eq!(text, "c1.7412345678901234567.3.16-B374D848");
        let signed = Tokens::new([b"key"]).write(POSITION);
        let (before, signature) = signed.rsplit_once('.').unwrap();
        assert_eq!((before, signature.len()), (text.as_str(), 22));
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        assert!(signed.bytes().all(is_plain), "{signed}");
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let table = [
            "",
            "c1",
            "c1.1.1",
            "c2.1.1.0-0",
            "c1.1.1.0/0",
            "c1.1.1.0-0.x.y",
            "c1.+1.1.0-0",
            "c1..1.0-0",
            "c1.1.4294967296.0-0",
            "c1.18446744073709551616.1.0-0",
            "c1.1.1.0-0-0",
            " c1.1.1.0-0",
            "c1.1.1.0-0 ",
        ];
        for text in table {
            assert_eq!(
                unsigned().read(text),
                Err(InvalidToken::Malformed),
                "{text:?}"
            );
        }
        let long = format!("c1.1.1.0-0.{}", "x".repeat(MAX_TOKEN));
        assert_eq!(unsigned().read(&long), Err(InvalidToken::Malformed));
    }

    #[test]
    fn a_signature_is_demanded_by_those_who_have_a_key() {
        let (old, new) = (Tokens::new([b"old"]), Tokens::new([b"new", b"old"]));
        let stranger = Tokens::new([b"stranger"]);
        let plain = unsigned().write(POSITION);
        assert_eq!(old.read(&old.write(POSITION)), Ok(POSITION));
        assert_eq!(new.read(&old.write(POSITION)), Ok(POSITION), "a key's end");
        assert_eq!(
            old.read(&new.write(POSITION)),
            Err(InvalidToken::Forged),
            "a newer key"
        );
        assert_eq!(old.read(&plain), Err(InvalidToken::Unsigned));
        assert_eq!(
            old.read(&stranger.write(POSITION)),
            Err(InvalidToken::Forged)
        );
        assert_eq!(old.read(&format!("{plain}.")), Err(InvalidToken::Forged));
        assert_eq!(unsigned().read(&old.write(POSITION)), Ok(POSITION));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(system: u64, timeline: u32, lsn: u64, signed: bool) {
            let position = Position {
                system: SystemId(system),
                timeline: Timeline(timeline),
                lsn: Lsn(lsn),
            };
            let tokens = if signed { Tokens::new([b"key"]) } else { unsigned() };
            let text = tokens.write(position);
            prop_assert!(text.len() <= MAX_TOKEN);
            prop_assert_eq!(tokens.read(&text), Ok(position));
        }

        /// Whatever letter of it is changed, a signed token is no longer one.
        #[test]
        fn a_changed_token_is_refused(place in 0usize..57, letter in "[0-9A-Za-z._-]") {
            let tokens = Tokens::new([b"key"]);
            let text = tokens.write(POSITION);
            let mut changed = text.clone();
            changed.replace_range(place..place + 1, &letter);
            prop_assume!(changed != text);
            prop_assert!(tokens.read(&changed).is_err(), "{}", changed);
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,140}") {
            let _ = Tokens::new([b"key"]).read(&text);
        }
    }
}
