//! What a decision costs: `cargo bench --bench classify`. Prints the best of several rounds.

use std::hint::black_box;
use std::time::{Duration, Instant};

use causeway::sql::Classifier;

const SHORT: &str = "SELECT id, name, email FROM users WHERE tenant = 42 AND email = 'a@example.org' ORDER BY id LIMIT 10";

fn main() {
    let classifier = Classifier::new(16 << 20, &[]);
    let hit = best(2_000, 500, |_| {
        black_box(classifier.classify(black_box(SHORT.as_bytes())));
    });
    println!("hit, {} bytes: {} ns", SHORT.len(), hit.as_nanos());

    let texts: Vec<String> = (0..2_000).map(long).collect();
    let miss = best(400, 5, |index| {
        black_box(classifier.classify(texts[index].as_bytes()));
    });
    let bytes = texts[0].len();
    println!("miss, {bytes} bytes: {:.1} µs", miss.as_secs_f64() * 1e6);

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
