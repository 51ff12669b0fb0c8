//! Something happens in a folder: inotify(7).

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::{Errno, read};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// All that can happen to a file whose contents change in whatever way.
const HAPPENINGS: WatchFlags = WatchFlags::ATTRIB
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);

/// Sees that something happens in some folders.
#[derive(Debug)]
pub struct Inotify(AsyncFd<OwnedFd>);

impl Inotify {
    /// Looks nowhere yet.
    pub fn new() -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        #[expect(unsafe_code, reason = "AsyncFd must be promised that the descriptor stays")]
        // SAFETY: an OwnedFd always gives the same descriptor and owns it, and it is not taken out of the AsyncFd.
        let registered = unsafe { AsyncFd::register_with_interest(inotify, Interest::READABLE) };
        Ok(Self(registered?))
    }

    /// Looks into a folder as well, but not into those in it.
    pub fn look_into(&self, folder: &Path) -> io::Result<()> {
        inotify::add_watch(self.0.get_ref(), folder, HAPPENINGS)?;
        Ok(())
    }

    /// Waits until something has happened. What it was must be looked for. Cancel-safe.
    pub async fn happening(&self) {
        // Fails only when the runtime is being shut down, and whoever waits with it.
        let Ok(mut ready) = self.0.readable().await else { return std::future::pending().await };
        // Read to the last one, so that the next wait is a wait.
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
