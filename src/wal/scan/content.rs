//! What intact records say, one after the other: transactions, points, settings, and what is sought.

use super::sought::{Found, Sought};
use super::summary::SegmentScan;
use crate::types::Lsn;
use crate::wal::activity::{Activity, Collector, Limits};
use crate::wal::block::bare_main_data;
use crate::wal::ending::Ending;
use crate::wal::page::Magic;
use crate::wal::record::{Event, HEADER, RecordHeader, kind};

#[derive(Debug)]
pub(super) struct Content {
    kinds: [u64; 256],
    /// `None` where only a record is sought.
    activities: Option<Collector>,
    sought: Option<(Sought, Lsn)>,
    found: Vec<Found>,
}

impl Default for Content {
    fn default() -> Self {
        Self {
            kinds: [0; 256],
            activities: Some(Collector::new(Limits::SUMMARY)),
            sought: None,
            found: Vec::new(),
        }
    }
}

impl Content {
    pub(super) fn seek(&mut self, sought: Sought, from: Lsn) {
        self.sought = Some((sought, from));
        self.activities = None;
    }

    /// Keeps what every transaction does, not only what is worth a place in a summary.
    pub(super) fn keep_everything(&mut self) {
        self.activities = Some(Collector::new(Limits::EVERYTHING));
    }

    /// The transactions that ended since this was last asked for.
    pub(super) fn drain(&mut self) -> Vec<Activity> {
        self.activities.as_mut().map(Collector::drain).unwrap_or_default()
    }

    pub(super) fn found(&self) -> Option<&Found> {
        self.found.first()
    }

    pub(super) fn take_found(&mut self) -> Vec<Found> {
        std::mem::take(&mut self.found)
    }

    /// A complete and intact record; its body may be cut off behind what [`RecordHeader::kept`] asks for.
    pub(super) fn record(
        &mut self,
        lsn: Lsn,
        header: &RecordHeader,
        body: &[u8],
        magic: Magic,
        scan: &mut SegmentScan,
    ) {
        if let Some(count) = self.kinds.get_mut(usize::from(header.rmid)) {
            *count += 1;
        }
        match header.rmid {
            kind::TRANSACTION => self.transaction(lsn, header, body, magic, scan),
            kind::XLOG | kind::STANDBY => {
                if let Some(event) = Event::read(header, body, magic) {
                    self.event(event, lsn, scan);
                }
            }
            _ => {}
        }
        if let Some(activities) = &mut self.activities {
            activities.record(lsn, header, body, magic);
        }
    }

    fn transaction(
        &mut self,
        lsn: Lsn,
        header: &RecordHeader,
        body: &[u8],
        magic: Magic,
        scan: &mut SegmentScan,
    ) {
        let data = bare_main_data(body);
        let Some(ending) = data.and_then(|data| Ending::read(header, data, magic)) else { return };
        let (xid, time) = (ending.xid, ending.time);
        let event = if ending.commit { Event::Commit { xid, time } } else { Event::Abort { xid, time } };
        self.event(event, lsn, scan);
        if let Some(activities) = &mut self.activities {
            if HEADER + body.len() < header.total as usize {
                activities.too_long();
            }
            activities.end(ending, lsn, header.prev);
        }
    }

    fn event(&mut self, event: Event, lsn: Lsn, scan: &mut SegmentScan) {
        if let Some((sought, from)) = &self.sought
            && lsn >= *from
            && (self.found.is_empty() || *sought == Sought::Transaction)
        {
            self.found.extend(sought.found_in(&event, lsn));
        }
        scan.note(event, lsn);
    }

    /// Puts what was counted and collected into the scan.
    pub(super) fn finish(&mut self, scan: &mut SegmentScan) {
        let counted = self.kinds.iter().enumerate().filter(|(_, count)| **count > 0);
        scan.kinds = counted.map(|(number, count)| (kind::name(number), *count)).collect();
        if let Some(activities) = self.activities.take() {
            (scan.activities, scan.activities_left_out) = activities.finish();
        }
    }
}
