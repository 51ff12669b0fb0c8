//! The socket's file: created for its owner alone, or also for the group of a folder that the service manager made for the gate.
//! It replaces a socket that a dead gate has left, and nothing else.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::process::Gid;
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

/// The file of a bound socket, removed on drop by the process that it belongs to.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Device and inode: another process may have replaced the file.
    identity: (u64, u64),
    is_own: AtomicBool,
}

impl SocketFile {
    /// It belongs to this process now, or to another one.
    pub(crate) fn belongs_to_this_process(&self, yes: bool) {
        self.is_own.store(yes, Ordering::SeqCst);
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_own.load(Ordering::SeqCst) && identity(&self.path).is_ok_and(|now| now == self.identity) {
            // If this fails, the next gate replaces the file.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

/// Who may connect to the socket, besides root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Permitted {
    /// The gate's user.
    User,
    /// The group of its folder as well, if that folder admits the group and no others.
    GroupOfFolder,
}

impl Permitted {
    /// For a socket at `path` of a gate that was given these runtime folders (`RuntimeDirectory=`, systemd.exec(5)). The service
    /// manager sets the mode of such a folder for this purpose (`RuntimeDirectoryMode=`); that of another folder says nothing
    /// about the gate.
    pub(crate) fn at(path: &Path, runtime_folders: Option<&OsStr>) -> Self {
        let mut folders = runtime_folders.into_iter().flat_map(std::env::split_paths);
        let is_runtime_folder = folders.any(|folder| folder.is_absolute() && path.parent() == Some(&folder));
        if is_runtime_folder { Self::GroupOfFolder } else { Self::User }
    }
}

/// Creates the socket at `path`.
pub(super) fn bind(path: &Path) -> Result<(UnixListener, SocketFile), BindError> {
    remove_stale(path)?;
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Before the file exists: Linux creates it with the mode of the socket. A chmod of the path could be redirected by a
    // user who may write to the folder.
    rustix::fs::fchmod(&socket, Mode::from_raw_mode(0o600)).map_err(io::Error::from)?;
    socket.bind(&SockAddr::unix(path)?).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => BindError::NoFolder,
        _ => BindError::Io(error),
    })?;
    let file = SocketFile { path: path.to_owned(), identity: identity(path)?, is_own: true.into() };
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok((UnixListener::from(OwnedFd::from(socket)), file))
}

/// The socket of the process that this one replaces. Its file belongs to that one until it says otherwise.
pub(super) fn adopt(path: &Path, socket: socket2::Socket) -> io::Result<(UnixListener, SocketFile)> {
    let listens = socket.is_listener()? && socket.domain()? == Domain::UNIX;
    if !listens || socket.local_addr()?.as_pathname() != Some(path) {
        return Err(io::Error::other("the running gate has handed over another socket"));
    }
    socket.set_nonblocking(true)?;
    let file = SocketFile { path: path.to_owned(), identity: identity(path)?, is_own: false.into() };
    Ok((UnixListener::from(OwnedFd::from(socket)), file))
}

/// The group that may connect to the socket at `path`, as [`admit_group_of_folder`] has left it.
pub(super) fn admitted_group(path: &Path) -> io::Result<Option<u32>> {
    let file = fs::symlink_metadata(path)?;
    Ok((file.mode() & 0o060 == 0o060).then(|| file.gid()))
}

/// Lets the group of the socket's folder connect. Returns the group, or `None` if the folder is closed to its group.
///
/// The folder must belong to this user, and be writable for no other: then the name still means this socket, and every group
/// that its mode admits was meant to be admitted.
pub(super) fn admit_group_of_folder(path: &Path) -> io::Result<Option<u32>> {
    const GROUP_ENTERS: u32 = 0o010;
    const OTHERS_WRITE: u32 = 0o022;
    const OTHERS: u32 = 0o007;
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::openat(rustix::fs::CWD, folder, flags, Mode::empty())?;
    let there = rustix::fs::fstat(&folder)?;
    if there.st_uid != rustix::process::geteuid().as_raw()
        || there.st_mode & GROUP_ENTERS == 0
        || there.st_mode & (OTHERS_WRITE | OTHERS) != 0
    {
        return Ok(None);
    }
    let group = Gid::from_raw(there.st_gid);
    // A service of systemd has this group already, and the unit forbids the call.
    if rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)?.st_gid != there.st_gid {
        rustix::fs::chownat(&folder, name, None, Some(group), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    rustix::fs::chmodat(&folder, name, Mode::from_raw_mode(0o660), AtFlags::empty())?;
    Ok(Some(group.as_raw()))
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
    fn only_a_socket_that_listens_at_its_path_is_adopted() {
        let folder = folder();
        let (path, other) = (folder.path().join("control.sock"), folder.path().join("other.sock"));
        let (listener, file) = bind(&path).expect("a socket");
        let _other = bind(&other).expect("a socket");
        let handed = || listener.try_clone().expect("a copy").into();
        let (_adopted, former) = adopt(&path, handed()).expect("it is the one");
        assert!(adopt(&other, handed()).is_err());
        let silent = socket2::Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
        assert!(adopt(&path, silent).is_err());
        let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        assert!(adopt(&path, port.into()).is_err());
        // Its file belongs to the other process.
        drop(former);
        assert!(path.exists());
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn only_a_runtime_folder_decides_for_its_group() {
        let at = |path, folders: Option<&str>| Permitted::at(Path::new(path), folders.map(OsStr::new));
        assert_eq!(at("/run/doorward/control.sock", Some("/run/a:/run/doorward")), Permitted::GroupOfFolder);
        for (path, folders) in [
            ("/home/a/control.sock", Some("/run/doorward")),
            ("/run/doorward/control.sock", None),
            ("/run/doorward/below/control.sock", Some("/run/doorward")),
            ("control.sock", Some("")),
        ] {
            assert_eq!(at(path, folders), Permitted::User, "{path}");
        }
    }

    #[test]
    fn group_is_admitted_only_where_the_folder_admits_it_alone() {
        let folder = folder();
        let path = folder.path().join("control.sock");
        let _socket = bind(&path).expect("a socket");
        let mode = || fs::symlink_metadata(&path).expect("the file").permissions().mode() & 0o777;
        for closed in [0o700, 0o755, 0o770, 0o777, 0o705] {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(closed)).expect("set");
            assert_eq!(admit_group_of_folder(&path).expect("looked at"), None, "{closed:o}");
            assert_eq!(mode(), 0o600, "{closed:o}");
        }
        for open in [0o710, 0o750] {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(open)).expect("set");
            let group = fs::metadata(folder.path()).expect("the folder").gid();
            assert_eq!(admit_group_of_folder(&path).expect("done"), Some(group), "{open:o}");
            assert_eq!(mode(), 0o660, "{open:o}");
        }
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
