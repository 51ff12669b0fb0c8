//! `doorward ca export`: a certificate, and its key if it is here.

use std::io::{self, Write as _};
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::handout::Places;
use super::{CaError, FolderArg, Format, say, tell};
use crate::ca::files::{self, Access, Existing, NewFile};
use crate::ca::inventory::{Kind, Notice, Store};
use crate::model::names::Name;
use crate::pki::{keys, pem};

/// The options of `doorward ca export`.
#[derive(Args, Debug)]
pub(super) struct ExportArgs {
    /// The device
    #[arg(value_name = "NAME", required_unless_present = "authority")]
    name: Option<String>,

    /// The certificate of an authority instead: "servers" is what devices must trust, "devices" what the gate trusts
    #[arg(long, value_name = "NAME", conflicts_with = "name")]
    authority: Option<String>,

    /// Write NAME.pem into this folder, and NAME-key.pem if the key is here; otherwise the certificate goes to stdout
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,

    #[command(flatten)]
    folder: FolderArg,

    /// Replace files that are there
    #[arg(long)]
    force: bool,

    /// How to say what was written: for people on stderr, or as JSON on stdout
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
    let (name, certificate, key) = find(args, &store)?;
    let certificate = pem::encode(pem::CERTIFICATE, &store.certificate(&certificate)?);
    let Some(output) = &args.output else {
        io::stdout().lock().write_all(certificate.as_bytes())?;
        return Ok(());
    };
    let exported = Exported {
        certificate: output.join(format!("{name}.pem")),
        key: key.as_ref().map(|_| output.join(format!("{name}-key.pem"))),
    };
    let mut new =
        vec![NewFile { path: exported.certificate.clone(), contents: certificate.into(), access: Access::Public }];
    new.extend(key.zip(exported.key.clone()).map(|(contents, path)| NewFile {
        path,
        contents,
        access: Access::Private,
    }));
    let existing = if args.force { Existing::Replace } else { Existing::Keep };
    let warnings = files::write_all(&new, existing).map_err(|error| match error {
        files::Error::Exists(paths) => {
            CaError::exists(paths, "choose another --output, or replace the files with --force")
        }
        files::Error::Io { action, path, source } => {
            CaError::from(io::Error::new(source.kind(), format!("failed to {action} {}: {source}", path.display())))
        }
    })?;
    warnings.iter().for_each(|warning| tell(Notice::Warning(warning)));
    let mut text = format!("{}\n", exported.certificate.display());
    match &exported.key {
        Some(key) => text.push_str(&format!("{} (secret)\n", key.display())),
        None if args.name.is_some() => text.push_str("Its key is not here.\n"),
        None => {}
    }
    say(args.format, &text, &exported)
}

/// What to call it, where its certificate is, and its key if that is here.
fn find(args: &ExportArgs, store: &Store) -> Result<(String, String, Option<Vec<u8>>), CaError> {
    if let Some(id) = &args.authority {
        let authority = store.inventory.authority(id).ok_or_else(|| {
            let names: Vec<&str> = store.inventory.authorities.iter().map(|one| one.id.as_str()).collect();
            CaError::usage(format!("no authority here is called {id:?}\n  there is: {}", names.join(", ")))
        })?;
        return Ok((id.clone(), authority.certificate.clone(), None));
    }
    let name = args.name.as_deref().unwrap_or_default();
    let entry = store.inventory.current(name, Kind::Device).ok_or_else(|| {
        CaError::usage(format!("no device is called {name:?} here\n  see what there is: doorward ca list"))
    })?;
    let certificate = store.certificate(&entry.copy())?;
    let spki = x509_parser::parse_x509_certificate(&certificate).map(|(_, parsed)| parsed.public_key().raw.to_vec());
    let device = Name::parse(&entry.name).map_err(|error| CaError::usage(error.to_string()))?;
    let places = Places::new(None)?;
    let pem = places.read(store, &places.key(&device))?;
    let key = pem
        .and_then(|pem| Some((keys::read(&pem).ok()?, pem)))
        .filter(|(key, _)| spki.is_ok_and(|spki| keys::fits(key, &spki)));
    Ok((entry.name.clone(), entry.copy(), key.map(|(_, pem)| pem)))
}
