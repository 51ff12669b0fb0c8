//! Exit codes: documented in the manual, used by scripts.

/// Success, or yes.
pub const OK: u8 = 0;
/// An unexpected error.
pub const UNEXPECTED: u8 = 1;
/// The command line is wrong (clap's own code), or a file it names, or the token with the key of a device.
pub const USAGE: u8 = 2;
/// The configuration has errors.
pub const CONFIG: u8 = 3;
/// The gate cannot start, for example because an address is in use; `upgrade`: it was not replaced.
pub const START: u8 = 4;
/// The gate stopped, but had to cut connections that did not end in time.
pub const CUT: u8 = 5;
/// `explain`: no, and the output says why; `connect`, `renew`: the gate refuses this device, or its owner the request.
pub const REFUSED: u8 = 6;
/// `init`, `ca`, `join`: files exist already, and nothing was written.
pub const EXISTS: u8 = 7;
/// `why`, `status`, `sessions`, `history`, `reload`, `cut`, `upgrade`, `certificate`: no gate answers, or it refused the request; stderr says
/// what to do. `connect`: the gate cannot be reached; `forward --status`: no forwarder runs.
pub const NO_GATE: u8 = 8;
/// `share`, `ca device --qr`: the link was closed before the certificate was fetched.
pub const NOT_FETCHED: u8 = 9;
/// `ca revoke`, `ca renew`, `ca server`, `certificate use`: written, but not known to be in force at the gate now and after its restart; stderr
/// says what to do.
pub const NOT_IN_FORCE: u8 = 10;
/// `notify`: a receiver did not take the message.
pub const NOT_DELIVERED: u8 = 11;

/// `certificate renew`: no certificate was issued.
pub const NOT_ISSUED: u8 = 12;
/// `connect`: the connection was cut, so that bytes may be missing.
pub const LOST: u8 = 13;

/// `renew`: the owner of the gate has not decided yet.
pub const WAITING: u8 = 14;

/// The table for `--help`.
pub(super) const HELP: &str = "\
Exit codes:
  0  success, or yes
  1  unexpected error
  2  the command line is wrong, or a file it names, or the token with the key of a device
  3  the configuration has errors
  4  the gate cannot start, for example because an address is in use; upgrade: it was not replaced
  5  the gate stopped, but had to cut connections that did not end in time
  6  explain: no; connect, renew: the gate refuses this device, or its owner the request
  7  init, ca, join: files exist already, and nothing was written
  8  why, status, sessions, history, reload, cut, upgrade, certificate, connect, forward, renew: no answer, or permission was denied
  9  share, ca device --qr: the link was closed before it was used
  10  ca revoke, ca renew, ca server, certificate use: written, but not known to be in force at the gate
  11  notify: a receiver did not take the message
  12  certificate renew: no certificate was issued
  13  connect: the connection was cut, and bytes may be missing
  14  renew: the owner of the gate has not decided yet";

/// The same, code by code.
pub(super) fn codes() -> Vec<(&'static str, &'static str)> {
    HELP.lines().filter_map(|line| line.trim_start().split_once("  ")).collect()
}
