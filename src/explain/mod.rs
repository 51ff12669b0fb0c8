//! A refusal in words: what happened, and what to do about it, for somebody who has never seen a certificate.
//!
//! Pure, and the same for `doorward why`, the control socket and the status page.

mod advice;
pub mod refusals;

use serde::Serialize;
use time::OffsetDateTime;

pub use self::advice::advice;
use crate::authorize::UNVERIFIED;
use crate::explain::refusals::{Refusal, Shown};
use crate::model::rejection::Reason;

/// A refusal in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// What happened.
    pub sentence: String,
    /// What to do about it.
    pub advice: String,
}

/// Says what happened and what to do about it. Dates are told as they are at `now`.
pub fn explain(refusal: &Refusal, now: OffsetDateTime) -> Explanation {
    Explanation { sentence: sentence(refusal, now), advice: specific(refusal) }
}

fn sentence(refusal: &Refusal, now: OffsetDateTime) -> String {
    let source = refusal.source.ip().to_canonical().to_string();
    let detail = &*refusal.detail;
    let asked = refusal.server_name.as_deref().unwrap_or("no name in particular");
    let route = refusal.route.as_ref().map_or("none", |route| route.as_str());
    let shown = refusal.certificate.as_ref();
    // Whoever shows a certificate that nobody vouches for is not necessarily the one it names.
    let name = shown.map_or(source.as_str(), Shown::name);
    // The names in a certificate that no authority in trust signed are the client's own words.
    let certificate = match shown {
        Some(shown) if !shown.anchored => format!(
            "{source} showed a certificate that calls itself {name}, and no authority in trust is known to have signed it: it"
        ),
        _ => format!("{name}'s certificate"),
    };
    match refusal.reason {
        // They know where they lead.
        Reason::ConnectionLimit if refusal.route.is_some() => {
            format!("{source} found no place on the route {route}: {detail}.")
        }
        Reason::SourceLimit if refusal.route.is_some() => {
            format!("{source} had too many connections open to be let in on the route {route}: {detail}.")
        }
        Reason::ConnectionLimit => {
            format!("{source} found no place: as many connections were open as limits.connections allows.")
        }
        Reason::HandshakeLimit => format!(
            "{source} connected and did not go on, and had to give way to somebody else: all places of limits.handshakes \
             were taken."
        ),
        Reason::SourceLimit => {
            format!("{source} had as many connections open as limits.connections_per_source allows one address.")
        }
        Reason::SourceRate => {
            format!("{source} connected more often than limits.connection_rate_per_source allows one address.")
        }
        Reason::SourceBanned => format!("{source} failed again and again and has to wait: {detail}."),
        Reason::SourceDenied => format!("{source} may not connect to the listener {}: {detail}.", refusal.listener),
        Reason::ProxyHeaderMissing => format!(
            "{source} stands in proxy_protocol_from of the listener {}, but did not say on whose behalf it connects: \
             {detail}.",
            refusal.listener
        ),
        Reason::ProxyHeaderInvalid => {
            format!("{source} said on whose behalf it connects, but in a way that cannot be read: {detail}.")
        }
        Reason::Draining => format!("{source} was on its way in when the gate was stopped."),
        Reason::ClientHelloTimeout => format!("{source} connected and did not begin a TLS connection in time."),
        Reason::ClientHelloClosedEarly => {
            format!("{source} connected and hung up before it had begun a TLS connection.")
        }
        Reason::NotTls => match detail {
            "other" => format!("{source} sent something that is not TLS."),
            what => format!("{source} sent something that is not TLS, but {what}."),
        },
        Reason::Malformed => format!("{source} began a TLS connection in a way that cannot be read."),
        Reason::TooLarge => format!("{source} began a TLS connection with far more bytes than any device needs."),
        Reason::ServerNameMissing => format!("{source} did not say which server name it wants."),
        Reason::ServerNameUnknown => format!("{source} asked for {asked}, and no route has that name."),
        Reason::ProtocolVersion => format!("{source} speaks no version of TLS that is still safe: {detail}."),
        Reason::NoSharedParameters => {
            format!("{source} knows no way to encrypt that is still safe, so it and the gate have none in common.")
        }
        Reason::NoApplicationProtocol => {
            format!("{source} asked for {asked}, but speaks none of the protocols that the route {route} offers.")
        }
        Reason::Misbehaved => format!("{source} broke the rules of TLS: {detail}."),
        Reason::PeerAlert => format!("{source} asked for {asked} and then refused the gate: {detail}."),
        Reason::HandshakeTimeout => {
            format!("{source} asked for {asked} and did not finish the TLS handshake in time.")
        }
        Reason::HandshakeClosedEarly => {
            format!("{source} asked for {asked} and hung up in the middle of the TLS handshake.")
        }
        Reason::CertificateRequired => format!("{source} asked for {asked} and showed no certificate."),
        Reason::UnknownCa => {
            let issuer = shown.map_or("nobody", |shown| &*shown.issuer);
            format!(
                "{source} showed a certificate that calls itself {name}, and nobody whom trust names has issued it. It says \
                 that this one did: {issuer}."
            )
        }
        Reason::Expired => match shown.map(|shown| shown.not_after) {
            Some(end) if end < refusal.at.unix_timestamp() => {
                format!("{certificate} expired {} ago.", lasting(now.unix_timestamp().saturating_sub(end)))
            }
            _ => format!("An authority that stands between {name}'s certificate and trust has expired."),
        },
        Reason::NotYetValid => match shown.map(|shown| shown.not_before) {
            Some(begin) if begin > now.unix_timestamp() => format!(
                "{certificate} is not valid before {}, which is {} from now.",
                date(begin),
                lasting(begin.saturating_sub(now.unix_timestamp()))
            ),
            Some(begin) if begin > refusal.at.unix_timestamp() => {
                format!("{certificate} was not valid before {}; by now it is.", date(begin))
            }
            _ => format!("An authority that stands between {name}'s certificate and trust is not valid yet."),
        },
        Reason::Revoked => format!("{name}'s certificate was revoked: a revocation list names it."),
        Reason::Denied => format!("{certificate} is shut out by its line in the configuration: {detail}."),
        Reason::RevocationUnknown => format!(
            "Whether {name}'s certificate was revoked could not be told: revocation_lists lacks a list of the authority \
             that issued it, or of one above."
        ),
        Reason::RevocationListExpired => format!(
            "Whether {name}'s certificate was revoked could not be told: the list of the authority that issued it is out \
             of date."
        ),
        Reason::WrongPurpose => {
            format!("{certificate} is not for devices that connect, but for something else, such as a server.")
        }
        Reason::BadSignature if shown.is_some_and(|shown| !shown.anchored) => {
            format!(
                "{source} showed a certificate that calls itself {name}, and could not prove that it has the key to it."
            )
        }
        Reason::BadSignature => {
            format!("{source} showed {name}'s certificate, but could not prove that it has the key to it.")
        }
        Reason::UnsupportedKey => format!("{certificate} cannot be checked: {detail}."),
        Reason::CertificateInvalid => format!("{certificate} is not one that a device can use here: {detail}."),
        Reason::IdentityNotAllowed => match shown {
            Some(_) if detail == UNVERIFIED => format!(
                "{source} showed a certificate that calls itself {name}. Nobody has verified it, and the route {route} \
                 does not let such ones in."
            ),
            Some(_) => format!("{name}'s certificate is a good one, but the route {route} does not let {name} in."),
            None => {
                format!("{source} showed no certificate, and the route {route} does not let anybody in without one.")
            }
        },
        Reason::BackendRefused => {
            format!("{} was let in, but nothing listens where the route {route} leads: {detail}.", who(refusal))
        }
        Reason::BackendTimeout => {
            format!(
                "{} was let in, but what the route {route} leads to did not answer in time: {detail}.",
                who(refusal)
            )
        }
        Reason::BackendUnreachable => {
            format!("{} was let in, but there is no way to what the route {route} leads to: {detail}.", who(refusal))
        }
        Reason::BackendUnresolved => format!(
            "{} was let in, but the name of what the route {route} leads to cannot be looked up: {detail}.",
            who(refusal)
        ),
        Reason::Internal => format!("{source} was turned away by a fault of the gate: {detail}."),
    }
}

/// Who was let in: a device by its name, any other client by its address.
fn who(refusal: &Refusal) -> String {
    refusal
        .certificate
        .as_ref()
        .filter(|shown| shown.verified)
        .map_or_else(|| refusal.source.ip().to_canonical().to_string(), |shown| shown.name().to_owned())
}

/// What to do, with the names of this case where they help.
fn specific(refusal: &Refusal) -> String {
    let shown = refusal.certificate.as_ref();
    let route = refusal.route.as_ref().map_or("none", |route| route.as_str());
    match (refusal.reason, shown) {
        (Reason::ServerNameUnknown, _) => {
            let asked = refusal.server_name.as_deref().unwrap_or_default();
            format!(
                "If it should lead somewhere, add \"{asked}\" to server_names of a route; otherwise \
                 correct the name on the device, or leave strangers to guess."
            )
        }
        (Reason::CertificateRequired, _) => {
            "If this was one of your devices: install its .p12 file there. If it is installed already, the browser or app \
             did not show it: close it wholly, open it again, and choose the certificate when asked. No client shows one \
             whose key the gate does not take, such as Ed448 or RSA-PSS."
                .to_owned()
        }
        (
            Reason::Expired
            | Reason::NotYetValid
            | Reason::WrongPurpose
            | Reason::UnsupportedKey
            | Reason::CertificateInvalid,
            Some(shown),
        ) if !shown.anchored => {
            format!("If it was not one of your devices, there is nothing to do. If it was: {}", advice(refusal.reason))
        }
        (Reason::Expired, Some(shown)) => format!(
            "Issue {} a new certificate (doorward ca renew NAME) and install it there. If this one should \
             still be valid, the clock of the gate's machine is wrong.",
            shown.name()
        ),
        (Reason::Denied, Some(shown)) => format!(
            "If {} should get in again, put a # before its line under deny in doorward.toml.",
            shown.name()
        ),
        (Reason::Revoked, Some(shown)) => format!(
            "If that was a mistake, or the device is back, issue {} a new certificate (doorward ca device NAME).",
            shown.name()
        ),
        (Reason::IdentityNotAllowed, Some(shown)) if &*refusal.detail != UNVERIFIED => format!(
            "If it should get in, add \"{}\" to allow of the route {route}, or to one of its groups.",
            shown.name()
        ),
        (reason, _) => advice(reason).to_owned(),
    }
}

/// A time in its largest unit, rounded down: how people would say it.
pub fn lasting(seconds: i64) -> String {
    let (count, unit) = match seconds {
        ..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    counted(u64::try_from(count).unwrap_or(0), unit)
}

/// So many of what is called `one` if it is one, and gets an s if it is more.
pub fn counted(count: u64, one: &str) -> String {
    format!("{count} {one}{}", if count == 1 { "" } else { "s" })
}

/// A moment as a date.
fn date(seconds: i64) -> String {
    OffsetDateTime::from_unix_timestamp(seconds)
        .map_or_else(|_| "a date that no clock can show".to_owned(), |moment| moment.date().to_string())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::SocketAddr;

    use super::*;
    use crate::model::identity::Sha256;
    use crate::model::names::Name;
    use crate::model::source::{Prefixes, Source};

    const DAY: i64 = 86_400;
    const NOW: i64 = 1_800_000_000;

    fn now() -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(NOW).expect("a moment")
    }

    fn shown() -> Shown {
        Shown {
            names: vec!["alice-phone".into(), "alice@home.example".into()],
            fingerprint: Sha256([7; 32]),
            serial: "4a01".into(),
            issuer: "CN=Another house".into(),
            not_before: NOW - 100 * DAY,
            not_after: NOW + 100 * DAY,
            verified: false,
            anchored: false,
        }
    }

    fn refusal(reason: Reason, certificate: Option<Shown>) -> Refusal {
        Refusal {
            at: now(),
            id: 1,
            source: SocketAddr::from(([192, 0, 2, 7], 4711)),
            counted_as: Source::of([192, 0, 2, 7].into(), Prefixes::default()),
            listener: Name::parse("public").expect("a name"),
            server_name: Some("nas.home.example".into()),
            route: Some(Name::parse("nas").expect("a name")),
            reason,
            detail: "the detail".into(),
            alert: None,
            certificate,
            times: 1,
        }
    }

    fn said(refusal: &Refusal) -> String {
        let Explanation { sentence, advice } = explain(refusal, now());
        format!("{sentence} {advice}")
    }

    #[test]
    fn every_reason_has_a_sentence_and_advice_of_its_own_with_and_without_a_certificate() {
        for certificate in [None, Some(shown()), Some(Shown { verified: true, ..shown() })] {
            let mut sentences = HashSet::new();
            for &reason in Reason::ALL {
                let refusal = refusal(reason, certificate.clone());
                let Explanation { sentence, advice } = explain(&refusal, now());
                for text in [&sentence, &advice] {
                    assert!(text.ends_with('.') || text.ends_with(')') || text.ends_with('?'), "{reason}: {text}");
                    assert!(text.len() > 20 && !text.contains("  "), "{reason}: {text}");
                }
                let who = sentence.contains("192.0.2.7") || certificate.is_some() && sentence.contains("alice-phone");
                assert!(who, "{reason}: it is not said who: {sentence}");
                assert!(sentences.insert(sentence), "{reason}: said of another one, too");
            }
        }
    }

    #[test]
    fn the_names_and_dates_of_the_case_are_told() {
        let shown = || Shown { anchored: true, ..shown() };
        let expired = Shown { not_after: NOW - 3 * DAY, ..shown() };
        let text = said(&refusal(Reason::Expired, Some(expired)));
        assert!(text.starts_with("alice-phone's certificate expired 3 days ago. Issue alice-phone a new "), "{text}");
        // The certificate itself is good.
        let text = said(&refusal(Reason::Expired, Some(shown())));
        assert!(text.starts_with("An authority that stands between alice-phone's certificate and trust"), "{text}");

        let early = Shown { not_before: NOW + 2 * 3600, ..shown() };
        let text = said(&refusal(Reason::NotYetValid, Some(early)));
        assert!(text.contains("not valid before 2027-01-15, which is 2 hours from now"), "{text}");

        let text = said(&refusal(Reason::UnknownCa, Some(shown())));
        assert!(text.contains("calls itself alice-phone") && text.contains("CN=Another house"), "{text}");
        let text = said(&refusal(Reason::ServerNameUnknown, None));
        assert!(text.contains("asked for nas.home.example") && text.contains("add \"nas.home.example\" to"), "{text}");
        let text = said(&refusal(Reason::IdentityNotAllowed, Some(shown())));
        assert!(text.starts_with("alice-phone's certificate is a good one"), "{text}");
        let unverified = Refusal { detail: UNVERIFIED.into(), ..refusal(Reason::IdentityNotAllowed, Some(shown())) };
        assert!(said(&unverified).contains("Nobody has verified it"), "{}", said(&unverified));
        assert!(text.contains("add \"alice-phone\" to allow of the route nas"), "{text}");
        let text = said(&refusal(Reason::IdentityNotAllowed, None));
        assert!(text.starts_with("192.0.2.7 showed no certificate"), "{text}");
    }

    #[test]
    fn names_in_certificates_of_strangers_are_told_as_claims() {
        for reason in [
            Reason::Expired,
            Reason::NotYetValid,
            Reason::WrongPurpose,
            Reason::UnsupportedKey,
            Reason::CertificateInvalid,
            Reason::BadSignature,
        ] {
            for anchored in [false, true] {
                let dates = match reason {
                    Reason::NotYetValid => (NOW + DAY, NOW + 2 * DAY),
                    _ => (NOW - 2 * DAY, NOW - DAY),
                };
                let shown = Shown { anchored, not_before: dates.0, not_after: dates.1, ..shown() };
                let text = said(&refusal(reason, Some(shown)));
                assert_eq!(text.contains("alice-phone's certificate"), anchored, "{text}");
                assert_eq!(
                    text.contains("192.0.2.7 showed a certificate that calls itself alice-phone"),
                    !anchored,
                    "{text}"
                );
                assert!(anchored || !text.contains("Issue alice-phone"), "{text}");
            }
        }
        // The modes that do not verify let in clients whose names are claims.
        let text = said(&refusal(Reason::BackendRefused, Some(shown())));
        assert!(text.starts_with("192.0.2.7 was let in"), "{text}");
        let verified = Shown { anchored: true, verified: true, ..shown() };
        let text = said(&refusal(Reason::BackendRefused, Some(verified)));
        assert!(text.starts_with("alice-phone was let in"), "{text}");
    }

    #[test]
    fn times_are_told_as_people_tell_them() {
        for (seconds, text) in [
            (-5, "0 seconds"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "1 minute"),
            (7199, "1 hour"),
            (2 * DAY - 1, "1 day"),
            (400 * DAY, "400 days"),
        ] {
            assert_eq!(lasting(seconds), text);
        }
    }
}
