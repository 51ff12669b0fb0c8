//! Passphrases: from a file or from the terminal. Never from the command line, which every user of the machine can read.

use std::cell::OnceCell;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use zeroize::Zeroizing;

/// The passphrase of the authorities' keys.
#[derive(Args, Clone)]
pub(in crate::cli) struct PassphraseArg {
    /// Read the passphrase of the authorities' keys from the first line of this file [default: ask for it]
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,

    /// What was read or typed: all keys have the same passphrase.
    #[arg(skip)]
    known: OnceCell<Zeroizing<String>>,
}

impl fmt::Debug for PassphraseArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PassphraseArg").field("passphrase_file", &self.passphrase_file).finish_non_exhaustive()
    }
}

impl PassphraseArg {
    /// The passphrase of encrypted keys.
    pub(super) fn get(&self) -> Result<&str, String> {
        if let Some(known) = self.known.get() {
            return Ok(known);
        }
        let passphrase =
            get(self.passphrase_file.as_deref(), "Passphrase of the authorities' keys: ", "--passphrase-file")?;
        Ok(self.known.get_or_init(|| passphrase))
    }

    /// The same, as the library asks for it.
    pub(super) fn prompt(&self) -> impl Fn() -> Result<Zeroizing<String>, String> {
        || self.get().map(|text| text.to_owned().into())
    }

    /// Whether a file was given.
    pub(super) const fn is_given(&self) -> bool {
        self.passphrase_file.is_some()
    }

    /// A new passphrase.
    pub(super) fn choose(&self) -> Result<Zeroizing<String>, String> {
        choose(self.passphrase_file.as_deref(), "--passphrase-file")
    }
}

/// A new passphrase: from a file, or typed twice.
pub(super) fn choose(file: Option<&Path>, option: &str) -> Result<Zeroizing<String>, String> {
    let new = get(file, "New passphrase: ", option)?;
    if new.is_empty() {
        return Err(
            "an empty passphrase protects nothing; nothing was written\n  choose a long one: four or five random words"
                .to_owned(),
        );
    }
    if file.is_none() && *ask("Repeat it: ", option)? != *new {
        return Err("the passphrases differ; nothing was written".to_owned());
    }
    Ok(new)
}

/// The first line of a file, or what is typed on the terminal.
pub(super) fn get(file: Option<&Path>, prompt: &str, option: &str) -> Result<Zeroizing<String>, String> {
    let Some(file) = file else { return ask(prompt, option) };
    let text = std::fs::read_to_string(file)
        .map(Zeroizing::new)
        .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    Ok(Zeroizing::new(text.lines().next().unwrap_or_default().to_owned()))
}

fn ask(prompt: &str, option: &str) -> Result<Zeroizing<String>, String> {
    rpassword::prompt_password(prompt).map(Zeroizing::new).map_err(|error| match error.kind() {
        io::ErrorKind::Interrupted => "interrupted; nothing was changed".to_owned(),
        _ => format!(
            "a password is needed, and there is no terminal to ask on ({error})\n  write it to a file that only you can \
             read, and name that file: {option} FILE"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_contains_no_passphrase() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "correct horse\n").expect("written");
        let argument = PassphraseArg { passphrase_file: Some(file.path().to_owned()), known: OnceCell::new() };
        assert_eq!(argument.get().ok(), Some("correct horse"));
        assert!(!format!("{argument:?}").contains("horse"), "{argument:?}");
    }
}
