//! `doorward ca import`: an authority that is there already.

use std::env;
use std::path::{Path, PathBuf};

use clap::Args;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Serialize;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::passphrase::PassphraseArg;
use super::{CaError, FolderArg, Format, load, recall, revoke, say};
use crate::ca::inventory::{AuthorityEntry, Inventory, Signs};
use crate::model::identity::{Sha256, text};
use crate::model::names::printable;

/// The options of `doorward ca import`.
#[derive(Args, Debug)]
pub(super) struct ImportArgs {
    /// Take over the authority of mkcert, from the folder that "mkcert -CAROOT" prints [default: where mkcert looks]
    ///
    /// Its files stay where they are: mkcert goes on working, and its key is in no second place.
    #[arg(long, value_name = "CAROOT", num_args = 0..=1, required = true)]
    #[expect(clippy::option_option, reason = "left out, given, or given with a value: clap's way to say so")]
    mkcert: Option<Option<PathBuf>>,

    #[command(flatten)]
    folder: FolderArg,

    #[command(flatten)]
    passphrase: PassphraseArg,

    /// How to say what was done: for people on stderr, or as JSON on stdout
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    format: Format,
}

/// mkcert's names for its two files.
const MKCERT: [&str; 2] = ["rootCA.pem", "rootCA-key.pem"];

#[derive(Serialize)]
struct Imported {
    authority: String,
    subject: String,
    certificate: PathBuf,
    key: PathBuf,
    revocation_list: PathBuf,
    signs_lists: bool,
}

pub(super) fn run(args: &ImportArgs) -> Result<(), CaError> {
    let given = args.mkcert.as_ref().and_then(Option::as_ref);
    let root = given.cloned().or_else(mkcert_folder).ok_or_else(|| {
        CaError::usage("where mkcert keeps its files is not known\n  name the folder that \"mkcert -CAROOT\" prints")
    })?;
    let root = std::path::absolute(&root)?;
    let [certificate, key] = MKCERT.map(|file| root.join(file));
    let (fingerprint, subject) = look_at(&certificate, &key)?;

    let mut store = args.folder.open_or_create()?;
    let mut inventory = store.inventory.clone();
    let known = inventory.authorities.iter_mut().find(|authority| authority.fingerprint == fingerprint);
    let is_new = known.is_none();
    let entry = match known {
        Some(known) => {
            // Its files may have moved meanwhile. Those that are here are not mkcert's.
            if Path::new(&known.key).is_absolute() {
                (known.certificate, known.key) = (text(&certificate)?, text(&key)?);
            }
            known.clone()
        }
        None => {
            let id = free_id(&inventory);
            let entry = AuthorityEntry {
                signs: Signs::Everything,
                certificate: text(&certificate)?,
                key: text(&key)?,
                fingerprint,
                revocation_list: Some(format!("{id}.crl")),
                list_number: 0,
                id,
            };
            inventory.authorities.push(entry.clone());
            entry
        }
    };
    let signer = load(&store, &entry, &args.passphrase)?;
    // A list of this authority may lie there from before.
    recall(&store, &mut inventory)?;
    let files = revoke::list(&mut inventory, &entry.id, &signer)?.into_iter().map(|made| made.file).collect();
    store.commit(inventory, files)?;
    let imported = Imported {
        subject,
        certificate: store.path(&entry.certificate),
        key: store.path(&entry.key),
        revocation_list: store.path(entry.revocation_list.as_deref().unwrap_or_default()),
        signs_lists: signer.signs_lists(),
        authority: entry.id,
    };
    say(args.format, &imported.text(is_new), &imported)
}

impl Imported {
    fn text(&self, is_new: bool) -> String {
        let Self { authority, subject, certificate, key, revocation_list, signs_lists } = self;
        let mut out = format!(
            "{subject} is {} here as {authority:?}. Its files stay where they are:\n  {}\n  {}\nIts list of certificates that \
             no longer count is new:\n  {}\nThe gate looks at it once its configuration says so, under [client_auth]:\n  trust = [{:?}]\n  revocation_lists = [{:?}]\nThen revoke what mkcert has issued by its \
             file or its serial number:\n  doorward ca revoke --file FILE.pem\n",
            if is_new { "known" } else { "known already" },
            certificate.display(),
            key.display(),
            revocation_list.display(),
            certificate.display().to_string(),
            revocation_list.display().to_string(),
        );
        if !signs_lists {
            out.push_str(
                "note: this authority (as all of mkcert's) does not say of itself that it signs lists (cRLSign). The gate \
                 takes its lists all the same; OpenSSL, and what is built on it, does not.\n",
            );
        }
        out.push_str(&format!(
            "note: whoever has {} can pose as any site to a device that trusts this authority. doorward ca init makes one \
             that can vouch for your domain only.\n",
            key.display()
        ));
        out
    }
}

/// Where mkcert keeps its files, as mkcert finds it (`getCAROOT` in its main.go).
fn mkcert_folder() -> Option<PathBuf> {
    let variable = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(folder) = variable("CAROOT") {
        return Some(folder);
    }
    if let Some(data) = variable("XDG_DATA_HOME") {
        return Some(data.join("mkcert"));
    }
    let below = if cfg!(target_os = "macos") { "Library/Application Support/mkcert" } else { ".local/share/mkcert" };
    variable("HOME").map(|home| home.join(below))
}

/// Fingerprint and name of mkcert's root, if both files are there.
fn look_at(certificate: &Path, key: &Path) -> Result<(String, String), CaError> {
    let folder = certificate.parent().unwrap_or(certificate).display();
    let pem = std::fs::read(certificate).map_err(|error| {
        CaError::usage(format!(
            "cannot read {}: {error}\n  name the folder that \"mkcert -CAROOT\" prints, as in: doorward ca import --mkcert \
             FOLDER (asked as root, mkcert prints another one than for you)",
            certificate.display()
        ))
    })?;
    if let Err(error) = std::fs::metadata(key) {
        return Err(CaError::usage(format!(
            "cannot read {}: {error}\n  only who has the key of an authority can issue and revoke. Perhaps it was moved out \
             of {folder} to be safe: put it back for this",
            key.display()
        )));
    }
    let not_one = || CaError::usage(format!("{} has no certificate in it", certificate.display()));
    let der = CertificateDer::from_pem_slice(&pem).map_err(|_| not_one())?;
    let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| not_one())?;
    let name = parsed.subject().iter_common_name().next().map(text::attribute);
    let name = name.unwrap_or_else(|| text::name(parsed.subject()));
    Ok((Sha256::of(&der).to_string(), printable(&name, 128)))
}

/// The inventory is text, and so are the paths in it.
fn text(path: &Path) -> Result<String, CaError> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        CaError::usage(format!("{} has a name that is no text (UTF-8)\n  rename the folder", path.display()))
    })
}

/// `mkcert`, and for the roots of other machines `mkcert-2` and so on.
fn free_id(inventory: &Inventory) -> String {
    let mut id = "mkcert".to_owned();
    let mut count = 1;
    while inventory.authority(&id).is_some() {
        count += 1;
        id = format!("mkcert-{count}");
    }
    id
}
