//! Frames: the type byte and the length that begin every message after the start-up phase, and
//! the few places inside of a message that the relay looks at.

use std::hash::{DefaultHasher, Hasher};
use std::num::NonZeroU64;

/// Bytes before a message's body: the type and the length.
pub const HEADER: usize = 5;

/// Frontend message types (manual, section "Message Formats").
pub mod frontend {
    pub const BIND: u8 = b'B';
    pub const CLOSE: u8 = b'C';
    pub const COPY_DATA: u8 = b'd';
    pub const COPY_DONE: u8 = b'c';
    pub const COPY_FAIL: u8 = b'f';
    pub const DESCRIBE: u8 = b'D';
    pub const EXECUTE: u8 = b'E';
    pub const FLUSH: u8 = b'H';
    pub const FUNCTION_CALL: u8 = b'F';
    pub const PARSE: u8 = b'P';
    pub const PASSWORD: u8 = b'p';
    pub const QUERY: u8 = b'Q';
    pub const SYNC: u8 = b'S';
    pub const TERMINATE: u8 = b'X';
}

/// Backend message types (manual, section "Message Formats").
pub mod backend {
    pub const AUTHENTICATION: u8 = b'R';
    pub const BACKEND_KEY_DATA: u8 = b'K';
    pub const BIND_COMPLETE: u8 = b'2';
    pub const CLOSE_COMPLETE: u8 = b'3';
    pub const COMMAND_COMPLETE: u8 = b'C';
    pub const COPY_BOTH_RESPONSE: u8 = b'W';
    pub const COPY_IN_RESPONSE: u8 = b'G';
    pub const COPY_OUT_RESPONSE: u8 = b'H';
    pub const DATA_ROW: u8 = b'D';
    pub const EMPTY_QUERY_RESPONSE: u8 = b'I';
    pub const ERROR_RESPONSE: u8 = b'E';
    pub const FUNCTION_CALL_RESPONSE: u8 = b'V';
    pub const NEGOTIATE_PROTOCOL_VERSION: u8 = b'v';
    pub const NOTICE_RESPONSE: u8 = b'N';
    pub const NOTIFICATION_RESPONSE: u8 = b'A';
    pub const NO_DATA: u8 = b'n';
    pub const PARAMETER_DESCRIPTION: u8 = b't';
    pub const PARAMETER_STATUS: u8 = b'S';
    pub const PARSE_COMPLETE: u8 = b'1';
    pub const PORTAL_SUSPENDED: u8 = b's';
    pub const READY_FOR_QUERY: u8 = b'Z';
    pub const ROW_DESCRIPTION: u8 = b'T';
}

/// A length field below four: the sender is not speaking the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid message length {length} for message type {:?}", char::from(*tag))]
pub struct InvalidLength {
    pub tag: u8,
    pub length: u32,
}

/// The first five bytes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub tag: u8,
    /// Bytes of the whole message: header and body.
    pub size: usize,
}

impl Header {
    /// Reads the header at the start of `bytes`; `None` when fewer than five are there.
    pub fn read(bytes: &[u8]) -> Result<Option<Header>, InvalidLength> {
        let Some((&[tag, a, b, c, d], _)) = bytes.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([a, b, c, d]);
        if !(4..=i32::MAX as u32).contains(&length) {
            return Err(InvalidLength { tag, length });
        }
        Ok(Some(Header {
            tag,
            size: length as usize + 1,
        }))
    }
}

/// A message that lies whole in a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub tag: u8,
    /// Header and body.
    pub bytes: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The message at the start of `bytes`, if all of it is there.
    pub fn read(bytes: &'a [u8]) -> Result<Option<Frame<'a>>, InvalidLength> {
        let Some(header) = Header::read(bytes)? else {
            return Ok(None);
        };
        Ok(bytes.get(..header.size).map(|bytes| Frame {
            tag: header.tag,
            bytes,
        }))
    }

    pub fn body(&self) -> &'a [u8] {
        self.bytes.get(HEADER..).unwrap_or_default()
    }
}

/// The whole messages in `bytes`, in order; stops silently at one that is not whole or not valid.
pub fn frames(bytes: &[u8]) -> impl Iterator<Item = Frame<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let frame = Frame::read(rest).ok().flatten()?;
        rest = &rest[frame.bytes.len()..];
        Some(frame)
    })
}

/// Splits a zero-terminated string off the front of `bytes`.
pub fn cstring(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(0, bytes)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

/// A Parse message's parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseParts<'a> {
    pub name: &'a [u8],
    pub text: &'a [u8],
    /// Text, its terminator, and the parameter types: what makes two statements the same.
    pub definition: &'a [u8],
}

/// Reads a Parse body: name, query, parameter types.
pub fn parse_parts(body: &[u8]) -> Option<ParseParts<'_>> {
    let (name, definition) = cstring(body)?;
    let (text, types) = cstring(definition)?;
    let (count, types) = types.split_first_chunk::<2>()?;
    let whole = types.len() == usize::from(u16::from_be_bytes(*count)) * 4;
    whole.then_some(ParseParts {
        name,
        text,
        definition,
    })
}

/// Reads the head of a Bind body: portal, statement, and what follows them.
pub fn bind_parts(body: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (portal, rest) = cstring(body)?;
    let (statement, rest) = cstring(rest)?;
    Some((portal, statement, rest))
}

/// The columns of a result, as far as a prepared statement must keep them: names, types and type
/// modifiers. Two that differ have different numbers, but for a chance of one in 2^64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape(NonZeroU64);

impl Shape {
    /// Of a statement that returns no rows.
    pub const NONE: Shape = Shape(NonZeroU64::MIN);

    /// Reads a RowDescription body.
    pub fn read(body: &[u8]) -> Option<Shape> {
        let mut hasher = DefaultHasher::new();
        let (count, mut rest) = body.split_first_chunk()?;
        for _ in 0..u16::from_be_bytes(*count) {
            let (name, column) = cstring(rest)?;
            // Table (4), column (2), type (4), its size (2), its modifier (4), format (2).
            let (column, others) = column.split_first_chunk::<18>()?;
            hasher.write(name);
            hasher.write(&column[6..16]);
            rest = others;
        }
        Some(Shape(NonZeroU64::MIN | hasher.finish()))
    }

    pub fn number(self) -> u64 {
        self.0.get()
    }

    /// The shape with this number; 0 is none.
    pub fn from_number(number: u64) -> Option<Shape> {
        NonZeroU64::new(number).map(Shape)
    }
}

/// The value of a parameter of a Bind, counted from 1; `rest` is what follows the names. The outer `None`:
/// it is not there; the inner: NULL.
pub fn bound_value(rest: &[u8], parameter: u16) -> Option<Option<&[u8]>> {
    let (formats, rest) = rest.split_first_chunk::<2>()?;
    let formats = usize::from(u16::from_be_bytes(*formats));
    let rest = rest.get(formats * 2..)?;
    let (count, mut rest) = rest.split_first_chunk::<2>()?;
    if parameter == 0 || parameter > u16::from_be_bytes(*count) {
        return None;
    }
    for place in 1..=parameter {
        let (length, behind) = rest.split_first_chunk::<4>()?;
        let length = i32::from_be_bytes(*length);
        let value = match usize::try_from(length) {
            Ok(length) => Some(behind.get(..length)?),
            Err(_) => None,
        };
        if place == parameter {
            return Some(value);
        }
        rest = &behind[value.map_or(0, <[u8]>::len)..];
    }
    None
}

/// The type that a Parse declares for a parameter, counted from 1; `types` is what follows its text.
pub fn declared_type(types: &[u8], parameter: u16) -> Option<u32> {
    let (_, types) = types.split_first_chunk::<2>()?;
    let place = usize::from(parameter.checked_sub(1)?) * 4;
    let oid = types.get(place..)?.first_chunk::<4>()?;
    Some(u32::from_be_bytes(*oid))
}

/// What a Describe or Close is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    Statement(&'a [u8]),
    Portal(&'a [u8]),
}

/// Reads a Describe or Close body.
pub fn target(body: &[u8]) -> Option<Target<'_>> {
    let (&kind, rest) = body.split_first()?;
    let (name, _) = cstring(rest)?;
    match kind {
        b'S' => Some(Target::Statement(name)),
        b'P' => Some(Target::Portal(name)),
        _ => None,
    }
}

/// Reads an Execute body: the portal, and how many rows it is to give; 0 is all.
pub fn execute_parts(body: &[u8]) -> Option<(&[u8], u32)> {
    let (portal, rest) = cstring(body)?;
    let rows = rest.first_chunk::<4>()?;
    Some((portal, u32::from_be_bytes(*rows)))
}

/// Reads a ParameterStatus body: name and value.
pub fn parameter_status(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let (name, rest) = cstring(body)?;
    let (value, _) = cstring(rest)?;
    Some((name, value))
}

/// The value of a DataRow body of one column; none if that is null.
pub fn single_value(body: &[u8]) -> Option<&[u8]> {
    let (count, rest) = body.split_first_chunk::<2>()?;
    let (length, value) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(i32::from_be_bytes(*length)).ok()?;
    (u16::from_be_bytes(*count) == 1 && length == value.len()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_value_is_found_by_its_number() {
        let formats_and_count = [0, 1, 0, 0, 0, 3];
        let values = b"\0\0\0\x02ab\xff\xff\xff\xff\0\0\0\0";
        let rest = [&formats_and_count[..], values, &[0, 0]].concat();
        let table = [(0, None), (1, Some(Some(&b"ab"[..]))), (2, Some(None))];
        for (parameter, expected) in table {
            assert_eq!(bound_value(&rest, parameter), expected, "{parameter}");
        }
        assert_eq!(bound_value(&rest, 3), Some(Some(&b""[..])));
        assert_eq!(bound_value(&rest, 4), None);
        // Wherever it is cut, it is there as a whole or not at all.
        for end in 0..rest.len() {
            let cut = bound_value(&rest[..end], 1);
            assert!(cut.is_none() || cut == Some(Some(b"ab")), "{end}");
            assert!(matches!(
                bound_value(&rest[..end], 3),
                None | Some(Some(b""))
            ));
        }
        assert_eq!(bound_value(b"\xff\xff", 1), None);
        let types = [0, 2, 0, 0, 0, 25, 0, 0, 4, 19];
        let found: Vec<_> = (0..4).map(|place| declared_type(&types, place)).collect();
        assert_eq!(found, [None, Some(25), Some(1043), None]);
        assert_eq!(declared_type(b"", 1), None);
    }

    #[test]
    fn a_header_needs_five_bytes_and_a_sane_length() {
        assert_eq!(Header::read(b"Q\0\0\0"), Ok(None));
        assert_eq!(
            Header::read(b"Q\0\0\0\x04"),
            Ok(Some(Header { tag: b'Q', size: 5 }))
        );
        assert_eq!(
            Header::read(b"Q\0\0\0\x03"),
            Err(InvalidLength {
                tag: b'Q',
                length: 3
            })
        );
        assert!(Header::read(b"Q\xff\xff\xff\xff").is_err());
    }

    #[test]
    fn frames_stop_at_the_first_that_is_not_whole() {
        let bytes = b"S\0\0\0\x04H\0\0\0\x04Q\0\0\0\x08ab";
        let tags: Vec<u8> = frames(bytes).map(|frame| frame.tag).collect();
        assert_eq!(tags, b"SH");
    }

    #[test]
    fn parts_are_refused_when_they_do_not_add_up() {
        let parts = parse_parts(b"s\0select 1\0\0\x01\0\0\0\x17").unwrap();
        assert_eq!((parts.name, parts.text), (&b"s"[..], &b"select 1"[..]));
        for bad in [
            &b"s"[..],
            b"s\0select",
            b"s\0q\0",
            b"s\0q\0\0\x01",
            b"s\0q\0\0\0x",
        ] {
            assert_eq!(parse_parts(bad), None, "{bad:?}");
        }
        assert_eq!(
            bind_parts(b"p\0s\0\0\0"),
            Some((&b"p"[..], &b"s"[..], &b"\0\0"[..]))
        );
        assert_eq!(bind_parts(b"p\0s"), None);
        assert_eq!(target(b"Sx\0"), Some(Target::Statement(b"x")));
        assert_eq!(target(b"Px\0"), Some(Target::Portal(b"x")));
        for bad in [&b""[..], b"S", b"Sx", b"Qx\0"] {
            assert_eq!(target(bad), None, "{bad:?}");
        }
    }
}
