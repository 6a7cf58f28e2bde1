//! Plays a conversation to PostgreSQL or through Causeway, and writes down what comes back in a
//! form in which the two can be compared.

use std::net::SocketAddr;

use causeway::lab::{APP_DATABASE, APP_USER, PASSWORD};
use causeway::protocol::frame::{backend, cstring, frontend};
use tokio::time::timeout;

use super::act::{Act, Conversation, Leave, Turn, Wait};
use crate::front::PATIENCE;
use crate::raw::{Message, Raw, frame};

/// A client in the middle of its conversation.
pub struct Player {
    raw: Raw,
    /// An error behind a Flush: everything is skipped up to the next Sync.
    skipping: bool,
    /// The last COPY that was asked for has begun.
    copying: bool,
}

impl Player {
    /// Logs in; what the server told about its parameters.
    pub async fn start(address: SocketAddr, conversation: &Conversation) -> (Player, String) {
        let mut raw = Raw::connect(address).await;
        let mut parameters = vec![("user", APP_USER), ("database", APP_DATABASE)];
        parameters.extend(&conversation.startup);
        let greeting = raw.start(3 << 16, &parameters, PASSWORD).await;
        let about = |message: &&Message| {
            !matches!(
                message.tag,
                backend::AUTHENTICATION | backend::BACKEND_KEY_DATA
            )
        };
        let greeting: Vec<Message> = greeting.iter().filter(about).cloned().collect();
        let player = Player {
            raw,
            skipping: false,
            copying: false,
        };
        (player, shown(&greeting))
    }

    /// Sends a turn's messages, reads the answer.
    pub async fn play(&mut self, turn: &Turn) -> String {
        let bytes: Vec<u8> = turn.acts.iter().flat_map(Act::bytes).collect();
        if self.raw.try_send(&bytes).await.is_err() {
            return "closed".to_owned();
        }
        if turn.acts.iter().any(Act::ends_cycle) {
            self.skipping = false;
        }
        let mut seen = Vec::new();
        let mut heard = Heard::default();
        while !self.is_answered(turn, &heard) {
            match timeout(PATIENCE, self.raw.next()).await {
                Ok(Some(message)) => {
                    heard.note(&message);
                    seen.push(message);
                }
                Ok(None) => return format!("{} closed", shown(&seen)),
                Err(_) => return format!("{} silence", shown(&seen)),
            }
        }
        self.copying = turn.wait == Wait::CopyBegun && heard.copy_begun;
        self.skipping |= turn.wait == Wait::Flushed && heard.failed;
        shown(&seen)
    }

    fn is_answered(&self, turn: &Turn, heard: &Heard) -> bool {
        let wanted = |counts: fn(&Act) -> bool| turn.acts.iter().filter(|act| counts(act)).count();
        match turn.wait {
            Wait::Ready => heard.ready == wanted(Act::ends_cycle),
            Wait::Flushed => {
                self.skipping || heard.failed || heard.done == wanted(Act::is_answered)
            }
            Wait::CopyBegun => heard.copy_begun || heard.ready > 0,
            Wait::CopyEnded => heard.ready > 0 || !self.copying,
        }
    }

    pub async fn leave(mut self, leave: Leave) {
        match leave {
            // It may have been closed already.
            Leave::Politely => drop(self.raw.try_send(&frame(frontend::TERMINATE, b"")).await),
            Leave::Vanishing => {}
        }
    }
}

/// What tells how far an answer has come.
#[derive(Default)]
struct Heard {
    ready: usize,
    done: usize,
    failed: bool,
    copy_begun: bool,
}

impl Heard {
    fn note(&mut self, message: &Message) {
        match message.tag {
            backend::READY_FOR_QUERY => self.ready += 1,
            backend::ERROR_RESPONSE => self.failed = true,
            backend::COPY_IN_RESPONSE => self.copy_begun = true,
            b'1' | b'2' | b'3' | b'T' | b'n' | b'C' | b'I' | b's' => self.done += 1,
            _ => {}
        }
    }
}

/// Messages as a line. Reports of parameters that follow each other have no order.
pub fn shown(messages: &[Message]) -> String {
    let mut words: Vec<String> = messages.iter().map(word).collect();
    let is_report = |word: &String| word.starts_with("S(");
    let mut from = 0;
    while let Some(start) = words[from..].iter().position(is_report) {
        let start = from + start;
        let count = words[start..].iter().take_while(|w| is_report(w)).count();
        words[start..start + count].sort();
        from = start + count;
    }
    words.join(" ")
}

/// Everything of a message that a client may rely on.
fn word(message: &Message) -> String {
    let tag = char::from(message.tag);
    match message.tag {
        backend::ERROR_RESPONSE | backend::NOTICE_RESPONSE => {
            let fields = b"SVCMDHPpqWstcdn".iter().filter_map(|&kind| {
                let value = message.field(kind);
                (!value.is_empty()).then(|| format!("{}={value}", char::from(kind)))
            });
            format!("{tag}({})", fields.collect::<Vec<_>>().join(" "))
        }
        backend::ROW_DESCRIPTION => format!("T({})", columns(&message.body).join(",")),
        backend::NOTIFICATION_RESPONSE => {
            format!("A({})", message.body[4..].escape_ascii())
        }
        // Format codes, or types of parameters, or a function's result.
        b'G' | b'H' | b't' | b'V' => format!("{tag}({})", message.body.escape_ascii()),
        _ => message.to_string(),
    }
}

/// Name, place in its table, type, modifier and format of each column. Tables have numbers that
/// differ, if they are temporary.
fn columns(body: &[u8]) -> Vec<String> {
    let mut columns = Vec::new();
    let mut rest = &body[2..];
    while let Some((name, after)) = cstring(rest) {
        let (fixed, after) = after.split_at(18);
        let place = u16::from_be_bytes([fixed[4], fixed[5]]);
        let number = |at: usize| {
            i32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]])
        };
        let format = fixed[17];
        columns.push(format!(
            "{}@{place}:{}:{}:{format}",
            String::from_utf8_lossy(name),
            number(6),
            number(12)
        ));
        rest = after;
    }
    columns
}
