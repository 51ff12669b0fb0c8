//! The finding that a refused client pretended to be a device, or used a bait that no device has a use for.

/// What a refused client pretended to be, beside the reason for which it was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Impostor {
    /// The name of the device; for [`Claim::CanaryRoute`], of the route.
    pub name: Box<str>,
    /// What gave it away.
    pub claim: Claim,
}

/// What a refused client had of a device although none of the owner's authorities signed its certificate, or which bait it
/// took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Claim {
    /// A certificate with the name of a device.
    Name,
    /// A certificate with the serial number of a device's certificate.
    Serial,
    /// A certificate with the public key of a device's certificate. That is no proof that the client has the private key.
    Key,
    /// The certificate of a device that was issued as a canary: it is kept where only a thief finds it.
    Canary,
    /// The server name of a route that is a canary: no device is told it.
    CanaryRoute,
}

impl Claim {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Name, Self::Serial, Self::Key, Self::Canary, Self::CanaryRoute];

    /// The word in log lines and JSON.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Serial => "serial",
            Self::Key => "key",
            Self::Canary => "canary",
            Self::CanaryRoute => "canary_route",
        }
    }

    /// Whether this is a bait that the owner laid: then the client's source is banned at once.
    pub const fn is_canary(self) -> bool {
        matches!(self, Self::Canary | Self::CanaryRoute)
    }
}
