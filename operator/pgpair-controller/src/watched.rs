//! A pair as the watch brings it: decoded, or what is known of one that cannot be decoded.
//!
//! Guarantee: one object that this version does not understand (after a rollback of the operator, or of a newer definition) is a
//! matter of that object alone. A list decoded as a whole would fail as a whole, and no pair would be cared for.
//!
//! The caches of the pairs' objects need no such guard: those are types of Kubernetes itself, all of whose members may be absent
//! and whose words are strings; most of them are cached by their metadata only.

use std::borrow::Cow;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher;
use pgpair_api::PgReplicaPair;
use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

/// A pair as the watch brings it.
#[derive(Debug, Clone)]
pub struct Watched(Result<Arc<PgReplicaPair>, Undecodable>);

/// A pair that cannot be decoded.
#[derive(Debug, Clone, PartialEq)]
pub struct Undecodable {
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// The field, such as `status.mode`.
    pub field: String,
    /// What is wrong with it.
    pub error: String,
    /// `spec.operatorClassName`; empty: none.
    pub class: String,
}

impl Watched {
    /// The pair.
    ///
    /// # Errors
    /// It could not be decoded.
    pub fn pair(&self) -> Result<&Arc<PgReplicaPair>, &Undecodable> {
        self.0.as_ref()
    }

    /// `spec.operatorClassName`; empty: none.
    #[must_use]
    pub fn class(&self) -> &str {
        match &self.0 {
            Ok(pair) => pair.spec.operator_class_name.as_deref().unwrap_or_default(),
            Err(undecodable) => &undecodable.class,
        }
    }
}

/// Leaves the pairs of other classes out. One that changes its class away is gone, as far as this installation is concerned.
#[must_use]
pub fn only_class(
    item: watcher::Result<watcher::Event<Watched>>,
    class: &str,
) -> Option<watcher::Result<watcher::Event<Watched>>> {
    match item {
        Ok(watcher::Event::Apply(pair)) if pair.class() != class => Some(Ok(watcher::Event::Delete(pair))),
        Ok(watcher::Event::InitApply(pair)) if pair.class() != class => None,
        other => Some(other),
    }
}

impl From<PgReplicaPair> for Watched {
    fn from(pair: PgReplicaPair) -> Self {
        Watched(Ok(Arc::new(pair)))
    }
}

impl<'de> Deserialize<'de> for Watched {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Twice, because the first attempt takes what the second one needs. Only the second one pays for knowing the field.
        let value = Value::deserialize(deserializer)?;
        if let Ok(pair) = PgReplicaPair::deserialize(&value) {
            return Ok(Watched(Ok(Arc::new(pair))));
        }
        match serde_path_to_error::deserialize::<_, PgReplicaPair>(&value) {
            Ok(pair) => Ok(pair.into()),
            Err(error) => {
                let object = PartialObjectMeta::<PgReplicaPair>::deserialize(&value);
                let metadata = object.map_err(de::Error::custom)?.metadata;
                let (field, error) = (error.path().to_string(), error.inner().to_string());
                let class = value["spec"]["operatorClassName"].as_str().unwrap_or_default().to_owned();
                Ok(Watched(Err(Undecodable { metadata, field, error, class })))
            }
        }
    }
}

impl Resource for Watched {
    type DynamicType = ();
    type Scope = <PgReplicaPair as Resource>::Scope;

    fn kind(dt: &()) -> Cow<'_, str> {
        PgReplicaPair::kind(dt)
    }

    fn group(dt: &()) -> Cow<'_, str> {
        PgReplicaPair::group(dt)
    }

    fn version(dt: &()) -> Cow<'_, str> {
        PgReplicaPair::version(dt)
    }

    fn plural(dt: &()) -> Cow<'_, str> {
        PgReplicaPair::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.as_ref().map_or_else(|undecodable| &undecodable.metadata, |pair| pair.meta())
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match &mut self.0 {
            Ok(pair) => Arc::make_mut(pair).meta_mut(),
            Err(undecodable) => &mut undecodable.metadata,
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::core::ObjectList;
    use serde_json::json;

    use super::*;
    use crate::fixtures::pair;

    #[test]
    fn an_object_that_cannot_be_decoded_leaves_the_others_of_its_list_alone() {
        let good = serde_json::to_value(pair(json!({}))).unwrap();
        let mut bad = good.clone();
        bad["metadata"]["name"] = json!("newer");
        bad["status"] = json!({"term": "three"});
        let list = json!({"kind": "PgReplicaPairList", "apiVersion": "pgpair.dev/v1alpha1", "metadata": {}, "items": [bad, good]});
        assert!(
            serde_json::from_value::<ObjectList<PgReplicaPair>>(list.clone()).is_err(),
            "why the guard is there"
        );
        let list: ObjectList<Watched> = serde_json::from_value(list).unwrap();
        let [bad, good] = list.items.as_slice() else { panic!("two objects") };
        assert_eq!(good.pair().unwrap().metadata.name.as_deref(), Some("orders"));
        let undecodable = bad.pair().unwrap_err();
        assert_eq!(
            (undecodable.metadata.name.as_deref(), &*undecodable.field),
            (Some("newer"), "status.term")
        );
        assert!(undecodable.error.contains("three"), "{}", undecodable.error);
    }
    #[test]
    fn pairs_of_another_class_are_left_out_and_one_that_leaves_the_class_is_forgotten() {
        let of = |class: Value| Watched::from(pair(json!({"operatorClassName": class})));
        let apply = |class| only_class(Ok(watcher::Event::Apply(of(class))), "staging").unwrap().unwrap();
        assert!(matches!(apply(json!("staging")), watcher::Event::Apply(_)));
        assert!(matches!(apply(json!("other")), watcher::Event::Delete(_)));
        assert!(matches!(apply(json!(null)), watcher::Event::Delete(_)));
        assert!(only_class(Ok(watcher::Event::InitApply(of(json!("other")))), "").is_none());
        assert!(only_class(Ok(watcher::Event::InitApply(of(json!(null)))), "").is_some());
    }
}
