//! What reasons and causes are made of.

use std::fmt;
use std::io;

use ipnet::IpNet;

use crate::model::identity::{Serial, Sha256};
use crate::model::names::visible;

/// Where in the journey of a connection a decision fell (the order is the order of the journey).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Limits and source addresses, before a byte is read.
    Admission,
    /// The first bytes, looked at and not yet taken.
    ClientHello,
    /// Which route the server name leads to.
    Route,
    /// The TLS handshake, but for the client's certificate.
    Handshake,
    /// The client's certificate.
    Certificate,
    /// Whether the route allows this identity.
    Policy,
    /// Reaching the backend, for a client that is allowed.
    Backend,
    /// Anywhere: a fault of the gate itself.
    Internal,
}

impl Stage {
    /// The label value in metrics and log lines.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Admission => "admission",
            Self::ClientHello => "client_hello",
            Self::Route => "route",
            Self::Handshake => "handshake",
            Self::Certificate => "certificate",
            Self::Policy => "policy",
            Self::Backend => "backend",
            Self::Internal => "internal",
        }
    }

    /// Whether a rejection here has no route yet, so that its `route` label is `none`.
    pub const fn is_before_route(self) -> bool {
        match self {
            Self::Admission | Self::ClientHello | Self::Route => true,
            Self::Handshake | Self::Certificate | Self::Policy | Self::Backend | Self::Internal => false,
        }
    }
}

/// Who brought a rejection about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// What connected to us.
    Client,
    /// The service behind us.
    Backend,
    /// This program or its configuration.
    Gate,
}

impl Side {
    /// The word in log lines.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Backend => "backend",
            Self::Gate => "gate",
        }
    }
}

/// A text that this program did not choose, escaped and bounded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(Box<str>);

impl Text {
    /// The longest text, in bytes.
    pub const MAX: usize = 256;

    /// Escapes and cuts a text.
    pub fn new(text: impl fmt::Display) -> Self {
        let mut text = visible(&text.to_string(), Self::MAX);
        // What is escaped is longer than it was.
        if text.len() > Self::MAX {
            let end = (0..=Self::MAX - '…'.len_utf8()).rev().find(|&end| text.is_char_boundary(end));
            text.truncate(end.unwrap_or(0));
            text.push('…');
        }
        Self(text.into_boxed_str())
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An error of the operating system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IoError {
    /// Its kind.
    pub kind: io::ErrorKind,
    /// Its number, if it has one.
    pub errno: Option<i32>,
    /// Its text.
    pub text: Text,
}

impl From<&io::Error> for IoError {
    fn from(error: &io::Error) -> Self {
        Self { kind: error.kind(), errno: error.raw_os_error(), text: Text::new(error) }
    }
}

impl From<&io::Error> for Box<IoError> {
    fn from(error: &io::Error) -> Self {
        Self::new(IoError::from(error))
    }
}

impl From<io::Error> for Box<IoError> {
    fn from(error: io::Error) -> Self {
        Self::from(&error)
    }
}

impl From<io::Error> for IoError {
    fn from(error: io::Error) -> Self {
        Self::from(&error)
    }
}

/// Which list of addresses keeps a source out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressList {
    /// `deny_sources` has it, by this entry.
    Denied(IpNet),
    /// `allow_sources` lacks it.
    NotAllowed,
}

/// What is wrong with a PROXY protocol header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyHeaderFault {
    /// Version 1 without an end of line in this many bytes.
    NoEndOfLine(usize),
    /// The line does not end in CRLF.
    NoCrlf,
    /// The line is not ASCII.
    NotAscii,
    /// An address or a port cannot be read.
    Address,
    /// The line does not have the parts of a version 1 header.
    Form,
    /// Neither version 1 nor 2.
    Version,
    /// Longer than this many bytes.
    TooLong(usize),
    /// Too short for its addresses.
    TooShort,
    /// Not TCP over IPv4 or IPv6.
    Family,
    /// A command other than LOCAL and PROXY.
    Command,
}

/// A protocol, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP without TLS.
    Http,
    /// SSH.
    Ssh,
    /// SMB over TCP.
    Smb,
    /// A remote desktop client.
    Rdp,
    /// SOCKS.
    Socks,
    /// PostgreSQL, in the clear or before TLS.
    Postgres,
    /// A PROXY protocol header from a source that may not send one.
    ProxyHeader,
    /// A TLS record that cannot come first, or a hello of SSL 2.
    OtherTls,
    /// Anything else.
    Other,
}

/// What is wrong with a ClientHello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HelloFault {
    /// rustls cannot read it; the text is its own.
    Unreadable(Text),
    /// Bytes follow it in its last record.
    TrailingBytes,
    /// It is shorter than it says.
    Truncated,
    /// The client asked for TLS, and sent more before it was answered.
    BytesBehindRequest,
}

/// The entry of `deny` that has a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DenyEntry {
    /// By fingerprint.
    Fingerprint(Sha256),
    /// By serial number.
    Serial(Serial),
}

/// Why no revocation list speaks for a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListFault {
    /// There is none of its issuer.
    Missing,
    /// The list of that name is of an authority with another key.
    OtherAuthority,
    /// The issuer's certificate does not permit it to sign lists.
    NotPermitted,
    /// The lists of the issuer do not cover certificates of this kind.
    OtherScope,
}

/// Whose key or signature is of an unsupported kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signer {
    /// The device's certificate.
    Device,
    /// One above it.
    Issuer,
}

/// What is wrong with a certificate that no other cause covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateFault {
    /// It is not X.509.
    Unreadable,
    /// It is not DER.
    BadEncoding,
    /// It is of X.509 version 1.
    Version1,
    /// It is an authority's own (`CA:TRUE`).
    AuthorityAsDevice,
    /// Its issuer is no authority.
    IssuerNotAuthority,
    /// A path length constraint is exceeded.
    PathLength,
    /// Its names are outside an issuer's name constraints.
    NameConstraints,
    /// It has a critical extension that is not known.
    CriticalExtension,
    /// Its extended key usage is empty.
    EmptyUsage,
    /// It names two signature algorithms.
    AlgorithmMismatch,
    /// An extension is there twice or cannot be read.
    Extension,
    /// It expires before it begins to be valid.
    Validity,
    /// More authorities between it and trust than are followed.
    PathDepth,
    /// Path building was given up.
    TooMuchWork,
    /// It has more extensions than this.
    TooManyExtensions(usize),
    /// So many certificates were sent with it.
    TooManyCertificates(usize),
    /// The certificates sent are too long together.
    ChainTooLong {
        /// How many bytes they are.
        bytes: usize,
        /// How many are taken.
        most: usize,
    },
    /// A certificate of so many bytes without a path to trust.
    UnverifiedTooLong(usize),
    /// The renewal authority has signed it, and the gate does not take it for a renewed one.
    Renewed(RenewedFault),
    /// Another fault; the text is the validation's.
    Other(Text),
}

/// Why a host name was not resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookUp {
    /// The resolver failed.
    Failed(Box<IoError>),
    /// The name server did not answer within `timeouts.dial`.
    NoAnswer,
}

/// Why a certificate that the renewal authority has signed is not one that a device was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenewedFault {
    /// It does not say which certificate it descends from.
    NoOrigin,
    /// It says so twice, or in a form that the gate does not know.
    InvalidOrigin,
    /// The authority of that certificate is not in `trust`.
    OtherAuthority,
    /// The inventory has no such certificate, or one that is not renewed.
    NotInInventory,
    /// It is for another key than that certificate.
    OtherKey,
    /// It has other names.
    OtherNames,
}
