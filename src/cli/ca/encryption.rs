//! `doorward ca passphrase`: encrypts the private keys of the authorities, or decrypts them.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::output::print;
use super::passphrase::{PassphraseArg, choose};
use super::{CaError, FolderArg, Format};
use crate::ca::encryption::set_passphrase;

/// The options of `doorward ca passphrase`.
#[derive(Args, Debug)]
pub(super) struct EncryptionArgs {
    #[command(flatten)]
    folder: FolderArg,

    #[command(flatten)]
    passphrase: PassphraseArg,

    /// Read the new passphrase from the first line of this file [default: ask for it, twice]
    #[arg(long, value_name = "FILE", conflicts_with = "remove")]
    new_passphrase_file: Option<PathBuf>,

    /// Leave the keys unencrypted
    #[arg(long)]
    remove: bool,

    /// Output format: text for people on stderr, or JSON on stdout
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    format: Format,
}

#[derive(Serialize)]
struct Written {
    keys: Vec<PathBuf>,
    encrypted: bool,
}

pub(super) fn run(args: &EncryptionArgs) -> Result<(), CaError> {
    let mut store = args.folder.open()?;
    let keys = set_passphrase(&mut store, &args.passphrase.prompt(), || match args.remove {
        true => Ok(None),
        false => choose(args.new_passphrase_file.as_deref(), "--new-passphrase-file").map(Some),
    })?;
    let written = Written { keys, encrypted: !args.remove };
    let mut text = match written.encrypted {
        true => "Encrypted with the new passphrase:\n",
        false => "Not encrypted any more:\n",
    }
    .to_owned();
    text.extend(written.keys.iter().map(|path| format!("  {}\n", path.display())));
    if written.encrypted {
        text.push_str(
            "Without the passphrase the authorities are lost. Earlier copies of the keys are not encrypted with it.\n",
        );
    }
    print(args.format, &text, &written)
}
