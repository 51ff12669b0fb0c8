//! The socket of the service manager (`$NOTIFY_SOCKET`, sd_notify(3)): a file, or a name of the abstract namespace, which some
//! container managers use and the crate sd-notify does not know.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Mutex, PoisonError};

use sd_notify::NotifyState;

/// The connected socket. It is kept: Landlock, which may be in force later, forbids a process to connect to abstract sockets of
/// others, and permits datagrams to the one that it was connected to before.
static CONNECTED: Mutex<Option<UnixDatagram>> = Mutex::new(None);

/// Connects, if there is a service manager. Later messages need no right to connect then.
///
/// # Errors
/// If the variable names no socket, or nothing receives there.
pub(super) fn connect() -> io::Result<()> {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let socket = connected_to(&name)?;
    *CONNECTED.lock().unwrap_or_else(PoisonError::into_inner) = Some(socket);
    Ok(())
}

/// Sends these assignments in one message. Without a service manager, nothing is sent. Waits while the manager's queue is full.
///
/// # Errors
/// If the message cannot be sent.
pub(super) fn send(states: &[NotifyState<'_>]) -> io::Result<()> {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let mut text = String::new();
    for state in states {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{state}");
    }
    let mut kept = CONNECTED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(socket) = &*kept
        && socket.send(text.as_bytes()).is_ok()
    {
        return Ok(());
    }
    // The first message, or the manager has a new socket.
    let socket = connected_to(&name)?;
    socket.send(text.as_bytes())?;
    *kept = Some(socket);
    Ok(())
}

fn connected_to(name: &OsStr) -> io::Result<UnixDatagram> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        _ => {
            let what = "NOTIFY_SOCKET is neither an absolute path nor an abstract socket (@…)";
            return Err(io::Error::new(io::ErrorKind::Unsupported, what));
        }
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_and_abstract_name_are_reached_and_others_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let by_path = UnixDatagram::bind(&path).expect("bound");
        let name = format!("doorward-test-{}/notify", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let by_name = UnixDatagram::bind_addr(&address).expect("bound");
        for (manager, shown) in [(by_path, path.display().to_string()), (by_name, format!("@{name}"))] {
            connected_to(OsStr::new(&shown)).and_then(|socket| socket.send(b"READY=1\n")).expect("sent");
            let mut buffer = [0; 64];
            let length = manager.recv(&mut buffer).expect("received");
            assert_eq!(buffer.get(..length), Some(&b"READY=1\n"[..]), "{shown}");
        }
        for wrong in ["", "relative", "vsock:2:1234", "@doorward-test-none"] {
            assert!(connected_to(OsStr::new(wrong)).is_err(), "{wrong:?}");
        }
    }
}
