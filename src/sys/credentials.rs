//! Acting as another user for a few calls.

use rustix::io;
use rustix::process::{Gid, Uid, getegid, geteuid, getgroups};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// Runs `call` with the effective user and group of somebody else, and without the groups of this process. Only this thread
/// changes, and only for as long as `call` takes; the real user stays what it is, so that user cannot signal or trace us.
///
/// # Errors
///
/// If the process may not do this (no `CAP_SETUID`, or a user namespace without that user); `call` has not run then.
pub fn act_as<T>(user: Uid, group: Gid, call: impl FnOnce() -> T) -> io::Result<T> {
    let restore = Restore { user: geteuid(), group: getegid(), groups: getgroups()? };
    set_thread_groups(&[])?;
    set_thread_res_gid(None, group, None)?;
    set_thread_res_uid(None, user, None)?;
    let result = call();
    drop(restore);
    Ok(result)
}

/// Who we were; again so when this is dropped.
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
            // A thread that goes on as somebody else would do the rest of the work with the wrong rights.
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_dropped_for_the_call_and_come_back() {
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
