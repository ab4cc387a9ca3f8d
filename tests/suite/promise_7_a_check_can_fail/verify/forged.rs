//! Objects that are whole and say what is not so, and segments that came damaged or cut off. What verify says is lost is what a
//! restore's plan refuses.

use pitr::types::{Lsn, TimelineId};

use super::{Archive, Verified, lost};
use crate::support::wal_bytes;

#[test]
fn a_summary_that_lies_and_a_segment_that_is_another_ones_are_found_in_the_bytes() {
    let archive = Archive::new();
    let a = &archive;
    let name = a.first[1].as_str();
    let object = Archive::segment(name);
    let bytes = a.original(name);

    // The same bytes with a true summary of our making are no problem.
    let v = a.with(|a| a.forge(name, &bytes, |_| {}), |a| Verified::run(&a.pitr, &[]));
    assert!(v.kinds().is_empty(), "{}", v.document);

    type Lie = fn(&mut pitr::repository::wal_archive::WalContent);
    let lies: [(&str, Lie); 8] = [
        ("commits is", |c| c.commits += 1),
        ("records is", |c| c.records -= 1),
        ("first_record is", |c| c.first_record = c.last_record),
        ("times is", |c| c.times = None),
        ("restore_points is", |c| c.restore_points.clear()),
        ("until is", |c| c.until = None),
        ("damage is", |c| c.damage = Some("a broken page header at 0/1".to_owned())),
        ("kinds is", |c| c.kinds.clear()),
    ];
    for (words, lie) in lies {
        let v = a.with(|a| a.forge(name, &bytes, lie), |a| Verified::run(&a.pitr, &[]));
        assert_eq!(v.kinds(), ["summary-lies"], "{words}: {}", v.document);
        let p = v.problem("summary-lies");
        assert_eq!(p["object"], object.as_str());
        assert!(p["what"].as_str().unwrap().contains(words), "{p}");
        assert_eq!(lost(p), "", "the bytes are good: {p}");
    }
    // What cannot be true shows without reading the bytes.
    let impossible: [Lie; 2] = [|c| c.end_of_valid = Lsn(1), |c| c.timeline = Some(TimelineId(9))];
    for lie in impossible {
        let v = a.with(|a| a.forge(name, &bytes, lie), |a| Verified::run(&a.pitr, &["--quick"]));
        assert_eq!(v.kinds(), ["summary-lies"], "{}", v.document);
    }

    // Bytes of another segment, timeline and system, with a summary that says they are the right ones.
    let truth = wal_bytes::scan(name, &bytes);
    let other = a.original(&a.first[2]);
    let mut later = bytes.clone();
    later[4] = 9;
    let mut stranger = bytes.clone();
    stranger[24] ^= 1;
    let mut size = bytes.clone();
    size[34] ^= 3;
    for (kind, wrong) in
        [("misnamed", &other), ("misnamed", &later), ("misnamed", &size), ("foreign", &stranger)]
    {
        let says = |c: &mut pitr::repository::wal_archive::WalContent| *c = (&truth).into();
        let v = a.with(|a| a.forge(name, wrong, says), |a| Verified::run(&a.pitr, &[]));
        assert_eq!(v.kinds(), [kind], "{}", v.document);
        assert!(lost(v.problem(kind)).contains(&format!("restores from backup {} ", a.backups[0])));
    }
    // The stranger's own summary gives it away.
    let v = a.with(|a| a.forge(name, &stranger, |_| {}), |a| Verified::run(&a.pitr, &["--quick"]));
    assert_eq!(v.kinds(), ["foreign"], "{}", v.document);

    // Of a later version: nothing is known of it, and nothing claimed.
    let newer = |a: &Archive| {
        let mut bytes = std::fs::read(a.path(&object)).unwrap();
        let at = bytes.windows(9).position(|w| w == b"\"format\":").unwrap();
        bytes[at + 9] = b'9';
        std::fs::write(a.path(&object), bytes).unwrap();
    };
    let v = a.with(newer, |a| Verified::run(&a.pitr, &[]));
    assert_eq!(v.kinds(), ["newer-format"], "{}", v.document);
    let p = v.problem("newer-format");
    assert!(p["todo"].as_str().unwrap().contains("newer version"), "{p}");
    assert!(lost(p).contains("unless it can be read"), "{p}");

    // A piece of a segment under a name that promises more.
    let piece = |a: &Archive| {
        let folder = "main/0001/stream/00000002";
        std::fs::create_dir_all(a.path(folder)).unwrap();
        std::fs::copy(a.path(&object), a.path(&format!("{folder}/0000000020000000-0000000020001000.zst")))
            .unwrap();
    };
    let v = a.with(piece, |a| Verified::run(&a.pitr, &["--quick"]));
    assert_eq!(v.kinds(), ["misnamed"], "{}", v.document);
}

/// Whether a restore to the end of a timeline from the first backup is refused.
fn refused(a: &Archive, timeline: u32) -> bool {
    let to = format!("--to={}", a.dir.join("copy").display());
    let (backup, timeline) = (format!("--backup={}", a.backups[0]), format!("--target-timeline={timeline}"));
    let done = a.pitr.run(["restore", "--plan", "--json", &to, &backup, &timeline]);
    assert!(matches!(done.code, Some(0 | 1)), "{done:?}");
    done.code == Some(1)
}

#[test]
fn what_is_said_to_be_lost_is_what_a_plan_refuses() {
    let archive = Archive::new();
    let a = &archive;
    let healthy =
        a.with(|_| {}, |a| (Verified::run(&a.pitr, &[]).kinds().len(), refused(a, 1), refused(a, 2)));
    assert_eq!(healthy, (0, false, false));
    // One on the way of both timelines, one on the new one's, the one in which it begins, and the old one's end.
    let on_the_old_way = (a.first[1].as_str(), true, true);
    let on_the_new_way = (a.second[0].as_str(), false, true);
    let last_of_the_old = a.first.last().unwrap().as_str();
    type Harm = fn(&Archive, &str, &[u8]);
    let harms: [(&str, Harm); 4] = [
        ("missing-wal", |a, name, _| std::fs::remove_file(a.path(&Archive::segment(name))).unwrap()),
        ("damaged-wal", |a, name, bytes| a.forge(name, &wal_bytes::damaged(name, bytes, 0x30), |_| {})),
        ("cut-off", |a, name, bytes| a.forge(name, &wal_bytes::cut_off(name, bytes, 0x30), |_| {})),
        ("damaged-object", |a, name, _| {
            let mut bytes = std::fs::read(a.path(&Archive::segment(name))).unwrap();
            // In the summary: a plan reads no more of it.
            bytes[8] ^= 0x40;
            std::fs::write(a.path(&Archive::segment(name)), bytes).unwrap();
        }),
    ];
    for (kind, harm) in harms {
        for (name, old, new) in [on_the_old_way, on_the_new_way, (&a.switch[1], false, true)] {
            let bytes = a.original(name);
            let (v, plans) = a.with(
                |a| harm(a, name, &bytes),
                |a| (Verified::run(&a.pitr, &[]), (refused(a, 1), refused(a, 2))),
            );
            assert_eq!(v.kinds(), [kind], "{name}: {}", v.document);
            let p = v.problem(kind);
            assert_eq!(p["object"], Archive::segment(name).as_str());
            // It names the newest of the backups that lead there, and counts the others.
            let said = |timeline: &str| {
                p["lost"].as_array().unwrap().iter().any(|line| {
                    let line = line.as_str().unwrap().replace("timelines 1, 2", "timeline 1, timeline 2");
                    line.contains(" past ") && line.contains(&format!("timeline {timeline}"))
                })
            };
            assert_eq!((said("1"), said("2")), (old, new), "{kind} {name}: {p}");
            assert_eq!(plans, (old, new), "{kind} {name}: the plans");
        }
    }
    // A copy that was cut off where its timeline ends is how a promotion leaves it.
    let last = a.second.last().unwrap().as_str();
    let cut = wal_bytes::cut_off(last, &a.original(last), 0x30);
    let v = a.with(|a| a.forge(last, &cut, |_| {}), |a| Verified::run(&a.pitr, &[]));
    assert!(v.kinds().is_empty(), "{}", v.document);
    // The longer copy beside it is the one that counts, also in the middle.
    let bytes = a.original(last_of_the_old);
    let both = |a: &Archive| {
        a.forge(last_of_the_old, &wal_bytes::cut_off(last_of_the_old, &bytes, 0x30), |_| {});
        a.dir.account().own_tree(&a.root());
        a.push(last_of_the_old, &bytes);
    };
    let v = a.with(both, |a| Verified::run(&a.pitr, &[]));
    assert!(v.kinds().is_empty(), "{}", v.document);
}

#[test]
fn only_what_later_moments_need_is_looked_at() {
    let archive = Archive::new();
    let a = &archive;
    let all = Verified::run(&a.pitr, &["--quick"]);
    let second: serde_json::Value =
        serde_json::from_slice(&std::fs::read(a.path(&a.backup(1, "backup.json"))).unwrap()).unwrap();
    let since = format!("--since={}", second["stop_time"].as_str().unwrap());
    let lose = |name: &str| std::fs::remove_file(a.path(&Archive::segment(name))).unwrap();
    let v = a.with(|a| lose(&a.first[1]), |a| Verified::run(&a.pitr, &["--quick", &since]));
    assert!(v.kinds().is_empty(), "{}", v.document);
    assert!(v.amount("checked", "objects") < all.amount("checked", "objects"), "{}", v.document);
    let v = a.with(|a| lose(&a.second[1]), |a| Verified::run(&a.pitr, &["--quick", &since]));
    assert_eq!(v.kinds(), ["missing-wal"], "{}", v.document);
    // From before the second backup on, the first one is needed with all that follows.
    let v = a.with(|a| lose(&a.first[1]), |a| Verified::run(&a.pitr, &["--quick", "--since=1 hour ago"]));
    assert_eq!(v.kinds(), ["missing-wal"], "{}", v.document);
    a.pitr.run(["verify", "--since=yesterday"]).expect_code(2);
    a.pitr.run(["verify", "--since=2026-01-01 00:00"]).expect_code(2);
}
