//! A PostgreSQL server of any major, made and started by the test, always stopped at its end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use super::{Account, Installation, TestDir, wait_until};

/// How a server is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopMode {
    /// SIGINT: checkpoint, last archiving.
    Fast,
    /// SIGQUIT: as after a crash.
    Immediate,
    /// SIGKILL to the postmaster; its processes notice and go.
    Kill,
}

/// What a server is to be, before it exists.
#[derive(Debug)]
#[must_use]
pub(crate) struct ServerBuilder<'a> {
    dir: &'a TestDir,
    name: String,
    major: u32,
    initdb: Vec<String>,
    settings: Vec<(String, String)>,
    hba: Vec<String>,
    env: BTreeMap<String, String>,
}

impl ServerBuilder<'_> {
    /// Another major than the distribution's.
    pub(crate) fn major(mut self, major: u32) -> Self {
        self.major = major;
        self
    }

    /// An argument for `initdb`, such as `--wal-segsize=1`.
    pub(crate) fn initdb(mut self, argument: &str) -> Self {
        self.initdb.push(argument.to_owned());
        self
    }

    /// A line of `postgresql.conf`; quoted here.
    pub(crate) fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Archiving on, through this command.
    pub(crate) fn archive_command(self, command: &str) -> Self {
        self.set("archive_mode", "on").set("archive_command", command)
    }

    /// A line of `pg_hba.conf`, before those that trust everybody.
    pub(crate) fn hba(mut self, line: &str) -> Self {
        self.hba.push(line.to_owned());
        self
    }

    /// A variable in the server's environment, and so in that of its hooks.
    pub(crate) fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.insert(name.to_owned(), value.into());
        self
    }

    /// `initdb` and the settings; not started.
    #[track_caller]
    pub(crate) fn create(self) -> Server {
        let data = self.dir.join(&self.name);
        let installation = Installation::of(self.major);
        let mut initdb = self.dir.account().command(installation.program("initdb"));
        initdb.arg("-D").arg(&data).args([
            "-U",
            "postgres",
            "--auth=trust",
            "--no-locale",
            "-E",
            "UTF8",
            "--no-sync",
        ]);
        let output = initdb.args(&self.initdb).output().unwrap();
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
        let mut server = Server::adopt(self.dir, data, self.major);
        server.env = self.env;
        // Only the tests of durability care, and they look at pitr's files, not at the server's.
        server.append_setting("fsync", "off");
        server.append_setting("wal_level", "replica");
        server.append_setting("max_wal_senders", "10");
        server.append_setting("shared_buffers", "16MB");
        for (name, value) in &self.settings {
            server.append_setting(name, value);
        }
        if !self.hba.is_empty() {
            let path = server.data.join("pg_hba.conf");
            let old = std::fs::read_to_string(&path).unwrap();
            std::fs::write(&path, format!("{}\n{old}", self.hba.join("\n"))).unwrap();
        }
        server
    }

    /// Created and started.
    #[track_caller]
    pub(crate) fn start(self) -> Server {
        let mut server = self.create();
        server.start();
        server
    }
}

/// A data directory and, when started, its server: a unix socket and a port on 127.0.0.1 of its own, everybody trusted.
#[derive(Debug)]
pub(crate) struct Server {
    /// 13 … 18.
    pub(crate) major: u32,
    /// The data directory.
    pub(crate) data: PathBuf,
    /// The server's port, on its socket and on 127.0.0.1.
    pub(crate) port: u16,
    pub(super) installation: Installation,
    pub(super) socket_dir: PathBuf,
    pub(super) account: Account,
    pub(super) env: BTreeMap<String, String>,
    log: PathBuf,
    process: Option<Child>,
}

impl Server {
    /// A new cluster of the distribution's major, in the test's directory under this name.
    #[track_caller]
    pub(crate) fn build<'a>(dir: &'a TestDir, name: &str) -> ServerBuilder<'a> {
        ServerBuilder {
            dir,
            name: name.to_owned(),
            major: super::distribution_major(),
            initdb: Vec::new(),
            settings: Vec::new(),
            hba: Vec::new(),
            env: BTreeMap::new(),
        }
    }

    /// A data directory that is there already: one that `pitr restore` made, for instance. Its own settings stay; port and
    /// socket are given on the command line.
    #[track_caller]
    pub(crate) fn adopt(dir: &TestDir, data: impl Into<PathBuf>, major: u32) -> Self {
        let data = data.into();
        let name = data.file_name().unwrap().to_string_lossy().into_owned();
        Self {
            major,
            port: free_port(),
            installation: Installation::of(major),
            socket_dir: dir.path().to_owned(),
            account: dir.account(),
            env: BTreeMap::new(),
            log: dir.join(format!("{name}.log")),
            data,
            process: None,
        }
    }

    /// Adds a line to `postgresql.conf`; the last one of a name counts.
    pub(crate) fn append_setting(&self, name: &str, value: &str) {
        let path = self.data.join("postgresql.conf");
        let mut text = std::fs::read_to_string(&path).unwrap();
        text.push_str(&format!("{name} = '{}'\n", value.replace('\'', "''")));
        std::fs::write(&path, text).unwrap();
    }

    /// A variable in the environment of the next start.
    pub(crate) fn set_env(&mut self, name: &str, value: impl Into<String>) {
        self.env.insert(name.to_owned(), value.into());
    }

    /// Starts and waits until connections are taken (or, for a server that accepts none yet, is in standby).
    #[track_caller]
    pub(crate) fn start(&mut self) {
        if let Err(problem) = self.try_start(60) {
            panic!("{problem}\n{}", self.log_tail());
        }
    }

    /// As [`Server::start`], for a start that may fail: a recovery that must not end, for instance.
    pub(crate) fn try_start(&mut self, seconds: u64) -> Result<(), String> {
        self.spawn();
        let end = std::time::Instant::now() + std::time::Duration::from_secs(seconds);
        loop {
            if let Some(status) = self.exited() {
                return Err(format!("the server ended while starting: {status}"));
            }
            if matches!(self.status().as_deref(), Some("ready" | "standby")) {
                return Ok(());
            }
            if std::time::Instant::now() > end {
                return Err(format!("the server did not get ready within {seconds} s"));
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// Starts without waiting for anything.
    #[track_caller]
    pub(crate) fn spawn(&mut self) {
        assert!(self.process.is_none(), "started twice");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        let mut command = self.account.command(self.installation.program("postgres"));
        command
            .arg("-D")
            .arg(&self.data)
            .args(["-p", &self.port.to_string(), "-h", "127.0.0.1", "-k"])
            .arg(&self.socket_dir)
            .args(["-c", "logging_collector=off"])
            .envs(&self.env)
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        self.process = Some(command.spawn().unwrap());
    }

    /// The exit status, once the server has ended by itself.
    pub(crate) fn exited(&mut self) -> Option<std::process::ExitStatus> {
        let status = self.process.as_mut()?.try_wait().unwrap()?;
        self.process = None;
        Some(status)
    }

    /// Waits until the server has ended by itself.
    #[track_caller]
    pub(crate) fn wait_for_exit(&mut self, seconds: u64) -> std::process::ExitStatus {
        let mut status = None;
        wait_until("the server ends by itself", seconds, || {
            status = self.exited();
            status.is_some()
        });
        status.unwrap()
    }

    /// What `postmaster.pid` says: `starting`, `ready`, `standby`, `stopping`.
    pub(crate) fn status(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.data.join("postmaster.pid")).ok()?;
        let mut lines = text.lines();
        let pid: u32 = lines.next()?.trim().parse().ok()?;
        // A file that came with a copied directory is not ours.
        if self.process.as_ref().is_some_and(|process| process.id() != pid) {
            return None;
        }
        Some(lines.nth(6)?.trim().to_owned())
    }

    /// The postmaster's process, when started.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// Stops and waits. Nothing happens to a server that is not running.
    pub(crate) fn stop(&mut self, mode: StopMode) {
        let Some(mut process) = self.process.take() else { return };
        let signal = match mode {
            StopMode::Fast => rustix::process::Signal::INT,
            StopMode::Immediate => rustix::process::Signal::QUIT,
            StopMode::Kill => rustix::process::Signal::KILL,
        };
        let pid = rustix::process::Pid::from_child(&process);
        let _ = rustix::process::kill_process(pid, signal);
        let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while process.try_wait().unwrap().is_none() {
            if std::time::Instant::now() > end {
                eprintln!("{}: {mode:?} took over 60 s: killed", self.data.display());
                drop(process.kill());
                drop(process.wait());
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    /// Stop fast, start again.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        self.stop(StopMode::Fast);
        self.start();
    }

    /// For libpq and pitr, over the unix socket as `postgres`.
    pub(crate) fn conninfo(&self) -> String {
        format!("host={} port={} user=postgres dbname=postgres", self.socket_dir.display(), self.port)
    }

    /// The distribution's `psql`, connected as `postgres`, quiet and unaligned.
    pub(crate) fn psql(&self) -> Command {
        let mut command = self.account.command(Installation::of_distribution().program("psql"));
        command.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-d", &self.conninfo()]);
        command
    }

    /// One query to any server, by its conninfo; the answer, or what went wrong.
    pub(crate) fn psql_at(&self, conninfo: &str, query: &str) -> String {
        let mut command = self.account.command(Installation::of_distribution().program("psql"));
        let output = command.args(["-X", "-A", "-t", "-q", "-d", conninfo, "-c", query]).output().unwrap();
        let said = if output.status.success() { output.stdout } else { output.stderr };
        String::from_utf8_lossy(&said).trim_end().to_owned()
    }

    /// Runs SQL, one transaction a statement; the rows as text, `|` between columns. Panics on an error.
    #[track_caller]
    pub(crate) fn sql(&self, text: &str) -> String {
        self.try_sql(text).unwrap_or_else(|error| panic!("{text}: {error}\n{}", self.log_tail()))
    }

    /// As [`Server::sql`]; the server's message when it fails.
    pub(crate) fn try_sql(&self, text: &str) -> Result<String, String> {
        let mut command = self.psql();
        command.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // psql ends at the first error and closes its end: what could not be written then does not matter.
        drop(std::io::Write::write_all(&mut stdin, text.as_bytes()));
        drop(stdin);
        let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
        if status.success() {
            Ok(String::from_utf8_lossy(&stdout).trim_end().to_owned())
        } else {
            Err(String::from_utf8_lossy(&stderr).trim_end().to_owned())
        }
    }

    /// Asks until the answer is `expected`.
    #[track_caller]
    pub(crate) fn wait_for(&self, query: &str, expected: &str, seconds: u64) {
        let mut last = Ok(String::new());
        let end = std::time::Instant::now() + std::time::Duration::from_secs(seconds);
        loop {
            let answer = self.try_sql(query);
            if answer.as_deref() == Ok(expected) {
                return;
            }
            if std::time::Instant::now() > end {
                last.clone_from(&answer);
                panic!("after {seconds} s {query} says {last:?}, not {expected}\n{}", self.log_tail());
            }
            last = answer;
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }

    /// Ends the current segment; its name. Writes a record first, so that there is always something to switch.
    #[track_caller]
    pub(crate) fn switch_wal(&self) -> String {
        self.sql("SELECT FROM pg_create_restore_point('switch'); SELECT pg_walfile_name(pg_switch_wal());")
    }

    /// Switches, and waits until the archiver has reported the segment done; its name.
    #[track_caller]
    pub(crate) fn archive_now(&self) -> String {
        let segment = self.switch_wal();
        self.wait_for(
            &format!("SELECT coalesce(last_archived_wal, '') >= '{segment}' FROM pg_stat_archiver"),
            "t",
            60,
        );
        segment
    }

    /// The test account that runs this server.
    pub(crate) fn account(&self) -> Account {
        self.account
    }

    /// This server's programs.
    pub(crate) fn installation(&self) -> &Installation {
        &self.installation
    }

    /// A path inside the data directory.
    pub(crate) fn file(&self, name: impl AsRef<Path>) -> PathBuf {
        self.data.join(name)
    }

    /// The server's log so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read(&self.log).map(|log| String::from_utf8_lossy(&log).into_owned()).unwrap_or_default()
    }

    /// The log's last lines, for a failed assertion.
    pub(crate) fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let from = lines.len().saturating_sub(60);
        format!("--- {} ---\n{}", self.log.display(), lines[from..].join("\n"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log_tail());
        }
        self.stop(StopMode::Immediate);
    }
}

/// A port outside the range that outgoing connections take theirs from, so that none of them comes in between.
fn free_port() -> u16 {
    use std::hash::{BuildHasher, RandomState};
    let mut random = RandomState::new().hash_one(std::process::id());
    loop {
        let port = 15_000 + u16::try_from(random % 17_000).unwrap();
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
        random = random.rotate_left(7) ^ 0x9E37_79B9_7F4A_7C15;
    }
}
