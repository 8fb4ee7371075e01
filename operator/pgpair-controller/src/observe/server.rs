//! What is known of a certificate of a person for postgres.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use pgpair_api::validate::ValidatedPair;
use pgpair_core::ids::InstanceId;

use crate::api::Requests;
use crate::cache::Caches;
use crate::certificates::server::{Holder, ServerView, Told};
use crate::memory::Memory;
use crate::observed::{InstanceObserved, IssuerState, Observed, Offer, ServerObserved};
use crate::ownership::is_own;
use crate::secrets::party::Annotations;
use crate::secrets::server::fetch_offer;

/// How long it is known of the Secret whether it has changed: a renewed certificate is to be in effect within a minute, and no watch brings it.
const LOOK_AGAIN: Duration = Duration::from_secs(20);

/// The annotations of a Secret of the pair.
pub(super) fn annotations(caches: &Caches, pair: &ValidatedPair, secret: &str) -> Option<Annotations> {
    let key = ObjectRef::new(secret).within(&pair.name.namespace);
    let secret = caches.secrets.get(&key).filter(|secret| is_own(pair, &secret.metadata))?;
    Some(secret.annotations().clone())
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

/// Reads the Secret if it has changed, or if what is known of it may have ended meanwhile.
async fn look(requests: &Requests, memory: &mut Memory, pair: &ValidatedPair, secret: &str) -> Offer {
    let now = Timestamp::now();
    let known = memory.offer.clone().filter(|(name, ..)| name == secret);
    if let Some((_, _, offer, at)) = &known
        && at.elapsed() < LOOK_AGAIN
    {
        return offer.clone();
    }
    let before = known.as_ref().map_or(Offer::Unread, |(_, _, offer, _)| offer.clone());
    let version = match requests.get_metadata::<Secret>(secret).await {
        Ok(meta) => meta.map(|meta| meta.resource_version.unwrap_or_default()),
        Err(error) => return not_read(secret, &error, before),
    };
    let is_same = known.is_some_and(|(_, seen, ..)| seen == version);
    let lasts = matches!(&before, Offer::Good(good) if now < good.not_after);
    let offer = if is_same && lasts {
        before
    } else {
        match fetch_offer(requests, pair, secret, now).await {
            Ok(Ok(offered)) => Offer::Good(offered.summary),
            Ok(Err(why)) => Offer::Bad(why),
            Err(error) => return not_read(secret, &error, before),
        }
    };
    memory.offer = Some((secret.to_owned(), version, offer.clone(), Instant::now()));
    offer
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
