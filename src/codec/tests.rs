use proptest::prelude::*;

use super::*;

#[test]
fn a_flipped_bit_in_a_frame_is_found() {
    let raw: Vec<u8> = (0..200_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
    let mut stored = Vec::new();
    FrameEncoder::new(3).unwrap().append(&raw, &mut stored).unwrap();
    let digest = blake3_hex(&raw);
    assert_eq!(decode_frame(&stored, raw.len(), FrameDigest::Blake3(&digest)).unwrap(), raw);
    for at in (0..stored.len()).step_by(stored.len() / 50) {
        let mut bad = stored.clone();
        bad[at] ^= 0x10;
        assert!(decode_frame(&bad, raw.len(), FrameDigest::Blake3(&digest)).is_err(), "byte {at}");
    }
}

#[test]
fn without_its_checksum_a_frame_is_still_proved_by_its_digest() {
    let raw: Vec<u8> = (0..200_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
    let mut stored = Vec::new();
    FrameEncoder::new(3).unwrap().append(&raw, &mut stored).unwrap();
    let digest = blake3_hex(&raw);
    let (mut alone, mut both) = (FrameDecoder::by_digest_alone().unwrap(), FrameDecoder::new().unwrap());
    let mut out = Vec::new();
    for at in (0..stored.len()).step_by(stored.len() / 50) {
        let mut bad = stored.clone();
        bad[at] ^= 0x10;
        if alone.decode(&bad, raw.len(), FrameDigest::Blake3(&digest), &mut out).is_ok() {
            assert_eq!(out, raw, "byte {at}");
        } else {
            assert!(out.is_empty(), "byte {at}");
        }
    }
    // The last four bytes are the checksum: whoever reads by hand would be stopped there, a restore is not.
    *stored.last_mut().unwrap() ^= 1;
    assert!(both.decode(&stored, raw.len(), FrameDigest::Blake3(&digest), &mut out).is_err());
    alone.decode(&stored, raw.len(), FrameDigest::Blake3(&digest), &mut out).unwrap();
    assert_eq!(out, raw);
    let other = blake3_hex(b"other bytes");
    assert!(matches!(
        alone.decode(&stored, raw.len(), FrameDigest::Blake3(&other), &mut out),
        Err(CodecError::Digest { .. })
    ));
    assert!(out.is_empty());
}

#[test]
fn small_tables_are_for_what_shrinks_much_and_prose_keeps_the_large_ones() {
    // Words of 26 letters in no order: their distances are what the tables are for.
    let mut state = 1u64;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 40).unwrap()
    };
    let words: Vec<String> =
        (0..20_000).map(|n| format!("word{:x}{} ", n * 7919, "e".repeat(n % 9))).collect();
    let prose: Vec<u8> = (0..60_000).flat_map(|_| words[next() % words.len()].clone().into_bytes()).collect();
    let shrinks = vec![7; 1 << 20];
    let mut encoder = FrameEncoder::new(3).unwrap();
    let mut take = |raw: &[u8]| {
        let mut stored = Vec::new();
        let length = encoder.append(raw, &mut stored).unwrap();
        assert_eq!(decode_frame(&stored, raw.len(), FrameDigest::Blake3(&blake3_hex(raw))).unwrap(), raw);
        length
    };
    let first = take(&prose);
    assert!(first > prose.len() / 8, "{first} of {}", prose.len());
    assert_eq!(take(&prose), first, "prose behind prose");
    take(&shrinks);
    let misjudged = take(&prose);
    assert!(misjudged > first, "{misjudged}, {first}");
    assert_eq!(take(&prose), first, "one frame later");
}

#[test]
fn a_frame_of_other_bytes_is_refused_though_it_decodes() {
    let mut stored = Vec::new();
    FrameEncoder::new(3).unwrap().append(b"one thing", &mut stored).unwrap();
    let err = decode_frame(&stored, 9, FrameDigest::Blake3(&blake3_hex(b"another.."))).unwrap_err();
    assert!(matches!(err, CodecError::Digest { .. }), "{err}");
}

#[test]
fn a_longer_content_than_promised_is_refused_without_decoding_all_of_it() {
    let raw = vec![0u8; 50 << 20];
    let mut stored = Vec::new();
    FrameEncoder::new(1).unwrap().append(&raw, &mut stored).unwrap();
    assert!(decode_frames(&stored, 10, &blake3_hex(&[0; 10])).is_err());
    assert!(decode_frame(&stored, 10, FrameDigest::Blake3(&blake3_hex(&[0; 10]))).is_err());
}

#[test]
fn appended_frames_keep_what_stood_before() {
    let mut out = b"before".to_vec();
    let mut encoder = FrameEncoder::new(3).unwrap();
    let first = encoder.append(b"aaaa", &mut out).unwrap();
    let second = encoder.append(b"bbbb", &mut out).unwrap();
    assert_eq!(&out[..6], b"before");
    assert_eq!(out.len(), 6 + first + second);
    assert_eq!(decode_frames(&out[6..], 8, &blake3_hex(b"aaaabbbb")).unwrap(), b"aaaabbbb");
}

proptest! {
    #[test]
    fn any_bytes_survive_the_round_trip(raw in proptest::collection::vec(any::<u8>(), 0..5000), level in -3..6) {
        let mut stored = encode_skippable(b"{}").unwrap();
        FrameEncoder::new(level).unwrap().append(&raw, &mut stored).unwrap();
        let header = SkippableHeader::parse(&stored).unwrap();
        prop_assert_eq!(header.content(&stored).unwrap(), b"{}");
        let back = decode_frame(&stored[header.frame_len()..], raw.len(), FrameDigest::Blake3(&blake3_hex(&raw))).unwrap();
        prop_assert_eq!(back, raw);
    }

    #[test]
    fn no_bytes_make_the_header_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        if let Ok(header) = SkippableHeader::parse(&bytes) {
            let _content = header.content(&bytes);
        }
    }
}

fn digests(frames: &[&[u8]], most: usize) -> Digests {
    let mut hasher = FramesHasher::new(most);
    for frame in frames {
        // In uneven pieces, as they come.
        frame.chunks(1000).for_each(|piece| hasher.update(piece));
        hasher.end_frame();
    }
    hasher.finish()
}

#[test]
fn frames_at_their_places_prove_the_whole_that_one_pass_has_digested() {
    let raw: Vec<u8> = (0..70_001u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    for (frame, length) in [1024, 4096, 65_536].into_iter().flat_map(|frame| {
        [0, 1, frame - 1, frame, frame + 1, 2 * frame, 3 * frame + 5, 4 * frame, raw.len()]
            .map(|l| (frame, l))
    }) {
        let raw = &raw[..length];
        let frames: Vec<_> = raw.chunks(frame).collect();
        let found = digests(&frames, frame);
        assert_eq!(found.blake3, blake3_hex(raw), "{length} in frames of {frame}");
        assert_eq!(found.subtrees.len(), if frames.len() > 1 { frames.len() } else { 0 });
        let whole = blake3_of_subtrees(found.subtrees.iter().map(String::as_str));
        assert_eq!(whole, (frames.len() > 1).then(|| blake3_hex(raw)));
        for (n, (bytes, value)) in frames.iter().zip(&found.subtrees).enumerate() {
            let mut stored = Vec::new();
            FrameEncoder::new(1).unwrap().append(bytes, &mut stored).unwrap();
            let decoded =
                |at: usize| decode_frame(&stored, bytes.len(), FrameDigest::Subtree { at: at as u64, value });
            assert_eq!(decoded(n * frame).unwrap(), *bytes);
            // At no other place, and at none where there can be no such subtree.
            for elsewhere in [(n + 1) * frame, (n + 2) * frame, n * frame + 1, n * frame + 512] {
                let err = decoded(elsewhere).unwrap_err();
                assert!(matches!(err, CodecError::Digest { .. }), "{err}");
            }
            assert!(n == 0 || decoded(0).is_err());
        }
    }
}

#[test]
fn a_value_that_is_none_leads_to_no_digest_and_no_panic() {
    let digest = blake3_hex(b"a");
    for values in
        [vec![], vec![&digest[..]], vec![&digest, "xyz"], vec![&digest, ""], vec!["\u{e9}", &digest]]
    {
        assert_eq!(blake3_of_subtrees(values.into_iter()), None);
    }
    let mut stored = Vec::new();
    FrameEncoder::new(1).unwrap().append(b"", &mut stored).unwrap();
    for at in [0, 1, 1024, u64::MAX, u64::MAX - 1023] {
        assert!(decode_frame(&stored, 0, FrameDigest::Subtree { at, value: &digest }).is_err());
    }
}
