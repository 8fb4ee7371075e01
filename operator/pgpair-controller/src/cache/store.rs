//! One cache: the objects of one kind, found by name. There is no way to walk through all of them: what a look at a pair costs does not
//! grow with the number of pairs.
//!
//! Objects are kept as JSON and read when they are asked for. The types of Kubernetes are large even when nearly everything of them is
//! empty (2 kB for a pod without a word in it), and a pair has two dozen objects: as JSON they need a quarter of the memory. Reading one
//! costs some microseconds, and a pair at rest is looked at once a minute.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::marker::PhantomData;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use pgpair_api::names::PairName;
use tokio::sync::watch;

use super::Cached;

/// Objects by namespace, then by name.
type Objects = HashMap<Box<str>, BTreeMap<Box<str>, Kept>>;

#[derive(Debug)]
struct Kept {
    /// The name of the pair that it belongs to; `NAMESPACE/NAME` if that is in another namespace than the object.
    pair: Box<str>,
    /// As JSON.
    object: Arc<[u8]>,
}

impl Kept {
    /// Of an object in `namespace`.
    fn new(namespace: &str, pair: &PairName, object: Arc<[u8]>) -> Kept {
        let pair = match pair.namespace == namespace {
            true => pair.name.as_str().into(),
            false => format!("{}/{}", pair.namespace, pair.name).into(),
        };
        Kept { pair, object }
    }

    /// The pair of this object in `namespace`.
    fn pair(&self, namespace: &str) -> PairName {
        let (namespace, name) = self.pair.split_once('/').unwrap_or((namespace, &self.pair));
        PairName { namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

/// The objects of one kind, as far as the operator reads them.
#[derive(Debug, Clone)]
pub struct Cache<K> {
    objects: Arc<RwLock<Objects>>,
    kind: PhantomData<fn() -> K>,
    filled: watch::Receiver<bool>,
    /// Objects that were given out.
    #[cfg(test)]
    pub given: Arc<std::sync::atomic::AtomicUsize>,
}

/// The feeder of a cache ended before there was a first list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the watch ended before its first list")]
pub struct NeverFilled;

/// The only one who changes a cache.
#[derive(Debug)]
pub struct CacheWriter<K> {
    objects: Arc<RwLock<Objects>>,
    /// The list that is being read.
    list: Objects,
    filled: watch::Sender<bool>,
    kind: PhantomData<fn() -> K>,
}

/// An empty cache, and what fills it.
#[must_use]
pub fn cache<K: Cached>() -> (Cache<K>, CacheWriter<K>) {
    let objects = Arc::<RwLock<Objects>>::default();
    let (filled, is_filled) = watch::channel(false);
    let cache = Cache {
        objects: objects.clone(),
        kind: PhantomData,
        filled: is_filled,
        #[cfg(test)]
        given: Arc::default(),
    };
    (cache, CacheWriter { objects, list: Objects::new(), filled, kind: PhantomData })
}

impl<K: Cached> Cache<K> {
    /// The object of that name.
    #[must_use]
    pub fn get(&self, key: &ObjectRef<K>) -> Option<K> {
        let namespace = key.namespace.as_deref().unwrap_or_default();
        let found = self.objects().get(namespace)?.get(key.name.as_str())?.object.clone();
        self.count(1);
        parse(&found)
    }

    /// The objects whose names begin like that.
    #[must_use]
    pub fn beginning_with(&self, namespace: &str, prefix: &str) -> Vec<K> {
        let objects = self.objects();
        let Some(named) = objects.get(namespace) else { return Vec::new() };
        let from = named.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        let found: Vec<_> = from
            .take_while(|(name, _)| name.starts_with(prefix))
            .map(|(_, kept)| kept.object.clone())
            .collect();
        drop(objects);
        self.count(found.len());
        found.iter().filter_map(|object| parse(object)).collect()
    }

    fn objects(&self) -> RwLockReadGuard<'_, Objects> {
        self.objects.read().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    fn count(&self, given: usize) {
        self.given.fetch_add(given, std::sync::atomic::Ordering::Relaxed);
    }

    #[cfg(not(test))]
    fn count(&self, _: usize) {}

    /// Ends when there is a first list.
    ///
    /// # Errors
    /// The writer is gone without one.
    pub async fn first_list(mut self) -> Result<(), NeverFilled> {
        self.filled.wait_for(|filled| *filled).await.map(|_| ()).map_err(|_| NeverFilled)
    }
}

impl<K: Cached> CacheWriter<K> {
    /// Takes in what the watch brought; gives the pairs of which something is other than before. A first list is no change.
    pub fn take(&mut self, event: watcher::Event<K>) -> BTreeSet<PairName> {
        match event {
            watcher::Event::Apply(object) => {
                let mut objects = self.objects.write().unwrap_or_else(PoisonError::into_inner);
                match object.pair() {
                    Some(pair) => {
                        insert(&mut objects, object, &pair);
                        BTreeSet::from([pair])
                    }
                    // It was kept until now if it has changed its owner.
                    None => remove(&mut objects, &object).into_iter().collect(),
                }
            }
            watcher::Event::Delete(object) => {
                let mut objects = self.objects.write().unwrap_or_else(PoisonError::into_inner);
                remove(&mut objects, &object).into_iter().collect()
            }
            watcher::Event::Init => {
                self.list = Objects::new();
                BTreeSet::new()
            }
            watcher::Event::InitApply(object) => {
                if let Some(pair) = object.pair() {
                    insert(&mut self.list, object, &pair);
                }
                BTreeSet::new()
            }
            watcher::Event::InitDone => self.swap(),
        }
    }

    /// Puts the list that was read in the place of what there was.
    fn swap(&mut self) -> BTreeSet<PairName> {
        let new = std::mem::take(&mut self.list);
        let is_first = !self.filled.send_replace(true);
        let before =
            std::mem::replace(&mut *self.objects.write().unwrap_or_else(PoisonError::into_inner), new);
        // Nobody waits for the first list of what may be missing: pairs have been looked at without it.
        if is_first && !K::OPTIONAL {
            return BTreeSet::new();
        }
        let now = self.objects.read().unwrap_or_else(PoisonError::into_inner);
        differing(&now, &before).into_iter().chain(differing(&before, &now)).collect()
    }
}

/// The pairs of the objects of `these` that are not the same in `others`.
fn differing(these: &Objects, others: &Objects) -> BTreeSet<PairName> {
    let mut pairs = BTreeSet::new();
    for (namespace, named) in these {
        let others = others.get(namespace);
        for (name, kept) in named {
            let other = others.and_then(|others| others.get(name));
            let same = other.is_some_and(|other| other.object == kept.object);
            if !same {
                pairs.insert(kept.pair(namespace));
            }
        }
    }
    pairs
}

fn parse<K: Cached>(object: &[u8]) -> Option<K> {
    // It was written from this very type.
    serde_json::from_slice(object)
        .inspect_err(|error| tracing::error!(%error, "a cached object is unreadable"))
        .ok()
}

fn insert<K: Cached>(objects: &mut Objects, mut object: K, pair: &PairName) {
    object.trim();
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let object = serde_json::to_vec(&object).unwrap_or_default().into();
    let kept = Kept::new(&namespace, pair, object);
    objects.entry(namespace.into()).or_default().insert(name.into(), kept);
}

/// Gives the pair that it belonged to, if it was kept.
fn remove<K: Cached>(objects: &mut Objects, object: &K) -> Option<PairName> {
    let namespace = object.namespace().unwrap_or_default();
    let named = objects.get_mut(namespace.as_str())?;
    let removed = named.remove(object.name_any().as_str());
    if named.is_empty() {
        objects.remove(namespace.as_str());
    }
    removed.map(|kept| kept.pair(&namespace))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::coordination::v1::Lease;
    use kube::runtime::watcher::Event;
    use pgpair_api::names::LABEL_PAIR;
    use serde_json::json;

    use super::*;

    fn lease(namespace: &str, name: &str, pair: &str, version: &str) -> Lease {
        let labels = json!({LABEL_PAIR: pair});
        let meta =
            json!({"namespace": namespace, "name": name, "labels": labels, "resourceVersion": version});
        serde_json::from_value(json!({"metadata": meta})).unwrap()
    }

    fn pairs(names: &[&str]) -> BTreeSet<PairName> {
        names.iter().map(|name| PairName { namespace: "shop".into(), name: (*name).into() }).collect()
    }

    fn key(name: &str) -> ObjectRef<Lease> {
        ObjectRef::new(name).within("shop")
    }

    #[test]
    fn objects_are_found_by_name_and_by_the_beginning_of_it_in_their_namespace() {
        let (cache, mut writer) = cache();
        for name in ["orders-a-seed-1", "orders-a-seed-12", "orders-b-seed-1", "orders-a"] {
            assert_eq!(writer.take(Event::Apply(lease("shop", name, "orders", "1"))), pairs(&["orders"]));
        }
        writer.take(Event::Apply(lease("bank", "orders-a-seed-7", "orders", "1")));
        let named = |prefix| -> Vec<_> {
            cache.beginning_with("shop", prefix).iter().map(|object| object.name_any()).collect()
        };
        assert_eq!(named("orders-a-seed-"), ["orders-a-seed-1", "orders-a-seed-12"]);
        assert_eq!(named("orders-a-seed-1-"), Vec::<String>::new());
        assert!(cache.get(&key("orders-a")).is_some() && cache.get(&key("orders-a-seed-7")).is_none());
        assert_eq!(writer.take(Event::Delete(lease("shop", "orders-a", "orders", "2"))), pairs(&["orders"]));
        assert!(cache.get(&key("orders-a")).is_none());
    }

    #[tokio::test]
    async fn a_new_list_takes_the_place_of_the_old_one_at_once_and_announces_only_what_is_other_than_before()
    {
        let (cache, mut writer) = cache();
        let mut list = |objects: Vec<Lease>| {
            assert!(writer.take(Event::Init).is_empty());
            for object in objects {
                assert!(writer.take(Event::InitApply(object)).is_empty());
            }
            (cache.get(&key("b-rw")).is_some(), writer.take(Event::InitDone))
        };
        let [same, gone] = [lease("shop", "a-rw", "a", "1"), lease("shop", "b-rw", "b", "1")];
        let [changed, new] = [lease("shop", "c-rw", "c", "1"), lease("shop", "d-rw", "d", "4")];
        let first = list(vec![same.clone(), gone, changed]);
        assert_eq!(first, (false, BTreeSet::new()), "all pairs are looked at then anyway");
        cache.clone().first_list().await.unwrap();
        let second = list(vec![same, lease("shop", "c-rw", "c", "2"), new]);
        assert_eq!(second, (true, pairs(&["b", "c", "d"])), "it stands until the whole list is there");
        assert!(cache.get(&key("b-rw")).is_none() && cache.get(&key("d-rw")).is_some());
    }

    #[tokio::test]
    async fn a_cache_whose_feeder_ends_early_is_never_filled() {
        let (cache, writer) = cache::<Lease>();
        drop(writer);
        assert_eq!(cache.first_list().await, Err(NeverFilled));
    }
}
