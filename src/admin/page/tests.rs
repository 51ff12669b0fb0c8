//! How large the page gets, whatever happened.

use std::net::SocketAddr;
use std::sync::Arc;

use time::macros::datetime;
use time::{Duration, OffsetDateTime};

use super::*;
use crate::config::public_side::PublicSide;
use crate::explain::certificate::Certificate;
use crate::explain::clock::{Clock, Zone};
use crate::explain::finding::{
    Attempts, Backend, BackendState, DeviceFacts, Facts, RefusedConfiguration, Service, Shown, findings,
};
use crate::explain::recent::{Refusal, Refusals};
use crate::history::{self, Hour, Noise, Visit};
use crate::model::expiry::{Expiry, Kind};
use crate::model::identity::Sha256;
use crate::model::impostor::Claim;
use crate::model::names::Name;
use crate::model::rejection::Reason;
use crate::model::rejection::testing::every_cause;
use crate::model::source::{Prefixes, Source};
use crate::relay::Path;
use crate::sessions::registry::{PeerCertificate, Session};

const NOW: OffsetDateTime = datetime!(2026-11-27 20:14:05 UTC);
/// Of the page in bytes.
const MOST: usize = 300 * 1024;

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

fn ago(seconds: i64) -> OffsetDateTime {
    NOW - Duration::seconds(seconds)
}

/// A hundred thousand refusals for each reason in turn, each with as much text of strangers as is taken.
fn refusals() -> Vec<Arc<Refusal>> {
    let (causes, refusals) = (every_cause(), Refusals::default());
    for number in 0..100_000_u32 {
        let long = format!("{number:<128}").replace(' ', "<");
        let address: std::net::Ipv6Addr = (0x2001_0db8_u128 << 96 | u128::from(number)).into();
        let certificate = Certificate {
            names: vec![long.as_str().into(); 4],
            fingerprint: Sha256::of(&number.to_be_bytes()),
            serial: long.as_str().into(),
            issuer: long.as_str().into(),
            not_before: 0,
            not_after: i64::MAX,
            verified: false,
            anchored: number % 3 == 0,
            of_other_authority: false,
            guest: false,
            descends_from: None,
        };
        refusals.remember(Refusal {
            at: ago(i64::from(100_000 - number)),
            id: u64::from(number),
            source: SocketAddr::new(address.into(), 4711),
            counted_as: Source::of(address.into(), Prefixes::default()),
            listener: name("public"),
            server_name: Some(long.as_str().into()),
            route: Some(name("nas")),
            cause: causes[number as usize % causes.len()].clone(),
            alert: None,
            certificate: (number % 2 == 0).then_some(certificate),
            impostor: None,
            times: 1,
        });
    }
    refusals.latest(usize::MAX)
}

/// A year of hours, and as many devices, visits and impostors as are kept.
fn history() -> history::Overview {
    let device = |number: usize| format!("{number:<64}").replace(' ', "<").into_boxed_str();
    let visit = |number: usize| Visit {
        device: device(number),
        route: name("nas"),
        address: [0x2001, 0xdb8, 0x4f2a, 0x81c0, 0x5c1e, 0x9aff, 0xfe3b, 0x7d10].into(),
        since: ago(86_000),
        until: ago(number as i64),
        connections: 1_000_000,
        open: 0,
        to_backend: u64::MAX,
        to_client: u64::MAX,
    };
    let noise =
        Noise { reasons: Reason::ALL.iter().map(|reason| (*reason, u64::MAX / 100)).collect(), sources: u64::MAX };
    let hour = |number: i64| Hour {
        start: ago(number * 3600),
        admitted: 1,
        noise: number as u64 * 7919 % 1000,
        devices_refused: 1,
        impostors: 1,
    };
    history::Overview {
        since: Some(ago(365 * 86_400)),
        visits: (0..2000).map(visit).collect(),
        day: noise.clone(),
        week: noise,
        hours: (0..365 * 24).rev().map(hour).collect(),
        ..history::Overview::default()
    }
}

fn worst() -> View {
    let clock = Clock::new(NOW, Zone::fixed(1));
    let (refusals, history) = (refusals(), history());
    let long = |number: usize| format!("{number:<64}").replace(' ', "<");
    let devices = (0..2000).map(|number| DeviceFacts {
        name: long(number),
        refusals: vec![refusals.iter().find(|refusal| refusal.is_of_device()).expect("one of a device").into()],
        is_enrolled: true,
        expires: Some(NOW.unix_timestamp() + 86_400),
        ..DeviceFacts::default()
    });
    let attempts = |number: usize| Attempts {
        name: long(number),
        claim: Some(Claim::Name),
        source: [192, 0, 2, 7].into(),
        first: ago(90_000),
        last: ago(60),
        times: u64::MAX,
        route: Some(long(1)),
        shown: Some(Shown { issuer: "<".repeat(128), not_before: 0 }),
    };
    let down = BackendState::Down { since: ago(9), tried: ago(9), seen: Some(Reason::BackendRefused), failed: 9 };
    let service = |number: usize| Service {
        route: long(number),
        backends: vec![Backend { address: "192.168.1.10:5666".to_owned(), state: down, health: None }; 4],
    };
    let facts = Facts {
        refused_configuration: Some(RefusedConfiguration { at: NOW, errors: vec!["<".repeat(1000); 21] }),
        devices: devices.collect(),
        impostors: (0..64).map(attempts).collect(),
        services: (0..200).map(service).collect(),
        expiries: (0..2000)
            .map(|number| Expiry {
                at: NOW.unix_timestamp() + 86_400,
                kind: Kind::Device,
                name: long(number),
                renewed_since: None,
            })
            .collect(),
        has_met_a_device: true,
        ..Facts::default()
    };
    let session = |id: u64| {
        let source = SocketAddr::from(([192, 0, (id >> 8) as u8, id as u8], 1));
        Arc::new(Session::new(
            id,
            source,
            name("public"),
            name("nas"),
            PeerCertificate::default(),
            Path::Copy,
            Arc::default(),
        ))
    };
    let findings = findings(&facts, NOW);
    let verdict = Verdict::of(&findings, true, NOW);
    View {
        clock,
        facts,
        findings,
        verdict,
        history,
        refusals,
        sessions: (0..10_000).map(session).collect(),
        sessions_elsewhere: 1,
        public_side: Arc::new(PublicSide { domain: Some("home.example".to_owned()), ..PublicSide::default() }),
        started: ago(365 * 86_400),
    }
}

#[test]
fn page_is_small_after_a_year_and_many_refusals() {
    let view = worst();
    let begun = tokio::time::Instant::now();
    let page = page(&view);
    let took = begun.elapsed();
    println!("{} bytes in {took:?}", page.len());
    assert!(page.len() <= MOST, "{} bytes", page.len());
    // Generously: this build is not optimized, and other tests run beside it.
    assert!(took.as_secs() < 10, "{took:?}");
    // All that may be long has a place.
    for part in ["doorward ca list", "doorward sessions", "and 59 earlier", "7 days", "Needs you"] {
        assert!(page.contains(part), "{part} is missing");
    }
}

#[test]
fn bars_have_one_scale_and_the_hours_their_labels() {
    let mut view = worst();
    view.history.hours = vec![
        Hour { start: datetime!(2026-11-27 20:00 UTC), admitted: 0, noise: 10, devices_refused: 0, impostors: 0 },
        Hour { start: datetime!(2026-11-26 21:00 UTC), admitted: 0, noise: 1, devices_refused: 0, impostors: 0 },
        Hour { start: datetime!(2026-11-26 20:00 UTC), admitted: 0, noise: 20, devices_refused: 0, impostors: 0 },
        // A week ago: no longer in a row.
        Hour { start: datetime!(2026-11-20 20:00 UTC), admitted: 0, noise: 99, devices_refused: 0, impostors: 0 },
    ];
    let page = page(&view);
    for part in [
        "each row from 22:00 to 22:00. One scale for all: the tallest bar is 20 in an hour.",
        // Half of the tallest bar, now; a twentieth of it, 24 hours before.
        "<path d=\"M0 44v-3h8v3zM230 44v-22h8v22z\"></path>",
        "<th scope=\"row\">Thu 26 – now</th>",
        "<td class=\"num\">11</td><td class=\"num quiet\">10 at 21:00</td>",
        "<path d=\"M230 44v-44h8v44z\"></path>",
        "<th scope=\"row\">Wed 25 – Thu 26</th>",
        "<td class=\"num\">20</td><td class=\"num quiet\">20 at 21:00</td>",
    ] {
        assert!(page.contains(part), "{part} in {page}");
    }
    assert!(!page.contains(">99<"), "{page}");
}

#[test]
fn title_names_the_domain_and_the_verdict() {
    for (domain, headline, expected) in [
        (Some("home.example"), "All is well", "home.example: all is well · Doorward"),
        (Some("home.example"), "Alice: may not", "home.example: Alice: may not · Doorward"),
        (None, "All is well", "All is well · Doorward"),
    ] {
        assert_eq!(title(domain, headline), expected);
    }
}
