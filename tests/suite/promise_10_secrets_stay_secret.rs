//! Promise 10: no password, key or token shows in a log, an error, `ps`, `--json`, a file of the repository or of a restored
//! data directory, whatever `RUST_LOG` asks for.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use pitr::storage::Storage;

use crate::support::{Pitr, S3Kind, S3Server, Server, ServerBuilder, TestDir};

/// One word each, that occurs nowhere else.
const KEY: &str = "SecretAccessKeyXq7Zr4";
const TOKEN: &str = "SessionTokenKw9Vt2";
const PASSWORD: &str = "LoginPasswordJb5Mn8";
const SECRETS: [&str; 3] = [KEY, TOKEN, PASSWORD];

#[track_caller]
fn expect_clean(what: &str, bytes: &[u8]) {
    for secret in SECRETS {
        let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(
            !found,
            "{secret} in {what}: {}",
            String::from_utf8_lossy(bytes.get(..4000).unwrap_or(bytes))
        );
    }
}

/// A server that asks role `keeper` for its password, over TCP.
fn asking<'a>(dir: &'a TestDir) -> ServerBuilder<'a> {
    Server::build(dir, "primary")
        .hba("host all keeper 127.0.0.1/32 scram-sha-256")
        .hba("host replication keeper 127.0.0.1/32 scram-sha-256")
        .set("log_statement", "none")
}

/// The files of a directory, and what is in them.
fn expect_clean_tree(place: &Path) {
    for entry in std::fs::read_dir(place).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            expect_clean_tree(&path);
        } else if path.is_file() {
            expect_clean(&path.display().to_string(), &std::fs::read(&path).unwrap());
        }
    }
}

#[test]
fn the_whole_way_leaves_no_secret_anywhere() {
    let dir = TestDir::new();
    let store = S3Server::start(S3Kind::Moto);
    let bucket = store.bucket();
    let credentials = dir.write(
        "credentials",
        format!(
            "[default]\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = {KEY}\naws_session_token = {TOKEN}\n"
        ),
    );
    let credentials = credentials.display().to_string();
    let config = dir.join("pitr.toml").display().to_string();
    let pitr = Pitr::new(&dir)
        .without("PITR_REPOSITORY")
        .env("PITR_CONFIG", &config)
        .env("AWS_SHARED_CREDENTIALS_FILE", &credentials)
        .env("RUST_LOG", "trace");
    let server = asking(&dir).archive_command(&pitr.hook("-v archive-push %p")).create();
    let port = server.port;
    let written = dir.write(
        "pitr.toml",
        format!(
            "[[repository]]\nurl = 's3://{bucket}/p'\nendpoint = '{}'\nregion = 'us-east-1'\n[postgres]\n\
             conninfo = 'host=127.0.0.1 port={port} user=keeper password={PASSWORD} dbname=postgres'\n",
            store.endpoint
        ),
    );
    std::fs::set_permissions(written, Permissions::from_mode(0o600)).unwrap();
    let mut server = server;
    server.start();
    server.sql(&format!("CREATE ROLE keeper SUPERUSER LOGIN PASSWORD '{PASSWORD}'"));
    let segment = server.archive_now();
    let data = pitr.clone().in_dir(server.file(""));
    let out = dir.join("out").display().to_string();
    let copy = format!("--to={}", dir.join("copy").display());
    let pgdata = format!("--pgdata={}", server.data.display());
    let mut spoken = 0;
    for arguments in [
        vec!["backup", "-v", "--json"],
        vec!["check", "-v", "--json"],
        vec!["check", "-v"],
        vec!["info", "-v", "--json"],
        vec!["info", "-v"],
        vec!["repo", "-v", "ls"],
        vec!["repo", "-v", "cat", "repository.json"],
        vec!["archive-get", "-v", &segment, &out],
        vec!["restore", "-v", "--plan", "--json", &copy],
        vec!["restore", "-v", &copy],
        vec!["accept-system", "-v", &pgdata],
    ] {
        let done = data.run(&arguments);
        done.expect_code(0);
        expect_clean(&format!("stdout of {arguments:?}"), done.stdout.as_bytes());
        expect_clean(&format!("stderr of {arguments:?}"), done.stderr.as_bytes());
        spoken += done.stdout.len();
    }
    assert!(spoken > 1000);
    expect_clean("the server's log", server.log().as_bytes());
    for file in ["postgresql.auto.conf", "recovery.signal", "backup_label"] {
        expect_clean(file, &std::fs::read(dir.join("copy").join(file)).unwrap());
    }
    expect_clean_tree(&dir.join("spool"));

    let storage = store.patient(&bucket, "p");
    let mut names = Vec::new();
    storage.list("", None, &mut |object| names.push(object.name)).unwrap();
    assert!(names.len() > 5, "{names:?}");
    for name in names {
        let bytes = storage.read(&name).unwrap().unwrap();
        expect_clean(&name, &bytes);
        // The backup's own files hold what the database holds: a verifier, not the password.
        if name.ends_with(".zst") && !name.contains("/wal/") {
            expect_clean(&format!("{name}, decoded"), &zstd::decode_all(&bytes[..]).unwrap());
        }
    }
}

#[test]
fn a_failed_login_and_a_mistyped_line_do_not_repeat_what_they_were_given() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let server = asking(&dir).start();
    server.sql("CREATE ROLE keeper LOGIN PASSWORD 'another'");
    let port = server.port;
    let pitr = Pitr::new(&dir).env("RUST_LOG", "trace").env("AWS_EC2_METADATA_DISABLED", "true");
    let passfile = dir.write("pgpass", format!("127.0.0.1:{port}:*:keeper:{PASSWORD}\n"));
    std::fs::set_permissions(&passfile, Permissions::from_mode(0o600)).unwrap();
    let at = |text: &str| text.replace("PORT", &port.to_string()).replace("PW", PASSWORD);
    let mut tried = 0;
    let mut run = |pitr: &Pitr, arguments: &[&str]| {
        let done = pitr.run(arguments);
        assert_ne!(done.code, Some(0), "{arguments:?} did not fail");
        expect_clean(&format!("{arguments:?}"), format!("{}{}", done.stdout, done.stderr).as_bytes());
        assert!(!done.stderr.is_empty() || !done.stdout.is_empty());
        tried += 1;
    };
    for conninfo in [
        "host=127.0.0.1 port=PORT user=keeper password=PW dbname=postgres",
        "host=127.0.0.1 port=PORT user=keeper password=PW bogus=1",
        "host=127.0.0.1 port=PORT user=keeper password='PW",
        "host=127.0.0.1 port=no password=PW",
        "host=127.0.0.1 sslmode=bogus password=PW",
        "pasword=PW host=127.0.0.1",
        "PW",
        "postgres://keeper:PW@127.0.0.1:PORT/postgres",
        "postgres://keeper:PW@127.0.0.1:no/postgres",
        "postgres://keeper:PW@127.0.0.1:PORT/postgres?bogus=1",
        "postgres://keeper:PW",
        "postgres//keeper:PW@127.0.0.1",
    ] {
        let conninfo = at(conninfo);
        run(&pitr.clone().env("PITR_POSTGRES_CONNINFO", &conninfo), &["check"]);
        run(&pitr.clone().env("DATABASE_URL", &conninfo), &["backup"]);
        run(&pitr, &["backup", "--json", "--conninfo", &conninfo]);
        let file =
            dir.write("pitr.toml", format!("[postgres]\nconninfo = \"{conninfo}\"\n")).display().to_string();
        run(&pitr.clone().env("PITR_CONFIG", &file), &["check", "--json"]);
        let file =
            dir.write("pitr.toml", format!("[postgres]\nconinfo = \"{conninfo}\"\n")).display().to_string();
        run(&pitr.clone().env("PITR_CONFIG", file), &["info"]);
    }
    let tcp = pitr.clone().env("PGHOST", "127.0.0.1").env("PGPORT", port.to_string()).env("PGUSER", "keeper");
    run(&tcp.clone().env("PGPASSWORD", PASSWORD), &["backup"]);
    run(&tcp.env("PGPASSFILE", passfile.display().to_string()), &["backup"]);

    for url in ["s3://AKID:PW@bucket/p", "ftp://me:PW@host/p", "s3://bucket/p?secret=PW"] {
        let url = at(url);
        run(&pitr.clone().repository(&url), &["info"]);
        run(&pitr, &["--repository", &url, "archive-get", "000000010000000000000001", "out"]);
        // Help shows the variables' names, not what is in them.
        let help =
            pitr.clone().repository(&url).env("PITR_POSTGRES_CONNINFO", PASSWORD).run(["backup", "--help"]);
        help.expect_code(0);
        expect_clean("help", help.stdout.as_bytes());
    }
    let endpoint = pitr
        .clone()
        .repository("s3://bucket/p")
        .env("PITR_REPOSITORY_ENDPOINT", at("http://me:PW@127.0.0.1:1"));
    run(&endpoint, &["info"]);
    run(&pitr.clone().env("PITR_ARCHIVE_STRICT", PASSWORD), &["info"]);
    run(&pitr.clone().env("PITR_POSTGRES_CONINFO", PASSWORD), &["info"]);
    run(&pitr, &["backup", &format!("--conninf=password={PASSWORD}")]);
    run(&pitr, &["backup", "--primar", &format!("password={PASSWORD}")]);
    assert!(tried > 60);
}

#[test]
fn the_arguments_of_a_running_process_hold_no_password() {
    // One that no other test writes into an argument.
    const OWN: &str = "LoginPasswordOfThisTestVt3";
    let dir = TestDir::new();
    dir.create_dir("repo");
    let server = asking(&dir).start();
    server.sql(&format!("CREATE ROLE keeper SUPERUSER LOGIN PASSWORD '{OWN}'"));
    let pitr = Pitr::new(&dir).env(
        "PITR_POSTGRES_CONNINFO",
        format!("host=127.0.0.1 port={} user=keeper password={OWN}", server.port),
    );
    let mut backup = pitr
        .command(["backup", "--wal=include", "--max-rate=8M"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut seen = 0;
    while backup.try_wait().unwrap().is_none() {
        // Every process of the machine: whatever it may have started.
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(line) = std::fs::read(entry.path().join("cmdline")) else { continue };
            if entry.file_name().to_string_lossy() == backup.id().to_string() {
                seen += 1;
            }
            let line = String::from_utf8_lossy(&line);
            assert!(!line.contains(OWN), "{OWN} in {:?}: {line}", entry.path());
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert!(backup.wait().unwrap().success());
    assert!(seen > 0);
    // The server sees who is logged in, and by which name.
    assert!(!server.log().contains(OWN), "{}", server.log_tail());
}

#[test]
fn a_password_in_an_argument_is_warned_about_and_not_repeated() {
    let dir = TestDir::new();
    let pitr = Pitr::new(&dir).env("PGCONNECT_TIMEOUT", "1");
    for (conninfo, warned) in [
        (format!("host=127.0.0.1 port=1 password={PASSWORD}"), true),
        (format!("postgres://keeper:{PASSWORD}@127.0.0.1:1/postgres"), true),
        (format!("postgres://127.0.0.1:1/postgres?user=keeper&password={PASSWORD}"), true),
        ("postgres://keeper@127.0.0.1:1/postgres".to_owned(), false),
        ("host=127.0.0.1 port=1 passfile=/nonexistent".to_owned(), false),
    ] {
        let done = pitr.run(["backup", "--conninfo", &conninfo]);
        done.expect_code(1);
        assert_eq!(
            done.stderr.contains("everybody on this machine can read"),
            warned,
            "{conninfo}: {}",
            done.stderr
        );
        expect_clean(&conninfo.replace(PASSWORD, "…"), done.stderr.as_bytes());
    }
}

#[test]
fn what_a_developer_prints_of_a_connection_is_not_its_password() {
    let info =
        pitr::postgres::ConnInfo::resolve(Some(&format!("host=h user=u password={PASSWORD}")), &|_| None);
    expect_clean("ConnInfo", format!("{:?}", info.unwrap()).as_bytes());
    let mut options = pitr::storage::S3Options::new("bucket", "");
    options.keys = Some(("AKID".to_owned(), KEY.to_owned()));
    expect_clean(
        "S3Options",
        format!("{options:?} {:?}", pitr::storage::S3Storage::new(options.clone())).as_bytes(),
    );
}
