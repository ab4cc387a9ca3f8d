//! Records as the server writes them, without their segment.

use super::*;
use crate::types::Lsn;
use crate::wal::ending::Ending;
use crate::wal::page::Magic;
use crate::wal::record::{HEADER, RecordHeader, kind};

const MAGIC: Magic = Magic(0xD110);
const TABLE: FileNode = FileNode { tablespace: 1663, database: 5, number: 16385 };

fn header(rmid: u8, info: u8, xid: u32, body: &[u8]) -> RecordHeader {
    let total = (HEADER + body.len()) as u32;
    RecordHeader { total, xid, prev: Lsn(0x100), info, rmid, crc: 0 }
}

/// A record with one block and main data.
fn block(file: FileNode, main: &[u8]) -> Vec<u8> {
    let mut body = vec![0, 0x20, 0, 0];
    for number in [file.tablespace, file.database, file.number, 7] {
        body.extend(number.to_le_bytes());
    }
    body.extend([255, main.len() as u8]);
    body.extend(main);
    body
}

fn feed(collector: &mut Collector, rmid: u8, info: u8, xid: u32, body: &[u8]) {
    collector.record(Lsn(0x200), &header(rmid, info, xid, body), body, MAGIC);
}

fn deletion(flags: u8) -> Vec<u8> {
    block(TABLE, &[0, 0, 0, 0, 1, 0, 0, flags])
}

fn ending(xid: u32, subtransactions: Vec<u32>) -> Ending {
    Ending {
        commit: true,
        xid,
        time: Moment::from_postgres_micros(1).unwrap(),
        database: None,
        subtransactions,
        dropped: Vec::new(),
        dropped_stats: Vec::new(),
        invalidated: Vec::new(),
    }
}

#[test]
fn rows_are_counted_by_file_and_a_move_to_another_partition_is_no_deletion() {
    let mut collector = Collector::new(Limits::SUMMARY);
    for _ in 0..20 {
        feed(&mut collector, kind::HEAP, 0x10, 9, &deletion(0));
    }
    feed(&mut collector, kind::HEAP, 0x10, 9, &deletion(1 << 4));
    feed(&mut collector, kind::HEAP, 0x10, 9, &deletion(1 << 3));
    feed(&mut collector, kind::HEAP, 0xC0, 9, &block(TABLE, &[0; 14]));
    let catalogue = FileNode { number: 1259, ..TABLE };
    feed(&mut collector, kind::HEAP, 0x10, 9, &block(catalogue, &[0; 8]));
    collector.end(ending(9, Vec::new()), Lsn(0x300), Lsn(0x280));
    let (listed, left_out) = collector.finish();
    assert_eq!(left_out, 0);
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].rows, [FileRows { file: TABLE, deleted: 20, updated: 2 }]);
    let end = listed[0].end.as_ref().unwrap();
    assert_eq!((end.lsn, end.previous), (Lsn(0x300), Lsn(0x280)));
}

#[test]
fn what_subtransactions_did_is_their_parents_and_small_ones_are_only_listed_while_they_go_on() {
    let mut collector = Collector::new(Limits::SUMMARY);
    for xid in [20, 21, 22] {
        for _ in 0..10 {
            feed(&mut collector, kind::HEAP, 0x10, xid, &deletion(0));
        }
    }
    feed(&mut collector, kind::HEAP, 0x10, 30, &deletion(0));
    feed(&mut collector, kind::HEAP, 0x10, 31, &deletion(0));
    collector.end(ending(20, vec![21]), Lsn(0x300), Lsn(0x280));
    collector.end(ending(30, Vec::new()), Lsn(0x400), Lsn(0x300));
    let (listed, _) = collector.finish();
    let told: Vec<_> = listed.iter().map(|a| (a.xid, a.end.is_some(), a.rows_changed())).collect();
    assert_eq!(told, [(20, true, 20), (22, false, 10), (31, false, 1)]);
}

#[test]
fn the_list_keeps_those_that_say_most_and_counts_the_others() {
    let mut collector = Collector::new(Limits::SUMMARY);
    for xid in 100..200 {
        for _ in 0..xid - 60 {
            feed(&mut collector, kind::HEAP, 0x10, xid, &deletion(0));
        }
        collector.end(ending(xid, Vec::new()), Lsn(u64::from(xid) << 8), Lsn(8));
    }
    collector.end(Ending { dropped: vec![TABLE; 100], ..ending(7, Vec::new()) }, Lsn(0x10), Lsn(8));
    let (listed, left_out) = collector.finish();
    assert_eq!(listed.len(), 64);
    assert_eq!(left_out, 36 + 1 + 1, "36 transactions, then one more for the drop, and its own list");
    assert_eq!(listed[0].xid, 7, "in the order of their ends");
    let dropped = listed[0].end.as_ref().unwrap();
    assert_eq!((dropped.dropped.len(), dropped.left_out), (64, 36));
    assert!(listed[1..].iter().all(|a| a.xid >= 137), "the smallest are those that are missing");
}

#[test]
fn a_record_over_a_border_is_put_together_from_what_both_segments_keep() {
    let body = deletion(0);
    let head = header(kind::HEAP, 0x10, 9, &body);
    let mut raw = head.total.to_le_bytes().to_vec();
    raw.extend(9_u32.to_le_bytes());
    raw.extend(0x100_u64.to_le_bytes());
    raw.extend([0x10, kind::HEAP, 0, 0, 0, 0, 0, 0]);
    raw.extend(&body);
    for at in 0..raw.len() {
        let (here, there) = raw.split_at(at);
        let mut rest = Rest::of(there.len() as u64);
        rest.append(there);
        let begun = Unfinished::header(Lsn(0x200), here);
        let Joined::Activity(activity) = begun.join(&rest, MAGIC) else { panic!("cut at {at}") };
        assert_eq!(activity.rows, [FileRows { file: TABLE, deleted: 1, updated: 0 }], "cut at {at}");
        let text = serde_json::to_string(&begun).unwrap();
        assert_eq!(serde_json::from_str::<Unfinished>(&text).unwrap(), begun);
    }
}

#[test]
fn the_change_in_place_of_a_dropped_database_has_no_transaction_and_is_found_by_its_row() {
    let database = FileNode { tablespace: 1664, database: 0, number: 1262 };
    let deleted = |row: u8| block(database, &[9, 0, 0, 0, row, 0, 0, 0]);
    let mut collector = Collector::new(Limits::SUMMARY);
    let mut at = |prev: u64, info: u8, xid: u32, body: &[u8]| {
        let header = RecordHeader { prev: Lsn(prev), ..header(kind::HEAP, info, xid, body) };
        collector.record(Lsn(prev + 0x40), &header, body, MAGIC);
    };
    // VACUUM changed the row long before, and another one in between; the catalogue of another database has the
    // same number in vain.
    at(0x100, 0x70, 0, &block(database, &[4, 0]));
    at(0x200, 0x70, 0, &block(database, &[4, 0]));
    at(0x300, 0x70, 8, &block(database, &[5, 0]));
    at(0x400, 0x70, 0, &block(FileNode { tablespace: 1663, database: 5, ..database }, &[4, 0]));
    at(0x500, 0x10, 9, &deleted(4));
    at(0x600, 0x10, 10, &deleted(6));
    collector.end(ending(10, Vec::new()), Lsn(0x700), Lsn(0x6C0));
    feed(&mut collector, kind::DATABASE, 0x20, 9, &[255, 8, 1, 64, 0, 0, 1, 0, 0, 0]);
    collector.end(ending(9, Vec::new()), Lsn(0x800), Lsn(0x7C0));
    let (activities, _) = collector.finish();
    let [activity] = activities.as_slice() else { panic!("{activities:?}") };
    assert_eq!((activity.xid, activity.before_in_place), (9, Some(Lsn(0x200))));
    assert_eq!(activity.dropped_database.unwrap().database, 0x4001);
}
