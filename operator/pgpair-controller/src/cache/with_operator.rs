//! Secrets of pairs that are in the operator's own namespace, by their metadata.

use std::borrow::Cow;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Secret;
use kube::Resource;
use kube::core::{ObjectMeta, PartialObjectMeta};
use pgpair_api::names::{LABEL_OF_NAMESPACE, LABEL_OF_PAIR, LABEL_OF_UID, PairName};
use serde::{Deserialize, Serialize};

use super::Cached;
use super::trim::trim_meta;

/// The metadata of such a Secret: a kind of its own, because it belongs to a pair of another namespace.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WithOperator(pub PartialObjectMeta<Secret>);

impl Resource for WithOperator {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind(dt: &()) -> Cow<'_, str> {
        Secret::kind(dt)
    }

    fn group(dt: &()) -> Cow<'_, str> {
        Secret::group(dt)
    }

    fn version(dt: &()) -> Cow<'_, str> {
        Secret::version(dt)
    }

    fn plural(dt: &()) -> Cow<'_, str> {
        Secret::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.0.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.0.metadata
    }
}

impl Cached for WithOperator {
    const PAGE: u32 = super::PAGE_OF_METADATA;
    const IS_WITH_OPERATOR: bool = true;

    fn watched_as() -> Cow<'static, str> {
        "Secret of the operator's namespace".into()
    }

    fn trim(&mut self) {
        let uid = self.0.metadata.labels.as_mut().and_then(|labels| labels.remove_entry(LABEL_OF_UID));
        self.0.types = None;
        trim_meta(&mut self.0.metadata);
        // It says whose the Secret is.
        self.0.metadata.labels = uid.map(|label| [label].into());
    }

    fn pair(&self) -> Option<PairName> {
        pair_of(self.meta()).map(|(pair, _)| pair)
    }
}

/// The pair that a Secret in the operator's namespace belongs to, and the uid of that pair.
#[must_use]
pub fn pair_of(meta: &ObjectMeta) -> Option<(PairName, String)> {
    let label = |key: &str| meta.labels.as_ref()?.get(key).cloned();
    let pair = PairName { namespace: label(LABEL_OF_NAMESPACE)?, name: label(LABEL_OF_PAIR)? };
    let uid = label(LABEL_OF_UID)?;
    let named = [pair.authority_secret(&uid), pair.operator_tls_secret(&uid)];
    named.iter().any(|name| meta.name.as_ref() == Some(name)).then_some((pair, uid))
}

#[cfg(test)]
mod tests {
    use kube::runtime::reflector::ObjectRef;
    use kube::runtime::watcher::Event;
    use serde_json::json;

    use super::*;
    use crate::cache::{cache, labels_of};
    use crate::fixtures::valid;
    use crate::ownership::is_own;
    use crate::secrets::place::Place;
    use crate::secrets::{Party, party::Annotations};

    fn kept(place: &Place) -> WithOperator {
        let pair = valid(json!({}));
        let annotations = Annotations::from([("pgpair.dev/trusts".to_owned(), "a".to_owned())]);
        let secret = place.build(&pair, [("ca.key", "k".to_owned())], annotations);
        serde_json::from_value(serde_json::to_value(secret).unwrap()).unwrap()
    }

    #[test]
    fn of_a_secret_beside_the_operator_it_is_known_whose_it_is_and_nothing_of_its_content() {
        let pair = valid(json!({}));
        let (cache, mut writer) = cache::<WithOperator>();
        for place in [Place::of_authority(&pair), Place::of(Party::Operator, &pair)] {
            assert_eq!(writer.take(Event::Apply(kept(&place))), [pair.name.clone()].into());
            let key = ObjectRef::new(place.name()).within("pgpair-system");
            let found = cache.get(&key).unwrap();
            assert!(is_own(&pair, found.meta()), "{found:?}");
            assert_eq!(found.meta().annotations.as_ref().unwrap().len(), 1);
            assert!(!serde_json::to_string(&found).unwrap().contains("ca.key"));
            // Its pair is told of it, which is in another namespace.
            assert_eq!(writer.take(Event::Delete(kept(&place))), [pair.name.clone()].into());
        }
        writer.take(Event::Apply(kept(&Place::of_authority(&pair))));
        writer.take(Event::Init);
        writer.take(Event::InitDone);
        writer.take(Event::Init);
        writer.take(Event::InitApply(kept(&Place::of_authority(&pair))));
        assert_eq!(writer.take(Event::InitDone), [pair.name.clone()].into());
    }

    #[test]
    fn a_secret_of_another_name_or_pair_is_none_of_it() {
        let pair = valid(json!({}));
        let mut other = kept(&Place::of_authority(&pair));
        other.0.metadata.name = Some("mine".into());
        assert_eq!(other.pair(), None);
        let mut other = pair.clone();
        other.owner.uid = "another".into();
        assert!(!is_own(&other, kept(&Place::of_authority(&pair)).meta()), "it had the same name before");
    }

    #[test]
    fn an_installation_of_some_namespaces_watches_the_secrets_of_pairs_in_these() {
        assert_eq!(labels_of::<WithOperator>(None).unwrap(), "pgpair.dev/of-uid");
        let of_shop = labels_of::<WithOperator>(Some("shop")).unwrap();
        assert_eq!(of_shop, "pgpair.dev/of-uid,pgpair.dev/of-namespace=shop");
    }
}
