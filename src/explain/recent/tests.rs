use std::io::ErrorKind;

use super::*;
use crate::model::identity::{Serial, Twins};
use crate::model::rejection::{IoError, Protocol, Text};
use crate::model::source::Prefixes;

fn identity(name: &str) -> Identity {
    Identity {
        verified: false,
        anchored: false,
        of_other_authority: false,
        emails: Vec::new(),
        uris: Vec::new(),
        dns_names: Vec::new(),
        ips: Vec::new(),
        common_name: Some(name.to_owned()),
        organizational_units: Vec::new(),
        name_constrained: false,
        guest_pass: None,
        origin: None,
        fingerprint: Sha256::of(name.as_bytes()),
        twins: Twins::known(Vec::new()),
        unsupported_key: None,
        spki: Sha256([2; 32]),
        serial: Serial::from_be_bytes(&[3]),
        issuer: "CN=test".into(),
        not_before: 0,
        not_after: i64::MAX,
    }
}

fn refusal(id: u64, source: &str, identity: Option<&Identity>) -> Refusal {
    counted(id, source, Prefixes::default(), identity)
}

fn counted(id: u64, source: &str, prefixes: Prefixes, identity: Option<&Identity>) -> Refusal {
    let listener = Name::parse("public").expect("a name");
    let source = SocketAddr::new(source.parse().expect("an address"), 4711);
    let counted_as = Source::of(source.ip(), prefixes);
    let circumstances = Circumstances {
        id,
        source,
        counted_as,
        listener: &listener,
        server_name: None,
        route: None,
        identity,
        impostor: None,
    };
    Refusal::new(&circumstances, &Rejection::silent(Cause::NotTls(Protocol::Http)))
}

/// No rank: the newest first.
fn newest(_: &Refusal) -> u8 {
    0
}

fn ids(found: &[Arc<Refusal>]) -> Vec<u64> {
    found.iter().map(|refusal| refusal.id).collect()
}

#[test]
fn refusals_are_found_newest_first_by_address_and_name() {
    let refusals = Refusals::default();
    let alice = identity("Alice-phone");
    refusals.remember(refusal(1, "192.0.2.7", None));
    refusals.remember(refusal(2, "2001:db8:0:1::5", Some(&alice)));
    refusals.remember(refusal(3, "::ffff:192.0.2.7", None));
    refusals.remember(refusal(4, "2001:db8:0:2::5", None));
    assert_eq!(ids(&refusals.latest(9)), [4, 3, 2, 1]);
    assert_eq!(ids(&refusals.latest(1)), [4]);
    let digits = alice.fingerprint.to_string();
    for (text, expected) in [
        ("last", vec![4, 3, 2, 1]),
        ("192.0.2.7", vec![3, 1]),
        ("192.0.2.7:443", vec![3, 1]),
        ("192.0.2.8", vec![]),
        ("2001:db8:0:1:ffff::1", vec![2]),
        ("alice-phone", vec![2]),
        ("alice", vec![]),
        (&format!("sha256:{digits}"), vec![2]),
        (&format!("sha256:{}:{}", &digits[..2], &digits[2..6].to_uppercase()), vec![2]),
        (&digits, vec![2]),
        ("sha256:00000000", vec![]),
    ] {
        let (found, known) = refusals.find(&Wanted::parse(text).expect(text), 9, newest);
        assert_eq!((ids(&found), known), (expected.clone(), expected.len()), "{text}");
    }
    assert_eq!(refusals.find(&Wanted::Last, 2, newest).1, 4);
    for wrong in ["", "  ", "sha256:12", "sha256:xyzxyz", &"x".repeat(300)] {
        assert!(Wanted::parse(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn who_was_counted_as_one_source_is_found_as_one() {
    let refusals = Refusals::default();
    let wide = Prefixes { v4: 24, v6: 48 };
    for (id, source) in [(1, "192.0.2.7"), (2, "192.0.3.7"), (3, "2001:db8:0:1::5"), (4, "2001:db8:1:1::5")] {
        refusals.remember(counted(id, source, wide, None));
    }
    for (text, expected) in [("192.0.2.200", 1), ("192.0.3.1", 2), ("2001:db8:0:ffff::1", 3), ("2001:db8:1::", 4)] {
        let (found, known) = refusals.find(&Wanted::parse(text).expect(text), 9, newest);
        assert_eq!((ids(&found), known), (vec![expected], 1), "{text}");
    }
}

#[test]
fn flood_of_strangers_displaces_no_refusal_of_a_device() {
    let refusals = Refusals::default();
    let alice = identity("alice-phone");
    refusals.remember(refusal(1, "192.0.2.7", Some(&alice)));
    for id in 2..10_000 {
        refusals.remember(refusal(id, "203.0.113.9", None));
    }
    assert_eq!(refusals.latest(usize::MAX).len(), KEPT_OF_EACH + 1);
    assert_eq!(refusals.total(), 9_999);
    let (found, _) = refusals.find(&Wanted::parse("alice-phone").expect("a name"), 1, newest);
    assert_eq!(ids(&found), [1]);
    assert_eq!(ids(&refusals.latest(1)), [9_999]);
}

#[test]
fn refusals_of_a_device_outlast_any_number_of_self_made_ones() {
    let refusals = Refusals::default();
    let alice = Identity { anchored: true, ..identity("alice-phone") };
    let forged = Identity { fingerprint: Sha256([9; 32]), ..identity("alice-phone") };
    refusals.remember(refusal(1, "192.0.2.7", Some(&alice)));
    for id in 2..2000 {
        refusals.remember(refusal(id, "203.0.113.9", Some(&forged)));
    }
    let (found, known) = refusals.find(&Wanted::parse("alice-phone").expect("a name"), 2, newest);
    assert_eq!((ids(&found), known), (vec![1, 1999], 1 + KEPT_OF_EACH), "its own come first");
    assert_eq!(ids(&refusals.latest(1)), [1999]);
}

#[test]
fn device_that_tries_again_has_one_entry_for_each_reason() {
    let refusals = Refusals::default();
    let (alice, bob) = ("alice-phone", "bob-phone");
    let device = |name: &str| Identity { anchored: true, ..identity(name) };
    refusals.remember(refusal(1, "192.0.2.7", Some(&device(bob))));
    for id in 2..2000 {
        refusals.remember(refusal(id, "192.0.2.8", Some(&device(alice))));
    }
    let proved = Identity { verified: true, ..device(alice) };
    refusals.remember(refusal(2000, "192.0.2.9", Some(&proved)));
    refusals.remember(Refusal { cause: Cause::Revoked, ..refusal(2001, "192.0.2.9", Some(&device(alice))) });
    let all = refusals.latest(usize::MAX);
    assert_eq!(ids(&all), [2001, 2000, 1999, 1]);
    assert_eq!(all.iter().map(|refusal| refusal.times).collect::<Vec<_>>(), [1, 1, 1998, 1]);
    assert_eq!(refusals.total(), 2001);
    // Other devices may push it out, but no more than there is room for are kept.
    for number in 0..KEPT_OF_EACH {
        refusals.remember(refusal(3000, "192.0.2.9", Some(&device(&format!("device-{number}")))));
    }
    assert_eq!(refusals.latest(usize::MAX).len(), KEPT_OF_EACH);
}

/// The bytes of the texts in a cause.
fn on_heap(cause: &Cause) -> usize {
    match cause {
        Cause::BackendRefused { backend, error } => {
            backend.to_string().len() + size_of::<IoError>() + error.text.to_string().len()
        }
        other => panic!("{other:?} is not measured"),
    }
}

/// The bytes of an entry, on the heap and off it.
fn size(refusal: &Refusal) -> usize {
    let shown = refusal.certificate.as_ref().map_or(0, |shown| {
        let names: usize = shown.names.iter().map(|name| name.len()).sum();
        names + shown.names.capacity() * size_of::<Box<str>>() + shown.serial.len() + shown.issuer.len()
    });
    // The counters of Arc stand before the value.
    size_of::<Refusal>()
        + 16
        + on_heap(&refusal.cause)
        + refusal.server_name.as_ref().map_or(0, |name| name.len())
        + shown
}

#[test]
fn three_megabytes_are_enough_for_any_refusals() {
    let refusals = Refusals::default();
    // Ten bytes each when they are escaped.
    let long = "\u{e0001}".repeat(1000);
    let certificate = Identity {
        emails: vec![long.clone(); 50],
        uris: vec![long.clone(); 50],
        dns_names: vec![long.clone(); 50],
        common_name: Some(long.clone()),
        issuer: long.clone(),
        serial: Serial::from_be_bytes(&[7; 200]),
        ..identity("")
    };
    let name = Name::parse(&"x".repeat(Name::MAX)).expect("a name");
    let source = SocketAddr::from(([192, 0, 2, 7], 1));
    // Of the causes the one with the most text.
    let error = Box::new(IoError { kind: ErrorKind::Other, errno: None, text: Text::new(&long) });
    let rejection = Rejection::silent(Cause::BackendRefused { backend: Text::new(&long), error });
    for id in 0..2 * KEPT_OF_EACH as u64 {
        let fingerprint = Sha256::of(&id.to_be_bytes());
        let device = Identity { anchored: true, fingerprint, ..certificate.clone() };
        for identity in [None, Some(&certificate), Some(&device)] {
            let circumstances = Circumstances {
                id,
                source,
                counted_as: Source::of(source.ip(), Prefixes::default()),
                listener: &name,
                server_name: Some(&long),
                route: Some(&name),
                identity,
                impostor: None,
            };
            refusals.remember(Refusal::new(&circumstances, &rejection));
        }
    }
    let all = refusals.latest(usize::MAX);
    assert_eq!(all.len(), 3 * KEPT_OF_EACH);
    let (rings, entries) = {
        let kept = refusals.lock();
        let places = kept.with_certificate.capacity() + kept.without.capacity();
        let of_devices = kept.of_devices.0.capacity() * size_of::<(DeviceKey, u64, Arc<Refusal>)>();
        (of_devices + places * size_of::<(u64, Arc<Refusal>)>(), all.iter().map(|refusal| size(refusal)).sum::<usize>())
    };
    eprintln!("{} bytes for {} refusals", rings + entries, all.len());
    assert!(rings + entries < 3 * 1024 * 1024, "{} bytes", rings + entries);
}

#[test]
fn what_a_stranger_chose_is_escaped() {
    let nasty = identity("<b>\u{1b}[31m\n\u{202e}");
    let shown = Certificate::from(&nasty);
    assert_eq!(shown.name(), "<b>\\u{1b}[31m\\n\\u{202e}");
    // And is found by what the log has.
    assert!(Wanted::parse(shown.name()).expect("a name").means(&refusal(1, "192.0.2.7", Some(&nasty))));
}

#[test]
fn long_text_is_cut_between_characters() {
    assert_eq!(&*cut("ä".repeat(10), 9), "äää…");
    assert_eq!(&*cut("ä".repeat(4), 8), "ääää");
}

#[test]
fn impostors_have_a_ring_of_their_own_and_come_after_the_device() {
    let refusals = Refusals::default();
    let forged = |id: u64, source: &str, claim| Refusal {
        impostor: Some(Impostor { name: "alice-phone".into(), claim }),
        ..refusal(id, source, Some(&identity("other")))
    };
    refusals.remember(refusal(1, "192.0.2.7", Some(&Identity { anchored: true, ..identity("alice-phone") })));
    for id in 2..12 {
        refusals.remember(forged(id, "198.51.100.66", Claim::Name));
    }
    refusals.remember(forged(12, "198.51.100.66", Claim::Serial));
    refusals.remember(forged(13, "198.51.100.67", Claim::Name));
    // Scanners push neither out.
    for id in 100..100 + 3 * KEPT_OF_EACH as u64 {
        refusals.remember(refusal(id, "203.0.113.9", None));
        refusals.remember(refusal(id, "203.0.113.9", Some(&identity("scanner"))));
    }
    let (found, known) = refusals.find(&Wanted::parse("Alice-Phone").expect("a name"), usize::MAX, newest);
    assert_eq!((ids(&found), known), (vec![1, 13, 12, 11], 4));
    assert_eq!(found.iter().map(|refusal| refusal.times).collect::<Vec<_>>(), [1, 1, 1, 10]);
    // Any number of sources.
    for id in 0..10_000_u32 {
        refusals.remember(forged(id.into(), &std::net::Ipv4Addr::from(id).to_string(), Claim::Name));
    }
    let (found, _) = refusals.find(&Wanted::parse("alice-phone").expect("a name"), usize::MAX, newest);
    assert_eq!(found.len(), 1 + IMPOSTORS_KEPT);
    assert_eq!(found.first().map(|refusal| refusal.id), Some(1));
}
