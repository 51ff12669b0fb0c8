//! The authorities, what they certify, and their lists of what no longer counts (RFC 5280).

use std::fmt;

use rcgen::string::{BmpString, Ia5String, PrintableString, TeletexString, UniversalString};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CidrSubnet, DistinguishedName, DnType,
    DnValue, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    NameConstraints, PublicKeyData, RevocationReason, RevokedCertParams, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use time::macros::datetime;
use time::{Duration, OffsetDateTime};
use x509_parser::der_parser::asn1_rs::Tag;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};
use x509_parser::x509::X509Name;
use zeroize::Zeroizing;

use super::keys::{self, KeyType};
use super::{Error, Parts, Signed, pem, random, verify};
use crate::model::names::{Name, ServerName, ServerNamePattern};

/// How long an authority is good for, in days: ten years, since replacing one means visiting every device.
pub const AUTHORITY_DAYS: i64 = 3650;

/// How long a server certificate is good for, in days.
///
/// Apple refuses server certificates that are valid for more than 825 days, whoever added their root
/// (<https://support.apple.com/en-us/103769>). The limit of 398 days is for the roots that ship with its systems
/// (<https://support.apple.com/en-us/102028>, which advises 397); keeping to that one too leaves no client that could
/// object.
pub const SERVER_DAYS: i64 = 397;

/// How long a device certificate is good for, in days: as long as mkcert's, two years and three months.
pub const DEVICE_DAYS: i64 = 825;

/// A certificate issued now is valid since so long ago: a phone whose clock is behind must not find it "not yet valid".
const BACKDATED: Duration = Duration::hours(1);

/// Before this no clock is right. Small machines begin in 1970 when their battery is empty; what an authority signed then
/// would have expired when the clock is set.
const EARLIEST: OffsetDateTime = datetime!(2026-01-01 0:00 UTC);

/// The longest common name (`ub-common-name`, RFC 5280 appendix A.1), in characters.
const MAX_COMMON_NAME: usize = 64;

/// How many characters of a name are random: 30 bits, so that two households do not share a name by accident.
const NAME_TAG: usize = 6;

/// What they are taken from. 0 and o, 1, i and l cannot be confused.
const NAME_ALPHABET: &[u8; 32] = b"23456789abcdefghjkmnpqrstuvwxyz0";

/// The name of a new authority: `what` and a random part. Revocation lists and path building go by names, and two
/// authorities of one name are taken for each other by programs that look no further.
fn unique_name(what: &str) -> Result<String, Error> {
    let tag: String = random::<NAME_TAG>()?
        .iter()
        .map(|byte| NAME_ALPHABET.get(usize::from(byte % 32)).copied().map_or('2', char::from))
        .collect();
    Ok(format!("{what} {tag}"))
}

/// What an authority may vouch for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limits {
    /// Its domain: critical name constraints say so.
    Domain,
    /// Anything, for clients that cannot read name constraints (Mbed TLS). The holder of its key can then pose as any
    /// site to every device that trusts it.
    None,
}

/// A certificate with its key, which other certificates and revocation lists are signed with.
pub struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
    signs_lists: bool,
    domain: Option<ServerName>,
}

impl Authority {
    fn new(key: KeyPair, common_name: &str, restrict: impl FnOnce(&mut CertificateParams)) -> Result<Self, Error> {
        let mut params = template(OffsetDateTime::now_utc(), AUTHORITY_DAYS)?;
        params.distinguished_name = subject(common_name);
        // No authority below this one: what it signs are certificates of servers or devices, nothing else.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        restrict(&mut params);
        let certificate = params.self_signed(&key)?;
        Self::from_parts(certificate.into(), key)
    }

    /// An authority that is there already: its certificate, and the key of this certificate. Need not be one of ours.
    pub fn from_parts(certificate: CertificateDer<'static>, key: KeyPair) -> Result<Self, Error> {
        let (_, parsed) = X509Certificate::from_der(&certificate).map_err(|_| Error::NotAnAuthority)?;
        if !keys::fits(&key, parsed.public_key().raw) {
            return Err(Error::KeyDoesNotFit);
        }
        if !parsed.is_ca() {
            return Err(Error::NotAnAuthority);
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished_name(parsed.subject()).ok_or(Error::NotAnAuthority)?;
        if let Some(id) = subject_key_identifier(&parsed) {
            params.key_identifier_method = KeyIdMethod::PreSpecified(id);
        }
        // rcgen refuses to sign lists for an issuer whose key usage lacks cRLSign. mkcert's roots lack it, and rustls,
        // which is what reads the list, does not mind: it is said to the user instead, and not left to rcgen.
        params.key_usages = Vec::new();
        let usage = parsed.key_usage().ok().flatten();
        let validity = parsed.validity();
        let (not_before, not_after) = (validity.not_before.to_datetime(), validity.not_after.to_datetime());
        let signs_lists = usage.is_none_or(|usage| usage.value.crl_sign());
        let domain = permitted_domain(&parsed);
        let issuer = Issuer::new(params, key);
        let authority = Self { issuer, not_before, not_after, signs_lists, domain, certificate };
        authority.writes_its_own_name()?;
        Ok(authority)
    }

    /// Whether what it signs names it byte for byte as it names itself: RFC 5280 section 7.1 lets readers compare names
    /// in cleverer ways, and many do not. Names of several parts in one component are what cannot be written again.
    fn writes_its_own_name(&self) -> Result<(), Error> {
        let list = self.revocation_list(&[], 1, OffsetDateTime::now_utc() + Duration::DAY)?;
        let (_, list) = x509_parser::parse_x509_crl(&list).map_err(|_| Error::NotAnAuthority)?;
        let (_, own) = X509Certificate::from_der(&self.certificate).map_err(|_| Error::NotAnAuthority)?;
        if list.issuer().as_raw() == own.subject().as_raw() { Ok(()) } else { Err(Error::NotAnAuthority) }
    }

    fn sign(
        &self,
        days: i64,
        key: &impl PublicKeyData,
        describe: impl FnOnce(&mut CertificateParams),
    ) -> Result<Certified, Error> {
        let now = self.now()?;
        let mut params = template(now, days)?;
        // No client accepts it for longer than its issuer, so it does not say otherwise.
        params.not_after = params.not_after.min(self.not_after);
        if params.not_after <= params.not_before {
            return Err(Error::AuthorityExpired);
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        describe(&mut params);
        let certificate = params.signed_by(key, &self.issuer)?.into();
        let serial = params.serial_number.map(|serial| serial.to_bytes()).unwrap_or_default();
        Ok(Certified { certificate, serial, not_before: params.not_before, not_after: params.not_after })
    }

    /// A certificate that says: `key` belongs to the device called `name`.
    ///
    /// The name is the common name, and there are no alternative names: `alice-phone` is no host name, e-mail address
    /// or URI, and a certificate that can pass for no host cannot be used to play one. In the configuration the
    /// bare word `alice-phone` and `cn:alice-phone` both mean it.
    pub fn certify_device(&self, name: &Name, key: &impl PublicKeyData) -> Result<Certified, Error> {
        self.sign(DEVICE_DAYS, key, |params| {
            params.distinguished_name = subject(name.as_str());
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        })
    }

    /// A certificate that says: `key` belongs to the server of these names, the first of which is its common name.
    pub fn certify_server(&self, names: &[ServerNamePattern], key: &impl PublicKeyData) -> Result<Certified, Error> {
        let alternative = names
            .iter()
            .map(|name| Ok(SanType::DnsName(name.to_string().try_into()?)))
            .collect::<Result<_, Error>>()?;
        self.sign(SERVER_DAYS, key, |params| {
            params.distinguished_name = subject(&names.first().map(ToString::to_string).unwrap_or_default());
            params.subject_alt_names = alternative;
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        })
    }

    /// A list of certificates that are no longer to be accepted (RFC 5280 section 5), which says of itself that
    /// another one follows before `next_update`. `number` must be larger than that of the list before (section 5.2.3).
    ///
    /// A list older than that locks every device out if the configuration says `expired_revocation_list = "deny"`.
    /// Fails if `next_update` is not in the future.
    pub fn revocation_list(
        &self,
        revoked: &[Revocation],
        number: u64,
        next_update: OffsetDateTime,
    ) -> Result<CertificateRevocationListDer<'static>, Error> {
        let now = self.now()?;
        let list = CertificateRevocationListParams {
            this_update: now - BACKDATED,
            next_update,
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(Revocation::params).collect(),
            key_identifier_method: self.key_identifier_method()?,
        };
        if next_update <= now {
            return Err(Error::AuthorityExpired);
        }
        Ok(list.signed_by(&self.issuer)?.into())
    }

    /// Now, if the clock can be right: an authority cannot sign before it was made.
    fn now(&self) -> Result<OffsetDateTime, Error> {
        let now = OffsetDateTime::now_utc();
        if now < self.not_before { Err(Error::Clock(now)) } else { Ok(now) }
    }

    /// How the authority is called by the number in its certificate, as RFC 5280 section 5.2.1 wants it in its lists.
    fn key_identifier_method(&self) -> Result<KeyIdMethod, Error> {
        let (_, parsed) = X509Certificate::from_der(&self.certificate).map_err(|_| Error::NotAnAuthority)?;
        Ok(subject_key_identifier(&parsed).map_or(KeyIdMethod::Sha256, KeyIdMethod::PreSpecified))
    }

    /// The certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The certificate as PEM.
    pub fn certificate_pem(&self) -> String {
        pem::encode(pem::CERTIFICATE, &self.certificate)
    }

    /// The private key as PEM (PKCS#8, not encrypted).
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// The private key as PEM (PKCS#8, encrypted).
    pub fn encrypted_key_pem(&self, passphrase: &str) -> Result<Zeroizing<String>, Error> {
        keys::encrypt(self.issuer.key(), passphrase)
    }

    /// When it expires.
    pub fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }

    /// Whether its certificate lets it sign revocation lists: OpenSSL refuses the lists of one that does not.
    pub const fn signs_lists(&self) -> bool {
        self.signs_lists
    }

    /// The domain it is limited to, if it is to one.
    pub const fn domain(&self) -> Option<&ServerName> {
        self.domain.as_ref()
    }
}

/// Whether the authority with the certificate `issuer` has signed this certificate, which bears its name as the issuer's.
pub fn has_signed(issuer: &CertificateDer<'_>, certificate: &X509Certificate<'_>) -> bool {
    bears_signature_of(issuer, certificate.issuer(), certificate.as_raw())
}

/// Whether the key in the certificate `issuer` signed this revocation list (DER), and the list bears its name.
pub fn has_signed_list(issuer: &CertificateDer<'_>, list: &[u8]) -> bool {
    let Ok(([], read)) = CertificateRevocationList::from_der(list) else { return false };
    bears_signature_of(issuer, read.issuer(), list)
}

/// As the gate checks signatures: by the algorithm that is named, and only if it fits the key.
fn bears_signature_of(issuer: &CertificateDer<'_>, named: &X509Name<'_>, der: &[u8]) -> bool {
    let (Some(issuer), Some(signed)) = (Parts::read(issuer), Signed::read(der)) else { return false };
    let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
    named.as_raw() == issuer.subject && verify(algorithms.all, issuer.key, &signed).is_ok()
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

/// The name of an authority as it was read, to be written in what it signs. `None` if it cannot be written again as it
/// is.
fn distinguished_name(name: &X509Name<'_>) -> Option<DistinguishedName> {
    let mut out = DistinguishedName::new();
    for attribute in name.iter_attributes() {
        let oid: Vec<u64> = attribute.attr_type().iter()?.collect();
        let data = attribute.attr_value().data;
        let text = || str::from_utf8(data).ok();
        let value = match attribute.attr_value().header.tag() {
            Tag::Utf8String => DnValue::Utf8String(text()?.to_owned()),
            Tag::PrintableString => DnValue::PrintableString(PrintableString::try_from(text()?).ok()?),
            Tag::Ia5String => DnValue::Ia5String(Ia5String::try_from(text()?).ok()?),
            Tag::T61String => DnValue::TeletexString(TeletexString::try_from(text()?).ok()?),
            Tag::BmpString => DnValue::BmpString(BmpString::from_utf16be(data.to_vec()).ok()?),
            Tag::UniversalString => DnValue::UniversalString(UniversalString::from_utf32be(data.to_vec()).ok()?),
            _ => return None,
        };
        out.push(DnType::from_oid(&oid), value);
    }
    Some(out)
}

fn subject_key_identifier(certificate: &X509Certificate<'_>) -> Option<Vec<u8>> {
    use x509_parser::extensions::ParsedExtension;
    certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
        _ => None,
    })
}

/// The one domain that an authority may vouch for, if its name constraints say so.
fn permitted_domain(certificate: &X509Certificate<'_>) -> Option<ServerName> {
    let constraints = certificate.name_constraints().ok().flatten()?;
    let permitted = constraints.value.permitted_subtrees.iter().flatten();
    let mut domains = permitted.filter_map(|tree| match tree.base {
        GeneralName::DNSName(name) => Some(name),
        _ => None,
    });
    match (domains.next(), domains.next()) {
        (Some(only), None) => ServerName::parse(only).ok(),
        _ => None,
    }
}

/// Vouches for the gate. Devices trust it, so it can vouch for nothing but one domain.
#[derive(Debug)]
pub struct ServerAuthority {
    authority: Authority,
    domain: ServerName,
}

impl ServerAuthority {
    /// A new authority for `domain` and every name below it, with a key of the usual kind.
    pub fn new(domain: &ServerName) -> Result<Self, Error> {
        Self::with_key(domain, KeyType::default().generate()?, Limits::Domain)
    }

    /// A new authority for `domain` and every name below it.
    ///
    /// With [`Limits::Domain`] the certificate carries critical name constraints (RFC 5280 section 4.2.1.10): of DNS names and mail
    /// addresses those of `domain` are permitted, for a kind of which nothing is said is not limited at all; IP addresses
    /// are excluded. Its extended key usage is `serverAuth`, so that it vouches for no program, mail or login. Whoever
    /// steals its key can impersonate the gate and no other site.
    pub fn with_key(domain: &ServerName, key: KeyPair, limits: Limits) -> Result<Self, Error> {
        // The domain is in the name because people meet it in their phone's list of roots (iOS shows only those that
        // have a common name). Whoever connects reads it as the issuer of a certificate that says the domain anyway.
        let named = unique_name(&format!("Doorward {domain}"))?;
        let common_name = if fits(&named) { named } else { unique_name("Doorward")? };
        let authority = Authority::new(key, &common_name, |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            if limits == Limits::None {
                return;
            }
            params.name_constraints = Some(NameConstraints {
                permitted_subtrees: vec![
                    GeneralSubtree::DnsName(domain.to_string()),
                    GeneralSubtree::Rfc822Name(domain.to_string()),
                ],
                excluded_subtrees: vec![
                    GeneralSubtree::IpAddress(CidrSubnet::V4([0; 4], [0; 4])),
                    GeneralSubtree::IpAddress(CidrSubnet::V6([0; 16], [0; 16])),
                ],
            });
        })?;
        Ok(Self { authority, domain: domain.clone() })
    }

    /// A certificate for the domain itself and every name one label below it, with a key of the usual kind.
    pub fn issue(&self) -> Result<Issued, Error> {
        let key = KeyType::default().generate()?;
        Ok(Issued { certified: self.authority.certify_server(&usual_names(&self.domain), &key)?, key })
    }

    /// Certificate and key of the authority itself.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }
}

/// What a server's certificate is for if nothing else is said: the domain, and every name one label below it.
pub fn usual_names(domain: &ServerName) -> Vec<ServerNamePattern> {
    vec![ServerNamePattern::Exact(domain.clone()), ServerNamePattern::Wildcard(domain.clone())]
}

/// Vouches for devices. Only the gate trusts it.
#[derive(Debug)]
pub struct DeviceAuthority {
    authority: Authority,
}

impl DeviceAuthority {
    /// How the common name begins. A gate tells its trust anchors' names to every stranger who begins a handshake (the
    /// `certificate_authorities` of RFC 8446 section 4.2.4), so this one names no host, user or domain.
    pub const COMMON_NAME: &str = "Doorward devices";

    /// A new authority, with a key of the usual kind.
    pub fn new() -> Result<Self, Error> {
        Self::with_key(KeyType::default().generate()?)
    }

    /// A new authority.
    ///
    /// Its extended key usage is `clientAuth`: should somebody install this file in a phone instead of the server
    /// authority's, which is the one to install, it still vouches for no web site.
    pub fn with_key(key: KeyPair) -> Result<Self, Error> {
        let authority = Authority::new(key, &unique_name(Self::COMMON_NAME)?, |params| {
            // OpenSSL refuses revocation lists of an authority that does not claim to sign any.
            params.key_usages.push(KeyUsagePurpose::CrlSign);
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        })?;
        Ok(Self { authority })
    }

    /// A certificate for the device called `name`, with a key of the usual kind.
    pub fn issue(&self, name: &Name) -> Result<Issued, Error> {
        let key = KeyType::default().generate()?;
        Ok(Issued { certified: self.authority.certify_device(name, &key)?, key })
    }

    /// Certificate and key of the authority itself.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }
}

/// Why a certificate no longer counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum RevokedFor {
    /// The device was lost, stolen or broken into: somebody else may have its key (`keyCompromise`).
    Lost,
    /// It has another certificate (`superseded`).
    Replaced,
    /// It is not used any more (`cessationOfOperation`).
    Retired,
    /// None of these (`unspecified`).
    Unspecified,
}

impl fmt::Display for RevokedFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost => "lost",
            Self::Replaced => "replaced",
            Self::Retired => "retired",
            Self::Unspecified => "unspecified",
        })
    }
}

/// A certificate that is no longer to be accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// Its serial number, most significant byte first.
    pub serial: Vec<u8>,
    /// Since when.
    pub at: OffsetDateTime,
    /// Why.
    pub reason: RevokedFor,
}

impl Revocation {
    fn params(&self) -> RevokedCertParams {
        RevokedCertParams {
            serial_number: SerialNumber::from_slice(&self.serial),
            revocation_time: self.at,
            reason_code: match self.reason {
                RevokedFor::Lost => Some(RevocationReason::KeyCompromise),
                RevokedFor::Replaced => Some(RevocationReason::Superseded),
                RevokedFor::Retired => Some(RevocationReason::CessationOfOperation),
                // RFC 5280 section 5.3.1: the extension should be absent instead of saying "unspecified".
                RevokedFor::Unspecified => None,
            },
            invalidity_date: None,
        }
    }
}

/// A certificate of a server or a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certified {
    certificate: CertificateDer<'static>,
    serial: Vec<u8>,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
}

impl Certified {
    /// The certificate. It is the whole chain, for its issuer is the trust anchor.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The certificate as PEM.
    pub fn certificate_pem(&self) -> String {
        pem::encode(pem::CERTIFICATE, &self.certificate)
    }

    /// The serial number, most significant byte first.
    pub fn serial(&self) -> &[u8] {
        &self.serial
    }

    /// When it begins to count.
    pub fn not_before(&self) -> OffsetDateTime {
        self.not_before
    }

    /// When it expires.
    pub fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }
}

/// A certificate of a server or a device, with its key.
pub struct Issued {
    certified: Certified,
    key: KeyPair,
}

impl Issued {
    /// This certificate with its key.
    pub fn new(certified: Certified, key: KeyPair) -> Self {
        Self { certified, key }
    }

    /// The certificate without the key.
    pub fn certified(&self) -> &Certified {
        &self.certified
    }

    /// The certificate. It is the whole chain, for its issuer is the trust anchor.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        self.certified.certificate()
    }

    /// The certificate as PEM.
    pub fn certificate_pem(&self) -> String {
        self.certified.certificate_pem()
    }

    /// The private key (PKCS#8).
    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()))
    }

    /// The private key as PEM (PKCS#8, not encrypted).
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// The serial number, most significant byte first.
    pub fn serial(&self) -> &[u8] {
        self.certified.serial()
    }

    /// When it expires.
    pub fn not_after(&self) -> OffsetDateTime {
        self.certified.not_after()
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").field("not_after", &self.not_after()).finish_non_exhaustive()
    }
}

/// What every certificate has: dates around `now`, a serial number, and no name yet.
fn template(now: OffsetDateTime, days: i64) -> Result<CertificateParams, Error> {
    if now < EARLIEST {
        return Err(Error::Clock(now));
    }
    let mut params = CertificateParams::default();
    params.not_before = now.truncate_to_second() - BACKDATED;
    // Both ends count (RFC 5280 section 4.1.2.5), so that `days` later would be a second too long.
    params.not_after = params.not_before + Duration::days(days) - Duration::SECOND;
    params.serial_number = Some(serial()?);
    params.distinguished_name = DistinguishedName::new();
    Ok(params)
}

/// A random serial number of 128 bits: positive, and always of the same length.
fn serial() -> Result<SerialNumber, Error> {
    let [first, rest @ ..] = random::<16>()?;
    Ok(SerialNumber::from([&[first & 0x3f | 0x40], &rest[..]].concat()))
}

/// A subject with this common name, or the empty one if it is too long to be one; then the alternative names become
/// critical (RFC 5280 section 4.2.1.6).
fn subject(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if fits(common_name) {
        name.push(DnType::CommonName, common_name);
    }
    name
}

fn fits(common_name: &str) -> bool {
    common_name.chars().count() <= MAX_COMMON_NAME
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::identity::Identity;

    fn domain(text: &str) -> ServerName {
        ServerName::parse(text).expect("a domain")
    }

    fn parse(der: &[u8]) -> X509Certificate<'_> {
        X509Certificate::from_der(der).expect("a certificate").1
    }

    fn days(der: &[u8]) -> i64 {
        let validity = parse(der).validity().clone();
        // Both ends count.
        (validity.not_after.timestamp() - validity.not_before.timestamp() + 1) / 86_400
    }

    #[test]
    fn a_device_is_called_by_its_name_and_can_only_be_a_client() {
        let device = DeviceAuthority::new().expect("an authority").issue(&Name::parse("alice-phone").expect("a name"));
        let device = device.expect("a device");
        let identity = Identity::from_certificate(device.certificate(), true).expect("an identity");
        assert_eq!(identity.display_name(), "alice-phone");
        assert_eq!(identity.common_name.as_deref(), Some("alice-phone"));
        assert!(identity.issuer.starts_with("CN=Doorward devices "), "{}", identity.issuer);
        assert_eq!((&identity.dns_names, &identity.emails, &identity.uris), (&vec![], &vec![], &vec![]));

        let certificate = parse(device.certificate());
        let usage = certificate.extended_key_usage().expect("readable").expect("present").value;
        assert!(usage.client_auth && !usage.server_auth && !usage.any);
        let usage = certificate.key_usage().expect("readable").expect("present").value;
        assert!(usage.digital_signature() && !usage.key_cert_sign() && !usage.key_encipherment());
        assert!(!certificate.is_ca());
        assert_eq!(days(device.certificate()), DEVICE_DAYS);
    }

    #[test]
    fn a_server_certificate_is_for_the_domain_and_one_label_below() {
        let server = ServerAuthority::new(&domain("home.example")).expect("an authority").issue().expect("a server");
        let identity = Identity::from_certificate(server.certificate(), true).expect("an identity");
        assert_eq!(identity.dns_names, ["home.example", "*.home.example"]);
        let certificate = parse(server.certificate());
        let usage = certificate.extended_key_usage().expect("readable").expect("present").value;
        assert!(usage.server_auth && !usage.client_auth && !usage.any);
        assert_eq!(days(server.certificate()), SERVER_DAYS);
    }

    #[test]
    fn authorities_sign_nothing_but_what_they_are_for() {
        let servers = ServerAuthority::new(&domain("home.example")).expect("an authority");
        let devices = DeviceAuthority::new().expect("an authority");
        for (authority, signs_lists) in [(servers.authority(), false), (devices.authority(), true)] {
            let certificate = parse(authority.certificate());
            let constraints = certificate.basic_constraints().expect("readable").expect("present");
            assert!(constraints.critical && constraints.value.ca);
            assert_eq!(constraints.value.path_len_constraint, Some(0));
            let usage = certificate.key_usage().expect("readable").expect("present");
            assert!(usage.critical && usage.value.key_cert_sign());
            assert_eq!(usage.value.crl_sign(), signs_lists);
            assert_eq!(days(authority.certificate()), AUTHORITY_DAYS);
        }
        assert!(
            parse(servers.authority().certificate()).name_constraints().expect("readable").expect("there").critical
        );
    }

    #[test]
    fn what_strangers_are_shown_names_nobody() {
        let name = || {
            let devices = DeviceAuthority::new().expect("an authority");
            parse(devices.authority().certificate()).subject().to_string()
        };
        let (one, other) = (name(), name());
        let tag = one.strip_prefix("CN=Doorward devices ").expect("a fixed beginning");
        assert!(tag.len() == NAME_TAG && tag.bytes().all(|byte| NAME_ALPHABET.contains(&byte)), "{one}");
        assert_ne!(one, other, "two households");
    }

    #[test]
    fn serial_numbers_are_random_positive_and_as_long_as_promised() {
        let devices = DeviceAuthority::new().expect("an authority");
        let name = Name::parse("alice-phone").expect("a name");
        let (one, two) = (devices.issue(&name).expect("a device"), devices.issue(&name).expect("a device"));
        assert_ne!(one.serial(), two.serial());
        for device in [&one, &two] {
            assert_eq!(parse(device.certificate()).raw_serial(), device.serial());
            assert_eq!(device.serial().len(), 16);
            assert!(device.serial()[0] & 0x80 == 0, "a negative number");
        }
    }

    #[test]
    fn nothing_is_issued_for_longer_than_its_authority_lasts() {
        let mut devices = DeviceAuthority::new().expect("an authority");
        devices.authority.not_after = OffsetDateTime::now_utc() + Duration::days(30);
        let device = devices.issue(&Name::parse("alice-phone").expect("a name")).expect("a device");
        assert_eq!(days(device.certificate()), 30);
    }

    #[test]
    fn a_domain_too_long_for_a_common_name_stands_in_the_alternative_names_alone() {
        let long = format!("{}.{}.example", "a".repeat(60), "b".repeat(60));
        let servers = ServerAuthority::new(&domain(&long)).expect("an authority");
        let subject = parse(servers.authority().certificate()).subject().to_string();
        assert!(subject.starts_with("CN=Doorward ") && subject.len() == "CN=Doorward ".len() + NAME_TAG, "{subject}");
        let server = servers.issue().expect("a server");
        let certificate = parse(server.certificate());
        assert_eq!(certificate.subject().to_string(), "");
        assert!(certificate.subject_alternative_name().expect("readable").expect("present").critical);
    }

    #[test]
    fn a_revocation_list_that_is_out_of_date_from_the_start_is_not_made() {
        let devices = DeviceAuthority::new().expect("an authority");
        assert!(devices.authority().revocation_list(&[], 1, OffsetDateTime::now_utc() - Duration::minutes(1)).is_err());
        assert!(devices.authority().revocation_list(&[], 1, OffsetDateTime::now_utc() + Duration::minutes(1)).is_ok());
    }

    #[test]
    fn a_clock_that_is_years_behind_signs_nothing() {
        assert!(matches!(template(OffsetDateTime::UNIX_EPOCH, 10), Err(Error::Clock(_))));
        let mut devices = DeviceAuthority::new().expect("an authority");
        devices.authority.not_before = OffsetDateTime::now_utc() + Duration::days(30);
        assert!(matches!(devices.issue(&Name::parse("a").expect("a name")), Err(Error::Clock(_))));
        let list = devices.authority().revocation_list(&[], 1, OffsetDateTime::now_utc() + Duration::days(60));
        assert!(matches!(list, Err(Error::Clock(_))));
    }

    #[test]
    fn debug_output_holds_no_key() {
        let devices = DeviceAuthority::new().expect("an authority");
        let device = devices.issue(&Name::parse("alice-phone").expect("a name")).expect("a device");
        let text = format!("{devices:?} {device:?}");
        assert!(text.len() < 300 && !text.to_lowercase().contains("key"), "{text}");
    }

    #[test]
    fn a_signature_counts_only_by_the_algorithm_that_the_certificate_names() {
        let key = KeyPair::generate().expect("a key");
        let made = CertificateParams::new(vec!["a.example".to_owned()]).expect("a name").self_signed(&key);
        let made = made.expect("a certificate").der().clone();
        let signed = |der: &[u8]| {
            let (_, certificate) = X509Certificate::from_der(der).expect("a certificate");
            has_signed(&made, &certificate)
        };
        assert!(signed(&made));
        // The last byte of ecdsa-with-SHA256 where it is not signed itself: behind what is signed.
        const SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
        let at = made.windows(SHA256.len()).rposition(|bytes| bytes == SHA256).expect("an algorithm");
        let mut other = made.to_vec();
        other[at + SHA256.len() - 1] = 0x03;
        assert!(!signed(&other), "said to be by SHA-384");
    }
}
