//! Does a running primary still work? A postmaster that forks no backends, a log that is not flushed, and a disk that
//! does not take a write all look alive from outside.
//!
//! Nor does a primary that somebody else shuts down: it lets nobody in any more, and its last checkpoint, or a session of a "smart" shutdown,
//! may take for ever.
//!
//! Three looks, none of which writes WAL (an idle pair would fill its archive): a new connection is answered; while a
//! session waits for the log to be flushed, it gets flushed; a small file on the data volume can be written and flushed.
//! The oldest success of the three decides. Errors count as answers: only silence is a hang. That a log is not flushed
//! proves nothing while nobody waits for it: a hint bit may lie there for minutes.
//!
//! Of a standby the first and the last count: one that answers no new connection, or whose volume takes no write, is no running standby,
//! though it may still stream. That a postmaster is shutting down it writes into `postmaster.pid`.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pgpair_core::authority::Want;
use pgpair_core::authority::timing::Ms;
use pgpair_core::lsn::Lsn;
use pgpair_wire::config::PairConfig;
use tokio::sync::{mpsc, watch};

use crate::control::inbox::Input;
use crate::control::wish::Wish;
use crate::fence::clock;
use crate::fence::writable::Writable;
use crate::postgres::postmaster;
use crate::postgres::sql::{Sql, SqlError};

/// Looks in the time after which silence counts as a hang.
const LOOKS: u32 = 5;
/// A shutdown that nobody here has asked for ends within this time, or counts as a hang.
const ENDS_WITHIN: Duration = Duration::from_secs(2);

/// When postgres showed last that it works: a new connection was answered, whatever the answer was, and the volume took a write. Shared
/// with the worker.
#[derive(Debug, Clone, Default)]
pub struct Answered(Arc<AtomicU64>);

impl Answered {
    /// Before the first answer: 0.
    #[must_use]
    pub fn at(&self) -> Ms {
        Ms(self.0.load(Ordering::Relaxed))
    }

    fn set(&self, at: Instant) {
        let ago = u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.store(clock::now().0.saturating_sub(ago), Ordering::Relaxed);
    }
}

/// What the task looks at.
#[derive(Debug)]
pub struct Health {
    /// Set while postgres is writable, or about to be.
    pub writable: Writable,
    /// New connections are made from it.
    pub sql: Sql,
    /// A file on the data volume that nobody else uses.
    pub file: PathBuf,
    /// Where the postmaster says how far it is.
    pub pid_file: PathBuf,
    /// What postgres is to be.
    pub wish: watch::Receiver<Wish>,
    /// Says how long is too long; changes while this runs.
    pub config: watch::Receiver<Arc<PairConfig>>,
    /// Told after each look.
    pub answered: Answered,
    /// Told when a primary begins to hang and when it no longer does.
    pub inputs: mpsc::Sender<Input>,
}

/// Last success of each look.
#[derive(Debug, Clone, Copy)]
struct Seen {
    answered: Instant,
    flushed: Instant,
    written: Instant,
    /// What somebody waited for, and was not on disk, at the last look.
    waits_for: Option<Lsn>,
    /// It is being shut down, by nobody here, since.
    ends_since: Option<Instant>,
}

impl Seen {
    fn new(now: Instant) -> Seen {
        Seen { answered: now, flushed: now, written: now, waits_for: None, ends_since: None }
    }

    /// What the postmaster says, while it is to serve or not.
    fn ends(&mut self, now: Instant, says_so: bool, is_wanted: bool) {
        let unasked = says_so && is_wanted;
        self.ends_since = if unasked { self.ends_since.or(Some(now)) } else { None };
    }

    /// Whether it has been silent for `limit`, or does not come to its end.
    fn hangs(&self, now: Instant, limit: Duration) -> bool {
        let ends_for = self.ends_since.map(|since| now.saturating_duration_since(since));
        self.silent_for(now) >= limit || ends_for.is_some_and(|ends_for| ends_for >= ENDS_WITHIN)
    }

    /// A log that has reached what somebody waited for at the look before moves; so does one that nobody waits for.
    fn log(&mut self, now: Instant, flushed: Option<Lsn>, waited_for: Option<Lsn>) {
        if self.waits_for.is_none_or(|w| flushed >= Some(w)) || waited_for.is_none() {
            self.flushed = now;
            self.waits_for = waited_for.filter(|w| flushed < Some(*w));
        }
    }

    /// Takes `late` off every silence.
    fn forgive(&mut self, late: Duration) {
        for at in [&mut self.answered, &mut self.flushed, &mut self.written] {
            *at += late;
        }
    }

    fn silent_for(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.answered.min(self.flushed).min(self.written))
    }
}

impl Health {
    /// Runs until the inputs end.
    pub async fn run(self) {
        let mut seen = Seen::new(Instant::now());
        let (mut told, mut was_writable) = (false, false);
        let disk = Disk {
            file: self.file.clone(),
            pid_file: self.pid_file.clone(),
            busy: Arc::default(),
            ends: Arc::default(),
        };
        loop {
            let limit = Duration::from_millis(u64::from(self.config.borrow().hang_timeout_ms));
            let pause = (limit / LOOKS).clamp(Duration::from_millis(200), Duration::from_secs(2));
            let begin = Instant::now();
            tokio::time::sleep(pause).await;
            // Woken late, this process was starved, and so was postgres: that time proves nothing against it.
            seen.forgive(begin.elapsed().saturating_sub(pause));
            if self.writable.is_set() && !was_writable {
                seen = Seen::new(Instant::now());
            }
            self.look(&mut seen, &disk, limit / LOOKS).await;
            self.answered.set(seen.answered.min(seen.written));
            was_writable = self.writable.is_set();
            let hung = was_writable && seen.hangs(Instant::now(), limit);
            if hung != told {
                told = hung;
                if hung {
                    tracing::error!(
                        answered_ms = seen.answered.elapsed().as_millis(),
                        flushed_ms = seen.flushed.elapsed().as_millis(),
                        written_ms = seen.written.elapsed().as_millis(),
                        ends_ms = seen.ends_since.map(|since| since.elapsed().as_millis()),
                        "the primary hangs: time since its last answer, flush and write, and since somebody else began to shut it down"
                    );
                }
                if self.inputs.send(Input::Hung(hung)).await.is_err() {
                    return;
                }
            }
        }
    }

    async fn look(&self, seen: &mut Seen, disk: &Disk, limit: Duration) {
        if disk.write() {
            seen.written = Instant::now();
        }
        let is_wanted = matches!(self.wish.borrow().desired.postgres, Want::Primary | Want::Promoted);
        seen.ends(Instant::now(), disk.ends.load(Ordering::SeqCst), is_wanted);
        self.ask(seen, limit).await;
    }

    async fn ask(&self, seen: &mut Seen, limit: Duration) {
        let limit = limit.max(Duration::from_millis(500));
        let answer = tokio::time::timeout(limit, self.sql.positions()).await;
        let now = Instant::now();
        match answer {
            Ok(Ok((flushed, waited_for))) => {
                seen.answered = now;
                seen.log(now, flushed, waited_for);
            }
            // It refuses: in recovery, shutting down, out of connections. It is not for this look to judge.
            Ok(Err(e)) if is_answer(&e) => (seen.answered, seen.flushed) = (now, now),
            Ok(Err(_)) | Err(_) => {}
        }
    }
}

fn is_answer(e: &SqlError) -> bool {
    match e {
        SqlError::Postgres { source, .. } => source.as_db_error().is_some() || source.is_closed(),
        SqlError::Answer { .. } => true,
        SqlError::Late { .. } => false,
    }
}

/// Writes in a thread of its own, one at a time: a disk that hangs keeps the thread.
struct Disk {
    file: PathBuf,
    pid_file: PathBuf,
    busy: Arc<AtomicBool>,
    /// Whether the postmaster said at the last look that it is being shut down.
    ends: Arc<AtomicBool>,
}

impl Disk {
    /// Starts a write unless one is under way; `true` if none was, so that all earlier ones have come to their end.
    fn write(&self) -> bool {
        if self.busy.swap(true, Ordering::SeqCst) {
            return false;
        }
        let (file, pid_file) = (self.file.clone(), self.pid_file.clone());
        let (busy, ends) = (self.busy.clone(), self.ends.clone());
        tokio::task::spawn_blocking(move || {
            ends.store(postmaster::is_shutting_down(&pid_file), Ordering::SeqCst);
            if let Err(e) = write_through(&file) {
                tracing::debug!(error = %e, "the write probe is refused"); // a full disk is no hung one
            }
            busy.store(false, Ordering::SeqCst);
        });
        true
    }
}

fn write_through(file: &Path) -> std::io::Result<()> {
    let mut file = OpenOptions::new().create(true).write(true).truncate(false).open(file)?;
    file.write_all(b"pgpair\n")?;
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_stands_still_behind_what_was_inserted_is_noticed() {
        let begin = Instant::now();
        let at = |s| begin + Duration::from_secs(s);
        let mut seen = Seen::new(begin);
        seen.log(at(1), Some(Lsn(100)), None);
        seen.log(at(2), Some(Lsn(150)), Some(Lsn(200)));
        seen.log(at(3), Some(Lsn(210)), Some(Lsn(300)));
        assert_eq!(seen.flushed, at(3), "it moves, however far behind it is");
        seen.log(at(4), Some(Lsn(210)), Some(Lsn(400)));
        seen.log(at(9), Some(Lsn(210)), Some(Lsn(400)));
        (seen.answered, seen.written) = (at(9), at(9));
        assert_eq!(seen.silent_for(at(9)), Duration::from_secs(6));
    }

    #[test]
    fn time_in_which_nothing_ran_counts_for_nothing() {
        let begin = Instant::now();
        let mut seen = Seen::new(begin);
        seen.forgive(Duration::from_secs(20));
        assert_eq!(seen.silent_for(begin + Duration::from_secs(22)), Duration::from_secs(2));
    }

    #[test]
    fn a_log_that_nobody_waits_for_is_no_hung_one() {
        let begin = Instant::now();
        let mut seen = Seen::new(begin);
        let later = begin + Duration::from_secs(60);
        seen.log(begin, Some(Lsn(100)), Some(Lsn(200)));
        seen.log(later, Some(Lsn(100)), None);
        (seen.answered, seen.written) = (later, later);
        assert_eq!(seen.silent_for(later), Duration::ZERO);
    }
}
