//! `trust`: the certificates that vouch for clients.

use std::collections::HashSet;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::SectionKind;
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};

use super::{date, each_file, now, trust};
use crate::config::checked::{TrustAnchor, TrustKind};
use crate::config::files::{self, NamedFile, Pem, Wanted};
use crate::config::report::{At, Given, Place, Report, Text, quoted};
use crate::model::identity::{Identity, key, text};
use crate::pki::public;

/// What mkcert calls itself in every root it makes.
const MKCERT: &str = "mkcert development CA";

pub(super) fn check(given: &Given<Vec<Text>>, report: &mut Report) -> Option<Vec<At<TrustAnchor>>> {
    let mut seen = HashSet::new();
    each_file(given, report, |text, report| {
        let file = files::read(text, report)?;
        let anchors = read_anchors(text, &file, report)?;
        Some(anchors.into_iter().filter(|anchor| seen.insert(anchor.certificate.clone())).collect())
    })
}

fn read_anchors(text: &Text, file: &NamedFile, report: &mut Report) -> Option<Vec<TrustAnchor>> {
    let shown = file.path.display();
    let pem = report.taken(&text.place, Pem::parse(file))?;
    let certificates = pem.of(SectionKind::Certificate);
    if certificates.is_empty() {
        report.problem(&text.place, files::mistaken(file, Wanted::Certificates));
        return None;
    }
    let labels = files::labels(&file.bytes);
    if let Some(other) = labels.iter().find(|label| *label != "CERTIFICATE" && !label.ends_with("PRIVATE KEY")) {
        report.error(
            &text.place,
            format!("besides certificates, {shown} holds {}, which would be ignored", quoted(other)),
            "leave only certificates in the file; a revocation list belongs in a file of its own, under \
             revocation_lists",
        );
        return None;
    }
    if labels.iter().any(|label| label.ends_with("PRIVATE KEY")) {
        report.warn(
            &text.place,
            format!(
                "{shown} holds a private key besides its certificates; the gate does not need it, and anyone \
                 who reads it can issue certificates: move it to a safe place"
            ),
        );
    }
    let mut anchors = Vec::with_capacity(certificates.len());
    for (index, der) in certificates.into_iter().enumerate() {
        let certificate = CertificateDer::from(der);
        let parsed = X509Certificate::from_der(&certificate).ok().filter(|(rest, _)| rest.is_empty());
        let usable = RootCertStore::empty().add(certificate.clone()).is_ok();
        if let Some((_, parsed)) = parsed.filter(|_| usable) {
            let Some(kind) = trust::kind(&parsed) else {
                report.error(
                    &text.place,
                    format!(
                        "certificate {} in {shown} is of version 1 and does not say whether it is that of an authority",
                        index + 1
                    ),
                    "name the certificate of the authority that signed it",
                );
                return None;
            };
            lint_anchor(&parsed, kind, file, &text.place, report);
            anchors.push(TrustAnchor { file: file.path.clone(), certificate: certificate.clone(), kind });
        } else {
            report.error(
                &text.place,
                format!("certificate {} in {shown} cannot be used: it is damaged or in an outdated form", index + 1),
                "copy the file once more from where it came, or leave this certificate out",
            );
            return None;
        }
    }
    Some(anchors)
}

fn lint_anchor(anchor: &X509Certificate<'_>, kind: TrustKind, file: &NamedFile, place: &Place, report: &mut Report) {
    let (shown, who) = (file.path.display(), named(anchor));
    let until = anchor.validity().not_after.timestamp();
    match kind {
        TrustKind::Authority if until < now() && !public::is_public(anchor) => report.warn(
            place,
            format!(
                "the authority {who} in {shown} expired on {}; the gate still trusts it, other programs will not: \
                 replace it",
                date(until)
            ),
        ),
        TrustKind::Pinned if until < now() => report.warn(
            place,
            format!("the certificate {who} in {shown} expired on {}, and is turned away: replace it", date(until)),
        ),
        _ => {}
    }
    if let Some(what) = key::unsupported(anchor.public_key().raw) {
        let consequence = match kind {
            TrustKind::Authority => format!(
                "the key of the authority {who} in {shown} is {what}, and the gate cannot check what it signs, so every device \
                 of it is turned away (unsupported_key): make a new authority"
            ),
            TrustKind::Pinned => format!(
                "the key of {who} in {shown} is {what}, which the gate cannot check, so it is turned away (unsupported_key): \
                 issue a certificate"
            ),
        };
        report.warn(place, format!("{consequence} whose key is one of these: {}", key::SUPPORTED));
    }
    if kind == TrustKind::Pinned {
        report.warn(
            place,
            format!(
                "{who} in {shown} is not the certificate of an authority but of one device or server: exactly that \
                 certificate is accepted, and none that its key signed; to accept all devices of an authority, name \
                 the authority's certificate, often called rootCA.pem or ca.pem"
            ),
        );
    } else if anchor.version() != X509Version::V3 {
        report.warn(
            place,
            format!(
                "{who} in {shown} is a certificate of version 1, which does not say whether it is that of an authority: \
                 its key is trusted to make certificates for every device"
            ),
        );
    }
}

/// How a certificate's subject is called in a message.
pub(super) fn named(certificate: &X509Certificate<'_>) -> String {
    let subject = certificate.subject();
    let name = subject.iter_common_name().chain(subject.iter_organization()).next().map(text::attribute);
    let other = || Identity::from_certificate(certificate.as_raw(), false).map(|identity| identity.display_name());
    name.as_deref().map(quoted).or_else(|| other().ok().map(|name| quoted(&name))).unwrap_or_default()
}

/// Whether a certificate is of this name, as it is encoded.
pub(super) fn is_named(certificate: &CertificateDer<'_>, name: &[u8]) -> bool {
    X509Certificate::from_der(certificate).is_ok_and(|(_, certificate)| certificate.subject().as_raw() == name)
}

pub(super) fn is_mkcert(anchor: &X509Certificate<'_>) -> bool {
    anchor.subject().iter_organization().any(|name| name.as_str() == Ok(MKCERT))
}
