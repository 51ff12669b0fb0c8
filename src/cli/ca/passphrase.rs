//! Passphrases: from a file or from the terminal, never from the command line, which everybody on the machine can read.

use std::cell::OnceCell;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use zeroize::Zeroizing;

use super::CaError;

/// Where the passphrase of encrypted keys of authorities comes from.
#[derive(Args, Clone)]
pub(super) struct PassphraseArg {
    /// The passphrase of the authorities' keys is the first line of this file [default: it is asked for]
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,

    /// What was read or typed: both keys have the same one.
    #[arg(skip)]
    known: OnceCell<Zeroizing<String>>,
}

impl fmt::Debug for PassphraseArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PassphraseArg").field("passphrase_file", &self.passphrase_file).finish_non_exhaustive()
    }
}

impl PassphraseArg {
    /// The passphrase of keys that are encrypted already.
    pub(super) fn get(&self) -> Result<&str, CaError> {
        if let Some(known) = self.known.get() {
            return Ok(known);
        }
        let passphrase =
            get(self.passphrase_file.as_deref(), "Passphrase of the authorities' keys: ", "--passphrase-file")?;
        Ok(self.known.get_or_init(|| passphrase))
    }

    /// Whether one was given.
    pub(super) const fn is_given(&self) -> bool {
        self.passphrase_file.is_some()
    }

    /// A new one, for keys that are yet to be encrypted.
    pub(super) fn choose(&self) -> Result<Zeroizing<String>, CaError> {
        choose(self.passphrase_file.as_deref(), "--passphrase-file")
    }
}

/// A new passphrase: from a file, or typed twice.
pub(super) fn choose(file: Option<&Path>, option: &str) -> Result<Zeroizing<String>, CaError> {
    let new = get(file, "A new passphrase: ", option)?;
    if new.is_empty() {
        return Err(CaError::usage(
            "an empty passphrase protects nothing; nothing was written\n  choose a long one: four or five random words",
        ));
    }
    if file.is_none() && *ask("Once more: ", option)? != *new {
        return Err(CaError::usage("these were two different ones; nothing was written"));
    }
    Ok(new)
}

/// The first line of a file, or what is typed.
pub(super) fn get(file: Option<&Path>, prompt: &str, option: &str) -> Result<Zeroizing<String>, CaError> {
    let Some(file) = file else { return ask(prompt, option) };
    let text = std::fs::read_to_string(file)
        .map(Zeroizing::new)
        .map_err(|error| CaError::usage(format!("cannot read {}: {error}", file.display())))?;
    Ok(Zeroizing::new(text.lines().next().unwrap_or_default().to_owned()))
}

fn ask(prompt: &str, option: &str) -> Result<Zeroizing<String>, CaError> {
    rpassword::prompt_password(prompt).map(Zeroizing::new).map_err(|error| match error.kind() {
        io::ErrorKind::Interrupted => CaError::usage("interrupted; nothing was done"),
        _ => CaError::usage(format!(
            "a password is needed, and there is no terminal to type it on ({error})\n  put it into a file that only you may \
             read, and name that: {option} FILE"
        )),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_holds_no_passphrase() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "correct horse\n").expect("written");
        let argument = PassphraseArg { passphrase_file: Some(file.path().to_owned()), known: OnceCell::new() };
        assert_eq!(argument.get().ok(), Some("correct horse"));
        assert!(!format!("{argument:?}").contains("horse"), "{argument:?}");
    }
}
