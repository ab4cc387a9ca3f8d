//! Each kind of damage, put into a real archive: found with its kind and its object, and priced.

use std::os::unix::fs::PermissionsExt;

use super::{Archive, Verified, lost};

#[test]
fn every_kind_of_damage_is_found_and_priced() {
    let archive = Archive::new();
    let a = &archive;
    let flip = |object: &str, at: usize| {
        let mut bytes = std::fs::read(a.path(object)).unwrap();
        // Far behind its beginning: in the last frame, whatever the summary's length.
        let at = if at < 10_000 { at % bytes.len() } else { bytes.len() - 50 };
        bytes[at] ^= 0x40;
        std::fs::write(a.path(object), bytes).unwrap();
    };
    let remove = |object: &str| std::fs::remove_file(a.path(object)).unwrap();
    let past = |backup: usize| format!("restores from backup {} ", a.backups[backup]);
    let lost_segment = Archive::segment(&a.first[1]);
    let late = Archive::segment(&a.second[1]);

    // A gap, on the way from the first backup: the second one is behind it.
    let v = a.with(|_| remove(&lost_segment), |a| Verified::run(&a.pitr, &["--quick"]));
    assert_eq!(v.kinds(), ["missing-wal"], "{}", v.document);
    let p = v.problem("missing-wal");
    assert_eq!(p["object"], lost_segment.as_str());
    assert!(
        lost(p).contains(&past(0)) && lost(p).contains(&format!("when backup {} ended", a.backups[1])),
        "{p}"
    );
    // One behind the second backup: nothing else leads past it.
    let v = a.with(|_| remove(&late), |a| Verified::run(&a.pitr, &[]));
    let p = v.problem("missing-wal");
    assert!(lost(p).contains(&past(1)) && !lost(p).contains("until"), "{p}");
    // The segment in which the new timeline begins: the old one's copy does not help.
    let begins = Archive::segment(&a.switch[1]);
    let v = a.with(|_| remove(&begins), |a| Verified::run(&a.pitr, &["--quick"]));
    assert_eq!(v.problem("missing-wal")["object"], begins.as_str(), "{}", v.document);

    // Bytes that rot: behind the summary, in it, and at the end.
    for (at, quick) in [(100_000, false), (8, true), (0, true)] {
        let v = a.with(|_| flip(&lost_segment, at), |a| Verified::run(&a.pitr, &[]));
        assert_eq!(v.kinds(), ["damaged-object"], "{at}: {}", v.document);
        let p = v.problem("damaged-object");
        assert_eq!(p["object"], lost_segment.as_str());
        assert!(lost(p).contains(&past(0)), "{p}");
        let v = a.with(|_| flip(&lost_segment, at), |a| Verified::run(&a.pitr, &["--quick"]));
        assert_eq!(v.kinds().is_empty(), !quick, "{at}: {}", v.document);
    }
    let cut = |_: &Archive| {
        let bytes = std::fs::read(a.path(&lost_segment)).unwrap();
        std::fs::write(a.path(&lost_segment), &bytes[..bytes.len() - 1]).unwrap();
    };
    let v = a.with(cut, |a| Verified::run(&a.pitr, &["--quick"]));
    assert!(lost(v.problem("damaged-object")).contains(&past(0)), "{}", v.document);
    // With a good copy beside it nothing is lost.
    let beside = |_: &Archive| {
        let original = a.original(&a.first[1]);
        flip(&lost_segment, 100_000);
        a.push(&a.first[1], original);
    };
    let v = a.with(beside, |a| Verified::run(&a.pitr, &[]));
    assert_eq!(v.kinds(), ["damaged-object"], "{}", v.document);
    assert_eq!(lost(v.problem("damaged-object")), "");

    // An object under another's name.
    let swap = |_: &Archive| {
        std::fs::copy(a.path(&Archive::segment(&a.first[2])), a.path(&lost_segment)).unwrap();
    };
    let v = a.with(swap, |a| Verified::run(&a.pitr, &["--quick"]));
    assert_eq!(v.kinds(), ["misnamed"], "{}", v.document);
    assert!(lost(v.problem("misnamed")).contains(&past(0)));

    // What the store does not give out is neither missing nor damaged. (Root may read everything; the server's user not.)
    let forbid = |_: &Archive| {
        std::fs::set_permissions(a.path(&lost_segment), std::fs::Permissions::from_mode(0o000)).unwrap();
    };
    if rustix::process::geteuid().is_root() {
        let v = a.with(forbid, |a| Verified::run(&a.pitr, &[]));
        assert_eq!(v.kinds(), ["unreadable"], "{}", v.document);
        assert!(lost(v.problem("unreadable")).contains("unless it can be read"), "{}", v.document);
    }

    // A timeline whose origin is not known any more.
    let history = "main/0001/wal/00000002.history.zst";
    let v = a.with(|_| remove(history), |a| Verified::run(&a.pitr, &["--quick"]));
    assert_eq!(v.kinds(), ["missing-history"], "{}", v.document);
    assert!(lost(v.problem("missing-history")).contains("restores to timeline 2"), "{}", v.document);
    let v = a.with(|_| flip(history, 1_000), |a| Verified::run(&a.pitr, &["--quick"]));
    assert_eq!(v.problem("damaged-object")["object"], history, "{}", v.document);
    assert!(lost(v.problem("damaged-object")).contains("restores to timeline 2"), "{}", v.document);
    assert!(lost(v.problem("damaged-object")).contains("restores to timeline 2"), "{}", v.document);

    // Backups.
    let part = a.backup(0, "base/0000000000.zst");
    for (which, kind, quick) in [
        (part.clone(), "missing-part", true),
        (a.backup(0, "files.zst"), "missing-part", true),
        (a.backup(0, "backup_manifest.zst"), "missing-part", true),
    ] {
        let v =
            a.with(|_| remove(&which), |a| Verified::run(&a.pitr, if quick { &["--quick"] } else { &[] }));
        assert_eq!(v.kinds(), [kind], "{}", v.document);
        let p = v.problem(kind);
        assert_eq!(p["object"], which.as_str());
        assert!(lost(p).contains(&format!("restores from backup {}", a.backups[0])), "{p}");
        assert!(lost(p).contains("every moment from"), "nothing leads there without the first: {p}");
    }
    for (which, kind) in [
        (part.clone(), "damaged-part"),
        (a.backup(0, "files.zst"), "damaged-index"),
        (a.backup(0, "backup_manifest.zst"), "damaged-manifest"),
    ] {
        let v = a.with(|_| flip(&which, 5_000), |a| Verified::run(&a.pitr, &[]));
        assert_eq!(v.kinds(), [kind], "{}", v.document);
        assert_eq!(v.problem(kind)["object"], which.as_str());
    }
    // The second one is made up for by the first, which leads to the same moments.
    let second = a.backup(1, "base/0000000000.zst");
    let v = a.with(|_| flip(&second, 5_000), |a| Verified::run(&a.pitr, &[]));
    let p = v.problem("damaged-part");
    assert!(lost(p).contains(&format!("backup {} before it still leads", a.backups[0])), "{p}");
    assert!(p["what"].as_str().unwrap().contains("(of "), "no file is named: {p}");
    let garble = |_: &Archive| std::fs::write(a.path(&a.backup(0, "backup.json")), "{").unwrap();
    let v = a.with(garble, |a| Verified::run(&a.pitr, &["--quick"]));
    assert_eq!(v.kinds(), ["damaged-descriptor"], "{}", v.document);
    // Its first WAL is gone: there is nothing before it that it could be a gap behind.
    let start: serde_json::Value =
        serde_json::from_slice(&std::fs::read(a.path(&a.backup(0, "backup.json"))).unwrap()).unwrap();
    let lsn = start["start_lsn"].as_str().unwrap().split_once('/').unwrap().1.to_owned();
    let number = u64::from_str_radix(&lsn, 16).unwrap() >> 24;
    let all_before = |_: &Archive| {
        for n in 0..=number {
            drop(std::fs::remove_file(a.path(&Archive::segment(&format!("0000000100000000{n:08X}")))));
        }
    };
    let v = a.with(all_before, |a| Verified::run(&a.pitr, &["--quick"]));
    assert_eq!(v.kinds(), ["backup-without-wal"], "{}", v.document);
    assert!(lost(v.problem("backup-without-wal")).contains(&a.backups[0]));
    let edit = |name: String, from: &'static str, to: &'static str| {
        move |a: &Archive| {
            let text = std::fs::read_to_string(a.path(&name)).unwrap();
            assert!(text.contains(from), "{text}");
            std::fs::write(a.path(&name), text.replacen(from, to, 1)).unwrap();
        }
    };
    let descriptor = a.backup(1, "backup.json");
    let v = a.with(edit(descriptor.clone(), "\"complete\"", "\"damaged\""), |a| {
        Verified::run(&a.pitr, &["--quick"])
    });
    assert_eq!(v.kinds(), ["damaged-pages"], "{}", v.document);
    let v = a
        .with(edit(descriptor.clone(), "\"system_identifier\": \"", "\"system_identifier\": \"1"), |a| {
            Verified::run(&a.pitr, &["--quick"])
        });
    assert_eq!(v.kinds(), ["foreign"], "{}", v.document);
    let v =
        a.with(edit(descriptor, "\"format\": 1", "\"format\": 9"), |a| Verified::run(&a.pitr, &["--quick"]));
    assert_eq!(v.kinds(), ["newer-format"], "{}", v.document);

    // An end that is not the server's own.
    let v = a.with(
        |a| {
            let path = a.path(&a.backup(0, "backup.json"));
            let mut said: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            said["stop_lsn"] = said["start_lsn"].clone();
            std::fs::write(path, said.to_string()).unwrap();
        },
        |a| Verified::run(&a.pitr, &["--quick"]),
    );
    assert!(lost(v.problem("backup-mismatch")).contains(&a.backups[0]), "{}", v.document);
    // Without its last write a whole backup looks like one that was never finished.
    let v = a.with(|a| remove(&a.backup(0, "backup.json")), |a| Verified::run(&a.pitr, &["--quick"]));
    let p = v.problem("leftover");
    assert!(lost(p).contains(&a.backups[0]) && p["what"].as_str().unwrap().contains("backup.json"), "{p}");

    // What has no business here.
    let begun = "main/0001/backup/20200101T000000Z-full";
    let strangers = |a: &Archive| {
        std::fs::create_dir_all(a.path(begun)).unwrap();
        std::fs::write(a.path(&format!("{begun}/started.json")), "{}").unwrap();
        std::fs::create_dir_all(a.path("probe")).unwrap();
        let probe = std::fs::File::create(a.path("probe/old")).unwrap();
        probe.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        std::fs::write(a.path("probe/new"), "").unwrap();
        std::fs::write(a.path("notes.txt"), "").unwrap();
        std::fs::write(a.path("main/0001/wal/notes.txt"), "").unwrap();
        std::fs::create_dir_all(a.path("main/hello")).unwrap();
        std::fs::write(a.path("main/hello/x"), "").unwrap();
        std::fs::write(a.path(&a.backup(0, "base/0000009999.zst")), "").unwrap();
    };
    let v = a.with(strangers, |a| Verified::run(&a.pitr, &["--quick"]));
    let mut named: Vec<_> = v.problems().iter().map(|p| p["object"].as_str().unwrap().to_owned()).collect();
    named.sort();
    let extra = a.backup(0, "base/0000009999.zst");
    let mut expected = vec![
        format!("{begun}/"),
        extra,
        "main/0001/wal/notes.txt".into(),
        "main/hello/".into(),
        "notes.txt".into(),
        "probe/old".into(),
    ];
    expected.sort();
    assert_eq!(named, expected, "{}", v.document);
    assert!(
        v.kinds().iter().all(|kind| *kind == "leftover") && v.problems().iter().all(|p| lost(p).is_empty())
    );

    // Nothing is left to restore, however little is left to be wrong.
    for (gone, object) in
        [("main", "repository.json"), ("main/0001", "main/0001/"), ("main/0001/backup", "main/0001/")]
    {
        let v = a.with(
            |a| std::fs::remove_dir_all(a.path(gone)).unwrap(),
            |a| Verified::run(&a.pitr, &["--quick"]),
        );
        let p = v.problem("no-backup");
        assert_eq!(p["object"], object, "{}", v.document);
        assert!(p["todo"].as_str().unwrap().contains("run pitr backup"), "{p}");
    }

    // Descriptors without which nobody finds anything.
    let v = a.with(|_| remove("main/identity/0001.json"), |a| Verified::run(&a.pitr, &["--quick"]));
    assert_eq!(v.kinds(), ["missing-descriptor"], "{}", v.document);
    assert!(lost(v.problem("missing-descriptor")).contains("epoch 0001"), "{}", v.document);
    let v = a.with(|_| remove("main/cluster.json"), |a| Verified::run(&a.pitr, &["--quick"]));
    assert!(lost(v.problem("missing-descriptor")).contains("cluster main"), "{}", v.document);
}
