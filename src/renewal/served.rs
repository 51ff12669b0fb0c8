//! One connection to the service.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
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
        desk: Arc<Desk>,
        report: impl Fn(Asked) + Send + Sync + 'static,
    ) -> Result<Stream, NotServed> {
        let identity = permit.identity().filter(|identity| identity.verified).ok_or(NotServed::NoDevice)?;
        let certificate = certificate.ok_or(NotServed::NoDevice)?.clone();
        let (ours, theirs) = UnixStream::pair()?;
        let device = self.device(identity).cloned();
        let client = Arc::new(Client { identity: Arc::clone(identity), certificate, device, source });
        // Ends at the latest when the relay does, which has the other end.
        tokio::spawn(Arc::clone(self).answer_on(ours, client, desk, Arc::new(report)));
        Ok(Stream::Unix(theirs))
    }

    /// Answers one request of a client.
    pub(super) async fn answer_on(
        self: Arc<Self>,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        client: Arc<Client>,
        desk: Arc<Desk>,
        report: Arc<impl Fn(Asked) + Send + Sync>,
    ) {
        let answer = service_fn(|request| {
            let (service, client, report) = (Arc::clone(&self), Arc::clone(&client), Arc::clone(&report));
            let desk = Arc::clone(&desk);
            async move {
                let Answered { reply, asked } = est::answer(request, &service, &client, &desk).await;
                if let Some(asked) = asked {
                    report(asked);
                }
                Ok::<_, Infallible>(reply)
            }
        });
        let _ = timeout(TIMEOUT, server().serve_connection(TokioIo::new(stream), answer)).await;
    }
}
