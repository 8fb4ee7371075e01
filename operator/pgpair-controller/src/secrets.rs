//! The Secrets of a pair: made when they are missing, renewed when they near their end, else neither read nor touched.

mod authority;
mod clients;
mod party;
pub mod passwords;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{Resource, ResourceExt};
use pgpair_api::names::{ANNOTATION_NOT_AFTER, PairName};
use pgpair_api::validate::ValidatedPair;
use pgpair_wire::names;

use crate::api::Requests;
use crate::certificates::rotation::{
    AuthorityView, CertificateView, PartyStep, PartyView, Policy, Wants, decide_authority, decide_party,
};
use crate::certificates::{Pem, Purpose, names_of, new_leaf};
use crate::error::Error;
use crate::ownership::{self, Taken};
use authority::CertificateAuthority;
use party::{Annotations, Party, build_secret, failed};
pub use party::{ClientRole, Extent, text};

/// Makes what is missing, renews what nears its end, and takes the next step of a change of the authority. `known` gives
/// the annotations of a Secret by its name, `None` if there is no such Secret. The contents are read only when there is
/// something to do.
///
/// # Errors
/// A request failed, the authority cannot sign, or a Secret that the user named has no password.
pub async fn apply_secrets(
    requests: &Requests,
    pair: &ValidatedPair,
    extent: Extent,
    known: impl Fn(&str) -> Option<Annotations>,
    now: Timestamp,
) -> Result<(), Error> {
    let policy = Policy::new(&pair.tls);
    let seen = known(&pair.name.ca_secret()).as_ref().and_then(AuthorityView::read);
    let parties = Party::of(pair, |name| known(name).is_some());
    let view_of = |p: &Party| known(&p.secret(&pair.name)).as_ref().and_then(PartyView::read);
    let views: Vec<Option<PartyView>> = parties.iter().map(view_of).collect();
    let mut authority = None;
    if let Some(step) = decide_authority(seen.as_ref(), &views, policy, now) {
        authority = Some(authority::apply_step(requests, pair, step, seen.as_ref(), now).await?);
    }
    let Some(view) = authority.as_ref().map(|a| &a.view).or(seen.as_ref()) else { return Ok(()) };
    let mut steps = Vec::new();
    for (party, has) in parties.into_iter().zip(&views) {
        let names = party.names(pair, extent, has.as_ref());
        let wants = names.as_deref().map_or(Wants::Bundle, Wants::Certificate);
        let step = decide_party(view, has.as_ref(), wants, policy, now);
        steps.extend(step.filter(|step| extent.has(party, *step)).map(|step| (party, step)));
    }
    if steps.is_empty() {
        return Ok(());
    }
    let authority = match authority {
        Some(authority) => authority,
        None => authority::fetch(requests, pair).await?,
    };
    let writer = Writer { requests, pair, extent, authority: &authority, policy, now };
    let (mut taken, mut failed) = (Taken::default(), None);
    for (party, step) in steps {
        // One Secret that cannot be written must not keep the certificates of the others from being renewed.
        if let Err(error) = taken.note(writer.carry_out(party, step).await) {
            failed = failed.or(Some(error));
        }
    }
    failed.map_or_else(|| taken.none(), Err)
}

/// The end of each certificate of a pair, by the name of its Secret; what is not known is left out. `known` as in [`apply_secrets`].
#[must_use]
pub fn read_ends(name: &PairName, known: impl Fn(&str) -> Option<Annotations>) -> Vec<(String, Timestamp)> {
    let certified = Party::ALL.into_iter().filter(|p| !matches!(p, Party::Clients(_)));
    let names = certified.map(|p| p.secret(name)).chain([name.ca_secret()]);
    let end = |secret: String| {
        let end = known(&secret)?.get(ANNOTATION_NOT_AFTER)?.parse().ok()?;
        Some((secret, end))
    };
    names.filter_map(end).collect()
}

struct Writer<'a> {
    requests: &'a Requests,
    pair: &'a ValidatedPair,
    extent: Extent,
    authority: &'a CertificateAuthority,
    policy: Policy,
    now: Timestamp,
}

impl Writer<'_> {
    async fn carry_out(&self, party: Party, step: PartyStep) -> Result<(), Error> {
        match (step, party) {
            (PartyStep::Issue, Party::Clients(role)) => self.create_clients(party, role).await,
            (PartyStep::Issue, Party::Instance(_) | Party::Operator) => self.apply_certificate(party).await,
            (PartyStep::Spread, _) => self.apply_bundle(party).await.map(|_| ()),
        }
    }

    /// A new certificate; all of the Secret is written.
    async fn apply_certificate(&self, party: Party) -> Result<(), Error> {
        let names = match self.extent {
            Extent::Spec => None,
            Extent::Upkeep => self.fetch_names(party).await?,
        };
        let names = names.or_else(|| party.dns_names(self.pair)).unwrap_or_default();
        let secret = self.build_tls(party, names).map_err(|e| failed(self.pair, e))?;
        ownership::apply(self.requests, self.pair, &secret, None).await.map(|_| ())
    }

    /// The names in the certificate that is there; `None` if there is none.
    async fn fetch_names(&self, party: Party) -> Result<Option<Vec<String>>, Error> {
        let name = party.secret(&self.pair.name);
        let Some(secret) = self.requests.get::<Secret>(&name).await? else { return Ok(None) };
        Ok(text(&secret, &name, "tls.crt").ok().and_then(|pem| names_of(&pem)))
    }

    fn build_tls(&self, party: Party, dns: Vec<String>) -> Result<Secret, rcgen::Error> {
        let view = PartyView {
            trusts: self.authority.view.trusted(),
            certificate: Some(CertificateView {
                signed_by: self.authority.view.signer().cloned().unwrap_or_default(),
                not_after: self.now.checked_add(self.policy.validity).unwrap_or(self.now),
                names: party.mark(&dns),
            }),
            changed_at: self.now,
        };
        let pair = &self.pair.name.name;
        let sign = |name: &str, hosts: Vec<String>, purpose: Purpose| {
            new_leaf(self.authority.signer(), name, hosts, purpose, self.now, self.policy.validity)
        };
        let mut data = vec![("ca.crt", self.authority.bundle())];
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
        }
        Ok(build_secret(self.pair, &party.secret(&self.pair.name), data, view.annotations()))
    }

    /// The bundle only; the rest stays as it is. `false`: there is no such Secret.
    async fn apply_bundle(&self, party: Party) -> Result<bool, Error> {
        let name = party.secret(&self.pair.name);
        let Some(current) = self.requests.get::<Secret>(&name).await? else { return Ok(false) };
        let certificate = PartyView::read(current.annotations()).and_then(|view| view.certificate);
        let view = PartyView { trusts: self.authority.view.trusted(), certificate, changed_at: self.now };
        let mut secret =
            build_secret(self.pair, &name, [("ca.crt", self.authority.bundle())], view.annotations());
        // All of it is applied: what is left out of an apply would be taken away.
        let mut data = current.data.clone().unwrap_or_default();
        data.extend(secret.data.take().unwrap_or_default());
        secret.data = Some(data);
        secret.metadata.resource_version = current.resource_version();
        ownership::apply(self.requests, self.pair, &secret, Some(current.meta())).await?;
        Ok(true)
    }

    /// A password and addresses, unless there are some already.
    async fn create_clients(&self, party: Party, role: ClientRole) -> Result<(), Error> {
        if self.apply_bundle(party).await? {
            return Ok(()); // it was there, without a word about its bundle
        }
        let password = clients::fetch_password(self.requests, self.pair, role).await?;
        let view =
            PartyView { trusts: self.authority.view.trusted(), certificate: None, changed_at: self.now };
        let data = clients::build_content(self.pair, role, &password, self.authority.bundle());
        let secret = build_secret(self.pair, &party.secret(&self.pair.name), data, view.annotations());
        ownership::create(self.requests, self.pair, &secret).await?;
        Ok(())
    }
}

fn named([certificate, key]: [&'static str; 2], pem: Pem) -> [(&'static str, String); 2] {
    [(certificate, pem.certificate), (key, pem.key)]
}

/// The names of all of them.
#[must_use]
pub fn names(name: &PairName) -> Vec<String> {
    Party::ALL
        .into_iter()
        .map(|party| party.secret(name))
        .chain([name.ca_secret(), name.verifiers_secret()])
        .collect()
}

#[cfg(test)]
mod tests;
