//! The floor plan, kept: imports go down only, files stay small, and only `durable` makes local files.
//!
//! A reading of the sources line by line, no parser: it finds what somebody writes by habit, not what somebody hides.

use std::path::{Path, PathBuf};

/// From the top of the house to its ground. What stands on one line may not know each other's insides, but may import.
const FLOORS: &[&[&str]] = &[
    &["cli"],
    &["daemon"],
    &["operation"],
    &["plan", "repository", "postgres"],
    &["storage", "codec", "pgdata"],
    &["wal"],
    &["durable"],
    &["types"],
];

/// Files of one floor that another room of the same floor, or a lower one, may use all the same, with the reason.
const ALLOWED: &[(&str, &str, &str)] = &[];

/// Lines of code a file may have; its tests live in `foo/tests.rs` when they are longer than it.
const LONGEST_FILE: usize = 500;

#[test]
fn imports_go_down_only() {
    let mut wrong = Vec::new();
    for file in sources() {
        let Some(own) = room_of(&file.path) else { continue };
        for (number, line) in code_lines(&file.text) {
            for imported in crate_paths(line) {
                let up = match (floor(own), floor(imported)) {
                    (Some(mine), Some(other)) => other < mine,
                    _ => false,
                };
                let allowed = ALLOWED.iter().any(|(from, to, _)| *from == own && *to == imported);
                if up && !allowed {
                    wrong.push(format!("{}:{number}: {own} imports {imported}", file.path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "imports that go up:\n{}", wrong.join("\n"));
}

#[test]
fn every_room_is_on_the_floor_plan() {
    let strangers: Vec<_> = sources()
        .into_iter()
        .filter_map(|file| room_of(&file.path).map(str::to_owned))
        .filter(|room| floor(room).is_none() && room != "lib" && room != "main")
        .collect();
    assert!(strangers.is_empty(), "not on the floor plan: {strangers:?}");
}

#[test]
fn no_file_is_too_long_to_be_read() {
    let long: Vec<_> = sources()
        .into_iter()
        .filter(|file| file.text.lines().count() > LONGEST_FILE)
        .map(|file| format!("{}: {} lines", file.path.display(), file.text.lines().count()))
        .collect();
    assert!(long.is_empty(), "ask what two things live in:\n{}", long.join("\n"));
}

#[test]
fn only_durable_creates_renames_or_syncs_local_files() {
    // Clippy refuses some of these everywhere; an `allow` there would still be seen here.
    const MAKERS: &[&str] = &[
        "fs::write(",
        "fs::rename(",
        "fs::copy(",
        "fs::hard_link(",
        "File::create(",
        "File::create_new(",
        "OpenOptions::new()",
        "sync_all()",
        "sync_data()",
        "rustix::fs::renameat",
        "rustix::fs::linkat",
    ];
    let mut wrong = Vec::new();
    for file in sources() {
        if room_of(&file.path) == Some("durable") || is_test(&file.path) {
            continue;
        }
        for (number, line) in code_lines(&file.text) {
            if MAKERS.iter().any(|maker| line.contains(maker)) {
                wrong.push(format!("{}:{number}: {}", file.path.display(), line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "local files made outside src/durable:\n{}", wrong.join("\n"));
}

#[test]
fn only_cli_knows_the_command_line_and_the_way_out() {
    const WORDS: &[&str] =
        &["clap::", "use clap", "println!", "eprintln!", "process::exit", "anyhow::", "use anyhow"];
    let mut wrong = Vec::new();
    for file in sources() {
        if matches!(room_of(&file.path), Some("cli" | "main")) || is_test(&file.path) {
            continue;
        }
        for (number, line) in code_lines(&file.text) {
            if WORDS.iter().any(|word| line.contains(word)) {
                wrong.push(format!("{}:{number}: {}", file.path.display(), line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "belongs into cli/:\n{}", wrong.join("\n"));
}

struct Source {
    /// Relative to `src/`.
    path: PathBuf,
    text: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    collect(&root, &root, &mut found);
    assert!(found.len() > 10, "no sources under {}", root.display());
    found
}

fn collect(root: &Path, dir: &Path, found: &mut Vec<Source>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            found.push(Source { path: path.strip_prefix(root).unwrap().to_owned(), text });
        }
    }
}

/// The first part of the path: `wal` for `wal/scan.rs` as for `wal.rs`.
fn room_of(path: &Path) -> Option<&str> {
    let first = path.components().next()?.as_os_str().to_str()?;
    Some(first.strip_suffix(".rs").unwrap_or(first))
}

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

fn is_test(path: &Path) -> bool {
    path.file_stem().is_some_and(|stem| stem == "tests")
        || path.components().any(|part| part.as_os_str() == "tests")
}

/// Code without comments, up to the tests at a file's end.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
        .map(|(index, line)| (index + 1, line))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// The rooms that a line names as `crate::room` or `crate::{room, …}`.
fn crate_paths(line: &str) -> Vec<&str> {
    let mut rooms = Vec::new();
    for rest in line.split("crate::").skip(1) {
        let names = match rest.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap_or(list),
            None => rest,
        };
        for name in names.split(',') {
            let name = name.trim_start();
            let end = name.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap_or(name.len());
            rooms.push(&name[..end]);
        }
    }
    rooms
}
