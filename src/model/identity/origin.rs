//! Where a certificate comes from that was issued without the owner.

use super::{Serial, Sha256};

/// The certificate that a renewed one descends from, through any number of renewals: one that an authority of the owner's has
/// signed. To revoke it is to revoke all that descends from it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// SHA-256 of the key (SubjectPublicKeyInfo) of the authority that has signed it. Names and key identifiers may be those of
    /// another household's authority as well.
    pub authority: Sha256,
    /// Its serial number.
    pub serial: Serial,
    /// SHA-256 of it.
    pub fingerprint: Sha256,
}
