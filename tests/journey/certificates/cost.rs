//! Chains that are made to cost the gate time or memory.

use std::sync::Arc;
use std::time::Duration;

use doorward::model::rejection::{Alert, Reason};
use rustls::ClientConfig;
use rustls::client::ResolvesClientCert;

use super::{NAME, Scene, chain_of, der, extension, odd, odd_authority};
use crate::client::{Client, End, Shown, TLS13, VERSIONS, showing};
use crate::common::pki::{Authority, Certified};
use crate::home::{Watch, assert_admitted};

#[test]
fn endless_chains_and_large_certificates_cost_little() {
    let scene = Scene::new();

    let mut deep = scene.pki.clients.intermediate(odd_authority(|_| ()));
    for _ in 1..12 {
        deep = deep.intermediate(odd_authority(|_| ()));
    }
    let deep = deep.issue(Certified::for_clients("alice-phone"));
    assert_eq!(deep.chain().len(), 13);
    scene.refuses("12 deep", Reason::CertificateInvalid, Alert::BAD_CERTIFICATE, &Shown::certificate(&deep));

    let padded = |bytes| odd(|params| params.custom_extensions.push(extension(false, vec![7; bytes])));
    let large = Shown::certificate(&scene.pki.clients.issue(padded(30_000)));
    for _ in 0..10 {
        scene.admits("30 kB", &large);
    }
    let huge = Shown::certificate(&scene.pki.clients.issue(padded(120_000)));
    for version in VERSIONS {
        let config = showing(&scene.pki, Arc::clone(&huge) as Arc<dyn ResolvesClientCert>, &[version]);
        let watch = Watch::begin(&scene.gate);
        let before = scene.backend.accepted();
        let end = Client::admitted(scene.gate.address(), &config, NAME).map(|_| ()).unwrap_err();
        let line = watch.rejected(Reason::Misbehaved, &end);
        // rustls itself stops here, without an alert.
        assert!(matches!(end, End::Truncated | End::Reset), "{end:?} {line}");
        assert_eq!(scene.backend.accepted(), before, "{line}");
    }

    // Whether it finds its way through them or not is its own affair; that it takes long is not.
    let alice = scene.pki.client("alice-phone");
    let mut crowd = alice.chain();
    for number in 0..80 {
        let other = Authority::new(&format!("Authority {number}"));
        crowd.push(der(other.pem()));
    }
    let config = showing(&scene.pki, chain_of(&alice, crowd) as Arc<dyn ResolvesClientCert>, &VERSIONS);
    let watch = Watch::begin(&scene.gate);
    let before = scene.gate.cpu_time();
    let outcome = Client::admitted(scene.gate.address(), &config, NAME);
    let spent = scene.gate.cpu_time() - before;
    assert!(spent < Duration::from_secs(1), "{spent:?}");
    match outcome {
        Ok(client) => drop(client),
        Err(end) => drop(watch.rejected(Reason::CertificateInvalid, &end)),
    }
}

/// A record costs as much as hundreds of bytes do, and a chain can be cut into thousands.
#[test]
fn handshakes_in_many_small_records_are_admitted_up_to_a_limit() {
    let scene = Scene::new();
    let padded = |bytes| {
        let shown =
            scene.pki.clients.issue(odd(|params| params.custom_extensions.push(extension(false, vec![7; bytes]))));
        Shown::certificate(&shown)
    };
    for version in VERSIONS {
        let in_small_records = |shown: Arc<Shown>| {
            let config = showing(&scene.pki, shown as Arc<dyn ResolvesClientCert>, &[version]);
            let mut config = ClientConfig::clone(&config);
            // The smallest that rustls makes.
            config.max_fragment_size = Some(32);
            Arc::new(config)
        };
        let fits = in_small_records(padded(1_500));
        assert_admitted(&scene.gate, || Client::admitted(scene.gate.address(), &fits, NAME));

        let too_many = in_small_records(padded(4_000));
        let watch = Watch::begin(&scene.gate);
        let end = Client::admitted(scene.gate.address(), &too_many, NAME).map(drop).unwrap_err();
        let line = watch.rejected(Reason::Misbehaved, &end);
        assert!(matches!(end, End::Truncated | End::Reset), "{end:?} {line}");
    }
}

/// A set that is made to send the search for a path round in circles: every certificate can stand above every other one.
#[test]
fn intermediates_that_lead_in_circles_cost_little() {
    let scene = Scene::new();
    let stranger = Authority::new("Phones of home.example");
    let leaf = stranger.issue(Certified::for_clients("alice-phone"));
    let mut chain = leaf.chain();
    for _ in 0..30 {
        // The same name as its issuer's, another key each time.
        let ring = stranger.intermediate(odd_authority(|_| ()));
        chain.push(der(ring.pem()));
    }
    let config = showing(&scene.pki, chain_of(&leaf, chain) as Arc<dyn ResolvesClientCert>, TLS13);
    let watch = Watch::begin(&scene.gate);
    let before = scene.gate.cpu_time();
    let end = Client::admitted(scene.gate.address(), &config, NAME).map(|_| ()).unwrap_err();
    let spent = scene.gate.cpu_time() - before;
    assert!(spent < Duration::from_secs(2), "{spent:?}");
    let line = watch.rejected_at("certificate");
    assert!(matches!(end, End::Alert(_)), "{end:?} {line}");
    assert_eq!(scene.backend.accepted(), 0);
}
