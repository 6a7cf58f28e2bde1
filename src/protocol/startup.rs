//! The first packet of a connection: a start-up message, a request for encryption, a cancel
//! request, or something that is not PostgreSQL at all (manual, sections "Start-up" and
//! "Message Formats").

use pgwire::messages::startup::{GssEncRequest, SslRequest};

use super::frame::cstring;

/// A first packet may have so many bytes (PostgreSQL's own limit, `MAX_STARTUP_PACKET_LENGTH`).
pub const MAX_STARTUP_PACKET: usize = 10_000;

/// The newest protocol that is spoken: 3.2.
pub const NEWEST_MINOR: u16 = 2;

/// What a connection wants, told by its first packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirstPacket {
    SslRequest,
    GssEncRequest,
    Cancel { pid: u32, secret: Vec<u8> },
    Startup(Startup),
}

/// A start-up message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Startup {
    /// The minor protocol version asked for; the major one is 3.
    pub minor: u16,
    /// Names and values in the order sent, without `_pq_.` options.
    pub parameters: Vec<(String, String)>,
    /// Names of `_pq_.` protocol options, none of which is known.
    pub protocol_options: Vec<String>,
}

impl Startup {
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.parameters.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// Why a first packet was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadStartup {
    #[error("an HTTP request was sent to the PostgreSQL port")]
    Http,
    #[error("a TLS handshake was sent, but TLS is not configured")]
    UnexpectedTls,
    #[error("invalid length of startup packet")]
    Length,
    #[error("unsupported frontend protocol {major}.{minor}: Causeway supports 3.0 to 3.2")]
    Protocol { major: u16, minor: u16 },
    #[error("invalid startup packet layout: {0}")]
    Layout(&'static str),
}

/// A TLS ClientHello at the start of a connection ("direct TLS").
pub fn begins_with_tls(bytes: &[u8]) -> bool {
    bytes.first() == Some(&0x16)
}

/// Reads the first packet; `None` when more bytes are needed. On success also tells its length.
pub fn first_packet(bytes: &[u8]) -> Result<Option<(FirstPacket, usize)>, BadStartup> {
    if begins_with_tls(bytes) {
        return Err(BadStartup::UnexpectedTls);
    }
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else {
        return Ok(None);
    };
    if [
        b"GET ", b"POST", b"HEAD", b"PUT ", b"OPTI", b"DELE", b"PRI ",
    ]
    .contains(&length)
    {
        return Err(BadStartup::Http);
    }
    let length = u32::from_be_bytes(*length) as usize;
    if !(8..=MAX_STARTUP_PACKET).contains(&length) {
        return Err(BadStartup::Length);
    }
    let Some(body) = rest.get(..length - 4) else {
        return Ok(None);
    };
    Ok(Some((read_body(body)?, length)))
}

fn read_body(body: &[u8]) -> Result<FirstPacket, BadStartup> {
    let (&code, rest) = body.split_first_chunk::<4>().ok_or(BadStartup::Length)?;
    match i32::from_be_bytes(code) {
        SslRequest::BODY_MAGIC_NUMBER => Ok(FirstPacket::SslRequest),
        GssEncRequest::BODY_MAGIC_NUMBER => Ok(FirstPacket::GssEncRequest),
        CANCEL_REQUEST => {
            let (&pid, secret) = rest.split_first_chunk().ok_or(BadStartup::Length)?;
            if secret.is_empty() || secret.len() > 256 {
                return Err(BadStartup::Length);
            }
            Ok(FirstPacket::Cancel {
                pid: u32::from_be_bytes(pid),
                secret: secret.to_vec(),
            })
        }
        _ => {
            let (major, minor) = (
                u16::from_be_bytes([code[0], code[1]]),
                u16::from_be_bytes([code[2], code[3]]),
            );
            if major != 3 {
                return Err(BadStartup::Protocol { major, minor });
            }
            read_parameters(minor, rest).map(FirstPacket::Startup)
        }
    }
}

/// The code of a CancelRequest, 1234 and 5678 in the two halves.
pub const CANCEL_REQUEST: i32 = 80_877_102;

fn read_parameters(minor: u16, mut rest: &[u8]) -> Result<Startup, BadStartup> {
    let mut startup = Startup {
        minor,
        parameters: Vec::new(),
        protocol_options: Vec::new(),
    };
    loop {
        let (name, after) =
            cstring(rest).ok_or(BadStartup::Layout("no terminator as last byte"))?;
        if name.is_empty() {
            if !after.is_empty() {
                return Err(BadStartup::Layout("bytes after the terminator"));
            }
            return Ok(startup);
        }
        let (value, after) = cstring(after).ok_or(BadStartup::Layout("a name without a value"))?;
        let text = |bytes: &[u8]| {
            let text = std::str::from_utf8(bytes);
            text.map(str::to_owned)
                .map_err(|_| BadStartup::Layout("a parameter is not UTF-8"))
        };
        let (name, value) = (text(name)?, text(value)?);
        if name.starts_with("_pq_.") {
            startup.protocol_options.push(name);
        } else {
            startup.parameters.push((name, value));
        }
        rest = after;
    }
}

/// Splits the `options` parameter as PostgreSQL does: at white space that no backslash escapes,
/// then reads `-c name=value`, `-cname=value` and `--name=value`. `Err` is the first word that is
/// none of these.
pub fn option_settings(options: &str) -> Result<Vec<(String, String)>, String> {
    let mut words = option_words(options).into_iter();
    let mut settings = Vec::new();
    while let Some(word) = words.next() {
        let assignment = if word == "-c" {
            words.next().ok_or_else(|| word.clone())?
        } else if let Some(rest) = word.strip_prefix("--") {
            rest.to_owned()
        } else if let Some(rest) = word.strip_prefix("-c") {
            rest.to_owned()
        } else {
            return Err(word);
        };
        let (name, value) = assignment.split_once('=').ok_or(word)?;
        settings.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(settings)
}

fn option_words(options: &str) -> Vec<String> {
    let mut words = vec![];
    let mut word = String::new();
    let mut letters = options.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => word.extend(letters.next()),
            blank if blank.is_ascii_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            other => word.push(other),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(code: i32, rest: &[u8]) -> Vec<u8> {
        let mut bytes = (8 + rest.len() as i32).to_be_bytes().to_vec();
        bytes.extend(code.to_be_bytes());
        bytes.extend(rest);
        bytes
    }

    #[test]
    fn every_kind_of_first_packet_is_told_apart() {
        let startup = packet(0x3_0002, b"user\0u\0_pq_.x\0one\0database\0d\0\0");
        let expected = Startup {
            minor: 2,
            parameters: vec![("user".into(), "u".into()), ("database".into(), "d".into())],
            protocol_options: vec!["_pq_.x".into()],
        };
        let cancel = FirstPacket::Cancel {
            pid: 7,
            secret: vec![1, 2, 3, 4],
        };
        let table: [(Vec<u8>, FirstPacket); 4] = [
            (packet(80877103, b""), FirstPacket::SslRequest),
            (packet(80877104, b""), FirstPacket::GssEncRequest),
            (packet(80877102, &[0, 0, 0, 7, 1, 2, 3, 4]), cancel),
            (startup, FirstPacket::Startup(expected)),
        ];
        for (bytes, kind) in table {
            assert_eq!(first_packet(&bytes), Ok(Some((kind, bytes.len()))));
            for cut in 0..bytes.len() {
                assert_eq!(first_packet(&bytes[..cut]), Ok(None), "cut at {cut}");
            }
        }
    }

    #[test]
    fn what_is_not_a_start_up_packet_is_named() {
        let table: [(&[u8], BadStartup); 8] = [
            (b"GET / HTTP/1.1\r\n", BadStartup::Http),
            (b"\x16\x03\x01", BadStartup::UnexpectedTls),
            (b"\0\0\0\x07", BadStartup::Length),
            (b"\xff\xff\xff\xff", BadStartup::Length),
            (
                &packet(0x2_0000, b""),
                BadStartup::Protocol { major: 2, minor: 0 },
            ),
            (
                &packet(0x3_0000, b"user\0u\0"),
                BadStartup::Layout("no terminator as last byte"),
            ),
            (
                &packet(0x3_0000, b"user\0\xff\0\0"),
                BadStartup::Layout("a parameter is not UTF-8"),
            ),
            (
                &packet(0x3_0000, b"\0x"),
                BadStartup::Layout("bytes after the terminator"),
            ),
        ];
        for (bytes, error) in table {
            assert_eq!(first_packet(bytes), Err(error), "{bytes:?}");
        }
    }

    #[test]
    fn options_are_split_as_postgres_does() {
        let read = option_settings(r"-c geqo=off --statement-timeout=5s  -cx.y=a\ b\\c").unwrap();
        let expected = [
            ("geqo", "off"),
            ("statement_timeout", "5s"),
            ("x.y", r"a b\c"),
        ];
        assert_eq!(
            read,
            expected.map(|(name, value)| (name.into(), value.into()))
        );
        for bad in ["-c", "-c geqo", "geqo=off", "--x"] {
            assert!(option_settings(bad).is_err(), "{bad}");
        }
    }
}
