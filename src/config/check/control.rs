//! `[control]`: the socket for those who ask the running gate.

use std::path::Path;

use crate::config::checked::{Control, ControlSocket};
use crate::config::files;
use crate::config::raw::RawControl;
use crate::config::report::{Given, Report};

/// The longest path of a unix socket, in bytes (unix(7): `sun_path` has 108, and one of them ends it).
const LONGEST: usize = 107;

/// Where the socket is to be.
pub(in crate::config) fn check(given: &Given<RawControl>, report: &mut Report) -> Option<Control> {
    const REMEDY: &str =
        "write socket = \"auto\", or a path such as \"/run/doorward/control.sock\", or \"off\" for none";
    let at = |name: &str| {
        let path = files::folder_of(report.file()).join(name);
        // The gate and its commands may run in different folders.
        std::path::absolute(&path).unwrap_or(path)
    };
    let auto = || Control { socket: ControlSocket::Auto(at(ControlSocket::NAME)) };
    let text = match given {
        Given::Refused => return None,
        Given::Absent => return Some(Control { socket: ControlSocket::Off }),
        Given::Value(control) => match &control.value.socket {
            Given::Refused => return None,
            Given::Absent => return Some(auto()),
            Given::Value(text) if text.value == "auto" => return Some(auto()),
            Given::Value(text) if text.value == "off" => return Some(Control { socket: ControlSocket::Off }),
            Given::Value(text) => text,
        },
    };
    let path = at(&text.value);
    if text.value.is_empty() || text.value.ends_with('/') || text.value.contains('\0') {
        report.error(&text.place, "this is not the name of a file, and the socket is one", REMEDY);
        return None;
    }
    if length(&path) > LONGEST {
        let message = format!(
            "the path of a socket may have {LONGEST} bytes, and this one has {}: {}",
            length(&path),
            path.display()
        );
        report.error(&text.place, message, REMEDY);
        return None;
    }
    Some(Control { socket: ControlSocket::At(path) })
}

fn length(path: &Path) -> usize {
    path.as_os_str().len()
}
