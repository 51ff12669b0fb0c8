//! Sockets that systemd has opened for this process (socket activation, sd_listen_fds(3)).

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use socket2::Socket;

/// Whether the descriptors were taken.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The sockets that systemd has passed to this process, each with its name (`FileDescriptorName=`). A second call has none.
///
/// # Errors
/// If the variables of systemd are not what it sets.
pub fn take() -> io::Result<Vec<(String, Socket)>> {
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Ok(Vec::new());
    }
    // Both check `$LISTEN_PID`, and that each descriptor is open. Names without descriptors are those of another process, whose
    // variables this one inherited.
    let passed = sd_notify::listen_fds().and_then(|passed| match passed.len() {
        0 => Ok(Vec::new()),
        _ => Ok(sd_notify::listen_fds_with_names()?.collect()),
    });
    let passed = passed.map_err(|error| {
        let message =
            "the sockets of systemd cannot be taken: LISTEN_FDS and LISTEN_FDNAMES do not fit what was passed";
        io::Error::new(error.kind(), format!("{message} ({error})"))
    })?;
    let own = |(descriptor, name)| {
        #[expect(unsafe_code, reason = "descriptors of systemd are numbers")]
        // SAFETY: the descriptor is open, as `listen_fds_with_names` has seen. systemd opened it for this process, which
        // gives it an owner only here and, because of `TAKEN`, once.
        let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
        (name, Socket::from(descriptor))
    };
    Ok(passed.into_iter().map(own).collect())
}
