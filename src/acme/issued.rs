//! A look at a certificate before it replaces the one in use: a server's mistake must not cost the certificate that works.

use std::collections::BTreeSet;
use std::time::Duration;

use pem::{EncodeConfig, LineEnding, Pem};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::sign::CertifiedKey;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

/// How far this machine's clock may be behind.
const CLOCK: Duration = Duration::from_secs(3600);

/// Why a certificate is not used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unfit {
    #[error("the server's certificate cannot be read: {0}")]
    Unreadable(String),
    #[error("the server's certificate has another key than the one that was ordered")]
    Key,
    #[error("the server's certificate is not for {0}")]
    Name(String),
    #[error("the server's certificate is not valid yet: is this machine's clock right? ({0})")]
    NotYet(String),
    #[error("the server's certificate has expired already: is this machine's clock right?")]
    Expired,
    #[error("the certificates that the server sends do not fit together: {0}")]
    Chain(String),
}

/// The certificates of a chain in PEM, and nothing else of it, if they can be used with this key for these names now.
pub(super) fn check(chain: &str, key: &str, names: &BTreeSet<String>) -> Result<String, Unfit> {
    let certificates = check_at(UnixTime::now(), chain, key, names)?;
    let blocks: Vec<Pem> = certificates.iter().map(|der| Pem::new("CERTIFICATE", der.as_ref())).collect();
    Ok(pem::encode_many_config(&blocks, EncodeConfig::new().set_line_ending(LineEnding::LF)))
}

fn check_at(
    now: UnixTime,
    chain: &str,
    key: &str,
    names: &BTreeSet<String>,
) -> Result<Vec<CertificateDer<'static>>, Unfit> {
    let unreadable = |error: &dyn std::fmt::Display| Unfit::Unreadable(error.to_string());
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
    let certificates = certificates.map_err(|error| unreadable(&error))?;
    let [first, above @ ..] = certificates.as_slice() else { return Err(unreadable(&"there is none")) };
    let certificate = EndEntityCert::try_from(first).map_err(|error| unreadable(&error))?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| unreadable(&error))?;
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).map_err(|error| unreadable(&error))?;
    if CertifiedKey::new(certificates.clone(), key).keys_match().is_err() {
        return Err(Unfit::Key);
    }
    let certified: BTreeSet<String> = certificate.valid_dns_names().map(str::to_ascii_lowercase).collect();
    if let Some(name) = names.iter().find(|name| !certified.contains(&name.to_ascii_lowercase())) {
        return Err(Unfit::Name(name.clone()));
    }
    check_dates(now, first)?;
    // Which root is trusted is for devices to say. All that is below must fit.
    let [between @ .., last] = above else { return Ok(certificates) };
    let anchor = anchor_from_trusted_cert(last).map_err(|error| Unfit::Chain(error.to_string()))?;
    let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
    let path = |now: UnixTime| {
        let anchors = [anchor.clone()];
        let usage = KeyUsage::server_auth();
        certificate.verify_for_usage(algorithms.all, &anchors, between, now, usage, None, None).map(drop)
    };
    let verified = match path(now) {
        Err(webpki::Error::CertNotValidYet { .. }) => path(later(now)),
        verified => verified,
    };
    verified.map_err(|error| Unfit::Chain(error.to_string()))?;
    Ok(certificates)
}

fn check_dates(now: UnixTime, certificate: &CertificateDer<'_>) -> Result<(), Unfit> {
    let (_, parsed) =
        x509_parser::parse_x509_certificate(certificate).map_err(|error| Unfit::Unreadable(error.to_string()))?;
    let validity = parsed.validity();
    let seconds = |time: UnixTime| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    if validity.not_before.timestamp() > seconds(later(now)) {
        return Err(Unfit::NotYet(format!("from {}", validity.not_before)));
    }
    if validity.not_after.timestamp() <= seconds(now) { Err(Unfit::Expired) } else { Ok(()) }
}

fn later(now: UnixTime) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs()) + CLOCK)
}
