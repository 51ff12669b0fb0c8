//! What is told about each event, in the sentences that the page and `doorward status` have.

use std::net::IpAddr;

use time::OffsetDateTime;

use super::notices::Text;
use crate::explain::clock::Clock;
use crate::explain::finding::{Finding, seen, seen_of};
use crate::model::impostor::{Claim, Impostor};
use crate::model::rejection::{CheckFailure, Reason};
use crate::model::renewal::IssuedUnattended;
use crate::model::shell::word;
use crate::model::text::counted;

/// The most lines about what is wrong.
const LINES_MAX: usize = 5;

/// What the owner has to know.
pub(crate) fn found(finding: &Finding, clock: &Clock) -> Text {
    let message = [Some(finding.sentence(clock)), finding.advice()];
    Text {
        title: finding.headline(clock),
        message: message.into_iter().flatten().collect::<Vec<_>>().join("\n"),
        ..Text::default()
    }
}

/// A client has pretended to be a device, or used a canary; `told` says how.
pub(crate) fn impostor(impostor: &Impostor, told: String, source: IpAddr, route: Option<String>) -> Text {
    let name = &impostor.name;
    Text {
        title: match impostor.claim {
            Claim::Name | Claim::Serial | Claim::Key => format!("Somebody pretended to be {name}"),
            Claim::Canary => format!("Somebody used the canary {name}"),
            Claim::CanaryRoute => format!("Somebody asked for the canary route {name}"),
        },
        message: told,
        route,
        source: Some(source.to_canonical().to_string()),
        ..Text::default()
    }
}

/// A device has connected for the first time.
pub(crate) fn new_device(name: &str, source: IpAddr, route: &str) -> Text {
    let source = source.to_canonical();
    Text {
        title: format!("{name} has connected for the first time"),
        message: format!(
            "{name} connected for the first time, from {source} to {route}. If that was not you: doorward ca revoke {}.",
            word(name)
        ),
        route: Some(route.to_owned()),
        source: Some(source.to_string()),
        ..Text::default()
    }
}

/// A backend of a route does not answer, as was seen.
pub(crate) fn backend_down(route: &str, backend: &str, reason: Reason) -> Text {
    Text {
        title: format!("{route} is down"),
        message: format!(
            "{} A device that was admitted to {route} got no connection. To see more: doorward check --connect.",
            seen(backend, Some(reason))
        ),
        route: Some(route.to_owned()),
        ..Text::default()
    }
}

/// The health checks of a backend of a route fail.
pub(crate) fn backend_unhealthy(route: &str, backend: &str, failure: &CheckFailure) -> Text {
    Text {
        title: format!("{route} is down"),
        message: format!(
            "{} Devices that connect to {route} get another backend, or none. To see more: doorward status.",
            seen_of(backend, Some(failure), None)
        ),
        route: Some(route.to_owned()),
        ..Text::default()
    }
}

/// It answers again.
pub(crate) fn backend_up(route: &str, backend: &str) -> Text {
    Text {
        title: format!("{route} is up"),
        message: format!("{backend} answers again."),
        route: Some(route.to_owned()),
        ..Text::default()
    }
}

/// After orders have failed, one has succeeded; `next` is when the next one begins.
pub(crate) fn renewed(names: &str, failed: u32, next: Option<String>) -> Text {
    let failed = counted(u64::from(failed), "order");
    let next = next.map(|next| format!(" It is renewed again {next}.")).unwrap_or_default();
    Text {
        title: "The public certificate was renewed".to_owned(),
        message: format!("After {failed} that failed, a certificate for {names} was issued.{next}"),
        resolved: true,
        ..Text::default()
    }
}

/// A device has asked for its next certificate.
pub(crate) fn renewal_requested(device: &str, same_key: bool, source: IpAddr) -> Text {
    let source = source.to_canonical();
    let key = if same_key { "the key that it has" } else { "a new key" };
    let how = if same_key {
        format!(" To issue the certificate: doorward ca approve {}", word(device))
    } else {
        // With the key that is to be compared, which the device shows as well.
        String::new()
    };
    Text {
        title: format!("{device} asks for its next certificate"),
        message: format!(
            "{device} has sent a request from {source}, with {key}. To see it: doorward ca requests.{how}"
        ),
        source: Some(source.to_string()),
        ..Text::default()
    }
}

/// A device has its next certificate, and the owner was not asked.
pub(crate) fn renewed_unattended(device: &str, issued: &IssuedUnattended, source: IpAddr) -> Text {
    let (source, device_word) = (source.to_canonical(), word(device));
    let until = OffsetDateTime::from_unix_timestamp(issued.not_after)
        .map_or_else(|_| String::new(), |at| at.date().to_string());
    Text {
        title: format!("{device} has a new certificate"),
        message: format!(
            "{device} has asked from {source}, with the key that it has, and its certificate was renewed until {until}. If it is not yours              any more: doorward ca revoke {device_word}"
        ),
        source: Some(source.to_string()),
        ..Text::default()
    }
}

/// Rights were taken away, and a reload could not put that in force.
pub(crate) fn revocation_not_in_force(why: &[String]) -> Text {
    Text {
        title: "A revocation may not be in force".to_owned(),
        message: format!(
            "A device that you have revoked may still be admitted. To see what is wrong: doorward check\n{}",
            listed(why)
        ),
        ..Text::default()
    }
}

fn listed(lines: &[String]) -> String {
    let more = lines.len().saturating_sub(LINES_MAX);
    let first = lines.iter().take(LINES_MAX).map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    first.chain((more > 0).then(|| format!("and {more} more"))).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;
    use crate::explain::clock::Zone;
    use crate::model::expiry::{Expiry, Kind};

    #[test]
    fn finding_is_told_with_what_to_do() {
        let clock = Clock::new(OffsetDateTime::UNIX_EPOCH, Zone::utc());
        let expiry =
            Expiry { at: 5 * 86_400 + 7, kind: Kind::Device, name: "alice phone".to_owned(), renewed_since: None };
        let told = found(&Finding::Expiry(expiry), &clock);
        assert_eq!(told.title, "alice phone: expires in 5 days");
        assert!(
            told.message.ends_with("install it on the device: doorward ca renew 'alice phone'."),
            "{}",
            told.message
        );
    }

    #[test]
    fn errors_are_told_in_one_line_each_and_bounded() {
        let errors: Vec<String> = (0..8).map(|n| format!("a.toml:{n}: wrong\n  fix: {n}")).collect();
        let message = revocation_not_in_force(&errors).message;
        assert_eq!(message.lines().count(), 7, "{message}");
        assert!(message.contains("\na.toml:4: wrong fix: 4\nand 3 more"), "{message}");
    }
}
