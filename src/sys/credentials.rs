//! Acting as another user for the duration of a call.

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
    let restore = Restore { user: geteuid(), group: getegid(), groups: getgroups()? };
    set_thread_groups(&[])?;
    set_thread_res_gid(None, group, None)?;
    set_thread_res_uid(None, user, None)?;
    let result = call();
    drop(restore);
    Ok(result)
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
