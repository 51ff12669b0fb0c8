//! What a token says of a key and signs with it, as certificates and TLS have it.

use rcgen::PublicKeyData;
use rustls::SignatureScheme;

use crate::connector::token::kind::Kind;

/// The SubjectPublicKeyInfo with this key in it.
pub(super) fn info(kind: Kind, key: &[u8]) -> Vec<u8> {
    Public { kind, key }.subject_public_key_info()
}

/// The length of a point of the curve, as a token has it.
pub(super) const fn point_bytes(kind: Kind) -> usize {
    match kind {
        Kind::P256 => 1 + 2 * 32,
        Kind::P384 => 1 + 2 * 48,
        Kind::Ed25519 => 32,
        Kind::Rsa => 0,
    }
}

struct Public<'a> {
    kind: Kind,
    key: &'a [u8],
}

impl PublicKeyData for Public<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.key
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.kind.x509()
    }
}

/// The key of RSA as a certificate has it (RFC 8017 appendix A.1.1).
pub(super) fn rsa(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_bigint_bytes(modulus, true);
            writer.next().write_bigint_bytes(exponent, true);
        });
    })
}

/// A signature of ECDSA as TLS and certificates have it (RFC 3279 section 2.2.3), of `r` and `s` side by side, as a token gives it.
pub(super) fn ecdsa(signature: &[u8]) -> Vec<u8> {
    let (r, s) = signature.split_at(signature.len() / 2);
    yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_bigint_bytes(r, true);
            writer.next().write_bigint_bytes(s, true);
        });
    })
}

/// What is before a digest in a signature of RSA PKCS#1 v1.5 (RFC 8017 section 9.2): DigestInfo without the digest.
pub(super) const fn digest_info(scheme: SignatureScheme) -> &'static [u8] {
    match scheme {
        SignatureScheme::RSA_PKCS1_SHA384 => {
            b"\x30\x41\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\x04\x30"
        }
        SignatureScheme::RSA_PKCS1_SHA512 => {
            b"\x30\x51\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\x04\x40"
        }
        _ => b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20",
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512};

    use super::*;
    use crate::pki::keys::KeyType;

    #[test]
    fn public_keys_are_written_as_certificates_have_them() {
        let p384 = rcgen::KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).expect("a key");
        let keys = [KeyType::P256, KeyType::Ed25519, KeyType::Rsa].map(|kind| kind.generate().expect("a key"));
        let kinds = [Kind::P256, Kind::Ed25519, Kind::Rsa, Kind::P384];
        for (key, kind) in keys.iter().chain([&p384]).zip(kinds) {
            let spki = key.subject_public_key_info();
            assert_eq!(Kind::of(&spki), Some(kind));
            assert_eq!(info(kind, key.der_bytes()), spki);
            assert!(kind == Kind::Rsa || key.der_bytes().len() == point_bytes(kind));
        }
        assert_eq!(Kind::of(b""), None);
        assert_eq!(
            Kind::of(&rcgen::KeyPair::generate_for(&PKCS_ECDSA_P521_SHA512).expect("a key").subject_public_key_info()),
            None
        );
    }

    #[test]
    fn leading_zeros_and_high_bits_are_those_of_der() {
        assert_eq!(ecdsa(&[0x00, 0x01, 0x80, 0x00]), [0x30, 8, 2, 1, 1, 2, 3, 0, 0x80, 0]);
        assert_eq!(rsa(&[0, 0x81], &[1, 0, 1]), [0x30, 9, 2, 2, 0, 0x81, 2, 3, 1, 0, 1]);
    }
}
