use std::collections::BTreeSet;

use time::macros::datetime;

use super::*;
use crate::explain::clock::Zone;
use crate::explain::finding::{Facts, Finding, Tone, findings};
use crate::model::expiry::{Expiry, Kind};
use crate::model::public_certificate::IssuedCertificate;

const NOW: OffsetDateTime = datetime!(2026-11-28 20:14:05 UTC);
const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

fn clock() -> Clock {
    Clock::new(NOW, Zone::fixed(1))
}

fn at(seconds: i64) -> i64 {
    NOW.unix_timestamp() + seconds
}

/// Issued `days.0` days ago, and valid for `days.1` more.
fn state(days: Option<(i64, i64)>, phase: Phase, next: Option<i64>, failed: u32) -> PublicState {
    let names = vec!["nas.home.example".to_owned(), "photos.home.example".to_owned()];
    let issued = days.map(|(since, until)| IssuedCertificate {
        not_before: at(-since * DAY),
        not_after: at(until * DAY),
        issuer: "C=US, O=Let's Encrypt, CN=E7".to_owned(),
        is_own: false,
        lacks: Vec::new(),
    });
    let failure = (failed > 0).then(|| FailedOrder {
        at: at(-HOUR),
        in_a_row: failed,
        directory: "letsencrypt".to_owned(),
        error: "nas.home.example: 198.51.100.7: Connection refused (connection)".to_owned(),
        remedies: vec!["Forward port 443.".to_owned(), "Then wait.".to_owned()],
    });
    PublicState {
        certificate: PublicCertificate { names, file: "acme/live/certificate.pem".to_owned(), issued },
        issuance: Issuance {
            directory: "letsencrypt".to_owned(),
            names: BTreeSet::from(["nas.home.example".to_owned()]),
            phase,
            next_at: next.map(at),
            renewed: 1,
            failed: u64::from(failed),
            failure,
        },
    }
}

fn found(state: &PublicState) -> Vec<Finding> {
    let expiry = state.certificate.issued.as_ref().map(|issued| Expiry {
        at: issued.not_after,
        kind: Kind::Server,
        name: state.certificate.file.clone(),
        renewed_since: Some(issued.not_before),
    });
    let facts = Facts {
        public_certificate: Some(state.clone()),
        expiries: expiry.into_iter().collect(),
        has_met_a_device: true,
        ..Facts::default()
    };
    findings(&facts, NOW)
}

#[test]
fn line_says_how_it_does_in_order() {
    for (state, expected) in [
        (
            state(Some((1, 89)), Phase::Valid, Some(59 * DAY), 0),
            "valid until 2027-02-25, renewed on 2026-11-27, next renewal 2027-01-26 21:14",
        ),
        (
            state(Some((61, 29)), Phase::Ordering, None, 0),
            "valid until 2026-12-27, renewed on 2026-09-28, an order is under way",
        ),
        (
            state(Some((61, 29)), Phase::Failing, Some(HOUR), 2),
            "valid until 2026-12-27, renewed on 2026-09-28, the last order failed today 20:14:05, the next one begins today 22:14:05",
        ),
        (
            state(Some((91, -1)), Phase::Stopped, None, 0),
            "expired on 2026-11-27, renewed on 2026-08-29, the process that orders it does not run",
        ),
        (state(None, Phase::Starting, None, 0), "not issued yet"),
        (state(None, Phase::Trial, None, 0), "not issued yet, an order on trial is under way"),
    ] {
        assert_eq!(
            state.line(&clock()),
            format!("Public certificate for nas.home.example, photos.home.example: {expected}")
        );
    }
    // As after "doorward certificate use public".
    let mut own = state(Some((31, 364)), Phase::Failing, Some(HOUR), 1);
    own.certificate.issued.as_mut().expect("it is there").is_own = true;
    assert_eq!(
        own.state(&clock()),
        "not issued yet, that of your own authority is shown until then (valid until 2027-11-27), the last order failed today \
         20:14:05, the next one begins today 22:14:05"
    );
    assert_eq!(found(&own)[0].headline(&clock()), "The public certificate could not be ordered");
    let mut many = state(None, Phase::Starting, None, 0);
    many.certificate.names = (0..9).map(|n| format!("n{n}")).collect();
    assert_eq!(many.line(&clock()), "Public certificate for n0, n1, n2 and 6 more: not issued yet");
}

#[test]
fn certificate_that_is_as_it_should_be_is_no_finding() {
    for (issued, phase, next) in [
        (Some((1, 89)), Phase::Valid, Some(59 * DAY)),
        (Some((61, 29)), Phase::Ordering, None),
        (Some((0, 44)), Phase::Valid, Some(30 * DAY)),
        // One that lasts for six days, at each moment of its life before it should be renewed.
        (Some((0, 6)), Phase::Valid, Some(4 * DAY)),
        (Some((4, 2)), Phase::Ordering, None),
    ] {
        assert!(found(&state(issued, phase, next, 0)).is_empty(), "{issued:?}");
    }
    // Nothing is done about it.
    let lapsing = found(&state(Some((77, 13)), Phase::Valid, None, 0));
    assert!(matches!(&lapsing[..], [Finding::Expiry(_)]), "{lapsing:?}");
    assert_eq!(lapsing[0].headline(&clock()), "The public certificate expires in 13 days");
    assert_eq!(lapsing[0].command().as_deref(), Some("doorward certificate renew"));
}

#[test]
fn failed_renewal_is_told_with_the_words_of_the_server_and_remedies() {
    let state = state(Some((61, 29)), Phase::Failing, Some(HOUR), 3);
    let found = found(&state);
    let [finding] = &found[..] else { panic!("{found:?}") };
    assert_eq!(finding.label(), "renewal_failed");
    assert_eq!(finding.headline(&clock()), "The public certificate could not be renewed");
    assert_eq!(
        finding.sentence(&clock()),
        "The last of 3 orders failed today 20:14:05 at letsencrypt: nas.home.example: 198.51.100.7: Connection refused (connection). \
         The one in use is valid until 2026-12-27. The next one begins today 22:14:05."
    );
    assert_eq!(finding.advice().as_deref(), Some("Forward port 443. Then wait."));
    assert_eq!(finding.command().as_deref(), Some("doorward certificate renew"));
    assert_eq!(finding.tone(NOW), Tone::Warn);
}

#[test]
fn renewal_is_pressing_when_the_certificate_runs_out() {
    for (issued, next, pressing) in [
        // A week is left of thirty days; of two days, a third.
        (Some((82, 8)), HOUR, false),
        (Some((84, 6)), HOUR, true),
        (Some((4, 2)), HOUR, false),
        (Some((6, 1)), HOUR, false),
        // It ends before the next attempt.
        (Some((4, 2)), 3 * DAY, true),
        (Some((91, -1)), HOUR, true),
        (None, HOUR, true),
    ] {
        let state = state(issued, Phase::Failing, Some(next), 1);
        assert_eq!(state.is_pressing(NOW), pressing, "{issued:?}");
        let tone = if pressing { Tone::Bad } else { Tone::Warn };
        assert_eq!(
            found(&state).iter().find(|one| one.label() == "renewal_failed").expect("it failed").tone(NOW),
            tone
        );
    }
    let headline =
        |issued| found(&state(issued, Phase::Failing, None, 1)).last().expect("it failed").headline(&clock());
    assert_eq!(headline(Some((84, 6))), "The public certificate expires in 6 days and could not be renewed");
    assert_eq!(headline(Some((91, -1))), "The public certificate has expired and could not be renewed");
    assert_eq!(headline(None), "The public certificate could not be ordered");
}

#[test]
fn temporary_certificate_is_a_finding_of_its_own() {
    let ordering = found(&state(None, Phase::Ordering, None, 0));
    let [finding] = &ordering[..] else { panic!("{ordering:?}") };
    assert_eq!((finding.label(), finding.tone(NOW)), ("certificate_not_issued", Tone::Warn));
    assert_eq!(
        finding.sentence(&clock()),
        "The gate shows a temporary certificate of its own, and devices do not trust it yet. An order is under way at letsencrypt."
    );
    let failing = found(&state(None, Phase::Failing, Some(HOUR), 1));
    assert_eq!(failing.iter().map(Finding::label).collect::<Vec<_>>(), ["certificate_not_issued", "renewal_failed"]);
    assert!(failing.iter().all(|one| one.tone(NOW) == Tone::Bad));
    // A route was added.
    let mut lacking = state(Some((1, 89)), Phase::Ordering, None, 0);
    lacking.certificate.issued.as_mut().expect("it is issued").lacks = vec!["music.home.example".to_owned()];
    let found = found(&lacking);
    assert_eq!(found[0].headline(&clock()), "The public certificate is not for music.home.example yet");
    assert!(lacking.is_refused(NOW) && !state(Some((1, 89)), Phase::Valid, None, 0).is_refused(NOW));
}

#[test]
fn process_that_does_not_run_is_told_without_a_command() {
    let found = found(&state(Some((1, 89)), Phase::Stopped, None, 0));
    assert_eq!(found[0].headline(&clock()), "The public certificate is not renewed");
    assert_eq!((found[0].command(), found[0].tone(NOW)), (None, Tone::Warn));
}

#[test]
fn ranks_stand_beside_expiry() {
    let other = Expiry { at: at(DAY), kind: Kind::RevocationList, name: "clients.crl".to_owned(), renewed_since: None };
    let labels = |public: PublicState| {
        let facts = Facts { public_certificate: Some(public), expiries: vec![other.clone()], ..Facts::default() };
        findings(&facts, NOW).iter().map(Finding::label).collect::<Vec<_>>()
    };
    assert_eq!(labels(state(Some((61, 29)), Phase::Failing, None, 1)), ["expiry", "renewal_failed"]);
    assert_eq!(labels(state(Some((85, 5)), Phase::Failing, None, 1)), ["renewal_failed", "expiry"]);
    assert_eq!(labels(state(None, Phase::Failing, None, 1)), ["certificate_not_issued", "renewal_failed", "expiry"]);
}

#[test]
fn told_as_json_and_back() {
    let told = state(Some((61, 29)), Phase::Failing, Some(HOUR), 3).told(&clock());
    let text = serde_json::to_value(&told).expect("JSON");
    assert_eq!(text["valid_until"], "2026-12-27T20:14:05Z");
    assert_eq!(text["failure"]["remedies"][0], "Forward port 443.");
    assert_eq!((text["phase"].as_str(), text["temporary"].as_bool()), (Some("failing"), Some(false)));
    assert_eq!(serde_json::from_value::<ToldCertificate>(text).expect("it"), told);
}
