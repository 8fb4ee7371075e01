//! `pgpair explain`: journals are played again by the rules that wrote them, and told as a story.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write, stdin};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use jiff::Timestamp;
use pgpair_core::ids::InstanceId;
use pgpair_core::journal::replay::{Replay, Tale};
use pgpair_core::journal::{FirstLine, Line, Snapshot, VERSION};

#[cfg(test)]
mod tests;

/// Prints the story.
pub fn run(paths: &[PathBuf], all: bool) -> anyhow::Result<()> {
    let story = tell(paths, all)?;
    match std::io::stdout().write_all(story.as_bytes()) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()), // who reads has seen enough
        written => written.context("print the story"),
    }
}

/// The story of all these journals, in the order of their clocks, and the state at the end of each.
fn tell(paths: &[PathBuf], all: bool) -> anyhow::Result<String> {
    let mut journals = Vec::new();
    for path in files(paths)? {
        journals.extend(Journal::open(path)?);
    }
    if journals.is_empty() {
        bail!("there is nothing in these journals; an agent begins one when it starts");
    }
    journals.sort_by_key(|j| (j.first.unix_ms, j.first.number));
    let mut story = Story { all, ..Story::default() };
    for journal in journals {
        story.play(journal)?;
    }
    Ok(story.text())
}

/// Of a directory, the journals in it.
fn files(paths: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let entries = path.read_dir().with_context(|| format!("read {}", path.display()))?;
        for entry in entries {
            let file = entry.with_context(|| format!("read {}", path.display()))?.path();
            if file.extension().is_some_and(|e| e == "jsonl") {
                files.push(file);
            }
        }
    }
    Ok(files)
}

/// One file, its first line read.
struct Journal {
    path: PathBuf,
    first: Box<Snapshot>,
    lines: Lines,
}

struct Lines {
    file: BufReader<Box<dyn Read>>,
    number: usize,
    text: Vec<u8>,
}

impl Lines {
    fn place(&self, path: &Path) -> String {
        format!(
            "line {} of {}: a file between two of these is missing, or it was written by another build of pgpair",
            self.number,
            path.display()
        )
    }

    /// The next line that is whole. Half a line at the end is what a killed agent leaves, or is being written just now.
    fn next(&mut self, path: &Path) -> anyhow::Result<Option<Line>> {
        self.text.clear();
        self.number += 1;
        self.file.read_until(b'\n', &mut self.text).with_context(|| format!("read {}", path.display()))?;
        if !self.text.ends_with(b"\n") {
            return Ok(None);
        }
        if let Ok(FirstLine::Snapshot(origin)) = serde_json::from_slice(&self.text)
            && !origin.is_ours()
        {
            bail!(
                "{} was written by pgpair {} (journal {}), and this is pgpair {VERSION}: other rules may decide otherwise. \
                 Let the pgpair of that version explain it: /pgpair/bin/pgpair in the pod, or the image of that version",
                path.display(),
                origin.pgpair,
                origin.journal,
            );
        }
        serde_json::from_slice(&self.text).map(Some).with_context(|| {
            format!(
                "line {} of {} is not understood: the file is damaged. Copy it again; or explain the other file of \
                 the directory alone, for each begins with the whole state",
                self.number,
                path.display()
            )
        })
    }
}

impl Journal {
    /// `None`: not even the first line is whole.
    fn open(path: PathBuf) -> anyhow::Result<Option<Journal>> {
        let file: Box<dyn Read> = if path == Path::new("-") {
            Box::new(stdin())
        } else {
            Box::new(File::open(&path).with_context(|| format!("open {}", path.display()))?)
        };
        let mut lines = Lines { file: BufReader::new(file), number: 0, text: Vec::new() };
        Ok(match lines.next(&path)? {
            None => None,
            Some(Line::Snapshot(first)) => Some(Journal { path, first, lines }),
            Some(Line::Event(..) | Line::Short(..)) => {
                bail!("{} is not a whole journal: it does not begin with a snapshot", path.display())
            }
        })
    }
}

#[derive(Default)]
struct Story {
    all: bool,
    replays: BTreeMap<InstanceId, Replay>,
    /// Each line with its place in time: a wall clock that was set back does not change the order of an instance's lines.
    lines: Vec<(i64, String)>,
    latest: BTreeMap<InstanceId, i64>,
}

impl Story {
    fn play(&mut self, mut journal: Journal) -> anyhow::Result<()> {
        let who = journal.first.authority.me().instance;
        let (mut replay, tale) = match self.replays.remove(&who) {
            None => {
                let replay = Replay::new(*journal.first);
                let tale = replay.beginning();
                (replay, tale)
            }
            Some(mut replay) => {
                let went_on = replay.go_on(*journal.first);
                let tale = went_on.with_context(|| journal.lines.place(&journal.path))?;
                (replay, tale)
            }
        };
        self.add(&tale);
        while let Some(line) = journal.lines.next(&journal.path)? {
            let tale = replay.take(line).with_context(|| journal.lines.place(&journal.path))?;
            self.add(&tale);
        }
        self.replays.insert(who, replay);
        Ok(())
    }

    fn add(&mut self, tale: &Tale) {
        if !self.all && !tale.matters() {
            return;
        }
        let latest = self.latest.entry(tale.who).or_insert(tale.unix_ms);
        *latest = tale.unix_ms.max(*latest);
        let line = format!("{} {}  {}\n", clock(tale.unix_ms), tale.who, tale.text(self.all));
        self.lines.push((*latest, line));
    }

    fn text(mut self) -> String {
        self.lines.sort_by_key(|(at, _)| *at);
        let mut text: String = self.lines.into_iter().map(|(_, line)| line).collect();
        for (who, replay) in &self.replays {
            text += &format!("\nat the end, {}\n{who}  {}\n", clock(replay.unix_ms()), replay.state());
        }
        text
    }
}

/// In UTC, as the operator's status has it.
fn clock(unix_ms: i64) -> String {
    match Timestamp::from_millisecond(unix_ms) {
        Ok(t) => t.strftime("%Y-%m-%d %H:%M:%S%.3f").to_string(),
        Err(_) => unix_ms.to_string(), // far outside of what a calendar knows
    }
}
