//! The service without a gate, for the fuzzer.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::folder::RequestFolder;
use super::service::{Asked, Client, RenewalService};
use crate::model::identity::Identity;

/// The service, and a device that it renews.
#[doc(hidden)]
#[derive(Debug)]
pub struct FuzzedRenewal {
    service: Arc<RenewalService>,
    client: Arc<Client>,
}

impl FuzzedRenewal {
    /// With this folder of requests, for the device with this certificate.
    pub fn new(folder: &Path, device: &str, certificate: &CertificateDer<'static>) -> Option<Self> {
        let identity = Arc::new(Identity::from_certificate(certificate, true).ok()?);
        let devices = HashMap::from([(identity.fingerprint, device.to_owned())]);
        let folder = RequestFolder::new(folder);
        let service = RenewalService::new(folder, devices, vec![certificate.clone()]);
        let source = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let client = Client { identity, certificate: certificate.clone(), device: Some(device.to_owned()), source };
        Some(Self { service: Arc::new(service), client: Arc::new(client) })
    }

    /// What the device receives that sends these bytes and ends, and what is told about that.
    pub async fn answer(&self, bytes: &[u8]) -> (Vec<u8>, Vec<Asked>) {
        let (mut device, gate) = tokio::io::duplex(1 << 20);
        let told = Arc::<Mutex<Vec<Asked>>>::default();
        let shared = Arc::clone(&told);
        let report = move |asked| shared.lock().unwrap_or_else(PoisonError::into_inner).push(asked);
        let served =
            Arc::clone(&self.service).answer_on(gate, Arc::clone(&self.client), Arc::default(), Arc::new(report));
        let asked = async {
            let mut answer = Vec::new();
            // The service may close before it has read everything.
            let _ = device.write_all(bytes).await;
            let _ = device.shutdown().await;
            let _ = device.read_to_end(&mut answer).await;
            answer
        };
        let (_, answer) = tokio::join!(served, asked);
        let told = std::mem::take(&mut *told.lock().unwrap_or_else(PoisonError::into_inner));
        (answer, told)
    }
}
