//! The terminal at standard output.

/// How many columns it has; `None` if there is no terminal, or the system does not say.
#[cfg(unix)]
pub fn columns() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(rustix::stdio::stdout()).ok()?;
    Some(size.ws_col.into())
}

/// The same.
#[cfg(not(unix))]
pub const fn columns() -> Option<usize> {
    None
}
