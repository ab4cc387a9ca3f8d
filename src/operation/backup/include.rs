//! `--wal include`: a second replication connection brings the WAL that the backup needs, so that nothing
//! has to be archived by anybody else.
//!
//! A temporary slot is made before the backup begins, so that the server keeps that WAL; the server drops
//! it with the connection, whatever happens to us. Whole segments are handed on under their names. A
//! primary ends its segment with the backup; of a standby's last segment there is only a piece.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use super::BackupError;
use super::streamed_wal::StreamedWal;
use crate::postgres::replication::{ReplicationClient, SlotName};
use crate::postgres::wal_stream::{WalEvent, WalStream};
use crate::postgres::{ConnInfo, PostgresError};
use crate::types::{Lsn, Moment, SegmentName, SegmentSize, SystemId, TimelineId};

/// Says to the stream how far to go, and to the backup whether the stream still lives.
#[derive(Debug, Default)]
pub(super) struct Reins {
    stop: Mutex<Option<Lsn>>,
    cancel: AtomicBool,
    failed: AtomicBool,
}

impl Reins {
    /// The backup has ended here.
    pub(super) fn stop_at(&self, lsn: Lsn) {
        *self.stop.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(lsn);
    }

    /// The backup has failed: no more WAL is needed.
    pub(super) fn cancel(&self) {
        self.cancel.store(true, Ordering::Relaxed);
    }

    /// Whether the backup has failed.
    pub(super) fn is_cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }

    /// Whether the stream has ended by a failure: there is no use in going on then.
    pub(super) fn check(&self) -> Result<(), BackupError> {
        if self.failed.load(Ordering::Relaxed) {
            return Err(BackupError::local("go on")("the WAL stream has failed"));
        }
        Ok(())
    }

    fn stop(&self) -> Option<Lsn> {
        *self.stop.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A connection with its slot, before it streams.
pub(super) struct Included {
    runtime: Runtime,
    client: ReplicationClient,
    slot: SlotName,
    size: SegmentSize,
    standby: bool,
    /// Whether commits wait for standbys. What is told to be flushed would make us one of them where the
    /// names fit (`*` fits everybody), and commits would wait for whole segments: nothing is told then, and
    /// the slot keeps all WAL until the backup has ended.
    synchronous: bool,
}

impl Included {
    /// Logs in and makes the slot.
    pub(super) fn prepare(
        info: &ConnInfo,
        system: SystemId,
        size: SegmentSize,
        standby: bool,
        now: Moment,
    ) -> Result<Self, BackupError> {
        let runtime = super::source::runtime()?;
        let name = format!("pitr_backup_{}_{}", std::process::id(), now.0.as_second());
        let slot: SlotName = name.parse().map_err(BackupError::local("name the replication slot"))?;
        let (client, synchronous) = runtime.block_on(async {
            let mut client = ReplicationClient::connect(info).await?;
            let found = client.identify_system().await?.system_id;
            if found != system {
                return Err(BackupError::OtherSystem { what: "second connection", expected: system, found });
            }
            let synchronous = !client.show("synchronous_standby_names").await?.is_empty();
            client.create_slot(&slot, true).await?;
            Ok((client, synchronous))
        })?;
        Ok(Self { runtime, client, slot, size, standby, synchronous })
    }

    /// Streams from the segment that holds `from`, up to where the reins say. `limit` is how long it may
    /// take after the backup has ended.
    pub(super) fn run(
        self,
        from: Lsn,
        timeline: TimelineId,
        sink: StreamedWal<'_>,
        reins: &Reins,
        limit: Duration,
        clock: &(dyn Fn() -> Moment + Sync),
    ) -> Result<(), BackupError> {
        let result = self.stream(from, timeline, sink, reins, limit, clock);
        if result.is_err() {
            reins.failed.store(true, Ordering::Relaxed);
        }
        result
    }

    fn stream(
        mut self,
        from: Lsn,
        mut timeline: TimelineId,
        sink: StreamedWal<'_>,
        reins: &Reins,
        limit: Duration,
        clock: &(dyn Fn() -> Moment + Sync),
    ) -> Result<(), BackupError> {
        let mut start = Lsn(from.0 - from.0 % self.size.bytes());
        if timeline.0 > 1 {
            self.history(timeline, sink)?;
        }
        loop {
            let open = self.client.start_replication(Some(&self.slot), timeline, start);
            let mut segments = Segments {
                stream: self.runtime.block_on(open)?,
                runtime: &self.runtime,
                size: self.size,
                standby: self.standby,
                synchronous: self.synchronous,
                timeline,
                start,
                buffer: sink.buffer()?,
                filled: 0,
            };
            match segments.run(sink, reins, limit, clock)? {
                None => break,
                Some((next, at)) => {
                    drop(segments);
                    self.history(next, sink)?;
                    // The new timeline's first segment repeats what the old one had up to the switch.
                    timeline = next;
                    start = Lsn(at.0 - at.0 % self.size.bytes());
                }
            }
        }
        self.runtime.block_on(self.client.close());
        Ok(())
    }

    fn history(&mut self, timeline: TimelineId, sink: StreamedWal<'_>) -> Result<(), BackupError> {
        let (_, bytes) = self.runtime.block_on(self.client.timeline_history(timeline))?;
        sink.history(timeline, &bytes)
    }
}

struct Segments<'a> {
    stream: WalStream<'a>,
    runtime: &'a Runtime,
    size: SegmentSize,
    standby: bool,
    synchronous: bool,
    timeline: TimelineId,
    /// Where the segment in `buffer` begins.
    start: Lsn,
    buffer: File,
    filled: u64,
}

impl Segments<'_> {
    /// `Some`: the timeline has ended, and another one goes on from there.
    fn run(
        &mut self,
        sink: StreamedWal<'_>,
        reins: &Reins,
        limit: Duration,
        clock: &(dyn Fn() -> Moment + Sync),
    ) -> Result<Option<(TimelineId, Lsn)>, BackupError> {
        const STATUS_INTERVAL: Duration = Duration::from_secs(5);
        const PATIENCE: Duration = Duration::from_millis(200);
        let mut told = Instant::now();
        let mut ended: Option<Instant> = None;
        loop {
            let at = self.start.plus(self.filled);
            if reins.is_cancelled() {
                return Ok(None);
            }
            if let Some(stop) = reins.stop() {
                // A busy primary has gone on into the next segment by then: what came of it is not needed.
                let complete = self.start >= stop;
                if complete || (at >= stop && self.standby) {
                    if !complete {
                        self.piece(sink)?;
                    }
                    return Ok(None);
                }
                if ended.get_or_insert_with(Instant::now).elapsed() > limit {
                    return Err(BackupError::WalNotSent {
                        segment: self.name().to_string(),
                        seconds: limit.as_secs(),
                    });
                }
            }
            let stream = &mut self.stream;
            let event = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, stream.next()).await });
            let mut tell = told.elapsed() > STATUS_INTERVAL;
            match event {
                Err(_) => {}
                Ok(event) => match event? {
                    WalEvent::Data { start, bytes, .. } => {
                        if start != at {
                            let what = format!("WAL from {start}, not from {at}");
                            return Err(PostgresError::Protocol(what).into());
                        }
                        tell |= self.take(&bytes, sink, clock)?;
                    }
                    WalEvent::KeepAlive { reply, .. } => tell |= reply,
                    WalEvent::EndOfTimeline { next, at } => return Ok(Some((next, at))),
                },
            }
            if tell {
                let (written, flushed) = self.position();
                self.runtime.block_on(self.stream.reply(written, flushed, clock()))?;
                told = Instant::now();
            }
        }
    }

    /// Whether a segment was completed, and is durable.
    fn take(
        &mut self,
        mut bytes: &[u8],
        sink: StreamedWal<'_>,
        clock: &dyn Fn() -> Moment,
    ) -> Result<bool, BackupError> {
        let local = BackupError::local("buffer WAL");
        let mut completed = false;
        while !bytes.is_empty() {
            let room = usize::try_from(self.size.bytes() - self.filled).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(bytes.len().min(room));
            if let Err(e) = self.buffer.write_all_at(now, self.filled) {
                return Err(local(e));
            }
            self.filled += now.len() as u64;
            bytes = later;
            if self.filled == self.size.bytes() {
                self.store(sink, clock)?;
                self.start = self.start.plus(self.size.bytes());
                self.filled = 0;
                completed = true;
            }
        }
        Ok(completed)
    }

    /// Stores the segment, and tells the server meanwhile that somebody is there: a store may take longer, as it is
    /// tried again, than the server waits for a word (`wal_sender_timeout`).
    fn store(&mut self, sink: StreamedWal<'_>, clock: &dyn Fn() -> Moment) -> Result<(), BackupError> {
        const SIGN_OF_LIFE: Duration = Duration::from_secs(1);
        let (name, (written, flushed)) = (self.name(), self.position());
        let (buffer, stream, runtime) = (&self.buffer, &mut self.stream, self.runtime);
        std::thread::scope(|scope| {
            let (tell, told) = channel();
            scope.spawn(move || tell.send(sink.segment(name, buffer)));
            let mut lost = Ok(());
            loop {
                match told.recv_timeout(SIGN_OF_LIFE) {
                    // What was received is stored, whatever became of the connection.
                    Ok(stored) => return stored.and(lost),
                    Err(RecvTimeoutError::Timeout) if lost.is_ok() => {
                        let reply = stream.reply(written, flushed, clock());
                        lost = runtime.block_on(reply).map_err(BackupError::from);
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => {
                        return Err(BackupError::local("store WAL")("its thread has panicked"));
                    }
                }
            }
        })
    }

    /// Up to where WAL was received, and up to where it is durable.
    fn position(&self) -> (Lsn, Lsn) {
        (self.start.plus(self.filled), if self.synchronous { Lsn(0) } else { self.start })
    }

    fn piece(&self, sink: StreamedWal<'_>) -> Result<(), BackupError> {
        sink.piece(self.timeline, self.start, &self.buffer, self.filled)
    }

    fn name(&self) -> SegmentName {
        SegmentName::holding(self.timeline, self.start, self.size)
    }
}
