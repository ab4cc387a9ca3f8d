//! Following the records through a segment's pages.

use super::Verdict;
use super::checksum::Small;
use super::content::Content;
use super::sought::Found;
use super::summary::{Damage, DamageKind, EarlyEnd, Ends, SegmentScan};
use crate::types::{Lsn, SegmentName, SegmentSize};
use crate::wal::activity::{Rest, Unfinished};
use crate::wal::page::{Magic, PageHeader};
use crate::wal::record::{HEADER, HEADER_BEFORE_CRC, RecordHeader};

/// Where the reader stands.
#[derive(Debug, Clone, Copy)]
enum State {
    /// At the place of a record's header.
    Start,
    /// Within a header that is split: `have` bytes of it are in `Records::split`.
    Header { have: usize },
    /// Within a record's body.
    Body { left: u64 },
    /// Within the rest of a record whose beginning was not seen, or is broken.
    Rest { left: u64 },
    /// Within the zeros that fill up to the next multiple of eight.
    Padding { left: usize },
    /// Behind something broken: nothing can be read before the next page.
    Lost,
    /// Behind a switch record.
    Unused { zeros: bool },
}

/// The record that is being read.
#[derive(Debug, Clone, Copy)]
struct Current {
    start: Lsn,
    header: RecordHeader,
    /// The header's bytes that the checksum takes last.
    raw: [u8; HEADER_BEFORE_CRC],
    crc: u32,
    /// Its link is wrong: it is followed only because the next one may link to it.
    tentative: bool,
}

/// Where the record before the next one starts.
#[derive(Debug, Clone, Copy)]
enum Previous {
    At(Lsn),
    /// Not seen, but before the page where reading began or was taken up again.
    Before(Lsn),
}

/// Something that is not as it should be, and as yet no proof whether the segment went on behind it.
#[derive(Debug, Clone, Copy)]
struct Suspect {
    damage: Damage,
    why: EarlyEnd,
    /// It ended on the last page, was all there and linked as this segment's own: only its checksum is wrong.
    own: bool,
}

#[derive(Debug)]
pub(super) struct Records {
    state: State,
    split: [u8; HEADER],
    current: Option<Current>,
    small: Small,
    kept: Vec<u8>,
    prev: Previous,
    suspect: Option<Suspect>,
    magic: Magic,
    on_last_page: bool,
    /// Behind the segment.
    end: Lsn,
    scan: SegmentScan,
    content: Content,
    /// The rest of the record that goes on from the segment before; `None` behind it.
    rest: Option<Rest>,
}

impl Records {
    pub(super) fn new(start: Lsn, size: SegmentSize) -> Self {
        Self {
            state: State::Lost,
            split: [0; HEADER],
            current: None,
            small: Small::new(),
            kept: Vec::new(),
            prev: Previous::Before(start),
            suspect: None,
            magic: Magic(0),
            on_last_page: false,
            end: start.plus(size.bytes()),
            scan: SegmentScan::empty(start, size),
            content: Content::default(),
            rest: None,
        }
    }

    /// What the records say, apart from how they are linked.
    pub(super) fn content(&mut self) -> &mut Content {
        &mut self.content
    }

    pub(super) fn found(&self) -> Option<&Found> {
        self.content.found()
    }

    /// The segment begins with a page that belongs here.
    pub(super) fn first_page(&mut self, page: &PageHeader) {
        self.magic = page.magic;
        self.resume(page);
        self.rest = page.is_continuation().then(|| Rest::of(u64::from(page.remaining)));
    }

    /// A later page begins.
    pub(super) fn page(&mut self, verdict: Verdict, at: Lsn, last: bool) {
        if let State::Unused { zeros } = self.state {
            self.state = State::Unused { zeros: zeros && matches!(verdict, Verdict::Zeros) };
            return;
        }
        self.on_last_page = last;
        match verdict {
            Verdict::Current(page) => self.current_page(&page, at),
            Verdict::Zeros => self.missing_page(EarlyEnd::Zeros, at),
            Verdict::Old => self.missing_page(EarlyEnd::OldPage, at),
            Verdict::Broken => {
                // Behind an early end nothing is expected, and so nothing can be broken.
                if self.suspect.is_none() && !matches!(self.state, State::Lost) {
                    self.damaged(Damage { lsn: self.stopped_at(at), kind: DamageKind::PageHeader });
                }
                self.lose();
            }
        }
    }

    /// The next bytes of a page's body.
    pub(super) fn body(&mut self, mut bytes: &[u8], mut at: Lsn) {
        while !bytes.is_empty() {
            let taken = match self.state {
                State::Lost => return,
                State::Unused { zeros } => {
                    self.state = State::Unused { zeros: zeros && all_zeros(bytes) };
                    return;
                }
                State::Padding { left } => {
                    let here = left.min(bytes.len());
                    self.state =
                        if here == left { State::Start } else { State::Padding { left: left - here } };
                    here
                }
                State::Rest { left } => {
                    let here = first_of(left, bytes.len());
                    let left = left - here as u64;
                    self.state = State::Rest { left };
                    if let (Some(rest), Some(body)) = (&mut self.rest, bytes.get(..here)) {
                        rest.append(body);
                    }
                    if left == 0 {
                        self.scan.rest = self.rest.take();
                        self.end_record(at.plus(here as u64));
                        self.move_valid_end(at.plus(here as u64));
                    }
                    here
                }
                State::Body { left } => {
                    let here = first_of(left, bytes.len());
                    let (body, _) = bytes.split_at(here);
                    self.more_body(body);
                    let left = left - here as u64;
                    self.state = State::Body { left };
                    if left == 0 {
                        self.split_record_ends(at.plus(here as u64));
                    }
                    here
                }
                State::Start => self.start(bytes, at),
                State::Header { have } => self.more_header(bytes, at, have),
            };
            bytes = bytes.get(taken..).unwrap_or_default();
            at = at.plus(taken as u64);
        }
    }

    /// Gives back what was found; `read` says that the segment was the right one and was read to its end.
    pub(super) fn finish(mut self, name: SegmentName, read: bool) -> SegmentScan {
        let suspect = self.suspect.take();
        if let Some(suspect) = suspect.filter(|suspect| suspect.own) {
            self.damaged(suspect.damage);
        }
        self.scan.name = name;
        if read {
            self.scan.unfinished = self.unfinished();
            self.content.finish(&mut self.scan);
        }
        self.scan.ends = match (self.state, suspect) {
            _ if !read => Ends::Unknown,
            (State::Unused { zeros }, _) => Ends::Switch { zero_tail: zeros },
            (_, Some(Suspect { damage, why, .. })) => Ends::Early { at: damage.lsn, why },
            (State::Lost, None) => Ends::Early {
                at: self.scan.damage.map_or(Lsn::INVALID, |damage| damage.lsn),
                why: EarlyEnd::NoRecord,
            },
            (State::Start | State::Padding { .. }, None) => Ends::Full,
            (State::Rest { .. }, None) => Ends::ContinuesInNext { record: None },
            (State::Header { .. } | State::Body { .. }, None) => {
                Ends::ContinuesInNext { record: self.current.map(|record| record.start) }
            }
        };
        self.scan
    }

    /// What there is of a record that goes on in the next segment.
    fn unfinished(&self) -> Option<Unfinished> {
        match (self.state, self.current) {
            (State::Header { have }, current) => {
                let start = current
                    .map_or_else(|| Lsn(self.end.0.saturating_sub(have as u64)), |record| record.start);
                Some(Unfinished::header(start, self.split.get(..have).unwrap_or_default()))
            }
            (State::Body { left }, Some(record)) => {
                let Current { start, header, raw, crc, .. } = &record;
                Some(Unfinished::body(*start, header, raw, &self.kept, left, *crc))
            }
            _ => None,
        }
    }

    /// Takes up reading on a page that belongs here.
    fn resume(&mut self, page: &PageHeader) {
        self.current = None;
        self.state = if page.is_continuation() {
            State::Rest { left: u64::from(page.remaining) }
        } else {
            State::Start
        };
    }

    fn current_page(&mut self, page: &PageHeader, at: Lsn) {
        if let Some(suspect) = self.suspect.take() {
            self.damaged(suspect.damage);
        }
        let missing = match self.state {
            State::Lost | State::Unused { .. } => {
                self.prev = Previous::Before(at);
                return self.resume(page);
            }
            State::Start | State::Padding { .. } => 0,
            State::Rest { left } | State::Body { left } => left,
            State::Header { have } => {
                let total = self.split.first_chunk().copied().map_or(0, u32::from_le_bytes);
                u64::from(total).saturating_sub(have as u64)
            }
        };
        if missing > 0 && !page.is_continuation() && page.overwrites_continuation() {
            self.scan.overwritten += 1;
            return self.resume(page);
        }
        let found = if page.is_continuation() { page.remaining } else { 0 };
        if missing != u64::from(found) {
            let lsn = self.stopped_at(at);
            self.damaged(Damage { lsn, kind: DamageKind::Continuation { expected: missing, found } });
            self.prev = Previous::Before(at);
            self.resume(page);
        }
    }

    fn missing_page(&mut self, why: EarlyEnd, at: Lsn) {
        if !matches!(self.state, State::Lost) {
            let damage = Damage { lsn: self.stopped_at(at), kind: DamageKind::MissingPage };
            self.suspect(Suspect { damage, why, own: false });
        }
        self.lose();
    }

    /// Where recovery would stop if it cannot go on into the page at `at`.
    fn stopped_at(&self, at: Lsn) -> Lsn {
        self.current.map_or(at, |record| record.start)
    }

    fn lose(&mut self) {
        self.state = State::Lost;
        self.current = None;
    }

    /// A record should start here.
    fn start(&mut self, bytes: &[u8], at: Lsn) -> usize {
        let Some(raw) = bytes.first_chunk::<HEADER>() else {
            self.current = None;
            self.state = State::Header { have: 0 };
            return self.more_header(bytes, at, 0);
        };
        let header = RecordHeader::read(raw);
        let Some(tentative) = self.begin(&header, at) else { return 0 };
        let total = usize::try_from(header.total).unwrap_or(usize::MAX);
        let Some(body) = bytes.get(HEADER..total) else {
            self.current = Some(Current { tentative, ..Current::new(raw, at) });
            self.state = State::Body { left: u64::from(header.total) - HEADER as u64 };
            return HEADER;
        };
        let before_crc =
            raw.first_chunk::<HEADER_BEFORE_CRC>().map_or(&[][..], <[u8; HEADER_BEFORE_CRC]>::as_slice);
        let crc = self.small.checksum(body, before_crc);
        self.record(at, &header, tentative, crc, body, at.plus(total as u64));
        // One step for a record and what fills up to the next: most are followed by a few zeros.
        match self.state {
            State::Padding { left } if total + left <= bytes.len() => {
                self.state = State::Start;
                total + left
            }
            _ => total,
        }
    }

    /// More of a header that is split. Its length is known as soon as four bytes are there.
    fn more_header(&mut self, bytes: &[u8], at: Lsn, have: usize) -> usize {
        let mut copied = 0;
        for (to, from) in self.split.iter_mut().skip(have).zip(bytes) {
            *to = *from;
            copied += 1;
        }
        let have = have + copied;
        let start = match self.current {
            // The header's first part was on the page before, so its start is not `at - have`.
            Some(record) => record.start,
            None => Lsn(at.plus(copied as u64).0.saturating_sub(have as u64)),
        };
        self.state = State::Header { have };
        let raw = self.split;
        if have == HEADER {
            let header = RecordHeader::read(&raw);
            if let Some(tentative) = self.begin(&header, start) {
                self.current = Some(Current { tentative, ..Current::new(&raw, start) });
                let left = u64::from(header.total) - HEADER as u64;
                self.state = State::Body { left };
                if left == 0 {
                    self.split_record_ends(at.plus(copied as u64));
                }
            }
        } else if have >= 4 {
            // Remembers the start; a page may end before the header does.
            self.current = self.sane(&RecordHeader::read(&raw), start).then(|| Current::new(&raw, start));
        }
        copied
    }

    /// Checks a header's length and link: `None` where no record can be, else whether it is tentative.
    fn begin(&mut self, header: &RecordHeader, at: Lsn) -> Option<bool> {
        if !self.sane(header, at) {
            return None;
        }
        let linked = match self.prev {
            Previous::At(prev) => header.prev == prev,
            Previous::Before(page) => header.prev < page,
        };
        if let Some(suspect) = self.suspect.take() {
            if !linked {
                self.suspect = Some(suspect);
                self.lose();
                return None;
            }
            self.damaged(suspect.damage);
        }
        if !linked {
            let expected = match self.prev {
                Previous::At(prev) => Some(prev),
                Previous::Before(_) => None,
            };
            let kind = DamageKind::Link { expected, found: header.prev };
            self.suspect(Suspect { damage: Damage { lsn: at, kind }, why: EarlyEnd::NoRecord, own: false });
        }
        self.scan.first_record.get_or_insert(at);
        self.kept.clear();
        Some(!linked)
    }

    /// Whether a record can have this length; what has not is the end, or damage.
    fn sane(&mut self, header: &RecordHeader, at: Lsn) -> bool {
        if header.total as usize >= HEADER {
            return true;
        }
        let (kind, why) = match header.total {
            0 => (DamageKind::ZeroRecord, EarlyEnd::Zeros),
            length => (DamageKind::Length(length), EarlyEnd::NoRecord),
        };
        self.suspect(Suspect { damage: Damage { lsn: at, kind }, why, own: false });
        self.lose();
        false
    }

    fn more_body(&mut self, body: &[u8]) {
        let Some(record) = &mut self.current else { return };
        record.crc = crc32c::crc32c_append(record.crc, body);
        let room = record.header.kept().saturating_sub(self.kept.len());
        self.kept.extend_from_slice(body.get(..room).unwrap_or(body));
    }

    fn split_record_ends(&mut self, end: Lsn) {
        let Some(record) = self.current.take() else { return };
        let kept = std::mem::take(&mut self.kept);
        let crc = crc32c::crc32c_append(record.crc, &record.raw);
        self.record(record.start, &record.header, record.tentative, crc, &kept, end);
        self.kept = kept;
    }

    /// A record is complete: `crc` covers all of it, `body` may be cut off.
    fn record(
        &mut self,
        start: Lsn,
        header: &RecordHeader,
        tentative: bool,
        crc: u32,
        body: &[u8],
        end: Lsn,
    ) {
        self.prev = Previous::At(start);
        self.end_record(end);
        if tentative {
            return;
        }
        if crc != header.crc {
            let damage = Damage { lsn: start, kind: DamageKind::Checksum };
            return self.suspect(Suspect { damage, why: EarlyEnd::NoRecord, own: self.on_last_page });
        }
        self.scan.records += 1;
        self.scan.last_record = Some(start);
        self.move_valid_end(end);
        if header.is_switch() {
            self.state = State::Unused { zeros: true };
        }
        let body = body.get(..header.kept()).unwrap_or(body);
        self.content.record(start, header, body, self.magic, &mut self.scan);
    }

    fn end_record(&mut self, end: Lsn) {
        let left = end.0.wrapping_neg() & 7;
        self.state = match usize::try_from(left) {
            Ok(left) if left > 0 => State::Padding { left },
            _ => State::Start,
        };
    }

    fn move_valid_end(&mut self, end: Lsn) {
        if self.scan.damage.is_none() {
            self.scan.end_of_valid = Lsn(end.0.saturating_add(7) & !7);
        }
    }

    /// The first suspect counts: what comes behind it may be its consequence.
    fn suspect(&mut self, suspect: Suspect) {
        self.suspect.get_or_insert(suspect);
    }

    fn damaged(&mut self, damage: Damage) {
        self.scan.damage.get_or_insert(damage);
    }
}

impl Current {
    fn new(raw: &[u8; HEADER], start: Lsn) -> Self {
        let header = RecordHeader::read(raw);
        let raw = raw.first_chunk().copied().unwrap_or([0; HEADER_BEFORE_CRC]);
        Self { start, header, raw, crc: 0, tentative: false }
    }
}

fn first_of(left: u64, available: usize) -> usize {
    usize::try_from(left).map_or(available, |left| left.min(available))
}

/// Without an early way out within 64 bytes, so that the compiler takes them at once.
fn all_zeros(bytes: &[u8]) -> bool {
    bytes.chunks(64).all(|chunk| chunk.iter().fold(0, |seen, byte| seen | byte) == 0)
}
