//! What chains cost: signatures that are checked, bytes that are read.

use super::*;

#[test]
fn forged_chains_cost_two_signatures_at_most() {
    let (root, other) = (Ca::new("Devices"), Ca::new("Other devices"));
    let scene = Scene::new(&[&root.certificate, &other.certificate], Vec::new());
    let forged = Ca::new("Devices");
    let junk: Vec<_> = (0..8).map(|_| forged.below(authority_params("Devices"))).collect();
    let leaf = forged.device(params("stranger"));
    let by_middle = Ca::new("Middle");
    let middles: Vec<_> = (0..8)
        .map(|number| {
            let above = if number % 2 == 0 { &forged } else { &Ca::new("Other devices") };
            by_middle.crossed_by(above, &authority_params("Middle"))
        })
        .collect();
    let middle_leaf = by_middle.device(params("stranger"));
    let ring: Vec<_> = (0..8)
        .map(|number| {
            Ca::new(&format!("Ring {number}"))
                .below(authority_params(&format!("Ring {}", (number + 1) % 8)))
                .certificate
        })
        .collect();
    let ring_leaf = Ca::new("Ring 0").device(params("stranger"));
    let devices: Vec<_> = (0..8).map(|_| forged.device(params("Devices"))).collect();

    let cases: Vec<(&str, &CertificateDer<'_>, Vec<&CertificateDer<'static>>)> = vec![
        ("nothing beside", &leaf, vec![]),
        ("8 of the anchor's name", &leaf, junk.iter().map(|one| &one.certificate).collect()),
        ("8 of one name below two anchors' names", &middle_leaf, middles.iter().collect()),
        ("a ring", &ring_leaf, ring.iter().collect()),
        ("8 that are no authorities", &leaf, devices.iter().collect()),
        ("the anchor itself, 8 times", &leaf, vec![&root.certificate; 8]),
    ];
    for (what, leaf, sent) in &cases {
        for order in orders(sent.len(), 50) {
            let sent: Vec<_> = order.iter().map(|place| sent[*place]).collect();
            let (verdict, cost) = scene.judge(leaf, &sent);
            assert_eq!(verdict.err(), Some(Reason::UnknownCa), "{what}");
            assert!(cost <= 2, "{what}: {cost} signatures");
        }
    }
    let (verdict, cost) = scene.judge(&leaf, &[&junk[0].certificate; 9]);
    assert_eq!((verdict.err(), cost), (Some(Reason::CertificateInvalid), 0), "more than 8");
}

#[test]
fn forged_chains_with_a_genuine_issuer_cost_four_signatures() {
    let root = Ca::new("Devices");
    let scene = Scene::new(&[&root.certificate], Vec::new());
    let genuine = root.below(authority_params("Genuine"));
    let between = Ca::new("Between");
    let above = [Ca::new("Genuine"), Ca::new("Devices")];
    let forged: Vec<_> =
        above.iter().flat_map(|above| (0..3).map(|_| above.below(authority_params("Between")).certificate)).collect();
    let sent: Vec<_> = [&genuine.certificate].into_iter().chain(&forged).collect();
    for (turn, order) in orders(sent.len(), 200).into_iter().enumerate() {
        let sent: Vec<_> = order.iter().map(|place| sent[*place]).collect();
        let (verdict, cost) = scene.judge(&between.device(params("stranger")), &sent);
        assert_eq!(verdict.err(), Some(Reason::UnknownCa));
        // That the genuine one is right is checked once.
        assert!(cost <= if turn < 10 { 4 } else { 3 }, "{cost} signatures");
    }
}

#[test]
fn flood_of_forged_chains_costs_two_p256_signatures_each() {
    for (kind, key, most) in KEYS {
        let root = Ca::with_key("Devices", key());
        let scene = Scene::new(&[&root.certificate], Vec::new());
        let genuine = root.below_with_key(authority_params("Genuine"), key());
        let between = Ca::new("Between");
        let above = [Ca::with_key("Genuine", key()), Ca::with_key("Devices", key())];
        let forged: Vec<_> = above
            .iter()
            .flat_map(|above| (0..3).map(|_| above.below(authority_params("Between")).certificate))
            .collect();
        let sent: Vec<_> = [&genuine.certificate].into_iter().chain(&forged).collect();
        let leaf = between.device(params("stranger"));
        // What all clients share is used up first.
        let costs: Vec<_> = (0..60).map(|_| scene.judge(&leaf, &sent).1).collect();
        assert!(costs[40..].iter().filter(|cost| **cost > most).count() <= 3, "{kind}: {costs:?}");
        assert!(costs.iter().all(|cost| *cost <= 4), "{kind}: {costs:?}");
        assert!(costs[59] > 0, "{kind}: the first signature is always checked");
        // A device that was never seen before still gets in.
        scene.admits(kind, &genuine.device(params("phone")), &[&genuine.certificate]);
        scene.admits(kind, &root.device(params("tablet")), &[]);
    }
}

/// So many extensions that say nothing, each with so many bytes.
fn with_extensions(mut params: CertificateParams, count: u64, bytes: usize) -> CertificateParams {
    params.custom_extensions.extend(
        (0..count).map(|number| CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 55_555, number], vec![7; bytes])),
    );
    params
}

#[test]
fn certificates_beyond_32_kib_are_refused_unread() {
    let root = Ca::new("Devices");
    let scene = Scene::new(&[&root.certificate], Vec::new());
    let device = |bytes| root.device(with_extensions(params("phone"), 1, bytes));
    let (large, too_large) = (device(30_000), device(32 * 1024));
    scene.admits("30 kB", &large, &[]);
    let beside = root.below(with_extensions(authority_params("Beside"), 1, 8_000)).certificate;
    for (what, leaf, sent) in [("one of 32 KiB", &too_large, vec![]), ("30 kB and 8 kB beside", &large, vec![&beside])]
    {
        let (verdict, cost) = scene.judge(leaf, &sent);
        assert_eq!((verdict.err(), cost), (Some(Reason::CertificateInvalid), 0), "{what}");
    }
}

#[test]
fn certificate_with_65_extensions_is_refused_unread() {
    let root = Ca::new("Devices");
    let scene = Scene::new(&[&root.certificate], Vec::new());
    let device = |count| root.device(with_extensions(params("phone"), count, 0));
    let bare = device(0);
    let (_, bare) = X509Certificate::from_der(&bare).expect("a certificate");
    let without = u64::try_from(bare.extensions().len()).expect("a few");
    scene.admits("64 extensions", &device(64 - without), &[]);
    let (verdict, cost) = scene.judge(&device(65 - without), &[]);
    assert_eq!((verdict.err(), cost), (Some(Reason::CertificateInvalid), 0));
    let refused = validation_errors::alone(&device(65 - without), UnixTime::now()).expect_err("the same everywhere");
    assert_eq!(refused.cause.reason(), Reason::CertificateInvalid);

    let middle = root.below(with_extensions(authority_params("Middle"), 65, 0));
    scene.refuses("an issuer with 65", Reason::UnknownCa, &middle.device(params("phone")), &[&middle.certificate]);
}

/// Its names are read for the log, which takes longer the more it has.
#[test]
fn forged_certificate_with_hundreds_of_names_is_not_read() {
    let root = Ca::new("Devices");
    let scene = Scene::new(&[&root.certificate], Vec::new());
    let forged = Ca::new("Devices");
    for (count, named) in [(1, true), (100, true), (1000, false)] {
        let mut params = params("stranger");
        params.subject_alt_names = vec![SanType::DnsName("a".try_into().expect("a name")); count];
        let (identity, refused) =
            scene.authorities.verify(&forged.device(params), &[], UnixTime::now()).expect_err("a stranger");
        assert_eq!((identity.is_some(), refused.cause.reason()), (named, Reason::UnknownCa), "{count} names");
    }
}

#[test]
fn known_device_costs_no_signature() {
    let root = Ca::new("Devices");
    let scene = Scene::new(&[&root.certificate], vec![root.list(&[7], 7, None)]);
    let leaf = root.device(numbered("alice", 8));
    let first = scene.admits("new", &leaf, &[]);
    let junk: Vec<_> = (0..8).map(|_| Ca::new("Devices").certificate).collect();
    for order in orders(8, 50) {
        let sent: Vec<_> = order.iter().map(|place| &junk[*place]).collect();
        let (verdict, cost) = scene.judge(&leaf, &sent);
        assert_eq!(cost, 0, "{order:?}");
        let chain = verdict.expect("it is let in");
        assert!(Arc::ptr_eq(&chain, &first), "sessions share one chain");
        assert_eq!(chain.certificates, std::slice::from_ref(&leaf), "what was not needed is not kept");
    }
}
