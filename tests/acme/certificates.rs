//! What a server issues is looked at before it is used.

use rcgen::{KeyPair, SubjectPublicKeyInfo};
use rustls::pki_types::pem::PemObject;
use time::Duration;

use crate::agent::{Home, NAMES, Outcome};
use crate::common::pki::{Authority, Certified, days_from_now};
use crate::relay::{Answer, Fate};

/// An attempt in which the server issues `chain`, made for the key that was ordered. Returns the words of its failure.
fn refused(home: &Home, what: &str, chain: impl FnOnce(&SubjectPublicKeyInfo) -> String + Send + 'static) -> String {
    let file = home.path("account/order.json");
    let replace = move |answer: Answer| {
        let order: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        let key = KeyPair::from_pem(order["key"].as_str().unwrap()).unwrap();
        let public = SubjectPublicKeyInfo::from_der(&rcgen::PublicKeyData::subject_public_key_info(&key)).unwrap();
        Answer { body: chain(&public).into(), ..answer }
    };
    let mut replace = Some(replace);
    let mut chain_text: Option<Vec<u8>> = None;
    let shared = std::sync::Arc::new(std::sync::Mutex::new((replace.take(), chain_text.take())));
    home.relay.rule(move |asked, _| {
        let shared = std::sync::Arc::clone(&shared);
        if asked.kind != "/certZ" {
            return Fate::Pass;
        }
        Fate::Change(Box::new(move |answer| {
            let mut shared = shared.lock().unwrap();
            if let Some(replace) = shared.0.take() {
                shared.1 = Some(replace(answer.clone()).body);
            }
            Answer { body: shared.1.clone().unwrap(), ..answer }
        }))
    });
    match home.attempt() {
        Outcome::Failed(failed) => failed.error,
        other => panic!("{what}: {other:?}"),
    }
}

#[test]
fn certificate_that_does_not_fit_is_not_used() {
    let home = Home::new();
    let root = || Authority::new("Another root");
    let garbage = refused(&home, "garbage", |_| "<html>".to_owned());
    assert!(garbage.contains("cannot be read: there is none"), "{garbage}");
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let error = refused(&home, "broken", |_| broken.to_owned());
    assert!(error.contains("cannot be read"), "{error}");
    let error = refused(&home, "half", |_| broken.replace("-----END CERTIFICATE-----\n", ""));
    assert!(error.contains("cannot be read"), "{error}");

    let error = refused(&home, "another key", move |_| root().issue(Certified::for_servers(&NAMES)).chain_pem());
    assert!(error.contains("another key"), "{error}");
    let one = move |key: &SubjectPublicKeyInfo| root().certify(Certified::for_servers(&NAMES[..1]), key);
    let error = refused(&home, "one name less", one);
    assert!(error.contains("is not for photos.home.example"), "{error}");
    let other = |key: &SubjectPublicKeyInfo| {
        Authority::new("x").certify(Certified::for_servers(&["nas.example", "*.home.example"]), key)
    };
    let error = refused(&home, "other names", other);
    assert!(error.contains("is not for nas.home.example"), "{error}");

    let expired = |key: &SubjectPublicKeyInfo| {
        let mut params = Certified::for_servers(&NAMES);
        (params.not_before, params.not_after) = (days_from_now(-90), days_from_now(-1));
        Authority::new("x").certify(params, key)
    };
    let error = refused(&home, "expired", expired);
    assert!(error.contains("has expired already"), "{error}");
    let wrong_chain = |key: &SubjectPublicKeyInfo| {
        let certificate = Authority::new("One").certify(Certified::for_servers(&NAMES), key);
        certificate + Authority::new("Another").pem()
    };
    let error = refused(&home, "wrong chain", wrong_chain);
    assert!(error.contains("do not fit together"), "{error}");
    let for_clients = |key: &SubjectPublicKeyInfo| {
        let authority = Authority::new("One");
        let mut params = Certified::for_servers(&NAMES);
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        authority.certify(params, key) + authority.pem()
    };
    let error = refused(&home, "for clients", for_clients);
    assert!(error.contains("do not fit together"), "{error}");

    // None of these orders is of use, and the next one is placed anew.
    assert!(!home.has_order());
    assert!(!home.path("live/certificate.pem").exists());
    home.relay.pass();
    home.order();
}

#[test]
fn certificate_of_a_later_day_keeps_its_order_until_the_clock_is_right() {
    let home = Home::new();
    let later = |distance: Duration| {
        move |key: &SubjectPublicKeyInfo| {
            let authority = Authority::new("One");
            let mut params = Certified::for_servers(&NAMES);
            (params.not_before, params.not_after) = (days_from_now(0) + distance, days_from_now(90));
            authority.certify(params, key) + authority.pem()
        }
    };
    let error = refused(&home, "tomorrow", later(Duration::DAY));
    assert!(error.contains("not valid yet: is this machine's clock right?"), "{error}");
    assert!(home.has_order());
    home.relay.pass();
    home.order();
    assert_eq!(home.pebble.orders(), 1);
    // A clock that is a few minutes behind is no reason.
    let file = home.path("account/order.json");
    let soon = later(Duration::minutes(10));
    home.relay.once(
        "/certZ",
        0,
        Fate::Change(Box::new(move |answer| {
            let order: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
            let key = KeyPair::from_pem(order["key"].as_str().unwrap()).unwrap();
            let public = SubjectPublicKeyInfo::from_der(&rcgen::PublicKeyData::subject_public_key_info(&key)).unwrap();
            Answer { body: soon(&public).into(), ..answer }
        })),
    );
    home.order();
}

#[test]
fn nothing_but_certificates_is_kept_of_what_a_server_sends() {
    let home = Home::new();
    let key = KeyPair::generate().unwrap().serialize_pem();
    let text = format!("# a comment\n{key}");
    home.relay.once(
        "/certZ",
        0,
        Fate::Change(Box::new(move |answer| {
            let body = [text.as_bytes(), &answer.body, text.as_bytes()].concat();
            Answer { body, ..answer }
        })),
    );
    home.order();
    let file = std::fs::read_to_string(home.path("live/certificate.pem")).unwrap();
    assert!(!file.contains('#'), "{file}");
    let keys: Vec<_> = rustls::pki_types::PrivateKeyDer::pem_slice_iter(file.as_bytes()).collect();
    assert_eq!(keys.len(), 1);
}
