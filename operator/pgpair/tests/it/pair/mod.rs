//! Two real agents with real postgres processes on loopback, started as the user postgres when the tests run as root.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgpair_agent::net::tls::Identity;
use pgpair_core::ids::InstanceId;
use pgpair_core::record::Mode;
use pgpair_wire::config::PairConfig;
use pgpair_wire::paths;
use pgpair_wire::report::InstanceReport;
use pgpair_wire::scram::{GivenPassword, GivenPasswords, VERIFIERS_KEY, Verifier, Verifiers};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_postgres::{Client, NoTls};

use crate::api::Api;

mod ca;
mod machine;
mod mount;
#[path = "../../../../pgpair-agent/tests/it/own_memory.rs"]
pub mod own_memory;
mod processes;

pub use ca::{Ca, Files};
pub use machine::{give, owner, ports};
pub use mount::Mount;
use processes::{children_of, kill_tree};

pub const LIMIT: Duration = Duration::from_secs(60);

/// A name of every instance that no name server knows.
const UNKNOWN_HOST: &str = "shop-new-0.invalid";

/// A pair. Everything ends and vanishes when it is dropped.
pub struct Pair {
    // Unmounted before the directory goes.
    mounts: Vec<Arc<Mount>>,
    dir: TempDir,
    pub api: Api,
    kubeconfig: PathBuf,
    ports: [[u16; 3]; 2],
    agents: [Option<Child>; 2],
    witnesses: Vec<Child>,
    owner: (u32, u32),
    config: PairConfig,
    pub ca: Ca,
    /// PostgreSQL's programs; `None`: those that an agent finds.
    bin: Option<PathBuf>,
    /// How long a pod has to stop; `None`: what an agent takes for it by default.
    grace: Option<Duration>,
}

/// A volume of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Volume {
    Data,
    Archive,
}

fn index(i: InstanceId) -> usize {
    usize::from(i == InstanceId::B)
}

/// Waits for a condition; what did not come is named.
pub async fn eventually<T>(what: &str, limit: Duration, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(Instant::now() < end, "did not come within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Pair {
    /// Both instances seeded and `Paired`, with a short `ttl`.
    pub async fn up() -> Pair {
        Pair::up_with(PairConfig { generation: 1, ttl_ms: 2_000, ..PairConfig::default() }).await
    }

    /// As [`Pair::up`], with this configuration.
    pub async fn up_with(config: PairConfig) -> Pair {
        Pair::new(config).await.brought_up().await
    }

    /// As [`Pair::up_with`], with the PostgreSQL in this directory.
    pub async fn up_on(bin: &Path, config: PairConfig) -> Pair {
        let mut pair = Pair::new(config).await;
        pair.bin = Some(bin.to_owned());
        pair.brought_up().await
    }

    /// As [`Pair::up`], with pods that have this long to stop.
    pub async fn up_with_grace(grace: Duration) -> Pair {
        let mut pair = Pair::new(PairConfig { generation: 1, ttl_ms: 2_000, ..PairConfig::default() }).await;
        pair.grace = Some(grace);
        pair.brought_up().await
    }

    /// As [`Pair::up_with`], with one of the volumes on a file system of its own.
    pub async fn up_on_mount(config: PairConfig, i: InstanceId, volume: Volume) -> (Pair, Arc<Mount>) {
        let mut pair = Pair::new(config).await;
        let at = match volume {
            Volume::Data => "data",
            Volume::Archive => "archive",
        };
        let mount = Arc::new(Mount::new(&pair.root(i).join(at), pair.owner));
        pair.mounts.push(mount.clone());
        (pair.brought_up().await, mount)
    }

    async fn brought_up(self) -> Pair {
        let mut pair = self;
        pair.start(InstanceId::A);
        eventually("a is primary", LIMIT, async || pair.sql(InstanceId::A, "SELECT 1").await.ok()).await;
        eventually("the endpoint is at a", LIMIT, async || pair.api.endpoint().filter(|e| e == "shop-a-0"))
            .await;
        pair.seed(InstanceId::B);
        pair.start(InstanceId::B);
        pair.paired().await;
        pair
    }

    /// Volumes and certificates, and no agent yet.
    pub async fn new(config: PairConfig) -> Pair {
        let _ = rustls::crypto::ring::default_provider().install_default(); // another test of this process did
        let dir = tempfile::Builder::new().prefix("pgpair-it-").tempdir().unwrap();
        let (api, address) = Api::start("shop").await;
        let owner = owner();
        let kubeconfig = dir.path().join("kubeconfig");
        let text = format!(
            "apiVersion: v1\nkind: Config\nclusters: [{{name: c, cluster: {{server: \"{address}\"}}}}]\nusers: [{{name: u, user: {{}}}}]\ncontexts: [{{name: x, context: {{cluster: c, user: u}}}}]\ncurrent-context: x\n"
        );
        fs::write(&kubeconfig, text).unwrap();
        let program = dir.path().join("pgpair");
        fs::copy(env!("CARGO_BIN_EXE_pgpair"), &program).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let pair = Pair {
            mounts: Vec::new(),
            kubeconfig,
            api,
            ports: [ports(), ports()],
            agents: [None, None],
            witnesses: Vec::new(),
            owner,
            config,
            ca: Ca::new("shop"),
            bin: None,
            grace: None,
            dir,
        };
        pair.make_volumes();
        pair
    }

    fn root(&self, i: InstanceId) -> PathBuf {
        self.dir.path().join(i.as_str())
    }

    pub fn socket_dir(&self, i: InstanceId) -> PathBuf {
        self.root(i).join("run/pg")
    }

    pub fn pg_port(&self, i: InstanceId) -> u16 {
        self.ports[index(i)][0]
    }

    pub fn peer_port(&self, i: InstanceId) -> u16 {
        self.ports[index(i)][1]
    }

    pub fn probe_port(&self, i: InstanceId) -> u16 {
        self.ports[index(i)][2]
    }

    pub fn pgdata(&self, i: InstanceId) -> PathBuf {
        self.root(i).join("data/pgdata")
    }

    /// The directory with the journal of an instance's agent.
    pub fn journal(&self, i: InstanceId) -> PathBuf {
        self.root(i).join("run/journal")
    }

    /// The lock that each process of a postmaster's tree holds.
    pub fn lock(&self, i: InstanceId) -> PathBuf {
        self.root(i).join("data/pgpair.lock")
    }

    /// The identity of an instance's data directory, at which its agent looks in each round.
    pub fn volume_json(&self, i: InstanceId) -> PathBuf {
        self.root(i).join("data/volume.json")
    }

    /// The file that the agent of an instance writes over and over.
    pub fn write_probe(&self, i: InstanceId) -> PathBuf {
        self.root(i).join("data/write-probe")
    }

    /// Where a person would put the trigger file of an instance.
    pub fn trigger(&self, i: InstanceId) -> PathBuf {
        self.root(i).join("run/promote")
    }

    /// A named pipe that the agents can read.
    pub fn make_pipe(&self, path: &Path) {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        give(path, self.owner);
    }

    /// The archive of the one cluster of an instance.
    pub fn archive(&self, i: InstanceId) -> PathBuf {
        let entries = fs::read_dir(self.root(i).join("archive")).unwrap();
        let is_cluster = |p: &PathBuf| p.join("wal").is_dir();
        entries.map(|e| e.unwrap().path()).find(is_cluster).unwrap().join("wal")
    }

    /// A request of the operator to an agent: status and body of the answer.
    pub async fn ask(
        &self,
        i: InstanceId,
        method: &str,
        path: &str,
        body: &str,
    ) -> std::io::Result<(u16, String)> {
        self.ask_as(&self.dir.path().join("operator"), i, method, path, body).await
    }

    /// A request with the certificate in `tls`.
    pub async fn ask_as(
        &self,
        tls: &Path,
        i: InstanceId,
        method: &str,
        path: &str,
        body: &str,
    ) -> std::io::Result<(u16, String)> {
        let identity = Identity::load(tls).map_err(std::io::Error::other)?;
        let tcp = tokio::net::TcpStream::connect(("127.0.0.1", self.ports[index(i)][1])).await?;
        let name = rustls::pki_types::ServerName::try_from("localhost").map_err(std::io::Error::other)?;
        let mut stream = tokio_rustls::TlsConnector::from(identity.client()).connect(name, tcp).await?;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        let status = text.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        Ok((status, text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()))
    }

    fn make_volumes(&self) {
        let ca = &self.ca;
        let operator = self.dir.path().join("operator");
        fs::create_dir(&operator).unwrap();
        ca.issue(&operator, "tls", "pgpair-operator", 99);
        for i in InstanceId::ALL {
            let root = self.root(i);
            for sub in ["data", "archive", "run", "tls", "app", "config"] {
                fs::create_dir_all(root.join(sub)).unwrap();
            }
            for (file, name) in [
                ("tls", format!("shop-{i}")),
                ("server", format!("shop-{i}-server")),
                ("restore", format!("shop-{i}-restore")),
                ("replication", "pgpair_replication".to_owned()),
            ] {
                ca.issue(&root.join("tls"), file, &name, self.serial(i, file));
            }
            for name in ["username", "dbname"] {
                fs::write(root.join("app").join(name), "app").unwrap();
            }
            let verifiers = Verifiers::from([("app".to_owned(), Verifier::make("secret").unwrap())]);
            fs::write(root.join("app").join(VERIFIERS_KEY), serde_json::to_string(&verifiers).unwrap())
                .unwrap();
            let config = serde_json::to_string(&self.config).unwrap();
            fs::write(root.join("config/pair.json"), config).unwrap();
            give(&root, self.owner);
        }
    }

    /// The operator's ConfigMap, as the kubelet mounts it.
    pub fn mount(&self, i: InstanceId, config: &PairConfig) {
        let path = self.root(i).join("config/pair.json");
        fs::write(&path, serde_json::to_string(config).unwrap()).unwrap();
        give(&path, self.owner);
    }

    /// A password of the application's role, as the operator gives it to an agent.
    pub async fn give_password(&self, to: InstanceId, password: &GivenPassword) {
        let given = GivenPasswords::from([("app".to_owned(), password.clone())]);
        let body = serde_json::to_string(&given).unwrap();
        assert_eq!(self.ask(to, "PUT", paths::PASSWORDS, &body).await.unwrap().0, 200);
    }

    /// Whether the application gets in with this password.
    pub async fn logs_in(&self, i: InstanceId, password: &str) -> bool {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(self.ports[index(i)][0]).user("app").password(password).dbname("app");
        let Ok((client, connection)) = config.connect_timeout(Duration::from_secs(1)).connect(NoTls).await
        else {
            return false;
        };
        tokio::spawn(connection);
        client.simple_query("SELECT 1").await.is_ok()
    }

    /// What a new pod does not have any more.
    pub fn forget_run(&self, i: InstanceId) {
        let run = self.root(i).join("run");
        fs::remove_dir_all(&run).unwrap();
        fs::create_dir(&run).unwrap();
        give(&run, self.owner);
    }

    /// The program in the pod of an instance.
    pub fn command(&self, i: InstanceId, subcommand: &str) -> Command {
        let (own, peer) = (self.ports[index(i)], self.ports[index(i.peer())]);
        let root = self.root(i);
        let mut c = own_memory::command(&self.dir.path().join("pgpair"), self.owner);
        c.arg(subcommand);
        let vars: [(&str, String); 15] = [
            ("PGPAIR_PAIR", "shop".into()),
            ("PGPAIR_NAMESPACE", "test".into()),
            ("PGPAIR_INSTANCE", i.to_string()),
            ("PGPAIR_POD_NAME", format!("shop-{i}-0")),
            ("PGPAIR_POD_IP", "127.0.0.1".into()),
            ("PGPAIR_NODE", "n1".into()),
            ("PGPAIR_PEER_HOST", "localhost".into()),
            ("PGPAIR_LISTEN", "127.0.0.1".into()),
            ("PGPAIR_PG_PORT", own[0].to_string()),
            ("PGPAIR_PEER_PG_PORT", peer[0].to_string()),
            ("PGPAIR_PEER_PORT", own[1].to_string()),
            ("PGPAIR_PEER_PEER_PORT", peer[1].to_string()),
            ("PGPAIR_PROBE_PORT", own[2].to_string()),
            ("KUBECONFIG", self.kubeconfig.display().to_string()),
            ("RUST_LOG", std::env::var("RUST_LOG").unwrap_or_else(|_| "info".into())),
        ];
        c.envs(vars);
        c.envs(self.bin.iter().map(|bin| ("PGPAIR_PG_BIN", bin)));
        c.envs(self.grace.iter().map(|grace| ("PGPAIR_GRACE_SECONDS", grace.as_secs().to_string())));
        for (name, sub) in [
            ("DATA_ROOT", "data"),
            ("ARCHIVE_ROOT", "archive"),
            ("RUN", "run"),
            ("TLS", "tls"),
            ("APP", "app"),
            ("CONFIG", "config"),
        ] {
            c.env(format!("PGPAIR_{name}"), root.join(sub));
        }
        c
    }

    pub fn start(&mut self, i: InstanceId) {
        let child = self.command(i, "agent").spawn().unwrap();
        self.agents[index(i)] = Some(child);
    }

    /// The second container of an instance's pod, for which no name server knows the peer; ends with the pair.
    pub fn start_witness(&mut self, i: InstanceId) {
        let child = self.command(i, "witness").env("PGPAIR_PEER_HOST", UNKNOWN_HOST).spawn().unwrap();
        self.witnesses.push(child);
    }

    /// Whether somebody waits for the lock of the agent: the kernel marks those with an arrow (proc(5), `/proc/locks`).
    pub fn witness_waits(&self, i: InstanceId) -> bool {
        let inode = fs::metadata(self.root(i).join("data/agent.lock")).map(|m| m.ino()).unwrap_or(0);
        let locks = fs::read_to_string("/proc/locks").unwrap();
        locks.lines().any(|l| l.contains("->") && l.contains(&format!(":{inode} ")))
    }

    /// The instance report, as the operator gets it.
    pub async fn report(&self, i: InstanceId) -> Option<InstanceReport> {
        let (status, body) = self.ask(i, "GET", paths::REPORT, "").await.ok()?;
        serde_json::from_str(&body).ok().filter(|_| status == 200)
    }

    /// Status of the answer to a GET at the probe port, where anybody may ask.
    pub async fn probe(&self, i: InstanceId, path: &str) -> u16 {
        let mut stream =
            tokio::net::TcpStream::connect(("127.0.0.1", self.ports[index(i)][2])).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0)
    }

    /// The seeding Job.
    pub fn seed(&self, i: InstanceId) {
        let status = self.command(i, "basebackup").status().unwrap();
        assert!(status.success(), "the seeding of {i} failed");
    }

    /// SIGKILL of the init process and everything below it, as when a container is killed.
    pub fn kill_container(&mut self, i: InstanceId) {
        if let Some(mut child) = self.agents[index(i)].take() {
            kill_tree(child.id());
            let _ = child.wait();
        }
    }

    pub fn signal(&self, i: InstanceId, signal: rustix::process::Signal) {
        let pid = self.agents[index(i)].as_ref().and_then(|c| i32::try_from(c.id()).ok()).unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// Pids of the agent process (the child of init).
    pub fn agent_pid(&self, i: InstanceId) -> rustix::process::Pid {
        let init = self.agents[index(i)].as_ref().unwrap().id();
        let pids = children_of(init);
        let program = self.dir.path().join("pgpair");
        let agent =
            pids.into_iter().find(|p| fs::read_link(format!("/proc/{p}/exe")).is_ok_and(|e| e == program));
        rustix::process::Pid::from_raw(i32::try_from(agent.unwrap()).unwrap()).unwrap()
    }

    pub fn has_ended(&mut self, i: InstanceId) -> bool {
        self.agents[index(i)].as_mut().is_none_or(|c| c.try_wait().unwrap().is_some())
    }

    pub fn postmaster_pid(&self, i: InstanceId) -> rustix::process::Pid {
        let text = fs::read_to_string(self.root(i).join("data/pgdata/postmaster.pid")).unwrap();
        rustix::process::Pid::from_raw(text.lines().next().unwrap().parse().unwrap()).unwrap()
    }

    pub async fn connect(&self, i: InstanceId) -> Result<Client, tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config.host_path(self.socket_dir(i)).port(self.ports[index(i)][0]).user("postgres").dbname("app");
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Whether a client from outside gets as far as to be asked for its password.
    pub async fn admits_clients(&self, i: InstanceId) -> bool {
        let mut config = tokio_postgres::Config::new();
        config
            .host("127.0.0.1")
            .port(self.ports[index(i)][0])
            .user("somebody")
            .password("wrong")
            .dbname("app");
        config.connect_timeout(Duration::from_secs(1));
        let code = config.connect(NoTls).await.err().and_then(|e| e.code().cloned());
        code == Some(tokio_postgres::error::SqlState::INVALID_PASSWORD)
    }

    /// First column of the first row as text.
    pub async fn sql(&self, i: InstanceId, text: &str) -> Result<String, String> {
        let attempt = async {
            let client = self.connect(i).await.map_err(|e| e.to_string())?;
            let rows = client.simple_query(text).await.map_err(|e| e.to_string())?;
            let first = rows.iter().find_map(|m| match m {
                tokio_postgres::SimpleQueryMessage::Row(r) => Some(r.get(0).unwrap_or_default().to_owned()),
                _ => None,
            });
            Ok(first.unwrap_or_default())
        };
        tokio::time::timeout(Duration::from_secs(5), attempt).await.map_err(|_| "late".to_owned())?
    }

    pub async fn paired(&self) {
        eventually("the record says Paired", LIMIT, async || (self.api.mode() == Mode::Paired).then_some(()))
            .await;
    }

    /// Who is out of recovery, by his own word.
    pub async fn is_writable(&self, i: InstanceId) -> bool {
        self.sql(i, "SELECT pg_is_in_recovery()::text").await.as_deref() == Ok("false")
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for child in self.agents.iter_mut().flatten().chain(&mut self.witnesses) {
            kill_tree(child.id());
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("record: {:?}", self.api.record());
        }
    }
}
