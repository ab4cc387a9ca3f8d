//! The pushing of what is ready behind the last file that was asked for.

use std::path::{Path, PathBuf};

use super::{PATIENCE, Shared, State};
use crate::operation::archive_push::door::Door;
use crate::operation::archive_push::proof::{Proof, Seen};
use crate::operation::archive_push::ready::{self, Turn};
use crate::types::WalFileName;

impl Shared {
    /// Pushes what is ready until nothing may be begun.
    pub(super) fn work(&self, thread: bool) {
        while let Some((folder, name)) = self.begin(thread) {
            let _under_way = UnderWay { shared: self, name };
            if self.push_ahead(&folder.join(name.to_string()), name).is_none() {
                self.state().stopped = true;
            }
        }
    }

    fn begin(&self, thread: bool) -> Option<(PathBuf, WalFileName)> {
        let mut state = self.state();
        let next = self.next(&mut state);
        if next.is_none() && thread {
            // In the same breath: who asks next must know that another thread is needed.
            state.threads -= 1;
            self.changed.notify_all();
        }
        next
    }

    fn next(&self, state: &mut State) -> Option<(PathBuf, WalFileName)> {
        let folder = state.folder.clone()?;
        let late = state.answered.is_some_and(|answered| answered.elapsed() > PATIENCE);
        if state.closing || state.stopped || late || state.begun.len() >= self.ahead.segments {
            return None;
        }
        if state.queue.is_empty() && std::mem::take(&mut state.look) {
            state.queue = ready::behind(state.asked.as_ref()?, &self.cwd.join(&folder)).into();
        }
        loop {
            let name = state.queue.pop_front()?;
            if !state.under_way.contains(&name) && state.begun.insert(Turn::of(name)) {
                state.under_way.insert(name);
                return Some((folder, name));
            }
        }
    }

    /// Pushes one file and leaves proof of it; `None` where it is better not to go on.
    fn push_ahead(&self, path: &Path, name: WalFileName) -> Option<()> {
        if self.proofs.find(name).is_some_and(|proof| self.is_of(&proof, path, name)) {
            return Some(());
        }
        let now = (self.clock)();
        // What was written this moment could not be proved, and would be pushed twice.
        if !std::fs::metadata(self.cwd.join(path)).is_ok_and(|meta| Seen::of(&meta).had_settled(now)) {
            return None;
        }
        let done = self
            .push(path, now, self.others())
            .inspect_err(|error| tracing::debug!(%error, "not pushed ahead"))
            .ok()?;
        let Some(mut proof) = Proof::of(&done, &self.options.cluster, now) else { return Some(()) };
        for (place, Door { storage, .. }) in proof.repositories.iter_mut().zip(&self.doors) {
            // What was just stored is known; what stood there before, under this name or beside it, is not.
            if place.stored.is_none() {
                place.stored = Some(storage.size(&place.object).ok()??);
            }
        }
        self.proofs
            .keep(name, &proof)
            .inspect_err(|error| tracing::debug!(%name, %error, "pushed ahead without a proof"))
            .ok()
    }
}

/// A file that is being pushed ahead.
struct UnderWay<'s> {
    shared: &'s Shared,
    name: WalFileName,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        self.shared.no_longer(&mut state, self.name);
    }
}

/// A thread that reads ahead. It leaves when nothing may be begun; one that panics is gone all the same.
pub(super) struct Thread<'s>(pub(super) &'s Shared);

impl Drop for Thread<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.state().threads -= 1;
            self.0.changed.notify_all();
        }
    }
}
