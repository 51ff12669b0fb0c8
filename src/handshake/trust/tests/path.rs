//! Which paths are found, and which are not.

use super::*;

#[test]
fn paths_are_found_for_every_kind_of_key() {
    // Without the last, which take seconds to make.
    for (kind, key, _) in &KEYS[..5] {
        let (old, new) = (Ca::with_key("Root", key()), Ca::with_key("Root", key()));
        let middle = new.below_with_key(authority_params("Middle"), key());
        let by_old = middle.crossed_by(&old, &authority_params("Middle"));
        let namesake = new.below_with_key(authority_params("Middle"), key());
        for sent in [vec![&by_old, &middle.certificate], vec![&by_old, &namesake.certificate, &middle.certificate]] {
            let scene = Scene::new(&[&new.certificate], Vec::new());
            scene.admits(&format!("{kind}, {} beside", sent.len()), &middle.device(params("alice")), &sent);
        }
    }
}

#[test]
fn known_intermediate_does_not_vouch_for_a_forged_one() {
    let root = Ca::new("Root");
    let scene = Scene::new(&[&root.certificate], Vec::new());
    let genuine = root.below(authority_params("Middle"));
    scene.admits("the genuine one", &genuine.device(params("phone")), &[&genuine.certificate]);
    let forged = Ca::new("Root").below(authority_params("Middle"));
    let phone = forged.device(params("phone"));
    scene.refuses("a forged one", Reason::UnknownCa, &phone, &[&forged.certificate]);
    scene.refuses("both", Reason::UnknownCa, &phone, &[&genuine.certificate, &forged.certificate]);
    // One bit of a known certificate changed.
    let mut changed = genuine.certificate.to_vec();
    *changed.last_mut().expect("a byte") ^= 1;
    let changed = CertificateDer::from(changed);
    scene.refuses("a changed one", Reason::UnknownCa, &genuine.device(params("tablet")), &[&changed]);
}

#[test]
fn paths_of_real_hierarchies_are_found_within_the_budget() {
    let (old, new) = (Ca::new("Root"), Ca::new("Root"));
    let middle = new.below(authority_params("Middle"));
    let by_old = middle.crossed_by(&old, &authority_params("Middle"));
    let namesake = new.below(authority_params("Middle"));
    let low = middle.below(authority_params("Low"));
    let device = middle.device(params("alice"));
    let lower = low.device(params("bob"));
    // New with old, as RFC 4210 has it: the new key of the same name, certified by the old one.
    let rolled = new.crossed_by(&old, &authority_params("Root"));

    let both = Scene::new(&[&old.certificate, &new.certificate], Vec::new());
    both.admits("an authority that was made anew, the old one", &old.device(params("a")), &[]);
    both.admits("an authority that was made anew, the new one", &new.device(params("b")), &[]);

    let scene = Scene::new(&[&new.certificate], Vec::new());
    for (what, leaf, sent) in [
        ("an intermediate", &device, vec![&middle.certificate]),
        ("two of them, in the other order", &lower, vec![&middle.certificate, &low.certificate]),
        ("with the root", &lower, vec![&low.certificate, &middle.certificate, &new.certificate]),
        ("certified twice, the wrong one first", &device, vec![&by_old, &middle.certificate]),
        ("two of one name, the wrong one first", &device, vec![&namesake.certificate, &middle.certificate]),
        ("both", &device, vec![&by_old, &namesake.certificate, &middle.certificate]),
    ] {
        // Without what is known from the case before.
        let scene = Scene::new(&[&new.certificate], Vec::new());
        let (verdict, cost) = scene.judge(leaf, &sent);
        assert!(verdict.is_ok() && cost <= 6, "{what}: {verdict:?}, {cost} signatures");
    }
    scene.refuses("an intermediate that is not sent", Reason::UnknownCa, &device, &[]);
    let scene = Scene::new(&[&old.certificate], Vec::new());
    scene.admits("a new key, certified by the old one", &new.device(params("c")), &[&rolled]);

    let mut deep: Vec<Ca> = vec![Ca::new("Root")];
    for number in 0..6 {
        let next = deep.last().expect("one").below(authority_params(&format!("Level {number}")));
        deep.push(next);
    }
    let leaf = deep.last().expect("one").device(params("deep"));
    let sent: Vec<_> = deep[1..].iter().map(|one| &one.certificate).collect();
    let scene = Scene::new(&[&deep[0].certificate], Vec::new());
    let (verdict, cost) = scene.judge(&leaf, &sent);
    assert_eq!((verdict.map(|chain| chain.certificates.len()).ok(), cost), (Some(7), 7), "six intermediates");
}

#[test]
fn expired_intermediate_does_not_hide_a_valid_one() {
    let root = Ca::new("Root");
    let middle = root.below(authority_params("Middle"));
    let mut expired = authority_params("Middle");
    expired.not_after = OffsetDateTime::now_utc() - time::Duration::DAY;
    let expired = middle.crossed_by(&root, &expired);
    let leaf = middle.device(params("alice"));
    let scene = Scene::new(&[&root.certificate], Vec::new());
    scene.refuses("expired", Reason::Expired, &leaf, &[&expired]);
    let chain = scene.admits("both", &leaf, &[&expired, &middle.certificate]);
    assert_eq!(chain.certificates, [leaf, middle.certificate]);
}

#[test]
fn certificate_signed_by_a_device_is_not_anchored() {
    let root = Ca::new("Devices");
    let middle = root.below(authority_params("Middle"));
    // A stolen phone: its key signs certificates with other names, each with another fingerprint.
    let stolen = root.below(params("alice"));
    let mut expired = params("bob");
    expired.not_after = OffsetDateTime::now_utc() - time::Duration::DAY;
    let scene = Scene::new(&[&root.certificate], Vec::new());
    for (what, leaf, sent, anchored) in [
        ("by a device", stolen.device(params("bob")), vec![&stolen.certificate], false),
        ("by a device, expired", stolen.device(expired.clone()), vec![&stolen.certificate], false),
        ("by an authority, expired", middle.device(expired.clone()), vec![&middle.certificate], true),
        ("by the root, expired", root.device(expired), vec![], true),
        ("by another root", Ca::new("Devices").device(params("bob")), vec![], false),
    ] {
        let sent: Vec<_> = sent.into_iter().cloned().collect();
        let (identity, _) = scene.authorities.verify(&leaf, &sent, UnixTime::now()).expect_err(what);
        assert_eq!(identity.map(|identity| identity.anchored), Some(anchored), "{what}");
    }
}

#[test]
fn unsupported_key_does_not_hide_an_unknown_issuer() {
    /// The last bytes of the object identifiers of P-256 and of P-192, which is not supported.
    const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    const P192: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x01];
    let on_p192 = |certificate: &CertificateDer<'_>| {
        let at = certificate.windows(P256.len()).rposition(|bytes| bytes == P256).expect("a key on P-256");
        CertificateDer::from([&certificate[..at], P192, &certificate[at + P192.len()..]].concat())
    };
    let (root, namesake) = (Ca::new("Devices"), Ca::new("Devices"));
    let forged = namesake.below(authority_params("Middle"));
    let (leaf, sent) = (forged.device(params("bob")), on_p192(&forged.certificate));
    let scene = Scene::new(&[&root.certificate], Vec::new());
    scene.refuses("nothing vouches for the key", Reason::UnknownCa, &leaf, &[&sent]);
    let scene = Scene::new(&[&on_p192(&root.certificate)], Vec::new());
    scene.refuses("a key in trust", Reason::UnsupportedKey, &root.device(params("bob")), &[]);
}

#[test]
fn pinned_certificate_is_accepted_and_issues_none() {
    let root = Ca::new("Other");
    let own = Ca::new("alice");
    let signed = root.device(numbered("alice", 3));
    for (what, pinned, issuer) in [("self-signed", &own.certificate, &own), ("signed", &signed, &root)] {
        let scene = Scene::of(vec![(pinned, TrustKind::Pinned)], Vec::new());
        let chain = scene.admits(what, pinned, &[]);
        assert_eq!(chain.certificates, std::slice::from_ref(pinned));
        let bob = issuer.device(params("bob"));
        scene.refuses(what, Reason::UnknownCa, &bob, &[]);
        scene.refuses(what, Reason::UnknownCa, &bob, &[pinned]);
    }
    // Its dates and purpose count, and so does a list that names it.
    let mut expired = params("alice");
    expired.not_after = OffsetDateTime::now_utc() - time::Duration::DAY;
    let mut server = params("alice");
    server.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    for (params, reason) in [(expired, Reason::Expired), (server, Reason::WrongPurpose)] {
        let pinned = root.device(params);
        Scene::of(vec![(&pinned, TrustKind::Pinned)], Vec::new()).refuses("pinned", reason, &pinned, &[]);
    }
    let scene = Scene::of(vec![(&signed, TrustKind::Pinned)], vec![root.list(&[3], 7, None)]);
    scene.refuses("revoked", Reason::Revoked, &signed, &[]);
    let scene = Scene::of(vec![(&signed, TrustKind::Pinned)], vec![root.list(&[4], 7, None)]);
    scene.admits("with a list that does not name it", &signed, &[]);
}

/// What webpki makes of constraints of each kind, for names of each kind; an identity below says that there are some.
#[test]
fn name_constraints_bind_names_of_their_kind_only() {
    let permitted = [
        ("dns", GeneralSubtree::DnsName("kids.example".into())),
        ("email", GeneralSubtree::Rfc822Name("kids.example".into())),
        ("ip", GeneralSubtree::IpAddress(rcgen::CidrSubnet::V4([192, 0, 2, 0], [255, 255, 255, 0]))),
    ];
    let san = |kind: &str| match kind {
        "dns" => SanType::DnsName("alice.kids.example".try_into().expect("a name")),
        "other dns" => SanType::DnsName("alice".try_into().expect("a name")),
        "email" => SanType::Rfc822Name("alice@kids.example".try_into().expect("a name")),
        "ip" => SanType::IpAddress([192, 0, 2, 7].into()),
        "other ip" => SanType::IpAddress([198, 51, 100, 7].into()),
        _ => SanType::URI("spiffe://kids.example/alice".try_into().expect("a name")),
    };
    for (constraint, subtree) in permitted {
        for (name, admitted) in [
            (None, true),
            (Some("dns"), true),
            (Some("other dns"), constraint != "dns"),
            // webpki refuses what it cannot check.
            (Some("email"), constraint != "email"),
            (Some("ip"), true),
            (Some("other ip"), constraint != "ip"),
            (Some("uri"), true),
        ] {
            let mut bound = authority_params("Kids");
            bound.name_constraints =
                Some(NameConstraints { permitted_subtrees: vec![subtree.clone()], excluded_subtrees: Vec::new() });
            let root = Ca::new("Root");
            let kids = root.below(bound.clone());
            let anchor = {
                let key = KeyPair::generate().expect("a key");
                let certificate = bound.self_signed(&key).expect("a certificate").der().clone();
                Ca { certificate, issuer: Issuer::new(bound, key) }
            };
            let mut device = params("alice");
            device.subject_alt_names = name.map(san).into_iter().collect();
            for (trust, sent, issuer) in
                [(&root.certificate, vec![&kids.certificate], &kids), (&anchor.certificate, vec![], &anchor)]
            {
                let scene = Scene::new(&[trust], Vec::new());
                let leaf = issuer.device(device.clone());
                let sent: Vec<_> = sent.into_iter().cloned().collect();
                let verdict = scene.authorities.verify(&leaf, &sent, UnixTime::now());
                let constrained = verdict.as_ref().map(|(verified, _)| verified.identity.name_constrained);
                let what = format!("{constraint} constraint, {name:?}");
                match constrained {
                    Ok(constrained) => assert!(admitted && constrained, "{what}"),
                    Err((_, refused)) => {
                        assert!(!admitted && refused.cause.reason() == Reason::CertificateInvalid, "{what}")
                    }
                }
            }
        }
    }
    let root = Ca::new("Root");
    let scene = Scene::new(&[&root.certificate], Vec::new());
    let free = scene.authorities.verify(&root.device(params("alice")), &[], UnixTime::now()).expect("let in");
    assert!(!free.0.identity.name_constrained);
}
