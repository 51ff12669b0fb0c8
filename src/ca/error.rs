//! Why the authority did not do what it was asked.

use std::fmt;
use std::io;
use std::path::PathBuf;

use time::{Date, OffsetDateTime};

use super::inventory::{Kind, StoreError};
use crate::enrolment;
use crate::files;
use crate::model::device_name::{DeviceName, InvalidDeviceName};
use crate::model::identity::{Serial, Sha256};
use crate::model::names::{ServerName, ServerNamePattern};
use crate::model::shell;
use crate::pki;

/// The authority did not do what it was asked. Nothing was changed, unless it is [`StoreError::Unfinished`].
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// These files exist and would be overwritten.
    Exists(Vec<PathBuf>),
    /// Two devices would be written to this file.
    SameFile(PathBuf),
    /// A certificate or key could not be made.
    Pki(pki::Error),
    /// The files for a device could not be made.
    Enrolment(enrolment::Error),
    /// The folder of the authorities could not be read or written.
    Store(StoreError),
    /// No passphrase was given: why not.
    Passphrase(String),
    /// No authority of this name signs certificates of this kind.
    UnknownAuthority {
        /// The name.
        id: String,
        /// The kind, if the authority must sign certificates of one.
        kind: Option<Kind>,
        /// The authorities that do.
        known: Vec<String>,
    },
    /// No authority here signs certificates of this kind.
    NoAuthority {
        /// The folder of the authorities.
        folder: PathBuf,
        /// The kind.
        kind: Kind,
    },
    /// The authority keeps no revocation list.
    NoRevocationList(String),
    /// No authority in this folder keeps a revocation list.
    NoRevocationLists(PathBuf),
    /// There is no key in this folder that could be encrypted.
    NoKeys(PathBuf),
    /// No device is called this.
    UnknownDevice(String),
    /// No device is called this, so none can be revoked.
    NothingToRevoke {
        /// The name.
        name: String,
        /// The names of devices.
        known: Vec<String>,
        /// There is a file of that name.
        is_file: bool,
    },
    /// The inventory has a name that no device can have.
    InvalidName(InvalidDeviceName),
    /// A new device: one of this name has a valid certificate.
    DeviceExists {
        /// The device.
        name: String,
        /// When its certificate expires.
        not_after: Option<OffsetDateTime>,
    },
    /// A new device: one of this name has a certificate that expired.
    DeviceExpired {
        /// The device.
        name: String,
        /// When it expired.
        not_after: Option<OffsetDateTime>,
    },
    /// A guest pass is not renewed.
    GuestPass {
        /// The device.
        name: String,
        /// The routes that it is for.
        routes: Vec<String>,
    },
    /// A new device: its name looks like another one's.
    Confusable {
        /// The new device.
        name: DeviceName,
        /// The other one.
        other: String,
    },
    /// A new device: its files would be named as those of another one.
    FilesOfOtherDevice {
        /// The new device.
        name: DeviceName,
        /// The other one.
        other: String,
    },
    /// A new device: its key is that of a certificate that is revoked, of this name.
    KeyOfRevoked(String),
    /// A new device: its key is that of the certificate of this name.
    KeyOfOtherDevice(String),
    /// Not a device: this is the name of the gate's certificate.
    IsServer(String),
    /// The certificate of this device was not issued here, so it cannot be renewed.
    NotIssuedHere(String),
    /// The certificate of this device is revoked, so it cannot be renewed.
    Revoked(String),
    /// It is not known for which names a server certificate should be.
    NoServerNames,
    /// The authority's name constraints exclude this name.
    OutsideDomain {
        /// The name.
        name: ServerNamePattern,
        /// The domain that the authority is limited to.
        domain: ServerName,
    },
    /// The inventory has no certificate of this fingerprint.
    UnknownFingerprint(Sha256),
    /// The inventory has no certificate of this serial number, and several authorities could have signed it.
    UnknownSerial {
        /// The serial number.
        serial: Serial,
        /// The authorities that keep a revocation list.
        authorities: Vec<String>,
    },
    /// A certificate of the gate cannot be revoked: devices read no revocation list.
    ServerNotRevocable,
    /// A file cannot be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There is no certificate in this file.
    NoCertificateIn(PathBuf),
    /// This PKCS#12 file has a password that is not known.
    ArchivePassword(PathBuf),
    /// This certificate was signed by an authority that keeps no revocation list.
    SignedWithoutList {
        /// The certificate.
        path: PathBuf,
        /// The authority.
        authority: String,
    },
    /// This certificate was signed by none of the authorities.
    SignedElsewhere {
        /// The certificate.
        path: PathBuf,
        /// The folder of the authorities.
        folder: PathBuf,
        /// Its issuer.
        issuer: String,
        /// Its fingerprint.
        fingerprint: Sha256,
    },
    /// mkcert's certificate cannot be read.
    MkcertCertificate {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// mkcert's key cannot be read.
    MkcertKey {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A path is not valid UTF-8, so the inventory cannot hold it.
    PathNotUtf8(PathBuf),
}

/// A name with every character outside ASCII as its number.
fn escaped(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii() { c.to_string() } else { format!("[U+{:04X}]", u32::from(c)) }).collect()
}

/// How to block a device without its authority's key.
const DENY: &str = "in the gate's configuration";

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists(paths) => write!(f, "{}; nothing was written", files::Error::Exists(paths.clone())),
            Self::SameFile(path) => {
                write!(f, "two devices would be written to {}\n  give one of them another name", path.display())
            }
            Self::Pki(error) => write!(f, "{error}"),
            Self::Enrolment(error) => write!(f, "{error}"),
            Self::Store(error) => write!(f, "{error}"),
            Self::Passphrase(why) => f.write_str(why),
            Self::UnknownAuthority { id, kind, known } => {
                write!(f, "no authority named {id:?}")?;
                if let Some(kind) = kind {
                    write!(f, " signs {kind} certificates")?;
                }
                write!(f, "\n  there are: {}", known.join(", "))
            }
            Self::NoAuthority { folder, kind } => write!(
                f,
                "no authority in {} signs {kind} certificates\n  create one: doorward ca init --help",
                folder.display()
            ),
            Self::NoRevocationList(id) => write!(
                f,
                "the authority {id:?} has no revocation list in the inventory, so its certificates cannot be revoked\n  to \
                 block a device anyway: deny = [\"sha256:FINGERPRINT\"] {DENY}"
            ),
            Self::NoRevocationLists(folder) => write!(
                f,
                "no authority in {} keeps a revocation list\n  create one that does: doorward ca init --help",
                folder.display()
            ),
            Self::NoKeys(folder) => write!(f, "no private key found in {}", folder.display()),
            Self::UnknownDevice(name) => {
                write!(f, "no device named {name:?}\n  list all devices: doorward ca list")
            }
            Self::NothingToRevoke { name, known, is_file } => {
                write!(f, "no device named {name:?}\n  ")?;
                match (is_file, &known[..]) {
                    (true, _) => write!(f, "to revoke the certificate in that file: doorward ca revoke --file {}", shell::word(name)),
                    (false, []) => f.write_str("no device certificate was issued here"),
                    (false, known) => write!(f, "there are: {}", known.join(", ")),
                }
            }
            Self::InvalidName(error) => write!(f, "{error}"),
            Self::DeviceExists { name, not_after } => write!(
                f,
                "{name} already has a certificate, valid until {}\n  to extend it: doorward ca renew {word}\n  if the \
                 device is lost: doorward ca revoke {word}, then run this command again\n  for another device, choose \
                 another name",
                date(*not_after),
                word = shell::word(name),
            ),
            Self::DeviceExpired { name, not_after } => write!(
                f,
                "the certificate of {name} expired on {}\n  renew it: doorward ca renew {word}",
                date(*not_after),
                word = shell::word(name),
            ),
            Self::GuestPass { name, routes } => {
                let routes: Vec<String> = routes.iter().map(|route| format!(" --route {}", shell::word(route))).collect();
                write!(
                    f,
                    "{name} has a guest pass, which cannot be renewed\n  make another one: doorward ca device {} --for 3h{}",
                    shell::word(name),
                    routes.concat()
                )
            }
            Self::Confusable { name, other } => write!(
                f,
                "{name} looks like {other}, which is another device: {} and {}\n  choose another name",
                escaped(name.as_str()),
                escaped(other)
            ),
            Self::FilesOfOtherDevice { name, other } => {
                write!(f, "{name} would overwrite files of {other}\n  choose another name")
            }
            Self::KeyOfRevoked(name) => write!(
                f,
                "the key of this request is that of {name}, whose certificate is revoked\n  the device has to make a new key"
            ),
            Self::KeyOfOtherDevice(name) => write!(
                f,
                "the key of this request has a certificate already, which is called {name}\n  to extend it: doorward ca renew {}",
                shell::word(name)
            ),
            Self::IsServer(name) => {
                write!(f, "{name} is the gate, not a device\n  renew its certificate: doorward ca renew --server")
            }
            Self::NotIssuedHere(name) => write!(
                f,
                "the certificate of {name} was not issued here, so it cannot be renewed\n  issue a new one: doorward ca \
                 device NAME"
            ),
            Self::Revoked(name) => write!(
                f,
                "the certificate of {name} is revoked\n  issue a new one with a new key: doorward ca device {word}",
                word = shell::word(name),
            ),
            Self::NoServerNames => f.write_str(
                "the names for the certificate are not known\n  name them, as in: doorward ca server home.example \
                 \"*.home.example\"",
            ),
            Self::OutsideDomain { name, domain } => write!(
                f,
                "{name} is not below {domain}, which the authority is limited to: clients would reject the certificate\n  \
                 for another domain, create other authorities: doorward ca init --domain DOMAIN --folder FOLDER"
            ),
            Self::UnknownFingerprint(fingerprint) => write!(
                f,
                "no certificate with the fingerprint {fingerprint} in the inventory, and a revocation list needs the serial \
                 number\n  name the certificate (--file) or its serial number (--serial), which the log has beside the \
                 fingerprint"
            ),
            Self::UnknownSerial { serial, authorities } => write!(
                f,
                "no certificate with the serial number {serial} in the inventory\n  if it was issued elsewhere, name the \
                 authority that signed it (--authority {}) or the certificate (--file)",
                authorities.join(" or --authority ")
            ),
            Self::ServerNotRevocable => f.write_str(
                "this is a certificate of the gate, and devices read no revocation list\n  if its key was stolen, replace \
                 it: doorward ca server --new-key",
            ),
            Self::Unreadable { path, source } => write!(f, "cannot read {}: {source}", path.display()),
            Self::NoCertificateIn(path) => {
                write!(f, "no certificate found in {}\n  name the device's .pem file", path.display())
            }
            Self::ArchivePassword(path) => write!(
                f,
                "{} is a PKCS#12 file with a password of its own\n  name the device's .pem file, or use --serial or \
                 --fingerprint with what the gate's log says",
                path.display()
            ),
            Self::SignedWithoutList { path, authority } => write!(
                f,
                "{} was signed by the authority {authority:?}, which signs server certificates and keeps no revocation list",
                path.display()
            ),
            Self::SignedElsewhere { path, folder, issuer, fingerprint } => write!(
                f,
                "{} was signed by none of the authorities in {}; its issuer is {issuer:?}\n  only the authority that \
                 signed a certificate can revoke it. To block the device anyway: deny = [\"sha256:{fingerprint}\"] {DENY}",
                path.display(),
                folder.display(),
            ),
            Self::MkcertCertificate { path, source } => write!(
                f,
                "cannot read {}: {source}\n  name the folder that \"mkcert -CAROOT\" prints: doorward ca import --mkcert \
                 FOLDER (run as root, mkcert prints another folder than as your user)",
                path.display()
            ),
            Self::MkcertKey { path, source } => write!(
                f,
                "cannot read {}: {source}\n  issuing and revoking need the authority's key. If it was moved away for \
                 safety, put it back for this command",
                path.display()
            ),
            Self::PathNotUtf8(path) => write!(f, "{} is not valid UTF-8\n  rename the folder", path.display()),
        }
    }
}

fn date(at: Option<OffsetDateTime>) -> String {
    at.map(OffsetDateTime::date).as_ref().map(Date::to_string).unwrap_or_default()
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Pki(error) => Some(error),
            Self::Enrolment(error) => Some(error),
            Self::Store(error) => Some(error),
            _ => None,
        }
    }
}

impl From<pki::Error> for Error {
    fn from(error: pki::Error) -> Self {
        Self::Pki(error)
    }
}

impl From<enrolment::Error> for Error {
    fn from(error: enrolment::Error) -> Self {
        Self::Enrolment(error)
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}
