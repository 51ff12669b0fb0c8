//! System calls that the gate never makes.

use std::io;
use std::process::Command;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, getppid, kill_process};

use crate::attempt::{Outcome, Rule, Scene};

/// A system call by its number: no crate offers all of these.
#[expect(unsafe_code, reason = "what an attacker would do")]
pub(crate) fn number(number: libc::c_long, arguments: [usize; 5]) -> io::Result<libc::c_long> {
    let [a, b, c, d, e] = arguments;
    // SAFETY: the callers pass numbers, null, or the address of what outlives the call.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, 0_usize) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The same, for its success.
pub(crate) fn call(call: libc::c_long, arguments: [usize; 5]) -> io::Result<()> {
    number(call, arguments).map(drop)
}

/// The signal of a call that ends the process.
const KILLED: Outcome = Outcome::Killed(libc::SIGSYS);

/// What a call gets that is not allowed, but that libraries may try.
const UNKNOWN: Outcome = Outcome::Failed(Errno::NOSYS);

/// This process as an argument.
fn this() -> usize {
    usize::try_from(std::process::id()).unwrap()
}

#[test]
fn process_cannot_be_started() {
    let start = |_: &Scene| Command::new("/bin/true").status().map(drop);
    Rule::of("system::process_cannot_be_started").forbids(start, UNKNOWN);
}

#[test]
fn program_in_the_place_of_the_gate_ends_it() {
    let execute = |_: &Scene| {
        let arguments = [c"true".as_ptr() as usize, 0];
        call(libc::SYS_execve, [c"/bin/true".as_ptr() as usize, arguments.as_ptr() as usize, 0, 0, 0])
    };
    Rule::of("system::program_in_the_place_of_the_gate_ends_it").forbids(execute, KILLED);
}

#[test]
fn other_process_cannot_be_signalled() {
    let signal = |_: &Scene| {
        let parent: Pid = getppid().unwrap();
        Ok(kill_process(parent, Signal::URG)?)
    };
    Rule::of("system::other_process_cannot_be_signalled").forbids(signal, UNKNOWN);
}

#[test]
fn thread_of_another_process_cannot_be_signalled() {
    let signal = |_: &Scene| {
        let parent = usize::try_from(getppid().unwrap().as_raw_nonzero().get()).unwrap();
        call(libc::SYS_tgkill, [parent, parent, usize::try_from(libc::SIGURG).unwrap(), 0, 0])
    };
    Rule::of("system::thread_of_another_process_cannot_be_signalled").forbids(signal, UNKNOWN);
}

#[test]
fn descriptor_cannot_have_others_signalled() {
    // With F_SETSIG and O_ASYNC, the kernel sends the owner any signal once there is something to read.
    let own = |_: &Scene| {
        let parent = usize::try_from(getppid().unwrap().as_raw_nonzero().get()).unwrap();
        call(libc::SYS_fcntl, [0, usize::try_from(libc::F_SETOWN).unwrap(), parent, 0, 0])
    };
    Rule::of("system::descriptor_cannot_have_others_signalled").forbids(own, UNKNOWN);
}

#[test]
fn own_threads_can_be_signalled() {
    // As abort(3) does.
    let signal = |_: &Scene| call(libc::SYS_tgkill, [this(), this(), usize::try_from(libc::SIGURG).unwrap(), 0, 0]);
    Rule::of("system::own_threads_can_be_signalled").allows(signal);
}

#[test]
fn thread_can_be_started() {
    let start = |_: &Scene| {
        std::thread::spawn(|| ()).join().unwrap();
        Ok(())
    };
    Rule::of("system::thread_can_be_started").allows(start);
}

#[test]
fn tracing_ends_the_gate() {
    // Of a process that does not exist.
    let attach = |_: &Scene| {
        let process = usize::try_from(i32::MAX).unwrap();
        call(libc::SYS_ptrace, [usize::try_from(libc::PTRACE_ATTACH).unwrap(), process, 0, 0, 0])
    };
    Rule::of("system::tracing_ends_the_gate").differs(attach, Outcome::Failed(Errno::SRCH), KILLED);
}

#[test]
fn reading_memory_of_processes_ends_the_gate() {
    let read = |_: &Scene| call(libc::SYS_process_vm_readv, [this(), 0, 0, 0, 0]);
    Rule::of("system::reading_memory_of_processes_ends_the_gate").forbids(read, KILLED);
}

#[test]
fn mounting_ends_the_gate() {
    let mount = |scene: &Scene| {
        let folder = scene.inside().parent().unwrap().to_owned();
        let target = std::ffi::CString::new(folder.into_os_string().into_encoded_bytes())?;
        call(libc::SYS_mount, [c"tmpfs".as_ptr() as usize, target.as_ptr() as usize, c"tmpfs".as_ptr() as usize, 0, 0])
    };
    Rule::of("system::mounting_ends_the_gate").in_namespace().forbids(mount, KILLED);
}

#[test]
fn new_namespace_ends_the_gate() {
    let unshare = |_: &Scene| call(libc::SYS_unshare, [usize::try_from(libc::CLONE_NEWNS).unwrap(), 0, 0, 0, 0]);
    Rule::of("system::new_namespace_ends_the_gate").in_namespace().forbids(unshare, KILLED);
}

#[test]
fn process_in_a_new_user_namespace_cannot_be_started() {
    let start = |_: &Scene| {
        let flags = usize::try_from(libc::CLONE_NEWUSER | libc::SIGCHLD).unwrap();
        call(libc::SYS_clone, [flags, 0, 0, 0, 0])
    };
    Rule::of("system::process_in_a_new_user_namespace_cannot_be_started").in_namespace().forbids(start, UNKNOWN);
}

#[test]
fn asynchronous_io_of_the_kernel_ends_the_gate() {
    let set_up = |_: &Scene| {
        // `struct io_uring_params`.
        let mut parameters = [0_u64; 15];
        call(libc::SYS_io_uring_setup, [1, parameters.as_mut_ptr() as usize, 0, 0, 0])
    };
    Rule::of("system::asynchronous_io_of_the_kernel_ends_the_gate").forbids(set_up, KILLED);
}

#[test]
fn program_for_the_kernel_ends_the_gate() {
    let load = |_: &Scene| {
        // BPF_MAP_CREATE of an array (2) with keys of 4 bytes, values of 4 and 1 entry.
        let attributes: [u32; 32] = std::array::from_fn(|at| [2, 4, 4, 1].get(at).copied().unwrap_or(0));
        call(libc::SYS_bpf, [0, attributes.as_ptr() as usize, size_of_val(&attributes), 0, 0])
    };
    Rule::of("system::program_for_the_kernel_ends_the_gate").forbids(load, KILLED);
}

#[test]
fn memory_faults_cannot_be_handled() {
    Rule::of("system::memory_faults_cannot_be_handled")
        .forbids(|_| call(libc::SYS_userfaultfd, [1, 0, 0, 0, 0]), KILLED);
}

#[test]
fn counters_of_the_processor_end_the_gate() {
    let open = |_: &Scene| {
        // A software counter (1) of page faults (2) of this process.
        let mut attributes = [0_u32; 32];
        (attributes[0], attributes[1], attributes[2]) = (1, 128, 2);
        call(libc::SYS_perf_event_open, [attributes.as_ptr() as usize, 0, usize::MAX, usize::MAX, 0])
    };
    Rule::of("system::counters_of_the_processor_end_the_gate").forbids(open, KILLED);
}

#[test]
fn keyrings_end_the_gate() {
    // KEYCTL_GET_KEYRING_ID of the process keyring, which is made.
    let keyring = |_: &Scene| call(libc::SYS_keyctl, [0, usize::MAX - 1, 1, 0, 0]);
    Rule::of("system::keyrings_end_the_gate").forbids(keyring, KILLED);
}

#[test]
fn changing_the_root_ends_the_gate() {
    let root = |_: &Scene| call(libc::SYS_chroot, [c"/".as_ptr() as usize, 0, 0, 0, 0]);
    Rule::of("system::changing_the_root_ends_the_gate").forbids(root, KILLED);
}

#[test]
fn socket_of_another_family_cannot_be_made() {
    let netlink = |_: &Scene| {
        let [family, kind] = [libc::AF_NETLINK, libc::SOCK_RAW].map(|number| usize::try_from(number).unwrap());
        call(libc::SYS_socket, [family, kind, 0, 0, 0])
    };
    Rule::of("system::socket_of_another_family_cannot_be_made").forbids(netlink, UNKNOWN);
}

#[test]
fn limits_cannot_be_changed() {
    let change = |_: &Scene| {
        let limit = [1_u64 << 10, 1 << 10];
        call(libc::SYS_prlimit64, [0, usize::try_from(libc::RLIMIT_MEMLOCK).unwrap(), limit.as_ptr() as usize, 0, 0])
    };
    Rule::of("system::limits_cannot_be_changed").forbids(change, UNKNOWN);
}

#[test]
fn terminal_cannot_be_typed_to() {
    // TIOCSTI; without the sandbox a file is no terminal either, so FIOCLEX, which is as harmless as any other, is tried.
    let close_on_exec = |_: &Scene| call(libc::SYS_ioctl, [0, 0x5451, 0, 0, 0]);
    Rule::of("system::terminal_cannot_be_typed_to").forbids(close_on_exec, UNKNOWN);
}

#[test]
fn memory_cannot_be_made_dumpable_again() {
    let dump = |_: &Scene| call(libc::SYS_prctl, [usize::try_from(libc::PR_SET_DUMPABLE).unwrap(), 1, 0, 0, 0]);
    Rule::of("system::memory_cannot_be_made_dumpable_again").forbids(dump, UNKNOWN);
}

#[test]
fn x32_calls_are_refused() {
    // getpid of the other interface of x86_64; a kernel without it says the same.
    let getpid = |_: &Scene| match call(0x4000_0000 | libc::SYS_getpid, [0; 5]) {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        other => Err(io::Error::other(format!("{other:?}"))),
    };
    Rule::of("system::x32_calls_are_refused").allows(getpid);
}
