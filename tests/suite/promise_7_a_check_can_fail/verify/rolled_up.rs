//! Roll-ups: made where they are missing, held against the segments where they are there. Four segments of 1 GiB make a LOG; of
//! them there is no more than a summary, which is all that a quick look reads.

use std::path::PathBuf;
use std::sync::Arc;

use pitr::codec::encode_skippable;
use pitr::repository::{Cluster, Create, HostMemory, Repository, SystemIdentity};
use pitr::storage::FsStorage;
use pitr::types::{Moment, SegmentSize, SystemId, TimelineId};
use serde_json::json;

use super::Verified;
use crate::support::{Pitr, TestDir};

const SYSTEM: u64 = 7_000_000_000_000_000_001;

fn segment(number: u64) -> (String, Vec<u8>) {
    let name = format!("00000001{:08X}{:08X}", number / 4, number % 4);
    let lsn = |offset: u64| format!("{:X}/{:X}", number / 4, ((number % 4) << 30) + offset);
    let frames: Vec<_> = (0..256).map(|_| json!({ "raw": 4 << 20, "stored": 1, "blake3": "00" })).collect();
    let summary = json!({
        "format": 1, "name": name, "size": 1 << 30, "blake3": format!("{number:064x}"), "frames": frames,
        "written_by": "pitr 0.0.0",
        "wal": {
            "system_identifier": SYSTEM.to_string(), "timeline": 1, "records": 1, "commits": 0, "aborts": 0,
            "first_record": lsn(40), "last_record": lsn(40), "end_of_valid": lsn(4096), "page_magic": 0xD110,
        },
    });
    let mut object = encode_skippable(summary.to_string().as_bytes()).unwrap();
    object.extend([0; 256]);
    (name, object)
}

#[test]
fn roll_ups_are_made_and_one_that_lies_is_told() {
    let dir = TestDir::new();
    let root = dir.create_dir("repo");
    let memory = HostMemory::new(dir.join("memory"));
    let storage = Arc::new(FsStorage::new(&root));
    let now = Moment(jiff::Timestamp::now());
    let repository = Repository::open(storage, &memory, Create::Identity, now).unwrap();
    let system = SystemIdentity {
        system_identifier: SystemId(SYSTEM),
        segment_size: SegmentSize::new(1 << 30).unwrap(),
        postgres_major: Some(15),
    };
    let name = "main".parse().unwrap();
    let cluster: Cluster<'_> = repository.cluster_for_writing(&name, &system, now).unwrap();
    let log = dir.create_dir("repo/main/0001/wal/00000001/00000000");
    // The one behind says what ends in it.
    let behind = dir.create_dir("repo/main/0001/wal/00000001/00000001");
    for number in 0..5 {
        let (name, object) = segment(number);
        let folder = if number < 4 { &log } else { &behind };
        std::fs::write(folder.join(format!("{name}.zst")), object).unwrap();
    }
    dir.account().own_tree(&root);
    let pitr = Pitr::new(&dir);
    let rolled = || -> Vec<PathBuf> {
        let entries = std::fs::read_dir(root.join("main/0001/rollup/00000001")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    };
    let look = || {
        let v = Verified::run(&pitr, &["--quick"]);
        // There is no backup in it, which is told each time.
        let others = v.kinds().into_iter().filter(|kind| *kind != "no-backup");
        let kinds: Vec<String> = others.map(str::to_owned).collect();
        (kinds, v)
    };

    assert_eq!(look().0, [""; 0]);
    let made = rolled();
    assert_eq!(made.len(), 1, "one LOG is complete: {made:?}");
    assert_eq!(look().0, [""; 0]);

    // Damaged: told once, and made again beside it.
    let whole = std::fs::read(&made[0]).unwrap();
    let mut bytes = whole.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    std::fs::write(&made[0], bytes).unwrap();
    let (kinds, v) = look();
    assert_eq!(kinds, ["damaged-rollup"], "{}", v.document);
    assert_eq!(rolled().len(), 2);
    assert_eq!(look().0, [""; 0]);
    std::fs::write(&made[0], whole).unwrap();

    // A whole one that says what is not so, under its own right name.
    let believed = cluster.rollups().unwrap()[&TimelineId(1)][&0].clone();
    let mut lie = cluster.rollup(&believed).unwrap().unwrap();
    lie.segments[2].blake3 = Some("f".repeat(64));
    let (name, bytes) = lie.encode(cluster.identity()).unwrap();
    let object = cluster.layout().rollup(&name);
    dir.write(root.join(&object), bytes);
    let (kinds, v) = look();
    assert_eq!(kinds, ["rollup-lies"], "{}", v.document);
    let p = v.problem("rollup-lies");
    assert_eq!(p["object"], object.as_str());
    assert!(p["what"].as_str().unwrap().contains("of segment 00000002"), "{p}");
    std::fs::remove_file(root.join(&object)).unwrap();

    // One that was true once: the segments win.
    std::fs::remove_file(log.join(format!("{}.zst", segment(1).0))).unwrap();
    let (mut kinds, v) = look();
    kinds.dedup();
    assert_eq!(kinds, ["missing-wal", "rollup-lies"], "{}", v.document);

    // Where nothing can be written it is said, and is no problem.
    let (name, object) = segment(1);
    dir.write(log.join(format!("{name}.zst")), object);
    std::fs::remove_dir_all(root.join("main/0001/rollup")).unwrap();
    let epoch = root.join("main/0001");
    std::fs::set_permissions(&epoch, std::os::unix::fs::PermissionsExt::from_mode(0o550)).unwrap();
    let done = pitr.run(["verify", "--quick"]);
    std::fs::set_permissions(&epoch, std::os::unix::fs::PermissionsExt::from_mode(0o750)).unwrap();
    // Of no backup, and of nothing else.
    done.expect_code(3);
    done.expect_said("cannot be sealed");
}
