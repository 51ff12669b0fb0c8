//! One connection to the service.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::est::{self, Answered};
use super::folder::RequestFolder;
use crate::authorize::Authorized;
use crate::config::checked::{Config, RouteMode, TrustKind};
use crate::http::{TIMEOUT, server};
use crate::model::identity::{Identity, Sha256};
use crate::model::names::printable;
use crate::model::renewal::RequestOutcome;
use crate::sys::stream::Stream;

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

/// Why a connection is not answered.
#[derive(Debug, thiserror::Error)]
pub enum NotServed {
    /// The client has shown no certificate, or one that is not verified.
    #[error("no verified certificate")]
    NoDevice,
    /// No socket could be made.
    #[error("cannot make a socket: {0}")]
    Io(#[from] io::Error),
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
        Some(Arc::new(Self {
            folder: RequestFolder::new(&renewal.folder.of_this_process()),
            devices: renewed.collect(),
            authorities: trust.map(|anchor| anchor.certificate.clone()).collect(),
        }))
    }

    /// Answers one request, and tells `report` about it. Returns what the client's payload is to be moved to and from: as if it were a
    /// backend, but nothing outside this process is reached by it.
    ///
    /// # Errors
    /// If the permit is for no verified certificate, or there are no sockets left.
    pub fn serve(
        self: &Arc<Self>,
        permit: &Authorized,
        source: IpAddr,
        report: impl Fn(Asked) + Send + Sync + 'static,
    ) -> Result<Stream, NotServed> {
        let identity = permit.identity().filter(|identity| identity.verified).ok_or(NotServed::NoDevice)?;
        let (ours, theirs) = UnixStream::pair()?;
        let device = self.devices.get(&identity.fingerprint).filter(|_| identity.guest_pass.is_none());
        let client = Client { identity: Arc::clone(identity), device: device.cloned(), source };
        let (service, client, report) = (Arc::clone(self), Arc::new(client), Arc::new(report));
        // Ends at the latest when the relay does, which has the other end.
        tokio::spawn(timeout(TIMEOUT, async move {
            let answer = service_fn(|request| {
                let (service, client, report) = (Arc::clone(&service), Arc::clone(&client), Arc::clone(&report));
                async move {
                    let Answered { reply, asked } = est::answer(request, &service, &client).await;
                    if let Some(asked) = asked {
                        report(asked);
                    }
                    Ok::<_, Infallible>(reply)
                }
            });
            let _ = server().serve_connection(TokioIo::new(ours), answer).await;
        }));
        Ok(Stream::Unix(theirs))
    }
}

impl Client {
    /// What the log calls it.
    pub(super) fn name(&self) -> String {
        printable(self.device.as_deref().unwrap_or(&self.identity.display_name()), NAME_MAX)
    }
}
