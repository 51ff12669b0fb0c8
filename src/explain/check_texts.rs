//! All words about a failed health check.

use super::{backend_tls, fragments};
use crate::model::rejection::{CheckFailure, FailedCheck, LookUp};

/// Why a health check failed, to be read behind the name of the backend.
pub fn check_failure(failure: &CheckFailure) -> String {
    match failure {
        CheckFailure::NotAccepted => "did not accept the connection in time".to_owned(),
        CheckFailure::NotReached(error) => format!("cannot be reached: {}", error.text),
        CheckFailure::Unresolved(LookUp::NoAnswer) => {
            "cannot be reached: the name server did not answer in time".to_owned()
        }
        CheckFailure::Unresolved(error) => format!("cannot be reached: {}", fragments::look_up(error)),
        CheckFailure::Silent { after, expected } => {
            let what = expected.as_ref().map_or_else(
                || "finish the TLS handshake".to_owned(),
                |expected| format!("answer {expected}, which is expected"),
            );
            format!("accepted the connection and did not {what}, within {} s", after.as_secs_f64())
        }
        CheckFailure::Closed { received, expected, error } => {
            let how = match error {
                None => "closed the connection".to_owned(),
                Some(error) => format!("broke the connection off ({})", error.text),
            };
            match expected {
                None => format!("{how} during the TLS handshake"),
                Some(expected) if received.is_empty() => format!("{how} without an answer, expected {expected}"),
                Some(expected) => format!("answered {received} and {how}, expected {expected}"),
            }
        }
        CheckFailure::Answered { received, expected } => format!("answered {received}, expected {expected}"),
        CheckFailure::BackendTls(fault) => format!("cannot be reached by TLS: {}", backend_tls::fault(fault)),
        CheckFailure::Tls(text) => format!("failed the TLS handshake: {text}"),
    }
}

/// What to do about it.
pub const fn check_advice(failure: &CheckFailure) -> &'static str {
    match failure {
        CheckFailure::Unresolved(_) => "Correct the name in backends, or write the address.",
        CheckFailure::NotAccepted | CheckFailure::NotReached(_) => {
            "Switch the machine on, start the service, and see that its address is right."
        }
        CheckFailure::BackendTls(_) => {
            "See what doorward check --connect says of its certificate, and correct backend_tls."
        }
        CheckFailure::Silent { expected: None, .. } | CheckFailure::Tls(_) => {
            "See that the service speaks TLS there; if it does not, correct health of the route."
        }
        CheckFailure::Silent { .. } => "The service hangs, or it waits for send in health of the route.",
        CheckFailure::Closed { .. } | CheckFailure::Answered { .. } => {
            "See which service listens there; if it is the right one, correct expect in health of the route."
        }
    }
}

/// The backends whose checks fail, each with the reason.
pub(super) fn failed_checks(failed: &[FailedCheck]) -> String {
    let one = |failed: &FailedCheck| format!("{} {}", failed.backend, check_failure(&failed.failure));
    failed.iter().map(one).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::rejection::testing::every_check_failure;
    use crate::model::rejection::{Answer, Text};

    #[test]
    fn every_failure_is_told_in_words_of_its_own() {
        let told: Vec<String> = every_check_failure().iter().map(check_failure).collect();
        let mut distinct = told.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), told.len(), "{told:#?}");
        for expected in [
            "cannot be reached: a text",
            "did not accept the connection in time",
            "accepted the connection and did not answer \"SSH-\", which is expected, within 2 s",
            "answered \"HTTP/1.1 400\", expected \"SSH-\"",
            "closed the connection without an answer, expected \"SSH-\"",
            "broke the connection off (a text) during the TLS handshake",
        ] {
            assert!(told.iter().any(|one| one == expected), "{expected} is not in {told:#?}");
        }
    }

    #[test]
    fn backends_are_told_one_after_the_other() {
        let failed = |backend: &str| FailedCheck {
            backend: Text::new(backend),
            failure: CheckFailure::Answered { received: Answer::new(b"220 mail"), expected: Answer::new(b"SSH-") },
        };
        assert_eq!(
            failed_checks(&[failed("a:1"), failed("b:2")]),
            "a:1 answered \"220 mail\", expected \"SSH-\"; b:2 answered \"220 mail\", expected \"SSH-\""
        );
    }
}
