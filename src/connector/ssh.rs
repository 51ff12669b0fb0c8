//! ssh goes through this program: a file of our own in `~/.ssh`, and one line in the user's configuration that includes it.
//!
//! The user's file is changed by that line only, at its top, and replaced as a whole or not at all. What it was before is what it is
//! after the line is removed, byte for byte.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::homes::Home;
use super::{folder, platform};
use crate::model::service::ServiceKind;
use crate::model::shell::word;

/// Our file.
const OWN: &str = "doorward_config";
/// The line that includes it (ssh_config(5)): a relative path would do, but this one says where the file is.
const INCLUDE: &str = "Include ~/.ssh/doorward_config";
/// The first line of our file. A file without it is another's.
const MARK: &str = "# Written by \"doorward join --ssh\", and written anew when a home is joined.";

/// The user's folder for ssh.
#[derive(Clone, Debug)]
pub struct SshFolder {
    path: PathBuf,
}

/// What ssh cannot be told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SshError {
    /// The environment does not say where the user's folder is.
    #[error("this user has no home folder: HOME is not set")]
    NoFolder,
    /// The user's configuration cannot be changed.
    #[error("cannot change {}: {source}\n  write this as its first line: {INCLUDE}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The line cannot be removed from the user's configuration.
    #[error("cannot change {}: {source}\n  remove this line from it: {INCLUDE}", path.display())]
    Undo {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Our file cannot be written or removed.
    #[error("cannot write {}: {source}", path.display())]
    Own {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is a file of this name that this program has not written.
    #[error("{} was written by something else\n  move it away, and run this again", .0.display())]
    Foreign(PathBuf),
}

impl SshFolder {
    /// That of this user. It need not exist.
    pub fn open() -> Result<Self, SshError> {
        folder::home().map(|home| Self { path: home.join(".ssh") }).ok_or(SshError::NoFolder)
    }

    /// Our file.
    pub fn own_file(&self) -> PathBuf {
        self.path.join(OWN)
    }

    fn config(&self) -> PathBuf {
        self.path.join("config")
    }

    /// Whether ssh goes through this program, as [`SshFolder::write`] leaves it.
    pub fn is_written(&self) -> bool {
        self.is_own().unwrap_or(false)
    }

    /// Whether our file is there; an error if a file of this name is not ours.
    fn is_own(&self) -> Result<bool, SshError> {
        let path = self.own_file();
        match fs::read(&path) {
            Ok(text) if text.starts_with(MARK.as_bytes()) => Ok(true),
            Ok(_) => Err(SshError::Foreign(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(SshError::Own { path, source }),
        }
    }

    /// Writes our file for the ssh routes of these homes, and the line that includes it. `program` is this program, as ssh is to
    /// run it. Removes both if there is no such route. Says whether there is one.
    pub fn write(&self, homes: &[Home], program: &str) -> Result<bool, SshError> {
        self.is_own()?;
        let Some(text) = hosts(homes, program) else { return self.remove().map(|()| false) };
        let own = |source| SshError::Own { path: self.own_file(), source };
        platform::create_private(&self.path).map_err(own)?;
        replace(&self.own_file(), text.as_bytes()).map_err(own)?;
        self.edit(with_line).map_err(|source| SshError::Config { path: self.config(), source })?;
        Ok(true)
    }

    /// Removes what [`SshFolder::write`] has written. Says nothing if that is nothing.
    pub fn remove(&self) -> Result<(), SshError> {
        if !self.is_own()? {
            return Ok(());
        }
        // The line first: ssh reads a line without a file as nothing, but a file without a line is never looked at again.
        self.edit(without_line).map_err(|source| SshError::Undo { path: self.config(), source })?;
        fs::remove_file(self.own_file()).map_err(|source| SshError::Own { path: self.own_file(), source })
    }

    /// Changes the user's configuration, through a symbolic link as people have it who keep such files elsewhere.
    fn edit(&self, change: impl Fn(&[u8]) -> Option<Vec<u8>>) -> io::Result<()> {
        let link = self.config();
        let file = match fs::canonicalize(&link) {
            Ok(file) => file,
            // A link to nowhere is not a missing file: what it is to lead to is not ours to decide.
            Err(error) if error.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(&link).is_err() => link,
            Err(error) => return Err(error),
        };
        let before = match fs::read(&file) {
            Ok(before) => before,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        match change(&before) {
            None => Ok(()),
            // An empty file says nothing that a missing one does not.
            Some(after) if after.is_empty() && !self.config().is_symlink() => fs::remove_file(&file),
            Some(after) => replace(&file, &after),
        }
    }
}

/// Replaces a file, or creates it: readers see all of it or what was there before. It keeps its permissions.
fn replace(file: &Path, contents: &[u8]) -> io::Result<()> {
    let folder = file.parent().ok_or(io::ErrorKind::NotFound)?;
    let mut new = NamedTempFile::with_prefix_in(".doorward-", folder)?;
    new.write_all(contents)?;
    if let Ok(there) = fs::metadata(file) {
        new.as_file().set_permissions(there.permissions())?;
    }
    new.as_file().sync_all()?;
    new.persist(file).map_err(|error| error.error)?;
    Ok(())
}

/// Whether a line includes our file, however a user has written it.
fn includes(line: &[u8]) -> bool {
    let line = String::from_utf8_lossy(line);
    let mut words = line.split_whitespace();
    words.next().is_some_and(|word| word.eq_ignore_ascii_case("include"))
        && words.any(|word| word.trim_matches('"').ends_with(OWN))
}

/// The text with the line at its top: below a `Host` it would count for that host only. `None` if it has such a line.
fn with_line(before: &[u8]) -> Option<Vec<u8>> {
    let top = before.split(|byte| *byte == b'\n').take_while(|line| !begins_section(line));
    if top.clone().any(includes) {
        return None;
    }
    Some([INCLUDE.as_bytes(), b"\n", before].concat())
}

fn begins_section(line: &[u8]) -> bool {
    let line = String::from_utf8_lossy(line);
    let keyword = line.trim_start().split(|c: char| c.is_whitespace() || c == '=').next().unwrap_or_default();
    ["host", "match"].iter().any(|word| keyword.eq_ignore_ascii_case(word))
}

/// The text without the line as this program writes it; `None` if it has none.
fn without_line(before: &[u8]) -> Option<Vec<u8>> {
    let lines: Vec<&[u8]> = before.split_inclusive(|byte| *byte == b'\n').collect();
    let at = lines.iter().position(|line| line.trim_ascii_end() == INCLUDE.as_bytes())?;
    let (above, below) = lines.split_at(at);
    Some([above.concat(), below.get(1..).unwrap_or_default().concat()].concat())
}

/// The line that ssh is given to run this program.
pub fn proxy_command(program: &str) -> String {
    // ssh replaces `%h`, and hands the line to the user's shell. On Windows that may be cmd or, with Git, a shell of Unix: both take
    // slashes and quotation marks.
    let program = if cfg!(windows) { program.replace('\\', "/") } else { program.to_owned() };
    format!("{} connect %h", word(&program).replace('%', "%%"))
}

/// The text of our file; `None` if no route leads to an SSH server.
fn hosts(homes: &[Home], program: &str) -> Option<String> {
    let mut text = format!("{MARK}\n# To undo: doorward join --no-ssh\n");
    let beginning = text.len();
    for home in homes {
        let ssh = home.bundle.routes.iter().filter(|route| route.kind == ServiceKind::Ssh);
        let names: Vec<String> = ssh.map(|route| route.server_name.to_string()).collect();
        if !names.is_empty() {
            text.push_str(&format!(
                "\n# {}\nHost {}\n  ProxyCommand {}\n",
                home.name,
                names.join(" "),
                proxy_command(program)
            ));
        }
    }
    (text.len() > beginning).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_is_added_once_and_removed_without_a_trace() {
        for before in [
            &b""[..],
            b"Host *\n  User x\n",
            b"# no newline at the end",
            b"\xff\xfe not UTF-8\r\nHost a\r\n",
            b"\n\n\n",
            b"Include other\n",
        ] {
            let with = with_line(before).expect("a change");
            assert!(with.starts_with(b"Include ~/.ssh/doorward_config\n") && with.ends_with(before));
            assert_eq!(with_line(&with), None);
            assert_eq!(without_line(&with).as_deref(), Some(before));
            assert_eq!(without_line(before), None);
        }
        // As a user may have written it; that one is the user's own.
        let own = b"include \"/home/x/.ssh/doorward_config\"\nHost *\n";
        assert_eq!((with_line(own), without_line(own)), (None, None));
        // Below a Host it would count for that host only.
        assert!(with_line(b"Host=a\nInclude ~/.ssh/doorward_config\n").is_some());
    }

    #[test]
    fn program_is_one_word_of_the_shell_and_of_ssh() {
        assert_eq!(proxy_command("doorward"), "doorward connect %h");
        assert_eq!(proxy_command("/opt/100% mine/doorward"), "'/opt/100%% mine/doorward' connect %h");
    }
}
