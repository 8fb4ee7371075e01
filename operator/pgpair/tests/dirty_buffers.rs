//! By hand (`make dirty-buffers`, as root): what a large buffer cache, all dirty, costs on a slow volume. A primary whose data volume takes 50 MB a second
//! has some 2 GB to write. Measured are the proof of synchronous commit, which must not wait for them, and how long nobody serves in a
//! planned change of the primary, with the checkpoint before and without. The machine must have loop devices and cgroup v1's blkio.

#![allow(clippy::unwrap_used, reason = "what cannot go on fails")]

#[path = "it/api.rs"]
#[expect(dead_code, reason = "the other tests use more of it")]
mod api;
#[path = "it/pair/mod.rs"]
#[expect(dead_code, reason = "the other tests use more of it")]
mod pair;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use pgpair_core::ids::InstanceId;
use pgpair_core::order::OrderKind;
use pgpair_core::record::Mode;
use pgpair_wire::config::PairConfig;
use pgpair_wire::order::Order;
use pgpair_wire::paths;
use rustix::process::{Signal, kill_process};

use pair::{Pair, Volume, eventually};

const A: InstanceId = InstanceId::A;
const B: InstanceId = InstanceId::B;
/// For anything on the slow volume.
const LIMIT: Duration = Duration::from_secs(600);
const BYTES_PER_SECOND: u64 = 50 << 20;
/// The root cgroup's: writes of a checkpoint come from its processes and from the kernel's threads.
const THROTTLE: &str = "/sys/fs/cgroup/blkio/blkio.throttle.write_bps_device";
/// About 2.2 GB of heap.
const FILL: &str = "INSERT INTO big SELECT n, repeat('x', 900) FROM generate_series(1, 2200000) n";
/// Every page is dirty again, and little else is written.
const TOUCH: &str = "UPDATE big SET n = n WHERE n % 7 = 0";

/// A device that is slow until this is dropped.
struct Slow {
    device: String,
}

impl Slow {
    fn new(mounted: &Path) -> Slow {
        let id = fs::metadata(mounted).unwrap().dev();
        let device = format!("{}:{}", rustix::fs::major(id), rustix::fs::minor(id));
        fs::write(THROTTLE, format!("{device} {BYTES_PER_SECOND}")).unwrap();
        Slow { device }
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        fs::write(THROTTLE, format!("{} 0", self.device)).unwrap();
    }
}

fn config() -> PairConfig {
    let parameters = [
        ("shared_buffers", "3GB"),
        ("max_wal_size", "16GB"),
        ("checkpoint_timeout", "1h"),
        ("bgwriter_lru_maxpages", "0"),
    ];
    let parameters = parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    // What is slow here must not be taken for what hangs.
    PairConfig { generation: 1, hang_timeout_ms: 600_000, parameters, ..PairConfig::default() }
}

/// A statement of the server's, however long it takes.
async fn patient(pair: &Pair, text: &str) -> Duration {
    let begin = Instant::now();
    pair.connect(A).await.unwrap().batch_execute(text).await.unwrap();
    begin.elapsed()
}

/// Nearly all of the cache, as postgres counts it.
async fn make_dirty(pair: &Pair) -> u64 {
    patient(pair, TOUCH).await;
    let dirty = "SELECT count(*) * 8 / 1024 FROM pg_buffercache WHERE isdirty";
    pair.sql(A, dirty).await.unwrap().parse().unwrap()
}

async fn writes(pair: &Pair, i: InstanceId) -> bool {
    pair.sql(i, "INSERT INTO small VALUES (1)").await.is_ok()
}

/// How long clients wait.
struct Waits {
    /// The longest time between two writes that a has taken: its volume is busy with the checkpoint.
    served: Duration,
    /// From the last write of a to the first one of b.
    changed: Duration,
}

/// From now until b has taken a write.
async fn waits(pair: &Pair) -> Waits {
    let (begin, mut last, mut served) = (Instant::now(), Instant::now(), Duration::ZERO);
    loop {
        assert!(begin.elapsed() < LIMIT, "b does not take writes");
        if writes(pair, B).await {
            return Waits { served, changed: last.elapsed() };
        }
        if writes(pair, A).await {
            served = served.max(last.elapsed());
            last = Instant::now();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn up() -> (Pair, std::sync::Arc<pair::Mount>) {
    let (pair, volume) = Pair::up_on_mount(config(), A, Volume::Data).await;
    for text in [
        "CREATE EXTENSION pg_buffercache",
        "CREATE TABLE small (n int)",
        "CREATE TABLE big (n int, t text)",
        FILL,
    ] {
        patient(&pair, text).await;
    }
    patient(&pair, "CHECKPOINT").await;
    (pair, volume)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proof_of_sync_does_not_wait_for_the_dirty_buffers() {
    let (mut pair, volume) = up().await;
    pair.kill_container(B);
    eventually("the record says Solo", LIMIT, async || (pair.api.mode() == Mode::Solo).then_some(())).await;
    let dirty = make_dirty(&pair).await;
    let slow = Slow::new(volume.path());
    pair.start(B);
    eventually("b streams", LIMIT, async || {
        pair.report(B).await.filter(|r| r.postgres.streaming == Some(true)).map(|_| ())
    })
    .await;
    let begin = Instant::now();
    eventually("the record says Paired", LIMIT, async || (pair.api.mode() == Mode::Paired).then_some(()))
        .await;
    let proof = begin.elapsed();
    let checkpoint = patient(&pair, "CHECKPOINT").await;
    println!(
        "RESULT dirty {dirty} MB: Paired {proof:.1?} after b streams; the checkpoint ended {checkpoint:.1?} later"
    );
    drop(slow);
    drop(pair);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planned_change_of_the_primary_is_short_with_a_checkpoint_before() {
    for how in ["switchover", "SIGTERM", "a fast shutdown by somebody else"] {
        let (pair, volume) = up().await;
        let dirty = make_dirty(&pair).await;
        let slow = Slow::new(volume.path());
        let begin = Instant::now();
        match how {
            "switchover" => {
                let order =
                    Order { id: "by-hand".into(), term: pair.api.record().term, kind: OrderKind::Switchover };
                let order = serde_json::to_string(&order).unwrap();
                assert_eq!(pair.ask(A, "POST", paths::ORDER, &order).await.unwrap().0, 200);
            }
            "SIGTERM" => pair.signal(A, Signal::TERM),
            // A fast shutdown by whom the agent does not know.
            _ => kill_process(pair.postmaster_pid(A), Signal::INT).unwrap(),
        }
        let Waits { served, changed } = waits(&pair).await;
        println!(
            "RESULT dirty {dirty} MB, {how}: a write waited for {served:.1?} while a served, nobody served for {changed:.1?}, done after {:.1?}",
            begin.elapsed()
        );
        drop(slow);
        drop(pair);
    }
}
