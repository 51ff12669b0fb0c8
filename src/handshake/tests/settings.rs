//! Which settings a route's tickets depend on (attacks.md row 41).

use super::*;
use crate::config::checked::CipherStrength::{Bits128, Bits256};
use crate::handshake::settings_digest::digest;
use crate::handshake::suites::Suites;
use crate::handshake::tickets::TicketKey;

/// Routes of which each differs from each other one in a setting. At least one pair differs in nothing but one field.
fn variants(scene: &Scene) -> Vec<String> {
    let digest = "ab".repeat(32);
    let any = "allow = [\"any\"]";
    let top = |keys: &str| format!("{any}\n{keys}");
    let auth = |keys: &str| format!("{any}\n[route.client_auth]\n{keys}");
    let listed = |keys: &str| auth(&format!("revocation_lists = [\"clients.crl\"]\n{keys}"));
    scene.list("clients.crl", 99, 9);
    vec![
        any.to_owned(),
        "allow = [\"alice\"]".to_owned(),
        "allow = [\"any\", \"alice\"]".to_owned(),
        "allow = [\"alice\", \"bob\"]".to_owned(),
        "allow = [\"cn:alice\"]".to_owned(),
        "allow = [\"ou:alice\"]".to_owned(),
        "allow = [\"dns:alice\"]".to_owned(),
        format!("allow = [\"sha256:{digest}\"]"),
        format!("allow = [\"spki:{digest}\"]"),
        top("application_protocols = [\"h2\"]"),
        top("application_protocols = [\"http/1.1\"]"),
        top("application_protocols = [\"h2\", \"http/1.1\"]"),
        top("application_protocols = [\"http/1.1\", \"h2\"]"),
        top("[route.certificate]\nchain = \"server2.pem\"\nkey = \"server2-key.pem\""),
        auth("trust = [\"other.pem\"]"),
        auth("trust = [\"clients.pem\", \"other.pem\"]"),
        auth("trust = [\"device.pem\"]"),
        auth("mode = \"verify_if_given\""),
        "allow = [\"any\", \"unverified\"]\n[route.client_auth]\nmode = \"verify_if_given\"".to_owned(),
        "allow = [\"unverified\"]\n[route.client_auth]\nmode = \"request\"".to_owned(),
        "allow = [\"unverified\"]\n[route.client_auth]\nmode = \"require\"".to_owned(),
        auth("deny = [\"serial:07\"]"),
        auth("deny = [\"serial:08\"]"),
        auth("deny = [\"serial:07\", \"serial:08\"]"),
        auth(&format!("deny = [\"sha256:{digest}\"]")),
        auth("revocation_check = \"leaf\""),
        auth("expired_revocation_list = \"warn\""),
        auth("expired_session = \"keep\""),
        auth("announce_trust = \"off\""),
        listed(""),
        listed("trust = [\"clients.pem\", \"other.pem\"]"),
        auth("trust = [\"clients.pem\", \"other.pem\"]\nrevocation_lists = [\"clients.crl\", \"other.crl\"]"),
        auth("trust = [\"clients.pem\", \"other.pem\"]\nrevocation_lists = [\"other.crl\"]"),
        listed("revocation_check = \"leaf\""),
        listed("expired_revocation_list = \"warn\""),
    ]
}

/// A scene with the files that the variants name.
fn scene() -> Scene {
    let scene = Scene::new();
    let (other, pem) = authority("Other devices");
    scene.write("other.pem", &pem);
    let device = CertificateParams::default().self_signed(&KeyPair::generate().expect("a key")).expect("a certificate");
    scene.write("device.pem", &device.pem());
    let other = Scene { issuer: other, ..Scene::new() };
    other.list("other.crl", 99, 9);
    std::fs::copy(other.path("other.crl"), scene.path("other.crl")).expect("a file");
    scene
}

fn suites() -> Suites {
    Suites::new(Bits128)
}

#[test]
fn strength_is_in_the_digest() {
    let scene = scene();
    let route = scene.route(&variants(&scene)[0]);
    assert_ne!(digest(&route, Bits128), digest(&route, Bits256));
}

#[test]
fn every_two_routes_that_differ_have_different_digests() {
    let scene = scene();
    let routes: Vec<_> = variants(&scene).into_iter().map(|keys| (scene.route(&keys), keys)).collect();
    for (place, (one, keys)) in routes.iter().enumerate() {
        assert_eq!(digest(one, Bits128), digest(&scene.route(keys), Bits128), "{keys}");
        for (other, others) in &routes[place + 1..] {
            assert_ne!(digest(one, Bits128), digest(other, Bits128), "{keys} and {others}");
        }
    }
}

/// Fields that no configuration changes alone.
#[test]
fn every_field_is_in_the_digest() {
    use crate::config::checked::{Allow, RevocationList, Selector, TrustAnchor, TrustKind};
    use crate::model::identity::Sha256;

    let scene = scene();
    let listed = "allow = [\"any\"]\n[route.client_auth]\nrevocation_lists = [\"clients.crl\"]";
    scene.list("clients.crl", 99, 9);
    let route = scene.route(listed);
    let changed = |change: &dyn Fn(&mut RevocationList, &mut TrustAnchor)| {
        let mut route = route.clone();
        let auth = Arc::make_mut(&mut route.client_auth);
        change(&mut auth.revocation_lists[0], &mut auth.trust[0]);
        digest(&route, Bits128)
    };
    assert_eq!(changed(&|_, _| {}), digest(&route, Bits128));
    let others = [
        changed(&|list, _| list.issuer = b"another".to_vec()),
        changed(&|list, _| list.signer = None),
        changed(&|list, _| list.signer = Some(Sha256([7; 32]))),
        changed(&|list, _| list.whole = false),
        changed(&|list, _| list.part = vec![b"a part".to_vec()]),
        changed(&|_, anchor| anchor.kind = TrustKind::Pinned),
    ];
    for (place, one) in others.iter().enumerate() {
        assert_ne!(*one, digest(&route, Bits128), "change {place}");
        assert!(!others[..place].contains(one), "change {place}");
    }
    // Two selectors that are written alike.
    let selector = |selector: Selector| {
        let allow = Allow { selectors: vec![selector], ..Allow::default() };
        digest(&Terminate { allow, ..route.clone() }, Bits128)
    };
    let [word, name] = [Selector::AnyName("cn:alice".to_owned()), Selector::CommonName("alice".to_owned())];
    assert_ne!(selector(word), selector(name));
    // Values next to each other: none can take a part of its neighbour.
    let protocols = |list: &[&str]| {
        let application_protocols = list.iter().map(|one| one.as_bytes().to_vec()).collect();
        digest(&Terminate { application_protocols, ..route.clone() }, Bits128)
    };
    let split = [&["ab", "c"][..], &["a", "bc"], &["abc"], &["abc", ""], &["", "abc"]].map(protocols);
    for (place, one) in split.iter().enumerate() {
        assert!(!split[..place].contains(one), "change {place}");
    }
}

/// Lists are renewed and handed over; each resumed chain is looked up in the list in force.
#[test]
fn contents_of_revocation_lists_are_not_in_the_digest() {
    let scene = scene();
    let listed = "allow = [\"any\"]\n[route.client_auth]\nrevocation_lists = [\"clients.crl\"]";
    let digests = [(99, 9), (LOST, 9), (LOST, 5), (99, -1)].map(|(revoked, until)| {
        scene.list("clients.crl", revoked, until);
        digest(&scene.route(listed), Bits128)
    });
    assert!(digests.iter().all(|one| *one == digests[0]));
    // A file that has moved, and the order in which `deny` is written, change nothing.
    std::fs::copy(scene.path("clients.crl"), scene.path("moved.crl")).expect("a file");
    assert_eq!(digest(&scene.route(&listed.replace("clients.crl", "moved.crl")), Bits128), digests[0]);
    let deny = |serials: &str| {
        digest(&scene.route(&format!("allow = [\"any\"]\n[route.client_auth]\ndeny = [{serials}]")), Bits128)
    };
    assert_eq!(deny("\"serial:07\", \"serial:08\""), deny("\"serial:08\", \"serial:07\""));
}

/// Keys of the process, and keys that gates share.
#[test]
fn key_is_kept_with_the_same_settings_only() {
    let scene = scene();
    let variants = variants(&scene);
    let routes: Vec<_> = variants.iter().map(|keys| scene.route(keys)).collect();
    let nas = name("nas");
    for shared in [vec![], vec![secret()]] {
        let of = |route, former| TicketKey::of(&nas, route, &suites(), &shared, former).expect("a key");
        let keys: Vec<_> = routes.iter().map(|route| of(route, None)).collect();
        for (place, (route, keys_of_it)) in routes.iter().zip(&variants).enumerate() {
            for (from, former) in keys.iter().enumerate() {
                let key = of(route, Some(former));
                assert_eq!(key.is_same(former), place == from, "from {} to {keys_of_it}", variants[from]);
            }
        }
        // Two routes, or two gates.
        assert_eq!(of(&routes[0], None).is_same(&keys[0]), !shared.is_empty());
        let ssh = TicketKey::of(&name("ssh"), &routes[0], &suites(), &shared, None).expect("a key");
        assert!(!ssh.is_same(&keys[0]) && !keys[0].is_same(&ssh));
        let strict = Suites::new(Bits256);
        let strict = TicketKey::of(&nas, &routes[0], &strict, &shared, Some(&keys[0])).expect("a key");
        assert!(!strict.is_same(&keys[0]) && !keys[0].is_same(&strict));
    }
}
