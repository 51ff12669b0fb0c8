//! How old the answers for host names of backends are, in words.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::model::look_up::{FailedLookUp, HostName};
use crate::model::text::duration;

/// A host name of a backend as it is told to other processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToldName {
    /// The name.
    pub name: String,
    /// The addresses in use: the last good answer.
    pub addresses: Vec<String>,
    /// When that answer came (RFC 3339); `None` if there is none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered: Option<String>,
    /// How long ago that was, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
    /// When the last look-up failed (RFC 3339); `None` if it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
    /// What the resolver said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// All of this in words.
    pub text: String,
}

impl ToldName {
    /// What is told of it at a moment.
    pub fn new(host: &HostName, now: OffsetDateTime) -> Self {
        let rfc3339 = |at: OffsetDateTime| at.format(&Rfc3339).unwrap_or_default();
        Self {
            name: host.name.clone(),
            addresses: host.addresses.iter().map(ToString::to_string).collect(),
            answered: host.answered.map(rfc3339),
            seconds: host.answered.map(|at| u64::try_from(seconds(at, now)).unwrap_or(0)),
            failed: host.failed.as_ref().map(|failed| rfc3339(failed.at)),
            error: host.failed.as_ref().map(|failed| failed.error.clone()),
            text: words(host, now),
        }
    }
}

/// The addresses, the age of the answer, and why the last look-up failed, if it did.
pub fn words(host: &HostName, now: OffsetDateTime) -> String {
    let addresses: Vec<String> = host.addresses.iter().map(ToString::to_string).collect();
    let ago = |at| format!("{} ago", duration(seconds(at, now)));
    let failed = host.failed.as_ref().map(|FailedLookUp { at, error }| (ago(*at), error));
    match (host.answered.map(ago), failed) {
        (Some(age), None) => format!("{}, answer of {age}", addresses.join(", ")),
        (Some(age), Some((ago, error))) => {
            format!("{}, answer of {age}; the last look-up failed {ago}: {error}", addresses.join(", "))
        }
        (None, Some((ago, error))) => format!("no address: the last look-up failed {ago}: {error}"),
        (None, None) => "no address: the first look-up is under way".to_owned(),
    }
}

/// Seconds from a moment until now; 0 if the clock was set back.
fn seconds(at: OffsetDateTime, now: OffsetDateTime) -> i64 {
    (now - at).whole_seconds().max(0)
}

#[cfg(test)]
mod tests {
    use time::Duration;
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-28 17:00 UTC);

    #[test]
    fn age_and_failure_are_told_in_one_line() {
        let answered = |ago| Some(NOW - Duration::seconds(ago));
        let failed = Some(FailedLookUp { at: NOW - Duration::seconds(70), error: "no such name".to_owned() });
        let addresses = vec!["192.168.1.10".parse().expect("an address")];
        let mut host = HostName { name: "nas.lan".to_owned(), addresses, answered: answered(3 * 3600 + 5), failed };
        assert_eq!(
            words(&host, NOW),
            "192.168.1.10, answer of 3 hours ago; the last look-up failed 1 minute ago: no such name"
        );
        let told = ToldName::new(&host, NOW);
        assert_eq!(told.seconds, Some(3 * 3600 + 5));
        assert_eq!(told.failed.as_deref(), Some("2026-11-28T16:58:50Z"));
        host.failed = None;
        assert_eq!(words(&host, NOW), "192.168.1.10, answer of 3 hours ago");
        // The clock was set back.
        host.answered = answered(-60);
        assert_eq!(words(&host, NOW), "192.168.1.10, answer of 0 seconds ago");
        host = HostName { addresses: Vec::new(), answered: None, ..host };
        assert_eq!(words(&host, NOW), "no address: the first look-up is under way");
        host.failed = Some(FailedLookUp { at: NOW, error: "no such name".to_owned() });
        assert_eq!(words(&host, NOW), "no address: the last look-up failed 0 seconds ago: no such name");
    }
}
