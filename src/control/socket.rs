//! The socket's file: made for its owner alone, put in the place of one that a dead gate has left, and never over
//! anything else.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Type};

/// Why the control socket cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A gate answers there already.
    #[error("a running gate answers there\n  stop it, or give this one another path under [control]")]
    InUse,
    /// Something that is no socket, or not ours, stands there.
    #[error(
        "there is a file of that name that is no socket of this user, and it is not overwritten\n  remove it yourself, or \
         choose another path under [control]"
    )]
    Foreign,
    /// The folder it should be in is not there.
    #[error(
        "the folder it should be in is not there\n  make it, or choose another path under [control]; with systemd, \
         RuntimeDirectory=doorward makes /run/doorward"
    )]
    NoFolder,
    /// Anything else.
    #[error("{error}{}", remedy(.0), error = .0)]
    Io(#[from] io::Error),
}

/// What to do about it, on a line of its own; empty if that is not known.
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "\n  choose a folder under [control] that the gate's user may write to; with systemd, \
             RuntimeDirectory=doorward makes /run/doorward"
        }
        _ => "",
    }
}

/// The file of a bound socket, removed on drop.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode: what stands there later may be somebody else's.
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity) {
            // Whoever comes next replaces what is left.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

/// Makes the socket at `path` for its owner alone.
pub(super) fn bind(path: &Path) -> Result<(UnixListener, SocketFile), BindError> {
    make_way(path)?;
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Before there is a file: Linux makes it with the mode of the socket. A chmod of the path could be led elsewhere by who
    // may write to the folder.
    rustix::fs::fchmod(&socket, rustix::fs::Mode::from_raw_mode(0o600)).map_err(io::Error::from)?;
    socket.bind(&SockAddr::unix(path)?).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => BindError::NoFolder,
        _ => BindError::Io(error),
    })?;
    let file = SocketFile { path: path.to_owned(), identity: identity(path)? };
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok((UnixListener::from(std::os::fd::OwnedFd::from(socket)), file))
}

/// Connections that wait to be accepted; further ones are told to try again.
const BACKLOG: i32 = 64;

/// Removes a socket that nobody listens at any more, if it is one of ours.
fn make_way(path: &Path) -> Result<(), BindError> {
    let there = match fs::symlink_metadata(path) {
        Ok(there) => there,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if !there.file_type().is_socket() || there.uid() != rustix::process::geteuid().as_raw() {
        return Err(BindError::Foreign);
    }
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A gate that has no time to accept must not hold this one up.
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(fs::remove_file(path)?),
        _ => Err(BindError::InUse),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("a folder")
    }

    #[test]
    fn it_is_for_its_owner_alone_and_goes_with_the_gate() {
        let folder = folder();
        let path = folder.path().join("control.sock");
        let (listener, file) = bind(&path).expect("a socket");
        let mode = fs::symlink_metadata(&path).expect("the file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(matches!(bind(&path), Err(BindError::InUse)));
        drop((listener, file));
        assert!(!path.exists());
    }

    #[test]
    fn what_a_dead_gate_has_left_is_replaced_and_nothing_else() {
        let folder = folder();
        let path = folder.path().join("control.sock");
        let (listener, file) = bind(&path).expect("a socket");
        // Killed: nothing is removed.
        std::mem::forget(file);
        drop(listener);
        assert!(path.exists());
        let (_listener, file) = bind(&path).expect("a socket in its place");

        // Somebody has put something else there: it stays.
        fs::remove_file(&path).expect("removed");
        fs::write(&path, "precious").expect("a file");
        drop(file);
        assert!(matches!(bind(&path), Err(BindError::Foreign)));
        assert_eq!(fs::read_to_string(&path).expect("the file"), "precious");

        let link = folder.path().join("link.sock");
        std::os::unix::fs::symlink(&path, &link).expect("a link");
        assert!(matches!(bind(&link), Err(BindError::Foreign)));
        assert!(matches!(bind(&folder.path().join("nowhere/control.sock")), Err(BindError::NoFolder)));
    }
}
