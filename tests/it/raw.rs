//! A client that speaks the bare protocol: it sends what it is told, in the pieces that it is
//! told, and shows what comes back message by message.

use std::fmt;
use std::net::SocketAddr;

use causeway::lab::PASSWORD;
use causeway::protocol::frame::{HEADER, Header, backend, cstring, frontend, parameter_status};
use causeway::protocol::message;
use causeway::protocol::scram::{ClientExchange, Finishing, Keys};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::front::PATIENCE;

/// One backend message.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    pub tag: u8,
    pub body: Vec<u8>,
}

/// Any byte stream.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// A connection.
pub struct Raw {
    stream: Box<dyn Duplex>,
    input: Vec<u8>,
    /// What the log-in told: the cancel key.
    pub pid: u32,
    pub secret: Vec<u8>,
}

impl Raw {
    pub async fn connect(address: SocketAddr) -> Raw {
        Raw::over(TcpStream::connect(address).await.unwrap())
    }

    pub fn over(stream: impl Duplex + 'static) -> Raw {
        Raw {
            stream: Box::new(stream),
            input: Vec::new(),
            pid: 0,
            secret: Vec::new(),
        }
    }

    /// Logs in with the labs' password.
    pub async fn log_in(address: SocketAddr, user: &str, database: &str) -> Raw {
        let mut raw = Raw::connect(address).await;
        let parameters = [("user", user), ("database", database)];
        let greeting = raw.start(3 << 16, &parameters, PASSWORD).await;
        assert_eq!(last(&greeting), "Z(I)", "{greeting:?}");
        raw
    }

    /// Start-up message and authentication; what came back, up to ReadyForQuery, an error or the end.
    pub async fn start(
        &mut self,
        version: i32,
        parameters: &[(&str, &str)],
        password: &str,
    ) -> Vec<Message> {
        self.send(&startup(version, parameters)).await;
        self.authenticate(password).await
    }

    /// The client's side of an authentication.
    pub async fn authenticate(&mut self, password: &str) -> Vec<Message> {
        let mut seen = Vec::new();
        let mut exchange = Some(ClientExchange::new("rawclientnonce".to_owned()));
        let mut finishing: Option<Finishing> = None;
        while let Some(message) = self.next().await {
            let mut out = Vec::new();
            match (message.tag, message.body.first_chunk::<4>()) {
                (backend::AUTHENTICATION, Some([0, 0, 0, 10])) => {
                    let first = exchange.as_ref().unwrap().client_first();
                    message::put_sasl_initial_response(&mut out, &first);
                }
                (backend::AUTHENTICATION, Some([0, 0, 0, 11])) => {
                    let exchange = exchange.take().unwrap();
                    let challenge = exchange.challenge(&message.body[4..]).unwrap();
                    let keys = Keys::derive(password, &challenge.salt, challenge.iterations);
                    let (response, rest) = exchange.respond(&challenge, &keys);
                    finishing = Some(rest);
                    message::put_sasl_response(&mut out, &response);
                }
                (backend::AUTHENTICATION, Some([0, 0, 0, 12])) => {
                    finishing
                        .take()
                        .unwrap()
                        .verify(&message.body[4..])
                        .unwrap();
                }
                (backend::BACKEND_KEY_DATA, Some(pid)) => {
                    self.pid = u32::from_be_bytes(*pid);
                    self.secret = message.body[4..].to_vec();
                }
                _ => {}
            }
            let ends = [backend::READY_FOR_QUERY, backend::ERROR_RESPONSE].contains(&message.tag);
            seen.push(message);
            if ends {
                break;
            }
            if !out.is_empty() {
                self.send(&out).await;
            }
        }
        seen
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).await.unwrap();
    }

    /// Sends what may reach nobody any more.
    pub async fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// The next message; none at the end of the stream.
    pub async fn next(&mut self) -> Option<Message> {
        let next = timeout(PATIENCE * 2, self.read());
        next.await
            .unwrap_or_else(|_| panic!("no answer; unread: {:?}", self.input))
    }

    async fn read(&mut self) -> Option<Message> {
        loop {
            if let Some(header) = Header::read(&self.input).unwrap()
                && self.input.len() >= header.size
            {
                let rest = self.input.split_off(header.size);
                let whole = std::mem::replace(&mut self.input, rest);
                return Some(Message {
                    tag: header.tag,
                    body: whole[HEADER..].to_vec(),
                });
            }
            // A connection that is closed with input unread is reset.
            match self.stream.read_buf(&mut self.input).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return None,
            }
        }
    }

    /// Messages up to and with the `count`th of type `tag`.
    pub async fn until(&mut self, tag: u8, count: usize) -> Vec<Message> {
        let mut seen = Vec::new();
        let mut left = count;
        while left > 0 {
            let message = self.next().await;
            let message = message.unwrap_or_else(|| panic!("closed after {seen:?}"));
            left -= usize::from(message.tag == tag);
            seen.push(message);
        }
        seen
    }

    /// Messages up to and with the next ReadyForQuery.
    pub async fn until_ready(&mut self) -> Vec<Message> {
        self.until(backend::READY_FOR_QUERY, 1).await
    }

    /// Everything up to the end of the stream.
    pub async fn until_closed(&mut self) -> Vec<Message> {
        let mut seen = Vec::new();
        while let Some(message) = self.next().await {
            seen.push(message);
        }
        seen
    }

    /// The bytes up to the end of the stream, whatever they are.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.input);
        let end = timeout(PATIENCE, self.stream.read_to_end(&mut bytes)).await;
        // A connection that is closed with input unread is reset.
        let _ = end.expect("the connection stays open");
        bytes
    }

    /// One byte that is no message: the answer to SSLRequest or GSSENCRequest.
    pub async fn byte(&mut self) -> u8 {
        let byte = timeout(PATIENCE, self.stream.read_u8()).await;
        byte.expect("no answer").unwrap()
    }

    /// A simple query and its answer.
    pub async fn query(&mut self, sql: &str) -> String {
        self.send(&query(sql)).await;
        show(&self.until_ready().await)
    }

    /// Messages in one write; the answer up to as many ReadyForQuery as there are Sync and Query.
    pub async fn exchange(&mut self, messages: &[Vec<u8>]) -> String {
        self.send(&messages.concat()).await;
        let cycles = messages
            .iter()
            .filter(|message| [frontend::QUERY, frontend::SYNC].contains(&message[0]))
            .count();
        show(&self.until(backend::READY_FOR_QUERY, cycles).await)
    }

    /// Reads an answer that is too large to keep; gives its bytes. Stops behind ReadyForQuery.
    pub async fn swallow(&mut self) -> usize {
        let mut count = 0;
        loop {
            let header = loop {
                match Header::read(&self.input).unwrap() {
                    Some(header) => break header,
                    None => assert!(self.more().await > 0, "closed"),
                }
            };
            count += header.size;
            let tag = header.tag;
            assert_ne!(
                tag,
                backend::ERROR_RESPONSE,
                "{}",
                String::from_utf8_lossy(&self.input)
            );
            let mut left = header.size;
            while left > self.input.len() {
                left -= self.input.len();
                self.input.clear();
                assert!(self.more().await > 0, "closed");
            }
            self.input.drain(..left);
            if tag == backend::READY_FOR_QUERY {
                return count;
            }
        }
    }

    async fn more(&mut self) -> usize {
        self.input.reserve(1 << 16);
        let more = timeout(PATIENCE, self.stream.read_buf(&mut self.input));
        more.await.expect("no answer").unwrap()
    }
}

/// Messages as a line: their types, with what matters of each.
pub fn show(messages: &[Message]) -> String {
    let words: Vec<String> = messages.iter().map(Message::to_string).collect();
    words.join(" ")
}

/// The last of some messages.
pub fn last(messages: &[Message]) -> String {
    messages.last().map(Message::to_string).unwrap_or_default()
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tag = char::from(self.tag);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match self.tag {
            backend::ERROR_RESPONSE | backend::NOTICE_RESPONSE => {
                write!(f, "{tag}({})", self.field(b'C'))
            }
            backend::COMMAND_COMPLETE => {
                write!(f, "C({})", text(self.body.strip_suffix(b"\0").unwrap()))
            }
            backend::READY_FOR_QUERY | frontend::COPY_DATA => {
                write!(f, "{tag}({})", text(&self.body))
            }
            backend::DATA_ROW => write!(f, "D({})", self.columns().join(",")),
            backend::PARAMETER_STATUS => {
                let (name, value) = parameter_status(&self.body).unwrap();
                write!(f, "S({}={})", text(name), text(value))
            }
            _ => write!(f, "{tag}"),
        }
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tag {
            backend::ERROR_RESPONSE | backend::NOTICE_RESPONSE => {
                write!(f, "{self} \"{}\"", self.field(b'M'))
            }
            _ => write!(f, "{self}"),
        }
    }
}

impl Message {
    /// A field of an ErrorResponse or NoticeResponse (manual, section "Error and Notice Message
    /// Fields").
    pub fn field(&self, kind: u8) -> String {
        let mut rest = &self.body[..];
        while let Some((&found, after)) = rest.split_first()
            && let Some((value, after)) = cstring(after)
        {
            if found == kind {
                return String::from_utf8_lossy(value).into_owned();
            }
            rest = after;
        }
        String::new()
    }

    /// A DataRow's columns; NULL is a dash.
    pub fn columns(&self) -> Vec<String> {
        let (count, mut rest) = self.body.split_first_chunk::<2>().unwrap();
        let mut columns = Vec::new();
        for _ in 0..u16::from_be_bytes(*count) {
            let (length, after) = rest.split_first_chunk::<4>().unwrap();
            match usize::try_from(i32::from_be_bytes(*length)) {
                Ok(length) => {
                    columns.push(String::from_utf8_lossy(&after[..length]).into_owned());
                    rest = &after[length..];
                }
                Err(_) => {
                    columns.push("-".to_owned());
                    rest = after;
                }
            }
        }
        columns
    }
}

/// A message of any type.
pub fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = head(tag, body.len());
    bytes.extend(body);
    bytes
}

/// The type and the length of a message whose body has so many bytes.
pub fn head(tag: u8, body_size: usize) -> Vec<u8> {
    let length = u32::try_from(body_size + 4).unwrap();
    [&[tag][..], &length.to_be_bytes()].concat()
}

pub fn startup(version: i32, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    for (name, value) in parameters {
        body.extend([name.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat());
    }
    body.push(0);
    packet(&body)
}

/// A first packet: it has no type.
pub fn packet(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&length.to_be_bytes()[..], body].concat()
}

pub fn query(sql: &str) -> Vec<u8> {
    frame(frontend::QUERY, &[sql.as_bytes(), b"\0"].concat())
}

pub fn parse(name: &str, sql: &str) -> Vec<u8> {
    let body = [name.as_bytes(), b"\0", sql.as_bytes(), b"\0\0\0"].concat();
    frame(frontend::PARSE, &body)
}

/// Parameters and results as text.
pub fn bind(portal: &str, statement: &str, parameters: &[&str]) -> Vec<u8> {
    frame(
        frontend::BIND,
        &bind_body(portal, statement, parameters, &[0, 0]),
    )
}

/// Parameters as text, results in binary.
pub fn bind_binary_results(portal: &str, statement: &str, parameters: &[&str]) -> Vec<u8> {
    frame(
        frontend::BIND,
        &bind_body(portal, statement, parameters, &[0, 1, 0, 1]),
    )
}

fn bind_body(portal: &str, statement: &str, parameters: &[&str], formats: &[u8]) -> Vec<u8> {
    let mut body = [portal.as_bytes(), b"\0", statement.as_bytes(), b"\0\0\0"].concat();
    body.extend((parameters.len() as u16).to_be_bytes());
    for parameter in parameters {
        body.extend((parameter.len() as u32).to_be_bytes());
        body.extend(parameter.as_bytes());
    }
    body.extend(formats);
    body
}

/// A fast-path call with arguments and result as text (manual, section "Function Call").
pub fn function_call(oid: u32, arguments: &[&str]) -> Vec<u8> {
    let mut body = oid.to_be_bytes().to_vec();
    body.extend([0, 0]);
    body.extend((arguments.len() as u16).to_be_bytes());
    for argument in arguments {
        body.extend((argument.len() as u32).to_be_bytes());
        body.extend(argument.as_bytes());
    }
    body.extend([0, 0]);
    frame(frontend::FUNCTION_CALL, &body)
}

pub fn describe_statement(name: &str) -> Vec<u8> {
    frame(frontend::DESCRIBE, format!("S{name}\0").as_bytes())
}

pub fn describe_portal(name: &str) -> Vec<u8> {
    frame(frontend::DESCRIBE, format!("P{name}\0").as_bytes())
}

/// At most so many rows; 0 is all.
pub fn execute(portal: &str, rows: u32) -> Vec<u8> {
    let body = [portal.as_bytes(), b"\0", &rows.to_be_bytes()].concat();
    frame(frontend::EXECUTE, &body)
}

pub fn close_statement(name: &str) -> Vec<u8> {
    frame(frontend::CLOSE, format!("S{name}\0").as_bytes())
}

pub fn close_portal(name: &str) -> Vec<u8> {
    frame(frontend::CLOSE, format!("P{name}\0").as_bytes())
}

pub fn sync() -> Vec<u8> {
    frame(frontend::SYNC, b"")
}

pub fn flush() -> Vec<u8> {
    frame(frontend::FLUSH, b"")
}

pub fn copy_data(data: &str) -> Vec<u8> {
    frame(frontend::COPY_DATA, data.as_bytes())
}

pub fn copy_done() -> Vec<u8> {
    frame(frontend::COPY_DONE, b"")
}

pub fn copy_fail(why: &str) -> Vec<u8> {
    frame(frontend::COPY_FAIL, &[why.as_bytes(), b"\0"].concat())
}

/// Asks the proxy to cancel what the client with this key runs; returns when it has been taken.
pub async fn cancel(address: SocketAddr, pid: u32, secret: &[u8]) {
    let mut request = Vec::new();
    message::put_cancel_request(&mut request, pid, secret);
    let mut raw = Raw::connect(address).await;
    raw.send(&request).await;
    assert_eq!(raw.rest().await, b"");
}
