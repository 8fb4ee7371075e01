//! Which of the objects that carry the pair label are kept at all. Anyone who may write an object of a watched kind can put the label
//! on it, so the label alone must not cost the operator memory: an object is kept only if its name is one that the pair on its label
//! gives to an object, and if nothing else controls it than what makes the objects of a pair.
//!
//! Whether the pair exists is not asked here. A pair may become known after its objects (it changed its class, or was restored over
//! its old volumes), and a watch brings each object only once. [`crate::ownership`] and [`crate::observe`] compare uids when an object
//! is read.

use kube::core::ObjectMeta;
use pgpair_api::names::{GROUP, LABEL_PAIR, PairName};

use crate::secrets;

/// The pair that an object belongs to by its label, if the object is one to keep.
pub(super) fn pair_of(meta: &ObjectMeta) -> Option<PairName> {
    let name = meta.labels.as_ref()?.get(LABEL_PAIR)?.clone();
    let pair = PairName { namespace: meta.namespace.clone()?, name };
    let object = meta.name.as_deref()?;
    let mut secrets = secrets::names(&pair).into_iter().chain(secrets::former_names(&pair));
    let is_secret = secrets.any(|secret| secret == object) || pair.gives_role_secret(object);
    let is_named = pair.gives(object) || is_secret;
    (is_named && is_controlled_by_a_pair(meta)).then_some(pair)
}

/// Whether a pair controls it, or an object that a pair makes, or nothing: volumes outlive their pair.
fn is_controlled_by_a_pair(meta: &ObjectMeta) -> bool {
    let controller = meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
    controller.is_none_or(|owner| {
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        matches!(
            (group, owner.kind.as_str()),
            (GROUP, "PgReplicaPair") | ("apps", "StatefulSet") | ("batch", "Job")
        )
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::StatefulSet;
    use k8s_openapi::api::batch::v1::Job;
    use k8s_openapi::api::coordination::v1::Lease;
    use k8s_openapi::api::core::v1::{ConfigMap, Pod};
    use kube::runtime::reflector::ObjectRef;
    use kube::runtime::watcher::Event;
    use pgpair_core::ids::{InstanceId, VolumeId};
    use pgpair_core::record::Record;
    use serde_json::{Value, json};

    use super::*;
    use crate::build::{adopt_job, record, seed_job, services, stateful_set};
    use crate::cache::{Cached, cache};
    use crate::children::build_children;
    use crate::fixtures::valid;
    use crate::plan::{AdoptJob, InstancePlan};

    #[test]
    fn every_object_of_a_pair_is_kept() {
        let pair = valid(json!({}));
        let children = build_children(&pair).unwrap();
        let mut metas = vec![
            children.account.metadata,
            children.role.metadata,
            children.binding.metadata,
            children.budget.metadata,
            children.config.metadata,
            record::build_lease(&pair, &Record::initial()).metadata,
        ];
        metas.extend(children.services.map(|service| service.metadata));
        metas.extend(children.claims.map(|claim| claim.metadata));
        for name in [pair.name.rw(), pair.name.ro(), pair.name.any()] {
            metas.push(services::build_slice(&pair, &name, []).metadata);
        }
        for name in secrets::names(&pair.name).into_iter().chain(secrets::former_names(&pair.name)) {
            metas.push(crate::build::owned(&pair, name, pair.name.labels()));
        }
        for i in InstanceId::ALL {
            let plan = InstancePlan { replicas: 1, seed: 0, seed_failures: 0 };
            let (set, job) =
                (stateful_set::build_stateful_set(&pair, i, &plan), seed_job::build_seed_job(&pair, i, 12));
            metas.push(pod_of(set.spec.unwrap().template.metadata, &pair.name.pod(i), "StatefulSet"));
            let pod = format!("{}-x7k2p", pair.name.seed_job(i, 12));
            metas.push(pod_of(job.spec.unwrap().template.metadata, &pod, "Job"));
            metas.extend([set.metadata, job.metadata]);
            for job in [AdoptJob::Look(i), AdoptJob::Release(i, Some(VolumeId(7)))] {
                let job = adopt_job::build_adopt_job(&pair, job);
                let pod = format!("{}-x7k2p", job.metadata.name.as_deref().unwrap());
                metas.push(pod_of(job.spec.unwrap().template.metadata, &pod, "Job"));
                metas.push(job.metadata);
            }
        }
        for meta in &metas {
            assert_eq!(pair_of(meta), Some(pair.name.clone()), "{:?}", meta.name);
        }
        assert!(metas.len() > 25, "{}", metas.len());
    }

    fn pod_of(template: Option<ObjectMeta>, name: &str, kind: &str) -> ObjectMeta {
        let group = if kind == "Job" { "batch/v1" } else { "apps/v1" };
        let owner = json!([{"apiVersion": group, "kind": kind, "name": "o", "uid": "u", "controller": true}]);
        ObjectMeta {
            name: Some(name.into()),
            namespace: Some("shop".into()),
            owner_references: serde_json::from_value(owner).unwrap(),
            ..template.unwrap()
        }
    }

    #[test]
    fn an_object_of_another_name_or_of_another_owner_is_not_kept_whatever_its_label_says() {
        let meta = |name: &str, owner: Value| -> ObjectMeta {
            serde_json::from_value(
                json!({"name": name, "namespace": "shop", "labels": {LABEL_PAIR: "orders"},
                                          "ownerReferences": owner}),
            )
            .unwrap()
        };
        let owner = |version: &str, kind: &str| json!([{"apiVersion": version, "kind": kind, "name": "x", "uid": "u", "controller": true}]);
        let none = || json!([]);
        assert!(pair_of(&meta("orders-config", none())).is_some());
        for name in [
            "orders-configs",
            "orders-a-seed",
            "orders-a-seed-x",
            "orders-a-adopt",
            "orders-a-adopt-looks",
            "order",
            "config",
            "books-config",
        ] {
            assert_eq!(pair_of(&meta(name, none())), None, "{name}");
        }
        assert!(pair_of(&meta("orders-config", owner("pgpair.dev/v1alpha1", "PgReplicaPair"))).is_some());
        let foreign =
            [("apps/v1", "ReplicaSet"), ("v1", "PgReplicaPair"), ("shop.example/v1", "StatefulSet")];
        for (version, kind) in foreign {
            assert_eq!(pair_of(&meta("orders-config", owner(version, kind))), None, "{version} {kind}");
        }
    }

    #[test]
    fn an_object_that_is_given_to_another_owner_leaves_the_cache() {
        let (cache, mut writer) = cache::<Lease>();
        let lease = record::build_lease(&valid(json!({})), &Record::initial());
        let key = ObjectRef::new("orders").within("shop");
        assert_eq!(writer.take(Event::Apply(lease.clone())).len(), 1);
        assert!(cache.get(&key).is_some());
        let mut given = lease;
        given.metadata.owner_references.as_mut().unwrap()[0].kind = "Shop".into();
        assert_eq!(writer.take(Event::Apply(given)).len(), 1, "the pair has lost it");
        assert_eq!(cache.get(&key), None);
    }

    /// What the cache keeps of `object`, in bytes.
    fn kept_of<K: Cached>(object: Value) -> usize {
        let mut object: K = serde_json::from_value(object).unwrap();
        assert!(pair_of(object.meta()).is_some(), "{}", K::kind(&()));
        object.trim();
        serde_json::to_vec(&object).unwrap().len()
    }

    #[test]
    fn however_large_an_object_is_little_of_it_is_kept() {
        let wide = "x".repeat(200_000);
        let many: serde_json::Map<String, Value> =
            (0..5000).map(|n| (format!("pgpair.dev/{n}"), json!("x".repeat(30)))).collect();
        let meta = |name: &str, annotations: Value| {
            json!({"name": name, "namespace": "shop", "labels": {LABEL_PAIR: "orders"},
                                                           "annotations": annotations})
        };
        let annotated = || json!({"pgpair.dev/applied": wide});
        let container = json!({"name": "c", "ready": true, "restartCount": 0, "image": wide, "imageID": "",
                               "state": {"waiting": {"reason": "R", "message": wide}}});
        let conditions =
            json!(vec![json!({"type": "PodScheduled", "status": "False", "message": wide}); 100]);
        let endpoints = json!(vec![json!({"addresses": vec!["10.0.0.1"; 100], "hostname": wide}); 1000]);
        let ports = json!(vec![json!({"name": "x", "port": 1}); 1000]);
        let sizes = [
            kept_of::<kube::core::PartialObjectMeta<ConfigMap>>(
                json!({"metadata": meta("orders-config", json!(many))}),
            ),
            kept_of::<kube::core::PartialObjectMeta<ConfigMap>>(
                json!({"metadata": meta("orders-config", annotated())}),
            ),
            kept_of::<StatefulSet>(
                json!({"metadata": meta("orders-a", annotated()), "spec": {"selector": {}, "template": {}, "serviceName": wide}}),
            ),
            kept_of::<Pod>(json!({"metadata": meta("orders-a-0", annotated()), "spec": {"containers": []},
                                  "status": {"conditions": conditions, "containerStatuses": vec![container; 50]}})),
            kept_of::<Job>(json!({"metadata": meta("orders-a-seed-1", annotated()),
                                  "status": {"conditions": vec![json!({"type": "Failed", "status": "True", "message": wide}); 100]}})),
            kept_of::<k8s_openapi::api::discovery::v1::EndpointSlice>(
                json!({"metadata": meta("orders-rw", annotated()), "addressType": "IPv4",
                                  "endpoints": endpoints, "ports": ports}),
            ),
            kept_of::<Lease>(
                json!({"metadata": meta("orders", annotated()), "spec": {"holderIdentity": wide}}),
            ),
            kept_of::<k8s_openapi::api::core::v1::PersistentVolumeClaim>(
                json!({"metadata": meta("data-orders-a-0", annotated()),
                                  "spec": {"resources": {"requests": {"storage": "1Gi", "x": "1"}}}}),
            ),
        ];
        println!("bytes kept: {sizes:?}");
        assert!(sizes.iter().all(|size| *size <= 24 << 10), "{sizes:?}");
    }
}
