//! Protocols whose clients ask for TLS before they begin it.

/// A protocol that begins in the clear, with a request for TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Starttls {
    /// PostgreSQL: the client sends an SSLRequest, the server answers `S`, and TLS begins.
    Postgres,
}

impl Starttls {
    /// All of them, with their words in the configuration.
    pub const WORDS: [(&str, Self); 1] = [("postgres", Self::Postgres)];

    /// Its name in the ALPN registry, which a client may offer.
    pub const fn application_protocol(self) -> &'static str {
        match self {
            Self::Postgres => "postgresql",
        }
    }
}
