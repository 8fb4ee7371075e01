//! A person's certificate for postgres: read in its Secret, and carried into the Secrets of the instances and of the clients, step by step as
//! [`decide_server`](crate::certificates::server::decide_server) says.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::{Resource, ResourceExt};
use pgpair_api::names::GROUP;
use pgpair_api::validate::ValidatedPair;
use pgpair_core::ids::InstanceId;
use pgpair_wire::certificates::{
    AUTHORITIES, FILES, GivenCertificates, SERVER_AUTHORITIES, SERVER_CERTIFICATE, SERVER_KEY, VERSION,
};
use pgpair_wire::names;

use super::authority;
use super::party::{Annotations, Party, failed, text};
use super::place::Place;
use crate::api::Requests;
use crate::certificates::offered::{self, NotTaken, Offered};
use crate::certificates::rotation::{PartyView, Policy};
use crate::certificates::server::ServerStep;
use crate::certificates::{Purpose, new_leaf};
use crate::error::Error;
use crate::ownership::{self, is_own};

/// Keys of a Secret.
pub(super) type Data = BTreeMap<String, ByteString>;

/// What is offered in the Secret that the spec names.
///
/// # Errors
/// A request failed.
pub async fn fetch_offer(
    requests: &Requests,
    pair: &ValidatedPair,
    secret: &str,
    now: Timestamp,
) -> Result<Result<Offered, NotTaken>, Error> {
    let found = requests.get::<Secret>(secret).await?;
    Ok(offered::read(found.as_ref(), &pair.server_names(), now))
}

/// Takes a step. A Secret that was changed since the step was decided keeps everything as it is: the next look decides anew.
///
/// # Errors
/// A request failed, or the pair's authority cannot sign.
pub async fn apply_server(
    requests: &Requests,
    pair: &ValidatedPair,
    step: &ServerStep,
    now: Timestamp,
) -> Result<(), Error> {
    let source = pair.server_secret();
    let offer = match (step, &source) {
        (ServerStep::Trust(_) | ServerStep::Show(Some(_)) | ServerStep::Forget(_), Some(secret)) => {
            fetch_offer(requests, pair, secret, now).await?.ok()
        }
        _ => None,
    };
    let offer = offer.as_ref();
    let trusts = |offer: Option<&Offered>| offer.map(|o| o.summary.trusts.clone()).unwrap_or_default();
    match step {
        ServerStep::None | ServerStep::Wait(_) => Ok(()),
        ServerStep::Trust(wanted) => match offer.filter(|offer| offer.summary.trusts == *wanted) {
            Some(offer) => trust(requests, pair, offer, now).await,
            None => Ok(()),
        },
        ServerStep::Show(None) => show_own(requests, pair, now).await,
        ServerStep::Show(Some(mark)) => match offer.filter(|offer| offer.summary.mark == *mark) {
            Some(offer) => show(requests, pair, offer, source.as_deref(), now).await,
            None => Ok(()),
        },
        ServerStep::Forget(wanted) if trusts(offer) == *wanted => forget(requests, pair, offer, now).await,
        ServerStep::Forget(_) => Ok(()),
    }
}

/// Those whose bundles hold the authorities of servers: all but the operator.
fn trusting(pair: &ValidatedPair) -> impl Iterator<Item = Party<'_>> {
    Party::FIXED.into_iter().filter(|party| *party != Party::Operator).chain(Party::roles(pair))
}

async fn trust(
    requests: &Requests,
    pair: &ValidatedPair,
    offer: &Offered,
    now: Timestamp,
) -> Result<(), Error> {
    for party in trusting(pair) {
        let amended = amend(requests, pair, party, now, |data, view| {
            if !offer.summary.trusts.is_subset(&view.server.trusts) {
                append(data, SERVER_AUTHORITIES, &offer.authorities);
                if party.is_client() {
                    append(data, AUTHORITIES, &offer.authorities);
                }
                view.server.trusts.extend(offer.summary.trusts.clone());
            }
        });
        amended.await?;
    }
    Ok(())
}

async fn show(
    requests: &Requests,
    pair: &ValidatedPair,
    offer: &Offered,
    from: Option<&str>,
    now: Timestamp,
) -> Result<(), Error> {
    for i in InstanceId::ALL {
        let amended = amend(requests, pair, Party::Instance(i), now, |data, view| {
            put(data, SERVER_CERTIFICATE, offer.chain.clone());
            put(data, SERVER_KEY, offer.key.clone());
            view.server.shows = Some(offer.summary.mark.clone());
            view.server.from = from.map(str::to_owned);
        });
        amended.await?;
        tracing::info!(instance = %i, mark = offer.summary.mark, "postgres gets the certificate of a Secret");
    }
    Ok(())
}

/// Back to a certificate of the pair's own authority.
async fn show_own(requests: &Requests, pair: &ValidatedPair, now: Timestamp) -> Result<(), Error> {
    let authority = authority::fetch(requests, pair).await?;
    let life = Policy::new(&pair.tls).validity;
    for i in InstanceId::ALL {
        let dns = Party::Instance(i).dns_names(pair).unwrap_or_default();
        let name = names::server(&pair.name.name, i);
        let own = new_leaf(authority.signer(), &name, dns, Purpose::Server, now, life);
        let own = own.map_err(|e| failed(pair, e))?;
        let amended = amend(requests, pair, Party::Instance(i), now, |data, view| {
            put(data, SERVER_CERTIFICATE, own.certificate.clone());
            put(data, SERVER_KEY, own.key.clone());
            (view.server.shows, view.server.from) = (None, None);
        });
        amended.await?;
        tracing::info!(instance = %i, "postgres gets a certificate of the pair's own authority");
    }
    Ok(())
}

/// Only the authorities of `offer` are left, beside the pair's own.
async fn forget(
    requests: &Requests,
    pair: &ValidatedPair,
    offer: Option<&Offered>,
    now: Timestamp,
) -> Result<(), Error> {
    let place = Place::of(Party::Operator, pair);
    let found = place.requests(requests, pair).get::<Secret>(place.name()).await?;
    let bundle = found.filter(|secret| is_own(pair, secret.meta()));
    let Some(bundle) = bundle.and_then(|secret| text(&secret, place.name(), AUTHORITIES).ok()) else {
        return Ok(());
    };
    let theirs = offer.map(|offer| offer.authorities.clone()).unwrap_or_default();
    for party in trusting(pair) {
        let amended = amend(requests, pair, party, now, |data, view| {
            data.remove(SERVER_AUTHORITIES);
            if !theirs.is_empty() {
                put(data, SERVER_AUTHORITIES, theirs.clone());
            }
            if party.is_client() {
                put(data, AUTHORITIES, joined(&bundle, &theirs));
            }
            view.server.trusts = offer.map(|offer| offer.summary.trusts.clone()).unwrap_or_default();
        });
        amended.await?;
    }
    Ok(())
}

/// Changes the Secret of a party, if there is one, over the version that was read. An agent that uses versions is told another one.
pub(super) async fn amend(
    requests: &Requests,
    pair: &ValidatedPair,
    party: Party<'_>,
    now: Timestamp,
    change: impl FnOnce(&mut Data, &mut PartyView),
) -> Result<(), Error> {
    let place = Place::of(party, pair);
    let (name, there) = (place.name(), place.requests(requests, pair));
    let Some(current) = there.get::<Secret>(name).await? else { return Ok(()) };
    if !is_own(pair, current.meta()) {
        return Err(ownership::not_ours::<Secret>(name));
    }
    let Some(mut view) = PartyView::read(current.annotations()) else { return Ok(()) };
    let mut data = current.data.clone().unwrap_or_default();
    let before = (data.clone(), view.clone());
    change(&mut data, &mut view);
    if before == (data.clone(), view.clone()) {
        return Ok(());
    }
    if let Party::Instance(_) = party {
        view.version = next_version(view.version, now);
        put(&mut data, VERSION, view.version.to_string());
    }
    let mut annotations = others(&current);
    annotations.extend(view.annotations());
    let mut secret = place.build(pair, [], annotations);
    secret.data = Some(data);
    secret.metadata.resource_version = current.resource_version();
    ownership::apply(&there, pair, &secret, Some(current.meta())).await.map(|_| ())
}

/// A version after this one; by the clock, so that it grows also after a Secret was lost.
pub(super) fn next_version(before: u64, now: Timestamp) -> u64 {
    u64::try_from(now.as_millisecond()).unwrap_or_default().max(before + 1)
}

/// Annotations of ours that do not tell of certificates.
fn others(secret: &Secret) -> Annotations {
    let mut known = BTreeMap::new();
    if let Some(view) = PartyView::read(secret.annotations()) {
        known = view.annotations();
    }
    let ours = |key: &str| key.split_once('/').is_some_and(|(group, _)| group == GROUP);
    let all = secret.annotations().iter().filter(|(key, _)| ours(key) && !known.contains_key(*key));
    all.map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn put(data: &mut Data, key: &str, text: String) {
    data.insert(key.to_owned(), ByteString(text.into_bytes()));
}

fn append(data: &mut Data, key: &str, pem: &str) {
    let before = data.get(key).and_then(|b| String::from_utf8(b.0.clone()).ok()).unwrap_or_default();
    put(data, key, joined(&before, pem));
}

/// One PEM text of two, whether or not the first one ends with a line break.
pub(super) fn joined(one: &str, other: &str) -> String {
    let between = if one.is_empty() || one.ends_with('\n') { "" } else { "\n" };
    format!("{one}{between}{other}")
}

/// What the agent of an instance is given: its Secret.
///
/// # Errors
/// A request failed.
pub async fn fetch_certificates(
    requests: &Requests,
    pair: &ValidatedPair,
    i: InstanceId,
) -> Result<Option<GivenCertificates>, Error> {
    let secret = requests.get::<Secret>(&pair.name.tls_secret(i)).await?;
    let Some(secret) = secret.filter(|secret| is_own(pair, secret.meta())) else { return Ok(None) };
    let data = secret.data.unwrap_or_default().into_iter().filter(|(key, _)| FILES.contains(&key.as_str()));
    let files = data.filter_map(|(key, bytes)| Some((key, String::from_utf8(bytes.0).ok()?)));
    Ok(Some(GivenCertificates { files: files.collect() }))
}

#[cfg(test)]
mod tests;
