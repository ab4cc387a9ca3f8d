//! Reading, looking, digesting and compressing: in turn, or beside each other.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};

use super::body::Body;
use super::workroom::Bench;
use super::{Encoding, PIECE};
use crate::codec::FramesHasher;

/// The reading side: every byte passes here once.
pub(super) struct Intake<'s, F> {
    source: &'s mut dyn Read,
    inspect: F,
    pub(super) digests: FramesHasher,
    /// The frames' raw bytes.
    pub(super) frames: Vec<u32>,
    pub(super) size: u64,
}

impl<'s, F: FnMut(&[u8])> Intake<'s, F> {
    /// For frames of at most so many bytes.
    pub(super) fn new(source: &'s mut dyn Read, inspect: F, most: usize) -> Self {
        Self { source, inspect, digests: FramesHasher::new(most), frames: Vec::new(), size: 0 }
    }

    /// Reads until `piece` is full or the source ends.
    fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = piece.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.source.read(rest) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(filled)
    }

    fn look(&mut self, piece: &[u8]) {
        (self.inspect)(piece);
        self.digests.update(piece);
        self.size += piece.len() as u64;
    }

    fn end_frame(&mut self, raw: usize) {
        self.digests.end_frame();
        // No frame has more than `MAX_FRAME_RAW`.
        self.frames.push(u32::try_from(raw).unwrap_or(u32::MAX));
    }
}

/// What failed, and why.
pub(super) type Failed = (&'static str, io::Error);

/// One frame after the other by this thread: for a small file, and where all cores have work.
pub(super) fn alone<'s, F: FnMut(&[u8])>(
    intake: Intake<'s, F>,
    body: Body,
    encoding: Encoding<'_>,
) -> Result<(Intake<'s, F>, Body, Vec<u32>), Failed> {
    let done = encoding.workroom.at_a_bench(|bench| at(bench, intake, body, encoding));
    done.map_err(|e| ("compress", e))?
}

fn at<'s, F: FnMut(&[u8])>(
    bench: &mut Bench,
    mut intake: Intake<'s, F>,
    mut body: Body,
    encoding: Encoding<'_>,
) -> Result<(Intake<'s, F>, Body, Vec<u32>), Failed> {
    let Bench { encoder, raw } = bench;
    let most = intake.digests.frame();
    encoder.begin().map_err(|e| ("compress", e))?;
    raw.resize(most, 0);
    let mut stored = Vec::new();
    loop {
        let mut filled = 0;
        while let Some(piece) = raw.get_mut(filled..(filled + PIECE).min(most)).filter(|p| !p.is_empty()) {
            let read = intake.read(piece).map_err(|e| ("read", e))?;
            intake.look(piece.get(..read).unwrap_or_default());
            filled += read;
            if read == 0 {
                break;
            }
        }
        if filled == 0 && !stored.is_empty() {
            break;
        }
        intake.end_frame(filled);
        let frame = raw.get(..filled).unwrap_or_default();
        stored.push(body.append(frame, encoder, encoding).map_err(|e| ("compress", e))?);
        if filled < most {
            break;
        }
    }
    Ok((intake, body, stored))
}

/// Three frames in memory: one is compressed, one waits, and one is read, looked at and digested.
pub(super) fn beside<'s, F: FnMut(&[u8])>(
    mut intake: Intake<'s, F>,
    body: Body,
    encoding: Encoding<'_>,
) -> Result<(Intake<'s, F>, Body, Vec<u32>), Failed> {
    let most = intake.digests.frame();
    std::thread::scope(|scope| {
        let (to_worker, work) = sync_channel(1);
        let (give_back, free) = channel();
        let (give_body, bodies) = sync_channel(1);
        let worker = move || match bodies.recv() {
            Ok(body) => compress_all(work, &give_back, body, encoding),
            Err(gone) => Err(io::Error::other(gone)),
        };
        let Ok(worker) = std::thread::Builder::new().spawn_scoped(scope, worker) else {
            // At the account's limit of processes: sooner or later is no question of whether.
            return alone(intake, body, encoding);
        };
        drop(give_body.send(body));
        let mut made = 0;
        loop {
            let mut frame = if made < 3 {
                made += 1;
                Arc::new(vec![0; most])
            } else {
                // A worker that is gone has an error to tell.
                let Ok(frame) = free.recv() else { break };
                frame
            };
            // The worker gives back what nobody else holds any more.
            let raw =
                Arc::get_mut(&mut frame).ok_or_else(|| ("read", io::Error::other("a frame is in use")))?;
            let filled = intake.read(raw).map_err(|e| ("read", e))?;
            if filled == 0 || to_worker.send((Arc::clone(&frame), filled)).is_err() {
                break;
            }
            let raw = frame.get(..filled).unwrap_or_default();
            raw.chunks(PIECE).for_each(|piece| intake.look(piece));
            intake.end_frame(filled);
        }
        drop(to_worker);
        let (body, stored) = worker
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            .map_err(|e| ("compress", e))?;
        Ok((intake, body, stored))
    })
}

fn compress_all(
    work: Receiver<(Arc<Vec<u8>>, usize)>,
    give_back: &Sender<Arc<Vec<u8>>>,
    mut body: Body,
    encoding: Encoding<'_>,
) -> io::Result<(Body, Vec<u32>)> {
    let mut encoder = encoding.workroom.encoder()?;
    let mut stored = Vec::new();
    for (frame, filled) in work {
        stored.push(body.append(frame.get(..filled).unwrap_or_default(), &mut encoder, encoding)?);
        // The reader has ended where nobody takes it.
        drop(give_back.send(frame));
    }
    Ok((body, stored))
}
