//! What goes wrong with homes, in words.

use std::io;
use std::path::PathBuf;

use crate::bundle::BundleError;

/// A home cannot be read, written or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HomesError {
    /// The environment does not say where settings are.
    #[error("this user has no folder for settings: HOME is not set (Windows: APPDATA)")]
    NoFolder,
    /// The system's own error.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A file of a home is damaged.
    #[error("{}: {source}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: BundleError,
    },
    /// A file with a key that others can read.
    #[error("other users can read {0}, which has a key that is not encrypted\n  if none did: chmod 600 {0}; otherwise have the device revoked", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
    },
    /// A file that others can change.
    #[error(
        "other users can change {0}, which says what is trusted and where the key is\n  if none did: chmod 600 {0}, and make it yours; \
         otherwise join again with the file that you were given",
        path.display()
    )]
    Writable {
        /// The file.
        path: PathBuf,
    },
    /// A file that is used as it is names the token of its key.
    #[error(
        "{0} says that its key is in a PKCS#11 token\n  the library of a token is run, and a file may come from anywhere: name the key \
         yourself, with doorward join {0} --key pkcs11:…", path.display()
    )]
    TokenOfFile {
        /// The file.
        path: PathBuf,
    },
    /// There is no such home.
    #[error("no home called {0:?} was joined\n  to see those that were: doorward join --list")]
    Unknown(String),
    /// A name that cannot be that of a file.
    #[error(
        "{0:?} cannot be the name of a home here: use at most 64 letters, digits, \".\", \"_\" and \"-\"\n  choose one: doorward join FILE --as NAME"
    )]
    Name(String),
}

/// No route is meant, or more than one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotFound {
    /// Nothing was joined.
    #[error(
        "this user has joined no home\n  take the .doorward file that the owner of the gate made for this device: doorward join FILE"
    )]
    NoHomes,
    /// No home has it.
    #[error("no route is called {wanted:?}, and none leads to that name\n  there are: {}", known.join(", "))]
    Unknown {
        /// What was asked for.
        wanted: String,
        /// The routes that there are.
        known: Vec<String>,
    },
    /// Several routes have the name.
    #[error("{wanted:?} is ambiguous\n  choose one of: {}", choices.join(", "))]
    Ambiguous {
        /// What was asked for.
        wanted: String,
        /// Names that are not ambiguous.
        choices: Vec<String>,
    },
    /// The route has a pattern instead of a name.
    #[error("the route {route} answers to every name like {pattern}\n  give such a name instead of {route:?}")]
    Pattern {
        /// The route.
        route: String,
        /// Its server name.
        pattern: String,
    },
    /// A file of a home cannot be used, and no other home has the route.
    #[error(transparent)]
    Homes(#[from] HomesError),
}
