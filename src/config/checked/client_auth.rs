//! `[client_auth]` and `allow`: how client certificates are judged, and which ones a route admits.

use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};

use crate::model::identity::{Serial, Sha256};

/// What is asked of client certificates. The words are Caddy's, and mean what they mean there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuthMode {
    /// Ask; take none, and take any without verifying it.
    Request,
    /// Insist on one; take any without verifying it.
    Require,
    /// Ask; take none, but verify what is given.
    VerifyIfGiven,
    /// Insist on one and verify it.
    RequireAndVerify,
}

impl ClientAuthMode {
    /// The word in the configuration.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Require => "require",
            Self::VerifyIfGiven => "verify_if_given",
            Self::RequireAndVerify => "require_and_verify",
        }
    }

    /// Whether a client without a certificate is rejected.
    pub const fn requires(self) -> bool {
        matches!(self, Self::Require | Self::RequireAndVerify)
    }

    /// Whether a certificate must be vouched for by a trust anchor.
    pub const fn verifies(self) -> bool {
        matches!(self, Self::VerifyIfGiven | Self::RequireAndVerify)
    }
}

/// How client certificates are judged. A route's own `[route.client_auth]` takes every key it does not give from the
/// default `[client_auth]`; an empty list counts as given.
#[derive(Clone, Debug)]
pub struct ClientAuth {
    /// What is asked.
    pub mode: ClientAuthMode,
    /// The certificates that vouch for clients; at least one in every mode that verifies.
    pub trust: Vec<TrustAnchor>,
    /// Revocation lists; empty means that revocation is not checked by list.
    pub revocation_lists: Vec<RevocationList>,
    /// Lists that revoke beside those, and were not loaded with the configuration. They never make the status of a
    /// certificate unknown.
    pub newer_lists: Vec<Arc<NewerList>>,
    /// Certificates that are rejected without a list: those of the route and those of the default.
    pub deny: DenyList,
    /// Those of them that were loaded with the configuration, if others were added since.
    pub loaded_deny: Option<Arc<DenyList>>,
    /// What an expired revocation list means.
    pub expired_revocation_list: ExpiredRevocationList,
    /// Of which certificates a revocation list has to speak.
    pub revocation_check: RevocationCheck,
    /// What happens to sessions whose certificate expires.
    pub expired_session: ExpiredSession,
    /// Whether clients are told the names of the trust anchors (`certificate_authorities`, RFC 8446 section 4.2.4).
    /// Browsers then offer their user only the certificates that fit; but every client that sends the route's
    /// server name learns them, and a mkcert root is named after its owner.
    pub announce_trust: bool,
}

/// Which certificates of a path have to be on no revocation list, and need one that speaks for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevocationCheck {
    /// All but the trust anchor.
    Chain,
    /// The client's own only, for authorities whose root publishes no list.
    Leaf,
}

/// A certificate that vouches for clients, from a `trust` file.
#[derive(Clone, Debug)]
pub struct TrustAnchor {
    /// The file it came from.
    pub file: PathBuf,
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    /// What it vouches for.
    pub kind: TrustKind,
}

/// What a certificate in `trust` vouches for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrustKind {
    /// The certificates that it signed: it is an authority's.
    Authority,
    /// Itself only: it is that of one device, whose key must not make other devices.
    Pinned,
}

/// A certificate revocation list, from a `revocation_lists` file.
#[derive(Clone, Debug)]
pub struct RevocationList {
    /// The file it came from.
    pub file: PathBuf,
    /// The list.
    pub list: CertificateRevocationListDer<'static>,
    /// Who made it: the name of an authority, as it is encoded.
    pub issuer: Vec<u8>,
    /// SHA-256 of the key (SubjectPublicKeyInfo) in `trust` that signed it; `None` for the list of an authority that is not
    /// there, such as an intermediate.
    pub signer: Option<Sha256>,
    /// When it was made (`thisUpdate`), in seconds since 1970.
    pub this_update: i64,
    /// When its successor is due (`nextUpdate`), in seconds since 1970.
    pub next_update: Option<i64>,
    /// Its CRL number.
    pub number: Option<Serial>,
    /// SHA-256 of the list in binary form.
    pub sha256: Sha256,
    /// Whether it speaks for all certificates of its issuer: it is no delta, and has no issuing distribution point.
    pub whole: bool,
    /// What says for which part it speaks: the values of those extensions. Empty if it speaks for all.
    pub part: Vec<Vec<u8>>,
}

/// A list that was handed to the running gate, or was read although the configuration that names it could not be loaded.
#[derive(Clone, Debug)]
pub struct NewerList {
    /// The list. Of one that was handed over, `file` is empty.
    pub list: RevocationList,
    /// The certificate of the authority that signed it; `None` for a list from a file whose authority is in no `trust`.
    pub authority: Option<CertificateDer<'static>>,
}

/// Certificates that are rejected one by one.
#[derive(Clone, Debug, Default)]
pub struct DenyList {
    /// By fingerprint.
    pub fingerprints: HashSet<Sha256>,
    /// By serial number.
    pub serials: HashSet<Serial>,
}

/// What an expired revocation list means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpiredRevocationList {
    /// Certificates of its issuer are rejected.
    Deny,
    /// It is used as it is, and the gate warns.
    Warn,
}

/// What happens to a session whose certificate expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpiredSession {
    /// It ends.
    Cut,
    /// It goes on.
    Keep,
}

/// Which clients a route admits; groups are resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allow {
    /// `any`: every verified certificate.
    pub any: bool,
    /// `unverified`: clients with an unverified certificate or none, as far as the client-auth mode permits them.
    pub unverified: bool,
    /// Verified certificates that match one of these.
    pub selectors: Vec<Selector>,
}

/// What picks certificates out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Selector {
    /// A bare word: any of the names in the certificate.
    AnyName(String),
    /// `cn:`
    CommonName(String),
    /// `ou:`
    OrganizationalUnit(String),
    /// `dns:`, lower case.
    Dns(String),
    /// `email:`
    Email(String),
    /// `uri:`
    Uri(String),
    /// `ip:`
    Ip(IpAddr),
    /// `sha256:`
    Fingerprint(Sha256),
    /// `spki:`
    Spki(Sha256),
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AnyName(name) => f.write_str(name),
            Self::CommonName(name) => write!(f, "cn:{name}"),
            Self::OrganizationalUnit(name) => write!(f, "ou:{name}"),
            Self::Dns(name) => write!(f, "dns:{name}"),
            Self::Email(name) => write!(f, "email:{name}"),
            Self::Uri(name) => write!(f, "uri:{name}"),
            Self::Ip(ip) => write!(f, "ip:{ip}"),
            Self::Fingerprint(digest) => write!(f, "sha256:{digest}"),
            Self::Spki(digest) => write!(f, "spki:{digest}"),
        }
    }
}
