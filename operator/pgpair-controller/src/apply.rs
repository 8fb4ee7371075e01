//! Where an object meets the API server: what is built is compared with what is there and with what was applied before.

use kube::ResourceExt;
use kube::core::{ObjectMeta, PartialObjectMeta};
use kube::runtime::reflector::ObjectRef;
use pgpair_api::validate::ValidatedPair;

use crate::api::{Object, Requests};
use crate::cache::{Cache, Cached};
use crate::error::Error;
use crate::managed;
use crate::memory::{Applied, AppliedMark, Memory};
use crate::ownership::{self, create, is_own, not_ours};

/// A cache in which objects of kind `K` are found: of the objects, or of their metadata.
pub trait CacheOf<K>: Cached {}

impl<K: Cached> CacheOf<K> for K {}
impl<K: Object> CacheOf<K> for PartialObjectMeta<K> where PartialObjectMeta<K>: Cached {}

/// Applies `object` unless exactly this was applied before and the cache says that it still stands.
///
/// # Errors
/// The request failed, or an object of that name is not the pair's.
pub async fn apply<K: Object, C: CacheOf<K>>(
    requests: &Requests,
    memory: &mut Memory,
    pair: &ValidatedPair,
    cache: &Cache<C>,
    object: &K,
) -> Result<(), Error> {
    let found = cached(cache, pair, object);
    apply_over(requests, memory, pair, found.as_ref().map(|found| found.meta()), object).await
}

/// What a cache has of `object`.
pub fn cached<K: Object, C: CacheOf<K>>(cache: &Cache<C>, pair: &ValidatedPair, object: &K) -> Option<C> {
    cache.get(&ObjectRef::new(&object.name_any()).within(&pair.name.namespace))
}

/// The same over what was found there.
///
/// # Errors
/// As [`apply`].
pub async fn apply_over<K: Object>(
    requests: &Requests,
    memory: &mut Memory,
    pair: &ValidatedPair,
    found: Option<&ObjectMeta>,
    object: &K,
) -> Result<(), Error> {
    let key = key::<K>(&object.name_any());
    let mut content = serde_json::to_value(object).unwrap_or_default();
    let hash = managed::mark(&mut content);
    if let Some(found) = found {
        let known = memory.applied.get(&key);
        let stands = match known {
            Some(applied) => applied.hash == hash && applied.mark == mark::<K>(found),
            // Applied by an earlier process.
            None => is_own(pair, found) && requests.shapes().stands(&content, &hash, found),
        };
        if stands {
            if known.is_none() {
                memory.applied.insert(key, Applied { hash, mark: mark::<K>(found) });
            }
            return Ok(());
        }
    }
    let marked: K = serde_json::from_value(content.clone()).unwrap_or_else(|_| object.clone());
    let stored = ownership::apply(requests, pair, &marked, found).await?;
    requests.shapes().learn(&content, stored.meta());
    memory.applied.insert(key, Applied { hash, mark: mark::<K>(stored.meta()) });
    Ok(())
}

/// Replaces an object on the version that is read just before, so that a newer write of another process is never undone unseen;
/// creates it if there is none. Nothing is written if `is_same` holds of what is there and of `object`.
///
/// # Errors
/// A request failed (409: it was changed meanwhile), or an object of that name is not the pair's.
pub async fn replace<K: Object>(
    requests: &Requests,
    pair: &ValidatedPair,
    mut object: K,
    is_same: impl Fn(&K, &K) -> bool,
) -> Result<(), Error> {
    match requests.get::<K>(&object.name_any()).await? {
        None => {
            create(requests, pair, &object).await?;
        }
        Some(current) if !is_own(pair, current.meta()) => return Err(not_ours::<K>(&object.name_any())),
        Some(current) if is_same(&current, &object) => {}
        Some(current) => {
            object.meta_mut().resource_version = current.resource_version();
            requests.replace(&object).await?;
        }
    }
    Ok(())
}

/// Whether what a cache holds of an object is older than what this process wrote.
#[must_use]
pub fn is_outdated<K: Object>(memory: &Memory, name: &str, cached: Option<&ObjectMeta>) -> bool {
    memory.applied.get(&key::<K>(name)).is_some_and(|applied| applied.outdates(cached))
}

fn key<K: Object>(name: &str) -> String {
    format!("{}/{name}", K::kind(&()))
}

fn mark<K: Object>(meta: &ObjectMeta) -> AppliedMark {
    match meta.generation {
        _ if K::kind(&()) == "PersistentVolumeClaim" => AppliedMark::Exists,
        Some(generation) => AppliedMark::Generation(generation),
        None => AppliedMark::Version(meta.resource_version.clone().unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::build::services::build_services;
    use crate::fixtures::valid;
    use crate::metrics::Metrics;
    use crate::mock_api::{Answers, mock_api, seen};

    #[tokio::test]
    async fn an_object_is_applied_again_only_when_it_was_changed_or_is_to_change() {
        let (client, server) = mock_api(Answers::Empty);
        let requests = Requests::new(client, "shop", Arc::new(Metrics::default()));
        let mut memory = Memory::default();
        let pair = valid(json!({}));
        let [service, ..] = build_services(&pair);
        let found =
            |version: &str| ObjectMeta { resource_version: Some(version.into()), ..service.metadata.clone() };
        let (as_written, changed) = (found("5"), found("6"));
        let mut other = service.clone();
        other.metadata.annotations = Some([("a".to_owned(), "b".to_owned())].into());
        let cases = [
            (None, &service),
            (Some(&as_written), &service), // nothing to do
            (Some(&changed), &service),    // somebody changed it
            (None, &service),              // somebody deleted it
            (Some(&as_written), &other),   // it is to change
        ];
        for (found, object) in cases {
            apply_over(&requests, &mut memory, &pair, found, object).await.unwrap();
        }
        drop(requests);
        assert_eq!(seen(server).await.iter().filter(|request| request.is_write()).count(), 4);
    }
}
