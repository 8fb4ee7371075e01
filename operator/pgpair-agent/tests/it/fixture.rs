//! A pair on loopback: temporary volumes, certificates, two instances.
//!
//! Each test runs in a process of its own, which is the subreaper of its postgres processes and, since postgres refuses root,
//! is started as the user `postgres` (or `nobody`) when the tests run as root.

use std::any::type_name;
use std::fs;
use std::io::{Read as _, Seek as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use pgpair_agent::fence::init::Tree;
use pgpair_agent::fence::lock::{VolumeLock, wait_free};
use pgpair_agent::instance::env::InstanceEnv;
use pgpair_agent::postgres::postmaster::{
    self, ClientAccess, Postmaster, StartAs, StartOptions, bootstrap, initdb, start,
};
use pgpair_agent::postgres::promote::promote;
use pgpair_agent::postgres::render::Upstream;
use pgpair_agent::postgres::sql::{Sql, SqlError, SqlSnapshot, StreamState};
use pgpair_agent::postgres::tool::PgBin;
use pgpair_agent::standby::base_backup;
use pgpair_core::ids::{InstanceId, VolumeId};
use pgpair_core::lsn::Lsn;
use pgpair_wire::config::PairConfig;
use pgpair_wire::scram::{VERIFIERS_KEY, Verifier, Verifiers};
use pgpair_wire::seed::SeedProgress;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod,
    KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tempfile::TempDir;
use tokio_postgres::Client;

use crate::own_memory;

pub const LIMIT: Duration = Duration::from_secs(60);
/// Names and files of the certificates in a mounted Secret.
const CERTIFICATES: [(&str, &str); 4] = [
    ("shop-a", "tls"),
    ("shop-a-server", "server"),
    ("pgpair_replication", "replication"),
    ("shop-a-restore", "restore"),
];
const CHILD: &str = "PGPAIR_TEST_CHILD";
const ARGS: &str = "PGPAIR_TEST_ARGS";
/// Name of the copy of the test binary in the directory of a test.
const PROGRAM: &str = "it";
/// The PostgreSQL of one run.
const BIN: &str = "PGPAIR_TEST_PG_BIN";

/// Runs the body of a test in its own process, for each PostgreSQL that is there, then kills whatever it has left.
pub fn run<B: AsyncFnOnce(World)>(body: B) {
    if std::env::var_os(CHILD).is_none() {
        let name = type_name::<B>().trim_end_matches("::{{closure}}");
        let name = name.split_once("::").expect("a path in this crate").1;
        for bin in programs() {
            let mut child = exe_as_unprivileged();
            child.args(["--exact", name, "--nocapture"]).env(CHILD, "1").env(BIN, &bin);
            // Into a file: what outlives the child would hold a pipe open.
            let mut said = tempfile::tempfile().expect("a file");
            child.stdout(said.try_clone().expect("the file")).stderr(said.try_clone().expect("the file"));
            let status = child.status().expect("the test binary starts");
            said.rewind().expect("the file");
            let mut text = Vec::new();
            said.read_to_end(&mut text).expect("the file");
            print!("{}", String::from_utf8_lossy(&text));
            assert!(status.success(), "{name} failed in its process with {}", bin.display());
        }
        return;
    }
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).expect("a subreaper");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(240), body(World::new())).await })
    }));
    let killed = Tree::of_agent().kill(Duration::from_secs(20));
    result.expect("the claim holds").expect("in time");
    assert_eq!(killed.left, Some(0));
}

/// The directories of `PGPAIR_TEST_PG_BINS`, separated by colons, else each version of `/usr/lib/postgresql`.
fn programs() -> Vec<PathBuf> {
    if let Some(given) = std::env::var_os("PGPAIR_TEST_PG_BINS").filter(|v| !v.is_empty()) {
        return std::env::split_paths(&given).collect();
    }
    let versions = fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is installed");
    let bins = versions.map(|v| v.expect("a version").path().join("bin"));
    let mut bins: Vec<PathBuf> = bins.filter(|b| b.join("postgres").is_file()).collect();
    bins.sort();
    assert!(!bins.is_empty(), "no PostgreSQL below /usr/lib/postgresql");
    bins
}

pub fn exe_as_unprivileged() -> Command {
    let is_root = rustix::process::geteuid().is_root();
    let own = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let owner = if is_root { unprivileged() } else { own };
    let mut command = own_memory::command(Path::new(&format!("/proc/{}/exe", std::process::id())), owner);
    if is_root {
        command.env_remove("TMPDIR");
    }
    command
}

fn unprivileged() -> (u32, u32) {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let find = |user: &str| {
        let line = passwd.lines().find(|l| l.split(':').next() == Some(user))?;
        let mut ids = line.split(':').skip(2).map_while(|f| f.parse().ok());
        Some((ids.next()?, ids.next()?))
    };
    find("postgres").or_else(|| find("nobody")).unwrap_or((65534, 65534))
}

/// The `pgpair` that postgres calls: the script of an instance ends here.
#[test]
fn program() {
    let Ok(args) = std::env::var(ARGS) else { return };
    let args: Vec<&str> = args.split('|').collect();
    let code = match args[..] {
        ["wal-archive", path, name] => pgpair_agent::wal::archive::run(Path::new(path), name),
        ["wal-restore", name, path] => pgpair_agent::wal::restore::run(name, Path::new(path)),
        _ => std::process::ExitCode::from(2),
    };
    std::process::exit(i32::from(code != std::process::ExitCode::SUCCESS));
}

/// The directory of a test, and the pair's certificates.
pub struct World {
    dir: TempDir,
    pub ca: Ca,
    pub a: Instance,
    pub b: Instance,
}

/// One instance: its settings and its connection. Postgres need not run.
#[derive(Clone)]
pub struct Instance {
    pub settings: InstanceEnv,
    pub config: PairConfig,
    pub bin: PgBin,
    pub sql: Sql,
}

impl World {
    fn new() -> World {
        let dir = tempfile::Builder::new().prefix("pgpair-it-").tempdir_in("/tmp").expect("a directory");
        let exe = dir.path().join(PROGRAM);
        fs::copy("/proc/self/exe", &exe).expect("a copy of the test binary");
        let ca = Ca::new();
        let [pg_a, agent_a, pg_b, agent_b] = ports();
        let (of_a, of_b) = ((pg_a, agent_a), (pg_b, agent_b));
        let make = |id: InstanceId, own: (u16, u16), peer: (u16, u16)| {
            Instance::new(dir.path(), &exe, &ca, id, own, peer)
        };
        let a = make(InstanceId::A, of_a, of_b);
        let b = make(InstanceId::B, of_b, of_a);
        World { dir, ca, a, b }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// This test binary where everybody may run it; the user of a test may not enter the build directory.
    pub fn program(&self) -> PathBuf {
        self.path().join(PROGRAM)
    }

    /// A primary on a that clients can use, and its slot for b.
    pub async fn primary(&self) -> Postmaster {
        self.a.init().await;
        let postmaster = self.a.start(StartAs::Primary).await;
        bootstrap(&self.a.settings, &self.a.config, &self.a.sql).await.expect("roles");
        self.a.sql.ensure_slot("pgpair_b").await.expect("a slot");
        self.a.exec("CREATE TABLE t (n int); INSERT INTO t SELECT generate_series(1, 1000)").await;
        postmaster
    }

    /// A primary on a and a standby on b that streams.
    pub async fn pair(&self) -> (Postmaster, Postmaster) {
        let a = self.primary().await;
        self.b.seed().await;
        let b = self.b.start(self.b.standby_of(&self.a)).await;
        self.streaming(&self.a).await;
        (a, b)
    }

    /// A pair whose primary was killed, and then its successor: a ends on timeline 1, b on timeline 2. Gives where b had flushed to.
    pub async fn killed_one_after_the_other(&self) -> Lsn {
        let (a, b) = self.pair().await;
        self.a.kill(&a).await;
        promote(&self.b.settings, &b, &self.b.sql, LIMIT).await.unwrap();
        self.b.exec("INSERT INTO t VALUES (1)").await;
        let flushed = self.b.facts().await.flush_lsn.unwrap();
        self.b.kill(&b).await;
        flushed
    }

    /// Waits until the peer of `primary` streams and has replayed everything.
    pub async fn streaming(&self, primary: &Instance) {
        eventually("the standby streams and has replayed everything", async || {
            let facts = primary.sql.observe().await.ok()?;
            let peer = facts.peer?;
            (peer.stream == StreamState::Streaming && peer.replay >= facts.insert_lsn).then_some(())
        })
        .await;
    }
}

impl Instance {
    fn new(root: &Path, exe: &Path, ca: &Ca, id: InstanceId, own: (u16, u16), peer: (u16, u16)) -> Instance {
        let root = root.join(id.as_str());
        let at = |name: &str| root.join(name).display().to_string();
        for name in ["data", "archive", "run", "tls", "app"] {
            fs::create_dir_all(root.join(name)).expect("a directory");
        }
        ca.issue(&root.join("tls"));
        for name in ["username", "dbname"] {
            fs::write(root.join("app").join(name), "shop").expect("a secret");
        }
        let script = root.join("pgpair");
        let env = [
            ("PGPAIR_PAIR", "shop".into()),
            ("PGPAIR_NAMESPACE", "test".into()),
            ("PGPAIR_INSTANCE", id.to_string()),
            ("PGPAIR_PEER_HOST", "localhost".into()),
            ("PGPAIR_DATA_ROOT", at("data")),
            ("PGPAIR_ARCHIVE_ROOT", at("archive")),
            ("PGPAIR_RUN", at("run")),
            ("PGPAIR_TLS", at("tls")),
            ("PGPAIR_APP", at("app")),
            ("PGPAIR_LISTEN", "127.0.0.1".into()),
            ("PGPAIR_PG_PORT", own.0.to_string()),
            ("PGPAIR_PEER_PORT", own.1.to_string()),
            ("PGPAIR_PEER_PG_PORT", peer.0.to_string()),
            ("PGPAIR_PEER_PEER_PORT", peer.1.to_string()),
            ("PGPAIR_PG_BIN", std::env::var(BIN).unwrap_or_default()),
            ("PGPAIR_PROGRAM", script.display().to_string()),
        ];
        let lookup = |name| env.iter().find(|(n, _)| *n == name).map(|(_, v)| v.clone());
        let settings = InstanceEnv::from_lookup(lookup).expect("settings");
        let exports: String = env.iter().map(|(n, v)| format!("export {n}='{v}'\n")).collect();
        let call = format!("{ARGS}=\"$1|$2|$3\" exec {} --exact fixture::program", exe.display());
        fs::write(&script, format!("#!/bin/sh\n{exports}{call} --nocapture >/dev/null\n")).expect("a script");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("an executable script");
        let bin = PgBin::find(&settings).expect("PostgreSQL is installed");
        let sql = Sql::new(&settings);
        let instance = Instance { settings, config: PairConfig::default(), bin, sql };
        instance.mount_passwords(&[("shop", "s3cret")]);
        instance
    }

    /// The first passwords of roles, as the operator's Secret has them.
    pub fn mount_passwords(&self, passwords: &[(&str, &str)]) {
        let verifier = |password: &str| Verifier::make(password).expect("a verifier");
        let verifiers: Verifiers =
            passwords.iter().map(|(role, password)| ((*role).to_owned(), verifier(password))).collect();
        let text = serde_json::to_string(&verifiers).expect("JSON");
        fs::write(self.settings.layout.app.join(VERIFIERS_KEY), text).expect("a secret");
    }

    pub fn lock(&self) -> VolumeLock {
        VolumeLock::try_acquire(&self.settings.layout.lock()).expect("a lock file").expect("a free lock")
    }

    pub async fn init(&self) {
        initdb(&self.settings, &self.config.bootstrap, &self.bin, &self.lock(), VolumeId(1))
            .await
            .expect("initdb");
    }

    pub async fn seed(&self) -> Vec<SeedProgress> {
        let (send, mut receive) = tokio::sync::watch::channel(SeedProgress::default());
        let seen = tokio::spawn(async move {
            let mut seen = Vec::new();
            while receive.changed().await.is_ok() {
                seen.push(*receive.borrow_and_update());
            }
            seen
        });
        base_backup::seed(&self.settings, &self.config, VolumeId(2), &send).await.expect("a base backup");
        drop(send);
        seen.await.expect("progress")
    }

    pub fn standby_of(&self, primary: &Instance) -> StartAs {
        StartAs::Standby(primary.upstream())
    }

    /// Where others connect to this one.
    pub fn upstream(&self) -> Upstream {
        Upstream { host: "localhost".into(), address: None, port: self.settings.pg_port }
    }

    pub async fn start(&self, role: StartAs) -> Postmaster {
        let postmaster = self.start_only(role).await;
        postmaster.wait_ready(&self.sql, LIMIT).await.expect("postgres is ready");
        postmaster
    }

    pub async fn start_only(&self, role: StartAs) -> Postmaster {
        let options = StartOptions { role, clients: ClientAccess::Open, sync_with: None, log: None };
        start(&self.settings, &self.config, &self.bin, self.lock(), options).await.expect("postgres starts")
    }

    /// SIGKILL of the postmaster alone; its children notice, and the lock tells when the last is gone.
    pub async fn kill(&self, postmaster: &Postmaster) {
        rustix::process::kill_process(postmaster.pid(), rustix::process::Signal::KILL).expect("a signal");
        postmaster.exited().await;
        assert!(self.free().await.is_some(), "the tree is gone");
    }

    pub async fn stop(&self, postmaster: &Postmaster) {
        postmaster.stop_fast(LIMIT).await.expect("a fast shutdown");
        assert!(self.free().await.is_some(), "the tree is gone");
    }

    pub async fn free(&self) -> Option<VolumeLock> {
        wait_free(&self.settings.layout.lock(), Instant::now() + LIMIT).await.expect("a lock file")
    }

    /// A session of a person's, a superuser, who waits for no standby.
    pub async fn person(&self, database: &str) -> Result<Client, SqlError> {
        let client = self.sql.session_for_person(database).await?;
        client
            .batch_execute("SET synchronous_commit = local; SET statement_timeout = '10s'")
            .await
            .expect("settings");
        Ok(client)
    }

    pub async fn exec(&self, statements: &str) {
        self.person("postgres")
            .await
            .expect("a session")
            .batch_execute(statements)
            .await
            .expect("a statement");
    }

    pub async fn count(&self) -> i64 {
        let client = self.person("postgres").await.expect("a session");
        client.query_one("SELECT count(*) FROM t", &[]).await.expect("a count").get(0)
    }

    pub async fn facts(&self) -> SqlSnapshot {
        self.sql.observe().await.expect("facts")
    }

    pub fn wal_archive(&self) -> PathBuf {
        let system = pgpair_agent::postgres::control_file::system_identifier(&self.settings.layout.pgdata())
            .expect("an id");
        self.settings.layout.wal_archive(system)
    }

    pub async fn sync(
        &self,
        postmaster: &Postmaster,
        with: Option<InstanceId>,
    ) -> Option<pgpair_core::lsn::Lsn> {
        postmaster::sync::set_sync(&self.settings, postmaster, &self.sql, with, LIMIT).await.expect("a proof")
    }
}

/// Asks until there is an answer; bounded.
pub async fn eventually<T>(claim: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + LIMIT;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < end, "not within {LIMIT:?}: {claim}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Four ports of this process: below the range from which the kernel takes those of outgoing connections, which the socket of a
/// client beside this test may hold by the time postgres wants one, and of no other test, for each runs in its own process.
fn ports() -> [u16; 4] {
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    for turn in 0..2000 {
        let slot = u16::try_from((std::process::id() + turn) % 2000).expect("below 2000");
        let ports = [0, 1, 2, 3].map(|i| 11_000 + 4 * slot + i);
        if ports.iter().all(free) {
            return ports;
        }
    }
    panic!("no four ports from 11000 to 18999 are free");
}

/// A certificate authority of the pair.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Ca {
    pub fn new() -> Ca {
        Ca::named("pair CA")
    }

    pub fn named(name: &str) -> Ca {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Ca { issuer: Issuer::new(params, key), pem }
    }

    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Fills a mounted Secret.
    pub fn issue(&self, dir: &Path) {
        fs::write(dir.join("ca.crt"), &self.pem).expect("a file");
        self.renew(dir);
    }

    /// New certificates and keys in a mounted Secret; the bundle of authorities stays.
    pub fn renew(&self, dir: &Path) {
        for (name, file) in CERTIFICATES {
            self.renew_one(dir, name, file);
        }
    }

    /// A new certificate and key for `name` in files named after `file`.
    pub fn renew_one(&self, dir: &Path, name: &str, file: &str) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate");
        fs::write(dir.join(format!("{file}.crt")), cert.pem()).expect("a file");
        fs::write(dir.join(format!("{file}.key")), key.serialize_pem()).expect("a file");
    }

    /// The revocation list with the certificates in these files.
    pub fn revoke(&self, files: &[&Path]) -> String {
        let entry = |file: &&Path| {
            let pem = CertificateDer::from_pem_file(file).expect("a certificate");
            let (_, parsed) = x509_parser::parse_x509_certificate(&pem).expect("a certificate");
            RevokedCertParams {
                serial_number: SerialNumber::from_slice(parsed.raw_serial()),
                revocation_time: date_time_ymd(2026, 1, 1),
                reason_code: None,
                invalidity_date: None,
            }
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(2046, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: files.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).expect("a list").pem().expect("a list")
    }
}
