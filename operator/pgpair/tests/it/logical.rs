//! A subscriber of the pair, and what a failover does to it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use pgpair_core::ids::InstanceId;
use pgpair_core::order::OrderKind;
use pgpair_core::record::Mode;
use pgpair_wire::config::PairConfig;
use pgpair_wire::paths;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio_postgres::{NoTls, SimpleQueryMessage};

use crate::orders::order;
use crate::pair::{LIMIT, Pair, eventually, give, own_memory, owner, ports};

const A: InstanceId = InstanceId::A;
const B: InstanceId = InstanceId::B;

fn config(generation: i64, ttl_ms: u32, level: &str) -> PairConfig {
    let parameters = [("wal_level".to_owned(), level.to_owned())].into();
    PairConfig { generation, ttl_ms, parameters, ..PairConfig::default() }
}

/// The programs of a PostgreSQL of this major version or a later one; 17 is the first that copies slots to a standby.
fn programs(least: u32) -> PathBuf {
    let given = std::env::var_os("PGPAIR_TEST_PG_BINS").unwrap_or_default();
    let installed = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let installed = installed.filter_map(|version| Some(version.ok()?.path().join("bin")));
    let major = |bin: &PathBuf| -> Option<u32> {
        let out = Command::new(bin.join("postgres")).arg("--version").output().ok()?;
        let text = String::from_utf8(out.stdout).ok()?;
        text.split_whitespace().nth(2)?.split(['.', 'r', 'b', 'd']).next()?.parse().ok()
    };
    let found = std::env::split_paths(&given).chain(installed).find(|bin| major(bin) >= Some(least));
    found.unwrap_or_else(|| {
        panic!("no PostgreSQL {least} in PGPAIR_TEST_PG_BINS or installed (make setup, make unit)")
    })
}

/// A PostgreSQL of its own that subscribes to table `t` of the pair, wherever the primary is. Ends when it is dropped.
struct Subscriber {
    server: Child,
    port: u16,
    _dir: TempDir,
}

impl Subscriber {
    async fn of(pair: &Pair, bin: &Path) -> Subscriber {
        for text in [
            "CREATE TABLE t (n int)",
            "CREATE PUBLICATION p FOR TABLE t",
            "CREATE ROLE subscriber LOGIN REPLICATION PASSWORD 'secret'; GRANT SELECT ON t TO subscriber",
        ] {
            pair.sql(A, text).await.unwrap();
        }
        let subscriber = Subscriber::start(bin);
        eventually("the subscriber runs", LIMIT, async || subscriber.sql("SELECT 1").await.ok()).await;
        subscriber.sql("CREATE TABLE t (n int)").await.unwrap();
        let subscribe = format!(
            "CREATE SUBSCRIPTION s CONNECTION 'host=127.0.0.1,127.0.0.1 port={},{} target_session_attrs=read-write \
             user=subscriber password=secret dbname=app connect_timeout=2' PUBLICATION p WITH (failover = true)",
            pair.pg_port(A),
            pair.pg_port(B)
        );
        subscriber.sql(&subscribe).await.unwrap();
        eventually("the table is copied", LIMIT, async || {
            let state = subscriber.sql("SELECT srsubstate FROM pg_subscription_rel").await.ok()?;
            (state == "r").then_some(())
        })
        .await;
        subscriber
    }

    fn start(bin: &Path) -> Subscriber {
        let dir = tempfile::Builder::new().prefix("pgpair-it-").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let (data, owner, [port, ..]) = (dir.path().join("data"), owner(), ports());
        fs::create_dir(&data).unwrap();
        give(&data, owner);
        let program = |name: &str| {
            let mut command = own_memory::command(&bin.join(name), owner);
            command.arg("-D").arg(&data);
            command
        };
        let mut initdb = program("initdb");
        initdb.args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync"]);
        assert!(initdb.stdout(Stdio::null()).status().unwrap().success());
        let mut server = program("postgres");
        for setting in [
            format!("port={port}").as_str(),
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "fsync=off",
            "wal_retrieve_retry_interval=200ms",
            "wal_receiver_timeout=5s",
        ] {
            server.args(["-c", setting]);
        }
        Subscriber { server: server.spawn().unwrap(), port, _dir: dir }
    }

    /// First column of the first row as text.
    async fn sql(&self, text: &str) -> Result<String, tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(self.port).user("postgres").dbname("postgres");
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        let messages = client.simple_query(text).await?;
        let first = messages.iter().find_map(|m| match m {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        });
        Ok(first.unwrap_or_default())
    }

    /// Every number that it has, in order, as often as it has it.
    async fn numbers(&self) -> Option<Vec<usize>> {
        numbers(&self.sql(NUMBERS).await.ok()?)
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let pid = i32::try_from(self.server.id()).ok().and_then(Pid::from_raw);
        let _ = kill_process(pid.unwrap(), Signal::QUIT);
        let _ = self.server.wait();
    }
}

const NUMBERS: &str = "SELECT string_agg(n::text, ',' ORDER BY n) FROM t";

fn numbers(text: &str) -> Option<Vec<usize>> {
    text.split(',').filter(|word| !word.is_empty()).map(|word| word.parse().ok()).collect()
}

/// A client that writes one number after the other, each once, wherever it is let.
struct Writer {
    acknowledged: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Vec<usize>>,
}

impl Writer {
    fn start(pair: &Arc<Pair>) -> Writer {
        let (acknowledged, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (pair, count, ends) = (pair.clone(), acknowledged.clone(), stop.clone());
        let task = tokio::spawn(async move {
            let (mut at, mut all) = (A, Vec::new());
            for n in 1.. {
                if ends.load(Ordering::Relaxed) {
                    break;
                }
                match pair.sql(at, &format!("INSERT INTO t VALUES ({n})")).await {
                    Ok(_) => {
                        all.push(n);
                        count.store(all.len(), Ordering::Relaxed);
                    }
                    // It may be there or not: never written again.
                    Err(_) => {
                        at = at.peer();
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                }
            }
            all
        });
        Writer { acknowledged, stop, task }
    }

    /// Waits until so many more were acknowledged.
    async fn writes(&self, more: usize) {
        let goal = self.acknowledged.load(Ordering::Relaxed) + more;
        eventually("the client writes on", LIMIT, async || {
            (self.acknowledged.load(Ordering::Relaxed) >= goal).then_some(())
        })
        .await;
    }

    /// Every number that was acknowledged.
    async fn stop(self) -> Vec<usize> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

/// Waits until `standby` has a copy of the subscription's slot that it would keep after a promotion.
async fn slot_is_copied(pair: &Pair, standby: InstanceId) {
    const COPY: &str = "SELECT 1 FROM pg_replication_slots WHERE slot_name = 's' AND synced AND NOT temporary \
                        AND invalidation_reason IS NULL";
    eventually("the standby has a copy of the slot", LIMIT, async || {
        // The slot can be copied when it has moved on; left to itself the primary gives occasion every 15 s.
        pair.sql(standby.peer(), "SELECT pg_log_standby_snapshot()").await.ok()?;
        (pair.sql(standby, COPY).await.as_deref() == Ok("1")).then_some(())
    })
    .await;
}

/// The subscriber has what the primary has, each row once; `acknowledged` is part of it.
async fn has_everything(pair: &Pair, primary: InstanceId, subscriber: &Subscriber, acknowledged: &[usize]) {
    let written = numbers(&pair.sql(primary, NUMBERS).await.unwrap()).unwrap();
    let lost = acknowledged.iter().filter(|n| !written.contains(n)).count();
    assert_eq!(lost, 0, "of {} acknowledged rows", acknowledged.len());
    eventually("the subscriber has every row once", LIMIT, async || {
        (subscriber.numbers().await? == written).then_some(())
    })
    .await;
}

async fn reports_slots(pair: &Pair, who: InstanceId, slots: &[&str]) {
    eventually(&format!("{who} reports {slots:?}"), LIMIT, async || {
        (pair.report(who).await?.logical_slots == slots).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_gets_every_row_once_across_a_failover_and_a_switchover() {
    let bin = programs(17);
    // Long enough for b to take the term before a takes it back, however busy the machine is.
    let pair = Arc::new(Pair::up_on(&bin, config(1, 20_000, "logical")).await);
    let subscriber = Subscriber::of(&pair, &bin).await;
    slot_is_copied(&pair, B).await;
    let writer = Writer::start(&pair);
    writer.writes(50).await;
    kill_process(pair.postmaster_pid(A), Signal::KILL).unwrap();
    eventually("b takes writes", LIMIT, async || pair.is_writable(B).await.then_some(())).await;
    writer.writes(50).await;
    // The former primary has a slot of that name, and must have the one of its new primary.
    pair.paired().await;
    slot_is_copied(&pair, A).await;
    writer.writes(50).await;
    order(&pair, B, "back", OrderKind::Switchover).await;
    eventually("a takes writes", LIMIT, async || pair.is_writable(A).await.then_some(())).await;
    writer.writes(50).await;
    let acknowledged = writer.stop().await;
    has_everything(&pair, A, &subscriber, &acknowledged).await;
    pair.paired().await;
    slot_is_copied(&pair, B).await;
    for i in InstanceId::ALL {
        reports_slots(&pair, i, &["s"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_never_has_what_a_paired_standby_lacks_and_waits_for_none_that_is_away() {
    let bin = programs(17);
    let mut pair = Pair::up_on(&bin, config(1, 20_000, "logical")).await;
    let subscriber = Subscriber::of(&pair, &bin).await;
    let receiver = pair.sql(B, "SELECT pid FROM pg_stat_wal_receiver").await.unwrap().parse().unwrap();
    kill_process(Pid::from_raw(receiver).unwrap(), Signal::STOP).unwrap();
    pair.sql(A, "SET synchronous_commit = local; INSERT INTO t VALUES (1)").await.unwrap();
    let waits = "SELECT 1 FROM pg_stat_activity WHERE backend_type = 'walsender' \
                 AND wait_event = 'WaitForStandbyConfirmation'";
    eventually("the subscriber's walsender waits for the standby", LIMIT, async || {
        (pair.sql(A, waits).await.as_deref() == Ok("1")).then_some(())
    })
    .await;
    assert_eq!(pair.api.mode(), Mode::Paired);
    assert_eq!(subscriber.numbers().await, Some(Vec::new()));
    pair.kill_container(B);
    eventually("the row comes", 2 * LIMIT, async || (subscriber.numbers().await? == [1]).then_some(())).await;
    assert_eq!(pair.api.mode(), Mode::Solo);
}

/// A primary of 19 or later raises its level by itself when such a slot is made.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_made_without_wal_level_logical_is_reported_too() {
    let pair = Pair::up_on(&programs(19), config(1, 2_000, "replica")).await;
    pair.sql(A, "SELECT pg_create_logical_replication_slot('mine', 'pgoutput', failover => true)")
        .await
        .unwrap();
    reports_slots(&pair, A, &["mine"]).await;
    reports_slots(&pair, B, &[]).await;
}

/// PostgreSQL would not start again: a logical slot exists, but `wal_level` is below `logical`.
#[tokio::test(flavor = "multi_thread")]
async fn wal_level_is_not_lowered_while_there_are_logical_slots_and_both_instances_report_theirs() {
    let pair = Pair::up_with(config(1, 2_000, "logical")).await;
    pair.sql(A, "SELECT pg_create_logical_replication_slot('mine', 'pgoutput')").await.unwrap();
    let lower = serde_json::to_string(&config(2, 2_000, "replica")).unwrap();
    let (status, why) = pair.ask(A, "PUT", paths::CONFIG, &lower).await.unwrap();
    assert!(status == 422 && why.contains("mine") && why.contains("drop them"), "{status} {why}");
    reports_slots(&pair, A, &["mine"]).await;
    reports_slots(&pair, B, &[]).await;
    pair.sql(A, "SELECT pg_drop_replication_slot('mine')").await.unwrap();
    assert_eq!(pair.ask(A, "PUT", paths::CONFIG, &lower).await.unwrap().0, 200);
    eventually("it waits for a restart", LIMIT, async || {
        (pair.report(A).await?.pending_restart == ["wal_level"]).then_some(())
    })
    .await;
}
