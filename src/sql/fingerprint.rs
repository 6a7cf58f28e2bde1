//! The key under which a decision is remembered: one pass over a text that skips white space,
//! comments and the values of literals. It decides nothing itself.
//!
//! Two texts share a *shape* key only if they have the same tokens, where two literals of the
//! same kind count as the same. The classifier sees no more than that of a text with a shape key
//! (see [`canonical`](super::canonical::canonical)), so equal keys mean equal decisions. Texts whose decision carries literal
//! values (SET, several statements, ...) have an *exact* key, of all their bytes.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher13};

use super::lexer::{Kind, Lexer, Token};
use super::settings::names_the_role;

/// The secret of the keys: without it nobody can make two texts share one.
#[derive(Clone, Copy)]
pub(super) struct Secret(pub [u8; 16]);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint {
    pub key: u128,
    /// A comment holds `causeway.`.
    pub has_hint: bool,
}

pub(super) fn fingerprint(secret: Secret, text: &[u8]) -> Fingerprint {
    let mut lexer = Lexer::new(text);
    let mut shape = Shape::new(secret);
    let mut exact = false;
    // A part before the first `;`, then nothing but `;`: still one statement.
    let mut ended = false;
    let mut first_word = true;
    for token in lexer.by_ref() {
        let source = text.get(token.start..token.end).unwrap_or_default();
        if first_word && source != b"(" {
            first_word = false;
            exact = !(token.kind == Kind::Word && begins_data_statement(source));
        }
        if source == b";" {
            ended = true;
            continue;
        }
        exact |= ended || needs_values(token.kind, source);
        shape.token(token, source);
    }
    exact |= lexer.ambiguous;
    let key = if exact {
        exact_key(secret, text)
    } else {
        shape.finish()
    };
    Fingerprint {
        key,
        has_hint: lexer.has_hint,
    }
}

fn begins_data_statement(word: &[u8]) -> bool {
    const WORDS: [&[u8]; 9] = [
        b"select", b"insert", b"update", b"delete", b"with", b"values", b"table", b"merge",
        b"execute",
    ];
    WORDS.iter().any(|known| word.eq_ignore_ascii_case(known))
}

/// The decision about a text with such a token depends on the values of literals, or on bytes
/// that no token accounts for.
fn needs_values(kind: Kind, source: &[u8]) -> bool {
    match kind {
        Kind::Word => source.len() == 10 && source.eq_ignore_ascii_case(b"set_config"),
        Kind::Quoted => source == b"\"set_config\"",
        Kind::Literal(_) => names_the_role(source),
        Kind::UnicodeName | Kind::Broken => true,
        _ => false,
    }
}

fn exact_key(secret: Secret, text: &[u8]) -> u128 {
    let mut hasher = SipHasher13::new_with_key(&secret.0);
    // No shape begins with this byte: the two kinds of key never meet.
    hasher.write(&[0xff]);
    hasher.write(text);
    hasher.finish128().as_u128()
}

const MAX_PIECE: usize = 64;

/// Hashes tokens in blocks: the hasher is slow at small pieces.
struct Shape {
    hasher: SipHasher13,
    block: [u8; 256],
    filled: usize,
}

impl Shape {
    fn new(secret: Secret) -> Self {
        Shape {
            hasher: SipHasher13::new_with_key(&secret.0),
            block: [0; 256],
            // One zero: no token begins so, and exact keys begin with another byte.
            filled: 1,
        }
    }

    fn token(&mut self, token: Token, source: &[u8]) {
        match token.kind {
            Kind::Word => self.put(source, u8::to_ascii_lowercase),
            Kind::Literal(_) => self.put(b"'", |byte| *byte),
            Kind::Number => self.put(b"0", |byte| *byte),
            Kind::Parameter => self.put(b"$", |byte| *byte),
            _ => self.put(source, |byte| *byte),
        }
    }

    /// The bytes, each as `change` makes it, and a mark of their end.
    #[inline]
    fn put(&mut self, bytes: &[u8], change: impl Fn(&u8) -> u8) {
        // Room for a piece and the mark; a name is seldom longer than one piece.
        for piece in bytes.chunks(MAX_PIECE) {
            if self.filled + MAX_PIECE >= self.block.len() {
                self.flush();
            }
            if let Some(slots) = self.block.get_mut(self.filled..self.filled + piece.len()) {
                for (slot, byte) in slots.iter_mut().zip(piece) {
                    *slot = change(byte);
                }
            }
            self.filled += piece.len();
        }
        if let Some(slot) = self.block.get_mut(self.filled) {
            *slot = 0;
        }
        self.filled += 1;
    }

    fn flush(&mut self) {
        let filled = self.block.get(..self.filled).unwrap_or_default();
        self.hasher.write(filled);
        self.filled = 0;
    }

    fn finish(mut self) -> u128 {
        self.flush();
        self.hasher.finish128().as_u128()
    }
}
