//! A reader for the tar streams that a server sends: plain ustar, no extensions.
//!
//! The dialect is fixed by the server's source: names of at most 99 bytes, numbers in octal or base-256,
//! files, directories and symbolic links. So there is nothing here to be confused by: a header that is
//! anything else is an error, never a guess. Bytes may arrive in pieces of any length; nothing is buffered
//! but one header, and file data is handed on as slices of what was given.
//!
//! Servers before major 15 send no end marker, later ones send two blocks of zeros; both are complete.

mod header;
#[cfg(test)]
mod tests;

use header::BLOCK;

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TarKind {
    /// A regular file of [`TarEntry::size`] bytes.
    File,
    /// A directory.
    Directory,
    /// A symbolic link (in a server's stream: `pg_tblspc/OID`, and `pg_wal` where it is one).
    Symlink {
        /// Where it points; any bytes.
        target: Vec<u8>,
    },
}

/// One entry's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TarEntry {
    /// The path, relative, without `.` and `..`, without a slash at its end; empty for the root itself.
    pub path: Vec<u8>,
    /// File, directory or link.
    pub kind: TarKind,
    /// Permission bits.
    pub mode: u32,
    /// Owner's number.
    pub uid: u64,
    /// Group's number.
    pub gid: u64,
    /// Seconds since 1970-01-01 UTC.
    pub mtime: u64,
    /// Bytes of data that follow in the stream; 0 for anything but a file.
    pub size: u64,
    /// Where in the stream the data begins.
    pub data_offset: u64,
}

/// What [`TarReader::next`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum TarEvent<'a> {
    /// An entry begins.
    Entry(TarEntry),
    /// The next bytes of the current file; never empty.
    Data(&'a [u8]),
    /// The current file is complete. Comes once for every file, also for an empty one; not for
    /// directories and links.
    FileEnd,
}

/// A stream that is not the tar a server sends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TarError {
    /// The header's own sum does not hold: bytes were lost or changed on the way.
    #[error("tar header at byte {offset} has a wrong checksum")]
    Checksum {
        /// Where the header begins.
        offset: u64,
    },
    /// A field of the header cannot be read.
    #[error("tar header at byte {offset} has a {field} that cannot be read")]
    Field {
        /// Where the header begins.
        offset: u64,
        /// The field's name.
        field: &'static str,
    },
    /// A kind of entry that no server sends.
    #[error("tar header at byte {offset} is of type {kind:?}, which no server sends")]
    Kind {
        /// Where the header begins.
        offset: u64,
        /// The type as a character.
        kind: char,
    },
    /// A path that leads out of the directory.
    #[error("tar header at byte {offset} names a path outside of the archive: {path:?}")]
    PathOutside {
        /// Where the header begins.
        offset: u64,
        /// The path as it stands there.
        path: String,
    },
    /// Something follows the end marker.
    #[error("bytes follow the end of the tar archive at byte {offset}")]
    AfterEnd {
        /// Where the stray byte is.
        offset: u64,
    },
    /// The stream ended inside a header or a file.
    #[error("the tar stream ends at byte {offset}, in the middle of {inside}")]
    Truncated {
        /// The stream's length.
        offset: u64,
        /// What was being read.
        inside: &'static str,
    },
}

#[derive(Debug)]
enum State {
    Header,
    Data { left: u64 },
    FileEnd,
    Padding,
    Trailer,
}

/// Reads one tar stream; see the module's text.
#[derive(Debug)]
pub struct TarReader {
    state: State,
    header: [u8; BLOCK],
    filled: usize,
    position: u64,
}

impl Default for TarReader {
    fn default() -> Self {
        Self::new()
    }
}

impl TarReader {
    /// A reader at the start of a stream.
    pub fn new() -> Self {
        Self { state: State::Header, header: [0; BLOCK], filled: 0, position: 0 }
    }

    /// How many bytes of the stream were taken so far.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Takes bytes off the front of `input` until something is to be told; `Ok(None)` when `input` is used
    /// up. After an error the reader is of no further use.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<TarEvent<'a>>, TarError> {
        loop {
            match self.state {
                State::Header => {
                    let missing = BLOCK.saturating_sub(self.filled);
                    let piece = self.take(input, missing);
                    if let Some(room) = self.header.get_mut(self.filled..self.filled + piece.len()) {
                        room.copy_from_slice(piece);
                    }
                    self.filled += piece.len();
                    if self.filled < BLOCK {
                        return Ok(None);
                    }
                    self.filled = 0;
                    if self.header.iter().all(|b| *b == 0) {
                        self.state = State::Trailer;
                        continue;
                    }
                    let entry = header::parse(&self.header, self.position)?;
                    if entry.kind == TarKind::File {
                        self.state = State::Data { left: entry.size };
                    }
                    return Ok(Some(TarEvent::Entry(entry)));
                }
                State::Data { left: 0 } => self.state = State::FileEnd,
                State::Data { left } => {
                    let most = usize::try_from(left).unwrap_or(usize::MAX);
                    let piece = self.take(input, most);
                    if piece.is_empty() {
                        return Ok(None);
                    }
                    self.state = State::Data { left: left.saturating_sub(piece.len() as u64) };
                    return Ok(Some(TarEvent::Data(piece)));
                }
                State::FileEnd => {
                    self.state = State::Padding;
                    return Ok(Some(TarEvent::FileEnd));
                }
                State::Padding => {
                    // Headers and data begin at multiples of the block, so the position alone says how
                    // much padding is left. What it holds does not matter.
                    let over = usize::try_from(self.position % BLOCK as u64).unwrap_or(0);
                    if over == 0 {
                        self.state = State::Header;
                        continue;
                    }
                    if self.take(input, BLOCK - over).is_empty() {
                        return Ok(None);
                    }
                }
                State::Trailer => {
                    let at = self.position;
                    let rest = self.take(input, usize::MAX);
                    return match rest.iter().position(|b| *b != 0) {
                        Some(i) => Err(TarError::AfterEnd { offset: at + i as u64 }),
                        None => Ok(None),
                    };
                }
            }
        }
    }

    /// To be called when the stream has ended: was it complete?
    pub fn finish(&self) -> Result<(), TarError> {
        let inside = match self.state {
            State::Header if self.filled == 0 => return Ok(()),
            State::Trailer => return Ok(()),
            State::Header => "a header",
            State::Data { .. } | State::FileEnd => "a file",
            State::Padding if self.position.is_multiple_of(BLOCK as u64) => return Ok(()),
            State::Padding => "the padding after a file",
        };
        Err(TarError::Truncated { offset: self.position, inside })
    }

    fn take<'a>(&mut self, input: &mut &'a [u8], most: usize) -> &'a [u8] {
        let (piece, rest) = input.split_at(most.min(input.len()));
        *input = rest;
        self.position += piece.len() as u64;
        piece
    }
}
