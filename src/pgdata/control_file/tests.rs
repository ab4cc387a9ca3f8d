//! Written by hand for every layout; real files are compared with `pg_controldata` in the integration tests.

use proptest::prelude::*;

use super::*;

fn file(version: u32, catalog: u32, checksum_at: usize) -> Vec<u8> {
    let mut file = vec![0_u8; 8192];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    let (shift, wal_block) = if version == 1905 { (8, 236) } else { (0, 224) };
    put(0, &7_123_456_789_012_345_678_u64.to_le_bytes());
    put(8, &version.to_le_bytes());
    put(12, &catalog.to_le_bytes());
    put(16, &6_u32.to_le_bytes());
    put(24, &1_760_000_000_i64.to_le_bytes());
    put(32, &0x0300_0060_u64.to_le_bytes());
    put(40, &0x0300_0028_u64.to_le_bytes());
    put(48, &2_u32.to_le_bytes());
    put(52, &1_u32.to_le_bytes());
    put(104 + shift, &1_760_000_001_i64.to_le_bytes());
    put(136 + shift, &0x0300_0100_u64.to_le_bytes());
    put(172 + shift, &1_i32.to_le_bytes());
    put(180 + shift, &123_i32.to_le_bytes());
    put(216 + shift, &8192_u32.to_le_bytes());
    put(wal_block, &8192_u32.to_le_bytes());
    put(wal_block + 4, &(64_u32 << 20).to_le_bytes());
    put(if version == 1905 { 268 } else { 252 }, &1_u32.to_le_bytes());
    let crc = crc32c::crc32c(&file[..checksum_at]);
    file[checksum_at..checksum_at + 4].copy_from_slice(&crc.to_le_bytes());
    file
}

const MAJORS: [(u32, u32, usize, u16); 7] = [
    (1300, 202_007_201, 288, 13),
    (1300, 202_107_181, 288, 14),
    (1300, 202_209_061, 288, 15),
    (1300, 202_307_071, 288, 16),
    (1700, 202_406_281, 288, 17),
    (1800, 202_506_291, 292, 18),
    (1905, 202_610_061, 308, 19),
];

#[test]
fn every_major_is_read_with_its_own_layout() {
    for (version, catalog, checksum_at, major) in MAJORS {
        let control = ControlFile::parse(&file(version, catalog, checksum_at)).unwrap();
        assert_eq!(control.major, major);
        assert_eq!(control.system_id, SystemId(7_123_456_789_012_345_678));
        assert_eq!(control.state, ClusterState::InProduction);
        assert_eq!(control.redo, Lsn(0x0300_0028));
        assert_eq!((control.timeline, control.previous_timeline), (TimelineId(2), TimelineId(1)));
        assert_eq!(control.checkpoint_time.0.as_second(), 1_760_000_001);
        assert_eq!(control.min_recovery_point, Lsn(0x0300_0100));
        assert_eq!((control.wal_level, control.max_connections), (1, 123));
        assert_eq!(control.segment_size, SegmentSize::new(64 << 20).unwrap());
        assert_eq!((control.block_size, control.wal_block_size, control.data_checksums), (8192, 8192, 1));
    }
}

#[test]
fn no_field_is_believed_when_the_checksum_is_wrong() {
    for (version, catalog, checksum_at, _) in MAJORS {
        for at in 12..checksum_at + 4 {
            let mut file = file(version, catalog, checksum_at);
            file[at] ^= 0x10;
            assert_eq!(ControlFile::parse(&file), Err(ControlFileProblem::Checksum), "{version}, byte {at}");
        }
    }
}

#[test]
fn a_newer_layout_still_says_whose_it_is() {
    let problem = ControlFile::parse(&file(2000, 202_709_011, 340)).unwrap_err();
    let system_id = Some(SystemId(7_123_456_789_012_345_678));
    assert_eq!(problem, ControlFileProblem::Newer { control_version: 2000, system_id });
    let mut damaged = file(2000, 202_709_011, 340);
    damaged[0] ^= 1;
    let problem = ControlFile::parse(&damaged).unwrap_err();
    assert_eq!(problem, ControlFileProblem::Newer { control_version: 2000, system_id: None });
}

#[test]
fn what_is_no_control_file_is_refused() {
    assert_eq!(ControlFile::parse(b""), Err(ControlFileProblem::TooShort(0)));
    assert_eq!(ControlFile::parse(&[0; 8192]), Err(ControlFileProblem::ZeroFilled));
    assert_eq!(ControlFile::parse(&[7; 8192]), Err(ControlFileProblem::Checksum));
    assert_eq!(ControlFile::parse(&file(1100, 201_809_051, 288)), Err(ControlFileProblem::TooOld(1100)));
    let cut = &file(1300, 202_209_061, 288)[..100];
    assert_eq!(ControlFile::parse(cut), Err(ControlFileProblem::TooShort(100)));
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..600),
        version in prop_oneof![Just(1300_u32), Just(1800), Just(1905), any::<u32>()],
    ) {
        if let Some(place) = bytes.get_mut(8..12) {
            place.copy_from_slice(&version.to_le_bytes());
        }
        drop(ControlFile::parse(&bytes));
    }
}
