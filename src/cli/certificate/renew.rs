//! `doorward certificate renew`: the running gate orders the public certificate now.

use std::path::Path;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use clap::Args;
use tokio::time::Instant;

use super::status::{failure_text, mark_own, text};
use crate::cli::control_args::ControlArgs;
use crate::cli::{exit, failed};
use crate::control::client::ask;
use crate::control::{Answer, Certificates, Orders, Request};
use crate::explain::clock::Clock;
use crate::model::issuance::Phase;
use crate::model::names::visible;

/// How long an order may take: a server may take minutes to validate.
const LONGEST: Duration = Duration::from_secs(15 * 60);
/// How often the gate is asked.
const EVERY: Duration = Duration::from_millis(250);
/// How long the process that orders may be away, as while it is started again.
const AWAY: Duration = Duration::from_secs(30);

/// The options of `doorward certificate renew`.
#[derive(Args, Debug)]
pub(super) struct RenewArgs {
    #[command(flatten)]
    control: ControlArgs,
}

pub(super) fn run(args: &RenewArgs) -> ExitCode {
    let socket = match args.control.socket() {
        Ok(socket) => socket,
        Err(code) => return code,
    };
    let certificates = match request(&socket, &Request::RenewCertificate) {
        Ok(certificates) => certificates,
        Err(message) => return failed(exit::NO_GATE, &message),
    };
    let Some(orders) = &certificates.orders else {
        return failed(exit::UNEXPECTED, &"the gate orders no certificate");
    };
    errln!("Ordering a certificate for {} from {}.", shown(&orders.names.join(", ")), shown(&orders.directory));
    match outcome(&socket, orders) {
        Ok(Outcome::Renewed(mut certificates)) => {
            mark_own(&mut certificates, &args.control);
            args.control.print(&certificates, |certificates| text(certificates, &Clock::system()))
        }
        Ok(Outcome::Failed(orders)) => {
            let why = orders.failure.as_ref().map(|failure| failure_text(failure, &Clock::system()));
            let lines: Vec<String> = why.unwrap_or_default().lines().map(shown).collect();
            failed(
                exit::NOT_ISSUED,
                &format!("no certificate was issued; the one in use stays in use\n{}", lines.join("\n")),
            )
        }
        Err((code, message)) => failed(code, &message),
    }
}

enum Outcome {
    Renewed(Certificates),
    Failed(Orders),
}

/// Waits until one more certificate was issued than `before`, or one more order has failed.
fn outcome(socket: &Path, before: &Orders) -> Result<Outcome, (u8, String)> {
    let (mut renewed, mut failed) = (before.renewed, before.failed);
    let (begun, mut present) = (Instant::now(), Instant::now());
    while begun.elapsed() < LONGEST {
        sleep(EVERY);
        let certificates = request(socket, &Request::Certificates).map_err(|message| (exit::NO_GATE, message))?;
        let Some(orders) = &certificates.orders else {
            return Err((
                exit::NOT_ISSUED,
                "the gate orders no certificate any more; see its configuration".to_owned(),
            ));
        };
        // Another process counts from 0.
        (renewed, failed) = (renewed.min(orders.renewed), failed.min(orders.failed));
        if orders.renewed > renewed {
            return Ok(Outcome::Renewed(certificates));
        }
        if orders.failed > failed {
            return Ok(Outcome::Failed(orders.clone()));
        }
        if orders.phase != Some(Phase::Stopped) {
            present = Instant::now();
        } else if present.elapsed() > AWAY {
            return Err((
                exit::NOT_ISSUED,
                "the process that orders certificates does not run; see the log".to_owned(),
            ));
        }
    }
    Err((exit::NOT_ISSUED, "the order takes too long to wait for; for its result: doorward certificate".to_owned()))
}

fn request(socket: &Path, request: &Request) -> Result<Certificates, String> {
    match ask(socket, request) {
        Ok(Answer::Certificates(certificates)) => Ok(*certificates),
        Ok(Answer::Error(error)) => {
            Err(format!("the gate at {} refused the request: {}", socket.display(), visible(&error, 1024)))
        }
        Ok(_) => Err("the gate sent the answer to another request".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Without what could control the terminal.
fn shown(text: &str) -> String {
    visible(text, 4096)
}
