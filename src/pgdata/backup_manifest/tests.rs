use proptest::prelude::*;

use super::*;

const BODY: &str = r#"{ "PostgreSQL-Backup-Manifest-Version": 2,
"System-Identifier": 18446744073709551615,
"Files": [
{ "Path": "backup_label", "Size": 227, "Last-Modified": "2026-11-20 22:06:40 GMT", "Checksum-Algorithm": "CRC32C", "Checksum": "13dca016" },
{ "Encoded-Path": "62617365ff7b7d5d2c", "Size": 0, "Last-Modified": "2026-11-20 22:06:40 GMT" },
{ "Path": "a \"{[}],\\", "Size": 5000000000, "Last-Modified": "2026-11-20 22:06:40 GMT", "Checksum-Algorithm": "SHA256", "Checksum": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" }
],
"WAL-Ranges": [
{ "Timeline": 1, "Start-LSN": "0/2000028", "End-LSN": "0/02000100" },
{ "Timeline": 2, "Start-LSN": "0/2000100", "End-LSN": "0/3000000" }
],
"#;

fn sealed(body: &str) -> String {
    let sum = digest::digest(&digest::SHA256, body.as_bytes());
    let digits: String = sum.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    format!("{body}\"Manifest-Checksum\": \"{digits}\"}}\n")
}

fn read(text: &[u8], step: usize) -> Result<(Manifest, Vec<ManifestFile>), ManifestError> {
    let mut reader = ManifestReader::new();
    let mut files = Vec::new();
    for piece in text.chunks(step) {
        reader.push(piece, &mut |file| files.push(file))?;
    }
    Ok((reader.finish()?, files))
}

#[test]
fn a_manifest_is_read_whatever_the_pieces() {
    let text = sealed(BODY);
    for step in [1, 2, 13, 200, 300, text.len()] {
        let (manifest, files) = read(text.as_bytes(), step).unwrap();
        assert_eq!(manifest.version, 2);
        assert_eq!(manifest.system_identifier, Some(SystemId(u64::MAX)));
        assert_eq!(manifest.files, 3);
        assert_eq!(manifest.wal_ranges.len(), 2);
        assert_eq!(manifest.wal_ranges[1].timeline, TimelineId(2));
        assert_eq!(manifest.wal_ranges[0].end, Lsn(0x200_0100));
        assert_eq!(files[0].checksum.as_ref().unwrap().crc32c(), Some(0x16a0_dc13));
        assert_eq!(files[1].path, b"base\xff{}],");
        assert_eq!(files[1].checksum, None);
        assert_eq!((files[2].path.as_slice(), files[2].size), (&b"a \"{[}],\\"[..], 5_000_000_000));
        assert_eq!(files[2].checksum.as_ref().unwrap().crc32c(), None);
    }
}

#[test]
fn a_manifest_without_the_last_line_end_is_read() {
    let text = sealed(BODY);
    for step in [1, 300, 10_000] {
        read(text.trim_end().as_bytes(), step).unwrap();
    }
}

#[test]
fn a_changed_or_cut_manifest_is_refused() {
    let text = sealed(BODY);
    let changed = text.replacen("227", "228", 1);
    assert!(matches!(read(changed.as_bytes(), 64), Err(ManifestError::Checksum)));
    for cut in 0..text.len() - 2 {
        assert!(read(&text.as_bytes()[..cut], 64).is_err(), "cut at {cut}");
    }
    let newer = sealed(&BODY.replacen("Version\": 2", "Version\": 3", 1));
    assert!(matches!(read(newer.as_bytes(), 64), Err(ManifestError::Version(3))));
    let short = sealed(&BODY.replacen("13dca016", "13dca0", 1));
    assert!(matches!(read(short.as_bytes(), 64), Err(ManifestError::Value { field: "Checksum", .. })));
    let twice = format!("{text}{text}");
    assert!(read(twice.as_bytes(), 64).is_err());
}

#[test]
fn a_member_of_a_later_server_is_passed_over() {
    let text = sealed(&BODY.replacen(
        "\"Files\"",
        "\"New\": {\"a\": [1, {\"b\": 2}]},\n\"More\": [1,[2],{}],\n\"Files\"",
        1,
    ));
    assert_eq!(read(text.as_bytes(), 7).unwrap().1.len(), 3);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000), step in 1usize..99) {
        drop(read(&bytes, step));
    }

    #[test]
    fn no_change_of_a_manifest_is_taken_for_the_original(at in 0usize..1200, value in any::<u8>()) {
        let mut text = sealed(BODY).into_bytes();
        let at = at % text.len();
        let before = text[at];
        text[at] = value;
        if let Ok((_, files)) = read(&text, 50) {
            // Only the case of a digit of the sum, or white space in the last line, may change unnoticed.
            prop_assert!(value == before || at >= BODY.len(), "byte {at}");
            prop_assert_eq!(files.len(), 3);
        }
    }
}
