//! Programs on a terminal.

use std::process::Command;

use super::process::{run, tool};

/// Runs `argv[3:]` on a terminal and prints what stood there. `argv[1]` is typed, one part a question; `argv[2]` says whether what
/// is typed is shown.
const TERMINAL: &str = r"
import os, pty, sys, termios, time
typed = sys.argv[1].split('|') if sys.argv[1] else []
hidden = sys.argv[2] == 'hidden'
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[3], sys.argv[3:])
seen = b''
while True:
    try:
        part = os.read(terminal, 65536)
    except OSError:
        break
    if not part:
        break
    seen += part
    if typed and seen.rstrip(b' ').endswith(b':'):
        # Text that is typed before the echo is turned off would be shown.
        while hidden and termios.tcgetattr(terminal)[3] & termios.ECHO:
            time.sleep(0.001)
        os.write(terminal, typed.pop(0).encode() + b'\n')
        seen += b'<typed>'
sys.stdout.buffer.write(seen)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
";

/// Runs a command on a terminal, where `typed` is typed, one text at each question for a password: what stood there, and the exit
/// code.
pub(crate) fn on_a_terminal(command: &Command, typed: &[&str]) -> (String, i32) {
    start(command, typed, "hidden")
}

/// The same, where the questions are no passwords.
pub(crate) fn answering(command: &Command, typed: &[&str]) -> (String, i32) {
    start(command, typed, "shown")
}

fn start(command: &Command, typed: &[&str], echo: &str) -> (String, i32) {
    let mut python = tool("python3", "python3");
    if let Some(folder) = command.get_current_dir() {
        python.current_dir(folder);
    }
    python.args(["-c", TERMINAL, &typed.join("|"), echo]).arg(command.get_program()).args(command.get_args());
    let ended = run(&mut python);
    (ended.text(), ended.status.code().unwrap())
}
