//! Watches folders for changes by inotify(7).

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::{Errno, read};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Every event by which the content of a file can change.
const EVENTS: WatchFlags = WatchFlags::ATTRIB
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);

/// Reports changes in the watched folders.
#[derive(Debug)]
pub struct Inotify(AsyncFd<OwnedFd>);

impl Inotify {
    /// Watches no folder yet.
    pub fn new() -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        #[expect(unsafe_code, reason = "AsyncFd requires that the descriptor does not change")]
        // SAFETY: an OwnedFd always gives the same descriptor and owns it, and it is not taken out of the AsyncFd.
        let registered = unsafe { AsyncFd::register_with_interest(inotify, Interest::READABLE) };
        Ok(Self(registered?))
    }

    /// Watches a folder, without its subfolders.
    pub fn watch(&self, folder: &Path) -> io::Result<()> {
        inotify::add_watch(self.0.get_ref(), folder, EVENTS)?;
        Ok(())
    }

    /// Waits for a change, without saying which. Cancel-safe.
    pub async fn changed(&self) {
        // Fails only while the runtime is shutting down.
        let Ok(mut ready) = self.0.readable().await else { return std::future::pending().await };
        // Reads every event, so that the next call waits for a new one.
        let drained = ready.try_io(|inotify| {
            let mut events = [0; 4096];
            loop {
                match read(inotify, &mut events) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(error) => return io::Result::<()>::Err(error.into()),
                }
            }
        });
        drop(drained);
    }
}
