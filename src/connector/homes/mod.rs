//! The homes that this user has joined: one file for each, in a folder of the user.
//!
//! Such a file is a [`Bundle`] whose key is not encrypted, readable by its user only, as a key of ssh is. Certificate and key are in
//! one file, so that a renewal replaces both at once or neither.

mod compare;
mod error;
mod find;
mod store;

use std::path::{Path, PathBuf};

use crate::bundle::{Bundle, BundleRoute};
use crate::model::names::ServerName;

pub use compare::{Difference, identity};
pub use error::{HomesError, NotFound};
pub(super) use find::qualified;
pub use store::{read_bundle, read_bundle_from, read_text};

/// The user's folder of homes.
#[derive(Clone, Debug)]
pub struct Homes {
    folder: PathBuf,
}

/// A home that this user has joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    /// What the user calls it: its domain, unless another name was chosen.
    pub name: String,
    /// What the device was given, with a key that needs no password.
    pub bundle: Bundle,
    /// The file that it was read from. It is replaced as a whole when something changes.
    pub file: PathBuf,
}

/// The homes that can be read, and the files that cannot.
#[derive(Debug, Default)]
pub struct Joined {
    /// By name.
    pub homes: Vec<Home>,
    /// Why each of the others cannot be used.
    pub broken: Vec<HomesError>,
}

/// A route of a home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The home.
    pub home: Home,
    /// The route.
    pub route: BundleRoute,
    /// The server name to ask for, which the gate's certificate must have.
    pub server_name: ServerName,
}

impl Target {
    /// The host to dial: a name or an IP address.
    pub fn host(&self) -> &str {
        self.home.bundle.address.as_deref().unwrap_or(self.server_name.as_str())
    }

    /// The port to dial.
    pub const fn port(&self) -> u16 {
        self.home.bundle.port
    }
}

impl Homes {
    /// The folder of this user. It need not exist.
    pub fn open() -> Result<Self, HomesError> {
        super::folder::settings().map(|settings| Self::at(settings.join("homes"))).ok_or(HomesError::NoFolder)
    }

    /// Homes in another folder.
    pub const fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}
