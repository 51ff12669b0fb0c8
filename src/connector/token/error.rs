//! What can be wrong with a token, in words.

use std::path::PathBuf;
use std::time::Duration;

/// Why a key in a token cannot be used. The words never hold a PIN.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// This program has no code for tokens.
    #[error("the key is in a PKCS#11 token, which this program was built without\n  build it with the feature pkcs11")]
    NotBuilt,
    /// A static program cannot load a library.
    #[error(
        "the key is in a PKCS#11 token, and this program is linked statically: it cannot load the token's library\n  use the program \
         of the Debian package, or build it for a target with the GNU C library"
    )]
    Static,
    /// It is not known how to speak to the token.
    #[error("the URI of the key does not say which library speaks to the token{0}\n  add ?module-path=/PATH to it")]
    NoModule(String),
    /// The library cannot be loaded.
    #[error("the library of the token cannot be used: {path}: {text}\n  is it installed? It is the \"module-path\" of the key's URI", path = .path.display())]
    Module {
        /// Its file.
        path: PathBuf,
        /// What the system says.
        text: String,
    },
    /// No such token is plugged in.
    #[error("{wanted} is not there\n  plug it in; {}", found(.there))]
    Absent {
        /// What was looked for.
        wanted: String,
        /// The tokens that are there.
        there: Vec<String>,
    },
    /// Several tokens fit.
    #[error("the URI of the key fits several tokens: {}\n  add \"serial\" or \"token\" to it, as in pkcs11:serial=NUMBER", .0.join(", "))]
    SeveralTokens(Vec<String>),
    /// The token has no such key.
    #[error(
        "{token} has no private key that the URI fits and that may sign\n  to see what is there: pkcs11-tool --module MODULE --login \
         --list-objects"
    )]
    NoKey {
        /// The token.
        token: String,
    },
    /// Several keys fit.
    #[error("the URI fits several keys of {token}: {}\n  add one of these to it", .keys.join(", "))]
    SeveralKeys {
        /// The token.
        token: String,
        /// A part of a URI for each.
        keys: Vec<String>,
    },
    /// The key cannot be used for this.
    #[error("the key in {token} cannot be used: {what}")]
    Unsuitable {
        /// The token.
        token: String,
        /// Why, with what to do about it.
        what: String,
    },
    /// The key is not that of the certificate.
    #[error(
        "the key in {token} is not that of the certificate\n  is it the right token, and the right key in it? The key is {uri}"
    )]
    OtherKey {
        /// The token.
        token: String,
        /// Where the key was looked for.
        uri: String,
    },
    /// There is no way to ask for the PIN.
    #[error(
        "{token} needs its PIN, and there is no terminal to ask on\n  set SSH_ASKPASS to a program that asks, or name a file with the PIN \
         that only you can read: pin-source=file:/PATH in the URI of the key"
    )]
    NoPin {
        /// The token.
        token: String,
    },
    /// The user gave no PIN.
    #[error("no PIN was given for {token}")]
    NotGiven {
        /// The token.
        token: String,
    },
    /// The file with the PIN cannot be used.
    #[error("the file with the PIN cannot be used: {path}: {what}", path = .path.display())]
    PinFile {
        /// The file.
        path: PathBuf,
        /// Why.
        what: String,
    },
    /// The PIN in the file may be wrong, and another try would cost one of few.
    #[error(
        "{token} says that a wrong PIN was entered last, so the one in {path} is not tried again\n  check it, then enter the PIN once by \
         hand, as with: pkcs11-tool --module MODULE --login --list-objects", path = .path.display()
    )]
    NotTried {
        /// The token.
        token: String,
        /// The file.
        path: PathBuf,
    },
    /// The PIN is wrong.
    #[error("the PIN of {token} is wrong, and is not tried again: {left}")]
    WrongPin {
        /// The token.
        token: String,
        /// What is known about further tries.
        left: &'static str,
    },
    /// The PIN was wrong too often.
    #[error(
        "the PIN of {token} is locked, after too many wrong ones\n  unlock it with its PUK or its administrator's PIN, with the program \
         of its maker (YubiKey: ykman piv access unblock-pin)"
    )]
    Locked {
        /// The token.
        token: String,
    },
    /// It was there before.
    #[error("{token} was removed\n  plug it in again; open connections live on without it")]
    Removed {
        /// The token.
        token: String,
    },
    /// The user has not touched it.
    #[error("{token} does not answer\n  does it wait for a touch? Other programs may be using it as well")]
    Silent {
        /// The token.
        token: String,
    },
    /// The gate was no longer there when it had signed.
    #[error("{token} took {} s to sign, and the gate did not wait that long\n  touch it sooner", .took.as_secs())]
    Late {
        /// The token.
        token: String,
        /// How long it took.
        took: Duration,
    },
    /// Anything else.
    #[error("{token} failed to {action}: {text}")]
    Failed {
        /// The token.
        token: String,
        /// What it was asked to do.
        action: &'static str,
        /// What its library says.
        text: String,
    },
}

impl TokenError {
    /// Whether it may be over in a moment: the token is plugged in again, or touched.
    pub const fn is_passing(&self) -> bool {
        matches!(self, Self::Absent { .. } | Self::Removed { .. } | Self::Silent { .. } | Self::Late { .. })
    }
}

fn found(there: &[String]) -> String {
    if there.is_empty() {
        "there is no other token either".to_owned()
    } else {
        format!("there are: {}", there.join(", "))
    }
}
