//! `pitr repo`

use std::io::Write;

use anyhow::{Context, anyhow, bail};
use clap::{Args, Subcommand};
use serde_json::json;

use super::settings::{Global, Settings};
use super::{Stop, complain, from_any, now, say, say_which};
use crate::repository::layout::name_digest;
use crate::repository::{Cluster, Create, Repository};
use crate::types::WalFileName;

#[derive(Debug, Args)]
pub(super) struct RepoArgs {
    #[command(subcommand)]
    verb: RepoVerb,
}

#[derive(Debug, Subcommand)]
enum RepoVerb {
    /// Lists objects with their stored sizes.
    Ls {
        /// Only names below this folder.
        #[arg(default_value = "")]
        folder: String,
    },
    /// Writes a WAL file, decoded and verified, or an object as it is stored, to stdout.
    Cat {
        /// A WAL file's name, or an object's.
        name: String,
        /// The stored bytes, not decoded.
        #[arg(long)]
        raw: bool,
    },
    /// Says that a refused file, kept under conflict/, is not wanted: the server may drop it.
    Resolve {
        /// The WAL file's name.
        file: WalFileName,
        /// The refused file's digest, as in the name of the kept object.
        #[arg(long, value_name = "DIGEST")]
        discard: String,
    },
}

impl RepoArgs {
    pub(super) fn run(&self, global: &Global) -> Result<(), Stop> {
        let settings = Settings::load(global)?;
        match &self.verb {
            RepoVerb::Ls { folder } => ls(&any(&settings)?, folder, global.json)?,
            RepoVerb::Cat { name, raw } => cat(&any(&settings)?, name, *raw, &settings, global)?,
            RepoVerb::Resolve { file, discard } => {
                let digest = resolve_everywhere(&settings, global, *file, discard)?;
                if global.json {
                    say(&json!({ "file": file.to_string(), "digest": digest, "discarded": true }).to_string());
                } else {
                    say(&format!("{file} with digest {digest} is not wanted: its next push is acknowledged"));
                }
            }
        }
        Ok(())
    }
}

/// The first repository that answers; which one, where there are several.
fn any(settings: &Settings) -> anyhow::Result<Repository> {
    let repository = from_any(settings.storages()?, |storage| {
        Ok(Repository::open(storage, &settings.memory(), Create::Nothing, now())?)
    })?;
    say_which(settings, repository.url());
    Ok(repository)
}

/// A bucket may hold millions: each object is written as it is listed, also into the one JSON document.
fn ls(repository: &Repository, folder: &str, as_json: bool) -> anyhow::Result<()> {
    let name = folder.trim_end_matches('/');
    let prefix = if name.is_empty() { String::new() } else { format!("{name}/") };
    let mut count = 0u64;
    let mut show = |name: &str, size: u64| {
        if as_json {
            let before = if count == 0 { "{\"objects\":[" } else { "," };
            say(&format!("{before}{}", json!({ "name": name, "size": size })));
        } else {
            say(&format!("{size:>12}  {name}"));
        }
        count += 1;
    };
    // One object by its whole name. A folder is none, and in a directory no name for one: what is below it counts.
    match if name.is_empty() { Ok(None) } else { repository.storage().size(name) } {
        Ok(Some(size)) => show(name, size),
        none => {
            repository.storage().list(&prefix, None, &mut |object| show(&object.name, object.size))?;
            if count == 0 {
                none?;
            }
        }
    }
    match (count, as_json) {
        (0, _) if !name.is_empty() => bail!("there is nothing below {}/{name}", repository.url()),
        (0, true) => say("{\"objects\":[]}"),
        (_, true) => say("]}"),
        _ => {}
    }
    Ok(())
}

/// In every repository that keeps the file: the server is refused until all of them know.
fn resolve_everywhere(
    settings: &Settings,
    global: &Global,
    file: WalFileName,
    discard: &str,
) -> anyhow::Result<String> {
    let (mut done, mut not_kept) = (None, Vec::new());
    for storage in settings.storages()? {
        let repository = Repository::open(storage, &settings.memory(), Create::Nothing, now())?;
        let cluster = repository.cluster(&settings.cluster, global.system_id)?;
        match resolve(&cluster, file, discard)? {
            Ok(digest) => done = Some(digest),
            Err(why) => not_kept.push(why),
        }
    }
    done.ok_or_else(|| anyhow!(not_kept.join("; ")))
}

/// `Ok(Err(why))`: the file is not kept there.
fn resolve(
    cluster: &Cluster<'_>,
    file: WalFileName,
    discard: &str,
) -> anyhow::Result<Result<String, String>> {
    let digest = name_digest(discard);
    let storage = cluster.storage();
    let folder = cluster.layout().conflicts();
    let start = format!("{folder}{file}.");
    let mut kept = Vec::new();
    storage.list(&folder, None, &mut |object| {
        let stem = object.name.strip_prefix(&start).and_then(|rest| rest.strip_suffix(".zst"));
        kept.extend(stem.map(str::to_owned));
    })?;
    if !kept.iter().any(|one| one == digest) {
        let of = match kept.is_empty() {
            true => "nothing of it was refused".to_owned(),
            false => format!("refused were the ones with digest {}", kept.join(", ")),
        };
        return Ok(Err(format!(
            "{file} with digest {digest} is not among the refused files of {}: {of}",
            cluster.object_url(&folder)
        )));
    }
    let word = json!({ "format": 1, "discarded": now() }).to_string();
    storage.create(&cluster.layout().discarded(file, digest), word.into())?;
    Ok(Ok(digest.to_owned()))
}

fn cat(
    repository: &Repository,
    name: &str,
    raw: bool,
    settings: &Settings,
    global: &Global,
) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    if let Ok(file) = name.parse::<WalFileName>() {
        let cluster = repository.cluster(&settings.cluster, global.system_id)?;
        if raw {
            let copies = cluster.wal_copies(file)?;
            let Some(first) = copies.first() else { bail!("{file} is not in the archive") };
            for copy in copies.iter().skip(1) {
                complain(&format!("another copy of it is {copy}"));
            }
            return copy_out(repository, first, &mut out);
        }
        let written = std::cell::Cell::new(false);
        let found = cluster.fetch(
            file,
            // What is on stdout cannot be taken back: another copy must not be appended to half of the first.
            || match written.get() {
                false => Ok(()),
                true => bail!(
                    "a copy of {file} broke off half-way; `pitr repo ls` shows whether there is another"
                ),
            },
            |chunk| {
                written.set(true);
                out.write_all(&chunk).context("cannot write to stdout")
            },
        )?;
        return if found.is_some() { Ok(()) } else { Err(anyhow!("{file} is not in the archive")) };
    }
    if raw || !name.ends_with(".zst") {
        return copy_out(repository, name, &mut out);
    }
    let object = repository.storage().read(name)?.ok_or_else(|| missing(repository, name))?;
    zstd::stream::copy_decode(&object[..], &mut out).with_context(|| format!("cannot decode {name}"))
}

/// The stored bytes, a few at a time.
fn copy_out(repository: &Repository, name: &str, out: &mut impl Write) -> anyhow::Result<()> {
    const CHUNK: u64 = 8 << 20;
    let storage = repository.storage();
    let size = storage.size(name)?.ok_or_else(|| missing(repository, name))?;
    let mut at = 0;
    while at < size {
        let bytes = storage.read_range(name, at..(at + CHUNK).min(size))?;
        let bytes = bytes.filter(|b| !b.is_empty()).ok_or_else(|| missing(repository, name))?;
        out.write_all(&bytes).context("cannot write to stdout")?;
        at += bytes.len() as u64;
    }
    Ok(())
}

fn missing(repository: &Repository, name: &str) -> anyhow::Error {
    anyhow!("there is no object {}/{name} (pitr repo ls shows which there are)", repository.url())
}
