//! Public authorities: those that issue certificates to everyone.
//!
//! One of them in `trust` would admit everyone who can get a certificate, so it is recognised, without the network: by the
//! system's bundle of roots, by its name, and by what such authorities write into certificates.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::model::identity::{Sha256, text};

/// The system's bundle of roots, in different distributions.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
];

/// Folders for roots that the user adds, as `mkcert -install` does. They are in the bundle as well.
const ADDED: [&str; 3] = [
    "/usr/local/share/ca-certificates",
    "/etc/pki/ca-trust/source/anchors",
    "/etc/ca-certificates/trust-source/anchors",
];

/// Organizations of public authorities, for intermediates, which are in no bundle.
const ORGANIZATIONS: [&str; 30] = [
    "Actalis S.p.A.",
    "Amazon",
    "Asseco Data Systems S.A.",
    "Buypass AS-983163327",
    "Certainly",
    "COMODO CA Limited",
    "DigiCert Inc",
    "DigiCert, Inc.",
    "D-Trust GmbH",
    "Entrust, Inc.",
    "GlobalSign",
    "GlobalSign nv-sa",
    "GoDaddy.com, Inc.",
    "Google Trust Services",
    "Google Trust Services LLC",
    "Hellenic Academic and Research Institutions CA",
    "IdenTrust",
    "Internet Security Research Group",
    "Let's Encrypt",
    "Microsoft Corporation",
    "QuoVadis Limited",
    "Sectigo Limited",
    "SSL Corporation",
    "Starfield Technologies, Inc.",
    "SwissSign AG",
    "Telia Company AB",
    "TrustAsia Technologies, Inc.",
    "The USERTRUST Network",
    "Unizeto Technologies S.A.",
    "ZeroSSL",
];

/// The policies of the CA/Browser Forum for servers and e-mail: 2.23.140.1 and what is below.
const FORUM_POLICIES: &str = "2.23.140.1.";

/// `id-ad-caIssuers` (RFC 5280 section 4.2.2.1).
const CA_ISSUERS: &str = "1.3.6.1.5.5.7.48.2";

/// The system's roots without those that the user added, by name and key.
static SYSTEM: LazyLock<HashSet<Sha256>> = LazyLock::new(|| {
    let own: HashSet<Sha256> =
        ADDED.iter().flat_map(|folder| files_in(Path::new(folder))).flat_map(|file| roots(&file)).collect();
    let system = BUNDLES.iter().map(Path::new).find_map(|bundle| fs::read(bundle).ok()).unwrap_or_default();
    roots(&system).difference(&own).copied().collect()
});

fn files_in(folder: &Path) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| fs::read(entry.path()).ok()).collect()
}

fn roots(pem: &[u8]) -> HashSet<Sha256> {
    let certificates = CertificateDer::pem_slice_iter(pem).flatten();
    certificates
        .filter_map(|der| X509Certificate::from_der(&der).ok().map(|(_, root)| by_name_and_key(&root)))
        .collect()
}

/// By name and key, so that a root renewed with the same key is recognised.
fn by_name_and_key(certificate: &X509Certificate<'_>) -> Sha256 {
    Sha256::of(&[certificate.subject().as_raw(), certificate.public_key().raw].concat())
}

/// Whether this is a public authority: one of the system's roots, or one with the name of such an organization.
pub fn is_public(authority: &X509Certificate<'_>) -> bool {
    let named = |name: &x509_parser::x509::X509Name<'_>| {
        name.iter_organization().any(|value| ORGANIZATIONS.contains(&&*text::attribute(value)))
    };
    named(authority.subject()) || named(authority.issuer()) || SYSTEM.contains(&by_name_and_key(authority))
}

/// Whether a certificate looks like one that a public authority issued: it has a URL of its issuer, proofs of Certificate
/// Transparency, or a policy of the CA/Browser Forum.
pub fn is_publicly_issued(certificate: &X509Certificate<'_>) -> bool {
    certificate.extensions().iter().any(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityInfoAccess(access) => {
            access.accessdescs.iter().any(|one| one.access_method.to_id_string() == CA_ISSUERS)
        }
        ParsedExtension::CertificatePolicies(policies) => {
            policies.iter().any(|policy| policy.policy_id.to_id_string().starts_with(FORUM_POLICIES))
        }
        ParsedExtension::SCT(_) => true,
        _ => false,
    })
}

/// Whether a server certificate comes from a public authority. Their roots sign no servers, so clients need the
/// intermediate.
pub fn needs_intermediate(server: &X509Certificate<'_>) -> bool {
    let own = server.subject().as_raw() == server.issuer().as_raw();
    !server.is_ca() && !own && (is_publicly_issued(server) || is_public(server))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority(organization: &str) -> Vec<u8> {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, organization);
        params.self_signed(&rcgen::KeyPair::generate().expect("a key")).expect("a certificate").der().to_vec()
    }

    #[test]
    fn public_authorities_are_recognised_by_organization() {
        for (organization, public) in [("Let's Encrypt", true), ("mkcert development CA", false), ("Home", false)] {
            let der = authority(organization);
            let (_, certificate) = X509Certificate::from_der(&der).expect("a certificate");
            assert_eq!(is_public(&certificate), public, "{organization}");
            assert!(!is_publicly_issued(&certificate), "{organization}");
        }
    }
}
