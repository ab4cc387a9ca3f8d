//! What a restore appends to `postgresql.auto.conf`.
//!
//! The last line of a name wins there, so appending is enough: first everything that the base backup may
//! have brought along is blanked, then the recovery's own settings follow. The file lies in the data
//! directory, and its values win over `postgresql.conf` wherever that is kept.

use super::control_file::ControlFile;
use super::server_settings::ServerSettings;

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

/// What the restored directory is to become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// A copy beside the cluster: it never writes into the archive it came from.
    Copy,
    /// The cluster itself: archiving goes on as the backup's configuration has it.
    Takeover,
    /// A standby of the cluster: it replays for ever, and archives once it is promoted.
    Standby {
        /// Where it streams from; without it, it lives on the archive alone.
        primary_conninfo: Option<String>,
        /// Its slot on the primary.
        primary_slot: Option<String>,
    },
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
    /// What it becomes.
    pub role: Role,
    /// What the WAL on the way says that the primary had.
    pub needed: Needed,
}

/// Blank, whatever the backup brought along. At most one target may be set, or the server refuses to start.
const BLANKED: [&str; 11] = [
    "recovery_target",
    "recovery_target_time",
    "recovery_target_xid",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_end_command",
    "archive_cleanup_command",
    "primary_conninfo",
    "primary_slot_name",
    "synchronous_standby_names",
    "promote_trigger_file",
];

impl RecoverySettings {
    /// Which file asks the server for this recovery.
    pub fn signal_file(&self) -> &'static str {
        match self.role {
            Role::Standby { .. } => "standby.signal",
            Role::Copy | Role::Takeover => "recovery.signal",
        }
    }

    /// The lines. `major` because a server refuses a setting it does not know; `raised` as from [`raised`].
    pub fn lines(&self, major: u32, raised: &[(&'static str, i32)]) -> String {
        let mut text = String::from("\n# written by pitr restore\n");
        let mut set = |name: &str, value: &str| text.push_str(&format!("{name} = {}\n", quoted(value)));
        for name in BLANKED {
            // Taken away in 16.
            if name != "promote_trigger_file" || major < 16 {
                set(name, "");
            }
        }
        set("recovery_min_apply_delay", "0");
        set("recovery_target_inclusive", if self.exclusive { "off" } else { "on" });
        set("restore_command", &self.restore_command);
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
        if self.action == "pause" {
            // Without it the server would shut down instead of pausing.
            set("hot_standby", "on");
        }
        match &self.role {
            Role::Copy => {
                set("archive_mode", "off");
                // Also for somebody who switches archiving on to try something.
                set("archive_command", "");
                if major >= 15 {
                    set("archive_library", "");
                }
            }
            Role::Takeover => {}
            Role::Standby { primary_conninfo, primary_slot } => {
                set("hot_standby", "on");
                if let Some(conninfo) = primary_conninfo {
                    set("primary_conninfo", conninfo);
                }
                if let Some(slot) = primary_slot {
                    set("primary_slot_name", slot);
                }
            }
        }
        for (name, value) in raised {
            set(name, &value.to_string());
        }
        text
    }
}

/// A recovery is refused, or pauses for ever, where one of these is smaller than it was on the primary. With
/// the server's default, as it is from 13 to 18.
type Least = (&'static str, i64, fn(&Needed) -> i32);
const LEAST: [Least; 5] = [
    ("max_connections", 100, |n| n.max_connections),
    ("max_worker_processes", 8, |n| n.max_worker_processes),
    ("max_wal_senders", 10, |n| n.max_wal_senders),
    ("max_prepared_transactions", 0, |n| n.max_prepared_transactions),
    ("max_locks_per_transaction", 64, |n| n.max_locks_per_transaction),
];

/// The least values of the settings without which a recovery does not get through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Needed {
    /// `max_connections`
    pub max_connections: i32,
    /// `max_worker_processes`
    pub max_worker_processes: i32,
    /// `max_wal_senders`
    pub max_wal_senders: i32,
    /// `max_prepared_transactions`
    pub max_prepared_transactions: i32,
    /// `max_locks_per_transaction`
    pub max_locks_per_transaction: i32,
}

impl Needed {
    /// What both need.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            max_connections: self.max_connections.max(other.max_connections),
            max_worker_processes: self.max_worker_processes.max(other.max_worker_processes),
            max_wal_senders: self.max_wal_senders.max(other.max_wal_senders),
            max_prepared_transactions: self.max_prepared_transactions.max(other.max_prepared_transactions),
            max_locks_per_transaction: self.max_locks_per_transaction.max(other.max_locks_per_transaction),
        }
    }
}

impl From<&ControlFile> for Needed {
    fn from(control: &ControlFile) -> Self {
        Self {
            max_connections: control.max_connections,
            max_worker_processes: control.max_worker_processes,
            max_wal_senders: control.max_wal_senders,
            max_prepared_transactions: control.max_prepared_transactions,
            max_locks_per_transaction: control.max_locks_per_transaction,
        }
    }
}

/// What must be set for the recovery to be let through: values that the primary had, in `pg_control` or later
/// on, and that the data directory's own configuration does not reach. `configuration` is `None` where it
/// holds no `postgresql.conf`.
pub fn raised(
    needed: Needed,
    configuration: Option<&ServerSettings>,
    auto: &ServerSettings,
) -> Vec<(&'static str, i32)> {
    let short = |(name, default, least): &Least| {
        let least = least(&needed);
        let set = auto.integer(name).or_else(|| configuration?.integer(name)).unwrap_or(*default);
        (set < i64::from(least)).then_some((*name, least))
    };
    LEAST.iter().filter_map(short).collect()
}

/// A value as the configuration's grammar wants it: within quotes, and on one line.
fn quoted(value: &str) -> String {
    let mut text = String::from("'");
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '\'' => text.push_str("''"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            other => text.push(other),
        }
    }
    text.push('\'');
    text
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

    fn settings(role: Role) -> RecoverySettings {
        RecoverySettings {
            restore_command: "pitr archive-get %f %p".to_owned(),
            target: RecoveryTarget::Name("it's".to_owned()),
            exclusive: true,
            timeline: "1".to_owned(),
            action: "promote",
            role,
            needed: Needed::default(),
        }
    }

    #[test]
    fn what_the_backup_brought_is_blanked_before_the_target_is_set() {
        let lines = settings(Role::Copy).lines(15, &[("max_connections", 300)]);
        let blank = lines.find("recovery_target_name = ''\n").unwrap();
        assert!(lines.find("recovery_target_name = 'it''s'\n").unwrap() > blank);
        assert!(lines.contains("archive_mode = 'off'\n") && lines.contains("primary_conninfo = ''\n"));
        assert!(lines.contains("max_connections = '300'\n"));
    }

    #[test]
    fn a_server_is_given_no_setting_that_its_major_does_not_know() {
        let copy = settings(Role::Copy);
        assert!(!copy.lines(14, &[]).contains("archive_library"));
        assert!(copy.lines(15, &[]).contains("promote_trigger_file"));
        assert!(!copy.lines(16, &[]).contains("promote_trigger_file"));
    }

    #[test]
    fn only_a_copy_is_kept_from_archiving() {
        let takeover = settings(Role::Takeover).lines(17, &[]);
        for name in ["archive_mode", "archive_command", "archive_library"] {
            assert!(!takeover.contains(name), "{name} is changed: {takeover}");
            assert!(settings(Role::Copy).lines(17, &[]).contains(name), "{name}");
        }
        let role = Role::Standby { primary_conninfo: Some("host='a b'".to_owned()), primary_slot: None };
        let lines = settings(role).lines(17, &[]);
        assert!(!lines.contains("archive_mode"));
        let blank = lines.find("primary_conninfo = ''\n").unwrap();
        assert!(lines.find("primary_conninfo = 'host=''a b'''\n").unwrap() > blank);
    }

    #[test]
    fn a_value_stays_on_its_line() {
        assert_eq!(quoted("a\\b\n'c'"), "'a\\\\b\\n''c'''");
    }

    #[test]
    fn a_word_for_the_shell_keeps_quotes_and_percent_signs() {
        assert_eq!(shell_word("/a/b"), "/a/b");
        assert_eq!(shell_word("/a b'%f"), "'/a b'\\''%%f'");
    }
}
