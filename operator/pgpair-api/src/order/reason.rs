//! Why an order stands as it does.

use std::str::FromStr;

use pgpair_core::order::OrderRefusal;
use strum::{EnumString, IntoStaticStr, ParseError, VariantNames};

use super::InvalidOrderReason;

/// Why an order stands as it does, in one word. Two of them are equal if their words are.
#[derive(Debug, Clone, Copy)]
pub enum OrderReason {
    /// The operator says so.
    Stage(OrderStage),
    /// The agent refused it.
    Refused(OrderRefusal),
    /// It is no order.
    Invalid(InvalidOrderReason),
}

/// How far the operator has come with an order, or what keeps it from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, EnumString, VariantNames)]
pub enum OrderStage {
    /// It will be sent next.
    Announced,
    /// The agent has it, and does something before it decides about it.
    Preparing,
    /// The agent works on it.
    Accepted,
    /// A base backup for it runs.
    Copying,
    /// The base backup failed for too long; the instance goes on with the data that it had.
    CopyFailed,
    /// The Secret has another password, which is being brought into effect.
    Rotating,
    /// The new password is not in effect.
    PasswordRefused,
    /// The operator keeps no password of that role.
    NoSuchPassword,
    /// The operator makes no certificate for that role.
    NoSuchCertificate,
    /// The new certificate is being brought into use; after that the one before is revoked.
    Reissued,
    /// The certificate is revoked, which the agents have not all been told yet.
    Revoked,
    /// The authority is being replaced, which ends the use of every certificate that it has signed.
    AuthorityChanging,
    /// Postgres shows a certificate of a person, which its own authority revokes.
    NotOurCertificate,
    /// The agent has carried it out.
    CarriedOut,
    /// It was sent before, or is older than one that was.
    Repeated,
    /// The annotation was changed, or the object deleted, before it was sent.
    Withdrawn,
    /// The pair is paused.
    Paused,
    /// It needs a spec that can be carried out.
    InvalidSpec,
    /// The term of the order has not begun.
    TermUnknown,
    /// The agent that has to carry it out does not answer.
    AgentUnreachable,
    /// The agent was restarted and does not know of it any more.
    Forgotten,
    /// Its end was not seen in time.
    TimedOut,
}

impl OrderReason {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl From<OrderReason> for &'static str {
    fn from(reason: OrderReason) -> &'static str {
        match reason {
            OrderReason::Stage(stage) => stage.into(),
            OrderReason::Refused(why) => why.into(),
            OrderReason::Invalid(why) => why.into(),
        }
    }
}

impl FromStr for OrderReason {
    type Err = ParseError;

    fn from_str(word: &str) -> Result<OrderReason, ParseError> {
        let refused = word.parse().map(OrderReason::Refused);
        let stage = refused.or_else(|_| word.parse().map(OrderReason::Stage));
        stage.or_else(|_| word.parse().map(OrderReason::Invalid))
    }
}

impl From<OrderStage> for OrderReason {
    fn from(stage: OrderStage) -> OrderReason {
        OrderReason::Stage(stage)
    }
}

impl PartialEq for OrderReason {
    fn eq(&self, other: &OrderReason) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for OrderReason {}
