//! System calls that the gate never makes.

use std::io;
use std::process::Command;

use rustix::io::Errno;
use rustix::process::{Pid, getppid, kill_process};

use crate::attempt::{Outcome, Rule};

/// A system call by its number: no crate offers all of these.
#[expect(unsafe_code, reason = "what an attacker would do")]
pub(crate) fn call(number: libc::c_long, arguments: [usize; 5]) -> io::Result<()> {
    let [a, b, c, d, e] = arguments;
    // SAFETY: the callers pass numbers, null, or the address of what outlives the call.
    let result = unsafe { libc::syscall(number, a, b, c, d, e) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[test]
fn program_cannot_be_started() {
    let start = |_: &crate::attempt::Scene| Command::new("/bin/true").status().map(drop);
    Rule::of("system::program_cannot_be_started").forbids(start, Outcome::Failed(Errno::ACCESS));
}

#[test]
fn other_process_cannot_be_signalled() {
    let signal = |_: &crate::attempt::Scene| {
        let parent: Pid = getppid().unwrap();
        Ok(kill_process(parent, rustix::process::Signal::URG)?)
    };
    Rule::of("system::other_process_cannot_be_signalled").forbids(signal, Outcome::Failed(Errno::PERM));
}

#[test]
fn file_system_cannot_be_mounted() {
    let mount = |scene: &crate::attempt::Scene| {
        let folder = scene.inside().parent().unwrap().to_owned();
        let target = std::ffi::CString::new(folder.into_os_string().into_encoded_bytes())?;
        call(libc::SYS_mount, [c"tmpfs".as_ptr() as usize, target.as_ptr() as usize, c"tmpfs".as_ptr() as usize, 0, 0])
    };
    Rule::of("system::file_system_cannot_be_mounted").in_namespace().forbids(mount, Outcome::Failed(Errno::PERM));
}
