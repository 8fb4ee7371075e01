//! A tar that passes, piece by piece: which file each byte belongs to, and whether the archive ended well.
//!
//! Understands what `pg_basebackup` writes (ustar, sizes in base 256) and the long names of pax and GNU. What a base backup of PostgreSQL
//! does not hold (links, devices, names that lead out of the directory) is refused here, before it is stored.

/// Every header and every padding is made of blocks.
const BLOCK: usize = 512;
/// An extended header with a long name; no name of a file of PostgreSQL is longer than 1024 bytes.
pub(crate) const MOST_EXTENSION: u64 = 64 << 10;

/// A tar that is not what a base backup is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TarError {
    /// The stream ended, and the archive did not.
    #[error("the tar was cut short after {0} bytes")]
    CutShort(u64),
    /// No header, or a damaged one.
    #[error("there is no tar header at byte {0}")]
    NoHeader(u64),
    /// After the end.
    #[error("there is something behind the end of the tar, at byte {0}")]
    BehindTheEnd(u64),
    /// A name that leads out of the directory, or none.
    #[error("the tar has a file with the name {0:?}")]
    Name(String),
    /// A tablespace.
    #[error("the tar has the link {0:?}: tablespaces cannot be backed up")]
    Link(String),
    /// Neither a file nor a directory.
    #[error("the tar has a member of the type {0:?}")]
    Type(char),
    /// An extended header that is too large or not understood.
    #[error("an extended header of the tar is not understood")]
    Extension,
}

/// What a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MemberKind {
    File,
    Directory,
}

/// What passes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event<'a> {
    /// A member begins. Its name has neither `./` at the front nor `/` at the end.
    Begin(&'a str, MemberKind),
    /// Content of it.
    Bytes(&'a [u8]),
    /// All of its content has been seen.
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extension {
    Pax,
    LongName,
    /// Attributes for all that follows, or the target of a link: nothing of it is needed.
    Ignored,
}

#[derive(Debug)]
enum State {
    /// In a header; so many bytes of it are there. Whether the block before was the first of the end.
    Header { filled: usize, ending: bool },
    /// In the content of a member.
    Content { left: u64, padding: u64 },
    /// In an extended header.
    Extended { what: Extension, left: u64, padding: u64 },
    /// Between content and the next header.
    Padding { left: u64 },
    /// After two blocks of zeros.
    Ended,
}

/// Follows a tar. Holds a block, and an extended header if there is one.
#[derive(Debug)]
pub(crate) struct Follower {
    state: State,
    seen: u64,
    /// Where the last header began.
    header_at: u64,
    block: [u8; BLOCK],
    extended: Vec<u8>,
    long_name: Option<Vec<u8>>,
    long_size: Option<u64>,
}

impl Default for Follower {
    fn default() -> Self {
        Follower {
            state: State::Header { filled: 0, ending: false },
            seen: 0,
            header_at: 0,
            block: [0; BLOCK],
            extended: Vec::new(),
            long_name: None,
            long_size: None,
        }
    }
}

impl Follower {
    /// Takes the next bytes.
    pub(crate) fn follow<E: From<TarError>>(
        &mut self,
        mut bytes: &[u8],
        on: &mut impl FnMut(Event<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        while !bytes.is_empty() {
            let taken = self.step(bytes, on)?;
            self.seen += taken as u64;
            bytes = &bytes[taken..];
        }
        Ok(())
    }

    /// Whether the archive ended well. What follows it is padding.
    pub(crate) fn finish(&self) -> Result<(), TarError> {
        if matches!(self.state, State::Ended) { Ok(()) } else { Err(TarError::CutShort(self.seen)) }
    }

    /// Bytes that are held.
    pub(crate) fn held(&self) -> usize {
        BLOCK + self.extended.capacity() + self.long_name.as_ref().map_or(0, Vec::capacity)
    }

    fn step<E: From<TarError>>(
        &mut self,
        bytes: &[u8],
        on: &mut impl FnMut(Event<'_>) -> Result<(), E>,
    ) -> Result<usize, E> {
        match self.state {
            State::Header { filled, ending } => {
                if filled == 0 {
                    self.header_at = self.seen;
                }
                let taken = bytes.len().min(BLOCK - filled);
                self.block[filled..filled + taken].copy_from_slice(&bytes[..taken]);
                self.state = State::Header { filled: filled + taken, ending };
                if filled + taken == BLOCK {
                    self.header(ending, on)?;
                }
                Ok(taken)
            }
            State::Content { left, padding } => {
                let taken = at_most(left, bytes);
                on(Event::Bytes(&bytes[..taken]))?;
                self.after_content(left - taken as u64, padding, on)?;
                Ok(taken)
            }
            State::Extended { what, left, padding } => {
                let taken = at_most(left, bytes);
                if what != Extension::Ignored {
                    self.extended.extend_from_slice(&bytes[..taken]);
                }
                let left = left - taken as u64;
                self.state = State::Extended { what, left, padding };
                if left == 0 {
                    self.extension(what)?;
                    self.state = next(padding);
                }
                Ok(taken)
            }
            State::Padding { left } => {
                let taken = at_most(left, bytes);
                self.state = next(left - taken as u64);
                Ok(taken)
            }
            State::Ended => match bytes.iter().position(|b| *b != 0) {
                Some(at) => Err(TarError::BehindTheEnd(self.seen + at as u64).into()),
                None => Ok(bytes.len()),
            },
        }
    }

    fn after_content<E: From<TarError>>(
        &mut self,
        left: u64,
        padding: u64,
        on: &mut impl FnMut(Event<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.state = State::Content { left, padding };
        if left == 0 {
            self.state = next(padding);
            on(Event::End)?;
        }
        Ok(())
    }

    fn header<E: From<TarError>>(
        &mut self,
        ending: bool,
        on: &mut impl FnMut(Event<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let at = self.header_at;
        if self.block.iter().all(|b| *b == 0) {
            self.state = if ending { State::Ended } else { State::Header { filled: 0, ending: true } };
            return Ok(());
        }
        if ending || !checksum_holds(&self.block) {
            return Err(TarError::NoHeader(at).into());
        }
        let size = number(&self.block[124..136]).ok_or(TarError::NoHeader(at))?;
        let size_of_file = self.long_size.unwrap_or(size);
        let kind = match self.block[156] {
            b'0' | 0 | b'7' => MemberKind::File,
            b'5' => MemberKind::Directory,
            b'x' => return Ok(self.extended_header(Extension::Pax, size)?),
            b'L' => return Ok(self.extended_header(Extension::LongName, size)?),
            b'g' | b'K' => return Ok(self.extended_header(Extension::Ignored, size)?),
            b'1' | b'2' => return Err(TarError::Link(self.name().unwrap_or_default()).into()),
            other => return Err(TarError::Type(char::from(other)).into()),
        };
        let name = self.name()?;
        if name.is_empty() && kind == MemberKind::File {
            return Err(TarError::Name(name).into());
        }
        (self.long_name, self.long_size) = (None, None);
        let size = if kind == MemberKind::File { size_of_file } else { 0 };
        on(Event::Begin(&name, kind))?;
        self.after_content(size, padding(size), on)
    }

    fn extended_header(&mut self, what: Extension, size: u64) -> Result<(), TarError> {
        if size == 0 || size > MOST_EXTENSION {
            return Err(TarError::Extension);
        }
        self.extended.clear();
        self.state = State::Extended { what, left: size, padding: padding(size) };
        Ok(())
    }

    fn extension(&mut self, what: Extension) -> Result<(), TarError> {
        let text = std::mem::take(&mut self.extended);
        match what {
            Extension::Ignored => {}
            Extension::LongName => {
                let end = text.iter().position(|b| *b == 0).unwrap_or(text.len());
                self.long_name = Some(text[..end].to_vec());
            }
            Extension::Pax => {
                for (key, value) in pax(&text).ok_or(TarError::Extension)? {
                    match key {
                        b"path" => self.long_name = Some(value.to_vec()),
                        b"size" => {
                            let size = std::str::from_utf8(value).ok().and_then(|v| v.parse().ok());
                            self.long_size = Some(size.ok_or(TarError::Extension)?);
                        }
                        _ => {}
                    }
                }
            }
        }
        Ok(())
    }

    /// The name of the member whose header is there.
    fn name(&self) -> Result<String, TarError> {
        let field = |from: usize, to: usize| {
            let field = &self.block[from..to];
            &field[..field.iter().position(|b| *b == 0).unwrap_or(field.len())]
        };
        let bytes = match &self.long_name {
            Some(name) => name.clone(),
            None if &self.block[257..263] == b"ustar\0" && self.block[345] != 0 => {
                [field(345, 500), b"/", field(0, 100)].concat()
            }
            None => field(0, 100).to_vec(),
        };
        let refused = || TarError::Name(String::from_utf8_lossy(&bytes).into_owned());
        let whole = String::from_utf8_lossy(&bytes);
        let name = whole.strip_suffix('/').unwrap_or(&whole);
        let name = name.strip_prefix("./").unwrap_or(name);
        if name == "." {
            return Ok(String::new());
        }
        let inside = |part: &str| !matches!(part, "" | "." | "..");
        if name.contains('\0') || (!name.is_empty() && !name.split('/').all(inside)) || bytes.is_empty() {
            return Err(refused());
        }
        Ok(name.to_owned())
    }
}

/// After content and its padding comes a header.
fn next(padding: u64) -> State {
    if padding == 0 { State::Header { filled: 0, ending: false } } else { State::Padding { left: padding } }
}

fn at_most(left: u64, bytes: &[u8]) -> usize {
    usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()))
}

fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

/// The sum of all bytes, with blanks in place of the sum itself.
fn checksum_holds(block: &[u8; BLOCK]) -> bool {
    let sum: u64 = block
        .iter()
        .enumerate()
        .map(|(i, b)| u64::from(if (148..156).contains(&i) { b' ' } else { *b }))
        .sum();
    number(&block[148..156]) == Some(sum)
}

/// A number: in octal digits, or in base 256 if the first bit is set.
fn number(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        let first = u64::from(field[0] & 0x7f);
        return field[1..].iter().try_fold(first, |n, b| {
            n.checked_mul(256).map(|n| n | u64::from(*b)).filter(|n| i64::try_from(*n).is_ok())
        });
    }
    let text = field.trim_ascii_start();
    let end = text.iter().position(|b| *b == 0 || *b == b' ').unwrap_or(text.len());
    let digits = &text[..end];
    let rest_is_blank = text[end..].iter().all(|b| *b == 0 || *b == b' ');
    let octal = |n: u64, b: &u8| (b'0'..=b'7').contains(b).then(|| n * 8 + u64::from(b - b'0'));
    (rest_is_blank && !digits.is_empty()).then(|| digits.iter().try_fold(0, octal)).flatten()
}

/// Records of the form `LENGTH KEY=VALUE\n`.
fn pax(mut text: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut records = Vec::new();
    while !text.is_empty() {
        let blank = text.iter().position(|b| *b == b' ')?;
        let len: usize = std::str::from_utf8(&text[..blank]).ok()?.parse().ok()?;
        let record = text.get(blank + 1..len)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|b| *b == b'=')?;
        records.push((&record[..equals], &record[equals + 1..]));
        text = &text[len..];
    }
    Some(records)
}

#[cfg(test)]
pub(crate) mod tests;
