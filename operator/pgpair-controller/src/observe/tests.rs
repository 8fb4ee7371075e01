use serde_json::json;

use super::Freshness::{Now, SomeSeconds};
use super::*;
use crate::build::config::build_config;
use crate::fixtures::{defaults, pair, steady, valid};
use crate::metrics::Metrics;
use crate::mock_api::{Answers, empty_caches, mock_api, seen, store_api};

/// Paths that two observations ask the API server for, after an earlier one found the pair like this.
async fn asked(settled: bool, freshness: [Freshness; 2]) -> Vec<String> {
    let (client, server) = mock_api(Answers::Empty);
    let requests = Requests::new(client, "shop", Arc::new(Metrics::default()));
    let mut memory = Memory::default();
    memory.settled(&steady(), settled);
    for freshness in freshness {
        let (pair, desired) = (pair(json!({})), DesiredPair { pair: valid(json!({})), invalid: None });
        let observed =
            observe(&requests, &empty_caches(), &mut memory, &pair, &desired, freshness).await.unwrap();
        assert_eq!(observed.lease_is_recent, settled && freshness == SomeSeconds);
    }
    drop(requests);
    seen(server).await.into_iter().map(|s| s.path).collect()
}

#[tokio::test]
async fn the_record_of_a_settled_pair_is_not_read_again_for_some_seconds() {
    let lease = "/apis/coordination.k8s.io/v1/namespaces/shop/leases/orders";
    assert_eq!(asked(true, [SomeSeconds; 2]).await, Vec::<String>::new(), "radio silence");
    assert_eq!(asked(true, [Now; 2]).await, [lease, lease], "unless it is to be acted upon");
    assert_eq!(asked(false, [SomeSeconds; 2]).await, [lease, lease], "nor of a pair that is not settled");
}

/// The settings that an observation goes by: the agents were given those of `given`, and the spec says `spec` now.
async fn settings_of(given: serde_json::Value, spec: serde_json::Value) -> PairConfig {
    let (client, store) = store_api();
    let requests = Requests::new(client, "shop", Arc::new(Metrics::default()));
    requests.apply(&build_config(&valid(given)).unwrap(), crate::api::Over::Nothing).await.unwrap();
    let mut changed = pair(spec);
    changed.metadata.generation = Some(4);
    let desired = DesiredPair::of(&changed, &defaults()).unwrap();
    let mut memory = Memory::default();
    let observed =
        observe(&requests, &store.caches(), &mut memory, &changed, &desired, SomeSeconds).await.unwrap();
    observed.config
}

#[tokio::test]
async fn a_pair_that_is_held_goes_by_what_its_agents_were_given_last() {
    let given = || json!({"readLag": "2Mi", "failover": {"automatic": false, "ttlSeconds": 7}});
    let held = [json!({"paused": true, "readLag": "1Gi"}), json!({"readLag": "much"})];
    for spec in held {
        let config = settings_of(given(), spec).await;
        assert_eq!((config.read_lag_bytes, config.automatic, config.ttl_ms), (2 << 20, false, 7000));
        assert_eq!(config.generation, 4, "so that they are told to be behind");
    }
    assert_eq!(settings_of(given(), json!({"readLag": "1Gi"})).await.read_lag_bytes, 1 << 30);
}
