//! Orders of people: the content of the annotation `pgpair.dev/order`, written by `kubectl pgpair` or by hand.
//!
//! The operator takes an order at most once, tells what becomes of it in `status.order`, and leaves the annotation alone.

mod reason;

use pgpair_core::ids::{Incarnation, InstanceId, Term};
use pgpair_core::order::OrderKind;
use pgpair_wire::order::Order;
use serde::{Deserialize, Serialize};
use strum::{EnumDiscriminants, EnumString, IntoStaticStr, VariantNames};

pub use reason::{OrderReason, OrderStage};

/// An order that is older than this is never carried out: it was meant for another situation. Seconds.
pub const MAX_AGE_SECONDS: i64 = 3600;
/// An order that claims to be this much younger than the operator's clock is refused. Seconds.
pub const MAX_AHEAD_SECONDS: i64 = 300;
/// Longest id.
const MAX_ID: usize = 64;

/// An order of a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UserOrder {
    /// See [`order_id`]. The same id is never carried out twice.
    pub id: String,
    /// What is to be done.
    pub kind: UserOrderKind,
    /// To whom; not for `Switchover`, whose instance follows from the record, nor for `RotatePassword`. `Promote` is for the standby unless it names the
    /// record's own instance, which has come up again on another node and does not know whether its predecessor is dead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceId>,
    /// The term in which it was given: `status.term`.
    pub term: Term,
    /// For `Promote`: the incarnation that the person knows to be dead, as the record's Lease names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead: Option<Incarnation>,
    /// For `RotatePassword`: the role; without it the owner of the application's database. For `RevokeCertificate` of a role: which one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// For `RevokeCertificate`: which one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateKind>,
}

/// A certificate of the pair's own authority, by what it is for.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, IntoStaticStr, EnumString, VariantNames,
)]
pub enum CertificateKind {
    /// The agent of an instance.
    Agent,
    /// Its postgres, as a server.
    Server,
    /// The replication role, as this instance logs in with it.
    Replication,
    /// Its `wal-restore`.
    Restore,
    /// The operator, as a client of the agents of this pair.
    Operator,
    /// A role of the spec that logs in by a certificate.
    Role,
}

impl CertificateKind {
    /// The word of the annotation.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// An order that is complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedOrder {
    /// As of the [`UserOrder`].
    pub id: String,
    /// As of the [`UserOrder`].
    pub term: Term,
    /// What is to be done.
    pub task: Task,
}

/// What is to be done, by who does it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// The agent of an instance.
    Agent(OrderKind),
    /// The operator makes another password for this role; without one, for the owner of the application's database.
    RotatePassword(Option<String>),
    /// The operator makes another certificate, and revokes the one before. With the role, if it is one's.
    RevokeCertificate(CertificateKind, Option<String>),
}

impl CheckedOrder {
    /// The order for the agent, if it is for one.
    #[must_use]
    pub fn for_agent(&self) -> Option<Order> {
        match self.task {
            Task::Agent(kind) => Some(Order { id: self.id.clone(), term: self.term, kind }),
            Task::RotatePassword(_) | Task::RevokeCertificate(..) => None,
        }
    }
}

/// What a person can order.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, IntoStaticStr, EnumString, VariantNames,
)]
pub enum UserOrderKind {
    /// Hand over to the standby after a clean stop.
    Switchover,
    /// Make the standby primary, although the record does not open the way.
    Promote,
    /// Stop postgres politely and start it again.
    Restart,
    /// Stop postgres and keep it down.
    Fence,
    /// The end of `Fence`.
    Unfence,
    /// Copy the standby anew.
    Rebuild,
    /// Make another password for a role.
    RotatePassword,
    /// Make another certificate, and revoke the one before.
    RevokeCertificate,
}

/// Why an annotation is no order. Waiting does not help: the person has to write another one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, EnumDiscriminants)]
#[strum_discriminants(
    name(InvalidOrderReason),
    doc = "Why an annotation is no order, in one word.",
    derive(IntoStaticStr, EnumString, VariantNames)
)]
pub enum InvalidOrder {
    /// No JSON, or not these fields.
    #[error("the annotation pgpair.dev/order is not understood: {0}; use kubectl pgpair to write it")]
    Malformed(String),
    /// The id.
    #[error(
        "the order's id {0:?} is not WORD-UNIXSECONDS of at most 64 characters of a-z, 0-9 and '-', such as x1-1763728000"
    )]
    #[strum_discriminants(strum(serialize = "InvalidId"))]
    Id(String),
    /// See the text.
    #[error("the order was given {0} s ago, more than an hour: look at the pair and order again")]
    TooOld(i64),
    /// See the text.
    #[error("the order's id is {0} s ahead of the operator's clock: look at the clocks and order again")]
    FromTheFuture(i64),
    /// See the text.
    #[error("{0} needs an instance: a or b")]
    InstanceMissing(&'static str),
    /// See the text.
    #[error("{0} takes no instance: it follows from the record")]
    InstanceGiven(&'static str),
    /// See the text.
    #[error("Promote needs the incarnation that is dead, as the record's Lease names it (kubectl get lease)")]
    DeadMissing,
    /// See the text.
    #[error("{0} takes no dead incarnation")]
    DeadGiven(&'static str),
    /// See the text.
    #[error("{0} takes no role")]
    RoleGiven(&'static str),
    /// See the text.
    #[error("{0} takes no certificate")]
    CertificateGiven(&'static str),
    /// See the text.
    #[error("RevokeCertificate needs a certificate: Agent, Server, Replication, Restore, Operator or Role")]
    CertificateMissing,
    /// See the text.
    #[error("RevokeCertificate of a role needs the role: one of spec.roles with certificate: true")]
    RoleMissing,
}

impl InvalidOrder {
    /// A stable word.
    #[must_use]
    pub fn reason(&self) -> InvalidOrderReason {
        self.into()
    }
}

impl UserOrderKind {
    /// The word of the annotation.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The kind of an order to an agent; `None` if no person can give it.
    #[must_use]
    pub fn of(kind: OrderKind) -> Option<UserOrderKind> {
        match kind {
            OrderKind::Switchover => Some(UserOrderKind::Switchover),
            OrderKind::Promote { .. } => Some(UserOrderKind::Promote),
            OrderKind::Restart => Some(UserOrderKind::Restart),
            OrderKind::Fence => Some(UserOrderKind::Fence),
            OrderKind::Unfence => Some(UserOrderKind::Unfence),
            OrderKind::Rebuild => Some(UserOrderKind::Rebuild),
            OrderKind::TakeOver => None,
        }
    }
}

/// The id of an order that is given at `unix_seconds`; `word` tells it from others of the same second.
#[must_use]
pub fn order_id(unix_seconds: i64, word: &str) -> String {
    format!("{word}-{unix_seconds}")
}

/// The time in an id, in Unix seconds.
#[must_use]
pub fn time_of(id: &str) -> Option<i64> {
    let (word, seconds) = id.rsplit_once('-')?;
    let well_formed = id.len() <= MAX_ID
        && !word.is_empty()
        && seconds.len() >= 10
        && seconds.bytes().all(|b| b.is_ascii_digit())
        && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if well_formed { seconds.parse().ok() } else { None }
}

impl UserOrder {
    /// Reads the annotation. Says nothing of age or completeness: see [`UserOrder::check`].
    ///
    /// # Errors
    /// It is no order, or its id has not the right form.
    pub fn parse(annotation: &str) -> Result<UserOrder, InvalidOrder> {
        let order: UserOrder =
            serde_json::from_str(annotation).map_err(|e| InvalidOrder::Malformed(e.to_string()))?;
        if time_of(&order.id).is_none() {
            return Err(InvalidOrder::Id(order.id));
        }
        Ok(order)
    }

    /// What is to be done.
    ///
    /// # Errors
    /// It is too old at `unix_seconds`, or a field is missing or too many.
    pub fn check(&self, unix_seconds: i64) -> Result<CheckedOrder, InvalidOrder> {
        let age = unix_seconds - time_of(&self.id).ok_or_else(|| InvalidOrder::Id(self.id.clone()))?;
        if age > MAX_AGE_SECONDS {
            return Err(InvalidOrder::TooOld(age));
        }
        if age < -MAX_AHEAD_SECONDS {
            return Err(InvalidOrder::FromTheFuture(-age));
        }
        let word = self.kind.as_str();
        let takes_none = matches!(self.kind, UserOrderKind::Switchover | UserOrderKind::RotatePassword)
            || matches!(self.certificate, Some(CertificateKind::Operator | CertificateKind::Role));
        match self.instance {
            Some(_) if takes_none => return Err(InvalidOrder::InstanceGiven(word)),
            None if !takes_none && self.kind != UserOrderKind::Promote => {
                return Err(InvalidOrder::InstanceMissing(word));
            }
            _ => {}
        }
        let is_for_role = self.certificate == Some(CertificateKind::Role);
        if self.role.is_some() && self.kind != UserOrderKind::RotatePassword && !is_for_role {
            return Err(InvalidOrder::RoleGiven(word));
        }
        if self.certificate.is_some() && self.kind != UserOrderKind::RevokeCertificate {
            return Err(InvalidOrder::CertificateGiven(word));
        }
        let kind = match (self.kind, self.dead) {
            (UserOrderKind::Promote, Some(dead)) => OrderKind::Promote { dead },
            (UserOrderKind::Promote, None) => return Err(InvalidOrder::DeadMissing),
            (_, Some(_)) => return Err(InvalidOrder::DeadGiven(word)),
            (UserOrderKind::Switchover, None) => OrderKind::Switchover,
            (UserOrderKind::Restart, None) => OrderKind::Restart,
            (UserOrderKind::Fence, None) => OrderKind::Fence,
            (UserOrderKind::Unfence, None) => OrderKind::Unfence,
            (UserOrderKind::Rebuild, None) => OrderKind::Rebuild,
            (UserOrderKind::RotatePassword, None) => {
                return Ok(self.checked(Task::RotatePassword(self.role.clone())));
            }
            (UserOrderKind::RevokeCertificate, None) => {
                let certificate = self.certificate.ok_or(InvalidOrder::CertificateMissing)?;
                if is_for_role && self.role.is_none() {
                    return Err(InvalidOrder::RoleMissing);
                }
                return Ok(self.checked(Task::RevokeCertificate(certificate, self.role.clone())));
            }
        };
        Ok(self.checked(Task::Agent(kind)))
    }

    fn checked(&self, task: Task) -> CheckedOrder {
        CheckedOrder { id: self.id.clone(), term: self.term, task }
    }

    /// As written into the annotation.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::json!(self).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_763_728_000;

    fn check(json: &str) -> Result<CheckedOrder, InvalidOrder> {
        UserOrder::parse(json)?.check(NOW)
    }

    #[test]
    fn a_complete_order_becomes_one_for_an_agent() {
        let order = check(r#"{"id":"x-1763727990","kind":"Fence","instance":"b","term":3}"#).unwrap();
        let fence = Order { id: "x-1763727990".into(), term: Term(3), kind: OrderKind::Fence };
        assert_eq!(order.for_agent(), Some(fence));
        let promote = r#"{"id":"x-1763727990","kind":"Promote","term":3,"dead":"00000000000000ab"}"#;
        assert_eq!(check(promote).unwrap().task, Task::Agent(OrderKind::Promote { dead: Incarnation(0xab) }));
    }

    #[test]
    fn another_password_is_ordered_for_a_role_or_for_the_owner_and_no_agent_gets_it() {
        for (role, field) in
            [(None, String::new()), (Some("report".to_owned()), r#","role":"report""#.to_owned())]
        {
            let order = check(&format!(r#"{{"id":"x-1763727990","kind":"RotatePassword","term":3{field}}}"#))
                .unwrap();
            assert_eq!((order.for_agent(), order.task), (None, Task::RotatePassword(role)));
        }
    }

    #[test]
    fn a_certificate_is_revoked_by_what_it_is_for_and_whose_it_is() {
        for (certificate, whose, role) in [
            ("Agent", r#","instance":"b""#, None),
            ("Operator", "", None),
            ("Role", r#","role":"report""#, Some("report")),
        ] {
            let json = format!(
                r#"{{"id":"x-1763727990","kind":"RevokeCertificate","certificate":"{certificate}","term":3{whose}}}"#
            );
            let order = check(&json).unwrap();
            let task = Task::RevokeCertificate(certificate.parse().unwrap(), role.map(str::to_owned));
            assert_eq!((order.for_agent(), order.task), (None, task));
        }
    }

    #[test]
    fn what_is_no_order_is_refused_with_a_stable_word() {
        let cases = [
            ("", "Malformed"),
            ("{}", "Malformed"),
            (r#"{"id":"x-1763727990","kind":"Destroy","term":3}"#, "Malformed"),
            (r#"{"id":"x-1763727990","kind":"Switchover","term":3,"force":true}"#, "Malformed"),
            (r#"{"id":"x-1763727990","kind":"Switchover","term":-1}"#, "Malformed"),
            (r#"{"id":"again","kind":"Switchover","term":3}"#, "InvalidId"),
            (r#"{"id":"-1763727990","kind":"Switchover","term":3}"#, "InvalidId"),
            (r#"{"id":"A b-1763727990","kind":"Switchover","term":3}"#, "InvalidId"),
            (r#"{"id":"x-1763724399","kind":"Switchover","term":3}"#, "TooOld"),
            (r#"{"id":"x-1763728301","kind":"Switchover","term":3}"#, "FromTheFuture"),
            (r#"{"id":"x-1763727990","kind":"Restart","term":3}"#, "InstanceMissing"),
            (r#"{"id":"x-1763727990","kind":"Switchover","instance":"a","term":3}"#, "InstanceGiven"),
            (r#"{"id":"x-1763727990","kind":"Promote","term":3}"#, "DeadMissing"),
            (
                r#"{"id":"x-1763727990","kind":"Fence","instance":"a","term":3,"dead":"00000000000000ab"}"#,
                "DeadGiven",
            ),
            (r#"{"id":"x-1763727990","kind":"Switchover","term":3,"role":"app"}"#, "RoleGiven"),
            (r#"{"id":"x-1763727990","kind":"RotatePassword","instance":"a","term":3}"#, "InstanceGiven"),
            (
                r#"{"id":"x-1763727990","kind":"RevokeCertificate","instance":"a","term":3}"#,
                "CertificateMissing",
            ),
            (
                r#"{"id":"x-1763727990","kind":"RevokeCertificate","certificate":"Agent","term":3}"#,
                "InstanceMissing",
            ),
            (
                r#"{"id":"x-1763727990","kind":"RevokeCertificate","certificate":"Operator","instance":"a","term":3}"#,
                "InstanceGiven",
            ),
            (
                r#"{"id":"x-1763727990","kind":"Restart","certificate":"Agent","instance":"a","term":3}"#,
                "CertificateGiven",
            ),
            (
                r#"{"id":"x-1763727990","kind":"RevokeCertificate","certificate":"Role","term":3}"#,
                "RoleMissing",
            ),
            (
                r#"{"id":"x-1763727990","kind":"RevokeCertificate","certificate":"Agent","instance":"a","role":"app","term":3}"#,
                "RoleGiven",
            ),
        ];
        for (json, reason) in cases {
            let found: &str = check(json).unwrap_err().reason().into();
            assert_eq!(found, reason, "{json}");
        }
    }

    #[test]
    fn an_order_is_read_as_it_was_written() {
        let order = UserOrder {
            id: order_id(NOW, "x1"),
            kind: UserOrderKind::Rebuild,
            instance: Some(InstanceId::B),
            term: Term(4),
            dead: None,
            role: None,
            certificate: None,
        };
        assert_eq!(UserOrder::parse(&order.to_json()), Ok(order));
    }
}
