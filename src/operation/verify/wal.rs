//! The copies of one WAL file: is each what its name says, are its bytes those that were stored, and does its
//! summary say what is in them? And which of them would recovery get?

use super::coverage::Standing;
use super::problem::{About, Found, Kind, Verdict, judge};
use super::truth;
use crate::repository::layout::WalObjectName;
use crate::repository::wal_archive::{StoredWal, WalContent};
use crate::repository::{Cluster, RepositoryError};
use crate::types::{Lsn, SegmentName, TimelineId, WalFileName};
use crate::wal::{Rest, SegmentScanner, TimelineHistory};

/// Objects up to this size are fetched by one request, larger ones frame by frame: so much memory a thread.
const AT_ONCE: u64 = 20 << 20;

/// One object, as the listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) name: String,
    pub(super) size: u64,
    pub(super) holds: Holds,
}

/// What an object must hold, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Holds {
    /// A copy of a file of the archive.
    File(WalObjectName),
    /// A piece of so many bytes of a segment that is not complete.
    Piece { bytes: u64 },
}

impl Listed {
    /// The LOG that a segment's object is of.
    pub(super) fn log(&self) -> Option<(TimelineId, u32)> {
        match self.file()? {
            WalFileName::Segment(s) | WalFileName::Partial(s) | WalFileName::Backup(s, _) => {
                (!self.name.contains("/conflict/")).then_some((s.timeline, s.log))
            }
            WalFileName::History(_) => None,
        }
    }

    fn file(&self) -> Option<WalFileName> {
        match &self.holds {
            Holds::File(known) => Some(known.file),
            Holds::Piece { .. } => None,
        }
    }
}

/// What recovery makes of one copy.
enum Copy {
    /// With what it has of a record that begins in the segment before.
    Whole(Option<Rest>),
    CutOff(Lsn),
    /// Damaged when it came.
    Marked(Lsn, String),
    Bad(Kind, String),
    Unreadable(Kind, String),
}

/// All objects of one folder that have a stem in common: the copies of a segment, with what else is named
/// after it. `deep` reads every byte.
pub(super) fn check(cluster: &Cluster<'_>, objects: &[Listed], deep: bool) -> Result<Found, RepositoryError> {
    let mut found = Found::default();
    let mut segment = None;
    let mut copies = Vec::new();
    for object in objects {
        let copy = look(cluster, object, deep, &mut found)?;
        match object.file() {
            Some(WalFileName::Segment(name)) => {
                segment = Some(name);
                copies.push((object, copy));
            }
            file => alone(object, file, copy, &mut found),
        }
    }
    if let Some(segment) = segment {
        together(segment, &copies, &mut found);
        if deep {
            border(cluster, segment, &copies, &mut found)?;
        }
    }
    Ok(found)
}

/// A refused file: what it holds is the operator's to decide, but it must be there to be decided about.
pub(super) fn check_refused(
    cluster: &Cluster<'_>,
    object: &Listed,
    deep: bool,
) -> Result<Found, RepositoryError> {
    let mut found = Found::default();
    if let Copy::Bad(kind, why) | Copy::Unreadable(kind, why) = look(cluster, object, deep, &mut found)? {
        found.add(kind, &object.name, why, "it was refused, and recovery never asks for it", About::Nothing);
    }
    Ok(found)
}

/// No other copy of it counts for the server: each partial segment, backup and history file, and each piece,
/// is its own.
fn alone(object: &Listed, file: Option<WalFileName>, copy: Copy, found: &mut Found) {
    let todo = match file {
        Some(WalFileName::Partial(_)) => {
            "recovery never asks for a partial segment: is the whole one of the next timeline there?"
        }
        Some(WalFileName::Backup(..)) => "recovery never asks for it: nothing is lost",
        _ => "is it still in pg_wal of a server, or in another repository?",
    };
    if let Copy::Bad(kind, why) | Copy::Unreadable(kind, why) = copy {
        found.add(kind, &object.name, why, todo, About::Nothing);
    }
}

/// What the copies of a segment are together, by the rule by which readers choose.
fn together(segment: SegmentName, copies: &[(&Listed, Copy)], found: &mut Found) {
    let good = copies.iter().any(|(_, copy)| matches!(copy, Copy::Whole(_)));
    let bad = copies.iter().any(|(_, c)| matches!(c, Copy::Bad(..)));
    let unknown = copies.iter().any(|(_, c)| matches!(c, Copy::Unreadable(..)));
    let reach = |copy: &Copy| match copy {
        Copy::CutOff(end) => Some((*end, true)),
        Copy::Marked(end, _) => Some((*end, false)),
        _ => None,
    };
    let best = copies.iter().filter_map(|(_, copy)| reach(copy)).max();
    let about = if good { About::Nothing } else { About::Segment(segment) };
    let standing = match best {
        _ if good => None,
        _ if bad => Some(Standing::Broken(Lsn::INVALID)),
        _ if unknown => Some(Standing::Unknown),
        Some((end, true)) => Some(Standing::CutOff(end)),
        Some((end, false)) => Some(Standing::Broken(end)),
        None => None,
    };
    for (object, copy) in copies {
        match copy {
            Copy::Bad(kind, why) | Copy::Unreadable(kind, why) => {
                let todo = match (kind, good) {
                    (Kind::NewerFormat, _) => "install a newer version of pitr",
                    (_, true) => {
                        "nothing is lost, recovery gets the other copy: is the disk or the store failing?"
                    }
                    (Kind::Unreadable, _) => "may this user read it, and is the disk or the store failing?",
                    _ => {
                        "is the segment still in pg_wal, or in another repository? then move this object away and push it again (pitr archive-push); else take a new backup (pitr backup)"
                    }
                };
                found.add(*kind, &object.name, why.clone(), todo, about.clone());
            }
            Copy::Marked(end, damage) if !good => {
                let what = format!("it was damaged when it was archived: {damage}; recovery ends at {end}");
                let todo = "take a new backup (pitr backup), and look at the server's disk and memory";
                found.add(Kind::DamagedWal, &object.name, what, todo, about.clone());
            }
            _ => {}
        }
    }
    found.standing.extend(standing.map(|standing| (segment, standing)));
}

/// Of a record that the segment before began neither segment can tell that it is damaged.
fn border(
    cluster: &Cluster<'_>,
    segment: SegmentName,
    copies: &[(&Listed, Copy)],
    found: &mut Found,
) -> Result<(), RepositoryError> {
    let rests = copies.iter().find_map(|(object, copy)| match copy {
        Copy::Whole(rest) => Some((object, rest.as_ref()?)),
        _ => None,
    });
    let Some((object, rest)) = rests else { return Ok(()) };
    if let Some((before, at)) = cluster.damaged_border_with(segment, rest)? {
        let what = format!(
            "the record at {at}, which begins in {before} and ends here, has a wrong checksum; recovery ends there"
        );
        let todo = "is either segment still in pg_wal, or in another repository, with other bytes? else take a new backup (pitr backup), and look at the server's disk and memory";
        found.add(Kind::DamagedWal, &object.name, what, todo, About::Segment(before));
        found.standing.push((before, Standing::Broken(at)));
    }
    Ok(())
}

/// One object by itself.
fn look(
    cluster: &Cluster<'_>,
    object: &Listed,
    deep: bool,
    found: &mut Found,
) -> Result<Copy, RepositoryError> {
    let error = match open_and_prove(cluster, object, deep, found) {
        Ok(copy) => return Ok(copy),
        Err(error) => error,
    };
    Ok(match judge(error)? {
        Verdict::Damaged(why) => Copy::Bad(Kind::DamagedObject, why),
        Verdict::Newer(why) => Copy::Unreadable(Kind::NewerFormat, why),
        Verdict::Unreadable(why) => Copy::Unreadable(Kind::Unreadable, why),
    })
}

fn open_and_prove(
    cluster: &Cluster<'_>,
    object: &Listed,
    deep: bool,
    found: &mut Found,
) -> Result<Copy, RepositoryError> {
    let whole = deep && object.size <= AT_ONCE;
    let Some(stored) = StoredWal::open(cluster.storage(), &object.name, whole)? else {
        return Ok(Copy::Bad(Kind::DamagedObject, "it vanished while it was looked at".to_owned()));
    };
    let summary = stored.summary();
    if let Some((kind, why)) = misnamed(cluster, object, &stored) {
        return Ok(Copy::Bad(kind, why));
    }
    if object.size != stored.stored_size() {
        let why = format!("it has {} bytes, and its summary names {}", object.size, stored.stored_size());
        return Ok(Copy::Bad(Kind::DamagedObject, why));
    }
    let size = cluster.segment_size();
    let segment = match object.file() {
        Some(WalFileName::Segment(s) | WalFileName::Partial(s)) => Some(s),
        _ => None,
    };
    let mut content = summary.wal.clone();
    if deep {
        let mut scanner = segment.map(|segment| SegmentScanner::new(segment, size));
        let mut text = Vec::new();
        stored.decode(|chunk| {
            match &mut scanner {
                Some(scanner) => scanner.push(&chunk),
                None if matches!(object.holds, Holds::File(_)) => text.extend_from_slice(&chunk),
                None => {}
            }
            Ok::<(), RepositoryError>(())
        })?;
        if let Some(scan) = scanner.map(SegmentScanner::finish) {
            if let Some(problem) = scan.problem {
                return Ok(Copy::Bad(Kind::Misnamed, problem.to_string()));
            }
            let truth = WalContent::from(&scan);
            if let Some(foreign) = foreign(cluster, &truth) {
                return Ok(Copy::Bad(Kind::Foreign, foreign));
            }
            if let Some(lies) = truth::lies(summary, &truth) {
                found.add(
                    Kind::SummaryLies,
                    &object.name,
                    format!("its summary does not say what is in it: {lies}"),
                    "info and plans go by the summary: is the segment still in pg_wal, or in another repository? then move this object away and push it again (pitr archive-push)",
                    About::Nothing,
                );
            }
            content = Some(truth);
        } else if let Some(why) = object.file().and_then(|file| wrong_text(file, &text)) {
            return Ok(Copy::Bad(Kind::Misnamed, why));
        }
    }
    let (Some(segment), Some(content)) = (segment, content) else { return Ok(Copy::Whole(None)) };
    if let Some(foreign) = foreign(cluster, &content) {
        return Ok(Copy::Bad(Kind::Foreign, foreign));
    }
    if let Some(lies) =
        segment.start(size).and_then(|start| truth::implausible(&content, segment, start, size))
    {
        found.add(
            Kind::SummaryLies,
            &object.name,
            format!("its summary cannot be true: {lies}"),
            "run pitr verify without --quick: it reads the segment itself",
            About::Nothing,
        );
    }
    Ok(match (content.damage, content.cut_off_at) {
        (Some(damage), _) => Copy::Marked(content.end_of_valid, damage),
        (None, Some(end)) => Copy::CutOff(end),
        (None, None) => Copy::Whole(content.rest),
    })
}

/// What the object says of itself against its name.
fn misnamed(cluster: &Cluster<'_>, object: &Listed, stored: &StoredWal<'_>) -> Option<(Kind, String)> {
    let summary = stored.summary();
    let (name, digest, bytes) = match &object.holds {
        Holds::Piece { bytes } => (object.name.clone(), None, Some(*bytes)),
        Holds::File(known) => {
            let full = matches!(known.file, WalFileName::Segment(_) | WalFileName::Partial(_));
            let bytes = full.then_some(cluster.segment_size().bytes());
            (known.file.to_string(), known.digest.as_deref(), bytes)
        }
    };
    if summary.name != name {
        return Some((Kind::Misnamed, format!("it says that it holds {}", summary.name.escape_debug())));
    }
    if let Some(digest) = digest.filter(|digest| !summary.blake3.starts_with(digest)) {
        return Some((Kind::Misnamed, format!("it holds digest {}, its name says {digest}", summary.blake3)));
    }
    if let Some(bytes) = bytes.filter(|bytes| summary.size != *bytes) {
        return Some((Kind::Misnamed, format!("it holds {} bytes instead of {bytes}", summary.size)));
    }
    None
}

fn foreign(cluster: &Cluster<'_>, content: &WalContent) -> Option<String> {
    let ours = cluster.identity().system_identifier;
    let theirs = content.system_identifier.filter(|id| *id != ours)?;
    Some(format!("it is of system {theirs}, the cluster here is system {ours}"))
}

fn wrong_text(file: WalFileName, text: &[u8]) -> Option<String> {
    match file {
        WalFileName::History(timeline) => TimelineHistory::parse(timeline, text).err().map(|e| e.to_string()),
        // Its first line names the segment: START WAL LOCATION: 0/2000028 (file 000000010000000000000002)
        WalFileName::Backup(segment, _) => {
            let names = format!("(file {segment})");
            (!String::from_utf8_lossy(text).contains(&names))
                .then(|| format!("it is not of the backup that began in {segment}"))
        }
        _ => None,
    }
}
