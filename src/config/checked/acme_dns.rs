//! `dns` of `[certificate.acme]`: how the TXT records of dns-01 are published, and who must show them.

use std::fmt;
use std::time::Duration;

use super::dns_providers::DnsProvider;
use super::notify::Secret;

/// TXT records for challenges of the kind dns-01.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// How a record is published and removed.
    pub publisher: DnsBy,
    /// `servers`: the authoritative servers, where those that the machine's resolver finds are not the public ones.
    pub servers: Vec<DnsServer>,
    /// `propagation`: how long the authoritative servers may take to show a record.
    pub propagation: Duration,
}

/// How a record is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DnsBy {
    /// By a DNS server that takes changes (RFC 2136).
    Update(DnsUpdate),
    /// By the HTTP API of a provider.
    Api(DnsApi),
    /// By a program, with these arguments before its own.
    Command(Vec<String>),
}

/// A DNS server that takes changes (RFC 2136).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsUpdate {
    /// `server`
    pub server: DnsServer,
    /// What signs the changes.
    pub key: TsigKey,
}

/// A key that a DNS server and its client share (RFC 8945).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TsigKey {
    /// What the server knows it by.
    pub name: String,
    /// How it signs.
    pub algorithm: TsigAlgorithm,
    /// In base64.
    pub secret: Secret,
}

/// How a key signs changes. MD5 and SHA-1 are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TsigAlgorithm {
    /// `hmac-sha256`
    Sha256,
    /// `hmac-sha384`
    Sha384,
    /// `hmac-sha512`
    Sha512,
}

impl TsigAlgorithm {
    /// Each, by the word for it.
    pub const WORDS: &[(&str, Self)] =
        &[("hmac-sha256", Self::Sha256), ("hmac-sha384", Self::Sha384), ("hmac-sha512", Self::Sha512)];
}

impl fmt::Display for TsigAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = Self::WORDS.iter().find(|(_, algorithm)| algorithm == self).map(|(word, _)| *word);
        f.write_str(word.unwrap_or_default())
    }
}

/// An account at a provider. What each of these is called there is in [`DnsProvider::ALL`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsApi {
    /// `provider`
    pub provider: DnsProvider,
    /// `user`
    pub user: Option<String>,
    /// `token_file`
    pub token: Option<Secret>,
    /// `secret_file`
    pub secret: Option<Secret>,
    /// `endpoint`
    pub endpoint: Option<String>,
}

/// A DNS server: a host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsServer {
    /// A name or an address, without brackets.
    pub host: String,
    /// As a rule 53.
    pub port: u16,
}

impl fmt::Display for DnsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Dns {
    /// How long a record may take to be seen, unless it is configured.
    pub const PROPAGATION: Duration = Duration::from_secs(5 * 60);

    /// What the process that orders certificates connects to: hosts and ports. An empty host is any: the machine's resolver, and the
    /// authoritative servers that it finds.
    pub fn needs(&self) -> Vec<(String, u16)> {
        let mut needs = vec![(String::new(), 53)];
        needs.extend(self.servers.iter().map(|server| (server.host.clone(), server.port)));
        match &self.publisher {
            DnsBy::Update(update) => needs.push((update.server.host.clone(), update.server.port)),
            DnsBy::Api(api) => needs.push((api.provider.keys().host.to_owned(), 443)),
            DnsBy::Command(_) => {}
        }
        needs
    }

    /// Whether a program of the owner runs, which would inherit a sandbox.
    pub fn runs_program(&self) -> bool {
        matches!(self.publisher, DnsBy::Command(_))
    }
}
