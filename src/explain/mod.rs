//! A refusal in words: what happened, and what to do about it, for a reader who has never seen a certificate; and the latest
//! refusals, for those who ask.
//!
//! All text about a refusal is made here: the log's `detail`, `doorward why` and `explain`, the control socket, the status
//! page. A new reason gets its text in `refusal_texts`, a new cause in `cause_texts`, which match all of them.

mod backend_tls;
mod cause_texts;
pub mod certificate;
mod check_texts;
pub mod clock;
pub mod finding;
mod fragments;
pub mod impostor;
pub mod look_up;
pub mod recent;
pub mod refusal_json;
mod refusal_texts;

pub use self::cause_texts::detail;
use self::certificate::Certificate;
pub use self::check_texts::{check_advice, check_failure};
pub use self::fragments::moment;
use self::recent::Refusal;
pub use self::refusal_texts::{Words, sentence, words};
use crate::model::rejection::{Cause, Reason};
use crate::model::shell::word;

/// Who was let in: a device by its name, any other client by its address.
fn who(refusal: &Refusal) -> String {
    refusal
        .certificate
        .as_ref()
        .filter(|shown| shown.verified)
        .map_or_else(|| refusal.source.ip().to_canonical().to_string(), |shown| shown.name().to_owned())
}

/// What to do about a refusal, with the names of this case where they help.
pub fn advice(refusal: &Refusal) -> String {
    if let Some(impostor) = &refusal.impostor {
        return impostor::advice(impostor);
    }
    let shown = refusal.certificate.as_ref();
    let route = refusal.route.as_ref().map_or("none", |route| route.as_str());
    match (refusal.reason(), shown) {
        (Reason::ServerNameUnknown, _) => {
            let asked = refusal.server_name.as_deref().unwrap_or_default();
            format!(
                "If it should lead somewhere, add \"{asked}\" to server_names of a route; otherwise \
                 correct the name on the device. If it was a stranger, ignore it."
            )
        }
        (Reason::CertificateRequired, _) => {
            "If this was one of your devices: install its .p12 file there. If it is installed already, the browser or app \
             did not show it: close it completely, open it again, and choose the certificate when asked. A certificate that \
             Doorward did not issue may have a key that the gate does not accept, such as Ed448 or RSA-PSS."
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
            format!("If it was not one of your devices, there is nothing to do. If it was: {}", words(refusal.reason()).advice)
        }
        (_, Some(shown)) if is_guest(refusal) => format!(
            "A guest pass is for some hours and some routes: there is nothing to do. For another one: doorward ca device {} --for \
             3h --route ROUTE.",
            word(shown.name())
        ),
        (Reason::Expired, Some(shown)) => format!(
            "Issue {} a new certificate (doorward ca renew {}) and install it there. If this one should \
             still be valid, the clock of the gate's machine is wrong.",
            shown.name(),
            word(shown.name())
        ),
        (Reason::Denied, Some(shown)) => format!(
            "If {} should get in again, put a # before its line under deny in doorward.toml.",
            shown.name()
        ),
        (Reason::Revoked, Some(shown)) => format!(
            "If that was a mistake, or the device is back, issue {} a new certificate (doorward ca device {}).",
            shown.name(),
            word(shown.name())
        ),
        (Reason::IdentityNotAllowed, Some(shown)) if refusal.cause != Cause::Unverified => format!(
            "If it should get in, add \"{}\" to allow of the route {route}, or to one of its groups.",
            shown.name()
        ),
        (reason, _) => words(reason).advice.to_owned(),
    }
}

/// Whether a guest pass was refused for what it is: it has ended, or is for other routes.
pub(crate) fn is_guest(refusal: &Refusal) -> bool {
    let is_pass = |shown: &Certificate| shown.guest && (shown.anchored || shown.of_other_authority);
    refusal.certificate.as_ref().is_some_and(is_pass)
        && matches!(refusal.cause, Cause::Expired { .. } | Cause::GuestElsewhere { .. })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::SocketAddr;

    use time::OffsetDateTime;

    use super::*;
    use crate::model::identity::Sha256;
    use crate::model::names::Name;
    use crate::model::rejection::Text;
    use crate::model::rejection::testing::every_cause;
    use crate::model::source::{Prefixes, Source};

    const DAY: i64 = 86_400;
    const NOW: i64 = 1_800_000_000;

    fn now() -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(NOW).expect("a moment")
    }

    fn shown() -> Certificate {
        Certificate {
            names: vec!["alice-phone".into(), "alice@home.example".into()],
            fingerprint: Sha256([7; 32]),
            serial: "4a01".into(),
            issuer: "CN=Another house".into(),
            not_before: NOW - 100 * DAY,
            not_after: NOW + 100 * DAY,
            verified: false,
            anchored: false,
            of_other_authority: false,
            guest: false,
            descends_from: None,
        }
    }

    /// The first of the causes that are counted as `reason`.
    fn refusal(reason: Reason, certificate: Option<Certificate>) -> Refusal {
        let cause = every_cause().into_iter().find(|cause| cause.reason() == reason);
        with_cause(cause.expect("every reason has a cause"), certificate)
    }

    fn with_cause(cause: Cause, certificate: Option<Certificate>) -> Refusal {
        Refusal {
            at: now(),
            id: 1,
            source: SocketAddr::from(([192, 0, 2, 7], 4711)),
            counted_as: Source::of([192, 0, 2, 7].into(), Prefixes::default()),
            listener: Name::parse("public").expect("a name"),
            server_name: Some("nas.home.example".into()),
            route: Some(Name::parse("nas").expect("a name")),
            cause,
            alert: None,
            certificate,
            impostor: None,
            times: 1,
        }
    }

    fn said(refusal: &Refusal) -> String {
        let (sentence, advice) = (sentence(refusal, now()), advice(refusal));
        format!("{sentence} {advice}")
    }

    #[test]
    fn every_reason_has_its_own_sentence_and_advice() {
        for certificate in [None, Some(shown()), Some(Certificate { verified: true, ..shown() })] {
            let mut sentences = HashSet::new();
            for &reason in Reason::ALL {
                let refusal = refusal(reason, certificate.clone());
                let (sentence, advice) = (sentence(&refusal, now()), advice(&refusal));
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

    /// Words of riddles and of people; the texts are about clients, devices and certificates.
    const BANNED: &[&str] = &[
        "nobody",
        "whoever",
        "whom",
        "himself",
        "herself",
        "he",
        "his",
        "him",
        "somebody",
        "to be had",
        "by itself",
        "stands in",
        "what became of",
    ];

    fn assert_plain(text: &str) {
        let words = format!(" {} ", text.to_lowercase().replace(|c: char| !c.is_alphanumeric(), " "));
        for banned in BANNED {
            assert!(!words.contains(&format!(" {banned} ")), "{banned:?} in {text:?}");
        }
    }

    #[test]
    fn every_cause_has_plain_text() {
        for cause in every_cause() {
            let text = detail(&cause);
            // One word is enough for another protocol: "http", "ssh".
            assert!(text.len() > 2 && !text.ends_with('.') && !text.contains("  "), "{cause:?}: {text:?}");
            assert_plain(&text);
            for certificate in [None, Some(shown()), Some(Certificate { anchored: true, verified: true, ..shown() })] {
                assert_plain(&said(&with_cause(cause.clone(), certificate)));
            }
        }
    }

    #[test]
    fn every_reason_has_plain_words() {
        let mut short = HashSet::new();
        for &reason in Reason::ALL {
            let Words { short: text, advice } = words(reason);
            assert!(!text.is_empty() && !text.ends_with('.') && short.insert(text), "{reason}: {text:?}");
            assert_plain(text);
            assert_plain(advice);
        }
    }

    #[test]
    fn names_and_dates_of_the_case_are_told() {
        let shown = || Certificate { anchored: true, ..shown() };
        let expired = Certificate { not_after: NOW - 3 * DAY, ..shown() };
        let text = said(&refusal(Reason::Expired, Some(expired)));
        assert!(text.starts_with("alice-phone's certificate expired 3 days ago. Issue alice-phone a new "), "{text}");
        // The certificate itself is good.
        let text = said(&refusal(Reason::Expired, Some(shown())));
        assert!(text.starts_with("An authority between alice-phone's certificate and trust"), "{text}");

        let early = Certificate { not_before: NOW + 2 * 3600, ..shown() };
        let text = said(&refusal(Reason::NotYetValid, Some(early)));
        assert!(text.contains("not valid before 2027-01-15, which is 2 hours from now"), "{text}");

        let text = said(&refusal(Reason::UnknownCa, Some(shown())));
        assert!(text.contains("calls itself alice-phone") && text.contains("CN=Another house"), "{text}");
        let text = said(&refusal(Reason::ServerNameUnknown, None));
        assert!(text.contains("asked for nas.home.example") && text.contains("add \"nas.home.example\" to"), "{text}");
        let not_allowed = Cause::NameNotAllowed { name: Text::new("alice-phone"), name_constrained: false };
        let text = said(&with_cause(not_allowed, Some(shown())));
        assert!(text.starts_with("alice-phone's certificate is a good one"), "{text}");
        let unverified = Refusal { cause: Cause::Unverified, ..refusal(Reason::IdentityNotAllowed, Some(shown())) };
        assert!(said(&unverified).contains("It was not verified"), "{}", said(&unverified));
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
                let shown = Certificate { anchored, not_before: dates.0, not_after: dates.1, ..shown() };
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
        let verified = Certificate { anchored: true, verified: true, ..shown() };
        let text = said(&refusal(Reason::BackendRefused, Some(verified)));
        assert!(text.starts_with("alice-phone was let in"), "{text}");
    }
}
