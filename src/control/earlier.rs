//! Processes that upgrades have left, and what they answer.
//!
//! Each is asked over a stream of its own, which is handed to it over the channel of the upgrade: there it is served like a
//! connection of the control socket.

use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::{ANSWER_MAX, Answer, Request};
use crate::handover::{Channel, Process, ToPredecessor, ToSuccessor};
use crate::telemetry::metrics::Metrics;

/// The most processes that may be left at once: each has memory of its own.
pub(crate) const MAX: usize = 4;

/// How often their counters are asked for.
const COUNTERS_INTERVAL: Duration = Duration::from_secs(1);

/// For an answer; shorter than the client of the control socket waits.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(8);
const LIST_TIMEOUT: Duration = Duration::from_secs(50);
const RELOAD_TIMEOUT: Duration = Duration::from_secs(120);

/// For an answer that says no more than that a process is not stuck.
const ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the end of a process is waited for that does not answer.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// An answer of an earlier process, or why it gives none.
pub(super) type EarlierAnswer = (Process, Result<Answer, String>);

/// The processes that upgrades have left, the oldest first.
#[derive(Debug)]
pub(crate) struct EarlierProcesses {
    processes: watch::Sender<Vec<Arc<Earlier>>>,
    metrics: Arc<Metrics>,
}

/// A process that an upgrade has left.
#[derive(Debug)]
pub(crate) struct Earlier {
    pub(crate) process: Process,
    channel: Channel,
    /// The task that follows it.
    following: Mutex<Option<AbortHandle>>,
}

impl EarlierProcesses {
    /// None, for a gate with these metrics.
    pub(crate) fn none(metrics: Arc<Metrics>) -> Self {
        Self { processes: watch::Sender::new(Vec::new()), metrics }
    }

    /// Adds a process, and follows it until it ends. `counters` are those that it had last.
    pub(crate) fn add(self: &Arc<Self>, process: Process, channel: Channel, counters: &str) {
        self.metrics.count_earlier(process.pid, counters);
        let earlier = Arc::new(Earlier { process, channel, following: Mutex::default() });
        self.processes.send_modify(|processes| processes.push(Arc::clone(&earlier)));
        let (all, followed) = (Arc::clone(self), Arc::clone(&earlier));
        let task = tokio::spawn(async move {
            let counters = tokio::select! {
                counters = followed.end() => counters,
                () = followed.count(&all.metrics) => None,
            };
            all.metrics.earlier_ended(followed.process.pid, counters.as_deref());
            all.processes.send_modify(|processes| processes.retain(|other| !Arc::ptr_eq(other, &followed)));
        });
        *earlier.following.lock().unwrap_or_else(PoisonError::into_inner) = Some(task.abort_handle());
    }

    /// Those that have not ended.
    pub(crate) fn all(&self) -> Vec<Arc<Earlier>> {
        self.processes.borrow().clone()
    }

    /// Stops following them, because another process does so from now on.
    pub(crate) fn hand_over(&self) -> Vec<Arc<Earlier>> {
        let all = self.processes.send_replace(Vec::new());
        for earlier in &all {
            if let Some(task) = &*earlier.following.lock().unwrap_or_else(PoisonError::into_inner) {
                task.abort();
            }
        }
        all
    }

    /// Waits until all have ended.
    pub(crate) async fn ended(&self) {
        // The sender is not dropped while it is borrowed.
        let _ = self.processes.subscribe().wait_for(Vec::is_empty).await;
    }

    /// How many sessions they serve, as far as they answer.
    pub(crate) async fn sessions(&self) -> usize {
        let answers = self.ask(&Request::Status, &[]).await;
        answers
            .iter()
            .map(|(_, answer)| if let Ok(Answer::Status(status)) = answer { status.sessions } else { 0 })
            .sum()
    }

    /// Has them load their configuration. Their log lines say what they have cut.
    pub(crate) async fn reload(&self) {
        self.ask(&Request::Reload, &[]).await;
    }

    /// Whether there are any, and this request concerns them.
    pub(super) fn are_concerned(&self, request: &Request) -> bool {
        let concerns = match request {
            Request::Status
            | Request::Sessions { .. }
            | Request::Why { .. }
            | Request::Reload
            | Request::Cut { .. }
            | Request::CutAll
            | Request::TakeList { .. } => true,
            // Without an authority, it is about server certificates, which only new connections see.
            Request::InForce { authority_bytes } => *authority_bytes > 0,
            // What they do is in the files as well.
            Request::Upgrade
            | Request::Counters
            | Request::History { .. }
            | Request::Certificates
            | Request::RenewCertificate => false,
        };
        concerns && !self.processes.borrow().is_empty()
    }

    /// Sends a request to each, with data behind it. A process that has ended meanwhile is left out: it serves no session.
    pub(super) async fn ask(&self, request: &Request, payload: &[&[u8]]) -> Vec<EarlierAnswer> {
        let mut asked = Vec::new();
        // At once, not one after another: what takes a right away is not to wait for the slowest.
        let all = self.all();
        for answer in results(all.iter().map(|earlier| earlier.ask(request, payload))).await {
            asked.push(answer);
        }
        let mut answers = Vec::new();
        for (earlier, answer) in all.into_iter().zip(asked) {
            if answer.is_err() {
                let gone = |all: &Vec<Arc<Earlier>>| !all.iter().any(|other| Arc::ptr_eq(other, &earlier));
                if timeout(END_TIMEOUT, self.processes.subscribe().wait_for(gone)).await.is_ok() {
                    continue;
                }
            }
            answers.push((earlier.process.clone(), answer.map_err(|error| error.to_string())));
        }
        answers
    }
}

/// Runs futures at once, and returns their results in order.
async fn results<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        let mut done = true;
        for (future, result) in running.iter_mut().filter(|(_, result)| result.is_none()) {
            match future.as_mut().poll(context) {
                std::task::Poll::Ready(value) => *result = Some(value),
                std::task::Poll::Pending => done = false,
            }
        }
        if done { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    running.into_iter().filter_map(|(_, result)| result).collect()
}

impl Earlier {
    /// The channel to it.
    pub(crate) const fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Waits for its end. Returns its last counters, unless it was killed.
    async fn end(&self) -> Option<String> {
        let mut last = None;
        while let Ok(Some((message, descriptor))) = self.channel.receive::<ToSuccessor>().await {
            if let (ToSuccessor::Final, Some(descriptor)) = (message, descriptor) {
                last = read_all(descriptor.into()).await.ok();
            }
        }
        last
    }

    /// Asks for its counters now and then. Does not return.
    async fn count(&self, metrics: &Metrics) {
        let mut ticks = interval(COUNTERS_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Ok(Answer::Counters(counters)) = self.ask(&Request::Counters, &[]).await {
                metrics.count_earlier(self.process.pid, &counters);
            }
        }
    }

    async fn ask(&self, request: &Request, payload: &[&[u8]]) -> io::Result<Answer> {
        let within = match request {
            Request::Reload => RELOAD_TIMEOUT,
            Request::TakeList { .. } => LIST_TIMEOUT,
            _ => ANSWER_TIMEOUT,
        };
        if within > ANSWER_TIMEOUT {
            // While it works on such a request it answers others. One that is stuck is not waited for as long.
            self.ask_within(ALIVE_TIMEOUT, &Request::Status, &[]).await?;
        }
        self.ask_within(within, request, payload).await
    }

    async fn ask_within(&self, within: Duration, request: &Request, payload: &[&[u8]]) -> io::Result<Answer> {
        timeout(within, async {
            let (stream, theirs) = UnixStream::pair()?;
            self.channel.send(&ToPredecessor::Request, Some(theirs.as_fd())).await?;
            drop(theirs);
            exchange(stream, request, payload).await
        })
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

/// Sends a request over a stream that is served like a connection of the control socket.
pub(crate) async fn exchange(mut stream: UnixStream, request: &Request, payload: &[&[u8]]) -> io::Result<Answer> {
    let mut line = serde_json::to_vec(request).map_err(io::Error::other)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    for part in payload {
        stream.write_all(part).await?;
    }
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX as u64).read_to_end(&mut answer).await?;
    if answer.is_empty() {
        return Err(io::Error::other("it has closed the connection without an answer"));
    }
    serde_json::from_slice(&answer).map_err(|_| io::Error::other("its answer is not understood"))
}

/// The text in a stream.
pub(crate) async fn read_all(stream: std::os::unix::net::UnixStream) -> io::Result<String> {
    const TIMEOUT: Duration = Duration::from_secs(10);
    const MAX: u64 = 64 * 1024 * 1024;
    stream.set_nonblocking(true)?;
    let stream = UnixStream::from_std(stream)?;
    let mut text = String::new();
    timeout(TIMEOUT, stream.take(MAX).read_to_string(&mut text)).await??;
    Ok(text)
}
