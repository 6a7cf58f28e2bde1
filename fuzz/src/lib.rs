//! What the fuzz targets do with their bytes. `tests/it/fuzz.rs` does the same with bytes of its own,
//! so that a stable compiler keeps this honest too.

use std::cell::RefCell;

use causeway::protocol::error::summary;
use causeway::protocol::frame::{
    Header, bind_parts, cstring, frames as split, parameter_status, parse_parts, target,
};
use causeway::protocol::message::{TransactionStatus, captured_lsn};
use causeway::protocol::owed::{Fate, Owed, Progress, Request, Synthetic};
use causeway::protocol::scram::{ClientExchange, ServerExchange, Verifier};
use causeway::protocol::startup::{FirstPacket, first_packet, option_settings};
use causeway::sql::catalogue::{Body, Kind, Language, Nature, Object, ObjectId, Rows};
use causeway::sql::{Catalogue, Class, Classifier, Lists, Scope};

/// Classifies the bytes as SQL. It must not panic; a remembered decision must be what a fresh look
/// gives; and what [`surely_no_read`] finds must not be a read. Tells whether it found something.
pub fn classify(text: &[u8]) -> bool {
    thread_local! {
        // It has seen all earlier texts, as in a proxy that runs for long.
        static EXPERIENCED: RefCell<Classifier> = RefCell::new(Classifier::new(1 << 20, &[]));
    }
    let remembered = EXPERIENCED.with_borrow(|classifier| {
        let first = classifier.classify(text);
        assert_eq!(first, classifier.classify(text));
        first
    });
    let fresh = Classifier::new(1 << 16, &[]).classify(text);
    let shown = String::from_utf8_lossy(text);
    assert_eq!(remembered, fresh, "{shown}");

    let is_sure = surely_no_read(text);
    if is_sure {
        assert_ne!(fresh.decision.class, Class::Read, "{shown}");
    }
    is_sure
}

/// Takes the bytes for the body of a volatile function. Reading it must not panic, and a call of it must
/// not be a read if the body has what [`surely_no_read`] finds. Tells whether the call is a read.
pub fn body(text: &[u8]) -> bool {
    let Ok(source) = std::str::from_utf8(text) else {
        return false;
    };
    let is_sure = surely_no_read(text);
    let is_read = |language| {
        let id = |kind, oid| ObjectId { kind, oid };
        let body = Body {
            language,
            source: source.into(),
            defaults: "".into(),
            parameters: [Some("q".into()), None].into(),
        };
        let objects = vec![
            Object::volatile(id(Kind::Function, 1), ["public", "f"], body),
            Object::new(id(Kind::Relation, 2), ["public", "t", ""], Nature::Plain),
            Object::new(id(Kind::Relation, 3), ["public", "u", ""], Nature::Plain),
        ];
        let edges = Vec::new();
        let scope = Scope::with(Catalogue::new(&Rows { objects, edges }, &Lists::default()));
        let classifier = Classifier::new(1 << 16, &[]);
        // What it runs of what it is given makes it no better.
        let calls = ["SELECT f()", "SELECT f('SELECT 1')", "SELECT f('', 1)"];
        let is_read = calls.map(|call| {
            let class = classifier
                .classify_in(&scope, call.as_bytes())
                .decision
                .class;
            assert!(
                !is_sure || class > Class::Read,
                "{language:?}, {call}: {source}"
            );
            class == Class::Read
        });
        is_read.contains(&true)
    };
    let [sql, plpgsql] = [Language::Sql, Language::PlPgSql].map(is_read);
    sql || plpgsql
}

/// Classifies the bytes in a database that has functions which run SQL that they are given, and as what one of
/// them is given. It must not panic; a remembered decision must be what a fresh look gives; what is given must be
/// no better than what it is by itself. Tells whether it may be given and only reads.
pub fn given(text: &[u8]) -> bool {
    thread_local! {
        static EXPERIENCED: (Classifier, Scope) = (Classifier::new(1 << 20, &[]), executing());
    }
    EXPERIENCED.with(|(experienced, scope)| {
        let class_of = |text: &[u8]| {
            let remembered = experienced.classify_in(scope, text).decision;
            let fresh = Classifier::new(1 << 16, &[])
                .classify_in(scope, text)
                .decision;
            assert_eq!(remembered, fresh, "{}", String::from_utf8_lossy(text));
            fresh.class
        };
        let by_itself = class_of(text);
        let doubled = String::from_utf8_lossy(text).replace('\'', "''");
        let calls = [
            format!("SELECT runs('{doubled}')"),
            format!(
                "SELECT * FROM runs($fuzz${}$fuzz$)",
                String::from_utf8_lossy(text)
            ),
        ];
        let is_read = calls.map(|call| class_of(call.as_bytes()) == Class::Read);
        let is_given_as_it_is = !text.contains(&b'$') && std::str::from_utf8(text).is_ok();
        if is_given_as_it_is && is_read.contains(&true) {
            assert_eq!(by_itself, Class::Read, "{}", String::from_utf8_lossy(text));
        }
        is_read.contains(&true)
    })
}

/// A database with functions that run what they are given.
fn executing() -> Scope {
    let id = |kind, oid| ObjectId { kind, oid };
    let function = |oid, name, source: &str| {
        let body = Body {
            language: Language::PlPgSql,
            source: source.into(),
            defaults: "".into(),
            parameters: [Some("q".into())].into(),
        };
        Object::volatile(id(Kind::Function, oid), ["public", name], body)
    };
    let relation =
        |oid, name| Object::new(id(Kind::Relation, oid), ["public", name, ""], Nature::Plain);
    let objects = vec![
        function(1, "runs", "BEGIN EXECUTE q; END"),
        function(
            2,
            "f",
            "BEGIN EXECUTE 'SELECT count(*) FROM ' || quote_ident(q); END",
        ),
        function(
            3,
            "g",
            "BEGIN EXECUTE format('EXPLAIN ANALYZE %s LIMIT %L', q, q); END",
        ),
        relation(4, "t"),
        relation(5, "u"),
    ];
    let edges = Vec::new();
    Scope::with(Catalogue::new(&Rows { objects, edges }, &Lists::default()))
}

/// A crude look of its own at plain texts (no quotes, no comments): a data-modifying WITH query, or a
/// row lock. It misses much, and must never be wrong about what it finds.
fn surely_no_read(text: &[u8]) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b" \t\n_,;()*=<>+.".contains(byte);
    if !text.iter().all(is_plain) {
        return false;
    }
    let text = String::from_utf8_lossy(text).to_ascii_uppercase();
    let spaced = text.replace('(', " ( ").replace(')', " ) ");
    let split = |c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '(');
    let words: Vec<&str> = spaced
        .split(split)
        .filter(|word| !word.is_empty())
        .collect();
    // EXPLAIN runs nothing, and these functions have a FOR of their own.
    let has = |word: &&str| words.contains(word);
    if ["EXPLAIN", "SUBSTRING", "OVERLAY"].iter().any(has) {
        return false;
    }
    let begins_so = |rest: &[&str]| match rest {
        ["AS" | "MATERIALIZED", "(", "DELETE", "FROM", ..]
        | ["AS" | "MATERIALIZED", "(", "INSERT" | "MERGE", "INTO", ..] => has(&"WITH"),
        ["AS" | "MATERIALIZED", "(", "UPDATE", _, "SET", ..] => has(&"WITH"),
        ["FOR", "UPDATE" | "SHARE", ..] | ["FOR", "KEY", "SHARE", ..] => has(&"SELECT"),
        ["FOR", "NO", "KEY", "UPDATE", ..] => has(&"SELECT"),
        _ => false,
    };
    (0..words.len()).any(|place| begins_so(&words[place..]))
}

/// Reads the bytes as everything that a client may send: a first packet, messages, SCRAM.
pub fn frontend(bytes: &[u8]) {
    if let Ok(Some((packet, length))) = first_packet(bytes) {
        assert!((8..=bytes.len()).contains(&length));
        if let FirstPacket::Startup(startup) = packet {
            for (_, value) in &startup.parameters {
                let _ = option_settings(value);
            }
        }
    }
    for frame in split(bytes) {
        bodies(frame.body());
    }
    bodies(bytes);

    let verifier = Verifier::unmatchable(b"0123456789abcdef");
    // The two messages of a client's log-in, one behind the other.
    let middle = bytes.iter().position(|byte| *byte == b'\n');
    let (first, last) = bytes.split_at(middle.unwrap_or(bytes.len() / 2));
    if let Ok(exchange) = ServerExchange::begin(&verifier, first, "nonce") {
        assert!(exchange.server_first().starts_with("r="));
        // Nobody can prove what matches nothing.
        assert!(
            exchange
                .finish(last.strip_prefix(b"\n").unwrap_or(last))
                .is_err()
        );
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Verifier::parse(text);
        let _ = option_settings(text);
    }
}

/// Every reader of a message's body, whatever the message is.
fn bodies(body: &[u8]) {
    if let Some((front, back)) = cstring(body) {
        assert_eq!(front.len() + 1 + back.len(), body.len());
    }
    if let Some(parts) = parse_parts(body) {
        assert_eq!(parts.name.len() + 1 + parts.definition.len(), body.len());
        assert!(parts.definition.starts_with(parts.text));
    }
    if let Some((portal, statement, rest)) = bind_parts(body) {
        assert_eq!(portal.len() + statement.len() + 2 + rest.len(), body.len());
    }
    let _ = target(body);
    let _ = parameter_status(body);
    let _ = TransactionStatus::read(body);
    let _ = captured_lsn(body);
    let _ = summary(body);
}

/// Splits the bytes into messages, as from a server, and accounts for each against requests that the
/// first bytes choose. No accounting may panic or lose count.
pub fn frames(bytes: &[u8]) {
    let (choices, stream) = bytes.split_at(bytes.len().min(8));
    let mut owed = Owed::default();
    for choice in choices {
        owe(&mut owed, *choice);
    }
    let mut read = 0;
    let mut answered = 0;
    for frame in split(stream) {
        read += frame.bytes.len();
        bodies(frame.body());
        while owed.pop_synthetic().is_some() {
            answered += 1;
        }
        let mut void = 0;
        let Ok(received) = owed.receive(frame.tag, |_| void += 1) else {
            break;
        };
        match received.progress {
            // What ends its cycle stays owed: its ReadyForQuery is still to come.
            Progress::Failed {
                request: Request::Query | Request::FunctionCall | Request::Sync,
                ..
            } => {
                assert_eq!(void, 0);
            }
            Progress::Failed { .. } => assert!((1..=choices.len()).contains(&void)),
            Progress::Done(_) | Progress::Ready(_) => assert_eq!(void, 0),
            Progress::Within | Progress::CopyIn { .. } => assert_eq!(void, 0),
        }
        answered += usize::from(matches!(
            received.progress,
            Progress::Done(_) | Progress::Ready(_)
        ));
    }
    assert!(read <= stream.len() && answered <= choices.len());
    if let Ok(Some(header)) = Header::read(&stream[read..]) {
        assert!(header.size >= 5);
    }

    let exchange = ClientExchange::new("nonce".to_owned());
    let _ = exchange.challenge(stream);
    owed.swallow_all();
    assert!(!owed.is_client_waiting());
}

fn owe(owed: &mut Owed, choice: u8) {
    const FATES: [Fate; 4] = [Fate::Forward, Fate::Swallow, Fate::Settings, Fate::Capture];
    let fate = FATES[usize::from(choice >> 4) % FATES.len()];
    match choice % 11 {
        0 => owed.push(Request::Query, fate),
        1 => owed.push(Request::FunctionCall, fate),
        2 => owed.push(Request::Sync, fate),
        3 => owed.push(Request::Parse(u32::from(choice)), fate),
        4 => owed.push(Request::Bind, fate),
        5 => owed.push(Request::Close, fate),
        6 => owed.push(Request::DescribeStatement(0), fate),
        7 => owed.push(Request::DescribePortal, fate),
        8 => owed.push(Request::Execute, fate),
        9 => owed.push_synthetic(Synthetic::ParseComplete),
        _ => owed.push_synthetic(Synthetic::CloseComplete),
    }
}
