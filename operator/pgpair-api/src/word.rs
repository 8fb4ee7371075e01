//! Words of the status.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A word of the status: one that this version knows, or one of another version, kept as it is.
///
/// The status outlives the program that wrote it. A word that a later operator made up must not keep an earlier one, or the
/// plug-in, from reading the rest. The definition therefore gives no list of words either.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word<T> {
    /// A word of this version.
    Known(T),
    /// Any other word; empty if nothing was written.
    Other(String),
}

impl<T: Copy> Word<T> {
    /// What it says; `None` if this version does not know the word.
    #[must_use]
    pub fn known(&self) -> Option<T> {
        match self {
            Word::Known(value) => Some(*value),
            Word::Other(_) => None,
        }
    }
}

impl<T: Copy + PartialEq> Word<T> {
    /// Whether it says this.
    #[must_use]
    pub fn is(&self, value: T) -> bool {
        self.known() == Some(value)
    }
}

impl<T: Copy + Into<&'static str>> Word<T> {
    /// The word.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Word::Known(value) => (*value).into(),
            Word::Other(word) => word,
        }
    }
}

impl<T> From<T> for Word<T> {
    fn from(value: T) -> Word<T> {
        Word::Known(value)
    }
}

impl<T> Default for Word<T> {
    fn default() -> Word<T> {
        Word::Other(String::new())
    }
}

impl<T: Copy + Into<&'static str>> fmt::Display for Word<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl<T: Copy + Into<&'static str>> Serialize for Word<T> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.as_str())
    }
}

impl<'de, T: FromStr> Deserialize<'de> for Word<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let word = String::deserialize(d)?;
        Ok(word.parse().map_or(Word::Other(word), Word::Known))
    }
}

impl<T> JsonSchema for Word<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Word".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        String::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use pgpair_core::instance::Role;
    use serde_json::{from_value, json, to_value};

    use super::*;

    #[test]
    fn a_known_word_is_read_and_another_one_is_kept() {
        let read = |word: &str| from_value::<Word<Role>>(json!(word)).unwrap();
        assert_eq!(read("Primary"), Word::Known(Role::Primary));
        assert_eq!(read("Arbiter"), Word::Other("Arbiter".into()));
        assert!(read("Standby").is(Role::Standby) && !read("Arbiter").is(Role::Standby));
        for word in ["Primary", "Arbiter", ""] {
            assert_eq!(to_value(read(word)).unwrap(), json!(word));
            assert_eq!(format!("{:<8}|", read(word)), format!("{word:<8}|"));
        }
    }
}
