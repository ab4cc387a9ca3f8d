//! `pitr demo` tells the truth, and leaves nothing behind: at its end, on failure, on Ctrl-C.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{TestDir, wait_until};

#[test]
fn the_demo_brings_the_table_back_and_leaves_nothing() {
    let dir = TestDir::new();
    // None of these may be looked at: they could be somebody's production.
    let hostile = [
        ("PGHOST", "/nonexistent"),
        ("PGDATA", "/nonexistent"),
        ("PGSERVICE", "production"),
        ("PITR_REPOSITORY", "s3://production"),
        ("PITR_POSTGRES_CONNINFO", "host=production"),
    ];
    let output = demo(&dir).arg("--json").envs(hostile).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let outcome: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(outcome["rows_before"].as_u64().unwrap() > 100_000, "{outcome}");
    assert_eq!(outcome["rows_before"], outcome["rows_after"]);
    for command in ["initdb", "pg_ctl", "pitr backup", "DROP TABLE orders", "pitr restore"] {
        assert!(
            said.lines().any(|line| line.starts_with("$ ") && line.contains(command)),
            "no {command}: {said}"
        );
    }
    assert!(!said.contains('\x1b'), "colours where there is no terminal: {said}");
    assert_nothing_left(&dir);
}

#[test]
fn a_demo_that_is_told_to_end_clears_up_first() {
    for moment in ["$ initdb", "$ pg_ctl", "$ pitr backup", "$ pitr restore", "copy.log"] {
        let dir = TestDir::new();
        let mut child = demo(&dir).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        read_until(&mut child, moment);
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.code(), Some(128 + 15), "ended at {moment}");
        assert_nothing_left(&dir);
    }
}

#[test]
fn ctrl_c_in_a_terminal_ends_a_coloured_demo_that_clears_up() {
    let dir = TestDir::new();
    let line = format!("{} demo --dir {}", env!("CARGO_BIN_EXE_pitr"), dir.path().display());
    let mut terminal = Command::new("script");
    terminal.args(["-qec", &line, "/dev/null"]).env("TERM", "xterm").env_remove("NO_COLOR");
    let mut child = terminal.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let said = read_until(&mut child, "pitr backup");
    assert!(said.contains("\x1b[1mA cluster that archives\x1b[0m"), "{said}");
    child.stdin.as_mut().unwrap().write_all(b"\x03").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(128 + 2));
    assert_nothing_left(&dir);
}

#[test]
fn a_demo_whose_server_dies_says_why_and_clears_up() {
    let dir = TestDir::new();
    let mut child = demo(&dir).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    read_until(&mut child, "$ pitr backup");
    let pid_file = std::fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
    let pid = std::fs::read_to_string(pid_file.join("primary/postmaster.pid")).unwrap();
    let pid = Pid::from_raw(pid.lines().next().unwrap().parse().unwrap()).unwrap();
    kill_process(pid, Signal::QUIT).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("failed") && said.contains("the log of primary"), "{said}");
    assert_nothing_left(&dir);
}

#[test]
fn a_place_that_cannot_be_used_is_named() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_pitr")).args(["demo", "--dir", "/nonexistent"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot make a directory in /nonexistent"));
}

fn demo(dir: &TestDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pitr"));
    command.arg("demo").arg("--dir").arg(dir.path()).stdin(Stdio::null());
    command
}

/// What it said up to the first line with these words. The rest is read by nobody, as when a pager was closed.
fn read_until(child: &mut Child, words: &str) -> String {
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    let mut said = String::new();
    while !said.lines().next_back().unwrap_or_default().contains(words) {
        let from = said.len();
        reader.read_line(&mut said).unwrap();
        assert!(said.len() > from, "it ended before {words}: {said}");
    }
    // Kept open and drained: a demo must not be ended by this test's own deafness.
    std::thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
    said
}

#[track_caller]
fn assert_nothing_left(dir: &TestDir) {
    let files: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.is_empty(), "left: {files:?}");
    // A server's children notice within moments that their postmaster is gone.
    wait_until("no process is left", 10, || processes_of(dir.path()).is_empty());
}

/// Processes that name the directory on their command line, or live in it.
fn processes_of(dir: &Path) -> Vec<String> {
    let name = dir.to_str().unwrap();
    let processes = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    processes
        .filter_map(|process| {
            let line =
                String::from_utf8_lossy(&std::fs::read(process.join("cmdline")).ok()?).replace('\0', " ");
            let home = std::fs::read_link(process.join("cwd")).unwrap_or_default();
            (line.contains(name) || home.starts_with(dir)).then_some(line)
        })
        .collect()
}
