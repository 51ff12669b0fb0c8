//! `doorward ca export`: a certificate, and its key if that is here.

use std::io::{self, Write as _};
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::folder::notify;
use super::output::print;
use super::{CaError, FolderArg, Format};
use crate::ca::export;
use crate::ca::inventory::Notice;
use crate::files::Existing;

/// The options of `doorward ca export`.
#[derive(Args, Debug)]
pub(super) struct ExportArgs {
    /// The device
    #[arg(value_name = "NAME", required_unless_present = "authority")]
    name: Option<String>,

    /// Export the certificate of an authority: devices must trust "servers", the gate trusts "devices"
    #[arg(long, value_name = "NAME", conflicts_with = "name")]
    authority: Option<String>,

    /// Write NAME.pem into this folder, and NAME-key.pem if the key is here [default: print the certificate to stdout]
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,

    #[command(flatten)]
    folder: FolderArg,

    /// Replace existing files
    #[arg(long)]
    force: bool,

    /// Output format: text for people on stderr, or JSON on stdout
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text, requires = "output")]
    format: Format,
}

#[derive(Serialize)]
struct Exported {
    certificate: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<PathBuf>,
}

pub(super) fn run(args: &ExportArgs) -> Result<(), CaError> {
    let store = args.folder.open()?;
    let export = match &args.authority {
        Some(id) => export::authority(&store, id)?,
        None => export::device(&store, args.name.as_deref().unwrap_or_default())?,
    };
    let Some(output) = &args.output else {
        io::stdout().lock().write_all(export.certificate_pem.as_bytes())?;
        return Ok(());
    };
    let existing = if args.force { Existing::Replace } else { Existing::Keep };
    let written = export
        .write(output, existing)
        .map_err(CaError::with_remedy("choose another --output, or replace the files with --force"))?;
    written.warnings.iter().for_each(|warning| notify(Notice::Warning(warning)));
    let mut text = format!("{}\n", written.certificate.display());
    match &written.key {
        Some(key) => text.push_str(&format!("{} (secret)\n", key.display())),
        None if args.name.is_some() => text.push_str("The private key is not here.\n"),
        None => {}
    }
    print(args.format, &text, &Exported { certificate: written.certificate, key: written.key })
}
