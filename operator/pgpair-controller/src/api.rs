//! Requests to the API server: each with a timeout, each write counted.

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Event, Namespace, Node, Pod};
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions,
};
use kube::core::{ObjectList, ObjectMeta};
use kube::{Api, Client, Resource, ResourceExt};
use pgpair_api::PgReplicaPair;
use pgpair_api::names::FIELD_MANAGER;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cache::{PAGE_OF_METADATA, api_in};
use crate::error::{Error, MayBeRefusal, Refusal};
use crate::managed::Shapes;
use crate::metrics::Metrics;

/// Longest wait for one answer of the API server. The client's own default has no end.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Events that are read about one object.
const WARNINGS: u32 = 50;

/// A namespaced object of a kind known at compile time.
pub trait Object:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned
{
}

impl<K> Object for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned
{
}

/// What an object is applied over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// An object of the pair.
    Own,
    /// There was none.
    Nothing,
}

/// Outcome of [`Requests::create`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// Now.
    Yes,
    /// It was there before.
    AlreadyExists,
}

/// The requests that the operator makes, in one namespace.
#[derive(Clone, Debug)]
pub struct Requests {
    client: DebugClient,
    namespace: String,
    metrics: Arc<Metrics>,
    shapes: Arc<Shapes>,
}

#[derive(Clone)]
struct DebugClient(Client);

impl Debug for DebugClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

impl Requests {
    /// Requests in `namespace`.
    #[must_use]
    pub fn new(client: Client, namespace: &str, metrics: Arc<Metrics>) -> Self {
        let (client, namespace) = (DebugClient(client), namespace.to_owned());
        Requests { client, namespace, metrics, shapes: Arc::default() }
    }

    /// With what the process has learned from the answers to its applies.
    #[must_use]
    pub fn with_shapes(self, shapes: Arc<Shapes>) -> Self {
        Requests { shapes, ..self }
    }

    /// The same requests in another namespace.
    #[must_use]
    pub fn in_namespace(&self, namespace: &str) -> Self {
        Requests { namespace: namespace.to_owned(), ..self.clone() }
    }

    /// What is known from the answers to applies.
    #[must_use]
    pub fn shapes(&self) -> &Shapes {
        &self.shapes
    }

    fn api<K: Object>(&self) -> Api<K> {
        Api::namespaced(self.client.0.clone(), &self.namespace)
    }

    /// Reads an object from the API server itself, never from a cache.
    ///
    /// # Errors
    /// The request failed or was not answered.
    pub async fn get<K: Object>(&self, name: &str) -> Result<Option<K>, Error> {
        bounded::<K, _>("get", name, self.api::<K>().get_opt(name)).await
    }

    /// Reads a Node, which belongs to no namespace.
    ///
    /// # Errors
    /// The request failed or was not answered.
    pub async fn get_node(&self, name: &str) -> Result<Option<Node>, Error> {
        bounded::<Node, _>("get", name, Api::<Node>::all(self.client.0.clone()).get_opt(name)).await
    }

    /// Reads some warning Events about the object with this uid.
    ///
    /// # Errors
    /// The request failed or was not answered.
    pub async fn warnings_about(&self, uid: &str) -> Result<Vec<Event>, Error> {
        let fields = format!("involvedObject.uid={uid},type=Warning");
        let params = ListParams::default().fields(&fields).limit(WARNINGS);
        Ok(bounded::<Event, _>("list", uid, self.api::<Event>().list(&params)).await?.items)
    }

    /// Reads the metadata of an object from the API server itself.
    ///
    /// # Errors
    /// The request failed or was not answered.
    pub async fn get_metadata<K: Object>(&self, name: &str) -> Result<Option<ObjectMeta>, Error> {
        let found = bounded::<K, _>("get", name, self.api::<K>().get_metadata_opt(name)).await?;
        Ok(found.map(|found| found.metadata))
    }

    /// Reads the metadata of all objects of a kind in one namespace or in all (`None`), page by page.
    ///
    /// # Errors
    /// A request failed or was not answered: what was read until then is not all.
    pub async fn list_metadata<K: Object>(
        &self,
        namespace: Option<&str>,
        params: ListParams,
        mut take: impl FnMut(&ObjectMeta),
    ) -> Result<(), Error> {
        let (api, mut params) = (api_in::<K>(&self.client.0, namespace), params.limit(PAGE_OF_METADATA));
        loop {
            let page = bounded::<K, _>("list", "", api.list_metadata(&params)).await?;
            page.items.iter().for_each(|item| take(&item.metadata));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(()),
            }
        }
    }

    /// Whether there is a namespace of that name.
    ///
    /// # Errors
    /// The request failed or was not answered.
    pub async fn has_namespace(&self, name: &str) -> Result<bool, Error> {
        let namespaces = Api::<Namespace>::all(self.client.0.clone());
        Ok(bounded::<Namespace, _>("get", name, namespaces.get_metadata_opt(name)).await?.is_some())
    }

    /// Creates an object. That it exists already is no error; whose it is then, [`crate::ownership`] tells.
    ///
    /// # Errors
    /// The request failed or was not answered.
    pub async fn create<K: Object>(&self, object: &K) -> Result<Created, Error> {
        let name = object.name_any();
        let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
        self.metrics.wrote(&K::kind(&()), "create");
        match bounded::<K, _>("create", &name, self.api::<K>().create(&params, object)).await {
            Ok(_) => Ok(Created::Yes),
            Err(e) if e.is_refused_with(409) => Ok(Created::AlreadyExists),
            Err(e) => Err(e),
        }
    }

    /// Server-side apply: the object is to have at least these fields. Of an object of the pair every such field is taken from whoever
    /// wrote it; where there was none a moment ago, nothing is taken from an object that came in between.
    ///
    /// # Errors
    /// The request failed or was not answered.
    pub async fn apply<K: Object>(&self, object: &K, over: Over) -> Result<K, Error> {
        let name = object.name_any();
        let params = PatchParams::apply(FIELD_MANAGER);
        let params = match over {
            Over::Own => params.force(),
            Over::Nothing => params,
        };
        self.metrics.wrote(&K::kind(&()), "apply");
        // k8s-openapi types carry apiVersion and kind when serialised, as server-side apply wants it.
        bounded::<K, _>("apply", &name, self.api::<K>().patch(&name, &params, &Patch::Apply(object))).await
    }

    /// Replaces an object on the resource version that it carries.
    ///
    /// # Errors
    /// The request failed (409: it changed meanwhile) or was not answered.
    pub async fn replace<K: Object>(&self, object: &K) -> Result<K, Error> {
        let name = object.name_any();
        let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
        self.metrics.wrote(&K::kind(&()), "replace");
        bounded::<K, _>("replace", &name, self.api::<K>().replace(&name, &params, object)).await
    }

    /// Replaces the status of an object on the resource version that it carries.
    ///
    /// # Errors
    /// The request failed (409: it changed meanwhile) or was not answered.
    pub async fn replace_status<K: Object>(&self, object: &K) -> Result<K, Error> {
        let name = object.name_any();
        let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
        self.metrics.wrote(&K::kind(&()), "replace_status");
        bounded::<K, _>("replace", &name, self.api::<K>().replace_status(&name, &params, object)).await
    }

    /// Deletes an object and, in the background, what it owns; that it is gone already is no error.
    ///
    /// # Errors
    /// The request failed or was not answered.
    pub async fn delete<K: Object>(&self, name: &str) -> Result<(), Error> {
        self.metrics.wrote(&K::kind(&()), "delete");
        match bounded::<K, _>("delete", name, self.api::<K>().delete(name, &DeleteParams::background())).await
        {
            Ok(_) => Ok(()),
            Err(e) if e.is_refused_with(404) => Ok(()),
            Err(e) => Err(e),
        }
    }
}

impl Requests {
    fn pairs_as_json(&self) -> Api<DynamicObject> {
        let kind = ApiResource::erase::<PgReplicaPair>(&());
        Api::namespaced_with(self.client.0.clone(), &self.namespace, &kind)
    }

    /// Reads a pair that may be undecodable.
    ///
    /// # Errors
    /// The request failed or was not answered.
    pub async fn get_pair_as_json(&self, name: &str) -> Result<Option<DynamicObject>, Error> {
        bounded::<PgReplicaPair, _>("get", name, self.pairs_as_json().get_opt(name)).await
    }

    /// Replaces the status of a pair that may be undecodable, on the resource version that it carries.
    ///
    /// # Errors
    /// The request failed (409: it changed meanwhile) or was not answered.
    pub async fn replace_status_as_json(&self, pair: &DynamicObject) -> Result<DynamicObject, Error> {
        let name = pair.name_any();
        let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
        self.metrics.wrote(&PgReplicaPair::kind(&()), "replace_status");
        let request = self.pairs_as_json();
        bounded::<PgReplicaPair, _>("replace", &name, request.replace_status(&name, &params, pair)).await
    }

    /// Deletes a pod with its normal grace, but only if it is still the one with this uid; that it is gone already is no
    /// error.
    ///
    /// # Errors
    /// The request failed or was not answered.
    pub async fn delete_pod(&self, name: &str, uid: &str) -> Result<(), Error> {
        self.delete_pod_with(name, uid, DeleteParams::default()).await
    }

    /// Deletes exactly the object with this uid; that it is gone already is no error.
    ///
    /// # Errors
    /// The request failed or was not answered.
    pub async fn delete_exactly<K: Object>(&self, name: &str, uid: &str) -> Result<(), Error> {
        let preconditions = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
        let params = DeleteParams::default().preconditions(preconditions);
        self.metrics.wrote(&K::kind(&()), "delete");
        match bounded::<K, _>("delete", name, self.api::<K>().delete(name, &params)).await {
            Ok(_) => Ok(()),
            Err(e) if e.is_refused_with(404) || e.is_refused_with(409) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Deletes exactly what was read: an object that was changed or made anew since then stays; that it is gone already is no error.
    ///
    /// # Errors
    /// The request failed (409: it is another one by now) or was not answered.
    pub async fn delete_as_read<K: Object>(&self, read: &ObjectMeta) -> Result<(), Error> {
        let name = read.name.as_deref().unwrap_or_default();
        let preconditions =
            Preconditions { uid: read.uid.clone(), resource_version: read.resource_version.clone() };
        let params = DeleteParams::default().preconditions(preconditions);
        self.metrics.wrote(&K::kind(&()), "delete");
        match bounded::<K, _>("delete", name, self.api::<K>().delete(name, &params)).await {
            Ok(_) => Ok(()),
            Err(e) if e.is_refused_with(404) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Takes a pod out of the API without waiting for its kubelet (`kubectl delete --force`), under the same condition.
    ///
    /// # Errors
    /// The request failed or was not answered.
    pub async fn release_pod(&self, name: &str, uid: &str) -> Result<(), Error> {
        self.delete_pod_with(name, uid, DeleteParams::default().grace_period(0)).await
    }

    async fn delete_pod_with(&self, name: &str, uid: &str, params: DeleteParams) -> Result<(), Error> {
        let preconditions = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
        let params = params.preconditions(preconditions);
        self.metrics.wrote("Pod", "delete");
        match bounded::<Pod, _>("delete", name, self.api::<Pod>().delete(name, &params)).await {
            Ok(_) => Ok(()),
            // 409: another pod has this name by now.
            Err(e) if e.is_refused_with(404) || e.is_refused_with(409) => Ok(()),
            Err(e) => Err(e),
        }
    }
}

/// One page of a list.
///
/// # Errors
/// The request failed or took too long.
pub async fn list_page<K: Object>(api: &Api<K>, params: &ListParams) -> Result<ObjectList<K>, Error> {
    bounded::<K, _>("list", "", api.list(params)).await
}

async fn bounded<K: Resource<DynamicType = ()>, T>(
    verb: &'static str,
    name: &str,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, Error> {
    let kind = || K::kind(&()).into_owned();
    match tokio::time::timeout(REQUEST_TIMEOUT, request).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(kube::Error::Api(status))) => Err(Refusal::new(verb, kind(), name, &status).into()),
        Ok(Err(source)) => {
            Err(Error::Request { verb, kind: kind(), name: name.to_owned(), source: Box::new(source) })
        }
        Err(_) => Err(Error::Timeout { verb, kind: kind(), name: name.to_owned(), after: REQUEST_TIMEOUT }),
    }
}
