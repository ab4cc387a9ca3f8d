//! Many small requests to a store at the same time: most of one is waiting.

use super::RepositoryError;

/// How many are under way at once.
const AT_ONCE: usize = 16;

/// Does something for each of `items`, several at a time; the answers in their order, or the first error.
pub(crate) fn abreast<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<R, RepositoryError> + Sync,
) -> Result<Vec<R>, RepositoryError> {
    let share = items.len().div_ceil(AT_ONCE).max(1);
    let work = &work;
    let parts = std::thread::scope(|scope| {
        let workers: Vec<_> = items
            .chunks(share)
            .map(|part| scope.spawn(move || part.iter().map(work).collect::<Result<Vec<_>, _>>()))
            .collect();
        workers.into_iter().map(std::thread::ScopedJoinHandle::join).collect::<Vec<_>>()
    });
    let mut all = Vec::with_capacity(items.len());
    for part in parts {
        match part {
            Ok(answers) => all.extend(answers?),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
    Ok(all)
}
