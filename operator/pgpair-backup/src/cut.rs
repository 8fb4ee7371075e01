//! A base backup that passes: the plain tar of `pg_basebackup --format=tar --pgdata=-` is cut into compressed parts, while its label and its
//! manifest are read.
//!
//! # Flow
//! Bytes come in by [`Cutter::push`]. Each part goes to the [`Sink`] while it is made, at most one at a time, and beside it the manifest,
//! which is the last file of the tar. The tar stays as it is: the parts, one after the other, are the tar again (see [`crate::join`], or
//! `cat tar.*.zst | zstd -d | tar -x`).
//!
//! # Guarantees
//! - [`Cutter::finish`] gives [`Contents`] only if the tar has ended by its own end mark, held one label and one manifest, and the manifest is
//!   what its digest says. A stream that was cut short at any byte is an error. Whether `pg_basebackup` ended well is for the caller to know:
//!   it says so after the last byte.
//! - No object is larger than [`Limits::part_bytes`], but for the manifest.
//! - At most [`HELD_AT_MOST`] bytes are held, whatever the size of the backup, the list of its parts not counted.
//! - After an error nothing goes on: every later call fails.

use std::fmt;
use std::io;

use pgpair_core::lsn::Lsn;
use pgpair_core::timeline::TimelineId;

use crate::contents::{Contents, Contradiction, Object};
use crate::ids::PartNumber;

mod label;
mod squeeze;
mod tar;

pub use label::{Label, LabelError};
pub use squeeze::Level;
pub use tar::TarError;

use label::{MOST_LABEL, ManifestEnd};
use squeeze::{BEHIND, Squeeze};
use tar::{Event, Follower, MemberKind};

/// Two contexts of zstd with their buffers, of which the larger levels take 5 MiB each; and what is read of label and manifest.
pub const HELD_AT_MOST: usize = 16 << 20;
/// Bytes that are taken at a time.
const PIECE: usize = 64 << 10;

/// An object of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Piece {
    /// A part of the tar.
    Part(PartNumber),
    /// PostgreSQL's manifest.
    Manifest,
}

impl fmt::Display for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Piece::Part(number) => write!(f, "part {}", number.get()),
            Piece::Manifest => f.write_str("the manifest"),
        }
    }
}

/// Where objects go.
pub trait Sink {
    /// An object that is being written.
    type Out: io::Write + fmt::Debug;

    /// Begins an object. The manifest is begun while a part is open.
    ///
    /// # Errors
    /// The place does not take it.
    fn open(&mut self, piece: Piece) -> io::Result<Self::Out>;

    /// Ends an object: when this returns, it is durable and has its name. An `Out` that is dropped instead leaves nothing.
    ///
    /// # Errors
    /// The place does not take it.
    fn seal(&mut self, out: Self::Out, object: &Object) -> io::Result<()>;
}

/// How to cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    part_bytes: u64,
    level: Level,
}

impl Limits {
    /// The smallest part.
    pub const SMALLEST: u64 = 1 << 20;
    /// The largest part.
    pub const LARGEST: u64 = 1 << 30;

    /// Parts of at most `part_bytes` as they are stored; `None` if that is less than 1 MiB or more than 1 GiB.
    #[must_use]
    pub fn new(part_bytes: u64, level: Level) -> Option<Limits> {
        (Limits::SMALLEST..=Limits::LARGEST).contains(&part_bytes).then_some(Limits { part_bytes, level })
    }
}

/// A backup that did not pass whole.
#[derive(Debug, thiserror::Error)]
pub enum CutError {
    /// The tar.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// Label or manifest.
    #[error(transparent)]
    Label(#[from] LabelError),
    /// What was found of it.
    #[error(transparent)]
    Contents(#[from] Contradiction),
    /// The place, or the compression.
    #[error("{piece} cannot be written: {error}")]
    Object {
        /// Which object.
        piece: Piece,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// There is no memory for the compression.
    #[error("the compression cannot begin: {0}")]
    Compression(#[source] io::Error),
    /// A file that a base backup has once.
    #[error("the tar has no {0}")]
    Missing(&'static str),
    /// A file that it has only once.
    #[error("the tar has two files {0}")]
    Twice(&'static str),
    /// More than there are numbers.
    #[error("the backup has more than {} parts: make them larger", PartNumber::LAST.get())]
    TooManyParts,
    /// An error before, after which nothing can be made of what comes.
    #[error("the backup has failed before")]
    FailedBefore,
}

/// Cuts one backup.
#[derive(Debug)]
pub struct Cutter<S: Sink> {
    follower: Follower,
    pieces: Pieces<S>,
    failed: bool,
}

/// Everything but the position in the tar, which calls it.
#[derive(Debug)]
struct Pieces<S: Sink> {
    sink: S,
    part_bytes: u64,
    level: Level,
    squeeze: Squeeze,
    /// The part that is open.
    part: Option<S::Out>,
    parts: Vec<Object>,
    reading: Reading<S::Out>,
    label: Option<Label>,
    manifest: Option<(Object, ManifestEnd)>,
}

/// The file whose content passes.
#[derive(Debug)]
enum Reading<Out> {
    /// None that is read.
    Nothing,
    /// `backup_label`
    Label(Vec<u8>),
    /// `tablespace_map`: there in every base backup, and empty unless there are tablespaces.
    TablespaceMap,
    /// `backup_manifest`
    Manifest(Box<OpenManifest<Out>>),
}

#[derive(Debug)]
struct OpenManifest<Out> {
    out: Out,
    squeeze: Squeeze,
    end: ManifestEnd,
}

impl<S: Sink> Cutter<S> {
    /// Before the first byte.
    ///
    /// # Errors
    /// There is no memory for the compression.
    pub fn new(sink: S, limits: Limits) -> Result<Cutter<S>, CutError> {
        let squeeze = Squeeze::new(limits.level).map_err(CutError::Compression)?;
        let pieces = Pieces {
            sink,
            part_bytes: limits.part_bytes,
            level: limits.level,
            squeeze,
            part: None,
            parts: Vec::new(),
            reading: Reading::Nothing,
            label: None,
            manifest: None,
        };
        Ok(Cutter { follower: Follower::default(), pieces, failed: false })
    }

    /// Takes the next bytes of the tar.
    ///
    /// # Errors
    /// See [`CutError`]. Nothing goes on after it.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), CutError> {
        if std::mem::replace(&mut self.failed, true) {
            return Err(CutError::FailedBefore);
        }
        for piece in bytes.chunks(PIECE) {
            let pieces = &mut self.pieces;
            self.follower.follow(piece, &mut |event| pieces.read(event))?;
            pieces.store(piece)?;
        }
        self.failed = false;
        Ok(())
    }

    /// After the last byte. All parts are sealed then.
    ///
    /// # Errors
    /// The tar was cut short, or is not a whole base backup.
    pub fn finish(mut self) -> Result<(Contents, Label, S), CutError> {
        if self.failed {
            return Err(CutError::FailedBefore);
        }
        self.follower.finish()?;
        self.pieces.seal_part()?;
        self.pieces.contents()
    }

    /// Bytes that are held now, those of the list of parts not counted.
    #[must_use]
    pub fn held(&self) -> usize {
        let reading = match &self.pieces.reading {
            Reading::Nothing | Reading::TablespaceMap => 0,
            Reading::Label(text) => text.capacity(),
            Reading::Manifest(open) => open.squeeze.held() + open.end.held(),
        };
        let manifest = self.pieces.manifest.as_ref().map_or(0, |(_, end)| end.held());
        self.follower.held() + self.pieces.squeeze.held() + reading + manifest
    }
}

impl<S: Sink> Pieces<S> {
    /// Picks out what is to be read.
    fn read(&mut self, event: Event<'_>) -> Result<(), CutError> {
        match (event, &mut self.reading) {
            (Event::Begin("backup_label", MemberKind::File), _) => {
                if self.label.is_some() {
                    return Err(CutError::Twice("backup_label"));
                }
                self.reading = Reading::Label(Vec::new());
            }
            (Event::Begin("backup_manifest", MemberKind::File), _) => self.begin_manifest()?,
            (Event::Begin("tablespace_map", _), _) => self.reading = Reading::TablespaceMap,
            (Event::Begin(..), _) => {}
            (Event::Bytes(bytes), Reading::Label(text)) => {
                if text.len() + bytes.len() > MOST_LABEL {
                    return Err(LabelError::LabelTooLarge.into());
                }
                text.extend_from_slice(bytes);
            }
            (Event::Bytes(bytes), Reading::Manifest(open)) => {
                open.end.push(bytes);
                open.squeeze.push(bytes, &mut open.out).map_err(at(Piece::Manifest))?;
            }
            (Event::Bytes(_), Reading::TablespaceMap) => {
                return Err(TarError::Link("tablespace_map".to_owned()).into());
            }
            (Event::Bytes(_), Reading::Nothing) => {}
            (Event::End, _) => self.end_of_file()?,
        }
        Ok(())
    }

    fn begin_manifest(&mut self) -> Result<(), CutError> {
        if self.manifest.is_some() {
            return Err(CutError::Twice("backup_manifest"));
        }
        let squeeze = Squeeze::new(self.level).map_err(CutError::Compression)?;
        let out = self.sink.open(Piece::Manifest).map_err(at(Piece::Manifest))?;
        self.reading =
            Reading::Manifest(Box::new(OpenManifest { out, squeeze, end: ManifestEnd::default() }));
        Ok(())
    }

    fn end_of_file(&mut self) -> Result<(), CutError> {
        match std::mem::replace(&mut self.reading, Reading::Nothing) {
            Reading::Nothing | Reading::TablespaceMap => {}
            Reading::Label(text) => self.label = Some(Label::parse(&text)?),
            Reading::Manifest(open) => {
                let OpenManifest { mut out, mut squeeze, end } = *open;
                let object = squeeze.end(&mut out).map_err(at(Piece::Manifest))?;
                self.sink.seal(out, &object).map_err(at(Piece::Manifest))?;
                self.manifest = Some((object, end));
            }
        }
        Ok(())
    }

    /// Adds bytes to the open part, or to a new one if it could get too large.
    fn store(&mut self, bytes: &[u8]) -> Result<(), CutError> {
        // The size of the part if neither these bytes nor those that zstd holds back can be compressed.
        let at_worst = self.squeeze.stored() + BEHIND + bytes.len() as u64;
        if at_worst > self.part_bytes {
            self.seal_part()?;
        }
        let piece = Piece::Part(self.number()?);
        let out = match &mut self.part {
            Some(out) => out,
            None => self.part.insert(self.sink.open(piece).map_err(at(piece))?),
        };
        self.squeeze.push(bytes, out).map_err(at(piece))
    }

    /// Of the part that is open, or that is opened next.
    fn number(&self) -> Result<PartNumber, CutError> {
        let next = u32::try_from(self.parts.len() + 1).ok().and_then(PartNumber::new);
        next.ok_or(CutError::TooManyParts)
    }

    fn seal_part(&mut self) -> Result<(), CutError> {
        let piece = Piece::Part(self.number()?);
        if let Some(mut out) = self.part.take() {
            let object = self.squeeze.end(&mut out).map_err(at(piece))?;
            self.sink.seal(out, &object).map_err(at(piece))?;
            self.parts.push(object);
        }
        Ok(())
    }

    /// What has passed, if it was all of it.
    fn contents(self) -> Result<(Contents, Label, S), CutError> {
        let label = self.label.ok_or(CutError::Missing("backup_label"))?;
        let (manifest, end) = self.manifest.ok_or(CutError::Missing("backup_manifest"))?;
        let wal = end.finish()?;
        let first = wal.first().ok_or(LabelError::NoWal)?;
        let last = wal.last().ok_or(LabelError::NoWal)?;
        let start: (TimelineId, Lsn) = (first.timeline, first.start);
        if start != (label.timeline, label.start) {
            return Err(LabelError::Start { label: label.start, manifest: first.start }.into());
        }
        let contents = Contents {
            parts: self.parts,
            manifest,
            start: label.start,
            start_timeline: label.timeline,
            stop: last.end,
            stop_timeline: last.timeline,
        };
        contents.check()?;
        Ok((contents, label, self.sink))
    }
}

fn at(piece: Piece) -> impl FnOnce(io::Error) -> CutError {
    move |error| CutError::Object { piece, error }
}

#[cfg(test)]
pub(crate) mod tests;
