//! One object that is being compressed: zstd, with digests of what goes in and of what comes out.

use std::io::{self, Write};

use zstd::zstd_safe::zstd_sys::ZSTD_EndDirective;
use zstd::zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer, ResetDirective, SafeResult, get_error_name};

use crate::contents::Object;
use crate::digest::Measuring;

/// zstd collects at most one block of 128 KiB before it writes it, and writes it with 3 bytes in front if it cannot be compressed;
/// a frame begins with at most 18 bytes and ends with 4.
pub(crate) const BEHIND: u64 = (128 << 10) + 64;

/// How well is compressed, and how slowly: zstd's levels from 1 to 6. Higher ones take much more memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Level(i32);

impl Level {
    /// The quickest, as good as gzip.
    pub const FASTEST: Level = Level(1);

    /// `None` if it is not from 1 to 6.
    #[must_use]
    pub fn new(level: i32) -> Option<Level> {
        (1..=6).contains(&level).then_some(Level(level))
    }
}

pub(crate) struct Squeeze {
    context: CCtx<'static>,
    /// Has room for a whole block, so zstd keeps nothing that is compressed.
    out: Vec<u8>,
    plain: Measuring,
    stored: Measuring,
}

impl std::fmt::Debug for Squeeze {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Squeeze")
            .field("plain", &self.plain)
            .field("stored", &self.stored)
            .finish_non_exhaustive()
    }
}

impl Squeeze {
    pub(crate) fn new(level: Level) -> io::Result<Squeeze> {
        let mut context = CCtx::try_create().ok_or(io::ErrorKind::OutOfMemory)?;
        known(context.set_parameter(CParameter::CompressionLevel(level.0)))?;
        known(context.set_parameter(CParameter::ChecksumFlag(true)))?;
        let (plain, stored) = Default::default();
        Ok(Squeeze { context, out: vec![0; CCtx::out_size()], plain, stored })
    }

    /// Compresses bytes; what comes out goes to `to`.
    pub(crate) fn push(&mut self, bytes: &[u8], to: &mut impl Write) -> io::Result<()> {
        self.plain.update(bytes);
        let mut input = InBuffer::around(bytes);
        while input.pos() < bytes.len() {
            self.run(&mut input, ZSTD_EndDirective::ZSTD_e_continue, to)?;
        }
        Ok(())
    }

    /// Ends the object. Another one can begin then.
    pub(crate) fn end(&mut self, to: &mut impl Write) -> io::Result<Object> {
        let mut nothing = InBuffer::around(&[]);
        while self.run(&mut nothing, ZSTD_EndDirective::ZSTD_e_end, to)? > 0 {}
        known(self.context.reset(ResetDirective::SessionOnly))?;
        let plain = std::mem::take(&mut self.plain).finish();
        let stored = std::mem::take(&mut self.stored).finish();
        Ok(Object { plain, stored })
    }

    /// Bytes that have come out.
    pub(crate) fn stored(&self) -> u64 {
        self.stored.bytes()
    }

    /// Bytes that are held, zstd's own included.
    pub(crate) fn held(&self) -> usize {
        self.context.sizeof() + self.out.capacity()
    }

    fn run(
        &mut self,
        input: &mut InBuffer<'_>,
        directive: ZSTD_EndDirective,
        to: &mut impl Write,
    ) -> io::Result<usize> {
        let mut output = OutBuffer::around(&mut self.out[..]);
        let left = known(self.context.compress_stream2(&mut output, input, directive))?;
        let written = output.pos();
        let out = &self.out[..written];
        self.stored.update(out);
        to.write_all(out)?;
        Ok(left)
    }
}

/// An error of zstd in its own words.
fn known(result: SafeResult) -> io::Result<usize> {
    result.map_err(|code| io::Error::other(format!("zstd: {}", get_error_name(code))))
}
