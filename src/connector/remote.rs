//! A route of a home, with all that it takes to connect to it.

use rustls::pki_types::{InvalidDnsNameError, ServerName as TlsName};

use super::dial::Endpoint;
use super::homes::Target;
use super::refusal::{Facts, validity};
use super::tls::{Tls, TlsError};
use super::token::{InvalidUri, Token, TokenUri};
use crate::bundle::{Bundle, BundleKey, Trust};

/// A route of a home, to be connected to.
#[derive(Clone, Debug)]
pub struct Remote {
    /// Where it is.
    pub endpoint: Endpoint,
    /// How it is spoken to.
    pub tls: Tls,
    /// What is known about it.
    pub facts: Facts,
}

/// Why a device cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unusable {
    /// The key is encrypted.
    #[error("the key in this file is encrypted\n  take it over first, with its password: doorward join FILE")]
    Encrypted,
    /// The key is on the device, and the file does not say where.
    #[error(
        "this file has no key: it was made for one that is on this device\n  name it: doorward join FILE --key pkcs11:…"
    )]
    OnDevice,
    /// A URI that cannot be used.
    #[error(transparent)]
    Uri(#[from] InvalidUri),
    /// The certificate or the key.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A server name that TLS does not know.
    #[error("{0:?} is no server name that can be asked for")]
    Name(String),
}

impl From<InvalidDnsNameError> for Unusable {
    fn from(error: InvalidDnsNameError) -> Self {
        Self::Name(error.to_string())
    }
}

/// The TLS settings of the device of a bundle: one for all its routes, so that they share what is resumed.
pub fn tls_of(bundle: &Bundle) -> Result<Tls, Unusable> {
    let authorities = match &bundle.trust {
        Trust::Authorities(authorities) => Some(authorities.as_slice()),
        Trust::Public => None,
    };
    let chain = bundle.chain.clone();
    Ok(match &bundle.key {
        BundleKey::Plain(key) => Tls::new(authorities, chain, &key.der())?,
        BundleKey::Token(uri) => Tls::with_token(authorities, chain, Token::of(&TokenUri::parse(uri)?))?,
        BundleKey::Encrypted(_) => return Err(Unusable::Encrypted),
        BundleKey::OnDevice => return Err(Unusable::OnDevice),
    })
}

impl Remote {
    /// Of this route.
    pub fn of(target: &Target, tls: Tls) -> Result<Self, Unusable> {
        let Target { home, route, server_name } = target;
        let bundle = &home.bundle;
        let (host, port) = (target.host().to_owned(), target.port());
        let tls_name = TlsName::try_from(server_name.as_str().to_owned())?;
        let facts = Facts {
            home: bundle.home.to_string(),
            device: bundle.device.to_string(),
            route: route.name.to_string(),
            server_name: server_name.to_string(),
            dialled: if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") },
            validity: bundle.chain.first().and_then(validity),
            own_authority: matches!(bundle.trust, Trust::Authorities(_)),
        };
        Ok(Self { endpoint: Endpoint { host, port, server_name: tls_name }, tls, facts })
    }
}
