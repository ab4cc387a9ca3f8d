//! Page headers: the short one of every page, the long one of a segment's first.

use super::le::{u16_at, u32_at, u64_at};
use crate::types::{Lsn, SystemId, TimelineId};

/// The number at the start of every WAL page. It names the format, and so the server's major version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Magic(pub u16);

impl Magic {
    /// The newest that this program was tested with (19rc1).
    const NEWEST: u16 = 0xD122;

    /// The major version that writes such pages. Numbers between two releases were used during the later
    /// one's development.
    pub fn major(self) -> Option<u16> {
        Some(match self.0 {
            0xD101 => 12,
            0xD102..=0xD106 => 13,
            0xD107..=0xD10D => 14,
            0xD10E..=0xD110 => 15,
            0xD111..=0xD113 => 16,
            0xD114..=0xD116 => 17,
            0xD117..=0xD118 => 18,
            0xD119..=Self::NEWEST => 19,
            _ => return None,
        })
    }

    /// A magic of a server newer than we know. Its pages are not read any further than their long header:
    /// the format behind it may have changed, and a guess would report damage where there is none.
    pub fn is_newer(self) -> bool {
        (Self::NEWEST + 1..=0xDFFF).contains(&self.0)
    }

    /// A magic of a server that is too old (before 12).
    pub(super) fn is_older(self) -> bool {
        (0xD050..0xD101).contains(&self.0)
    }

    /// Version 19 dropped `XLP_BKP_REMOVABLE` and moved the flag of an overwritten continuation to its bit.
    fn overwrite_flag(self) -> u16 {
        if self.0 >= 0xD119 { 0x0004 } else { 0x0008 }
    }

    fn known_flags(self) -> u16 {
        if self.0 >= 0xD119 { 0x0007 } else { 0x000F }
    }
}

/// Length of the header of every page but a segment's first.
pub(super) const SHORT: usize = 24;
/// Length of the header of a segment's first page.
pub(super) const LONG: usize = 40;

const FIRST_IS_CONTRECORD: u16 = 0x0001;
const LONG_HEADER: u16 = 0x0002;

/// What every page starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PageHeader {
    pub(super) magic: Magic,
    pub(super) info: u16,
    pub(super) timeline: TimelineId,
    pub(super) address: Lsn,
    /// Bytes still to come of the record that goes on from the page before.
    pub(super) remaining: u32,
}

impl PageHeader {
    /// Reads the fields, whatever their values; `None` only where `bytes` is too short.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            magic: Magic(u16_at(bytes, 0)?),
            info: u16_at(bytes, 2)?,
            timeline: TimelineId(u32_at(bytes, 4)?),
            address: Lsn(u64_at(bytes, 8)?),
            remaining: u32_at(bytes, 16)?,
        })
    }

    /// The page begins with the rest of a record.
    pub(super) fn is_continuation(&self) -> bool {
        self.info & FIRST_IS_CONTRECORD != 0
    }

    /// The record that ran into this page was never finished (the server crashed there); what follows
    /// stands in its place.
    pub(super) fn overwrites_continuation(&self) -> bool {
        self.info & self.magic.overwrite_flag() != 0
    }

    pub(super) fn is_long(&self) -> bool {
        self.info & LONG_HEADER != 0
    }

    /// The flags are such as the server writes: none unknown, and a continuation has a length.
    pub(super) fn flags_are_sane(&self) -> bool {
        self.info & !self.magic.known_flags() == 0 && (!self.is_continuation() || self.remaining > 0)
    }
}

/// What a segment's first page says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LongHeader {
    /// The format, and by it the major version.
    pub magic: Magic,
    /// The timeline on the first page: the name's own, or an older one where the segment begins before a
    /// switch.
    pub timeline: TimelineId,
    /// The position of the segment's first byte.
    pub address: Lsn,
    /// The cluster.
    pub system_id: SystemId,
    /// `wal_segment_size` in bytes, as the page says it.
    pub segment_size: u32,
    /// `XLOG_BLCKSZ` in bytes: 8192 unless the server was built otherwise.
    pub block_size: u32,
}

impl LongHeader {
    /// Reads the fields, whatever their values; `None` only where `bytes` is too short.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let page = PageHeader::read(bytes)?;
        Some(Self {
            magic: page.magic,
            timeline: page.timeline,
            address: page.address,
            system_id: SystemId(u64_at(bytes, 24)?),
            segment_size: u32_at(bytes, 32)?,
            block_size: u32_at(bytes, 36)?,
        })
    }
}
