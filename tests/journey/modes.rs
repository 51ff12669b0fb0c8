//! The four client-auth modes, each with what `allow` can add to it, and every kind of client.

use std::sync::Arc;

use doorward::model::rejection::{Alert, Reason};
use rcgen::ExtendedKeyUsagePurpose;
use rustls::client::ResolvesClientCert;

use crate::client::{Client, Shown, VERSIONS, showing};
use crate::common::backend::Backend;
use crate::common::pki::{Authority, Certified, TestPki, days_from_now};
use crate::home::{House, assert_admitted, assert_refused};

/// Mode and `allow`, where the configuration takes them together. What it refuses (a mode that does not verify without
/// the word "unverified", say) is among the wrong files of tests/config.
const ROUTES: &[(&str, &str, &[&str])] = &[
    ("request", "request", &["unverified"]),
    ("request-any", "request", &["any", "unverified"]),
    ("require", "require", &["unverified"]),
    ("require-alice", "require", &["alice-phone", "unverified"]),
    ("given", "verify_if_given", &["any"]),
    ("given-open", "verify_if_given", &["any", "unverified"]),
    ("given-alice", "verify_if_given", &["alice-phone", "unverified"]),
    ("given-bob", "verify_if_given", &["bob-laptop", "unverified"]),
    ("given-none", "verify_if_given", &["unverified"]),
    ("verify", "require_and_verify", &["any"]),
    ("verify-open", "require_and_verify", &["any", "unverified"]),
];

/// Who comes.
#[derive(Clone, Copy, Debug)]
enum Who {
    NoCertificate,
    Good,
    OtherAuthority,
    Expired,
    NotYetValid,
    ServerOnly,
}

/// What becomes of them: whether the identity is a verified one, or why they are refused.
fn verdict(mode: &str, allow: &[&str], who: Who) -> Result<Option<bool>, (Reason, Alert)> {
    let verifies = matches!(mode, "verify_if_given" | "require_and_verify");
    let requires = matches!(mode, "require" | "require_and_verify");
    let unverified = allow.contains(&"unverified");
    match who {
        Who::NoCertificate if requires || !unverified => {
            Err((Reason::CertificateRequired, Alert::CERTIFICATE_REQUIRED))
        }
        Who::NoCertificate => Ok(None),
        _ if !verifies => Ok(Some(false)),
        Who::Good if allow.contains(&"any") || allow.contains(&"alice-phone") => Ok(Some(true)),
        // A client that shows a name is judged by it, even where clients without one get in.
        Who::Good => Err((Reason::IdentityNotAllowed, Alert::ACCESS_DENIED)),
        Who::OtherAuthority => Err((Reason::UnknownCa, Alert::UNKNOWN_CA)),
        Who::Expired => Err((Reason::Expired, Alert::CERTIFICATE_EXPIRED)),
        Who::NotYetValid => Err((Reason::NotYetValid, Alert::CERTIFICATE_EXPIRED)),
        Who::ServerOnly => Err((Reason::WrongPurpose, Alert::UNSUPPORTED_CERTIFICATE)),
    }
}

#[test]
fn each_mode_takes_whom_it_says_and_nobody_else() {
    let pki = TestPki::new();
    let backend = Backend::echo();
    let mut house = House::new(&pki);
    for (name, mode, allow) in ROUTES {
        let keys = format!("allow = {allow:?}\n[route.client_auth]\nmode = {mode:?}");
        house = house.route_with(name, &[&backend.address().to_string()], &keys);
    }
    let gate = house.open();
    let issue = |change: fn(&mut rcgen::CertificateParams)| {
        let mut params = Certified::for_clients("alice-phone");
        change(&mut params);
        pki.clients.issue(params)
    };
    let without = Shown::certificate(&pki.client("alice-phone"));
    without.nothing_more();
    let everybody = [
        (Who::NoCertificate, without),
        (Who::Good, Shown::certificate(&issue(|_| ()))),
        (
            Who::OtherAuthority,
            Shown::certificate(&Authority::new("Another house").issue(Certified::for_clients("alice-phone"))),
        ),
        (Who::Expired, Shown::certificate(&issue(|params| params.not_after = days_from_now(0) - time::Duration::HOUR))),
        (Who::NotYetValid, Shown::certificate(&issue(|params| params.not_before = days_from_now(2)))),
        (
            Who::ServerOnly,
            Shown::certificate(&issue(|params| {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            })),
        ),
    ];
    for version in VERSIONS {
        for (who, shown) in &everybody {
            let config = showing(&pki, Arc::clone(shown) as Arc<dyn ResolvesClientCert>, &[version]);
            for (name, mode, allow) in ROUTES {
                eprintln!("{who:?} at {name}, {:?}", version.version);
                let attempt = || Client::admitted(gate.address(), &config, &format!("{name}.home.example"));
                match verdict(mode, allow, *who) {
                    Ok(verified) => {
                        let line = assert_admitted(&gate, attempt);
                        // Marked wherever it is shown.
                        assert_eq!(line["certificate"]["verified"].as_bool(), verified, "{line}");
                    }
                    Err((reason, alert)) => {
                        let line = assert_refused(&gate, &backend, reason, alert, attempt);
                        // Not even of a good one: it was refused before it could prove that it holds the key.
                        assert_ne!(line["certificate"]["verified"], true, "{line}");
                    }
                }
            }
        }
    }
}
