//! What a restored server is told, and what its operator is: the `restore_command`, whose the files are,
//! how to start it.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, anyhow, bail};

use super::super::settings::Settings;
use super::super::{Stop, complain};
use super::environment;
use crate::durable::Owner;
use crate::operation::restore::{Ownership, RestoreError, Written};
use crate::pgdata::recovery_settings::{Role, shell_word};

/// The server's `restore_command`: complete without anything in the server's environment, except secrets.
/// `repository` where it is not the configuration that names it.
pub(super) fn restore_command(
    settings: &Settings,
    repository: Option<&str>,
    unreachable: Option<&str>,
) -> anyhow::Result<String> {
    let mut words = Vec::new();
    let carried = environment::carried(|name| std::env::var(name).ok());
    for (name, value) in carried.context("cannot tell the current directory")? {
        words.push(format!("{name}={}", shell_word(&value)));
    }
    let binary = std::env::current_exe().context("cannot tell where pitr is installed")?;
    words.push(shell_word(text(&binary)?));
    if let Some(config) = &settings.config {
        let config = std::path::absolute(config).context("cannot tell where the configuration is")?;
        words.extend(["--config".to_owned(), shell_word(text(&config)?)]);
    }
    if let Some(url) = repository {
        words.extend(["--repository".to_owned(), shell_word(url)]);
    }
    words.extend(["--cluster".to_owned(), shell_word(settings.cluster.as_str()), "archive-get".to_owned()]);
    if let Some(choice) = unreachable {
        words.push(format!("--unreachable={choice}"));
    }
    words.push("%f %p".to_owned());
    Ok(words.join(" "))
}

/// A tablespace's OID, as the backup has it, and its new place.
pub(super) fn tablespace(text: &str) -> Result<(String, PathBuf), String> {
    let (oid, dir) = text.split_once('=').ok_or("expected OID=/absolute/directory")?;
    let (Ok(oid), dir) = (oid.parse::<u32>(), PathBuf::from(dir)) else {
        return Err("expected OID=/absolute/directory".to_owned());
    };
    if dir.is_relative() || dir.components().any(|c| c == Component::ParentDir) {
        return Err("expected OID=/absolute/directory, without ..".to_owned());
    }
    Ok((oid.to_string(), dir))
}

/// Each with the one place it is given.
pub(super) fn tablespaces(given: &[(String, PathBuf)]) -> Result<BTreeMap<String, PathBuf>, Stop> {
    let mut places = BTreeMap::new();
    for (oid, dir) in given {
        if places.insert(oid.clone(), dir.clone()).is_some_and(|other| other != *dir) {
            complain(&format!("pitr: --tablespace: {oid} is given two places"));
            return Err(Stop::Code(2));
        }
    }
    Ok(places)
}

/// A conninfo for `postgresql.auto.conf`: what stands there goes into every base backup.
pub(super) fn without_password(text: &str) -> Result<String, String> {
    let said = text.to_ascii_lowercase();
    let in_uri = said.split_once("://").is_some_and(|(_, rest)| {
        let login = rest.split(['/', '?']).next().and_then(|host| host.rsplit_once('@'));
        login.is_some_and(|(user, _)| user.contains(':'))
    });
    if in_uri || said.replace(' ', "").contains("password=") {
        return Err("it holds a password: put that into a passfile, and name it with passfile=…".to_owned());
    }
    Ok(text.to_owned())
}

fn text(path: &Path) -> anyhow::Result<&str> {
    let text = path.to_str().ok_or_else(|| {
        anyhow!("{} is not UTF-8 and cannot stand in the server's configuration", path.display())
    })?;
    Ok(text.strip_suffix(" (deleted)").unwrap_or(text))
}

/// What `--owner` says: an account's name or number, and a group's after a colon.
pub(super) fn ownership(owner: Option<&str>, dir: &Path) -> anyhow::Result<Ownership> {
    let Some(owner) = owner else { return Ok(Ownership::by_default(dir)) };
    if !rustix::process::geteuid().is_root() {
        bail!("--owner: only root can give files to somebody else");
    }
    let (user, group) = owner.split_once(':').map_or((owner, None), |(u, g)| (u, Some(g)));
    let (uid, primary) = match user.parse() {
        Ok(uid) => (uid, None),
        Err(_) => {
            let (uid, gid) = lookup("/etc/passwd", user)?.ok_or_else(|| {
                anyhow!("--owner: no account \"{user}\" in /etc/passwd; give its number, as UID:GID")
            })?;
            (uid, gid)
        }
    };
    let gid = match group {
        Some(group) => match group.parse() {
            Ok(gid) => Some(gid),
            Err(_) => lookup("/etc/group", group)?.map(|(gid, _)| gid),
        },
        None => primary,
    };
    let gid = gid.ok_or_else(|| anyhow!("--owner: the group is not known; give numbers, as UID:GID"))?;
    Ok(Ownership::Given(Owner { uid, gid }))
}

/// The third field, and the fourth where it is a number.
fn lookup(file: &str, name: &str) -> anyhow::Result<Option<(u32, Option<u32>)>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
    Ok(text.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next()? != name {
            return None;
        }
        let id = fields.nth(1)?.parse().ok()?;
        Some((id, fields.next().and_then(|f| f.parse().ok())))
    }))
}

/// What the operator should know before the server is started.
pub(super) fn advice(dir: &Path, written: &Written, role: &Role) -> Vec<String> {
    let mut lines = Vec::new();
    if !written.raised.is_empty() {
        let raised: Vec<String> = written.raised.iter().map(|(n, v)| format!("{n} = {v}")).collect();
        lines.push(format!(
            "recovery needs what the primary had: {} is set in postgresql.auto.conf",
            raised.join(", ")
        ));
    }
    if let Some(Owner { uid, gid }) = written.owner {
        lines.push(format!("the files belong to account {uid}, group {gid} (--owner says otherwise)"));
    }
    match role {
        Role::Copy => lines.push(format!(
            "a copy: archive_mode is off. when it becomes the cluster: take archive_mode, archive_command and archive_library \
             out of postgresql.auto.conf, restart it, run for h in {dir}/pg_wal/*.history; do pitr archive-push \"$h\"; done, take a backup",
            dir = dir.display(),
        )),
        Role::Takeover => {
            lines.push("it becomes the cluster: archiving is as the backup's configuration has it".to_owned());
        }
        Role::Standby { .. } => {
            lines.push("a standby: it archives as the backup's configuration has it, once promoted".to_owned());
        }
    }
    lines
}

/// How the server is started.
pub(super) fn how_to_start(dir: &Path, has_configuration: bool) -> String {
    let dir = shell_word(&dir.display().to_string());
    if has_configuration {
        return format!("pg_ctl -D {dir} start");
    }
    // Debian's names the data directory, and what is started with it alone is the old one, not the copy.
    format!(
        "pg_ctl -D {dir} start -o \"-c config_file=FILE -c data_directory={dir} -c external_pid_file={dir}/copy.pid -c port=PORT\" \
         (the backup holds no postgresql.conf: Debian keeps it in /etc/postgresql)"
    )
}

/// The operator's question, below the error.
pub(super) fn hint<'a>(error: &RestoreError, roots: impl Iterator<Item = &'a Path>) -> String {
    let roots: Vec<_> = roots.map(|root| shell_word(&root.display().to_string())).collect();
    let rest = format!(
        "what was written stays, marked as unfinished, and cannot be started; to try again, empty it: find {} -mindepth 1 -delete",
        roots.join(" ")
    );
    match error {
        RestoreError::Taken(_) => "choose an empty directory".to_owned(),
        RestoreError::Mismatch { .. } | RestoreError::Manifest(_) | RestoreError::Repository(_) => {
            format!("is the store healthy, or is there another backup (pitr info)? {rest}")
        }
        RestoreError::Local(_) | RestoreError::File { .. } => {
            format!("is there room, and may this user write there? {rest}")
        }
        RestoreError::Map(_) | RestoreError::Control(_) => rest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_try_is_told_all_directories_that_it_needs_empty() {
        let error = RestoreError::File {
            action: "write",
            path: "base/1".to_owned(),
            source: std::io::ErrorKind::StorageFull.into(),
        };
        let said = hint(&error, [Path::new("/data"), Path::new("/fast disk/16384")].into_iter());
        assert!(said.ends_with("empty it: find /data '/fast disk/16384' -mindepth 1 -delete"), "{said}");
    }
}
