//! `pitr repo`

use std::io::Write;

use anyhow::{Context, anyhow, bail};
use clap::{Args, Subcommand};

use super::settings::{Global, Settings};
use super::{Stop, now, say};
use crate::repository::layout::name_digest;
use crate::repository::{Create, Repository};
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
        let repository =
            Repository::open(settings.first_storage()?, &settings.memory(), Create::Nothing, now())?;
        match &self.verb {
            RepoVerb::Ls { folder } => {
                let folder = match folder.trim_end_matches('/') {
                    "" => String::new(),
                    name => format!("{name}/"),
                };
                repository.storage().list(&folder, None, &mut |object| {
                    say(&format!("{:>12}  {}", object.size, object.name));
                })?;
            }
            RepoVerb::Cat { name, raw } => cat(&repository, name, *raw, &settings, global)?,
            RepoVerb::Resolve { file, discard } => {
                let cluster = repository.cluster(&settings.cluster, global.system_id)?;
                let digest = name_digest(discard);
                let kept = cluster.layout().conflict(*file, digest);
                if repository.storage().size(&kept)?.is_none() {
                    return Err(anyhow!("nothing is kept as {}", cluster.object_url(&kept)).into());
                }
                let word = serde_json::json!({ "format": 1, "discarded": now() }).to_string();
                repository.storage().create(&cluster.layout().discarded(*file, digest), word.into())?;
                say(&format!("{file} with digest {digest} is not wanted: its next push is acknowledged"));
            }
        }
        Ok(())
    }
}

fn cat(
    repository: &Repository,
    name: &str,
    raw: bool,
    settings: &Settings,
    global: &Global,
) -> Result<(), Stop> {
    let mut out = std::io::stdout();
    if let (Ok(file), false) = (name.parse::<WalFileName>(), raw) {
        let cluster = repository.cluster(&settings.cluster, global.system_id)?;
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
        return if found.is_some() { Ok(()) } else { Err(anyhow!("{file} is not in the archive").into()) };
    }
    let object = repository.storage().read(name)?.ok_or_else(|| anyhow!("there is no object {name}"))?;
    if raw || !name.ends_with(".zst") {
        out.write_all(&object).context("cannot write to stdout")?;
    } else {
        zstd::stream::copy_decode(&object[..], &mut out).with_context(|| format!("cannot decode {name}"))?;
    }
    Ok(())
}
