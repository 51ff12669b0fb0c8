//! Revocation lists: which certificates they cover, and when.

use super::*;

#[test]
fn list_belongs_to_an_authority_by_name_and_key() {
    let (own, friend) = (Ca::new("Devices"), Ca::new("Devices"));
    let (alice, bob) = (own.device(numbered("alice", 1)), friend.device(numbered("bob", 1)));
    let trust = [&own.certificate, &friend.certificate];
    for swapped in [false, true] {
        let mut lists = vec![own.list(&[], 7, None), friend.list(&[1], 7, None)];
        if swapped {
            lists.reverse();
        }
        let scene = Scene::new(&trust, lists);
        scene.admits("alice, whose number only the other list has", &alice, &[]);
        scene.refuses("bob, whose list has that number", Reason::Revoked, &bob, &[]);
    }
    let scene = Scene::new(&trust, vec![own.list(&[], 7, None)]);
    scene.admits("alice with the own list only", &alice, &[]);
    scene.refuses("bob without the list", Reason::RevocationUnknown, &bob, &[]);
    let scene = Scene::new(&trust, vec![own.list(&[], -1, None), friend.list(&[], 7, None)]);
    scene.refuses("alice, whose list has expired", Reason::RevocationListExpired, &alice, &[]);
    scene.admits("bob, whose list has not", &bob, &[]);
}

#[test]
fn list_of_an_intermediate_is_checked_once_for_its_key() {
    let root = Ca::new("Root");
    let (middle, namesake) = (root.below(authority_params("Middle")), root.below(authority_params("Middle")));
    let lists = || vec![root.list(&[], 7, None), middle.list(&[5], 7, None)];
    let scene = Scene::new(&[&root.certificate], lists());
    let devices: Vec<_> = (10..20).map(|serial| middle.device(numbered("device", serial))).collect();
    let (verdict, cost) = scene.judge(&devices[0], &[&middle.certificate]);
    // The chain, and one for each list.
    assert!(verdict.is_ok() && cost == 4, "{verdict:?}, {cost}");
    for device in &devices[1..] {
        let (verdict, cost) = scene.judge(device, &[&middle.certificate]);
        // The intermediate's own certificate is known.
        assert!(verdict.is_ok() && cost == 1, "{verdict:?}, {cost}");
        assert_eq!(scene.judge(device, &[&middle.certificate]).1, 0, "it is known");
    }
    scene.refuses("revoked", Reason::Revoked, &middle.device(numbered("lost", 5)), &[&middle.certificate]);
    let other = namesake.device(numbered("other", 5));
    scene.refuses("another key of that name", Reason::RevocationUnknown, &other, &[&namesake.certificate]);

    let mut silent = authority_params("Silent");
    silent.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let silent = root.below(silent);
    let issuer =
        Issuer::new(authority_params("Silent"), KeyPair::try_from(silent.issuer.key().serialize_der()).expect("a key"));
    let list = Ca { certificate: silent.certificate.clone(), issuer }.list(&[], 7, None);
    let scene = Scene::new(&[&root.certificate], vec![root.list(&[], 7, None), list]);
    let device = silent.device(params("device"));
    scene.refuses(
        "an intermediate that may not sign lists",
        Reason::RevocationUnknown,
        &device,
        &[&silent.certificate],
    );
}

#[test]
fn every_authority_of_one_name_is_tried() {
    // A household that made its authority anew many times, with devices of each.
    let authorities: Vec<_> = (0..6).map(|_| Ca::new("Devices")).collect();
    let trust: Vec<_> = authorities.iter().map(|ca| &ca.certificate).collect();
    for (number, authority) in authorities.iter().enumerate() {
        let scene = Scene::new(&trust, Vec::new());
        scene.admits(&format!("of authority {number}"), &authority.device(params("alice")), &[]);
    }
}

#[test]
fn list_is_valid_until_the_second_before_next_update() {
    let root = Ca::new("Devices");
    let (device, list) = (root.device(params("alice")), root.list(&[], 7, None));
    let end = u64::try_from(list.next_update.expect("a date")).expect("after 1970");
    let scene = Scene::new(&[&root.certificate], vec![list]);
    let at = |seconds| scene.authorities.verify(&device, &[], UnixTime::since_unix_epoch(Duration::from_secs(seconds)));
    assert_eq!(at(end - 1).map(|(_, until)| until).ok(), Some(end - 1));
    assert_eq!(at(end).err().map(|(_, refused)| refused.cause.reason()), Some(Reason::RevocationListExpired));
}

#[test]
fn list_covers_only_the_kind_in_its_scope() {
    let root = Ca::new("Root");
    let middle = root.below(authority_params("Middle"));
    let (direct, below) = (root.device(params("alice")), middle.device(params("bob")));
    for (scope, admits_device, admits_authority) in
        [(CrlScope::UserCertsOnly, true, false), (CrlScope::CaCertsOnly, false, true)]
    {
        let point = "http://home.example/a.crl";
        let lists = vec![root.scoped_list(&[], 7, Some(point), Some(scope)), middle.list(&[], 7, None)];
        let scene = Scene::new(&[&root.certificate], lists);
        for (what, leaf, sent, admitted) in [
            ("a device of the root", &direct, vec![], admits_device),
            ("an authority of the root", &below, vec![&middle.certificate], admits_authority),
        ] {
            let expected = if admitted { None } else { Some(Reason::RevocationUnknown) };
            assert_eq!(scene.judge(leaf, &sent).0.err(), expected, "{what}, {scope:?}");
        }
    }
}

#[test]
fn listed_intermediate_is_revoked_in_every_check_mode() {
    let root = Ca::new("Root");
    let middle = root.below({
        let mut params = authority_params("Middle");
        params.serial_number = Some(SerialNumber::from(40_u64));
        params
    });
    let device = middle.device(params("alice"));
    let anchor = |ca: &Ca| TrustAnchor {
        file: "clients.pem".into(),
        certificate: ca.certificate.clone(),
        kind: TrustKind::Authority,
    };
    let verdict = |trust: &[&Ca], lists: &[(&Ca, &[u64])], revocation_check| {
        let list = |(ca, serials): &(&Ca, &[u64])| {
            let mut list = ca.list(serials, 7, None);
            let signed_by = trust.iter().find(|one| one.certificate == ca.certificate);
            list.signer = signed_by.and_then(|one| Parts::read(&one.certificate)).map(|one| Sha256::of(one.key));
            list
        };
        let client_auth = ClientAuth {
            trust: trust.iter().map(|ca| anchor(ca)).collect(),
            revocation_lists: lists.iter().map(list).collect(),
            revocation_check,
            ..client_auth()
        };
        let authorities = Authorities::new(&client_auth).expect("authorities");
        let sent = [middle.certificate.clone()];
        authorities.verify(&device, &sent, UnixTime::now()).err().map(|(_, refused)| refused.cause.reason())
    };
    use RevocationCheck::{Chain, Leaf};
    for (what, trust, lists, chain, leaf) in [
        ("its own list only", &[&root][..], &[(&middle, &[][..])][..], Some(Reason::RevocationUnknown), None),
        (
            "the root's list only",
            &[&root],
            &[(&root, &[])],
            Some(Reason::RevocationUnknown),
            Some(Reason::RevocationUnknown),
        ),
        ("both lists", &[&root], &[(&middle, &[]), (&root, &[])], None, None),
        (
            "revoked by the root",
            &[&root],
            &[(&middle, &[]), (&root, &[40])],
            Some(Reason::Revoked),
            Some(Reason::Revoked),
        ),
        ("in trust beside the root", &[&root, &middle], &[(&middle, &[]), (&root, &[])], None, None),
        (
            "in trust, revoked by the root",
            &[&root, &middle],
            &[(&middle, &[]), (&root, &[40])],
            Some(Reason::Revoked),
            Some(Reason::Revoked),
        ),
    ] {
        assert_eq!(verdict(trust, lists, Chain), chain, "{what}, chain");
        assert_eq!(verdict(trust, lists, Leaf), leaf, "{what}, leaf");
    }
}

#[test]
fn list_of_a_distribution_point_covers_no_other() {
    let root = Ca::new("Devices");
    let at = |point: &str, serial| {
        let mut params = numbered("device", serial);
        params.crl_distribution_points = vec![CrlDistributionPoint { uris: vec![point.to_owned()] }];
        root.device(params)
    };
    let scene = Scene::new(&[&root.certificate], vec![root.list(&[9], 7, Some("http://home.example/a.crl"))]);
    scene.admits("of the point", &at("http://home.example/a.crl", 1), &[]);
    scene.admits("of no point", &root.device(numbered("device", 2)), &[]);
    scene.refuses("of another point", Reason::RevocationUnknown, &at("http://home.example/b.crl", 3), &[]);
    scene.refuses("revoked", Reason::Revoked, &at("http://home.example/a.crl", 9), &[]);
    // Each point has to be current, but of two lists for one point the later one counts.
    let stale = |days| {
        let lists = vec![root.list(&[], -1, Some("http://home.example/a.crl")), root.list(&[], 7, days)];
        Scene::new(&[&root.certificate], lists)
    };
    let device = root.device(numbered("device", 4));
    stale(Some("http://home.example/a.crl")).admits("a later list", &device, &[]);
    stale(Some("http://home.example/b.crl")).refuses("a stale point", Reason::RevocationListExpired, &device, &[]);
}

/// The file may be the only one that names a device: what revoked it must not be taken back while the gate runs.
#[test]
fn entries_of_a_superseded_list_file_stay_revoked() {
    let root = Ca::new("Devices");
    let older = root.list(&[7], 1, None);
    let newer = RevocationList { number: Some(Serial::from_be_bytes(&[2])), ..root.list(&[8], 2, None) };
    let key = |list: &RevocationList| {
        crate::config::checked::NewerList::new(list.clone(), Some(root.certificate.clone())).list
    };
    let trust = vec![TrustAnchor {
        file: "clients.pem".into(),
        certificate: root.certificate.clone(),
        kind: TrustKind::Authority,
    }];
    let newer_lists = vec![Arc::new(crate::config::checked::NewerList {
        list: key(&newer),
        authority: Some(root.certificate.clone()),
    })];
    let client_auth = ClientAuth { trust, revocation_lists: vec![key(&older)], newer_lists, ..client_auth() };
    let current: Vec<_> = client_auth.current_lists().iter().map(|list| list.number_in_words()).collect();
    assert_eq!(current, [Some("2".to_owned())]);
    let authorities = Authorities::new(&client_auth).expect("authorities");
    for (serial, refused) in [(7, Some(Reason::Revoked)), (8, Some(Reason::Revoked)), (9, None)] {
        let verdict = authorities.verify(&root.device(numbered("phone", serial)), &[], UnixTime::now());
        assert_eq!(verdict.err().map(|(_, refused)| refused.cause.reason()), refused, "{serial}");
    }
}
