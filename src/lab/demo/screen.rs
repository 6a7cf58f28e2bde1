//! What the demo prints: a table that is drawn again in place on a terminal, plain progress lines
//! elsewhere. Plain ANSI sequences, no cursor tricks beyond "up" and "clear".

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use super::REGIONS;
use super::figures::{Board, Tally, Timings, Way};

const CLEAR_BELOW: &str = "\x1b[J";

pub(super) struct Screen {
    output: io::Stdout,
    style: Style,
}

#[derive(Clone, Copy)]
enum Style {
    /// A terminal, with the number of lines to go up before the next table.
    Live {
        drawn_lines: usize,
    },
    Plain,
}

impl Screen {
    pub(super) fn new() -> Screen {
        let output = io::stdout();
        let style = if output.is_terminal() {
            Style::Live { drawn_lines: 0 }
        } else {
            Style::Plain
        };
        Screen { output, style }
    }

    /// Between two calls of [`Screen::progress`].
    pub(super) fn pace(&self) -> Duration {
        match self.style {
            Style::Live { .. } => Duration::from_millis(250),
            Style::Plain => Duration::from_secs(2),
        }
    }

    pub(super) fn step(&mut self, what: &str) -> io::Result<()> {
        writeln!(self.output, "{what} ...")
    }

    pub(super) fn progress(
        &mut self,
        board: &Board,
        elapsed: Duration,
        length: Duration,
    ) -> io::Result<()> {
        let clock = format!("{} of {} s", elapsed.as_secs(), length.as_secs());
        match self.style {
            Style::Live { .. } => self.draw(&format!(
                "\nWorking, {clock}\n{}",
                table(board, Paint::Ansi)
            )),
            Style::Plain => writeln!(self.output, "  {clock}: {}", one_line(board)),
        }
    }

    /// The last table, and what it means.
    pub(super) fn outcome(&mut self, board: &Board, faults: &[String]) -> io::Result<()> {
        let verdict = if faults.is_empty() {
            "Causeway: no stale read, no error.\n".to_string()
        } else {
            let lines: String = faults.iter().map(|fault| format!("  {fault}\n")).collect();
            format!("Causeway failed:\n{lines}")
        };
        let paint = match self.style {
            Style::Live { .. } => Paint::Ansi,
            Style::Plain => Paint::None,
        };
        self.draw(&format!("\nDone\n{}\n{verdict}", table(board, paint)))
    }

    pub(super) fn invitation(&mut self, connections: &[(String, String)]) -> io::Result<()> {
        writeln!(
            self.output,
            "\nEverything is still up. To look around with psql:\n"
        )?;
        for (title, url) in connections {
            writeln!(self.output, "  {title:<28} psql {url}")?;
        }
        writeln!(
            self.output,
            "\n  SELECT current_setting('cluster_name');   -- the node that answers\n\n\
             Ctrl-C ends the demo and removes everything."
        )?;
        self.output.flush()
    }

    /// In place of what was drawn before.
    fn draw(&mut self, text: &str) -> io::Result<()> {
        if let Style::Live { drawn_lines } = &mut self.style {
            if *drawn_lines > 0 {
                write!(self.output, "\x1b[{drawn_lines}A\r")?;
            }
            write!(self.output, "{CLEAR_BELOW}")?;
            *drawn_lines = text.lines().count();
        }
        write!(self.output, "{text}")?;
        self.output.flush()
    }
}

#[derive(Clone, Copy)]
enum Paint {
    None,
    Ansi,
}

impl Paint {
    fn bold(self, text: &str) -> String {
        match self {
            Paint::None => text.to_string(),
            Paint::Ansi => format!("\x1b[1m{text}\x1b[0m"),
        }
    }

    /// Red if there is something to count.
    fn alarm(self, count: u64, width: usize) -> String {
        let text = format!("{count:>width$}");
        match self {
            Paint::Ansi if count > 0 => format!("\x1b[31m{text}\x1b[0m"),
            _ => text,
        }
    }
}

/// Each way with one row per region, in eighty columns: a line that wraps could not be drawn
/// again in place.
fn table(board: &Board, paint: Paint) -> String {
    let [first, second, third] = REGIONS;
    let mut text = format!(
        "{:10}{:^18}  {:^25}{:6}  {:^12}\n\
         {:10}{:>6}{:>6}{:>6}  {first:>8}{second:>8}{third:>9}{:>6}  {:>6}{:>6}{:>4}\n",
        "",
        "reads (ms)",
        "reads answered by",
        "",
        "writes (ms)",
        "users in",
        "count",
        "p50",
        "p99",
        "stale",
        "p50",
        "p99",
        "err",
    );
    for way in Way::ALL {
        text += &paint.bold(way.title());
        text.push('\n');
        for region in REGIONS {
            text += &row(region, &board.tally(way, region), paint);
        }
    }
    text
}

fn row(region: &str, tally: &Tally, paint: Paint) -> String {
    let share = |node| match tally.share_of(node) {
        Some(share) => format!("{:.0} %", share * 100.0),
        None => "-".to_string(),
    };
    let [first, second, third] = REGIONS.map(share);
    format!(
        "  {region:8}{:>6}{:>6}{:>6}  {first:>8}{second:>8}{third:>9}{}  {:>6}{:>6}{}\n",
        tally.reads.count(),
        milliseconds(&tally.reads, 0.5),
        milliseconds(&tally.reads, 0.99),
        paint.alarm(tally.stale, 6),
        milliseconds(&tally.writes, 0.5),
        milliseconds(&tally.writes, 0.99),
        paint.alarm(tally.errors, 4),
    )
}

fn one_line(board: &Board) -> String {
    let part = |way| {
        let sum = board.sum(way);
        format!(
            "{way:?} {} reads, p50 {} ms, {} stale, {} errors",
            sum.reads.count(),
            milliseconds(&sum.reads, 0.5),
            sum.stale,
            sum.errors
        )
    };
    Way::ALL.map(part).join("; ")
}

/// Tenths where they matter.
fn milliseconds(timings: &Timings, share: f64) -> String {
    match timings
        .quantile(share)
        .map(|time| time.as_secs_f64() * 1000.0)
    {
        Some(time) if time < 10.0 => format!("{time:.1}"),
        Some(time) => format!("{time:.0}"),
        None => "-".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_table_says_how_long_where_and_what_was_wrong() {
        let board = Board::default();
        for (by, took) in [
            ("us-east", 80),
            ("eu-west", 1),
            ("eu-west", 2),
            ("eu-west", 3),
        ] {
            board.read(Way::Causeway, "eu-west", took * MS, by.to_string());
        }
        board.written(Way::Causeway, "eu-west", 81 * MS);
        board.stale(Way::Naive, "ap-south");
        let table = table(&board, Paint::None);
        let rows: Vec<Vec<&str>> = table
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(rows.len(), 2 + 3 * (1 + REGIONS.len()));
        let eu_west = "eu-west 4 2.0 80 25 % 75 % 0 % 0 81 81 0";
        assert_eq!(rows[12].join(" "), eu_west);
        assert_eq!(rows[9].join(" "), "ap-south 0 - - - - - 1 - - 0");
        assert!(table.lines().all(|line| line.chars().count() <= 80));
    }

    #[test]
    fn only_a_terminal_gets_escape_sequences() {
        let board = Board::default();
        board.stale(Way::Naive, "ap-south");
        assert!(table(&board, Paint::Ansi).contains("\x1b[31m"));
        assert!(!table(&board, Paint::None).contains('\x1b'));
    }
}
