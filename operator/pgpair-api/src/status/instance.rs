//! State of an instance as the status shows it.

use std::str::FromStr;

use pgpair_core::instance::PostgresState;
use strum::{EnumString, IntoStaticStr, ParseError, VariantNames};

/// State of the postgres of an instance, or why it is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstanceState {
    /// By the report of its agent.
    Reported(PostgresState),
    /// No report says.
    Unreported(Unreported),
}

/// Why the state of an instance is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, EnumString, VariantNames)]
pub enum Unreported {
    /// A Job copies the primary to its volume.
    Seeding,
    /// The last report is some seconds old.
    Stale,
    /// The agent does not answer.
    Unreachable,
    /// The agent has never answered this operator.
    NeverSeen,
}

impl From<InstanceState> for &'static str {
    fn from(state: InstanceState) -> &'static str {
        match state {
            InstanceState::Reported(state) => state.into(),
            InstanceState::Unreported(why) => why.into(),
        }
    }
}

impl FromStr for InstanceState {
    type Err = ParseError;

    fn from_str(word: &str) -> Result<InstanceState, ParseError> {
        let reported = word.parse().map(InstanceState::Reported);
        reported.or_else(|_| word.parse().map(InstanceState::Unreported))
    }
}
