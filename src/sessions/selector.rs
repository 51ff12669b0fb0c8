//! Which sessions somebody means.

use std::net::SocketAddr;

use super::registry::Session;
use crate::explain::refusals::{InvalidWanted, Shown, Wanted};
use crate::model::source::Source;

/// Which sessions are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whom {
    /// All of them.
    Everybody,
    /// The one with this number.
    Number(u64),
    /// The one from this address and port.
    From(SocketAddr),
    /// Those of a route.
    Route(String),
    /// Those of an address, a certificate or a device.
    Who(Wanted),
}

/// Why a text is no [`Whom`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidWhom {
    /// Nothing at all.
    #[error(
        "write the number of a connection, an address, a fingerprint, the name of a device, or route: and the name of a route"
    )]
    Empty,
    /// Nobody can be meant by it.
    #[error(transparent)]
    Who(InvalidWanted),
}

impl Whom {
    /// Reads the number of a session, `route:NAME`, an IP address with or without a port, `sha256:…`, or the name of a device.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &str) -> Result<Self, InvalidWhom> {
        let text = text.trim();
        if text.is_empty() {
            return Err(InvalidWhom::Empty);
        }
        if let Ok(number) = text.parse() {
            return Ok(Self::Number(number));
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::From(address));
        }
        if let Some(route) = text.strip_prefix("route:") {
            return Ok(Self::Route(route.to_owned()));
        }
        match Wanted::parse(text).map_err(InvalidWhom::Who)? {
            // Here it is no word of its own.
            Wanted::Last => Ok(Self::Who(Wanted::Name(text.to_owned()))),
            wanted => Ok(Self::Who(wanted)),
        }
    }

    /// Whether it means this session, whose client is counted as this source.
    pub fn means(&self, session: &Session, counted_as: Source) -> bool {
        match self {
            Self::Everybody => true,
            Self::Number(number) => session.id == *number,
            Self::From(address) => {
                let canonical = |address: SocketAddr| (address.ip().to_canonical(), address.port());
                canonical(session.source) == canonical(*address)
            }
            Self::Route(route) => session.route.as_str() == route,
            Self::Who(wanted) => {
                let shown = session.identity.as_deref().map(Shown::from);
                wanted.means_one(counted_as, shown.as_ref())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_means_what_it_says() {
        let who = |name: &str| Ok(Whom::Who(Wanted::Name(name.to_owned())));
        assert_eq!(Whom::parse(" 12 "), Ok(Whom::Number(12)));
        assert_eq!(Whom::parse("192.0.2.7"), Ok(Whom::Who(Wanted::Source([192, 0, 2, 7].into()))));
        assert_eq!(Whom::parse("192.0.2.7:4711"), Ok(Whom::From(([192, 0, 2, 7], 4711).into())));
        assert_eq!(Whom::parse("route:nas"), Ok(Whom::Route("nas".to_owned())));
        assert_eq!(Whom::parse("sha256:2951d183"), Ok(Whom::Who(Wanted::Fingerprint("2951d183".to_owned()))));
        assert_eq!(Whom::parse("alice-phone"), who("alice-phone"));
        assert_eq!(Whom::parse("last"), who("last"));
        // Nothing that is cut short means more than was written.
        assert_eq!(Whom::parse("  "), Err(InvalidWhom::Empty));
        assert_eq!(Whom::parse("sha256:"), Err(InvalidWhom::Who(InvalidWanted::Fingerprint)));
        assert_eq!(Whom::parse("route:"), Ok(Whom::Route(String::new())));
    }
}
