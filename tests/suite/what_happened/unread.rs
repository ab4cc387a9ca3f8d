//! What cannot be read is said, and the rest is told.

use super::{archiving, events, short};
use crate::support::TestDir;

#[test]
fn gaps_and_damage_are_said_and_the_rest_is_told() {
    let dir = TestDir::new();
    let (server, pitr) = archiving(&dir, 15, &[]);
    server.sql("CREATE TABLE a AS SELECT generate_series(1, 300) i; CREATE TABLE b AS SELECT * FROM a; CREATE TABLE d AS SELECT * FROM a;");
    drop(pitr.ok(["backup", "--wal=archive"]));
    server.sql("DROP TABLE a");
    server.archive_now();
    server.sql("DROP TABLE b");
    let missing = server.archive_now();
    server.sql("INSERT INTO d VALUES (1)");
    let damaged = server.archive_now();
    server.sql("DROP TABLE d");
    server.archive_now();
    let drops = ["drop public.a", "drop public.b", "drop public.d"];
    assert_eq!(short(&events(&pitr, &["--kind", "drop"])), drops);
    let stored = |segment: &str| {
        dir.join(format!("repo/main/0001/wal/{}/{}/{segment}.zst", &segment[..8], &segment[8..16]))
    };
    std::fs::remove_file(stored(&missing)).unwrap();
    let mut bytes = std::fs::read(stored(&damaged)).unwrap();
    bytes[20] ^= 0xFF;
    std::fs::write(stored(&damaged), &bytes).unwrap();
    let outcome = pitr.run(["events", "--json", "--kind", "drop"]);
    outcome.expect_code(0);
    outcome.expect_said(&format!("warning: segment {missing} is not in the archive"));
    outcome.expect_said(&format!("warning: segment {damaged} is not read to its end"));
    let document: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(short(document["events"].as_array().unwrap()), [drops[0], drops[2]]);

    for entry in std::fs::read_dir(stored(&damaged).parent().unwrap()).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[20] ^= 0xFF;
        std::fs::write(&path, &bytes).unwrap();
    }
    // One of them is whole again: damaged twice.
    std::fs::remove_file(stored(&damaged)).unwrap();
    let outcome = pitr.run(["events"]);
    outcome.expect_code(1);
    outcome.expect_said("can be read");
}
