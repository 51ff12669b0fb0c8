//! Events for developers: `DOORWARD_LOG=debug`, or `DOORWARD_LOG=doorward::backends=debug` for a part of the program.
//!
//! Verdicts are never among them: those are in the log of the gate, whether this is on or off.

use std::env;
use std::io::{self, Write};
use std::str::FromStr;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;

/// Which events are printed: `debug`, or `TARGET=LEVEL` with commas between them.
const VARIABLE: &str = "DOORWARD_LOG";

/// Prints events to stderr if the environment asks for it. Without the variable an event costs one comparison.
pub(super) fn start() {
    let Some(wanted) = env::var_os(VARIABLE).filter(|wanted| !wanted.is_empty()) else { return };
    let Ok(events) = Targets::from_str(&wanted.to_string_lossy()) else {
        errln!("warning: {VARIABLE} is not understood: write {VARIABLE}=debug");
        return;
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(|| Stderr).log_internal_errors(false);
    // Only a program that has set another one before could fail here.
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(lines).with(events));
}

/// stderr, or nothing while its reader does not read: an event must not hold up a connection or a reload.
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let stderr = io::stderr().lock();
        let mut ready = [PollFd::new(&stderr, PollFlags::OUT)];
        // A pipe that is ready takes 4096 bytes without blocking (POSIX, PIPE_BUF).
        if poll(&mut ready, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0) {
            let mut stderr = stderr;
            stderr.write_all(line.get(..line.len().min(4096)).unwrap_or_default())?;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
