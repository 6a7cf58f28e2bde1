//! Plays a conversation to PostgreSQL or through Causeway, and writes down what comes back in a
//! form in which the two can be compared.

use std::net::SocketAddr;
use std::time::Duration;

use causeway::lab::{APP_DATABASE, APP_USER, PASSWORD};
use causeway::protocol::frame::{backend, cstring, frontend};
use tokio::time::{interval, timeout};
use tokio_postgres::Client;

use super::act::{Act, Cancel, Conversation, Leave, Turn, Wait};
use crate::front::{PATIENCE, ask};
use crate::raw::{self, Message, Raw, frame};

/// A client in the middle of its conversation.
pub struct Player<'a> {
    raw: Raw,
    address: SocketAddr,
    lookouts: &'a Lookouts,
    /// An error behind a Flush: everything is skipped up to the next Sync.
    skipping: bool,
    /// The last COPY that was asked for has begun.
    copying: bool,
}

impl<'a> Player<'a> {
    /// Logs in; what the server told about its parameters.
    pub async fn start(
        address: SocketAddr,
        lookouts: &'a Lookouts,
        conversation: &Conversation,
    ) -> (Player<'a>, String) {
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
            address,
            lookouts,
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
        let mut may_sleep = turn.cancel == Cancel::Asleep;
        while !self.is_answered(turn, &heard) {
            match timeout(PATIENCE, self.next(may_sleep)).await {
                Ok(Event::Message(message)) => {
                    heard.note(&message);
                    seen.push(message);
                }
                Ok(Event::Sleep) => {
                    may_sleep = false;
                    self.cancel().await;
                }
                Ok(Event::End) => return format!("{} closed", shown(&seen)),
                Err(_) => return format!("{} silence", shown(&seen)),
            }
        }
        if turn.cancel == Cancel::Answered {
            self.cancel().await;
        }
        self.copying = turn.wait == Wait::CopyBegun && heard.copy_begun;
        self.skipping |= turn.wait == Wait::Flushed && heard.failed;
        shown(&seen)
    }

    /// What comes next from the server, or that it sleeps.
    async fn next(&mut self, may_sleep: bool) -> Event {
        tokio::select! {
            biased;
            message = self.raw.next() => message.map_or(Event::End, Event::Message),
            () = self.lookouts.until_asleep(), if may_sleep => Event::Sleep,
        }
    }

    /// Sends a request to cancel, and waits until it has arrived.
    async fn cancel(&self) {
        raw::cancel(self.address, self.raw.pid, &self.raw.secret).await;
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

enum Event {
    Message(Message),
    Sleep,
    /// The connection has been closed.
    End,
}

/// Clients that look on at each of the nodes.
pub struct Lookouts(pub Vec<Client>);

impl Lookouts {
    /// Waits until a statement of the user sleeps, wherever it runs. Cancel safe.
    async fn until_asleep(&self) {
        let mut glance = interval(Duration::from_millis(5));
        loop {
            for lookout in &self.0 {
                if ask(lookout, ASLEEP).await == "t" {
                    return;
                }
            }
            glance.tick().await;
        }
    }
}

/// Others do not use `pg_sleep`.
const ASLEEP: &str = "SELECT count(*) > 0 FROM pg_stat_activity \
    WHERE usename = 'app' AND state = 'active' AND wait_event = 'PgSleep'";

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
