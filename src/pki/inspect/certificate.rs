//! Describes a certificate.

use std::time::Duration;

use rustls::pki_types::{CertificateDer, UnixTime};
use time::OffsetDateTime;
use x509_parser::der_parser::asn1_rs::{Any, Class};
use x509_parser::extensions::{ExtendedKeyUsage, GeneralName};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Item, MAX, date, days, serial, shorten};
use crate::explain::detail;
use crate::model::identity::{Identity, key, text};
use crate::model::names::{is_wildcard_too_wide, printable, visible};
use crate::model::rejection::Reason;
use crate::model::text::counted;
use crate::pki::origin::{self, NoOrigin};
use crate::pki::{Parts, keys, public, validation_errors};

/// Apple's limit for servers whose root the user has installed (<https://support.apple.com/en-us/103769>).
const APPLE_DAYS: i64 = 825;
/// The limit for servers of public authorities (CA/Browser Forum, until March 2026).
const PUBLIC_DAYS: i64 = 398;
/// A certificate that expires in fewer days expires soon.
const SOON_DAYS: i64 = 30;

/// The extended key usage of a certificate.
struct Purposes {
    client: bool,
    server: bool,
    /// It has none.
    unrestricted: bool,
}

impl Purposes {
    fn of(usage: Option<&ExtendedKeyUsage<'_>>) -> Self {
        match usage {
            None => Self { client: true, server: true, unrestricted: true },
            Some(usage) => Self { client: usage.client_auth, server: usage.server_auth, unrestricted: false },
        }
    }

    fn words(usage: Option<&ExtendedKeyUsage<'_>>) -> String {
        let Some(usage) = usage else { return "any (no extended key usage)".to_owned() };
        let named = [
            (usage.client_auth, "client (a device)"),
            (usage.server_auth, "server"),
            (usage.email_protection, "e-mail"),
            (usage.code_signing, "code signing"),
            (usage.any, "any"),
        ];
        let words: Vec<&str> = named.iter().filter(|(said, _)| *said).map(|(_, word)| *word).collect();
        if words.is_empty() { "something else".to_owned() } else { words.join(", ") }
    }
}

pub(super) fn describe(der: &CertificateDer<'_>, now: OffsetDateTime) -> Item {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else {
        return Item::new("certificate", "an unreadable certificate");
    };
    let Ok(identity) = Identity::from_certificate(der, false) else {
        return Item::new("certificate", "an unreadable certificate");
    };
    let usage = certificate.extended_key_usage().ok().flatten().map(|extension| extension.value);
    let purposes = Purposes::of(usage);
    let authority = certificate.is_ca();
    let name = printable(&identity.display_name(), MAX);
    let mut item = Item::new("certificate", title(&certificate, &purposes, &name));

    item.fact("subject", printable(&text::name(certificate.subject()), MAX));
    item.fact("issuer", printable(&identity.issuer, MAX));
    let names = names(&certificate);
    if !names.is_empty() {
        item.fact("names", shorten(names));
    }
    item.fact("serial", serial(&identity.serial));
    item.fact("fingerprint", format!("sha256:{}", identity.fingerprint));
    item.fact("key", keys::describe(certificate.public_key().raw));
    item.fact("key_fingerprint", format!("spki:{}", identity.spki));
    item.fact("valid_from", date(identity.not_before));
    item.fact("valid_until", date(identity.not_after));
    item.fact("days_left", days(now.unix_timestamp(), identity.not_after).to_string());
    item.fact("purposes", Purposes::words(usage));
    match Parts::read(der).map(|parts| origin::of(&parts)) {
        Some(Ok(origin)) => item.fact(
            "descends_from",
            format!(
                "serial {}, sha256:{}, which counts if the renewal authority has signed this one",
                serial(&origin.serial),
                origin.fingerprint
            ),
        ),
        Some(Err(NoOrigin::Invalid)) => {
            item.warn("invalid_origin", "what it says about the certificate that it descends from cannot be read");
        }
        Some(Err(NoOrigin::Missing)) | None => {}
    }
    let as_client = validation_errors::alone(der, unix_time(now));
    item.fact(
        "as_client",
        match &as_client {
            Ok(()) => "the gate accepts it if trust has its issuer".to_owned(),
            Err(objection) => format!("{}: {}", objection.cause.reason(), printable_text(&detail(&objection.cause))),
        },
    );

    dates(&mut item, &identity, now.unix_timestamp());
    strength(&mut item, &certificate, &identity);
    if let Err(objection) = &as_client
        && objection.cause.reason() == Reason::CertificateInvalid
        && !authority
    {
        item.warn("invalid", format!("the gate rejects it: {}", printable_text(&detail(&objection.cause))));
    }
    if authority {
        about_authority(&mut item, &certificate, usage);
    } else {
        about_leaf(&mut item, &certificate, &identity, &purposes, as_client.is_ok());
    }
    item
}

fn title(certificate: &X509Certificate<'_>, purposes: &Purposes, name: &str) -> String {
    if certificate.is_ca() {
        let own = certificate.subject().as_raw() == certificate.issuer().as_raw();
        let kind = if own {
            "the certificate of an authority (a root)"
        } else {
            "the certificate of an intermediate authority"
        };
        let name = certificate.subject().iter_common_name().last().map(text::attribute);
        return format!("{kind}: {}", printable(name.as_deref().unwrap_or("without a name"), MAX));
    }
    let whose = match (purposes.client, purposes.server, purposes.unrestricted) {
        (_, _, true) => "a certificate for any purpose",
        (true, true, _) => "a certificate for a device and for a server",
        (true, false, _) => "a certificate for a device",
        (false, true, _) => "a certificate for a server",
        (false, false, _) => "a certificate for neither a device nor a server",
    };
    format!("{whose}: {name}")
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let names = names.value.general_names.iter();
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(printable(name, MAX)),
            GeneralName::RFC822Name(name) => Some(format!("email:{}", printable(name, MAX))),
            GeneralName::URI(name) => Some(format!("uri:{}", printable(name, MAX))),
            GeneralName::IPAddress(bytes) => {
                let address = <[u8; 4]>::try_from(*bytes).map(std::net::IpAddr::from);
                let address = address.or_else(|_| <[u8; 16]>::try_from(*bytes).map(std::net::IpAddr::from));
                address.ok().map(|address| format!("ip:{address}"))
            }
            GeneralName::DirectoryName(name) => Some(format!("directory:{}", printable(&text::name(name), MAX))),
            GeneralName::OtherName(kind, value) => Some(format!("other:{kind}={}", printable(&other_name(value), MAX))),
            GeneralName::RegisteredID(id) => Some(format!("id:{id}")),
            GeneralName::Invalid(tag, bytes) => {
                Some(format!("unreadable ({}): {}", tag.0, printable(&text::bytes(bytes), MAX)))
            }
            GeneralName::X400Address(_) | GeneralName::EDIPartyName(_) => Some("a name of an obsolete type".to_owned()),
        })
        .collect()
}

/// The string in an otherName, such as a UPN; else its bytes.
fn other_name(value: &[u8]) -> String {
    let inner = Any::from_der(value).ok().map(|(_, any)| any);
    // The value has an explicit tag.
    match inner.as_ref().and_then(|any| Any::from_der(any.data).ok()) {
        Some((_, string)) if inner.as_ref().is_some_and(|any| any.class() == Class::ContextSpecific) => {
            text::string(&string)
        }
        _ => inner.map_or_else(|| text::bytes(value), |any| text::string(&any)),
    }
}

/// Our text, which may quote text of the certificate.
fn printable_text(text: &str) -> String {
    visible(text, 2 * MAX)
}

fn unix_time(at: OffsetDateTime) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(at.unix_timestamp()).unwrap_or_default()))
}

fn dates(item: &mut Item, identity: &Identity, now: i64) {
    let plural = |days: i64| counted(days.unsigned_abs(), "day");
    if identity.not_after < now {
        let ago = days(identity.not_after, now);
        item.warn(
            "expired",
            format!("it expired {} ago", if ago == 0 { "less than a day".to_owned() } else { plural(ago) }),
        );
    } else if identity.not_before > now {
        item.warn("not_yet_valid", format!("it is not valid before {}; is a clock wrong?", date(identity.not_before)));
    } else if days(now, identity.not_after) < SOON_DAYS {
        item.warn("expires_soon", format!("it expires in {}", plural(days(now, identity.not_after))));
    }
}

fn strength(item: &mut Item, certificate: &X509Certificate<'_>, identity: &Identity) {
    // The signature of a root is never checked.
    let root = certificate.is_ca() && certificate.subject().as_raw() == certificate.issuer().as_raw();
    if let Some(what) = key::unsupported_signature(certificate).filter(|_| !root) {
        let id = if what.starts_with("SHA-1") || what.starts_with("MD") {
            "weak_signature"
        } else {
            "unsupported_signature"
        };
        item.warn(id, format!("it is signed with {what}, which the gate does not accept"));
    }
    if let Some(what) = &identity.unsupported_key {
        let id = if what.starts_with("RSA with") { "weak_key" } else { "unsupported_key" };
        item.warn(id, format!("its key is {what}, which the gate does not accept; it accepts {}", key::SUPPORTED));
    }
    let key = keys::describe(certificate.public_key().raw);
    if key == "ed25519" {
        item.note("ed25519", "browsers and phones do not accept Ed25519 keys; curl, OpenSSL and the gate do");
    }
}

fn about_authority(item: &mut Item, certificate: &X509Certificate<'_>, usage: Option<&ExtendedKeyUsage<'_>>) {
    if public::is_public(certificate) {
        item.warn(
            "public_authority",
            "it is a public authority, which issues certificates to everyone: in trust, it would admit everyone",
        );
    }
    let key_usage = certificate.key_usage().ok().flatten();
    let limited = certificate.name_constraints().is_ok_and(|constraints| constraints.is_some());
    // One that vouches for the servers of a domain has no list to sign.
    if !limited && key_usage.as_ref().is_some_and(|usage| !usage.value.crl_sign()) {
        item.note(
            "no_crl_sign",
            "its key usage does not allow signing revocation lists (cRLSign): OpenSSL rejects its lists, the gate accepts \
             them",
        );
    }
    if key_usage.is_some_and(|usage| !usage.value.key_cert_sign()) {
        item.warn(
            "no_cert_sign",
            "its key usage does not allow signing certificates (keyCertSign): clients reject what it signs",
        );
    }
    let servers = usage.is_none_or(|usage| usage.server_auth || usage.any);
    match certificate.name_constraints() {
        Ok(Some(constraints)) => {
            let permitted = constraints.value.permitted_subtrees.iter().flatten();
            let domains: Vec<String> = permitted
                .filter_map(|tree| match &tree.base {
                    GeneralName::DNSName(name) => Some(printable(name, MAX)),
                    _ => None,
                })
                .collect();
            if !domains.is_empty() {
                item.fact("limited_to", shorten(domains));
            }
        }
        _ if servers => item.note(
            "unlimited",
            "it has no name constraints: its key, if stolen, can impersonate any site to devices that trust it",
        ),
        _ => {}
    }
    if servers && certificate.subject().iter_common_name().next().is_none() {
        item.note("no_common_name", "it has no common name: iOS does not list such roots in its trust settings");
    }
}

fn about_leaf(
    item: &mut Item,
    certificate: &X509Certificate<'_>,
    identity: &Identity,
    purposes: &Purposes,
    accepted: bool,
) {
    let mkcert =
        certificate.subject().iter_organization().any(|name| name.as_str() == Ok("mkcert development certificate"));
    if purposes.unrestricted {
        let gate = if accepted { "; the gate admits it" } else { "" };
        item.note("no_purpose", format!("it has no extended key usage, so it is valid for every purpose{gate}"));
    } else if purposes.client && purposes.server {
        item.warn(
            "both_purposes",
            "it is for clients and servers: if the device is stolen, it can impersonate a server of its names to your \
             other devices",
        );
    } else if purposes.server {
        item.note("server_only", "this is a server certificate: the gate does not admit a device with it");
        if mkcert && identity.dns_names.iter().any(|name| name.starts_with('-')) {
            item.warn(
                "mkcert_option_order",
                "an option became a name: mkcert needs options before names, as in mkcert -client NAME",
            );
        }
    } else if !purposes.client {
        item.warn("wrong_purpose", "it is for another purpose: the gate does not admit a device with it");
    }
    if purposes.server && !purposes.unrestricted {
        if identity.dns_names.is_empty() && identity.ips.is_empty() {
            item.warn(
                "no_alternative_name",
                "it has no subject alternative name: clients read no other name, and reject it",
            );
        }
        if let Some(name) = identity.dns_names.iter().find(|name| is_wildcard_too_wide(name)) {
            item.warn(
                "wildcard_too_wide",
                format!(
                    "{} is directly below a top-level domain: OpenSSL and browsers do not accept it",
                    printable(name, MAX)
                ),
            );
        }
        // notBefore and notAfter are both included.
        let length = days(identity.not_before, identity.not_after + 1);
        if length > APPLE_DAYS {
            item.warn(
                "too_long",
                format!("it is valid for {length} days: Apple's systems reject server certificates of more than 825"),
            );
        } else if length > PUBLIC_DAYS {
            item.note(
                "long",
                format!(
                    "it is valid for {length} days: browsers accept up to 398 from a public authority, Apple up to \
                 825 from yours"
                ),
            );
        }
    }
    if certificate.subject().as_raw() == certificate.issuer().as_raw() {
        item.note("self_signed", "it is self-signed: no authority has signed it");
    }
}
