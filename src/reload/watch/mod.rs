//! Reloads by itself when a file of the configuration changes.
//!
//! inotify(7) only says that it is time to look: whether anything has changed is found by looking at the files, through all
//! links. So it does not matter how a file is changed: written in place, renamed over as editors do, or behind a link that is
//! turned elsewhere. Many file systems and mount points tell inotify nothing (NFS, CIFS, FUSE, overlayfs, a file that is
//! mounted by itself), and which do is not known for sure; so every file is looked at every two seconds anyway. That costs one
//! system call a file.

mod places;

use std::collections::BTreeSet;
use std::future::pending;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::config::seen::Seen;
use crate::reload::{Current, Reloader, Trigger};
use crate::sys::inotify::Inotify;

/// Nothing must have happened for so long: who writes a certificate writes its key as well.
const QUIET: Duration = Duration::from_millis(500);
/// But no longer than so long is waited for that: a change is in force within five seconds.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often is looked without being told.
const LOOKING: Duration = Duration::from_secs(2);

/// When what failed is tried again although no file has changed; twice as late each time, up to [`AGAIN_MAX`].
const AGAIN: Duration = Duration::from_secs(2);
const AGAIN_MAX: Duration = Duration::from_secs(60);

/// Reloads whenever a file of the configuration has changed, for as long as the configuration wants that. Does not end.
pub(crate) async fn watch(reloader: Reloader) {
    let mut current = reloader.current();
    let (mut pause, mut again) = (AGAIN, Instant::now());
    loop {
        let Current { config, seen, errors, .. } = current.borrow_and_update().clone();
        if !config.watch {
            if current.changed().await.is_err() {
                return;
            }
            continue;
        }
        // Before anything is looked at: what happens afterwards is told.
        let eye = open_eye(&seen).ok();
        if has_changed(&seen).await {
            settle(eye.as_ref(), &seen).await;
            let seen = Arc::clone(&current.borrow().seen);
            // Somebody may have reloaded meanwhile; or it is as it was again.
            if has_changed(&seen).await {
                // What comes of it is in the log and in the metrics.
                let _ = reloader.reload(Trigger::Watch).await;
                (pause, again) = (AGAIN, Instant::now() + AGAIN);
            }
            continue;
        }
        tokio::select! {
            _ = timeout(LOOKING, told(eye.as_ref())) => {}
            changed = current.changed() => if changed.is_err() { return },
            // What was wrong may have been none of the files: too few descriptors, a disk that stumbled.
            () = sleep_until(again), if !errors.is_empty() => {
                let _ = reloader.reload(Trigger::Watch).await;
                pause = (pause * 2).min(AGAIN_MAX);
                again = Instant::now() + pause;
            }
        }
    }
}

async fn has_changed(seen: &Arc<Seen>) -> bool {
    look(seen).await.is_some_and(|now| now != **seen)
}

/// Looks at the files on a thread of its own: a network's file system may take its time, or hang.
async fn look(seen: &Arc<Seen>) -> Option<Seen> {
    let (found, looked) = oneshot::channel();
    let seen = Arc::clone(seen);
    thread::Builder::new().name("watch".to_owned()).spawn(move || found.send(seen.again())).ok()?;
    looked.await.ok()
}

/// Waits until something is told.
async fn told(eye: Option<&Inotify>) {
    match eye {
        Some(eye) => eye.happening().await,
        None => pending().await,
    }
}

/// Waits until nothing happens any more, by what is told and by what is seen.
async fn settle(eye: Option<&Inotify>, seen: &Arc<Seen>) {
    let patience = Instant::now() + PATIENCE;
    let mut before = look(seen).await;
    while Instant::now() < patience {
        if timeout_at(patience.min(Instant::now() + QUIET), told(eye)).await.is_ok() {
            continue;
        }
        let now = look(seen).await;
        if now == before {
            return;
        }
        before = now;
    }
}

/// Sees what happens around these files from now on.
fn open_eye(seen: &Seen) -> io::Result<Inotify> {
    let eye = Inotify::new()?;
    let folders: BTreeSet<PathBuf> = seen.files().flat_map(places::folders).collect();
    for folder in folders {
        match eye.look_into(&folder) {
            // One that cannot be read, or is gone again, is looked at now and then.
            Err(error) if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::NotFound) => {}
            looking => looking?,
        }
    }
    Ok(eye)
}
