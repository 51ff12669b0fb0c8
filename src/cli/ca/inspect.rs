//! `doorward ca inspect`: what a file contains.

use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::output::print_json;
use super::passphrase;
use super::{CaError, Format};
use crate::ca::inventory::now;
use crate::pki::inspect::{self, Contents, Item, WELL_KNOWN_PASSWORDS};

/// The options of `doorward ca inspect`.
#[derive(Args, Debug)]
pub(super) struct InspectArgs {
    /// A certificate or chain, a key, a request, a revocation list, or a .p12 or .pfx file
    #[arg(value_name = "FILE")]
    certificate: PathBuf,

    /// Read the password of a .p12 file from the first line of this file [default: try the well-known ones, then ask]
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,

    /// Output format
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    format: Format,
}

#[derive(Serialize)]
struct Inspected {
    file: PathBuf,
    items: Vec<Item>,
}

/// The largest file that is read, in bytes: revocation lists of 100 MB exist.
const LARGEST: u64 = 256 * 1024 * 1024;

pub(super) fn run(args: &InspectArgs) -> Result<(), CaError> {
    let shown = args.certificate.display();
    let metadata = std::fs::metadata(&args.certificate);
    let metadata = metadata.map_err(|error| CaError::usage(format!("cannot read {shown}: {error}")))?;
    if !metadata.is_file() {
        return Err(CaError::usage(format!("{shown} is not a file\n  name one of the files in it")));
    }
    if metadata.len() > LARGEST {
        return Err(CaError::usage(format!("{shown} is larger than 256 MiB: not a certificate or key")));
    }
    let bytes = std::fs::read(&args.certificate);
    let bytes = bytes.map_err(|error| CaError::usage(format!("cannot read {shown}: {error}")))?;
    let mode = metadata.permissions().mode();
    let items = match inspect::contents(&bytes) {
        None => {
            return Err(CaError::usage(format!(
                "{shown} is not a certificate, key, request, revocation list or .p12 file\n  such files start with \
                 \"-----BEGIN ...-----\", or are binary; this one may be damaged"
            )));
        }
        Some(Contents::Objects(objects)) => inspect::describe(&objects, now(), mode),
        Some(Contents::Archive(bytes)) => archive(args, &bytes, mode)?,
    };
    match args.format {
        Format::Text => {
            let text: Vec<String> = items.iter().map(Item::text).collect();
            io::stdout().lock().write_all(text.join("\n").as_bytes())?;
        }
        Format::Json => print_json(&Inspected { file: args.certificate.clone(), items })?,
    }
    Ok(())
}

fn archive(args: &InspectArgs, bytes: &[u8], mode: u32) -> Result<Vec<Item>, CaError> {
    let describe = |password: &str| inspect::describe_archive(bytes, password, now(), mode);
    if args.password_file.is_none() {
        for password in WELL_KNOWN_PASSWORDS {
            match describe(password) {
                Err(error) if inspect::asks_too_much(&error) => return Err(too_much(args)),
                Err(_) => {}
                Ok(items) => return Ok(items),
            }
        }
    }
    let prompt = format!("Password of {}: ", args.certificate.display());
    let password =
        passphrase::get(args.password_file.as_deref(), &prompt, "--password-file").map_err(CaError::usage)?;
    describe(&password).map_err(|error| match inspect::asks_too_much(&error) {
        true => too_much(args),
        false => CaError::usage(format!(
            "wrong password for {} ({error})\n  passwords of doorward's files are groups of four characters with hyphens; \
             mkcert's is changeit",
            args.certificate.display()
        )),
    })
}

fn too_much(args: &InspectArgs) -> CaError {
    CaError::usage(format!(
        "opening {} takes too long: it asks for more than a million rounds for the password, or needs more than half a \
         minute\n  have the file created again with fewer rounds",
        args.certificate.display()
    ))
}
