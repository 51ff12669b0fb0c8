//! An X.509 certification authority: signs certificates and revocation lists (RFC 5280). Policy is in [`crate::ca`].

mod issued;
mod name;
mod revocation;
mod signed_by;

pub use issued::{IssuedCertificate, IssuedCredentials};
pub(crate) use name::{distinguished_name, fits_common_name, subject};
pub use revocation::{Revocation, RevocationReason};
pub use signed_by::{has_signed, has_signed_list};

use std::fmt;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, IsCa, Issuer, KeyIdMethod,
    KeyPair, KeyUsagePurpose, PublicKeyData, SerialNumber,
};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use time::macros::datetime;
use time::{Duration, OffsetDateTime};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use super::{Error, keys, pem, random};
use crate::model::names::ServerName;

/// How far `notBefore` is set back, so that a phone whose clock is slow accepts a new certificate.
const BACKDATED: Duration = Duration::hours(1);

/// A clock before this date is wrong: a machine without a battery starts in 1970, and what it signs then has expired once
/// the clock is set.
const EARLIEST: OffsetDateTime = datetime!(2026-01-01 0:00 UTC);

/// How long a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// So many days from its `notBefore`, which is set back: what clients count.
    Days(i64),
    /// So long from now.
    FromNow(Duration),
}

/// A certificate with its key, which signs other certificates and revocation lists.
pub struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
    signs_lists: bool,
    domain: Option<ServerName>,
}

impl Authority {
    /// A new self-signed authority, valid for `days`. `restrict` adds to its certificate what it is limited to.
    pub(crate) fn self_signed(
        key: KeyPair,
        common_name: &str,
        days: i64,
        restrict: impl FnOnce(&mut CertificateParams),
    ) -> Result<Self, Error> {
        let mut params = template(OffsetDateTime::now_utc(), days)?;
        params.distinguished_name = subject(common_name);
        // No intermediate authority below this one: it signs end-entity certificates only.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        restrict(&mut params);
        let certificate = params.self_signed(&key)?;
        Self::from_parts(certificate.into(), key)
    }

    /// An existing authority, ours or not: its certificate and the private key of this certificate.
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
        // rcgen refuses to sign lists for an issuer whose key usage lacks cRLSign. mkcert's roots lack it, and rustls, which
        // reads the list, accepts them: the user is warned instead (`signs_lists`).
        params.key_usages = Vec::new();
        let usage = parsed.key_usage().ok().flatten();
        let validity = parsed.validity();
        let (not_before, not_after) = (validity.not_before.to_datetime(), validity.not_after.to_datetime());
        let signs_lists = usage.is_none_or(|usage| usage.value.crl_sign());
        let domain = permitted_domain(&parsed);
        let issuer = Issuer::new(params, key);
        let authority = Self { issuer, not_before, not_after, signs_lists, domain, certificate };
        authority.check_issuer_name()?;
        Ok(authority)
    }

    /// Fails unless the issuer name in what it signs equals its subject byte for byte. RFC 5280 section 7.1 allows looser
    /// comparisons, which many readers do not make; a name with several attributes in one component cannot be written back.
    fn check_issuer_name(&self) -> Result<(), Error> {
        let list = self.revocation_list(&[], 1, OffsetDateTime::now_utc() + Duration::DAY)?;
        let (_, list) = x509_parser::parse_x509_crl(&list).map_err(|_| Error::NotAnAuthority)?;
        let (_, own) = X509Certificate::from_der(&self.certificate).map_err(|_| Error::NotAnAuthority)?;
        if list.issuer().as_raw() == own.subject().as_raw() { Ok(()) } else { Err(Error::NotAnAuthority) }
    }

    /// An end-entity certificate for `key`, valid for so long, or for less if the authority expires first. `describe` adds
    /// subject, alternative names and extended key usage.
    pub(crate) fn sign(
        &self,
        lifetime: Lifetime,
        key: &impl PublicKeyData,
        describe: impl FnOnce(&mut CertificateParams),
    ) -> Result<IssuedCertificate, Error> {
        let now = self.now()?;
        let mut params = match lifetime {
            Lifetime::Days(days) => template(now, days)?,
            Lifetime::FromNow(time) => {
                let mut params = template(now, 1)?;
                params.not_after = now.truncate_to_second() + time;
                params
            }
        };
        // No client accepts it for longer than its issuer.
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
        Ok(IssuedCertificate { certificate, serial, not_before: params.not_before, not_after: params.not_after })
    }

    /// A revocation list (RFC 5280 section 5). `number` must be larger than that of the previous list (section 5.2.3).
    ///
    /// After `next_update` the gate rejects every device if its configuration says `expired_revocation_list = "deny"`.
    ///
    /// # Errors
    /// If `next_update` is not in the future.
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

    /// The current time. Fails if the clock is earlier than the authority's `notBefore`, which means that it is wrong.
    fn now(&self) -> Result<OffsetDateTime, Error> {
        let now = OffsetDateTime::now_utc();
        if now < self.not_before { Err(Error::Clock(now)) } else { Ok(now) }
    }

    /// The authority key identifier for its lists (RFC 5280 section 5.2.1): the subject key identifier of its certificate.
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

    /// Whether its key usage allows signing revocation lists. OpenSSL rejects lists of an authority without it.
    pub const fn signs_lists(&self) -> bool {
        self.signs_lists
    }

    /// The domain that its name constraints limit it to, if there is exactly one.
    pub const fn domain(&self) -> Option<&ServerName> {
        self.domain.as_ref()
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

fn subject_key_identifier(certificate: &X509Certificate<'_>) -> Option<Vec<u8>> {
    use x509_parser::extensions::ParsedExtension;
    certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
        _ => None,
    })
}

/// The domain permitted by the name constraints, if there is exactly one.
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

/// What every certificate has: validity and serial number; no subject yet.
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

#[cfg(test)]
mod tests;
