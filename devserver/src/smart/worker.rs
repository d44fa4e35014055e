//! A thread of its own for what keeps a core busy.
//!
//! Neither the runtime's workers nor its pool for blocking work (which files need) may be held up by a SmartModule, and one
//! that never returns must not keep the server from ending: nobody waits for this thread. What was handed to it is done in
//! order; it ends when its [`Worker`] is dropped and its job is done.

use std::sync::mpsc;
use std::thread;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error("the engine's thread cannot be started: {0}")]
    Start(#[from] std::io::Error),
    #[error("the engine has panicked")]
    Panicked,
}

/// A thread that owns a `T`.
pub(super) struct Worker<T> {
    jobs: mpsc::Sender<Job<T>>,
}

type Job<T> = Box<dyn FnOnce(&mut T) + Send>;

impl<T: 'static> Worker<T> {
    /// Starts a thread and makes its `T` there.
    pub(super) async fn start<E>(
        make: impl FnOnce() -> Result<T, E> + Send + 'static,
    ) -> Result<Result<Self, E>, Failed>
    where
        E: Send + 'static,
    {
        let (jobs, waiting) = mpsc::channel::<Job<T>>();
        let (made, is_made) = oneshot::channel();
        let runtime = Handle::current();
        thread::Builder::new().name("smartmodule".to_owned()).spawn(move || {
            // A job may wait for a file to be read.
            let _within = runtime.enter();
            let mut owned = match make() {
                Ok(owned) => owned,
                Err(error) => return drop(made.send(Err(error))),
            };
            if made.send(Ok(())).is_ok() {
                waiting.iter().for_each(|job| job(&mut owned));
            }
        })?;
        let made = is_made.await.map_err(|_| Failed::Panicked)?;
        Ok(made.map(|()| Worker { jobs }))
    }

    /// Has `job` done. It can ask whether its result is still wanted: it is not once the returned future is dropped.
    pub(super) async fn run<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut T, &dyn Fn() -> bool) -> R + Send + 'static,
    ) -> Result<R, Failed> {
        let (done, result) = oneshot::channel();
        let job: Job<T> = Box::new(move |owned| {
            let result = job(owned, &|| !done.is_closed());
            // Nobody may be waiting any more.
            let _ = done.send(result);
        });
        self.jobs.send(job).map_err(|_| Failed::Panicked)?;
        result.await.map_err(|_| Failed::Panicked)
    }
}

#[cfg(test)]
mod tests {
    // Does not run the panic hook, by which another test of this process counts panics.
    use std::panic::resume_unwind;

    use super::*;

    async fn counter() -> Worker<u32> {
        Worker::start(|| Ok::<_, ()>(0)).await.expect("a thread").expect("a counter")
    }

    #[tokio::test]
    async fn jobs_are_done_in_order_and_share_what_the_thread_owns() {
        let worker = counter().await;
        for expected in 1..=100 {
            let count = worker.run(|count, _| {
                *count += 1;
                *count
            });
            assert_eq!(count.await.expect("a result"), expected);
        }
    }

    #[tokio::test]
    async fn what_cannot_be_made_is_reported() {
        let worker = Worker::<u32>::start(|| Err("no")).await.expect("a thread");
        assert_eq!(worker.err(), Some("no"));
    }

    #[tokio::test]
    async fn a_panic_is_an_error_then_and_later() {
        let worker = counter().await;
        let panicked = worker.run(|_, _| resume_unwind(Box::new("on purpose"))).await;
        assert!(matches!(panicked, Err::<(), _>(Failed::Panicked)));
        assert!(matches!(worker.run(|count, _| *count).await, Err(Failed::Panicked)));
    }

    #[tokio::test]
    async fn a_job_learns_that_nobody_wants_its_result() {
        let worker = counter().await;
        let unwanted = worker.run(|count, wanted| {
            while wanted() {
                thread::yield_now();
            }
            *count = 1;
        });
        drop(tokio::time::timeout(std::time::Duration::from_millis(1), unwanted).await);
        assert_eq!(worker.run(|count, _| *count).await.expect("a result"), 1);
    }
}
