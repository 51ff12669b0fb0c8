//! The authority of the gate's own certificate in `trust`: devices have another one, or should.

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::anchors::{is_mkcert, named};
use super::route::Checked;
use crate::config::checked::{RouteMode, Terminate, TrustAnchor, TrustKind};
use crate::config::raw::{Raw, RawRoute};
use crate::config::report::Report;
use crate::pki::{has_signed, public};

/// Warns of an authority that is for servers alone, which is there by mistake, and of one that has issued certificates to servers
/// besides devices. mkcert has one root for both, which is what it is used with.
pub(super) fn warn(raw: &Raw, routes: &[(&RawRoute, Option<&Checked>)], report: &mut Report) {
    for (raw_route, checked) in routes {
        let Some(Checked { route, place, .. }) = checked else { continue };
        let RouteMode::Terminate(terminate) = &route.mode else { continue };
        let own = raw_route.client_auth.value().and_then(|own| own.value.trust.value());
        let default = raw.client_auth.value().and_then(|default| default.value.trust.value());
        let at = own.or(default).map_or_else(|| place.child("client_auth.trust"), |trust| trust.place.clone());
        for anchor in terminate.client_auth.trust.iter().filter(|anchor| anchor.kind == TrustKind::Authority) {
            if let Some(message) = odd(anchor, terminate) {
                report.warn(&at, message);
            }
        }
    }
}

fn odd(anchor: &TrustAnchor, terminate: &Terminate) -> Option<String> {
    let (_, authority) = X509Certificate::from_der(&anchor.certificate).ok()?;
    // Of a public one, something else is told.
    if !has_issued(&anchor.certificate, terminate) || public::is_public(&authority) || shows_public(terminate) {
        return None;
    }
    let (who, file) = (named(&authority), anchor.file.display());
    let usage = authority.extended_key_usage().ok().flatten().map(|usage| usage.value);
    let own_authority = "name the authority that issues nothing but the certificates of your devices, as in trust = \
                         [\"pki/clients.pem\"]";
    match usage {
        Some(usage) if !usage.client_auth && !usage.any => Some(format!(
            "{who} in {file} issued the gate's own certificate, and is an authority for servers: your devices have their \
             certificates from another one; {own_authority}"
        )),
        None if terminate.allow.any && !is_mkcert(&authority) => Some(format!(
            "{who} in {file} also issued the gate's own certificate: a certificate that it issued to another server may count as that \
             of a device, and allow = [\"any\"] admits it; {own_authority}"
        )),
        _ => None,
    }
}

/// Whether the authority signed a certificate that the gate shows, which is not its own.
fn has_issued(authority: &CertificateDer<'_>, terminate: &Terminate) -> bool {
    terminate
        .certificate
        .certified_key
        .cert
        .iter()
        .filter(|shown| *shown != authority)
        .any(|shown| X509Certificate::from_der(shown).is_ok_and(|(_, shown)| has_signed(authority, &shown)))
}

fn shows_public(terminate: &Terminate) -> bool {
    let shown = terminate.certificate.certified_key.cert.first();
    shown
        .and_then(|der| X509Certificate::from_der(der).ok())
        .is_some_and(|(_, shown)| public::is_publicly_issued(&shown))
}
