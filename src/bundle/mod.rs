//! What a device is given to reach a home, in one file: `NAME.doorward`.
//!
//! It says where the gate is, which routes the device may use, and why its certificate is trusted, and holds the device's
//! certificate and key. It is text (TOML) that people can read. The key is encrypted with the password of the device's archives, so
//! a file that is stolen without it is useless. Nothing here does I/O.

mod error;
mod key;
mod text;

use std::fmt;

use rustls::pki_types::CertificateDer;

pub use error::BundleError;
pub use key::{BundleKey, PlainKey};

use crate::model::device_name::DeviceName;
use crate::model::names::{Name, ServerName, ServerNamePattern};
use crate::model::service::ServiceKind;

/// The end of the names of these files.
pub const EXTENSION: &str = ".doorward";

/// The largest file that is read, in bytes. One with the longest keys and a hundred routes has 30 KiB.
pub const BYTES_MAX: usize = 256 * 1024;

/// What a device needs to reach one home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// What the home is called: its domain, as in `home.example`.
    pub home: ServerName,
    /// The device.
    pub device: DeviceName,
    /// The host to dial instead of the server name of a route: a name or an IP address.
    pub address: Option<String>,
    /// The port to dial.
    pub port: u16,
    /// What the device may use.
    pub routes: Vec<BundleRoute>,
    /// Why the gate's certificate is trusted.
    pub trust: Trust,
    /// The device's certificate, and those between it and its authority.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key of the certificate.
    pub key: BundleKey,
    /// The server name of the gate's service for renewals, if it has one.
    pub renewal: Option<ServerName>,
}

/// A route, as a device sees it. A route with several server names is several of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleRoute {
    /// Its name in the gate's configuration.
    pub name: Name,
    /// Which program uses it.
    pub kind: ServiceKind,
    /// The server name that leads to it: one name, or `*.name`; never [`ServerNamePattern::Default`], which cannot be asked for.
    pub server_name: ServerNamePattern,
}

impl BundleRoute {
    /// Its server name, if it is one that can be dialled as it is.
    pub const fn host(&self) -> Option<&ServerName> {
        match &self.server_name {
            ServerNamePattern::Exact(name) => Some(name),
            ServerNamePattern::Wildcard(_) | ServerNamePattern::Default => None,
        }
    }

    /// Whether this server name leads to it.
    pub fn answers_to(&self, name: &ServerName) -> bool {
        match &self.server_name {
            ServerNamePattern::Exact(own) => own == name,
            ServerNamePattern::Wildcard(domain) => name.parent() == Some(domain.as_str()),
            ServerNamePattern::Default => false,
        }
    }
}

/// Why the gate's certificate is trusted.
#[derive(Clone, PartialEq, Eq)]
pub enum Trust {
    /// One of these authorities vouches for it, and no other may.
    Authorities(Vec<CertificateDer<'static>>),
    /// A public authority vouches for it, as the system knows them.
    Public,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authorities(authorities) => write!(f, "Authorities({})", authorities.len()),
            Self::Public => f.write_str("Public"),
        }
    }
}

impl Bundle {
    /// The name of the file that this device is given.
    pub fn file_name(&self) -> String {
        format!("{}{EXTENSION}", self.device.slug())
    }

    /// The device's own certificate.
    pub fn certificate(&self) -> &[u8] {
        self.chain.first().map_or(&[], |certificate| certificate)
    }
}

#[cfg(test)]
mod tests;
