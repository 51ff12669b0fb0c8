//! A server certificate.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::sign::CertifiedKey;

/// A server certificate whose key fits.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The file of its chain.
    pub chain_file: PathBuf,
    /// The file of its key.
    pub key_file: PathBuf,
    /// Chain and key, as rustls wants them.
    pub certified_key: Arc<CertifiedKey>,
    /// Where it is from.
    pub source: CertificateSource,
}

/// Where a server certificate is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateSource {
    /// The owner's files.
    Files,
    /// An ACME server.
    Acme,
    /// It is made in memory and signed by itself, as long as an ACME server has not issued one.
    Temporary,
}
