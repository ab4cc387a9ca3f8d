use std::io;

use super::super::StoredWal;
use super::*;
use crate::storage::FsStorage;

/// Half of it noise, so that much waits for its object.
fn bytes(length: usize) -> Vec<u8> {
    let mut state = 7u64;
    let noise = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    });
    let mut bytes: Vec<u8> = noise.take(length / 2).collect();
    bytes.resize(length, 3);
    bytes
}

#[test]
fn what_waits_in_memory_in_a_file_or_without_one_is_stored_whole() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = dir.path().join("a-file");
    std::fs::write(&nowhere, "").unwrap();
    let storage = FsStorage::new(dir.path());
    // One for all: what was compressed before leaves no trace.
    let workroom = Workroom::new(3, 1);
    for length in [1, PIECE, SMALL_FRAME, SMALL_FRAME + 1, 5 * SMALL_FRAME, 6 * SMALL_FRAME + 12_345] {
        let raw = bytes(length);
        let mut stored = Vec::new();
        for (number, (beside, in_memory, temp_dir)) in [
            (false, 64 << 20, dir.path()),
            (true, 64 << 20, dir.path()),
            (false, 100_000, dir.path()),
            (true, 100_000, dir.path()),
            (false, 100_000, &nowhere),
            (true, 100_000, &nowhere),
        ]
        .into_iter()
        .enumerate()
        {
            let encoding = Encoding { workroom: &workroom, temp_dir, in_memory, beside };
            let mut seen = Vec::new();
            let look = |piece: &[u8]| seen.extend_from_slice(piece);
            let mut source = &raw[..];
            let mut frames = EncodedFrames::encode(&mut source, length as u64, encoding, "x", look).unwrap();
            assert!(seen == raw);
            assert_eq!(frames.blake3(), crate::codec::blake3_hex(&raw));
            let name = format!("{length}-{number}");
            frames.store(&storage, &name, "x", None, None).unwrap();
            let object = std::fs::read(dir.path().join(&name)).unwrap();
            assert!(zstd::decode_all(&object[..]).unwrap() == raw, "{name}");
            let mut decoded = Vec::new();
            let opened = StoredWal::open(&storage, &name, true).unwrap().unwrap();
            opened
                .decode(|frame| {
                    decoded.extend_from_slice(&frame);
                    Ok::<_, RepositoryError>(())
                })
                .unwrap();
            assert!(decoded == raw, "{name}");
            stored.push(object);
        }
        assert!(stored.windows(2).all(|two| two[0] == two[1]), "{length}");
    }
}

#[test]
fn a_large_file_needs_a_place_to_wait() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = dir.path().join("a-file");
    std::fs::write(&nowhere, "").unwrap();
    let workroom = Workroom::new(3, 1);
    let encoding = Encoding { workroom: &workroom, temp_dir: &nowhere, in_memory: 1 << 20, beside: true };
    let failed = EncodedFrames::encode(&mut io::empty(), NEEDS_NO_FILE + 1, encoding, "x", |_| {});
    assert!(matches!(failed, Err(RepositoryError::Local { action: "make a temporary file for", .. })));
}
