//! A connection string, a service, a variable and a passfile mean to pitr what they mean to libpq: both are asked, on a real
//! server, and must come to the same answer.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use pitr::postgres::ConnInfo;
use pitr::postgres::sql::SqlClient;

use crate::support::{Installation, Server, TestDir};

const QUERY: &str = "SELECT session_user || ' ' || current_database() || ' ' || coalesce(inet_server_port()::text, 'socket') \
                     || ' ' || current_setting('application_name') || ' ' || current_setting('work_mem')";

type Variables = Vec<(&'static str, String)>;

/// One login as libpq does it; `None` where it fails.
fn libpq(dir: &TestDir, text: Option<&str>, variables: &Variables) -> Option<String> {
    let mut command = dir.account().command(Installation::of_distribution().program("psql"));
    command.args(["-X", "-A", "-t", "-q", "-w", "-c", QUERY]).envs(variables.iter().map(|(n, v)| (*n, v)));
    if let Some(text) = text {
        command.args(["-d", text]);
    }
    let output = command.output().unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap().trim_end().to_owned())
}

/// The same login as pitr does it.
fn ours(text: Option<&str>, variables: &Variables) -> Result<String, String> {
    let lookup = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| v.clone());
    let info = ConnInfo::resolve(text, &lookup).map_err(|e| e.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut client = SqlClient::connect(&info).await.map_err(|e| format!("{e:?}"))?;
        let rows =
            client.connection().query(QUERY, "the test's question").await.map_err(|e| format!("{e:?}"))?;
        Ok(rows[0].text(0).unwrap().to_owned())
    })
}

fn private(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn pitr_connects_where_and_as_whom_libpq_would() {
    let dir = TestDir::new();
    let server = Server::build(&dir, "primary").hba("host all all 127.0.0.1/32 scram-sha-256").start();
    server.sql(
        "CREATE ROLE explicit LOGIN PASSWORD 'one'; CREATE ROLE service LOGIN PASSWORD 'two';
         CREATE ROLE environment LOGIN PASSWORD 'th:r\\ee'; CREATE DATABASE other;",
    );
    let (port, socket, home) =
        (server.port, dir.path().display().to_string(), dir.path().display().to_string());
    let services = dir.write(
        "services",
        format!(
            "# of the test\n[s]\nhost=127.0.0.1\nport={port}\nuser=service\npassword=two\ndbname=other\napplication_name=of_service\n\
             [nopassword]\nhost=127.0.0.1\nport={port}\nuser=service\ndbname=other\n\
             [wrong]\nhost=127.0.0.1\nport={port}\nuser=service\npassword=wrong\ndbname=other\n\
             [broken]\nhost 127.0.0.1\n"
        ),
    );
    let services = services.display().to_string();
    dir.write(
        ".pg_service.conf",
        format!("[home]\nhost={socket}\nport={port}\nuser=service\ndbname=other\n"),
    );
    dir.create_dir("system");
    dir.write(
        "system/pg_service.conf",
        format!("[system]\nhost={socket}\nport={port}\nuser=explicit\ndbname=other\n"),
    );
    let passfile = |name: &str, text: String, mode: u32| {
        let path = dir.write(name, text);
        private(&path, mode);
        path.display().to_string()
    };
    // The first line that fits counts, whether its password is right or not.
    let good = passfile(
        "good",
        format!(
            "# all\nlocalhost:{port}:*:explicit:wrong\n127.0.0.1:1:*:*:wrong\n127.0.0.1:{port}:other:*:two\n*:{port}:postgres:explicit:one\n*:*:*:environment:th\\:r\\\\ee\n"
        ),
        0o600,
    );
    let open = passfile("open", format!("*:{port}:*:*:one\n"), 0o640);
    let wrong = passfile("wrong", "*:*:*:*:wrong\n".to_owned(), 0o600);
    let by_name = passfile("by-name", format!("localhost:{port}:*:explicit:one\n*:*:*:*:wrong\n"), 0o600);

    let tcp = format!("host=127.0.0.1 port={port}");
    let uri = |rest: &str| format!("postgresql://{rest}");
    let v = |pairs: &[(&'static str, &str)]| -> Variables {
        let mut all: Variables = pairs.iter().map(|(n, v)| (*n, (*v).to_owned())).collect();
        all.push(("HOME", home.clone()));
        all
    };
    let p = port.to_string();
    let env =
        [("PGHOST", "127.0.0.1"), ("PGPORT", &*p), ("PGUSER", "environment"), ("PGDATABASE", "postgres")];
    let with = |more: &[(&'static str, &'static str)]| -> Variables {
        let mut all = v(&env);
        all.extend(more.iter().map(|(n, v)| (*n, (*v).to_owned())));
        all
    };
    let file = |mut variables: Variables, name: &'static str, path: &str| {
        variables.push((name, path.to_owned()));
        variables
    };
    let password = ("PGPASSWORD", "th:r\\ee");

    // What is asked for, the variables, and whether a login is to come of it.
    let cases: Vec<(Option<String>, Variables, bool)> = vec![
        // Variables alone, and what stands above them.
        (None, with(&[password]), true),
        (None, with(&[]), false),
        (None, with(&[("PGPASSWORD", "wrong")]), false),
        (None, with(&[password, ("PGAPPNAME", "mine"), ("PGOPTIONS", "-c work_mem=3MB")]), true),
        (Some("user=explicit password=one".into()), with(&[password]), true),
        (
            Some("user=explicit password=one dbname=other application_name=x".into()),
            with(&[("PGAPPNAME", "mine")]),
            true,
        ),
        (Some("user=environment application_name=x application_name=y".into()), with(&[password]), true),
        (Some("options='-c work_mem=5MB'".into()), with(&[password, ("PGOPTIONS", "-c work_mem=3MB")]), true),
        // Services: above the variables, below what is explicit.
        (None, file(with(&[password, ("PGSERVICE", "s")]), "PGSERVICEFILE", &services), true),
        (Some("service=s".into()), file(with(&[("PGPASSWORD", "wrong")]), "PGSERVICEFILE", &services), true),
        (Some("service=s user=explicit password=one".into()), file(v(&[]), "PGSERVICEFILE", &services), true),
        (Some("service=s".into()), file(with(&[("PGSERVICE", "wrong")]), "PGSERVICEFILE", &services), true),
        (
            Some("service=wrong".into()),
            file(with(&[("PGPASSWORD", "two")]), "PGSERVICEFILE", &services),
            false,
        ),
        (
            Some("service=nopassword".into()),
            file(with(&[("PGPASSWORD", "two")]), "PGSERVICEFILE", &services),
            true,
        ),
        (Some("service=none".into()), file(with(&[password]), "PGSERVICEFILE", &services), false),
        (Some("service=broken".into()), file(with(&[password]), "PGSERVICEFILE", &services), false),
        (Some("service=s".into()), file(with(&[password]), "PGSERVICEFILE", "/nowhere"), false),
        (Some("service=home".into()), v(&[]), true),
        (Some("service=system".into()), file(v(&[]), "PGSYSCONFDIR", &format!("{home}/system")), true),
        (Some(uri("/?service=home")), v(&[]), true),
        // Passfiles: only where no password was given, by host, port, database and user.
        (None, file(with(&[]), "PGPASSFILE", &good), true),
        (None, file(with(&[password]), "PGPASSFILE", &wrong), true),
        (None, file(with(&[]), "PGPASSFILE", &wrong), false),
        (None, file(with(&[]), "PGPASSFILE", "/nowhere"), false),
        (Some(format!("{tcp} user=explicit dbname=postgres")), file(v(&[]), "PGPASSFILE", &good), true),
        (Some(format!("{tcp} user=explicit dbname=other")), file(v(&[]), "PGPASSFILE", &good), false),
        (
            Some(format!("{tcp} user=service dbname=other passfile={good}")),
            file(v(&[]), "PGPASSFILE", &wrong),
            true,
        ),
        (Some(format!("{tcp} user=explicit dbname=postgres")), file(v(&[]), "PGPASSFILE", &open), false),
        (
            Some(format!("host=localhost hostaddr=127.0.0.1 port={port} user=explicit dbname=postgres")),
            file(v(&[]), "PGPASSFILE", &by_name),
            true,
        ),
        (
            Some(format!("hostaddr=127.0.0.1 port={port} user=explicit dbname=postgres")),
            file(v(&[]), "PGPASSFILE", &by_name),
            false,
        ),
        (
            Some(format!("hostaddr=127.0.0.1 port={port} user=service dbname=other")),
            file(v(&[]), "PGPASSFILE", &good),
            true,
        ),
        // URIs.
        (Some(uri(&format!("explicit:one@127.0.0.1:{port}/postgres"))), v(&[]), true),
        (
            Some(uri(&format!("environment:th%3Ar%5Cee@127.0.0.1:{port}/other?application_name=a%20b"))),
            v(&[]),
            true,
        ),
        (Some(uri(&format!("explicit@127.0.0.1:{port}/postgres?password=one"))), v(&[]), true),
        (Some(uri(&format!("127.0.0.1:{port}/postgres"))), with(&[password]), true),
        (Some(uri("/postgres")), with(&[password]), true),
        (Some(uri(&format!("service@:{port}/other?host={socket}"))), v(&[]), true),
        (Some(uri(&format!("explicit:one@127.0.0.1:{port}/postgres?hots=x"))), v(&[]), false),
        (Some(uri(&format!("explicit:one@127.0.0.1:{port}/postgres?ssl=true"))), v(&[]), false),
        // Several hosts; sockets.
        (
            Some(format!(
                "host=127.0.0.1,127.0.0.1 port=1,{port} user=explicit password=one dbname=postgres"
            )),
            v(&[]),
            true,
        ),
        (Some(format!("host={socket} port={port} user=explicit dbname=postgres")), v(&[]), true),
        (Some("dbname=postgres user=explicit".into()), v(&[("PGHOST", &socket), ("PGPORT", &p)]), true),
        (
            Some(format!("{tcp} user=explicit password=one dbname=postgres target_session_attrs=read-write")),
            v(&[]),
            true,
        ),
        (
            Some(format!("{tcp} user=explicit password=one dbname=postgres target_session_attrs=standby")),
            v(&[]),
            false,
        ),
        (
            Some(format!("{tcp} user=explicit password=one dbname=postgres")),
            v(&[("PGTARGETSESSIONATTRS", "read-only")]),
            false,
        ),
        // sslmode: this server has no TLS; a socket needs none.
        (Some(format!("{tcp} user=explicit password=one dbname=postgres sslmode=prefer")), v(&[]), true),
        (Some(format!("{tcp} user=explicit password=one dbname=postgres sslmode=allow")), v(&[]), true),
        (Some(format!("{tcp} user=explicit password=one dbname=postgres sslmode=require")), v(&[]), false),
        (
            Some(format!("{tcp} user=explicit password=one dbname=postgres")),
            v(&[("PGSSLMODE", "require")]),
            false,
        ),
        (
            Some(format!("{tcp} user=explicit password=one dbname=postgres sslmode=disable")),
            v(&[("PGSSLMODE", "require")]),
            true,
        ),
        (Some(format!("{tcp} user=explicit password=one dbname=postgres sslmode=maybe")), v(&[]), false),
        (
            Some(format!("host={socket} port={port} user=explicit dbname=postgres sslmode=require")),
            v(&[]),
            true,
        ),
        (
            Some(format!("{tcp} user=explicit password=one dbname=postgres channel_binding=require")),
            v(&[]),
            false,
        ),
        // What is no connection string.
        (Some(format!("{tcp} user=explicit password=one dbname=postgres hots=x")), v(&[]), false),
        (Some(format!("{tcp} user='explicit password=one dbname=postgres")), v(&[]), false),
        (
            Some(format!("host=127.0.0.1 port={port},{port} user=explicit password=one dbname=postgres")),
            v(&[]),
            false,
        ),
        (Some("host=127.0.0.1 port=65536 user=explicit password=one dbname=postgres".into()), v(&[]), false),
    ];
    for (text, mut variables, expected) in cases {
        // The program's own fallback is no convention; without it both names would differ.
        if !variables.iter().any(|(n, _)| *n == "PGAPPNAME") {
            variables.push(("PGAPPNAME", "same".to_owned()));
        }
        let theirs = libpq(&dir, text.as_deref(), &variables);
        let ours = ours(text.as_deref(), &variables);
        assert_eq!(ours.as_ref().ok(), theirs.as_ref(), "{text:?} {variables:?}: {ours:?}");
        assert_eq!(theirs.is_some(), expected, "{text:?} {variables:?}: {theirs:?}");
        for secret in ["th:r", "wrong"] {
            assert!(ours.is_ok() || !ours.as_ref().unwrap_err().contains(secret), "{ours:?}");
        }
    }
}
