//! Certificates that were renewed without the owner.

use super::*;
use crate::config::checked::KnownOrigin;
use crate::model::identity::Origin;
use crate::pki::origin;

/// An authority that renews, and the certificates that others may descend from.
struct Renewals {
    ca: Ca,
    trust: RenewalTrust,
}

impl Renewals {
    fn new(name: &str) -> Self {
        Self::of(Ca::new(name))
    }

    fn of(ca: Ca) -> Self {
        let certificate = ca.certificate.clone();
        Self { ca, trust: RenewalTrust { certificate, validity: (0, i64::MAX), origins: Default::default() } }
    }

    /// Certifies a key for the owner's authority, and knows it.
    fn original(&mut self, devices: &Ca, serial: u64, key: &KeyPair) -> (CertificateDer<'static>, Origin) {
        let params = numbered("alice", serial);
        let certificate = params.signed_by(key, &devices.issuer).expect("a certificate").der().clone();
        let parts = Parts::read(&certificate).expect("a certificate");
        let origin = Origin {
            authority: Sha256::of(Parts::read(&devices.certificate).expect("a certificate").key),
            serial: Serial::from_be_bytes(parts.serial),
            fingerprint: Sha256::of(&certificate),
        };
        let known = KnownOrigin {
            device: "alice".to_owned(),
            serial: origin.serial.clone(),
            spki: Sha256::of(parts.key),
            authority: Sha256::of(&devices.certificate),
            revoked: false,
        };
        self.trust.origins.insert(origin.fingerprint, known);
        (certificate, origin)
    }

    /// What descends from it.
    fn renew(&self, origin: &Origin, key: &KeyPair) -> CertificateDer<'static> {
        let mut params = params("alice");
        params.custom_extensions = vec![origin::extension(origin)];
        params.signed_by(key, &self.ca.issuer).expect("a certificate").der().clone()
    }

    fn scene(&self, trust: &[&CertificateDer<'static>], lists: Vec<RevocationList>) -> Scene {
        let mut scene = Scene::new(trust, lists);
        let authorities = scene.authorities.renewing(Some(Arc::new(self.trust.clone())));
        scene.authorities = authorities.expect("authorities");
        scene
    }
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}

#[test]
fn renewed_certificate_is_revoked_by_what_it_descends_from() {
    let (devices, key) = (Ca::new("devices"), key());
    let mut renewals = Renewals::new("renewals");
    let (certificate, origin) = renewals.original(&devices, 7, &key);
    let renewed = renewals.renew(&origin, &key);
    let with = |serials: &[u64]| renewals.scene(&[&devices.certificate], vec![devices.list(serials, 9, None)]);
    let scene = with(&[8]);
    let chain = scene.admits("renewed", &renewed, &[]);
    assert_eq!(chain.issued.len(), 1);
    assert_eq!((&chain.issued[0].serial, chain.certificates.len()), (&origin.serial, 1));
    scene.admits("the original", &certificate, &[]);
    // From memory as well, and in a review.
    assert_eq!(scene.judge(&renewed, &[]).1, 0);
    let revoking = with(&[7]);
    revoking.refuses("revoked", Reason::Revoked, &renewed, &[]);
    assert!(revoking.authorities.revoke(&chain) && !scene.authorities.revoke(&chain));
    // The one who renews revokes nothing, whatever the numbers are.
    let number = u64::from_be_bytes([0, 0, 0, 0, 0, 0, 0, 9]);
    let mut own = params("alice");
    own.serial_number = Some(SerialNumber::from(number));
    own.custom_extensions = vec![origin::extension(&origin)];
    let own = own.signed_by(&key, &renewals.ca.issuer).expect("a certificate").der().clone();
    let lists = vec![devices.list(&[8, 9], 9, None), renewals.ca.list(&[9], 9, None)];
    renewals.scene(&[&devices.certificate], lists).admits("not by its own number", &own, &[]);
    // Every certificate needs a list, and this is one of the authority that it descends from.
    let elsewhere = Ca::new("elsewhere");
    let lists = vec![elsewhere.list(&[], 9, None)];
    let without = renewals.scene(&[&devices.certificate, &elsewhere.certificate], lists);
    without.refuses("no list", Reason::RevocationUnknown, &renewed, &[]);
    let expired = renewals.scene(&[&devices.certificate], vec![devices.list(&[], -1, None)]);
    expired.refuses("an expired list", Reason::RevocationListExpired, &renewed, &[]);
}

/// shared/cases/06: another household's authority may have the name of this one, and its key identifier.
#[test]
fn authorities_of_one_name_are_not_confused() {
    let (devices, other, key) = (Ca::new("same"), Ca::new("same"), key());
    let mut renewals = Renewals::of(Ca::new("same"));
    let (certificate, origin) = renewals.original(&devices, 7, &key);
    let renewed = renewals.renew(&origin, &key);
    let trust = [&other.certificate, &devices.certificate];
    renewals.scene(&trust, vec![]).admits("renewed", &renewed, &[]);
    let lists = |own: &[u64], theirs: &[u64]| vec![devices.list(own, 9, None), other.list(theirs, 9, None)];
    renewals.scene(&trust, lists(&[], &[7])).admits("revoked by another of this name", &renewed, &[]);
    renewals.scene(&trust, lists(&[7], &[])).refuses("revoked by its own", Reason::Revoked, &renewed, &[]);
    // Without the authority that it descends from, it counts for nothing.
    renewals.scene(&[&other.certificate], vec![]).refuses("other", Reason::CertificateInvalid, &renewed, &[]);
    // What the others sign with the extension says nothing by it, and is judged as theirs.
    let mut params = numbered("bob", 3);
    params.custom_extensions = vec![origin::extension(&origin)];
    let theirs = other.device(params);
    let scene = renewals.scene(&trust, lists(&[7], &[]));
    let chain = scene.admits("another authority's", &theirs, &[]);
    assert_eq!(chain.issued[0].serial, Serial::from_be_bytes(&[3]));
    scene.refuses("revoked", Reason::Revoked, &certificate, &[]);
}

/// The certificate of an authority may be renewed with its key, and both are trusted for a while.
#[test]
fn authority_with_two_certificates_is_found() {
    let (devices, key) = (Ca::new("devices"), key());
    let copy = KeyPair::try_from(devices.issuer.key().serialize_der()).expect("a key");
    let newer = authority_params("devices");
    let newer = newer.self_signed(&copy).expect("a certificate").der().clone();
    let mut renewals = Renewals::new("renewals");
    let (_, origin) = renewals.original(&devices, 7, &key);
    let renewed = renewals.renew(&origin, &key);
    for trust in [[&devices.certificate, &newer], [&newer, &devices.certificate]] {
        renewals.scene(&trust, vec![]).admits("renewed", &renewed, &[]);
        let lists = vec![devices.list(&[7], 9, None)];
        renewals.scene(&trust, lists).refuses("revoked", Reason::Revoked, &renewed, &[]);
    }
    renewals.scene(&[&newer], vec![]).refuses("not the one", Reason::CertificateInvalid, &renewed, &[]);
}

#[test]
fn renewing_authority_vouches_for_nothing_else() {
    let (devices, thief, key) = (Ca::new("devices"), key(), key());
    let mut renewals = Renewals::new("renewals");
    let (_, origin) = renewals.original(&devices, 7, &key);
    let scene = renewals.scene(&[&devices.certificate], vec![]);
    let refuses = |what: &str, leaf: &CertificateDer<'static>| {
        scene.refuses(what, Reason::CertificateInvalid, leaf, &[]);
        // Not from memory either.
        scene.refuses(what, Reason::CertificateInvalid, leaf, &[]);
    };
    refuses("another key", &renewals.renew(&origin, &thief));
    let named = |change: &dyn Fn(&mut CertificateParams)| {
        let mut params = params("alice");
        params.custom_extensions = vec![origin::extension(&origin)];
        change(&mut params);
        params.signed_by(&key, &renewals.ca.issuer).expect("a certificate").der().clone()
    };
    scene.admits("the same name", &named(&|_| ()), &[]);
    refuses("another name", &named(&|params| params.distinguished_name.push(DnType::CommonName, "bob")));
    refuses("a unit", &named(&|params| params.distinguished_name.push(DnType::OrganizationalUnitName, "admins")));
    for name in [
        SanType::DnsName("bob.home.example".try_into().expect("a name")),
        SanType::Rfc822Name("bob@home.example".try_into().expect("an address")),
        SanType::URI("doorward:route:nas".try_into().expect("a name")),
        SanType::IpAddress(std::net::Ipv4Addr::LOCALHOST.into()),
    ] {
        refuses("an alternative name", &named(&|params| params.subject_alt_names.push(name.clone())));
    }
    refuses("no origin", &renewals.ca.device(params("alice")));
    for changed in [
        Origin { serial: Serial::from_be_bytes(&[8]), ..origin.clone() },
        Origin { fingerprint: Sha256::of(b"other"), ..origin.clone() },
        Origin { authority: Sha256::of(b"other"), ..origin.clone() },
        Origin {
            authority: Sha256::of(Parts::read(&renewals.ca.certificate).expect("a certificate").key),
            ..origin.clone()
        },
    ] {
        refuses("an invented origin", &renewals.renew(&changed, &key));
    }
    // An authority below it, with which nothing would be bounded.
    let below = renewals.ca.below(authority_params("below"));
    let mut params = params("alice");
    params.custom_extensions = vec![origin::extension(&origin)];
    let leaf = params.signed_by(&key, &below.issuer).expect("a certificate").der().clone();
    scene.refuses("an intermediate", Reason::UnknownCa, &leaf, &[&below.certificate]);
    // It is none where none is taken.
    let without = Scene::new(&[&devices.certificate], vec![]);
    without.refuses("not configured", Reason::UnknownCa, &renewals.renew(&origin, &key), &[]);
}

#[test]
fn nothing_outlives_the_renewing_authority_or_the_inventory() {
    let (devices, key) = (Ca::new("devices"), key());
    let mut renewals = Renewals::new("renewals");
    let (certificate, origin) = renewals.original(&devices, 7, &key);
    let renewed = renewals.renew(&origin, &key);
    let now = i64::try_from(UnixTime::now().as_secs()).expect("a time");
    let scene = |renewals: &Renewals| renewals.scene(&[&devices.certificate], vec![]);
    renewals.trust.validity = (now - 10, now + 100);
    let chain = scene(&renewals).admits("in time", &renewed, &[]);
    assert_eq!(chain.good_until, u64::try_from(now + 100).expect("a time"));
    renewals.trust.validity = (now - 100, now - 10);
    scene(&renewals).refuses("expired", Reason::Expired, &renewed, &[]);
    renewals.trust.validity = (now + 10, now + 100);
    scene(&renewals).refuses("not yet", Reason::NotYetValid, &renewed, &[]);
    renewals.trust.validity = (0, i64::MAX);
    // The inventory alone revokes as well.
    renewals.trust.origins.values_mut().for_each(|known| known.revoked = true);
    scene(&renewals).refuses("revoked", Reason::Revoked, &renewed, &[]);
    renewals.trust.origins.clear();
    scene(&renewals).refuses("not in the inventory", Reason::CertificateInvalid, &renewed, &[]);
    scene(&renewals).admits("the original", &certificate, &[]);
}

/// However a certificate writes its names.
#[test]
fn name_is_the_one_of_the_inventory_and_the_only_one() {
    use rcgen::DnValue;
    let (devices, key) = (Ca::new("devices"), key());
    let mut renewals = Renewals::new("renewals");
    let (_, origin) = renewals.original(&devices, 7, &key);
    let scene = renewals.scene(&[&devices.certificate], vec![]);
    let utf8 = |text: &str| DnValue::Utf8String(text.to_owned());
    let printable = DnValue::PrintableString("alice".try_into().expect("a string"));
    // The same type, for rcgen another one.
    let also = || DnType::CustomDnType(vec![2, 5, 4, 3]);
    let common = || DnType::CommonName;
    for (what, names, admitted) in [
        ("its name", vec![(common(), utf8("alice"))], true),
        ("another encoding", vec![(common(), printable)], true),
        ("another case", vec![(common(), utf8("Alice"))], false),
        ("a zero byte", vec![(common(), utf8("alice\0"))], false),
        ("a space", vec![(common(), utf8("alice "))], false),
        ("letters that cannot be seen", vec![(common(), utf8("alice\u{200b}"))], false),
        ("an empty name", vec![(common(), utf8(""))], false),
        ("no name", vec![], false),
        ("another one first", vec![(also(), utf8("bob")), (common(), utf8("alice"))], false),
        ("another one last", vec![(common(), utf8("alice")), (also(), utf8("bob"))], false),
        ("twice the same", vec![(also(), utf8("alice")), (common(), utf8("alice"))], false),
    ] {
        let mut params = params("alice");
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in names {
            params.distinguished_name.push(kind, value);
        }
        params.custom_extensions = vec![origin::extension(&origin)];
        let leaf = params.signed_by(&key, &renewals.ca.issuer).expect("a certificate").der().clone();
        if admitted {
            scene.admits(what, &leaf, &[]);
        } else {
            scene.refuses(what, Reason::CertificateInvalid, &leaf, &[]);
        }
    }
}
