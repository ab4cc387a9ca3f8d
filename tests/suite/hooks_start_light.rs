//! The hooks run once a segment: with a local repository they start no threads, open no sockets, and read no certificates, AWS
//! profiles or the like. Shown by their system calls, not by a clock.

use crate::support::finished::traced;
use crate::support::{Finished, Pitr};

const LOOKED_AT: &str = "trace=clone,clone3,fork,vfork,socket,connect,epoll_create1,eventfd2,io_uring_setup,openat,open,readlink,statx,newfstatat";

fn calls(server: &Finished, pitr: &Pitr, arguments: &[&str]) -> Vec<String> {
    let (outcome, lines) = traced(pitr, &server.dir, &["-e".into(), LOOKED_AT.into()], arguments);
    assert!(outcome.code.is_some(), "{outcome:?}");
    lines
}

fn heavy(lines: &[String]) -> Vec<&String> {
    const CALLS: [&str; 9] = [
        " clone(",
        " clone3(",
        " fork(",
        " vfork(",
        " socket(",
        " connect(",
        " epoll_create1(",
        " eventfd2(",
        " io_uring_setup(",
    ];
    const FILES: [&str; 7] = ["/ssl", "certs", ".pem", ".aws", "resolv.conf", "nsswitch.conf", "zoneinfo"];
    lines
        .iter()
        .filter(|line| {
            CALLS.iter().any(|call| line.contains(call)) || FILES.iter().any(|file| line.contains(file))
        })
        .collect()
}

#[test]
fn with_a_local_repository_no_thread_no_socket_and_no_certificate_is_needed() {
    let server = Finished::new();
    let (name, bytes) = &server.segments[0];
    let segment = server.put(name, bytes);
    let history = server.put("00000002.history", b"1\t0/3000000\tno recovery target specified\n");
    for (case, arguments) in [
        ("the first push", ["archive-push", &segment].as_slice()),
        ("the same again", &["archive-push", &segment]),
        ("a history file", &["archive-push", &history]),
        ("a get", &["archive-get", name, "pg_wal/RECOVERYXLOG"]),
        ("a get of what is not there", &["archive-get", "000000010000000000000099", "pg_wal/RECOVERYXLOG"]),
    ] {
        let lines = calls(&server, &server.pitr, arguments);
        assert!(lines.iter().any(|line| line.contains("pg_control")), "{case}: nothing was traced");
        let heavy = heavy(&lines);
        assert!(heavy.is_empty(), "{case}: {heavy:#?}");
    }
    // The same eyes see what a bucket needs.
    let bucket = server
        .pitr
        .clone()
        .repository("s3://bucket/prod")
        .env("PITR_REPOSITORY_ENDPOINT", "http://127.0.0.1:1")
        .env("PITR_ARCHIVE_PUSH_RETRY", "0")
        .env("AWS_REGION", "us-east-1");
    assert!(heavy(&calls(&server, &bucket, &["archive-push", &segment])).len() > 3);
}

#[test]
fn a_segment_of_more_than_one_frame_is_compressed_beside_reading_by_one_thread() {
    let server = Finished::new();
    let name = "000000010000000000000002";
    let segment = crate::support::wal_bytes::segment_of_old_pages(name, 16 << 20, 7);
    // Outside of a data directory the segment itself says what it is.
    server.dir.create_dir("elsewhere/pg_wal");
    server.dir.write(format!("elsewhere/pg_wal/{name}"), &segment);
    let pitr = server.pitr.clone().in_dir(server.dir.join("elsewhere"));
    let lines = calls(&server, &pitr, &["archive-push", &format!("pg_wal/{name}")]);
    let threads = lines.iter().filter(|line| line.contains(" clone3(") || line.contains(" clone(")).count();
    assert_eq!(threads, 1, "{:#?}", heavy(&lines));
    let lines = calls(&server, &pitr, &["archive-get", name, "pg_wal/RECOVERYXLOG"]);
    assert!(heavy(&lines).is_empty(), "{:#?}", heavy(&lines));
}
