//! One order, from the account to the certificate (RFC 8555 section 7.1.6).
//!
//! Each step is kept in the [`Store`] before the next one begins. An order that a killed process has left is gone on with, from
//! whatever status it has by then.

use std::collections::BTreeSet;
use std::time::Duration;

use instant_acme::{
    Account as Session, AuthorizationStatus, CertificateIdentifier, ChallengeStatus, ChallengeType, Error as AcmeError,
    Identifier, NewOrder, Order, OrderStatus,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use tokio::time::Instant;

use super::account;
use super::http::Client;
use super::issued::{self, Unfit};
use super::problem::{self, failed, is_passing, with_nonces};
use super::remedy::ProblemFacts;
use super::schedule::Window;
use super::store::{PlacedOrder, Store};
use super::wanted::{Failed, Responder, Wanted};

/// How long a server may take to validate and to issue.
const PATIENCE: Duration = Duration::from_secs(180);

/// The pauses between two looks at an order, unless the server asks for another one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How many requests of an attempt may fail, one less than this, for a reason that passes.
const FAILURES_MAX: u32 = 4;

/// A certificate that was issued, in PEM. It fits its key and the names, and is valid.
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
    let issued = Attempt { wanted, store, client, responder }.run().await;
    responder.withdraw().await;
    issued
}

/// When the server wants the certificate to be renewed, and how long it wants not to be asked again (RFC 9773); `None` if it does
/// not say such a thing.
///
/// # Errors
///
/// It cannot be asked.
pub(super) async fn window(
    wanted: &Wanted,
    store: &Store,
    client: &Client,
    certificate: &CertificateIdentifier<'_>,
) -> Result<Option<(Window, Duration)>, Failed> {
    // One that is not there yet is made by an order.
    if store.account(&wanted.directory)?.is_none() {
        return Ok(None);
    }
    let session = account::session(wanted, store, client).await?;
    match session.renewal_info(certificate).await {
        Ok((info, again)) => {
            let suggested = info.suggested_window;
            Ok(Some((Window { start: suggested.start, end: suggested.end }, again)))
        }
        Err(AcmeError::Unsupported(_)) => Ok(None),
        Err(error) => Err(failed(client, &error)),
    }
}

/// How an order has ended without a certificate.
enum Ended {
    /// It can be gone on with.
    Unfinished(Failed),
    /// It cannot: another certificate needs another order.
    Useless(Failed),
}

impl From<Failed> for Ended {
    fn from(failed: Failed) -> Self {
        Self::Unfinished(failed)
    }
}

struct Attempt<'a, R> {
    wanted: &'a Wanted,
    store: &'a Store,
    client: &'a Client,
    responder: &'a R,
}

impl<R: Responder> Attempt<'_, R> {
    async fn run(&self) -> Result<Issued, Failed> {
        let session = account::session(self.wanted, self.store, self.client).await?;
        if let Some(placed) = self.store.order(&self.wanted.directory, &self.wanted.names)? {
            if let Some(mut order) = self.find(&session, &placed).await? {
                match self.finish(&mut order, &placed.key).await {
                    Ok(chain) => return Ok(Issued { chain, key: placed.key }),
                    Err(Ended::Unfinished(failed)) => return Err(failed),
                    Err(Ended::Useless(_)) => {}
                }
            }
            self.store.forget_order()?;
        }
        let (mut order, key) = self.place(session).await?;
        match self.finish(&mut order, &key).await {
            Ok(chain) => Ok(Issued { chain, key }),
            Err(Ended::Unfinished(failed)) => Err(failed),
            Err(Ended::Useless(failed)) => {
                self.store.forget_order()?;
                Err(failed)
            }
        }
    }

    fn failed(&self, error: &AcmeError) -> Failed {
        failed(self.client, error)
    }

    /// The order that was placed, unless the server does not know it any more, or says of it what cannot be understood.
    async fn find(&self, session: &Session, placed: &PlacedOrder) -> Result<Option<Order>, Failed> {
        match with_nonces(async || session.order(placed.url.clone()).await).await {
            Ok(order) => Ok(Some(order)),
            Err(AcmeError::Api(problem)) if !is_passing(&problem) => Ok(None),
            Err(AcmeError::Json(_)) => Ok(None),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// Places a new order, and keeps it with the key of its certificate.
    async fn place(&self, session: Session) -> Result<(Order, String), Failed> {
        let key = KeyPair::generate().map_err(Failed::new)?.serialize_pem();
        let (directory, names) = (self.wanted.directory.clone(), self.wanted.names.clone());
        let mut placed = PlacedOrder { directory, url: String::new(), names, key: key.clone() };
        // On a full disk no order is placed: it would be lost, and the server counts them. The second file needs room beside the first,
        // as the one with the URL does.
        self.store.keep_order(&placed)?;
        self.store.keep_order(&placed)?;
        match self.ask_for_order_of_a_known_account(session).await {
            Ok(order) => {
                order.url().clone_into(&mut placed.url);
                self.store.keep_order(&placed)?;
                Ok((order, key))
            }
            Err(failed) => {
                self.store.forget_order()?;
                Err(failed)
            }
        }
    }

    async fn ask_for_order_of_a_known_account(&self, session: Session) -> Result<Order, Failed> {
        let order = match self.ask_for_order(&session).await {
            Err(AcmeError::Api(problem)) if problem::is_unknown_account(&problem) => {
                // The account is looked up by its key once more, and is replaced if it is of no use.
                self.store.keep_account(&self.wanted.directory, None)?;
                let session = account::session(self.wanted, self.store, self.client).await?;
                self.ask_for_order(&session).await
            }
            order => order,
        };
        order.map_err(|error| self.failed(&error))
    }

    async fn ask_for_order(&self, session: &Session) -> Result<Order, AcmeError> {
        let names: Vec<Identifier> = self.wanted.names.iter().cloned().map(Identifier::Dns).collect();
        let new_order = || match &self.wanted.profile {
            Some(profile) => NewOrder::new(&names).profile(profile),
            None => NewOrder::new(&names),
        };
        if let Some(replaces) = &self.wanted.replaces {
            let replacing = new_order().replaces(replaces.clone());
            match with_nonces(async || session.new_order(&replacing).await).await {
                Err(error) if is_about_replacing(&error) => {}
                order => return order,
            }
        }
        with_nonces(async || session.new_order(&new_order()).await).await
    }

    /// Goes on with an order until it has a certificate.
    async fn finish(&self, order: &mut Order, key: &str) -> Result<String, Ended> {
        let deadline = Instant::now() + PATIENCE;
        let mut pace = Pace { pause: FIRST_PAUSE, failures: 0 };
        let mut is_answered = false;
        loop {
            let status = order.state().status;
            let step = match status {
                OrderStatus::Pending if !is_answered => self.answer(order).await.map(|()| is_answered = true),
                OrderStatus::Ready => self.finalize(order, key).await,
                OrderStatus::Valid => match self.download(order).await {
                    Ok(chain) => match issued::check(&chain, key, &self.wanted.names) {
                        Ok(chain) => return Ok(chain),
                        // A proxy's page: the certificate is still there.
                        Err(Unfit::Unreadable(_)) if pace.failures + 1 < FAILURES_MAX => {
                            pace.failures += 1;
                            Ok(())
                        }
                        // The order is good for as long as the clock is wrong.
                        Err(unfit @ Unfit::NotYet(_)) => return Err(Failed::new(unfit).into()),
                        Err(unfit) => return Err(Ended::Useless(Failed::new(unfit))),
                    },
                    Err(step) => Err(step),
                },
                OrderStatus::Invalid => return Err(Ended::Useless(self.refusal(order).await)),
                OrderStatus::Pending | OrderStatus::Processing => Ok(()),
            };
            match step {
                Ok(()) => {}
                Err(Step::Asked(error)) => self.bear(&error, &mut pace)?,
                Err(Step::Failed(failed)) => return Err(Ended::Unfinished(failed)),
                Err(Step::Useless(failed)) => return Err(Ended::Useless(failed)),
            }
            loop {
                let wait = self.client.retry_after().unwrap_or(pace.pause);
                if Instant::now() + wait > deadline {
                    let doing = if status == OrderStatus::Pending { "validated the names" } else { "issued" };
                    let late = format!("the server has not {doing} within {} seconds", PATIENCE.as_secs());
                    let retry_after = self.client.retry_after();
                    return Err(Ended::Unfinished(Failed { retry_after, ..Failed::new(late) }));
                }
                tokio::time::sleep(wait).await;
                pace.pause = pace.pause.mul_f64(1.5).min(LONGEST_PAUSE);
                match with_nonces(async || order.refresh().await.map(drop)).await {
                    Ok(()) => break,
                    Err(error) => self.bear(&error, &mut pace)?,
                }
            }
        }
    }

    /// Whether the order is gone on with after such an answer.
    fn bear(&self, error: &AcmeError, pace: &mut Pace) -> Result<(), Failed> {
        pace.failures += 1;
        if may_pass(error) && pace.failures < FAILURES_MAX { Ok(()) } else { Err(self.failed(error)) }
    }

    /// Offers an answer to each challenge, and says so to the server.
    async fn answer(&self, order: &mut Order) -> Result<(), Step> {
        // All of them are read first: what cannot be read is asked for again.
        with_nonces(async || {
            let mut authorizations = order.authorizations();
            while let Some(authorization) = authorizations.next().await {
                authorization?;
            }
            Ok(())
        })
        .await?;
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            let name = authorization.identifier().to_string();
            match authorization.status {
                AuthorizationStatus::Pending => {}
                AuthorizationStatus::Valid => continue,
                status => {
                    // The server may call the order pending for as long as it keeps it.
                    let status = format!("{status:?}").to_lowercase();
                    let failed = Failed::new(format!("the server's authorization for {name} is {status}"));
                    return Err(Step::Useless(failed));
                }
            }
            let Some(challenge) = authorization.challenge(self.responder.challenge()) else {
                let kind = kind(&self.responder.challenge());
                return Err(Step::Useless(Failed::new(format!("the server offers no challenge {kind} for {name}"))));
            };
            self.responder.offer(&name, &challenge.key_authorization()).await.map_err(Failed::new)?;
        }
        self.responder.settle().await.map_err(Failed::new)?;
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            if authorization.status == AuthorizationStatus::Pending
                && let Some(mut challenge) = authorization.challenge(self.responder.challenge())
                // A process that was killed may have said so already.
                && challenge.status == ChallengeStatus::Pending
            {
                with_nonces(async || challenge.set_ready().await).await?;
            }
        }
        Ok(())
    }

    async fn finalize(&self, order: &mut Order, key: &str) -> Result<(), Step> {
        let request = request(&self.wanted.names, key).map_err(|error| Step::Useless(Failed::new(error)))?;
        match with_nonces(async || order.finalize_csr(&request).await).await {
            // The answer to an earlier one was lost.
            Err(AcmeError::Api(problem)) if problem::kind(&problem) == Some("orderNotReady") => Ok(()),
            Err(AcmeError::Api(problem)) if !is_passing(&problem) => {
                Err(Step::Useless(self.failed(&AcmeError::Api(problem))))
            }
            finalized => Ok(finalized?),
        }
    }

    async fn download(&self, order: &mut Order) -> Result<String, Step> {
        match with_nonces(async || order.certificate().await).await {
            Ok(Some(chain)) => Ok(chain),
            Ok(None) => Err(Step::Useless(Failed::new("the server's order has no certificate"))),
            Err(AcmeError::Api(problem)) if !is_passing(&problem) => {
                Err(Step::Useless(self.failed(&AcmeError::Api(problem))))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Why the server has refused an order: what it says of the challenges, else of the order.
    async fn refusal(&self, order: &mut Order) -> Failed {
        let own = order.state().error.clone();
        let (mut told, mut names) = (Vec::new(), Vec::new());
        let read = with_nonces(async || {
            (told, names) = (Vec::new(), Vec::new());
            let mut authorizations = order.authorizations();
            while let Some(authorization) = authorizations.next().await {
                let authorization = authorization?;
                let name = authorization.identifier().to_string();
                for problem in authorization.challenges.iter().filter_map(|challenge| challenge.error.as_ref()) {
                    told.push(format!("{name}: {}", problem::words(problem)));
                    names.push((name.clone(), problem::facts_of(problem)));
                }
            }
            Ok(())
        });
        // What was read until then is told.
        let _ = read.await;
        match own {
            _ if !told.is_empty() => {
                let facts = Box::new(ProblemFacts::default().with_names(names));
                Failed { facts, ..Failed::new(told.join("; ")) }
            }
            Some(problem) => self.failed(&AcmeError::Api(problem)),
            None => Failed::new("the server has refused the order, and does not say why"),
        }
    }
}

/// How an order is looked at.
struct Pace {
    pause: Duration,
    failures: u32,
}

/// Why a step was not done.
enum Step {
    /// What the server or the network said.
    Asked(AcmeError),
    /// It is not the server's fault.
    Failed(Failed),
    /// The order leads to no certificate.
    Useless(Failed),
}

impl From<AcmeError> for Step {
    fn from(error: AcmeError) -> Self {
        Self::Asked(error)
    }
}

impl From<Failed> for Step {
    fn from(failed: Failed) -> Self {
        Self::Failed(failed)
    }
}

/// The same request may be answered the next time.
fn may_pass(error: &AcmeError) -> bool {
    match error {
        AcmeError::Api(problem) => is_passing(problem) && !problem::is_rate_limit(problem),
        AcmeError::Json(_) | AcmeError::Str(_) | AcmeError::Other(_) => true,
        _ => false,
    }
}

/// Without the certificate that is replaced, the server may take the order: it does not know it, or it was replaced before.
fn is_about_replacing(error: &AcmeError) -> bool {
    match error {
        AcmeError::Api(problem) => matches!(problem::kind(problem), Some("alreadyReplaced" | "malformed")),
        AcmeError::Unsupported(_) => true,
        // The library's own words for an answer that does not repeat it.
        AcmeError::Other(error) => error.to_string().starts_with("replaces field"),
        _ => false,
    }
}

/// The name of a challenge.
fn kind(challenge: &ChallengeType) -> &'static str {
    match challenge {
        ChallengeType::TlsAlpn01 => "tls-alpn-01",
        ChallengeType::Dns01 => "dns-01",
        _ => "of that kind",
    }
}

/// A certificate signing request in DER (RFC 2986). The names are in its extension alone.
fn request(names: &BTreeSet<String>, key: &str) -> Result<Vec<u8>, rcgen::Error> {
    let mut params = CertificateParams::new(names.iter().cloned().collect::<Vec<_>>())?;
    params.distinguished_name = DistinguishedName::new();
    Ok(params.serialize_request(&KeyPair::from_pem(key)?)?.der().to_vec())
}
