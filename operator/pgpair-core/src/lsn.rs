//! Log sequence numbers: byte positions in the write-ahead log (PostgreSQL, data type `pg_lsn`).

use std::fmt;
use std::str::FromStr;

use crate::ids::ParseIdError;
use crate::string_serde;

/// A byte position in the write-ahead log. Comparable only together with its timeline.
/// An unknown position is `Option::None`, never `0/0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Bytes from `earlier` to `self`; 0 if `earlier` is ahead.
    #[must_use]
    pub fn bytes_since(self, earlier: Lsn) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

impl FromStr for Lsn {
    type Err = ParseIdError;
    fn from_str(s: &str) -> Result<Self, ParseIdError> {
        let err = || ParseIdError { kind: "LSN (such as 0/16B3748)", text: s.into() };
        let (hi, lo) = s.split_once('/').ok_or_else(err)?;
        let part = |t: &str| match t.len() {
            1..=8 if t.bytes().all(|b| b.is_ascii_hexdigit()) => {
                u64::from_str_radix(t, 16).map_err(|_| err())
            }
            _ => Err(err()),
        };
        Ok(Lsn(part(hi)? << 32 | part(lo)?))
    }
}

string_serde!(Lsn);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    proptest! {
        #[test]
        fn print_and_parse_are_inverse(n: u64) {
            prop_assert_eq!(Lsn(n).to_string().parse(), Ok(Lsn(n)));
        }
    }

    #[rstest]
    #[case("")]
    #[case("0")]
    #[case("/")]
    #[case("0/123456789")]
    #[case("0/+1")]
    #[case("g/0")]
    fn text_that_is_no_lsn_is_refused(#[case] text: &str) {
        assert!(text.parse::<Lsn>().is_err());
    }
}
