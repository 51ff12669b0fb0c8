//! Which cipher suites the kernel of this machine supports.

use super::{cipher_of, version_of};
use crate::sys::ktls::{Cipher, Probe, Version};
use crate::tls::record::Keys;

/// What kernel TLS supports on this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Support {
    pub(super) suites: Vec<(Version, Cipher)>,
    pub(super) changes_keys: bool,
    pub(super) missing: Vec<String>,
}

impl Support {
    /// No kernel TLS.
    pub fn none() -> Self {
        Self::default()
    }

    /// What the probe at start has found.
    pub fn found(probe: Probe) -> Self {
        let mut support = Self { changes_keys: probe.changes_keys, ..Self::default() };
        for (version, cipher, result) in probe.suites {
            match result {
                Ok(()) => support.suites.push((version, cipher)),
                Err(error) => support.missing.push(format!("{version} with {cipher}: {error}")),
            }
        }
        support
    }

    /// Whether any cipher suite is supported.
    pub fn any(&self) -> bool {
        !self.suites.is_empty()
    }

    /// The cipher suites that are not supported, each with the reason.
    pub fn missing(&self) -> &[String] {
        &self.missing
    }

    /// Whether a connection with these keys is supported.
    pub fn fits(&self, keys: &Keys) -> bool {
        cipher_of(&keys.send).is_some_and(|(cipher, ..)| self.suites.contains(&(version_of(&keys.schedule), cipher)))
    }
}
