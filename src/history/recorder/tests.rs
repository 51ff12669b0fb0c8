use std::net::SocketAddr;

use super::*;
use crate::explain::recent::Circumstances;
use crate::model::rejection::{Cause, Rejection, Text};
use crate::model::source::{Prefixes, Source};

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

/// A refusal of a connection that showed the certificate of a device.
fn refusal(cause: Cause, anchored: bool) -> Refusal {
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(vec!["alice-phone".to_owned()]).expect("a name");
    let certificate = params.self_signed(&key).expect("a certificate");
    let mut identity = Identity::from_certificate(certificate.der(), false).expect("an identity");
    identity.anchored = anchored;
    let (listener, route, source) = (name("public"), name("nas"), SocketAddr::from(([203, 0, 113, 66], 4711)));
    let circumstances = Circumstances {
        id: 1,
        source,
        counted_as: Source::of(source.ip(), Prefixes::default()),
        listener: &listener,
        server_name: None,
        route: Some(&route),
        identity: Some(&identity),
        impostor: None,
    };
    Refusal::new(&circumstances, &Rejection::silent(cause))
}

#[test]
fn only_what_an_authority_signed_is_told_of_a_device() {
    let history = History::default();
    // A name that anything can call itself, and the certificate of the device with another key.
    history.refused(&refusal(Cause::NoCertificate, false));
    history.refused(&refusal(Cause::BadSignature, true));
    let overview = history.overview(OffsetDateTime::now_utc());
    assert_eq!((overview.devices.len(), overview.day.total()), (0, 2));
    history.pretended(&refusal(Cause::NoCertificate, false), "alice-phone", "name");
    history.refused(&refusal(Cause::NoVerdict, true));
    let overview = history.overview(OffsetDateTime::now_utc());
    let [device] = &overview.devices[..] else { panic!("{:?}", overview.devices) };
    assert_eq!(device.is_refused().map(|refused| refused.times), Some(1));
    assert_eq!((overview.day.total(), overview.impostors.len()), (2, 1));
}

#[test]
fn first_connection_of_a_device_is_told_once() {
    let history = History::default();
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(vec!["alice-phone".to_owned()]).expect("a name");
    let certificate = params.self_signed(&key).expect("a certificate");
    let identity = |verified| Identity::from_certificate(certificate.der(), verified).expect("an identity");
    let (alice, unverified, route) = (identity(true), identity(false), name("nas"));
    let began = |identity: &Identity| {
        let (address, since) = (IpAddr::from([203, 0, 113, 140]), OffsetDateTime::now_utc());
        history.began(&Admitted { identity: Some(identity), route: &route, address, since })
    };
    assert_eq!([&unverified, &alice, &alice, &unverified].map(began), [false, true, false, false]);
    let overview = history.overview(OffsetDateTime::now_utc());
    assert_eq!(overview.visits.iter().map(|visit| (visit.connections, visit.open)).collect::<Vec<_>>(), [(2, 2)]);
    assert_eq!(overview.hours.iter().map(|hour| hour.admitted).sum::<u64>(), 4);
}

#[test]
fn backend_is_told_since_it_changed() {
    let history = History::default();
    let (route, backend) = (name("nas"), Backend::Address(SocketAddr::from(([192, 168, 1, 10], 5666))));
    for up in [true, true, false, false] {
        history.dialled(&route, &backend, up);
    }
    history.refused(&refusal(Cause::BackendTimeout { backend: Text::new(&backend) }, true));
    let overview = history.overview(OffsetDateTime::now_utc());
    let [known] = &overview.backends[..] else { panic!("{:?}", overview.backends) };
    assert_eq!((&*known.backend, known.up, known.failed), ("192.168.1.10:5666", false, 1));
    assert_eq!((overview.devices.len(), overview.day.total()), (0, 0));
}
