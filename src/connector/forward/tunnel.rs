//! One route on one local address.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use time::OffsetDateTime;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::Log;
use crate::connector::dial::{self, Connected};
use crate::connector::platform::{Listener, Local};
use crate::connector::remote::Remote;
use crate::connector::session::{self, End, Moved};
use crate::connector::source::{Change, Pinned, Source};
use crate::model::text::{counted, in_words};

/// The most sessions of a route: a program that has lost its head must not take all descriptors.
const SESSIONS_MAX: usize = 256;

/// How long a connection is held while the network is away, as after a sleep: the local program sees a slow server instead of a
/// dead one.
const PATIENCE: Duration = Duration::from_secs(20);

/// The first and the longest pause between attempts after failures. The gate bans networks that are refused too often.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(15));

/// How long the same message is not repeated.
const QUIET: Duration = Duration::from_secs(60);

/// One route on one local address.
pub(super) struct Tunnel {
    pub(super) pinned: Pinned,
    open: AtomicU64,
    sessions: AtomicU64,
    moved: Arc<Moved>,
    trouble: Mutex<Trouble>,
}

#[derive(Default)]
struct Trouble {
    failures: u32,
    /// No attempt before this.
    pause: Option<Instant>,
    last: Option<(OffsetDateTime, String)>,
    said: Option<(Instant, String)>,
}

impl Tunnel {
    pub(super) fn new(pinned: Pinned) -> Self {
        let (open, sessions) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { pinned, open, sessions, moved: Arc::default(), trouble: Mutex::default() }
    }

    fn trouble(&self) -> std::sync::MutexGuard<'_, Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lines about it.
    pub(super) fn status(&self, local: &str) -> String {
        let Self { pinned: Pinned { shown: route, .. }, moved, .. } = self;
        let [open, sessions] = [&self.open, &self.sessions].map(|count| count.load(Ordering::Relaxed));
        let mut text = format!(
            "{route} on {local}: {open} open, {} since the start, {} bytes sent, {} received\n",
            counted(sessions, "session"),
            moved.to_gate(),
            moved.from_gate()
        );
        if let Some((when, what)) = &self.trouble().last {
            let ago = in_words((OffsetDateTime::now_utc() - *when).whole_seconds());
            text += &format!("  failed {ago} ago: {}\n", what.replace('\n', "\n  "));
        }
        text
    }

    fn failed(&self, text: &str, log: &Log) {
        let mut trouble = self.trouble();
        trouble.failures = trouble.failures.saturating_add(1);
        let (first, longest) = PAUSE;
        let pause = first.saturating_mul(1 << trouble.failures.min(10).saturating_sub(1)).min(longest);
        trouble.pause = Some(Instant::now() + pause);
        trouble.last = Some((OffsetDateTime::now_utc(), text.to_owned()));
        drop(trouble);
        self.say(text, log);
    }

    /// Says something, unless it was the last that was said, a moment ago.
    fn say(&self, text: &str, log: &Log) {
        let mut trouble = self.trouble();
        let now = Instant::now();
        if trouble.said.as_ref().is_some_and(|(when, said)| said == text && now < *when + QUIET) {
            return;
        }
        trouble.said = Some((now, text.to_owned()));
        drop(trouble);
        log(&format!("{}: {text}", self.pinned.shown));
    }

    /// A session that worked was cut: the next attempt need not wait.
    fn cut(&self, text: &str, log: &Log) {
        let mut trouble = self.trouble();
        (trouble.failures, trouble.pause) = (0, None);
        trouble.last = Some((OffsetDateTime::now_utc(), text.to_owned()));
        drop(trouble);
        self.say(text, log);
    }

    /// The gate has admitted the device.
    fn works(&self) {
        *self.trouble() = Trouble::default();
    }
}

/// Accepts connections until the program is to stop, and then waits for the sessions.
pub(super) async fn listen(
    listener: Listener,
    tunnel: Arc<Tunnel>,
    source: Arc<Source>,
    log: Log,
    mut stopped: watch::Receiver<bool>,
) {
    let mut sessions = JoinSet::new();
    let slots = Arc::new(Semaphore::new(SESSIONS_MAX));
    let mut stop = stopped.clone();
    let accepting = async {
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok(local) => {
                        let (tunnel, source, log) = (Arc::clone(&tunnel), Arc::clone(&source), Arc::clone(&log));
                        let stopped = stopped.clone();
                        sessions.spawn(async move {
                            serve(local, &tunnel, &source, &log, stopped).await;
                            drop(slot);
                        });
                    }
                    // Too many open files, as a rule: it passes when sessions end.
                    Err(error) => {
                        tunnel.say(&format!("cannot accept a connection: {error}"), &log);
                        sleep(PAUSE.0).await;
                    }
                },
                Some(_) = sessions.join_next() => {}
            }
        }
    };
    tokio::select! {
        () = accepting => {}
        _ = stop.wait_for(|stopped| *stopped) => {}
    }
    drop(listener);
    let _ = stopped.wait_for(|stopped| *stopped).await;
    while sessions.join_next().await.is_some() {}
}

async fn serve(mut local: Local, tunnel: &Tunnel, source: &Source, log: &Log, mut stopped: watch::Receiver<bool>) {
    tunnel.open.fetch_add(1, Ordering::Relaxed);
    tunnel.sessions.fetch_add(1, Ordering::Relaxed);
    let open = scopeguard::guard(&tunnel.open, |open| {
        open.fetch_sub(1, Ordering::Relaxed);
    });
    let mut stop = stopped.clone();
    let connected = tokio::select! {
        connected = connect(tunnel, source, log) => connected,
        _ = stop.wait_for(|stopped| *stopped) => None,
    };
    let Some((remote, Connected { stream, address })) = connected else {
        local.abort();
        return;
    };
    let stop = async move {
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    let moved = Moved::part_of(Arc::clone(&tunnel.moved));
    let end = session::run((&mut local.reader, &mut local.writer), stream, &remote.tls, &moved, stop).await;
    drop(open);
    let now = OffsetDateTime::now_utc();
    match end {
        End::Refused(fault) => {
            local.abort();
            tunnel.failed(&remote.facts.fault(address, &fault, now), log);
        }
        End::Cut(fault) => {
            local.abort();
            tunnel.cut(&remote.facts.cut(address, &fault, now), log);
        }
        // The program's own doing: it is not told.
        End::Local(_) => {
            local.abort();
            tunnel.works();
        }
        End::Orderly | End::Stopped => tunnel.works(),
    }
}

/// Connects to the gate; while it cannot be reached, again and again for a while.
async fn connect(tunnel: &Tunnel, source: &Source, log: &Log) -> Option<(Remote, Connected)> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let pause = tunnel.trouble().pause;
        if let Some(pause) = pause {
            sleep_until(pause.min(deadline)).await;
        }
        match source.refresh() {
            Change::None => {}
            Change::Reloaded => log("the files of this device have changed: new connections use them"),
            Change::Kept(error) => log(&format!("the files of this device were not taken over: {error}")),
        }
        let remote = match source.remote(&tunnel.pinned) {
            Ok(remote) => remote,
            Err(error) => {
                tunnel.failed(&error.to_string(), log);
                return None;
            }
        };
        match dial::connect(&remote.endpoint, &remote.tls).await {
            Ok(connected) => return Some((remote, connected)),
            Err(failure) => {
                tunnel.failed(&remote.facts.sentence(&failure, OffsetDateTime::now_utc()), log);
                if !failure.is_passing() || Instant::now() >= deadline {
                    return None;
                }
            }
        }
    }
}
