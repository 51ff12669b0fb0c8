//! Identities that are read from certificates.

use super::*;

#[test]
fn serials_are_compared_without_leading_zeros() {
    assert_eq!(Serial::parse("00:AB:cd"), Serial::parse("abCD"));
    assert_eq!(Serial::parse("abc"), Some(Serial::from_be_bytes(&[0x0a, 0xbc])));
    assert_eq!(Serial::parse("0").map(|s| s.to_string()), Some("00".into()));
    assert_eq!(Serial::parse("xyz"), None);
    assert_eq!(Serial::parse(""), None);
}

#[test]
fn fingerprints_with_and_without_colons() {
    let digest = Sha256::of(b"doorward");
    let plain = digest.to_string();
    let colons: Vec<&str> = plain.as_bytes().chunks(2).filter_map(|c| std::str::from_utf8(c).ok()).collect();
    assert_eq!(Sha256::parse(&plain), Some(digest));
    assert_eq!(Sha256::parse(&colons.join(":").to_uppercase()), Some(digest));
    assert_eq!(Sha256::parse("abcd"), None);
}

#[test]
fn a_certificate_and_the_twin_that_anybody_can_make_of_it_know_each_other() {
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ECDSA_P521_SHA512] {
        let key = rcgen::KeyPair::generate_for(algorithm).expect("a key");
        let params = rcgen::CertificateParams::new(vec!["phone.alice".to_owned()]).expect("a name");
        let der = params.self_signed(&key).expect("a certificate").der().to_vec();
        let (_, certificate) = X509Certificate::from_der(&der).expect("a certificate");
        let identity = Identity::from_certificate(&der, true).expect("an identity");
        let mut valid = 0;
        for twin in ecdsa::twins(&certificate) {
            let (_, parsed) = X509Certificate::from_der(&twin).expect("a certificate");
            let seen = Identity::from_certificate(&twin, true).expect("an identity");
            assert_ne!(seen.fingerprint, identity.fingerprint);
            assert!(seen.twins.fingerprints().contains(&identity.fingerprint), "the twin leads back");
            assert!(identity.twins.fingerprints().contains(&seen.fingerprint));
            valid += usize::from(is_well_signed(&parsed, algorithm));
        }
        assert_eq!(valid, 1, "the twin of the right curve is as good as the certificate");
        assert!(is_well_signed(&certificate, algorithm));
    }
}

fn is_well_signed(certificate: &X509Certificate<'_>, algorithm: &rcgen::SignatureAlgorithm) -> bool {
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ECDSA_P521_SHA512_ASN1, UnparsedPublicKey,
    };
    let verifier = if *algorithm == rcgen::PKCS_ECDSA_P256_SHA256 {
        &ECDSA_P256_SHA256_ASN1
    } else if *algorithm == rcgen::PKCS_ECDSA_P384_SHA384 {
        &ECDSA_P384_SHA384_ASN1
    } else {
        &ECDSA_P521_SHA512_ASN1
    };
    let key = certificate.public_key().subject_public_key.data.to_vec();
    let signed = certificate.tbs_certificate.as_ref();
    UnparsedPublicKey::new(verifier, key).verify(signed, &certificate.signature_value.data).is_ok()
}

#[test]
fn certificate_stuffing_bytes_after_the_certificate_are_no_identity() {
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(vec!["phone.alice".to_owned()]).expect("a name");
    let mut der = params.self_signed(&key).expect("a certificate").der().to_vec();
    let identity = Identity::from_certificate(&der, true).expect("an identity");
    assert_eq!(identity.display_name(), "phone.alice");
    assert_eq!(identity.fingerprint, Sha256::of(&der));
    der.push(0);
    assert_eq!(Identity::from_certificate(&der, true), Err(NotACertificate));
    assert_eq!(Identity::from_certificate(b"", true), Err(NotACertificate));
}
