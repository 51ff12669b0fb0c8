//! Text that may be longer than the screen.

use std::env;
use std::io::{self, IsTerminal as _, Write as _};
use std::process::{Command, ExitCode, Stdio};

use crate::cli::exit;
use crate::manual::terminal::Look;
use crate::sys::terminal;

/// Lines longer than this are hard to read; and what there is without a terminal.
const MOST_COLUMNS: usize = 100;
const COLUMNS: usize = 80;

/// Shows a text: through the user's pager if stdout is a terminal, to stdout as it is otherwise.
pub(super) fn show(text: impl Fn(Look) -> String) -> ExitCode {
    let stdout = io::stdout();
    if !stdout.is_terminal() {
        outln!("{}", text(Look { width: COLUMNS, styled: false }).trim_end());
        return exit::OK.into();
    }
    let text = text(Look { width: columns().min(MOST_COLUMNS), styled: wants_styles() });
    if !page(&text) {
        outln!("{}", text.trim_end());
    }
    exit::OK.into()
}

/// Hands the text to the pager. False if there is none, so that the text is still to be shown.
fn page(text: &str) -> bool {
    let pager = env::var("PAGER").unwrap_or_else(|_| "less".to_owned());
    if pager.trim().is_empty() || pager.trim() == "cat" {
        return false;
    }
    // As git does: the variable may have options, and less shows short texts without waiting, and styles as styles.
    let mut command = Command::new("sh");
    command.args(["-c", &pager]).stdin(Stdio::piped());
    if env::var_os("LESS").is_none() {
        command.env("LESS", "FRX");
    }
    let Ok(mut child) = command.spawn() else { return false };
    if let Some(mut stdin) = child.stdin.take() {
        // The reader may leave before the end.
        let _ = stdin.write_all(text.as_bytes());
    }
    // 127 is the shell's: there is no such program.
    child.wait().is_ok_and(|status| status.code() != Some(127))
}

/// The width of the terminal.
fn columns() -> usize {
    terminal::columns().filter(|columns| *columns > 0).unwrap_or(COLUMNS)
}

/// Not everybody wants colours: <https://no-color.org>.
fn wants_styles() -> bool {
    let is_set = |variable: &str| env::var_os(variable).is_some_and(|value| !value.is_empty());
    !is_set("NO_COLOR") && env::var_os("TERM").is_some_and(|terminal| terminal != "dumb")
}
