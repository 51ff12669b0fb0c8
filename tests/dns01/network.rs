//! A network of the test's own, and a `resolv.conf`: DNS has one port, and no test asks the resolver of the real machine.

use std::net::Ipv4Addr;
use std::thread;

use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use rustix::thread::UnshareFlags;

use crate::common::process::{run, tool};

/// The addresses of servers. The resolver of the machine is the first one.
pub(crate) const FIRST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
pub(crate) const SECOND: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

/// Runs a test on a thread whose network is its own. All threads and programs that it starts are in it.
pub(crate) fn alone(test: impl FnOnce() + Send) {
    let ended = thread::scope(|scope| {
        let thread = scope.spawn(move || {
            #[expect(deprecated, reason = "this thread shares no file descriptors that it would lose")]
            rustix::thread::unshare(UnshareFlags::NEWNET | UnshareFlags::NEWNS).unwrap();
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), format!("search example\nnameserver {FIRST}\n")).unwrap();
            mount_bind(file.path(), "/etc/resolv.conf").unwrap();
            // BIND listens at the addresses of interfaces only, and the whole of 127.0.0.0/8 is one.
            for arguments in ["link set lo up", "addr add 127.0.0.2/8 dev lo", "addr add 127.0.0.3/8 dev lo"] {
                run(tool("ip", "iproute2").args(arguments.split(' '))).success();
            }
            test();
        });
        thread.join()
    });
    if let Err(panic) = ended {
        std::panic::resume_unwind(panic);
    }
}
