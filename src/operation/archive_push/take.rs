//! One file of the server's, read: scanned, digested and compressed on the way, refused where it is certainly not
//! this cluster's, with what an operator should know about its content.

use std::fs::File;
use std::io::{Read, Seek};

use super::{Company, How, PushError, proof};
use crate::repository::SystemIdentity;
use crate::repository::wal_archive::{EncodedFrames, Encoding, WalContent};
use crate::types::{SegmentName, SegmentSize, WalFileName};
use crate::wal::{HeaderProblem, SegmentScan, SegmentScanner, TimelineHistory};

/// The greatest history or backup file that is taken for one, in bytes: a line of a history file has about
/// 60, and a reader holds the whole file in memory.
const LONGEST_TEXT: u64 = 16 << 20;

/// What may be wrong with a file that was stored all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Concern {
    /// Recovery ends there.
    Damaged(String),
    /// It is of a server newer than this program.
    NotChecked(String),
    /// A history file that the server will not understand.
    BadHistory(String),
}

/// A file that was read, scanned and compressed.
pub(super) struct Taken<'w> {
    pub(super) frames: EncodedFrames<'w>,
    /// BLAKE3 of its first page.
    pub(super) first_page: Option<String>,
    pub(super) content: Option<WalContent>,
    pub(super) concern: Option<Concern>,
    /// The system it is of, where anything says so.
    pub(super) system: Option<SystemIdentity>,
}

/// The file to be archived.
pub(super) struct Source<'f> {
    pub(super) file: &'f File,
    pub(super) length: u64,
    pub(super) name: WalFileName,
    pub(super) shown: &'f str,
    pub(super) how: How<'f>,
}

impl<'f> Source<'f> {
    pub(super) fn take_segment(
        &self,
        segment: SegmentName,
        system: Option<SystemIdentity>,
    ) -> Result<Taken<'f>, PushError> {
        let header = |source| PushError::Header { path: self.shown.to_owned(), source };
        // Without a data directory the length is all there is; the header is compared with it.
        let size = match (system, SegmentSize::new(self.length)) {
            (Some(system), _) => system.segment_size,
            (None, size) => size.unwrap_or(SegmentSize::DEFAULT),
        };
        if self.length != size.bytes() {
            let (bytes, expected) = (self.length, size.bytes());
            return Err(header(HeaderProblem::Length { bytes, expected }));
        }
        let read = || {
            let mut scanner = SegmentScanner::new(segment, size);
            let mut first_page = None;
            let frames = self.encode(|chunk| {
                first_page.get_or_insert_with(|| proof::first_page(chunk));
                scanner.push(chunk);
            })?;
            Ok::<_, PushError>((frames, first_page, scanner.finish()))
        };
        let (mut frames, mut first_page, mut scan) = read()?;
        if scan.damage.is_some() || scan.problem.is_some() {
            // It may have been read while the disk or the page cache had a bad moment: the second look decides. Both
            // at once would be too much for a hook.
            drop(frames);
            (frames, first_page, scan) = read()?;
        }
        if let Some(problem) = scan.problem {
            return Err(header(problem));
        }
        let found = scan.header.map(|header| SystemIdentity {
            system_identifier: header.system_id,
            segment_size: size,
            postgres_major: system.and_then(|s| s.postgres_major),
        });
        if let (Some(system), Some(found)) = (system, found)
            && system.system_identifier != found.system_identifier
        {
            return Err(PushError::Stranger {
                path: self.shown.to_owned(),
                found: found.system_identifier,
                expected: system.system_identifier,
            });
        }
        let content = WalContent::from(&scan);
        Ok(Taken {
            frames,
            first_page,
            concern: Concern::of(&scan),
            content: Some(content),
            system: found.or(system),
        })
    }

    pub(super) fn take_text(&self, system: Option<SystemIdentity>) -> Result<Taken<'f>, PushError> {
        if self.length == 0 || self.length > LONGEST_TEXT {
            return Err(PushError::Length { path: self.shown.to_owned(), bytes: self.length });
        }
        let mut text = Vec::new();
        let frames = self.encode(|chunk| text.extend_from_slice(chunk))?;
        let concern = match self.name {
            WalFileName::History(timeline) => TimelineHistory::parse(timeline, &text)
                .err()
                .map(|problem| Concern::BadHistory(problem.to_string())),
            _ => None,
        };
        Ok(Taken { frames, first_page: Some(proof::first_page(&text)), content: None, concern, system })
    }

    fn encode(&self, inspect: impl FnMut(&[u8]) + Send) -> Result<EncodedFrames<'f>, PushError> {
        let mut file = self.file;
        file.rewind().map_err(|source| PushError::Read { path: self.shown.to_owned(), source })?;
        // No further than was announced: a file that grows while it is read is compared with its length.
        let mut source = file.take(self.length);
        let encoding = Encoding {
            workroom: self.how.workroom,
            temp_dir: &self.how.options.temp_dir,
            in_memory: self.how.company.in_memory(),
            together: self.how.company == Company::Alone,
        };
        EncodedFrames::encode(&mut source, self.length, encoding, self.shown, inspect)
            .map_err(|source| PushError::Repository { name: self.name.to_string(), source })
    }
}

impl Concern {
    fn of(scan: &SegmentScan) -> Option<Self> {
        match (scan.damage, scan.newer_magic()) {
            (Some(damage), _) => Some(Self::Damaged(damage.to_string())),
            (None, Some(magic)) => Some(Self::NotChecked(format!("page magic {:04X}", magic.0))),
            (None, None) => None,
        }
    }
}

impl std::fmt::Display for Concern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Damaged(what) => write!(f, "it is damaged ({what}), recovery will end there"),
            Self::NotChecked(what) => {
                write!(f, "its content was not checked: it is of a server newer than this version ({what})")
            }
            Self::BadHistory(what) => write!(f, "it is no history that a server understands ({what})"),
        }
    }
}
