//! The entries of an index, asked for as far as its frames have come.
//!
//! The index names a frame before the entries that end in it, and an entry may reach over many frames. So
//! whoever needs both reads the index twice at once: one cursor walks frames, this one the entries.

use std::iter::Peekable;

use super::format::{Entry, IndexLine};
use super::reader::{Index, IndexLines};
use crate::repository::RepositoryError;

/// See the module's text.
#[derive(Debug)]
pub struct Entries<'a> {
    lines: Peekable<IndexLines<'a>>,
    object: &'a str,
}

impl<'a> Entries<'a> {
    /// From the start of an index.
    pub fn of(index: &'a Index) -> Result<Self, RepositoryError> {
        Ok(Self { lines: index.lines()?.peekable(), object: index.object() })
    }

    /// Goes on to an archive. The cursor must stand before the same line as that of the frames, or before
    /// what is left of the index.
    pub fn begin_archive(&mut self, name: &str) -> Result<(), RepositoryError> {
        if let Some(Ok(IndexLine::Archive { name: next })) = self.lines.peek()
            && next == name
        {
            self.lines.next();
            return Ok(());
        }
        Err(RepositoryError::damaged(
            self.object,
            format!("the entries of {name} are not where its frames are"),
        ))
    }

    /// The archive's next entry, if it begins before `end`.
    pub fn next_before(&mut self, end: u64) -> Result<Option<Entry>, RepositoryError> {
        loop {
            let line = self.lines.next_if(|line| match line {
                Ok(IndexLine::Archive { .. }) => false,
                Ok(IndexLine::Entry(entry)) => entry.at < end,
                Ok(IndexLine::Frame(_)) | Err(_) => true,
            });
            match line.transpose()? {
                None => return Ok(None),
                Some(IndexLine::Entry(entry)) => return Ok(Some(entry)),
                Some(_) => {}
            }
        }
    }
}
