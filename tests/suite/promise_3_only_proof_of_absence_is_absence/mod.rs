//! Promise 3: only proof of absence is absence. Exit 1 is proof; everything else that is not the file is 255, and no server in
//! recovery opens because of it.

mod gaps;
mod recovery;

use recovery::{ROWS, Recovery, in_bucket};

use crate::support::{
    Answer, BrokenS3, Finished, Pitr, S3Kind, S3Server, Server, StopMode, TestDir, wait_until,
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
    std::fs::remove_file(&object).unwrap();
    std::fs::create_dir(&object).unwrap();
    let log = recovery.must_not_open("a directory in the object's place", &get);
    assert!(log.contains("a directory, and not a file"), "{log}");
    std::fs::remove_dir(&object).unwrap();
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
