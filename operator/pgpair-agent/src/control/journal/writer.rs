//! The thread that writes the journal: two files, each of which begins with a snapshot and is replayed by itself.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pgpair_core::journal::Line;
use pgpair_core::journal::shorthand::Shorthand;
use tokio::sync::mpsc;

use crate::instance::fsx;

/// Of each of the two files.
pub(super) const LIMIT: u64 = 4 << 20;
/// Time between two tries on a disk that does not take it.
pub(super) const RETRY: Duration = Duration::from_secs(10);
/// Longest line that is looked for at the end of a file.
const LONGEST: u64 = 256 << 10;

pub(super) struct Writer {
    dir: PathBuf,
    pub(super) limit: u64,
    pub(super) retry: Duration,
    wanted: Arc<AtomicBool>,
    /// Told that a snapshot is needed, and it has not come yet.
    asked: bool,
    file: Option<(File, u64)>,
    /// Events that were left out here since the last snapshot.
    lost: u64,
    line: Vec<u8>,
    shorthand: Shorthand,
    failed: Option<Instant>,
}

impl Writer {
    pub(super) fn new(dir: PathBuf, wanted: Arc<AtomicBool>) -> Writer {
        Writer {
            dir,
            limit: LIMIT,
            retry: RETRY,
            wanted,
            asked: false,
            file: None,
            lost: 0,
            line: Vec::new(),
            shorthand: Shorthand::default(),
            failed: None,
        }
    }

    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Line>) {
        while let Some(line) = queue.blocking_recv() {
            self.take(line);
        }
    }

    pub(super) fn take(&mut self, line: Line) {
        let written = match line {
            Line::Event(at, unix_ms, event) => {
                let line = self.shorthand.line(at, unix_ms, event);
                self.event(&line)
            }
            Line::Short(..) => self.event(&line),
            Line::Snapshot(mut snapshot) => {
                self.lost += snapshot.lost;
                snapshot.lost = self.lost;
                self.shorthand = Shorthand::default();
                self.snapshot(&Line::Snapshot(snapshot))
            }
        };
        if let Err(e) = written {
            if self.failed.is_none() {
                tracing::warn!(error = %e, dir = %self.dir.display(), "the journal of decisions has a gap");
            }
            // Half a line may be in it: it is the last one.
            self.file = None;
            self.failed = Some(Instant::now());
        }
    }

    fn event(&mut self, line: &Line) -> io::Result<()> {
        if self.lost == 0 && self.file.is_some() {
            self.encode(line)?;
            let new = self.line.len() as u64;
            if let Some((file, size)) = self.file.as_mut().filter(|(_, size)| *size + new <= self.limit) {
                *size += new;
                // Counted first: what is written in part is lost.
                self.lost = 1;
                file.write_all(&self.line)?;
                self.lost = 0;
                let full = *size > self.limit - self.limit / 8;
                if full {
                    self.ask();
                }
                return Ok(());
            }
        }
        self.lost += 1;
        if self.failed.is_none_or(|t| t.elapsed() >= self.retry) {
            self.ask();
        }
        Ok(())
    }

    /// Once for each snapshot: until it comes, the queue may hold more lines that find the file full.
    fn ask(&mut self) {
        if !std::mem::replace(&mut self.asked, true) {
            self.wanted.store(true, Ordering::Relaxed);
        }
    }

    fn snapshot(&mut self, line: &Line) -> io::Result<()> {
        self.asked = false;
        if self.failed.is_some_and(|t| t.elapsed() < self.retry) {
            return Ok(());
        }
        self.encode(line)?;
        let new = self.line.len() as u64;
        let (mut file, mut size) = match self.file.take() {
            Some(open) => open,
            None => open(&self.dir)?,
        };
        if size > 0 && size + new > self.limit - self.limit / 8 {
            (file, size) = (rotate(&self.dir)?, 0);
        }
        file.write_all(&self.line)?;
        (self.lost, self.failed) = (0, None);
        self.file = Some((file, size + new));
        Ok(())
    }

    fn encode(&mut self, line: &Line) -> io::Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, line)?;
        self.line.push(b'\n');
        Ok(())
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// What an earlier process wrote is kept, but for half a line at its end.
fn open(dir: &Path) -> io::Result<(File, u64)> {
    fsx::create_dir(dir, 0o700).map_err(io::Error::other)?;
    let mut file = create(&super::current(dir))?;
    let end = end_of_lines(&mut file)?;
    file.set_len(end)?;
    file.seek(SeekFrom::Start(end))?;
    Ok((file, end))
}

/// The position after the last whole line.
fn end_of_lines(file: &mut File) -> io::Result<u64> {
    let size = file.metadata()?.len();
    let from = size.saturating_sub(LONGEST);
    file.seek(SeekFrom::Start(from))?;
    let mut tail = Vec::new();
    file.take(LONGEST).read_to_end(&mut tail)?;
    let last = tail.iter().rposition(|b| *b == b'\n');
    Ok(last.and_then(|at| u64::try_from(at).ok()).map_or(0, |at| from + at + 1))
}

fn rotate(dir: &Path) -> io::Result<File> {
    fs::rename(super::current(dir), super::previous(dir))?;
    create(&super::current(dir))
}
