//! Renews certificates of devices without the owner: a process beside the gate, which has the key of the renewal authority.
//!
//! The gate itself speaks to strangers, so it has no key that could issue a certificate; its sandbox keeps it from the file. This
//! process speaks to the gate alone, by one socket, makes no other, reads what the configuration names, and writes answers to the folder
//! of requests.
//!
//! **It does not trust the gate**, which may have been taken over. All that the gate says is "look at the request of this device". What
//! counts is in the folder: the certificate that the device has shown, and a request that the key of this certificate has signed. The
//! process reads configuration, revocation lists and inventory anew for each request, judges the certificate as a gate does in a
//! handshake, and the request as `doorward ca approve` does; if anything cannot be read, it issues nothing. So a gate that was taken
//! over can have it issue one thing: another certificate for the same key and the same names, to a device that is neither revoked nor
//! expired. It can do so without the device if it has kept an earlier request of that, since a request (PKCS#10) has no time in it. That
//! is no use to anyone who has not the device's key, and its owner has a certificate anyway; how often it works is bounded.
//!
//! **The certificate** has the names of the one before, a profile of its own, and an end that the configuration sets. It says which
//! certificate of the owner's authority it [descends from](crate::model::identity::Origin): by that one it is revoked.

mod judge;
mod message;
mod pace;
mod process;

pub use judge::Renewer;
pub(crate) use message::{FromRenewer, ToRenewer};
pub use process::{RenewerError, authority_of, renewer};
