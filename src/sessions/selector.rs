//! Selects open sessions: the argument of `doorward cut`.

use std::net::SocketAddr;

use super::registry::Session;
use crate::explain::certificate::Certificate;
use crate::explain::recent::{InvalidWanted, Wanted};
use crate::model::source::Source;

/// Which sessions are selected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionSelector {
    /// Every session.
    All,
    /// The session with this id.
    Id(u64),
    /// The session whose client has this address and port.
    Peer(SocketAddr),
    /// The sessions of the route of this name.
    Route(String),
    /// The sessions of a source address, a certificate or a device.
    Client(Wanted),
}

/// Why a text is no [`SessionSelector`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSessionSelector {
    /// It is empty.
    #[error("expected a connection id, an IP address, a fingerprint, a device name, or route:NAME")]
    Empty,
    /// It is neither an address nor a fingerprint nor a name.
    #[error(transparent)]
    Client(InvalidWanted),
}

impl SessionSelector {
    /// Reads a session id, `route:NAME`, an IP address with or without a port, `sha256:…`, or the name of a device. It never
    /// gives [`All`](Self::All): a text that was cut short must not select every session.
    ///
    /// # Errors
    /// If the text is none of these.
    pub fn parse(text: &str) -> Result<Self, InvalidSessionSelector> {
        let text = text.trim();
        if text.is_empty() {
            return Err(InvalidSessionSelector::Empty);
        }
        if let Ok(id) = text.parse() {
            return Ok(Self::Id(id));
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Peer(address));
        }
        if let Some(route) = text.strip_prefix("route:") {
            return Ok(Self::Route(route.to_owned()));
        }
        match Wanted::parse(text).map_err(InvalidSessionSelector::Client)? {
            // Only `doorward why` has a last one. Here it may be the name of a device.
            Wanted::Last => Ok(Self::Client(Wanted::Name(text.to_owned()))),
            wanted => Ok(Self::Client(wanted)),
        }
    }

    /// Whether it selects this session; `source` is what its client's address is counted as.
    pub fn matches(&self, session: &Session, source: Source) -> bool {
        match self {
            Self::All => true,
            Self::Id(id) => session.id == *id,
            Self::Peer(address) => {
                let canonical = |address: SocketAddr| (address.ip().to_canonical(), address.port());
                canonical(session.source) == canonical(*address)
            }
            Self::Route(route) => session.route.as_str() == route,
            Self::Client(wanted) => {
                let certificate = session.identity.as_deref().map(Certificate::from);
                wanted.means_one(source, certificate.as_ref())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_of_a_selector_is_recognised() {
        let parse = SessionSelector::parse;
        let named = |name: &str| Ok(SessionSelector::Client(Wanted::Name(name.to_owned())));
        assert_eq!(parse(" 12 "), Ok(SessionSelector::Id(12)));
        assert_eq!(parse("192.0.2.7"), Ok(SessionSelector::Client(Wanted::Source([192, 0, 2, 7].into()))));
        assert_eq!(parse("192.0.2.7:4711"), Ok(SessionSelector::Peer(([192, 0, 2, 7], 4711).into())));
        assert_eq!(parse("route:nas"), Ok(SessionSelector::Route("nas".to_owned())));
        assert_eq!(parse("sha256:2951d183"), Ok(SessionSelector::Client(Wanted::Fingerprint("2951d183".to_owned()))));
        assert_eq!(parse("alice-phone"), named("alice-phone"));
        assert_eq!(parse("last"), named("last"));
        // A text that was cut short selects no more than was written.
        assert_eq!(parse("  "), Err(InvalidSessionSelector::Empty));
        assert_eq!(parse("sha256:"), Err(InvalidSessionSelector::Client(InvalidWanted::Fingerprint)));
        assert_eq!(parse("route:"), Ok(SessionSelector::Route(String::new())));
    }
}
