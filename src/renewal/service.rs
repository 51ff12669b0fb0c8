//! What requests are answered from, and what is known of a client.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;

use super::folder::RequestFolder;
use crate::config::checked::{Config, RouteMode, TrustKind};
use crate::model::identity::{Identity, Sha256};
use crate::model::names::printable;
use crate::model::renewal::{IssuedUnattended, RequestOutcome};
use crate::pki::Parts;
use crate::pki::origin::{self, NoOrigin};

/// The longest name in a log line, in characters.
const NAME_MAX: usize = 64;

/// What a connection is answered from: that of one configuration.
#[derive(Debug)]
pub struct RenewalService {
    pub(super) folder: RequestFolder,
    /// The devices of the inventory by the certificates that are renewed.
    devices: HashMap<Sha256, String>,
    /// The devices by the certificates that others may descend from, which may have expired.
    origins: HashMap<Sha256, String>,
    /// The authorities that sign device certificates.
    pub(super) authorities: Vec<CertificateDer<'static>>,
    /// The one that renews them without the owner.
    renewals: Option<CertificateDer<'static>>,
}

/// A request of a device, and what it was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The device, by its certificate.
    pub device: String,
    /// How.
    pub outcome: RequestOutcome,
    /// Whether it has the key of its certificate, if it is known.
    pub same_key: Option<bool>,
    /// What was issued without the owner, if it was just now.
    pub issued: Option<IssuedUnattended>,
    /// What is wrong, if something is.
    pub detail: Option<String>,
}

/// The client of a connection.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) identity: Arc<Identity>,
    /// Its certificate.
    pub(super) certificate: CertificateDer<'static>,
    /// The device of the inventory, if its certificate is renewed.
    pub(super) device: Option<String>,
    pub(super) source: IpAddr,
}

impl RenewalService {
    /// With these devices, by the certificates that are renewed.
    pub(super) fn new(
        folder: RequestFolder,
        devices: HashMap<Sha256, String>,
        authorities: Vec<CertificateDer<'static>>,
    ) -> Self {
        Self { folder, devices, origins: HashMap::new(), authorities, renewals: None }
    }

    /// That of a configuration, if it has one.
    pub fn of(config: &Config) -> Option<Arc<Self>> {
        let renewal = config.renewal.as_ref()?;
        let RouteMode::Terminate(terminate) = &renewal.route.mode else { return None };
        let inventory = config.metrics.inventory.as_ref();
        let canaries: Vec<Sha256> = config.canary_certificates().collect();
        let certificates = inventory.into_iter().flat_map(|inventory| &inventory.certificates);
        let renewed = certificates
            .filter(|one| one.guest_pass.is_none() && !canaries.contains(&one.fingerprint))
            .map(|one| (one.fingerprint, one.device.clone()));
        let issued = inventory.into_iter().flat_map(|inventory| &inventory.issued);
        let origins = issued
            .filter(|one| !one.guest && !one.canary && !one.revoked)
            .filter_map(|one| Some((one.fingerprint?, one.device.clone())));
        let trust = terminate.client_auth.trust.iter().filter(|anchor| anchor.kind == TrustKind::Authority);
        let renewals = renewal.issuer.as_ref().map(|issuer| issuer.certificate.clone());
        let authorities = trust.map(|anchor| &anchor.certificate).chain(&renewals);
        let authorities = authorities.cloned().collect();
        let folder = RequestFolder::new(&renewal.folder.of_this_process());
        Some(Arc::new(Self {
            origins: origins.collect(),
            renewals,
            ..Self::new(folder, renewed.collect(), authorities)
        }))
    }

    /// What the inventory calls the device with this certificate, if that is renewed.
    pub(super) fn device(&self, identity: &Identity) -> Option<&String> {
        let device = match &identity.origin {
            Some(origin) => self.origins.get(&origin.fingerprint),
            None => self.devices.get(&identity.fingerprint),
        };
        device.filter(|_| identity.guest_pass.is_none())
    }

    /// Whether requests are shown to a process that renews without the owner.
    pub(super) const fn is_unattended(&self) -> bool {
        self.renewals.is_some()
    }
}

/// Whether a certificate was renewed without the owner, by this authority or another one.
pub fn is_renewed(certificate: &CertificateDer<'_>) -> bool {
    Parts::read(certificate).is_some_and(|parts| origin::of(&parts) != Err(NoOrigin::Missing))
}

/// Whether a certificate was renewed without the owner, and by another authority than the one that is taken now.
pub fn is_outdated(certificate: &CertificateDer<'_>, renewals: Option<&CertificateDer<'_>>) -> bool {
    let name = renewals.and_then(|renewals| Parts::read(renewals)).map(|parts| parts.subject.to_vec());
    let issuer = Parts::read(certificate).map(|parts| parts.issuer.to_vec());
    is_renewed(certificate) && (name.is_none() || issuer != name)
}

impl RenewalService {
    /// Whether an answer is of no use any more.
    pub(super) fn is_useless(&self, issued: &CertificateDer<'_>) -> bool {
        is_outdated(issued, self.renewals.as_ref())
    }
}

impl Client {
    /// What the log calls it.
    pub(super) fn name(&self) -> String {
        printable(self.device.as_deref().unwrap_or(&self.identity.display_name()), NAME_MAX)
    }
}
