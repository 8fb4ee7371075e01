//! Whose Secrets there are, what each is to hold, and what a Secret looks like. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use pgpair_api::names::PairName;
use pgpair_api::validate::ValidatedPair;
use pgpair_core::ids::InstanceId;

use super::place::Place;
use crate::certificates::digest;
use crate::certificates::rotation::{PartyStep, PartyView};
use crate::error::Error;

/// Annotations of a Secret.
pub type Annotations = BTreeMap<String, String>;

/// How much of the Secrets may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Everything that is missing or not as the spec says.
    Spec,
    /// Only what would end by itself: certificates, for the names that they have. A password that is missing stays so, for a new one
    /// would be another.
    Upkeep,
}

impl Extent {
    pub(super) fn has(self, party: Party<'_>, step: PartyStep) -> bool {
        self == Extent::Spec || !matches!((party, step), (Party::Clients(_), PartyStep::Issue))
    }
}

/// Whose Secret it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Party<'a> {
    /// The agent of an instance.
    Instance(InstanceId),
    /// The operator itself.
    Operator,
    /// Clients with this role.
    Clients(ClientRole),
    /// A role of the spec that logs in by a certificate.
    Role(&'a str),
}

impl<'a> Party<'a> {
    /// Those that have a Secret, or are to have one: a superuser that may not log in needs none.
    pub(super) fn of(pair: &'a ValidatedPair, is_there: impl Fn(&Place) -> bool) -> Vec<Party<'a>> {
        let wanted = |party: &Party| {
            *party != Party::Clients(ClientRole::Superuser)
                || pair.config().superuser_access
                || is_there(&Place::of(*party, pair))
        };
        Party::FIXED.into_iter().filter(wanted).chain(Party::roles(pair)).collect()
    }

    /// The roles of the spec that log in by a certificate.
    pub(super) fn roles(pair: &'a ValidatedPair) -> impl Iterator<Item = Party<'a>> {
        certified_roles(pair).map(Party::Role)
    }

    /// Whether it is somebody who logs in, and trusts what the server shows.
    pub(super) fn is_client(self) -> bool {
        matches!(self, Party::Clients(_) | Party::Role(_))
    }

    /// Those that each pair has.
    pub(super) const FIXED: [Party<'static>; 5] = [
        Party::Instance(InstanceId::A),
        Party::Instance(InstanceId::B),
        Party::Operator,
        Party::Clients(ClientRole::Application),
        Party::Clients(ClientRole::Superuser),
    ];

    /// Names in its certificate; `None`: it has no certificate.
    pub(super) fn dns_names(self, pair: &ValidatedPair) -> Option<Vec<String>> {
        match self {
            Party::Instance(i) => {
                let mut names = pair.name.certificate_names(i);
                names.extend(pair.tls.dns_names.iter().cloned());
                Some(names)
            }
            Party::Operator | Party::Role(_) => Some(Vec::new()),
            Party::Clients(_) => None,
        }
    }

    /// Digest of the names in its certificate, and of which certificates are in its Secret.
    pub(super) fn mark(self, names: &[String]) -> String {
        let kinds = match self {
            Party::Instance(_) => "|agent,server,replication,restore",
            Party::Operator | Party::Clients(_) | Party::Role(_) => "",
        };
        digest(format!("{}{kinds}", names.join(",")).as_bytes())
    }

    /// What its Secret is to hold, as [`Party::mark`]; `None`: it has no certificate.
    pub(super) fn names(
        self,
        pair: &ValidatedPair,
        extent: Extent,
        has: Option<&PartyView>,
    ) -> Option<String> {
        match (extent, has.and_then(|has| has.certificate.as_ref())) {
            (Extent::Upkeep, Some(certificate)) => Some(certificate.names.clone()),
            _ => Some(self.mark(&self.dns_names(pair)?)),
        }
    }
}

/// The names of the roles of the spec that log in by a certificate.
pub(crate) fn certified_roles(pair: &ValidatedPair) -> impl Iterator<Item = &str> {
    pair.roles.iter().filter(|role| role.certificate).map(|role| role.name.as_str())
}

/// Who logs in with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientRole {
    /// The owner of the application's database.
    Application,
    /// `postgres`.
    Superuser,
}

impl ClientRole {
    /// The Secret with its password.
    #[must_use]
    pub fn secret(self, name: &PairName) -> String {
        match self {
            ClientRole::Application => name.app_secret(),
            ClientRole::Superuser => name.superuser_secret(),
        }
    }
}

/// The text below `key` of a Secret.
///
/// # Errors
/// There is none, or it is no UTF-8.
pub fn text(secret: &Secret, name: &str, key: &'static str) -> Result<String, Error> {
    let bytes = secret.data.as_ref().and_then(|data| data.get(key)).map(|b| b.0.clone());
    bytes.and_then(|b| String::from_utf8(b).ok()).ok_or_else(|| Error::Secret { name: name.to_owned(), key })
}

/// The certificates of the pair could not be made.
pub(super) fn failed(pair: &ValidatedPair, source: rcgen::Error) -> Error {
    Error::Certificates { pair: pair.name.name.clone(), source }
}

/// A Secret in the pair's namespace.
pub(super) fn build_secret(
    pair: &ValidatedPair,
    name: &str,
    data: impl IntoIterator<Item = (&'static str, String)>,
    annotations: Annotations,
) -> Secret {
    Place::WithPair(name.to_owned()).build(pair, data, annotations)
}
