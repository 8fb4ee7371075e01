//! When certificates are made anew, and how one authority follows another without a moment in which an agent meets a
//! certificate that it does not trust.
//!
//! Expected flow of a rotation:
//! 1. *introduce*: the next authority is made and added to every bundle (`ca.crt`); it signs nothing;
//! 2. *switch*: every bundle has held it for [`SPREAD`], so every pod has it: now it signs, and all certificates are made anew;
//! 3. *retire*: every certificate has been one of the new authority for [`SPREAD`], so no pod uses another: the old one
//!    leaves the bundles.
//!
//! Guarantees: as long as every pod gets the content of its Secret within [`SPREAD`], each party trusts the certificate
//! that each other party uses, whatever step the operator stops after. Everything is derived from annotations of the
//! Secrets, so the contents are read only when something is to be done. There is no chance in it: the same annotations
//! and the same time give the same steps.
//!
//! A lost authority is a rotation too: the survivors' bundle tells which authorities are trusted, and the new one is
//! introduced beside them. Deleting its Secret is therefore how a person orders a rotation, and how an installation begins that takes a
//! pair over from another one, whose keys it does not have. Caveat: if the Secret of a party
//! is lost at the same time, or its certificate ends within the hour, its new certificate is trusted by the others only when
//! they have their new bundles. So it is with the operator's own certificate, which is beside the authority.
//!
//! An authority that another one has followed meanwhile, without this installation, counts as lost: see [`is_estranged`].

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use pgpair_api::names::{
    ANNOTATION_CA_NEXT, ANNOTATION_CA_OLD, ANNOTATION_CA_SIGNING, ANNOTATION_CHANGED_AT,
    ANNOTATION_DNS_NAMES, ANNOTATION_NOT_AFTER, ANNOTATION_REISSUED, ANNOTATION_REVOKED,
    ANNOTATION_REVOKED_BY, ANNOTATION_REVOKED_UNTIL, ANNOTATION_SIGNED_BY, ANNOTATION_TRUSTS,
    ANNOTATION_VERSION,
};
use pgpair_api::spec::TlsSpec;
use pgpair_wire::certificates::read_version;

use super::revocation::{ListsView, Reissue};
use super::server::ServerView;

/// Within this time every pod has the new content of its Secret: the kubelet writes it within two minutes, the agent reads
/// it within seconds. The rest is for a node that is slow.
pub const SPREAD: SignedDuration = SignedDuration::from_hours(1);
const DAY: SignedDuration = SignedDuration::from_hours(24);
/// Shortest life of an authority.
const AUTHORITY_LIFE: SignedDuration = SignedDuration::from_hours(3650 * 24);

/// Names an authority: a digest of its certificate.
pub type AuthorityId = String;

/// The times that the user chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Life of a certificate.
    pub validity: SignedDuration,
    /// It is renewed when less than this is left.
    pub renew_before: SignedDuration,
}

impl Policy {
    /// From the spec.
    #[must_use]
    pub fn new(tls: &TlsSpec) -> Policy {
        Policy { validity: DAY * tls.validity_days, renew_before: DAY * tls.renew_before_days }
    }

    /// Life of an authority: long enough to sign for as long again before it is replaced.
    #[must_use]
    pub fn authority_life(self) -> SignedDuration {
        AUTHORITY_LIFE.max(self.validity * 2)
    }
}

/// What the Secret of the authority holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorityView {
    /// The one that signs; `None`: its key is lost.
    pub signing: Option<AuthorityId>,
    /// The one that will sign next, while it is being introduced.
    pub next: Option<AuthorityId>,
    /// Those that sign no more and are still trusted.
    pub old: BTreeSet<AuthorityId>,
    /// End of the one that signs, else of the next one.
    pub not_after: Timestamp,
    /// What they have revoked; `None`: nothing ever.
    pub lists: Option<ListsView>,
}

/// What the Secret of a party holds: of an instance, of the operator, or of clients (which have a bundle only).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartyView {
    /// The authorities in its bundle.
    pub trusts: BTreeSet<AuthorityId>,
    /// Its certificate.
    pub certificate: Option<CertificateView>,
    /// When its content was last changed.
    pub changed_at: Timestamp,
    /// What it has of a certificate of a person's.
    pub server: ServerView,
    /// Version of its content; 0: the pair uses none.
    pub version: u64,
    /// Mark of the revocation lists that it has.
    pub lists: Option<String>,
    /// The certificate that was made anew for an order to revoke the one before.
    pub reissue: Option<Reissue>,
}

/// A certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateView {
    /// Who signed it.
    pub signed_by: AuthorityId,
    /// End of its validity.
    pub not_after: Timestamp,
    /// Digest of the names in it.
    pub names: String,
}

/// What is to be done with the authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthorityStep {
    /// There is none, or one that is not in use: make one.
    Establish,
    /// Make the next one.
    Introduce,
    /// The next one signs from now on.
    Switch,
    /// The old ones are trusted no more.
    Retire,
    /// Sign the revocation lists anew, before they are outdated.
    Relist,
}

/// What is to be done with the Secret of a party.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartyStep {
    /// Make a new certificate, and write the bundle.
    Issue,
    /// Write the bundle.
    Spread,
}

/// What a party's certificate should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wants<'a> {
    /// A certificate with the names of this digest.
    Certificate(&'a str),
    /// The bundle only.
    Bundle,
}

impl AuthorityView {
    /// Everything that a bundle holds.
    #[must_use]
    pub fn trusted(&self) -> BTreeSet<AuthorityId> {
        self.old.iter().chain(&self.signing).chain(&self.next).cloned().collect()
    }

    /// The one that signs now. Without a key for the signing one, what must be signed is signed by the next one.
    #[must_use]
    pub fn signer(&self) -> Option<&AuthorityId> {
        self.signing.as_ref().or(self.next.as_ref())
    }

    /// The first authority of a pair, or the one that follows a lost one: `trusted` are those that the parties still use.
    #[must_use]
    pub fn established(
        new: AuthorityId,
        trusted: BTreeSet<AuthorityId>,
        not_after: Timestamp,
    ) -> AuthorityView {
        let (signing, next) = if trusted.is_empty() { (Some(new), None) } else { (None, Some(new)) };
        AuthorityView { signing, next, old: trusted, not_after, lists: None }
    }

    /// After [`AuthorityStep::Introduce`].
    #[must_use]
    pub fn introduced(self, next: AuthorityId) -> AuthorityView {
        AuthorityView { next: Some(next), ..self }
    }

    /// After [`AuthorityStep::Switch`]; `not_after` is the end of the one that signs now.
    #[must_use]
    pub fn switched(self, not_after: Timestamp) -> AuthorityView {
        let old = self.old.into_iter().chain(self.signing).collect();
        AuthorityView { signing: self.next, next: None, old, not_after, lists: self.lists }
    }

    /// After [`AuthorityStep::Retire`].
    #[must_use]
    pub fn retired(self) -> AuthorityView {
        AuthorityView { old: BTreeSet::new(), ..self }
    }

    /// As annotations of its Secret. All are always written, so that none is left from an earlier state.
    #[must_use]
    pub fn annotations(&self) -> BTreeMap<String, String> {
        let mut pairs = vec![
            (ANNOTATION_CA_SIGNING, self.signing.clone().unwrap_or_default()),
            (ANNOTATION_CA_NEXT, self.next.clone().unwrap_or_default()),
            (ANNOTATION_CA_OLD, join(&self.old)),
            (ANNOTATION_NOT_AFTER, self.not_after.to_string()),
        ];
        if let Some(lists) = &self.lists {
            pairs.extend([
                (ANNOTATION_REVOKED, lists.mark.clone()),
                (ANNOTATION_REVOKED_BY, lists.by.clone()),
                (ANNOTATION_REVOKED_UNTIL, lists.until.to_string()),
            ]);
        }
        pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }

    /// From annotations of its Secret; `None` if they are not all there.
    #[must_use]
    pub fn read(annotations: &BTreeMap<String, String>) -> Option<AuthorityView> {
        let mark = |key: &str| annotations.get(key).map(|m| (!m.is_empty()).then(|| m.clone()));
        let lists = || {
            Some(ListsView {
                mark: annotations.get(ANNOTATION_REVOKED)?.clone(),
                by: annotations.get(ANNOTATION_REVOKED_BY)?.clone(),
                until: annotations.get(ANNOTATION_REVOKED_UNTIL)?.parse().ok()?,
            })
        };
        let view = AuthorityView {
            signing: mark(ANNOTATION_CA_SIGNING)?,
            next: mark(ANNOTATION_CA_NEXT)?,
            old: split(annotations.get(ANNOTATION_CA_OLD)?),
            not_after: annotations.get(ANNOTATION_NOT_AFTER)?.parse().ok()?,
            lists: lists(),
        };
        view.signer().is_some().then_some(view)
    }
}

impl PartyView {
    /// As annotations of the party's Secret.
    #[must_use]
    pub fn annotations(&self) -> BTreeMap<String, String> {
        let mut pairs = vec![
            (ANNOTATION_TRUSTS, join(&self.trusts)),
            (ANNOTATION_CHANGED_AT, self.changed_at.to_string()),
        ];
        if let Some(c) = &self.certificate {
            pairs.extend([
                (ANNOTATION_SIGNED_BY, c.signed_by.clone()),
                (ANNOTATION_NOT_AFTER, c.not_after.to_string()),
                (ANNOTATION_DNS_NAMES, c.names.clone()),
            ]);
        }
        pairs.extend((self.version > 0).then(|| (ANNOTATION_VERSION, self.version.to_string())));
        pairs.extend(self.lists.clone().map(|mark| (ANNOTATION_REVOKED, mark)));
        let reissue = self.reissue.as_ref().and_then(|reissue| serde_json::to_string(reissue).ok());
        pairs.extend(reissue.map(|text| (ANNOTATION_REISSUED, text)));
        let mut all = pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        self.server.write(&mut all);
        all
    }

    /// From annotations of the party's Secret; `None` if it does not say when it was written.
    #[must_use]
    pub fn read(annotations: &BTreeMap<String, String>) -> Option<PartyView> {
        let certificate = || {
            Some(CertificateView {
                signed_by: annotations.get(ANNOTATION_SIGNED_BY)?.clone(),
                not_after: annotations.get(ANNOTATION_NOT_AFTER)?.parse().ok()?,
                names: annotations.get(ANNOTATION_DNS_NAMES)?.clone(),
            })
        };
        Some(PartyView {
            trusts: annotations.get(ANNOTATION_TRUSTS).map(|t| split(t)).unwrap_or_default(),
            certificate: certificate(),
            changed_at: annotations.get(ANNOTATION_CHANGED_AT)?.parse().ok()?,
            server: ServerView::read(annotations),
            version: annotations.get(ANNOTATION_VERSION).map_or(0, |text| read_version(text)),
            lists: annotations.get(ANNOTATION_REVOKED).cloned(),
            reissue: annotations.get(ANNOTATION_REISSUED).and_then(|text| serde_json::from_str(text).ok()),
        })
    }
}

/// Whether an instance has a certificate of an authority that is none of these, or does not trust the one that signs. As long as one
/// installation looks after the pair, that cannot be: an authority signs when everybody trusts it, and goes when nobody uses what it has
/// signed. So another one has looked after it meanwhile: the pair was handed there and back, or this version of the operator was taken back
/// for a time. To sign with what is here would have the instances distrust each other until they have their Secrets.
#[must_use]
pub fn is_estranged(authority: &AuthorityView, instances: &[Option<PartyView>]) -> bool {
    let trusted = authority.trusted();
    let is_stranger = |party: &PartyView| {
        let signed_by = party.certificate.as_ref().map(|certificate| &certificate.signed_by);
        let trusts = |signing| party.trusts.is_empty() || party.trusts.contains(signing);
        signed_by.is_some_and(|mark| !trusted.contains(mark))
            || authority.signing.as_ref().is_some_and(|signing| !trusts(signing))
    };
    instances.iter().flatten().any(is_stranger)
}

/// What is to be done with the authority; `parties` are all Secrets with a bundle (`None`: missing), and `instances` those of the instances.
#[must_use]
pub fn decide_next(
    authority: Option<&AuthorityView>,
    instances: &[Option<PartyView>],
    parties: &[Option<PartyView>],
    policy: Policy,
    now: Timestamp,
) -> Option<AuthorityStep> {
    match authority {
        Some(authority) if is_estranged(authority, instances) => Some(AuthorityStep::Establish),
        _ => decide_authority(authority, parties, policy, now),
    }
}

/// The same of an authority that is the pair's.
#[must_use]
pub fn decide_authority(
    authority: Option<&AuthorityView>,
    parties: &[Option<PartyView>],
    policy: Policy,
    now: Timestamp,
) -> Option<AuthorityStep> {
    let Some(authority) = authority else { return Some(AuthorityStep::Establish) };
    let trusted = authority.trusted();
    // Every party has been told what it is to know, long enough ago.
    let settled = parties.iter().all(|party| {
        party.as_ref().is_some_and(|p| p.trusts == trusted && now.duration_since(p.changed_at) >= SPREAD)
    });
    let signed = parties.iter().flatten().filter_map(|p| p.certificate.as_ref());
    let all_new = signed.into_iter().all(|c| Some(&c.signed_by) == authority.signing.as_ref());
    if authority.next.is_some() {
        settled.then_some(AuthorityStep::Switch)
    } else if !authority.old.is_empty() {
        (settled && all_new).then_some(AuthorityStep::Retire)
    } else {
        // A certificate that is signed now must not outlive the one that signs it.
        let ends = |end: Timestamp| end.duration_since(now) < policy.validity;
        let introduce = ends(authority.not_after).then_some(AuthorityStep::Introduce);
        let outdated = authority.lists.as_ref().is_some_and(|lists| ends(lists.until));
        introduce.or(outdated.then_some(AuthorityStep::Relist))
    }
}

/// What is to be done with the Secret of one party.
#[must_use]
pub fn decide_party(
    authority: &AuthorityView,
    party: Option<&PartyView>,
    wants: Wants<'_>,
    policy: Policy,
    now: Timestamp,
) -> Option<PartyStep> {
    let Some(party) = party else { return Some(PartyStep::Issue) };
    if let Wants::Certificate(names) = wants
        && !is_good(authority, party.certificate.as_ref(), names, policy, now)
    {
        return Some(PartyStep::Issue);
    }
    // Clients judge no certificate but the server's, which may be a person's.
    let lists = authority.lists.as_ref().map(|lists| &lists.mark).filter(|_| wants != Wants::Bundle);
    (party.trusts != authority.trusted() || party.lists.as_ref() != lists).then_some(PartyStep::Spread)
}

fn is_good(
    authority: &AuthorityView,
    certificate: Option<&CertificateView>,
    names: &str,
    policy: Policy,
    now: Timestamp,
) -> bool {
    let Some(certificate) = certificate else { return false };
    let left = certificate.not_after.duration_since(now);
    match &authority.signing {
        Some(signing) => {
            certificate.signed_by == *signing && certificate.names == names && left >= policy.renew_before
        }
        // A new one would be signed by an authority that is still being introduced: only if it has to be.
        None => left > SignedDuration::ZERO && authority.trusted().contains(&certificate.signed_by),
    }
}

fn join(marks: &BTreeSet<AuthorityId>) -> String {
    marks.iter().cloned().collect::<Vec<_>>().join(",")
}

fn split(text: &str) -> BTreeSet<AuthorityId> {
    text.split(',').filter(|m| !m.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests;
