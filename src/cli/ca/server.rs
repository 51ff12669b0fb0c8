//! `doorward ca server`: the gate's own certificate.

use std::path::PathBuf;

use clap::Args;
use rcgen::KeyPair;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Serialize;

use super::found::{SERVER, copy};
use super::gate::{Changed, Told, tell_gate};
use super::passphrase::PassphraseArg;
use super::{CaError, FolderArg, Format, authority_for, load, say};
use crate::ca::files::{Access, NewFile};
use crate::ca::inventory::{Entry, Kind, Store};
use crate::model::identity::{Identity, Sha256};
use crate::model::names::{ServerName, ServerNamePattern};
use crate::pki::keys::{self, KeyType};
use crate::pki::{Authority, Issued, usual_names};

/// The options of `doorward ca server`.
#[derive(Args, Debug)]
pub(super) struct ServerArgs {
    /// What it is for, as in "home.example" or "*.home.example" [default: as before, else your domain and every name one
    /// label below it]
    #[arg(value_name = "NAME", value_parser = parse_name)]
    names: Vec<ServerNamePattern>,

    #[command(flatten)]
    new: NewServer,
}

/// How a certificate of the gate is made.
#[derive(Args, Debug)]
pub(super) struct NewServer {
    #[command(flatten)]
    pub(super) folder: FolderArg,

    #[command(flatten)]
    pub(super) passphrase: PassphraseArg,

    /// Make a new key, too: if somebody else may have the old one
    #[arg(long)]
    pub(super) new_key: bool,

    /// What kind of key, if a new one is made. Browsers and phones take p256 and rsa
    #[arg(long, value_enum, value_name = "TYPE", default_value_t)]
    pub(super) key_type: KeyType,

    /// Replace a certificate and key that were not made here
    #[arg(long)]
    pub(super) force: bool,

    /// How to say what was made: for people on stderr, or as JSON on stdout
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    pub(super) format: Format,
}

fn parse_name(text: &str) -> Result<ServerNamePattern, String> {
    match ServerNamePattern::parse(text) {
        Ok(ServerNamePattern::Default) => Err("a certificate for every name there is: nobody would take it".to_owned()),
        Ok(name) => Ok(name),
        Err(error) => Err(error.to_string()),
    }
}

#[derive(Serialize)]
struct Made {
    names: Vec<String>,
    certificate: PathBuf,
    key: PathBuf,
    new_key: bool,
    fingerprint: String,
    serial: String,
    not_after: i64,
    /// What the gate makes of it.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    told: Option<Told>,
}

pub(super) fn run(args: &ServerArgs) -> Result<(), CaError> {
    make(&args.names, &args.new)
}

/// Makes the gate a certificate for these names; if there are none, for those it had.
pub(super) fn make(names: &[ServerNamePattern], args: &NewServer) -> Result<(), CaError> {
    let mut store = args.folder.open()?;
    let authority = authority_for(&store, Kind::Server, None)?;
    let signer = load(&store, &authority, &args.passphrase)?;
    let current = Current::read(&store)?;
    if !args.force && current.is_foreign(&store) {
        let [certificate, key] = SERVER.map(|file| store.path(file));
        return Err(CaError::exists(
            vec![certificate, key],
            "the certificate there was not made here. Move it and its key away, or replace both with --force",
        ));
    }
    let names = match names {
        [] => current.names().or_else(|| signer.domain().map(usual_names)).ok_or_else(|| {
            CaError::usage("for which names? As in: doorward ca server home.example \"*.home.example\"")
        })?,
        names => names.to_vec(),
    };
    check_domain(&names, &signer)?;
    let kept = current.key.filter(|_| !args.new_key);
    let new_key = kept.is_none();
    let key = kept.map_or_else(|| args.key_type.generate(), Ok)?;
    let server = Issued::new(signer.certify_server(&names, &key)?, key);

    let name = names.first().map(ToString::to_string).unwrap_or_default();
    let mut entry = Entry::issued(&name, Kind::Server, &authority.id, server.certified());
    let mut inventory = store.inventory.clone();
    let replaced = current.certificate.as_ref().map(|old| Sha256::of(old));
    entry.renews = replaced.and_then(|old| {
        let fingerprint = old.to_string();
        let known = inventory.certificates.iter().find(|entry| entry.fingerprint.as_ref() == Some(&fingerprint));
        known.map(|entry| entry.serial.clone())
    });
    let [certificate_file, key_file] = SERVER;
    let mut files = vec![copy(&entry, &server.certificate_pem())];
    if new_key {
        // Before the certificate. A gate that starts in between finds two that do not belong together, says so, and can
        // be started again.
        files.push(NewFile { path: key_file.into(), contents: server.key_pem().into(), access: Access::Private });
    }
    files.push(NewFile {
        path: certificate_file.into(),
        contents: server.certificate_pem().into(),
        access: Access::Public,
    });
    let mut made = Made {
        names: names.iter().map(ToString::to_string).collect(),
        certificate: store.path(certificate_file),
        key: store.path(key_file),
        new_key,
        fingerprint: Sha256::of(server.certificate()).to_string(),
        serial: entry.serial.clone(),
        not_after: server.not_after().unix_timestamp(),
        told: None,
    };
    inventory.certificates.push(entry);
    store.commit(inventory, files)?;
    let new = Sha256::of(server.certificate());
    let told = tell_gate(&args.folder, &store, Changed::Certificate { file: &made.certificate, new, old: replaced });
    let text = format!(
        "{} is the gate's certificate for {}, good until {}.\n{}\n{}",
        made.certificate.display(),
        made.names.join(", "),
        server.not_after().date(),
        if new_key { format!("{} is its new key.", made.key.display()) } else { "Its key is the same.".to_owned() },
        told.text,
    );
    made.told = Some(told);
    say(args.format, &text, &made)?;
    made.told.as_mut().map_or(Ok(()), Told::outcome)
}

/// What the folder has of the gate now.
struct Current {
    certificate: Option<CertificateDer<'static>>,
    key: Option<KeyPair>,
    key_is_there: bool,
}

impl Current {
    fn read(store: &Store) -> Result<Self, CaError> {
        let [certificate, key] = SERVER;
        let (certificate, key) = (store.read(certificate)?, store.read(key)?);
        let key_is_there = key.is_some();
        Ok(Self {
            certificate: certificate.and_then(|pem| CertificateDer::from_pem_slice(&pem).ok()),
            key: key.and_then(|pem| keys::read(&pem).ok()),
            key_is_there,
        })
    }

    /// Whether what would be replaced came from somewhere else.
    fn is_foreign(&self, store: &Store) -> bool {
        let known = |der: &CertificateDer<'_>| {
            let fingerprint = Some(Sha256::of(der).to_string());
            store.inventory.certificates.iter().any(|entry| entry.fingerprint == fingerprint)
        };
        match &self.certificate {
            Some(certificate) => !known(certificate) || (self.key_is_there && self.key.is_none()),
            None => self.key_is_there || store.path(SERVER[0]).exists(),
        }
    }

    fn names(&self) -> Option<Vec<ServerNamePattern>> {
        let identity = Identity::from_certificate(self.certificate.as_ref()?, false).ok()?;
        let names: Option<Vec<_>> = identity.dns_names.iter().map(|name| ServerNamePattern::parse(name).ok()).collect();
        names.filter(|names| !names.is_empty())
    }
}

/// Clients refuse a certificate for names that its authority may not vouch for.
fn check_domain(names: &[ServerNamePattern], signer: &Authority) -> Result<(), CaError> {
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
        Some(name) => Err(CaError::usage(format!(
            "{name} is not below {domain}, and this authority can vouch for nothing else: clients would refuse it\n  for \
             another domain make other authorities: doorward ca init --domain DOMAIN --folder FOLDER"
        ))),
    }
}
