//! Where a Secret of a pair is. With the pair: what its pods and its clients need. With the operator, in the namespace that it runs in: the
//! keys of the authority, and the operator's own certificate, so that who reads the Secrets beside a pair cannot sign or speak for it.
//!
//! No owner reference leads from one namespace into another, so what is with the operator outlives its pair; [`super::orphans`] sees to it.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::core::ObjectMeta;
use kube::runtime::reflector::ObjectRef;
use pgpair_api::validate::ValidatedPair;

use super::party::{Annotations, Party};
use crate::api::Requests;
use crate::build::owned;
use crate::cache::Caches;

/// A Secret of a pair, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In the pair's namespace.
    WithPair(String),
    /// In the operator's own.
    WithOperator(String),
}

impl Place {
    /// Of the authority.
    #[must_use]
    pub fn of_authority(pair: &ValidatedPair) -> Place {
        Place::WithOperator(pair.name.authority_secret(&pair.owner.uid))
    }

    /// Of what a party has.
    #[must_use]
    pub fn of(party: Party<'_>, pair: &ValidatedPair) -> Place {
        match party {
            Party::Instance(i) => Place::WithPair(pair.name.tls_secret(i)),
            Party::Operator => Place::WithOperator(pair.name.operator_tls_secret(&pair.owner.uid)),
            Party::Clients(role) => Place::WithPair(role.secret(&pair.name)),
            Party::Role(role) => Place::WithPair(pair.name.role_secret(role)),
        }
    }

    /// Where earlier versions of the operator had the authority, and their own certificate.
    #[must_use]
    pub fn former(pair: &ValidatedPair) -> [Place; 2] {
        super::former_names(&pair.name).map(Place::WithPair)
    }

    /// The name of the Secret.
    #[must_use]
    pub fn name(&self) -> &str {
        let (Place::WithPair(name) | Place::WithOperator(name)) = self;
        name
    }

    /// The Secret as people are told of it: with its namespace, if that is not the pair's.
    #[must_use]
    pub fn told(&self, pair: &ValidatedPair) -> String {
        match self {
            Place::WithPair(name) => name.clone(),
            Place::WithOperator(name) => format!("{}/{name}", pair.operator_namespace),
        }
    }

    /// Requests there, of those in the pair's namespace.
    #[must_use]
    pub fn requests(&self, requests: &Requests, pair: &ValidatedPair) -> Requests {
        match self {
            Place::WithPair(_) => requests.clone(),
            Place::WithOperator(_) => requests.in_namespace(&pair.operator_namespace),
        }
    }

    /// What the caches have of it.
    #[must_use]
    pub fn cached(&self, caches: &Caches, pair: &ValidatedPair) -> Option<ObjectMeta> {
        match self {
            Place::WithPair(name) => {
                let key = ObjectRef::new(name).within(&pair.name.namespace);
                caches.secrets.get(&key).map(|found| found.metadata)
            }
            Place::WithOperator(name) => {
                let key = ObjectRef::new(name).within(&pair.operator_namespace);
                caches.with_operator.get(&key).map(|found| found.0.metadata)
            }
        }
    }

    /// A Secret for it. With the pair, the pair owns it.
    pub(crate) fn build(
        &self,
        pair: &ValidatedPair,
        data: impl IntoIterator<Item = (&'static str, String)>,
        annotations: Annotations,
    ) -> Secret {
        let data = data.into_iter().map(|(k, v)| (k.to_owned(), ByteString(v.into_bytes()))).collect();
        let mut metadata = match self {
            Place::WithPair(name) => owned(pair, name, pair.name.labels()),
            Place::WithOperator(name) => ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(pair.operator_namespace.clone()),
                labels: Some(pair.name.labels_with_operator(&pair.owner.uid)),
                ..ObjectMeta::default()
            },
        };
        metadata.annotations = Some(annotations);
        Secret { metadata, type_: Some("Opaque".into()), data: Some(data), ..Secret::default() }
    }
}
