//! Whether the revocations that `doorward ca` has written down have an effect: the configuration may name another list, an
//! older one, or none.

use std::collections::HashSet;

use x509_parser::prelude::{FromDer, X509Certificate};

use super::checked::{ClientAuth, Config, RevokedCertificate, RouteMode, TrustKind};
use crate::explain::finding::NotInForce;
use crate::model::identity::{Serial, Sha256};

/// The certificates that the inventory calls revoked, and that a route accepts all the same. Those of an authority that a route
/// does not trust are not accepted there.
pub fn not_in_force(config: &Config) -> Vec<NotInForce> {
    let revoked: Vec<&RevokedCertificate> =
        config.metrics.inventory.iter().flat_map(|inventory| &inventory.revoked).collect();
    if revoked.is_empty() {
        return Vec::new();
    }
    let mut found: Vec<NotInForce> = Vec::new();
    for route in config.served() {
        let RouteMode::Terminate(terminate) = &route.mode else { continue };
        for certificate in accepted(&terminate.client_auth, &revoked) {
            let serial = certificate.serial.to_string();
            match found.iter_mut().find(|one| one.serial == serial && one.device == certificate.name) {
                Some(one) => one.routes.push(route.name.to_string()),
                None => found.push(NotInForce {
                    device: certificate.name.clone(),
                    serial,
                    revoked_at: certificate.revoked_at,
                    not_after: certificate.not_after,
                    routes: vec![route.name.to_string()],
                }),
            }
        }
    }
    found
}

/// Those of the `revoked` certificates that this `client_auth` accepts.
fn accepted<'a>(auth: &ClientAuth, revoked: &[&'a RevokedCertificate]) -> Vec<&'a RevokedCertificate> {
    // Without verification, names are claims: no list has an effect, and none is expected to.
    if !auth.mode.verifies() {
        return Vec::new();
    }
    let mut open: Vec<&RevokedCertificate> = revoked
        .iter()
        .copied()
        .filter(|one| {
            let denied = auth.deny.serials.contains(&one.serial)
                || one.fingerprint.is_some_and(|fingerprint| auth.deny.fingerprints.contains(&fingerprint));
            !denied && is_trusted(auth, one)
        })
        .collect();
    for list in auth.all_lists() {
        if open.is_empty() {
            break;
        }
        // Of this list's issuer: serial numbers of two authorities may be the same.
        let of_issuer = |one: &&RevokedCertificate| anchor(auth, one.authority).is_none_or(|name| name == list.issuer);
        let wanted: HashSet<&Serial> =
            open.iter().copied().filter(|one| of_issuer(one)).map(|one| &one.serial).collect();
        let Ok(entries) = webpki::BorrowedCertRevocationList::from_der(&list.list) else { continue };
        let listed: HashSet<Serial> = entries
            .into_iter()
            .filter_map(|entry| entry.ok().map(|entry| Serial::from_be_bytes(entry.serial_number)))
            .filter(|serial| wanted.contains(serial))
            .collect();
        open.retain(|one| !(of_issuer(one) && listed.contains(&one.serial)));
    }
    open
}

fn is_trusted(auth: &ClientAuth, revoked: &RevokedCertificate) -> bool {
    auth.trust.iter().any(|trusted| {
        let fingerprint = Sha256::of(&trusted.certificate);
        match trusted.kind {
            TrustKind::Authority => fingerprint == revoked.authority,
            TrustKind::Pinned => revoked.fingerprint == Some(fingerprint),
        }
    })
}

/// The name of an authority in `trust`, as it is encoded.
fn anchor(auth: &ClientAuth, fingerprint: Sha256) -> Option<Vec<u8>> {
    let anchor = auth.trust.iter().find(|trusted| Sha256::of(&trusted.certificate) == fingerprint)?;
    let (_, certificate) = X509Certificate::from_der(&anchor.certificate).ok()?;
    Some(certificate.subject().as_raw().to_vec())
}
