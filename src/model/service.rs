//! What is behind a route, as far as a client has to know: which program uses it.

use std::fmt;

/// The port that browsers dial where an address names none, and that a router forwards as a rule.
pub const PUBLIC_PORT: u16 = 443;

/// Which program uses a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceKind {
    /// A browser.
    Http,
    /// ssh.
    Ssh,
    /// A file manager: SMB.
    Smb,
    /// Another one.
    Other,
}

impl ServiceKind {
    /// All of them, with their words in the configuration.
    pub const WORDS: [(&str, Self); 4] =
        [("http", Self::Http), ("ssh", Self::Ssh), ("smb", Self::Smb), ("other", Self::Other)];

    /// The word in the configuration.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Ssh => "ssh",
            Self::Smb => "smb",
            Self::Other => "other",
        }
    }

    /// The kind of a route with these application protocols (ALPN); `None` if there are none, and any client is admitted.
    pub fn of_protocols<T: AsRef<[u8]>>(protocols: &[T]) -> Option<Self> {
        let has = |name: &[u8]| protocols.iter().any(|protocol| protocol.as_ref() == name);
        if protocols.is_empty() {
            None
        } else if has(b"h2") || has(b"http/1.1") {
            Some(Self::Http)
        } else if has(b"ssh") {
            Some(Self::Ssh)
        } else if has(b"smb") {
            Some(Self::Smb)
        } else {
            Some(Self::Other)
        }
    }
}

impl fmt::Display for ServiceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_that_of_its_kind() {
        assert!(ServiceKind::WORDS.iter().all(|(word, kind)| kind.word() == *word && kind.to_string() == *word));
    }

    #[test]
    fn browsers_are_recognised_by_their_protocols() {
        assert_eq!(ServiceKind::of_protocols::<&[u8]>(&[]), None);
        for (protocols, kind) in [
            (&["h2", "http/1.1"][..], ServiceKind::Http),
            (&["ssh", "http/1.1"], ServiceKind::Http),
            (&["ssh"], ServiceKind::Ssh),
            (&["smb"], ServiceKind::Smb),
            (&["imap"], ServiceKind::Other),
        ] {
            assert_eq!(ServiceKind::of_protocols(protocols), Some(kind), "{protocols:?}");
        }
    }
}
