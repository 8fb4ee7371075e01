//! Identities of what lies in a place. Random numbers and times come from outside.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;
use pgpair_core::ids::ParseIdError;
use pgpair_core::{hex_id, string_serde};

hex_id!(
    /// Random id of one attempt at a backup. Objects of two attempts never want the same name, so no object is ever replaced.
    Attempt,
    "attempt (16 hexadecimal digits)"
);
hex_id!(
    /// Random id of a hold: a reader with an end, for which nothing is deleted.
    HoldId,
    "hold (16 hexadecimal digits)"
);
hex_id!(
    /// Random id of a proof: a restore that was carried out and checked.
    ProofId,
    "proof (16 hexadecimal digits)"
);
hex_id!(
    /// Random id of a gap: WAL that was given up.
    GapId,
    "gap (16 hexadecimal digits)"
);

/// Id of a backup: when it began, and four random hexadecimal digits, such as `20261127t011500z-1a2b`. People read the time; no decision
/// rests on it, because clocks of sources differ. The form is a valid name of a Kubernetes object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackupId {
    /// Seconds since 1970, from [`FIRST`] to [`LAST`].
    begun: i64,
    salt: u16,
}

/// 1970-01-01T00:00:00Z.
const FIRST: i64 = 0;
/// 9999-12-30T22:00:00Z, the last moment that [`Timestamp`] can hold. Its year has four digits.
const LAST: i64 = 253_402_207_200;

impl BackupId {
    /// `None` before 1970 or after the year 9999.
    #[must_use]
    pub fn new(begun: Timestamp, salt: u16) -> Option<BackupId> {
        let begun = begun.as_second();
        (FIRST..=LAST).contains(&begun).then_some(BackupId { begun, salt })
    }

    /// When the backup began, by the clock of the process that named it.
    #[must_use]
    pub fn begun(self) -> Timestamp {
        Timestamp::from_second(self.begun).unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = Offset::UTC.to_datetime(self.begun());
        write!(
            f,
            "{:04}{:02}{:02}t{:02}{:02}{:02}z-{:04x}",
            at.year(),
            at.month(),
            at.day(),
            at.hour(),
            at.minute(),
            at.second(),
            self.salt
        )
    }
}

impl FromStr for BackupId {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let parsed = parse_backup_id(text).filter(|id| id.to_string() == text);
        parsed.ok_or_else(|| ParseIdError {
            kind: "backup id (such as 20261127t011500z-1a2b)",
            text: text.into(),
        })
    }
}

fn parse_backup_id(text: &str) -> Option<BackupId> {
    let (at, salt) = text.split_once('-')?;
    let digits = |from: usize, to: usize| at.get(from..to)?.parse::<i16>().ok();
    let pair = |from: usize| digits(from, from + 2).and_then(|n| i8::try_from(n).ok());
    let civil = DateTime::new(digits(0, 4)?, pair(4)?, pair(6)?, pair(9)?, pair(11)?, pair(13)?, 0).ok()?;
    let begun = Offset::UTC.to_timestamp(civil).ok()?;
    BackupId::new(begun, u16::from_str_radix(salt, 16).ok()?)
}

string_serde!(BackupId);

/// Number of a part of a backup, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartNumber(u32);

impl PartNumber {
    /// The first part.
    pub const FIRST: PartNumber = PartNumber(1);
    /// With the smallest parts of 1 MiB a backup has room for 0.9 TiB, with those of 1 GiB for 950 TiB.
    pub const LAST: PartNumber = PartNumber(999_999);

    /// `None` for 0 and beyond [`PartNumber::LAST`].
    #[must_use]
    pub fn new(number: u32) -> Option<PartNumber> {
        let number = PartNumber(number);
        (PartNumber::FIRST..=PartNumber::LAST).contains(&number).then_some(number)
    }

    /// The part after it, if a backup can have so many.
    #[must_use]
    pub fn next(self) -> Option<PartNumber> {
        PartNumber::new(self.0 + 1)
    }

    /// From 1.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for PartNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:06}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn backup_ids_are_read_back(begun in FIRST..=LAST, salt: u16) {
            let id = BackupId::new(Timestamp::from_second(begun).unwrap(), salt).unwrap();
            prop_assert_eq!(id.to_string().parse(), Ok(id));
            prop_assert!(id.to_string().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
        }
    }

    #[test]
    fn a_backup_id_shows_when_the_backup_began() {
        let id = BackupId::new("2026-11-27T01:15:00Z".parse().unwrap(), 0x1a2b).unwrap();
        assert_eq!(id.to_string(), "20261127t011500z-1a2b");
        assert_eq!(id.begun(), "2026-11-27T01:15:00Z".parse().unwrap());
    }

    #[test]
    fn only_the_form_that_is_printed_is_read() {
        for text in [
            "",
            "20261127T011500Z-1a2b",
            "20261127t011500z-1A2B",
            "20261127t011500z-1a2",
            "20261127t011500z-+1a2",
            "20261127t011500z-11a2b",
            "20261327t011500z-1a2b",
            "2026112 t011500z-1a2b",
            "19691231t235959z-0000",
            "20261127t0115é0z-1a2b",
        ] {
            assert!(text.parse::<BackupId>().is_err(), "{text}");
        }
    }

    #[test]
    fn parts_are_numbered_from_1_to_999999() {
        assert_eq!(PartNumber::new(0), None);
        assert_eq!(PartNumber::LAST.next(), None);
        assert_eq!(PartNumber::FIRST.next().map(PartNumber::get), Some(2));
        assert_eq!(PartNumber::FIRST.to_string(), "000001");
    }
}
