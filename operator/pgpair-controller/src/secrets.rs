//! The Secrets of a pair: made when they are missing, renewed when they near their end, else neither read nor touched. Where each of them
//! is, [`place`] says.

mod authority;
mod clients;
mod former;
pub mod issued;
pub mod orphans;
pub(crate) mod party;
pub mod passwords;
pub mod place;
pub mod server;

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::{Resource, ResourceExt};
use pgpair_api::names::{ANNOTATION_NOT_AFTER, PairName};
use pgpair_api::validate::ValidatedPair;
use pgpair_core::ids::InstanceId;
use pgpair_wire::certificates::{REVOKED, SERVER_AUTHORITIES, SERVER_CERTIFICATE, SERVER_KEY, VERSION};
use pgpair_wire::names;

use crate::api::Requests;
use crate::certificates::revocation::{Leaf, Reissue};
use crate::certificates::rotation::{
    AuthorityView, CertificateView, PartyStep, PartyView, Policy, Wants, decide_next, decide_party,
};
use crate::certificates::{Pem, Purpose, names_of, new_leaf};
use crate::error::Error;
use crate::ownership::{self, Taken};
use crate::plan::Reissuing;
use authority::CertificateAuthority;
pub use authority::revoke;
use party::{Annotations, failed};
pub use party::{ClientRole, Extent, Party, text};
use place::Place;
use server::{joined, next_version};

/// Makes what is missing, renews what nears its end, and takes the next step of a change of the authority. `known` gives
/// the annotations of a Secret, `None` if there is no such Secret. The contents are read only when there is
/// something to do.
///
/// # Errors
/// A request failed, the authority cannot sign, or a Secret that the user named has no password.
pub async fn apply_secrets(
    requests: &Requests,
    pair: &ValidatedPair,
    extent: Extent,
    known: impl Fn(&Place) -> Option<Annotations>,
    now: Timestamp,
) -> Result<(), Error> {
    let certified = certify(requests, pair, extent, &known, now).await;
    // Also if something else could not be written: a key must not lie beside the pair for that.
    certified.and(former::delete(requests, pair, known).await)
}

async fn certify(
    requests: &Requests,
    pair: &ValidatedPair,
    extent: Extent,
    known: impl Fn(&Place) -> Option<Annotations>,
    now: Timestamp,
) -> Result<(), Error> {
    let policy = Policy::new(&pair.tls);
    let seen = known(&Place::of_authority(pair)).as_ref().and_then(AuthorityView::read);
    let parties = Party::of(pair, |place| known(place).is_some());
    let view_of = |p: &Party| known(&Place::of(*p, pair)).as_ref().and_then(PartyView::read);
    let views: Vec<Option<PartyView>> = parties.iter().map(view_of).collect();
    let instances = InstanceId::ALL.map(|i| view_of(&Party::Instance(i)));
    let mut authority = None;
    if let Some(step) = decide_next(seen.as_ref(), &instances, &views, policy, now) {
        authority = Some(authority::apply_step(requests, pair, step, seen.as_ref(), now).await?);
    }
    let Some(view) = authority.as_ref().map(|a| &a.view).or(seen.as_ref()) else { return Ok(()) };
    let mut steps = Vec::new();
    for (party, has) in parties.into_iter().zip(&views) {
        let names = party.names(pair, extent, has.as_ref());
        let wants = names.as_deref().map_or(Wants::Bundle, Wants::Certificate);
        let step = decide_party(view, has.as_ref(), wants, policy, now);
        steps.extend(step.filter(|step| extent.has(party, *step)).map(|step| (party, step, has.as_ref())));
    }
    if steps.is_empty() {
        return Ok(());
    }
    let authority = match authority {
        Some(authority) => authority,
        None => authority::fetch(requests, pair).await?,
    };
    let numbers = views.iter().flatten().any(|view| view.version > 0);
    let writer = Writer { requests, pair, extent, authority: &authority, policy, now, numbers };
    let (mut taken, mut failed) = (Taken::default(), None);
    for (party, step, has) in steps {
        // One Secret that cannot be written must not keep the certificates of the others from being renewed.
        if let Err(error) = taken.note(writer.carry_out(party, step, has).await) {
            failed = failed.or(Some(error));
        }
    }
    failed.map_or_else(|| taken.none(), Err)
}

/// Makes the certificates of a party anew, unless that was done for this order, and notes which one is to be revoked. A certificate of a
/// person stays.
///
/// # Errors
/// A request failed, or the authority cannot sign.
pub async fn reissue(
    requests: &Requests,
    pair: &ValidatedPair,
    order: &Reissuing,
    now: Timestamp,
) -> Result<(), Error> {
    let party = order.party();
    let place = Place::of(party, pair);
    let (name, there) = (place.name(), place.requests(requests, pair));
    let Some(current) = there.get::<Secret>(name).await? else { return Ok(()) };
    if !ownership::is_own(pair, current.meta()) {
        return Err(ownership::not_ours::<Secret>(name));
    }
    let PartyView { certificate, reissue: before, .. } =
        PartyView::read(current.annotations()).unwrap_or_default();
    let Some(certificate) = certificate.filter(|_| before.as_ref().is_none_or(|done| done.by != order.word))
    else {
        return Ok(());
    };
    let pem = text(&current, name, order.key())?;
    let Some(replaced) = Leaf::read(&pem, certificate.signed_by) else {
        return Err(Error::Secret { name: name.to_owned(), key: order.key() });
    };
    let authority = authority::fetch(requests, pair).await?;
    // An order that came to nothing must not leave its certificate good for whoever has a copy of it.
    let owed = before.into_iter().flat_map(|before| before.replaced).filter(|leaf| authority.owes(leaf));
    let replaced = owed.chain([replaced]).collect();
    let policy = Policy::new(&pair.tls);
    let writer =
        Writer { requests, pair, extent: Extent::Spec, authority: &authority, policy, now, numbers: true };
    let names = party.dns_names(pair).unwrap_or_default();
    let (mut secret, built) = writer.build_tls(party, names).map_err(|e| failed(pair, e))?;
    writer.keep_given(party, &mut secret, built, &current);
    let mut view = PartyView::read(secret.annotations()).unwrap_or_default();
    view.reissue = Some(Reissue { by: order.word.clone(), what: order.what, replaced });
    writer.number(party, &mut secret, view);
    ownership::apply(&there, pair, &secret, Some(current.meta())).await?;
    tracing::info!(secret = name, word = order.word, "certificates were made anew for an order to revoke");
    Ok(())
}

/// The end of each certificate of a pair, by its Secret as people are told of it; what is not known is left out. `known` as in
/// [`apply_secrets`].
#[must_use]
pub fn read_ends(
    pair: &ValidatedPair,
    known: impl Fn(&Place) -> Option<Annotations>,
) -> Vec<(String, Timestamp)> {
    let certified = Party::FIXED.into_iter().filter(|p| !p.is_client()).chain(Party::roles(pair));
    let places = certified.map(|p| Place::of(p, pair)).chain([Place::of_authority(pair)]);
    let end = |place: Place| {
        let end = known(&place)?.get(ANNOTATION_NOT_AFTER)?.parse().ok()?;
        Some((place.told(pair), end))
    };
    places.filter_map(end).collect()
}

struct Writer<'a> {
    requests: &'a Requests,
    pair: &'a ValidatedPair,
    extent: Extent,
    authority: &'a CertificateAuthority,
    policy: Policy,
    now: Timestamp,
    /// Whether the pair uses versions: then a Secret that is made anew must not seem to be older than the one that is lost.
    numbers: bool,
}

impl Writer<'_> {
    async fn carry_out(
        &self,
        party: Party<'_>,
        step: PartyStep,
        has: Option<&PartyView>,
    ) -> Result<(), Error> {
        match (step, party) {
            (PartyStep::Issue, Party::Clients(role)) => self.create_clients(party, role).await,
            (PartyStep::Issue, Party::Instance(_) | Party::Operator | Party::Role(_)) => {
                self.apply_certificate(party, has).await
            }
            (PartyStep::Spread, _) => self.apply_bundle(party).await.map(|_| ()),
        }
    }

    /// A new certificate; all of the Secret is written, but what it has of a person's.
    async fn apply_certificate(&self, party: Party<'_>, has: Option<&PartyView>) -> Result<(), Error> {
        let place = Place::of(party, self.pair);
        let (name, there) = (place.name(), place.requests(self.requests, self.pair));
        let may_be_given = has.is_some_and(|has| has.version > 0 || has.reissue.is_some())
            || self.pair.server_secret().is_some();
        let current = match self.extent == Extent::Upkeep || may_be_given {
            true => there.get::<Secret>(name).await?,
            false => None,
        };
        let names = match self.extent {
            Extent::Spec => None,
            Extent::Upkeep => current.as_ref().and_then(|s| names_of(&text(s, name, "tls.crt").ok()?)),
        };
        let names = names.or_else(|| party.dns_names(self.pair)).unwrap_or_default();
        let (mut secret, view) = self.build_tls(party, names).map_err(|e| failed(self.pair, e))?;
        match (&current, party) {
            (Some(current), _) => self.keep_given(party, &mut secret, view, current),
            (None, Party::Role(_)) => self.give_server_authorities(party, &mut secret, view).await?,
            (None, _) => self.number(party, &mut secret, view),
        }
        ownership::apply(&there, self.pair, &secret, None).await.map(|_| ())
    }

    /// Keeps in a new Secret what the one before has beside the certificates of the pair's authority.
    fn keep_given(&self, party: Party<'_>, secret: &mut Secret, mut view: PartyView, current: &Secret) {
        let Some(before) = PartyView::read(current.annotations()) else { return };
        let shown = [SERVER_CERTIFICATE, SERVER_KEY].into_iter().filter(|_| before.server.shows.is_some());
        let kept = shown.chain([SERVER_AUTHORITIES]);
        let found = kept.filter_map(|key| Some((key.to_owned(), current.data.as_ref()?.get(key)?.clone())));
        let data = secret.data.get_or_insert_default();
        data.extend(found);
        let theirs = data.get(SERVER_AUTHORITIES).map(|theirs| String::from_utf8_lossy(&theirs.0));
        let bundle = self.bundle(party, theirs.as_deref());
        data.insert("ca.crt".to_owned(), ByteString(bundle.into_bytes()));
        (view.server, view.reissue, view.version) = (before.server, before.reissue, before.version);
        self.number(party, secret, view);
        secret.metadata.resource_version = current.resource_version();
    }

    /// What a party trusts: the pair's authorities, and a client those of a person's certificate as well.
    fn bundle(&self, party: Party<'_>, theirs: Option<&str>) -> String {
        let ours = self.authority.bundle();
        theirs.filter(|_| party.is_client()).map_or_else(|| ours.clone(), |theirs| joined(&ours, theirs))
    }

    /// What a client trusts beside the pair's authority, if there is anything.
    async fn give_server_authorities(
        &self,
        party: Party<'_>,
        secret: &mut Secret,
        mut view: PartyView,
    ) -> Result<(), Error> {
        let Some((theirs, trusts)) = self.fetch_server_authorities().await? else { return Ok(()) };
        let given = [("ca.crt", self.bundle(party, Some(&theirs))), (SERVER_AUTHORITIES, theirs)];
        let given = given.map(|(key, text)| (key.to_owned(), ByteString(text.into_bytes())));
        secret.data.get_or_insert_default().extend(given);
        view.server.trusts = trusts;
        secret.metadata.annotations = Some(view.annotations());
        Ok(())
    }

    /// Gives a Secret of an instance the version after the one that it has, if it is to have any.
    fn number(&self, party: Party<'_>, secret: &mut Secret, mut view: PartyView) {
        let is_instance = matches!(party, Party::Instance(_));
        if is_instance && (self.numbers || view.version > 0 || view.lists.is_some()) {
            view.version = next_version(view.version, self.now);
            let version = ByteString(view.version.to_string().into_bytes());
            secret.data.get_or_insert_default().insert(VERSION.to_owned(), version);
        }
        secret.metadata.annotations = Some(view.annotations());
    }

    fn build_tls(&self, party: Party<'_>, dns: Vec<String>) -> Result<(Secret, PartyView), rcgen::Error> {
        let view = PartyView {
            trusts: self.authority.view.trusted(),
            certificate: Some(CertificateView {
                signed_by: self.authority.view.signer().cloned().unwrap_or_default(),
                not_after: self.now.checked_add(self.policy.validity).unwrap_or(self.now),
                names: party.mark(&dns),
            }),
            changed_at: self.now,
            lists: self.authority.view.lists.as_ref().map(|lists| lists.mark.clone()),
            ..PartyView::default()
        };
        let pair = &self.pair.name.name;
        let sign = |name: &str, hosts: Vec<String>, purpose: Purpose| {
            new_leaf(self.authority.signer(), name, hosts, purpose, self.now, self.policy.validity)
        };
        let mut data = vec![("ca.crt", self.authority.bundle())];
        data.extend(self.authority.lists().map(|lists| (REVOKED, lists)));
        match party {
            Party::Instance(i) => {
                let agent = names::agent(pair, i);
                // What postgres and its children read opens nothing of the agent's: names and purposes differ.
                let (server, restore) = (names::server(pair, i), names::restore(pair, i));
                data.extend(named(["tls.crt", "tls.key"], sign(&agent, dns.clone(), Purpose::Both)?));
                data.extend(named(["server.crt", "server.key"], sign(&server, dns, Purpose::Server)?));
                let client = |name: &str| sign(name, Vec::new(), Purpose::Client);
                data.extend(named(["replication.crt", "replication.key"], client(names::REPLICATION_ROLE)?));
                data.extend(named(["restore.crt", "restore.key"], client(&restore)?));
            }
            Party::Operator | Party::Clients(_) => {
                data.extend(named(["tls.crt", "tls.key"], sign(names::OPERATOR, dns, Purpose::Client)?));
            }
            Party::Role(role) => {
                data.extend(named(["tls.crt", "tls.key"], sign(role, dns, Purpose::Client)?))
            }
        }
        Ok((Place::of(party, self.pair).build(self.pair, data, view.annotations()), view))
    }

    /// The bundle only; the rest stays as it is. `false`: there is no such Secret.
    async fn apply_bundle(&self, party: Party<'_>) -> Result<bool, Error> {
        let place = Place::of(party, self.pair);
        let (name, there) = (place.name(), place.requests(self.requests, self.pair));
        let Some(current) = there.get::<Secret>(name).await? else { return Ok(false) };
        let mut data = current.data.clone().unwrap_or_default();
        let before = PartyView::read(current.annotations()).unwrap_or_default();
        let mut view = PartyView { trusts: self.authority.view.trusted(), changed_at: self.now, ..before };
        let mut put = |key: &str, text: String| data.insert(key.to_owned(), ByteString(text.into_bytes()));
        let theirs = text(&current, name, SERVER_AUTHORITIES).ok();
        put("ca.crt", self.bundle(party, theirs.as_deref()));
        view.lists = None;
        if let (false, Some(lists)) = (matches!(party, Party::Clients(_)), self.authority.lists()) {
            put(REVOKED, lists);
            view.lists = self.authority.view.lists.as_ref().map(|lists| lists.mark.clone());
        } else {
            data.remove(REVOKED);
        }
        let mut secret = place.build(self.pair, [], Annotations::new());
        // All of it is applied: what is left out of an apply would be taken away.
        secret.data = Some(data);
        self.number(party, &mut secret, view);
        secret.metadata.resource_version = current.resource_version();
        ownership::apply(&there, self.pair, &secret, Some(current.meta())).await?;
        Ok(true)
    }

    /// A password and addresses, unless there are some already.
    async fn create_clients(&self, party: Party<'_>, role: ClientRole) -> Result<(), Error> {
        if self.apply_bundle(party).await? {
            return Ok(()); // it was there, without a word about its bundle
        }
        let password = clients::fetch_password(self.requests, self.pair, role).await?;
        let trusts = self.authority.view.trusted();
        let mut view = PartyView { trusts, changed_at: self.now, ..PartyView::default() };
        let theirs = self.fetch_server_authorities().await?;
        if let Some((_, trusts)) = &theirs {
            view.server.trusts.clone_from(trusts);
        }
        let bundle = self.bundle(party, theirs.as_ref().map(|(pem, _)| pem.as_str()));
        let mut data = clients::build_content(self.pair, role, &password, bundle);
        data.extend(theirs.map(|(pem, _)| (SERVER_AUTHORITIES, pem)));
        let secret = Place::of(party, self.pair).build(self.pair, data, view.annotations());
        ownership::create(self.requests, self.pair, &secret).await?;
        Ok(())
    }
}

impl Writer<'_> {
    /// The authorities of a certificate of a person, as an instance has them, with their marks.
    async fn fetch_server_authorities(&self) -> Result<Option<(String, BTreeSet<String>)>, Error> {
        if self.pair.server_secret().is_none() && !self.numbers {
            return Ok(None);
        }
        let name = self.pair.name.tls_secret(InstanceId::A);
        let Some(secret) = self.requests.get::<Secret>(&name).await? else { return Ok(None) };
        let Ok(pem) = text(&secret, &name, SERVER_AUTHORITIES) else { return Ok(None) };
        Ok(PartyView::read(secret.annotations()).map(|view| (pem, view.server.trusts)))
    }
}

fn named([certificate, key]: [&'static str; 2], pem: Pem) -> [(&'static str, String); 2] {
    [(certificate, pem.certificate), (key, pem.key)]
}

/// The names of those in the pair's namespace.
#[must_use]
pub fn names(name: &PairName) -> Vec<String> {
    let of_instances = InstanceId::ALL.into_iter().map(|i| name.tls_secret(i));
    of_instances.chain([name.app_secret(), name.superuser_secret(), name.verifiers_secret()]).collect()
}

/// The names of those that earlier versions of the operator kept there.
#[must_use]
pub fn former_names(name: &PairName) -> [String; 2] {
    [name.former_authority_secret(), name.former_operator_tls_secret()]
}

#[cfg(test)]
mod tests;
