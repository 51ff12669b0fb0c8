//! `backend_tls`: TLS from the gate to the backends of a route.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::CertifiedKey;

use crate::model::identity::Sha256;

/// How the gate speaks TLS with the backends of a route.
#[derive(Clone, Debug)]
pub struct BackendTls {
    /// `trust`: which certificates a backend may show.
    pub trust: BackendTrust,
    /// The name or address that the certificate must have, for each backend of the route in order.
    pub server_names: Vec<ServerName<'static>>,
    /// `certificate` and `key`: what the gate shows to a backend that asks for it.
    pub certificate: Option<Arc<CertifiedKey>>,
    /// `proxy_protocol`: where the header of `send_proxy_protocol` goes.
    pub header: HeaderPlace,
    /// The files that were read for it.
    pub files: Vec<PathBuf>,
}

/// Which certificates a backend may show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendTrust {
    /// A file: one of these certificates itself, or one that an authority among them signed.
    Certificates {
        /// All of them.
        own: Vec<CertificateDer<'static>>,
        /// Those of authorities.
        authorities: Vec<CertificateDer<'static>>,
    },
    /// `system`: one that an authority of this machine's list signed.
    System(Vec<CertificateDer<'static>>),
    /// `sha256:`: the one with this fingerprint.
    Fingerprint(Sha256),
}

/// Where the PROXY protocol header goes on a connection with TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeaderPlace {
    /// Before the handshake, where HAProxy, nginx and Caddy write and expect it: the default.
    #[default]
    Before,
    /// The first bytes inside TLS: nothing on the way can read or change it.
    Inside,
}

/// A name or an address that a certificate can be checked for.
pub fn backend_name(host: &str) -> Option<ServerName<'static>> {
    ServerName::try_from(host.to_owned()).ok()
}
