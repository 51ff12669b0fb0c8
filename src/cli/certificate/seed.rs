//! The certificate that a gate shows until its first public one is issued: the one that it has shown so far.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use time::OffsetDateTime;

use crate::acme::store::{Ordered, Store};
use crate::config;
use crate::config::checked::{Acme, Certificate, StateFolder};
use crate::config::server_trust::covers;
use crate::files::{self, Access, Existing, NewFile};
use crate::install::Installed;
use crate::model::identity::Identity;

/// Puts the certificate `old` where the gate reads its public one, unless there is one for the names already. Otherwise devices would
/// be shown a temporary certificate, which they do not trust, until the order has succeeded.
///
/// # Errors
/// In words, why it cannot be done.
pub(super) fn seed(acme: &Acme, config: &Path, old: &Certificate) -> Result<Seeded, String> {
    let folder = folder(acme, config);
    let file = folder.join(Acme::CERTIFICATE);
    match fs::read(&file) {
        Ok(pem) => {
            let there = config::one_file_certificate(&file, &pem).ok().map(|(certificate, _)| certificate);
            if there.is_some_and(|there| fits(&there, acme)) {
                return Ok(Seeded::ThereAlready);
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(format!("cannot read {}: {error}", file.display())),
    }
    if !fits(old, acme) {
        return Ok(Seeded::DoesNotFit);
    }
    let read = |file: &Path| fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()));
    let mut pem = read(&old.chain_file)?;
    if !pem.ends_with(b"\n") {
        pem.push(b'\n');
    }
    pem.extend(read(&old.key_file)?);
    // Before the certificate: it would otherwise be taken for the one that was ordered.
    let store = Store::new(&folder);
    let forgotten = match store.issued() {
        Ok(None) => Ok(()),
        _ => store.keep_issued(&Ordered { directory: String::new(), names: BTreeSet::new(), at: 0 }),
    };
    forgotten.map_err(|error| error.to_string())?;
    let new = NewFile { path: file, contents: pem, access: Access::Private };
    files::write_all(&[new], Existing::Replace).map_err(|error| {
        let source = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
        format!("{error}{source}")
    })?;
    Ok(Seeded::Placed)
}

/// What is shown until the first certificate is issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seeded {
    /// The certificate that was shown before.
    Placed,
    /// One that was issued earlier.
    ThereAlready,
    /// A temporary one: the one before is not for all of the names, or has expired.
    DoesNotFit,
}

/// The folder in which the gate of this configuration keeps its public certificate.
fn folder(acme: &Acme, config: &Path) -> PathBuf {
    let installed = Installed::find().is_some_and(|installed| installed.config() == config);
    if installed && Path::new(StateFolder::OF_THE_SERVICE).is_dir() {
        return acme.state.path(Some(OsStr::new(StateFolder::OF_THE_SERVICE)));
    }
    acme.folder()
}

/// Whether clients that ask for the names can be shown this certificate now.
fn fits(certificate: &Certificate, acme: &Acme) -> bool {
    let Some(leaf) = certificate.certified_key.cert.first() else { return false };
    Identity::from_certificate(leaf, false).is_ok_and(|identity| {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        (identity.not_before..=identity.not_after).contains(&now)
            && acme.names.iter().all(|name| covers(&identity.dns_names, name))
    })
}
