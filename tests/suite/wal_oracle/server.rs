//! Just enough of a server for the tests of the WAL reader: initialised, started, asked, crashed, copied, always stopped.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The majors to test; each must be there.
pub(super) fn all_majors() -> Vec<u32> {
    let named = std::env::var("PITR_TEST_MAJORS").unwrap_or_else(|_| "13 14 15 16 17 18".to_owned());
    named.split_whitespace().map(|major| major.parse().unwrap()).collect()
}

/// The programs of one major.
#[derive(Debug, Clone)]
pub(super) struct Installation(PathBuf);

impl Installation {
    fn of(major: u32) -> Self {
        let cache = std::env::var("PITR_TEST_CACHE").unwrap_or_else(|_| "/var/cache/pitr-test".to_owned());
        let places = [format!("/usr/lib/postgresql/{major}/bin"), format!("{cache}/postgresql/{major}/bin")];
        let found = places.iter().map(PathBuf::from).find(|bin| bin.join("postgres").exists());
        Self(found.unwrap_or_else(|| panic!("PostgreSQL {major} is not there (looked in {places:?})")))
    }

    /// The one with every program.
    pub(super) fn of_distribution() -> Self {
        Self::of(15)
    }

    pub(super) fn has_program(&self, name: &str) -> bool {
        self.0.join(name).exists()
    }

    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

/// User `postgres` when we are root: a server refuses root.
#[derive(Debug, Clone, Copy)]
pub(super) struct Account(Option<(u32, u32)>);

impl Account {
    fn of_servers() -> Self {
        if !rustix::process::geteuid().is_root() {
            return Self(None);
        }
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
        let line = passwd.lines().find(|line| line.starts_with("postgres:")).expect("no user postgres");
        let fields: Vec<&str> = line.split(':').collect();
        Self(Some((fields[2].parse().unwrap(), fields[3].parse().unwrap())))
    }

    pub(super) fn command(self, program: PathBuf) -> Command {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C").current_dir("/").stdin(Stdio::null());
        if let Some((uid, gid)) = self.0 {
            command.uid(uid).gid(gid);
        }
        command
    }

    fn own(self, path: &Path) {
        if let Some((uid, gid)) = self.0 {
            std::os::unix::fs::chown(path, Some(uid), Some(gid)).unwrap();
        }
    }
}

/// A directory that the server's account owns, removed at the end.
#[derive(Debug)]
pub(super) struct TestDir(tempfile::TempDir);

impl TestDir {
    pub(super) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("pt-").tempdir_in("/tmp").unwrap();
        Account::of_servers().own(dir.path());
        Self(dir)
    }

    pub(super) fn create_dir(&self, name: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::create_dir(&path).unwrap();
        Account::of_servers().own(&path);
        path
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) enum StopMode {
    Fast,
    Immediate,
    Kill,
}

/// What a server is to be.
#[derive(Debug)]
pub(super) struct Builder {
    dir: PathBuf,
    name: String,
    major: u32,
    initdb: Vec<String>,
    settings: Vec<(String, String)>,
}

impl Builder {
    pub(super) fn major(mut self, major: u32) -> Self {
        self.major = major;
        self
    }

    pub(super) fn initdb(mut self, argument: &str) -> Self {
        self.initdb.push(argument.to_owned());
        self
    }

    pub(super) fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(super) fn archive_command(self, command: &str) -> Self {
        self.set("archive_mode", "on").set("archive_command", command)
    }

    pub(super) fn start(self) -> Server {
        let mut server = Server::in_dir(&self.dir, &self.name, self.major);
        let mut initdb = server.account.command(server.installation.program("initdb"));
        initdb.arg("-D").arg(&server.data).args([
            "-U",
            "postgres",
            "--auth=trust",
            "--no-locale",
            "-E",
            "UTF8",
        ]);
        let output = initdb.arg("--no-sync").args(&self.initdb).output().unwrap();
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
        server.append_setting("fsync", "off");
        for (name, value) in &self.settings {
            server.append_setting(name, value);
        }
        server.start();
        server
    }
}

/// A server on a unix socket of its own; it listens nowhere else.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) data: PathBuf,
    pub(super) major: u32,
    installation: Installation,
    account: Account,
    socket: PathBuf,
    log: PathBuf,
    process: Option<Child>,
}

impl Server {
    pub(super) fn build(dir: &TestDir, name: &str) -> Builder {
        let (initdb, settings) = (Vec::new(), Vec::new());
        Builder { dir: dir.0.path().to_owned(), name: name.to_owned(), major: 15, initdb, settings }
    }

    fn in_dir(dir: &Path, name: &str, major: u32) -> Self {
        let account = Account::of_servers();
        let socket = dir.join(format!("{name}.sock"));
        std::fs::create_dir(&socket).unwrap();
        account.own(&socket);
        let (data, log) = (dir.join(name), dir.join(format!("{name}.log")));
        Self { data, major, installation: Installation::of(major), account, socket, log, process: None }
    }

    pub(super) fn append_setting(&self, name: &str, value: &str) {
        let path = self.data.join("postgresql.conf");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{text}{name} = '{}'\n", value.replace('\'', "''"))).unwrap();
    }

    pub(super) fn start(&mut self) {
        if let Err(problem) = self.try_start(60) {
            panic!("{problem}\n{}", self.log_tail());
        }
    }

    pub(super) fn try_start(&mut self, seconds: u64) -> Result<(), String> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        let mut command = self.account.command(self.installation.program("postgres"));
        command.arg("-D").arg(&self.data).args(["-h", "", "-k"]).arg(&self.socket);
        let process = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let pid = process.id().to_string();
        let process = self.process.insert(process);
        let end = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < end {
            if let Some(status) = process.try_wait().unwrap() {
                self.process = None;
                return Err(format!("the server ended while starting: {status}"));
            }
            let file = std::fs::read_to_string(self.data.join("postmaster.pid")).unwrap_or_default();
            let lines: Vec<&str> = file.lines().map(str::trim).collect();
            if lines.first() == Some(&pid.as_str()) && matches!(lines.get(7), Some(&"ready" | &"standby")) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(format!("the server did not get ready within {seconds} s"))
    }

    pub(super) fn restart(&mut self) {
        self.stop(StopMode::Fast);
        self.start();
    }

    pub(super) fn stop(&mut self, mode: StopMode) {
        let Some(mut process) = self.process.take() else { return };
        let signal = match mode {
            StopMode::Fast => rustix::process::Signal::INT,
            StopMode::Immediate => rustix::process::Signal::QUIT,
            StopMode::Kill => rustix::process::Signal::KILL,
        };
        rustix::process::kill_process(rustix::process::Pid::from_child(&process), signal).unwrap();
        process.wait().unwrap();
    }

    pub(super) fn conninfo(&self) -> String {
        format!("host={} user=postgres dbname=postgres", self.socket.display())
    }

    pub(super) fn sql(&self, text: &str) -> String {
        let mut command = self.account.command(Installation::of_distribution().program("psql"));
        command.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-d", &self.conninfo(), "-f", "-"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}: {said}\n{}", self.log_tail());
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    pub(super) fn wait_for(&self, query: &str, expected: &str, seconds: u64) {
        let end = Instant::now() + Duration::from_secs(seconds);
        while self.sql(query) != expected {
            assert!(Instant::now() < end, "{query} is not {expected}\n{}", self.log_tail());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Ends the current segment, and waits until it is archived; its name.
    pub(super) fn archive_now(&self) -> String {
        let switch =
            "SELECT FROM pg_create_restore_point('switch'); SELECT pg_walfile_name(pg_switch_wal());";
        let segment = self.sql(switch);
        let archived = format!("SELECT coalesce(last_archived_wal, '') >= '{segment}' FROM pg_stat_archiver");
        self.wait_for(&archived, "t", 60);
        segment
    }

    /// A streaming standby beside this server; not started.
    pub(super) fn standby(&self, dir: &TestDir, name: &str) -> Self {
        let standby = Self::in_dir(dir.0.path(), name, self.major);
        let mut command = self.account.command(self.installation.program("pg_basebackup"));
        let output = command.args(["-R", "-d", &self.conninfo(), "-D"]).arg(&standby.data).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        standby
    }

    pub(super) fn wait_for_replay(&self, standby: &Self) {
        let lsn = self.sql("SELECT pg_current_wal_lsn()");
        standby.wait_for(&format!("SELECT pg_last_wal_replay_lsn() >= '{lsn}'"), "t", 60);
    }

    pub(super) fn promote(&self) {
        self.sql("SELECT pg_promote(true, 60)");
        self.wait_for("SELECT pg_is_in_recovery()", "f", 60);
    }

    pub(super) fn account(&self) -> Account {
        self.account
    }

    pub(super) fn installation(&self) -> &Installation {
        &self.installation
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.data.join(name)
    }

    pub(super) fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop(StopMode::Immediate);
    }
}
