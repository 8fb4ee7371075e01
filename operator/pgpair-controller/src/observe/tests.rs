use serde_json::json;

use super::*;
use crate::fixtures::{pair, steady, valid};
use crate::metrics::Metrics;
use crate::mock_api::{Answers, empty_caches, mock_api, seen};

/// Paths that two observations ask the API server for, after an earlier one found the pair like this.
async fn asked(settled: bool, may_be_recent: [bool; 2]) -> Vec<String> {
    let (client, server) = mock_api(Answers::Empty);
    let requests = Requests::new(client, "shop", Arc::new(Metrics::default()));
    let mut memory = Memory::default();
    memory.settled(&steady(), settled);
    for recent in may_be_recent {
        let (pair, valid) = (pair(json!({})), valid(json!({})));
        let observed = observe(&requests, &empty_caches(), &mut memory, &pair, &valid, recent).await.unwrap();
        assert_eq!(observed.lease_is_recent, settled && recent);
    }
    drop(requests);
    seen(server).await.into_iter().map(|s| s.path).collect()
}

#[tokio::test]
async fn the_record_of_a_settled_pair_is_not_read_again_for_some_seconds() {
    let lease = "/apis/coordination.k8s.io/v1/namespaces/shop/leases/orders";
    assert_eq!(asked(true, [true, true]).await, Vec::<String>::new(), "radio silence");
    assert_eq!(asked(true, [false, false]).await, [lease, lease], "unless it is to be acted upon");
    assert_eq!(asked(false, [true, true]).await, [lease, lease], "nor of a pair that is not settled");
}
