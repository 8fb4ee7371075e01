//! Objects of a backup, read again: the parts as one plain tar, each checked against the entry.
//!
//! # Guarantees
//! - A reader ends (`Ok(0)`) only when all bytes of all objects have been seen, and size and SHA-256 of what is stored and of what came out
//!   are those of the entry. What was read before an error is worth nothing.
//! - Not one byte more than the entry says comes out, whatever the object holds.
//! - One part is open at a time, and the window of zstd is at most 8 MiB.

use std::io::{self, BufReader, Read};

use zstd::stream::read::Decoder;

use crate::contents::{Contents, Object};
use crate::cut::Piece;
use crate::digest::{Measure, Measuring};
use crate::ids::PartNumber;

/// No window that [`crate::cut::Level`] makes is larger than 4 MiB.
const WINDOW_LOG: u32 = 23;

/// Where objects come from.
pub trait Source {
    /// An object that is being read.
    type In: Read;

    /// Begins to read an object.
    ///
    /// # Errors
    /// It cannot be had.
    fn open(&mut self, piece: Piece) -> io::Result<Self::In>;
}

/// An object that is not what the entry says. Inside an [`io::Error`] of the kind `InvalidData`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// Its size or digest as stored is another.
    #[error("{piece} has {found} as stored, and the entry says {said}")]
    Stored {
        /// Which object.
        piece: Piece,
        /// Of what was read.
        found: Measure,
        /// By the entry.
        said: Measure,
    },
    /// What comes out has another size or digest.
    #[error("{piece} holds {found}, and the entry says {said}")]
    Plain {
        /// Which object.
        piece: Piece,
        /// Of what came out.
        found: Measure,
        /// By the entry.
        said: Measure,
    },
}

impl From<JoinError> for io::Error {
    fn from(error: JoinError) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, error)
    }
}

/// The plain tar of a backup.
#[derive(Debug)]
pub struct Joined<'a, S: Source> {
    source: S,
    rest: std::slice::Iter<'a, Object>,
    next: Option<PartNumber>,
    open: Option<Opened<S::In>>,
    failed: bool,
}

/// One object, checked while it is read.
pub struct Opened<In: Read> {
    piece: Piece,
    said: Object,
    plain: Measuring,
    decoder: Decoder<'static, BufReader<Measured<In>>>,
}

impl<In: Read> std::fmt::Debug for Opened<In> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened")
            .field("piece", &self.piece)
            .field("plain", &self.plain)
            .finish_non_exhaustive()
    }
}

/// What is stored, measured while it is read; ends after one byte more than there should be.
struct Measured<In> {
    inner: io::Take<In>,
    measuring: Measuring,
}

impl<In: Read> Read for Measured<In> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.measuring.update(&buf[..n]);
        Ok(n)
    }
}

impl<'a, S: Source> Joined<'a, S> {
    /// The tar of a backup, from its first byte.
    #[must_use]
    pub fn new(source: S, contents: &'a Contents) -> Joined<'a, S> {
        let rest = contents.parts().iter();
        Joined { source, rest, next: Some(PartNumber::FIRST), open: None, failed: false }
    }

    fn read_part(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(open) = &mut self.open {
                let n = open.read(buf)?;
                if n > 0 {
                    return Ok(n);
                }
                self.open = None;
            }
            let Some(object) = self.rest.next() else { return Ok(0) };
            let number = self.next.ok_or(io::ErrorKind::InvalidData)?;
            self.next = number.next();
            let piece = Piece::Part(number);
            self.open = Some(Opened::new(self.source.open(piece)?, piece, *object)?);
        }
    }
}

impl<S: Source> Read for Joined<'_, S> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        if self.failed {
            return Err(io::Error::other("the backup could not be read before"));
        }
        let read = self.read_part(buf);
        self.failed = read.is_err();
        read
    }
}

impl<In: Read> Opened<In> {
    /// An object, such as the manifest, from its first byte.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn new(inner: In, piece: Piece, said: Object) -> io::Result<Opened<In>> {
        let inner = inner.take(said.stored.bytes.saturating_add(1));
        let measured = Measured { inner, measuring: Measuring::default() };
        let mut decoder = Decoder::with_buffer(BufReader::with_capacity(128 << 10, measured))?;
        decoder.window_log_max(WINDOW_LOG)?;
        Ok(Opened { piece, said, plain: Measuring::default(), decoder })
    }

    /// After the last byte.
    fn check(&mut self) -> io::Result<()> {
        let (piece, said) = (self.piece, self.said);
        let found = self.decoder.get_ref().get_ref().measuring.clone().finish();
        if found != said.stored {
            return Err(JoinError::Stored { piece, found, said: said.stored }.into());
        }
        let found = self.plain.clone().finish();
        if found != said.plain {
            return Err(JoinError::Plain { piece, found, said: said.plain }.into());
        }
        Ok(())
    }
}

impl<In: Read> Read for Opened<In> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let n = self.decoder.read(buf)?;
        self.plain.update(&buf[..n]);
        if n == 0 {
            self.check()?;
        } else if self.plain.bytes() > self.said.plain.bytes {
            let found = self.plain.clone().finish();
            return Err(JoinError::Plain { piece: self.piece, found, said: self.said.plain }.into());
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests;
