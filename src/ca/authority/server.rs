//! The authority that signs the gate's certificates.

use rcgen::{CidrSubnet, ExtendedKeyUsagePurpose, GeneralSubtree, KeyPair, NameConstraints, PublicKeyData, SanType};

use super::{AUTHORITY_DAYS, SERVER_DAYS, unique_name};
use crate::model::names::{ServerName, ServerNamePattern};
use crate::pki::keys::KeyType;
use crate::pki::{Authority, Error, IssuedCertificate, IssuedCredentials, Lifetime, fits_common_name, subject};

/// Whether the server authority's certificate carries name constraints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameConstraintPolicy {
    /// Critical name constraints limit it to its domain.
    Domain,
    /// None, for clients that cannot read them (Mbed TLS). A stolen key can then impersonate any site to every device that
    /// trusts the authority.
    Unrestricted,
}

/// Signs the gate's certificates. Devices trust it, so it is limited to one domain.
#[derive(Debug)]
pub struct ServerAuthority {
    authority: Authority,
    domain: ServerName,
}

impl ServerAuthority {
    /// A new authority for `domain` and every name below it, with a key of the default type.
    pub fn new(domain: &ServerName) -> Result<Self, Error> {
        Self::with_key(domain, KeyType::default().generate()?, NameConstraintPolicy::Domain)
    }

    /// A new authority for `domain` and every name below it.
    ///
    /// [`NameConstraintPolicy::Domain`] adds critical name constraints (RFC 5280 section 4.2.1.10): DNS names and mail
    /// addresses of `domain` are permitted (a kind of name that is not mentioned would not be limited), IP addresses are
    /// excluded. The extended key usage is `serverAuth`: no code signing, mail or client authentication. A stolen key can
    /// impersonate the gate and no other site.
    pub fn with_key(domain: &ServerName, key: KeyPair, constraints: NameConstraintPolicy) -> Result<Self, Error> {
        // People see the common name in their phone's list of roots (iOS lists only roots that have one). Naming the domain
        // reveals nothing: the server certificate, which every client is sent, names it too.
        let named = unique_name(&format!("Doorward {domain}"))?;
        let common_name = if fits_common_name(&named) { named } else { unique_name("Doorward")? };
        let authority = Authority::self_signed(key, &common_name, AUTHORITY_DAYS, |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            if constraints == NameConstraintPolicy::Unrestricted {
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

    /// A certificate for the domain and every name one label below it, with a key of the default type.
    pub fn issue(&self) -> Result<IssuedCredentials, Error> {
        let key = KeyType::default().generate()?;
        Ok(IssuedCredentials::new(certify_server(&self.authority, &default_names(&self.domain), &key)?, key))
    }

    /// Certificate and key of the authority.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }
}

/// The names of a server certificate unless others are asked for: the domain, and every name one label below it.
pub fn default_names(domain: &ServerName) -> Vec<ServerNamePattern> {
    vec![ServerNamePattern::Exact(domain.clone()), ServerNamePattern::Wildcard(domain.clone())]
}

/// A certificate that binds `key` to the server of these names. The first one is its common name.
pub fn certify_server(
    authority: &Authority,
    names: &[ServerNamePattern],
    key: &impl PublicKeyData,
) -> Result<IssuedCertificate, Error> {
    let alternative =
        names.iter().map(|name| Ok(SanType::DnsName(name.to_string().try_into()?))).collect::<Result<_, Error>>()?;
    authority.sign(Lifetime::Days(SERVER_DAYS), key, |params| {
        params.distinguished_name = subject(&names.first().map(ToString::to_string).unwrap_or_default());
        params.subject_alt_names = alternative;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    })
}
