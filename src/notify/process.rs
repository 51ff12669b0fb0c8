//! The notifier: a process that hands messages to one receiver.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::command::Program;
use super::courier::Courier;
use super::failure::Failure;
use super::message::{FromNotifier, ToNotifier};
use super::receiver::Receiver;
use super::webhook::Poster;
use crate::config::{self, ConfigErrors};
use crate::handover::{Channel, ReceiverKind, channel_at_stdin, ignore_signals};
use crate::sandbox::{Incomplete, Sandbox};

/// How long it goes on when the gate has ended, for what waits.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the gate may take to read a report.
const REPORT_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a notifier cannot run.
#[derive(Debug, thiserror::Error)]
pub enum NotifierError {
    /// It was not started by a launcher.
    #[error("\"doorward run\" starts this command")]
    NoChannel,
    /// The configuration has mistakes.
    #[error(transparent)]
    Config(ConfigErrors),
    /// The configuration has no such receiver.
    #[error("[notify] names no such receiver")]
    NoReceiver,
    /// `[sandbox] mode = "require"`, and not all of it is in force.
    #[error(transparent)]
    Sandbox(Incomplete),
    /// Something else.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Hands the messages that come from the gate at stdin to a receiver of the configuration `file`, until the gate has ended. To be
/// called before there are threads.
///
/// # Errors
/// Why it cannot run.
pub fn notifier(file: &Path, kind: ReceiverKind) -> Result<(), NotifierError> {
    let end = channel_at_stdin()?.ok_or(NotifierError::NoChannel)?;
    let (notify, mode) = config::load_notify(file).map_err(NotifierError::Config)?;
    let (receiver, sandbox) = match kind {
        ReceiverKind::Webhook => {
            let webhook = notify.webhook.ok_or(NotifierError::NoReceiver)?;
            // Reads the authorities of this machine, which the sandbox does not.
            let poster = Poster::new(&webhook);
            let sandbox = Sandbox::enter_to_reach(mode, webhook.url.host(), webhook.url.port());
            (Receiver::Webhook(poster), sandbox.map_err(NotifierError::Sandbox)?)
        }
        // A program would inherit a sandbox, and nothing is known of what it needs.
        ReceiverKind::Command => {
            (Receiver::Command(Program::new(&notify.command.ok_or(NotifierError::NoReceiver)?)), Sandbox::default())
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let channel = Channel::new(end)?;
        let sandbox = sandbox.in_force().parts.iter().map(|part| (*part).to_owned()).collect();
        channel.send(&FromNotifier::Started { sandbox }, None).await?;
        serve(&channel, receiver).await
    });
    // A look-up of a name may hang: it is not waited for.
    runtime.shutdown_background();
    Ok(result?)
}

async fn serve(channel: &Channel, receiver: Receiver) -> io::Result<()> {
    let _ignored = ignore_signals()?;
    let (mut courier, mut delivery) = (Courier::default(), JoinSet::new());
    loop {
        deliver_next(&courier, &mut delivery, &receiver);
        for report in courier.reports() {
            // A gate that reads nothing does not stop the messages.
            let _ = timeout(REPORT_TIMEOUT, channel.send(&report, None)).await;
        }
        let due = courier.due().filter(|_| delivery.is_empty());
        tokio::select! {
            message = channel.receive() => match message? {
                Some((ToNotifier::Notice(notice), _)) => courier.take(notice.bounded(), Instant::now()),
                Some((ToNotifier::Told { event, subject, seconds }, _)) => {
                    courier.was_told(event, subject, Duration::from_secs(seconds), Instant::now());
                }
                None => break,
            },
            Some(result) = delivery.join_next() => courier.delivered(flat(result), Instant::now()),
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                courier.digest(Instant::now(), false);
            }
        }
    }
    // The gate has ended. What can be delivered is.
    let rest = async {
        courier.digest(Instant::now(), true);
        deliver_next(&courier, &mut delivery, &receiver);
        while let Some(result) = delivery.join_next().await {
            courier.delivered(flat(result), Instant::now());
            deliver_next(&courier, &mut delivery, &receiver);
        }
    };
    let _ = timeout(END_TIMEOUT, rest).await;
    Ok(())
}

type Delivery = JoinSet<Result<(), Failure>>;

/// Begins the next delivery, if none is under way.
fn deliver_next(courier: &Courier, delivery: &mut Delivery, receiver: &Receiver) {
    if delivery.is_empty()
        && let Some(notice) = courier.next(Instant::now())
    {
        let receiver = receiver.clone();
        delivery.spawn(async move { receiver.deliver(&notice).await.map(drop) });
    }
}

/// A panic is a failure like another.
fn flat(result: Result<Result<(), Failure>, tokio::task::JoinError>) -> Result<(), Failure> {
    result.unwrap_or_else(|error| Err(Failure::passing(error.to_string())))
}
