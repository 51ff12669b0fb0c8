//! Tickets under keys that two gates share.

use super::*;
use crate::handshake::shared_tickets::SharedTicketer;
use crate::model::identity::Sha256;
use crate::model::ticket::TicketOutcome;
use rustls::server::ProducesTickets;

const ANY: &str = "allow = [\"any\"]";
const NAS: &str = "nas.home.example";

/// A gate with these keys.
fn gate(scene: &Scene, keys: &str, shared: &[TicketSecret]) -> RouteTls {
    scene.tls_with(keys, TicketSource { route: &name("nas"), shared, former: None })
}

/// Goes there: whether the session was resumed, and the outcome of the ticket.
fn visit(gate: &RouteTls, device: &Arc<ClientConfig>) -> (bool, Option<TicketOutcome>) {
    let (finished, observation) = shake(gate.server(None), device, NAS);
    (finished.expect("it is admitted").facts.resumed, observation.ticket)
}

#[test]
fn gates_with_one_key_resume_the_sessions_of_each_other() {
    let scene = Scene::new();
    let device = scene.device("alice-phone", 1, 9);
    let shared = [secret()];
    let [one, other] = [gate(&scene, ANY, &shared), gate(&scene, ANY, &shared)];
    let (stranger, own) = (gate(&scene, ANY, &[secret()]), gate(&scene, ANY, &[]));
    let strict = gate(&scene, "allow = [\"alice-phone\"]", &shared);
    for version in VERSIONS {
        let device = Arc::new(scene.client(&device, version));
        assert_eq!(visit(&one, &device), (false, None));
        for gate in [&other, &one, &other] {
            assert_eq!(visit(gate, &device), (true, Some(TicketOutcome::Unused)), "{:?}", version.version);
        }
        // Another key, keys of its own, and other settings.
        for other in [&stranger, &own, &strict] {
            assert_eq!(visit(other, &device), (false, Some(TicketOutcome::Unknown)), "{:?}", version.version);
            assert_eq!(visit(&one, &device), (false, Some(TicketOutcome::Unknown)));
        }
    }
}

/// A key file is replaced step by step: made beside the first one, first, last, gone.
#[test]
fn ticket_is_resumed_while_its_key_is_listed() {
    let scene = Scene::new();
    let device = scene.device("alice-phone", 1, 9);
    let [old, new, newer] = [secret(), secret(), secret()];
    let steps = [
        (vec![old.clone()], [true, false, false]),
        (vec![old.clone(), new.clone()], [true, true, false]),
        (vec![new.clone(), newer.clone(), old.clone()], [true, true, true]),
        (vec![newer.clone(), new.clone()], [false, true, true]),
        (vec![newer.clone()], [false, false, true]),
        // No shared key: those of the process.
        (vec![], [false, false, false]),
    ];
    for version in VERSIONS {
        let mut former = None;
        for (keys, resumed) in &steps {
            let gate = scene.tls_with(ANY, TicketSource { route: &name("nas"), shared: keys, former: former.as_ref() });
            for (secret, resumed) in [&old, &new, &newer].into_iter().zip(resumed) {
                let device = Arc::new(scene.client(&device, version));
                let sealing = gate_with(&scene, secret);
                assert_eq!(visit(&sealing, &device), (false, None));
                assert_eq!(visit(&gate, &device).0, *resumed, "{} keys", keys.len());
            }
            former = Some(gate);
        }
        // Tickets are under the first of its keys.
        let both = gate(&scene, ANY, &[new.clone(), old.clone()]);
        for (opening, resumed) in [(&old, false), (&new, true)] {
            let device = Arc::new(scene.client(&device, version));
            assert_eq!(visit(&both, &device), (false, None));
            assert_eq!(visit(&gate_with(&scene, opening), &device).0, resumed);
        }
    }
}

fn gate_with(scene: &Scene, secret: &TicketSecret) -> RouteTls {
    gate(scene, ANY, std::slice::from_ref(secret))
}

/// With the key, any session can be sealed. What is in it is judged like any chain, and is read without a panic.
#[test]
fn forged_ticket_admits_no_chain_that_a_handshake_would_not() {
    let scene = Scene::new();
    let shared = [secret()];
    let listed = "allow = [\"any\"]\n[route.client_auth]\nrevocation_lists = [\"clients.crl\"]";
    scene.list("clients.crl", LOST, 9);
    let victim = gate(&scene, listed, &shared);
    let settings = crate::handshake::settings_digest::digest(&scene.route(listed), CipherStrength::Bits128);
    let stolen = SharedTicketer::new(&shared, &name("nas"), &settings).expect("keys");
    let forge = |chain: &[&CertificateDer<'_>], until: u64| {
        let session = chain.iter().flat_map(|one| one.iter().copied()).collect::<Vec<u8>>();
        let mut start = 0;
        let mut content = [&until.to_be_bytes()[..], &[chain.len() as u8]].concat();
        for one in chain {
            content.extend([start, one.len()].iter().flat_map(|number| (*number as u16).to_be_bytes()));
            start += one.len();
        }
        stolen.encrypt(&[content, session].concat()).expect("a ticket")
    };
    let outcome = |ticket: &[u8]| {
        let mut observation = Observation::default();
        let opened = observe(&mut observation, || victim.server(None).ticketer.decrypt(ticket));
        assert_eq!(opened.is_some(), observation.ticket == Some(TicketOutcome::Unused));
        observation.ticket.expect("an outcome")
    };
    let [alice, lost, late] = [("alice-phone", 1, 9), ("lost-phone", LOST, 9), ("old-phone", 3, -1)]
        .map(|(name, number, until)| scene.device(name, number, until).der);
    let strange = Scene::new().device("alice-phone", 1, 9).der;
    // What a stolen key is good for, and therefore must not be stolen: the certificate of an admitted device is not secret.
    assert_eq!(outcome(&forge(&[&alice], u64::MAX)), TicketOutcome::Unused);
    for chain in [&[&lost][..], &[&late], &[&strange], &[&strange, &alice], &[&lost, &alice]] {
        assert_eq!(outcome(&forge(chain, u64::MAX)), TicketOutcome::Refused);
    }
    assert_eq!(outcome(&forge(&[&alice], 1)), TicketOutcome::Expired);
    assert_eq!(outcome(&forge(&[], u64::MAX)), TicketOutcome::Unknown);
    // Places beyond the end, and contents of every length.
    for content in [&[0xff; 80][..], &[0; 9], &[]] {
        for length in 0..=content.len() {
            let ticket = stolen.encrypt(&content[..length]).expect("a ticket");
            assert!(
                [TicketOutcome::Unknown, TicketOutcome::Expired, TicketOutcome::Refused].contains(&outcome(&ticket))
            );
        }
    }
}

/// Every bit of a ticket counts, and whatever else is presented is no ticket.
#[test]
fn changed_or_crafted_ticket_is_not_opened() {
    let keys = SharedTicketer::new(&[secret(), secret()], &name("nas"), &Sha256([7; 32])).expect("keys");
    let session = [5; 300];
    let ticket = keys.encrypt(&session).expect("a ticket");
    assert_eq!(keys.decrypt(&ticket).as_deref(), Some(&session[..]));
    assert_ne!(keys.encrypt(&session).expect("a ticket"), ticket);
    for bit in 0..8 * ticket.len() {
        let mut changed = ticket.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(keys.decrypt(&changed), None, "bit {bit}");
    }
    for length in 0..ticket.len() {
        assert_eq!(keys.decrypt(&ticket[..length]), None, "{length} bytes");
        // The name of the key is seen by all, so anyone can send it with other bytes.
        let mut crafted = ticket[..16.min(length)].to_vec();
        crafted.resize(length, 0);
        aws_lc_rs::rand::fill(&mut crafted[16.min(length)..]).expect("random bytes");
        assert_eq!(keys.decrypt(&crafted), None, "{length} bytes");
    }
    assert_eq!(keys.decrypt(&[ticket.as_slice(), &[0]].concat()), None);
    assert_eq!(keys.decrypt(&vec![0; 1 << 20]), None);
}
