//! Which names in certificates may connect to an agent at all: its peer's and the operator's. Not its own, because an instance has no
//! reason to call itself.

use std::sync::Arc;

use pgpair_core::ids::InstanceId;
use pgpair_wire::names;
use rustls::pki_types::CertificateDer;

/// A client whose certificate has a name that may connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// The other instance: its agent, its witness.
    Peer,
    /// The other instance's `wal-restore`, which postgres starts.
    PeerRestore,
    /// The operator.
    Operator,
}

/// The names of the callers of one agent.
#[derive(Debug, Clone)]
pub struct Callers {
    peer: Arc<str>,
    peer_restore: Arc<str>,
}

impl Callers {
    /// Those of instance `me` of `pair`.
    #[must_use]
    pub fn of(pair: &str, me: InstanceId) -> Callers {
        let peer = me.peer();
        Callers { peer: names::agent(pair, peer).into(), peer_restore: names::restore(pair, peer).into() }
    }

    /// The caller with this verified certificate. A signature of the pair's CA is not enough.
    #[must_use]
    pub fn caller(&self, certificate: &CertificateDer<'_>) -> Option<Caller> {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
        self.named(parsed.subject().iter_common_name().next()?.as_str().ok()?)
    }

    fn named(&self, name: &str) -> Option<Caller> {
        let known = [
            (&*self.peer, Caller::Peer),
            (&*self.peer_restore, Caller::PeerRestore),
            (names::OPERATOR, Caller::Operator),
        ];
        known.into_iter().find_map(|(of, caller)| (of == name).then_some(caller))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_called_by_its_peer_and_the_operator_and_not_by_itself() {
        let callers = Callers::of("shop", InstanceId::A);
        assert_eq!(callers.named("shop-b"), Some(Caller::Peer));
        assert_eq!(callers.named("shop-b-restore"), Some(Caller::PeerRestore));
        assert_eq!(callers.named("pgpair-operator"), Some(Caller::Operator));
        for other in
            ["shop-a", "shop-a-restore", "shop-b-server", "shop", "other-b", "pgpair_replication", ""]
        {
            assert_eq!(callers.named(other), None, "{other}");
        }
    }
}
