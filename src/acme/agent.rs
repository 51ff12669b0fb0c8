//! The ACME agent: a process beside the gate that orders the public certificate, renews it, and keeps it in its folder.
//!
//! The gate itself never connects to an ACME server. It answers challenges, and loads the files that are there.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use instant_acme::CertificateIdentifier;
use time::OffsetDateTime;
use tokio::net::lookup_host;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::dns::{self, DnsPublisher, DnsResponder};
use super::http::Client;
use super::message::{FromAgent, ToAgent};
use super::order;
use super::plan::{self, Known, Step};
use super::remedy::{self, ChallengeKind, ProblemFacts};
use super::responder::GateResponder;
use super::schedule::{self, Window};
use super::served::Served;
use super::store::{Failures, Ordered, Store, StoreError};
use super::wanted::{Failed, Wanted};
use crate::config::checked::{Acme, AcmeDirectory, Challenge};
use crate::config::{self, ConfigErrors};
use crate::handover::{Channel, channel_at_stdin, ignore_signals};
use crate::model::issuance::{FailedOrder, Issuance, Phase};
use crate::sandbox::{Incomplete, Sandbox};

/// The longest sleep: a clock that is set, or a machine that has slept, is noticed by then.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// How often the lock of the folder is tried, where another process has it: the agent of a gate that is being replaced.
const LOCK_INTERVAL: Duration = Duration::from_secs(1);
/// How often a folder with a file that cannot be read is looked at again.
const BROKEN_INTERVAL: Duration = Duration::from_secs(300);
/// How long the gate may take to read a message.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// How many names are looked up after a failure, and how long that may take in all.
const LOOK_UPS_MAX: usize = 20;
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the server is asked when to renew, whatever it wants.
const WINDOW_INTERVAL: (Duration, Duration) = (Duration::from_secs(3600), Duration::from_secs(24 * 3600));

/// Why the agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// It was not started by a launcher.
    #[error("\"doorward run\" starts this command")]
    NoChannel,
    /// The configuration has mistakes.
    #[error(transparent)]
    Config(ConfigErrors),
    /// The configuration has no such section.
    #[error("there is no [certificate.acme]")]
    NoAcme,
    /// There is no way to talk to the server, or to the one of the DNS.
    #[error("{0}")]
    Client(String),
    /// `[sandbox] mode = "require"`, and not all of it is in force.
    #[error(transparent)]
    Sandbox(Incomplete),
    /// Something else.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Orders and renews the certificate of the configuration `file`, for the gate at stdin, until that has ended. To be called before
/// there are threads.
///
/// # Errors
/// Why it cannot run.
pub fn agent(file: &Path) -> Result<(), AgentError> {
    let end = channel_at_stdin()?.ok_or(AgentError::NoChannel)?;
    let (acme, mode) = config::load_acme(file).map_err(AgentError::Config)?;
    let acme = acme.ok_or(AgentError::NoAcme)?;
    // Reads the authorities of this machine, which the sandbox does not.
    let client = Client::new(acme.trust.as_deref()).map_err(|error| AgentError::Client(error.to_string()))?;
    let publisher = match &acme.challenge {
        Challenge::TlsAlpn01 => None,
        Challenge::Dns01(dns) => {
            dns::limit_memory(dns)?;
            Some(Arc::new(DnsPublisher::new(dns).map_err(AgentError::Client)?))
        }
    };
    let folder = acme.folder();
    let store = Store::new(&folder);
    // In the sandbox no folder can be made. What stands in the way is told by the first write.
    let _ = store.make_folders();
    let sandbox = match &acme.challenge {
        // A program would inherit a sandbox, and nothing is known of what it needs.
        Challenge::Dns01(dns) if dns.runs_program() => Sandbox::default(),
        _ => Sandbox::enter_to_order(mode, &acme, &folder).map_err(AgentError::Sandbox)?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let channel = Channel::new(end)?;
        let _ignored = ignore_signals()?;
        let sandbox = sandbox.in_force().parts.iter().map(|part| (*part).to_owned()).collect();
        channel.send(&FromAgent::Started { sandbox }, None).await?;
        let mut agent = Agent {
            acme,
            store,
            client,
            publisher,
            channel: &channel,
            told: Issuance::default(),
            forced: false,
            window: None,
        };
        agent.run().await;
        Ok(())
    });
    // A look-up of a name may hang: it is not waited for.
    runtime.shutdown_background();
    result
}

/// The gate has ended, or has another agent by now.
struct Ended;

/// When the server wants the certificate renewed, and when it is asked again.
struct AskedWindow {
    window: Option<Window>,
    again: OffsetDateTime,
}

struct Agent<'a> {
    acme: Arc<Acme>,
    store: Store,
    client: Client,
    /// For dns-01.
    publisher: Option<Arc<DnsPublisher>>,
    channel: &'a Channel,
    told: Issuance,
    forced: bool,
    window: Option<AskedWindow>,
}

impl Agent<'_> {
    async fn run(&mut self) {
        self.told = Issuance {
            directory: self.acme.directory.name.clone(),
            names: self.acme.names.clone(),
            ..Issuance::default()
        };
        let _ = self.go().await;
    }

    async fn go(&mut self) -> Result<(), Ended> {
        self.tell(|_| {}).await?;
        let responder = GateResponder::new(self.channel);
        let _lock = self.lock(&responder).await?;
        loop {
            let now = OffsetDateTime::now_utc();
            let acme = Arc::clone(&self.acme);
            match self.next(&acme, now) {
                Ok((Step::Wait(until), served, failures)) => {
                    self.wait(until, served, failures, &responder).await?;
                }
                Ok((Step::Order(directory), served, _)) => {
                    self.forced = false;
                    self.order(directory, served, &responder).await?;
                }
                Err(error) => {
                    // Whatever is wrong with the folder: nothing is ordered that could not be kept.
                    self.forced = false;
                    self.failed(&acme.directory, &Failed::new(error), &responder).await?;
                    self.rest(BROKEN_INTERVAL, &responder).await?;
                }
            }
        }
    }

    /// The next step, the certificate in use, and the orders that have failed in a row.
    fn next<'b>(
        &self,
        acme: &'b Acme,
        now: OffsetDateTime,
    ) -> Result<(Step<'b>, Option<Served>, Option<Failures>), StoreError> {
        let served = self.store.certificate()?.and_then(|pem| Served::read(&pem).ok());
        let (issued, tried, failures) = (self.store.issued()?, self.store.tried()?, self.store.failures()?);
        let is_placed = self.store.order(&acme.directory.url, &acme.names)?.is_some();
        let known = Known {
            acme,
            served: served.as_ref(),
            issued: issued.as_ref(),
            tried: tried.as_ref(),
            failures: failures.as_ref(),
            is_placed,
            window: self.window.as_ref().and_then(|asked| asked.window),
            now,
            forced: self.forced,
        };
        Ok((plan::next(&known), served, failures))
    }

    /// Waits, one minute at most.
    async fn wait(
        &mut self,
        until: OffsetDateTime,
        served: Option<Served>,
        failures: Option<Failures>,
        responder: &GateResponder<'_>,
    ) -> Result<(), Ended> {
        let failure = failures.map(|failures| failures.last);
        let phase = if failure.is_some() { Phase::Failing } else { Phase::Valid };
        self.tell(|told| {
            (told.phase, told.next_at) = (phase, Some(until.unix_timestamp()));
            told.failure = failure;
        })
        .await?;
        let now = OffsetDateTime::now_utc();
        if self.window.as_ref().is_none_or(|asked| asked.again <= now)
            && let Some(identifier) = served.as_ref().and_then(Served::identifier)
        {
            return self.ask_window(&identifier, now, responder).await;
        }
        let rest = Duration::try_from(until - now).unwrap_or_default();
        self.rest(rest.min(LONGEST_SLEEP), responder).await
    }

    /// Asks the server when it wants the certificate to be renewed.
    async fn ask_window(
        &mut self,
        identifier: &CertificateIdentifier<'_>,
        now: OffsetDateTime,
        responder: &GateResponder<'_>,
    ) -> Result<(), Ended> {
        let (store, client) = (self.store.clone(), self.client.clone());
        let wanted = self.wanted(&self.acme.directory, None);
        let asked = self.listen(order::window(&wanted, &store, &client, identifier), responder).await?;
        let (least, most) = WINDOW_INTERVAL;
        let (window, again) = match asked {
            Ok(Some((window, again))) => (Some(window), again.clamp(least, most)),
            // It has none.
            Ok(None) => (None, most),
            // What it said before still counts.
            Err(_) => (self.window.take().and_then(|asked| asked.window), least),
        };
        self.window = Some(AskedWindow { window, again: now + again });
        Ok(())
    }

    /// Places an order, or goes on with it, and puts the certificate in place.
    async fn order(
        &mut self,
        directory: &AcmeDirectory,
        served: Option<Served>,
        responder: &GateResponder<'_>,
    ) -> Result<(), Ended> {
        let is_trial = directory.url != self.acme.directory.url;
        let phase = if is_trial { Phase::Trial } else { Phase::Ordering };
        self.tell(|told| (told.phase, told.next_at) = (phase, None)).await?;
        let knows_window = !is_trial && self.window.as_ref().is_some_and(|asked| asked.window.is_some());
        let replaces = served.as_ref().filter(|_| knows_window).and_then(Served::identifier);
        let wanted = self.wanted(directory, replaces);
        let (store, client) = (self.store.clone(), self.client.clone());
        let result = match self.publisher.clone() {
            Some(publisher) => {
                let records = DnsResponder::new(&publisher);
                self.listen(order::obtain(&wanted, &store, &client, &records), responder).await?
            }
            None => self.listen(order::obtain(&wanted, &store, &client, responder), responder).await?,
        };
        let kept = result.and_then(|issued| {
            let pem = format!("{}\n{}\n", issued.chain.trim_end(), issued.key.trim_end()).into_bytes();
            let at = OffsetDateTime::now_utc().unix_timestamp();
            let ordered = Ordered { directory: wanted.directory.clone(), names: wanted.names.clone(), at };
            if is_trial {
                store.keep_tried(&ordered)?;
            } else {
                store.keep_certificate(pem)?;
                store.keep_issued(&ordered)?;
            }
            store.keep_failures(None)?;
            // Last: a process that is killed before goes on with the order, and puts the same certificate in place.
            store.forget_order()?;
            Ok(())
        });
        match kept {
            Err(failed) => {
                let wait = self.failed(directory, &failed, responder).await?;
                self.rest(wait, responder).await
            }
            Ok(()) if is_trial => self.tell(|told| told.failure = None).await,
            Ok(()) => {
                self.window = None;
                self.send(&FromAgent::Renewed).await?;
                self.tell(|told| {
                    (told.failure, told.phase) = (None, Phase::Valid);
                    told.renewed += 1;
                })
                .await
            }
        }
    }

    fn wanted(&self, directory: &AcmeDirectory, replaces: Option<CertificateIdentifier<'static>>) -> Wanted {
        let acme = &self.acme;
        let is_trial = directory.url != acme.directory.url;
        Wanted {
            directory: directory.url.clone(),
            contact: acme.contact.clone(),
            names: acme.names.clone(),
            // Both are of the other server.
            profile: acme.profile.clone().filter(|_| !is_trial),
            eab: acme.eab.clone().filter(|_| !is_trial),
            replaces,
        }
    }

    /// Keeps and tells why an order has failed. Returns how long it is to be waited where the next step does not find that out.
    async fn failed(
        &mut self,
        directory: &AcmeDirectory,
        failed: &Failed,
        responder: &GateResponder<'_>,
    ) -> Result<Duration, Ended> {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let ordered = Ordered { directory: directory.url.clone(), names: self.acme.names.clone(), at: now };
        let before = self.store.failures().ok().flatten().filter(|before| before.ordered.names == ordered.names);
        let in_a_row = before.map_or(0, |before| before.last.in_a_row).saturating_add(1);
        let count = usize::try_from(in_a_row).unwrap_or(usize::MAX);
        let wait = schedule::retry(count, failed.retry_after, failed.rate_limited, random());
        let remedies = self.listen(remedies(&self.acme.clone(), &failed.facts), responder).await?;
        let last =
            FailedOrder { at: now, in_a_row, directory: directory.name.clone(), error: failed.error.clone(), remedies };
        let not_before = now.saturating_add(i64::try_from(wait.as_secs()).unwrap_or(i64::MAX));
        let kept = self.store.keep_failures(Some(&Failures { ordered, last: last.clone(), not_before }));
        self.tell(|told| {
            (told.phase, told.next_at) = (Phase::Failing, Some(not_before));
            told.failure = Some(last);
            told.failed += 1;
        })
        .await?;
        Ok(if kept.is_err() { wait } else { Duration::ZERO })
    }

    /// The lock of the folder.
    async fn lock(&mut self, responder: &GateResponder<'_>) -> Result<std::fs::File, Ended> {
        loop {
            match self.store.lock() {
                Ok(Some(lock)) => return Ok(lock),
                Ok(None) => {}
                Err(error) => {
                    let error = format!("the folder of the certificate cannot be used: {error}");
                    let (at, directory) =
                        (OffsetDateTime::now_utc().unix_timestamp(), self.acme.directory.name.clone());
                    let failure = FailedOrder { at, in_a_row: 1, directory, error, remedies: Vec::new() };
                    if self.told.failure.as_ref().is_none_or(|told| told.error != failure.error) {
                        self.tell(|told| (told.phase, told.failure) = (Phase::Failing, Some(failure))).await?;
                    }
                }
            }
            // Not `rest`: what the owner wants has to wait for the lock, too.
            self.listen(sleep(LOCK_INTERVAL), responder).await?;
        }
    }

    /// Waits, unless the owner wants a certificate now.
    async fn rest(&mut self, time: Duration, responder: &GateResponder<'_>) -> Result<(), Ended> {
        let ends = Instant::now() + time;
        while !self.forced {
            tokio::select! {
                () = sleep_until(ends) => return Ok(()),
                message = self.channel.receive() => self.take(message, responder)?,
            }
        }
        Ok(())
    }

    /// Does `work`, and meanwhile what the gate says.
    async fn listen<T>(&mut self, work: impl Future<Output = T>, responder: &GateResponder<'_>) -> Result<T, Ended> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                result = &mut work => return Ok(result),
                message = self.channel.receive() => self.take(message, responder)?,
            }
        }
    }

    fn take(
        &mut self,
        message: io::Result<Option<(ToAgent, Option<OwnedFd>)>>,
        responder: &GateResponder<'_>,
    ) -> Result<(), Ended> {
        match message {
            Ok(Some((ToAgent::Offered { name, error }, _))) => responder.answered(&name, error),
            Ok(Some((ToAgent::Renew, _))) => self.forced = true,
            Ok(None) | Err(_) => return Err(Ended),
        }
        Ok(())
    }

    async fn tell(&mut self, change: impl FnOnce(&mut Issuance)) -> Result<(), Ended> {
        change(&mut self.told);
        let state = FromAgent::State(self.told.clone());
        self.send(&state).await
    }

    async fn send(&self, message: &FromAgent) -> Result<(), Ended> {
        match timeout(SEND_TIMEOUT, self.channel.send(message, None)).await {
            Ok(Ok(())) => Ok(()),
            // A gate that reads nothing has no use for a certificate, either.
            _ => Err(Ended),
        }
    }
}

/// What can be done about it. The names are looked up, as far as that matters.
async fn remedies(acme: &Acme, facts: &ProblemFacts) -> Vec<String> {
    let challenge = match acme.challenge {
        Challenge::TlsAlpn01 => ChallengeKind::TlsAlpn01,
        Challenge::Dns01(_) => ChallengeKind::Dns01,
    };
    let mut resolved = Vec::new();
    let looks = acme.names.iter().filter(|_| facts.is_about_names()).take(LOOK_UPS_MAX);
    let deadline = Instant::now() + LOOK_UP_TIMEOUT;
    for name in looks {
        let found = timeout_at(deadline, lookup_host((name.as_str(), 443))).await;
        let found = found.ok().and_then(Result::ok);
        resolved.push((name.clone(), found.into_iter().flatten().map(|address| address.ip()).collect()));
    }
    remedy::remedies(facts, challenge, &resolved)
}

/// A number between 0 and 1.
fn random() -> f64 {
    let mut bytes = [0; 4];
    let filled = aws_lc_rs::rand::fill(&mut bytes);
    filled.map_or(0.5, |()| f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX))
}
