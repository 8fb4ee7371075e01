//! The write oracle as pods of the cluster.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, LogParams, PostParams};
use serde_json::{Value, json};

use crate::harness::pair::Pair;
use crate::harness::wait::await_condition;
use crate::oracle::event::{Ack, Log};

/// Image of the oracle; `PGPAIR_E2E_IMAGE` names another one.
const IMAGE: &str = "localhost/pgpair-e2e:dev";
/// Numbers of one pod's writers: apart from every other pod's.
const RANGE: i64 = 1_000_000_000_000;

/// Where a writer connects to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Through the read-write Service.
    Service,
    /// The given addresses of instances, one writer each, whatever the Service says.
    Direct(Vec<String>),
}

/// A pod of the clients' image, with no right to anything.
///
/// # Errors
/// Never in practice.
pub fn client_pod(name: &str, node: &str, args: &[String], env: &Value) -> anyhow::Result<Pod> {
    let image = std::env::var("PGPAIR_E2E_IMAGE").unwrap_or_else(|_| IMAGE.into());
    let pod = json!({
        "metadata": {"name": name, "labels": {"app.kubernetes.io/name": "pgpair-oracle"}},
        "spec": {
            "nodeName": node,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": false,
            // A node that is cut off must not cost its records.
            "tolerations": [{"operator": "Exists"}],
            "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "oracle",
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "args": args,
                "env": env,
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "readOnlyRootFilesystem": true,
                    "capabilities": {"drop": ["ALL"]},
                },
            }],
        },
    });
    serde_json::from_value(pod).context("building the pod of a client")
}

/// Oracles that write into one table.
#[derive(Debug)]
pub struct Oracle {
    pair: Pair,
    /// The table.
    pub table: String,
    pods: Vec<Placed>,
}

/// A pod and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Its node.
    pub node: String,
    /// Its name.
    pub name: String,
}

impl Oracle {
    /// No pod yet.
    #[must_use]
    pub fn new(pair: &Pair, table: &str) -> Oracle {
        Oracle { pair: pair.clone(), table: table.into(), pods: Vec::new() }
    }

    /// Starts a pod on `node`.
    ///
    /// # Errors
    /// When the API refuses.
    pub async fn start(&mut self, node: &str, target: &Target) -> anyhow::Result<()> {
        let index = self.pods.len();
        let name = format!("oracle-{}-{index}", self.table.replace('_', "-"));
        let first = 1 + i64::try_from(index)? * RANGE;
        let mut args =
            vec!["write".to_owned(), format!("--table={}", self.table), format!("--first={first}")];
        match target {
            // The address, not the name: the oracle measures the pair, not the cluster's DNS.
            Target::Service => args.push(format!("--host={}", self.pair.rw_address().await?)),
            Target::Direct(addresses) => args.extend(addresses.iter().map(|a| format!("--direct={a}"))),
        }
        let pod = self.manifest(&name, node, &args)?;
        self.api()
            .create(&PostParams::default(), &pod)
            .await
            .with_context(|| format!("creating pod {name}"))?;
        self.pods.push(Placed { node: node.to_owned(), name });
        Ok(())
    }

    fn manifest(&self, name: &str, node: &str, args: &[String]) -> anyhow::Result<Pod> {
        let secret = self.pair.names.app_secret();
        let from = |env: &str, key: &str| json!({"name": env, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}});
        let env =
            json!([from("PGUSER", "username"), from("PGPASSWORD", "password"), from("PGDATABASE", "dbname")]);
        client_pod(name, node, args, &env)
    }

    /// Its pods.
    #[must_use]
    pub fn places(&self) -> &[Placed] {
        &self.pods
    }

    fn api(&self) -> Api<Pod> {
        self.pair.pods()
    }

    /// What pod number `index` has recorded so far.
    ///
    /// # Errors
    /// When its node does not give the log, or the log cannot be read.
    pub async fn log(&self, index: usize) -> anyhow::Result<Log> {
        let Placed { name, .. } =
            self.pods.get(index).with_context(|| format!("no oracle number {index}"))?;
        let text = self
            .api()
            .logs(name, &LogParams::default())
            .await
            .with_context(|| format!("log of pod {name}"))?;
        text.parse().with_context(|| format!("log of pod {name}"))
    }

    /// Waits until pod number `index` has recorded `count` acknowledgements that satisfy `which`, and returns the first.
    ///
    /// # Errors
    /// After `limit`, with the last thing that it recorded.
    pub async fn await_acks(
        &self,
        index: usize,
        count: usize,
        which: impl Fn(&Ack) -> bool,
        limit: Duration,
    ) -> anyhow::Result<Ack> {
        let what = format!("{count} acknowledgements to oracle {index}");
        await_condition(&what, limit, || async {
            let log = self.log(index).await?;
            let found: Vec<&Ack> = log.acks().filter(|ack| which(ack)).collect();
            let last = log.last_line();
            ensure!(found.len() >= count.max(1), "{} so far; its last record: {last}", found.len());
            Ok(found[0].clone())
        })
        .await
    }

    /// Every acknowledgement recorded by any pod. Waits for nodes that have just come back.
    ///
    /// # Errors
    /// When a log does not come within 60 s.
    pub async fn all_acks(&self) -> anyhow::Result<Vec<Ack>> {
        let mut acks = Vec::new();
        for index in 0..self.pods.len() {
            let what = format!("the log of oracle {index}");
            let log = await_condition(&what, Duration::from_secs(60), || self.log(index)).await?;
            acks.extend(log.acks().cloned());
        }
        Ok(acks)
    }

    /// Ends every pod.
    ///
    /// # Errors
    /// When one is still there after 60 s.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        let api = self.api();
        let pods = std::mem::take(&mut self.pods);
        for Placed { name, .. } in &pods {
            // One that is gone already is what was wanted.
            let _ = api.delete(name, &DeleteParams::default().grace_period(0)).await;
        }
        for Placed { name, .. } in &pods {
            await_condition(&format!("the end of pod {name}"), Duration::from_secs(60), || async {
                ensure!(api.get_opt(name).await?.is_none(), "it is still there");
                Ok(())
            })
            .await?;
        }
        Ok(())
    }
}
