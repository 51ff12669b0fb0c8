//! The public certificate of a configuration.

use super::checked::{CertificateSource, Config, RouteMode};
use crate::model::identity::Identity;
use crate::model::public_certificate::{IssuedCertificate, PublicCertificate};

/// What is shown as the public certificate; `None` if the configuration wants none.
pub fn public_certificate(config: &Config) -> Option<PublicCertificate> {
    let acme = config.acme.as_ref()?;
    let certificates = config.served().filter_map(|route| match &route.mode {
        RouteMode::Terminate(terminate) => Some(&terminate.certificate),
        RouteMode::Passthrough => None,
    });
    let shown = certificates.into_iter().find(|certificate| certificate.source != CertificateSource::Files)?;
    let leaf = shown.certified_key.cert.first().filter(|_| shown.source == CertificateSource::Acme);
    let leaf = leaf.and_then(|leaf| Identity::from_certificate(leaf, false).ok());
    Some(PublicCertificate {
        names: acme.names.iter().cloned().collect(),
        file: shown.chain_file.display().to_string(),
        issued: leaf.map(|leaf| IssuedCertificate {
            not_before: leaf.not_before,
            not_after: leaf.not_after,
            lacks: not_covered(acme.names.iter(), &leaf.dns_names),
            issuer: leaf.issuer,
        }),
    })
}

/// The names that a certificate for `dns_names` is not valid for (RFC 6125 section 6.4.3).
pub(super) fn not_covered<'a>(names: impl Iterator<Item = &'a String>, dns_names: &[String]) -> Vec<String> {
    let covers = |name: &str| {
        let wildcard = name.split_once('.').map(|(_, parent)| format!("*.{parent}"));
        dns_names
            .iter()
            .any(|dns| dns.eq_ignore_ascii_case(name) || wildcard.as_ref().is_some_and(|w| dns.eq_ignore_ascii_case(w)))
    };
    names.filter(|name| !covers(name)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcard_covers_one_label() {
        let names = ["nas.home.example", "a.nas.home.example", "home.example"].map(str::to_owned);
        let lacks =
            |dns: &[&str]| not_covered(names.iter(), &dns.iter().map(|dns| (*dns).to_owned()).collect::<Vec<_>>());
        assert_eq!(lacks(&["*.home.EXAMPLE"]), ["a.nas.home.example", "home.example"]);
        assert_eq!(lacks(&["Nas.home.example", "home.example", "*.nas.home.example"]), [] as [&str; 0]);
        assert_eq!(lacks(&[]).len(), 3);
    }
}
