//! What a restore appends to `postgresql.auto.conf`.
//!
//! The last line of a name wins there, so appending is enough: first everything that the base backup may
//! have brought along is blanked, then the recovery's own settings follow.

/// Where recovery is to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecoveryTarget {
    /// At the end of the archive.
    Latest,
    /// As soon as the database is consistent.
    Immediate,
    /// A moment, as PostgreSQL writes it, in UTC.
    Time(String),
    /// A position.
    Lsn(String),
    /// A transaction.
    Xid(String),
    /// A restore point.
    Name(String),
}

/// The recovery's settings.
#[derive(Debug, Clone)]
pub struct RecoverySettings {
    /// The server's `restore_command`.
    pub restore_command: String,
    /// Where to stop.
    pub target: RecoveryTarget,
    /// Stop before the target instead of behind it.
    pub exclusive: bool,
    /// `latest`, or a number.
    pub timeline: String,
    /// `promote`, `pause` or `shutdown`.
    pub action: &'static str,
    /// A copy must not write into the archive it came from.
    pub archive_mode_off: bool,
}

const BLANKED: [&str; 13] = [
    "recovery_target",
    "recovery_target_time",
    "recovery_target_xid",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_end_command",
    "archive_cleanup_command",
    "primary_conninfo",
    "primary_slot_name",
    "recovery_min_apply_delay",
    "synchronous_standby_names",
    "restore_command",
    "recovery_target_inclusive",
];

impl RecoverySettings {
    /// The lines. `major` because a server refuses a setting it does not know.
    pub fn lines(&self, major: u32) -> String {
        let mut text = String::from("\n# written by pitr restore\n");
        let mut set = |name: &str, value: &str| text.push_str(&format!("{name} = {}\n", quoted(value)));
        for name in BLANKED {
            match name {
                "recovery_min_apply_delay" => set(name, "0"),
                "recovery_target_inclusive" => set(name, if self.exclusive { "off" } else { "on" }),
                "restore_command" => set(name, &self.restore_command),
                _ => set(name, ""),
            }
        }
        if major >= 15 {
            set("archive_library", "");
        }
        match &self.target {
            RecoveryTarget::Latest => {}
            RecoveryTarget::Immediate => set("recovery_target", "immediate"),
            RecoveryTarget::Time(v) => set("recovery_target_time", v),
            RecoveryTarget::Lsn(v) => set("recovery_target_lsn", v),
            RecoveryTarget::Xid(v) => set("recovery_target_xid", v),
            RecoveryTarget::Name(v) => set("recovery_target_name", v),
        }
        set("recovery_target_timeline", &self.timeline);
        set("recovery_target_action", self.action);
        if self.archive_mode_off {
            set("archive_mode", "off");
        }
        text
    }
}

/// A value as the configuration's grammar wants it: quotes are doubled, backslashes too.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

/// One word for the shell that the server starts; `%` is the server's own and is doubled.
pub fn shell_word(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-:=,@+".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('%', "%%").replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_backup_brought_is_blanked_before_the_target_is_set() {
        let settings = RecoverySettings {
            restore_command: "pitr archive-get %f %p".to_owned(),
            target: RecoveryTarget::Name("it's".to_owned()),
            exclusive: true,
            timeline: "1".to_owned(),
            action: "promote",
            archive_mode_off: true,
        };
        let lines = settings.lines(15);
        let blank = lines.find("recovery_target_name = ''\n").unwrap();
        assert!(lines.find("recovery_target_name = 'it''s'\n").unwrap() > blank);
        assert!(lines.contains("archive_mode = 'off'\n") && lines.contains("primary_conninfo = ''\n"));
        assert!(!settings.lines(14).contains("archive_library"));
    }

    #[test]
    fn a_word_for_the_shell_keeps_quotes_and_percent_signs() {
        assert_eq!(shell_word("/a/b"), "/a/b");
        assert_eq!(shell_word("/a b'%f"), "'/a b'\\''%%f'");
    }
}
