//! SHA-256 of what passes.

use std::fmt;
use std::str::FromStr;

use pgpair_core::ids::ParseIdError;
use pgpair_core::string_serde;
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

/// A SHA-256; prints as 64 hexadecimal digits, as `sha256sum` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sha256(pub [u8; 32]);

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Sha256 {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let digit = |b: u8| match b {
            b'0'..=b'9' => Some(b - b'0'),
            b'a'..=b'f' => Some(b - b'a' + 10),
            _ => None,
        };
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let bytes: Option<Vec<u8>> = pairs.iter().map(|[h, l]| Some(digit(*h)? << 4 | digit(*l)?)).collect();
        let bytes = bytes.and_then(|b| b.try_into().ok()).filter(|_| rest.is_empty());
        bytes
            .map(Sha256)
            .ok_or_else(|| ParseIdError { kind: "SHA-256 (64 hexadecimal digits)", text: text.into() })
    }
}

string_serde!(Sha256);

/// How many bytes, and their digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measure {
    /// Number of bytes.
    pub bytes: u64,
    /// Of all of them.
    pub sha256: Sha256,
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes with the SHA-256 {}", self.bytes, self.sha256)
    }
}

/// Measures bytes while they pass.
#[derive(Clone)]
pub struct Measuring {
    bytes: u64,
    context: Context,
}

impl Default for Measuring {
    fn default() -> Self {
        Measuring { bytes: 0, context: Context::new(&SHA256) }
    }
}

impl Measuring {
    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.context.update(bytes);
    }

    /// How many there have been.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Of all bytes so far.
    #[must_use]
    pub fn finish(self) -> Measure {
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(self.context.finish().as_ref());
        Measure { bytes: self.bytes, sha256: Sha256(sha256) }
    }
}

impl fmt::Debug for Measuring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Measuring").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_that_of_sha256sum_and_is_read_back() {
        let mut measuring = Measuring::default();
        measuring.update(b"ab");
        measuring.update(b"c");
        let measure = measuring.finish();
        let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!((measure.bytes, measure.sha256.to_string()), (3, text.to_owned()));
        assert_eq!(measure.to_string(), format!("3 bytes with the SHA-256 {text}"));
        assert_eq!(text.parse(), Ok(measure.sha256));
        for wrong in [&text[1..], &text.to_uppercase(), &format!("{text}0"), &format!("é{}", &text[2..])] {
            assert!(wrong.parse::<Sha256>().is_err(), "{wrong}");
        }
    }
}
