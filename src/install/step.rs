//! One step: what it does in words, and doing it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::system::System;
use super::{Error, USER};
use crate::files::placed::{self, Attributes, Placed};
use crate::model::shell;

/// The owner of a file or folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Root,
    /// The gate's user and group.
    Gate,
    /// The owner of the authorities.
    User {
        user: u32,
        group: u32,
    },
    /// The same user, and the gate's group.
    UserWithGate {
        user: u32,
    },
}

impl Owner {
    /// The numbers, if the accounts exist.
    fn resolve(&self, system: &System) -> Option<(u32, u32)> {
        Some(match *self {
            Self::Root => (0, 0),
            Self::Gate => system.gate()?,
            Self::User { user, group } => (user, group),
            Self::UserWithGate { user } => (user, system.gate()?.1),
        })
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root | Self::User { user: 0, .. } => f.write_str("root"),
            Self::Gate => f.write_str(USER),
            Self::User { user, .. } => write!(f, "user {user}"),
            Self::UserWithGate { user: 0 } => write!(f, "root, group {USER}"),
            Self::UserWithGate { user } => write!(f, "user {user}, group {USER}"),
        }
    }
}

/// A step of an installation. [`fmt::Display`] says what it does.
#[derive(Clone, PartialEq, Eq)]
pub struct Step {
    action: Action,
    /// Why, or where from.
    note: String,
}

#[derive(Clone, PartialEq, Eq)]
enum Action {
    Run { program: PathBuf, arguments: Vec<String> },
    Folder { path: PathBuf, owner: Owner, mode: u32, exists: bool },
    File { path: PathBuf, contents: Vec<u8>, owner: Owner, mode: u32, exists: bool },
    Remove { path: PathBuf },
    RemoveFolder { path: PathBuf },
    RemoveEmpty { path: PathBuf },
    Several(Vec<Step>),
}

impl fmt::Debug for Step {
    /// As in words: the contents of files may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Step({self})")
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.action {
            Action::Run { program, arguments } => {
                let program = program.file_name().map(Path::new).unwrap_or(program);
                write!(f, "run {}", shell::path(program))?;
                arguments.iter().try_for_each(|argument| write!(f, " {}", shell::word(argument)))?;
            }
            Action::Folder { path, owner, mode, exists } => {
                let verb = if *exists { "set owner and mode of the folder" } else { "create the folder" };
                write!(f, "{verb} {} ({owner}, {mode:04o})", path.display())?;
            }
            Action::File { path, owner, mode, exists, .. } => {
                let verb = if *exists { "replace" } else { "write" };
                write!(f, "{verb} {} ({owner}, {mode:04o})", path.display())?;
            }
            Action::Remove { path } => write!(f, "remove {}", path.display())?,
            Action::RemoveFolder { path } => write!(f, "remove {} and all that is in it", path.display())?,
            Action::RemoveEmpty { path } => write!(f, "remove {} if it is empty", path.display())?,
            Action::Several(_) => {}
        }
        if let Action::Several(steps) = &self.action {
            return write!(f, "{} ({} in all)", self.note, steps.len());
        }
        if self.note.is_empty() { Ok(()) } else { write!(f, ": {}", self.note) }
    }
}

impl Step {
    /// Runs a program.
    pub(super) fn run(program: PathBuf, arguments: &[&str], note: &str) -> Self {
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        Self { action: Action::Run { program, arguments }, note: note.to_owned() }
    }

    /// Creates a folder, or corrects its owner and mode. `None` if it is as it should be.
    pub(super) fn folder(system: &System, path: &str, owner: Owner, mode: u32) -> Result<Option<Self>, Error> {
        let path = system.path(path);
        let (wanted, there) = (owner.resolve(system), look(&path)?);
        if let (Placed::Folder(there), Some((user, group))) = (there, wanted)
            && there == (Attributes { user, group, mode })
        {
            return Ok(None);
        }
        let exists = matches!(there, Placed::Folder(_));
        Ok(Some(Self { action: Action::Folder { path, owner, mode, exists }, note: String::new() }))
    }

    /// Creates a folder where there is none; one that is there stays as it is.
    pub(super) fn folder_if_missing(system: &System, path: &str) -> Result<Option<Self>, Error> {
        match look(&system.path(path))? {
            Placed::Nothing => Self::folder(system, path, Owner::Root, 0o755),
            _ => Ok(None),
        }
    }

    /// Creates the missing folders above a file.
    pub(super) fn folders_above(system: &System, file: &Path) -> Result<Vec<Self>, Error> {
        let mut above: Vec<&Path> = file.ancestors().skip(1).filter(|path| *path != Path::new("/")).collect();
        above.reverse();
        let steps = above.into_iter().map(|path| Self::folder_if_missing(system, &path.to_string_lossy()));
        steps.filter_map(Result::transpose).collect()
    }

    /// Writes a file. `None` if it is as it should be.
    pub(super) fn file(
        system: &System,
        path: &Path,
        contents: Vec<u8>,
        (owner, mode): (Owner, u32),
        note: &str,
    ) -> Result<Option<Self>, Error> {
        let path = system.path(path);
        let (wanted, there) = (owner.resolve(system), look(&path)?);
        if let (Placed::File(there), Some((user, group))) = (there, wanted)
            && there == (Attributes { user, group, mode })
            && placed::contents(&path).is_ok_and(|now| now == contents)
        {
            return Ok(None);
        }
        let exists = there != Placed::Nothing;
        Ok(Some(Self { action: Action::File { path, contents, owner, mode, exists }, note: note.to_owned() }))
    }

    /// Removes a file. `None` if there is none.
    pub(super) fn remove(system: &System, path: &Path) -> Result<Option<Self>, Error> {
        let path = system.path(path);
        let there = look(&path)? != Placed::Nothing;
        Ok(there.then(|| Self { action: Action::Remove { path }, note: String::new() }))
    }

    /// Removes a folder with all that is in it. `None` if there is none.
    pub(super) fn remove_folder(system: &System, path: &str, note: &str) -> Result<Option<Self>, Error> {
        let path = system.path(path);
        let there = matches!(look(&path)?, Placed::Folder(_));
        Ok(there.then(|| Self { action: Action::RemoveFolder { path }, note: note.to_owned() }))
    }

    /// Removes a folder if an earlier step has left nothing in it. `None` if there is none.
    pub(super) fn remove_empty(system: &System, path: &Path) -> Result<Option<Self>, Error> {
        let path = system.path(path);
        let there = matches!(look(&path)?, Placed::Folder(_));
        Ok(there.then(|| Self { action: Action::RemoveEmpty { path }, note: String::new() }))
    }

    /// Many steps of one kind, told as one. `None` if there are none.
    pub(super) fn several(steps: Vec<Self>, what: &str) -> Option<Self> {
        (!steps.is_empty()).then(|| Self { action: Action::Several(steps), note: what.to_owned() })
    }

    /// Takes the step.
    ///
    /// # Errors
    /// If it cannot be taken. A file is as it was then.
    pub(super) fn take(&self, root: &Path) -> Result<(), Error> {
        self.attempt(root).map_err(|message| Error::Step { step: self.to_string(), message })
    }

    fn attempt(&self, root: &Path) -> Result<(), String> {
        let io = |error: io::Error| error.to_string();
        // The accounts may have been made by an earlier step.
        let attributes = |owner: &Owner, mode| {
            let system = System::look(root).map_err(io)?;
            let missing = || format!("there is no user and group {USER}");
            let (user, group) = owner.resolve(&system).ok_or_else(missing)?;
            Ok::<_, String>(Attributes { user, group, mode })
        };
        match &self.action {
            Action::Run { program, arguments } => {
                let ended = Command::new(program).args(arguments).stdin(Stdio::null()).output().map_err(io)?;
                let said = String::from_utf8_lossy(&ended.stderr);
                if ended.status.success() { Ok(()) } else { Err(format!("{}: {}", ended.status, said.trim())) }
            }
            Action::Folder { path, owner, mode, .. } => {
                placed::place_folder(path, attributes(owner, *mode)?).map_err(io)
            }
            Action::File { path, contents, owner, mode, .. } => {
                placed::place_file(path, contents, attributes(owner, *mode)?).map_err(io)
            }
            Action::Remove { path } => placed::remove(path).map_err(io),
            Action::Several(steps) => {
                steps.iter().try_for_each(|step| step.attempt(root).map_err(|error| format!("{step}: {error}")))
            }
            // Does not follow links, also if a user replaces a folder by one meanwhile.
            Action::RemoveFolder { path } => std::fs::remove_dir_all(path).map_err(io),
            Action::RemoveEmpty { path } => match std::fs::remove_dir(path) {
                Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => Err(error.to_string()),
                _ => Ok(()),
            },
        }
    }
}

fn look(path: &Path) -> Result<Placed, Error> {
    placed::look(path).map_err(super::read_error(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owner_is_root_by_name_and_others_by_number() {
        let shown = |owner: Owner| owner.to_string();
        assert_eq!(shown(Owner::UserWithGate { user: 0 }), "root, group doorward");
        assert_eq!(shown(Owner::UserWithGate { user: 1000 }), "user 1000, group doorward");
        assert_eq!(shown(Owner::User { user: 0, group: 0 }), "root");
        assert_eq!(shown(Owner::User { user: 1000, group: 1000 }), "user 1000");
    }
}
