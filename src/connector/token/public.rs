//! The public half of a key, and which signatures the key makes.

use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, PublicKeyData};
use rustls::{SignatureAlgorithm, SignatureScheme};
use x509_parser::prelude::{FromDer as _, SubjectPublicKeyInfo};

/// The keys of tokens that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    P256,
    P384,
    Ed25519,
    Rsa,
}

const EC: &str = "1.2.840.10045.2.1";
const P256: &str = "1.2.840.10045.3.1.7";
const P384: &str = "1.3.132.0.34";
const ED25519: &str = "1.3.101.112";
const RSA: &str = "1.2.840.113549.1.1.1";

impl Kind {
    /// The kind of the key in a SubjectPublicKeyInfo.
    pub(super) fn of(spki: &[u8]) -> Option<Self> {
        let (_, info) = SubjectPublicKeyInfo::from_der(spki).ok()?;
        let curve = || Some(info.algorithm.parameters.as_ref()?.as_oid().ok()?.to_id_string());
        match info.algorithm.algorithm.to_id_string().as_str() {
            RSA => Some(Self::Rsa),
            ED25519 => Some(Self::Ed25519),
            EC => Self::of_curve(&curve()?),
            _ => None,
        }
    }

    /// The kind of a key on this curve.
    pub(super) fn of_curve(identifier: &str) -> Option<Self> {
        match identifier {
            P256 => Some(Self::P256),
            P384 => Some(Self::P384),
            _ => None,
        }
    }

    /// What it signs with, the best first.
    pub(super) const fn schemes(self) -> &'static [SignatureScheme] {
        match self {
            Self::P256 => &[SignatureScheme::ECDSA_NISTP256_SHA256],
            Self::P384 => &[SignatureScheme::ECDSA_NISTP384_SHA384],
            Self::Ed25519 => &[SignatureScheme::ED25519],
            Self::Rsa => &[
                SignatureScheme::RSA_PSS_SHA256,
                SignatureScheme::RSA_PSS_SHA384,
                SignatureScheme::RSA_PSS_SHA512,
                SignatureScheme::RSA_PKCS1_SHA256,
                SignatureScheme::RSA_PKCS1_SHA384,
                SignatureScheme::RSA_PKCS1_SHA512,
            ],
        }
    }

    /// What a certificate request is signed with.
    pub(super) const fn request_scheme(self) -> SignatureScheme {
        match self {
            Self::P256 => SignatureScheme::ECDSA_NISTP256_SHA256,
            Self::P384 => SignatureScheme::ECDSA_NISTP384_SHA384,
            Self::Ed25519 => SignatureScheme::ED25519,
            Self::Rsa => SignatureScheme::RSA_PKCS1_SHA256,
        }
    }

    pub(super) const fn tls(self) -> SignatureAlgorithm {
        match self {
            Self::P256 | Self::P384 => SignatureAlgorithm::ECDSA,
            Self::Ed25519 => SignatureAlgorithm::ED25519,
            Self::Rsa => SignatureAlgorithm::RSA,
        }
    }

    pub(super) const fn x509(self) -> &'static rcgen::SignatureAlgorithm {
        match self {
            Self::P256 => &PKCS_ECDSA_P256_SHA256,
            Self::P384 => &PKCS_ECDSA_P384_SHA384,
            Self::Ed25519 => &PKCS_ED25519,
            Self::Rsa => &PKCS_RSA_SHA256,
        }
    }

    /// The SubjectPublicKeyInfo with this key in it.
    pub(super) fn info(self, key: &[u8]) -> Vec<u8> {
        Public { kind: self, key }.subject_public_key_info()
    }

    /// The length of a point of its curve, as a token has it.
    pub(super) const fn point_bytes(self) -> usize {
        match self {
            Self::P256 => 1 + 2 * 32,
            Self::P384 => 1 + 2 * 48,
            Self::Ed25519 => 32,
            Self::Rsa => 0,
        }
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
            assert_eq!(kind.info(key.der_bytes()), spki);
            assert!(kind == Kind::Rsa || key.der_bytes().len() == kind.point_bytes());
        }
        assert_eq!(Kind::of(b""), None);
        assert_eq!(
            Kind::of(
                &rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).expect("a key").subject_public_key_info()
            ),
            None
        );
    }

    #[test]
    fn leading_zeros_and_high_bits_are_those_of_der() {
        assert_eq!(ecdsa(&[0x00, 0x01, 0x80, 0x00]), [0x30, 8, 2, 1, 1, 2, 3, 0, 0x80, 0]);
        assert_eq!(rsa(&[0, 0x81], &[1, 0, 1]), [0x30, 9, 2, 2, 0, 0x81, 2, 3, 1, 0, 1]);
    }
}
