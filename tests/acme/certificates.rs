//! What a server issues is looked at before it is used.

use rcgen::{KeyPair, SubjectPublicKeyInfo};
use rustls::pki_types::pem::PemObject;
use time::Duration;

use crate::common::pki::{Authority, Certified, days_from_now};
use crate::direct::{Direct, NAMES};
use crate::relay::{Answer, Fate};

/// An attempt in which the server issues `chain`, made for the key that was ordered. Returns the words of its failure.
async fn refused(
    direct: &Direct,
    what: &str,
    chain: impl FnOnce(&SubjectPublicKeyInfo) -> String + Send + 'static,
) -> String {
    let file = direct.path("order.json");
    let replace = move |answer: Answer| {
        let order: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        let key = KeyPair::from_pem(order["key"].as_str().unwrap()).unwrap();
        let public = SubjectPublicKeyInfo::from_der(&rcgen::PublicKeyData::subject_public_key_info(&key)).unwrap();
        Answer { body: chain(&public).into(), ..answer }
    };
    direct.relay.once("/certZ", 0, Fate::Change(Box::new(replace)));
    match direct.attempt().await {
        Err(failed) => failed.error,
        Ok(_) => panic!("{what}: it was accepted"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificate_that_does_not_fit_is_not_used() {
    let direct = Direct::new();
    let root = || Authority::new("Another root");
    let garbage = refused(&direct, "garbage", |_| "<html>".to_owned()).await;
    assert!(garbage.contains("cannot be read: there is none"), "{garbage}");
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let error = refused(&direct, "broken", |_| broken.to_owned()).await;
    assert!(error.contains("cannot be read"), "{error}");
    let error = refused(&direct, "half", |_| broken.replace("-----END CERTIFICATE-----\n", "")).await;
    assert!(error.contains("cannot be read"), "{error}");

    let error =
        refused(&direct, "another key", move |_| root().issue(Certified::for_servers(&NAMES)).chain_pem()).await;
    assert!(error.contains("another key"), "{error}");
    let one = move |key: &SubjectPublicKeyInfo| root().certify(Certified::for_servers(&NAMES[..1]), key);
    let error = refused(&direct, "one name less", one).await;
    assert!(error.contains("is not for photos.home.example"), "{error}");
    let other = |key: &SubjectPublicKeyInfo| {
        Authority::new("x").certify(Certified::for_servers(&["nas.example", "*.home.example"]), key)
    };
    let error = refused(&direct, "other names", other).await;
    assert!(error.contains("is not for nas.home.example"), "{error}");

    let expired = |key: &SubjectPublicKeyInfo| {
        let mut params = Certified::for_servers(&NAMES);
        (params.not_before, params.not_after) = (days_from_now(-90), days_from_now(-1));
        Authority::new("x").certify(params, key)
    };
    let error = refused(&direct, "expired", expired).await;
    assert!(error.contains("has expired already"), "{error}");
    let wrong_chain = |key: &SubjectPublicKeyInfo| {
        let certificate = Authority::new("One").certify(Certified::for_servers(&NAMES), key);
        certificate + Authority::new("Another").pem()
    };
    let error = refused(&direct, "wrong chain", wrong_chain).await;
    assert!(error.contains("do not fit together"), "{error}");
    let for_clients = |key: &SubjectPublicKeyInfo| {
        let authority = Authority::new("One");
        let mut params = Certified::for_servers(&NAMES);
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        authority.certify(params, key) + authority.pem()
    };
    let error = refused(&direct, "for clients", for_clients).await;
    assert!(error.contains("do not fit together"), "{error}");

    // None of these orders is of use, and the next one is placed anew.
    assert!(!direct.has_order());
    assert!(!direct.path("certificate.pem").exists());
    direct.order().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificate_of_a_later_day_keeps_its_order_until_the_clock_is_right() {
    let direct = Direct::new();
    let later = |distance: Duration| {
        move |key: &SubjectPublicKeyInfo| {
            let authority = Authority::new("One");
            let mut params = Certified::for_servers(&NAMES);
            (params.not_before, params.not_after) = (days_from_now(0) + distance, days_from_now(90));
            authority.certify(params, key) + authority.pem()
        }
    };
    let error = refused(&direct, "tomorrow", later(Duration::DAY)).await;
    assert!(error.contains("not valid yet: is this machine's clock right?"), "{error}");
    assert!(direct.has_order());
    direct.relay.pass();
    direct.order().await;
    assert_eq!(direct.pebble.orders(), 1);
    // A clock that is a few minutes behind is no reason.
    let file = direct.path("order.json");
    let soon = later(Duration::minutes(10));
    direct.relay.once(
        "/certZ",
        0,
        Fate::Change(Box::new(move |answer| {
            let order: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
            let key = KeyPair::from_pem(order["key"].as_str().unwrap()).unwrap();
            let public = SubjectPublicKeyInfo::from_der(&rcgen::PublicKeyData::subject_public_key_info(&key)).unwrap();
            Answer { body: soon(&public).into(), ..answer }
        })),
    );
    direct.order().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_certificates_is_kept_of_what_a_server_sends() {
    let direct = Direct::new();
    let key = KeyPair::generate().unwrap().serialize_pem();
    let text = format!("# a comment\n{key}");
    direct.relay.once(
        "/certZ",
        0,
        Fate::Change(Box::new(move |answer| {
            let body = [text.as_bytes(), &answer.body, text.as_bytes()].concat();
            Answer { body, ..answer }
        })),
    );
    let issued = direct.order().await;
    assert!(!issued.chain.contains("PRIVATE KEY") && !issued.chain.contains('#'), "{}", issued.chain);
    let file = std::fs::read(direct.path("certificate.pem")).unwrap();
    let keys: Vec<_> = rustls::pki_types::PrivateKeyDer::pem_slice_iter(&file).collect();
    assert_eq!(keys.len(), 1);
}
