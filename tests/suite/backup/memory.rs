//! A backup's memory is a constant, whatever the size of the database or of a single file.

use std::io::Read;
use std::path::Path;
use std::process::Stdio;

use pitr::repository::backup_set::format::Backup;
use pitr::storage::Storage;

use super::{restore_by_hand, started, verify};
use crate::support::{Pitr, S3Kind, S3Server, Server, TestDir};

/// Takes a backup and looks at its process: the greatest memory in MiB.
fn measured(pitr: &Pitr) -> (u64, Backup) {
    let mut child =
        pitr.command(["backup", "--wal=include", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
        let now = line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0);
        peak = peak.max(now >> 10);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success(), "the backup has failed, see above");
    (peak, serde_json::from_str(&said).unwrap())
}

/// Everything of a bucket as files, for tools that know nothing of buckets.
fn download(storage: &impl Storage, to: &Path) {
    let mut names = Vec::new();
    storage.list("", None, &mut |object| names.push(object.name)).unwrap();
    for name in names {
        let path = to.join(&name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, storage.read(&name).unwrap().unwrap()).unwrap();
    }
}

#[test]
fn a_big_file_takes_no_more_memory_into_a_directory_a_bucket_or_two_of_them() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let server =
        Server::build(&dir, "primary").set("max_wal_size", "4GB").set("wal_level", "replica").start();
    // One file that hardly compresses, so that many parts are filled.
    server.sql(
        "CREATE UNLOGGED TABLE u AS SELECT decode(md5(i::text) || md5((i * 7)::text), 'hex') b FROM generate_series(1, 150000) i;
         CREATE TABLE t AS SELECT (SELECT string_agg(b, '') FROM (SELECT b FROM u OFFSET n * 30 LIMIT 30) x) b FROM generate_series(0, 999) n;",
    );
    for _ in 0..8 {
        server.sql("INSERT INTO t SELECT sha256(b) || substr(b, 200) || sha512(b) FROM t");
    }
    server.sql("DROP TABLE u; CHECKPOINT;");
    let (peak, backup) = measured(&Pitr::new(&dir).connecting_to(&server));
    eprintln!("file://: {peak} MiB for {} MiB in {} parts", backup.size >> 20, backup.archives[0].parts);
    assert!(backup.size > 100 << 20 && backup.archives[0].parts >= 3, "{:?}", backup.archives);
    assert!(peak > 0 && peak < 100, "{peak} MiB");

    let store = S3Server::start(S3Kind::Ceph);
    let bucket = store.bucket();
    let mut pitr = Pitr::new(&dir).repository(format!("s3://{bucket}/some/prefix")).connecting_to(&server);
    for (name, value) in store.environment() {
        pitr = pitr.env(name, value);
    }
    let (peak, backup) = measured(&pitr);
    eprintln!("s3://: {peak} MiB for {} MiB in {} parts", backup.size >> 20, backup.archives[0].parts);
    assert!(peak > 0 && peak < 150, "{peak} MiB");
    let mirror = dir.join("mirror");
    download(&store.patient(&bucket, "some/prefix"), &mirror);

    // To several at once: what waits for them is no more than for one.
    let places = ["a", "b"].map(|place| {
        let endpoint =
            store.environment().into_iter().find(|(name, _)| name.ends_with("ENDPOINT")).unwrap().1;
        format!("[[repository]]\nurl = 's3://{bucket}/{place}'\nendpoint = '{endpoint}'\n")
    });
    let config = dir.write("two.toml", places.concat());
    let both = pitr.without("PITR_REPOSITORY").without("PITR_REPOSITORY_ENDPOINT");
    let (peak, _) = measured(&both.env("PITR_CONFIG", config.display().to_string()));
    eprintln!("two s3://: {peak} MiB");
    assert!(peak > 0 && peak < 150, "{peak} MiB");
    verify(&server, &restore_by_hand(&mirror, &backup, &dir.join("restored")));
}

#[test]
fn segments_of_any_size_are_streamed_in_little_memory() {
    let dir = TestDir::new();
    let pitr = Pitr::new(&dir);
    let server =
        Server::build(&dir, "primary").initdb("--wal-segsize=256").set("max_wal_size", "1GB").start();
    server.sql("CREATE TABLE t AS SELECT generate_series(1, 100000) i;");
    let (peak, backup) = measured(&pitr.clone().connecting_to(&server));
    eprintln!("256 MiB a segment: {peak} MiB");
    assert!(peak > 0 && peak < 100, "{peak} MiB");
    drop(server);
    let data = restore_by_hand(&dir.join("repo"), &backup, &dir.join("restored"));
    let copy = started(&dir, &pitr, &backup, &data);
    assert_eq!(copy.sql("SELECT count(*) FROM t"), "100000");
}
