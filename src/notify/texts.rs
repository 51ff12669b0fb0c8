//! What is told about each event.

use std::net::IpAddr;

use super::notices::Text;
use crate::config::expiries::{Expiry, Kind};
use crate::model::text::{counted, date};

/// Seconds of a day.
const DAY: i64 = 24 * 60 * 60;

/// The most errors that are told.
const ERRORS_MAX: usize = 5;

/// A client has pretended to be a device, or used a canary; `told` says how.
pub(crate) fn impostor(name: &str, told: String, source: IpAddr, route: Option<String>) -> Text {
    Text {
        title: format!("Somebody pretended to be {name}"),
        message: told,
        route,
        source: Some(source.to_canonical().to_string()),
    }
}

/// A device has connected for the first time.
pub(crate) fn new_device(name: &str, source: IpAddr, route: &str) -> Text {
    let source = source.to_canonical();
    Text {
        title: format!("{name} has connected for the first time"),
        message: format!(
            "{name} connected for the first time, from {source} to {route}. If that was not you: doorward ca revoke {name}"
        ),
        route: Some(route.to_owned()),
        source: Some(source.to_string()),
    }
}

/// A backend of a route does not answer.
pub(crate) fn backend_down(route: &str, backend: &str) -> Text {
    Text {
        title: format!("{route} is down"),
        message: format!(
            "{backend} does not answer a device that the gate has admitted to {route}. To see why: doorward why"
        ),
        route: Some(route.to_owned()),
        source: None,
    }
}

/// It answers again.
pub(crate) fn backend_up(route: &str, backend: &str) -> Text {
    Text {
        title: format!("{route} is up"),
        message: format!("{backend} answers again."),
        route: Some(route.to_owned()),
        source: None,
    }
}

/// Something expires, or has expired.
pub(crate) fn expiring(expiry: &Expiry, now: i64) -> Text {
    let Expiry { at, kind, name } = expiry;
    let remedy = match kind {
        Kind::Server => "doorward ca server",
        Kind::Device => "doorward ca renew",
        Kind::TrustAnchor | Kind::RevocationList => "doorward status",
    };
    let (date, left) = (date(*at), at.saturating_sub(now).div_euclid(DAY));
    let when = match left {
        ..0 => format!("has expired on {date}"),
        days => format!("expires on {date}, in {}", counted(days.unsigned_abs(), "day")),
    };
    let what = match kind {
        Kind::TrustAnchor => format!("The authority in {name}"),
        Kind::RevocationList => format!("The revocation list {name}"),
        Kind::Server => format!("The gate's own certificate {name}"),
        Kind::Device => format!("The certificate of {name}"),
    };
    Text {
        title: format!("{what} {}", if left < 0 { "has expired" } else { "expires soon" }),
        message: format!("{what} {when}. What to do: {remedy}"),
        ..Text::default()
    }
}

/// A configuration was refused.
pub(crate) fn reload_failed(errors: &[String]) -> Text {
    Text {
        title: "The changed configuration was refused".to_owned(),
        message: format!("The gate goes on with the one before. To see all errors: doorward check\n{}", listed(errors)),
        ..Text::default()
    }
}

/// Rights were taken away, and the gate may still grant them.
pub(crate) fn revocation_not_in_force(why: &[String]) -> Text {
    Text {
        title: "A revocation may not be in force".to_owned(),
        message: format!(
            "A device that you have revoked may still be admitted. To see what is in force: doorward check\n{}",
            listed(why)
        ),
        ..Text::default()
    }
}

fn listed(lines: &[String]) -> String {
    let more = lines.len().saturating_sub(ERRORS_MAX);
    let first = lines.iter().take(ERRORS_MAX).map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    first.chain((more > 0).then(|| format!("and {more} more"))).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiry_says_what_when_and_what_to_do() {
        let expiry = |at| Expiry { at, kind: Kind::Device, name: "alice-phone".to_owned() };
        let told = expiring(&expiry(5 * DAY + 7), 0);
        assert_eq!(told.title, "The certificate of alice-phone expires soon");
        assert_eq!(
            told.message,
            "The certificate of alice-phone expires on 1970-01-06, in 5 days. What to do: doorward ca renew"
        );
        let told = expiring(&expiry(DAY), DAY + 1);
        assert_eq!(told.title, "The certificate of alice-phone has expired");
        assert!(
            told.message.starts_with("The certificate of alice-phone has expired on 1970-01-02."),
            "{}",
            told.message
        );
    }

    #[test]
    fn errors_are_told_in_one_line_each_and_bounded() {
        let errors: Vec<String> = (0..8).map(|n| format!("a.toml:{n}: wrong\n  fix: {n}")).collect();
        let message = reload_failed(&errors).message;
        assert_eq!(message.lines().count(), 7, "{message}");
        assert!(message.contains("\na.toml:4: wrong fix: 4\nand 3 more"), "{message}");
    }
}
