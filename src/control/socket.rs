//! The socket's file: created for its owner alone. It replaces a socket that a dead gate has left, and nothing else.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Type};

/// Why the control socket cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another gate listens on it.
    #[error("another gate is listening on it\n  stop that one, or set another path under [control]")]
    InUse,
    /// The path is not a socket, or not one of this user.
    #[error(
        "a file of this name exists that is not a socket of this user\n  remove it, or set another path under [control]"
    )]
    Foreign,
    /// Its folder does not exist.
    #[error(
        "its folder does not exist\n  create it, or set another path under [control]; under systemd, \
         RuntimeDirectory=doorward creates /run/doorward"
    )]
    NoFolder,
    /// Another error.
    #[error("{error}{}", remedy(.0), error = .0)]
    Io(#[from] io::Error),
}

/// The remedy, on a line of its own; empty if none is known.
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "\n  set a path under [control] in a folder that the gate's user may write to; under systemd, \
             RuntimeDirectory=doorward creates /run/doorward"
        }
        _ => "",
    }
}

/// The file of a bound socket, removed on drop.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode: another process may have replaced the file.
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity) {
            // If this fails, the next gate replaces the file.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

/// Creates the socket at `path` for its owner alone.
pub(super) fn bind(path: &Path) -> Result<(UnixListener, SocketFile), BindError> {
    remove_stale(path)?;
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Before the file exists: Linux creates it with the mode of the socket. A chmod of the path could be redirected by a
    // user who may write to the folder.
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

/// Connections that wait to be accepted. More get EAGAIN.
const BACKLOG: i32 = 64;

/// Removes a socket of this user that no process listens on.
fn remove_stale(path: &Path) -> Result<(), BindError> {
    let file = match fs::symlink_metadata(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if !file.file_type().is_socket() || file.uid() != rustix::process::geteuid().as_raw() {
        return Err(BindError::Foreign);
    }
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A busy gate must not delay this one.
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
    fn socket_is_private_and_removed_on_drop() {
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
    fn stale_socket_is_replaced_and_nothing_else() {
        let folder = folder();
        let path = folder.path().join("control.sock");
        let (listener, file) = bind(&path).expect("a socket");
        // As if killed: the file stays.
        std::mem::forget(file);
        drop(listener);
        assert!(path.exists());
        let (_listener, file) = bind(&path).expect("a socket in its place");

        // Another file at the same path stays.
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
