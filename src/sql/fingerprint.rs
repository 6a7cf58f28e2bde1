//! The key under which a decision is remembered: one pass over a text that skips white space,
//! comments and the values of literals. It decides nothing itself.
//!
//! Two texts share a *shape* key only if they have the same tokens, where two literals of the
//! same kind count as the same. The classifier sees no more than that of a text with a shape key
//! (see [`canonical`](super::canonical::canonical)), so equal keys mean equal decisions. Texts whose decision carries literal
//! values (SET, several statements, ...) have an *exact* key, of all their bytes. So have those of which the
//! catalogue says that they give SQL as a literal to a function ([`given`](super::given)): the decision by the
//! shape key is then that there is one by the exact key.

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
    let mut shape = Shape::new(secret, text);
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
        exact |= match token.kind {
            Kind::Punctuation if source == b";" => {
                ended = true;
                continue;
            }
            Kind::Word => source.len() == 10 && source.eq_ignore_ascii_case(b"set_config"),
            Kind::Quoted => source == b"\"set_config\"",
            Kind::Literal(_) => names_the_role(source),
            // Whose values are not known here, or with bytes that no token accounts for.
            Kind::UnicodeName | Kind::Broken => true,
            Kind::Number | Kind::Parameter | Kind::Operator | Kind::Punctuation => false,
        };
        exact |= ended;
        shape.token(token);
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

/// The key of a text whose decision carries the values of its literals, or rests on them.
pub(super) fn exact_key(secret: Secret, text: &[u8]) -> u128 {
    let mut hasher = SipHasher13::new_with_key(&secret.0);
    // No shape begins with this byte: the two kinds of key never meet.
    hasher.write(&[0xff]);
    hasher.write(text);
    hasher.finish128().as_u128()
}

/// The most of a token that is put at once.
const MAX_PIECE: usize = 64;
/// Most tokens are shorter, and so many bytes are one move for the processor.
const SHORT: usize = 16;

/// Hashes tokens in blocks: the hasher is slow at small pieces.
struct Shape<'a> {
    hasher: SipHasher13,
    text: &'a [u8],
    block: [u8; 256],
    filled: usize,
}

impl<'a> Shape<'a> {
    fn new(secret: Secret, text: &'a [u8]) -> Self {
        Shape {
            hasher: SipHasher13::new_with_key(&secret.0),
            text,
            block: [0; 256],
            // One zero: no token begins so, and exact keys begin with another byte.
            filled: 1,
        }
    }

    /// What it is, and a mark of its end.
    #[inline]
    fn token(&mut self, token: Token) {
        match token.kind {
            Kind::Word => self.put(token, <[u8]>::make_ascii_lowercase),
            Kind::Literal(_) => self.put_sign(b'\''),
            Kind::Number => self.put_sign(b'0'),
            Kind::Parameter => self.put_sign(b'$'),
            _ => self.put(token, |_| ()),
        }
        if let Some(slot) = self.block.get_mut(self.filled) {
            *slot = 0;
        }
        self.filled += 1;
    }

    #[inline]
    fn put_sign(&mut self, sign: u8) {
        self.make_room();
        if let Some(slot) = self.block.get_mut(self.filled) {
            *slot = sign;
        }
        self.filled += 1;
    }

    /// The bytes of a token, as `change` makes them.
    #[inline]
    fn put(&mut self, token: Token, change: impl Fn(&mut [u8])) {
        self.make_room();
        let (start, length) = (token.start, token.end - token.start);
        let slots = self.block.get_mut(self.filled..self.filled + SHORT);
        // What stands behind the token is overwritten by what comes next.
        if length <= SHORT
            && let (Some(bytes), Some(slots)) = (self.text.get(start..start + SHORT), slots)
        {
            slots.copy_from_slice(bytes);
            change(slots);
            self.filled += length;
            return;
        }
        let bytes = self.text.get(start..token.end).unwrap_or_default();
        for piece in bytes.chunks(MAX_PIECE) {
            self.make_room();
            let end = self.filled + piece.len();
            if let Some(slots) = self.block.get_mut(self.filled..end) {
                slots.copy_from_slice(piece);
                change(slots);
            }
            self.filled = end;
        }
    }

    /// For a piece and the mark.
    #[inline]
    fn make_room(&mut self) {
        if self.filled + MAX_PIECE >= self.block.len() {
            self.flush();
        }
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
