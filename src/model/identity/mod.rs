//! What a client certificate says about the device that shows it.

pub mod key;
pub mod text;

use std::fmt;
use std::net::IpAddr;
use std::sync::OnceLock;

use aws_lc_rs::digest;
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// A SHA-256 digest: of a certificate's DER encoding (a *fingerprint*) or of its SubjectPublicKeyInfo.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256(pub [u8; 32]);

impl Sha256 {
    /// The digest of `data`.
    pub fn of(data: &[u8]) -> Self {
        let mut out = [0; 32];
        out.copy_from_slice(digest::digest(&digest::SHA256, data).as_ref());
        Self(out)
    }

    /// Reads 64 hexadecimal digits; colons, as OpenSSL and browsers print them, do not matter.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = hex_bytes(text)?;
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

/// Writes two hexadecimal digits for each byte. Digests stand in every line of the log, and `{:02x}` for each of their bytes was
/// half of what such a line cost.
pub(crate) fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| DIGITS.get(usize::from(value & 0xf)).copied().map_or('0', char::from);
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.extend([digit(byte >> 4), digit(*byte)]);
    }
    f.write_str(&text)
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sha256({self})")
    }
}

/// A certificate's serial number (RFC 5280 section 4.1.2.2), without leading zero bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(Vec<u8>);

impl Serial {
    /// From the contents of the DER INTEGER.
    pub fn from_be_bytes(bytes: &[u8]) -> Self {
        let start = bytes.iter().position(|&b| b != 0).unwrap_or(bytes.len());
        Self(bytes.get(start..).unwrap_or_default().to_vec())
    }

    /// The number, most significant byte first.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Reads hexadecimal digits, with or without colons.
    pub fn parse(text: &str) -> Option<Self> {
        let compact: String = text.chars().filter(|&c| c != ':').collect();
        let even = if compact.len() % 2 == 1 { format!("0{compact}") } else { compact };
        hex_bytes(&even).map(|bytes| Self::from_be_bytes(&bytes))
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("00");
        }
        write_hex(f, &self.0)
    }
}

fn hex_bytes(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|&c| c != ':')
        .map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok()))
        .collect::<Option<_>>()?;
    if digits.is_empty() {
        return None;
    }
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    Some(pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

/// The chain that vouches for a client, as it was verified: whatever else the client sent is not in it. It is kept for as
/// long as its session lasts, to be judged again.
#[derive(Debug, PartialEq, Eq)]
pub struct Chain {
    /// The client's own certificate, then the intermediates that lead to the trust anchor. Where certificates are not
    /// verified, the client's own only.
    pub certificates: Vec<CertificateDer<'static>>,
    /// Who issued each of them, and the trust anchor's certificate if that issuer is in `trust`, too; empty where certificates
    /// are not verified.
    pub issued: Vec<Issued>,
    /// The last second, since 1970, in which all of them are valid.
    pub good_until: u64,
    /// SHA-256 of all of them: equal chains have the same.
    pub digest: Sha256,
}

impl Chain {
    /// A chain of these certificates.
    pub fn new(certificates: Vec<CertificateDer<'static>>, issued: Vec<Issued>, good_until: u64) -> Self {
        let mut hash = digest::Context::new(&digest::SHA256);
        for certificate in &certificates {
            // With its length, so that two chains cannot be cut from the same bytes in different places.
            hash.update(&certificate.len().to_be_bytes());
            hash.update(certificate);
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(hash.finish().as_ref());
        Self { certificates, issued, good_until, digest: Sha256(digest) }
    }
}

/// What revocation lists know a certificate by: its issuer, by name and key, and its serial number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The issuer's distinguished name (DER).
    pub issuer: Vec<u8>,
    /// The issuer's key; `None` for a certificate that is itself in `trust`.
    pub key: Option<IssuerKey>,
    /// The certificate's serial number.
    pub serial: Serial,
}

/// The key of an issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerKey {
    /// The SubjectPublicKeyInfo (DER).
    pub spki: Vec<u8>,
    /// SHA-256 of it.
    pub digest: Sha256,
    /// Whether its certificate permits it to sign revocation lists.
    pub signs_lists: bool,
}

/// What the end-entity certificate of a client says, and whether anybody vouched for it.
///
/// An identity is always taken from the certificate at the head of the chain, the one whose key the client
/// proved to hold, and never from another one in the same message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// A trust anchor of the route vouches for the chain. Under the client-auth modes `request` and `require`
    /// nobody does, and such an identity matches nothing but the word `unverified`.
    pub verified: bool,
    /// A trust anchor of the route signed the certificate, over intermediates if need be. It is set for certificates that
    /// are refused (revoked, expired, …) as well. It says nothing about the client: a refused client of TLS 1.3 has not
    /// proved yet that it holds the key, so anything that has seen the certificate can show it.
    pub anchored: bool,
    /// `rfc822Name` alternative names.
    pub emails: Vec<String>,
    /// `uniformResourceIdentifier` alternative names.
    pub uris: Vec<String>,
    /// `dNSName` alternative names.
    pub dns_names: Vec<String>,
    /// `iPAddress` alternative names.
    pub ips: Vec<IpAddr>,
    /// The subject's common name, the most specific one.
    pub common_name: Option<String>,
    /// The subject's organizational units.
    pub organizational_units: Vec<String>,
    /// An issuer in its chain may vouch for certain names only (name constraints). Such constraints do not reach the
    /// subject, so neither the common name nor an organizational unit is a selector.
    pub name_constrained: bool,
    /// SHA-256 of the certificate.
    pub fingerprint: Sha256,
    /// SHA-256 of certificates that differ from this one in nothing but the form of their issuer's signature, and are as
    /// good: whoever denies this fingerprint means those, too. See [`ecdsa`].
    pub twins: Twins,
    /// What its key is, if that is of a kind that the gate cannot check signatures with: see [`key::unsupported`].
    pub unsupported_key: Option<Box<str>>,
    /// SHA-256 of its SubjectPublicKeyInfo: stays the same when a certificate is renewed with its key.
    pub spki: Sha256,
    /// Its serial number.
    pub serial: Serial,
    /// The issuer's name as text.
    pub issuer: String,
    /// Seconds since 1970 before which it is not valid.
    pub not_before: i64,
    /// Seconds since 1970 after which it is not valid.
    pub not_after: i64,
}

/// The fingerprints of a certificate's twins. They cost more than all the rest of an identity, and few ask: they are worked
/// out when somebody does.
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
            // What is no certificate has no identity, so nobody asks for its twins.
            X509Certificate::from_der(&self.certificate)
                .map(|(_, certificate)| ecdsa::twins(&certificate).iter().map(|twin| Sha256::of(twin)).collect())
                .unwrap_or_default()
        })
    }
}

/// The certificate could not be read as X.509.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotACertificate;

impl fmt::Display for NotACertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an X.509 certificate")
    }
}

impl std::error::Error for NotACertificate {}

impl Identity {
    /// Reads an end-entity certificate. `verified` is the caller's word that its chain was checked.
    pub fn from_certificate(der: &[u8], verified: bool) -> Result<Self, NotACertificate> {
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| NotACertificate)?;
        if !rest.is_empty() {
            return Err(NotACertificate);
        }
        let mut identity = Self {
            verified,
            anchored: verified,
            emails: Vec::new(),
            uris: Vec::new(),
            dns_names: Vec::new(),
            ips: Vec::new(),
            common_name: certificate.subject().iter_common_name().last().map(text::attribute),
            organizational_units: certificate.subject().iter_organizational_unit().map(text::attribute).collect(),
            name_constrained: false,
            fingerprint: Sha256::of(der),
            twins: Twins::of(der),
            unsupported_key: key::unsupported(certificate.public_key().raw).map(String::into_boxed_str),
            spki: Sha256::of(certificate.public_key().raw),
            serial: Serial::from_be_bytes(certificate.raw_serial()),
            issuer: text::name(certificate.issuer()),
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
        };
        if let Ok(Some(names)) = certificate.subject_alternative_name() {
            for name in &names.value.general_names {
                match name {
                    GeneralName::RFC822Name(email) => identity.emails.push((*email).to_owned()),
                    GeneralName::URI(uri) => identity.uris.push((*uri).to_owned()),
                    GeneralName::DNSName(dns) => identity.dns_names.push((*dns).to_owned()),
                    GeneralName::IPAddress(bytes) => identity.ips.extend(ip_from(bytes)),
                    // Names with bytes that an IA5String cannot have.
                    GeneralName::Invalid(tag, bytes) => match tag.0 {
                        1 => identity.emails.push(text::bytes(bytes)),
                        2 => identity.dns_names.push(text::bytes(bytes)),
                        6 => identity.uris.push(text::bytes(bytes)),
                        _ => {}
                    },
                    _ => {}
                }
            }
        }
        Ok(identity)
    }

    /// The name to call this identity by: e-mail, URI, DNS name, common name, in this order, else its fingerprint.
    /// (mkcert writes a common name only with `-pkcs12`.)
    pub fn display_name(&self) -> String {
        self.emails
            .first()
            .or_else(|| self.uris.first())
            .or_else(|| self.dns_names.first())
            .or(self.common_name.as_ref())
            .cloned()
            .unwrap_or_else(|| format!("sha256:{}", self.fingerprint))
    }
}

/// ECDSA signatures come in pairs: where (r, s) is good, (r, n - s) is as well, n being the order of the curve, and no key
/// is needed to make one of the other (SEC 1 section 4.1.4; n - s gives the inverse point, which has the same x). A
/// certificate can thus be given another SHA-256 by whoever holds it.
mod ecdsa {
    use x509_parser::der_parser::asn1_rs::{FromDer, Integer, Sequence};
    use x509_parser::prelude::X509Certificate;
    use yasna::models::ObjectIdentifier;

    use super::hex_bytes;

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
    pub(super) fn twins(certificate: &X509Certificate<'_>) -> Vec<Vec<u8>> {
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
}

fn ip_from(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
