//! Segments from the smallest to the largest, in a bounded amount of memory.

use std::path::Path;

use pitr::codec::{FrameEncoder, blake3_hex, encode_skippable};
use pitr::operation::archive_get::window::deliver;
use pitr::repository::wal_archive::{WalContent, WalFrame, WalFrameDigest, WalSummary};
use pitr::types::WalFileName;
use pitr::wal::SegmentScanner;

use super::world::{World, write};
use crate::support::wait_until;

const FRAME: usize = 4 << 20;

/// The greatest memory of this process so far in MiB: each test runs in one of its own.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() >> 10
}

/// Archives a segment whose first frame is `first`, and whose others are all `other`.
fn archive(world: &World, number: u64, first: &[u8], other: &[u8]) {
    let segment = world.name(1, number);
    let mut scanner = SegmentScanner::new(segment, world.size);
    let mut encoder = FrameEncoder::new(1).unwrap();
    let (mut body, mut frames, mut whole) = (Vec::<u8>::new(), Vec::new(), blake3::Hasher::new());
    let mut again: Option<(WalFrame, Vec<u8>)> = None;
    for at in 0..usize::try_from(world.size.bytes()).unwrap() / FRAME {
        let chunk = if at == 0 { first } else { other };
        scanner.push(chunk);
        whole.update(chunk);
        if let Some((frame, stored)) = again.as_ref().filter(|_| at > 1) {
            frames.push(frame.clone());
            body.extend(stored);
            continue;
        }
        let mut stored = Vec::new();
        let length = encoder.append(chunk, &mut stored).unwrap();
        let frame = WalFrame {
            raw: u32::try_from(chunk.len()).unwrap(),
            stored: u32::try_from(length).unwrap(),
            digest: WalFrameDigest::Blake3(blake3_hex(chunk)),
        };
        body.extend(&stored);
        frames.push(frame.clone());
        again = Some((frame, stored));
    }
    let content = WalContent::from(&scanner.finish());
    assert!(content.cut_off_at.is_none() && content.damage.is_none(), "{content:?}");
    let summary = WalSummary {
        format: 1,
        name: segment.to_string(),
        size: world.size.bytes(),
        blake3: whole.finalize().to_hex().to_string(),
        frames,
        modified: None,
        written_by: "a test".to_owned(),
        wal: Some(content),
    };
    let mut object = encode_skippable(&serde_json::to_vec(&summary).unwrap()).unwrap();
    object.extend(body);
    write(&world.object(segment), &object);
}

fn first_frame(world: &World, number: u64) -> Vec<u8> {
    let mut bytes = vec![0; FRAME];
    super::world::begin_segment(&mut bytes, world.name(1, number), world.size, super::world::SYSTEM);
    bytes
}

fn noise() -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut bytes = vec![0; FRAME];
    for word in bytes.chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes());
    }
    bytes
}

#[test]
fn many_segments_of_bytes_that_do_not_compress_take_little_memory() {
    let world = World::new(16);
    for number in 1..9 {
        archive(&world, number, &first_frame(&world, number), &noise());
    }
    let before = peak();
    let window = world.window_of(6, 4);
    assert!(window.take(WalFileName::Segment(world.name(1, 1))).is_some());
    wait_until("six lie ahead", 60, || world.whole_ahead() == 7);
    let taken = peak() - before.min(peak());
    // What a test process takes before, and what was needed to make the objects, is more than the window's part.
    assert!(taken <= 60, "{taken} MiB");
}

#[test]
fn a_segment_of_one_gigabyte_is_handed_out_in_a_fraction_of_its_memory() {
    let world = World::new(1024);
    archive(&world, 1, &first_frame(&world, 1), &vec![0; FRAME]);
    let window = world.window(0);
    let file = WalFileName::Segment(world.name(1, 1));
    let handed = window.take(file).unwrap();
    assert!(deliver(&handed, file, Path::new("pg_wal/RECOVERYXLOG"), &world.data).unwrap());
    let found = world.data.join("pg_wal/RECOVERYXLOG").metadata().unwrap().len();
    assert_eq!(found, 1 << 30);
    assert!(peak() <= 150, "{} MiB", peak());
}
