//! etcd and the API server, in the sandbox. No scheduler, no controllers, no kubelets: what these would do is simulated.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::time::sleep;

use crate::repository;
use crate::scale::audit::{self, Audit};
use crate::scale::pairs::create_namespace;

/// For etcd and the API server to answer.
const READY: Duration = Duration::from_secs(90);
/// Namespace of the operator.
pub const SYSTEM: &str = "pgpair-system";

/// Whether Services get an address of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addresses {
    /// As they ask.
    Given,
    /// None does: thousands would cost the API server more than everything that is measured.
    None,
}

/// The control plane. It ends when this is dropped.
#[derive(Debug)]
pub struct Plane {
    /// Everything is in it.
    pub folder: PathBuf,
    /// For the operator.
    pub operator_kubeconfig: PathBuf,
    /// What the API server answered to the operator.
    pub audit: Arc<Audit>,
    processes: Vec<Child>,
}

impl Plane {
    /// Starts it with the programs in `bin`, and installs the definition of pairs. The client is an administrator's.
    ///
    /// # Errors
    /// When a program is missing or does not answer in time.
    pub async fn start(folder: &Path, bin: &Path, addresses: Addresses) -> anyhow::Result<(Plane, Client)> {
        let pki = Pki::make(folder)?;
        fs::write(folder.join("audit.yaml"), audit::POLICY)?;
        let operator_kubeconfig = pki.kubeconfig("operator", audit::OPERATOR, audit::OPERATOR_GROUP)?;
        let admin = pki.kubeconfig("admin", "scale-admin", "system:masters")?;
        let etcd = start(folder, bin, "etcd", &etcd_flags(folder), false)?;
        let mut server = start(folder, bin, "kube-apiserver", &server_flags(folder), true)?;
        let audit = Arc::new(Audit::default());
        let log = server.stdout.take().context("the API server has no output")?;
        let counts = audit.clone();
        tokio::spawn(async move { counts.follow(log).await });
        let plane =
            Plane { folder: folder.to_owned(), operator_kubeconfig, audit, processes: vec![etcd, server] };
        let config = Kubeconfig::read_from(&admin).context("reading the kubeconfig")?;
        let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
        let client = Client::try_from(config)?;
        plane.await_ready(&client).await?;
        install(&client, addresses).await?;
        Ok((plane, client))
    }

    async fn await_ready(&self, client: &Client) -> anyhow::Result<()> {
        let end = Instant::now() + READY;
        loop {
            let asked = http::Request::get("/readyz").body(Vec::new())?;
            let error = match client.request_text(asked).await {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            if Instant::now() >= end {
                let log = fs::read_to_string(self.folder.join("kube-apiserver.log")).unwrap_or_default();
                let last: Vec<&str> = log.lines().rev().take(5).collect();
                bail!("the API server did not answer within {READY:?}: {error}; its last lines: {last:#?}");
            }
            sleep(Duration::from_millis(300)).await;
        }
    }

    /// The processes that still run.
    ///
    /// # Errors
    /// One has ended.
    pub fn check(&mut self) -> anyhow::Result<()> {
        for process in &mut self.processes {
            if let Some(status) = process.try_wait()? {
                bail!("etcd or the API server has ended: {status}");
            }
        }
        Ok(())
    }
}

async fn install(client: &Client, addresses: Addresses) -> anyhow::Result<()> {
    let definitions = Api::<CustomResourceDefinition>::all(client.clone());
    for file in ["crds/pgreplicapair.yaml", "crds/pgpairorder.yaml"] {
        let path = repository::root().join(file);
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let definition: CustomResourceDefinition = serde_saphyr::from_str(&text).context("the definition")?;
        let created = definitions.create(&PostParams::default(), &definition).await;
        created.with_context(|| format!("installing {file}"))?;
    }
    create_namespace(client, SYSTEM).await?;
    if addresses == Addresses::None {
        make_services_headless(client).await?;
    }
    let end = Instant::now() + READY;
    let pairs = Api::<pgpair_api::PgReplicaPair>::all(client.clone());
    while let Err(error) = pairs.list_metadata(&kube::api::ListParams::default().limit(1)).await {
        anyhow::ensure!(Instant::now() < end, "pairs are not served within {READY:?}: {error}");
        sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

/// Lets Services be without an address of the cluster: for each that it gives out, an API server walks over all that it has given out (Kubernetes
/// 1.36, `ipallocator.Used`), which with thousands of pairs takes more of the machine than everything that is measured. Returns when it is
/// in effect.
async fn make_services_headless(client: &Client) -> anyhow::Result<()> {
    let policies = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicies";
    let bindings = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicybindings";
    let group = "admissionregistration.k8s.io/v1";
    let rule = json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["services"]});
    let change = json!({"expression": r#"Object{spec: Object.spec{clusterIP: "None"}}"#});
    let policy = json!({
        "apiVersion": group, "kind": "MutatingAdmissionPolicy", "metadata": {"name": "headless"},
        "spec": {
            "failurePolicy": "Fail", "reinvocationPolicy": "Never",
            "matchConstraints": {"resourceRules": [rule]},
            "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": change}],
        },
    });
    let binding = json!({
        "apiVersion": group, "kind": "MutatingAdmissionPolicyBinding", "metadata": {"name": "headless"},
        "spec": {"policyName": "headless"},
    });
    for (path, object) in [(policies, policy), (bindings, binding)] {
        let request = http::Request::post(path).header("content-type", "application/json");
        client.request::<Value>(request.body(serde_json::to_vec(&object)?)?).await.context(path)?;
    }
    let services = Api::<Service>::namespaced(client.clone(), "default");
    let probe: Service = serde_json::from_value(
        json!({"metadata": {"name": "probe"}, "spec": {"ports": [{"port": 1}], "selector": {"probe": "probe"}}}),
    )?;
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let end = Instant::now() + READY;
    loop {
        let address = services.create(&dry, &probe).await?.spec.and_then(|spec| spec.cluster_ip);
        if address.as_deref() == Some("None") {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < end, "Services still get an address after {READY:?}: {address:?}");
        sleep(Duration::from_millis(200)).await;
    }
}

/// Starts a program whose messages go into a file of its name; its output too, unless it is `piped`.
fn start(folder: &Path, bin: &Path, name: &str, flags: &[String], piped: bool) -> anyhow::Result<Child> {
    let log = fs::File::create(folder.join(format!("{name}.log")))?;
    let output = if piped { Stdio::piped() } else { log.try_clone()?.into() };
    let program = bin.join(name);
    // A garbage collector that runs less often leaves more of the processors to what is measured.
    let child = Command::new(&program)
        .env("GOGC", "200")
        .env("GOMEMLIMIT", "14GiB")
        // Each collection is a line in its log: it may be what a slow answer waited for.
        .env("GODEBUG", "gctrace=1")
        .args(flags)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(log)
        .kill_on_drop(true)
        .spawn();
    child.with_context(|| format!("starting {}: `make cluster` builds it", program.display()))
}

fn etcd_flags(folder: &Path) -> Vec<String> {
    let data = format!("--data-dir={}", folder.join("etcd").display());
    let all = [
        data.as_str(),
        "--unsafe-no-fsync",
        "--log-level=warn",
        "--quota-backend-bytes=12884901888",
        "--listen-client-urls=http://127.0.0.1:2379",
        "--advertise-client-urls=http://127.0.0.1:2379",
        "--listen-peer-urls=http://127.0.0.1:2380",
    ];
    all.map(str::to_owned).to_vec()
}

fn server_flags(folder: &Path) -> Vec<String> {
    let fixed = [
        "--etcd-servers=http://127.0.0.1:2379",
        // A watch goes on from where it was. Without a watch cache nothing moves that place on while nothing happens, and after a
        // compaction everything would be listed anew: with a cache, bookmarks see to it (Kubernetes, "Efficient detection of changes").
        "--etcd-compaction-interval=0",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        "--endpoint-reconciler-type=none",
        "--secure-port=6443",
        "--service-cluster-ip-range=10.128.0.0/12",
        "--service-account-issuer=https://kubernetes.default.svc",
        // The rights of the operator are tested elsewhere.
        "--authorization-mode=AlwaysAllow",
        // The accounts of pods are not looked for: they are made by the operator beside the pods. Nothing here would take the protection
        // of a claim away when it is deleted.
        "--disable-admission-plugins=ServiceAccount,StorageObjectInUseProtection",
        "--audit-log-path=-",
        "--event-ttl=10m",
        // It would hold each object, and what it was before its last changes: about 2 MiB for a pair that was just made.
        "--watch-cache=false",
        "--profiling=false",
    ];
    let files = [
        ("tls-cert-file", "apiserver.crt"),
        ("tls-private-key-file", "apiserver.key"),
        ("client-ca-file", "ca.crt"),
        ("service-account-key-file", "accounts.pub"),
        ("service-account-signing-key-file", "accounts.key"),
        ("audit-policy-file", "audit.yaml"),
        ("cert-dir", "certificates"),
    ];
    let file = |(flag, name): (&str, &str)| format!("--{flag}={}", folder.join(name).display());
    fixed.map(str::to_owned).into_iter().chain(files.map(file)).collect()
}

/// The certificates of the control plane.
struct Pki {
    folder: PathBuf,
    ca: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    fn make(folder: &Path) -> anyhow::Result<Pki> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "pgpair-scale-ca");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let ca = params.self_signed(&key)?.pem();
        let pki =
            Pki { folder: folder.to_owned(), ca: ca.clone(), issuer: Issuer::from_ca_cert_pem(&ca, key)? };
        fs::write(folder.join("ca.crt"), &ca)?;
        let names = ["127.0.0.1", "localhost", "kubernetes.default.svc"].map(str::to_owned).to_vec();
        let (certificate, key) = pki.sign("kube-apiserver", "", names)?;
        fs::write(folder.join("apiserver.crt"), certificate)?;
        fs::write(folder.join("apiserver.key"), key)?;
        let accounts = KeyPair::generate()?;
        fs::write(folder.join("accounts.key"), accounts.serialize_pem())?;
        fs::write(folder.join("accounts.pub"), accounts.public_key_pem())?;
        Ok(pki)
    }

    fn sign(&self, user: &str, group: &str, names: Vec<String>) -> anyhow::Result<(String, String)> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, user);
        if !group.is_empty() {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        Ok((params.signed_by(&key, &self.issuer)?.pem(), key.serialize_pem()))
    }

    fn kubeconfig(&self, name: &str, user: &str, group: &str) -> anyhow::Result<PathBuf> {
        let (certificate, key) = self.sign(user, group, Vec::new())?;
        let write = |kind: &str, text: &str| -> anyhow::Result<String> {
            let path = self.folder.join(format!("{name}.{kind}"));
            fs::write(&path, text)?;
            Ok(path.display().to_string())
        };
        let config = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "scale",
            "clusters": [{"name": "scale", "cluster": {"server": "https://127.0.0.1:6443", "certificate-authority": write("ca", &self.ca)?}}],
            "users": [{"name": name, "user": {"client-certificate": write("crt", &certificate)?, "client-key": write("key", &key)?}}],
            "contexts": [{"name": "scale", "context": {"cluster": "scale", "user": name}}],
        });
        Ok(write("kubeconfig", &config.to_string())?.into())
    }
}
