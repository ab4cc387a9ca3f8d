//! A verification that is killed goes on where it was, reads no object twice, and tells of both halves.

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use super::{Archive, Verified};
use crate::support::wait_until;

/// What a killed run has left: how many objects, and frames of backups, with the names of the folders.
fn kept(a: &Archive) -> (u64, u64) {
    let Ok(mut files) = std::fs::read_dir(a.dir.join("spool/verify")) else { return (0, 0) };
    // A file that is being replaced is whole, or not there yet.
    let file =
        files.find_map(|f| f.ok().map(|f| f.path()).filter(|p| p.extension().is_some_and(|e| e == "json")));
    let text = file.and_then(|file| std::fs::read(file).ok()).unwrap_or_default();
    let state: Value = serde_json::from_slice(&text).unwrap_or_default();
    let sum = |what: &str, of: &str| -> u64 {
        let all = state[what].as_object().map(|all| all.values().map(|v| v[of].as_u64().unwrap()).sum());
        all.unwrap_or(0)
    };
    (sum("folders", "objects"), sum("backups", "frames"))
}

#[track_caller]
fn kill_when(a: &Archive, arguments: &[&str], far: impl Fn((u64, u64)) -> bool) {
    let mut all = vec!["verify", "--max-rate=1M", "--threads=1"];
    all.extend(arguments);
    let mut child = a.pitr.command(all).spawn().unwrap();
    wait_until("the run has come far enough", 60, || far(kept(a)));
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success(), "it had ended by itself");
}

fn flip(a: &Archive, object: &str, at: usize) {
    let mut bytes = std::fs::read(a.path(object)).unwrap();
    bytes[at] ^= 0x40;
    std::fs::write(a.path(object), bytes).unwrap();
}

#[test]
fn a_killed_run_goes_on_where_it_was_and_tells_of_both_halves() {
    let archive = Archive::new();
    let a = &archive;
    let early = Archive::segment("000000010000000000000001");
    let late = a.backup(1, "base/0000000000.zst");
    flip(a, &early, 50_000);
    flip(a, &late, 5_000);
    let whole = Verified::run(&a.pitr, &[]);
    assert_eq!(whole.kinds(), ["damaged-object", "damaged-part"], "{}", whole.document);

    kill_when(a, &[], |(objects, _)| objects >= 1);
    let (objects, _) = kept(a);
    // What was read before must not be read again: now it cannot be.
    let lock = |mode: u32| {
        for object in [&early, &Archive::segment("000000010000000000000002")]
            .into_iter()
            .take(usize::try_from(objects).unwrap())
        {
            std::fs::set_permissions(a.path(object), std::fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    lock(0o000);
    kill_when(a, &["--resume"], |(_, frames)| frames >= 1);
    let (more, frames) = kept(a);
    assert!(more >= objects, "{more} after {objects}");
    let v = Verified::run(&a.pitr, &["--resume"]);
    lock(0o640);
    assert_eq!(v.problems(), whole.problems(), "{}", v.document);
    assert!(v.amount("resumed", "objects") == more && frames >= 1, "{}", v.document);
    let sum = |what| v.amount("checked", what) + v.amount("resumed", what);
    assert_eq!(
        (sum("objects"), sum("bytes")),
        (whole.amount("checked", "objects"), whole.amount("checked", "bytes")),
        "{}",
        v.document
    );
    // All was looked at: the next run begins anew.
    assert_eq!(kept(a), (0, 0));
    let again = Verified::run(&a.pitr, &["--resume"]);
    assert_eq!(again.amount("resumed", "bytes"), 0, "{}", again.document);

    // What has changed since is looked at again, and so is everything where the state is not to be trusted.
    kill_when(a, &[], |(objects, _)| objects >= 1);
    std::fs::remove_file(a.path(&early)).unwrap();
    let v = Verified::run(&a.pitr, &["--resume"]);
    assert_eq!(v.kinds(), ["damaged-part"], "{}", v.document);
    assert_eq!(v.amount("resumed", "objects"), 0);

    kill_when(a, &[], |(objects, _)| objects >= 1);
    let file = std::fs::read_dir(a.dir.join("spool/verify")).unwrap().next().unwrap().unwrap().path();
    std::fs::write(&file, "{\"format\":1").unwrap();
    let done = a.pitr.run(["verify", "--resume", "--json"]);
    done.expect_said("everything is looked at again");
    let v = Verified::of(&done);
    assert_eq!((v.kinds(), v.amount("resumed", "objects")), (vec!["damaged-part"], 0));
    // Without --resume nothing of an earlier run counts.
    kill_when(a, &[], |(objects, _)| objects >= 1);
    assert_eq!(Verified::run(&a.pitr, &["--quick"]).amount("resumed", "objects"), 0);
    assert_eq!(Verified::run(&a.pitr, &[]).amount("resumed", "objects"), 0);
}
