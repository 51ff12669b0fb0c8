//! Exit codes: documented in the README, relied upon by scripts.

/// All is well, or yes.
pub const OK: u8 = 0;
/// Something unexpected went wrong.
pub const UNEXPECTED: u8 = 1;
/// The command line is wrong (clap's own code), or a file that it names.
pub const USAGE: u8 = 2;
/// The configuration has mistakes.
pub const CONFIG: u8 = 3;
/// The gate cannot start: an address cannot be bound, say.
pub const START: u8 = 4;
/// The gate stopped, but connections that did not end in time were cut.
pub const CUT: u8 = 5;
/// `explain`: no, and the output says why.
pub const REFUSED: u8 = 6;
/// `init`, `ca`: files would have been overwritten, and nothing was written.
pub const EXISTS: u8 = 7;
/// `why`, `status`, `sessions`, `reload`, `cut`: there is no running gate to be asked, and stderr says what to do.
pub const NO_GATE: u8 = 8;
/// `share`, `ca device --qr`: the link was closed before anybody fetched what it had.
pub const NOT_FETCHED: u8 = 9;
/// `ca revoke`, `ca renew`, `ca server`: what was written is not proved to be in force, or would not be after a restart of the
/// gate, and stderr says what to do.
pub const NOT_IN_FORCE: u8 = 10;

/// The table for `--help`.
pub(super) const HELP: &str = "\
Exit codes:
  0  all is well, or yes
  1  something unexpected went wrong
  2  the command line is wrong, or a file it names
  3  the configuration has mistakes
  4  the gate cannot start: an address is taken, say
  5  the gate stopped, but had to cut connections that did not end in time
  6  explain: no
  7  init, ca: files would have been overwritten, and nothing was written
  8  why, status, sessions, reload, cut: no gate is running there, or it may not be asked
  9  share, ca device --qr: nobody has fetched it
  10  ca revoke, ca renew, ca server: written, but not known to be in force at the gate";

/// The same, code by code.
pub(super) fn codes() -> Vec<(&'static str, &'static str)> {
    HELP.lines().filter_map(|line| line.trim_start().split_once("  ")).collect()
}
