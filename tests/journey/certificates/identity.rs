//! Whose name counts: that of the first certificate, in whichever form it is written.

use std::sync::Arc;

use doorward::model::rejection::{Alert, Reason};
use rcgen::SanType;
use rustls::client::ResolvesClientCert;

use super::{NAME, Scene, chain_of, odd};
use crate::client::{Client, Shown, TLS13, showing};
use crate::common::pki::{Authority, Certified};
use crate::home::assert_admitted;

/// Identity comes from the certificate whose key the client has proved to hold, and from no other one it sends along.
#[test]
fn certificate_stuffing_identity_is_the_first_certificate() {
    let scene = Scene::with(|house, backend| {
        house.route_with("nas", &[&backend.address().to_string()], "allow = [\"cn:alice-phone\"]")
    });
    let (alice, mallory) = (scene.pki.client("alice-phone"), scene.pki.client("mallory"));
    scene.admits("alice", &Shown::certificate(&alice));
    let not_allowed =
        |what: &str, shown: &Arc<Shown>| scene.refuses(what, Reason::IdentityNotAllowed, Alert::ACCESS_DENIED, shown);
    not_allowed("mallory", &Shown::certificate(&mallory));
    let behind = [mallory.chain(), alice.chain()].concat();
    not_allowed("mallory, alice behind", &chain_of(&mallory, behind));

    let in_front = [alice.chain(), mallory.chain()].concat();
    let shown = chain_of(&mallory, in_front);
    scene.refuses("alice in front, mallory's key", Reason::BadSignature, Alert::DECRYPT_ERROR, &shown);

    let stranger = Authority::new("Clients of another house").issue(Certified::for_clients("alice-phone"));
    for (what, chain) in [
        ("a stranger's alice", stranger.chain()),
        ("a stranger's alice, ours behind", [stranger.chain(), alice.chain()].concat()),
    ] {
        scene.refuses(what, Reason::UnknownCa, Alert::UNKNOWN_CA, &chain_of(&stranger, chain));
    }
}

/// mkcert's certificates have no common name unless they are made as .p12.
#[test]
fn no_cn_other_names_do() {
    for (allow, name) in [
        ("email:alice@home.example", SanType::Rfc822Name("alice@HOME.example".try_into().unwrap())),
        ("phone.alice", SanType::DnsName("phone.alice".try_into().unwrap())),
        ("uri:spiffe://home.example/alice", SanType::URI("spiffe://home.example/alice".try_into().unwrap())),
    ] {
        let scene = Scene::with(|house, backend| {
            house.route_with("nas", &[&backend.address().to_string()], &format!("allow = [{allow:?}]"))
        });
        let nameless = |names: Vec<SanType>| {
            let params = odd(|params| {
                params.distinguished_name = rcgen::DistinguishedName::new();
                params.subject_alt_names = names;
            });
            Shown::certificate(&scene.pki.clients.issue(params))
        };
        let config = showing(&scene.pki, nameless(vec![name]) as Arc<dyn ResolvesClientCert>, TLS13);
        let line = assert_admitted(&scene.gate, || Client::admitted(scene.gate.address(), &config, NAME));
        assert!(line["certificate"]["name"].as_str().unwrap().contains("alice"), "{line}");
        let without_names = nameless(Vec::new());
        scene.refuses("no names", Reason::IdentityNotAllowed, Alert::ACCESS_DENIED, &without_names);
    }
}
