//! The account at an ACME server (RFC 8555 section 7.3).
//!
//! A server knows an account by its key. The key is kept before there is an account, and each search for one is by the key: whatever
//! moment a process is killed at, there is never a second account. The library makes accounts with a key of their own or with an
//! external binding, but not with both, so the request is written here.

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, LOCATION, USER_AGENT};
use hyper::{Method, Request, Response};
use instant_acme::{Account as Session, Error as AcmeError, Key, Problem};
use rustls::pki_types::PrivatePkcs8KeyDer;
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::http::Client;
use super::problem::{self, failed};
use super::store::{Account, Store};
use super::wanted::{Failed, Wanted};
use crate::config::checked::Eab;

/// What names the client to a server (RFC 8555 section 6.1).
const AGENT: &str = concat!("doorward/", env!("CARGO_PKG_VERSION"));

/// What a server says of the account with a key.
enum Known {
    At(String),
    /// There is one, and it can never be used again.
    Deactivated(Problem),
    Not,
}

/// The account: the one that is kept, else the one with the key that is kept, else a new one.
pub(super) async fn session(wanted: &Wanted, store: &Store, client: &Client) -> Result<Session, Failed> {
    let key = match store.account_key()? {
        Some(key) => key,
        None => new_key(store)?,
    };
    if let Some(account) = store.account(&wanted.directory)? {
        let session = open(&account.url, &key, wanted, client).await?;
        if account.contact != wanted.contact {
            tell_contact(&session, wanted, client).await?;
            let contact = wanted.contact.clone();
            store.keep_account(&wanted.directory, Some(&Account { contact, ..account }))?;
        }
        return Ok(session);
    }
    let mut registrar = Registrar::find(wanted, client, key).await?;
    let url = match registrar.look_up().await? {
        Known::At(url) => Some(url),
        Known::Not => None,
        Known::Deactivated(problem) => {
            store.put_account_key_aside()?;
            registrar.set_key(new_key(store)?)?;
            tracing::debug!("the account can never be used again ({}): another one is made", problem::words(&problem));
            None
        }
    };
    let url = match url {
        Some(url) => url,
        None => registrar.create().await?,
    };
    let contact = wanted.contact.clone();
    store.keep_account(&wanted.directory, Some(&Account { url: url.clone(), contact }))?;
    open(&url, &registrar.pkcs8, wanted, client).await
}

/// A new key, which is kept.
fn new_key(store: &Store) -> Result<Zeroizing<Vec<u8>>, Failed> {
    let (_, key) = Key::generate_pkcs8().map_err(Failed::new)?;
    store.keep_account_key(key.secret_pkcs8_der())?;
    Ok(key.secret_pkcs8_der().to_vec().into())
}

async fn open(url: &str, pkcs8: &[u8], wanted: &Wanted, client: &Client) -> Result<Session, Failed> {
    let builder = Session::builder_with_http(Box::new(client.clone()));
    let key = PrivatePkcs8KeyDer::from(pkcs8);
    let session = builder.from_parts(url.to_owned(), key, wanted.directory.clone()).await;
    session.map_err(|error| failed(client, &error))
}

async fn tell_contact(session: &Session, wanted: &Wanted, client: &Client) -> Result<(), Failed> {
    let contact: Vec<&str> = wanted.contact.iter().map(String::as_str).collect();
    let told = problem::with_nonces(async || session.update_contacts(&contact).await).await;
    match told {
        // The order tells.
        Err(AcmeError::Api(problem)) if problem::is_unknown_account(&problem) => Ok(()),
        told => told.map_err(|error| failed(client, &error)),
    }
}

/// The parts of a directory that accounts need.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Directory {
    new_nonce: String,
    new_account: String,
    #[serde(default)]
    meta: Meta,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    #[serde(default)]
    external_account_required: bool,
}

/// Finds and makes accounts at a server.
struct Registrar<'a> {
    wanted: &'a Wanted,
    client: &'a Client,
    directory: Directory,
    pkcs8: Zeroizing<Vec<u8>>,
    key: EcdsaKeyPair,
}

impl<'a> Registrar<'a> {
    async fn find(wanted: &'a Wanted, client: &'a Client, pkcs8: Zeroizing<Vec<u8>>) -> Result<Self, Failed> {
        let answer = ask(client, Method::GET, &wanted.directory, None).await;
        let directory = answer.and_then(|answer| Ok(serde_json::from_slice(answer.body())?));
        let directory = directory.map_err(|error| failed(client, &error))?;
        let key = parsed(&pkcs8)?;
        Ok(Self { wanted, client, directory, pkcs8, key })
    }

    fn set_key(&mut self, pkcs8: Zeroizing<Vec<u8>>) -> Result<(), Failed> {
        (self.key, self.pkcs8) = (parsed(&pkcs8)?, pkcs8);
        Ok(())
    }

    /// Asks for the account with the key (RFC 8555 section 7.3.1).
    async fn look_up(&self) -> Result<Known, Failed> {
        let answer = self.post(&json!({ "onlyReturnExisting": true })).await;
        match answer.and_then(|answer| self.understand(&answer)) {
            Ok(known) => Ok(known),
            Err(AcmeError::Api(problem)) if problem::kind(&problem) == Some("unauthorized") => {
                Ok(Known::Deactivated(problem))
            }
            // Another answer than `accountDoesNotExist` is of a server that does not know the question.
            Err(AcmeError::Api(problem)) if !problem::is_passing(&problem) => Ok(Known::Not),
            Err(error) => Err(failed(self.client, &error)),
        }
    }

    /// Makes an account, unless there is one with the key: then the server answers with that.
    async fn create(&self) -> Result<String, Failed> {
        let mut wish = json!({ "termsOfServiceAgreed": true });
        if let Some(contact) = &self.wanted.contact {
            wish["contact"] = json!([contact]);
        }
        match &self.wanted.eab {
            Some(external) => wish["externalAccountBinding"] = self.binding(external)?,
            None if self.directory.meta.external_account_required => {
                return Err(Failed::new(
                    "the server makes accounts only with a key of its operator: set `eab` in [certificate.acme]",
                ));
            }
            None => {}
        }
        let answer = self.post(&wish).await;
        match answer.and_then(|answer| self.understand(&answer)) {
            Ok(Known::At(url)) => Ok(url),
            Ok(Known::Deactivated(problem)) => Err(failed(self.client, &AcmeError::Api(problem))),
            Ok(Known::Not) => Err(Failed::new("the server does not say where the new account is")),
            Err(error) => Err(failed(self.client, &error)),
        }
    }

    /// What an answer of newAccount says.
    fn understand(&self, answer: &Response<Bytes>) -> Result<Known, AcmeError> {
        #[derive(Deserialize)]
        struct State {
            status: Option<String>,
        }
        // Some servers find accounts that are of no use any more.
        let state: State = serde_json::from_slice(answer.body())?;
        if let Some(status @ ("deactivated" | "revoked")) = state.status.as_deref() {
            let detail = format!("the account is {status}");
            let problem = json!({ "type": format!("{}unauthorized", problem::PREFIX), "detail": detail });
            return Ok(Known::Deactivated(serde_json::from_value(problem)?));
        }
        let url = answer.headers().get(LOCATION).and_then(|url| url.to_str().ok());
        Ok(url.map_or(Known::Not, |url| Known::At(url.to_owned())))
    }

    /// The account's key, signed with the operator's.
    fn binding(&self, external: &Eab) -> Result<Value, Failed> {
        let key = BASE64.decode(external.key.expose()).map(Zeroizing::new);
        let key = key.map_err(|error| Failed::new(format!("the key of `eab` is not base64url: {error}")))?;
        let header = json!({ "alg": "HS256", "kid": external.key_id, "url": self.directory.new_account });
        let mac = hmac::Key::new(hmac::HMAC_SHA256, &key);
        Ok(signed(&header, &jwk(&self.key), |text| hmac::sign(&mac, text).as_ref().to_vec()))
    }

    /// Posts to newAccount, as often as the library does with a nonce that the server does not know, so that an account
    /// costs no more attempts than an order.
    async fn post(&self, payload: &Value) -> Result<Response<Bytes>, AcmeError> {
        problem::with_nonces(async || {
            let mut nonce = None;
            let mut tries = 1;
            loop {
                let answer = self.try_post(nonce, payload).await?;
                if answer.status().is_success() {
                    return Ok(answer);
                }
                let problem = serde_json::from_slice::<Problem>(answer.body())?;
                if tries == problem::LIBRARY_TRIES || !problem::is_bad_nonce(&problem) {
                    return Err(problem.into());
                }
                // The answer has the next one (RFC 8555 section 6.5).
                nonce = nonce_of(&answer);
                tries += 1;
            }
        })
        .await
    }

    /// Posts to newAccount once, with this nonce or a new one.
    async fn try_post(&self, nonce: Option<String>, payload: &Value) -> Result<Response<Bytes>, AcmeError> {
        let nonce = match nonce {
            Some(nonce) => nonce,
            None => nonce_of(&ask(self.client, Method::HEAD, &self.directory.new_nonce, None).await?)
                .ok_or("the server gives no nonce")?,
        };
        let url = &self.directory.new_account;
        let header = json!({ "alg": "ES256", "jwk": jwk(&self.key), "nonce": nonce, "url": url });
        let random = SystemRandom::new();
        let signature = |text: &[u8]| self.key.sign(&random, text).map(|signature| signature.as_ref().to_vec());
        let body = try_signed(&header, payload, signature).map_err(|_| AcmeError::Crypto)?;
        ask(self.client, Method::POST, url, Some(&body)).await
    }
}

fn nonce_of(answer: &Response<Bytes>) -> Option<String> {
    Some(answer.headers().get("Replay-Nonce")?.to_str().ok()?.to_owned())
}

fn parsed(pkcs8: &[u8]) -> Result<EcdsaKeyPair, Failed> {
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8);
    key.map_err(|error| Failed::new(format!("the account's key is no P-256 key ({error})")))
}

/// An answer of the server; of GET and HEAD only a success.
async fn ask(client: &Client, method: Method, url: &str, body: Option<&Value>) -> Result<Response<Bytes>, AcmeError> {
    let mut request = Request::builder().method(&method).uri(url).header(USER_AGENT, AGENT);
    if body.is_some() {
        request = request.header(CONTENT_TYPE, "application/jose+json");
    }
    let body = body.map(Value::to_string).unwrap_or_default();
    let answer = client.fetch(request.body(body.into())?).await?;
    if method != Method::POST && !answer.status().is_success() {
        return Err(serde_json::from_slice::<Problem>(answer.body())?.into());
    }
    Ok(answer)
}

/// The public half of a key (RFC 7517).
fn jwk(key: &EcdsaKeyPair) -> Value {
    // An uncompressed point: 4, x, y.
    let point = key.public_key().as_ref();
    let (x, y) = point.get(1..).unwrap_or_default().split_at_checked(32).unwrap_or_default();
    json!({ "crv": "P-256", "kty": "EC", "x": BASE64.encode(x), "y": BASE64.encode(y) })
}

/// A flattened JSON Web Signature (RFC 7515 section 7.2.2).
fn try_signed<E>(header: &Value, payload: &Value, sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>) -> Result<Value, E> {
    let (header, payload) = (BASE64.encode(header.to_string()), BASE64.encode(payload.to_string()));
    let signature = BASE64.encode(sign(format!("{header}.{payload}").as_bytes())?);
    Ok(json!({ "protected": header, "payload": payload, "signature": signature }))
}

fn signed(header: &Value, payload: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> Value {
    match try_signed(header, payload, |text| Ok::<_, std::convert::Infallible>(sign(text))) {
        Ok(signed) => signed,
    }
}
