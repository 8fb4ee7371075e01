//! What is decided about the order of a person, and what is told of it.

use pgpair_api::order::{CertificateKind, OrderReason, UserOrderKind};
use pgpair_api::status::OrderState;
use pgpair_api::word::Word;
use pgpair_core::ids::InstanceId;
use pgpair_core::lag::Lag;
use pgpair_wire::order::Order;

use crate::certificates::revocation::Leaf;
use crate::secrets::Party;

/// What to do about the order of a person.
#[derive(Debug, Clone, PartialEq)]
pub enum OrderPlan {
    /// Nothing new.
    None,
    /// Tell this.
    Tell(OrderProgress),
    /// Send it, and tell what the agent replies.
    Send {
        /// To whom.
        to: InstanceId,
        /// The order.
        order: Order,
    },
    /// Make a password anew; what becomes of it is seen later.
    Rotate(Rotation),
    /// Make a certificate anew, so that the one before can be revoked.
    Reissue(Reissuing),
    /// List certificates as revoked, for this order.
    Revoke(Vec<Leaf>, String),
}

/// A certificate that is made anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reissuing {
    /// Whose; not for the operator's, nor for one of a role.
    pub instance: InstanceId,
    /// Which one.
    pub what: CertificateKind,
    /// Whose, if it is one of a role.
    pub role: Option<String>,
    /// The id of the order.
    pub word: String,
}

impl Reissuing {
    /// Whose Secret holds it.
    #[must_use]
    pub fn party(&self) -> Party<'_> {
        match (self.what, &self.role) {
            (CertificateKind::Operator, _) => Party::Operator,
            (CertificateKind::Role, Some(role)) => Party::Role(role),
            _ => Party::Instance(self.instance),
        }
    }

    /// The key of the Secret.
    #[must_use]
    pub fn key(&self) -> &'static str {
        match self.what {
            CertificateKind::Agent | CertificateKind::Operator | CertificateKind::Role => "tls.crt",
            CertificateKind::Server => "server.crt",
            CertificateKind::Replication => "replication.crt",
            CertificateKind::Restore => "restore.crt",
        }
    }
}

/// A password that is made anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotation {
    /// Of which role.
    pub role: String,
    /// What it is made for: the id of an order, or an age. It is noted in the Secret: for one word, one password.
    pub word: String,
}

/// What is to be told of an order.
#[derive(Debug, Clone, PartialEq)]
pub struct OrderProgress {
    /// Its id.
    pub id: String,
    /// What was ordered; empty if that could not be read.
    pub kind: Word<UserOrderKind>,
    /// Who carries it out.
    pub instance: Option<InstanceId>,
    /// How it stands.
    pub state: OrderState,
    /// Why.
    pub reason: OrderReason,
    /// For people.
    pub message: String,
    /// What a promotion may lose.
    pub estimated_loss: Option<Lag>,
}
