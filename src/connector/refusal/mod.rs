//! Why there is no connection, or no longer one: in a sentence for the user of the device, made of what the gate said and of what the
//! device knows.

mod words;

use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// What a device knows about itself and a route: what a sentence about a failure is made of.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The home, as in `home.example`.
    pub home: String,
    /// The device.
    pub device: String,
    /// The route.
    pub route: String,
    /// The server name of the route.
    pub server_name: String,
    /// What is dialled.
    pub dialled: String,
    /// From when to when the device's certificate is valid, if it can be read.
    pub validity: Option<(OffsetDateTime, OffsetDateTime)>,
    /// Whether the authority that is trusted is the home's own.
    pub own_authority: bool,
}

/// From when to when a certificate is valid.
pub fn validity(certificate: &CertificateDer<'_>) -> Option<(OffsetDateTime, OffsetDateTime)> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let validity = certificate.validity();
    Some((validity.not_before.to_datetime(), validity.not_after.to_datetime()))
}
