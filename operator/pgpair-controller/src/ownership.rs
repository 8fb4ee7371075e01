//! Whose an object is. An object that the pair did not make is never taken over, changed or deleted: names in a namespace are
//! anybody's, and what a pair owns goes with it.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::core::ObjectMeta;
use pgpair_api::names::LABEL_PAIR;
use pgpair_api::validate::ValidatedPair;
use pgpair_core::ids::InstanceId;

use crate::api::{Created, Object, Over, Requests};
use crate::error::{Error, NotOurs};
use crate::secrets;

/// Whether an object with this metadata is the pair's: the pair controls it; or nothing does and its label names the pair, as of
/// the volumes that outlive a pair, and of what was left when a pair was deleted without its objects.
#[must_use]
pub fn is_own(pair: &ValidatedPair, meta: &ObjectMeta) -> bool {
    let controller = meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
    match controller {
        Some(controller) => controller.uid == pair.owner.uid,
        None => meta.labels.as_ref().and_then(|l| l.get(LABEL_PAIR)) == Some(&pair.name.name),
    }
}

/// What an object of that kind and name would be applied over; `found` is what a cache has of it.
///
/// # Errors
/// It exists and is not the pair's, or the request failed.
pub async fn check<K: Object>(
    requests: &Requests,
    pair: &ValidatedPair,
    name: &str,
    found: Option<&ObjectMeta>,
) -> Result<Over, Error> {
    // Caches hold only what carries the label: what they lack may exist.
    if found.is_some_and(|found| is_own(pair, found)) {
        return Ok(Over::Own);
    }
    match requests.get_metadata::<K>(name).await? {
        None => Ok(Over::Nothing),
        Some(meta) if is_own(pair, &meta) => Ok(Over::Own),
        Some(_) => Err(not_ours::<K>(name)),
    }
}

/// The names that are not the pair's; any other error stays one.
///
/// # Errors
/// The request failed.
pub fn if_taken(checked: Result<(), Error>) -> Result<Vec<String>, Error> {
    match checked {
        Ok(()) => Ok(Vec::new()),
        Err(Error::NotOurs(NotOurs(names))) => Ok(names),
        Err(error) => Err(error),
    }
}

/// Whether the names of the objects that are not [`Children`](crate::children::Children) are free or the pair's.
///
/// # Errors
/// The names that are not; or a request failed.
pub async fn check_others(requests: &Requests, pair: &ValidatedPair) -> Result<(), Error> {
    let name = &pair.name;
    let mut taken = Vec::new();
    for secret in secrets::names(name) {
        taken.extend(if_taken(check::<Secret>(requests, pair, &secret, None).await.map(|_| ()))?);
    }
    for slice in [name.rw(), name.ro(), name.any()] {
        taken.extend(if_taken(check::<EndpointSlice>(requests, pair, &slice, None).await.map(|_| ()))?);
    }
    for i in InstanceId::ALL {
        taken.extend(if_taken(
            check::<StatefulSet>(requests, pair, &name.instance(i), None).await.map(|_| ()),
        )?);
    }
    taken.extend(if_taken(check::<Lease>(requests, pair, name.lease(), None).await.map(|_| ()))?);
    if taken.is_empty() { Ok(()) } else { Err(NotOurs(taken).into()) }
}

/// Server-side apply over an object of the pair, or over nothing; `found` is what is known of it.
///
/// # Errors
/// It exists and is not the pair's, or a request failed.
pub async fn apply<K: Object>(
    requests: &Requests,
    pair: &ValidatedPair,
    object: &K,
    found: Option<&ObjectMeta>,
) -> Result<K, Error> {
    let over = check::<K>(requests, pair, &object.name_any(), found).await?;
    requests.apply(object, over).await
}

/// As [`Requests::create`]; but one that exists already must be the pair's.
///
/// # Errors
/// It exists and is not the pair's, or a request failed.
pub async fn create<K: Object>(
    requests: &Requests,
    pair: &ValidatedPair,
    object: &K,
) -> Result<Created, Error> {
    match requests.create(object).await? {
        Created::Yes => Ok(Created::Yes),
        Created::AlreadyExists => {
            check::<K>(requests, pair, &object.name_any(), None).await.map(|_| Created::AlreadyExists)
        }
    }
}

/// An object of that kind and name is not the pair's.
#[must_use]
pub fn not_ours<K: Object>(name: &str) -> Error {
    NotOurs(vec![format!("{} {name}", K::kind(&()))]).into()
}
