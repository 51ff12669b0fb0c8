//! Certificates that were renewed without the owner.
//!
//! An authority of its own signs them, whose key is on the gate's machine, and can be stolen with it. So its signature alone admits
//! nothing. Each certificate says which one of the owner's authority it [descends from](Origin), and that one
//!
//! * is in the inventory, which the owner's authority keeps, with this serial number, under an authority that this `[client_auth]`
//!   trusts;
//! * has **the same key and the same name**. An attacker who has the renewal authority's key and not that of a
//!   device gets no further than without it: at most a device that has come to an end gets a longer life;
//! * is what revocation lists are asked about, in the handshake and in each review: to revoke it is to revoke all that descends from it.
//!
//! All this is about the path that was verified: it began at this anchor, and not at one that has its name or its key identifier. A
//! certificate of another authority that has the extension says nothing by it.

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::{CertificateError, Error};
use x509_parser::prelude::{FromDer as _, X509Name};

use super::anchors::{Anchor, Anchors};
use super::chain_cache::Validity;
use super::{Refused, revoked, seconds};
use crate::config::checked::RenewalTrust;
use crate::model::identity::{Identity, Issued, IssuerKey, Origin, Sha256};
use crate::model::rejection::{CertificateFault, RenewedFault};
use crate::model::unicode::nfc;
use crate::pki::origin::{self, NoOrigin};
use crate::pki::{Parts, validation_errors};

/// A renewed certificate that the gate takes for one.
pub(super) struct Renewed {
    /// What it descends from.
    pub(super) origin: Origin,
    /// What revocation lists are asked about: that one, and the authorities above it.
    pub(super) issued: Vec<Issued>,
    /// When the renewal authority is valid. What it signs ends with it at the latest, whatever it says.
    pub(super) validity: Validity,
}

/// Judges a certificate that the renewal authority has signed.
pub(super) fn judge(
    leaf: &Parts<'_>,
    identity: &Identity,
    certificate: &CertificateDer<'_>,
    anchors: &Anchors,
    trust: &RenewalTrust,
    now: UnixTime,
) -> Result<Renewed, Refused> {
    let fault = |fault| Refused::invalid(CertificateFault::Renewed(fault));
    let origin = origin::of(leaf).map_err(|why| {
        fault(match why {
            NoOrigin::Missing => RenewedFault::NoOrigin,
            NoOrigin::Invalid => RenewedFault::InvalidOrigin,
        })
    })?;
    let known = trust.origins.get(&origin.fingerprint).filter(|known| known.serial == origin.serial);
    let known = known.ok_or_else(|| fault(RenewedFault::NotInInventory))?;
    // Its certificate may have been renewed, so that several in `trust` have this key.
    let authority =
        anchors.of_certificate(&known.authority).filter(|anchor| Sha256::of(&anchor.key) == origin.authority);
    let authority = authority.ok_or_else(|| fault(RenewedFault::OtherAuthority))?;
    if Sha256::of(leaf.key) != known.spki {
        return Err(fault(RenewedFault::OtherKey));
    }
    if !is_named(identity, leaf, &known.device) {
        return Err(fault(RenewedFault::OtherNames));
    }
    let validity = Validity { from: seconds(trust.validity.0), until: seconds(trust.validity.1) };
    within(validity, now, certificate)?;
    // The lists say the same, unless the owner's are not here yet.
    if known.revoked {
        return Err(revoked());
    }
    Ok(Renewed { issued: issued(authority, &origin), validity, origin })
}

/// Whether it has the name of the device as its only common name, as the owner's authority writes it, and no other that a policy looks at.
fn is_named(identity: &Identity, leaf: &Parts<'_>, device: &str) -> bool {
    // Of several common names, others than this gate may take another one.
    let is_only = X509Name::from_der(leaf.subject).is_ok_and(|(_, name)| name.iter_common_name().count() == 1);
    let Identity { emails, uris, dns_names, ips, organizational_units, common_name, guest_pass, .. } = identity;
    let alternatives = emails.len() + uris.len() + dns_names.len() + ips.len();
    let has_others = alternatives + organizational_units.len() > 0 || guest_pass.is_some();
    is_only && !has_others && common_name.as_deref() == Some(&*nfc(device))
}

/// What lists know it by.
fn issued(authority: &Anchor, origin: &Origin) -> Vec<Issued> {
    let key = IssuerKey { spki: authority.key.clone(), digest: origin.authority, signs_lists: true };
    let own = Issued { issuer: authority.name.clone(), key: Some(key), serial: origin.serial.clone() };
    [own].into_iter().chain(authority.issued.iter().cloned()).collect()
}

/// Whether the renewal authority is valid now. Of a trust anchor, webpki does not ask that.
fn within(validity: Validity, now: UnixTime, certificate: &CertificateDer<'_>) -> Result<(), Refused> {
    let at = |seconds| UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
    let error = if now.as_secs() > validity.until {
        CertificateError::ExpiredContext { time: now, not_after: at(validity.until) }
    } else if now.as_secs() < validity.from {
        CertificateError::NotValidYetContext { time: now, not_before: at(validity.from) }
    } else {
        return Ok(());
    };
    Err(validation_errors::objection(Error::InvalidCertificate(error), certificate, None))
}
