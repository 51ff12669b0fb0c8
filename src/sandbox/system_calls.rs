//! The system calls that are left (seccomp(2)), in two filters.
//!
//! What the gate uses is allowed. Every other call fails with ENOSYS, as on an older kernel: the C library then does without, and a
//! new version of it, which tries a new call first, does not bring the gate down. Calls that no part of the gate makes under any
//! circumstances, because they start programs, trace processes or reach into the kernel, end the process instead: only foreign code
//! makes them, and it must not go on with the gate's keys. The service manager then starts the gate anew.
//!
//! Since Linux 5.11 the kernel remembers which calls are allowed whatever their arguments, and runs no filter for them
//! (kernel/seccomp.c, `seccomp_cache_check_allow`). So what connections need has no conditions, except `socket`, `ioctl`, `sendto`
//! and `sendmsg`.
//!
//! Landlock checks the port of connect(2), and of TCP only. So there are no sockets of other protocols that a TCP server answers
//! (MPTCP), and no call that connects while it sends (TCP Fast Open). It does not check which Unix socket is connected to at all.

use std::collections::BTreeMap;
use std::env::consts::ARCH;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter_all_threads,
};

use super::needs::Needs;

type Rules = BTreeMap<libc::c_long, Vec<SeccompRule>>;

/// Allowed with any arguments.
const ALLOWED: &[libc::c_long] = &[
    // Descriptors and connections.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_close,
    libc::SYS_lseek,
    libc::SYS_dup,
    // A hand-over replaces stderr.
    libc::SYS_dup3,
    libc::SYS_splice,
    libc::SYS_pipe2,
    libc::SYS_eventfd2,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_ppoll,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_shutdown,
    // Files, as far as Landlock allows them.
    libc::SYS_newfstatat,
    libc::SYS_fstat,
    libc::SYS_statx,
    libc::SYS_fstatfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_unlinkat,
    libc::SYS_flock,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_rm_watch,
    // Memory.
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_getrandom,
    // Threads and their end.
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_membarrier,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_restart_syscall,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    // The launcher is a child.
    libc::SYS_wait4,
    libc::SYS_waitid,
    // Time.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    // Facts about the process and the machine.
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getrusage,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    // The thread of the status page lowers its own priority.
    libc::SYS_setpriority,
    // The older forms of calls above, which only this architecture has.
    #[cfg(target_arch = "x86_64")]
    libc::SYS_dup2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_time,
];

/// What a process has no use for that talks to the gate alone, by the socket that it was started with.
const NETWORK: &[libc::c_long] =
    &[libc::SYS_socket, libc::SYS_bind, libc::SYS_listen, libc::SYS_accept, libc::SYS_accept4, libc::SYS_connect];

/// What no part of the gate ever does.
const FATAL: &[libc::c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_chroot,
    libc::SYS_pivot_root,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_open_by_handle_at,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
];

/// Requests of `ioctl`: blocking or not, bytes that wait to be read or to be acknowledged, whether it is a terminal, the number of a
/// network interface. (FIONBIO, FIONREAD, TIOCOUTQ, TCGETS, SIOCGIFINDEX; `libc` has them as another type for each C library.)
const IOCTLS: &[u64] = &[0x5421, 0x541b, 0x5411, 0x5401, 0x8933];

/// Commands of `fcntl`: none that has the kernel send signals, to any process of the user.
const FCNTLS: &[libc::c_int] = &[
    libc::F_DUPFD,
    libc::F_DUPFD_CLOEXEC,
    libc::F_GETFD,
    libc::F_SETFD,
    libc::F_GETFL,
    libc::F_SETFL,
    // Libraries of the resolver may lock files.
    libc::F_GETLK,
    libc::F_SETLK,
    libc::F_SETLKW,
    libc::F_OFD_GETLK,
    libc::F_OFD_SETLK,
    libc::F_OFD_SETLKW,
    libc::F_GETPIPE_SZ,
    libc::F_SETPIPE_SZ,
];

/// Operations of `prctl`: names of threads and of memory.
const PRCTLS: &[libc::c_int] = &[libc::PR_SET_NAME, libc::PR_GET_NAME, PR_SET_VMA];

/// include/uapi/linux/prctl.h; the C library names its arenas.
const PR_SET_VMA: libc::c_int = 0x5356_4d41;

/// Where the flags of a call that sends are among its arguments.
const SENDING: &[(libc::c_long, u8)] = &[
    (libc::SYS_sendto, 3),
    (libc::SYS_sendmsg, 2),
    // The resolver asks for both families at once.
    (libc::SYS_sendmmsg, 3),
];

/// Where the flags of a call that opens are among its arguments.
const OPENING: &[(libc::c_long, u8)] = &[
    (libc::SYS_openat, 2),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, 1),
];

/// A day of the history is written beside the former one, and then renamed.
const REPLACING: &[libc::c_long] = &[
    #[cfg(not(target_arch = "riscv64"))]
    libc::SYS_renameat,
    libc::SYS_renameat2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
];

/// What a file is not opened with if there is no log and no history to write. Kernels without Landlock restrict no files otherwise.
const CHANGING: libc::c_int = libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC;

/// The bits of a socket's type that are not flags (include/linux/net.h, `SOCK_TYPE_MASK`).
const SOCKET_TYPE: u64 = 0xf;

/// Leaves this process, with all its threads, the system calls that a gate with these needs makes.
///
/// # Errors
/// Why none is taken away.
pub(super) fn restrict(needs: &Needs) -> Result<(), String> {
    let architecture = TargetArch::try_from(ARCH).map_err(|error| error.to_string())?;
    let (allowed, fatal) = filters(architecture, needs).map_err(|error| error.to_string())?;
    // The other one does not allow another filter.
    for filter in [fatal, allowed] {
        apply_filter_all_threads(&filter).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn filters(architecture: TargetArch, needs: &Needs) -> Result<(BpfProgram, BpfProgram), BackendError> {
    let mut allowed: Rules = ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    allowed.extend(conditional(needs)?);
    if needs.no_sockets {
        allowed.retain(|call, _| !NETWORK.contains(call));
    }
    let errno = u32::try_from(libc::ENOSYS).unwrap_or(0);
    let allowed = SeccompFilter::new(allowed, SeccompAction::Errno(errno), SeccompAction::Allow, architecture)?;
    let fatal = FATAL.iter().map(|call| (*call, Vec::new())).collect();
    let fatal = SeccompFilter::new(fatal, SeccompAction::Allow, SeccompAction::KillProcess, architecture)?;
    Ok((allowed.try_into()?, fatal.try_into()?))
}

/// Allowed with some arguments only.
fn conditional(needs: &Needs) -> Result<Rules, BackendError> {
    let equal = |argument, value| condition(argument, SeccompCmpOp::Eq, value);
    let process = u64::from(std::process::id());
    let thread = u64::try_from(libc::CLONE_THREAD).unwrap_or(u64::MAX);
    let any_of = |argument, values: &mut dyn Iterator<Item = u64>| -> Result<Vec<SeccompRule>, BackendError> {
        values.map(|value| SeccompRule::new(vec![equal(argument, value)?])).collect()
    };
    let number = |value: &libc::c_int| u64::from(value.cast_unsigned());
    let changing = if needs.writes_files() { 0 } else { CHANGING };
    let sending = SENDING.iter().map(|(call, flags)| (*call, *flags, libc::MSG_FASTOPEN));
    let opening = OPENING.iter().map(|(call, flags)| (*call, *flags, changing));
    let without = sending.chain(opening).map(|(call, flags, not)| {
        let none = condition(flags, SeccompCmpOp::MaskedEq(number(&not)), 0)?;
        Ok((call, vec![SeccompRule::new(vec![none])?]))
    });
    let without: Rules = without.collect::<Result<_, BackendError>>()?;
    let mut rules = Rules::from([
        (libc::SYS_socket, sockets(needs)?),
        (libc::SYS_socketpair, any_of(0, &mut [number(&libc::AF_UNIX)].into_iter())?),
        (libc::SYS_ioctl, any_of(1, &mut IOCTLS.iter().copied())?),
        (libc::SYS_fcntl, any_of(1, &mut FCNTLS.iter().map(number))?),
        (libc::SYS_prctl, any_of(0, &mut PRCTLS.iter().map(number))?),
        // A thread, not a process or a namespace. `clone3` passes its flags in memory, where no filter sees them: without it the C
        // library uses this one.
        (libc::SYS_clone, vec![SeccompRule::new(vec![condition(0, SeccompCmpOp::MaskedEq(thread), thread)?])?]),
        // A panic of the C library ends this process.
        (libc::SYS_tgkill, any_of(0, &mut [process].into_iter())?),
        // Limits are read, not changed.
        (libc::SYS_prlimit64, vec![SeccompRule::new(vec![equal_long(2, 0)?])?]),
    ]);
    rules.extend(without);
    if needs.writes_files() {
        // A new file has its own mode, whatever the umask.
        rules.insert(libc::SYS_fchmod, Vec::new());
    }
    if needs.replaces_files() {
        rules.extend(REPLACING.iter().map(|call| (*call, Vec::new())));
    }
    Ok(rules)
}

/// The sockets that may be made: TCP, datagrams to journald and the service manager, and what backends, the resolver and packets that
/// wake a machine need.
fn sockets(needs: &Needs) -> Result<Vec<SeccompRule>, BackendError> {
    let number = |value: libc::c_int| u64::from(value.cast_unsigned());
    let of = |family, kind| {
        let kind = condition(1, SeccompCmpOp::MaskedEq(SOCKET_TYPE), number(kind))?;
        Ok::<_, BackendError>(vec![condition(0, SeccompCmpOp::Eq, number(family))?, kind])
    };
    let mut rules = Vec::new();
    let datagrams = needs.sends_datagrams().then_some((libc::SOCK_DGRAM, libc::IPPROTO_UDP));
    for (kind, protocol) in [(libc::SOCK_STREAM, libc::IPPROTO_TCP)].into_iter().chain(datagrams) {
        for family in [libc::AF_INET, libc::AF_INET6] {
            // 0 is the usual one of the type, which is this one.
            for protocol in [0, protocol] {
                let protocol = condition(2, SeccompCmpOp::Eq, number(protocol))?;
                rules.push(SeccompRule::new([of(family, kind)?, vec![protocol]].concat())?);
            }
        }
    }
    rules.push(SeccompRule::new(of(libc::AF_UNIX, libc::SOCK_DGRAM)?)?);
    if needs.connects_unix_streams() {
        rules.push(SeccompRule::new(of(libc::AF_UNIX, libc::SOCK_STREAM)?)?);
    }
    Ok(rules)
}

fn condition(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
}

/// Of a pointer.
fn equal_long(argument: u8, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, value)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_call_is_both_allowed_and_fatal() {
        let conditional =
            conditional(&Needs { log: Some("log".into()), ..Needs::default() }).expect("valid conditions");
        let allowed: BTreeSet<_> = ALLOWED.iter().chain(conditional.keys()).collect();
        assert_eq!(allowed.len(), ALLOWED.len() + conditional.len(), "each call once");
        assert_eq!(FATAL.iter().filter(|call| allowed.contains(call)).count(), 0);
        assert_eq!(FATAL.iter().collect::<BTreeSet<_>>().len(), FATAL.len(), "each call once");
    }

    #[test]
    fn filters_exist_for_each_architecture() {
        for architecture in ["x86_64", "aarch64", "riscv64"] {
            let architecture = TargetArch::try_from(architecture).expect("a known architecture");
            let (allowed, fatal) = filters(architecture, &Needs::default()).expect("valid filters");
            // The most instructions that the kernel takes.
            assert!((1..4096).contains(&allowed.len()) && (1..4096).contains(&fatal.len()));
            let alone = Needs { no_sockets: true, ..Needs::default() };
            assert!(filters(architecture, &alone).expect("valid filters").0.len() < allowed.len());
        }
        assert!(TargetArch::try_from("armv7").is_err());
    }
}
