//! What the kernel of this machine can take over.

use super::{cipher_of, version_of};
use crate::sys::ktls::{Cipher, Probe, Version};
use crate::tls::record::Keys;

/// What the kernel of this machine can take over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Support {
    pub(super) suites: Vec<(Version, Cipher)>,
    pub(super) changes_keys: bool,
    pub(super) missing: Vec<String>,
}

impl Support {
    /// Nothing at all.
    pub fn none() -> Self {
        Self::default()
    }

    /// What was found out at the start.
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

    /// Whether it can take over anything.
    pub fn any(&self) -> bool {
        !self.suites.is_empty()
    }

    /// What it cannot take over, and why.
    pub fn missing(&self) -> &[String] {
        &self.missing
    }

    /// Whether it can take over a connection with these keys.
    pub fn fits(&self, keys: &Keys) -> bool {
        cipher_of(&keys.send).is_some_and(|(cipher, ..)| self.suites.contains(&(version_of(&keys.schedule), cipher)))
    }
}
