//! An API server that refuses the operator writes of one kind of object, as an admission policy of a company does.

use std::time::Duration;

use anyhow::{Context as _, bail};
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;

use crate::harness::cluster::Cluster;
use crate::harness::wait::await_condition;

/// For the API server to know a new policy.
const IN_EFFECT: Duration = Duration::from_secs(30);

/// What the policy says when it refuses.
pub const SENTENCE: &str = "the platform team has to agree to this first";

/// Kinds of objects, as a policy selects them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// API group; empty for the core.
    pub group: &'static str,
    /// Resource in the plural.
    pub resource: &'static str,
}

/// A policy in effect. It has to be withdrawn.
#[derive(Debug)]
#[must_use]
pub struct Refusal {
    cluster: Cluster,
    name: String,
}

impl Refusal {
    /// Refuses `user` to create or change objects of these kinds in `namespace`. `probe`: arguments of a kubectl that writes
    /// such an object, by which it is seen that the policy is in effect; nothing is kept of it.
    ///
    /// # Errors
    /// When the API refuses, or the policy is not in effect after 30 s.
    pub async fn impose(
        cluster: &Cluster,
        namespace: &str,
        user: &str,
        kinds: &[Kind],
        probe: &[&str],
    ) -> anyhow::Result<Refusal> {
        let refusal = Refusal { cluster: cluster.clone(), name: format!("{namespace}-refuses") };
        let imposed = async {
            refusal.create(namespace, user, kinds).await?;
            refusal.await_effect(namespace, user, probe).await
        };
        match imposed.await {
            Ok(()) => Ok(refusal),
            Err(error) => {
                refusal.withdraw().await?;
                Err(error)
            }
        }
    }

    async fn create(&self, namespace: &str, user: &str, kinds: &[Kind]) -> anyhow::Result<()> {
        let rule = |kind: &Kind| {
            json!({"apiGroups": [kind.group], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"],
                   "resources": [kind.resource]})
        };
        let rules: Vec<_> = kinds.iter().map(rule).collect();
        let policy = json!({
            "metadata": {"name": self.name},
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {
                    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                    "resourceRules": rules,
                },
                "matchConditions": [{"name": "user", "expression": format!("request.userInfo.username == '{user}'")}],
                "validations": [{"expression": "false", "message": SENTENCE}],
            },
        });
        let binding = json!({
            "metadata": {"name": self.name},
            "spec": {"policyName": self.name, "validationActions": ["Deny"]},
        });
        let policy: ValidatingAdmissionPolicy =
            serde_json::from_value(policy).context("building the policy")?;
        let binding: ValidatingAdmissionPolicyBinding =
            serde_json::from_value(binding).context("building the binding of the policy")?;
        let params = PostParams::default();
        self.policies().create(&params, &policy).await.context("creating an admission policy")?;
        self.bindings().create(&params, &binding).await.context("binding an admission policy")?;
        Ok(())
    }

    /// As that user, who may do everything: the policy alone stands in the way.
    async fn await_effect(&self, namespace: &str, user: &str, probe: &[&str]) -> anyhow::Result<()> {
        let who = [format!("--as={user}"), "--as-group=system:masters".to_owned()];
        let mut args = vec!["-n", namespace, "--dry-run=server", &who[0], &who[1]];
        args.extend(probe);
        await_condition("an admission policy in effect", IN_EFFECT, || async {
            match self.cluster.kubectl(&args).await {
                Ok(_) => bail!("`kubectl {}` is not refused", args.join(" ")),
                Err(error) if format!("{error:#}").contains(SENTENCE) => Ok(()),
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// The end of it.
    ///
    /// # Errors
    /// When the API refuses.
    pub async fn withdraw(self) -> anyhow::Result<()> {
        let params = DeleteParams::default();
        // The binding may not be there, if it could not be made.
        let _ = self.bindings().delete(&self.name, &params).await;
        let gone = self.policies().delete(&self.name, &params).await;
        gone.map(|_| ()).with_context(|| format!("deleting admission policy {}", self.name))
    }

    fn policies(&self) -> Api<ValidatingAdmissionPolicy> {
        Api::all(self.cluster.client.clone())
    }

    fn bindings(&self) -> Api<ValidatingAdmissionPolicyBinding> {
        Api::all(self.cluster.client.clone())
    }
}
