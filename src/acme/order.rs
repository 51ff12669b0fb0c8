//! One order, from the account to the certificate (RFC 8555 section 7.1.6).
//!
//! Each step is kept in the [`Store`] before the next one begins. An order that a killed process has left is gone on with.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use instant_acme::{
    Account as Session, AuthorizationStatus, CertificateIdentifier, ChallengeType, Error as AcmeError, Identifier, Key,
    KeyAuthorization, NewOrder, Order, OrderStatus, Problem, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::http::Client;
use super::store::{PlacedOrder, Store, StoreError};
use crate::config::checked::Eab;

/// How long a server may take to validate, and then to issue.
const POLL: RetryPolicy =
    RetryPolicy::new().initial_delay(Duration::from_millis(500)).backoff(1.5).timeout(Duration::from_secs(120));

/// Answers the challenges of an order.
pub(super) trait Responder {
    /// The challenge that it answers.
    fn challenge(&self) -> ChallengeType;

    /// Answers the challenge of `name`, which may be a wildcard, from now on.
    fn offer(&self, name: &str, answer: &KeyAuthorization) -> impl Future<Output = Result<(), String>>;

    /// Waits until the ACME server can see all that was offered.
    fn settle(&self) -> impl Future<Output = Result<(), String>>;

    /// The order is over.
    fn withdraw(&self) -> impl Future<Output = ()>;
}

/// What is ordered, and where.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// The URL of the server's directory.
    pub(super) directory: String,
    /// How the server can reach the owner, as in `mailto:alice@home.example`.
    pub(super) contact: Option<String>,
    /// The names.
    pub(super) names: BTreeSet<String>,
    /// The profile, if the server has several (draft-ietf-acme-profiles).
    pub(super) profile: Option<String>,
    /// An account elsewhere that the account is bound to.
    pub(super) eab: Option<Eab>,
    /// The certificate that is replaced, if the server is to know (RFC 9773 section 5).
    pub(super) replaces: Option<CertificateIdentifier<'static>>,
}

/// Why there is no certificate.
#[derive(Debug)]
pub(super) struct Failed {
    /// In words, with those of the server.
    pub(super) error: String,
    /// The server has said that there were too many requests.
    pub(super) rate_limited: bool,
    /// How long it has asked to wait.
    pub(super) retry_after: Option<Duration>,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error)
    }
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::new(error)
    }
}

impl Failed {
    pub(super) fn new(error: impl fmt::Display) -> Self {
        Self { error: error.to_string(), rate_limited: false, retry_after: None }
    }
}

/// A certificate that was issued, in PEM.
pub(super) struct Issued {
    /// The chain, the certificate first.
    pub(super) chain: String,
    /// Its key, PKCS#8.
    pub(super) key: String,
}

/// Gets a certificate for the wanted names. The caller keeps it, and then forgets the order.
///
/// # Errors
///
/// There is none, for what the server or the network said.
pub(super) async fn obtain(
    wanted: &Wanted,
    store: &Store,
    client: &Client,
    responder: &impl Responder,
) -> Result<Issued, Failed> {
    let issued = attempt(wanted, store, client, responder).await;
    responder.withdraw().await;
    issued.map_err(|failed| Failed { retry_after: client.retry_after(), ..failed })
}

async fn attempt(
    wanted: &Wanted,
    store: &Store,
    client: &Client,
    responder: &impl Responder,
) -> Result<Issued, Failed> {
    let session = account(wanted, store, client).await?;
    let (mut order, key) = match store.order(&wanted.directory, &wanted.names)? {
        Some(placed) => match go_on(&session, &placed).await? {
            Some(order) => (order, placed.key),
            None => place(wanted, store, &session).await?,
        },
        None => place(wanted, store, &session).await?,
    };
    if order.state().status == OrderStatus::Pending {
        answer(&mut order, responder).await?;
        let status = order.poll_ready(&POLL).await;
        let invalid = matches!(status, Ok(OrderStatus::Invalid) | Err(AcmeError::Api(_)));
        if invalid {
            // Another attempt needs another order.
            store.forget_order()?;
            return Err(refused(&mut order).await.unwrap_or_else(|| match status {
                Err(error) => failed(&error),
                Ok(_) => Failed::new("the server has refused the order, and does not say why"),
            }));
        }
        status.map_err(|error| failed(&error))?;
    }
    if order.state().status == OrderStatus::Ready {
        let request = request(&wanted.names, &key).map_err(Failed::new)?;
        order.finalize_csr(&request).await.map_err(|error| failed(&error))?;
    }
    let chain = order.poll_certificate(&POLL).await.map_err(|error| failed(&error))?;
    Ok(Issued { chain, key })
}

/// The account: the one that is kept, or another one with the key that is kept.
async fn account(wanted: &Wanted, store: &Store, client: &Client) -> Result<Session, Failed> {
    let builder = || Session::builder_with_http(Box::new(client.clone()));
    let key = match store.account_key()? {
        Some(key) => key,
        None => {
            let (_, key) = Key::generate_pkcs8().map_err(|error| failed(&error))?;
            store.keep_account_key(key.secret_pkcs8_der())?;
            key.secret_pkcs8_der().to_vec().into()
        }
    };
    let pkcs8 = || PrivatePkcs8KeyDer::from(key.to_vec());
    if let Some(url) = store.account(&wanted.directory)? {
        let session = builder().from_parts(url, pkcs8(), wanted.directory.clone()).await;
        return session.map_err(|error| failed(&error));
    }
    let parsed = Key::from_pkcs8_der(pkcs8()).map_err(|error| failed(&error))?;
    // The server knows an account by its key: this finds the one that a killed process has made.
    let made = builder().create_from_key((parsed, PrivateKeyDer::Pkcs8(pkcs8())), wanted.directory.clone()).await;
    let (session, _) = made.map_err(|error| failed(&error))?;
    if let Some(contact) = &wanted.contact {
        session.update_contacts(&[contact]).await.map_err(|error| failed(&error))?;
    }
    store.keep_account(&wanted.directory, Some(session.id()))?;
    Ok(session)
}

/// The order that was placed, unless it is of no use any more.
async fn go_on(session: &Session, placed: &PlacedOrder) -> Result<Option<Order>, Failed> {
    match session.order(placed.url.clone()).await {
        Ok(mut order) => Ok((order.state().status != OrderStatus::Invalid).then_some(order)),
        // It has expired, or is of another account.
        Err(AcmeError::Api(problem)) if !is_rate_limit(&problem) => Ok(None),
        Err(error) => Err(failed(&error)),
    }
}

/// Places a new order, and keeps it with the key of its certificate.
async fn place(wanted: &Wanted, store: &Store, session: &Session) -> Result<(Order, String), Failed> {
    let names: Vec<Identifier> = wanted.names.iter().cloned().map(Identifier::Dns).collect();
    let mut new = NewOrder::new(&names);
    if let Some(profile) = &wanted.profile {
        new = new.profile(profile);
    }
    if let Some(replaces) = &wanted.replaces {
        new = new.replaces(replaces.clone());
    }
    let order = match session.new_order(&new).await {
        Ok(order) => order,
        Err(AcmeError::Api(problem)) if is_unknown_account(&problem) => {
            // The next attempt makes another one with the same key.
            store.keep_account(&wanted.directory, None)?;
            return Err(failed(&AcmeError::Api(problem)));
        }
        Err(error) => return Err(failed(&error)),
    };
    let key = KeyPair::generate().map_err(Failed::new)?.serialize_pem();
    let (directory, url) = (wanted.directory.clone(), order.url().to_owned());
    store.keep_order(&PlacedOrder { directory, url, names: wanted.names.clone(), key: key.clone() })?;
    Ok((order, key))
}

/// Offers an answer to each challenge, and says so to the server.
async fn answer(order: &mut Order, responder: &impl Responder) -> Result<(), Failed> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.map_err(|error| failed(&error))?;
        if authorization.status != AuthorizationStatus::Pending {
            continue;
        }
        let name = authorization.identifier().to_string();
        let Some(challenge) = authorization.challenge(responder.challenge()) else {
            return Err(Failed::new(format!("the server offers no such challenge for {name}")));
        };
        responder.offer(&name, &challenge.key_authorization()).await.map_err(Failed::new)?;
    }
    responder.settle().await.map_err(Failed::new)?;
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.map_err(|error| failed(&error))?;
        if authorization.status == AuthorizationStatus::Pending
            && let Some(mut challenge) = authorization.challenge(responder.challenge())
        {
            challenge.set_ready().await.map_err(|error| failed(&error))?;
        }
    }
    Ok(())
}

/// Why the server has refused an order: what it says of the challenges.
async fn refused(order: &mut Order) -> Option<Failed> {
    let mut told = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        if authorization.refresh().await.is_err() {
            continue;
        }
        let name = authorization.identifier().to_string();
        let problems = authorization.challenges.iter().filter_map(|challenge| challenge.error.as_ref());
        told.extend(problems.map(|problem| format!("{name}: {}", words(problem))));
    }
    (!told.is_empty()).then(|| Failed::new(told.join("; ")))
}

/// A certificate signing request in DER (RFC 2986). The names are in its extension alone.
fn request(names: &BTreeSet<String>, key: &str) -> Result<Vec<u8>, rcgen::Error> {
    let mut params = CertificateParams::new(names.iter().cloned().collect::<Vec<_>>())?;
    params.distinguished_name = DistinguishedName::new();
    Ok(params.serialize_request(&KeyPair::from_pem(key)?)?.der().to_vec())
}

fn failed(error: &AcmeError) -> Failed {
    match error {
        AcmeError::Api(problem) => Failed { rate_limited: is_rate_limit(problem), ..Failed::new(words(problem)) },
        other => Failed::new(other),
    }
}

/// What a server says.
fn words(problem: &Problem) -> String {
    let kind = problem.r#type.as_deref().map(|kind| kind.trim_start_matches("urn:ietf:params:acme:error:"));
    let parts = problem.subproblems.iter().filter_map(|part| part.detail.as_deref());
    let detail: Vec<&str> = problem.detail.as_deref().into_iter().chain(parts).collect();
    match (kind, detail.is_empty()) {
        (Some(kind), false) => format!("{} ({kind})", detail.join("; ")),
        (Some(kind), true) => kind.to_owned(),
        (None, _) => detail.join("; "),
    }
}

fn is_rate_limit(problem: &Problem) -> bool {
    problem.status == Some(429) || problem.r#type.as_deref() == Some("urn:ietf:params:acme:error:rateLimited")
}

fn is_unknown_account(problem: &Problem) -> bool {
    let kind = problem.r#type.as_deref().and_then(|kind| kind.strip_prefix("urn:ietf:params:acme:error:"));
    matches!(kind, Some("accountDoesNotExist" | "unauthorized"))
}
