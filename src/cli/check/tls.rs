//! TLS with a backend, for `check --connect`: the handshake that the gate makes, and the certificate that the backend shows.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use serde::Serialize;

use super::socket::Socket;
use crate::backend_tls::BackendTls;
use crate::config::checked::{self, Backend, BackendTrust, CipherStrength, HeaderPlace, Route, backend_name};
use crate::explain;
use crate::handshake::suites::Suites;
use crate::model::identity::Identity;
use crate::model::names::printable;
use crate::model::rejection::{BackendTlsFault, Cause, Text};
use crate::model::text::date;

/// The most names that are told, and the longest one in characters.
const NAMES_MAX: usize = 4;
const NAME_MAX: usize = 80;

/// The certificate of a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Shown {
    /// What `trust` of `backend_tls` takes.
    pub(super) fingerprint: String,
    /// The names that it is for.
    names: Vec<String>,
    /// The last day on which it is valid.
    not_after: String,
    /// It has expired.
    expired: bool,
    /// The name under which an authority that this machine trusts vouches for it, if one does.
    #[serde(skip_serializing_if = "Option::is_none")]
    trusted_as: Option<String>,
}

impl Shown {
    fn of(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let own = chain.first()?;
        let identity = Identity::from_certificate(own, false).ok()?;
        let names: Vec<String> = identity
            .dns_names
            .iter()
            .cloned()
            .chain(identity.ips.iter().map(ToString::to_string))
            .take(NAMES_MAX)
            .map(|name| printable(&name, NAME_MAX))
            .collect();
        Some(Self {
            fingerprint: format!("sha256:{}", identity.fingerprint),
            names,
            not_after: date(identity.not_after),
            expired: identity.not_after < time::OffsetDateTime::now_utc().unix_timestamp(),
            trusted_as: trusted_as(&identity, chain),
        })
    }

    /// The line of the route that accepts it.
    pub(super) fn line(&self) -> String {
        match &self.trusted_as {
            // It is renewed every few weeks, and its fingerprint changes each time.
            Some(name) => format!("backend_tls = {{ trust = \"system\", server_name = \"{name}\" }}"),
            None => format!("backend_tls = {{ trust = \"{}\" }}", self.fingerprint),
        }
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = if self.names.is_empty() { "no name".to_owned() } else { self.names.join(", ") };
        let valid = if self.expired { "expired on" } else { "valid until" };
        write!(f, "certificate {} for {names}, {valid} {}", self.fingerprint, self.not_after)
    }
}

/// The name under which the authorities of this machine vouch for a certificate.
fn trusted_as(identity: &Identity, chain: &[CertificateDer<'_>]) -> Option<String> {
    let authorities = rustls_native_certs::load_native_certs().certs;
    let name = identity.dns_names.iter().find(|name| !name.starts_with('*'))?;
    BackendTls::accepts(&BackendTrust::System(authorities), chain, &backend_name(name)?).then(|| name.clone())
}

/// What came of TLS with a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is as `backend_tls` asks, or the route has none and the backend showed this.
    Agreed(Option<Box<Shown>>),
    /// It is not: why not.
    Refused(String),
}

/// Makes the handshake that the gate would make with the backend of this index; on a route without `backend_tls`, one that accepts
/// every certificate and ends there.
pub(super) fn handshake(
    route: &Route,
    index: usize,
    strength: CipherStrength,
    socket: Socket,
    limit: Duration,
) -> Outcome {
    let provider = Arc::clone(Suites::new(strength).provider());
    let tls = match &route.backend_tls {
        Some(config) => BackendTls::new(config, &provider).map(|tls| (tls, index)),
        None => BackendTls::looking(any_name(route.backends.get(index)), &provider).map(|tls| (tls, 0)),
    };
    let refused = |fault| {
        let backend = Text::new(route.backends.get(index).map(ToString::to_string).unwrap_or_default());
        Outcome::Refused(explain::detail(&Cause::BackendTls { backend, fault: Box::new(fault) }))
    };
    let (tls, index) = match tls {
        Ok(tls) => tls,
        Err(error) => return refused(BackendTlsFault::Other(Text::new(error))),
    };
    let connected = tokio::runtime::Builder::new_current_thread().enable_all().build().and_then(|runtime| {
        runtime.block_on(async {
            let stream = socket.into_stream()?;
            tokio::time::timeout(limit, tls.connect(stream, index, None)).await.map_err(std::io::Error::from)
        })
    });
    match connected {
        Ok(Ok(stream)) => Outcome::Agreed(Shown::of(stream.certificates()).map(Box::new)),
        // The certificate was seen, whatever came after it: a backend may ask for one of the gate's.
        Ok(Err(fault)) => match tls.seen() {
            Some(chain) => Outcome::Agreed(Shown::of(&chain).map(Box::new)),
            None => refused(fault),
        },
        Err(error) => Outcome::Refused(format!("no TLS within timeouts.dial: {error}")),
    }
}

/// Whether the header goes before TLS.
pub(super) fn header_comes_first(tls: Option<&checked::BackendTls>) -> bool {
    tls.is_none_or(|tls| tls.header == HeaderPlace::Before)
}

/// The name to say to a backend of which none is known.
fn any_name(backend: Option<&Backend>) -> ServerName<'static> {
    let own = match backend {
        Some(Backend::Host(host, _)) => backend_name(host),
        Some(Backend::Address(address)) => Some(ServerName::from(address.ip())),
        Some(Backend::Unix(_)) | None => None,
    };
    own.unwrap_or_else(|| ServerName::from(IpAddr::from([127, 0, 0, 1])))
}
