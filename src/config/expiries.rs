//! When certificates, authorities and revocation lists in files expire.

use std::collections::HashMap;
use std::path::Path;

use super::checked::{CertificateSource, Config, RouteMode};
pub use crate::model::expiry::{Expiry, Kind};
use crate::model::identity::Identity;

/// All that expires, the next first, each once.
pub fn expiries(config: &Config) -> Vec<Expiry> {
    let mut all = Vec::new();
    for route in config.served() {
        let RouteMode::Terminate(terminate) = &route.mode else { continue };
        if terminate.certificate.source != CertificateSource::Temporary
            && let Some(leaf) = terminate.certificate.certified_key.cert.first()
            && let Ok(leaf) = Identity::from_certificate(leaf, false)
        {
            let name = terminate.certificate.chain_file.display().to_string();
            let is_renewed = terminate.certificate.source == CertificateSource::Acme;
            let renewed_since = is_renewed.then_some(leaf.not_before);
            all.push(Expiry { at: leaf.not_after, kind: Kind::Server, name, renewed_since });
        }
        let mut places: HashMap<&Path, usize> = HashMap::new();
        for anchor in &terminate.client_auth.trust {
            let place = places.entry(&anchor.file).or_insert(0);
            *place += 1;
            let name = match *place {
                1 => anchor.file.display().to_string(),
                place => format!("{}#{place}", anchor.file.display()),
            };
            if let Ok(anchor) = Identity::from_certificate(&anchor.certificate, false) {
                all.push(Expiry { at: anchor.not_after, kind: Kind::TrustAnchor, name, renewed_since: None });
            }
        }
        for list in &terminate.client_auth.revocation_lists {
            if let Some(at) = list.next_update {
                all.push(Expiry {
                    at,
                    kind: Kind::RevocationList,
                    name: list.file.display().to_string(),
                    renewed_since: None,
                });
            }
        }
    }
    if let Some(issuer) = config.renewal.as_ref().and_then(|renewal| renewal.issuer.as_ref()) {
        let name = issuer.file.display().to_string();
        all.push(Expiry { at: issuer.not_after, kind: Kind::TrustAnchor, name, renewed_since: None });
    }
    // That a guest pass expires is what it is for.
    let devices =
        config.metrics.inventory.iter().flat_map(|inventory| &inventory.devices).filter(|device| !device.guest);
    all.extend(devices.map(|device| Expiry {
        at: device.not_after,
        kind: Kind::Device,
        name: device.name.clone(),
        renewed_since: None,
    }));
    all.sort();
    all.dedup();
    all
}
