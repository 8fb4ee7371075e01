//! What is known of a certificate of a person for postgres.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use pgpair_api::validate::ValidatedPair;
use pgpair_core::ids::InstanceId;

use crate::api::Requests;
use crate::cache::Caches;
use crate::certificates::offered::NotTaken;
use crate::certificates::rotation::{AuthorityView, PartyView};
use crate::certificates::server::{Holder, ServerView, Told};
use crate::memory::{KnownOffer, Memory};
use crate::observed::{InstanceObserved, IssuerState, Observed, Offer, ServerObserved};
use crate::ownership::is_own;
use crate::secrets::Party;
use crate::secrets::party::{Annotations, certified_roles};
use crate::secrets::place::Place;
use crate::secrets::server::fetch_offer;

/// How long it is known of the Secret whether it has changed: a renewed certificate is to be in effect within a minute, and no watch brings it.
const LOOK_AGAIN: Duration = Duration::from_secs(20);

/// The annotations of a Secret of the pair.
fn annotations(caches: &Caches, pair: &ValidatedPair, place: &Place) -> Option<Annotations> {
    let meta = place.cached(caches, pair).filter(|meta| is_own(pair, meta))?;
    Some(meta.annotations.unwrap_or_default())
}

/// What the Secret of a party says of its certificate.
pub(super) fn party(caches: &Caches, pair: &ValidatedPair, party: Party<'_>) -> Option<PartyView> {
    PartyView::read(&annotations(caches, pair, &Place::of(party, pair))?)
}

/// What those of the instances say.
pub(super) fn certified(caches: &Caches, pair: &ValidatedPair) -> BTreeMap<InstanceId, PartyView> {
    let of = |i| Some((i, party(caches, pair, Party::Instance(i))?));
    InstanceId::ALL.into_iter().filter_map(of).collect()
}

/// What those of the roles with a certificate say.
pub(super) fn roles(caches: &Caches, pair: &ValidatedPair) -> BTreeMap<String, PartyView> {
    certified_roles(pair)
        .filter_map(|role| Some((role.to_owned(), party(caches, pair, Party::Role(role))?)))
        .collect()
}

/// What that of the authorities says.
pub(super) fn authority(caches: &Caches, pair: &ValidatedPair) -> Option<AuthorityView> {
    AuthorityView::read(&annotations(caches, pair, &Place::of_authority(pair))?)
}

/// `None`: the spec names none, and no instance has anything of one.
pub(super) async fn observe_server(
    requests: &Requests,
    memory: &mut Memory,
    pair: &ValidatedPair,
    observed: &Observed,
) -> Option<ServerObserved> {
    let source = pair.server_secret();
    let holder = |i: InstanceId| {
        let view = observed.certified.get(&i).map(|view| (view.server.clone(), view.version));
        let (server, version) = view.unwrap_or_default();
        Holder { view: server, version, told: told(observed.instance(i)) }
    };
    let (a, b) = (holder(InstanceId::A), holder(InstanceId::B));
    let is_own = |holder: &Holder| holder.view == ServerView::default();
    if source.is_none() && is_own(&a) && is_own(&b) {
        memory.offer = None;
        return None;
    }
    let offer = match &source {
        Some(secret) => look(requests, memory, pair, secret).await,
        None => Offer::Unread,
    };
    let issuer = pair.tls.issuer_ref.is_some().then_some(match memory.issued.is_kind_missing {
        true => IssuerState::KindMissing,
        false => IssuerState::Asked,
    });
    let issued = pair.name.server_tls_secret();
    let has_shown_issued = [&a, &b].iter().any(|holder| holder.view.from.as_ref() == Some(&issued));
    Some(ServerObserved { source, offer, issuer, has_shown_issued, a, b })
}

fn told(instance: &InstanceObserved) -> Told {
    if instance.pod.as_ref().is_none_or(|pod| !pod.running) {
        return Told::NoPod;
    }
    let report = instance.report.fresh().and_then(|report| report.certificates.as_ref());
    report.map_or(Told::Nothing, |told| Told::Uses(told.version, told.shown.clone()))
}

/// Reads the Secret if it has changed, if it is to be judged by other names, or if what is known of it may have ended meanwhile.
async fn look(requests: &Requests, memory: &mut Memory, pair: &ValidatedPair, secret: &str) -> Offer {
    let (now, names) = (Timestamp::now(), pair.server_names());
    let known = memory.offer.clone().filter(|known| known.secret == secret && known.names == names);
    if let Some(known) = &known
        && known.at.elapsed() < LOOK_AGAIN
    {
        return known.offer.clone();
    }
    let before = known.as_ref().map_or(Offer::Unread, |known| known.offer.clone());
    let version = match requests.get_metadata::<Secret>(secret).await {
        Ok(meta) => meta.map(|meta| meta.resource_version.unwrap_or_default()),
        Err(error) => return not_read(secret, &error, before),
    };
    let is_same = known.is_some_and(|known| known.version == version);
    let offer = if is_same && lasts(&before, now) {
        before
    } else {
        match fetch_offer(requests, pair, secret, now).await {
            Ok(Ok(offered)) => Offer::Good(offered.summary),
            Ok(Err(why)) => Offer::Bad(why),
            Err(error) => return not_read(secret, &error, before),
        }
    };
    let (secret, at) = (secret.to_owned(), Instant::now());
    memory.offer = Some(KnownOffer { secret, names, version, offer: offer.clone(), at });
    offer
}

/// Whether the same content is judged today as it was before.
fn lasts(offer: &Offer, now: Timestamp) -> bool {
    match offer {
        Offer::Unread => false,
        Offer::Good(good) => now < good.not_after,
        Offer::Bad(NotTaken::NotYetValid(begin)) => now < *begin,
        // What rustls says of a chain may depend on the day.
        Offer::Bad(NotTaken::Untrusted(_)) => false,
        Offer::Bad(_) => true,
    }
}

/// What was known counts on.
fn not_read(secret: &str, error: &crate::error::Error, before: Offer) -> Offer {
    tracing::warn!(
        secret,
        error = error as &dyn std::error::Error,
        "a Secret with a certificate is not readable"
    );
    before
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::SignedDuration;
    use k8s_openapi::ByteString;
    use serde_json::json;

    use super::*;
    use crate::certificates::{Purpose, new_authority, new_leaf};
    use crate::fixtures::valid;
    use crate::metrics::Metrics;
    use crate::mock_api::{Store, store_api};

    const PATH: &str = "/api/v1/namespaces/shop/secrets/db-cert";

    /// A Secret with a certificate for these names, in this version of it.
    fn offer(store: &Store, names: Vec<String>, version: &str) {
        let (begin, hour) = (Timestamp::now() - SignedDuration::from_secs(60), SignedDuration::from_hours(1));
        let ca = new_authority("company", begin, hour * 3).unwrap();
        let leaf = new_leaf(&ca, "db", names, Purpose::Server, begin, hour * 2).unwrap();
        let bytes = |text: &str| json!(ByteString(text.as_bytes().to_vec()));
        let data = json!({
            "tls.crt": bytes(&leaf.certificate), "tls.key": bytes(&leaf.key), "ca.crt": bytes(&ca.certificate),
        });
        let metadata = json!({"name": "db-cert", "resourceVersion": version});
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data});
        store.objects().insert(PATH.into(), secret);
    }

    #[tokio::test]
    async fn a_secret_is_read_when_it_has_changed_or_is_judged_anew_and_else_only_looked_at() {
        let (client, store) = store_api();
        let requests = Requests::new(client, "shop", Arc::new(Metrics::default()));
        let mut memory = Memory::default();
        let of = |spec| valid(json!({"tls": spec}));
        let pair = of(json!({"serverSecret": "db-cert"}));
        let with_name = of(json!({"serverSecret": "db-cert", "dnsNames": ["db.example.com"]}));
        let look_at = async |memory: &mut Memory, pair: &ValidatedPair| {
            let before = store.requests();
            let offer = look(&requests, memory, pair, "db-cert").await;
            (offer, store.requests() - before)
        };
        let later = |memory: &mut Memory| memory.offer.as_mut().unwrap().at -= LOOK_AGAIN;
        let missing = Offer::Bad(NotTaken::SecretMissing);
        assert_eq!(look_at(&mut memory, &pair).await, (missing.clone(), 2));
        later(&mut memory);
        assert_eq!(look_at(&mut memory, &pair).await, (missing, 1), "there still is none");
        later(&mut memory);
        offer(&store, pair.server_names(), "7");
        let (found, asked) = look_at(&mut memory, &pair).await;
        assert!(matches!(found, Offer::Good(_)) && asked == 2, "{found:?}");
        assert_eq!(look_at(&mut memory, &pair).await, (found.clone(), 0), "a moment later");
        later(&mut memory);
        assert_eq!(look_at(&mut memory, &pair).await, (found.clone(), 1), "its version is the same");
        let names = vec!["db.example.com".to_owned()];
        let refused = Offer::Bad(NotTaken::NamesMissing(names));
        assert_eq!(look_at(&mut memory, &with_name).await, (refused.clone(), 2), "the spec has another name");
        later(&mut memory);
        assert_eq!(look_at(&mut memory, &with_name).await, (refused, 1), "its content is as bad as before");
        offer(&store, with_name.server_names(), "8");
        later(&mut memory);
        assert!(matches!(look_at(&mut memory, &with_name).await, (Offer::Good(_), 2)));
    }

    #[test]
    fn what_depends_on_the_day_is_judged_again() {
        let now = Timestamp::now();
        let (before, after) = (now - SignedDuration::from_secs(1), now + SignedDuration::from_secs(1));
        for (why, lasts_now) in [
            (NotTaken::NotYetValid(after), true),
            (NotTaken::NotYetValid(before), false),
            (NotTaken::Expired(before), true),
            (NotTaken::Untrusted("expired".into()), false),
            (NotTaken::KeyDoesNotFit, true),
        ] {
            assert_eq!(lasts(&Offer::Bad(why.clone()), now), lasts_now, "{why}");
        }
    }
}
