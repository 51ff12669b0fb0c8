//! Values of command line arguments.

use crate::model::device_name::DeviceName;
use crate::model::identity::{Serial, Sha256};
use crate::model::names::{ServerName, ServerNamePattern};

/// A domain. An address as a browser shows it is understood.
pub(in crate::cli) fn parse_domain(text: &str) -> Result<ServerName, String> {
    let domain = ServerName::parse(host_of(text)).map_err(|error| error.to_string())?;
    if domain.parent().is_none() {
        // RFC 6125 section 7.2: no client accepts "*.local" in a certificate.
        return Err("a domain needs a dot, as in home.example: clients accept no certificate for less".into());
    }
    Ok(domain)
}

/// The host, and the port if there is one, of an address such as `https://home.example/photos`.
pub(in crate::cli) fn host_of(text: &str) -> &str {
    let host = text.split_once("://").map_or(text, |(_, rest)| rest.split(['/', '?', '#']).next().unwrap_or_default());
    host.trim_end_matches('/')
}

/// The name of a device.
pub(in crate::cli) fn parse_device(text: &str) -> Result<DeviceName, String> {
    // In `allow` these words are not names of devices.
    if ["any", "unverified"].contains(&text) {
        return Err(format!("{text:?} is reserved: it has a meaning in the configuration"));
    }
    DeviceName::parse(text).map_err(|error| error.to_string())
}

/// A name for a server certificate.
pub(super) fn parse_server_name(text: &str) -> Result<ServerNamePattern, String> {
    match ServerNamePattern::parse(text) {
        Ok(ServerNamePattern::Default) => Err("no client accepts a certificate for every name".to_owned()),
        Ok(name) => Ok(name),
        Err(error) => Err(error.to_string()),
    }
}

/// A serial number.
pub(super) fn parse_serial(text: &str) -> Result<Serial, String> {
    Serial::parse(text).ok_or_else(|| "a serial number is hexadecimal digits: 0 to 9 and a to f".to_owned())
}

/// A fingerprint.
pub(super) fn parse_fingerprint(text: &str) -> Result<Sha256, String> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    Sha256::parse(digits).ok_or_else(|| "a fingerprint is 64 hexadecimal digits: 0 to 9 and a to f".to_owned())
}
