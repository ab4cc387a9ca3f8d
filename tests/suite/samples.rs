//! What is handed out to be copied works as it stands: the samples of `contrib/`, and the blocks of the README.

use std::path::Path;
use std::process::Command;

use crate::support::{Pitr, Server, TestDir};

fn text(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// The indented blocks of the README whose text holds these words.
fn readme_block(words: &str) -> String {
    let readme = text("README.md");
    let mut blocks = vec![String::new()];
    for line in readme.lines() {
        match line.strip_prefix("    ") {
            Some(code) => *blocks.last_mut().unwrap() += &format!("{code}\n"),
            None => blocks.push(String::new()),
        }
    }
    let found: Vec<_> = blocks.into_iter().filter(|block| block.contains(words)).collect();
    assert_eq!(found.len(), 1, "blocks of the README with {words}: {found:?}");
    found.into_iter().next().unwrap()
}

#[test]
fn the_sample_configuration_is_understood_with_every_key_that_it_shows() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let sample = text("contrib/pitr.toml");
    // `#key = value`, without a space, is a key that is switched off; `# text` is a remark.
    let switched_on: String = sample
        .lines()
        .map(|line| format!("{}\n", line.strip_prefix('#').filter(|l| !l.starts_with(' ')).unwrap_or(line)))
        .collect();
    assert_ne!(sample, switched_on);
    for (what, config) in [("as it stands", sample), ("with every key", switched_on)] {
        let file = dir.write("pitr.toml", config);
        let done = Pitr::new(&dir).run(["--config", file.to_str().unwrap(), "info"]);
        // Understood, and then refused for what it is: an empty directory.
        done.expect_code(1);
        assert!(done.stderr.contains("is empty"), "{what}: {}", done.stderr);
    }
    for block in ["url = \"file:///var/lib/pitr\"", "url = \"s3://"] {
        let file = dir.write("pitr.toml", readme_block(block));
        let done = Pitr::new(&dir).run(["--config", file.to_str().unwrap(), "info"]);
        assert!(done.stderr.contains("is empty"), "{block}: {}", done.stderr);
    }
}

#[test]
fn a_server_with_the_sample_settings_archives() {
    let dir = TestDir::new();
    dir.create_dir("repo");
    let pitr = Pitr::new(&dir);
    for (name, sample) in
        [("contrib", text("contrib/postgresql.conf")), ("readme", readme_block("archive_mode = on"))]
    {
        assert!(sample.contains("'/usr/local/bin/pitr archive-push %p'"), "{name}");
        let hook = pitr.clone().env("PITR_CLUSTER", name).hook("archive-push %p").replace('\'', "''");
        let sample = sample.replace("/usr/local/bin/pitr archive-push %p", &hook);
        let mut server = Server::build(&dir, name).create();
        let file = server.file("postgresql.conf");
        let settings = std::fs::read_to_string(&file).unwrap() + &sample;
        std::fs::write(&file, settings).unwrap();
        server.start();
        server.archive_now();
        assert_eq!(server.sql("SHOW archive_timeout"), "5min");
    }
}

#[test]
fn the_units_and_the_cron_file_are_what_their_readers_expect() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let verify = |unit: &str| {
        let output =
            Command::new("systemd-analyze").arg("verify").arg(root.join("contrib").join(unit)).output();
        output.map(|output| String::from_utf8_lossy(&output.stderr).into_owned())
    };
    // Where there is no systemd there is nobody to read the units either.
    if let Ok(said) = verify("pitr-backup.timer") {
        assert_eq!(said, "");
        let said = verify("pitr-backup.service").unwrap();
        // The one complaint: the program is not installed on the machine that tests.
        let others: Vec<_> =
            said.lines().filter(|line| !line.contains("/usr/local/bin/pitr is not executable")).collect();
        assert!(others.is_empty(), "{others:?}");
    }
    for line in text("contrib/pitr.cron").lines().filter(|line| !line.starts_with('#')) {
        assert!(
            line.split_whitespace().nth(5) == Some("postgres"),
            "minute hour day month weekday user: {line}"
        );
    }
}

#[test]
fn every_field_that_is_written_is_in_the_format() {
    let dir = TestDir::new();
    let repository = dir.create_dir("repo");
    let pitr = Pitr::new(&dir);
    let server = Server::build(&dir, "primary").archive_command(&pitr.hook("archive-push %p")).start();
    server.sql("CREATE TABLE t (n int); SELECT pg_create_restore_point('p')");
    pitr.connecting_to(&server).ok(["backup", "--annotate", "a=b"]);
    let format = text("FORMAT.md");
    let mut seen = 0;
    let mut folders = vec![repository];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = std::fs::read(&path).unwrap();
            let name = path.to_str().unwrap();
            let documents: Vec<serde_json::Value> = if name.ends_with(".json") {
                vec![serde_json::from_slice(&bytes).unwrap()]
            } else if name.ends_with("files.zst") {
                let lines = String::from_utf8(zstd::decode_all(&bytes[..]).unwrap()).unwrap();
                lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
            } else if name.contains("/wal/") {
                let length = u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize;
                vec![serde_json::from_slice(&bytes[8..8 + length]).unwrap()]
            } else {
                continue;
            };
            for document in documents {
                seen += 1;
                for field in fields(&document).into_iter().filter(|field| field != "a") {
                    let known =
                        [format!("`{field}`"), format!("\"{field}\":")].iter().any(|f| format.contains(f));
                    assert!(known, "{field} of {name} is not in FORMAT.md");
                }
            }
        }
    }
    assert!(seen > 100, "{seen}");
}

fn fields(value: &serde_json::Value) -> Vec<String> {
    match value {
        serde_json::Value::Object(map) => {
            map.iter().flat_map(|(name, value)| std::iter::once(name.clone()).chain(fields(value))).collect()
        }
        serde_json::Value::Array(values) => values.iter().flat_map(fields).collect(),
        _ => Vec::new(),
    }
}
