//! A pair that is gone is taken up from its volumes: what the operator does, by the program and the rules, with whole agents.

use std::fs;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pgpair_backup::adopt::{Adoption, Found, Lock, Other, Side, State, Volume, adopt};
use pgpair_core::ids::{Incarnation, InstanceId, Term, VolumeId};
use pgpair_core::record::{Holder, Mode, Record};
use pgpair_wire::adopt::{KeptVolume, Look};
use pgpair_wire::config::PairConfig;
use pgpair_wire::report::RejoinKind;
use rustix::process::{Pid, Signal, kill_process};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, NoTls};

use crate::pair::{LIMIT, Pair, eventually};

const A: InstanceId = InstanceId::A;
const B: InstanceId = InstanceId::B;
/// A commit that waits for a standby that is dead.
const COMMIT: Duration = Duration::from_secs(5);

/// Short, where somebody is waited for who does not come.
const TTL: u32 = 2_000;
/// Nobody takes over, and nobody goes on alone, while a busy machine kills two containers.
const LONG_TTL: u32 = 20_000;

async fn pair(ttl_ms: u32) -> Pair {
    let pair = Pair::up_with(PairConfig { generation: 1, ttl_ms, ..PairConfig::default() }).await;
    pair.sql(A, "CREATE TABLE t (n int)").await.unwrap();
    pair
}

/// A client that writes one number after the other, each once, wherever it is let, and remembers those that were acknowledged.
struct Writer {
    acknowledged: Arc<Mutex<Vec<usize>>>,
    task: JoinHandle<()>,
}

impl Writer {
    fn start(pair: &Pair, first: usize) -> Writer {
        let configs = InstanceId::ALL.map(|i| {
            let mut config = Config::new();
            config.host_path(pair.socket_dir(i)).port(pair.pg_port(i)).user("postgres").dbname("app");
            config
        });
        let acknowledged = Arc::new(Mutex::new(Vec::new()));
        let all = acknowledged.clone();
        let task = tokio::spawn(async move {
            let mut at = 0;
            let mut client = None;
            for n in first.. {
                match tokio::time::timeout(COMMIT, write(&configs[at], &mut client, n)).await {
                    Ok(Ok(())) => all.lock().unwrap().push(n),
                    // It may be there or not: never written again.
                    Ok(Err(_)) | Err(_) => {
                        (at, client) = (1 - at, None);
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                }
            }
        });
        Writer { acknowledged, task }
    }

    fn count(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    /// Waits until so many more were acknowledged.
    async fn writes(&self, more: usize) {
        let goal = self.count() + more;
        eventually("the client writes on", LIMIT, async || (self.count() >= goal).then_some(())).await;
    }

    /// Every number that was acknowledged. Nobody is left who could acknowledge another.
    fn end(self) -> Vec<usize> {
        self.task.abort();
        self.acknowledged.lock().unwrap().clone()
    }
}

async fn write(config: &Config, client: &mut Option<Client>, n: usize) -> Result<(), tokio_postgres::Error> {
    let client = match client {
        Some(client) => client,
        None => {
            let (new, connection) = config.connect(NoTls).await?;
            tokio::spawn(connection);
            client.insert(new)
        }
    };
    client.batch_execute(&format!("INSERT INTO t VALUES ({n})")).await
}

/// The Job that looks at the volumes of an instance.
async fn look(pair: &Pair, i: InstanceId) -> Look {
    eventually("the volume is not in use any more", LIMIT, async || {
        let output = pair.command(i, "adopt-look").output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{said} {}", String::from_utf8_lossy(&output.stderr));
        let look: Look = serde_json::from_str(said.lines().last().unwrap()).unwrap();
        Some(look).filter(|look| *look != Look::InUse)
    })
    .await
}

async fn kept(pair: &Pair, i: InstanceId) -> KeptVolume {
    match look(pair, i).await {
        Look::Volume(kept) => kept,
        other => panic!("{i}: {other:?}"),
    }
}

/// The Job that lets go of a volume; what it says if it fails.
fn try_release(pair: &Pair, i: InstanceId, volume: VolumeId) -> Result<(), String> {
    let output = pair.command(i, "adopt-release").arg(format!("--volume={volume}")).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    if output.status.success() { Ok(()) } else { Err(said) }
}

fn release(pair: &Pair, i: InstanceId, of: &KeptVolume) {
    try_release(pair, i, of.volume_id).unwrap();
}

fn found(kept: &KeptVolume) -> Found {
    Found::Volume(Volume {
        id: kept.volume_id,
        system: kept.system_identifier,
        lineage: None,
        version: kept.version,
        lock: Lock::Free,
        history: kept.history.clone(),
        end: kept.end,
        state: kept.state.and_then(|state| State::of(&state, kept.volume_id)),
        closed: None,
    })
}

/// Whose data becomes the primary's, and what becomes of the other.
fn verdict(a: &KeptVolume, b: &KeptVolume) -> (InstanceId, Other) {
    match adopt(&found(a), &found(b)) {
        Adoption::Primary { side: Side::A, other } => (A, other),
        Adoption::Primary { side: Side::B, other } => (B, other),
        open => panic!("{open:?} of {a:?} and {b:?}"),
    }
}

/// The record by which the volumes are taken up.
fn record_of(primary: InstanceId, kept: [&KeptVolume; 2]) -> Record {
    let [a, b] = kept;
    let chosen = if primary == A { a } else { b };
    let seen = kept.map(|kept| kept.state.map_or(Term(0), |state| state.term));
    Record {
        term: seen[0].max(seen[1]).next(),
        primary: Holder { instance: primary, incarnation: Incarnation(0) },
        mode: Mode::Solo,
        primary_volume: Some(chosen.volume_id),
        standby_volume: None,
        system_identifier: Some(chosen.system_identifier),
        durability: chosen.state.and_then(|state| state.durability).unwrap(),
    }
}

/// The uid of another record than all before.
fn uid(number: u32) -> String {
    format!("{number:08}-aaaa-bbbb-cccc-dddddddddddd")
}

fn kill_both(pair: &mut Pair, order: [InstanceId; 2]) {
    for i in order {
        pair.kill_container(i);
    }
}

fn start_both(pair: &mut Pair) {
    for i in InstanceId::ALL {
        pair.start(i);
    }
}

/// Both volumes are looked at and let go of, and get a record. The agents do not run yet.
async fn take_up(pair: &Pair, number: u32) -> (InstanceId, Other) {
    let (a, b) = (kept(pair, A).await, kept(pair, B).await);
    let (primary, other) = verdict(&a, &b);
    release(pair, A, &a);
    release(pair, B, &b);
    pair.api.replace(&uid(number), &record_of(primary, [&a, &b]));
    (primary, other)
}

/// Both are Paired again under the record that was made for them, and both have what was acknowledged.
async fn is_a_pair(pair: &Pair, primary: InstanceId, acknowledged: &[usize]) {
    pair.paired().await;
    assert_eq!(pair.api.record().primary.instance, primary);
    let numbers = async |i| -> Option<Vec<usize>> {
        let text = pair.sql(i, "SELECT string_agg(n::text, ',') FROM t").await.ok()?;
        text.split(',').map(|n| n.parse().ok()).collect()
    };
    let there = eventually("the primary answers", LIMIT, async || numbers(primary).await).await;
    let lost: Vec<_> = acknowledged.iter().filter(|n| !there.contains(n)).collect();
    assert!(lost.is_empty(), "of {} acknowledged rows are lost {lost:?}", acknowledged.len());
    pair.sql(primary, "INSERT INTO t VALUES (0)").await.unwrap();
    eventually("the standby has every row", LIMIT, async || {
        (numbers(primary.peer()).await?.len() == there.len() + 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_that_was_killed_at_any_moment_is_taken_up_with_all_that_was_acknowledged() {
    let mut pair = pair(LONG_TTL).await;
    let mut acknowledged = Vec::new();
    // The second time the volumes have the copy of the first.
    for (round, order) in [(1, [A, B]), (2, [B, A])] {
        let writer = Writer::start(&pair, 100_000 * round as usize);
        writer.writes(50).await;
        kill_both(&mut pair, order);
        acknowledged.extend(writer.end());
        assert_eq!(take_up(&pair, round).await, (A, Other::Follow));
        start_both(&mut pair);
        is_a_pair(&pair, A, &acknowledged).await;
    }
    for i in InstanceId::ALL {
        let beside = |name| pair.volume_json(i).with_file_name(name);
        assert!(beside("state.json.before-adoption").exists());
        assert_eq!(fs::read_dir(beside("states-before-adoption")).unwrap().count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_that_was_killed_after_a_failover_is_taken_up_from_the_primary_that_acknowledged_last() {
    let mut pair = pair(LONG_TTL).await;
    let writer = Writer::start(&pair, 1);
    writer.writes(50).await;
    // What the old primary writes from here on its standby never gets, and nobody is told that it is there.
    let walsender = pair.sql(A, "SELECT pid FROM pg_stat_replication").await.unwrap().parse().unwrap();
    kill_process(Pid::from_raw(walsender).unwrap(), Signal::STOP).unwrap();
    pair.sql(A, "SET synchronous_commit = local; INSERT INTO t VALUES (-1)").await.unwrap();
    pair.kill_container(A);
    eventually("b takes writes", LIMIT, async || pair.is_writable(B).await.then_some(())).await;
    writer.writes(50).await;
    pair.kill_container(B);
    let acknowledged = writer.end();
    assert_eq!(take_up(&pair, 1).await, (B, Other::Rewind));
    start_both(&mut pair);
    is_a_pair(&pair, B, &acknowledged).await;
    assert_eq!(pair.sql(B, "SELECT count(*) FROM t WHERE n = -1").await.as_deref(), Ok("0"));
    assert_eq!(pair.report(A).await.unwrap().rejoin.unwrap().how, RejoinKind::Rewound);
}

/// Its standby has taken the record for its own, and answers nobody of an earlier term any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_was_not_let_go_of_refuses_the_record_and_nothing_is_written_until_it_is() {
    let mut pair = pair(TTL).await;
    let writer = Writer::start(&pair, 1);
    writer.writes(50).await;
    let running = try_release(&pair, A, VolumeId(0)).unwrap_err();
    assert!(running.contains("scale the instance to 0 first"), "{running}");
    kill_both(&mut pair, [A, B]);
    let acknowledged = writer.end();
    let (a, b) = (kept(&pair, A).await, kept(&pair, B).await);
    let (primary, _) = verdict(&a, &b);
    let (chosen, other) = if primary == A { (&a, &b) } else { (&b, &a) };
    let mistaken = try_release(&pair, primary.peer(), chosen.volume_id).unwrap_err();
    assert!(mistaken.contains("look at the volume again"), "{mistaken}");
    release(&pair, primary.peer(), other);
    let record = record_of(primary, [&a, &b]);
    pair.api.replace(&uid(1), &record);
    start_both(&mut pair);
    eventually("the standby takes the record for its own", LIMIT, async || {
        (pair.report(primary.peer()).await?.authority.term == record.term).then_some(())
    })
    .await;
    let refusal = async || Some(pair.report(primary).await?.authority.refusal);
    let foreign = Some("ForeignRecord".to_owned());
    eventually("the primary refuses it", LIMIT, async || refusal().await.filter(|why| *why == foreign)).await;
    // Longer than it takes to ask for a promise, and to start by one.
    let end = Instant::now() + 3 * Duration::from_millis(TTL.into());
    while Instant::now() < end {
        assert!(!pair.is_writable(primary).await && refusal().await.is_none_or(|why| why == foreign));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    kill_both(&mut pair, [A, B]);
    assert_eq!(pair.api.record(), record);
    assert_eq!(kept(&pair, primary).await, *chosen);
    assert_eq!(kept(&pair, primary.peer()).await.end, other.end);
    release(&pair, primary, chosen);
    start_both(&mut pair);
    is_a_pair(&pair, primary, &acknowledged).await;
}
