//! How values are written: words, durations, sizes, addresses. The same for the file, the flags and
//! URLs.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Consistency, LogFormat, OnLag, PoolMode, TlsMode};

/// A setting that takes one of a few words.
pub trait Word: Copy + PartialEq + 'static {
    /// What the words are, with its article, for a message.
    const WHAT: &'static str;
    const WORDS: &'static [(&'static str, Self)];

    /// The word as written in the settings.
    fn as_word(self) -> &'static str {
        Self::WORDS
            .iter()
            .find(|(_, value)| *value == self)
            .map_or("", |(word, _)| word)
    }
}

impl Word for PoolMode {
    const WHAT: &'static str = "a pool mode";
    const WORDS: &'static [(&'static str, Self)] = &[
        ("transaction", PoolMode::Transaction),
        ("session", PoolMode::Session),
    ];
}

impl Word for Consistency {
    const WHAT: &'static str = "a consistency level";
    const WORDS: &'static [(&'static str, Self)] = &[
        ("strong", Consistency::Strong),
        ("session", Consistency::Session),
        ("causal", Consistency::Causal),
        ("eventual", Consistency::Eventual),
    ];
}

impl Word for OnLag {
    const WHAT: &'static str = "what to do about lag";
    const WORDS: &'static [(&'static str, Self)] = &[
        ("primary", OnLag::Primary),
        ("wait", OnLag::Wait),
        ("error", OnLag::Error),
    ];
}

impl Word for TlsMode {
    const WHAT: &'static str = "an sslmode";
    const WORDS: &'static [(&'static str, Self)] = &[
        ("disable", TlsMode::Disable),
        ("prefer", TlsMode::Prefer),
        ("require", TlsMode::Require),
        ("verify-ca", TlsMode::VerifyCa),
        ("verify-full", TlsMode::VerifyFull),
    ];
}

impl Word for LogFormat {
    const WHAT: &'static str = "a log format";
    const WORDS: &'static [(&'static str, Self)] =
        &[("text", LogFormat::Text), ("json", LogFormat::Json)];
}

/// One of `T`'s words; the error lists them.
pub fn word<T: Word>(text: &str) -> Result<T, String> {
    if let Some((_, value)) = T::WORDS.iter().find(|(word, _)| *word == text) {
        return Ok(*value);
    }
    let words: Vec<&str> = T::WORDS.iter().map(|(word, _)| *word).collect();
    Err(match did_you_mean(text, words.iter().copied()) {
        Some(near) => format!("`{text}` is not {}; did you mean `{near}`?", T::WHAT),
        None => format!(
            "`{text}` is not {}; it is one of {}",
            T::WHAT,
            words.join(", ")
        ),
    })
}

/// `100ms`, `10s`, `5min`, `1h`, `1h 30min`; `0` needs no unit.
pub fn duration(text: &str) -> Result<Duration, String> {
    match text.trim() {
        "0" => Ok(Duration::ZERO),
        trimmed if trimmed.bytes().all(|byte| byte.is_ascii_digit()) && !trimmed.is_empty() => Err(
            format!("`{text}` has no unit; write `{trimmed}ms`, `{trimmed}s` or `{trimmed}min`"),
        ),
        trimmed => humantime::parse_duration(trimmed).map_err(|_| {
            format!("`{text}` is not a duration such as `100ms`, `10s`, `5min` or `1h`")
        }),
    }
}

/// A duration, or `none`.
pub fn duration_or_none(text: &str) -> Result<Option<Duration>, String> {
    match text {
        "none" => Ok(None),
        text => duration(text).map(Some),
    }
}

/// A size in bytes: a plain number, or with a unit, all powers of 1024 as in PostgreSQL's own settings:
/// `kB`/`KiB`, `MB`/`MiB`, `GB`/`GiB`.
pub fn size(text: &str) -> Result<usize, String> {
    let wrong = || format!("`{text}` is not a size such as `65536`, `512KiB` or `64MiB`");
    let trimmed = text.trim();
    let digits = trimmed
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(digits);
    let number: usize = number.parse().map_err(|_| wrong())?;
    let unit = match unit.trim_start() {
        "" | "B" => 1,
        "kB" | "KB" | "KiB" => 1024,
        "MB" | "MiB" => 1024 * 1024,
        "GB" | "GiB" => 1024 * 1024 * 1024,
        _ => return Err(wrong()),
    };
    number.checked_mul(unit).ok_or_else(wrong)
}

/// `address:port`. An address, not a name: what is listened on must not depend on DNS.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("`{text}` is not an address and port such as `127.0.0.1:6432` or `[::1]:6432`")
    })
}

/// `address:port`, or `off`.
pub fn address_or_off(text: &str) -> Result<Option<SocketAddr>, String> {
    match text {
        "off" => Ok(None),
        text => address(text)
            .map(Some)
            .map_err(|error| format!("{error}, or `off`")),
    }
}

/// The candidate that `text` is probably a misspelling of.
pub fn did_you_mean<'a>(
    text: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let text = text.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::osa_distance(&text, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        for (text, millis) in [
            ("0", 0),
            ("100ms", 100),
            ("10s", 10_000),
            ("5min", 300_000),
            ("1h 30min", 5_400_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(
            duration("10").unwrap_err(),
            "`10` has no unit; write `10ms`, `10s` or `10min`"
        );
        for text in ["", "-1s", "ten seconds", "10 parsecs"] {
            assert_eq!(
                duration(text).unwrap_err(),
                format!("`{text}` is not a duration such as `100ms`, `10s`, `5min` or `1h`")
            );
        }
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes) in [
            ("0", 0),
            ("65536", 65_536),
            ("1kB", 1024),
            ("64 MiB", 64 << 20),
            ("1GB", 1 << 30),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "MiB", "1 MiBs", "-1", "1.5MiB", "99999999999999999GiB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_misspelt_word_is_recognised() {
        assert_eq!(word("verify-full"), Ok(TlsMode::VerifyFull));
        assert_eq!(
            word::<PoolMode>("transactions").unwrap_err(),
            "`transactions` is not a pool mode; did you mean `transaction`?"
        );
        assert_eq!(
            word::<Consistency>("linearizable").unwrap_err(),
            "`linearizable` is not a consistency level; it is one of strong, session, causal, eventual"
        );
    }

    #[test]
    fn every_word_reads_back() {
        fn check<T: Word + std::fmt::Debug>() {
            for (text, value) in T::WORDS {
                assert_eq!(value.as_word(), *text);
                assert_eq!(word(text), Ok(*value));
            }
        }
        check::<PoolMode>();
        check::<Consistency>();
        check::<TlsMode>();
        check::<LogFormat>();
    }
}
