//! What the demo says: chapters, remarks, the commands as one would type them, and what they answered.

use std::io::IsTerminal;

use super::super::settings::Global;
use super::super::{complain, say};

/// Plain lines, or coloured ones on a terminal; on stderr where stdout is for one JSON document.
#[derive(Debug)]
pub(super) struct Voice {
    colour: bool,
    quiet: bool,
    stderr: bool,
}

const BOLD: &str = "1";
const DIM: &str = "2";
const GREEN: &str = "1;32";
const CYAN: &str = "36";

impl Voice {
    pub(super) fn new(global: &Global) -> Self {
        let terminal =
            if global.json { std::io::stderr().is_terminal() } else { std::io::stdout().is_terminal() };
        let refused = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty())
            || std::env::var_os("TERM").is_some_and(|v| v == "dumb");
        Self { colour: terminal && !refused, quiet: global.quiet, stderr: global.json }
    }

    pub(super) fn chapter(&self, title: &str) {
        self.line("");
        self.line(&self.paint(BOLD, title));
    }

    pub(super) fn remark(&self, text: &str) {
        self.line(&self.paint(DIM, &format!("# {text}")));
    }

    pub(super) fn command(&self, words: &str) {
        self.line(&format!("{} {}", self.paint(GREEN, "$"), self.paint(CYAN, words)));
    }

    /// What a command said, moved in.
    pub(super) fn output(&self, text: &str) {
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            self.line(&self.paint(DIM, &format!("  {line}")));
        }
    }

    /// The last line; said in any case.
    pub(super) fn result(&self, text: &str) {
        self.line("");
        say(&self.paint(GREEN, text));
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn line(&self, text: &str) {
        match (self.quiet, self.stderr) {
            (true, _) => {}
            (false, true) => complain(text),
            (false, false) => say(text),
        }
    }
}
