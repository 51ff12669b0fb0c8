//! What systemd is told (sd_notify(3)): ready, reloading, stopping, a line of status, and that the gate is not stuck.
//!
//! Without `$NOTIFY_SOCKET`, which systemd sets for `Type=notify`, nothing is sent.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};
use tracing::debug;

use super::manager_socket::{self, send};
use crate::control::Context;
use crate::model::text::counted;

/// How often the line of status is compared with what was sent.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);

/// How much longer than `timeouts.drain` a stop may take: connections that are cut end after this.
const AFTER_DRAIN: Duration = Duration::from_secs(15);

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// It started, or has ended a reload.
    Ready,
    /// It loads its configuration again.
    Reloading,
    /// It ends, and open connections have this long.
    Stopping { drain: Duration },
    /// What `systemctl status` shows.
    Status(String),
    /// It is not stuck.
    Alive,
    /// Another process is the service from now on. This one sends nothing any more.
    Replaced { by: u32 },
}

/// Whether another process is the service.
static REPLACED: AtomicBool = AtomicBool::new(false);

/// Connects to the service manager's socket, before a sandbox forbids that.
pub(crate) fn connect() {
    if let Err(error) = manager_socket::connect() {
        debug!(%error, "the service manager cannot be told anything");
    }
}

/// Sends a message. The socket may be full if systemd is stuck: no worker waits for that.
pub(crate) async fn tell(message: Message) {
    let was_replaced = match message {
        Message::Replaced { .. } => REPLACED.swap(true, Ordering::SeqCst),
        _ => REPLACED.load(Ordering::SeqCst),
    };
    if was_replaced || std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    let sent = tokio::task::spawn_blocking(move || match message {
        Message::Ready => send(&[NotifyState::Ready]),
        // In one message: systemd takes neither without the other.
        Message::Reloading => send(&[NotifyState::Reloading, NotifyState::monotonic_usec_now()?]),
        Message::Stopping { drain } => {
            let longer = u32::try_from((drain + AFTER_DRAIN).as_micros()).unwrap_or(u32::MAX);
            send(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(longer)])
        }
        Message::Status(text) => send(&[NotifyState::Status(&text)]),
        Message::Alive => send(&[NotifyState::Watchdog]),
        Message::Replaced { by } => send(&[NotifyState::MainPid(by)]),
    });
    // There is no other way to say that this one fails.
    let _ = sent.await;
}

/// Counts while a thread of its own serves its tasks.
#[derive(Debug, Default)]
pub(crate) struct Heartbeat {
    beats: AtomicU64,
}

impl Heartbeat {
    /// Counts. Does not return.
    pub(crate) async fn beat(self: Arc<Self>) {
        let mut ticks = interval(every().map_or(STATUS_INTERVAL, |every| every / 4));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.beats.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// How often systemd is told that the gate is not stuck: three times in the time after which it would restart the gate.
fn every() -> Option<Duration> {
    // A service manager does not write 0; there is no such interval.
    sd_notify::watchdog_enabled().filter(|within| !within.is_zero()).map(|within| within / 3)
}

/// Reports status and liveness. Does not return.
///
/// The runtime of the connections runs this task: if all of its workers are stuck, it does not run. `control` counts on the
/// thread of the control socket, which takes rights away: if that one is stuck, nothing is sent.
pub(crate) async fn report(context: Arc<Context>, control: Option<Arc<Heartbeat>>) {
    let feed = every();
    let mut told = String::new();
    let alive = feed.is_some();
    watch_over(feed.map_or(STATUS_INTERVAL, |feed| feed.min(STATUS_INTERVAL)), control, move |moves| {
        let text = status(&context);
        let changed = (text != told).then(|| Message::Status(text.clone()));
        told = text;
        let messages = changed.into_iter().chain((moves && alive).then_some(Message::Alive)).collect::<Vec<_>>();
        async move {
            for message in messages {
                tell(message).await;
            }
        }
    })
    .await;
}

/// Calls `send` in each period, with whether `other` has counted since the call before.
async fn watch_over<F: Future<Output = ()>>(
    period: Duration,
    other: Option<Arc<Heartbeat>>,
    mut send: impl FnMut(bool) -> F,
) {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = None;
    loop {
        ticks.tick().await;
        let now = other.as_ref().map(|other| other.beats.load(Ordering::Relaxed));
        send(now.is_none() || now != before).await;
        before = now;
    }
}

/// Sessions, and what is wrong.
fn status(context: &Context) -> String {
    let gate = &context.gate;
    let (_, sessions) = gate.sessions.newest(0);
    let mut text = counted(sessions as u64, "open connection");
    if gate.draining.is_cancelled() {
        text.push_str("; stopping");
    }
    // Writing to a String cannot fail.
    if let Some(error) = gate.log.error() {
        let _ = write!(text, "; the log cannot be written: {}", error.what.lines().next().unwrap_or_default());
    }
    if !context.reloader.current().borrow().errors.is_empty() {
        text.push_str("; the latest reload was refused, see doorward status");
    }
    let earlier = context.earlier.all().len();
    if earlier > 0 {
        let _ = write!(text, "; more in {earlier} earlier {}", if earlier == 1 { "process" } else { "processes" });
    }
    if let Some(error) = context.upgrades.error() {
        let _ = write!(text, "; the latest upgrade failed: {}", error.lines().next().unwrap_or_default());
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const PERIOD: Duration = Duration::from_millis(100);

    /// A runtime with one worker that runs `watch_over`, and the times at which it sends that all is well.
    fn watched(other: Option<Arc<Heartbeat>>) -> (tokio::runtime::Runtime, mpsc::Receiver<()>) {
        let (sender, sent) = mpsc::channel();
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_time().build().expect("a runtime");
        runtime.spawn(watch_over(PERIOD, other, move |moves| {
            if moves {
                let _ = sender.send(());
            }
            std::future::ready(())
        }));
        (runtime, sent)
    }

    fn is_fed(sent: &mpsc::Receiver<()>) -> bool {
        while sent.try_recv().is_ok() {}
        sent.recv_timeout(25 * PERIOD).is_ok()
    }

    #[test]
    fn runtime_whose_workers_are_stuck_is_not_reported_alive() {
        let (runtime, sent) = watched(None);
        assert!(is_fed(&sent));
        let (release, stuck) = mpsc::channel::<()>();
        let (begin, begun) = mpsc::channel();
        runtime.spawn(async move {
            let _ = begin.send(());
            // Blocks the worker, as a bug would.
            let _ = stuck.recv();
        });
        begun.recv().expect("it blocks");
        assert!(!is_fed(&sent));
        drop(release);
        assert!(is_fed(&sent));
    }

    #[test]
    fn stuck_control_thread_is_not_reported_alive() {
        let control = Arc::<Heartbeat>::default();
        let (runtime, sent) = watched(Some(Arc::clone(&control)));
        assert!(is_fed(&sent), "the first time nothing is known");
        while sent.recv_timeout(25 * PERIOD).is_ok() {}
        assert!(!is_fed(&sent));
        control.beats.fetch_add(1, Ordering::Relaxed);
        assert!(is_fed(&sent));
        assert!(!is_fed(&sent));
        drop(runtime);
    }
}
