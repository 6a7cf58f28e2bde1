//! Errors and notices: those that Causeway makes itself, and what it needs to know of those that
//! servers send (manual, section "Error and Notice Message Fields").

use std::ops::Range;

use bytes::BytesMut;
use pgwire::messages::Message;
use pgwire::messages::response::{ErrorResponse, NoticeResponse};

use super::frame::{HEADER, backend, cstring};

/// A five-character error code (manual, appendix "PostgreSQL Error Codes").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SqlState(pub [u8; 5]);

macro_rules! sql_states {
    ($($name:ident = $code:literal),* $(,)?) => {
        impl SqlState {
            $(pub const $name: SqlState = SqlState(*$code);)*
        }
    };
}

sql_states! {
    SUCCESSFUL_COMPLETION = b"00000",
    WARNING = b"01000",
    CONNECTION_FAILURE = b"08006",
    TRANSACTION_RESOLUTION_UNKNOWN = b"08007",
    PROTOCOL_VIOLATION = b"08P01",
    FEATURE_NOT_SUPPORTED = b"0A000",
    INVALID_PARAMETER_VALUE = b"22023",
    ACTIVE_SQL_TRANSACTION = b"25001",
    READ_ONLY_SQL_TRANSACTION = b"25006",
    IN_FAILED_SQL_TRANSACTION = b"25P02",
    INVALID_AUTHORIZATION = b"28000",
    INVALID_PASSWORD = b"28P01",
    INVALID_SQL_STATEMENT_NAME = b"26000",
    SERIALIZATION_FAILURE = b"40001",
    DEADLOCK_DETECTED = b"40P01",
    SYNTAX_ERROR = b"42601",
    UNDEFINED_COLUMN = b"42703",
    UNDEFINED_FUNCTION = b"42883",
    UNDEFINED_OBJECT = b"42704",
    QUERY_CANCELED = b"57014",
    INVALID_SCHEMA_NAME = b"3F000",
    UNDEFINED_TABLE = b"42P01",
    DUPLICATE_PREPARED_STATEMENT = b"42P05",
    TOO_MANY_CONNECTIONS = b"53300",
    PROGRAM_LIMIT_EXCEEDED = b"54000",
    OBJECT_NOT_IN_PREREQUISITE_STATE = b"55000",
    ADMIN_SHUTDOWN = b"57P01",
    CRASH_SHUTDOWN = b"57P02",
    CANNOT_CONNECT_NOW = b"57P03",
    IDLE_SESSION_TIMEOUT = b"57P05",
    INTERNAL_ERROR = b"XX000",
}

impl SqlState {
    /// The class of integrity constraint violations.
    pub const INTEGRITY_CONSTRAINTS: &'static [u8; 2] = b"23";

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("XX000")
    }

    /// Whether the code is of the class with these two characters.
    pub fn in_class(&self, class: &[u8; 2]) -> bool {
        self.0[..2] == class[..]
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The connection ends with it.
    Fatal,
    Error,
    Warning,
}

impl Severity {
    fn as_str(self) -> &'static str {
        match self {
            Severity::Fatal => "FATAL",
            Severity::Error => "ERROR",
            Severity::Warning => "WARNING",
        }
    }
}

/// An error or a notice that Causeway itself makes, in PostgreSQL's form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub severity: Severity,
    pub code: SqlState,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
    routine: Option<&'static str>,
}

impl Fault {
    /// The message is put behind `causeway: `, so that nobody takes it for the server's.
    pub fn new(severity: Severity, code: SqlState, message: impl AsRef<str>) -> Fault {
        Fault {
            severity,
            code,
            message: format!("causeway: {}", message.as_ref()),
            detail: None,
            hint: None,
            routine: None,
        }
    }

    pub fn error(code: SqlState, message: impl AsRef<str>) -> Fault {
        Fault::new(Severity::Error, code, message)
    }

    pub fn fatal(code: SqlState, message: impl AsRef<str>) -> Fault {
        Fault::new(Severity::Fatal, code, message)
    }

    /// A message exactly as PostgreSQL words it, for where clients compare it.
    pub fn verbatim(severity: Severity, code: SqlState, message: impl Into<String>) -> Fault {
        Fault {
            severity,
            code,
            message: message.into(),
            detail: None,
            hint: None,
            routine: None,
        }
    }

    pub fn with_detail(mut self, detail: impl Into<String>) -> Fault {
        self.detail = Some(detail.into());
        self
    }

    pub fn with_hint(mut self, hint: impl Into<String>) -> Fault {
        self.hint = Some(hint.into());
        self
    }

    /// The routine in PostgreSQL's source that gives this error, for where clients look at it.
    pub fn with_routine(mut self, routine: &'static str) -> Fault {
        self.routine = Some(routine);
        self
    }

    /// The same fault, ending the connection.
    pub fn into_fatal(mut self) -> Fault {
        self.severity = Severity::Fatal;
        self
    }

    pub fn message(&self) -> &str {
        &self.message
    }

    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Appends it as an ErrorResponse, or as a NoticeResponse where it is only a warning.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut fields = vec![
            (b'S', self.severity.as_str().to_owned()),
            (b'V', self.severity.as_str().to_owned()),
            (b'C', self.code.as_str().to_owned()),
            (b'M', self.message.clone()),
        ];
        fields.extend(self.detail.iter().map(|detail| (b'D', detail.clone())));
        fields.extend(self.hint.iter().map(|hint| (b'H', hint.clone())));
        fields.extend(self.routine.map(|routine| (b'R', routine.to_owned())));
        for (_, text) in &mut fields {
            text.retain(|letter| letter != '\0');
        }
        let mut bytes = BytesMut::new();
        let encoded = match self.severity {
            Severity::Warning => NoticeResponse::new(fields).encode(&mut bytes),
            Severity::Error | Severity::Fatal => ErrorResponse::new(fields).encode(&mut bytes),
        };
        debug_assert!(encoded.is_ok(), "a fault is far below the length limit");
        out.extend_from_slice(&bytes);
    }
}

/// What a server's ErrorResponse says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorSummary<'a> {
    pub code: SqlState,
    /// FATAL or PANIC: the server is going away.
    pub fatal: bool,
    pub message: &'a [u8],
}

/// Reads an ErrorResponse body, or the beginning of one: the code and the message come early.
pub fn summary(body: &[u8]) -> ErrorSummary<'_> {
    let mut found = ErrorSummary {
        code: SqlState::INTERNAL_ERROR,
        fatal: false,
        message: b"",
    };
    let mut rest = body;
    while let Some((&field, after)) = rest.split_first()
        && field != 0
        && let Some((value, after)) = cstring(after)
    {
        match field {
            b'C' => {
                if let Ok(code) = value.try_into() {
                    found.code = SqlState(code);
                }
            }
            b'V' => found.fatal = value == b"FATAL" || value == b"PANIC",
            b'M' => found.message = value,
            _ => {}
        }
        rest = after;
    }
    found
}

/// The place in the statement's text that an ErrorResponse or a NoticeResponse with this body is about,
/// in characters, counted from 1.
pub fn position(body: &[u8]) -> Option<usize> {
    let digits = &body[position_digits(body)?];
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The message with another such place, if it has one.
pub fn placed(frame: &[u8], position: usize) -> Vec<u8> {
    let body = frame.get(HEADER..).unwrap_or_default();
    let Some(place) = position_digits(body) else {
        return frame.to_vec();
    };
    let mut message = spliced(body, place, position.to_string().as_bytes());
    message[0] = frame[0];
    message
}

fn position_digits(body: &[u8]) -> Option<Range<usize>> {
    let mut at = 0;
    while let Some((&field, after)) = body.get(at..)?.split_first()
        && field != 0
    {
        let (value, _) = cstring(after)?;
        let start = at + 1;
        if field == b'P' {
            return Some(start..start + value.len());
        }
        at = start + value.len() + 1;
    }
    None
}

/// An ErrorResponse with this body, of which `place` is replaced.
pub fn spliced(body: &[u8], place: Range<usize>, other: &[u8]) -> Vec<u8> {
    let before = body.get(..place.start).unwrap_or_default();
    let after = body.get(place.end..).unwrap_or_default();
    let size = size_of::<u32>() + before.len() + other.len() + after.len();
    let mut frame = vec![backend::ERROR_RESPONSE];
    frame.extend((size as u32).to_be_bytes());
    frame.extend([before, other, after].concat());
    frame
}

#[cfg(test)]
mod tests {
    use super::super::frame::Frame;
    use super::*;

    #[test]
    fn a_name_is_replaced_within_an_error() {
        let bytes = spliced(b"C42P05\0Mname \"x_1\" is taken\0\0", 14..17, b"mine");
        let frame = Frame::read(&bytes).unwrap().unwrap();
        assert_eq!((frame.tag, frame.bytes.len()), (b'E', bytes.len()));
        assert_eq!(summary(frame.body()).message, b"name \"mine\" is taken");
    }

    #[test]
    fn a_place_is_replaced_within_an_error_or_a_notice() {
        for tag in [b'E', b'N'] {
            let mut frame = spliced(b"SERROR\0MP9\0P120\0RP\0\0", 0..0, b"");
            frame[0] = tag;
            assert_eq!(position(&frame[HEADER..]), Some(120));
            let other = placed(&frame, 7);
            let read = Frame::read(&other).unwrap().unwrap();
            assert_eq!((read.tag, read.bytes.len()), (tag, other.len()));
            assert_eq!(read.body(), b"SERROR\0MP9\0P7\0RP\0\0");
        }
        for body in [&b""[..], b"P", b"P1", b"Px\0\0", b"\0P1\0", b"M1\0\0"] {
            assert_eq!(position(body), None, "{body:?}");
        }
    }

    #[test]
    fn a_fault_is_read_back_as_it_was_made() {
        let mut bytes = Vec::new();
        Fault::fatal(SqlState::INVALID_PASSWORD, "no\0 entry")
            .with_detail("d")
            .with_hint("h")
            .encode(&mut bytes);
        let frame = Frame::read(&bytes).unwrap().unwrap();
        assert_eq!((frame.tag, frame.bytes.len()), (b'E', bytes.len()));
        assert_eq!(
            summary(frame.body()),
            ErrorSummary {
                code: SqlState::INVALID_PASSWORD,
                fatal: true,
                message: b"causeway: no entry",
            }
        );
    }

    #[test]
    fn a_broken_error_body_is_still_an_error() {
        for body in [&b""[..], b"C", b"C123", b"C123\0", b"SX\0V", b"\0"] {
            assert_eq!(summary(body).code, SqlState::INTERNAL_ERROR, "{body:?}");
        }
    }
}
