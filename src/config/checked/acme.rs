//! `[certificate.acme]`: a public certificate, which an ACME server issues (RFC 8555).

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;

use super::{Certificate, CertificateSource, Config, Dns, Route, RouteMode, Secret, StateFolder};

/// A public certificate for the server names of the routes that have none of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acme {
    /// `contact`: how the server can reach the owner, as a URL; most servers take `mailto:` only.
    pub contact: Option<String>,
    /// `directory`: where it is ordered.
    pub directory: AcmeDirectory,
    /// `trial`: where an order must succeed before one is placed at `directory`.
    pub trial: Option<AcmeDirectory>,
    /// `trust`: the authorities that may sign the certificates of these servers, instead of those that the machine trusts.
    pub trust: Option<Vec<CertificateDer<'static>>>,
    /// `challenge`: how the server sees that the names belong to the owner.
    pub challenge: Challenge,
    /// `state`: the folder of the certificate, and of what is kept about it.
    pub state: StateFolder,
    /// `profile`: one of those that the server offers (draft-ietf-acme-profiles).
    pub profile: Option<String>,
    /// `eab`: an account elsewhere that the one at the server is bound to (RFC 8555 section 7.3.4).
    pub eab: Option<Eab>,
    /// The names that are ordered, lower case, without a dot at the end.
    pub names: BTreeSet<String>,
    /// The files that were read for it.
    pub files: Vec<PathBuf>,
}

/// An ACME server, by its directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcmeDirectory {
    /// As it is written in the configuration.
    pub name: String,
    /// Its URL, with https.
    pub url: String,
}

impl Config {
    /// Goes on using the public certificate of the configuration before, where this one found none in the file: whatever has
    /// happened to that, clients trust the certificate until it expires.
    pub(crate) fn keep_public_certificate(&mut self, before: &Self) {
        let terminated = |route: &Route| match &route.mode {
            RouteMode::Terminate(terminate) => Some(Arc::clone(&terminate.certificate)),
            RouteMode::Passthrough => None,
        };
        let of_acme = |one: &Arc<Certificate>| one.source == CertificateSource::Acme;
        let Some(kept) = before.served().filter_map(terminated).find(of_acme) else { return };
        let mut is_kept = false;
        for route in self.routes.iter_mut().chain(self.renewal.as_mut().map(|renewal| &mut renewal.route)) {
            if let RouteMode::Terminate(terminate) = &mut route.mode
                && terminate.certificate.source == CertificateSource::Temporary
            {
                terminate.certificate = Arc::clone(&kept);
                is_kept = true;
            }
        }
        if is_kept {
            for warning in self
                .warnings
                .iter_mut()
                .filter(|warning| warning.key == Acme::KEY && warning.message.contains(Acme::UNTIL_ISSUED))
            {
                let found = warning.message.split(Acme::UNTIL_ISSUED).next().unwrap_or_default();
                warning.message = format!("{found}; the certificate before is used until it expires");
            }
        }
    }
}

impl Acme {
    /// The default name of the folder.
    pub const FOLDER: &str = "acme";

    /// The certificate in it, with its key.
    pub const CERTIFICATE: &str = "live/certificate.pem";

    /// The folder, for the gate and for a command that runs beside it.
    pub fn folder(&self) -> PathBuf {
        self.state.places().swap_remove(0)
    }

    /// The file of the certificate and its key.
    pub fn certificate_file(&self) -> PathBuf {
        self.folder().join(Self::CERTIFICATE)
    }

    /// The section.
    pub(crate) const KEY: &str = "certificate.acme";

    /// The end of the warning that there is no certificate.
    pub(crate) const UNTIL_ISSUED: &str =
        "; until there is one, clients are shown a temporary certificate, which they do not trust";
}

/// How an ACME server sees that a name belongs to the owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// It connects to port 443 of the name (RFC 8737).
    TlsAlpn01,
    /// It asks for a TXT record of the name (RFC 8555 section 8.4).
    Dns01(Dns),
}

/// An account elsewhere, as a key that both sides know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eab {
    /// What the server knows the key by.
    pub key_id: String,
    /// The key, base64url without padding.
    pub key: Secret,
}
