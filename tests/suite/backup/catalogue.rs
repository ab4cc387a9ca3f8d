//! The names of the cluster's objects are kept with each backup, as far as its login may read them.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use pitr::repository::backup_set::format::Backup;
use serde_json::Value;

use super::{archiving, take};
use crate::support::{Pitr, Server, TestDir};

/// The stored lines, by zstd itself.
#[track_caller]
fn stored(dir: &TestDir, backup: &Backup) -> Vec<Value> {
    let path = dir.join(format!("repo/main/0001/backup/{}/catalogue.zst", backup.id));
    let output = Command::new("zstd").arg("-dcq").arg(path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let facts = backup.catalogue.as_ref().unwrap().object.as_ref().unwrap();
    assert_eq!(facts.size, output.stdout.len() as u64);
    assert_eq!(facts.blake3, blake3::hash(&output.stdout).to_hex().as_str());
    output
        .stdout
        .split(|b| *b == b'\n')
        .filter(|l| !l.is_empty())
        .map(|l| serde_json::from_slice(l).unwrap())
        .collect()
}

/// Database → what is said of its relations, in the words of [`ORACLE`].
fn by_database(lines: &[Value]) -> BTreeMap<String, BTreeSet<String>> {
    let mut databases: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut current = String::new();
    for line in lines {
        if let Some(database) = line.get("database") {
            current = match &database["name"] {
                Value::String(name) => name.clone(),
                bytes => bytes["hex"].as_str().unwrap().to_owned(),
            };
            databases.entry(current.clone()).or_default();
            continue;
        }
        let relation = &line["relation"];
        let number = |field: &str| relation[field].as_u64().unwrap_or(0);
        let text = format!(
            "{}|{}|{}|{}|{}|{}",
            number("oid"),
            number("file"),
            number("tablespace"),
            relation["schema"].as_str().unwrap(),
            relation["name"].as_str().unwrap(),
            relation["kind"].as_str().unwrap(),
        );
        databases.get_mut(&current).unwrap().insert(text);
    }
    databases
}

/// What the server says of a database's own relations. `pg_relation_filenode` knows mapped ones as well.
const ORACLE: &str = "SELECT c.oid, coalesce(pg_relation_filenode(c.oid), 0), \
    coalesce(nullif(c.reltablespace, 0), (SELECT dattablespace FROM pg_database WHERE datname = current_database())), \
    n.nspname, c.relname, c.relkind \
    FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE NOT relisshared";

#[track_caller]
fn oracle(server: &Server, database: &str) -> BTreeSet<String> {
    let to =
        server.conninfo().replace("dbname=postgres", &format!("dbname='{database}' client_encoding=UTF8"));
    let rows = server.psql_at(&to, ORACLE);
    rows.lines().map(str::to_owned).collect()
}

#[test]
fn a_login_that_may_replicate_and_connect_records_every_relation_of_every_database() {
    let dir = TestDir::new();
    let (server, pitr) = archiving(&dir);
    let space = dir.create_dir("space");
    server.account().own(&space);
    server.sql(&format!("CREATE TABLESPACE s LOCATION '{}'", space.display()));
    server.sql(
        "CREATE ROLE backup LOGIN REPLICATION;
         CREATE SCHEMA \"Über \"\"all\"\"\"; CREATE TABLE \"Über \"\"all\"\"\".\"naïve\ttäble\" (i int PRIMARY KEY, t text);
         CREATE TABLE spaced (i int) TABLESPACE s; CREATE VIEW v AS SELECT 1; CREATE SEQUENCE q;
         CREATE TABLE rewritten (t text); VACUUM FULL rewritten; VACUUM FULL pg_class;",
    );
    server.sql("CREATE DATABASE \"odd 'name=\\ x\" TABLESPACE s");
    server.sql("CREATE DATABASE latin ENCODING LATIN1 LOCALE 'C' TEMPLATE template0");
    server.sql("CREATE DATABASE plain ENCODING SQL_ASCII LOCALE 'C' TEMPLATE template0");
    let to = |database: &str| server.conninfo().replace("dbname=postgres", &format!("dbname={database}"));
    assert_eq!(server.psql_at(&to("latin client_encoding=UTF8"), "CREATE TABLE café (i int)"), "");
    let pitr = pitr.env("PGUSER", "backup");
    let backup = take(&pitr, &["--wal=include"]);
    let lines = stored(&dir, &backup);
    let databases = by_database(&lines);
    let names: Vec<&str> = databases.keys().map(String::as_str).collect();
    assert_eq!(names, ["latin", "odd 'name=\\ x", "plain", "postgres", "template0", "template1"]);
    assert!(databases["template0"].is_empty(), "nobody may connect to it");
    for (database, quoted) in
        [("latin", "latin"), ("postgres", "postgres"), ("odd 'name=\\ x", "odd \\'name=\\\\ x")]
    {
        let missing: Vec<_> = oracle(&server, quoted).difference(&databases[database]).cloned().collect();
        assert!(missing.is_empty(), "{database}: {missing:?}");
    }
    assert!(databases["latin"].iter().any(|r| r.contains("|café|r")), "converted by the server");
    let facts = backup.catalogue.unwrap();
    assert_eq!((facts.databases, facts.lacking), (5, vec![]));
    let relations = lines.iter().filter(|l| l.get("relation").is_some()).count();
    assert_eq!(facts.relations, relations as u64);
    // Indexes and TOAST tables say whose they are; what all databases share is told once.
    let find = |name: &str| lines.iter().map(|l| &l["relation"]).find(|r| r["name"] == name).unwrap();
    let table = server.sql("SELECT '\"Über \"\"all\"\"\".\"naïve\ttäble\"'::regclass::oid");
    let toast = find(&format!("pg_toast_{table}"));
    assert_eq!(toast["owner"].to_string(), table);
    assert_eq!(find(&format!("pg_toast_{table}_index"))["owner"], toast["oid"]);
    assert_eq!(find("naïve\ttäble_pkey")["owner"].to_string(), table);
    assert_eq!(lines.iter().filter(|l| l["relation"]["name"] == "pg_database").count(), 1);
}

#[test]
fn names_that_are_no_text_in_any_encoding_are_kept_as_bytes() {
    let dir = TestDir::new();
    let (server, pitr) = archiving(&dir);
    server.sql("CREATE DATABASE plain ENCODING SQL_ASCII LOCALE 'C' TEMPLATE template0");
    let to = server.conninfo().replace("dbname=postgres", "dbname=plain");
    server.psql_at(&to, "DO $$BEGIN EXECUTE convert_from('\\x435245415445205441424c452022636166e922202869206e756d6572696329', 'SQL_ASCII'); END$$");
    let backup = take(&pitr, &["--wal=include"]);
    let lines = stored(&dir, &backup);
    let bytes: Vec<_> = lines.iter().filter_map(|l| l["relation"]["name"]["hex"].as_str()).collect();
    assert_eq!(bytes, ["636166e9"]);
    assert_eq!(backup.catalogue.unwrap().lacking, Vec::<String>::new());
}

#[test]
fn a_login_that_may_only_replicate_takes_a_good_backup_and_is_told_what_it_lacks() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let server = Server::build(&dir, "primary")
        .hba("local all solo reject")
        .hba("local replication solo trust")
        .start();
    server.sql("CREATE ROLE solo LOGIN REPLICATION; CREATE ROLE other LOGIN REPLICATION; CREATE DATABASE closed; REVOKE CONNECT ON DATABASE closed FROM PUBLIC;");
    let pitr = Pitr::new(&dir).connecting_to(&server);

    let only = pitr.clone().env("PGUSER", "solo");
    let outcome = only.run(["backup", "--json"]);
    outcome.expect_code(0);
    outcome.expect_said("warning: the names of the cluster's objects cannot be recorded");
    outcome.expect_said("pg_hba.conf rejects connection");
    let backup: Backup = serde_json::from_str(&outcome.stdout).unwrap();
    let facts = backup.catalogue.clone().unwrap();
    assert_eq!((facts.object, facts.databases, facts.lacking.len()), (None, 0, 1));
    assert!(!dir.join(format!("repo/main/0001/backup/{}/catalogue.zst", backup.id)).exists());
    let copy = format!("--to={}", dir.join("copy").display());
    drop(pitr.ok(["restore", &copy, "--backup", &backup.id.to_string()]));

    let silent = only.run(["backup", "--json", "--no-catalogue", "--quiet"]);
    silent.expect_code(0);
    assert_eq!(silent.stderr, "");
    assert_eq!(serde_json::from_str::<Backup>(&silent.stdout).unwrap().catalogue, None);

    let some = pitr.env("PGUSER", "other").run(["backup", "--json"]);
    some.expect_code(0);
    some.expect_said("warning: the names of objects are not recorded: database \"closed\": ");
    let backup: Backup = serde_json::from_str(&some.stdout).unwrap();
    let databases = by_database(&stored(&dir, &backup));
    assert!(databases["closed"].is_empty() && !databases["postgres"].is_empty());
    let lacking = backup.catalogue.unwrap().lacking;
    assert!(matches!(&lacking[..], [one] if one.contains("permission denied for database")), "{lacking:?}");
}

#[test]
fn a_standby_tells_its_names_too_and_one_without_sql_is_backed_up_all_the_same() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let primary = Server::build(&dir, "primary").start();
    primary.sql("CREATE TABLE on_the_primary (i int)");
    let mut standby = primary.standby(&dir, "standby");
    let hba = standby.data.join("pg_hba.conf");
    let old = std::fs::read_to_string(&hba).unwrap();
    std::fs::write(&hba, format!("local all replicates reject\nlocal replication replicates trust\n{old}"))
        .unwrap();
    standby.start();
    primary.sql("CREATE ROLE replicates LOGIN REPLICATION");
    standby.wait_for("SELECT count(*) FROM pg_roles WHERE rolname = 'replicates'", "1", 60);
    let pitr = Pitr::new(&dir).connecting_to(&standby);
    let backup = take(&pitr, &["--wal=include"]);
    let databases = by_database(&stored(&dir, &backup));
    assert!(oracle(&standby, "postgres").is_subset(&databases["postgres"]));
    let refused = take(&pitr.env("PGUSER", "replicates"), &["--wal=include"]);
    assert_eq!(refused.catalogue.unwrap().object, None);
}

#[test]
fn the_passfiles_line_of_each_database_is_used() {
    use std::os::unix::fs::PermissionsExt;
    let dir = TestDir::new();
    dir.create_dir("repo");
    let server =
        Server::build(&dir, "primary").hba("host all,replication scram 127.0.0.1/32 scram-sha-256").start();
    server.sql("CREATE ROLE scram LOGIN REPLICATION PASSWORD 'secret'; CREATE DATABASE other;");
    let port = server.port;
    let passfile = dir.write(
        ".pgpass",
        format!("127.0.0.1:{port}:replication:scram:secret\n127.0.0.1:{port}:postgres:scram:secret\n"),
    );
    std::fs::set_permissions(&passfile, PermissionsExt::from_mode(0o600)).unwrap();
    dir.account().own(&passfile);
    let pitr =
        Pitr::new(&dir).env("PGHOST", "127.0.0.1").env("PGPORT", port.to_string()).env("PGUSER", "scram");
    let backup = take(&pitr, &["--wal=include"]);
    let facts = backup.catalogue.unwrap();
    assert_eq!(facts.databases, 1, "{facts:?}");
    assert!(facts.lacking.iter().any(|l| l.starts_with("database \"other\": ")), "{facts:?}");
}
