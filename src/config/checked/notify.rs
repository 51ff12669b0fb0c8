//! `[notify]`: what the owner is sent messages about, and where to.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use hyper::Uri;
use rustls::pki_types::CertificateDer;
use zeroize::Zeroizing;

use crate::model::notice::NoticeEvent;

/// Messages to the owner. Without a receiver there are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notify {
    /// What is told.
    pub events: BTreeSet<NoticeEvent>,
    /// An HTTP server that takes the messages.
    pub webhook: Option<Webhook>,
    /// A program that takes the messages, with its arguments.
    pub command: Option<Vec<String>>,
    /// The files that were read for it.
    pub files: Vec<PathBuf>,
}

/// An HTTP server that takes messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// Where to.
    pub url: SecretUrl,
    /// What it is sent.
    pub format: Format,
    /// What it is shown as `Authorization: Bearer`.
    pub token: Option<Secret>,
    /// The authorities that may sign its certificate, instead of those that the machine trusts.
    pub trust: Option<Vec<CertificateDer<'static>>>,
}

/// What a webhook is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Every field.
    Json,
    /// As ntfy takes it (publish as JSON).
    Ntfy,
    /// As Gotify takes it (`/message`).
    Gotify,
    /// As Slack, Mattermost and Rocket.Chat take it (incoming webhooks).
    Slack,
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Keeps it.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// A URL with `http` or `https` and a host. Its path is often a password: only scheme, host and port are ever shown.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretUrl(Uri);

impl SecretUrl {
    /// Keeps the URL, if it has a scheme that is known and a host.
    pub fn new(url: Uri) -> Option<Self> {
        let known = matches!(url.scheme_str(), Some("http" | "https"));
        (known && url.host().is_some_and(|host| !host.is_empty())).then_some(Self(url))
    }

    /// The URL.
    pub fn expose(&self) -> &Uri {
        &self.0
    }

    /// Whether the connection is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.0.scheme_str() == Some("https")
    }

    /// The name or address of the host, without brackets.
    pub fn host(&self) -> &str {
        let host = self.0.host().unwrap_or_default();
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
    }

    /// The port.
    pub fn port(&self) -> u16 {
        match self.0.port_u16() {
            Some(port) => port,
            None if self.is_encrypted() => 443,
            None => 80,
        }
    }
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.0.scheme_str().unwrap_or_default(), self.0.host().unwrap_or_default())?;
        self.0.port_u16().map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}/…")
    }
}

impl Notify {
    /// Whether messages go anywhere.
    pub const fn is_on(&self) -> bool {
        self.webhook.is_some() || self.command.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_scheme_host_and_port_are_shown() {
        let url: Uri = "https://[fd00::1]:8443/secret-topic?token=other-secret".parse().expect("a URL");
        let url = SecretUrl::new(url).expect("a webhook");
        assert_eq!((url.host(), url.port(), url.is_encrypted()), ("fd00::1", 8443, true));
        let webhook =
            Webhook { url, format: Format::Json, token: Some(Secret::new("third-secret".to_owned())), trust: None };
        let notify = Notify { webhook: Some(webhook), ..Notify::default() };
        let shown = format!("{notify:?} {}", notify.webhook.as_ref().expect("a webhook").url);
        assert!(shown.contains("https://[fd00::1]:8443") && !shown.contains("secret-") && !shown.contains("-secret"));
        for wrong in ["ftp://host/", "/path", "host:80", "https:///x"] {
            assert!(wrong.parse().ok().and_then(SecretUrl::new).is_none(), "{wrong}");
        }
    }
}
