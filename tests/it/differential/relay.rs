//! Between psql and the primary: moves the messages, and looks at each Query on its way.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use causeway::config::{MonitorConfig, NodeConfig, ServerTls, TlsMode};
use causeway::lab::{APP_DATABASE, Lab, MONITOR_USER, PASSWORD, SUPERUSER};
use causeway::monitor::catalogue::load;
use causeway::monitor::control_pool;
use causeway::protocol::frame::{backend, frontend};
use causeway::sql::{Catalogue, Class, Classifier, Decision, Effect, Lists, Reason, Scope};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio_postgres::{Client, NoTls};

use super::tally::{Answer, Deed, Tally};
use crate::front::PATIENCE;
use crate::raw::{Message, frame, query};

pub struct Relay {
    lab: Lab,
    port: u16,
    classifier: Classifier,
    tally: Mutex<Tally>,
    primary: Client,
    replica: Client,
}

impl Relay {
    pub async fn start(lab: Lab) -> Arc<Relay> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let primary = lab.node("us-east").connect(SUPERUSER, "postgres");
        let replica = lab.node("eu-west").connect(SUPERUSER, "postgres");
        let (primary, replica) = (primary.await.unwrap(), replica.await.unwrap());
        let relay = Arc::new(Relay {
            primary,
            replica,
            lab,
            port: listener.local_addr().unwrap().port(),
            classifier: Classifier::new(64 << 20, &[]),
            tally: Mutex::default(),
        });
        let accepting = Arc::downgrade(&relay);
        tokio::spawn(async move {
            while let (Ok((client, _)), Some(relay)) =
                (listener.accept().await, accepting.upgrade())
            {
                tokio::spawn(async move { relay.serve(client).await });
            }
        });
        relay
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn tally(&self) -> Tally {
        self.tally.lock().unwrap().clone()
    }

    /// One connection of psql. It ends when either side has gone.
    async fn serve(self: Arc<Relay>, client: TcpStream) {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.lab.node("us-east").port()));
        let server = TcpStream::connect(address).await.unwrap();
        for stream in [&client, &server] {
            stream.set_nodelay(true).unwrap();
        }
        let mut conversation = Conversation {
            client: BufStream::new(client),
            server: BufStream::new(server),
            status: b'I',
            scope: Scope::new(),
            is_stale: true,
            database: String::new(),
            user: String::new(),
            script: String::new(),
            mirror: None,
            written: true,
            prepared: HashMap::new(),
            looked: None,
            relay: self,
        };
        let _ = conversation.run().await;
    }

    /// Waits until the replica has everything.
    async fn catch_up(&self) {
        // Flushed, so that the replica gets it: scripts commit asynchronously too.
        let position = "SELECT pg_current_wal_flush_lsn()::text";
        let row = self.primary.query_one(position, &[]).await.unwrap();
        let reached = format!(
            "SELECT pg_last_wal_replay_lsn() >= '{}'",
            row.get::<_, &str>(0)
        );
        let deadline = Instant::now() + PATIENCE;
        while !self
            .replica
            .query_one(&reached, &[])
            .await
            .unwrap()
            .get::<_, bool>(0)
        {
            assert!(Instant::now() < deadline, "the replica does not catch up");
        }
    }
}

struct Conversation {
    relay: Arc<Relay>,
    client: BufStream<TcpStream>,
    server: BufStream<TcpStream>,
    /// As the last ReadyForQuery told.
    status: u8,
    scope: Scope,
    /// The catalogue may have changed since it was read.
    is_stale: bool,
    database: String,
    user: String,
    /// What psql runs, as it says itself.
    script: String,
    /// The same session on the replica.
    mirror: Option<Client>,
    /// Something may have been written since the replica was last waited for.
    written: bool,
    /// The PREPAREs of SQL, as a session of the proxy knows them.
    prepared: HashMap<Box<str>, Box<[u8]>>,
    /// What the open transaction has taken, if nothing has been run since that was looked at.
    looked: Option<Vec<String>>,
}

/// How a query ended.
#[derive(Default)]
struct Outcome {
    error: Option<String>,
    columns: Vec<String>,
}

/// Looks for what a statement has taken: by its lines that were not there before. The locks of
/// SERIALIZABLE note what was read, and nobody waits for them. PostgreSQL opens the table of large
/// objects with the lock of a writer, whoever comes; a replica does so too. Settings of the session are no
/// part of a read either.
const LOOK: &str = "\
SELECT 'a transaction number' WHERE pg_catalog.pg_current_xact_id_if_assigned() IS NOT NULL \
UNION SELECT mode || ' on ' || locktype || ' ' || concat_ws(' ', relation::pg_catalog.regclass, classid, objid) \
  FROM pg_catalog.pg_locks \
 WHERE pid = pg_catalog.pg_backend_pid() AND locktype NOT IN ('virtualxid', 'transactionid') \
       AND mode NOT IN ('AccessShareLock', 'RowShareLock', 'SIReadLock') \
       AND NOT (mode = 'RowExclusiveLock' AND coalesce(relation::pg_catalog.regclass::text, '') \
            LIKE 'pg\\_largeobject%') \
UNION SELECT 'setting ' || name || ' = ' || setting FROM pg_catalog.pg_settings WHERE source = 'session'";

impl Conversation {
    async fn run(&mut self) -> std::io::Result<()> {
        let mut size = [0; 4];
        self.client.read_exact(&mut size).await?;
        let mut startup = vec![0; u32::from_be_bytes(size) as usize - 4];
        self.client.read_exact(&mut startup).await?;
        self.server
            .write_all(&[&size[..], &startup].concat())
            .await?;
        self.read_startup(&startup);
        let ready = self.forward_until_ready().await?;
        if ready.error.is_some() {
            return Ok(());
        }
        self.catch_up().await;
        self.reach_replica().await;
        loop {
            let message = read(&mut self.client).await?;
            if message.tag == frontend::QUERY {
                let text = message
                    .body
                    .strip_suffix(b"\0")
                    .unwrap_or_default()
                    .to_vec();
                self.query(&text).await?;
            } else {
                self.server
                    .write_all(&frame(message.tag, &message.body))
                    .await?;
                self.server.flush().await?;
                // psql's \gdesc and \lo_import.
                if matches!(message.tag, frontend::SYNC | frontend::FUNCTION_CALL) {
                    self.forward(Ready::Forward).await?;
                }
            }
        }
    }

    async fn reach_replica(&mut self) {
        let replica = self.relay.lab.node("eu-west");
        let mut config = tokio_postgres::Config::new();
        config
            .host("127.0.0.1")
            .port(replica.port())
            .user(&self.user)
            .dbname(&self.database);
        if let Ok((client, connection)) = config.connect(NoTls).await {
            tokio::spawn(connection);
            self.mirror = Some(client);
        }
    }

    /// Notes who comes, and to which database.
    fn read_startup(&mut self, packet: &[u8]) {
        let text = String::from_utf8_lossy(&packet[4..]).into_owned();
        let words: Vec<&str> = text.split('\0').collect();
        let of = |name| {
            words
                .chunks(2)
                .find(|pair| pair[0] == name)
                .map(|pair| pair[1])
        };
        let user = of("user").unwrap_or_default().to_owned();
        self.script = of("application_name").unwrap_or_default().to_owned();
        self.database = of("database").unwrap_or(&user).to_owned();
        self.user = user;
    }

    async fn query(&mut self, text: &[u8]) -> std::io::Result<()> {
        let mut decision = self.classify(text).await;
        let is_candidate = decision.statements == 1
            && begins_like_a_read(text)
            && decision
                .effects
                .iter()
                .all(|effect| !moves_transaction(effect));
        let deed = match self.status {
            b'I' if is_candidate => self.in_own_transaction(text).await?,
            b'T' if is_candidate => {
                let before = match self.looked.take() {
                    Some(before) => before,
                    None => self.ask_server(LOOK).await?.columns,
                };
                let outcome = self.pass(text).await?;
                match (outcome.error, self.status) {
                    (None, b'T') => {
                        let after = self.ask_server(LOOK).await?.columns;
                        self.looked = Some(after.clone());
                        Some(deed(&before, after))
                    }
                    _ => None,
                }
            }
            _ => {
                self.looked = None;
                self.pass(text).await?;
                None
            }
        };
        if let (Some(Deed::Took(_)), true) = (&deed, self.is_stale) {
            // It may have been judged by names that mean something else by now.
            self.reload().await;
            decision = self.classify(text).await;
        }
        if decision.class > Class::Read {
            self.written = true;
            self.is_stale |= decision.class == Class::Write && !changes_rows(text);
        }
        let text = String::from_utf8_lossy(text).into_owned();
        let concerns_session =
            decision.class == Class::Anywhere || decision.effects.iter().any(prepares);
        let refusal = match self.status == b'I' && (deed.is_some() || concerns_session) {
            true => self.ask_replica(&text).await,
            false => Answer::None,
        };
        let deed = deed.unwrap_or(Deed::Unknown);
        let mut tally = self.relay.tally.lock().unwrap();
        tally.add(&self.script, &text, &decision, deed, refusal);
        drop(tally);
        self.note_prepared(&decision);
        Ok(())
    }

    /// What the session would know of SQL's own prepared statements.
    fn note_prepared(&mut self, decision: &Decision) {
        for effect in &decision.effects {
            match effect {
                Effect::Prepare(prepare) => {
                    let known = self.prepared.entry(prepare.name.clone());
                    known.or_insert_with(|| prepare.text.clone());
                }
                Effect::Deallocate(Some(name)) => drop(self.prepared.remove(name)),
                Effect::Deallocate(None) | Effect::DiscardAll => self.prepared.clear(),
                _ => {}
            }
        }
    }

    async fn catch_up(&mut self) {
        if std::mem::take(&mut self.written) {
            self.relay.catch_up().await;
        }
    }

    /// With names that are as new as they must be: what is not known may just have been made.
    async fn classify(&mut self, text: &[u8]) -> Arc<Decision> {
        let decision = self.decide(text);
        if self.scope.take_missed() && self.is_stale || self.scope.catalogue().is_none() {
            self.reload().await;
            return self.decide(text);
        }
        decision
    }

    /// As a session does: EXECUTE is what was prepared.
    fn decide(&self, text: &[u8]) -> Arc<Decision> {
        let classify = |text: &[u8]| {
            let classifier = &self.relay.classifier;
            classifier.classify_in(&self.scope, text).decision
        };
        let decision = classify(text);
        let executed = decision.effects.iter().find_map(|effect| match effect {
            Effect::Execute(name) => Some(name),
            _ => None,
        });
        let Some(name) = executed else {
            return decision;
        };
        let prepare = self.prepared.get(name).map(|text| classify(text));
        let class_of = |prepare: &Arc<Decision>| {
            prepare.effects.iter().find_map(|effect| match effect {
                Effect::Prepare(prepare) => Some(prepare.class),
                _ => None,
            })
        };
        let class = prepare.as_ref().and_then(class_of).unwrap_or(Class::Write);
        if class <= decision.class {
            return decision;
        }
        let nothing = || Reason("nothing was prepared".into());
        Arc::new(Decision {
            class,
            reason: prepare.map_or_else(nothing, |prepare| prepare.reason.clone()),
            ..(*decision).clone()
        })
    }

    async fn reload(&mut self) {
        let node = NodeConfig {
            tls: ServerTls {
                mode: TlsMode::Disable,
                root_cert: None,
            },
            ..NodeConfig::new("127.0.0.1", self.relay.lab.node("us-east").port())
        };
        let settings = MonitorConfig {
            user: MONITOR_USER.to_owned(),
            password: Some(PASSWORD.to_owned().into()),
            database: match self.database.is_empty() {
                true => APP_DATABASE.to_owned(),
                false => self.database.clone(),
            },
            ..MonitorConfig::default()
        };
        let pool = control_pool(&node, &settings).unwrap();
        // What other scripts drop meanwhile can make a reading fail, as it would the proxy's.
        let mut attempts = 0;
        let loaded = loop {
            match load(&pool, super::SCRIPT_TIMEOUT).await {
                Ok(loaded) => break loaded,
                Err(error) if attempts == 100 => panic!("{error}"),
                Err(_) => attempts += 1,
            }
        };
        self.scope
            .publish(Catalogue::new(&loaded.rows, &Lists::default()));
        // What an open transaction has made is not to be read yet.
        self.is_stale = self.status != b'I';
    }

    /// Runs a statement in a transaction of ours, which the client does not see.
    async fn in_own_transaction(&mut self, text: &[u8]) -> std::io::Result<Option<Deed>> {
        let before = self.ask_server(&format!("BEGIN; {LOOK}")).await?.columns;
        self.server
            .write_all(&frame(frontend::QUERY, &[text, b"\0"].concat()))
            .await?;
        let outcome = self.forward(Ready::Withhold).await?;
        let taken = match outcome.error {
            None => {
                let after = self.ask_server(&format!("{LOOK}; COMMIT")).await?.columns;
                Some(deed(&before, after))
            }
            Some(_) => {
                self.ask_server("COMMIT").await?;
                None
            }
        };
        self.client
            .write_all(&frame(backend::READY_FOR_QUERY, b"I"))
            .await?;
        self.client.flush().await?;
        Ok(taken)
    }

    /// What the replica says to it.
    async fn ask_replica(&mut self, text: &str) -> Answer {
        if self.mirror.is_none() {
            return Answer::None;
        }
        self.catch_up().await;
        // Replay ends sessions that stand in its way. What was set there is lost with them.
        if self.mirror.as_ref().is_some_and(Client::is_closed) {
            self.reach_replica().await;
        }
        let Some(mirror) = &self.mirror else {
            return Answer::None;
        };
        let Err(error) = mirror.simple_query(text).await else {
            return Answer::Ran;
        };
        let Some(error) = error.as_db_error() else {
            return Answer::None;
        };
        let (code, message) = (error.code().code(), error.message());
        let names_recovery = || message.contains("recovery") || message.contains("hot standby");
        match code {
            "25006" => Answer::Refused(format!("{code} {message}")),
            "55000" | "0A000" if names_recovery() => Answer::Refused(format!("{code} {message}")),
            _ => Answer::None,
        }
    }

    async fn pass(&mut self, text: &[u8]) -> std::io::Result<Outcome> {
        self.server
            .write_all(&frame(frontend::QUERY, &[text, b"\0"].concat()))
            .await?;
        self.forward(Ready::Forward).await
    }

    async fn forward_until_ready(&mut self) -> std::io::Result<Outcome> {
        self.forward(Ready::Forward).await
    }

    /// Moves the answers to the client, and what the client sends meanwhile to the server, where
    /// that waits for it: in authentication and COPY.
    async fn forward(&mut self, ready: Ready) -> std::io::Result<Outcome> {
        let mut outcome = Outcome::default();
        self.server.flush().await?;
        loop {
            let message = read(&mut self.server).await?;
            let bytes = frame(message.tag, &message.body);
            match message.tag {
                backend::READY_FOR_QUERY => {
                    self.status = message.body[0];
                    if ready == Ready::Forward {
                        self.client.write_all(&bytes).await?;
                        self.client.flush().await?;
                    }
                    return Ok(outcome);
                }
                backend::ERROR_RESPONSE => outcome.error = Some(message.field(b'C')),
                _ => {}
            }
            self.client.write_all(&bytes).await?;
            match message.tag {
                backend::AUTHENTICATION if matches!(message.body[3], 3 | 5 | 10 | 11) => {
                    self.client.flush().await?;
                    let answer = read(&mut self.client).await?;
                    self.server
                        .write_all(&frame(answer.tag, &answer.body))
                        .await?;
                    self.server.flush().await?;
                }
                backend::COPY_IN_RESPONSE => {
                    self.client.flush().await?;
                    loop {
                        let data = read(&mut self.client).await?;
                        self.server.write_all(&frame(data.tag, &data.body)).await?;
                        if matches!(data.tag, frontend::COPY_DONE | frontend::COPY_FAIL) {
                            break;
                        }
                    }
                    self.server.flush().await?;
                }
                _ => {}
            }
        }
    }

    /// A question of ours on psql's connection.
    async fn ask_server(&mut self, sql: &str) -> std::io::Result<Outcome> {
        self.server.write_all(&query(sql)).await?;
        self.server.flush().await?;
        let mut outcome = Outcome::default();
        loop {
            let message = read(&mut self.server).await?;
            match message.tag {
                backend::READY_FOR_QUERY => {
                    self.status = message.body[0];
                    return Ok(outcome);
                }
                backend::DATA_ROW => outcome.columns.extend(message.columns()),
                backend::ERROR_RESPONSE => outcome.error = Some(message.field(b'C')),
                _ => {}
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ready {
    Forward,
    Withhold,
}

async fn read(stream: &mut BufStream<TcpStream>) -> std::io::Result<Message> {
    let mut head = [0; 5];
    stream.read_exact(&mut head).await?;
    let [tag, size @ ..] = head;
    let mut body = vec![0; u32::from_be_bytes(size) as usize - 4];
    stream.read_exact(&mut body).await?;
    Ok(Message { tag, body })
}

fn deed(before: &[String], after: Vec<String>) -> Deed {
    let new: Vec<String> = after
        .into_iter()
        .filter(|line| !before.contains(line))
        .collect();
    match new.is_empty() {
        true => Deed::Read,
        false => Deed::Took(new.join("; ")),
    }
}

/// What could be a read, and can be run in a transaction.
fn begins_like_a_read(text: &[u8]) -> bool {
    const WORDS: [&str; 10] = [
        "select", "with", "values", "table", "explain", "copy", "show", "(", "execute", "declare",
    ];
    let first = first_word(text);
    WORDS.contains(&first.as_str())
}

fn changes_rows(text: &[u8]) -> bool {
    ["insert", "update", "delete", "copy", "explain"].contains(&first_word(text).as_str())
}

fn first_word(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let mut rest = text.trim_start();
    // psql sends the comments ahead of a statement only where they stand between others.
    while rest.starts_with("--") || rest.starts_with("/*") {
        let end = match rest.starts_with("--") {
            true => rest.find('\n').map(|at| at + 1),
            false => rest.find("*/").map(|at| at + 2),
        };
        rest = rest
            .get(end.unwrap_or(rest.len())..)
            .unwrap_or_default()
            .trim_start();
    }
    if rest.starts_with('(') {
        return "(".to_owned();
    }
    rest.split(|letter: char| !letter.is_alphabetic())
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase()
}

fn prepares(effect: &Effect) -> bool {
    matches!(effect, Effect::Prepare(_))
}

fn moves_transaction(effect: &Effect) -> bool {
    matches!(
        effect,
        Effect::Begin(_)
            | Effect::Commit { .. }
            | Effect::Rollback { .. }
            | Effect::Savepoint(_)
            | Effect::Release(_)
            | Effect::RollbackTo(_)
            | Effect::PrepareTransaction
            | Effect::SetTransaction { .. }
    )
}
