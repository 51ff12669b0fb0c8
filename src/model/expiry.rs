//! Things that expire.

/// What expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A certificate of the gate's own.
    Server,
    /// An authority that signs client certificates.
    TrustAnchor,
    /// An authority's list of certificates that no longer count.
    RevocationList,
    /// The certificate of a device that `doorward ca` knows.
    Device,
}

impl Kind {
    /// The label value in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::TrustAnchor => "trust_anchor",
            Self::RevocationList => "revocation_list",
            Self::Device => "device",
        }
    }

    /// What it is, for people; its name comes behind.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Server => "the gate's own certificate",
            Self::TrustAnchor => "the authority that signed your devices' certificates",
            Self::RevocationList => "the list of revoked certificates",
            Self::Device => "the certificate of the device",
        }
    }
}

/// Something that expires.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Expiry {
    /// When, in seconds since 1970.
    pub at: i64,
    /// What it is.
    pub kind: Kind,
    /// The file where it stands, or the name of the device. Two certificates of one file are told apart by their place in it.
    pub name: String,
}
