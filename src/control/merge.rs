//! One answer of several processes of a gate: the one that accepts connections, and those that upgrades have left.

use super::answers::rfc3339;
use super::earlier::EarlierAnswer;
use super::{Answer, EarlierProcess, REFUSALS_MAX, SESSIONS_MAX, Sessions, Status, Why};
use crate::handover::Process;

/// The answer of the process that accepts connections, completed by those of earlier ones. What takes rights away is an error
/// unless each of them has done it.
pub(super) fn merged(own: Answer, others: Vec<EarlierAnswer>) -> Answer {
    match own {
        Answer::Status(status) => Answer::Status(Box::new(with_status(*status, others))),
        Answer::Sessions(sessions) => Answer::Sessions(with_sessions(sessions, others)),
        Answer::Why(why) => Answer::Why(with_refusals(why, others)),
        Answer::Cut(cut) => match failure(&others, "its connections were not cut") {
            Some(error) => Answer::Error(error),
            None => Answer::Cut(with_sessions(cut, others)),
        },
        Answer::ListTaken(mut taken) => {
            for (process, answer) in &others {
                match answer {
                    Ok(Answer::ListTaken(theirs)) => taken.sessions_cut += theirs.sessions_cut,
                    // None of its routes trusts the authority, so none of its sessions does; or it has a newer list. What is in
                    // force there is compared afterwards.
                    Ok(Answer::Error(_)) => {}
                    answer => return Answer::Error(words(process, answer, "the list is not in force there")),
                }
            }
            Answer::ListTaken(taken)
        }
        Answer::InForce(mut in_force) => {
            for (process, answer) in others {
                match answer {
                    // A route without one is not concerned.
                    Ok(Answer::InForce(theirs)) => {
                        in_force
                            .routes
                            .extend(theirs.routes.into_iter().filter(|route| route.verifies && route.trusts));
                    }
                    answer => return Answer::Error(words(&process, &answer, "what is in force there is not known")),
                }
            }
            Answer::InForce(in_force)
        }
        Answer::Reloaded(mut reloaded) => {
            for (process, answer) in &others {
                match answer {
                    Ok(Answer::Reloaded(theirs)) => {
                        reloaded.sessions_kept += theirs.sessions_kept;
                        reloaded.sessions_cut += theirs.sessions_cut;
                    }
                    // The same configuration is in force here, so its release does not understand all of it, or its sandbox does
                    // not let it read a file.
                    Ok(Answer::NotReloaded { errors, sessions_cut, .. }) => {
                        reloaded.sessions_cut += sessions_cut;
                        reloaded.warnings.push(format!(
                            "{} cannot load this configuration, except for revocation lists and deny; its connections end at \
                             {}: {}",
                            name(process),
                            rfc3339(process.until),
                            errors.join("; ")
                        ));
                    }
                    answer => {
                        return Answer::Error(words(
                            process,
                            answer,
                            "the configuration was loaded, but is not in force there",
                        ));
                    }
                }
            }
            Answer::Reloaded(reloaded)
        }
        Answer::NotReloaded { errors, in_force, mut sessions_cut } => {
            for (_, answer) in &others {
                if let Ok(Answer::NotReloaded { sessions_cut: theirs, .. }) = answer {
                    sessions_cut += theirs;
                }
            }
            Answer::NotReloaded { errors, in_force, sessions_cut }
        }
        own @ (Answer::Upgraded(_)
        | Answer::NotUpgraded { .. }
        | Answer::Certificates(_)
        | Answer::Counters(_)
        | Answer::History(_)
        | Answer::Error(_)) => own,
    }
}

/// An earlier process in words.
fn name(Process { pid, version, .. }: &Process) -> String {
    format!("the process {pid} (version {version}), which an upgrade has left,")
}

fn words(process: &Process, answer: &Result<Answer, String>, so: &str) -> String {
    let what = match answer {
        Err(error) => format!("does not answer: {error}"),
        Ok(Answer::Error(error)) => format!("refuses: {error}"),
        Ok(_) => "gives the answer to another request".to_owned(),
    };
    format!("{} {what}; {so}. To end its connections: kill -KILL {}", name(process), process.pid)
}

/// What is said if one of them has not cut sessions.
fn failure(others: &[EarlierAnswer], so: &str) -> Option<String> {
    let failed = others.iter().find(|(_, answer)| !matches!(answer, Ok(Answer::Cut(_))));
    failed.map(|(process, answer)| words(process, answer, so))
}

fn with_status(mut status: Status, others: Vec<EarlierAnswer>) -> Status {
    for (process, answer) in others {
        let theirs = match answer {
            Ok(Answer::Status(theirs)) => Some(*theirs),
            _ => None,
        };
        if let Some(theirs) = &theirs {
            status.sessions += theirs.sessions;
            for route in &mut status.routes {
                let same = theirs.routes.iter().find(|other| other.name == route.name);
                route.sessions += same.map_or(0, |other| other.sessions);
            }
        }
        status.earlier.push(EarlierProcess {
            pid: process.pid,
            since: rfc3339(process.since),
            until: rfc3339(process.until),
            version: process.version,
            sessions: theirs.map(|theirs| theirs.sessions),
        });
    }
    status
}

fn with_sessions(mut own: Sessions, others: Vec<EarlierAnswer>) -> Sessions {
    // The newest process last, and its sessions first.
    for (process, answer) in others.into_iter().rev() {
        let (Ok(Answer::Sessions(theirs)) | Ok(Answer::Cut(theirs))) = answer else { continue };
        own.open += theirs.open;
        let room = SESSIONS_MAX.saturating_sub(own.sessions.len());
        let theirs = theirs.sessions.into_iter().take(room);
        own.sessions.extend(theirs.map(|mut session| {
            session.process = Some(process.pid);
            session
        }));
    }
    own
}

fn with_refusals(mut own: Why, others: Vec<EarlierAnswer>) -> Why {
    for (_, answer) in others.into_iter().rev() {
        let Ok(Answer::Why(theirs)) = answer else { continue };
        own.known += theirs.known;
        own.rejected += theirs.rejected;
        own.refusals.extend(theirs.refusals);
    }
    own.refusals.truncate(REFUSALS_MAX);
    own
}
