//! What requests are answered from, and what is known of a client.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;

use super::folder::RequestFolder;
use crate::config::checked::{Config, RouteMode, TrustKind};
use crate::model::identity::{Identity, Sha256};
use crate::model::names::printable;
use crate::model::renewal::RequestOutcome;

/// The longest name in a log line, in characters.
const NAME_MAX: usize = 64;

/// What a connection is answered from: that of one configuration.
#[derive(Debug)]
pub struct RenewalService {
    pub(super) folder: RequestFolder,
    /// The devices of the inventory by the certificates that are renewed.
    devices: HashMap<Sha256, String>,
    /// The authorities that sign device certificates.
    pub(super) authorities: Vec<CertificateDer<'static>>,
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
    /// What is wrong, if something is.
    pub detail: Option<String>,
}

/// The client of a connection.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) identity: Arc<Identity>,
    /// The device of the inventory, if its certificate is renewed.
    pub(super) device: Option<String>,
    pub(super) source: IpAddr,
}

impl RenewalService {
    /// With these devices, by the certificates that are renewed.
    pub(super) const fn new(
        folder: RequestFolder,
        devices: HashMap<Sha256, String>,
        authorities: Vec<CertificateDer<'static>>,
    ) -> Self {
        Self { folder, devices, authorities }
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
        let trust = terminate.client_auth.trust.iter().filter(|anchor| anchor.kind == TrustKind::Authority);
        Some(Arc::new(Self::new(
            RequestFolder::new(&renewal.folder.of_this_process()),
            renewed.collect(),
            trust.map(|anchor| anchor.certificate.clone()).collect(),
        )))
    }

    /// What the inventory calls the device with this certificate, if that is renewed.
    pub(super) fn device(&self, identity: &Identity) -> Option<&String> {
        self.devices.get(&identity.fingerprint).filter(|_| identity.guest_pass.is_none())
    }
}

impl Client {
    /// What the log calls it.
    pub(super) fn name(&self) -> String {
        printable(self.device.as_deref().unwrap_or(&self.identity.display_name()), NAME_MAX)
    }
}
