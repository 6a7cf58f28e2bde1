//! The messages that Causeway builds: pgwire's encoders for whole messages, and hand-made heads
//! where a name in a relayed message is replaced.

use bytes::{Bytes, BytesMut};
use pgwire::messages::Message;
use pgwire::messages::copy::CopyFail;
use pgwire::messages::data::{NoData, ParameterDescription};
use pgwire::messages::extendedquery::{
    BindComplete, Close, CloseComplete, Execute, Flush, ParseComplete, Sync,
};
use pgwire::messages::response::{CommandComplete, ReadyForQuery, TransactionStatus as Status};
use pgwire::messages::startup::{
    Authentication, BackendKeyData, NegotiateProtocolVersion, ParameterStatus, Password,
    SASLInitialResponse, SASLResponse, SecretKey, Startup,
};
use pgwire::messages::terminate::Terminate;

use super::frame::{backend, frontend};
use super::startup::NEWEST_MINOR;

/// A connection's transaction state, as ReadyForQuery tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionStatus {
    /// `I`: not in a transaction block.
    Idle,
    /// `T`: in a transaction block.
    Transaction,
    /// `E`: in a failed transaction block.
    Failed,
}

impl TransactionStatus {
    /// From a ReadyForQuery body.
    pub fn read(body: &[u8]) -> Option<TransactionStatus> {
        match body {
            b"I" => Some(TransactionStatus::Idle),
            b"T" => Some(TransactionStatus::Transaction),
            b"E" => Some(TransactionStatus::Failed),
            _ => None,
        }
    }
}

/// Appends a message with pgwire's encoder. What is encoded here has a length that the caller
/// bounds, which is all that an encoder can refuse.
fn put(out: &mut Vec<u8>, message: &impl Message) {
    let mut bytes = BytesMut::with_capacity(message.message_length() + 1);
    let encoded = message.encode(&mut bytes);
    debug_assert!(encoded.is_ok(), "encoders refuse only over-long messages");
    out.extend_from_slice(&bytes);
}

pub fn put_authentication_ok(out: &mut Vec<u8>) {
    put(out, &Authentication::Ok);
}

/// Offers SCRAM-SHA-256, the only mechanism.
pub fn put_sasl_offer(out: &mut Vec<u8>) {
    put(
        out,
        &Authentication::SASL(vec![super::scram::MECHANISM.to_owned()]),
    );
}

pub fn put_sasl_continue(out: &mut Vec<u8>, data: &str) {
    put(
        out,
        &Authentication::SASLContinue(Bytes::copy_from_slice(data.as_bytes())),
    );
}

pub fn put_sasl_final(out: &mut Vec<u8>, data: &str) {
    put(
        out,
        &Authentication::SASLFinal(Bytes::copy_from_slice(data.as_bytes())),
    );
}

pub fn put_parameter_status(out: &mut Vec<u8>, name: &str, value: &str) {
    put(
        out,
        &ParameterStatus::new(name.to_owned(), value.to_owned()),
    );
}

/// `secret` has 4 bytes for protocol 3.0, and up to 256 from 3.2 on.
pub fn put_backend_key_data(out: &mut Vec<u8>, pid: u32, secret: &[u8]) {
    let secret = SecretKey::Bytes(Bytes::copy_from_slice(secret));
    put(out, &BackendKeyData::new(pid as i32, secret));
}

/// Tells a client the newest minor version and the options that are not known.
pub fn put_negotiate_protocol_version(out: &mut Vec<u8>, unknown_options: &[String]) {
    let newest = 3 << 16 | i32::from(NEWEST_MINOR);
    put(
        out,
        &NegotiateProtocolVersion::new(newest, unknown_options.to_vec()),
    );
}

pub fn put_ready_for_query(out: &mut Vec<u8>, status: TransactionStatus) {
    let status = match status {
        TransactionStatus::Idle => Status::Idle,
        TransactionStatus::Transaction => Status::Transaction,
        TransactionStatus::Failed => Status::Error,
    };
    put(out, &ReadyForQuery::new(status));
}

pub fn put_command_complete(out: &mut Vec<u8>, tag: &str) {
    put(out, &CommandComplete::new(tag.to_owned()));
}

pub fn put_parse_complete(out: &mut Vec<u8>) {
    put(out, &ParseComplete::new());
}

pub fn put_bind_complete(out: &mut Vec<u8>) {
    put(out, &BindComplete::new());
}

/// There are no parameters.
pub fn put_no_parameters(out: &mut Vec<u8>) {
    put(out, &ParameterDescription::new(Vec::new()));
}

pub fn put_no_data(out: &mut Vec<u8>) {
    put(out, &NoData::new());
}

pub fn put_close_complete(out: &mut Vec<u8>) {
    put(out, &CloseComplete::new());
}

pub fn put_startup(out: &mut Vec<u8>, parameters: &[(&str, &str)]) {
    let mut startup = Startup::new();
    let owned = parameters
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_string()));
    startup.parameters.extend(owned);
    put(out, &startup);
}

pub fn put_password(out: &mut Vec<u8>, password: &str) {
    put(out, &Password::new(password.to_owned()));
}

pub fn put_sasl_initial_response(out: &mut Vec<u8>, data: &str) {
    let data = Bytes::copy_from_slice(data.as_bytes());
    put(
        out,
        &SASLInitialResponse::new(super::scram::MECHANISM.to_owned(), Some(data)),
    );
}

pub fn put_sasl_response(out: &mut Vec<u8>, data: &str) {
    put(
        out,
        &SASLResponse::new(Bytes::copy_from_slice(data.as_bytes())),
    );
}

/// A Query of `sql`, in whatever encoding.
pub fn put_query(out: &mut Vec<u8>, sql: impl AsRef<[u8]>) {
    let sql = sql.as_ref();
    out.push(frontend::QUERY);
    put_length(out, sql.len() + 1);
    put_cstring(out, sql);
}

pub fn put_sync(out: &mut Vec<u8>) {
    put(out, &Sync::new());
}

pub fn put_flush(out: &mut Vec<u8>) {
    put(out, &Flush::new());
}

pub fn put_terminate(out: &mut Vec<u8>) {
    put(out, &Terminate::new());
}

pub fn put_close_statement(out: &mut Vec<u8>, name: &str) {
    put(out, &Close::new(b'S', Some(name.to_owned())));
}

pub fn put_copy_fail(out: &mut Vec<u8>, message: &str) {
    put(out, &CopyFail::new(message.to_owned()));
}

/// A CancelRequest for the server process `pid`.
pub fn put_cancel_request(out: &mut Vec<u8>, pid: u32, secret: &[u8]) {
    out.extend_from_slice(&(12 + secret.len() as u32).to_be_bytes());
    out.extend_from_slice(&super::startup::CANCEL_REQUEST.to_be_bytes());
    out.extend_from_slice(&pid.to_be_bytes());
    out.extend_from_slice(secret);
}

/// An SSLRequest.
pub fn put_ssl_request(out: &mut Vec<u8>) {
    put(out, &pgwire::messages::startup::SslRequest::new());
}

/// The object identifier of `pg_current_wal_insert_lsn()` in `pg_proc`, the same in every
/// supported version.
const CURRENT_WAL_INSERT_LSN: u32 = 2852;

/// As above, of `txid_current_if_assigned()`.
const TXID_CURRENT_IF_ASSIGNED: u32 = 3348;

/// A FunctionCall of `pg_current_wal_insert_lsn()`.
pub const CAPTURE: [u8; 15] = function_call(CURRENT_WAL_INSERT_LSN);

/// A FunctionCall of `txid_current_if_assigned()`.
pub const ASK_NUMBER: [u8; 15] = function_call(TXID_CURRENT_IF_ASSIGNED);

/// A FunctionCall without arguments and with a binary result: a transaction of its own,
/// with no text to parse and nothing to plan (manual, section "Function Call").
const fn function_call(oid: u32) -> [u8; 15] {
    let oid = oid.to_be_bytes();
    [
        frontend::FUNCTION_CALL,
        0,
        0,
        0,
        14,
        oid[0],
        oid[1],
        oid[2],
        oid[3],
        0,
        0, // no argument formats
        0,
        0, // no arguments
        0,
        1, // binary result
    ]
}

/// Reads a FunctionCallResponse body that answers [`CAPTURE`].
pub fn captured_lsn(body: &[u8]) -> Option<u64> {
    let (length, value) = body.split_first_chunk::<4>()?;
    let value: [u8; 8] = value.try_into().ok()?;
    (u32::from_be_bytes(*length) == 8).then(|| u64::from_be_bytes(value))
}

/// A Parse message of `definition` (text, terminator, types) under another name.
pub fn put_parse(out: &mut Vec<u8>, name: &[u8], definition: &[u8]) {
    out.push(frontend::PARSE);
    put_length(out, name.len() + 1 + definition.len());
    put_cstring(out, name);
    out.extend_from_slice(definition);
}

/// The beginning of a Bind message: `rest_size` bytes follow behind the names.
pub fn put_bind_head(out: &mut Vec<u8>, portal: &[u8], statement: &[u8], rest_size: usize) {
    out.push(frontend::BIND);
    put_length(out, portal.len() + 1 + statement.len() + 1 + rest_size);
    put_cstring(out, portal);
    put_cstring(out, statement);
}

/// A Bind without parameters.
pub fn put_bind(out: &mut Vec<u8>, portal: &str, statement: &str) {
    // No formats of parameters, no parameters, no formats of results.
    const REST: [u8; 6] = [0; 6];
    put_bind_head(out, portal.as_bytes(), statement.as_bytes(), REST.len());
    out.extend_from_slice(&REST);
}

/// An Execute of all rows.
pub fn put_execute(out: &mut Vec<u8>, portal: &str) {
    put(out, &Execute::new(Some(portal.to_owned()), 0));
}

pub fn put_close_portal(out: &mut Vec<u8>, name: &str) {
    put(out, &Close::new(b'P', Some(name.to_owned())));
}

/// A Describe of a statement.
pub fn put_describe_statement(out: &mut Vec<u8>, name: &[u8]) {
    out.push(frontend::DESCRIBE);
    put_length(out, 1 + name.len() + 1);
    out.push(b'S');
    put_cstring(out, name);
}

fn put_length(out: &mut Vec<u8>, body: usize) {
    out.extend_from_slice(&(body as u32 + 4).to_be_bytes());
}

fn put_cstring(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(text);
    out.push(0);
}

/// A result of one text column and one row, as SHOW gives it.
pub fn put_text_result(out: &mut Vec<u8>, column: &str, value: &str, tag: &str) {
    use pgwire::messages::data::{FieldDescription, RowDescription};
    const TEXT: u32 = 25;
    let field = FieldDescription::new(column.to_owned(), 0, 0, TEXT, -1, -1, 0);
    put(out, &RowDescription::new(vec![field]));
    put_text_row(out, value);
    put_command_complete(out, tag);
}

/// A row of one text column.
pub fn put_text_row(out: &mut Vec<u8>, value: &str) {
    let mut data = BytesMut::new();
    data.extend_from_slice(&(value.len() as u32).to_be_bytes());
    data.extend_from_slice(value.as_bytes());
    put(out, &pgwire::messages::data::DataRow::new(data, 1));
}

/// Whether a backend message begins to show a result, so that it can no longer be taken back.
pub fn shows_result(tag: u8) -> bool {
    !matches!(
        tag,
        backend::PARSE_COMPLETE
            | backend::BIND_COMPLETE
            | backend::CLOSE_COMPLETE
            | backend::PARAMETER_DESCRIPTION
            | backend::ROW_DESCRIPTION
            | backend::NO_DATA
    )
}

#[cfg(test)]
mod tests {
    use super::super::frame::{Frame, bind_parts, parse_parts};
    use super::*;

    #[test]
    fn rewritten_heads_make_whole_messages() {
        let mut out = Vec::new();
        put_parse(&mut out, b"causeway_1", b"select $1\0\0\x01\0\0\0\x17");
        let frame = Frame::read(&out).unwrap().unwrap();
        assert_eq!(frame.bytes.len(), out.len());
        assert_eq!(parse_parts(frame.body()).unwrap().name, b"causeway_1");

        let mut out = Vec::new();
        put_bind_head(&mut out, b"p", b"s", 6);
        out.extend_from_slice(&[0; 6]);
        let frame = Frame::read(&out).unwrap().unwrap();
        assert_eq!(frame.bytes.len(), out.len());
        assert_eq!(
            bind_parts(frame.body()),
            Some((&b"p"[..], &b"s"[..], &[0u8; 6][..]))
        );
    }

    #[test]
    fn a_capture_is_read_from_eight_bytes_only() {
        let mut body = 8u32.to_be_bytes().to_vec();
        body.extend(0x16_B374_D848u64.to_be_bytes());
        assert_eq!(captured_lsn(&body), Some(0x16_B374_D848));
        assert_eq!(captured_lsn(&body[..11]), None);
        assert_eq!(captured_lsn(&[255; 4]), None);
        assert_eq!(captured_lsn(b""), None);
    }
}
