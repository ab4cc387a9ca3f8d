//! The first failure of any thread, at which the others stop.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use super::BackupError;

/// The first failure of any thread: what the others say after it is only an echo.
#[derive(Debug, Default)]
pub(super) struct FirstFailure {
    first: Mutex<Option<BackupError>>,
    stopped: AtomicBool,
    wake: Notify,
}

impl FirstFailure {
    /// Keeps it if it is the first, and stops the others.
    pub(super) fn set(&self, error: BackupError) {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.stop();
    }

    /// Stops the others.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        // Kept for whoever begins to wait later; one thread at a time does.
        self.wake.notify_one();
    }

    /// Whether there is no use in going on.
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Ends when there is no use in going on: somebody who waits for a server that says nothing must not.
    pub(super) async fn stopped(&self) {
        while !self.is_stopped() {
            self.wake.notified().await;
        }
    }

    /// What it was.
    pub(super) fn take(self) -> BackupError {
        let first = self.first.into_inner().unwrap_or_else(PoisonError::into_inner);
        first.unwrap_or_else(|| {
            BackupError::local("go on")("a thread of the backup has ended without saying why")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_waits_for_a_silent_server_hears_of_it_before_and_while_he_waits() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let failure = FirstFailure::default();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(std::time::Duration::from_millis(50));
                failure.set(BackupError::Argument("first".to_owned()));
                failure.set(BackupError::Argument("echo".to_owned()));
            });
            runtime.block_on(failure.stopped());
        });
        assert!(failure.is_stopped());
        // One after the other, as the threads have their turns.
        runtime.block_on(failure.stopped());
        runtime.block_on(failure.stopped());
        assert!(matches!(failure.take(), BackupError::Argument(what) if what == "first"));
    }
}
