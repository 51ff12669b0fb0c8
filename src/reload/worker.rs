//! Threads for reloads, lists, the file watch and the control socket. Connections and name look-ups have others, so that
//! they cannot delay a revocation.

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
type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How long the start and the end of the gate wait for a [`TaskThread`].
const START_STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// A thread that runs one job after another. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Worker(mpsc::Sender<Job>);

impl Worker {
    pub(super) fn start(name: &str) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            while let Ok(job) = queue.recv() {
                // A panic drops the sender of the answer, and `run` returns `None`.
                let _: Result<(), Box<dyn Any + Send>> = catch_unwind(AssertUnwindSafe(job));
            }
        })?;
        Ok(Self(jobs))
    }

    /// Runs a job and returns its result; `None` if it panicked. The job is done even if this future is dropped.
    pub(super) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let job = move || drop(answer.send(work()));
        self.0.send(Box::new(job)).ok()?;
        answered.await.ok()
    }
}

/// A thread with a runtime of its own, for one task that runs as long as the gate.
pub(crate) struct TaskThread {
    task: oneshot::Sender<Task>,
    stop: CancellationToken,
    ended: oneshot::Receiver<()>,
}

impl fmt::Debug for TaskThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskThread").finish_non_exhaustive()
    }
}

impl TaskThread {
    /// Starts the thread, which waits for its task.
    pub(crate) fn start(name: &str) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (task, waiting) = oneshot::channel::<Task>();
        let (end, ended) = oneshot::channel();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            runtime.block_on(async move {
                if let Ok(task) = waiting.await {
                    stopped.run_until_cancelled(task).await;
                }
            });
            // Blocking file access may hang: it is not waited for.
            runtime.shutdown_background();
            let _ = end.send(());
        })?;
        Ok(Self { task, stop, ended })
    }

    /// Starts the task, and waits until it has begun. Dropping the result ends it.
    pub(crate) async fn run(self, task: impl Future<Output = ()> + Send + 'static) -> RunningTask {
        let Self { task: thread, stop, ended } = self;
        let (begin, begun) = oneshot::channel();
        let task = async move {
            // The receiver is gone if the start stopped waiting.
            let begun = async { begin.send(()).unwrap_or_default() };
            tokio::join!(biased; task, begun);
        };
        // If the thread has panicked, it has said so.
        let _ = thread.send(Box::pin(task));
        let _ = timeout(START_STOP_TIMEOUT, begun).await;
        RunningTask { stop: stop.drop_guard(), ended }
    }
}

/// The task of a [`TaskThread`]. Dropping it ends the task.
#[derive(Debug)]
pub(crate) struct RunningTask {
    stop: DropGuard,
    ended: oneshot::Receiver<()>,
}

impl RunningTask {
    /// Waits a moment for a task that is about to end, then ends it.
    pub(crate) async fn finish(self) {
        let Self { stop, ended } = self;
        let _ = timeout(START_STOP_TIMEOUT, ended).await;
        drop(stop);
    }

    /// Ends the task, and waits until it has been dropped.
    pub(crate) async fn end(self) {
        drop(self.stop);
        let _ = timeout(START_STOP_TIMEOUT, self.ended).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn worker_survives_a_panicking_job() {
        let worker = Worker::start("test").expect("a thread");
        assert_eq!(worker.run(|| panic!("a parser stumbles")).await, None::<()>);
        assert_eq!(worker.run(|| 7).await, Some(7));
    }

    #[tokio::test]
    async fn task_thread_runs_until_it_is_ended() {
        let (name, received) = oneshot::channel();
        let running = TaskThread::start("test").expect("a thread").run(async {
            let _ = name.send(thread::current().name().map(str::to_owned));
            std::future::pending().await
        });
        let running = running.await;
        assert_eq!(received.await.expect("it runs").as_deref(), Some("test"));
        running.end().await;
    }
}
