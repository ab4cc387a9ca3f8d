//! Logins on real servers: TLS as strict as `sslmode` says, bound to the password's proof, and the server that is asked for.

use std::path::{Path, PathBuf};
use std::process::Command;

use pitr::postgres::replication::ReplicationClient;
use pitr::postgres::{ConnInfo, PostgresError};

use crate::support::{Server, TestDir};

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn info(text: &str) -> ConnInfo {
    ConnInfo::resolve(Some(text), &|_| None).unwrap()
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
