//! Renews the certificate of a device through the gate: EST (RFC 7030), so that any gate or authority that speaks it will do.
//!
//! A file of a home is replaced once the gate has taken the new certificate on a connection, and until then the earlier one stays.

mod due;
mod fuzzed;
mod http;
mod pending;

pub use self::due::{Renewals, Told, is_due};
pub use self::fuzzed::{FuzzedAnswer, Made};
pub use self::pending::forget;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName as TlsName};
use time::OffsetDateTime;
use tokio::task::spawn_blocking;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use self::http::{Answer, Asked, Limit, Request};
use super::dial::Endpoint;
use super::fault::Failure;
use super::homes::{Home, Homes, HomesError};
use super::refusal::{Facts, validity};
use super::remote::{Unusable, tls_of};
use super::tls::Tls;
use super::token::{Token, TokenError, TokenKey, TokenUri};
use crate::bundle::{Bundle, BundleKey, PlainKey, Trust};
use crate::model::identity::Sha256;
use crate::model::names::{ServerName, printable};
use crate::pki::{certs_only, keys};

/// Where a certificate is asked for, and where those of the authorities are (RFC 7030 sections 4.2.2 and 4.1.2).
const SIMPLE_REENROLL: &str = "/.well-known/est/simplereenroll";
const CACERTS: &str = "/.well-known/est/cacerts";

/// A gate that does not say when to ask again is asked after this time, and any gate not more often than each second.
const AGAIN: Duration = Duration::from_secs(60);
const AGAIN_MIN: Duration = Duration::from_secs(1);
const AGAIN_MAX: Duration = Duration::from_secs(24 * 3600);

/// The longest sentence of a gate that is repeated, in characters.
const SENTENCE_MAX: usize = 300;

/// How an attempt has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// The home has a new certificate.
    Renewed {
        /// When it expires.
        not_after: OffsetDateTime,
    },
    /// The owner of the gate has to approve it.
    Waits {
        /// When to ask again.
        again: Duration,
        /// SHA-256 of the key in the request (SubjectPublicKeyInfo).
        key: Sha256,
    },
}

/// Which key the new certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// That of the certificate in use, unless a new one is waited for.
    Same,
    /// A new one. It is kept beside the home until the owner has decided.
    New,
}

/// Why a certificate was not renewed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RenewError {
    /// The gate has no such service, or had none when the device joined.
    #[error(
        "the gate of {home} does not renew certificates, as far as this device knows\n  ask its owner for a new file, or for the \
         server name of the service: doorward renew --server-name NAME"
    )]
    NoService {
        /// The home.
        home: String,
    },
    /// The key is encrypted.
    #[error("the key of {home} is encrypted\n  join again without --keep-encrypted: doorward join FILE")]
    Encrypted {
        /// The home.
        home: String,
    },
    /// A new key is wanted in a token.
    #[error(
        "the key of {home} is in a token, where this program makes no keys\n  make one there with the token's own program, then: \
         doorward join --request URI, and have the owner sign that"
    )]
    NewInToken {
        /// The home.
        home: String,
    },
    /// The token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Nothing was answered.
    #[error("{sentence}")]
    NotReached {
        /// Why, for the user.
        sentence: String,
        /// The same.
        failure: Box<Failure>,
    },
    /// The gate has refused it.
    #[error("the gate of {home} has refused the request: {sentence}")]
    Refused {
        /// The home.
        home: String,
        /// What it says.
        sentence: String,
    },
    /// The gate has answered something else.
    #[error("the gate of {home} has answered something that is no certificate for this device: {what}")]
    Answer {
        /// The home.
        home: String,
        /// What is wrong with it.
        what: String,
    },
    /// The certificate or the key.
    #[error(transparent)]
    Unusable(#[from] Unusable),
    /// The key cannot sign.
    #[error("the key cannot sign a request: {0}")]
    Sign(String),
    /// The files of the home.
    #[error(transparent)]
    Homes(#[from] HomesError),
}

/// Renews the certificate of a home, or asks how far that is. `server_name` is that of the service, if the home does not say it.
pub async fn renew(
    homes: &Homes,
    home: &Home,
    key: Key,
    server_name: Option<&ServerName>,
) -> Result<Attempt, RenewError> {
    let name = || home.name.clone();
    let bundle = &home.bundle;
    let server_name = server_name.or(bundle.renewal.as_ref()).ok_or_else(|| RenewError::NoService { home: name() })?;
    let next = match &bundle.key {
        BundleKey::Encrypted(_) => return Err(RenewError::Encrypted { home: name() }),
        BundleKey::Token(_) if key == Key::New => return Err(RenewError::NewInToken { home: name() }),
        BundleKey::Token(uri) => Next::in_token(bundle, uri).await?,
        BundleKey::Plain(_) | BundleKey::OnDevice => Next::in_file(homes, home, key)?,
    };
    let service = Service::of(home, server_name)?;
    let tls = tls_of(bundle)?;
    let body = STANDARD.encode(&next.request);
    let mut limit = Limit::new();
    let answer = service.ask(&tls, Request::post(SIMPLE_REENROLL, body), &mut limit).await?;
    let answered = match answer {
        Answer { status: 200, body, .. } => body,
        Answer { status: 202, again, .. } => {
            let again = again.unwrap_or(AGAIN).clamp(AGAIN_MIN, AGAIN_MAX);
            return Ok(Attempt::Waits { again, key: Sha256::of(&next.spki) });
        }
        Answer { status, body, .. } => {
            let sentence = sentence(status, &body);
            // The next request is another one, with the key in use unless a new one is wanted again.
            if status == 403 {
                pending::remove(homes, &home.name)?;
            }
            return Err(RenewError::Refused { home: name(), sentence });
        }
    };
    let wrong = |what: &str| RenewError::Answer { home: name(), what: what.to_owned() };
    let chain = chain_of(&answered, &next.spki).ok_or_else(|| wrong("no certificate for the key of the request"))?;
    let not_after = next_end(bundle, &chain).map_err(wrong)?;
    // Tried before the earlier one is given up.
    let renewed = Bundle { chain, key: next.key, ..bundle.clone() };
    let tls = tls_of(&renewed)?;
    let tried = service.ask(&tls, Request::get(CACERTS), &mut limit).await?;
    if tried.status != 200 {
        return Err(wrong(&format!(
            "the gate does not admit the new certificate: {}",
            sentence(tried.status, &tried.body)
        )));
    }
    homes.keep(&home.name, &renewed)?;
    pending::remove(homes, &home.name)?;
    Ok(Attempt::Renewed { not_after })
}

/// The key of the next certificate, and a request that it has signed.
struct Next {
    request: Vec<u8>,
    spki: Vec<u8>,
    key: BundleKey,
}

impl Next {
    fn in_file(homes: &Homes, home: &Home, key: Key) -> Result<Self, RenewError> {
        let pair = match (pending::read(homes, &home.name)?, key, &home.bundle.key) {
            (Some(waiting), _, _) => waiting,
            (None, Key::Same, BundleKey::Plain(key)) => key_pair(&key.der())?,
            (None, Key::Same, _) => return Err(Unusable::OnDevice.into()),
            (None, Key::New, _) => {
                let new = keys::KeyType::P256.generate().map_err(|error| RenewError::Sign(error.to_string()))?;
                pending::keep(homes, &home.name, &new)?;
                new
            }
        };
        Ok(Self {
            request: request(&home.bundle, &pair)?,
            spki: pair.subject_public_key_info(),
            key: BundleKey::Plain(PlainKey::new(&pair.serialize_der())),
        })
    }

    /// The same key. The token may wait for a touch, so it signs on another thread.
    async fn in_token(bundle: &Bundle, uri: &str) -> Result<Self, RenewError> {
        let token = Token::of(&TokenUri::parse(uri).map_err(Unusable::from)?);
        let certificate = bundle.chain.first().ok_or(Unusable::OnDevice)?;
        let key = TokenKey::of_certificate(token, certificate)?;
        let (spki, device) = (key.spki().to_vec(), bundle.device.to_string());
        let signed = spawn_blocking(move || key.request(Some(&device))).await;
        let request = signed.map_err(|error| RenewError::Sign(error.to_string()))??;
        Ok(Self { request, spki, key: bundle.key.clone() })
    }
}

/// The renewal service of a home.
struct Service {
    endpoint: Endpoint,
    facts: Facts,
}

impl Service {
    fn of(home: &Home, server_name: &ServerName) -> Result<Self, RenewError> {
        let bundle = &home.bundle;
        let tls_name = TlsName::try_from(server_name.as_str().to_owned())
            .map_err(|_| RenewError::NoService { home: home.name.clone() })?;
        let host = bundle.address.clone().unwrap_or_else(|| server_name.as_str().to_owned());
        let dialled =
            if host.contains(':') { format!("[{host}]:{}", bundle.port) } else { format!("{host}:{}", bundle.port) };
        let facts = Facts {
            home: bundle.home.to_string(),
            device: bundle.device.to_string(),
            route: "renewal".to_owned(),
            server_name: server_name.to_string(),
            dialled,
            validity: bundle.chain.first().and_then(validity),
            own_authority: matches!(bundle.trust, Trust::Authorities(_)),
        };
        Ok(Self { endpoint: Endpoint { host, port: bundle.port, server_name: tls_name }, facts })
    }

    async fn ask(&self, tls: &Tls, request: Request, limit: &mut Limit) -> Result<Answer, RenewError> {
        match http::ask(&self.endpoint, tls, request, limit).await {
            Asked::Answered(answer) => Ok(answer),
            Asked::Failed(failure) => {
                let sentence = self.facts.sentence(&failure, OffsetDateTime::now_utc());
                Err(RenewError::NotReached { sentence, failure: Box::new(failure) })
            }
            Asked::NotHttp(what) => Err(RenewError::Answer { home: self.facts.home.clone(), what }),
        }
    }
}

fn key_pair(key: &PrivateKeyDer<'_>) -> Result<KeyPair, RenewError> {
    KeyPair::try_from(key).map_err(|error| RenewError::Sign(error.to_string()))
}

/// A request with the name of the device. The names in it are for people: a gate issues what the certificate before has.
fn request(bundle: &Bundle, key: &KeyPair) -> Result<Vec<u8>, RenewError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, bundle.device.as_str());
    let request = params.serialize_request(key).map_err(|error| RenewError::Sign(error.to_string()))?;
    Ok(request.der().to_vec())
}

/// The certificate for this key first, and behind it those that come with it.
fn chain_of(body: &[u8], spki: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let text: Vec<u8> = body.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let mut all = certs_only::decode(&STANDARD.decode(text).ok()?)?;
    let fits =
        |der: &CertificateDer<'_>| X509Certificate::from_der(der).is_ok_and(|(_, one)| one.public_key().raw == spki);
    // What is kept is read again at the next start.
    let is_one = |der: &CertificateDer<'_>| X509Certificate::from_der(der).is_ok_and(|(rest, _)| rest.is_empty());
    if !all.iter().all(is_one) {
        return None;
    }
    let own = all.iter().position(fits)?;
    all.swap(0, own);
    Some(all)
}

/// When the new certificate expires, if it is one that continues the old one.
fn next_end(bundle: &Bundle, chain: &[CertificateDer<'static>]) -> Result<OffsetDateTime, &'static str> {
    let read = |chain: &[CertificateDer<'static>]| {
        let (_, certificate) = X509Certificate::from_der(chain.first()?).ok()?;
        Some((certificate.subject().as_raw().to_vec(), certificate.validity().not_after.to_datetime()))
    };
    let (old, new) = read(&bundle.chain).zip(read(chain)).ok_or("it cannot be read")?;
    if old.0 != new.0 {
        return Err("it is for another name");
    }
    if chain.first() == bundle.chain.first() {
        return Err("it is the one in use");
    }
    // In one second, two certificates may be issued that expire at the same time.
    if new.1 < old.1 { Err("it expires before the one in use") } else { Ok(new.1) }
}

/// What a gate says, in a line.
fn sentence(status: u16, body: &[u8]) -> String {
    let text = printable(String::from_utf8_lossy(body).trim(), SENTENCE_MAX);
    if text.is_empty() { format!("status {status}") } else { text }
}
