//! `[tickets]`: the files of its keys, which are as secret as the key of an authority.

use rustix::process::geteuid;
use zeroize::Zeroize as _;

use crate::config::checked::{TicketSecret, Tickets, WeakSecret};
use crate::config::files::{self, NamedFile};
use crate::config::raw::RawTickets;
use crate::config::report::{Given, Problem, Report};

/// The command that makes a file.
const GENERATE: &str = "doorward generate ticket-key";

/// The keys; none if there is no `[tickets]`.
pub(super) fn check(given: &Given<RawTickets>, report: &mut Report) -> Option<Tickets> {
    let list = match given {
        Given::Refused => return None,
        Given::Absent => return Some(Tickets::default()),
        Given::Value(tickets) => match &tickets.value.keys {
            Given::Refused => return None,
            Given::Absent => return Some(Tickets::default()),
            Given::Value(list) => list,
        },
    };
    let mut keys: Vec<TicketSecret> = Vec::new();
    let mut all_right = true;
    for text in &list.value {
        let key = files::read(text, report).and_then(|mut file| {
            let key = report.taken(&text.place, secret(&file));
            file.bytes.zeroize();
            key
        });
        let Some(key) = key else {
            all_right = false;
            continue;
        };
        if let Some(twin) = keys.iter().find(|other| other.id == key.id) {
            report.warn(
                &text.place,
                format!(
                    "{} and {} have the same key, so one of them is of no use; to replace keys: {GENERATE} --rotate",
                    twin.file.display(),
                    key.file.display()
                ),
            );
        }
        keys.push(key);
    }
    all_right.then_some(Tickets { keys })
}

/// The key in a file that only those may read who may run the gate.
pub(super) fn secret(file: &NamedFile) -> Result<TicketSecret, Problem> {
    if let Some(problem) = accessible(file, geteuid().as_raw()) {
        return Err(problem);
    }
    TicketSecret::new(file.path.clone(), &file.bytes).map_err(|weakness| weak(file, weakness))
}

/// Who else may read or change the file, if any. `user` runs the program.
///
/// The group of a file of root's may read it: so kubelet and systemd hand a secret to a process without rights. Root checks
/// files for another user, who is not known here.
fn accessible(file: &NamedFile, user: u32) -> Option<Problem> {
    const ROOT: u32 = 0;
    let (shown, mode) = (file.path.display(), file.mode);
    let (message, remedy) = if ![ROOT, user].contains(&file.owner) && user != ROOT {
        (
            format!("{shown} belongs to another user (number {})", file.owner),
            format!("make the user that runs the gate its owner: chown USER {shown}"),
        )
    } else if mode & 0o007 != 0 {
        (
            format!("every user of this machine may access {shown}"),
            format!("chmod 600 {shown}; in Kubernetes: fsGroup for the pod, and defaultMode: 0440 for the Secret"),
        )
    } else if mode & 0o020 != 0 || mode & 0o040 != 0 && file.owner != ROOT {
        (format!("the group of {shown} may access it"), format!("chmod 600 {shown}"))
    } else {
        return None;
    };
    Some(Problem::new(
        format!("{message}, and with a key for session tickets, any device's session can be forged"),
        format!("{remedy}; then replace the key: {GENERATE} --rotate {shown}"),
    ))
}

fn weak(file: &NamedFile, weakness: WeakSecret) -> Problem {
    let shown = file.path.display();
    Problem::new(
        format!("{shown} {weakness}"),
        format!("name the right file; or remove this one, and make another: {GENERATE} {shown}"),
    )
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// Whether a file of this owner and mode is refused to this user.
    fn refused(owner: u32, mode: u32, user: u32) -> bool {
        let path = PathBuf::from("/etc/doorward/tickets.key");
        accessible(&NamedFile { path, bytes: Vec::new(), owner, mode }, user).is_some()
    }

    #[test]
    fn file_that_others_may_access_is_refused() {
        const GATE: u32 = 65532;
        for mode in [0o400, 0o600, 0o700] {
            assert!(!refused(GATE, mode, GATE) && !refused(0, mode, GATE) && !refused(GATE, mode, 0), "{mode:o}");
            assert!(refused(1000, mode, GATE), "{mode:o}");
        }
        // As kubelet and systemd have it.
        assert!(!refused(0, 0o440, GATE) && !refused(0, 0o440, 0));
        for mode in [0o440, 0o640, 0o660, 0o620] {
            assert!(refused(GATE, mode, GATE) && refused(GATE, mode, 0), "{mode:o}");
        }
        for mode in [0o620, 0o660, 0o604, 0o602, 0o601, 0o444, 0o666] {
            assert!([0, GATE].iter().all(|user| refused(0, mode, *user)), "{mode:o}");
        }
    }
}
