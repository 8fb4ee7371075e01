//! The read-write endpoint: who is promoted writes it himself, for nobody is quicker.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointSlice};
use kube::api::{Api, PostParams};
use tokio::runtime::Handle;

use crate::instance::env::InstanceEnv;

const LIMIT: Duration = Duration::from_secs(2);

/// The EndpointSlice `PAIR-rw`.
#[derive(Debug, Clone)]
pub struct ReadWriteEndpoint {
    api: Api<EndpointSlice>,
    name: String,
    mine: Endpoint,
    /// The client's connections belong to it.
    runtime: Handle,
}

/// It could not be written; try again.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The API server refused or could not be reached.
    #[error("cannot write endpoint slice {name}: {source}")]
    Api {
        /// Which one.
        name: String,
        /// Why.
        source: kube::Error,
    },
    /// No answer in time.
    #[error("cannot write endpoint slice {0} within {LIMIT:?}")]
    Late(String),
}

impl ReadWriteEndpoint {
    /// The slice of this instance's pair, and the endpoint that this pod is. Call it in the runtime in which `client` was made.
    #[must_use]
    pub fn new(client: kube::Client, settings: &InstanceEnv) -> ReadWriteEndpoint {
        let target = ObjectReference {
            kind: Some("Pod".into()),
            name: Some(settings.pod_name.clone()),
            namespace: Some(settings.namespace.clone()),
            uid: Some(settings.pod_uid.clone()),
            ..ObjectReference::default()
        };
        let mine = Endpoint {
            addresses: vec![settings.pod_ip.clone()],
            conditions: Some(EndpointConditions {
                ready: Some(true),
                serving: Some(true),
                terminating: Some(false),
            }),
            node_name: Some(settings.node.clone()).filter(|n| !n.is_empty()),
            target_ref: Some(target),
            ..Endpoint::default()
        };
        let api = Api::namespaced(client, &settings.namespace);
        ReadWriteEndpoint { api, name: format!("{}-rw", settings.pair), mine, runtime: Handle::current() }
    }

    /// Makes this pod the one endpoint, if it is not already. Says whether it had to be written.
    ///
    /// # Errors
    /// The API server refused, somebody else wrote meanwhile, or there was no answer in time.
    pub async fn point_here(&self) -> Result<bool, EndpointError> {
        let (slice, late) = (self.clone(), EndpointError::Late(self.name.clone()));
        // A connection that is made here may be used for the record next: it must not wait for whatever the caller's threads wait for.
        self.runtime.spawn(async move { slice.write().await }).await.unwrap_or(Err(late))
    }

    async fn write(&self) -> Result<bool, EndpointError> {
        let attempt = async {
            let mut slice = self.api.get(&self.name).await?;
            if slice.endpoints.as_slice() == std::slice::from_ref(&self.mine) {
                return Ok(false);
            }
            slice.endpoints = vec![self.mine.clone()];
            slice.metadata.managed_fields = None;
            self.api.replace(&self.name, &PostParams::default(), &slice).await.map(|_| true)
        };
        match tokio::time::timeout(LIMIT, attempt).await {
            Ok(result) => result.map_err(|source| EndpointError::Api { name: self.name.clone(), source }),
            Err(_) => Err(EndpointError::Late(self.name.clone())),
        }
    }
}
