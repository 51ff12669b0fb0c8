//! Acting as another user for the duration of a call, and the groups of a socket's peer.

use std::os::fd::{AsFd, AsRawFd};

use rustix::io;
use rustix::process::{Gid, Uid, getegid, geteuid, getgroups};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// Runs `call` with another effective user and group and without supplementary groups. Only this thread changes, and only
/// while `call` runs. The real user stays, so that the other user cannot signal or trace the process.
///
/// # Errors
///
/// If the process may not do this (no `CAP_SETUID`, or a user namespace without that user); `call` has not run then.
pub fn act_as<T>(user: Uid, group: Gid, call: impl FnOnce() -> T) -> io::Result<T> {
    act_as_member(user, group, &[], call)
}

/// As [`act_as`], with these supplementary groups.
///
/// # Errors
///
/// As [`act_as`].
pub fn act_as_member<T>(user: Uid, group: Gid, groups: &[Gid], call: impl FnOnce() -> T) -> io::Result<T> {
    let restore = Restore { user: geteuid(), group: getegid(), groups: getgroups()? };
    set_thread_groups(groups)?;
    set_thread_res_gid(None, group, None)?;
    set_thread_res_uid(None, user, None)?;
    let result = call();
    drop(restore);
    Ok(result)
}

/// The most groups that a process can be in (`NGROUPS_MAX`).
const GROUPS_MAX: usize = 65_536;

/// The groups of the process that connected a Unix socket (`SO_PEERGROUPS`, unix(7)), its effective group excepted. They are
/// those that it had when it connected.
///
/// # Errors
///
/// Those of `getsockopt(2)`; before Linux 4.13, that there is no such option.
#[expect(unsafe_code, reason = "neither socket2 nor rustix offers SO_PEERGROUPS")]
pub fn peer_groups(socket: impl AsFd) -> io::Result<Vec<u32>> {
    let mut groups: Vec<libc::gid_t> = vec![0; GROUPS_MAX];
    let size = size_of::<libc::gid_t>();
    let mut length = libc::socklen_t::try_from(GROUPS_MAX * size).map_err(|_| io::Errno::INVAL)?;
    // SAFETY: the descriptor is borrowed for the whole call; the kernel writes at most `length` bytes to `groups`, which is
    // that long, and the length it wrote to `&length`, and keeps no pointer.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(io::Errno::IO));
    }
    groups.truncate(usize::try_from(length).unwrap_or_default() / size);
    Ok(groups)
}

/// The credentials to restore when this is dropped.
struct Restore {
    user: Uid,
    group: Gid,
    groups: Vec<Gid>,
}

impl Drop for Restore {
    fn drop(&mut self) {
        // The user first: the privilege to change groups comes back with it.
        let restored = set_thread_res_uid(None, self.user, None)
            .and_then(|()| set_thread_res_gid(None, self.group, None))
            .and_then(|()| set_thread_groups(&self.groups));
        if restored.is_err() && geteuid() != self.user {
            // A thread that continued as the other user would have the wrong rights.
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_the_peer_are_those_of_its_process() {
        let (one, _other) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let mut own: Vec<u32> = getgroups().expect("groups").iter().map(|group| group.as_raw()).collect();
        let mut seen = peer_groups(&one).expect("supported");
        own.sort_unstable();
        seen.sort_unstable();
        assert_eq!(seen, own);
    }

    #[test]
    fn credentials_change_for_the_call_and_are_restored() {
        let (user, group, groups) = (geteuid(), getegid(), getgroups().expect("groups"));
        let other = (Uid::from_raw(65_534), Gid::from_raw(65_534));
        let seen = act_as(other.0, other.1, || (geteuid(), getegid(), getgroups().expect("groups")));
        if user.is_root() {
            assert_eq!(seen.expect("root may"), (other.0, other.1, Vec::new()));
        } else {
            assert!(seen.is_err(), "only root may");
        }
        assert_eq!((geteuid(), getegid(), getgroups().expect("groups")), (user, group, groups));
    }
}
