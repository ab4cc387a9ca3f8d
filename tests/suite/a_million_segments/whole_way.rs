//! The whole way with a real server: archived, sealed by the next backup, believed by `info`, proved by a plan.

use crate::support::{Pitr, Server, TestDir};

fn document(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

#[test]
fn a_backup_seals_what_became_complete_and_fails_by_no_means_if_it_cannot() {
    let dir = TestDir::new();
    let repo = dir.create_dir("repo");
    let pitr = Pitr::new(&dir);
    // Four segments a LOG, of which hardly a page is ever written.
    let mut server = Server::build(&dir, "primary")
        .initdb("--wal-segsize=1024")
        .set("wal_init_zero", "off")
        .set("wal_recycle", "off")
        .set("max_wal_size", "8GB")
        .archive_command(&pitr.hook("archive-push %p"))
        .create();
    // Its WAL begins with a LOG's first segment.
    let reset = dir
        .account()
        .command(server.installation().program("pg_resetwal"))
        .args(["-l", "000000010000000100000000", "-D"])
        .arg(&server.data)
        .output()
        .unwrap();
    assert!(reset.status.success(), "{}", String::from_utf8_lossy(&reset.stderr));
    server.start();
    let pitr = pitr.connecting_to(&server);
    server.sql("CREATE TABLE t (n int)");
    // What stands in the way of it is said, and the backup is as good.
    let rollups = repo.join("main/0001/rollup");
    server.archive_now();
    std::fs::write(&rollups, b"").unwrap();
    let first = pitr.run(["backup", "--json"]);
    first.expect_code(0);
    assert!(first.stderr.contains("the backup is complete, but"), "{}", first.stderr);
    std::fs::remove_file(&rollups).unwrap();
    let first = document(&first.stdout);
    let id = first["id"].as_str().unwrap_or_else(|| panic!("{first}")).to_owned();
    loop {
        server.sql("INSERT INTO t VALUES (1)");
        if server.archive_now().as_str() >= "000000010000000200000000" {
            break;
        }
    }

    pitr.ok(["backup"]);
    let names: Vec<String> = std::fs::read_dir(rollups.join("00000001"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let sealed = |name: &&String| name.starts_with("00000001.00000004.") && name.contains(".w");
    assert_eq!(names.iter().filter(sealed).count(), 1, "{names:?}");

    let gaps = || document(&pitr.ok(["info", "--json"]))["clusters"][0]["wal"][0]["gaps"].clone();
    let to = format!("--to={}", dir.join("copy").display());
    let plan = || pitr.run(["restore", &to, "--plan", "--json", "--backup", &id]);
    plan().expect_code(0);
    let lost = "000000010000000100000002";
    std::fs::remove_file(repo.join(format!("main/0001/wal/00000001/00000001/{lost}.zst"))).unwrap();
    assert_eq!(gaps().as_array().unwrap().len(), 0, "info believes roll-ups");
    let refused = plan();
    refused.expect_code(1);
    let problems = document(&refused.stdout)["problems"].to_string();
    assert!(problems.contains(&format!("{lost} is missing")), "{problems}");
}
