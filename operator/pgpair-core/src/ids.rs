//! Identities that the protocol compares. All are plain numbers on the inside and print in one fixed form.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Text that is not an identity of the expected form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a valid {kind}")]
pub struct ParseIdError {
    /// What was expected.
    pub kind: &'static str,
    /// What was found.
    pub text: String,
}

/// One of the two instances of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InstanceId {
    /// The instance that is initialised first.
    A,
    /// The instance that is seeded from the first.
    B,
}

impl InstanceId {
    /// Both instances, in the order in which they are built.
    pub const ALL: [InstanceId; 2] = [InstanceId::A, InstanceId::B];

    /// The other instance of the pair.
    #[must_use]
    pub fn peer(self) -> InstanceId {
        match self {
            InstanceId::A => InstanceId::B,
            InstanceId::B => InstanceId::A,
        }
    }

    /// `a` or `b`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            InstanceId::A => "a",
            InstanceId::B => "b",
        }
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for InstanceId {
    type Err = ParseIdError;
    fn from_str(s: &str) -> Result<Self, ParseIdError> {
        match s {
            "a" => Ok(InstanceId::A),
            "b" => Ok(InstanceId::B),
            _ => Err(ParseIdError { kind: "instance (a or b)", text: s.into() }),
        }
    }
}

/// A random id: prints as 16 hexadecimal digits, and is read from exactly as many.
#[macro_export]
macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = $crate::ids::ParseIdError;
            fn from_str(s: &str) -> Result<Self, $crate::ids::ParseIdError> {
                let err = || $crate::ids::ParseIdError { kind: $kind, text: s.into() };
                if s.len() != 16 || !s.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return Err(err());
                }
                u64::from_str_radix(s, 16).map($name).map_err(|_| err())
            }
        }

        $crate::string_serde!($name);
    };
}

/// In JSON a string: as it prints, and as it is read.
#[macro_export]
macro_rules! string_serde {
    ($name:ident) => {
        impl ::serde::Serialize for $name {
            fn serialize<S: ::serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> ::serde::Deserialize<'de> for $name {
            fn deserialize<D: ::serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <String as ::serde::Deserialize>::deserialize(d)?;
                text.parse().map_err(::serde::de::Error::custom)
            }
        }
    };
}

hex_id!(
    /// Random id of one agent process. A new process is a new incarnation, on whatever node it runs.
    Incarnation,
    "incarnation (16 hexadecimal digits)"
);
hex_id!(
    /// Random id written beside a data directory whenever it is initialised or seeded.
    VolumeId,
    "volume id (16 hexadecimal digits)"
);
hex_id!(
    /// Random id of the past that one pair writes, from its `initdb`, recovery or import on. A pair that was recovered from a backup
    /// has the system identifier of the other and will choose the same timeline numbers, so the system identifier does not tell them
    /// apart.
    Lineage,
    "lineage (16 hexadecimal digits)"
);

/// Number of the reign of one primary. Grows by one with each change of primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Term(pub u32);

impl Term {
    /// The term of the next primary.
    #[must_use]
    pub fn next(self) -> Term {
        Term(self.0.saturating_add(1))
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The system identifier that `initdb` gives a cluster (`pg_controldata`, "Database system identifier").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SystemIdentifier(pub u64);

impl fmt::Display for SystemIdentifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for SystemIdentifier {
    type Err = ParseIdError;
    fn from_str(s: &str) -> Result<Self, ParseIdError> {
        s.parse()
            .map(SystemIdentifier)
            .map_err(|_| ParseIdError { kind: "system identifier", text: s.into() })
    }
}

string_serde!(SystemIdentifier);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_print_in_the_form_they_parse() {
        let id = Incarnation(0xab);
        assert_eq!(id.to_string(), "00000000000000ab");
        assert_eq!("00000000000000ab".parse(), Ok(id));
        assert!("ab".parse::<Incarnation>().is_err());
        assert!("+0000000000000ab".parse::<VolumeId>().is_err());
        assert_eq!(serde_json::to_string(&SystemIdentifier(7)).unwrap(), "\"7\"");
    }

    #[test]
    fn the_peer_of_the_peer_is_oneself() {
        for i in InstanceId::ALL {
            assert_eq!(i.peer().peer(), i);
            assert_eq!(i.as_str().parse(), Ok(i));
        }
    }
}
