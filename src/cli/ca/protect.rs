//! `doorward ca passphrase`: encrypt the keys of authorities that are there, or decrypt them.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::passphrase::{PassphraseArg, choose};
use super::{CaError, FolderArg, Format, load, say};
use crate::ca::files::{Access, NewFile};

/// The options of `doorward ca passphrase`.
#[derive(Args, Debug)]
pub(super) struct ProtectArgs {
    #[command(flatten)]
    folder: FolderArg,

    #[command(flatten)]
    passphrase: PassphraseArg,

    /// The new passphrase is the first line of this file [default: it is asked for, twice]
    #[arg(long, value_name = "FILE", conflicts_with = "remove")]
    new_passphrase_file: Option<PathBuf>,

    /// Leave the keys without encryption
    #[arg(long)]
    remove: bool,

    /// How to say what was done: for people on stderr, or as JSON on stdout
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    format: Format,
}

#[derive(Serialize)]
struct Protected {
    keys: Vec<PathBuf>,
    encrypted: bool,
}

pub(super) fn run(args: &ProtectArgs) -> Result<(), CaError> {
    let mut store = args.folder.open()?;
    // Keys that mkcert uses, too, are mkcert's.
    let own = store.inventory.authorities.iter().filter(|authority| Path::new(&authority.key).is_relative());
    let own = own.map(|entry| Ok((entry.key.clone(), load(&store, entry, &args.passphrase)?)));
    let own = own.collect::<Result<Vec<_>, CaError>>()?;
    if own.is_empty() {
        return Err(CaError::usage(format!("there is no key in {}", store.folder().display())));
    }
    let new = match args.remove {
        true => None,
        false => Some(choose(args.new_passphrase_file.as_deref(), "--new-passphrase-file")?),
    };
    let mut files = Vec::new();
    for (path, authority) in &own {
        let contents = match &new {
            Some(new) => authority.encrypted_key_pem(new)?.to_string(),
            None => authority.key_pem(),
        };
        files.push(NewFile { path: path.into(), contents: contents.into(), access: Access::Private });
    }
    let done = Protected { keys: own.iter().map(|(path, _)| store.path(path)).collect(), encrypted: new.is_some() };
    store.commit(store.inventory.clone(), files)?;
    let mut text: String = done.keys.iter().map(|path| format!("{}\n", path.display())).collect();
    text.push_str(match done.encrypted {
        true => "are encrypted with the new passphrase now. If it is lost, so are the authorities; copies made before are not \
                 encrypted with it.\n",
        false => "are not encrypted any more.\n",
    });
    say(args.format, &text, &done)
}
