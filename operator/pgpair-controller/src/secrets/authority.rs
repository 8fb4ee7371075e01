//! The Secret of a pair's authorities, with their keys. It is in the operator's own namespace, and only the operator reads it.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{Resource, ResourceExt};
use pgpair_api::validate::ValidatedPair;
use pgpair_core::ids::InstanceId;
use pgpair_wire::certificates as files;

use super::former;
use super::party::{Party, failed, text};
use super::place::Place;
use crate::api::{Created, Requests};
use crate::certificates::revocation::{Leaf, Revocations};
use crate::certificates::rotation::{
    AuthorityId, AuthorityStep, AuthorityView, PartyView, Policy, is_estranged,
};
use crate::certificates::{Pem, certificates, new_authority, subjects};
use crate::error::Error;
use crate::ownership;

/// Key of what is revoked.
const REVOKED: &str = "revoked.json";

/// Its content.
#[derive(Debug, Clone)]
pub struct CertificateAuthority {
    /// As its annotations tell it.
    pub view: AuthorityView,
    current: Pem,
    next: Pem,
    old: String,
    revocations: Revocations,
    version: Option<String>,
}

impl CertificateAuthority {
    /// The one that signs now.
    #[must_use]
    pub fn signer(&self) -> &Pem {
        if self.view.signing.is_some() { &self.current } else { &self.next }
    }

    /// Everything that is trusted, as one PEM text.
    #[must_use]
    pub fn bundle(&self) -> String {
        [&self.current.certificate, &self.next.certificate, &self.old].map(String::as_str).concat()
    }

    /// The revocation lists of all that is trusted, if anything was ever revoked.
    #[must_use]
    pub fn lists(&self) -> Option<String> {
        self.revocations.pem(&self.view.trusted())
    }

    /// Whether it can revoke a certificate. One that is being replaced need not: that ends the use of all that it has signed.
    fn may_revoke(&self, leaf: &Leaf) -> bool {
        self.view.signing.as_ref() == Some(&leaf.authority)
    }

    /// Whether a certificate that should have been revoked is not.
    pub fn owes(&self, leaf: &Leaf) -> bool {
        self.may_revoke(leaf) && !self.revocations.have(leaf)
    }

    /// From the Secret. What is empty is not there.
    pub(super) fn from_secret(secret: &Secret, name: &str) -> Result<CertificateAuthority, Error> {
        let or_empty = |key| text(secret, name, key).unwrap_or_default();
        let pem = |certificate, key| Pem { certificate: or_empty(certificate), key: or_empty(key) };
        let (current, next, old) =
            (pem("ca.crt", "ca.key"), pem("next.crt", "next.key"), or_empty("old.crt"));
        let first =
            |pem: &Pem| certificates(&pem.certificate).first().filter(|_| !pem.key.is_empty()).cloned();
        let (signing, following) = (first(&current), first(&next));
        let end = signing.as_ref().or(following.as_ref()).map(|(_, end)| *end);
        // What was revoked and cannot be read is not forgotten: with the Secret it is recovered from the lists of the others.
        let revocations = match or_empty(REVOKED) {
            none if none.is_empty() => Revocations::default(),
            text => serde_json::from_str(&text)
                .map_err(|_| Error::Secret { name: name.to_owned(), key: REVOKED })?,
        };
        let mut view = AuthorityView {
            signing: signing.map(|(mark, _)| mark),
            next: following.map(|(mark, _)| mark),
            old: marks(&old),
            not_after: end.ok_or_else(|| Error::Secret { name: name.to_owned(), key: "ca.key" })?,
            lists: None,
        };
        view.lists = Revocations::view(&revocations, &view.trusted());
        Ok(CertificateAuthority { view, current, next, old, revocations, version: secret.resource_version() })
    }

    /// All keys are always written, so that none is left from an earlier state.
    fn to_secret(&self, pair: &ValidatedPair) -> Result<Secret, Error> {
        let mut data = vec![
            ("ca.crt", self.current.certificate.clone()),
            ("ca.key", self.current.key.clone()),
            ("next.crt", self.next.certificate.clone()),
            ("next.key", self.next.key.clone()),
            ("old.crt", self.old.clone()),
        ];
        if self.revocations.are_used() {
            let text = serde_json::to_string(&self.revocations).map_err(|source| Error::Config { source })?;
            data.push((REVOKED, text));
        }
        let mut secret = Place::of_authority(pair).build(pair, data, self.view.annotations());
        secret.metadata.resource_version = self.version.clone();
        Ok(secret)
    }

    /// With lists of all authorities that can sign one; nothing as long as nothing was revoked.
    fn listed(mut self, pair: &ValidatedPair, now: Timestamp) -> Result<CertificateAuthority, Error> {
        self.revocations.retain(&self.view.trusted());
        let life = Policy::new(&pair.tls).authority_life();
        if self.revocations.are_used() {
            let current = self.view.signing.iter().map(|mark| (mark, &self.current));
            let next = self.view.next.iter().map(|mark| (mark, &self.next));
            for (mark, authority) in current.chain(next) {
                self.revocations.sign(mark, authority, now, life).map_err(|e| failed(pair, e))?;
            }
        }
        self.view.lists = self.revocations.view(&self.view.trusted());
        Ok(self)
    }

    /// After a step that needs no other authority to be there already.
    fn stepped(
        self,
        step: AuthorityStep,
        pair: &ValidatedPair,
        now: Timestamp,
    ) -> Result<CertificateAuthority, Error> {
        match step {
            AuthorityStep::Establish => Ok(self), // it was there, without its annotations
            AuthorityStep::Introduce => {
                let (next, mark, _) = build(pair, now)?;
                CertificateAuthority { view: self.view.introduced(mark), next, ..self }.listed(pair, now)
            }
            AuthorityStep::Switch => {
                let end = certificates(&self.next.certificate).first().map_or(now, |(_, end)| *end);
                let old = format!("{}{}", self.current.certificate, self.old);
                Ok(CertificateAuthority {
                    view: self.view.switched(end),
                    current: self.next,
                    next: Pem::none(),
                    old,
                    ..self
                })
            }
            AuthorityStep::Retire => {
                let retired = CertificateAuthority { view: self.view.retired(), old: String::new(), ..self };
                retired.listed(pair, now)
            }
            AuthorityStep::Relist => self.listed(pair, now),
        }
    }
}

fn build(pair: &ValidatedPair, now: Timestamp) -> Result<(Pem, AuthorityId, Timestamp), Error> {
    // A name of its own, so that two authorities in one bundle are told apart by it.
    let name = format!("pgpair {} {}", pair.name.name, now.as_second());
    let life = Policy::new(&pair.tls).authority_life();
    let pem = new_authority(&name, now, life).map_err(|e| failed(pair, e))?;
    let (mark, end) = certificates(&pem.certificate).first().cloned().unwrap_or_default();
    Ok((pem, mark, end))
}

fn marks(pem: &str) -> BTreeSet<AuthorityId> {
    certificates(pem).into_iter().map(|(mark, _)| mark).collect()
}

/// The authority as it is stored.
///
/// # Errors
/// There is none, or it cannot be read.
pub async fn fetch(requests: &Requests, pair: &ValidatedPair) -> Result<CertificateAuthority, Error> {
    let place = Place::of_authority(pair);
    let secret = place.requests(requests, pair).get::<Secret>(place.name()).await?.unwrap_or_default();
    own(pair, &secret, &place)?;
    CertificateAuthority::from_secret(&secret, &place.told(pair))
}

/// Whoever made an authority knows its key: one that is not the pair's never signs for it.
fn own(pair: &ValidatedPair, secret: &Secret, place: &Place) -> Result<(), Error> {
    let exists = secret.metadata.name.is_some();
    if exists && !ownership::is_own(pair, secret.meta()) {
        return Err(ownership::not_ours::<Secret>(&place.told(pair)));
    }
    Ok(())
}

/// Takes a step that was decided on what was `seen`, and gives what is stored then.
///
/// # Errors
/// A request failed (409: somebody changed it meanwhile), or what is stored cannot be read.
pub async fn apply_step(
    requests: &Requests,
    pair: &ValidatedPair,
    step: AuthorityStep,
    seen: Option<&AuthorityView>,
    now: Timestamp,
) -> Result<CertificateAuthority, Error> {
    let place = Place::of_authority(pair);
    let there = place.requests(requests, pair);
    let Some(secret) = there.get::<Secret>(place.name()).await? else {
        return create(requests, pair, now).await;
    };
    own(pair, &secret, &place)?;
    let stored = CertificateAuthority::from_secret(&secret, &place.told(pair))?;
    if seen.is_some_and(|seen| *seen != stored.view) {
        return Ok(stored); // the cache is behind: this step may have been taken already
    }
    // What the caches have of the instances may be older than the authority.
    let changed = if step == AuthorityStep::Establish
        && is_estranged(&stored.view, &fetch_instances(requests, pair).await?)
    {
        tracing::warn!("the instances use certificates of another authority than the one that is kept here");
        CertificateAuthority { version: stored.version, ..find_or_make(requests, pair, now).await? }
    } else {
        stored.stepped(step, pair, now)?
    };
    ownership::apply(&there, pair, &changed.to_secret(pair)?, Some(secret.meta())).await?;
    Ok(changed)
}

/// What the Secrets of the instances say now.
pub(super) async fn fetch_instances(
    requests: &Requests,
    pair: &ValidatedPair,
) -> Result<[Option<PartyView>; 2], Error> {
    let fetch = async |i| {
        let found = requests.get_metadata::<Secret>(&pair.name.tls_secret(i)).await?;
        Ok::<_, Error>(found.and_then(|meta| PartyView::read(&meta.annotations.unwrap_or_default())))
    };
    Ok([fetch(InstanceId::A).await?, fetch(InstanceId::B).await?])
}

/// The authority that an earlier version of the operator has kept beside the pair, if it is in use; else another one.
async fn find_or_make(
    requests: &Requests,
    pair: &ValidatedPair,
    now: Timestamp,
) -> Result<CertificateAuthority, Error> {
    match former::find_authority(requests, pair).await? {
        Some(former) => Ok(CertificateAuthority { version: None, ..former }),
        None => make(requests, pair, now).await,
    }
}

/// Lists certificates as revoked, unless that was done for this order.
///
/// # Errors
/// A request failed, or the authority cannot sign.
pub async fn revoke(
    requests: &Requests,
    pair: &ValidatedPair,
    replaced: &[Leaf],
    by: &str,
    now: Timestamp,
) -> Result<(), Error> {
    let mut authority = fetch(requests, pair).await?;
    let is_done = authority.view.lists.as_ref().is_some_and(|lists| lists.by == by);
    let all = replaced.iter().filter(|leaf| authority.may_revoke(leaf));
    let all: Vec<Leaf> = all.cloned().collect();
    let Some(mark) = authority.view.signing.clone().filter(|_| !is_done && !all.is_empty()) else {
        return Ok(());
    };
    for leaf in &all {
        authority.revocations.revoke(leaf.clone(), by, now);
    }
    let life = Policy::new(&pair.tls).authority_life();
    let signed = authority.revocations.sign(&mark, &authority.current, now, life);
    signed.map_err(|e| failed(pair, e))?;
    let authority = authority.listed(pair, now)?;
    let there = Place::of_authority(pair).requests(requests, pair);
    ownership::apply(&there, pair, &authority.to_secret(pair)?, None).await?;
    for leaf in all {
        tracing::info!(serial = leaf.serial, by, "a certificate is revoked");
    }
    Ok(())
}

/// Writes one where there is none.
async fn create(
    requests: &Requests,
    pair: &ValidatedPair,
    now: Timestamp,
) -> Result<CertificateAuthority, Error> {
    let authority = find_or_make(requests, pair, now).await?;
    let there = Place::of_authority(pair).requests(requests, pair);
    match ownership::create(&there, pair, &authority.to_secret(pair)?).await? {
        Created::Yes => Ok(authority),
        Created::AlreadyExists => fetch(requests, pair).await,
    }
}

/// The first authority; or, if parties are left of one that was lost, the one that follows it.
async fn make(
    requests: &Requests,
    pair: &ValidatedPair,
    now: Timestamp,
) -> Result<CertificateAuthority, Error> {
    let (mut old, mut lists) = (String::new(), String::new());
    for party in Party::FIXED.into_iter().chain(Party::roles(pair)) {
        let place = Place::of(party, pair);
        let name = place.name();
        if let Some(secret) = place.requests(requests, pair).get::<Secret>(name).await? {
            // Authorities of a person's certificate stand beside ours in the Secrets of clients: agents never trust them.
            let theirs = text(&secret, name, files::SERVER_AUTHORITIES).unwrap_or_default();
            old = text(&secret, name, "ca.crt").unwrap_or_default();
            if party.is_client() && !theirs.is_empty() {
                old = old.replace(&theirs, "");
            }
            lists = text(&secret, name, files::REVOKED).unwrap_or_default();
        }
        if !old.is_empty() {
            break;
        }
    }
    let (made, mark, end) = build(pair, now)?;
    let view = AuthorityView::established(mark, marks(&old), end);
    let (current, next) = if view.signing.is_some() { (made, Pem::none()) } else { (Pem::none(), made) };
    // What was revoked stays so without the key that had signed it.
    let revocations = Revocations::recovered(&lists, &subjects(&old));
    CertificateAuthority { view, current, next, old, revocations, version: None }.listed(pair, now)
}
