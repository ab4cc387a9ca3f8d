//! One pass over all WAL objects, refused files and pieces: folder by folder, several threads at once.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::in_order::in_order;
use super::problem::Found;
use super::state::{Folder, Keeper};
use super::wal::{self, Holds, Listed};
use super::{Checked, Monitor, rollups};
use crate::repository::layout::RollupName;
use crate::repository::object_name::EpochObject;
use crate::repository::{Cluster, RepositoryError};
use crate::types::{TimelineId, WalFileName};

/// What the consumer is told, in order.
enum Step {
    /// The folder's first objects were looked at by an earlier run.
    Known(String),
    /// All of it is looked at.
    Begin(String),
    Look {
        folder: String,
        objects: Vec<Listed>,
    },
    Rollups(String, Vec<RollupName>),
}

enum Done {
    Known(String),
    Begin(String),
    Looked { folder: String, objects: Vec<Listed>, found: Result<Found, RepositoryError> },
    Rollups(String, Result<Found, RepositoryError>),
}

/// What an earlier run has seen of each folder: how many objects, the digest of their names and sizes, and
/// whether the roll-ups of them were looked at.
type Seen = BTreeMap<String, (u64, String, bool)>;

/// See the module's text.
pub(super) struct Pass<'a> {
    pub(super) cluster: &'a Cluster<'a>,
    /// Every byte is read.
    pub(super) deep: bool,
    /// Segments below this number are left out.
    pub(super) first: u64,
    pub(super) threads: usize,
    pub(super) rollups: &'a BTreeMap<(TimelineId, u32), Vec<RollupName>>,
    pub(super) monitor: &'a dyn Monitor,
}

impl Pass<'_> {
    /// Looks at everything; what was found in each folder is in the keeper's state.
    pub(super) fn run(&self, keeper: &mut Keeper, checked: &mut Checked) -> Result<(), RepositoryError> {
        // Folders that are not there any more are left behind with what was found in them.
        let mut left = std::mem::take(&mut keeper.state.folders);
        let known: Seen =
            left.iter().map(|(name, f)| (name.clone(), (f.objects, f.digest.clone(), f.rolled))).collect();
        in_order(
            self.threads,
            |give| self.walk(&known, give),
            |step| match step {
                Step::Known(folder) => Done::Known(folder),
                Step::Begin(folder) => Done::Begin(folder),
                Step::Look { folder, objects } => {
                    let found = self.look(&objects);
                    Done::Looked { folder, objects, found }
                }
                Step::Rollups(folder, names) => Done::Rollups(folder, rollups::check(self.cluster, &names)),
            },
            |done| {
                let folders = &mut keeper.state.folders;
                match done {
                    Done::Begin(folder) => {
                        folders.insert(folder, Folder::default());
                    }
                    Done::Known(name) => {
                        let folder = left.remove(&name).unwrap_or_default();
                        checked.resumed(folder.objects, folder.bytes);
                        self.monitor.checked(folder.objects, folder.bytes);
                        folders.insert(name, folder);
                    }
                    Done::Rollups(folder, found) => {
                        let folder = folders.entry(folder).or_default();
                        folder.found.take_in(found?);
                        folder.rolled = true;
                    }
                    Done::Looked { folder, objects, found } => {
                        let folder = folders.entry(folder).or_default();
                        folder.found.take_in(found?);
                        for object in &objects {
                            folder.digest = Folder::chained(&folder.digest, &object.name, object.size);
                            folder.bytes += object.size;
                            folder.objects += 1;
                            checked.looked_at(1, object.size);
                            self.monitor.checked(1, object.size);
                        }
                        keeper.tick();
                    }
                }
                Ok(())
            },
        )
    }

    fn look(&self, objects: &[Listed]) -> Result<Found, RepositoryError> {
        let refused = objects.first().is_some_and(|o| o.name.starts_with(&self.cluster.layout().conflicts()));
        match objects.first() {
            Some(object) if refused => wal::check_refused(self.cluster, object, self.deep),
            _ => wal::check(self.cluster, objects, self.deep),
        }
    }

    /// Lists, one folder at a time in memory.
    fn walk(
        &self,
        known: &Seen,
        give: &mut dyn FnMut(Step) -> ControlFlow<()>,
    ) -> Result<(), RepositoryError> {
        let layout = self.cluster.layout();
        let mut open: Option<(String, Vec<Listed>)> = None;
        let mut wanted = ControlFlow::Continue(());
        for prefix in [layout.conflicts(), layout.stream(), layout.wal()] {
            self.cluster.storage().list_while(&prefix, None, &mut |object| {
                let Some(object) = self.known(object.name, object.size) else {
                    return ControlFlow::Continue(());
                };
                let folder = object.name.rsplit_once('/').map_or("", |(folder, _)| folder);
                match &mut open {
                    Some((name, objects)) if name == folder => objects.push(object),
                    _ => {
                        let folder = folder.to_owned();
                        if let Some(full) = open.replace((folder, vec![object])) {
                            wanted = self.hand_out(full, known, give);
                        }
                    }
                }
                wanted
            })?;
            if wanted.is_break() {
                return Ok(());
            }
        }
        if let Some(full) = open {
            let _ = self.hand_out(full, known, give);
        }
        Ok(())
    }

    fn hand_out(
        &self,
        (folder, objects): (String, Vec<Listed>),
        known: &Seen,
        give: &mut dyn FnMut(Step) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let known = known.get(&folder);
        let skip = known.and_then(|(count, digest, _)| {
            let count = usize::try_from(*count).ok()?;
            let first = objects.get(..count)?;
            let chain = first.iter().fold(String::new(), |chain, o| Folder::chained(&chain, &o.name, o.size));
            (chain == *digest).then_some(count)
        });
        let all_known = skip == Some(objects.len()) && known.is_some_and(|(_, _, rolled)| *rolled);
        let log = objects.first().and_then(|object| object.log());
        let rollups = log.filter(|_| !all_known).and_then(|log| self.rollups.get(&log));
        match skip {
            Some(_) => give(Step::Known(folder.clone()))?,
            None => give(Step::Begin(folder.clone()))?,
        }
        let mut rest = objects.into_iter().skip(skip.unwrap_or(0)).peekable();
        while let Some(first) = rest.next() {
            let stem = stem(&first).to_owned();
            let mut objects = vec![first];
            // Refused files are each their own.
            while !stem.is_empty() && rest.peek().is_some_and(|next| self::stem(next) == stem) {
                objects.extend(rest.next());
            }
            give(Step::Look { folder: folder.clone(), objects })?;
        }
        match rollups {
            Some(names) => give(Step::Rollups(folder, names.clone())),
            None => ControlFlow::Continue(()),
        }
    }

    /// What the pass looks at; history files were looked at before, and names that nobody knows are said
    /// elsewhere.
    fn known(&self, name: String, size: u64) -> Option<Listed> {
        let below = name.strip_prefix(&self.cluster.layout().all())?;
        let holds = match EpochObject::parse(below) {
            EpochObject::Wal(file) => {
                let (WalFileName::Segment(s) | WalFileName::Partial(s) | WalFileName::Backup(s, _)) =
                    file.file
                else {
                    return None;
                };
                s.number(self.cluster.segment_size()).filter(|number| *number >= self.first)?;
                Holds::File(file)
            }
            EpochObject::Conflict(file, _) => Holds::File(file),
            EpochObject::Piece(_, from, to) => Holds::Piece { bytes: to.0 - from.0 },
            _ => return None,
        };
        Some(Listed { name, size, holds })
    }
}

/// What the copies of a segment have in common; empty where an object has nothing in common with any other.
fn stem(object: &Listed) -> &str {
    let (folder, last) = object.name.rsplit_once('/').unwrap_or(("", &object.name));
    match &object.holds {
        Holds::File(_) if !folder.ends_with("/conflict") => last.split('.').next().unwrap_or_default(),
        _ => "",
    }
}
