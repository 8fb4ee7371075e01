//! `pgpair adopt-look` and `pgpair adopt-release`: the volumes of a pair whose record is gone are looked at, and let go of for a new record.
//! Run by Jobs while the instance is scaled to 0.
//!
//! # Guarantees
//! - A look changes nothing but the file of the lock. What it cannot tell it does not guess: where the log of a volume ends decides
//!   what an adoption gives up.
//! - A release forgets the record and nothing else, as often as it is run and wherever it is cut off. The state before it is kept.

use std::fmt::Display;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::UNIX_EPOCH;

use pgpair_core::authority::Durable;
use pgpair_core::ids::{SystemIdentifier, VolumeId};
use pgpair_core::lsn::Lsn;
use pgpair_core::timeline::{TimelineHistory, TimelineId};
use pgpair_core::wal::{Segment, WalFile};
use pgpair_wire::adopt::{ANCESTORS, KeptVolume, Look, WORDS};
use pgpair_wire::words;

use crate::fence::lock::VolumeLock;
use crate::instance::env::{InstanceEnv, InstanceEnvError};
use crate::instance::fsx::{self, Context, FileError};
use crate::instance::layout::Layout;
use crate::instance::state;
use crate::postgres::control_file::{self, ControlData, control_data};
use crate::postgres::end_of_wal::{self, Position, end_of_wal};
use crate::postgres::pgdata::{self, DataDir, PgDataError};
use crate::postgres::promote;
use crate::postgres::tool::{PgBin, ToolError};
use crate::standby::job;

/// A look that could not be made: nothing is known of the volume.
#[derive(Debug, thiserror::Error)]
enum NoLook {
    #[error(transparent)]
    InstanceEnv(#[from] InstanceEnvError),
    #[error(transparent)]
    Tool(#[from] ToolError),
    #[error("what was found cannot be told: {0}")]
    Tell(#[source] io::Error),
    #[error("cannot start: {0}")]
    Start(#[source] io::Error),
}

/// What cannot be told of a volume.
#[derive(Debug, thiserror::Error)]
enum Unknown {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    PgData(#[from] PgDataError),
    #[error("{path} has no PG_VERSION", path = .0.display())]
    NoVersion(PathBuf),
    /// Programs of another version read a control file wrongly.
    #[error(
        "the data directory is of PostgreSQL {found}, and the programs of this image are of {programs}: set spec.postgres.image to an image of \
         PostgreSQL {found}",
        programs = .programs.map_or_else(|| "an unknown version".to_owned(), |v| v.to_string())
    )]
    OtherVersion { found: u32, programs: Option<u32> },
    #[error("volume.json is of the cluster {volume}, and the control file of {control}")]
    OtherSystem { volume: SystemIdentifier, control: SystemIdentifier },
    #[error("the history of timeline {0} is nowhere on the volumes")]
    NoHistory(TimelineId),
    /// The disk has failed before the log ended, which looks like an end.
    #[error("{path} has {bytes} bytes, and a segment has {whole}", path = .path.display())]
    Short { path: PathBuf, bytes: u64, whole: u64 },
    #[error("the log can be read up to {end} only, and the data has been written up to {needed}")]
    Lacks { end: Lsn, needed: Lsn },
}

/// The command `adopt-look`. The last line on standard output is the [`Look`].
#[must_use]
pub fn look() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let told = runtime.map_err(NoLook::Start).and_then(|runtime| {
        let settings = InstanceEnv::from_env()?;
        let bin = PgBin::find(&settings)?;
        job::tell(&runtime.block_on(look_at(&settings.layout, &bin))).map_err(NoLook::Tell)
    });
    ended("adopt-look", told.map(|()| None))
}

/// The command `adopt-release`, for the volume with this id, or for one without a complete data directory.
#[must_use]
pub fn release(volume: Option<VolumeId>) -> ExitCode {
    let settings = InstanceEnv::from_env().map_err(ReleaseError::InstanceEnv);
    let released = settings.and_then(|settings| let_go(&settings.layout, volume));
    let words = released.map(|released| match released {
        Released::Now => "the volume has forgotten its record".to_owned(),
        Released::Before => "the volume knows no record: nothing was to be done".to_owned(),
    });
    ended("adopt-release", words.map(Some))
}

/// Says how a command has ended, also in the termination log.
fn ended(command: &str, result: Result<Option<String>, impl Display>) -> ExitCode {
    let (words, code) = match result {
        Ok(None) => return ExitCode::SUCCESS,
        Ok(Some(words)) => (words, ExitCode::SUCCESS),
        Err(e) => (e.to_string(), ExitCode::FAILURE),
    };
    eprintln!("{command}: {words}");
    if let Err(e) = job::leave(&words) {
        eprintln!("{command}: the termination log cannot be written: {e}");
    }
    code
}

/// Looks at the volumes of an instance that does not run.
pub async fn look_at(layout: &Layout, bin: &PgBin) -> Look {
    read(layout, bin).await.unwrap_or_else(|e| Look::Unreadable { why: cut(&e.to_string()) })
}

async fn read(layout: &Layout, bin: &PgBin) -> Result<Look, Unknown> {
    let lock = VolumeLock::try_acquire(&layout.lock()).at("lock", &layout.lock())?;
    let Some(_held) = lock else { return Ok(Look::InUse) };
    let DataDir::Ready(volume) = pgdata::inspect(layout)? else { return Ok(Look::Nothing) };
    let version = fitting_version(layout, bin).await?;
    let control = control_data(bin, &layout.pgdata()).await?;
    if control.system_identifier != volume.system_identifier {
        let (volume, control) = (volume.system_identifier, control.system_identifier);
        return Err(Unknown::OtherSystem { volume, control });
    }
    let state = state::stored(layout)?;
    let found = end(layout, bin, &control).await;
    let end = found.as_ref().ok().copied();
    let timeline = end.map_or(control.newest_timeline(), |end| end.timeline);
    let history = pgdata::history(layout, control.system_identifier, timeline)?;
    Ok(Look::Volume(KeptVolume {
        volume_id: volume.volume_id,
        system_identifier: volume.system_identifier,
        version,
        history: newest(history.ok_or(Unknown::NoHistory(timeline))?),
        end: end.map(|end| end.end),
        end_unknown: found.err().map(|e| cut(&e.to_string())),
        written_ms: written_ms(layout, &control, end),
        state,
    }))
}

async fn fitting_version(layout: &Layout, bin: &PgBin) -> Result<u32, Unknown> {
    let found = control_file::major(&layout.pgdata()).ok_or_else(|| Unknown::NoVersion(layout.pgdata()))?;
    match bin.major().await {
        Some(programs) if programs == found => Ok(found),
        programs => Err(Unknown::OtherVersion { found, programs }),
    }
}

/// Where the log ends, if all that speaks against it was looked at.
async fn end(layout: &Layout, bin: &PgBin, control: &ControlData) -> Result<Position, Unknown> {
    let end = match end_of_wal(bin, layout, control, None).await {
        Err(PgDataError::NoWal { timeline, checkpoint, output }) => {
            let nothing = PgDataError::NoWal { timeline, checkpoint, output };
            before_cut_off(layout, bin, control, timeline).await?.ok_or(nothing)
        }
        end => end,
    }?;
    let first = Segment::holding(end.timeline, end.end, control.segment_size);
    // The next record may reach into the second.
    for segment in [first, Segment { number: first.number + 1, ..first }] {
        check_whole(&layout.pg_wal().join(segment.file_name(control.segment_size)), control)?;
    }
    match control.min_recovery {
        Some((_, needed)) if needed > end.end => Err(Unknown::Lacks { end: end.end, needed }),
        _ => Ok(end),
    }
}

/// The end of a directory that was left in the middle of its promotion: `begun`, the timeline that was to begin, has a history and a segment, and no
/// record yet. All of the log is on the timelines before it. `None`: it was not left there.
async fn before_cut_off(
    layout: &Layout,
    bin: &PgBin,
    control: &ControlData,
    begun: TimelineId,
) -> Result<Option<Position>, Unknown> {
    let Some(from) = promote::cut_off_from(layout, control)?.filter(|from| *from < begun) else {
        return Ok(None);
    };
    let history = pgdata::history(layout, control.system_identifier, begun)?;
    let history = history.ok_or(Unknown::NoHistory(begun))?;
    // One that was cut off before may have come as far as a record.
    for (timeline, left) in history.ancestors.into_iter().rev().filter(|(t, _)| *t >= from) {
        match end_of_wal::end_on(bin, layout, control, timeline).await {
            Err(PgDataError::NoWal { .. }) => {}
            // What came after it was left is no part of what the promotion goes on from.
            found => {
                let Position { timeline, end } = found?;
                return Ok(Some(Position { timeline, end: end.min(left) }));
            }
        }
    }
    Ok(None)
}

/// Whether all of a segment can be read, if it is there: `pg_waldump` takes a disk that fails for the end of the log.
fn check_whole(path: &Path, control: &ControlData) -> Result<(), Unknown> {
    let mut file = match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file.at("open", path)?,
    };
    let bytes = io::copy(&mut file, &mut io::sink()).at("read", path)?;
    let whole = control.segment_size.bytes();
    if bytes == whole { Ok(()) } else { Err(Unknown::Short { path: path.to_owned(), bytes, whole }) }
}

/// When the segment with the last byte of the log was written, or else the newest segment that is there.
fn written_ms(layout: &Layout, control: &ControlData, end: Option<Position>) -> Option<u64> {
    let size = control.segment_size;
    let at = |path: &Path| {
        let modified = fs::metadata(path).and_then(|m| m.modified()).ok()?;
        u64::try_from(modified.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
    };
    let last = end.map(|end| Segment::holding(end.timeline, Lsn(end.end.0.saturating_sub(1)), size));
    last.and_then(|last| at(&layout.pg_wal().join(last.file_name(size)))).or_else(|| {
        let entries = fs::read_dir(layout.pg_wal()).ok()?.filter_map(Result::ok);
        let is_segment = |name: &str| matches!(WalFile::parse(name, size), Some(WalFile::Segment(_)));
        let segments = entries.filter(|entry| entry.file_name().to_str().is_some_and(is_segment));
        segments.filter_map(|segment| at(&segment.path())).max()
    })
}

/// The history with its newest ancestors only.
fn newest(mut history: TimelineHistory) -> TimelineHistory {
    let surplus = history.ancestors.len().saturating_sub(ANCESTORS);
    history.ancestors.drain(..surplus);
    history
}

/// The beginning of a text, as long as it may be in the last words of a container; whatever its characters are, also in bytes of JSON.
fn cut(text: &str) -> String {
    const CUT: char = '…';
    let bytes = |c: char| if matches!(c, '"' | '\\') { 2 } else { c.len_utf8() };
    let text = words::plain(text);
    if text.chars().map(bytes).sum::<usize>() <= WORDS {
        return text;
    }
    let mut room = WORDS - CUT.len_utf8();
    let fits = |c: &char| room.checked_sub(bytes(*c)).map(|rest| room = rest).is_some();
    text.chars().take_while(fits).chain([CUT]).collect()
}

/// A volume that was not let go of. It knows its record as before.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// The environment.
    #[error(transparent)]
    InstanceEnv(#[from] InstanceEnvError),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The instance still runs.
    #[error("another process holds the lock {path}: scale the instance to 0 first", path = .0.display())]
    Locked(PathBuf),
    /// There is nothing to let go of.
    #[error(
        "there is no complete data directory on this volume, and {0} was to be let go of: look at the volume again (pgpair adopt-look)"
    )]
    Nothing(VolumeId),
    /// There is something to let go of.
    #[error(
        "the volume {0} holds a complete data directory, and one without was to be let go of: it is not touched; look at the volume again (pgpair adopt-look)"
    )]
    Something(VolumeId),
    /// Not the volume that was looked at.
    #[error(
        "the volume is {found}, and {wanted} was to be let go of: it is not touched; look at the volume again (pgpair adopt-look)"
    )]
    OtherVolume {
        /// Which it is.
        found: VolumeId,
        /// Which it should be.
        wanted: VolumeId,
    },
}

/// What has become of a volume that was to be let go of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Released {
    /// It has forgotten its record.
    Now,
    /// It knew none.
    Before,
}

/// Lets a volume forget its record, so that the first one that its agent meets is its own, and the node on which it last ran: nothing of its pair runs,
/// and it may come up anywhere. Everything else that it remembers stays, above all what it has promised.
///
/// # Errors
/// See [`ReleaseError`].
pub fn let_go(layout: &Layout, volume: Option<VolumeId>) -> Result<Released, ReleaseError> {
    let lock = VolumeLock::try_acquire(&layout.lock()).at("lock", &layout.lock())?;
    let _held = lock.ok_or_else(|| ReleaseError::Locked(layout.lock()))?;
    match (pgdata::inspect(layout)?, volume) {
        (DataDir::Empty | DataDir::Unfinished, Some(wanted)) => return Err(ReleaseError::Nothing(wanted)),
        (DataDir::Ready(found), Some(wanted)) if found.volume_id != wanted => {
            return Err(ReleaseError::OtherVolume { found: found.volume_id, wanted });
        }
        (DataDir::Ready(found), None) => return Err(ReleaseError::Something(found.volume_id)),
        (DataDir::Ready(_), Some(_)) | (DataDir::Empty | DataDir::Unfinished, None) => {}
    }
    let Some(old) = state::stored(layout)?.filter(|old| old.record_uid.is_some()) else {
        return Ok(Released::Before);
    };
    keep_state(layout)?;
    state::store(layout, &Durable { record_uid: None, node: None, ..old })?;
    Ok(Released::Now)
}

/// Copies the state as it is, once: a copy of what is there now was made by a release that was cut off.
fn keep_state(layout: &Layout) -> Result<(), FileError> {
    let (from, copy) = (layout.state_json(), layout.state_before_adoption());
    let bytes = fs::read(&from).at("read", &from)?;
    match fs::read(&copy) {
        Ok(before) if before == bytes => return Ok(()),
        Ok(_) => set_aside(layout)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e).at("read", &copy),
    }
    fsx::write(&copy, &bytes, 0o600)
}

/// Gives the copy of an earlier adoption a name of its own.
fn set_aside(layout: &Layout) -> Result<(), FileError> {
    let (copy, dir) = (layout.state_before_adoption(), layout.states_before_earlier_adoptions());
    fsx::create_dir(&dir, 0o700)?;
    for number in 1u32.. {
        if fsx::publish(&copy, &dir.join(format!("{number}.json")))? {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
