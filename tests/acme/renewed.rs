//! An order through the gate's own port, and renewals while devices come, stay and go.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustls::HandshakeKind;

use crate::client::{Client, End};
use crate::pebble::Settings;
use crate::relay::{Answer, Fate};
use crate::scene::{NAS, PHOTOS, Scene, status, visit};

/// How much a stream sends a second.
const RATE: usize = 64 * 1024;

/// A certificate that is renewed after a third of a minute.
const SHORT: u32 = 24;

#[test]
fn certificate_is_ordered_and_renewed_while_devices_come_stay_and_go() {
    let scene = Scene::with(&Settings { validity: SHORT, ..Settings::default() });
    let gate = scene.open();
    let device = scene.device();
    // Until then the gate has a certificate that no device trusts.
    let first = visit(scene.address(), &device, NAS);
    assert!(matches!(first, Ok(_) | Err(End::Tls(rustls::Error::InvalidCertificate(_)))), "{first:?}");
    let shown = scene.wait_issued(&device);
    assert_eq!(visit(scene.address(), &scene.without_sessions(), PHOTOS).unwrap(), shown);

    // From now on each device gets in, and one streams.
    let (is_over, visits) = (AtomicBool::new(false), AtomicU64::new(0));
    let refused_before = gate.settled().sum("doorward_connections_rejected_total", &[]);
    std::thread::scope(|scope| {
        let is_over = &is_over;
        let stream = scope.spawn(|| {
            let client = Client::admitted(scene.address(), &device, NAS).unwrap();
            let (part, mut back) = (vec![7; RATE / 16], vec![0; RATE / 16]);
            let mut count = 0_u64;
            while !is_over.load(Ordering::SeqCst) {
                client.send(&part).unwrap();
                client.read_exact(&mut back).unwrap();
                assert_eq!(part, back);
                count += 1;
                std::thread::sleep(Duration::from_millis(1000 / 16));
            }
            client.close_notify();
            assert_eq!(client.end(), End::Orderly);
            count
        });
        scope.spawn(|| {
            let device = scene.without_sessions();
            while !is_over.load(Ordering::SeqCst) {
                for name in [NAS, PHOTOS] {
                    visit(scene.address(), &device, name).expect("no device is refused");
                    visits.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        let renewed = scene.wait_renewed(&shown);
        // The ticket of before the renewal is as good as ever.
        let resumed = Client::admitted(scene.address(), &device, NAS).unwrap();
        let kind = resumed.tls(|connection| connection.handshake_kind());
        assert_eq!(kind, Some(HandshakeKind::Resumed));
        resumed.close_notify();
        assert_eq!(resumed.end(), End::Orderly);
        drop(resumed);
        assert_ne!(renewed, shown);
        is_over.store(true, Ordering::SeqCst);
        assert!(stream.join().unwrap() > 16, "the stream has hardly run");
    });
    assert!(visits.load(Ordering::SeqCst) > 16, "hardly any device has come");

    let metrics = gate.settled();
    assert_eq!(metrics.sum("doorward_connections_rejected_total", &[]), refused_before, "a device was refused");
    // Each order looks at both names.
    let validated = metrics.sum("doorward_connections_closed_total", &[("reason", "acme_challenge")]);
    assert!(validated >= 4.0, "{validated}");
    assert!(metrics.sum("doorward_acme_renewals_total", &[("outcome", "renewed")]) >= 2.0);
    assert_eq!(metrics.sum("doorward_acme_renewals_total", &[("outcome", "failed")]), 0.0);
    assert_eq!(scene.pebble.accounts(), 1);
    let status = status(&gate).to_string();
    assert!(status.contains(&scene.relay.directory()), "{status}");
}

#[test]
fn new_server_name_is_ordered_at_once() {
    let scene = Scene::new();
    let gate = scene.open();
    let device = scene.device();
    let before = scene.wait_issued(&device);
    let more = scene.config().replace("\"photos.home.example\"", "\"photos.home.example\", \"videos.home.example\"");
    assert_eq!(gate.reload(&more)["event"], "reloaded");
    // The one before is in use until then.
    let videos = Arc::new(scene.client_config(true));
    let shown = scene.wait_for("the new name has a certificate", || {
        visit(scene.address(), &device, NAS).expect("the names before have one");
        visit(scene.address(), &videos, "videos.home.example").ok()
    });
    assert_ne!(shown, before);
    assert_eq!((scene.pebble.accounts(), scene.pebble.orders()), (1, 2));
    gate.settled();
}

#[test]
fn owner_has_it_renewed_now() {
    let scene = Scene::new();
    let gate = scene.open();
    let shown = scene.wait_issued(&scene.device());
    let told = gate.ask(&["certificate", "renew"]).success();
    let renewed = visit(scene.address(), &scene.without_sessions(), NAS).unwrap();
    assert_ne!(renewed, shown, "{told}");
    assert_eq!((scene.pebble.accounts(), scene.pebble.orders()), (1, 2));
    let refusal = || Answer::problem(403, "rejectedIdentifier", "home.example is on the list of the server");
    scene.relay.rule(move |asked, _| if asked.kind == "/order-plz" { Fate::Instead(refusal()) } else { Fate::Pass });
    let told = gate.ask(&["certificate", "renew"]).failure();
    assert!(told.to_string().contains("home.example is on the list of the server"), "{told}");
    assert_eq!(visit(scene.address(), &scene.without_sessions(), NAS).unwrap(), renewed);
    gate.settled();
}

#[test]
fn renewal_that_fails_costs_nothing_but_the_new_certificate() {
    let scene = Scene::with(&Settings { validity: SHORT, ..Settings::default() });
    let gate = scene.open();
    let device = scene.without_sessions();
    let shown = scene.wait_issued(&device);
    scene.relay.rule(|asked, _| match asked.kind.as_str() {
        "/order-plz" => Fate::Instead(Answer::problem(429, "rateLimited", "too many certificates for home.example")),
        _ => Fate::Pass,
    });
    let failed = scene.wait_for("a renewal has failed", || {
        assert_eq!(visit(scene.address(), &device, NAS).expect("the certificate is good"), shown);
        let metrics = gate.metrics();
        (metrics.sum("doorward_acme_renewals_total", &[("outcome", "failed")]) > 0.0).then_some(metrics)
    });
    drop(failed);
    assert_eq!(visit(scene.address(), &device, NAS).unwrap(), shown);
    let status = status(&gate).to_string();
    assert!(status.contains("too many certificates for home.example"), "{status}");
    gate.settled();
}
