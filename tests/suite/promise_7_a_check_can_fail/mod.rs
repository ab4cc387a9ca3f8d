//! Promise 7: for each line of `pitr check` there is a broken situation that turns it into a problem and exit 3.

mod archive;
mod recovery_point;
mod server;
mod store;
mod verify;

use crate::support::{Outcome, Pitr};

/// What a check found.
struct Checked {
    lines: Vec<serde_json::Value>,
}

impl Checked {
    /// Runs `pitr check --json` with a short patience; the exit code must go with what was found.
    #[track_caller]
    fn run(pitr: &Pitr) -> Self {
        Self::of(&pitr.run(["check", "--json", "--segment-timeout", "20"]))
    }

    #[track_caller]
    fn of(done: &Outcome) -> Self {
        let document: serde_json::Value = serde_json::from_str(&done.stdout)
            .unwrap_or_else(|e| panic!("{e}\nstdout: {}\nstderr: {}", done.stdout, done.stderr));
        let lines = document["checks"].as_array().unwrap().clone();
        let ok = lines.iter().all(|line| line["ok"] == true);
        assert_eq!(document["ok"], ok);
        done.expect_code(if ok { 0 } else { 3 });
        for line in &lines {
            assert!(line["ok"] == true || line["advice"].is_string(), "a problem without advice: {line}");
        }
        Self { lines }
    }

    fn problems(&self) -> Vec<&str> {
        self.lines.iter().filter(|l| l["ok"] == false).map(|l| l["subject"].as_str().unwrap()).collect()
    }

    #[track_caller]
    fn line(&self, subject: &str) -> &serde_json::Value {
        self.lines
            .iter()
            .find(|line| line["subject"] == subject)
            .unwrap_or_else(|| panic!("no line about {subject}: {:?}", self.lines))
    }

    /// Panics unless this line is a problem that was seen, and answered, in these words.
    #[track_caller]
    fn expect(&self, subject: &str, words: &str) {
        let line = self.line(subject);
        assert_eq!(line["ok"], false, "{line}");
        let text = format!("{} / {}", line["seen"].as_str().unwrap(), line["advice"].as_str().unwrap());
        assert!(text.contains(words), "nothing about \"{words}\": {text}");
    }

    #[track_caller]
    fn expect_ok(&self, subject: &str) {
        assert_eq!(self.line(subject)["ok"], true, "{:?}", self.line(subject));
    }
}

const SEGMENT: &str = "one segment through the whole path";
