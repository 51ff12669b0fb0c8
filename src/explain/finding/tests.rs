use std::net::SocketAddr;
use std::sync::Arc;

use time::macros::datetime;

use super::*;
use crate::explain::certificate::Certificate;
use crate::explain::clock::{Clock, Zone};
use crate::model::expiry::Kind;
use crate::model::identity::Sha256;
use crate::model::impostor as model;
use crate::model::names::Name;
use crate::model::rejection::testing::every_cause;
use crate::model::rejection::{Cause, Protocol, Text};
use crate::model::source::{Prefixes, Source};

const NOW: OffsetDateTime = datetime!(2026-11-27 20:14:05 UTC);
const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

fn clock() -> Clock {
    Clock::new(NOW, Zone::fixed(1))
}

fn ago(seconds: i64) -> OffsetDateTime {
    NOW - Duration::seconds(seconds)
}

fn shown(name: &str, anchored: bool) -> Certificate {
    Certificate {
        names: vec![name.into()],
        fingerprint: Sha256([7; 32]),
        serial: "4a01".into(),
        issuer: "CN=Another house".into(),
        not_before: ago(900 * DAY).unix_timestamp(),
        not_after: ago(3 * DAY).unix_timestamp(),
        verified: false,
        anchored,
        of_other_authority: false,
        guest: false,
        descends_from: None,
    }
}

fn refusal(cause: Cause, seconds: i64, shown: Option<Certificate>) -> Refusal {
    Refusal {
        at: ago(seconds),
        id: 1,
        source: SocketAddr::from(([203, 0, 113, 87], 4711)),
        counted_as: Source::of([203, 0, 113, 87].into(), Prefixes::default()),
        listener: Name::parse("public").expect("a name"),
        server_name: None,
        route: Some(Name::parse("nas").expect("a name")),
        cause,
        alert: None,
        certificate: shown,
        impostor: None,
        times: 14,
    }
}

fn cause(reason: Reason) -> Cause {
    every_cause().into_iter().find(|cause| cause.reason() == reason).expect("every reason has a cause")
}

fn device(name: &str, reason: Reason, seconds: i64) -> DeviceFacts {
    let refusals = vec![(&Arc::new(refusal(cause(reason), seconds, Some(shown(name, true))))).into()];
    DeviceFacts { name: name.to_owned(), refusals, ..DeviceFacts::default() }
}

fn attempts(name: &str, source: [u8; 4], seconds: i64) -> Attempts {
    Attempts {
        name: name.to_owned(),
        claim: Some(Claim::Name),
        source: source.into(),
        first: ago(seconds + 76),
        last: ago(seconds),
        times: 3,
        route: Some("nas".to_owned()),
        shown: None,
    }
}

fn service(route: &str, port: u16, state: BackendState) -> Service {
    let backends = vec![Backend { address: format!("192.168.1.10:{port}"), state, health: None }];
    Service { route: route.to_owned(), backends }
}

fn down(seconds: i64) -> BackendState {
    BackendState::Down { since: ago(seconds), tried: ago(60), seen: Some(Reason::BackendRefused), failed: 4 }
}

fn expiry(kind: Kind, name: &str, days: i64) -> Expiry {
    Expiry { kind, name: name.to_owned(), at: NOW.unix_timestamp() + days * DAY + 60, renewed_since: None }
}

/// Everything at once, in no order.
fn everything() -> Facts {
    Facts {
        sandbox: vec!["TCP ports are not restricted: that takes Linux 6.7".to_owned()],
        descriptors: Some("limits.connections: 9999 connections do not fit".to_owned()),
        history: None,
        receivers: vec![ReceiverFault {
            receiver: "https://ntfy.sh".to_owned(),
            since: ago(2 * HOUR),
            error: "it answers 503 Service Unavailable".to_owned(),
            waiting: 3,
        }],
        log: Some(LogFault { since: ago(60), error: "the disk is full".to_owned() }),
        expiries: vec![
            expiry(Kind::Device, "bob-tablet", -3),
            expiry(Kind::Device, "carol-phone", 9),
            expiry(Kind::RevocationList, "clients.crl", 900),
        ],
        public_certificate: None,
        host_names: Vec::new(),
        services: vec![
            service("nas", 5666, down(42 * 60)),
            service("smb", 445, BackendState::Up { since: ago(DAY) }),
            service("ssh", 22, BackendState::Untried),
        ],
        devices: vec![
            device("bob-tablet", Reason::Expired, 2 * HOUR),
            device("dave-phone", Reason::Revoked, 3 * HOUR),
            DeviceFacts { name: "alice-phone".to_owned(), last_seen: Some(NOW), ..DeviceFacts::default() },
        ],
        impostors: vec![attempts("alice-phone", [198, 51, 100, 66], 2 * HOUR)],
        refused_configuration: Some(RefusedConfiguration { at: ago(60), errors: vec!["line 3: no".to_owned()] }),
        not_in_force: vec![NotInForce {
            device: "eve-phone".to_owned(),
            serial: "4a02".to_owned(),
            revoked_at: ago(DAY).unix_timestamp(),
            not_after: NOW.unix_timestamp() + DAY,
            routes: vec!["nas".to_owned()],
        }],
        has_met_a_device: true,
        remembers_since: ago(90 * DAY),
    }
}

fn headlines(facts: &Facts) -> Vec<String> {
    findings(facts, NOW).iter().map(|finding| finding.headline(&clock())).collect()
}

#[test]
fn findings_are_ranked_as_the_design_says() {
    assert_eq!(
        headlines(&everything()),
        [
            "eve-phone was revoked and still gets in",
            "The changed configuration is not in force",
            "Somebody pretended to be alice-phone",
            "bob-tablet: certificate has expired",
            "dave-phone: was revoked, and still tries",
            "nas: down since today 20:32:05",
            "carol-phone: expires in 9 days",
            "https://ntfy.sh has taken no message to you since today 19:14:05",
            "The log has not been written since today 21:13:05",
            "The limit of open files is too low",
            "A part of the sandbox is not in force",
        ]
    );
}

#[test]
fn findings_have_sentences_and_the_command_that_mends_them() {
    let facts = everything();
    let told: Vec<(String, Option<String>)> =
        findings(&facts, NOW).iter().map(|one| (one.sentence(&clock()), one.command())).collect();
    let expected = [
        (
            "You revoked its certificate 4a02 on 2026-11-26, and no revocation list that is in force on the route nas names \
             it.",
            Some("doorward ca revoke eve-phone"),
        ),
        (
            "It was refused today 21:13:05, and the one before is still in force. The mistake: line 3: no",
            Some("doorward check"),
        ),
        (
            "A certificate with its name that you never issued came from 198.51.100.66, 3 times, last today 19:14:05. It \
             was refused each time and reached nothing.",
            Some("doorward why 198.51.100.66"),
        ),
        (
            "bob-tablet's certificate expired 3 days ago. Refused 14 times, last today 19:14:05 from 203.0.113.87.",
            Some("doorward ca renew bob-tablet"),
        ),
        (
            "dave-phone's certificate was revoked: a revocation list names it. Refused 14 times, last today 18:14:05 from \
             203.0.113.87.",
            Some("doorward ca device dave-phone"),
        ),
        (
            "192.168.1.10 answers, but refuses port 5666. On the same machine, smb is up. 4 connections have failed, the last \
             one today 21:13:05.",
            Some("doorward check --connect"),
        ),
        ("It ends on 2026-12-06. The device is refused from then on.", Some("doorward ca renew carol-phone")),
        (
            "Doorward cannot reach you there: it answers 503 Service Unavailable. 3 messages wait.",
            Some("doorward notify --test"),
        ),
    ];
    for ((sentence, command), (expected_sentence, expected_command)) in told.iter().zip(expected) {
        assert_eq!((sentence.as_str(), command.as_deref()), (expected_sentence, expected_command));
    }
    for finding in findings(&facts, NOW) {
        if let Some(command) = finding.command() {
            let advice = finding.advice().expect("advice beside a command");
            assert!(advice.ends_with('.') || advice.ends_with(')'), "{command}: {advice}");
        }
    }
}

#[test]
fn verdict_is_that_of_the_worst_finding() {
    let verdict = |facts: &Facts| Verdict::of(&findings(facts, NOW), facts.has_met_a_device, NOW).label();
    let met = Facts { has_met_a_device: true, ..Facts::default() };
    assert_eq!(verdict(&everything()), "bad");
    assert_eq!(verdict(&met), "ok");
    assert_eq!(verdict(&Facts::default()), "new");
    assert_eq!(verdict(&Facts { sandbox: vec!["one part".to_owned()], ..met.clone() }), "ok");
    let soon = vec![expiry(Kind::Server, "server.pem", 13)];
    assert_eq!(verdict(&Facts { expiries: soon.clone(), ..met.clone() }), "warn");
    assert_eq!(verdict(&Facts { expiries: soon, ..Facts::default() }), "new");
    assert_eq!(verdict(&Facts { expiries: vec![expiry(Kind::Server, "server.pem", -1)], ..met.clone() }), "bad");
    assert_eq!(verdict(&Facts { expiries: vec![expiry(Kind::Device, "old", -1)], ..met.clone() }), "warn");
    let receivers = everything().receivers;
    assert_eq!(verdict(&Facts { receivers, ..met.clone() }), "warn");
    let impostors = vec![attempts("alice-phone", [198, 51, 100, 66], HOUR)];
    assert_eq!(verdict(&Facts { impostors, ..Facts::default() }), "bad");
    let (headline, sentence) = verdict_sentence(
        Verdict::Ok,
        &[],
        &Facts { remembers_since: datetime!(2026-09-01 03:00 UTC), ..met },
        &clock(),
    );
    assert_eq!(headline, "All is well");
    assert!(sentence.ends_with("no forged certificate has carried a name of yours since 2026-09-01."), "{sentence}");
}

#[test]
fn trouble_of_a_device_is_over_once_it_gets_in() {
    let found = |device: DeviceFacts| {
        findings(&Facts { devices: vec![device], has_met_a_device: true, ..Facts::default() }, NOW).len()
    };
    for (reason, hours, last_seen, expected) in [
        (Reason::Expired, 2, None, 1),
        (Reason::Expired, 2, Some(ago(3 * HOUR)), 1),
        (Reason::Expired, 2, Some(ago(HOUR)), 0),
        (Reason::Expired, 6 * 24, None, 1),
        (Reason::Expired, 8 * 24, None, 0),
        (Reason::Revoked, 23, None, 1),
        (Reason::Revoked, 25, None, 0),
        // It gets in elsewhere.
        (Reason::IdentityNotAllowed, 2, Some(ago(HOUR)), 1),
        (Reason::IdentityNotAllowed, 25, None, 0),
        // The service's trouble, or a copy of the certificate.
        (Reason::BackendRefused, 2, None, 0),
        (Reason::BadSignature, 2, None, 0),
    ] {
        let device = DeviceFacts { last_seen, ..device("bob-tablet", reason, hours * HOUR) };
        assert_eq!(found(device), expected, "{reason} {hours} hours ago, seen {last_seen:?}");
    }
    // After a restart.
    let mut device = device("bob-tablet", Reason::Expired, HOUR);
    device.refusals[0].latest = None;
    let facts = Facts { devices: vec![device], has_met_a_device: true, ..Facts::default() };
    assert_eq!(findings(&facts, NOW)[0].sentence(&clock()), "Refused 14 times, last today 20:14:05 from 203.0.113.87.");
    assert!(findings(&facts, NOW)[0].advice().is_some_and(|advice| advice.contains("doorward ca renew bob-tablet")));
    // A forger's certificate is no word about the device.
    assert!(is_trouble(&refusal(cause(Reason::Expired), HOUR, Some(shown("bob-tablet", true)))));
    assert!(!is_trouble(&refusal(cause(Reason::Expired), HOUR, Some(shown("bob-tablet", false)))));
    // A guest pass ends as its owner wants it.
    let pass = Certificate { guest: true, ..shown("bob-tablet", true) };
    let elsewhere = Cause::GuestElsewhere { name: Text::new("bob-tablet"), routes: Text::new("photos") };
    for (cause, expected) in [(cause(Reason::Expired), false), (elsewhere, false), (cause(Reason::Revoked), true)] {
        assert_eq!(is_trouble(&refusal(cause, HOUR, Some(pass.clone()))), expected);
    }
}

#[test]
fn impostors_lead_for_a_day_and_are_told_once_for_each_device() {
    let impostors = vec![
        attempts("alice-phone", [198, 51, 100, 66], 3 * HOUR),
        attempts("alice-phone", [198, 51, 100, 67], 2 * HOUR),
        attempts("bob-laptop", [198, 51, 100, 66], 25 * HOUR),
    ];
    let found = findings(&Facts { impostors, ..Facts::default() }, NOW);
    let sentences: Vec<String> = found.iter().map(|finding| finding.sentence(&clock())).collect();
    assert_eq!(
        sentences,
        [
            "A certificate with its name that you never issued came from 198.51.100.67 and 1 more address, 6 times, last today \
          19:14:05. It was refused each time and reached nothing."
        ]
    );
}

#[test]
fn revocation_that_is_not_in_force_ends_with_the_certificate() {
    let mut facts = everything();
    facts.not_in_force[0].not_after = NOW.unix_timestamp() - 1;
    assert_eq!(headlines(&facts)[0], "The changed configuration is not in force");
}

#[test]
fn expiry_of_a_guest_or_of_a_device_long_gone_is_no_finding() {
    let facts = Facts {
        expiries: vec![expiry(Kind::Device, "guest", 0), expiry(Kind::Device, "old", -15)],
        devices: vec![DeviceFacts { name: "guest".to_owned(), is_guest: true, ..DeviceFacts::default() }],
        ..Facts::default()
    };
    assert_eq!(headlines(&facts), [] as [&str; 0]);
}

#[test]
fn service_is_down_only_if_none_of_its_backends_answered() {
    let states = |states: &[BackendState]| Service {
        route: "nas".to_owned(),
        backends: states
            .iter()
            .map(|state| Backend { address: "nas:1".to_owned(), state: *state, health: None })
            .collect(),
    };
    let (up, long_down) = (BackendState::Up { since: ago(60) }, down(HOUR));
    assert_eq!(states(&[long_down, up]).state(), up);
    assert_eq!(states(&[long_down, BackendState::Untried]).state(), BackendState::Untried);
    assert_eq!(states(&[long_down, down(60)]).state(), down(60));
    let stale =
        BackendState::Down { since: ago(3 * DAY), tried: ago(2 * DAY), seen: Some(Reason::BackendTimeout), failed: 1 };
    assert_eq!(headlines(&Facts { services: vec![states(&[stale])], ..Facts::default() }), [] as [&str; 0]);
    // A machine that sleeps as it is meant to is no trouble.
    for state in [BackendState::Asleep { since: ago(DAY) }, BackendState::Waking { since: ago(9) }] {
        assert_eq!(states(&[state]).state(), state);
        let facts = Facts { services: vec![states(&[state])], has_met_a_device: true, ..Facts::default() };
        let found = findings(&facts, NOW);
        assert!(found.is_empty() && Verdict::of(&found, true, NOW) == Verdict::Ok, "{found:?}");
    }
}

#[test]
fn what_was_seen_of_a_backend_is_told_by_its_kind() {
    for (backend, reason, text) in [
        ("192.168.1.10:5666", Reason::BackendRefused, "192.168.1.10 answers, but refuses port 5666."),
        ("[fd00::1]:22", Reason::BackendRefused, "[fd00::1] answers, but refuses port 22."),
        ("unix:/run/app.sock", Reason::BackendRefused, "Nothing listens at unix:/run/app.sock."),
        ("nas.local:22", Reason::BackendTimeout, "nas.local:22 does not answer."),
        ("nas.local:22", Reason::BackendWakeTimeout, "The machine of nas.local:22 sleeps, and did not wake up."),
        ("nas.local:22", Reason::BackendUnresolved, "The name nas.local cannot be looked up."),
        ("nas.local:22", Reason::BackendTls, "The gate and nas.local:22 do not agree on TLS."),
        ("nas.local:22", Reason::BackendUnreachable, "nas.local:22 cannot be reached."),
    ] {
        assert_eq!(seen(backend, Some(reason)), text);
    }
}

#[test]
fn refusals_are_ranked_as_the_findings_are() {
    let backend = Cause::BackendTimeout { backend: Text::new("nas:1") };
    let mut refusals = [
        refusal(Cause::NotTls(Protocol::Http), 1, None),
        refusal(backend, 2, Some(shown("alice-phone", true))),
        refusal(cause(Reason::Expired), 3, Some(shown("bob-tablet", true))),
        refusal(cause(Reason::BadSignature), 4, Some(shown("alice-phone", true))),
        Refusal {
            impostor: Some(model::Impostor { name: "alice-phone".into(), claim: Claim::Name }),
            ..refusal(cause(Reason::UnknownCa), 5, Some(shown("alice-phone", false)))
        },
        refusal(cause(Reason::UnknownCa), 6, Some(shown("stranger", false))),
        refusal(cause(Reason::Revoked), 25 * HOUR, Some(shown("dave-phone", true))),
    ];
    refusals.sort_by_key(|refusal| (rank_of_refusal(refusal, NOW), std::cmp::Reverse(refusal.at)));
    let reasons: Vec<Reason> = refusals.iter().map(Refusal::reason).collect();
    assert_eq!(
        reasons,
        [
            Reason::BadSignature,
            Reason::UnknownCa,
            Reason::Expired,
            Reason::BackendTimeout,
            Reason::NotTls,
            Reason::UnknownCa,
            Reason::Revoked
        ]
    );
}
