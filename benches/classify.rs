//! What a decision costs: `cargo bench --bench classify`. Prints the best of several rounds.

use std::hint::black_box;
use std::time::{Duration, Instant};

use causeway::sql::catalogue::{
    Body, Catalogue, Finding, Kind, Language, Nature, Object, ObjectId, Rows, Use,
};
use causeway::sql::{Classifier, Lists, Scope};

const SHORT: &str = "SELECT id, name, email FROM users WHERE tenant = 42 AND email = 'a@example.org' ORDER BY id LIMIT 10";

/// The memory of the cache, in bytes.
const CACHE: usize = 16 << 20;

/// What it may cost at the most.
const HIT: Duration = Duration::from_nanos(300);
const MISS: Duration = Duration::from_micros(50);

fn main() {
    let classifier = Classifier::new(CACHE, &[]);
    let scope = Scope::with(Catalogue::new(&named(), &Lists::default()));
    let hit = best(2_000, 500, |_| {
        black_box(classifier.classify_in(&scope, black_box(SHORT.as_bytes())));
    });
    let (bytes, nanoseconds) = (SHORT.len(), hit.as_nanos());
    println!("hit, {bytes} bytes: {nanoseconds} ns {}", against(hit, HIT));

    let texts: Vec<String> = (0..2_000).map(long).collect();
    let miss = best(400, 5, |index| {
        black_box(classifier.classify_in(&scope, texts[index].as_bytes()));
    });
    let (bytes, microseconds) = (texts[0].len(), miss.as_secs_f64() * 1e6);
    println!(
        "miss, {bytes} bytes: {microseconds:.1} µs {}",
        against(miss, MISS)
    );
    endless(&classifier, &scope);
    for functions in [1_000, 2_000] {
        let rows = bodies(functions);
        let made = best(5, 1, |_| {
            let catalogue = Catalogue::new(&rows, &Lists::default());
            assert_eq!(
                catalogue.function(Use::Run, None, "f1"),
                Some(&Finding::Reads)
            );
        });
        println!(
            "catalogue of {functions} bodies in PL/pgSQL, {} KiB: {:.0} ms",
            functions * BODY.len() / 1024,
            made.as_secs_f64() * 1e3
        );
    }

    let insert = format!(
        "INSERT INTO t VALUES {} (0, '')",
        "(1, 'some text'),".repeat(300_000)
    );
    let scan = best(5, 1, |_| {
        black_box(classifier.classify(insert.as_bytes()));
    });
    println!(
        "scan, {} bytes: {:.1} ms",
        insert.len(),
        scan.as_secs_f64() * 1e3
    );
}

fn against(cost: Duration, bound: Duration) -> String {
    match cost <= bound {
        true => format!("(at most {bound:?}: met)"),
        false => format!("(at most {bound:?}: MISSED)"),
    }
}

/// A client that never sends the same statement twice: what it costs in memory.
fn endless(classifier: &Classifier, scope: &Scope) {
    let mut most = 0;
    for index in 0..200_000 {
        let text = format!("SELECT column_{index} FROM users");
        black_box(classifier.classify_in(scope, text.as_bytes()));
        most = most.max(classifier.cache_bytes());
    }
    println!("200,000 different statements: at most {most} of {CACHE} bytes held");
}

/// A function as applications have them, which only reads.
const BODY: &str = "\
DECLARE
    total numeric := 0;
    line items%ROWTYPE;
BEGIN
    -- What it calls, and how often it is there, is replaced.
    SELECT count(*), max(o.id) INTO STRICT total, latest FROM orders o JOIN users u ON u.id = o.user_id
     WHERE o.tenant = $1 AND (o.state = 'open' OR o.changed > now() - interval '1 day');
    IF total = 0 THEN
        RAISE EXCEPTION 'nothing for %', $1 USING HINT = 'look at ' || latest, ERRCODE = 'P0002';
    ELSIF total > 1000 THEN
        RETURN total;
    END IF;
    FOR line IN SELECT * FROM items WHERE order_id = latest ORDER BY position LOOP
        CONTINUE WHEN line.price IS NULL;
        total := total + line.price * coalesce(line.amount, 1) - called(line.id);
    END LOOP;
    FOR i IN 1..array_length(parts, 1) LOOP
        parts[i] := round(parts[i] * 100) / 100;
    END LOOP;
    RETURN (SELECT sum(price) FROM items WHERE order_id = latest AND tenant = $1) + total;
EXCEPTION
    WHEN no_data_found OR division_by_zero THEN RETURN 0;
END";

/// Each calls one or two of the others.
fn bodies(functions: usize) -> Rows {
    let mut rows = named();
    for number in 0..functions {
        let id = ObjectId {
            kind: Kind::Function,
            oid: u32::try_from(number).unwrap_or_default() + 100_000,
        };
        let body = Body {
            language: Language::PlPgSql,
            source: BODY.replace("called", &format!("f{}", number / 2)).into(),
            defaults: "".into(),
            parameters: Box::default(),
        };
        let name = format!("f{number}");
        rows.objects
            .push(Object::volatile(id, ["public", &name], body));
    }
    rows
}

fn named() -> Rows {
    let object = |oid: u32, name: String, kind: Kind| {
        Object::new(ObjectId { kind, oid }, ["public", &name, ""], Nature::Plain)
    };
    let known = ["users", "orders", "items"].map(str::to_owned);
    let relations = known
        .into_iter()
        .chain((0..10_000).map(|n| format!("t{n}")));
    let relations = (0..)
        .zip(relations)
        .map(|(oid, name)| object(oid, name, Kind::Relation));
    let functions = (0..2_000).map(|oid| object(oid, format!("function_{oid}"), Kind::Function));
    Rows {
        objects: relations.chain(functions).collect(),
        edges: Vec::new(),
    }
}

/// The time of one run, in the best round: rounds are short, so that one is not interrupted. Each
/// run gets a number of its own.
fn best(rounds: usize, runs: usize, mut run: impl FnMut(usize)) -> Duration {
    let round = |round: usize| {
        let start = Instant::now();
        (round * runs..(round + 1) * runs).for_each(&mut run);
        start.elapsed() / runs as u32
    };
    (0..rounds).map(round).min().unwrap_or_default()
}

/// About a thousand bytes, different in its names each time.
fn long(index: usize) -> String {
    let columns: Vec<_> = (0..30)
        .map(|column| format!("t{index}.column_{column}"))
        .collect();
    let columns = columns.join(", ");
    format!(
        "SELECT {columns}, count(*) FILTER (WHERE o.total > 100) AS large, \
         coalesce(max(o.created_at), now() - INTERVAL '1 day') AS newest \
         FROM t{index} JOIN orders o ON o.user_id = t{index}.id LEFT JOIN items i ON i.order_id = o.id \
         WHERE o.status IN ('paid', 'sent') AND o.region = $1 AND lower(t{index}.name) LIKE 'a%' \
         GROUP BY {columns} HAVING sum(i.price) > 10 ORDER BY 3 DESC LIMIT 50"
    )
}
