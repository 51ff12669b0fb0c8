//! `doorward init --acme`: a public certificate, which the gate orders.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::{InitArgs, InitError};
use crate::cli::corrections::NO_DOMAIN;
use crate::config::starter::StarterAcme;
use crate::enrolment::PUBLIC_PORT;
use crate::model::public_name::not_public;

/// Where Let's Encrypt says what it asks of those who use its certificates.
pub(super) const TERMS: &str = "https://letsencrypt.org/repository/";

/// The copy of `--acme-trust` in the folder of the authorities.
pub(in crate::cli) const TRUST_FILE: &str = "acme-trust.pem";

/// The ACME server of a public certificate.
#[derive(Args, Clone, Debug)]
pub struct AcmeArgs {
    /// Have the gate order a public certificate, which devices trust already, instead of making an authority that each device must
    /// trust first
    ///
    /// The names must be in the public DNS and lead to your router, and port 443 of the router to the gate. By using it you agree
    /// to the terms of service of the ACME server. It publishes the names, in the logs of Certificate Transparency.
    #[arg(long)]
    pub acme: bool,

    /// The e-mail address that the ACME server may write to [default: none]
    #[arg(long, value_name = "EMAIL", requires = "acme", value_parser = parse_contact)]
    pub acme_contact: Option<String>,

    /// The ACME server: "letsencrypt", "letsencrypt-staging" for a certificate that devices do not trust, or the URL of a directory
    #[arg(long, value_name = "DIRECTORY", requires = "acme", default_value = LETSENCRYPT, value_parser = parse_directory)]
    pub acme_directory: String,

    /// The authorities that vouch for the ACME server itself, if it is a private one: a PEM file, which is copied
    #[arg(long, value_name = "FILE", requires = "acme")]
    pub acme_trust: Option<PathBuf>,
}

const LETSENCRYPT: &str = "letsencrypt";
const STAGING: &str = "letsencrypt-staging";

impl Default for AcmeArgs {
    fn default() -> Self {
        Self { acme: false, acme_contact: None, acme_directory: LETSENCRYPT.to_owned(), acme_trust: None }
    }
}

impl AcmeArgs {
    /// The section of the configuration.
    pub(super) fn starter(&self) -> Option<StarterAcme> {
        self.starter_in(super::FOLDER)
    }

    /// The same as text, for a copy of `--acme-trust` in `folder`, which is relative to that of the configuration.
    pub(in crate::cli) fn section(&self, folder: &str) -> String {
        self.starter_in(folder).unwrap_or_default().to_toml()
    }

    fn starter_in(&self, folder: &str) -> Option<StarterAcme> {
        self.acme.then(|| StarterAcme {
            contact: self.acme_contact.as_ref().map(|address| format!("mailto:{address}")),
            directory: self.acme_directory.clone(),
            // Mistakes are found where they cost no rate limit.
            trial: (self.acme_directory == LETSENCRYPT).then(|| STAGING.to_owned()),
            trust: self.acme_trust.as_ref().map(|_| Path::new(folder).join(TRUST_FILE).display().to_string()),
        })
    }

    /// The contents of `--acme-trust`.
    pub(in crate::cli) fn trust(&self) -> Result<Option<Vec<u8>>, InitError> {
        let Some(file) = &self.acme_trust else { return Ok(None) };
        let usage = |why: String| InitError::Usage(format!("--acme-trust {}: {why}", file.display()));
        let pem = fs::read(file).map_err(|error| usage(error.to_string()))?;
        match CertificateDer::pem_slice_iter(&pem).next() {
            Some(Ok(_)) => Ok(Some(pem)),
            _ => Err(usage("there is no certificate in it\n  give a PEM file: -----BEGIN CERTIFICATE-----".to_owned())),
        }
    }

    /// Who issues the certificate, for people.
    pub(super) fn server(&self) -> &str {
        match self.acme_directory.as_str() {
            LETSENCRYPT => "Let's Encrypt",
            STAGING => "the staging server of Let's Encrypt",
            url => url,
        }
    }

    /// What must be true for an order to succeed, as part of the second step.
    pub(super) fn needed(&self, public_port: u16, listen_port: u16) -> String {
        let mut out = String::new();
        if public_port != PUBLIC_PORT {
            out.push_str(&format!(
                "     For the certificate, also forward TCP port {PUBLIC_PORT} to port {listen_port}: the ACME server connects to port \
                 {PUBLIC_PORT},\n     whatever port devices dial.\n"
            ));
        }
        let terms = match self.acme_directory.as_str() {
            LETSENCRYPT | STAGING => format!(": {TERMS}"),
            _ => String::new(),
        };
        let server = self.server();
        out.push_str(&format!(
            "     The gate then orders its certificate from {server}, which connects to each name at port {PUBLIC_PORT}, by IPv4 and
     IPv6. By using it you agree to its terms of service{terms}
     How it goes, and what to do if it fails: doorward certificate
"
        ));
        out
    }
}

/// Checks that a public authority could issue a certificate for the names. A private ACME server may do so for any.
pub(super) fn check(args: &InitArgs, names: impl IntoIterator<Item = String>) -> Result<(), InitError> {
    if !args.acme.acme || args.acme.acme_trust.is_some() {
        return Ok(());
    }
    if args.constraints.is_given() {
        return Err(InitError::Usage(
            "--no-name-constraints is about an authority of your own, which --acme does not make: leave out one of the two"
                .to_owned(),
        ));
    }
    for name in names {
        if let Some(why) = not_public(&name) {
            return Err(InitError::Usage(format!(
                "no public authority issues a certificate for {name}: {why}\n  leave out --acme: an authority of your own vouches for any \
                 name; or use a name of the public DNS\n  {NO_DOMAIN}"
            )));
        }
    }
    Ok(())
}

pub(in crate::cli) fn parse_contact(text: &str) -> Result<String, String> {
    let address = text.strip_prefix("mailto:").unwrap_or(text);
    let is_right = address
        .split_once('@')
        .is_some_and(|(user, host)| !user.is_empty() && host.contains('.') && !host.contains('@'))
        && address.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b',' | b'?' | b'<' | b'>' | b'"'));
    if is_right { Ok(address.to_owned()) } else { Err("write one e-mail address, as in me@home.example".to_owned()) }
}

pub(in crate::cli) fn parse_directory(text: &str) -> Result<String, String> {
    let is_url = text.strip_prefix("https://").is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'));
    if [LETSENCRYPT, STAGING].contains(&text) || (is_url && text.bytes().all(|byte| byte.is_ascii_graphic())) {
        return Ok(text.to_owned());
    }
    Err(format!("write {LETSENCRYPT}, {STAGING}, or the URL of a directory, which begins with https://"))
}
