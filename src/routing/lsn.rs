//! Positions in the write-ahead log: [`Lsn`], [`Timeline`], [`SystemId`] and [`Position`].
//!
//! An LSN alone means nothing: after a promotion the same number names other bytes on another
//! timeline, and in another cluster it names something unrelated. [`Position`] carries all three.

use std::fmt;
use std::str::FromStr;

/// A byte position in the write-ahead log (manual, section "pg_lsn Type").
///
/// Shown as two hexadecimal numbers with a slash, like `16/B374D848`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

/// What one cluster's WAL is cut into: `wal_block_size` and `wal_segment_size`, both in bytes and
/// both powers of two, fixed when the cluster is initialised (segments) or compiled (blocks).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalGeometry {
    /// Bytes per WAL page, `SHOW wal_block_size`.
    pub block_size: u32,
    /// Bytes per WAL segment, `SHOW wal_segment_size`.
    pub segment_size: u32,
}

impl Default for WalGeometry {
    fn default() -> Self {
        WalGeometry {
            block_size: 8192,
            segment_size: 16 * 1024 * 1024,
        }
    }
}

const SHORT_PAGE_HEADER: u64 = 24;
const LONG_PAGE_HEADER: u64 = 40;

impl Lsn {
    /// The position before all WAL; every replica has reached it.
    pub const ZERO: Lsn = Lsn(0);

    /// The same position as replay reports it.
    ///
    /// When the last record ends exactly on a page boundary, the *insert* position is given after
    /// the next page's header (24 bytes, or 40 at the start of a segment). Replay stops at the
    /// boundary until more WAL comes, so waiting for the raw number could wait for ever. Taking
    /// the header off never goes below the end of the last record: nothing lies inside a header.
    pub fn normalised(self, geometry: WalGeometry) -> Lsn {
        let in_segment = self.0 & u64::from(geometry.segment_size - 1);
        let in_block = self.0 & u64::from(geometry.block_size - 1);
        if in_segment == LONG_PAGE_HEADER {
            Lsn(self.0 - LONG_PAGE_HEADER)
        } else if in_block == SHORT_PAGE_HEADER && in_segment != SHORT_PAGE_HEADER {
            Lsn(self.0 - SHORT_PAGE_HEADER)
        } else {
            self
        }
    }

    /// What has been reached as soon as anything behind this position has: no record ends in between.
    pub fn just_behind(self) -> Lsn {
        Lsn(self.0.saturating_add(1))
    }

    /// Bytes of WAL from `earlier` to here; zero when `earlier` is not earlier.
    pub fn bytes_since(self, earlier: Lsn) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 as u32)
    }
}

/// A text that is not an LSN.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid LSN \"{0}\": two hexadecimal numbers with a slash are expected, like 16/B374D848")]
pub struct InvalidLsn(pub String);

impl FromStr for Lsn {
    type Err = InvalidLsn;

    fn from_str(text: &str) -> Result<Lsn, InvalidLsn> {
        let invalid = || InvalidLsn(text.chars().take(40).collect());
        let (high, low) = text.split_once('/').ok_or_else(invalid)?;
        let half = |digits: &str| {
            let hexadecimal = (1..=8).contains(&digits.len())
                && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            hexadecimal
                .then(|| u64::from_str_radix(digits, 16).ok())
                .flatten()
        };
        match (half(high), half(low)) {
            (Some(high), Some(low)) => Ok(Lsn(high << 32 | low)),
            _ => Err(invalid()),
        }
    }
}

/// A transaction's number with its epoch; another transaction of the same timeline has it only where a crash has
/// lost this one (manual, section "Transaction ID and Snapshot Information Functions").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Xid(pub u64);

impl fmt::Display for Xid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a replica can be asked whether it has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// It has replayed up to here.
    Position(Lsn),
    /// It shows what this transaction, of this timeline, has committed.
    Transaction(Timeline, Xid),
}

/// A timeline of a cluster: it grows by at least one with each promotion (manual, section
/// "Timelines").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timeline(pub u32);

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A cluster's identity, made by `initdb` and shared by all physical copies
/// (`pg_control_system()`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SystemId(pub u64);

impl fmt::Display for SystemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A place in the history of one cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Which cluster.
    pub system: SystemId,
    /// Which of its timelines.
    pub timeline: Timeline,
    /// Where on that timeline.
    pub lsn: Lsn,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_lsn_reads_and_prints_as_postgres_does() {
        for text in ["0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF", "0/1A"] {
            assert_eq!(text.parse::<Lsn>().unwrap().to_string(), text);
        }
        assert_eq!("16/b374d848".parse(), Ok(Lsn(0x16_B374_D848)));
        for text in [
            "",
            "/",
            "1",
            "1/",
            "/1",
            "1/2/3",
            "+1/2",
            "123456789/0",
            "x/1",
            "1 /2",
        ] {
            assert_eq!(text.parse::<Lsn>(), Err(InvalidLsn(text.into())));
        }
    }

    #[test]
    fn normalising_takes_off_only_a_page_header() {
        let geometry = WalGeometry::default();
        let segment = u64::from(geometry.segment_size);
        let table = [
            (8192 + 24, 8192),
            (8192 + 40, 8192 + 40),
            (8192 + 32, 8192 + 32),
            (segment + 40, segment),
            (segment + 24, segment + 24),
            (3 * segment + 8192 * 7 + 24, 3 * segment + 8192 * 7),
            (8192, 8192),
            (0, 0),
        ];
        for (raw, expected) in table {
            assert_eq!(Lsn(raw).normalised(geometry), Lsn(expected), "from {raw}");
        }
    }

    proptest! {
        #[test]
        fn normalising_only_lowers_by_a_header_and_once(raw: u64, block in 10u32..16, segment in 20u32..30) {
            let geometry = WalGeometry { block_size: 1 << block, segment_size: 1 << segment };
            let page = raw & !u64::from(geometry.block_size - 1);
            for raw in [raw, page | 24, page | 40] {
                let lsn = Lsn(raw).normalised(geometry);
                let header = raw - lsn.0;
                prop_assert!(header == 0 || (header, lsn.0 & u64::from(geometry.block_size - 1)) == (24, 0)
                    || (header, lsn.0 & u64::from(geometry.segment_size - 1)) == (40, 0));
                prop_assert_eq!(lsn.normalised(geometry), lsn);
            }
        }

        #[test]
        fn what_is_printed_is_read_back(raw: u64) {
            prop_assert_eq!(Lsn(raw).to_string().parse(), Ok(Lsn(raw)));
        }
    }
}
