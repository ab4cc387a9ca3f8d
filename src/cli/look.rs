//! `pitr check`, from the settings to the exit code.

use super::check::{CheckArgs, EXIT_PROBLEMS, Surroundings, json, words};
use super::settings::{Global, Settings};
use super::{Stop, now, say};
use crate::operation::check::has_problems;
use crate::repository::{Create, Repository};

pub(super) fn run(args: &CheckArgs, global: &Global) -> Result<(), Stop> {
    let settings = Settings::load(global)?;
    let mut problems = false;
    for storage in settings.storages()? {
        // An operator types this: the root may be made, and the identity, so that what is checked is real.
        let repository = Repository::open(storage, &settings.memory(), Create::RootAndIdentity, now())?;
        let cluster = repository.cluster(&settings.cluster, global.system_id).ok();
        let token = format!("check-{}-{}", now().0.as_microsecond(), std::process::id());
        let findings = args.run(&Surroundings {
            storage: repository.storage(),
            create_only: Some(repository.descriptor().create_only),
            layout: cluster.as_ref().map(|c| c.layout()),
            conninfo: settings.conninfo.as_deref(),
            env: &|name| std::env::var(name).ok(),
            token: &token,
        })?;
        problems |= has_problems(&findings);
        if global.json {
            say(&json(&findings).to_string());
        } else {
            say(words(&findings).trim_end());
        }
    }
    if problems { Err(Stop::Code(EXIT_PROBLEMS)) } else { Ok(()) }
}
