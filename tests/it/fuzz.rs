//! The bodies of the fuzz targets with some thousand inputs made of likely pieces. `cargo fuzz` finds
//! more; this keeps them true and finds the near at hand on every run. A failure shows its seed.
//! The inputs are the same on every run, unless `PROPTEST_RNG_SEED` says otherwise.

use proptest::test_runner::{Config, TestRunner};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

#[path = "../../fuzz/src/lib.rs"]
mod bodies;

const SQL: [&str; 12] = [
    "SELECT a FROM t WHERE b = 1",
    "SELECT a FROM t FOR UPDATE",
    "SELECT a FROM t FOR NO KEY UPDATE OF t NOWAIT",
    "SELECT a FROM ( SELECT b FROM u FOR SHARE ) s",
    "WITH x AS ( DELETE FROM t RETURNING a ) SELECT a FROM x",
    "WITH x AS MATERIALIZED ( INSERT INTO t VALUES ( 1 ) RETURNING a ) TABLE x",
    "WITH RECURSIVE x AS ( SELECT 1 ) , y AS ( UPDATE t SET a = 1 ) SELECT 1",
    "SET x TO 1",
    "SELECT set_config ( 'a' , 'b' , false )",
    "BEGIN ; SELECT 1 ; COMMIT",
    "PREPARE s AS SELECT 1",
    "COPY t TO STDOUT",
];

const WORDS: [&str; 40] = [
    "SELECT",
    "FROM",
    "t",
    "WHERE",
    "(",
    ")",
    ",",
    ";",
    "1",
    "*",
    "a",
    "AS",
    "WITH",
    "x",
    "FOR",
    "UPDATE",
    "SHARE",
    "KEY",
    "DELETE",
    "INSERT",
    "INTO",
    "VALUES",
    "RETURNING",
    "UNION",
    "TABLE",
    "'",
    "''",
    "E'\\'",
    "\"",
    "$$",
    "$a$",
    "--",
    "\n",
    "/*",
    "*/",
    "now()",
    "nextval('s')",
    "::",
    "\0",
    "\u{e9}",
];

/// Runs `body` so many times on what `make` makes of a seed.
fn repeat(times: u32, make: fn(&mut StdRng) -> Vec<u8>, mut body: impl FnMut(&[u8])) {
    let first = std::env::var("PROPTEST_RNG_SEED").map_or(0, |seed| seed.parse().unwrap());
    let mut seeds = StdRng::seed_from_u64(first);
    for _ in 0..times {
        let seed = seeds.random();
        let input = make(&mut StdRng::seed_from_u64(seed));
        let _told = Told {
            seed,
            input: &input,
        };
        body(&input);
    }
}

/// Shows the input when the body panics.
struct Told<'a> {
    seed: u64,
    input: &'a [u8],
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}: \"{}\"", self.seed, self.input.escape_ascii());
        }
    }
}

/// A statement with some of its words replaced, removed or added.
fn text(random: &mut StdRng) -> Vec<u8> {
    let pick = |random: &mut StdRng| *WORDS.choose(random).expect("words");
    let mut words: Vec<&str> = SQL.choose(random).expect("texts").split(' ').collect();
    for _ in 0..random.random_range(0..4) {
        let place = random.random_range(0..=words.len());
        match random.random_range(0..3) {
            0 => words.insert(place, pick(random)),
            1 if place < words.len() => words[place] = pick(random),
            _ => words.truncate(place.max(1)),
        }
    }
    let mut text = words.join(" ").into_bytes();
    if random.random_ratio(1, 8)
        && let Some(place) = (0..text.len()).collect::<Vec<_>>().choose(random)
    {
        text[*place] = random.random();
    }
    text
}

/// Such a statement in the body of a function, whose words may be replaced too.
fn body(random: &mut StdRng) -> Vec<u8> {
    const AROUND: [(&str, &str); 8] = [
        ("", " ; SELECT 1"),
        ("BEGIN ", " ; END"),
        ("BEGIN RETURN QUERY ", " ; END"),
        ("BEGIN FOR a IN ", " LOOP NULL ; END LOOP ; END"),
        ("DECLARE a int := ( ", " ) ; BEGIN RETURN a ; END"),
        ("BEGIN IF a > ( ", " ) THEN a := 1 ; END IF ; END"),
        (
            "BEGIN PERFORM a FROM ( ",
            " ) x ; EXCEPTION WHEN a THEN RETURN 1 ; END",
        ),
        ("BEGIN WITH y AS ( ", " ) SELECT 1 INTO a , b FROM y ; END"),
    ];
    let (before, behind) = AROUND.choose(random).expect("bodies");
    let statement = text(random);
    let mut body = [before.as_bytes(), &statement, behind.as_bytes()].concat();
    if random.random_ratio(1, 4) {
        body.truncate(random.random_range(0..=body.len()));
    }
    body
}

/// Messages of likely types and lengths, some of them wrong.
fn messages(random: &mut StdRng) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..8).map(|_| random.random()).collect();
    for _ in 0..random.random_range(0..8) {
        let tag = *b"123CDEGHIKNRSTVWZcdnstvBFPQXp"
            .choose(random)
            .expect("tags");
        let body: Vec<u8> = (0..random.random_range(0..24))
            .map(|_| *b"\0\0\0\x01\x08SPIME:42".choose(random).expect("bytes"))
            .collect();
        let wrong = if random.random_ratio(1, 16) {
            random.random()
        } else {
            0
        };
        let length = (body.len() as u32 + 4).wrapping_add(wrong);
        bytes.push(tag);
        bytes.extend(length.to_be_bytes());
        bytes.extend(body);
    }
    bytes
}

/// A first packet or the messages of a log-in, with some bytes changed.
fn greeting(random: &mut StdRng) -> Vec<u8> {
    let startup = b"\0\x03\0\x02user\0app\0options\0-c geqo=off --a=b\\ c\0_pq_.x\0y\0\0";
    let mut bytes: Vec<u8> = match random.random_range(0..5) {
        0 => [&(startup.len() as u32 + 4).to_be_bytes()[..], startup].concat(),
        1 => b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x01abcd".to_vec(),
        2 => b"n,,n=,r=abc\nc=biws,r=abcnonce,p=AAAA".to_vec(),
        3 => b"SCRAM-SHA-256$4096:c2FsdA==$AAAA:AAAA".to_vec(),
        _ => messages(random),
    };
    for _ in 0..random.random_range(0..4) {
        let place = random.random_range(0..bytes.len().max(1));
        match random.random_range(0..3) {
            0 => bytes.truncate(place),
            1 => bytes.insert(place.min(bytes.len()), random.random()),
            _ => {
                if let Some(byte) = bytes.get_mut(place) {
                    *byte = random.random();
                }
            }
        }
    }
    bytes
}

#[test]
fn classify() {
    let mut sure = 0;
    repeat(4_000, text, |text| {
        sure += u32::from(bodies::classify(text))
    });
    assert!(sure > 400, "only {sure} of the texts say something");
}

#[test]
fn function_bodies() {
    let mut reads = 0;
    repeat(4_000, body, |text| reads += u32::from(bodies::body(text)));
    assert!(reads > 200, "only {reads} of the bodies are read");
}

#[test]
fn given_sql() {
    let mut reads = 0;
    repeat(2_000, text, |text| reads += u32::from(bodies::given(text)));
    assert!(reads > 50, "only {reads} of the texts are read");
}

#[test]
fn frontend() {
    repeat(20_000, greeting, bodies::frontend);
}

#[test]
fn frames() {
    repeat(20_000, messages, bodies::frames);
}

#[test]
fn bytes_without_any_sense() {
    let mut runner = TestRunner::new(Config {
        failure_persistence: None,
        ..Config::with_cases(2_000)
    });
    let any = proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200);
    let ran = runner.run(&any, |bytes| {
        bodies::classify(&bytes);
        bodies::body(&bytes);
        bodies::given(&bytes);
        bodies::frontend(&bytes);
        bodies::frames(&bytes);
        Ok(())
    });
    ran.unwrap();
}
