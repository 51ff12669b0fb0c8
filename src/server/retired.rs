//! What a process does after another one has replaced it: its sessions live on until they end.

use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Stopped;
use super::upgrade::send_text;
use crate::control::Context;
use crate::gate::Gate;
use crate::handover::{Channel, ToPredecessor, ToSuccessor};
use crate::model::close::CloseReason;
use crate::relay::Order;
use crate::reload::TaskThread;

/// How long the answers are waited for that are under way when the last connection has ended.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Waits until all connections have ended, and cuts the rest at `until` or when `now` is cancelled. Meanwhile the new process
/// asks over `channel` what its control socket is asked.
///
/// If the new process ends, the rest is cut at once: rights that are taken away could not be taken away here.
pub(super) async fn run(
    context: &Arc<Context>,
    channel: Channel,
    connections: TaskTracker,
    until: Instant,
    now: CancellationToken,
) -> Stopped {
    let (gone, answers) = (CancellationToken::new(), TaskTracker::new());
    let requests = channel.duplicate();
    let answering = {
        let (context, gone, answers) = (Arc::clone(context), gone.clone(), answers.clone());
        async move {
            // Registered with the runtime that serves it.
            if let Ok(channel) = requests.and_then(Channel::new) {
                serve(channel, context, answers).await;
            }
            gone.cancel();
        }
    };
    // As that of the control socket, so that connections cannot delay a revocation.
    let (mut thread, mut task) = (None, JoinSet::new());
    match TaskThread::start("control") {
        Ok(new) => thread = Some(new.run(answering).await),
        Err(_) => drop(task.spawn(answering)),
    }
    connections.close();
    let ended = tokio::select! {
        ended = timeout_at(until, connections.wait()) => ended.is_ok(),
        () = now.cancelled() => false,
        () = gone.cancelled() => false,
    };
    let mut cut = 0;
    if !ended {
        cut = connections.len();
        context.gate.draining.cancel();
        cut_all(&context.gate, &connections).await;
    }
    // The request that has cut the last connection is answered, too.
    answers.close();
    let _ = timeout(ANSWER_TIMEOUT, answers.wait()).await;
    // Its last word.
    let _ = send_text(&channel, &ToSuccessor::Final, &context.gate.metrics.render()).await;
    drop((thread, task));
    Stopped { cut }
}

/// Cuts every session.
pub(super) async fn cut_all(gate: &Gate, connections: &TaskTracker) {
    gate.sessions.end_all(&Order { reason: CloseReason::DrainDeadline, cause: None, at: Instant::now() });
    // Each session ends when its task runs next.
    let _ = timeout(Duration::from_secs(5), connections.wait()).await;
}

/// Answers requests until the other process has ended.
async fn serve(channel: Channel, context: Arc<Context>, answers: TaskTracker) {
    let mut requests = JoinSet::new();
    while let Ok(Some((ToPredecessor::Request, Some(stream)))) = channel.receive().await {
        while requests.try_join_next().is_some() {}
        let stream = StdUnixStream::from(stream);
        if stream.set_nonblocking(true).is_ok()
            && let Ok(stream) = UnixStream::from_std(stream)
        {
            let context = Arc::clone(&context);
            requests.spawn(answers.track_future(async move { context.serve(stream, true).await }));
        }
    }
}
