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
        for (number, (together, in_memory, temp_dir)) in [
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
            let encoding = Encoding { workroom: &workroom, temp_dir, in_memory, together };
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
    let encoding = Encoding { workroom: &workroom, temp_dir: &nowhere, in_memory: 1 << 20, together: true };
    let failed = EncodedFrames::encode(&mut io::empty(), NEEDS_NO_FILE + 1, encoding, "x", |_| {});
    assert!(matches!(failed, Err(RepositoryError::Local { action: "make a temporary file for", .. })));
}

/// An object's summary as JSON, and its frames as stored.
fn taken_apart(object: &[u8]) -> (serde_json::Value, Vec<Vec<u8>>) {
    let header = crate::codec::SkippableHeader::parse(object).unwrap();
    let summary: serde_json::Value = serde_json::from_slice(header.content(object).unwrap()).unwrap();
    let mut rest = &object[header.frame_len()..];
    let stored = summary["frames"].as_array().unwrap().iter().map(|frame| {
        let (frame, behind) = rest.split_at(usize::try_from(frame["stored"].as_u64().unwrap()).unwrap());
        rest = behind;
        frame.to_vec()
    });
    (summary.clone(), stored.collect())
}

/// Opened and decoded to the end, or what is wrong with it.
fn read_back(summary: &serde_json::Value, frames: &[Vec<u8>]) -> Result<Vec<u8>, RepositoryError> {
    let dir = tempfile::tempdir().unwrap();
    let storage = FsStorage::new(dir.path());
    let mut object = encode_skippable(&serde_json::to_vec(summary).unwrap()).unwrap();
    object.extend(frames.concat());
    std::fs::write(dir.path().join("x"), object).unwrap();
    let mut decoded = Vec::new();
    StoredWal::open(&storage, "x", true)?.unwrap().decode(|frame| {
        decoded.extend_from_slice(&frame);
        Ok::<_, RepositoryError>(())
    })?;
    Ok(decoded)
}

fn object(raw: &[u8]) -> (serde_json::Value, Vec<Vec<u8>>) {
    let dir = tempfile::tempdir().unwrap();
    let workroom = Workroom::new(3, 1);
    let encoding =
        Encoding { workroom: &workroom, temp_dir: dir.path(), in_memory: 64 << 20, together: false };
    let mut source = raw;
    let mut frames = EncodedFrames::encode(&mut source, raw.len() as u64, encoding, "x", |_| {}).unwrap();
    frames.store(&FsStorage::new(dir.path()), "x", "x", None, None).unwrap();
    taken_apart(&std::fs::read(dir.path().join("x")).unwrap())
}

#[test]
fn frames_that_do_not_lead_to_the_digest_of_the_whole_are_refused() {
    let raw = bytes(3 * SMALL_FRAME + 12_345);
    let (summary, stored) = object(&raw);
    assert_eq!(summary["format"], 2);
    assert_eq!(read_back(&summary, &stored).unwrap(), raw);
    let frame = |n: usize| summary["frames"][n].clone();
    let with = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut changed = summary.clone();
        change(&mut changed);
        changed
    };
    let swapped = |a: usize, b: usize| {
        with(&|s| {
            s["frames"][a] = frame(b);
            s["frames"][b] = frame(a);
        })
    };
    for (what, changed, stored) in [
        // Whole frames in another order, their entries with them.
        ("order", swapped(1, 2), vec![&stored[0], &stored[2], &stored[1], &stored[3]]),
        ("a frame at another's place", summary.clone(), vec![&stored[0], &stored[2], &stored[1], &stored[3]]),
        (
            "the whole's digest",
            with(&|s| s["blake3"] = crate::codec::blake3_hex(b"").into()),
            stored.iter().collect(),
        ),
        (
            "a frame's",
            with(&|s| s["frames"][1]["subtree"] = frame(2)["subtree"].clone()),
            stored.iter().collect(),
        ),
        ("no digits", with(&|s| s["frames"][1]["subtree"] = "subtree".into()), stored.iter().collect()),
        (
            "one of the former kind among them",
            with(&|s| {
                s["frames"][1] =
                    serde_json::json!({ "raw": SMALL_FRAME, "stored": stored[1].len(), "blake3": "" })
            }),
            stored.iter().collect(),
        ),
        (
            "lengths that no tree has",
            with(&|s| {
                (s["frames"][0]["raw"], s["frames"][1]["raw"]) =
                    ((SMALL_FRAME - 1024).into(), (SMALL_FRAME + 1024).into())
            }),
            stored.iter().collect(),
        ),
    ] {
        let stored: Vec<_> = stored.into_iter().cloned().collect();
        let refused = read_back(&changed, &stored).unwrap_err();
        assert!(matches!(refused, RepositoryError::Damaged { .. }), "{what}: {refused}");
    }
}

#[test]
fn what_was_written_with_a_digest_of_each_frame_stays_readable() {
    let raw = bytes(3 * SMALL_FRAME + 12_345);
    let (mut summary, stored) = object(&raw);
    summary["format"] = 1.into();
    for (n, part) in raw.chunks(SMALL_FRAME).enumerate() {
        let frame = summary["frames"][n].as_object_mut().unwrap();
        frame.remove("subtree").unwrap();
        frame.insert("blake3".to_owned(), crate::codec::blake3_hex(part).into());
    }
    assert_eq!(read_back(&summary, &stored).unwrap(), raw);
    // Their own digests say nothing of the whole, and a part of them nothing at all.
    let some = |summary: &serde_json::Value, frames| {
        let dir = tempfile::tempdir().unwrap();
        let storage = FsStorage::new(dir.path());
        let mut object = encode_skippable(&serde_json::to_vec(summary).unwrap()).unwrap();
        object.extend(stored.concat());
        std::fs::write(dir.path().join("x"), object).unwrap();
        let mut decoder = crate::codec::FrameDecoder::new().unwrap();
        let opened = StoredWal::open(&storage, "x", true).unwrap().unwrap();
        opened.decode_frames(frames, &mut decoder, &mut Vec::new(), |_, _| Ok::<_, RepositoryError>(()))
    };
    some(&summary, 0..4).unwrap();
    assert!(matches!(some(&summary, 0..3), Err(RepositoryError::Damaged { .. })));
    summary["blake3"] = crate::codec::blake3_hex(b"").into();
    assert!(matches!(some(&summary, 0..4), Err(RepositoryError::Damaged { .. })));
    assert!(matches!(read_back(&summary, &stored), Err(RepositoryError::Damaged { .. })));
}

#[test]
fn one_frame_is_proved_by_the_digest_of_the_whole() {
    for length in [0, 1, 1025, SMALL_FRAME] {
        let raw = bytes(length);
        let (summary, stored) = object(&raw);
        assert_eq!((&summary["format"], stored.len()), (&1.into(), 1));
        assert_eq!(summary["frames"][0]["blake3"], summary["blake3"]);
        assert_eq!(summary["blake3"], crate::codec::blake3_hex(&raw));
        assert_eq!(read_back(&summary, &stored).unwrap(), raw);
        let mut other = summary;
        other["blake3"] = crate::codec::blake3_hex(b"other").into();
        assert!(matches!(read_back(&other, &stored), Err(RepositoryError::Damaged { .. })));
    }
}

#[test]
fn a_file_that_is_longer_than_was_said_is_stored_whole() {
    let dir = tempfile::tempdir().unwrap();
    let workroom = Workroom::new(3, 1);
    let raw = bytes(10_000);
    for (expected, together) in [(0, false), (5, true), (1500, false), (9999, true)] {
        let encoding = Encoding { workroom: &workroom, temp_dir: dir.path(), in_memory: 64 << 20, together };
        let mut source = &raw[..];
        let mut frames = EncodedFrames::encode(&mut source, expected, encoding, "x", |_| {}).unwrap();
        let name = format!("of-{expected}");
        frames.store(&FsStorage::new(dir.path()), &name, "x", None, None).unwrap();
        let (summary, stored) = taken_apart(&std::fs::read(dir.path().join(name)).unwrap());
        assert_eq!(summary["blake3"], crate::codec::blake3_hex(&raw));
        assert_eq!(read_back(&summary, &stored).unwrap(), raw);
    }
}

/// Gives bytes up to here, and then an error.
struct Torn<'b>(&'b [u8]);

impl io::Read for Torn<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() { Err(io::Error::other("the disk is gone")) } else { self.0.read(into) }
    }
}

#[test]
fn two_threads_give_up_together() {
    let dir = tempfile::tempdir().unwrap();
    let workroom = Workroom::new(3, 1);
    let encoding =
        Encoding { workroom: &workroom, temp_dir: dir.path(), in_memory: 64 << 20, together: true };
    let raw = bytes(9 * SMALL_FRAME);
    for length in [0, SMALL_FRAME / 2, SMALL_FRAME, 2 * SMALL_FRAME + 1, 8 * SMALL_FRAME] {
        let mut source = Torn(&raw[..length]);
        let failed = EncodedFrames::encode(&mut source, raw.len() as u64, encoding, "x", |_| {}).unwrap_err();
        assert!(matches!(failed, RepositoryError::Local { action: "read", .. }), "{length}: {failed}");
        let mut left = length / PIECE;
        let panics = std::panic::AssertUnwindSafe(|| {
            let look = |_: &[u8]| left = left.checked_sub(1).expect("as asked for");
            drop(EncodedFrames::encode(&mut &raw[..], raw.len() as u64, encoding, "x", look));
        });
        assert!(std::panic::catch_unwind(panics).is_err(), "{length}");
    }
    // And what they worked with is there for the next.
    assert!(EncodedFrames::encode(&mut &raw[..], raw.len() as u64, encoding, "x", |_| {}).is_ok());
}

#[test]
fn two_threads_make_the_frames_that_one_makes() {
    let dir = tempfile::tempdir().unwrap();
    let storage = FsStorage::new(dir.path());
    // Frames that take long and short, and whose successors are expected to shrink or not.
    let noise = bytes(2 * SMALL_FRAME);
    let raw: Vec<u8> = (0..30)
        .flat_map(|n| if n * n % 7 < 3 { &noise[..SMALL_FRAME] } else { &noise[SMALL_FRAME..] })
        .copied()
        .collect();
    let workroom = Workroom::new(3, 1);
    let object = |name: &str, together| {
        let encoding = Encoding { workroom: &workroom, temp_dir: dir.path(), in_memory: 64 << 20, together };
        let mut frames =
            EncodedFrames::encode(&mut &raw[..], raw.len() as u64, encoding, "x", |_| {}).unwrap();
        frames.store(&storage, name, "x", None, None).unwrap();
        std::fs::read(dir.path().join(name)).unwrap()
    };
    let one = object("one", false);
    assert!(zstd::decode_all(&one[..]).unwrap() == raw);
    for round in 0..20 {
        assert!(object(&round.to_string(), true) == one, "{round}");
    }
}
