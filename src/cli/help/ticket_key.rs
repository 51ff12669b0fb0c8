//! `doorward generate ticket-key`: key files for session tickets that several gates share.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use zeroize::Zeroizing;

use crate::cli::{exit, failed};
use crate::config::checked::TicketSecret;
use crate::files::{Access, Error, Existing, NewFile, write_all};

/// The options of `doorward generate ticket-key`.
#[derive(Args, Debug)]
pub(super) struct TicketKeyArgs {
    /// Each of them gets a key of its own: 80 random bytes, readable by their owner only
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Replace the keys: each file gets the key of the file before it, and the first one a new key
    ///
    /// A last file that does not exist yet is created.
    #[arg(long)]
    rotate: bool,
}

pub(super) fn run(args: &TicketKeyArgs) -> ExitCode {
    let (keys, existing) = match new_keys(args) {
        Ok(keys) => keys,
        Err((code, message)) => return failed(code, &message),
    };
    let file = |(path, key): (&PathBuf, Zeroizing<Vec<u8>>)| NewFile {
        path: path.clone(),
        contents: key.to_vec(),
        access: Access::Private,
    };
    // The last one first: a rotation that is interrupted leaves a key in two files, and loses none but the last.
    let files: Vec<NewFile> = args.files.iter().zip(keys).map(file).rev().collect();
    match write_all(&files, existing) {
        Ok(warnings) => {
            for warning in warnings {
                errln!("warning: {warning}");
            }
            exit::OK.into()
        }
        Err(error @ Error::Exists(_)) => {
            failed(exit::EXISTS, &format!("{error}; nothing was written\n  to replace the keys: --rotate"))
        }
        Err(error @ Error::Io { .. }) => {
            let source = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
            failed(exit::UNEXPECTED, &format!("{error}{source}"))
        }
    }
}

/// What the files are to contain.
type Keys = (Vec<Zeroizing<Vec<u8>>>, Existing);

fn new_keys(args: &TicketKeyArgs) -> Result<Keys, (u8, String)> {
    let new = || TicketSecret::generate().map_err(|error| (exit::UNEXPECTED, format!("no random bytes: {error}")));
    for (place, file) in args.files.iter().enumerate() {
        if args.files[..place].contains(file) {
            return Err((exit::USAGE, format!("{} is given twice", file.display())));
        }
    }
    if !args.rotate {
        return Ok((args.files.iter().map(|_| new()).collect::<Result<_, _>>()?, Existing::Keep));
    }
    let mut keys = vec![new()?];
    let (last, others) = args.files.split_last().ok_or_else(|| (exit::USAGE, "no file is given".to_owned()))?;
    for file in others {
        keys.push(read(file).map_err(|error| (exit::USAGE, error))?);
    }
    // Whatever it is, it is lost: that it is a key shows that no other file is meant.
    if last.exists() {
        read(last).map_err(|error| (exit::USAGE, error))?;
    }
    Ok((keys, Existing::Replace))
}

fn read(file: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let shown = file.display();
    let contents = fs::read(file).map(Zeroizing::new).map_err(|error| {
        format!("cannot read {shown}: {error}\n  to make a key file: doorward generate ticket-key {shown}")
    })?;
    match TicketSecret::new(file.to_owned(), &contents) {
        Ok(_) => Ok(contents),
        Err(weakness) => Err(format!("{shown} {weakness}; nothing was written")),
    }
}
