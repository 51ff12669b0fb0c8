//! How an attempt to wake a machine ended.

/// How an attempt to wake a machine ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WakeOutcome {
    /// The backend answered.
    Woken,
    /// It did not answer within `wake.timeout`.
    Timeout,
    /// The packet could not be sent.
    NotSent,
    /// All connections that waited for it had ended before.
    Abandoned,
}

impl WakeOutcome {
    /// Every outcome.
    pub const ALL: [Self; 4] = [Self::Woken, Self::Timeout, Self::NotSent, Self::Abandoned];

    /// The word in the metrics and in the log.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Woken => "woken",
            Self::Timeout => "timeout",
            Self::NotSent => "not_sent",
            Self::Abandoned => "abandoned",
        }
    }
}
