//! The outcome of a session ticket.

/// The outcome of the session ticket that a client presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TicketOutcome {
    /// Its session was resumed.
    Resumed,
    /// It could have been resumed, but the handshake was a full one, as for another server name, or failed.
    Unused,
    /// It is older than twelve hours, or its certificate has expired.
    Expired,
    /// The route no longer admits the certificate in it.
    Refused,
    /// The route has no key for it: it is another route's, from before a change of the route's settings, or no ticket.
    Unknown,
}

impl TicketOutcome {
    /// Every outcome.
    pub const ALL: [Self; 5] = [Self::Resumed, Self::Unused, Self::Expired, Self::Refused, Self::Unknown];

    /// The word in the metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Resumed => "resumed",
            Self::Unused => "unused",
            Self::Expired => "expired",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        }
    }
}
