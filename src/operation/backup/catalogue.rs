//! The names of the cluster's objects, read over SQL while the backup's files arrive.
//!
//! Best effort: a login that may only replicate takes good backups too, and a database that refuses it has
//! names that nobody will be told. What could not be read is said and recorded; nothing here fails a backup.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::{Monitor, include::Reins};
use crate::operation::in_full::in_full;
use crate::postgres::catalogue::{CatalogueClient, Database, Relation};
use crate::postgres::{ConnInfo, PostgresError};
use crate::repository::backup_set::Spool;
use crate::repository::backup_set::catalogue::{self as format, Catalogue, CatalogueLine};
use crate::types::SystemId;

/// For all of it: a backup that waits longer for its names than for its files is no use to anybody.
const LIMIT: Duration = Duration::from_mins(10);
/// For a login, where the connection string sets no limit.
const LOGIN_LIMIT: Duration = Duration::from_secs(30);
/// So many databases are named that could not be read; beyond it they are counted.
const NAMED: usize = 20;

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
enum Lack {
    #[error(transparent)]
    Server(#[from] PostgresError),
    #[error("cannot write the temporary file")]
    Spool(#[from] io::Error),
    #[error("cannot be written as JSON")]
    Json(#[from] serde_json::Error),
    #[error("the connection leads to system {0}")]
    OtherSystem(SystemId),
    #[error("its name is not UTF-8")]
    Name,
    #[error("no answer in time")]
    Late,
    #[error("the backup was given up")]
    GivenUp,
}

/// The catalogue being read; what it holds already is good whatever happens next.
struct Snapshot<'a> {
    spool: Spool,
    facts: Catalogue,
    unnamed: u64,
    monitor: &'a dyn Monitor,
}

/// Reads all that this login can read. `None` where there is nothing to store; the facts say why.
pub(super) fn read(
    info: &ConnInfo,
    system: SystemId,
    (level, temp_dir): (i32, &Path),
    reins: &Reins,
    monitor: &dyn Monitor,
) -> (Option<Spool>, Catalogue) {
    let spool = match Spool::new(level, temp_dir) {
        Ok(spool) => spool,
        Err(e) => return nothing(&Lack::Spool(e), monitor),
    };
    let runtime = match super::source::runtime() {
        Ok(runtime) => runtime,
        Err(e) => return nothing(&e, monitor),
    };
    let mut snapshot = Snapshot { spool, facts: Catalogue::default(), unnamed: 0, monitor };
    let read = runtime.block_on(async {
        tokio::select! {
            read = snapshot.all(info, system) => read,
            () = cancelled(reins) => Err(Lack::GivenUp),
        }
    });
    if let Err(lack) = read {
        if snapshot.facts.databases == 0 {
            return nothing(&lack, monitor);
        }
        snapshot.lacks(format!("the rest: {}", in_full(&lack)));
    }
    snapshot.finish()
}

/// The names of a running server's objects, and what of them it does not tell; `Err` where it tells none.
pub fn live_catalogue(
    info: &ConnInfo,
    system: SystemId,
    temp_dir: &Path,
) -> Result<(Spool, Vec<String>), String> {
    #[derive(Debug)]
    struct Silent;
    impl Monitor for Silent {}
    crate::durable::create_dirs(temp_dir, crate::durable::DIR_MODE).map_err(|e| in_full(&e))?;
    match read(info, system, (1, temp_dir), &Reins::default(), &Silent) {
        (Some(spool), facts) => Ok((spool, facts.lacking)),
        (None, facts) => Err(facts.lacking.join("; ")),
    }
}

fn nothing(why: &dyn std::error::Error, monitor: &dyn Monitor) -> (Option<Spool>, Catalogue) {
    let why = in_full(why);
    monitor.warning(&format!(
        "the names of the cluster's objects cannot be recorded, so that pitr events will show numbers: {why} \
         (the backup goes on; --no-catalogue does without them)"
    ));
    (None, Catalogue { lacking: vec![why], ..Catalogue::default() })
}

async fn cancelled(reins: &Reins) {
    while !reins.is_cancelled() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

impl Snapshot<'_> {
    async fn all(&mut self, info: &ConnInfo, system: SystemId) -> Result<(), Lack> {
        let end = Instant::now() + LIMIT;
        let list = async {
            let mut client = CatalogueClient::connect(info, None).await?;
            // Of several hosts another one may have answered.
            let found = client.system_id().await?;
            if found != system {
                return Err(Lack::OtherSystem(found));
            }
            let databases = client.databases().await?;
            client.close().await;
            Ok(databases)
        };
        let databases =
            timeout_at(end.min(Instant::now() + LOGIN_LIMIT), list).await.map_err(|_| Lack::Late)??;
        let mut shared = true;
        for database in databases {
            if !database.connectable {
                self.line(&CatalogueLine::Database(begin(&database, None)))?;
                continue;
            }
            match timeout_at(end, self.database(info, &database, system, shared)).await {
                Ok(Ok(())) => shared = false,
                Ok(Err(e @ (Lack::Spool(_) | Lack::Json(_)))) => return Err(e),
                Ok(Err(lack)) => self.lack(&database, &lack)?,
                Err(_) => return Err(Lack::Late),
            }
        }
        Ok(())
    }

    /// `shared`: with the relations that all databases share.
    async fn database(
        &mut self,
        info: &ConnInfo,
        database: &Database,
        system: SystemId,
        shared: bool,
    ) -> Result<(), Lack> {
        let name = std::str::from_utf8(&database.name).map_err(|_| Lack::Name)?;
        let login = CatalogueClient::connect(info, Some(name));
        let mut client = timeout_at(Instant::now() + LOGIN_LIMIT, login).await.map_err(|_| Lack::Late)??;
        let found = client.system_id().await?;
        if found != system {
            return Err(Lack::OtherSystem(found));
        }
        let lsn = client.position().await?;
        self.line(&CatalogueLine::Database(begin(database, Some(lsn))))?;
        client
            .relations(database, |relation| {
                if shared || relation.tablespace != SHARED {
                    self.facts.relations += 1;
                    self.line(&CatalogueLine::Relation(line(relation)))?;
                }
                Ok::<(), Lack>(())
            })
            .await?;
        self.facts.databases += 1;
        self.facts.lsn = self.facts.lsn.max(Some(lsn));
        client.close().await;
        Ok(())
    }

    fn line(&mut self, line: &CatalogueLine) -> Result<(), Lack> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        Ok(self.spool.write(&text)?)
    }

    fn lack(&mut self, database: &Database, lack: &Lack) -> Result<(), Lack> {
        let line = begin(database, None);
        let text = format!("database \"{}\": {}", line.name, in_full(lack));
        // Its own name is known all the same.
        self.line(&CatalogueLine::Database(line))?;
        if self.facts.lacking.len() < NAMED {
            self.lacks(text);
        } else {
            self.unnamed += 1;
        }
        Ok(())
    }

    fn lacks(&mut self, text: String) {
        self.monitor.warning(&format!("the names of objects are not recorded: {text}"));
        self.facts.lacking.push(text);
    }

    fn finish(mut self) -> (Option<Spool>, Catalogue) {
        if self.unnamed > 0 {
            self.lacks(format!("{} more databases", self.unnamed));
        }
        if let Err(e) = self.spool.flush() {
            return nothing(&Lack::Spool(e), self.monitor);
        }
        self.facts.object = Some(self.spool.digest());
        (Some(self.spool), self.facts)
    }
}

/// The tablespace of what all databases share (`pg_global`).
const SHARED: u32 = 1664;

fn begin(database: &Database, lsn: Option<crate::types::Lsn>) -> format::Database {
    format::Database { oid: database.oid, name: database.name[..].into(), lsn }
}

fn line(relation: Relation) -> format::Relation {
    format::Relation {
        oid: relation.oid,
        file: relation.file,
        tablespace: relation.tablespace,
        schema: relation.schema[..].into(),
        name: relation.name[..].into(),
        kind: relation.kind,
        owner: relation.owner,
    }
}
