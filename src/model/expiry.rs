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
    /// The certificate with which such a device connects, although it was issued a newer one.
    Replaced,
    /// The certificate with which another device connects.
    Met,
}

impl Kind {
    /// The label value in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::TrustAnchor => "trust_anchor",
            Self::RevocationList => "revocation_list",
            Self::Device | Self::Replaced | Self::Met => "device",
        }
    }

    /// Whether it is a device's.
    pub const fn is_device(self) -> bool {
        matches!(self, Self::Device | Self::Replaced | Self::Met)
    }

    /// What it is, for people; its name comes behind.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Server => "the gate's own certificate",
            Self::TrustAnchor => "the authority that signed your devices' certificates",
            Self::RevocationList => "the list of revoked certificates",
            Self::Device | Self::Met => "the certificate of the device",
            Self::Replaced => "the old certificate that is still used by the device",
        }
    }
}

/// How long before its end something expires soon, in seconds. What the gate renews itself has less: see [`Expiry::soon`].
pub const SOON: i64 = 14 * 86_400;

/// Something that expires.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Expiry {
    /// When, in seconds since 1970.
    pub at: i64,
    /// What it is.
    pub kind: Kind,
    /// The file where it stands, or the name of the device. Two certificates of one file are told apart by their place in it.
    pub name: String,
    /// Since when it has been valid, if it is a public certificate: it is ordered again after two thirds of its life.
    pub renewed_since: Option<i64>,
}

impl Expiry {
    /// From when on it expires soon, in seconds since 1970. A public certificate does so when half of the time between its renewal
    /// and its end has passed without one, so that one that lasts for six days is not always about to expire.
    pub const fn soon(&self) -> i64 {
        let before = match self.renewed_since {
            Some(begin) => {
                let sixth = self.at.saturating_sub(begin) / 6;
                if sixth < 0 {
                    0
                } else if sixth < SOON {
                    sixth
                } else {
                    SOON
                }
            }
            None => SOON,
        };
        self.at.saturating_sub(before)
    }

    /// Whether it expires soon, or has expired.
    pub const fn is_soon(&self, now: i64) -> bool {
        self.soon() < now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_certificate_expires_soon_by_its_life() {
        const DAY: i64 = 86_400;
        let before = |renewed_since| {
            let expiry = Expiry { at: 90 * DAY, kind: Kind::Server, name: String::new(), renewed_since };
            let soon = expiry.soon();
            assert!(expiry.is_soon(soon + 1) && !expiry.is_soon(soon));
            expiry.at - soon
        };
        assert_eq!(before(None), 14 * DAY);
        assert_eq!(before(Some(0)), 14 * DAY);
        // Renewed with 15 and with 2 days left.
        assert_eq!(before(Some(45 * DAY)), 15 * DAY / 2);
        assert_eq!(before(Some(84 * DAY)), DAY);
        assert_eq!(before(Some(91 * DAY)), 0);
        assert_eq!(
            Expiry { at: i64::MIN, kind: Kind::Server, name: String::new(), renewed_since: None }.soon(),
            i64::MIN
        );
    }
}
