//! Public authorities in `trust`, which let in more than their owner meant.

use std::collections::BTreeMap;
use std::path::Path;

use x509_parser::prelude::{FromDer, X509Certificate};

use super::anchors::named;
use super::route::Checked;
use crate::config::checked::{RouteMode, Terminate};
use crate::config::raw::{Raw, RawRoute};
use crate::config::report::{Place, Report};
use crate::pki::{has_signed, public};

/// The public authorities of one file.
#[derive(Default)]
struct Public {
    first: String,
    count: usize,
    /// The only reason to think so is the gate's own certificate, which one of them issued.
    by_own_certificate: bool,
}

/// A public authority issues certificates to anyone: in `trust`, anyone is admitted.
pub(super) fn report_public_authorities(raw: &Raw, routes: &[(&RawRoute, Option<&Checked>)], report: &mut Report) {
    for (raw_route, checked) in routes {
        let Some(Checked { route, place, .. }) = checked else { continue };
        let RouteMode::Terminate(terminate) = &route.mode else { continue };
        if !terminate.client_auth.mode.verifies() {
            continue;
        }
        let own = raw_route.client_auth.value().and_then(|own| own.value.trust.value());
        let default = raw.client_auth.value().and_then(|default| default.value.trust.value());
        let at = own.or(default).map_or_else(|| place.child("client_auth.trust"), |trust| trust.place.clone());
        for (file, found) in public_authorities(terminate) {
            tell(&at, place, file, &found, terminate.allow.any, report);
        }
    }
}

fn public_authorities(terminate: &Terminate) -> BTreeMap<&Path, Public> {
    let mut found: BTreeMap<&Path, Public> = BTreeMap::new();
    let shown = terminate.certificate.certified_key.cert.first();
    let shown = shown.and_then(|der| X509Certificate::from_der(der).ok()).map(|(_, certificate)| certificate);
    let shown = shown.filter(public::is_publicly_issued);
    for anchor in &terminate.client_auth.trust {
        let Ok((_, certificate)) = X509Certificate::from_der(&anchor.certificate) else { continue };
        let known = public::is_public(&certificate);
        let issued = || shown.as_ref().is_some_and(|shown| has_signed(&anchor.certificate, shown));
        if known || issued() {
            let file = found.entry(&anchor.file).or_default();
            if file.count == 0 {
                (file.first, file.by_own_certificate) = (named(&certificate), !known);
            }
            file.count += 1;
        }
    }
    found
}

fn tell(at: &Place, route: &Place, file: &Path, found: &Public, any: bool, report: &mut Report) {
    let (first, file) = (&found.first, file.display());
    let who = match found.count {
        1 if found.by_own_certificate => format!(
            "{first} in {file} also issued the gate's own certificate and looks like a public authority, which issues \
             certificates to anyone"
        ),
        1 => format!("{first} in {file} is a public authority: anyone can get a certificate from it"),
        count => format!(
            "{first} and {} more in {file} are public authorities: anyone can get a certificate from one",
            count - 1
        ),
    };
    let remedy = "trust only an authority of your own that signs nothing but your devices: trust = [\"pki/clients.pem\"], as \
                  \"doorward init\" makes it; with mkcert the file rootCA.pem in the folder that \"mkcert -CAROOT\" prints";
    // What the marks in a certificate say is not certain: an owner's own authority may write them, too.
    if any && !found.by_own_certificate {
        report.error(at, format!("{who}, and allow = [\"any\"] of {} admits everyone who has one", route.key), remedy);
    } else {
        report.warn(at, format!("{who}; {remedy}"));
    }
}
