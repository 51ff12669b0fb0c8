//! The key of the authority that renews certificates without the owner (`[renewal] issuer`): the process beside the gate reads it,
//! and the gate, which has the same user, is kept from it by its sandbox. So it has a folder of its own.

use std::path::{Path, PathBuf};

use super::source::Source;
use super::step::{Owner, Step};
use super::system::System;
use super::{Error, ISSUER, PKI, Plan, USER, read_error};
use crate::files::placed::{self, Placed};
use crate::model::shell;

/// The name of the file that "doorward ca renewal" writes.
const KEY: &str = "renewals-key.pem";

/// Where the owner's folder has it.
pub(super) fn own_key() -> PathBuf {
    Path::new(PKI).join(KEY)
}

/// Places the key, if the configuration has it in [`ISSUER`]. The owner of the configuration may be any user: no other folder is given
/// to the gate because that text names it.
///
/// # Errors
/// If a file cannot be read.
pub(super) fn place(system: &System, source: Option<&Source>, key: &Path, plan: &mut Plan) -> Result<(), Error> {
    let place = Path::new(ISSUER).join(KEY);
    if key != place && key != system.path(&place) {
        plan.notes.push(format!(
            "{} is the key of the renewal authority, and stays where it is; the user {USER} must be able to read it, and no other",
            key.display()
        ));
        return Ok(());
    }
    let there = system.path(&place);
    let own = source.map(|source| Ok(source.read(&own_key())?.map(|contents| (source, contents)))).transpose()?;
    let (contents, note) = match own.flatten() {
        Some((source, contents)) => {
            let from = source.path().join(own_key());
            plan.next.push(format!("only the gate needs the key of the renewal authority: rm {}", shell::path(&from)));
            (contents, format!("from {}", from.display()))
        }
        None if placed::look(&there).map_err(read_error(&there))? == Placed::Nothing => {
            plan.notes.push(format!(
                "{} does not exist, so no certificate is renewed without the owner; make it: doorward ca renewal",
                place.display()
            ));
            return Ok(());
        }
        None => (placed::contents(&there).map_err(read_error(&there))?, String::new()),
    };
    plan.add_missing_folders(system, Path::new(ISSUER))?;
    plan.add(Step::folder(system, ISSUER, Owner::Gate, 0o700)?);
    plan.add(Step::file(system, &place, contents, (Owner::Gate, 0o400), &note)?);
    Ok(())
}
