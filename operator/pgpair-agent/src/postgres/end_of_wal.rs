//! Where the WAL of a stopped data directory ends.

use std::fs;
use std::io;
use std::process::Stdio;
use std::time::Duration;

use pgpair_core::lsn::Lsn;
use pgpair_core::timeline::{TimelineHistory, TimelineId};
use pgpair_core::wal::{Segment, WalFile};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::instance::fsx::Context;
use crate::instance::layout::Layout;
use crate::postgres::control_file::ControlData;
use crate::postgres::pgdata::{self, PgDataError};
use crate::postgres::tool::{PgBin, ToolError};

pub mod records;

use records::WalRecord;

const WALDUMP: &str = "pg_waldump";
/// Reading all WAL since the last checkpoint.
const DUMP: Duration = Duration::from_secs(120);
/// How far before a known position the search for the end of WAL starts: a few records, and quick to read.
const HINT_MARGIN: u64 = 1024 * 1024;

/// A position on a timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The timeline.
    pub timeline: TimelineId,
    /// End of valid WAL on it.
    pub end: Lsn,
}

/// The end of valid WAL of a stopped data directory: where a replay of everything in `pg_wal` would come to. Received but not
/// yet replayed WAL counts. `hint` is a flush position seen shortly before the stop; it makes this quick, never wrong.
///
/// # Errors
/// The WAL of the last checkpoint is missing or unreadable.
pub async fn end_of_wal(
    bin: &PgBin,
    layout: &Layout,
    control: &ControlData,
    hint: Option<Lsn>,
) -> Result<Position, PgDataError> {
    let timeline = newest_received(layout, control)?;
    let base = start_on(layout, control, timeline)?;
    let quick = if control.is_clean_primary() { Some(control.checkpoint) } else { near(hint, base) };
    if let Some(start) = quick
        && let Ok(end) = dump(bin, layout, control, timeline, start).await
    {
        return Ok(Position { timeline, end });
    }
    let end = dump(bin, layout, control, timeline, base).await?;
    Ok(Position { timeline, end })
}

/// The same of one timeline, whatever is there of later ones.
///
/// # Errors
/// The WAL from where the timeline begins, or from the last checkpoint on, is missing or unreadable.
pub async fn end_on(
    bin: &PgBin,
    layout: &Layout,
    control: &ControlData,
    timeline: TimelineId,
) -> Result<Position, PgDataError> {
    let base = start_on(layout, control, timeline)?;
    Ok(Position { timeline, end: dump(bin, layout, control, timeline, base).await? })
}

/// Where to start for a hint: a margin before it, for a flush position may lie inside a record that never got its end.
fn near(hint: Option<Lsn>, base: Lsn) -> Option<Lsn> {
    hint.map(|h| Lsn(h.0.saturating_sub(HINT_MARGIN))).filter(|h| *h > base)
}

/// The newest timeline of which `pg_wal` has both the history and the segment in which it begins.
fn newest_received(layout: &Layout, control: &ControlData) -> Result<TimelineId, PgDataError> {
    let mut newest = control.newest_timeline();
    let dir = layout.pg_wal();
    let names = fs::read_dir(&dir).at("read", &dir)?;
    let names = names.filter_map(|e| e.ok()?.file_name().into_string().ok());
    for name in names {
        let Some(WalFile::History(timeline)) = WalFile::parse(&name, control.segment_size) else { continue };
        let path = dir.join(&name);
        let history = TimelineHistory::parse(timeline, &fs::read_to_string(&path).at("read", &path)?)?;
        let Some((parent, begin)) = history.ancestors.last().copied() else { continue };
        let follows = history.ancestors.iter().any(|(t, _)| *t == newest) || parent == newest;
        let first = Segment::holding(timeline, begin, control.segment_size).file_name(control.segment_size);
        if timeline > newest && follows && dir.join(first).exists() {
            newest = timeline;
        }
    }
    Ok(newest)
}

/// A position on `timeline` from which everything later can be read.
fn start_on(layout: &Layout, control: &ControlData, timeline: TimelineId) -> Result<Lsn, PgDataError> {
    let history = pgdata::history(layout, control.system_identifier, timeline)?;
    let begin = history.and_then(|h| h.ancestors.last().map(|(_, begin)| *begin));
    Ok(begin.map_or(control.redo, |b| b.max(control.redo)))
}

/// The last segment that is there without a gap from `first` on.
fn last_segment(layout: &Layout, control: &ControlData, first: Segment) -> Segment {
    let mut last = first;
    loop {
        let next = Segment { number: last.number + 1, ..last };
        if !layout.pg_wal().join(next.file_name(control.segment_size)).exists() {
            return last;
        }
        last = next;
    }
}

/// Reads records from `start` on and returns the end of the last one. The text of a record takes ten times as long as the record, so
/// the last one is looked for without it.
async fn dump(
    bin: &PgBin,
    layout: &Layout,
    control: &ControlData,
    timeline: TimelineId,
    start: Lsn,
) -> Result<Lsn, PgDataError> {
    let command = |from| waldump(bin, layout, control, timeline, from);
    let last = last_record(command(start)).await?.filter(|last| *last >= start);
    let record = described(command(last.unwrap_or(start))).await?;
    record.and_then(|r| r.end(control.page_size, control.segment_size)).ok_or(PgDataError::NoWal {
        timeline,
        checkpoint: start,
        output: "pg_waldump found no record".into(),
    })
}

/// `pg_waldump` of everything from `start` on.
fn waldump(bin: &PgBin, layout: &Layout, control: &ControlData, timeline: TimelineId, start: Lsn) -> Command {
    let from = Segment::holding(timeline, start, control.segment_size);
    let to = last_segment(layout, control, from);
    let behind = Segment { number: to.number + 1, ..to };
    let mut command = bin.command(WALDUMP);
    command
        .arg("-p")
        .arg(layout.pg_wal())
        .arg("-t")
        .arg(timeline.to_string())
        .arg("-s")
        .arg(start.to_string())
        // Without an end it waits five seconds for a segment that does not exist.
        .arg("-e")
        .arg(behind.start(control.segment_size).to_string());
    // By their names: else it takes the size of a segment from any file that it finds, and one made in advance is empty.
    command.args([from, to].map(|segment| segment.file_name(control.segment_size)));
    command
}

/// Where the last record begins, which `pg_waldump` says of its own accord when the log ends with anything but a whole segment.
async fn last_record(mut command: Command) -> Result<Option<Lsn>, ToolError> {
    command.arg("--quiet").stdout(Stdio::null()).stderr(Stdio::piped());
    let output = command.output();
    let output = tokio::time::timeout(DUMP, output).await.map_err(|_| late())?.map_err(failed)?;
    Ok(records::last(&output.stderr))
}

/// The last record that it describes. It ends with an error at the end of WAL in any case: the records count, not the status.
async fn described(mut command: Command) -> Result<Option<WalRecord>, ToolError> {
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(failed)?;
    let mut last = None;
    let read = async {
        let Some(out) = child.stdout.take() else { return Ok(()) };
        // Descriptions hold bytes of any encoding, so lines are bytes.
        let mut reader = BufReader::with_capacity(1 << 16, out);
        let mut line = Vec::new();
        loop {
            line.clear();
            if reader.read_until(b'\n', &mut line).await? == 0 {
                return io::Result::Ok(());
            }
            last = records::parse(&line).or(last);
        }
    };
    tokio::time::timeout(DUMP, read).await.map_err(|_| late())?.map_err(failed)?;
    let _ = child.wait().await;
    Ok(last)
}

fn late() -> ToolError {
    ToolError::Late { program: WALDUMP.into(), limit: DUMP }
}

fn failed(source: io::Error) -> ToolError {
    ToolError::Start { program: WALDUMP.into(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_before_the_redo_position_is_no_help() {
        assert_eq!(near(Some(Lsn(HINT_MARGIN + 5)), Lsn(5)), None);
        assert_eq!(near(Some(Lsn(HINT_MARGIN + 6)), Lsn(5)), Some(Lsn(6)));
        assert_eq!(near(None, Lsn(5)), None);
    }
}
