//! The two authorities and what they issue (RFC 5280).

use std::fmt;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, CidrSubnet,
    DistinguishedName, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose,
    NameConstraints, RevocationReason, RevokedCertParams, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};

use super::{Error, random};
use crate::names::{Name, ServerName};

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

/// The longest common name (`ub-common-name`, RFC 5280 appendix A.1), in characters.
const MAX_COMMON_NAME: usize = 64;

/// A self-signed certificate with its key (ECDSA P-256), which other certificates are signed with.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    not_after: OffsetDateTime,
}

impl Authority {
    fn new(common_name: &str, restrict: impl FnOnce(&mut CertificateParams)) -> Result<Self, Error> {
        let mut params = template(OffsetDateTime::now_utc(), AUTHORITY_DAYS)?;
        params.distinguished_name = subject(common_name);
        // No authority below this one: what it signs are certificates of servers or devices, nothing else.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        restrict(&mut params);
        let not_after = params.not_after;
        Ok(Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)?, not_after })
    }

    fn issue(&self, days: i64, describe: impl FnOnce(&mut CertificateParams)) -> Result<Issued, Error> {
        let mut params = template(OffsetDateTime::now_utc(), days)?;
        // No client accepts it for longer than its issuer, so it does not say otherwise.
        params.not_after = params.not_after.min(self.not_after);
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        describe(&mut params);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let serial = params.serial_number.map(|serial| serial.to_bytes()).unwrap_or_default();
        Ok(Issued { certificate, key, serial, not_after: params.not_after })
    }

    /// The certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        self.issuer.der()
    }

    /// The certificate as PEM.
    pub fn certificate_pem(&self) -> String {
        self.issuer.pem()
    }

    /// The private key as PEM (PKCS#8, not encrypted).
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// When it expires.
    pub fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

/// Vouches for the gate. Devices trust it, so it can vouch for nothing but one domain.
#[derive(Debug)]
pub struct ServerAuthority {
    authority: Authority,
    domain: ServerName,
}

impl ServerAuthority {
    /// A new authority for `domain` and every name below it.
    ///
    /// The certificate carries critical name constraints (RFC 5280 section 4.2.1.10): `domain` is permitted, and IP
    /// addresses, which a permitted domain says nothing about, are excluded. Whoever steals its key can impersonate
    /// the gate and no other site.
    pub fn new(domain: &ServerName) -> Result<Self, Error> {
        // The domain is in the name because people meet it in their phone's list of roots (iOS shows only those that
        // have a common name). Whoever connects reads it as the issuer of a certificate that says the domain anyway.
        let named = format!("Doorward {domain}");
        let common_name = if fits(&named) { &named } else { "Doorward" };
        let authority = Authority::new(common_name, |params| {
            params.name_constraints = Some(NameConstraints {
                permitted_subtrees: vec![GeneralSubtree::DnsName(domain.to_string())],
                excluded_subtrees: vec![
                    GeneralSubtree::IpAddress(CidrSubnet::V4([0; 4], [0; 4])),
                    GeneralSubtree::IpAddress(CidrSubnet::V6([0; 16], [0; 16])),
                ],
            });
        })?;
        Ok(Self { authority, domain: domain.clone() })
    }

    /// A certificate for the domain itself and every name one label below it.
    pub fn issue(&self) -> Result<Issued, Error> {
        let names = vec![
            SanType::DnsName(self.domain.as_str().try_into()?),
            SanType::DnsName(format!("*.{}", self.domain).try_into()?),
        ];
        self.authority.issue(SERVER_DAYS, |params| {
            params.distinguished_name = subject(self.domain.as_str());
            params.subject_alt_names = names;
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        })
    }

    /// Certificate and key of the authority itself.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }
}

/// Vouches for devices. Only the gate trusts it.
#[derive(Debug)]
pub struct DeviceAuthority {
    authority: Authority,
}

impl DeviceAuthority {
    /// The common name. A gate tells its trust anchors' names to every stranger who begins a handshake (the
    /// `certificate_authorities` of RFC 8446 section 4.2.4), so this one names no host, user or domain.
    pub const COMMON_NAME: &str = "Doorward devices";

    /// A new authority.
    ///
    /// Its extended key usage is `clientAuth`: should somebody install this file in a phone instead of the server
    /// authority's, which is the one to install, it still vouches for no web site.
    pub fn new() -> Result<Self, Error> {
        let authority = Authority::new(Self::COMMON_NAME, |params| {
            // OpenSSL refuses revocation lists of an authority that does not claim to sign any.
            params.key_usages.push(KeyUsagePurpose::CrlSign);
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        })?;
        Ok(Self { authority })
    }

    /// A certificate for the device called `name`.
    ///
    /// The name is the common name, and there are no alternative names: `alice-phone` is no host name, e-mail address
    /// or URI, and a certificate that can pass for no host cannot be used to play one. In the configuration the
    /// bare word `alice-phone` and `cn:alice-phone` both mean it.
    pub fn issue(&self, name: &Name) -> Result<Issued, Error> {
        self.authority.issue(DEVICE_DAYS, |params| {
            params.distinguished_name = subject(name.as_str());
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        })
    }

    /// A list of certificates that are no longer to be accepted (RFC 5280 section 5), which says of itself that
    /// another one follows before `next_update`.
    ///
    /// A list older than that locks every device out if the configuration says `expired_revocation_list = "deny"`.
    /// Fails if `next_update` is not in the future.
    pub fn revocation_list(
        &self,
        revoked: &[Revocation],
        next_update: OffsetDateTime,
    ) -> Result<CertificateRevocationListDer<'static>, Error> {
        let now = OffsetDateTime::now_utc();
        let list = CertificateRevocationListParams {
            this_update: now - BACKDATED,
            next_update,
            // Numbers must grow from list to list (RFC 5280 section 5.2.3), and time does.
            crl_number: SerialNumber::from(now.unix_timestamp().unsigned_abs()),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(Revocation::params).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        if next_update <= now {
            return Err(Error::Sign(rcgen::Error::InvalidCrlNextUpdate));
        }
        Ok(list.signed_by(&self.authority.issuer)?.into())
    }

    /// Certificate and key of the authority itself.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }
}

/// A certificate that is no longer to be accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// Its serial number, most significant byte first.
    pub serial: Vec<u8>,
    /// Since when.
    pub at: OffsetDateTime,
}

impl Revocation {
    fn params(&self) -> RevokedCertParams {
        RevokedCertParams {
            serial_number: SerialNumber::from_slice(&self.serial),
            revocation_time: self.at,
            reason_code: Some(RevocationReason::KeyCompromise),
            invalidity_date: None,
        }
    }
}

/// A certificate of a server or a device, with its key (ECDSA P-256).
pub struct Issued {
    certificate: rcgen::Certificate,
    key: KeyPair,
    serial: Vec<u8>,
    not_after: OffsetDateTime,
}

impl Issued {
    /// The certificate. It is the whole chain, for its issuer is the trust anchor.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        self.certificate.der()
    }

    /// The certificate as PEM.
    pub fn certificate_pem(&self) -> String {
        self.certificate.pem()
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
        &self.serial
    }

    /// When it expires.
    pub fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

/// What every certificate has: dates around `now`, a serial number, and no name yet.
fn template(now: OffsetDateTime, days: i64) -> Result<CertificateParams, Error> {
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
    use x509_parser::prelude::{FromDer, X509Certificate};

    use super::*;
    use crate::identity::Identity;

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
        assert_eq!(identity.issuer, "CN=Doorward devices");
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
        let devices = DeviceAuthority::new().expect("an authority");
        assert_eq!(parse(devices.authority().certificate()).subject().to_string(), "CN=Doorward devices");
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
        assert_eq!(parse(servers.authority().certificate()).subject().to_string(), "CN=Doorward");
        let server = servers.issue().expect("a server");
        let certificate = parse(server.certificate());
        assert_eq!(certificate.subject().to_string(), "");
        assert!(certificate.subject_alternative_name().expect("readable").expect("present").critical);
    }

    #[test]
    fn a_revocation_list_that_is_out_of_date_from_the_start_is_not_made() {
        let devices = DeviceAuthority::new().expect("an authority");
        assert!(devices.revocation_list(&[], OffsetDateTime::now_utc() - Duration::minutes(1)).is_err());
        assert!(devices.revocation_list(&[], OffsetDateTime::now_utc() + Duration::minutes(1)).is_ok());
    }

    #[test]
    fn debug_output_holds_no_key() {
        let devices = DeviceAuthority::new().expect("an authority");
        let device = devices.issue(&Name::parse("alice-phone").expect("a name")).expect("a device");
        let text = format!("{devices:?} {device:?}");
        assert!(text.len() < 300 && !text.to_lowercase().contains("key"), "{text}");
    }
}
