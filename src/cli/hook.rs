//! Which contract the exit code is under, read off the words themselves: what cannot be parsed must already
//! be answered rightly.
//!
//! PostgreSQL takes 1–125 of `restore_command` for "not in the archive" and opens the database; above 125 it
//! stops. Of `archive_command` it takes 1–125 for a failure that counts, and above 125 its archiver dies and
//! is started again. Where a line could be either command, 255 is the harmless mistake.

use std::ffi::OsString;
use std::path::Path;

/// The contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hook {
    /// `archive-push`: every failure is 1–125.
    Push,
    /// `archive-get`: only proven absence is 1; and everything that may be meant as `restore_command`.
    Get,
    /// A verb that an operator types.
    None,
}

/// Every verb that is no hook; a test compares it with the command line's own list.
const VERBS: &[&str] = &[
    "attend",
    "backup",
    "restore",
    "events",
    "verify",
    "info",
    "check",
    "repo",
    "accept-system",
    "demo",
    "help",
];

/// The top level's flags that take the next word.
const WITH_VALUE: &[&str] = &["--config", "--cluster", "--repository", "--system-id"];

/// The names that recovery gives a file while `restore_command` brings it.
const RECOVERYS_OWN: &[&str] = &["RECOVERYXLOG", "RECOVERYHISTORY"];

impl Hook {
    /// `in_recovery` tells whether the current directory is a data directory that recovers from an archive.
    pub(super) fn of(arguments: &[OsString], in_recovery: bool) -> Self {
        let words: Vec<String> = arguments.iter().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
        // Whatever the verb: `restore_command = 'pitr restore %f %p'` must not open a database either.
        if words.iter().any(|word| is_recoverys_own(word)) {
            return Self::Get;
        }
        let Some(at) = verb(&words) else {
            // A top level that cannot be read: whoever is named somewhere behind is meant.
            return match words.iter().any(|w| w == "archive-push") && !names_get(&words) {
                true => Self::push(&words, in_recovery),
                false => Self::Get,
            };
        };
        match words.get(at).map(String::as_str) {
            Some("archive-push") => Self::push(words.get(at + 1..).unwrap_or_default(), in_recovery),
            Some(verb) if VERBS.contains(&verb) => Self::None,
            _ => Self::Get,
        }
    }

    /// `archive-push` with the words behind it, unless they can be those of a `restore_command` only.
    fn push(words: &[String], in_recovery: bool) -> Self {
        let files: Vec<&String> = words.iter().filter(|w| !w.starts_with('-')).collect();
        // `pitr archive-push %f` in a server that recovers: as archive_command it would be wrong too.
        let bare = in_recovery && files.iter().any(|file| !file.contains('/'));
        if bare { Self::Get } else { Self::Push }
    }

    /// The exit code of a failure.
    pub(super) fn failed(self) -> u8 {
        match self {
            Self::Get => 255,
            Self::Push | Self::None => 1,
        }
    }

    /// The exit code of wrong usage.
    pub(super) fn usage(self) -> u8 {
        match self {
            Self::Get => 255,
            Self::Push | Self::None => 2,
        }
    }

    /// The exit code after help or the version was printed. As `restore_command` a 0 without the file would
    /// be taken for the archive's end; an operator gives no file names with `--help`.
    pub(super) fn explained(self, arguments: &[OsString]) -> u8 {
        let words: Vec<String> = arguments.iter().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
        let verb = verb(&words).map_or(0, |at| at + 1);
        let files = words.iter().skip(verb).any(|word| !word.starts_with('-'));
        if self == Self::Get && files { 255 } else { 0 }
    }
}

/// Whether the current directory is a data directory in archive recovery.
pub(super) fn in_recovery() -> bool {
    ["recovery.signal", "standby.signal"].iter().any(|name| Path::new(name).exists())
}

fn is_recoverys_own(word: &str) -> bool {
    let name = Path::new(word).file_name().and_then(|n| n.to_str());
    name.is_some_and(|name| RECOVERYS_OWN.contains(&name))
}

fn names_get(words: &[String]) -> bool {
    words.iter().any(|w| w == "archive-get")
}

/// Where the verb stands; `None` where an unknown flag comes first, which may or may not take a word.
fn verb(words: &[String]) -> Option<usize> {
    let mut at = 0;
    while let Some(word) = words.get(at) {
        match word.as_str() {
            flag if WITH_VALUE.contains(&flag) => at += 2,
            flag if WITH_VALUE.iter().any(|w| flag.strip_prefix(w).is_some_and(|v| v.starts_with('='))) => {
                at += 1
            }
            "--json" | "--verbose" | "--quiet" | "-v" | "-q" | "-vq" | "-qv" => at += 1,
            "-h" | "--help" | "-V" | "--version" => at += 1,
            flag if flag.starts_with('-') => return None,
            _ => return Some(at),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn of(line: &str) -> Hook {
        Hook::of(&arguments(line), false)
    }

    fn arguments(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn every_verb_is_known_here() {
        for command in super::super::Cli::command().get_subcommands() {
            let name = command.get_name();
            assert!(name.starts_with("archive-") || VERBS.contains(&name), "{name} is missing in VERBS");
        }
    }

    #[test]
    fn every_flag_that_takes_a_word_is_known_here() {
        for flag in super::super::Cli::command().get_arguments() {
            let takes = flag.get_action().takes_values();
            let name = format!("--{}", flag.get_long().unwrap());
            assert_eq!(takes, WITH_VALUE.contains(&name.as_str()), "{name}");
        }
    }

    #[test]
    fn whatever_may_be_a_restore_command_is_under_its_contract() {
        for line in [
            "pitr archive-get F P",
            "pitr archive-get",
            "pitr archive-get --bogus F P",
            "pitr archive-gett F P",
            "pitr archive_get F P",
            "pitr get F P",
            "pitr",
            "pitr F P",
            "pitr --bogus archive-get F P",
            "pitr --confg /x archive-get F P",
            "pitr --config",
            "pitr --config /x archive-get F P",
            "pitr --config backup archive-get F P",
            "pitr --cluster=info archive-get F P",
            "pitr -v archive-get F P",
            "pitr -x",
            "pitr -- archive-get F P",
            "pitr archive-push pg_wal/RECOVERYXLOG",
            "pitr archive-push 000000010000000000000001 pg_wal/RECOVERYXLOG",
            "pitr archive-push 00000002.history pg_wal/RECOVERYHISTORY",
            "pitr restore 000000010000000000000001 pg_wal/RECOVERYXLOG",
            "pitr --cluster backup archve-get 000000010000000000000001 pg_wal/RECOVERYXLOG",
        ] {
            assert_eq!(of(line), Hook::Get, "{line}");
            assert_eq!((of(line).failed(), of(line).usage()), (255, 255));
        }
        let bare = arguments("pitr archive-push 000000010000000000000001");
        assert_eq!(Hook::of(&bare, true), Hook::Get);
    }

    #[test]
    fn an_archive_command_never_fails_above_125() {
        for line in [
            "pitr archive-push pg_wal/000000010000000000000001",
            "pitr archive-push",
            "pitr archive-push --bogus pg_wal/000000010000000000000001",
            "pitr archive-push pg_wal/000000010000000000000001 000000010000000000000001",
            "pitr archive-push 000000010000000000000001",
            "pitr --bogus archive-push pg_wal/000000010000000000000001",
            "pitr --cluster archive-get archive-push pg_wal/000000010000000000000001",
        ] {
            assert_eq!(of(line), Hook::Push, "{line}");
            assert!(of(line).failed() <= 125 && of(line).usage() <= 125);
        }
        // A standby that archives too recovers all its life.
        let always = arguments("pitr archive-push pg_wal/000000010000000000000001");
        assert_eq!(Hook::of(&always, true), Hook::Push);
    }

    #[test]
    fn what_an_operator_types_has_ordinary_codes() {
        for line in [
            "pitr backup --bogus",
            "pitr --cluster archive-get info",
            "pitr repo ls archive-get",
            "pitr help archive-get",
        ] {
            assert_eq!(of(line), Hook::None, "{line}");
        }
    }

    #[test]
    fn help_is_a_success_only_where_no_file_was_asked_for() {
        for (line, code) in [
            ("pitr --help", 0),
            ("pitr --version", 0),
            ("pitr archive-get --help", 0),
            ("pitr archive-get -h F P", 255),
            ("pitr archive-get --help F P", 255),
            ("pitr backup --help x", 0),
        ] {
            assert_eq!(of(line).explained(&arguments(line)), code, "{line}");
        }
    }
}
