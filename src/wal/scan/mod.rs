//! Reading one segment as recovery would, in chunks of any size and in constant memory.
//!
//! Two layers: this file cuts the bytes into pages and judges each page header; [`records`] follows the
//! records through the pages. Bytes are looked at where they are; only a header split between two chunks or
//! pages, and the bodies of transaction and XLOG records that are split, are copied, the latter up to a cap.
//!
//! # Damage, or just the end?
//!
//! The records of a segment may stop anywhere: it was cut off by a promotion, or its server crashed. What
//! stands behind is zeros, or pages of the file's earlier life (segments are recycled by renaming), or the
//! beginning of a record that was never finished. None of that is damage. So the first thing that is not as
//! it should be is at first only a *suspect*, and becomes damage when there is proof that this segment went
//! on behind it:
//!
//! - a later page that belongs here (right magic, right address, a timeline that fits); or
//! - an intact record header at the suspect's end whose link, all 64 bits of it, points to the suspect; or
//! - for a record on the segment's last page, which has no later one: that its own link was right, so that
//!   it is a record of this segment, and all its bytes were there, but its checksum is wrong.
//!
//! A page header needs no further proof when it is neither this segment's, nor zeros, nor that of an older
//! page (which keeps its offset within the segment): nothing else stands there in a healthy file. The same
//! holds for a page that belongs here but goes on with another number of bytes than the record before it
//! lacks.
//!
//! Without proof the segment [ends early](Ends::Early), and [`EarlyEnd::NoRecord`] says that it does so in
//! bytes that are no record. Two things cannot be seen from one segment: damage in the rest of a record that
//! began in the segment before, and damage in a record that goes on in the next one, because the checksum
//! covers the whole record. Whoever has two scans can tell ([`Unfinished::is_intact_with`](crate::wal::Unfinished::is_intact_with)).
//!
//! A record that is not continued because the server crashed, and overwrote the rest afterwards, is marked
//! as such by the next page's header, and is no damage. Behind damage, reading goes on: at the broken
//! record's end if the next one links to it, otherwise on the next page that belongs here.

mod checksum;
mod content;
mod records;
mod sought;
mod summary;
#[cfg(test)]
mod tests;

pub use sought::{Found, Sought};
pub use summary::{
    Checkpoint, Damage, DamageKind, EarlyEnd, Ends, HeaderProblem, ParameterChange, RestorePoint,
    SegmentScan, TimelineChange, Transaction, precedes,
};

use super::page::{LONG, LongHeader, PageHeader, SHORT};
use crate::types::{Lsn, SegmentName, SegmentSize, TimelineId};
use crate::wal::activity::Activity;
use records::Records;

/// Reads one segment, fed from its first byte in chunks of any size.
#[derive(Debug)]
pub struct SegmentScanner {
    name: SegmentName,
    size: SegmentSize,
    start: Lsn,
    /// Bytes fed so far.
    fed: u64,
    /// A page header that is split between chunks.
    pending: [u8; LONG],
    pending_len: usize,
    page: Page,
    page_size: u64,
    /// The highest timeline of a page so far: it never falls within a segment.
    timeline: TimelineId,
    header: Option<LongHeader>,
    problem: Option<HeaderProblem>,
    records: Records,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Page {
    /// At the segment's first byte, or within its header.
    First,
    /// At the first byte of a later page, or within its header.
    Next,
    /// Within a page's body: so many bytes of it are still to come.
    Body(u64),
    /// Something is wrong with the first page, or its format is too new: bytes are only counted.
    Unread,
}

/// What a page header says of its page.
#[derive(Debug, Clone, Copy)]
enum Verdict {
    /// It belongs here.
    Current(PageHeader),
    /// Zeros.
    Zeros,
    /// A page that the file held under an earlier name.
    Old,
    /// None of these.
    Broken,
}

impl SegmentScanner {
    /// Starts a scan of the segment (or of the partial segment) called `name` in a cluster with segments of
    /// `size`.
    pub fn new(name: SegmentName, size: SegmentSize) -> Self {
        let start = name.start(size);
        Self {
            name,
            size,
            start: start.unwrap_or(Lsn::INVALID),
            fed: 0,
            pending: [0; LONG],
            pending_len: 0,
            page: if start.is_some() { Page::First } else { Page::Unread },
            page_size: 8192,
            timeline: TimelineId(0),
            header: None,
            problem: start.is_none().then_some(HeaderProblem::Name(size)),
            records: Records::new(start.unwrap_or(Lsn::INVALID), size),
        }
    }

    /// As [`SegmentScanner::new`], and looks for a record that starts at or after `from`.
    pub fn seeking(name: SegmentName, size: SegmentSize, sought: Sought, from: Lsn) -> Self {
        let mut scanner = Self::new(name, size);
        scanner.records.content().seek(sought, from);
        scanner
    }

    /// As [`SegmentScanner::new`], and keeps what every transaction does: ask for it with
    /// [`SegmentScanner::drain`] while the bytes go in, so that memory stays small.
    pub fn detailed(name: SegmentName, size: SegmentSize) -> Self {
        let mut scanner = Self::new(name, size);
        scanner.records.content().keep_everything();
        scanner
    }

    /// The transactions that ended since this was last asked for, in the order of their ends, aborted ones
    /// included; all of them with [`SegmentScanner::detailed`] only. What was still going on at the end is in
    /// [`SegmentScan::activities`].
    pub fn drain(&mut self) -> Vec<Activity> {
        self.records.content().drain()
    }

    /// The first record that was sought, as soon as it has been read.
    pub fn found(&self) -> Option<&Found> {
        self.records.found()
    }

    /// What was found since this was asked last: every commit and abort, where [`Sought::Transaction`] was
    /// looked for. Asked behind each chunk, it keeps memory constant.
    pub fn take_found(&mut self) -> Vec<Found> {
        self.records.content().take_found()
    }

    /// Behind a whole segment: the first pages of the next one, in which a record that began here may end.
    /// Only [`SegmentScanner::found`] learns from it.
    pub fn finish_split(&mut self, next: &[u8]) {
        let page_size = usize::try_from(self.page_size).unwrap_or(usize::MAX);
        if self.fed != self.size.bytes() || self.page != Page::Next {
            return;
        }
        let mut at = self.start.plus(self.size.bytes());
        let mut length = LONG;
        for page in next.chunks(page_size) {
            let Some(header) = PageHeader::read(page) else { return };
            if header.address != at || !header.is_continuation() || header.is_long() != (length == LONG) {
                return;
            }
            let body = page.get(length..).unwrap_or_default();
            let rest = usize::try_from(header.remaining).map_or(body.len(), |rest| rest.min(body.len()));
            self.records.body(body.get(..rest).unwrap_or_default(), at.plus(length as u64));
            if rest as u64 == u64::from(header.remaining) {
                return;
            }
            at = at.plus(self.page_size);
            length = SHORT;
        }
    }

    /// Takes the next bytes of the segment.
    pub fn push(&mut self, chunk: &[u8]) {
        let left = usize::try_from(self.size.bytes().saturating_sub(self.fed)).unwrap_or(usize::MAX);
        let inside = chunk.get(..left).unwrap_or(chunk);
        let at = Lsn(self.start.0.saturating_add(self.fed));
        self.fed = self.fed.saturating_add(chunk.len() as u64);
        self.pages(inside, at);
    }

    /// All bytes were fed: says what was found.
    pub fn finish(mut self) -> SegmentScan {
        if self.problem.is_none() {
            self.problem = match self.page {
                Page::First => Some(HeaderProblem::TooShort { bytes: self.fed }),
                _ if self.fed != self.size.bytes() => {
                    Some(HeaderProblem::Length { bytes: self.fed, expected: self.size.bytes() })
                }
                _ => None,
            };
        }
        let read = self.problem.is_none() && self.page != Page::Unread;
        let mut scan = self.records.finish(self.name, read);
        scan.bytes = self.fed;
        scan.header = self.header;
        scan.problem = self.problem;
        scan
    }

    fn pages(&mut self, mut bytes: &[u8], mut at: Lsn) {
        while !bytes.is_empty() {
            let taken = match self.page {
                Page::Unread => return,
                Page::Body(left) => {
                    let here = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
                    let (body, _) = bytes.split_at(here);
                    self.records.body(body, at);
                    let left = left - here as u64;
                    self.page = if left == 0 { Page::Next } else { Page::Body(left) };
                    here
                }
                Page::First | Page::Next => self.page_header(bytes, at),
            };
            bytes = bytes.get(taken..).unwrap_or_default();
            at = at.plus(taken as u64);
        }
    }

    /// Reads a page header, or as much of it as there is; says how many bytes it took.
    fn page_header(&mut self, bytes: &[u8], at: Lsn) -> usize {
        let length = if self.page == Page::First { LONG } else { SHORT };
        if self.pending_len == 0
            && let Some(whole) = bytes.get(..length)
        {
            self.begin_page(whole, at);
            return length;
        }
        let mut copied = 0;
        let free = self.pending.get_mut(self.pending_len..length).unwrap_or_default();
        for (to, from) in free.iter_mut().zip(bytes) {
            *to = *from;
            copied += 1;
        }
        self.pending_len += copied;
        if self.pending_len == length {
            let whole = self.pending;
            self.pending_len = 0;
            let page_start = Lsn(at.plus(copied as u64).0 - length as u64);
            self.begin_page(whole.get(..length).unwrap_or_default(), page_start);
        }
        copied
    }

    fn begin_page(&mut self, header: &[u8], at: Lsn) {
        if self.page == Page::First {
            self.begin_segment(header);
        } else {
            let verdict = self.judge(header, at);
            if let Verdict::Current(page) = verdict {
                self.timeline = page.timeline;
            }
            self.page = Page::Body(self.page_size - SHORT as u64);
            let last = at.0 - self.start.0 + self.page_size == self.size.bytes();
            self.records.page(verdict, at, last);
        }
    }

    fn begin_segment(&mut self, bytes: &[u8]) {
        self.page = Page::Unread;
        let (Some(page), Some(header)) = (PageHeader::read(bytes), LongHeader::read(bytes)) else { return };
        let refused = if bytes.iter().all(|byte| *byte == 0) {
            Some(HeaderProblem::ZeroFilled)
        } else if page.magic.is_older() {
            Some(HeaderProblem::TooOld(page.magic))
        } else if page.magic.major().is_none() && !page.magic.is_newer() {
            Some(HeaderProblem::NotWal(page.magic))
        } else {
            self.header = Some(header);
            self.check_long_header(&page, &header)
        };
        self.problem = refused;
        if refused.is_none() && !page.magic.is_newer() {
            self.timeline = page.timeline;
            self.page_size = u64::from(header.block_size);
            self.page = Page::Body(self.page_size - LONG as u64);
            self.records.first_page(&page);
        }
    }

    fn check_long_header(&self, page: &PageHeader, header: &LongHeader) -> Option<HeaderProblem> {
        // A newer format may have more flags, and what they mean is not known.
        let flags_wrong = !page.is_long() || (!page.magic.is_newer() && !page.flags_are_sane());
        let blocks = header.block_size.is_power_of_two() && (1 << 10..=1 << 16).contains(&header.block_size);
        if flags_wrong {
            Some(HeaderProblem::Flags(page.info))
        } else if u64::from(header.segment_size) != self.size.bytes() {
            Some(HeaderProblem::SegmentSize { found: header.segment_size, expected: self.size.bytes() })
        } else if !blocks {
            Some(HeaderProblem::BlockSize(header.block_size))
        } else if header.address != self.start {
            Some(HeaderProblem::Address { found: header.address, expected: self.start })
        } else if header.timeline.0 == 0 || header.timeline > self.name.timeline {
            Some(HeaderProblem::Timeline { found: header.timeline, name: self.name.timeline })
        } else {
            None
        }
    }

    fn judge(&self, bytes: &[u8], at: Lsn) -> Verdict {
        let (Some(page), Some(first)) = (PageHeader::read(bytes), &self.header) else {
            return Verdict::Broken;
        };
        if page.magic == first.magic
            && page.address == at
            && page.flags_are_sane()
            && !page.is_long()
            && (self.timeline..=self.name.timeline).contains(&page.timeline)
        {
            return Verdict::Current(page);
        }
        if bytes.iter().all(|byte| *byte == 0) {
            return Verdict::Zeros;
        }
        // A file is recycled whole, so an old page stands at the offset that it always had.
        let same_offset = page.address.0 % self.size.bytes() == at.0 % self.size.bytes();
        if page.magic.major().is_some() && page.address < at && same_offset && page.timeline.0 > 0 {
            return Verdict::Old;
        }
        Verdict::Broken
    }
}
