//! Reloads by itself when a file of the configuration changes.
//!
//! inotify(7) only says that it is time to look: whether anything has changed is found by looking at the files, through all
//! links. So it does not matter how a file is changed: written in place, renamed over as editors do, or behind a link that is
//! turned elsewhere.

mod places;

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use crate::config::seen::Seen;
use crate::reload::{Cause, Current, Reloader};
use crate::sys::inotify::Inotify;

/// Nothing must have happened for so long: who writes a certificate writes its key as well.
const QUIET: Duration = Duration::from_millis(500);
/// But no longer than so long is waited for that.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often is looked without being told; there are file systems that tell nothing.
const LOOKING: Duration = Duration::from_secs(60);
/// The same where inotify cannot be had, because other programs use up what there is of it.
const LOOKING_BLINDLY: Duration = Duration::from_secs(2);

/// When what failed is tried again although no file has changed; twice as late each time, up to [`LOOKING`].
const AGAIN: Duration = Duration::from_secs(2);

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
            settle(eye.as_ref()).await;
            let seen = Arc::clone(&current.borrow().seen);
            // Somebody may have reloaded meanwhile; or it is as it was again.
            if has_changed(&seen).await {
                // What comes of it is in the log and in the metrics.
                let _ = reloader.reload(Cause::Watch).await;
                (pause, again) = (AGAIN, Instant::now() + AGAIN);
            }
            continue;
        }
        tokio::select! {
            () = told(eye.as_ref()) => {}
            changed = current.changed() => if changed.is_err() { return },
            // What was wrong may have been none of the files: too few descriptors, a disk that stumbled.
            () = sleep_until(again), if !errors.is_empty() => {
                let _ = reloader.reload(Cause::Watch).await;
                pause = (pause * 2).min(LOOKING);
                again = Instant::now() + pause;
            }
        }
    }
}

async fn has_changed(seen: &Arc<Seen>) -> bool {
    let seen = Arc::clone(seen);
    // A network's file system may take its time.
    spawn_blocking(move || seen.again() != *seen).await.unwrap_or(false)
}

/// Waits until it is time to look.
async fn told(eye: Option<&Inotify>) {
    match eye {
        Some(eye) => drop(timeout(LOOKING, eye.happening()).await),
        None => sleep(LOOKING_BLINDLY).await,
    }
}

/// Waits until nothing happens any more.
async fn settle(eye: Option<&Inotify>) {
    let Some(eye) = eye else { return sleep(QUIET).await };
    let patience = Instant::now() + PATIENCE;
    while Instant::now() < patience && timeout_at(patience.min(Instant::now() + QUIET), eye.happening()).await.is_ok() {
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
