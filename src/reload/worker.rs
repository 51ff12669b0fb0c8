//! Threads of their own for what takes rights away: no name look-up, and no number of connections, can take their place.

use std::any::Any;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

type Job = Box<dyn FnOnce() + Send>;
type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How long the start and the end of the gate wait for what runs on a [`Lane`].
const PATIENCE: Duration = Duration::from_secs(2);

/// A thread that does one job after the other. It ends with the last handle.
#[derive(Debug)]
pub(super) struct Worker(mpsc::Sender<Job>);

impl Worker {
    pub(super) fn start(name: &str) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            while let Ok(job) = queue.recv() {
                // A job that panics is answered by its sender being dropped.
                let _: Result<(), Box<dyn Any + Send>> = catch_unwind(AssertUnwindSafe(job));
            }
        })?;
        Ok(Self(jobs))
    }

    /// Has a job done, and waits for what comes of it: nothing if it panicked. It is done even if this is dropped.
    pub(super) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let job = move || drop(answer.send(work()));
        self.0.send(Box::new(job)).ok()?;
        answered.await.ok()
    }
}

/// A thread with a runtime of its own for one future that lasts as long as the gate.
pub(crate) struct Lane {
    work: oneshot::Sender<Work>,
    over: CancellationToken,
    ended: oneshot::Receiver<()>,
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane").finish_non_exhaustive()
    }
}

impl Lane {
    /// Starts the thread; it waits for its work.
    pub(crate) fn start(name: &str) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (work, waiting) = oneshot::channel::<Work>();
        let (end, ended) = oneshot::channel();
        let over = CancellationToken::new();
        let stop = over.clone();
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            runtime.block_on(async move {
                if let Ok(work) = waiting.await {
                    stop.run_until_cancelled(work).await;
                }
            });
            // What still waits for a file system is not waited for.
            runtime.shutdown_background();
            let _ = end.send(());
        })?;
        Ok(Self { work, over, ended })
    }

    /// Gives it its work, and waits a little until that has begun. What is returned ends it.
    pub(crate) async fn run(self, work: impl Future<Output = ()> + Send + 'static) -> Running {
        let Self { work: thread, over, ended } = self;
        let (begin, begun) = oneshot::channel();
        let work = async move {
            // The start may have stopped waiting.
            let told = async { begin.send(()).unwrap_or_default() };
            tokio::join!(biased; work, told);
        };
        // A thread that is gone has panicked, and said so.
        let _ = thread.send(Box::pin(work));
        let _ = timeout(PATIENCE, begun).await;
        Running { over: over.drop_guard(), ended }
    }
}

/// What runs on a [`Lane`], until this is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    over: DropGuard,
    ended: oneshot::Receiver<()>,
}

impl Running {
    /// Drops the work, and waits a little until that is done.
    pub(crate) async fn end(self) {
        drop(self.over);
        let _ = timeout(PATIENCE, self.ended).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_worker_goes_on_after_a_job_that_panics() {
        let worker = Worker::start("test").expect("a thread");
        assert_eq!(worker.run(|| panic!("a parser stumbles")).await, None::<()>);
        assert_eq!(worker.run(|| 7).await, Some(7));
    }

    #[tokio::test]
    async fn a_lane_runs_until_it_is_ended() {
        let (told, hears) = oneshot::channel();
        let running = Lane::start("test").expect("a thread").run(async {
            let _ = told.send(thread::current().name().map(str::to_owned));
            std::future::pending().await
        });
        let running = running.await;
        assert_eq!(hears.await.expect("it runs").as_deref(), Some("test"));
        running.end().await;
    }
}
