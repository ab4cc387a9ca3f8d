//! A server that cannot be backed up says why, and the operator is asked the right question.

use std::io::{Read, Write};
use std::net::TcpListener;

use super::listed;
use crate::support::{Pitr, Server, TestDir};

#[test]
fn a_server_that_will_not_do_is_refused_with_the_reason_and_a_question() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let server = Server::build(&dir, "primary")
        .set("max_wal_senders", "2")
        .hba("hostssl all,replication tls 127.0.0.1/32 trust")
        .hba("host all,replication tls 127.0.0.1/32 reject")
        .hba("host all,replication scram 127.0.0.1/32 scram-sha-256")
        .hba("host all nohba 127.0.0.1/32 trust")
        .hba("host replication nohba 127.0.0.1/32 reject")
        .start();
    server.sql(
        "CREATE ROLE weak LOGIN; CREATE ROLE tls LOGIN REPLICATION; CREATE ROLE nohba LOGIN REPLICATION;
         CREATE ROLE scram LOGIN REPLICATION PASSWORD 'right';",
    );
    let pitr = Pitr::new(&dir);
    let to = |user: &str, rest: &str| format!("host=127.0.0.1 port={} user={user} {rest}", server.port);
    for (conninfo, said, asked) in [
        (to("weak", ""), "replication", "may the role take backups (ALTER ROLE … REPLICATION)?"),
        (to("nohba", ""), "pg_hba.conf", "does pg_hba.conf have a line for this role"),
        (to("tls", ""), "pg_hba.conf", "does pg_hba.conf have a line for this role"),
        (
            to("tls", "sslmode=require"),
            "does not offer TLS, and sslmode=require requires it",
            "is ssl = on at the server?",
        ),
        (to("tls", "sslmode=verify-full"), "needs a root certificate", ""),
        (to("scram", "password=wrong"), "password authentication failed", "is the password right?"),
        (to("scram", ""), "asks for a password", "is the password in PGPASSWORD, in the passfile (0600)"),
        ("host=no.such.host.invalid user=u".to_owned(), "no.such.host.invalid", "is the host's name right"),
        ("host=127.0.0.1 port=1 user=u".to_owned(), "127.0.0.1:1", "is the server running, the port right"),
        ("host=/nowhere user=u".to_owned(), "/nowhere", "is this the directory of its socket"),
        (
            to("scram", "target_session_attrs=standby password=right"),
            "target_session_attrs=standby",
            "is target_session_attrs right",
        ),
        (to("scram", "hots=x"), "\"hots\" is not a connection parameter", ""),
    ] {
        let refused = pitr.run(["backup", "--wal=include", "--conninfo", &conninfo]);
        refused.expect_code(1);
        refused.expect_said(said);
        refused.expect_said(asked);
        assert!(!refused.stderr.contains("wrong"), "{}", refused.stderr);
    }

    // Its walsenders are taken: --wal include needs two.
    let mut taken = Vec::new();
    let receivewal = server.installation().program("pg_receivewal");
    for n in 0..2 {
        let target = dir.create_dir(format!("received-{n}"));
        let mut command = dir.account().command(&receivewal);
        command.args(["-n", "-d", &server.conninfo(), "-D"]);
        taken.push(command.arg(target).stderr(std::process::Stdio::null()).spawn().unwrap());
    }
    server.wait_for("SELECT count(*) FROM pg_stat_replication", "2", 20);
    let refused = pitr.clone().connecting_to(&server).run(["backup"]);
    for mut child in taken {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    refused.expect_code(1);
    refused.expect_said("max_wal_senders");
    refused.expect_said("hint: are wal_level at least \"replica\" and max_wal_senders large enough?");
    assert!(!dir.join("repo/repository.json").exists() || listed(&pitr) == (vec![], vec![]));
}

#[test]
fn a_server_with_minimal_wal_cannot_be_backed_up() {
    let dir = TestDir::new();
    let server =
        Server::build(&dir, "primary").set("wal_level", "minimal").set("max_wal_senders", "0").start();
    let refused = Pitr::new(&dir).connecting_to(&server).run(["backup"]);
    refused.expect_code(1);
    refused.expect_said("hint: are wal_level at least \"replica\"");
}

/// Speaks just enough of the protocol to let somebody in and say how old it is.
fn old_server(version: &'static str) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut length = [0; 4];
        client.read_exact(&mut length).unwrap();
        let mut rest = vec![0; u32::from_be_bytes(length) as usize - 4];
        client.read_exact(&mut rest).unwrap();
        let mut answer = vec![b'R', 0, 0, 0, 8, 0, 0, 0, 0];
        let parameter = format!("server_version\0{version}\0");
        answer.push(b'S');
        answer.extend((u32::try_from(parameter.len()).unwrap() + 4).to_be_bytes());
        answer.extend(parameter.bytes());
        answer.extend([b'Z', 0, 0, 0, 5, b'I']);
        client.write_all(&answer).unwrap();
        // Until the client has gone.
        drop(client.read_to_end(&mut Vec::new()));
    });
    port
}

#[test]
fn a_server_that_is_too_old_is_refused_by_its_own_word() {
    let dir = TestDir::new();
    for version in ["12.22 (Debian 12.22-1.pgdg120+1)", "9.6.24"] {
        let conninfo = format!("host=127.0.0.1 port={} user=u sslmode=disable", old_server(version));
        let refused = Pitr::new(&dir).run(["backup", "--conninfo", &conninfo]);
        refused.expect_code(1);
        refused.expect_said(&format!("pitr needs PostgreSQL 13 or later; this server is {version}"));
        refused.expect_said("hint: is this the server you meant?");
    }
}
