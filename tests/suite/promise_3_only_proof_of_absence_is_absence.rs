//! Promise 3: only proof of absence is absence. Exit 1 is proof; everything else that is not the file is 255, and no server in
//! recovery opens because of it.

use std::path::Path;

use crate::support::{
    Answer, BrokenS3, Finished, Pitr, S3Kind, S3Server, Server, StopMode, TestDir, wait_until, wal_bytes,
};

#[test]
fn archive_get_says_absent_only_with_proof() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    dir.create_dir("empty");
    let pitr = Pitr::new(&dir);
    let server = Server::build(&dir, "primary").archive_command(&pitr.hook("archive-push %p")).start();
    let stored = server.archive_now();
    let pitr = pitr.in_dir(server.file(""));
    let out = dir.join("out");
    let out = out.display().to_string();
    let get = |pitr: &Pitr, name: &str| pitr.run(["archive-get", name, &out]);

    get(&pitr, &stored).expect_code(0);
    assert_eq!(std::fs::read(&out).unwrap().len(), 16 << 20, "a segment is delivered whole");
    get(&pitr, "000000010000000F00000001").expect_code(1);

    let elsewhere = |place: &str| format!("file://{}", dir.join(place).display());
    get(&pitr.clone().repository(elsewhere("empty")), &stored).expect_code(255);
    get(&pitr.clone().repository(elsewhere("gone")), &stored).expect_code(255);
    get(&pitr.clone().env("PITR_CLUSTER", "other"), &stored).expect_code(255);
    get(&pitr.clone().without("PITR_REPOSITORY"), &stored).expect_code(255);
    get(&pitr.clone().env("PITR_CONFIG", "/nonexistent.toml"), &stored).expect_code(255);
    get(&pitr, &format!("pg_wal/{stored}")).expect_code(255);
    pitr.run(["archive-get", "--mistyped", &stored, &out]).expect_code(255);
    pitr.run(["archive-gte", &stored, &out]).expect_code(255);

    let object = dir.join(format!("repo/main/0001/wal/00000001/{}/{stored}.zst", &stored[8..16]));
    let mut bytes = std::fs::read(&object).unwrap();
    let at = bytes.len() - 100;
    bytes[at] ^= 1;
    std::fs::write(&object, bytes).unwrap();
    get(&pitr, &stored).expect_code(255);

    std::fs::rename(dir.join("repo"), dir.join("moved")).unwrap();
    dir.create_dir("repo");
    get(&pitr, &stored).expect_code(255);
    let push = pitr.run(["archive-push", &format!("pg_wal/{stored}")]);
    push.expect_code(1);
    push.expect_said("is not the repository that this host has used");
}

/// A server about to recover: it has the WAL of its own copy, and everything later is only in the archives (a directory and a
/// bucket). Whoever tells it "not there" makes it open without what came later.
struct Recovery {
    dir: TestDir,
    pitr: Pitr,
    store: S3Server,
    bucket: String,
    server: Server,
    /// A segment in the middle of what it needs.
    needed: String,
}

const ROWS: &str = "5000";

impl Recovery {
    fn new() -> Self {
        let dir = TestDir::new();
        dir.create_dir("repo");
        let store = S3Server::start(S3Kind::Moto);
        let bucket = store.bucket();
        // A budget of its own for reading: nobody waits a minute for each broken store here.
        let pitr = Pitr::new(&dir).env("PITR_ARCHIVE_GET_RETRY", "1");
        let remote = in_bucket(&pitr, &store, &format!("s3://{bucket}/prod"));
        let both = format!("{} && {}", pitr.hook("archive-push %p"), remote.hook("archive-push %p"));
        let mut primary =
            Server::build(&dir, "primary").initdb("--wal-segsize=1").archive_command(&both).start();
        primary
            .sql("CREATE TABLE t AS SELECT n, repeat(md5(n::text), 10) AS v FROM generate_series(1, 1000) n");
        let server = primary.copy(&dir, "copy");
        server.append_setting("archive_mode", "off");
        dir.write(server.file("recovery.signal"), "");
        primary.sql("INSERT INTO t SELECT n, repeat(md5(n::text), 10) FROM generate_series(1001, 3000) n");
        let needed = primary.archive_now();
        primary.sql("INSERT INTO t SELECT n, repeat(md5(n::text), 10) FROM generate_series(3001, 5000) n");
        primary.archive_now();
        primary.stop(StopMode::Fast);
        Self { dir, pitr, store, bucket, server, needed }
    }

    fn get(&self) -> String {
        self.pitr.hook("archive-get %f %p")
    }

    fn with(&self, name: &str, value: &str) -> String {
        self.pitr.clone().env(name, value).hook("archive-get %f %p")
    }

    fn url(&self, place: &str) -> String {
        format!("file://{}", self.dir.join(place).display())
    }

    fn object(&self) -> std::path::PathBuf {
        let folder = format!("repo/main/0001/wal/00000001/{}", &self.needed[8..16]);
        self.dir.join(format!("{folder}/{}.zst", self.needed))
    }

    /// Starts the server with this `restore_command`, and waits until it has given up; it must not have opened.
    #[track_caller]
    fn must_not_open(&mut self, case: &str, command: &str) -> String {
        let before = self.server.log().len();
        self.server.append_setting("restore_command", command);
        self.server.spawn();
        let opened =
            |log: &str| log.contains("archive recovery complete") || log.contains("selected new timeline");
        let mut log = String::new();
        wait_until(case, 60, || {
            log = self.server.log()[before..].to_owned();
            assert!(!opened(&log), "{case}: the server opened\n{log}");
            self.server.exited().is_some()
        });
        log = self.server.log()[before..].to_owned();
        assert!(!opened(&log), "{case}: the server opened\n{log}");
        assert!(self.server.file("recovery.signal").exists(), "{case}: recovery is over\n{log}");
        log
    }

    /// With what was wrong put right, nothing is lost.
    #[track_caller]
    fn recovers(&mut self) {
        self.server.append_setting("restore_command", &self.get());
        self.server.start();
        self.server.wait_for("SELECT pg_is_in_recovery()", "f", 60);
        assert_eq!(self.server.sql("SELECT count(*) FROM t"), ROWS);
        self.server.stop(StopMode::Immediate);
    }
}

fn in_bucket(pitr: &Pitr, store: &S3Server, url: &str) -> Pitr {
    let pitr = pitr.clone().repository(url);
    store.environment().into_iter().fold(pitr, |pitr, (name, value)| pitr.env(name, value))
}

#[test]
fn a_server_that_is_told_absent_opens_and_has_lost_what_came_later() {
    // What all the other tests are about; and the proof that they would see it.
    let mut recovery = Recovery::new();
    let lie = format!("case %f in {}) exit 1;; *) {};; esac", recovery.needed, recovery.get());
    recovery.server.append_setting("restore_command", &lie);
    recovery.server.start();
    recovery.server.wait_for("SELECT pg_is_in_recovery()", "f", 60);
    assert_ne!(recovery.server.sql("SELECT count(*) FROM t"), ROWS);
    let log = recovery.server.log();
    assert!(log.contains("archive recovery complete") && log.contains("selected new timeline"), "{log}");
    assert!(!recovery.server.file("recovery.signal").exists());
}

#[test]
fn no_state_of_a_directory_opens_a_server_in_recovery() {
    let mut recovery = Recovery::new();
    let get = recovery.get();
    let repo = recovery.dir.join("repo");
    let aside = recovery.dir.join("aside");
    let fresh = recovery.dir.join("fresh-spool").display().to_string();

    let log =
        recovery.must_not_open("a wrong path", &recovery.with("PITR_REPOSITORY", &recovery.url("gone")));
    assert!(log.contains("is the disk mounted"), "{log}");
    let within = recovery.with("PITR_REPOSITORY", &recovery.url("repo/main"));
    let log = recovery.must_not_open("a path into the repository", &within);
    assert!(log.contains("no pitr repository"), "{log}");

    std::fs::rename(&repo, &aside).unwrap();
    recovery.must_not_open("a missing directory", &get);
    recovery.dir.create_dir("repo");
    let log = recovery.must_not_open("an unmounted directory, known to this host", &get);
    assert!(log.contains("is not the repository that this host has used"), "{log}");
    let log = recovery
        .must_not_open("an unmounted directory, on a new host", &recovery.with("PITR_ARCHIVE_SPOOL", &fresh));
    assert!(log.contains("is empty") && log.contains("is the disk mounted"), "{log}");
    std::fs::remove_dir(&repo).unwrap();
    std::fs::rename(&aside, &repo).unwrap();

    let mode =
        |bits| std::fs::set_permissions(&repo, std::os::unix::fs::PermissionsExt::from_mode(bits)).unwrap();
    mode(0o000);
    let log = recovery.must_not_open("a directory that may not be read", &get);
    assert!(log.contains("may this user read"), "{log}");
    mode(0o750);

    let log = recovery.must_not_open("another cluster's name", &recovery.with("PITR_CLUSTER", "other"));
    assert!(log.contains("there are: main"), "{log}");
    for name in ["repository.json", "main/cluster.json", "main/identity/0001.json"] {
        let path = repo.join(name);
        let good = std::fs::read(&path).unwrap();
        std::fs::write(&path, &good[..good.len() / 2]).unwrap();
        recovery.must_not_open(&format!("half of {name}"), &get);
        let newer = String::from_utf8(good.clone()).unwrap().replace("\"format\": 1", "\"format\": 99");
        std::fs::write(&path, newer).unwrap();
        let log = recovery.must_not_open(&format!("a newer {name}"), &get);
        assert!(log.contains("has format 99") && log.contains("newer version of pitr"), "{log}");
        std::fs::remove_file(&path).unwrap();
        recovery.must_not_open(&format!("no {name}"), &get);
        std::fs::write(&path, good).unwrap();
        recovery.dir.account().own(&path);
    }

    let object = recovery.object();
    let good = std::fs::read(&object).unwrap();
    let mut flipped = good.clone();
    let at = flipped.len() - 100;
    flipped[at] ^= 1;
    let absent = recovery.pitr.hook("archive-get --unreachable=absent %f %p");
    for (case, bytes) in [
        ("a flipped bit", &flipped[..]),
        ("a truncated object", &good[..good.len() - 1]),
        ("an empty object", &[]),
    ] {
        std::fs::write(&object, bytes).unwrap();
        let log = recovery.must_not_open(case, &get);
        assert!(log.contains(&format!("{}.zst is damaged", recovery.needed)), "{case}: {log}");
        // Damage is no lost connection, whatever a standby may do without one.
        recovery.must_not_open(case, &absent);
    }
    std::fs::write(&object, good).unwrap();
    recovery.recovers();
}

#[test]
fn no_mistyped_line_opens_a_server_in_recovery() {
    let mut recovery = Recovery::new();
    let pitr = recovery.pitr.clone();
    for arguments in [
        "archive-get --unreachble=absent %f %p",
        "archive-get --unreachable=maybe %f %p",
        "archive-get --bogus %f %p",
        "archive-get %f",
        "archive-get %p %f",
        "archive-get %f %p %r",
        "archive-get %f RECOVERYXLOG",
        "archive-get %f pg_wal/%f",
        "archive-get %f /tmp/pitr-test-RECOVERED",
        "archive-get --help %f %p",
        "--confg /etc/pitr.toml archive-get %f %p",
        "--cluster backup archve-get %f %p",
        "archive-gett %f %p",
        "archive_get %f %p",
        "archive-push %p",
        "archive-push %f",
        "restore %f %p",
        "info %f %p",
        "",
    ] {
        recovery.must_not_open(&format!("pitr {arguments}"), &pitr.hook(arguments));
    }
    let unconfigured = pitr.clone().without("PITR_REPOSITORY");
    let unknown = recovery.dir.write("unknown.toml", "[archive]\nspol = \"/x\"\n");
    let broken = recovery.dir.write("broken.toml", "[[repository]\n");
    for (case, pitr) in [
        ("no configuration", unconfigured.clone()),
        ("a missing configuration file", unconfigured.clone().env("PITR_CONFIG", "/nonexistent.toml")),
        ("an unknown key", unconfigured.clone().env("PITR_CONFIG", unknown.display().to_string())),
        ("a broken configuration", unconfigured.env("PITR_CONFIG", broken.display().to_string())),
        ("a mistyped URL", pitr.clone().repository("fil:///var/lib/pitr")),
        ("a mistyped cluster", pitr.clone().env("PITR_CLUSTER", "no/name")),
    ] {
        recovery.must_not_open(case, &pitr.hook("archive-get %f %p"));
    }
    recovery.must_not_open("no binary", "/nonexistent/pitr archive-get %f %p");
    recovery.recovers();
}

#[test]
fn a_gap_is_no_end_for_a_server_that_would_open_there() {
    let mut recovery = Recovery::new();
    let (object, needed) = (recovery.object(), recovery.needed.clone());
    let aside = recovery.dir.join("aside");
    std::fs::rename(&object, &aside).unwrap();
    let get = recovery.get();
    let log = recovery.must_not_open("a lost segment", &get);
    assert!(log.contains(&format!("{needed} is in no repository, and 0000")), "{log}");
    assert!(log.contains("a gap, not the end") && log.contains("pitr restore --target-lsn"), "{log}");

    // By hand in the same place: what the exit code hangs on.
    let pitr = recovery.pitr.clone().in_dir(recovery.server.file(""));
    let code = || pitr.run(["archive-get", &needed, "pg_wal/RECOVERYXLOG"]).code.unwrap();
    assert_eq!(code(), 255);
    let last = |name: &str| pitr.run(["archive-get", name, "pg_wal/RECOVERYXLOG"]).code.unwrap();
    assert_eq!(last("000000010000000F00000001"), 1, "the end of the archive is its end");
    assert_eq!(last("000000020000000000000001"), 1, "another timeline");
    let auto = recovery.server.file("postgresql.auto.conf");
    let before = std::fs::read_to_string(&auto).unwrap();
    std::fs::write(&auto, format!("{before}\nrecovery_target_lsn = '0/1'\n")).unwrap();
    assert_eq!(code(), 1, "a server does not open before its target, and may ask ahead of it");
    std::fs::write(&auto, before).unwrap();
    let opts = recovery.server.file("postmaster.opts");
    let conf = recovery.dir.write("elsewhere.conf", "recovery_target_name = 'there'\n");
    for argument in ["recovery_target_lsn=0/1".to_owned(), format!("config_file={}", conf.display())] {
        recovery.dir.write(&opts, format!("/bin/postgres \"-D\" \"data\" \"-c\" \"{argument}\"\n"));
        assert_eq!(code(), 1, "{argument}");
    }
    let emptied = "\"-c\" \"recovery_target_lsn=0/1\" \"-c\" \"recovery_target_lsn=\"";
    recovery.dir.write(&opts, format!("/bin/postgres \"-D\" \"data\" {emptied}\n"));
    assert_eq!(code(), 255, "of several arguments the last counts");
    let conf = recovery
        .dir
        .write("elsewhere.conf", "recovery_target_lsn = '0/1'\ninclude_if_exists = 'more.conf'\n");
    recovery
        .dir
        .write(&opts, format!("/bin/postgres \"-D\" \"data\" \"-c\" \"config_file={}\"\n", conf.display()));
    assert_eq!(code(), 255, "what is included may take a target away again");
    std::fs::remove_file(&opts).unwrap();
    assert_eq!(code(), 255);
    // By a script that runs elsewhere.
    let absolute = recovery.server.file("pg_wal/RECOVERYXLOG");
    let elsewhere = recovery.pitr.clone().in_dir("/");
    elsewhere.run(["archive-get", &needed, absolute.to_str().unwrap()]).expect_code(255);

    // Before a timeline began, nothing of it can be missing.
    let history = recovery.dir.write(recovery.server.file("pg_wal/00000002.history"), "1\t0/F000000\tx\n");
    pitr.ok(["archive-push", "pg_wal/00000002.history"]);
    recovery.dir.create_dir("repo/main/0001/wal/00000002/00000000");
    recovery.dir.write("repo/main/0001/wal/00000002/00000000/0000000200000000000000FF.zst", "");
    assert_eq!(last("0000000200000000000000EF"), 1);
    assert_eq!(last("0000000200000000000000F0"), 255);
    std::fs::remove_file(history).unwrap();
    std::fs::remove_dir_all(recovery.dir.join("repo/main/0001/wal/00000002")).unwrap();
    // Nothing of its own timeline is stored behind it, but a standby was promoted while the archiver lagged.
    let folder = object.parent().unwrap();
    let later: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name() > object.file_name())
        .collect();
    assert!(!later.is_empty());
    let away = |path: &Path| recovery.dir.join(format!("away-{}", path.file_name().unwrap().display()));
    later.iter().for_each(|path| std::fs::rename(path, away(path)).unwrap());
    let outcome = pitr.run(["archive-get", &needed, "pg_wal/RECOVERYXLOG"]);
    outcome.expect_code(255);
    outcome.expect_said("00000002.history, by which this timeline went on to 0/F000000");
    assert_eq!(last("0000000100000000000000EF"), 255, "the last one that is whole");
    assert_eq!(last("0000000100000000000000F0"), 1, "where the other timeline begins");
    std::fs::remove_file(recovery.dir.join("repo/main/0001/wal/00000002.history.zst")).unwrap();
    assert_eq!(code(), 1, "the archive ends before it");
    let partial = recovery
        .dir
        .write(folder.join(format!("0000000100000000000000F0.{}.partial.zst", "0".repeat(32))), "");
    assert_eq!(code(), 255, "the beginning of a later one");
    std::fs::remove_file(partial).unwrap();
    later.iter().for_each(|path| std::fs::rename(away(path), path).unwrap());
    let raw = zstd::decode_all(&std::fs::read(&aside).unwrap()[..]).unwrap();
    let own = recovery.server.file(format!("pg_wal/{needed}"));
    std::fs::write(&own, &raw).unwrap();
    recovery.dir.account().own(&own);
    assert_eq!(code(), 1, "the server has it itself");
    std::fs::write(&own, wal_bytes::cut_off(&needed, &raw, raw.len() / 2)).unwrap();
    assert_eq!(code(), 255, "it has half of it");
    std::fs::remove_file(&own).unwrap();
    recovery.dir.write(recovery.server.file("standby.signal"), "");
    assert_eq!(code(), 1, "a standby can stream");
    std::fs::remove_file(recovery.server.file("standby.signal")).unwrap();

    // Absent in one repository, there in the other: delivered.
    let url = format!("[[repository]]\nurl = \"{}\"\n", recovery.url("repo"));
    let bucket = format!(
        "[[repository]]\nurl = \"s3://{}/prod\"\nendpoint = \"{}\"\n",
        recovery.bucket, recovery.store.endpoint
    );
    let config = recovery.dir.write("both.toml", url + &bucket);
    let both = in_bucket(&recovery.pitr, &recovery.store, "").without("PITR_REPOSITORY");
    recovery.pitr = both.without("PITR_REPOSITORY_ENDPOINT").env("PITR_CONFIG", config.display().to_string());
    recovery.recovers();
}

#[test]
fn in_a_server_that_recovers_a_file_goes_where_the_server_looks_or_nowhere() {
    let server = Finished::new();
    let (name, bytes) = &server.segments[0];
    server.push(name, bytes).expect_code(0);
    let in_wal = |name: &str| server.data.join("pg_wal").join(name);
    std::fs::remove_file(in_wal(name)).unwrap();
    let own = in_wal(name).display().to_string();
    let recovers = in_wal("RECOVERYXLOG").display().to_string();
    let get = |destination: &str| server.pitr.run(["archive-get", name, destination]);

    // A stopped server: pg_rewind asks under the file's own name, whatever the current directory.
    server.dir.write(server.data.join("standby.signal"), "");
    get(&own).expect_code(0);
    std::fs::remove_file(&own).unwrap();
    let another = server.dir.create_dir("another");
    for running in ["standby.signal", "postmaster.pid"] {
        server.dir.write(another.join(running), "");
    }
    server.pitr.clone().in_dir(&another).run(["archive-get", name, &own]).expect_code(0);
    std::fs::remove_file(&own).unwrap();

    server.dir.write(server.data.join("postmaster.pid"), "");
    let elsewhere = server.dir.join("RECOVERYXLOG").display().to_string();
    for destination in ["out", "RECOVERYXLOG", &elsewhere, &own, &format!("pg_wal/{name}")] {
        let outcome = get(destination);
        outcome.expect_code(255);
        outcome.expect_said("is %p passed as the destination?");
        assert!(!server.data.join(destination).exists(), "{destination}");
    }
    for destination in ["pg_wal/RECOVERYXLOG", &recovers] {
        get(destination).expect_code(0);
        std::fs::remove_file(&recovers).unwrap();
    }
    std::fs::remove_file(server.data.join("postmaster.pid")).unwrap();
}

#[test]
fn no_answer_of_a_bucket_opens_a_server_in_recovery() {
    let mut recovery = Recovery::new();
    let ceph = S3Server::start(S3Kind::Ceph);
    let good = format!("s3://{}/prod", recovery.bucket);
    let at = |recovery: &Recovery, store: &S3Server, url: &str| in_bucket(&recovery.pitr, store, url);
    let get = |pitr: &Pitr| pitr.hook("archive-get %f %p");

    let moto = at(&recovery, &recovery.store, &good);
    let nobody = moto.clone().env("PITR_REPOSITORY_ENDPOINT", "http://127.0.0.1:1");
    let log = recovery.must_not_open("a store that cannot be reached", &get(&nobody));
    assert!(log.contains("trying again"), "{log}");
    let prefix = at(&recovery, &recovery.store, &format!("s3://{}/porduction", recovery.bucket));
    let log = recovery.must_not_open("a wrong prefix", &get(&prefix));
    assert!(log.contains("is empty"), "{log}");
    for store in [&recovery.store, &ceph] {
        let missing = at(&recovery, store, "s3://no-such-bucket-here/prod").hook("archive-get %f %p");
        let before = recovery.server.log().len();
        recovery.server.append_setting("restore_command", &missing);
        recovery.server.spawn();
        wait_until("a missing bucket", 60, || recovery.server.exited().is_some());
        let log = recovery.server.log()[before..].to_owned();
        assert!(
            !log.contains("archive recovery complete") && log.contains("the bucket's name right"),
            "{log}"
        );
    }
    for (name, value) in [("AWS_SECRET_ACCESS_KEY", "wrong"), ("AWS_ACCESS_KEY_ID", "nobody")] {
        let login = at(&recovery, &ceph, &format!("s3://{}/prod", ceph.bucket())).env(name, value);
        let log = recovery.must_not_open(&format!("a refused login: {name}"), &get(&login));
        assert!(log.contains("are the credentials right"), "{log}");
    }
    // Without the permission to list, S3 answers 403 for a key that is not there: the first is the next timeline's history,
    // and a "no" to that would already be an answer.
    let real = recovery.store.endpoint.clone();
    let forbidden = BrokenS3::start(Some(&real), |first, _| {
        if first.contains("00000002.history") { Answer::Error(403, "AccessDenied") } else { Answer::PassOn }
    });
    let log = recovery.must_not_open(
        "403 for a missing key",
        &get(&moto.clone().env("PITR_REPOSITORY_ENDPOINT", &forbidden.endpoint)),
    );
    assert!(log.contains("00000002.history"), "{log}");
    // In the middle of recovery, when everything has been well so far.
    let needed = recovery.needed.clone();
    for (case, answer) in [
        ("403", Answer::Error(403, "AccessDenied")),
        ("404 of a bucket", Answer::Error(404, "NoSuchBucket")),
        ("404 of a proxy", Answer::Bare(404)),
        ("500", Answer::Error(500, "InternalError")),
        ("an end within the body", Answer::TruncatedBody),
    ] {
        let needed = needed.clone();
        let broken = BrokenS3::start(Some(&real), move |first, _| {
            if first.contains(&needed) { answer.clone() } else { Answer::PassOn }
        });
        let pitr = moto.clone().env("PITR_REPOSITORY_ENDPOINT", &broken.endpoint);
        recovery.must_not_open(&format!("{case} for a needed segment"), &get(&pitr));
    }
    recovery.pitr = moto;
    recovery.recovers();
}

#[test]
fn no_death_of_the_hook_opens_a_server_in_recovery() {
    let mut recovery = Recovery::new();
    // The hook alone: strace would wait for the process that stays as well.
    let get = recovery.with("PITR_ARCHIVE_PREFETCH", "0");
    for (call, signal, when) in [
        ("execve", "KILL", 1),
        ("openat", "KILL", 5),
        ("write", "KILL", 1),
        ("write", "TERM", 1),
        ("write", "ABRT", 1),
        ("renameat", "KILL", 1),
        ("renameat", "HUP", 1),
    ] {
        let traced = format!(
            "strace -f -o /dev/null -e trace={call} -e inject={call}:signal={signal}:when={when} env "
        );
        recovery.must_not_open(&format!("SIG{signal} at {call} {when}"), &format!("{traced}{get}"));
    }
    // The memory that is missing here would be taken by something else elsewhere.
    recovery.must_not_open("no memory", &format!("ulimit -v 12000; {get}"));
    recovery.recovers();
}

#[test]
fn a_standby_that_may_take_unreachable_for_absent_goes_on_with_streaming() {
    let dir = TestDir::new();
    let pitr = Pitr::new(&dir).repository("s3://bucket/prod").env("PITR_ARCHIVE_GET_RETRY", "1");
    let variables = [
        ("PITR_REPOSITORY_ENDPOINT", "http://127.0.0.1:1"),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_REGION", "us-east-1"),
    ];
    let pitr = variables.into_iter().fold(pitr, |pitr, (name, value)| pitr.env(name, value));
    let outcome = pitr.run(["archive-get", "--unreachable=absent", "000000010000000000000001", "out"]);
    outcome.expect_code(1);
    outcome.expect_said("trying again");
    outcome.expect_said("of 1 s are used up");
    outcome.expect_said("counted as absent");
    assert!(!outcome.stderr.contains('\u{1b}'), "colours in the server's log: {}", outcome.stderr);
    pitr.run(["archive-get", "000000010000000000000001", "out"]).expect_code(255);
    // No budget: asked once.
    let once = pitr.clone().env("PITR_ARCHIVE_GET_RETRY", "0");
    let outcome = once.run(["archive-get", "--unreachable=absent", "000000010000000000000001", "out"]);
    outcome.expect_code(1);
    assert!(!outcome.stderr.contains("trying again"), "{}", outcome.stderr);
    // What can be asked and is wrong is not unreachable.
    dir.create_dir("empty");
    let empty = pitr.clone().repository(format!("file://{}", dir.join("empty").display()));
    empty.run(["archive-get", "--unreachable=absent", "000000010000000000000001", "out"]).expect_code(255);

    let primary = Server::build(&dir, "primary").initdb("--wal-segsize=1").start();
    primary.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n");
    let mut standby = primary.standby(&dir, "standby");
    standby.append_setting("restore_command", &once.hook("archive-get --unreachable=absent %f %p"));
    standby.start();
    primary.sql("INSERT INTO t SELECT generate_series(1, 500)");
    primary.wait_for_replay(&standby);
    assert_eq!(standby.sql("SELECT count(*) FROM t"), "1500");
    assert_eq!(standby.sql("SELECT status FROM pg_stat_wal_receiver"), "streaming");
    standby.stop(StopMode::Fast);
    // The default stops it: nobody said that it can stream.
    standby.append_setting("restore_command", &once.hook("archive-get %f %p"));
    assert!(standby.try_start(30).is_err());
    assert!(standby.file("standby.signal").exists());
}

#[test]
fn a_shorter_copy_is_no_answer_while_a_longer_one_is_damaged_or_cannot_be_asked_for() {
    let server = Finished::new();
    let (name, bytes) = &server.segments[0];
    let cut = wal_bytes::cut_off(name, bytes, bytes.len() / 2);
    let get = |pitr: &Pitr| {
        let out = server.data.join("pg_wal/RECOVERYXLOG");
        drop(std::fs::remove_file(&out));
        let outcome = pitr.run(["archive-get", name, "pg_wal/RECOVERYXLOG"]);
        (outcome.code.unwrap(), std::fs::read(&out).unwrap_or_default())
    };
    server.push(name, &cut).expect_code(0);
    assert_eq!(get(&server.pitr), (0, cut.clone()));

    // Two repositories, of which the second has more.
    server.dir.create_dir("second");
    let url = |place: &str| format!("file://{}", server.dir.join(place).display());
    let second = server.pitr.clone().repository(url("second"));
    let path = server.put(name, bytes);
    second.run(["archive-push", &path]).expect_code(0);
    let table = |place: &str| format!("[[repository]]\nurl = \"{}\"\n", url(place));
    let of = |places: [&str; 2]| {
        let config =
            server.dir.write(format!("{}-{}.toml", places[0], places[1]), places.map(table).concat());
        server.pitr.clone().without("PITR_REPOSITORY").env("PITR_CONFIG", config.display().to_string())
    };
    assert_eq!(get(&of(["repo", "second"])), (0, bytes.clone()));
    assert_eq!(get(&of(["second", "repo"])), (0, bytes.clone()));
    // Away, it may have more, as it has.
    for places in [["repo", "gone"], ["gone", "repo"]] {
        assert_eq!(get(&of(places)), (255, Vec::new()), "{places:?}");
    }

    // One repository with both copies, of which the longer one breaks.
    server.pitr.run(["archive-push", &path]).expect_code(0);
    assert_eq!(get(&server.pitr), (0, bytes.clone()));
    let (sibling, mut stored) = server
        .objects()
        .into_iter()
        .find(|(object, _)| object.contains(name.as_str()) && !object.ends_with(&format!("{name}.zst")))
        .unwrap();
    let at = stored.len() - 50;
    stored[at] ^= 1;
    server.dir.write(format!("repo/{sibling}"), &stored);
    assert_eq!(get(&server.pitr), (255, Vec::new()));
    assert_eq!(get(&of(["repo", "second"])), (0, bytes.clone()), "any repository will do that has it whole");
    server.pitr.run(["repo", "cat", name]).expect_code(1);
}
