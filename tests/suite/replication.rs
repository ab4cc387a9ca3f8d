//! The client against real servers: logins, TLS, and the replication commands of every major.

use std::path::{Path, PathBuf};
use std::process::Command;

use pitr::pgdata::backup_manifest::ManifestReader;
use pitr::pgdata::tar::{TarEvent, TarReader};
use pitr::postgres::base_backup::{BaseBackupEvent, BaseBackupOptions, Checkpoint};
use pitr::postgres::replication::{ReplicationClient, WalEvent};
use pitr::postgres::sql::SqlClient;
use pitr::postgres::{ConnInfo, PostgresError};
use pitr::types::Lsn;

use crate::support::{Server, TestDir, all_majors};

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn info(text: &str) -> ConnInfo {
    ConnInfo::resolve(Some(text), &|_| None).unwrap()
}

fn options() -> BaseBackupOptions {
    BaseBackupOptions {
        label: "it's a test".to_owned(),
        checkpoint: Checkpoint::Fast,
        max_rate: None,
        manifest_checksums: "CRC32C",
    }
}

#[test]
fn a_base_backup_of_every_major_arrives_whole_and_in_the_order_of_its_manifest() {
    for major in all_majors() {
        let dir = TestDir::new();
        let server = Server::build(&dir, "primary").major(major).start();
        let space = dir.create_dir("space");
        server.sql(&format!(
            "CREATE TABLESPACE s LOCATION '{}'; CREATE TABLE t TABLESPACE s AS SELECT generate_series(1, 50000) i;",
            space.display()
        ));
        wait(async {
            let mut client = ReplicationClient::connect(&info(&server.conninfo())).await.unwrap();
            assert_eq!(client.major(), major);
            let system = client.identify_system().await.unwrap();
            assert_eq!(client.segment_size().await.unwrap().bytes(), 16 << 20);
            let mut backup = client.base_backup(&options()).await.unwrap();
            let (mut start, mut end) = (Lsn(0), Lsn(0));
            let mut archives: Vec<(String, Option<String>, TarReader)> = Vec::new();
            let mut files = Vec::new();
            let mut named = Vec::new();
            let mut manifest = ManifestReader::new();
            while let Some(event) = backup.next().await.unwrap() {
                match event {
                    BaseBackupEvent::Start { lsn, tablespaces, .. } => {
                        start = lsn;
                        assert_eq!(tablespaces.len(), 2);
                    }
                    BaseBackupEvent::Archive { name, location } => {
                        archives.push((name, location, TarReader::new()));
                    }
                    BaseBackupEvent::Data(bytes) => {
                        let (name, _, reader) = archives.last_mut().unwrap();
                        let mut rest = &bytes[..];
                        while let Some(event) = reader.next(&mut rest).unwrap() {
                            if let TarEvent::Entry(entry) = event
                                && entry.kind == pitr::pgdata::tar::TarKind::File
                            {
                                let path = String::from_utf8(entry.path).unwrap();
                                let path =
                                    if name == "base" { path } else { format!("pg_tblspc/{name}/{path}") };
                                files.push(path);
                            }
                        }
                    }
                    BaseBackupEvent::Manifest(bytes) => manifest
                        .push(&bytes, &mut |file| named.push(String::from_utf8(file.path).unwrap()))
                        .unwrap(),
                    BaseBackupEvent::End { lsn, .. } => end = lsn,
                    BaseBackupEvent::Progress(_) => {}
                }
            }
            assert!(start < end, "{major}: {start} {end}");
            assert_eq!(archives.len(), 2);
            assert_eq!(archives[0].1.as_deref(), space.to_str());
            assert_eq!(archives[1].0, "base");
            for (name, _, reader) in &archives {
                reader.finish().unwrap_or_else(|e| panic!("{major} {name}: {e}"));
            }
            let manifest = manifest.finish().unwrap();
            assert!(manifest.system_identifier.is_none_or(|id| id == system.system_id));
            assert_eq!(files, named, "{major}");
            assert_eq!(files.last().unwrap(), "global/pg_control");
            // The connection is good for more.
            client.identify_system().await.unwrap();
        });
    }
}

#[test]
fn wal_of_every_major_is_streamed_from_a_temporary_slot_up_to_the_end_that_was_asked_for() {
    for major in all_majors() {
        let dir = TestDir::new();
        let server = Server::build(&dir, "primary").major(major).start();
        wait(async {
            let mut client = ReplicationClient::connect(&info(&server.conninfo())).await.unwrap();
            let slot = "pitr_test".parse().unwrap();
            client.create_slot(&slot, true).await.unwrap();
            let system = client.identify_system().await.unwrap();
            server.sql("CREATE TABLE t AS SELECT generate_series(1, 100000);");
            let target = Lsn(system.position.0 + (1 << 20));
            let from = Lsn(system.position.0 & !0xFF_FFFF);
            let mut stream = client.start_replication(Some(&slot), system.timeline, from).await.unwrap();
            let mut at = from;
            while at < target {
                if let WalEvent::Data { start, bytes, .. } = stream.next().await.unwrap() {
                    assert_eq!(start, at);
                    at = start.plus(bytes.len() as u64);
                }
            }
            stream.reply(at, at, pitr::types::Moment(jiff::Timestamp::now())).await.unwrap();
            stream.stop().await.unwrap();
            assert_eq!(server.sql("SELECT count(*) FROM pg_replication_slots"), "1");
            client.drop_slot(&slot).await.unwrap();
            let gone = client.timeline_history(pitr::types::TimelineId(9)).await.unwrap_err();
            assert!(gone.server().is_some(), "{gone:?}");
            client.close().await;
        });
    }
}

#[test]
fn sql_says_what_the_server_is() {
    let dir = TestDir::new();
    let server = Server::build(&dir, "primary").start();
    wait(async {
        let mut sql = SqlClient::connect(&info(&server.conninfo())).await.unwrap();
        assert!(!sql.is_in_recovery().await.unwrap());
        assert!(sql.may_switch_wal().await.unwrap() && sql.may_replicate().await.unwrap());
        assert_eq!(sql.server_version().await.unwrap() / 10_000, server.major);
        // Nothing but a record that means nothing: enough for a switch, also right behind one.
        sql.write_something().await.unwrap();
        let first = sql.end_segment().await.unwrap();
        sql.write_something().await.unwrap();
        let second = sql.end_segment().await.unwrap();
        assert_eq!(first.next(pitr::types::SegmentSize::DEFAULT), Some(second));
        assert_eq!(sql.archiver().await.unwrap().archived, 0);
    });
}

/// An authority, and a server's certificate for `localhost` by it.
struct Certificates {
    ca: PathBuf,
    other_ca: PathBuf,
    cert: PathBuf,
    key: PathBuf,
}

fn openssl(dir: &Path, arguments: &str) {
    let output = Command::new("openssl").current_dir(dir).args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn certificates(dir: &TestDir) -> Certificates {
    let path = dir.create_dir("tls");
    for ca in ["ca", "other"] {
        openssl(
            &path,
            &format!(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN={ca} -keyout {ca}.key -out {ca}.crt"
            ),
        );
    }
    openssl(&path, "req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout server.key -out server.csr");
    dir.write("tls/ext", "subjectAltName=DNS:localhost\n");
    openssl(
        &path,
        "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -sha384 -extfile ext -out server.crt",
    );
    dir.account().own_tree(&path);
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path.join("server.key"), PermissionsExt::from_mode(0o600)).unwrap();
    Certificates {
        ca: path.join("ca.crt"),
        other_ca: path.join("other.crt"),
        cert: path.join("server.crt"),
        key: path.join("server.key"),
    }
}

async fn try_login(text: &str) -> Result<bool, PostgresError> {
    let mut client = ReplicationClient::connect(&info(text)).await?;
    client.identify_system().await?;
    Ok(client.connection().is_encrypted())
}

#[test]
fn tls_is_as_strict_as_sslmode_says_and_logins_are_bound_to_it() {
    let dir = TestDir::new();
    let tls = certificates(&dir);
    let server = Server::build(&dir, "primary")
        .set("ssl", "on")
        .set("ssl_cert_file", tls.cert.to_str().unwrap())
        .set("ssl_key_file", tls.key.to_str().unwrap())
        .hba("hostnossl all,replication plain 127.0.0.1/32 trust")
        .hba("hostssl all,replication scram,only_tls 127.0.0.1/32 scram-sha-256")
        .hba("host all,replication md5 127.0.0.1/32 md5")
        .hba("host all,replication clear 127.0.0.1/32 password")
        .hba("host all all 127.0.0.1/32 reject")
        .hba("host replication all 127.0.0.1/32 reject")
        .start();
    server.sql(
        "CREATE ROLE plain LOGIN REPLICATION; CREATE ROLE scram LOGIN REPLICATION PASSWORD 'sécret';
         CREATE ROLE clear LOGIN REPLICATION PASSWORD 'sécret';
         SET password_encryption = md5; CREATE ROLE md5 LOGIN REPLICATION PASSWORD 'sécret';",
    );
    let (ca, other) = (tls.ca.display(), tls.other_ca.display());
    let to = |user: &str, rest: &str| {
        format!("host=localhost hostaddr=127.0.0.1 port={} user={user} {rest}", server.port)
    };
    wait(async {
        for (user, rest, encrypted) in [
            ("scram", "password=sécret".to_owned(), true),
            ("scram", "password=sécret sslmode=require channel_binding=require".to_owned(), true),
            (
                "scram",
                format!("password=sécret sslmode=verify-full sslrootcert={ca} channel_binding=require"),
                true,
            ),
            ("scram", format!("password=sécret sslmode=verify-ca sslrootcert={ca} host=elsewhere"), true),
            // pg_hba lets each of these in only one way: the modes in between find it.
            ("scram", "password=sécret sslmode=allow".to_owned(), true),
            ("plain", "sslmode=prefer".to_owned(), false),
            ("md5", "password=sécret sslmode=disable".to_owned(), false),
            ("md5", "password=sécret sslmode=require".to_owned(), true),
            ("clear", "password=sécret".to_owned(), true),
        ] {
            let result = try_login(&to(user, &rest)).await;
            assert_eq!(result.ok(), Some(encrypted), "{user} {rest}");
        }
        for (user, rest, expected) in [
            ("scram", "password=wrong".to_owned(), "28P01"),
            ("scram", "password=sécret sslmode=disable".to_owned(), "28000"),
            ("plain", "sslmode=require".to_owned(), "28000"),
            ("scram", String::new(), "asks for a password"),
            ("md5", "password=sécret channel_binding=require".to_owned(), "channel_binding=require"),
            ("clear", "password=sécret channel_binding=require".to_owned(), "channel_binding=require"),
            (
                "scram",
                format!("password=sécret sslmode=verify-full sslrootcert={ca} host=elsewhere"),
                "TLS handshake",
            ),
            ("scram", format!("password=sécret sslmode=verify-ca sslrootcert={other}"), "TLS handshake"),
            ("scram", format!("password=sécret sslmode=require sslrootcert={other}"), "TLS handshake"),
            ("scram", "password=sécret sslmode=verify-full".to_owned(), "needs a root certificate"),
            ("scram", "password=sécret sslrootcert=/nowhere sslmode=verify-ca".to_owned(), "/nowhere"),
        ] {
            let error = try_login(&to(user, &rest)).await.unwrap_err();
            let text = format!("{error} {}", error.code().unwrap_or_default());
            assert!(text.contains(expected), "{user} {rest}: {text}");
            assert!(!format!("{error:?}").contains("sécret"));
        }
    });
}

#[test]
fn a_server_that_is_its_own_authority_is_trusted_by_its_certificate() {
    let dir = TestDir::new();
    let path = dir.create_dir("tls");
    openssl(
        &path,
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout k -out c",
    );
    dir.account().own_tree(&path);
    let (key, cert) = (path.join("k"), path.join("c"));
    let server = Server::build(&dir, "primary")
        .set("ssl", "on")
        .set("ssl_cert_file", cert.to_str().unwrap())
        .set("ssl_key_file", key.to_str().unwrap())
        .start();
    let text = |host: &str| {
        format!(
            "host={host} hostaddr=127.0.0.1 port={} user=postgres sslmode=verify-full sslrootcert={}",
            server.port,
            cert.display()
        )
    };
    assert!(wait(try_login(&text("localhost"))).unwrap());
    assert!(wait(try_login(&text("elsewhere"))).is_err());
}

#[test]
fn the_first_server_that_is_what_is_asked_for_is_taken() {
    let dir = TestDir::new();
    let server = Server::build(&dir, "primary").start();
    let text = |attrs: &str| {
        format!("host=127.0.0.1,127.0.0.1 port=1,{} user=postgres target_session_attrs={attrs}", server.port)
    };
    for attrs in ["any", "primary", "read-write", "prefer-standby"] {
        assert!(!wait(try_login(&text(attrs))).unwrap(), "{attrs}");
    }
    let error = wait(try_login(&text("standby"))).unwrap_err();
    assert_eq!(error.to_string(), "none of 2 hosts could be used; the last one");
    let gone = wait(try_login("host=127.0.0.1 port=1 user=u")).unwrap_err();
    assert_eq!(gone.to_string(), "cannot connect to the server at 127.0.0.1:1");
}

#[test]
fn passfile_service_file_and_uris_lead_to_the_same_login() {
    use std::os::unix::fs::PermissionsExt;
    let dir = TestDir::new();
    let server =
        Server::build(&dir, "primary").hba("host all,replication scram 127.0.0.1/32 scram-sha-256").start();
    server.sql("CREATE ROLE scram LOGIN REPLICATION PASSWORD 'p:\\w@/%';");
    let port = server.port;
    // The escapes are the passfile's own; replication has a line of its own there.
    let passfile = dir.write(".pgpass", format!("127.0.0.1:{port}:replication:scram:p\\:\\\\w@/%\n"));
    std::fs::set_permissions(&passfile, PermissionsExt::from_mode(0o600)).unwrap();
    let service = dir.write("services", format!("[s]\nhost=127.0.0.1\nport={port}\nuser=scram\n"));
    let home = dir.path().to_str().unwrap().to_owned();
    let login = |text: Option<&str>, env: &[(&str, &str)]| {
        let lookup = |name: &str| env.iter().find(|(k, _)| *k == name).map(|(_, v)| (*v).to_owned());
        let info = ConnInfo::resolve(text, &lookup).unwrap();
        wait(async { ReplicationClient::connect(&info).await.map(drop) })
    };
    let uri = format!("postgres://scram@127.0.0.1:{port}");
    let with_password = format!("postgresql://scram:p%3A%5Cw%40%2F%25@127.0.0.1:{port}/postgres");
    let port = port.to_string();
    login(Some(&uri), &[("HOME", &home)]).unwrap();
    login(Some(&with_password), &[]).unwrap();
    login(None, &[("DATABASE_URL", &with_password)]).unwrap();
    login(Some("service=s"), &[("PGSERVICEFILE", service.to_str().unwrap()), ("HOME", &home)]).unwrap();
    let variables =
        [("PGHOST", "127.0.0.1"), ("PGPORT", &*port), ("PGUSER", "scram"), ("PGPASSWORD", "p:\\w@/%")];
    login(None, &variables).unwrap();
    assert!(login(Some(&uri), &[]).is_err());
    std::fs::set_permissions(&passfile, PermissionsExt::from_mode(0o644)).unwrap();
    assert!(login(Some(&uri), &[("HOME", &home)]).is_err(), "a file that others can read is no secret");
}

#[test]
fn at_the_end_of_a_timeline_the_stream_names_the_next_one() {
    let dir = TestDir::new();
    let primary = Server::build(&dir, "primary").start();
    let mut standby = primary.standby(&dir, "standby");
    standby.start();
    primary.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) i;");
    primary.wait_for_replay(&standby);
    wait(async {
        let mut client = ReplicationClient::connect(&info(&standby.conninfo())).await.unwrap();
        let system = client.identify_system().await.unwrap();
        let from = Lsn(system.position.0 & !0xFF_FFFF);
        let mut stream = client.start_replication(None, system.timeline, from).await.unwrap();
        let (mut at, mut promoted) = (from, false);
        let (next, switch) = loop {
            match stream.next().await.unwrap() {
                WalEvent::Data { start, bytes, .. } => at = start.plus(bytes.len() as u64),
                WalEvent::KeepAlive { .. } => {}
                WalEvent::EndOfTimeline { next, at } => break (next, at),
            }
            if !promoted {
                promoted = true;
                standby.promote();
            }
        };
        assert_eq!((next.0, switch), (2, at));
        stream.stop().await.unwrap();
        let (name, content) = client.timeline_history(next).await.unwrap();
        assert_eq!(name, "00000002.history");
        assert!(content.starts_with(b"1\t"));
        // Exactly at the end there is nothing to stream, and the same answer.
        let mut stream = client.start_replication(None, system.timeline, switch).await.unwrap();
        let WalEvent::EndOfTimeline { next, .. } = stream.next().await.unwrap() else { panic!() };
        assert_eq!(next.0, 2);
        stream.stop().await.unwrap();
        // Beyond it there is none such.
        let beyond = client.start_replication(None, system.timeline, switch.plus(1 << 24)).await.unwrap_err();
        assert!(beyond.server().is_some(), "{beyond:?}");
        client.identify_system().await.unwrap();
    });
}

#[test]
fn tls_may_begin_with_the_first_byte_from_17_on() {
    let dir = TestDir::new();
    let tls = certificates(&dir);
    let start = |name: &str, major| {
        Server::build(&dir, name)
            .major(major)
            .set("ssl", "on")
            .set("ssl_cert_file", tls.cert.to_str().unwrap())
            .set("ssl_key_file", tls.key.to_str().unwrap())
            .start()
    };
    let text = |server: &Server| {
        format!(
            "host=localhost hostaddr=127.0.0.1 port={} user=postgres sslnegotiation=direct sslmode=verify-full \
             sslrootcert={}",
            server.port,
            tls.ca.display()
        )
    };
    assert!(wait(try_login(&text(&start("new", 17)))).unwrap());
    assert!(wait(try_login(&text(&start("old", 15)))).is_err());
}
