//! The client against real servers: the replication commands of every major.

use pitr::pgdata::backup_manifest::ManifestReader;
use pitr::pgdata::tar::{TarEvent, TarReader};
use pitr::postgres::ConnInfo;
use pitr::postgres::base_backup::{BaseBackupEvent, BaseBackupOptions, Checkpoint};
use pitr::postgres::replication::ReplicationClient;
use pitr::postgres::sql::SqlClient;
use pitr::postgres::wal_stream::WalEvent;
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
            // Little room, so that messages do not fit in.
            let mut data = Vec::new();
            while let Some(event) = backup.next(&mut data, 10_007).await.unwrap() {
                match event {
                    BaseBackupEvent::Start { lsn, tablespaces, .. } => {
                        start = lsn;
                        assert_eq!(tablespaces.len(), 2);
                    }
                    BaseBackupEvent::Archive { name, location } => {
                        archives.push((name, location, TarReader::new()));
                    }
                    BaseBackupEvent::Data => {
                        assert!((1..=10_007).contains(&data.len()));
                        let (name, _, reader) = archives.last_mut().unwrap();
                        let mut rest = &data[..];
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
                        data.clear();
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
