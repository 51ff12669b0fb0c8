//! `doorward install`: the gate as a service of this machine, from a folder that `doorward init` wrote.
//!
//! # Who owns what
//!
//! | what | belongs to | mode | so that |
//! |---|---|---|---|
//! | `/etc/doorward`, `doorward.toml` | root | 0755, 0644 | only root changes the configuration |
//! | `/etc/doorward/pki` and the certificates and lists in it | the owner of the authorities' folder | 0755, 0644 | `doorward ca revoke` replaces the list without root, for the next start; the gate cannot |
//! | the gate's key | `doorward` | 0400 | only the gate reads it; not the group, which may use the control socket |
//! | the same with `--load-credential`, in `/etc/doorward/credentials` | root | 0600 | not even the gate's user reads the file |
//! | the authorities' keys | the owner | 0600 | they stay in the owner's folder, which `/etc/doorward/authority` names |
//! | the key of `[renewal] issuer`, in `/var/lib/doorward-issuer` | `doorward` | 0700, 0400 | the process beside the gate reads it; the sandbox keeps the gate out |
//! | `/run/doorward/control.sock` | `doorward` | 0660 | the group `doorward` may ask and cut |
//!
//! Everything is a [`Step`] of a plan: `--dry-run` prints the steps that the real run prints and takes. Steps whose
//! result is there already are not in the plan, so a second run has none.
//!
//! | file | does |
//! |---|---|
//! | `installed` | what other commands need to know of an installed gate; hands it new lists and certificates |
//! | `source` | reads the owner's folder with the owner's rights |
//! | `accounts`, `page` | users and groups; man pages and completions |
//! | `step`, `system` | one step; what is there |
//! | `service`, `credentials` | what the service needs for this configuration: ports, kernel TLS, keys that systemd hands over |
//! | `issuer` | the key of the authority that renews certificates without the owner |
//! | `starting` | how the gate comes to run what was installed |
//! | `plan`, `removal` | the steps of an installation, and of its end |

mod accounts;
mod credentials;
mod gate_user;
mod installed;
mod issuer;
mod page;
mod plan;
mod removal;
mod service;
mod source;
mod starting;
mod step;
mod system;

pub use gate_user::GateUser;
pub use installed::Installed;
pub use page::Page;
pub use plan::{Plan, Wanted, plan};
pub use removal::{Removal, removal};
pub use step::Step;

use std::io;
use std::path::PathBuf;

use crate::config::ConfigErrors;

/// The folder of the key that renews certificates without the owner. The gate itself must not read it, so nothing else is there.
const ISSUER: &str = "/var/lib/doorward-issuer";

/// The user that the gate runs as, and its group, which may use the control socket.
const USER: &str = "doorward";

/// The folder of the configuration.
const FOLDER: &str = "/etc/doorward";

/// The configuration, in [`FOLDER`].
const CONFIG: &str = "doorward.toml";

/// The folder of certificates, lists and keys, in [`FOLDER`] and in the folder that `doorward init` wrote.
const PKI: &str = "pki";

/// The file in [`FOLDER`] that names the folder of the authorities.
const RECORD: &str = "authority";

/// Where the program is installed.
const PROGRAM: &str = "/usr/local/bin/doorward";

/// Where a package installs the program; its files are the package's.
const PACKAGED: &str = "/usr/bin/doorward";

/// Below this folder are the man pages and completions.
pub const PAGES: &str = "/usr/local/share";

/// Where the unit is installed.
const UNIT_FILE: &str = "/etc/systemd/system/doorward.service";

/// The script by which a package starts the gate where there is no systemd; its files are the package's.
const INIT_SCRIPT: &str = "/etc/init.d/doorward";

/// The unit, for a program at [`PROGRAM`].
const UNIT: &str = include_str!("../../deploy/doorward.service");

/// An installation cannot be planned, or a step of it failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The arguments do not fit what is there.
    #[error("{0}")]
    Usage(String),
    /// The configuration has errors.
    #[error("{0}")]
    Config(ConfigErrors),
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A step failed. Those before it are done.
    #[error(
        "failed to {step}: {message}\n  the steps before it are done; once this is resolved, run the command again"
    )]
    Step {
        /// What the step does.
        step: String,
        /// Why it failed.
        message: String,
    },
}

/// The configuration of the installed gate, whether or not there is one.
pub fn configuration() -> PathBuf {
    PathBuf::from(FOLDER).join(CONFIG)
}

fn read_error(path: &std::path::Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::Read { path, source }
}
