//! Certificates that differ in nothing but the form of their signature.
//!
//! ECDSA signatures come in pairs: where (r, s) is good, (r, n - s) is as well, n being the order of the curve, and no key
//! is needed to make one of the other (SEC 1 section 4.1.4; n - s gives the inverse point, which has the same x). So
//! anyone who has a certificate can give it another SHA-256.

use std::sync::OnceLock;

use x509_parser::der_parser::asn1_rs::{Integer, Sequence};
use x509_parser::prelude::{FromDer, X509Certificate};
use yasna::models::ObjectIdentifier;

use super::Sha256;
use super::digest::hex_bytes;

/// The fingerprints of a certificate's twins. They cost more than the rest of an identity and are rarely needed, so they are computed
/// on first use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Twins {
    certificate: Vec<u8>,
    fingerprints: OnceLock<Vec<Sha256>>,
}

impl Twins {
    /// Those of a certificate in DER.
    pub fn of(certificate: &[u8]) -> Self {
        Self { certificate: certificate.to_vec(), fingerprints: OnceLock::new() }
    }

    /// These.
    pub fn known(fingerprints: Vec<Sha256>) -> Self {
        Self { certificate: Vec::new(), fingerprints: fingerprints.into() }
    }

    /// Their fingerprints.
    pub fn fingerprints(&self) -> &[Sha256] {
        self.fingerprints.get_or_init(|| {
            // Bytes that are no certificate have no identity, and so no twins.
            X509Certificate::from_der(&self.certificate)
                .map(|(_, certificate)| twins(&certificate).iter().map(|twin| Sha256::of(twin)).collect())
                .unwrap_or_default()
        })
    }
}

/// ecdsa-with-SHA224 to ecdsa-with-SHA512 (RFC 5758 section 3.2).
const ECDSA_WITH_SHA2: &str = "1.2.840.10045.4.3.";

/// The orders of P-256, P-384 and P-521 (SEC 2 version 2): all that webpki verifies.
const ORDERS: [&str; 3] = [
    "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551",
    "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973",
    "01ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff\
     fa51868783bf2f966b7fcc0148f709a5d03bb5c9b8899c47aebb6fb71e91386409",
];

/// The same certificate with the other signature; one for each curve that the issuer's key, which is not in it, may
/// be on.
fn twins(certificate: &X509Certificate<'_>) -> Vec<Vec<u8>> {
    if !certificate.signature_algorithm.algorithm.to_id_string().starts_with(ECDSA_WITH_SHA2) {
        return Vec::new();
    }
    let orders = ORDERS.iter().filter_map(|digits| hex_bytes(digits));
    orders.filter_map(|order| twin(certificate, &order)).collect()
}

fn twin(certificate: &X509Certificate<'_>, order: &[u8]) -> Option<Vec<u8>> {
    // Ecdsa-Sig-Value (RFC 3279 section 2.2.3).
    let (_, values) = Sequence::from_der(&certificate.signature_value.data).ok()?;
    let (rest, r) = Integer::from_der(&values.content).ok()?;
    let (_, s) = Integer::from_der(rest).ok()?;
    let s = minus(order, s.as_ref())?;
    let signature = yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_bigint_bytes(r.as_ref(), true);
            writer.next().write_bigint_bytes(&s, true);
        });
    });
    let algorithm: Vec<u64> = certificate.signature_algorithm.algorithm.iter()?.collect();
    Some(yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_der(certificate.tbs_certificate.as_ref());
            // No parameters: RFC 5758 section 3.2 forbids them, and webpki takes no other form.
            writer.next().write_sequence(|writer| writer.next().write_oid(&ObjectIdentifier::new(algorithm)));
            writer.next().write_bitvec_bytes(&signature, signature.len() * 8);
        });
    }))
}

/// `order - s` as big-endian bytes, or `None` if that is not positive.
fn minus(order: &[u8], s: &[u8]) -> Option<Vec<u8>> {
    let leading = s.iter().position(|&byte| byte != 0)?;
    let s = s.get(leading..)?;
    let missing = order.len().checked_sub(s.len())?;
    let mut borrow = false;
    let mut difference = order.to_vec();
    let padded = std::iter::repeat_n(&0, missing).chain(s);
    for (byte, subtrahend) in difference.iter_mut().zip(padded.copied().collect::<Vec<u8>>()).rev() {
        let (less, first) = byte.overflowing_sub(subtrahend);
        let (less, second) = less.overflowing_sub(u8::from(borrow));
        (*byte, borrow) = (less, first || second);
    }
    (!borrow).then_some(difference)
}

#[cfg(test)]
mod tests {
    use super::super::Identity;
    use super::*;

    #[test]
    fn certificate_and_its_ecdsa_twin_list_each_other() {
        for algorithm in
            [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ECDSA_P521_SHA512]
        {
            let key = rcgen::KeyPair::generate_for(algorithm).expect("a key");
            let params = rcgen::CertificateParams::new(vec!["phone.alice".to_owned()]).expect("a name");
            let der = params.self_signed(&key).expect("a certificate").der().to_vec();
            let (_, certificate) = X509Certificate::from_der(&der).expect("a certificate");
            let identity = Identity::from_certificate(&der, true).expect("an identity");
            let mut valid = 0;
            for twin in twins(&certificate) {
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
}
