//! One connection to the service.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::desk::Desk;
use super::est::{self, Answered};
use super::service::{Asked, Client, RenewalService};
use crate::authorize::Authorized;
use crate::http::{TIMEOUT, server};
use crate::sys::stream::Stream;

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

impl RenewalService {
    /// Answers one request, and tells `report` about it. Returns what the client's payload is to be moved to and from: as if it were a
    /// backend, but nothing outside this process is reached by it.
    ///
    /// # Errors
    /// If the permit is for no verified certificate, or there are no sockets left.
    pub fn serve(
        self: &Arc<Self>,
        permit: &Authorized,
        certificate: Option<&CertificateDer<'static>>,
        source: IpAddr,
        desk: impl AsRef<Desk> + Send + Sync + 'static,
        report: impl Fn(Asked) + Send + Sync + 'static,
    ) -> Result<Stream, NotServed> {
        let identity = permit.identity().filter(|identity| identity.verified).ok_or(NotServed::NoDevice)?;
        let certificate = certificate.ok_or(NotServed::NoDevice)?.clone();
        let (ours, theirs) = UnixStream::pair()?;
        let device = self.device(identity).cloned();
        let client = Client { identity: Arc::clone(identity), certificate, device, source };
        let (service, client, report) = (Arc::clone(self), Arc::new(client), Arc::new(report));
        let desk = Arc::new(desk);
        // Ends at the latest when the relay does, which has the other end.
        tokio::spawn(timeout(TIMEOUT, async move {
            let answer = service_fn(|request| {
                let (service, client, report) = (Arc::clone(&service), Arc::clone(&client), Arc::clone(&report));
                let desk = Arc::clone(&desk);
                async move {
                    let desk = (*desk).as_ref();
                    let Answered { reply, asked } = est::answer(request, &service, &client, desk).await;
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
