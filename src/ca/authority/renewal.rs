//! The authority that renews device certificates without the owner.

use rcgen::{CustomExtension, ExtendedKeyUsagePurpose, KeyPair, PublicKeyData};
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::X509Extension;
use x509_parser::oid_registry::{OID_X509_EXT_CRL_DISTRIBUTION_POINTS, OID_X509_EXT_SUBJECT_ALT_NAME};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{RENEWAL_AUTHORITY_DAYS, unique_name};
use crate::model::identity::{Identity, Origin};
use crate::pki::keys::KeyType;
use crate::pki::{Authority, Error, IssuedCertificate, Lifetime, distinguished_name, origin};

/// `id-ce-subjectAltName`, as rcgen takes it.
const SUBJECT_ALT_NAME: &[u64] = &[2, 5, 29, 17];

/// Renews device certificates on the gate's machine. It signs nothing but what [descends](Origin) from a certificate of the device
/// authority, and a gate takes nothing else from it.
///
/// It is no authority below the device authority, which has path length 0 and signs devices alone: other programs
/// than this gate that trust that one would then trust this key with devices of any name.
#[derive(Debug)]
pub struct RenewalAuthority {
    authority: Authority,
}

/// Why a certificate is not renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotRenewable {
    /// Its names cannot be written as they are.
    #[error("its names cannot be written again as they are")]
    Names,
    /// It is limited to routes.
    #[error("it is a guest pass")]
    GuestPass,
    /// It says where its revocation list is.
    #[error("it says where the revocation list of its authority is, and a renewed one has another authority")]
    DistributionPoints,
    /// The new one would not be valid for longer.
    #[error("a new one would not be valid for longer than it is")]
    NotLonger,
}

impl RenewalAuthority {
    /// How the common name begins. As that of the device authority, it names neither host nor person.
    pub const COMMON_NAME: &str = "Doorward renewals";

    /// A new authority, with a key of the default type. It cannot sign revocation lists: those of the device authority count.
    pub fn new() -> Result<Self, Error> {
        Self::with_key(KeyType::default().generate()?)
    }

    fn with_key(key: KeyPair) -> Result<Self, Error> {
        let name = unique_name(Self::COMMON_NAME)?;
        let authority = Authority::self_signed(key, &name, RENEWAL_AUTHORITY_DAYS, |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        })?;
        Ok(Self { authority })
    }

    /// Certificate and key of the authority.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }
}

/// A certificate for `key` with the very names of `before`, valid for so many days or until the authority expires. Of anything else in
/// `before`, and of what the device has asked for, nothing is taken over.
pub fn certify_renewed(
    authority: &Authority,
    before: &CertificateDer<'_>,
    key: &impl PublicKeyData,
    origin: &Origin,
    days: u16,
) -> Result<Result<IssuedCertificate, NotRenewable>, Error> {
    let (_, read) = X509Certificate::from_der(before).map_err(|_| Error::NotACertificate)?;
    if find(&read, &OID_X509_EXT_CRL_DISTRIBUTION_POINTS).is_some() {
        return Ok(Err(NotRenewable::DistributionPoints));
    }
    if Identity::from_certificate(before, false).is_ok_and(|identity| identity.guest_pass.is_some()) {
        return Ok(Err(NotRenewable::GuestPass));
    }
    let Some(subject) = distinguished_name(read.subject()) else { return Ok(Err(NotRenewable::Names)) };
    let alternative = find(&read, &OID_X509_EXT_SUBJECT_ALT_NAME).map(|extension| {
        let mut own = CustomExtension::from_oid_content(SUBJECT_ALT_NAME, extension.value.to_vec());
        own.set_criticality(extension.critical);
        own
    });
    let issued = authority.sign(Lifetime::Days(i64::from(days)), key, |params| {
        params.distinguished_name = subject;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.custom_extensions = alternative.into_iter().chain([origin::extension(origin)]).collect();
    })?;
    if issued.not_after().unix_timestamp() <= read.validity().not_after.timestamp() {
        return Ok(Err(NotRenewable::NotLonger));
    }
    let (_, new) = X509Certificate::from_der(issued.certificate()).map_err(|_| Error::NotACertificate)?;
    // rcgen may write a name in another way, or leave out one of two of a kind.
    let names = |one: &X509Certificate<'_>| {
        let alternative = find(one, &OID_X509_EXT_SUBJECT_ALT_NAME).map(|extension| extension.value.to_vec());
        (one.subject().as_raw().to_vec(), alternative)
    };
    if names(&read) != names(&new) {
        return Ok(Err(NotRenewable::Names));
    }
    drop(new);
    Ok(Ok(issued))
}

fn find<'a, 'b>(
    certificate: &'b X509Certificate<'a>,
    id: &x509_parser::der_parser::Oid<'_>,
) -> Option<&'b X509Extension<'a>> {
    certificate.extensions().iter().find(|extension| extension.oid == *id)
}

#[cfg(test)]
mod tests {
    use rcgen::string::Ia5String;
    use rcgen::{CertificateParams, DnType, IsCa, SanType};

    use super::*;
    use crate::ca::DeviceAuthority;
    use crate::ca::authority::{Guest, certify_device};
    use crate::model::device_name::DeviceName;
    use crate::model::identity::{GuestPass, Serial, Sha256};
    use crate::pki::Parts;

    fn origin_of(certificate: &CertificateDer<'_>) -> Origin {
        Origin {
            authority: Sha256::of(b"the key of the authority"),
            serial: Serial::from_be_bytes(&[7]),
            fingerprint: Sha256::of(certificate),
        }
    }

    fn params(days: i64) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.not_after = time::OffsetDateTime::now_utc() + time::Duration::days(days);
        params
    }

    fn renewed(before: &CertificateDer<'_>, key: &KeyPair, days: u16) -> Result<CertificateDer<'static>, NotRenewable> {
        let renewals = RenewalAuthority::new().expect("an authority");
        let issued = certify_renewed(renewals.authority(), before, key, &origin_of(before), days).expect("signed");
        issued.map(|issued| issued.certificate().clone())
    }

    #[test]
    fn names_stay_and_nothing_else_is_taken_over() {
        let key = KeyPair::generate().expect("a key");
        let mut wanted = params(1);
        wanted.distinguished_name = rcgen::DistinguishedName::new();
        wanted.distinguished_name.push(DnType::CommonName, "alice laptop");
        wanted.distinguished_name.push(DnType::OrganizationalUnitName, "family");
        wanted.subject_alt_names = vec![
            SanType::Rfc822Name(Ia5String::try_from("alice@home.example").expect("an address")),
            SanType::DnsName(Ia5String::try_from("laptop.home.example").expect("a name")),
        ];
        wanted.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        wanted.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let before: CertificateDer<'_> = wanted.self_signed(&key).expect("a certificate").into();
        let new = renewed(&before, &key, 30).expect("renewed");
        let [old_identity, identity] =
            [&before, &new].map(|der| Identity::from_certificate(der, true).expect("an identity"));
        assert_eq!(identity.emails, old_identity.emails);
        assert_eq!(identity.dns_names, old_identity.dns_names);
        assert_eq!(identity.common_name.as_deref(), Some("alice laptop"));
        assert_eq!((identity.organizational_units, identity.spki), (vec!["family".to_owned()], old_identity.spki));
        let (_, read) = X509Certificate::from_der(&new).expect("a certificate");
        assert!(!read.is_ca());
        let usage = read.extended_key_usage().expect("readable").expect("there").value;
        assert!(usage.client_auth && !usage.server_auth);
        let parts = Parts::read(&new).expect("a certificate");
        assert_eq!(origin::of(&parts), Ok(origin_of(&before)));
        assert_eq!((identity.not_after - identity.not_before + 1) / 86_400, 30);
    }

    #[test]
    fn what_cannot_be_written_again_or_has_limits_is_not_renewed() {
        let key = KeyPair::generate().expect("a key");
        let devices = DeviceAuthority::new().expect("an authority");
        let name = DeviceName::parse("guest").expect("a name");
        let pass = GuestPass::of_names(&["nas".to_owned()]).expect("a pass");
        let guest = Guest { pass, lifetime: time::Duration::HOUR };
        let pass = certify_device(devices.authority(), &name, &key, Some(&guest)).expect("signed");
        assert_eq!(renewed(pass.certificate(), &key, 30).err(), Some(NotRenewable::GuestPass));
        let mut points = params(1);
        points.crl_distribution_points =
            vec![rcgen::CrlDistributionPoint { uris: vec!["http://home.example/list.crl".to_owned()] }];
        let points: CertificateDer<'_> = points.self_signed(&key).expect("a certificate").into();
        assert_eq!(renewed(&points, &key, 30).err(), Some(NotRenewable::DistributionPoints));
        let long: CertificateDer<'_> = params(31).self_signed(&key).expect("a certificate").into();
        assert_eq!(renewed(&long, &key, 30).err(), Some(NotRenewable::NotLonger));
        assert!(renewed(&long, &key, 33).is_ok());
    }

    #[test]
    fn authority_signs_neither_authorities_nor_lists_and_lasts_two_years() {
        let renewals = RenewalAuthority::new().expect("an authority");
        let (_, read) = X509Certificate::from_der(renewals.authority().certificate()).expect("a certificate");
        let constraints = read.basic_constraints().expect("readable").expect("there");
        assert_eq!((constraints.value.ca, constraints.value.path_len_constraint), (true, Some(0)));
        assert!(!renewals.authority().signs_lists());
        let validity = read.validity();
        assert_eq!((validity.not_after.timestamp() - validity.not_before.timestamp() + 1) / 86_400, 730);
        // A device gets no more than the authority has left.
        let key = KeyPair::generate().expect("a key");
        let old: CertificateDer<'_> = params(1).self_signed(&key).expect("a certificate").into();
        let issued = certify_renewed(renewals.authority(), &old, &key, &origin_of(&old), 2000).expect("signed");
        assert_eq!(issued.expect("renewed").not_after(), renewals.authority().not_after());
    }
}
