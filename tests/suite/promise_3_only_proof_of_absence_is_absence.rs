//! Exit 1 is proof; everything else that is not the file is 255.

use crate::support::{Pitr, Server, TestDir};

#[test]
fn archive_get_says_absent_only_with_proof() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    dir.create_dir("empty");
    let pitr = Pitr::new(&dir);
    let server = Server::build(&dir, "primary").archive_command(&pitr.hook("archive-push %p")).start();
    let stored = server.archive_now();
    let pitr = pitr.in_dir(server.file(""));
    let out = dir.join("out");
    let out = out.display().to_string();
    let get = |pitr: &Pitr, name: &str| pitr.run(["archive-get", name, &out]);

    get(&pitr, &stored).expect_code(0);
    assert_eq!(std::fs::read(&out).unwrap().len(), 16 << 20, "a segment is delivered whole");
    get(&pitr, "000000010000000F00000001").expect_code(1);

    let elsewhere = |place: &str| format!("file://{}", dir.join(place).display());
    get(&pitr.clone().repository(elsewhere("empty")), &stored).expect_code(255);
    get(&pitr.clone().repository(elsewhere("gone")), &stored).expect_code(255);
    get(&pitr.clone().env("PITR_CLUSTER", "other"), &stored).expect_code(255);
    get(&pitr.clone().without("PITR_REPOSITORY"), &stored).expect_code(255);
    get(&pitr.clone().env("PITR_CONFIG", "/nonexistent.toml"), &stored).expect_code(255);
    get(&pitr, &format!("pg_wal/{stored}")).expect_code(255);
    pitr.run(["archive-get", "--mistyped", &stored, &out]).expect_code(255);
    pitr.run(["archive-gte", &stored, &out]).expect_code(255);

    let object = dir.join(format!("repo/main/0001/wal/00000001/{}/{stored}.zst", &stored[8..16]));
    let mut bytes = std::fs::read(&object).unwrap();
    let at = bytes.len() - 100;
    bytes[at] ^= 1;
    std::fs::write(&object, bytes).unwrap();
    get(&pitr, &stored).expect_code(255);

    std::fs::rename(dir.join("repo"), dir.join("moved")).unwrap();
    dir.create_dir("repo");
    get(&pitr, &stored).expect_code(255);
    let push = pitr.run(["archive-push", &format!("pg_wal/{stored}")]);
    push.expect_code(1);
    push.expect_said("is not the repository that this host has used");
}
