//! For all names and all numbers: what is written is read back, order is kept, and no text makes a parser panic.

use proptest::prelude::*;

use super::{BackupId, BackupType, Lsn, SegmentName, SegmentSize, SystemId, TimelineId, WalFileName};

fn size() -> impl Strategy<Value = SegmentSize> {
    (20_u32..=30).prop_map(|bits| SegmentSize::new(1 << bits).unwrap())
}

fn segment() -> impl Strategy<Value = SegmentName> {
    (1_u32.., any::<u32>(), any::<u32>()).prop_map(|(timeline, log, seg)| SegmentName {
        timeline: TimelineId(timeline),
        log,
        seg,
    })
}

fn file() -> impl Strategy<Value = WalFileName> {
    prop_oneof![
        segment().prop_map(WalFileName::Segment),
        segment().prop_map(WalFileName::Partial),
        (segment(), any::<u32>()).prop_map(|(name, offset)| WalFileName::Backup(name, offset)),
        (1_u32..).prop_map(|timeline| WalFileName::History(TimelineId(timeline))),
    ]
}

/// Texts that look like names, and others: digits of all alphabets, separators, cut off, too long.
fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        "\\PC{0,60}",
        "[0-9A-Fa-f./x-]{0,40}",
        "[0-9A-F]{23,25}(\\.(partial|history|backup|[0-9A-F]{7,9}))?(\\.backup)?",
        "[0-9]{7,9}[TÜ]?[0-9]{5,7}Z?-(full|incr|)",
        (file(), 0_usize..45).prop_map(|(name, at)| {
            let mut text = name.to_string();
            text.truncate(at);
            text
        }),
    ]
}

proptest! {
    #[test]
    fn no_text_makes_a_parser_panic_and_what_is_read_is_written_back(text in texts()) {
        if let Ok(name) = text.parse::<WalFileName>() {
            prop_assert_eq!(name.to_string(), &text[..]);
        }
        if let Ok(name) = text.parse::<SegmentName>() {
            prop_assert_eq!(name.to_string(), &text[..]);
        }
        if let Ok(id) = text.parse::<BackupId>() {
            prop_assert_eq!(id.to_string(), &text[..]);
        }
        if let Ok(lsn) = text.parse::<Lsn>() {
            prop_assert_eq!(lsn.to_string().parse::<Lsn>().unwrap(), lsn);
        }
        if let Ok(lsn) = Lsn::from_hex16(&text) {
            prop_assert_eq!(lsn.to_hex16(), &text[..]);
        }
        drop(text.parse::<SystemId>());
    }

    #[test]
    fn every_name_is_read_back(name in file()) {
        prop_assert_eq!(name.to_string().parse::<WalFileName>().unwrap(), name);
    }

    #[test]
    fn an_lsn_is_read_back_and_sorts_as_its_sixteen_digits_do(a in any::<u64>(), b in any::<u64>()) {
        let (a, b) = (Lsn(a), Lsn(b));
        prop_assert_eq!(a.to_string().parse::<Lsn>().unwrap(), a);
        prop_assert_eq!(Lsn::from_hex16(&a.to_hex16()).unwrap(), a);
        prop_assert_eq!(a.cmp(&b), a.to_hex16().cmp(&b.to_hex16()));
    }

    #[test]
    fn the_segment_that_holds_an_lsn_begins_at_or_before_it(lsn in any::<u64>(), size in size(), timeline in 1_u32..) {
        let name = SegmentName::holding(TimelineId(timeline), Lsn(lsn), size);
        let start = name.start(size).unwrap();
        prop_assert!(start.0 <= lsn && lsn - start.0 < size.bytes());
        prop_assert_eq!(start.0 % size.bytes(), 0);
        prop_assert_eq!(name.number(size).unwrap(), size.number_of(Lsn(lsn)));
        prop_assert_eq!(SegmentName::from_number(name.timeline, name.number(size).unwrap(), size), name);
    }

    #[test]
    fn the_next_segment_begins_where_this_one_ends_and_sorts_behind_it(name in segment(), size in size()) {
        let in_range = u64::from(name.seg) < size.per_log();
        prop_assert_eq!(name.number(size).is_some(), in_range);
        match name.next(size) {
            Some(next) => {
                prop_assert_eq!(next.start(size).unwrap().0 - name.start(size).unwrap().0, size.bytes());
                prop_assert!(next > name && next.to_string() > name.to_string());
                prop_assert_eq!(next.timeline, name.timeline);
            }
            None => {
                let last = name.log == u32::MAX && u64::from(name.seg) + 1 == size.per_log();
                prop_assert!(!in_range || last);
            }
        }
    }

    #[test]
    fn backups_sort_as_the_moments_they_began_at(a in 0_i64..4_000_000_000, b in 0_i64..4_000_000_000) {
        let id = |second| BackupId::new(jiff::Timestamp::from_second(second).unwrap(), BackupType::Full);
        prop_assert_eq!(id(a).cmp(&id(b)), a.cmp(&b));
        prop_assert_eq!(id(a).to_string().parse::<BackupId>().unwrap(), id(a));
    }
}

#[test]
fn behind_the_last_segment_of_all_there_is_none() {
    let size = SegmentSize::DEFAULT;
    let last = SegmentName::holding(TimelineId(1), Lsn(u64::MAX), size);
    assert_eq!(last.to_string(), "00000001FFFFFFFF000000FF");
    assert_eq!(last.next(size), None);
}
