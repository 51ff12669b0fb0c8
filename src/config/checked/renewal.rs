//! `[renewal]`: devices ask for their next certificate through the gate.

use std::collections::HashMap;
use std::path::PathBuf;

use rustls::pki_types::CertificateDer;

use super::{Config, Route, StateFolder};
use crate::model::identity::{Serial, Sha256};
use crate::model::names::ServerName;

/// The renewal of device certificates through the gate.
#[derive(Clone, Debug)]
pub struct Renewal {
    /// `server_name`: what devices ask for.
    pub server_name: ServerName,
    /// How the gate decides about clients that ask for this name. It has no backends: the gate answers.
    pub route: Route,
    /// `folder`: where requests and answers are.
    pub folder: StateFolder,
    /// `issuer`: what renews certificates without the owner, if anything does.
    pub issuer: Option<RenewalIssuer>,
}

/// The authority that renews certificates without the owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenewalIssuer {
    /// The file of `certificate`.
    pub file: PathBuf,
    /// `certificate`
    pub certificate: CertificateDer<'static>,
    /// From when on it is valid, in seconds since 1970.
    pub not_before: i64,
    /// Until when.
    pub not_after: i64,
    /// `key`: a file that the gate itself must not be able to read. A process beside it does.
    pub key: PathBuf,
    /// `days`: how long a certificate that it issues is valid at most.
    pub days: u16,
    /// `except`: devices that are not renewed in this way.
    pub except: Vec<String>,
}

impl RenewalIssuer {
    /// How long a certificate is valid if the configuration does not say it: a few months, in which a device that is seldom switched
    /// on comes by.
    pub const DAYS: u16 = 90;
    /// The most: a certificate that is issued without the owner is no reason to forget the device for longer.
    pub const DAYS_MAX: u16 = 398;
}

/// What renewed certificates are judged by: the authority that signs them, and what the owner's authorities have issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenewalTrust {
    /// The certificate of the authority.
    pub certificate: CertificateDer<'static>,
    /// When that is valid, in seconds since 1970.
    pub validity: (i64, i64),
    /// The certificates of the inventory that others may descend from, by their SHA-256.
    pub origins: HashMap<Sha256, KnownOrigin>,
}

/// A certificate that the owner's authority has issued to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownOrigin {
    /// The name of the device, which is the only one in it.
    pub device: String,
    /// Its serial number.
    pub serial: Serial,
    /// SHA-256 of its key (SubjectPublicKeyInfo).
    pub spki: Sha256,
    /// SHA-256 of the certificate of the authority.
    pub authority: Sha256,
    /// Whether the inventory says that it is revoked.
    pub revoked: bool,
}

impl Config {
    /// What renewed certificates are judged by; `None` where none are taken.
    pub fn renewal_trust(&self) -> Option<RenewalTrust> {
        let issuer = self.renewal.as_ref()?.issuer.as_ref()?;
        let issued = self.metrics.inventory.iter().flat_map(|inventory| &inventory.issued);
        // Neither bait nor a guest pass is renewed.
        let origins = issued.filter(|one| !one.canary && !one.guest).filter_map(|one| {
            let known = KnownOrigin {
                device: one.device.clone(),
                serial: one.serial.clone(),
                spki: one.spki?,
                authority: one.authority?,
                revoked: one.revoked,
            };
            Some((one.fingerprint?, known))
        });
        Some(RenewalTrust {
            certificate: issuer.certificate.clone(),
            validity: (issuer.not_before, issuer.not_after),
            origins: origins.collect(),
        })
    }
}

impl Renewal {
    /// What the log and the metrics call it, in the place of a route.
    pub const NAME: &str = "renewal";

    /// The default name of the folder.
    pub const FOLDER: &str = "renewal";
}
