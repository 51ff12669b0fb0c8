//! Issues the gate's own certificate.

use std::path::PathBuf;

use rcgen::KeyPair;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use time::OffsetDateTime;

use super::Error;
use super::authority::{certify_server, default_names};
use super::inventory::{CertificateEntry, Kind, Store};
use super::issue::copy;
use super::signer::{self, PassphrasePrompt};
use crate::files::{Access, NewFile};
use crate::model::identity::{Identity, Serial, Sha256};
use crate::model::names::{ServerName, ServerNamePattern};
use crate::pki::keys::{self, KeyType};
use crate::pki::{Authority, IssuedCredentials};

/// The gate's certificate, in the folder of the authorities.
pub const CERTIFICATE_FILE: &str = "server.pem";
/// Its key.
pub const KEY_FILE: &str = "server-key.pem";

/// A new certificate for the gate.
#[derive(Clone, Debug)]
pub struct ServerRequest<'a> {
    /// The names it is for; if there are none, those of the current certificate.
    pub names: &'a [ServerNamePattern],
    /// Whether a new key is made even if there is one.
    pub new_key: bool,
    /// The type of a new key.
    pub key_type: KeyType,
    /// Whether a certificate and key that were not issued here may be replaced.
    pub replace: bool,
}

/// The certificate that was issued and written.
#[derive(Debug)]
pub struct IssuedServer {
    /// The names it is for.
    pub names: Vec<ServerNamePattern>,
    /// Its file.
    pub certificate: PathBuf,
    /// The file of its key.
    pub key: PathBuf,
    /// Whether the key is new.
    pub new_key: bool,
    /// Its fingerprint.
    pub fingerprint: Sha256,
    /// The fingerprint of the one that it replaces.
    pub replaced: Option<Sha256>,
    /// Its serial number.
    pub serial: Serial,
    /// When it expires.
    pub not_after: OffsetDateTime,
}

/// Issues a certificate for the gate and writes it, and the key if that is new.
pub fn issue(
    store: &mut Store,
    request: &ServerRequest<'_>,
    passphrase: PassphrasePrompt<'_>,
) -> Result<IssuedServer, Error> {
    let authority = signer::select(store, Kind::Server, None)?;
    let signer = signer::load(store, &authority, passphrase)?;
    let current = Current::read(store)?;
    if !request.replace && current.is_foreign(store) {
        return Err(Error::Exists([CERTIFICATE_FILE, KEY_FILE].map(|file| store.path(file)).into()));
    }
    let names = match request.names {
        [] => current.names().or_else(|| signer.domain().map(default_names)).ok_or(Error::NoServerNames)?,
        names => names.to_vec(),
    };
    check_domain(&names, &signer)?;
    let replaced = current.certificate.as_ref().map(|old| Sha256::of(old));
    let kept = current.key.filter(|_| !request.new_key);
    let new_key = kept.is_none();
    let key = kept.map_or_else(|| request.key_type.generate(), Ok)?;
    let server = IssuedCredentials::new(certify_server(&signer, &names, &key)?, key);

    let name = names.first().map(ToString::to_string).unwrap_or_default();
    let mut entry = CertificateEntry::issued(&name, Kind::Server, &authority.id, server.issued());
    let mut inventory = store.inventory.clone();
    entry.renews = replaced.and_then(|old| {
        let fingerprint = Some(old.to_string());
        inventory.certificates.iter().find(|entry| entry.fingerprint == fingerprint).map(|entry| entry.serial.clone())
    });
    let mut files = vec![copy(&entry, &server.certificate_pem())];
    if new_key {
        // Before the certificate: a gate that starts in between finds a key that does not match, reports it, and can be
        // started again.
        files.push(NewFile { path: KEY_FILE.into(), contents: server.key_pem().into(), access: Access::Private });
    }
    files.push(NewFile {
        path: CERTIFICATE_FILE.into(),
        contents: server.certificate_pem().into(),
        access: Access::Public,
    });
    inventory.certificates.push(entry);
    store.commit(inventory, files)?;
    Ok(IssuedServer {
        names,
        certificate: store.path(CERTIFICATE_FILE),
        key: store.path(KEY_FILE),
        new_key,
        fingerprint: Sha256::of(server.certificate()),
        replaced,
        serial: Serial::from_be_bytes(server.serial()),
        not_after: server.not_after(),
    })
}

/// The gate's certificate and key as they are in the folder.
struct Current {
    certificate: Option<CertificateDer<'static>>,
    key: Option<KeyPair>,
    key_exists: bool,
}

impl Current {
    fn read(store: &Store) -> Result<Self, Error> {
        let (certificate, key) = (store.read(CERTIFICATE_FILE)?, store.read(KEY_FILE)?);
        let key_exists = key.is_some();
        Ok(Self {
            certificate: certificate.and_then(|pem| CertificateDer::from_pem_slice(&pem).ok()),
            key: key.and_then(|pem| keys::read(&pem).ok()),
            key_exists,
        })
    }

    /// Whether what would be replaced was not issued here.
    fn is_foreign(&self, store: &Store) -> bool {
        let known = |der: &CertificateDer<'_>| {
            let fingerprint = Some(Sha256::of(der).to_string());
            store.inventory.certificates.iter().any(|entry| entry.fingerprint == fingerprint)
        };
        match &self.certificate {
            Some(certificate) => !known(certificate) || (self.key_exists && self.key.is_none()),
            None => self.key_exists || store.path(CERTIFICATE_FILE).exists(),
        }
    }

    fn names(&self) -> Option<Vec<ServerNamePattern>> {
        let identity = Identity::from_certificate(self.certificate.as_ref()?, false).ok()?;
        let names: Option<Vec<_>> = identity.dns_names.iter().map(|name| ServerNamePattern::parse(name).ok()).collect();
        names.filter(|names| !names.is_empty())
    }
}

/// Clients reject a certificate for names outside the name constraints of its authority.
fn check_domain(names: &[ServerNamePattern], signer: &Authority) -> Result<(), Error> {
    let Some(domain) = signer.domain() else { return Ok(()) };
    let within = |name: &ServerName| {
        name == domain || name.as_str().strip_suffix(domain.as_str()).is_some_and(|rest| rest.ends_with('.'))
    };
    let outside = names.iter().find(|name| match name {
        ServerNamePattern::Exact(name) | ServerNamePattern::Wildcard(name) => !within(name),
        ServerNamePattern::Default => true,
    });
    match outside {
        None => Ok(()),
        Some(name) => Err(Error::OutsideDomain { name: name.clone(), domain: domain.clone() }),
    }
}
