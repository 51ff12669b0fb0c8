//! Which public keys the gate can check signatures with.

use std::sync::LazyLock;

use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::crypto::aws_lc_rs::default_provider;
use x509_parser::der_parser::asn1_rs::{Any, Oid};
use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo, X509Certificate};
use x509_parser::public_key::PublicKey;

/// The algorithms of every handshake and every certificate.
static ALGORITHMS: LazyLock<WebPkiSupportedAlgorithms> =
    LazyLock::new(|| default_provider().signature_verification_algorithms);

/// What is taken, for messages.
pub const SUPPORTED: &str = "RSA of 2048 to 8192 bits, ECDSA on P-256, P-384 or P-521, and Ed25519";

/// What is taken of signatures in certificates, for messages.
pub const SUPPORTED_SIGNATURES: &str = "SHA-256, SHA-384 and SHA-512 with RSA or ECDSA, and Ed25519";

/// The sizes of RSA keys that aws-lc takes here, in bits.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Keys by the object identifier of their algorithm.
const KEYS: &[(&str, &str)] = &[
    ("1.3.101.113", "Ed448"),
    ("1.3.101.110", "X25519"),
    ("1.3.101.111", "X448"),
    ("1.2.840.113549.1.1.10", "RSA-PSS"),
    ("1.2.840.113549.1.1.7", "RSA-OAEP"),
    ("1.2.840.10040.4.1", "DSA"),
    ("1.2.840.10046.2.1", "Diffie-Hellman"),
    ("1.2.643.7.1.1.1.1", "GOST"),
    ("1.2.643.7.1.1.1.2", "GOST"),
    ("2.16.840.1.101.3.4.3.17", "ML-DSA-44"),
    ("2.16.840.1.101.3.4.3.18", "ML-DSA-65"),
    ("2.16.840.1.101.3.4.3.19", "ML-DSA-87"),
];

/// Curves by their object identifier (SEC 2, RFC 5639).
const CURVES: &[(&str, &str)] = &[
    ("1.3.132.0.10", "secp256k1"),
    ("1.3.132.0.33", "P-224"),
    ("1.2.840.10045.3.1.1", "P-192"),
    ("1.3.36.3.3.2.8.1.1.7", "brainpoolP256r1"),
    ("1.3.36.3.3.2.8.1.1.11", "brainpoolP384r1"),
    ("1.3.36.3.3.2.8.1.1.13", "brainpoolP512r1"),
    ("1.2.156.10197.1.301", "SM2"),
];

/// Signatures by the object identifier of their algorithm.
const SIGNATURES: &[(&str, &str)] = &[
    ("1.2.840.113549.1.1.2", "MD2 with RSA"),
    ("1.2.840.113549.1.1.4", "MD5 with RSA"),
    ("1.2.840.113549.1.1.5", "SHA-1 with RSA"),
    ("1.3.14.3.2.29", "SHA-1 with RSA"),
    ("1.2.840.113549.1.1.14", "SHA-224 with RSA"),
    ("1.2.840.10045.4.1", "SHA-1 with ECDSA"),
    ("1.2.840.10045.4.3.1", "SHA-224 with ECDSA"),
    ("1.2.840.10040.4.3", "SHA-1 with DSA"),
    ("2.16.840.1.101.3.4.3.2", "SHA-256 with DSA"),
    ("1.2.840.113549.1.1.10", "RSA-PSS with parameters other than the usual ones"),
    ("1.3.101.113", "Ed448"),
];

/// What the key in a SubjectPublicKeyInfo is, if the gate cannot check its signatures: "Ed448", "RSA with 1024 bits".
pub fn unsupported(spki: &[u8]) -> Option<String> {
    let Ok((_, info)) = SubjectPublicKeyInfo::from_der(spki) else {
        return Some("a key that cannot be read".to_owned());
    };
    if !is_known(spki) {
        let algorithm = info.algorithm.algorithm.to_id_string();
        if algorithm == "1.2.840.10045.2.1" {
            let curve = info.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
            return Some(match curve.map(|oid| oid.to_id_string()) {
                Some(oid) => format!("ECDSA on {}", named(CURVES, &oid).unwrap_or_else(|| format!("the curve {oid}"))),
                None => "ECDSA on a curve without a name".to_owned(),
            });
        }
        return Some(named(KEYS, &algorithm).unwrap_or_else(|| format!("of the kind {algorithm}")));
    }
    match info.parsed() {
        Ok(PublicKey::RSA(key)) => {
            let significant = key.modulus.iter().position(|&byte| byte != 0).unwrap_or(key.modulus.len());
            let modulus = key.modulus.get(significant..).unwrap_or_default();
            let bits = modulus
                .first()
                .map_or(0, |first| modulus.len() * 8 - usize::try_from(first.leading_zeros()).unwrap_or_default());
            (!RSA_BITS.contains(&bits)).then(|| format!("RSA with {bits} bits"))
        }
        _ => None,
    }
}

/// What the signature algorithm with these AlgorithmIdentifier contents is called.
pub fn signature(algorithm: &[u8]) -> String {
    let oid = Oid::from_der(algorithm).map(|(_, oid)| oid.to_id_string());
    match oid {
        Ok(oid) => named(SIGNATURES, &oid).unwrap_or_else(|| format!("the algorithm {oid}")),
        Err(_) => "an algorithm that cannot be read".to_owned(),
    }
}

/// What a certificate is signed with, if the gate cannot check that.
pub fn unsupported_signature(certificate: &X509Certificate<'_>) -> Option<String> {
    let Some(algorithm) = signature_of(certificate) else { return Some("an algorithm that cannot be read".to_owned()) };
    let known = ALGORITHMS.all.iter().any(|supported| supported.signature_alg_id().as_ref() == algorithm);
    (!known).then(|| signature(algorithm))
}

/// The AlgorithmIdentifier of a certificate's signature, without its outer tag.
pub fn signature_of<'a>(certificate: &X509Certificate<'a>) -> Option<&'a [u8]> {
    let (_, whole) = Any::from_der(certificate.as_raw()).ok()?;
    let (rest, _) = Any::from_der(whole.data).ok()?;
    let (_, algorithm) = Any::from_der(rest).ok()?;
    Some(algorithm.data)
}

/// Whether the gate checks signatures of keys with this algorithm and curve. `spki` as DER.
fn is_known(spki: &[u8]) -> bool {
    ALGORITHMS.all.iter().any(|supported| algorithm_of(spki) == Some(supported.public_key_alg_id().as_ref()))
}

/// Whether keys with this algorithm identifier, without its outer tag, are known.
pub fn is_known_algorithm(identifier: &[u8]) -> bool {
    ALGORITHMS.all.iter().any(|supported| supported.public_key_alg_id().as_ref() == identifier)
}

/// The contents of the AlgorithmIdentifier of a SubjectPublicKeyInfo.
fn algorithm_of(spki: &[u8]) -> Option<&[u8]> {
    let (_, outer) = Any::from_der(spki).ok()?;
    let (_, algorithm) = Any::from_der(outer.data).ok()?;
    Some(algorithm.data)
}

fn named(table: &[(&str, &str)], oid: &str) -> Option<String> {
    table.iter().find(|(known, _)| *known == oid).map(|(_, name)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A SubjectPublicKeyInfo with an RSA modulus of so many bits.
    fn rsa(bits: usize) -> Vec<u8> {
        let mut modulus = vec![0xff; bits.div_ceil(8)];
        modulus[0] >>= (8 - bits % 8) % 8;
        let key = yasna::construct_der(|writer| {
            writer.write_sequence(|writer| {
                writer.next().write_bigint_bytes(&modulus, true);
                writer.next().write_u32(65_537);
            });
        });
        yasna::construct_der(|writer| {
            writer.write_sequence(|writer| {
                writer.next().write_sequence(|writer| {
                    writer
                        .next()
                        .write_oid(&yasna::models::ObjectIdentifier::from_slice(&[1, 2, 840, 113_549, 1, 1, 1]));
                    writer.next().write_null();
                });
                writer.next().write_bitvec_bytes(&key, key.len() * 8);
            });
        })
    }

    #[test]
    fn rsa_keys_are_taken_from_2048_to_8192_bits() {
        for (bits, supported) in [(512, false), (1024, false), (2047, false), (2048, true), (8192, true), (8193, false)]
        {
            assert_eq!(unsupported(&rsa(bits)).is_none(), supported, "{bits}");
        }
        assert_eq!(unsupported(&rsa(1024)).as_deref(), Some("RSA with 1024 bits"));
        assert!(unsupported(b"").is_some());
    }
}
