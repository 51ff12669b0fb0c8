//! `doorward ca renewal`: the authority that renews device certificates without the owner.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::output::print;
use super::{CaError, FolderArg, Format, published};
use crate::ca::renewal;
use crate::model::shell;

/// Where the key belongs, in examples.
const PLACE: &str = "/var/lib/doorward-issuer";

/// The options of `doorward ca renewal`.
#[derive(Args, Debug)]
pub(super) struct RenewalArgs {
    #[command(flatten)]
    folder: FolderArg,

    /// Make another one in its place: what the former has renewed is refused once the gate uses this one
    #[arg(long)]
    replace: bool,

    /// Output format: text for people on stderr, or JSON on stdout
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    format: Format,
}

#[derive(Serialize)]
struct Written {
    certificate: PathBuf,
    key: PathBuf,
    not_after: i64,
}

pub(super) fn run(args: &RenewalArgs) -> Result<(), CaError> {
    let mut store = args.folder.open()?;
    let made = renewal::create(&mut store, args.replace).map_err(CaError::with_remedy(
        "to make another one in its place, and have every device that it has renewed ask again: --replace",
    ))?;
    published::inventory(&store);
    let key = format!("{PLACE}/{}", renewal::RENEWAL_AUTHORITY_KEY_FILE);
    let text = format!(
        "{certificate} is the certificate of an authority that renews your devices' certificates without you, until {until}.\n\
         {file} is its key. It belongs on the gate's machine, in a folder that the gate itself does not read. \
         \"doorward install\" puts it there; or, as root there:\n\
         \x20 install -d -o doorward -m 700 {PLACE}\n\
         \x20 install -o doorward -m 600 {from} {PLACE}/\n\
         \x20 rm {from}\n\
         and in the configuration, under [renewal]:\n\
         \x20 issuer = {{ certificate = {shown:?}, key = {key:?} }}\n",
        certificate = made.certificate.display(),
        until = made.not_after.date(),
        file = made.key.display(),
        from = shell::path(&made.key),
        shown = made.certificate.display().to_string(),
    );
    let written = Written { certificate: made.certificate, key: made.key, not_after: made.not_after.unix_timestamp() };
    print(args.format, &text, &written)
}
