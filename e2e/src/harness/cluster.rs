//! The cluster under test: the local one that `make cluster` brings up, or a context of the user's kubeconfig.

use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt as _};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::time::timeout;

use crate::harness::wait::await_condition;
use crate::repository;

/// A cluster that answered.
#[derive(Clone)]
pub struct Cluster {
    /// Its API.
    pub client: Client,
    /// The same with each request made once: `client` makes one anew that was refused for now (429), and that may be the answer.
    pub once: Client,
    /// The cluster of this machine: whose nodes, links and processes can be broken.
    pub local: Option<LocalCluster>,
    /// Arguments that make kubectl use it.
    kubectl: Vec<String>,
}

/// The cluster that `make cluster` brings up.
#[derive(Debug, Clone)]
pub struct LocalCluster {
    /// Its command.
    script: PathBuf,
    /// Its run folder: records, logs, the kubeconfig.
    pub run_dir: PathBuf,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The client holds credentials.
        f.debug_struct("Cluster").field("local", &self.local).finish_non_exhaustive()
    }
}

impl Cluster {
    /// `PGPAIR_CONTEXT` names a context of the user's kubeconfig; without it the local cluster is meant.
    ///
    /// # Errors
    /// When the cluster does not answer within 10 s: says how to get one.
    pub async fn connect() -> anyhow::Result<Cluster> {
        // An error means that another provider was installed before, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let context = std::env::var("PGPAIR_CONTEXT").ok().filter(|c| !c.is_empty());
        let (config, local, kubectl) = match context {
            Some(context) => {
                let options =
                    KubeConfigOptions { context: Some(context.clone()), ..KubeConfigOptions::default() };
                let config = Config::from_kubeconfig(&options).await;
                let config = config
                    .with_context(|| format!("context {context} (PGPAIR_CONTEXT) of the kubeconfig"))?;
                (config, None, vec![format!("--context={context}")])
            }
            None => local_config().await?,
        };
        let mut config = config;
        // A node that is cut off must not hold a request for ever; long streams set their own limits.
        config.connect_timeout = Some(Duration::from_secs(5));
        let mut once = config.clone();
        once.default_retry = false;
        let build = |config| Client::try_from(config).context("building a client of the cluster");
        let (client, once) = (build(config)?, build(once)?);
        let answer = timeout(Duration::from_secs(10), client.apiserver_version()).await;
        answer
            .map_err(anyhow::Error::from)
            .and_then(|a| a.map_err(anyhow::Error::from))
            .context("the cluster's API does not answer: run `make cluster`, or name another context in PGPAIR_CONTEXT")?;
        Ok(Cluster { client, once, local, kubectl })
    }

    /// Runs kubectl on this cluster with its output for the eye, and returns what it printed.
    ///
    /// # Errors
    /// When it fails or takes more than a minute; carries what it said.
    pub async fn kubectl(&self, args: &[&str]) -> anyhow::Result<String> {
        self.kubectl_with_input(args, "").await
    }

    /// The same with `input` on its standard input.
    ///
    /// # Errors
    /// As of [`Cluster::kubectl`].
    pub async fn kubectl_with_input(&self, args: &[&str], input: &str) -> anyhow::Result<String> {
        let mut command = Command::new(tool("kubectl"));
        command.args(&self.kubectl).args(args);
        run(command, input, &format!("kubectl {}", args.join(" ")), Duration::from_secs(60)).await
    }

    /// Runs helm on this cluster, and returns what it printed.
    ///
    /// # Errors
    /// When it fails or takes more than two minutes; carries what it said.
    pub async fn helm(&self, args: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(tool("helm"));
        let access = self.kubectl.iter().map(|word| word.replace("--context=", "--kube-context="));
        command.args(access).args(args);
        run(command, "", &format!("helm {}", args.join(" ")), Duration::from_secs(120)).await
    }

    /// Arguments that make kubectl and its plug-ins use this cluster.
    #[must_use]
    pub fn access(&self) -> &[String] {
        &self.kubectl
    }

    /// Names of the nodes that are ready and take pods.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn ready_nodes(&self) -> anyhow::Result<Vec<String>> {
        let nodes = Api::<Node>::all(self.client.clone())
            .list(&ListParams::default())
            .await
            .context("listing nodes")?;
        let ready = |node: &Node| {
            let conditions = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
            let cordoned = node.spec.as_ref().and_then(|s| s.unschedulable).unwrap_or(false);
            !cordoned && conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
        };
        Ok(nodes.iter().filter(|n| ready(n)).map(|n| n.name_any()).collect())
    }
}

impl LocalCluster {
    /// Runs a command of `e2e/cluster/cluster`, such as `["link", "n1", "down"]`.
    ///
    /// # Errors
    /// When it fails or takes more than two minutes; carries what it said.
    pub async fn run(&self, args: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(&self.script);
        command.args(args);
        run(command, "", &format!("e2e/cluster/cluster {}", args.join(" ")), Duration::from_secs(120)).await
    }
}

/// The program of that name that `make setup` put into the cache, else the machine's.
fn tool(name: &str) -> PathBuf {
    let cached = tools().map(|dir| dir.join(name)).filter(|path| path.exists());
    cached.unwrap_or_else(|| name.into())
}

/// Where `make setup` puts programs.
#[must_use]
pub fn tools() -> Option<PathBuf> {
    cache_dir().map(|dir| dir.join("bin"))
}

async fn run(mut command: Command, input: &str, what: &str, limit: Duration) -> anyhow::Result<String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut process = command.spawn().with_context(|| format!("starting `{what}`"))?;
    let stdin = process.stdin.take();
    let ended = async {
        if let Some(mut stdin) = stdin {
            // A program that does not read is no failure: its exit status tells.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        process.wait_with_output().await
    };
    let output: Output = timeout(limit, ended)
        .await
        .with_context(|| format!("`{what}` took more than {} s", limit.as_secs()))?
        .with_context(|| format!("running `{what}`"))?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`{what}` ended with {}: {}", output.status, error.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn cache_dir() -> Option<PathBuf> {
    let named = std::env::var_os("PGPAIR_CACHE").map(PathBuf::from);
    named.or_else(|| std::env::home_dir().map(|home| home.join(".cache/pgreplicapair")))
}

async fn local_config() -> anyhow::Result<(Config, Option<LocalCluster>, Vec<String>)> {
    let run =
        std::env::var_os("PGPAIR_RUN").map_or_else(|| PathBuf::from("/run/pgreplicapair"), PathBuf::from);
    let path = run.join("kubeconfig");
    let kubeconfig = Kubeconfig::read_from(&path).with_context(|| {
        format!(
            "no cluster: {} cannot be read; run `make cluster`, or name a context in PGPAIR_CONTEXT",
            path.display()
        )
    })?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .with_context(|| format!("reading {}", path.display()))?;
    let script = repository::root().join("e2e/cluster/cluster");
    Ok((
        config,
        Some(LocalCluster { script, run_dir: run }),
        vec![format!("--kubeconfig={}", path.display())],
    ))
}

/// A namespace of its own for one run. Gone at the end, unless `PGPAIR_KEEP=1`.
#[derive(Debug)]
pub struct TempNamespace {
    cluster: Cluster,
    /// Its name.
    pub name: String,
}

impl TempNamespace {
    /// Makes `PREFIX-TIME`.
    ///
    /// # Errors
    /// When the API refuses.
    pub async fn create(cluster: &Cluster, prefix: &str) -> anyhow::Result<TempNamespace> {
        let name = format!("{prefix}-{}", jiff::Timestamp::now().as_second());
        ensure_namespace(cluster, &name).await?;
        Ok(TempNamespace { cluster: cluster.clone(), name })
    }

    /// Deletes it with all that is in it, and waits until it is gone.
    ///
    /// # Errors
    /// When it is still there after five minutes: a fleet of pairs takes its time.
    pub async fn delete(self) -> anyhow::Result<()> {
        if std::env::var("PGPAIR_KEEP").is_ok_and(|keep| keep == "1") {
            println!("namespace {} is kept (PGPAIR_KEEP=1)", self.name);
            return Ok(());
        }
        let api: Api<Namespace> = Api::all(self.cluster.client.clone());
        api.delete(&self.name, &DeleteParams::background())
            .await
            .with_context(|| format!("deleting {}", self.name))?;
        await_condition(&format!("the end of namespace {}", self.name), Duration::from_secs(300), || async {
            match api.get_opt(&self.name).await? {
                None => Ok(()),
                Some(ns) => bail!("it is {:?}", ns.status.and_then(|s| s.phase)),
            }
        })
        .await
    }
}

/// Runs `work` in a namespace of its own, which goes afterwards, whatever came of it.
///
/// # Errors
/// That of `work`, else what kept the namespace from coming or going.
pub async fn in_namespace<T>(
    cluster: &Cluster,
    prefix: &str,
    work: impl AsyncFnOnce(&str) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let namespace = TempNamespace::create(cluster, prefix).await?;
    let done = work(&namespace.name).await;
    let gone = namespace.delete().await;
    let done = done?;
    gone.map(|()| done)
}

/// Makes a namespace unless it is there. Its pods must pass the `restricted` Pod Security profile, as the API server judges it.
///
/// # Errors
/// When the API refuses.
pub async fn ensure_namespace(cluster: &Cluster, name: &str) -> anyhow::Result<()> {
    let namespace = Namespace {
        metadata: ObjectMeta {
            name: Some(name.into()),
            labels: Some([("pod-security.kubernetes.io/enforce".into(), "restricted".into())].into()),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    };
    let api: Api<Namespace> = Api::all(cluster.client.clone());
    match api.create(&PostParams::default(), &namespace).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        Err(error) => Err(error).with_context(|| format!("creating namespace {name}")),
    }
}
