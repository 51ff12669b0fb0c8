//! What the processes beside a gate have in common, the launcher and the notifiers: they are given a channel, and end with it.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::channel::is_end;

/// Takes the channel that this process was started with as stdin. `None` if stdin is something else.
pub(crate) fn channel_at_stdin() -> io::Result<Option<OwnedFd>> {
    if !is_end(rustix::stdio::stdin()) {
        return Ok(None);
    }
    let end = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(Some(end))
}

/// Ignores signals as long as the result lives: one to all processes of a service, or of this name, is for the gate. Must be called
/// within a tokio runtime.
pub(crate) fn ignore_signals() -> io::Result<Vec<Signal>> {
    let kinds = [
        SignalKind::hangup(),
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::user_defined1(),
        SignalKind::user_defined2(),
    ];
    kinds.into_iter().map(signal).collect()
}
