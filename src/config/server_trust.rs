//! The certificates that the gate shows, and why devices trust them.

use std::collections::HashMap;
use std::path::Path;

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::checked::{Certificate, CertificateSource, Config, RouteMode};
use crate::model::identity::Identity;
use crate::model::names::is_wildcard_too_wide;
use crate::pki::public;

/// Why devices trust a certificate of the gate, and where it is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateKind {
    /// Devices must trust an authority of the owner's first. It is in files.
    OwnAuthority,
    /// The gate has ordered it from an ACME server. Devices trust it already.
    Public,
    /// The gate has none yet from the ACME server, and shows a temporary one, which no device trusts.
    Temporary,
    /// A public authority has issued it, and another program keeps it in files. Devices trust it already.
    PublicFiles,
}

impl CertificateKind {
    /// Every kind with its word in JSON.
    pub const WORDS: [(&str, Self); 4] = [
        ("own", Self::OwnAuthority),
        ("public", Self::Public),
        ("temporary", Self::Temporary),
        ("files", Self::PublicFiles),
    ];

    /// The kind of this certificate.
    pub fn of(certificate: &Certificate) -> Self {
        match certificate.source {
            CertificateSource::Acme => Self::Public,
            CertificateSource::Temporary => Self::Temporary,
            CertificateSource::Files => {
                let leaf = certificate.certified_key.cert.first().and_then(|der| X509Certificate::from_der(der).ok());
                // What an authority of the owner's signs has no marks of a public one.
                if leaf.is_some_and(|(_, leaf)| public::needs_intermediate(&leaf)) {
                    Self::PublicFiles
                } else {
                    Self::OwnAuthority
                }
            }
        }
    }

    /// Its word in JSON.
    pub fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, kind)| *kind == self).map_or("", |(word, _)| word)
    }

    /// Whether devices trust it without a step of their owner, now or once the certificate is there.
    pub const fn is_public(self) -> bool {
        !matches!(self, Self::OwnAuthority)
    }
}

/// A certificate that the gate shows.
#[derive(Debug)]
pub struct Shown<'a> {
    /// Why devices trust it.
    pub kind: CertificateKind,
    /// The file that it is in, or will be.
    pub file: &'a Path,
    /// What it says.
    pub identity: Identity,
    /// The routes that show it.
    pub routes: Vec<&'a str>,
}

/// The certificates that the gate shows, in the order of the routes.
pub fn shown(config: &Config) -> Vec<Shown<'_>> {
    let mut places: HashMap<&[CertificateDer<'_>], usize> = HashMap::new();
    let mut shown: Vec<Shown<'_>> = Vec::new();
    for (name, certificate) in certificates(config) {
        let chain = certificate.certified_key.cert.as_slice();
        if let Some(one) = places.get(chain).and_then(|place| shown.get_mut(*place)) {
            one.routes.push(name);
            continue;
        }
        let Some(Ok(identity)) = chain.first().map(|leaf| Identity::from_certificate(leaf, false)) else { continue };
        places.insert(chain, shown.len());
        let kind = CertificateKind::of(certificate);
        shown.push(Shown { kind, file: &certificate.chain_file, identity, routes: vec![name] });
    }
    shown
}

/// Whether devices trust every certificate that the gate shows, without a step of their owner: a public authority has issued
/// them, or will.
pub fn is_public(config: &Config) -> bool {
    let mut kinds = certificates(config).map(|(_, certificate)| CertificateKind::of(certificate)).peekable();
    kinds.peek().is_some() && kinds.all(CertificateKind::is_public)
}

/// Whether clients that ask for `name` take a certificate for these names (RFC 6125 section 6.4.3).
pub fn covers(dns_names: &[String], name: &str) -> bool {
    let wildcard = name.split_once('.').map(|(_, parent)| format!("*.{parent}"));
    dns_names.iter().filter(|dns| !is_wildcard_too_wide(dns)).any(|dns| {
        dns.eq_ignore_ascii_case(name) || wildcard.as_ref().is_some_and(|wildcard| dns.eq_ignore_ascii_case(wildcard))
    })
}

/// The certificates of the routes that terminate TLS.
fn certificates(config: &Config) -> impl Iterator<Item = (&str, &Certificate)> {
    config.routes.iter().filter_map(|route| match &route.mode {
        RouteMode::Terminate(terminate) => Some((route.name.as_str(), &*terminate.certificate)),
        RouteMode::Passthrough => None,
    })
}
