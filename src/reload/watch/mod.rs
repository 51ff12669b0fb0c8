//! Reloads when a file of the configuration changes.
//!
//! inotify(7) only triggers a check; the check compares the files, through all links. So every kind of change is found: a
//! write in place, a rename over the file as editors do it, a link with another target. Many file systems and mounts send no
//! inotify events (NFS, CIFS, FUSE, overlayfs, a bind-mounted file), and these cannot be told apart reliably, so every file
//! is also checked every two seconds. That costs one system call a file.

use std::collections::BTreeSet;
use std::future::pending;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::config::file_states::Seen;
use crate::config::folders;
use crate::reload::{Current, Reloader, Trigger};
use crate::sys::inotify::Inotify;

/// How long the files must not change before they are read: a certificate is followed by its key.
const QUIET_PERIOD: Duration = Duration::from_millis(500);
/// The longest wait for that, so that a change is in force within five seconds.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(2);
/// How often the files are checked without an event.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// When a failed reload is retried although no file has changed; doubled each time, up to [`RETRY_MAX`].
const RETRY: Duration = Duration::from_secs(2);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Reloads whenever a file of the configuration has changed, unless `watch = "off"`. Does not return.
pub(crate) async fn watch(reloader: Reloader) {
    let mut current = reloader.current();
    let (mut delay, mut retry_at) = (RETRY, Instant::now());
    loop {
        let Current { config, seen, errors, .. } = current.borrow_and_update().clone();
        if !config.watch {
            if current.changed().await.is_err() {
                return;
            }
            continue;
        }
        // Before the check, so that a later change causes an event.
        let inotify = start_inotify(&seen).ok();
        if has_changed(&seen).await {
            settle(inotify.as_ref(), &seen).await;
            let seen = Arc::clone(&current.borrow().seen);
            // Another reload may have read the change meanwhile, or it may have been undone.
            if has_changed(&seen).await {
                // The result is in the log and in the metrics.
                let _ = reloader.reload(Trigger::Watch).await;
                (delay, retry_at) = (RETRY, Instant::now() + RETRY);
            }
            continue;
        }
        tokio::select! {
            _ = timeout(POLL_INTERVAL, event(inotify.as_ref())) => {}
            changed = current.changed() => if changed.is_err() { return },
            // The error may not have been in a file: too few descriptors, an I/O error.
            () = sleep_until(retry_at), if !errors.is_empty() => {
                let _ = reloader.reload(Trigger::Watch).await;
                delay = (delay * 2).min(RETRY_MAX);
                retry_at = Instant::now() + delay;
            }
        }
    }
}

async fn has_changed(seen: &Arc<Seen>) -> bool {
    check(seen).await.is_some_and(|now| now != **seen)
}

/// Checks the files on a thread of its own: a network file system may hang.
async fn check(seen: &Arc<Seen>) -> Option<Seen> {
    let (found, checked) = oneshot::channel();
    let seen = Arc::clone(seen);
    thread::Builder::new().name("watch".to_owned()).spawn(move || found.send(seen.again())).ok()?;
    checked.await.ok()
}

/// Waits for an inotify event.
async fn event(inotify: Option<&Inotify>) {
    match inotify {
        Some(inotify) => inotify.changed().await,
        None => pending().await,
    }
}

/// Waits until the files stop changing, by events and by checks.
async fn settle(inotify: Option<&Inotify>, seen: &Arc<Seen>) {
    let deadline = Instant::now() + SETTLE_TIMEOUT;
    let mut before = check(seen).await;
    while Instant::now() < deadline {
        if timeout_at(deadline.min(Instant::now() + QUIET_PERIOD), event(inotify)).await.is_ok() {
            continue;
        }
        let now = check(seen).await;
        if now == before {
            return;
        }
        before = now;
    }
}

/// Watches the folders of these files.
fn start_inotify(seen: &Seen) -> io::Result<Inotify> {
    let inotify = Inotify::new()?;
    let folders: BTreeSet<PathBuf> = seen.files().flat_map(folders::to_watch).collect();
    for folder in folders {
        match inotify.watch(&folder) {
            // Unreadable and missing folders are left to the poll.
            Err(error) if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::NotFound) => {}
            result => result?,
        }
    }
    Ok(inotify)
}
