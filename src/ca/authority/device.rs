//! The authority that signs device certificates.

use rcgen::string::Ia5String;
use rcgen::{ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, PublicKeyData, SanType};
use time::Duration;

use super::{AUTHORITY_DAYS, DEVICE_DAYS, unique_name};
use crate::model::device_name::DeviceName;
use crate::model::identity::GuestPass;
use crate::pki::keys::KeyType;
use crate::pki::{Authority, Error, IssuedCertificate, IssuedCredentials, Lifetime, subject};

/// Signs device certificates. Only the gate trusts it.
#[derive(Debug)]
pub struct DeviceAuthority {
    authority: Authority,
}

impl DeviceAuthority {
    /// How the common name begins. The gate sends its trust anchors' names to every client (`certificate_authorities`,
    /// RFC 8446 section 4.2.4), so this one contains no host, user or domain name.
    pub const COMMON_NAME: &str = "Doorward devices";

    /// A new authority, with a key of the default type.
    pub fn new() -> Result<Self, Error> {
        Self::with_key(KeyType::default().generate()?)
    }

    /// A new authority.
    ///
    /// Its extended key usage is `clientAuth`: if this certificate is installed on a phone by mistake, instead of the server
    /// authority's, it still vouches for no web site.
    pub fn with_key(key: KeyPair) -> Result<Self, Error> {
        let authority = Authority::self_signed(key, &unique_name(Self::COMMON_NAME)?, AUTHORITY_DAYS, |params| {
            // OpenSSL rejects revocation lists of an authority without cRLSign.
            params.key_usages.push(KeyUsagePurpose::CrlSign);
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        })?;
        Ok(Self { authority })
    }

    /// A certificate for the device `name`, with a key of the default type.
    pub fn issue(&self, name: &DeviceName) -> Result<IssuedCredentials, Error> {
        let key = KeyType::default().generate()?;
        Ok(IssuedCredentials::new(certify_device(&self.authority, name, &key, None)?, key))
    }

    /// Certificate and key of the authority.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }
}

/// What makes the certificate of a device a guest pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    /// The routes it is for.
    pub pass: GuestPass,
    /// How long it is valid from now.
    pub lifetime: Duration,
}

/// A certificate that binds `key` to the device `name`.
///
/// The name is the common name, and there are no alternative names: a device name is no host name, and a certificate that
/// matches no host cannot be used to impersonate one. In the configuration, `alice-phone` and `cn:alice-phone` both match
/// it. A guest pass names the routes that it is for in addition.
pub fn certify_device(
    authority: &Authority,
    name: &DeviceName,
    key: &impl PublicKeyData,
    guest: Option<&Guest>,
) -> Result<IssuedCertificate, Error> {
    let mut routes = Vec::new();
    for uri in guest.iter().flat_map(|guest| guest.pass.uris()) {
        routes.push(SanType::URI(Ia5String::try_from(uri)?));
    }
    let lifetime = guest.map_or(Lifetime::Days(DEVICE_DAYS), |guest| Lifetime::FromNow(guest.lifetime));
    authority.sign(lifetime, key, |params| {
        params.distinguished_name = subject(name.as_str());
        params.subject_alt_names = routes;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    })
}
