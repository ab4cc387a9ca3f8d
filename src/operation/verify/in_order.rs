//! Work on several threads, its results in the order of the work. Bounded: what is handed out waits until what
//! was handed out before it has been taken.

use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

/// `produce` hands out work (and ends when told that nobody wants more), `work` does it on `threads` threads,
/// `consume` gets the results on this one. The first error of `consume` or `produce` ends everything.
pub(super) fn in_order<T: Send, R: Send, E: Send>(
    threads: usize,
    produce: impl FnOnce(&mut dyn FnMut(T) -> ControlFlow<()>) -> Result<(), E> + Send,
    work: impl Fn(T) -> R + Sync,
    mut consume: impl FnMut(R) -> Result<(), E>,
) -> Result<(), E> {
    let threads = threads.max(1);
    std::thread::scope(|scope| {
        let (to_consumer, results) = sync_channel::<Receiver<R>>(threads);
        let (to_workers, queue) = sync_channel::<(T, SyncSender<R>)>(threads);
        // Owned by the threads alone: when they are gone, the producer notices.
        let queue = std::sync::Arc::new(Mutex::new(queue));
        let producer = scope.spawn(move || {
            produce(&mut |item| {
                let (answer, result) = sync_channel(1);
                let wanted = to_consumer.send(result).is_ok() && to_workers.send((item, answer)).is_ok();
                if wanted { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })
        });
        for _ in 0..threads {
            let (queue, work) = (std::sync::Arc::clone(&queue), &work);
            scope.spawn(move || {
                loop {
                    // Held while it waits: the others wait for the lock instead of the queue.
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok((item, answer)) = next else { return };
                    // Nobody waits for it where the consumer has given up.
                    drop(answer.send(work(item)));
                }
            });
        }
        drop(queue);
        let mut outcome = Ok(());
        for result in &results {
            // No answer: the thread that had the work panicked, and the scope passes that on.
            let Ok(result) = result.recv() else { break };
            outcome = consume(result);
            if outcome.is_err() {
                break;
            }
        }
        drop(results);
        match producer.join() {
            Ok(produced) => outcome.and(produced),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(
        upto: u64,
    ) -> impl FnOnce(&mut dyn FnMut(u64) -> ControlFlow<()>) -> Result<(), String> + Send {
        move |give| {
            for n in 0..upto {
                if give(n).is_break() {
                    return Ok(());
                }
            }
            Ok(())
        }
    }

    #[test]
    fn results_come_in_the_order_of_the_work_whoever_is_faster() {
        let mut seen = Vec::new();
        let slow_first = |n: u64| {
            if n.is_multiple_of(7) {
                std::thread::yield_now();
            }
            n * 2
        };
        in_order(4, numbers(1000), slow_first, |n| {
            seen.push(n);
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, (0..1000).map(|n| n * 2).collect::<Vec<_>>());
    }

    #[test]
    fn the_first_error_ends_everything_on_either_side() {
        let mut taken = 0;
        let stop = |n: u64| if n == 10 { Err("full".to_owned()) } else { Ok(()) };
        let ended = in_order(
            3,
            numbers(u64::MAX),
            |n| n,
            |n| {
                taken += 1;
                stop(n)
            },
        );
        assert_eq!((ended, taken), (Err("full".to_owned()), 11));
        let broken = |give: &mut dyn FnMut(u64) -> ControlFlow<()>| {
            assert!(give(1).is_continue());
            Err("the listing broke off".to_owned())
        };
        let mut seen = Vec::new();
        let ended = in_order(
            2,
            broken,
            |n| n,
            |n| {
                seen.push(n);
                Ok(())
            },
        );
        assert_eq!((ended, seen), (Err("the listing broke off".to_owned()), vec![1]));
    }
}
