use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;

use super::*;

/// Every event of a stream, given in pieces of `step` bytes: entries with their data.
fn read(stream: &[u8], step: usize) -> Result<Vec<(TarEntry, Vec<u8>)>, TarError> {
    let mut reader = TarReader::new();
    let mut found: Vec<(TarEntry, Vec<u8>)> = Vec::new();
    let mut open = false;
    for mut piece in stream.chunks(step) {
        while let Some(event) = reader.next(&mut piece)? {
            match event {
                TarEvent::Entry(entry) => {
                    assert!(!open, "the file before was not ended");
                    open = entry.kind == TarKind::File;
                    found.push((entry, Vec::new()));
                }
                TarEvent::Data(bytes) => found.last_mut().unwrap().1.extend_from_slice(bytes),
                TarEvent::FileEnd => {
                    assert!(open);
                    open = false;
                }
            }
        }
        assert!(piece.is_empty());
    }
    reader.finish()?;
    Ok(found)
}

fn system_tar(dir: &Path, blocking: &str) -> Vec<u8> {
    let output = Command::new("tar")
        .args(["--format=ustar", blocking, "--sort=name", "-cf", "-", "."])
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

#[test]
fn what_the_system_tar_packs_is_read_back_whatever_the_pieces() {
    let dir = tempfile::tempdir().unwrap();
    let long = "d".repeat(90) + "/" + &"e".repeat(60);
    std::fs::create_dir_all(dir.path().join(&long)).unwrap();
    for (name, size) in [("empty", 0), ("one", 1), ("block", 512), ("more", 513), ("big", 100_001)] {
        let bytes: Vec<u8> = (0..size).map(|i: u32| (i % 251) as u8).collect();
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    std::fs::write(dir.path().join(&long).join("deep"), "deep").unwrap();
    symlink("/somewhere/else", dir.path().join("link")).unwrap();

    let stream = system_tar(dir.path(), "-b1");
    for step in [1, 7, 511, 512, 513, 4096, stream.len()] {
        let entries = read(&stream, step).unwrap();
        let mut names = Vec::new();
        for (entry, data) in &entries {
            let path = dir.path().join(std::ffi::OsStr::from_bytes(&entry.path));
            let meta = std::fs::symlink_metadata(&path).unwrap();
            assert_eq!(meta.mode() & 0o7777, entry.mode);
            assert_eq!((u64::from(meta.uid()), u64::from(meta.gid())), (entry.uid, entry.gid));
            assert_eq!(meta.mtime(), i64::try_from(entry.mtime).unwrap());
            match &entry.kind {
                TarKind::File => {
                    assert_eq!(&std::fs::read(&path).unwrap(), data);
                    let at = entry.data_offset as usize;
                    assert_eq!(&stream[at..at + data.len()], &data[..]);
                }
                TarKind::Directory => assert!(meta.is_dir()),
                TarKind::Symlink { target } => {
                    assert_eq!(std::fs::read_link(&path).unwrap().as_os_str().as_bytes(), &target[..]);
                }
            }
            names.push(entry.path.clone());
        }
        assert_eq!(names.len(), 1 + 2 + 5 + 1 + 1, "{names:?}");
    }
}

#[test]
fn a_stream_may_end_with_or_without_the_zero_blocks() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "12345").unwrap();
    let stream = system_tar(dir.path(), "-b1");
    let content = stream.len() - 1024;
    for end in [content, content + 512, stream.len()] {
        assert_eq!(read(&stream[..end], 100).unwrap().len(), 2, "{end}");
    }
    for (end, inside) in
        [(700, "a header"), (1027, "a file"), (content - 1, "the padding after a file"), (1024, "a file")]
    {
        assert_eq!(read(&stream[..end], 100), Err(TarError::Truncated { offset: end as u64, inside }));
    }
}

#[test]
fn anything_no_server_sends_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "12345").unwrap();
    let stream = system_tar(dir.path(), "-b1");
    let header: [u8; 512] = stream[512..1024].try_into().unwrap();
    let changed = |change: &dyn Fn(&mut [u8; 512])| {
        let mut header = header;
        change(&mut header);
        header[148..156].copy_from_slice(b"        ");
        let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        read(&header, 512).unwrap_err()
    };
    assert_eq!(changed(&|h| h[156] = b'x'), TarError::Kind { offset: 0, kind: 'x' });
    assert!(matches!(changed(&|h| h[..4].copy_from_slice(b"/etc")), TarError::PathOutside { .. }));
    assert!(matches!(changed(&|h| h[..6].copy_from_slice(b"a/../b")), TarError::PathOutside { .. }));
    assert_eq!(changed(&|h| h[130] = b'9'), TarError::Field { offset: 0, field: "size" });
    assert_eq!(changed(&|h| h[257] = b'x'), TarError::Field { offset: 0, field: "magic" });
    let mut broken = stream.clone();
    broken[600] ^= 1;
    assert_eq!(read(&broken, 512), Err(TarError::Checksum { offset: 512 }));
    let mut stray = stream;
    *stray.last_mut().unwrap() = 1;
    assert!(matches!(read(&stray, 512), Err(TarError::AfterEnd { .. })));
}

#[test]
fn a_size_beyond_the_octal_field_is_read() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    let mut header = system_tar(dir.path(), "-b1")[512..1024].to_vec();
    let size = 9u64 << 30;
    header[124] = 0x80;
    header[125..128].fill(0);
    header[128..136].copy_from_slice(&size.to_be_bytes());
    header[148..156].copy_from_slice(b"        ");
    let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut reader = TarReader::new();
    match reader.next(&mut &header[..]).unwrap() {
        Some(TarEvent::Entry(entry)) => assert_eq!(entry.size, size),
        other => panic!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..3000), step in 1usize..700) {
        drop(read(&bytes, step));
    }

    #[test]
    fn no_change_of_a_real_stream_makes_it_panic(
        at in 0usize..2048, value in any::<u8>(), fix in any::<bool>(), step in 1usize..700,
    ) {
        let mut stream = vec![0u8; 2048];
        stream[..4].copy_from_slice(b"file");
        stream[100..107].copy_from_slice(b"0000600");
        stream[124..135].copy_from_slice(b"00000000005");
        stream[156] = b'0';
        stream[257..265].copy_from_slice(b"ustar\x0000");
        stream[at] = value;
        if fix {
            stream[148..156].copy_from_slice(b"        ");
            let sum: u32 = stream[..512].iter().map(|b| u32::from(*b)).sum();
            stream[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        drop(read(&stream, step));
    }
}
