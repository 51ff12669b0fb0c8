//! Exit codes: documented in the README, relied upon by scripts.

/// All is well, or yes.
pub const OK: u8 = 0;
/// Something unexpected went wrong.
pub const UNEXPECTED: u8 = 1;
/// The command line is wrong (clap's own code).
pub const USAGE: u8 = 2;
/// The configuration has mistakes.
pub const CONFIG: u8 = 3;
/// The gate cannot start: an address cannot be bound, say.
pub const START: u8 = 4;
/// The gate stopped, but connections that did not end in time were cut.
pub const CUT: u8 = 5;
/// `explain`: no, and the output says why.
pub const REFUSED: u8 = 6;
/// `init`: files would have been overwritten, and nothing was written.
pub const EXISTS: u8 = 7;
