//! The words about the parts of a cause.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::model::names::{ServerName, printable};
use crate::model::rejection::{
    AddressList, Alert, Cause, CertificateFault, DenyEntry, HelloFault, ListFault, LookUp, Protocol, ProxyHeaderFault,
    RenewedFault, Signer, Text,
};

/// The longest text of a client's choice, in bytes.
pub(super) const STRANGER_MAX: usize = 128;

/// Cuts text to so many bytes: escaped text is longer than it was.
pub(super) fn cut(mut text: String, max: usize) -> Box<str> {
    if text.len() > max {
        let end = (0..=max.saturating_sub('…'.len_utf8())).rev().find(|&end| text.is_char_boundary(end));
        text.truncate(end.unwrap_or(0));
        text.push('…');
    }
    text.into_boxed_str()
}

pub(super) fn share(limit: &str, share: usize) -> String {
    format!("connections without a valid certificate may use half of {limit} ({share}), and all of those are in use")
}

pub(super) fn address_list(list: AddressList) -> String {
    match list {
        AddressList::Denied(net) => format!("deny_sources contains {net}"),
        AddressList::NotAllowed => "allow_sources does not contain this address".to_owned(),
    }
}

pub(super) fn proxy_header(fault: ProxyHeaderFault) -> String {
    match fault {
        ProxyHeaderFault::NoEndOfLine(bytes) => return format!("no end of line in {bytes} bytes"),
        ProxyHeaderFault::TooLong(bytes) => return format!("longer than {bytes} bytes"),
        ProxyHeaderFault::NoCrlf => "the line does not end in CRLF",
        ProxyHeaderFault::NotAscii => "not ASCII",
        ProxyHeaderFault::Address => "an address or a port cannot be read",
        ProxyHeaderFault::Form => "not of the form \"PROXY TCP4 SOURCE DESTINATION PORT PORT\"",
        ProxyHeaderFault::Version => "a version other than 2",
        ProxyHeaderFault::TooShort => "too short for its addresses",
        ProxyHeaderFault::Family => "not TCP over IPv4 or IPv6",
        ProxyHeaderFault::Command => "a command other than LOCAL and PROXY",
    }
    .to_owned()
}

/// The word in log lines, on which filters may rely.
pub(super) const fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http => "http",
        Protocol::Ssh => "ssh",
        Protocol::Smb => "smb",
        Protocol::Rdp => "rdp",
        Protocol::Socks => "socks",
        Protocol::Postgres => "postgres",
        Protocol::ProxyHeader => "proxy header",
        Protocol::OtherTls => "tls, but not a ClientHello",
        Protocol::Other => "other",
    }
}

pub(super) fn hello(fault: &HelloFault) -> String {
    match fault {
        HelloFault::Unreadable(text) => text.to_string(),
        HelloFault::TrailingBytes => "extra bytes after the ClientHello".to_owned(),
        HelloFault::BytesBehindRequest => "bytes behind a request for TLS, before it was answered".to_owned(),
        HelloFault::Truncated => "a ClientHello that is shorter than its length field says".to_owned(),
    }
}

pub(super) fn bounded(name: &ServerName) -> String {
    printable(name.as_str(), 64)
}

/// Seconds since 1970 as a date and time (RFC 3339), or as they are if no calendar goes so far.
pub fn moment(seconds: i64) -> String {
    let at = OffsetDateTime::from_unix_timestamp(seconds).ok();
    at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_else(|| seconds.to_string())
}

pub(super) fn deny_entry(entry: &DenyEntry) -> String {
    match entry {
        DenyEntry::Fingerprint(fingerprint) => format!("deny contains sha256:{fingerprint}"),
        DenyEntry::Serial(serial) => format!("deny contains serial:{serial}"),
    }
}

pub(super) fn list(issuer: Option<&Text>, fault: ListFault) -> String {
    let issuer = issuer.map_or_else(|| "the certificate's issuer".to_owned(), Text::to_string);
    match fault {
        ListFault::Missing => format!("no revocation list of {issuer}"),
        ListFault::OtherAuthority => {
            format!("the revocation list of {issuer} was signed by another authority of the same name")
        }
        ListFault::NotPermitted => {
            format!("the certificate of {issuer} does not permit it to sign revocation lists (cRLSign)")
        }
        ListFault::OtherScope => format!("no revocation list of {issuer} covers this certificate"),
    }
}

pub(super) fn key(signer: Signer, key: Option<&Text>) -> String {
    match (signer, key) {
        (Signer::Device, Some(key)) => format!("its key is {key}"),
        (Signer::Device, None) => "its key is of an unknown type".to_owned(),
        (Signer::Issuer, Some(key)) => format!("its issuer's key is {key}"),
        (Signer::Issuer, None) => "its issuer's key is of an unknown type".to_owned(),
    }
}

pub(super) const fn signer(signer: Signer) -> &'static str {
    match signer {
        Signer::Device => "the certificate",
        Signer::Issuer => "an intermediate certificate",
    }
}

pub(super) fn certificate(fault: &CertificateFault) -> String {
    match fault {
        CertificateFault::Unreadable => "it cannot be read as an X.509 certificate",
        CertificateFault::BadEncoding => "its encoding is not valid DER",
        CertificateFault::Version1 => {
            "it is an X.509 version 1 certificate, as \"openssl x509 -req\" creates without -extfile; version 3 is \
             required"
        }
        CertificateFault::AuthorityAsDevice => "it is an authority's certificate (CA:TRUE), which devices must not use",
        CertificateFault::IssuerNotAuthority => {
            "its issuer is not an authority (the issuer's certificate lacks CA:TRUE)"
        }
        CertificateFault::PathLength => "its path is longer than an authority in it permits (pathlen)",
        CertificateFault::NameConstraints => "its names violate the name constraints of an authority above it",
        CertificateFault::CriticalExtension => {
            "it, or a certificate above it, has a critical extension that the gate does not support"
        }
        CertificateFault::EmptyUsage => "its extended key usage is empty",
        CertificateFault::AlgorithmMismatch => "it states two different signature algorithms",
        CertificateFault::Extension => "one of its extensions occurs twice or cannot be read",
        CertificateFault::Validity => "its validity ends before it begins",
        CertificateFault::PathDepth => "its path has more than six intermediate certificates",
        CertificateFault::TooMuchWork => "finding its path takes too many signature checks",
        CertificateFault::TooManyExtensions(most) => return format!("it has more than {most} extensions"),
        CertificateFault::TooManyCertificates(count) => {
            return format!("the client sent {count} certificates beside its own, which is too many");
        }
        CertificateFault::ChainTooLong { bytes, most } => {
            return format!("the client sent {bytes} bytes of certificates; the limit is {most}");
        }
        CertificateFault::UnverifiedTooLong(bytes) => {
            return format!(
                "it has {bytes} bytes, which is too many for a certificate that no authority in trust has signed"
            );
        }
        CertificateFault::Renewed(fault) => renewed(*fault),
        CertificateFault::Other(text) => return text.to_string(),
    }
    .to_owned()
}

/// What the renewal authority has signed, and the gate does not take.
const fn renewed(fault: RenewedFault) -> &'static str {
    match fault {
        RenewedFault::NoOrigin => {
            "the renewal authority has signed it, but it does not say which certificate of yours it descends from"
        }
        RenewedFault::InvalidOrigin => {
            "the renewal authority has signed it, but what it says about the certificate that it descends from cannot be relied on"
        }
        RenewedFault::OtherAuthority => {
            "the renewal authority has signed it, and the authority of the certificate that it descends from is not in trust"
        }
        RenewedFault::NotInInventory => {
            "the renewal authority has signed it, but it descends from no certificate in the inventory that can be renewed"
        }
        RenewedFault::OtherNames => {
            "the renewal authority has signed it with other names than that of the device whose certificate it descends from"
        }
        RenewedFault::OtherKey => {
            "the renewal authority has signed it for another key than that of the certificate that it descends from"
        }
    }
}

pub(super) fn not_allowed(name: &Text, name_constrained: bool) -> String {
    let why = if name_constrained {
        "; its issuer has name constraints, which do not cover the subject, so its common name is ignored"
    } else {
        ""
    };
    format!("allow does not contain {name}{why}")
}

/// The routes of a guest pass.
pub(super) fn routes(names: &Text) -> String {
    let names = names.to_string();
    if names.contains(", ") { format!("the routes {names}") } else { format!("the route {names}") }
}

pub(super) fn look_up(error: &LookUp) -> String {
    match error {
        LookUp::Failed(error) => error.text.to_string(),
        LookUp::NoAnswer => "the name server did not answer within timeouts.dial".to_owned(),
    }
}

/// What a client's alert means.
pub(super) const fn client_alert(cause: &Cause) -> &'static str {
    match cause {
        // bad_certificate to certificate_unknown, and unknown_ca (RFC 8446 section 6.2).
        Cause::PeerAlert(Alert(42..=46 | 48)) => "does not trust the gate's certificate",
        _ => "ended the handshake",
    }
}
