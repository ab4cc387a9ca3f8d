//! The throw-away directory, the account that owns it, and the commands that are run in it.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};

use super::COPY_PORT;
use super::account::Account;
use super::interrupt::Interrupt;
use super::process::{Application, drain, feed, quoted, typed};
use super::programs::Programs;
use super::voice::Voice;
use crate::durable;

/// Longer than any of its steps takes on a busy machine: a demo that hangs shows nothing.
const LIMIT: Duration = Duration::from_secs(180);

const SERVERS: [&str; 2] = ["primary", "copy"];

/// Everything that [`Stage::strike`] takes away again; dropping it does the same, silently.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    dir: PathBuf,
    struck: bool,
    programs: Programs,
    pitr: PathBuf,
    account: Option<Account>,
    voice: &'a Voice,
    interrupt: &'a Interrupt,
}

impl<'a> Stage<'a> {
    pub(super) fn set(
        parent: &Path,
        programs: Programs,
        voice: &'a Voice,
        interrupt: &'a Interrupt,
    ) -> anyhow::Result<Self> {
        let parent = std::path::absolute(parent).context("cannot tell where --dir is")?;
        let dir = tempfile::Builder::new()
            .prefix("pitr-demo-")
            .tempdir_in(&parent)
            .with_context(|| format!("cannot make a directory in {}", parent.display()))?
            .keep();
        let pitr = std::env::current_exe().context("cannot tell where pitr is")?;
        let mut stage = Self { dir, struck: false, programs, pitr, account: None, voice, interrupt };
        // A unix socket's path has 107 bytes; PostgreSQL's part of it is `/.s.PGSQL.5433`.
        if stage.dir.as_os_str().len() > 90 {
            bail!("{} is too long for a unix socket: give a shorter --dir", stage.dir.display());
        }
        if rustix::process::geteuid().is_root() {
            let account = Account::find()?;
            account.own(&stage.dir)?;
            stage.account = Some(account);
        }
        stage.make_pitr_reachable()?;
        Ok(stage)
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The binary, as the server calls it.
    pub(super) fn pitr(&self) -> &Path {
        &self.pitr
    }

    /// The account, when it is not our own.
    pub(super) fn user(&self) -> Option<&str> {
        self.account.as_ref().map(|account| account.name)
    }

    /// The server's user may not be able to look into root's directories, where the binary was built.
    fn make_pitr_reachable(&mut self) -> anyhow::Result<()> {
        let mut probe = self.command(&self.pitr);
        probe.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
        if self.pitr.file_name() == Some("pitr".as_ref())
            && probe.status().is_ok_and(|status| status.success())
        {
            return Ok(());
        }
        let bytes = std::fs::read(&self.pitr)
            .with_context(|| format!("cannot read this program, {}", self.pitr.display()))?;
        let bin = self.path("bin");
        durable::create_dir(&bin, 0o755, None)?;
        self.pitr = bin.join("pitr");
        durable::create(&self.pitr, &bytes, 0o755)?;
        Ok(())
    }

    /// What a shell needs to run the commands that follow.
    pub(super) fn announce(&self) {
        let here = self.pitr.parent().unwrap_or(Path::new("/")).display();
        self.voice.command(&format!("export PATH={}:{here}:$PATH", self.programs.dir().display()));
        let variables: Vec<String> = self
            .variables()
            .into_iter()
            .map(|(name, value)| format!("{name}={}", value.to_string_lossy()))
            .collect();
        self.voice.command(&format!("export {}", variables.join(" ")));
    }

    fn variables(&self) -> Vec<(&'static str, OsString)> {
        vec![
            ("PITR_CONFIG", self.path("pitr.toml").into()),
            ("PGHOST", self.dir().into()),
            ("PGPORT", "5432".into()),
            ("PGUSER", "postgres".into()),
            ("PGDATABASE", "postgres".into()),
        ]
    }

    /// A command of the account, in an environment that holds nothing of ours: neither a `PGHOST` of another server nor a
    /// `PITR_REPOSITORY` that somebody needs.
    fn command(&self, program: &Path) -> Command {
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
        let ours = [Some(self.programs.dir().to_owned()), self.pitr.parent().map(Path::to_owned)];
        let path = std::env::join_paths(ours.into_iter().flatten().chain(std::env::split_paths(&path)));
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", path.unwrap_or_else(|_| "/usr/bin:/bin".into()))
            .env("LC_ALL", "C")
            .env("HOME", self.dir())
            .envs(self.variables())
            .current_dir(self.dir())
            .stdin(Stdio::null());
        if let Some(account) = &self.account {
            command.uid(account.uid).gid(account.gid);
        }
        command
    }

    fn resolve(&self, name: &str) -> PathBuf {
        match name {
            "pitr" => self.pitr.clone(),
            "mkdir" => name.into(),
            _ => self.programs.dir().join(name),
        }
    }

    /// Shows a command, runs it, shows what it said; its stdout.
    pub(super) fn run(&self, words: &[&str]) -> anyhow::Result<String> {
        self.voice.command(&typed(words));
        let (stdout, stderr) = self.finish(words, true)?;
        // What these two say is long, and nobody's question here.
        if !matches!(words.first(), Some(&("initdb" | "pg_ctl"))) {
            self.voice.output(&stderr);
            self.voice.output(&stdout);
        }
        Ok(stdout)
    }

    /// As [`Stage::run`], and never killed half-way: `pg_ctl` is the one that knows whether a server has come to be.
    pub(super) fn start_server(&self, words: &[&str]) -> anyhow::Result<()> {
        self.voice.command(&typed(words));
        self.finish(words, false).map(drop)
    }

    /// SQL, shown.
    pub(super) fn psql(&self, sql: &str) -> anyhow::Result<String> {
        self.voice.command(&format!("psql -At <<< {}", quoted(sql)));
        let said = self.pipe(&["psql", "-AtqX", "-v", "ON_ERROR_STOP=1"], sql)?;
        self.voice.output(&said);
        Ok(said)
    }

    /// SQL that is asked behind the scene.
    pub(super) fn ask(&self, sql: &str) -> anyhow::Result<String> {
        Ok(self.finish(&["psql", "-AtqX", "-c", sql], true)?.0)
    }

    pub(super) fn ask_copy(&self, sql: &str) -> anyhow::Result<String> {
        Ok(self.finish(&["psql", "-AtqX", "-p", COPY_PORT, "-c", sql], true)?.0)
    }

    /// The newest backup's name, out of `pitr info --json`.
    pub(super) fn backup_id(&self) -> anyhow::Result<String> {
        let info: serde_json::Value =
            serde_json::from_str(&self.finish(&["pitr", "info", "--json"], true)?.0)?;
        let id = info.pointer("/clusters/0/backups/0/id").and_then(serde_json::Value::as_str);
        Ok(id.context("pitr info names no backup")?.to_owned())
    }

    /// Something that writes without end.
    pub(super) fn application(&self, sql: &str) -> anyhow::Result<Application> {
        self.voice.command(&format!("psql <<< {} &", quoted(sql)));
        let mut command = self.command(&self.resolve("psql"));
        command.args(["-qX", "-v", "ON_ERROR_STOP=1"]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run psql")?;
        feed(&mut child, sql);
        Ok(Application(child))
    }

    /// Asks again until it is so.
    pub(super) fn until(
        &self,
        what: &str,
        limit: Duration,
        mut done: impl FnMut() -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let end = Instant::now() + limit;
        while !done()? {
            if Instant::now() > end {
                bail!("waited {} s in vain until {what}", limit.as_secs());
            }
            self.pause(100)?;
        }
        Ok(())
    }

    pub(super) fn write(&self, name: &str, lines: &str) -> anyhow::Result<()> {
        self.document(">", name, lines);
        self.put(name, lines)
    }

    pub(super) fn append(&self, name: &str, lines: &str) -> anyhow::Result<()> {
        self.document(">>", name, lines);
        let path = self.path(name);
        let old =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        self.put(name, &format!("{old}{lines}"))
    }

    fn document(&self, arrow: &str, name: &str, lines: &str) {
        self.voice.command(&format!("cat {arrow} {} <<'END'", self.path(name).display()));
        self.voice.output(lines);
        self.voice.command("END");
    }

    fn put(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let path = self.path(name);
        durable::replace(&path, text.as_bytes(), 0o600)?;
        match &self.account {
            Some(account) => account.own(&path),
            None => Ok(()),
        }
    }

    fn pipe(&self, words: &[&str], input: &str) -> anyhow::Result<String> {
        let mut child = self.spawn(words, Stdio::piped())?;
        feed(&mut child, input);
        Ok(self.wait(words, child, true)?.0)
    }

    fn finish(&self, words: &[&str], may_kill: bool) -> anyhow::Result<(String, String)> {
        let child = self.spawn(words, Stdio::null())?;
        self.wait(words, child, may_kill)
    }

    fn spawn(&self, words: &[&str], stdin: Stdio) -> anyhow::Result<Child> {
        let (name, arguments) = words.split_first().context("no command")?;
        self.check_interrupt()?;
        let mut command = self.command(&self.resolve(name));
        command.args(arguments).stdin(stdin);
        // A server that pg_ctl starts would hold our end of a pipe for as long as it lives.
        let output = || if *name == "pg_ctl" { Stdio::null() } else { Stdio::piped() };
        command.stdout(output()).stderr(output());
        command.spawn().with_context(|| format!("cannot run {name}"))
    }

    fn wait(&self, words: &[&str], mut child: Child, may_kill: bool) -> anyhow::Result<(String, String)> {
        let stdout = child.stdout.take().map(drain);
        let stderr = child.stderr.take().map(drain);
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().context("cannot wait for a command")? {
                break status;
            }
            if may_kill && (self.interrupt.signal().is_some() || begun.elapsed() > LIMIT) {
                drop(child.kill());
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let collect = |reader: Option<std::thread::JoinHandle<String>>| {
            reader.and_then(|reader| reader.join().ok()).unwrap_or_default()
        };
        let (stdout, stderr) = (collect(stdout), collect(stderr));
        self.check_interrupt()?;
        if may_kill && begun.elapsed() > LIMIT {
            bail!(
                "{} did not end within {} s: {}",
                typed(words),
                LIMIT.as_secs(),
                format!("{stdout}{stderr}").trim()
            );
        }
        if !status.success() {
            bail!("{} failed ({status}): {}", typed(words), format!("{stdout}{stderr}").trim());
        }
        Ok((stdout, stderr))
    }

    fn pause(&self, milliseconds: u64) -> anyhow::Result<()> {
        std::thread::sleep(Duration::from_millis(milliseconds));
        self.check_interrupt()
    }

    fn check_interrupt(&self) -> anyhow::Result<()> {
        if self.interrupt.signal().is_some() { Err(anyhow!("interrupted")) } else { Ok(()) }
    }

    /// The last lines of the servers' logs, for somebody who has to find out.
    pub(super) fn logs(&self) -> String {
        let mut said = String::new();
        for name in SERVERS {
            let Ok(log) = std::fs::read(self.path(&format!("{name}.log"))) else { continue };
            let log = String::from_utf8_lossy(&log);
            let lines: Vec<&str> = log.lines().collect();
            said.push_str(&format!("--- the log of {name}, its last lines\n"));
            for line in lines.iter().skip(lines.len().saturating_sub(20)) {
                said.push_str(&format!("{line}\n"));
            }
        }
        said
    }

    /// Stops what runs, removes what was made, whatever came before.
    pub(super) fn strike(mut self) -> anyhow::Result<()> {
        self.clear()
    }

    fn clear(&mut self) -> anyhow::Result<()> {
        self.struck = true;
        for name in SERVERS {
            let data = self.path(name);
            let runs = || data.join("postmaster.pid").exists();
            if !runs() {
                continue;
            }
            let mut stop = self.command(&self.resolve("pg_ctl"));
            stop.arg("-D").arg(&data).args(["-m", "immediate", "-w", "stop"]);
            stop.stdout(Stdio::null()).stderr(Stdio::null());
            // Another Ctrl-C is meant for the demo, which is ending already.
            stop.process_group(0);
            if !stop.status().is_ok_and(|status| status.success()) && runs() {
                bail!("cannot stop the server in {}: it is left as it is", data.display());
            }
        }
        // The last of a server's children may still be removing its files.
        let end = Instant::now() + Duration::from_secs(10);
        while let Err(error) = std::fs::remove_dir_all(&self.dir) {
            if !self.dir.exists() {
                break;
            }
            if Instant::now() > end {
                return Err(error).with_context(|| format!("cannot remove {}", self.dir.display()));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        if !self.struck {
            drop(self.clear());
        }
    }
}
