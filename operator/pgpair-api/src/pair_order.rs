//! The resource `PgPairOrder`: an order of a person as an object of its own, so that the right to give orders is not the right to
//! change the pair. It is created, never changed, and deleted by the operator some time after its end.
//!
//! Fields are read leniently: what a later version writes must not keep this one from reading the others. The definition is strict, and
//! [`UserOrder::parse`](crate::order::UserOrder::parse) judges the rest, as of an annotation.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema, Resource};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::order::{CertificateKind, OrderReason, UserOrderKind, order_id};
use crate::spec::schemas;
use crate::status::OrderState;
use crate::word::Word;

/// An order to a pair.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[kube(
    group = "pgpair.dev",
    version = "v1alpha1",
    kind = "PgPairOrder",
    plural = "pgpairorders",
    namespaced,
    status = "PgPairOrderStatus",
    derive = "PartialEq",
    doc = "An order of a person to a PgReplicaPair, such as a switchover. Created once, never changed.",
    printcolumn(name = "Pair", type_ = "string", json_path = ".spec.pair"),
    printcolumn(name = "Kind", type_ = "string", json_path = ".spec.kind"),
    printcolumn(name = "Instance", type_ = "string", json_path = ".spec.instance"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.startsWith(self.spec.pair + '-')")
        .message("metadata.name must begin with spec.pair and '-': use generateName, such as orders-")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self == oldSelf").message("an order never changes: delete it and create another one"))]
#[x_kube(validation = Rule::new("self.kind == 'Promote' || (self.kind in ['Switchover', 'RotatePassword'] || (has(self.certificate) && self.certificate in ['Operator', 'Role'])) != has(self.instance)").message("spec.instance must be a or b; Switchover and RotatePassword take none, because the instance follows from the record, nor do the certificates Operator and Role"))]
#[x_kube(validation = Rule::new("(self.kind == 'RevokeCertificate') == has(self.certificate)").message("spec.certificate is for RevokeCertificate, which needs it: Agent, Server, Replication, Restore, Operator or Role"))]
#[x_kube(validation = Rule::new("!has(self.certificate) || (self.certificate == 'Role') == has(self.role)").message("spec.role is for the certificate of a Role, which needs it: one of spec.roles of the pair with certificate: true"))]
#[x_kube(validation = Rule::new("self.kind == 'RotatePassword' || has(self.certificate) || !has(self.role)").message("spec.role is for RotatePassword, and for the certificate of a Role: leave it out"))]
#[x_kube(validation = Rule::new("(self.kind == 'Promote') == has(self.dead)").message("spec.dead is for Promote, which needs it: the incarnation that you know to be dead, as the record's Lease names it"))]
pub struct PgPairOrderSpec {
    /// Name of the pair, in the same namespace.
    #[schemars(length(min = 1, max = 40))]
    pub pair: String,
    /// What is to be done: `Switchover`, `Promote`, `Restart`, `Fence`, `Unfence`, `Rebuild`, `RotatePassword` or `RevokeCertificate`.
    #[schemars(schema_with = "schemas::words::<UserOrderKind>")]
    pub kind: String,
    /// To whom: `a` or `b`. Not for `Switchover` and `RotatePassword`. `Promote` is for the standby unless it names an instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[ab]$"))]
    pub instance: Option<String>,
    /// The term in which it is given: `status.term` of the pair. In another term it is refused.
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub term: i64,
    /// For `Promote`: the incarnation that the person knows to be dead, as the record's Lease names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[0-9a-f]{16}$"))]
    pub dead: Option<String>,
    /// For `RotatePassword`: the role whose password is made anew. Without it the owner of the application's database. For `RevokeCertificate` of a
    /// `Role`: which one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub role: Option<String>,
    /// For `RevokeCertificate`: `Agent`, `Server`, `Replication` or `Restore` of the instance, `Operator`, or `Role`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schemas::words::<CertificateKind>")]
    pub certificate: Option<String>,
}

/// What became of it. Empty while it waits for its turn: one order at a time.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct PgPairOrderStatus {
    /// How far it has come: `Running`, `Done`, `Refused` (nothing has changed) or `Failed` (begun and not finished).
    #[serde(default)]
    pub phase: Word<OrderState>,
    /// Why, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Word<OrderReason>>,
    /// The same as a sentence, with what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Instance that it was given to, such as `orders-a`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// When the operator took it up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When it came to its end. The operator deletes it an hour later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_time: Option<Time>,
}

impl PgPairOrder {
    /// Its id, from what the API server itself has noted: the object's uid and the time of its creation. `None` for one that was not
    /// created yet.
    #[must_use]
    pub fn id(&self) -> Option<String> {
        let meta = self.meta();
        Some(order_id(meta.creation_timestamp.as_ref()?.0.as_second(), meta.uid.as_deref()?))
    }

    /// The same order as an annotation would give it, for [`UserOrder::parse`](crate::order::UserOrder::parse).
    #[must_use]
    pub fn to_annotation(&self) -> Option<String> {
        let mut order = json!({"id": self.id()?, "kind": self.spec.kind, "term": self.spec.term});
        let Self { spec: PgPairOrderSpec { instance, dead, role, certificate, .. }, .. } = self;
        let fields = [("instance", instance), ("dead", dead), ("role", role), ("certificate", certificate)];
        for (field, value) in fields {
            if let Some(value) = value {
                order[field] = json!(value);
            }
        }
        Some(order.to_string())
    }

    /// Whether it has come to its end.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        let phase = self.status.as_ref().and_then(|status| status.phase.known());
        matches!(phase, Some(OrderState::Done | OrderState::Refused | OrderState::Failed))
    }
}

#[cfg(test)]
mod tests {
    use pgpair_core::ids::{Incarnation, InstanceId, Term};

    use super::*;
    use crate::order::{UserOrder, time_of};

    fn order(spec: serde_json::Value) -> PgPairOrder {
        let metadata = json!({"name": "orders-x1", "namespace": "shop", "uid": "6f1d5a0e-5a3c-4ec1-8a53-1b2d1e6f9a10",
                              "creationTimestamp": "2026-05-01T12:00:00Z"});
        let order = json!({"apiVersion": "pgpair.dev/v1alpha1", "kind": "PgPairOrder", "metadata": metadata, "spec": spec});
        serde_json::from_value(order).unwrap()
    }

    #[test]
    fn an_order_as_an_object_is_the_one_that_an_annotation_would_give() {
        let promote = order(
            json!({"pair": "orders", "kind": "Promote", "instance": "b", "term": 3, "dead": "00000000000000ab"}),
        );
        let read = UserOrder::parse(&promote.to_annotation().unwrap()).unwrap();
        assert_eq!(
            (read.kind, read.instance, read.term),
            (UserOrderKind::Promote, Some(InstanceId::B), Term(3))
        );
        assert_eq!((read.dead, time_of(&read.id)), (Some(Incarnation(0xab)), Some(1_777_636_800)));
        let rotation =
            order(json!({"pair": "orders", "kind": "RotatePassword", "role": "report", "term": 3}));
        let read = UserOrder::parse(&rotation.to_annotation().unwrap()).unwrap();
        assert_eq!((read.kind, read.role.as_deref()), (UserOrderKind::RotatePassword, Some("report")));
        let switchover = order(json!({"pair": "orders", "kind": "Switchover", "term": 3}));
        let read = UserOrder::parse(&switchover.to_annotation().unwrap()).unwrap();
        assert_eq!((read.kind, read.instance, read.dead), (UserOrderKind::Switchover, None, None));
    }

    #[test]
    fn a_kind_of_a_later_version_can_be_read_and_is_no_order() {
        let later = order(json!({"pair": "orders", "kind": "Paint", "term": 3}));
        assert!(UserOrder::parse(&later.to_annotation().unwrap()).is_err());
        let mut created = later;
        created.metadata.uid = None;
        assert_eq!(created.to_annotation(), None, "it is not created yet");
    }
}
