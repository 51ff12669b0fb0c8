//! The text of a bundle: TOML, with PEM in it.

use std::collections::HashSet;
use std::fmt::Write as _;

use pem::{EncodeConfig, LineEnding, Pem};
use rustls::pki_types::pem::{PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde::Deserialize;
use toml::Spanned;
use zeroize::Zeroizing;

use super::key::{encrypted, fits};
use super::{BYTES_MAX, Bundle, BundleError, BundleKey, BundleRoute, PlainKey, Trust};
use crate::model::device_name::DeviceName;
use crate::model::identity::Identity;
use crate::model::names::{Name, ServerName, ServerNamePattern, visible};
use crate::model::service::ServiceKind;

/// The version that is written.
const VERSION: i64 = 1;
/// The most routes and names of routes.
const ROUTES_MAX: usize = 256;
/// The most certificates of one kind.
const CERTIFICATES_MAX: usize = 16;
/// The longest error of the TOML parser, and the longest URI of a key, in characters.
const TEXT_MAX: usize = 512;

const CERTIFICATE: &str = "CERTIFICATE";
const PLAIN: &str = "PRIVATE KEY";
const PUBLIC: &str = "public";
const ON_DEVICE: &str = "on the device";

/// What every version has.
#[derive(Deserialize)]
struct AnyVersion {
    version: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[expect(dead_code, reason = "read before")]
    version: i64,
    home: Spanned<String>,
    device: Spanned<String>,
    address: Option<Spanned<String>>,
    port: Spanned<i64>,
    renewal: Option<Spanned<String>>,
    routes: Spanned<Vec<RawRoute>>,
    trust: Spanned<String>,
    certificate: Spanned<String>,
    key: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRoute {
    name: Spanned<String>,
    kind: Spanned<String>,
    server_name: Spanned<String>,
}

/// The text, to find lines in.
#[derive(Clone, Copy)]
struct Lines<'a>(&'a str);

impl Lines<'_> {
    fn damaged<T>(self, at: &Spanned<T>, what: impl ToString) -> BundleError {
        self.at(at.span().start, what)
    }

    fn at(self, offset: usize, what: impl ToString) -> BundleError {
        let before = self.0.as_bytes().get(..offset).unwrap_or(self.0.as_bytes());
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        BundleError::Damaged { line, what: visible(&what.to_string(), TEXT_MAX) }
    }

    fn name(self, key: &str, text: &Spanned<String>) -> Result<ServerName, BundleError> {
        ServerName::parse(text.get_ref()).map_err(|error| self.damaged(text, format!("{key}: {error}")))
    }

    fn certificates(self, key: &str, text: &Spanned<String>) -> Result<Vec<CertificateDer<'static>>, BundleError> {
        let wrong = |what: &str| self.damaged(text, format!("{key}: {what}"));
        let mut found = Vec::new();
        for block in <(SectionKind, Vec<u8>)>::pem_slice_iter(text.get_ref().as_bytes()) {
            let Ok((SectionKind::Certificate, der)) = block else { return Err(wrong("not certificates in PEM")) };
            Identity::from_certificate(&der, false).map_err(|_| wrong("a certificate cannot be read"))?;
            found.push(CertificateDer::from(der));
        }
        match found.len() {
            0 => Err(wrong("no certificate")),
            1..=CERTIFICATES_MAX => Ok(found),
            _ => Err(wrong("too many certificates")),
        }
    }

    fn routes(self, raw: Spanned<Vec<RawRoute>>) -> Result<Vec<BundleRoute>, BundleError> {
        if raw.get_ref().len() > ROUTES_MAX {
            return Err(self.damaged(&raw, format!("more than {ROUTES_MAX} routes")));
        }
        let mut taken = HashSet::new();
        let mut routes = Vec::new();
        for RawRoute { name, kind, server_name } in raw.into_inner() {
            let parsed = Name::parse(name.get_ref()).map_err(|error| self.damaged(&name, error))?;
            let kind = ServiceKind::WORDS.into_iter().find(|(word, _)| word == kind.get_ref()).ok_or_else(|| {
                let words = ServiceKind::WORDS.map(|(word, _)| word).join(", ");
                self.damaged(&kind, format!("kind: expected one of {words}"))
            })?;
            let pattern = match ServerNamePattern::parse(server_name.get_ref()) {
                Ok(ServerNamePattern::Default) => Err("server_name: \"*\" is not a name".to_owned()),
                Ok(pattern) => Ok(pattern),
                Err(error) => Err(format!("server_name: {error}")),
            };
            let pattern = pattern.map_err(|error| self.damaged(&server_name, error))?;
            if !taken.insert(pattern.clone()) {
                return Err(self.damaged(&server_name, format!("{pattern} leads to two routes")));
            }
            routes.push(BundleRoute { name: parsed, kind: kind.1, server_name: pattern });
        }
        Ok(routes)
    }

    fn key(self, text: &Spanned<String>, chain: &[CertificateDer<'static>]) -> Result<BundleKey, BundleError> {
        let key = text.get_ref();
        if key == ON_DEVICE {
            return Ok(BundleKey::OnDevice);
        }
        if key.starts_with("pkcs11:") {
            let fits = key.len() <= TEXT_MAX && key.bytes().all(|byte| byte.is_ascii_graphic());
            return if fits {
                Ok(BundleKey::Token(key.clone()))
            } else {
                Err(self.damaged(text, "key: not a PKCS#11 URI (RFC 7512)"))
            };
        }
        // Two keys would be read differently by two readers.
        if key.matches("-----BEGIN").count() != 1 {
            return Err(self.damaged(text, "key: expected one key in PEM"));
        }
        if let Ok(plain) = PrivatePkcs8KeyDer::from_pem_slice(key.as_bytes()) {
            let plain = PlainKey::new(plain.secret_pkcs8_der());
            return if fits(chain, &plain) { Ok(BundleKey::Plain(plain)) } else { Err(BundleError::KeyDoesNotFit) };
        }
        let key = key.trim();
        match encrypted(key) {
            Ok(written) => Ok(BundleKey::Encrypted(written)),
            Err(_) if !key.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----") => {
                Err(self.damaged(text, "key: not a private key in PEM (PKCS#8)"))
            }
            Err(error) => Err(error),
        }
    }
}

/// A host to dial: a name, or an IP address without brackets.
fn host(text: &str) -> Option<String> {
    let address = text.parse::<std::net::IpAddr>().ok().map(|address| address.to_string());
    address.or_else(|| ServerName::parse(text).ok().map(|name| name.to_string()))
}

impl Bundle {
    /// Reads the text of a file. One that is damaged or incomplete is refused as a whole.
    pub fn parse(text: &str) -> Result<Self, BundleError> {
        if text.len() > BYTES_MAX {
            return Err(BundleError::TooLarge);
        }
        // Programs for mail and editors leave spaces at the ends of lines, which PEM does not allow.
        let text: String = text.lines().flat_map(|line| [line.trim_end(), "\n"]).collect();
        let text = text.as_str();
        let lines = Lines(text);
        match toml::from_str::<AnyVersion>(text) {
            Ok(AnyVersion { version: VERSION }) => {}
            Ok(AnyVersion { version }) if version > VERSION => return Err(BundleError::Newer(version)),
            Ok(_) => return Err(BundleError::NotABundle),
            Err(error) if text.lines().any(|line| line.trim_end() == "version = 1") => {
                return Err(lines.at(error.span().map_or(0, |span| span.start), error.message()));
            }
            Err(_) => return Err(BundleError::NotABundle),
        }
        let raw: Raw = toml::from_str(text)
            .map_err(|error| lines.at(error.span().map_or(0, |span| span.start), error.message()))?;
        let home = lines.name("home", &raw.home)?;
        let device = DeviceName::parse(raw.device.get_ref())
            .map_err(|error| lines.damaged(&raw.device, format!("device: {error}")))?;
        let address = raw.address.as_ref().map(|text| {
            host(text.get_ref()).ok_or_else(|| lines.damaged(text, "address: not a host name or an IP address"))
        });
        let address = address.transpose()?;
        let port = u16::try_from(*raw.port.get_ref())
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(|| lines.damaged(&raw.port, "port: expected a number from 1 to 65535"))?;
        let renewal = raw.renewal.as_ref().map(|name| lines.name("renewal", name)).transpose()?;
        let trust = if raw.trust.get_ref() == PUBLIC {
            Trust::Public
        } else {
            Trust::Authorities(lines.certificates("trust", &raw.trust)?)
        };
        let chain = lines.certificates("certificate", &raw.certificate)?;
        let key = lines.key(&raw.key, &chain)?;
        let routes = lines.routes(raw.routes)?;
        Ok(Self { home, device, address, port, routes, trust, chain, key, renewal })
    }

    /// The text of the file. The key is last, so that a file that was cut off is recognised.
    pub fn to_text(&self) -> Zeroizing<String> {
        // Of one size from the start: a buffer that grows leaves copies of a plain key behind.
        let mut out = Zeroizing::new(String::with_capacity(BYTES_MAX));
        let quoted = |text: &str| toml::Value::from(text).to_string();
        let _ = match &self.key {
            BundleKey::Encrypted(_) => writeln!(
                out,
                "# What {} needs to reach {}. On that device:\n#\n#   doorward join {}\n#\n# The password of the key was shown \
                 when this file was made.",
                self.device,
                self.home,
                self.file_name()
            ),
            BundleKey::OnDevice => writeln!(
                out,
                "# What {} needs to reach {}, without the key, which the device has made. There:\n#\n#   doorward join {} --key \
                 pkcs11:...",
                self.device,
                self.home,
                self.file_name()
            ),
            BundleKey::Plain(_) | BundleKey::Token(_) => writeln!(
                out,
                "# What {} needs to reach {}, written by \"doorward join\". Keep it private.",
                self.device, self.home
            ),
        };
        let _ = writeln!(out, "version = {VERSION}\n");
        let _ = writeln!(out, "home = {}", quoted(self.home.as_str()));
        let _ = writeln!(out, "device = {}", quoted(self.device.as_str()));
        let _ = writeln!(out, "\n# Where the gate is.");
        if let Some(address) = &self.address {
            let _ = writeln!(out, "address = {}", quoted(address));
        }
        let _ = writeln!(out, "port = {}", self.port);
        if let Some(renewal) = &self.renewal {
            let _ = writeln!(out, "\n# Where \"doorward renew\" asks for a new certificate.");
            let _ = writeln!(out, "renewal = {}", quoted(renewal.as_str()));
        }
        let _ = writeln!(out, "\n# What the device may use.\nroutes = [");
        for route in &self.routes {
            let [name, kind, server_name] =
                [route.name.as_str(), route.kind.word(), &route.server_name.to_string()].map(quoted);
            let _ = writeln!(out, "  {{ name = {name}, kind = {kind}, server_name = {server_name} }},");
        }
        out.push_str("]\n");
        let _ = match &self.trust {
            Trust::Public => writeln!(out, "\n# A public authority vouches for the gate.\ntrust = \"{PUBLIC}\""),
            Trust::Authorities(authorities) => {
                writeln!(
                    out,
                    "\n# The authority that vouches for the gate.\ntrust = \"\"\"\n{}\"\"\"",
                    blocks(authorities)
                )
            }
        };
        let _ =
            writeln!(out, "\n# The certificate of the device.\ncertificate = \"\"\"\n{}\"\"\"", blocks(&self.chain));
        match &self.key {
            BundleKey::Encrypted(pem) => {
                let _ = writeln!(out, "\n# Its key, encrypted.\nkey = \"\"\"\n{pem}\n\"\"\"");
            }
            BundleKey::Plain(key) => {
                let pem = Zeroizing::new(block(PLAIN, key.bytes()));
                let _ = writeln!(out, "\n# Its key, which is not encrypted.\nkey = \"\"\"\n{}\"\"\"", *pem);
            }
            BundleKey::Token(uri) => {
                let _ = writeln!(out, "\n# Its key, which is in a token.\nkey = {}", quoted(uri));
            }
            BundleKey::OnDevice => {
                let _ = writeln!(out, "\n# Its key.\nkey = {}", quoted(ON_DEVICE));
            }
        }
        out
    }
}

fn block(label: &str, der: &[u8]) -> String {
    pem::encode_config(&Pem::new(label, der), EncodeConfig::new().set_line_ending(LineEnding::LF))
}

fn blocks(certificates: &[CertificateDer<'_>]) -> String {
    certificates.iter().map(|certificate| block(CERTIFICATE, certificate)).collect()
}
