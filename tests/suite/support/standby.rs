//! A second data directory from a running server, for standbys, cascades and clones.

use super::{Server, TestDir};

impl Server {
    /// A copy of the running server under `name`, by PostgreSQL's own low-level method, so that every major can do it: backup
    /// mode, copy, backup label. Not started; settings, environment and archiving are the primary's. It has no signal file.
    #[track_caller]
    pub(crate) fn copy(&self, dir: &TestDir, name: &str) -> Self {
        let data = dir.join(name);
        let (start, stop) = if self.major >= 15 {
            ("pg_backup_start('copy', true)", "pg_backup_stop(false)")
        } else {
            ("pg_start_backup('copy', true, false)", "pg_stop_backup(false, false)")
        };
        // One session for all of it: backup mode ends with the session that began it.
        let label = self.sql(&format!(
            "SELECT FROM {start};\n\
             \\! cp -a '{from}' '{to}'\n\
             SELECT labelfile FROM {stop};",
            from = self.data.display(),
            to = data.display(),
        ));
        for file in ["postmaster.pid", "postmaster.opts"] {
            drop(std::fs::remove_file(data.join(file)));
        }
        // Without the label the copy would take the control file's checkpoint, which may be younger than the first file copied.
        std::fs::write(data.join("backup_label"), label + "\n").unwrap();
        self.account().own(data.join("backup_label"));
        let mut copy = Self::adopt(dir, data, self.major);
        copy.env = self.env.clone();
        copy
    }

    /// A standby that streams from this server; not started. Settings come from the primary and may be changed before.
    #[track_caller]
    pub(crate) fn standby(&self, dir: &TestDir, name: &str) -> Self {
        let standby = self.copy(dir, name);
        standby.append_setting("primary_conninfo", &format!("{} application_name={name}", self.conninfo()));
        standby.append_setting("hot_standby", "on");
        dir.write(standby.file("standby.signal"), "");
        standby
    }

    /// Promotes a standby and waits until it takes writes.
    #[track_caller]
    pub(crate) fn promote(&self) {
        self.sql("SELECT pg_promote(true, 60)");
        self.wait_for("SELECT pg_is_in_recovery()", "f", 60);
    }

    /// Waits until `standby` has replayed everything this server has written so far.
    #[track_caller]
    pub(crate) fn wait_for_replay(&self, standby: &Self) {
        let lsn = self.sql("SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END");
        standby.wait_for(&format!("SELECT pg_last_wal_replay_lsn() >= '{lsn}'"), "t", 60);
    }
}
