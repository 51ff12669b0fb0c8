//! `wake`: how the machine of a backend is woken.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// How the machine of a backend is woken (Wake-on-LAN).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Wake {
    /// The address of its network card.
    pub mac: Mac,
    /// Where the packet is sent: a broadcast or multicast address, and a port.
    pub broadcast: SocketAddr,
    /// How long it is waited for.
    pub timeout: Duration,
}

impl Wake {
    /// How long it is waited for, if the configuration does not say.
    pub const TIMEOUT: Duration = Duration::from_secs(90);
    /// The port, if the configuration does not say: "discard", the usual one.
    pub const PORT: u16 = 9;
}

/// The address of a network card (IEEE 802 MAC-48).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}
