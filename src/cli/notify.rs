//! `doorward notify --test`: tries the receivers of `[notify]`. And the process that sends messages for a running gate.

use std::process::ExitCode;

use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};
use time::OffsetDateTime;
use tokio::time::Instant;

use super::run::RunArgs;
use super::{ConfigArg, CredentialsArg, exit, failed};
use crate::handover::ReceiverKind;
use crate::model::notice::NoticeEvent;
use crate::notify::{self, Notice, NotifierError, Receiver};

/// The options of `doorward notify`.
#[derive(Args, Debug)]
pub(super) struct NotifyArgs {
    #[command(flatten)]
    config: ConfigArg,
    #[command(flatten)]
    credentials: CredentialsArg,
    /// Send a message, and say what came back
    #[arg(long, required = true)]
    test: bool,
    /// About which event; "all" for each that events names
    #[arg(long, value_name = "EVENT", default_value = "impostor", value_parser = events())]
    event: String,
}

/// The examples in `doorward notify --help`.
pub(super) const EXAMPLE: &str = "\
Examples:
  doorward notify --test
  doorward notify --test --event all";

fn events() -> PossibleValuesParser {
    PossibleValuesParser::new(NoticeEvent::ALL.map(NoticeEvent::label).into_iter().chain(["all"]))
}

pub(super) fn run(args: &NotifyArgs) -> ExitCode {
    let config = match args.config.load_with(args.credentials.credentials()) {
        Ok(config) => config,
        Err(code) => return code,
    };
    if !config.notify.is_on() {
        let message = format!(
            "{} has no [notify], so no messages are sent\n  add it: doorward help notices",
            config.file.display()
        );
        return failed(exit::CONFIG, &message);
    }
    let all = args.event == "all";
    let events: Vec<NoticeEvent> = NoticeEvent::ALL
        .into_iter()
        .filter(|event| if all { config.notify.events.contains(event) } else { event.label() == args.event })
        .collect();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(exit::UNEXPECTED, &error),
    };
    let delivered = runtime.block_on(async {
        let mut delivered = true;
        for receiver in Receiver::all(&config.notify) {
            for event in &events {
                let notice = Notice::example(*event, config.domain(), OffsetDateTime::now_utc());
                let begun = Instant::now();
                match receiver.deliver(&notice).await {
                    Ok(answer) => {
                        let took = begun.elapsed().as_millis();
                        outln!("{}: {} delivered in {took} ms: {answer}", receiver.name(), event.label());
                    }
                    Err(failure) => {
                        delivered = false;
                        errln!("error: {}: {} not delivered: {}", receiver.name(), event.label(), failure.error);
                    }
                }
            }
        }
        delivered
    });
    // A look-up of a name may hang.
    runtime.shutdown_background();
    if delivered { exit::OK.into() } else { exit::NOT_DELIVERED.into() }
}

/// The receiver, and the arguments of the gate.
#[derive(Args, Debug)]
pub(super) struct NotifierArgs {
    #[arg(long)]
    receiver: Kind,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Webhook,
    Command,
}

pub(super) fn send(args: &NotifierArgs) -> ExitCode {
    let file = match args.run.config() {
        Ok(file) => file,
        Err(message) => return failed(exit::CONFIG, &message),
    };
    let kind = match args.receiver {
        Kind::Webhook => ReceiverKind::Webhook,
        Kind::Command => ReceiverKind::Command,
    };
    match notify::notifier(&file, kind) {
        Ok(()) => exit::OK.into(),
        Err(error @ NotifierError::NoChannel) => failed(exit::USAGE, &error),
        Err(error) => failed(exit::UNEXPECTED, &format!("messages to the owner cannot be sent: {error}")),
    }
}
