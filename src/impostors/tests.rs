use super::*;
use crate::model::rejection::Reason;

fn certificate(name: &str) -> Identity {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("a name");
    params.serial_number =
        Some(rcgen::SerialNumber::from_slice(Sha256::of(name.as_bytes()).0.get(..16).expect("16 bytes")));
    let der = params.self_signed(&key).expect("a certificate");
    Identity::from_certificate(der.der(), false).expect("an identity")
}

/// Knows this certificate as that of a device.
fn knowing(own: &Identity, device: &str, canary: bool) -> Impostors {
    let name: Box<str> = device.into();
    let mut known = Impostors::default();
    known.names.insert(device.to_lowercase(), name.clone());
    known.serials.insert(own.serial.clone(), name.clone());
    known.keys.insert(own.spki, name.clone());
    if canary {
        known.canaries.insert(own.fingerprint, name);
    } else {
        known.own.insert(own.fingerprint);
    }
    known
}

#[test]
fn unsigned_certificate_with_anything_of_a_device_is_an_impostor() {
    let own = certificate("Alice-Phone");
    let known = knowing(&own, "Alice-Phone", false);
    let find = |identity: &Identity| known.find(identity, &Cause::UnknownIssuer);
    let found = |claim| Some(Impostor { name: "Alice-Phone".into(), claim });
    let other = certificate("other");
    assert_eq!(find(&other), None);

    let texts = |name: &str| {
        let text = name.to_owned();
        [
            Identity { emails: vec![text.clone()], ..other.clone() },
            Identity { uris: vec![text.clone()], ..other.clone() },
            Identity { dns_names: vec!["first".to_owned(), text.clone()], ..other.clone() },
            Identity { common_name: Some(text), ..other.clone() },
        ]
    };
    for identity in texts("alice-PHONE").iter().chain(&texts("Alice-Phone")) {
        assert_eq!(find(identity), found(Claim::Name), "{identity:?}");
    }
    assert_eq!(find(&Identity { serial: own.serial.clone(), ..other.clone() }), found(Claim::Serial));
    assert_eq!(find(&Identity { spki: own.spki, ..other.clone() }), found(Claim::Key));
    // Whatever else was wrong with it.
    assert_eq!(known.find(&certificate("alice-phone"), &Cause::WrongPurpose), found(Claim::Name));
}

#[test]
fn own_certificates_are_no_impostors() {
    let own = certificate("alice-phone");
    let known = knowing(&own, "alice-phone", false);
    assert_eq!(known.find(&own, &Cause::UnknownIssuer), None, "issued here, by an authority that is gone");
    let named = certificate("alice-phone");
    for identity in
        [Identity { anchored: true, ..named.clone() }, Identity { of_other_authority: true, ..named.clone() }]
    {
        assert_eq!(known.find(&identity, &Cause::Revoked), None);
    }
    // Nothing was verified, so nothing is known to be forged.
    assert_eq!(known.find(&named, &Cause::Unverified), None);
    assert_eq!(Cause::Unverified.reason(), Reason::IdentityNotAllowed);
}

#[test]
fn canary_is_an_impostor_although_it_is_signed() {
    let own = certificate("spare-phone");
    let known = knowing(&own, "spare-phone", true);
    for identity in [Identity { anchored: true, ..own.clone() }, own] {
        let found = Some(Impostor { name: "spare-phone".into(), claim: Claim::Canary });
        assert_eq!(known.find(&identity, &Cause::Revoked), found);
    }
}
