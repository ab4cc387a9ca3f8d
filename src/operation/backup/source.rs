//! The server that is backed up.

use tokio::runtime::Runtime;

use super::BackupError;
use super::wal::archiver_fails;
use crate::postgres::replication::{ReplicationClient, SystemIdentity};
use crate::postgres::{ConnInfo, PostgresError};
use crate::repository::Cluster;
use crate::types::{SegmentName, SegmentSize, SystemId, TimelineId};

/// A server that can be backed up: reached, and asked who it is.
#[derive(Debug)]
pub struct BackupSource {
    pub(super) runtime: Runtime,
    pub(super) client: ReplicationClient,
    pub(super) identity: SystemIdentity,
    pub(super) segment_size: SegmentSize,
    pub(super) standby: bool,
    pub(super) archive_mode: String,
    in_place_tablespaces: bool,
}

/// Whether the server's WAL arrives in the repositories without our doing, and how that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archiving {
    /// It does.
    pub works: bool,
    /// In words that follow "because".
    pub why: String,
}

/// A runtime for one connection.
pub(super) fn runtime() -> Result<Runtime, BackupError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(BackupError::local("start the network runtime"))
}

impl BackupSource {
    /// Logs in and asks.
    pub fn connect(info: &ConnInfo) -> Result<Self, BackupError> {
        let runtime = runtime()?;
        let (client, identity, segment_size, standby, archive_mode, in_place_tablespaces) = runtime
            .block_on(async {
                let mut client = ReplicationClient::connect(info).await?;
                let identity = client.identify_system().await?;
                let size = client.segment_size().await?;
                let standby = client.is_standby().await?;
                let archive_mode = client.show("archive_mode").await?;
                // 15 leaves them out beside a tablespace map; later majors send them.
                let in_place =
                    client.major() == 15 && client.show("allow_in_place_tablespaces").await? == "on";
                Ok::<_, PostgresError>((client, identity, size, standby, archive_mode, in_place))
            })?;
        Ok(Self { runtime, client, identity, segment_size, standby, archive_mode, in_place_tablespaces })
    }

    /// Whether the server may hold tablespaces that it does not send: directories in `pg_tblspc`.
    pub fn may_leave_tablespaces_out(&self) -> bool {
        self.in_place_tablespaces
    }

    /// Looks for the segments before the server's current one in every repository: what a setting says is
    /// hope, what has arrived is proof. The one just ended may be on its way, so the one before it will do. Where the
    /// login may ask for it, the archiver must not fail just now.
    ///
    /// Of a standby's backup the archiver brings the last segment when the primary has ended it. Where
    /// nobody can ask it to (`primary`), that may take for ever.
    pub fn archiving(&self, connection: &ConnInfo, clusters: &[Cluster<'_>], primary: bool) -> Archiving {
        let no = |why: String| Archiving { works: false, why };
        if self.archive_mode == "off" {
            return no("archive_mode is off on the server".to_owned());
        }
        if self.standby && !primary {
            return no("this is a standby, and no --primary is given that could be asked to end its segment"
                .to_owned());
        }
        let current = self.segment_size.number_of(self.identity.position);
        let timeline = self.identity.timeline.0;
        let recent: Vec<SegmentName> = (1..=2)
            .filter_map(|back| current.checked_sub(back).filter(|number| *number > 0))
            .flat_map(|number| [timeline, timeline - 1].map(|t| (t, number)))
            .filter(|(t, _)| *t > 0)
            .map(|(t, number)| SegmentName::from_number(TimelineId(t), number, self.segment_size))
            .collect();
        let mut arrived = None;
        for cluster in clusters {
            // A store that does not answer says nothing about the archiver, and fails at the next step.
            let held = |s: &SegmentName| {
                cluster.storage().size(&cluster.layout().segment(*s)).is_ok_and(|size| size.is_some())
            };
            match recent.iter().find(|s| held(s)) {
                Some(segment) => arrived = Some(*segment),
                None => {
                    return no(format!(
                        "{} has none of the server's last segments",
                        cluster.repository().url()
                    ));
                }
            }
        }
        // They came before it began to fail.
        if let Some(why) = archiver_fails(connection) {
            return no(why);
        }
        match arrived {
            Some(segment) => Archiving { works: true, why: format!("segment {segment} has been archived") },
            None => no("there is no repository".to_owned()),
        }
    }

    /// The cluster's number: what the repository's cluster must be bound to.
    pub fn system_id(&self) -> SystemId {
        self.identity.system_id
    }

    /// The cluster's segment size.
    pub fn segment_size(&self) -> SegmentSize {
        self.segment_size
    }

    /// 13, 14, …
    pub fn major(&self) -> u32 {
        self.client.major()
    }
}
