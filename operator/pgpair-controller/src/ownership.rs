//! Whose an object is. An object that the pair did not make is never taken over, changed or deleted: names in a namespace are
//! anybody's, and what a pair owns goes with it.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::core::ObjectMeta;
use pgpair_api::names::{LABEL_OF_UID, LABEL_PAIR};
use pgpair_api::validate::ValidatedPair;
use pgpair_core::ids::InstanceId;

use crate::api::{Created, Object, Over, Requests};
use crate::error::{Error, NotOurs};
use crate::secrets;

/// Whether an object with this metadata is the pair's: the pair controls it; or nothing does and its label names the pair, as of
/// the volumes that outlive a pair, of what was left when a pair was deleted without its objects, and, with the uid, of what is in the
/// operator's namespace.
#[must_use]
pub fn is_own(pair: &ValidatedPair, meta: &ObjectMeta) -> bool {
    let controller = meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
    match controller {
        Some(controller) => controller.uid == pair.owner.uid,
        None => meta.labels.as_ref().is_some_and(|labels| {
            labels.get(LABEL_PAIR) == Some(&pair.name.name)
                || labels.get(LABEL_OF_UID) == Some(&pair.owner.uid)
        }),
    }
}

/// What an object of that kind and name would be applied over, or its name if it is not the pair's; `found` is what a cache has of it.
async fn look_up<K: Object>(
    requests: &Requests,
    pair: &ValidatedPair,
    name: &str,
    found: Option<&ObjectMeta>,
) -> Result<Result<Over, String>, Error> {
    // Caches hold only what carries the label: what they lack may exist.
    if found.is_some_and(|found| is_own(pair, found)) {
        return Ok(Ok(Over::Own));
    }
    Ok(match requests.get_metadata::<K>(name).await? {
        None => Ok(Over::Nothing),
        Some(meta) if is_own(pair, &meta) => Ok(Over::Own),
        Some(_) => Err(full_name::<K>(name)),
    })
}

/// Names of objects that are not the pair's: all are told in one error.
#[derive(Debug, Default)]
pub struct Taken(Vec<String>);

impl Taken {
    /// Looks whether the name is free or the pair's; `found` is what a cache has of the object.
    ///
    /// # Errors
    /// The request failed.
    pub async fn look<K: Object>(
        &mut self,
        requests: &Requests,
        pair: &ValidatedPair,
        name: &str,
        found: Option<&ObjectMeta>,
    ) -> Result<(), Error> {
        self.0.extend(look_up::<K>(requests, pair, name, found).await?.err());
        Ok(())
    }

    /// Notes the names that kept something from being done; any other error stays one.
    ///
    /// # Errors
    /// It failed otherwise.
    pub fn note(&mut self, done: Result<(), Error>) -> Result<(), Error> {
        match done {
            Err(Error::NotOurs(NotOurs(names))) => self.0.extend(names),
            other => other?,
        }
        Ok(())
    }

    /// # Errors
    /// There are such names.
    pub fn none(self) -> Result<(), Error> {
        if self.0.is_empty() { Ok(()) } else { Err(NotOurs(self.0).into()) }
    }
}

/// Looks at the names of the objects that are not [`Children`](crate::children::Children).
///
/// # Errors
/// A request failed.
pub async fn look_at_others(
    requests: &Requests,
    pair: &ValidatedPair,
    taken: &mut Taken,
) -> Result<(), Error> {
    let name = &pair.name;
    for secret in secrets::names(name) {
        taken.look::<Secret>(requests, pair, &secret, None).await?;
    }
    for slice in [name.rw(), name.ro(), name.any()] {
        taken.look::<EndpointSlice>(requests, pair, &slice, None).await?;
    }
    for i in InstanceId::ALL {
        taken.look::<StatefulSet>(requests, pair, &name.instance(i), None).await?;
    }
    taken.look::<Lease>(requests, pair, name.lease(), None).await
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
    let over = look_up::<K>(requests, pair, &object.name_any(), found).await?;
    requests.apply(object, over.map_err(|name| NotOurs(vec![name]))?).await
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
            let over = look_up::<K>(requests, pair, &object.name_any(), None).await?;
            over.map_err(|name| NotOurs(vec![name]))?;
            Ok(Created::AlreadyExists)
        }
    }
}

/// An object of that kind and name is not the pair's.
#[must_use]
pub fn not_ours<K: Object>(name: &str) -> Error {
    NotOurs(vec![full_name::<K>(name)]).into()
}

fn full_name<K: Object>(name: &str) -> String {
    format!("{} {name}", K::kind(&()))
}
