//! A resumed session has the rights that its certificate has now (attacks.md rows 18 and 41).

use rustls::pki_types::UnixTime;

use super::*;
use crate::handshake::identify::{identify, judged};
use crate::handshake::tickets::Tickets;
use crate::model::rejection::Reason;
use crate::model::ticket::TicketOutcome;

const LAX: &str = "allow = [\"unverified\"]\n[route.client_auth]\nmode = \"request\"";
const NAS: &str = "nas.home.example";

/// The device in question, and every way of refusing it.
fn refusals(scene: &Scene) -> (Certified, Vec<(String, Reason)>) {
    let device = scene.device("lost-phone", LOST, 9);
    scene.list("revoked.crl", LOST, 9);
    scene.list("expired.crl", 99, -1);
    let digest = crate::model::identity::Sha256::of(&device.der);
    let auth = |keys: &str| format!("allow = [\"any\"]\n[route.client_auth]\n{keys}");
    let refusals = vec![
        (auth("revocation_lists = [\"revoked.crl\"]"), Reason::Revoked),
        (auth("revocation_lists = [\"expired.crl\"]"), Reason::RevocationListExpired),
        (auth(&format!("deny = [\"serial:{LOST:02x}\"]")), Reason::Denied),
        (auth(&format!("deny = [\"sha256:{digest}\"]")), Reason::Denied),
        (auth("trust = [\"other.pem\"]"), Reason::UnknownCa),
        ("allow = [\"alice-phone\"]".to_owned(), Reason::IdentityNotAllowed),
    ];
    (device, refusals)
}

/// As the configuration of `strict`, but with the tickets of `lax`: a session of the lax route is resumed there.
fn with_tickets_of(strict: &RouteTls, lax: &RouteTls) -> Arc<ServerConfig> {
    let mut server = ServerConfig::clone(strict.server(None));
    server.ticketer = Arc::clone(&lax.server(None).ticketer);
    Arc::new(server)
}

/// The last barrier alone: whatever rustls resumes, the chain is judged.
#[test]
fn chain_of_a_resumed_session_is_judged() {
    let scene = Scene::new();
    let (device, refusals) = refusals(&scene);
    let expired = scene.device("lost-phone", LOST + 1, -1);
    let lax = scene.tls(LAX, None);
    let cases = refusals.iter().map(|(keys, reason)| (&device, keys.as_str(), Some(*reason)));
    let cases = cases.chain([
        (&expired, "allow = [\"any\"]", Some(Reason::Expired)),
        (&device, "allow = [\"any\"]", None),
        (&device, "allow = [\"lost-phone\"]", None),
    ]);
    for (certified, keys, expected) in cases {
        let strict = scene.tls(keys, None);
        let server = with_tickets_of(&strict, &lax);
        for version in VERSIONS {
            let client = Arc::new(scene.client(certified, version));
            assert!(!shake(lax.server(None), &client, NAS).0.expect("it is lax").facts.resumed);
            let (finished, observation) = shake(&server, &client, NAS);
            let finished = finished.expect("a handshake");
            assert!(finished.facts.resumed, "{keys}, {:?}", version.version);
            assert!(observation.identity.is_none() && observation.chain.is_none(), "no verifier was called");
            assert!(observation.restored.is_some(), "the ticketer is lax");
            let lax_verdict = judged(observation, true, &strict);
            let verdict = identify(&finished.chain, lax_verdict, &strict).map_err(|refused| refused.rejection.reason());
            let identity = verdict.map(|named| named.map(|(identity, _)| identity.verified));
            assert_eq!(identity, expected.map_or(Ok(Some(true)), Err), "{keys}, {:?}", version.version);
        }
    }
}

/// The second barrier alone: the key is the same, and the ticket is refused before its session is resumed.
#[test]
fn ticket_of_a_refused_chain_is_ignored() {
    let scene = Scene::new();
    let (device, refusals) = refusals(&scene);
    let lax = scene.tls(LAX, None);
    let cases = refusals.iter().map(|(keys, reason)| (keys.as_str(), Some(*reason)));
    for (keys, expected) in cases.chain([("allow = [\"any\"]", None), ("allow = [\"lost-phone\"]", None)]) {
        let strict = scene.tls(keys, None);
        let mut server = ServerConfig::clone(strict.server(None));
        server.ticketer = Arc::new(Tickets::new(lax.ticket_key.clone(), Arc::clone(&strict.verifier)));
        let server = Arc::new(server);
        for version in VERSIONS {
            let client = Arc::new(scene.client(&device, version));
            assert!(!shake(lax.server(None), &client, NAS).0.expect("it is lax").facts.resumed);
            let (finished, observation) = shake(&server, &client, NAS);
            let refused = expected.is_some();
            let outcome = if refused { TicketOutcome::Refused } else { TicketOutcome::Unused };
            assert_eq!(observation.ticket, Some(outcome), "{keys}, {:?}", version.version);
            // In the full handshake, the certificate was looked at.
            assert_eq!(observation.refusal.map(|cause| cause.reason()), expected, "{keys}, {:?}", version.version);
            assert_eq!(finished.ok().map(|finished| finished.facts.resumed), (!refused).then_some(true), "{keys}");
        }
    }
}

#[test]
fn replaced_certificate_is_shown_after_the_old_one_was_refused() {
    let scene = Scene::new();
    let (old, new) = (scene.device("alice-phone", LOST, 9), scene.device("alice-phone", LOST + 1, 9));
    scene.list("clients.crl", 99, 9);
    let keys = "allow = [\"any\"]\n[route.client_auth]\nrevocation_lists = [\"clients.crl\"]";
    let before = scene.tls(keys, None);
    scene.list("clients.crl", LOST, 9);
    let after = scene.tls(keys, Some(&before));
    for version in VERSIONS {
        let (mut client, shown) = (scene.client(&old, version), Shown::new(&old));
        client.client_auth_cert_resolver = Arc::<Shown>::clone(&shown);
        let client = Arc::new(client);
        assert!(!shake(before.server(None), &client, NAS).0.expect("it is valid").facts.resumed);
        shown.set(Some(&new));
        let (finished, observation) = shake(after.server(None), &client, NAS);
        assert_eq!(observation.ticket, Some(TicketOutcome::Refused));
        let finished = finished.expect("a new certificate");
        assert_eq!((finished.facts.resumed, finished.chain), (false, vec![new.der.clone()]));
        assert!(shake(after.server(None), &client, NAS).0.expect("it is valid").facts.resumed);
    }
}

/// What the verifier said of one certificate admits no other that is reported beside it.
#[test]
fn verdict_on_one_leaf_admits_no_other() {
    let scene = Scene::new();
    let [alice, mallory] = [("alice-phone", 1), ("mallory", 2)].map(|(name, number)| scene.device(name, number, 9).der);
    let tls = scene.tls("allow = [\"alice-phone\"]", None);
    let verdict = || {
        let judged = tls.verifier.judge(&alice, &[], UnixTime::now());
        assert!(judged.verdict.is_ok());
        judged.identity.zip(judged.chain)
    };
    assert!(matches!(identify(std::slice::from_ref(&alice), verdict(), &tls), Ok(Some(_))));
    for reported in [vec![mallory.clone()], vec![mallory.clone(), alice.clone()]] {
        let refused = identify(&reported, verdict(), &tls).map(drop).expect_err("mallory is not allowed");
        assert_eq!(refused.rejection.reason(), Reason::IdentityNotAllowed);
    }
}

#[test]
fn ticket_outcome_is_known() {
    let scene = Scene::new();
    let device = scene.device("alice-phone", 1, 9);
    let (nas, twin) = (scene.tls("allow = [\"any\"]", None), scene.tls("allow = [\"any\"]", None));
    for version in VERSIONS {
        let client = Arc::new(scene.client(&device, version));
        let visit = |tls: &RouteTls, name| {
            let (finished, observation) = shake(tls.server(None), &client, name);
            (observation.ticket, finished.expect("it is admitted").facts.resumed)
        };
        assert_eq!(visit(&nas, NAS), (None, false));
        assert_eq!(visit(&nas, NAS), (Some(TicketOutcome::Unused), true), "resumed, once it is over");
        let (finished, observation) = shake(nas.server(None), &client, NAS);
        assert!(finished.expect("it is admitted").facts.resumed);
        assert!(judged(observation, true, &nas).is_some(), "it need not be judged twice");
        assert_eq!(visit(&twin, NAS), (Some(TicketOutcome::Unknown), false), "another key, the same settings");
    }
    // The session of one name, sent to another one.
    for version in VERSIONS {
        let mut client = scene.client(&device, version);
        client.enable_sni = false;
        let client = Arc::new(client);
        assert!(!shake(nas.server(None), &client, NAS).0.expect("it is admitted").facts.resumed);
        let mut named = ClientConfig::clone(&client);
        named.enable_sni = true;
        let (finished, observation) = shake(nas.server(None), &Arc::new(named), NAS);
        assert_eq!(observation.ticket, Some(TicketOutcome::Unused));
        assert!(!finished.expect("it is admitted").facts.resumed);
    }
}

#[test]
fn client_without_certificate_gets_no_ticket_for_a_ticket() {
    let scene = Scene::new();
    let device = scene.device("alice-phone", 1, 9);
    let open = scene.tls(LAX, None);
    for version in VERSIONS {
        let (mut client, shown) = (scene.client(&device, version), Shown::new(&device));
        client.client_auth_cert_resolver = Arc::<Shown>::clone(&shown);
        client.enable_sni = false;
        assert!(!shake(open.server(None), &Arc::new(client.clone()), NAS).0.expect("it is admitted").facts.resumed);
        client.enable_sni = true;
        shown.set(None);
        let client = Arc::new(client);
        let (finished, observation) = shake(open.server(None), &client, NAS);
        assert!(finished.expect("it is admitted").chain.is_empty());
        assert_eq!((observation.ticket, observation.restored.is_some()), (Some(TicketOutcome::Unused), true));
        let (finished, observation) = shake(open.server(None), &client, NAS);
        assert!(!finished.expect("it is admitted").facts.resumed);
        // TLS 1.3 clients use a ticket once; of TLS 1.2 it is still the first one.
        let first = (version.version == rustls::ProtocolVersion::TLSv1_2).then_some(TicketOutcome::Unused);
        assert_eq!(observation.ticket, first);
    }
}

/// Calls the ticketer of `tls` with what an earlier handshake has left.
fn seal(tls: &RouteTls, device: &Certified, until: u64, session: &[u8]) -> Option<Vec<u8>> {
    let chain = Some(Arc::new(crate::model::identity::Chain::new(vec![device.der.clone()], Vec::new(), until)));
    let mut observation = Observation { valid_until: Some(until), chain, ..Observation::default() };
    observe(&mut observation, || tls.server(None).ticketer.encrypt(session))
}

#[test]
fn ticket_ends_with_its_certificate() {
    let scene = Scene::new();
    let (tls, device) = (scene.tls("allow = [\"any\"]", None), scene.device("alice-phone", 1, 9));
    let session = [b"begin", device.der.as_ref(), b"end"].concat();
    let now = UnixTime::now().as_secs();
    for (until, outcome) in [(now + 60, TicketOutcome::Unused), (now - 1, TicketOutcome::Expired)] {
        let ticket = seal(&tls, &device, until, &session).expect("a ticket");
        // A reload does not change that.
        for tls in [&tls, &scene.tls("allow = [\"any\"]", Some(&tls))] {
            let mut later = Observation::default();
            let restored = observe(&mut later, || tls.server(None).ticketer.decrypt(&ticket));
            assert_eq!(later.ticket, Some(outcome));
            let valid = outcome == TicketOutcome::Unused;
            assert_eq!(restored.as_ref(), valid.then_some(&session));
            assert_eq!(later.valid_until, valid.then_some(until), "a renewed ticket keeps the end of the first");
            assert_eq!(observe(&mut later, || tls.server(None).ticketer.encrypt(&session)).is_some(), valid);
        }
    }
    // A list that is newer than the ticket ends sooner.
    scene.list("clients.crl", 99, 1);
    let listed = "allow = [\"any\"]\n[route.client_auth]\nrevocation_lists = [\"clients.crl\"]";
    let tls = scene.tls(listed, None);
    let ticket = seal(&tls, &device, now + 3 * 24 * 3600, &session).expect("a ticket");
    let mut later = Observation::default();
    assert!(observe(&mut later, || tls.server(None).ticketer.decrypt(&ticket)).is_some());
    let left = later.valid_until.expect("an end") - now;
    assert!((23 * 3600..=24 * 3600).contains(&left), "{left}");
}

#[test]
fn ticket_without_its_chain_is_not_given() {
    let scene = Scene::new();
    let (tls, device) = (scene.tls("allow = [\"any\"]", None), scene.device("alice-phone", 1, 9));
    assert!(seal(&tls, &device, u64::MAX, &device.der).is_some());
    assert_eq!(seal(&tls, &device, u64::MAX, &device.der[1..]), None);
    assert_eq!(seal(&tls, &device, u64::MAX, b""), None);
    assert_eq!(observe(&mut Observation::default(), || tls.server(None).ticketer.encrypt(&device.der)), None);
}

#[test]
fn ticket_fits_into_one_record() {
    const MOST: usize = 12 * 1024;
    let scene = Scene::new();
    let (tls, device) = (scene.tls("allow = [\"any\"]", None), scene.device("alice-phone", 1, 9));
    for (length, given) in [(MOST, true), (MOST + 1, false)] {
        let mut session = device.der.to_vec();
        session.resize(length, 7);
        let ticket = seal(&tls, &device, u64::MAX, &session);
        assert_eq!(ticket.is_some(), given);
        assert!(ticket.is_none_or(|ticket| ticket.len() < crate::tls::record::PLAINTEXT_MAX));
    }
}

/// A ClientHello may offer the ticket of a revoked device many times.
#[test]
fn refused_ticket_is_judged_once_in_a_handshake() {
    let scene = Scene::new();
    let (device, other) = (scene.device("lost-phone", LOST, 9), scene.device("alice-phone", 1, 9));
    let tls = scene.tls("allow = [\"alice-phone\"]", None);
    let [refused, admitted] =
        [&device, &other].map(|device| seal(&tls, device, u64::MAX, &device.der).expect("a ticket"));
    let mut observation = Observation::default();
    let opened =
        observe(&mut observation, || [&refused, &admitted].map(|ticket| tls.server(None).ticketer.decrypt(ticket)));
    assert_eq!((opened, observation.ticket), ([None, None], Some(TicketOutcome::Refused)));
}

#[test]
fn only_the_first_tickets_of_a_handshake_are_looked_at() {
    let scene = Scene::new();
    let (tls, device) = (scene.tls("allow = [\"any\"]", None), scene.device("alice-phone", 1, 9));
    let ticket = seal(&tls, &device, u64::MAX, &device.der).expect("a ticket");
    for (junk, opened) in [(0, true), (3, true), (4, false), (300, false)] {
        let mut observation = Observation::default();
        let last = observe(&mut observation, || {
            (0..junk).for_each(|_| assert_eq!(tls.server(None).ticketer.decrypt(&[7; 80]), None));
            tls.server(None).ticketer.decrypt(&ticket)
        });
        assert_eq!(last.is_some(), opened, "after {junk} others");
        let outcome = if opened { TicketOutcome::Unused } else { TicketOutcome::Unknown };
        assert_eq!(observation.ticket, Some(outcome));
    }
}
