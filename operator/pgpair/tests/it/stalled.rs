//! What a pair does when a volume does not answer any more.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pgpair_core::ids::InstanceId;
use pgpair_core::instance::PostgresState;
use pgpair_core::record::Mode;
use pgpair_wire::config::PairConfig;
use rustix::fs::OFlags;
use rustix::process::{Signal, kill_process};

use crate::failover::{back_as_standby, table};
use crate::pair::{LIMIT, Pair, eventually};

const A: InstanceId = InstanceId::A;
const B: InstanceId = InstanceId::B;

fn without_waiting() -> fs::OpenOptions {
    let mut options = fs::OpenOptions::new();
    options.custom_flags(i32::try_from(OFlags::NONBLOCK.bits()).unwrap());
    options
}

/// A file whose readers and writers wait until it is dropped, as on a volume that does not answer. The file is a pipe for that time, and then itself again.
struct Stalled {
    file: PathBuf,
    pipe: PathBuf,
    content: Vec<u8>,
}

impl Stalled {
    fn new(pair: &Pair, file: PathBuf) -> Stalled {
        let beside = |suffix: &str| PathBuf::from(format!("{}{suffix}", file.display()));
        let content = fs::read(&file).unwrap();
        fs::hard_link(&file, beside(".kept")).unwrap();
        Stalled::with(pair, file, content)
    }

    /// The same of a file that is not there; who waits for it reads this.
    fn with(pair: &Pair, file: PathBuf, content: Vec<u8>) -> Stalled {
        let beside = |suffix: &str| PathBuf::from(format!("{}{suffix}", file.display()));
        let (pipe, name) = (beside(".pipe"), beside(".name"));
        pair.make_pipe(&pipe);
        fs::hard_link(&pipe, &name).unwrap();
        fs::rename(&name, &file).unwrap();
        Stalled { file, pipe, content }
    }

    /// Whoever waits for it reads what the file holds.
    fn answer(path: &Path, content: &[u8]) -> io::Result<()> {
        without_waiting().write(true).open(path)?.write_all(content)
    }
}

impl Drop for Stalled {
    fn drop(&mut self) {
        let kept = PathBuf::from(format!("{}.kept", self.file.display()));
        if kept.exists() { fs::rename(kept, &self.file) } else { fs::remove_file(&self.file) }.unwrap();
        // They fail only if nobody waits to read, or to write.
        let _ = Stalled::answer(&self.pipe, &self.content);
        let _ = without_waiting().read(true).open(&self.pipe);
    }
}

/// Its postgres answers from memory, and its walreceiver has nothing to write: nothing of what is seen of it changes. Taken for one that can take over,
/// it would win the term and could not promote.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_whose_volume_does_not_answer_leaves_the_term_to_the_primary() {
    let pair = Pair::up().await;
    table(&pair, A).await;
    let stalled = Stalled::new(&pair, pair.volume_json(B));
    let begin = Instant::now();
    eventually("the standby does not count as one that runs", Duration::from_secs(10), async || {
        pair.report(B).await.filter(|r| r.postgres.state == PostgresState::Starting)
    })
    .await;
    println!("it was not counted as running after {:?}", begin.elapsed());
    let told = pair.report(B).await.and_then(|r| r.trouble).unwrap_or_default();
    assert!(told.contains("nothing has been seen of its postgres"), "{told:?}");
    eventually("the primary goes on alone", LIMIT, async || (pair.api.mode() == Mode::Solo).then_some(()))
        .await;
    let killed = pair.postmaster_pid(A);
    kill_process(killed, Signal::KILL).unwrap();
    eventually("the primary is started again", LIMIT, async || {
        (pair.is_writable(A).await && pair.postmaster_pid(A) != killed).then_some(())
    })
    .await;
    assert_eq!(pair.api.record().primary.instance, A);
    drop(stalled);
    back_as_standby(&pair, B).await;
}

/// Nothing is to be written to it: its walreceiver waits for nothing, and what is read of the volume is in memory.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_standby_whose_volume_takes_no_write_does_not_count_as_one_that_runs() {
    let config = PairConfig { generation: 1, ttl_ms: 2_000, hang_timeout_ms: 2_000, ..PairConfig::default() };
    let pair = Pair::up_with(config).await;
    let stalled = Stalled::with(&pair, pair.write_probe(B), Vec::new());
    eventually("the standby does not count as one that runs", LIMIT, async || {
        pair.report(B).await.filter(|r| r.postgres.state == PostgresState::Starting)
    })
    .await;
    eventually("the primary goes on alone", LIMIT, async || (pair.api.mode() == Mode::Solo).then_some(()))
        .await;
    drop(stalled);
    pair.paired().await;
}

/// The thread that waits for the volume would keep the process, and with it the lock by which the witness tells that it lives.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_told_to_end_ends_though_its_volume_does_not_answer() {
    let mut pair = Pair::up().await;
    let stalled = Stalled::new(&pair, pair.volume_json(B));
    eventually("a look at the volume waits", LIMIT, async || {
        pair.report(B).await.filter(|r| r.postgres.state == PostgresState::Starting)
    })
    .await;
    pair.signal(B, Signal::TERM);
    eventually("the agent ends", LIMIT, async || pair.has_ended(B).then_some(())).await;
    drop(stalled);
}

/// The worker waits inside of a call, and its thread with it.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_worker_hangs_goes_on_to_answer() {
    let pair = Pair::up().await;
    table(&pair, A).await;
    // What an agent leaves there itself is nobody's order.
    let stalled = Stalled::with(&pair, pair.trigger(B), b"pgpair: a promotion is under way\n".to_vec());
    eventually("the standby does not count as one that runs", Duration::from_secs(10), async || {
        pair.report(B).await.filter(|r| r.postgres.state == PostgresState::Starting)
    })
    .await;
    drop(stalled);
    eventually("the standby is seen again", LIMIT, async || {
        pair.report(B).await.filter(|r| r.postgres.state == PostgresState::Standby && r.trouble.is_none())
    })
    .await;
    pair.paired().await;
    assert_eq!(pair.api.record().primary.instance, A);
}
